"""How much the answer moves: a tornado of each assumption, and how often today's choice stays best within the evidence's errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from planner.catalog.catalog import Catalog
from planner.economics.briefly import BriefPlan, brief_plan
from planner.economics.change import traffic_of
from planner.economics.runs import HERE, Done, Where, answers, quietly, side_by_side
from planner.economics.store import Result
from planner.economics.sweep import structure
from planner.errors import ScenarioError
from planner.result.plan import Plan
from planner.scenario.change import assumed, require_gpus_alone, with_workload
from planner.scenario.records import Scenario
from planner.scenario.slo import Slo
from planner.scenario.units import format_duration
from planner.search.survey_cache import SurveyCache

SWING = 0.2
DRAWS = 100
Z95 = 1.96


@dataclass(frozen=True)
class Blade:
    """One assumption moved down and up by the swing: the values, the plans' costs ($/h, None = no plan) and structures."""

    assumption: str
    low: str
    low_usd_per_hour: float | None
    low_structure: str | None
    high: str
    high_usd_per_hour: float | None
    high_structure: str | None

    @property
    def width(self) -> float:
        """Between the two costs; infinite where a side has no plan."""
        costs = (self.low_usd_per_hour, self.high_usd_per_hour)
        return abs(costs[1] - costs[0]) if costs[0] is not None and costs[1] is not None else float("inf")


@dataclass(frozen=True)
class Odds:
    """Re-solves under random draws of every configuration's prediction error.

    ``stays_best``: share of draws in which the plan's structure is the cheapest again, with half the width of its 95 % interval;
    ``holds``: share in which the plan as bought still meets its limits. ``costs``: $/h of the cheapest plan in each draw, sorted.
    """

    draws: int
    stays_best: float
    stays_best_error: float
    holds: float
    costs: tuple[float, ...]
    structures: tuple[tuple[str, int], ...]  # what is cheapest, and in how many draws; most often first


@dataclass(frozen=True)
class Sensitivity:
    """The plan, its tornado (widest blade first) and, if draws were asked for, its odds."""

    plan: Plan
    blades: tuple[Blade, ...]
    odds: Odds | None = None


def sensitivity(scenario: Scenario, catalog: Catalog, *, swing: float = SWING, draws: int = 0, where: Where = HERE, done: Done = quietly) -> Sensitivity:
    """Every assumption by ± ``swing`` on its own, and ``draws`` random draws of the errors of predictions.

    Raises ScenarioError where the scenario itself has no plan.
    """
    require_gpus_alone(scenario, "a tornado")
    cache = where.cache(catalog)
    names, questions = _moves(scenario, swing)
    wanted = [scenario, *questions, *(assumed(scenario, "what_if", draw=i) for i in range(draws))]
    results = answers(wanted, catalog, where, done, cache)
    plan = results[0].plan
    if plan is None:
        raise ScenarioError(results[0].why.removeprefix("infeasible: "), "scenario", "plan it first, for what would make it feasible")
    moved, drawn = results[1 : 1 + len(questions)], results[1 + len(questions) :]
    return Sensitivity(plan, _tornado(names, [r.plan for r in moved]), odds(plan, drawn) if draws else None)


def tornado(scenario: Scenario, plan: Plan, cache: SurveyCache, workers: int = 0, done: Done = quietly) -> Sensitivity:
    """The same without draws, of a plan that is known: what others cost is found, but they are neither described nor checked a second time."""
    names, questions = _moves(scenario, SWING)
    return Sensitivity(plan, _tornado(names, side_by_side(lambda s: brief_plan(s, cache, with_service=False), questions, workers, done)))


def moves(scenario: Scenario) -> int:
    """Plans that a study asks for beside the scenario's own, without draws."""
    return len(_moves(scenario, SWING)[1])


def _tornado(names: Sequence[tuple[str, tuple[str, str]]], moved: Sequence[Plan | BriefPlan | None]) -> tuple[Blade, ...]:
    """A blade of each assumption by its two plans, low and high after each other; the widest first."""
    told = [(_cost(p), structure(p)) for p in moved]
    blades = (Blade(name, texts[0], *told[2 * i], texts[1], *told[2 * i + 1]) for i, (name, texts) in enumerate(names))
    return tuple(sorted(blades, key=lambda b: -b.width))


def _cost(plan: Plan | BriefPlan | None) -> float | None:
    """$/h; None where there is no plan."""
    return plan.cost.usd_per_hour if isinstance(plan, Plan) else plan.usd_per_hour if plan else None


def _moves(scenario: Scenario, swing: float) -> tuple[list[tuple[str, tuple[str, str]]], list[Scenario]]:
    """Assumptions with their two values in words, and the questions, low and high after each other."""
    found = [m for w in range(len(scenario.workload)) for m in _workload_moves(scenario, w)]
    prices, steps = scenario.what_if.price_factor, scenario.what_if.step_factor
    found.append(Move("all prices", lambda f: assumed(scenario, "what_if", price_factor={**prices, "all": prices.get("all", 1.0) * f}), "x{:g}".format))
    found.append(Move("step times", lambda f: assumed(scenario, "what_if", step_factor=steps * f), "x{:g}".format))
    ends = (1 - swing, 1 + swing)
    return [(m.name, (m.text(ends[0]), m.text(ends[1]))) for m in found], [m.change(f) for m in found for f in ends]


@dataclass(frozen=True)
class Move:
    """One assumption: the scenario with it times a factor, and how that reads."""

    name: str
    change: Callable[[float], Scenario]
    text: Callable[[float], str]


def _workload_moves(scenario: Scenario, w: int) -> list[Move]:
    """Traffic, lengths, limits and cache hits of one workload."""
    workload = scenario.workload[w]
    label = f"{workload.name} " if len(scenario.workload) > 1 else ""
    traffic, _, amount = traffic_of(workload)
    fields = (traffic, traffic, amount), ("prompt tokens", "input_tokens", workload.input_tokens), ("answer tokens", "output_tokens", workload.output_tokens)
    found = [Move(label + what, _field(scenario, w, name, value), _times(value)) for what, name, value in fields]
    for slo in workload.limits:
        found.append(Move(label + slo.words, _limit(scenario, w, slo), _duration(slo.seconds)))
    if workload.prefix_cache_hit:
        found.append(Move(f"{label}prefix cache hits", _hits(scenario, w), _times(workload.prefix_cache_hit)))
        none, rate = with_workload(scenario, w, prefix_cache_hit=0.0), f"{workload.prefix_cache_hit:.5g}"  # no swing reaches a cache that never hits
        found.append(Move(f"{label}no prefix cache hits", lambda f: none if f < 1 else scenario, lambda f: "0" if f < 1 else rate))
    return found


def _times(value: float) -> Callable[[float], str]:
    return lambda f: f"{value * f:.5g}"


def _duration(seconds: float) -> Callable[[float], str]:
    return lambda f: format_duration(float(f"{seconds * f:.4g}"))


def _field(scenario: Scenario, w: int, name: str, value: float) -> Callable[[float], Scenario]:
    return lambda f: with_workload(scenario, w, **{name: value * f})


def _limit(scenario: Scenario, w: int, limit: Slo) -> Callable[[float], Scenario]:
    return lambda f: with_workload(scenario, w, slo={**scenario.workload[w].slo, limit.name: limit.seconds * f})


def _hits(scenario: Scenario, w: int) -> Callable[[float], Scenario]:
    return lambda f: with_workload(scenario, w, prefix_cache_hit=min(scenario.workload[w].prefix_cache_hit * f, 0.99))


def odds(plan: Plan, drawn: Sequence[Result]) -> Odds:
    """What the draws say about a plan. Errors are those of the same architecture, precision, GPU and engine together."""
    ours, names = structure(plan), [structure(r.plan) or "no plan" for r in drawn]
    share = names.count(ours or "") / len(drawn)
    holds = sum(r.plan is not None and structure(r.plan) == ours and _size(r.plan) <= _size(plan) for r in drawn)
    same = max(names.count(ours or ""), 1)
    error = Z95 * (share * (1 - share) / len(drawn)) ** 0.5
    costs = tuple(sorted(r.cost for r in drawn if r.plan))
    return Odds(len(drawn), share, error, holds / same, costs, tuple(Counter(names).most_common()))


def _size(plan: Plan) -> int:
    return sum(d.replicas for d in plan.deployments)
