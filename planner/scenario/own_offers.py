"""Offers of the user's own: contracts and quotes that stand beside the catalogue's prices, as they are written in a file or scenario."""

from __future__ import annotations

import datetime
from typing import Annotated

from pydantic import Field, model_validator

from planner.catalog.records import Kind, Name, PositiveCount, Purchase, Record
from planner.scenario.problem import problem

USD = "USD"
Price = Annotated[float, Field(gt=0, le=1e7, allow_inf_nan=False)]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]


class OwnOffer(Record):
    """What somebody was offered: instances of ``gpus_per_instance`` GPUs at a place, at a price per hour in some currency, less a discount.

    ``quota``: most instances, ``minimum``: fewest, unless none are held.
    ``kind``: whose machines they are (the catalogue's word for the provider, else a contract of its own).
    """

    provider: Name
    gpu: Name
    id: Name = ""  # what tells it from all others; made of the rest where left out
    region: Name = "any"
    zone: Name = ""
    geography: Name = ""  # the catalogue's of the region
    kind: Kind | None = None
    instance_type: Name = ""
    gpus_per_instance: Annotated[int, Field(ge=1, le=1024)] = 1
    max_tp: Annotated[int | None, Field(ge=1, le=1024)] = None  # GPUs joined well enough to share a layer; as many as an instance has
    usd_per_hour: Price | None = None  # of one instance
    price_per_hour: Price | None = None  # the same in a currency
    currency: Currency = USD
    discount: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.0  # off the price stated
    purchase: Purchase = "on_demand"
    quota: PositiveCount | None = None
    minimum: PositiveCount = 1
    date: datetime.date | None = None  # of the price; left out, it is as current as the question

    @model_validator(mode="after")
    def _complete(self) -> OwnOffer:
        """One price, and instances that can be."""
        if (self.usd_per_hour is None) == (self.price_per_hour is None):
            raise ValueError(f"what an hour of {self.gpu} at {self.provider} costs: give usd_per_hour, or price_per_hour and its currency")
        if self.usd_per_hour is not None and self.currency != USD:
            raise problem(f"usd_per_hour is in USD, not {self.currency}: write price_per_hour", "currency")
        if (self.max_tp or 1) > self.gpus_per_instance:
            raise problem(f"max_tp is more than the {self.gpus_per_instance} GPUs of an instance", "max_tp")
        if self.quota is not None and self.minimum > self.quota:
            raise problem(f"no fewer than {self.minimum} instances and no more than {self.quota} cannot both be", "minimum")
        if self.kind == "owned":
            raise problem("GPUs of one's own are given with --owned", "kind")
        return self

    @property
    def key(self) -> str:
        """Its id, or what it is."""
        return self.id or " ".join(w for w in (self.provider, self.region, self.zone, self.type, self.purchase) if w != "any" and w)

    @property
    def type(self) -> str:
        """Its instance type, or what an instance holds."""
        return self.instance_type or f"{self.gpus_per_instance} x {self.gpu}"

    def in_usd(self, rates: dict[str, float]) -> tuple[float, str]:
        """$/h of one instance, and how it comes about where that is more than its price; rates: USD per unit of each currency."""
        rate = 1.0 if self.currency == USD else rates[self.currency]
        stated = self.usd_per_hour if self.usd_per_hour is not None else self.price_per_hour
        assert stated is not None
        words = [f"{self.currency} {stated:,.10g} at {rate:g} USD"] if self.currency != USD else [f"${stated:,.10g}"] if self.discount else []
        words += [f"less {self.discount:.4g}"] if self.discount else []
        return stated * rate * (1 - self.discount), ", ".join(words)


class OffersFile(Record):
    """What a TOML file of offers holds."""

    offers: tuple[OwnOffer, ...]
