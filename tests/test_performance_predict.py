"""Facts about closed-loop predictions: physical limits, monotone in the load, finite everywhere, near what was measured.

Limits are worked out here from the architecture and the GPU, never read back from the code under test.
"""

from __future__ import annotations

import json
from dataclasses import fields
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.catalog.cards import read_card
from planner.catalog.files import read_csv
from planner.catalog.records import Architecture, Gpu, MeasuredConfiguration
from planner.errors import CatalogError
from planner.performance.coefficients import TIERS, Coefficients, load_coefficients
from planner.performance.loop import LOOP_GRID, LoopCurves, LoopTerms, loop, loop_columns, loop_means, prompt_floor, prompt_seconds, step_floor, steps_waited
from planner.performance.predict import TERMS, Loops, Prediction, breakdown, closed_loop, monotone, ttft_parts
from planner.performance.replicas import ENGINES, PRECISIONS, Floats, Replicas
from planner.performance.residual import PLAIN, load_residuals, residuals_of

ROOT = Path(__file__).parents[1]
CATALOGS = ROOT / "catalogs"
SWEEP = 100_000
PER_GPU = {"bandwidth_gb_s", "memory_gib", "link_gb_s", "bf16_tflops", "fp8_tflops", "fp4_tflops", "int8_tops"}


@lru_cache
def cards() -> tuple[tuple[str, ...], tuple[Architecture, ...]]:
    found = [read_card(path) for path in sorted((ROOT / "models").glob("*.toml"))]
    return tuple(c.name for c in found), tuple(c.architecture for c in found)


@lru_cache
def gpus() -> tuple[Gpu, ...]:
    return tuple(read_csv(CATALOGS / "gpus.csv", Gpu))


@lru_cache
def coefficients() -> Coefficients:
    return load_coefficients(CATALOGS / "coefficients.json")


@lru_cache
def known() -> tuple[MeasuredConfiguration, ...]:
    return tuple(read_csv(CATALOGS / "evidence.csv", MeasuredConfiguration))


def random_configurations(seed: int, size: int) -> tuple[Replicas, Floats, Floats, Floats]:
    """Any card on any GPU in any precision and on any engine, whether or not it fits; lengths and loads over four decades."""
    rng, (_, table) = np.random.default_rng(seed), cards()
    a, g, p, e = (rng.integers(0, k, size) for k in (len(table), len(gpus()), len(PRECISIONS), len(ENGINES)))
    replicas = Replicas(table, gpus(), a, g, p, e, 2 ** rng.integers(0, 4, size), 2 ** rng.integers(0, 2, size))
    isl, osl, load = (np.round(2 ** rng.uniform(low, high, size)) for low, high in ((0, 17), (0, 15), (0, 14)))
    return replicas, isl, osl, load


def predicted(replicas: Replicas, isl: Floats, osl: Floats, load: Floats, confidence: float = 0.9) -> Prediction:
    return closed_loop(Loops(replicas, isl, osl, load, cards()[0]), known(), coefficients(), confidence, "exact")


def replica(name: str, gpu: str, precision: str, engine: str, tp: int, times: int = 1) -> Replicas:
    row = (cards()[0].index(name), [g.name for g in gpus()].index(gpu), PRECISIONS.index(precision), ENGINES.index(engine), tp, 1)
    return Replicas(cards()[1], gpus(), *(np.full(times, v) for v in row))


# ---- limits ----


def test_no_prediction_is_nan_or_negative_or_beats_the_hardware() -> None:
    replicas, isl, osl, load = random_configurations(1, SWEEP)
    found = predicted(replicas, isl, osl, load)
    for field in fields(Prediction):
        assert np.isfinite(getattr(found, field.name)).all(), field.name
    for name in ("ttft_ms", "tpot_ms", "output_tps", "ttft_low", "tpot_low", "tps_low"):
        assert (getattr(found, name) > 0).all(), name
    work = loop(replicas, isl, osl)
    assert (found.tpot_ms / 1000 >= step_floor(work, found.in_flight_decoding[:, None])[:, 0] * (1 - 1e-9)).all()
    assert (found.ttft_ms / 1000 >= prompt_floor(work) * (1 - 1e-9)).all()
    assert (found.in_flight_decoding <= load).all()
    assert (found.in_flight_decoding[found.fits] <= work.slots[found.fits] * (1 + 1e-9)).all()


def test_floors_are_bytes_over_bandwidth_and_flops_over_peak_by_hand() -> None:
    own = replica("Llama-3.1-70B", "H100-SXM-80GB", "fp8", "vllm", 4)
    gpu = next(g for g in gpus() if g.name == "H100-SXM-80GB")
    work = loop(own, np.array([1000.0]), np.array([200.0]))
    assert 0.95 < step_floor(work, np.ones((1, 1)))[0, 0] / (70e9 / 4 / (gpu.bandwidth_gb_s * 1e9)) < 1.1
    assert 0.95 < prompt_floor(work)[0] / (1000 * 2 * 70e9 / 4 / ((gpu.fp8_tflops or 0) * 1e12)) < 1.05


def test_more_load_never_lowers_tpot_or_throughput() -> None:
    replicas, isl, osl, _ = random_configurations(2, 1500)
    before = None
    for load in (1, 2, 3, 5, 8, 13, 21, 40, 64, 100, 256, 700, 1024, 3000, 16384):
        found = predicted(replicas, isl, osl, np.full(1500, float(load)))
        if before is not None:
            assert (found.tpot_ms >= before.tpot_ms * (1 - 1e-9)).all(), load
            assert (found.output_tps >= before.output_tps * (1 - 1e-9)).all(), load
        before = found


@given(st.integers(0, 2**31), st.floats(0, 14), st.floats(0, 14))
@settings(max_examples=40, deadline=None)
def test_any_two_loads_are_in_order(seed: int, one: float, other: float) -> None:
    replicas, isl, osl, _ = random_configurations(seed, 50)
    low, high = (predicted(replicas, isl, osl, np.full(50, 2**x)) for x in sorted((one, other)))
    assert (high.tpot_ms >= low.tpot_ms * (1 - 1e-9)).all()
    assert (high.output_tps >= low.output_tps * (1 - 1e-9)).all()


@given(st.lists(st.tuples(st.floats(1e-4, 1), st.floats(1e-4, 10)), min_size=3, max_size=12), st.floats(1, 5000), st.floats(1, 1e4))
@settings(max_examples=100, deadline=None)
def test_projection_makes_any_curve_monotone(points: list[tuple[float, float]], output: float, room: float) -> None:
    load = 2.0 ** np.arange(len(points))[None, :]
    tpot, ttft = (np.array([[p[i] for p in points]]) for i in (0, 1))
    found = monotone(LoopCurves(load, load, ttft, tpot), np.array([output]), np.array([[room]]))
    rate = load / (found.ttft_s + found.tpot_s * (output - 1))
    assert (np.diff(found.tpot_s) >= 0).all() and (found.ttft_s > 0).all()
    assert (np.diff(rate) >= -1e-9 * rate[:, 1:]).all()
    rising = LoopCurves(load, load, np.ones_like(load), np.ones_like(load))
    assert np.array_equal(monotone(rising, np.array([output]), np.full((1, 1), 1e9)).tpot_s, rising.tpot_s)


def test_larger_tp_never_leaves_less_room() -> None:
    names, table = cards()
    rows = [(a, g, p) for a in range(len(names)) for g in range(len(gpus())) for p in range(len(PRECISIONS))]
    a, g, p = (np.array(column) for column in zip(*rows, strict=True))
    before = np.zeros(len(rows), dtype=np.int64)
    for tp in (1, 2, 4, 8):
        replicas = Replicas(table, gpus(), a, g, p, np.zeros_like(a), np.full(len(rows), tp), np.ones_like(a))
        slots = loop(replicas, np.full(len(rows), 2000.0), np.full(len(rows), 500.0)).slots
        assert (slots >= before).all(), tp
        before = slots


@given(st.floats(1, 3), st.floats(1, 3), st.floats(1, 3), st.floats(1, 3))
@settings(max_examples=20, deadline=None)
def test_physics_never_calls_a_gpu_slower_that_is_faster_in_every_spec(bandwidth: float, flops: float, link: float, memory: float) -> None:
    replicas, isl, osl, _ = random_configurations(5, 400)
    factor = {"bandwidth_gb_s": bandwidth, "link_gb_s": link, "memory_gib": memory}
    faster = tuple(g.model_copy(update={n: getattr(g, n) * factor.get(n, flops) for n in PER_GPU if getattr(g, n, None)}) for g in gpus())
    better = Replicas(replicas.architectures, faster, *(getattr(replicas, f) for f in ("architecture", "gpu", "precision", "engine", "tp", "pp")))
    terms, sequences = residuals_of(coefficients()).terms, np.broadcast_to(LOOP_GRID, (400, len(LOOP_GRID)))
    one, two = (loop_means(loop(r, isl, osl), loop_columns(r, coefficients(), terms), sequences) for r in (replicas, better))
    assert (two[0] <= one[0] * (1 + 1e-12)).all() and (two[1] <= one[1] * (1 + 1e-12)).all()


# ---- bands and evidence ----


def test_bands_hold_the_middle_and_widen_with_confidence() -> None:
    replicas, isl, osl, load = random_configurations(3, 3000)
    narrow, wide = (predicted(replicas, isl, osl, load, c) for c in (0.8, 0.95))
    for metric in ("tpot", "ttft", "tps"):
        for side, sign in (("low", -1), ("high", 1)):
            assert (sign * getattr(wide, f"{metric}_{side}") >= sign * getattr(narrow, f"{metric}_{side}")).all()
        assert (getattr(narrow, f"{metric}_low") < getattr(narrow, f"{metric}_high")).all()


def test_thinner_evidence_never_has_a_narrower_band() -> None:
    replicas, isl, osl, load = random_configurations(4, 3000)
    found = predicted(replicas, isl, osl, load)
    level = np.where(found.unseen, len(TIERS), found.tier)
    high = [float((found.tpot_high / found.tpot_ms)[level == k].max()) for k in range(len(TIERS) + 1) if (level == k).any()]
    assert high == sorted(high) and high[0] > 1


def test_measured_curves_are_met() -> None:
    """The shipped curves took part in the training, so this asks for little: that training and prediction agree."""
    measured_rows = pytest.importorskip("planner.calibration.measured")
    from collections import Counter

    read = [read_card(path) for path in sorted((ROOT / "models").glob("*.toml"))]
    rows = measured_rows.read_rows([CATALOGS / "curves.csv"], read, list(gpus()), Counter())
    own = rows.take(np.flatnonzero(rows.harness == 0))
    found = predicted(own.replicas, own.input_tokens, own.output_tokens, own.concurrency)
    kept = np.isfinite(own.ttft_s)
    assert np.median(np.abs(found.tpot_ms / 1000 / own.tpot_s - 1)) < 0.05
    assert np.median(np.abs(found.ttft_ms / 1000 / own.ttft_s - 1)[kept]) < 0.08


def test_harness_decides_the_lengths() -> None:
    own = replica("Llama-3.1-8B", "H100-SXM-80GB", "bf16", "vllm", 1)
    isl, osl, load = np.array([2000.0]), np.array([500.0]), np.array([16.0])
    nominal = closed_loop(Loops(own, isl, osl, load, cards()[0]), known(), coefficients(), harness="inferencex")
    exact = closed_loop(Loops(own, 0.9 * isl, 0.9 * osl, load, cards()[0]), known(), coefficients(), harness="exact")
    assert nominal.tpot_ms[0] == pytest.approx(exact.tpot_ms[0])
    other = closed_loop(Loops(own, 0.9 * isl, 0.9 * osl, load, cards()[0]), known(), coefficients(), harness="nvidia")
    assert other.ttft_ms[0] > exact.ttft_ms[0]


# ---- where the time goes ----


def test_breakdown_adds_up_to_the_physics() -> None:
    replicas, isl, osl, _ = random_configurations(6, 500)
    one = np.ones(500)
    found = breakdown(replicas, isl, osl, one, coefficients(), "exact")
    work = loop(replicas, isl, osl)
    _, tpot = loop_means(work, loop_columns(replicas, coefficients(), residuals_of(coefficients()).terms), one[:, None])
    total = sum(getattr(found, name) for name in TERMS)
    assert np.allclose(total, 1000 * tpot[:, 0])
    largest = np.array([max(TERMS, key=lambda n, i=i: getattr(found, n)[i]) for i in range(500)])
    assert (largest == found.bottleneck).all()


def test_bottlenecks_are_those_of_the_textbook() -> None:
    lone = breakdown(replica("Llama-3.1-70B", "H100-SXM-80GB", "bf16", "vllm", 4), np.array([500.0]), np.array([500.0]), np.ones(1), coefficients())
    assert lone.bottleneck[0] == "weights"
    crowd = breakdown(replica("Llama-3.1-8B", "H100-SXM-80GB", "bf16", "vllm", 1), np.array([8000.0]), np.array([100.0]), np.array([64.0]), coefficients())
    assert crowd.bottleneck[0] == "prefill"


def test_parts_of_ttft_are_those_of_the_physics() -> None:
    replicas, isl, osl, _ = random_configurations(7, 200)
    one, polls = np.ones(200), np.where(np.arange(200) % 2, 30.0, 1.0)
    work, terms = loop(replicas, isl, osl, polls), residuals_of(coefficients()).terms
    e = loop_columns(replicas, coefficients(), terms)
    ttft, tpot = (1000 * found[:, 0] for found in loop_means(work, e, one[:, None]))
    found = ttft_parts(Loops(replicas, isl, osl, one, cards()[0], poll_steps=polls), coefficients(), ttft, "exact")
    assert np.allclose(sum(found.values()), ttft)
    assert np.allclose(found["schedule"] + found["first_decode"], steps_waited(work, e)[:, 0] * tpot)
    assert np.allclose(found["prefill"], 1000 * prompt_seconds(work, e)[:, 0]) and np.allclose(found["queue"], 0)
    at_every_step = 1000 * loop_means(loop(replicas, isl, osl), e, one[:, None])[0][:, 0]
    assert np.allclose(ttft - at_every_step, terms.polled * (polls - 1) * tpot)


# ---- the stored process ----


def test_the_file_holds_features_and_weights_only() -> None:
    raw = json.loads((CATALOGS / "residuals.json").read_text())
    assert set(raw) == {"source", "fitted", "data", "terms", "kernels", "quantiles", "quantiles_by_stack", "errors", "configurations", "points"}
    assert all(len(p) == 4 and max(abs(p[2]), abs(p[3])) < 500 for p in raw["points"])
    coefficients_data = json.loads((CATALOGS / "coefficients.json").read_text())["data"]
    assert raw["data"] == coefficients_data  # physics and residual are of one fit


def test_stored_errors_meet_the_bars() -> None:
    errors = json.loads((CATALOGS / "residuals.json").read_text())["errors"]
    bars = {"configuration": (0.06, 0.15, 0.06), "model": (0.14, 0.35, 0.14), "gpu": (0.13, 0.28, 0.14)}
    for split, medians in bars.items():
        for metric, bar in zip(("tpot", "ttft", "tps"), medians, strict=True):
            assert errors[f"leave_{split}_out"][metric]["median"] <= bar, (split, metric)


def test_without_the_file_predictions_are_the_physics(tmp_path: Path) -> None:
    assert load_residuals(tmp_path / "residuals.json") is PLAIN
    alone = tmp_path / "coefficients.json"
    alone.write_text((CATALOGS / "coefficients.json").read_text())
    replicas, isl, osl, load = random_configurations(8, 50)
    found = closed_loop(Loops(replicas, isl, osl, load, cards()[0]), known(), load_coefficients(alone))
    assert np.isfinite(found.tpot_ms).all() and (found.tpot_high == found.tpot_ms).all()


def test_a_broken_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "residuals.json"
    path.write_text('{"configurations": 3}')
    with pytest.raises(CatalogError, match="not a file of residuals"):
        load_residuals(path)


def test_terms_of_all_engines_are_there() -> None:
    terms = residuals_of(coefficients()).terms
    assert isinstance(terms, LoopTerms) and set(terms.burst) == set(terms.start_steps) == set(ENGINES)
