"""`plan cost` says what an hour of an owned GPU costs, what a job costs, and from which use on owning beats renting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from planner.cli.options import CatalogOption, Printed, bundled
from planner.cli.validate import known_confidence
from planner.errors import PlannerError

if TYPE_CHECKING:
    from planner.catalog.catalog import Catalog
    from planner.catalog.ownership import OwnedGpu
    from planner.economics.job import JobTime

app = typer.Typer(help="Hourly cost of an owned GPU, and what a job on it costs.", rich_markup_mode=None, no_args_is_help=True)

PriceOption = Annotated[float | None, typer.Option("--price", help="price of one GPU with its share of the server", metavar="USD")]
YearsOption = Annotated[float | None, typer.Option("--years", help="years over which it is written off", metavar="YEARS")]
UtilizationOption = Annotated[float | None, typer.Option("--utilization", help="share of hours with paid work (1)", metavar="SHARE")]
KwOption = Annotated[float | None, typer.Option("--kw", help="power of one GPU with its share of the server (the catalogue's TDP)", metavar="KW")]
PueOption = Annotated[float | None, typer.Option("--pue", help="facility power per IT power (1)", metavar="X")]
ElectricityOption = Annotated[float | None, typer.Option("--electricity", help="price of electricity per kWh", metavar="USD")]
MaintenanceOption = Annotated[float | None, typer.Option("--maintenance", help="upkeep per year, as a share of the price (0)", metavar="SHARE")]
YearlyOption = Annotated[float | None, typer.Option("--yearly", help="what else a GPU costs each year: network, software, operators (0)", metavar="USD")]
FLAGS = {  # field of an owned GPU -> flag, in the order of Asked
    "price_usd": "--price", "life_years": "--years", "utilization": "--utilization", "power_kw": "--kw", "pue": "--pue",
    "usd_per_kwh": "--electricity", "maintenance_per_year": "--maintenance", "yearly_usd": "--yearly",
}  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """The options that describe an owned GPU, as typed."""

    price: PriceOption = None
    years: YearsOption = None
    utilization: UtilizationOption = None
    kw: KwOption = None
    pue: PueOption = None
    electricity: ElectricityOption = None
    maintenance: MaintenanceOption = None
    yearly: YearlyOption = None

    @property
    def given(self) -> list[str]:
        """Flags of those typed."""
        return [flag for flag, value in zip(FLAGS.values(), vars(self).values(), strict=True) if value is not None]


@dataclass(frozen=True)
class Run:
    """The options that describe a predicted job, as typed; the fields are named as the flags."""

    concurrency: Annotated[int | None, typer.Option("--concurrency", help="of --model: requests in flight at once", metavar="N", min=1, max=10**6)] = None
    replicas: Annotated[int | None, typer.Option("--replicas", help="of --model: replicas that share them (1)", metavar="N", min=1, max=10**6)] = None
    tp: Annotated[int | None, typer.Option("--tp", help="of --model: GPUs of a replica that share every layer (1)", metavar="N", min=1)] = None
    isl: Annotated[int | None, typer.Option("--isl", help="of --model: mean prompt tokens (1000)", metavar="TOKENS", min=1, max=10**7)] = None
    osl: Annotated[int | None, typer.Option("--osl", help="of --model: mean tokens written, reasoning included (300)", metavar="TOKENS", min=1, max=10**7)] = (
        None
    )
    isl_cv: Annotated[float | None, typer.Option("--isl-cv", help="of --model: spread of prompts, standard deviation / mean", metavar="X", min=0, max=3)] = None
    osl_cv: Annotated[float | None, typer.Option("--osl-cv", help="of --model: spread of answers, likewise", metavar="X", min=0, max=3)] = None
    engine: Annotated[str | None, typer.Option("--engine", help="of --model: vllm (usual), sglang or trtllm", metavar="ENGINE")] = None
    language: Annotated[
        str | None, typer.Option("--language", help="of --model: language of the text; lengths are converted to its own tokens", metavar="CODE")
    ] = None
    tokenizer: Annotated[str | None, typer.Option("--tokenizer", help="whose tokens lengths are stated in (o200k)", metavar="NAME")] = None
    confidence: Annotated[
        float | None, typer.Option("--confidence", help="of --model: probability that it takes no longer than the longer time (0.8)", metavar="SHARE")
    ] = None


@dataclass(frozen=True)
class Held:
    """Whose time a job takes, or what it holds for how long at which price, as typed."""

    model: Annotated[
        str, typer.Option("--model", help="predict the time of --requests on this checkpoint, or a model's first", metavar="NAME", show_default=False)
    ] = ""
    gpus: Annotated[int | None, typer.Option("--gpus", help="without --model: GPUs that the job holds", metavar="N", min=1, max=10**7)] = None
    seconds: Annotated[float | None, typer.Option("--seconds", help="without --model: how long it holds them", metavar="SECONDS")] = None
    usd_per_gpu_hour: Annotated[float | None, typer.Option("--usd-per-gpu-hour", help="cost of one GPU for an hour", metavar="USD")] = None


@app.command()
@bundled
def gpu(
    *,
    name: Annotated[str, typer.Argument(help="GPU of the catalogue", metavar="GPU")],
    asked: Asked,
    against_rent: Annotated[
        bool, typer.Option("--against-rent", help="compare with renting one on demand at a hyperscaler or neocloud", show_default=False)
    ] = False,
    printed: Printed,
    catalog: CatalogOption = None,
) -> None:
    """What an hour of an owned GPU costs: depreciation, energy, maintenance."""
    printed.check()
    from planner.catalog.load import load_catalog
    from planner.catalog.ownership import cheapest_rent, hourly_cost
    from planner.cli.study import deliver_study
    from planner.report.cost import OwnedReport, owned_payload, owned_sections

    loaded = load_catalog(catalog or ())
    name, owned, defaults = _owned(name, asked, loaded)
    report = OwnedReport(name, owned, hourly_cost(owned), defaults, against_rent, cheapest_rent(loaded.offers, name) if against_rent else None)
    row = owned_payload(report)
    deliver_study(printed.form, printed.output, owned_sections(report), row, [row])


@app.command()
@bundled
def job(
    *,
    held: Held,
    name: Annotated[
        str, typer.Option("--gpu", help="GPU of --model; or an owned one, with the options of `plan cost gpu`", metavar="GPU", show_default=False)
    ] = "",
    asked: Asked,
    requests: Annotated[int | None, typer.Option("--requests", help="requests that the job serves", metavar="N", min=1, max=10**15)] = None,
    run: Run,
    printed: Printed,
    catalog: CatalogOption = None,
) -> None:
    """What a job costs: hourly cost x GPUs x time, the time as typed or predicted.

    plan cost job --model Qwen3-32B --gpu A800-SXM-80GB --tp 2 --requests 2993 --concurrency 64
    """
    printed.check()
    from planner.catalog.load import load_catalog
    from planner.catalog.ownership import hourly_cost
    from planner.cli.study import deliver_study
    from planner.report.cost import Job, job_payload, job_sections

    model, usd_per_gpu_hour = held.model, held.usd_per_gpu_hour
    _one_price(usd_per_gpu_hour, asked, name, bool(model))
    loaded = load_catalog(catalog or ())
    time = _predicted(model, name, requests, run, loaded, (held.gpus, held.seconds)) if model else None
    gpus, taken = (time.gpus, time.expected.seconds) if time else _typed(held.gpus, held.seconds, run)
    words = ""
    defaults: tuple[str, ...] = ()
    if usd_per_gpu_hour is None and time and not asked.given:
        usd_per_gpu_hour, words = time.cheapest_price(loaded)
    elif usd_per_gpu_hour is None:
        _, owned, defaults = _owned(name, asked, loaded)
        usd_per_gpu_hour = hourly_cost(owned).usd_per_hour
    found = Job(gpus, taken, usd_per_gpu_hour, requests, defaults, time, words)
    row = job_payload(found)
    deliver_study(printed.form, printed.output, job_sections(found), row, [row])


def _one_price(usd_per_gpu_hour: float | None, asked: Asked, name: str, is_predicted: bool) -> None:
    """Raises PlannerError unless it is said once what a GPU costs; who predicts may leave it out."""
    owner = ["--gpu"] * bool(name and not is_predicted) + asked.given
    if usd_per_gpu_hour is not None:
        if owner:
            raise PlannerError(f"is the whole cost, so {' and '.join(owner)} cannot stand beside it", "--usd-per-gpu-hour", "give either")
        _positive("--usd-per-gpu-hour", usd_per_gpu_hour)
    elif not name and not is_predicted:
        raise PlannerError("what a GPU costs is not known", "--usd-per-gpu-hour", "give it, or --gpu with the options of `plan cost gpu`")


def _typed(gpus: int | None, seconds: float | None, run: Run) -> tuple[int, float]:
    """GPUs and seconds as typed. Raises PlannerError where they are not, or where a prediction is described that nobody asked for."""
    lost = [f"--{field.replace('_', '-')}" for field, value in vars(run).items() if value is not None]
    if lost:
        raise PlannerError("describes a prediction, but no model is given", lost[0], "give --model, or leave it out")
    for flag, value in (("--gpus", gpus), ("--seconds", seconds)):
        if value is None:
            raise PlannerError("is not known", flag, "give --gpus and --seconds, or --model to have the time predicted")
    assert gpus is not None and seconds is not None
    _positive("--seconds", seconds)
    return gpus, seconds


def _predicted(model: str, gpu: str, requests: int | None, run: Run, catalog: Catalog, typed: tuple[int | None, float | None]) -> JobTime:
    """The job's time by the closed loop. Raises PlannerError for what is missing, stands twice, or cannot run."""
    from planner.economics.job import job_time
    from planner.scenario.workload import Workload
    from planner.validation.single import AskedConfiguration

    for flag, value in zip(("--gpus", "--seconds"), typed, strict=True):
        if value is not None:
            raise PlannerError("follows from the prediction", flag, "leave it out, or leave out --model")
    missing = [flag for flag, value in (("--gpu", gpu), ("--requests", requests), ("--concurrency", run.concurrency)) if not value]
    if missing or requests is None or run.concurrency is None:
        raise PlannerError(f"to predict the time of a job, give {', '.join(missing)}", "--model")
    isl, osl, confidence = run.isl or 1000, run.osl or 300, known_confidence(_or(run.confidence, 0.8))
    question = AskedConfiguration(model, gpu, run.tp or 1, 1, 1, 1, "auto", run.engine or "vllm", isl, osl, (1,), confidence)
    if run.tokenizer and not run.language:
        raise PlannerError("tokens of a tokenizer become those of models by language; give the language too", "--tokenizer")
    lengths = Workload(
        concurrency=run.concurrency, input_tokens=isl, output_tokens=osl, input_cv=run.isl_cv, output_cv=run.osl_cv,
        language=run.language or "", tokenizer=run.tokenizer or "",
    )  # fmt: skip
    try:
        return job_time(question, catalog, lengths, requests=requests, concurrency=run.concurrency, replicas=run.replicas or 1)
    except PlannerError as error:
        if error.where != "--checkpoint":
            raise
        raise PlannerError(error.what, "--model", error.hint) from None


def _owned(name: str, asked: Asked, catalog: Catalog) -> tuple[str, OwnedGpu, tuple[str, ...]]:
    """The GPU's name in the catalogue, the owned GPU asked about, and what was not given. Raises PlannerError for what is missing or cannot be."""
    from planner.catalog.hardware import known_gpu
    from planner.catalog.ownership import OwnedGpu
    from planner.scenario.apply import tdp_kw

    name = known_gpu(name, catalog.gpus, "GPU")
    price, years, electricity = asked.price, asked.years, asked.electricity
    if price is None or years is None or electricity is None:
        missing = [flag for flag, value in (("--price", price), ("--years", years), ("--electricity", electricity)) if value is None]
        raise PlannerError(f"what an hour of an owned {name} costs is not known: give {', '.join(missing)}")
    kw = asked.kw if asked.kw is not None else tdp_kw(catalog.gpus[name])
    defaults = [f"{kw:g} kW (the catalogue's TDP; a server draws more)"] if asked.kw is None else []
    defaults += ["utilisation 1: every hour is used"] if asked.utilization is None else []
    defaults += ["PUE 1: no cooling"] if asked.pue is None else []
    defaults += ["no maintenance"] if asked.maintenance is None else []
    defaults += ["nothing else each year (network, storage, software, operators)"] if asked.yearly is None else []
    shares = _or(asked.utilization, 1.0), _or(asked.pue, 1.0), _or(asked.maintenance, 0.0)
    try:
        owned = OwnedGpu(price, years, kw, electricity, *shares, _or(asked.yearly, 0.0))
    except ValueError as error:
        field, _, what = str(error).partition(" ")
        raise PlannerError(what, FLAGS[field]) from None
    return name, owned, tuple(defaults)


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _positive(flag: str, value: float) -> None:
    if not 0 < value < 1e12:
        raise PlannerError(f"{value:g} must be more than zero", flag)
