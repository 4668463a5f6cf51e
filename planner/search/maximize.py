"""The most traffic, or the best quality, that budget and quotas buy: the largest demand that still has a plan.

Cost never falls with traffic or with a floor, so a bisection finds the largest that is feasible; the plan is then the cheapest there.
"""

from __future__ import annotations

from planner.candidates.columns import formulation
from planner.candidates.eligibility import counted
from planner.candidates.offers import labels
from planner.candidates.points import Points
from planner.errors import ScenarioError, TimeUp
from planner.scenario.caps import caps
from planner.scenario.change import assumed_of, with_workloads
from planner.scenario.records import Scenario
from planner.scenario.workload import Workload
from planner.search.answer import has_plan

EXACT = 1e-3  # relative: traffic is found to a thousandth, rounded down
MOST_QPS = 1e7
LEAST = 1e-6  # of the traffic stated: less is none
SEARCH_SHARE = 0.75  # of the time limit; the rest is for the plan itself


def largest(points: Points, scenario: Scenario) -> tuple[Scenario, tuple[str, ...]]:
    """The scenario with its demand (or its first workload's floor) raised as far as a plan exists; itself if not even that has one.

    With what to say where time was up before the end of the search. Raises ScenarioError where the most traffic has no end.
    """
    points = points.until(points.deadline.share(SEARCH_SHARE))
    is_traffic = scenario.objective.maximize == "qps"
    found, whole = _most_traffic(points, scenario) if is_traffic else _best_quality(points, scenario)
    more = "more traffic" if is_traffic else "a higher quality"
    return found, () if whole else (f"the search for {more} was stopped by the time limit: more may be possible (raise --time-limit)",)


def is_feasible(points: Points, scenario: Scenario) -> bool:
    """Whether any plan meets it."""
    return has_plan(formulation(points, scenario))


def scaled(scenario: Scenario, factor: float) -> Scenario:
    """The scenario with all traffic times a factor."""

    def more(w: Workload) -> Workload:
        return w.at_rate(float(f"{w.rate * factor:.7g}"))

    return with_workloads(scenario, (more(w) for w in scenario.workload))


def unlimited(points: Points, scenario: Scenario) -> list[str]:
    """GPU types of which any number may be held: no budget, cap or quota limits them, and an offer of them has no end."""
    reach = caps(scenario)
    if any(not c.key for c in reach):
        return []
    endless = {(o.gpu, labels(o)) for o in points.survey.offers if o.available is None}
    return sorted({gpu for gpu, named in endless if not any(c.scope <= named for c in reach)})


def _most_traffic(points: Points, scenario: Scenario) -> tuple[Scenario, bool]:
    """All workloads in the proportion stated; with whether the search came to its end."""
    if endless := unlimited(points, scenario):
        some = ", ".join(endless[:3]) + (f" and {len(endless) - 3} more" if len(endless) > 3 else "")
        raise ScenarioError(f"the most traffic has no end: nothing limits {some}", "--maximize", "give --budget, --max-gpus, or --quota for every GPU type")
    low, high = LEAST, 1.0
    if not is_feasible(points, scaled(scenario, low)):
        return scenario, True
    cutoff = MOST_QPS / max(w.rate for w in scenario.workload)
    try:
        while is_feasible(points, scaled(scenario, high)):
            if high >= cutoff:
                raise ScenarioError(f"more than {MOST_QPS:,.0f} can be served, and no larger rate can be asked", "--maximize", "lower the limits")
            low, high = high, min(high * 2, cutoff)
        while high > low * (1 + EXACT):
            middle = (low * high) ** 0.5
            low, high = (middle, high) if is_feasible(points, scaled(scenario, middle)) else (low, middle)
    except TimeUp:
        return scaled(scenario, low), False
    return scaled(scenario, low), True


def _best_quality(points: Points, scenario: Scenario) -> tuple[Scenario, bool]:
    """The highest score as floor of the first workload; with whether the search came to its end."""
    policy = scenario.policy
    scores = sorted({round(counted(q, policy) - policy.quality_margin, 9) for e in points.survey.eligible if (q := e.quality[0]) is not None})
    floor = scenario.workload[0].min_quality or 0.0
    found = [s for s in scores if s >= floor]
    low, high, whole = -1, len(found), True
    try:
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if is_feasible(points, _with_floor(scenario, found[middle])) else (low, middle)
    except TimeUp:
        whole = False
    return (_with_floor(scenario, found[low]) if low >= 0 else scenario), whole


def _with_floor(scenario: Scenario, floor: float) -> Scenario:
    return assumed_of(scenario, 0, min_quality=floor)
