"""From today's fleet to the cheapest plan in steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from planner.catalog.catalog import Catalog
from planner.planning.solve import solve
from planner.result.plan import Plan
from planner.scenario.change import assumed
from planner.scenario.fleet import Held, rented
from planner.scenario.records import Scenario
from planner.scenario.sources import Origins

MOST_STEPS = 50
WORTH = 1e-6  # $/h that a step must save


@dataclass(frozen=True)
class Path:
    """Plans one after the other, each within the limit on changes from the one before. ``end_usd_per_hour``: the cheapest without that limit."""

    steps: tuple[Plan, ...]
    end_usd_per_hour: float | None
    is_cut: bool  # after MOST_STEPS


def path(scenario: Scenario, catalog: Catalog, origins: Origins | None = None) -> Path:
    """The way in steps: each time the cheapest plan within the limit on changes from the plan before, as long as one is cheaper.

    Greedy: a step that pays only together with the next is not taken. Every plan is checked. Raises as ``solve`` does, at the first step.
    """
    steps, asked, is_cut = list[Plan](), scenario, False
    while True:
        plan = solve(asked, catalog, compare=not steps, origins=origins)
        assert plan.changes is not None
        if steps and (minimised(plan) > steps[-1].cost.usd_per_hour - WORTH or plan.changes.added + plan.changes.returned == 0):
            break
        steps.append(plan)
        is_cut, fleet = len(steps) == MOST_STEPS, fleet_of(plan)
        if is_cut or not fleet:  # nothing rented: no fleet to go on from
            break
        asked = assumed(plan.scenario, "supply", current=fleet)
    first = steps[0].changes
    end = first.free_usd_per_hour if first and first.free_usd_per_hour is not None else None
    return Path(tuple(steps), end, is_cut)


def minimised(plan: Plan) -> float:
    """$/h of what is held, and of changes."""
    return plan.cost.usd_per_hour + (plan.changes.usd_per_hour if plan.changes else 0.0)


def fleet_of(plan: Plan) -> Sequence[Held]:
    """What a plan rents as today's fleet of the next; prices of contracts and own offers stay."""
    return tuple(Held.model_validate(row) for row in rented([p.model_dump() for p in plan.purchases]))
