"""`plan cost` says what an hour of an owned GPU costs, what a job costs, and from which use on owning beats renting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from planner.cli.options import CatalogOption, FormatOption, OutputOption, check_writable, known_format
from planner.errors import PlannerError

if TYPE_CHECKING:
    from planner.catalog.catalog import Catalog
    from planner.economics.ownership import OwnedGpu

app = typer.Typer(help="Hourly cost of an owned GPU, and what a job on it costs.", rich_markup_mode=None, no_args_is_help=True)

PriceOption = Annotated[float | None, typer.Option("--price", help="price of one GPU with its share of the server", metavar="USD")]
YearsOption = Annotated[float | None, typer.Option("--years", help="years over which it is written off", metavar="YEARS")]
UtilizationOption = Annotated[float | None, typer.Option("--utilization", help="share of hours with paid work (1)", metavar="SHARE")]
KwOption = Annotated[float | None, typer.Option("--kw", help="power of one GPU with its share of the server (the catalogue's TDP)", metavar="KW")]
PueOption = Annotated[float | None, typer.Option("--pue", help="facility power per IT power (1)", metavar="X")]
ElectricityOption = Annotated[float | None, typer.Option("--electricity", help="price of electricity per kWh", metavar="USD")]
MaintenanceOption = Annotated[float | None, typer.Option("--maintenance", help="upkeep per year, as a share of the price (0)", metavar="SHARE")]
FLAGS = {  # field of an owned GPU -> flag, in the order of Asked
    "price_usd": "--price", "life_years": "--years", "utilization": "--utilization", "power_kw": "--kw", "pue": "--pue",
    "usd_per_kwh": "--electricity", "maintenance_per_year": "--maintenance",
}  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """The options that describe an owned GPU, as typed."""

    price: float | None
    years: float | None
    utilization: float | None
    kw: float | None
    pue: float | None
    electricity: float | None
    maintenance: float | None


@app.command()
def gpu(
    name: Annotated[str, typer.Argument(help="GPU of the catalogue", metavar="GPU")],
    price: PriceOption = None,
    years: YearsOption = None,
    utilization: UtilizationOption = None,
    kw: KwOption = None,
    pue: PueOption = None,
    electricity: ElectricityOption = None,
    maintenance: MaintenanceOption = None,
    against_rent: Annotated[
        bool, typer.Option("--against-rent", help="compare with renting one on demand at a hyperscaler or neocloud", show_default=False)
    ] = False,
    form: FormatOption = "table",
    output: OutputOption = None,
    catalog: CatalogOption = None,
) -> None:
    """What an hour of an owned GPU costs: depreciation, energy, maintenance."""
    known_format(form)
    check_writable(output)
    from planner.catalog.load import load_catalog
    from planner.cli.study import deliver_study
    from planner.economics.ownership import cheapest_rent, hourly_cost
    from planner.report.cost import OwnedReport, owned_payload, owned_sections

    loaded = load_catalog(catalog or ())
    name, owned, defaults = _owned(name, Asked(price, years, utilization, kw, pue, electricity, maintenance), loaded)
    report = OwnedReport(name, owned, hourly_cost(owned), defaults, against_rent, cheapest_rent(loaded.offers, name) if against_rent else None)
    row = owned_payload(report)
    deliver_study(form, output, owned_sections(report), row, [row])


@app.command()
def job(
    gpus: Annotated[int, typer.Option("--gpus", help="GPUs that the job holds", metavar="N", min=1, max=10**7)],
    seconds: Annotated[float, typer.Option("--seconds", help="how long it holds them", metavar="SECONDS")],
    usd_per_gpu_hour: Annotated[float | None, typer.Option("--usd-per-gpu-hour", help="cost of one GPU for an hour", metavar="USD")] = None,
    name: Annotated[str, typer.Option("--gpu", help="instead: an owned GPU, with the options of `plan cost gpu`", metavar="GPU", show_default=False)] = "",
    price: PriceOption = None,
    years: YearsOption = None,
    utilization: UtilizationOption = None,
    kw: KwOption = None,
    pue: PueOption = None,
    electricity: ElectricityOption = None,
    maintenance: MaintenanceOption = None,
    requests: Annotated[int | None, typer.Option("--requests", help="requests that the job serves", metavar="N", min=1, max=10**15)] = None,
    form: FormatOption = "table",
    output: OutputOption = None,
    catalog: CatalogOption = None,
) -> None:
    """What a job costs: hourly cost x GPUs x time."""
    known_format(form)
    check_writable(output)
    _positive("--seconds", seconds)
    asked = Asked(price, years, utilization, kw, pue, electricity, maintenance)
    given = [flag for flag, value in zip(FLAGS.values(), vars(asked).values(), strict=True) if value is not None]
    if usd_per_gpu_hour is not None and (name or given):
        raise PlannerError(f"is the whole cost, so {' and '.join(['--gpu'] * bool(name) + given)} cannot stand beside it", "--usd-per-gpu-hour", "give either")
    if usd_per_gpu_hour is None and not name:
        raise PlannerError("what a GPU costs is not known", "--usd-per-gpu-hour", "give it, or --gpu with the options of `plan cost gpu`")
    from planner.cli.study import deliver_study
    from planner.economics.ownership import hourly_cost
    from planner.report.cost import Job, job_payload, job_sections

    if usd_per_gpu_hour is not None:
        _positive("--usd-per-gpu-hour", usd_per_gpu_hour)
        found = Job(gpus, seconds, usd_per_gpu_hour, requests)
    else:
        from planner.catalog.load import load_catalog

        _, owned, defaults = _owned(name, asked, load_catalog(catalog or ()))
        found = Job(gpus, seconds, hourly_cost(owned).usd_per_hour, requests, defaults)
    row = job_payload(found)
    deliver_study(form, output, job_sections(found), row, [row])


def _owned(name: str, asked: Asked, catalog: Catalog) -> tuple[str, OwnedGpu, tuple[str, ...]]:
    """The GPU's name in the catalogue, the owned GPU asked about, and what was not given. Raises PlannerError for what is missing or cannot be."""
    from planner.catalog.load import known_name
    from planner.economics.ownership import OwnedGpu
    from planner.scenario.apply import tdp_kw

    name = known_name(name, catalog.gpus, "GPU", "GPU", "see plan catalog gpus")
    price, years, electricity = asked.price, asked.years, asked.electricity
    if price is None or years is None or electricity is None:
        missing = [flag for flag, value in (("--price", price), ("--years", years), ("--electricity", electricity)) if value is None]
        raise PlannerError(f"what an hour of an owned {name} costs is not known: give {', '.join(missing)}")
    kw = asked.kw if asked.kw is not None else tdp_kw(catalog.gpus[name])
    defaults = [f"{kw:g} kW (the catalogue's TDP; a server draws more)"] if asked.kw is None else []
    defaults += ["utilisation 1: every hour is used"] if asked.utilization is None else []
    defaults += ["PUE 1: no cooling"] if asked.pue is None else []
    defaults += ["no maintenance"] if asked.maintenance is None else []
    try:
        owned = OwnedGpu(price, years, kw, electricity, _or(asked.utilization, 1.0), _or(asked.pue, 1.0), _or(asked.maintenance, 0.0))
    except ValueError as error:
        field, _, what = str(error).partition(" ")
        raise PlannerError(what, FLAGS[field]) from None
    return name, owned, tuple(defaults)


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _positive(flag: str, value: float) -> None:
    if not 0 < value < 1e12:
        raise PlannerError(f"{value:g} must be more than zero", flag)
