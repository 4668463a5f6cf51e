"""Many states solved as few: those in which every deployment needs the same and the same terms run are one.

Starts are left out of what is solved and counted after: without them no plan is dearer, so the bound holds. Where they may be much of the cost, it is
solved again with them, days that are alike as one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from planner.deadline import Deadline
from planner.program.kinds import StateIndex
from planner.program.optimum import cheapest
from planner.program.pools import pools
from planner.program.problem import ChosenPool, Problem, Risk, Solution, State, Status
from planner.program.risk import dearest
from planner.program.solver import SolverOptions

ROUNDS = 3  # of making a limit on the dearest scenarios tighter by what starts add to them
KEPT = 1e-7
MUCH = 0.01  # of the cost: starts that may be more are decided beside the rest
Key = tuple[tuple[int, ...], tuple[int, ...], int]  # of a state: what is needed, the spans of terms it is in, its scenario


def cheapest_over_states(problem: Problem, options: SolverOptions) -> Solution:
    """The cheapest plan of a problem in which each workload has one deployment. Its cost counts starts; ``gap`` and ``bound`` are against that,
    ``status`` is of the program as it was solved."""
    deadline = Deadline.after(options.time_limit_s)
    if problem.waiting or any(p.need is None for p in pools(problem)):
        return cheapest(problem, options, break_ties=False)
    if problem.rules.min_up > 1:
        return _with_starts(problem, options)
    groups = _groups(problem)
    few = cheapest(_merged(problem, groups), options, break_ties=False)
    found = _spread(problem, groups, few) if few.found else few
    limit, asked = problem.rules.risk, problem
    for _ in range(ROUNDS):
        if limit is None or not found.found or (over := dearest(_by_scenario(problem, found), limit.level) - limit.most) <= limit.most * KEPT:
            return _no_dearer(found, problem, replace(options, time_limit_s=deadline.left()))
        tighter = Risk(limit.level, (asked.rules.risk or limit).most - over)
        asked = replace(problem, rules=replace(problem.rules, risk=tighter))
        again = cheapest(_merged(asked, groups), replace(options, time_limit_s=deadline.left()), break_ties=False)
        if not again.found:
            break
        found = _spread(problem, groups, replace(again, bound=min(few.bound, again.cost)))
    return _with_starts(problem, replace(options, time_limit_s=deadline.left()))


def _no_dearer(found: Solution, problem: Problem, options: SolverOptions) -> Solution:
    """A solution with starts counted after; where they may be much of its cost, the cheaper one of it and that with starts decided beside the rest."""
    if not found.found or found.gap <= max(MUCH, options.gap):
        return found
    whole = _with_starts(problem, replace(options, gap=max(options.gap, MUCH / 4)))
    if not whole.found or whole.cost >= found.cost:
        bound = min(found.cost, max(found.bound, whole.bound))
        return replace(found, status=found.status if whole.is_settled else Status.FEASIBLE, bound=bound, gap=(found.cost - bound) / found.cost)
    return whole


def _with_starts(problem: Problem, options: SolverOptions) -> Solution:
    """The cheapest plan with starts: days that need the same, hour by hour, in the same terms, are one."""
    groups = _groups(problem, by_circle=True)
    few = cheapest(_merged(problem, groups, starts=True), options, break_ties=False)
    return _spread(problem, groups, few) if few.found else few


def _by_scenario(problem: Problem, found: Solution) -> list[tuple[float, float]]:
    """(probability, mean $/h with starts counted) of each scenario."""
    usd: dict[int, float] = {}
    hours: dict[int, float] = {}
    for i, state in enumerate(problem.states):
        lead = problem.rules.lead_hours
        here = sum(problem.offers[o].usd_per_hour * (n * state.hours + lead * found.started[i].get(o, 0)) for o, n in found.holdings[i].items())
        usd[state.case] = usd.get(state.case, 0.0) + here * state.times
        hours[state.case] = hours.get(state.case, 0.0) + state.hours * state.times
    likely = {state.case: state.probability for state in problem.states}
    return [(likely[s], usd[s] / hours[s]) for s in usd]


def _groups(problem: Problem, by_circle: bool = False) -> list[list[int]]:
    """States by what they need, and by the spans of terms that they are in; by scenario too where the cost of each counts.

    by_circle: by all states of the circle that a state stands in, beginning with it.
    """
    spans = [span for o, offer in enumerate(problem.offers) if offer.committed for span in problem.spans_of(o)]
    inside = _inside(spans, len(problem.states))
    every = pools(problem)
    needs = [row for p in every for row in (p.need, p.remain) if row]
    keys = [(tuple(need[i] for need in needs), tuple(inside[i]), s.case if problem.rules.risk else 0) for i, s in enumerate(problem.states)]
    found: dict[object, list[int]] = {}
    for i in range(len(keys)):
        found.setdefault(_along(problem, keys, i) if by_circle else keys[i], []).append(i)
    return list(found.values())


def _along(problem: Problem, keys: list[Key], i: int) -> tuple[Key, ...]:
    """Keys of a state and of those before it, once around its circle."""
    chain, at = [keys[i]], problem.states[i].before
    while at is not None and at != i:
        chain.append(keys[at])
        at = problem.states[at].before
    return tuple(chain)


def _inside(spans: list[tuple[int, ...]], states: int) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in range(states)]
    for k, span in enumerate(spans):
        for i in span:
            found[i].append(k)
    return found


def _merged(problem: Problem, groups: list[list[int]], starts: bool = False) -> Problem:
    """One state for each group, as long as all of them together; with starts (of groups by circle), or none counted."""
    place = {i: g for g, group in enumerate(groups) for i in group}
    states = []
    for group in groups:
        first = problem.states[group[0]]
        likely = first.probability if problem.rules.risk else 1.0
        before = StateIndex(place[first.before]) if starts and first.before is not None else None
        states.append(State(times=sum(problem.states[i].weight for i in group) / likely, probability=likely, case=first.case, before=before))
    demands = tuple(replace(d, rates=tuple(max(d.rates[i] for i in group) for group in groups)) for d in problem.demands)
    offers = tuple(
        replace(o, spans=tuple(tuple(dict.fromkeys(place[i] for i in span)) for span in problem.spans_of(k))) if o.committed else o
        for k, o in enumerate(problem.offers)
    )
    rules = problem.rules if starts else replace(problem.rules, lead_hours=0.0)
    return replace(problem, states=tuple(states), demands=demands, offers=offers, rules=rules)


def _spread(problem: Problem, groups: list[list[int]], few: Solution) -> Solution:
    """The solution of the groups for every state, starts counted."""
    place = {i: g for g, group in enumerate(groups) for i in group}
    every = range(len(problem.states))
    holdings = tuple(few.holdings[place[i]] for i in every)
    chosen = tuple(replace(c, running=tuple(c.running[place[i]] for i in every), flows=tuple(_flows(problem, c, i) for i in every)) for c in few.pools)
    cost = problem.cost(holdings, chosen)
    gap = max(0.0, (cost - few.bound) / cost) if cost else 0.0
    return replace(few, cost=cost, gap=gap, pools=chosen, holdings=holdings, started=problem.started(holdings))


def _flows(problem: Problem, chosen: ChosenPool, i: int) -> Mapping[int, float]:
    return {w: rate for w in chosen.pool.workloads if (rate := problem.demands[w].rates[i]) > 0}
