"""Quality: the mean score over a workload's requests. (Floors are no constraint: pairs below them are absent.)"""

from __future__ import annotations

from math import inf

from pyomo.core.base import Constraint
from pyomo.core.util import quicksum

from planner.program.kinds import Model, StateIndex, Term, WorkloadIndex
from planner.program.problem import Pool, Problem


def define(m: Model, problem: Problem, pools: tuple[Pool, ...]) -> None:
    """(7) Σ_p (q[p,w] − Q[w])·a[p,w]·x[w,p,i] ≥ 0 for every workload with a mean floor Q[w], in every state i; a turns flow into requests/s
    (1 for a rate; λ*/N* where traffic is counted in flight), so that the mean is over requests.
    """
    floors = {w: d.mean_quality for w, d in enumerate(problem.demands) if d.mean_quality is not None}
    only = {w: problem.columns[pool.column].quality[w] for pool in pools if pool.need is not None for w in pool.workloads if w in floors}

    def rule(m: Model, w: WorkloadIndex, i: StateIndex) -> Term:
        columns = {key: problem.columns[pools[key[1]].column] for key in m.flow_by_workload.get((w, i), [])}
        if not columns:
            return Constraint.Infeasible if only.get(w, inf) < floors[w] else Constraint.Feasible
        return quicksum((c.quality[w] - floors[w]) * m.x[key] for key, c in columns.items()) >= 0

    m.mean_quality = Constraint([(w, i) for w in floors for i in range(len(problem.states))], rule=rule)
