"""The verbs beside the plan itself, by where each lives: only the one asked for is imported and its options built."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group

from planner.cli.help import Verb, grouped
from planner.cli.options import bundled, with_scenario_options

if TYPE_CHECKING:
    from typer._click.core import Command, Context  # typer carries its own click
    from typer._click.formatting import HelpFormatter

VERBS = {  # in the order of --help; module of this folder, and its function or group
    "show": ("show", "show"),
    "report": ("report", "report"),
    "check": ("check", "check"),
    "simulate": ("simulate", "simulate"),
    "emit": ("emit", "emit"),
    "bench-script": ("bench_script", "bench_script"),
    "schema": ("show", "schema"),
    "predict": ("predict", "predict"),
    "validate": ("validate", "validate"),
    "calibrate": ("calibrate", "calibrate"),
    "drift": ("drift", "drift"),
    "curve": ("curve", "curve"),
    "frontier": ("frontier", "frontier"),
    "sweep": ("sweep", "sweep"),
    "api-vs-fleet": ("api_vs_fleet", "api_vs_fleet"),
    "autoscale": ("autoscale", "autoscale"),
    "contract": ("contract", "contract"),
    "compare": ("compare", "compare"),
    "explain": ("explain", "explain"),
    "sensitivity": ("sensitivity", "sensitivity"),
    "catalog": ("catalog", "app"),
    "serve": ("serve", "serve"),
    "cost": ("cost", "app"),
    "demand": ("demand", "app"),
    "import": ("imports", "app"),
}


@cache
def _verb(name: str) -> Command:
    module, attribute = VERBS[name]
    found = getattr(import_module(f"planner.cli.{module}"), attribute)
    if isinstance(found, typer.Typer):
        command: Command = get_group(found)
    else:
        asks = "asked" in inspect.signature(found).parameters
        alone = typer.Typer(add_completion=False, rich_markup_mode=None)
        alone.command(name, cls=Verb)(with_scenario_options(found) if asks else bundled(found))
        command = get_command(alone)
    command.name = name
    return command


class _Commands(Mapping[str, "Command"]):
    """Every verb by its name, built when it is looked up."""

    def __getitem__(self, name: str) -> Command:
        return _verb(name)

    def __iter__(self) -> Iterator[str]:
        return iter(VERBS)

    def __len__(self) -> int:
        return len(VERBS)


class Verbs(TyperGroup):
    """The command itself: its help is grouped, verbs last."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = cast("Any", _Commands())  # nothing is added to it

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Options under their headings, then the verbs."""
        grouped(self, ctx, formatter)
        self.format_commands(ctx, formatter)
