"""The command `plan`: with flags it solves; verbs stand beside it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.main import get_command

from planner.cli.autoscale import by_the_hour
from planner.cli.help import OUTPUT
from planner.cli.options import DetailsOption, Printed, deliver_plan, with_scenario_options
from planner.cli.verbs import Verbs
from planner.errors import ScenarioError
from planner.interrupts import answering

if TYPE_CHECKING:
    from typer._click.core import Command

    from planner.cli.clock import LapClock
    from planner.result.plan import Plan
    from planner.scenario.sources import Question


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """The options of the plan itself, as typed."""

    file: Annotated[Path | None, typer.Option("-f", "--file", help="scenario in TOML; flags win over it", metavar="FILE")] = None
    printed: Printed
    details: DetailsOption = False
    no_alternatives: Annotated[
        bool, typer.Option("--no-alternatives", help="the plan only, without what it is compared with", show_default=False, rich_help_panel=OUTPUT)
    ] = False
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="simulate the plan; where a limit is missed, load less and solve again, three rounds at most",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = False
    steps: Annotated[
        bool,
        typer.Option(
            "--steps",
            help="from --current to the cheapest plan in steps of at most --max-changes, each a plan that serves",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = False
    save_scenario: Annotated[Path | None, typer.Option("--save-scenario", help="write the scenario asked as TOML", metavar="FILE", rich_help_panel=OUTPUT)] = (
        None
    )
    timings: Annotated[bool, typer.Option("--timings", help="print how long each stage took to standard error", show_default=False, rich_help_panel=OUTPUT)] = (
        False
    )
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks", show_default=False, rich_help_panel=OUTPUT)] = False
    version: Annotated[bool, typer.Option("--version", help="print the version", show_default=False, rich_help_panel=OUTPUT)] = False


def plan(context: typer.Context, asked: dict[str, object], options: PlanOptions) -> None:
    """The cheapest LLM deployment that meets demand, quality floor and latency limits, proven optimal.

    plan --qps 200 --min-quality 0.8
    """
    if context.invoked_subcommand:
        return
    if options.version:
        from planner.version import planner_version

        typer.echo(planner_version())
        return
    options.printed.check()
    from planner.cli.clock import LapClock

    clock = LapClock(enabled=options.timings)
    from planner.scenario.sources import ask

    question = ask(asked, dict(os.environ), options.file)
    if options.save_scenario:
        from planner.files import write_result
        from planner.scenario.write import to_toml

        write_result(options.save_scenario, to_toml(question.scenario))
    if question.scenario.has_waiting:
        if options.verify:
            raise ScenarioError("requests that may wait are planned by the hour, which is not simulated here", "--verify", "save the plan for plan simulate")
        clock.lap("imports and scenario")
        by_the_hour(question, options.printed.form, options.printed.output, options.details)
        clock.lap("hours and report")
        return
    if options.steps:
        from planner.cli.steps import in_steps

        in_steps(question, options.printed)
        return
    with answering():
        answer = _answer(question, options.verify, not options.no_alternatives, clock)
        clock.lap("solve")
        from planner.report.formats import formatted

        deliver_plan(answer, lambda plan: formatted(plan, options.printed.form, options.details), options.printed.output)
        clock.lap("report")


def _answer(question: Question, verify: bool, compare: bool, clock: LapClock) -> Plan:
    """The plan; with ``verify`` one that held when it was simulated, or says that it did not."""
    from planner.catalog.load import load_catalog
    from planner.planning.solve import solve

    clock.lap("imports and scenario")
    loaded = None if question.scenario.tables.capacities else load_catalog(question.scenario.catalog)
    clock.lap("catalogue")
    if verify:
        from planner.planning.verify import solve_verified

        return solve_verified(question.scenario, loaded, compare=compare, origins=question.origins)
    return solve(question.scenario, loaded, compare=compare, origins=question.origins)


@cache
def command() -> Command:
    """The command with its verbs."""
    app = typer.Typer(cls=Verbs, rich_markup_mode=None, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]})
    app.callback(invoke_without_command=True)(with_scenario_options(plan))
    return get_command(app)
