"""Power and carbon of what a plan holds: GPUs x kW of one x PUE x intensity, per hour and per million tokens, and what each was taken from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from planner.catalog.catalog import Catalog
from planner.catalog.records import Offer
from planner.result.plan import Power, PowerPart
from planner.result.unit_costs import SECONDS_PER_HOUR
from planner.scenario.apply import Draw, draw_of
from planner.scenario.records import Scenario

AS_STATED = "as stated"


@dataclass(frozen=True)
class Holding:
    """An offer with the instances held of it: by period, and in the mean over all hours, those that start counted from their start."""

    offer: Offer
    by_period: Sequence[int]
    mean: float


def power_of(held: Sequence[Holding], scenario: Scenario, catalog: Catalog, traffic: Sequence[tuple[float, float, float]]) -> Power:
    """Of all that is held, line by line. ``traffic``: (requests/s, input tokens, answer tokens) of each workload; none where rates are unknown."""
    draws = [draw_of(h.offer, scenario, catalog) for h in held]
    parts = tuple(_part(h, d) for h, d in zip(held, draws, strict=True))
    kw, kg = _sum([p.kw for p in parts]), _sum([p.kg_co2e_per_hour for p in parts])
    at_once = [
        _sum([d.kw * n if d.kw is not None else None for d, n in zip(draws, now, strict=True)]) for now in zip(*(h.by_period for h in held), strict=True)
    ]
    output = sum(q * o for q, _, o in traffic) * SECONDS_PER_HOUR / 1e6
    tokens = sum(q * (i + o) for q, i, o in traffic) * SECONDS_PER_HOUR / 1e6
    return Power(
        kw=kw,
        most_kw=max((x for x in at_once if x is not None), default=None) if kw is not None else None,
        kg_co2e_per_hour=kg,
        kwh_per_million_output_tokens=_per(kw, output),
        kwh_per_million_total_tokens=_per(kw, tokens),
        kg_co2e_per_million_output_tokens=_per(kg, output),
        kg_co2e_per_million_total_tokens=_per(kg, tokens),
        carbon_usd_per_hour=sum(h.offer.carbon_usd_per_hour * h.mean for h in held),
        parts=parts,
    )


def _part(h: Holding, d: Draw) -> PowerPart:
    grid = d.grid
    return PowerPart(
        gpu_kw=d.gpu_kw,
        pue=d.pue,
        is_pue_known=d.is_pue_known,
        g_co2e_per_kwh=d.g_co2e_per_kwh,
        kw=d.kw * h.mean if d.kw is not None else None,
        kg_co2e_per_hour=d.kg_co2e_per_hour * h.mean if d.kg_co2e_per_hour is not None else None,
        place=grid.place if grid else AS_STATED if d.g_co2e_per_kwh is not None else "",
        as_of=grid.as_of if grid else "",
        source=grid.source if grid else "",
    )


def _sum(values: Sequence[float | None]) -> float | None:
    """All together; not known where one is not."""
    known = [v for v in values if v is not None]
    return sum(known) if len(known) == len(values) else None


def _per(amount: float | None, millions: float) -> float | None:
    return amount / millions if amount is not None and millions else None
