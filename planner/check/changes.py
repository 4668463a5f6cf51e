"""Checks what a plan says of today's fleet: counts, the limit on changes, their cost, contracts that have not ended."""

from __future__ import annotations

from collections import Counter

from planner.check.case import Case
from planner.check.findings import Finding, Notes, at_most
from planner.check.supply import offer_of
from planner.result.plan import FleetChanges, FleetLine

Key = tuple[str, ...]


def changes(case: Case) -> Finding:
    """What is kept, added and returned, from what the scenario holds today and what the plan buys."""
    notes, supply, stated = Notes("changes"), case.scenario.supply, case.plan.changes
    if (stated is None) == bool(supply.current):
        notes.add("plan", "states changes from no fleet, or none from one")
    if stated is None:
        return notes.finding("changes: nothing is held today")
    on = (supply.as_of or case.catalog.newest_price).isoformat()
    notes.require(stated.as_of == on, "as_of", f"is {stated.as_of}, planned on {on}")
    today = {_key(o): o for o in case.catalog.offers if o.now}
    planned = Counter({_key(p): p.instances for p in case.plan.purchases if p.kind != "owned"})
    notes.require(sum(o.now for o in today.values()) == sum(h.instances for h in supply.current), "today", "is not what the scenario holds")
    notes.require({_key(line) for line in stated.lines} == today.keys() | planned.keys(), "lines", "are not what is held today and planned")
    moved = gpus = 0
    for line in stated.lines:
        now, then = (today[_key(line)].now if _key(line) in today else 0), planned[_key(line)]
        _line(notes, case, line, now, then)
        moved, gpus = moved + abs(then - now), gpus + abs(then - now) * line.gpus_per_instance
    notes.agree(stated.added + stated.returned, moved, "plan", "changes of instances")
    notes.agree(stated.gpus_changed, gpus, "plan", "GPUs changed")
    notes.require(supply.max_changes is None or moved <= supply.max_changes, "max_changes", f"changes {moved} instances, at most {supply.max_changes}")
    for offer in (o for o in today.values() if supply.current and o.until):
        notes.require(planned[_key(offer)] == offer.now, "contracts", f"{offer.now} x {offer.instance_type} are contracted, {planned[_key(offer)]} held")
    _money(notes, case, stated, gpus)
    most = f", at most {supply.max_changes}" if supply.max_changes is not None else ""
    return notes.finding(f"changes: {stated.added} added and {stated.returned} returned from {sum(h.instances for h in supply.current)} held today{most}")


def _line(notes: Notes, case: Case, line: FleetLine, now: int, then: int) -> None:
    """The counts and price of one kind of instance."""
    where = f"{line.instance_type} at {line.provider}"
    notes.require((line.today, line.planned) == (now, then), where, f"states {line.today} today and {line.planned} planned, should be {now} and {then}")
    offer = next((o for o in case.catalog.offers if _key(o) == _key(line)), None)
    if offer is not None:
        right = (offer.gpus_per_instance, offer.usd_per_hour, offer.until.isoformat() if offer.until else "")
        notes.require((line.gpus_per_instance, line.usd_per_hour, line.until) == right, where, "states another size, price or contract than is on offer")


def _money(notes: Notes, case: Case, stated: FleetChanges, gpus: int) -> None:
    """What changes cost, what today's fleet costs, what is contracted, and what is said of staying and of no limit."""
    supply, plan = case.scenario.supply, case.plan
    notes.agree(stated.usd, supply.change_cost * gpus, "plan", "the cost of changes")
    notes.agree(stated.usd_per_hour, supply.change_cost * gpus / supply.change_over, "plan", "the cost of changes per hour")
    notes.agree(stated.today_usd_per_hour, sum(o.usd_per_hour * o.now for o in case.catalog.offers), "plan", "$/h of today's fleet")
    sunk = [p for p in plan.purchases if (o := offer_of(case, p)) and o.until]
    notes.agree(stated.contracted_usd_per_hour, sum(p.usd_per_hour for p in sunk), "plan", "$/h of what is contracted")
    idle = sum(p.usd_per_hour * p.gpus_idle / p.gpus_held for p in sunk)
    notes.agree(stated.contracted_idle_usd_per_hour, idle, "plan", "idle $/h of what is contracted")
    notes.require(stated.suffices is not False or stated.added + stated.returned > 0, "plan", "stays as it is, and states that that does not suffice")
    if stated.free_usd_per_hour is not None:
        room = 1 + case.scenario.solver.gap
        notes.require(at_most(stated.free_usd_per_hour, total_usd(case) * room), "plan", "states a dearer plan where changes are not limited")


def total_usd(case: Case) -> float:
    """What is minimised: $/h of what is held, and of changes."""
    return case.plan.cost.usd_per_hour + (case.plan.changes.usd_per_hour if case.plan.changes else 0.0)


def _key(of: object) -> Key:
    """What tells an offer, purchase or line from others."""
    return tuple(str(getattr(of, name)) for name in ("provider", "region", "zone", "instance_type", "gpu", "purchase", "id"))
