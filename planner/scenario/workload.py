"""One stream of requests as it is asked: how many, how long, how good, how fast, and from where."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_serializer, model_validator

from planner.catalog.records import REFERENCE, Name
from planner.demand.given import Demanded, Lengths, parse_growth
from planner.demand.spread import CHAT_INPUT_CV, CHAT_OUTPUT_CV, LONGEST_ANSWER, LONGEST_PROMPT, default_cv
from planner.scenario.part import Flag, Lead, Many, Part, Quality, Rate, Seconds, Tokens, Variation
from planner.scenario.problem import problem
from planner.scenario.slo import MOST_REQUESTS, Slo, read_limits, unlimited, with_defaults
from planner.scenario.units import format_duration, format_lead, parse_pairs

DemandKind = Literal["qps", "concurrency", "requests_per_day"]
TimeOfDay = Annotated[str, Field(pattern=r"^$|^([01]\d|2[0-3]):00$")]  # whole hours: periods are hours
RATES = {"qps", "concurrency", "requests_per_day", "users"}  # of which a workload states one
DEMAND_FIELDS = ("lengths", "demand", "growth", "users")  # that stand for others (asked.py)


def listed(value: object) -> object:
    """A list of numbers as the text it is typed as."""
    return ",".join(f"{v:g}" for v in value) if isinstance(value, (list, tuple)) and all(isinstance(v, (int, float)) for v in value) else value


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
