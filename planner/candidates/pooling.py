"""How capacity grows with the size of a pool, and how many replicas a demand needs."""

from __future__ import annotations

from math import ceil

import numpy as np

from planner.performance.capacity import POOL, pooled_qps

POOL_SIZES = tuple(range(1, POOL + 1))


def pool_capacity(single: float, saturated: float, replicas: int) -> float:
    """Capacity per replica of a pool behind a least-loaded router."""
    return float(pooled_qps(np.array(single), np.array(saturated), replicas))


def replicas_needed(single: float, saturated: float, rate: float, max_slo_load: float) -> int:
    """The fewest replicas R in service with R·μ(R)·u ≥ λ. Capacity per replica only rises with R, so bisection is exact."""
    most, least = max(1, ceil(rate / (single * max_slo_load) - 1e-9)), max(1, ceil(rate / (saturated * max_slo_load) - 1e-9))
    while least < most:
        middle = (least + most) // 2
        if middle * pool_capacity(single, saturated, middle) * max_slo_load >= rate * (1 - 1e-9):
            most = middle
        else:
            least = middle + 1
    return most
