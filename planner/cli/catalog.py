"""`plan catalog` lists what the planner knows, and its doctor says what is missing, stale or in conflict."""

from __future__ import annotations

from typing import Annotated

import typer

from planner.cli.options import CatalogOption, FormatOption, OutputOption, check_writable, deliver, known_format, say
from planner.errors import PlannerError

app = typer.Typer(help="List models, GPUs, prices, quality and tokenizers; look for gaps.", rich_markup_mode=None, no_args_is_help=True)
Filter = Annotated[str, typer.Argument(help="only rows that contain this", metavar="[FILTER]", show_default=False)]


@app.command()
def models(text: Filter = "", form: FormatOption = "table", output: OutputOption = None, catalog: CatalogOption = None) -> None:
    """Model cards and their checkpoints."""
    _list("models", text, form, output, catalog)


@app.command()
def gpus(text: Filter = "", form: FormatOption = "table", output: OutputOption = None, catalog: CatalogOption = None) -> None:
    """GPUs with their peaks."""
    _list("gpus", text, form, output, catalog)


@app.command()
def prices(text: Filter = "", form: FormatOption = "table", output: OutputOption = None, catalog: CatalogOption = None) -> None:
    """Offers, cheapest per GPU first."""
    _list("prices", text, form, output, catalog)


@app.command()
def quality(text: Filter = "", form: FormatOption = "table", output: OutputOption = None, catalog: CatalogOption = None) -> None:
    """Benchmark scores by checkpoint and mode."""
    _list("quality", text, form, output, catalog)


@app.command()
def tokenizers(text: Filter = "", form: FormatOption = "table", output: OutputOption = None, catalog: CatalogOption = None) -> None:
    """Tokens per token of the reference tokenizer, by language, and who uses which."""
    _list("tokenizers", text, form, output, catalog)


@app.command()
def doctor(form: FormatOption = "table", output: OutputOption = None, catalog: CatalogOption = None) -> None:
    """Gaps, stale prices (over 90 days) and conflicts in the catalogue."""
    from datetime import date

    from planner.catalog.doctor import examine
    from planner.catalog.load import load_catalog
    from planner.report.lists import findings_grid

    known_format(form)
    check_writable(output)
    _print("Catalogue doctor", findings_grid(examine(load_catalog(catalog or ()), date.today())), form, output)


@app.command()
def refresh(
    what: Annotated[str, typer.Argument(help="prices (of GPUs, by gpuhunt) or api (hosted, by genai-prices)", metavar="prices|api")],
    output: Annotated[str, typer.Option("-o", "--output", help="folder of the overlay catalogue, for --catalog DIR", metavar="DIR")],
    form: FormatOption = "table",
    catalog: CatalogOption = None,
) -> None:
    """Reads live prices into a folder for --catalog, and says what changed. Nothing is read at plan time."""
    from datetime import date
    from pathlib import Path

    from planner.catalog import live
    from planner.catalog.load import load_catalog
    from planner.catalog.records import ApiPrice, Offer
    from planner.catalog.refresh import api_changes, apis_of, as_csv, offer_changes, offers_of
    from planner.files import make_folder, write_result
    from planner.report.lists import changes_grid, changes_line

    known_format(form)
    known_format(what, ("prices", "api"))
    known, folder = load_catalog(catalog or ()), Path(output)
    if what == "prices":
        gpus = live.live_gpus()
        offers = offers_of(gpus, known, date.today(), live.source_of("gpuhunt"), live.LICENCES["gpuhunt"])
        changes, unmapped, file, text = offer_changes(offers.rows, known), offers.unmapped, folder / "prices.csv", as_csv(offers.rows, Offer)
    else:
        apis = apis_of(live.live_apis(), known, date.today(), live.source_of("genai-prices"), live.LICENCES["genai-prices"])
        changes, unmapped, file, text = api_changes(apis.rows, known), apis.unmapped, folder / "api_prices.csv", as_csv(apis.rows, ApiPrice)
    if text.count("\n") < 2:
        raise PlannerError(f"none of the live prices could be told in the catalogue's names ({sum(unmapped.values())} rows)", "plan catalog refresh")
    make_folder(folder)
    write_result(file, text)
    say(changes_line(changes, unmapped, str(file)), err=True)
    _print("Changes", changes_grid(changes), form, None)


def _list(what: str, text: str, form: str, output: str | None, folders: list[str] | None) -> None:
    from planner.catalog.load import load_catalog
    from planner.report.lists import catalog_grid

    known_format(form)
    check_writable(output)
    _print(what.capitalize(), catalog_grid(load_catalog(folders or ()), what, text), form, output)


def _print(title: str, grid: object, form: str, output: str | None) -> None:
    from planner.report.lists import grid_text
    from planner.report.sections import Grid

    assert isinstance(grid, Grid)
    deliver(grid_text(title, grid, form), output)
