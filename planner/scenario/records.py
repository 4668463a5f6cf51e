"""What can be asked: one typed Scenario. Flags, environment variables and TOML keys are all generated from its fields."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from planner import limits
from planner.catalog.records import Engine, Kind, Name, Precision, Purchase
from planner.scenario.fleet import Held
from planner.scenario.outlook import Outlook
from planner.scenario.own_offers import USD, OwnOffer
from planner.scenario.part import Flag, Lead, Many, Part, Rate, Seconds, UsdPerHour
from planner.scenario.problem import problem
from planner.scenario.units import exact, parse_pairs, parse_span_h
from planner.scenario.workload import RATES, Workload

Tier = Literal["measured", "anchored", "transferred", "modelled"]  # of evidence, nearest first (performance/evidence.py)
Tuning = Literal["default", "recipe", "record"]  # how an engine is set (performance/tuning.py)

Redundancy = Literal["none", "n+1-replica", "n+1-instance", "n+1-zone", "spot"]
Loss = Literal["instance", "zone", "spot"]
LOSSES: dict[str, Loss] = {"n+1-instance": "instance", "n+1-zone": "zone", "spot": "spot"}
Yearly = Annotated[float, Field(ge=0, le=1e7, allow_inf_nan=False)]  # USD of one GPU, each year
YEARLY = ("network", "storage", "software", "operators")  # what racks cost beside GPUs, power and upkeep; a field of Owned each
KINDS: tuple[Kind, ...] = ("hyperscaler", "neocloud")  # of providers that are bought from unless others are asked for


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
