"""GuideLLM, files of version 1 (to 0.6: `args`) and 2 (from 0.7: `metadata.version`, `config`); each of `benchmarks` is one run.

`request_latency` is in seconds, names that end in `_ms` are in milliseconds. Its `time_per_output_token_ms` includes the wait for the
first token; what others call TPOT is its `inter_token_latency_ms`, (last token - first token) / (tokens - 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from planner.bench.fields import SECONDS, SHARES, at, day, first_text, latencies, number, rate, rows, some, table, text, whole_number
from planner.bench.load import Load, load_of
from planner.bench.points import MeasuredPoint, Provenance
from planner.raw import Raw

TOOL = "GuideLLM"
TPOT = "to the last token"
METRICS = {"ttft": ("time_to_first_token_ms", 1.0), "tpot": ("inter_token_latency_ms", 1.0), "e2e": ("request_latency", SECONDS)}
ALONE = "synchronous"  # one request after the other


def is_guidellm(raw: Raw) -> bool:
    """Whether it is a file of the tool."""
    return isinstance(raw.get("benchmarks"), list) and any(k in raw for k in ("metadata", "config", "args"))


def points(raws: Sequence[Raw]) -> list[MeasuredPoint]:
    """The runs of all files given."""
    return [_point(raw, one, i) for raw in raws for i, one in enumerate(rows(raw, "benchmarks"), 1)]


def _point(raw: Raw, one: Raw, line: int) -> MeasuredPoint:
    labels = table(raw, "config", "metadata", "labels")
    strategy = table(one, "config", "strategy") or table(one, "args", "strategy") or table(one, "scheduler", "strategy")
    model = first_text(one, ("config", "backend", "model"), ("benchmarker", "backend", "model")) or first_text(
        raw, ("config", "spec", "backend", "model"), ("args", "model"), ("args", "backend_kwargs", "model")
    )
    counted = "server" if at(one, "config", "prefer_response_metrics") is True else "client"
    kind = text(strategy, "type_")
    came = Provenance(TOOL, text(raw, "metadata", "guidellm_version"), run=f"benchmark {line}: {kind or 'unnamed'}", tpot_def=TPOT, token_source=counted)
    metrics = table(one, "metrics")
    point = MeasuredPoint(
        line, TOOL, day(one, "start_time"), model, text(labels, "precision"), text(labels, "gpu"), text(labels, "engine"),
        gpus=whole_number(labels, "gpus"), tp=whole_number(labels, "tp"),
        pp=whole_number(labels, "pp") or 1, dp=whole_number(labels, "dp") or 1, ep=whole_number(labels, "ep") or 1, provenance=came,
        engine_version=text(labels, "engine_version"), workload=text(labels, "workload") or _workload(raw),
    )  # fmt: skip
    completed = whole_number(metrics, "request_totals", "successful")
    if not completed:
        return replace(point, unread="no request was completed")
    isl, osl = (number(metrics, f"{side}_token_count", "successful", "mean") for side in ("prompt", "output"))
    load = _load(strategy, kind, completed, number(metrics, "request_concurrency", "successful", "mean"))
    return replace(
        point, isl=isl or math.nan, osl=osl or math.nan, load=load.kind, concurrency=load.concurrency, request_rate=load.rate,
        measured=_measured(metrics), notes="; ".join(n for n in (load.note, _failed(metrics), _interval(metrics)) if n),
    )  # fmt: skip


def _load(strategy: Raw, kind: str, completed: int, in_flight: float | None) -> Load:
    if kind == ALONE:
        return Load("closed_loop", 1.0)
    if kind == "concurrent":
        return load_of(None, rate(strategy, "streams"), completed, None)
    if kind == "throughput":
        return load_of(math.inf, rate(strategy, "max_concurrency"), completed, None)
    found = load_of(rate(strategy, "rate"), rate(strategy, "max_concurrency"), completed, in_flight)
    even = "AMBIGUOUS: sent at even steps, which is no Poisson process" if kind == "constant" and found.kind == "open_loop" else ""
    return replace(found, note="; ".join(n for n in (found.note, even) if n))


def _measured(metrics: Raw) -> dict[str, float]:
    """Latencies of requests that succeeded, throughput of all."""
    found: dict[str, float] = {}
    for metric, (name, factor) in METRICS.items():
        given = {share: number(metrics, name, "successful", "percentiles", share) for share in SHARES}
        given |= {"mean": number(metrics, name, "successful", "mean")}
        given["p50"] = given["p50"] if given["p50"] is not None else number(metrics, name, "successful", "median")
        found |= latencies(metric, given, factor)
    return found | some(
        request_rate_achieved=number(metrics, "requests_per_second", "successful", "mean"),
        output_tps_total=number(metrics, "output_tokens_per_second", "total", "mean"),
    )


def _failed(metrics: Raw) -> str:
    failed, all_of = number(metrics, "request_totals", "errored") or 0, number(metrics, "request_totals", "total") or 0
    return f"{failed:g} of {all_of:g} requests failed" if failed else ""


def _interval(metrics: Raw) -> str:
    """How sure the mean of TTFT is, where the tool says so (from 0.8)."""
    low, high = (number(metrics, METRICS["ttft"][0], "successful", "mean_ci", side) for side in ("lower", "upper"))
    return f"mean TTFT within {low:.4g} to {high:.4g} ms by the tool's bootstrap" if low is not None and high is not None else ""


def _workload(raw: Raw) -> str:
    """Synthetic lengths without a spread are fixed."""
    data = rows(raw, "config", "spec", "data")
    fixed = data and all(text(d, "kind") == "synthetic_text" and not (d.get("prompt_tokens_stdev") or d.get("output_tokens_stdev")) for d in data)
    return "synthetic" if fixed else first_text(raw, ("config", "spec", "data", 0, "kind"))
