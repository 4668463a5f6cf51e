"""One replica in a closed loop: n requests in flight, each followed by the next as soon as it is answered. Rate, latencies, capacity.

Demand in requests in flight is such a system. Arrivals come with the steps that end answers, not with time: a long step brings no more of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from planner.performance.capacity import BLOCK, SHARES, Limit, Service
from planner.performance.cells import Cells
from planner.performance.chain import Interpolation, Rows, prompt_moments
from planner.performance.lengths import LengthMix
from planner.performance.replicas import Floats, Ints
from planner.performance.step import StepCurves
from planner.performance.tails import gamma_tail, skewed_tail

STEPS = 16  # bisection steps, by factors: the number decoding is found to 2^-12 of itself
FINE = 50  # of single rows
SHARP = 34  # for a percentile: to 2^-34 of fifty times the mean
FEWEST = 1e-3  # sequences decoding
TTFT_MARGIN = 1.12  # percentiles of TTFT are lengthened: by as much were they too short at worst (p95; 17 % at p99) against simulations
FULL = 0.999  # prompts never fill more than this share of the steps in the formulas below (they have a pole at 1)


@dataclass(frozen=True)
class Loop:
    """What does not depend on the number in flight. Columns are [P, 1]; mix has Q cells of prompts."""

    curves: StepCurves
    mix: LengthMix
    slots: Rows
    steps: float  # decode steps of a mean answer: o - 1
    alone: Rows  # seconds that a prompt of its own step adds; 0 with chunks
    per_token: Rows
    slope: Rows  # [P, G]: derivative of the step by sequences
    work: Rows  # E[prompt], E[prompt^2], E[prompt^3]
    work_m2: Rows
    work_m3: Rows
    overhead: Rows


@dataclass(frozen=True)
class Closed:
    """A closed loop at one number of sequences decoding, [P, 1]."""

    in_flight: Rows  # N: decoding, and waiting for their first token
    decoding: Rows  # B
    rate: Rows  # requests/s
    step: Rows  # D(B)
    tpot: Rows
    arrivals: Rows  # a: requests per step
    load: Rows  # r: share of the room for prompts that is taken
    wait: Rows  # until the own prompt's step begins, overhead included, and its variance
    wait_var: Rows
    own: Rows  # [P, 1]: the own prompt's steps, in the mean
    room: Rows  # prompt tokens that a step takes
    tpot_load: Rows  # sd of TPOT through the number decoding, of a mean answer
    waits: Rows  # share of the requests that find no sequence free: all, or none

    @property
    def ttft(self) -> Rows:
        """Mean seconds to the first token."""
        found: Rows = self.wait + self.own
        return found


def loop(curves: StepCurves, mix: LengthMix, max_num_seqs: Ints) -> Loop:
    """The loop of every row [P]. Rows with max_num_seqs < 1 get one slot; callers drop them."""
    slots = np.clip(max_num_seqs, 1, curves.n[-1]).astype(float)[:, None]
    token, alone = curves.prefill_s_per_token[:, None], np.zeros_like(slots) if curves.whole_prompt_s is None else curves.whole_prompt_s[:, None]
    slope = np.gradient(curves.step_s, curves.n, axis=1)
    return Loop(
        curves, mix, slots, max(mix.mean_output - 1, FEWEST), alone, token, slope, *prompt_moments(token, alone, mix.inputs), curves.overhead_s[:, None]
    )


def closed(loop: Loop, decoding: Rows) -> Closed:
    """The loop while B sequences decode, 0 < B <= slots, [P, 1]. In the symbols of docs/performance.md, "Requests in flight":

        a = B/(o - 1)                        answers that end with a step, and requests that come with it
        r = a i/(S - B)                      of the room for prompts in a step
        w = steps until one begins that knows of the request + backlog/(S - B) + steps of the own prompt
        N = B + a w                          Little's law, counting in steps
        X = a/(D(B) + a work)                a step with its prompts
        TPOT = D(B) + a work (1 - 1/N)       prompts of others
        TTFT = N/X - (o - 1) TPOT            Little's law, in seconds

    Backlog of prompt tokens: a queue in steps, from what one step leaves over (few prompts) to Kingman's a i2/(2 (S - B) (1 - r)).
    """
    c, mix, b = loop.curves, loop.mix, np.minimum(decoding, loop.slots)
    at = Interpolation(c.n, np.clip(b, 1.0, loop.slots))
    step, slope = at(c.step_s), at(loop.slope)
    room, tokens = np.maximum(c.batched_tokens - b, 1.0), mix.computed * mix.mean_input
    is_chunked = c.whole_prompt_s is None
    a = np.minimum(b / loop.steps, FULL * room / tokens) if is_chunked else b / loop.steps
    load = a * tokens / room if is_chunked else np.zeros_like(a)
    whole = step + a * loop.work  # a step with the prompts that it carries
    begins = _steps_until(loop.overhead, step, whole, a)
    if is_chunked:
        backlog = _backlog(a, mix, load, room)
        passes = (np.maximum(mix.computed * mix.inputs.mean / room, 1.0) @ mix.inputs.weight)[:, None]
        own, later = step * passes + loop.work, backlog / room
        waits = begins + later + passes
    else:  # each prompt runs alone between two decode steps, so none of these passes
        own, later, waits = loop.work, np.zeros_like(step), begins
    in_flight = a * (loop.steps + waits)
    rate, tpot = a / whole, step + a * loop.work * np.maximum(1 - 1 / np.maximum(in_flight, 1.0), 0.0)
    ttft = np.maximum(in_flight / rate - loop.steps * tpot, own + 1e-6)
    var = a * loop.work_m2 * (2 - load) + _backlog_var(loop, a, load, room, later, step) if is_chunked else 2 * a * loop.work_m2
    waiting = np.minimum(rate * ttft, a * loop.steps)
    sd = slope * np.sqrt(waiting) / np.sqrt(1 + loop.steps * tpot / ttft)
    return Closed(in_flight, a * loop.steps, rate, step, tpot, a, load, ttft - own, var + 1e-12, own, room, sd, np.zeros_like(a))


def _backlog_var(loop: Loop, a: Rows, load: Rows, room: Rows, later: Rows, step: Rows) -> Rows:
    """Variance of the wait behind backlog, s^2: that of an M/G/1 queue of full steps, W^2 + rate S3/(3 (1 - r)), as far as its mean is reached.

    The loop holds no more prompts than its requests, so the wait of many is a sum of prompts: where they fill the steps it hardly scatters.
    """
    mix = loop.mix
    full = step + loop.per_token / mix.computed * room  # seconds of a full step
    token = full * mix.computed / room
    wait, free = later * full, 1 - np.minimum(load, FULL)
    third = a / full * token**3 * mix.input_m3 / (3 * free)
    queue = a * mix.computed**2 * mix.input_m2 / (2 * room * free) / room * full
    many = later * room / np.maximum(mix.computed * mix.mean_input, 1e-9)  # prompts waited for
    found: Rows = np.minimum(wait * wait + third * wait / queue, (1 + many) * token**2 * mix.input_m2 / np.maximum(load, 1e-9))
    return found


def _steps_until(overhead: Rows, step: Rows, whole: Rows, a: Rows) -> Rows:
    """Mean number of steps until one begins that knows of a request asked for as a step ends, the overhead included.

    The step under way must end after the overhead. Steps without prompts, exp(-a) of all, are the short ones: of k in a row, k D(B) < h is too soon.
    Half a step stands for where between two steps the overhead ends.
    """
    free = np.minimum(np.exp(-a), 1 - 1e-9)
    short = np.maximum(overhead / step - 0.5, 0.0)
    found: Rows = np.maximum(1 + free * (1 - free**short) / (1 - free), overhead / whole + 0.5)
    return found


def _backlog(a: Rows, mix: LengthMix, load: Rows, room: Rows) -> Rows:
    """Mean prompt tokens left over when a step begins, [P, 1]."""
    square = a * mix.computed**2 * mix.input_m2
    kingman = square / (2 * room * (1 - np.minimum(load, FULL)))
    mean = np.maximum(load * room, 1e-9)
    ratio = square / mean
    over = mean * gamma_tail(room, mean + ratio, np.maximum(square, 1e-9) + ratio * ratio) - room * gamma_tail(room, mean, np.maximum(square, 1e-9))
    once = np.clip(over, 1e-9, np.maximum(kingman, 1e-9))
    near = np.sqrt(load)
    found: Rows = kingman**near * once ** (1 - near)
    return found


def at_in_flight(loop: Loop, in_flight: Rows) -> Closed:
    """The loop with so many requests in flight on each replica [P, 1]; where they are more than find a sequence, the others wait for one.

    Below one request in flight a replica is idle for the rest of the time: its service is that of one.
    """
    low, high = np.full_like(loop.slots, FEWEST), loop.slots.copy()
    for _ in range(FINE):
        middle = np.sqrt(low * high)
        fits = closed(loop, middle).in_flight <= np.maximum(in_flight, 1.0)
        low, high = np.where(fits, middle, low), np.where(fits, high, middle)
    found = closed(loop, low)
    others = np.maximum(in_flight - np.maximum(found.in_flight, 1.0), 0.0)
    others = np.where(others > 1e-6 * in_flight, others, 0.0)
    # So many answers must end first, at exponential times.
    return replace(found, wait=found.wait + others / found.rate, wait_var=found.wait_var + others / found.rate**2, waits=np.where(others > 0, 1.0, 0.0))


def tail(metric: str, loop: Loop, s: Closed, limit: Rows | float, share: float = 1.0) -> Rows:
    """Probability that a request (ITL: a step) exceeds the limit, over the mix: [P, 1]. ``share``: part of the output E2E counts to."""
    if metric == "ttft":
        prompts = loop.mix.inputs
        found: Rows = (gamma_tail(limit / TTFT_MARGIN - _own(loop, s, prompts), s.wait, s.wait_var + loop.per_token**2 * prompts.var) @ prompts.weight)[:, None]
        return found
    if metric == "itl":
        return _tail_step(loop, s, limit)
    if metric == "full":  # where there are more requests than sequences, each waits for one
        return s.waits
    inputs, outputs = loop.mix.pairs
    if metric == "tpot":
        inputs, outputs = loop.mix.inputs, loop.mix.outputs
    many = np.maximum(outputs.mean - 1, 0.0)[None, :]
    spread = np.sqrt(s.arrivals * loop.work_m2 * (1 - s.load) / np.maximum(many, 1.0)) + s.tpot_load + 1e-12
    skew = loop.work_m3 / loop.work_m2**1.5 / np.sqrt(np.maximum(s.arrivals * np.maximum(many, 1.0), 1e-9))
    if metric == "tpot":
        some = np.where(outputs.mean > 1.5, outputs.weight, 0.0)
        slow: Rows = (skewed_tail((limit - s.tpot) / spread, skew) @ (some / max(some.sum(), 1e-12)))[:, None]
        return slow
    out = np.maximum(share * outputs.mean - 1, 0.0)[None, :]
    noise = s.wait_var + loop.per_token**2 * inputs.var + (share * s.tpot) ** 2 * outputs.var
    sd = np.sqrt(noise + (spread * out) ** 2)
    late: Rows = (skewed_tail((limit - s.wait - _own(loop, s, inputs) - out * s.tpot) / sd, skew * (spread * out / sd) ** 3) @ inputs.weight)[:, None]
    return late


def _own(loop: Loop, s: Closed, inputs: Cells) -> Rows:
    """Seconds [P, Q] of a prompt's own steps."""
    prompts = loop.alone + loop.per_token * inputs.mean
    if loop.curves.whole_prompt_s is not None:
        return prompts
    found: Rows = s.step * np.maximum(loop.mix.computed * inputs.mean / s.room, 1.0) + prompts
    return found


def _tail_step(loop: Loop, s: Closed, limit: Rows | float) -> Rows:
    """A step carries the prompts that came with the last one, Poisson of mean a: none with exp(-a), else gamma."""
    busy = -np.expm1(-s.arrivals)
    mean = s.arrivals * loop.work / busy
    var = np.maximum((s.arrivals * loop.work_m2 + (s.arrivals * loop.work) ** 2) / busy - mean * mean, 1e-4 * mean * mean)
    left = limit - s.step
    most: Rows = np.full_like(left, np.inf)
    if loop.curves.whole_prompt_s is None:
        most = loop.per_token / loop.mix.computed * s.room
    found: Rows = np.where(left < 0, 1.0, np.where(left < most, np.maximum(busy * gamma_tail(left, mean, var), s.load * (mean > most)), 0.0))
    return found


def capacity(curves: StepCurves, mix: LengthMix, limits: Sequence[Limit], max_num_seqs: Ints) -> tuple[Floats, Floats]:
    """(most requests in flight [P] with which every limit holds and none waits for a slot, requests/s there); 0 = cannot serve."""
    if not len(curves):
        return np.zeros(0), np.zeros(0)
    parts = [_capacity(curves.take(rows), mix, limits, max_num_seqs[rows]) for rows in (slice(i, i + BLOCK) for i in range(0, len(curves), BLOCK))]
    return np.concatenate([n for n, _ in parts]), np.concatenate([x for _, x in parts])


def _capacity(curves: StepCurves, mix: LengthMix, limits: Sequence[Limit], max_num_seqs: Ints) -> tuple[Floats, Floats]:
    made = loop(curves, mix, max_num_seqs)

    def held(s: Closed) -> NDArray[np.bool_]:
        fine: NDArray[np.bool_] = s.in_flight <= made.slots
        for limit in limits:
            fine &= tail(limit.metric, made, s, limit.limit_s, limit.share) <= 1 - limit.percentile / 100
        return fine

    low, high = np.full_like(made.slots, FEWEST), made.slots.copy()
    for _ in range(STEPS):
        middle = np.sqrt(low * high)
        fine = held(closed(made, middle))
        low, high = np.where(fine, middle, low), np.where(fine, high, middle)
    one = closed(made, low)
    serves = (max_num_seqs >= 1) & held(one)[:, 0] & (one.in_flight[:, 0] >= 1.0)
    return np.where(serves, one.in_flight[:, 0], 0.0), np.where(serves, one.rate[:, 0], 0.0)


def service(curves: StepCurves, mix: LengthMix, in_flight: Floats, max_num_seqs: Ints, reasoning: float = 0.0) -> tuple[Service, Floats]:
    """Service with so many requests in flight on each replica [P], and the rate there in requests/s.

    Little's law holds by construction: in_flight = rate x mean E2E. reasoning: share of the output written before the answer begins.
    """
    made = loop(curves, mix, max_num_seqs)
    s = at_in_flight(made, in_flight[:, None])
    return service_at(made, s, in_flight, reasoning), in_flight / mean_e2e_s(made, s)


def rate(curves: StepCurves, mix: LengthMix, in_flight: Floats, max_num_seqs: Ints) -> Floats:
    """Requests/s with so many requests in flight on each replica [P]."""
    made = loop(curves, mix, max_num_seqs)
    found: Floats = in_flight / mean_e2e_s(made, at_in_flight(made, in_flight[:, None]))
    return found


def service_at(made: Loop, s: Closed, in_flight: Floats, reasoning: float = 0.0) -> Service:
    """Service of requests of a loop's mix at a state of the loop; ``in_flight`` [P] of theirs. reasoning as in ``service``."""
    mix, e2e = made.mix, mean_e2e_s(made, s)[:, None]
    means = {"ttft": s.ttft + s.tpot * reasoning * mix.mean_output, "tpot": s.tpot, "itl": s.tpot, "e2e": e2e}
    longest = float(max(mix.output_tokens.max() / mix.mean_output, mix.input_tokens.max() / mix.mean_input))
    found = {}
    for metric, mean in means.items():
        of, part = ("e2e", reasoning) if metric == "ttft" and reasoning else (metric, 1.0)
        upper = 50 * (mean + (e2e if metric == "itl" else 0.0)) * longest
        found[metric] = {"mean": mean[:, 0], **{name: _quantile(of, made, s, share, upper, part)[:, 0] for name, share in SHARES.items()}}
    return Service(found["ttft"], found["tpot"], found["e2e"], in_flight, found["itl"], s.waits[:, 0])


def seen_by(made: Loop, s: Closed, curves: StepCurves, mix: LengthMix) -> tuple[Loop, Closed]:
    """A loop of several workloads as the requests of one see it: with their own lengths and cost of prompts."""
    alone = np.zeros((1, 1)) if curves.whole_prompt_s is None else curves.whole_prompt_s[:, None]
    mine = replace(made, mix=mix, per_token=curves.prefill_s_per_token[:, None], alone=alone)
    return mine, replace(s, own=(_own(mine, s, mix.inputs) @ mix.inputs.weight)[:, None])


def mean_e2e_s(made: Loop, s: Closed) -> Floats:
    """Mean E2E of a loop's requests [P]."""
    found: Floats = (s.ttft + max(made.mix.mean_output - 1, 0.0) * s.tpot)[:, 0]
    return found


def _quantile(metric: str, made: Loop, s: Closed, share: float, upper: Rows, part: float) -> Rows:
    low, high = np.zeros_like(upper), upper.copy()
    for _ in range(SHARP):
        middle = (low + high) / 2
        over = tail(metric, made, s, middle, part) > 1 - share
        low, high = np.where(over, middle, low), np.where(over, high, middle)
    return high
