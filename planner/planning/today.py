"""Beside a plan from today's fleet: what staying would mean, and what a limit on changes costs."""

from __future__ import annotations

from math import inf

from planner.candidates.points import Points
from planner.errors import TimeUp
from planner.program.problem import Status
from planner.result.plan import Plan
from planner.scenario.change import assumed
from planner.scenario.records import Scenario
from planner.search.apart import kept_apart


def beside_today(points: Points, plan: Plan) -> dict[str, object]:
    """The plan's changes with what stands beside them: whether today's fleet suffices, and the plan without a limit on changes."""
    assert plan.changes is not None
    supply, changes = plan.scenario.supply, plan.changes
    stays: bool | None = True
    if changes.added + changes.returned:
        found = _cheapest(points, assumed(plan.scenario, "supply", max_changes=0))
        stays = None if found is None else found[0] < inf
    free = _cheapest(points, assumed(plan.scenario, "supply", max_changes=None)) if supply.max_changes is not None else None
    told = {"suffices": stays, "free_usd_per_hour": free[0] if free else None, "free_changes": free[1] if free else None}
    return {"changes": changes.model_copy(update=told)}


def _cheapest(points: Points, scenario: Scenario) -> tuple[float, int] | None:
    """Least cost (infinite: there is no plan) and changes of another question; None where time was up."""
    try:
        found = kept_apart(points, scenario)[0]
    except TimeUp:
        return None
    if not found.found:
        return (inf, 0) if found.solution.status == Status.INFEASIBLE else None
    offers, held = found.formulation.offers, found.solution.held
    return found.cost, sum(abs(held.get(i, 0) - o.now) for i, o in enumerate(offers) if not o.is_owned)
