"""Rates of a stream: per 10 seconds, per minute, by hour of the week, and what a fixed capacity would do to its bursts."""

from __future__ import annotations

from math import lgamma, sqrt
from statistics import NormalDist
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

Known = Annotated[float, Field(ge=0, le=1e15, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, le=1e15, allow_inf_nan=False)]
Percentile = Annotated[str, StringConstraints(pattern=r"^\d{1,2}(\.\d+)?$")]

QUANTILES = (50.0, 75.0, 90.0, 95.0, 97.5, 99.0, 99.5, 99.9)
BURSTY = 4.0  # request-weighted p99 of the rate over its mean, from which a fleet of one size is mostly idle and still too small
MULTIPLES = (1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)  # of the mean rate
MANY = 1e5  # requests of a bin from which their scatter is normal
MOST_BINS = 20_000_000  # of a dense series: seven years
HOUR, DAY, WEEK = 3600.0, 86400.0, 604800.0
FIRST_MONDAY = 4 * DAY  # of the seconds since 1970, which was a Thursday
DATED = 1e8  # seconds above this are since 1970, below since some start


class CapacityHold(BaseModel):
    """What a capacity of ``multiple`` x the mean rate does: wait_p95_s of the requests when all queue, and the share above it (rejected by a
    rate limit); excursion_s: how long the median time above it lasts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    multiple: Known
    wait_p95_s: Known
    share_above: Known
    excursion_s: Known


class Arrivals(BaseModel):
    """Rates in requests/s. ``weighted``: by percentile, the rate in the bin (``bin_s``) that a request arrives in, over requests.

    profile: rate by hour of the day (24 values, UTC) or of the week (168, from Monday) over the mean; from the first request on where times are
    only relative; () of less than a day.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    duration_s: Positive
    bin_s: Positive
    mean: Positive
    minute_p95: Known | None = None
    minute_p99: Known | None = None
    peak_minute: Known | None = None
    peak: Known
    weighted: Annotated[dict[Percentile, Known], Field(min_length=1)]
    interarrival_cv: Known | None = None
    profile: tuple[Known, ...] = ()
    held: tuple[CapacityHold, ...] = ()

    def at(self, percentile: float) -> float:
        """The request-weighted percentile of the rate; between those known the next higher one."""
        known = sorted((float(k), v) for k, v in self.weighted.items())
        return next((v for k, v in known if k >= percentile - 1e-9), known[-1][1])

    @property
    def burst(self) -> float:
        """Request-weighted p99 of the rate, over the mean rate."""
        return self.at(99) / self.mean

    @property
    def is_bursty(self) -> bool:
        """Whether a fleet of one size cannot sensibly hold it: far above the mean, and more than chance explains."""
        return self.burst > BURSTY and self.at(99) > 1.5 * self.by_chance(99)

    def by_chance(self, percentile: float) -> float:
        """What ``at`` would be with Poisson arrivals of the same mean: few requests per bin scatter."""
        mean = self.mean * self.bin_s
        if mean > MANY:
            return (mean + sqrt(mean) * NormalDist().inv_cdf(percentile / 100)) / self.bin_s
        k = np.arange(int(mean + 12 * np.sqrt(mean) + 20))
        share = np.cumsum(np.exp(k * np.log(mean) - mean - np.array([lgamma(n + 1) for n in k])))
        return float(1 + np.searchsorted(share, percentile / 100)) / self.bin_s  # a request's own bin holds itself and Poisson others


def arrivals(bins: Ints, counts: Ints, bin_s: float, duration_s: float, cv: float | None, start_s: float = 0.0) -> Arrivals | None:
    """The rates of ``counts`` requests in the bins of these numbers (ascending); None for requests that all came at once.

    start_s: when the first bin begins, from a Monday 0:00; of times that are only relative 0.
    """
    requests = int(counts.sum())
    if requests < 2 or duration_s <= 0:
        return None
    mean = requests / duration_s
    order = np.argsort(counts)
    reached = np.cumsum(counts[order])
    weighted = {f"{q:g}": float(counts[order][np.searchsorted(reached, q / 100 * requests * (1 - 1e-12))]) / bin_s for q in QUANTILES}
    found = Arrivals(duration_s=duration_s, bin_s=bin_s, mean=mean, peak=float(counts.max()) / bin_s, weighted=weighted, interarrival_cv=cv)
    if duration_s < bin_s:  # one bin, not even full
        return found.model_copy(update={"peak": mean, "weighted": dict.fromkeys(weighted, mean)})
    dense = _dense(bins, counts)
    if dense is None:
        return found
    per_minute = max(1, round(60 / bin_s))
    update: dict[str, object] = {"held": tuple(_held(dense, m * mean * bin_s, m, bin_s) for m in MULTIPLES)}
    minutes = _blocks(dense, per_minute) / (per_minute * bin_s) if duration_s >= 120 and bin_s <= 60 else np.empty(0)
    if len(minutes):
        update |= {"minute_p95": float(np.quantile(minutes, 0.95)), "minute_p99": float(np.quantile(minutes, 0.99)), "peak_minute": float(minutes.max())}
    return found.model_copy(update=update | {"profile": _profile(dense, bin_s, start_s)})


def since_monday(at_s: float) -> float:
    """Seconds from a Monday 0:00 (UTC) to a time since 1970; 0 for a time since some start."""
    return (at_s - FIRST_MONDAY) % WEEK if at_s > DATED else 0.0


def _dense(bins: Ints, counts: Ints) -> Floats | None:
    span = int(bins[-1] - bins[0]) + 1
    if span > MOST_BINS:
        return None
    series = np.zeros(span)
    series[bins - bins[0]] = counts
    return series


def _blocks(series: Floats, each: int) -> Floats:
    """Sums over whole blocks; the rest at the end is no block."""
    whole = len(series) // each
    found: Floats = series[: whole * each].reshape(whole, each).sum(1)
    return found


def _profile(series: Floats, bin_s: float, start_s: float) -> tuple[float, ...]:
    """Rate by hour of the day, or of the week (from Monday 0:00) where there is a whole one, over its mean."""
    span = len(series) * bin_s
    if span < DAY * 0.999 or bin_s > HOUR:
        return ()
    hours = 168 if span >= WEEK * 0.999 else 24
    hour = ((start_s % WEEK + bin_s * np.arange(len(series))) // HOUR % hours).astype(np.int64)
    rate = np.bincount(hour, series, hours) / np.bincount(hour, minlength=hours)
    return tuple(float(f"{v:.4g}") for v in rate / rate.mean())


def _held(series: Floats, capacity: float, multiple: float, bin_s: float) -> CapacityHold:
    """A fluid queue of ``capacity`` requests per bin: what waits at a bin's end waits at least until it is worked off."""
    sums = np.cumsum(series - capacity)
    backlog = sums - np.minimum.accumulate(np.minimum(sums, 0.0))
    wait = backlog / capacity * bin_s
    order = np.argsort(wait)
    reached = np.cumsum(series[order])
    p95 = float(wait[order][np.searchsorted(reached, 0.95 * reached[-1])])
    above = series > capacity
    edges = np.flatnonzero(np.diff(np.concatenate(([0], above.astype(np.int8), [0]))))
    lasting = float(np.median(edges[1::2] - edges[::2])) * bin_s if len(edges) else 0.0
    share = float(np.maximum(series - capacity, 0).sum() / series.sum())
    return CapacityHold(multiple=multiple, wait_p95_s=float(f"{p95:.4g}"), share_above=float(f"{share:.4g}"), excursion_s=lasting)
