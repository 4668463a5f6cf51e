"""Bursts: all requests sent at once, as throughput benchmarks do. Tokens/s from the first moment until the last answer ends.

While requests wait all slots are full; then the slots drain, for as long as the longest answer that is left, and steps carry ever fewer.
"""

from __future__ import annotations

import numpy as np

from planner.performance.lengths import LengthMix
from planner.performance.replicas import Floats, Ints
from planner.performance.step import StepCurves

DRAIN_POINTS = 64  # of the longest answer


def burst_tps(curves: StepCurves, mix: LengthMix, max_num_seqs: Ints, requests: Floats) -> Floats:
    """Output tokens/s [P] of bursts of ``requests`` [P], infinite for the saturated rate. Rows with max_num_seqs < 1 get one slot; callers drop them.

    The first token of an answer is that of its prompt, so o - 1 are decoded. Slots refilled one after another hold answers in all
    stages, so that a share E[(o - t)+]/E[o] of them is left t steps after the last was refilled; those filled together end at o.
    """
    answers = np.maximum(mix.output_tokens - 1, 0.0)
    mean, seqs = max(float(answers.mean()), 1e-9), np.minimum(np.maximum(max_num_seqs, 1), requests)
    middle, width = (np.arange(DRAIN_POINTS) + 0.5) * (answers.max() / DRAIN_POINTS), answers.max() / DRAIN_POINTS
    staggered = np.maximum(answers - middle[:, None], 0.0).mean(axis=1) / mean
    together = (answers > middle[:, None]).mean(axis=1)
    left = seqs[:, None] * np.where((requests > seqs)[:, None], staggered, together)
    drained, drain_s = left.sum(axis=1) * width, _steps(curves, left).sum(axis=1) * width
    full = np.maximum(mean - drained / requests, 0.0) / seqs * _steps(curves, seqs[:, None])[:, 0]
    found: Floats = mix.mean_output / (curves.prompt_s(mix.input_tokens).mean(axis=1) + full + (drain_s + curves.overhead_s) / requests)
    return found


def _steps(curves: StepCurves, sequences: Floats) -> Floats:
    """Seconds of a step with these many sequences [P, K] on each row's curve; fewer than one cost as much as one."""
    at = np.clip(sequences, curves.n[0], curves.n[-1])
    low = np.clip(np.searchsorted(curves.n, at, side="right") - 1, 0, len(curves.n) - 2)
    share = (at - curves.n[low]) / (curves.n[low + 1] - curves.n[low])
    rows = np.arange(len(curves))[:, None]
    found: Floats = curves.step_s[rows, low] * (1 - share) + curves.step_s[rows, low + 1] * share
    return found
