"""Starts: what is held more than before is started, which is paid, and then held for a while."""

from __future__ import annotations

from pyomo.core.base import Constraint
from pyomo.core.util import quicksum

from planner.program.kinds import Model, StateIndex
from planner.program.problem import Pool, Problem


def define(m: Model, problem: Problem, pools: tuple[Pool, ...]) -> None:
    """(15) s[o,i] ≥ I[o,i] − I[o,b(i)] with b(i) the state before i;
    (16) Σ_{j: i and the m−1 states before it} s[o,j] ≤ I[o,i]: held for at least m states.
    """
    m.rise = Constraint(list(m.s), rule=lambda m, o, i: m.s[o, i] >= m.I[o, i] - m.I[o, problem.states[i].before])
    lately = {i: _lately(problem, i) for i in map(StateIndex, range(len(problem.states)))}
    m.up = Constraint(list(m.s) if problem.rules.min_up > 1 else [], rule=lambda m, o, i: quicksum(m.s[o, j] for j in lately[i]) <= m.I[o, i])


def _lately(problem: Problem, i: StateIndex) -> list[StateIndex]:
    """The state and those before it in which something started would still have to be held; once around a circle at most."""
    found: list[StateIndex] = []
    at: StateIndex | None = i
    while at is not None and at not in found and len(found) < problem.rules.min_up and problem.states[at].before is not None:
        found.append(at)
        at = problem.states[at].before
    return found
