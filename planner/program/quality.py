"""Quality: the mean score over a workload's requests. (Floors are no constraint: pairs below them are absent.)"""

from __future__ import annotations

from typing import Any

from pyomo.core.base import Constraint
from pyomo.core.util import quicksum

from planner.program.problem import Pool, Problem


def define(m: Any, problem: Problem, pools: tuple[Pool, ...]) -> None:
    """(7) Σ_p (q[p,w] − Q[w])·a[p,w]·x[w,p] ≥ 0 for every workload with a mean floor Q[w]; a turns flow into requests/s
    (1 for a rate; λ*/N* where traffic is counted in flight), so that the mean is over requests.
    """

    def rule(m: Any, w: int) -> Any:
        floor = problem.demands[w].mean_quality
        columns = {p: problem.columns[pools[p].column] for _, p in m.flow_by_workload.get(w, [])}
        if not columns:
            return Constraint.Feasible
        return quicksum((c.quality[w] - floor) * m.x[w, p] for p, c in columns.items()) >= 0

    m.mean_quality = Constraint([w for w, d in enumerate(problem.demands) if d.mean_quality is not None], rule=rule)
