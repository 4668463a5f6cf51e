"""Use: which pools serve which workload, and how many; a fleet that people can run."""

from __future__ import annotations

from typing import Any

from pyomo.core.base import Constraint
from pyomo.core.util import quicksum

from planner.program.problem import Pool, Problem
from planner.program.variables import uses


def define(m: Any, problem: Problem, pools: tuple[Pool, ...]) -> None:
    """(8) x[w,p] ≤ z[w,p]; z[w,p] ≤ y[p]; (9) Σ_p z[w,p] ≤ P; and where a workload keeps to one checkpoint
    (10) z[w,p] ≤ v[w,k(p)], Σ_k v[w,k] ≤ 1. With one pool per workload x is 0 or 1 and x[w,p] ≤ y[p] says all of it.
    Nothing when traffic may flow freely.
    """
    if not m.counted:
        return
    if m.whole:
        m.serves = Constraint(m.flow_keys, rule=lambda m, w, p: m.x[w, p] <= m.y[p])
        return
    limit = problem.rules.pools_per_workload
    shared = [key for key in m.flow_keys if pools[key[1]].is_shared]
    m.serves = Constraint(m.flow_keys, rule=lambda m, w, p: m.x[w, p] <= uses(m, pools, w, p))
    m.shared_in_use = Constraint(shared, rule=lambda m, w, p: m.z[w, p] <= m.y[p])
    workloads = [w for w in range(len(problem.demands)) if w in m.flow_by_workload]
    if limit is not None:
        m.pool_limit = Constraint(workloads, rule=lambda m, w: quicksum(uses(m, pools, w, p) for _, p in m.flow_by_workload[w]) <= limit)
    if len(m.v):
        m.same_checkpoint = Constraint(m.flow_keys, rule=lambda m, w, p: uses(m, pools, w, p) <= m.v[w, problem.columns[pools[p].column].checkpoint])
        m.one_checkpoint = Constraint(workloads, rule=lambda m, w: quicksum(m.v[k] for k in m.v if k[0] == w) <= 1)
