"""Speculative decoding: ratios only where they were measured, errors from configurations left out, and steps that stay plausible."""

from __future__ import annotations

import csv
from collections import Counter
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from planner.catalog.files import read_csv
from planner.catalog.load import load_catalog, shipped_folders
from planner.performance.lengths import lognormal_mix
from planner.performance.replicas import ENGINES, PRECISIONS, Replicas
from planner.performance.speculation import FILE, Speculation, SpeculationRatio, draft_share, measured_loads, speculation, speculative_curves
from planner.performance.step import GRID, StepCurves

MIX = lognormal_mix(1000, 500, 0.5, 0.5)


def ratio(load: int, tpot: float, ttft: float = 1.2, output: float = 1024, tp: int = 8) -> SpeculationRatio:
    return SpeculationRatio(
        architecture="DeepSeek-V3", gpu="H200-SXM-141GB", precision="fp8", engine="sglang", method="mtp", tp=tp, ep=1, attention_dp=False, input_tokens=1024,
        output_tokens=output, concurrency=load, tpot_ratio=tpot, ttft_ratio=ttft, pairs=1, source="test", as_of=date(2026, 1, 1), licence="CC0",
    )  # fmt: skip


def replicas(tp: list[int], gpu: str = "H200-SXM-141GB") -> tuple[Replicas, tuple[str, ...]]:
    catalog = load_catalog()
    card = next(c for c in catalog.cards if c.name == "DeepSeek-V3")
    none = np.zeros(len(tp), dtype=np.int64)
    sizes = np.array(tp)
    found = Replicas(
        (card.architecture,), (catalog.gpus[gpu],), none, none, none + PRECISIONS.index("fp8"), none + ENGINES.index("sglang"), sizes, np.ones_like(sizes)
    )
    return found, (card.name,)


def curves(count: int) -> StepCurves:
    step = np.repeat((0.01 + 1e-4 * GRID)[None], count, axis=0)
    return StepCurves(GRID, step, np.full(count, 2e-5), np.full(count, 0.02), step * 0.8)


def one_group(*rows: SpeculationRatio) -> Speculation:
    """Two equal configurations, so that errors are known and nil."""
    return speculation([*rows, *(r.model_copy(update={"output_tokens": 8192.0}) for r in rows)])


def test_the_step_is_shorter_by_the_ratio_at_each_load_and_straight_in_log_load_between() -> None:
    found = one_group(ratio(4, 0.5), ratio(64, 0.8))
    which, names = replicas([8])
    faster = speculative_curves(found, which, names, curves(1), MIX, 0.5).step_s / curves(1).step_s
    assert faster[0, np.searchsorted(GRID, 4)] == pytest.approx(0.5)
    assert faster[0, np.searchsorted(GRID, 64)] == pytest.approx(0.8)
    assert faster[0, np.searchsorted(GRID, 16)] == pytest.approx(np.sqrt(0.5 * 0.8))
    assert faster[0, 0] == pytest.approx(0.5)  # below the lowest load: its ratio, although gains are larger there


def test_nothing_is_claimed_for_other_replica_types_or_higher_loads() -> None:
    found = one_group(ratio(4, 0.5), ratio(64, 0.8))
    which, names = replicas([8, 4])
    assert measured_loads(found, which, names).tolist() == [64, 0]
    elsewhere = replicas([8], "H100-SXM-80GB")
    assert measured_loads(found, *elsewhere).tolist() == [0]
    assert measured_loads(found, which, names, method="eagle").tolist() == [0, 0]
    plain, changed = curves(2), speculative_curves(found, which, names, curves(2), MIX, 0.9)
    np.testing.assert_array_equal(changed.step_s[1], plain.step_s[1])
    assert changed.overhead_s[1] == plain.overhead_s[1]


def test_more_sequences_never_make_a_step_shorter_and_a_slower_first_token_is_kept() -> None:
    found = one_group(ratio(4, 0.9, ttft=1.5), ratio(64, 0.4, ttft=1.5))
    which, names = replicas([8])
    plain, changed = curves(1), speculative_curves(found, which, names, curves(1), MIX, 0.8)
    assert (np.diff(changed.step_s) >= 0).all()
    first = plain.overhead_s[0] + plain.step_s[0, 0] + plain.prefill_s_per_token[0] * MIX.mean_input
    assert changed.overhead_s[0] - plain.overhead_s[0] == pytest.approx(0.5 * first)
    assert changed.prefill_s_per_token[0] == plain.prefill_s_per_token[0]
    faster = speculative_curves(one_group(ratio(4, 0.5, ttft=0.8)), which, names, plain, MIX, 0.8)
    assert faster.overhead_s[0] == plain.overhead_s[0]  # drafting cannot speed up a prompt


def test_confidence_uses_the_errors_of_configurations_left_out() -> None:
    spread = [ratio(4, r, output=1000.0 + i) for i, r in enumerate((0.4, 0.5, 0.6, 0.8))]
    found = speculation(spread)
    assert len(found.errors) == 4
    assert found.errors.max() == pytest.approx(0.8 / np.exp(np.mean(np.log([0.4, 0.5, 0.6]))))
    at = [found.quantile(c) for c in (0.5, 0.8, 0.9, 0.99)]
    assert at == sorted(at)
    assert at[0] >= 1
    assert found.quantile(0.99) == pytest.approx(found.errors.max())
    with pytest.raises(ValueError, match="unknown"):
        speculation([ratio(4, 0.5)]).quantile(0.8)


def test_shipped_ratios_are_readable_and_as_scattered_as_documented() -> None:
    catalog = load_catalog()
    rows = read_csv(shipped_folders()[1] / FILE, SpeculationRatio)
    assert {r.architecture for r in rows} <= {c.name for c in catalog.cards}
    assert {r.gpu for r in rows} <= set(catalog.gpus)
    assert all(0.3 < r.tpot_ratio < 1.2 for r in rows)
    found = speculation(rows)
    assert 0.08 < np.median(np.abs(1 / found.errors - 1)) < 0.16
    assert 1.1 < found.quantile(0.8) < found.quantile(0.9) < 1.3


def test_the_drafting_layer_of_deepseek_v3_is_one_fifty_eighth() -> None:
    which, _ = replicas([8])
    assert draft_share(which)[0] * 671e9 == pytest.approx(11.5e9, rel=0.02)  # own weights of its multi-token-prediction module


def measured(spec: str, day: str, tpot: float, tps: float = 1000.0) -> dict[str, str]:
    return {
        "model": "lab/model", "gpu": "H200-SXM-141GB", "engine": "trt", "precision": "fp8", "tp": "8", "ep": "1", "dp_attn": "False",
        "isl": "1024", "osl": "1024", "concurrency": "16", "spec_decode": spec, "date": day, "source_ref": day,
        "tpot_ms_p50": str(tpot), "ttft_ms_p50": "100", "output_tps_total": str(tps),
    }  # fmt: skip


def test_each_run_is_paired_with_the_plain_run_nearest_in_date_at_equal_load(tmp_path: Path) -> None:
    options = pytest.importorskip("planner.calibration.options")
    plain = [measured("none", "2026-01-01", 20), measured("none", "2026-03-01", 10)]
    rows = [*plain, measured("mtp", "2026-02-25", 6, 1800), measured("mtp", "2026-01-02", 14, 1500)]
    refused: Counter[str] = Counter()
    found = options.ratios(rows, {"lab/model": "Model"}, refused)
    assert len(found) == 1
    assert found[0].tpot_ratio == pytest.approx(np.sqrt(6 / 10 * 14 / 20), abs=1e-4)
    assert (found[0].pairs, found[0].engine, found[0].architecture) == (2, "trtllm", "Model")
    starved = [*plain, measured("mtp", "2026-02-25", 6, 900)]  # 5.4 sequences decoding against 10
    assert options.ratios(starved, {"lab/model": "Model"}, refused) == []
    assert refused["fewer sequences admitted with speculation"] == 1
    options.write_ratios(tmp_path / FILE, found)
    assert read_csv(tmp_path / FILE, SpeculationRatio) == found
    assert len(list(csv.reader((tmp_path / FILE).open(encoding="utf-8")))) == 2
