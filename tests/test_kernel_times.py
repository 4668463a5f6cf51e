"""Times of kernels: within the hardware's limits, never shorter for more, own tables before those of others, and how tables are condensed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from planner.calibration.operations import bridged, stored, without_slow
from planner.catalog.cards import read_card
from planner.catalog.files import read_csv
from planner.catalog.records import Gpu
from planner.catalog.replica_type import ReplicaType
from planner.performance.kernels import EXPERT_LAUNCH_S, TOKENS, WORK, at_tokens, kernel_times, load_kernels, matrices, near, over_work, roofline
from planner.performance.replicas import Replicas

ROOT = Path(__file__).parents[1]
TABLES = load_kernels(ROOT / "catalogs" / "kernels.json")
GPUS = {g.name: g for g in read_csv(ROOT / "catalogs" / "gpus.csv", Gpu)}
CARDS = {c.name: c for c in (read_card(path) for path in sorted((ROOT / "models").glob("*.toml")))}


def times(model: str, gpu: str, precision: str, tp: int = 1, dp: int = 1) -> dict[str, np.ndarray]:
    replica = Replicas.of(CARDS[model].architecture, GPUS[gpu], precision, "vllm", [ReplicaType(tp, 1, dp)])
    return kernel_times(replica, TABLES)


@pytest.mark.parametrize("gpu", sorted(GPUS))
@pytest.mark.parametrize(("model", "precision"), [("Llama-3.1-70B", "bf16"), ("Llama-3.1-70B", "fp8"), ("DeepSeek-V3", "nvfp4"), ("gpt-oss-120b", "mxfp4")])
def test_no_pass_beats_bandwidth_or_peak_and_more_tokens_take_longer(model: str, gpu: str, precision: str) -> None:
    found, a = times(model, gpu, precision, 8), CARDS[model].architecture
    for name in ("products_s", "experts_s"):
        assert np.isfinite(found[name]).all() and (np.diff(found[name], axis=1) >= -1e-12).all()
    half = 0.5 if precision == "nvfp4" else 1.0 if precision == "fp8" else 2.0  # bytes of a weight at least
    other = (a.parameters - a.expert_parameters) * (half if not a.experts else min(half * 2, 2.0)) / 8
    assert found["products_s"][0, 0] >= 0.9 * (other - 2 * 2.0 * a.vocabulary * a.hidden_size / 8) / (GPUS[gpu].bandwidth_gb_s * 1e9)
    if not a.experts:
        assert not found["experts_s"].any()


def test_matrices_add_up_to_the_weights_that_a_token_passes() -> None:
    """All but experts and the embedding that is looked up: Llama-3.1-70B has 70.55 billion weights, 128,256 x 8,192 of them twice."""
    m = matrices(CARDS["Llama-3.1-70B"].architecture)
    assert m.count @ m.weights == pytest.approx(70.55e9 - 128256 * 8192, rel=0.002)


def test_a_measured_shape_takes_its_own_times_and_others_those_of_neighbours() -> None:
    where, kind = TABLES.gpus.index("B200-SXM"), 2  # nvfp4
    shapes, ratios = TABLES.shapes[where, kind]
    own = near(shapes[:1], shapes, ratios)
    between = near(shapes[:1] + 0.2, shapes, ratios)
    assert abs(own - ratios[0]).mean() < 0.25 and ratios.min() <= between.min() and between.max() <= ratios.max()
    a = CARDS["Qwen3-235B-A22B"].architecture
    weights = 3.0 * a.experts * a.hidden_size * a.expert_intermediate_size / 8
    ideal = EXPERT_LAUNCH_S + roofline(GPUS["B200-SXM"], "nvfp4", weights, TOKENS, a.experts_per_token / a.experts)
    assert (times("Qwen3-235B-A22B", "B200-SXM", "nvfp4", 8)["experts_s"][0] >= a.moe_layers * ideal * (1 - 1e-9)).all()


def test_a_gpu_without_a_table_takes_its_generation_and_else_all() -> None:
    assert TABLES.standing_for(GPUS["H200-SXM-141GB"]).tolist() == [TABLES.gpus.index("H200-SXM-141GB")]
    hopper = {TABLES.gpus[i] for i in TABLES.standing_for(GPUS["H200-NVL-141GB"]).tolist()}
    assert hopper == {"H100-SXM-80GB", "H200-SXM-141GB"}
    assert len(TABLES.standing_for(GPUS["MI355X"])) == len(TABLES.gpus) == 9


def test_times_between_sizes_lie_between_and_meet_those_that_are_known() -> None:
    seconds = np.array([np.linspace(1, 9, len(TOKENS)) ** 2])
    assert np.allclose(at_tokens(seconds, TOKENS[None, :]), seconds) and np.allclose(
        at_tokens(np.repeat(seconds, 2, axis=0), np.array([[3.0], [3.0]])), at_tokens(seconds, 3.0)
    )
    fine = at_tokens(seconds, np.arange(1.0, 9000)[None, :])
    assert (np.diff(fine) >= 0).all()
    work = np.exp2(np.linspace(WORK[0], WORK[-1], 400))[None, :]
    ratio = np.clip(5 - np.arange(len(WORK)) / 4, 0, None)[None, :]
    assert (over_work(ratio, work) >= work * (1 - 1e-12)).all() and (np.diff(over_work(ratio, work)) > 0).all()


def test_the_same_question_of_equal_records_is_worked_out_once() -> None:
    first = times("Llama-3.1-70B", "H100-SXM-80GB", "fp8", 4)
    known = len(TABLES.known.rows)
    a, g = CARDS["Llama-3.1-70B"].architecture.model_copy(), GPUS["H100-SXM-80GB"].model_copy()
    again = kernel_times(Replicas.of(a, g, "fp8", "sglang", [ReplicaType(4, 1, 1)]), TABLES)
    assert len(TABLES.known.rows) == known and all(np.array_equal(first[name], again[name]) for name in first)


def test_condensed_times_never_fall_with_tokens_nor_below_the_roofline() -> None:
    assert stored(np.array([4.0, 2.0, 8.0]), np.ones(3)).tolist() == [100.0, 100.0, 300.0]
    assert stored(np.array([0.5, 2.0]), np.ones(2)).tolist() == [0.0, 100.0]
    assert bridged(np.array([np.nan, 1.0, np.nan, 3.0])).tolist() == [1.0, 1.0, 2.0, 3.0]


def test_faulty_rows_are_cut() -> None:
    """An FP8 kernel slower than that in BF16 of the same size is a fallback; one without a twin stays."""
    rows = pd.DataFrame({"kind": ["bf16", "fp8", "fp8", "fp8"], "m": [1, 1, 2, 1], "seconds": [2.0, 3.0, 9.0, 1.0]})
    assert without_slow(rows, ("fp8",), "bf16", ("m",)).seconds.tolist() == [2.0, 9.0, 1.0]


def test_steps_of_a_running_engine_are_what_decodes_plus_its_prompts(tmp_path: Path) -> None:
    """vLLM's own counts on B300, of models that the fit has not seen there; and the figures shown are those of the shipped physics."""
    again = tmp_path / "steps.json"
    subprocess.run([sys.executable, "benchmarks/engine_steps.py", "--out", str(again)], cwd=ROOT, capture_output=True, timeout=120, check=True)
    shown, found = (json.loads(p.read_text())["by_replica"] for p in (ROOT / "benchmarks" / "results" / "engine_steps.json", again))
    for replica, kinds in shown.items():
        assert {k: row["share"] for k, row in found[replica].items()} == pytest.approx({k: row["share"] for k, row in kinds.items()}, abs=0.01)
    for replica in ("Qwen3-32B, one GPU", "Qwen3-32B, TP2 to TP8"):
        assert found[replica]["decoding alone"]["share"] == pytest.approx(1.0, abs=0.1)
        assert found[replica]["mixed, 4,097 to 8,192"]["share"] == pytest.approx(1.0, abs=0.05)
