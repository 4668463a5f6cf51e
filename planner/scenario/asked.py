"""What a workload's demand comes from, turned into the rate, burst factor and lengths that a plan is made for.

Runs once, when a workload is read: what it fills in is written with the scenario, so a saved plan needs no file of demand.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

from planner.demand.given import STATED, Demanded, Lengths, parse_growth
from planner.demand.lengths import lengths_of
from planner.demand.records import Demand
from planner.errors import PlannerError
from planner.raw import Raw
from planner.scenario.problem import problem
from planner.scenario.slo import read_limits, strictest
from planner.scenario.units import parse_duration_s

RULES = ("percentile", "mean", "peak-minute")
COARSE_S = 10.0  # wider bins hide bursts: then the highest bin counts,
COARSE_P99 = 1.1  # and a tenth more from p99 on (docs/demand.md)


def read_lengths(name: str, with_cells: bool = False) -> Lengths:
    """The lengths of a shipped shape, histogram CSV, demand TOML or trace. Raises PlannerError."""
    from planner.demand.source import read_demand

    return _lengths(read_demand(name), name, with_cells)


def _lengths(demand: Demand, name: str, with_cells: bool) -> Lengths:
    if demand.histogram is None:
        raise PlannerError("the source does not tell answer lengths", name, "state input_tokens and output_tokens")
    found = lengths_of(demand.histogram, name)
    return found.model_copy(update={"cells": demand.cells}) if with_cells else found


def with_demand(data: Raw) -> Raw:
    """A workload's raw fields with what its ``demand``, ``users``, ``growth`` and ``lengths`` stand for. What is stated wins over what a source
    says. Raises a validation error at the field for contradictions and sources that cannot be used."""
    found = dict(data)
    demanded = Demanded.model_validate(found["demand"]) if isinstance(found.get("demand"), (dict, Demanded)) else None
    if isinstance(found.get("demand"), (str, Path)):
        try:
            found, demanded = _from_source(found, str(found["demand"]))
        except PlannerError as error:
            raise problem(str(error), "demand") from None
    if found.get("users") is not None and demanded is None:
        found, demanded = _from_users(found)
    if isinstance(found.get("lengths"), (str, Path)):
        try:
            found = _with_lengths(found, read_lengths(str(found["lengths"]), bool(found.get("route_by"))))
        except PlannerError as error:
            raise problem(str(error), "lengths") from None
    factor = _parsed("growth", found.pop("growth", 1.0), parse_growth)
    if factor != 1.0:
        demanded = (demanded or Demanded(source=STATED)).model_copy(update={"growth": factor * (demanded.growth if demanded else 1.0)})
        found |= {k: float(found[k]) * factor for k in ("qps", "concurrency") if found.get(k) is not None}
    return found | ({"demand": demanded} if demanded else {})


def _with_lengths(found: Raw, lengths: Lengths) -> Raw:
    stated = [n for n in ("input_tokens", "output_tokens", "input_cv", "output_cv") if found.get(n) is not None]
    if stated:
        raise problem(f"lengths and {stated[0]} are both given: lengths of '{lengths.source}' say it all; give one", stated[0])
    longest = [_parsed(n, found[n], float) if found.get(n) is not None else inf for n in ("max_input", "max_request")]
    lengths = lengths.cut(*(max(n, 2.0) for n in longest))
    return found | {"lengths": lengths, "input_tokens": lengths.mean_input, "output_tokens": lengths.mean_output}


def _from_source(found: Raw, name: str) -> tuple[Raw, Demanded]:
    """Rate, peak, lengths and prefix hits of a demand file, where nothing is stated."""
    from planner.demand.source import read_demand

    demand = read_demand(name)
    stated = {k for k, v in found.items() if v is not None}
    if not stated & {"lengths", "input_tokens", "output_tokens"}:
        found = _with_lengths(found, _lengths(demand, name, bool(found.get("route_by"))))
    elif demand.histogram is None and not stated & {"lengths", "input_tokens"}:
        found |= {"input_tokens": demand.input.mean}
    if demand.prefix_cache_hit and "prefix_cache_hit" not in stated:
        found |= {"prefix_cache_hit": min(float(f"{demand.prefix_cache_hit:.4g}"), 0.99)}
    if demand.output_factor and "output_factor" not in stated:
        found |= {"output_factor": float(f"{demand.output_factor:.4g}")}
    a = demand.arrivals
    prefix_from = demand.prefix_from if "prefix_cache_hit" not in stated else ""
    if a is None:
        if not stated & {"qps", "concurrency", "users", "requests_per_day"}:
            raise PlannerError("the source tells no rate", name, "state qps")
        return found, Demanded(source=name, prefix_from=prefix_from)
    rule = found.get("rate_rule") or RULES[0]
    planned, words = planned_rate(demand, rule, _percentile(found))
    if not stated & {"qps", "concurrency", "users", "requests_per_day"}:
        found |= {"qps": float(f"{a.mean:.6g}")}
    if "burst_factor" not in stated:
        found |= {"burst_factor": max(1.0, float(f"{planned / a.mean:.4g}"))}
    bursty = a.burst if a.is_bursty else None
    return found, Demanded(
        source=name, rule=words, mean=a.mean, planned=planned, burst=bursty, advice=advice(demand) if bursty else "", prefix_from=prefix_from
    )


def planned_rate(demand: Demand, rule: str, percentile: float) -> tuple[float, str]:
    """Requests/s to plan for, and the rule in words. Raises PlannerError where the source does not tell."""
    a = demand.arrivals
    assert a is not None
    if rule == "mean":
        return a.mean, "mean rate"
    if rule == "peak-minute":
        if a.peak_minute is None:
            raise PlannerError("the source is too short or too coarse for a peak minute", demand.source, "--rate-rule percentile")
        return a.peak_minute, "peak minute"
    if a.bin_s > COARSE_S:
        more = COARSE_P99 if percentile >= 99 else 1.0
        return a.peak * more, f"peak of the rate per {a.bin_s:g} s" + (" and a tenth" if more > 1 else "")
    return a.at(percentile), f"p{percentile:g} over requests of the rate per {a.bin_s:g} s"


def advice(demand: Demand) -> str:
    """What would hold a stream that is too bursty for a fleet of one size."""
    a = demand.arrivals
    if a is None or not a.is_bursty:
        return ""
    by = {h.multiple: h for h in a.held}
    words = [f"too bursty for a fleet of one size: over requests, p99 of the rate per {a.bin_s:g} s is {a.burst:.3g} times the mean"]
    limit, queue = by.get(3.0), next((h for h in a.held if h.wait_p95_s <= 30), None)
    if limit:
        words.append(f"a rate limit at 3 times the mean ({3 * a.mean:.3g} req/s) would turn away or delay {limit.share_above:.0%} of requests")
    if queue:
        words.append(f"a queue before capacity of {queue.multiple:g} times the mean makes 5% of requests wait longer than {queue.wait_p95_s:.2g} s")
    if limit and limit.excursion_s:
        helps = "autoscaling helps only if replicas start faster" if limit.excursion_s < 300 else "autoscaling has the time to follow"
        words.append(f"bursts above 3 times the mean last {limit.excursion_s:.0f} s in the median: {helps}")
    return "; ".join(words)


def _percentile(found: Raw) -> float:
    """The strictest percentile of the limits: of so many requests the rate must be held."""
    return strictest(read_limits(dict.fromkeys(found.get("slo") or {}, inf)), default=95.0)


def _from_users(found: Raw) -> tuple[Raw, Demanded]:
    """Users who wait for an answer, pause and ask again. Of n turns there are n - 1 pauses.

    The rate is users / (pause + answer). How long answers take is known once there is a plan; until then it is zero, which is on the safe side.
    """
    if found.get("qps") is not None or found.get("concurrency") is not None:
        raise problem("users stand for a rate: give users, or qps, or concurrency", "users")
    if found.get("think_time") is None:
        raise problem("users need think_time: how long they pause between an answer and their next request", "users")
    users, turns = (_parsed(n, found.get(n, inf), float) for n in ("users", "turns"))
    if not users > 0:
        raise problem("must be more than zero", "users")
    if turns < 2:
        raise problem("turns must be at least 2: with one, users never pause", "turns")
    pause = _parsed("think_time", found["think_time"], parse_duration_s) * (1 - 1 / turns)
    return found | {"qps": users / pause}, Demanded(source="users", users=users, think_s=pause)


def _parsed(field: str, value: object, parse: Callable[[Any], float]) -> float:
    """A field that others follow from, read before these are. Raises a validation error at it."""
    try:
        return parse(value)
    except (TypeError, ValueError) as error:
        raise problem(f"'{value}' {error if parse is not float else 'is no number'}", field) from None
