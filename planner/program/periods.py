"""The program over hours: instances held and replicas running in each hour for pools that are already chosen.

Separate from the program of one hour, because which candidate serves is decided outside (planning/periods.py): here only counts are left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import numpy as np
from pyomo.core.base import Binary, Constraint, NonNegativeIntegers, NonNegativeReals, Objective, Var
from pyomo.core.base.PyomoModel import ConcreteModel
from pyomo.core.util import quicksum

from planner.program.packing import places, sizes_that_matter
from planner.program.problem import Purchasable, Rules
from planner.program.solver import SolverOptions, optimise

LEAST_SHARE = 1e-6  # of the waiting work of a window


@dataclass(frozen=True)
class PeriodPool:
    """One deployment over the hours: need[t] replicas at least; load[t] replicas' worth of them taken where waiting work runs beside."""

    gpus: int
    offers: tuple[int, ...]
    need: tuple[int, ...]
    load: tuple[float, ...] = ()
    spare: int = 0


@dataclass(frozen=True)
class Waiting:
    """Work that may wait: requests per window of hours, and what one replica of each pool does of it in an hour (pool -> requests).

    Of the pools in ``own`` (candidates for a deployment of its own) at most one is used.
    """

    windows: tuple[tuple[int, ...], ...]
    amounts: tuple[float, ...]
    per_hour: Mapping[int, float]
    own: tuple[int, ...] = ()


@dataclass(frozen=True)
class PeriodProblem:
    """All the program over hours needs. ``lead_hours``: from starting an instance to its replicas serving; paid, and serves nothing."""

    pools: tuple[PeriodPool, ...]
    offers: tuple[Purchasable, ...]
    hours: int
    lead_hours: float = 0.0
    min_up: int = 1
    waiting: tuple[Waiting, ...] = ()
    rules: Rules = field(default_factory=Rules)


@dataclass(frozen=True)
class PeriodSolution:
    """Counts by hour: replicas[pool][t] by offer, held[t] instances by offer, started[t], waiting requests done (k, pool) -> [t]."""

    status: str
    cost: float = float("inf")  # of all hours, start-ups included
    bound: float = 0.0
    replicas: tuple[tuple[Mapping[int, int], ...], ...] = ()
    held: tuple[Mapping[int, int], ...] = ()
    started: tuple[Mapping[int, int], ...] = ()
    done: Mapping[tuple[int, int], tuple[float, ...]] = field(default_factory=dict)

    @property
    def found(self) -> bool:
        """Whether there is a plan."""
        return isfinite(self.cost)


def cheapest_hours(problem: PeriodProblem, limits: SolverOptions) -> PeriodSolution:
    """The cheapest counts. The hours are a circle: after the last comes the first."""
    m = _build(problem)
    outcome = optimise(m, limits)
    if outcome.status not in ("optimal", "feasible"):
        return PeriodSolution(outcome.status, bound=outcome.bound)
    hours, offers = range(problem.hours), range(len(problem.offers))
    held = [{o: n for o in offers if (n := _count(m.I[o, t]))} for t in hours]
    started = [{o: n for o in held[t] if (n := held[t][o] - held[t - 1].get(o, 0)) > 0} for t in hours]
    replicas = tuple(tuple({o: n for o in pool.offers if (n := _count(m.n[p, o, t]))} for t in hours) for p, pool in enumerate(problem.pools))
    price = [o.usd_per_hour for o in problem.offers]
    cost = sum(price[o] * n for t in hours for o, n in held[t].items()) + problem.lead_hours * sum(price[o] * n for t in hours for o, n in started[t].items())
    done = _done(m, problem, [[sum(h.values()) for h in pool] for pool in replicas])
    return PeriodSolution(outcome.status, cost, min(outcome.bound, cost), replicas, tuple(held), tuple(started), done)


def _build(problem: PeriodProblem) -> Any:
    """minimise Σ_t Σ_o p[o]·(I[o,t] + lead·s[o,t]), subject to

    s[o,t] ≥ I[o,t] − I[o,t−1];  Σ_{τ=t−m+1..t} s[o,τ] ≤ I[o,t] (held for at least m hours);  Σ_o n[p,o,t] ≥ need[p,t];
    the packing rows of program/packing.py in every hour; caps in every hour;
    Σ_{p, t in window} c[k,p]·b[k,p,t] = amount of each window of waiting work;
    Σ_k b[k,p,t] + load[p,t]·z[p,t] ≤ Σ_o n[p,o,t] − spare·z,  Σ_k b[k,p,t] ≤ most·z[p,t] (b in replicas' worth).
    """
    m, hours = ConcreteModel(), range(problem.hours)
    keys = [(p, o, t) for p, pool in enumerate(problem.pools) for o in pool.offers for t in hours]
    used = sorted({o for pool in problem.pools for o in pool.offers})
    lead = problem.lead_hours
    m.n = Var(keys, domain=NonNegativeIntegers)
    m.I = Var(range(len(problem.offers)), hours, domain=NonNegativeIntegers, bounds=lambda _, o, t: (0, problem.offers[o].available))
    m.s = Var([(o, t) for o in used for t in hours] if problem.hours > 1 and (lead > 0 or problem.min_up > 1) else [], domain=NonNegativeReals)
    price = [o.usd_per_hour for o in problem.offers]
    m.objective = Objective(expr=quicksum(price[o] * m.I[o, t] for o in used for t in hours) + lead * quicksum(price[o] * m.s[o, t] for o, t in m.s))
    m.rise = Constraint(list(m.s), rule=lambda m, o, t: m.s[o, t] >= m.I[o, t] - m.I[o, (t - 1) % problem.hours])
    up = min(problem.min_up, problem.hours)
    m.up = Constraint(list(m.s) if up > 1 else [], rule=lambda m, o, t: quicksum(m.s[o, (t - k) % problem.hours] for k in range(up)) <= m.I[o, t])

    def running(p: int, t: int) -> Any:
        return quicksum(m.n[p, o, t] for o in problem.pools[p].offers)

    needed = [(p, t) for p, pool in enumerate(problem.pools) for t in hours if pool.need[t]]
    m.need = Constraint(needed, rule=lambda m, p, t: running(p, t) >= problem.pools[p].need[t])
    rows = [(o, s) for o in used for s in sizes_that_matter(problem.offers[o], {pool.gpus for pool in problem.pools if o in pool.offers})]

    def packed(m: Any, o: int, s: int, t: int) -> Any:
        offer = problem.offers[o]
        guests = [(p, pool.gpus) for p, pool in enumerate(problem.pools) if o in pool.offers and pool.gpus >= s]
        return quicksum(places(g, s, offer) * m.n[p, o, t] for p, g in guests) <= (offer.gpus // s if offer.whole else 1) * m.I[o, t]

    m.packing = Constraint([(o, s, t) for o, s in rows for t in hours], rule=packed)
    _limits(m, problem, used)
    _waiting(m, problem, running)
    return m


def _limits(m: Any, problem: PeriodProblem, used: list[int]) -> None:
    """Σ_o a[k,o]·I[o,t] ≤ most[k] for each cap k in every hour."""
    counted = [(c.most, terms) for c in problem.rules.caps if (terms := [(a, o) for o in used if (a := c.amount(problem.offers[o]))])]
    m.cap = Constraint(range(len(counted)), range(problem.hours), rule=lambda m, k, t: quicksum(a * m.I[o, t] for a, o in counted[k][1]) <= counted[k][0])


def _waiting(m: Any, problem: PeriodProblem, running: Any) -> None:
    """Waiting work: done within its windows, beside at most the load that replicas have left."""
    hours, works = range(problem.hours), problem.waiting
    m.b = Var([(k, p, t) for k, w in enumerate(works) for p in w.per_hour for t in hours], domain=NonNegativeReals)
    hosts = sorted({p for w in works for p in w.per_hour})
    own = {p for w in works for p in w.own}
    m.z = Var([(p, t) for p in hosts if p not in own for t in hours], domain=Binary)
    m.y = Var(sorted(own), domain=Binary)
    windows = [(k, i) for k, w in enumerate(works) for i in range(len(w.windows))]
    m.done = Constraint(
        windows, rule=lambda m, k, i: quicksum(c * m.b[k, p, t] for p, c in works[k].per_hour.items() for t in works[k].windows[i]) == works[k].amounts[i]
    )
    outside = [(k, p, t) for k, w in enumerate(works) for t in hours if t not in {h for window in w.windows for h in window} for p in w.per_hour]
    m.outside = Constraint(outside, rule=lambda m, k, p, t: m.b[k, p, t] == 0)

    def work(p: int, t: int) -> Any:
        return quicksum(m.b[k, p, t] for k, w in enumerate(works) if p in w.per_hour)

    def most(p: int) -> float:
        return sum(max(w.amounts) / w.per_hour[p] for w in works if p in w.per_hour)

    def room(m: Any, p: int, t: int) -> Any:
        pool = problem.pools[p]
        taken = (pool.load[t] + pool.spare) * m.z[p, t] if p not in own else 0
        return work(p, t) + taken <= running(p, t)

    m.room = Constraint([(p, t) for p in hosts for t in hours], rule=room)
    m.beside = Constraint(list(m.z), rule=lambda m, p, t: work(p, t) <= most(p) * m.z[p, t])
    m.own = Constraint([(p, t) for p in own for t in hours], rule=lambda m, p, t: work(p, t) <= most(p) * m.y[p])
    m.one_own = Constraint([k for k, w in enumerate(works) if len(w.own) > 1], rule=lambda m, k: quicksum(m.y[p] for p in works[k].own) <= 1)


def _done(m: Any, problem: PeriodProblem, running: Sequence[Sequence[int]]) -> dict[tuple[int, int], tuple[float, ...]]:
    """Waiting requests by work, pool and hour, without the solver's crumbs: less than LEAST_SHARE of a window, or on nothing, is none."""
    found: dict[tuple[int, int], tuple[float, ...]] = {}
    for k, w in enumerate(problem.waiting):
        many = np.array([[max(0.0, m.b[k, p, t].value or 0.0) * c * (running[p][t] > 0) for t in range(problem.hours)] for p, c in w.per_hour.items()])
        for window, amount in zip(w.windows, w.amounts, strict=True):
            here = many[:, list(window)]
            here[here < LEAST_SHARE * amount] = 0.0
            many[:, list(window)] = here * (amount / here.sum())
        found |= {(k, p): tuple(row) for p, row in zip(w.per_hour, many.tolist(), strict=True)}
    return found


def _count(variable: Any) -> int:
    return round(variable.value or 0.0)
