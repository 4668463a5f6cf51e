"""From today's fleet to a plan: what is kept, added and returned of each kind of instance, and what that costs."""

from __future__ import annotations

from planner.candidates.offers import location
from planner.candidates.survey import Survey
from planner.catalog.records import Offer
from planner.result.plan import FleetChanges, FleetLine, Purchase
from planner.scenario.apply import planned_on
from planner.search.answer import Answer


def changes_of(found: Answer, surveyed: Survey, bought: tuple[Purchase, ...]) -> FleetChanges | None:
    """The changes of an answer; None where nothing is held today."""
    scenario, offers, held = found.formulation.scenario, found.formulation.offers, found.solution.held
    supply = scenario.supply
    if not supply.current:
        return None
    lines = tuple(_line(o, held.get(i, 0)) for i, o in enumerate(offers) if o.now or held.get(i, 0))
    lines = tuple(line for line, o in zip(lines, (o for i, o in enumerate(offers) if o.now or held.get(i, 0)), strict=True) if not o.is_owned)
    gpus = sum(x.gpus_per_instance * (x.added + x.returned) for x in lines)
    contracts = [p for p in bought if p.until]
    return FleetChanges(
        as_of=planned_on(supply, surveyed.catalog).isoformat(),
        lines=lines,
        added=sum(x.added for x in lines),
        returned=sum(x.returned for x in lines),
        gpus_changed=gpus,
        usd=supply.change_cost * gpus,
        usd_per_hour=supply.change_usd_per_gpu_hour * gpus,
        today_usd_per_hour=sum(x.usd_per_hour * x.today for x in lines),
        contracted_usd_per_hour=sum(p.usd_per_hour for p in contracts),
        contracted_idle_usd_per_hour=sum(p.usd_per_hour * p.gpus_idle / p.gpus_held for p in contracts),
    )


def scattered(found: Answer) -> tuple[str, ...]:
    """A caution where today's fleet is at more locations than a plan may be."""
    places = {location(o) for o in found.formulation.offers if o.now} - {""}
    most = found.formulation.scenario.policy.max_locations
    return (f"today's fleet is at {len(places)} locations and a plan may be at {most}: the rest is returned (--max-locations)",) if len(places) > most else ()


def _line(offer: Offer, planned: int) -> FleetLine:
    return FleetLine(
        provider=offer.provider, region=offer.region, zone=offer.zone, instance_type=offer.instance_type, gpu=offer.gpu,
        gpus_per_instance=offer.gpus_per_instance, purchase=offer.purchase, usd_per_hour=offer.usd_per_hour, today=offer.now, planned=planned,
        until=offer.until.isoformat() if offer.until else "", id=offer.id,
    )  # fmt: skip
