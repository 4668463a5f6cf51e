"""The cost staircase: the cheapest plan along one demand, price or limit (or two), and where another structure takes over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise, product

import numpy as np

from planner.catalog.catalog import Catalog
from planner.economics.briefly import BriefPlan
from planner.economics.runs import HERE, Done, Where, answers, quietly
from planner.economics.store import Result
from planner.errors import ScenarioError, did_you_mean
from planner.result.plan import Plan
from planner.scenario.change import assumed, changed, require_gpus_alone, with_workload
from planner.scenario.records import Scenario
from planner.scenario.units import format_duration, parse_duration_s, parse_share, parse_usd_per_hour
from planner.search.survey_cache import SurveyCache

SWITCH_WIDTH = 0.005  # a switch is found to half a percent of the value (or of the range, on even scales)
NEAR = SWITCH_WIDTH / 4  # how far beside what a plan carries its successor is looked for
FEW_REPLICAS = 10  # up to so many, one more is a tenth of the cost or more, and another structure may do between
MOST_EXTRA = 5  # plans asked between the values of a sweep, per value (of 20 at least)
MOST_POINTS = 2000

Read = Callable[[str], float]


@dataclass(frozen=True)
class Axis:
    """What is varied: values rising, how a scenario takes one, and how one is written."""

    name: str
    values: tuple[float, ...]
    is_geometric: bool

    def apply(self, scenario: Scenario, value: float) -> Scenario:
        """The scenario at a value (of its first workload, where the axis is of workloads)."""
        return _SETTERS[self.name.partition(":")[0]](scenario, value, self.name.partition(":")[2])

    def middle(self, low: float, high: float) -> float:
        """Halfway on the axis's scale."""
        return (low * high) ** 0.5 if self.is_geometric else (low + high) / 2

    def text(self, value: float) -> str:
        """A value as it is typed."""
        return format_duration(value) if self.name in ("ttft", "tpot", "e2e") else f"{value:.6g}"


@dataclass(frozen=True)
class Step:
    """A stretch of the staircase with one structure: from the first value to the last at which it was found cheapest.

    The next step's ``from_value`` is within SWITCH_WIDTH of ``to_value``; None in ``structure``: no plan.
    """

    from_value: float
    to_value: float
    structure: str | None
    usd_per_hour: tuple[float, float]


@dataclass(frozen=True)
class Sweep:
    """Answers at every combination of values, last axis fastest, and the steps along a single axis; ``notes``: what was not searched."""

    axes: tuple[Axis, ...]
    results: tuple[Result, ...]
    steps: tuple[Step, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def values(self) -> list[tuple[float, ...]]:
        """The combination of values behind each result."""
        return list(product(*(a.values for a in self.axes)))


def axis(text: str, points: int = 20) -> Axis:
    """An axis as typed: ``qps=10:2000`` (``points`` values, evenly spaced on its scale), ``qps=10:2000:50`` or ``qps=10,20,50``.

    Names: qps, concurrency, quality, ttft, tpot, e2e, isl, osl, budget, confidence, load, hits (prefix cache), price or price:GPU (a
    factor on prices), step (a factor on step times). Raises ScenarioError.
    """
    name, equals, rest = text.partition("=")
    kind = name.partition(":")[0]
    if not equals or kind not in _SETTERS or (":" in name and kind != "price"):
        raise ScenarioError(f"cannot sweep over '{name}'", "--over", did_you_mean(name, _SETTERS) or f"one of {', '.join(_SETTERS)}, as in qps=10:2000")
    try:
        read: Read = _READ.get(kind, float)
        if ":" in rest:
            low, high, *count = rest.split(":")
            size = int(count[0]) if count else points
            values = _spaced(read(low), read(high), size, kind in GEOMETRIC)
        else:
            values = sorted({read(v) for v in rest.split(",")})
    except ValueError as error:
        hint = str(error) if kind in _READ and str(error) else "write a range such as 10:2000, or a list such as 10,20,50"
        raise ScenarioError(f"not values to sweep over: '{rest}'", "--over", hint) from None
    if not 1 <= len(values) <= MOST_POINTS:
        raise ScenarioError(f"{len(values)} values are asked for", "--over", f"from 1 to {MOST_POINTS:,}")
    return Axis(name, tuple(values), kind in GEOMETRIC)


def _spaced(low: float, high: float, count: int, geometric: bool) -> list[float]:
    if not 1 <= count <= MOST_POINTS or low > high or (geometric and low <= 0):
        raise ValueError
    found = np.geomspace(low, high, count) if geometric else np.linspace(low, high, count)
    return sorted({float(f"{v:.6g}") for v in found})


def sweep(scenario: Scenario, catalog: Catalog, axes: Sequence[Axis], where: Where = HERE, done: Done = quietly) -> Sweep:
    """The cheapest plan at every combination of values; along a single axis also the steps, their ends searched for.

    Raises ScenarioError where a value makes no valid scenario.
    """
    require_gpus_alone(scenario, "a sweep")
    cache = where.cache(catalog)
    questions = [_asked(scenario, axes, values) for values in product(*(a.values for a in axes))]
    results = answers(questions, catalog, where, done, cache)
    steps, notes = _steps(scenario, axes[0], results, cache, where) if len(axes) == 1 else ((), ())
    return Sweep(tuple(axes), tuple(results), steps, notes)


def _asked(scenario: Scenario, axes: Sequence[Axis], values: Sequence[float]) -> Scenario:
    for a, v in zip(axes, values, strict=True):
        try:
            scenario = a.apply(scenario, v)
        except ValueError as error:
            raise ScenarioError(f"{a.name} cannot be {v:g}: {str(error).splitlines()[-1]}", "--over") from None
    return scenario


def structure(plan: Plan | BriefPlan | None) -> str | None:
    """What a plan is made of, without counts: checkpoints, GPUs, layouts, providers."""
    if plan is None:
        return None
    parts = sorted({f"{d.checkpoint.split('/')[-1]} on {d.layout} {d.gpu}" for d in plan.deployments})
    return f"{' + '.join(parts)}, {' + '.join(sorted({p.provider for p in plan.purchases}))}"


@dataclass(frozen=True)
class _Point:
    """One answer along an axis, by what is compared between neighbours."""

    value: float
    structure: str | None
    usd_per_hour: float
    replicas: int
    carries: float  # up to which value of the axis the plan is thought to do: where its successor is looked for
    is_proven: bool  # not cut short by the time limit

    @classmethod
    def of(cls, a: Axis, value: float, result: Result) -> _Point:
        """The point of an answer."""
        plan = result.plan
        replicas = sum(d.replicas for d in plan.deployments) if plan else 0
        carries = (headroom(plan) or 0.0) if plan and a.name in ("qps", "concurrency") else 0.0
        return cls(value, structure(plan), result.cost, replicas, carries, plan is None or plan.status == "optimal")


def _steps(scenario: Scenario, a: Axis, results: Sequence[Result], cache: SurveyCache, where: Where) -> tuple[tuple[Step, ...], tuple[str, ...]]:
    """(steps, notes): between neighbours of different structure values are asked until neighbours agree or lie within SWITCH_WIDTH."""
    points = [_Point.of(a, v, r) for v, r in zip(a.values, results, strict=True)]
    span = a.values[-1] - a.values[0]
    most = round(MOST_EXTRA * max(len(points), 20))
    while wanted := [(p, q) for p, q in pairwise(points) if _may_hide(a, p, q, span)]:
        left = most + len(results) - len(points)
        values = [_probe(a, p, q) for p, q in wanted[:left]]
        found = answers([_asked(scenario, [a], [v]) for v in values], cache.catalog, where, cache=cache)
        points = sorted([*points, *(_Point.of(a, v, r) for v, r in zip(values, found, strict=True))], key=lambda p: p.value)
        if left <= len(wanted):
            break
    unsure = sum(_may_hide(a, p, q, span) for p, q in pairwise(points))
    notes: tuple[str, ...] = (
        (f"the search between values was stopped after {len(points) - len(results)} more plans: {unsure} switches are known less exactly",) if unsure else ()
    )
    if late := sum(not p.is_proven for p in points):
        notes += (f"{late} of {len(points)} plans were cut short by the time limit: where they change is not searched for",)
    steps = [list(group) for _, group in groupby(points, key=lambda p: p.structure)]
    return tuple(Step(s[0].value, s[-1].value, s[0].structure, (s[0].usd_per_hour, s[-1].usd_per_hour)) for s in steps), notes


def _may_hide(a: Axis, p: _Point, q: _Point, span: float) -> bool:
    """Whether what lies between two neighbours is to be searched: a switch, or (of few replicas) where one more replica is due."""
    if q.value - p.value <= SWITCH_WIDTH * (q.value if a.is_geometric else span) * (1 + 1e-9):
        return False
    if not (p.is_proven and q.is_proven):  # of plans cut short, time decides the structure
        return False
    if p.structure != q.structure:
        return True
    return q.usd_per_hour > p.usd_per_hour * (1 + NEAR) and 0 < p.replicas <= FEW_REPLICAS and p.value < p.carries * (1 + NEAR) < q.value


def _probe(a: Axis, p: _Point, q: _Point) -> float:
    """The value to ask between two: just past what the lower plan carries, then just below, so that a switch there is closed in at once."""
    for guess in (p.carries * (1 + NEAR), p.carries * (1 - NEAR)):
        if p.value < guess < q.value * (1 - NEAR / 10):
            return guess
    return a.middle(p.value, q.value)


def marginal(values: Sequence[float], results: Sequence[Result]) -> list[float | None]:
    """$/h per unit of the axis from each value to the next; None at the end and beside questions without a plan."""
    found: list[float | None] = [(b.cost - a.cost) / (y - x) if a.plan and b.plan else None for (x, a), (y, b) in pairwise(zip(values, results, strict=True))]
    return [*found, None]


def headroom(plan: Plan, w: int = 0) -> float | None:
    """The demand of a workload, in its own unit (mean requests/s, or in flight), that a plan's deployments carry within the limits and the policy's
    largest SLO load, shares as they are, if they serve nothing else; None otherwise."""
    serving = {r.deployment for r in plan.workloads[w].routing}
    others = {r.deployment for v, x in enumerate(plan.workloads) if v != w for r in x.routing}
    if serving & others:
        return None
    fullest = max(plan.deployments[d].slo_load for d in serving)
    return plan.workloads[w].demand.value * plan.scenario.policy.max_slo_load / fullest


# ---- what can be varied


def _rate(scenario: Scenario, value: float, _: str) -> Scenario:
    return with_workload(scenario, 0, qps=value, concurrency=None)


def _limit(metric: str) -> Callable[[Scenario, float, str], Scenario]:
    def apply(scenario: Scenario, value: float, _: str) -> Scenario:
        slo = scenario.workload[0].slo
        mine = [s.name for s in scenario.workload[0].limits if s.metric == metric] or [f"{metric}_p95"]
        return with_workload(scenario, 0, slo={**slo, **dict.fromkeys(mine, value)})

    return apply


def _field(name: str) -> Callable[[Scenario, float, str], Scenario]:
    return lambda scenario, value, _: with_workload(scenario, 0, **{name: value})


def _price(scenario: Scenario, value: float, gpu: str) -> Scenario:
    return assumed(scenario, "what_if", price_factor={**scenario.what_if.price_factor, gpu or "all": value})


_SETTERS: dict[str, Callable[[Scenario, float, str], Scenario]] = {
    "qps": _rate,
    "concurrency": lambda scenario, value, _: with_workload(scenario, 0, concurrency=value, qps=None),
    "quality": _field("min_quality"),
    "ttft": _limit("ttft"),
    "tpot": _limit("tpot"),
    "e2e": _limit("e2e"),
    "isl": _field("input_tokens"),
    "osl": _field("output_tokens"),
    "hits": _field("prefix_cache_hit"),
    "budget": lambda scenario, value, _: changed(scenario, {"policy.budget": value}),
    "confidence": lambda scenario, value, _: changed(scenario, {"policy.confidence": value}),
    "load": lambda scenario, value, _: changed(scenario, {"policy.max_slo_load": value}),
    "price": _price,
    "step": lambda scenario, value, _: assumed(scenario, "what_if", step_factor=value),
}
GEOMETRIC = ("qps", "concurrency", "ttft", "tpot", "e2e", "isl", "osl", "budget", "price", "step")
_READ: dict[str, Read] = {
    **dict.fromkeys(("ttft", "tpot", "e2e"), parse_duration_s),
    **dict.fromkeys(("quality", "confidence", "load", "hits"), parse_share),
    "budget": parse_usd_per_hour,
}
