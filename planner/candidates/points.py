"""Operating points: the capacity of a replica type at each max_num_seqs and size of step, computed when first asked for and then kept."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from planner.candidates.survey import STEP_TOKENS, Survey, curves_of, limits, slots_of, step_tokens, whole_request
from planner.catalog.records import Offer
from planner.deadline import NEVER, Deadline
from planner.performance.capacity import Capacity
from planner.performance.serving import Serving, capacity_of, in_flight_capacity
from planner.scenario.records import Policy, Scenario
from planner.scenario.workload import Workload

MAX_NUM_SEQS = (8, 16, 32, 64, 128, 256, 512, 1024)
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class OperatingPoint:
    """One replica type with one max_num_seqs and max_num_batched_tokens: per workload, capacity alone and in a very large pool, in the workload's unit.

    ``after_loss``: the same two by workload, with the limits of the time after a loss.
    ``qps_per_unit``: requests/s that one unit of flow stands for at capacity (1 for a rate, X(N*)/N* for requests in flight).
    """

    row: int
    max_num_seqs: int
    max_num_batched_tokens: int
    single: tuple[float, ...]
    saturated: tuple[float, ...]
    qps_per_unit: tuple[float, ...]
    after_loss: tuple[tuple[float, float], ...] = ()

    @property
    def carries(self) -> tuple[float, ...]:
        """Everything that makes one better than another."""
        return (*self.single, *self.saturated, *(x for both in self.after_loss for x in both))


class Points:
    """The operating points of a survey's rows. Capacities are kept, so that asking again under another restriction is free.

    Past its deadline nothing more is computed: asking for what is not known raises TimeUp.
    """

    def __init__(self, survey: Survey, deadline: Deadline = NEVER) -> None:
        self.survey, self.deadline = survey, deadline
        self.apart: frozenset[frozenset[int]] = frozenset()  # pairs of workloads that no deployment may serve both
        self._known: dict[int, list[OperatingPoint]] = {}

    def asked(self, scenario: Scenario, offers: tuple[Offer, ...]) -> Points:
        """The same operating points for a question that has the same physics, over offers on the same GPUs."""
        return self._like(replace(self.survey, scenario=scenario, offers=offers), self.deadline)

    def until(self, deadline: Deadline) -> Points:
        """The same operating points with another deadline."""
        return self._like(self.survey, deadline)

    def keeping(self, apart: frozenset[frozenset[int]]) -> Points:
        """The same operating points with more pairs of workloads kept apart."""
        found = self._like(self.survey, self.deadline)
        found.apart = self.apart | apart
        return found

    def _like(self, survey: Survey, deadline: Deadline) -> Points:
        found = Points(survey, deadline)
        found._known, found.apart = self._known, self.apart
        return found

    def of(self, rows: Ints) -> dict[int, list[OperatingPoint]]:
        """The non-dominated operating points of each row; none where it can serve no workload."""
        new = np.array([r for r in rows.tolist() if r not in self._known], dtype=np.int64)
        if len(new):
            self._known |= self._compute(new)
        return {int(r): self._known[int(r)] for r in rows}

    def _compute(self, rows: Ints) -> dict[int, list[OperatingPoint]]:
        points: dict[int, list[OperatingPoint]] = {int(r): [] for r in rows}
        for tokens, here in self._steps(rows):
            self.deadline.check()
            for p in self._points(here, tokens):
                points[p.row].append(p)
        return {r: _undominated(p) for r, p in points.items()}

    def _steps(self, rows: Ints) -> list[tuple[int, Ints]]:
        """Sizes of a step worth trying, each with its rows.

        Smaller steps make prompts dearer and later, so without a limit on ITL they pay only by the memory they leave: they are
        tried where the default leaves fewer slots than the limits allow. Elsewhere 4 of 7,383 rows gained, one more than 1 %.
        """
        physics, sizes = self.survey.physics, step_tokens(self.survey.scenario)
        if not self.survey.scenario.policy.chunked_prefill:
            needs = np.max([[whole_request(p.mix(r)) if p.factor[r] else 0 for r in rows] for p in physics], axis=0)
            return [(int(n), rows[needs == n]) for n in np.unique(needs) if n]
        if len(sizes) > len(STEP_TOKENS):
            return [(n, rows) for n in sizes]
        is_short = np.any([slots_of(self.survey, w, rows, sizes[-1]) < np.minimum(2 * p.allowed[rows], p.slots[rows]) for w, p in enumerate(physics)], axis=0)
        return [(sizes[-1], rows), *((n, rows[is_short]) for n in sizes[:-1] if is_short.any())]

    def _points(self, rows: Ints, tokens: int) -> list[OperatingPoint]:
        """Operating points of rows with one size of step. At least half of a step is left to prompts."""
        physics = self.survey.physics
        slots = [slots_of(self.survey, w, rows, tokens) for w in range(len(physics))]
        most = np.minimum(np.max(slots, axis=0), tokens // 2)
        allowed = np.stack([p.allowed[rows] for p in physics], axis=1)
        sizes = [_sizes(m, a) for m, a in zip(most.tolist(), allowed.tolist())]
        at = np.repeat(np.arange(len(rows)), [len(s) for s in sizes])
        seqs = np.concatenate(sizes) if sizes else np.zeros(0, dtype=np.int64)
        found = [self._capacity(w, rows[at], np.minimum(seqs, s[at]), tokens) for w, s in enumerate(slots)]
        times = self.survey.scenario.policy.loss_slo_factor
        after = found if times == 1 else [self._capacity(w, rows[at], np.minimum(seqs, s[at]), tokens, times) for w, s in enumerate(slots)]
        points: list[OperatingPoint] = []
        for i, (r, b) in enumerate(zip(rows[at].tolist(), seqs.tolist())):
            single = tuple(float(f[0][i]) for f in found)
            if any(single):
                saturated, per_unit = (tuple(float(f[k][i]) for f in found) for k in (1, 2))
                points.append(OperatingPoint(r, int(b), tokens, single, saturated, per_unit, tuple((float(f[0][i]), float(f[1][i])) for f in after)))
        return points

    def _capacity(self, w: int, rows: Ints, seqs: Ints, tokens: int, times: float = 1.0) -> tuple[Floats, Floats, Floats]:
        """Capacity alone, saturated, and requests/s per unit of flow, of one workload on rows at given sequences and size of step, with limits so many
        times as long."""
        workload, physics = self.survey.scenario.workload[w].relaxed(times), self.survey.physics[w]
        single, saturated, per_unit = np.zeros(len(rows)), np.zeros(len(rows)), np.ones(len(rows))
        for kind, mix in physics.kinds(rows).items():
            here = physics.of_kind(kind, rows)
            here = here[seqs[here] > 0]
            if not len(here):
                continue
            part, curves = self.survey.replicas.take(rows[here]), curves_of(self.survey, w, rows[here], tokens)
            serving = Serving(part, curves, mix, limits(workload, kind[0]), seqs[here], self.survey.coefficients)
            found = workload_capacity(workload, self.survey.scenario.policy, serving)
            single[here], saturated[here], per_unit[here] = in_workload_units(workload, found)
        return single, saturated, per_unit


def _sizes(most: int, allowed: list[float]) -> Ints:
    """max_num_seqs worth trying: all that fits, and powers of two around what the limits allow in each workload.

    Fewer only throttles; more than fits cannot be. Between them capacity moves little, as the limits bind before the slots.
    """
    near = {b for a in allowed if a > 0 for b in MAX_NUM_SEQS if a / 2 < b <= 4 * a and b < most}
    return np.array(sorted({*near, most}), dtype=np.int64)


def workload_capacity(workload: Workload, policy: Policy, serving: Serving) -> Capacity:
    """Capacity for a rate, or for requests in flight, each followed by the next as soon as it is answered."""
    if not workload.is_closed:
        return capacity_of(serving)
    return in_flight_capacity(serving, policy.keeps_level)


def in_workload_units(workload: Workload, found: Capacity) -> tuple[Floats, Floats, Floats]:
    """(capacity, saturated capacity, requests/s per unit). In flight: N*, at the rate X(N*)."""
    if not workload.is_closed:
        return found.qps, found.qps_saturated, np.ones_like(found.qps)
    rate = np.divide(found.qps, found.in_flight, out=np.ones_like(found.qps), where=found.in_flight > 0)
    return found.in_flight, found.qps_saturated / rate, rate


def _undominated(points: list[OperatingPoint]) -> list[OperatingPoint]:
    """Points that no other matches in every workload; of equal ones the smallest max_num_seqs, and the largest step."""
    kept: list[OperatingPoint] = []
    for p in sorted(points, key=lambda p: (tuple(-v for v in p.single), p.max_num_seqs, -p.max_num_batched_tokens)):
        if not any(all(k >= v for k, v in zip(q.carries, p.carries)) for q in kept):
            kept.append(p)
    return kept
