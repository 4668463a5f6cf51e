"""Start commands make a checkpoint think, or answer at once, as the plan counts on; quality says what its score was taken without."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from planner import Scenario, load_catalog, solve
from planner.catalog.replica_type import ReplicaType
from planner.check.check import check_plan
from planner.emit.engine import GpuMemory, Steps, Thinking, serve_command
from planner.emit.reasoning import reasoning_of
from planner.report.formats import formatted
from planner.result.plan import Plan

ENGINES = ("vllm", "sglang", "trtllm")
STRANGE = {"nvidia/Llama-3_3-Nemotron-Super-49B-v1", "microsoft/Phi-4-mini-reasoning"}  # no engine names a parser for them


def command(engine: str, checkpoint: str, thinks: bool = False, is_hybrid: bool = True, fp8: bool = False) -> str:
    words = (ReplicaType(1, 1, 1, 1, fp8), Steps(64, 2048), 8192, 0.9, GpuMemory(80, 16, 50), Thinking(thinks, is_hybrid))
    return serve_command(engine, checkpoint, *words)


@pytest.mark.parametrize(
    ("engine", "checkpoint", "thinks", "ending"),
    [
        ("vllm", "Qwen/Qwen3-32B-FP8", False, """--default-chat-template-kwargs '{"enable_thinking":false}'"""),
        ("vllm", "Qwen/Qwen3-32B-FP8", True, """--reasoning-parser qwen3 --default-chat-template-kwargs '{"enable_thinking":true}'"""),
        ("sglang", "zai-org/GLM-4.6-FP8", False, """--default-chat-template-kwargs '{"enable_thinking":false}'"""),
        ("vllm", "deepseek-ai/DeepSeek-V3.1", True, """--reasoning-parser deepseek_v3 --default-chat-template-kwargs '{"thinking":true}'"""),
        ("sglang", "deepseek-ai/DeepSeek-V3.1", True, """--reasoning-parser deepseek-v3 --default-chat-template-kwargs '{"thinking":true}'"""),
        ("vllm", "google/gemma-4-31B-it", True, """--reasoning-parser gemma4 --default-chat-template-kwargs '{"enable_thinking":true}'"""),
        ("trtllm", "Qwen/Qwen3-32B-FP8", False, """# every request needs "chat_template_kwargs": {"enable_thinking":false}"""),
        ("trtllm", "nvidia/Kimi-K2.5-NVFP4", True, """--reasoning_parser kimi_k25 # every request needs "chat_template_kwargs": {"thinking":true}"""),
        ("vllm", "nvidia/Llama-3_3-Nemotron-Super-49B-v1", False, '# every request needs the system prompt "detailed thinking off"'),
    ],
)
def test_a_checkpoint_of_both_ways_is_told_which(engine: str, checkpoint: str, thinks: bool, ending: str) -> None:
    assert command(engine, checkpoint, thinks).endswith(ending)


@pytest.mark.parametrize(
    ("checkpoint", "parsers"),
    [
        ("deepseek-ai/DeepSeek-R1-0528", ("--reasoning-parser deepseek_r1", "--reasoning-parser deepseek-r1", "--reasoning_parser deepseek-r1")),
        ("Qwen/Qwen3-30B-A3B-Thinking-2507", ("--reasoning-parser deepseek_r1", "--reasoning-parser qwen3-thinking", "--reasoning_parser deepseek-r1")),
        ("openai/gpt-oss-120b", ("--reasoning-parser openai_gptoss", "--reasoning-parser gpt-oss", "")),
        ("MiniMaxAI/MiniMax-M2.5", ("--reasoning-parser minimax_m2_append_think", "--reasoning-parser minimax-append-think", None)),
        ("mistralai/Magistral-Small-2506", ("--tokenizer-mode mistral --reasoning-parser mistral", "--reasoning-parser mistral", None)),
        ("stepfun-ai/Step-3.7-Flash", ("--reasoning-parser step3p5", None, None)),
        ("somebody/Own-Reasoner", (None, None, None)),
    ],
)
def test_thoughts_are_parsed_by_each_engines_own_name_or_said_to_stay(checkpoint: str, parsers: tuple[str | None, ...]) -> None:
    for engine, parser in zip(ENGINES, parsers, strict=True):
        text = command(engine, checkpoint, thinks=True, is_hybrid=False)
        assert text.endswith(" # its reasoning parser is not known: thoughts stay in the answer") == (parser is None)
        assert ("parser" in text) == (parser != "") and (parser or "") in text


def test_a_checkpoint_that_never_thinks_is_told_nothing() -> None:
    for engine in ENGINES:
        text = command(engine, "Qwen/Qwen3-30B-A3B-Instruct-2507", is_hybrid=False)
        assert not any(word in text for word in ("parser", "template", "#"))


def test_every_shipped_checkpoint_that_reasons_has_a_switch_and_a_parser_or_is_known_to_have_none() -> None:
    for card in load_catalog().cards:
        for c in card.checkpoint:
            family = reasoning_of(c.id)
            known = family is not None and (family.on or family.off or c.variant == "thinking")
            if c.variant in ("hybrid", "thinking") and not any(c.id.startswith(s) for s in STRANGE):
                assert known and family is not None and {"vllm", "sglang"} & set(family.parsers), c.id


@cache
def planned(engine: str = "vllm", model: str = "Qwen/Qwen3-32B-FP8") -> Plan:
    asked = {"workload": [{"qps": 5, "models": [model]}], "supply": {"gpus": ["H100-SXM-80GB"]}, "policy": {"engines": [engine]}}
    return solve(Scenario.model_validate(asked), load_catalog(), compare=False)


def with_command(plan: Plan, text: str) -> Plan:
    return plan.model_copy(update={"deployments": (plan.deployments[0].model_copy(update={"serve_command": text}),)})


@pytest.mark.parametrize(
    ("engine", "old", "new"),
    [
        ("vllm", "false", "true"),
        ("vllm", """ --default-chat-template-kwargs '{"enable_thinking":false}'""", ""),
        ("vllm", " --default", " --reasoning-parser qwen3 --default"),
        ("trtllm", ' # every request needs "chat_template_kwargs": {"enable_thinking":false}', ""),
        ("trtllm", "false", "true"),
    ],
)
def test_a_command_that_would_make_it_think_is_a_breach(engine: str, old: str, new: str) -> None:
    plan = planned(engine)
    text = plan.deployments[0].serve_command
    assert check_plan(plan, load_catalog()).ok and old in text
    assert {b.name for b in check_plan(with_command(plan, text.replace(old, new)), load_catalog()).breaches} == {"command"}


@pytest.mark.parametrize(("model", "fp8"), [("Qwen/Qwen3-32B-FP8", True), ("Qwen/Qwen3-32B", False)])
def test_an_fp8_cache_is_started_where_it_was_counted_and_quality_says_so(model: str, fp8: bool) -> None:
    plan = planned(model=model)
    d = plan.deployments[0]
    assert d.quality is not None and d.quality.fp8_kv_unmeasured is fp8 and (d.kv_cache_dtype == "fp8") is fp8
    assert ("--kv-cache-dtype fp8" in d.serve_command) is fp8
    hidden: dict[str, Any] = {"quality": d.quality.model_copy(update={"fp8_kv_unmeasured": not fp8})}
    found = check_plan(plan.model_copy(update={"deployments": (d.model_copy(update=hidden),)}), load_catalog())
    assert {b.name for b in found.breaches} == {"quality"}
    assert ("not with FP8 KV" in formatted(plan, "markdown", details=True)) is fp8
