"""Workloads that would spoil each other are given deployments of their own.

The program adds up loads; whether one workload's prompts leave another's limits standing is seen in the queue of both. Pairs
that fail there are kept apart, and the program is solved again.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import combinations
from math import inf

from planner.candidates.columns import formulation
from planner.candidates.points import Points
from planner.candidates.survey import Survey, limits
from planner.program.losses import worst
from planner.scenario.records import Scenario
from planner.search.answer import Answer, answer
from planner.search.chosen import Chosen, chosen_pools, together

Pairs = frozenset[frozenset[int]]


def kept_apart(points: Points, scenario: Scenario, cutoff: float = inf, break_ties: bool = True) -> tuple[Answer, Points]:
    """The cheapest solution in which every workload's limits hold beside those it shares with, and the points with the pairs that do not go together.

    Raises TimeUp as ``formulation`` does.
    """
    while True:
        found = answer(formulation(points, scenario, cutoff), cutoff, break_ties)
        more = crowded(found, points.survey) - points.apart if found.found and len(scenario.workload) > 1 else frozenset()
        if not more:
            return found, points
        points = points.keeping(more)


def crowded(found: Answer, survey: Survey) -> Pairs:
    """Pairs of workloads of which one misses a limit beside the other, on the deployments of a solution."""
    return frozenset(pair for chosen in chosen_pools(found, survey) for pair in _crowded(chosen, found, survey))


def _crowded(chosen: Chosen, found: Answer, survey: Survey) -> Pairs:
    """Those who are late, every day or after a loss, each with the workload beside it that brings the most prompt work at once; all with each other
    where there is no room."""
    policy, problem = survey.scenario.policy, found.formulation.problem
    kind, total = policy.survives, chosen.pool.total
    lost = worst(kind, problem, problem.columns[chosen.pool.pool.column].gpus, chosen.pool.replicas)[0] if kind else 0
    if policy.loss_slo_factor == 1:
        return _late(chosen, survey, total - max(lost, policy.spare_replicas))
    return _late(chosen, survey, total - policy.spare_replicas) | _late(chosen, survey, total - lost, policy.loss_slo_factor)


def _late(chosen: Chosen, survey: Survey, here: int, times: float = 1.0) -> Pairs:
    """Such pairs with so many replicas left and limits so many times as long."""
    now = chosen.together if here == chosen.pool.total else together(chosen, survey, here, after_loss=times > 1)
    if now is None:
        return frozenset()
    served = sorted(chosen.pool.traffic)
    if not now.is_settled:
        return frozenset(frozenset(pair) for pair in combinations(served, 2))
    heavy = [rate * mix.input_m2 for rate, mix in zip(now.rates, now.mixes, strict=True)]
    pairs = set()
    for i, w in enumerate(served):
        factor = float(survey.physics[w].factor[chosen.row])
        if any(now.beyond(i, limit) > 1 - limit.percentile / 100 for limit in limits(survey.scenario.workload[w].relaxed(times), factor)):
            other = max((k for k in range(len(served)) if k != i), key=lambda k: heavy[k])
            pairs.add(frozenset((w, served[other])))
    return frozenset(pairs)


def in_words(pairs: Collection[frozenset[int]], scenario: Scenario) -> tuple[str, ...]:
    """What was kept apart, as notes."""
    names = [sorted(scenario.workload[w].name for w in pair) for pair in pairs]
    return tuple(f"{a} and {b} have deployments of their own: on one, limits would be missed, whatever its load adds up to" for a, b in sorted(names))
