"""How instances are bought: commitments are held whatever happens, and spot instances only so far as the rest bears their loss."""

from __future__ import annotations

from pyomo.core.base import Constraint
from pyomo.core.util import quicksum

from planner.program.kinds import Model, PoolIndex, StateIndex, Term
from planner.program.problem import Problem
from planner.program.variables import pools_of_deployments, running


def define(m: Model, problem: Problem) -> None:
    """(22) I[o,i] = I[o,j] for every committed offer o, i and j of one span, and I[o,i] = 0 in no span: a span holds all states of its term, of all
    scenarios if it is signed before they part;
    (23) Σ_{o spot} n[d,o,i] ≤ σ·Σ_o n[d,o,i] for every deployment d and state i, σ the share that may be spot.
    """
    states = [StateIndex(i) for i in range(len(problem.states))]
    spans = {o: problem.spans_of(o) for o in m.offer_keys if problem.offers[o].committed}
    first = {(o, i): span[0] for o, found in spans.items() for span in found for i in span}
    m.committed = Constraint([(o, i) for (o, i), j in first.items() if i != j], rule=lambda m, o, i: m.I[o, i] == m.I[o, first[o, i]])
    m.not_committed = Constraint([(o, i) for o in spans for i in states if (o, i) not in first], rule=lambda m, o, i: m.I[o, i] == 0)
    share = problem.rules.most_spot
    if share is None:
        return
    spot = {o for o in m.offer_keys if problem.offers[o].spot}
    mixed = {d: every for d, every in pools_of_deployments(m).items() if any(o in spot for p in every for o in _offers(m, p))}

    def rule(m: Model, d: PoolIndex, i: StateIndex) -> Term:
        taken = quicksum(m.n[p, o, i] for p in mixed[d] for o in _offers(m, p) if o in spot)
        return taken <= share * quicksum(running(m, p, i) for p in mixed[d])

    m.spot_share = Constraint([(d, i) for d in mixed for i in states], rule=rule)


def _offers(m: Model, p: int) -> list[int]:
    """Offers that a pool's replicas may be on."""
    return [o for _, o, _ in m.replicas_by_pool.get((p, 0), [])]
