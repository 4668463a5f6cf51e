"""One replica as a queue under Poisson arrivals: how many are in flight, and the moments that percentiles are made of.

A birth-death chain with service rates X(n) gives the number in flight; ``waits`` and ``decoding`` the noise around it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np

from planner.performance.chain import PROMPT_LOAD, Chain, Interpolation, Rows, own_time, room_of
from planner.performance.decoding import Numbers, StepNoise, noise_of
from planner.performance.replicas import Ints
from planner.performance.waits import Wait, alone_wait, prompt_wait

Part = TypeVar("Part", bound="Chain | QueueState | StepNoise | Wait")
FULL = 0.99  # of its most requests/s: a replica this near them serves no faster, however many more it is given
BUSY_TIMES, HARDLY_EVER = 1.5, 4.0  # standard deviations of the number decoding: while prompts queue, and as good as never
NEAR, BUSY = 0.75, 0.35  # share of the most requests/s, and of the time with prompts, above which TTFT has a safety margin
MARGIN, MARGIN_ALIKE, ALIKE = 0.06, 0.12, 0.3  # of that size; more where the squared variation of prompts is below ALIKE
TOGETHER = 50.0  # requests whose prompts were prefilled in a row, at most


@dataclass(frozen=True)
class QueueState:
    """The replica at one arrival rate, all [P, 1] but ``own``."""

    rate: Rows
    in_flight: Rows  # mean, waiting ones included
    spread: Rows  # sd of the number in flight
    tpot: Rows
    step: Rows
    room: Rows  # prompt tokens that a step takes
    own: Rows  # [P, Q]: a prompt's own steps, once begun
    full: Rows  # probability that all slots are taken
    drain: Rows  # 1/s: rate at which a full replica drains
    margin: Rows  # share that prompts are taken to wait longer for safety
    wait: Wait
    noise: StepNoise


def state(chain: Chain, load: Rows) -> QueueState:
    """The replica at arrival rate load x X(B), 0 < load < 1, [P, 1]."""
    lam = load * chain.rate
    mean, var, third, full = _occupancy(chain, load)
    prompts = np.minimum(lam * chain.work, PROMPT_LOAD)
    # Each arrival adds itself and holds up departures, all at once: the chain has the mean of that, a diffusion its variance.
    var = var * (1 + lam * lam * chain.work_m2 / (2 * (1 - prompts)))
    at = _numbers(chain, lam, prompts, (mean, var, third))
    own = own_time(chain, at.step, at.room, chain.inputs)
    if chain.is_chunked:
        busy = at.step + at.slope * np.minimum(BUSY_TIMES * np.sqrt(at.var), np.maximum(chain.slots - at.mean, 0.0))
        wait = prompt_wait(chain, lam, prompts, at.step, at.room, busy)
    else:
        wait = alone_wait(chain, lam, prompts, at.step)
    wider = _wider(prompts)
    drain = (chain.rate - lam) / wider
    return QueueState(
        lam, mean, np.sqrt(var), at.tpot, at.step, at.room, own, full ** (1 / wider), drain, _margin(chain, load, prompts), wait, noise_of(chain, at, wait)
    )


def _numbers(chain: Chain, lam: Rows, prompts: Rows, flying: tuple[Rows, Rows, Rows]) -> Numbers:
    """How many decode, by Little's law (the others wait for their prompt), and the steps that they see."""
    mean, var, third = flying
    others, slots, tokens = 1 - prompts, chain.slots, lam * chain.mix.mean_output
    about = np.minimum(mean, tokens * Interpolation(chain.n[0], np.clip(mean, 1.0, slots))(chain.step) / others)
    at = Interpolation(chain.n[0], np.clip(about, 1.0, slots))
    step, slope = at(chain.step), at(chain.step_slope)
    number = np.minimum(mean, tokens * (step + slope) / others)
    step = np.maximum(step + slope * (np.maximum(number, 1.0) - np.maximum(about, 1.0)), chain.step[:, :1])
    # The decoding ones are a sample of all; those whose prompts were prefilled in a row decode together.
    part, free = number / np.maximum(mean, 1e-12), np.maximum(slots - number, 0.0)
    together = (prompts + lam * lam * (chain.work_m2 - chain.work**2)) / others**2 + prompts / others
    sampled = number * (1 + 0.5 * np.minimum(together, TOGETHER) * (1 - part)) + part * part * np.maximum(var - mean, -mean)
    spread = np.clip(sampled, 0.0, free * number + 1e-12)
    seen = np.minimum(number + spread / np.maximum(number, 1e-12), slots)  # an answer is more often there when there are many
    tpot = (step + slope * np.maximum(seen - np.maximum(number, 1.0), 0.0)) / others
    crowded = step + slope * np.minimum(HARDLY_EVER * np.sqrt(spread), free)
    return Numbers(lam, prompts, step, slope, tpot, number, spread, third * part**3, room_of(chain.batched_tokens, number), crowded)


def _occupancy(chain: Chain, load: Rows) -> tuple[Rows, Rows, Rows, Rows]:
    """Mean, variance and third central moment of the number in the replica (waiting ones count as B for TPOT, so as B here), probability of full slots."""
    # Double precision: the variance is a small difference, and its rounding would make tails fall where load rises.
    exponent = np.log(load) * chain.n + chain.log_weight
    top = np.maximum(exponent.max(axis=1, keepdims=True), 0.0)
    exponent -= top
    share = np.exp(exponent, out=exponent) * chain.weight
    last = np.exp(chain.slots * np.log(load) + chain.log_last - top)
    queue = last * load / (1 - load)
    moments = share @ chain.powers
    total = moments[:, :1] + np.exp(-top) + queue
    mean, second, third = ((moments[:, k : k + 1] + queue * chain.slots**k) / total for k in (1, 2, 3))
    var = np.maximum(second - mean * mean, 0.0)
    return mean, var, third - 3 * mean * second + 2 * mean**3, (last + queue) / total


def waiting(chain: Chain, load: Rows) -> Rows:
    """Mean number waiting for a slot, [P, 1]."""
    return _waiting(chain, load, _occupancy(chain, load)[3])


def number(chain: Chain, load: Rows) -> Rows:
    """Mean number in the replica and waiting for a slot, [P, 1]."""
    mean, *_, full = _occupancy(chain, load)
    return mean + _waiting(chain, load, full)


def _waiting(chain: Chain, load: Rows, full: Rows) -> Rows:
    wider = _wider(np.minimum(load * chain.rate * chain.work, PROMPT_LOAD))
    found: Rows = full ** (1 / wider) * wider * load / (1 - load)
    return found


def _margin(chain: Chain, load: Rows, prompts: Rows) -> Rows:
    """The safety margin on TTFT: none up to NEAR of the most requests/s or BUSY of the time with prompts, more where they are much alike."""
    varied = np.maximum(chain.work_m2 / chain.work**2 - 1, 0.0) / ALIKE
    found: Rows = np.clip((load - NEAR) / 0.15, 0.0, 1.0) * np.clip((prompts - BUSY) / 0.15, 0.0, 1.0) * (MARGIN + MARGIN_ALIKE / (1 + varied * varied))
    return found


def _wider(prompts: Rows) -> Rows:
    """What variance of the number in flight grows by where prompts of one size hold up departures. In heavy traffic, log P(full) falls by as much."""
    found: Rows = 1 + prompts * prompts / (2 * (1 - prompts))
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


def taken(part: Part, rows: int, index: Ints) -> Part:
    """A chain or state of some of its ``rows``, some more than once."""
    more: dict[str, Any] = {}
    for field in fields(part):
        value = getattr(part, field.name)
        if isinstance(value, (StepNoise, Wait)):
            more[field.name] = taken(value, rows, index)
        elif isinstance(value, np.ndarray) and value.ndim == 2 and len(value) == rows and field.name not in ("n", "powers"):
            more[field.name] = value[index]
    return replace(part, **more)
