"""`plan calibrate` learns from the user's own measurements and writes a catalogue that plans with them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from planner.cli.options import CatalogOption, FormatOption, deliver, known_format
from planner.cli.setup import AskedSetup, BenchFiles, measured_points
from planner.errors import PlannerError

FolderOption = Annotated[Path, typer.Option("-o", "--output", help="folder for calibration.csv; plan with --catalog DIR", metavar="DIR")]


def calibrate(*, paths: BenchFiles, output: FolderOption, asked_of: AskedSetup, form: FormatOption = "table", catalog: CatalogOption = None) -> None:
    """Correct predictions by a handful of your own measurements, for --catalog.

    plan calibrate points.csv -o mine
    """
    known_format(form)
    from datetime import date

    from planner.catalog.load import load_catalog
    from planner.files import check_target, make_folder, write_result
    from planner.report.calibrate import calibration_csv, formatted
    from planner.validation.calibrate import learn, source_of

    if output.exists() and not output.is_dir():
        raise PlannerError("is a file, not a folder", str(output), "give a folder; calibration.csv is written into it")
    points = measured_points(paths, asked_of)
    learnt = learn(points, load_catalog(catalog or ()), source_of(paths), date.today())
    if not learnt.rows:
        reason = max(learnt.unused, key=lambda why: len(learnt.unused[why]))
        raise PlannerError(f"no row teaches anything: {reason}", str(paths[0]), "rows need model, gpu, engine, tp, lengths, a load, and TTFT or TPOT")
    make_folder(output)
    target = output / "calibration.csv"
    check_target(target)
    write_result(target, calibration_csv(learnt))
    deliver(formatted(learnt, output, form), None)
