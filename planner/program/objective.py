"""Objective: least cost per hour of what is held; or, with a demand relaxed, least slack; or the polish at fixed cost."""

from __future__ import annotations

from typing import Any

from pyomo.core.base import Constraint, Objective
from pyomo.core.util import quicksum

from planner.program.problem import Problem


def define(m: Any, problem: Problem, relax: str | None) -> None:
    """(1) minimise Σ_o p[o]·I[o], or Σ slack where a demand is relaxed."""
    cost = quicksum(problem.offers[o].usd_per_hour * m.I[o] for o in m.offer_keys)
    m.objective = Objective(expr=quicksum(m.slack.values()) if relax else cost)


def polish(m: Any, problem: Problem, cost: float) -> None:
    """Breaks ties at the optimal cost: fewest pools, then fewest GPUs held, then highest mean quality.

    Idle GPUs and extra pools are free to the cost objective, so without this the answer is arbitrary. Pools and GPUs
    are whole numbers and quality lies below 1, so one weighted sum orders them strictly.
    """
    offers = problem.offers
    m.fixed_cost = Constraint(expr=quicksum(offers[o].usd_per_hour * m.I[o] for o in m.offer_keys) <= cost * (1 + 1e-9) + 1e-9)
    most_gpus = cost / min(offers[o].usd_per_hour / offers[o].gpus for o in m.offer_keys) + 1
    gpus = quicksum(offers[o].gpus * m.I[o] for o in m.offer_keys)
    lack = quicksum((1 - problem.columns[_column(m, p)].quality.get(w, 0.0)) * m.x[w, p] * (0.5 / len(problem.demands)) for w, p in m.flow_keys)
    m.objective.set_value(most_gpus * quicksum(m.y.values()) + gpus + lack)


def _column(m: Any, p: int) -> int:
    return int(m.pool_columns[p])
