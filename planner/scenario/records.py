"""What can be asked: one typed Scenario. Flags, environment variables and TOML keys are all generated from its fields."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, field_serializer, model_validator
from pydantic_core import PydanticCustomError

from planner.catalog.records import Engine, Kind, Precision, Purchase
from planner.scenario.units import exact, format_duration, parse_duration_s, parse_pairs, parse_share, parse_usd_per_hour


@dataclass(frozen=True)
class Flag:
    """How a field is asked for on the command line."""

    name: str
    help: str
    metavar: str = "TEXT"


Seconds = Annotated[float, BeforeValidator(parse_duration_s), PlainSerializer(format_duration, when_used="always")]
UsdPerHour = Annotated[float, BeforeValidator(parse_usd_per_hour), PlainSerializer(lambda v: f"{exact(v)}/h", when_used="always")]
Quality = Annotated[float, BeforeValidator(parse_share)]
Rate = Annotated[float, Field(gt=0, le=1e7, allow_inf_nan=False)]
Tokens = Annotated[float, Field(ge=1, le=1e7, allow_inf_nan=False)]
Variation = Annotated[float, Field(ge=0, le=3, allow_inf_nan=False)]
Many = BeforeValidator(lambda v: (v,) if isinstance(v, str) else v)

METRICS = ("ttft", "tpot", "e2e")
DEFAULT_SLO = {"ttft_p95": 2.0, "tpot_p95": 0.050}
# Spread of prompt and answer lengths in the Azure 2023 conversation trace (19,366 requests): standard deviation / mean.
DEFAULT_INPUT_CV, DEFAULT_OUTPUT_CV = 0.96, 0.77


def problem(what: str, *at: str | int) -> PydanticCustomError:
    """A validation error of several fields, to be shown at one of them (a path from where it is raised)."""
    return PydanticCustomError("misplaced", "{what}", {"what": what, "at": at})


class Part(BaseModel):
    """A frozen table of the scenario; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Workload(Part):
    """One stream of requests: how many, how long, how good, how fast."""

    name: str = "requests"
    qps: Annotated[Rate | None, Flag("--qps", "requests per second to serve", "RATE")] = None
    concurrency: Annotated[Rate | None, Flag("--concurrency", "requests in flight to serve, instead of a rate", "N")] = None
    min_quality: Annotated[Quality | None, Flag("--min-quality", "lowest benchmark score of any model that serves (0-1)", "SHARE")] = None
    mean_quality: Annotated[Quality | None, Flag("--mean-quality", "lowest mean score over the requests of a mix (0-1)", "SHARE")] = None
    quality_metric: Annotated[str, Flag("--quality-metric", "benchmark the floors are in", "NAME")] = "mmlu-pro"
    input_tokens: Annotated[Tokens, Flag("--isl", "mean prompt length", "TOKENS")] = 1000.0
    output_tokens: Annotated[Tokens, Flag("--osl", "mean answer length", "TOKENS")] = 300.0
    input_cv: Annotated[Variation, Flag("--isl-cv", "spread of prompt lengths, standard deviation / mean", "X")] = DEFAULT_INPUT_CV
    output_cv: Annotated[Variation, Flag("--osl-cv", "spread of answer lengths, standard deviation / mean", "X")] = DEFAULT_OUTPUT_CV
    slo: Annotated[dict[str, Seconds], BeforeValidator(parse_pairs), Flag("--slo", "one latency limit, such as ttft_p99=2s", "LIMIT")] = {}
    output_factor: Annotated[
        float | None, Field(ge=1, le=1000), Flag("--output-factor", "tokens written per answer token by reasoning models without a sourced factor", "X")
    ] = None
    models: Annotated[tuple[str, ...], Many, Flag("--model", "serve only with this model or checkpoint", "NAME")] = ()

    @model_validator(mode="before")
    @classmethod
    def _read_slo(cls, data: Any) -> Any:
        """Checks the names of limits and adds the default ones."""
        if not isinstance(data, dict):
            return data
        slo = parse_pairs(data.get("slo", {}))
        if not isinstance(slo, dict):
            return data
        for name in slo:
            match = re.fullmatch(r"([a-z0-9]+)_p(\d{2}(?:\.\d+)?)", str(name))
            if not match or match.group(1) not in METRICS or not 50 <= float(match.group(2)) <= 99.9:
                raise problem(f"'{name}' is no limit; write one of ttft, tpot, e2e and a percentile from 50 to 99.9, such as ttft_p95", "slo")
        given = {name.split("_")[0] for name in slo}
        if given != {"e2e"}:  # who limits E2E alone does not stream; every other SLO gets both streaming limits
            slo = {**{k: format_duration(v) for k, v in DEFAULT_SLO.items() if k.split("_")[0] not in given}, **slo}
        return {**data, "slo": {k: v for k, v in slo.items() if v != "none"}}

    @model_validator(mode="after")
    def _one_demand(self) -> Workload:
        if self.qps is not None and self.concurrency is not None:
            raise problem(f"workload '{self.name}' has both qps and concurrency; give one", "concurrency")
        if self.qps is None and self.concurrency is None:
            raise ValueError(f"workload '{self.name}' needs either qps or concurrency")
        return self

    @field_serializer("slo")
    def _whole_slo(self, slo: dict[str, float]) -> dict[str, str]:
        """Limits as text; what is left without a limit says so, for the defaults would come back on reading."""
        texts = {k: format_duration(v) for k, v in slo.items()}
        limited = {k.split("_")[0] for k in slo}
        absent = {} if limited == {"e2e"} else {k: "none" for k in DEFAULT_SLO if k.split("_")[0] not in limited}
        return texts | absent

    @property
    def rate(self) -> float:
        """The demand in its own unit: requests/s, or requests in flight."""
        return self.qps if self.qps is not None else float(self.concurrency or 0)


class Supply(Part):
    """What may be bought."""

    kinds: Annotated[tuple[Kind, ...], Many, Flag("--kind", "kind of provider: hyperscaler, neocloud, reseller, marketplace, serverless", "KIND")] = (
        "hyperscaler",
        "neocloud",
    )
    purchase: Annotated[tuple[Purchase, ...], Many, Flag("--purchase", "on_demand or spot", "WAY")] = ("on_demand",)
    providers: Annotated[tuple[str, ...], Many, Flag("--provider", "buy only from this provider", "NAME")] = ()
    exclude_providers: Annotated[tuple[str, ...], Many, Flag("--exclude-provider", "never buy from this provider", "NAME")] = ()
    regions: Annotated[tuple[str, ...], Many, Flag("--region", "buy only in this region", "NAME")] = ()
    geographies: Annotated[tuple[str, ...], Many, Flag("--geography", "buy only in us, eu or other; leaves out offers that state no place", "NAME")] = ()
    gpus: Annotated[tuple[str, ...], Many, Flag("--gpu", "use only this GPU type", "NAME")] = ()
    exclude_gpus: Annotated[tuple[str, ...], Many, Flag("--exclude-gpu", "never use this GPU type", "NAME")] = ()
    quota: Annotated[
        dict[str, Annotated[int, Field(ge=0, le=10**7)]], BeforeValidator(parse_pairs), Flag("--quota", "most GPUs of one type that may be held", "GPU=N")
    ] = {}
    max_gpus: Annotated[int | None, Field(ge=1, le=10**7), Flag("--max-gpus", "most GPUs held in all", "N")] = None


class Policy(Part):
    """How it may be run."""

    confidence: Annotated[float, Field(ge=0.5, le=0.99), Flag("--confidence", "share of step-time predictions that must not be exceeded", "SHARE")] = 0.8
    max_slo_load: Annotated[float, Field(gt=0, le=1), Flag("--max-slo-load", "most traffic per capacity of any deployment", "SHARE")] = 1.0
    spare_replicas: Annotated[int, Field(ge=0, le=1000), Flag("--spare-replicas", "replicas of each deployment that may fail with the SLO kept", "K")] = 0
    max_pools: Annotated[int | None, Field(ge=1), Flag("--max-pools", "most deployments that serve one workload (1; with --mix no limit)", "N")] = None
    mix: Annotated[bool, Flag("--mix", "let several checkpoints serve one workload")] = False
    max_models: Annotated[int | None, Field(ge=1), Flag("--max-models", "most distinct models", "N")] = None
    max_gpu_types: Annotated[int | None, Field(ge=1), Flag("--max-gpu-types", "most distinct GPU types", "N")] = None
    max_locations: Annotated[int, Field(ge=1), Flag("--max-locations", "most provider regions", "N")] = 1
    budget: Annotated[UsdPerHour | None, Flag("--budget", "most money per time, such as 120/h or 50000/month", "MONEY")] = None
    engines: Annotated[tuple[Engine, ...], Many, Flag("--engine", "use only this engine: vllm, sglang, trtllm", "NAME")] = ()
    precisions: Annotated[tuple[Precision, ...], Many, Flag("--precision", "use only checkpoints of this precision", "NAME")] = ()
    exclude_models: Annotated[tuple[str, ...], Many, Flag("--exclude-model", "never use this model or checkpoint", "NAME")] = ()
    gpu_memory_utilization: Annotated[float, Field(gt=0.3, le=0.99), Flag("--gpu-memory-utilization", "share of GPU memory the engine may use", "SHARE")] = 0.92
    router: Annotated[Literal["least_loaded", "random"], Flag("--router", "how requests reach replicas: least_loaded or random", "NAME")] = "least_loaded"

    @property
    def pools_per_workload(self) -> int | None:
        """Most deployments per workload; None = no limit."""
        return self.max_pools if self.max_pools is not None else (None if self.mix else 1)


class Objective(Part):
    """What the best plan is."""

    minimize: Literal["cost"] = "cost"


class Solver(Part):
    """How long and how exactly to search."""

    gap: Annotated[float, Field(ge=0, lt=1), Flag("--gap", "relative gap at which a plan counts as optimal", "SHARE")] = 0.001
    time_limit: Annotated[Seconds, Flag("--time-limit", "longest search", "TIME")] = 30.0
    seed: Annotated[int, Field(ge=0, le=2**31 - 1), Flag("--seed", "seed of the solver", "N")] = 0


class Tables(Part):
    """Measured capacities of one's own, instead of the catalogues."""

    capacities: Annotated[str | None, Flag("--capacities", "CSV: candidate,gpu,gpus,usd_per_hour,class,max_qps", "FILE")] = None
    demand: Annotated[str | None, Flag("--demand", "CSV: class,qps", "FILE")] = None
    single_candidate_per_class: Annotated[bool, Flag("--single-candidate-per-class", "a class must not be split")] = False


class Scenario(Part):
    """The whole question: workloads, supply, policy, objective."""

    name: str = ""
    catalog: Annotated[tuple[str, ...], Many, Flag("--catalog", "folder with cards, prices, GPUs of your own; they win over the shipped ones", "DIR")] = ()
    workload: tuple[Workload, ...] = ()
    supply: Supply = Supply()
    policy: Policy = Policy()
    objective: Objective = Objective()
    solver: Solver = Solver()
    tables: Tables = Tables()

    @model_validator(mode="after")
    def _consistent(self) -> Scenario:
        names = [w.name for w in self.workload]
        for i, name in enumerate(names):
            if name in names[:i]:
                raise problem(f"workload '{name}' stands twice; give each a name of its own", "workload", i, "name")
        if not self.workload and not self.tables.capacities:
            raise ValueError("no demand: give qps or concurrency")
        if bool(self.tables.capacities) != bool(self.tables.demand):
            raise ValueError("capacities and demand go together")
        return self
