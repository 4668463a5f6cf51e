"""Checks that a plan answers the question asked: its workloads are the scenario's, and all their traffic is routed."""

from __future__ import annotations

from planner.check.case import Case
from planner.check.findings import Finding, Notes, same
from planner.result.plan import Plan, PlanWorkload
from planner.scenario.workload import Workload

LITTLE = 1e-3  # relative: of requests in flight


def demand(case: Case) -> Finding:
    """Shares of each workload add up to 1, and rates to its demand; of requests in flight, the rate times how long answers take is their number."""
    notes = Notes("demand")
    for w, (got, asked) in enumerate(zip(case.plan.workloads, case.scenario.workload, strict=True)):
        restated(notes, got, asked)
        bought = [h for h in case.plan.hosted if h.workload == got.name]
        notes.agree(sum(r.share for r in got.routing) + sum(h.share for h in bought), 1.0, got.name, "shares that add up to")
        known = all(case.built[r.deployment] for r in got.routing)
        for r in got.routing if known else ():
            where, built = f"{got.name} on {case.where(r.deployment)}", case.built[r.deployment]
            notes.agree(r.qps, case.qps(w, r.deployment), where, "requests/s")
            if built and w in built.fits:
                notes.agree(r.tokens_per_stated, built.fits[w].tokens, where, "of its own tokens per stated token")
        _little(notes, case, got, asked)
        total = sum(case.qps(w, r.deployment) for r in got.routing) + sum(h.qps for h in bought)
        notes.require(not known or same(got.qps, asked.qps or total), got.name, f"states {got.qps:.8g} requests/s, should be {asked.qps or total:.8g}")
    for i, d in enumerate(case.plan.deployments):
        routed = sum(case.qps(w, i) for w in range(len(case.plan.workloads)))
        notes.require(case.built[i] is None or same(d.qps, routed), case.where(i), f"states {d.qps:.8g} requests/s, should be {routed:.8g}")
        notes.require(routed > 0, case.where(i), "serves nobody")
    _in_flight(notes, case)
    for asked in case.scenario.workload:
        _again(notes, asked, [w for w in case.scenario.workload if w.name == asked.escalated_from])
    return notes.finding("demand: " + ", ".join(f"{w.name} {w.demand.value:g} {_unit(w)} routed in full" for w in case.plan.workloads))


def _again(notes: Notes, asked: Workload, whole: list[Workload]) -> None:
    """Requests answered again are the share stated of their workload's, as long as these and at the quality stated.

    A deployment that is looked at by itself may serve only these.
    """
    if not asked.escalated_from or not whole:
        return
    first = whole[0] if len(whole) == 1 else None
    if first is None or asked.escalate is None:
        notes.add(asked.name, f"answers requests of {asked.escalated_from} again, and there is not one such workload with a share")
        return
    notes.agree(asked.rate, asked.escalate * first.rate, asked.name, f"{asked.unit} of the {asked.escalate:g} of {first.name} answered again")
    alike = ("input_tokens", "output_tokens", "burst_factor", "lengths", "profile", "slo", "quality_metric", "prefix_cache_hit")
    for name in alike:
        notes.require(getattr(asked, name) == getattr(first, name), asked.name, f"differs in {name} from {first.name}, whose requests it answers again")
    notes.require(asked.min_quality == asked.escalate_quality, asked.name, "is not held to the quality that is escalated to")


def _little(notes: Notes, case: Case, got: PlanWorkload, asked: Workload) -> None:
    """N = X * E2E of what the plan states: where the peaks of all that one deployment serves are the mean, what is predicted is what there is."""
    if asked.concurrency is None or len(got.routing) != 1 or got.predicted is None:
        return
    built = case.built[got.routing[0].deployment]
    if built is None or any(case.scenario.workload[w].burst_factor != 1 for w in built.serves):
        return
    found = got.qps * got.predicted.e2e_ms.mean / 1e3
    notes.require(same(found, asked.concurrency, LITTLE), got.name, f"states a rate and an E2E that make {found:.6g} in flight, asked {asked.concurrency:g}")


def _in_flight(notes: Notes, case: Case) -> None:
    """Requests in flight by Little's law, from the stated rate and mean E2E; of a deployment, its share of them over its replicas."""
    plan = case.plan
    for got, asked in zip(plan.workloads, case.scenario.workload, strict=True):
        if got.is_waiting:  # of whom nothing in flight is stated
            continue
        here = 1 - plan.of_hosted[got.name]  # of its requests; in flight at an API nobody knows
        right = here * got.qps * got.predicted.e2e_ms.mean / 1e3 if got.predicted and not asked.is_closed else asked.concurrency
        agree = right is None or (got.concurrency is not None and same(got.concurrency, right))
        notes.require(agree, got.name, f"states {got.concurrency} in flight, should be {right}")
    for i, d in enumerate(plan.deployments):
        each = in_flight(plan, i) / max(d.replicas, 1)
        stated, waits = d.in_flight_per_replica, all(w.is_waiting for w in plan.workloads if i in (r.deployment for r in w.routing))
        if waits and stated is None:
            continue
        notes.require(stated is not None and same(stated, each), case.where(i), f"states {stated} in flight per replica, should be {each:.8g}")


def in_flight(plan: Plan, i: int) -> float:
    """Requests in flight on a deployment: its share of those that any deployment serves."""
    return sum(r.share / (1 - plan.of_hosted[w.name]) * (w.concurrency or 0.0) for w in plan.workloads for r in w.routing if r.deployment == i)


def restated(notes: Notes, got: PlanWorkload, asked: Workload) -> None:
    """What a plan repeats of the question must be what was asked."""
    kind = asked.kind
    notes.require(got.demand.kind == kind, got.name, f"states its demand in {got.demand.kind}, asked in {kind}")
    notes.agree(got.demand.value, getattr(asked, kind), got.name, f"a demand ({kind}) of")
    notes.agree(got.burst_factor, asked.burst_factor, got.name, "a burst factor of")
    lengths = ((got.input_tokens, asked.input_tokens, "input tokens"), (got.output_tokens, asked.output_tokens, "output tokens"))
    for stated, right, what in lengths:
        notes.require(stated is not None and same(stated, right), got.name, f"states {stated} {what}, asked {right:g}")
    notes.require(len(got.slo) == len(asked.slo), got.name, f"states {len(got.slo)} limits, asked {len(asked.slo)}")
    stated_slo = {f"{limit.metric} p{limit.percentile:g}": limit.limit_ms for limit in got.slo}
    right_slo = {f"{s.metric} p{s.percentile:g}": (s.seconds - asked.network * s.bounds_wait) * 1e3 for s in asked.limits}
    agree = stated_slo.keys() == right_slo.keys() and all(same(stated_slo[k], right_slo[k]) for k in right_slo)
    notes.require(agree, got.name, f"states the SLO {stated_slo} ms, asked {right_slo} ms")
    notes.require(got.min_quality == asked.min_quality, got.name, f"states a quality floor of {got.min_quality}, asked {asked.min_quality}")


def _unit(w: PlanWorkload) -> str:
    return "req/s" if w.demand.kind == "qps" else "in flight"
