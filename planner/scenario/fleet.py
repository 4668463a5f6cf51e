"""Today's fleet: what is held when a plan is made, as it is stated, and as offers that a plan may keep, add to or return."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError, model_validator

from planner.catalog.files import message_of, read_text, read_toml
from planner.catalog.records import Name, Offer, Purchase, Record
from planner.errors import CatalogError, ScenarioError, did_you_mean
from planner.limits import FILE_BYTES
from planner.raw import Raw
from planner.scenario.own_offers import Price

FLAG = "--current"
HELD = "held today "  # begins the id of offers that only what is held today is of
SAME = 1e-9  # relative: prices that differ by less are one


class Held(Record):
    """So many instances held today, of an instance type (or of so many GPUs of a type) of a provider.

    ``until``: contracted to that day, so paid until then whether used or not. ``usd_per_hour``: of one instance, where it is not the catalogue's price.
    """

    provider: Name
    region: Name = "any"
    zone: Name = ""
    instance_type: Name = ""
    gpu: Name = ""
    gpus_per_instance: Annotated[int | None, Field(ge=1, le=1024)] = None
    purchase: Purchase = "on_demand"
    instances: Annotated[int, Field(ge=1, le=10**6)]
    until: datetime.date | None = None
    usd_per_hour: Price | None = None

    @model_validator(mode="after")
    def _named(self) -> Held:
        if not self.instance_type and not self.gpu:
            raise ValueError(f"what is held at {self.provider}: give instance_type, or gpu and gpus_per_instance")
        return self

    @property
    def what(self) -> str:
        """What it is, in words."""
        type_ = self.instance_type or f"{self.gpus_per_instance or ''} x {self.gpu}".removeprefix(" x ")
        place = (self.provider, self.region if self.region != "any" else "", self.zone)
        return f"{type_} at {' '.join(w for w in place if w)}, {self.purchase.replace('_', '-')}"

    def is_contracted(self, on: datetime.date) -> bool:
        """Whether its contract has not ended by a day."""
        return self.until is not None and self.until > on

    def fits(self, offer: Offer) -> bool:
        """Whether an offer is what is held, as far as that is stated."""
        stated = (
            (self.region if self.region != "any" else "", offer.region), (self.zone, offer.zone), (self.instance_type, offer.instance_type),
            (self.gpu, offer.gpu),
        )  # fmt: skip
        same = all(not mine or mine.lower() == theirs.lower() for mine, theirs in stated)
        size = self.gpus_per_instance in (None, offer.gpus_per_instance)
        return same and size and not offer.is_owned and self.provider.lower() == offer.provider.lower() and self.purchase == offer.purchase


class FleetFile(Record):
    """What a TOML file of today's fleet holds."""

    held: tuple[Held, ...]


PRICED = ("on_demand", "spot")  # ways to buy whose price is today's, not that of a contract


def fleet_in(file: Path) -> tuple[Held, ...]:
    """The [[held]] tables of a TOML file, or what a saved plan buys. Raises ScenarioError with file and line, or place."""
    try:
        is_plan = file.suffix.lower() == ".json"
        found = tuple(Held.model_validate(row) for row in _bought(file)) if is_plan else read_toml(file, FleetFile).held
    except CatalogError as error:
        hint = error.hint or ("write [[held]] tables" if error.what.startswith("unknown key") else "")
        raise ScenarioError(error.what, error.where, hint) from None
    except ValidationError as error:
        raise ScenarioError(f"not a saved plan: {message_of(error.errors()[0])}", str(file)) from None
    if not found:
        raise ScenarioError("nothing is held in it", str(file), "without --current the plan begins from nothing")
    return found


def _bought(file: Path) -> list[Raw]:
    """Rows of what a saved plan rents."""
    try:
        return rented(json.loads(read_text(file, FILE_BYTES))["purchases"])
    except (ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError):
        raise CatalogError("is no saved plan", str(file), "write one with plan … -o plan.json, or TOML with [[held]] tables") from None


def rented(purchases: Sequence[Raw]) -> list[Raw]:
    """What a plan's purchases are, held: without GPUs of one's own. Prices of contracts and of own offers stay what they were; others are today's."""
    keys = ("provider", "region", "zone", "instance_type", "gpu", "gpus_per_instance", "purchase", "instances")
    found = []
    for p in purchases:
        usd = {"usd_per_hour": (p["usd_per_hour"] - p.get("carbon_usd_per_hour", 0.0)) / p["instances"]}
        stays = p["purchase"] not in PRICED or p.get("id")
        until = {"until": p["until"]} if p.get("until") else {}
        found += [{k: p[k] for k in keys if k in p} | until | (usd if stays else {})] if p["kind"] != "owned" else []
    return found


def with_fleet(offers: Sequence[Offer], current: Sequence[Held], on: datetime.date) -> tuple[Offer, ...]:
    """The offers with what is held of each today. What is contracted, or paid at another price, is an offer of its own, of so many instances.

    on: the day of planning. Raises CatalogError for what is not on offer and has no price stated, and where several offers may be meant.
    """
    offers = tuple(o.model_copy(update={"now": 0}) if o.now else o for o in offers if not o.id.startswith(HELD))  # which may have it already
    found, apart = list(offers), list[Offer]()
    for i, held in enumerate(current):
        of = _meant(held, offers)
        usd = held.usd_per_hour
        if of is not None and not held.is_contracted(on) and (usd is None or abs(usd - offers[of].usd_per_hour) <= SAME * usd):
            found[of] = found[of].model_copy(update={"now": found[of].now + held.instances})
        else:
            apart.append(_apart(held, offers[of] if of is not None else _stated(held, on), f"{HELD}{i + 1}", on))
    return (*found, *apart)


def _apart(held: Held, like: Offer, key: str, on: datetime.date) -> Offer:
    """What is held as an offer that there is no more of."""
    stated = {} if held.usd_per_hour is None else {"usd_per_hour": held.usd_per_hour, "dated_by": "scenario", "source": "held today: price as stated"}
    contract = {"until": held.until if held.is_contracted(on) else None, "now": held.instances, "available": held.instances, "minimum": 1}
    return like.model_copy(update={**contract, "id": key, **stated})


def _stated(held: Held, on: datetime.date) -> Offer:
    """What nobody offers any more, as it is stated."""
    gpus = held.gpus_per_instance or 1
    return Offer(
        provider=held.provider, kind="contract", region=held.region, geography="any", instance_type=held.instance_type or f"{gpus} x {held.gpu}",
        basis="instance", gpu=held.gpu, gpus_per_instance=gpus, gpus_per_node=gpus, max_tp=gpus, purchase=held.purchase,
        usd_per_hour=held.usd_per_hour or 0.0, as_of=on, dated_by="scenario", source="held today: price as stated", licence="", zone=held.zone,
    )  # fmt: skip


def _meant(held: Held, offers: Sequence[Offer]) -> int | None:
    """The offer that is held; None where what is stated says all of it."""
    able = [i for i, o in enumerate(offers) if held.fits(o)]
    kinds = {(o.region, o.zone, o.instance_type, o.gpu, o.gpus_per_instance): i for i in reversed(able) for o in (offers[i],)}
    if len(kinds) == 1:
        return min(able, key=lambda i: offers[i].usd_per_hour)
    if kinds:
        some = sorted({" ".join(w for w in (region, zone, type_) if w and w != "any") for region, zone, type_, _, _ in kinds})
        raise CatalogError(f"{held.what}: {len(kinds)} offers may be meant", FLAG, f"name region and instance_type: {', '.join(some[:4])}")
    if held.usd_per_hour is None or not held.gpu or (held.gpus_per_instance is None and not held.instance_type):
        there = [o for o in offers if o.provider.lower() == held.provider.lower() and not o.is_owned]
        near = did_you_mean(held.instance_type, {o.instance_type for o in there}) if held.instance_type else ""
        hint = near or "state gpu, gpus_per_instance and usd_per_hour of it"
        raise CatalogError(f"{held.what}: the catalogue has no price of it", FLAG, hint)
    return None
