"""The variables: traffic x, replicas n, instances I held and s started, use of pools y and z and of deployments u, work that waits b, and slack."""

from __future__ import annotations

from pyomo.core.base import Binary, NonNegativeIntegers, NonNegativeReals, SetOf, Var
from pyomo.core.util import quicksum

from planner.program.kinds import Model, PoolIndex, StateIndex, Term, WorkloadIndex
from planner.program.pools import deployments
from planner.program.problem import Pool, Problem


def declare(m: Model, problem: Problem, pools: tuple[Pool, ...], counted: bool, relax: str | None) -> None:
    """For each state i: x[w,p,i] ≥ 0 share of workload w on pool p; n[p,o,i] replicas of p on offer o; I[o,i] instances held, no more than
    there are and no fewer than are contracted; s[o,i] instances started, where that counts; y[p,i] pool in use. For all states: u[d] deployment
    in use (y[p] of an only state); z[w,d] workload w on shared deployment d; v[w,k] workload w on checkpoint k (where pools may not mix);
    slack[·] ≥ 0 of the relaxed demand.
    No x and no y where a pool's need is known.
    """
    states, flat = range(len(problem.states)), problem.is_flat
    free = [p for p, pool in enumerate(pools) if pool.need is None]
    m.heads, m.counted = deployments(pools, flat), counted
    busy = [[i for i in states if flat or d.rates[i] > 0] for d in problem.demands]
    m.flow_keys = [(w, p, i) for p in free for w in pools[p].workloads for i in busy[w]]
    m.replica_keys = [(p, o, i) for p, pool in enumerate(pools) for o in problem.columns[pool.column].offers for i in states]
    m.offer_keys = sorted(
        {o for _, o, _ in m.replica_keys} | {o for o, offer in enumerate(problem.offers) if offer.least or (problem.rules.changes and offer.now)}
    )
    m.held_keys = [(o, i) for o in m.offer_keys for i in states]
    m.hosted = {p for p, pool in enumerate(pools) if problem.columns[pool.column].is_hosted}
    m.whole = counted and problem.rules.pools_per_workload == 1 and relax != "demand" and flat and not (m.hosted and problem.rules.overflow)  # x says which
    m.x = Var(SetOf(m.flow_keys), domain=Binary if m.whole or problem.rules.at_once else NonNegativeReals)
    m.n = Var(SetOf(m.replica_keys), domain=NonNegativeIntegers)
    m.I = Var(SetOf(m.held_keys), domain=NonNegativeIntegers, bounds=lambda _, o, i: (problem.offers[o].least, problem.offers[o].available))
    m.s = Var([(o, i) for o, i in m.held_keys if problem.states[i].before is not None] if problem.counts_starts else [], domain=NonNegativeReals)
    m.pool_keys = [(p, i) for p in free for i in states] if counted else []
    m.y = Var(SetOf(m.pool_keys), domain=Binary)
    optional = [p for p, pool in enumerate(pools) if m.heads[p] == p and ((counted and pool.need is None) or not pool.workloads)]
    m.u = Var([] if flat else optional, domain=Binary)
    m.serving = [(w, p) for p in free if m.heads[p] == p for w in pools[p].workloads]  # (w, d)
    m.z = Var([(w, d) for w, d in m.serving if counted and not m.whole and pools[d].is_shared], domain=Binary)
    several = problem.rules.pools_per_workload != 1 or (m.hosted and problem.rules.overflow)
    single = counted and not problem.rules.mix and several
    m.v = Var(sorted({(w, problem.columns[pools[d].column].checkpoint) for w, d in m.serving}) if single else [], domain=Binary)
    m.slack = Var(
        [k for k in (("demand", ""), ("max_changes", ""), *((c.family, c.key) for c in problem.rules.caps)) if k[0] == relax], domain=NonNegativeReals
    )
    m.flow_by_workload = _grouped(m.flow_keys, 0)
    m.flow_by_pool = _grouped(m.flow_keys, 1)
    m.replicas_by_pool = _grouped(m.replica_keys, 0)
    m.replicas_by_offer = _grouped(m.replica_keys, 1)


def pools_of_deployments(m: Model) -> dict[PoolIndex, list[PoolIndex]]:
    """The pools p of each deployment d, one for each size."""
    found: dict[PoolIndex, list[PoolIndex]] = {}
    for p, d in enumerate(m.heads):
        found.setdefault(PoolIndex(d), []).append(PoolIndex(p))
    return found


def running(m: Model, p: PoolIndex, i: StateIndex) -> Term:
    """Replicas of a pool in a state, over all offers."""
    return quicksum(m.n[key] for key in m.replicas_by_pool.get((p, i), []))


def in_use(m: Model, d: PoolIndex) -> Term:
    """The binary "deployment d is in use"; 1 where that is known."""
    if d in m.u:
        return m.u[d]
    if (d, 0) not in m.y:
        return 1
    return m.y[d, 0]


def uses(m: Model, pools: tuple[Pool, ...], w: WorkloadIndex, d: PoolIndex) -> Term:
    """The binary "workload w is served by deployment d"."""
    return m.z[w, d] if pools[d].is_shared else in_use(m, d)


def hosted_usd(m: Model, problem: Problem, pools: tuple[Pool, ...], i: StateIndex) -> Term:
    """$/h of what hosted pools serve in a state: Σ_{w,p} p[w,p]·λ[w,i]·x[w,p,i]."""
    keys = [(w, p, i) for p in sorted(m.hosted) for w in pools[p].workloads if (w, p, i) in m.x]
    return quicksum(problem.columns[pools[p].column].usd_per_unit[w] * problem.demands[w].rates[i] * m.x[w, p, i] for w, p, _ in keys)


def slack(m: Model, name: str, key: str = "") -> Term:
    """The slack variable of a relaxed demand, or 0."""
    if (name, key) in m.slack:
        return m.slack[name, key]
    return 0


def _grouped(keys: list[tuple[int, int, int]], position: int) -> dict[tuple[int, int], list[tuple[int, int, int]]]:
    """Keys by what stands at the position, and the state."""
    groups: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    for key in keys:
        groups.setdefault((key[position], key[2]), []).append(key)
    return groups
