"""The worst that may come: a limit on the mean cost of the dearest scenarios (conditional value at risk)."""

from __future__ import annotations

from collections.abc import Iterable

from pyomo.core.base import Constraint, NonNegativeReals, Var
from pyomo.core.util import quicksum

from planner.program.kinds import Model, Term
from planner.program.objective import spent
from planner.program.problem import Pool, Problem


def define(m: Model, problem: Problem, pools: tuple[Pool, ...]) -> None:
    """(28) z[s] ≥ C[s] − η, η + Σ_s π[s]·z[s]/(1 − α) ≤ most: CVaR at level α of C[s], the mean $/h of scenario s (Rockafellar and Uryasev 2000);
    at level 1 C[s] ≤ most.
    """
    limit = problem.rules.risk
    if limit is None:
        return
    cases: dict[int, list[int]] = {}
    for i, state in enumerate(problem.states):
        cases.setdefault(state.case, []).append(i)
    cost = {s: _mean(m, problem, pools, states) for s, states in cases.items()}
    if limit.level >= 1:
        m.worst = Constraint(list(cases), rule=lambda m, s: cost[s] <= limit.most)
        return
    likely = {s: problem.states[states[0]].probability for s, states in cases.items()}
    m.eta, m.over = Var(domain=NonNegativeReals), Var(list(cases), domain=NonNegativeReals)
    m.excess = Constraint(list(cases), rule=lambda m, s: m.over[s] >= cost[s] - m.eta)
    m.cvar = Constraint(expr=m.eta + quicksum(likely[s] / (1 - limit.level) * m.over[s] for s in cases) <= limit.most)


def _mean(m: Model, problem: Problem, pools: tuple[Pool, ...], states: list[int]) -> Term:
    """Mean $/h of a scenario's states."""
    of = problem.states
    hours = sum(of[i].hours * of[i].times for i in states)
    return quicksum(spent(m, problem, pools, i, of[i].hours * of[i].times / hours, of[i].times / hours) for i in states)


def dearest(costs: Iterable[tuple[float, float]], level: float) -> float:
    """Mean of the dearest scenarios of a share 1 − level, of (probability, cost): what (28) limits; at level 1 the dearest."""
    ranked = sorted(costs, key=lambda x: -x[1])
    if level >= 1:
        return ranked[0][1]
    left, total = 1 - level, 0.0
    for p, cost in ranked:
        total, left = total + min(left, p) * cost, left - min(left, p)
    return total / (1 - level)
