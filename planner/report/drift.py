"""A plan's assumptions beside what is live: planned, live, range, verdict."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import isinf

from planner.report.sections import Grid, Section
from planner.validation.drift import LEFT, UNKNOWN, Assumption, Drift, record

COLUMNS = ("assumption", "planned", "live", "range", "verdict")


def formatted(found: Sequence[Drift], tolerance: float, form: str) -> str:
    """As text; JSON and CSV hold every figure."""
    if form == "json":
        return json.dumps(record(found, tolerance), indent=1) + "\n"
    from planner.report import render

    if form == "csv":
        header = ["checkpoint", "assumption", "unit", "planned", "live_low", "live_high", "least", "most", "verdict"]
        rows = [[d.checkpoint, a.name, a.unit, a.planned, *(a.live or (None, None)), a.least, a.most, a.verdict] for d in found for a in d.assumptions]
        return render.csv_text(header, [["" if isinstance(v, float) and isinf(v) else v for v in row] for row in rows])
    sections = [_section(d, tolerance) for d in found]
    return render.markdown(sections) if form == "markdown" else render.terminal(sections)


def _section(d: Drift, tolerance: float) -> Section:
    left = [a.name for a in d.assumptions if a.verdict == LEFT]
    told = f"Left its range: {'; '.join(left)}." if left else "No assumption has left its range."
    over = f"{d.span_s / 3600:.3g} hours" if d.span_s >= 3600 else f"{d.span_s / 60:.3g} minutes" if d.span_s else "since the engines started"
    untold = sum(a.verdict == UNKNOWN for a in d.assumptions)
    told += f" Not told by the metrics: {untold}." if untold else ""
    lines = (f"{told} Metrics of {d.of_replicas} of {d.replicas} replicas, {over}; tolerance {tolerance:.0%}.", *(f"{n}." for n in d.notes))
    rows = tuple((a.name, _short(a, a.planned), _live(a), _range(a), a.verdict) for a in d.assumptions)
    return Section(f"Drift of {d.checkpoint}", lines, Grid(COLUMNS, rows, COLUMNS[1:4]))


def _live(a: Assumption) -> str:
    """A figure, or the bucket that it is in."""
    if a.live is None:
        return "-"
    low, high = a.live
    if low == high:
        return _short(a, low)
    return f"over {_short(a, low)}" if isinf(high) else f"{_short(a, low, False)} to {_short(a, high)}"


def _range(a: Assumption) -> str:
    return f"from {_short(a, a.least)}" if a.least > 0 else f"to {_short(a, a.most)}"


def _short(a: Assumption, value: float | None, is_last: bool = True) -> str:
    if value is None:
        return "-"
    if a.unit == "share":
        return f"{value:.1%}"
    if a.unit == "ms":
        return f"{value:,.0f} ms" if is_last else f"{value:,.0f}"
    figure = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{figure}/s" if a.unit == "requests/s" and is_last else figure
