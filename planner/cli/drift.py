"""`plan drift` holds a saved plan against the live metrics of its endpoint: for a cron job, or a gate in CI."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from planner.cli.options import FormatOption, OutputOption, check_writable, deliver, known_format
from planner.cli.show import PlanFile, fitting, read_saved
from planner.errors import PlannerError

MetricsOption = Annotated[
    str,
    typer.Option("--prometheus", help="file of /metrics or of a query; address of either; or a Prometheus server (http://prometheus:9090)", metavar="FILE|URL"),
]
ToleranceOption = Annotated[str, typer.Option("--tolerance", help="share of a planned figure that the live one may be off", metavar="SHARE")]
OverOption = Annotated[str, typer.Option("--over", help="time asked of a Prometheus server", metavar="TIME")]
ModelOption = Annotated[str, typer.Option("--model", help="of the metrics: this model alone, as they name it", metavar="NAME", show_default=False)]
ReplicasOption = Annotated[
    int | None, typer.Option("--replicas", help="how many replicas the metrics are of, where labels do not tell", metavar="N", min=1, show_default=False)
]


def drift(
    path: PlanFile,
    metrics: MetricsOption,
    tolerance: ToleranceOption = "20%",
    over: OverOption = "1h",
    model: ModelOption = "",
    replicas: ReplicasOption = None,
    form: FormatOption = "table",
    output: OutputOption = None,
) -> None:
    """Which assumption of a plan has left its range: exit 0 if none has, 1 if any has.

    plan drift plan.json --prometheus http://prometheus:9090
    """
    known_format(form)
    check_writable(output)
    allowed = _tolerance(tolerance)
    from planner.demand.prometheus import samples_in
    from planner.report.drift import formatted
    from planner.validation.drift import drifts

    plan = read_saved(path)
    samples, _ = samples_in(_text(metrics, over), "--prometheus")
    with fitting(path):
        found = drifts(plan, samples, allowed, model, replicas)
    deliver(formatted(found, allowed, form), output)
    if any(d.has_left for d in found):
        raise typer.Exit(1)


def _text(metrics: str, over: str) -> str:
    """The metrics' text, of a file or fetched. Raises PlannerError."""
    import time

    from planner.demand.fetched import fetched, is_address
    from planner.opened import whole
    from planner.scenario.units import parse_duration_s

    try:
        seconds = parse_duration_s(over)
    except ValueError as error:
        raise PlannerError(str(error), "--over", "such as 1h") from None
    if not 60 <= seconds <= 366 * 24 * 3600:
        raise PlannerError(f"must be from a minute to a year, got '{over}'", "--over")
    return fetched(metrics, seconds, time.time()) if is_address(metrics) else whole(Path(metrics))


def _tolerance(text: str) -> float:
    """20 % or 0.2. Raises PlannerError."""
    try:
        value = float(text.strip().removesuffix("%")) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 10:
        raise PlannerError(f"is no share: '{text}'", "--tolerance", "such as 20%")
    return value
