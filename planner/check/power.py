"""Checks power and carbon: every line of what is held by the catalogue's watts and grid or the owner's numbers, their sums, and what is charged for it."""

from __future__ import annotations

from planner.check.case import Case
from planner.check.findings import Finding, Notes, same_money
from planner.check.supply import offer_of, power_of
from planner.result.plan import Power, PowerPart, Purchase


def power(case: Case) -> Finding:
    """kW and kgCO2e/h of each purchase, of all, and per million tokens; carbon's share of the cost."""
    notes, stated = Notes("power"), case.plan.power
    if stated is None:  # a plan of an earlier planner
        notes.require(not case.scenario.objective.carbon_price, "plan", "states no carbon, which has a price")
        return notes.finding("power: not stated")
    if len(stated.parts) != len(case.plan.purchases):
        notes.add("plan", f"states the power of {len(stated.parts)} of {len(case.plan.purchases)} purchases")
        return notes.finding("power: not derived")
    held, kw, kg = _mean_held(case), list[float | None](), list[float | None]()
    for p, part, n in zip(case.plan.purchases, stated.parts, held, strict=True):
        offer = offer_of(case, p)
        if offer is None:
            return notes.finding("power: not derived")  # a breach of its own
        gpu_kw, pue, intensity = power_of(offer, case.scenario, case.catalog)
        kw.append(None if gpu_kw is None else gpu_kw * p.gpus_per_instance * pue)
        kg.append(None if gpu_kw is None or intensity is None else gpu_kw * p.gpus_per_instance * pue * intensity / 1e3)
        _line(notes, case, p, part, (gpu_kw, pue, intensity, _times(kw[-1], n), _times(kg[-1], n)))
    _charge(notes, case, stated, kg, held)
    drawn, emitted = (_all([_times(x, n) for x, n in zip(each, held, strict=True)]) for each in (kw, kg))
    at_once = [_all([_times(x, n) for x, n in zip(kw, t.instances, strict=True)]) for t in case.plan.by_period]
    _sums(notes, case, stated, drawn, max((x for x in at_once if x is not None), default=None), emitted)
    said = [f"{what} is not known" if x is None else f"{x:.4g} {unit}" for x, what, unit in ((drawn, "power", "kW"), (emitted, "carbon", "kgCO2e/h"))]
    return notes.finding(f"power: {', '.join(said)}, by the catalogue's watts and grids")


def _charge(notes: Notes, case: Case, stated: Power, kg: list[float | None], held: list[float]) -> None:
    """What carbon is charged for, of each purchase and of the whole cost."""
    price, charged = case.scenario.objective.carbon_price / 1e3, 0.0
    for i, (p, each, n) in enumerate(zip(case.plan.purchases, kg, held, strict=True)):
        usd = price * (each or 0.0)
        notes.require(not price or each is not None, f"purchase {i}", "emits nobody knows how much, and carbon has a price")
        right = usd * p.instances
        notes.require(same_money(p.carbon_usd_per_hour, right), f"purchase {i}", f"states ${p.carbon_usd_per_hour:.4f}/h for carbon, should be ${right:.4f}")
        charged += usd * n
    usd = stated.carbon_usd_per_hour
    notes.require(same_money(usd, charged), "plan", f"states ${usd:.4f}/h for carbon, should be ${charged:.4f}")


def _times(value: float | None, n: float) -> float | None:
    return None if value is None else value * n


def _all(values: list[float | None]) -> float | None:
    """Their sum; not known where one is not."""
    known = [v for v in values if v is not None]
    return sum(known) if len(known) == len(values) else None


def _mean_held(case: Case) -> list[float]:
    """Instances of each purchase in the mean over all hours, from their start on."""
    plan, lead = case.plan, case.scenario.policy.startup_lead / 3600
    return [sum(t.hours * t.instances[i] + lead * t.started[i] for t in plan.by_period) / plan.hours for i in range(len(plan.purchases))]


def _line(notes: Notes, case: Case, p: Purchase, part: PowerPart, right: tuple[float | None, ...]) -> None:
    gpu_kw, pue, intensity, kw, kg = right
    grid, supply = case.catalog.grids.get((p.provider, p.region)) if p.kind != "owned" else None, case.scenario.supply
    here = grid if grid is not None and grid.g_co2e_per_kwh is not None else None
    known = p.kind == "owned" or supply.pue is not None or (grid is not None and grid.pue is not None)
    ought = PowerPart(
        gpu_kw=gpu_kw, pue=pue or 1.0, is_pue_known=known, g_co2e_per_kwh=intensity, kw=kw, kg_co2e_per_hour=kg,
        place=here.place if here else "" if intensity is None else "as stated", as_of=here.as_of if here else "", source=here.source if here else "",
    )  # fmt: skip
    notes.match(part, ought, f"power of {p.provider} {p.region} {p.instance_type}")


def _sums(notes: Notes, case: Case, stated: Power, kw: float | None, most: float | None, kg: float | None) -> None:
    """All lines together, and per million tokens of the user."""
    plan = case.plan
    unknown = bool(plan.periods) and any(w.demand.kind == "concurrency" for w in plan.workloads)  # whose rates over the hours nobody worked out
    unknown |= bool(plan.hosted)  # and what an API draws for its share
    rates = [0.0 if unknown else sum(w.rates) / len(w.rates) if w.rates else w.qps for w in plan.workloads]
    output = sum(3600 * q * (w.output_tokens or 0.0) for q, w in zip(rates, plan.workloads, strict=True)) / 1e6
    total = output + sum(3600 * q * (w.input_tokens or 0.0) for q, w in zip(rates, plan.workloads, strict=True)) / 1e6

    def per(amount: float | None, millions: float) -> float | None:
        return None if amount is None or not millions else amount / millions

    ought = Power(
        kw=kw, most_kw=most, kg_co2e_per_hour=kg, kwh_per_million_output_tokens=per(kw, output), kwh_per_million_total_tokens=per(kw, total),
        kg_co2e_per_million_output_tokens=per(kg, output), kg_co2e_per_million_total_tokens=per(kg, total),
    )  # fmt: skip
    notes.match(stated, ought, "plan", skip={"parts", "carbon_usd_per_hour"})
