"""Capacity: the largest Poisson rate of a workload that one replica sustains while every limit holds at its percentile.

Bisection on the load of the queue in ``queue``; also what several replicas gain, and the service at a given load.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from planner.performance.chain import Chain, Interpolation, Rows, chain
from planner.performance.first_token import queue_parts
from planner.performance.halving import edges, halved, levels
from planner.performance.lengths import LengthMix
from planner.performance.queue import QueueState, full_share, number, state, taken, waiting
from planner.performance.replicas import Floats, Ints
from planner.performance.step import StepCurves
from planner.performance.tails import answer_steps, itl_tail, mean_decoding, mean_tpot, moment_tail, quantiles, tail

STEPS = 12  # the load is found to 1/4096, rounded down
COARSE, FAR = 3, 4.0  # halvings before lines are drawn; logs that they are drawn between at most
BLOCK = 1024  # rows worked on at a time: enough to hide Python's own time, few enough for the cache
OWN_PROMPT = 2.0  # the TTFT formula holds where the limit is this many times the prompt's own prefill; below it capacity fades to 0
FEW, SHORT = 4.0, 64.0  # in service; tokens of an answer: up to so many a request may meet no prompt of others
SLACK = 1.1  # on limits: latencies between the sequences of the coarse grid, and of hardly any load, are a little below those on it
HIGH, MEDIAN_OF_MEAN = 90.0, 0.5  # from this percentile on TPOT is above its mean; the least share of the mean prompt work at lower ones
POOLED = 0.7  # of the noise of prompts: the part that sharing requests out among replicas leaves
POOL, ROOT, NEWTON = 8, 6, 4  # replicas of a pool: more gain no more; root of the load that its idle share falls with; steps that find the load
SERVED = 1 - 1e-8  # of the most requests/s: loads from here on are those that were cut down to it
SHARES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True)
class Limit:
    """One limit of an SLO; ``percentile`` 50 to 99.9 of all requests stay within it.

    ``share`` < 1 limits E2E to a part of the output: the first token of an answer comes after the reasoning part.
    ``full`` at p95, whatever its seconds: 5 % of the requests may find the replica full (``queue.full_share``).
    """

    metric: Literal["ttft", "tpot", "itl", "e2e", "full"]
    limit_s: float
    percentile: float
    share: float = 1.0  # e2e only: counts to the moment this share of the output is written

    def __post_init__(self) -> None:
        known, least = ("ttft", "tpot", "itl", "e2e", "full"), 0 if self.metric == "full" else 50
        if self.metric not in known or not self.limit_s > 0 or not least <= self.percentile <= 99.9:
            raise ValueError(f"not a limit: {self}")


@dataclass(frozen=True)
class Capacity:
    """Per replica [P]: rates in requests/s (0 = cannot serve), mean E2E and requests in flight at ``qps``."""

    qps: Floats
    qps_saturated: Floats
    e2e_s: Floats
    in_flight: Floats


@dataclass(frozen=True)
class Service:
    """Predicted service [P]: each of ttft_s, tpot_s, e2e_s, itl_s has mean, p50, p90, p95 and p99; ITL over all tokens, others over requests."""

    ttft_s: dict[str, Floats]
    tpot_s: dict[str, Floats]
    e2e_s: dict[str, Floats]
    in_flight: Floats  # mean per replica
    itl_s: dict[str, Floats] = field(default_factory=dict)  # empty: not predicted
    waiting_share: Floats = field(default_factory=lambda: np.zeros(0))  # of the requests: they find the replica full
    ttft_parts_s: dict[str, Floats] = field(default_factory=dict)  # ``first_token.PARTS`` of the mean TTFT
    settles: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=bool))  # [P]: no more is asked of a replica than it serves

    def row(self, i: int) -> Service:
        """The i-th replica's alone."""
        one = slice(i, i + 1)

        def cut(values: dict[str, Floats]) -> dict[str, Floats]:
            return {name: x[one] for name, x in values.items()}

        ttft, tpot, e2e, itl, parts = (cut(x) for x in (self.ttft_s, self.tpot_s, self.e2e_s, self.itl_s, self.ttft_parts_s))
        return Service(ttft, tpot, e2e, self.in_flight[one], itl, self.waiting_share[one], parts, self.settles[one])


def capacity(curves: StepCurves, mix: LengthMix, limits: Sequence[Limit], max_num_seqs: Ints, lifted: Ints | None = None) -> Capacity:
    """Capacity of every row. Without limits it is the saturation rate less one bisection step.

    lifted: the one limit that does not count on each row, [P] by its index; -1: all of them count.
    """
    lifted = np.full(len(curves), -1) if lifted is None else lifted
    parts = [_capacity(curves.take(rows), mix, limits, max_num_seqs[rows], lifted[rows]) for rows in _blocks(len(curves))]
    return Capacity(*(np.concatenate([part[i] for part in parts]) if parts else np.zeros(0) for i in range(4)))


def _blocks(count: int) -> list[slice]:
    return [slice(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK)]


def _capacity(curves: StepCurves, mix: LengthMix, limits: Sequence[Limit], max_num_seqs: Ints, lifted: Ints) -> tuple[Floats, ...]:
    queue, counts = chain(curves, mix, max_num_seqs), [(lifted != i)[:, None] for i in range(len(limits))]
    low = _largest_load(queue, limits, counts)
    faded = _fade(queue, limits, counts)
    serves = (max_num_seqs >= 1)[:, None] & (low > 0) & (faded > 0)
    load = np.where(serves, low * faded, 0.0)
    qps = (load * queue.rate)[:, 0]
    saturated = np.where(serves, np.maximum(_saturated(queue, limits, counts) * faded, load * queue.rate), 0.0)[:, 0]
    in_flight = np.where(serves, number(queue, np.maximum(load, 1e-9)), 0.0)[:, 0]
    return qps, saturated, np.divide(in_flight, qps, out=np.zeros_like(qps), where=qps > 0), in_flight


def _largest_load(queue: Chain, limits: Sequence[Limit], counts: Sequence[NDArray[np.bool_]]) -> Rows:
    """The largest load, in steps of 2^-STEPS, at which all limits that count on a row hold and half a bracket above does not, [P, 1].

    As bisection would find it, but guesses come from the straight line between log tails once the bracket is small.
    """
    rows, whole = len(queue.rate), 1 << STEPS
    left, found = np.arange(rows), np.zeros(rows)
    low, high = np.zeros(rows), np.full(rows, float(whole))
    below, above = np.full(rows, -FAR), np.full(rows, FAR)  # log of the tail over what is allowed, at both ends
    for turn in range(2 * STEPS):
        if levels(len(left)) > 1:  # few are left: they are bisected, some levels at a time
            found[left] = _bisected(queue, limits, counts, low, high)
            break
        if turn < COARSE or turn % 3 == 2:
            guess = np.floor((low + high) / 2)
        else:
            guess = np.clip(np.floor(low + (high - low) * below / (below - above)) + turn % 2, low + 1, high - 1)
        excess = _excess(queue, limits, counts, guess[:, None] / whole)
        held = excess <= 0
        low, below = np.where(held, guess, low), np.where(held, np.maximum(excess, -FAR), below)
        high, above = np.where(held, high, guess), np.where(held, above, np.clip(excess, 1e-9, FAR))
        done = high - low <= 1
        if not done.any():
            continue
        found[left[done]] = low[done]
        if done.all():
            break
        keep = np.flatnonzero(~done)
        queue, counts = taken(queue, len(left), keep), [c[keep] for c in counts]
        left, low, high, below, above = left[keep], low[keep], high[keep], below[keep], above[keep]
    return found[:, None] / whole


def _bisected(queue: Chain, limits: Sequence[Limit], counts: Sequence[NDArray[np.bool_]], low: Floats, high: Floats) -> Floats:
    """The lower end [P], in steps of 2^-STEPS, of what bisection leaves of brackets."""
    deep = levels(len(low))
    inner = (1 << deep) - 1
    index = np.repeat(np.arange(len(low)), inner)
    queue, counts = taken(queue, len(low), index), [c[index] for c in counts]
    while (high - low > 1).any():
        at = edges(low, high, deep, np.floor)
        guess = np.maximum(at[:, 1:-1], 1)
        held = _excess(queue, limits, counts, guess.reshape(-1, 1) / (1 << STEPS)).reshape(guess.shape) <= 0
        low, high = halved(at, np.where(at[:, 1:-1] > low[:, None], held, True))
        high = np.maximum(high, low + 1)  # brackets of one step are halved into nothing
    return low


def _excess(queue: Chain, limits: Sequence[Limit], counts: Sequence[NDArray[np.bool_]], load: Rows) -> Floats:
    """log of the largest share beyond a limit over the share allowed, [P]; at most 0 where all limits that count hold."""
    now, worst = state(queue, load), np.full(load.shape, 1e-9)
    for limit, here in zip(limits, counts, strict=True):
        if here.any():
            beyond = tail(limit.metric, queue, now, limit.limit_s, limit.share) / (1 - limit.percentile / 100)
            worst = np.where(here, np.maximum(worst, beyond), worst)
    found: Floats = np.log(worst)[:, 0]
    return found


def _fade(queue: Chain, limits: Sequence[Limit], counts: Sequence[NDArray[np.bool_]]) -> Rows:
    """1 where every TTFT limit leaves a prompt its own prefill twice over, falling to 0 where it leaves it once."""
    factor = np.ones_like(queue.rate)
    for limit, here in zip(limits, counts, strict=True):
        if limit.metric == "ttft":
            own = np.quantile(queue.prompts, limit.percentile / 100, axis=1)[:, None]
            left = np.clip((limit.limit_s / np.maximum(own, 1e-12) - 1) / (OWN_PROMPT - 1), 0.0, 1.0)
            factor = np.where(here, np.minimum(factor, left), factor)
    return factor


def _saturated(queue: Chain, limits: Sequence[Limit], counts: Sequence[NDArray[np.bool_]]) -> Rows:
    """The rate per replica of a very large fleet under least-loaded routing: X(n) at the most sequences the TPOT, E2E and ITL limits allow."""
    n, tpot = queue.n, queue.tpot
    allowed = n <= queue.slots
    for limit, here in zip(limits, counts, strict=True):
        if limit.metric == "tpot":
            allowed = allowed & (~here | (tpot <= limit.limit_s))
        if limit.metric == "e2e":
            length = limit.share * float(np.quantile(queue.mix.output_tokens, limit.percentile / 100))
            allowed = allowed & (~here | (tpot * length <= limit.limit_s))
    most = n[0][np.maximum(allowed.sum(axis=1) - 1, 0)][:, None]
    for limit, here in zip(limits, counts, strict=True):
        if limit.metric in ("tpot", "itl"):
            most = np.where(here, _sequences_within(queue, limit, most), most)
    return Interpolation(n[0], most)(queue.rates)


def _sequences_within(queue: Chain, limit: Limit, most: Rows) -> Rows:
    """The most sequences, at most ``most``, with which an ITL or TPOT limit holds when their number does not vary."""
    beyond, allowed = _itl_beyond if limit.metric == "itl" else _tpot_beyond, 1 - limit.percentile / 100
    low, high = np.where(beyond(queue, limit, most) <= allowed, most, 1.0), most
    for _ in range(STEPS):
        middle = (low + high) / 2
        held = beyond(queue, limit, middle) <= allowed
        low, high = np.where(held, middle, low), np.where(held, high, middle)
    return low


def _itl_beyond(queue: Chain, limit: Limit, n: Rows) -> Rows:
    """Share [P, 1] of tokens beyond a limit with n sequences in flight."""
    rate = np.minimum(Interpolation(queue.n[0], n)(queue.rates), queue.rate)
    return itl_tail(queue, rate, n, np.zeros_like(n), limit.limit_s)


def _tpot_beyond(queue: Chain, limit: Limit, n: Rows) -> Rows:
    """Share [P, 1] of requests beyond a limit with n sequences in flight, since prompts scatter TPOT however well a router shares out.

    Of the n - 1 others' prompts an answer of L steps meets (n - 1) L / o: a compound Poisson sum, of whose noise POOLED is left.
    """
    steps, weight = answer_steps(queue)
    met, left = np.maximum(n - 1, 1e-9) / queue.mix.mean_output, limit.limit_s - Interpolation(queue.n[0], n)(queue.tpot)
    found: Rows = (moment_tail(left, POOLED**2 * met * queue.work_m2 / steps, POOLED**3 * met * queue.work_m3 / steps**2) @ weight)[:, None]
    return found


def saturation_bound(curves: StepCurves, mix: LengthMix, limits: Sequence[Limit], max_num_seqs: Ints) -> tuple[Floats, Floats]:
    """Requests/s that no capacity of these rows exceeds, from curves on any (coarse) grid, and the most sequences that
    the limits allow on it (0 = not even one).

    X(n) at the first grid point at or above both the slots and the most sequences within the limits.
    """
    n, work = curves.n[None, :], curves.prompt_s(mix.mean_input)
    # While a request is served, each of n in service brings a prompt, and its own answer takes o - 1 steps.
    cycle = curves.overhead_s[:, None] + work * n + curves.step_s * max(mix.mean_output - 1, 0.0)
    rate = np.maximum.accumulate(n / cycle, axis=1)
    within = np.ones(rate.shape, dtype=bool)
    for limit in limits:
        within &= _may_hold(curves, mix, limit, curves.step_s + work / mix.mean_output * n * _surely_seen(n, mix.mean_output, limit))
    allowed = np.where(within.any(axis=1), curves.n[np.maximum(within.sum(axis=1) - 1, 0)], 0.0)
    last = np.minimum((within & (n < max_num_seqs[:, None])).sum(axis=1), len(curves.n) - 1)
    return np.where((max_num_seqs > 0) & (allowed > 0), rate[np.arange(len(rate)), last], 0.0), allowed


def _surely_seen(n: Floats, mean_output: float, limit: Limit) -> Floats:
    """Share of the mean prompt work of others that a request at the limit's percentile meets at least: none where answers are so short, or so
    few are in service, that it may meet no prompt at all. Measured against capacities in tests."""
    least = 0.0 if mean_output < SHORT else 1.0 if limit.percentile >= HIGH else MEDIAN_OF_MEAN
    found: Floats = np.where(n > FEW, least, 0.0)
    return found


def _may_hold(curves: StepCurves, mix: LengthMix, limit: Limit, tpot: Floats) -> NDArray[np.bool_]:
    """Where a limit is not already broken by the work itself, without any waiting or noise, [P, G]."""
    if limit.metric == "full":
        return np.ones(tpot.shape, dtype=bool)
    if limit.metric == "tpot":
        return tpot <= limit.limit_s * SLACK
    if limit.metric == "itl":
        return curves.step_s <= limit.limit_s * SLACK
    begun = curves.step_s if curves.whole_prompt_s is None else np.zeros_like(tpot)
    first = curves.overhead_s[:, None] + curves.prompt_s(mix.input_tokens)
    broken = np.zeros(tpot.shape)
    for j in range(len(mix.input_tokens)):
        work = np.zeros_like(tpot) if limit.metric == "ttft" else tpot * max(limit.share * mix.output_tokens[j] - 1, 0.0)
        broken += first[:, j : j + 1] + begun + work > limit.limit_s * SLACK
    # Noise puts half of the requests above their mean: a broken length fails at least every second time.
    return broken / len(mix.input_tokens) * 0.5 <= 1 - limit.percentile / 100


def pooled_qps(capacity_qps: Floats, qps_saturated: Floats, replicas_count: NDArray[np.int64] | int) -> Floats:
    """Capacity per replica of a pool behind a least-loaded router: rises from one replica's towards the saturated rate.

    Square-root staffing: the idle share 1 - a of a pool falls with the root of its replicas, R. Less while little is used, as replicas of few slots
    idle by whole requests: 1 - a = (1 - a1) (a/a1)^(1/ROOT)/sqrt(R), found in simulations (benchmarks/pools.py). With g = (a/a1)^(1/ROOT) that is
    a1 g^ROOT + (1 - a1) g/sqrt(R) = 1: convex, so Newton's steps fall to its solution from where the idle share falls with sqrt(R) alone.
    """
    used = np.clip(capacity_qps / np.maximum(qps_saturated, 1e-300), 1e-9, 1.0)
    root = np.sqrt(np.clip(replicas_count, 1, POOL))
    idle = (1 - used) / root
    gain = (1 + (1 - used) * (1 - 1 / root) / used) ** (1 / ROOT)
    for _ in range(NEWTON):
        power = gain ** (ROOT - 1)
        gain = gain - ((used * power + idle) * gain - 1) / (ROOT * used * power + idle)
    found: Floats = capacity_qps * gain**ROOT
    return found


def service(curves: StepCurves, mix: LengthMix, qps_per_replica: Floats, max_num_seqs: Ints, pooling: Floats | float = 1.0, reasoning: float = 0.0) -> Service:
    """Service at a load per replica.

    reasoning: share of the output written before the answer begins; TTFT then counts to the first token of the answer.

    ``pooling`` is capacity of one replica over pooled capacity per replica (at most 1): a pool at load q serves as one
    replica does at q x pooling, so that limits which hold for the capacity hold for the service too.
    """
    queue = chain(curves, mix, max_num_seqs)
    load = np.clip((qps_per_replica * np.broadcast_to(pooling, qps_per_replica.shape))[:, None] / queue.rate, 1e-9, 1 - 1e-9)
    return service_at(queue, state(queue, load), waiting(queue, load), mix, qps_per_replica, reasoning)


def service_at(queue: Chain, now: QueueState, waits: Rows, mix: LengthMix, qps: Floats, reasoning: float = 0.0) -> Service:
    """Service of requests of a mix at a state of the queue with so many waiting for a slot [P, 1]; ``qps`` [P] of theirs. reasoning as in ``service``."""
    ttft, answers, steps = mean_seconds(queue, now, waits)
    e2e = ttft + answers
    thinks = now.tpot * reasoning * mix.mean_output
    ttft = ttft + thinks
    stretch = max(float(mix.output_tokens.max()) / mix.mean_output, float(mix.input_tokens.max()) / mix.mean_input)
    longest = 50 * (e2e + 1.0 / np.maximum(now.drain, 1e-6)) * stretch
    means = {"ttft": ttft, "tpot": mean_tpot(queue, now), "itl": answers / steps, "e2e": e2e}
    found = {}
    for metric, mean in means.items():
        of = "e2e" if metric == "ttft" and reasoning else metric
        tails = quantiles(of, queue, now, list(SHARES.values()), 50 * mean if metric == "tpot" else longest, reasoning if of != metric else 1.0)
        found[metric] = {"mean": mean[:, 0], **{name: tails[share] for name, share in SHARES.items()}}
    parts = queue_parts(queue, now, waits / now.rate, thinks)
    load = now.rate / queue.rate
    return Service(found["ttft"], found["tpot"], found["e2e"], qps * e2e[:, 0], found["itl"], full_share(queue, load)[:, 0], parts, load[:, 0] < SERVED)


def mean_seconds(queue: Chain, now: QueueState, waits: Rows) -> tuple[Rows, Rows, float]:
    """Mean seconds to the first token and after it, [P, 1], and the steps of a mean answer."""
    ttft = queue.overhead + (now.own @ queue.inputs.weight)[:, None] + now.wait.mean + waits / now.rate
    answers, steps = mean_decoding(queue, now)
    return ttft, answers, steps
