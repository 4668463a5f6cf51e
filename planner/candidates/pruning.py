"""Which rows are worth a column: those that no other replica type makes pointless, found without computing most capacities.

Dominance holds within one GPU type: b beats a when m = g_a/g_b copies of b, on the same GPUs, carry at least what a can
in every workload, with no lower quality. An upper bound on a's capacity is enough to know.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf

import numpy as np
from numpy.typing import NDArray

from planner.candidates.hosted import Beside
from planner.candidates.offers import Hosting, location, purchasable
from planner.candidates.points import OperatingPoint, Points
from planner.candidates.pooling import POOL_SIZES, replicas_needed
from planner.candidates.survey import Floats, Ints, Survey
from planner.catalog.records import Offer
from planner.errors import TimeUp
from planner.performance.capacity import pooled_qps
from planner.program.bounds import beyond, only_pool
from planner.scenario.caps import caps, most_cost
from planner.scenario.records import Policy, Scenario

UNSETTLED = "not computed in time"  # reason of rows that may be worth having, for all that is known
UNKNOWN = 1e9  # in place of a bound, more than anything carries
ROUNDS = (2, 4, 8, 8, 8, 16, 16, 32, 64, 10**9)  # rows per GPU type whose capacity is computed at once


def undominated(
    points: Points,
    scenario: Scenario,
    rows: Ints,
    scores: Floats,
    offers: tuple[Offer, ...],
    hosted: Hosting,
    cutoff: float,
    apis: Beside | None = None,
) -> tuple[list[int], Counter[str]]:
    """Rows not dominated within their GPU type; capacities are computed in rounds, most promising first, until bounds settle the rest.

    Where there is one workload and nothing but cost limits it, a row that no plan below the cutoff can use is settled too,
    whatever its GPU type; what a row surely costs as the only pool lowers the cutoff. Beside ``apis`` it may be of any size.
    When the time is up the rows known so far are all there is, and the rest counts as UNSETTLED. Raises TimeUp where none is known yet.
    """
    field = _field(points.survey, scenario, rows, scores, offers, apis)
    cutoff = min(cutoff, most_cost(scenario))
    reached = np.zeros_like(field.bound)  # best capacity of a lone replica per workload, once computed
    hopes = field.bound.copy()  # capacity per replica that no pool exceeds: the bound, then that of a large pool; 0 where none is served
    open_, serves = np.any(field.bound > 0, axis=1), np.zeros(len(rows), dtype=bool)
    lost: Counter[str] = Counter({"SLO": int((~open_).sum())})
    for size in ROUNDS:
        chosen = _most_promising(field, open_, size)
        if not len(chosen):
            break
        try:
            found = points.of(rows[chosen])
        except TimeUp:
            if not serves.any():
                raise
            lost[UNSETTLED] = int(open_.sum())
            break
        able = np.array([i for i in chosen.tolist() if found[int(rows[i])]], dtype=np.int64)
        reached[able], hopes[able] = _best(found, rows, able, field, (1, POOL_SIZES[-1]))
        for i in able.tolist() if field.price is not None else ():
            cutoff = min(cutoff, _sure_cost(points.survey, scenario, offers, hosted, int(rows[i]), found[int(rows[i])]))
        serves[chosen] = reached[chosen][:, : len(field.rate)].any(axis=1)
        hopes[chosen[~serves[chosen]]] = 0.0
        lost["SLO"] += int((~serves[chosen]).sum())
        open_[chosen] = False
        open_[_beaten(field, field.bound, reached, np.flatnonzero(open_), chosen[serves[chosen]])] = False
        if field.price is not None:
            dear = open_ & _too_dear(field, scenario, hopes, cutoff * (1 + 1e-9))
            lost["dearer at best"] += int(dear.sum())
            open_ &= ~dear
    kept = np.flatnonzero(serves)
    pooled = _pooled(points.of(rows[kept]), rows, kept, field)
    kept = kept[~np.isin(kept, _beaten(field, pooled, pooled, kept, kept))]
    lost["dominated"] = len(rows) - lost["SLO"] - lost["dearer at best"] - lost[UNSETTLED] - len(kept)
    order = kept[np.argsort(-field.promise[kept], kind="stable")]
    return [int(r) for r in rows[order]], lost


def _pooled(found: dict[int, list[OperatingPoint]], rows: Ints, kept: Ints, field: Comparable) -> Floats:
    """[row, pool size x workload]: best capacity per replica. A row that is better alone may be worse in a large pool."""
    best = np.zeros((len(rows), len(POOL_SIZES) * field.score.shape[1]))
    best[kept] = np.concatenate(_best(found, rows, kept, field, POOL_SIZES), axis=1)
    return best


def _best(found: dict[int, list[OperatingPoint]], rows: Ints, able: Ints, field: Comparable, sizes: Sequence[int]) -> list[Floats]:
    """[able row, workload] for each pool size: the best capacity per replica of any operating point, 0 where none may serve. Each row has a point."""
    at = [found[r] for r in rows[able].tolist()]
    if not at:
        return [np.zeros((0, field.score.shape[1])) for _ in sizes]
    first = np.cumsum([0, *(len(points) for points in at[:-1])])
    single, saturated = (np.array(rows) for rows in zip(*(_capacities(p, field.score.shape[1]) for points in at for p in points)))
    return [np.maximum.reduceat(pooled_qps(single, saturated, n), first, axis=0) * (field.score[able] >= 0) for n in sizes]


def _capacities(p: OperatingPoint, width: int) -> tuple[list[float], list[float]]:
    """Alone and saturated, by workload; those of the time after a loss follow where ``width`` has room for them."""
    after = p.after_loss if width > len(p.single) else ()
    return [*p.single, *(alone for alone, _ in after)], [*p.saturated, *(most for _, most in after)]


def _sure_cost(survey: Survey, scenario: Scenario, offers: tuple[Offer, ...], hosted: Hosting, row: int, points: list[OperatingPoint]) -> float:
    """Cost of serving the only workload with this row on its cheapest single offer with enough of it: a plan that surely exists, unless changes from
    today's fleet are limited. What is contracted is paid beside it, and every change counted."""
    r, policy, rate, supply = survey.replicas, scenario.policy, scenario.workload[0].peak, scenario.supply
    if supply.max_changes is not None:
        return inf
    sunk, each = sum(o.usd_per_hour * o.least for o in offers), supply.change_usd_per_gpu_hour
    sunk += each * sum(o.gpus_per_instance * o.now for o in offers)  # as if all of today's fleet were returned
    gpu, (linked, groups) = r.gpus[int(r.gpu[row])].name, survey.gpus_of(row)
    able = [p for p in points if p.single[0] > 0]
    pooled = policy.router != "random"

    def fewest(load: float) -> int:
        return min((replicas_needed(p.single[0], p.saturated[0] if pooled else p.single[0], rate, load) for p in able), default=0)

    def left(load: float) -> int:
        return min((replicas_needed(alone, most if pooled else alone, rate, load) for p in able for alone, most in p.after_loss[:1]), default=0)

    if policy.survives:  # by one point, which need not be the one that fewest replicas are needed of
        able = sorted(able, key=lambda p: replicas_needed(p.single[0], p.saturated[0] if pooled else p.single[0], rate, policy.max_slo_load))[:1]
    held, remain = fewest(policy.max_slo_load) + policy.spare_replicas, left(policy.load_after_loss) if policy.survives else 0
    able_offers = [offers[i] for i in hosted(gpu, linked, groups) if not (offers[i].purchase == "spot" and limits_spot(policy))] if able else []
    if policy.survives == "zone":  # never from today's fleet
        return _over_zones(able_offers, linked * groups, held, remain)
    whole = [(o, _instances(o, linked * groups, max(held, remain + _lost(o, linked * groups, policy)))) for o in able_offers]
    return sunk + min((n * (o.usd_per_hour + each * o.gpus_per_instance) for o, n in whole if o.available is None or n <= o.available), default=inf)


def limits_spot(policy: Policy) -> bool:
    """Whether not every replica may be on spot."""
    return policy.survives == "spot" or (policy.max_spot_share is not None and policy.max_spot_share < 1)


def _lost(offer: Offer, gpus: int, policy: Policy) -> int:
    """Replicas of so many GPUs that a loss takes at most where all are on one offer, none of it spot."""
    return purchasable(offer).at_once(gpus) if policy.survives == "instance" else 0


def _over_zones(offers: Sequence[Offer], gpus: int, held: int, remain: int) -> float:
    """Least cost of as many replicas in each zone of an instance type as leave enough without one."""
    zones: dict[tuple[str, ...], list[Offer]] = {}
    for o in offers:
        if o.available is None:
            zones.setdefault((location(o), o.instance_type, o.purchase), []).append(o)
    found = inf
    for alike in zones.values():
        if (many := len(alike)) > 1:
            each = max(ceil(held / many), ceil(remain / (many - 1)))
            found = min(found, sum(o.usd_per_hour * _instances(o, gpus, each) for o in alike))
    return found


def _instances(offer: Offer, gpus: int, replicas: int) -> int:
    """Instances that are held for so many replicas of one size."""
    if offer.basis == "gpu" or gpus > offer.gpus_per_instance:
        return max(offer.minimum, replicas * ceil(gpus / offer.gpus_per_instance))
    return max(offer.minimum, ceil(replicas / (offer.gpus_per_instance // gpus)))


@dataclass(frozen=True)
class Comparable:
    """What dominance looks at, per row: group, GPUs, bounds [row, workload], scores, and the least GPUs held for the demand.

    Where limits are longer after a loss, each workload once more, with its capacity then.
    """

    group: Ints  # GPU type, and model where models are limited: dominance holds within
    gpus: Floats
    bound: Floats
    score: Floats
    promise: Floats
    rate: Floats
    only: bool  # one workload in one pool: what is held follows from capacity, so a worse holder loses whatever its score
    survives: bool  # a loss: what is held does not follow from capacity alone
    by_quality: bool  # some rule looks at scores; otherwise they only break ties, and only a single pool has ties worth breaking
    usd_per_unit: float  # of what may serve beside a fleet and is no row of these; infinite where nothing may
    price: Floats | None  # $/h of one replica at the lowest price per GPU; None where cost is not all that limits, or scores count


def _field(survey: Survey, scenario: Scenario, rows: Ints, scores: Floats, offers: tuple[Offer, ...], apis: Beside | None) -> Comparable:
    score = _best_scores(survey, rows, scores)
    bound = np.stack([_bound(survey, w, rows) * (score[:, w] >= 0) for w in range(len(scenario.workload))], axis=1)
    gpus = survey.replicas.size[rows].astype(float)
    rate = np.array([w.peak for w in scenario.workload])
    promise = (bound / gpus[:, None] / rate).sum(axis=1)
    by_quality = any(w.mean_quality is not None for w in scenario.workload)
    only = len(rate) == 1 and not by_quality and scenario.policy.pools_per_workload == 1 and apis is None
    if scenario.policy.survives and scenario.policy.loss_slo_factor > 1:
        after = [_bound_after_loss(survey, w, rows) * (bound[:, w] > 0) for w in range(len(scenario.workload))]
        bound, score = np.hstack([bound, np.stack(after, axis=1)]), np.hstack([score, score])
    return Comparable(
        _groups(survey, scenario, rows, offers, (scores, apis)),
        gpus,
        bound,
        score,
        promise,
        rate,
        only,
        scenario.policy.survives is not None,
        by_quality,
        apis.usd_per_unit if apis else inf,
        _replica_prices(survey, scenario, rows, gpus, offers) if len(rate) == 1 and not by_quality else None,
    )


def _replica_prices(survey: Survey, scenario: Scenario, rows: Ints, gpus: Floats, offers: tuple[Offer, ...]) -> Floats | None:
    """$/h of one replica at the lowest price per GPU; None under caps and limits on models and GPU types. A budget limits nothing but cost."""
    policy = scenario.policy
    if not all(c.is_money for c in caps(scenario)) or (policy.max_models, policy.max_gpu_types) != (None, None):
        return None
    prices = {g.name: min((o.usd_per_hour / o.gpus_per_instance for o in offers if o.gpu == g.name), default=inf) for g in survey.replicas.gpus}
    found: Floats = gpus * np.array([prices[g.name] for g in survey.replicas.gpus])[survey.replicas.gpu[rows]]
    return found


def _too_dear(field: Comparable, scenario: Scenario, hopes: Floats, cutoff: float) -> NDArray[np.bool_]:
    """Rows that no plan below the cutoff uses. hopes: capacity per replica that no pool of the row exceeds."""
    assert field.price is not None
    policy, rate = scenario.policy, float(field.rate[0])
    carries = field.bound[:, 0] * policy.max_slo_load
    if field.only:
        return only_pool(field.price, carries, rate, policy.spare_replicas) > cutoff
    best = np.max(hopes[:, 0] / field.price) * policy.max_slo_load
    return beyond(field.price, carries, min(1 / best, field.usd_per_unit), rate, cutoff, policy.spare_replicas) if best else np.ones(len(hopes), dtype=bool)


def _groups(survey: Survey, scenario: Scenario, rows: Ints, offers: tuple[Offer, ...], beside: tuple[Floats, Beside | None]) -> Ints:
    """Within what dominance holds: one GPU type, one model where models are limited, one size where instances that fail have no
    2^k GPUs, and the same APIs beside its checkpoints (``beside``: scores, and what is known of APIs)."""
    limited = scenario.policy.max_models is not None
    found: Ints = survey.replicas.gpu[rows] * len(survey.shapes) + (survey.replicas.architecture[rows] if limited else 0)
    if scenario.policy.survives == "instance" and any(o.gpus_per_node & (o.gpus_per_node - 1) for o in offers):
        found = found * (1 + survey.replicas.size.max(initial=0)) + survey.replicas.size[rows]  # more of smaller ones may be lost than of larger ones
    scores, apis = beside
    if apis is None or apis.by_checkpoint is None:
        return found
    told: dict[int, set[tuple[float, ...]]] = {}
    for e in np.flatnonzero((scores >= 0).any(axis=1)).tolist():
        told.setdefault(int(survey.shape_of[e]), set()).add(tuple(apis.by_checkpoint[e].tolist()))
    sets = {key: i for i, key in enumerate(dict.fromkeys(frozenset(s) for s in told.values()))}
    by_shape = np.array([sets.get(frozenset(told.get(s, ())), 0) for s in range(len(survey.shapes))], dtype=np.int64)
    several: Ints = found * max(len(sets), 1) + by_shape[survey.shape[rows]]
    return several


def _most_promising(field: Comparable, open_: NDArray[np.bool_], size: int) -> Ints:
    """The ``size`` open rows of each group with the highest bound per GPU; where cost decides, the cheapest at best."""
    rows = np.flatnonzero(open_)
    if field.price is not None:
        with np.errstate(divide="ignore"):
            unit = field.price[rows] / field.bound[rows, 0]
        whole = unit * np.maximum(field.rate[0], field.bound[rows, 0]) if field.only else unit
        return np.sort(rows[np.argsort(whole, kind="stable")][: 4 * size])
    rows = rows[np.argsort(-field.promise[rows], kind="stable")]
    order = np.argsort(field.group[rows], kind="stable")
    group = field.group[rows][order]
    rank = np.arange(len(rows)) - np.searchsorted(group, group)
    return np.sort(rows[order][rank < size])


def _beaten(field: Comparable, hopes: Floats, reached: Floats, rows: Ints, by: Ints) -> Ints:
    """Those of ``rows`` whose hopes (bound or capacity) some row in ``by`` of the same GPU type makes pointless."""
    lost = []
    for group in np.unique(field.group[by]) if len(by) else ():
        mine, theirs = rows[field.group[rows] == group], by[field.group[by] == group]
        a, b = hopes[mine] / field.gpus[mine, None], reached[theirs] / field.gpus[theirs, None]
        more = np.all(b[None] >= a[:, None] * (1 - 1e-12), axis=2) & (field.gpus[theirs][None] <= field.gpus[mine][:, None])
        better = np.all(field.score[theirs][None] >= field.score[mine][:, None], axis=2) | (not field.by_quality and not field.only)
        if field.only and not field.survives:
            better |= _held(field, reached, theirs)[None] < _held(field, hopes, mine)[:, None]
        strict = ~np.all(np.abs(b[None] - a[:, None]) <= 1e-12 * b[None], axis=2) | np.any(field.score[theirs][None] > field.score[mine][:, None], axis=2)
        first = theirs[None] < mine[:, None]  # of equals the first stays
        lost.append(mine[(more & better & (strict | first) & (mine[:, None] != theirs[None])).any(axis=1)])
    return np.concatenate(lost) if lost else np.zeros(0, dtype=np.int64)


def _held(field: Comparable, capacity: Floats, rows: Ints) -> Floats:
    """GPUs that the only workload takes at this capacity per replica, whole replicas counted."""
    found: Floats = field.gpus[rows] * np.ceil(field.rate[0] / np.maximum(capacity[rows, 0], 1e-12) - 1e-9)
    return found


def _bound(survey: Survey, w: int, rows: Ints) -> Floats:
    """What no capacity exceeds, in the workload's unit. In flight: what the slots and limits allow in service (bracketed on
    the coarse grid), and what may wait within the first limits."""
    physics, workload = survey.physics[w], survey.scenario.workload[w]
    if not workload.is_closed:
        return physics.most_qps[rows]
    waits = [s.seconds for s in workload.limits if s.bounds_wait]
    waiting = physics.most_qps[rows] * min(waits) if waits else np.full(len(rows), 1e9)
    in_service = np.minimum(physics.slots[rows], 2 * physics.allowed[rows]) * np.maximum(survey.replicas.decode[rows], 1)
    if survey.scenario.policy.keeps_level:  # in a plain closed loop none waits for a sequence
        waiting = np.where(survey.replicas.is_unit[rows], waiting, np.maximum(np.minimum(waiting, physics.slots[rows] - in_service), 0.0))
    return np.where(physics.most_qps[rows] > 0, in_service + waiting, 0.0)


def _bound_after_loss(survey: Survey, w: int, rows: Ints) -> Floats:
    """What no capacity exceeds after a loss; of requests in flight nothing is known beforehand."""
    return np.full(len(rows), UNKNOWN) if survey.scenario.workload[w].is_closed else survey.physics[w].most_after_loss[rows]


def _best_scores(survey: Survey, rows: Ints, scores: Floats) -> Floats:
    """[row, workload]: the best score any allowed checkpoint gives a row, -1 where none may serve."""
    by_shape = np.full((len(survey.shapes) + 1, scores.shape[1]), -1.0)
    np.maximum.at(by_shape, survey.shape_of, np.where(survey.shape_of[:, None] >= 0, scores, -1.0))
    return by_shape[survey.shape[rows]]
