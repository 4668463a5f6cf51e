"""`plan validate` holds the predictions against measured points, of benchmark tools or in their own form."""

from __future__ import annotations

from typing import Annotated

import typer

from planner.cli.charts import Charted, draw
from planner.cli.options import CatalogOption, deliver
from planner.cli.setup import AskedSetup, BenchFiles, measured_points
from planner.errors import PlannerError

ConfidenceOption = Annotated[float, typer.Option("--confidence", help="share of measurements that each bound of a band should hold (0.5 to 0.99)")]


def validate(*, paths: BenchFiles, asked_of: AskedSetup, confidence: ConfidenceOption = 0.9, printed: Charted, catalog: CatalogOption = None) -> None:
    """Compare predictions with benchmarks: predicted, measured, error, inside the band or not.

    plan validate run.json --gpu H100-SXM-80GB --tp 4 --engine vllm --precision fp8
    """
    printed.check()
    known_confidence(confidence)
    from planner.catalog.load import load_catalog
    from planner.report.charts import validation_chart
    from planner.report.validate import formatted
    from planner.validation.compare import compare
    from planner.validation.predictions import predict_points

    points = measured_points(paths, asked_of)
    answers = predict_points(points, load_catalog(catalog or ()), confidence)
    draw(printed.chart, lambda: validation_chart(points, answers))
    deliver(formatted(points, answers, compare(points, answers, confidence), printed.form), printed.output)


def known_confidence(confidence: float) -> float:
    """The confidence, checked. Raises PlannerError."""
    if not 0.5 <= confidence <= 0.99:
        raise PlannerError(f"must be from 0.5 to 0.99, got {confidence:g}", "--confidence")
    return confidence
