"""What was learnt from a user's measurements: factors by level, and how far predictions are off before and after."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from planner.bench.points import lines_of
from planner.catalog.records import Calibration
from planner.performance.calibrated import sure_factor
from planner.report.sections import Grid, Section, plural
from planner.validation.calibrate import Learnt

NAMES = {"tpot_ms": "TPOT", "ttft_ms": "TTFT"}


def calibration_csv(learnt: Learnt) -> str:
    """The file that a catalogue holds."""
    from planner.report.render import csv_text

    return csv_text(list(Calibration.model_fields), [list(row.model_dump(mode="json").values()) for row in learnt.calibration])


def formatted(learnt: Learnt, folder: Path, form: str) -> str:
    """As text; CSV is that of the file."""
    if form == "csv":
        return calibration_csv(learnt)
    if form == "json":
        rows, unused = [c.model_dump(mode="json") for c in learnt.calibration], {why: [p.line for p in points] for why, points in learnt.unused.items()}
        return json.dumps({"calibration": rows, "errors": [asdict(e) for e in learnt.errors], "unused": unused}, indent=1) + "\n"
    from planner.report import render

    sections = calibration_sections(learnt, folder)
    return render.markdown(sections) if form == "markdown" else render.terminal(sections)


def calibration_sections(learnt: Learnt, folder: Path) -> list[Section]:
    """How much better, by what, and what said nothing."""
    lines = (
        f"{len(learnt.rows):,} {plural('measurement', len(learnt.rows))} {'teaches' if len(learnt.rows) == 1 else 'teach'}; plan with --catalog {folder}.",
        "Left out: each configuration (model, TP and lengths) predicted from the others, which is what a neighbour of yours gets.",
    )
    columns = ("rows", "before", "after", "left out")
    errors = tuple(
        (NAMES[e.metric], f"{e.rows:,}", f"{e.before:.1%}", f"{e.after:.1%}", "-" if e.left_out is None else f"{e.left_out:.1%}") for e in learnt.errors
    )
    numbers = ("rows", "steps", "prompts", "overhead", "sure at 80%")
    return [
        Section("Calibration", lines, Grid(("median |error|", *columns), errors, columns)),
        Section("Factors, those of all levels multiplied", grid=Grid(("engine", "model", *numbers), tuple(_factors(c) for c in learnt.calibration), numbers)),
        *_unused(learnt),
    ]


def _factors(c: Calibration) -> tuple[str, ...]:
    """One level: the engine, the model on it, its TP."""
    model, is_engine = (c.architecture if c.tp is None else f"{c.architecture} TP{c.tp}"), not c.architecture
    sure = float(sure_factor(np.array([c.step_sd]), np.array([0.8]))[0])
    overhead = f"x{c.overhead:.3f}" if is_engine else ""
    return (f"{c.engine} on {c.gpu}" if is_engine else "", model, f"{c.points:,}", f"x{c.step:.3f}", f"x{c.prompt:.3f}", overhead, f"x{sure:.2f}")


def _unused(learnt: Learnt) -> list[Section]:
    rows = tuple((why, f"{len(points):,}", lines_of(points)) for why, points in learnt.unused.items())
    return [Section("Not used", grid=Grid(("reason", "rows", "lines of the file"), rows, ("rows",)), is_caution=True)] if rows else []
