"""How long an engine works for one request, in parts: what a plan's cost is split by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.performance.coefficients import Coefficients
from planner.performance.lengths import LengthMix
from planner.performance.replicas import Replicas
from planner.performance.step import StepCurves, step_curves


@dataclass(frozen=True)
class Work:
    """Engine seconds of a mean request.

    prompt_s: its new prompt tokens. cached_s: the cached ones, which are found and not computed: half of the attention that new ones pay to
    them, as a pair's work belongs to both ends; so they never cost more than new ones. answer_s: its share of the decode steps, for all tokens
    written, reasoning included.
    """

    prompt_s: float
    cached_s: float
    answer_s: float


def work_of(replica: Replicas, curves: StepCurves, mix: LengthMix, coefficients: Coefficients, in_flight: float, max_num_seqs: int) -> Work:
    """The work of one row with so many requests in flight on each decoding engine.

    A decode step D(n) is shared by the n sequences in it, so a token costs D(n)/n. The attention to cached tokens is the difference that the
    physics makes between the prompt's new tokens behind them and the same tokens alone.
    """
    n = min(max(in_flight, 1.0), float(max_num_seqs))
    answer = mix.mean_output * float(np.interp(n, curves.n, curves.step_s[0])) / n
    prompt = float(curves.prompt_s(mix.mean_input)[0, 0])
    cached = prompt * _cached_share(replica, curves, mix, coefficients) / 2
    return Work(prompt - cached, cached, answer)


def _cached_share(replica: Replicas, curves: StepCurves, mix: LengthMix, coefficients: Coefficients) -> float:
    """Share of a prompt's work that is attention to its cached part."""
    if not mix.cached:
        return 0.0
    chunked, one = curves.whole_prompt_s is None, np.ones(1)
    new = LengthMix(mix.input_tokens * mix.computed, mix.output_tokens)
    behind, alone = (step_curves(replica, m, coefficients, one, curves.batched_tokens, chunked) for m in (mix, new))
    times = [float(c.prompt_s(m.mean_input)[0, 0]) for c, m in ((behind, mix), (alone, new))]
    return max(1 - times[1] / times[0], 0.0)
