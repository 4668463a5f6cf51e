"""What fails in a simulation and when: a replica, an instance, a zone, or all that is spot. Each kind is counted from 1, in the order of deployments."""

from __future__ import annotations

import re
from collections.abc import Sequence

from planner.catalog.catalog import Catalog
from planner.errors import PlannerError
from planner.result.plan import Plan, Purchase
from planner.scenario.apply import catalog_for
from planner.scenario.units import parse_duration_s
from planner.simulation.rebuild import ZONES, Deployed
from planner.simulation.state import FleetChange

FAILURE = re.compile(r"(replica|instance|zone|spot)(?::(\d+))?@(.+)")
HINT = "such as replica@10min, or instance:2@10min for the second one"
Group = tuple[tuple[int, int], ...]  # (deployment, replica)


def changes(failures: Sequence[str], plan: Plan, fleet: Sequence[Deployed], catalog: Catalog) -> list[list[FleetChange]]:
    """By deployment, what fails and is back after the policy's start-up lead. Raises PlannerError for what cannot fail."""
    found: list[list[FleetChange]] = [[] for _ in fleet]
    for text in failures:
        match = FAILURE.fullmatch(text.strip())
        if not match:
            raise PlannerError(f"no failure: '{text}'", "--fail", f"write replica, instance, zone or spot and a time, {HINT}")
        try:
            what, number, at = match.group(1), int(match.group(2) or 1), parse_duration_s(match.group(3))
        except ValueError as error:
            raise PlannerError(f"the time of '{text}' {error}", "--fail", HINT) from None
        groups = failing(what, plan, fleet, catalog)
        if not 1 <= number <= len(groups):
            raise PlannerError(f"there is no {what} {number}: the plan has {len(groups)}", "--fail", HINT)
        for i, r in groups[number - 1]:
            found[i] += [FleetChange(at, r, "kill"), FleetChange(at + plan.scenario.policy.startup_lead, r, "up")]
    return found


def failing(what: str, plan: Plan, fleet: Sequence[Deployed], catalog: Catalog) -> list[Group]:
    """Replicas that fail together, group by group.

    GPUs sold one by one fail with their node where the plan bears the loss of an instance. Without zones in the plan instances are taken to be spread
    evenly over ZONES of them.
    """
    nodes = [_node(p, plan, catalog) for p in plan.purchases]
    named = plan.scenario.policy.survives == "zone" or any(p.zone for p in plan.purchases)

    def key(i: int, r: int, place: tuple[int, int]) -> object:
        p = plan.purchases[place[0]]
        if what == "replica":
            return i, r
        if what == "instance":
            return place[0], place[1] // nodes[place[0]]
        if what == "spot":
            return "spot" if p.purchase == "spot" else None
        return ((p.provider,) if p.kind == "owned" else (p.provider, p.region, p.zone)) if named else place[1] % ZONES

    groups: dict[object, list[tuple[int, int]]] = {}
    for i, d in enumerate(fleet):
        for r, place in enumerate(d.places):
            if (name := key(i, r, place)) is not None:
                groups.setdefault(name, []).append((i, r))
    return [tuple(g) for g in groups.values()]


def _node(p: Purchase, plan: Plan, catalog: Catalog) -> int:
    """Instances of a purchase that fail as one."""
    if p.basis != "gpu" or plan.scenario.policy.survives != "instance":
        return 1
    same = ("provider", "region", "instance_type", "gpu", "purchase")
    offers = catalog_for(catalog, plan.scenario).offers
    return next((o.gpus_per_node for o in offers if all(getattr(o, n) == getattr(p, n) for n in same)), 1)
