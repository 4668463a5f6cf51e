"""What the verbs that ask many questions share: where to run, progress on a terminal, and output in every format."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.clean import plain
from planner.cli.options import deliver, say
from planner.errors import PlannerError

if TYPE_CHECKING:
    from planner.catalog.catalog import Catalog
    from planner.economics.runs import Where
    from planner.report.sections import Section
    from planner.scenario.records import Scenario

FileOption = Annotated[Path | None, typer.Option("-f", "--file", help="scenario in TOML; flags win over it", metavar="FILE")]
KeepOption = Annotated[
    Path | None, typer.Option("--keep", help="folder for finished answers, found again when asked once more (default: the user's cache)", metavar="DIR")
]
FreshOption = Annotated[bool, typer.Option("--fresh", help="neither use nor keep finished answers", show_default=False)]
SchedulerOption = Annotated[str, typer.Option("--scheduler", help="Dask scheduler to solve on, such as tcp://host:8786", metavar="URL", show_default=False)]
WorkersOption = Annotated[int, typer.Option("--workers", help="threads to solve in (as many as cores)", metavar="N", min=0, show_default=False)]


@dataclass(frozen=True)
class Answers:
    """Where the questions of a study are answered, and where answers are kept."""

    keep: KeepOption = None
    fresh: FreshOption = False
    scheduler: SchedulerOption = ""
    workers: WorkersOption = 0

    def where(self) -> Where:
        """As asked. Raises PlannerError for an unusable --keep."""
        return where_of(self.keep, self.fresh, self.scheduler, self.workers)


def asked_scenario(asked: dict[str, object], file: Path | None) -> tuple[Scenario, Catalog]:
    """The scenario of flags, environment and file, and its catalogue. Raises ScenarioError and CatalogError."""
    from planner.candidates.offers import with_known_names
    from planner.catalog.load import load_catalog
    from planner.scenario.profiles import flat
    from planner.scenario.sources import ask

    scenario = ask(asked, dict(os.environ), file).scenario
    if scenario.tables.capacities:
        raise PlannerError("studies need the catalogue; one's own capacities can only be planned", "--capacities")
    say_held([scenario])
    catalog = load_catalog(scenario.catalog)
    return flat(with_known_names(scenario, catalog)), catalog


def say_held(scenarios: Iterable[Scenario]) -> None:
    """Says on standard error what a study's prices mean where requests may wait."""
    if any(s.has_waiting for s in scenarios):
        from planner.scenario.profiles import HELD

        say(f"note: {HELD}", err=True)


def where_of(keep: Path | None, fresh: bool, scheduler: str, workers: int) -> Where:
    """Where to run, as asked. Without a usable cache of the user's nothing is kept, and that is told. Raises PlannerError for an unusable --keep."""
    from planner.economics.runs import Where
    from planner.economics.store import usable, users_folder

    if keep is not None and not fresh:
        usable(keep)
    folder = None if fresh else keep or users_folder()
    if folder is None and not fresh:
        _tell("answers are not kept: there is no home folder (name one with --keep)")
    return Where(folder, scheduler, workers, _tell)


@cache
def _tell(text: str) -> None:
    """On standard error, once."""
    say(f"note: {text}", err=True)


@contextmanager
def progress(words: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error, only on a terminal; wanted = 0 counts without an end."""
    if not sys.stderr.isatty():
        from planner.economics.runs import quietly

        yield quietly
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(plain(words)), total=None)
        yield lambda there, wanted: bar.update(task, completed=there, total=wanted or None)


def deliver_study(form: str, output: str | None, sections: Sequence[Section], payload: object, rows: Sequence[dict[str, object]]) -> None:
    """The study as table, Markdown, JSON (``payload``) or CSV (``rows``)."""
    from planner.report import render

    if form == "json":
        deliver(json.dumps(payload, indent=1) + "\n", output)
    elif form == "csv":
        header = list(dict.fromkeys(k for r in rows for k in r))
        deliver(render.csv_text(header, [[r.get(k, "") for k in header] for r in rows]), output)
    else:
        deliver(render.markdown(sections) if form == "markdown" else render.terminal(sections), output)
