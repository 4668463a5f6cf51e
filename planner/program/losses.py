"""What may be lost at once, and still everything is served: any one instance, any one zone, everything bought as spot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pyomo.core.base import Binary, Constraint, Var
from pyomo.core.util import quicksum

from planner.program.kinds import Model, OfferIndex, PoolIndex, StateIndex, Term
from planner.program.problem import Loss, Pool, Problem
from planner.program.variables import running


@dataclass(frozen=True)
class Taken:
    """What a loss takes of a pool in a state; ``unless``: a binary that frees the pool of it, where another row holds then."""

    pool: PoolIndex
    state: StateIndex
    taken: Term
    unless: Term = 0


def define(m: Model, problem: Problem, pools: tuple[Pool, ...]) -> None:
    """With R = Σ_o n[p,o,i] the replicas of pool p and lost[p,ℓ] those that a loss ℓ takes, for each ℓ, p and i:
    (24) Σ_w λ[w,i]/μ[p,w]·x[w,p,i] ≤ v·(R − lost[p,ℓ]) and R − lost[p,ℓ] ≥ r[p]·y[p,i], v the load allowed then; where all the traffic is known
    to be p's R − lost[p,ℓ] ≥ remain[p,i]·y[p,i]. A zone, or all that is spot, takes Σ_{o in ℓ} n[p,o,i].
    (25) An instance of offer o takes as many as fit on it, ⌊G[o]/g[p]⌋, or all that are on o: with e[p,o,i] binary, (24) holds for
    lost = ⌊G[o]/g[p]⌋·e, and for lost = n[p,o,i] where e = 0.
    """
    lost = {"instance": _instances, "zone": _zones, "spot": _spot}
    losses = [loss for kind in sorted(problem.rules.survives) for loss in lost[kind](m, problem, pools)]
    if not losses:
        return
    counted = [k for k, loss in enumerate(losses) if pools[loss.pool].remain is None]
    m.survives = Constraint(counted, rule=lambda m, k: _carried(m, problem, pools, losses[k]))
    sized = [k for k, loss in enumerate(losses) if _remain(pools, loss) > 0 and (k not in set(counted) or (loss.pool, loss.state) in m.y)]
    m.survivors = Constraint(sized, rule=lambda m, k: _left(m, losses[k]) >= _remain(pools, losses[k]) * (_used(m, losses[k]) - losses[k].unless))


def _carried(m: Model, problem: Problem, pools: tuple[Pool, ...], loss: Taken) -> Term:
    """(24) by load."""
    pool, p, i = pools[loss.pool], loss.pool, loss.state
    load = quicksum(problem.demands[w].rates[i] / pool.left_capacity[w] * m.x[w, p, i] for w, _, _ in m.flow_by_pool.get((p, i), []))
    most = sum(problem.demands[w].rates[i] / pool.left_capacity[w] for w in pool.workloads)
    return load - most * loss.unless <= problem.rules.load_after_loss * _left(m, loss)


def _remain(pools: tuple[Pool, ...], loss: Taken) -> int:
    """Replicas of a pool that must remain: as many as all its traffic takes, or as its capacity is of."""
    pool = pools[loss.pool]
    return pool.replicas if pool.remain is None else pool.remain[loss.state]


def _left(m: Model, loss: Taken) -> Term:
    return running(m, loss.pool, loss.state) - loss.taken


def _used(m: Model, loss: Taken) -> Term:
    if (loss.pool, loss.state) in m.y:
        return m.y[loss.pool, loss.state]
    return 1


def _busy(m: Model, problem: Problem, pools: tuple[Pool, ...]) -> list[tuple[PoolIndex, StateIndex]]:
    """Pools with replicas in the states in which they may have traffic."""
    here = [p for p, pool in enumerate(pools) if p not in m.hosted and pool.workloads]
    return [(PoolIndex(p), StateIndex(i)) for p in here for i in range(len(problem.states)) if any(problem.demands[w].rates[i] > 0 for w in pools[p].workloads)]


def _instances(m: Model, problem: Problem, pools: tuple[Pool, ...]) -> list[Taken]:
    """What one instance of each offer takes of each pool; where only one fits on it there is nothing to choose."""
    gpus = [problem.columns[pool.column].gpus for pool in pools]
    keys = [(p, o, i) for p, i in _busy(m, problem, pools) for _, o, _ in m.replicas_by_pool.get((p, i), [])]
    fit = {(p, o): problem.offers[o].at_once(gpus[p]) for p, o, _ in keys}
    m.e = Var(keys, domain=Binary)
    return [*(Taken(p, i, fit[p, o] * m.e[p, o, i]) for p, o, i in keys), *(Taken(p, i, m.n[p, o, i], m.e[p, o, i]) for p, o, i in keys)]


def _zones(m: Model, problem: Problem, pools: tuple[Pool, ...]) -> list[Taken]:
    """What each zone takes of each pool. Zones of one name at several locations are several."""
    return [
        Taken(p, i, taken) for p, i in _busy(m, problem, pools) for taken in _taken(m, p, i, lambda o: (problem.offers[o].location, problem.offers[o].zone))
    ]


def _spot(m: Model, problem: Problem, pools: tuple[Pool, ...]) -> list[Taken]:
    """What everything bought as spot takes of each pool."""
    return [Taken(p, i, taken) for p, i in _busy(m, problem, pools) for taken in _taken(m, p, i, lambda o: problem.offers[o].spot or None)]


def _taken(m: Model, p: PoolIndex, i: StateIndex, group: Callable[[OfferIndex], object]) -> list[Term]:
    """Replicas of a pool on the offers of each group; offers of none (None) are in no group."""
    groups: dict[object, list[Term]] = {}
    for key in m.replicas_by_pool.get((p, i), []):
        if (name := group(key[1])) is not None:
            groups.setdefault(name, []).append(m.n[key])
    return [quicksum(terms) for terms in groups.values()]


def worst(kind: Loss, problem: Problem, gpus: int, running: Mapping[int, int]) -> tuple[int, tuple[int, ...]]:
    """The most replicas of so many GPUs that one loss takes of those running on each offer, and the offers that it hits."""
    offers = problem.offers
    found: dict[tuple[int, ...], int] = {(): 0}
    for o, n in running.items():
        if kind == "instance":
            found[o,] = min(n, offers[o].at_once(gpus))
        elif kind == "zone":
            hit = tuple(q for q in running if (offers[q].location, offers[q].zone) == (offers[o].location, offers[o].zone))
            found[hit] = sum(running[q] for q in hit)
        elif offers[o].spot:
            hit = tuple(q for q in running if offers[q].spot)
            found[hit] = sum(running[q] for q in hit)
    hit = max(found, key=lambda h: (found[h], [-o for o in h]))
    return found[hit], hit
