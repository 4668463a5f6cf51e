"""Who goes short: with GPUs for so much, the first class is served and the next takes what is left, worked out from what a replica carries."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from conftest import Run, checked

from planner import Catalog, Plan, Scenario, load_catalog, solve
from planner.check.check import check_plan
from planner.errors import ScenarioError
from planner.planning.infeasible import Infeasible
from planner.planning.periods import autoscale

MODEL = "meta-llama/Llama-3.1-8B-Instruct"


@cache
def shipped() -> Catalog:
    return load_catalog()


def asked(rates: dict[str, float], gpus: int, shed: bool = True, **workload: Any) -> Scenario:
    """Workloads on so many GPUs, each a node of its own."""
    own = {"gpu": "H100-SXM-80GB", "count": gpus, "gpus_per_node": 1, "usd_per_hour": 2.0}
    every = [{"name": n, "qps": q, "models": [MODEL], "priority": i, **workload} for i, (n, q) in enumerate(rates.items())]
    policy = {"precisions": ["bf16"], "shed": shed}
    return Scenario.model_validate({"workload": every, "supply": {"kinds": ["owned"], "owned": [own]}, "policy": policy})


def plan_of(scenario: Scenario) -> Plan:
    return checked(solve(scenario, shipped(), compare=False), shipped())


@cache
def carried() -> float:
    """Requests/s of one replica."""
    return plan_of(asked({"w": 1.0}, 1, shed=False)).deployments[0].capacity_qps_per_replica


def test_one_workload_is_served_as_far_as_the_gpu_goes() -> None:
    """Twice what one GPU carries: half of it, to a thousandth."""
    plan = plan_of(asked({"w": 2 * carried()}, 1))
    assert plan.shed[0].served == pytest.approx(carried(), rel=3e-3)
    assert plan.shed[0].share == pytest.approx(0.5, abs=2e-3)
    assert plan.gpus_held == 1


def test_the_first_class_is_served_and_the_next_takes_what_is_left() -> None:
    """Two GPUs, one replica's worth less a little of the first class, two replicas' worth of the second: it gets the other GPU, at least half of it."""
    plan = plan_of(asked({"chat": 0.9 * carried(), "batch": 2 * carried()}, 2))
    chat, batch = plan.shed
    assert chat.share == 0
    assert 0.4 < batch.share < 0.56
    assert "batch" in plan.warnings[0]
    assert "chat" not in plan.warnings[0]


def test_a_class_goes_short_as_one() -> None:
    plan = plan_of(asked({"a": carried(), "b": carried()}, 1, priority=0))
    assert plan.shed[0].share == plan.shed[1].share > 0.4


def test_nothing_is_shed_where_all_can_be_served() -> None:
    plan = plan_of(asked({"w": 0.5 * carried()}, 1))
    assert [row.share for row in plan.shed] == [0.0]


def test_where_nothing_can_be_served_it_is_said_why() -> None:
    with pytest.raises(Infeasible):
        plan_of(asked({"w": 1.0}, 1, slo={"ttft_p95": "1ms"}))


@pytest.mark.parametrize("change", [{"served": 1.0}, {"share": 0.1}, {"priority": 3}])
def test_the_check_adds_up_again(change: dict[str, Any]) -> None:
    plan = solve(asked({"w": 2 * carried()}, 1), shipped(), compare=False)
    wrong = plan.model_copy(update={"shed": (plan.shed[0].model_copy(update=change),)})
    assert any(b.name == "shed" for b in check_plan(wrong, shipped()).breaches)


def test_the_exit_status_says_that_not_all_is_served(run: Run) -> None:
    words = ("--qps", 200, "--model", "Llama-3.1-8B", "--max-gpus", 1, "--no-alternatives")
    assert run(*words, "--shed")[0] == 5
    assert run(*words)[0] == 1


def test_of_requests_that_are_answered_twice_nothing_is_shed() -> None:
    with pytest.raises(ScenarioError, match="answered again"):
        solve(asked({"w": 1.0}, 1, escalate=0.1, escalate_quality=0.6), shipped())


def test_by_the_hour_nothing_is_shed() -> None:
    with pytest.raises(ScenarioError, match="goes short"):
        autoscale(asked({"w": 1.0}, 1), shipped())


def reordered(plan: Plan, classes: dict[str, int]) -> Plan:
    """The plan as if its workloads had been of these classes."""
    workloads = tuple(w.model_copy(update={"priority": classes[w.name]}) for w in plan.scenario.workload)
    rows = tuple(r.model_copy(update={"priority": classes[r.workload]}) for r in plan.shed)
    return plan.model_copy(update={"scenario": plan.scenario.model_copy(update={"workload": workloads}), "shed": rows})


@pytest.mark.parametrize("limit", ["gpus", "budget"])
def test_the_check_finds_a_class_that_goes_short_for_a_lower_one(limit: str) -> None:
    """Two GPUs: batch is served and chat has one, half of what it asks. Were chat the higher class, both GPUs would carry all of it."""
    rates = {"batch": 0.9 * carried(), "chat": 2 * carried()}
    scenario = asked(rates, 2 if limit == "gpus" else 9)
    if limit == "budget":
        scenario = scenario.model_copy(update={"policy": scenario.policy.model_copy(update={"budget": 4.1})})
    plan = plan_of(scenario)
    assert [r.share > 0.4 for r in plan.shed] == [False, True]
    said = [str(b) for b in check_plan(reordered(plan, {"batch": 1, "chat": 0}), shipped()).breaches]
    assert any("class 0: is short by" in b and "carried without lower classes" in b for b in said), said


def test_no_larger_share_of_the_first_class_has_a_plan() -> None:
    """One by one, all hundredths of the first class alone: as many have a plan as are served of it, and so of the second beside that."""
    rates = {"chat": 1.6 * carried(), "batch": 1.3 * carried()}
    chat, batch = plan_of(asked(rates, 2)).shed

    def is_served(part: dict[str, float]) -> bool:
        try:
            plan_of(asked(part, 2, shed=False))
        except Infeasible:
            return False
        return True

    first = max(p for p in range(5, 101, 5) if is_served({"chat": rates["chat"] * p / 100}))
    assert first / 100 <= 1 - chat.share + 1e-9 and 1 - chat.share < first / 100 + 0.05
    left = [p for p in range(5, 101, 5) if is_served({"chat": chat.served, "batch": rates["batch"] * p / 100})]
    assert max(left, default=0) / 100 <= 1 - batch.share + 1e-9 and 1 - batch.share < max(left, default=0) / 100 + 0.05
