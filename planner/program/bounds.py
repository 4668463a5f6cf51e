"""What a plan costs at least, in one place: the search and the choice of candidates leave out only what these say is dearer, or breaks a limit.

Every number here is no more than the cost of the best plan, whole replicas and instances counted (tests/test_bounds.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf

import numpy as np
from numpy.typing import NDArray

from planner.program.places import at_location
from planner.program.problem import Cap, Column, Problem, Purchasable

Floats = NDArray[np.float64]


# ---- one state


def lower_bounds(problem: Problem, places: list[list[int]]) -> list[float]:
    """Cost that no plan at a location is below, for each: fractional replicas at the lowest price per GPU. Infinite if a workload has no column.

    A plan that holds nothing of the location itself is one of the section without a location. What is hosted serves at every one.
    """
    price = _prices(problem, places)
    if any(c.is_hosted for c in problem.columns):
        return _fractional_bounds(problem, price)
    held = [min((_first_usd(problem.offers[o]) for o in offers if problem.offers[o].location), default=0.0) for offers in places]
    if len(problem.demands) == 1 and problem.rules.pools_per_workload == 1:
        found = _bounds_of_one_pool(problem, places, price)
    else:
        found = _fractional_bounds(problem, price)
    return [max(bound, least) for bound, least in zip(found, held, strict=True)]


def _first_usd(offer: Purchasable) -> float:
    """$/h of an offer where it is held at all."""
    return offer.usd_per_hour * offer.minimum


def _prices(problem: Problem, places: list[list[int]]) -> Floats:
    """[column, location]: the lowest price per GPU, infinite where nothing hosts the column."""
    at = [[i for i, offers in enumerate(places) if o in offers] for o in range(len(problem.offers))]
    unit = [o.usd_per_hour / o.gpus for o in problem.offers]
    hosts = dict.fromkeys(column.offers for column in problem.columns)
    for offers in hosts:
        row = np.full(len(places), inf)
        for o in offers:
            for i in at[o]:
                row[i] = min(row[i], unit[o])
        hosts[offers] = row
    return np.array([hosts[column.offers] for column in problem.columns]).reshape(len(problem.columns), len(places))


def _bounds_of_one_pool(problem: Problem, places: list[list[int]], price: Floats) -> list[float]:
    """Per location: what the only pool costs at least."""
    gpus = np.array([_least_gpus(problem, c) for c in problem.columns])
    able = np.isfinite(gpus)
    found = [float(b) for b in np.min(gpus[able, None] * price[able], axis=0, initial=inf)]
    for i, offers in enumerate(places):  # where only so many GPUs can be had, the cheapest may not be enough
        if any(problem.offers[o].available is not None for o in offers):
            found[i] = min((_least_cost(part, c, 0) for part in [at_location(problem, offers).problem] for c in part.columns), default=inf)
    return found


def _fractional_bounds(problem: Problem, price: Floats) -> list[float]:
    """Per location: for traffic that may be split and share pools; under a mean quality the cheapest blend of two columns."""
    gpus, hosted = np.array([c.gpus for c in problem.columns], dtype=float), np.array([c.is_hosted for c in problem.columns])
    spare = problem.rules.spare_replicas if not hosted.any() else 0
    replica = np.min(gpus[:, None] * price, axis=0, initial=inf) if not hosted.any() else np.zeros(price.shape[1])  # the cheapest there is
    served = np.zeros(price.shape[1])
    for w, demand in enumerate(problem.demands):
        most = np.array([max([*(t.capacity for t in c.tiers.get(w, ())), c.shared.get(w, 0.0)], default=0.0) for c in problem.columns])
        surplus = np.array([c.quality.get(w, 0.0) - (demand.mean_quality or 0.0) for c in problem.columns])
        bought = np.array([demand.rate * c.usd_per_unit.get(w, inf) for c in problem.columns])
        for i in range(len(served)):
            able = (most > 0) & np.isfinite(price[:, i])
            cost = demand.rate / (most[able] * problem.rules.max_slo_load) * gpus[able] * price[able, i]
            api = np.isfinite(bought)
            served[i] += _cheapest_blend(np.concatenate([cost, bought[api]]), np.concatenate([surplus[able], surplus[api]]))
    return [float(b) for b in np.maximum((1 + spare) * replica, (spare * replica if spare else 0.0) + served)]


def _least_cost(problem: Problem, column: Column, w: int) -> float:
    """A bound on the cost of serving one workload's demand with one column."""
    if w not in column.tiers:
        return inf
    if problem.rules.pools_per_workload == 1 and len(problem.demands) == 1:
        gpus = _least_gpus(problem, column)
        return _cost_of_gpus(problem, column, gpus) if gpus < inf else inf
    best = max(t.capacity for t in column.tiers[w])
    return problem.demands[w].rate / (best * problem.rules.max_slo_load) * column.gpus * _usd_per_gpu(problem, column)


def _least_gpus(problem: Problem, column: Column) -> float:
    """GPUs that the only pool takes at least if it is of this column, infinite where it cannot be."""
    if 0 not in column.tiers:
        return inf
    rules, tiers = problem.rules, column.tiers[0]
    replicas = max(problem.demands[0].rate / (max(t.capacity for t in tiers) * rules.max_slo_load), tiers[0].replicas + rules.spare_replicas)
    if rules.survives & {"instance", "zone"}:  # either takes one at least
        replicas = max(replicas, (tiers[0].remain or 0) + 1)
    return replicas * column.gpus if replicas * column.gpus <= _most_gpus(problem, column) * (1 + 1e-9) else inf


def _most_gpus(problem: Problem, column: Column) -> float:
    """GPUs of a column's offers that caps on other things than money let be held; infinite without any."""
    offers = [problem.offers[o] for o in column.offers]
    each = [(cap.most, min(cap.amount(o) / o.gpus for o in offers)) for cap in problem.rules.caps if cap.of != "usd"]
    return min((most / per_gpu for most, per_gpu in each if per_gpu), default=inf)


def _cheapest_blend(cost: Floats, surplus: Floats) -> float:
    """Least cost of a mix whose surplus of quality is not negative: one column, or two that balance."""
    good, poor = surplus >= 0, surplus < 0
    if not good.any():
        return inf
    best = float(cost[good].min())
    if poor.any():
        share = -surplus[poor][None] / (surplus[good][:, None] - surplus[poor][None])
        best = min(best, float((share * cost[good][:, None] + (1 - share) * cost[poor][None]).min()))
    return best


def _cost_of_gpus(problem: Problem, column: Column, gpus: float) -> float:
    """$/h that so many GPUs cost a column at least: the cheapest first, as many as there are; infinite where there are too few."""
    cost = 0.0
    for offer in sorted((problem.offers[o] for o in column.offers), key=lambda o: o.usd_per_hour / o.gpus):
        here = gpus if offer.available is None else min(gpus, offer.available * offer.gpus)
        cost, gpus = cost + here * offer.usd_per_hour / offer.gpus, gpus - here
        if gpus <= 0:
            return cost
    return cost if gpus <= 1e-9 else inf


def _usd_per_gpu(problem: Problem, column: Column) -> float:
    return min(problem.offers[o].usd_per_hour / problem.offers[o].gpus for o in column.offers)


def worthwhile(problem: Problem, cutoff: float) -> list[int]:
    """Columns that a plan no dearer than the cutoff may use; of one workload without a mean quality, else all."""
    every = list(range(len(problem.columns)))
    if len(problem.demands) > 1 or cutoff == inf or problem.demands[0].mean_quality is not None or any(c.is_hosted for c in problem.columns) or not every:
        return every
    top, rules, rate = cutoff * (1 + 1e-9), problem.rules, problem.demands[0].rate
    if rules.pools_per_workload == 1:
        return [c for c in every if _least_cost(problem, problem.columns[c], 0) <= top]
    replica = np.array([c.gpus * _usd_per_gpu(problem, c) for c in problem.columns])
    carries = np.array([max((t.capacity for t in c.tiers.get(0, ())), default=0.0) for c in problem.columns]) * rules.max_slo_load
    per_unit = float(np.min(np.divide(replica, carries, out=np.full(len(every), inf), where=carries > 0)))
    return [int(c) for c in np.flatnonzero((carries > 0) & ~beyond(replica, carries, per_unit, rate, top, rules.spare_replicas))]


def beyond(replica: Floats, carries: Floats, usd_per_unit: float, rate: float, cutoff: float, spare: int) -> NDArray[np.bool_]:
    """Pools that no plan of several below the cutoff uses, by what one replica costs and carries at most.

    A pool has its spares and one more; and it wastes at least what that one costs beyond its traffic at the best price of any, usd_per_unit.
    """
    found: NDArray[np.bool_] = (replica - carries * usd_per_unit > cutoff - rate * usd_per_unit) | (replica * (1 + spare) > cutoff)
    return found


def only_pool(replica: Floats, carries: Floats, rate: float, spare: int) -> Floats:
    """$/h that the only pool costs at least, by what one replica costs and carries at most: whole replicas and spares."""
    with np.errstate(divide="ignore"):
        found: Floats = (np.ceil(rate / carries - 1e-9) + spare) * replica
    return found


# ---- over states


def cover(offers: Sequence[Purchasable], most: int) -> Floats:
    """[GPUs, up to most] least $/h of instances that together have at least so many GPUs."""
    known = np.full(most + 1, inf)
    known[0] = 0.0
    rented = [(o.gpus, o.usd_per_hour) for o in offers if o.available is None]
    for n in range(1, most + 1):
        known[n] = min((price + known[max(0, n - size)] for size, price in rented), default=inf)
    for o in offers:
        for _ in range(min(o.available or 0, -(-most // o.gpus))):  # one more of what there is only so much of
            known = np.minimum(known, o.usd_per_hour + known[np.maximum(np.arange(most + 1) - o.gpus, 0)])
    return known


def surely(cap: Cap, offers: Sequence[Purchasable], taken: Mapping[str, NDArray[np.int64]], usd: Floats) -> float:
    """What counts towards a cap at least in the state that counts most, for so many GPUs of each type by state, and $/h by state."""
    if cap.of == "usd":
        return 0.0 if cap.key else float(usd.max())
    each = {gpu: min((cap.amount(o) / o.gpus for o in offers if o.gpu == gpu), default=0.0) for gpu in taken}
    return float(np.sum([each[gpu] * n for gpu, n in taken.items()], axis=0).max()) if taken else 0.0


def starts_of(taken: NDArray[np.int64]) -> int:
    """GPUs that are started at least around a circle of states, for so many taken in each."""
    return int(np.maximum(taken - np.roll(taken, 1), 0).sum()) if len(taken) > 1 else 0


def alone(usd: float, speed: float, amount: float, windows: Sequence[Sequence[int]], states: int, lead_hours: float) -> float:
    """Least cost of waiting work on replicas of its own: whole replica-hours in each window, and the starts that idle hours between windows force.

    usd: of a replica's hour, at the least; speed: requests of it; amount: of each window; lead_hours: no more than 1.
    """
    hours = len(windows[0])
    each = int(np.ceil(amount / speed - 1e-9))  # replica-hours of a window
    starts = -(-each // hours) * len(windows) if hours < states // len(windows) else int(each % hours > 0)
    return usd * (each * len(windows) + lead_hours * starts)
