"""Measured closed-loop rows as the fits read them: files in the shipped or the starting layout, each point once, without implausible ones."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.calibration.maxima import Maxima, read_maxima, shipped_times
from planner.calibration.polls import poll_steps
from planner.catalog.records import Card, Gpu
from planner.performance.coefficients import generation_of
from planner.performance.lengths import LengthMix
from planner.performance.physics import Shapes, attention_context, kv_read, shapes
from planner.performance.replicas import ENGINES, PRECISIONS, Floats, Ints, Replicas
from planner.performance.residual import UNDATED, month_of

NVIDIA_RUNS = ("nvidia_aic_internal", "NVIDIA-AIConfigurator")  # nominal lengths; their TTFT has another base
MAXIMA = "max_throughput.csv"
SOURCES = ("inferencex_db_via_aic", "inferencex_app_fixture", "InferenceX", *NVIDIA_RUNS)
RANDOM_LENGTHS = 0.9  # InferenceX draws lengths from 0.8-1.0 x nominal
ENGINE_NAMES = {"vllm": "vllm", "sglang": "sglang", "trtllm": "trtllm", "trt": "trtllm"}
GPU_NAMES = {"GB200-NVL72": "GB200", "GB300-NVL72": "GB300"}
CHECKPOINTS = {  # labels in the measurements that are no checkpoint's name
    "meta-llama/Llama-3.1-70B": "meta-llama/Llama-3.1-70B-Instruct",
    "nvidia/Llama-3.1-8B-Instruct-FP8": "meta-llama/Llama-3.1-8B-Instruct",
    "zhipuai/GLM-5": "zai-org/GLM-5",
}
IN_STRIDE = 0.8  # below this share a run was too short to be more than its own start: its TTFT says how many requests there were
ADMITTED = 0.5  # a row with fewer than this share of its requests in decoding has a hidden admission limit or a cold start


@dataclass(frozen=True)
class FitRows:
    """Measured closed-loop rows with their replica types; arrays [P]."""

    replicas: Replicas
    shape: Shapes
    kv: Floats  # bytes read per sequence
    context: Floats  # of prefill attention
    input_tokens: Floats
    output_tokens: Floats
    concurrency: Floats
    ttft_s: Floats
    tpot_s: Floats
    decoding: Floats  # sequences in decoding on average, by Little's law from the measured means
    poll_steps: Floats  # between two looks for new requests
    harness: Ints  # 1 = NVIDIA's own runs, whose TTFT has another base
    model: NDArray[np.str_]
    gpu: NDArray[np.str_]
    generation: NDArray[np.str_]
    group: NDArray[np.str_]  # model|precision|gpu|engine: what a measured correction belongs to
    configuration: NDArray[np.str_]
    months: Floats  # when it was measured, months since year 0; UNDATED where that is not known
    version: NDArray[np.str_]  # of the engine; "" where not told
    weight: Floats
    kernels: Mapping[str, Floats]  # see kernel_times
    maxima: Maxima | None = None  # fitted beside them

    def __len__(self) -> int:
        return len(self.concurrency)

    @property
    def in_stride(self) -> NDArray[np.bool_]:
        """Rows whose TTFT the closed-loop terms are fitted to; errors are counted on all."""
        found: NDArray[np.bool_] = np.isfinite(self.ttft_s) & (self.decoding >= IN_STRIDE * self.concurrency)
        return found

    def take(self, index: Ints | NDArray[np.bool_]) -> FitRows:
        """The rows chosen by an index array or mask, and the maxima of no model, GPU or generation that the rest of the rows alone has."""
        picked: dict[str, Any] = {name: value[index] for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        shape = Shapes(**{name: value[index] for name, value in vars(self.shape).items()})
        lost = {name: set(vars(self)[name].tolist()) - set(picked[name].tolist()) for name in ("model", "gpu", "generation")}
        return FitRows(
            replicas=self.replicas.take(index),
            shape=shape,
            maxima=self.maxima.without(**lost) if self.maxima else None,
            kernels={name: table[index] for name, table in self.kernels.items()},
            **picked,
        )


@dataclass(frozen=True)
class FitPoint:
    """One measured row in common terms; ``label`` is the card's name or a checkpoint's."""

    label: str
    gpu: str
    precision: str
    engine: str
    tp: int
    dp: int
    ep: str
    isl: float
    osl: float
    concurrency: float
    ttft_s: float  # mean; nan where only medians were published
    tpot_s: float  # mean, else median (they differ by little)
    decoding: float  # sequences in decoding on average, by Little's law
    source: str
    version: str  # of the engine; "" where not told
    month: int  # months since year 0; UNDATED where not told
    poll_steps: float | None = None  # between two looks for new requests, where the row tells

    @property
    def configuration(self) -> str:
        """All but the load."""
        return "|".join(
            (
                self.label,
                self.gpu,
                self.precision,
                self.engine,
                f"{self.tp}" if self.dp == 1 else f"{self.tp}dp{self.dp}",
                self.ep,
                f"{self.isl:g}",
                f"{self.osl:g}",
            )
        )


def read_points(path: Path, refused: Counter[str]) -> list[FitPoint]:
    """The usable rows of a file in the shipped or the starting layout; ``refused`` counts the others by reason."""
    found = []
    with path.open(encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle):
            reason = _refusal(row)
            if reason:
                refused[reason] += 1
            else:
                found.append(_point(row))
    return found


def _refusal(row: Mapping[str, str]) -> str:
    """Why a row is not fitted; empty = fitted. Columns that a layout lacks were dealt with when it was made."""
    notes, get = row.get("notes", ""), row.get
    tests: dict[str, Callable[[], bool]] = {
        "another kind of source": lambda: row["source"] not in SOURCES or get("load_type", "closed_loop") != "closed_loop",
        "disaggregated": lambda: get("mode", "agg") != "agg",
        "speculative decoding": lambda: get("spec_decode", "none") not in ("none", "not recorded", ""),
        "no concurrency or latency": lambda: not (row["concurrency"] and row["tp"] and _latencies(row)),
        "flagged INCONSISTENT": lambda: "INCONSISTENT" in notes,
        "flagged AMBIGUOUS": lambda: "AMBIGUOUS" in notes,
        "several engine instances in one run": lambda: "engine replicas" in notes,
        "TP above 8": lambda: _sizes(row)[0] > 8,
        "GPUs that TP and attention data parallel do not explain": lambda: _sizes(row)[0] % _sizes(row)[1] > 0,
        "engine not planned": lambda: row["engine"] not in ENGINE_NAMES,
    }
    return next((reason for reason, test in tests.items() if test()), "")


def _sizes(row: Mapping[str, str]) -> tuple[int, int]:
    """(GPUs of a replica, groups of attention data parallel). Sources write the number of groups, or only that each GPU is one."""
    tp, groups = int(float(row["tp"])), row.get("dp", row.get("dp_attn")) or "1"
    if groups in ("True", "False"):
        return tp, tp if groups == "True" else 1
    dp = int(float(groups))
    total = row.get("gpus_total") or ""
    return (int(float(total)) if total and dp > 1 else tp, dp)


def _latencies(row: Mapping[str, str]) -> tuple[float, float, float] | None:
    """(mean TTFT, TPOT, sequences decoding per token written and second) or None where the row lacks them."""
    mean = [row.get(f"{k}_ms") or row.get(f"{k}_ms_mean") for k in ("ttft", "tpot")]
    if mean[0] and mean[1]:
        return float(mean[0]) / 1000, float(mean[1]) / 1000, 0.0
    if row.get("tpot_ms_p50") and row.get("output_tps_total"):
        return float("nan"), float(row["tpot_ms_p50"]) / 1000, float(row["output_tps_total"])
    return None


def _point(row: Mapping[str, str]) -> FitPoint:
    label = row.get("checkpoint_label") or row["model"]
    ratio = 1.0 if row["source"] in NVIDIA_RUNS else RANDOM_LENGTHS
    found = _latencies(row)
    assert found is not None  # refused before
    ttft, tpot, per_second = found
    osl, concurrency = float(row["osl"]) * ratio, float(row["concurrency"])
    decoding = min(per_second * tpot, concurrency) if per_second else concurrency * osl * tpot / (ttft + osl * tpot)
    return FitPoint(
        CHECKPOINTS.get(label, label), GPU_NAMES.get(row["gpu"], row["gpu"]), _precision(row, label), ENGINE_NAMES[row["engine"]], *_sizes(row),
        row["ep"], float(row["isl"]) * ratio, osl, concurrency, ttft, tpot, max(decoding, 1.0), row["source"],
        row.get("engine_version", ""), month_of(row.get("date", "")), float(row["poll_steps"]) if row.get("poll_steps") else None,
    )  # fmt: skip


def _precision(row: Mapping[str, str], label: str) -> str:
    """Blank is the checkpoint's own; 'fp4' is mxfp4 for gpt-oss and on AMD, nvfp4 elsewhere."""
    if "gpt-oss" in label:
        return "mxfp4"
    narrow = "mxfp4" if row["gpu"].startswith("MI") else "nvfp4"
    return {"": "fp8" if "FP8" in label else "bf16", "fp4": narrow}.get(row["precision"], row["precision"])


def read_rows(files: Sequence[Path], cards: Sequence[Card], gpus: Sequence[Gpu], refused: Counter[str]) -> FitRows:
    """The rows of all files that have a card and a GPU, each point once, without implausible ones; maxima beside them from a file called MAXIMA."""
    maxima = next((read_maxima(path, cards, gpus, CHECKPOINTS, refused) for path in files if path.name == MAXIMA), None)
    card_of = {**{c.id: i for i, card in enumerate(cards) for c in card.checkpoint}, **{card.name: i for i, card in enumerate(cards)}}
    gpu_of = {g.name: i for i, g in enumerate(gpus)}
    points: dict[tuple[str, float, float], FitPoint] = {}
    for point in (p for path in files if path.name != MAXIMA for p in read_points(path, refused)):
        key = (point.configuration, point.concurrency, round(point.tpot_s, 7))
        reason = "no card" if point.label not in card_of else "no GPU" if point.gpu not in gpu_of else "repeat of another row" if key in points else ""
        refused[reason] += 1
        if not reason:
            points[key] = point
    del refused[""]
    return replace(_plausible(_rows(dated(list(points.values())), cards, gpus, card_of, gpu_of), refused), maxima=maxima)


def dated(points: Sequence[FitPoint]) -> list[FitPoint]:
    """The points with months; one that tells only its engine's version stands at the newest month dated with that version."""
    newest: dict[tuple[str, str], int] = {}
    for p in points:
        if p.version:
            newest[(p.engine, p.version)] = max(newest.get((p.engine, p.version), UNDATED), p.month)
    return [replace(p, month=newest.get((p.engine, p.version), UNDATED)) if p.month == UNDATED else p for p in points]


def _rows(points: Sequence[FitPoint], cards: Sequence[Card], gpus: Sequence[Gpu], card_of: Mapping[str, int], gpu_of: Mapping[str, int]) -> FitRows:
    def integers(value: Callable[[FitPoint], int]) -> Ints:
        return np.array([value(p) for p in points], dtype=np.int64)

    def numbers(value: Callable[[FitPoint], float]) -> Floats:
        return np.array([value(p) for p in points], dtype=float)

    replicas = Replicas(
        tuple(c.architecture for c in cards), tuple(gpus), integers(lambda p: card_of[p.label]), integers(lambda p: gpu_of[p.gpu]),
        integers(lambda p: PRECISIONS.index(p.precision)), integers(lambda p: ENGINES.index(p.engine)),
        integers(lambda p: p.tp), np.ones(len(points), dtype=np.int64), integers(lambda p: p.dp), integers(lambda p: int(float(p.ep or 1))),
    )  # fmt: skip
    isl, osl, concurrency = numbers(lambda p: p.isl), numbers(lambda p: p.osl), numbers(lambda p: p.concurrency)
    ttft, tpot = numbers(lambda p: p.ttft_s), numbers(lambda p: p.tpot_s)
    kv, context = _by_lengths(replicas, isl, osl)
    decoding = numbers(lambda p: p.decoding)
    model, configuration = np.array([cards[a].name for a in replicas.architecture]), np.array([p.configuration for p in points])
    harness = integers(lambda p: int(p.source in NVIDIA_RUNS))
    gpu = np.array([gpus[g].name for g in replicas.gpu])
    generation = np.array([generation_of(gpus[g], tp) for g, tp in zip(replicas.gpu.tolist(), replicas.tp.tolist(), strict=True)])
    group = np.array(["|".join((m, p.precision, p.gpu, p.engine + " dp" * (p.dp > 1))) for m, p in zip(model.tolist(), points, strict=True)])
    shape, weight = shapes(replicas), _weights(model, configuration)
    months, version = numbers(lambda p: p.month), np.array([p.version for p in points])
    polls = np.array([_poll_steps(p, m) for p, m in zip(points, model.tolist(), strict=True)], dtype=float)
    return FitRows(
        replicas,
        shape,
        kv,
        context,
        isl,
        osl,
        concurrency,
        ttft,
        tpot,
        decoding,
        polls,
        harness,
        model,
        gpu,
        generation,
        group,
        configuration,
        months,
        version,
        weight,
        shipped_times(replicas),
    )


def _poll_steps(p: FitPoint, model: str) -> float:
    """Steps between two looks for new requests of a point: as its row tells, else as InferenceX set them, else one."""
    if p.poll_steps is not None or p.source in NVIDIA_RUNS:
        return p.poll_steps or 1.0
    lengths = (round(p.isl / RANDOM_LENGTHS), round(p.osl / RANDOM_LENGTHS))
    return poll_steps((p.engine, model, p.gpu, p.precision), p.tp, p.dp, lengths, p.concurrency, p.month)


def _by_lengths(replicas: Replicas, isl: Floats, osl: Floats) -> tuple[Floats, Floats]:
    """KV read per sequence and prefill context of each row, with its own lengths."""
    kv, context = np.zeros(len(replicas)), np.zeros(len(replicas))
    for pair in sorted(set(zip(isl.tolist(), osl.tolist(), strict=True))):
        rows = np.flatnonzero((isl == pair[0]) & (osl == pair[1]))
        part, mix = replicas.take(rows), LengthMix(np.array([pair[0]]), np.array([pair[1]]))
        kv[rows] = kv_read(part, shapes(part), mix)
        context[rows] = attention_context(part, mix)
    return kv, context


def _weights(model: NDArray[np.str_], configuration: NDArray[np.str_]) -> Floats:
    """Less for the many rows of one configuration and of one model, so that none rules the fit; mean 1."""
    weight = np.ones(len(model))
    for groups, power in ((configuration, 0.25), (model, 0.25)):
        counts = Counter(groups.tolist())
        weight *= np.array([counts[g] ** -power for g in groups.tolist()])
    scaled: Floats = weight / weight.mean() if len(weight) else weight
    return scaled


def _plausible(rows: FitRows, refused: Counter[str]) -> FitRows:
    """Without rows whose weights cannot be in memory, and without those whose engine admitted far fewer than were offered."""
    memory = rows.replicas.of_gpu(lambda g: g.memory_gib)
    fits = rows.shape.stored / 2**30 <= 0.93 * memory
    admitted = rows.decoding >= ADMITTED * rows.concurrency
    refused["impossible memory"] += int((~fits).sum())
    refused["hidden admission limit, KV limit or cold start"] += int((fits & ~admitted).sum())
    kept = rows.take(np.flatnonzero(fits & admitted))
    return kept.take(np.arange(len(kept)))


def data_files(folder: Path, reference: Path | None = None) -> list[Path]:
    """The files of a folder that fits read, as far as they are there; reference_points.csv may stand elsewhere, and the maxima beside it."""
    beside = reference.parent if reference else folder
    return [p for p in (folder / "curves.csv", reference or folder / "reference_points.csv", beside / MAXIMA) if p.exists()]
