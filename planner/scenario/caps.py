"""Caps on what is held: the one place that says what each limits, how far it reaches, and how it is written, moved and dropped.

A cap is a field of the scenario and a row of FIELDS here. The program's rows, the elastic program, conflicts, explanations, what binds,
and what the check verifies all go through ``caps``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil, floor, inf
from typing import Literal

from planner.scenario.change import assumed
from planner.scenario.records import Scenario

Measure = Literal["gpus", "usd", "paid", "kw", "kg"]  # paid: money without what is charged for carbon
Reach = Literal["", "place", "location"]  # what its keys are: none, PROVIDER/REGION/ZONE/GPU or parts of it, "PROVIDER REGION"


@dataclass(frozen=True)
class CapField:
    """A field of the scenario that caps what is held: its part and name, what it counts, and what its keys are, if it has any.

    ``digits``: decimal places that amounts are written to. ``asked`` and ``short``: the demand in words; ``lead`` + ``change``: an
    amount as a change, several of one field joined under one lead; ``row`` and ``unit``: in a table of what each costs.
    ``moves``: by how much of it a study moves an amount; 0 for whole instances.
    """

    part: Literal["policy", "supply"]
    name: str
    of: Measure
    by: Reach
    digits: int
    asked: str
    short: str
    lead: str
    change: str
    row: str
    unit: str
    moves: float = 0.0


BUDGET = CapField("policy", "budget", "usd", "", 2, "budget ${0:,.2f}/h", "budget ${0:,.2f}/h", "a budget of ", "${0:,.2f}/h", "budget", "$/h more", 0.1)
FIELDS = (
    BUDGET,
    CapField("supply", "max_gpus", "gpus", "", 0, "{0:.0f} GPUs in all", "at most {0:.0f} GPUs", "", "{0:.0f} GPUs in all", "GPUs in all", "GPU more"),
    CapField("supply", "quota", "gpus", "place", 0, "quota {1}={0:.0f}", "quota {1}={0:.0f}", "a quota of ", "{1}={0:.0f}", "quota of {1}", "GPU more"),
    CapField("supply", "max_kw", "kw", "", 2, "{0:.10g} kW in all", "at most {0:.10g} kW", "", "{0:.10g} kW in all", "kW in all", "kW more", 0.1),
    CapField(
        "supply", "max_kw_at", "kw", "location", 2, "{0:.10g} kW at {1}", "at most {0:.10g} kW at {1}", "", "{0:.10g} kW at {1}", "kW at {1}", "kW more", 0.1
    ),
    CapField(
        "supply", "max_carbon", "kg", "", 2, "{0:.10g} kgCO2e/h in all", "at most {0:.10g} kgCO2e/h", "", "{0:.10g} kgCO2e/h in all", "kgCO2e/h in all",
        "kgCO2e/h more", 0.1,
    ),
)  # fmt: skip
UNITS: dict[Measure, str] = {"gpus": "{0:.0f}", "usd": "${0:,.2f}", "paid": "${0:,.2f}", "kw": "{0:.10g} kW", "kg": "{0:.10g} kgCO2e/h"}


@dataclass(frozen=True)
class AskedCap:
    """One cap in force: what is held, counted as ``field.of`` within its reach, is at most ``most``."""

    field: CapField
    most: float
    key: str = ""

    @property
    def scope(self) -> frozenset[str]:
        """What an offer must be, all of it, to count: GPU type, provider, region, zone or location; empty = every offer counts."""
        return frozenset(parts_of(self.key) if self.field.by == "place" else (self.key,) if self.key else ())

    @property
    def name(self) -> str:
        """Of its row in the program."""
        return f"{self.field.name}:{self.key}" if self.key else self.field.name

    @property
    def is_money(self) -> bool:
        """Whether it limits nothing but the cost of everything: money paid is less than that where carbon is charged for."""
        return self.field.of == "usd" and not self.key

    @property
    def is_in_dollars(self) -> bool:
        """Whether its amounts are money."""
        return self.field.of in ("usd", "paid")

    def said(self, form: str, amount: float | None = None) -> str:
        """An amount (the one asked by default) in one of the field's forms."""
        return form.format(self.most if amount is None else amount, self.key)

    def as_change(self, amount: float) -> str:
        """Another amount, proposed."""
        return self.said(self.field.lead + self.field.change, amount)

    def more(self, amount: float) -> str:
        """By how much another amount is larger."""
        return "+" + UNITS[self.field.of].format(amount - self.most)

    def rounded_up(self, amount: float) -> float:
        """An amount that can be typed, no smaller."""
        scale = 10.0**self.field.digits
        return ceil(amount * scale - 1e-6) / scale

    def loosened(self, factor: float) -> float:
        """The amount times a factor, as it can be typed: whole numbers no further than the factor, others to their last digit."""
        return floor(self.most * factor + 1e-9) if not self.field.digits else max(self.most, self.rounded_up(self.most * factor))

    def put(self, scenario: Scenario, amount: float | None) -> Scenario:
        """The scenario with another amount; None drops the cap."""
        part = getattr(scenario, self.field.part)
        value: object = amount if amount is None or self.field.digits else int(amount)
        if self.field.by:
            others = {k: v for k, v in getattr(part, self.field.name).items() if k != self.key or amount is not None}
            value = others if amount is None else {**others, self.key: value}
        return assumed(scenario, self.field.part, **{self.field.name: value})


def parts_of(key: str) -> tuple[str, ...]:
    """The names in the key of a quota: aws/us-east-1/H100-SXM-80GB, or some of them."""
    return tuple(part.strip() for part in key.split("/"))


def caps(scenario: Scenario) -> tuple[AskedCap, ...]:
    """Every cap in force, the budget first."""
    return tuple(_in_force(scenario))


def _in_force(scenario: Scenario) -> Iterator[AskedCap]:
    for field in FIELDS:
        asked = getattr(getattr(scenario, field.part), field.name)
        field = replace(field, of="paid") if field.of == "usd" and scenario.objective.carbon_price else field
        if field.by:
            yield from (AskedCap(field, float(most), key) for key, most in asked.items())
        elif asked is not None:
            yield AskedCap(field, float(asked))


def most_cost(scenario: Scenario) -> float:
    """$/h that a plan may cost: the budget, where it is one on all that is minimised. Else infinite."""
    return min((cap.most for cap in caps(scenario) if cap.is_money), default=inf)


def uncapped(scenario: Scenario) -> Scenario:
    """The scenario without any cap."""
    for cap in caps(scenario):
        scenario = cap.put(scenario, None)
    return scenario


SPENT = 0.98  # of a cap on money or power: what is above binds


def spent(cap: AskedCap, held: float) -> str:
    """That a cap is used up, in words; "" where it is not."""
    if held <= 0 or (held <= SPENT * cap.most if cap.field.digits else held < cap.most):
        return ""
    amounts = " of ".join(UNITS[cap.field.of].format(x) for x in (held, cap.most))
    return f"{cap.said(cap.field.row)}: {amounts}{' an hour' if cap.is_in_dollars else ''}"
