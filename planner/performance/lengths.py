"""Request lengths of one workload: a few equal-weight (input, output) points that stand for the whole distribution.

Capacity mixes over these points, so means and second moments must be right; shapes beyond that matter little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import gcd, log, sqrt
from statistics import NormalDist

import numpy as np

from planner.performance.replicas import Floats, Ints


@dataclass(frozen=True)
class LengthMix:
    """J equal-weight joint points of (input, output) tokens; ``cached`` is the share of prompt tokens found in the prefix cache."""

    input_tokens: Floats
    output_tokens: Floats
    cached: float = 0.0

    @property
    def mean_input(self) -> float:
        return float(self.input_tokens.mean())

    @property
    def mean_output(self) -> float:
        return float(self.output_tokens.mean())

    @property
    def computed(self) -> float:
        """Share of prompt tokens that must be prefilled."""
        return 1.0 - self.cached

    @property
    def input_m2(self) -> float:
        """E[input^2]."""
        return float((self.input_tokens**2).mean())

    @property
    def input_m3(self) -> float:
        """E[input^3]."""
        return float((self.input_tokens**3).mean())

    def describe(self) -> str:
        """Means and coefficients of variation in words."""
        cv_in = self.input_tokens.std() / self.mean_input
        cv_out = self.output_tokens.std() / self.mean_output
        return f"input {self.mean_input:.0f} tokens (CV {cv_in:.2f}), output {self.mean_output:.0f} tokens (CV {cv_out:.2f}), {len(self.input_tokens)} points"


def lognormal_mix(mean_input: float, mean_output: float, input_cv: float, output_cv: float, points: int = 16, cached: float = 0.0) -> LengthMix:
    """Independent lognormal lengths as ``points`` equal-weight points with exactly these means and CVs (0 = fixed lengths).

    Raises ValueError for lengths below one token, a negative CV, or a cached share outside [0, 1).
    """
    if min(mean_input, mean_output) < 1 or min(input_cv, output_cv) < 0 or points < 1 or not 0 <= cached < 1:
        raise ValueError("lengths must be at least 1 token, coefficients of variation at least 0, cached shares below 1, and there must be a point")
    inputs = mean_input * _multipliers(input_cv, points)
    outputs = mean_output * _multipliers(output_cv, points)[_scattered(points)]
    return LengthMix(inputs, outputs, cached)


def joint_mix(points: Sequence[tuple[float, float]], mean_input: float, mean_output: float, cached: float = 0.0) -> LengthMix:
    """Equal-weight joint points (input, output), scaled to these means. Raises ValueError for means below one token or a cached share of 1."""
    if min(mean_input, mean_output) < 1 or not 0 <= cached < 1:
        raise ValueError("lengths must be at least 1 token and cached shares below 1")
    inputs, outputs = np.array(points, dtype=np.float64).T
    return LengthMix(inputs * (mean_input / inputs.mean()), outputs * (mean_output / outputs.mean()), cached)


@lru_cache(maxsize=256)
def _multipliers(cv: float, points: int) -> Floats:
    """Mid-quantiles of a lognormal of mean 1, spread so that their own CV is ``cv`` (few points cut the tails off)."""
    if cv == 0 or points == 1:
        return np.ones(points)
    normal = NormalDist()
    z = np.array([normal.inv_cdf((j + 0.5) / points) for j in range(points)])
    low, high = 0.0, 3.0 * sqrt(log(1 + cv * cv)) + 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _spread(z, middle) < cv else (low, middle)
    values = np.exp(low * z)
    scaled: Floats = values / values.mean()
    return scaled


def _spread(z: Floats, sigma: float) -> float:
    """CV of exp(sigma z)."""
    values = np.exp(sigma * z)
    return float(values.std() / values.mean())


@lru_cache(maxsize=16)
def _scattered(points: int) -> Ints:
    """A fixed permutation of 0..points-1 with almost no rank correlation to its index."""
    index: Ints = np.arange(points, dtype=np.int64)
    centred = index - index.mean()
    best, found = np.inf, index
    for step in (s for s in range(1, points) if gcd(s, points) == 1):
        for shift in range(points):
            candidate = (step * index + shift) % points
            correlation = abs(float(centred @ (candidate - candidate.mean())))
            if correlation < best - 1e-9:
                best, found = correlation, candidate
    return found
