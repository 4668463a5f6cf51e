"""`plan report` writes the document for a capacity review: a page, Markdown for a pull request, a workbook, CSV or FOCUS rows."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.cli.options import deliver, say
from planner.cli.show import fitting, read_contract, read_saved
from planner.cli.study import Answers, FileOption, progress, say_held
from planner.errors import PlannerError, did_you_mean

if TYPE_CHECKING:
    from planner.catalog.catalog import Catalog
    from planner.economics.compare import Compared
    from planner.economics.review import Wanted
    from planner.economics.runs import Done, Where
    from planner.report.review.focus import Months
    from planner.result.contract import Contract
    from planner.result.plan import Plan
    from planner.scenario.records import Scenario
    from planner.scenario.sources import Origins

CONTRACT_FORMS = ("html", "markdown")
Files = Annotated[
    list[str] | None,
    typer.Argument(
        help="plans saved as JSON, or scenarios in TOML (each may hold several, [scenario.NAME]); - for a plan on standard input", metavar="[FILE]…"
    ),
]


@dataclass(frozen=True, kw_only=True)
class Written:
    """How the review is written, and where to."""

    outputs: Annotated[
        list[str] | None,
        typer.Option("-o", "--output", help="write here, the form by the name's end; more than one may be given; - is the terminal", metavar="FILE"),
    ] = None
    form: Annotated[
        str, typer.Option("--format", help="html, markdown (the usual one without -o), xlsx, csv or focus", metavar="FORMAT", show_default=False)
    ] = ""
    without: Annotated[list[str] | None, typer.Option("--without", help="leave a part out: prudent, frontier, curve, …", metavar="PART")] = None
    what_if: Annotated[
        str, typer.Option("--what-if", help="size of the what-if grid: rates x floors x TTFT limits (5x4x3), or none", metavar="SIZE", show_default=False)
    ] = ""
    patience: Annotated[str, typer.Option("--patience", help="longest that a part may be expected to take; longer ones are left out", metavar="TIME")] = "30s"

    start: Annotated[str, typer.Option("--start", help="first month of FOCUS rows (the next)", metavar="YYYY-MM", show_default=False)] = ""
    months: Annotated[int, typer.Option("--months", help="months of FOCUS rows", metavar="N")] = 12

    def targets(self) -> list[tuple[str, str]]:
        """(path, form) of everything to write, checked before any work. Raises PlannerError."""
        from planner.cli.options import check_writable
        from planner.report.review.writers import check_form, form_of

        found = []
        for path in self.outputs or ["-"]:
            form = self.form or ("markdown" if path == "-" else form_of(path))
            check_form(form)
            if form == "xlsx" and path == "-":
                raise PlannerError("a workbook is no text for a terminal", "-o", "name a file, such as review.xlsx")
            check_writable(path)
            found.append((path, form))
        return found

    def over(self) -> Months:
        """The months of FOCUS rows. Raises PlannerError."""
        from datetime import datetime

        from planner.report.review.focus import months

        return months(self.start, self.months, datetime.now(UTC).date())

    def wanted(self) -> Wanted:
        """The parts to gather. Raises PlannerError."""
        from planner.economics.review import PARTS, Wanted
        from planner.economics.whatif import grid_size
        from planner.scenario.units import parse_duration_s

        for name in self.without or ():
            if name not in PARTS:
                raise PlannerError(f"there is no part '{name}'", "--without", did_you_mean(name, PARTS) or f"one of {', '.join(PARTS)}")
        size = grid_size(self.what_if) if self.what_if else None
        try:
            patience = parse_duration_s(self.patience)
        except ValueError as error:
            raise PlannerError(f"'{self.patience}' {error}", "--patience", "such as 2min") from None
        return Wanted((*(self.without or ()), *(["what-if"] if self.what_if == "none" else [])), size, patience)


@dataclass(frozen=True)
class _Asked:
    """What the review is of: a plan, the catalogue of its studies (None: a plan of one's own numbers), and scenarios put beside it."""

    plan: Plan
    catalog: Catalog | None
    where: Where
    compared: tuple[Compared, ...] = ()


def report(
    asked: dict[str, object],
    files: Files = None,
    *,
    file: FileOption = None,
    of: Annotated[str, typer.Option("--of", help="of several scenarios or plans the one that the document is of (the first)", metavar="NAME")] = "",
    written: Written,
    kept: Answers,
) -> None:
    """Write the document for a capacity review: decision, service, cost, risks, evidence.

    plan report --qps 200 --min-quality 0.8 -o review.html
    """
    targets, wanted, over, where = written.targets(), written.wanted(), written.over(), kept.where()
    paths = [*([file] if file else []), *map(Path, files or [])]
    saved = [p for p in paths if p.suffix == ".json" or str(p) == "-"]
    if saved and (asked or len(saved) < len(paths)):
        raise PlannerError("a saved plan answers its own question", str(saved[0]), "leave out scenario flags and files, or plan anew without it")
    if saved and (contract := read_contract(saved[0])) is not None:
        _contract(contract, saved, targets)
        return
    from planner.economics.review import review
    from planner.report.review.writers import delivered

    with progress("report") as done, fitting(saved[0]) if saved else nullcontext():
        found = _saved(saved, of, where) if saved else _planned(asked, paths, of, where, done)
        r = review(found.plan, found.catalog, wanted, found.where, lambda text: say(text, err=True), lambda _: done)
        made = [(path, delivered(replace(r, compared=found.compared), form, over)) for path, form in targets]
    if any(form == "focus" for _, form in targets):
        from planner.report.review.focus import UNKNOWN

        say(f"note: FOCUS rows are a forecast at list prices: {', '.join(UNKNOWN)} stay empty until there is a bill", err=True)
    for path, content in made:
        _put(content, path)
    if found.plan.status != "optimal":
        raise typer.Exit(3)


def _contract(contract: Contract, saved: list[Path], targets: list[tuple[str, str]]) -> None:
    """Writes the document of a saved contract. Raises PlannerError for forms that it has none in."""
    from planner.report.review.contract import contract_document

    if len(saved) > 1:
        raise PlannerError("a contract is reported alone", str(saved[0]), "report one at a time")
    if other := next((form for _, form in targets if form not in CONTRACT_FORMS), ""):
        raise PlannerError(f"a contract is not written as {other}", "--format", f"{' or '.join(CONTRACT_FORMS)}; plan contract --format csv has its months")
    with fitting(saved[0]):
        made = [(path, contract_document(contract, form)) for path, form in targets]
    for path, content in made:
        _put(content, path)
    if contract.status != "optimal":
        raise typer.Exit(3)


def _put(content: str | bytes, path: str) -> None:
    if isinstance(content, str):
        deliver(content, path)
    else:
        from planner.files import write_result

        write_result(path, content)


def _saved(files: list[Path], of: str, where: Where) -> _Asked:
    """Saved plans: the first, or the one named, with the others beside it."""
    from planner.catalog.load import load_catalog
    from planner.economics.compare import compare_plans

    plans = [(f.stem, read_saved(f)) for f in files]
    name = _named(of, [n for n, _ in plans])
    plan = dict(plans)[name]
    if len(plans) > 1 and any(p.periods for _, p in plans):
        raise PlannerError("plans by the hour are not compared with others", str(files[0]), "report one at a time")
    catalog = None if plan.scenario.tables.capacities else load_catalog(plan.scenario.catalog)
    return _Asked(plan, catalog, _sharing(where, catalog), compare_plans(plans) if len(plans) > 1 else ())


def _planned(asked: dict[str, object], files: list[Path], of: str, where: Where, done: Done) -> _Asked:
    """The plan of a question; of several the first or the one named, with the others beside it."""
    from planner.economics.compare import compare, scenarios_in

    named = [pair for f in files for pair in scenarios_in(f)] if files else []
    if len(named) < 2:
        return _one(asked, files[0] if files else None, where)
    if asked:
        raise PlannerError("several scenarios are given; flags could mean any", str(files[0]), "write what the flags say into the scenarios")
    from planner.candidates.offers import with_known_names
    from planner.catalog.load import load_catalog

    name, folders = _named(of, [n for n, _ in named]), {s.catalog for _, s in named}
    if len(folders) > 1:
        raise PlannerError("the scenarios name different catalogues", str(files[0]), "save their plans with --format json and report those")
    say_held(s for _, s in named)
    catalog = load_catalog(folders.pop())
    known, sharing = [(n, with_known_names(s, catalog)) for n, s in named], _sharing(where, catalog)
    plan = _solved(dict(known)[name], {}, catalog, sharing)
    return _Asked(plan, catalog, sharing, compare(known, catalog, sharing, done))


def _one(asked: dict[str, object], file: Path | None, where: Where) -> _Asked:
    from planner.catalog.load import load_catalog
    from planner.scenario.sources import ask

    question = ask(asked, dict(os.environ), file)
    catalog = None if question.scenario.tables.capacities else load_catalog(question.scenario.catalog)
    sharing = _sharing(where, catalog)
    return _Asked(_solved(question.scenario, question.origins, catalog, sharing), catalog, sharing)


def _solved(scenario: Scenario, origins: Origins, catalog: Catalog | None, where: Where) -> Plan:
    """The plan, with alternatives; where requests may wait it is by the hour."""
    from planner.planning.infeasible import Infeasible
    from planner.planning.periods import autoscale
    from planner.planning.solve import solve

    if scenario.has_waiting:
        return autoscale(scenario, catalog, origins=origins)
    try:
        return solve(scenario, catalog, origins=origins, cache=where.surveys)
    except Infeasible:
        return solve(scenario, catalog, origins=origins)  # raises with the whole explanation


def _sharing(where: Where, catalog: Catalog | None) -> Where:
    """Where to run, with surveys that all studies share."""
    return replace(where, surveys=where.cache(catalog)) if catalog else where


def _named(of: str, names: list[str]) -> str:
    """The name asked for, else the first. Raises PlannerError."""
    if of and of not in names:
        raise PlannerError(f"no scenario is called '{of}'", "--of", did_you_mean(of, names) or f"one of {', '.join(names)}")
    return of or names[0]
