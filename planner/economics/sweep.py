"""The cost staircase: the cheapest plan along one demand, price or limit (or two), and where another structure takes over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import numpy as np

from planner.catalog.catalog import Catalog
from planner.economics.change import with_policy, with_what_if, with_workload
from planner.economics.runs import HERE, Done, Where, answers, quietly
from planner.economics.store import Result
from planner.errors import ScenarioError, did_you_mean
from planner.plan import Plan
from planner.planning.known import Known
from planner.scenario.records import Scenario
from planner.scenario.units import format_duration, parse_duration_s, parse_share, parse_usd_per_hour

SWITCH_WIDTH = 0.005  # a switch is found to half a percent of the value (or of the range, on even scales)
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
    """A stretch of the staircase with one structure: from the first value where it is cheapest to the last that was asked.

    ``from_value`` is found to SWITCH_WIDTH; None in ``structure``: no plan.
    """

    from_value: float
    to_value: float
    structure: str | None
    usd_per_hour: tuple[float, float]


@dataclass(frozen=True)
class Sweep:
    """Answers at every combination of values, last axis fastest, and the steps along a single axis."""

    axes: tuple[Axis, ...]
    results: tuple[Result, ...]
    steps: tuple[Step, ...] = ()

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
    """The cheapest plan at every combination of values; along a single axis also the steps, their ends found by bisection.

    Raises ScenarioError where a value makes no valid scenario.
    """
    known = Known(catalog)
    questions = [_asked(scenario, axes, values) for values in product(*(a.values for a in axes))]
    results = answers(questions, catalog, where, done, known)
    steps = _steps(scenario, axes[0], results, known, where) if len(axes) == 1 else ()
    return Sweep(tuple(axes), tuple(results), steps)


def _asked(scenario: Scenario, axes: Sequence[Axis], values: Sequence[float]) -> Scenario:
    for a, v in zip(axes, values, strict=True):
        try:
            scenario = a.apply(scenario, v)
        except ValueError as error:
            raise ScenarioError(f"{a.name} cannot be {v:g}: {str(error).splitlines()[-1]}", "--over") from None
    return scenario


def structure(plan: Plan | None) -> str | None:
    """What a plan is made of, without counts: checkpoints, GPUs, layouts, providers."""
    if plan is None:
        return None
    parts = sorted({f"{d.checkpoint.split('/')[-1]} on {d.layout} {d.gpu}" for d in plan.deployments})
    return f"{' + '.join(parts)}, {' + '.join(sorted({p.provider for p in plan.purchases}))}"


def _steps(scenario: Scenario, a: Axis, results: Sequence[Result], known: Known, where: Where) -> tuple[Step, ...]:
    """Neighbours with one structure belong together; between others the first value of the new structure is bisected for."""
    names = [structure(r.plan) for r in results]
    switches = [i for i in range(1, len(names)) if names[i] != names[i - 1]]
    lows, highs = [a.values[i - 1] for i in switches], [a.values[i] for i in switches]
    span = a.values[-1] - a.values[0]
    while open_ := [k for k, (low, high) in enumerate(zip(lows, highs, strict=True)) if high - low > SWITCH_WIDTH * (high if a.is_geometric else span)]:
        middles = [a.middle(lows[k], highs[k]) for k in open_]
        found = answers([_asked(scenario, [a], [m]) for m in middles], known.catalog, where, known=known)
        for k, m, r in zip(open_, middles, found, strict=True):
            if structure(r.plan) == names[switches[k]]:  # a third structure in between counts to the step below
                highs[k] = m
            else:
                lows[k] = m
    starts = [0, *switches, len(names)]
    begins = [a.values[0], *highs]
    return tuple(
        Step(begin, a.values[end - 1], names[start], (results[start].cost, results[end - 1].cost))
        for begin, (start, end) in zip(begins, pairwise(starts), strict=True)
    )


def marginal(values: Sequence[float], results: Sequence[Result]) -> list[float | None]:
    """$/h per unit of the axis from each value to the next; None at the end and beside questions without a plan."""
    found: list[float | None] = [(b.cost - a.cost) / (y - x) if a.plan and b.plan else None for (x, a), (y, b) in pairwise(zip(values, results, strict=True))]
    return [*found, None]


def headroom_qps(plan: Plan, w: int = 0) -> float | None:
    """Requests/s of a workload that a plan's deployments carry within the limits, if they serve nothing else; None otherwise."""
    serving = {r.deployment for r in plan.workloads[w].routing}
    others = {r.deployment for v, x in enumerate(plan.workloads) if v != w for r in x.routing}
    if serving & others:
        return None
    return min(plan.workloads[w].qps * r.share / (plan.deployments[r.deployment].slo_load * r.share) for r in plan.workloads[w].routing)


# ---- what can be varied


def _rate(scenario: Scenario, value: float, _: str) -> Scenario:
    return with_workload(scenario, 0, qps=value, concurrency=None)


def _limit(metric: str) -> Callable[[Scenario, float, str], Scenario]:
    def apply(scenario: Scenario, value: float, _: str) -> Scenario:
        slo = scenario.workload[0].slo
        mine = [n for n in slo if n.startswith(f"{metric}_")] or [f"{metric}_p95"]
        return with_workload(scenario, 0, slo={**slo, **dict.fromkeys(mine, value)})

    return apply


def _field(name: str) -> Callable[[Scenario, float, str], Scenario]:
    return lambda scenario, value, _: with_workload(scenario, 0, **{name: value})


def _price(scenario: Scenario, value: float, gpu: str) -> Scenario:
    return with_what_if(scenario, price_factor={**scenario.what_if.price_factor, gpu or "all": value})


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
    "budget": lambda scenario, value, _: with_policy(scenario, budget=value),
    "confidence": lambda scenario, value, _: with_policy(scenario, confidence=value),
    "load": lambda scenario, value, _: with_policy(scenario, max_slo_load=value),
    "price": _price,
    "step": lambda scenario, value, _: with_what_if(scenario, step_factor=value),
}
GEOMETRIC = ("qps", "concurrency", "ttft", "tpot", "e2e", "isl", "osl", "budget", "price", "step")
_READ: dict[str, Read] = {
    **dict.fromkeys(("ttft", "tpot", "e2e"), parse_duration_s),
    **dict.fromkeys(("quality", "confidence", "load", "hits"), parse_share),
    "budget": parse_usd_per_hour,
}
