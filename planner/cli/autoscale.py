"""`plan autoscale` plans replicas and instances for every hour of a day or week."""

from __future__ import annotations

import os
from typing import Any

import typer

from planner.cli.options import FormatOption, OutputOption, check_writable, deliver, known_format
from planner.cli.study import FileOption
from planner.errors import ScenarioError


def autoscale(asked: dict[str, Any], file: FileOption = None, form: FormatOption = "table", output: OutputOption = None) -> None:
    """Plan replicas by the hour for a daily or weekly profile, against the plan that holds the peak all day.

    plan autoscale --qps 200 --min-quality 0.8 --profile m-small
    """
    known_format(form)
    check_writable(output)
    from planner.scenario.sources import ask

    question = ask(asked, dict(os.environ), file)
    if not any(w.profile or w.requests_per_day is not None for w in question.scenario.workload):
        raise ScenarioError("traffic is the same at every hour", "--profile", "give a shape, such as --profile m-small, or requests that may wait")
    from planner.planning.periods import autoscale as by_the_hour

    plan = by_the_hour(question.scenario, origins=question.origins)
    from planner.report.autoscale import formatted_hours

    deliver(formatted_hours(plan, form), output)
    if plan.status != "optimal":
        raise typer.Exit(3)
