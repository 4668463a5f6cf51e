"""Compares predictions with what was measured: relative errors by source, GPU, model, engine and tier, and coverage of the bands.

Error = predicted / measured - 1. Each row counts once per metric that it gives and that could be predicted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite

import numpy as np

from planner.bench.points import MeasuredPoint
from planner.performance.loop import LENGTH_RATIO
from planner.validation.mapping import CLOSED, POISSON, SATURATION, SLA, flag, harness
from planner.validation.predictions import RowPrediction

NEAR = 0.2  # "within 20 %"
PERCENTILES = {
    "ttft_ms_p50": "TTFT p50", "ttft_ms_p90": "TTFT p90", "ttft_ms_p99": "TTFT p99", "tpot_ms_p50": "TPOT p50", "tpot_ms_p90": "TPOT p90",
    "e2e_ms_p50": "E2E p50", "e2e_ms_p90": "E2E p90", "e2e_ms_p99": "E2E p99",
}  # fmt: skip
METRICS = {"tpot_ms": "TPOT", "ttft_ms": "TTFT", "output_tps": "tokens/s", **PERCENTILES}
GROUPS: dict[str, Callable[[MeasuredPoint, RowPrediction], str]] = {
    "load": lambda _, a: a.kind,
    "source": lambda p, _: p.source or "not told",
    "gpu": lambda p, _: p.gpu,
    "model": lambda p, _: p.model,
    "engine": lambda p, _: p.engine,
    "tier": lambda _, a: a.tier,
}
PREDICTED = ("ttft_ms", "tpot_ms", "output_tps")
RECORDED = (*PERCENTILES, "e2e_ms", "ttft_ms_p95", "tpot_ms_p95", "tpot_ms_p99", "e2e_ms_p95")
BANDS = ("ttft_ms_low", "ttft_ms_high", "tpot_ms_low", "tpot_ms_high")


@dataclass(frozen=True)
class Errors:
    """Errors of one metric over one group; shares, not per cent. ``covered``: measured at most the upper bound of the band."""

    n: int
    median: float
    mape: float
    within_20: float
    bias: float  # median of the signed errors
    covered: float | None
    inside: float | None = None  # the band, between both ends


@dataclass(frozen=True)
class Comparison:
    """Errors by group and metric, with how many rows could not be predicted and why."""

    rows: int
    predicted: int
    confidence: float
    refused: Mapping[str, int]
    overall: Mapping[str, Errors]
    by: Mapping[str, Mapping[str, Mapping[str, Errors]]]  # group -> its value -> metric


@dataclass(frozen=True)
class Pair:
    """One metric of one row, in ms or tokens/s: predicted beside measured, with the band where there is one."""

    metric: str
    measured: float
    predicted: float
    low: float | None
    high: float | None

    @property
    def error(self) -> float:
        """Predicted over measured - 1."""
        return self.predicted / self.measured - 1

    @property
    def is_inside(self) -> bool | None:
        """Whether the measurement is inside the band; None where there is none."""
        bounds = [measured_by for bound, measured_by in ((self.low, self.measured >= (self.low or 0)), (self.high, self.measured <= (self.high or 0))) if bound]
        return all(bounds) if bounds else None


@dataclass(frozen=True)
class _Error:
    metric: str
    group: tuple[str, ...]
    error: float
    covered: bool | None
    inside: bool | None


def compare(points: Sequence[MeasuredPoint], answers: Sequence[RowPrediction], confidence: float) -> Comparison:
    """All errors of a file."""
    errors = [e for p, a in zip(points, answers, strict=True) for e in _errors(p, a)]
    by = {name: _grouped(errors, i) for i, name in enumerate(GROUPS)}
    refused = Counter(a.reason for a in answers if a.reason and not a.predicted)
    return Comparison(len(points), sum(bool(a.predicted) for a in answers), confidence, dict(refused.most_common()), _by_metric(errors), by)


def record(point: MeasuredPoint, answer: RowPrediction) -> dict[str, object]:
    """One row of the JSON: what was asked, what is predicted, and what was measured in the same terms."""
    found: dict[str, object] = {
        "line": point.line, "source": point.source, "model": point.model, "precision": point.precision, "gpu": point.gpu, "engine": point.engine,
        "tp": point.tp, "isl": None if point.unread else point.isl, "osl": None if point.unread else point.osl, "concurrency": point.concurrency,
        "request_rate": point.request_rate if point.request_rate != float("inf") else "inf", "load": answer.kind or point.load,
    }  # fmt: skip
    found |= {f"predicted_{name}": _short(answer.predicted.get(name)) for name in PREDICTED}
    if answer.kind == POISSON:
        found |= {f"predicted_{name}": _short(answer.predicted.get(name)) for name in RECORDED}
        found |= {f"predicted_{name}_{side}": _finite(answer.band.get(f"{name}_{side}")) for name in PERCENTILES for side in ("low", "high")}
    if answer.kind == CLOSED:
        found |= {f"predicted_{name}": _short(answer.band.get(name)) for name in BANDS}
    values = {name: value for name in METRICS if (value := measured(point, answer, name)) is not None}
    found |= {f"measured_{name}": _short(value) for name, value in values.items()}
    found |= {f"inside_{name}": lies for name, value in values.items() if (lies := inside(answer, name, value)) is not None}
    return found | {"tier": answer.tier or None, "nearest": answer.nearest or None, "reason": answer.reason or None, "note": answer.note or None}


def measured(point: MeasuredPoint, answer: RowPrediction, metric: str) -> float | None:
    """What a row measured of a metric of its kind of load, None where it does not say or the comparison would mean nothing."""
    given = point.measured.get
    if flag(point):
        return None
    if metric in PERCENTILES:
        return given(metric) if answer.kind == POISSON else None
    if metric == "output_tps":
        # A steady open loop puts out what is offered, whatever is predicted.
        return None if answer.kind == POISSON and "ttft_ms" in answer.predicted else _output_tps(point, answer)
    if answer.kind != CLOSED:
        return None
    # Mean and median TPOT differ by little; those of TTFT do not.
    return given(f"{metric}_mean") or (given("tpot_ms_p50") if metric == "tpot_ms" else None)


def pairs(point: MeasuredPoint, answer: RowPrediction) -> list[Pair]:
    """All that a row measured and that is predicted."""
    found = []
    for metric in METRICS:
        value, predicted = measured(point, answer, metric), answer.predicted.get(metric)
        if value and predicted is not None:
            found.append(Pair(metric, value, predicted, *(answer.band.get(f"{metric}_{side}") for side in ("low", "high"))))
    return found


def _output_tps(point: MeasuredPoint, answer: RowPrediction) -> float | None:
    """Output tokens/s of all GPUs, as given or by the identity of a closed loop: N o / (TTFT + TPOT (o - 1))."""
    given = point.measured.get
    total, per_gpu = given("output_tps_total"), given("output_tps_per_gpu")
    if total or (per_gpu and point.gpus):
        return total or (per_gpu or 0) * (point.gpus or 0)
    ttft, tpot = given("ttft_ms_mean"), given("tpot_ms_mean")
    if answer.kind == CLOSED and point.concurrency and ttft and tpot:
        written = point.osl * LENGTH_RATIO[harness(point)]  # on average
        return point.concurrency * written * 1000 / (ttft + tpot * (written - 1))
    return None


def inside(answer: RowPrediction, metric: str, value: float) -> bool | None:
    """Whether a measurement lies in the band of its prediction; None where there is none."""
    low, high = answer.band.get(f"{metric}_low"), answer.band.get(f"{metric}_high")
    return None if low is None or high is None else low <= value <= high


def _errors(point: MeasuredPoint, answer: RowPrediction) -> list[_Error]:
    group = tuple(name(point, answer) for name in GROUPS.values())
    found = []
    for metric in METRICS:
        value, predicted = measured(point, answer, metric), answer.predicted.get(metric)
        if value and predicted is not None:
            high = answer.band.get(f"{metric}_high")
            found.append(_Error(metric, group, predicted / value - 1, None if high is None else value <= high, inside(answer, metric, value)))
    return found


def _grouped(errors: Sequence[_Error], place: int) -> dict[str, dict[str, Errors]]:
    values: dict[str, list[_Error]] = {}
    for e in errors:
        values.setdefault(e.group[place], []).append(e)
    return {name: _by_metric(some) for name, some in sorted(values.items())}


def _by_metric(errors: Sequence[_Error]) -> dict[str, Errors]:
    found = {metric: [e for e in errors if e.metric == metric] for metric in METRICS}
    return {metric: _summary(some) for metric, some in found.items() if some}


def _summary(errors: Sequence[_Error]) -> Errors:
    error = np.array([e.error for e in errors])
    size, covered = np.abs(error), [e.covered for e in errors if e.covered is not None]
    within = [e.inside for e in errors if e.inside is not None]
    return Errors(
        n=len(error),
        median=round(float(np.median(size)), 4),
        mape=round(float(size.mean()), 4),
        within_20=round(float((size <= NEAR).mean()), 4),
        bias=round(float(np.median(error)), 4),
        covered=round(sum(covered) / len(covered), 4) if covered else None,
        inside=round(sum(within) / len(within), 4) if within else None,
    )


def summary(comparison: Comparison) -> dict[str, object]:
    """The comparison as plain data."""
    plain = {name: {value: {m: asdict(e) for m, e in metrics.items()} for value, metrics in values.items()} for name, values in comparison.by.items()}
    return {
        "rows": comparison.rows, "predicted": comparison.predicted, "confidence": comparison.confidence, "not_predicted": dict(comparison.refused),
        "errors": {m: asdict(e) for m, e in comparison.overall.items()}, **{f"by_{name}": value for name, value in plain.items()},
    }  # fmt: skip


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


def _finite(value: float | None) -> float | None:
    """None also where there is no upper end: with steps so slow waiting never settles."""
    return _short(value) if value is not None and isfinite(value) else None


LOADS = {CLOSED: "closed loops", POISSON: "Poisson arrivals", SATURATION: "all sent at once", SLA: "largest rate within the SLA"}
