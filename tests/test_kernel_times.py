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
from planner.performance.kernels import (
    CONTEXTS,
    EXPERT_LAUNCH_S,
    TOKENS,
    WORK,
    at_context,
    at_tokens,
    kernel_times,
    load_kernels,
    matrices,
    near,
    over_work,
    roofline,
)
from planner.performance.lengths import LengthMix
from planner.performance.physics import kv_read, shapes
from planner.performance.replicas import Replicas
from planner.performance.step import decode_attention, prefill_step

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


GLM_ROWS = (  # microseconds of GLM-5-FP8's attention module, 8 heads, 8-bit cache, H200: SGLang 0.5.14 in aiconfigurator-core 0.12.0
    (1, 1024, 76),
    (1, 65536, 118),
    (1, 131072, 152),
    (4, 32768, 114),
    (16, 8192, 121),
    (64, 4096, 172),
    (128, 1024, 189),
)


def decoding(model: str, precision: str, tp: int, context: float, batch: float, dp: int = 1) -> float:
    """Seconds of all layers' attention on H200, by the tables alone."""
    part = Replicas.of(CARDS[model].architecture, GPUS["H200-SXM-141GB"], precision, "sglang", [ReplicaType(tp, 1, dp, 1, True)])
    e, shape = {**kernel_times(part, TABLES), "attention": np.ones((1, 1))}, shapes(part)
    kv = kv_read(part, shape, LengthMix(np.array([context - 1.0]), np.array([2.0])))
    return float(decode_attention(shape, e, kv, np.array([[batch]]))[0, 0])


@pytest.mark.parametrize(("batch", "context", "microseconds"), GLM_ROWS)
def test_a_layer_of_sparse_attention_takes_what_its_module_was_measured_with(batch: int, context: int, microseconds: float) -> None:
    """The module holds products too: 12,288 x 6,144 of the output over 8 GPUs, and what else GLM-5 has in a layer, at 0.75 of H200's bandwidth."""
    m = matrices(CARDS["GLM-5"].architecture)
    products = (m.weights[1] + m.weights[6]) / 8 / (0.75 * 4.8e12)
    assert decoding("GLM-5", "fp8", 8, context, batch) / 78 + products == pytest.approx(microseconds * 1e-6, rel=0.12)


def test_at_a_stored_context_and_batch_sparse_attention_takes_the_stored_time() -> None:
    """64k tokens, 16 sequences: 2,048 selected ones of 576 bytes and 65,536 keys of 132 bytes each, at 4.8 TB/s, times the table's ratio."""
    ratio = TABLES.sparse_decode[TABLES.gpus.index("H200-SXM-141GB"), 1, CONTEXTS.tolist().index(65536), TOKENS.tolist().index(16)]
    ideal = 16 * (2048 * 576 + 65536 * 132) / 4.8e12
    assert decoding("GLM-5", "fp8", 8, 65536, 16) == pytest.approx(78 * ideal * 2**ratio)
    assert decoding("GLM-5", "fp8", 8, 65536, 64, dp=4) == pytest.approx(78 * ideal * 2**ratio)  # four groups of 16 sequences each


def test_sparse_attention_pays_with_long_contexts() -> None:
    """DeepSeek-V3.2 selects 2,048 tokens where V3 reads all: dearer at 1,000 tokens, cheaper at 128,000."""
    short, long = ([decoding(model, "fp8", 8, context, 32) for model in ("DeepSeek-V3.2", "DeepSeek-V3")] for context in (1000, 128000))
    assert short[0] > short[1] and long[0] < 0.8 * long[1]


def prompt_attention(model: str, context: float, dp: int) -> float:
    """Seconds of all layers' attention of 8,192 prompt tokens that attend to so many on TP 8 of H200, by the tables alone."""
    part = Replicas.of(CARDS[model].architecture, GPUS["H200-SXM-141GB"], "fp8", "sglang", [ReplicaType(8, 1, dp, 1, True)])
    e = {**kernel_times(part, TABLES), **dict.fromkeys(("prompt_products", "prompt_experts", "link"), np.ones((1, 1))), "all_reduce_s": np.zeros((1, 1))}
    with_it, without = (prefill_step(shapes(part), {**e, "prompt_attention": np.full((1, 1), share)}, np.array([context]), 8192.0) for share in (1.0, 0.0))
    return float((with_it - without)[0, 0])


def test_prompts_of_sparse_attention_gain_by_attention_data_parallel() -> None:
    """Kernels compute 64 heads whatever a GPU has: 16 of DeepSeek-V3.2 on TP 8, so that each GPU does four times the work; in eight groups none is lost."""
    split, groups = (prompt_attention("DeepSeek-V3.2", 65536, dp) for dp in (1, 8))
    assert split / groups == pytest.approx(4.0)
    assert groups < prompt_attention("DeepSeek-V3", 65536, 8) < split


def test_times_between_contexts_lie_between_and_grow_beyond_them() -> None:
    seconds = np.linspace(1, 3, len(CONTEXTS))[None, :]
    at = [float(at_context(seconds, np.array([c]))[0]) for c in (64.0, 128.0, 3000.0, 131072.0, 1e6)]
    assert at[0] == at[1] == pytest.approx(1.0) and at[3] == pytest.approx(3.0)
    assert sorted(at) == at and at[1] < at[2] < at[3] < at[4]


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
