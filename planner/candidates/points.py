"""Operating points: the capacity of a replica type at each max_num_seqs, computed when first asked for and then kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.candidates.survey import Survey, curves_of, limits
from planner.performance.capacity import Capacity, capacity
from planner.scenario.records import Workload

MAX_NUM_SEQS = (8, 16, 32, 64, 128, 256, 512, 1024)
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Point:
    """One replica type with one max_num_seqs: per workload, capacity alone and in a very large pool, in the workload's unit.

    ``qps_per_unit``: requests/s that one unit of flow stands for (1 for a rate, λ*/N* for requests in flight).
    """

    row: int
    max_num_seqs: int
    single: tuple[float, ...]
    saturated: tuple[float, ...]
    qps_per_unit: tuple[float, ...]


class Points:
    """The operating points of a survey's rows. Capacities are kept, so that asking again under another restriction is free."""

    def __init__(self, survey: Survey) -> None:
        self.survey = survey
        self._known: dict[int, list[Point]] = {}

    def of(self, rows: Ints) -> dict[int, list[Point]]:
        """The non-dominated operating points of each row; none where it can serve no workload."""
        new = np.array([r for r in rows.tolist() if r not in self._known], dtype=np.int64)
        if len(new):
            self._known |= self._compute(new)
        return {int(r): self._known[int(r)] for r in rows}

    def _compute(self, rows: Ints) -> dict[int, list[Point]]:
        physics = self.survey.physics
        most = np.max([p.slots[rows] for p in physics], axis=0)
        allowed = np.stack([p.allowed[rows] for p in physics], axis=1)
        sizes = [_sizes(m, a) for m, a in zip(most.tolist(), allowed.tolist())]
        at = np.repeat(np.arange(len(rows)), [len(s) for s in sizes])
        seqs = np.concatenate(sizes) if sizes else np.zeros(0, dtype=np.int64)
        found = [self._capacity(w, rows[at], np.minimum(seqs, physics[w].slots[rows[at]])) for w in range(len(physics))]
        points: dict[int, list[Point]] = {int(r): [] for r in rows}
        for i, (r, b) in enumerate(zip(rows[at].tolist(), seqs.tolist())):
            single = tuple(float(f[0][i]) for f in found)
            if any(single):
                points[r].append(Point(r, int(b), single, tuple(float(f[1][i]) for f in found), tuple(float(f[2][i]) for f in found)))
        return {r: _undominated(p) for r, p in points.items()}

    def _capacity(self, w: int, rows: Ints, seqs: Ints) -> tuple[Floats, Floats, Floats]:
        """Capacity alone, saturated, and requests/s per unit of flow, of one workload on rows at given sequences."""
        workload, physics = self.survey.scenario.workload[w], self.survey.physics[w]
        single, saturated, per_unit = np.zeros(len(rows)), np.zeros(len(rows)), np.ones(len(rows))
        for factor, mix in physics.mixes.items():
            here = np.flatnonzero((physics.factor[rows] == factor) & (seqs > 0))
            if not len(here):
                continue
            found = capacity(curves_of(self.survey, w, rows[here]), mix, limits(workload, factor), seqs[here])
            single[here], saturated[here], per_unit[here] = in_workload_units(workload, found)
        return single, saturated, per_unit


def _sizes(most: int, allowed: list[float]) -> Ints:
    """max_num_seqs worth trying: all that fits, and powers of two around what the limits allow in each workload.

    Fewer only throttles; more than fits cannot be. Between them capacity moves little, as the limits bind before the slots.
    """
    near = {b for a in allowed if a > 0 for b in MAX_NUM_SEQS if a / 2 < b <= 4 * a and b < most}
    return np.array(sorted({*near, most}), dtype=np.int64)


def in_workload_units(workload: Workload, found: Capacity) -> tuple[Floats, Floats, Floats]:
    """(capacity, saturated capacity, requests/s per unit). In flight: N* = λ*·E2E, at the E2E of λ*."""
    if workload.qps is not None:
        return found.qps, found.qps_saturated, np.ones_like(found.qps)
    rate = np.divide(found.qps, found.in_flight, out=np.ones_like(found.qps), where=found.in_flight > 0)
    return found.in_flight, found.qps_saturated / rate, rate


def _undominated(points: list[Point]) -> list[Point]:
    """Points that no other matches in every workload; of equal ones the smallest max_num_seqs."""
    kept: list[Point] = []
    for p in sorted(points, key=lambda p: (tuple(-v for v in p.single), p.max_num_seqs)):
        if not any(all(k >= v for k, v in zip((*q.single, *q.saturated), (*p.single, *p.saturated))) for q in kept):
            kept.append(p)
    return kept
