"""A plan in each output format, and writing files whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from planner.errors import PlannerError
from planner.plan import Plan
from planner.report.sections import plan_sections


def formatted(plan: Plan, form: str) -> str:
    """The plan as text: json, csv, markdown or table."""
    if form == "json":
        return plan.to_json()
    from planner.report import render

    if form == "csv":
        rows = [d.flat() for d in plan.deployments]
        return render.csv_text(list(rows[0]) if rows else [], [list(r.values()) for r in rows])
    sections = plan_sections(plan)
    return render.markdown(sections) if form == "markdown" else render.terminal(sections)


def write_whole(path: Path, text: str) -> None:
    """Writes a file whole or not at all. Raises PlannerError when it cannot be written."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent or Path(), prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise PlannerError(f"cannot write the output: {error.strerror}", str(path), "choose another path with -o") from None
