"""The plan fit to sign: the bridge from the cheapest adds up to the cent, and --prudent is the sum of its policies."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from planner import Catalog, Infeasible, Plan, Scenario, load_catalog, solve
from planner.candidates.offers import allowed
from planner.candidates.points import Points
from planner.candidates.survey import survey
from planner.catalog.records import MeasuredConfiguration
from planner.check.check import check_plan
from planner.deadline import Deadline
from planner.planning.bridge import bridge
from planner.planning.periods import autoscale
from planner.search.apart import kept_apart

TINY = Path(__file__).parent / "data" / "tiny"
POSTURE = {"spare_replicas": 1, "worst_recovery": True}
FRESH = {"max_price_age": 90}


@cache
def shipped() -> Catalog:
    return load_catalog()


@cache
def tiny(days: int = 0, *measured: str) -> Catalog:
    """The tiny catalogue with prices of one provider so many days older, and these models measured on the large GPU."""
    catalog = load_catalog([TINY], shipped=False)
    offers = tuple(o.model_copy(update={"as_of": o.as_of - timedelta(days if o.provider == "neo" else 0)}) for o in catalog.offers)
    known = tuple(
        MeasuredConfiguration(
            architecture=name, precision="fp8", gpu="GPU-80", engine="vllm", tp=1, points=8, source="invented", as_of="2026-02-01", licence="none"
        )
        for name in measured
    )
    return replace(catalog, offers=offers, measured=known)


def asked(policy: dict[str, Any] | None = None, supply: dict[str, Any] | None = None, **workload: Any) -> Scenario:
    question = {"qps": 20, "min_quality": 0.59, **workload}
    return Scenario.model_validate({"workload": [question], "policy": policy or {}, "supply": supply or {}, "solver": {"gap": 0}})


def cents(usd: float) -> float:
    return round(usd, 2)


QUESTIONS: dict[str, tuple[Scenario, Catalog]] = {
    "headline": (Scenario.model_validate({"workload": [{"qps": 200, "min_quality": 0.8}]}), shipped()),
    "in flight": (Scenario.model_validate({"workload": [{"concurrency": 60, "min_quality": 0.7}], "supply": {"gpus": ["H100-SXM-80GB", "L40S"]}}), shipped()),
    "stale and derived": (asked(), tiny(120, "Small-8B", "Large-60B")),
    "two workloads": (
        Scenario.model_validate(
            {"workload": [{"name": "a", "qps": 30, "min_quality": 0.59}, {"name": "b", "qps": 5, "min_quality": 0.7}], "solver": {"gap": 0}}
        ),
        tiny(120, "Large-60B"),
    ),
    "nothing measured": (asked(), tiny(120)),
}  # fmt: skip


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_bridge_adds_up_and_prudent_is_the_sum_of_its_policies(name: str) -> None:
    scenario, catalog = QUESTIONS[name]
    plan = solve(scenario, catalog)
    fit = plan.prudent
    assert fit is not None and fit.usd_per_hour is not None and fit.premium_usd_per_hour is not None
    costs, premiums = ([getattr(s, field) for s in fit.steps] for field in ("usd_per_hour", "premium_usd_per_hour"))
    assert cents(costs[0]) == cents(plan.cost.usd_per_hour) and len(costs) == 5
    assert cents(costs[0]) + sum(premiums) == pytest.approx(cents(fit.usd_per_hour), abs=1e-9)
    assert fit.premium_usd_per_hour == pytest.approx(sum(premiums), abs=1e-9) and min(premiums) >= 0

    prudent = solve(changed(scenario, {"prudent": True}), catalog, compare=False)
    summed = solve(changed(scenario, {**POSTURE, "evidence": fit.evidence}, FRESH), catalog, compare=False)
    assert cents(prudent.cost.usd_per_hour) == cents(summed.cost.usd_per_hour) == cents(fit.usd_per_hour)
    assert (prudent.deployments, prudent.purchases, prudent.workloads) == (summed.deployments, summed.purchases, summed.workloads)
    resolved = prudent.scenario.policy.model_dump(), prudent.scenario.supply.model_dump()
    assert POSTURE.items() <= resolved[0].items() and resolved[0]["evidence"] == fit.evidence and resolved[1]["max_price_age"] == 90
    assert any(n.startswith("prudent: one spare replica") for n in prudent.notes) and prudent.prudent is None


def changed(scenario: Scenario, policy: dict[str, Any], supply: dict[str, Any] | None = None) -> Scenario:
    return scenario.model_copy(update={"policy": scenario.policy.model_copy(update=policy), "supply": scenario.supply.model_copy(update=supply or {})})


def test_each_step_is_the_cheapest_plan_with_its_terms() -> None:
    scenario, catalog = QUESTIONS["stale and derived"]
    fit = solve(scenario, catalog).prudent
    assert fit is not None and fit.evidence == "anchored"
    terms: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
        ({"spare_replicas": 1}, {}),
        ({"worst_recovery": True}, {}),
        ({}, FRESH),
        ({"evidence": "anchored"}, {}),
    )
    for step, (policy, supply) in zip(fit.steps[1:], terms, strict=True):
        scenario = changed(scenario, policy, supply)
        assert step.usd_per_hour == pytest.approx(solve(scenario, catalog, compare=False).cost.usd_per_hour)
    assert any(p > 0 for p in (s.premium_usd_per_hour or 0 for s in fit.steps[3:]))  # neo's prices are old


@pytest.mark.parametrize(("measured", "tier"), [(("Small-8B",), "anchored"), (("Large-60B",), "transferred"), ((), "modelled")])
def test_the_nearest_evidence_that_any_plan_reaches(measured: tuple[str, ...], tier: str) -> None:
    scenario = asked({"prudent": True}, models=["Small-8B"])
    plan = solve(scenario, tiny(0, *measured), compare=False)
    assert plan.scenario.policy.evidence == tier
    assert any(f"({tier})" in n for n in plan.notes) == (tier != "anchored")


def test_a_stated_tier_is_kept_and_more_spares_too() -> None:
    with pytest.raises(Infeasible, match="evidence transferred instead of measured"):
        solve(asked({"prudent": True, "evidence": "measured"}, models=["Small-8B"]), tiny(0, "Large-60B"), compare=False)
    fit = solve(asked({"evidence": "transferred"}), tiny(0, "Small-8B", "Large-60B")).prudent
    assert fit is not None and fit.evidence == "transferred" and fit.steps[-1].term == "evidence as asked: transferred"
    plan = solve(asked({"prudent": True, "spare_replicas": 3}, {"max_price_age": 30}), tiny(), compare=False)
    assert plan.scenario.policy.spare_replicas == 3 and plan.scenario.supply.max_price_age == 30


def test_a_bridge_ends_where_nothing_meets_a_term_or_time_is_up() -> None:
    cheapest = solve(asked(), tiny(), compare=False)
    p = cheapest.purchases[0]
    plan = solve(asked({}, {"gpus": [p.gpu], "quota": {p.gpu: cheapest.gpus_held}}), tiny())
    assert plan.prudent is not None and plan.prudent.usd_per_hour is None and plan.prudent.steps[-1].why == "no plan meets all demands with it"
    scenario, catalog = asked(), tiny()
    points = Points(survey(scenario, catalog, allowed(catalog.offers, scenario.supply)))
    late = bridge(kept_apart(points, scenario)[0], points.until(Deadline.after(0)))
    assert late is not None and late.usd_per_hour is None and late.steps[-1].why.startswith("not searched")


def test_what_already_survives_is_not_searched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    scenario, catalog = asked({"spare_replicas": 1}, models=["example/small-8b"]), tiny(0, "Small-8B")
    points = Points(survey(scenario, catalog, allowed(catalog.offers, scenario.supply)))
    found = kept_apart(points, changed(scenario, {"evidence": "anchored"}))[0]
    monkeypatch.setattr("planner.planning.bridge.kept_apart", lambda *_: pytest.fail("searched"))
    fit = bridge(found, points)
    assert fit is not None and [s.premium_usd_per_hour for s in fit.steps] == [0, 0, 0, 0, 0]


def breaches(plan: Plan, catalog: Catalog) -> set[str]:
    return {b.name for b in check_plan(plan, catalog).breaches}


def test_the_check_derives_the_bridge_again() -> None:
    scenario, catalog = QUESTIONS["stale and derived"]
    plan = solve(scenario, catalog)
    fit = plan.prudent
    assert fit is not None

    def with_step(i: int, **values: Any) -> Plan:
        steps = [s.model_copy(update=values) if i == k else s for k, s in enumerate(fit.steps)]
        return plan.model_copy(update={"prudent": fit.model_copy(update={"steps": tuple(steps)})})

    assert breaches(plan, catalog) == set()
    last, dear = fit.steps[-1], fit.usd_per_hour or 0.0
    wrong = (
        with_step(1, premium_usd_per_hour=(fit.steps[1].premium_usd_per_hour or 0) + 0.01),
        with_step(3, term="prices of the last 91 days"),
        with_step(4, term="measured"),
        with_step(2, usd_per_hour=(fit.steps[2].usd_per_hour or 0) + 0.02),
        with_step(3, purchases=fit.steps[2].purchases, usd_per_hour=fit.steps[2].usd_per_hour),  # old prices
        with_step(4, deployments=tuple(d.model_copy(update={"replicas": 1}) for d in last.deployments)),
        plan.model_copy(update={"prudent": fit.model_copy(update={"usd_per_hour": dear + 1})}),
        plan.model_copy(update={"prudent": fit.model_copy(update={"premium_usd_per_hour": 0.0})}),
        plan.model_copy(update={"prudent": fit.model_copy(update={"evidence": "measured"})}),
        plan.model_copy(update={"prudent": fit.model_copy(update={"steps": fit.steps[:-1]})}),
    )
    for i, plan_with_error in enumerate(wrong):
        assert breaches(plan_with_error, catalog) == {"prudent"}, i


def test_a_prudent_plan_is_checked_for_what_it_stands_for() -> None:
    catalog = tiny()
    plan = solve(asked({"prudent": True}), catalog, compare=False)
    looser = plan.scenario.model_copy(update={"supply": plan.scenario.supply.model_copy(update={"max_price_age": 365})})
    assert breaches(plan, catalog) == set() and breaches(plan.model_copy(update={"scenario": looser}), catalog) == {"prudent"}


def test_other_ways_of_planning_are_prudent_too() -> None:
    catalog = tiny(120, "Small-8B", "Large-60B")
    most = Scenario.model_validate({"workload": [{"min_quality": 0.5}], "policy": {"prudent": True, "budget": "50/h"}, "objective": {"maximize": "qps"}})
    plan = solve(most, catalog)
    assert plan.scenario.policy.evidence == "anchored" and all(p.provider == "cloud" for p in plan.purchases) and plan.prudent is None
    hours = autoscale(asked({"prudent": True}, profile=[0.5, 1.0]), catalog)
    assert hours.scenario.policy.spare_replicas == 1 and {o.provider for o in hours.purchases} == {"cloud"}
    assert any(n.startswith("prudent: ") for n in hours.notes)
