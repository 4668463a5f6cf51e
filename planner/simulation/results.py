"""What a simulation found: shares of requests inside the limits with confidence intervals, percentiles, use of replicas, cost, series over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np

from planner.scenario.slo import Slo
from planner.simulation import records as core
from planner.simulation.records import Floats, Ints

if TYPE_CHECKING:
    import pandas as pd

# Two-sided 95 % quantiles of Student's t by degrees of freedom, from 1.
STUDENT_95 = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093)
MIDDLES = core.LOWEST_S * np.exp((np.arange(core.BINS) + 0.5) / core.BINS_PER_E)  # seconds in the middle of each bin
SHARES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True)
class LimitResult:
    """One limit. ``within``: share of requests (ITL: of tokens) inside it, +- ``half_width`` at 95 % confidence; value: at its percentile."""

    metric: str
    percentile: float
    limit_ms: float
    within: float
    half_width: float | None
    value_ms: float | None
    met: bool


@dataclass(frozen=True)
class SimulatedWorkload:
    """One workload. ``attainment``: share of requests inside all their limits on TTFT, TPOT and E2E. Latencies: mean, p50, p90, p95, p99 (ms)."""

    name: str
    requests: int
    qps: float
    goodput_qps: float  # of requests inside all limits
    attainment: float
    half_width: float | None
    slo: tuple[LimitResult, ...]
    ttft_ms: Mapping[str, float]
    tpot_ms: Mapping[str, float]
    itl_ms: Mapping[str, float]
    e2e_ms: Mapping[str, float]
    input_tps: float
    output_tps: float

    @property
    def met(self) -> bool:
        """Whether every limit holds at its percentile."""
        return all(s.met for s in self.slo)


@dataclass(frozen=True)
class Used:
    """One deployment: replicas, share of time in which they work, mean sequences per replica, peak share of KV cache; requests that were preempted for
    want of KV cache, that started over because their replica failed, and that were never answered (too long, or no replica left)."""

    name: str
    replicas: int
    utilization: float
    in_flight_per_replica: float
    kv_peak: float
    preempted: int
    restarted: int
    refused: int


@dataclass(frozen=True)
class Waited:
    """Requests that waited for spare capacity. ``late``: done after their deadline, ``unfinished``: never; ``last_s``: the last finish (None: none);
    ``spare_s``: least time by which one was done before its deadline, below 0 the latest; by hour: handed out as planned, and the share of time in
    which their replicas worked."""

    name: str
    requests: int
    done: int
    late: int
    unfinished: int
    mean_late_s: float
    last_s: float | None
    spare_s: float | None
    handed_by_hour: tuple[int, ...]
    busy_by_hour: tuple[float, ...]

    @property
    def met(self) -> bool:
        """Whether all were done by their deadline."""
        return self.late == self.unfinished == 0


@dataclass(frozen=True)
class Simulation:
    """The outcome. series: by bin of time, seconds from the start; requests in flight and waiting are at the start of each bin."""

    arrivals: str
    router: str
    confidence: float
    seed: int
    requests: int
    seconds: float
    workloads: tuple[SimulatedWorkload, ...]
    deployments: tuple[Used, ...]
    usd_per_million_output_tokens: float | None
    usd_per_million_good_output_tokens: float | None
    failures: tuple[str, ...] = ()
    series: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)
    waiting: tuple[Waited, ...] = ()

    @property
    def met(self) -> bool:
        """Whether every limit of every workload holds, and all requests that may wait were done by their deadline."""
        return all(w.met for w in self.workloads) and all(w.met for w in self.waiting)

    def to_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        return {"met": self.met, **asdict(self)}

    def to_frame(self) -> pd.DataFrame:
        """One row per workload and metric: limit, share inside, mean and percentiles (pandas)."""
        import pandas as pd

        return pd.DataFrame(rows(self))

    def series_frame(self) -> pd.DataFrame:
        """One row per bin of time (pandas)."""
        import pandas as pd

        return pd.DataFrame({k: list(v) for k, v in self.series.items()})


@dataclass(frozen=True)
class Counted:
    """What was counted of one workload: ``histogram`` of TTFT, TPOT and E2E, ``counts`` by batch, ``sums``, and ``gaps``: histogram of ITL."""

    histogram: Ints
    counts: Ints
    sums: Floats
    gaps: Ints

    @property
    def requests(self) -> int:
        """Requests that count."""
        return int(self.counts[:, core.COUNTED].sum())


def rows(found: Simulation) -> list[dict[str, object]]:
    """Flat rows, one per workload and metric."""
    table = []
    for w in found.workloads:
        for metric in ("ttft", "tpot", "itl", "e2e"):
            limit = next((s for s in w.slo if s.metric == metric), None)
            row: dict[str, object] = {"workload": w.name, "metric": metric, "attainment": w.attainment, **getattr(w, f"{metric}_ms")}
            table.append(row | ({"limit_ms": limit.limit_ms, "percentile": limit.percentile, "within": limit.within, "met": limit.met} if limit else {}))
    return table


def quantile(histogram: Ints, share: float) -> float:
    """Seconds that a share of what a histogram counted stays within; NaN if it counted nothing."""
    total = int(histogram.sum())
    if not total:
        return float("nan")
    reached = np.cumsum(histogram)
    at = int(np.searchsorted(reached, share * total))
    before = reached[at - 1] if at else 0
    return float(core.LOWEST_S * np.exp((at + (share * total - before) / max(histogram[at], 1)) / core.BINS_PER_E))


def within(histogram: Ints, limit_s: float) -> float:
    """Share of what a histogram counted that stays within a limit, to half a per cent of the limit."""
    total = int(histogram.sum())
    at = int(np.log(limit_s / core.LOWEST_S) * core.BINS_PER_E)
    return float(histogram[: max(at, 0)].sum() / total) if total else float("nan")


def half_width(inside: Ints, counted: Ints) -> float | None:
    """Half of the 95 % confidence interval of a share by batch means [B]; None where there are not two batches."""
    some = counted > 0
    if some.sum() < 2:
        return None
    means = inside[some] / counted[some]
    return float(STUDENT_95[min(int(some.sum()) - 1, len(STUDENT_95)) - 1] * means.std(ddof=1) / sqrt(some.sum()))


def workload(name: str, limits: tuple[Slo, ...], tally: Counted, seconds: float) -> SimulatedWorkload:
    """One workload out of its tally. seconds: that requests were counted in."""
    total, histogram, counts, sums = tally.requests, tally.histogram, tally.counts, tally.sums
    answered = float(histogram[0].sum())  # those never answered have no latency
    seen = (answered, float(sums[core.SEVERAL]), answered)
    latencies = {m: _latencies(histogram[i], sums[core.TTFT_S + i], seen[i]) for i, m in enumerate(core.METRICS[:3])}
    itl = _latencies(tally.gaps, float(tally.gaps @ MIDDLES), float(tally.gaps.sum()))
    held = tuple(_held(limit, tally, limits) for limit in limits)
    share = float(counts[:, core.ALL].sum() / total) if total else 0.0
    return SimulatedWorkload(
        name, total, total / seconds, total * share / seconds, share, half_width(counts[:, core.ALL], counts[:, core.COUNTED]), held,
        latencies["ttft"], latencies["tpot"], itl, latencies["e2e"], float(sums[core.PROMPT_TOKENS] / seconds), float(sums[core.ANSWER_TOKENS] / seconds),
    )  # fmt: skip


def _latencies(histogram: Ints, total_s: float, count: float) -> dict[str, float]:
    if not count:
        return {}
    return {"mean": float(total_s / count * 1e3)} | {name: quantile(histogram, share) * 1e3 for name, share in SHARES.items()}


def _held(limit: Slo, tally: Counted, limits: tuple[Slo, ...]) -> LimitResult:
    """One limit. Its share is exact where it is the tightest on its metric, else (and of ITL) to half a per cent of the limit."""
    metric, percentile, limit_s = limit.metric, limit.percentile, limit.seconds
    tightest = limit_s <= min(s.seconds for s in limits if s.metric == metric)
    total, counts, width = tally.requests, tally.counts, None
    if metric == "itl":
        seen, share = tally.gaps, within(tally.gaps, limit_s)
    else:
        at = core.METRICS.index(metric)
        seen = tally.histogram[at]
        share = within(seen, limit_s) * float(seen.sum()) / max(total, 1)
        if tightest:
            share, width = float(counts[:, at].sum() / max(total, 1)), half_width(counts[:, at], counts[:, core.COUNTED])
    value = quantile(seen, percentile / 100) * 1e3
    return LimitResult(metric, percentile, limit_s * 1e3, share, width, None if np.isnan(value) else value, bool(share >= percentile / 100))


def series(parts: Sequence[Floats], width_s: float, end_s: float) -> dict[str, tuple[float | None, ...]]:
    """Series of all deployments together, up to the last arrival."""
    total = np.sum(parts, axis=0)
    bins = min(max(round(end_s / width_s), 1), len(total))
    arrived, finished, good = (total[:bins, i] for i in (core.ARRIVED, core.FINISHED, core.GOOD))
    seconds = np.full(bins, width_s)
    if round(end_s / width_s) >= bins:  # the last bin ends with the arrivals, sooner or later than the others
        seconds[-1] = max(end_s - (bins - 1) * width_s, 1e-9)
    inside = np.divide(good, arrived, out=np.full(bins, np.nan), where=arrived > 0)
    columns = {
        "at_s": np.arange(bins) * width_s, "arrived_qps": arrived / seconds, "finished_qps": finished / width_s, "inside": inside,
        "output_tps": total[:bins, core.WRITTEN] / width_s, "running": total[:bins, core.RUNNING], "waiting": total[:bins, core.WAITING],
        "kv_used": total[:bins, core.KV] / len(parts),
    }  # fmt: skip
    return {k: tuple(None if np.isnan(x) else float(f"{x:.6g}") for x in v) for k, v in columns.items()}


def good_tokens(sums: Floats) -> tuple[float, float]:
    """Answer tokens, and those of requests inside all limits, of all workloads [W, 7]."""
    return float(sums[:, core.ANSWER_TOKENS].sum()), float(sums[:, core.GOOD_TOKENS].sum())
