"""`plan show` prints a saved plan again; `plan schema` prints the JSON contract."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.cli.options import FormatOption, OutputOption, check_writable, deliver, known_format
from planner.errors import PlannerError

if TYPE_CHECKING:
    from planner.plan import Plan

PlanFile = Annotated[Path, typer.Argument(help="a plan saved with --format json; - for standard input", metavar="PLAN.json")]


def read_plan(path: Path) -> Plan:
    """A saved plan. Raises PlannerError for what is not one."""
    from pydantic import ValidationError

    from planner.plan import SCHEMA_VERSION, Plan

    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise PlannerError(f"cannot read the plan: {reason}", str(path)) from None
    try:
        plan = Plan.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(p) for p in first["loc"])
        raise PlannerError(f"not a plan: {where + ': ' if where else ''}{first['msg']}", str(path), "save one with plan --format json -o plan.json") from None
    if plan.schema_version > SCHEMA_VERSION:
        raise PlannerError(f"written by a newer planner (schema {plan.schema_version})", str(path), "upgrade inference-planner")
    return plan


def show(path: PlanFile, form: FormatOption = "table", output: OutputOption = None) -> None:
    """Print a saved plan again, in any format."""
    known_format(form)
    check_writable(output)
    from planner.report.formats import formatted

    deliver(formatted(read_plan(path), form), output)


def schema(output: OutputOption = None) -> None:
    """Print the JSON Schema of a plan."""
    import json

    from planner.plan import Plan

    check_writable(output)
    deliver(json.dumps(Plan.model_json_schema(), indent=1, sort_keys=True) + "\n", output)
