"""Checks what a plan bears by doing it: every replica, instance or zone, or all that is spot, is knocked out in turn, and what remains carries the demand.

Instances: replicas of a deployment are placed as densely as they fit, which is the worst that a scheduler may have done.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

import numpy as np

from planner.catalog.catalog import Catalog
from planner.catalog.spot import spot_rate
from planner.check.capacity import STATED
from planner.check.case import Case, rebuild
from planner.check.findings import RELATIVE, Finding, Notes, at_most, same
from planner.check.periods import load_on
from planner.check.service import beyond_on, fit_of
from planner.check.supply import offer_of
from planner.result.plan import LossBorne, Period, PeriodCount, Plan, Purchase
from planner.scenario.apply import catalog_for
from planner.scenario.change import with_workloads
from planner.scenario.profiles import hourly_rates

WITHOUT = "no redundancy"  # how the alternative is called that a premium is over
PROBABILITY = 1e-4  # relative: of requests beyond a limit


@dataclass(frozen=True)
class Knocked:
    """One loss: the purchases that it hits, and replicas of the deployment that go with it."""

    where: str
    replicas: int


def asks_of_losses(plan: Plan) -> bool:
    """Whether losses are to be borne, spot is limited or held, or the plan tells of either."""
    policy, on_spot = plan.scenario.policy, any(p.purchase == "spot" for p in plan.purchases)
    return policy.redundancy != "none" or policy.max_spot_share is not None or on_spot or bool(plan.spot) or plan.redundancy is not None


def redundancy(case: Case) -> Finding:
    """The losses borne and the share on spot of every deployment in every period."""
    notes, policy, tried = Notes("redundancy"), case.scenario.policy, 0
    after = _with_longer_limits(case)
    stated, rates = case.plan.redundancy, _rates(case)
    worst: dict[int, tuple[float, int, int]] = {}  # SLO load after the loss, replicas lost and left
    for t, span in enumerate(case.plan.by_period):
        for i, count in enumerate(span.deployments):
            served = _served(case, i)
            where = f"hour {span.hour}, {case.where(i)}" if case.plan.periods else case.where(i)
            _spot_share(notes, case, count, where)
            if policy.redundancy == "none" or not served or not any(rates[w, t] > 0 for w in served):
                continue
            for gone in _losses(case, span, i):
                tried += 1
                left = count.replicas - gone.replicas
                flows = _flows(case, i, served, rates[:, t])
                load = load_on(after, i, served, flows, left)
                allowed = policy.load_after_loss if policy.survives else policy.max_slo_load
                notes.require(at_most(load, allowed, STATED), where, f"without {gone.where} {left} replicas are left at an SLO load of {load:.4f}")
                _together(notes, after, i, left, f"{where} without {gone.where}")
                if after is not case and len(served) == 1 and left > 0:
                    _served_alone(notes, after, i, served[0], flows[0], left, f"{where} without {gone.where}")
                worst[i] = max(worst.get(i, (-1.0, 0, 0)), (load, gone.replicas, left))
    if stated is None:
        notes.require(policy.redundancy == "none", "redundancy", f"says nothing of {policy.redundancy}")
    else:
        told = (stated.asked, stated.load_after_loss, stated.loss_slo_factor)
        asked = told == (policy.redundancy, policy.load_after_loss, policy.loss_slo_factor) and policy.redundancy != "none"
        notes.require(asked, "redundancy", f"states {stated.asked} at a load of {stated.load_after_loss:g}, asked {policy.redundancy}")
        _stated(notes, case, stated.losses, worst)
        _premium(notes, case)
    _spot_risks(notes, case, rates)
    share = "" if policy.max_spot_share is None else f", at most {policy.max_spot_share:g} of each deployment on spot"
    most = max((load for load, _, _ in worst.values()), default=0.0)
    return notes.finding(f"redundancy: {policy.redundancy}, {tried} losses tried one by one, SLO load up to {most:.4f} of {policy.load_after_loss:g}{share}")


def _with_longer_limits(case: Case) -> Case:
    """The plan in the time after a loss: as it is, with every limit on latency so many times as long as is allowed then."""
    times = case.scenario.policy.loss_slo_factor
    if times == 1:
        return case
    longer = (w.model_copy(update={"slo": {name: seconds * times for name, seconds in w.slo.items()}}) for w in case.scenario.workload)
    return rebuild(case.plan, with_workloads(case.scenario, longer), case.catalog)


def _served_alone(notes: Notes, after: Case, i: int, w: int, flow: float, left: int, where: str) -> None:
    """Of a workload with a deployment of its own, every longer limit in the queue of one of the replicas that are left."""
    if (fit := fit_of(after, i, w)) is None:
        return
    for limit in fit.limits:
        share, allowed = beyond_on(after, fit, limit, flow, left), 1 - limit.percentile / 100
        notes.require(at_most(share, allowed, PROBABILITY), where, f"misses {limit.metric} {limit.limit_s:g} s for {share:.3%} of requests")


def knocked_out(plan: Plan, catalog: Catalog) -> list[bool]:
    """Of every loss that is to be borne, whether what remains carries the demand at the load allowed; of a plan that is the same at every hour."""
    case = _with_longer_limits(rebuild(plan, plan.scenario, catalog_for(catalog, plan.scenario)))
    policy, rates, (span,) = case.scenario.policy, _rates(case), plan.by_period
    allowed = policy.load_after_loss if policy.survives else policy.max_slo_load
    return [
        at_most(load_on(case, i, served, _flows(case, i, served, rates[:, 0]), count.replicas - gone.replicas), allowed, STATED)
        for i, count in enumerate(span.deployments)
        for served in [_served(case, i)]
        for gone in _losses(case, span, i)
    ]


def _rates(case: Case) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Peak demand of each workload in each period, in its own unit; by the hour without what APIs serve of it."""
    plan, asked = case.plan, case.plan.scenario.workload
    means = hourly_rates(plan.scenario) if plan.periods else np.array([[w.rate] for w in asked])
    if plan.periods and plan.hosted:
        means = np.maximum(means - [[plan.at_apis(w.name, p) for p in plan.periods] for w in plan.workloads], 0.0)
    return np.array(means * np.array([w.burst_factor for w in asked])[:, None])


def _served(case: Case, i: int) -> list[int]:
    return [w for w, got in enumerate(case.plan.workloads) if not got.is_waiting and any(r.deployment == i and r.share > 0 for r in got.routing)]


def _flows(case: Case, i: int, served: list[int], rates: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> list[float]:
    """What each workload sends to a deployment; by the hour all that is on any."""
    shares = [sum(r.share for r in case.plan.workloads[w].routing if r.deployment == i) for w in served]
    return [float(rates[w]) * (1.0 if case.plan.periods else share) for w, share in zip(served, shares, strict=True)]


def _losses(case: Case, span: Period, i: int) -> Iterator[Knocked]:
    """Everything of the kind asked for that a deployment may lose at once."""
    count, kind = span.deployments[i], case.scenario.policy.survives
    here = [(case.plan.purchases[h.purchase], h.replicas) for h in count.hosts]
    if kind is None:
        yield from (Knocked(f"replica {r + 1}", 1) for r in range(min(count.replicas, 1)))  # all are alike
    elif kind == "instance":
        yield from (gone for p, n in here for gone in _instances(case, p, case.plan.deployments[i].gpus_per_replica, n))
    elif kind == "zone":
        zones = dict.fromkeys(_zone(p) for p, _ in here)
        yield from (Knocked(" ".join(w for w in z if w), sum(n for p, n in here if _zone(p) == z)) for z in zones)
    else:
        yield Knocked("all spot", sum(n for p, n in here if p.purchase == "spot"))


def _instances(case: Case, p: Purchase, gpus: int, replicas: int) -> Iterator[Knocked]:
    """Instances of a purchase (nodes, where GPUs are sold one by one), filled one after the other with the replicas of one deployment."""
    offer = offer_of(case, p)
    room = offer.gpus_per_node if offer is not None and p.basis == "gpu" else p.gpus_per_instance
    each, left, number = max(room // gpus, 1), replicas, 0
    while left > 0 and number < 2:  # the first is the fullest, and all but the last are alike
        number += 1
        yield Knocked(f"{p.instance_type} {number} of {p.provider} {p.region}", min(each, left))
        left -= each


def _zone(p: Purchase) -> tuple[str, ...]:
    """Where a purchase stands, as zones fail: a site of one's own is one."""
    return (p.provider,) if p.kind == "owned" else (p.provider, p.region, p.zone)


def _together(notes: Notes, case: Case, i: int, left: int, where: str) -> None:
    """Of workloads that share a deployment, every limit in the queue of all on what is left; by the hour their load alone counts."""
    built = case.built[i]
    if case.plan.periods or built is None or left < 1 or (now := case.together(i, left)) is None:
        return
    for k, w in enumerate(built.serves):
        for limit in built.fits[w].limits:
            beyond, allowed = now.beyond(k, limit), 1 - limit.percentile / 100
            notes.require(at_most(beyond, allowed, PROBABILITY), where, f"{case.plan.workloads[w].name} misses {limit.metric} for {beyond:.3%} of requests")


def _stated(notes: Notes, case: Case, losses: tuple[LossBorne, ...], worst: dict[int, tuple[float, int, int]]) -> None:
    """The loss stated of each deployment is its worst."""
    notes.require(sorted(b.deployment for b in losses) == sorted(worst), "redundancy", f"states losses of {[b.deployment for b in losses]}")
    for b in losses:
        if b.deployment in worst:
            load, lost, left = worst[b.deployment]
            notes.agree(b.slo_load, load, case.where(b.deployment), "SLO load after a loss", STATED)
            as_said = (b.replicas_lost, b.replicas_left) == (lost, left) or bool(case.plan.periods)  # of hours of equal load any may be told
            notes.require(as_said, case.where(b.deployment), f"states {b.replicas_lost} replicas lost and {b.replicas_left} left, should be {lost} and {left}")


def _premium(notes: Notes, case: Case) -> None:
    """The premium is the cost over that of the alternative without redundancy, where there is one."""
    found = case.plan.redundancy
    assert found is not None
    without = next((a.cost.usd_per_hour for a in case.plan.alternatives if a.cost and a.difference.startswith(WITHOUT)), None)
    told = found.usd_per_hour_without is None if without is None else found.usd_per_hour_without is not None
    notes.require(told, "redundancy", f"states ${found.usd_per_hour_without}/h without, the alternatives ${without}/h")
    if without is not None and found.usd_per_hour_without is not None:
        notes.agree(found.usd_per_hour_without, without, "redundancy", "$/h without")
        right = case.plan.cost.usd_per_hour - without
        notes.require(abs((found.premium_usd_per_hour or 0.0) - right) < 1e-6, "redundancy", f"states a premium of ${found.premium_usd_per_hour}/h")


def _spot_risks(notes: Notes, case: Case, rates: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> None:
    """What is said of each purchase on spot is what is published, and the highest SLO load with one instance of it away."""
    plan = case.plan
    spot = [i for i, p in enumerate(plan.purchases) if p.purchase == "spot"]
    notes.require([s.purchase for s in plan.spot] == spot, "spot", f"tells of purchases {[s.purchase for s in plan.spot]}, on spot are {spot}")
    for s in (s for s in plan.spot if s.purchase in spot):
        p, where = plan.purchases[s.purchase], f"purchase {s.purchase} on spot"
        rate = spot_rate(case.catalog, p.provider, p.region, p.instance_type)
        stated, right = (s.low, s.high, s.source), (rate.low, rate.high, rate.source) if rate else (None, None, "")
        notes.require(stated == right, where, f"states interruptions of {stated}, published are {right}")
        share = (rate.low if rate.high is None else rate.high) if rate else None
        same_rate = s.per_month is None if share is None else s.per_month is not None and abs(s.per_month - share * p.instances) < 1e-9
        notes.require(same_rate, where, f"states {s.per_month} interruptions a month")
        loads = [
            load_on(case, i, served, _flows(case, i, served, rates[:, t]), count.replicas - gone.replicas)
            for t, span in enumerate(plan.by_period)
            for i, count in enumerate(span.deployments)
            if (served := _served(case, i)) and any(rates[w, t] > 0 for w in served)
            for h in count.hosts
            if h.purchase == s.purchase
            for gone in _instances(case, p, plan.deployments[i].gpus_per_replica, h.replicas)
        ]
        most = max(loads, default=inf)
        agree = s.slo_load_one_away is None if most == inf else s.slo_load_one_away is not None and same(s.slo_load_one_away, most, STATED)
        notes.require(agree, where, f"states an SLO load of {s.slo_load_one_away} while one is away, should be {most:.6g}")


def _spot_share(notes: Notes, case: Case, count: PeriodCount, where: str) -> None:
    most = case.scenario.policy.max_spot_share
    spot = sum(h.replicas for h in count.hosts if case.plan.purchases[h.purchase].purchase == "spot")
    text = f"{spot} of {count.replicas} replicas are on spot, at most {most:g} of them may be" if most is not None else ""
    notes.require(most is None or spot <= most * count.replicas * (1 + RELATIVE), where, text)
