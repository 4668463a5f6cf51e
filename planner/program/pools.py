"""Which pools there are: the sets of the program, derived from candidates and rules.

A pool is a candidate put to use. One that serves a single workload has the capacity of its size: a router spreads
Poisson noise over more replicas, so capacity per replica grows with their number, and every size tier is a pool of its
own with a least number of replicas. One that several workloads may share has the (lower) shared capacities. Splitting the two
keeps the capacity constraint linear without a big-M.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import ceil, inf

from planner.program.kinds import ColumnIndex, WorkloadIndex
from planner.program.problem import Pool, Problem, Tier

EXACT = 1e-9  # relative: loads this near a whole number of replicas are that many


def pools(problem: Problem, sized: bool = True) -> tuple[Pool, ...]:
    """All pools of the problem, alone ones first within a candidate; those for waiting work alone last.

    sized: over several states, what is the only deployment that its workloads can have is one pool of known size.
    """
    found: list[Pool] = []
    for c, column in zip(map(ColumnIndex, range(len(problem.columns))), problem.columns, strict=True):
        found += [Pool(c, (WorkloadIndex(w),), {w: inf}, 0) for w in column.usd_per_unit]
        for w, tiers in column.tiers.items():
            found += [Pool(c, (WorkloadIndex(w),), {w: t.capacity}, t.replicas, remain=_left(problem, t), after_loss=_after(w, t)) for t in tiers]
        for group in groups(frozenset(column.shared), problem.rules.apart):
            if len(group) > 1:
                capacity, after = ({w: m for w, m in of.items() if w in group} for of in (column.shared, column.shared_after_loss))
                found.append(Pool(c, tuple(WorkloadIndex(w) for w in column.shared if w in group), capacity, 1, after_loss=after))
    if problem.is_flat:
        return tuple(found)
    alone = sorted({c for work in problem.waiting for c in work.alone})
    return (*(_sized(problem, found) if sized else found), *(Pool(ColumnIndex(c), (), {}, 0, (0,) * len(problem.states)) for c in alone))


def _sized(problem: Problem, found: list[Pool]) -> list[Pool]:
    """The pools, those of an only choice as one of known need."""
    heads = deployments(found, is_flat=False)
    able: dict[int, set[int]] = {}
    for head, pool in zip(heads, found, strict=True):
        for w in pool.workloads:
            able.setdefault(w, set()).add(head)
    kept = []
    for p, (head, pool) in enumerate(zip(heads, found, strict=True)):
        if any(len(able[w]) > 1 for w in pool.workloads) or problem.columns[pool.column].is_hosted:
            kept.append(pool)
        elif p == head:
            sizes = [q for q, h in zip(found, heads, strict=True) if h == head]
            kept.append(replace(pool, need=_need(problem, sizes), remain=_remain(problem, sizes)))
    return kept


def _left(problem: Problem, tier: Tier) -> tuple[int, ...] | None:
    return None if tier.remain is None or not problem.is_flat else (tier.remain,)


def _after(w: int, tier: Tier) -> dict[int, float]:
    return {} if tier.after_loss is None else {w: tier.after_loss}


def _need(problem: Problem, sizes: list[Pool]) -> tuple[int, ...]:
    """Replicas by state that all traffic of a deployment's workloads takes at the best of its sizes, spares and floor included."""
    rules = problem.rules
    found = _fewest(problem, [(pool.replicas, pool.capacity) for pool in sizes], rules.max_slo_load)
    return tuple(max(n + rules.spare_replicas if n else 0, rules.floor_replicas) for n in found)


def _remain(problem: Problem, sizes: list[Pool]) -> tuple[int, ...]:
    """Those of them that must remain after a loss."""
    return tuple(_fewest(problem, [(pool.replicas, pool.left_capacity) for pool in sizes], problem.rules.load_after_loss))


def _fewest(problem: Problem, sizes: Sequence[tuple[int, Mapping[int, float]]], most_load: float) -> Iterator[int]:
    """Replicas by state that carry all traffic at so much load, at the capacities that so many replicas have."""
    for i in range(len(problem.states)):
        loads = [sum(problem.demands[w].rates[i] / mu for w, mu in capacity.items()) / most_load for _, capacity in sizes]
        yield min(max(ceil(load * (1 - EXACT)), least) for load, (least, _) in zip(loads, sizes, strict=True)) if any(loads) else 0


def deployments(all_pools: list[Pool] | tuple[Pool, ...], is_flat: bool) -> list[int]:
    """For each pool d(p), the first pool of its deployment: over several states, a candidate for given workloads at any size."""
    if is_flat:
        return list(range(len(all_pools)))
    first: dict[tuple[int, tuple[int, ...]], int] = {}
    return [first.setdefault((pool.column, pool.workloads), p) for p, pool in enumerate(all_pools)]


def groups(workloads: frozenset[int], apart: frozenset[frozenset[int]]) -> list[frozenset[int]]:
    """The largest sets of these workloads without a pair that is kept apart."""
    pair = next((p for p in sorted(apart, key=sorted) if p <= workloads), None)
    if pair is None:
        return [workloads]
    found = {g for w in pair for g in groups(workloads - {w}, apart)}
    return sorted((g for g in found if not any(g < other for other in found)), key=sorted)


def counts_pools(problem: Problem, all_pools: tuple[Pool, ...]) -> bool:
    """Whether the program needs to know which pools are in use (binaries), or traffic may flow freely."""
    r = problem.rules
    limits = (r.pools_per_workload, r.max_models, r.max_gpu_types)
    counted = any(v is not None for v in limits) or not r.mix or r.spare_replicas > 0 or r.floor_replicas > 1 or any(p.replicas > 1 for p in all_pools)
    return (counted or not problem.is_flat) and any(p.need is None for p in all_pools)
