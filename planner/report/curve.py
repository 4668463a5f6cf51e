"""A cost curve, and the frontier of one model, as tables, bars in text, CSV and JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import groupby
from math import log2

from planner.catalog.replica_type import ReplicaType
from planner.economics.curve import PERCENTILE, CostCurve, CurvePoint
from planner.economics.speed import SpeedFrontier, SpeedPoint
from planner.report.predict import band, bars, ms
from planner.report.sections import Grid, Section, unit_money

BAR = 16
MARKS = {"ttft": "late", "speed": "slow"}
WORDS = {"ttft": "TTFT is over the limit", "speed": "users are too slow", "cost": "a token is more than a tenth dearer"}


def formatted(found: CostCurve | SpeedFrontier, form: str) -> str:
    """A curve (one row per load) or a frontier (one row per point) as text in one of the formats."""
    if form == "json":
        return json.dumps(found.to_dict(), indent=1) + "\n"
    from planner.report import render

    if form == "csv":
        rows = [{k: " ".join(v) if isinstance(v, tuple) else v for k, v in asdict(p).items()} for p in found.points]
        return render.csv_text(list(rows[0]) if rows else [], [list(r.values()) for r in rows])
    sections = curve_sections(found) if isinstance(found, CostCurve) else frontier_sections(found)
    return render.markdown(sections) if form == "markdown" else render.terminal(sections)


# ---- cost curve


def curve_sections(c: CostCurve) -> list[Section]:
    """The curve, its zone, the same as bars, and what too little traffic costs."""
    return [_curve(c), _zone(c), _bars(c), _offered(c), _evidence(c)]


def _curve(c: CostCurve) -> Section:
    f, q = c.forecast, c.forecast.question
    shape = q.replica.words
    what = f"{f.found.checkpoint.id} ({f.found.checkpoint.precision}) on {q.replica.gpus} x {f.found.gpu.name}, {shape}, {f.found.engine}"
    price = f"{unit_money(c.usd_per_hour)}/h for the replica, {unit_money(c.usd_per_gpu_hour)} per GPU: {c.price}."
    lengths = f"Closed loop, {q.isl:,} tokens in and {q.osl:,} out per request; means. Marginal cost and elasticity are over the last doubling of load."
    header = ("requests", "TTFT", "TPOT", "t/s/user", "t/s/GPU", "$/1k req", "$/M out", "marginal $/M", "elasticity", "")
    rows = tuple(
        (
            f"{p.concurrency:,}", ms(p.ttft_ms), ms(p.tpot_ms), f"{p.tps_per_user:,.3g}", f"{p.tps_per_gpu:,.0f}", unit_money(p.usd_per_request * 1000),
            unit_money(p.usd_per_million_output), unit_money(p.marginal_usd_per_million_output),
            "-" if p.elasticity is None else f"{p.elasticity:.2f}", _mark(p, c),
        )
        for p in c.points
    )  # fmt: skip
    return Section("Cost curve", (f"{what}.", price, lengths, *f.notes), Grid(header, rows, header[:-1]))


def _mark(p: CurvePoint, c: CostCurve) -> str:
    """What to think of a load."""
    words = [MARKS[b] for b in p.broken] or (["best" if c.zone and p.concurrency == c.zone.best else "zone"] if p.in_zone else [])
    return ", ".join([*words, *(["saturated"] if c.saturation is not None and p.concurrency == c.saturation else [])])


def _zone(c: CostCurve) -> Section:
    limits = f"at least {c.limits.min_tps_per_user:g} tokens/s per user, TTFT at most {ms(c.limits.max_ttft_s * 1000)}"
    saturation = (
        f"Saturation at {c.saturation:,} requests: from there on, doubling the load brings less than a tenth more throughput."
        if c.saturation is not None
        else "No saturation: at the last load, doubling still brings a tenth more throughput or more."
    )
    z = c.zone
    if z is None:
        return Section("Optimal cost-effectiveness zone", (f"None: {c.why} ({limits}).", saturation))
    best = next(p for p in c.points if p.concurrency == z.best)
    lines = [
        f"{z.low:,} to {z.high:,} requests in flight ({limits}); cheapest at {z.best:,}: {unit_money(best.usd_per_million_output)} per million output tokens."
    ]
    lines.append(
        "Below it a token costs "
        + (f"{z.premium_half:+.0%} at half of its lower end, " if z.premium_half is not None else "")
        + f"{_times(z.premium_first)} with one request."
    )
    last = c.points[-1].concurrency
    if z.ends == ("end",):
        lines.append("Above it the KV cache has no room." if last == c.forecast.slots else f"Engines admit no more than {last:,} by default.")
    else:
        saved = f"save {z.saved_last:.0%}" if z.saved_last >= 0.005 else "save next to nothing"
        lines.append(f"Above it {' and '.join(WORDS[e] for e in z.ends)}; {last:,} requests would {saved}, each taking {z.slower_last:.2g} times as long.")
    sure = (
        f"At the upper ends of the bands the limits hold up to {c.sure_to:,} requests." if c.sure_to else "At the upper ends of the bands they hold at no load."
    )
    return Section("Optimal cost-effectiveness zone", (*lines, sure, saturation))


def _times(premium: float) -> str:
    return f"{premium:+.0%}" if premium < 1 else f"{premium + 1:.3g} times as much"


def _bars(c: CostCurve) -> Section:
    """Cost and TTFT against the load with their bands, the zone marked."""
    cost, ttft = bars([p.usd_per_million_output for p in c.points], BAR), bars([p.ttft_ms for p in c.points], BAR)
    rows = tuple(
        (
            f"{p.concurrency:,}", "┃" if p.in_zone else "", f"{m} {unit_money(p.usd_per_million_output)}",
            f"{p.usd_per_million_output_low:.3g}-{p.usd_per_million_output_high:.3g}", f"{t} {ms(p.ttft_ms)}", band(p.ttft_low_ms, p.ttft_high_ms),
        )
        for p, m, t in zip(c.points, cost, ttft, strict=True)
    )  # fmt: skip
    lines = (f"Each end of a band holds {c.forecast.question.confidence:.0%} of measurements.",)
    header = ("requests", "zone", "$ per million output tokens", "band", "TTFT", "TTFT band")
    return Section("Cost and TTFT against load", lines, Grid(header, rows, header[:1]))


def _offered(c: CostCurve) -> Section:
    within = (
        f"Both limits hold at p{PERCENTILE:g} up to {c.qps_within_limits:.3g} req/s."
        if c.qps_within_limits
        else f"Both limits hold at p{PERCENTILE:g} at no rate."
    )
    header = ("req/s", "of all it can serve", "in flight", "TTFT", "TTFT p95", "TPOT", "$/M out", "penalty")
    rows = tuple(
        (
            f"{o.qps:.3g}", f"{o.load:.1%}", "-" if o.in_flight is None else f"{o.in_flight:,.3g}",
            *("-" if x is None else ms(x) for x in (o.ttft_ms, o.ttft_p95_ms, o.tpot_ms)), unit_money(o.usd_per_million_output), f"x{o.penalty:.3g}",
        )
        for o in c.offered
    )  # fmt: skip
    return Section("One replica under Poisson traffic", (f"Penalty: cost of a token over that at full use. {within}",), Grid(header, rows, header))


def _evidence(c: CostCurve) -> Section:
    return Section("Evidence", (f"{c.forecast.tier}: {c.forecast.source}, {c.forecast.as_of}.",))


# ---- frontier of one model


def frontier_sections(f: SpeedFrontier) -> list[Section]:
    """Stretches of the frontier on one replica type, then bars."""
    worth = "$ per million output tokens" if f.by == "cost" else "tokens/s per GPU"
    lines = (
        f"{f.model}: nothing else serves users faster at as good {worth}. {f.input_tokens:,} tokens in and {f.output_tokens:,} out; means of closed loops.",
        "; ".join(f"{p.precision}: {p.checkpoint}" for p in {p.checkpoint: p for p in f.points}.values()) + ".",
        f"{f.replica_types:,} replica types at {f.tried:,} loads; {f.late:,} have TTFT over {ms(f.max_ttft_s * 1000)}.",
    )
    header = ("tokens/s/user", "tokens/s/GPU", "$/M out", "requests", "precision", "replica", "engine", "TTFT", "tier")
    stretches = [list(group) for _, group in groupby(f.points, key=lambda p: (p.checkpoint, p.gpu, p.tp, p.engine))]
    return [Section("Frontier of one model", lines, Grid(header, tuple(_stretch(s) for s in stretches), header[:4])), _speed_bars(f, worth)]


def _stretch(s: list[SpeedPoint]) -> tuple[str, ...]:
    p, last, ttft = s[0], s[-1], [x.ttft_ms for x in s]
    cost = unit_money(p.usd_per_million_output) + (f"-{last.usd_per_million_output:,.3g}" if len(s) > 1 else "")
    return (
        _span(p.tps_per_user, last.tps_per_user), _span(p.tps_per_gpu, last.tps_per_gpu), cost, _span(p.concurrency, last.concurrency),
        p.precision, f"{ReplicaType(p.tp, ep=p.ep).words} {p.gpu}", p.engine, band(min(ttft), max(ttft)) if len(s) > 1 else ms(p.ttft_ms), p.tier,
    )  # fmt: skip


def _span(first: float, last: float) -> str:
    a, b = (f"{x:,.0f}" if x >= 100 else f"{x:.3g}" for x in (first, last))
    return a if a == b else f"{a}-{b}"


def _speed_bars(f: SpeedFrontier, worth: str) -> Section:
    """The last point of every half doubling of speed."""
    kept = [p for p, q in zip(f.points, (*f.points[1:], None)) if q is None or int(2 * log2(p.tps_per_user)) != int(2 * log2(q.tps_per_user))]
    values = [p.usd_per_million_output if f.by == "cost" else p.tps_per_gpu for p in kept]
    cells = [unit_money(v) if f.by == "cost" else f"{v:,.0f}" for v in values]
    rows = tuple((f"{p.tps_per_user:.3g}", f"{b} {c}") for p, b, c in zip(kept, bars(values, BAR) if values else [], cells, strict=True))
    return Section("Against speed", grid=Grid(("tokens/s per user", worth), rows, ("tokens/s per user",)))
