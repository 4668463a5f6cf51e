"""Objective: least cost of what is held and started; or, with a demand relaxed, least slack; or the polish at fixed cost."""

from __future__ import annotations

from pyomo.core.base import Constraint, Objective
from pyomo.core.util import quicksum

from planner.program import changes
from planner.program.kinds import Model, StateIndex, Term
from planner.program.problem import Pool, Problem
from planner.program.variables import hosted_usd


def define(m: Model, problem: Problem, pools: tuple[Pool, ...], relax: str | None) -> None:
    """(1) minimise Σ_i π[i]·(hours[i]·(Σ_o p[o]·I[o,i] + Σ_{w,p} p[w,p]·λ[w,i]·x[w,p,i]) + lead·Σ_o p[o]·s[o,i]), or Σ slack where a demand is
    relaxed; π the probability of i's scenario, p[w,p] the price of a unit of traffic where p is hosted, else 0. Changes add (27).
    """
    m.objective = Objective(expr=quicksum(m.slack.values()) if relax else _cost(m, problem, pools))


def _cost(m: Model, problem: Problem, pools: tuple[Pool, ...]) -> Term:
    weights = [(s.weight, s.starts) for s in problem.states]
    return quicksum(spent(m, problem, pools, i, *weights[i]) for i in range(len(weights))) + changes.cost(m, problem)


def spent(m: Model, problem: Problem, pools: tuple[Pool, ...], i: int, hours: float, starts: float) -> Term:
    """$ of one state, so long and with its starts counted so often."""
    price, lead = [o.usd_per_hour for o in problem.offers], problem.rules.lead_hours
    terms = [price[o] * hours * m.I[o, i] for o in m.offer_keys]
    terms += [price[o] * lead * starts * m.s[o, i] for o in m.offer_keys if (o, i) in m.s]
    return quicksum(terms) + (hours * hosted_usd(m, problem, pools, StateIndex(i)) if m.hosted else 0)


def polish(m: Model, problem: Problem, pools: tuple[Pool, ...], cost: float) -> None:
    """Breaks ties at the optimal cost: fewest pools, then fewest GPUs held, then highest mean quality.

    Idle GPUs and extra pools are free to the cost objective, so without this the answer is arbitrary. Pools and GPUs
    are whole numbers and quality lies below 1, so one weighted sum orders them strictly.
    """
    offers = problem.offers
    m.fixed_cost = Constraint(expr=_cost(m, problem, pools) <= cost * (1 + 1e-9) + 1e-9)
    most_gpus = cost / min((offers[o].usd_per_hour / offers[o].gpus for o in m.offer_keys), default=cost) + 1
    gpus = quicksum(offers[o].gpus * problem.states[i].weight * m.I[o, i] for o, i in m.held_keys)
    each = 0.5 / len(problem.demands) / len(problem.states)
    lack = quicksum((1 - problem.columns[pools[p].column].quality.get(w, 0.0)) * m.x[w, p, i] * each for w, p, i in m.flow_keys)
    m.objective.set_value(most_gpus * quicksum((m.y if problem.is_flat else m.u).values()) + gpus + lack)
