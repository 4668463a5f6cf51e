"""The columns of the program: operating points that are worth having, with the offers that host them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf

import numpy as np

from planner.candidates.eligibility import needed, score
from planner.candidates.hosted import HostedOffer, beside, hosted_offers, stands_beside
from planner.candidates.hosted import column as hosted_column
from planner.candidates.offers import Hosting, admission, cheapest_by_shape, hosting, purchasable
from planner.candidates.points import OperatingPoint, Points
from planner.candidates.pooling import POOL_SIZES, pool_capacity, replicas_needed
from planner.candidates.pruning import UNSETTLED, undominated
from planner.candidates.residency import by_place, may_serve
from planner.candidates.survey import Floats, Ints, Survey, tiers_of
from planner.catalog.catalog import Catalog
from planner.catalog.records import Offer
from planner.deadline import NEVER, Deadline
from planner.errors import CatalogError
from planner.performance.evidence import TIERS
from planner.program.problem import Cap, Changes, Column, Problem, Purchasable, Rules, Tier, Traffic
from planner.scenario.apply import draw_of
from planner.scenario.caps import caps
from planner.scenario.records import Scenario, Supply
from planner.scenario.slo import strictest

UNHOSTED = "larger than any instance on offer"  # reason of candidates that serve and find no host
UNKNOWN_DRAW = "offers of unknown power or carbon"  # reason of offers that what is asked of either leaves out
NEAR_EQUAL = 1e-3  # operating points of one replica type closer than this in every workload are one


@dataclass(frozen=True)
class Candidate:
    """One deployable candidate behind a column: an operating point serving one eligible checkpoint."""

    point: OperatingPoint
    eligible: int


@dataclass(frozen=True)
class Formulation:
    """A restricted question made ready for the program: the problem with the candidates and offers its indices stand for.

    Columns of ``candidates`` come first, then those of ``hosted``. ``unsettled``: rows that time did not suffice
    to look at, so that no bound on the cost holds.
    """

    scenario: Scenario
    problem: Problem
    candidates: tuple[Candidate, ...]
    offers: tuple[Offer, ...]
    excluded: Counter[str]
    deadline: Deadline = NEVER
    hosted: tuple[HostedOffer, ...] = ()

    @property
    def unsettled(self) -> int:
        """Rows that may be worth having, for all that is known."""
        return self.excluded[UNSETTLED]


def formulation(points: Points, scenario: Scenario, cutoff: float = inf, by_way: bool = False) -> Formulation:
    """Columns and offers of a scenario that narrows, or re-rules, the one surveyed. cutoff: cost above which no plan matters;
    by_way: offers that are bought in different ways stand beside each other.

    Raises TimeUp when the points' deadline passes before there is any.
    """
    survey = points.survey
    may = admission(scenario.supply, survey.catalog.newest_price)
    admitted = (bid for o in survey.offers if (bid := may(o)) and any(may_serve(o, w) for w in scenario.workload))
    by_way = by_way or scenario.policy.max_spot_share is not None or scenario.policy.survives == "spot"
    on_offer = cheapest_by_shape(tuple(admitted), by_way)
    rented = known_draws(on_offer, scenario, survey.catalog)
    usable = tuple(rented)
    rented |= _idle(survey.offers, usable, scenario, survey.catalog)
    offers = tuple(rented)
    scores, bought = _scores(survey, scenario), hosted_offers(survey.eligible, scenario, survey.catalog.api_prices)
    rows = _rows(survey, usable, scores)
    near = rows[tiers_of(survey, rows) <= TIERS.index(scenario.policy.evidence)]
    apis = beside(bought, survey.eligible, scenario)
    hosted = hosting(usable)
    kept, lost = undominated(points, scenario, near, scores, offers, hosted, cutoff, apis)
    lost += Counter({"evidence": len(rows) - len(near), UNKNOWN_DRAW: len(on_offer) - len(usable)})  # a count of nothing is dropped
    found = points.of(np.array(kept, dtype=np.int64))
    worth = scores if apis is None or apis.by_checkpoint is None else np.hstack([scores, -apis.by_checkpoint])
    candidates = [Candidate(p, e) for row in kept for p in _points_for(found[row], scenario) for e in _servers(survey, row, worth)]
    whole = _without_pointless_tiers(tuple(_column(survey, scenario, hosted, c, scores) for c in candidates), scenario)
    placed = [(c, part) for c, column in zip(candidates, whole, strict=True) for part in by_place(column, offers, scenario.workload)]
    candidates, columns = [c for c, _ in placed], tuple(part for _, part in placed)
    demands = tuple(Traffic(w.name, (w.peak,), needed(w.mean_quality, scenario.policy)) for w in scenario.workload)
    useful = [i for i, c in enumerate(columns) if (c.tiers or c.shared) and c.offers]
    lost += Counter({UNHOSTED: sum(bool(c.tiers or c.shared) and not c.offers for c in whole)})
    every = (*(columns[i] for i in useful), *(hosted_column(o, scenario) for o in bought))
    problem = Problem(demands, every, tuple(rented.values()), rules(scenario, points.apart))
    return Formulation(scenario, problem, tuple(candidates[i] for i in useful), offers, lost, points.deadline, bought)


def formulation_at_any_rate(points: Points, scenario: Scenario, by_way: bool = False) -> Formulation:
    """As ``formulation``, with every candidate that may be best at some rate, not only at the one stated.

    What is settled by the price of one rate alone, in ``formulation``, is not where several pools and a limit on GPU types are in the rules.
    """
    policy = scenario.policy.model_copy(update={"max_pools": 2, "max_gpu_types": len(points.survey.replicas.gpus) + 1})
    found = formulation(points, scenario.model_copy(update={"policy": policy}), by_way=by_way)
    return replace(found, scenario=scenario, problem=replace(found.problem, rules=rules(scenario, points.apart)))


def rules(scenario: Scenario, apart: frozenset[frozenset[int]] = frozenset()) -> Rules:
    """The policy as the program takes it."""
    p = scenario.policy
    return Rules(
        p.max_slo_load,
        p.spare_replicas,
        p.pools_per_workload,
        p.mix,
        p.max_models,
        p.max_gpu_types,
        p.max_locations,
        caps_of(scenario),
        apart,
        survives=frozenset((p.survives,) if p.survives else ()),
        load_after_loss=p.load_after_loss,
        most_spot=p.max_spot_share,
        overflow=p.api == "overflow",
        host_limits=scenario.supply.api_limit if p.api != "none" else {},
        changes=changes_of(scenario.supply),
    )


def changes_of(supply: Supply) -> Changes | None:
    """What changes from today's fleet may be and cost; None where nothing is held today."""
    return Changes(supply.max_changes, supply.change_usd_per_gpu_hour) if supply.current else None


def _idle(offers: Sequence[Offer], usable: Sequence[Offer], scenario: Scenario, catalog: Catalog) -> dict[Offer, Purchasable]:
    """What is held today and may not serve: returned, or where it is contracted held idle."""
    kept = {_key(o) for o in usable}
    rest = [o for o in offers if o.now and _key(o) not in kept]
    draws = known_draws([o for o in rest if o.least], scenario, catalog)
    if unknown := [o for o in rest if o.least and o not in draws]:
        raise CatalogError(f"power or carbon of what is contracted at {unknown[0].provider} is not known, so it cannot be counted", "--current")
    return {o: draws[o] if o.least else replace(purchasable(o), available=0) for o in rest}


def _key(offer: Offer) -> tuple[str, ...]:
    return (offer.provider, offer.region, offer.zone, offer.instance_type, offer.gpu, offer.purchase, offer.id)


def caps_of(scenario: Scenario) -> tuple[Cap, ...]:
    """The caps in force as the program takes them."""
    return tuple(Cap(c.field.name, c.field.of, c.most, c.key, c.scope) for c in caps(scenario))


def known_draws(offers: Sequence[Offer], scenario: Scenario, catalog: Catalog) -> dict[Offer, Purchasable]:
    """Offers as the program sees them. Where power or carbon is capped, or carbon has a price, those of which it is not known cannot be held."""
    asked = {c.field.of for c in caps(scenario)} | ({"kg"} if scenario.objective.carbon_price else set())
    if not asked & {"kw", "kg"}:
        return {o: purchasable(o) for o in offers}
    draws = {o: draw_of(o, scenario, catalog) for o in offers}
    known = {o: d for o, d in draws.items() if d.kw is not None and ("kg" not in asked or d.kg_co2e_per_hour is not None)}
    return {o: purchasable(o, d.kw, d.kg_co2e_per_hour) for o, d in known.items()}


def mixture_factor(scenario: Scenario) -> float:
    """Share of the added-up capacities that workloads may use where they share a deployment.

    0.85 where limits are at p95 or below, 0.65 from p99, between them in proportion: the safe mixture rule of simulated
    chat, summarisation and code mixes (lowest tenth of cases); no guarantee where one workload's limits are tight against
    another's prompts.
    """
    return float(np.interp(strictest((s for w in scenario.workload for s in w.limits), default=50.0), [95.0, 99.0], [0.85, 0.65]))


def _scores(survey: Survey, scenario: Scenario) -> Floats:
    """[eligible, workload]: the score where the checkpoint may serve, -1 where it may not."""
    found = np.full((len(survey.eligible), len(scenario.workload)), -1.0)
    for i, e in enumerate(survey.eligible):
        if survey.shape_of[i] >= 0:
            found[i] = [score(e, w, scenario) for w in range(len(scenario.workload))]
    return found


def _rows(survey: Survey, offers: tuple[Offer, ...], scores: Floats) -> Ints:
    """Rows that some allowed checkpoint uses, some offer hosts and that have room for a request."""
    served = np.zeros(len(survey.shapes) + 1, dtype=bool)
    served[survey.shape_of[(scores >= 0).any(axis=1)]] = True
    keep = served[survey.shape] if len(survey.shape) else np.zeros(0, dtype=bool)
    widest = {g: max((o.max_tp for o in offers if o.gpu == g), default=0) for g in survey.catalog.gpus}
    by_gpu = np.array([widest[g.name] for g in survey.replicas.gpus])
    room = np.max([p.slots for p in survey.physics], axis=0) > 0
    return np.flatnonzero(keep & (survey.replicas.linked <= by_gpu[survey.replicas.gpu]) & room)


def _points_for(found: list[OperatingPoint], scenario: Scenario) -> list[OperatingPoint]:
    """All operating points; for one workload only those that are best at some size of its pool."""
    if len(scenario.workload) > 1 or not found:
        return _distinct(found)
    load = scenario.policy.max_slo_load
    if scenario.policy.pools_per_workload == 1 and not stands_beside(scenario):
        needs = {p: (_needed(p.single[0], p.saturated[0], scenario, load), _remaining(p, 0, scenario) or 0) for p in found}
        fewest = sorted(found, key=lambda p: (*needs[p], -p.single[0]))
        return [p for i, p in enumerate(fewest) if all(needs[p][1] < needs[q][1] for q in fewest[:i])]  # those that fewer must remain of
    if scenario.policy.survives and scenario.policy.loss_slo_factor > 1:  # what is best every day need not be after a loss
        return _distinct(found)
    best = [max(found, key=lambda p: pool_capacity(p.single[0], p.saturated[0], size)) for size in POOL_SIZES]
    return list(dict.fromkeys(best))


def _needed(single: float, saturated: float, scenario: Scenario, load: float, w: int = 0) -> int:
    """Replicas that all of a workload takes at so much load."""
    return replicas_needed(single, saturated, scenario.workload[w].peak, load)


def _remaining(p: OperatingPoint, w: int, scenario: Scenario) -> int | None:
    """Those that must remain of them after a loss; None where none is borne."""
    return _needed(*p.after_loss[w], scenario, scenario.policy.load_after_loss, w) if scenario.policy.survives else None


def _distinct(found: list[OperatingPoint]) -> list[OperatingPoint]:
    """Points that differ from every earlier one by more than NEAR_EQUAL in some workload."""
    kept: list[OperatingPoint] = []
    for p in found:
        if not any(all(v <= k * (1 + NEAR_EQUAL) for k, v in zip(q.carries, p.carries)) for q in kept):
            kept.append(p)
    return kept


def _without_pointless_tiers(columns: tuple[Column, ...], scenario: Scenario) -> tuple[Column, ...]:
    """Columns without the pools that serve one workload alone on no fewer GPUs than another column of the GPU type does.

    Only where each workload has one pool, of known size, and nothing but cost tells pools apart.
    """
    policy = scenario.policy
    if policy.pools_per_workload != 1 or stands_beside(scenario) or policy.max_models is not None or any(w.mean_quality is not None for w in scenario.workload):
        return columns
    if policy.router == "random":  # no pooling: the one tier says nothing about how many replicas are needed
        return columns
    if len(scenario.workload) == 1 or policy.survives:  # what a loss takes depends on how many stand on an instance
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
    """The checkpoints of a row that no other matches in every workload (in further columns of ``scores``: in the API beside it).

    Of equals the newest, then first by name."""
    of_workloads = scores[:, : len(survey.physics)]
    options = [e for e in survey.eligible_on(row) if (of_workloads[e] >= 0).any()]
    rank = {e: (survey.eligible[e].served.checkpoint.as_of, survey.eligible[e].name) for e in options}
    kept: list[int] = []
    for e in sorted(options, key=lambda e: (-of_workloads[e].sum(), -rank[e][0].toordinal(), rank[e][1])):
        if not any(np.all(scores[k] >= scores[e]) for k in kept):
            kept.append(e)
    return kept


def _column(survey: Survey, scenario: Scenario, hosted: Hosting, candidate: Candidate, scores: Floats) -> Column:
    """One candidate as numbers."""
    r, point, e = survey.replicas, candidate.point, survey.eligible[candidate.eligible]
    gpu, (linked, groups) = r.gpus[int(r.gpu[point.row])].name, survey.gpus_of(point.row)
    serves = [w for w in range(len(scenario.workload)) if point.single[w] > 0 and scores[candidate.eligible, w] >= 0]
    tiers = {w: _tiers(point, scenario, w) for w in serves}
    mixture = mixture_factor(scenario) if len(scenario.workload) > 1 else 0.0
    shared, after = ({w: x[w] * mixture for w in serves} if mixture else {} for x in (point.single, [alone for alone, _ in point.after_loss]))
    return Column(
        name=f"{e.name} {gpu} {r.at(point.row).words}",
        model=e.served.card.name,
        checkpoint=e.name,
        gpu=gpu,
        gpus=linked * groups,
        tiers={w: t for w, t in tiers.items() if t},
        shared=shared,
        offers=hosted(gpu, linked, groups),
        quality={w: float(scores[candidate.eligible, w]) for w in serves},
        shared_after_loss=after,
    )


def _tiers(point: OperatingPoint, scenario: Scenario, w: int) -> tuple[Tier, ...]:
    """Capacities by pool size. A workload's only pool takes all its traffic, so its size is known: one exact tier."""
    single, saturated, after = point.single[w], point.saturated[w], point.after_loss[w]
    if scenario.policy.router == "random":
        return (Tier(1, single, after_loss=after[0]),)
    policy, peak = scenario.policy, scenario.workload[w].peak
    needed = replicas_needed(single, saturated, peak, policy.max_slo_load)  # for all of its traffic
    if policy.pools_per_workload == 1 and not stands_beside(scenario):
        remain = _remaining(point, w, scenario)
        return (Tier(needed, pool_capacity(single, saturated, needed), remain, pool_capacity(*after, remain or needed)),)
    sizes = [Tier(n, pool_capacity(single, saturated, n), after_loss=pool_capacity(*after, n)) for n in POOL_SIZES if n <= needed]
    return tuple(t for i, t in enumerate(sizes) if i == 0 or t.capacity > sizes[i - 1].capacity * (1 + 1e-9) or policy.loss_slo_factor > 1)
