"""Autoscaled plans: which candidates serve over all hours of a day or week, and how many replicas and instances are held in each.

Structures come in the order of a bound (structures.py); the program over hours (program/periods.py) prices them until the rest is known to be
dearer. Nothing is returned unless the independent check (check/periods.py) agrees, hour by hour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import numpy as np

from planner.candidates.columns import Market, market, market_at_any_rate
from planner.candidates.offers import allowed, with_known_names
from planner.candidates.points import Points
from planner.candidates.pooling import pool_capacity
from planner.candidates.survey import Survey, slots_of, survey
from planner.catalog.catalog import Catalog
from planner.catalog.load import load_catalog
from planner.catalog.records import Offer
from planner.deadline import Deadline
from planner.errors import ScenarioError, SolverError, TimeUp
from planner.performance.coefficients import TIERS
from planner.planning.infeasible import Infeasible, demands_in_words, explain
from planner.planning.solve import solve
from planner.program.periods import PeriodPool, PeriodProblem, PeriodSolution, Waiting, cheapest_hours
from planner.program.problem import ChosenPool, Pool, Solution
from planner.program.solver import Limits
from planner.result import cautions, remarks
from planner.result.assemble import assemble
from planner.result.hourly import Hour, HourlyCount, HourlyOffer, HourlyPlan, HourlyWorkload
from planner.result.plan import HostedOn, Plan
from planner.scenario.apply import catalog_for
from planner.scenario.profiles import DAY, flat, hourly_rates
from planner.scenario.records import Policy, Scenario, Workload
from planner.scenario.sources import Origins
from planner.search.answer import Answer, answer
from planner.search.apart import crowded, in_words, kept_apart
from planner.search.prudent import careful, posture, reached, serves_all
from planner.search.structures import Block, Field, Floats, Idle, Ints, Structure
from planner.version import planner_version

GAP = 0.01  # an autoscaled plan counts as optimal within 1 %, or --gap where that is wider: profiles are known no better
WEEK = 7 * DAY
NO_TIME = "no flat plan was found within the time limit"
FLAT_UNPROVEN = (
    "the search for the flat plan was stopped by the time limit: there may be a cheaper one, and less be saved by the hour than stated (raise --time-limit)"
)
SETTLING = 0.5  # of the time limit, for the rate of users who wait for answers
BASELINE_SHARE = 0.4  # of the time limit, for the flat plan it is compared with
MOST_WORKLOADS = 6  # with a rate: groups of them are enumerated
ASSUMPTIONS = (
    "Instances are paid by the hour held, on demand, and started and returned at full hours; what they take to start is paid in addition.",
    "The hours repeat: after the last comes the first. The same candidates serve in every hour, one deployment per workload or group of workloads.",
)
BESIDE = (
    "Waiting requests run beside others at lower priority (vLLM: --scheduling-policy priority; SGLang: --enable-priority-scheduling), "
    "within the strictest limits on TPOT and ITL of any workload."
)


@dataclass(frozen=True)
class Question:
    """An hourly question made ready: workloads with rates first (``steady`` of them), then the waiting ones alone, then beside others."""

    scenario: Scenario  # as asked
    expanded: Scenario  # flat: what candidates are surveyed for
    rates: Floats  # [workload with a rate, hour] of peaks
    order: tuple[int, ...]  # of the scenario's workloads: those with rates, then those that wait
    steady: int
    idle: tuple[Idle, ...]

    @property
    def hours(self) -> int:
        """How many there are."""
        return int(self.rates.shape[1])


def autoscale(scenario: Scenario, catalog: Catalog | None = None, *, origins: Origins | None = None) -> HourlyPlan:
    """The cheapest plan by the hour, checked independently before it is returned.

    Raises Infeasible when nothing meets all demands, CatalogError and ScenarioError for unusable input, SolverError when no plan was
    found in time or a plan fails its check.
    """
    if scenario.tables.capacities or scenario.objective.maximize:
        what = "tables" if scenario.tables.capacities else "objective.maximize"
        raise ScenarioError("plans by the hour, such as those of requests that may wait, need the catalogue and a demand", what)
    catalog, deadline = catalog or load_catalog(scenario.catalog), Deadline.after(scenario.solver.time_limit)
    settling, is_open = deadline.share(SETTLING), any(w.demand and w.demand.is_open for w in scenario.workload)
    scenario = careful(with_known_names(_settled(scenario, catalog, settling), catalog))
    late = [cautions.UNSETTLED] if is_open and settling.passed() else []
    asked = question(scenario)
    supposed = catalog_for(catalog, scenario)
    points = Points(survey(asked.expanded, supposed, allowed(supposed.offers, scenario.supply, supposed.newest_price)), deadline)
    is_stated = scenario.policy.evidence != TIERS[-1]
    scenario = scenario.model_copy(update={"policy": reached(points, asked.expanded, serves_all).policy})
    asked = question(scenario)
    points = points.asked(asked.expanded, points.survey.offers)
    baseline, unsearched = _flat_answers(points, asked)
    whole = market_at_any_rate(points, asked.expanded)
    slots, apart = _slots(points.survey, whole), frozenset[frozenset[int]]()
    while True:
        field = Field(whole, asked.rates, slots, asked.idle, apart)
        found = _search(field, asked, sum(a.cost for a in baseline) if baseline and not asked.idle else inf)
        if found is None:
            raise _infeasible(points, asked)
        more = _spoiled(found, field, asked, points.survey) - apart
        if not more:
            break
        apart |= more
    plan = _assembled(found, field, asked, points.survey, baseline, origins or {})
    late += [cautions.unlooked(whole.unsettled)] if whole.unsettled else []
    told = {
        "notes": (*posture(scenario, is_stated), *in_words(apart, asked.expanded), *plan.notes),
        "warnings": (*late, *unsearched, *plan.warnings),
    }
    plan = plan.model_copy(update=told | ({} if baseline or not unsearched else {"flat": NO_TIME}))
    return _checked(plan, catalog)


def _settled(scenario: Scenario, catalog: Catalog, deadline: Deadline) -> Scenario:
    """The scenario with workloads split where they are routed by length, and the rate of users who wait for answers settled."""
    if any(w.route_by for w in scenario.workload):
        from planner.planning.routing import split

        scenario = split(scenario)
    if any(w.demand and w.demand.is_open for w in scenario.workload):
        from planner.planning.users import settled

        scenario = settled(scenario, lambda asked: solve(asked, catalog, compare=False, deadline=deadline).workloads)
    return scenario


def question(scenario: Scenario) -> Question:
    """The scenario by hours. Raises ScenarioError."""
    rates = hourly_rates(scenario)
    steady = [w for w, workload in enumerate(scenario.workload) if workload.requests_per_day is None]
    waiting = [w for w in range(len(scenario.workload)) if w not in steady]
    if len(steady) > MOST_WORKLOADS:
        raise ScenarioError(f"{len(steady)} workloads with rates are too many to plan by the hour", "workload", f"at most {MOST_WORKLOADS}")
    level = [_with_floor(w) for w in flat(scenario).workload]
    beside = [level[w].model_copy(update={"name": f"{level[w].name} beside others"}) for w in waiting]
    alone = [level[w].model_copy(update={"slo": scenario.workload[w].slo}) for w in waiting]
    parts = (*(level[w] for w in steady), *alone, *beside)
    bursts = np.array([scenario.workload[w].burst_factor for w in steady])
    idle = tuple(
        Idle(len(steady) + i, len(steady) + len(waiting) + i, windows(scenario.workload[w], rates.shape[1]), scenario.workload[w].requests_per_day or 0.0)
        for i, w in enumerate(waiting)
    )
    expanded = scenario.model_copy(update={"workload": parts})
    return Question(scenario, expanded, rates[steady] * bursts[:, None], (*steady, *waiting), len(steady), idle)


def _slots(surveyed: Survey, whole: Market) -> Ints:
    """[candidate, workload] most requests in service on its GPUs."""
    rows, tokens = (np.array([getattr(c.point, x) for c in whole.candidates], dtype=np.int64) for x in ("row", "max_num_batched_tokens"))
    found = np.zeros((len(rows), len(surveyed.physics)), dtype=np.int64)
    for size in np.unique(tokens).tolist():
        here = np.flatnonzero(tokens == size)
        found[here] = np.stack([slots_of(surveyed, w, rows[here], size) for w in range(len(surveyed.physics))], axis=1)
    return found


def windows(workload: Workload, hours: int) -> tuple[tuple[int, ...], ...]:
    """For each day the hours in which its waiting requests may be done; a window that passes midnight goes on in the next day."""
    first = workload.hours[0]
    return tuple(tuple((DAY * day + first + i) % hours for i in range(len(workload.hours))) for day in range(hours // DAY))


def _with_floor(workload: Workload) -> Workload:
    """One deployment serves all of a workload, so a floor on the mean is a floor."""
    floors = [q for q in (workload.min_quality, workload.mean_quality) if q is not None]
    return workload.model_copy(update={"min_quality": max(floors, default=None), "mean_quality": None}) if workload.mean_quality is not None else workload


# ---- the search


@dataclass(frozen=True)
class Found:
    """The best structure with its counts; ``bound`` holds for all structures."""

    structure: Structure
    pools: tuple[Block, ...]  # of the structure, then those of waiting work alone (workloads: its column in the market)
    solution: PeriodSolution
    offers: tuple[int, ...]  # of the market, by index of the solution
    bound: float
    solved: int


def _search(field: Field, asked: Question, flat_usd_per_hour: float) -> Found | None:
    """Structures by rising bound, until the bound of the rest reaches the best found, which must not be dearer than the flat plan.

    Raises SolverError when time is up without a plan.
    """
    solver = asked.scenario.solver
    gap, deadline = max(solver.gap, GAP), field.market.deadline
    policy = asked.scenario.policy
    best: Found | None = None
    ceiling = inf if policy.budget is None else policy.budget * asked.hours * (1 + policy.startup_lead / 3600) * (1 + 1e-6)
    unproven, solved, late = inf, 0, False
    for bound, structure in field.cheapest_first():
        top = best.solution.cost if best else ceiling
        late, enough = deadline.passed(), gap if top <= flat_usd_per_hour * asked.hours * (1 + 1e-9) else 0.0
        if bound >= top * (1 - enough) or late:
            unproven = min(unproven, bound)
            break
        if structure is None:
            continue
        found = _priced(field, asked, structure, Limits(gap / 4, deadline.left(), solver.seed))
        solved += 1
        if asked.idle:  # only some candidates for waiting work alone were tried
            unproven = min(unproven, bound)
        elif found.solution.status != "infeasible":
            unproven = min(unproven, max(bound, found.solution.bound))
        if found.solution.cost < top:
            best = found
    if best is None and late:
        raise TimeUp()
    bound = 0.0 if field.market.unsettled else unproven
    return replace(best, bound=min(bound, best.solution.cost), solved=solved) if best else None


def _priced(field: Field, asked: Question, structure: Structure, limits: Limits) -> Found:
    """The cheapest counts of one structure."""
    place, columns = field.places[structure.place], field.market.problem.columns
    own = tuple(Block((work.alone,), c) for work in asked.idle for c in _own_candidates(field, structure.place, work))
    blocks = (*structure.blocks, *own)
    used = sorted({o for b in blocks for o in columns[b.candidate].offers if o in set(place.offers)})
    index = {o: i for i, o in enumerate(used)}
    policy = asked.scenario.policy
    pools = tuple(
        PeriodPool(
            columns[b.candidate].gpus,
            tuple(index[o] for o in columns[b.candidate].offers if o in index),
            tuple(int(n) for n in field.need(b)) if i < len(structure.blocks) else (0,) * asked.hours,
            tuple(field.shared_load(b.candidate, b.workloads).tolist()) if i < len(structure.blocks) else (),
            policy.spare_replicas,
        )
        for i, b in enumerate(blocks)
    )
    problem = PeriodProblem(
        pools,
        tuple(field.market.problem.offers[o] for o in used),
        asked.hours,
        policy.startup_lead / 3600,
        policy.min_up_periods,
        tuple(_waiting(field, work, blocks, len(structure.blocks)) for work in asked.idle),
        field.market.problem.rules,
    )
    return Found(structure, blocks, cheapest_hours(problem, limits), tuple(used), 0.0, 0)


def _waiting(field: Field, work: Idle, blocks: Sequence[Block], steady: int) -> Waiting:
    """Where waiting work may run: beside every deployment fit for it, or on replicas of its own."""
    beside = {p: field.beside_per_hour(b, work) for p, b in enumerate(blocks[:steady])}
    own = {steady + i: field.alone_per_hour(b.candidate, work) for i, b in enumerate(blocks[steady:]) if b.workloads == (work.alone,)}
    return Waiting(work.windows, (work.amount,) * len(work.windows), {p: c for p, c in (beside | own).items() if c > 0}, tuple(own))


def _own_candidates(field: Field, place: int, work: Idle) -> list[int]:
    """Candidates for waiting work alone: least cost per request, least cost of one replica, and least cost of all of it."""
    able = [c for c in range(len(field.gpus)) if np.isfinite(field.alone_cost(place, c, work))]
    replica = {c: float(field.gpus[c] * field.prices[c, place]) for c in able}
    measures = (lambda c: replica[c] / field.alone_per_hour(c, work), lambda c: replica[c], lambda c: field.alone_cost(place, c, work))
    return sorted({min(able, key=measure) for measure in measures}) if able else []


# ---- the flat plan it is compared with


def _flat_answers(points: Points, asked: Question) -> tuple[list[Answer], list[str]]:
    """The cheapest plan that holds the peaks all day: waiting work at an even rate beside the others, or each on a fleet of its own.

    Empty where there is none, or none was found in time. Beside it what the time limit left out, in words.
    """
    steady = tuple(range(asked.steady))
    apart = [*([steady] if steady else []), *((work.alone,) for work in asked.idle)]
    ways = [apart] + ([[(*steady, *(work.beside for work in asked.idle))]] if steady and asked.idle else [])
    deadline = points.deadline.share(BASELINE_SHARE)
    try:
        found = [[kept_apart(Points(part := _restricted(points.survey, kept), deadline), part.scenario)[0] for kept in way] for way in ways]
    except TimeUp:
        return [], [f"{NO_TIME}: nothing is compared (raise --time-limit)"]
    best = min((way for way in found if all(a.found for a in way)), key=lambda way: sum(a.cost for a in way), default=list[Answer]())
    if all(a.solution.status in ("optimal", "infeasible") for way in found for a in way):
        return best, []
    return best, [FLAT_UNPROVEN if best else f"{NO_TIME}: nothing is compared (raise --time-limit)"]


def _infeasible(points: Points, asked: Question) -> Infeasible:
    """Why nothing serves all hours: what is true of the peaks, where they have no plan either."""
    part = _restricted(points.survey, (*range(asked.steady), *(work.alone for work in asked.idle)))
    found = answer(market(Points(part, points.deadline), part.scenario))
    if found.solution.status == "infeasible":
        return explain(Points(part, points.deadline), part.scenario, found)
    return Infeasible(f"{demands_in_words(part.scenario)} cannot all be met by the hour", (), part.excluded + found.market.excluded)


def _restricted(whole: Survey, kept: Sequence[int]) -> Survey:
    """The survey of some of its workloads. Rows keep their places."""

    def pick(values: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(values[w] for w in kept)

    scenario = whole.scenario.model_copy(update={"workload": pick(whole.scenario.workload)})
    eligible = tuple(
        replace(e, why=pick(e.why), quality=pick(e.quality), factor=pick(e.factor), tokens=pick(e.tokens), near=pick(e.near)) for e in whole.eligible
    )
    shapes = tuple(replace(s, factors=pick(s.factors), tokens=pick(s.tokens)) for s in whole.shapes)
    return replace(whole, scenario=scenario, eligible=eligible, shapes=shapes, physics=pick(whole.physics))


# ---- what is reported


def _assembled(found: Found, field: Field, asked: Question, surveyed: Survey, baseline: Sequence[Answer], origins: Origins) -> HourlyPlan:
    """The plan of a search."""
    scenario, solution, whole = asked.scenario, found.solution, field.market
    used = [p for p in range(len(found.pools)) if any(solution.replicas[p])]
    order = sorted(used, key=lambda p: -sum(sum(h.values()) for h in solution.replicas[p]) * whole.problem.columns[found.pools[p].candidate].gpus)
    held = sorted({o for h in solution.held for o in h})
    place = {o: i for i, o in enumerate(held)}
    price = [whole.offers[found.offers[o]].usd_per_hour for o in held]
    lead = scenario.policy.startup_lead / 3600
    periods = tuple(_hour(t, found, field, asked, order, place, price, lead) for t in range(asked.hours))
    usd = sum(h.usd for h in periods)
    flat_cost = sum(a.cost for a in baseline) if baseline else None
    plans = tuple(_alone(p, found, field, asked, surveyed, origins) for p in order)
    bound, waiting = min(found.bound, usd), [w.name for w in scenario.workload if w.requests_per_day is not None]
    gap = (usd - bound) / usd if usd else 0.0
    return HourlyPlan(
        planner_version=planner_version(),
        catalog_hash=surveyed.catalog.hash,
        scenario={**scenario.model_dump(mode="json"), "origins": dict(sorted(origins.items()))},
        status="optimal" if gap <= max(GAP, scenario.solver.gap) + 1e-9 else "feasible",
        gap=gap,
        bound_usd=bound,
        hours=asked.hours,
        usd=usd,
        startup_usd=lead * sum(c * n for h in periods for c, n in zip(price, h.started, strict=True)),
        usd_per_day=usd * DAY / asked.hours,
        usd_per_week=usd * WEEK / asked.hours,
        flat_usd_per_hour=flat_cost,
        flat=" + ".join(_in_words(a) for a in baseline) or "no flat plan within the limits",
        saving=None if flat_cost is None else 1 - usd / asked.hours / flat_cost,
        offers=tuple(_offer(whole.offers[found.offers[o]], max(h.get(o, 0) for h in solution.held)) for o in held),
        workloads=tuple(_workload(asked, i, found, order) for i in np.argsort(asked.order)),
        periods=periods,
        plans=plans,
        structures=found.solved,
        defaults=remarks.defaults(scenario, origins),
        assumptions=(*ASSUMPTIONS, *((BESIDE,) if asked.idle and asked.steady else ())),
        warnings=tuple(dict.fromkeys(w for p in plans for w in (*cautions.queueing(p, waiting), *p.warnings))),
        notes=_notes(scenario),
    )


def _notes(scenario: Scenario) -> tuple[str, ...]:
    p, notes = scenario.policy, []
    if p.max_locations > 1:
        notes.append("all is bought at one location, though more are allowed")
    if p.mix or p.max_pools not in (None, 1):
        notes.append("one deployment serves a workload, though more are allowed")
    return tuple(notes)


def _hour(t: int, found: Found, field: Field, asked: Question, order: Sequence[int], place: dict[int, int], price: Sequence[float], lead: float) -> Hour:
    s, policy = found.solution, asked.scenario.policy
    counts = []
    for p in order:
        replicas, block = sum(s.replicas[p][t].values()), found.pools[p]
        done = tuple(s.done[k, p][t] if (k, p) in s.done else 0.0 for k in range(len(asked.idle)))
        in_service = replicas - policy.spare_replicas if p < len(found.structure.blocks) else replicas
        counts.append(
            HourlyCount(
                replicas=replicas,
                hosts=tuple(HostedOn(purchase=place[o], replicas=n) for o, n in sorted(s.replicas[p][t].items())),
                slo_load=_load(field, asked, block, t, in_service, done) if replicas else 0.0,
                waiting_requests=done,
            )
        )
    held, started = (tuple(many[t].get(o, 0) for o in place) for many in (s.held, s.started))
    gpus = sum(field.market.offers[found.offers[o]].gpus_per_instance * n for o, n in zip(place, held, strict=True))
    usd = sum(c * (n + lead * m) for c, n, m in zip(price, held, started, strict=True))
    return Hour(hour=t, deployments=tuple(counts), instances=held, started=started, gpus_held=gpus, usd=usd)


def _load(field: Field, asked: Question, block: Block, t: int, in_service: int, done: Sequence[float]) -> float:
    """Work over capacity of the replicas in service: pooled for one workload, single times the mixture factor where work is shared."""
    c, u = block.candidate, field.load
    if block.workloads[0] >= asked.steady:
        return sum(n / field.alone_per_hour(c, work) * u for n, work in zip(done, asked.idle, strict=True) if n) / in_service
    if len(block.workloads) > 1 or any(n > 0 for n in done):
        beside = sum(n / field.beside_per_hour(block, work) for n, work in zip(done, asked.idle, strict=True) if n)
        return float(field.shared_load(c, block.workloads)[t] + beside) * u / in_service
    w = block.workloads[0]
    able = pool_capacity(field.single[c, w], field.saturated[c, w], in_service) if field.pooled else field.single[c, w]
    return float(asked.rates[w, t] / able / in_service)


def _workload(asked: Question, i: int, found: Found, order: Sequence[int]) -> HourlyWorkload:
    """One workload of the scenario, i-th in the question's order."""
    w = asked.scenario.workload[asked.order[i]]
    if i < asked.steady:
        rates = asked.rates[i] / w.burst_factor
        serving = [order.index(p) for p in order if p < len(found.structure.blocks) and i in found.pools[p].workloads]
    else:
        k = i - asked.steady
        rates = np.sum([done for (j, _), done in found.solution.done.items() if j == k], axis=0) / 3600
        serving = [order.index(p) for p in order if (k, p) in found.solution.done and sum(found.solution.done[k, p]) > 0]
    return HourlyWorkload(
        name=w.name,
        unit="concurrency" if w.concurrency is not None else "qps",
        is_waiting=i >= asked.steady,
        mean=float(np.mean(rates)),
        peak=float(np.max(rates)),
        burst_factor=w.burst_factor,
        deployments=tuple(sorted(serving)),
        rates=tuple(float(r) for r in rates),
    )


def _offer(offer: Offer, most: int) -> HourlyOffer:
    return HourlyOffer(
        provider=offer.provider, region=offer.region, instance_type=offer.instance_type, basis=offer.basis, purchase=offer.purchase, gpu=offer.gpu,
        gpus_per_instance=offer.gpus_per_instance, usd_per_hour=offer.usd_per_hour, most_instances=most, source=offer.source, as_of=offer.stated_as_of,
    )  # fmt: skip


def _in_words(found: Answer) -> str:
    columns = found.market.problem.columns
    return " + ".join(f"{c.total} x {columns[c.pool.column].name}" for c in found.solution.pools)


# ---- each deployment alone, as a plan in the usual form


def _spoiled(found: Found, field: Field, asked: Question, surveyed: Survey) -> frozenset[frozenset[int]]:
    """Pairs of workloads, in the question's order, of which one misses a limit beside the other in a deployment's busiest hour."""
    pairs = set()
    for p, block in enumerate(found.pools):
        if len(block.workloads) > 1:
            busiest, part = _busiest(p, found, field, asked, surveyed)
            pairs |= {frozenset(block.workloads[i] for i in pair) for pair in crowded(busiest, part)}
    return frozenset(pairs)


def _alone(p: int, found: Found, field: Field, asked: Question, surveyed: Survey, origins: Origins) -> Plan:
    """One deployment in its busiest hour, as a plan that all the usual checks apply to: command, memory, quality, predicted service."""
    busiest, part = _busiest(p, found, field, asked, surveyed)
    return assemble(busiest, part, origins)


def _busiest(p: int, found: Found, field: Field, asked: Question, surveyed: Survey) -> tuple[Answer, Survey]:
    """One deployment in its busiest hour as an answer of its own, with the survey of its workloads."""
    solution, column, block = found.solution, field.market.problem.columns[found.pools[p].candidate], found.pools[p]
    part, steady = _restricted(surveyed, block.workloads), p < len(found.structure.blocks)
    done = np.sum([d for (_, pool), d in solution.done.items() if pool == p], axis=0) / 3600 if not steady else np.zeros(asked.hours)
    t = int(np.argmax(field.need(block))) if steady else int(np.argmax(done))
    at = {w: asked.rates[w, t] if w < asked.steady else done[t] for w in block.workloads}
    workloads = tuple(_in_hour(w, asked, at[i], i) for i, w in zip(block.workloads, part.scenario.workload, strict=True))
    part = replace(
        part, scenario=part.scenario.model_copy(update={"name": asked.scenario.name, "workload": workloads, "policy": _one_pool(part.scenario, steady)})
    )
    pool = PeriodPool(column.gpus, tuple(found.offers.index(o) for o in column.offers if o in found.offers), (sum(solution.replicas[p][t].values()),))
    offers = tuple(field.market.problem.offers[o] for o in found.offers)
    counts = cheapest_hours(PeriodProblem((pool,), offers, 1), Limits(needed=True))
    here = tuple(range(len(block.workloads)))
    replicas = {found.offers[o]: n for o, n in counts.replicas[0][0].items()}
    chosen = ChosenPool(Pool(block.candidate, here, dict.fromkeys(here, 0.0), 1), replicas, {w: workloads[w].peak for w in here})
    candidate = field.market.candidates[block.candidate]
    point = candidate.point
    single, saturated, per_unit = (tuple(v[w] for w in block.workloads) for v in (point.single, point.saturated, point.qps_per_unit))
    mine = replace(candidate, point=replace(point, max_num_seqs=field.max_num_seqs(block), single=single, saturated=saturated, qps_per_unit=per_unit))
    candidates = tuple(mine if c == block.candidate else other for c, other in enumerate(field.market.candidates))
    held = {found.offers[o]: n for o, n in counts.held[0].items()}
    solved = Solution("optimal", counts.cost, counts.cost, 0.0, (chosen,), held)
    market_here: Market = replace(field.market, scenario=part.scenario, candidates=candidates)
    return Answer(market_here, solved, len(field.places), min(found.solved, len(field.places))), part


def _one_pool(scenario: Scenario, steady: bool) -> Policy:
    """The policy as it concerns one deployment: waiting work has no spare replicas."""
    return scenario.policy if steady else scenario.policy.model_copy(update={"spare_replicas": 0, "prudent": False})


def _in_hour(flat_workload: Workload, asked: Question, peak: float, i: int) -> Workload:
    """A workload at the peak rate of one hour, the bursts within the hour apart."""
    burst = asked.scenario.workload[asked.order[i]].burst_factor if i < asked.steady else 1.0
    unit = "concurrency" if flat_workload.concurrency is not None else "qps"
    return flat_workload.model_copy(update={unit: peak / burst, "burst_factor": burst})


def _checked(plan: HourlyPlan, catalog: Catalog) -> HourlyPlan:
    """The plan, if the independent check agrees. Raises SolverError otherwise."""
    from planner.check.periods import check_hours

    report = check_hours(plan, catalog)
    if not report.ok:
        worst = report.breaches[0]
        raise SolverError(f"the plan fails its own check: {worst.name}, {worst.where}: {worst.what}", hint="please report this with the scenario")
    return plan
