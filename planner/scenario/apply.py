"""The catalogue as a scenario sees it: with the prices it supposes, the carbon it charges for, and the GPUs its asker owns; and what those draw."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date

from planner.catalog.catalog import Catalog
from planner.catalog.ownership import HOURS_PER_YEAR, OwnedGpu, energy_usd_per_hour, hourly_cost, maintenance_usd_per_hour
from planner.catalog.records import Gpu, Offer, PowerGrid
from planner.errors import CatalogError
from planner.scenario.fleet import with_fleet
from planner.scenario.own_offers import OwnOffer
from planner.scenario.records import Owned, Scenario, Supply

KG_PER_TONNE = 1e3
HYPERSCALER_ZONES = 3  # assumption: which of them has which GPU is in no price list
ALL = "all"  # in place of a GPU or provider: every price


def catalog_for(catalog: Catalog, scenario: Scenario) -> Catalog:
    """The catalogue less discounts, with offers of one's own, supposed prices, today's fleet, owned GPUs and the price of carbon in every offer; in each zone
    where one may be lost. What the scenario does not touch is the same object.

    Suppositions on prices concern what is rented, discounts the catalogue's prices alone; carbon is charged for whatever is held.
    Raises CatalogError for an owned GPU of unknown power.
    """
    factors, supply, carbon = scenario.what_if.price_factor, scenario.supply, scenario.objective.carbon_price
    in_zones = scenario.policy.survives == "zone"
    if not (factors or supply.owned or supply.offers or supply.discount or supply.current or carbon or in_zones):
        return catalog
    listed = (_times(o, 1 - discount_of(o, supply)) for o in catalog.offers)
    rented = (*listed, *(_own_offer(o, supply, catalog) for o in supply.offers))
    offers = (_times(o, factors.get(o.gpu, 1.0) * factors.get(o.provider, 1.0) * factors.get(ALL, 1.0)) for o in rented)
    placed = (z for o in offers for z in in_each_zone(o, supply)) if in_zones else offers
    today = with_fleet(tuple(placed), supply.current, planned_on(supply, catalog))
    every = (*today, *(_offer(o, catalog) for o in supply.owned))
    return replace(catalog, offers=tuple(_charged(o, scenario, catalog) for o in every) if carbon else every)


def planned_on(supply: Supply, catalog: Catalog) -> date:
    """The day of planning: as stated, else that of the newest price."""
    return supply.as_of or catalog.newest_price


def zones_of(offer: Offer, supply: Supply) -> int:
    """Zones of its region that an offer may be bought in: as stated, else by the kind of provider. One that states a zone, or how many, is in one."""
    if offer.is_owned or offer.zone or offer.available is not None or offer.minimum > 1:
        return 1
    return supply.zones or (HYPERSCALER_ZONES if offer.kind == "hyperscaler" else 1)


def in_each_zone(offer: Offer, supply: Supply) -> tuple[Offer, ...]:
    """An offer once for each zone that it may be bought in; where there is only one, as it is."""
    many = zones_of(offer, supply)
    return (offer,) if many == 1 else tuple(offer.model_copy(update={"zone": f"zone {i + 1}"}) for i in range(many))


def discount_of(offer: Offer, supply: Supply) -> float:
    """The share that a provider takes off the catalogue's price: of this way to buy, else of all."""
    return supply.discount.get(f"{offer.provider}:{offer.purchase}", supply.discount.get(offer.provider, 0.0))


def _times(offer: Offer, factor: float) -> Offer:
    return offer if factor == 1.0 else offer.model_copy(update={"usd_per_hour": offer.usd_per_hour * factor})


def _own_offer(own: OwnOffer, supply: Supply, catalog: Catalog) -> Offer:
    """A contract as an offer of whole instances."""
    usd_per_hour, how = own.in_usd(supply.exchange_rate)
    return Offer(
        provider=own.provider, kind=own.kind or "contract", region=own.region, geography=own.geography or "any",
        instance_type=own.type, basis="instance", gpu=own.gpu, gpus_per_instance=own.gpus_per_instance, gpus_per_node=own.gpus_per_instance,
        max_tp=own.max_tp or own.gpus_per_instance, purchase=own.purchase, usd_per_hour=usd_per_hour, as_of=own.date or catalog.newest_price,
        dated_by="row" if own.date else "scenario", source=f"own offer {own.key}" + (f": {how}" if how else ""), licence="", available=own.quota,
        zone=own.zone, id=own.key, minimum=own.minimum,
    )  # fmt: skip


def _offer(owned: Owned, catalog: Catalog) -> Offer:
    """Owned GPUs as an offer of single GPUs, as current as the newest price beside them."""
    usd_per_hour, source = _usd_per_hour(owned, catalog.gpus[owned.gpu])
    if not usd_per_hour > 0:
        raise CatalogError(f"an hour of {owned.gpu} would cost nothing", "supply.owned", "state its power and electricity, or usd_per_hour")
    return Offer(
        provider=owned.name, kind="owned", region="any", geography="any", instance_type=f"own {owned.gpu}", basis="gpu", gpu=owned.gpu,
        gpus_per_instance=1, gpus_per_node=owned.gpus_per_node, max_tp=owned.max_tp or owned.gpus_per_node, purchase="owned", usd_per_hour=usd_per_hour,
        as_of=max(o.as_of for o in catalog.offers), dated_by="scenario", source=source, licence="", available=owned.count,
    )  # fmt: skip


def _usd_per_hour(owned: Owned, gpu: Gpu) -> tuple[float, str]:
    """$/h of one owned GPU, and what that is made of. In a plan u = 1: idle hours are the plan's own idle GPUs."""
    if owned.usd_per_hour is not None:
        return owned.usd_per_hour, "cost as stated"
    kw, power = (owned.kw, "kW") if owned.kw is not None else (tdp_kw(gpu), "kW (the catalogue's TDP)")
    assert owned.electricity is not None
    running = f"{kw:g} {power} x PUE {owned.pue:g} x ${owned.electricity:g}/kWh, maintenance {owned.maintenance:g} a year"
    running += "".join(f", {name} ${usd:,.10g} a year" for name, usd in owned.yearly.items())
    other = sum(owned.yearly.values())
    if owned.sunk:
        upkeep = maintenance_usd_per_hour(owned.price, owned.maintenance) if owned.price is not None else 0.0  # without a price it is 0 of it
        return energy_usd_per_hour(kw, owned.pue, owned.electricity) + upkeep + other / HOURS_PER_YEAR, f"sunk: {running}"
    assert owned.price is not None and owned.years is not None
    bought = OwnedGpu(owned.price, owned.years, kw, owned.electricity, pue=owned.pue, maintenance_per_year=owned.maintenance, yearly_usd=other)
    return hourly_cost(bought).usd_per_hour, f"${owned.price:,.10g} over {owned.years:g} years, {running}"


@dataclass(frozen=True)
class Draw:
    """Power and carbon of an hour of one instance, and what they are made of: GPUs x kW of one x PUE x intensity. What is not known is None.

    ``gpu_kw``: TDP, which a GPU rarely draws in full, or the ``kw`` stated of one's own. ``place``: whose grid the intensity is of; "": as stated.
    """

    gpus: int
    gpu_kw: float | None
    pue: float
    g_co2e_per_kwh: float | None
    grid: PowerGrid | None = None
    is_pue_known: bool = True

    @property
    def kw(self) -> float | None:
        """With the share of the data centre that it takes."""
        return self.gpus * self.gpu_kw * self.pue if self.gpu_kw is not None else None

    @property
    def kg_co2e_per_hour(self) -> float | None:
        """kW x gCO2e/kWh."""
        return self.kw * self.g_co2e_per_kwh / 1e3 if self.kw is not None and self.g_co2e_per_kwh is not None else None


def draw_of(offer: Offer, scenario: Scenario, catalog: Catalog) -> Draw:
    """What one instance of an offer draws: one's own GPUs as their owner says; rented ones by the catalogue's TDP and the grid of their region."""
    supply, tdp_w = scenario.supply, catalog.gpus[offer.gpu].tdp_w
    tdp = tdp_w / 1e3 if tdp_w is not None else None
    own = next((o for o in supply.owned if offer.is_owned and (o.name, o.gpu) == (offer.provider, offer.gpu)), None)
    if own is not None:
        intensity = own.carbon_intensity if own.carbon_intensity is not None else supply.carbon_intensity
        return Draw(offer.gpus_per_instance, own.kw if own.kw is not None else tdp, own.pue, intensity)
    grid = catalog.grids.get((offer.provider, offer.region))
    known = grid if grid and grid.g_co2e_per_kwh is not None else None
    pue = supply.pue if supply.pue is not None else grid.pue if grid else None
    return Draw(offer.gpus_per_instance, tdp, pue or 1.0, known.g_co2e_per_kwh if known else supply.carbon_intensity, known, pue is not None)


def _charged(offer: Offer, scenario: Scenario, catalog: Catalog) -> Offer:
    """The offer with the carbon price on what it emits; as it is where that is not known, so that it cannot be held (candidates/columns.py)."""
    kg = draw_of(offer, scenario, catalog).kg_co2e_per_hour
    usd = scenario.objective.carbon_price * kg / KG_PER_TONNE if kg else 0.0
    return offer.model_copy(update={"usd_per_hour": offer.usd_per_hour + usd, "carbon_usd_per_hour": usd}) if usd else offer


def tdp_kw(gpu: Gpu) -> float:
    """The catalogue's power of a GPU, kW. Raises CatalogError where it has none."""
    if gpu.tdp_w is None:
        raise CatalogError(f"the catalogue has no power of {gpu.name}", "kw", "state it")
    return gpu.tdp_w / 1e3
