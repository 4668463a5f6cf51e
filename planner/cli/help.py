"""How --help reads: options under the headings a user thinks in, in plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typer.core import TyperCommand

if TYPE_CHECKING:
    from typer._click.core import Command, Context  # typer carries its own click
    from typer._click.formatting import HelpFormatter

DEMAND, QUALITY, SUPPLY, POLICY, OUTPUT = "Demand", "Quality and latency", "Supply", "Policy", "Output"
MEASURED = "Measured engine, where the files do not say it (or in bench.meta.toml beside them)"
HEADINGS = ("Arguments", "Options", MEASURED, DEMAND, QUALITY, SUPPLY, POLICY, OUTPUT)
OF_WORKLOADS = {"min_quality", "mean_quality", "quality_metric", "slo", "max_waiting_share", "max_refused"}  # its other fields are demand
OF_PARTS = {"supply": SUPPLY, "policy": POLICY, "solver": POLICY, "objective": POLICY, "what_if": POLICY, "catalog": SUPPLY}
OF_TABLES = {"demand": DEMAND, "capacities": SUPPLY}


def heading(path: tuple[str, ...]) -> str:
    """The heading of a scenario's field."""
    part, name = path[0], path[-1]
    if part == "workload":
        return QUALITY if name in OF_WORKLOADS else SUPPLY if name == "models" else DEMAND
    return OF_TABLES.get(name, POLICY) if part == "tables" else OF_PARTS.get(part, POLICY)


def grouped(command: Command, context: Context, formatter: HelpFormatter) -> None:
    """Writes the options of a command under their headings; those without one are its own."""
    found: dict[str, list[tuple[str, str]]] = {}
    for option in command.get_params(context):
        record = option.get_help_record(context)
        if record:
            own = "Arguments" if option.param_type_name == "argument" else "Options"
            found.setdefault(getattr(option, "rich_help_panel", None) or own, []).append(record)
    for name in sorted(found, key=lambda n: HEADINGS.index(n) if n in HEADINGS else 0):
        with formatter.section(name):
            formatter.write_dl(found[name])


class Verb(TyperCommand):
    """A verb whose help is grouped."""

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Options under their headings."""
        grouped(self, ctx, formatter)
