"""SGLang's `bench_serving` (0.5): one run a line; `server_info` holds the settings of an SGLang server and is null for any other.

TPOT is (E2E - TTFT) / (output tokens - 1); rates may be Infinity, or "trace", which is no rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from planner.bench.fields import SHARES, at, latencies, number, rate, some, table, text, whole_number
from planner.bench.load import Load, load_of
from planner.bench.points import MeasuredPoint, Provenance
from planner.bench.setup import CHECKPOINT
from planner.bench.vllm import TPOT
from planner.raw import Raw

TOOL = "SGLang bench_serving"
METRICS = {"ttft": "ttft", "tpot": "tpot", "e2e": "e2e_latency"}
DRAFTED = "nextn"  # SGLang's word for a checkpoint's own layer that drafts tokens
POLLS = ("scheduler_recv_interval", "num_continuous_decode_steps")


def is_sglang(raw: Raw) -> bool:
    """Whether it is a result of the tool."""
    return "request_throughput" in raw and ("server_info" in raw or "mean_e2e_latency_ms" in raw)


def points(raws: Sequence[Raw]) -> list[MeasuredPoint]:
    """The runs."""
    return [_point(raw, i) for i, raw in enumerate(raws, 1)]


def _point(raw: Raw, line: int) -> MeasuredPoint:
    server, completed = table(raw, "server_info"), whole_number(raw, "completed")
    came = Provenance(TOOL, text(server, "version") if server else "", run=f"entry {line}", tpot_def=TPOT, token_source="client")
    point = _served(MeasuredPoint(line, TOOL, model=text(raw, "model_id"), provenance=came), server) if server else MeasuredPoint(line, TOOL, provenance=came)
    if not completed:
        return replace(point, unread="no request was completed")
    inputs, outputs = number(raw, "total_input_tokens"), number(raw, "total_output_tokens")
    found: dict[str, float] = {}
    for metric, key in METRICS.items():
        given = {part: number(raw, f"{'median' if part == 'p50' else part}_{key}_ms") for part in ("mean", *SHARES)}
        found |= latencies(metric, given)
    found |= some(request_rate_achieved=number(raw, "request_throughput"), output_tps_total=number(raw, "output_throughput"))
    load = _load(raw, completed)
    return replace(
        point, isl=(inputs or math.nan) / completed, osl=(outputs or math.nan) / completed, load=load.kind, concurrency=load.concurrency,
        request_rate=load.rate, measured=found, notes=load.note, workload=_workload(raw),
    )  # fmt: skip


def _load(raw: Raw, completed: int) -> Load:
    if at(raw, "request_rate") == "trace":
        return Load("open_loop", note="arrivals of a trace, which is no Poisson process")
    return load_of(rate(raw, "request_rate"), rate(raw, "max_concurrency"), completed, number(raw, "concurrency"))


def _workload(raw: Raw) -> str:
    """Random lengths are fixed where the ratio of their range is 1."""
    name = text(raw, "dataset_name")
    return "synthetic" if name == "random" and number(raw, "random_range_ratio") == 1 else "" if name == "random" else name


def _served(point: MeasuredPoint, server: Raw) -> MeasuredPoint:
    """What the server was started with. With attention data parallel its TP counts all GPUs, else each of its DP is a replica."""
    tp, pp, dp = whole_number(server, "tp_size"), whole_number(server, "pp_size") or 1, whole_number(server, "dp_size") or 1
    spread = server.get("enable_dp_attention") is True
    algorithm, role = text(server, "speculative_algorithm").lower(), text(server, "disaggregation_mode")
    return replace(
        point, model=text(server, "served_model_name") or text(server, "model_path"), engine="sglang", engine_version=text(server, "version"), tp=tp, pp=pp,
        ep=whole_number(server, "ep_size") or 1, dp=dp if spread else 1, gpus=None if tp is None else tp * pp * (1 if spread else dp),
        precision=text(server, "quantization").lower() or CHECKPOINT, spec_decode={"": "", DRAFTED: "mtp"}.get(algorithm, algorithm),
        mode="disagg" if role in ("prefill", "decode") else "agg", poll_steps=poll_steps(server),
    )  # fmt: skip


def poll_steps(arguments: Raw) -> int:
    """Steps between two looks for new requests: a request waits for whichever of both settings is longer; engines without them look at every step."""
    return max(whole_number(arguments, name) or 1 for name in POLLS)
