"""The charts of a review, each as a Vega-Lite specification that takes its colours from the page and is as wide as its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil, floor, log10
from typing import Any

from planner.economics.curve import CostCurve
from planner.economics.frontier import Frontier
from planner.economics.outage import Outage
from planner.economics.review import Review, Staircase
from planner.figures import digits
from planner.report.drawing import Chart, harmless
from planner.report.review.words import limit_rows
from planner.report.sections import latency, money, short
from planner.report.studies import what
from planner.result.plan import Plan

INK, MUTED, LINE, ACCENT, SECOND, ZONE, WARN = (f"var(--{n})" for n in ("ink", "muted", "line", "accent", "second", "zone", "warn"))
STEPS = tuple(f"var(--step{i})" for i in range(1, 6))
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif"
AXIS = {
    "labelColor": MUTED, "titleColor": MUTED, "gridColor": LINE, "domainColor": LINE, "tickColor": LINE, "titleFontWeight": "normal", "labelFontSize": 12,
    "titleFontSize": 12, "labelFlush": False, "labelOverlap": True, "titlePadding": 8,
}  # fmt: skip
CONFIG = {
    "background": None, "font": FONT, "view": {"stroke": None}, "axis": AXIS, "text": {"color": INK, "fontSize": 12}, "rule": {"color": MUTED},
    "legend": {"labelColor": INK, "titleColor": MUTED, "titleFontWeight": "normal", "labelFontSize": 12, "titleFontSize": 12, "orient": "top", "columns": 3},
    "header": {"labelColor": INK, "titleColor": MUTED},
}  # fmt: skip
WIDE = "container"
ROOM = 1.15  # of an axis, for what is written behind the longest bar
MOST_TICKS = 9  # of a logarithmic axis


def specifications(r: Review) -> dict[str, dict[str, Any]]:
    """Every chart that there is something to draw for, by its name."""
    makers: Mapping[str, Callable[[], Chart | None]] = {
        "hours": lambda: _hours(r.plan),
        "bridge": lambda: _bridge(r.plan),
        "service": lambda: _service(r.plan),
        "frontier": lambda: _frontier(r.frontier) if r.frontier else None,
        "curve": lambda: _curve(r.curve, r.plan) if r.curve else None,
        "curve-ttft": lambda: _curve_ttft(r.curve, r.plan) if r.curve else None,
        "staircase": lambda: _staircase(r.staircase) if r.staircase else None,
        "failure": lambda: _failure(r.failures) if r.failures else None,
        "tornado": lambda: _tornado(r) if r.sensitivity else None,
        "comparison": lambda: _comparison(r) if r.compared else None,
    }
    return {name: harmless(chart.to_dict() | {"config": CONFIG}) for name, make in makers.items() if (chart := make()) is not None}


def _ticks(values: Sequence[float]) -> list[float]:
    """Places on a logarithmic axis: 1, 2, 5, 10, … between the least and the most; whole powers of ten where these are many."""
    low, high = min(values), max(values)
    found = [m * 10.0**k for k in range(floor(log10(low)), ceil(log10(high)) + 1) for m in (1, 2, 5)]
    within = [v for v in found if low * 0.9 <= v <= high * 1.1]
    return within if len(within) <= MOST_TICKS else [v for v in within if log10(v) == round(log10(v))]


def _with_room(values: Sequence[float]) -> Any:
    """An axis from nothing to beyond the most, where the longest bar's figure stands."""
    import altair as alt

    return alt.Scale(domain=[0, ROOM * max(values)], nice=False)


def _described(chart: Chart, words: str, height: int) -> Chart:
    return chart.properties(width=WIDE, height=height, description=words)


def _bridge(plan: Plan) -> Chart | None:
    """A waterfall from the cheapest to the prudent plan."""
    import altair as alt

    if plan.prudent is None:
        return None
    rows, before = list[dict[str, object]](), 0.0
    for i, s in enumerate(plan.prudent.steps):
        if s.usd_per_hour is None:
            continue
        added = s.premium_usd_per_hour or 0.0
        label = money(s.usd_per_hour) if not i else f"+{money(added)}" if added else "nothing"
        rows.append({"term": s.term, "low": before if i else 0.0, "high": s.usd_per_hour, "label": label, "kind": "base" if not i else "added"})
        before = s.usd_per_hour
    if len(rows) < 2:
        return None
    rows.append({"term": "prudent plan", "low": 0.0, "high": before, "label": money(before), "kind": "base"})
    order = [str(r["term"]) for r in rows]
    base = alt.Chart(alt.InlineData(rows)).encode(y=alt.Y("term:N", sort=order, title=None, axis=alt.Axis(labelLimit=220, ticks=False, domain=False)))
    colour = alt.Color("kind:N", scale=alt.Scale(domain=["base", "added"], range=[ACCENT, SECOND]), legend=None)
    x = alt.X("low:Q", title="$ per hour", axis=alt.Axis(tickCount=6), scale=_with_room([float(str(r["high"])) for r in rows]))
    bars = base.mark_bar(height=16).encode(x=x, x2="high:Q", color=colour, tooltip=["term:N", "label:N"])
    text = base.mark_text(align="left", dx=6).encode(x="high:Q", text="label:N")
    return _described(bars + text, "What each term of prudence adds to the cost per hour", 28 * len(rows))


def _hours(plan: Plan) -> Chart | None:
    """What each hour costs, and what holding the peaks all day would."""
    import altair as alt

    if not plan.periods:
        return None
    last = plan.periods[-1]
    rows = [{"hour": p.hour, "usd": p.usd / p.hours, "gpus": p.gpus_held} for p in plan.periods]
    rows.append({"hour": last.hour + last.hours, "usd": last.usd / last.hours, "gpus": last.gpus_held})  # a step lasts to its end
    y = alt.Y("usd:Q", title="$ per hour", axis=alt.Axis(format="$,.0f", tickCount=5), scale=alt.Scale(zero=True))
    x = alt.X("hour:Q", title="hour", scale=alt.Scale(nice=False), axis=alt.Axis(tickCount=12))
    base = alt.Chart(alt.InlineData(rows)).encode(x=x, y=y)
    drawn = base.mark_area(interpolate="step-after", color=ZONE) + base.mark_line(interpolate="step-after", color=ACCENT, strokeWidth=2)
    drawn += base.mark_point(opacity=0, size=80).encode(tooltip=["hour:Q", alt.Tooltip("usd:Q", format=",.2f"), "gpus:Q"])
    if plan.flat and plan.flat.usd_per_hour is not None:
        flat = alt.Chart(alt.InlineData([{"usd": plan.flat.usd_per_hour, "text": "peaks held all day"}])).encode(y="usd:Q")
        drawn += flat.mark_rule(strokeDash=[4, 3]) + flat.mark_text(align="left", x=6, dy=-8).encode(text="text:N")
    return _described(drawn, "Cost of each hour against holding the peaks all day", 260)


def _service(plan: Plan) -> Chart | None:
    """Each prediction as a share of its limit."""
    import altair as alt

    many = len(plan.workloads) > 1
    rows = [
        {"limit": f"{words}{f', {name}' if many else ''}", "share": value / limit, "label": f"{latency(value)} of {latency(limit)}"}
        for name, words, limit, value in limit_rows(plan)
    ]
    if not rows:
        return None
    base = alt.Chart(alt.InlineData(rows)).encode(y=alt.Y("limit:N", sort=None, title=None, axis=alt.Axis(labelLimit=220, ticks=False, domain=False)))
    x = alt.X(
        "share:Q", title="of the limit", axis=alt.Axis(format="%", tickCount=5), scale=alt.Scale(domain=[0, max(1.15, *(float(str(r["share"])) for r in rows))])
    )
    bars = base.mark_bar(height=16, color=ACCENT).encode(x=x, tooltip=["limit:N", "label:N"])
    beside, within = (base.transform_filter(f"datum.share {side} 0.6") for side in ("<", ">="))  # what is long has no room behind it
    text = beside.mark_text(align="left", dx=6).encode(x=x, text="label:N")
    text += within.mark_text(align="right", dx=-6, color="var(--paper)").encode(x=x, text="label:N")
    rule = alt.Chart(alt.InlineData([{"at": 1.0}])).mark_rule(color=WARN, strokeWidth=1.5).encode(x="at:Q")
    return _described(bars + text + rule, "Predicted latency as a share of each limit", 34 * len(rows) + 10)


def _frontier(found: Frontier) -> Chart:
    """Cost against quality, a line for each limit of the third axis; a click in the legend picks one."""
    import altair as alt

    thirds = sorted({p.third for p in found.points}, key=abs)
    names = {t: latency(t) if found.axis in ("ttft", "tpot") else f"{digits(abs(t))} in flight" for t in thirds}
    rows = [
        {"quality": p.quality, "usd": p.usd_per_hour, "limit": names[p.third], "what": what(p.plan), "gpus": p.plan.gpus_held,
         "million": p.plan.cost.usd_per_million_output_tokens}
        for p in found.points
    ]  # fmt: skip
    x = alt.X(
        "quality:Q", scale=alt.Scale(zero=False, nice=False, padding=18), axis=alt.Axis(tickCount=7), title=f"{found.metric} of what serves {found.workload}"
    )
    y = alt.Y(
        "usd:Q",
        scale=alt.Scale(type="log", nice=False, padding=18),
        title="$ per hour",
        axis=alt.Axis(format="$,.0f", values=_ticks([p.usd_per_hour for p in found.points])),
    )
    seen = [alt.Tooltip("what:N", title="plan"), alt.Tooltip("quality:Q", format=".4f"), alt.Tooltip("usd:Q", title="$ per hour", format=",.2f"),
            alt.Tooltip("gpus:Q", title="GPUs held"), alt.Tooltip("million:Q", title="$ per M output", format=",.3f")]  # fmt: skip
    base = alt.Chart(alt.InlineData(rows)).encode(x=x, y=y)
    colours: list[Any] = [ACCENT] if len(thirds) == 1 else list(STEPS[-len(thirds) :]) if len(thirds) <= len(STEPS) else []
    if found.axis:
        seen.insert(0, alt.Tooltip("limit:N", title=_axis_words(found)))
        scale = alt.Scale(domain=[names[t] for t in thirds], range=colours) if colours else alt.Scale(domain=[names[t] for t in thirds])
        picked = alt.selection_point(fields=["limit"], bind="legend")
        base = base.encode(
            color=alt.Color("limit:N", scale=scale, title=_axis_words(found)), opacity=alt.condition(picked, alt.value(1), alt.value(0.12))
        ).add_params(picked)
    else:
        base = base.encode(color=alt.value(ACCENT))
    drawn = base.mark_line(interpolate="step-before", strokeWidth=1.5) + base.mark_point(filled=True, size=48).encode(tooltip=seen)
    if found.chosen is not None:
        one = alt.Chart(alt.InlineData([rows[found.chosen] | {"text": "chosen"}])).encode(x=x, y=y)
        drawn += one.mark_point(size=260, strokeWidth=2, color=INK) + one.mark_text(align="left", dx=14, dy=10, fontWeight=600).encode(text="text:N")
    return _described(drawn, "Cost of the cheapest plan at each quality; the table below holds every point", 340)


def _axis_words(found: Frontier) -> str:
    return f"{found.axis.upper()} limit" if found.axis in ("ttft", "tpot") else "requests in flight"


def _against_load(curve: CostCurve, plan: Plan, name: str, ends: tuple[str, str], y: Any) -> Chart:
    """A band and its line against the load, the zone shaded, the plan's load as a rule."""
    import altair as alt

    rows = [{k: getattr(p, k) for k in ("concurrency", name, *ends)} for p in curve.points]
    scale = alt.Scale(type="log", base=2, nice=False)
    x = alt.X("concurrency:Q", scale=scale, title="requests in flight on one replica", axis=alt.Axis(format=",d", tickCount=8))
    base = alt.Chart(alt.InlineData(rows))
    zone = [{"low": curve.zone.low, "high": curve.zone.high}] if curve.zone else []
    shade = alt.Chart(alt.InlineData(zone)).mark_rect(color=ZONE).encode(x=alt.X("low:Q", scale=scale), x2="high:Q")
    band = base.mark_area(opacity=0.18, color=ACCENT).encode(x=x, y=y, y2=f"{ends[1]}:Q")
    line = base.mark_line(color=ACCENT, strokeWidth=2).encode(x=x, y=alt.Y(f"{name}:Q"))
    dots = base.mark_point(color=ACCENT, filled=True, size=30).encode(
        x=x, y=alt.Y(f"{name}:Q"), tooltip=["concurrency:Q", alt.Tooltip(f"{name}:Q", format=",.3g")]
    )
    loads = [d.in_flight_per_replica for d in plan.deployments if d.checkpoint == curve.forecast.found.checkpoint.id and d.in_flight_per_replica]
    at = alt.Chart(alt.InlineData([{"at": v, "text": "the plan"} for v in loads[:1]])).encode(x=alt.X("at:Q", scale=scale))
    return shade + band + line + dots + at.mark_rule(strokeDash=[4, 3]) + at.mark_text(align="right", dx=-6, dy=-4, y=10, baseline="top").encode(text="text:N")


def _curve(curve: CostCurve, plan: Plan) -> Chart:
    """Dollars per million output tokens against load."""
    import altair as alt

    low, high = "usd_per_million_output_low", "usd_per_million_output_high"
    ticks = _ticks([v for p in curve.points for v in (p.usd_per_million_output_low, p.usd_per_million_output_high)])
    y = alt.Y(f"{low}:Q", scale=alt.Scale(type="log", nice=False, padding=8), title="$ per million output tokens", axis=alt.Axis(format="$,.3~r", values=ticks))
    found = _against_load(curve, plan, "usd_per_million_output", (low, high), y)
    return _described(found, "Cost per million output tokens against requests in flight; the zone worth running in is shaded", 240)


def _curve_ttft(curve: CostCurve, plan: Plan) -> Chart:
    """TTFT against load."""
    import altair as alt

    ticks = _ticks([v for p in curve.points for v in (p.ttft_low_ms, p.ttft_high_ms)])
    y = alt.Y("ttft_low_ms:Q", scale=alt.Scale(type="log", nice=False, padding=8), title="TTFT, ms", axis=alt.Axis(format=",.3~r", values=ticks))
    return _described(_against_load(curve, plan, "ttft_ms", ("ttft_low_ms", "ttft_high_ms"), y), "Time to first token against requests in flight", 180)


def _staircase(s: Staircase) -> Chart:
    """Cost along traffic; what is asked and what the plan carries as rules."""
    import altair as alt

    rows = [
        {"traffic": x.traffic, "usd": x.plan.usd_per_hour, "gpus": x.plan.gpus_held, "what": short(x.plan.deployments[0].checkpoint)}
        for x in s.stairs
        if x.plan
    ]
    x = alt.X("traffic:Q", scale=alt.Scale(nice=False, zero=False), title=f"traffic, {s.unit}")
    y = alt.Y("usd:Q", title="$ per hour", axis=alt.Axis(format="$,.0f", tickCount=5), scale=alt.Scale(zero=True))
    base = alt.Chart(alt.InlineData(rows)).encode(x=x, y=y)
    seen = [alt.Tooltip("traffic:Q", format=",.4g"), alt.Tooltip("usd:Q", title="$ per hour", format=",.2f"), "gpus:Q", "what:N"]
    drawn = base.mark_line(interpolate="step-before", color=ACCENT, strokeWidth=2) + base.mark_point(filled=True, size=26, color=ACCENT).encode(tooltip=seen)
    if s.carries is not None and s.carries < s.stairs[-1].traffic:
        room = alt.Chart(alt.InlineData([{"low": s.now, "high": s.carries}]))
        drawn = room.mark_rect(color=ZONE).encode(x=alt.X("low:Q"), x2="high:Q") + drawn
    for at, text, is_left in ((s.now, "asked for", True), (s.carries, "carried", False)):
        if at is None or at > s.stairs[-1].traffic:
            continue
        one = alt.Chart(alt.InlineData([{"at": at, "text": text}])).encode(x="at:Q")
        drawn += one.mark_rule(strokeDash=[4, 3])
        drawn += one.mark_text(align="right" if is_left else "left", dx=-6 if is_left else 6, y=8, baseline="top").encode(text="text:N")
    return _described(drawn, "Cost of the cheapest plan against traffic, with the headroom of this plan shaded", 280)


def _failure(found: tuple[Outage, ...]) -> Chart:
    """The share of requests inside all limits over time, for each plan; the time while something is down shaded."""
    import altair as alt

    shown = [o for o in found if o.what == "replica"]
    rows = [
        {"minute": at / 60, "inside": share, "plan": o.name}
        for o in shown
        for at, share in zip(o.simulation.series["at_s"], o.simulation.series["inside"], strict=True)
        if at is not None and share is not None
    ]
    first = shown[0]
    down = [{"low": first.fails_s / 60, "high": (first.back_s or first.simulation.seconds) / 60}]
    least = min(float(str(r["inside"])) for r in rows)
    y = alt.Y("inside:Q", title="requests inside all limits", axis=alt.Axis(format="%", tickCount=4), scale=alt.Scale(domain=[min(0.9, least), 1], nice=False))
    colour = alt.Color("plan:N", title=None, scale=alt.Scale(domain=[o.name for o in shown], range=[ACCENT, SECOND][: len(shown)]))
    line = (
        alt.Chart(alt.InlineData(rows))
        .mark_line(strokeWidth=1.5)
        .encode(x=alt.X("minute:Q", title="minutes", scale=alt.Scale(nice=False), axis=alt.Axis(tickCount=10)), y=y, color=colour)
    )
    shade = alt.Chart(alt.InlineData(down)).mark_rect(color=ZONE).encode(x="low:Q", x2="high:Q")
    return _described(shade + line, "Requests inside all limits before, while and after one replica is down", 220)


def _tornado(r: Review) -> Chart | None:
    """What each assumption moves the cost by."""
    import altair as alt

    assert r.sensitivity is not None
    cost = r.sensitivity.plan.cost.usd_per_hour
    rows = [
        {"assumption": b.assumption, "side": side, "value": value, "change": usd - cost}
        for b in r.sensitivity.blades
        for side, value, usd in (("a fifth lower", b.low, b.low_usd_per_hour), ("a fifth higher", b.high, b.high_usd_per_hour))
        if usd is not None
    ]
    if not rows:
        return None
    order = [b.assumption for b in r.sensitivity.blades]
    sides = alt.Color("side:N", title=None, scale=alt.Scale(domain=["a fifth lower", "a fifth higher"], range=[SECOND, ACCENT]))
    seen = ["assumption:N", "side:N", "value:N", alt.Tooltip("change:Q", title="$ per hour", format="+,.2f")]
    y = alt.Y("assumption:N", sort=order, title=None, axis=alt.Axis(labelLimit=220, ticks=False, domain=False))
    x = alt.X("change:Q", title=f"$ per hour against {money(cost)}", axis=alt.Axis(format="+,.0f", tickCount=8))
    bars = alt.Chart(alt.InlineData(rows)).mark_bar(height=14).encode(x=x, y=y, color=sides, tooltip=seen)
    return _described(bars, "What each assumption moves the cost per hour by", 26 * len(order))


def _comparison(r: Review) -> Chart | None:
    """Costs side by side."""
    import altair as alt

    rows = [
        {"scenario": c.name, "usd": c.usd_per_hour, "label": money(c.usd_per_hour), "first": not i}
        for i, c in enumerate(r.compared)
        if c.usd_per_hour is not None
    ]
    if not rows:
        return None
    y = alt.Y("scenario:N", sort=None, title=None, axis=alt.Axis(labelLimit=220, ticks=False, domain=False))
    base = alt.Chart(alt.InlineData(rows)).encode(y=y)
    bars = base.mark_bar(height=16).encode(
        x=alt.X("usd:Q", title="$ per hour", axis=alt.Axis(tickCount=6), scale=_with_room([c.usd_per_hour or 0.0 for c in r.compared])),
        color=alt.condition("datum.first", alt.value(ACCENT), alt.value(SECOND)),
    )
    return _described(bars + base.mark_text(align="left", dx=6).encode(x="usd:Q", text="label:N"), "Cost per hour of each scenario", 28 * len(rows))
