"""One replica as a queue: Poisson arrivals, service rate X(n) from the step curve, percentiles of TTFT, TPOT, ITL and E2E.

A birth-death chain gives the number in flight; gated prefill steps give the noise around it; lengths are mixed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from planner.performance.lengths import LengthMix
from planner.performance.replicas import Floats, Ints
from planner.performance.step import StepCurves

Rows = NDArray[np.float64]
Part = TypeVar("Part", "Chain", "State")
CHUNK_WAIT = 1.15
QUANTILE_STEPS = 30  # bisection to 1e-9 of the bracket
PROMPT_FREE = 4  # terms of the series of steps without prompts; the rest is bounded
SPREAD = ((-1.7320508, 1 / 6), (0.0, 2 / 3), (1.7320508, 1 / 6))  # three points that stand for a normal variable (Gauss and Hermite)
FULL = 0.99  # of its most requests/s: a replica this near them serves no faster, however many more it is given
PROMPT_LOAD = 0.97  # prompts never take more than this share of the time in the formulas below (they have a pole at 1)


@dataclass(frozen=True)
class Chain:
    """What does not depend on the arrival rate. Columns are [P, 1], curves [P, G]."""

    mix: LengthMix
    n: Floats  # [1, G]
    batched_tokens: int
    is_chunked: bool
    tpot: Rows  # [P, G] with n sequences in flight, the share of other requests' prompts included
    step: Rows  # [P, G]
    step_slope: Rows  # [P, G], its derivative at the grid points: interpolated, so that noise grows without jumps
    rates: Rows  # [P, G]: X(n), requests/s
    log_weight: Rows  # [P, G]: log of prod X(B)/X(k)
    weight: Rows  # [P, G]: integers up to B that each grid point stands for
    powers: Floats  # [G, 3]: 1, n, n^2
    slots: Rows  # B
    rate: Rows  # X(B), requests/s
    log_last: Rows  # log_weight at B
    tpot_full: Rows  # tpot at B
    per_token: Rows  # c
    prompts: Rows  # [P, J]: seconds of engine time that each prompt of the mix takes
    work: Rows  # E[prompt]
    work_m2: Rows  # E[prompt^2]
    work_m3: Rows  # E[prompt^3]
    overhead: Rows  # h


@dataclass(frozen=True)
class State:
    """The replica at one arrival rate: moments and noise that the percentiles are made of, all [P, 1]."""

    rate: Rows
    in_flight: Rows  # mean, waiting ones included
    spread: Rows  # sd of the number in flight
    tpot: Rows
    tpot_load: Rows  # sd of TPOT through the number in flight, at one moment
    settled: Rows  # life of an answer of mean length over the time in which that number forgets itself
    tpot_prompts: Rows  # sd of TPOT through prompts, for an answer of mean length
    step: Rows
    own: Rows  # [P, J]: a prompt's own steps, once begun
    wait_mean: Rows  # of the prompt until its step begins
    wait_var: Rows
    full: Rows  # probability that all slots are taken
    drain: Rows  # 1/s: rate at which a full replica drains


def chain(curves: StepCurves, mix: LengthMix, max_num_seqs: Ints) -> Chain:
    """The chain of every row. Rows with max_num_seqs < 1 get one slot; callers drop them."""
    n = curves.n[None, :]
    slots = np.clip(max_num_seqs, 1, curves.n[-1]).astype(float)[:, None]
    c, h = curves.prefill_s_per_token[:, None], curves.overhead_s[:, None]
    prompts = curves.prompt_s(mix.input_tokens)
    work, m2, m3 = ((prompts**k).mean(axis=1, keepdims=True) for k in (1, 2, 3))
    tpot = curves.step_s + work / mix.mean_output * n
    # Half a step waits on average before the prompt's own step begins.
    rate = n / (h + work + tpot * (mix.mean_output + 0.5))
    is_chunked = curves.whole_prompt_s is None
    if is_chunked:  # steps have no room for more prompt tokens than this, however many requests there are
        rate = np.minimum(rate, 1 / (work + mix.mean_input * mix.computed * curves.step_s / _room(curves.batched_tokens, np.minimum(n, slots))))
    rate = np.maximum.accumulate(rate, axis=1)
    at = Interpolation(curves.n, slots)
    full = at(rate)
    log_ratio = np.log(full / rate)
    width = np.diff(curves.n)
    # The sum over all integers up to n is the integral plus half of both ends (Euler and Maclaurin).
    log_weight = 0.5 * (log_ratio + log_ratio[:, :1])
    log_weight[:, 1:] += np.cumsum(0.5 * (log_ratio[:, 1:] + log_ratio[:, :-1]) * width, axis=1)
    edges = np.concatenate(([0.5], (curves.n[1:] + curves.n[:-1]) / 2, [curves.n[-1] + 0.5]))
    weight = np.maximum(np.minimum(edges[1:], slots + 0.5) - edges[:-1], 0.0)
    powers = np.stack((np.ones_like(curves.n), curves.n, curves.n**2), axis=1)
    return Chain(
        mix=mix,
        n=n,
        batched_tokens=curves.batched_tokens,
        is_chunked=is_chunked,
        tpot=tpot,
        step=curves.step_s,
        step_slope=np.gradient(curves.step_s, curves.n, axis=1),
        rates=rate,
        log_weight=log_weight,
        weight=weight,
        powers=powers,
        slots=slots,
        rate=full,
        log_last=at(log_weight),
        tpot_full=at(tpot),
        per_token=c,
        prompts=prompts,
        work=work,
        work_m2=m2,
        work_m3=m3,
        overhead=h,
    )


def _room(batched_tokens: int, sequences: Rows) -> Rows:
    """Prompt tokens that a step takes beside one token of each sequence."""
    found: Rows = np.maximum(batched_tokens - sequences, 1.0)
    return found


class Interpolation:
    """Linear interpolation of curves [P, G] at one abscissa per row [P, 1]."""

    def __init__(self, grid: Floats, at: Rows) -> None:
        x = at[:, 0]
        self.low = np.clip(np.searchsorted(grid, x, side="right") - 1, 0, len(grid) - 2)
        self.share = np.clip((x - grid[self.low]) / (grid[self.low + 1] - grid[self.low]), 0.0, 1.0)
        self.rows = np.arange(len(x))

    def __call__(self, curve: Rows) -> Rows:
        low = curve[self.rows, self.low]
        found: Rows = (low + self.share * (curve[self.rows, self.low + 1] - low))[:, None]
        return found


def state(chain: Chain, load: Rows) -> State:
    """The replica at arrival rate load x X(B), 0 < load < 1, [P, 1]."""
    lam = load * chain.rate
    mean, var, full = _occupancy(chain, load)
    at = Interpolation(chain.n[0], np.clip(mean, 1.0, chain.slots))
    tpot, step = at(chain.tpot), at(chain.step)
    mix = chain.mix
    prompts = np.minimum(lam * chain.work, PROMPT_LOAD)
    # Prompts stop all decodes, so whatever lengthens an answer lets it meet more prompts: a delay busy period, hence the powers of 1 - prompts.
    # TPOT(n) has the mean of the prompts; their noise is that of the arrivals during the answer, so n adds that of the steps alone.
    others = 1 - prompts
    # Each arrival adds itself and holds up lam x prompt / others departures, all at once: the chain has the mean of that, a diffusion its variance.
    var = var * (1 + lam * lam * chain.work_m2 / (2 * others))
    # n cannot exceed B, so TPOT has no tail beyond its value there.
    sd_load = np.minimum(at(chain.step_slope) * np.sqrt(var) / others, np.maximum(chain.tpot_full - tpot, 0.0) / 2)
    busy = np.clip(mean, 1.0, chain.slots)
    settled = np.clip(1 - busy * (at(chain.step_slope) + chain.work / mix.mean_output) / tpot, 0.0, 1.0)  # life x X'(n)
    sd_prompts = np.sqrt(busy * chain.work_m2) / mix.mean_output / others
    if chain.is_chunked:
        room = _room(chain.batched_tokens, busy)
        own = step * np.maximum(mix.computed * mix.input_tokens[None, :] / room, 1.0) + chain.prompts
        wait_mean, wait_var = _prompt_wait(chain, lam, prompts, step, room)
    else:
        own = chain.prompts
        wait_mean, wait_var = _alone_wait(chain, lam, prompts, step)
    return State(lam, mean, np.sqrt(var), tpot, sd_load, settled, sd_prompts, step, own, wait_mean, wait_var, full, chain.rate - lam)


def _occupancy(chain: Chain, load: Rows) -> tuple[Rows, Rows, Rows]:
    """Mean and variance of the number in the replica (waiting ones count as B for TPOT, so as B here), probability of full slots."""
    # Double precision: the variance is a small difference, and its rounding would make tails fall where load rises.
    exponent = np.log(load) * chain.n + chain.log_weight
    top = np.maximum(exponent.max(axis=1, keepdims=True), 0.0)
    exponent -= top
    share = np.exp(exponent, out=exponent) * chain.weight
    last = np.exp(chain.slots * np.log(load) + chain.log_last - top)
    queue = last * load / (1 - load)
    moments = share @ chain.powers
    total = moments[:, :1] + np.exp(-top) + queue
    mean = (moments[:, 1:2] + queue * chain.slots) / total
    var = np.maximum((moments[:, 2:] + queue * chain.slots**2) / total - mean * mean, 0.0)
    return mean, var, (last + queue) / total


def waiting(chain: Chain, load: Rows) -> Rows:
    """Mean number waiting for a slot, [P, 1]."""
    _, _, full = _occupancy(chain, load)
    found: Rows = full * load / (1 - load)
    return found


def full_share(chain: Chain, load: Rows) -> Rows:
    """Share of requests [P, 1] that find the replica full: all slots taken, or as many in flight as bring it to FULL of its most requests/s.

    Poisson arrivals see the distribution over time (PASTA). Where prompts bind, X(n) is flat far below B, and more in flight only wait.
    """
    exponent = np.log(load) * chain.n + chain.log_weight
    top = np.maximum(exponent.max(axis=1, keepdims=True), 0.0)
    share = np.exp(exponent - top) * chain.weight
    queue = np.exp(chain.slots * np.log(load) + chain.log_last - top) * load / (1 - load)
    beyond = (share * (chain.rates >= FULL * chain.rate)).sum(axis=1, keepdims=True)
    found: Rows = (beyond + queue) / (share.sum(axis=1, keepdims=True) + np.exp(-top) + queue)
    return found


def _prompt_wait(chain: Chain, lam: Rows, prompts: Rows, step: Rows, room: Rows) -> tuple[Rows, Rows]:
    """Mean and variance of the wait until a prompt's own step begins.

    Prompts that arrive during a step are prefilled together in the next one, and the step found on arrival is length-biased.
    Where prompts fill the token budget of a step, they queue for budget instead: an M/G/1 queue of chunks, whose wait is
    then the longer of the two. Its factor is fitted to simulations of this scheduler.
    """
    second, third = chain.work_m2, chain.work_m3
    m = step / (1 - prompts)
    v = lam * m * second / (1 - prompts**2)
    k3 = (lam * m * third + 3 * prompts * lam * second * v) / (1 - prompts**3)
    x, x2 = (v + m * m) / m, (m**3 + 3 * m * v + k3) / m
    mean = x * (0.5 + prompts)
    var = (1 / 3 + prompts + prompts**2) * x2 - (0.5 + prompts) ** 2 * x * x + lam * second * x
    chunk_mean, chunk_var = _chunk_wait(chain, lam, step, room)
    return np.maximum(mean, chunk_mean), np.maximum(np.maximum(var, chunk_var), 1e-12)


def _chunk_wait(chain: Chain, lam: Rows, step: Rows, room: Rows) -> tuple[Rows, Rows]:
    """Mean and variance of the wait of an M/G/1 queue of prompts, where each token also carries its share of a step."""
    token, mix = chain.per_token + chain.mix.computed * step / room, chain.mix
    free = 1 - np.minimum(lam * token * mix.mean_input, PROMPT_LOAD)
    wait = lam * token**2 * mix.input_m2 / (2 * free)
    var = wait * wait + lam * token**3 * mix.input_m3 / (3 * free)
    return CHUNK_WAIT * (wait + step / 2), CHUNK_WAIT**2 * (var + step * step / 12)


def _alone_wait(chain: Chain, lam: Rows, prompts: Rows, step: Rows) -> tuple[Rows, Rows]:
    """Mean and variance of the wait where each prompt has a step of its own, before decoding goes on: M/G/1 with vacations."""
    wait = lam * chain.work_m2 / (2 * (1 - prompts))
    var = wait * wait + lam * chain.work_m3 / (3 * (1 - prompts))
    return wait + step / 2, var + step * step / 12


def tail(metric: str, chain: Chain, s: State, limit: Rows | float, share: float = 1.0) -> Rows:
    """Probability that a request exceeds the limit, over all requests of the mix: [P, 1]. ``share``: part of the output E2E counts to."""
    if metric == "full":
        return full_share(chain, s.rate / chain.rate)
    if metric == "e2e":
        return _tail_e2e(chain, s, limit, share)
    return {"ttft": _tail_ttft, "tpot": _tail_tpot, "itl": _tail_itl}[metric](chain, s, limit)


def _tail_ttft(chain: Chain, s: State, limit: Rows | float) -> Rows:
    own = chain.overhead + s.own
    found = gamma_tail(limit - own, s.wait_mean, s.wait_var).mean(axis=1, keepdims=True)
    slack = limit - own.mean(axis=1, keepdims=True) - s.wait_mean
    return _with_slot_wait(found, s, slack)


def _tail_tpot(chain: Chain, s: State, limit: Rows | float) -> Rows:
    mean, spread, skew = _tpot_moments(chain, s)
    found: Rows = skewed_tail((limit - mean) / spread, skew).mean(axis=1, keepdims=True)
    return found


def _tpot_moments(chain: Chain, s: State) -> tuple[Rows, Rows, Rows]:
    """Mean, standard deviation and skewness of TPOT for each length [P, J].

    Short answers meet few prompts, so theirs scatter most, and those that came during their own prompt's step weigh on them most.
    Over its life an answer sees the mean of n, which scatters less: by 2 (x - 1 + exp(-x)) / x^2 in the variance where correlation
    falls exponentially, which is at most 1 / (1 + x / 3). The skewness is that of a delay busy period, an answer with the prompts it meets.
    """
    mix, busy = chain.mix, np.clip(s.in_flight, 1.0, chain.slots)  # as many prompts are met as requests run
    steps = np.maximum(mix.output_tokens - 1, 1.0)[None, :] / mix.mean_output
    late = s.rate * s.own.mean(axis=1, keepdims=True) / (busy * steps)
    short = np.sqrt((1 + late) / steps)
    prompts = s.tpot_prompts * short
    spread = s.tpot_load / np.sqrt(1 + s.settled * steps / 3) + prompts + 1e-12
    share = prompts / spread
    tight = 3 * s.rate * np.sqrt(chain.work_m2) / (1 - np.minimum(s.rate * chain.work, PROMPT_LOAD))
    skew = (chain.work_m3 / chain.work_m2**1.5 + tight) / np.sqrt(busy) * short * (share * share * share)
    return s.tpot + late * busy * chain.work / mix.mean_output, spread, skew


def _tail_itl(chain: Chain, s: State, limit: Rows | float) -> Rows:
    seen = np.clip(s.in_flight + s.spread**2 / s.in_flight, 1.0, chain.slots)  # by tokens, not by time: a full replica writes more
    return itl_tail(chain, s.rate, seen, s.spread, limit)


def itl_tail(chain: Chain, lam: Rows, n: Rows, spread: Rows, limit: Rows | float) -> Rows:
    """Probability that a decode step lasts longer than the limit, over the steps of all tokens, with n +- spread sequences in flight: [P, 1].

    A step lasts D(n) + C. C, the engine time of the prompts it carries (without chunks: that run before it), is 0 in ``free`` of
    all steps, else gamma with the moments of gated batches. A chunk ends at the step's budget; what prompts have beyond it fills steps of its own.
    """
    at = Interpolation(chain.n[0], n)
    step, wobble = at(chain.step), at(chain.step_slope) * spread + 1e-12
    prompts = np.minimum(lam * chain.work, PROMPT_LOAD)
    mean = step * prompts / (1 - prompts)
    free, square = _gated(chain, lam, prompts, step) if chain.is_chunked else _vacations(chain, lam, prompts, step)
    busy = np.maximum(1 - free, 1e-12)
    mu = mean / busy
    var = np.maximum((square + mean * mean) / busy - mu * mu, 1e-4 * mu * mu)
    full, most = np.zeros_like(mu), np.full_like(mu, np.inf)
    if chain.is_chunked:
        most = chain.per_token / chain.mix.computed * _room(chain.batched_tokens, n)
        beyond = mu * gamma_tail(most, mu + var / mu, var + (var / mu) ** 2) - most * gamma_tail(most, mu, var)  # E[max(C - most, 0)]
        full = busy * np.maximum(beyond, 0.0) / most
    carries = np.minimum(busy + full, 1.0)
    found: Rows = (1 - carries) * normal_tail((limit - step) / wobble)
    for z, weight in SPREAD:
        left = limit - step - z * wobble
        found = found + weight * np.where(left < most, np.minimum(busy * gamma_tail(left, mu, var) + full, carries), 0.0)
    return found


def _gated(chain: Chain, lam: Rows, prompts: Rows, step: Rows) -> tuple[Rows, Rows]:
    """(share of steps without prompts, variance of the step) where the prompts that arrive in a step are prefilled in the next.

    free = exp(-D (a_0 + a_1 + ...)), a_0 = rate, a_(k+1) = rate (1 - E[exp(-a_k prompt)]): the Laplace transform of such steps.
    """
    a = total = lam
    for _ in range(PROMPT_FREE):
        a = lam * -np.expm1(-a * chain.prompts).mean(axis=1, keepdims=True)
        total = total + a
    total = total + a * prompts / (1 - prompts)
    return np.exp(-step * total), lam * step / (1 - prompts) * chain.work_m2 / (1 - prompts**2)


def _vacations(chain: Chain, lam: Rows, prompts: Rows, step: Rows) -> tuple[Rows, Rows]:
    """The same where decoding waits until no prompt is left: each that arrives in a step brings a busy period."""
    return np.exp(-lam * step), lam * step * chain.work_m2 / (1 - prompts) ** 3


def _tail_e2e(chain: Chain, s: State, limit: Rows | float, share: float) -> Rows:
    out = np.maximum(share * chain.mix.output_tokens - 1, 0.0)[None, :]
    first = chain.overhead + s.own + s.wait_mean
    tpot, noise, skew = _tpot_moments(chain, s)
    noise *= out
    mean, sd = first + out * tpot, np.sqrt(s.wait_var + noise * noise)
    part = noise / sd
    found = skewed_tail((limit - mean) / sd, skew * (part * part * part)).mean(axis=1, keepdims=True)
    return _with_slot_wait(found, s, limit - mean.mean(axis=1, keepdims=True))


def _with_slot_wait(found: Rows, s: State, slack: Rows) -> Rows:
    """Adds the wait for a slot, exponential where all are taken."""
    total: Rows = np.minimum(found + s.full * np.exp(-s.drain * np.maximum(slack, 0.0)), 1.0)
    return total


def normal_tail(x: Rows) -> Rows:
    """P(Z > x) of a standard normal, to 1e-7 (Abramowitz and Stegun 7.1.26)."""
    y = np.abs(x)
    y *= 0.7071067811865476
    t = 1 / (1 + 0.3275911 * y)
    poly = 0.5 * 1.061405429 * t
    for factor in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        poly += 0.5 * factor
        poly *= t
    y *= -y
    poly *= np.exp(y, out=y)
    found: Rows = np.where(x >= 0, poly, 1 - poly)
    return found


def gamma_tail(t: Rows, mean: Rows, var: Rows) -> Rows:
    """P(Y > t) of a gamma variable by Wilson and Hilferty's cube root."""
    k = np.maximum(mean * mean / var, 0.05)
    y = np.cbrt(np.maximum(t, 0.0) / mean)
    found: Rows = np.where(t <= 0, 1.0, normal_tail((y - 1 + 1 / (9 * k)) * 3 * np.sqrt(k)))
    return found


def skewed_tail(z: Rows, skew: Rows) -> Rows:
    """P(Z > z) of a gamma variable of mean 0, variance 1 and this skewness, normal at skewness 0 (Wilson and Hilferty)."""
    g = np.clip(skew, 1e-4, 4.0)
    y = np.cbrt(np.maximum(1 + 0.5 * g * z, 0.0))
    return normal_tail(6 / g * (y - 1) + g / 6)


def quantiles(metric: str, chain: Chain, s: State, shares: Sequence[float], upper: Rows, part: float = 1.0) -> dict[float, Rows]:
    """The value that a share of the requests stays within, by bisection below ``upper``: [P] per share. ``part``: of the output that E2E counts to."""
    rows, many = len(upper), len(shares)
    chain, s = _repeated(chain, rows, many), _repeated(s, rows, many)  # all shares at once: Python's own time counts once
    low, high = np.zeros((rows * many, 1)), np.tile(upper, (many, 1))
    beyond = 1 - np.repeat(np.asarray(shares), rows)[:, None]
    for _ in range(QUANTILE_STEPS):
        middle = (low + high) / 2
        over = tail(metric, chain, s, middle, part) > beyond
        low, high = np.where(over, middle, low), np.where(over, high, middle)
    return dict(zip(shares, high.reshape(many, rows), strict=True))


def _repeated(part: Part, rows: int, times: int) -> Part:
    """A chain or state with its rows one after the other so many times."""
    columns = {f.name: getattr(part, f.name) for f in fields(part)}
    by_row = [k for k, v in columns.items() if isinstance(v, np.ndarray) and v.ndim == 2 and len(v) == rows and k != "powers"]
    more: dict[str, Any] = {k: np.tile(columns[k], (times, 1)) for k in by_row}
    return replace(part, **more)
