"""Hosted APIs in plans by the hour: structures that leave traffic to them, with what bounds their costs; which of them may be worth having; and what
each takes of the hours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import inf

import numpy as np

from planner.candidates.columns import Formulation
from planner.candidates.hosted import HostedOffer
from planner.candidates.pooling import POOL_SIZES
from planner.performance.capacity import pooled_qps
from planner.program.problem import ChosenPool, Problem, Solution
from planner.search.structures import Block, Floats, Idle, Ints, StructureSpace

LITTLE = 1e-9  # of a rate: less left to APIs is none
CRUMB = 1e-6  # of a workload's traffic in an hour: a smaller share is the solver's rounding


class HostedSpace(StructureSpace):
    """Structures beside APIs, to which a workload may be left alone.

    ``alone`` [workload]: least $/h of a unit of its traffic at any API; ``beside`` [candidate, workload]: at one that may stand beside a candidate.
    Infinite where there is none.
    """

    def __init__(self, formulation: Formulation, rates: Floats, slots: Ints, idle: Sequence[Idle], apart: frozenset[frozenset[int]] = frozenset()) -> None:
        super().__init__(formulation, rates, slots, idle, apart)
        self.budget = min((c.most for c in self.caps if c.is_money), default=inf)
        self._ways: dict[tuple[int, ...], list[tuple[Ints, Floats]]] = {}
        problem, many = formulation.problem, len(formulation.candidates)
        self.alone: Floats = np.full(len(problem.demands), inf)
        self.beside: Floats = np.full((many, len(problem.demands)), inf)
        for api in problem.columns[many:]:  # those of APIs come last
            with_it = np.array([problem.rules.mix or c.checkpoint == api.checkpoint for c in problem.columns[:many]], dtype=bool)
            for w, usd in api.usd_per_unit.items():
                self.alone[w], self.beside[with_it, w] = min(self.alone[w], usd), np.minimum(self.beside[with_it, w], usd)

    def least_cost(self, workloads: tuple[int, ...], place: int) -> Floats:
        """[candidate] as without APIs: in each hour the number of replicas at which they and the rest, at an API, cost least."""
        able, needed = self.needs(workloads)
        if workloads not in self._ways:
            self._ways[workloads] = self._ways_of(workloads)
        found = np.full(len(able), inf)
        here = np.flatnonzero(np.isfinite(self.prices[able, place]))
        usd = (self.gpus[able] * self.prices[able, place])[here, None]
        best = np.full((len(here), needed.shape[1]), inf)
        for held, rest in self._ways[workloads]:
            best = np.minimum(best, held[here] * usd + rest[here])
        found[here] = best.sum(axis=1)
        return found

    def _ways_of(self, workloads: tuple[int, ...]) -> list[tuple[Ints, Floats]]:
        """Replicas held [candidate, hour] and least $/h of the rest at APIs, for each number of replicas in service that may be the cheapest.

        What is left to APIs is linear in the replicas between whole loads of workloads that share them, and of one workload from the largest size of
        a pool to the last replica: the cheapest number is at an end.
        """
        able, needed = self.needs(workloads)
        most = np.maximum(needed - self.spare, 0)
        tried = [np.minimum(n, most) for n in (0, self.floor - self.spare, *(POOL_SIZES if len(workloads) == 1 else ()))] + [np.maximum(most - 1, 0), most]
        if len(workloads) > 1:
            loads = np.stack([self.rates[w][None] / (self.single[able, w] * self.mixture * self.load)[:, None] for w in workloads])
            ends = np.cumsum(np.take_along_axis(loads, self._dearest(able, workloads)[:, :, None], axis=0), axis=0)
            tried += [np.minimum(x, most).astype(np.int64) for end in ends for x in (np.floor(end), np.ceil(end))]
        found = []
        for m in tried:
            held = np.maximum(np.where(m > 0, m + self.spare, 0), self.floor)
            found.append((held, self._rest_at_apis(able, workloads, np.maximum(held - self.spare, 0))))
        return found

    def _dearest(self, able: Ints, workloads: tuple[int, ...]) -> Ints:
        """[workload, candidate] places of the workloads by what a replica of each would cost at an API, the dearest first: it keeps that one longest."""
        found: Ints = np.argsort([-self.beside[able, w] * self.single[able, w] for w in workloads], axis=0, kind="stable")
        return found

    def _rest_at_apis(self, able: Ints, workloads: tuple[int, ...], in_service: Floats | Ints) -> Floats:
        """[candidate, hour] least $/h of what so many replicas [candidate, hour] leave to APIs; infinite where none may take it."""
        if len(workloads) == 1:
            (w,) = workloads
            single = self.single[able, w][:, None]
            saturated = self.saturated[able, w][:, None] if self.pooled else single
            carried = in_service * pooled_qps(single, saturated, np.maximum(in_service, 1)) * self.load
            left = np.maximum(self.rates[w][None] - carried, 0.0)
            left = np.where(left > LITTLE * self.rates[w], self.rates[w], 0.0) if self.formulation.problem.rules.at_once else left
            return _paid(left, self.beside[able, w][:, None], self.rates[w][None])
        usd, room = np.zeros(in_service.shape), np.asarray(in_service, dtype=float)
        for rank in self._dearest(able, workloads):
            w = np.array(workloads)[rank]
            each = (self.single[able, w] * self.mixture * self.load)[:, None]
            kept = np.minimum(self.rates[w] / each, room)
            room = room - kept
            usd = usd + _paid(np.maximum(self.rates[w] - kept * each, 0.0), self.beside[able, w][:, None], self.rates[w])
        return usd

    def bound(self, place: int, blocks: Sequence[Block]) -> float:
        """As without APIs, where these take what replicas leave: in each hour and of each GPU type the cheapest number of GPUs, covered by whole
        instances, with the least that APIs cost beside so many. What is held is not known, so no start-up and no cap but the budget counts."""
        usd = np.zeros(self.rates.shape[1])
        for gpu in {self.gpu(b) for b in blocks}:
            rest = np.zeros((self.rates.shape[1], 1))  # [hour, GPUs]
            for b in (b for b in blocks if self.gpu(b) == gpu):
                rest = _joined(rest, self._left_by(b), self.formulation.problem.columns[b.candidate].gpus)
            usd = usd + (self.cover(place, gpu, rest.shape[1] - 1)[: rest.shape[1]] + rest).min(axis=1)
        return float(usd.sum()) if usd.max(initial=0.0) <= self.budget * (1 + 1e-9) else inf

    def _left_by(self, block: Block) -> Floats:
        """[hour, replicas] least $/h of what so many replicas of a deployment leave to APIs; infinite below the floor."""
        most = int(self.need(block).max())
        in_service = np.maximum(np.arange(most + 1) - self.spare, 0)
        able = np.array([block.candidate])
        each = [self._rest_at_apis(able, block.workloads, np.full((1, self.rates.shape[1]), n))[0] for n in in_service]
        found: Floats = np.where(np.arange(most + 1) >= self.floor, np.stack(each, axis=1), inf)
        return found

    def left_alone(self) -> Sequence[tuple[tuple[int, ...], float]]:
        """The sets of workloads that may be at APIs alone, each at the cheapest, limits apart."""
        usd = {w: float(self.alone[w] * self.rates[w].sum()) for w in range(len(self.rates)) if self.alone[w] < inf}
        return [(some, sum(usd[w] for w in some)) for n in range(len(usd) + 1) for some in combinations(usd, n)]


def space_of(formulation: Formulation, rates: Floats, slots: Ints, idle: Sequence[Idle], apart: frozenset[frozenset[int]] = frozenset()) -> StructureSpace:
    """All structures of a formulation, beside its APIs if it has any."""
    return (HostedSpace if formulation.hosted else StructureSpace)(formulation, rates, slots, idle, apart)


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


def apis_for(field: StructureSpace, blocks: Sequence[Block]) -> list[int]:
    """The formulation's APIs that may be worth having: beside a deployment those that may stand there, for a workload without one any."""
    whole, hosted = field.formulation.problem, field.formulation.hosted
    where = {w: whole.columns[b.candidate].checkpoint for b in blocks for w in b.workloads}
    found = list[int]()
    for w in range(len(field.rates)):
        here = [h for h, o in enumerate(hosted) if o.workload == w and (w not in where or whole.rules.mix or o.beside == where[w])]
        here.sort(key=lambda h: hosted[h].usd_per_qps)
        enough = next((i for i, h in enumerate(here) if hosted[h].most_qps is None), len(here))  # the first without a limit: none dearer beside it
        cheaper = {hosted[h].beside for h in here[:enough]}  # each with what takes its rest, where one checkpoint serves
        is_free = w in where or whole.rules.mix
        found += here[: enough + 1] if is_free else [h for i, h in enumerate(here) if i == enough or hosted[h].beside in cheaper]
    return found


@dataclass(frozen=True)
class ApiByHour:
    """An API with the peak traffic of its workload that it takes, by hour."""

    offer: HostedOffer
    flows: tuple[float, ...]


def divided(
    solution: Solution, blocks: Sequence[Block], problem: Problem, hosted: Sequence[HostedOffer]
) -> tuple[Solution, tuple[Block, ...], tuple[ApiByHour, ...]]:
    """(deployments alone with the traffic that they have, their blocks, the APIs with theirs) of a solution with both, the APIs' columns last. Shares
    that a solver leaves by rounding are none."""
    many, rates = len(problem.columns) - len(hosted), np.array([d.rates for d in problem.demands])
    taken = np.zeros((len(hosted), rates.shape[1]))
    for c in solution.pools:
        if c.pool.column >= many:
            taken[c.pool.column - many] += [sum(now.values()) for now in c.flows]
    left = rates.copy()
    for w in range(len(rates)):
        mine = [h for h, o in enumerate(hosted) if o.workload == w]
        here = np.where(taken[mine] > CRUMB * rates[w], taken[mine], 0.0)
        whole = here.sum(axis=0)
        all_of = whole > (1 - CRUMB) * rates[w]
        taken[mine] = here * np.where(all_of, rates[w] / np.where(all_of, np.maximum(whole, 1e-300), 1.0), 1.0)
        left[w] = np.where(all_of, 0.0, rates[w] - whole)
    pools, kept = list[ChosenPool](), list[Block]()
    for c in solution.pools:
        workloads = tuple(w for w in c.pool.workloads if c.pool.column < many and left[w].any())
        if workloads:
            flows: tuple[Mapping[int, float], ...] = tuple({w: float(left[w, t]) for w in workloads if left[w, t] > 0} for t in range(rates.shape[1]))
            pools.append(replace(c, pool=replace(c.pool, workloads=workloads), flows=flows))
            kept.append(Block(workloads, blocks[c.pool.column].candidate))
    apis = tuple(ApiByHour(o, tuple(row.tolist())) for o, row in zip(hosted, taken, strict=True) if row.any())
    return replace(solution, pools=tuple(pools)), tuple(kept), apis
