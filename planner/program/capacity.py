"""Capacity: a pool carries no more than its replicas in service sustain inside the SLO."""

from __future__ import annotations

from typing import Any

from pyomo.core.base import Constraint
from pyomo.core.util import quicksum

from planner.program.problem import Pool, Problem

LITTLE_LOAD = 1e-4  # replicas: the solver's tolerance (1e-7) would let so little be served by none


def define(m: Any, problem: Problem, pools: tuple[Pool, ...]) -> None:
    """(3) Σ_w λ[w]/μ[p,w]·x[w,p] ≤ u·(Σ_o n[p,o] − k·y[p]) for every pool p, with u the SLO load allowed and k the spare replicas;
    (4) Σ_o n[p,o] ≥ (r[p] + k)·y[p] where capacity μ[p,w] needs at least r[p] replicas in service;
    (5) x[w,p] ≤ Σ_o n[p,o] where all of w is little for one replica.
    """
    u, k = problem.rules.max_slo_load, problem.rules.spare_replicas

    def load(w: int, p: int) -> float:
        return problem.demands[w].rate / pools[p].capacity[w]

    def carried(m: Any, p: int) -> Any:
        taken = quicksum(m.x[w, p] * load(w, p) for w in pools[p].workloads)
        spare = k * m.y[p] if k else 0
        return taken <= u * (quicksum(m.n[key] for key in m.replicas_by_pool.get(p, [])) - spare)

    def size(m: Any, p: int) -> Any:
        least = pools[p].replicas + k
        return quicksum(m.n[key] for key in m.replicas_by_pool.get(p, [])) >= least * m.y[p]

    m.capacity = Constraint(range(len(pools)), rule=carried)
    little = [(w, p) for w, p in m.flow_keys if load(w, p) < LITTLE_LOAD]
    m.little = Constraint(little, rule=lambda m, w, p: m.x[w, p] <= quicksum(m.n[key] for key in m.replicas_by_pool.get(p, [])))
    m.pool_size = Constraint([p for p in m.pool_keys if pools[p].replicas + k > 1], rule=size)
