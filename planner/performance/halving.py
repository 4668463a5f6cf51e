"""Bisection some levels at a time: what one evaluation of a formula costs hardly depends on the number of rows while these are few."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from planner.performance.replicas import Floats

TOGETHER = 128  # rows evaluated at once that cost little more than one
DEEPEST = 6


def levels(rows: int) -> int:
    """Halvings of each of so many brackets that one evaluation can answer; 1 where rows are many."""
    return min(DEEPEST, max(1, (TOGETHER // max(rows, 1) + 1).bit_length() - 1))


def edges(low: Floats, high: Floats, deep: int, whole: Callable[[Floats], Floats] = np.asarray) -> Floats:
    """[P, 2^deep + 1]: both ends of each bracket [P], and all that halving it may come to; ``whole`` rounds the middles."""
    found = np.stack((low, high), axis=1)
    for _ in range(deep):
        finer = np.empty((len(found), 2 * found.shape[1] - 1))
        finer[:, ::2], finer[:, 1::2] = found, whole((found[:, :-1] + found[:, 1:]) / 2)
        found = finer
    return found


def halved(at: Floats, held: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """The bracket [P], [P] that bisection comes to, whose lower end holds: ``held`` [P, 2^deep - 1] at the inner edges."""
    rows, place, size = np.arange(len(at)), np.zeros(len(at), dtype=np.int64), held.shape[1] + 1
    while size > 1:
        size //= 2
        place = np.where(held[rows, place + size - 1], place + size, place)
    return at[rows, place], at[rows, place + 1]
