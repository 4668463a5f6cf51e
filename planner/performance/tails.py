"""Percentiles of TTFT, TPOT, ITL and E2E of one replica at one rate: probabilities of lasting longer than a limit, mixed over all lengths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from planner.performance.chain import PROMPT_LOAD, Chain, Interpolation, Rows, full_step, own_time, room_of
from planner.performance.decoding import Decoding, decoding
from planner.performance.halving import edges, halved, levels
from planner.performance.queue import QueueState, full_share, taken
from planner.performance.replicas import Floats

QUANTILE_STEPS = 30  # bisection to 1e-9 of the bracket
PROMPT_FREE = 4  # terms of the series of steps without prompts; the rest is bounded
SPREAD = ((-1.7320508, 1 / 6), (0.0, 2 / 3), (1.7320508, 1 / 6))  # three points that stand for a normal variable (Gauss and Hermite)
LUMPS = 3  # prompts that are counted one by one
LUMP = 0.05  # shorter ones are so many that what they add is smooth
LOGNORMAL = 6.0  # squared variation of prompts at which their wait is half lognormal, half gamma; fitted to simulations


def tail(metric: str, chain: Chain, s: QueueState, limit: Rows | float, share: float = 1.0) -> Rows:
    """Probability that a request exceeds the limit, over all requests of the mix: [P, 1]. ``share``: part of the output E2E counts to."""
    if metric == "full":
        return full_share(chain, s.rate / chain.rate)
    if metric == "e2e":
        return _tail_e2e(chain, s, limit, share)
    return {"ttft": _tail_ttft, "tpot": _tail_tpot, "itl": _tail_itl}[metric](chain, s, limit)


def _tail_ttft(chain: Chain, s: QueueState, limit: Rows | float) -> Rows:
    """A prompt waits for the step under way, anywhere in it, and most for other prompts too."""
    wait, weight, limit = s.wait, chain.inputs.weight, limit / (1 + s.margin)
    left = limit - chain.overhead - s.own - s.step / 2
    of_step, of_prompts = s.step * s.step / 12, chain.per_token**2 * chain.inputs.var
    plain, third = of_step + of_prompts, chain.per_token**3 * chain.inputs.skew
    even = of_step / plain
    alone = even * np.clip(0.5 - left / s.step, 0.0, 1.0) + (1 - even) * moment_tail(left, plain, third)
    var = plain + wait.extra_var
    sd = np.sqrt(var)
    sigma = np.sqrt(np.log1p(var / wait.extra**2))
    lognormal = np.log(np.maximum(left, 1e-12) / wait.extra) / sigma + 0.5 * sigma
    gamma = skewed((left - wait.extra) / sd, (wait.extra_skew * wait.extra_var * np.sqrt(wait.extra_var) + third) / (var * sd))
    varied = np.maximum(chain.work_m2 / chain.work**2 - 1, 0.0)
    share = varied / (LOGNORMAL + varied)
    found = alone + wait.met * (normal_tail(share * lognormal + (1 - share) * gamma) - alone)
    mean = chain.overhead + s.own + wait.mean
    return _with_slot_wait((found @ weight)[:, None], s, limit, mean, wait.var + of_prompts, weight)


def _tail_tpot(chain: Chain, s: QueueState, limit: Rows | float) -> Rows:
    steps, weight = answer_steps(chain)
    answer = decoding(s.noise, steps)
    found = _lumped(chain, s, limit * steps, answer, steps, _beyond(limit * steps, answer, 0.0, 0.0, 0.0)) @ weight
    capped: Rows = np.where(limit >= s.noise.longest, 0.0, found[:, None])
    return capped


def answer_steps(chain: Chain) -> tuple[Rows, Floats]:
    """Steps [1, Q] after the first token of answers that have such, and the share of each."""
    outputs = chain.outputs
    weight = np.where(outputs.mean > 1.5, outputs.weight, 0.0)
    weight = weight / weight.sum() if weight.any() else outputs.weight
    return np.maximum(outputs.mean - 1, 1.0)[None, :], weight


def mean_tpot(chain: Chain, s: QueueState) -> Rows:
    """Mean TPOT over requests: short answers meet most of what came during their own prompt."""
    steps, weight = answer_steps(chain)
    found: Rows = (decoding(s.noise, steps).mean / steps @ weight)[:, None]
    return found


def mean_decoding(chain: Chain, s: QueueState) -> tuple[Rows, float]:
    """Mean seconds of an answer after its first token, and its steps."""
    steps = np.maximum(chain.outputs.mean - 1, 1e-3)
    return (decoding(s.noise, steps[None, :]).mean @ chain.outputs.weight)[:, None], float(steps @ chain.outputs.weight)


def _beyond(limit: Rows | float, answer: Decoding, mean: Rows | float, var: Rows | float, third: Rows | float) -> Rows:
    """Probability [P, Q] that an answer and something independent of these moments last longer than the limit."""
    left, plain = limit - mean - answer.bare, answer.bare_var + var
    both, skew = plain + answer.added_var, answer.bare_third + third
    found = moment_tail(left, plain, skew)
    found += answer.met * (moment_tail(left - answer.added, both, skew + answer.added_third) - found)
    return found


def _lumped(chain: Chain, s: QueueState, limit: Rows, answer: Decoding, steps: Rows, found: Rows) -> Rows:
    """``found`` [P, Q], where prompts last as long as LUMP of a mean answer no less than two chances:

    that an answer meets one prompt (two, three), and these alone last beyond the limit; and that so many prompts wait behind the answer's
    own that all of its steps are full.
    """
    rows = np.flatnonzero(chain.work > LUMP * s.noise.bare * chain.mix.mean_output)
    if not len(rows):
        return found

    def of(column: Rows) -> Rows:
        return column[rows]

    found, met, bare = found.copy(), of(answer.met), of(answer.bare)
    work, none, left = of(chain.work), np.maximum(1 - met, 1e-12), of(np.broadcast_to(limit, found.shape))
    many, exactly, chance, most = -np.log(none), none, met, found[rows]
    for k in range(1, LUMPS + 1):  # Poisson, since what comes during those that it meets is more
        var = of(answer.bare_var) + k * of(chain.work_m2 - chain.work**2)
        most = np.maximum(most, chance * moment_tail(left - bare - k * work, var, of(answer.bare_third)))
        exactly = exactly * many / k
        chance = np.maximum(chance - exactly, 0.0)
    if chain.is_chunked:
        full = of(full_step(chain, s.room))
        jam = of(s.wait.met) * np.exp(-steps * full / of(s.wait.extra))
        most = np.where(left < steps * (of(s.step) + full), np.maximum(most, jam), most)
    found[rows] = most
    return found


def _tail_itl(chain: Chain, s: QueueState, limit: Rows | float) -> Rows:
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
        most = full_step(chain, room_of(chain.batched_tokens, n))
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
        a = lam * (-np.expm1(-a * chain.prompts) @ chain.prompt_shares)[:, None]
        total = total + a
    total = total + a * prompts / (1 - prompts)
    return np.exp(-step * total), lam * step / (1 - prompts) * chain.work_m2 / (1 - prompts**2)


def _vacations(chain: Chain, lam: Rows, prompts: Rows, step: Rows) -> tuple[Rows, Rows]:
    """The same where decoding waits until no prompt is left: each that arrives in a step brings a busy period."""
    return np.exp(-lam * step), lam * step * chain.work_m2 / (1 - prompts) ** 3


def _tail_e2e(chain: Chain, s: QueueState, limit: Rows | float, share: float) -> Rows:
    inputs, outputs = chain.pairs
    lengths, of = np.unique(outputs.mean, return_inverse=True)  # pairs have few answers of their own
    answer, wait = decoding(s.noise, np.maximum(share * lengths - 1, 1e-3)[None, :]).take(of), s.wait
    own = own_time(chain, s.step, s.room, inputs)
    # What comes during a prompt's own time and wait adds to the answer too.
    again = s.noise.busy / (1 - s.noise.busy)
    late = again * (own - (s.own @ chain.inputs.weight)[:, None])
    mean, longer = chain.overhead + own + wait.mean + late, 1 + 2 * again
    var = (wait.var + chain.per_token**2 * inputs.var) * longer + (share * s.tpot) ** 2 * outputs.var
    third = (2 * wait.var**2 / wait.mean + chain.per_token**3 * inputs.skew) * longer + (share * s.tpot) ** 3 * outputs.skew
    found = _beyond(limit, answer, mean, var, third) @ inputs.weight
    return _with_slot_wait(found[:, None], s, limit, mean - late + answer.mean, var + answer.var, inputs.weight)


def _with_slot_wait(found: Rows, s: QueueState, limit: Rows | float, mean: Rows, var: Rows, weight: Floats) -> Rows:
    """Adds the wait for a slot, exponential where all are taken, to a time of these moments (taken to be normal in this)."""
    middle = (mean @ weight)[:, None]
    spread = np.sqrt(np.maximum(((var + mean * mean) @ weight)[:, None] - middle * middle, 1e-18))
    z, d = (limit - middle) / spread, s.drain * spread
    later = np.exp(np.minimum(0.5 * d * d - d * z, 0.0)) * (1 - normal_tail(z - d))
    total: Rows = np.minimum(found + s.full * np.minimum(later, 1 - found), 1.0)
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
    """P(Z > z) of a gamma variable of mean 0, variance 1 and this skewness, normal at skewness 0."""
    return normal_tail(skewed(z, skew))


def skewed(z: Rows, skew: Rows) -> Rows:
    """The value of a standard normal variable that is exceeded as often as z by a gamma one (Wilson and Hilferty)."""
    g = np.clip(skew, 1e-4, 4.0)
    found: Rows = 6 / g * (np.cbrt(np.maximum(1 + 0.5 * g * z, 0.0)) - 1) + g / 6
    return found


def moment_tail(left: Rows, var: Rows, third: Rows) -> Rows:
    """P(Y > left) of a gamma variable of mean 0 with this variance and third moment."""
    sd = np.sqrt(var)
    return skewed_tail(left / sd, third / (var * sd))


def quantiles(metric: str, chain: Chain, s: QueueState, shares: Sequence[float], upper: Rows, part: float = 1.0) -> dict[float, Rows]:
    """The value that a share of the requests stays within, by bisection below ``upper``: [P] per share. ``part``: of the output that E2E counts to."""
    rows, many = len(upper), len(shares)
    deep = max(n for n in range(1, levels(rows * many) + 1) if not QUANTILE_STEPS % n)
    inner = (1 << deep) - 1
    index = np.repeat(np.tile(np.arange(rows), many), inner)
    chain, s = taken(chain, rows, index), taken(s, rows, index)  # all shares at once: Python's own time counts once
    low, high = np.zeros(rows * many), np.tile(upper[:, 0], many)
    beyond = 1 - np.repeat(np.asarray(shares), rows * inner)[:, None]
    for _ in range(QUANTILE_STEPS // deep):
        at = edges(low, high, deep)
        over = tail(metric, chain, s, at[:, 1:-1].reshape(-1, 1), part) > beyond
        low, high = halved(at, over.reshape(-1, inner))
    return dict(zip(shares, high.reshape(many, rows), strict=True))
