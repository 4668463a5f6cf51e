"""What is kept of a stream of requests while it passes: counts, sums and a histogram, whatever its length."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from planner.demand.lengths import Histogram

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BIN_S = 10.0  # of the rate that a plan is for: shorter bursts are ridden out by the queue, longer ones are not
PER_OCTAVE = 8  # cells of the joint histogram per doubling: 9 % wide
OCTAVES = 24
MOST_TOKENS = 10_000_000  # of one request; more is a slip of the pen
WIDE = PER_OCTAVE * OCTAVES
OVERLAP_S = 600.0  # rows this far out of order leave the gaps between arrivals unknown


@dataclass(frozen=True)
class RequestRows:
    """Some requests in the order of the file: arrival (s, any origin; NaN: unknown), prompt and answer tokens [N].

    cached: prompt tokens found in a prefix cache, of ``cached_of`` prompt tokens of which it is known. reasoning: answer tokens, not in
    ``outputs``, that were written before the answer, of requests with ``reasoned`` answer tokens. dropped: rows left out, by reason.
    """

    arrival_s: Floats
    inputs: Ints
    outputs: Ints
    cached: float = 0.0
    cached_of: float = 0.0
    reasoning: float = 0.0
    reasoned: float = 0.0
    dropped: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)


class Tally:
    """Sums over Rows added one after another."""

    def __init__(self) -> None:
        self.requests = 0
        self.dropped: Counter[str] = Counter()
        self.models: Counter[str] = Counter()
        self.input_counts, self.output_counts = (np.zeros(1024, dtype=np.int64) for _ in range(2))
        self.cells = np.zeros((3, WIDE * WIDE))  # requests, prompt tokens, answer tokens
        self.first = self.last = np.nan  # arrival of the earliest and the latest request
        self.origin = np.nan  # of the bins
        self.bins, self.counts = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        self.cached = self.cached_of = self.reasoning = self.reasoned = 0.0
        self.ordered = True
        self._gaps = np.zeros(3)  # number, sum, sum of squares

    def add(self, rows: RequestRows) -> None:
        """Counts some more requests."""
        self.dropped += rows.dropped
        self.models += rows.models
        self.cached, self.cached_of = self.cached + rows.cached, self.cached_of + rows.cached_of
        self.reasoning, self.reasoned = self.reasoning + rows.reasoning, self.reasoned + rows.reasoned
        if not len(rows.inputs):
            return
        self.requests += len(rows.inputs)
        self.input_counts = _counted(self.input_counts, rows.inputs)
        self.output_counts = _counted(self.output_counts, rows.outputs)
        key = _cell(rows.inputs) * WIDE + _cell(rows.outputs)
        for i, weights in enumerate((None, rows.inputs, rows.outputs)):
            self.cells[i] += np.bincount(key, weights, WIDE * WIDE)
        if not np.isnan(rows.arrival_s[0]):
            self._arrivals(np.sort(rows.arrival_s))

    def _arrivals(self, at: Floats) -> None:
        gaps = np.diff(at if np.isnan(self.last) or at[0] < self.last else np.append(self.last, at))
        self.ordered = self.ordered and not at[0] < self.last - OVERLAP_S
        self._gaps += len(gaps), gaps.sum(), (gaps**2).sum()
        self.origin = at[0] if np.isnan(self.origin) else self.origin
        self.first, self.last = float(np.fmin(self.first, at[0])), float(np.fmax(self.last, at[-1]))
        bins, counts = np.unique(np.floor((at - self.origin) / BIN_S).astype(np.int64), return_counts=True)
        self.bins, where = np.unique(np.concatenate((self.bins, bins)), return_inverse=True)
        self.counts = np.bincount(where, np.concatenate((self.counts, counts)), len(self.bins)).astype(np.int64)

    @property
    def interarrival_cv(self) -> float | None:
        """Standard deviation / mean of the gaps between requests; None where the file's order leaves them unknown."""
        n, total, squares = self._gaps
        if not self.ordered or n < 2 or total <= 0:
            return None
        return float(np.sqrt(max(squares / n - (total / n) ** 2, 0.0)) / (total / n))

    def histogram(self) -> Histogram:
        """The joint lengths, each cell at the mean of its requests."""
        some = self.cells[0] > 0
        n, inputs, outputs = self.cells[:, some]
        return Histogram(inputs / n, outputs / n, n)


def percentile(counts: Ints, q: float) -> float:
    """The q-quantile (0-1) of values 0, 1, 2, … that occur ``counts`` times, interpolated as numpy does."""
    reached = np.cumsum(counts)
    place = q * (reached[-1] - 1)
    low, high = (int(np.searchsorted(reached, k, side="right")) for k in (np.floor(place), np.ceil(place)))
    return low + (high - low) * float(place - np.floor(place))


def _counted(counts: Ints, values: Ints) -> Ints:
    most = int(values.max()) + 1
    if most > len(counts):
        counts = np.concatenate((counts, np.zeros(max(most, min(2 * len(counts), MOST_TOKENS + 1)) - len(counts), dtype=np.int64)))
    found = np.bincount(values)
    counts[: len(found)] += found
    return counts


def _cell(tokens: Ints) -> Ints:
    found: Ints = np.floor(PER_OCTAVE * np.log2(tokens)).astype(np.int64)
    return found
