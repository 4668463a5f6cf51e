"""The answer: one typed, immutable Plan of any kind. Its JSON is the contract (`plan schema`); earlier versions are read as well (upgrade.py).

Longer than other files on purpose: a contract is read in one piece.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from planner.catalog.replica_type import ReplicaType
from planner.result.upgrade import upgraded
from planner.scenario.own import OwnTables
from planner.scenario.records import Scenario, Tuning

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 2  # version 1 is read as well (upgrade.py)
HARDLY_ANY = 0.01  # of the capacity that a replica is planned at: where less is left, the limits hold at no load that counts


class PlanPart(BaseModel):
    """A frozen part of a plan."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Cost(PlanPart):
    """What is held and what APIs serve costs this much, a price on carbon included; unit costs are over the user's own traffic (answers, not reasoning)."""

    usd_per_hour: float
    usd_per_month: float
    usd_per_year: float
    usd_per_million_output_tokens: float | None = None
    usd_per_million_total_tokens: float | None = None
    usd_per_thousand_requests: float | None = None
    api_usd_per_hour: float = 0.0  # of the whole, paid to hosted APIs
    idle_usd_per_hour: float = 0.0  # of GPUs that no replica uses; by the hour their mean, and starts are not idle


class UnitCosts(PlanPart):
    """A share of what is held, idle GPUs included, split by the time engines work on it: new prompt tokens, cached ones, answers.

    The three dollar amounts add up to the whole; per million tokens of their own kind (answers: the user's, not reasoning).
    """

    usd_per_hour: float
    input_usd_per_hour: float
    cached_input_usd_per_hour: float
    output_usd_per_hour: float
    usd_per_million_input_tokens: float | None  # of those that are not found in the prefix cache; None: there are none
    usd_per_million_cached_input_tokens: float | None  # None: the plan counts on no hits
    usd_per_million_output_tokens: float
    usd_per_thousand_requests: float


class Purchase(PlanPart):
    """One line of what to buy; by the hour what is held at most, and in the first such period used of it."""

    provider: str
    kind: str
    region: str
    instance_type: str
    basis: str
    purchase: str
    gpu: str
    gpus_per_instance: int
    instances: int
    gpus_held: int
    gpus_idle: int
    usd_per_hour: float
    source: str
    as_of: str
    dated_by: str
    note: str = ""
    zone: str = ""
    id: str = ""  # of an offer of one's own
    carbon_usd_per_hour: float = 0.0  # of usd_per_hour: the price that a scenario puts on carbon; the rest is paid
    until: Annotated[str, Field(exclude_if=lambda v: not v)] = ""  # held today and contracted to that day: paid whether used or not
    minimum: Annotated[int, Field(exclude_if=lambda v: v == 1)] = 1  # instances, as it is sold in no fewer


class FleetLine(PlanPart):
    """What becomes of one kind of instance from today's fleet to the plan."""

    provider: str
    region: str
    zone: str
    instance_type: str
    gpu: str
    gpus_per_instance: int
    purchase: str
    usd_per_hour: float  # of one instance
    today: int
    planned: int
    until: str = ""  # contracted to that day
    id: str = ""

    @property
    def kept(self) -> int:
        """Instances that stay."""
        return min(self.today, self.planned)

    @property
    def added(self) -> int:
        """Instances more."""
        return max(self.planned - self.today, 0)

    @property
    def returned(self) -> int:
        """Instances fewer."""
        return max(self.today - self.planned, 0)


class FleetChanges(PlanPart):
    """From today's fleet to the plan: line by line, how many instances change, what that costs, and what staying would mean.

    Changes cost ``usd`` once, which is ``usd_per_hour`` over the time asked: beside the plan's cost, and minimised with it.
    """

    as_of: str  # day of planning: contracts that run longer are held
    lines: tuple[FleetLine, ...]
    added: int
    returned: int
    gpus_changed: int
    usd: float
    usd_per_hour: float
    today_usd_per_hour: float
    contracted_usd_per_hour: float  # of what is contracted, in the cost of every plan
    contracted_idle_usd_per_hour: float  # of that, of GPUs that no replica uses
    suffices: bool | None = None  # whether today's fleet serves everything as it is; None: not compared
    free_usd_per_hour: float | None = None  # minimised without a limit on changes: cost and changes; None: there is none, or not compared
    free_changes: int | None = None  # instances added and returned then


class PowerPart(PlanPart):
    """Power and carbon of one line of purchases in the mean over all hours, and what they are made of; None: not known.

    kw = instances x GPUs x ``gpu_kw`` x ``pue``; kg = kw x ``g_co2e_per_kwh`` / 1000.
    """

    gpu_kw: float | None  # the catalogue's TDP, which a GPU rarely draws in full, or as stated of one's own
    pue: float
    is_pue_known: bool  # False: 1 stands for it, the GPUs alone
    g_co2e_per_kwh: float | None
    kw: float | None
    kg_co2e_per_hour: float | None
    place: str = ""  # whose grid the intensity is of; "as stated"; "": not known
    as_of: str = ""
    source: str = ""


class Power(PlanPart):
    """Power and carbon of what is held, instances counted from their start on. None: not known, or per tokens that are not."""

    kw: float | None  # in the mean over all hours
    most_kw: float | None  # held at once
    kg_co2e_per_hour: float | None
    kwh_per_million_output_tokens: float | None = None
    kwh_per_million_total_tokens: float | None = None
    kg_co2e_per_million_output_tokens: float | None = None
    kg_co2e_per_million_total_tokens: float | None = None
    carbon_usd_per_hour: float = 0.0  # of the plan's cost, what carbon is charged for; the rest is paid
    parts: tuple[PowerPart, ...] = ()  # of each purchase


class PlanQuality(PlanPart):
    """The score of a deployment's checkpoint on a workload's benchmark."""

    benchmark: str
    score: float
    margin: float | None
    self_reported: bool
    derived: bool
    source: str
    as_of: str
    note: str = ""
    fp8_kv_unmeasured: bool = False  # served with an FP8 KV cache, which no source says that the score was taken with


class MemoryGib(PlanPart):
    """Memory per GPU, in GiB of the bytes the device offers; kv_cache is the room there is, sequences x per sequence at most."""

    weights: float
    kv_cache: float
    activations: float
    reserve: float
    total: float
    limit: float


class PlanEvidence(PlanPart):
    """How the performance of a deployment is known."""

    tier: str
    source: str
    as_of: str
    stands_for: str = ""  # engine, version and month that steps were pulled to: "vllm 0.19.0, 2026-04"; none: they were not
    confidence: float
    capacity_factor: float  # capacity at this confidence over capacity at the median (0.5)
    replicas_at_median: int | None = None  # what the same traffic would take at confidence 0.5
    replicas_at_95: int | None = None  # and at confidence 0.95; none where a replica then carries less than HARDLY_ANY within the limits
    tuning: Tuning = "recipe"  # how its engines are supposed to be set
    replicas_by_tuning: dict[str, int | None] = {}  # what the same traffic would take of engines set otherwise, as sure; none: they carry nothing
    tuning_taken: dict[str, str] = {}  # of engines so set nothing is known, and these stand for them
    step_time_factor: float  # predicted step times were multiplied by this
    step_time_band: dict[str, float] = {}  # the same at other confidences: measured/predicted is not above it with that share
    note: str = ""


class HostedOn(PlanPart):
    """Replicas of a deployment on one purchase line."""

    purchase: int
    replicas: int


class Distribution(PlanPart):
    """Predicted latency over all requests of the workload: on its slowest deployment where a workload states it, else on the one that does."""

    mean: float
    p50: float
    p90: float
    p95: float
    p99: float


class TtftParts(PlanPart):
    """Milliseconds of the mean TTFT, which they add up to (performance/first_token.py)."""

    request: float  # what an engine takes for a request besides its prompt
    queue: float  # waiting for a sequence, and for others' prompts
    schedule: float  # the rest of the step under way
    prefill: float  # the own prompt, with the decoding that shares its steps
    transfer: float  # KV cache sent from prefill to decode engine
    first_decode: float  # decoding of others in the step that writes the first token
    reasoning: float  # tokens before the answer's first


class LatencyBand(PlanPart):
    """A latency with expected steps, and what it does not exceed with a confidence of 90 %; None where replicas so slow do not serve the load."""

    median: Distribution | None
    at_90: Distribution | None


class DeploymentService(PlanPart):
    """What a workload's requests see of a deployment: the mean TTFT in parts, at the plan's confidence, and how sure latencies are (performance/bands.py)."""

    workload: str
    ttft_parts_ms: TtftParts
    ttft_p95_ms: float  # beside the mean's parts, as percentiles have none
    ttft_ms: LatencyBand
    tpot_ms: LatencyBand
    e2e_ms: LatencyBand


class Deployment(PlanPart):
    """One candidate of the plan with its replicas; by the hour as it is in its busiest period, waiting requests beside others left out."""

    model: str
    checkpoint: str
    mode: str
    is_hybrid: bool = False  # answers in either mode; the plan assumes the one named
    precision: str
    engine: str
    gpu: str
    tp: int
    pp: int
    dp: int = 1  # groups of attention data parallel among the tp GPUs
    ep: int = 1  # GPUs that whole experts are spread over; 1 = every expert is split by TP
    kv_cache_dtype: Literal["fp8", "16-bit"] = "16-bit"
    speculative: Literal["", "mtp"] = ""  # the checkpoint's own layer drafts tokens
    prefill_engines: int = 0  # of a disaggregated unit, each on tp x pp GPUs; 0 = one engine does both
    decode_engines: int = 0
    replicas: int
    gpus: int
    max_num_seqs: int  # of one engine; in a unit of each decode engine
    max_num_batched_tokens: int | None = None  # prompt and answer tokens of one step; None: not known
    capacity_qps_per_replica: float
    capacity_in_flight_per_replica: float | None = None
    qps: float
    in_flight_per_replica: float | None = None
    slo_load: float
    slo_load_one_replica_lost: float | None
    standing_by: int = 0  # replicas beside those that its traffic takes and its spare ones, for what may be lost; not counted by the hour
    usd_per_hour: float
    hosts: tuple[HostedOn, ...]
    serve_command: str = ""
    refused_share: float | None = None  # of the requests, too long for the context it is started with
    output_factor: float = 1.0
    quality: PlanQuality | None = None
    memory_gib: MemoryGib | None = None
    evidence: PlanEvidence | None = None
    service: tuple[DeploymentService, ...] = ()  # of each workload that it serves; none: a plan of an earlier planner, or requests that wait
    binding_limit: str = ""
    busiest: int | None = None  # the period that it is stated at; None: the plan is the same at every hour

    @property
    def replica(self) -> ReplicaType:
        """How one replica lies on its GPUs."""
        return replica_of(self)

    @property
    def layout(self) -> str:
        """The same in words."""
        return self.replica.words

    @property
    def gpus_per_replica(self) -> int:
        """GPUs of one replica, all engines of a unit together."""
        return self.replica.gpus

    def flat(self) -> dict[str, object]:
        """One flat row; parts become columns such as quality_score."""
        row = self.model_dump(exclude={"quality", "memory_gib", "evidence", "service", "hosts", "busiest"})
        for name, part in (("quality", self.quality), ("memory_gib", self.memory_gib), ("evidence", self.evidence)):
            row |= {f"{name}_{k}": v for k, v in part.model_dump().items() if not isinstance(v, dict)} if part else {}
        return row


class PlanDemand(PlanPart):
    """A workload's mean demand in its own unit."""

    kind: Literal["qps", "concurrency", "requests_per_day"]
    value: float


class SloLimit(PlanPart):
    """One latency limit."""

    metric: str
    limit_ms: float
    percentile: float


class Route(PlanPart):
    """Share of a workload on one deployment."""

    deployment: int
    share: float
    qps: float
    tokens_per_stated: float = 1.0  # the model's own tokens per token that lengths are stated in; 1 where that is not asked, or not known


class Predicted(PlanPart):
    """Predicted service."""

    ttft_ms: Distribution
    tpot_ms: Distribution
    itl_ms: Distribution | None = None  # over all tokens: how long each came after the one before
    e2e_ms: Distribution
    waiting_share: float | None = None  # of the requests: they find all sequences of their replica taken


class PlanWorkload(PlanPart):
    """One workload: what was asked and what it gets; by the hour in the busiest period of its deployment, what that has of it then, a route's ``share``
    over all periods.

    Requests that may wait (``is_waiting``) state what is done of them: ``qps`` and each route's at most, ``share`` of a route over all periods.
    """

    name: str
    demand: PlanDemand
    qps: float
    concurrency: float | None  # in flight in mean traffic, at the E2E of peaks
    burst_factor: float = 1.0  # peak over mean traffic; the predicted service is that of peaks
    input_tokens: float | None = None
    output_tokens: float | None = None
    slo: tuple[SloLimit, ...] = ()
    min_quality: float | None = None
    min_quality_served: float | None = None
    mean_quality_served: float | None = None
    routing: tuple[Route, ...]
    predicted: Predicted | None = None
    unit_costs: UnitCosts | None = None  # None: lengths are unknown, or the plan is by the hour
    is_waiting: bool = False
    network_ms: Annotated[float | None, Field(exclude_if=lambda v: v is None)] = None  # round trip that its limits leave, where that differs by region
    rates: tuple[float, ...] = ()  # mean demand in each period, in its own unit; of waiting requests those done, in requests/s


class HeadroomStep(PlanPart):
    """One step from mean demand to what is bought."""

    step: str
    factor: float
    note: str = ""


class Brief(PlanPart):
    """A deployment of an alternative, in brief."""

    model: str
    checkpoint: str
    precision: str
    engine: str
    gpu: str
    tp: int
    pp: int
    dp: int = 1
    ep: int = 1
    kv_cache_dtype: Literal["fp8", "16-bit"] = "16-bit"
    speculative: Literal["", "mtp"] = ""
    prefill_engines: int = 0
    decode_engines: int = 0
    replicas: int
    gpus: int

    @property
    def replica(self) -> ReplicaType:
        """How one replica lies on its GPUs."""
        return replica_of(self)

    @property
    def layout(self) -> str:
        """The same in words."""
        return self.replica.words


def replica_of(d: Deployment | Brief) -> ReplicaType:
    """How one replica lies on its GPUs, out of the fields that say so."""
    return ReplicaType(d.tp, d.pp, d.dp, d.ep, d.kv_cache_dtype == "fp8", d.speculative == "mtp", d.prefill_engines, d.decode_engines)


def replica_fields(t: ReplicaType) -> dict[str, Any]:
    """The fields of a Deployment or Brief that say how one replica lies on its GPUs."""
    return {
        "tp": t.tp, "pp": t.pp, "dp": t.dp, "ep": t.ep, "kv_cache_dtype": "fp8" if t.fp8_kv else "16-bit",
        "speculative": "mtp" if t.draft else "", "prefill_engines": t.prefill, "decode_engines": t.decode,
    }  # fmt: skip


class Alternative(PlanPart):
    """A plan that differs in structure, what it costs more, and why it lost."""

    difference: str
    feasible: bool
    cost: Cost | None = None
    premium: float | None = None  # share of the plan's cost
    why: str
    better_evidence: bool = False  # its predictions rest on nearer measurements than the plan's
    deployments: tuple[Brief, ...] = ()
    purchases: tuple[Purchase, ...] = ()


class PrudentStep(PlanPart):
    """One term of the posture fit to sign on top of those before, and the cheapest plan under all of them; without a plan, why there is none."""

    term: str
    usd_per_hour: float | None = None
    premium_usd_per_hour: float | None = None  # over the step before, in whole cents
    why: str = ""
    deployments: tuple[Brief, ...] = ()
    purchases: tuple[Purchase, ...] = ()


class Prudent(PlanPart):
    """The bridge from this plan to the one fit to sign (--prudent); without a cost where it ends before."""

    evidence: str  # the tier that is reached
    steps: tuple[PrudentStep, ...]  # the first is this plan
    usd_per_hour: float | None = None
    premium_usd_per_hour: float | None = None  # of all terms together


class LossBorne(PlanPart):
    """What the worst loss of the kind asked for leaves of one deployment; by the hour in the hour in which that is loaded most."""

    deployment: int
    hour: int | None = None
    loss: str
    replicas_lost: int
    replicas_left: int
    slo_load: float  # then


class PlanRedundancy(PlanPart):
    """The losses that a plan bears with all demand still met, and what that costs more than bearing none; None where that was not compared."""

    asked: str
    load_after_loss: float  # most SLO load that was allowed then
    loss_slo_factor: Annotated[float, Field(exclude_if=lambda v: v == 1)] = 1.0  # how many times as long limits were then
    losses: tuple[LossBorne, ...]
    assumption: str = ""
    usd_per_hour_without: float | None = None
    premium_usd_per_hour: float | None = None


class SpotRisk(PlanPart):
    """How often spot instances of one purchase are taken back, as published, and how loaded deployments are while one is away, until what replaces it
    serves. None: not published, or no replica is left."""

    purchase: int
    low: float | None  # share of such instances within a month
    high: float | None
    per_month: float | None  # interruptions expected of this purchase at the upper end; at the lower one where there is no upper
    slo_load_one_away: float | None
    source: str = ""
    as_of: str = ""


class HostedApi(PlanPart):
    """The same traffic at a hosted API."""

    workload: str
    model: str
    checkpoint: str
    provider: str
    api_name: str
    same_model: bool
    usd_per_hour: float
    usd_per_million_input: float
    usd_per_million_output: float
    source: str
    as_of: str
    usd_per_million_cached_input: float | None = None  # None: not known, so the hits that the workload counts on are at the price of input
    break_even_qps: float | None = None  # traffic at which what is held for the workload costs as much as the API
    break_even_utilization: float | None = None  # that traffic over the most the deployments carry; above 1 the API is cheaper even when they are full


class HostedShare(PlanPart):
    """The share of a workload that a hosted API serves, at its price; by the hour in the mean, ``Period.hosted`` says when. Its latency is not known,
    so neither is whether the limits hold there."""

    workload: str
    provider: str
    model: str
    checkpoint: str  # that the API is listed under
    mode: str
    api_name: str
    share: float
    qps: float  # in the mean
    usd_per_hour: float
    usd_per_million_input: float
    usd_per_million_output: float
    usd_per_million_cached_input: float | None = None  # None: not known, so hits are at the price of input
    output_factor: float = 1.0
    tokens_per_stated: float = 1.0  # as of a route
    quality: PlanQuality | None = None
    limit_qps: float | None = None  # that its provider takes at most, of all workloads at peaks; None: nobody stated one
    source: str
    as_of: str


class Shed(PlanPart):
    """What of a workload's demand is not served, where not all can be; ``priority``: its class, the lower the sooner served."""

    workload: str
    priority: int
    kind: Literal["qps", "concurrency"]
    asked: float
    served: float
    share: float  # of the demand, shed


class PeriodCount(PlanPart):
    """One deployment in one period. ``slo_load``: peak traffic of its workloads over capacity of the replicas in service."""

    replicas: int
    hosts: tuple[HostedOn, ...]
    slo_load: float
    waiting_requests: tuple[float, ...] = ()  # done in this period, in the order of the workloads that wait


class Period(PlanPart):
    """A span of time: each deployment in it, instances held of each purchase, and how many of them were started for it."""

    hour: int  # from the plan's start on
    hours: float = 1.0  # that it lasts
    deployments: tuple[PeriodCount, ...]
    instances: tuple[int, ...]
    started: tuple[int, ...]
    gpus_held: int
    usd: float  # of the whole period, start-ups for it included, and what APIs serve in it
    hosted: Annotated[tuple[float, ...], Field(exclude_if=lambda v: not v)] = ()  # requests/s in the mean at each API of the plan


class FlatComparison(PlanPart):
    """The cheapest plan that holds the peaks all day, which one by the hour is compared with; None where nothing does."""

    words: str
    usd_per_hour: float | None = None
    saving: float | None = None  # share of its cost


class SolverReport(PlanPart):
    """Size and outcome of the search."""

    name: str = "HiGHS"
    version: str
    candidates: int
    candidates_after_pruning: int
    variables: int | None  # of the largest program; None: many were solved, one for each structure
    constraints: int | None
    locations: int
    locations_solved: int
    structures: int | None = None  # solved over all hours; the rest was known to be dearer


class Plan(PlanPart):
    """The whole answer. Money is per hour, of a plan by the hour in the mean; ``gpus_used`` and ``gpus_held`` are the most at once."""

    schema_version: int = SCHEMA_VERSION
    planner_version: str
    catalog_hash: str
    kind: Literal["flat", "hourly", "own"] = "flat"  # own: from tables of one's own
    scenario: Scenario
    origins: dict[str, str] = {}  # of the scenario's values, by path: flag, environment or file
    status: Literal["optimal", "feasible"]
    gap: float
    bound_usd_per_hour: float
    objective: str
    supply: str
    cost: Cost
    power: Power | None = None  # None: from one's own tables, or by an earlier planner
    startup_usd_per_hour: float = 0.0  # of the cost, what instances cost before they serve
    unit_costs: UnitCosts | None = None  # of all workloads together
    gpus_used: int
    gpus_held: int
    purchases: tuple[Purchase, ...]
    changes: Annotated[FleetChanges | None, Field(exclude_if=lambda v: v is None)] = None  # from what is held today, where that is stated
    deployments: tuple[Deployment, ...]
    workloads: tuple[PlanWorkload, ...]
    shed: tuple[Shed, ...] = ()  # with --shed every workload asked for; the scenario then holds what is served
    hosted: tuple[HostedShare, ...] = ()  # what APIs serve of them; shares of routes and of these add up to 1
    periods: tuple[Period, ...] = ()  # none: it is the same at every hour (``by_period`` has one then)
    flat: FlatComparison | None = None  # of a plan by the hour
    headroom: tuple[HeadroomStep, ...] = ()
    defaults: tuple[str, ...] = ()
    alternatives: tuple[Alternative, ...] = ()
    prudent: Prudent | None = None
    redundancy: PlanRedundancy | None = None
    spot: tuple[SpotRisk, ...] = ()
    api: tuple[HostedApi, ...] = ()
    binding: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = ()
    excluded: dict[str, int] = {}
    solver: SolverReport
    own: OwnTables | None = None  # of a plan from tables of one's own

    _repr_html_: ClassVar[Callable[[Plan], str]]  # in notebooks; report/notebook.py gives it

    @model_validator(mode="before")
    @classmethod
    def _of_any_version(cls, data: object) -> object:
        return upgraded(data)

    def to_json(self) -> str:
        """The plan as JSON text; read back by ``Plan.model_validate_json``."""
        return self.model_dump_json(indent=1) + "\n"

    def noted(self, *notes: str) -> Plan:
        """The plan with these notes before its others."""
        return self.model_copy(update={"notes": (*notes, *self.notes)})

    @property
    def by_period(self) -> tuple[Period, ...]:
        """Its periods; of a plan that is the same at every hour that hour."""
        if self.periods:
            return self.periods
        counts = tuple(PeriodCount(replicas=d.replicas, hosts=d.hosts, slo_load=d.slo_load) for d in self.deployments)
        held = tuple(p.instances for p in self.purchases)
        apis, none = tuple(h.qps for h in self.hosted), (0,) * len(held)
        return (Period(hour=0, deployments=counts, instances=held, started=none, gpus_held=self.gpus_held, usd=self.cost.usd_per_hour, hosted=apis),)

    @property
    def of_hosted(self) -> Mapping[str, float]:
        """Share of each workload that APIs serve."""
        return {w.name: sum(h.share for h in self.hosted if h.workload == w.name) for w in self.workloads}

    def at_apis(self, workload: str, p: Period) -> float:
        """Requests/s of a workload that APIs serve in a period, in the mean."""
        return sum(qps for h, qps in zip(self.hosted, p.hosted, strict=True) if h.workload == workload)

    @property
    def hours(self) -> float:
        """That its periods last together."""
        return sum(p.hours for p in self.by_period)

    @property
    def carbon_usd_per_hour(self) -> float:
        """Of its cost, what carbon is charged for."""
        return self.power.carbon_usd_per_hour if self.power else 0.0

    @property
    def usd(self) -> float:
        """What its periods cost together."""
        return sum(p.usd for p in self.by_period)

    def rows(self) -> list[dict[str, Any]]:
        """One flat row per deployment; of a plan by the hour one per period."""
        if not self.periods:
            return [d.flat() for d in self.deployments]
        names = [f"replicas_{i}_{d.checkpoint.split('/')[-1]}" for i, d in enumerate(self.deployments)]
        return [
            {"hour": p.hour}
            | {f"rate_{w.name}": w.rates[t] for w in self.workloads}
            | ({f"api_{w.name}": self.at_apis(w.name, p) for w in self.workloads} if self.hosted else {})
            | {name: c.replicas for name, c in zip(names, p.deployments, strict=True)}
            | {"instances": sum(p.instances), "gpus_held": p.gpus_held, "usd": p.usd}
            for t, p in enumerate(self.periods)
        ]

    def to_frame(self) -> pd.DataFrame:
        """The rows as a table (pandas)."""
        import pandas as pd

        return pd.DataFrame(self.rows())
