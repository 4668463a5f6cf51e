"""Options shared by the verbs, and the scenario's own options generated from its fields."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from planner.clean import plain
from planner.cli.help import OUTPUT, QUALITY, heading
from planner.errors import PlannerError, did_you_mean
from planner.interrupts import seen
from planner.scenario.fields import askables
from planner.scenario.part import Flag

if TYPE_CHECKING:
    from planner.result.plan import Plan

FORMATS = ("table", "json", "csv", "markdown")
COLOURS = re.compile(r"\x1b\[[\d;]*m")  # of a table made for a terminal

BY_SUFFIX = {".json": "json", ".csv": "csv", ".md": "markdown"}  # what a file is to hold where no format is named


def _named_or_by_suffix(context: typer.Context, value: str) -> str:
    """The format named, else that of the output's suffix. Options that are not given are read after those that are, so the output is known."""
    source = context.get_parameter_source("form")
    return value if source and source.name != "DEFAULT" else BY_SUFFIX.get(Path(context.params.get("output") or "").suffix.lower(), value)


FORMAT_HELP = "table, json, csv or markdown; else by the suffix of the output, else a table"
FormatOption = Annotated[
    str, typer.Option("--format", help=FORMAT_HELP, metavar="FORMAT", show_default=False, rich_help_panel=OUTPUT, callback=_named_or_by_suffix)
]
OutputOption = Annotated[
    str | None, typer.Option("-o", "--output", help="write here instead of the terminal; - is the terminal", metavar="FILE", rich_help_panel=OUTPUT)
]
DetailsOption = Annotated[bool, typer.Option("--details", help="everything there is to say, not the short page", show_default=False, rich_help_panel=OUTPUT)]
TpOption = Annotated[int, typer.Option("--tp", help="GPUs that share every layer", metavar="N", min=1)]
PpOption = Annotated[int, typer.Option("--pp", help="pipeline stages", metavar="N", min=1)]
DpOption = Annotated[int, typer.Option("--dp", help="groups of attention data parallel among the GPUs of --tp", metavar="N", min=1)]
EpOption = Annotated[int, typer.Option("--ep", help="GPUs that whole experts are spread over", metavar="N", min=1)]
KvCacheOption = Annotated[str, typer.Option("--kv-cache-dtype", help="auto (the checkpoint's usual one), fp8 or 16-bit", metavar="DTYPE")]
CatalogOption = Annotated[
    list[str] | None, typer.Option("--catalog", help="folder with cards, prices, GPUs of your own; they win over the shipped ones", metavar="DIR")
]


@dataclass(frozen=True)
class Printed:
    """How a result is printed, and where to."""

    form: FormatOption = "table"
    output: OutputOption = None

    def check(self) -> None:
        """Refuses an unknown format and an unwritable output before any work. Raises PlannerError."""
        known_format(self.form)
        check_writable(self.output)


SHORTHANDS = {
    "ttft": "longest time to first token, such as 2s (none: no limit)",
    "tpot": "longest time per output token after the first, such as 50ms (none: no limit)",
    "itl": "longest time between two tokens, over all tokens, such as 80ms",
    "e2e": "longest time for a whole request, such as 30s",
    "percentile": "percentile at which --ttft, --tpot, --tps-user, --itl and --e2e hold (95)",
    "tps_user": "least tokens per second of one user once the answer runs: --tpot said the other way",
}
INTERRUPTED = "interrupted: it was not the time limit that ended the search, where one is named"
METAVARS = {"percentile": "P", "tps_user": "RATE"}


def with_scenario_options(function: Callable[..., None]) -> Callable[..., None]:
    """Gives a command all scenario options; it receives the values given as one dict ``asked``."""
    function = bundled(function)
    own = [p for p in inspect.signature(function, eval_str=True).parameters.values() if p.name != "asked"]
    generated = [_parameter(a.parameter, a.flag, a.is_switch, a.is_many, heading(a.path)) for a in askables()]
    shorthands = [Flag(f"--{n.replace('_', '-')}", text, METAVARS.get(n, "TIME")) for n, text in SHORTHANDS.items()]
    generated += [_parameter(n, flag, False, False, QUALITY) for n, flag in zip(SHORTHANDS, shorthands, strict=True)]
    names = [p.name for p in generated]

    def command(**values: object) -> None:
        asked = {n: values.pop(n) for n in names}
        function(asked={n: v for n, v in asked.items() if v not in (None, False, [], ())}, **values)

    return _as_command(command, function, [*own, *generated])


def bundled(function: Callable[..., None]) -> Callable[..., None]:
    """Gives a command one option for each field of the frozen records that it takes (and of records in them); it receives the records."""
    own = list(inspect.signature(function, eval_str=True).parameters.values())
    records = {p.name: p.annotation for p in own if is_dataclass(p.annotation)}
    if not records:
        return function

    def command(**values: object) -> None:
        found = {name: _gathered(kind, values) for name, kind in records.items()}
        function(**values, **found)

    return _as_command(command, function, [q for p in own for q in (_spread(p.annotation) if p.name in records else (p,))])


def _spread(record: Any) -> Iterator[inspect.Parameter]:
    """A record's fields as parameters, in their order."""
    kinds = get_type_hints(record, include_extras=True)
    for field in fields(record):
        if is_dataclass(kinds[field.name]):
            yield from _spread(kinds[field.name])
        else:
            default = inspect.Parameter.empty if field.default is MISSING else field.default
            yield inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kinds[field.name])


def _gathered(record: Any, values: dict[str, object]) -> Any:
    """The record out of the values of its fields, which are taken out."""
    kinds = get_type_hints(record, include_extras=True)
    return record(**{f.name: _gathered(kinds[f.name], values) if is_dataclass(kinds[f.name]) else values.pop(f.name) for f in fields(record)})


def _as_command(command: Callable[..., None], function: Callable[..., None], parameters: list[inspect.Parameter]) -> Callable[..., None]:
    """A command that shows these parameters in place of the function's own."""
    shown: Any = command  # a function takes any attribute
    shown.__signature__ = inspect.Signature([p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters])
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    command.__doc__ = function.__doc__
    command.__name__ = function.__name__
    return command


def _parameter(name: str, flag: Flag, is_switch: bool, is_many: bool, under: str) -> inspect.Parameter:
    kind: Any = bool if is_switch else (list[str] | None if is_many else str | None)
    metavar = None if is_switch else flag.metavar
    option = typer.Option(flag.name, help=flag.help, metavar=metavar, show_default=False, rich_help_panel=under)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False if is_switch else None, annotation=Annotated[kind, option])


def known_format(form: str, allowed: tuple[str, ...] = FORMATS) -> str:
    """The format, checked. Raises PlannerError."""
    if form not in allowed:
        raise PlannerError(f"unknown format '{form}'", "--format", did_you_mean(form, allowed) or f"one of {', '.join(allowed)}")
    return form


def say(text: str, err: bool = False) -> None:
    """One line for a person, without control characters."""
    typer.echo(plain(text), err=err)


def deliver(text: str, output: str | None) -> None:
    """Result to the terminal or, whole and without colours, to a file."""
    from planner.files import write_result

    if output in (None, "-"):
        typer.echo(text, nl=False)
    else:
        write_result(str(output), COLOURS.sub("", text))


def deliver_plan(plan: Plan, text_of: Callable[[Plan], str], output: str | None) -> None:
    """A plan just made, to the terminal or a file; exit status 5 where it sheds some of the demand, 3 where the search for it was stopped early."""
    early = seen()
    if early:
        plan = plan.model_copy(update={"warnings": (INTERRUPTED, *plan.warnings)})
    deliver(text_of(plan), output)
    if any(row.share for row in plan.shed):
        raise typer.Exit(5)
    if plan.status != "optimal" or early:
        raise typer.Exit(3)


def check_writable(output: str | None) -> None:
    """Refuses an unwritable output before any work. Raises PlannerError."""
    from planner.files import check_target

    if output not in (None, "-"):
        check_target(str(output))
    elif sys.stdout is None:
        raise PlannerError("cannot write the output: it is closed", "standard output", "name a file with -o")
