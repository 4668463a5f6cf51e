"""Who goes short: where budget, quota or GPUs do not suffice, workloads are served class by class, and what is left out is stated.

Lexicographic: of the first class as large a share as can be served at all, then of the next beside it, and so on; then the cheapest plan of that.
More is never easier to serve than less, so each share is found by halving, to a thousandth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from planner.catalog.catalog import Catalog
from planner.deadline import Deadline
from planner.errors import ScenarioError, TimeUp
from planner.planning.verified import verified
from planner.program.problem import Status
from planner.result.plan import Plan, Shed
from planner.scenario.change import with_workloads
from planner.scenario.records import Scenario
from planner.scenario.workload import Workload
from planner.search.apart import kept_apart
from planner.search.posed import posed
from planner.search.survey_cache import SurveyCache

PARTS = 1000  # in which a share is told
SEARCHING = 0.6  # of the time limit; the rest is for the plan itself


def shedding(scenario: Scenario, catalog: Catalog, deadline: Deadline, solve: Callable[[Scenario], Plan]) -> Plan:
    """The plan of all that is asked, or of as much as can be served by priority, saying what is shed.

    Raises Infeasible where nothing of any class can be served, TimeUp where that was not found out in time.
    """
    for w in scenario.workload:
        if w.route_by or (w.demand and w.demand.is_open):
            raise ScenarioError(f"the rate of '{w.name}' follows from its users or its lengths, so no share of it can be shed", "policy.shed")
        if w.is_cascade:
            raise ScenarioError(f"requests of '{w.name}' are answered again, so no share of it can be shed", "policy.shed", "leave --shed or --escalate out")
    if scenario.objective.maximize:
        raise ScenarioError("the most that can be served sheds nothing; leave one of the two out", "policy.shed")
    cache, searching = SurveyCache(catalog), deadline.share(SEARCHING)
    if _can_be_served(scenario, cache, searching):
        return verified(_told(solve(scenario), scenario, {}), catalog)
    shares: dict[str, int] = {w.name: 0 for w in scenario.workload}
    for first in sorted({w.priority_class for w in scenario.workload}):
        names = [w.name for w in scenario.workload if w.priority_class == first]
        low, high = 0, PARTS + 1
        while high - low > 1:
            middle = PARTS if high > PARTS else (low + high) // 2  # all of it first
            if _can_be_served(served(scenario, shares | dict.fromkeys(names, middle)), cache, searching):
                low = middle
            else:
                high = middle
        shares |= dict.fromkeys(names, low)
    if not any(shares.values()):
        return solve(scenario)  # raises, and says why
    return verified(_told(solve(served(scenario, shares)), scenario, shares), catalog)


def served(scenario: Scenario, parts: Mapping[str, int]) -> Scenario:
    """The scenario with so many thousandths of each workload; what is none of one is not in it."""
    return with_workloads(scenario, (w.at_rate(w.rate * parts[w.name] / PARTS) for w in scenario.workload if parts[w.name]))


def _can_be_served(scenario: Scenario, cache: SurveyCache, deadline: Deadline) -> bool:
    asked, points = posed(scenario, cache, deadline)
    deadline.check()
    found = kept_apart(points, asked, break_ties=False)[0]
    if not found.found and found.solution.status == Status.UNKNOWN:
        raise TimeUp()
    return found.found


def _told(plan: Plan, scenario: Scenario, parts: Mapping[str, int]) -> Plan:
    """The plan with what is shed of each workload, in numbers and as its first warning."""
    rows = tuple(_row(w, parts.get(w.name, PARTS)) for w in scenario.workload)
    short = [f"{r.share:.1%} of {r.workload} ({r.asked - r.served:.4g} of {r.asked:g} {w.unit})" for r, w in zip(rows, scenario.workload) if r.share]
    warnings = (f"not all is served: shed are {', '.join(short)}, by priority (--shed)", *plan.warnings) if short else plan.warnings
    return plan.model_copy(update={"shed": rows, "warnings": warnings})


def _row(w: Workload, part: int) -> Shed:
    return Shed(workload=w.name, priority=w.priority_class, kind=w.rate_field, asked=w.rate, served=w.rate * part / PARTS, share=1 - part / PARTS)
