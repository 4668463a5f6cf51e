"""llm-d Benchmark Report v0.2 (github:llm-d/llm-d-benchmark, br_v0_2_json_schema.json): one form for what five harnesses measured.

Every statistic says its unit. The stack's inference engines say GPU, parallelism and replicas; the engine's name is in the image of `tool` or
`tool_version`. Of GuideLLM's runs TPOT includes the first token, so its inter-token latency stands for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from planner.bench.fields import UNITS, at, day, latencies, number, rate, rows, some, table, text, whole_number
from planner.bench.labels import ENGINES, engine_of
from planner.bench.load import load_of
from planner.bench.points import MEASURED, MeasuredPoint, Provenance
from planner.bench.setup import CHECKPOINT
from planner.bench.sglang import poll_steps
from planner.errors import PlannerError
from planner.raw import Raw

TOOL = "llm-d benchmark"
VERSION = "0.2"
PARTS = {"mean": "mean", "p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99"}
OWN_TPOT = {"guidellm": "inter_token_latency", "aiperf": "inter_token_latency"}  # by harness: which statistic is the time per token after the first
TPOT = {"guidellm": "to the last token", "aiperf": "after the first chunk"}
SIMULATED = re.compile(r"inference-sim|\bsim(ulator|ulated)?\b")


def is_report(raw: Raw) -> bool:
    """Whether it is such a report."""
    return isinstance(raw.get("scenario"), dict) and ("results" in raw or "metrics" in raw) and "version" in raw


def points(raws: Sequence[Raw]) -> list[MeasuredPoint]:
    """The runs, one a report. Raises PlannerError for another version."""
    for raw in raws:
        version = text(raw, "version")
        if version != VERSION and not version.startswith(f"{VERSION}."):
            raise PlannerError(f"is a Benchmark Report of version {version}", "", f"reports of version {VERSION} are read")
    return [_point(raw, i) for i, raw in enumerate(raws, 1)]


def _point(raw: Raw, line: int) -> MeasuredPoint:
    load, aggregate = table(raw, "scenario", "load", "standardized"), table(raw, "results", "request_performance", "aggregate")
    tool = text(load, "tool")
    run = text(raw, "run", "uid") or f"entry {line}"
    came = Provenance(tool or TOOL, text(load, "tool_version"), run=run, tpot_def=TPOT.get(tool, "to completion"))
    point = _served(MeasuredPoint(line, TOOL, day(raw, "run", "time", "start"), provenance=came), raw)
    requests, failed = whole_number(aggregate, "requests", "total"), number(aggregate, "requests", "failures") or 0
    if not requests or failed >= requests:
        return replace(point, unread="no request was completed")
    tpot = OWN_TPOT.get(tool, "time_per_output_token")
    if not table(aggregate, "latency", tpot):
        tpot = "inter_token_latency"
    measured = {
        name: value
        for metric, key in (("ttft", "time_to_first_token"), ("tpot", tpot), ("e2e", "request_latency"))
        for name, value in _latencies(metric, table(aggregate, "latency", key), key).items()
    } | some(
        request_rate_achieved=number(aggregate, "throughput", "request_rate", "mean"),
        output_tps_total=number(aggregate, "throughput", "output_token_rate", "mean"),
    )
    asked = load_of(rate(load, "rate_qps"), rate(load, "concurrency"), requests, None)
    notes = [point.notes, asked.note, f"{failed:g} of {requests} requests failed" if failed else "", _shared(raw)]
    return replace(
        point, isl=_length(aggregate, load, "input"), osl=_length(aggregate, load, "output"), load=asked.kind, concurrency=asked.concurrency,
        request_rate=asked.rate, measured=measured, notes="; ".join(n for n in notes if n), workload=_workload(load),
    )  # fmt: skip


def _latencies(metric: str, statistic: Raw, name: str) -> dict[str, float]:
    """In ms by the statistic's unit; keys of percentiles in either case, as their own converter writes both. Raises PlannerError for another unit."""
    lower = {str(k).lower(): v for k, v in statistic.items()}
    given = {part: number(lower, key) for part, key in PARTS.items()}
    if all(v is None for v in given.values()):
        return {}
    unit = text(lower, "units")
    if unit not in UNITS:
        raise PlannerError(f"'{name}' is in '{unit}', which is no unit of time")
    return latencies(metric, given, UNITS[unit])


def _length(aggregate: Raw, load: Raw, side: str) -> float:
    """Tokens as measured, where the harness counted any, else as asked."""
    counted = number(aggregate, "requests", f"{side}_length", "mean")
    return counted or number(load, f"{side}_seq_len", "value") or float("nan")


def _workload(load: Raw) -> str:
    sides = [text(load, f"{side}_seq_len", "distribution") for side in ("input", "output")]
    return "synthetic" if sides == ["fixed", "fixed"] else text(load, "source")


def _shared(raw: Raw) -> str:
    """Whether other loads ran at the same time, which these figures cannot be told from."""
    others = at(raw, "scenario", "load", "metadata", "concurrent_with")
    return "AMBIGUOUS: other loads ran on the endpoint at the same time" if others else ""


# ---- the stack


def _served(point: MeasuredPoint, raw: Raw) -> MeasuredPoint:
    """The engines of the stack: alike ones are replicas, those of prefill and decode a unit."""
    engines = [c for c in rows(raw, "scenario", "stack") if text(c, "standardized", "kind") == "inference_engine"]
    if not engines:
        return point
    by_role = {text(e, "standardized", "role"): e for e in engines}
    one = by_role.get("decode", engines[0])
    standard = table(one, "standardized")
    sizes = {key: whole_number(standard, "accelerator", "parallelism", key) for key in ("tp", "pp", "dp", "ep")}
    arguments = {str(k).lstrip("-").replace("-", "_"): v for k, v in table(one, "native", "args").items()}
    name, words = _engine(standard), " ".join(text(standard, key) for key in ("tool", "tool_version"))
    point = replace(
        point, model=text(standard, "model", "name"), gpu=text(standard, "accelerator", "model"), engine=name, engine_version=_version(standard, name),
        precision=_precision(arguments, bool(at(one, "native", "args"))), tp=sizes["tp"], pp=sizes["pp"] or 1, dp=sizes["dp"] or 1, ep=sizes["ep"] or 1,
        poll_steps=poll_steps(arguments), gpus=sum(_gpus(e) for e in engines) or None, mode="agg",
        provenance=replace(point.provenance, confidence="simulated" if SIMULATED.search(words.lower()) else MEASURED),
    )  # fmt: skip
    return _unit(point, by_role) if "prefill" in by_role and "decode" in by_role else point


def _unit(point: MeasuredPoint, by_role: Mapping[str, Raw]) -> MeasuredPoint:
    """Prefill and decode apart, as notes of points say it."""
    sizes = []
    for role in ("prefill", "decode"):
        count, tp = (whole_number(by_role[role], "standardized", *path) or 1 for path in (("replicas",), ("accelerator", "parallelism", "tp")))
        sizes.append(f"{role} {count}w tp{tp}")
    return replace(point, mode="disagg", notes=", ".join(sizes))


def _gpus(engine: Raw) -> int:
    """Of all replicas of a component."""
    standard = table(engine, "standardized")
    return (whole_number(standard, "accelerator", "count") or 0) * (whole_number(standard, "replicas") or 1)


def _engine(standard: Raw) -> str:
    """The engine that the tool or its image is called after; "" where llm-d's own image does not say which it runs."""
    for words in (text(standard, "tool"), text(standard, "tool_version")):
        found = next((w for w in re.split(r"[^a-z0-9]+", words.lower()) if w in ENGINES), "")
        if found:
            return engine_of(found)
    return ""


def _version(standard: Raw, engine: str) -> str:
    """Of the engine, where the image is the engine's own: llm-d's images have numbers of their own."""
    found = re.search(r"[:@]v?(\d[\w.]*)$", text(standard, "tool_version"))
    return found[1] if found and engine else ""


def _precision(arguments: Raw, is_told: bool) -> str:
    """By the engine's arguments, which say nothing where the checkpoint is run as it is; "" where there are none."""
    return text(arguments, "quantization").lower() or (CHECKPOINT if is_told else "")
