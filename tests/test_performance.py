"""Facts about replica types: memory by hand, physical limits of step times, length mixes, evidence tiers.

Expected numbers are worked out here from the architecture, never read back from the code under test.
"""

from __future__ import annotations

import csv
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.catalog.cards import read_card
from planner.catalog.files import read_csv
from planner.catalog.records import GIB, Architecture, Gpu, MeasuredConfiguration
from planner.errors import CatalogError
from planner.performance.coefficients import UNSEEN, Coefficients, generation_of, load_coefficients
from planner.performance.evidence import TIERS, evidence, step_shift
from planner.performance.lengths import LengthMix, lognormal_mix
from planner.performance.memory import memory_fit
from planner.performance.physics import kv_per_sequence, shapes
from planner.performance.replicas import ENGINES, PRECISIONS, Replicas
from planner.performance.residual import residuals_of
from planner.performance.step import GRID, step_curves

ROOT = Path(__file__).parents[1]
CARDS = ("llama-3.1-8b", "llama-3.1-70b", "deepseek-v3", "gpt-oss-120b", "qwen3-next-80b-a3b", "gemma-3-27b", "qwen3-235b-a22b", "kimi-k2")


@lru_cache
def architecture(name: str) -> Architecture:
    return read_card(ROOT / "models" / f"{name}.toml").architecture


@lru_cache
def gpus() -> tuple[Gpu, ...]:
    return tuple(read_csv(ROOT / "catalogs" / "gpus.csv", Gpu))


@lru_cache
def coefficients() -> Coefficients:
    return load_coefficients(ROOT / "catalogs" / "coefficients.json")


def replica(name: str, gpu: str, precision: str = "bf16", engine: str = "vllm", tp: int = 1, pp: int = 1) -> Replicas:
    """One replica type."""
    index = [g.name for g in gpus()].index(gpu)
    a, g, p, e = (np.array([v]) for v in (0, index, PRECISIONS.index(precision), ENGINES.index(engine)))
    return Replicas((architecture(name),), gpus(), a, g, p, e, np.array([tp]), np.array([pp]))


def fixed(inputs: float, outputs: float) -> LengthMix:
    return lognormal_mix(inputs, outputs, 0, 0)


MIX = lognormal_mix(1000, 300, 0.9, 0.7)


def shipped_curves() -> list[dict[str, str]]:
    with (ROOT / "catalogs" / "curves.csv").open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def of_card(one: Architecture, gpu: str, precision: str, engine: str, tp: int) -> Replicas:
    numbers = (0, [g.name for g in gpus()].index(gpu), PRECISIONS.index(precision), ENGINES.index(engine), tp, 1)
    return Replicas((one,), gpus(), *(np.array([n]) for n in numbers))


def everything() -> Replicas:
    """Many replica types of every kind of architecture."""
    rng = np.random.default_rng(7)
    size = 400
    table = tuple(architecture(n) for n in CARDS)
    a, g, p, e = (rng.integers(0, k, size) for k in (len(table), len(gpus()), len(PRECISIONS), len(ENGINES)))
    return Replicas(table, gpus(), a, g, p, e, 2 ** rng.integers(0, 4, size), 1 + (rng.random(size) < 0.2).astype(int))


# ---- memory ----


def test_llama_8b_on_one_h100_by_hand() -> None:
    memory = memory_fit(replica("llama-3.1-8b", "H100-SXM-80GB"), fixed(1000, 200))
    gpu = next(g for g in gpus() if g.name == "H100-SXM-80GB")
    assert memory.weights[0] == pytest.approx(8.03e9 * 2 / GIB, rel=1e-3)
    per_token = 2 * 8 * 128 * 32 * 2  # key and value, 8 heads of 128, 32 layers, 2 bytes
    assert memory.kv_gib_per_sequence[0] == pytest.approx(1200 * per_token / GIB)
    left = 0.92 * gpu.memory_gib - 8.03e9 * 2 / GIB - memory.activations[0] - memory.reserve[0]
    assert memory.kv_budget_gib[0] == pytest.approx(left, abs=0.01)
    assert memory.slots[0] == int(left / (1200 * per_token / GIB))
    assert 300 < memory.slots[0] < 400


def test_tensor_parallel_splits_weights_and_heads_until_one_is_left() -> None:
    one, eight = (shapes(replica("llama-3.1-70b", "H100-SXM-80GB", tp=tp)) for tp in (1, 8))
    assert eight.stored[0] == pytest.approx(one.stored[0] / 8)
    assert eight.kv_heads_bytes[0] == pytest.approx(one.kv_heads_bytes[0] / 8)
    four, many = (shapes(replica("qwen3-235b-a22b", "H100-SXM-80GB", tp=tp)) for tp in (4, 8))  # 4 KV heads
    assert many.kv_heads_bytes[0] == four.kv_heads_bytes[0]


def test_mla_keeps_one_latent_per_token_on_every_rank() -> None:
    for tp in (1, 8):
        shape = shapes(replica("deepseek-v3", "B200-SXM", "fp8", tp=tp))
        assert shape.kv_heads_bytes[0] == (512 + 64) * 61  # 1 byte: FP8 cache
    assert shapes(replica("deepseek-v3", "B200-SXM", "bf16")).kv_heads_bytes[0] == (512 + 64) * 61 * 2


def test_deepseek_fp8_needs_eight_h200_and_does_not_fit_eight_h100() -> None:
    mix = fixed(1000, 300)
    assert memory_fit(replica("deepseek-v3", "H200-SXM-141GB", "fp8", tp=8), mix).slots[0] > 0
    assert memory_fit(replica("deepseek-v3", "H200-SXM-141GB", "fp8", tp=4), mix).slots[0] == 0
    assert memory_fit(replica("deepseek-v3", "H100-SXM-80GB", "fp8", tp=8), mix).slots[0] == 0


def test_sliding_windows_and_linear_layers_keep_little() -> None:
    long = np.array([100_000.0])
    gemma = replica("gemma-3-27b", "H100-SXM-80GB")
    a = architecture("gemma-3-27b")
    full = 2 * a.kv_heads * a.head_dim * 2 * a.full_attention_layers * 100_000
    slide = 2 * (a.sliding_kv_heads or a.kv_heads) * (a.sliding_head_dim or a.head_dim) * 2 * a.sliding_layers * a.sliding_window
    assert kv_per_sequence(gemma, shapes(gemma), long)[0] == pytest.approx(full + slide)
    hybrid = replica("qwen3-next-80b-a3b", "H100-SXM-80GB")
    b = architecture("qwen3-next-80b-a3b")
    expected = 2 * b.kv_heads * b.head_dim * 2 * b.full_attention_layers * 100_000 + b.linear_state_bytes
    assert kv_per_sequence(hybrid, shapes(hybrid), long)[0] == pytest.approx(expected)


def test_pipeline_parallel_splits_layers() -> None:
    mix = fixed(1000, 300)
    one, two = (memory_fit(replica("llama-3.1-70b", "H200-SXM-141GB", tp=2, pp=pp), mix) for pp in (1, 2))
    assert two.weights[0] == pytest.approx(one.weights[0] / 2)
    assert two.slots[0] > 2 * one.slots[0]


def test_long_answers_that_are_there_for_longest_have_room() -> None:
    rng, one = np.random.default_rng(1), replica("llama-3.1-8b", "H100-SXM-80GB")
    per_token = 2 * 8 * 128 * 32 * 2 / GIB
    for cv, whole in ((0.3, True), (0.8, True), (1.5, False)):
        memory = memory_fit(one, lognormal_mix(500, 2000, cv, cv))
        sigma = np.sqrt(np.log1p(cv * cv))
        answers = 2000 * np.exp(sigma * rng.standard_normal(400_000) - sigma**2 / 2)
        seen = rng.choice(answers, 400_000, p=answers / answers.sum())  # by how long they are there
        held = (500 + seen * rng.random(400_000)) * per_token
        n = memory.slots[0]
        assert n * held.mean() + 2 * np.sqrt(n) * held.std() <= memory.kv_budget_gib[0] * 1.03  # chance: squares of long answers
        assert (n == int(memory.kv_budget_gib[0] / (2500 * per_token))) == whole  # as many as whole requests of mean length, where answers are alike


def test_a_request_longer_than_the_cache_does_not_fit() -> None:
    long = LengthMix(np.array([1000.0, 2_000_000.0]), np.array([100.0, 100.0]))
    assert memory_fit(replica("llama-3.1-8b", "H100-SXM-80GB"), long).slots[0] == 0


@given(st.floats(0.5, 0.98), st.floats(0.5, 0.98))
@settings(max_examples=20, deadline=None)
def test_more_memory_never_means_fewer_slots(a: float, b: float) -> None:
    mix = fixed(2000, 500)
    low, high = (memory_fit(everything(), mix, u).slots for u in sorted((a, b)))
    assert (low <= high).all()


# ---- step times ----


def test_no_step_beats_bandwidth_or_peak() -> None:
    replicas, mix = everything(), fixed(3000, 400)
    curves, shape = step_curves(replicas, mix, coefficients()), shapes(everything())
    assert (curves.step_s[:, 0] * shape.bandwidth >= shape.dense_read).all()
    full = shape.dense_read + shape.expert_read * (1 - (1 - np.where(shape.expert_read > 0, shape.expert_share, 0)) ** 64)
    at_64 = int(np.flatnonzero(GRID == 64)[0])
    single = replicas.pp == 1
    assert (curves.step_s[:, at_64] * shape.bandwidth >= full * (1 - 1e-9))[single].all()
    flops = shape.dense_flops + shape.expert_flops
    assert (curves.step_s[:, at_64] * shape.peak >= 64 * flops)[single].all()
    assert (curves.prefill_s_per_token * shape.peak >= flops).all()


def test_more_sequences_or_context_never_shorten_a_step() -> None:
    short, long = (step_curves(everything(), fixed(tokens, 400), coefficients()) for tokens in (500, 8000))
    assert (np.diff(short.step_s, axis=1) >= 0).all()
    assert (long.step_s >= short.step_s).all()
    assert (np.diff(long.prompt_s(np.array([500.0, 8000.0])), axis=1) > 0).all() and (long.prompt_s(8000.0) > short.prompt_s(500.0)).all()


def test_scaling_never_beats_bandwidth() -> None:
    curves = step_curves(everything(), fixed(3000, 400), coefficients())
    halved = curves.scaled(np.full(len(curves), 0.5))
    assert (halved.step_s >= curves.floor_s).all()
    assert (halved.step_s <= curves.step_s).all()
    slower = curves.scaled(np.full(len(curves), 1.3))
    assert np.allclose(slower.step_s, 1.3 * curves.step_s)
    assert np.allclose(slower.overhead_s, curves.overhead_s)


def test_llama_70b_fp8_on_h100_is_near_what_was_measured() -> None:
    # curves.csv, InferenceX: Llama-3.1-70B fp8, H100, vLLM, TP 4, 1024/1024, concurrency 4: between 12 and 20 ms
    curves = step_curves(replica("llama-3.1-70b", "H100-SXM-80GB", "fp8", tp=4), fixed(922, 922), coefficients())
    assert 0.008 < curves.step_s[0, 3] < 0.02


def test_an_unmeasured_vendor_gets_no_better_factor_than_a_measured_one() -> None:
    found = coefficients()
    names = [g.name for g in gpus()]
    factor = found.vendor_factor(everything())[:, 0]
    vendor = np.array([g.vendor for g in gpus()])[everything().gpu]
    assert (factor[vendor == "NVIDIA"] == 1).all()
    if "Gaudi3" in names:
        assert factor[vendor == "Intel"].min() >= factor.max()


# ---- lengths ----


@given(st.floats(20, 50_000), st.floats(20, 5_000), st.floats(0, 1.5), st.floats(0, 1.5))
@settings(max_examples=60, deadline=None)
def test_mix_keeps_means_and_spread(inputs: float, outputs: float, cv_in: float, cv_out: float) -> None:
    mix = lognormal_mix(inputs, outputs, cv_in, cv_out)
    assert mix.mean_input == pytest.approx(inputs) and mix.mean_output == pytest.approx(outputs)
    assert mix.input_tokens.std() / inputs == pytest.approx(cv_in, abs=1e-3)
    assert mix.output_tokens.std() / outputs == pytest.approx(cv_out, abs=1e-3)
    if cv_in > 0.01 and cv_out > 0.01:
        ranks = np.argsort(np.argsort(mix.input_tokens)), np.argsort(np.argsort(mix.output_tokens))
        assert abs(np.corrcoef(*ranks)[0, 1]) < 0.05


def test_mix_refuses_nonsense() -> None:
    for wrong in ((0, 10, 0, 0), (10, 10, -1, 0)):
        with pytest.raises(ValueError, match="lengths"):
            lognormal_mix(*wrong)


# ---- evidence ----


def measured(name: str, precision: str, gpu: str, engine: str, tp: int) -> MeasuredConfiguration:
    return MeasuredConfiguration(
        architecture=name, precision=precision, gpu=gpu, engine=engine, tp=tp, points=5, source="test", as_of="2026-01-01", licence="MIT"
    )


def test_tiers_from_near_to_far() -> None:
    table = [measured("A", "fp8", "H100-SXM-80GB", "vllm", 4), measured("B", "fp8", "H200-SXM-141GB", "vllm", 8)]
    index = {g.name: i for i, g in enumerate(gpus())}
    #        architecture, gpu, precision, engine, tp, pp
    rows = [
        (0, index["H100-SXM-80GB"], "fp8", "vllm", 4, 1),
        (0, index["H100-SXM-80GB"], "fp8", "vllm", 8, 1),
        (0, index["H100-SXM-80GB"], "bf16", "sglang", 4, 1),
        (0, index["H100-SXM-80GB"], "fp8", "vllm", 4, 2),
        (1, index["H100-SXM-80GB"], "fp8", "vllm", 4, 1),
        (0, index["L40S"], "fp8", "vllm", 4, 1),
    ]
    columns = [np.array([r[0] for r in rows]), np.array([r[1] for r in rows]), np.array([PRECISIONS.index(r[2]) for r in rows])]
    columns += [np.array([ENGINES.index(r[3]) for r in rows]), np.array([r[4] for r in rows]), np.array([r[5] for r in rows])]
    replicas = Replicas((architecture("llama-3.1-8b"),) * 2, gpus(), *columns)
    found = evidence(replicas, ("A", "B"), table)
    assert [TIERS[t] for t in found.tier] == ["measured", "anchored", "anchored", "anchored", "transferred", "modelled"]
    assert found.nearest.tolist() == [0, 0, 0, 0, 0, -1]
    assert evidence(replicas, ("A", "B"), []).tier.tolist() == [3] * 6


def test_confidence_only_ever_slows() -> None:
    found = coefficients()
    tiers = np.arange(len(TIERS) + 1)  # the last is an unseen generation
    factors = [found.step_factor(tiers, c) for c in (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.99)]
    assert all((b >= a).all() for a, b in pairwise(factors))
    assert (factors[3] > 1).all()


def test_thinner_evidence_never_costs_less() -> None:
    found = coefficients()
    for confidence in (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.99):
        factors = found.step_factor(np.arange(len(TIERS) + 1), confidence)
        assert (np.diff(factors) >= 0).all()
        assert factors[-1] >= found.quantile(UNSEEN, confidence) >= residuals_of(found).step_quantile("measured", confidence)
    factors = found.step_factor(np.arange(len(TIERS) + 1), 0.8)
    assert factors[-1] > 1.1 * factors[-2]


@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.95])
def test_an_unseen_generation_is_never_better_known_than_a_seen_one(confidence: float) -> None:
    replicas, found = everything(), coefficients()
    unseen = found.unseen(replicas)
    assert unseen.any() and not unseen.all()
    none = step_shift(evidence(replicas, CARDS, []), replicas, CARDS, found, confidence, MIX, GRID)
    assert none.step[unseen].min() >= none.step[~unseen].max()
    table = [measured(c, p, g.name, e, tp) for c in CARDS for p in PRECISIONS for g in gpus() for e in ENGINES for tp in (1, 2, 4, 8)]
    known = evidence(replicas, CARDS, table)  # evidence that came after the fit moved no curve, so it makes no generation known
    assert known.tier.max() <= 1
    after = step_shift(known, replicas, CARDS, found, confidence, MIX, GRID)
    assert (after.step[unseen] == none.step[unseen]).all() and (after.prompt[unseen] == none.prompt[unseen]).all()


def test_only_generations_with_measured_gpus_count_as_seen() -> None:
    found = coefficients()
    shipped = {m.gpu for m in read_csv(ROOT / "catalogs" / "evidence.csv", MeasuredConfiguration)}
    assert {generation_of(g, 8) for g in gpus() if g.name in shipped} == set(found.generations_tested)
    for gpu, tp, expected in (
        *((name, 8, False) for name in shipped),
        *((name, tp, True) for name in ("A30", "A100-SXM-80GB", "L40S", "RTX-6000-Ada", "MI300X", "Gaudi3") for tp in (1, 4)),
        ("H100-PCIe-80GB", 1, False),
        ("H100-PCIe-80GB", 2, True),  # all-reduces over PCIe were never measured
    ):
        assert found.unseen(replica("llama-3.1-8b", gpu, tp=tp)).tolist() == [expected], (gpu, tp)


def test_measured_rows_are_pulled_to_their_measurements() -> None:
    """Over all shipped curves of 1,024 / 1,024 tokens, the kriged residual takes away most of what the physics misses."""
    found, cards = coefficients(), {card.name: card for card in (read_card(path) for path in sorted((ROOT / "models").glob("*.toml")))}
    mix, missed = fixed(922, 922), ([], [])  # InferenceX draws 0.8 to 1.0 of nominal lengths
    for r in shipped_curves():
        if (r["isl"], r["osl"], r["dp"], r["source"]) != ("1024", "1024", "1", "InferenceX") or r["model"] not in cards:
            continue
        own = of_card(cards[r["model"]].architecture, r["gpu"], r["precision"], r["engine"], int(r["tp"]))
        near = evidence(own, (r["model"],), [measured(r["model"], r["precision"], r["gpu"], r["engine"], int(r["tp"]))])
        load = np.array([float(r["concurrency"])])
        shift, physics = step_shift(near, own, (r["model"],), found, 0.5, mix, load), step_curves(own, mix, found, load)
        for errors, step, prompt in ((missed[0], 1.0, 1.0), (missed[1], shift.step[0, 0], shift.prompt[0])):
            tpot = physics.step_s[0, 0] * step + physics.prefill_s_per_token[0] * prompt * load[0]
            errors.append(abs(np.log(1000 * tpot / float(r["tpot_ms"]))))
    assert len(missed[0]) > 300
    assert np.median(missed[1]) < 0.5 * np.median(missed[0])


def test_another_tp_is_known_less_well_than_the_measured_one() -> None:
    found, name, row = coefficients(), "Llama-3.1-70B", measured("Llama-3.1-70B", "fp8", "H200-SXM-141GB", "trtllm", 1)
    widths = {}
    for tp in (1, 2):
        own = replica("llama-3.1-70b", row.gpu, "fp8", "trtllm", tp=tp)
        sure, median = (step_shift(evidence(own, (name,), [row]), own, (name,), found, c, MIX, GRID).step for c in (0.9, 0.5))
        widths[tp] = (sure / median).max()
    assert 1 < widths[1] < widths[2] < found.quantile(TIERS[0], 0.9) / found.quantile(TIERS[0], 0.5)
    own = replica("llama-3.1-70b", row.gpu, "fp8", "trtllm", tp=1)
    unknown = step_shift(evidence(own, (name,), []), own, (name,), found, 0.8, MIX, GRID)
    assert np.allclose(unknown.step, max(found.quantile(tier, 0.8) for tier in TIERS))


def test_broken_coefficients_say_so(tmp_path: Path) -> None:
    path = tmp_path / "coefficients.json"
    with pytest.raises(CatalogError, match="cannot read"):
        load_coefficients(path)
    path.write_text("{}")
    with pytest.raises(CatalogError, match="not a file of fitted coefficients"):
        load_coefficients(path)
