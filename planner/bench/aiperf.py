"""AIPerf's `profile_export_aiperf.json` (schema 1.4, and older ones with `input_config.loadgen`) and its requests, `profile_export.jsonl`.

Each metric says its unit. `inter_token_latency` is (E2E - TTFT) / (output tokens - those of the first chunk); the gap between
chunks is another metric. Tokens are the client's: where the server counts more than a tenth otherwise, a note says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from planner.bench.fields import UNITS, at, day, first_text, latencies, number, of_samples, rate, rows, some, table, text, whole_number
from planner.bench.load import Load, load_of
from planner.bench.points import MeasuredPoint, Provenance
from planner.errors import PlannerError
from planner.raw import Raw

TOOL = "AIPerf"
TPOT = "after the first chunk"
METRICS = {"ttft": "time_to_first_token", "tpot": "inter_token_latency", "e2e": "request_latency"}
PARTS = {"mean": "avg", "p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99"}
APART = 0.1  # of two counts of tokens


def is_aiperf(raw: Raw) -> bool:
    """Whether it is a summary of the tool."""
    return "input_config" in raw and isinstance(raw.get("request_latency"), dict)


def is_request(raw: Raw) -> bool:
    """Whether it is one request of the tool."""
    return isinstance(raw.get("metrics"), dict) and at(raw, "metadata", "request_start_ns") is not None


def points(raws: Sequence[Raw]) -> list[MeasuredPoint]:
    """The runs."""
    return [_point(raw, i) for i, raw in enumerate(raws, 1)]


def _point(raw: Raw, line: int) -> MeasuredPoint:
    version = first_text(raw, ("aiperf_version",), ("input_config", "aiperf_version"))
    came = Provenance(TOOL, version, run=f"entry {line}", tpot_def=TPOT, token_source="client")
    model = first_text(raw, ("input_config", "models", "items", 0, "name"), ("input_config", "endpoint", "model_names", 0), ("input_config", "model_names", 0))
    point = MeasuredPoint(line, TOOL, day(raw, "start_time"), model, provenance=came, workload=_workload(raw))
    if raw.get("was_cancelled") is True or raw.get("is_complete") is False:
        return replace(point, unread="the run was cancelled")
    completed = whole_number(raw, "request_count", "avg")
    if not completed:
        return replace(point, unread="no request was completed")
    isl, osl = (number(raw, f"{side}_sequence_length", "avg") for side in ("input", "output"))
    load = _load(raw, completed)
    measured = {k: v for metric, name in METRICS.items() for k, v in _latencies(metric, table(raw, name), name).items()}
    measured |= some(request_rate_achieved=number(raw, "request_throughput", "avg"), output_tps_total=number(raw, "output_token_throughput", "avg"))
    errors = len(rows(raw, "error_summary"))
    notes = [load.note, f"{errors} kinds of errors" if errors else "", _counts(raw, isl, osl)]
    return replace(
        point, isl=isl or math.nan, osl=osl or math.nan, load=load.kind, concurrency=load.concurrency, request_rate=load.rate, measured=measured,
        notes="; ".join(n for n in notes if n),
    )  # fmt: skip


def _load(raw: Raw, completed: int) -> Load:
    phases = rows(raw, "input_config", "phases")
    phase = next((p for p in phases if p.get("kind", p.get("name")) == "profiling"), phases[-1] if phases else table(raw, "input_config", "loadgen"))
    asked = next((r for key in ("request_rate", "rate") if (r := rate(phase, key))), None)
    return load_of(asked, rate(phase, "concurrency"), completed, number(raw, "effective_concurrency", "avg"))


def _latencies(metric: str, given: Raw, name: str) -> dict[str, float]:
    if not given:
        return {}
    return latencies(metric, {part: number(given, key) for part, key in PARTS.items()}, _factor(given, name))


def _factor(given: Raw, name: str) -> float:
    """Milliseconds of one of its unit. Raises PlannerError for one not known."""
    unit = text(given, "unit").lower()
    if unit not in UNITS:
        raise PlannerError(f"'{name}' is in '{unit}', which is no unit of time")
    return UNITS[unit]


def _workload(raw: Raw) -> str:
    """Synthetic lengths without a spread are fixed."""
    data = rows(raw, "input_config", "datasets")
    kinds = [text(d, "type") for d in data]
    spread = any(number(d, "prompts", side, "stddev") for d in data for side in ("isl", "osl"))
    return kinds[0] if kinds and not (kinds[0] == "synthetic" and spread) else ""


def _counts(raw: Raw, isl: float | None, osl: float | None) -> str:
    """Where the server counted tokens otherwise than the client."""
    told = []
    for name, client, key in (("prompt", isl, "usage_prompt_tokens"), ("answer", osl, "usage_completion_tokens")):
        server = number(raw, key, "avg")
        if client and server and abs(server / client - 1) > APART:
            told.append(f"{name} tokens {client:g} by the client, {server:g} by the server")
    return "; ".join(told)


# ---- every request


def of_requests(raws: Sequence[Raw]) -> list[MeasuredPoint]:
    """All requests of a file as one run. They do not say the model, nor the load that was asked for."""
    came = Provenance(TOOL, run="all requests", tpot_def=TPOT, token_source="client")
    point = MeasuredPoint(1, TOOL, _day(raws), provenance=came)
    kept = [r for r in raws if text(r, "metadata", "phase_kind") in ("", "profiling") and at(r, "metadata", "was_cancelled") is not True]
    each = [table(r, "metrics") for r in kept]
    found: dict[str, float] = {}
    for metric, name in METRICS.items():
        values = [v * _factor(table(m, name), name) for m in each if (v := number(m, name, "value")) is not None]
        found |= of_samples(metric, values) if values else {}
    isl, osl = (_mean(each, f"{side}_sequence_length") for side in ("input", "output"))
    if not found or isl is None or osl is None:
        return [replace(point, unread="no request was completed")]
    span = _span_s(kept)
    rates = {"request_rate_achieved": len(kept) / span, "output_tps_total": osl * len(kept) / span} if span else {}
    return [replace(point, isl=isl, osl=osl, measured=found | rates, notes=f"{len(kept)} requests one by one")]


def _mean(each: Sequence[Mapping[str, object]], name: str) -> float | None:
    values = [v for m in each if (v := number(m, name, "value")) is not None]
    return sum(values) / len(values) if values else None


def _nanoseconds(raws: Sequence[Raw], key: str) -> list[float]:
    return [float(v) for r in raws if isinstance(v := at(r, "metadata", key), int)]


def _span_s(raws: Sequence[Raw]) -> float:
    """From the first start to the last end."""
    starts, ends = _nanoseconds(raws, "request_start_ns"), _nanoseconds(raws, "request_end_ns")
    return (max(ends) - min(starts)) / 1e9 if starts and ends else 0.0


def _day(raws: Sequence[Raw]) -> str:
    starts = _nanoseconds(raws, "request_start_ns")
    return day({"at": min(starts) / 1e9}, "at") if starts else ""
