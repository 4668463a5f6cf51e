"""One replica in a closed loop: n requests in flight, each followed by the next as soon as it is answered. Rate, latencies, capacity.

Demand in requests in flight is such a system. Arrivals come with the steps that end answers, not with time: a long step brings no more of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from planner.performance.backlog import Backlog, backlog
from planner.performance.capacity import BLOCK, SHARES, Limit, Service
from planner.performance.cells import Cells
from planner.performance.chain import Interpolation, Rows, prompt_moments
from planner.performance.first_token import loop_parts
from planner.performance.lengths import LengthMix
from planner.performance.replicas import Floats, Ints
from planner.performance.step import StepCurves
from planner.performance.tails import gamma_tail, moment_tail, normal_tail, skewed_tail

STEPS = 16  # bisection steps, by factors: the number decoding is found to 2^-12 of itself
FINE, CLOSE = 50, 1e-9  # turns at most, and error of a log, where the number in flight is given
SHARP = 34  # for a percentile: to 2^-34 of fifty times the mean
FEWEST = 1e-3  # sequences decoding
FULL = 0.999  # prompts never fill more than this share of the steps in the formulas below (they have a pole at 1)
BRIDGE = 0.9
ELSEWHERE = 0.15  # of the requests go on at another replica than the one that ended their session's last answer: see docs/performance.md
TTFT_MARGIN = 1.05  # percentiles of TTFT are lengthened: against simulations one in nine of p95 were over 5 % too short without
DIRECT, LITTLE = 0.05, 0.005  # relative errors, against simulations, of TTFT by what a request meets, and of the decoding time by Little's law


@dataclass(frozen=True)
class ClosedLoop:
    """What does not depend on the number in flight. Columns are [P, 1]; mix has Q cells of prompts."""

    curves: StepCurves
    mix: LengthMix
    slots: Rows
    steps: float  # decode steps of a mean answer: o - 1
    alike: float  # 2 where answers are all alike, to 1 where they vary as exponential ones
    tokens: tuple[float, ...]  # E[tokens^k] computed of a prompt, k = 1 to 4
    alone: Rows  # seconds that a prompt of its own step adds; 0 with chunks
    per_token: Rows
    slope: Rows  # [P, G]: derivative of the step by sequences
    work: Rows  # E[prompt], E[prompt^2], E[prompt^3]
    work_m2: Rows
    work_m3: Rows
    overhead: Rows


@dataclass(frozen=True)
class Tokens:
    """Prompt tokens, [P, 1]: mean, variance and third central moment."""

    mean: Rows
    var: Rows
    third: Rows


@dataclass(frozen=True)
class Others:
    """What a request meets of others' prompts, [P, 1]: with some probability none, else what came with it and with the steps before it, where these left
    nothing over, else what they did and what came with it."""

    none: Rows
    left: Rows  # probability that steps leave some over
    fresh: Tokens  # of those in between
    before: Rows  # mean of that in the steps before it
    over: Tokens
    seconds: Rows  # that all this adds to the mean TTFT
    var: Rows  # variance of those


@dataclass(frozen=True)
class Closed:
    """A closed loop at one number of sequences decoding, [P, 1]."""

    in_flight: Rows  # N: decoding, and waiting for their first token
    decoding: Rows  # B
    rate: Rows  # requests/s
    step: Rows  # D(B)
    arrivals: Rows  # a: requests per step
    load: Rows  # r: share of the room for prompts that is taken
    room: Rows  # prompt tokens that a step takes
    begins: Rows  # steps until one begins that knows of a request
    others: Others
    filled: Rows  # variance of the seconds of prompts in one step
    together: Rows  # steps over which these are alike
    delay: Rows  # seconds until requests that come before it have begun, where they are more than steps or sequences take
    tpot: Rows
    longer: Rows  # TTFT over what it is by what a request meets: see _settled
    tpot_load: Rows  # sd of TPOT through the number decoding, of a mean answer
    waits: Rows  # share of the requests that find no sequence free: all, or none


def loop(curves: StepCurves, mix: LengthMix, max_num_seqs: Ints) -> ClosedLoop:
    """The loop of every row [P]. Rows with max_num_seqs < 1 get one slot; callers drop them."""
    slots = np.clip(max_num_seqs, 1, curves.n[-1]).astype(float)[:, None]
    token, alone = curves.prefill_s_per_token[:, None], np.zeros_like(slots) if curves.whole_prompt_s is None else curves.whole_prompt_s[:, None]
    slope, inputs = np.gradient(curves.step_s, curves.n, axis=1), mix.inputs
    tokens = tuple(mix.computed**k * inputs.moment(k) for k in (1, 2, 3, 4))
    moments = prompt_moments(token, alone, inputs)
    alike = 2 / (1 + min(mix.outputs.moment(2) / mix.mean_output**2 - 1, 1.0))
    return ClosedLoop(curves, mix, slots, max(mix.mean_output - 1, FEWEST), alike, tokens, alone, token, slope, *moments, curves.overhead_s[:, None])


def closed(loop: ClosedLoop, decoding: Rows) -> Closed:
    """The loop while B sequences decode, 0 < B <= slots, [P, 1]. In the symbols of docs/performance.md, "Requests in flight":

        a = B/(o - 1)                        answers that end with a step, and requests that come with it
        r = a i/(S - B)                      of the room for prompts in a step
        w = steps until one begins that knows of the request + U/(S - B) + steps of the own prompt
        N = B + a w                          Little's law, counting in steps
        X = a/(D(B) + a work)                a step with its prompts
        E2E = N/X                            Little's law, in seconds

    U: prompt tokens that steps leave over (``backlog``). Those of B that find no room in full steps wait for their first token.
    """
    c, mix, tokens = loop.curves, loop.mix, loop.tokens[0]
    is_chunked = c.whole_prompt_s is None
    most = FULL * loop.steps * c.batched_tokens / (tokens + FULL * loop.steps) if is_chunked else np.inf  # more bring prompts faster than steps take them
    asked = np.minimum(decoding, loop.slots)
    b = np.minimum(asked, most)
    at = Interpolation(c.n, np.clip(b, 1.0, loop.slots))
    step, slope = at(c.step_s), at(loop.slope)
    room, a = np.maximum(c.batched_tokens - b, 1.0), b / loop.steps
    full = loop.per_token / mix.computed * room if is_chunked else np.full_like(room, np.inf)
    whole = step + a * loop.work  # a step with the prompts that it carries
    begins, queued = _steps_until(loop.overhead, step, whole, a, np.minimum(loop.work_m2, loop.work * full)), asked - b
    passes = (_passes(loop, room, mix.inputs) @ mix.inputs.weight)[:, None]
    seen = a * np.clip(1 - 1 / np.maximum(b * (1 + (begins + passes) / loop.steps), 1.0), 1e-6, 1.0)  # a request is none of the others
    left = _from_elsewhere(loop, seen, room, step / whole, (step + full) / whole) if is_chunked else None
    in_flight = a * (loop.steps + begins + (left.mean / room + passes if left else 0.0)) + queued
    others = _met(loop, seen, step, room, begins, left) if left else _alone(loop, a, step, whole, in_flight)
    none = np.zeros_like(a)
    load = a * tokens / room if left else none
    filled = np.maximum((loop.per_token / mix.computed) ** 2 * left.spread, 1e-18) if left else a * loop.work_m2
    together = np.maximum(a * loop.work_m2 / (2 * filled), 0.5)
    found = Closed(in_flight, a * loop.steps, a / whole, step, a, load, room, begins, others, filled, together, queued * whole / a, step, none + 1, none, none)
    return _settled(loop, found, slope)


def _from_elsewhere(loop: ClosedLoop, a: Rows, room: Rows, empty: Rows, full: Rows) -> Backlog:
    """What a request finds left over where part of the requests come as answers of other replicas end: by time, not by this one's steps, of which an
    empty and a full one last so many times the mean. Full steps bring more of them, and more of them come during full steps.
    """
    tokens = loop.tokens[0]
    part = ELSEWHERE * np.minimum(tokens / room, 1.0)  # many short prompts make all steps alike
    busy, idle = a * (1 - part + part * full), a * (1 - part + part * empty)
    load = np.minimum(busy * tokens / room, FULL)
    steps = idle * tokens / room / (1 - load + idle * tokens / room)  # share of the steps in which prompts wait
    time = steps * full / (steps * full + (1 - steps) * empty)
    found = backlog(busy, loop.tokens, room, load, loop.steps / loop.alike)
    taken = (found.spread + (load * room) ** 2) * steps / load - (steps * room) ** 2
    return replace(found.oftener(((1 - part) * steps + part * time) / load), spread=taken)


def _settled(loop: ClosedLoop, s: Closed, slope: Rows) -> Closed:
    """TTFT by what a request meets, TPOT by Little's law from the rest of E2E; or the other way round, each as far as it is the surer one."""
    tpot = s.step + s.arrivals * loop.work * np.maximum(1 - 1 / np.maximum(s.in_flight, 1.0), 0.0)
    e2e, direct = s.in_flight / s.rate, ttft_s(loop, s)
    unsure = (DIRECT * direct) ** 2
    ttft = direct + unsure / (unsure + (LITTLE * loop.steps * tpot) ** 2) * (e2e - loop.steps * tpot - direct)
    ttft = np.maximum(ttft, s.delay + 0.5 * (direct - s.delay))
    tpot = np.maximum((e2e - ttft) / loop.steps, s.step)
    sd = slope * np.sqrt(np.minimum(s.rate * ttft, s.decoding)) / np.sqrt(1 + loop.steps * tpot / ttft)
    return replace(s, tpot=tpot, longer=(ttft - s.delay) / (direct - s.delay), tpot_load=sd)


def ttft_s(loop: ClosedLoop, s: Closed) -> Rows:
    """Mean seconds to the first token."""
    found: Rows = s.longer * ((_bare(loop, s, loop.mix.inputs) @ loop.mix.inputs.weight)[:, None] + s.others.seconds) + s.delay
    return found


def _bare(loop: ClosedLoop, s: Closed, inputs: Cells) -> Rows:
    """Seconds [P, Q] to the first token of prompts that meet no other."""
    prompts = loop.alone + loop.per_token * inputs.mean
    if loop.curves.whole_prompt_s is not None:
        return prompts
    found: Rows = s.step * (s.begins + _passes(loop, s.room, inputs)) + prompts
    return found


def _passes(loop: ClosedLoop, room: Rows, inputs: Cells) -> Rows:
    """Steps [P, Q] that prompts take part in: at least one, and half of the last in the mean of long ones."""
    full = loop.mix.computed * inputs.mean / room
    found: Rows = np.maximum(full + np.clip(full - 0.5, 0.0, 1.0) / 2, 1.0)
    return found


def _met(loop: ClosedLoop, a: Rows, step: Rows, room: Rows, begins: Rows, left: Backlog) -> Others:
    """What a request meets with chunks: what steps left over, what came in those that it waits for, before it with the same step, and behind it in its last."""
    i1, i2, i3, _ = loop.tokens
    later, c = left.mean / room, loop.per_token / loop.mix.computed
    end = _behind(a * (0.5 + later + i1 / room), i1, room)
    none = (1 - left.any) * np.exp(-a * (begins + 0.5))
    more = a * np.maximum(begins - 1, 0.0)  # of further steps waited for
    with_it = 0.5 * a + more
    behind = 0.5 * a * np.maximum(1 - i1 / room, 0.0)  # of prompts that fit into its step as well: their mean is in ``_within``, their noise here
    before = np.maximum(room - left.spare, 0.0)
    some = np.maximum(1 - none / (1 - left.any), 1e-6)
    fresh = _given(some, Tokens(before + with_it * i1, left.spare_var + (with_it + behind) * i2, (with_it + behind) * i3 - left.spare_third))
    over = _given(np.maximum(left.any, 1e-9), Tokens(left.mean, left.var, left.third))
    over = Tokens(over.mean + with_it * i1, over.var + (with_it + behind) * i2, over.third + (with_it + behind) * i3)
    few = a * (begins + 0.5)
    seconds = c * (left.mean + few * i1 + end) + step * later
    return Others(none, left.any, fresh, before, over, seconds, c * c * (left.var + few * i2 + end * np.minimum(i2 / i1, room / 1.5)))


def _given(share: Rows, of: Tokens) -> Tokens:
    """The moments of tokens that only a share of the requests meets, for these."""
    first, second = of.mean / share, (of.var + of.mean**2) / share
    third = (of.third + 3 * of.mean * of.var + of.mean**3) / share
    return Tokens(first, np.maximum(second - first**2, 1e-3 * first**2), np.maximum(third - 3 * first * second + 2 * first**3, 0.0))


def _alone(loop: ClosedLoop, a: Rows, step: Rows, whole: Rows, in_flight: Rows) -> Others:
    """What a request meets where each prompt runs alone between two decode steps: the rest of E2E by Little's law."""
    tpot = step + a * loop.work * np.maximum(1 - 1 / np.maximum(in_flight, 1.0), 0.0)
    seconds = np.maximum(in_flight * whole / a - loop.steps * tpot - loop.work, 1e-6)
    none = np.zeros_like(seconds)
    nothing = Tokens(none, none, none)
    return Others(none, none, nothing, none, nothing, seconds, 2 * a * loop.work_m2 + 1e-12)


def _steps_until(overhead: Rows, step: Rows, whole: Rows, a: Rows, prompts: Rows) -> Rows:
    """Mean number of steps until one begins that knows of a request asked for as a step ends, the overhead included.

    The step under way must end after the overhead. Steps without prompts, exp(-a) of all, are the short ones: of k in a row, k D(B) < h is too soon.
    Half a step stands for where between two steps the overhead ends.
    """
    free = np.minimum(np.exp(-a), 1 - 1e-9)
    short = np.maximum(overhead / step - 0.5, 0.0)
    several = np.clip(overhead / step - 1, 0.0, 1.0)  # after these the step under way is any that lasts at that time: long ones more often
    residual = 0.5 + 0.5 * several * a * prompts / whole**2
    found: Rows = np.maximum(1 + free * (1 - free**short) / (1 - free), overhead / whole + residual)
    return found


def at_in_flight(loop: ClosedLoop, in_flight: Rows) -> Closed:
    """The loop with so many requests in flight on each replica [P, 1]; where they are more than find a sequence, the others wait for one.

    Below one request in flight a replica is idle for the rest of the time: its service is that of one.
    """
    wanted = np.log(np.maximum(in_flight, 1.0))

    def beyond(decoding: Rows) -> Rows:
        more: Rows = np.log(closed(loop, np.exp(decoding)).in_flight) - wanted
        return more

    low, high = np.full_like(loop.slots, np.log(FEWEST)), np.log(loop.slots)
    below, above = beyond(low), beyond(high)
    fitted = above <= 0  # more than find a sequence
    low, below, above = np.where(fitted, high, low), np.where(fitted, 0.0, below), np.where(fitted, 1.0, above)
    for turn in range(FINE):  # false position (Illinois), and halves where that is slow
        if np.all((high - low < CLOSE) | (below > -CLOSE)):
            break
        guess = (low + high) / 2 if turn % 4 == 3 else low + (high - low) * below / (below - above)
        now = beyond(guess)
        fits = now <= CLOSE
        again, fitted = (fits == fitted) & (turn > 0), fits
        weight = np.where(again, 0.5, 1.0)
        low, below, above = np.where(fits, guess, low), np.where(fits, now, below * weight), np.where(fits, above * weight, now)
        high = np.where(fits, high, guess)
    found = closed(loop, np.exp(low))
    others = np.maximum(in_flight - np.maximum(found.in_flight, 1.0), 0.0)
    others = np.where(others > 1e-6 * in_flight, others, 0.0)
    return replace(found, delay=found.delay + others / found.rate, waits=np.where(others > 0, 1.0, 0.0))


def tail(metric: str, loop: ClosedLoop, s: Closed, limit: Rows | float, share: float = 1.0) -> Rows:
    """Probability that a request (ITL: a step) exceeds the limit, over the mix: [P, 1]. ``share``: part of the output E2E counts to.

    Limits of [S, P, 1] give probabilities of [S, P, 1].
    """
    if metric == "ttft":
        return _tail_ttft(loop, s, limit)
    if metric == "itl":
        return _tail_step(loop, s, limit)
    if metric == "full":  # where there are more requests than sequences, each waits for one
        return s.waits
    inputs, outputs = (loop.mix.inputs, loop.mix.outputs) if metric == "tpot" else loop.mix.pairs
    many = np.maximum(outputs.mean - 1, 0.0)[None, :]
    spread = np.sqrt(_prompt_var(loop, s, np.maximum(many, 1.0))) + s.tpot_load + 1e-12
    skew = (1 - s.load) ** 2 * loop.work_m3 / loop.work_m2**1.5 / np.sqrt(np.maximum(s.arrivals * np.maximum(many, 1.0), 1e-9))
    if metric == "tpot":
        some = np.where(outputs.mean > 1.5, outputs.weight, 0.0)
        slow: Rows = (skewed_tail((limit - s.tpot) / spread, skew) @ (some / max(some.sum(), 1e-12)))[..., None]
        if loop.curves.whole_prompt_s is not None:
            return slow
        longest = s.step + loop.per_token / loop.mix.computed * s.room + 3 * s.tpot_load
        return np.where(limit >= longest, 0.0, slow)
    out = np.maximum(share * outputs.mean - 1, 0.0)[None, :]
    noise = s.others.var + s.delay / s.rate + loop.per_token**2 * inputs.var + (share * s.tpot) ** 2 * outputs.var
    sd, first = np.sqrt(noise + (spread * out) ** 2), s.longer * (_bare(loop, s, inputs) + s.others.seconds) + s.delay
    late: Rows = (skewed_tail((limit - first - out * s.tpot) / sd, skew * (spread * out / sd) ** 3) @ inputs.weight)[..., None]
    return late


def _prompt_var(loop: ClosedLoop, s: Closed, steps: Rows) -> Rows:
    """Variance [P, Q] of the mean seconds of prompts in a step, over so many steps.

    One step is at most full; over many steps what came in is what was computed, so that prompts in one step go with those of about as many next ones.
    Answers all alike end in the order they began: over the time of one, each of the others brings one prompt.
    """
    y = steps / s.together
    settled = (1 + y / 6) / (1 + y * (0.5 + y / 12))  # 2 (y - 1 + exp(-y)) / y^2
    found: Rows = s.filled * settled * (1 - (loop.alike - 1) * BRIDGE * loop.work**2 / loop.work_m2 * np.minimum(steps / loop.steps, 1.0))
    return found


def _tail_ttft(loop: ClosedLoop, s: Closed, limit: Rows | float) -> Rows:
    """By whether others' prompts are met, and what steps leave over. Requests before it that wait (``delay``) begin at exponential times."""
    inputs, o, computed = loop.mix.inputs, s.others, loop.mix.computed
    left = (limit / TTFT_MARGIN - s.delay) / s.longer
    if loop.curves.whole_prompt_s is not None:
        return (gamma_tail(left - _bare(loop, s, inputs), o.seconds, o.var + s.delay / s.rate + loop.per_token**2 * inputs.var) @ inputs.weight)[..., None]
    c = loop.per_token / computed
    left = left - s.step * s.begins
    var, third = computed**2 * inputs.var + (s.delay / s.rate) / c**2 + 1e-6, computed**3 * inputs.skew
    own = computed * inputs.mean
    room = _within(loop, s, left)
    found = o.none * np.where(room < 0, 1.0, normal_tail((np.maximum(room, 0.0) - own) / np.sqrt(var)))
    for weight, before, tokens in ((1 - o.none - o.left, o.before, o.fresh), (o.left, 0.0, o.over)):
        room = _within(loop, s, left - c * np.where(before > 0, before, s.room if tokens is o.over else 0.0)) + before
        late = moment_tail(np.maximum(room, 0.0) - tokens.mean - own, var + tokens.var, third + tokens.third)
        found = found + weight * np.where(room < 0, 1.0, late)
    return (found @ inputs.weight)[..., None]


def _within(loop: ClosedLoop, s: Closed, seconds: Rows) -> Rows:
    """The most tokens [P, 1] with which a prompt that ends with them is done within so many seconds, whole steps and what comes behind it in the last."""
    c = loop.per_token / loop.mix.computed
    full = s.step + c * s.room
    steps = np.floor(seconds / full)
    behind = _behind(s.arrivals * (0.5 + np.maximum(steps, 0.0)), loop.tokens[0], s.room)
    found: Rows = np.where(seconds < 0, -np.inf, s.room * steps + np.clip((seconds - steps * full - s.step) / c - behind, 0.0, s.room))
    return found


def _behind(many: Rows, tokens: float, room: Rows) -> Rows:
    """Mean tokens [P, 1] that come behind a prompt in its last step, where so many prompts wait behind it: a long one fills what is left of the step."""
    space = np.maximum(room - tokens, 0.5 * room)
    fill = np.maximum(space / tokens, 1.0)
    sharp = np.minimum(1.5 * np.sqrt(fill), 8.0)  # E[min(K, fill)] of a Poisson K of this mean, within 2 %
    found: Rows = space / fill * (many**-sharp + fill**-sharp) ** (-1 / sharp)
    return found


def _tail_step(loop: ClosedLoop, s: Closed, limit: Rows | float) -> Rows:
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


def service_at(made: ClosedLoop, s: Closed, in_flight: Floats, reasoning: float = 0.0) -> Service:
    """Service of requests of a loop's mix at a state of the loop; ``in_flight`` [P] of theirs. reasoning as in ``service``."""
    mix, e2e = made.mix, mean_e2e_s(made, s)[:, None]
    means = {"ttft": ttft_s(made, s) + s.tpot * reasoning * mix.mean_output, "tpot": s.tpot, "itl": s.tpot, "e2e": e2e}
    longest = float(max(mix.output_tokens.max() / mix.mean_output, mix.input_tokens.max() / mix.mean_input))
    found = {}
    for metric, mean in means.items():
        of, part = ("e2e", reasoning) if metric == "ttft" and reasoning else (metric, 1.0)
        upper = 50 * (mean + (e2e if metric == "itl" else 0.0)) * longest
        found[metric] = {"mean": mean[:, 0], **dict(zip(SHARES, _quantiles(of, made, s, tuple(SHARES.values()), upper, part)[..., 0], strict=True))}
    bare = (_bare(made, s, mix.inputs) @ mix.inputs.weight)[:, None]
    parts = loop_parts(made, s, bare, s.tpot * reasoning * mix.mean_output)
    return Service(found["ttft"], found["tpot"], found["e2e"], in_flight, found["itl"], s.waits[:, 0], parts, np.ones(len(in_flight), dtype=bool))


def seen_by(made: ClosedLoop, s: Closed, curves: StepCurves, mix: LengthMix) -> tuple[ClosedLoop, Closed]:
    """A loop of several workloads as the requests of one see it: with their own lengths and cost of prompts."""
    alone = np.zeros((1, 1)) if curves.whole_prompt_s is None else curves.whole_prompt_s[:, None]
    mine = replace(made, mix=mix, per_token=curves.prefill_s_per_token[:, None], alone=alone)
    return mine, s


def mean_e2e_s(made: ClosedLoop, s: Closed) -> Floats:
    """Mean E2E of a loop's requests [P]."""
    found: Floats = (ttft_s(made, s) + max(made.mix.mean_output - 1, 0.0) * s.tpot)[:, 0]
    return found


def _quantiles(metric: str, made: ClosedLoop, s: Closed, shares: Sequence[float], upper: Rows, part: float) -> Rows:
    """The values that shares of the requests stay within, by bisection below ``upper`` [P, 1]: [S, P, 1], of all shares at once."""
    allowed = (1 - np.array(shares))[:, None, None]
    low, high = (np.repeat(x[None], len(shares), axis=0) for x in (np.zeros_like(upper), upper))
    for _ in range(SHARP):
        middle = (low + high) / 2
        over = tail(metric, made, s, middle, part) > allowed
        low, high = np.where(over, middle, low), np.where(over, high, middle)
    return high
