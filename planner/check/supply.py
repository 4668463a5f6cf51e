"""Checks what is bought and how it is run: offers of the catalogue that supply admits, quotas, budget and limits of policy."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from planner.catalog.catalog import Catalog
from planner.catalog.records import Offer
from planner.check.case import Account
from planner.check.findings import CENT, RELATIVE, Finding, Notes, at_most
from planner.result.plan import SCHEMA_VERSION, Period, Purchase
from planner.scenario.caps import AskedCap, Measure, caps
from planner.scenario.records import KINDS, Scenario, Supply

PROVEN = 0.01  # gap at which a plan by the hour counts as optimal, or the one asked for where that is wider: profiles are known no better


def offer_of(case: Account, purchase: Purchase) -> Offer | None:
    """The catalogue's offer behind a purchase."""
    key = (purchase.provider, purchase.region, purchase.zone, purchase.instance_type, purchase.gpu, purchase.purchase, purchase.id)
    return next((o for o in case.catalog.offers if (o.provider, o.region, o.zone, o.instance_type, o.gpu, o.purchase, o.id) == key), None)


def offers(case: Account) -> Finding:
    """Every purchase is an offer of the catalogue at its price, and one that the scenario admits."""
    notes = Notes("offers")
    for i, p in enumerate(case.plan.purchases):
        where = f"purchase {i} ({p.provider} {p.region} {p.instance_type})"
        offer = offer_of(case, p)
        if offer is None:
            notes.add(where, "is not in the catalogue")
            continue
        notes.match(p, purchase_right(p, offer), where, skip={"gpus_held", "gpus_idle"})  # which packing adds up
        why = not_admitted(offer, _looked_at(case.scenario.supply, offer, p)) or too_old(offer, case, case.scenario.supply.max_price_age)
        is_kept = p.instances <= offer.now and (not why or why.startswith(("the price of", "purchase")))
        notes.require(not why or is_kept or (bool(offer.until) and p.gpus_idle == p.gpus_held), where, why)
        held = sum(q.instances for q in case.plan.purchases if offer_of(case, q) is offer)
        notes.require(offer.available is None or held <= offer.available, where, f"{held} are held, there are {offer.available}")
        few = min((n for t in case.plan.by_period if (n := t.instances[i])), default=p.instances)
        notes.require(few >= offer.minimum, where, f"{few} are held, sold are no fewer than {offer.minimum}")
    _data(notes, case)
    _reached(notes, case)
    return notes.finding(f"offers: {len(case.plan.purchases)} purchases are offers of the catalogue at its prices, admitted by supply")


def _looked_at(supply: Supply, offer: Offer, p: Purchase) -> Supply:
    """Supply as it concerns a purchase: what is held today, and no more, may be of any kind unless kinds are asked for."""
    return supply.model_copy(update={"kinds": ()}) if supply.kinds == KINDS and p.instances <= offer.now else supply


def _data(notes: Notes, case: Account) -> None:
    """Each workload is served only where its data may live, in every period; at a site of one's own where that is named."""
    asked = {w.name: w for w in case.scenario.workload if w.regions or w.geographies}
    for got in (w for w in case.plan.workloads if w.name in asked):
        w, serving = asked[got.name], [r.deployment for r in got.routing if r.share > 0]
        for p in {case.plan.purchases[h.purchase] for t in case.plan.by_period for i in serving for h in t.deployments[i].hosts}:
            place, offer = p.provider if p.kind == "owned" else p.region, offer_of(case, p)
            inside = _among(place, w.regions) or (offer is not None and _among(offer.geography, w.geographies))
            notes.require(inside, got.name, f"is served in {place}, may be in {' or '.join((*w.regions, *w.geographies))}")


def _reached(notes: Notes, case: Account) -> None:
    """No workload whose network differs by region is served from further away than the plan counts, or from where nothing is stated."""
    asked = {w.name: w for w in case.plan.scenario.workload}
    for got, w in ((got, asked[got.name]) for got in case.plan.workloads if got.name in asked):
        notes.require(bool(w.network_at) == (got.network_ms is not None), got.name, f"states {got.network_ms} ms of network")
        near = {name.lower(): seconds for name, seconds in w.network_at.items()}
        serving = [r.deployment for r in got.routing if r.share > 0] if w.network_at else []
        for p in {case.plan.purchases[h.purchase] for t in case.plan.by_period for i in serving for h in t.deployments[i].hosts}:
            place = p.provider if p.kind == "owned" else p.region
            far = near.get(place.lower(), w.network or inf) * 1e3
            notes.require(at_most(far, got.network_ms or 0.0), got.name, f"is served from {place}, {far:g} ms away, and counts {got.network_ms} ms")


def purchase_right(p: Purchase, offer: Offer) -> Purchase:
    """So many instances of an offer as the catalogue has it; how many GPUs idle is as stated."""
    return Purchase(
        provider=offer.provider, kind=offer.kind, region=offer.region, instance_type=offer.instance_type, basis=offer.basis, purchase=offer.purchase,
        gpu=offer.gpu, gpus_per_instance=offer.gpus_per_instance, instances=p.instances, gpus_held=p.instances * offer.gpus_per_instance,
        gpus_idle=p.gpus_idle, usd_per_hour=p.instances * offer.usd_per_hour, source=offer.source, as_of=offer.stated_as_of,
        dated_by=offer.dated_by, note=offer.note, zone=offer.zone, id=offer.id, carbon_usd_per_hour=p.instances * offer.carbon_usd_per_hour,
        until=offer.until.isoformat() if offer.until else "", minimum=offer.minimum,
    )  # fmt: skip


def not_admitted(offer: Offer, supply: Supply) -> str:
    """Why the scenario does not admit an offer, or "". What may be rented does not concern the GPUs it owns."""
    any_kind, own_way = bool(offer.id) and supply.kinds == KINDS, bool(offer.id)  # own offers, unless kinds are asked for
    rented = (
        (offer.kind, () if any_kind else supply.kinds, "kind"),
        (offer.purchase, () if own_way else supply.purchase, "purchase"),
        (offer.provider, supply.providers, "provider"),
        (offer.region, supply.regions, "region"),
        (offer.geography, supply.geographies, "geography"),
    )
    for value, allowed, what in (*(() if offer.kind == "owned" else rented), (offer.gpu, supply.gpus, "GPU")):
        if allowed and not _among(value, allowed):
            return f"{what} {value} was not asked for"
    excluded = ((offer.provider, supply.exclude_providers), (offer.gpu, supply.exclude_gpus))
    return next((f"{value} is excluded" for value, names in excluded if _among(value, names)), "")


def too_old(offer: Offer, case: Account, most: int | None) -> str:
    """Why a price is too many days old, or ""; ages count from the newest price of the catalogue."""
    dates = [o.as_of for o in case.catalog.offers if o.kind != "owned" and not o.id]
    if most is None or offer.kind == "owned" or not dates:
        return ""
    age = (max(dates) - offer.as_of).days
    return f"the price of {offer.as_of} is {age} days older than the newest, at most {most}" if age > most else ""


def _among(value: str, names: Iterable[str]) -> bool:
    return value.lower() in {n.lower() for n in names}


def held_caps(case: Account) -> Finding:
    """GPUs, money, power and carbon held within every cap."""
    notes, asked = Notes("limits"), []
    for cap in caps(case.scenario):
        each = [h.usd_per_hour / h.qps if cap.is_money and h.qps > 0 else 0.0 for h in case.plan.hosted]
        apis = [sum(usd * qps for usd, qps in zip(each, t.hosted, strict=True)) for t in case.plan.by_period]
        held = [counted(cap, held_by(case, t), case.scenario, case.catalog) + usd for t, usd in zip(case.plan.by_period, apis, strict=True)]
        for t, amount in zip(case.plan.by_period, held, strict=True):
            within(notes, cap, amount, f"hour {t.hour}" if case.plan.periods else cap.key or cap.field.name)
        asked.append(f"{cap.said(cap.field.row)} {max(held):,.10g} of {cap.most:,.10g}")
    return notes.finding("limits: " + (", ".join(asked) or f"no quota, cap or budget ({case.plan.gpus_held} GPUs held)"))


def within(notes: Notes, cap: AskedCap, held: float, where: str) -> None:
    """No more is held than a cap allows; money to half a cent."""
    room = CENT / 2 if cap.is_in_dollars else 0.0
    unit = {"gpus": "{:.0f} GPUs", "usd": "${:.2f}/h", "paid": "${:.2f}/h paid", "kw": "{:.4g} kW", "kg": "{:.4g} kgCO2e/h"}[cap.field.of]
    notes.require(held <= cap.most * (1 + RELATIVE) + room, where, f"holds {unit.format(held)}, at most {unit.format(cap.most)}")


def held_by(case: Account, span: Period) -> list[tuple[Offer, int]]:
    """Offers of the catalogue with the instances held in a period; what is in no catalogue is a breach of its own."""
    return [(offer, n) for p, n in zip(case.plan.purchases, span.instances, strict=True) if (offer := offer_of(case, p))]


def counted(cap: AskedCap, held: Iterable[tuple[Offer, int]], scenario: Scenario, catalog: Catalog) -> float:
    """What so many instances of offers within a cap's reach come to, in its unit; infinite where it is not known."""
    found = 0.0
    for offer, instances in held:
        if instances and {name.lower() for name in cap.scope} <= {name.lower() for name in _names(offer)}:
            found += instances * _amount(cap.field.of, offer, scenario, catalog)
    return found


def _names(offer: Offer) -> tuple[str, ...]:
    """What a cap may call an offer by; GPUs of one's own are in no provider's region."""
    return (offer.gpu, offer.provider, *(() if offer.kind == "owned" else (offer.region, offer.zone, f"{offer.provider} {offer.region}")))


def _amount(of: Measure, offer: Offer, scenario: Scenario, catalog: Catalog) -> float:
    """What one instance counts as; infinite where it is not known."""
    if of == "gpus":
        return float(offer.gpus_per_instance)
    if of == "usd":
        return offer.usd_per_hour
    gpu_kw, pue, intensity = power_of(offer, scenario, catalog)
    kw = gpu_kw * offer.gpus_per_instance * pue if gpu_kw is not None else inf
    kg = kw * intensity / 1e3 if intensity is not None and gpu_kw is not None else inf
    return {"kw": kw, "kg": kg, "paid": offer.usd_per_hour - scenario.objective.carbon_price * kg / 1e3}[of]


def power_of(offer: Offer, scenario: Scenario, catalog: Catalog) -> tuple[float | None, float, float | None]:
    """kW of one GPU, the PUE of whoever runs it, and gCO2e of a kWh there; None where it is not known."""
    supply, known = scenario.supply, catalog.gpus.get(offer.gpu)
    tdp = known.tdp_w / 1e3 if known and known.tdp_w else None
    for own in supply.owned if offer.kind == "owned" else ():
        if (own.name, own.gpu) == (offer.provider, offer.gpu):
            return own.kw or tdp, own.pue, supply.carbon_intensity if own.carbon_intensity is None else own.carbon_intensity
    here = [g for g in catalog.grids.values() if (g.provider, g.region) == (offer.provider, offer.region)]
    pue = next((x for x in (supply.pue, *(g.pue for g in here)) if x is not None), 1.0)
    return tdp, pue, next((x for x in (*(g.g_co2e_per_kwh for g in here), supply.carbon_intensity) if x is not None), None)


def policy(case: Account) -> Finding:
    """Models, GPU types, locations, pools and checkpoints per workload."""
    notes, plan, rules = Notes("policy"), case.plan, case.scenario.policy
    counts = (
        ("max_models", len({d.model for d in plan.deployments} | {h.model for h in plan.hosted}), rules.max_models, "models"),
        ("max_gpu_types", len({d.gpu for d in plan.deployments}), rules.max_gpu_types, "GPU types"),
        ("max_locations", len({(p.provider, p.region) for p in plan.purchases if p.kind != "owned" and not p.until}), rules.max_locations, "locations"),
    )
    for name, count, most, what in counts:
        notes.require(most is None or count <= most, name, f"uses {count} {what}, at most {most}")
    own = case.scenario.tables  # whose classes may be split over any candidates, unless one is asked for
    pools = (1 if own.single_candidate_per_class else rules.max_pools) if own.capacities else rules.pools_per_workload
    for w in (w for w in plan.workloads if not w.is_waiting):
        serving = [r.deployment for r in w.routing if r.share > 0]
        notes.require(pools is None or len(serving) <= pools, w.name, f"is served by {len(serving)} deployments, at most {pools}")
        checkpoints = {(plan.deployments[i].checkpoint, plan.deployments[i].mode) for i in serving}
        notes.require(rules.mix or bool(own.capacities) or len(checkpoints) <= 1, w.name, f"is served by {len(checkpoints)} checkpoints without --mix")
    return notes.finding("policy: " + ", ".join(f"{count} {what}" for _, count, _, what in counts) + f", at most {pools or 'any number of'} pools per workload")


def solver(case: Account) -> Finding:
    """The bound is no more than the cost, and gap and status say how far apart they are."""
    notes, plan, scenario = Notes("bound"), case.plan, case.scenario
    cost, least = plan.cost.usd_per_hour + (plan.changes.usd_per_hour if plan.changes else 0.0), plan.bound_usd_per_hour
    notes.require(1 <= plan.schema_version <= SCHEMA_VERSION, "schema_version", f"is {plan.schema_version}, there are 1 to {SCHEMA_VERSION}")
    goal = scenario.objective.maximize or scenario.objective.minimize
    notes.require(plan.objective == goal, "objective", f"is '{plan.objective}', asked '{goal}'")
    notes.require(least >= 0, "bound", f"${least:.4f}/h is less than nothing")
    notes.require(at_most(least, cost), "bound", f"${least:.4f}/h is above the cost of ${cost:.4f}/h")
    right = (cost - least) / cost if cost > 0 else 0.0
    notes.require(abs(plan.gap - right) <= RELATIVE, "gap", f"states {plan.gap:.3g}, should be {right:.3g}")
    asked = max(scenario.solver.gap, PROVEN) if plan.periods else scenario.solver.gap
    proven, late = right <= asked + RELATIVE, not plan.periods and any("raise --time-limit" in w for w in plan.warnings)
    notes.require(plan.status == ("optimal" if proven and not late else "feasible"), "status", f"{plan.status} with a gap of {right:.3g}, asked {asked:g}")
    return notes.finding(f"bound: ${least:.2f}/h, gap {max(right, 0.0):.2%}, {plan.status}")
