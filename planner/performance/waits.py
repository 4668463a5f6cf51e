"""How long a prompt waits until its own step begins: behind the step under way, and behind other prompts.

Prompts much smaller than a step's budget are taken together (gated service); longer ones queue for budget (M/G/1).
The numbers in capitals, here and in ``decoding``, ``tails`` and ``queue``, were fitted to simulations of LENGTHS of ``benchmarks/queue.py``; HELD_LENGTHS
there were not looked at for them, and both are reported.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.performance.chain import PROMPT_LOAD, Chain, Rows, full_step

CUT, SHARP = 1.2, 3.0  # a batch of prompts of so many budgets is half in one regime and half in the other; how sharply that changes
CHUNK_SPREAD = 1.15  # on the variance of an M/G/1 wait: steps are longer in busy times, when more decode


@dataclass(frozen=True)
class Wait:
    """Until a prompt's own step begins, all [P, 1]: mean and variance, and the part that others' prompts add for those that meet some."""

    mean: Rows
    var: Rows
    met: Rows  # share of prompts
    extra: Rows
    extra_var: Rows
    extra_skew: Rows
    cut: Rows  # 0: prompts that arrive in a step are taken together in the next; 1: they queue for a step's budget


def prompt_wait(chain: Chain, lam: Rows, prompts: Rows, step: Rows, room: Rows, crowd: Rows) -> Wait:
    """The wait with chunked prefill. ``crowd``: seconds of a step in busy times.

    Gated: prompts that arrive during a step are prefilled together in the next one, and the step found on arrival is length-biased.
    """
    second, third = chain.work_m2, chain.work_m3
    m = step / (1 - prompts)
    v = lam * m * second / (1 - prompts**2)
    k3 = (lam * m * third + 3 * prompts * lam * second * v) / (1 - prompts**3)
    x, x2 = (v + m * m) / m, (m**3 + 3 * m * v + k3) / m
    gated = x * (0.5 + prompts)
    gated_var = (1 / 3 + prompts + prompts**2) * x2 - (0.5 + prompts) ** 2 * x * x + lam * second * x
    chunk, chunk_var, chunk_skew = _chunk_wait(chain, lam, crowd, room)
    batch = (second / chain.work / (1 - prompts**2) + prompts * m) / full_step(chain, room)
    cut = batch**SHARP / (CUT**SHARP + batch**SHARP)
    mean = (1 - cut) * gated + cut * chunk
    square = (1 - cut) * (gated_var + gated**2) + cut * (chunk_var + chunk**2)
    var = np.maximum(square - mean * mean, 1e-12)
    met = np.clip(1 - (1 - prompts) * np.exp(-2 * lam * step), 1e-6, 1.0)
    extra = np.maximum((mean - step / 2) / met, 1e-9)
    extra_var = np.maximum((var - step * step / 12 + (mean - step / 2) ** 2) / met - extra * extra, 0.01 * extra * extra)
    skew = cut * chunk_skew + (1 - cut) * 2 * np.sqrt(extra_var) / extra
    return Wait(mean, var, met, extra, extra_var, skew, cut)


def _chunk_wait(chain: Chain, lam: Rows, step: Rows, room: Rows) -> tuple[Rows, Rows, Rows]:
    """Mean and variance of the wait of an M/G/1 queue of prompts, and its skewness where there is one.

    Each token also carries its share of a step. Pollaczek and Khinchine: the wait is a geometric number of residual prompts.
    """
    token, inputs = chain.per_token + chain.mix.computed * step / room, chain.inputs
    own = token * inputs.moment(1)
    busy = np.minimum(lam * own, PROMPT_LOAD)
    wait = lam * token**2 * inputs.moment(2) / (2 * (1 - busy))
    var = wait * wait + lam * token**3 * inputs.moment(3) / (3 * (1 - busy))
    most = full_step(chain, room)
    end = 0.5 * np.minimum(own, most) * -np.expm1(-lam * (wait + np.maximum(own - 0.5 * most, 0.0)))  # prompts behind it fill its last step
    s1, s2, s3 = (token**k * inputs.moment(k + 1) / ((k + 1) * inputs.moment(1)) for k in (1, 2, 3))
    odds = busy / (1 - busy)
    first = odds * s1
    second = odds * s2 + 2 * first**2
    third = odds * s3 + 6 * odds * odds * s1 * s2 + 6 * first**3
    first, second, third = first / busy, second / busy, third / busy
    skew = (third - 3 * first * second + 2 * first**3) / np.maximum(second - first * first, 1e-30) ** 1.5
    return wait + end + step / 2, CHUNK_SPREAD * (var + end * most / 3 + step * step / 12), skew


def alone_wait(chain: Chain, lam: Rows, prompts: Rows, step: Rows) -> Wait:
    """The wait where each prompt has a step of its own, before decoding goes on: M/G/1 with vacations."""
    wait = lam * chain.work_m2 / (2 * (1 - prompts))
    var = wait * wait + lam * chain.work_m3 / (3 * (1 - prompts))
    met = np.maximum(prompts, 1e-6)
    extra = np.maximum(wait / met, 1e-9)
    extra_var = np.maximum((var + wait * wait) / met - extra * extra, 1e-12)
    return Wait(wait + step / 2, var + step * step / 12, met, extra, extra_var, np.full_like(wait, 2.0), np.zeros_like(wait))
