"""The length at which a router splits a workload's prompts, searched for by what both classes cost, each on a fleet of its own.

First a few boundaries by their share of requests, of the whole catalogue; then, of the models that were cheapest there, halves of the
intervals that may hold a cheaper one: between two boundaries short prompts cost no less than at the lower, long ones no less than at the upper.
That holds but for limits on percentiles, which fewer and longer prompts may meet less easily: so the neighbours of the best are looked at, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from math import inf

import numpy as np

from planner.deadline import Deadline
from planner.errors import TimeUp
from planner.planning.routing import boundaries, histogram_of, is_routed, share_below, split
from planner.scenario.change import assumed_of, with_workloads
from planner.scenario.records import Scenario
from planner.scenario.workload import Workload
from planner.search.answer import Answer
from planner.search.apart import kept_apart
from planner.search.posed import posed
from planner.search.survey_cache import SurveyCache

Costs = tuple[float, float]  # $/h of short and of long prompts
FIRST = (0.2, 0.5, 0.8, 0.95)  # shares of requests below the boundaries looked at first
NEAR = 8  # boundaries to either side of the best: a doubling of length


def searched(scenario: Scenario, cache: SurveyCache, deadline: Deadline) -> tuple[Scenario, tuple[str, ...]]:
    """The scenario with the boundary of every routed workload that states none, and how each was found, in words.

    What couples classes (caps, other workloads) is left to the plan made at the boundary. Users who wait for answers ask at the rate of answers
    that take no time.
    """
    found, notes = list[Workload](), list[str]()
    for w in scenario.workload:
        if not is_routed(w) or w.boundary is not None or not boundaries(histogram_of(w)):
            found.append(w)
        elif scenario.objective.maximize:
            found.append(w)
            notes.append(f"the boundary of {w.name} halves its token work: it is searched for only where cost is minimised")
        else:
            boundary, how = _cheapest(with_workloads(scenario, (w,)), cache, deadline)
            found.append(w.model_copy(update={"boundary": boundary}))
            notes.append(how)
    return with_workloads(scenario, found), tuple(notes)


def _cheapest(scenario: Scenario, cache: SurveyCache, deadline: Deadline) -> tuple[float | None, str]:
    """The cheapest boundary found for its one workload, None where none has a plan, and how it was found."""
    whole, name = histogram_of(scenario.workload[0]), scenario.workload[0].name
    edges, models, own = boundaries(whole), set[str](), SurveyCache(cache.catalog)
    first = sorted({int(np.argmin([abs(share_below(whole, e) - share) for e in edges])) for share in FIRST})

    def cost(i: int) -> Costs:
        is_first = i in first or not models
        asked = assumed_of(scenario, 0, boundary=edges[i], **({} if is_first else {"models": tuple(sorted(models))}))
        costs, serving = costs_apart(asked, cache if is_first else own, deadline)
        models.update(serving if is_first else ())
        return costs

    known, is_whole = beside_the_best(len(edges), *halved(len(edges), first, cost, scenario.solver.gap), cost)
    best = min(known, key=lambda i: sum(known[i]), default=-1)
    named = f" with {' or '.join(sorted(models))}" if models else ""
    others = "no other is cheaper" if falls(known) else "none within a doubling of it is cheaper"
    rest = f"{others}{named}" if is_whole else "then the time limit stopped the search"
    words = f"of {len(edges)} boundaries for {name} {len(known)} were looked at, {rest} (--boundary states one)"
    return edges[best] if best >= 0 and sum(known[best]) < inf else None, words


def beside_the_best(edges: int, known: dict[int, Costs], is_whole: bool, cost: Callable[[int], Costs]) -> tuple[dict[int, Costs], bool]:
    """The same with all edges within NEAR of the cheapest, where halving was done in time."""
    try:
        while is_whole:
            best = min(known, key=lambda i: sum(known[i]))
            near = [i for i in range(max(best - NEAR, 0), min(best + NEAR + 1, edges)) if i not in known]
            if not near:
                return known, True
            known = known | {near[0]: cost(near[0])}
    except TimeUp:
        pass
    return known, False


def falls(known: Mapping[int, Costs]) -> bool:
    """Whether long prompts cost no more the higher the edge, wherever it was looked at."""
    long = [known[i][1] for i in sorted(known)]
    return all(b <= a * (1 + 1e-9) for a, b in pairwise(long))


def costs_apart(scenario: Scenario, cache: SurveyCache, deadline: Deadline) -> tuple[Costs, frozenset[str]]:
    """$/h of short and of long prompts, each on a fleet of its own, infinite where one has none, and the models that serve. Raises TimeUp."""
    usd, models = [], set[str]()
    for w in split(scenario).workload:
        asked, points = posed(with_workloads(scenario, (w,)), cache, deadline)
        found = kept_apart(points, asked, break_ties=False)[0]
        usd.append(found.cost)
        models |= _models(found) if found.found else set()
    return (usd[0], usd[1]), frozenset(models)


def _models(found: Answer) -> set[str]:
    return {found.formulation.problem.columns[p.pool.column].model for p in found.solution.pools}


def halved(edges: int, first: Sequence[int], cost: Callable[[int], Costs], gap: float) -> tuple[dict[int, Costs], bool]:
    """What the edges looked at cost, by index, and whether all others were shown to be no cheaper (by more than the gap) before time was up.

    The interval looked into next is the one that may hold the cheapest. True wherever short prompts cost more, and long ones less, the
    higher the edge.
    """
    known = dict[int, Costs]()
    try:
        for i in first:
            known[i] = cost(i)
        while True:
            most = min(map(sum, known.values())) * (1 - gap)
            ends = [(-1, (0.0, inf)), *sorted(known.items()), (edges, (inf, 0.0))]
            open_ = [(low[0] + high[1], a, b) for (a, low), (b, high) in pairwise(ends) if b - a > 1 and low[0] + high[1] < most]
            if not open_:
                return known, True
            _, a, b = min(open_)
            middle = (a + b) // 2
            known[middle] = cost(middle)
    except TimeUp:
        return known, False
