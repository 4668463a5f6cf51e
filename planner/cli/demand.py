"""`plan demand show` describes a trace, a demand file or a shipped shape."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.cli.options import FormatOption, OutputOption, check_writable, deliver, known_format
from planner.cli.study import progress
from planner.errors import PlannerError

if TYPE_CHECKING:
    from planner.demand.records import Demand

app = typer.Typer(help="What streams of requests look like.", no_args_is_help=True, rich_markup_mode=None)

AsOption = Annotated[
    str,
    typer.Option("--as", help="azure, burstgpt, mooncake, litellm, openai, normal, prometheus (found out if not given)", metavar="FORMAT", show_default=False),
]
MapOption = Annotated[
    list[str] | None,
    typer.Option("--map", help="columns of any table: ts=COLUMN[:ms],isl=COLUMN,osl=COLUMN (also cached, reasoning, model, status)", metavar="MAP"),
]
ModelOption = Annotated[str, typer.Option("--model", help="count the requests of this model alone", metavar="NAME", show_default=False)]


@app.command("show")
def show(
    name: Annotated[
        str, typer.Argument(help="trace, log, metrics, demand TOML, histogram CSV or shipped shape; none: list the shapes", metavar="FILE|NAME")
    ] = "",
    as_format: AsOption = "",
    mapped: MapOption = None,
    model: ModelOption = "",
    form: FormatOption = "table",
    output: OutputOption = None,
) -> None:
    """Print requests, rates, burstiness, lengths and what was dropped, with both histograms.

    plan demand show azure-2023-conv
    """
    known_format(form)
    check_writable(output)
    from planner.demand.source import shapes
    from planner.report.demand import formatted, listed

    deliver(formatted(read_any(name, as_format, mapped, model), form) if name else listed(shapes(), form), output)


def read_any(name: str, as_format: str, mapped: list[str] | None, model: str) -> Demand:
    """The demand of a file or shape. Raises PlannerError."""
    from planner.catalog.files import is_file
    from planner.demand.source import imported, is_file_of_counts, read_demand, shapes

    path = Path(name)
    if not is_file(path) and name not in shapes() and (as_format or mapped):
        raise PlannerError("no such file", name)
    if not is_file(path) or (is_file_of_counts(path) and not as_format and not mapped):
        return read_demand(name)
    with progress(f"reading {path.name}") as done:
        return imported(path, as_format, _pairs(mapped), model, done)


def _pairs(mapped: list[str] | None) -> Mapping[str, str]:
    """part=COLUMN of texts that may hold several, with commas between. Raises PlannerError."""
    found = {}
    for text in (t for one in mapped or () for t in one.split(",")):
        part, equals, column = text.partition("=")
        if not equals or not part.strip() or not column.strip():
            raise PlannerError(f"'{text}' is not part=COLUMN", "--map", "such as ts=time,isl=prompt_tokens,osl=completion_tokens")
        found[part.strip()] = column.strip()
    return found
