"""`--chart FILE`: the result drawn into a file, beside what is printed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import typer

from planner.cli.options import Printed
from planner.report.drawing import Chart

ChartOption = Annotated[
    str | None, typer.Option("--chart", help="also draw the result: FILE.html, .png or .svg (extra charts)", metavar="FILE", show_default=False)
]


@dataclass(frozen=True)
class Charted(Printed):
    """How a result is printed and drawn, and where to."""

    chart: ChartOption = None

    def check(self) -> None:
        """The same, and refuses a chart that cannot be drawn."""
        super().check()
        check_chart(self.chart)


def check_chart(path: str | None) -> None:
    """Refuses a chart that cannot be drawn or written, before any work. Raises PlannerError."""
    from planner.files import check_target
    from planner.report.drawing import form_of

    if path is not None:
        form_of(path)
        check_target(path)


def draw(path: str | None, chart: Callable[[], Chart]) -> None:
    """The chart into its file, whole; nothing where none was asked for."""
    from planner.files import write_result
    from planner.report.drawing import drawn, form_of

    if path is not None:
        write_result(path, drawn(chart(), form_of(path)))
