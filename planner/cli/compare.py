"""`plan compare` puts scenarios or saved plans side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.cli.charts import Charted, draw
from planner.cli.show import read_plan
from planner.cli.study import Answers, deliver_study, progress, say_held
from planner.errors import PlannerError

if TYPE_CHECKING:
    from planner.economics.compare import Compared
    from planner.economics.runs import Where

Files = Annotated[list[Path], typer.Argument(help="scenarios in TOML (each may hold several, [scenario.NAME]), or plans saved as JSON", metavar="FILE…")]


def compare(
    files: Files,
    *,
    printed: Charted,
    kept: Answers,
) -> None:
    """Compare plans: cost, GPUs, quality, latency, and why they differ.

    plan compare today.toml cheaper.toml
    """
    printed.check()
    where = kept.where()
    found = _plans(files) if all(f.suffix == ".json" for f in files) else _scenarios(files, where)
    if len(found) < 2:
        raise PlannerError("there is only one scenario; nothing to compare it with", str(files[0]), "add [scenario.NAME] tables or another file")
    from planner.report import studies
    from planner.report.charts import comparison_chart

    draw(printed.chart, lambda: comparison_chart(found))
    deliver_study(printed.form, printed.output, studies.compare_sections(found), studies.compare_payload(found), studies.compare_rows(found))


def _plans(files: list[Path]) -> tuple[Compared, ...]:
    from planner.economics.compare import compare_plans

    return compare_plans([(f.stem, read_plan(f)) for f in files])


def _scenarios(files: list[Path], where: Where) -> tuple[Compared, ...]:
    from planner.candidates.offers import with_known_names
    from planner.catalog.load import load_catalog
    from planner.economics.compare import compare as beside
    from planner.economics.compare import scenarios_in

    if odd := [f for f in files if f.suffix == ".json"]:
        raise PlannerError("saved plans and scenarios cannot be compared with each other", str(odd[0]), "plan each scenario and save it with --format json")
    named = [pair for f in files for pair in scenarios_in(f)]
    say_held(s for _, s in named)
    folders = {s.catalog for _, s in named}
    if len(folders) > 1:
        raise PlannerError("the scenarios name different catalogues", str(files[0]), "save their plans with --format json and compare those")
    catalog = load_catalog(folders.pop())
    with progress("scenarios") as done:
        return beside([(name, with_known_names(s, catalog)) for name, s in named], catalog, where, done)
