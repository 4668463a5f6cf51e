"""`plan validate` holds the predictions against a file of measured points."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from planner.cli.options import CatalogOption, FormatOption, OutputOption, check_writable, deliver, known_format
from planner.errors import PlannerError

PointsFile = Annotated[Path, typer.Argument(help="measured points as CSV: model, gpu, engine, isl, osl, concurrency or request_rate, …", metavar="POINTS.csv")]
ConfidenceOption = Annotated[float, typer.Option("--confidence", help="share of measurements that each bound of a band should hold (0.5 to 0.99)")]


def validate(
    path: PointsFile, confidence: ConfidenceOption = 0.9, form: FormatOption = "table", output: OutputOption = None, catalog: CatalogOption = None
) -> None:
    """Compare predictions with measured points: errors by source, GPU, model, engine and tier."""
    known_format(form)
    check_writable(output)
    known_confidence(confidence)
    from planner.bench.points import read_points
    from planner.catalog.load import load_catalog
    from planner.report.validate import formatted
    from planner.validation.compare import compare
    from planner.validation.predictions import predict_points

    points = read_points(path)
    answers = predict_points(points, load_catalog(catalog or ()), confidence)
    deliver(formatted(points, answers, compare(points, answers, confidence), form), output)


def known_confidence(confidence: float) -> float:
    """The confidence, checked. Raises PlannerError."""
    if not 0.5 <= confidence <= 0.99:
        raise PlannerError(f"must be from 0.5 to 0.99, got {confidence:g}", "--confidence")
    return confidence
