"""Joint lengths of prompts and answers: a histogram of any origin, and the few equal-weight points that a plan mixes over.

Points come from halving the requests: four times by prompt length (so a router can tell sixteen groups apart), then by whichever
length varies more. A point is the mean of its part, so means are exact; the points are then spread until their CVs are exact too.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from planner.demand.given import TAIL, Lengths

Floats = NDArray[np.float64]

GROUPS = 16  # by prompt length, each with as many requests
PARTS = 2  # of each group


@dataclass(frozen=True)
class Histogram:
    """Weighted joint lengths: ``weights`` requests of about (``inputs``, ``outputs``) tokens each. All [C], tokens at least 1."""

    inputs: Floats
    outputs: Floats
    weights: Floats

    @property
    def requests(self) -> float:
        return float(self.weights.sum())

    def mean(self, values: Floats) -> float:
        """Mean of a quantity per cell over all requests."""
        return float(values @ self.weights / self.weights.sum())

    def percentile(self, values: Floats, q: float) -> float:
        """Smallest value that ``q`` (0-1) of the requests do not exceed; exact to a cell's width."""
        order = np.argsort(values)
        reached = np.cumsum(self.weights[order])
        return float(values[order][min(int(np.searchsorted(reached, q * reached[-1] * (1 - 1e-12))), len(order) - 1)])


def lengths_of(histogram: Histogram, source: str) -> Lengths:
    """The points that stand for a histogram. Raises ValueError for an empty one."""
    if not len(histogram.weights) or not histogram.requests > 0:
        raise ValueError("there are no requests")
    groups, cuts = _by_input(histogram)
    parts = [part for group in groups for part in _halved(group, PARTS)]
    inputs = _spread([p.mean(p.inputs) for p in parts], histogram, histogram.inputs)
    outputs = _spread([p.mean(p.outputs) for p in parts], histogram, histogram.outputs)
    points = tuple((float(f"{i:.6g}"), float(f"{o:.6g}")) for i, o in zip(inputs, outputs, strict=True))
    longest = float(histogram.inputs.max()), float(histogram.outputs.max())
    return Lengths(source=source, points=points, cuts=cuts, longest=longest, errors=_errors(histogram, points))


def _by_input(histogram: Histogram) -> tuple[list[Histogram], tuple[float, ...]]:
    groups = [histogram]
    while len(groups) < GROUPS:
        groups = [half for group in groups for half in _halves(group, group.inputs)]
    return groups, tuple(float(f"{(a.inputs.max() + b.inputs.min()) / 2:.6g}") for a, b in pairwise(groups))


def _halved(whole: Histogram, parts: int) -> list[Histogram]:
    """Parts of equal weight, halved by the length that varies more for its mean."""
    if parts == 1:
        return [whole]
    spreads = [whole.mean((v - whole.mean(v)) ** 2) / whole.mean(v) ** 2 for v in (whole.inputs, whole.outputs)]
    return [p for half in _halves(whole, whole.inputs if spreads[0] > spreads[1] else whole.outputs) for p in _halved(half, parts // 2)]


def _halves(whole: Histogram, by: Floats) -> tuple[Histogram, Histogram]:
    """The lower and the upper half of the requests; a cell in the middle is divided."""
    order = np.argsort(by, kind="stable")
    inputs, outputs, weights = whole.inputs[order], whole.outputs[order], whole.weights[order]
    reached = np.cumsum(weights)
    low = np.clip(weights - np.maximum(reached - reached[-1] / 2, 0), 0, None)

    def part(mine: Floats) -> Histogram:
        some = mine > 1e-12 * reached[-1]
        return Histogram(inputs[some], outputs[some], mine[some])

    return part(low), part(weights - low)


def _spread(means: list[float], histogram: Histogram, values: Floats) -> Floats:
    """The points raised to the power at which mean and CV are the histogram's; none is below one token."""
    found, mean = np.array(means), histogram.mean(values)
    cv = np.sqrt(max(histogram.mean(values**2) / mean**2 - 1, 0.0))
    if found.std() / found.mean() < 1e-9:
        return found
    low, high = 0.5, 4.0
    for _ in range(50):
        power = (low + high) / 2
        low, high = (power, high) if _scaled(found, power, mean).std() / mean < cv else (low, power)
    return _scaled(found, low, mean)


def _scaled(values: Floats, power: float, mean: float) -> Floats:
    raised: Floats = (values / mean) ** power
    scaled = np.maximum(raised * (mean / raised.mean()), 1.0)
    again: Floats = np.maximum(scaled * (mean / scaled.mean()), 1.0)
    return again


def _errors(histogram: Histogram, points: tuple[tuple[float, float], ...]) -> dict[str, float]:
    inputs, outputs = np.array(points).T
    few = Histogram(inputs, outputs, np.ones(len(points)))
    found = {}
    for name, of in (
        ("work", lambda h: h.mean(h.inputs + h.outputs)),
        ("prefill", lambda h: h.mean(h.inputs**2)),
        ("kv", lambda h: h.mean(h.inputs * h.outputs + h.outputs**2 / 2)),
        ("tail", _tail),
    ):
        found[name] = float(f"{of(few) / of(histogram) - 1:.4f}")
    return found


def _tail(histogram: Histogram) -> float:
    """Mean tokens of the longest 5 % of requests."""
    total = histogram.inputs + histogram.outputs
    order = np.argsort(-total)
    before = np.cumsum(histogram.weights[order]) - histogram.weights[order]
    share = TAIL * histogram.requests
    taken = np.clip(share - before, 0, histogram.weights[order])
    return float(total[order] @ taken / share)
