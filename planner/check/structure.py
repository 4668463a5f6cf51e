"""Checks that the parts of a plan fit together, whatever its kind: all other families take that as given."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isfinite

from planner.check.findings import Finding, Notes
from planner.result.plan import Plan
from planner.scenario.profiles import hourly_rates
from planner.scenario.records import Scenario


def structure(plan: Plan, scenario: Scenario, classes: Sequence[str] = ()) -> Finding:
    """That every index points somewhere, counts are positive and workloads are the scenario's (or the classes of its tables), in its order."""
    notes = Notes("structure")
    kind = "own" if scenario.tables.capacities else "hourly" if plan.periods else "flat"
    notes.require(plan.kind == kind, "kind", f"is {plan.kind}, what it states is {kind}")
    names, asked = [w.name for w in plan.workloads], list(classes) or [w.name for w in scenario.workload]
    notes.require(names == asked, "workloads", f"are {names}, the scenario asks {asked}")
    for w in plan.workloads:
        for r in w.routing:
            notes.require(0 <= r.deployment < len(plan.deployments), w.name, f"routes to deployment {r.deployment}, which is not there")
            notes.require(r.share >= 0 and isfinite(r.share), w.name, f"routes a share of {r.share:g}")
        routed = [r.deployment for r in w.routing]
        notes.require(len(set(routed)) == len(routed), w.name, "routes to one deployment twice")
    for i, d in enumerate(plan.deployments):
        for h in d.hosts:
            notes.require(0 <= h.purchase < len(plan.purchases), f"deployment {i}", f"stands on purchase {h.purchase}, which is not there")
            notes.require(h.replicas >= 1, f"deployment {i}", f"has {h.replicas} replicas on purchase {h.purchase}")
    for i, p in enumerate(plan.purchases):
        notes.require(p.instances >= 1 and p.gpus_per_instance >= 1, f"purchase {i}", f"holds {p.instances} instances of {p.gpus_per_instance} GPUs")
    if not notes.breaches:
        _periods(notes, plan)
    counts = f"{len(plan.workloads)} workloads, {len(plan.deployments)} deployments and {len(plan.purchases)} purchases"
    return notes.finding(f"structure: {counts} refer to each other")


def _periods(notes: Notes, plan: Plan) -> None:
    """Of a plan by the hour that counts have the sizes they should and every workload is served where it may be; of another that it has no hours."""
    names = [w.name for w in plan.workloads if w.is_waiting]
    if not plan.periods:
        plain = not names and all(not w.rates for w in plan.workloads) and all(d.busiest is None for d in plan.deployments)
        notes.require(plain and plan.flat is None and plan.startup_usd_per_hour == 0, "periods", "are none, and parts of the plan refer to some")
        return
    hours, waiting = hourly_rates(plan.scenario).shape[1], [w.name for w in plan.scenario.workload if w.is_waiting]
    notes.require(names == waiting, "workloads", f"{names} wait, in the scenario {waiting}")
    numbers = [(p.hour, p.hours) for p in plan.periods]
    notes.require(numbers == [(t, 1.0) for t in range(hours)], "periods", f"are not the hours from 0 to {hours - 1} that the profiles make")
    for w in plan.workloads:
        sound = len(w.rates) == hours and all(0 <= rate < inf for rate in w.rates)
        notes.require(sound, w.name, f"states {len(w.rates)} rates for {hours} hours, or some that are none")
        fewest = 0 if w.name in {h.workload for h in plan.hosted} else 1
        notes.require(w.is_waiting or fewest <= len(w.routing) <= 1, w.name, f"is served by {len(w.routing)} deployments")
    for i, d in enumerate(plan.deployments):
        notes.require(d.busiest is not None and 0 <= d.busiest < len(plan.periods), f"deployment {i}", f"states period {d.busiest} as its busiest")
    for p in plan.periods:
        sizes = (len(p.deployments), len(p.instances), len(p.started)) == (len(plan.deployments), len(plan.purchases), len(plan.purchases))
        notes.require(sizes and min((*p.instances, *p.started, 0)) >= 0, f"hour {p.hour}", "has not one count for each deployment and purchase")
        sound = len(p.hosted) == len(plan.hosted) and all(0 <= qps < inf for qps in p.hosted)
        notes.require(sound, f"hour {p.hour}", "has not one rate for each API")
        for i, c in enumerate(p.deployments):
            where = f"hour {p.hour}, deployment {i}"
            notes.require(len(c.waiting_requests) == len(waiting) and all(0 <= n < inf for n in c.waiting_requests), where, "has no count of all that wait")
            sound = all(0 <= h.purchase < len(plan.purchases) and h.replicas >= 1 for h in c.hosts)
            notes.require(sound and sum(h.replicas for h in c.hosts) == c.replicas, where, "has replicas that stand nowhere")
