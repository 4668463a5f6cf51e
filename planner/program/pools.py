"""Which pools there are: the sets of the program, derived from candidates and rules.

A pool is a candidate put to use. One that serves a single workload has the capacity of its size: a router spreads
Poisson noise over more replicas, so capacity per replica grows with their number, and every size tier is a pool of its
own with a least number of replicas. One that several workloads may share has the (lower) shared capacities. Splitting the two
keeps the capacity constraint linear without a big-M.
"""

from __future__ import annotations

from planner.program.problem import Pool, Problem


def pools(problem: Problem) -> tuple[Pool, ...]:
    """All pools of the problem, alone ones first within a candidate."""
    found: list[Pool] = []
    for c, column in enumerate(problem.columns):
        for w, tiers in column.tiers.items():
            found += [Pool(c, (w,), {w: t.capacity}, t.replicas) for t in tiers]
        for group in groups(frozenset(column.shared), problem.rules.apart):
            if len(group) > 1:
                found.append(Pool(c, tuple(w for w in column.shared if w in group), {w: m for w, m in column.shared.items() if w in group}, 1))
    return tuple(found)


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
    return any(v is not None for v in limits) or not r.mix or r.spare_replicas > 0 or any(p.replicas > 1 for p in all_pools)
