"""One replica as a queue: Poisson arrivals, service rate X(n) from the step curve, percentiles of TTFT, TPOT and E2E.

A birth-death chain gives the number in flight; gated prefill steps give the noise around it; lengths are mixed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.performance.lengths import LengthMix
from planner.performance.replicas import Floats, Ints
from planner.performance.step import CHUNK, StepCurves

Rows = NDArray[np.float64]
CHUNK_WAIT = 1.15
QUANTILE_STEPS = 30  # bisection to 1e-9 of the bracket
PROMPT_LOAD = 0.97  # prompts never take more than this share of the time in the formulas below (they have a pole at 1)


@dataclass(frozen=True)
class Chain:
    """What does not depend on the arrival rate. Columns are [P, 1], curves [P, G]."""

    mix: LengthMix
    n: Floats  # [1, G]
    tpot: Rows  # [P, G] with n sequences in flight, the share of other requests' prompts included
    tpot_slope: Rows  # [P, G], its derivative at the grid points: interpolated, so that noise grows without jumps
    step: Rows  # [P, G]
    log_weight: Rows  # [P, G]: log of prod X(B)/X(k)
    weight: Rows  # [P, G]: integers up to B that each grid point stands for
    powers: Floats  # [G, 3]: 1, n, n^2
    slots: Rows  # B
    rate: Rows  # X(B), requests/s
    log_last: Rows  # log_weight at B
    tpot_full: Rows  # tpot at B
    per_token: Rows  # c
    overhead: Rows  # h


@dataclass(frozen=True)
class State:
    """The replica at one arrival rate: moments and noise that the percentiles are made of, all [P, 1]."""

    rate: Rows
    in_flight: Rows  # mean, waiting ones included
    tpot: Rows
    tpot_load: Rows  # sd of TPOT through the number in flight
    tpot_prompts: Rows  # sd of TPOT through prompts, for an answer of mean length
    step: Rows
    wait_mean: Rows  # of the prompt until its step begins
    wait_var: Rows
    full: Rows  # probability that all slots are taken
    drain: Rows  # 1/s: rate at which a full replica drains


def chain(curves: StepCurves, mix: LengthMix, max_num_seqs: Ints) -> Chain:
    """The chain of every row. Rows with max_num_seqs < 1 get one slot; callers drop them."""
    n = curves.n[None, :]
    slots = np.clip(max_num_seqs, 1, curves.n[-1]).astype(float)[:, None]
    c, h = curves.prefill_s_per_token[:, None], curves.overhead_s[:, None]
    tpot = curves.step_s + c * (mix.mean_input / mix.mean_output) * n
    # Half a step waits on average before the prompt's own step begins.
    rate = np.maximum.accumulate(n / (h + c * mix.mean_input + tpot * (mix.mean_output + 0.5)), axis=1)
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
    return Chain(mix, n, tpot, np.gradient(tpot, curves.n, axis=1), curves.step_s, log_weight, weight, powers, slots, full, at(log_weight), at(tpot), c, h)


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
    c, mix = chain.per_token, chain.mix
    prompts = np.minimum(lam * c * mix.mean_input, PROMPT_LOAD)
    sd_load = at(chain.tpot_slope) * np.sqrt(var)
    # n cannot exceed B, so TPOT has no tail beyond its value there.
    sd_load = np.minimum(sd_load, np.maximum(chain.tpot_full - tpot, 0.0) / 2)
    busy = np.clip(mean, 1.0, chain.slots)
    sd_prompts = c * np.sqrt(busy * mix.input_m2) / mix.mean_output / (1 - prompts)
    wait_mean, wait_var = _prompt_wait(chain, lam, prompts, step)
    return State(lam, mean, tpot, sd_load, sd_prompts, step, wait_mean, wait_var, full, chain.rate - lam)


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


def _prompt_wait(chain: Chain, lam: Rows, prompts: Rows, step: Rows) -> tuple[Rows, Rows]:
    """Mean and variance of the wait until a prompt's own step begins.

    Prompts that arrive during a step are prefilled together in the next one, and the step found on arrival is length-biased.
    Where prompts fill the token budget of a step, they queue for budget instead: an M/G/1 queue of chunks, whose wait is
    then the longer of the two. Its factor is fitted to simulations of this scheduler.
    """
    c, mix = chain.per_token, chain.mix
    second, third = c * c * mix.input_m2, c**3 * mix.input_m3
    m = step / (1 - prompts)
    v = lam * m * second / (1 - prompts**2)
    k3 = (lam * m * third + 3 * prompts * lam * second * v) / (1 - prompts**3)
    x, x2 = (v + m * m) / m, (m**3 + 3 * m * v + k3) / m
    mean = x * (0.5 + prompts)
    var = (1 / 3 + prompts + prompts**2) * x2 - (0.5 + prompts) ** 2 * x * x + lam * second * x
    chunk_mean, chunk_var = _chunk_wait(chain, lam, step)
    return np.maximum(mean, chunk_mean), np.maximum(np.maximum(var, chunk_var), 1e-12)


def _chunk_wait(chain: Chain, lam: Rows, step: Rows) -> tuple[Rows, Rows]:
    """Mean and variance of the wait of an M/G/1 queue of prompts, where each token also carries its share of a step."""
    token, mix = chain.per_token + step / CHUNK, chain.mix
    free = 1 - np.minimum(lam * token * mix.mean_input, PROMPT_LOAD)
    wait = lam * token**2 * mix.input_m2 / (2 * free)
    var = wait * wait + lam * token**3 * mix.input_m3 / (3 * free)
    return CHUNK_WAIT * (wait + step / 2), CHUNK_WAIT**2 * (var + step * step / 12)


def tail(metric: str, chain: Chain, s: State, limit: Rows | float, share: float = 1.0) -> Rows:
    """Probability that a request exceeds the limit, over all requests of the mix: [P, 1]. ``share``: part of the output E2E counts to."""
    if metric == "e2e":
        return _tail_e2e(chain, s, limit, share)
    return {"ttft": _tail_ttft, "tpot": _tail_tpot}[metric](chain, s, limit)


def _tail_ttft(chain: Chain, s: State, limit: Rows | float) -> Rows:
    own = chain.overhead + s.step + chain.per_token * chain.mix.input_tokens[None, :]
    found = gamma_tail(limit - own, s.wait_mean, s.wait_var).mean(axis=1, keepdims=True)
    slack = limit - chain.overhead - s.step - chain.per_token * chain.mix.mean_input - s.wait_mean
    return _with_slot_wait(found, s, slack)


def _tail_tpot(chain: Chain, s: State, limit: Rows | float) -> Rows:
    spread, skew = _tpot_noise(chain, s)
    found: Rows = skewed_tail((limit - s.tpot) / spread, skew).mean(axis=1, keepdims=True)
    return found


def _tpot_noise(chain: Chain, s: State) -> tuple[Rows, Rows]:
    """Standard deviation and skewness of TPOT for each length [P, J]: short answers meet few prompts, so theirs scatter most."""
    mix = chain.mix
    short = np.sqrt(mix.mean_output / np.maximum(mix.output_tokens - 1, 1.0))[None, :]
    prompts = s.tpot_prompts * short
    spread = s.tpot_load + prompts + 1e-12
    share = prompts / spread
    one = mix.input_m3 / mix.input_m2**1.5 / np.sqrt(np.clip(s.in_flight, 1.0, chain.slots))  # as many prompts are met as requests run
    return spread, one * short * (share * share * share)


def _tail_e2e(chain: Chain, s: State, limit: Rows | float, share: float) -> Rows:
    out = np.maximum(share * chain.mix.output_tokens - 1, 0.0)[None, :]
    first = chain.overhead + s.step + chain.per_token * chain.mix.input_tokens[None, :] + s.wait_mean
    noise, _ = _tpot_noise(chain, s)
    mean, sd = first + out * s.tpot, np.sqrt(s.wait_var + (out * noise) ** 2)
    found = normal_tail((limit - mean) / sd).mean(axis=1, keepdims=True)
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
    found = {}
    for share in shares:
        low, high = np.zeros_like(upper), upper.copy()
        for _ in range(QUANTILE_STEPS):
            middle = (low + high) / 2
            over = tail(metric, chain, s, middle, part) > 1 - share
            low, high = np.where(over, middle, low), np.where(over, high, middle)
        found[share] = high[:, 0]
    return found
