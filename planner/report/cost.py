"""The cost of an owned GPU and of a job as sections, and as one flat row of numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import inf
from typing import Any

from planner.catalog.records import Offer
from planner.economics.ownership import HOURS_PER_YEAR, HourlyCost, OwnedGpu, break_even_utilization, job_cost
from planner.report.sections import Grid, Section, unit_money

BAR = 30  # characters of a whole hour's cost


@dataclass(frozen=True)
class OwnedReport:
    """An owned GPU with its hourly cost; ``rent``: the offer compared with, None where nobody rents it out."""

    gpu: str
    owned: OwnedGpu
    cost: HourlyCost
    defaults: tuple[str, ...]
    is_compared: bool
    rent: Offer | None = None

    @property
    def rent_usd_per_hour(self) -> float | None:
        """$/h of one rented GPU."""
        return self.rent.usd_per_hour / self.rent.gpus_per_instance if self.rent else None


@dataclass(frozen=True)
class Job:
    """GPUs held for a time at an hourly cost."""

    gpus: int
    seconds: float
    usd_per_gpu_hour: float
    requests: int | None = None
    defaults: tuple[str, ...] = ()

    @property
    def usd(self) -> float:
        """All of it."""
        return job_cost(self.usd_per_gpu_hour, self.gpus, self.seconds)


def owned_sections(r: OwnedReport) -> list[Section]:
    """The breakdown; what renting costs, if asked; the defaults."""
    o, c = r.owned, r.cost
    parts = (
        ("depreciation", "P/(Y·8760·u)", f"{unit_money(o.price_usd)} over {o.life_years:g} years at utilisation {o.utilization:g}", c.depreciation_usd),
        ("energy", "kW·PUE·E", f"{o.power_kw:g} kW x {o.pue:g} x {unit_money(o.usd_per_kwh)}/kWh", c.energy_usd),
        ("maintenance", "P·m/8760", f"{o.maintenance_per_year:.3g} of the price each year", c.maintenance_usd),
    )
    rows = tuple(
        (name, formula, what, f"${usd:.4f}", f"{usd / c.usd_per_hour:.0%}", "█" * round(BAR * usd / c.usd_per_hour)) for name, formula, what, usd in parts
    )
    rows += (("one hour", "", "", f"${c.usd_per_hour:.4f}", "100%", ""),)
    lines = (f"{unit_money(c.usd_per_hour)} per hour of one {r.gpu}; ${c.running_usd:.4f} of it where the price is sunk.",)
    sections = [Section("Hourly cost", lines, Grid(("part", "formula", "of", "$/h", "share", ""), rows, ("$/h", "share")))]
    sections += [Section("Against renting", (_against(r),))] if r.is_compared else []
    return sections + ([Section("Defaults used", (f"{'; '.join(r.defaults)}.",))] if r.defaults else [])


def _against(r: OwnedReport) -> str:
    if r.rent is None or r.rent_usd_per_hour is None:
        return f"No hyperscaler or neocloud of the catalogue rents out a {r.gpu} on demand."
    rent, needed = r.rent_usd_per_hour, break_even_utilization(r.owned, r.rent_usd_per_hour)
    offer = f"${rent:.4f} at {r.rent.provider} ({r.rent.instance_type}, {r.rent.as_of})"
    if needed == inf:
        return f"Renting costs {offer}, no more than owning does in power and maintenance alone: owning never pays."
    if needed > 1:
        return f"Renting costs {offer}: owning would not pay in {r.owned.life_years:g} years even if every hour were used."
    cheaper = "owning" if r.cost.usd_per_hour < rent else "renting"
    return (
        f"Renting costs {offer}; at utilisation {r.owned.utilization:g} {cheaper} is cheaper. "
        f"Owning wins above {needed * HOURS_PER_YEAR:,.0f} hours of use a year (utilisation {needed:.3g})."
    )


def owned_payload(r: OwnedReport) -> dict[str, Any]:
    """One flat row: inputs, parts of the cost, and what renting costs."""
    needed = break_even_utilization(r.owned, r.rent_usd_per_hour) if r.rent_usd_per_hour is not None else None
    pays = needed if needed is not None and needed <= 1 else None
    row = {
        "gpu": r.gpu, **asdict(r.owned), "depreciation_usd_per_hour": r.cost.depreciation_usd, "energy_usd_per_hour": r.cost.energy_usd,
        "maintenance_usd_per_hour": r.cost.maintenance_usd, "usd_per_hour": r.cost.usd_per_hour, "sunk_usd_per_hour": r.cost.running_usd,
        "defaults": "; ".join(r.defaults),
    }  # fmt: skip
    rent = {
        "rent_usd_per_hour": r.rent_usd_per_hour, "rent_provider": r.rent.provider if r.rent else None,
        "rent_instance_type": r.rent.instance_type if r.rent else None, "rent_source": r.rent.source if r.rent else None,
        "break_even_utilization": pays, "break_even_hours_per_year": pays * HOURS_PER_YEAR if pays is not None else None,
    }  # fmt: skip
    return row | (rent if r.is_compared else {})


def job_sections(j: Job) -> list[Section]:
    """What the job costs."""
    hours = f"{j.gpus} GPUs x {j.seconds:,g} s at ${j.usd_per_gpu_hour:.4g} per GPU-hour"
    lines = [f"${j.usd:,.2f} = {hours} (${j.gpus * j.usd_per_gpu_hour:,.2f}/h in all)."]
    if j.requests is not None:
        lines.append(
            f"{unit_money(j.usd / j.requests)} per request, {unit_money(1000 * j.usd / j.requests)} per thousand; {j.requests / j.seconds:.3g} requests/s."
        )
    return [Section("Cost of the job", tuple(lines)), *([Section("Defaults used", (f"{'; '.join(j.defaults)}.",))] if j.defaults else [])]


def job_payload(j: Job) -> dict[str, Any]:
    """One flat row."""
    row = {"gpus": j.gpus, "seconds": j.seconds, "usd_per_gpu_hour": j.usd_per_gpu_hour, "usd_per_hour": j.gpus * j.usd_per_gpu_hour, "usd": j.usd}
    if j.requests is not None:
        row |= {"requests": j.requests, "usd_per_request": j.usd / j.requests, "usd_per_thousand_requests": 1000 * j.usd / j.requests}
    return row | {"defaults": "; ".join(j.defaults)}
