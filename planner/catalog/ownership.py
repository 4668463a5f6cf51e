"""What an hour of an owned GPU costs, what a job on it costs, and from which use on owning is cheaper than renting.

The formula is that of arXiv 2510.26136 ("Beyond Benchmarks: The Economics of AI Inference"), P/(Y·8760·u) + kW·PUE·E + P·m/8760, and what
else a rack costs each year, F/8760.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from planner.catalog.records import Offer

HOURS_PER_YEAR = 8760.0
SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True)
class OwnedGpu:
    """One GPU of one's own, with its share of the server. Raises ValueError for numbers that cannot be.

    price_usd: P, price; life_years: Y, over which it is written off; utilization: u, share of hours with paid work (0-1];
    power_kw: kW, drawn while it works; pue: PUE, facility power per IT power (≥ 1); usd_per_kwh: E, electricity;
    maintenance_per_year: m, share of the price that upkeep costs each year; yearly_usd: F, what else a GPU costs each year (network, storage,
    software, operators).
    """

    price_usd: float
    life_years: float
    power_kw: float
    usd_per_kwh: float
    utilization: float = 1.0
    pue: float = 1.0
    maintenance_per_year: float = 0.0
    yearly_usd: float = 0.0

    def __post_init__(self) -> None:
        limits: Mapping[str, tuple[bool, str]] = {
            "price_usd": (0 < self.price_usd < inf, "more than zero"),
            "life_years": (0 < self.life_years <= 100, "more than zero, and at most 100"),
            "power_kw": (0 < self.power_kw <= 1000, "more than zero, and at most 1000"),
            "usd_per_kwh": (0 <= self.usd_per_kwh <= 100, "zero or more, and at most 100"),
            "utilization": (0 < self.utilization <= 1, "a share above 0 and up to 1"),
            "pue": (1 <= self.pue <= 10, "1 or more, and at most 10"),
            "maintenance_per_year": (0 <= self.maintenance_per_year <= 1, "a share between 0 and 1"),
            "yearly_usd": (0 <= self.yearly_usd < inf, "zero or more"),
        }
        for name, (is_sound, what) in limits.items():
            if not is_sound:
                raise ValueError(f"{name} {getattr(self, name):g} must be {what}")


@dataclass(frozen=True)
class HourlyCost:
    """$/h of one GPU in its parts."""

    depreciation_usd: float  # P/(Y·8760·u)
    energy_usd: float  # kW·PUE·E
    maintenance_usd: float  # P·m/8760
    other_usd: float = 0.0  # F/8760

    @property
    def usd_per_hour(self) -> float:
        """All of it."""
        return self.depreciation_usd + self.running_usd

    @property
    def running_usd(self) -> float:
        """Without depreciation: what a GPU costs whose price is sunk."""
        return self.energy_usd + self.maintenance_usd + self.other_usd


def hourly_cost(gpu: OwnedGpu) -> HourlyCost:
    """P/(Y·8760·u) + kW·PUE·E + P·m/8760 + F/8760, in $/h of one GPU (arXiv 2510.26136, and F)."""
    return HourlyCost(
        depreciation_usd=gpu.price_usd / (gpu.life_years * HOURS_PER_YEAR * gpu.utilization),
        energy_usd=energy_usd_per_hour(gpu.power_kw, gpu.pue, gpu.usd_per_kwh),
        maintenance_usd=maintenance_usd_per_hour(gpu.price_usd, gpu.maintenance_per_year),
        other_usd=gpu.yearly_usd / HOURS_PER_YEAR,
    )


def energy_usd_per_hour(power_kw: float, pue: float, usd_per_kwh: float) -> float:
    """kW·PUE·E."""
    return power_kw * pue * usd_per_kwh


def maintenance_usd_per_hour(price_usd: float, maintenance_per_year: float) -> float:
    """P·m/8760."""
    return price_usd * maintenance_per_year / HOURS_PER_YEAR


def job_cost(usd_per_gpu_hour: float, gpus: int, seconds: float) -> float:
    """Dollars for so many GPUs over so many seconds: hourly cost x time."""
    return usd_per_gpu_hour * gpus * seconds / SECONDS_PER_HOUR


def break_even_utilization(gpu: OwnedGpu, rent_usd_per_hour: float) -> float:
    """The utilisation at which an hour costs as much as renting one; owning is cheaper above it, infinite where it never is.

    From the formula solved for u: P/(Y·8760·(r - kW·PUE·E - P·m/8760 - F/8760)). More than 1 means that even every hour of the year is too little.
    """
    left = rent_usd_per_hour - hourly_cost(gpu).running_usd
    return gpu.price_usd / (gpu.life_years * HOURS_PER_YEAR * left) if left > 0 else inf


def cheapest_rent(offers: Iterable[Offer], gpu: str) -> Offer | None:
    """The cheapest offer per GPU, on demand at a hyperscaler or neocloud: what a plan may rent unless it is told otherwise."""
    rented = [o for o in offers if o.gpu == gpu and o.purchase == "on_demand" and o.kind in ("hyperscaler", "neocloud")]
    return min(rented, key=lambda o: (o.usd_per_hour / o.gpus_per_instance, o.provider, o.region, o.instance_type), default=None)
