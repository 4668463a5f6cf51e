"""The command `plan`: with flags it solves; verbs stand beside it. Errors become one line and an exit status here."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from planner.cli import autoscale, catalog, check, compare, cost, curve, demand, explain, frontier, predict, sensitivity, show, simulate, sweep, validate
from planner.cli.options import FormatOption, OutputOption, check_writable, deliver, known_format, with_scenario_options
from planner.errors import PlannerError

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]})
app.command("show")(show.show)
app.command("check")(check.check)
app.command("simulate")(simulate.simulate)
app.command("schema")(show.schema)
app.command("predict")(predict.predict)
app.command("validate")(validate.validate)
app.command("curve")(curve.curve)
app.command("frontier")(with_scenario_options(frontier.frontier))
app.command("sweep")(with_scenario_options(sweep.sweep))
app.command("autoscale")(with_scenario_options(autoscale.autoscale))
app.command("compare")(compare.compare)
app.command("explain")(with_scenario_options(explain.explain))
app.command("sensitivity")(with_scenario_options(sensitivity.sensitivity))
app.add_typer(catalog.app, name="catalog")
app.add_typer(cost.app, name="cost")
app.add_typer(demand.app, name="demand")
app.add_typer(demand.imports, name="import")


def plan(
    context: typer.Context,
    asked: dict[str, Any],
    file: Annotated[Path | None, typer.Option("-f", "--file", help="scenario in TOML; flags win over it", metavar="FILE")] = None,
    form: FormatOption = "table",
    output: OutputOption = None,
    no_alternatives: Annotated[bool, typer.Option("--no-alternatives", help="the plan only, without what it is compared with", show_default=False)] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="simulate the plan; where a limit is missed, load less and solve again, three rounds at most", show_default=False)
    ] = False,
    save_scenario: Annotated[Path | None, typer.Option("--save-scenario", help="write the scenario asked as TOML", metavar="FILE")] = None,
    timings: Annotated[bool, typer.Option("--timings", help="print how long each stage took to standard error", show_default=False)] = False,
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks", show_default=False)] = False,  # noqa: ARG001 - main reads it
    version: Annotated[bool, typer.Option("--version", help="print the version", show_default=False)] = False,
) -> None:
    """The cheapest LLM deployment that meets demand, quality floor and latency limits, proven optimal.

    plan --qps 200 --min-quality 0.8
    """
    if context.invoked_subcommand:
        return
    if version:
        from planner.planning.version import planner_version

        typer.echo(planner_version())
        return
    known_format(form)
    check_writable(output)
    from planner.cli.clock import Clock

    clock = Clock(enabled=timings)
    from planner.scenario.sources import ask

    question = ask(asked, dict(os.environ), file)
    if save_scenario:
        from planner.report.formats import write_whole
        from planner.scenario.write import to_toml

        write_whole(save_scenario, to_toml(question.scenario))
    from planner.catalog.load import load_catalog
    from planner.planning.solve import solve

    clock.lap("imports and scenario")
    loaded = None if question.scenario.tables.capacities else load_catalog(question.scenario.catalog)
    clock.lap("catalogue")
    if verify:
        from planner.planning.verify import solve_verified

        answer = solve_verified(question.scenario, loaded, compare=not no_alternatives, origins=question.origins)
    else:
        answer = solve(question.scenario, loaded, compare=not no_alternatives, origins=question.origins)
    clock.lap("solve")
    from planner.report.formats import formatted

    deliver(formatted(answer, form), output)
    clock.lap("report")
    if answer.status != "optimal":
        raise typer.Exit(3)


app.callback(invoke_without_command=True)(with_scenario_options(plan))


def main(arguments: list[str] | None = None) -> None:
    """Runs the command and ends the process with the documented exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in words
    try:
        status = app(args=words, prog_name="plan", standalone_mode=False)
    except PlannerError as error:
        if debug:
            raise
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted", 4)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise SystemExit(0) from None
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # a group without a verb: its help is the message
            typer.echo(error.format_message(), err=True)  # type: ignore[attr-defined]
            raise SystemExit(2) from None
        if hasattr(error, "format_message"):  # a usage error of the command-line library
            _fail(_usage(error), 2)
        if debug:
            raise
        _fail(f"internal error: {type(error).__name__}: {error} (please report it; --debug shows where)", 4)
    raise SystemExit(status if isinstance(status, int) else 0)


def _usage(error: Any) -> str:
    message = " ".join(str(error.format_message()).split())
    return f"{message.rstrip('.')} (plan --help)"


def _fail(message: str, status: int) -> None:
    kind = "" if message.startswith("infeasible") else "error: "
    typer.echo(f"{kind}{' '.join(message.split())}", err=True)
    raise SystemExit(status)
