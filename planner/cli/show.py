"""`plan show` prints a saved plan again; `plan schema` prints the JSON contract."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner import limits
from planner.catalog.files import read_text
from planner.cli.options import DetailsOption, FormatOption, OutputOption, check_writable, deliver, known_format
from planner.errors import PlannerError

if TYPE_CHECKING:
    from planner.result.contract import Contract
    from planner.result.plan import Plan

CONTRACT = re.compile(r'"kind": ?"contract"')  # what a saved contract begins with
PlanFile = Annotated[Path, typer.Argument(help="a plan saved with --format json; - for standard input", metavar="PLAN.json")]


def read_plan(path: Path) -> Plan:
    """A saved plan of one hour. Raises PlannerError for what is not one."""
    saved = read_saved(path)
    if saved.periods:
        raise PlannerError("is a plan by the hour", str(path), "plan show, plan check and plan simulate read it")
    return saved


def read_saved(path: Path) -> Plan:
    """A saved plan of any kind. Raises PlannerError for what is none."""
    from pydantic import ValidationError

    from planner.result.plan import SCHEMA_VERSION, Plan

    text = read_text(Path("/dev/stdin") if str(path) == "-" else path, limits.PLAN_BYTES, "plan")
    try:
        plan = Plan.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(p) for p in first["loc"])
        raise PlannerError(f"not a plan: {where + ': ' if where else ''}{first['msg']}", str(path), "save one with plan -o plan.json") from None
    if plan.schema_version > SCHEMA_VERSION:
        raise PlannerError(f"written by a newer planner (schema {plan.schema_version})", str(path), "upgrade inference-planner")
    return plan


@contextmanager
def fitting(path: Path | str) -> Iterator[None]:
    """While a saved plan is read as a whole: each part of it is one, but one may refer to another that is not there. Raises PlannerError for that."""
    try:
        yield
    except (LookupError, ValueError, ArithmeticError, TypeError):
        raise PlannerError("its parts do not fit together", str(path), "plan check tells which") from None


def read_contract(path: Path) -> Contract | None:
    """A saved contract; None for anything else. Raises PlannerError for a contract whose parts are none."""
    from pydantic import ValidationError

    from planner.result.contract import Contract

    text = "" if str(path) == "-" else read_text(path, limits.PLAN_BYTES, "plan")
    if not CONTRACT.search(text[:200]):
        return None
    try:
        return Contract.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(p) for p in first["loc"])
        what = f"not a contract: {where + ': ' if where else ''}{first['msg']}"
        raise PlannerError(what, str(path), "save one with plan contract -o contract.json") from None


def show(path: PlanFile, form: FormatOption = "table", output: OutputOption = None, details: DetailsOption = False) -> None:
    """Print a saved plan again, in any format."""
    known_format(form)
    check_writable(output)
    from planner.report.formats import formatted

    saved = read_saved(path)
    with fitting(path):
        _ = [saved.deployments[r.deployment] for w in saved.workloads for r in w.routing]  # pages of APIs alone name none
        text = formatted(saved, form, details)
    deliver(text, output)


def schema(output: OutputOption = None) -> None:
    """Print the JSON Schema of a plan."""
    check_writable(output)
    from planner.report.formats import plan_schema

    deliver(plan_schema(), output)
