"""Errors of predictions against measurements, as tables and JSON; rows that could not be predicted are listed with their reason."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from planner.bench.points import MeasuredPoint, lines_of
from planner.report.sections import Grid, Section
from planner.validation.compare import LOADS, METRICS, PERCENTILES, Comparison, Errors, pairs, record, summary
from planner.validation.mapping import CLOSED
from planner.validation.predictions import RowPrediction

COLUMNS = ("n", "median |error|", "MAPE", "within 20 %", "bias", "covered", "inside")
TITLES = {"load": "By load", "source": "By source", "gpu": "By GPU", "model": "By model", "engine": "By engine", "tier": "By evidence tier"}
MOST_EACH = 24  # rows that are shown one by one
OVERLOADED = "more is offered than can be served, so tokens/s only and no percentiles"  # each row's own reason has its rate
CLOSED_METRICS = tuple(m for m in METRICS if m not in PERCENTILES)


def formatted(points: Sequence[MeasuredPoint], answers: Sequence[RowPrediction], comparison: Comparison, form: str) -> str:
    """The comparison as text. CSV holds the rows, JSON the summary and the rows."""
    if form in ("json", "csv"):
        rows = [record(p, a) for p, a in zip(points, answers, strict=True)]
        if form == "json":
            return json.dumps({"summary": summary(comparison), "rows": rows}, indent=1) + "\n"
        from planner.report.render import csv_text

        header = list(dict.fromkeys(name for row in rows for name in row))
        return csv_text(header, [[row.get(name) for name in header] for row in rows])
    from planner.report import render

    sections = validation_sections(points, answers, comparison)
    return render.markdown(sections) if form == "markdown" else render.terminal(sections)


def validation_sections(points: Sequence[MeasuredPoint], answers: Sequence[RowPrediction], comparison: Comparison) -> list[Section]:
    """All errors, then by group, then the rows without a prediction."""
    c = comparison
    nothing = () if c.overall else ("No row gives a figure that is predicted.",)
    lines = (
        f"{c.predicted:,} of {c.rows:,} rows predicted. Error = predicted / measured - 1; bias is its median.",
        f"Covered: measured at most the upper bound of the band, which should hold {c.confidence:.0%}; inside: between both, {2 * c.confidence - 1:.0%}.",
        "The shipped curves are what the predictions are fitted to: errors on those rows are not errors on rows never seen.",
        *nothing,
    )
    sections = [Section("Predicted against measured", lines, _overall(c.overall) if c.overall else None)]
    sections += [each] if (each := _each(points, answers)) else []
    sections += [_group(title, c.by[name]) for name, title in TITLES.items() if len(c.by[name]) > 1]
    if any(m in PERCENTILES for m in c.overall):
        sections.append(Section("Poisson percentiles", grid=_overall(c.overall, tuple(PERCENTILES))))
    return sections + _refused(points, answers, comparison)


def _each(points: Sequence[MeasuredPoint], answers: Sequence[RowPrediction]) -> Section | None:
    """Every metric of every row, where there are few: a user's own."""
    if len(points) > MOST_EACH:
        return None
    rows = []
    for point, answer in zip(points, answers, strict=True):
        for i, pair in enumerate(pairs(point, answer)):
            band = "" if pair.low is None and pair.high is None else f"{short(pair.low)} to {short(pair.high)}"
            inside = {None: "", True: "yes", False: "no"}[pair.is_inside]
            name = (row_name(point), load_name(point), answer.tier) if i == 0 else ("", "", "")
            rows.append((*name, METRICS[pair.metric], short(pair.measured), short(pair.predicted), f"{pair.error:+.1%}", band, inside))
    header = ("row", "load", "evidence", "metric", "measured", "predicted", "error", "band", "inside")
    notes = tuple(f"{note[0].upper()}{note[1:]}." for note in dict.fromkeys(a.note for a in answers if a.note and a.predicted))
    return Section("Row by row, ms and tokens/s", notes, Grid(header, tuple(rows), ("measured", "predicted", "error"))) if rows else None


def short(value: float | None) -> str:
    """A figure in three digits."""
    return "-" if value is None else "any" if value == float("inf") else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def row_name(point: MeasuredPoint) -> str:
    """What was measured, briefly."""
    model = point.model.rsplit("/", maxsplit=1)[-1]
    precision = "" if point.precision.lower() in model.lower() else f" {point.precision}"
    return f"{model}{precision}" + f" on {point.gpu}, {point.engine}" + (f" TP{point.tp}" if point.tp else "")


def load_name(point: MeasuredPoint) -> str:
    """Lengths and load."""
    rate, held = point.request_rate, point.concurrency
    load = "all at once" if rate == float("inf") else f"{rate:g}/s" if rate else f"{held:g} at once" if held else point.load
    return f"{point.isl:.0f}/{point.osl:.0f}, {load}"


def _overall(errors: Mapping[str, Errors], metrics: Sequence[str] = CLOSED_METRICS) -> Grid:
    rows = tuple((METRICS[m], *_cells(errors[m])) for m in metrics if m in errors)
    return Grid(("metric", *COLUMNS), rows, COLUMNS)


def _group(title: str, values: Mapping[str, Mapping[str, Errors]]) -> Section:
    rows = []
    for name, errors in values.items():
        for i, metric in enumerate(m for m in CLOSED_METRICS if m in errors):
            rows.append((LOADS.get(name, name) if i == 0 else "", METRICS[metric], *_cells(errors[metric])))
    return Section(title, grid=Grid((title.removeprefix("By "), "metric", *COLUMNS), tuple(rows), COLUMNS))


def _cells(e: Errors) -> tuple[str, ...]:
    shares = ("-" if share is None else f"{share:.0%}" for share in (e.covered, e.inside))
    return (f"{e.n:,}", f"{e.median:.1%}", f"{e.mape:.1%}", f"{e.within_20:.0%}", f"{e.bias:+.1%}", *shares)


def _refused(points: Sequence[MeasuredPoint], answers: Sequence[RowPrediction], comparison: Comparison) -> list[Section]:
    """Counts by reason, and the lines of the file they stand on."""
    sections = []
    if comparison.refused:
        where = {reason: [p for p, a in zip(points, answers, strict=True) if a.reason == reason and not a.predicted] for reason in comparison.refused}
        rows = tuple((reason, f"{count:,}", lines_of(where[reason])) for reason, count in comparison.refused.items())
        sections.append(Section("Not predicted", grid=Grid(("reason", "rows", "lines of the file"), rows, ("rows",)), is_caution=True))
    partly: dict[str, list[MeasuredPoint]] = {}
    for point, answer in zip(points, answers, strict=True):
        if answer.reason and answer.predicted:
            partly.setdefault(answer.reason if answer.kind == CLOSED else OVERLOADED, []).append(point)
    if partly:
        lines = tuple(f"{len(rows):,} row{'s' if len(rows) > 1 else ''}: {why} (lines {lines_of(rows)})." for why, rows in partly.items())
        sections.append(Section("Predicted in part", lines, is_caution=True))
    return sections
