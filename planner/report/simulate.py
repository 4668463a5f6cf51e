"""A simulation as tables and charts in the terminal, JSON, CSV and Markdown."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from planner.figures import digits
from planner.report.predict import ms
from planner.report.sections import Grid, Section, unit_money
from planner.simulation.results import LimitResult, SimulatedWorkload, Simulation, Waited, rows

CHART = 72  # columns of a time series
BLOCKS = " ▁▂▃▄▅▆▇█"
LINES = {
    "arrived_qps": "arrivals, req/s", "inside": "inside all limits", "running": "requests in flight", "waiting": "requests waiting", "kv_used": "KV cache used",
    "output_tps": "answer tokens/s",
}  # fmt: skip


def formatted(found: Simulation, form: str) -> str:
    """The simulation as text in one of the formats. CSV holds one row per workload and metric."""
    if form == "json":
        return json.dumps(found.to_dict(), indent=1) + "\n"
    from planner.report import render

    if form == "csv":
        table = rows(found)
        header = list(dict.fromkeys(k for row in table for k in row))
        return render.csv_text(header, [[row.get(k, "") for k in header] for row in table])
    sections = simulation_sections(found)
    return render.markdown(sections) if form == "markdown" else render.terminal(sections)


def simulation_sections(found: Simulation) -> list[Section]:
    """Verdict, service, use of replicas, series."""
    missed = [f"{w.name} {_limit(s)}" for w in found.workloads for s in w.slo if not s.met]
    missed += [f"{w.name} {_lateness(w)}" for w in found.waiting if not w.met]
    verdict = "Every limit holds." if found.met else f"Missed: {'; '.join(missed)}."
    surer = "as expected" if found.confidence == 0.5 else f"that hold for {found.confidence:.0%}"
    waits = f"{sum(w.requests for w in found.waiting):,} requests that may wait"
    counted = f"{found.requests:,} requests counted, {found.arrivals}" if found.workloads else waits
    beside = f", and {waits}" if found.workloads and found.waiting else ""
    what = f"{counted}{beside}, over {_time(found.seconds)}; step times {surer}; router {found.router}; seed {found.seed}."
    failed = (f"Failures: {', '.join(found.failures)}.",) if found.failures else ()
    cost = found.usd_per_million_output_tokens, found.usd_per_million_good_output_tokens
    money = f"{unit_money(cost[0])} per million output tokens as served, {unit_money(cost[1])} per million of requests inside their limits."
    return [
        Section("Simulation", (verdict, what, *failed, money)),
        *([_service(found)] if found.workloads else []),
        *([_waiting(found)] if found.waiting else []),
        _use(found),
        _series(found),
    ]


def _lateness(w: Waited) -> str:
    """How many are late, and by how much."""
    late = f"{w.late:,} of {w.requests:,} done late, {_span(w.mean_late_s)} in the mean, {_span(-(w.spare_s or 0.0))} at most" if w.late else ""
    never = f"{w.unfinished:,} of {w.requests:,} never done" if w.unfinished else ""
    return " and ".join(filter(None, (late, never)))


def _span(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds < 120 else f"{seconds / 60:,.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def _clock(seconds: float) -> str:
    day, rest = divmod(int(seconds), 86400)
    return f"{rest // 3600:02d}:{rest % 3600 // 60:02d}" + (f" of day {day + 1}" if day else "")


def _waiting(found: Simulation) -> Section:
    """What became of requests that wait for spare capacity."""
    lines = (
        "Handed out at the start of the hours planned for them; they take what other requests leave free. Hours worked: of their replicas, in hours with some.",
    )
    table = []
    for w in found.waiting:
        last = "-" if w.last_s is None else _clock(w.last_s)
        busy = [b for b, n in zip(w.busy_by_hour, w.handed_by_hour, strict=True) if n]
        spare = "-" if w.spare_s is None else _span(w.spare_s) if w.spare_s >= 0 else f"{_span(-w.spare_s)} late"
        worked = f"{min(busy):.0%} to {max(busy):.0%}" if busy else "-"
        table.append((w.name, f"{w.requests:,}", f"{w.done:,}", f"{w.late:,}", f"{w.unfinished:,}", last, spare, worked, "holds" if w.met else "MISSED"))
    header = ("waiting work", "requests", "done", "late", "never", "last done", "least spare", "hours worked", "")
    return Section("Waiting work", lines, Grid(header, tuple(table), header[1:]))


def _limit(s: LimitResult) -> str:
    value = f" is {ms(s.value_ms)}" if s.value_ms is not None else ""
    return f"{s.metric.upper()} p{s.percentile:g}{value}, limit {ms(s.limit_ms)}"


def _time(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds < 6000 else f"{seconds / 3600:,.1f} h"


def _service(found: Simulation) -> Section:
    lines = tuple(
        f"{w.name}: {w.attainment:.2%}{_width(w.half_width)} of requests inside all their limits; {digits(w.qps)} req/s, goodput {digits(w.goodput_qps)} req/s."
        for w in found.workloads
    )
    header = ("workload", "metric", "limit", "inside", "", "mean", "p50", "p90", "p95", "p99")
    return Section("Service", lines, Grid(header, tuple(r for w in found.workloads for r in _service_rows(w)), header[3:]))


def _width(half: float | None) -> str:
    return "" if half is None else f" ± {half:.2%}"


def _service_rows(w: SimulatedWorkload) -> list[tuple[str, ...]]:
    table: list[tuple[str, ...]] = []
    for metric in ("ttft", "tpot", "itl", "e2e"):
        values, limits = getattr(w, f"{metric}_ms"), [s for s in w.slo if s.metric == metric]
        if metric == "itl" and not limits:
            continue
        cells = tuple(ms(values[k]) if k in values else "-" for k in ("mean", "p50", "p90", "p95", "p99"))
        for i, s in enumerate(limits or [None]):
            held = ("-", "-", "") if s is None else _held(s)
            table.append((w.name if not table else "", metric.upper() if i == 0 else "", *held, *cells))
    return table


def _held(s: LimitResult) -> tuple[str, str, str]:
    return f"p{s.percentile:g} {ms(s.limit_ms)}", f"{s.within:.2%}{_width(s.half_width)}", "holds" if s.met else "MISSED"


def _use(found: Simulation) -> Section:
    table = tuple(
        (
            d.name, f"{d.replicas}", f"{d.utilization:.0%}", f"{d.in_flight_per_replica:,.3g}", f"{d.kv_peak:.0%}",
            f"{d.preempted:,}", f"{d.restarted:,}", f"{d.refused:,}",
        )
        for d in found.deployments
    )  # fmt: skip
    header = ("deployment", "replicas", "working", "in flight each", "KV peak", "preempted", "restarted", "unanswered")
    return Section("Replicas", grid=Grid(header, table, header[1:]))


def _series(found: Simulation) -> Section:
    table = tuple((words, sparkline(found.series[k]), _peak(k, found.series[k])) for k, words in LINES.items())
    line = f"From 0 to {_time(found.seconds)}; each line from 0 to its highest, a dot where nothing arrived."
    return Section("Over time", (line,), Grid(("", "", "highest"), table, ("highest",)))


def _peak(name: str, values: Sequence[float | None]) -> str:
    top = max((v for v in values if v is not None), default=0.0)
    return f"{top:.0%}" if name in ("inside", "kv_used") else digits(top)


def sparkline(values: Sequence[float | None], width: int = CHART) -> str:
    """Values as bars of text from 0 to the highest, means of neighbours where there are more than fit; None is a dot."""
    data = np.array([np.nan if v is None else v for v in values], dtype=float)
    parts = np.array_split(data, min(width, max(len(data), 1)))
    means = [float(p[~np.isnan(p)].mean()) if (~np.isnan(p)).any() else None for p in parts]
    top = max((m for m in means if m is not None), default=0.0) or 1.0
    return "".join("·" if m is None else BLOCKS[round(max(m, 0.0) / top * (len(BLOCKS) - 1))] for m in means)
