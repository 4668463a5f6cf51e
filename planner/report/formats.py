"""A plan in each output format."""

from __future__ import annotations

from planner.clean import json_text
from planner.plan import Plan
from planner.report.sections import plan_sections


def formatted(plan: Plan, form: str) -> str:
    """The plan as text: json, csv, markdown or table."""
    if form == "json":
        return json_text(plan.to_json())
    from planner.report import render

    if form == "csv":
        rows = [d.flat() for d in plan.deployments]
        return render.csv_text(list(rows[0]) if rows else [], [list(r.values()) for r in rows])
    sections = plan_sections(plan)
    return render.markdown(sections) if form == "markdown" else render.terminal(sections)
