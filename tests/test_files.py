"""Files that a user may have made or edited: fitted numbers beside a catalogue, tables, saved plans. What is wrong is said with its place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planner import Plan, Scenario, autoscale, load_catalog, solve
from planner.check.check import check_plan
from planner.errors import PlannerError
from planner.performance.lengths import lognormal_mix
from planner.performance.shared import settled
from planner.performance.step import GRID, StepCurves
from planner.simulation.hours import simulate_hours
from planner.simulation.run import simulate

Run = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parent.parent
TINY = ROOT / "tests" / "data" / "tiny"
ONE: dict[str, Any] = {"qps": 20, "min_quality": 0.5, "models": ["Small-8B"]}
ASKED: dict[str, Any] = {"workload": [ONE], "supply": {"gpus": ["GPU-80"]}, "catalog": [str(TINY)]}


@pytest.mark.parametrize(
    ("file", "at", "value", "told"),
    [
        ("coefficients.json", ("values",), 5, "'values': input should be"),
        ("coefficients.json", ("values", "products"), "fast", "'values.products': input should be a valid number, got 'fast'"),
        ("coefficients.json", ("values", "link"), 0, "'values': has an efficiency 'link' of 0"),
        ("coefficients.json", ("values", "products"), 0.9, "'values': has a factor 'products' below 1"),
        ("coefficients.json", ("values", "products"), None, "'values.products'"),
        ("coefficients.json", ("engines", "request_s"), 3, "'engines.request_s'"),
        ("coefficients.json", ("engines", "request_s"), {"vlm": 1.1}, "has 'vlm', which is none of vllm, sglang, trtllm"),
        ("coefficients.json", ("step_quantiles", "measured"), {}, "'step_quantiles.measured'"),
        ("coefficients.json", ("step_quantiles", "measured"), {"most": 1.1}, "has 'most', which is no share"),
        ("coefficients.json", ("step_quantiles",), {"measured": {"0.5": 1}}, "'step_quantiles': has no 'anchored'"),
        ("residuals.json", ("points",), 7, "'points'"),
        ("residuals.json", ("points", 2, 2), "x", "'points.2.2': input should be a valid number, got 'x'"),
        ("residuals.json", ("points", 2, 0), 10**6, "'points.2.0': there is no such configuration"),
        ("residuals.json", ("terms",), [], "'terms'"),
        ("residuals.json", ("kernels", "tpot", "sd"), {}, "'kernels.tpot.sd': has no 'engine+generation'"),
        ("residuals.json", ("quantiles", "tpot", "other_tp", "0.5"), float("nan"), "'quantiles.tpot.other_tp.0.5'"),
    ],
)
def test_fitted_files_of_wrong_types_say_where(run: Run, tmp_path: Path, file: str, at: tuple[str | int, ...], value: Any, told: str) -> None:
    folder = tmp_path / "c"
    shutil.copytree(TINY, folder)
    for name in {"coefficients.json", file}:
        shutil.copy(ROOT / "catalogs" / name, folder)
    raw = json.loads((folder / file).read_text())
    part = raw
    for key in at[:-1]:
        part = part[key]
    part[at[-1]] = value
    (folder / file).write_text(json.dumps(raw))
    status, out, err = run("--qps", "20", "--min-quality", "0.4", "--gpu", "GPU-80", "--no-alternatives", "--catalog", folder)
    assert (status, out, len(err.splitlines())) == (2, "", 1), err
    assert f"{folder / file}: not a file of " in err, err
    assert told in err, err


@pytest.mark.parametrize("text", ["", "[" * 100_000, '{"values": NaN', "\x00", "[1]"])
def test_what_is_no_json_is_bad_input(run: Run, tmp_path: Path, text: str) -> None:
    shutil.copytree(TINY, tmp_path / "c")
    (tmp_path / "c" / "coefficients.json").write_text(text)
    status, out, err = run("--qps", "20", "--min-quality", "0.4", "--gpu", "GPU-80", "--no-alternatives", "--catalog", tmp_path / "c")
    assert (status, out, len(err.splitlines()), "not a file of fitted coefficients" in err) == (2, "", 1, True), err


# ---- tables, which the check reads again


def own_tables(folder: Path) -> tuple[Plan, Path]:
    """A plan of two candidates whose names a spreadsheet would run."""
    capacities, demand = folder / "capacities.csv", folder / "demand.csv"
    capacities.write_text("candidate,gpu,gpus,usd_per_hour,class,max_qps\n=small,L4,1,0.8,chat,5\n@large,H100,2,5.0,chat,40\n")
    demand.write_text("class,qps\nchat,33\n")
    return solve(Scenario.model_validate({"tables": {"capacities": str(capacities), "demand": str(demand)}})), capacities


def test_the_check_reads_cleaned_cells_as_the_planner_does(tmp_path: Path) -> None:
    plan, capacities = own_tables(tmp_path)
    assert check_plan(plan, None).ok
    capacities.write_text(capacities.read_text().replace("=small", "'=small").replace("@large", "'@large"))
    assert check_plan(plan, None).breaches == ()


@pytest.mark.parametrize("text", ["candidate,gpu\n" + "x" * 200_000 + ",1\n", "candidate\n" * 100_002, "a,b\n1,2\n", '"', "\x00"])
def test_tables_that_cannot_be_read_are_a_breach(tmp_path: Path, text: str) -> None:
    plan, capacities = own_tables(tmp_path)
    capacities.write_text(text)
    for stated in (plan, plan.model_copy(update={"own": None})):
        assert check_plan(stated, None).breaches


# ---- saved plans with parts that do not fit together


@pytest.fixture(scope="module")
def shared() -> Plan:
    """Two workloads with requests in flight on one deployment."""
    both = [{**ONE, "name": "a", "qps": None, "concurrency": 20, "slo": {"e2e_p95": "60s"}}, {"name": "b", "concurrency": 8}]
    plan = solve(Scenario.model_validate({**ASKED, "workload": both}), load_catalog([TINY]), compare=False)
    assert [[r.deployment for r in w.routing] for w in plan.workloads] == [[0], [0]]
    return plan


@pytest.fixture(scope="module")
def by_the_hour() -> Plan:
    """One workload over a day."""
    return autoscale(Scenario.model_validate({**ASKED, "workload": [{**ONE, "profile": [0.5, 1.0] * 12}]}), load_catalog([TINY]))


def edited(plan: Plan, *at: str | int, to: Any) -> Any:
    """The same with one value exchanged."""
    raw = plan.model_dump(mode="json")
    part: Any = raw
    for key in at[:-1]:
        part = part[key]
    part[at[-1]] = to
    return type(plan).model_validate(raw)


@pytest.mark.parametrize(
    ("at", "to"),
    [
        (("workloads", 0, "routing", 0, "share"), 0.0),
        (("workloads", 0, "routing"), []),
        (("deployments", 0, "replicas"), 0),
        (("deployments", 0, "replicas"), 10**30),
        (("deployments", 0, "tp"), 10**30),
        (("deployments", 0, "max_num_seqs"), 10**10),
        (("deployments", 0, "hosts"), []),
        (("gpus_used",), 10**30),
    ],
)
def test_shared_loops_that_were_edited_are_breaches_and_no_crash(shared: Plan, at: tuple[str | int, ...], to: Any) -> None:
    assert check_plan(edited(shared, *at, to=to), load_catalog([TINY])).breaches


@pytest.mark.parametrize(
    ("at", "to"),
    [
        (("workloads", 0, "routing"), []),
        (("workloads", 0, "routing", 0, "share"), 0.5),
        (("deployments", 0, "max_num_seqs"), 10**12),
        (("deployments", 0, "hosts", 0, "replicas"), 10**12),
        (("deployments", 0, "hosts", 0, "purchase"), 7),
    ],
)
def test_what_cannot_be_simulated_says_why(shared: Plan, at: tuple[str | int, ...], to: Any) -> None:
    with pytest.raises(PlannerError, match=r"do not fit together|routes|can be simulated|must be from 1"):
        simulate(edited(shared, *at, to=to), load_catalog([TINY]), requests=100)


@pytest.mark.parametrize(
    ("at", "to"),
    [
        (("periods", 0, "hour"), 10**30),
        (("periods", 0, "hour"), 2**31),
        (("periods", 0, "deployments", 0, "waiting_requests"), [5.0]),
        (("workloads", 0, "routing", 0, "deployment"), 9),
        (("workloads", 0, "rates", 3), float("inf")),
        (("deployments",), []),
        (("deployments", 0, "busiest"), 99),
    ],
)
def test_hours_that_were_edited_are_breaches_and_cannot_be_simulated(by_the_hour: Plan, at: tuple[str | int, ...], to: Any) -> None:
    tiny, plan = load_catalog([TINY]), edited(by_the_hour, *at, to=to)
    assert check_plan(plan, tiny).breaches
    with pytest.raises(PlannerError):
        simulate_hours(plan, tiny)


@pytest.mark.parametrize(("part", "value"), [("catalog", 3), ("catalog", [1]), ("supply", "x"), ("policy", [])])
def test_a_question_of_wrong_types_makes_no_plan(run: Run, tmp_path: Path, shared: Plan, part: str, value: Any) -> None:
    raw = shared.model_dump(mode="json")
    raw["scenario"][part] = value
    (tmp_path / "p.json").write_text(json.dumps(raw))
    for verb in ("show", "check", "simulate"):
        status, out, err = run(verb, tmp_path / "p.json")
        assert (status, out, f"not a plan: scenario.{part}" in err) == (2, "", True), err


def test_loops_that_share_a_replica_hold_the_numbers_asked() -> None:
    """Little's law for each, at any mix of lengths: the rate times the mean E2E is the number in flight."""
    curves = StepCurves(GRID, 6.5e-3 + 1e-4 * GRID[None, :], np.array([27e-6]), np.array([0.01]), np.zeros((1, len(GRID))))
    mixes, asked = [lognormal_mix(i, o, 0.9, 0.8) for i, o in ((100, 10), (8000, 2000), (500, 50))], np.array([300.0, 100.0, 1.0])
    found = settled([curves] * 3, mixes, np.zeros(3), asked, np.array([256]))
    assert [found.rates[w] * found.mean_e2e_s(w) for w in range(3)] == pytest.approx(asked, rel=1e-7)


def test_peaks_of_one_workload_leave_the_check_of_its_neighbours_alone() -> None:
    """What is predicted is the peak hour; requests in flight beside peaks run slower in it than over the day, so rate x E2E is above their number."""
    both = [{**ONE, "name": "chat", "burst_factor": 1.5}, {"name": "batch", "concurrency": 40, "slo": {"e2e_p95": "60s"}}]
    plan = solve(Scenario.model_validate({**ASKED, "workload": both}), load_catalog([TINY]), compare=False)
    batch = plan.workloads[1]
    assert [[r.deployment for r in w.routing] for w in plan.workloads] == [[0], [0]]
    assert batch.predicted
    assert batch.qps * batch.predicted.e2e_ms.mean / 1e3 > 40 * 1.001
    assert check_plan(plan, load_catalog([TINY])).ok


def test_a_trace_with_a_count_beyond_all_floats_drops_that_row(run: Run, tmp_path: Path) -> None:
    rows = "".join(f"{i},100,50\n" for i in range(30))
    (tmp_path / "t.csv").write_text(f"arrival_s,input_tokens,output_tokens\n{rows}31,{'1' * 400},5\n")
    status, out, err = run("demand", "show", tmp_path / "t.csv")
    assert status == 0, err
    assert "more than" in out + err


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("arrival_s,input_tokens,output_tokens\n" + "".join(f"{i},100,50\n" for i in range(30)) + "1e200,100,50\n", 0),
        ("input_tokens,output_tokens,count\n100,50,7\nnan,90,3\n", 2),
    ],
)
def test_times_and_tokens_that_are_none_are_no_crash(run: Run, tmp_path: Path, text: str, status: int) -> None:
    (tmp_path / "t.csv").write_text(text)
    found, _, err = run("demand", "show", tmp_path / "t.csv")
    assert found == status, err
