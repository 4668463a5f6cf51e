"""Maxima: tokens/s of engines that hold as many requests as fit, as submissions and vendors publish them, beside the curves of a fit.

They reach batches that no curve does. Who publishes a maximum has tuned for it, so all of them are faster than the curves by a factor of their
own (``RECORD`` in the fit): what they share with the curves is how time grows with the batch.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner.catalog.hardware import gpus_meant
from planner.catalog.load import shipped_folders
from planner.catalog.records import Card, Gpu
from planner.performance.kernels import FILE, kernel_times, load_kernels
from planner.performance.lengths import LengthMix, lognormal_mix
from planner.performance.memory import memory_fit
from planner.performance.physics import Shapes, attention_context, kv_read, shapes
from planner.performance.replicas import ENGINES, PRECISIONS, Floats, Ints, Replicas
from planner.performance.step import CHUNK

UTILIZATION = 0.92  # of GPU memory, as plans assume
MOST_SEQUENCES = 2048  # of one attention group: TensorRT-LLM's own limit, which none of the sources says that it raised
SHARES = (0.25, 0.5, 1.0)  # of the requests that fit: prompts can make fewer the faster
SPREADS = (0.9, 0.7)  # of prompt and answer lengths in MLPerf's data sets; benchmarks of vendors have fixed lengths
DEGREE = re.compile(r"(?:DEP|TP)(\d+)")


class _Option(NamedTuple):
    """One way in which a row may have been run; of submissions only the GPUs of a node are known, so all their sizes of TP are tried."""

    row: int
    card: int
    gpu: int
    precision: int
    engine: int
    tp: int
    pp: int
    dp: int
    ep: int
    isl: float
    osl: float
    is_mix: bool
    tps_per_gpu: float


@dataclass(frozen=True)
class Maxima:
    """Rows with their options [O]; ``row`` says whose option each is, tps is measured, per GPU."""

    replicas: Replicas
    shape: Shapes
    kv: Floats
    context: Floats
    input_tokens: Floats
    output_tokens: Floats
    kernels: Mapping[str, Floats]  # see kernel_times
    sequences: Floats  # most that fit and that the engine admits
    row: Ints
    tps: Floats
    model: NDArray[np.str_]
    gpu: NDArray[np.str_]
    generation: NDArray[np.str_]
    source: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.row)

    @property
    def harness(self) -> Ints:
        """As in FitRows; maxima say nothing of TTFT."""
        return np.zeros(len(self), dtype=np.int64)

    def take(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> Maxima:
        """The options chosen by an index array or mask."""
        picked = {name: value[index] for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        shape = Shapes(**{name: value[index] for name, value in vars(self.shape).items()})
        return replace(self, replicas=self.replicas.take(index), shape=shape, kernels={name: table[index] for name, table in self.kernels.items()}, **picked)

    def best(self, tps: Floats) -> Ints:
        """The option of each row that is fastest by these tokens/s per GPU."""
        order = np.lexsort((-tps, self.row))
        return order[np.unique(self.row[order], return_index=True)[1]]

    def without(self, model: Collection[str], gpu: Collection[str], generation: Collection[str]) -> Maxima:
        """Those of no model, GPU or generation named."""
        lost = np.isin(self.model, list(model)) | np.isin(self.gpu, list(gpu)) | np.isin(self.generation, list(generation))
        return self.take(~lost)

    @property
    def weight(self) -> Floats:
        """Less for the many rows of one model on one GPU."""
        pairs = list(zip(self.model.tolist(), self.gpu.tolist(), strict=True))
        counts = Counter(pairs)
        return np.array([counts[p] ** -0.5 for p in pairs])


def shipped_times(replicas: Replicas) -> dict[str, Floats]:
    """Times of kernels by the shipped tables."""
    return kernel_times(replicas, load_kernels(shipped_folders()[1] / FILE))


def read_maxima(path: Path, cards: Sequence[Card], gpus: Sequence[Gpu], names: Mapping[str, str], refused: Counter[str]) -> Maxima:
    """The usable rows of max_throughput.csv; ``names``: checkpoints of labels that are none. ``refused`` counts the others by reason."""
    card_of = {**{c.id: i for i, card in enumerate(cards) for c in card.checkpoint}, **{card.name: i for i, card in enumerate(cards)}}
    gpu_of, by_name = {g.name: i for i, g in enumerate(gpus)}, {g.name: g for g in gpus}
    options: list[_Option] = []
    sources: list[str] = []
    with path.open(encoding="utf-8", newline="") as handle:
        for i, row in enumerate(csv.DictReader(handle)):
            label, meant = names.get(row["model"], row["model"]), gpus_meant(_gpu_name(row["gpu"]), by_name)
            reason = _refusal(row, label in card_of, len(meant))
            if reason:
                refused[f"maxima: {reason}"] += 1
                continue
            options += _options(i, row, label, card_of[label], gpu_of[meant[0]])
            sources.append(row["source"])
    number = {row: k for k, row in enumerate(dict.fromkeys(o.row for o in options))}
    found = _built(options, cards, gpus, np.array([sources[number[o.row]] for o in options]))
    found = found.take(found.sequences > 0)
    possible = _busy(found) <= 1
    refused["maxima: beyond the peak of the GPU"] += len(set(found.row.tolist()) - set(found.row[possible].tolist()))
    return found.take(possible)


def _busy(maxima: Maxima) -> Floats:
    """Share of the peak [O] that the products of prompts and answers alone take."""
    flops = (maxima.shape.dense_flops + maxima.shape.expert_flops) * maxima.replicas.tp
    found: Floats = maxima.tps * (1 + maxima.input_tokens / maxima.output_tokens) * flops / maxima.shape.peak
    return found


def _gpu_name(written: str) -> str:
    """As the catalogue may have it: racks of GPUs are of their GPU, and TensorRT-LLM's overview lists "RTX 6000 Pro Blackwell Server Edition" as its
    hardware (github:NVIDIA/TensorRT-LLM@03e27c7 docs/source/developer-guide/perf-overview.md)."""
    return {"RTX-PRO-6000-Blackwell": "RTX-PRO-6000-Server"}.get(written, written.removesuffix("-NVL72"))


def _refusal(row: Mapping[str, str], has_card: bool, meant: int) -> str:
    """Why a row is not fitted; "" where it is. Server runs are held to latencies, so they are no maxima."""
    if row["scenario"] == "Server":
        return "held to latency limits"
    if not has_card or not meant:
        return "no GPU" if has_card else "no card"
    return "several GPUs are called so" if meant > 1 else "" if row["output_tps_per_gpu"] else "no rate"


def _options(i: int, row: Mapping[str, str], label: str, card: int, gpu: int) -> list[_Option]:
    is_mlperf, layout = row["source"].startswith("mlperf"), row["parallelism"]
    # MLPerf's rows say fp16. Taken as FP8: at 16 bits those of H100 would keep three quarters of the peak busy and those of H200 all of it and more, which
    # kernels alone do not; of the two on L40S nothing shows it, so there it is an assumption.
    written = {"fp16": "fp8" if is_mlperf else "bf16", "fp4": "nvfp4"}.get(row["precision"], row["precision"])
    precision = PRECISIONS.index("mxfp4" if "gpt-oss" in label else written)
    engine = ENGINES.index(row["engine"]) if row["engine"] in ENGINES else ENGINES.index("trtllm")
    match = DEGREE.search(layout)
    if match:
        tp, is_split = int(match.group(1)), "DEP" in layout
        pp = int(layout.partition("PP")[2] or 1)
        sizes = [(tp, pp, tp if is_split else 1, tp if is_split else 1)]
    else:
        node = int(row["gpus_total"]) // max(1, int(row["nodes"] or 1))
        sizes = [(tp, 1, 1, 1) for tp in (1, 2, 4, 8) if tp <= node]
    lengths, tps = (float(row["isl"]), float(row["osl"])), float(row["output_tps_per_gpu"])
    return [_Option(i, card, gpu, precision, engine, *size, *lengths, is_mlperf, tps) for size in sizes]


def _built(options: Sequence[_Option], cards: Sequence[Card], gpus: Sequence[Gpu], source: NDArray[np.str_]) -> Maxima:
    def integers(name: str) -> Ints:
        return np.array([getattr(o, name) for o in options], dtype=np.int64)

    replicas = Replicas(
        tuple(c.architecture for c in cards), tuple(gpus), *(integers(n) for n in ("card", "gpu", "precision", "engine", "tp", "pp", "dp", "ep"))
    )
    isl, osl = (np.array([getattr(o, n) for o in options]) for n in ("isl", "osl"))
    kv, context, sequences = (np.zeros(len(options)) for _ in range(3))
    kinds = [(o.isl, o.osl, o.is_mix) for o in options]
    for kind in sorted(set(kinds)):
        here = np.array([i for i, k in enumerate(kinds) if k == kind])
        mix = lognormal_mix(*kind[:2], *SPREADS) if kind[2] else LengthMix(np.array([kind[0]]), np.array([kind[1]]))
        part = replicas.take(here)
        kv[here], context[here] = kv_read(part, shapes(part), mix), attention_context(part, mix)
        sequences[here] = memory_fit(part.compact(), mix, UTILIZATION, CHUNK).slots
    return Maxima(
        replicas, shapes(replicas), kv, context, isl, osl, shipped_times(replicas), np.minimum(sequences, MOST_SEQUENCES * replicas.dp), integers("row"),
        np.array([o.tps_per_gpu for o in options]), np.array([cards[o.card].name for o in options]), np.array([gpus[o.gpu].name for o in options]),
        np.array([gpus[o.gpu].generation for o in options]), source,
    )  # fmt: skip
