"""How long a finite job takes: so many requests, a fixed number of them in flight until the last is sent, on equal replicas.

While every place is taken it is a closed loop. Before, prompts alone fill the replica; after, the last answers run out with ever fewer beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from planner.performance.closed import Closed, ClosedLoop, at_in_flight, loop, ttft_s
from planner.performance.lengths import LengthMix
from planner.performance.replicas import Floats
from planner.performance.step import StepCurves

QUANTILES = 20_000  # of answers
BINS = 1_000  # of the longest answer
ROUNDS = 8  # after which it is forgotten that all began together


@dataclass(frozen=True)
class Completion:
    """A finite job's time from the first request to the last token, and what it does to the rate.

    ``full_s``: all its requests at the rate of a full loop; ``begin_s`` and ``end_s``: what filling and running out add to that. Requests/s of all
    replicas while full; ``in_flight`` on each of them then; ``decoding`` of those; mean TTFT and TPOT (s) then.
    """

    full_s: float
    begin_s: float
    end_s: float
    qps: float
    in_flight: float
    decoding: float
    ttft_s: float
    tpot_s: float

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.full_s + self.begin_s + self.end_s


def completion(curves: StepCurves, mix: LengthMix, requests: int, concurrency: int, replicas: int, max_num_seqs: int) -> Completion:
    """The time that ``requests`` take with ``concurrency`` of them in flight, spread evenly over replicas of one row of ``curves``.

    With D(b) the decode step of b sequences, B decoding in the full loop and X its rate (``closed``), a replica that serves m requests takes

        m/X + sum over steps of [D(b_k) - b_k D(B)/B]    of the steps in which b_k < B decode:

    every prompt is computed once and every token decoded once, so steps that are not full cost what they take beyond their share of full ones. While the
    first prompts are computed b_k rises to B; once the last request decodes, b_k falls with the residual answers (those in progress at any
    time: longer ones are met more often). Where all requests are in flight at once there is no loop: whole answers run out. The job ends with
    the last answer of all replicas. Raises ValueError for numbers below 1.
    """
    if min(requests, concurrency, replicas, max_num_seqs) < 1:
        raise ValueError("requests, concurrency, replicas and max_num_seqs must be at least 1")
    made = loop(curves, mix, np.array([max_num_seqs]))
    places = min(concurrency, requests) / replicas
    s = at_in_flight(made, np.array([[places]]))
    rate = float(s.rate[0, 0]) * min(places, 1.0)  # fewer requests than replicas leave some idle
    most = min(places, float(made.slots[0, 0]))
    rounds = requests / replicas / most
    busy = most if rounds <= 1 else float(s.decoding[0, 0])
    per_token = float(_step(made, s.decoding[0])[0]) / max(float(s.decoding[0, 0]), 1.0)  # D(B)/B
    everywhere = max(busy * min(replicas, requests), busy)
    return Completion(
        full_s=requests / replicas / rate,
        begin_s=_begin(made, s, busy, per_token),
        end_s=_end(made, busy, everywhere, per_token, *_left(mix, rounds)),
        qps=rate * replicas,
        in_flight=places,
        decoding=float(s.decoding[0, 0]),
        ttft_s=float(ttft_s(made, s)[0, 0]),
        tpot_s=float(s.tpot[0, 0]),
    )


def _begin(made: ClosedLoop, s: Closed, busy: float, per_token: float) -> float:
    """What the first prompts add: as many steps as they need, with ever more sequences beside them, and the overhead of the first request."""
    beside = busy * (np.arange(64) + 0.5) / 64
    tokens, is_chunked = made.mix.computed * made.mix.mean_input, made.curves.whole_prompt_s is None
    steps = busy * tokens / float(s.room[0, 0]) if is_chunked else busy
    return steps * float((_step(made, beside) - beside * per_token).mean()) + float(made.overhead[0, 0])


def _end(made: ClosedLoop, busy: float, everywhere: float, per_token: float, k: Floats, share: Floats) -> float:
    """What the last answers add: steps until the longest of ``everywhere`` ends, less what their tokens cost in full steps."""
    ended = np.log1p(-np.minimum(share, 1 - 1e-12))
    here, anywhere = -np.expm1(busy * ended), -np.expm1(everywhere * ended)  # P(any left)
    return float(np.trapezoid(anywhere * _step(made, busy * share / np.maximum(here, 1e-12)) - busy * share * per_token, k))


def _step(made: ClosedLoop, sequences: Floats) -> Floats:
    """D(b); a step of less than one sequence is one of one."""
    found: Floats = np.interp(np.maximum(sequences, 1.0), made.curves.n, made.curves.step_s[0])
    return found


def _left(mix: LengthMix, rounds: float) -> tuple[Floats, Floats]:
    """(decode steps k, share of the places whose answer has more than k to go) as the last of so many requests per place begins.

    A renewal process in bins of steps: with answers of l bins at p(l), a place begins anew at t with u(t) = sum p(l) u(t - l), u(0) = 1.
    As sum u reaches ``rounds``, sum over s of u(s) P(l > t - s + k) have more than k to go. After many rounds that is the residual of an answer in progress.
    """
    steps = np.maximum(_answers(mix) - 1, 1e-3)
    width = float(steps.max()) / BINS
    p = np.bincount(np.clip(np.rint(steps / width), 1, BINS).astype(np.int64), minlength=BINS + 1) / len(steps)
    longer: Floats = np.maximum(1 - np.cumsum(p), 0.0)  # P(l > 0), P(l > 1), ...
    k: Floats = width * np.arange(BINS + 1, dtype=np.float64)
    if rounds > ROUNDS:
        return k, np.cumsum(longer[::-1])[::-1] / longer.sum()
    begun = [1.0]
    while sum(begun) < rounds:
        begun.append(float(p[1 : len(begun) + 1] @ begun[: -BINS - 1 : -1]))
    begun[-1] -= max(sum(begun) - rounds, 0.0)
    found = np.zeros(BINS + 1)
    for age, many in enumerate(begun[: -BINS - 1 : -1]):
        found[: BINS + 1 - age] += many * longer[age:]
    return k, np.minimum(found, 1.0)


def _answers(mix: LengthMix) -> Floats:
    """Equally likely answers, tokens: quantiles of the law, else the points there are."""
    if mix.law is None or mix.law.cv[1] == 0:
        return mix.output_tokens
    sigma = np.sqrt(np.log1p(mix.law.cv[1] ** 2))
    normal = np.array([NormalDist().inv_cdf((i + 0.5) / QUANTILES) for i in range(QUANTILES)])
    lengths = np.minimum(np.exp(sigma * normal - sigma * sigma / 2), mix.law.cap[1])
    found: Floats = lengths * (mix.mean_output / lengths.mean())
    return found
