"""What an import of benchmarks changed: predicted before, measured, predicted after; and the files that a catalogue folder keeps of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import isinf
from pathlib import Path

from planner.bench.points import COLUMNS, MeasuredPoint, cells_of, lines_of
from planner.catalog.records import MeasuredConfiguration
from planner.report.calibrate import calibration_sections
from planner.report.sections import Grid, Section
from planner.report.validate import load_name, row_name, short
from planner.validation.calibrate import Learnt
from planner.validation.compare import METRICS, Pair, pairs
from planner.validation.kept import POINTS, Kept
from planner.validation.predictions import RowPrediction

Answers = tuple[Sequence[RowPrediction], Sequence[RowPrediction]]  # before and after
FEW = 40  # runs whose figures are shown one by one


def points_csv(points: Sequence[MeasuredPoint]) -> str:
    """The points in their one form, with where they came from."""
    from planner.report.render import csv_text

    return csv_text(COLUMNS, [cells_of(p) for p in points])


def configurations_csv(rows: Sequence[MeasuredConfiguration]) -> str:
    """The table evidence.csv of a catalogue; weights are its cards'."""
    from planner.report.render import csv_text

    names = [n for n in MeasuredConfiguration.model_fields if n != "active_parameters"]
    return csv_text(names, [[getattr(row, name) for name in names] for row in rows])


def formatted(kept: Kept, learnt: Learnt, answers: Answers, folder: Path, form: str) -> str:
    """As text; JSON and CSV hold each figure before and after."""
    seen = (*kept.added, *kept.known)
    changes = [_change(point, old, new) for point, *both in zip(seen, *answers, strict=True) for old, new in _both(point, both)]
    if form == "json":
        counts = {"added": len(kept.added), "known": len(kept.known), "points": len(kept.points)}
        refused = {why: [f"{p.provenance.file} {p.provenance.run}" for p in some] for why, some in kept.refused.items()}
        return json.dumps({"folder": str(folder), **counts, "refused": refused, "changes": changes}, indent=1) + "\n"
    from planner.report import render

    if form == "csv":
        header = list(changes[0]) if changes else ["row"]
        return render.csv_text(header, [[c[name] for name in header] for c in changes])
    sections = [_summary(kept, folder), *_changed(kept, answers), *_refused(kept), *calibration_sections(learnt, folder)]
    return render.markdown(sections) if form == "markdown" else render.terminal(sections)


def _both(point: MeasuredPoint, answers: Sequence[RowPrediction]) -> list[tuple[tuple[RowPrediction, Pair], tuple[RowPrediction, Pair]]]:
    """Each metric before and after."""
    old, new = ({p.metric: p for p in pairs(point, a)} for a in answers)
    return [((answers[0], old[m]), (answers[1], new[m])) for m in METRICS if m in old and m in new]


def _change(point: MeasuredPoint, old: tuple[RowPrediction, Pair], new: tuple[RowPrediction, Pair]) -> dict[str, object]:
    found: dict[str, object] = {"row": row_name(point), "load": load_name(point), "metric": old[1].metric, "measured": old[1].measured}
    for name, (answer, pair) in (("before", old), ("after", new)):
        ends = (None if end is None or isinf(end) else end for end in (pair.low, pair.high))
        found |= dict(zip((f"{name}_{k}" for k in ("predicted", "low", "high", "tier")), (pair.predicted, *ends, answer.tier), strict=True))
    return found


def _summary(kept: Kept, folder: Path) -> Section:
    again = f"; already in it: {len(kept.known)}" if kept.known else ""
    lines = (
        f"{len(kept.added)} run{'' if len(kept.added) == 1 else 's'} taken into {folder / POINTS}, which holds {len(kept.points)} now{again}.",
        f"Plan with --catalog {folder}: its own configurations count as measured there.",
    )
    return Section("Benchmarks", lines)


def _changed(kept: Kept, answers: Answers) -> list[Section]:
    """Predicted before, measured, predicted after, with both errors and bands; a section for each configuration."""
    seen = list(zip((*kept.added, *kept.known)[:FEW], *(a[:FEW] for a in answers), strict=True))
    return [_configuration(name, [s for s in seen if row_name(s[0]) == name]) for name in dict.fromkeys(row_name(p) for p, _, _ in seen)]


def _configuration(name: str, seen: Sequence[tuple[MeasuredPoint, RowPrediction, RowPrediction]]) -> Section:
    rows = []
    for point, *both in seen:
        for i, ((_, was), (_, now)) in enumerate(_both(point, both)):
            figures = (short(was.predicted), short(was.measured), short(now.predicted))
            rows.append((load_name(point) if i == 0 else "", METRICS[was.metric], *figures, _errors(was, now), _bands(was, now)))
    tiers = dict.fromkeys(answer.tier for _, *both in seen for answer in both if answer.tier)
    lines = (f"Evidence: {' → '.join(tiers)}.", *(f"{load_name(p)}: {new.reason}." for p, _, new in seen if new.reason))
    numbers = ("before", "measured", "after")
    return Section(f"{name}, ms and tokens/s", lines, Grid(("load", "metric", *numbers, "error", "band"), tuple(rows), numbers))


def _errors(was: Pair, now: Pair) -> str:
    return f"{was.error:+.0%} → {now.error:+.0%}"


def _bands(was: Pair, now: Pair) -> str:
    """Both bands, over what is predicted."""
    words = [f"x{p.low / p.predicted:.2f} to " + ("any" if isinf(p.high) else f"x{p.high / p.predicted:.2f}") for p in (was, now) if p.low and p.high]
    return " → ".join(dict.fromkeys(words))


def _refused(kept: Kept) -> list[Section]:
    rows = tuple((why, f"{len(some):,}", lines_of(some)) for why, some in kept.refused.items())
    return [Section("Not taken in", grid=Grid(("reason", "runs", "where"), rows, ("runs",)), is_caution=True)] if rows else []
