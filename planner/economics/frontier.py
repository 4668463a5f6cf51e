"""The cost-quality frontier: the cheapest plan at every quality, and what the next point of quality costs.

ε-constraint on the floor, walked from loose to tight: the floor steps just above the quality served, so every plan that no
other beats in cost and quality is met once, and nothing between two of them is missed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf
from typing import Any

import numpy as np

from planner.catalog.catalog import Catalog
from planner.economics.change import checkpoints_of
from planner.economics.noise import Noise, at_median, noise
from planner.economics.runs import HERE, Done, Where, answer_one, answers, quietly, side_by_side
from planner.economics.store import Result
from planner.errors import ScenarioError
from planner.result.plan import Plan
from planner.scenario.change import assumed, require_gpus_alone, with_workload
from planner.scenario.records import Scenario
from planner.search.survey_cache import SurveyCache

JUST_ABOVE = 1e-6  # of quality: scores are published with four digits at most
TIE = 1e-9  # of the cost
MEAN_POINTS = 20
LATENCIES = {"ttft": (0.25, 0.5, 1.0, 2.0), "tpot": (0.4, 0.6, 0.8, 1.0, 1.5)}  # limits tried, in multiples of the one asked for
CONCURRENCIES = (0.25, 0.5, 1.0, 2.0)  # requests in flight tried, in multiples of those asked for
AXES = (*LATENCIES, "concurrency")


@dataclass(frozen=True)
class Along:
    """A third axis: limits on a latency, or requests in flight, in multiples of the scenario's own (none: the usual ones)."""

    axis: str
    multiples: tuple[float, ...] = ()

    @property
    def tried(self) -> tuple[float, ...]:
        """The multiples."""
        return self.multiples or LATENCIES.get(self.axis, CONCURRENCIES)


@dataclass(frozen=True)
class FrontierPoint:
    """One plan of the frontier. ``quality`` is the lowest score (or the mean, for a frontier of means) that serves the workload.

    ``bound_usd_per_hour``: no plan of at least this quality costs less. ``usd_per_hour_per_point``: what a point (0.01) of quality
    costs up to here from the point below; None for the first. ``latency_ms`` or ``concurrency`` (requests in
    flight): where on the third axis, if there is one.
    """

    quality: float
    plan: Plan
    bound_usd_per_hour: float
    usd_per_hour_per_point: float | None = None
    latency_ms: float | None = None
    concurrency: float | None = None

    @property
    def third(self) -> float:
        """Place on the third axis, less being more to ask: a tighter limit, more in flight."""
        return -self.concurrency if self.concurrency is not None else self.latency_ms or 0.0

    @property
    def usd_per_hour(self) -> float:
        """Cost of the plan."""
        return self.plan.cost.usd_per_hour

    @property
    def usd_per_hour_at_median(self) -> float | None:
        """Cost of the plan with the replicas that the median of its evidence takes."""
        return at_median(self.plan)


@dataclass(frozen=True)
class Frontier:
    """Plans that no other beats, quality and cost rising (within each value of the third axis). ``notes``: what was left out and why."""

    points: tuple[FrontierPoint, ...]
    workload: str
    metric: str
    axis: str = ""  # "ttft", "tpot" or "concurrency" where there is a third axis
    notes: tuple[str, ...] = ()
    limit_ms: float | None = None  # the scenario's own on the third axis
    concurrency: float | None = None  # and its own requests in flight

    @property
    def by_evidence(self) -> tuple[tuple[FrontierPoint, FrontierPoint, Noise], ...]:
        """Neighbours (within a limit of the third axis), cheaper first, that differ mainly by how well their performance is known."""
        pairs = [(a, b, noise(b.plan, a.plan)) for a, b in pairwise(self.points) if a.third == b.third]
        return tuple((a, b, n) for a, b, n in pairs if n and n.is_main)

    @property
    def chosen(self) -> int | None:
        """The point that the scenario's own plan is: the cheapest under its own limit, of equals the one of most quality. None where there is none."""
        most = inf if self.limit_ms is None and self.concurrency is None else self.limit_ms or -(self.concurrency or 0.0)
        within = [i for i, p in enumerate(self.points) if p.third <= most + 1e-9 * abs(most)] if most < inf else range(len(self.points))
        return min(within, key=lambda i: (self.points[i].usd_per_hour, -self.points[i].quality), default=None)


def frontier(scenario: Scenario, catalog: Catalog, *, workload: int = 0, also: str | Along = "", where: Where = HERE, done: Done = quietly) -> Frontier:
    """The Pareto set of cost and quality for one workload, the others held as they are; with mixes, of cost and mean quality.

    also: "ttft" or "tpot" adds limits on it as a third axis, "concurrency" requests in flight (multiples of
    the scenario's own). The scenario's own floor is where the frontier starts.
    Raises ScenarioError for an unknown axis or workload; an empty frontier where nothing serves at all.
    """
    require_gpus_alone(scenario, "a frontier")
    third = also if isinstance(also, Along) else Along(also)
    also = third.axis
    if also not in ("", *AXES):
        raise ScenarioError(f"no frontier over '{also}'", "--also", f"one of {', '.join(AXES)}")
    cache, asked = where.cache(catalog), scenario.workload[workload]
    found: list[FrontierPoint] = []
    places = _along(scenario, workload, third)
    walk = _by_mean if scenario.policy.mix else _by_floor
    for (place, _), points in zip(places, side_by_side(lambda x: walk(x[1], cache, workload, where, done), places, where.workers), strict=True):
        found += [replace(p, **place) for p in points]
    kept = _unbeaten(found) if also else found
    what = "fewer requests in flight than carried" if also == "concurrency" else f"a tighter {also.upper()} limit than needed"
    notes = [f"Left out for {what}: {len(found) - len(kept)} of {len(found)} plans."] if len(found) > len(kept) else []
    limit = next((1e3 * s.seconds for s in asked.limits if s.metric == also), None)
    return Frontier(tuple(kept), asked.name, asked.quality_metric, also, tuple(notes), limit, asked.concurrency if also == "concurrency" else None)


def _along(scenario: Scenario, w: int, third: Along) -> list[tuple[dict[str, Any], Scenario]]:
    """The scenario at each place on the third axis, with the field of a point that says which; itself without one."""
    also = third.axis
    if not also:
        return [({}, scenario)]
    if also == "concurrency":
        now = scenario.workload[w].concurrency
        if now is None:
            raise ScenarioError("the workload's traffic is not in requests in flight", "--also", "give it as such, as --concurrency 500")
        return [({"concurrency": now * f}, with_workload(scenario, w, concurrency=now * f)) for f in third.tried]
    slo = scenario.workload[w].slo
    limit = next((s for s in scenario.workload[w].limits if s.metric == also), None)
    if limit is None:
        raise ScenarioError(f"the workload has no limit on {also.upper()}", "--also", f"give one, such as --{also} 1s")
    return [({"latency_ms": limit.seconds * f * 1e3}, with_workload(scenario, w, slo={**slo, limit.name: limit.seconds * f})) for f in third.tried]


def _by_floor(scenario: Scenario, cache: SurveyCache, w: int, where: Where, done: Done) -> list[FrontierPoint]:
    """Floors from loose to tight, each just above the quality that the last plan serves."""
    points: list[FrontierPoint] = []
    question = scenario
    while (plan := answers([question], cache.catalog, where, cache=cache)[0].plan) is not None:
        served = plan.workloads[w].min_quality_served
        if served is None:  # no floor was asked and something without a score is cheapest: the frontier begins where scores do
            question = with_workload(scenario, w, min_quality=0.0)
            continue
        if points and plan.cost.usd_per_hour <= points[-1].usd_per_hour * (1 + TIE):
            points.pop()  # better at the same cost
        points.append(FrontierPoint(served, plan, plan.bound_usd_per_hour))
        done(len(points), 0)
        question = with_workload(scenario, w, min_quality=served - scenario.policy.quality_margin + JUST_ABOVE)
    return _priced(_monotone_bounds(points))


def _by_mean(scenario: Scenario, cache: SurveyCache, w: int, where: Where, done: Done) -> list[FrontierPoint]:
    """With mixes the mean quality moves without steps: evenly spaced means between the cheapest plan's and the best there is."""
    least, best = answer_one(scenario, cache).plan, _best_mean(scenario, cache, w, where)
    if least is None or best is None:
        return []
    low = least.workloads[w].mean_quality_served or 0.0
    means = np.unique(np.round(np.linspace(low, best, MEAN_POINTS), 6))
    results = answers([with_workload(scenario, w, mean_quality=float(m)) for m in means], cache.catalog, where, done, cache)
    points = [
        FrontierPoint(r.plan.workloads[w].mean_quality_served or float(m), r.plan, r.plan.bound_usd_per_hour)
        for m, r in zip(means, results, strict=True)
        if r.plan
    ]
    return _priced(_monotone_bounds(_unbeaten(points)))


def _best_mean(scenario: Scenario, cache: SurveyCache, w: int, where: Where) -> float | None:
    """The highest floor that any plan meets is the highest mean there is."""
    points = _by_floor(assumed(scenario, "policy", mix=False), cache, w, where, quietly)
    return points[-1].quality if points else None


def _monotone_bounds(points: Sequence[FrontierPoint]) -> list[FrontierPoint]:
    """A plan of more quality is a plan of less, so bounds never fall from left to right."""
    bounds = np.maximum.accumulate(np.array([p.bound_usd_per_hour for p in points]))
    return [replace(p, bound_usd_per_hour=min(float(b), p.usd_per_hour)) for p, b in zip(points, bounds, strict=True)]


def _priced(points: Sequence[FrontierPoint]) -> list[FrontierPoint]:
    """With what a point of quality costs between neighbours."""
    steps = [None] + [(b.usd_per_hour - a.usd_per_hour) / (b.quality - a.quality) * 0.01 for a, b in pairwise(points)]
    return [replace(p, usd_per_hour_per_point=s) for p, s in zip(points, steps, strict=True)]


def _unbeaten(points: Sequence[FrontierPoint]) -> list[FrontierPoint]:
    """Points that no other matches in quality, cost and third axis; of equals the first."""
    kept = []
    for i, p in enumerate(points):
        mine = (-p.quality, p.usd_per_hour, p.third)
        others = [(-q.quality, q.usd_per_hour, q.third) for j, q in enumerate(points) if j != i]
        same = [(-q.quality, q.usd_per_hour, q.third) for q in points[:i]]
        if mine not in same and not any(all(a <= b for a, b in zip(o, mine)) and o != mine for o in others):
            kept.append(p)
    return sorted(kept, key=lambda p: (abs(p.third), p.quality))


def by_model(scenario: Scenario, catalog: Catalog, where: Where = HERE, done: Done = quietly, workload: int = 0) -> list[tuple[str, Result]]:
    """The cheapest plan with each model alone at the user's own load, cheapest first: quality against unit cost, all models.

    Models that cannot serve are absent.
    """
    free = with_workload(scenario, workload, min_quality=None)
    names = sorted({card.name for card in catalog.cards})
    asked = [with_workload(free, workload, models=checkpoints_of(name, catalog)) for name in names]
    found = [(name, r) for name, r in zip(names, answers(asked, catalog, where, done), strict=True) if r.plan]
    return sorted(found, key=lambda x: x[1].cost)
