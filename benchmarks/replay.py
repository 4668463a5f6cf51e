"""Replays a short benchmark run: Poisson arrivals of equal requests at one replica whose step curve is known, from start to the last answer.

Long runs settle, and the formulas of the planner describe that; a run of some hundred requests does not, so its percentiles are its own.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from planner.performance.replicas import Floats
from planner.performance.step import StepCurves


def replay(curves: StepCurves, isl: int, osl: int, rate: float, slots: int, count: int, seed: int) -> dict[str, Floats]:
    """Seconds of ttft, tpot and e2e of ``count`` requests at the first replica type of ``curves``, [count] each.

    Each step decodes all sequences and prefills waiting prompts within its token budget, first come first served.
    """
    n = np.arange(slots + 1)
    step = np.interp(n, curves.n, curves.step_s[0]).tolist()
    token, overhead, budget = float(curves.prefill_s_per_token[0]), float(curves.overhead_s[0]), curves.batched_tokens
    arrival = np.cumsum(np.random.default_rng(seed).exponential(1 / rate, count))
    first, last, left = np.zeros(count), np.zeros(count), [isl] * count
    running: deque[tuple[int, int]] = deque()  # (step of its last token, request), in the order in which they end
    now, steps, head, arrived = 0.0, 0, 0, 0
    while head < count or running:
        if not running and head < count:
            now = max(now, arrival[head])
        while arrived < count and arrival[arrived] <= now:
            arrived += 1
        done, prompts = [], 0
        while head < arrived and len(running) + len(done) < slots and prompts < budget - len(running):
            part = min(left[head], budget - len(running) - prompts)
            left[head] -= part
            prompts += part
            if left[head]:
                break
            done.append(head)
            head += 1
        now += step[len(running)] + token * prompts
        steps += 1
        while running and running[0][0] <= steps:
            last[running.popleft()[1]] = now
        for i in done:
            first[i] = now
            running.append((steps + osl - 1, i))
    return {"ttft": overhead + first - arrival, "tpot": (last - first) / (osl - 1), "e2e": overhead + last - arrival}
