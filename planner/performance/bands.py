"""How sure latencies under Poisson arrivals are: what the error of the steps makes of a percentile, and the error of the queue's formulas beside it.

Steps that are a tenth slower make a tail far more than a tenth longer where the replica is nearly full: so the queue is worked out again with the
steps of either end of their band.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist

import numpy as np

from planner.performance.capacity import Service

METRICS = ("ttft", "tpot", "e2e")
# Standard deviations of log(measured/formula) of percentiles where the steps are known: medians of the absolute error over 0.6745, of Poisson runs
# on A100-PCIe (docs/accuracy.md, "Open loop"). The mean takes that of p50, p95 that of p90, and p99 of TPOT, not measured, that of its p90.
FORMULAS: Mapping[str, tuple[float, float, float]] = {"ttft": (0.101, 0.133, 0.130), "tpot": (0.034, 0.116, 0.116), "e2e": (0.030, 0.117, 0.122)}
PLACES = {"mean": 0, "p50": 0, "p90": 1, "p95": 1, "p99": 2}


def latency_bands(expected: Service, at: Service, confidence: float) -> dict[str, dict[str, float]]:
    """Seconds of each metric's mean and percentiles that are not exceeded with a confidence; infinite where waiting never settles.

    expected, at: services of one replica, with the expected steps and with those of this confidence. Both errors count as independent.
    """
    z, found = NormalDist().inv_cdf(confidence), {}
    for metric in METRICS:
        middle, moved = (getattr(s, f"{metric}_s") for s in (expected, at))
        off = {name: z * FORMULAS[metric][place] for name, place in PLACES.items()}
        found[metric] = {name: _banded(float(middle[name][0]), float(moved[name][0]), off[name]) if at.settles[0] else np.inf for name in PLACES}
    return found


def _banded(middle: float, moved: float, formula: float) -> float:
    """One latency; ``formula``: log of what its formula may be off. What other steps do to the other side does not count."""
    side = np.sign(formula)
    return float(middle * np.exp(side * np.hypot(max(side * np.log(moved / middle), 0.0), formula)))
