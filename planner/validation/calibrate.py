"""Learns from a handful of the user's own measurements: how far an engine on a GPU, a model on it and its TP lie from the predictions.

log(measured/predicted) of a row is taken as the sum of effects of the engine on the GPU, the model there, its TP, its lengths, and noise, each with a
spread that is known beforehand (``PRIORS``); the effects' means given the rows are the factors (a Gaussian process over levels, Rasmussen and
Williams 2006, (2.25)). So five rows of one configuration correct its neighbours as far as they share a level, and no further.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from math import isinf
from pathlib import Path

import numpy as np

from planner.bench.load import OFFLINE
from planner.bench.points import MEASURED as REALLY
from planner.bench.points import MeasuredPoint
from planner.catalog.catalog import Catalog
from planner.catalog.records import Calibration
from planner.performance.replicas import Floats
from planner.validation.mapping import SATURATION, UPPER_BOUND
from planner.validation.predictions import RowPrediction, predict_points

EXPECTED = 0.5
LEVELS = ("engine", "model", "tp", "lengths")  # each within the one before; what is learnt of lengths is not carried elsewhere
# Standard deviations of an effect, and of noise. Steps: engines of other people scatter by 0.4 (catalogs/tuning.csv: log of q80/q20 over 1.68),
# predictions of a model that was left out by 0.15 beside them, those of another TP by 0.1 (docs/accuracy.md). Prompts scatter half as much again.
PRIORS: Mapping[str, tuple[float, float, float, float, float]] = {"tpot_ms": (0.40, 0.15, 0.10, 0.08, 0.05), "ttft_ms": (0.40, 0.25, 0.15, 0.15, 0.15)}
MOST_OFF = float(np.log(100.0))  # log of measured over predicted: beyond, seconds stand for milliseconds, or nothing was measured
OVERHEAD = 0.3  # of what a request takes besides its prompt
MEASURED = {"tpot_ms": ("tpot_ms_mean", "tpot_ms_p50"), "ttft_ms": ("ttft_ms_mean", "ttft_ms_p50")}


@dataclass(frozen=True)
class Row:
    """One measurement in the levels' terms. ``log_ratio``: of measured over predicted, by metric."""

    gpu: str
    engine: str
    architecture: str
    tp: int
    lengths: tuple[float, float]
    log_ratio: Mapping[str, float]
    overhead: float  # share of the predicted TTFT
    line: int

    def key(self, level: int) -> tuple[object, ...]:
        """What rows share at a level."""
        return ((self.gpu, self.engine), (self.architecture,), (self.tp,), self.lengths)[: level + 1]


@dataclass(frozen=True)
class MedianErrors:
    """Median absolute errors of TPOT and TTFT over the rows: before, after, and with each configuration predicted from the others."""

    metric: str
    rows: int
    before: float
    after: float
    left_out: float | None  # None: there is one configuration


@dataclass(frozen=True)
class Learnt:
    """What the measurements teach. ``unused``: rows that say nothing, by reason, by their points."""

    rows: tuple[Row, ...]
    calibration: tuple[Calibration, ...]
    errors: tuple[MedianErrors, ...]
    unused: Mapping[str, tuple[MeasuredPoint, ...]]


def source_of(paths: Sequence[Path]) -> str:
    """The files by name and content."""
    return ", ".join(f"{p.name} (sha256 {hashlib.sha256(p.read_bytes()).hexdigest()[:12]})" for p in paths)


def learn(points: Sequence[MeasuredPoint], catalog: Catalog, source: str, today: date) -> Learnt:
    """The calibration of all engines and GPUs that rows are of, on the catalogue without any of before."""
    rows, unused = rows_of(points, catalog)
    learnt = tuple(c for stack in dict.fromkeys(r.key(0) for r in rows) for c in _stack([r for r in rows if r.key(0) == stack], source, today))
    return Learnt(tuple(rows), learnt, tuple(_errors(m, rows) for m in PRIORS if any(m in r.log_ratio for r in rows)), {k: tuple(v) for k, v in unused.items()})


def rows_of(points: Sequence[MeasuredPoint], catalog: Catalog) -> tuple[list[Row], dict[str, list[MeasuredPoint]]]:
    """The rows that teach, and the others by reason."""
    loops = [_as_loop(p) for p in points]
    rows: list[Row] = []
    unused: dict[str, list[MeasuredPoint]] = {}
    for point, answer in zip(loops, predict_points(loops, replace(catalog, calibrated=()), EXPECTED), strict=True):
        found = _row(point, answer)
        if isinstance(found, str):
            unused.setdefault(found, []).append(point)
        else:
            rows.append(found)
    return rows, unused


def _as_loop(point: MeasuredPoint) -> MeasuredPoint:
    """An open loop as the closed one of as many requests as were decoding, by Little's law over tokens: tokens/s x TPOT.

    At a given rate a step twice as long holds far more than twice the requests, so that rows would teach too much. TTFT is mostly queue there.
    """
    tps, tpot = point.measured.get("output_tps_total"), next((point.measured[c] for c in MEASURED["tpot_ms"] if c in point.measured), None)
    if point.load.startswith("burst") or not point.request_rate or isinf(point.request_rate) or not (tps and tpot):
        return point
    kept = {name: value for name, value in point.measured.items() if not name.startswith("ttft")}
    return replace(point, load="closed_loop", concurrency=max(tps * tpot / 1000, 1.0), request_rate=None, measured=kept)


def _row(point: MeasuredPoint, answer: RowPrediction) -> Row | str:
    """A row that teaches, or why it does not."""
    if point.load == OFFLINE or point.provenance.confidence != REALLY:
        return UPPER_BOUND if point.load == OFFLINE else f"{point.provenance.confidence}, not measured"
    if not answer.predicted:
        return point.unread or answer.reason or "cannot be predicted"
    if answer.stands_for is None:
        return "does not say its TP"
    ratio = _burst(point, answer) if answer.kind == SATURATION else _latencies(point, answer)
    share = min(answer.request_ms / answer.predicted.get("ttft_ms", np.inf), 0.9)
    if not ratio:
        return "has neither TTFT nor TPOT, mean or p50, nor tokens/s of a burst"
    if any(abs(r) > MOST_OFF for r in ratio.values()):
        return f"is more than {np.exp(MOST_OFF):.0f} times off what is predicted: is a unit wrong?"
    return Row(*answer.stands_for, (point.isl, point.osl), ratio, share, point.line)


def _latencies(point: MeasuredPoint, answer: RowPrediction) -> dict[str, float]:
    found = {}
    for metric, columns in MEASURED.items():
        measured = next((point.measured[c] for c in columns if c in point.measured), None)
        predicted = answer.predicted.get(metric, answer.predicted.get(f"{metric}_p50"))
        if measured and predicted:
            found[metric] = float(np.log(measured / predicted))
    return found


def _burst(point: MeasuredPoint, answer: RowPrediction) -> dict[str, float]:
    """Of a burst latencies are queueing, and tokens/s say how long steps and prompts take together."""
    tps = point.measured.get("output_tps_total")
    return dict.fromkeys(PRIORS, float(np.log(answer.predicted["output_tps"] / tps))) if tps and "output_tps" in answer.predicted else {}


def _stack(rows: Sequence[Row], source: str, today: date) -> list[Calibration]:
    """The levels of one engine on one GPU, from the engine down."""
    keys = _keys(rows)
    effects = {metric: _effects(metric, rows, keys) for metric in PRIORS}
    overhead = _overhead(rows)
    found = []
    for i, key in enumerate(keys):
        (step, sd), (prompt, _) = (effects[metric][i] for metric in ("tpot_ms", "ttft_ms"))
        level = len(key) - 1
        here = [r for r in rows if r.key(level) == key]
        row = {
            "gpu": here[0].gpu, "engine": here[0].engine, "architecture": here[0].architecture if level else "", "tp": here[0].tp if level > 1 else None,
            "step": round(float(np.exp(step)), 4), "prompt": round(float(np.exp(prompt)), 4), "overhead": 1.0 if level else round(float(np.exp(overhead)), 4),
            "step_sd": round(sd, 4), "points": len(here), "source": source, "as_of": today,
        }  # fmt: skip
        found.append(Calibration.model_validate(row))
    return found


def _keys(rows: Sequence[Row]) -> list[tuple[object, ...]]:
    """Of all levels that are carried elsewhere, the engine's first."""
    return list(dict.fromkeys(r.key(level) for level in range(len(LEVELS) - 1) for r in rows))


def _effects(metric: str, rows: Sequence[Row], keys: Sequence[tuple[object, ...]]) -> list[tuple[float, float]]:
    """(mean, standard deviation of log(measured/predicted) of a replica whose finest level this is) of the effect of each key."""
    sds, used = PRIORS[metric], [r for r in rows if metric in r.log_ratio]
    if not used:
        return [(0.0, 1.0)] * len(keys)
    y, inverse, shares = np.array([r.log_ratio[metric] for r in used]), np.linalg.inv(_covariance(metric, used)), _shares(metric, used)
    found = []
    for key in keys:
        level = len(key) - 1
        of_level = [shares * sds[k] ** 2 * np.array([r.key(k) == key[: k + 1] for r in used], dtype=float) for k in range(level + 1)]
        whole = np.sum(of_level, axis=0)
        variance = max(sum(sd**2 for sd in sds) - float(whole @ inverse @ whole), sds[-1] ** 2)
        found.append((float(of_level[level] @ inverse @ y), float(np.sqrt(variance))))
    return found


def _overhead(rows: Sequence[Row]) -> float:
    """Mean of the effect on what requests of the engine take besides their prompts, as far as it shows in TTFT."""
    used = [r for r in rows if "ttft_ms" in r.log_ratio]
    if not used:
        return 0.0
    y = np.array([r.log_ratio["ttft_ms"] for r in used])
    return float(OVERHEAD**2 * (1 - _shares("ttft_ms", used)) @ np.linalg.inv(_covariance("ttft_ms", used)) @ y)


def _shares(metric: str, rows: Sequence[Row]) -> Floats:
    """Of each row's time what the effects of levels are about: of TTFT all but the overhead."""
    return np.array([1 - r.overhead if metric == "ttft_ms" else 1.0 for r in rows])


def _covariance(metric: str, rows: Sequence[Row]) -> Floats:
    """Of the rows of one or several engines with each other, noise included."""
    sds, shares = PRIORS[metric], _shares(metric, rows)
    found = np.eye(len(rows)) * sds[-1] ** 2
    for level in range(len(LEVELS)):
        keys = [r.key(level) for r in rows]
        same = np.array([[a == b for b in keys] for a in keys], dtype=float)
        found += sds[level] ** 2 * same * np.outer(shares, shares)
        if level == 0:
            found += OVERHEAD**2 * same * np.outer(1 - shares, 1 - shares)
    return found


def _errors(metric: str, rows: Sequence[Row]) -> MedianErrors:
    """What is left of the errors when the factors are applied, of all rows, and of each configuration learnt from the others."""
    used = [r for r in rows if metric in r.log_ratio]
    y = np.array([r.log_ratio[metric] for r in used])
    configurations = [r.key(3) for r in used]
    left = np.full(len(used), np.nan)
    for one in dict.fromkeys(configurations):
        test, base = ([i for i, c in enumerate(configurations) if (c == one) == same] for same in (True, False))
        if base:
            left[test] = _carried(metric, [used[i] for i in base], [used[i] for i in test])
    after = _carried(metric, used, used)
    return MedianErrors(metric, len(used), _median(y), _median(y - after), None if np.isnan(left).any() else _median(y - left))


def _carried(metric: str, base: Sequence[Row], asked: Sequence[Row]) -> Floats:
    """What factors learnt from some rows say of others."""
    found = np.zeros(len(asked))
    for stack in dict.fromkeys(r.key(0) for r in base):
        rows = [r for r in base if r.key(0) == stack]
        keys = _keys(rows)
        effect = dict(zip(keys, (mean for mean, _ in _effects(metric, rows, keys)), strict=True))
        overhead = _overhead(rows) if metric == "ttft_ms" else 0.0
        for i, r in enumerate(asked):
            if r.key(0) == stack:
                share = r.overhead if metric == "ttft_ms" else 0.0
                rest = sum(effect.get(r.key(level), 0.0) for level in range(len(LEVELS) - 1))
                found[i] = float(np.log(share * np.exp(overhead) + (1 - share) * np.exp(rest)))
    return found


def _median(log_ratio: Floats) -> float:
    """Of the absolute error of the prediction."""
    return float(np.median(np.abs(np.exp(-log_ratio) - 1)))
