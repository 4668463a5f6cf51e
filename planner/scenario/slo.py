"""Limits on latency: "ttft_p95" = seconds is read here and nowhere else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from planner.scenario.problem import problem
from planner.scenario.units import format_duration, parse_pairs, parse_rate

Metric = Literal["ttft", "tpot", "itl", "e2e"]
METRICS: tuple[Metric, ...] = get_args(Metric)
SPEED = "tps_user"  # tokens/s of one user once the answer runs: another way to say TPOT
MOST_REQUESTS = 90  # a limit at this percentile or above says how long requests may wait, and so keeps queues short by itself
DEFAULT_SLO = {"ttft_p95": 2.0, "tpot_p95": 0.050}


@dataclass(frozen=True)
class Slo:
    """One limit: so many of a hundred requests are within so many seconds."""

    metric: Metric
    percentile: float
    seconds: float

    @property
    def name(self) -> str:
        """As files write it: ttft_p95."""
        return f"{self.metric}_p{self.percentile:g}"

    @property
    def words(self) -> str:
        """As people read it: TTFT p95."""
        return f"{self.metric.upper()} p{self.percentile:g}"

    @property
    def is_pace(self) -> bool:
        """Whether it is about how fast an answer runs, once it does."""
        return self.metric in ("tpot", "itl")

    @property
    def bounds_wait(self) -> bool:
        """Whether time spent waiting for a place counts in it."""
        return self.metric in ("ttft", "e2e")


def read_limits(limits: Mapping[str, float]) -> tuple[Slo, ...]:
    """Limits by name, as objects."""
    known: Mapping[str, Metric] = {metric: metric for metric in METRICS}
    return tuple(Slo(known[metric], float(percentile), s) for (metric, _, percentile), s in ((name.rpartition("_p"), s) for name, s in limits.items()))


def strictest(limits: Iterable[Slo], default: float) -> float:
    """The highest percentile of all."""
    return max((s.percentile for s in limits), default=default)


def metric_of(limit: str) -> str:
    """The metric that a limit's name (ttft_p95) is about; tokens/s per user are TPOT."""
    metric = limit.rpartition("_p")[0]
    return "tpot" if metric == SPEED else metric


def canonical_limits(limits: object) -> Any:
    """NAME=VALUE limits with tokens/s per user written as TPOT: tps_user_p95 = 20 (or "20/s") is tpot_p95 = "50ms". Raises ValueError."""
    limits = parse_pairs(limits)
    if not isinstance(limits, dict):
        return limits
    found: dict[object, object] = {}
    for name, value in limits.items():
        is_speed = str(name).startswith(f"{SPEED}_p")
        key = f"tpot{str(name).removeprefix(SPEED)}" if is_speed else name
        if key in found:
            raise ValueError(f"'{name}' stands twice: tokens/s per user and TPOT are one limit")
        found[key] = format_duration(1 / parse_rate(value)) if is_speed and value != "none" else value
    return found


def with_defaults(limits: object, streams: bool) -> object:
    """Limits of one workload with names checked and, unless nobody waits for its answers, the default limits on what is not limited. Raises a validation error.

    Who limits E2E alone does not stream; every other SLO gets both streaming limits.
    """
    try:
        slo = canonical_limits(limits)
    except ValueError as error:
        raise problem(str(error), "slo") from None
    if not isinstance(slo, dict):
        return slo
    named = {}
    for name, value in slo.items():
        match = re.fullmatch(r"([a-z0-9]+)_p(\d{2}(?:\.\d+)?)", str(name))
        if not match or match.group(1) not in METRICS or not 50 <= float(match.group(2)) <= 99.9:
            known = ", ".join((*METRICS, SPEED))
            raise problem(f"'{name}' is no limit; write one of {known} and a percentile from 50 to 99.9, such as ttft_p95", "slo")
        key = f"{match.group(1)}_p{float(match.group(2)):g}"
        if key in named:
            raise problem(f"'{name}' stands twice", "slo")
        named[key] = value
    slo = named
    given = {metric_of(name) for name in slo}
    if given != {"e2e"} and streams:
        slo = {**{k: format_duration(v) for k, v in DEFAULT_SLO.items() if metric_of(k) not in given}, **slo}
    return {k: v for k, v in slo.items() if v != "none"}


def unlimited(limits: Mapping[str, float]) -> dict[str, str]:
    """What is left without a default limit, said as such: the defaults would come back on reading."""
    limited = {metric_of(k) for k in limits}
    return {} if limited == {"e2e"} else {k: "none" for k in DEFAULT_SLO if metric_of(k) not in limited}
