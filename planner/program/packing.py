"""Packing: replicas fit on the instances held, host by host."""

from __future__ import annotations

from collections.abc import Sequence

from pyomo.core.base import Constraint, SetOf
from pyomo.core.util import quicksum

from planner.program.kinds import Model, OfferIndex, StateIndex, Term
from planner.program.problem import ChosenPool, Pool, Problem, Purchasable

FIRST = StateIndex(0)


def define(m: Model, problem: Problem, pools: tuple[Pool, ...]) -> None:
    """For each offer o, each state i and each power of two s ≤ G[o] that some replica on it needs:
    (6) Σ_{p: g≥s} (g[p]/s)·n[p,o,i] ≤ ⌊G[o]/s⌋·I[o,i].

    Replicas have 2^k GPUs, so they tile an instance and the rows are exact: those of size ≥ s take ⌊G/s⌋ places at most.
    A replica larger than an instance takes ⌈g/G⌉ whole ones. Where GPUs are sold one by one, one row counts GPUs.
    """

    def rule(m: Model, o: OfferIndex, s: int, i: StateIndex) -> Term:
        offer = problem.offers[o]
        there = offer.gpus // s if offer.whole else 1
        needs = ((key, _size(problem, pools[key[0]])) for key in m.replicas_by_offer[o, i])
        taken = quicksum(places(g, s, offer) * m.n[key] for key, g in needs if g >= s)
        return taken <= there * m.I[o, i]

    sizes = {
        o: sizes_that_matter(problem.offers[o], {_size(problem, pools[p]) for p, _, _ in m.replicas_by_offer[o, 0]})
        for o in m.offer_keys
        if (o, 0) in m.replicas_by_offer
    }
    m.packing = Constraint(SetOf([(o, s, i) for o, each in sizes.items() for s in each for i in range(len(problem.states))]), rule=rule)


def fewest_instances(problem: Problem, chosen: Sequence[ChosenPool], i: StateIndex = FIRST) -> dict[int, int]:
    """Instances of each offer that the rows above leave, at least, for the replicas of some pools in a state."""
    found = {}
    for o, offer in enumerate(problem.offers):
        here = [(_size(problem, c.pool), n) for c in chosen if (n := c.running[i].get(o, 0))]
        needs = {s: sum(places(g, s, offer) * n for g, n in here if g >= s) for s in sizes_that_matter(offer, {g for g, _ in here})} if here else {}
        found[o] = max((-(-taken // (offer.gpus // s if offer.whole else 1)) for s, taken in needs.items()), default=0)
    return found


def _size(problem: Problem, pool: Pool) -> int:
    return problem.columns[pool.column].gpus


def sizes_that_matter(offer: Purchasable, sizes: set[int]) -> list[int]:
    """The powers of two that matter on an offer: the sizes of its replicas, cut to the instance."""
    if not offer.whole:
        return [1]
    largest = 1 << (offer.gpus.bit_length() - 1)
    return sorted({min(g, largest) for g in sizes})


def places(g: int, s: int, offer: Purchasable) -> int:
    """Places of size s that a replica of g GPUs takes."""
    if offer.whole and g > offer.gpus:
        return -(-g // offer.gpus) * (offer.gpus // s)
    return g // s
