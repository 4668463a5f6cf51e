"""The columns of the program: priced operating points that no other candidate makes pointless.

Dominance holds within one GPU type: b beats a when m = g_a/g_b copies of b, on the same GPUs, carry at least what a can
in every workload, with no lower quality. An upper bound on a's capacity is enough, so most capacities are never computed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from math import ceil, inf

import numpy as np
from numpy.typing import NDArray

from planner.candidates.eligibility import is_excluded
from planner.candidates.offers import allowed, cheapest_by_shape, hosts, purchasable
from planner.candidates.points import Point, Points
from planner.candidates.survey import Survey
from planner.catalog.records import Offer
from planner.performance.capacity import pooled_qps
from planner.program.problem import Column, Demand, Problem, Rules, Tier
from planner.scenario.records import Scenario

POOL_SIZES = tuple(range(1, 9))  # pooling gains nothing beyond eight replicas
ROUNDS = (2, 4, 8, 8, 8, 16, 16, 32, 64, 10**9)  # rows per GPU type whose capacity is computed at once
NEAR_EQUAL = 1e-3  # operating points of one replica type closer than this in every workload are one
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Candidate:
    """One deployable candidate behind a column: an operating point serving one eligible checkpoint."""

    point: Point
    eligible: int


@dataclass(frozen=True)
class Market:
    """A restricted question made ready for the program: the problem with the candidates and offers its indices stand for."""

    scenario: Scenario
    problem: Problem
    candidates: tuple[Candidate, ...]
    offers: tuple[Offer, ...]
    excluded: Counter[str]


def market(points: Points, scenario: Scenario, ceiling: float = inf) -> Market:
    """Columns and offers of a scenario that narrows, or re-rules, the one surveyed. ceiling: cost above which no plan matters."""
    survey = points.survey
    offers = cheapest_by_shape(allowed(survey.offers, scenario.supply))
    scores = _scores(survey, scenario)
    rows = _rows(survey, offers, scores)
    kept, lost = _worth_having(points, scenario, rows, scores, offers, ceiling)
    found = points.of(np.array(kept, dtype=np.int64))
    candidates = [Candidate(p, e) for row in kept for p in _points_for(found[row], scenario) for e in _servers(survey, row, scores)]
    columns = _without_pointless_tiers(tuple(_column(survey, scenario, offers, c, scores) for c in candidates), scenario)
    demands = tuple(Demand(w.name, w.rate, w.mean_quality) for w in scenario.workload)
    useful = [i for i, c in enumerate(columns) if (c.tiers or c.shared) and c.offers]
    problem = Problem(demands, tuple(columns[i] for i in useful), tuple(purchasable(o) for o in offers), rules(scenario))
    return Market(scenario, problem, tuple(candidates[i] for i in useful), offers, lost)


def rules(scenario: Scenario) -> Rules:
    """The policy as the program takes it."""
    p, s = scenario.policy, scenario.supply
    return Rules(
        p.max_slo_load, p.spare_replicas, p.pools_per_workload, p.mix, p.max_models, p.max_gpu_types, p.max_locations, s.max_gpus, p.budget, dict(s.quota)
    )


def mixture_factor(scenario: Scenario) -> float:
    """Share of the added-up capacities that workloads may use where they share a deployment.

    0.85 where limits are at p95 or below, 0.65 from p99, between them in proportion: the safe mixture rule of simulated
    chat, summarisation and code mixes (lowest tenth of cases); no guarantee where one workload's limits are tight against
    another's prompts.
    """
    strictest = max((float(name.split("_p")[1]) for w in scenario.workload for name in w.slo), default=50.0)
    return float(np.interp(strictest, [95.0, 99.0], [0.85, 0.65]))


def _scores(survey: Survey, scenario: Scenario) -> Floats:
    """[eligible, workload]: the score where the checkpoint may serve, -1 where it may not."""
    found = np.full((len(survey.eligible), len(scenario.workload)), -1.0)
    for i, e in enumerate(survey.eligible):
        if survey.shape_of[i] < 0 or is_excluded(e.served, scenario.policy.exclude_models):
            continue
        for w, workload in enumerate(scenario.workload):
            quality = e.quality[w]
            score = quality.score if quality else 0.0
            if e.may_serve_at(w, workload.min_quality):
                found[i, w] = score
    return found


def _rows(survey: Survey, offers: tuple[Offer, ...], scores: Floats) -> Ints:
    """Rows that some allowed checkpoint uses, some offer hosts and that have room for a request."""
    served = np.zeros(len(survey.shapes) + 1, dtype=bool)
    served[survey.shape_of[(scores >= 0).any(axis=1)]] = True
    keep = served[survey.shape] if len(survey.shape) else np.zeros(0, dtype=bool)
    widest = {g: max((o.max_tp for o in offers if o.gpu == g), default=0) for g in survey.catalog.gpus}
    by_gpu = np.array([widest[g.name] for g in survey.replicas.gpus])
    room = np.max([p.slots for p in survey.physics], axis=0) > 0
    return np.flatnonzero(keep & (survey.replicas.tp <= by_gpu[survey.replicas.gpu]) & room)


def _worth_having(points: Points, scenario: Scenario, rows: Ints, scores: Floats, offers: tuple[Offer, ...], ceiling: float) -> tuple[list[int], Counter[str]]:
    """Rows not dominated within their GPU type; capacities are computed in rounds, most promising first, until bounds settle the rest.

    Where there is one workload and nothing but cost limits it, a row that no plan below the ceiling can use is settled too,
    whatever its GPU type; what a row surely costs as the only pool lowers the ceiling.
    """
    field = _field(points.survey, scenario, rows, scores, offers)
    reached = np.zeros_like(field.bound)  # best capacity of a lone replica per workload, once computed
    hopes = field.bound.copy()  # capacity per replica that no pool exceeds: the bound, then that of a large pool; 0 where none is served
    open_, serves = np.any(field.bound > 0, axis=1), np.zeros(len(rows), dtype=bool)
    lost: Counter[str] = Counter({"SLO": int((~open_).sum())})
    for size in ROUNDS:
        chosen = _most_promising(field, open_, size)
        if not len(chosen):
            break
        found = points.of(rows[chosen])
        for i in chosen.tolist():
            at = found[int(rows[i])]
            if at:
                reached[i] = np.max([p.single for p in at], axis=0) * (field.score[i] >= 0)
                hopes[i] = np.max([pooled_qps(np.array(p.single), np.array(p.saturated), POOL_SIZES[-1]) for p in at], axis=0) * (field.score[i] >= 0)
            if at and field.price is not None:
                ceiling = min(ceiling, _sure_cost(points.survey, scenario, offers, int(rows[i]), at))
        serves[chosen] = reached[chosen].any(axis=1)
        hopes[chosen[~serves[chosen]]] = 0.0
        lost["SLO"] += int((~serves[chosen]).sum())
        open_[chosen] = False
        open_[_beaten(field, field.bound, reached, np.flatnonzero(open_), chosen[serves[chosen]])] = False
        if field.price is not None:
            dear = open_ & _too_dear(field, scenario, hopes, ceiling * (1 + 1e-9))
            lost["dearer at best"] += int(dear.sum())
            open_ &= ~dear
    kept = np.flatnonzero(serves)
    pooled = _pooled(points.of(rows[kept]), rows, kept, field)
    kept = kept[~np.isin(kept, _beaten(field, pooled, pooled, kept, kept))]
    lost["dominated"] = len(rows) - lost["SLO"] - lost["dearer at best"] - len(kept)
    order = kept[np.argsort(-field.promise[kept], kind="stable")]
    return [int(r) for r in rows[order]], lost


def _pooled(found: dict[int, list[Point]], rows: Ints, kept: Ints, field: Field) -> Floats:
    """[row, pool size x workload]: best capacity per replica. A row that is better alone may be worse in a large pool."""
    sizes = len(POOL_SIZES)
    best = np.zeros((len(rows), sizes * field.score.shape[1]))
    for i in kept.tolist():
        at = found[int(rows[i])]
        single, saturated = np.array([p.single for p in at]), np.array([p.saturated for p in at])
        by_size = [pooled_qps(single, saturated, n).max(axis=0) * (field.score[i] >= 0) for n in POOL_SIZES]
        best[i] = np.concatenate(by_size)
    return best


def _sure_cost(survey: Survey, scenario: Scenario, offers: tuple[Offer, ...], row: int, points: list[Point]) -> float:
    """Cost of serving the only workload with this row on its cheapest single offer: a plan that surely exists."""
    r, policy, rate = survey.replicas, scenario.policy, scenario.workload[0].rate
    gpu, tp, pp = r.gpus[int(r.gpu[row])].name, int(r.tp[row]), int(r.pp[row])
    able = [p for p in points if p.single[0] > 0]
    pooled = policy.router != "random"
    replicas = min((replicas_needed(p.single[0], p.saturated[0] if pooled else p.single[0], rate, policy.max_slo_load) for p in able), default=0)
    held = replicas + policy.spare_replicas
    return min((_instances(o, tp * pp, held) * o.usd_per_hour for o in offers if hosts(o, gpu, tp, pp)), default=inf) if replicas else inf


def _instances(offer: Offer, gpus: int, replicas: int) -> int:
    """Instances that so many replicas of one size take."""
    if offer.basis == "gpu" or gpus > offer.gpus_per_instance:
        return replicas * ceil(gpus / offer.gpus_per_instance)
    return ceil(replicas / (offer.gpus_per_instance // gpus))


@dataclass(frozen=True)
class Field:
    """What dominance looks at, per row: group, GPUs, bounds [row, workload], scores, and the least GPUs held for the demand."""

    group: Ints  # GPU type, and model where models are limited: dominance holds within
    gpus: Floats
    bound: Floats
    score: Floats
    promise: Floats
    rate: Floats
    only: bool  # one workload in one pool: what is held follows from capacity, so a worse holder loses whatever its score
    by_quality: bool  # some rule looks at scores; otherwise they only break ties, and only a single pool has ties worth breaking
    price: Floats | None  # $/h of one replica at the lowest price per GPU; None where cost is not all that limits, or scores count


def _field(survey: Survey, scenario: Scenario, rows: Ints, scores: Floats, offers: tuple[Offer, ...]) -> Field:
    score = _best_scores(survey, rows, scores)
    bound = np.stack([_bound(survey, w, rows) * (score[:, w] >= 0) for w in range(len(scenario.workload))], axis=1)
    gpus = (survey.replicas.tp * survey.replicas.pp)[rows].astype(float)
    rate = np.array([w.rate for w in scenario.workload])
    promise = (bound / gpus[:, None] / rate).sum(axis=1)
    by_quality = any(w.mean_quality is not None for w in scenario.workload)
    only = len(rate) == 1 and not by_quality and scenario.policy.pools_per_workload == 1
    return Field(
        _groups(survey, scenario, rows),
        gpus,
        bound,
        score,
        promise,
        rate,
        only,
        by_quality,
        _replica_prices(survey, scenario, rows, gpus, offers) if len(rate) == 1 and not by_quality else None,
    )


def _replica_prices(survey: Survey, scenario: Scenario, rows: Ints, gpus: Floats, offers: tuple[Offer, ...]) -> Floats | None:
    """$/h of one replica at the lowest price per GPU; None under quotas, caps, budgets and limits on models and GPU types."""
    supply, policy = scenario.supply, scenario.policy
    if supply.quota or supply.max_gpus is not None or (policy.budget, policy.max_models, policy.max_gpu_types) != (None, None, None):
        return None
    prices = {g.name: min((o.usd_per_hour / o.gpus_per_instance for o in offers if o.gpu == g.name), default=inf) for g in survey.replicas.gpus}
    found: Floats = gpus * np.array([prices[g.name] for g in survey.replicas.gpus])[survey.replicas.gpu[rows]]
    return found


def _least_cost(field: Field, scenario: Scenario) -> Floats:
    """$/h that no plan with a row as the only pool is below, at its capacity bound."""
    assert field.price is not None
    with np.errstate(divide="ignore"):
        replicas = np.ceil(field.rate[0] / (scenario.policy.max_slo_load * field.bound[:, 0]) - 1e-9) + scenario.policy.spare_replicas
    found: Floats = replicas * field.price
    return found


def _too_dear(field: Field, scenario: Scenario, hopes: Floats, ceiling: float) -> NDArray[np.bool_]:
    """Rows that no plan below the ceiling uses. hopes: capacity per replica that no pool of the row exceeds.

    Among several pools a replica wastes at least what it costs beyond its traffic at the best rate any row can hope for.
    """
    if field.only:
        return _least_cost(field, scenario) > ceiling
    assert field.price is not None
    load = scenario.policy.max_slo_load
    best = np.max(hopes[:, 0] / field.price) * load
    if not best:
        return np.ones(len(hopes), dtype=bool)
    found: NDArray[np.bool_] = field.price - field.bound[:, 0] * load / best > ceiling - field.rate[0] / best
    return found


def _groups(survey: Survey, scenario: Scenario, rows: Ints) -> Ints:
    """Within what dominance holds: one GPU type, and one model where the number of models is limited."""
    limited = scenario.policy.max_models is not None
    return survey.replicas.gpu[rows] * len(survey.shapes) + (survey.replicas.architecture[rows] if limited else 0)


def _most_promising(field: Field, open_: NDArray[np.bool_], size: int) -> Ints:
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


def _beaten(field: Field, hopes: Floats, reached: Floats, rows: Ints, by: Ints) -> Ints:
    """Those of ``rows`` whose hopes (bound or capacity) some row in ``by`` of the same GPU type makes pointless."""
    lost = []
    for group in np.unique(field.group[by]) if len(by) else ():
        mine, theirs = rows[field.group[rows] == group], by[field.group[by] == group]
        a, b = hopes[mine] / field.gpus[mine, None], reached[theirs] / field.gpus[theirs, None]
        more = np.all(b[None] >= a[:, None] * (1 - 1e-12), axis=2) & (field.gpus[theirs][None] <= field.gpus[mine][:, None])
        better = np.all(field.score[theirs][None] >= field.score[mine][:, None], axis=2) | (not field.by_quality and not field.only)
        if field.only:
            better |= _held(field, reached, theirs)[None] < _held(field, hopes, mine)[:, None]
        strict = ~np.all(np.abs(b[None] - a[:, None]) <= 1e-12 * b[None], axis=2) | np.any(field.score[theirs][None] > field.score[mine][:, None], axis=2)
        first = theirs[None] < mine[:, None]  # of equals the first stays
        lost.append(mine[(more & better & (strict | first) & (mine[:, None] != theirs[None])).any(axis=1)])
    return np.concatenate(lost) if lost else np.zeros(0, dtype=np.int64)


def _held(field: Field, capacity: Floats, rows: Ints) -> Floats:
    """GPUs that the only workload takes at this capacity per replica, whole replicas counted."""
    found: Floats = field.gpus[rows] * np.ceil(field.rate[0] / np.maximum(capacity[rows, 0], 1e-12) - 1e-9)
    return found


def _bound(survey: Survey, w: int, rows: Ints) -> Floats:
    """What no capacity exceeds, in the workload's unit. In flight: what the slots and limits allow in service (bracketed on
    the coarse grid), and what may wait within the first limits."""
    physics, workload = survey.physics[w], survey.scenario.workload[w]
    if workload.qps is not None:
        return physics.most_qps[rows]
    waits = [s for name, s in workload.slo.items() if name.startswith(("ttft", "e2e"))]
    waiting = physics.most_qps[rows] * min(waits) if waits else np.full(len(rows), 1e9)
    in_service = np.minimum(physics.slots[rows], 2 * physics.allowed[rows])
    return np.where(physics.most_qps[rows] > 0, in_service + waiting, 0.0)


def _best_scores(survey: Survey, rows: Ints, scores: Floats) -> Floats:
    """[row, workload]: the best score any allowed checkpoint gives a row, -1 where none may serve."""
    by_shape = np.full((len(survey.shapes) + 1, scores.shape[1]), -1.0)
    np.maximum.at(by_shape, survey.shape_of, np.where(survey.shape_of[:, None] >= 0, scores, -1.0))
    return by_shape[survey.shape[rows]]


def _points_for(found: list[Point], scenario: Scenario) -> list[Point]:
    """All operating points; for one workload only those that are best at some size of its pool."""
    if len(scenario.workload) > 1 or not found:
        return _distinct(found)
    rate, load = scenario.workload[0].rate, scenario.policy.max_slo_load
    if scenario.policy.pools_per_workload == 1:
        return [min(found, key=lambda p: (replicas_needed(p.single[0], p.saturated[0], rate, load), -p.single[0]))]
    best = [max(found, key=lambda p: pool_capacity(p.single[0], p.saturated[0], size)) for size in POOL_SIZES]
    return list(dict.fromkeys(best))


def _distinct(found: list[Point]) -> list[Point]:
    """Points that differ from every earlier one by more than NEAR_EQUAL in some workload."""
    kept: list[Point] = []
    for p in found:
        if not any(all(v <= k * (1 + NEAR_EQUAL) for k, v in zip((*q.single, *q.saturated), (*p.single, *p.saturated))) for q in kept):
            kept.append(p)
    return kept


def _without_pointless_tiers(columns: tuple[Column, ...], scenario: Scenario) -> tuple[Column, ...]:
    """Columns without the pools that serve one workload alone on no fewer GPUs than another column of the GPU type does.

    Only where each workload has one pool, of known size, and nothing but cost tells pools apart.
    """
    policy = scenario.policy
    if policy.pools_per_workload != 1 or policy.max_models is not None or any(w.mean_quality is not None for w in scenario.workload):
        return columns
    if policy.router == "random":  # no pooling: the one tier says nothing about how many replicas are needed
        return columns
    if len(scenario.workload) == 1:
        return columns
    best: dict[tuple[str, int, int], tuple[int, int]] = {}
    for i, c in enumerate(columns):
        for w, tiers in c.tiers.items():
            held = c.gpus * (tiers[0].replicas + policy.spare_replicas)
            key = (c.gpu, w, c.gpus)
            best[key] = min(best.get(key, (held, i)), (held, i))

    def beaten(i: int, c: Column, w: int) -> bool:
        mine = (c.gpus * (c.tiers[w][0].replicas + policy.spare_replicas), i)
        return any(best[c.gpu, w, g] < mine for g in (1, 2, 4, 8, 16, 32) if g <= c.gpus and (c.gpu, w, g) in best)

    return tuple(replace(c, tiers={w: t for w, t in c.tiers.items() if not beaten(i, c, w)}) for i, c in enumerate(columns))


def _servers(survey: Survey, row: int, scores: Floats) -> list[int]:
    """The checkpoints of a row that no other matches in every workload; of equals the newest, then first by name."""
    options = [e for e in survey.eligible_on(row) if (scores[e] >= 0).any()]
    rank = {e: (survey.eligible[e].served.checkpoint.as_of, survey.eligible[e].name) for e in options}
    kept: list[int] = []
    for e in sorted(options, key=lambda e: (-scores[e].sum(), -rank[e][0].toordinal(), rank[e][1])):
        if not any(np.all(scores[k] >= scores[e]) for k in kept):
            kept.append(e)
    return kept


def _column(survey: Survey, scenario: Scenario, offers: tuple[Offer, ...], candidate: Candidate, scores: Floats) -> Column:
    """One candidate as numbers."""
    r, point, e = survey.replicas, candidate.point, survey.eligible[candidate.eligible]
    gpu, tp, pp = r.gpus[int(r.gpu[point.row])].name, int(r.tp[point.row]), int(r.pp[point.row])
    serves = [w for w in range(len(scenario.workload)) if point.single[w] > 0 and scores[candidate.eligible, w] >= 0]
    tiers = {w: _tiers(point.single[w], point.saturated[w], scenario, w) for w in serves}
    shared = {w: point.single[w] * mixture_factor(scenario) for w in serves} if len(scenario.workload) > 1 else {}
    return Column(
        name=f"{e.name} {gpu} TP{tp}",
        model=e.served.card.name,
        checkpoint=e.name,
        gpu=gpu,
        gpus=tp * pp,
        tiers={w: t for w, t in tiers.items() if t},
        shared=shared,
        offers=tuple(i for i, o in enumerate(offers) if hosts(o, gpu, tp, pp)),
        quality={w: float(scores[candidate.eligible, w]) for w in serves},
        weight={w: point.qps_per_unit[w] for w in serves},
    )


def _tiers(single: float, saturated: float, scenario: Scenario, w: int) -> tuple[Tier, ...]:
    """Capacities by pool size. A workload's only pool takes all its traffic, so its size is known: one exact tier."""
    if scenario.policy.router == "random":
        return (Tier(1, single),)
    if scenario.policy.pools_per_workload == 1:
        needed = replicas_needed(single, saturated, scenario.workload[w].rate, scenario.policy.max_slo_load)
        return (Tier(needed, pool_capacity(single, saturated, needed)),)
    needed = replicas_needed(single, saturated, scenario.workload[w].rate, scenario.policy.max_slo_load)  # for all of its traffic
    sizes = [Tier(n, pool_capacity(single, saturated, n)) for n in POOL_SIZES if n <= needed]
    return tuple(t for i, t in enumerate(sizes) if i == 0 or t.capacity > sizes[i - 1].capacity * (1 + 1e-9))


def pool_capacity(single: float, saturated: float, replicas: int) -> float:
    """Capacity per replica of a pool behind a least-loaded router."""
    return float(pooled_qps(np.array(single), np.array(saturated), replicas))


def replicas_needed(single: float, saturated: float, rate: float, max_slo_load: float) -> int:
    """The fewest replicas R in service with R·μ(R)·u ≥ λ. Capacity per replica only rises with R, so bisection is exact."""
    most, least = max(1, ceil(rate / (single * max_slo_load) - 1e-9)), max(1, ceil(rate / (saturated * max_slo_load) - 1e-9))
    while least < most:
        middle = (least + most) // 2
        if middle * pool_capacity(single, saturated, middle) * max_slo_load >= rate * (1 - 1e-9):
            most = middle
        else:
            least = middle + 1
    return most
