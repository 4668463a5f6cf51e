"""plan --steps: from today's fleet to the cheapest plan, a few changes at a time."""

from __future__ import annotations

import json

import typer

from planner.cli.options import Printed, deliver
from planner.errors import ScenarioError
from planner.scenario.sources import Question


def in_steps(question: Question, printed: Printed) -> None:
    """Prints the path; exit status 3 where a plan on it is not proven."""
    supply = question.scenario.supply
    if not supply.current or not supply.max_changes:
        raise ScenarioError("steps go from what is held today, by so many changes each", "--steps", "give --current FILE and --max-changes N of 1 or more")
    from planner.catalog.load import load_catalog
    from planner.clean import json_text
    from planner.planning.fleet import path
    from planner.report import render
    from planner.report.fleet import path_rows, path_sections

    found = path(question.scenario, load_catalog(question.scenario.catalog), question.origins)
    if printed.form == "json":
        whole = {"end_usd_per_hour": found.end_usd_per_hour, "is_cut": found.is_cut, "steps": [p.model_dump(mode="json") for p in found.steps]}
        text = json_text(json.dumps(whole, indent=1) + "\n")
    elif printed.form == "csv":
        text = render.csv_text(*path_rows(found.steps))
    else:
        sections = path_sections(found.steps, found.end_usd_per_hour, found.is_cut)
        text = render.markdown(sections) if printed.form == "markdown" else render.terminal(sections)
    deliver(text, printed.output)
    if any(p.status != "optimal" for p in found.steps):
        raise typer.Exit(3)
