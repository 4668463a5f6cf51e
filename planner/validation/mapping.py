"""Turns measured rows into what the planner can predict: replica types with a kind of load, or the reason why a row cannot be.

Kinds: a closed loop; Poisson arrivals at a rate; saturation (everything sent at once); sla (the largest rate that held its limits).
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import dataclass, replace

from planner.bench.labels import Labels, engine_of
from planner.bench.load import OFFLINE
from planner.bench.points import MEASURED, MeasuredPoint
from planner.performance.capacity import Limit
from planner.performance.disaggregated import NODE_GPUS
from planner.performance.pools import sizes_in
from planner.performance.replicas import ENGINES, PRECISIONS

KINDS = CLOSED, POISSON, SATURATION, SLA = "closed_loop", "poisson", "saturation", "sla"
FLAGS = ("INCONSISTENT", "AMBIGUOUS")  # in notes: numbers that contradict each other; rows that mix runs with and without speculative decoding
TP_TRIED = (1, 2, 4, 8)  # where a row gives GPUs but no TP
SLA_WORDS = re.compile(r"limits?\s+TTFT\s+([\d.]+)\s*ms,?\s+TPOT\s+([\d.]+)\s*ms\s+at\s+p([\d.]+)", re.IGNORECASE)
BURST_WORDS = re.compile(r"\b(\d+) requests\b", re.IGNORECASE)
NVIDIA_RUNS = ("nvidia_aic_internal", "nvidia-aiconfigurator")
# MLPerf's system files give the precision of the weights before the harness quantises them: NVIDIA's, which the partners run too,
# says precision "fp16" and use_fp8 = True for every GPU (github:mlcommons/inference_results_v4.1@a2f5d66
# closed/NVIDIA/configs/llama2-70b/Server/__init__.py). Blackwell is not in that file, so its rows are left as labelled.
QUANTISED_BY_HARNESS = ("hopper", "ada")
DISAGGREGATED, DRAFTED = "disagg", "mtp"  # words of the columns mode and spec_decode
DECODE_LAYOUT = "layout of the decode engines not recorded: the faster of those with and without attention data parallel"
UPPER_BOUND = "offline, without a server: an upper bound"
DATASET_WORDS = re.compile(r"dataset of ([\w.-]+)")
FIXED_LENGTHS = ("synthetic", "random")  # words of a workload whose requests are all about as long


@dataclass(frozen=True)
class Mapped:
    """One replica type (indices into the catalogue's cards and GPUs, PRECISIONS, ENGINES), how many of it, and the load they carry."""

    card: int
    gpu: int
    precision: int
    engine: int
    tp: int
    pp: int
    dp: int  # groups of attention data parallel
    replicas: int
    kind: str
    limits: tuple[Limit, ...] = ()
    note: str = ""
    draft: int = 0  # 1: a layer of the checkpoint drafts tokens
    ep: int = 1  # GPUs that whole experts are spread over
    pools: tuple[int, int, int, int] | None = None  # of a disaggregated unit: prefill engines and their TP, decode engines and theirs


def map_point(point: MeasuredPoint, labels: Labels) -> tuple[Mapped, ...] | str:
    """What a row stands for: one replica type, or one for each TP the row leaves open; else the reason."""
    if point.unread:
        return f"cannot be read: {point.unread}"
    kind = _kind(point)
    refused = kind if kind not in KINDS else _refusal(point, kind)
    if refused:
        return refused
    pools = sizes_in(point.notes) if point.mode == DISAGGREGATED else None
    # Units are labelled by what routes between their engines as well: dynamo-sglang.
    card, gpu, engine = labels.card(point.model), labels.gpu(point.gpu), engine_of(point.engine.split("-")[-1] if pools else point.engine)
    if isinstance(card, str) or isinstance(gpu, str):
        return card if isinstance(card, str) else str(gpu)
    if not engine:
        return f"engine '{point.engine}' is not one of {', '.join(ENGINES)}"
    precision = labels.precision(point.precision, point.model, card, gpu)
    if precision not in PRECISIONS:
        return f"unknown precision '{point.precision}'"
    if point.dp > 1 and not labels.cards[card].architecture.experts:
        point = replace(point, dp=1)  # data parallel of dense models are replicas
    sizes = [(pools[3], 1, (DECODE_LAYOUT,))] if pools else _sizes(point, kind)
    if isinstance(sizes, str):
        return sizes
    notes = [f"flagged {flag(point)}: not compared"] if flag(point) else []
    notes += [labels.taken_as(point.gpu)] if labels.taken_as(point.gpu) else []
    notes += [UPPER_BOUND] if point.load == OFFLINE else []
    notes += [f"{point.provenance.confidence}, not measured"] if point.provenance.confidence != MEASURED else []
    notes += ["expert parallel predicted as tensor parallel, but for what was measured of it"] if point.ep > 1 and not pools else []
    if precision == "bf16" and _is_quantised(point, engine, labels.gpus[gpu].generation):
        precision, notes = "fp8", [*notes, "quantised to FP8 by the harness"]
    limits = _limits(point) if kind == SLA else ()
    numbers = (card, gpu, PRECISIONS.index(precision), ENGINES.index(engine))
    draft = int(point.spec_decode == DRAFTED)
    return tuple(
        Mapped(*numbers, tp, point.pp, _groups(point, tp), replicas, kind, limits, "; ".join([*notes, *note]), draft, point.ep, pools)
        for tp, replicas, note in sizes
    )


def harness(point: MeasuredPoint) -> str:
    """Whose closed loop it is: InferenceX draws lengths below the nominal ones, NVIDIA's adds its own overhead to TTFT."""
    if point.source.lower() in NVIDIA_RUNS:
        return "nvidia"
    draws = point.source.lower().startswith(("inferencex", "nebius")) or "inferencex" in point.workload.lower()
    return "inferencex" if draws and "fixed length" not in point.workload.lower() else "exact"


def has_fixed_lengths(point: MeasuredPoint) -> bool:
    """Whether all requests of an open loop are about as long; those drawn from a dataset are not."""
    return any(word in point.workload.lower() for word in FIXED_LENGTHS) and "mlperf" not in point.workload.lower()


def shape_named(point: MeasuredPoint, shapes: Collection[str]) -> str:
    """The shipped shape of lengths that a row's workload names, by its name or as MLPerf's dataset of a model; "" where it names none."""
    words = point.workload.lower()
    if any(word in words for word in FIXED_LENGTHS):
        return ""
    dataset = DATASET_WORDS.search(words)
    model = dataset[1].replace("-99.9", "").replace("-99", "") if dataset and "mlperf" in words else None
    named = [s for s in shapes if s in words or (model and (s == f"mlperf-{model}" or s.startswith(f"mlperf-{model}-")))]
    return named[0] if len(named) == 1 else ""


def burst_size(point: MeasuredPoint) -> float:
    """Requests of a burst as the notes tell, else infinite."""
    found = BURST_WORDS.search(point.notes)
    return float(found[1]) if found else math.inf


def flag(point: MeasuredPoint) -> str:
    """The flag in a row's notes that makes its measurement worthless, or ""."""
    return next((word for word in FLAGS if word in point.notes), "")


def _refusal(point: MeasuredPoint, kind: str) -> str:
    """What the planner has no prediction for, whatever the names."""
    if point.mode not in ("", "agg"):
        why = _refused_unit(point, kind)
        return f"disaggregated prefill and decode: {why}" if why else ""
    if point.spec_decode not in ("", "none", "not recorded") and (point.spec_decode != DRAFTED or kind != CLOSED):
        return f"speculative decoding ({point.spec_decode})"
    if point.dp > 1 and (point.gpus or point.tp or point.dp) % point.dp:
        return f"attention data parallel over {point.dp} groups of {point.gpus or point.tp} GPUs"
    return ""


def _refused_unit(point: MeasuredPoint, kind: str) -> str:
    pools = sizes_in(point.notes)
    if kind != CLOSED or point.mode != DISAGGREGATED:
        return "predicted in closed loops only"
    if not pools:
        return "engines of the pools not given"
    if max(pools[1], pools[3]) > NODE_GPUS:
        return f"TP above {NODE_GPUS}"
    if point.spec_decode == "not recorded":
        return "speculative decoding not recorded"
    return "" if point.spec_decode in ("", "none") else f"speculative decoding ({point.spec_decode}) in units is not predicted"


def _is_quantised(point: MeasuredPoint, engine: str, generation: str) -> bool:
    return point.source.lower().startswith("mlperf") and engine == "trtllm" and generation in QUANTISED_BY_HARNESS


def _kind(point: MeasuredPoint) -> str:
    """One of the kinds, or why there is none."""
    load = point.load.lower()
    if load.startswith("static"):
        return "a static batch: no requests arrive"
    if load == OFFLINE or load.startswith("burst") or (point.request_rate is not None and math.isinf(point.request_rate)):
        return SATURATION
    if load.startswith("open"):
        if _limits(point):
            return SLA
        return POISSON if point.request_rate else "no request_rate"
    if load != "closed_loop":
        return f"unknown load_type '{point.load}'"
    return CLOSED if point.concurrency and point.concurrency >= 1 else "no concurrency"


def _limits(point: MeasuredPoint) -> tuple[Limit, ...]:
    """The SLA that a row's notes state, as MLPerf's server scenario has it."""
    found = SLA_WORDS.search(point.notes)
    if not found:
        return ()
    ttft, tpot, percentile = (float(text) for text in found.groups())
    return Limit("ttft", ttft / 1000, percentile), Limit("tpot", tpot / 1000, percentile)


def _groups(point: MeasuredPoint, tp: int) -> int:
    """Groups of attention data parallel; where only its use is told, every GPU is one."""
    return point.dp or tp


def _sizes(point: MeasuredPoint, kind: str) -> list[tuple[int, int, tuple[str, ...]]] | str:
    """(TP, replicas, notes) to try, or why TP cannot be told."""
    whole = point.gpus or point.tp
    if point.dp != 1 and whole:
        return [(whole, 1, ())]  # one replica over all GPUs; TP counts those of an attention group in some sources
    if point.tp:
        each = point.tp * point.pp
        replicas = point.gpus // each if point.gpus and point.gpus % each == 0 and point.ep == 1 else 1
        return [(point.tp, replicas, ())]
    if point.gpus == 1:
        return [(1, 1, ())]
    if point.gpus and kind == SLA:
        # Submitters choose TP for the largest rate, so the prediction may choose as well.
        shapes = [(tp, point.gpus // tp) for tp in TP_TRIED if point.gpus % tp == 0]
        return [(tp, count, (f"TP not recorded: {count} x TP{tp} predicts most",)) for tp, count in shapes]
    return "TP not recorded"
