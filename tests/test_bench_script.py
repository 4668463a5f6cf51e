"""The benchmark of a plan: its requests are the plan's, its loads the plan's, and what it says of a result is what a plan made anew would."""

from __future__ import annotations

import json
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import Run

from planner import Plan, Scenario, load_catalog, solve
from planner.bench.read import read_bench
from planner.bench.setup import Setup
from planner.check.case import rebuild
from planner.demand.source import imported
from planner.deploy.bench import MOST, WARM_UP, Bench, bench
from planner.deploy.doubt import in_service
from planner.deploy.release import Release, Settings, release
from planner.deploy.script import Benchmark, benchmark
from planner.deploy.tools import CLIENTS, trace_file
from planner.errors import PlannerError
from planner.planning.periods import autoscale
from planner.scenario.change import assumed

FLAGS = Path(__file__).parent / "data" / "flags"
LISTS = {"vllm": "vllm-bench-serve", "guidellm": "guidellm-run", "aiperf": "aiperf-profile"}
SMALL, LARGE = "Qwen/Qwen3-4B-Instruct-2507-FP8", "Qwen/Qwen3-30B-A3B-Instruct-2507-FP8"
ONE = {"supply": {"gpus": ["H100-SXM-80GB"], "providers": ["verda"]}, "policy": {"engines": ["vllm"]}}
LENGTHS = "azure-code"
WORKLOADS: dict[str, list[dict[str, Any]]] = {
    "plain": [{"qps": 150, "models": [LARGE]}],
    "prefix": [{"qps": 60, "models": [LARGE], "prefix_cache_hit": 0.4}],
    "in flight": [{"concurrency": 1200, "models": [SMALL]}],
    "one": [{"qps": 2, "models": [SMALL]}],
    "p99": [{"qps": 40, "models": [SMALL], "slo": {"tpot_p99": "30ms"}}],
    "together": [{"name": "a", "qps": 20, "models": [LARGE]}, {"name": "b", "qps": 4, "models": [LARGE], "input_tokens": 3000, "output_tokens": 100}],
}


@cache
def planned(question: str) -> Plan:
    plan = solve(Scenario.model_validate({"workload": WORKLOADS[question], **ONE}), load_catalog(), compare=False)
    assert len(plan.deployments) == 1
    return plan


@cache
def benched(question: str) -> tuple[Release, Bench]:
    found = release(planned(question), Settings())
    return found, bench(found, 0, load_catalog())


def script(question: str, tool: str = "vllm") -> Benchmark:
    found, b = benched(question)
    return benchmark(found, b, CLIENTS[tool], "bench")


def rows(question: str, run: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in benched(question)[1].traces[run].splitlines()]


# ---- requests


@pytest.mark.parametrize("question", ["plain", "prefix", "together"])
def test_the_requests_are_the_plans(question: str, tmp_path: Path) -> None:
    """Read back by the planner's own reader of such traces: lengths, rate and share of cached prompt tokens."""
    _, b = benched(question)
    plan = planned(question)
    (run,) = (r for r in b.runs if r.name == "service")
    path = tmp_path / "service.jsonl"
    path.write_text(b.traces["service"])
    found = imported(path)
    total = sum(w.qps for w in plan.workloads)
    for side, field in (("input", "input_tokens"), ("output", "output_tokens")):
        mean = sum(getattr(w, field) * p.qps for w, p in zip(plan.scenario.workload, plan.workloads, strict=True)) / total
        spread = getattr(found, side)
        assert spread.mean == pytest.approx(mean, rel=5 * 1.5 / np.sqrt(run.requests)), side
    assert found.requests == run.requests and found.arrivals
    assert found.arrivals.mean == pytest.approx(total, rel=0.05)


def test_prefixes_are_shared_as_much_as_the_plan_counts_on_and_filled_before() -> None:
    _, b = benched("prefix")
    block, seen, first = b.stream.block, set(), {}
    for row in rows("prefix", WARM_UP):
        seen |= set(row["hash_ids"])
    for run in b.runs:
        found = rows("prefix", run.name)
        hit = sum(block * sum(i in seen for i in r["hash_ids"]) for r in found) / sum(r["input_length"] for r in found)
        assert hit == pytest.approx(0.4, abs=0.005), run.name
        assert all(len(r["hash_ids"]) == -(-r["input_length"] // block) for r in found)
        first[run.name] = {i for r in found for i in r["hash_ids"]} - seen
    one, *others = first.values()
    assert not any(one & other for other in others)
    assert sum(len(r["hash_ids"]) for r in rows("prefix", "rate")) - sum(len(set(r["hash_ids"])) for r in rows("prefix", "rate")) == 0


def test_joint_lengths_stay_joint() -> None:
    """Long prompts with short answers: independent draws would lose that."""
    lengths = {"source": "here", "points": [[100, 900], [4000, 50], [200, 700], [3000, 100]]}
    plan = planned("plain")
    w = plan.scenario.workload[0]
    asked = type(w).model_validate(w.model_dump(mode="json") | {"lengths": lengths, "input_tokens": 1825, "output_tokens": 437.5})
    again = plan.model_copy(update={"scenario": plan.scenario.model_copy(update={"workload": (asked,)})})
    found = bench(release(again, Settings()), 0, load_catalog())
    drawn = found.requests["rate"]
    assert np.corrcoef(drawn.prompts, drawn.answers)[0, 1] < -0.9


def test_what_the_engine_would_refuse_is_left_out_and_said() -> None:
    _, b = benched("plain")
    assert all((r.prompts + r.answers).max() <= b.stream.context for r in b.requests.values())
    assert sum(r.too_long for r in b.requests.values()) > 0
    assert "longer than the context" in script("plain").script


# ---- loads


def test_runs_are_at_the_plans_load_and_long_enough_for_its_percentile() -> None:
    plan, (_, b) = planned("plain"), benched("plain")
    d = plan.deployments[0]
    flight, rate, service = b.runs
    assert (flight.name, flight.in_flight, flight.rate) == ("in-flight", round(d.in_flight_per_replica or 0), 0)
    assert 0.8 * 150 / d.replicas < rate.rate <= 150 / d.replicas
    assert (service.rate, service.url) == (150, "SERVICE_URL")
    assert all(2000 <= r.requests <= MOST and r.requests >= 10 * flight.in_flight for r in b.runs)
    assert all(r.requests >= 10_000 for r in benched("p99")[1].runs)


def test_a_closed_loop_has_no_rate_and_one_replica_no_service() -> None:
    d = planned("in flight").deployments[0]
    assert [(r.name, r.in_flight, r.rate) for r in benched("in flight")[1].runs] == [
        ("in-flight", round(d.in_flight_per_replica or 0), 0), ("service", round(d.in_flight_per_replica or 0) * d.replicas, 0),
    ]  # fmt: skip
    assert [r.name for r in benched("one")[1].runs] == ["in-flight", "rate"] and planned("one").deployments[0].replicas == 1


def test_what_has_no_replicas_cannot_be_measured() -> None:
    plan = planned("one")
    none = plan.model_copy(update={"deployments": tuple(d.model_copy(update={"replicas": 0}) for d in plan.deployments)})
    with pytest.raises(PlannerError, match="no replicas"):
        bench(release(none, Settings()), 0, load_catalog())
    with pytest.raises(PlannerError, match="no deployments"):
        release(plan.model_copy(update={"deployments": ()}), Settings())


# ---- what a result decides


def replanned(question: str, factor: float) -> int | None:
    """Replicas of a plan made anew on the same GPU, with all steps so many times as long."""
    plan = planned(question)
    try:
        return solve(assumed(plan.scenario, "what_if", step_factor=factor), load_catalog(), compare=False).deployments[0].replicas
    except PlannerError:
        return None


def test_thresholds_are_where_a_plan_made_anew_has_one_replica_more() -> None:
    doubt = benched("plain")[1].doubt
    assert doubt and doubt.planned_replicas == planned("plain").deployments[0].replicas
    at = {t.replicas: t for t in doubt.thresholds}
    for n in (doubt.planned_replicas, doubt.planned_replicas + 1):
        assert replanned("plain", at[n].factor * 0.985) == n
        assert replanned("plain", at[n].factor * 1.015) == n + 1
    faster = at[doubt.planned_replicas - 1]
    assert (replanned("plain", faster.factor * 0.985) or 0) <= faster.replicas  # with more sequences, which pay where steps are short, it may be fewer
    assert at[doubt.planned_replicas - 1].factor < 1 <= at[doubt.planned_replicas].factor


@pytest.mark.parametrize("question", ["plain", "together", "in flight"])
def test_thresholds_are_what_the_rebuilt_deployment_does(question: str) -> None:
    """TPOT and replicas at each factor, computed at that factor and not between others."""
    (_, b), plan = benched(question), planned(question)
    assert b.doubt and len(b.doubt.thresholds) > 2
    for t in b.doubt.thresholds:
        case = rebuild(plan, assumed(plan.scenario, "what_if", step_factor=t.factor), load_catalog())
        tpot = float(in_service(case, b.stream, b.doubt.in_flight).tpot_s[b.doubt.percentile][0]) * 1e3
        assert t.tpot_ms == pytest.approx(tpot, rel=0.01)
        loads = [case.flow(w, 0) / case.capacity(0, w) for w in (case.built[0].serves if case.built[0] else ())]
        assert sum(loads) == pytest.approx(t.replicas, rel=0.04)  # capacity here is that of as many replicas as planned
    assert [t.tpot_ms for t in b.doubt.thresholds] == sorted(t.tpot_ms for t in b.doubt.thresholds)


def test_a_plan_by_the_hour_is_measured_in_its_busiest() -> None:
    workload = {"qps": 60, "models": [LARGE], "profile": "m-small"}
    plan = autoscale(Scenario.model_validate({"workload": [workload], **ONE}))
    found = release(plan, Settings())
    b = bench(found, 0, load_catalog())
    assert b.doubt and b.doubt.planned_replicas == max(found.served[0].replicas) > min(found.served[0].replicas)
    at = {t.replicas: t.factor for t in b.doubt.thresholds}
    assert at[b.doubt.planned_replicas - 1] < 1.0 <= at[b.doubt.planned_replicas]
    assert b.runs[-1].rate == pytest.approx(max(plan.workloads[0].rates), rel=1e-6)
    assert "busiest hour" in benchmark(found, b, CLIENTS["vllm"], "bench").script


def test_the_plan_is_within_its_own_threshold_and_says_what_the_median_would_do() -> None:
    doubt = benched("plain")[1].doubt
    assert doubt and doubt.median_ms < doubt.planned_ms
    planned_for = next(t for t in doubt.thresholds if t.replicas == doubt.planned_replicas)
    assert doubt.planned_ms <= planned_for.tpot_ms
    text = script("plain").script
    assert f"up to {planned_for.tpot_ms:.4g} ms: {doubt.planned_replicas} replicas (as planned)" in text
    assert f"{doubt.in_flight} in flight on one replica" in text


def test_a_deployment_that_the_catalogue_does_not_have_is_measured_without_saying_what_that_decides() -> None:
    plan = planned("one")
    ds = tuple(d.model_copy(update={"checkpoint": "own/model", "serve_command": d.serve_command.replace(d.checkpoint, "own/model")}) for d in plan.deployments)
    found = release(plan.model_copy(update={"deployments": ds}), Settings())
    b = bench(found, 0, load_catalog())
    assert b.doubt is None and "is not known" in benchmark(found, b, CLIENTS["vllm"], "bench").script


# ---- commands


@pytest.mark.parametrize("tool", ["vllm", "guidellm", "aiperf"])
@pytest.mark.parametrize("question", ["plain", "prefix", "in flight"])
def test_every_flag_is_one_of_the_client_and_every_file_is_there(tool: str, question: str) -> None:
    made = script(question, tool)
    known = set((FLAGS / f"{LISTS[tool]}.txt").read_text().splitlines()[1:])
    commands = [x.strip() for x in made.script.splitlines() if x.strip().startswith(("vllm ", "guidellm ", "aiperf "))]
    assert len(commands) == len(benched(question)[1].runs) + 1
    used = {f for c in commands for f in re.findall(r"(?<=\s)--[\w-]+", c)}
    assert used and not {f for f in used if f not in known and f.replace("--no-", "--", 1) not in known}
    names = {f.file for f in made.files}
    assert {n for c in commands for n in re.findall(r"bench\.[\w-]+\.(?:jsonl|guidellm\.json)", c)} <= names
    assert {trace_file("bench", n) for n in benched(question)[1].traces} <= names


@pytest.mark.parametrize("tool", list(CLIENTS))
def test_scripts_are_shell_and_the_same_every_time(tool: str) -> None:
    found, _ = benched("plain")
    text = script("plain", tool).script
    assert subprocess.run(["bash", "-n"], input=text.encode(), check=False).returncode == 0
    assert benchmark(found, bench(found, 0, load_catalog()), CLIENTS[tool], "bench") == script("plain", tool)


def test_configurations_of_clients_read_back() -> None:
    for f in script("plain", "guidellm").files:
        if f.file.endswith(".guidellm.json"):
            spec = json.loads(f.text)["spec"]
            assert spec["data"][0]["source"]["path"] in {g.file for g in script("plain", "guidellm").files}
    (rate,) = (f for f in script("plain", "inference-perf").files if f.file == "bench.rate.inference-perf.yaml")
    stage = yaml.safe_load(rate.text)["load"]["stages"][0]
    run = benched("plain")[1].runs[1]
    assert stage["rate"] * stage["duration"] == pytest.approx(run.requests, rel=0.02)
    with pytest.raises(PlannerError, match="share no prefixes"):
        script("prefix", "inference-perf")


def test_what_the_script_labels_is_enough_for_importing_the_result(tmp_path: Path) -> None:
    """A result in vLLM's shape with the metadata that the command gives: nothing more has to be told of it."""
    _, b = benched("plain")
    command = next(x for x in script("plain").script.splitlines() if "bench.in-flight.json " in x)
    metadata = dict(w.split("=") for w in command.split("--metadata ")[1].split())
    result = {
        "date": "20261101-120000", "backend": "openai", "model_id": LARGE, "num_prompts": 2000, "request_rate": "inf", "max_concurrency": b.runs[0].in_flight,
        "completed": 2000, "failed": 0, "total_input_tokens": 2_000_000, "total_output_tokens": 600_000, "request_throughput": 20.0,
        "output_throughput": 6000.0, "mean_ttft_ms": 100.0, "mean_tpot_ms": 30.0, "p95_tpot_ms": 31.0, **metadata,
    }  # fmt: skip
    path = tmp_path / "bench.in-flight.json"
    path.write_text(json.dumps(result))
    (point,) = read_bench(path, Setup())
    d = planned("plain").deployments[0]
    assert (point.gpu, point.engine, point.tp, point.precision, point.concurrency) == (d.gpu, d.engine, d.tp, d.precision, b.runs[0].in_flight)


def test_data_parallel_is_labelled_as_the_engine_is_started() -> None:
    _, b = benched("plain")
    d = planned("plain").deployments[0].model_copy(update={"tp": 8, "dp": 8, "ep": 8})
    vllm = type(b)(**{**{k: v for k, v in vars(b).items() if k in b.__dataclass_fields__}, "served": type(b.served)(**{**vars(b.served), "deployment": d})})
    assert (vllm.labels["tp"], vllm.labels["dp"], vllm.labels["ep"]) == ("1", "8", "8")


def test_hostile_names_stay_in_comments_and_quotes() -> None:
    evil = "x\nrm -rf ~\nEND-OF-VERDICT\n$(touch y) '"
    plan = planned("plain")
    workloads = tuple(w.model_copy(update={"name": evil}) for w in plan.workloads)
    scenario = plan.scenario.model_copy(update={"name": evil, "workload": tuple(w.model_copy(update={"name": evil}) for w in plan.scenario.workload)})
    ds = tuple(d.model_copy(update={"gpu": f"{d.gpu}$(id)", "precision": "fp8; id"}) for d in plan.deployments)
    found = release(plan.model_copy(update={"workloads": workloads, "scenario": scenario, "deployments": ds}), Settings())
    text = benchmark(found, bench(found, 0, load_catalog()), CLIENTS["vllm"], "bench").script
    assert subprocess.run(["bash", "-n"], input=text.encode(), check=False).returncode == 0
    assert not [x for x in text.splitlines() if x.startswith(("rm ", "$("))] and text.count("\nEND-OF-VERDICT\n") == 1
    assert "'gpu=H100-SXM-80GB$(id)'" in text and "'precision=fp8; id'" in text


def test_the_command_writes_the_script_and_what_it_reads(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(planned("plain").to_json())
    status, out, err = run("bench-script", path)
    assert status == 0 and "bench.warmup.jsonl" in err and out.startswith("#!/usr/bin/env bash")
    assert run("bench-script", path, "-o", tmp_path / "mine.sh")[0] == 0
    made = {p.name for p in tmp_path.iterdir()}
    assert {"mine.sh", "mine.warmup.jsonl", "mine.in-flight.jsonl", "mine.rate.jsonl", "mine.service.jsonl"} <= made
    status, out, err = run("bench-script", path, "--tool", "vlm")
    assert (status, out) == (2, "") and "did you mean 'vllm'" in err
