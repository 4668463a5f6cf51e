"""`trtllm-bench` reports: requests put straight into the engine, as many as it takes. No server, no arrivals: an upper bound of tokens/s, no latency."""

from __future__ import annotations

from collections.abc import Sequence

from planner.bench.fields import number, some, text, whole_number
from planner.bench.load import OFFLINE
from planner.bench.points import MeasuredPoint, Provenance
from planner.bench.setup import CHECKPOINT
from planner.raw import Raw

TOOL = "trtllm-bench"


def is_trtllm(raw: Raw) -> bool:
    """Whether it is a report of the tool."""
    return isinstance(raw.get("engine"), dict) and isinstance(raw.get("world_info"), dict) and isinstance(raw.get("performance"), dict)


def points(raws: Sequence[Raw]) -> list[MeasuredPoint]:
    """The runs. Their latencies are those of a queue of all requests, and are left out."""
    return [_point(raw, i) for i, raw in enumerate(raws, 1)]


def _point(raw: Raw, line: int) -> MeasuredPoint:
    version, requests = text(raw, "engine", "version"), whole_number(raw, "request_info", "num_requests")
    found = some(
        request_rate_achieved=number(raw, "performance", "request_throughput_req_s"),
        output_tps_total=number(raw, "performance", "system_output_throughput_tok_s"),
    )
    return MeasuredPoint(
        line, TOOL, model=text(raw, "engine", "model"), precision=text(raw, "engine", "quantization").lower() or CHECKPOINT, gpu=text(raw, "machine", "name"),
        engine="trtllm", gpus=whole_number(raw, "world_info", "world_size"), tp=whole_number(raw, "world_info", "tp_size"),
        pp=whole_number(raw, "world_info", "pp_size") or 1, ep=whole_number(raw, "world_info", "ep_size") or 1, engine_version=version, load=OFFLINE,
        isl=number(raw, "request_info", "avg_input_length") or float("nan"), osl=number(raw, "request_info", "avg_output_length") or float("nan"),
        measured=found, notes=f"{requests} requests, offline: an upper bound" if requests else "offline: an upper bound",
        provenance=Provenance(TOOL, version, run=f"entry {line}", token_source="client"),
    )  # fmt: skip
