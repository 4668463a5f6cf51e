"""Problems by location: where only one may be used, each is a problem of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace

from planner.program.kinds import ColumnIndex, OfferIndex
from planner.program.problem import Problem


@dataclass(frozen=True)
class LocalProblem:
    """A problem on some of the offers and columns, with the indices these have in the whole."""

    problem: Problem
    columns: tuple[ColumnIndex, ...]
    offers: tuple[OfferIndex, ...]


def sections(problem: Problem) -> list[LocalProblem]:
    """The problem at each of its locations."""
    return [at_location(problem, offers) for offers in locations(problem).values()]


def locations(problem: Problem) -> dict[str, list[int]]:
    """Offers by location, in the order of the offers. Those of no location stand alone, and beside each; so does what is hosted."""
    found: dict[str, list[int]] = {}
    for o, offer in enumerate(problem.offers):
        found.setdefault(offer.location, []).append(o)
    anywhere = found.pop("", [])
    alone = {"": anywhere} if anywhere or any(c.is_hosted for c in problem.columns) else {}
    return alone | {place: sorted((*anywhere, *offers)) for place, offers in found.items()}


def at_location(problem: Problem, offers: list[int]) -> LocalProblem:
    """The problem at one location. What is held today anywhere else is returned, which counts as changes."""
    place = {o: i for i, o in enumerate(offers)}
    elsewhere = [o for o, offer in enumerate(problem.offers) if offer.now and o not in place] if problem.rules.changes else []
    columns = [(c, tuple(place[o] for o in column.offers if o in place)) for c, column in enumerate(problem.columns)]
    here = [(c, hosts) for c, hosts in columns if hosts or problem.columns[c].is_hosted]
    part = replace(
        problem,
        columns=tuple(replace(problem.columns[c], offers=hosts) for c, hosts in here),
        offers=(*(problem.offers[o] for o in offers), *(replace(problem.offers[o], available=0) for o in elsewhere)),
        rules=replace(problem.rules, max_locations=None),
    )
    return LocalProblem(part, tuple(ColumnIndex(c) for c, _ in here), tuple(map(OfferIndex, (*offers, *elsewhere))))
