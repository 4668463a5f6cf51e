"""`plan contract` says what to commit to now and what to buy by the hour, over months of growing traffic and futures with probabilities."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from planner.cli.options import Printed
from planner.cli.study import FileOption, deliver_study
from planner.errors import ScenarioError
from planner.interrupts import answering

if TYPE_CHECKING:
    from planner.scenario.outlook import Outlook
    from planner.scenario.records import Scenario

OUTLOOK = "Outlook"


def _option(flag: str, text: str, metavar: str) -> object:
    return typer.Option(flag, help=text, metavar=metavar, show_default=False, rich_help_panel=OUTLOOK)


@dataclass(frozen=True)
class OutlookOptions:
    """The outlook as flags; what is not given stays as the scenario's file has it."""

    months: Annotated[int | None, _option("--months", "months ahead, up to 36 (12)", "N")] = None
    monthly_growth: Annotated[str | None, _option("--monthly-growth", "growth of all traffic a month, such as 5%", "SHARE")] = None
    future: Annotated[
        list[str] | None, _option("--future", "one way it may go: a factor on all traffic and its probability, such as low=0.7@25%", "FUTURE")
    ] = None
    growth_spread: Annotated[float | None, _option("--growth-spread", "draw the futures: standard deviation of a year's growth (of its logarithm)", "X")] = None
    draws: Annotated[int | None, _option("--draws", "how many futures are drawn (5)", "N")] = None
    commit: Annotated[list[str] | None, _option("--commit", "a term to be had and its discount on the price by the hour, such as 1y=30%", "TERM=SHARE")] = None
    upfront: Annotated[float | None, _option("--upfront", "share of a commitment that is paid when it is signed", "SHARE")] = None
    cost_of_capital: Annotated[float | None, _option("--cost-of-capital", "what money costs a year, as a share", "SHARE")] = None
    risk: Annotated[str | None, _option("--max-risk", "mean cost of the dearest futures: 0.9=120/h (a tenth of all), worst=120/h", "LEVEL=MONEY")] = None


def contract(
    asked: dict[str, object],
    *,
    file: FileOption = None,
    outlook: OutlookOptions,
    printed: Printed,
) -> None:
    """Find what to commit to now, and what to buy by the hour beside it, for the months and futures ahead.

    plan contract --qps 200 --min-quality 0.8 --profile m-small --monthly-growth 5% --commit 1y=30%
    """
    printed.check()
    from planner.scenario.sources import ask

    question = ask(asked, dict(os.environ), file)
    whole = _outlook(question.scenario, outlook)
    from planner.planning.contract import contract as planned
    from planner.report.contract import contract_payload, contract_rows, contract_sections

    with answering():
        found = planned(question.scenario.model_copy(update={"outlook": None}), whole, origins=question.origins)
    deliver_study(printed.form, printed.output, contract_sections(found), contract_payload(found), contract_rows(found))
    if found.status != "optimal":
        raise typer.Exit(3)


def _outlook(scenario: Scenario, given: OutlookOptions) -> Outlook:
    """The outlook of flags over file. Raises ScenarioError naming the flag."""
    from pydantic import ValidationError

    from planner.catalog.files import message_of
    from planner.scenario.outlook import Outlook

    flags = {name: value for name, value in asdict(given).items() if value is not None}
    try:
        if isinstance(growth := flags.get("monthly_growth"), str):
            flags["monthly_growth"] = float(growth[:-1]) / 100 if growth.endswith("%") else float(growth)
    except ValueError:
        raise ScenarioError(f"'{growth}' is no growth", "--monthly-growth", "write 5% or 0.05") from None
    before = scenario.outlook.model_dump(mode="json", exclude_unset=True) if scenario.outlook else {}
    if "future" in flags:
        before.pop("growth_spread", None)
    if "growth_spread" in flags:
        before.pop("future", None)
    try:
        return Outlook.model_validate(before | flags)
    except ValidationError as error:
        first = error.errors()[0]
        place = (*first["loc"], *first.get("ctx", {}).get("at", ()))
        name = str(place[0]) if place else "months"
        flag = "--max-risk" if name == "risk" else f"--{name.replace('_', '-')}"
        raise ScenarioError(message_of(first), flag if name in flags or name == "risk" else f"outlook.{name}") from None
