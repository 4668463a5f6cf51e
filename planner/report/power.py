"""Power and carbon of a plan in words: one line of the page, and the section of the details with what they are made of."""

from __future__ import annotations

from planner.result.plan import Plan, Power, PowerPart

UNKNOWN = "not known"
HEADER = ("GPUs", "one GPU", "PUE", "kW", "gCO2e/kWh", "kgCO2e/h", "grid")


def power_line(plan: Plan) -> tuple[str, ...]:
    """kW, carbon and what carbon is charged for, where the question speaks of any."""
    supply, p = plan.scenario.supply, plan.power
    asked = (supply.max_kw, supply.max_carbon, supply.carbon_intensity, supply.pue)
    if p is None or not (plan.scenario.objective.carbon_price or supply.max_kw_at or any(x is not None for x in asked)):
        return ()
    per = [f"{x:.3g} {unit}" for x, unit in ((p.kwh_per_million_output_tokens, "kWh"), (p.kg_co2e_per_million_output_tokens, "kg")) if x is not None]
    tokens = f"; {', '.join(per)} per million output tokens" if per else ""
    return (f"{_kw(p)}, {_kg(p)}{tokens}", *_charge(plan, p))


def power_lines(p: Power, plan: Plan) -> tuple[str, ...]:
    """What is drawn and emitted, per hour and per million tokens, and what of the cost that is."""
    tokens = [
        (p.kwh_per_million_output_tokens, p.kg_co2e_per_million_output_tokens, "output"),
        (p.kwh_per_million_total_tokens, p.kg_co2e_per_million_total_tokens, "all"),
    ]
    per = [
        f"{kwh:.3g} kWh" + (f" and {kg:.3g} kgCO2e" if kg is not None else "") + f" per million {kind} tokens" for kwh, kg, kind in tokens if kwh is not None
    ]
    first = "; ".join([f"{_kw(p)}, {_kg(p)}", *([", ".join(per)] if per else [])])
    made = "GPUs x TDP x PUE x intensity: a GPU rarely draws its TDP, so this is an upper estimate of what GPUs draw; hosts are not in it."
    return (f"{first}. {made}", *(f"{line}." for line in _charge(plan, p)))


def power_rows(p: Power, plan: Plan) -> tuple[tuple[str, ...], ...]:
    """Line by line, what it is made of, under HEADER."""
    return tuple(
        (f"{b.gpus_held} x {b.gpu}", _or(part.gpu_kw, "{:.3g} kW"), f"{part.pue:g}{'' if part.is_pue_known else ' (GPUs alone)'}", _or(part.kw, "{:.4g}"),
         _or(part.g_co2e_per_kwh, "{:.4g}"), _or(part.kg_co2e_per_hour, "{:.4g}"), _whence(part))
        for b, part in zip(plan.purchases, p.parts, strict=True)
    )  # fmt: skip


def _kw(p: Power) -> str:
    if p.kw is None or p.most_kw is None:
        return f"power {UNKNOWN}"
    return f"{p.kw:.4g} kW of TDP x PUE" + (f" (at most {p.most_kw:.4g})" if p.most_kw > p.kw * (1 + 1e-9) else "")


def _kg(p: Power) -> str:
    return f"{p.kg_co2e_per_hour:.3g} kgCO2e/h" if p.kg_co2e_per_hour is not None else f"carbon {UNKNOWN}"


def _charge(plan: Plan, p: Power) -> tuple[str, ...]:
    price, usd, carbon = plan.scenario.objective.carbon_price, plan.cost.usd_per_hour, p.carbon_usd_per_hour
    return (f"${usd:,.2f}/h = ${usd - carbon:,.2f}/h paid + ${carbon:,.2f}/h for carbon at ${price:g}/t",) if price else ()


def _whence(part: PowerPart) -> str:
    return ", ".join(x for x in (part.place, part.as_of) if x) + (f": {part.source}" if part.source else "") if part.place else UNKNOWN


def _or(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
