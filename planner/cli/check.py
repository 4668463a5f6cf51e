"""`plan check` re-derives a saved plan from scenario and catalogue, without the program."""

from __future__ import annotations

import typer

from planner.cli.options import CatalogOption, say
from planner.cli.show import PlanFile, read_saved


def check(path: PlanFile, catalog: CatalogOption = None) -> None:
    """Check a saved plan independently: exit 0 if it holds, 1 if anything is breached."""
    from planner.catalog.load import load_catalog
    from planner.check.check import check_plan

    plan = read_saved(path)
    folders = catalog if catalog is not None else list(plan.scenario.catalog)
    loaded = load_catalog(folders)
    report = check_plan(plan, loaded)
    for line in report.checks:
        say(f"ok      {line}")
    for breach in report.breaches:
        say(f"BREACH  {breach.name}: {breach.where}: {breach.what}")
    say("the plan holds" if report.ok else f"{len(report.breaches)} breach{'' if len(report.breaches) == 1 else 'es'}")
    if not report.ok:
        raise typer.Exit(1)
