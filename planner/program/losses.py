"""What may be lost at once, and still everything is served: any one instance, any one zone, everything bought as spot."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

from pyomo.core.base import Binary, Constraint, Var
from pyomo.core.util import quicksum

from planner.program.kinds import Model, OfferIndex, PoolIndex, StateIndex, Term
from planner.program.problem import Pool, Problem, Purchasable
from planner.program.variables import running


def define(m: Model, problem: Problem, pools: tuple[Pool, ...]) -> None:
    """With R = Σ_o n[p,o,i] the replicas of pool p and lost[p,ℓ] those that a loss ℓ takes, for each ℓ, p and i:
    (24) Σ_w λ[w,i]/μ[p,w]·x[w,p,i] ≤ v·(R − lost[p,ℓ]) and R − lost[p,ℓ] ≥ r[p]·y[p,i], v the load allowed then; where p's need is known
    R − lost[p,ℓ] ≥ ⌈load/v⌉. A zone, or all that is spot, takes Σ_{o in ℓ} n[p,o,i]; an instance of offer o as many as fit on it,
    ⌊G[o]/g[p]⌋·h[p,o,i], with (25) n[p,o,i] ≤ N[p]·h[p,o,i], h binary: whether any is there.
    """
    lost = {"instance": _instances, "zone": _zones, "spot": _spot}
    rows = [(p, i, term) for kind in sorted(problem.rules.survives) for p, i, term in lost[kind](m, problem, pools)]
    if not rows:
        return
    m.survives = Constraint(range(len(rows)), rule=lambda m, k: _carried(m, problem, pools, *rows[k]))
    sized = [k for k, (p, i, _) in enumerate(rows) if (p, i) in m.y and pools[p].replicas > 0]
    m.survivors = Constraint(sized, rule=lambda m, k: running(m, rows[k][0], rows[k][1]) - rows[k][2] >= pools[rows[k][0]].replicas * m.y[rows[k][:2]])


def _carried(m: Model, problem: Problem, pools: tuple[Pool, ...], p: PoolIndex, i: StateIndex, lost: Term) -> Term:
    """(24) of one pool, state and loss."""
    pool, v = pools[p], problem.rules.load_after_loss
    if pool.need is not None:
        return running(m, p, i) - lost >= _need(problem, pool, i)
    load = quicksum(problem.demands[w].rates[i] / pool.capacity[w] * m.x[w, p, i] for w, _, _ in m.flow_by_pool.get((p, i), []))
    return load <= v * (running(m, p, i) - lost)


def _need(problem: Problem, pool: Pool, i: StateIndex) -> int:
    load = sum(problem.demands[w].rates[i] / mu for w, mu in pool.capacity.items())
    return max(ceil(load / problem.rules.load_after_loss * (1 - 1e-9)), pool.replicas if load else 0)


def _busy(m: Model, problem: Problem, pools: tuple[Pool, ...]) -> list[tuple[PoolIndex, StateIndex]]:
    """Pools with replicas in the states in which they may have traffic."""
    here = [p for p, pool in enumerate(pools) if p not in m.hosted and pool.workloads]
    return [(PoolIndex(p), StateIndex(i)) for p in here for i in range(len(problem.states)) if any(problem.demands[w].rates[i] > 0 for w in pools[p].workloads)]


def _instances(m: Model, problem: Problem, pools: tuple[Pool, ...]) -> list[tuple[PoolIndex, StateIndex, Term]]:
    """(25), and what one instance of each offer takes of each pool."""
    keys = [(p, o, i) for p, i in _busy(m, problem, pools) for _, o, _ in m.replicas_by_pool.get((p, i), [])]
    m.h = Var(keys, domain=Binary)
    gpus = [problem.columns[pool.column].gpus for pool in pools]
    most = [_most(problem, pool) for pool in pools]
    m.there = Constraint(keys, rule=lambda m, p, o, i: m.n[p, o, i] <= most[p] * m.h[p, o, i])
    return [(p, i, at_once(problem.offers[o], gpus[p]) * m.h[p, o, i]) for p, o, i in keys]


def at_once(offer: Purchasable, gpus: int) -> int:
    """Replicas of so many GPUs that one instance of an offer takes with it at most; of a replica over several instances, itself."""
    return max(1, (offer.fails or offer.gpus) // gpus)


def _most(problem: Problem, pool: Pool) -> int:
    """Replicas of a pool, on one offer, that no plan has to exceed: all its traffic after a loss, with spares, the floor and what is lost."""
    rules, column = problem.rules, problem.columns[pool.column]
    loads = [sum(d.rates[i] / pool.capacity[w] for w, d in enumerate(problem.demands) if w in pool.capacity) for i in range(len(problem.states))]
    enough = ceil(max(loads) / min(rules.load_after_loss, rules.max_slo_load)) + rules.spare_replicas
    lost = max((at_once(problem.offers[o], column.gpus) for o in column.offers), default=0)
    return max(enough, pool.replicas, rules.floor_replicas) + lost


def _zones(m: Model, problem: Problem, pools: tuple[Pool, ...]) -> list[tuple[PoolIndex, StateIndex, Term]]:
    """What each zone takes of each pool. Zones of one name at several locations are several."""
    return [(p, i, taken) for p, i in _busy(m, problem, pools) for taken in _taken(m, p, i, lambda o: (problem.offers[o].location, problem.offers[o].zone))]


def _spot(m: Model, problem: Problem, pools: tuple[Pool, ...]) -> list[tuple[PoolIndex, StateIndex, Term]]:
    """What everything bought as spot takes of each pool."""
    return [(p, i, taken) for p, i in _busy(m, problem, pools) for taken in _taken(m, p, i, lambda o: problem.offers[o].spot or None)]


def _taken(m: Model, p: PoolIndex, i: StateIndex, group: Callable[[OfferIndex], object]) -> list[Term]:
    """Replicas of a pool on the offers of each group; offers of none (None) are in no group."""
    groups: dict[object, list[Term]] = {}
    for key in m.replicas_by_pool.get((p, i), []):
        if (name := group(key[1])) is not None:
            groups.setdefault(name, []).append(m.n[key])
    return [quicksum(terms) for terms in groups.values()]
