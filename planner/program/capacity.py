"""Capacity: a pool carries no more than its replicas in service sustain inside the SLO."""

from __future__ import annotations

from pyomo.core.base import Constraint, SetOf
from pyomo.core.util import quicksum

from planner.program.kinds import Model, PoolIndex, StateIndex, Term
from planner.program.problem import Pool, Problem
from planner.program.variables import running

LITTLE_LOAD = 1e-4  # replicas: the solver's tolerance (1e-7) would let so little be served by none


def define(m: Model, problem: Problem, pools: tuple[Pool, ...]) -> None:
    """(3) Σ_w λ[w,i]/μ[p,w]·x[w,p,i] ≤ u·(Σ_o n[p,o,i] − k·y[p,i]) for every pool p and state i, with u the SLO load allowed and k the spare
    replicas; where all the traffic is known to be p's this is a number of replicas: Σ_o n[p,o,i] ≥ need[p,i];
    (4) Σ_o n[p,o,i] ≥ (r[p] + k)·y[p,i] where capacity μ[p,w] needs at least r[p] replicas in service;
    (5) x[w,p,i] ≤ Σ_o n[p,o,i] where all of w is little for one replica. (21) λ[w,i]·x[w,p,i] ≤ most[p,w] where p is hosted and limited,
    Σ_{w, p of host h} λ[w,i]·x[w,p,i] ≤ most[h] where its host is.
    """
    u, k = problem.rules.max_slo_load, problem.rules.spare_replicas
    rates = [d.rates for d in problem.demands]
    free = [p for p, pool in enumerate(pools) if pool.need is None and p not in m.hosted]
    load = {(w, p, i): rates[w][i] / pools[p].capacity[w] for w, p, i in m.flow_keys if p not in m.hosted}
    limit = {(w, p): most for p in m.hosted for w, most in problem.columns[pools[p].column].most.items() if w in pools[p].workloads}

    def carried(m: Model, p: PoolIndex, i: StateIndex) -> Term:
        taken = quicksum(m.x[key] * load[key] for key in m.flow_by_pool.get((p, i), []))
        spare = k * m.y[p, i] if k else 0
        return taken <= u * (running(m, p, i) - spare)

    def size(m: Model, p: PoolIndex, i: StateIndex) -> Term:
        return running(m, p, i) >= (pools[p].replicas + k) * m.y[p, i]

    m.capacity = Constraint(SetOf([(p, i) for p in free for i in range(len(problem.states))]), rule=carried)
    needs = {(p, i): n for p, pool in enumerate(pools) for i, n in enumerate(pool.need or ()) if n}
    m.need = Constraint(list(needs), rule=lambda m, p, i: running(m, p, i) >= needs[p, i])
    little = [key for key, few in load.items() if few < LITTLE_LOAD]
    m.little = Constraint(little, rule=lambda m, w, p, i: m.x[w, p, i] <= running(m, p, i))
    limited = [(w, p, i) for w, p, i in m.flow_keys if (w, p) in limit]
    m.hosted_limit = Constraint(limited, rule=lambda m, w, p, i: rates[w][i] * m.x[w, p, i] <= limit[w, p])
    by_host = {h: [key for key in m.flow_keys if problem.columns[pools[key[1]].column].host == h] for h in problem.rules.host_limits}
    hosts = [(h, i) for h, keys in by_host.items() for i in range(len(problem.states)) if any(k[2] == i for k in keys)]

    def shared_limit(m: Model, h: str, i: StateIndex) -> Term:
        return quicksum(rates[w][i] * m.x[w, p, j] for w, p, j in by_host[h] if j == i) <= problem.rules.host_limits[h]

    m.host_limit = Constraint(hosts, rule=shared_limit)
    m.pool_size = Constraint(SetOf([(p, i) for p, i in m.pool_keys if pools[p].replicas + k > 1]), rule=size)
