"""From what is held today: how many instances more or fewer, and what that costs."""

from __future__ import annotations

from collections.abc import Callable

from pyomo.core.base import Constraint, NonNegativeReals, Var
from pyomo.core.util import quicksum

from planner.program.kinds import Model, Term
from planner.program.problem import Problem


def define(m: Model, problem: Problem) -> None:
    """(26) a[o] ≥ I[o] − now[o], r[o] ≥ now[o] − I[o], Σ_o (a[o] + r[o]) ≤ most: instances added and returned, in a problem of one state.

    Offers held today that no candidate uses are returned whatever is chosen.
    """
    changes = problem.rules.changes
    if changes is None:
        return
    now = {o: problem.offers[o].now for o in m.offer_keys}
    m.a = Var(m.offer_keys, domain=NonNegativeReals)
    m.r = Var(m.offer_keys, domain=NonNegativeReals)
    m.added = Constraint(m.offer_keys, rule=lambda m, o: m.a[o] >= m.I[o, 0] - now[o])
    m.returned = Constraint(m.offer_keys, rule=lambda m, o: m.r[o] >= now[o] - m.I[o, 0])
    if changes.most is not None:
        m.most_changes = Constraint(expr=quicksum(m.a.values()) + quicksum(m.r.values()) + _useless(m, problem, lambda _: 1) <= changes.most)


def cost(m: Model, problem: Problem) -> Term:
    """(27) c·Σ_o G[o]·(a[o] + r[o]), $/h."""
    each = problem.rules.changes.usd_per_gpu if problem.rules.changes else 0.0
    if not each:
        return 0.0
    return each * (quicksum(problem.offers[o].gpus * (m.a[o] + m.r[o]) for o in m.offer_keys) + _useless(m, problem, lambda o: problem.offers[o].gpus))


def _useless(m: Model, problem: Problem, each: Callable[[int], int]) -> int:
    """Of instances held today that nothing uses, counted one by one or in GPUs."""
    return sum(each(o) * offer.now for o, offer in enumerate(problem.offers) if o not in m.offer_keys)
