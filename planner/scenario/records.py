"""What can be asked: one typed Scenario. Flags, environment variables and TOML keys are all generated from its fields."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from math import inf
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, field_serializer, model_validator

from planner import limits
from planner.catalog.records import REFERENCE, Engine, Kind, Name, Precision, Purchase
from planner.demand.given import Demanded, Lengths, parse_growth
from planner.demand.spread import CHAT_INPUT_CV, CHAT_OUTPUT_CV, LONGEST_ANSWER, LONGEST_PROMPT, default_cv
from planner.scenario.fleet import Held
from planner.scenario.outlook import Outlook
from planner.scenario.own_offers import USD, OwnOffer
from planner.scenario.problem import problem
from planner.scenario.slo import MOST_REQUESTS, Slo, read_limits, unlimited, with_defaults
from planner.scenario.units import exact, format_duration, format_lead, parse_duration_s, parse_pairs, parse_share, parse_span_h, parse_usd_per_hour


@dataclass(frozen=True)
class Flag:
    """How a field is asked for on the command line."""

    name: str
    help: str
    metavar: str = "TEXT"


Seconds = Annotated[float, BeforeValidator(parse_duration_s), PlainSerializer(format_duration, when_used="always")]
UsdPerHour = Annotated[float, BeforeValidator(parse_usd_per_hour), PlainSerializer(lambda v: f"{exact(v)}/h", return_type=str, when_used="always")]
Quality = Annotated[float, BeforeValidator(parse_share)]
Rate = Annotated[float, Field(gt=0, le=1e7, allow_inf_nan=False)]
Tokens = Annotated[float, Field(ge=1, le=1e7, allow_inf_nan=False)]
Variation = Annotated[float, Field(ge=0, le=3, allow_inf_nan=False)]
Many = BeforeValidator(lambda v: (v,) if isinstance(v, str) else v)
DemandKind = Literal["qps", "concurrency", "requests_per_day"]
Tier = Literal["measured", "anchored", "transferred", "modelled"]  # of evidence, nearest first (performance/evidence.py)
Tuning = Literal["default", "recipe", "record"]  # how an engine is set (performance/tuning.py)
Lead = Annotated[
    float,
    BeforeValidator(lambda v: 0.0 if v in (0, "0", "0s") else parse_duration_s(v)),
    PlainSerializer(lambda v: format_lead(v), return_type=str, when_used="always"),
]
TimeOfDay = Annotated[str, Field(pattern=r"^$|^([01]\d|2[0-3]):00$")]  # whole hours: periods are hours

Redundancy = Literal["none", "n+1-replica", "n+1-instance", "n+1-zone", "spot"]
Loss = Literal["instance", "zone", "spot"]
LOSSES: dict[str, Loss] = {"n+1-instance": "instance", "n+1-zone": "zone", "spot": "spot"}
KINDS: tuple[Kind, ...] = ("hyperscaler", "neocloud")  # of providers that are bought from unless others are asked for
RATES = {"qps", "concurrency", "requests_per_day", "users"}  # of which a workload states one
DEMAND_FIELDS = ("lengths", "demand", "growth", "users")  # that stand for others (asked.py)


def listed(value: object) -> object:
    """A list of numbers as the text it is typed as."""
    return ",".join(f"{v:g}" for v in value) if isinstance(value, (list, tuple)) and all(isinstance(v, (int, float)) for v in value) else value


class Part(BaseModel):
    """A frozen table of the scenario; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Workload(Part):
    """One stream of requests: how many, how long, how good, how fast."""

    name: Name = "requests"
    qps: Annotated[Rate | None, Flag("--qps", "requests per second to serve", "RATE")] = None
    concurrency: Annotated[Rate | None, Flag("--concurrency", "requests in flight to serve, instead of a rate", "N")] = None
    min_quality: Annotated[Quality | None, Flag("--min-quality", "lowest benchmark score of any model that serves (0-1)", "SHARE")] = None
    mean_quality: Annotated[Quality | None, Flag("--mean-quality", "lowest mean score over the requests of a mix (0-1)", "SHARE")] = None
    quality_metric: Annotated[Name, Flag("--quality-metric", "benchmark the floors are in", "NAME")] = "mmlu-pro"
    input_tokens: Annotated[Tokens, Flag("--isl", "mean prompt length", "TOKENS")] = 1000.0
    output_tokens: Annotated[Tokens, Flag("--osl", "mean answer length", "TOKENS")] = 300.0
    input_cv: Annotated[
        Variation | None, Flag("--isl-cv", "spread of prompt lengths, standard deviation / mean; 0.96, less for prompts above 27,000 tokens", "X")
    ] = None
    output_cv: Annotated[
        Variation | None, Flag("--osl-cv", "spread of answer lengths, standard deviation / mean; 0.77, less for answers above 8,000 tokens", "X")
    ] = None
    max_input: Annotated[Tokens | None, Flag("--max-input", "longest prompt that callers can send; longer ones are cut to it", "TOKENS")] = None
    max_request: Annotated[Tokens | None, Flag("--max-request", "most tokens of prompt and answer together; longer requests are cut to it", "TOKENS")] = None
    max_refused: Annotated[
        float, Field(ge=0, lt=1, allow_inf_nan=False), Flag("--max-refused", "most of the requests that may be too long for a model's context", "SHARE")
    ] = 0.01
    slo: Annotated[dict[str, Seconds], BeforeValidator(parse_pairs), Flag("--slo", "one latency limit, such as ttft_p99=2s", "LIMIT")] = {}
    burst_factor: Annotated[
        float, Field(ge=1, le=1000, allow_inf_nan=False), Flag("--burst-factor", "peak traffic to be served within the limits, per mean traffic", "X")
    ] = 1.0
    max_waiting_share: Annotated[
        float,
        Field(ge=0.001, le=1),
        Flag("--max-waiting-share", "without a limit on TTFT or E2E: most requests that find a replica full and wait (1: any)", "SHARE"),
    ] = 0.05
    language: Annotated[Name, Flag("--language", "language of the text: lengths are converted to each model's own tokens", "CODE")] = ""
    tokenizer: Annotated[Name, Flag("--tokenizer", f"whose tokens lengths are stated in, with --language; {REFERENCE}", "NAME")] = ""
    prefix_cache_hit: Annotated[
        float, Field(ge=0, le=0.99, allow_inf_nan=False), Flag("--prefix-cache-hit", "share of prompt tokens found in the engine's prefix cache", "SHARE")
    ] = 0.0
    output_factor: Annotated[
        float | None, Field(ge=1, le=1000), Flag("--output-factor", "tokens written per answer token by reasoning models without a sourced factor", "X")
    ] = None
    priority: Annotated[
        int | None, Field(ge=0, le=99), Flag("--priority", "its class where not all can be served (--shed), 0 first; waiting requests are 1, others 0", "N")
    ] = None
    models: Annotated[tuple[Name, ...], Many, Flag("--model", "serve only with this model or checkpoint", "NAME")] = ()
    regions: Annotated[
        tuple[Name, ...], Many, Flag("--data-region", "serve only in this region; or at the own site of this name: where the data may live", "NAME")
    ] = ()
    geographies: Annotated[tuple[Name, ...], Many, Flag("--data-geography", "serve only in us, eu or other, or in a --data-region", "NAME")] = ()
    network: Annotated[
        Lead, Field(ge=0, le=60), Flag("--network-latency", "round trip from its callers to the servers, a part of TTFT and E2E, such as 40ms (none)", "TIME")
    ] = 0.0
    network_at: Annotated[
        dict[Name, Annotated[Lead, Field(ge=0, le=60)]],
        BeforeValidator(parse_pairs),
        Flag(
            "--network-at",
            "the same to one region or own site: eu-west-1=12ms; others count --network-latency, or are left out",
            "REGION=TIME",
        ),
    ] = {}
    lengths: Annotated[
        Lengths | None, Flag("--lengths", "joint lengths of prompts and answers: a shipped shape (plan demand show), a histogram CSV, a demand TOML", "NAME")
    ] = None
    route_by: Annotated[Literal["", "input"], Flag("--route-by", "input: split the workload by prompt length, which a router can tell", "WHAT")] = ""
    boundary: Annotated[
        Tokens | None,
        BeforeValidator(lambda v: None if v == "auto" else v),
        Flag("--boundary", "with --route-by: prompts of fewer tokens are one class, others the other; auto: the cheapest is searched for", "TOKENS"),
    ] = None
    escalate: Annotated[
        Quality | None, Field(gt=0, lt=1), Flag("--escalate", "share of requests answered again by a model of at least --escalate-quality", "SHARE")
    ] = None
    escalate_quality: Annotated[Quality | None, Flag("--escalate-quality", "lowest score of a model that answers escalated requests (0-1)", "SHARE")] = None
    escalated_from: Name = ""  # whose requests these are, answered again; set where a cascade is planned
    demand: Annotated[
        Demanded | None, Flag("--demand-file", "rate, peak, lengths and prefix hits out of a demand TOML (plan import demand) or shape", "FILE")
    ] = None
    rate_rule: Annotated[
        Literal["percentile", "mean", "peak-minute"], Flag("--rate-rule", "what to plan a demand file for: percentile (the SLO's), mean or peak-minute", "RULE")
    ] = "percentile"
    growth: Annotated[
        float, BeforeValidator(parse_growth), Flag("--growth", "traffic planned for per traffic today: 1.3, 30% or 5%/month for 12 months", "X")
    ] = 1.0
    users: Annotated[Rate | None, Flag("--users", "users in a conversation at once, instead of a rate", "N")] = None
    think_time: Annotated[Seconds | None, Flag("--think-time", "pause of a user between an answer and the next request", "TIME")] = None
    turns: Annotated[float | None, Field(ge=2, le=1e6), Flag("--turns", "requests of a conversation: there is no pause after the last", "N")] = None
    profile: Annotated[
        str, BeforeValidator(listed), Flag("--profile", "shape of the rate over the hours of a day or week, around its mean: a name, a list, or a CSV", "SHAPE")
    ] = ""
    requests_per_day: Annotated[
        float | None,
        Field(gt=0, le=1e12, allow_inf_nan=False),
        Flag("--requests-per-day", "requests of a day that may wait for spare capacity, instead of a rate", "N"),
    ] = None
    release: Annotated[TimeOfDay, Flag("--release", "time of day at which a day's waiting requests are there (a day before the deadline)", "HH:MM")] = ""
    deadline: Annotated[TimeOfDay, Flag("--deadline", "time of day by which a day's waiting requests are done", "HH:MM")] = "00:00"

    @model_validator(mode="before")
    @classmethod
    def _read_slo(cls, data: object) -> object:
        """Checks the names of limits and adds the default ones."""
        if not isinstance(data, dict):
            return data
        slo = with_defaults(data.get("slo", {}), streams=data.get("requests_per_day") is None)
        if not isinstance(slo, dict):
            return data
        read = {**data, "slo": slo}
        if read.keys().isdisjoint(DEMAND_FIELDS):
            return read
        from planner.scenario.asked import with_demand

        return with_demand(read)

    @model_validator(mode="after")
    def _one_demand(self) -> Workload:
        given = [n for n in ("qps", "concurrency", "requests_per_day") if getattr(self, n) is not None]
        if len(given) > 1:
            raise problem(f"workload '{self.name}' has both {given[0]} and {given[1]}; give one", given[1])
        if not given:
            raise ValueError(f"workload '{self.name}' needs either qps or concurrency")
        if self.tokenizer and not self.language:
            raise problem("tokens of a tokenizer become those of models by language; give the language too", "tokenizer")
        if self.route_by and not (self.lengths.cuts if self.lengths else self.spreads[0]):
            raise problem(f"workload '{self.name}' cannot be routed by length: nothing says how its prompts vary; give lengths or a spread", "route_by")
        if self.boundary is not None and not self.route_by:
            raise problem("a boundary is where requests are split by length; say --route-by input too", "boundary")
        self._can_escalate()
        for name, tokens in (("max_input", self.input_tokens), ("max_request", self.input_tokens + self.output_tokens)):
            limit = getattr(self, name)
            if limit is not None and tokens > limit:
                raise problem(f"requests of {tokens:g} tokens on average cannot all be at most {limit:g}; the mean is of what is sent", name)
        self._is_reached()
        if self.requests_per_day is not None and self.profile:
            raise problem(f"workload '{self.name}' may wait, so its hours follow from the plan; leave the profile out", "profile")
        return self

    def _is_reached(self) -> None:
        """Raises where the network takes all of a limit, wherever the servers are."""
        nearest = min((*self.network_at.values(), *([self.network] if self.network or not self.network_at else [])))
        if short := next((s for s in self.limits if s.bounds_wait and s.seconds <= nearest), None):
            words = f"the network alone takes {format_lead(nearest)}, all that {short.words} of '{self.name}' allows, or more"
            raise problem(words, "network_at" if self.network_at else "network")
        if self.network_at and self.route_by:
            raise problem(f"workload '{self.name}' is split by length, which is not planned by region yet: leave one of the two out", "network_at")

    def _can_escalate(self) -> None:
        if (self.escalate is None) != (self.escalate_quality is None):
            missing = "escalate_quality" if self.escalate_quality is None else "escalate"
            raise problem("a share to escalate and the quality to escalate to go together; give both", missing)
        if self.escalate is None or self.escalated_from:
            return
        if self.qps is None or self.route_by or (self.demand and self.demand.is_open):
            raise problem(f"workload '{self.name}' needs a rate of its own to escalate a share of: qps, without users or route_by", "escalate")
        if self.min_quality is not None and (self.escalate_quality or 0) <= self.min_quality:
            raise problem(f"every model already scores at least {self.min_quality:g}; escalate to more", "escalate_quality")

    @property
    def is_cascade(self) -> bool:
        """Whether a share of it is still to become a workload of its own, answered again."""
        return self.escalate is not None and not self.escalated_from

    @field_serializer("slo")
    def _whole_slo(self, slo: dict[str, float]) -> dict[str, str]:
        """Limits as text; what is left without a limit says so, for the defaults would come back on reading."""
        absent = unlimited(slo) if self.requests_per_day is None else {}
        return {k: format_duration(v) for k, v in slo.items()} | absent

    @property
    def has_places(self) -> bool:
        """Whether its data may not be everywhere."""
        return bool(self.regions or self.geographies)

    @property
    def kind(self) -> DemandKind:
        """What its demand is stated in."""
        return "qps" if self.qps is not None else "concurrency" if self.concurrency is not None else "requests_per_day"

    @property
    def is_waiting(self) -> bool:
        """Whether its requests may wait for spare capacity."""
        return self.requests_per_day is not None

    @property
    def is_closed(self) -> bool:
        """Whether it is so many requests in flight, of which each waits for its answer."""
        return self.concurrency is not None

    @property
    def rate_field(self) -> Literal["qps", "concurrency"]:
        """The field that a rate in its own unit goes into; requests of a day become a stream."""
        return "concurrency" if self.is_closed else "qps"

    @property
    def unit(self) -> str:
        """What its rate is counted in."""
        return "in flight" if self.is_closed else "req/s"

    @property
    def rate(self) -> float:
        """The mean demand in its own unit: requests/s, or requests in flight; of a day's requests, spread over the hours they have."""
        if self.requests_per_day is not None:
            return self.requests_per_day / (3600 * len(self.hours))
        return self.qps if self.qps is not None else float(self.concurrency or 0)

    def at_rate(self, rate: float) -> Workload:
        """The same with another mean demand in its own unit, unchecked; requests of a day become a stream."""
        return self.model_copy(update={self.rate_field: rate, "requests_per_day": None})

    @property
    def limits(self) -> tuple[Slo, ...]:
        """The latency limits, in the order given."""
        return read_limits(self.slo)

    def relaxed(self, times: float) -> Workload:
        """The same with limits on latency that are so many times as long."""
        return self if times == 1 else self.model_copy(update={"slo": {name: times * seconds for name, seconds in self.slo.items()}})

    @property
    def server_limits(self) -> tuple[Slo, ...]:
        """The same at the servers: TTFT and E2E less the network's round trip."""
        return tuple(replace(s, seconds=s.seconds - self.network) if s.bounds_wait and self.network else s for s in self.limits)

    def network_to(self, place: str) -> float | None:
        """The round trip to a region or a site of one's own, s; None where nothing is stated of it."""
        return self.network_at.get(place, self.network or None) if self.network_at else self.network

    @property
    def spreads(self) -> tuple[float, float]:
        """CV of prompt and of answer lengths: as stated, else as fits their size and what callers can send."""
        room = min(LONGEST_PROMPT, self.max_input or LONGEST_PROMPT, (self.max_request or inf) - self.output_tokens)
        return (
            default_cv(self.input_tokens, CHAT_INPUT_CV, room) if self.input_cv is None else self.input_cv,
            default_cv(self.output_tokens, CHAT_OUTPUT_CV, LONGEST_ANSWER) if self.output_cv is None else self.output_cv,
        )

    @property
    def hours(self) -> tuple[int, ...]:
        """Hours of the day in which waiting requests may be served: from release to deadline; all where both are one."""
        begin, end = (int(t.partition(":")[0]) for t in (self.release or self.deadline, self.deadline))
        return tuple((begin + i) % 24 for i in range((end - begin) % 24 or 24))

    @property
    def is_queue_bounded(self) -> bool:
        """Whether ``max_waiting_share`` counts: nothing in the SLO says how long nine in ten requests may wait, and they are not there to wait."""
        says = any(limit.bounds_wait and limit.percentile >= MOST_REQUESTS for limit in self.limits)
        return self.max_waiting_share < 1 and not says and self.requests_per_day is None

    @property
    def priority_class(self) -> int:
        """Who is served first where not all can be: the lower number."""
        return self.priority if self.priority is not None else int(self.is_waiting)

    @property
    def peak(self) -> float:
        """The demand that capacity must hold."""
        return self.rate * self.burst_factor


Yearly = Annotated[float, Field(ge=0, le=1e7, allow_inf_nan=False)]  # USD of one GPU, each year
YEARLY = ("network", "storage", "software", "operators")  # what racks cost beside GPUs, power and upkeep; a field of Owned each


class Owned(Part):
    """GPUs of one's own that may be used beside rented ones: an hourly cost as known, or what it follows from (catalog/ownership.py).

    Replicas have 2^k GPUs, so nodes of 2^k GPUs are filled exactly whatever mix of replicas they hold. Nothing spans two nodes.
    """

    name: Name = "own"  # of the site, shown where rented GPUs show their provider
    gpu: Name
    count: Annotated[int, Field(ge=1, le=10**7)]  # GPUs there are
    gpus_per_node: Annotated[int, Field(ge=1, le=1024)]
    max_tp: Annotated[int | None, Field(ge=1, le=1024)] = None  # GPUs joined well enough to share a layer; as many as a node has
    usd_per_hour: Annotated[float | None, Field(gt=0, le=1e4)] = None  # of one GPU
    price: Annotated[float | None, Field(gt=0, le=1e8)] = None  # USD of one GPU with its share of the server
    years: Annotated[float | None, Field(gt=0, le=100)] = None  # over which it is written off
    kw: Annotated[float | None, Field(gt=0, le=1000)] = None  # drawn by one GPU; the catalogue's TDP
    pue: Annotated[float, Field(ge=1, le=10)] = 1.0
    carbon_intensity: Annotated[float | None, Field(ge=0, le=5000, allow_inf_nan=False)] = None  # gCO2e per kWh; the supply's
    electricity: Annotated[float | None, Field(ge=0, le=100)] = None  # USD per kWh
    maintenance: Annotated[float, Field(ge=0, le=1)] = 0.0  # share of the price per year
    sunk: bool = False  # the price is spent either way: only what is paid year by year counts
    network_usd_per_gpu_year: Yearly = 0.0  # switches, optics and transit
    storage_usd_per_gpu_year: Yearly = 0.0
    software_usd_per_gpu_year: Yearly = 0.0  # licences and support
    operators_usd_per_gpu_year: Yearly = 0.0  # the people who run them

    @property
    def yearly(self) -> dict[str, float]:
        """USD that one GPU costs each year beside its price, power and upkeep, by what for; without those that cost nothing."""
        found = {name: float(getattr(self, f"{name}_usd_per_gpu_year")) for name in YEARLY}
        return {name: usd for name, usd in found.items() if usd}

    @model_validator(mode="after")
    def _complete(self) -> Owned:
        """One way to know the cost, whole."""
        named = ("price", "years", "kw", "pue", "electricity", "maintenance", "sunk", *(f"{name}_usd_per_gpu_year" for name in YEARLY))
        parts = [n for n in named if getattr(self, n) != type(self).model_fields[n].default]
        if self.usd_per_hour is not None and parts:
            raise problem(f"usd_per_hour is the whole cost, so {' and '.join(parts)} cannot stand beside it", "usd_per_hour")
        needed = ["electricity"] if self.sunk else ["price", "years", "electricity"]
        needed += ["price"] if self.sunk and self.maintenance else []
        missing = [n for n in needed if getattr(self, n) is None]
        if self.usd_per_hour is None and missing:
            raise ValueError(f"what an hour of {self.gpu} costs is not known: give {', '.join(missing)}, or usd_per_hour")
        if self.gpus_per_node & (self.gpus_per_node - 1):
            raise problem("nodes must have 1, 2, 4, 8, … GPUs; write a node of 10 as one of 8 and one of 2", "gpus_per_node")
        if (self.max_tp or 1) > self.gpus_per_node:
            raise problem(f"max_tp is more than the {self.gpus_per_node} GPUs of a node", "max_tp")
        return self


class OwnedFile(Part):
    """What a file of one's own GPUs holds."""

    owned: tuple[Owned, ...]


class Supply(Part):
    """What may be bought."""

    kinds: Annotated[
        tuple[Kind, ...],
        Many,
        Flag("--kind", "kind of provider: hyperscaler, neocloud, reseller, marketplace, serverless; owned: rent nothing", "KIND"),
    ] = KINDS
    purchase: Annotated[tuple[Purchase, ...], Many, Flag("--purchase", "on_demand or spot", "WAY")] = ("on_demand",)
    providers: Annotated[tuple[Name, ...], Many, Flag("--provider", "buy only from this provider", "NAME")] = ()
    exclude_providers: Annotated[tuple[Name, ...], Many, Flag("--exclude-provider", "never buy from this provider", "NAME")] = ()
    regions: Annotated[tuple[Name, ...], Many, Flag("--region", "buy only in this region", "NAME")] = ()
    geographies: Annotated[tuple[Name, ...], Many, Flag("--geography", "buy only in us, eu or other; leaves out offers that state no place", "NAME")] = ()
    gpus: Annotated[tuple[Name, ...], Many, Flag("--gpu", "use only this GPU type", "NAME")] = ()
    exclude_gpus: Annotated[tuple[Name, ...], Many, Flag("--exclude-gpu", "never use this GPU type", "NAME")] = ()
    quota: Annotated[
        dict[Name, Annotated[int, Field(ge=0, le=10**7)]],
        BeforeValidator(parse_pairs),
        Flag("--quota", "most GPUs held of a type, provider, region or zone, or of several: aws/us-east-1/H100=16", "OF=N"),
    ] = {}
    max_gpus: Annotated[int | None, Field(ge=1, le=10**7), Flag("--max-gpus", "most GPUs held in all", "N")] = None
    max_kw: Annotated[float | None, Field(gt=0, le=10**7, allow_inf_nan=False), Flag("--max-kw", "most power held in all, kW: GPUs' power x --pue", "KW")] = (
        None
    )
    max_kw_at: Annotated[
        dict[Name, Annotated[float, Field(gt=0, le=10**7, allow_inf_nan=False)]],
        BeforeValidator(parse_pairs),
        Flag("--max-kw-at", "most power held at one location (provider and region), kW", "PLACE=KW"),
    ] = {}
    pue: Annotated[
        float | None,
        Field(ge=1, le=5),
        Flag("--pue", "power of the data centre over that of its GPUs, for rented ones; the provider's of grid.csv, else 1 (GPUs alone)", "X"),
    ] = None
    max_carbon: Annotated[
        float | None, Field(gt=0, le=10**8, allow_inf_nan=False), Flag("--max-carbon", "most carbon of what is held in all, kgCO2e per hour", "KG")
    ] = None
    carbon_intensity: Annotated[
        float | None,
        Field(ge=0, le=5000, allow_inf_nan=False),
        Flag("--carbon-intensity", "gCO2e per kWh where grid.csv knows none, such as of offers that state no place", "G"),
    ] = None
    zones: Annotated[
        int | None, Field(ge=1, le=26), Flag("--zones", "zones of a region, for --redundancy n+1-zone; left out, hyperscalers have 3 and others 1", "K")
    ] = None
    max_price_age: Annotated[int | None, Field(ge=1, le=10**5), Flag("--max-price-age", "use no price this many days older than the newest one", "DAYS")] = None
    api_providers: Annotated[tuple[Name, ...], Many, Flag("--api-provider", "use hosted APIs of this provider only (with --api)", "NAME")] = ()
    api_limit: Annotated[
        dict[Name, Rate],
        BeforeValidator(parse_pairs),
        Flag("--api-limit", "most requests/s that one provider's APIs take, at peaks (none is known)", "NAME=RATE"),
    ] = {}
    owned: Annotated[tuple[Owned, ...], Flag("--owned", "TOML with [[owned]] tables: GPUs of one's own, beside rented ones", "FILE")] = ()
    offers: Annotated[tuple[OwnOffer, ...], Flag("--offers", "CSV or TOML: contracts and quotes of one's own, beside the catalogue's prices", "FILE")] = ()
    discount: Annotated[
        dict[Name, Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]],
        BeforeValidator(parse_pairs),
        Flag("--discount", "share off the catalogue's prices of a provider: aws=0.2, or of one way to buy: aws:spot=0.1", "PROVIDER=SHARE"),
    ] = {}
    exchange_rate: Annotated[
        dict[Name, Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]],
        BeforeValidator(parse_pairs),
        Flag("--exchange-rate", "USD per unit of a currency that offers of one's own are in: EUR=1.08", "CURRENCY=X"),
    ] = {}

    current: Annotated[
        tuple[Held, ...], Flag("--current", "what is held today: a saved plan, or TOML with [[held]] tables; the plan says what to keep, add and drop", "FILE")
    ] = ()
    as_of: Annotated[date | None, Flag("--as-of", "day of planning, from which contracts of --current run on; the newest price's", "DATE")] = None
    max_changes: Annotated[int | None, Field(ge=0, le=10**7), Flag("--max-changes", "most instances added or returned from --current", "N")] = None
    change_cost: Annotated[
        float, Field(ge=0, le=10**6, allow_inf_nan=False), Flag("--change-cost", "USD, once, of each GPU added or returned from --current", "USD")
    ] = 0.0
    change_over: Annotated[
        float,
        BeforeValidator(parse_span_h),
        PlainSerializer(lambda v: f"{exact(v)}h", return_type=str, when_used="always"),
        Flag("--change-over", "time that --change-cost is spread over, such as 1month or 90days", "TIME"),
    ] = 730.0

    @property
    def change_usd_per_gpu_hour(self) -> float:
        """What the change of one GPU costs, spread over time."""
        return self.change_cost / self.change_over

    @model_validator(mode="after")
    def _complete(self) -> Supply:
        asked = [name for name in ("as_of", "max_changes", "change_cost") if getattr(self, name)]
        if asked and not self.current:
            raise problem("changes are counted from what is held today: give it with --current FILE, or as [[supply.current]]", asked[0])
        if self.kinds == ("owned",) and not self.owned:
            raise problem("only GPUs of one's own may be used, but none are given; list them with --owned FILE, or as [[supply.owned]]", "kinds")
        places = [(o.name, o.gpu) for o in self.owned]
        for i, place in enumerate(places):
            if place in places[:i]:
                raise problem(f"{place[1]} of '{place[0]}' stands twice; give each a name of its own", "owned", i, "name")
        keys = [o.key for o in self.offers]
        for i, offer in enumerate(self.offers):
            if offer.key in keys[:i]:
                raise problem(f"offer '{offer.key}' stands twice, as number {keys.index(offer.key) + 1} and {i + 1}; give each an id of its own", "offers", i)
            if offer.currency not in (USD, *self.exchange_rate):
                raise problem(
                    f"offer '{offer.key}' is in {offer.currency}: state USD per {offer.currency} with --exchange-rate {offer.currency}=X", "offers", i
                )
        return self


class Policy(Part):
    """How it may be run."""

    confidence: Annotated[float, Field(ge=0.5, le=0.99), Flag("--confidence", "share of step-time predictions that must not be exceeded", "SHARE")] = 0.8
    max_slo_load: Annotated[float, Field(gt=0, le=1), Flag("--max-slo-load", "most traffic per capacity of any deployment", "SHARE")] = 1.0
    spare_replicas: Annotated[int, Field(ge=0, le=1000), Flag("--spare-replicas", "replicas of each deployment that may fail with the SLO kept", "K")] = 0
    redundancy: Annotated[
        Redundancy, Flag("--redundancy", "loss after which demand is still met: none, n+1-replica, n+1-instance, n+1-zone, or spot (all of it at once)", "WHAT")
    ] = "none"
    load_after_loss: Annotated[float, Field(gt=0, le=1), Flag("--load-after-loss", "most traffic per capacity of any deployment after that loss", "SHARE")] = (
        1.0
    )
    loss_slo_factor: Annotated[
        float, Field(ge=1, le=100, allow_inf_nan=False), Flag("--loss-slo", "how many times as long latencies may be after that loss", "X")
    ] = 1.0
    max_spot_share: Annotated[float | None, Field(ge=0, le=1), Flag("--max-spot-share", "most of each deployment's replicas that may be on spot", "SHARE")] = (
        None
    )
    max_pools: Annotated[int | None, Field(ge=1), Flag("--max-pools", "most deployments that serve one workload (1; with --mix no limit)", "N")] = None
    shed: Annotated[bool, Flag("--shed", "where budget, quotas or GPUs do not suffice: serve by priority, and say what is not served")] = False
    api: Annotated[
        Literal["none", "all", "overflow"],
        Flag("--api", "hosted APIs, whose latency is not known: none; all: for all of a workload; overflow: beside a fleet, too", "HOW"),
    ] = "none"
    mix: Annotated[bool, Flag("--mix", "let several checkpoints serve one workload")] = False
    max_models: Annotated[int | None, Field(ge=1), Flag("--max-models", "most distinct models", "N")] = None
    max_gpu_types: Annotated[int | None, Field(ge=1), Flag("--max-gpu-types", "most distinct GPU types", "N")] = None
    max_locations: Annotated[int, Field(ge=1), Flag("--max-locations", "most provider regions", "N")] = 1
    budget: Annotated[UsdPerHour | None, Flag("--budget", "most money per time, such as 120/h or 50000/month", "MONEY")] = None
    engines: Annotated[tuple[Engine, ...], Many, Flag("--engine", "use only this engine: vllm, sglang, trtllm", "NAME")] = ()
    precisions: Annotated[tuple[Precision, ...], Many, Flag("--precision", "use only checkpoints of this precision", "NAME")] = ()
    adapters: Annotated[int, Field(ge=0, le=10_000), Flag("--adapters", "LoRA adapters that every replica keeps in GPU memory (vLLM and SGLang)", "N")] = 0
    adapter_rank: Annotated[int, Field(ge=1, le=1024), Flag("--adapter-rank", "rank of the LoRA adapters", "R")] = 16
    exclude_models: Annotated[tuple[Name, ...], Many, Flag("--exclude-model", "never use this model or checkpoint", "NAME")] = ()
    tuning: Annotated[Tuning, Flag("--tuning", "how engines are set: default (as they start), recipe (a vendor's settings) or record", "HOW")] = "recipe"
    evidence: Annotated[Tier, Flag("--evidence", "thinnest evidence a plan may rest on: measured, anchored, transferred, modelled (any)", "TIER")] = "modelled"
    quality_margin: Annotated[float, Field(ge=0, lt=1), Flag("--quality-margin", "by how much scores must clear their floors", "SCORE")] = 0.0
    prudent: Annotated[bool, Flag("--prudent", "plan what survives: a spare replica, worst recovery, nearest evidence, prices at most 90 days old")] = False
    worst_recovery: Annotated[bool, Flag("--worst-recovery", "count derived scores at the worst published recovery of their quantisation")] = False
    gpu_memory_utilization: Annotated[float, Field(gt=0.3, le=0.99), Flag("--gpu-memory-utilization", "share of GPU memory the engine may use", "SHARE")] = 0.92
    allow: Annotated[
        tuple[Literal["attention_dp", "expert_parallel", "fp8_kv", "speculative", "disaggregated"], ...],
        Many,
        Flag("--allow", "ways to serve beside tensor parallel: attention_dp, expert_parallel (both by default), fp8_kv, speculative, disaggregated", "WAY"),
    ] = ("attention_dp", "expert_parallel")
    chunked_prefill: Annotated[bool, Flag("--chunked-prefill", "true: prompts share the steps of decoding; false: each has a step of its own", "BOOL")] = True
    router: Annotated[Literal["least_loaded", "random"], Flag("--router", "how requests reach replicas: least_loaded or random", "NAME")] = "least_loaded"
    startup_lead: Annotated[Lead, Field(ge=0, le=86400), Flag("--startup-lead", "time from starting an instance to its replicas serving", "TIME")] = 600.0
    min_up_periods: Annotated[int, Field(ge=1, le=24), Flag("--min-up-periods", "fewest hours for which an instance is held once started", "N")] = 1
    floor_replicas: Annotated[int, Field(ge=0, le=10**6), Flag("--floor-replicas", "fewest replicas of each deployment at any hour", "N")] = 1

    @model_validator(mode="after")
    def _after_a_loss(self) -> Policy:
        if self.load_after_loss != 1 and not self.survives:
            raise problem(f"nothing is lost with redundancy {self.redundancy}: it is of n+1-instance, n+1-zone or spot", "load_after_loss")
        if self.loss_slo_factor != 1 and not self.survives:
            raise problem(f"nothing is lost with redundancy {self.redundancy}: longer limits are of n+1-instance, n+1-zone or spot", "loss_slo_factor")
        return self

    @property
    def survives(self) -> Loss | None:
        """What may be lost at once, counted by where replicas stand; one replica of each deployment is a spare one."""
        return LOSSES.get(self.redundancy)

    @property
    def pools_per_workload(self) -> int | None:
        """Most deployments per workload; None = no limit."""
        return self.max_pools if self.max_pools is not None else (None if self.mix else 1)

    @property
    def lora(self) -> tuple[int, int]:
        """How many LoRA adapters every replica keeps, and their rank."""
        return self.adapters, self.adapter_rank

    @property
    def keeps_level(self) -> bool:
        """Whether requests are spread so evenly that each replica of a deployment has as many in flight as the others."""
        return self.router == "least_loaded"


class Objective(Part):
    """What the best plan is."""

    minimize: Literal["cost"] = "cost"
    maximize: Annotated[
        Literal["", "qps", "quality"],
        Flag("--maximize", "find the most qps, or the best quality, within budget, quotas and owned GPUs; cost comes second", "WHAT"),
    ] = ""
    carbon_price: Annotated[
        float, Field(ge=0, le=10**6, allow_inf_nan=False), Flag("--carbon-price", "USD per tonne of CO2e, added to what is minimised", "USD")
    ] = 0.0


class Solver(Part):
    """How long and how exactly to search."""

    gap: Annotated[float, Field(ge=0, lt=1), Flag("--gap", "relative gap at which a plan counts as optimal", "SHARE")] = 0.001
    time_limit: Annotated[Seconds, Flag("--time-limit", "longest time for the whole answer", "TIME")] = 30.0
    seed: Annotated[int, Field(ge=0, le=2**31 - 1), Flag("--seed", "seed of the solver", "N")] = 0


class WhatIf(Part):
    """Suppositions for sensitivity studies; every plan made under one says so."""

    price_factor: Annotated[
        dict[Name, Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)]],
        BeforeValidator(parse_pairs),
        Flag("--price-factor", "suppose that GPUs of one type, of one provider, or all cost X times their price", "NAME=X"),
    ] = {}
    draw: Annotated[
        int | None,
        Field(ge=0, le=2**31 - 1),
        Flag("--draw", "suppose the N-th random draw of every configuration's prediction error, instead of --confidence", "N"),
    ] = None
    step_factor: Annotated[
        float, Field(gt=0.01, le=100, allow_inf_nan=False), Flag("--step-factor", "suppose that all steps take X times what is predicted", "X")
    ] = 1.0


class Tables(Part):
    """Measured capacities of one's own, instead of the catalogues."""

    capacities: Annotated[str | None, Flag("--capacities", "CSV: candidate,gpu,gpus,usd_per_hour,class,max_qps", "FILE")] = None
    demand: Annotated[str | None, Flag("--demand", "CSV: class,qps", "FILE")] = None
    single_candidate_per_class: Annotated[bool, Flag("--single-candidate-per-class", "a class must not be split")] = False


class Scenario(Part):
    """The whole question: workloads, supply, policy, objective."""

    name: Name = ""
    catalog: Annotated[tuple[str, ...], Many, Flag("--catalog", "folder with cards, prices, GPUs of your own; they win over the shipped ones", "DIR")] = ()
    workload: Annotated[tuple[Workload, ...], Field(max_length=limits.WORKLOADS)] = ()
    supply: Supply = Supply()
    policy: Policy = Policy()
    objective: Objective = Objective()
    solver: Solver = Solver()
    what_if: WhatIf = WhatIf()
    tables: Tables = Tables()
    outlook: Annotated[Outlook | None, Field(exclude_if=lambda v: v is None)] = None  # what plan contract plans for

    @property
    def has_waiting(self) -> bool:
        """Whether any of its requests may wait: then what is held follows the hours, and so does the cost."""
        return any(w.requests_per_day is not None for w in self.workload)

    @model_validator(mode="before")
    @classmethod
    def _any_traffic(cls, data: object) -> object:
        """Who asks for the most traffic states none: workloads then count in equal parts."""
        if not isinstance(data, dict) or not isinstance(data.get("objective"), dict) or data["objective"].get("maximize") != "qps":
            return data
        workloads = data.get("workload") or [{}]
        if not isinstance(workloads, (list, tuple)) or not all(isinstance(w, dict) for w in workloads):
            return data
        return {**data, "workload": [w if RATES & w.keys() else {**w, "qps": 1.0} for w in workloads]}

    @model_validator(mode="after")
    def _consistent(self) -> Scenario:
        names = [w.name for w in self.workload]
        for i, name in enumerate(names):
            if name in names[:i]:
                raise problem(f"workload '{name}' stands twice; give each a name of its own", "workload", i, "name")
        if not self.workload and not self.tables.capacities:
            raise ValueError("no demand: give qps or concurrency")
        if self.tables.capacities and (self.policy.survives or self.policy.max_spot_share is not None):
            what = "redundancy" if self.policy.survives else "max_spot_share"
            raise problem("with capacities of one's own nobody knows instances, zones or spot; a replica may be spare (n+1-replica)", "policy", what)
        if self.supply.zones is not None and self.policy.survives != "zone":
            raise problem(f"zones count where one may be lost: with redundancy n+1-zone, not {self.policy.redundancy}", "supply", "zones")
        if bool(self.tables.capacities) != bool(self.tables.demand):
            raise ValueError("capacities and demand go together")
        self._priced_per_request()
        self._from_today()
        return self

    def _from_today(self) -> None:
        """Raises where today's fleet cannot be planned from."""
        ways = {
            "numbers of one's own": self.tables.capacities,
            "the most that a budget buys": self.objective.maximize,
            "requests that may wait": self.has_waiting,
            "the loss of a zone": self.policy.survives == "zone",
            "a network that differs by region": any(w.network_at for w in self.workload),
        }
        if self.supply.current and (what := next((words for words, is_asked in ways.items() if is_asked), "")):
            raise problem(f"{what} cannot be planned from today's fleet yet: leave one of the two out", "supply", "current")

    def _priced_per_request(self) -> None:
        """APIs are paid by the request, and no more is known of them than prices: raises where the question turns on latency, place, carbon or an end."""
        if self.policy.api == "none":
            return
        for w in self.workload:
            if w.is_closed or (w.demand and w.demand.is_open):
                raise problem(f"workload '{w.name}' is in flight: an API's latency, and so its rate there, is not known; give a rate (qps)", "policy", "api")
            if w.regions or w.geographies:
                raise problem(f"where APIs run is not known, and the data of '{w.name}' must stay in its places; leave one of the two out", "policy", "api")
            if w.network_at:
                raise problem(f"where APIs run is not known, nor how far that is from '{w.name}'; leave one of the two out", "policy", "api")
        if self.policy.survives:
            raise problem("what an API bears is not known, so no loss is planned for beside one; leave one of the two out", "policy", "api")
        if self.objective.carbon_price or self.supply.max_carbon is not None:
            raise problem("the carbon of APIs is not known, so it cannot be priced or capped; leave one of the two out", "policy", "api")
        if self.objective.maximize:
            raise problem(f"the most {self.objective.maximize} has no end where APIs take any traffic; leave one of the two out", "policy", "api")
