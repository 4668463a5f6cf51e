"""What one failure does to a plan, by simulation: requests inside their limits before, while something is down, and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from planner.catalog.catalog import Catalog
from planner.result.plan import Plan
from planner.simulation.results import Simulation
from planner.simulation.run import simulate

BEFORE_S, AFTER_S = 300.0, 300.0  # watched before the failure, and once what failed is back
FEWEST, MOST = 3_000, 400_000  # requests
SETTLING = 0.1  # of the time: the fleet starts empty


@dataclass(frozen=True)
class Outage:
    """One failure of one plan. Shares are of requests by when they came, ``during`` with those that were being answered as it failed; None: none came.
    ``back_s`` None: it is not back before the simulation ends."""

    name: str  # of the plan
    what: str  # replica or instance
    fails_s: float
    back_s: float | None
    simulation: Simulation
    before: float | None
    during: float | None
    after: float | None
    most_waiting: float


def outage(plan: Plan, name: str, what: str, catalog: Catalog) -> Outage:
    """The first replica (or all on its instance) fails and is back after the policy's start-up lead. Raises PlannerError for what cannot be simulated."""
    lead = plan.scenario.policy.startup_lead
    peak = sum(w.qps * w.burst_factor for w in plan.workloads)
    requests = round(min(max(peak * (BEFORE_S + lead + AFTER_S), FEWEST), MOST))
    seconds = requests / peak
    fails = min(BEFORE_S, 0.3 * seconds)
    found = simulate(plan, catalog, requests=requests, failures=(f"{what}@{fails:.3f}s",))
    back = fails + lead if fails + lead < seconds else None
    ends = back if back is not None else seconds
    longest = max((w.predicted.e2e_ms.p99 / 1e3 for w in plan.workloads if w.predicted), default=0.0)
    struck = max(fails - longest, SETTLING * seconds)  # whoever came since may have been there when it failed
    shares = [_inside(found, *span) for span in ((SETTLING * seconds, struck), (struck, ends), (ends, seconds))]
    waiting = max((v for v in found.series["waiting"] if v is not None), default=0.0)
    return Outage(name, what, fails, back, found, shares[0], shares[1], shares[2] if back is not None else None, waiting)


def _inside(found: Simulation, begin: float, end: float) -> float | None:
    """Share inside all limits of the requests that came in a span of time."""
    came, good = 0.0, 0.0
    for at, rate, share in zip(*(found.series[k] for k in ("at_s", "arrived_qps", "inside")), strict=True):
        if at is not None and rate is not None and share is not None and begin <= at < end:
            came, good = came + rate, good + rate * share
    return good / came if came else None


def outages(plans: Sequence[tuple[str, Plan]], catalog: Catalog) -> tuple[Outage, ...]:
    """What a replica's failure does to each plan; to the first also an instance's, where an instance holds several replicas."""
    found = [outage(plan, name, "replica", catalog) for name, plan in plans]
    name, first = plans[0]
    d = first.deployments[0]
    if any(first.purchases[h.purchase].gpus_per_instance >= 2 * d.gpus_per_replica and h.replicas > 1 for h in d.hosts):
        found.insert(1, outage(first, name, "instance", catalog))
    return tuple(found)
