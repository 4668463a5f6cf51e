"""Demand: all traffic of every workload is served."""

from __future__ import annotations

from pyomo.core.base import Constraint, SetOf
from pyomo.core.util import quicksum

from planner.program.kinds import Model, StateIndex, Term, WorkloadIndex
from planner.program.problem import Pool, Problem
from planner.program.variables import slack


def define(m: Model, problem: Problem, pools: tuple[Pool, ...]) -> None:
    """(2) Σ_p x[w,p,i] = 1 for every workload w in every state i with traffic (1 − slack where demand is relaxed)."""
    known = {w for pool in pools if pool.need is not None for w in pool.workloads}

    def rule(m: Model, w: WorkloadIndex, i: StateIndex) -> Term:
        flows = m.flow_by_workload.get((w, i), [])
        if not flows:
            return Constraint.Infeasible
        return quicksum(m.x[k] for k in flows) + slack(m, "demand") == 1

    served = [(w, i) for w, d in enumerate(problem.demands) if w not in known for i, rate in enumerate(d.rates) if rate > 0 or problem.is_flat]
    m.demand = Constraint(SetOf(served), rule=rule)
