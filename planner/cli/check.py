"""`plan check` re-derives a saved plan from scenario and catalogue, without the program."""

from __future__ import annotations

import typer

from planner.cli.options import CatalogOption, say
from planner.cli.show import PlanFile, read_contract, read_saved


def check(path: PlanFile, catalog: CatalogOption = None) -> None:
    """Check a saved plan or contract independently: exit 0 if it holds, 1 if anything is breached."""
    from planner.catalog.load import load_catalog
    from planner.check.check import check_plan

    if (contract := read_contract(path)) is not None:
        from planner.check.contract import check_contract

        report = check_contract(contract, load_catalog(catalog if catalog is not None else list(contract.scenario.catalog)))
    else:
        plan = read_saved(path)
        report = check_plan(plan, load_catalog(catalog if catalog is not None else list(plan.scenario.catalog)))
    for line in report.checks:
        say(f"ok      {line}")
    for breach in report.breaches:
        say(f"BREACH  {breach.name}: {breach.where}: {breach.what}")
    say(f"the {'plan' if contract is None else 'contract'} holds" if report.ok else f"{len(report.breaches)} breach{'' if len(report.breaches) == 1 else 'es'}")
    if not report.ok:
        raise typer.Exit(1)
