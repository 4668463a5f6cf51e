"""Use: which pools serve which workload, and how many; a fleet that people can run."""

from __future__ import annotations

from pyomo.core.base import Constraint, SetOf
from pyomo.core.util import quicksum

from planner.program.kinds import Model
from planner.program.problem import Pool, Problem
from planner.program.variables import in_use, pools_of_deployments, running, uses


def define(m: Model, problem: Problem, pools: tuple[Pool, ...]) -> None:
    """(8) x[w,p,i] ≤ z[w,d(p)]; z[w,d] ≤ u[d]; (9) Σ_d z[w,d] ≤ P, without hosted d that take what overflows; and where a workload keeps to one checkpoint
    (10) z[w,d] ≤ v[w,k(d)], Σ_k v[w,k] ≤ 1. Where d serves w alone, u[d] is z[w,d]. In a state of several also x[w,p,i] ≤ y[p,i] ≤ u[d(p)];
    of an only one u is y, and with one pool per workload x is 0 or 1 and x[w,p] ≤ y[p] says all of it. Nothing when traffic may flow freely.
    """
    if not m.counted:
        return
    if m.whole:
        m.serves = Constraint(SetOf(m.flow_keys), rule=lambda m, w, p, i: m.x[w, p, i] <= m.y[p, i])
        return
    limit = problem.rules.pools_per_workload
    m.serves = Constraint(SetOf(m.flow_keys), rule=lambda m, w, p, i: m.x[w, p, i] <= (m.z[w, m.heads[p]] if pools[p].is_shared else m.y[p, i]))
    m.shared_in_use = Constraint(list(m.z), rule=lambda m, w, d: m.z[w, d] <= in_use(m, d))
    if not problem.is_flat:
        _in_states(m, problem, pools)
    workloads = sorted({w for w, _ in m.serving})
    if limit is not None:
        numbered = [(w, d) for w, d in m.serving if not (problem.rules.overflow and d in m.hosted)]
        m.pool_limit = Constraint(sorted({w for w, _ in numbered}), rule=lambda m, w: quicksum(uses(m, pools, w, d) for v, d in numbered if v == w) <= limit)
    if len(m.v):
        m.same_checkpoint = Constraint(m.serving, rule=lambda m, w, d: uses(m, pools, w, d) <= m.v[w, problem.columns[pools[d].column].checkpoint])
        m.one_checkpoint = Constraint(workloads, rule=lambda m, w: quicksum(m.v[k] for k in m.v if k[0] == w) <= 1)


def _in_states(m: Model, problem: Problem, pools: tuple[Pool, ...]) -> None:
    """What is in use in a state is of a deployment in use, which has its least number of replicas in every state: (14) Σ_o n[d,o,i] ≥ f·u[d]."""
    shared = [key for key in m.flow_keys if pools[key[1]].is_shared]
    m.flows_in_state = Constraint(shared, rule=lambda m, w, p, i: m.x[w, p, i] <= m.y[p, i])
    m.pool_in_state = Constraint(m.pool_keys, rule=lambda m, p, i: m.y[p, i] <= in_use(m, m.heads[p]))
    sizes = {d: every for d, every in pools_of_deployments(m).items() if d in m.u and pools[d].workloads and d not in m.hosted}
    floor, states = problem.rules.floor_replicas, range(len(problem.states))
    floored = [(d, i) for d in sizes for i in states] if floor else []
    m.floor = Constraint(floored, rule=lambda m, d, i: quicksum(running(m, p, i) for p in sizes[d]) >= floor * m.u[d])
