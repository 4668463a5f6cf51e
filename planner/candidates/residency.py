"""Where data may live: which offers may serve which workload, and the columns of candidates that may serve not all of theirs everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from planner.catalog.records import Offer
from planner.program.problem import Column
from planner.scenario.workload import Workload

T = TypeVar("T")


def may_serve(offer: Offer, workload: Workload) -> bool:
    """Whether a workload's data may be where an offer is: in one of its regions or geographies. GPUs of one's own are at the site they are named after."""
    place = offer.provider if offer.is_owned else offer.region
    return not workload.has_places or place in workload.regions or offer.geography in workload.geographies


def by_place(column: Column, offers: Sequence[Offer], workloads: Sequence[Workload]) -> list[Column]:
    """The column once for each set of offers on which some of its workloads may all be: each copy serves those alone, so that no pool of it is elsewhere."""
    if not any(w.has_places for w in workloads):
        return [column]
    may = {w: frozenset(o for o in column.offers if may_serve(offers[o], workloads[w])) for w in column.quality}
    sets = set(may.values())
    for here in may.values():
        sets |= {here & other for other in sets}
    return [_at(column, here, {w for w in may if here <= may[w]}) for here in sorted(sets - {frozenset()}, key=sorted)]


def _at(column: Column, here: frozenset[int], workloads: set[int]) -> Column:
    def some(of: Mapping[int, T]) -> dict[int, T]:
        return {w: x for w, x in of.items() if w in workloads}

    return replace(
        column,
        tiers=some(column.tiers),
        shared=some(column.shared),
        shared_after_loss=some(column.shared_after_loss),
        quality=some(column.quality),
        offers=tuple(sorted(here)),
    )
