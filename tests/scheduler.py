"""A plain simulation of one engine, step by step: the reference for what the queue formulas say about steps and prompts.

Shares no code with them. Steps last base + slope x sequences + token x prompt tokens; budgets count both kinds of tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.performance.lengths import LengthMix

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """What requests and tokens saw in the middle of a run. ``itl_weight``: tokens that saw each of ``itl``; ``found``: in flight at arrival."""

    ttft: Floats
    tpot: Floats
    e2e: Floats
    itl: Floats
    itl_weight: Floats
    found: Floats
    parts: dict[str, Floats]  # of each TTFT: see ``_Parts``

    def itl_beyond(self, limit: float) -> float:
        """Share of tokens that waited longer."""
        return float(self.itl_weight[self.itl > limit].sum() / self.itl_weight.sum())

    def itl_quantile(self, share: float) -> float:
        """The gap that a share of all tokens stays within."""
        order = np.argsort(self.itl)
        below = np.cumsum(self.itl_weight[order])
        return float(self.itl[order][np.searchsorted(below, share * below[-1])])


class _Parts:
    """Where the time to each first token goes: until the step under way ends, until the first step of its own and what others' prompts take in its own
    steps, its own prompt with the decoding beside it, and the decoding in the step that writes the token."""

    def __init__(self, count: int) -> None:
        self.schedule, self.queue, self.prefill, self.first_decode = (np.zeros(count) for _ in range(4))
        self.begun = np.zeros(count, dtype=bool)

    def step(self, taken: list[tuple[int, float]], since: float, arrival: Floats, decode: float, token: float) -> None:
        """Counts a step: requests with the prompt tokens that it computes of each."""
        whole = sum(tokens for _, tokens in taken)
        for i, tokens in taken:
            if not self.begun[i]:
                self.begun[i], self.queue[i] = True, since - arrival[i] - self.schedule[i]
            self.queue[i] += token * (whole - tokens)
            self.prefill[i] += self.first_decode[i] + token * tokens
            self.first_decode[i] = decode

    def cut(self, steady: slice) -> dict[str, Floats]:
        """The parts of some requests."""
        return {name: getattr(self, name)[steady] for name in ("schedule", "queue", "prefill", "first_decode")}


def drawn(rng: np.random.Generator, mix: LengthMix, which: int, count: int) -> Floats:
    """Prompts (0) or answers (1): lognormal where the mix says so, else its points."""
    points = (mix.input_tokens, mix.output_tokens)[which]
    if mix.law is None:
        return rng.choice(points, count)
    sigma = np.sqrt(np.log1p(mix.law.cv[which] ** 2))
    found: Floats = points.mean() * np.exp(sigma * rng.standard_normal(count) - sigma * sigma / 2)
    return found


def simulate(
    rate: float,
    mix: LengthMix,
    slots: int,
    base: float = 6.5e-3,
    slope: float = 1e-4,
    token: float = 27e-6,
    budget: int = 8192,
    chunked: bool = True,
    count: int = 12_000,
    seed: int = 1,
) -> Run:
    """One replica under Poisson arrivals, prompts first come, first served. Not chunked: a prompt is alone in a step of ``base``, before decoding goes on."""
    rng = np.random.default_rng(seed)
    arrival = np.cumsum(rng.exponential(1 / rate, count))
    left = drawn(rng, mix, 0, count) * mix.computed
    answer = np.maximum(np.round(drawn(rng, mix, 1, count)), 1).astype(int)
    first, finish = np.zeros(count), np.zeros(count)
    until: dict[int, list[int]] = {}  # decode step -> requests that end with it
    now, step, head, arrived, running, last = 0.0, 0, 0, 0, 0, 0.0
    gaps, tokens_seen, parts = [], [], _Parts(count)
    while head < count or running:
        if not running and head == arrived and arrival[head] > now:
            now = last = float(arrival[head])
        while arrived < count and arrival[arrived] <= now:
            parts.schedule[arrived] = now - arrival[arrived]
            arrived += 1
        begun: list[int] = []
        if not chunked and head < arrived and running < slots:
            parts.step([(head, left[head] + base / token)], now, arrival, 0.0, token)
            now += base + token * left[head]
            begun.append(head)
        else:
            room, work, at, taken = float(budget - running), 0.0, head, list[tuple[int, float]]()
            while at < arrived and running + len(begun) < slots and room > 0:
                part = min(left[at], room)
                left[at], room, work = left[at] - part, room - part, work + part
                taken.append((at, part))
                if left[at] > 1e-9:
                    break
                begun.append(at)
                at += 1
            parts.step(taken, now, arrival, base + slope * running, token)
            now, step = now + base + slope * running + token * work, step + 1
            if running:
                gaps.append(now - last)
                tokens_seen.append(running)
            last = now
            for i in until.pop(step, ()):
                finish[i], running = now, running - 1
        for i in begun:
            head, first[i], finish[i] = i + 1, now, now
            if answer[i] > 1:
                until.setdefault(step + int(answer[i]) - 1, []).append(i)
                running += 1
            if running == 1:
                last = now
    steady = slice(count // 10, count * 9 // 10)
    middle = slice(len(gaps) // 10, len(gaps) * 9 // 10)
    tpot = (finish - first) / np.maximum(answer - 1, 1)
    found = np.arange(count) - np.searchsorted(np.sort(finish), arrival)
    seen = np.array(gaps)[middle], np.array(tokens_seen, float)[middle]
    return Run((first - arrival)[steady], tpot[steady], (finish - arrival)[steady], *seen, found[steady].astype(float), parts.cut(steady))
