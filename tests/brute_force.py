"""The program's optimum by enumeration, written without the program: replica counts, explicit placement on instances, linprog for traffic."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil, inf
from typing import Any

import numpy as np
from scipy.optimize import linprog

from planner.program.problem import Cap, Problem, Purchasable, Rules

TOLERANCE = 1e-9
Replicas = tuple[tuple[int, tuple[int, ...]], ...]  # (GPUs, offers it may run on) of each replica, largest first


@dataclass(frozen=True)
class Deployment:
    """One way to use a candidate: for one workload at a pool size, or shared."""

    column: int
    rates: Mapping[int, float]
    least: int


class TooLarge(Exception):
    """More cases than this test wants to enumerate."""


def enumerated(drawn: Callable[[random.Random], Problem], first: int, count: int, most_cases: int = 5_000) -> Iterator[tuple[int, Problem, float]]:
    """(seed, problem, least cost by enumeration) of so many drawn problems from a seed on, without those that are too large."""
    found = 0
    for seed in itertools.count(first):
        problem = drawn(random.Random(seed))
        try:
            least = optimum(problem, most_cases)
        except TooLarge:
            continue
        yield seed, problem, least
        found += 1
        if found == count:
            return


def optimum(problem: Problem, most_cases: int = 60_000) -> float:
    """The least cost per hour, infinite if there is no plan."""
    ways = deployments(problem)
    if any(all(w not in d.rates for d in ways) for w in range(len(problem.demands))):
        return inf
    placement, columns = Placement(problem), [problem.columns[d.column] for d in ways]
    cases = _promising(problem, ways, np.array(list(_counts(problem, ways, most_cases)), dtype=int))
    least = cases @ np.array([c.gpus * min(_per_gpu(problem.offers[o]) for o in c.offers) for c in columns])
    best = inf
    for i in np.argsort(least, kind="stable"):
        n = tuple(int(count) for count in cases[i])
        if least[i] >= best:
            break
        cost = placement.cost(_replicas(problem, ways, n))
        if cost < best and carries(problem, ways, n):
            best = cost
    return best


def rules(
    max_gpus: int | None = None,
    budget: float | None = None,
    quota: Mapping[str, int] | None = None,
    max_kw: float | None = None,
    max_kw_at: Mapping[str, float] | None = None,
    max_carbon: float | None = None,
    paid: float | None = None,
    **more: Any,
) -> Rules:
    """Rules with caps by the names that users know them by."""
    caps = [Cap("budget", "usd", budget)] if budget is not None else []
    caps += [Cap("max_gpus", "gpus", max_gpus)] if max_gpus is not None else []
    caps += [Cap("quota", "gpus", n, key, frozenset(key.split("/"))) for key, n in (quota or {}).items()]
    caps += [Cap("max_kw", "kw", max_kw)] if max_kw is not None else []
    caps += [Cap("max_kw_at", "kw", kw, place, frozenset((place,))) for place, kw in (max_kw_at or {}).items()]
    caps += [Cap("max_carbon", "kg", max_carbon)] if max_carbon is not None else []
    caps += [Cap("budget", "paid", paid)] if paid is not None else []
    return Rules(caps=tuple(caps), **more)


def _promising(problem: Problem, ways: Sequence[Deployment], cases: np.ndarray) -> np.ndarray:
    """The cases that could carry each workload if it were the only one, with no more GPUs in use than may be held."""
    in_service = np.maximum(cases - problem.rules.spare_replicas, 0) * problem.rules.max_slo_load
    keep = np.ones(len(cases), dtype=bool)
    for w, demand in enumerate(problem.demands):
        keep &= in_service @ np.array([d.rates.get(w, 0.0) for d in ways]) >= demand.rate * (1 - TOLERANCE)
    columns = [problem.columns[d.column] for d in ways]
    for cap in (c for c in problem.rules.caps if c.of == "gpus"):
        inside = [all(_counts_for(cap, problem.offers[o]) for o in c.offers) for c in columns]
        keep &= cases @ np.array([c.gpus if within else 0 for c, within in zip(columns, inside, strict=True)]) <= cap.most
    return cases[keep]


def deployments(problem: Problem) -> list[Deployment]:
    """Alone at each pool size, or shared by all workloads the candidate shares."""
    found = []
    for c, column in enumerate(problem.columns):
        found += [Deployment(c, {w: t.capacity}, t.replicas) for w, tiers in column.tiers.items() for t in tiers]
        found += [Deployment(c, dict(column.shared), 1)] if len(column.shared) > 1 else []
    return found


def _counts(problem: Problem, ways: Sequence[Deployment], most_cases: int) -> Iterator[tuple[int, ...]]:
    """Replicas of each deployment: none, or from the fewest it may have to what carries everything alone."""
    u, k = problem.rules.max_slo_load, problem.rules.spare_replicas
    options = []
    for d in ways:
        all_alone = ceil(sum(problem.demands[w].rate / rate for w, rate in d.rates.items()) / u - TOLERANCE)
        options.append([0, *range(d.least + k, max(all_alone, d.least) + k + 1)])
    if np.prod([float(len(o)) for o in options]) > most_cases:
        raise TooLarge
    return itertools.product(*options)


def carries(problem: Problem, ways: Sequence[Deployment], n: Sequence[int]) -> bool:
    """Whether these replicas carry the demand under the rules on models, GPU types, deployments and checkpoints."""
    rules, used = problem.rules, [p for p, count in enumerate(n) if count]
    columns = [problem.columns[ways[p].column] for p in used]
    if rules.max_models is not None and len({c.model for c in columns}) > rules.max_models:
        return False
    if rules.max_gpu_types is not None and len({c.gpu for c in columns}) > rules.max_gpu_types:
        return False
    options = [_allowed(problem, ways, [p for p in used if w in ways[p].rates]) for w in range(len(problem.demands))]
    return any(_routes(problem, ways, n, choice) for choice in itertools.product(*options))


def _allowed(problem: Problem, ways: Sequence[Deployment], able: list[int]) -> list[tuple[int, ...]]:
    """The largest sets of deployments that may serve one workload together."""
    rules = problem.rules
    groups = [able]
    if not rules.mix and rules.pools_per_workload != 1:
        by = {problem.columns[ways[p].column].checkpoint for p in able}
        groups = [[p for p in able if problem.columns[ways[p].column].checkpoint == k] for k in sorted(by)]
    most = rules.pools_per_workload
    return [s for g in groups if g for s in itertools.combinations(g, len(g) if most is None else min(most, len(g)))]


def _routes(problem: Problem, ways: Sequence[Deployment], n: Sequence[int], choice: Sequence[tuple[int, ...]]) -> bool:
    """Whether traffic can be divided over the chosen deployments; k replicas of each count for nothing."""
    u, k = problem.rules.max_slo_load, problem.rules.spare_replicas
    flows = [(w, p) for w, chosen in enumerate(choice) for p in chosen]
    total = np.array([[float(w == v) for w, _ in flows] for v in range(len(problem.demands))])
    rates = [d.rate for d in problem.demands]
    used = sorted({p for _, p in flows})
    load = [[1 / ways[p].rates[w] if p == q else 0.0 for w, p in flows] for q in used]
    room = [u * (n[q] - k) for q in used]
    for v, demand in enumerate(problem.demands):
        if demand.mean_quality is not None:
            load.append([_lack(problem, ways, w, p, demand.mean_quality) if w == v else 0.0 for w, p in flows])
            room.append(0.0)
    if all(len(chosen) == 1 for chosen in choice):
        x = np.array([rates[w] for w, _ in flows])
        return bool(np.all(np.array(load) @ x <= np.array(room) + TOLERANCE))
    return bool(linprog(np.zeros(len(flows)), A_ub=load, b_ub=np.array(room) + TOLERANCE, A_eq=total, b_eq=rates).status == 0)


def _lack(problem: Problem, ways: Sequence[Deployment], w: int, p: int, floor: float) -> float:
    column = problem.columns[ways[p].column]
    return floor - column.quality[w]


def _replicas(problem: Problem, ways: Sequence[Deployment], n: Sequence[int]) -> Replicas:
    columns = [problem.columns[d.column] for d, count in zip(ways, n, strict=True) for _ in range(count)]
    return tuple(sorted(((c.gpus, c.offers) for c in columns), reverse=True))


class Placement:
    """The least price of instances on which given replicas have room, by trying them out."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.cost = cache(self._cost)

    def _cost(self, replicas: Replicas) -> float:
        offers = self.problem.offers
        most = [sum(-(-g // offers[o].gpus) for g, hosts in replicas if o in hosts) for o in range(len(offers))]
        most = [max(m, o.minimum) if m else 0 for m, o in zip(most, offers, strict=True)]
        most = [m if o.available is None else min(m, o.available) for m, o in zip(most, offers, strict=True)]
        if np.prod([m + 1.0 for m in most]) > 2_000:
            raise TooLarge
        counts = ([0, *range(o.minimum, m + 1)] for m, o in zip(most, offers, strict=True))
        held = sorted((sum(offer.usd_per_hour * i for offer, i in zip(offers, n, strict=True)), n) for n in itertools.product(*counts))
        return next((cost for cost, n in held if self._permitted(n, cost) and fits(offers, replicas, n)), inf)

    def _counted(self, cap: Cap, held: tuple[int, ...], cost: float) -> float:
        if cap.of == "usd":
            return cost
        here = [(o, n) for o, n in zip(self.problem.offers, held, strict=True) if _counts_for(cap, o)]
        if cap.of == "paid":
            return cost - sum(n * o.unpaid for o, n in here)
        return sum(n * {"gpus": o.gpus, "kw": o.kw or 0.0, "kg": o.kg or 0.0}[cap.of] for o, n in here)

    def _permitted(self, held: tuple[int, ...], cost: float) -> bool:
        rules, offers = self.problem.rules, self.problem.offers
        places = {offer.location for offer, count in zip(offers, held, strict=True) if count and offer.location}
        return all(self._counted(cap, held, cost) <= cap.most + TOLERANCE for cap in rules.caps) and (
            rules.max_locations is None or len(places) <= rules.max_locations
        )


def _counts_for(cap: Cap, offer: Purchasable) -> bool:
    return all(name in (offer.gpu, offer.location, *offer.place) for name in cap.scope)


def fits(offers: Sequence[Purchasable], replicas: Replicas, held: Sequence[int]) -> bool:
    """Whether every replica has its GPUs on one instance (or on whole ones, where it is larger), by putting them there."""
    if sum(g for g, _ in replicas) > sum(o.gpus * i for o, i in zip(offers, held, strict=True)):
        return False
    free = tuple(sorted((o, offers[o].gpus) for o, i in enumerate(held) for _ in range(i) if offers[o].whole))
    single = tuple(i if not offers[o].whole else 0 for o, i in enumerate(held))
    return _put(tuple(offers), replicas, free, single)


@cache
def _put(offers: tuple[Purchasable, ...], replicas: Replicas, free: tuple[tuple[int, int], ...], single: tuple[int, ...]) -> bool:
    if not replicas:
        return True
    (g, hosts), rest = replicas[0], replicas[1:]
    for o in hosts:
        if not offers[o].whole:
            if single[o] >= g and _put(offers, rest, free, (*single[:o], single[o] - g, *single[o + 1 :])):
                return True
        elif g > offers[o].gpus:
            empty, needed = free.count((o, offers[o].gpus)), -(-g // offers[o].gpus)
            if empty >= needed and _put(offers, rest, _without(free, (o, offers[o].gpus), needed), single):
                return True
        else:
            for room in sorted({r for q, r in free if q == o and r >= g}):
                after = tuple(sorted((*_without(free, (o, room), 1), (o, room - g))))
                if _put(offers, rest, after, single):
                    return True
    return False


def _without(free: tuple[tuple[int, int], ...], item: tuple[int, int], times: int) -> tuple[tuple[int, int], ...]:
    left = list(free)
    for _ in range(times):
        left.remove(item)
    return tuple(left)


def _per_gpu(offer: Purchasable) -> float:
    return offer.usd_per_hour / offer.gpus
