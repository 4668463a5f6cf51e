"""Demand: all traffic of every workload is served."""

from __future__ import annotations

from typing import Any

from pyomo.core.base import Constraint
from pyomo.core.util import quicksum

from planner.program.problem import Pool, Problem
from planner.program.variables import slack


def define(m: Any, problem: Problem, pools: tuple[Pool, ...]) -> None:
    """(2) Σ_p x[w,p] = 1 for every workload w (1 − slack where demand is relaxed)."""

    def rule(m: Any, w: int) -> Any:
        flows = m.flow_by_workload.get(w, [])
        if not flows:
            return Constraint.Infeasible
        return quicksum(m.x[k] for k in flows) + slack(m, "demand") == 1

    m.demand = Constraint(range(len(problem.demands)), rule=rule)
