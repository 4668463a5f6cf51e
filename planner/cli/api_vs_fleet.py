"""`plan api-vs-fleet` prints what a fleet and a hosted API cost over volume, and where they break even."""

from __future__ import annotations

from typing import Annotated

import typer

from planner.cli.charts import Charted, draw
from planner.cli.study import Answers, FileOption, asked_scenario, deliver_study, progress
from planner.errors import PlannerError


def api_vs_fleet(
    asked: dict[str, object],
    *,
    over: Annotated[str, typer.Option("--over", help="rates, such as qps=1:1000 or qps=1,10,100", metavar="qps=RATES")] = "qps=1:1000",
    points: Annotated[int, typer.Option("--points", help="rates on a range", metavar="N", min=2)] = 10,
    file: FileOption = None,
    printed: Charted,
    kept: Answers,
) -> None:
    """Print the cheapest fleet and hosted API over volume, and their break-even.

    plan api-vs-fleet --min-quality 0.8
    """
    printed.check()
    where = kept.where()
    from planner.economics.sweep import axis

    rates = axis(over, points)
    if rates.name != "qps":
        raise PlannerError(f"'{rates.name}' is no volume", "--over", "give rates, as in qps=1:1000")
    if "qps" not in asked and file is None:
        asked = {**asked, "qps": f"{rates.values[0]:g}"}
    scenario, catalog = asked_scenario(asked, file)
    from planner.economics.api_vs_fleet import api_vs_fleet as over_volume
    from planner.report import api_vs_fleet as told

    with progress("api-vs-fleet") as done:
        found = over_volume(scenario, catalog, rates.values, where, done)
    draw(printed.chart, lambda: told.chart(found))
    deliver_study(printed.form, printed.output, told.sections(found), told.payload(found), told.rows(found))
