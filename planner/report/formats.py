"""A plan in each output format."""

from __future__ import annotations

import json

from planner.clean import json_text
from planner.report.autoscale import hours_page, hours_sections
from planner.report.fleet import fleet_sections
from planner.report.page import page_sections
from planner.report.sections import Section, plan_sections
from planner.result.plan import Plan


def plan_schema() -> str:
    """The JSON Schema of a plan, as text."""
    return json.dumps(Plan.model_json_schema(mode="serialization"), indent=1, sort_keys=True) + "\n"


def formatted(plan: Plan, form: str, details: bool = False) -> str:
    """The plan as text: json, csv (a row for each deployment, or each hour), markdown or table; the last two as the short page or with all details."""
    if form == "json":
        return json_text(plan.to_json())
    from planner.report import render

    if form == "csv":
        rows = plan.rows()
        return render.csv_text(list(rows[0]) if rows else [], [list(r.values()) for r in rows])
    sections = (hours_sections(plan) if details else hours_page(plan)) if plan.periods else _details(plan) if details else page_sections(plan)
    return render.markdown(sections) if form == "markdown" else render.terminal(sections)


def _details(plan: Plan) -> list[Section]:
    """All there is to say; changes from today's fleet after what to buy."""
    sections = plan_sections(plan)
    return [*sections[:2], *fleet_sections(plan), *sections[2:]]
