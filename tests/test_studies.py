"""Facts about studies: frontiers against brute force, staircases, comparisons, margins, break-evens, kept answers, clusters."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from brute_force import optimum
from conftest import Run
from scipy.optimize import linprog

from planner import Catalog, Infeasible, Scenario, load_catalog, solve
from planner.candidates.columns import formulation
from planner.cli.study import where_of
from planner.economics.compare import changes, compare, differences, merged, scenarios_in
from planner.economics.explain import distinct, explain, k_cheapest, large_scale, long_run, restricted_to, why_not_of
from planner.economics.frontier import by_model, frontier
from planner.economics.runs import Where, answer_one, answers, key_of
from planner.economics.sensitivity import odds, sensitivity
from planner.economics.store import Result
from planner.economics.sweep import axis, headroom, marginal, structure, sweep
from planner.errors import PlannerError, ScenarioError
from planner.program.model import build
from planner.program.problem import Problem
from planner.report.studies import compare_sections, frontier_sections, sweep_sections
from planner.result.plan import Plan
from planner.scenario.change import assumed, with_workload
from planner.search.survey_cache import SurveyCache

TINY = Path(__file__).parent / "data" / "tiny"
EXACT = {"gap": 0.0}
SMALL = ("--catalog", str(TINY), "--gpu", "GPU-80", "--model", "Small-8B", "--model", "Large-60B")  # flags for a question of few candidates


@cache
def shipped() -> Catalog:
    return load_catalog()


@cache
def tiny(seed: int = 0) -> Catalog:
    """The tiny catalogue; with a seed, every published score and price is another."""
    catalog = load_catalog([TINY], shipped=False)
    if not seed:
        return catalog
    rng = np.random.default_rng(seed)
    cards = tuple(
        c.model_copy(update={"quality": tuple(q.model_copy(update={"score": float(rng.integers(30, 95)) / 100}) for q in c.quality)}) for c in catalog.cards
    )
    offers = tuple(o.model_copy(update={"usd_per_hour": float(np.round(o.usd_per_hour * rng.uniform(0.4, 2.0), 2))}) for o in catalog.offers)
    return replace(catalog, cards=cards, offers=offers, hash=f"{catalog.hash}-{seed}")


def asked(policy: dict[str, Any] | None = None, supply: dict[str, Any] | None = None, **workload: Any) -> Scenario:
    return Scenario.model_validate({"workload": [{"qps": 20, **workload}], "policy": policy or {}, "supply": supply or {}, "solver": EXACT})


def brute_force(catalog: Catalog, scenario: Scenario) -> float:
    """The least cost of a scenario by enumeration."""
    problem = formulation(SurveyCache(catalog).points(scenario, catalog.offers), scenario).problem
    places = sorted({o.location for o in problem.offers})
    return min((optimum(_at(problem, place)) for place in places), default=inf)


def _at(problem: Problem, place: str) -> Problem:
    """The problem at one location."""
    offers = [i for i, o in enumerate(problem.offers) if o.location == place]
    columns = tuple(replace(c, offers=tuple(offers.index(o) for o in c.offers if o in offers)) for c in problem.columns)
    return replace(problem, offers=tuple(problem.offers[i] for i in offers), columns=tuple(c for c in columns if c.offers))


# ---- frontier


@pytest.mark.parametrize("seed", range(1, 13))
def test_the_frontier_is_the_pareto_set_of_brute_force(seed: int) -> None:
    catalog = tiny(seed)
    qps = float(np.random.default_rng(seed).integers(5, 60))
    scenario = asked(qps=qps, output_factor=4)
    found = frontier(scenario, catalog)
    scores = sorted({q.score for s in catalog.served if (q := catalog.quality(s, "mmlu-pro"))})
    costs = {f: brute_force(catalog, with_workload(scenario, 0, min_quality=f)) for f in scores}
    pareto = [f for f in scores if costs[f] < inf and all(costs[g] > costs[f] * (1 + 1e-9) for g in scores if g > f)]
    assert [p.quality for p in found.points] == pytest.approx(pareto)
    assert [p.usd_per_hour for p in found.points] == pytest.approx([costs[f] for f in pareto])


def test_the_shipped_frontier_rises_and_every_point_is_a_whole_plan() -> None:
    found = frontier(asked(qps=50), shipped())
    assert len(found.points) > 8
    for a, b in pairwise(found.points):
        assert a.quality < b.quality and a.usd_per_hour < b.usd_per_hour and a.bound_usd_per_hour <= b.bound_usd_per_hour
        assert b.usd_per_hour_per_point == pytest.approx((b.usd_per_hour - a.usd_per_hour) / (b.quality - a.quality) / 100)
    assert all(p.bound_usd_per_hour <= p.usd_per_hour and p.plan.deployments for p in found.points)
    middle = found.points[len(found.points) // 2]
    assert solve(asked(qps=50, min_quality=middle.quality), shipped(), compare=False).cost.usd_per_hour == pytest.approx(middle.usd_per_hour)


def test_a_frontier_tells_a_lack_of_measurements_from_technique() -> None:
    """DeepSeek V3.2 was measured on no GPU, V3.1 was: most of its premium goes at the median, as planning at confidence 0.5 finds again."""
    scenario = asked({"confidence": 0.9}, {"gpus": ["H200-SXM-141GB"]}, qps=200, min_quality=0.83)
    found = frontier(scenario, shipped())
    a, b = found.points
    ((cheaper, dearer, n),) = found.by_evidence
    assert (cheaper, dearer) == (a, b) and (n.cheaper_tier, n.tier) == ("measured", "transferred") and n.by_evidence > n.otherwise > 1
    medians = []
    for p in (a, b):
        one = with_workload(assumed(scenario, "policy", confidence=0.5), 0, models=(p.plan.deployments[0].checkpoint,))
        medians.append(solve(one, shipped(), compare=False))
        assert medians[-1].cost.usd_per_hour <= (p.usd_per_hour_at_median or 0.0) * (1 + 1e-9) <= p.usd_per_hour * (1 + 1e-9)
    apart = medians[1].cost.usd_per_hour - medians[0].cost.usd_per_hour
    assert n.premium_at_median_usd_per_hour == pytest.approx(apart, abs=6 * 8 * 3.39)  # replicas of eight GPUs
    each = [sum(d.qps for d in m.deployments) / sum(d.gpus * d.slo_load for d in m.deployments) for m in medians]
    assert each[0] / each[1] == pytest.approx(n.otherwise, rel=0.1)
    assert any("mainly for thinner evidence (transferred against measured)" in line for line in frontier_sections(found)[0].lines)


def test_a_mean_frontier_of_mixes_is_never_above_that_of_floors() -> None:
    floors = frontier(asked(supply={"gpus": ["GPU-80"]}, qps=40), tiny())
    means = frontier(asked({"mix": True, "max_pools": 2}, {"gpus": ["GPU-80"]}, qps=40), tiny())
    for p in floors.points:
        cheaper = [m.usd_per_hour for m in means.points if m.quality >= p.quality - 1e-9]
        assert cheaper and min(cheaper) <= p.usd_per_hour * (1 + 1e-6)


def test_a_third_axis_keeps_only_what_a_tighter_limit_pays_for() -> None:
    found = frontier(asked(qps=40), tiny(), also="tpot")
    assert found.axis == "tpot" and len({p.latency_ms for p in found.points}) > 1
    points = [(p.quality, p.usd_per_hour, p.latency_ms or 0.0) for p in found.points]
    for a in points:
        assert not any(b != a and b[0] >= a[0] and b[1] <= a[1] and b[2] <= a[2] for b in points)
    with pytest.raises(ScenarioError, match="no frontier over 'speed'"):
        frontier(asked(), tiny(), also="speed")


def test_requests_in_flight_as_the_third_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each number in flight has the frontier of its own question, but for points that a larger number matches; less traffic never costs more."""
    scenario = asked(supply={"gpus": ["GPU-80"]}, qps=None, concurrency=40, min_quality=0.5)
    monkeypatch.setattr("planner.economics.frontier.CONCURRENCIES", (0.25, 1.0))
    found = frontier(scenario, tiny(), also="concurrency")
    cheapest: dict[float, list[float]] = {}
    for n in (10.0, 40.0):
        own = [(p.quality, p.usd_per_hour) for p in frontier(with_workload(scenario, 0, concurrency=n), tiny()).points]
        mine = [(p.quality, p.usd_per_hour) for p in found.points if p.concurrency == n]
        left = [x for x in own if x not in mine]
        assert set(mine) <= set(own)
        assert all(any(p.quality >= q and p.usd_per_hour <= c and (p.concurrency or 0) > n for p in found.points) for q, c in left)
        cheapest[n] = [min((c for q, c in own if q >= f), default=inf) for f in (0.3, 0.5, 0.6)]
    assert all(a <= b + 1e-9 for x, y in pairwise(cheapest.values()) for a, b in zip(x, y, strict=True))
    assert found.chosen is not None
    assert found.points[found.chosen].usd_per_hour == pytest.approx(cheapest[40.0][1])
    with pytest.raises(ScenarioError, match="not in requests in flight"):
        frontier(asked(), tiny(), also="concurrency")


def test_all_models_at_one_load() -> None:
    found = by_model(asked(qps=40), tiny())
    assert [r.cost for _, r in found] == sorted(r.cost for _, r in found)
    assert {name for name, _ in found} <= {c.name for c in tiny().cards}
    for name, r in found:
        assert r.plan is not None and {d.model for d in r.plan.deployments} == {name}


# ---- staircase


def test_the_staircase_never_falls_with_traffic_and_its_switches_are_where_the_plan_changes() -> None:
    scenario = asked(min_quality=0.5)
    found = sweep(scenario, tiny(), [axis("qps=2:300", 8)])
    costs = [r.cost for r in found.results]
    assert costs == sorted(costs)
    cache = SurveyCache(tiny())
    for before, after in pairwise(found.steps):
        at, below = (answer_one(with_workload(scenario, 0, qps=v), cache).plan for v in (after.from_value, before.to_value))
        assert structure(at) == after.structure != structure(below) == before.structure
        assert before.to_value < after.from_value <= before.to_value * 1.005 * (1 + 1e-6)
    steps = marginal(found.axes[0].values, found.results)
    assert steps[-1] is None and all(s is not None and s >= 0 for s in steps[:-1])


@pytest.mark.parametrize("seed", [1, 2])
def test_no_step_between_two_values_is_missed(seed: int) -> None:
    """What a plain walk finds at 17 values is what three values and the search between them say, where ten replicas or fewer serve."""
    scenario, cache = asked(min_quality=0.5), SurveyCache(tiny(seed))
    found = sweep(scenario, tiny(seed), [axis("qps=2:25", 3)])
    walked = set()
    for value in np.geomspace(2, 25, 17):
        plan = answer_one(with_workload(scenario, 0, qps=float(value)), cache).plan
        assert plan is not None
        inside = [s for s in found.steps if s.from_value <= value <= s.to_value]
        assert not inside or inside[0].structure == structure(plan), value
        walked.add(structure(plan))
    assert walked <= {s.structure for s in found.steps} and len(found.steps) > 2 and not found.notes


def test_the_step_of_one_gpu_type_between_two_others_is_found() -> None:
    found = sweep(asked(min_quality=0.8), shipped(), [axis("qps=5,10")])
    costs = [s.usd_per_hour[0] for s in found.steps]
    assert costs == sorted(costs) and len(costs) >= 3
    assert any("H200-SXM-141GB" in (s.structure or "") for s in found.steps[1:-1])


def test_a_search_that_is_stopped_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("planner.economics.sweep.MOST_EXTRA", 0.1)
    found = sweep(asked(min_quality=0.5), tiny(5), [axis("qps=2:25", 3)])
    assert "the search between values was stopped after 2 more plans" in found.notes[0]


def test_a_map_has_every_combination() -> None:
    found = sweep(asked(), tiny(), [axis("qps=10,40"), axis("quality=0.5,0.65,0.99")])
    assert found.values == [(10, 0.5), (10, 0.65), (10, 0.99), (40, 0.5), (40, 0.65), (40, 0.99)]
    assert [r.plan is None for r in found.results] == [False, False, True] * 2
    assert "cannot all be met" in found.results[2].why


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rate=1:2", "cannot sweep over 'rate'"),
        ("qps", "cannot sweep over 'qps'"),
        ("qps=9:2", "not values"),
        ("qps=a:b", "not values"),
        ("qps=0:5", "not values"),
        ("quality:x=0:1", "cannot sweep over 'quality:x'"),
        ("qps=1:2:9999", "not values"),
    ],
)
def test_what_cannot_be_varied_is_refused(text: str, words: str) -> None:
    with pytest.raises(ScenarioError, match=words):
        axis(text)


def test_values_are_written_as_they_are_typed() -> None:
    assert axis("ttft=500ms,2s").values == (0.5, 2.0)
    assert [axis("ttft=500ms,2s").text(v) for v in (0.5, 2.0)] == ["500ms", "2s"]
    assert axis("qps=10:1000:3").values == pytest.approx((10, 100, 1000))
    assert axis("quality=0.5:0.7", 3).values == pytest.approx((0.5, 0.6, 0.7))
    assert axis("budget=730/month,2/h").values == (1.0, 2.0)


def test_headroom_is_what_the_plan_carries() -> None:
    plan = solve(asked(min_quality=0.5), tiny(), compare=False)
    most = headroom(plan)
    assert most is not None and most > 20
    same = solve(asked(min_quality=0.5, qps=most * 0.999), tiny(), compare=False)
    assert same.cost.usd_per_hour == pytest.approx(plan.cost.usd_per_hour)
    assert most == pytest.approx(sum(d.capacity_qps_per_replica * d.replicas for d in plan.deployments))


def test_a_sweep_says_what_todays_plan_carries_on_any_axis() -> None:
    """Found again by asking: so much has the same plan, a step more another."""
    scenario = asked(supply={"gpus": ["GPU-80"]}, models=["example/small-8b-fp8"])
    now, found = solve(scenario, tiny(), compare=False), sweep(scenario, tiny(), [axis("ttft=1s,2s")])
    said = re.search(r"for 20 req/s \(\$[\d.]+/h\) carries up to ([\d.]+) req/s", sweep_sections(found, now)[0].lines[0])
    assert said
    most, more = (solve(with_workload(scenario, 0, qps=float(said[1]) * f), tiny(), compare=False) for f in (1, 1.01))
    assert not changes(now, most) and sum(d.replicas for d in more.deployments) > sum(d.replicas for d in now.deployments)


def test_headroom_of_requests_in_flight_is_in_their_unit_and_within_the_load_allowed() -> None:
    plan = solve(asked({"max_slo_load": 0.7}, qps=None, concurrency=40, min_quality=0.5), tiny(), compare=False)
    most = headroom(plan)
    assert most is not None and most == pytest.approx(40 * 0.7 / max(d.slo_load for d in plan.deployments)) and most >= 40


# ---- what-if


def test_no_switch_is_searched_between_plans_that_time_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """What such a plan is made of depends on the time there was, so neighbours need never agree."""
    asked: list[int] = []

    def cut_short(questions: Sequence[Scenario], *_: Any, **__: Any) -> list[Result]:
        asked.append(len(questions))
        found = [solve(q, tiny(), compare=False) for q in questions]
        return [Result(replace_structure(p, i)) for i, p in enumerate(found) if isinstance(p, Plan)]

    def replace_structure(plan: Plan, i: int) -> Plan:
        purchases = tuple(p.model_copy(update={"provider": f"provider {i}"}) for p in plan.purchases)
        return plan.model_copy(update={"status": "feasible", "gap": 0.5, "purchases": purchases})

    monkeypatch.setattr("planner.economics.sweep.answers", cut_short)
    scenario = Scenario.model_validate({"workload": [{"qps": 5, "min_quality": 0.5}]})
    found = sweep(scenario, tiny(), [axis("qps=5,10,20", 3)])
    assert asked == [3] and any("3 of 3 plans were cut short" in note for note in found.notes)


def test_supposed_prices_and_steps_are_honoured_and_checked() -> None:
    base = solve(asked(min_quality=0.5), tiny(), compare=False)
    dearer = solve(assumed(asked(min_quality=0.5), "what_if", price_factor={"all": 1.5}), tiny(), compare=False)
    assert dearer.cost.usd_per_hour == pytest.approx(1.5 * base.cost.usd_per_hour)
    costs = [solve(assumed(asked(min_quality=0.5, qps=80), "what_if", step_factor=f), tiny(), compare=False).cost.usd_per_hour for f in (0.5, 1.0, 2.0)]
    assert costs == sorted(costs) and costs[0] < costs[2]


def test_budget_buys_the_most_traffic_and_the_best_quality() -> None:
    plan = solve(
        Scenario.model_validate({"workload": [{"min_quality": 0.5}], "policy": {"budget": "12/h"}, "objective": {"maximize": "qps"}, "solver": EXACT}),
        tiny(),
        compare=False,
    )
    most = plan.workloads[0].qps
    assert plan.cost.usd_per_hour <= 12
    assert solve(asked(min_quality=0.5, qps=most * 1.003), tiny(), compare=False).cost.usd_per_hour > 12
    best = solve(
        Scenario.model_validate({"workload": [{"qps": 20}], "policy": {"budget": "12/h"}, "objective": {"maximize": "quality"}, "solver": EXACT}),
        tiny(),
        compare=False,
    )
    points = [p.quality for p in frontier(asked(), tiny()).points if p.usd_per_hour <= 12]
    assert best.workloads[0].min_quality_served == pytest.approx(max(points))


def most(**supply: Any) -> Scenario:
    return Scenario.model_validate({"workload": [{"min_quality": 0.5}], "supply": supply, "objective": {"maximize": "qps"}, "solver": EXACT})


def test_owned_gpus_alone_are_an_end_to_the_most_traffic() -> None:
    owned = [{"name": "site", "gpu": "GPU-80", "count": 3, "gpus_per_node": 1, "usd_per_hour": 1.0}]
    plan = solve(most(kinds=["owned"], owned=owned), tiny(), compare=False)
    assert plan.gpus_held == 3 and "owned GPU-80 of site: 3 of 3" in plan.binding
    again = {"qps": plan.workloads[0].qps * 1.002, "min_quality": 0.5}
    with pytest.raises(Infeasible):
        solve(Scenario.model_validate({"workload": [again], "supply": {"kinds": ["owned"], "owned": owned}, "solver": EXACT}), tiny(), compare=False)


def test_the_most_traffic_has_no_end_while_one_gpu_type_has_none() -> None:
    with pytest.raises(ScenarioError, match="no end: nothing limits GPU-24 "):
        solve(most(quota={"GPU-80": 8}), tiny(), compare=False)
    with pytest.raises(ScenarioError, match="no end: nothing limits GPU-24, GPU-80 "):
        solve(most(), tiny(), compare=False)
    assert solve(most(quota={"GPU-80": 4}, gpus=["GPU-80"]), tiny(), compare=False).gpus_held == 4


def test_budgets_are_swept_for_the_most_they_buy(run: Run, tmp_path: Path) -> None:
    common = ("--maximize", "qps", "--min-quality", "0.5", "--catalog", str(TINY), "--gpu", "GPU-80", "--keep", str(tmp_path / "kept"))
    status, out, err = run("sweep", "--over", "budget=5/h:20/h", "--points", "3", *common, "--format", "csv")
    assert (status, err) == (0, "")
    reached = [float(row["demand"]) for row in csv.DictReader(io.StringIO(out))]
    assert len(reached) == 3 and reached == sorted(reached) and reached[0] < reached[-1]
    status, _, err = run("sweep", "--over", "budget=5,20", *common)
    assert status == 2 and "needs a period" in err


def test_owned_alone_without_any_names_the_flag(run: Run) -> None:
    status, _, err = run("--qps", "2", "--kind", "owned")
    assert status == 2 and err.count("\n") == 1 and "--owned FILE" in err


# ---- compare

FILE = """
name = "today"
[[workload]]
name = "chat"
qps = 20
min_quality = 0.5
[[workload]]
name = "batch"
concurrency = 30
[scenario.cut]
policy.budget = "1/h"
[scenario.more]
workload.chat.qps = 60
[scenario.both]
inherit = "more"
workload = { min_quality = 0.65 }
"""


def test_named_scenarios_inherit_and_override(tmp_path: Path) -> None:
    path = tmp_path / "q4.toml"
    path.write_text(FILE)
    named = dict(scenarios_in(path))
    assert list(named) == ["base", "cut", "more", "both"]
    assert named["cut"].policy.budget == 1.0 and named["cut"].workload == named["base"].workload
    assert [w.rate for w in named["more"].workload] == [60, 30]
    assert [(w.rate, w.min_quality) for w in named["both"].workload] == [(60, 0.65), (30, 0.65)]
    assert differences(named["base"].model_dump(mode="json"), named["more"].model_dump(mode="json")) == ("workload.chat.qps: 20 -> 60",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[scenario.a]\ninherit = "b"\n', "'b', which is not there"),
        ('[scenario.a]\ninherit = "b"\n[scenario.b]\ninherit = "a"\n', "inherits from itself"),
        ("[scenario.a]\nworkload = [{qps = -1}]\n", "scenario 'a': workload.0.qps"),
        ("scenario = 3\n", "named tables"),
    ],
)
def test_bad_scenarios_are_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ScenarioError, match=words):
        scenarios_in(path)


def test_tables_merge_and_a_rate_takes_the_place_of_requests_in_flight() -> None:
    base = {"policy": {"budget": 3, "mix": True}, "workload": [{"name": "a", "concurrency": 5}, {"name": "b", "qps": 1}]}
    assert merged(base, {"policy": {"budget": 4}})["policy"] == {"budget": 4, "mix": True}
    assert merged(base, {"workload": {"a": {"qps": 2}}})["workload"] == [{"name": "a", "qps": 2}, {"name": "b", "qps": 1}]
    assert merged(base, {"workload": [{"qps": 9}]})["workload"] == [{"qps": 9}]


def test_a_comparison_says_what_is_new_gone_and_resized() -> None:
    found = compare([("now", asked(min_quality=0.5)), ("more", asked(min_quality=0.5, qps=200)), ("none", asked(min_quality=0.99))], tiny())
    assert found[0].changes == () and {c.sign for c in found[1].changes} <= {"+", "-", "~"} and found[1].changes
    assert found[2].plan is None and "0.99" in found[2].why
    assert changes(found[0].plan, found[0].plan) == ()


def test_a_difference_in_cost_is_told_by_price_and_by_gpus() -> None:
    """The two parts, counted again: the first plan's GPUs at the second's price, then the second's GPUs; together the difference to the cent."""
    a, b = compare((("now", asked(min_quality=0.5)), ("dearer", assumed(asked(min_quality=0.5, qps=200), "what_if", price_factor={"all": 1.5}))), tiny())
    assert a.plan and b.plan and a.moved == () and len(b.moved) == 2
    parts = [float(re.sub("[$,]", "", re.findall(r": ([+-]\$[\d.,]+)/h", line)[0])) for line in b.moved]
    assert sum(parts) == pytest.approx(b.plan.cost.usd_per_hour - a.plan.cost.usd_per_hour, abs=0.006)
    repriced = b.plan.cost.usd_per_hour / b.plan.gpus_held * a.plan.gpus_held
    assert parts[0] == pytest.approx(repriced - a.plan.cost.usd_per_hour, abs=0.006)
    table = compare_sections((a, b))[0].grid
    assert table and [r[1] for r in table.rows] == ["20 req/s", "200 req/s"]


# ---- explain


def relaxation_by_linprog(problem: Problem) -> float:
    """The LP relaxation written out from the Pyomo program's own rows, solved by scipy."""
    from pyomo.core.base import Constraint, Objective
    from pyomo.repn import generate_standard_repn

    m = build(large_scale(problem)).program
    columns: dict[int, int] = {}
    bounds: list[tuple[float | None, float | None]] = []

    def row(expression: Any) -> tuple[dict[int, float], float]:
        linear = generate_standard_repn(expression)
        for v in linear.linear_vars:
            if id(v) not in columns:
                columns[id(v)] = len(columns)
                bounds.append((v.lb, v.ub))
        return {columns[id(v)]: c for v, c in zip(linear.linear_vars, linear.linear_coefs, strict=True)}, linear.constant

    cost, _ = row(next(m.component_data_objects(Objective, active=True)).expr)
    upper: list[tuple[dict[int, float], float]] = []
    for c in m.component_data_objects(Constraint, active=True):
        body, constant = row(c.body)
        if c.upper is not None:
            upper.append((body, float(c.upper()) - constant if callable(c.upper) else float(c.upper) - constant))
        if c.lower is not None:
            low = float(c.lower()) if callable(c.lower) else float(c.lower)
            upper.append(({k: -v for k, v in body.items()}, -(low - constant)))
    a = np.zeros((len(upper), len(columns)))
    for i, (body, _) in enumerate(upper):
        for k, v in body.items():
            a[i, k] = v
    c_vector = np.zeros(len(columns))
    for k, v in cost.items():
        c_vector[k] = v
    found = linprog(c_vector, A_ub=a, b_ub=[b for _, b in upper], bounds=bounds, method="highs")
    return float(found.fun) if found.status == 0 else inf


@pytest.mark.parametrize("seed", range(1, 5))
def test_long_run_costs_are_differences_of_the_relaxation_and_next_steps_are_re_solves(seed: int) -> None:
    catalog, cache = tiny(seed), SurveyCache(tiny(seed))
    scenario = asked({"max_pools": 2}, {"quota": {"GPU-80": 6}, "max_gpus": 40}, qps=30, min_quality=0.3, output_factor=3)
    found = explain(scenario, catalog)
    rows = {m.demand: m for m in found.margins}
    base = long_run(scenario, cache)[0]

    def relaxed(s: Scenario) -> float:
        problem = formulation(cache.points(s, catalog.offers), s).problem
        return min(relaxation_by_linprog(_at(problem, place)) for place in sorted({o.location for o in problem.offers}))

    assert base == pytest.approx(relaxed(scenario), rel=1e-6)
    more = relaxed(with_workload(scenario, 0, qps=30 * 1.001))
    assert rows["traffic"].long_run_usd_per_hour == pytest.approx((more - base) / 0.03, rel=1e-3, abs=1e-6)
    quota = relaxed(assumed(scenario, "supply", quota={"GPU-80": 7}))
    dual = rows["quota of GPU-80"].long_run_usd_per_hour
    assert dual is not None and quota - base >= dual * (1 + 1e-6) - 1e-6 and dual <= 1e-9  # convex: no unit saves more than the first
    for name, change in (
        ("quota of GPU-80", assumed(scenario, "supply", quota={"GPU-80": int(rows["quota of GPU-80"].looser)})),
        ("GPUs in all", assumed(scenario, "supply", max_gpus=41)),
    ):
        assert rows[name].looser_usd_per_hour == pytest.approx(solve(change, catalog, compare=False).cost.usd_per_hour)
    tpot = rows["TPOT p95"]
    assert tpot.looser_usd_per_hour == pytest.approx(
        solve(with_workload(scenario, 0, slo={"ttft_p95": 2.0, "tpot_p95": 0.055}), catalog, compare=False).cost.usd_per_hour
    )


@pytest.mark.parametrize("name", ["GPU-24", "GPU-80", "cloud", "neo", "small-8b", "Large-60B"])
def test_every_break_even_is_one(name: str) -> None:
    """Just below it the rejected wins (or ties), just above it loses."""
    scenario, cache = asked(min_quality=0.5, qps=60), SurveyCache(tiny())
    plan = solve(scenario, tiny(), compare=False)
    found = why_not_of(name, plan, scenario, cache)
    if found.plan is None or not found.premium:
        assert found.why
        return
    best = plan.cost.usd_per_hour
    _, _, alone = restricted_to(name, scenario, tiny())
    if found.price_factor is not None:
        key = "all" if found.kind == "model" else found.name
        wins, loses = (answer_one(assumed(alone, "what_if", price_factor={key: found.price_factor * f}), cache).cost for f in (0.99, 1.01))
        assert wins < best < loses
    if found.step_factor is not None:
        wins, loses = (answer_one(assumed(alone, "what_if", step_factor=found.step_factor * f), cache).cost for f in (0.99, 1.01))
        assert wins <= best * (1 + 1e-9) < loses


def test_who_is_asked_about_must_be_known() -> None:
    with pytest.raises(ScenarioError, match="did you mean 'H200-SXM-141GB'"):
        restricted_to("H200-SXN-141GB", asked(), shipped())


def test_runners_up_are_the_cheapest_of_all_other_structures() -> None:
    """Against every combination of model, GPU and provider, solved one by one."""
    scenario, catalog = asked(min_quality=0.3, qps=60, output_factor=3), tiny()
    cache, plan = SurveyCache(catalog), solve(scenario, catalog, compare=False)
    found = k_cheapest(plan, scenario, cache, 4, 50.0)
    every = []
    for model in [c.name for c in catalog.cards]:
        for gpu in catalog.gpus:
            for provider in sorted({o.provider for o in catalog.offers}):
                s = assumed(scenario, "supply", gpus=(gpu,), providers=(provider,))
                r = answer_one(s.model_copy(update={"workload": (s.workload[0].model_copy(update={"models": (model,)}),)}), cache)
                every += [r.cost] if r.plan else []
    every.sort()
    assert [p.cost.usd_per_hour for p in found] == pytest.approx(every[1:5])
    assert len({(p.deployments[0].model, p.deployments[0].gpu, p.purchases[0].provider) for p in (plan, *found)}) == len(found) + 1


def test_runners_up_differ_by_purchase_too() -> None:
    """With spot at half the price of every offer the same GPUs on demand are found again as a runner-up, once."""
    base = tiny()
    spot = tuple(o.model_copy(update={"purchase": "spot", "usd_per_hour": o.usd_per_hour / 2}) for o in base.offers)
    catalog = replace(base, offers=(*base.offers, *spot), hash=f"{base.hash}-spot")
    scenario = asked(supply={"purchase": ["on_demand", "spot"], "gpus": ["GPU-80"]}, models=["example/small-8b-fp8"], qps=60)
    plan = solve(scenario, catalog, compare=False)
    found = k_cheapest(plan, scenario, SurveyCache(catalog), 6, 50.0)
    ways = [(p.purchases[0].provider, p.purchases[0].purchase) for p in (plan, *found)]
    assert ways[0][1] == "spot" and len(ways) == len(set(ways)) and (ways[0][0], "on_demand") in ways
    assert distinct(plan) == 4
    for p in found:
        (bought,) = {(b.provider, b.purchase) for b in p.purchases}
        alone = assumed(scenario, "supply", providers=(bought[0],), purchase=(bought[1],))
        assert solve(alone, catalog, compare=False).cost.usd_per_hour == pytest.approx(p.cost.usd_per_hour)


# ---- sensitivity


def test_users_are_varied_as_users_and_a_stated_rate_takes_their_place() -> None:
    """A rate that follows from users would settle where it was, whatever a study set it to."""
    users = asked(supply={"gpus": ["GPU-80"]}, min_quality=0.5, users=8000, think_time="10s", qps=None)
    blades = {b.assumption: b for b in sensitivity(users, tiny(), draws=0).blades}
    assert "users" in blades and "qps" not in blades
    assert blades["users"].low_usd_per_hour < blades["users"].high_usd_per_hour
    rate = with_workload(users, 0, qps=7.0)
    assert solve(rate, tiny(), compare=False).workloads[0].qps == 7.0


def test_the_tornado_re_solves_each_assumption() -> None:
    scenario = asked(min_quality=0.5, qps=60)
    found = sensitivity(scenario, tiny(), swing=0.2, draws=3)
    blades = {b.assumption: b for b in found.blades}
    assert [b.width for b in found.blades] == sorted((b.width for b in found.blades), reverse=True)
    assert blades["qps"].high_usd_per_hour == pytest.approx(solve(asked(min_quality=0.5, qps=72), tiny(), compare=False).cost.usd_per_hour)
    assert blades["all prices"].low_usd_per_hour == pytest.approx(0.8 * found.plan.cost.usd_per_hour)
    assert found.odds is not None and found.odds.draws == 3 and sum(n for _, n in found.odds.structures) == 3
    again = SurveyCache(tiny())
    assert odds(found.plan, [answer_one(assumed(scenario, "what_if", draw=i), again) for i in range(3)]) == found.odds


def test_the_tornado_shows_a_cache_that_never_hits() -> None:
    scenario = asked(supply={"gpus": ["GPU-80"]}, models=["example/small-8b-fp8"], qps=6, input_tokens=4000, prefix_cache_hit=0.8)
    none = next(b for b in sensitivity(scenario, tiny()).blades if b.assumption == "no prefix cache hits")
    cold = solve(with_workload(scenario, 0, prefix_cache_hit=0.0), tiny(), compare=False).cost.usd_per_hour
    assert (none.low, none.high) == ("0", "0.8") and none.low_usd_per_hour == pytest.approx(cold) and none.width > 0


# ---- running many


def test_answers_are_kept_and_found_again(tmp_path: Path) -> None:
    questions = [asked(min_quality=0.5, qps=q) for q in (10, 20, 10)]
    seen: list[tuple[int, int]] = []
    first = answers(questions, tiny(), Where(tmp_path), lambda a, b: seen.append((a, b)))
    assert seen[-1] == (3, 3) and len(list(tmp_path.rglob("*.answer"))) == 2
    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    again = answers(questions, tiny(), Where(tmp_path))
    assert again == first and {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()} == stamps
    assert key_of(questions[0], tiny()) != key_of(questions[0], tiny(1))


def test_a_kept_body_that_is_no_answer_is_set_aside_and_solved_again(tmp_path: Path) -> None:
    """Cut short, no object, another question's answer, one digit changed: none is taken for the answer, and none breaks the run."""
    questions = [asked(min_quality=0.5, qps=q) for q in (10, 20)]
    first = answers(questions, tiny(), Where(tmp_path))
    one, other = tmp_path.rglob("*.answer")
    good, cost = one.read_bytes(), re.compile(rb'("usd_per_hour": )\d')
    bad = [b"", b"{", b"[]", b"null", b"7\n[1]", b"\xff\x00\n{}", good[:-9], other.read_bytes(), cost.sub(rb"\g<1>9", good, 1), b"x\n" + b"[" * 99_999]
    for body in bad:
        assert body != good
        one.write_bytes(body)
        told: list[str] = []
        assert answers(questions, tiny(), Where(tmp_path, tell=told.append)) == first
        assert one.read_bytes() == good and one.with_suffix(".bad").read_bytes() == body
        assert len(told) == 1 and "set aside" in told[0]


def test_a_full_disk_stops_no_run_and_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int, raw: bytes) -> None:
        os.write(handle, raw[:100])
        os.close(handle)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("planner.files._write_all", full)
    told: list[str] = []
    found = answers([asked(min_quality=0.5, qps=q) for q in (10, 20)], tiny(), Where(tmp_path, tell=told.append))
    assert all(r.plan for r in found) and told == [f"answers are not kept in {tmp_path}: No space left on device"]
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_no_home_and_an_unusable_one_stop_nothing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    question = [asked(min_quality=0.5, qps=10)]
    expected = answers(question, tiny())
    (tmp_path / "file").touch()
    for name in ("HOME", "XDG_CACHE_HOME", "USERPROFILE"):
        monkeypatch.delenv(name, raising=False)
    with monkeypatch.context() as nobody:
        nobody.setattr("pwd.getpwuid", lambda uid: {}[uid])  # as in a container without this user
        status, _, err = run("demand", "show", "azure-2023-conv")
        assert (status, err) == (0, "")
        where = where_of(None, False, "", 1)
        assert where.keep is None and capsys.readouterr().err == "note: answers are not kept: there is no home folder (name one with --keep)\n"
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    for _ in range(2):
        assert answers(question, tiny(), where_of(None, False, "", 1)) == expected
    assert capsys.readouterr().err == f"note: answers are not kept in {tmp_path}/file/.cache/inference-planner/answers: Not a directory\n"
    for named in (tmp_path / "file", tmp_path / "file" / "below"):  # asked for by name it is an error, before anything is solved
        with pytest.raises(PlannerError, match="is not a folder"):
            where_of(named, False, "", 1)


def test_a_killed_sweep_loses_no_finished_answer(run: Run, tmp_path: Path) -> None:
    words = ("sweep", "--over", "quality=0.3,0.4,0.5,0.6,0.7,0.8", "--qps", "50", "--keep", str(tmp_path), *SMALL, "--format", "csv")
    process = subprocess.Popen([sys.executable, "-m", "planner", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.rglob("*.answer"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = {p: p.read_bytes() for p in tmp_path.rglob("*.answer")}
    assert len(kept) >= 3
    status, whole, _ = run(*words)
    assert status == 0 and len(whole.splitlines()) == 7
    assert {p: p.read_bytes() for p in kept} == kept
    assert run(*words, "--fresh")[:2] == (0, whole)


def test_a_cluster_gives_the_same_answers() -> None:
    distributed = pytest.importorskip("distributed")
    questions = [asked(supply={"gpus": ["B200-SXM"]}, min_quality=q, qps=r) for q in (0.5, 0.7) for r in (20, 90)]
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        far = answers(questions, shipped(), Where(scheduler=cluster.scheduler_address))
    assert far == answers(questions, shipped())


# ---- commands


def test_commands_print_studies(run: Run, tmp_path: Path) -> None:
    common = ("--keep", str(tmp_path / "kept"), *SMALL)
    status, out, err = run("frontier", "--qps", "30", *common, "--format", "json")
    assert (status, err) == (0, "")
    points = json.loads(out)["points"]
    assert points and all(p["plan"]["schema_version"] == 2 and p["quality"] for p in points)
    status, out, err = run("sweep", "--over", "qps=10:20", "--points", "2", "--min-quality", "0.5", *common)
    assert (status, err) == (0, "") and "Which plan takes over where" in out
    status, out, err = run("explain", "--qps", "30", "--min-quality", "0.5", "--why-not", "GPU-80", *common)
    assert (status, err) == (0, "") and "the best plan uses it" in out.lower()
    status, out, err = run("sensitivity", "--qps", "30", "--min-quality", "0.5", "--draws", "3", *common, "--format", "csv")
    assert (status, err) == (0, "") and out.startswith("assumption,")
    status, _, err = run("sweep", "--over", "qps=10:80", "--over", "qps=1:2")
    assert status == 2 and err.count("\n") == 1 and "varied twice" in err
    status, _, err = run("explain", "--qps", "30", "--why-not", "H900")
    assert status == 2 and "no GPU, model or provider is called 'H900'" in err
