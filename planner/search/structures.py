"""Which candidates serve over all hours: structures (a partition of the workloads into deployments, a candidate for each, a location) in the
order of a bound on their cost, so that few need the program over hours before the rest is known to be dearer."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, count
from math import inf

import numpy as np
from numpy.typing import NDArray

from planner.candidates.columns import Formulation, mixture_factor
from planner.candidates.pooling import POOL_SIZES
from planner.performance.capacity import pooled_qps
from planner.program import bounds
from planner.program.places import LocalProblem, sections

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LITTLE = 1e-9  # of a rate: less left to APIs is none
PATIENCE = 256  # structures looked at between two signs of life


@dataclass(frozen=True)
class Idle:
    """Work that may wait, as structures see it: its column when it has replicas of its own, and beside others; requests by window."""

    alone: int
    beside: int
    windows: tuple[tuple[int, ...], ...]
    amount: float


@dataclass(frozen=True)
class Block:
    """A deployment of a structure: the workloads it serves and the candidate (index in the formulation)."""

    workloads: tuple[int, ...]
    candidate: int


@dataclass(frozen=True)
class Structure:
    """Deployments at one location, all other workloads at APIs alone; ``bound``: no plan with it costs less over all hours."""

    place: int
    blocks: tuple[Block, ...]
    bound: float


@dataclass(frozen=True)
class Apis:
    """Least $/h of a unit of each workload's traffic at any API, and [candidate, workload] at one that may stand beside a candidate; infinite where none."""

    alone: Floats
    beside: Floats

    @classmethod
    def of(cls, formulation: Formulation) -> Apis | None:
        """Of a formulation, whose APIs' columns come last; None without any."""
        problem, many = formulation.problem, len(formulation.candidates)
        hosted = problem.columns[many:]
        if not hosted:
            return None
        alone, beside = np.full(len(problem.demands), inf), np.full((many, len(problem.demands)), inf)
        for api in hosted:
            with_it = np.array([problem.rules.mix or c.checkpoint == api.checkpoint for c in problem.columns[:many]], dtype=bool)
            for w, usd in api.usd_per_unit.items():
                alone[w], beside[with_it, w] = min(alone[w], usd), np.minimum(beside[with_it, w], usd)
        return cls(alone, beside)


class StructureSpace:
    """All structures of a formulation under the rates of every hour, with what bounds their costs.

    rates: [workload, hour] peak rate of each hour, the first workloads of the formulation; slots: [candidate, workload] most requests in service.
    """

    def __init__(self, formulation: Formulation, rates: Floats, slots: Ints, idle: Sequence[Idle], apart: frozenset[frozenset[int]] = frozenset()) -> None:
        self.formulation, self.rates, self.slots, self.idle, self.apart = formulation, rates, slots, tuple(idle), apart
        self.floor = formulation.scenario.policy.floor_replicas
        self.lead = min(
            formulation.scenario.policy.startup_lead / 3600, 1.0
        )  # holding through an hour costs as much as an hour's lead: no bound may count on more
        policy = formulation.scenario.policy
        self.load, self.spare, self.pooled = policy.max_slo_load, policy.spare_replicas, policy.router != "random"
        self.mixture = mixture_factor(formulation.scenario)
        columns = formulation.problem.columns[: len(formulation.candidates)]
        width = max((len(c.point.single) for c in formulation.candidates), default=0)
        serves = np.array([[w in c.quality for w in range(width)] for c in columns]).reshape(len(columns), width)
        self.single: Floats = np.array([c.point.single for c in formulation.candidates]).reshape(len(columns), width) * serves
        self.saturated: Floats = np.array([c.point.saturated for c in formulation.candidates]).reshape(len(columns), width) * serves
        self.gpus: Floats = np.array([c.gpus for c in columns], dtype=float)
        self.apis = Apis.of(formulation)
        self._needs: dict[tuple[int, ...], tuple[Ints, Ints]] = {}
        self._covers: dict[tuple[int, str], Floats] = {}
        self._ways: dict[tuple[int, ...], list[tuple[Ints, Floats]]] = {}
        self._options: dict[tuple[tuple[int, ...], int], tuple[Ints, Floats]] = {}
        self.caps = formulation.problem.rules.caps
        self.is_limited = bool(self.caps) or any(o.available for o in formulation.problem.offers)
        self.budget = min((c.most for c in self.caps if c.is_money), default=inf)

    @cached_property
    def places(self) -> list[LocalProblem]:
        """The locations; one's own GPUs stand beside each."""
        return sections(self.formulation.problem)

    @cached_property
    def prices(self) -> Floats:
        """[candidate, place] least $/h of a GPU that hosts it; infinite where nothing does."""
        found = np.full((len(self.gpus), len(self.places)), inf)
        for j, place in enumerate(self.places):
            for part, c in zip(place.problem.columns, place.columns, strict=True):
                if not part.is_hosted:
                    found[c, j] = self.least_price(place, part.offers)
        return found

    def least_price(self, place: LocalProblem, offers: Sequence[int]) -> float:
        """Least $/h of a GPU of some offers of a place."""
        return min((place.problem.offers[o].usd_per_hour / place.problem.offers[o].gpus for o in offers), default=inf)

    def least_cost(self, place: int, able: Ints, needed: Ints) -> Floats:
        """[candidate] $ that the GPUs of so many replicas ([candidate, hour]) cost at least over all hours; infinite where the place does not host it."""
        found: Floats = needed.sum(axis=1) * self.gpus[able] * self.prices[able, place]
        return found

    def shared_load(self, c: int, workloads: tuple[int, ...], flows: Floats | None = None) -> Floats:
        """[hour] replicas' worth of work of these workloads on a candidate that they share; ``flows`` [workload, hour]: what it has of them, not all."""
        rates = self.rates[list(workloads)] if flows is None else flows
        found: Floats = sum((r / (self.single[c, w] * self.mixture * self.load) for r, w in zip(rates, workloads, strict=True)), np.zeros(rates.shape[1]))
        return found

    def needs(self, workloads: tuple[int, ...]) -> tuple[Ints, Ints]:
        """(candidates that serve all of these, [candidate, hour] replicas that each takes as their only deployment, spare ones included)."""
        if workloads not in self._needs:
            able = np.flatnonzero((self.single[:, list(workloads)] > 0).all(axis=1))
            needed = self._alone(able, workloads[0]) if len(workloads) == 1 else self._shared(able, workloads)
            self._needs[workloads] = able, np.maximum(np.where(needed > 0, needed + self.spare, 0), self.floor)
        return self._needs[workloads]

    def _alone(self, able: Ints, w: int) -> Ints:
        """[candidate, hour] the fewest replicas R with R·μ(R)·u ≥ λ, as replicas_needed, for all at once."""
        rate = self.rates[w]
        single = self.single[able, w]
        saturated = self.saturated[able, w] if self.pooled else single
        able_of = np.stack([n * pooled_qps(single, saturated, n) * self.load for n in POOL_SIZES], axis=1)  # of n replicas
        few = 1 + (able_of[:, None, :] < rate[None, :, None] * (1 - 1e-9)).sum(axis=2)
        many = np.ceil(rate[None] / (able_of[:, -1:] / POOL_SIZES[-1]) - 1e-9).astype(np.int64)
        found: Ints = np.where(rate[None] <= 0, 0, np.where(few <= POOL_SIZES[-1], few, many))
        return found

    def _shared(self, able: Ints, workloads: tuple[int, ...]) -> Ints:
        loads = sum(self.rates[w][None] / (self.single[able, w] * self.mixture * self.load)[:, None] for w in workloads)
        found: Ints = np.ceil(np.asarray(loads) - 1e-9).astype(np.int64)
        return found

    def need(self, block: Block) -> Ints:
        """[hour] replicas of one deployment."""
        able, needed = self.needs(block.workloads)
        found: Ints = needed[int(np.searchsorted(able, block.candidate))]
        return found

    def options(self, workloads: tuple[int, ...], place: int) -> tuple[Ints, Floats]:
        """(candidates, what the GPUs they take cost at least over all hours), cheapest first, where the place hosts them."""
        if (workloads, place) not in self._options:
            able, needed = self.needs(workloads)
            cost = self.least_cost(place, able, needed) if self.apis is None else self._with_apis(self.apis, workloads, place)
            order = np.argsort(cost, kind="stable")
            order = order[np.isfinite(cost[order])]
            if self.is_limited:  # what breaks a limit alone breaks it beside others, too
                order = np.array([i for i in order if self.bound(place, (Block(workloads, int(able[i])),)) < inf], dtype=np.int64)
            self._options[workloads, place] = able[order], cost[order]
        return self._options[workloads, place]

    def _with_apis(self, apis: Apis, workloads: tuple[int, ...], place: int) -> Floats:
        """[candidate] the same beside APIs: in each hour the number of replicas at which they and the rest, at an API, cost least."""
        able, needed = self.needs(workloads)
        if workloads not in self._ways:
            self._ways[workloads] = self._ways_of(apis, workloads)
        found = np.full(len(able), inf)
        here = np.flatnonzero(np.isfinite(self.prices[able, place]))
        usd = (self.gpus[able] * self.prices[able, place])[here, None]
        best = np.full((len(here), needed.shape[1]), inf)
        for held, rest in self._ways[workloads]:
            best = np.minimum(best, held[here] * usd + rest[here])
        found[here] = best.sum(axis=1)
        return found

    def _ways_of(self, apis: Apis, workloads: tuple[int, ...]) -> list[tuple[Ints, Floats]]:
        """Replicas held [candidate, hour] and least $/h of the rest at APIs, for each number of replicas in service that may be the cheapest.

        What is left to APIs is linear in the replicas between whole loads of workloads that share them, and of one workload from the largest size of
        a pool to the last replica: the cheapest number is at an end.
        """
        able, needed = self.needs(workloads)
        most = np.maximum(needed - self.spare, 0)
        tried = [np.minimum(n, most) for n in (0, self.floor - self.spare, *(POOL_SIZES if len(workloads) == 1 else ()))] + [np.maximum(most - 1, 0), most]
        if len(workloads) > 1:
            dearest = np.argsort([-apis.beside[able, w] * self.single[able, w] for w in workloads], axis=0, kind="stable")
            loads = np.stack([self.rates[w][None] / (self.single[able, w] * self.mixture * self.load)[:, None] for w in workloads])
            ends = np.cumsum(np.take_along_axis(loads, dearest[:, :, None], axis=0), axis=0)
            tried += [np.minimum(x, most).astype(np.int64) for end in ends for x in (np.floor(end), np.ceil(end))]
        found = []
        for m in tried:
            held = np.maximum(np.where(m > 0, m + self.spare, 0), self.floor)
            found.append((held, self._rest_at_apis(apis, able, workloads, np.maximum(held - self.spare, 0))))
        return found

    def _rest_at_apis(self, apis: Apis, able: Ints, workloads: tuple[int, ...], in_service: Floats | Ints) -> Floats:
        """[candidate, hour] least $/h of what so many replicas [candidate, hour] leave to APIs; infinite where none may take it."""
        if len(workloads) == 1:
            (w,) = workloads
            single = self.single[able, w][:, None]
            saturated = self.saturated[able, w][:, None] if self.pooled else single
            carried = in_service * pooled_qps(single, saturated, np.maximum(in_service, 1)) * self.load
            left = np.maximum(self.rates[w][None] - carried, 0.0)
            left = np.where(left > LITTLE * self.rates[w], self.rates[w], 0.0) if self.formulation.problem.rules.at_once else left
            return _paid(left, apis.beside[able, w][:, None], self.rates[w][None])
        usd, room = np.zeros(in_service.shape), np.asarray(in_service, dtype=float)
        order = np.argsort([-apis.beside[able, w] * self.single[able, w] for w in workloads], axis=0, kind="stable")  # dearest a replica first
        for rank in order:
            w = np.array(workloads)[rank]
            each = (self.single[able, w] * self.mixture * self.load)[:, None]
            kept = np.minimum(self.rates[w] / each, room)
            room = room - kept
            usd = usd + _paid(np.maximum(self.rates[w] - kept * each, 0.0), apis.beside[able, w][:, None], self.rates[w])
        return usd

    def bound(self, place: int, blocks: Sequence[Block]) -> float:
        """No plan with these deployments costs less: GPUs of each type covered hour by hour by whole instances, or at the least
        price per GPU with their start-ups; and waiting work beyond the valleys at the least price per request. Infinite beyond the limits."""
        if self.apis is not None:
            return self._bound_with_apis(self.apis, place, blocks)
        if not blocks:
            return sum(min((self.alone_cost(place, c, work) for c in range(len(self.gpus))), default=inf) for work in self.idle)
        needs = [self.need(b) for b in blocks]
        whole = least = begun = 0.0
        dollars, every = np.zeros(self.rates.shape[1]), self.taken(blocks)
        for gpu, taken in every.items():
            price = min(float(self.prices[b.candidate, place]) for b in blocks if self.gpu(b) == gpu)
            covered = self._cover(place, gpu, int(taken.max()))[taken]
            whole += float(covered.sum())
            least, begun = least + price * float(taken.sum()), begun + price * self.lead * bounds.starts_of(taken)
            dollars = dollars + covered
        if self.breaks_a_limit(place, every, dollars):
            return inf
        rest = self._rest(place, blocks, needs)  # what is held for it may save starts: no more than the lead's share of its cost
        return max(whole, least + rest, least + begun + (1 - self.lead) * rest)

    def gpu(self, block: Block) -> str:
        """The GPU type of a deployment."""
        return self.formulation.problem.columns[block.candidate].gpu

    def taken(self, blocks: Sequence[Block]) -> dict[str, Ints]:
        """[hour] GPUs that deployments take, by type."""
        found: dict[str, Ints] = {}
        for b in blocks:
            gpus = self.need(b) * self.formulation.problem.columns[b.candidate].gpus
            found[self.gpu(b)] = found.get(self.gpu(b), 0) + gpus
        return found

    def breaks_a_limit(self, place: int, taken: Mapping[str, Ints], dollars: Floats) -> bool:
        """Whether so many GPUs by type and hour, and $/h by hour, are surely beyond a cap."""
        offers = self.places[place].problem.offers
        return any(bounds.surely(cap, offers, taken, dollars) > cap.most * (1 + 1e-9) for cap in self.caps)

    def _bound_with_apis(self, apis: Apis, place: int, blocks: Sequence[Block]) -> float:
        """The same where APIs take what replicas leave: in each hour and of each GPU type the cheapest number of GPUs, covered by whole instances, with
        the least that APIs cost beside so many. What is held is not known, so no start-up and no cap but the budget counts."""
        usd = np.zeros(self.rates.shape[1])
        for gpu in {self.gpu(b) for b in blocks}:
            rest = np.zeros((self.rates.shape[1], 1))  # [hour, GPUs]
            for b in (b for b in blocks if self.gpu(b) == gpu):
                rest = _joined(rest, self._left_by(apis, b), self.formulation.problem.columns[b.candidate].gpus)
            usd = usd + (self._cover(place, gpu, rest.shape[1] - 1)[: rest.shape[1]] + rest).min(axis=1)
        return float(usd.sum()) if usd.max(initial=0.0) <= self.budget * (1 + 1e-9) else inf

    def _left_by(self, apis: Apis, block: Block) -> Floats:
        """[hour, replicas] least $/h of what so many replicas of a deployment leave to APIs; infinite below the floor."""
        most = int(self.need(block).max())
        in_service = np.maximum(np.arange(most + 1) - self.spare, 0)
        able = np.array([block.candidate])
        each = [self._rest_at_apis(apis, able, block.workloads, np.full((1, self.rates.shape[1]), n))[0] for n in in_service]
        found: Floats = np.where(np.arange(most + 1) >= self.floor, np.stack(each, axis=1), inf)
        return found

    def _cover(self, place: int, gpu: str, most: int) -> Floats:
        """[GPUs] least $/h of instances that together have at least so many GPUs of a type."""
        known = self._covers.get((place, gpu), np.zeros(1))
        if len(known) <= most:
            known = bounds.cover([o for o in self.places[place].problem.offers if o.gpu == gpu], 2 * most)
            self._covers[place, gpu] = known
        return known

    def _rest(self, place: int, blocks: Sequence[Block], needs: Sequence[Ints]) -> float:
        """Least cost of the waiting work that the replicas there are cannot take."""
        cost = 0.0
        for work in self.idle:
            room = sum((self.valley(b, n, work) for b, n in zip(blocks, needs, strict=True)), np.zeros(self.rates.shape[1]))
            rest = sum(max(0.0, work.amount - float(room[list(window)].sum())) for window in work.windows)
            if rest > 0:
                cost += rest * min((self._per_request(place, c, self.own_per_hour(c, work)) for c in range(len(self.gpus))), default=inf)
        return cost

    def _per_request(self, place: int, c: int, per_hour: float) -> float:
        return float(self.gpus[c] * self.prices[c, place]) / per_hour if per_hour > 0 else inf

    def alone_cost(self, place: int, c: int, work: Idle) -> float:
        """Least cost of waiting work on replicas of its own; infinite where there can be none."""
        speed = self.alone_per_hour(c, work)
        if speed <= 0 or not np.isfinite(self.prices[c, place]):
            return inf
        return bounds.alone(float(self.gpus[c] * self.prices[c, place]), speed, work.amount, work.windows, self.rates.shape[1], self.lead)

    def alone_per_hour(self, c: int, work: Idle) -> float:
        """Requests of waiting work that a replica does in an hour when it does nothing else."""
        return float(self.single[c, work.alone] * self.load * 3600)

    def own_per_hour(self, c: int, work: Idle) -> float:
        """Requests of waiting work that a replica of its own does in an hour. Never below what one does beside others."""
        return float(max(self.single[c, work.alone], self.single[c, work.beside]) * self.load * 3600)

    def beside_per_hour(self, block: Block, work: Idle) -> float:
        """Requests that a replica shared with a block's traffic does in an hour, if it did nothing else, within that traffic's limits.

        0 where it would take more requests in service than the traffic itself finds room for: max_num_seqs is the traffic's.
        """
        c = block.candidate
        most = min(self.formulation.candidates[c].point.max_num_seqs, int(self.slots[c, work.beside]))
        return float(self.single[c, work.beside] * self.mixture * self.load * 3600) if most <= self.max_num_seqs(block) else 0.0

    def max_num_seqs(self, block: Block) -> int:
        """Of a deployment: the candidate's, no more than its own workloads find room for."""
        return min(self.formulation.candidates[block.candidate].point.max_num_seqs, int(self.slots[block.candidate, list(block.workloads)].max()))

    def valley(self, block: Block, need: Ints, work: Idle) -> Floats:
        """[hour] requests of waiting work that the replicas needed anyway have room for."""
        free = np.maximum(need - self.spare - self.shared_load(block.candidate, block.workloads), 0.0)
        return free * self.beside_per_hour(block, work)

    def cheapest_first(self) -> Iterator[tuple[float, Structure | None]]:
        """All structures by rising bound, those left out that break a limit for sure; now and then only how far the bound has risen (None)."""
        every = tuple(range(len(self.rates)))
        ways = [(groups, alone) for alone in self._left_alone(every) for groups in _partitions(tuple(w for w in every if w not in alone))]
        ways = [(groups, alone) for groups, alone in ways if not any(pair <= set(group) for group in groups for pair in self.apart)]
        heap: list[tuple[float, int, int, int, tuple[int, ...]]] = []  # bound, is it the sharp one, place, way, ranks

        def push(place: int, k: int, ranks: tuple[int, ...]) -> None:
            groups, alone = ways[k]
            lists = [self.options(block, place) for block in groups]
            if all(r < len(cost) for r, (_, cost) in zip(ranks, lists, strict=True)):
                cost = sum(float(cost[r]) for r, (_, cost) in zip(ranks, lists, strict=True))
                heapq.heappush(heap, (cost + self._usd_alone(alone), 0, place, k, ranks))

        for place in range(len(self.places)):
            for k, (groups, _) in enumerate(ways):
                if groups or not place or self.idle:  # what is all at APIs is of no place
                    push(place, k, (0,) * len(groups))
        for step in count(1):
            if not heap:
                return
            bound, sharp, place, k, ranks = heapq.heappop(heap)
            if step % PATIENCE == 0:
                yield bound, None
            groups, alone = ways[k]
            blocks = tuple(Block(w, int(self.options(w, place)[0][r])) for w, r in zip(groups, ranks, strict=True))
            if sharp:
                yield bound, Structure(place, blocks, bound)
                continue
            last = max((i for i, r in enumerate(ranks) if r), default=0)
            for i in range(last, len(ranks)):
                push(place, k, tuple(r + (j == i) for j, r in enumerate(ranks)))
            better = self.bound(place, blocks) + self._usd_alone(alone) if self._within_policy(blocks) else inf
            if better < inf:
                heapq.heappush(heap, (max(bound, better), 1, place, k, ranks))

    def _left_alone(self, every: tuple[int, ...]) -> list[tuple[int, ...]]:
        """The sets of workloads that may be at APIs alone; without APIs none."""
        able = [w for w in every if self.apis is not None and self.apis.alone[w] < inf]
        return [tuple(some) for n in range(len(able) + 1) for some in combinations(able, n)]

    def _usd_alone(self, alone: Sequence[int]) -> float:
        """$ of these workloads over all hours at the cheapest API, limits apart."""
        return sum(float(self.apis.alone[w] * self.rates[w].sum()) for w in alone) if self.apis is not None else 0.0

    def _within_policy(self, blocks: Sequence[Block]) -> bool:
        rules, columns = self.formulation.problem.rules, [self.formulation.problem.columns[b.candidate] for b in blocks]
        models, types = len({c.model for c in columns}), len({c.gpu for c in columns})
        return models <= (rules.max_models or models) and types <= (rules.max_gpu_types or types)


def _paid(left: Floats, usd_per_unit: Floats, rate: Floats) -> Floats:
    """$/h of what is left; nothing where that is too little to count."""
    found: Floats = np.where(left > LITTLE * rate, left, 0.0)
    return np.multiply(found, usd_per_unit, out=np.zeros(np.broadcast_shapes(found.shape, usd_per_unit.shape)), where=found > 0)


def _joined(rest: Floats, left: Floats, gpus: int) -> Floats:
    """[hour, GPUs] least $/h of two that share so many GPUs: one by the GPUs that it has, one by its replicas of so many GPUs each."""
    hours, most = rest.shape[0], rest.shape[1] - 1 + gpus * (left.shape[1] - 1)
    found = np.full((hours, most + 1), inf)
    for n in range(left.shape[1]):
        here = slice(n * gpus, n * gpus + rest.shape[1])
        found[:, here] = np.minimum(found[:, here], rest + left[:, n : n + 1])
    return found


def _partitions(items: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], ...]]:
    """All ways to put items into groups."""
    if not items:
        yield ()
        return
    first, rest = items[0], items[1:]
    for groups in _partitions(rest):
        yield ((first,), *groups)
        for i, group in enumerate(groups):
            yield (*groups[:i], (first, *group), *groups[i + 1 :])
