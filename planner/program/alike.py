"""Many states solved as few: those in which every deployment needs the same and the same terms run are one.

Starts are left out of what is solved and counted after: without them no plan is dearer, so the bound holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from planner.program.optimum import cheapest
from planner.program.pools import pools
from planner.program.problem import ChosenPool, Problem, Risk, Solution, State, Status
from planner.program.risk import dearest
from planner.program.solver import SolverOptions

ROUNDS = 3  # of making a limit on the dearest scenarios tighter by what starts add to them
KEPT = 1e-7


def cheapest_over_states(problem: Problem, options: SolverOptions) -> Solution:
    """The cheapest plan of a problem in which each workload has one deployment. Its cost counts starts; ``gap`` and ``bound`` are against that."""
    if problem.waiting or problem.rules.min_up > 1 or any(p.need is None for p in pools(problem)):
        return cheapest(problem, options, break_ties=False)
    groups = _groups(problem)
    few = cheapest(_merged(problem, groups), options, break_ties=False)
    found = _spread(problem, groups, few, options) if few.found else few
    limit, asked = problem.rules.risk, problem
    for _ in range(ROUNDS):
        if limit is None or not found.found or (over := dearest(_by_scenario(problem, found), limit.level) - limit.most) <= limit.most * KEPT:
            return found
        tighter = Risk(limit.level, (asked.rules.risk or limit).most - over)
        asked = replace(problem, rules=replace(problem.rules, risk=tighter))
        again = cheapest(_merged(asked, groups), options, break_ties=False)
        if not again.found:
            break
        found = _spread(problem, groups, replace(again, bound=min(few.bound, again.cost)), options)
    return cheapest(problem, options, break_ties=False)


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


def _groups(problem: Problem) -> list[list[int]]:
    """States by what they need, and by the spans of terms that they are in; by scenario too where the cost of each counts."""
    spans = [span for o, offer in enumerate(problem.offers) if offer.committed for span in problem.spans_of(o)]
    inside = _inside(spans, len(problem.states))
    every = pools(problem)
    needs = [row for p in every for row in (p.need, p.remain) if row]
    found: dict[object, list[int]] = {}
    for i, state in enumerate(problem.states):
        key = (tuple(need[i] for need in needs), tuple(inside[i]), state.case if problem.rules.risk else 0)
        found.setdefault(key, []).append(i)
    return list(found.values())


def _inside(spans: list[tuple[int, ...]], states: int) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in range(states)]
    for k, span in enumerate(spans):
        for i in span:
            found[i].append(k)
    return found


def _merged(problem: Problem, groups: list[list[int]]) -> Problem:
    """One state for each group, as long as all of them together."""
    place = {i: g for g, group in enumerate(groups) for i in group}
    states = []
    for group in groups:
        likely = problem.states[group[0]].probability if problem.rules.risk else 1.0
        states.append(State(times=sum(problem.states[i].weight for i in group) / likely, probability=likely, case=problem.states[group[0]].case))
    demands = tuple(replace(d, rates=tuple(max(d.rates[i] for i in group) for group in groups)) for d in problem.demands)
    offers = tuple(
        replace(o, spans=tuple(tuple(dict.fromkeys(place[i] for i in span)) for span in problem.spans_of(k))) if o.committed else o
        for k, o in enumerate(problem.offers)
    )
    return replace(problem, states=tuple(states), demands=demands, offers=offers, rules=replace(problem.rules, lead_hours=0.0))


def _spread(problem: Problem, groups: list[list[int]], few: Solution, options: SolverOptions) -> Solution:
    """The solution of the groups for every state, starts counted."""
    place = {i: g for g, group in enumerate(groups) for i in group}
    every = range(len(problem.states))
    holdings = tuple(few.holdings[place[i]] for i in every)
    chosen = tuple(replace(c, running=tuple(c.running[place[i]] for i in every), flows=tuple(_flows(problem, c, i) for i in every)) for c in few.pools)
    cost = problem.cost(holdings, chosen)
    gap = (cost - few.bound) / cost if cost else 0.0
    status = Status.OPTIMAL if few.status == Status.OPTIMAL and gap <= options.gap + 1e-9 else Status.FEASIBLE
    return replace(few, status=status, cost=cost, gap=gap, pools=chosen, holdings=holdings, started=problem.started(holdings))


def _flows(problem: Problem, chosen: ChosenPool, i: int) -> Mapping[int, float]:
    return {w: rate for w in chosen.pool.workloads if (rate := problem.demands[w].rates[i]) > 0}
