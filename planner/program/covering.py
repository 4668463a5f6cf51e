"""Traffic left out of the program: where every pool serves one workload and may be used freely, replicas alone say what a plan can carry.

The solver then sees rows of whole numbers only, from which it makes cuts; with shares of traffic beside them it came to no end on the same problems.
"""

from __future__ import annotations

from pyomo.core.base import Constraint
from pyomo.core.util import quicksum

from planner.program.kinds import Model, Term
from planner.program.model import Built

ALIKE = 1e5  # loads of a workload further apart stay as they are: a row would hold coefficients that the solver cannot tell apart


def cover(built: Built) -> dict[tuple[int, int, int], float] | None:
    """Replaces demand, capacity and packing by Σ_p L/ℓ[w,p]·I[p] ≥ L, where a replica is bought as one thing (offer p is pool p's).

    ℓ[w,p] = λ[w]/(u·μ[p,w]), and L is the largest of them. Returns ℓ by x's keys.
    For one state. None, and nothing done, where pools are shared, counted or have spares, or loads lie far apart.
    """
    m, problem = built.program, built.problem
    if m.counted or any(len(p.workloads) > 1 for p in built.pools):
        return None
    load = {(w, p, 0): problem.demands[w].rate / built.pools[p].capacity[w] / problem.rules.max_slo_load for w, p, _ in m.flow_keys}
    by_workload = {w: [load[key] for key in keys] for (w, _), keys in m.flow_by_workload.items()}
    if len(by_workload) < len(problem.demands) or any(max(row) > ALIKE * min(row) for row in by_workload.values()):
        return None
    for rows in (m.demand, m.capacity, m.little, m.packing):
        rows.deactivate()

    def rule(m: Model, w: int) -> Term:
        most = max(by_workload[w])
        return quicksum(most / load[key] * m.I[key[1], 0] for key in m.flow_by_workload[w, 0]) >= most

    m.covered = Constraint(sorted(by_workload), rule=rule)
    return load


def share_out(built: Built, load: dict[tuple[int, int, int], float]) -> None:
    """Traffic in proportion to what the replicas found can carry."""
    m = built.program
    able = {key: round(m.I[key[1], 0].value or 0) / ell for key, ell in load.items()}
    for keys in m.flow_by_workload.values():
        total = sum(able[key] for key in keys)
        for key in keys:
            m.x[key].set_value(able[key] / total if total else 0.0, skip_validation=True)
