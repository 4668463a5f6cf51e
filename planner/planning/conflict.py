"""Which demands conflict: a smallest set that cannot be met together, and the smallest relaxation of all of it at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import ceil

from planner.candidates.columns import market
from planner.candidates.offers import allowed
from planner.candidates.points import Points
from planner.candidates.survey import survey
from planner.errors import TimeUp
from planner.planning.answer import has_plan
from planner.scenario.records import Scenario, Workload
from planner.scenario.units import MOST_SECONDS, format_duration

SEARCH_SHARE = 0.25  # of the time limit
STEPS = 8  # bisections of the common share
MOST_SHARE = 4.0  # limits are loosened to at most five times themselves
LEAST_TRAFFIC = 1e-4  # of the traffic: what is left when traffic is no demand


@dataclass(frozen=True)
class Demand:
    """One named demand: the scenario without it, and with it loosened by a share (and how that reads)."""

    name: str
    dropped: Callable[[Scenario], Scenario]
    loosened: Callable[[Scenario, float], Scenario]
    text: Callable[[float], str]


def conflict_of(scenario: Scenario, points: Points) -> tuple[tuple[str, ...], str, str]:
    """(names of a minimal conflicting set, the smallest common relaxation of it in words, what time did not suffice to search).

    Deletion filter: each demand in turn is left out for good if the rest still has no plan; what stays is minimal, as every one of
    it was needed for the conflict. Empty where even without all demands there is no plan.
    """
    points = points.until(points.deadline.share(SEARCH_SHARE))
    known = {_physics(scenario): points}

    def is_feasible(s: Scenario) -> bool:
        key = _physics(s)
        points.deadline.check()
        if key not in known:
            known[key] = Points(survey(s, points.survey.catalog, allowed(points.survey.catalog.offers, s.supply)), points.deadline)
        return has_plan(market(known[key].asked(s, allowed(points.survey.catalog.offers, s.supply)), s))

    try:
        kept, rest = _needed(scenario, is_feasible)
    except TimeUp:
        return (), "", "which demands are in conflict (raise --time-limit)"
    names = tuple(d.name for d in kept)
    try:
        return names, _together(rest, kept, is_feasible) if len(kept) > 1 else "", ""
    except TimeUp:
        return names, "", "how far all of these would have to move together (raise --time-limit)"


def _needed(scenario: Scenario, is_feasible: Callable[[Scenario], bool]) -> tuple[list[Demand], Scenario]:
    """Demands needed for the conflict, and the scenario without the others."""
    kept: list[Demand] = []
    for d in demands(scenario):
        without = d.dropped(scenario)
        if is_feasible(without):
            kept.append(d)
        else:
            scenario = without
    return kept, scenario


def _together(scenario: Scenario, kept: Sequence[Demand], is_feasible: Callable[[Scenario], bool]) -> str:
    """The smallest share by which all of them can be loosened alike, in words; the demands outside the conflict are not in it."""

    def loosened(share: float) -> Scenario:
        s = scenario
        for d in kept:
            s = d.loosened(s, share)
        return s

    low, high = 0.0, MOST_SHARE
    if not is_feasible(loosened(high)):
        return ""
    with suppress(TimeUp):  # the smallest share known to do is worth saying
        for _ in range(STEPS):
            middle = (low + high) / 2 if low else high / 4
            low, high = (low, middle) if is_feasible(loosened(middle)) else (middle, high)
    return ", ".join(d.text(high) for d in kept)


def _physics(scenario: Scenario) -> str:
    """What a survey depends on among the demands: floors and limits."""
    return repr([(w.min_quality, sorted(w.slo.items())) for w in scenario.workload])


# ---- the demands by name


def demands(scenario: Scenario) -> list[Demand]:
    """Every demand in force: supply first, as it is what buyers can most easily move, then service, quality and traffic."""
    found = [_budget(scenario)] if scenario.policy.budget is not None else []
    found += [_cap(scenario)] if scenario.supply.max_gpus is not None else []
    found += [_quota(scenario, gpu) for gpu in scenario.supply.quota]
    found += [_spare(scenario)] if scenario.policy.spare_replicas else []
    for w, workload in enumerate(scenario.workload):
        label = f"{workload.name} " if len(scenario.workload) > 1 else ""
        found += [_limit(w, name, seconds, label) for name, seconds in workload.slo.items()]
        found += [_floor(w, workload.min_quality, label)] if workload.min_quality is not None else []
        found += [_traffic(w, workload, label)]
    return found


def _budget(scenario: Scenario) -> Demand:
    budget = scenario.policy.budget or 0.0
    return Demand(
        f"budget ${budget:,.2f}/h",
        lambda s: _policy(s, budget=None),
        lambda s, x: _policy(s, budget=budget * (1 + x)),
        lambda x: f"${ceil(100 * budget * (1 + x)) / 100:,.2f}/h",
    )


def _cap(scenario: Scenario) -> Demand:
    most = scenario.supply.max_gpus or 0
    return Demand(
        f"{most} GPUs in all",
        lambda s: _supply(s, max_gpus=None),
        lambda s, x: _supply(s, max_gpus=ceil(most * (1 + x) - 1e-9)),
        lambda x: f"{ceil(most * (1 + x) - 1e-9)} GPUs",
    )


def _quota(scenario: Scenario, gpu: str) -> Demand:
    quota = scenario.supply.quota[gpu]

    def without(s: Scenario) -> Scenario:
        return _supply(s, quota={g: n for g, n in s.supply.quota.items() if g != gpu})

    def more(x: float) -> int:
        return ceil(max(quota, 1) * (1 + x) - 1e-9) if x else quota

    return Demand(f"quota {gpu}={quota}", without, lambda s, x: _supply(s, quota={**s.supply.quota, gpu: more(x)}), lambda x: f"quota {gpu}={more(x)}")


def _spare(scenario: Scenario) -> Demand:
    spare = scenario.policy.spare_replicas

    def left(x: float) -> int:
        return max(0, int(spare * (1 - x) + 1e-9))

    return Demand(
        f"{spare} spare replicas",
        lambda s: _policy(s, spare_replicas=0),
        lambda s, x: _policy(s, spare_replicas=left(x)),
        lambda x: f"{left(x)} spare replicas",
    )


def _limit(w: int, name: str, seconds: float, label: str) -> Demand:
    metric, _, percentile = name.rpartition("_p")
    words = f"{label}{metric.upper()} p{percentile}"

    def without(s: Scenario) -> Scenario:
        return _workload(s, w, slo={k: v for k, v in s.workload[w].slo.items() if k != name})

    def loosened(s: Scenario, x: float) -> Scenario:
        return _workload(s, w, slo={**s.workload[w].slo, name: min(seconds * (1 + x), MOST_SECONDS)})

    return Demand(f"{words} {format_duration(seconds)}", without, loosened, lambda x: f"{words} {format_duration(float(f'{seconds * (1 + x) * 1.0005:.4g}'))}")


def _floor(w: int, floor: float, label: str) -> Demand:
    def lower(x: float) -> float:
        return floor / (1 + x)

    return Demand(
        f"{label}quality {floor:g}",
        lambda s: _workload(s, w, min_quality=None),
        lambda s, x: _workload(s, w, min_quality=lower(x)),
        lambda x: f"{label}quality {lower(x) - 5e-5:.4f}",
    )


def _traffic(w: int, workload: Workload, label: str) -> Demand:
    field, unit = ("qps", "req/s") if workload.qps is not None else ("concurrency", "in flight")
    return Demand(
        f"{label}{workload.rate:g} {unit}",
        lambda s: _workload(s, w, **{field: workload.rate * LEAST_TRAFFIC}),
        lambda s, x: _workload(s, w, **{field: workload.rate / (1 + x)}),
        lambda x: f"{label}{workload.rate / (1 + x) * 0.9995:.4g} {unit}",
    )


def _workload(s: Scenario, w: int, **update: object) -> Scenario:
    return s.model_copy(update={"workload": tuple(x.model_copy(update=update) if i == w else x for i, x in enumerate(s.workload))})


def _policy(s: Scenario, **update: object) -> Scenario:
    return s.model_copy(update={"policy": s.policy.model_copy(update=update)})


def _supply(s: Scenario, **update: object) -> Scenario:
    return s.model_copy(update={"supply": s.supply.model_copy(update=update)})
