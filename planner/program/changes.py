"""From what is held today: how many instances more or fewer, and what that costs."""

from __future__ import annotations

from pyomo.core.base import Constraint, NonNegativeReals, Var
from pyomo.core.util import quicksum

from planner.program.kinds import Model, Term
from planner.program.problem import Problem
from planner.program.variables import slack


def define(m: Model, problem: Problem) -> None:
    """(26) a[o] ≥ I[o] − now[o], r[o] ≥ now[o] − I[o], Σ_o (a[o] + r[o]) ≤ most: instances added and returned, in a problem of one state; what is
    owned is there either way, so taking it to use is no change.

    What is held today has an I[o] even where nothing that serves fits on it: it is kept idle or returned.
    """
    changes = problem.rules.changes
    if changes is None:
        return
    now = {o: problem.offers[o].now for o in m.offer_keys if not problem.offers[o].owned}
    m.a = Var(list(now), domain=NonNegativeReals)
    m.r = Var(list(now), domain=NonNegativeReals)
    m.added = Constraint(list(now), rule=lambda m, o: m.a[o] >= m.I[o, 0] - now[o])
    m.returned = Constraint(list(now), rule=lambda m, o: m.r[o] >= now[o] - m.I[o, 0])
    if changes.most is not None:
        m.most_changes = Constraint(expr=quicksum(m.a.values()) + quicksum(m.r.values()) <= changes.most + slack(m, "max_changes"))


def cost(m: Model, problem: Problem) -> Term:
    """(27) c·Σ_o G[o]·(a[o] + r[o]), $/h."""
    each = problem.rules.changes.usd_per_gpu if problem.rules.changes else 0.0
    return each * quicksum(problem.offers[o].gpus * (m.a[o] + m.r[o]) for o in m.a) if each else 0.0
