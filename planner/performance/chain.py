"""One replica's service rate by requests in flight, X(n), from its step curve: what does not depend on the arrival rate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.performance.cells import Cells
from planner.performance.lengths import LengthMix
from planner.performance.replicas import Floats, Ints
from planner.performance.step import StepCurves

Rows = NDArray[np.float64]
PROMPT_LOAD = 0.97  # prompts never take more than this share of the time in the formulas of the queue (they have a pole at 1)


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
    powers: Floats  # [G, 4]: 1, n, n^2, n^3
    slots: Rows  # B
    rate: Rows  # X(B), requests/s
    log_last: Rows  # log_weight at B
    tpot_full: Rows  # tpot at B
    per_token: Rows  # c
    alone: Rows  # seconds that a prompt of its own step adds; 0 with chunks
    inputs: Cells  # Q of them
    outputs: Cells
    pairs: tuple[Cells, Cells]
    prompts: Rows  # [P, Q]: seconds of engine time that the prompts of each cell take
    prompt_shares: Floats  # [Q]: share of the prompts met that are of each cell
    work: Rows  # E[prompt]
    work_m2: Rows  # E[prompt^2]
    work_m3: Rows  # E[prompt^3]
    overhead: Rows  # h


def chain(curves: StepCurves, mix: LengthMix, max_num_seqs: Ints) -> Chain:
    """The chain of every row. Rows with max_num_seqs < 1 get one slot; callers drop them."""
    n = curves.n[None, :]
    slots = np.clip(max_num_seqs, 1, curves.n[-1]).astype(float)[:, None]
    h = curves.overhead_s[:, None]
    inputs, outputs = mix.inputs, mix.outputs
    alone = np.zeros_like(h) if curves.whole_prompt_s is None else curves.whole_prompt_s[:, None]
    work, m2, m3 = prompt_moments(curves.prefill_s_per_token[:, None], alone, inputs)
    # One request in flight meets no other's prompt.
    tpot = curves.step_s + work / mix.mean_output * (n - 1)
    # Half a step waits on average before the prompt's own step begins.
    rate = n / (h + work + tpot * mix.mean_output + 0.5 * curves.step_s)
    is_chunked = curves.whole_prompt_s is None
    if is_chunked:  # steps have no room for more prompt tokens than this, however many requests there are
        rate = np.minimum(rate, 1 / (work + mix.mean_input * mix.computed * curves.step_s / room_of(curves.batched_tokens, np.minimum(n, slots))))
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
        powers=curves.n[:, None] ** np.arange(4),
        slots=slots,
        rate=full,
        log_last=at(log_weight),
        tpot_full=at(tpot),
        per_token=curves.prefill_s_per_token[:, None],
        alone=alone,
        inputs=inputs,
        outputs=outputs,
        pairs=mix.pairs,
        prompts=curves.prompt_s(inputs.mean),
        prompt_shares=inputs.weight,
        work=work,
        work_m2=m2,
        work_m3=m3,
        overhead=h,
    )


def prompt_moments(per_token: Rows, alone: Rows, inputs: Cells) -> tuple[Rows, Rows, Rows]:
    """E[prompt^k] in seconds, k = 1, 2, 3."""
    m1, m2, m3 = (per_token**k * inputs.moment(k) for k in (1, 2, 3))
    return alone + m1, alone**2 + 2 * alone * m1 + m2, alone**3 + 3 * alone**2 * m1 + 3 * alone * m2 + m3


def room_of(batched_tokens: int, sequences: Rows) -> Rows:
    """Prompt tokens that a step takes beside one token of each sequence."""
    found: Rows = np.maximum(batched_tokens - sequences, 1.0)
    return found


def full_step(chain: Chain, room: Rows) -> Rows:
    """Most seconds of prompts that a step takes; without chunks there is no such limit."""
    found: Rows = chain.per_token / chain.mix.computed * room if chain.is_chunked else np.full_like(room, np.inf)
    return found


def own_time(chain: Chain, step: Rows, room: Rows, inputs: Cells) -> Rows:
    """Seconds [P, Q] of a prompt's own steps, once begun."""
    prompts = chain.alone + chain.per_token * inputs.mean
    if not chain.is_chunked:
        return prompts
    found: Rows = step * np.maximum(chain.mix.computed * inputs.mean / room, 1.0) + prompts
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
