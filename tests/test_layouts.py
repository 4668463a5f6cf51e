"""Facts about how a replica lies on its GPUs: attention data parallel, whole experts, FP8 KV caches; and the plans that use them."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planner import Scenario, load_catalog, solve
from planner.candidates.sharding import gains_by_attention_groups, unsplit
from planner.candidates.survey import survey
from planner.catalog.cards import read_card
from planner.catalog.catalog import Catalog
from planner.catalog.files import read_csv
from planner.catalog.records import Architecture, Gpu, MeasuredConfiguration
from planner.catalog.replica_type import ReplicaType
from planner.check.check import check_plan
from planner.performance.coefficients import load_coefficients
from planner.performance.evidence import TIERS, evidence
from planner.performance.lengths import lognormal_mix
from planner.performance.memory import memory_fit
from planner.performance.physics import kv_per_sequence, shapes
from planner.performance.replicas import ENGINES, PRECISIONS, Replicas
from planner.performance.step import step_curves

ROOT = Path(__file__).parents[1]
MIX = lognormal_mix(1000, 300, 0, 0)


@lru_cache
def shipped() -> Catalog:
    return load_catalog(())


@lru_cache
def architecture(name: str) -> Architecture:
    return read_card(ROOT / "models" / f"{name}.toml").architecture


def replica(name: str, precision: str, tp: int, dp: int = 1, ep: int = 1, kv_bytes: int | None = None, gpu: str = "B200-SXM") -> Replicas:
    gpus = tuple(read_csv(ROOT / "catalogs" / "gpus.csv", Gpu))
    numbers = (0, [g.name for g in gpus].index(gpu), PRECISIONS.index(precision), ENGINES.index("vllm"), tp, 1, dp, ep)
    found = Replicas((architecture(name),), gpus, *(np.array([n]) for n in numbers))
    return replace(found, kv_bytes=np.array([kv_bytes])) if kv_bytes else found


def test_attention_groups_hold_the_attention_once_each_and_a_sequence_once() -> None:
    """DeepSeek-V3 over 8 GPUs: TP copies the MLA latent to all, attention groups keep each sequence on one."""
    a = architecture("deepseek-v3")
    tp, dp = replica("deepseek-v3", "fp8", 8), replica("deepseek-v3", "fp8", 8, dp=8, ep=8)
    latent = (a.kv_lora_rank + a.qk_rope_head_dim) * a.full_attention_layers  # one byte each
    tokens = np.array([1300.0])
    assert kv_per_sequence(tp, shapes(tp), tokens)[0] == latent * 1300
    assert kv_per_sequence(dp, shapes(dp), tokens)[0] == latent * 1300 / 8
    other = (shapes(dp).stored - a.expert_parameters / 8)[0]  # all but the experts, whole on every GPU
    assert shapes(tp).stored[0] == pytest.approx(a.expert_parameters / 8 + other / 8)
    slots = [int(memory_fit(r, MIX).slots[0]) for r in (tp, dp)]
    assert slots[1] > 4 * slots[0]


def test_attention_groups_of_one_gpu_pay_for_large_batches_only() -> None:
    """They read the attention weights on every GPU, but keep an eighth of the KV cache and halve the communication."""
    coefficients = load_coefficients(ROOT / "catalogs" / "coefficients.json")
    mix = lognormal_mix(8000, 1000, 0, 0)
    grid = np.array([8.0, 1024.0])
    tp, dp = (step_curves(replica("deepseek-v3", "fp8", 8, d, d), mix, coefficients, grid).step_s[0] for d in (1, 8))
    assert dp[0] > tp[0] and dp[1] < 0.8 * tp[1]


def test_whole_experts_need_no_whole_blocks() -> None:
    """Qwen3-235B has experts of 1,536 columns: TP8 would cut FP8 blocks of 128, EP8 does not."""
    a = architecture("qwen3-235b-a22b")
    assert "FP8 blocks" in unsplit(a, 128, 8)
    assert unsplit(a, 128, 8, ep=8) == ""
    assert unsplit(a, 128, 8, ep=7) == "128 experts"
    assert unsplit(architecture("llama-3.1-8b"), 0, 2, ep=2) == "0 experts"


def test_attention_groups_are_for_experts_whose_kv_cache_tp_would_copy() -> None:
    found = {
        name: [tp for tp in (1, 2, 4, 8) if gains_by_attention_groups(architecture(name), tp)] for name in ("deepseek-v3", "qwen3-235b-a22b", "llama-3.1-70b")
    }
    assert found == {"deepseek-v3": [2, 4, 8], "qwen3-235b-a22b": [8], "llama-3.1-70b": []}


def test_fp8_kv_cache_halves_what_a_sequence_keeps() -> None:
    plain, narrow = replica("llama-3.1-8b", "bf16", 1), replica("llama-3.1-8b", "bf16", 1, kv_bytes=1)
    ratio = memory_fit(plain, MIX).kv_gib_per_sequence / memory_fit(narrow, MIX).kv_gib_per_sequence
    assert ratio[0] == 2


def test_measurements_of_attention_groups_are_of_them_alone() -> None:
    row = {"architecture": "DeepSeek-V3", "precision": "fp8", "gpu": "B200-SXM", "engine": "vllm", "tp": 8, "points": 9}
    row |= {"source": "", "as_of": "", "licence": ""}
    grouped, plain = (MeasuredConfiguration.model_validate({**row, "dp": dp}) for dp in (8, 1))
    tp, dp = replica("deepseek-v3", "fp8", 8), replica("deepseek-v3", "fp8", 8, 8, 8)
    tiers = [[TIERS[int(evidence(r, ("DeepSeek-V3",), [m]).tier[0])] for m in (plain, grouped)] for r in (tp, dp)]
    assert tiers == [["measured", "anchored"], ["anchored", "measured"]]
    row |= {"architecture": "Llama-3.1-8B", "precision": "bf16", "tp": 1}
    narrow = replica("llama-3.1-8b", "bf16", 1, kv_bytes=1)
    assert TIERS[int(evidence(narrow, ("Llama-3.1-8B",), [MeasuredConfiguration.model_validate(row)]).tier[0])] == "anchored"


def test_layouts_in_words() -> None:
    assert [ReplicaType(*sizes).words for sizes in ((4, 1, 1, 1), (8, 1, 1, 8), (8, 1, 8, 8), (8, 1, 2, 8), (8, 2, 1, 1))] == [
        "TP4", "TP8 EP8", "DP8 EP8", "TP4 DP2 EP8", "TP8 x PP2",
    ]  # fmt: skip


# ---- in plans


def asked(policy: dict[str, Any], **workload: Any) -> Scenario:
    return Scenario.model_validate({"workload": [{"qps": 20, **workload}], "policy": policy})


def test_every_way_is_surveyed_only_where_allowed() -> None:
    question = {"models": ["DeepSeek-V3", "Qwen3-235B-A22B", "Llama-3.1-8B"]}
    for allow, dp, ep, kv in (
        (("attention_dp", "expert_parallel"), True, True, False),
        (("fp8_kv",), False, False, True),
        ((), False, False, False),
    ):
        scenario = asked({"allow": allow}, **question)
        r = survey(scenario, shipped(), shipped().offers).replicas
        usual = np.array([1 if p in ("fp8", "nvfp4") else 2 for p in PRECISIONS])[r.precision]
        assert (bool((r.dp > 1).any()), bool(((r.ep > 1) & (r.dp == 1)).any()), bool((r.kv_bytes != usual).any())) == (dp, ep, kv)
        assert all("fp8" in r.gpus[int(g)].precisions for g in r.gpu[r.kv_bytes != usual])


@pytest.mark.parametrize("engine", ENGINES)
def test_a_plan_with_attention_groups_is_checked_and_can_be_started(engine: str) -> None:
    scenario = asked({"engines": [engine]}, models=["DeepSeek-V3"], qps=5, output_tokens=3000, slo={"ttft_p95": "10s", "tpot_p95": "60ms"})
    plan = solve(scenario, shipped())
    d = plan.deployments[0]
    assert d.dp == d.ep == d.tp > 1
    assert check_plan(plan, shipped()).ok
    words = {
        "vllm": ("--tensor-parallel-size 1 ", f"--data-parallel-size {d.dp}", "--enable-expert-parallel"),
        "sglang": (f"--tp-size {d.tp}", f"--attn-dp-size {d.dp}", f"--ep-size {d.ep}"),
        "trtllm": (f"--tp_size {d.tp}", f"--ep_size {d.ep}", "enable_attention_dp: true"),
    }[engine]
    assert all(word in d.serve_command for word in words)
    without = solve(scenario.model_copy(update={"policy": scenario.policy.model_copy(update={"allow": ()})}), shipped())
    assert without.cost.usd_per_hour >= plan.cost.usd_per_hour


def test_more_ways_never_cost_more() -> None:
    costs = [
        solve(asked({"allow": allow}, models=["Qwen3-235B-A22B", "gpt-oss-120b"], output_factor=3), shipped()).cost.usd_per_hour
        for allow in ((), ("attention_dp", "expert_parallel"), ("attention_dp", "expert_parallel", "fp8_kv"))
    ]
    assert costs == sorted(costs, reverse=True)
