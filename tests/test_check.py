"""The independent check agrees with good plans, and every family of it catches a plan with one number changed."""

from __future__ import annotations

import ast
import re
from functools import cache
from itertools import product
from math import ceil
from pathlib import Path
from typing import Any

import pytest
from edits import campaign
from hypothesis import given
from hypothesis import strategies as st

from planner import Scenario, load_catalog, solve
from planner.catalog.replica_type import ReplicaType
from planner.check.check import Report, check_plan
from planner.check.command import READERS, Settings, Words
from planner.check.packing import fill
from planner.emit.engine import GpuMemory, Steps, serve_command
from planner.result.plan import Plan

QUESTIONS: dict[str, dict[str, Any]] = {
    "one": {"workload": [{"qps": 20, "min_quality": 0.6}]},
    "in flight": {"workload": [{"concurrency": 300, "min_quality": 0.6}]},
    "instances": {"workload": [{"qps": 30, "min_quality": 0.8}], "supply": {"kinds": ["hyperscaler"]}},
    "pools": {"workload": [{"qps": 150, "min_quality": 0.7}], "policy": {"max_pools": 3}},
    "spare": {"workload": [{"qps": 60, "min_quality": 0.7}], "policy": {"spare_replicas": 2, "max_slo_load": 0.8}},
    "random": {"workload": [{"qps": 60, "min_quality": 0.7}], "policy": {"router": "random"}},
    "thinking": {"workload": [{"qps": 2, "models": ["Qwen/Qwen3-4B-Thinking-2507"], "slo": {"e2e_p95": "300s", "ttft_p95": "200s"}, "output_factor": 8}]},
    "shared": {"workload": [{"name": f"tenant {i}", "qps": 1, "min_quality": 0.6, "output_tokens": 100 * (i + 1)} for i in range(3)]},
    "gaps": {"workload": [{"qps": 20, "min_quality": 0.6, "slo": {"itl_p99": "30ms"}, "burst_factor": 1.5, "prefix_cache_hit": 0.3}]},
    "whole prompts": {"workload": [{"concurrency": 100, "min_quality": 0.6, "burst_factor": 2}], "policy": {"chunked_prefill": False, "engines": ["sglang"]}},
    "queues": {
        "workload": [{"qps": 100, "models": ["Qwen/Qwen3-4B-Instruct-2507-FP8"], "slo": {"ttft_p95": "none", "tpot_p95": "none"}}],
        "supply": {"gpus": ["L40S"]},
    },
    "two": {
        "workload": [
            {"name": "chat", "qps": 30, "models": ["Qwen/Qwen3-4B-Instruct-2507-FP8"]},
            {"name": "code", "qps": 10, "models": ["Qwen/Qwen3-30B-A3B-Instruct-2507-FP8"], "input_tokens": 3000, "slo": {"ttft_p99": "3s"}},
        ]
    },
}


@cache
def planned(question: str) -> Plan:
    return solve(Scenario.model_validate(QUESTIONS[question]), load_catalog(), compare=False)


def check(plan: Plan) -> Report:
    return check_plan(plan, load_catalog())


def families(plan: Plan) -> set[str]:
    return {b.name for b in check(plan).breaches}


def changed(plan: Any, *path: str | int, to: Any) -> Any:
    """A copy with one value deep inside changed: ``to``, or what ``to`` makes of the old value."""
    if not path:
        return to(plan) if callable(to) else to
    key, *rest = path
    if isinstance(key, int):
        return (*plan[:key], changed(plan[key], *rest, to=to), *plan[key + 1 :])
    if isinstance(plan, dict):
        return {**plan, key: changed(plan.get(key), *rest, to=to)}
    return plan.model_copy(update={key: changed(getattr(plan, key), *rest, to=to)})


def more(value: float) -> float:
    return value * 1.1


@pytest.mark.parametrize("question", QUESTIONS)
def test_agrees_with_good_plans(question: str) -> None:
    report = check(planned(question))
    assert report.breaches == ()
    assert report.ok and len(report.checks) == 24


def test_it_says_how_many_requests_may_be_over_a_limit() -> None:
    said = next(line for line in check(planned("one")).checks if line.startswith("SLO"))
    assert re.search(r"over ttft_p\d+ \d+\.\d{3}% of requests, \d+% allowed", said) and "missed" not in said


def test_reads_a_plan_back_from_json() -> None:
    assert check(Plan.model_validate_json(planned("one").to_json())).ok


FOLLOW = {"power", "beside", "evidence", "demand", "cost"}  # add up numbers that other families check, so they may see the same change
ONE_NUMBER: list[tuple[str, str, tuple[str | int, ...], Any]] = [
    ("demand", "one", ("workloads", 0, "qps"), more),
    ("demand", "one", ("workloads", 0, "routing", 0, "qps"), more),
    ("demand", "one", ("workloads", 0, "demand", "value"), more),
    ("demand", "one", ("workloads", 0, "slo", 0, "limit_ms"), more),
    ("demand", "in flight", ("workloads", 0, "routing", 0, "qps"), more),
    ("demand", "in flight", ("workloads", 0, "concurrency"), more),
    ("demand", "two", ("deployments", 0, "qps"), more),
    ("candidate", "one", ("deployments", 0, "precision"), lambda v: "fp8" if v == "bf16" else "bf16"),
    ("candidate", "one", ("deployments", 0, "checkpoint"), "nobody/nothing"),
    ("candidate", "one", ("deployments", 0, "model"), "another"),
    ("candidate", "thinking", ("deployments", 0, "output_factor"), more),
    ("memory", "one", ("deployments", 0, "memory_gib", "weights"), more),
    ("memory", "one", ("deployments", 0, "memory_gib", "total"), more),
    ("capacity", "one", ("deployments", 0, "capacity_qps_per_replica"), more),
    ("capacity", "one", ("deployments", 0, "slo_load"), more),
    ("evidence", "one", ("deployments", 0, "evidence", "step_time_factor"), more),
    ("evidence", "one", ("deployments", 0, "evidence", "tier"), "imagined"),
    ("capacity", "one", ("scenario", "policy", "max_slo_load"), 0.2),
    ("slo", "queues", ("workloads", 0, "predicted", "waiting_share"), more),
    ("capacity", "in flight", ("deployments", 0, "capacity_in_flight_per_replica"), more),
    ("slo", "one", ("workloads", 0, "predicted", "ttft_ms", "p95"), more),
    ("slo", "two", ("workloads", 1, "predicted", "e2e_ms", "mean"), more),
    ("slo", "gaps", ("workloads", 0, "predicted", "itl_ms", "p99"), more),
    ("slo", "gaps", ("workloads", 0, "predicted", "itl_ms"), None),
    ("quality", "one", ("deployments", 0, "quality", "score"), more),
    ("quality", "one", ("deployments", 0, "quality", "margin"), more),
    ("quality", "one", ("deployments", 0, "quality", "self_reported"), lambda v: not v),
    ("quality", "one", ("workloads", 0, "mean_quality_served"), more),
    ("quality", "one", ("scenario", "workload", 0, "mean_quality"), 0.99),
    ("offers", "one", ("purchases", 0, "usd_per_hour"), more),
    ("offers", "one", ("purchases", 0, "region"), "nowhere"),
    ("offers", "one", ("purchases", 0, "as_of"), "1999-01-01"),
    ("offers", "one", ("scenario", "supply", "kinds"), ["serverless"]),
    ("offers", "one", ("scenario", "supply", "geographies"), ["nowhere"]),
    ("packing", "one", ("purchases", 0, "gpus_idle"), 1),
    ("packing", "one", ("gpus_used",), 99),
    ("packing", "instances", ("purchases", 0, "gpus_held"), 99),
    ("limits", "one", ("scenario", "policy", "budget"), 0.5),
    ("limits", "instances", ("scenario", "supply", "max_gpus"), 1),
    ("policy", "two", ("scenario", "policy", "max_models"), 1),
    ("cost", "one", ("cost", "usd_per_month"), more),
    ("cost", "one", ("cost", "usd_per_million_output_tokens"), more),
    ("cost", "one", ("cost", "usd_per_thousand_requests"), more),
    ("cost", "in flight", ("cost", "usd_per_million_total_tokens"), more),
    ("cost", "instances", ("cost", "idle_usd_per_hour"), lambda v: v + 0.02),
    ("cost", "one", ("deployments", 0, "usd_per_hour"), more),
    ("bound", "one", ("gap",), 0.5),
    ("bound", "one", ("bound_usd_per_hour",), more),
    ("catalogue", "one", ("catalog_hash",), "0" * 16),
    ("structure", "one", ("workloads", 0, "routing", 0, "deployment"), 7),
    ("structure", "one", ("workloads", 0, "name"), "another"),
    ("structure", "one", ("purchases", 0, "instances"), 0),
]


@pytest.mark.parametrize(("family", "question", "path", "to"), ONE_NUMBER, ids=[f"{f} {'.'.join(map(str, p))}" for f, _, p, _ in ONE_NUMBER])
def test_one_changed_number_is_caught_by_its_family(family: str, question: str, path: tuple[str | int, ...], to: Any) -> None:
    plan = planned(question)
    found = families(changed(plan, *path, to=to))
    assert family in found and found <= {family, *FOLLOW}


def test_the_size_of_a_step_is_checked_by_what_follows_from_it() -> None:
    for question, follows in (("gaps", {"memory", "capacity"}), ("whole prompts", {"memory"})):  # whole prompts take a step of their own, however large
        plan = planned(question)
        assert follows <= families(changed(plan, "deployments", 0, "max_num_batched_tokens", to=lambda n: 2 * n))
    assert "memory" in families(changed(planned("whole prompts"), "deployments", 0, "max_num_batched_tokens", to=1024))


COMMANDS = [
    ("one", "--tensor-parallel-size 1", "--tensor-parallel-size 2"),
    ("one", "--max-num-seqs ", "--max-num-seqs 1"),
    ("one", "--max-model-len ", "--max-model-len 1"),
    ("one", "--gpu-memory-utilization 0.92", "--gpu-memory-utilization 0.95"),
    ("one", " --max-num-seqs", " --enforce-eager --max-num-seqs"),
    ("one", " --max-num-seqs", " --kv-cache-dtype fp8 --max-num-seqs"),
    ("one", " --max-num-seqs", " --max-num-seqs 8 --max-num-seqs"),
    ("one", " --max-num-seqs", " --pipeline-parallel-size 2 --max-num-seqs"),
    ("one", " --gpu-memory-utilization 0.92", ""),
    ("one", "vllm serve Qwen", "vllm serve --trust-remote-code Qwen"),
    ("one", "vllm serve Qwen", "vllm serve 'Qwen"),
    ("gaps", " --enable-prefix-caching", ""),
    ("whole prompts", "--chunked-prefill-size -1", "--chunked-prefill-size 8192"),
    ("whole prompts", " --kv-cache-dtype fp8_e4m3", ""),
    ("whole prompts", "--mem-fraction-static 0.", "--mem-fraction-static 0.1"),
]


@pytest.mark.parametrize(("question", "old", "new"), COMMANDS, ids=[f"{q}: {n or o}" for q, o, n in COMMANDS])
def test_the_start_command_is_read_back(question: str, old: str, new: str) -> None:
    plan = planned(question)
    assert old in plan.deployments[0].serve_command
    assert families(changed(plan, "deployments", 0, "serve_command", to=lambda c: c.replace(old, new))) == {"command"}


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
@pytest.mark.parametrize("layout", [(1, 1, 1, 1), (8, 1, 1, 8), (8, 1, 8, 8), (4, 2, 1, 1)])
def test_every_command_the_planner_writes_reads_back(engine: str, layout: tuple[int, int, int, int]) -> None:
    tp, pp, dp, ep = layout
    for fp8, draft, chunked, caches in product((False, True), repeat=4):
        text = serve_command(engine, "a/b", ReplicaType(tp, pp, dp, ep, fp8, draft), Steps(100, 4096, chunked, caches), 32768, 0.9, GpuMemory(80.0, 30.0, 40.0))
        found = READERS[engine](Words(text))
        memory = {"vllm": 0.9, "sglang": 0.88, "trtllm": 0.8}[engine]
        sequences = 100 if engine == "sglang" else ceil(100 / dp)
        prefix, drafted = caches if engine == "vllm" else None, {"vllm": 1, "sglang": 3, "trtllm": 1 if dp > 1 else 3}[engine] * draft
        assert found == Settings("a/b", tp, pp, dp, ep, sequences, 4096, chunked, 32768, prefix, memory, fp8, drafted)


def test_a_quota_is_checked_for_its_gpu() -> None:
    plan = planned("instances")
    p = plan.purchases[0]
    enough, short = ({p.gpu: plan.gpus_held}, {p.gpu.lower(): p.gpus_held - 1})
    binds = changed(plan, "binding", to=(*plan.binding, f"quota of {p.gpu}: {p.gpus_held} of {p.gpus_held}"))
    assert families(changed(binds, "scenario", "supply", "quota", to=enough)) == set()
    assert "limits" in families(changed(plan, "scenario", "supply", "quota", to=short))


def test_names_are_those_of_the_catalogue() -> None:
    plan = planned("one")
    assert "candidate" in families(changed(plan, "deployments", 0, "gpu", to="no GPU"))
    for name in (plan.deployments[0].model, plan.deployments[0].checkpoint.upper()):
        assert families(changed(plan, "scenario", "policy", "exclude_models", to=[name])) == {"candidate"}


def test_what_no_planner_writes_is_a_breach_and_no_crash() -> None:
    for field in ("dp", "ep", "tp", "pp", "replicas"):
        for value in (0, -1):
            assert "candidate" in families(changed(planned("one"), "deployments", 0, field, to=value))
    assert "demand" in families(changed(planned("one"), "workloads", 0, "slo", 0, "metric", to="speed"))
    for at in ((), ("hosts",), ("purchases",)):
        emptied = changed(planned("one"), *(("deployments", 0, *at) if at != ("purchases",) else at), to=()) if at else planned("one")
        assert bool(families(emptied)) == bool(at)


def test_a_workload_on_too_many_deployments() -> None:
    plan = planned("spare")
    routes = tuple(plan.workloads[0].routing[0].model_copy(update={"deployment": i, "share": 0.5}) for i in (0, 1))
    twice = plan.model_copy(update={"deployments": (*plan.deployments, changed(plan.deployments[0], "gpu", to="L4"))})
    split = changed(twice, "workloads", 0, "routing", to=routes)
    where = {b.where for b in check(changed(split, "scenario", "policy", "max_gpu_types", to=1)).breaches if b.name == "policy"}
    assert where == {"requests", "max_gpu_types"}


def test_traffic_that_is_not_routed_is_missed() -> None:
    assert "demand" in families(changed(planned("one"), "workloads", 0, "routing", 0, "share", to=0.9))


def test_more_sequences_than_find_room() -> None:
    assert "memory" in families(changed(planned("one"), "deployments", 0, "max_num_seqs", to=100_000))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_never_passes(value: float) -> None:
    latency = ("workloads", 0, "predicted", "tpot_ms", "p95")
    for path in (("cost", "usd_per_hour"), ("deployments", 0, "slo_load"), latency, ("gap",), ("deployments", 0, "usd_per_hour")):
        assert families(changed(planned("one"), *path, to=value))


def test_a_replica_less_than_needed_breaks_capacity() -> None:
    plan = planned("spare")
    fewer = changed(plan, "scenario", "policy", "spare_replicas", to=3)
    assert {b.name for b in check(fewer).breaches} >= {"capacity"}


def test_a_tighter_limit_is_missed_at_the_predicted_service() -> None:
    plan = planned("one")
    limit = plan.workloads[0].predicted.tpot_ms.p50  # half of the requests are slower than that
    asked = plan.scenario.workload[0].model_copy(update={"slo": {"ttft_p95": 2.0, "tpot_p95": limit / 1e3}})
    tighter = changed(changed(plan, "workloads", 0, "slo", 1, "limit_ms", to=limit), "scenario", "workload", to=(asked,))
    assert plan.workloads[0].slo[1].metric == "tpot"
    assert families(tighter) >= {"capacity", "slo"}


def test_replicas_without_instances_are_not_placed() -> None:
    plan = planned("instances")
    replicas = plan.deployments[0].replicas + 20
    grown = changed(changed(plan, "deployments", 0, "replicas", to=replicas), "deployments", 0, "hosts", 0, "replicas", to=lambda n: n + 20)
    found = [b for b in check(grown).breaches if b.name == "packing"]
    assert any("no room for replica" in b.what or "are needed" in b.what for b in found)


@given(st.sampled_from([1, 2, 4, 6, 8, 16]), st.integers(1, 4), st.lists(st.sampled_from([1, 2, 4, 8]), max_size=24))
def test_placing_succeeds_exactly_where_the_packing_rows_hold(size: int, instances: int, replicas: list[int]) -> None:
    replicas = sorted((g for g in replicas if g <= size), reverse=True)
    taken = [0] * instances
    placed = all(fill(taken, g, size, 1) for g in replicas)
    rows = all(sum(g // s for g in replicas if g >= s) <= size // s * instances for s in (1, 2, 4, 8) if s <= size)
    assert placed == rows


def test_a_replica_over_several_instances_takes_them_whole() -> None:
    taken = [0, 0, 0]
    assert fill(taken, 16, 8, 1) and taken == [8, 8, 0]
    assert not fill(taken, 16, 8, 1) and fill(taken, 8, 8, 1)


CAPACITIES = """candidate,gpu,gpus,usd_per_hour,class,max_qps
small,L4,1,0.8,chat,5
small,L4,1,0.8,code,2
large,H100,2,5.0,chat,40
large,H100,2,5.0,code,22
"""


@pytest.fixture
def own(tmp_path: Path) -> Plan:
    (tmp_path / "capacities.csv").write_text(CAPACITIES)
    (tmp_path / "demand.csv").write_text("class,qps\nchat,33\ncode,9\n")
    tables = {"capacities": str(tmp_path / "capacities.csv"), "demand": str(tmp_path / "demand.csv")}
    return solve(Scenario.model_validate({"tables": tables}), compare=False)


OWN_NUMBER: list[tuple[str, tuple[str | int, ...], Any]] = [
    ("demand", ("workloads", 0, "qps"), more),
    ("capacity", ("deployments", 0, "slo_load"), more),
    ("capacity", ("scenario", "policy", "max_slo_load"), 0.1),
    ("capacity", ("deployments", 0, "slo_load_one_replica_lost"), None),
    ("deployments", ("deployments", 0, "gpus"), 99),
    ("limits", ("scenario", "supply", "max_gpus"), 1),
    ("limits", ("scenario", "policy", "budget"), 0.5),
    ("cost", ("cost", "usd_per_month"), more),
    ("deployments", ("deployments", 0, "usd_per_hour"), more),
    *(("deployments", ("deployments", 0, field), "another") for field in ("engine", "precision", "model", "mode", "serve_command")),
    ("deployments", ("deployments", 0, "tp"), 8),
    *(("offers", ("purchases", 0, field), "another") for field in ("provider", "region", "kind", "source")),
    ("bound", ("gap",), 0.5),
    ("bound", ("status",), "feasible"),
    ("candidate", ("deployments", 0, "checkpoint"), "nobody"),
    ("bound", ("objective",), "quality"),
    ("tables", ("own", "candidates", 1, "usd_per_hour"), more),
    ("tables", ("own", "demand", "chat"), more),
    ("tables", ("catalog_hash",), "0" * 16),
]


@pytest.mark.parametrize(("family", "path", "to"), OWN_NUMBER, ids=[f"{f} {'.'.join(map(str, p))}" for f, p, _ in OWN_NUMBER])
def test_plans_from_own_tables(own: Plan, family: str, path: tuple[str | int, ...], to: Any) -> None:
    assert check_plan(own, None).breaches == ()
    found = {b.name for b in check_plan(changed(own, *path, to=to), None).breaches}
    assert family in found and found <= {family, "cost", "packing"}  # which add up what others state


def test_plans_from_own_tables_are_checked_where_the_tables_are_not(own: Plan) -> None:
    for name in ("capacities", "demand"):
        Path(getattr(own.scenario.tables, name)).unlink()
    read = Plan.model_validate_json(own.to_json())
    assert check_plan(read, None).ok
    for path in (("own", "candidates", 0, "max_qps", "chat"), ("own", "demand", "code"), ("own", "candidates", 1, "usd_per_hour")):
        assert {b.name for b in check_plan(changed(read, *path, to=more), None).breaches} == {"tables"}
    assert {b.name for b in check_plan(changed(read, "own", to=None), None).breaches} == {"tables"}


def test_own_tables_that_changed_since_are_noticed(own: Plan) -> None:
    Path(own.scenario.tables.demand or "").write_text("class,qps\nchat,99\ncode,9\n")
    assert {b.name for b in check_plan(own, None).breaches} == {"tables"}


def test_a_bound_that_one_candidate_alone_undercuts(own: Plan) -> None:
    dear = changed(own, "own", "candidates", 1, "max_qps", to={"chat": 4000.0, "code": 2200.0})  # one replica would do
    for name in ("capacities", "demand"):
        Path(getattr(own.scenario.tables, name)).unlink()
    assert dear.own is not None
    found = check_plan(dear.model_copy(update={"catalog_hash": dear.own.hash}), None).breaches
    assert any(b.name == "bound" and "alone serves everything" in b.what for b in found)


def test_uses_nothing_that_made_the_plan() -> None:
    for file in Path(check_plan.__code__.co_filename).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names] if isinstance(node, ast.Import) else []
            assert not any(n.startswith(("planner.candidates", "planner.program", "planner.search", "planner.planning")) for n in names), (
                f"{file.name}: {names}"
            )


def test_a_plan_that_queues_fails_where_that_was_not_allowed() -> None:
    workload = QUESTIONS["queues"]["workload"][0]
    plan = solve(Scenario.model_validate({"workload": [{**workload, "qps": 60, "max_waiting_share": 1}]}), load_catalog(), compare=False)
    held = changed(plan, "scenario", "workload", to=lambda asked: (asked[0].model_copy(update={"max_waiting_share": 0.0011}),))
    assert check(plan).ok
    assert any("finds its replica full" in b.what for b in check(held).breaches if b.name == "slo")


@pytest.mark.parametrize("kind", ["thinking", "day", "own table, other place"])
def test_single_edits_are_caught_or_cannot_matter(kind: str) -> None:
    found = campaign(30, seed=1, kinds=(kind,))
    assert not found.crashed and not found.missed, (found.crashed, dict(found.missed))
    assert found.caught >= 15
