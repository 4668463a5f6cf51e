"""Which candidates serve over all hours: structures (a partition of the workloads into deployments, a candidate for each, a location) in the
order of a bound on their cost, so that few need the program over hours before the rest is known to be dearer."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
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
        self._needs: dict[tuple[int, ...], tuple[Ints, Ints]] = {}
        self._covers: dict[tuple[int, str], Floats] = {}
        self._options: dict[tuple[tuple[int, ...], int], tuple[Ints, Floats]] = {}
        self.caps = formulation.problem.rules.caps
        self.is_limited = bool(self.caps) or any(o.available for o in formulation.problem.offers)

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

    def least_cost(self, workloads: tuple[int, ...], place: int) -> Floats:
        """[candidate that serves all of these] $ that they cost at least over all hours as its only ones; infinite where the place does not host it."""
        able, needed = self.needs(workloads)
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
        """(candidates, what workloads cost at least on them over all hours), cheapest first, where the place hosts them."""
        if (workloads, place) not in self._options:
            able, cost = self.needs(workloads)[0], self.least_cost(workloads, place)
            order = np.argsort(cost, kind="stable")
            order = order[np.isfinite(cost[order])]
            if self.is_limited:  # what breaks a limit alone breaks it beside others, too
                order = np.array([i for i in order if self.bound(place, (Block(workloads, int(able[i])),)) < inf], dtype=np.int64)
            self._options[workloads, place] = able[order], cost[order]
        return self._options[workloads, place]

    def bound(self, place: int, blocks: Sequence[Block]) -> float:
        """No plan with these deployments costs less: GPUs of each type covered hour by hour by whole instances, or at the least
        price per GPU with their start-ups; and waiting work beyond the valleys at the least price per request. Infinite beyond the limits."""
        if not blocks:
            return sum(min((self.alone_cost(place, c, work) for c in range(len(self.gpus))), default=inf) for work in self.idle)
        needs = [self.need(b) for b in blocks]
        whole = least = begun = 0.0
        dollars, every = np.zeros(self.rates.shape[1]), self.taken(blocks)
        for gpu, taken in every.items():
            price = min(float(self.prices[b.candidate, place]) for b in blocks if self.gpu(b) == gpu)
            covered = self.cover(place, gpu, int(taken.max()))[taken]
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

    def cover(self, place: int, gpu: str, most: int) -> Floats:
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
        ways = [(groups, usd) for alone, usd in self.left_alone() for groups in _partitions(tuple(w for w in every if w not in alone))]
        ways = [(groups, usd) for groups, usd in ways if not any(pair <= set(group) for group in groups for pair in self.apart)]
        heap: list[tuple[float, int, int, int, tuple[int, ...]]] = []  # bound, is it the sharp one, place, way, ranks

        def push(place: int, k: int, ranks: tuple[int, ...]) -> None:
            groups, usd = ways[k]
            lists = [self.options(block, place) for block in groups]
            if all(r < len(cost) for r, (_, cost) in zip(ranks, lists, strict=True)):
                cost = sum(float(cost[r]) for r, (_, cost) in zip(ranks, lists, strict=True))
                heapq.heappush(heap, (cost + usd, 0, place, k, ranks))

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
            groups, usd = ways[k]
            blocks = tuple(Block(w, int(self.options(w, place)[0][r])) for w, r in zip(groups, ranks, strict=True))
            if sharp:
                yield bound, Structure(place, blocks, bound)
                continue
            last = max((i for i, r in enumerate(ranks) if r), default=0)
            for i in range(last, len(ranks)):
                push(place, k, tuple(r + (j == i) for j, r in enumerate(ranks)))
            better = self.bound(place, blocks) + usd if self._within_policy(blocks) else inf
            if better < inf:
                heapq.heappush(heap, (max(bound, better), 1, place, k, ranks))

    def left_alone(self) -> Sequence[tuple[tuple[int, ...], float]]:
        """The sets of workloads that may have no deployment, with the $ that they cost at least over all hours."""
        return [((), 0.0)]

    def _within_policy(self, blocks: Sequence[Block]) -> bool:
        rules, columns = self.formulation.problem.rules, [self.formulation.problem.columns[b.candidate] for b in blocks]
        models, types = len({c.model for c in columns}), len({c.gpu for c in columns})
        return models <= (rules.max_models or models) and types <= (rules.max_gpu_types or types)


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
