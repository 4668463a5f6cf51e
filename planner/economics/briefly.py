"""The cheapest plan of a question in brief: what it costs, what it is made of and what users see, as the program finds it.

What alternatives are beside a plan, at a tenth of the time of a whole one: evidence and commands are not described, and the plan is not checked again.
"""

from __future__ import annotations

from dataclasses import dataclass

from planner.planning.alternatives import brief
from planner.program.problem import Status
from planner.result.assemble import workloads_of
from planner.result.deploy import purchases
from planner.result.plan import Brief, PlanWorkload, Purchase
from planner.scenario.records import Scenario
from planner.search.apart import kept_apart
from planner.search.chosen import chosen_pools
from planner.search.posed import posed
from planner.search.survey_cache import SurveyCache


@dataclass(frozen=True)
class BriefPlan:
    """A plan in brief; ``is_proven``: within the scenario's gap of the least there is. ``workloads`` only where service was asked for."""

    usd_per_hour: float
    is_proven: bool
    deployments: tuple[Brief, ...]
    purchases: tuple[Purchase, ...]
    workloads: tuple[PlanWorkload, ...]

    @property
    def gpus_held(self) -> int:
        """GPUs paid for."""
        return sum(p.gpus_held for p in self.purchases)


def brief_plan(scenario: Scenario, cache: SurveyCache, with_service: bool = True) -> BriefPlan | None:
    """The cheapest plan in brief, with what users see or without; None where nothing meets all demands, or nothing was found in time."""
    asked, points = posed(scenario, cache)
    found, points = kept_apart(points, asked)
    if not found.found:
        return None
    chosen = chosen_pools(found, points.survey)
    made_of = tuple(brief(c, points) for c in chosen)
    served = workloads_of(asked, chosen, points.survey) if with_service else ()
    return BriefPlan(found.cost, found.solution.status == Status.OPTIMAL, made_of, tuple(purchases(found)[0]), served)
