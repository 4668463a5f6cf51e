"""Fleet against hosted API over volume, as sections, rows, plain data and a chart."""

from __future__ import annotations

from math import isfinite

from planner.economics.api_vs_fleet import ApiVsFleet, Volume
from planner.figures import digits
from planner.report.drawing import Chart
from planner.report.sections import Grid, Section, money, short, unit_money
from planner.report.studies import bar

NAMES = {"fleet_usd_per_hour": "fleet", "api_usd_per_hour": "API", "best_usd_per_hour": "both"}


def sections(found: ApiVsFleet) -> list[Section]:
    """The break-even, and each rate with what is cheapest."""
    price, most = found.offer.price, max(v.best_usd_per_hour for v in found.volumes)
    rows = tuple(
        (digits(v.qps), money(v.fleet_usd_per_hour) if isfinite(v.fleet_usd_per_hour) else "-", money(v.api_usd_per_hour), money(v.best_usd_per_hour), _best(v),
         bar(v.best_usd_per_hour, most))
        for v in found.volumes
    )  # fmt: skip
    what = f"{short(price.checkpoint)} at {price.provider}: {unit_money(price.usd_per_million_input)} in, {unit_money(price.usd_per_million_output)} out"
    lines = (break_even(found), f"The cheapest API is {what} per million tokens, {price.as_of}. Its latency is not known.")
    header = ("req/s", "fleet $/h", "API $/h", "both $/h", "best", "cost of the best")
    return [Section("API against fleet", lines, Grid(header, rows, header[:4]))]


def break_even(found: ApiVsFleet) -> str:
    """The volume at which they cost the same, in a sentence."""
    low, high = found.volumes[0].qps, found.volumes[-1].qps
    if found.break_even_qps is None:
        return f"An API is cheaper than any fleet at {digits(high)} req/s: there is no break-even up to there."
    if found.break_even_qps == 0:
        return f"A fleet costs no more than any API from {digits(low)} req/s on: the break-even is below."
    return f"Break-even at {digits(found.break_even_qps)} req/s: from there on a fleet costs no more than the API, at all rates shown."


def _best(v: Volume) -> str:
    alone = min(v.fleet_usd_per_hour, v.api_usd_per_hour)
    if v.best_usd_per_hour < alone * (1 - 1e-6):
        return "fleet, overflow at an API"
    return "fleet" if v.fleet_usd_per_hour <= v.api_usd_per_hour else "API"


def rows(found: ApiVsFleet) -> list[dict[str, object]]:
    """One row per rate."""
    return [
        {"qps": v.qps, **{name: usd if isfinite(usd := getattr(v, name)) else None for name in NAMES}, "best": _best(v)}
        for v in found.volumes
    ]  # fmt: skip


def payload(found: ApiVsFleet) -> dict[str, object]:
    """Plain data."""
    price = found.offer.price.model_dump(mode="json")
    return {
        "workload": found.workload,
        "break_even_qps": found.break_even_qps,
        "usd_per_hour_per_qps": found.offer.usd_per_qps,
        "api": price,
        "volumes": rows(found),
    }


def chart(found: ApiVsFleet) -> Chart:
    """$/h over req/s: the fleet's staircase, the API's line and the best of both; the break-even as a rule."""
    import altair as alt

    lines = [{"qps": v.qps, "name": name, "usd": usd} for v in found.volumes for key, name in NAMES.items() if isfinite(usd := getattr(v, key))]
    x = alt.X("qps:Q", scale=alt.Scale(type="log", nice=False), title="req/s")
    y = alt.Y("usd:Q", scale=alt.Scale(type="log", nice=False, padding=8), title="$ per hour")
    base = alt.Chart(alt.InlineData(lines), width=560, height=320, title="API against fleet")
    drawn = base.mark_line(point=True).encode(x=x, y=y, color=alt.Color("name:N", title=""), tooltip=["qps:Q", "name:N", "usd:Q"])
    if not found.break_even_qps:
        return drawn
    return drawn + alt.Chart(alt.InlineData([{"qps": found.break_even_qps}])).mark_rule(strokeDash=[4, 4]).encode(x="qps:Q")
