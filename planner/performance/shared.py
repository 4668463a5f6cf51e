"""Several workloads on one replica: one queue of all their requests, and the percentiles of each workload in it.

A step reads what the mean request reads, weighted by the tokens that each workload writes; prompts keep their own cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from planner.performance import closed
from planner.performance.capacity import Limit, Service, mean_seconds, service_at
from planner.performance.chain import Chain, chain, own_time
from planner.performance.lengths import LengthMix, blend
from planner.performance.queue import QueueState, state, waiting
from planner.performance.replicas import Floats, Ints
from planner.performance.step import StepCurves
from planner.performance.tails import tail

ALMOST = 1 - 1e-9  # of the most requests/s: a replica asked for more waits without end
FIRST_E2E_S = 10.0
SETTLING = 60  # rounds at most in which the rates of requests in flight follow from how long answers take
SETTLED, STEADY = 1e-8, 0.7  # relative: rates that move less stand; where a round leaves more than this share of what was off, steps get smaller
NEAR = 1e-3  # relative, of requests in flight


@dataclass(frozen=True)
class Shared:
    """A replica at the rates of its workloads [W], requests/s."""

    queue: Chain
    now: QueueState
    curves: tuple[StepCurves, ...]  # one row each
    mixes: tuple[LengthMix, ...]
    rates: Floats
    is_settled: bool = True  # the rates are those that keep the requests in flight there; else there is no room for them

    def beyond(self, w: int, limit: Limit) -> float:
        """Share of a workload's requests beyond one of its limits."""
        queue, now = self._seen_by(w)
        return float(tail(limit.metric, queue, now, limit.limit_s, limit.share)[0, 0])

    def service(self, w: int, reasoning: float = 0.0) -> Service:
        """What a workload's requests see."""
        queue, now = self._seen_by(w)
        return service_at(queue, now, waiting(queue, now.rate / queue.rate), self.mixes[w], self.rates[w : w + 1], reasoning)

    def mean_e2e_s(self, w: int) -> float:
        """Mean E2E of a workload's requests."""
        queue, now = self._seen_by(w)
        ttft, answers, _ = mean_seconds(queue, now, waiting(queue, now.rate / queue.rate))
        return float((ttft + answers)[0, 0])

    def _seen_by(self, w: int) -> tuple[Chain, QueueState]:
        """The queue of all, with one workload's own lengths and cost of prompts."""
        c, mix = self.curves[w], self.mixes[w]
        alone = np.zeros((1, 1)) if c.whole_prompt_s is None else c.whole_prompt_s[:, None]
        queue = replace(self.queue, inputs=mix.inputs, outputs=mix.outputs, pairs=mix.pairs, per_token=c.prefill_s_per_token[:, None], alone=alone)
        return queue, replace(self.now, own=own_time(queue, self.now.step, self.now.room, mix.inputs))


def shared(curves: Sequence[StepCurves], mixes: Sequence[LengthMix], rates: Floats, max_num_seqs: Ints, relief: float = 1.0) -> Shared:
    """The replica at these rates. relief: what a router over several replicas makes of the load (single over pooled capacity, at most 1)."""
    union, mix = _union(curves, mixes, rates)
    queue = chain(union, mix, max_num_seqs)
    load = np.clip(relief * rates.sum() / queue.rate, 1e-9, ALMOST)
    return Shared(queue, state(queue, load), tuple(curves), tuple(mixes), rates)


@dataclass(frozen=True)
class SharedLoop:
    """A replica whose workloads are all requests in flight [W]: one closed loop."""

    made: closed.ClosedLoop
    now: closed.Closed
    curves: tuple[StepCurves, ...]
    mixes: tuple[LengthMix, ...]
    rates: Floats
    in_flight: Floats
    is_settled: bool = True

    def beyond(self, w: int, limit: Limit) -> float:
        """Share of a workload's requests beyond one of its limits."""
        made, now = closed.seen_by(self.made, self.now, self.curves[w], self.mixes[w])
        return float(closed.tail(limit.metric, made, now, limit.limit_s, limit.share)[0, 0])

    def service(self, w: int, reasoning: float = 0.0) -> Service:
        """What a workload's requests see."""
        made, now = closed.seen_by(self.made, self.now, self.curves[w], self.mixes[w])
        return closed.service_at(made, now, self.in_flight[w : w + 1], reasoning)

    def mean_e2e_s(self, w: int) -> float:
        """Mean E2E of a workload's requests."""
        return float(closed.mean_e2e_s(*closed.seen_by(self.made, self.now, self.curves[w], self.mixes[w]))[0])


def settled(
    curves: Sequence[StepCurves], mixes: Sequence[LengthMix], rates: Floats, in_flight: Floats, max_num_seqs: Ints, relief: float = 1.0
) -> Shared | SharedLoop:
    """The replica where workloads with requests in flight [W] (0: a rate is given) run at the rate that keeps so many there.

    Beside arrivals at a rate they are taken to arrive like these, which scatters more than they do: the safe side.
    """
    is_loop = in_flight > 0

    def at(now: Floats) -> Shared | SharedLoop:
        if not is_loop.all():
            return shared(curves, mixes, np.where(is_loop, now, rates), max_num_seqs, relief)
        union, mix = _union(curves, mixes, now)
        made = closed.loop(union, mix, max_num_seqs)
        return SharedLoop(made, closed.at_in_flight(made, in_flight.sum()[None, None]), tuple(curves), tuple(mixes), now, in_flight)

    found = at(in_flight / FIRST_E2E_S)
    inert, off = (
        (0.0 if is_loop.all() else 0.5),
        np.inf,
    )  # alone, rates only weigh the lengths against each other; beside arrivals they bring load, and may swing
    for _ in range(SETTLING if is_loop.any() else 0):
        seconds = np.array([found.mean_e2e_s(w) if is_loop[w] else 1.0 for w in range(len(mixes))])
        now = np.maximum(found.rates, 1e-12)
        wanted = np.where(is_loop, in_flight / seconds, now)
        before, off = off, float(np.abs(np.log(wanted / now)).max())
        if off < SETTLED:
            break
        inert = (1 + inert) / 2 if off > STEADY * before else inert
        found = at(now**inert * wanted ** (1 - inert))
    kept = [found.rates[w] * found.mean_e2e_s(w) / in_flight[w] for w in range(len(mixes)) if is_loop[w]]
    return replace(found, is_settled=all(abs(k - 1) < NEAR for k in kept))


def _union(curves: Sequence[StepCurves], mixes: Sequence[LengthMix], rates: Floats) -> tuple[StepCurves, LengthMix]:
    """Curves and lengths of all requests together."""
    written, read = (rates * [getattr(m, name) for m in mixes] for name in ("mean_output", "mean_input"))

    def mean(values: Sequence[Floats], weight: Floats) -> Floats:
        found: Floats = np.tensordot(weight / weight.sum(), np.stack(values), axes=1)
        return found

    whole = [c.whole_prompt_s for c in curves if c.whole_prompt_s is not None]
    union = replace(
        curves[0],
        step_s=mean([c.step_s for c in curves], written),
        floor_s=mean([c.floor_s for c in curves], written),
        prefill_s_per_token=mean([c.prefill_s_per_token for c in curves], read),
        whole_prompt_s=mean(whole, rates) if whole else None,
    )
    return union, blend(mixes, rates / rates.sum())
