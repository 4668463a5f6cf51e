"""Prompt tokens that steps leave over: a queue served once a step, with room for so many tokens, that prompts join as steps end.

U' = max(U + A - R, 0), A the tokens that come with a step (compound Poisson), R its room. With X = A - R and I = max(R - U - A, 0), U' I = 0, so that
E[(U + X)^k] = E[U'^k] + (-1)^k E[I^k]: the moments of U from those of I (Lindley, Kingman). Of I only E[I] = R - E[A] is known; its higher moments are
taken to be to that as those of max(R - A, 0) are, which is exact for prompts far longer than a step and far shorter ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import comb

import numpy as np

from planner.performance.chain import Rows
from planner.performance.tails import gamma_tail

FEEDBACK = 5.0  # (1 + 5 k)^(-1/5): the mean of a normal density cut at 0 over that of its exponential limit, within 3 % up to k = 2, and more above
HEAVY = 3.0  # E[U^3] E[U] / E[U^2]^2 at most: 1.5 where the tail is exponential, more for prompts that vary; small U are differences of large numbers


@dataclass(frozen=True)
class Backlog:
    """Tokens left over when a step begins, [P, 1]: mean, variance, third central moment, and the probability that there are any; the room that a step
    has to spare which leaves nothing over, with its central moments."""

    mean: Rows
    var: Rows
    third: Rows
    any: Rows
    spare: Rows
    spare_var: Rows
    spare_third: Rows
    spread: Rows  # variance of the tokens that a step takes

    def oftener(self, factor: Rows) -> Backlog:
        """The same tokens left over, so many times as often."""
        first, second = self.mean * factor, (self.var + self.mean**2) * factor
        third = (self.third + 3 * self.mean * self.var + self.mean**3) * factor
        some = np.minimum(self.any * factor, 1 - 1e-9)
        return replace(self, mean=first, var=second - first**2, third=third - 3 * first * second + 2 * first**3, any=some)


def backlog(arrivals: Rows, tokens: tuple[Rows | float, ...], room: Rows, load: Rows, steps: float) -> Backlog:
    """``arrivals`` prompts a step, ``tokens``: E[tokens^k] of one, k = 1 to 4, that fill ``load`` < 1 of the room.

    Of a fixed number of requests those that wait end no answer for ``steps`` steps, so a long backlog brings fewer: a drift towards the mean, under which
    an exponential tail becomes that of a normal density cut off at 0.
    """
    a, (i1, i2, i3, i4) = arrivals, tokens
    idle = room * (1 - load)
    k2, k3, k4 = a * i2, a * i3, a * i4
    x2, x3, x4 = k2 + idle**2, k3 - 3 * idle * k2 - idle**3, k4 + 3 * k2**2 - 4 * idle * k3 + 6 * idle**2 * k2 + idle**4
    spare = _spare(a, i1, i2, room)
    some = idle / spare[1]
    first = np.maximum(np.maximum((x2 - some * spare[2]) / (2 * idle), spare[1] - idle), 1e-12 * room)
    second = np.maximum(np.maximum((3 * first * x2 + x3 + some * spare[3]) / (3 * idle), x2 - spare[2]), 1.01 * first**2)
    third = np.minimum((6 * second * x2 + 4 * first * x3 + x4 - some * spare[4]) / (4 * idle), HEAVY * second**2 / first)
    var = second - first**2
    third = np.maximum(third - 3 * first * second + 2 * first**3, 0.0)
    k = k2 / (2 * idle**2 * steps)
    less = (1 + FEEDBACK * k) ** (-1 / FEEDBACK)
    smooth = np.minimum(var, first**2)  # of many small prompts; the rest is that of single long ones, which the drift takes back in ``steps``
    narrower, drift = (1 - less) / k, first * less / (idle * steps)
    bulk = np.minimum(third, 2 * smooth * np.sqrt(smooth))
    third = bulk * narrower**2 + (third - bulk) / (1 + 3 * drift)
    var = smooth * narrower + (var - smooth) / (1 + 2 * drift)
    ends = np.clip(some * spare[0], 1e-9, 1.0)  # steps that leave nothing over
    room_left, square, cube = idle / ends, some * spare[2] / ends, some * spare[3] / ends
    spare_var = np.maximum(square - room_left**2, 0.0)
    return Backlog(
        first * less, var, third, 1 - ends, room_left, spare_var, cube - 3 * room_left * square + 2 * room_left**3, np.maximum(some * spare[2] - idle**2, 0.0)
    )


def _spare(a: Rows, i1: Rows | float, i2: Rows | float, room: Rows) -> list[Rows]:
    """E[J^k], k = 0 to 4, of the room J = max(R - A, 0) that a step has beyond what came with it; A is 0, or gamma."""
    free = np.exp(-a)
    busy = -np.expm1(-a)
    mean = a * i1 / busy
    var = np.maximum((a * i2 + (a * i1) ** 2) / busy - mean**2, 1e-6 * mean**2)
    scale = var / mean
    moment, below = [np.ones_like(mean)], []
    for k in range(5):  # x^k times a gamma density is one of a larger shape
        shifted = mean + k * scale
        below.append(1 - gamma_tail(room, shifted, shifted * scale))
        moment.append(moment[-1] * shifted)
    return [free * room**p + busy * sum(comb(p, k) * room ** (p - k) * (-1) ** k * moment[k] * below[k] for k in range(p + 1)) for p in range(5)]
