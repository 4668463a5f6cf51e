"""Charts of studies as Altair objects, for notebooks and pages. Altair is imported only when a chart is drawn (extra ``charts``)."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING

from planner.errors import PlannerError
from planner.report.drawing import Chart

if TYPE_CHECKING:
    from planner.bench.points import MeasuredPoint
    from planner.catalog.ownership import OwnedGpu
    from planner.economics.compare import Compared
    from planner.economics.curve import CostCurve
    from planner.economics.frontier import Frontier
    from planner.economics.sensitivity import Sensitivity
    from planner.economics.speed import SpeedFrontier
    from planner.economics.store import Result
    from planner.economics.sweep import Sweep
    from planner.result.plan import Plan
    from planner.simulation.results import Simulation
    from planner.validation.predictions import RowPrediction


def cost_chart(curve: CostCurve) -> Chart:
    """Cost per million output tokens and TTFT against requests in flight, the zone shaded; bands as areas."""
    import altair as alt

    points = alt.InlineData(curve.to_dict()["points"])
    load = alt.X("concurrency:Q", scale=alt.Scale(type="log", base=2, nice=False, padding=8), title="requests in flight")

    def panel(name: str, low: str, high: str, title: str) -> Chart:
        scale = alt.Scale(type="log", nice=False, padding=8)
        base = alt.Chart(points, width=480, height=200)
        area = base.mark_area(opacity=0.2).encode(x=load, y=alt.Y(f"{low}:Q", scale=scale, title=title), y2=f"{high}:Q")
        line = base.mark_line(point=True).encode(x=load, y=alt.Y(f"{name}:Q", scale=scale, title=title), tooltip=["concurrency:Q", f"{name}:Q"])
        return shade + area + line

    zone = [{"low": curve.zone.low, "high": curve.zone.high}] if curve.zone else []
    ends = alt.X("low:Q", scale=alt.Scale(type="log", base=2, nice=False, padding=8))
    shade = alt.Chart(alt.InlineData(zone)).mark_rect(color="seagreen", opacity=0.15).encode(x=ends, x2="high:Q")
    million = "usd_per_million_output"
    found = panel(million, f"{million}_low", f"{million}_high", "$ per million output tokens") & panel("ttft_ms", "ttft_low_ms", "ttft_high_ms", "TTFT, ms")
    f = curve.forecast
    return found.properties(title=f"{f.found.checkpoint.id} on {f.question.replica.gpus} x {f.found.gpu.name}")


def speed_chart(frontier: SpeedFrontier) -> Chart:
    """Tokens/s per GPU (or dollars per million output tokens) against tokens/s per user, by GPU and TP."""
    import altair as alt

    name, title = ("usd_per_million_output", "$ per million output tokens") if frontier.by == "cost" else ("tps_per_gpu", "tokens/s per GPU")
    points = [{**p, "replica": f"{p['gpu']} TP{p['tp']}"} for p in frontier.to_dict()["points"]]
    x = alt.X("tps_per_user:Q", scale=alt.Scale(type="log", nice=False, padding=8), title="tokens/s per user")
    y = alt.Y(f"{name}:Q", scale=alt.Scale(type="log", nice=False, padding=8), title=title)
    what = f"{frontier.model}: {frontier.input_tokens:,} tokens in, {frontier.output_tokens:,} out"
    base = alt.Chart(alt.InlineData(points), width=480, height=320, title=what)
    seen = ["checkpoint:N", "replica:N", "engine:N", "concurrency:Q", "ttft_ms:Q", "tps_per_user:Q", "tps_per_gpu:Q", "usd_per_million_output:Q"]
    return base.mark_line(color="lightgrey").encode(x=x, y=y) + base.mark_point(filled=True).encode(x=x, y=y, color="replica:N", tooltip=seen)


def ownership_chart(gpu: OwnedGpu, rent_usd_per_hour: float | None = None) -> Chart:
    """What an hour of an owned GPU costs against its utilisation, in its parts; the rent as a line."""
    from dataclasses import replace

    import altair as alt

    from planner.catalog.ownership import hourly_cost

    shares = [i / 50 for i in range(5, 51)]
    costs = [(u, hourly_cost(replace(gpu, utilization=u))) for u in shares]
    parts = {"depreciation": "depreciation_usd", "maintenance": "maintenance_usd", "energy": "energy_usd"} | ({"other": "other_usd"} if gpu.yearly_usd else {})
    rows = [{"utilisation": u, "part": part, "usd_per_hour": getattr(c, name)} for u, c in costs for part, name in parts.items()]
    x, y = alt.X("utilisation:Q", axis=alt.Axis(format="%")), alt.Y("usd_per_hour:Q", title="$ per GPU-hour")
    base = alt.Chart(alt.InlineData(rows), width=480, height=240)
    owning = base.mark_area().encode(x=x, y=y, color="part:N", tooltip=["utilisation:Q", "part:N", "usd_per_hour:Q"])
    rent = [{"usd_per_hour": rent_usd_per_hour}] if rent_usd_per_hour is not None else []
    return owning + alt.Chart(alt.InlineData(rent)).mark_rule(strokeDash=[4, 4]).encode(y="usd_per_hour:Q")


def _third(axis: str) -> Chart:
    """The third axis of a frontier as colour."""
    import altair as alt

    return alt.Color("concurrency:O", title="in flight") if axis == "concurrency" else alt.Color(f"{axis}_limit_ms:O", title=f"{axis.upper()} limit, ms")


def frontier_chart(found: Frontier) -> Chart:
    """Cost against quality as steps, one line for each limit of a third axis."""
    import altair as alt

    from planner.report.studies import frontier_rows

    rows = frontier_rows(found)
    x = alt.X("quality:Q", scale=alt.Scale(zero=False, nice=False, padding=16), title=f"{found.metric} of what serves {found.workload}")
    y = alt.Y("usd_per_hour:Q", scale=alt.Scale(type="log", nice=False, padding=16), title="$ per hour")
    base = alt.Chart(alt.InlineData(rows), width=480, height=320, title="Cost-quality frontier").encode(x=x, y=y)
    if found.axis:
        base = base.encode(color=_third(found.axis))
    seen = ["quality:Q", "usd_per_hour:Q", "what:N"]
    drawn = base.mark_line(interpolate="step-before") + base.mark_point(filled=True, opacity=1).encode(tooltip=seen)
    if found.chosen is None:
        return drawn
    one = alt.Chart(alt.InlineData([{**rows[found.chosen], "text": "chosen"}])).encode(x=x, y=y)
    ring = one.mark_point(size=220, strokeWidth=2, color="black").encode(tooltip=seen)
    return drawn + ring + one.mark_text(align="left", dx=14, fontWeight="bold").encode(text="text:N")


def models_chart(found: Sequence[tuple[str, Result]]) -> Chart:
    """Every model alone at one load: quality against cost; named where no cheaper one is better."""
    import altair as alt

    from planner.report.studies import models_rows

    rows = [r for r in models_rows(found) if r["quality"] is not None]
    base = alt.Chart(alt.InlineData(rows), width=560, height=360, title="Models at this load; named where no cheaper one is better").encode(
        x=alt.X("usd_per_hour:Q", scale=alt.Scale(type="log", nice=False, padding=70), title="$ per hour"),
        y=alt.Y("quality:Q", scale=alt.Scale(zero=False, nice=False, padding=12)),
    )
    points = base.mark_point(filled=True, opacity=1, size=50).encode(
        color=alt.condition("datum.is_on_frontier", alt.value("#f58518"), alt.value("#9ab5d1")), tooltip=["model:N", "quality:Q", "usd_per_hour:Q", "what:N"]
    )
    return points + base.transform_filter("datum.is_on_frontier").mark_text(align="right", dx=-7).encode(text="model:N")


def hours_chart(plan: Plan) -> Chart:
    """Traffic, replicas and cost by the hour; what the flat plan would cost as a line."""
    import altair as alt

    hours, flat = len(plan.periods), plan.flat.usd_per_hour if plan.flat else None
    x = alt.X("hour:Q", title="hour", scale=alt.Scale(domain=[0, hours], nice=False))
    ends = [*plan.periods, plan.periods[-1].model_copy(update={"hour": hours})]  # a step lasts to the end of its hour

    def panel(rows: list[dict[str, object]], title: str, series: str) -> Chart:
        base = alt.Chart(alt.InlineData(rows), width=560, height=130)
        colour = alt.Color("name:N", title=series, legend=alt.Legend(labelLimit=260))
        return base.mark_line(interpolate="step-after").encode(x=x, y=alt.Y("value:Q", title=title), color=colour, tooltip=["hour:Q", "name:N", "value:Q"])

    traffic = [{"hour": h.hour, "name": w.name, "value": w.rates[min(h.hour, hours - 1)]} for h in ends for w in plan.workloads]
    traffic += [{"hour": h.hour, "name": f"{n} at APIs", "value": plan.at_apis(n, h)} for h in ends for n in dict.fromkeys(a.workload for a in plan.hosted)]
    names = [f"#{i + 1} {d.checkpoint.split('/')[-1]}" for i, d in enumerate(plan.deployments)]
    replicas = [{"hour": h.hour, "name": n, "value": c.replicas} for h in ends for n, c in zip(names, h.deployments, strict=True)]
    cost = [{"hour": h.hour, "name": "by the hour", "value": h.usd} for h in ends]
    cost += [
        {"hour": h.hour, "name": "the same all day" if plan.scenario.policy.api != "none" else "peaks held all day", "value": flat}
        for h in ends
        if flat is not None
    ]
    units = {"concurrency" if w.demand.kind == "concurrency" else "qps" for w in plan.workloads}
    title = "requests in flight" if units == {"concurrency"} else "req/s" if units == {"qps"} else "req/s or in flight"
    panels = panel(traffic, title, "traffic"), panel(replicas, "replicas", "deployments"), panel(cost, "$ per hour", "cost")
    found = alt.vconcat(*panels).resolve_scale(color="independent")
    return found.properties(title=f"${24 * plan.cost.usd_per_hour:,.2f} per day")


def simulation_chart(found: Simulation) -> Chart:
    """What happened over time: arrivals, share inside all limits, requests in flight and waiting, KV cache, answer tokens/s."""
    import altair as alt

    from planner.report.simulate import LINES

    times = found.series["at_s"]
    most, scale, unit = max((t for t in times if t is not None), default=0.0), 1.0, "seconds"
    if most > 6000:
        scale, unit = 3600.0, "hours"

    def panel(name: str, title: str) -> Chart:
        rows = [{"time": t / scale, "value": v} for t, v in zip(times, found.series[name], strict=True) if t is not None and v is not None]
        share, last = name in ("inside", "kv_used"), name == list(LINES)[-1]
        x = alt.X("time:Q", title=unit if last else None, axis=alt.Axis(labels=last, ticks=last), scale=alt.Scale(nice=False))
        axis = alt.Axis(format="%" if share else ",.3~r", tickCount=4)
        y = alt.Y("value:Q", title=title.split(", "), axis=axis, scale=alt.Scale(domain=[0, 1]) if share else alt.Scale())
        return alt.Chart(alt.InlineData(rows), width=600, height=80).mark_line(strokeWidth=1.5).encode(x=x, y=y, tooltip=["time:Q", "value:Q"])

    verdict = "every limit holds" if found.met else "a limit is missed"
    return alt.vconcat(*(panel(k, words) for k, words in LINES.items())).properties(title=f"{found.requests:,} requests: {verdict}")


def sweep_chart(found: Sweep) -> Chart:
    """The staircase of one axis, coloured by what serves; a map of two."""
    import altair as alt

    from planner.report.studies import sweep_rows

    # Names with a colon or dot would be read as types and paths.
    names = {a.name: a.name.replace(":", " of ").replace(".", " ") for a in found.axes}
    rows = [{names.get(k, k): v for k, v in r.items()} for r in sweep_rows(found) if "usd_per_hour" in r]
    scale = [alt.Scale(type="log", nice=False, padding=8) if a.is_geometric else alt.Scale(zero=False) for a in found.axes]
    seen = [*(f"{n}:Q" for n in names.values()), "usd_per_hour:Q", "what:N"]
    first = list(names.values())
    if len(found.axes) == 1:
        base = alt.Chart(alt.InlineData(rows), width=560, height=320, title=f"Cost along {first[0]}")
        base = base.encode(x=alt.X(f"{first[0]}:Q", scale=scale[0]), y=alt.Y("usd_per_hour:Q", title="$ per hour"))
        return base.mark_line(color="lightgrey") + base.mark_point(filled=True).encode(
            color=alt.Color("structure:N", title="", legend=alt.Legend(orient="bottom", columns=1, labelLimit=600)), tooltip=seen
        )
    short = alt.Axis(labelExpr="format(datum.value, '.4~g')", labelAngle=0)
    base = alt.Chart(alt.InlineData(rows), width=480, height=320, title=f"Cost over {first[0]} and {first[1]}, $ per hour").encode(
        x=alt.X(f"{first[1]}:O", axis=short), y=alt.Y(f"{first[0]}:O", sort="descending", axis=short), tooltip=seen
    )
    cells = base.mark_rect().encode(color=alt.Color("usd_per_hour:Q", scale=alt.Scale(type="log", scheme="blues"), legend=None))
    costs = [r.cost for r in found.results if r.plan]
    dark = (min(costs) * max(costs)) ** 0.5 if costs else 0.0  # the middle of the colours
    white = alt.condition(f"datum.usd_per_hour > {dark:g}", alt.value("white"), alt.value("black"))
    return cells + base.mark_text().encode(text=alt.Text("usd_per_hour:Q", format=",.2f"), color=white)


def tornado_chart(found: Sensitivity) -> Chart:
    """What each assumption moves the cost by, the widest on top."""
    import altair as alt

    cost = found.plan.cost.usd_per_hour
    rows = [
        {"assumption": b.assumption, "side": side, "value": value, "change": usd - cost}
        for b in found.blades
        for side, value, usd in (("low", b.low, b.low_usd_per_hour), ("high", b.high, b.high_usd_per_hour))
        if usd is not None
    ]
    order = [b.assumption for b in found.blades]
    base = alt.Chart(alt.InlineData(rows), width=480, title=f"What moves ${cost:,.2f}/h")
    return base.mark_bar().encode(
        x=alt.X("change:Q", title="$ per hour more"),
        y=alt.Y("assumption:N", sort=order, title=""),
        color="side:N",
        tooltip=["assumption:N", "side:N", "value:N", "change:Q"],
    )


def comparison_chart(found: Sequence[Compared]) -> Chart:
    """Costs side by side."""
    import altair as alt

    rows = [{"scenario": c.name, "usd_per_hour": c.usd_per_hour, "why": c.why} for c in found if c.usd_per_hour is not None]
    base = alt.Chart(alt.InlineData(rows), width=480, title="Scenarios").encode(
        x=alt.X("usd_per_hour:Q", title="$ per hour"), y=alt.Y("scenario:N", sort=None, title=""), tooltip=["scenario:N", "usd_per_hour:Q", "why:N"]
    )
    return base.mark_bar() + base.mark_text(align="left", dx=4).encode(text=alt.Text("usd_per_hour:Q", format="$,.2f"))


def validation_chart(points: Sequence[MeasuredPoint], answers: Sequence[RowPrediction]) -> Chart:
    """Predicted against measured, both logarithmic, a panel for each metric: bands upright, and the line where both are equal.
    Raises PlannerError where there is nothing to draw."""
    import altair as alt

    from planner.report.validate import load_name, row_name
    from planner.validation.compare import METRICS, pairs

    rows = [
        {
            "metric": METRICS[pair.metric], "measured": pair.measured, "predicted": pair.predicted, "low": pair.low or pair.predicted,
            "high": pair.high if pair.high and isfinite(pair.high) else pair.predicted, "tier": answer.tier, "row": row_name(point), "load": load_name(point),
        }
        for point, answer in zip(points, answers, strict=True)
        for pair in pairs(point, answer)
    ]  # fmt: skip

    def panel(metric: str) -> Chart:
        own = [r for r in rows if r["metric"] == metric]
        ends = [float(str(r[k])) for r in own for k in ("measured", "predicted")]
        scale = alt.Scale(type="log", nice=False, padding=8)
        x = alt.X("measured:Q", scale=scale, title=f"measured {metric}" + ("" if metric == "tokens/s" else ", ms"))
        base = alt.Chart(alt.InlineData(own), width=260, height=260)
        same = alt.Chart(alt.InlineData([{"measured": e, "predicted": e} for e in (min(ends), max(ends))])).mark_line(color="grey", strokeDash=[4, 4])
        band = base.mark_rule(opacity=0.4).encode(x=x, y=alt.Y("low:Q", scale=scale, title="predicted"), y2="high:Q", color="tier:N")
        dots = base.mark_point(filled=True).encode(
            x=x, y=alt.Y("predicted:Q", scale=scale), color="tier:N", tooltip=["row:N", "load:N", "measured:Q", "predicted:Q", "low:Q", "high:Q"]
        )
        return same.encode(x=x, y=alt.Y("predicted:Q", scale=scale)) + band + dots

    panels = [panel(metric) for metric in dict.fromkeys(str(r["metric"]) for r in rows)]
    if not panels:
        raise PlannerError("there is nothing to draw: no row is both measured and predicted", "--chart")
    return alt.concat(*panels, columns=3).properties(title="Predicted against measured; bars: the band")
