"""`vllm bench serve` (0.6 to 0.33) and `vllm bench sweep`: one result is one run; `--metadata` and swept settings stand among its keys.

It states neither GPU nor engine (`backend` is the client's), and of percentiles only those asked for; the arrays of `--save-detailed`,
and `latencies`, which stays without it, hold every request. TPOT is (E2E - TTFT) / (output tokens - 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from planner.bench.fields import SECONDS, SHARES, day, first_text, latencies, number, of_samples, rate, samples, some, text, whole_number
from planner.bench.load import in_flight, load_of
from planner.bench.points import MeasuredPoint, Provenance
from planner.raw import Raw

TOOL = "vLLM bench serve"
TPOT = "to completion"
FIXED = 0.02  # coefficient of variation of lengths that are all about the same
SIZES = {"tp": "tensor_parallel_size", "pp": "pipeline_parallel_size", "dp": "data_parallel_size"}


def is_vllm(raw: Raw) -> bool:
    """Whether it is a result of the tool."""
    return "model_id" in raw and "request_throughput" in raw


def points(raws: Sequence[Raw]) -> list[MeasuredPoint]:
    """The runs; those that warmed up are none."""
    return [_point(raw, i) for i, raw in enumerate(raws, 1) if raw.get("run_number") != -1]


def _point(raw: Raw, line: int) -> MeasuredPoint:
    completed, failed = whole_number(raw, "completed"), number(raw, "failed") or 0
    tp, pp, dp = (whole_number(raw, short) or whole_number(raw, long) for short, long in SIZES.items())
    came = Provenance(TOOL, "", run=_run(raw, line), tpot_def=TPOT, token_source="client")
    point = MeasuredPoint(
        line, TOOL, day(raw, "date"), text(raw, "model_id"), text(raw, "precision"), text(raw, "gpu"), text(raw, "engine"), gpus=whole_number(raw, "gpus"),
        tp=tp, pp=pp or 1, dp=dp or 1,
        ep=whole_number(raw, "ep") or 1, engine_version=text(raw, "engine_version"), provenance=came, workload=first_text(raw, ("workload",)),
    )  # fmt: skip
    if not completed:
        return replace(point, unread="no request was completed")
    inputs, outputs = number(raw, "total_input_tokens"), number(raw, "total_output_tokens")
    measured = _measured(raw) | some(request_rate_achieved=number(raw, "request_throughput"), output_tps_total=number(raw, "output_throughput"))
    held = in_flight(measured.get("request_rate_achieved"), measured.get("e2e_ms_mean"))
    load = load_of(rate(raw, "request_rate"), rate(raw, "max_concurrency"), completed, held)
    burstiness = number(raw, "burstiness")
    notes = [load.note, f"{failed:g} of {completed + failed:g} requests failed" if failed else ""]
    notes += [f"AMBIGUOUS: burstiness {burstiness:g} is no Poisson process"] if load.kind == "open_loop" and burstiness not in (None, 1.0) else []
    return replace(
        point, isl=(inputs or math.nan) / completed, osl=(outputs or math.nan) / completed, load=load.kind, concurrency=load.concurrency,
        request_rate=load.rate, measured=measured, notes="; ".join(n for n in notes if n), workload=point.workload or _workload(raw),
    )  # fmt: skip


def _run(raw: Raw, line: int) -> str:
    return f"run {text(raw, 'run_number')} of entry {line}" if "run_number" in raw else f"entry {line}"


def _measured(raw: Raw) -> dict[str, float]:
    """From every request where they are there, else as summed up."""
    found: dict[str, float] = {}
    for metric, key in (("ttft", "ttft"), ("tpot", "tpot"), ("e2e", "e2el")):
        given = {part: number(raw, f"{part}_{key}_ms") for part in ("mean", *SHARES)}
        given["p50"] = number(raw, f"median_{key}_ms") if given["p50"] is None else given["p50"]
        found |= latencies(metric, given)
    return found | _of_requests(raw)


def _of_requests(raw: Raw) -> dict[str, float]:
    """Of arrays that hold every request, in seconds. Where some failed, and stand there as zeros, nothing is taken from them."""
    e2e, ttft, written = samples(raw, "latencies"), samples(raw, "ttfts"), samples(raw, "output_lens")
    if number(raw, "failed") or (e2e and len(e2e) != whole_number(raw, "completed")):
        return {}
    found = of_samples("e2e", e2e, SECONDS) if e2e else {}
    found |= of_samples("ttft", ttft, SECONDS) if ttft else {}
    if e2e and ttft and written and len(e2e) == len(ttft) == len(written):
        each = [(all_of - first) / (n - 1) for all_of, first, n in zip(e2e, ttft, written, strict=True) if n > 1]
        found |= of_samples("tpot", each, SECONDS) if each else {}
    return found


def _workload(raw: Raw) -> str:
    """Whether all requests were about as long, as far as that is told."""
    sides = [s for s in (samples(raw, "input_lens"), samples(raw, "output_lens")) if s]
    if len(sides) < 2:
        return ""
    spread = [max(s) - min(s) <= FIXED * 2 * sum(s) / len(s) for s in sides]
    return "synthetic" if all(spread) else "lengths as in a dataset"
