"""`plan sweep` prints the cheapest plan along a demand, a limit or a price, and where another plan takes over."""

from __future__ import annotations

from typing import Annotated

import typer

from planner.cli.charts import Charted, draw
from planner.cli.study import Answers, FileOption, asked_scenario, deliver_study, progress
from planner.errors import PlannerError


def sweep(
    asked: dict[str, object],
    *,
    over: Annotated[
        list[str],
        typer.Option("--over", help="what to vary, such as qps=10:2000 or ttft=0.5s,1s,2s; twice gives a map", metavar="NAME=VALUES", show_default=False),
    ],
    points: Annotated[int, typer.Option("--points", help="values on each range", metavar="N", min=2)] = 20,
    file: FileOption = None,
    printed: Charted,
    kept: Answers,
) -> None:
    """Print the cost staircase along one axis, or the map of two.

    plan sweep --over qps=10:2000 --min-quality 0.8
    """
    printed.check()
    where = kept.where()
    from planner.economics.sweep import axis

    axes = [axis(text, points) for text in over]
    if len(axes) > 2:
        raise PlannerError(f"{len(axes)} axes are too many to print", "--over", "give one or two")
    if len({a.name for a in axes}) < len(axes):
        raise PlannerError(f"'{axes[0].name}' is varied twice", "--over")
    first = next((a for a in axes if a.name in ("qps", "concurrency")), None)
    if first and not {"qps", "concurrency"} & asked.keys() and file is None:
        asked = {**asked, first.name: f"{first.values[0]:g}"}  # who varies the rate states none
        today = False
    else:
        today = True
    scenario, catalog = asked_scenario(asked, file)
    from planner.economics.runs import answers
    from planner.economics.sweep import sweep as along
    from planner.report import studies
    from planner.report.charts import sweep_chart

    with progress("sweep") as done:
        found = along(scenario, catalog, axes, where, done)
    plan = answers([scenario], catalog, where)[0].plan if today and not scenario.objective.maximize else None
    draw(printed.chart, lambda: sweep_chart(found))
    deliver_study(printed.form, printed.output, studies.sweep_sections(found, plan), studies.sweep_payload(found), studies.sweep_rows(found))
