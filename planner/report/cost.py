"""The cost of an owned GPU and of a job as sections, and as one flat row of numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import inf

from planner.catalog.ownership import HOURS_PER_YEAR, HourlyCost, OwnedGpu, break_even_utilization, job_cost
from planner.catalog.records import Offer
from planner.economics.job import JobTime
from planner.report.sections import Grid, Section, unit_money

BAR = 30  # characters of a whole hour's cost


@dataclass(frozen=True)
class OwnedReport:
    """An owned GPU with its hourly cost; ``rent``: the offer compared with, None where nobody rents it out."""

    gpu: str
    owned: OwnedGpu
    cost: HourlyCost
    defaults: tuple[str, ...]
    is_compared: bool
    rent: Offer | None = None

    @property
    def rent_usd_per_hour(self) -> float | None:
        """$/h of one rented GPU."""
        return self.rent.usd_per_hour / self.rent.gpus_per_instance if self.rent else None


@dataclass(frozen=True)
class Job:
    """GPUs held for a time at an hourly cost; ``time``: what the time was predicted from; ``price``: whose the cost is, where it is an offer."""

    gpus: int
    seconds: float
    usd_per_gpu_hour: float
    requests: int | None = None
    defaults: tuple[str, ...] = ()
    time: JobTime | None = None
    price: str = ""

    @property
    def usd(self) -> float:
        """All of it."""
        return job_cost(self.usd_per_gpu_hour, self.gpus, self.seconds)


def owned_sections(r: OwnedReport) -> list[Section]:
    """The breakdown; what renting costs, if asked; the defaults."""
    o, c = r.owned, r.cost
    parts = (
        ("depreciation", "P/(Y·8760·u)", f"{unit_money(o.price_usd)} over {o.life_years:g} years at utilisation {o.utilization:g}", c.depreciation_usd),
        ("energy", "kW·PUE·E", f"{o.power_kw:g} kW x {o.pue:g} x {unit_money(o.usd_per_kwh)}/kWh", c.energy_usd),
        ("maintenance", "P·m/8760", f"{o.maintenance_per_year:.3g} of the price each year", c.maintenance_usd),
        *((("other", "F/8760", f"{unit_money(o.yearly_usd)} each year", c.other_usd),) if o.yearly_usd else ()),
    )
    rows = tuple(
        (name, formula, what, f"${usd:.4f}", f"{usd / c.usd_per_hour:.0%}", "█" * round(BAR * usd / c.usd_per_hour)) for name, formula, what, usd in parts
    )
    rows += (("one hour", "", "", f"${c.usd_per_hour:.4f}", "100%", ""),)
    lines = (f"{unit_money(c.usd_per_hour)} per hour of one {r.gpu}; ${c.running_usd:.4f} of it where the price is sunk.",)
    sections = [Section("Hourly cost", lines, Grid(("part", "formula", "of", "$/h", "share", ""), rows, ("$/h", "share")))]
    sections += [Section("Against renting", (_against(r),))] if r.is_compared else []
    return sections + ([Section("Defaults used", (f"{'; '.join(r.defaults)}.",))] if r.defaults else [])


def _against(r: OwnedReport) -> str:
    if r.rent is None or r.rent_usd_per_hour is None:
        return f"No hyperscaler or neocloud of the catalogue rents out a {r.gpu} on demand."
    rent, needed = r.rent_usd_per_hour, break_even_utilization(r.owned, r.rent_usd_per_hour)
    offer = f"${rent:.4f} at {r.rent.provider} ({r.rent.instance_type}, {r.rent.as_of})"
    if needed == inf:
        return f"Renting costs {offer}, no more than owning does in power and maintenance alone: owning never pays."
    if needed > 1:
        return f"Renting costs {offer}: owning would not pay in {r.owned.life_years:g} years even if every hour were used."
    cheaper = "owning" if r.cost.usd_per_hour < rent else "renting"
    return (
        f"Renting costs {offer}; at utilisation {r.owned.utilization:g} {cheaper} is cheaper. "
        f"Owning wins above {needed * HOURS_PER_YEAR:,.0f} hours of use a year (utilisation {needed:.3g})."
    )


def owned_payload(r: OwnedReport) -> dict[str, object]:
    """One flat row: inputs, parts of the cost, and what renting costs."""
    needed = break_even_utilization(r.owned, r.rent_usd_per_hour) if r.rent_usd_per_hour is not None else None
    pays = needed if needed is not None and needed <= 1 else None
    row = {
        "gpu": r.gpu, **asdict(r.owned), "depreciation_usd_per_hour": r.cost.depreciation_usd, "energy_usd_per_hour": r.cost.energy_usd,
        "maintenance_usd_per_hour": r.cost.maintenance_usd, "other_usd_per_hour": r.cost.other_usd,
        "usd_per_hour": r.cost.usd_per_hour, "sunk_usd_per_hour": r.cost.running_usd,
        "defaults": "; ".join(r.defaults),
    }  # fmt: skip
    rent = {
        "rent_usd_per_hour": r.rent_usd_per_hour, "rent_provider": r.rent.provider if r.rent else None,
        "rent_instance_type": r.rent.instance_type if r.rent else None, "rent_source": r.rent.source if r.rent else None,
        "break_even_utilization": pays, "break_even_hours_per_year": pays * HOURS_PER_YEAR if pays is not None else None,
    }  # fmt: skip
    return row | (rent if r.is_compared else {})


def job_sections(j: Job) -> list[Section]:
    """How long it takes, where that was predicted; what the job costs."""
    hours = f"{j.gpus} GPUs x {j.seconds:,.6g} s at ${j.usd_per_gpu_hour:.4g} per GPU-hour"
    lines = [f"${j.usd:,.2f} = {hours} (${j.gpus * j.usd_per_gpu_hour:,.2f}/h in all)."]
    if j.requests is not None:
        lines.append(
            f"{unit_money(j.usd / j.requests)} per request, {unit_money(1000 * j.usd / j.requests)} per thousand; {j.requests / j.seconds:.3g} requests/s."
        )
    if j.time:
        sure = job_cost(j.usd_per_gpu_hour, j.gpus, j.time.sure.seconds)
        lines.append(f"${sure:,.2f} if it takes the longer time.")
    lines += [f"Price: {j.price}."] if j.price else []
    sections = [_time_section(j.time), *_time_evidence(j.time)] if j.time else []
    sections.insert(1, Section("Cost of the job", tuple(lines)))
    return [*sections, *([Section("Defaults used", (f"{'; '.join(j.defaults)}.",))] if j.defaults else [])]


def _time_section(t: JobTime) -> Section:
    q, f, e = t.forecast.question, t.forecast.found, t.expected
    shape = f"{t.replicas} x " if t.replicas > 1 else ""
    what = f"{f.checkpoint.id} ({f.checkpoint.precision}) on {shape}{q.replica.gpus} x {f.gpu.name}, {q.replica.words}, {f.engine}."
    cv = "CV {:.2g} and {:.2g}".format(*t.workload.spreads)
    stated = f"{t.workload.input_tokens:,.0f} tokens in and {t.workload.output_tokens:,.0f} out on average ({cv})"
    asked = f"{t.requests:,} requests, {t.concurrency:,} in flight, {stated}."
    rows = (
        ("all at the rate of a full loop", f"{e.full_s:,.1f}", f"{e.qps:,.3g} requests/s, TTFT {1000 * e.ttft_s:,.0f} ms, TPOT {1000 * e.tpot_s:.1f} ms"),
        ("until the loop is full", f"{e.begin_s:+,.1f}", "the first prompts, with few answers beside them"),
        ("the last answers", f"{e.end_s:+,.1f}", "ever fewer in flight: what they take beyond their share of full steps"),
        ("expected", f"{e.seconds:,.1f}", time_words(e.seconds)),
        (f"with {q.confidence:.0%} probability within", f"{t.sure.seconds:,.1f}", time_words(t.sure.seconds)),
    )
    waits = t.concurrency / t.replicas - t.max_num_seqs
    notes: tuple[str, ...] = (f"{t.words}.",) if t.words else ()
    notes += (f"A replica serves {t.max_num_seqs:,} at once: {waits:,.0f} of those in flight on each wait.",) if waits > 0 else ()
    return Section("Time of the job", (what, asked, *notes), Grid(("", "s", ""), rows, ("s",)))


def time_words(seconds: float) -> str:
    """A time as one would say it."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.3g} s"


def _time_evidence(t: JobTime) -> list[Section]:
    f = t.forecast
    source = f"{f.tier}: {f.source}" + (f", {f.as_of}" if f.as_of else "")
    return [Section("Evidence", (f"{source}.", *f.notes))]


def job_payload(j: Job) -> dict[str, object]:
    """One flat row."""
    row: dict[str, object] = {
        "gpus": j.gpus,
        "seconds": j.seconds,
        "usd_per_gpu_hour": j.usd_per_gpu_hour,
        "usd_per_hour": j.gpus * j.usd_per_gpu_hour,
        "usd": j.usd,
    }
    if j.requests is not None:
        row |= {"requests": j.requests, "usd_per_request": j.usd / j.requests, "usd_per_thousand_requests": 1000 * j.usd / j.requests}
    if j.time:
        q, f, e = j.time.forecast.question, j.time.forecast.found, j.time.expected
        row |= {
            "checkpoint": f.checkpoint.id, "gpu": f.gpu.name, "engine": f.engine, "tp": q.tp, "replicas": j.time.replicas, "concurrency": j.time.concurrency,
            "input_tokens": j.time.workload.input_tokens, "output_tokens": j.time.workload.output_tokens, "language": j.time.workload.language,
            "tokens_per_stated": j.time.tokens, "full_s": e.full_s, "begin_s": e.begin_s, "end_s": e.end_s, "qps": e.qps, "ttft_s": e.ttft_s,
            "tpot_s": e.tpot_s, "confidence": q.confidence, "seconds_at_confidence": j.time.sure.seconds, "max_num_seqs": j.time.max_num_seqs,
            "tier": j.time.forecast.tier, "source": j.time.forecast.source, "price": j.price,
        }  # fmt: skip
    return row | {"defaults": "; ".join(j.defaults)}
