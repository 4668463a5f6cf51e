"""`plan autoscale` plans replicas and instances for every hour of a day or week."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from planner.cli.charts import ChartOption, check_chart, draw
from planner.cli.options import DetailsOption, FormatOption, OutputOption, check_writable, deliver_plan, known_format
from planner.cli.study import FileOption
from planner.errors import ScenarioError
from planner.interrupts import answering

if TYPE_CHECKING:
    from planner.result.plan import Plan
    from planner.scenario.sources import Question


def autoscale(
    asked: dict[str, object],
    file: FileOption = None,
    form: FormatOption = "table",
    output: OutputOption = None,
    details: DetailsOption = False,
    chart: ChartOption = None,
) -> None:
    """Plan replicas by the hour for a daily or weekly profile, against the plan that holds the peak all day.

    plan autoscale --qps 200 --min-quality 0.8 --profile m-small
    """
    known_format(form)
    check_writable(output)
    check_chart(chart)
    from planner.scenario.sources import ask

    question = ask(asked, dict(os.environ), file)
    if not question.scenario.has_waiting and not any(w.profile for w in question.scenario.workload):
        raise ScenarioError("traffic is the same at every hour", "--profile", "give a shape, such as --profile m-small, or requests that may wait")
    by_the_hour(question, form, output, details, chart)


def by_the_hour(question: Question, form: str, output: str | None, details: bool, chart: str | None = None) -> None:
    """Plans by the hour and delivers it; exit 3 where the search was stopped early."""
    from planner.planning.periods import autoscale as planned
    from planner.report.charts import hours_chart
    from planner.report.formats import formatted

    def shown(plan: Plan) -> str:
        draw(chart, lambda: hours_chart(plan))
        return formatted(plan, form, details)

    with answering():
        deliver_plan(planned(question.scenario, origins=question.origins), shown, output)
