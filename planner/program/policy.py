"""Policy: caps on what is held (quotas, GPUs, money, power), how few of an offer may be, and how many distinct models, GPU types and locations."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

from pyomo.core.base import Binary, Constraint, Var
from pyomo.core.util import quicksum

from planner.program.kinds import Model, StateIndex, Term
from planner.program.problem import Pool, Problem
from planner.program.variables import hosted_usd, in_use, slack
from planner.program.waiting import most_replicas


def define(m: Model, problem: Problem, pools: tuple[Pool, ...]) -> None:
    """(11) Σ_o a[k,o]·I[o,i] ≤ most[k] for each cap k on GPUs, $/h or kW, in every state i; on all $/h with what hosted pools cost;
    (12) u[d] ≤ used[k(d)], Σ_k used[k] ≤ limit for models and GPU types; (13) I[o,i] ≤ Ī[o]·b[l(o)], Σ_l b[l] ≤ limit for locations;
    (29) k[o]·a[o,i] ≤ I[o,i] ≤ Ī[o]·a[o,i], a[o,i] binary, for offers of which k[o] instances or none are held, Ī[o] no less than k[o].
    """
    rules, offers = problem.rules, problem.offers

    counted = {c.name: (c, terms) for c in rules.caps if (terms := [(a, o) for o in m.offer_keys if (a := c.amount(offers[o]))]) or (m.hosted and c.is_money)}

    def capped(m: Model, name: str, i: StateIndex) -> Term:
        cap, terms = counted[name]
        bought = hosted_usd(m, problem, pools, i) if m.hosted and cap.is_money else 0
        return quicksum(a * m.I[o, i] for a, o in terms) + bought <= cap.most + slack(m, cap.family, cap.key)

    m.cap = Constraint([(name, i) for name in counted for i in range(len(problem.states))], rule=capped)
    _distinct(m, "model", rules.max_models, pools, lambda p: problem.columns[p.column].model)
    _distinct(m, "gpu_type", rules.max_gpu_types, pools, lambda p: problem.columns[p.column].gpu)
    _locations(m, problem, pools)
    _minimums(m, problem, pools)


def _minimums(m: Model, problem: Problem, pools: tuple[Pool, ...]) -> None:
    """No instance of an offer, or as many as it is sold in at least."""
    keys = [(o, i) for o, i in m.held_keys if problem.offers[o].minimum > 1]
    if not keys:
        return
    fewest, enough = {o: problem.offers[o].minimum for o, _ in keys}, _most_instances(m, problem, pools)
    m.bought = Var(keys, domain=Binary)
    m.at_least = Constraint(keys, rule=lambda m, o, i: fewest[o] * m.bought[o, i] <= m.I[o, i])
    m.or_none = Constraint(keys, rule=lambda m, o, i: m.I[o, i] <= max(fewest[o], enough[o]) * m.bought[o, i])


def _distinct(m: Model, name: str, limit: int | None, pools: tuple[Pool, ...], key: Callable[[Pool], str]) -> None:
    """At most ``limit`` different keys among the pools in use."""
    keys = sorted({key(p) for p in pools} - {""})
    if limit is None or len(keys) <= limit:
        return
    used = Var(keys, domain=Binary)
    m.add_component(f"used_{name}", used)
    m.add_component(f"{name}_in_use", Constraint([d for d in sorted(set(m.heads)) if key(pools[d])], rule=lambda m, d: in_use(m, d) <= used[key(pools[d])]))
    m.add_component(f"max_{name}s", Constraint(expr=quicksum(used.values()) <= limit))


def _locations(m: Model, problem: Problem, pools: tuple[Pool, ...]) -> None:
    """At most so many locations hold instances. Ī[o] is what would serve everything on offer o alone."""
    located = [(o, i) for o, i in m.held_keys if problem.offers[o].location]
    places = sorted({problem.offers[o].location for o, _ in located})
    limit = problem.rules.max_locations
    if limit is None or len(places) <= limit:
        return
    enough = _most_instances(m, problem, pools)
    m.used_location = Var(places, domain=Binary)
    m.location_in_use = Constraint(located, rule=lambda m, o, i: m.I[o, i] <= enough[o] * m.used_location[problem.offers[o].location])
    m.max_locations = Constraint(expr=quicksum(m.used_location.values()) <= limit)


def _most_instances(m: Model, problem: Problem, pools: tuple[Pool, ...]) -> dict[int, int]:
    """A bound on I[o]: every pool that fits serves all its workloads there, each replica on instances of its own."""
    rules, kept = problem.rules, {o: problem.offers[o].now for o in m.offer_keys}  # idle, where changes are counted
    most = dict.fromkeys(m.offer_keys, 0)
    for p, o in dict.fromkeys((p, o) for p, o, _ in m.replica_keys):
        pool, offer = pools[p], problem.offers[o]
        load = sum(problem.demands[w].rate / pool.capacity[w] for w in pool.workloads)
        replicas = max(ceil(load / min(rules.max_slo_load, rules.load_after_loss)), pool.replicas, rules.floor_replicas) + rules.spare_replicas
        replicas += ceil(most_replicas(problem, pool)) + (offer.at_once(problem.columns[pool.column].gpus) if rules.survives else 0)
        each = ceil(problem.columns[pool.column].gpus / offer.gpus)
        most[o] = max(most[o], replicas * each)
    return {o: max(kept[o], n * max(1, len(problem.demands)) * (rules.pools_per_workload or 8)) for o, n in most.items()}
