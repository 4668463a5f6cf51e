"""The bridge from the cheapest plan to the one that survives (prudent.py): one term at a time on top of those before, each with its premium."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from planner.candidates.eligibility import counted, needed
from planner.candidates.points import Points
from planner.candidates.survey import tiers_of
from planner.deadline import Deadline
from planner.errors import TimeUp
from planner.performance.evidence import TIERS
from planner.planning.alternatives import EACH, LATE, TOGETHER, brief
from planner.program.problem import Status
from planner.result.deploy import purchases
from planner.result.plan import Prudent, PrudentStep
from planner.scenario.records import Scenario, Tier
from planner.search.answer import Answer
from planner.search.apart import kept_apart
from planner.search.chosen import Chosen, chosen_pools
from planner.search.prudent import SEEN, STALE_DAYS, WORDS, at_worst, fresh, near, spared


@dataclass(frozen=True)
class Term:
    """One thing more to ask: in words, how, and whether a plan meets it already, so that it stays the cheapest."""

    words: str
    asked: Callable[[Scenario], Scenario]
    holds: Callable[[Answer, Sequence[Chosen], Points], bool]
    tier: Tier = "modelled"


def _evidence(tier: Tier) -> Term:
    words = WORDS[tier] if tier == SEEN[0] else f"nearest evidence there is: {tier}"
    return Term(words, lambda s: near(s, tier), lambda _, chosen, points: _farthest(chosen, points) <= TIERS.index(tier), tier)


def _holds_at_worst(found: Answer, chosen: Sequence[Chosen], _: Points) -> bool:
    """Whether no derived score would miss its floor at the worst recovery; one that takes part in a mean is asked again."""
    scenario = at_worst(found.formulation.scenario)
    for c in chosen:
        for w in c.pool.traffic:
            quality, workload = c.eligible.quality[w], scenario.workload[w]
            floor = needed(workload.min_quality, scenario.policy)
            low = quality is not None and floor is not None and counted(quality, scenario.policy) < floor
            if low or (quality is not None and quality.derived and workload.mean_quality is not None):
                return False
    return True


def _farthest(chosen: Sequence[Chosen], points: Points) -> int:
    rows = np.array([c.row for c in chosen])
    return int(tiers_of(points.survey, rows).max())


def _is_fresh(found: Answer, _: Sequence[Chosen], points: Points) -> bool:
    oldest = points.survey.catalog.newest_price - timedelta(days=STALE_DAYS)
    return all(o.is_owned or o.as_of >= oldest for o in (found.formulation.offers[i] for i in found.solution.held))


# In the order of the bridge. Evidence stands last, as of its tiers the nearest counts that has a plan with all the rest.
TERMS: tuple[tuple[Term, ...], ...] = (
    (Term("one spare replica", spared, lambda *_: False),),
    (Term("floor met at the worst recovery", at_worst, _holds_at_worst),),
    (Term(f"prices of the last {STALE_DAYS} days", fresh, _is_fresh),),
    tuple(_evidence(tier) for tier in SEEN),
)


@dataclass(frozen=True)
class _Place:
    """How far the bridge has come: the question, its answer and the step that led there."""

    scenario: Scenario
    found: Answer
    step: PrudentStep
    tier: Tier = "modelled"


def bridge(found: Answer, points: Points) -> Prudent | None:
    """From the cheapest plan to the one that survives; None where cost is not what is minimised, or the plan is prudent already.

    A term that the plan so far meets needs no search. Where time is up, or nothing meets a term, the bridge ends there and says so.
    """
    scenario = found.formulation.scenario
    if scenario.objective.maximize or scenario.policy.prudent:
        return None
    deadline, stated = points.deadline.share(TOGETHER), scenario.policy.evidence
    here = _Place(scenario, found, _step("the cheapest", found, points), stated)
    steps, terms = [here.step], TERMS
    if stated != TIERS[-1]:  # as --prudent keeps it
        terms = (*TERMS[:-1], (Term(f"evidence as asked: {stated}", lambda s: s, lambda *_: True, stated),))
    for term in terms:
        there = _farther(here, term, points, deadline)
        steps.append(there if isinstance(there, PrudentStep) else there.step)
        if isinstance(there, PrudentStep):
            return Prudent(evidence=here.tier, steps=tuple(steps))
        here = there
    usd = here.found.cost
    return Prudent(evidence=here.tier, steps=tuple(steps), usd_per_hour=usd, premium_usd_per_hour=_premium(usd, found.cost))


def _farther(here: _Place, term: Sequence[Term], points: Points, deadline: Deadline) -> _Place | PrudentStep:
    """The place after one more term; or the step at which the bridge ends."""
    chosen = chosen_pools(here.found, points.survey)
    for degree in term:
        asked, tier = degree.asked(here.scenario), min(here.tier, degree.tier, key=TIERS.index)
        if asked == here.scenario or degree.holds(here.found, chosen, points):
            same = here.step.model_copy(update={"term": degree.words, "premium_usd_per_hour": 0.0})
            return _Place(asked, here.found, same, tier)
        other = _cheapest(points, asked, deadline)
        if other is None or (not other.found and other.solution.status != Status.INFEASIBLE):
            return PrudentStep(term=degree.words, why=f"not searched: {LATE}")
        if other.found:
            return _Place(asked, other, _step(degree.words, other, points, here.found), tier)
    return PrudentStep(term=degree.words, why="no plan meets all demands with it")


def _cheapest(points: Points, scenario: Scenario, deadline: Deadline) -> Answer | None:
    """As the question itself is answered, with nothing known of who spoils whom; None where time was up before there was any answer."""
    if deadline.passed():
        return None
    afresh = points.until(deadline.share(EACH))
    afresh.apart = frozenset()
    try:
        return kept_apart(afresh, scenario)[0]
    except TimeUp:
        return None


def _step(term: str, found: Answer, points: Points, before: Answer | None = None) -> PrudentStep:
    unproven = "" if found.solution.status == Status.OPTIMAL else "perhaps less: the time for it was used up (raise --time-limit)"
    return PrudentStep(
        term=term,
        usd_per_hour=found.cost,
        premium_usd_per_hour=_premium(found.cost, before.cost) if before else 0.0,
        why=unproven,
        deployments=tuple(brief(c, points) for c in chosen_pools(found, points.survey)),
        purchases=tuple(purchases(found)[0]),
    )


def _premium(usd_per_hour: float, before: float) -> float:
    """In whole cents of the costs as they are shown, so that premiums add up to the cent."""
    return round(round(usd_per_hour, 2) - round(before, 2), 2)
