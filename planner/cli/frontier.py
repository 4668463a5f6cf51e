"""`plan frontier` prints the cheapest plan at every quality, and what the next point of quality costs."""

from __future__ import annotations

from typing import Annotated

import typer

from planner.cli.charts import Charted, draw
from planner.cli.study import Answers, FileOption, asked_scenario, deliver_study, progress


def frontier(
    asked: dict[str, object],
    *,
    file: FileOption = None,
    also: Annotated[str, typer.Option("--also", help="a third axis: limits on ttft or tpot, or concurrency", metavar="AXIS", show_default=False)] = "",
    models: Annotated[bool, typer.Option("--models", help="instead: every model alone, quality against unit cost", show_default=False)] = False,
    printed: Charted,
    kept: Answers,
) -> None:
    """Print the cost-quality frontier of a workload.

    plan frontier --qps 200
    """
    printed.check()
    where = kept.where()
    scenario, catalog = asked_scenario(asked, file)
    from planner.economics.frontier import by_model
    from planner.economics.frontier import frontier as pareto
    from planner.report import charts, studies

    if models:
        with progress("models") as done:
            every = by_model(scenario, catalog, where, done)
        payload = {"models": studies.models_rows(every)}
        draw(printed.chart, lambda: charts.models_chart(every))
        deliver_study(printed.form, printed.output, studies.models_sections(every), payload, studies.models_rows(every))
        return
    with progress("frontier") as done:
        found = pareto(scenario, catalog, also=also, where=where, done=done)
    draw(printed.chart, lambda: charts.frontier_chart(found))
    deliver_study(printed.form, printed.output, studies.frontier_sections(found), studies.frontier_payload(found), studies.frontier_rows(found))
