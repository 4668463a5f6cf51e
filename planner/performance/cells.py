"""A distribution of lengths cut into cells that narrow towards the longest: what percentiles are read off.

Few cells suffice because each keeps its mean, variance and skewness: formulas add those to the noise of what they mix over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import exp, inf, log, sqrt
from statistics import NormalDist

import numpy as np

from planner.performance.replicas import Floats, Ints


@dataclass(frozen=True)
class Cells:
    """Q cells: the share of requests in each, and E[tokens^k] within it for k = 1, 2, 3; E[tokens^4] of all."""

    weight: Floats
    mean: Floats
    second: Floats
    third: Floats
    fourth: float

    @cached_property
    def var(self) -> Floats:
        """Variance within each cell."""
        found: Floats = np.maximum(self.second - self.mean**2, 0.0)
        return found

    @cached_property
    def skew(self) -> Floats:
        """Third central moment within each cell, at least 0."""
        found: Floats = np.maximum(self.third - 3 * self.mean * self.second + 2 * self.mean**3, 0.0)
        return found

    def moment(self, power: int) -> float:
        """E[tokens^power], power 1 to 4."""
        return self.fourth if power == 4 else float(self.weight @ (self.mean, self.second, self.third)[power - 1])

    def take(self, index: Ints, weight: Floats) -> Cells:
        """Cells by index, with other weights."""
        return Cells(weight, self.mean[index], self.second[index], self.third[index], self.fourth)

    def times(self, factor: float) -> Cells:
        """Lengths times a factor."""
        return Cells(self.weight, self.mean * factor, self.second * factor**2, self.third * factor**3, self.fourth * factor**4)


def cells_of(tokens: Floats) -> Cells:
    """One cell for each of equally likely lengths."""
    return Cells(np.full(len(tokens), 1 / len(tokens)), tokens, tokens**2, tokens**3, float((tokens**4).mean()))


def joined(parts: Sequence[Cells], shares: Floats) -> Cells:
    """The cells of several kinds of requests together; shares add up to 1."""
    columns = [np.concatenate([getattr(p, name) for p in parts]) for name in ("mean", "second", "third")]
    weight = np.concatenate([p.weight * share for p, share in zip(parts, shares, strict=True)])
    return Cells(weight, columns[0], columns[1], columns[2], float(sum(p.fourth * share for p, share in zip(parts, shares, strict=True))))


def products(inputs: Cells, outputs: Cells) -> tuple[Cells, Cells]:
    """Prompts and answers of all pairs of cells, where both are independent."""
    i, o = (index.ravel() for index in np.indices((len(inputs.mean), len(outputs.mean))))
    weight = inputs.weight[i] * outputs.weight[o]
    return inputs.take(i, weight), outputs.take(o, weight)


@lru_cache(maxsize=256)
def lognormal_cells(cv: float, cap: float, count: int, power: int) -> Cells:
    """A lognormal of mean 1 cut off at ``cap`` (longer ones have that length), then scaled to a mean of 1; exact in every cell.

    Cell j ends at probability 1 - (1 - (j + 1)/count)^power.
    """
    if cv == 0:
        return cells_of(np.ones(1))
    normal, sigma = NormalDist(), sqrt(log(1 + cv * cv))
    last = inf if cap == inf else (log(cap) + sigma * sigma / 2) / sigma
    edges = [-inf, *(normal.inv_cdf(1 - (1 - j / count) ** power) for j in range(1, count)), inf]

    def beyond(k: int, z: float) -> float:
        """E[X^k] of those beyond z: exp(k (k - 1) sigma^2 / 2) P(Z > z - k sigma), less what the cap takes."""
        whole, at = exp(k * (k - 1) / 2 * sigma**2), min(z, last)
        free = whole * (_above(at - k * sigma) - _above(last - k * sigma))
        return free + (cap**k * _above(max(z, last)) if last < inf else 0.0)

    parts = -np.diff([[beyond(k, z) for z in edges] for k in range(5)], axis=1)
    weight, first = parts[0], parts[1]
    return Cells(weight, first / weight, parts[2] / weight, parts[3] / weight, float(parts[4].sum())).times(1 / float(first.sum()))


def _above(z: float) -> float:
    return 0.0 if z == inf else 1.0 if z == -inf else NormalDist().cdf(-z)
