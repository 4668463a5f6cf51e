"""All that a capacity review is shown of a question: one record, gathered here, that every form of the report is written from.

A part that cannot be made, or is not wanted, is left out by its name with the reason: nothing is missing without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from time import perf_counter
from typing import Literal, TypeVar, get_args

from planner.catalog.catalog import Catalog
from planner.economics.briefly import BriefPlan, brief_plan
from planner.economics.compare import Compared
from planner.economics.curve import CostCurve, UserLimits, cost_curve
from planner.economics.frontier import LATENCIES, Along, Frontier, frontier
from planner.economics.outage import Outage, outages
from planner.economics.runs import Done, Where, answer_one, answers, has_open, quietly, side_by_side
from planner.economics.sensitivity import Sensitivity, moves, sensitivity, tornado
from planner.economics.sweep import headroom
from planner.economics.whatif import WhatIf, cells, what_if, what_if_axes
from planner.errors import PlannerError
from planner.result.plan import Deployment, Plan
from planner.scenario.change import assumed, with_workload
from planner.scenario.profiles import flat
from planner.scenario.records import Scenario
from planner.search.survey_cache import SurveyCache

PartName = Literal["prudent", "frontier", "curve", "staircase", "failure", "sensitivity", "what-if"]
PARTS: tuple[PartName, ...] = get_args(PartName)
GRID = (5, 4, 3)  # rates, floors and limits on TTFT of the grid, unless asked otherwise
STEPS = range(5, 41)  # twentieths of the traffic asked for, at which the staircase is looked up
FEWEST_STEPS = 8
PATIENCE_S = 30.0  # longest that one part may be expected to take
THIRD = (0.6, 1.0, 1.5)  # multiples of the latency limit that a frontier is drawn along
POINTS = 8  # of a frontier, about
ANEW = 4.0  # times as long takes a plan in brief whose candidates are looked at anew
NOT_WANTED = "not asked for"
OF_APIS = "studies are of fleets alone, and APIs may serve here (plan api-vs-fleet)"
BY_THE_HOUR = "the plan follows the hours; studies hold one rate all day"
OF_OWN = "the plan is of one's own numbers, not of the catalogue"

T = TypeVar("T")
Tell = Callable[[str], None]
Watch = Callable[[str], Done]  # by a part's words: what is told how far it is


@dataclass(frozen=True)
class Stair:
    """The cheapest plan at one traffic; None: there is none."""

    traffic: float
    plan: BriefPlan | None


@dataclass(frozen=True)
class Staircase:
    """Cost along the traffic of the first workload. ``carries``: the traffic up to which the plan itself does, within its limits; None: not known."""

    unit: str
    now: float
    carries: float | None
    stairs: tuple[Stair, ...]


@dataclass(frozen=True)
class Review:
    """A plan with everything that it is judged by. What is None or empty stands in ``left_out`` with the reason; ``seconds`` it took by part."""

    plan: Plan
    catalog_hash: str  # of the studies; a saved plan may be of another catalogue
    prudent: Plan | None = None
    frontier: Frontier | None = None
    curve: CostCurve | None = None
    staircase: Staircase | None = None
    failures: tuple[Outage, ...] = ()
    sensitivity: Sensitivity | None = None
    compared: tuple[Compared, ...] = ()
    what_if: WhatIf | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Wanted:
    """What to gather: all parts but some; the size of the what-if grid (None: the usual one); and the longest that a part may be expected to take, beyond
    which it is made smaller or left out (a grid of a size that was asked for is made at any rate)."""

    without: Collection[str] = ()
    grid: tuple[int, int, int] | None = None
    patience_s: float = PATIENCE_S


def review(plan: Plan, catalog: Catalog | None, wanted: Wanted, where: Where, tell: Tell, watch: Watch = lambda _: quietly) -> Review:
    """A plan with everything that it is judged by; ``tell`` hears what takes time before it is begun."""
    whole = BY_THE_HOUR if plan.periods else OF_OWN if catalog is None or plan.kind == "own" else OF_APIS if plan.scenario.policy.api != "none" else ""
    if whole or catalog is None:
        return Review(plan, plan.catalog_hash, left_out=dict.fromkeys(PARTS, whole))
    g = _Gathering(plan, catalog, wanted, replace(where, surveys=where.cache(catalog)), tell, watch)
    prudent = g.part("prudent", g.prudent)
    known = g.part("frontier", g.frontier)
    return Review(
        plan,
        catalog.hash,
        prudent=prudent,
        frontier=known,
        curve=g.part("curve", g.curve),
        staircase=g.part("staircase", g.staircase),
        failures=g.part("failure", lambda: g.failures(prudent)) or (),
        sensitivity=g.part("sensitivity", g.sensitivity),
        what_if=g.part("what-if", lambda: g.grid(known)),
        left_out=g.left_out,
        seconds=g.seconds,
    )


class _LeftOut(PlannerError):
    """Why a part is not made, where that is no error."""


class _Gathering:
    """The parts of one review; what is left out and how long the others took is noted as they are made."""

    def __init__(self, plan: Plan, catalog: Catalog, wanted: Wanted, where: Where, tell: Tell, watch: Watch) -> None:
        self.plan, self.catalog, self.wanted, self.where, self.tell, self.watch = plan, catalog, wanted, where, tell, watch
        self.scenario: Scenario = flat(plan.scenario)
        self.cache = where.cache(catalog)
        self.left_out: dict[str, str] = {}
        self.seconds: dict[str, float] = {}
        self.timed: dict[object, float] = {}

    def part(self, name: PartName, make: Callable[[], T]) -> T | None:
        """What ``make`` makes; None, with the reason noted, where it is not wanted or cannot be."""
        if name in self.wanted.without:
            self.left_out[name] = NOT_WANTED
            return None
        begun = perf_counter()
        try:
            return make()
        except PlannerError as error:
            self.left_out[name] = " ".join(str(error).split())
            return None
        finally:
            self.seconds[name] = perf_counter() - begun

    def prudent(self) -> Plan:
        """The plan fit to sign."""
        if self.plan.scenario.policy.prudent:
            raise _LeftOut("the plan itself is the prudent one")
        (found,) = answers([assumed(self.scenario, "policy", prudent=True)], self.catalog, self.where)
        if found.plan is None:
            raise _LeftOut(found.why or "no plan survives what --prudent asks")
        return found.plan

    def frontier(self) -> Frontier:
        """Cost and quality, with the latency that binds the plan as the third axis."""
        limited = [s.metric for s in self.scenario.workload[0].limits if s.metric in LATENCIES]
        serving = [self.plan.deployments[x.deployment] for x in self.plan.workloads[0].routing]
        binding = [m for m in limited if any(d.binding_limit.startswith(f"{m.upper()} ") for d in serving)]
        also, each = next(iter((*binding, *limited)), ""), self.seconds_each(answer_one) * POINTS
        if also and not self.is_short(each * len(THIRD)):
            also = ""
        self.refuse_long(each)
        found = frontier(self.scenario, self.catalog, also=Along(also, THIRD), where=self.where, done=self.watch("frontier"))
        if not found.points:
            raise _LeftOut("no plan at any quality")
        return found

    def curve(self) -> CostCurve:
        """The cost curve of one replica of the deployment that costs most."""
        from planner.validation.single import AskedConfiguration

        d = max(self.plan.deployments, key=lambda x: x.usd_per_hour)
        if d.prefill_engines or d.evidence is None:
            raise _LeftOut("curves are of one engine that does both prompts and answers")
        isl, osl = _lengths(self.plan, d)
        draft = "mtp" if d.speculative else ""
        asked = AskedConfiguration(
            d.checkpoint, d.gpu, d.tp, d.pp, d.dp, d.ep, d.kv_cache_dtype, d.engine, isl, osl, (1,), d.evidence.confidence, draft
        )  # fmt: skip
        return cost_curve(asked, self.catalog, usd_per_gpu_hour=d.usd_per_hour / d.gpus, limits=_limits(self.plan, d))

    def staircase(self) -> Staircase:
        """Cost along the first workload's traffic, from a quarter of it to twice as much."""
        first = self.scenario.workload[0]
        self._refuse_open()
        each = self.seconds_each(brief_plan)
        self.refuse_long(each * FEWEST_STEPS)
        count = len(STEPS) if self.is_short(each * len(STEPS)) else max(int(self.wanted.patience_s / each), FEWEST_STEPS)
        every = ceil(len(STEPS) / count)
        carries = headroom(self.plan)
        edge = {float(f"{carries * (1 - 1e-4):.6g}")} if carries is not None and carries < 2 * first.rate else set()  # the last that this plan does
        traffic = sorted({first.rate, *edge, *(float(f"{first.rate * i / 20:.6g}") for i in STEPS if i % every == 0)})
        questions = [with_workload(self.scenario, 0, **{first.rate_field: t}) for t in traffic]
        found = side_by_side(lambda s: brief_plan(s, self.cache, with_service=False), questions, self.where.workers, self.watch("staircase"))
        stairs = tuple(Stair(t, p) for t, p in zip(traffic, found, strict=True))
        return Staircase("in flight" if first.is_closed else "req/s", first.rate, carries, stairs)

    def failures(self, prudent: Plan | None) -> tuple[Outage, ...]:
        """One failure, of this plan and of the prudent one."""
        return outages([("cheapest", self.plan), *([("prudent", prudent)] if prudent else [])], self.catalog)

    def sensitivity(self) -> Sensitivity:
        """Every assumption by a fifth."""
        self.refuse_long(self.seconds_each(brief_plan) * ANEW * moves(self.scenario))
        if has_open(self.scenario):
            return sensitivity(self.scenario, self.catalog, where=self.where, done=self.watch("sensitivity"))
        return tornado(self.scenario, self.plan, self.cache, self.where.workers, self.watch("sensitivity"))

    def grid(self, known: Frontier | None) -> WhatIf:
        """The what-if grid; its size and time are told first."""
        self._refuse_open()
        axes = what_if_axes(self.scenario, self.wanted.grid or GRID, known)
        count = cells(axes)
        seconds = count * self.seconds_each(brief_plan)
        if self.wanted.grid is None:
            self.refuse_long(seconds)
        size = " x ".join(str(len(a.values)) for a in axes)
        self.tell(f"what-if: {count} plans ({size} of {', '.join(a.words for a in axes)}), about {max(round(seconds), 1)} s")
        return what_if(self.scenario, axes, self.cache, self.where, self.watch("what-if"))

    def seconds_each(self, ask: Callable[[Scenario, SurveyCache], object]) -> float:
        """How long one plan takes with its candidates already there: the scenario's own, timed once."""
        if ask not in self.timed:
            ask(self.scenario, self.cache)
            begun = perf_counter()
            ask(self.scenario, self.cache)
            self.timed[ask] = perf_counter() - begun
        return self.timed[ask]

    def is_short(self, seconds: float) -> bool:
        """Whether so much time is not too much for one part."""
        return seconds <= self.wanted.patience_s

    def refuse_long(self, seconds: float) -> None:
        """Leaves the part out where it would take too long."""
        if not self.is_short(seconds):
            raise _LeftOut(f"it would take about {ceil(seconds)} s (ask for it with --patience {ceil(seconds)}s)")

    def _refuse_open(self) -> None:
        first = self.scenario.workload[0]
        if first.route_by or (first.demand and first.demand.is_open):
            raise _LeftOut("the first workload's rate follows from its users or is split by length, so it is not varied by itself")


def _lengths(plan: Plan, d: Deployment) -> tuple[int, int]:
    """Mean tokens of prompts and of answers as its model makes them, over the requests that a deployment serves."""
    at = plan.deployments.index(d)
    served = [(r.qps, w, r.tokens_per_stated) for w in plan.workloads for r in w.routing if r.deployment == at]
    total = sum(q for q, _, _ in served)
    prompts, texts = (
        sum(q * (of or 0.0) * t for q, of, t in rows) / total
        for rows in ([(q, w.input_tokens, t) for q, w, t in served], [(q, w.output_tokens, t * d.output_factor) for q, w, t in served])
    )
    return max(round(prompts), 1), max(round(texts), 1)


def _limits(plan: Plan, d: Deployment) -> UserLimits:
    """The strictest limits of the workloads that a deployment serves, as limits on means; the usual ones where there are none."""
    at, usual = plan.deployments.index(d), UserLimits()
    slo = [s for w in plan.workloads for s in w.slo if any(r.deployment == at for r in w.routing)]
    pace = min((s.limit_ms for s in slo if s.metric == "tpot"), default=1e3 / usual.min_tps_per_user)
    first = min((s.limit_ms for s in slo if s.metric == "ttft"), default=1e3 * usual.max_ttft_s)
    return UserLimits(1e3 / pace, first / 1e3)
