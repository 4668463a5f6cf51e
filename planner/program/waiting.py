"""Waiting work: done within its windows, beside traffic in what its replicas have left, or on replicas of its own."""

from __future__ import annotations

import numpy as np
from pyomo.core.base import Binary, Constraint, NonNegativeReals, Var
from pyomo.core.util import quicksum

from planner.program.kinds import Model, PoolIndex, StateIndex, Term, WorkIndex
from planner.program.problem import Pool, Problem
from planner.program.variables import pools_of_deployments, running

LEAST_SHARE = 1e-6  # of a window's work: less is none


def define(m: Model, problem: Problem, pools: tuple[Pool, ...]) -> None:
    """b[k,d,i] ≥ 0: replicas of deployment d that waiting work k takes in state i of a window; c[k,d]: what one does of it in an hour;
    h[d,i] ∈ {0,1}: whether any of it is beside the traffic of d; L: the load of that traffic at the capacities of sharing, at most L̄.

    (17) Σ_{d, i in window} c[k,d]·hours[i]·b[k,d,i] = amount of every window;
    (18) Σ_k b[k,d,i] + L[d,i] + (L̄[d,i] + spare)·h[d,i] ≤ Σ_o n[d,o,i] + L̄[d,i]; on replicas of its own Σ_k b[k,d,i] ≤ Σ_o n[d,o,i];
    (19) Σ_k b[k,d,i] ≤ M[d]·h[d,i], h[d,i] ≤ u[d]; on replicas of its own ≤ M[d]·u[d]; (20) Σ_d u[d] ≤ 1 over k's own deployments.
    """
    works, states = problem.waiting, problem.states
    sizes = pools_of_deployments(m)
    speeds = {(k, d): c for k in map(WorkIndex, range(len(works))) for d in sizes if (c := _speed(problem, k, pools[d])) > 0}
    m.b = Var([(k, d, i) for k, d in speeds for window in works[k].windows for i in window], domain=NonNegativeReals)
    hosts = sorted({(d, i) for _, d, i in m.b})
    beside = [(d, i) for d, i in hosts if pools[d].workloads]
    most = {d: most_replicas(problem, pools[d]) for d, _ in hosts}
    m.h = Var(beside, domain=Binary)

    def work(d: PoolIndex, i: StateIndex) -> Term:
        return quicksum(m.b[k, d, i] for k in range(len(works)) if (k, d, i) in m.b)

    def room(m: Model, d: PoolIndex, i: StateIndex) -> Term:
        there, load = quicksum(running(m, p, i) for p in sizes[d]), _shared_load(problem, pools[d], i)
        if (d, i) not in m.h:
            return work(d, i) <= there
        if pools[d].need is not None:  # L is L̄
            return work(d, i) + (sum(load.values()) + problem.rules.spare_replicas) * m.h[d, i] <= there
        now = quicksum(load[w] * m.x[w, p, i] for p in sizes[d] for w in load if (w, p, i) in m.x)
        return work(d, i) + now + (sum(load.values()) + problem.rules.spare_replicas) * m.h[d, i] <= there + sum(load.values())

    def done(m: Model, k: WorkIndex, j: int) -> Term:
        return quicksum(speeds[k, d] * states[i].hours * m.b[k, d, i] for e, d in speeds if e == k for i in works[k].windows[j]) == works[k].amounts[j]

    m.done = Constraint([(k, j) for k, w in enumerate(works) for j in range(len(w.windows))], rule=done)
    m.room = Constraint(hosts, rule=room)
    m.limit = Constraint(hosts, rule=lambda m, d, i: work(d, i) <= most[d] * (m.h[d, i] if (d, i) in m.h else m.u[d]))
    m.hosts_in_use = Constraint([(d, i) for d, i in beside if d in m.u], rule=lambda m, d, i: m.h[d, i] <= m.u[d])
    own = {k: [d for e, d in speeds if e == k and not pools[d].workloads] for k in range(len(works))}
    m.one_own = Constraint([k for k, some in own.items() if len(some) > 1], rule=lambda m, k: quicksum(m.u[d] for d in own[k]) <= 1)


def _speed(problem: Problem, k: WorkIndex, pool: Pool) -> float:
    """Requests of work k that a replica does in an hour; 0 where it may not wait there."""
    work = problem.waiting[k]
    if not pool.workloads:
        return work.alone.get(pool.column, 0.0)
    return work.beside.get(pool.column, 0.0) if set(pool.workloads) <= set(problem.columns[pool.column].shared) else 0.0


def most_replicas(problem: Problem, pool: Pool) -> float:
    """What waiting work would take on a deployment if it did all of it in one state."""
    shortest = min(s.hours for s in problem.states)
    return sum(max(w.amounts) / c / shortest for k, w in enumerate(problem.waiting) if (c := _speed(problem, WorkIndex(k), pool)) > 0)


def _shared_load(problem: Problem, pool: Pool, i: StateIndex) -> dict[int, float]:
    """Replicas' worth of all of each workload in a state at the capacities of sharing."""
    shared = problem.columns[pool.column].shared
    return {w: problem.demands[w].rates[i] / shared[w] / problem.rules.max_slo_load for w in pool.workloads}


def done(m: Model, problem: Problem, pools: tuple[Pool, ...], running: dict[int, list[int]]) -> dict[int, dict[int, tuple[float, ...]]]:
    """Waiting requests by deployment, work and state, without the solver's crumbs: less than LEAST_SHARE of a window, or on nothing, is none.

    running: replicas by deployment and state.
    """
    found: dict[int, dict[int, tuple[float, ...]]] = {}
    for k, work in enumerate(problem.waiting):
        able = {d: c for d in running if (c := _speed(problem, WorkIndex(k), pools[d])) > 0}
        many = np.zeros((len(able), len(problem.states)))
        for at, (d, c) in enumerate(able.items()):
            for i, state in enumerate(problem.states):
                if (k, d, i) in m.b and running[d][i]:
                    many[at, i] = max(0.0, m.b[k, d, i].value or 0.0) * c * state.hours
        for window, amount in zip(work.windows, work.amounts, strict=True):
            here = many[:, list(window)]
            here[here < LEAST_SHARE * amount] = 0.0
            many[:, list(window)] = here * (amount / here.sum())
        for d, row in zip(able, many.tolist(), strict=True):
            found.setdefault(d, {})[k] = tuple(row)
    return found
