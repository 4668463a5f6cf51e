"""The question by the hour and its search: which structure serves all hours at the least cost, and how many replicas and instances each hour holds.

Structures come in the order of a bound (structures.py); the program prices them until the rest is known to be dearer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import TypeVar

import numpy as np

from planner.candidates.columns import Formulation
from planner.candidates.hosted import column as hosted_column
from planner.candidates.survey import Survey, slots_of
from planner.errors import ScenarioError, TimeUp
from planner.program.kinds import ColumnIndex, WorkloadIndex
from planner.program.optimum import cheapest
from planner.program.problem import ChosenPool, Column, Pool, Problem, Solution, Status, Tier, Traffic, Waiting, circle
from planner.program.solver import SolverOptions
from planner.scenario.caps import most_cost
from planner.scenario.change import assumed
from planner.scenario.profiles import DAY, flat, hourly_rates
from planner.scenario.records import Scenario
from planner.scenario.workload import Workload
from planner.search.answer import Answer
from planner.search.apart import crowded
from planner.search.hosted_hours import ApiByHour, apis_for, divided
from planner.search.structures import Block, Floats, Idle, Ints, Structure, StructureSpace

V = TypeVar("V")
GAP = 0.01  # an autoscaled plan counts as optimal within 1 %, or --gap where that is wider: profiles are known no better
MOST_WORKLOADS = 6  # with a rate: groups of them are enumerated


@dataclass(frozen=True)
class HourlyQuestion:
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


def question(scenario: Scenario) -> HourlyQuestion:
    """The scenario by hours. Raises ScenarioError."""
    rates = hourly_rates(scenario)
    steady = [w for w, workload in enumerate(scenario.workload) if not workload.is_waiting]
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
    return HourlyQuestion(scenario, expanded, rates[steady] * bursts[:, None], (*steady, *waiting), len(steady), idle)


def priced_by_the_hour(whole: Formulation, asked: HourlyQuestion) -> Formulation:
    """The formulation with its APIs as the hours see them: paid for the mean traffic of each hour, whose peaks are the bursts within it alone; beside a
    deployment, for any share of an hour's traffic, or (``--api all``) for all or none of it."""
    if not whole.hosted:
        return whole
    bursts = [asked.scenario.workload[w].burst_factor for w in asked.order]
    apis = (replace(hosted_column(o, asked.expanded), usd_per_unit={o.workload: o.usd_per_qps / bursts[o.workload]}) for o in whole.hosted)
    rules = replace(whole.problem.rules, overflow=True, at_once=asked.scenario.policy.api == "all")
    return replace(whole, problem=replace(whole.problem, columns=(*whole.problem.columns[: len(whole.candidates)], *apis), rules=rules))


def windows(workload: Workload, hours: int) -> tuple[tuple[int, ...], ...]:
    """For each day the hours in which its waiting requests may be done; a window that passes midnight goes on in the next day."""
    first = workload.hours[0]
    return tuple(tuple((DAY * day + first + i) % hours for i in range(len(workload.hours))) for day in range(hours // DAY))


def _with_floor(workload: Workload) -> Workload:
    """One deployment serves all of a workload, so a floor on the mean is a floor."""
    floors = [q for q in (workload.min_quality, workload.mean_quality) if q is not None]
    return workload.model_copy(update={"min_quality": max(floors, default=None), "mean_quality": None}) if workload.mean_quality is not None else workload


@dataclass(frozen=True)
class PricedStructure:
    """The best structure with its counts; ``bound`` holds for all structures."""

    structure: Structure
    pools: tuple[Block, ...]  # of the solution's pools: the structure's, then those of waiting work alone (workloads: its column in the formulation)
    solution: Solution
    offers: tuple[int, ...]  # of the formulation, by index of the solution
    bound: float
    solved: int
    apis: tuple[ApiByHour, ...] = ()

    def running(self, p: int, t: int) -> int:
        """Replicas of one deployment in an hour."""
        return sum(self.solution.pools[p].running[t].values())

    def carried(self, p: int) -> Floats:
        """[workload of the deployment, hour] peak traffic that it has."""
        flows = self.solution.pools[p].flows
        return np.array([[now.get(w, 0.0) for now in flows] for w in self.pools[p].workloads])


def cheapest_structure(field: StructureSpace, asked: HourlyQuestion, flat_usd_per_hour: float) -> PricedStructure | None:
    """Structures by rising bound, until the bound of the rest reaches the best found, which must not be dearer than the flat plan.

    Raises SolverError when time is up without a plan.
    """
    solver = asked.scenario.solver
    gap, deadline = max(solver.gap, GAP), field.formulation.deadline
    policy = asked.scenario.policy
    best: PricedStructure | None = None
    cutoff = most_cost(asked.scenario) * asked.hours * (1 + policy.startup_lead / 3600) * (1 + 1e-6)
    unproven, solved, late = inf, 0, False
    for bound, structure in field.cheapest_first():
        top = best.solution.cost if best else cutoff
        late, enough = deadline.passed(), gap if top <= flat_usd_per_hour * asked.hours * (1 + 1e-9) else 0.0
        if bound >= top * (1 - enough) or late:
            unproven = min(unproven, bound)
            break
        if structure is None:
            continue
        found = _priced(field, asked, structure, SolverOptions(gap / 4, deadline.left(), solver.seed))
        solved += 1
        if asked.idle:  # only some candidates for waiting work alone were tried
            unproven = min(unproven, bound)
        elif found.solution.status != Status.INFEASIBLE:
            unproven = min(unproven, max(bound, found.solution.bound))
        if found.solution.cost < top:
            best = found
    if best is None and late:
        raise TimeUp()
    bound = 0.0 if field.formulation.unsettled else unproven
    return replace(best, bound=min(bound, best.solution.cost), solved=solved) if best else None


def _priced(field: StructureSpace, asked: HourlyQuestion, structure: Structure, options: SolverOptions) -> PricedStructure:
    """The cheapest counts of one structure."""
    place, columns = field.places[structure.place], field.formulation.problem.columns
    own = tuple(Block((work.alone,), c) for work in asked.idle for c in _own_candidates(field, structure.place, work))
    blocks = (*structure.blocks, *own)
    used = tuple(sorted({o for b in blocks for o in columns[b.candidate].offers if o in set(place.offers)}))
    hosted = apis_for(field, structure.blocks)
    problem = posed(field, asked, structure.blocks, own, used, hosted)
    solution = cheapest(problem, options, break_ties=False)
    if hosted and solution.found:
        solution, kept, apis = divided(solution, blocks, problem, [field.formulation.hosted[h] for h in hosted])
        return PricedStructure(replace(structure, blocks=kept), kept, solution, used, 0.0, 0, apis)
    return PricedStructure(structure, tuple(blocks[c.pool.column] for c in solution.pools), solution, used, 0.0, 0)


def posed(
    field: StructureSpace, asked: HourlyQuestion, blocks: Sequence[Block], own: Sequence[Block], offers: Sequence[int], hosted: Sequence[int] = ()
) -> Problem:
    """A structure as the program is asked it: one column for each deployment, and for each candidate of waiting work alone, on some of the offers;
    last some of the APIs."""
    whole, policy = field.formulation.problem, asked.scenario.policy
    index = {o: i for i, o in enumerate(offers)}

    def column(block: Block, workloads: tuple[int, ...]) -> Column:
        c = whole.columns[block.candidate]
        tiers = {w: c.tiers[w] for w in workloads} if len(workloads) == 1 else {}
        return replace(c, tiers=tiers, shared={w: c.shared[w] for w in workloads if w in c.shared}, offers=tuple(index[o] for o in c.offers if o in index))

    demands = tuple(replace(d, rates=tuple(rates)) for d, rates in zip(whole.demands, asked.rates.tolist(), strict=False))
    rules = replace(
        whole.rules,
        floor_replicas=policy.floor_replicas,
        lead_hours=policy.startup_lead / 3600,
        min_up=policy.min_up_periods,
    )
    waiting = tuple(
        Waiting(
            work.windows,
            (work.amount,) * len(work.windows),
            beside={i: c for i, b in enumerate(blocks) if (c := field.beside_per_hour(b, work)) > 0},
            alone={len(blocks) + i: c for i, b in enumerate(own) if b.workloads == (work.alone,) and (c := field.alone_per_hour(b.candidate, work)) > 0},
        )
        for work in asked.idle
    )
    apis = (whole.columns[len(field.formulation.candidates) + h] for h in hosted)
    every = (*(column(b, b.workloads) for b in blocks), *(column(b, ()) for b in own), *apis)
    return Problem(demands, every, tuple(whole.offers[o] for o in offers), rules, circle(asked.hours), waiting)


def _own_candidates(field: StructureSpace, place: int, work: Idle) -> list[int]:
    """Candidates for waiting work alone: least cost per request, least cost of one replica, and least cost of all of it."""
    able = [c for c in range(len(field.gpus)) if np.isfinite(field.alone_cost(place, c, work))]
    replica = {c: float(field.gpus[c] * field.prices[c, place]) for c in able}
    measures = (lambda c: replica[c] / field.alone_per_hour(c, work), lambda c: replica[c], lambda c: field.alone_cost(place, c, work))
    return sorted({min(able, key=measure) for measure in measures}) if able else []


def slots_by_candidate(surveyed: Survey, whole: Formulation) -> Ints:
    """[candidate, workload] most requests in service on its GPUs."""
    rows, tokens = (np.array([getattr(c.point, x) for c in whole.candidates], dtype=np.int64) for x in ("row", "max_num_batched_tokens"))
    found = np.zeros((len(rows), len(surveyed.physics)), dtype=np.int64)
    for size in np.unique(tokens).tolist():
        here = np.flatnonzero(tokens == size)
        found[here] = np.stack([slots_of(surveyed, w, rows[here], size) for w in range(len(surveyed.physics))], axis=1)
    return found


def spoiled(found: PricedStructure, field: StructureSpace, asked: HourlyQuestion, surveyed: Survey) -> frozenset[frozenset[int]]:
    """Pairs of workloads, in the question's order, of which one misses a limit beside the other in a deployment's busiest hour."""
    pairs = set()
    for p in range(len(found.pools)):
        here = present(p, found, busiest_hour(p, found, field))
        if len(here) > 1:
            answered, part = busiest(p, found, field, asked, surveyed)
            pairs |= {frozenset(here[i] for i in pair) for pair in crowded(answered, part)}
    return frozenset(pairs)


def busiest_hour(p: int, found: PricedStructure, field: StructureSpace) -> int:
    """The hour in which one deployment has most work; of waiting work alone, in which most is done."""
    block = found.pools[p]
    if p < len(found.structure.blocks):
        return int(np.argmax(field.shared_load(block.candidate, block.workloads, found.carried(p))))
    return int(np.argmax(np.sum(list(found.solution.pools[p].waiting.values()), axis=0)))


def present(p: int, found: PricedStructure, t: int) -> tuple[int, ...]:
    """The workloads of a deployment that have traffic on it in an hour; of waiting work alone that work."""
    block = found.pools[p]
    if p >= len(found.structure.blocks):
        return block.workloads
    return tuple(w for w, rate in zip(block.workloads, found.carried(p)[:, t], strict=True) if rate > 0)


def busiest(p: int, found: PricedStructure, field: StructureSpace, asked: HourlyQuestion, surveyed: Survey) -> tuple[Answer, Survey]:
    """One deployment in its busiest hour as an answer of its own, with the survey of its workloads."""
    solution, column, block = found.solution, field.formulation.problem.columns[found.pools[p].candidate], found.pools[p]
    steady, t = p < len(found.structure.blocks), busiest_hour(p, found, field)
    there = present(p, found, t)
    part = restricted(surveyed, there)
    if steady:
        at = dict(zip(block.workloads, found.carried(p)[:, t].tolist(), strict=True))
    else:
        at = dict.fromkeys(there, float(np.sum(list(solution.pools[p].waiting.values()), axis=0)[t]) / 3600)
    workloads = tuple(_in_hour(w, asked, at[i], i) for i, w in zip(there, part.scenario.workload, strict=True))
    part = replace(part, scenario=_one_pool(part.scenario, steady).model_copy(update={"name": asked.scenario.name, "workload": workloads}))
    hosts, offers = tuple(found.offers.index(o) for o in column.offers if o in found.offers), field.formulation.problem.offers
    each = replace(column, tiers={0: (Tier(1, 1.0),)}, shared={}, offers=hosts)  # traffic of one replica's capacity for each replica
    counts = cheapest(
        Problem((Traffic("", (float(found.running(p, t)),)),), (each,), tuple(offers[o] for o in found.offers)), SolverOptions(needed=True), break_ties=False
    )
    here = tuple(map(WorkloadIndex, range(len(there))))
    replicas = {found.offers[o]: n for o, n in counts.pools[0].replicas.items()}
    chosen = ChosenPool(Pool(ColumnIndex(block.candidate), here, dict.fromkeys(here, 0.0), 1), (replicas,), ({w: workloads[w].peak for w in here},))
    candidate = field.formulation.candidates[block.candidate]
    point = candidate.point
    single, saturated, per_unit = (tuple(v[w] for w in there) for v in (point.single, point.saturated, point.qps_per_unit))
    mine = replace(candidate, point=replace(point, max_num_seqs=field.max_num_seqs(block), single=single, saturated=saturated, qps_per_unit=per_unit))
    candidates = tuple(mine if c == block.candidate else other for c, other in enumerate(field.formulation.candidates))
    held = {found.offers[o]: n for o, n in counts.held.items()}
    solved = Solution(Status.OPTIMAL, counts.cost, counts.cost, 0.0, (chosen,), (held,))
    formulation_here: Formulation = replace(field.formulation, scenario=part.scenario, candidates=candidates, hosted=())
    return Answer(formulation_here, solved, len(field.places), min(found.solved, len(field.places))), part


def _one_pool(scenario: Scenario, steady: bool) -> Scenario:
    """The scenario as it concerns one deployment: waiting work has no spare replicas, and where replicas stand, which losses depend on, is of no one hour."""
    anywhere = assumed(assumed(scenario, "policy", redundancy="none", load_after_loss=1.0, loss_slo_factor=1.0, max_spot_share=None), "supply", zones=None)
    return anywhere if steady else assumed(anywhere, "policy", spare_replicas=0, prudent=False)


def _in_hour(flat_workload: Workload, asked: HourlyQuestion, peak: float, i: int) -> Workload:
    """A workload at the peak rate of one hour, the bursts within the hour apart."""
    burst = asked.scenario.workload[asked.order[i]].burst_factor if i < asked.steady else 1.0
    return flat_workload.model_copy(update={flat_workload.rate_field: peak / burst, "burst_factor": burst})


def restricted(whole: Survey, kept: Sequence[int]) -> Survey:
    """The survey of some of its workloads. Rows keep their places."""

    def pick(values: Sequence[V]) -> tuple[V, ...]:
        return tuple(values[w] for w in kept)

    scenario = whole.scenario.model_copy(update={"workload": pick(whole.scenario.workload)})
    eligible = tuple(
        replace(e, why=pick(e.why), quality=pick(e.quality), factor=pick(e.factor), tokens=pick(e.tokens), near=pick(e.near)) for e in whole.eligible
    )
    shapes = tuple(replace(s, factors=pick(s.factors), tokens=pick(s.tokens)) for s in whole.shapes)
    return replace(whole, scenario=scenario, eligible=eligible, shapes=shapes, physics=pick(whole.physics))
