"""Which demands conflict: a smallest set that cannot be met together, and the smallest change of all demands at once that makes a plan.

A change is measured by its factor: the larger of what is asked and what is proposed over the smaller. The combined change is the one
whose largest factor is least; in it nothing moves that could stay, and no amount further than it must, given the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor, inf, sqrt
from typing import Any

from planner.errors import TimeUp
from planner.planning.demands import Requirement, demands
from planner.planning.feasible import Feasible, growth, largest
from planner.scenario.records import Scenario
from planner.search.answer import Answer

CONFLICT_SHARE, TOGETHER_SHARE = 0.15, 0.3  # of the time limit
FACTORS = (1.1, 1.5, 4.0, 64.0)  # tried in turn, then bisected between
CLOSE = 1.3  # ratio of changes between which the plan found tells how much less would have done for it
FINE, FINEST = 0.02, 1e-4  # to so much of the change, and no finer than this
LIMIT_FINE = 1.01  # ratio to which latency limits are found: every value needs capacities of its own
KEPT = 1.002  # of what a plan keeps within, a limit that it surely meets
# In which amounts are put back as far as they go.
ORDER = ("floor", "mean", "margin", "recovery", "evidence", "limit", "traffic", "spare", "loss", "changes", "age", "cap")
Amounts = dict[str, float]


@dataclass(frozen=True)
class Together:
    """A change of several demands at once in words, and its largest factor; ``is_least``: whether time sufficed to prove it so."""

    words: tuple[str, ...]
    factor: float
    is_least: bool

    def __str__(self) -> str:
        unsure = "" if self.is_least else ", perhaps by less"
        return f"{', '.join(self.words)} (none by more than a factor of {self.factor:.4g}{unsure})"


def conflict_of(scenario: Scenario, feasible: Feasible) -> tuple[str, ...] | None:
    """The names of a minimal conflicting set; empty where even without all demands there is no plan; None where time was up.

    Deletion filter: each demand in turn is left out for good if the rest still has no plan; what stays is minimal, as every one of
    it was needed for the conflict.
    """
    feasible, kept = feasible.until(feasible.deadline.share(CONFLICT_SHARE)), []
    try:
        for d in demands(scenario):
            without = d.dropped(scenario)
            if feasible(without):
                kept.append(d.name)
            else:
                scenario = without
    except TimeUp:
        return None
    return tuple(kept)


def smallest_together(scenario: Scenario, feasible: Feasible) -> Together | None:
    """The combined change of all demands with the least largest factor (to FINE of it); None where none up to the last of FACTORS does.

    Every demand loosens alike until there is a plan: loosening never takes a plan away, so bisection finds the least factor. Then
    each amount goes back as far as the rest allows. Raises TimeUp where time was up before any change was found.
    """
    every, feasible = demands(scenario), feasible.until(feasible.deadline.share(TOGETHER_SHARE))

    def plan(factor: float) -> Answer:
        return feasible.plan(_changed(scenario, every, {d.name: d.loosened(factor) for d in every}))

    low = 1.0
    for high in FACTORS:
        if (found := plan(high)).found:
            break
        low = high
    else:
        return None
    amounts, is_least, below = {d.name: d.loosened(high) for d in every}, True, True
    try:
        while high - low > (fine := max(FINE * (high - 1), FINEST)):
            probe = 1 + sqrt(max(low - 1, (high - 1) / 16) * (high - 1))
            if high - 1 <= CLOSE * (low - 1):
                guess = _needed(scenario, every, found)  # by the plan found, if limits did not matter
                below = not below or not low < guess < high
                probe = high - 0.9 * fine if below else guess
            there = plan(probe)
            low, high, found = (low, probe, there) if there.found else (probe, high, found)
            amounts = {d.name: d.loosened(high) for d in every}
        for d in sorted(every, key=lambda d: (ORDER.index(d.kind), d.cap is not None and d.cap.is_money)):
            amounts = _put_back(scenario, every, d, amounts, feasible)
    except TimeUp:
        is_least = False
    moved = [d for d in every if amounts[d.name] != d.asked]
    return Together(tuple(d.words(amounts[d.name]) for d in moved), max(d.factor(amounts[d.name]) for d in moved), is_least)


def _needed(scenario: Scenario, every: Sequence[Requirement], found: Answer) -> float:
    """The factor by which demands must loosen for a plan to do: what it costs, holds, serves and carries over what is asked."""
    problem, solution = found.formulation.problem, found.solution
    served = [
        min((problem.columns[c.pool.column].quality.get(w, inf) for c in solution.pools if w in c.traffic), default=inf) for w in range(len(scenario.workload))
    ]
    factor = 1.0
    for d in every:
        reached = {
            "cap": next((c.held(problem.offers, solution.held) for c in problem.rules.caps if d.cap and c.name == d.cap.name), 0.0),
            "floor": served[d.workload],
            "traffic": problem.demands[d.workload].rate / scenario.workload[d.workload].burst_factor * growth(found, (d.workload,)),
        }.get(d.kind)
        if reached:
            factor = max(factor, reached / d.asked if d.kind == "cap" else d.asked / reached)
    return factor * (1 + 1e-9)


def _changed(scenario: Scenario, every: Sequence[Requirement], amounts: Amounts) -> Scenario:
    for d in every:
        if amounts[d.name] != d.asked:
            scenario = d.put(scenario, amounts[d.name])
    return scenario


def _put_back(scenario: Scenario, every: Sequence[Requirement], d: Requirement, amounts: Amounts, feasible: Feasible) -> Amounts:
    """The amounts with one demand as near to what is asked as the others allow."""
    now = amounts[d.name]

    def at(amount: float) -> Scenario:
        return _changed(scenario, every, {**amounts, d.name: amount})

    if now == d.asked:
        return amounts
    if feasible(at(d.asked)):
        return {**amounts, d.name: d.asked}
    return {**amounts, d.name: nearest(d, now, at, feasible)}


def nearest(d: Requirement, now: float, at: Callable[[float], Scenario], feasible: Feasible) -> float:
    """The amount nearest to what is asked that has a plan, between what is asked (which has none) and ``now`` (which has one)."""
    if d.kind == "traffic":

        def grows(amount: float) -> float:
            found = feasible.plan(at(amount))
            return growth(found, (d.workload,)) if found.found else 0.0

        return largest(now, d.asked, grows)
    if d.cap is not None and d.cap.is_money:
        return min(now, max(d.cap.rounded_up(feasible.least_cost(at(now))), d.asked))
    if d.kind == "limit":
        return _least_limit(d, now, at, feasible)
    return last_that(_between(d, now, feasible), lambda amount: feasible(at(amount)))


def _least_limit(d: Requirement, now: float, at: Callable[[float], Scenario], feasible: Feasible) -> float:
    """To LIMIT_FINE: in turn at what the last plan keeps within (or, where that is what was asked of it, a step below), and halfway."""
    tight, found, steps = d.asked, feasible.plan(at(now)), 0
    while now > tight * LIMIT_FINE:
        kept = feasible.latency(found, d.workload, d.limit) if steps % 2 == 0 else None
        probe = d.loosened((kept * KEPT if kept else sqrt(tight * now)) / d.asked)
        probe = probe if tight < probe < now else d.loosened(now / LIMIT_FINE / d.asked)
        there = feasible.plan(at(probe))
        tight, now, found = (tight, probe, there) if there.found else (probe, now, found)
        steps += 1
    return now


@dataclass(frozen=True)
class _Falling(Sequence[float]):
    """An amount, then all smaller ones of so many digits: far too many to write down."""

    first: float
    steps: range
    scale: int

    def __len__(self) -> int:
        return 1 + len(self.steps)

    def __getitem__(self, i: Any) -> Any:
        return self.steps[i - 1] / self.scale if i else self.first


def _between(d: Requirement, now: float, feasible: Feasible) -> Sequence[float]:
    """Amounts from ``now`` to just before what is asked: whole numbers, floors at which another checkpoint may serve, means of four digits."""
    if d.kind == "floor":
        return [now, *(s for s in feasible.scores(d.workload) if now < s < d.asked)]
    if d.kind in ("mean", "margin"):
        return [now, *(i / 1e4 for i in range(ceil(now * 1e4 + 1e-6), ceil(d.asked * 1e4 - 1e-6)))]
    if d.cap is not None and d.cap.field.digits:
        scale = 10**d.cap.field.digits
        return _Falling(now, range(ceil(now * scale - 1e-6) - 1, floor(d.asked * scale + 1e-6), -1), scale)
    step = 1 if d.asked > now else -1
    return [float(i) for i in range(round(now), round(d.asked), step)]


def last_that(options: Sequence[float], works: Callable[[float], bool]) -> float:
    """The last that works of a list ordered from loose to strict, whose first does; often that is the last that does."""
    low, high = 0, len(options)
    if high < 2 or not works(options[1]):
        return options[0]
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if works(options[middle]) else (low, middle)
    return options[low]
