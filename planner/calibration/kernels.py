"""Finds the parameters of the process's kernels: those that predict best what is left out, group by group.

A group's rows predicted from all others need no second solve (Rasmussen and Williams 2006, 5.4.2, for blocks): with Q the inverse of the covariance and
B the block, y - predicted = inverse(Q_BB) (Q y)_B. The loss of these errors has a gradient in closed form, so few steps find the parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from planner.performance.replicas import Floats, Ints
from planner.performance.residual import FAMILY, GROUPS, Features, Kernel, shared_numbers

# First guesses: standard deviations by group and of the dated part, length scales in doublings of load, input, output and TP, and in months, noise.
GUESS = {
    "tpot": ((0.03, 0.05, 0.1, 0.1, 0.2, 0.1, 0.06), 0.12, (4.0, 4.5, 4.5, 1.3), 1.0, 0.05),
    "ttft": ((0.06, 0.16, 0.2, 0.4, 0.25, 0.08, 0.1), 0.2, (3.5, 2.0, 4.5, 2.1), 1.0, 0.16),
}
SCALE = {"tpot": 0.05, "ttft": 0.05}  # errors beyond count in proportion, not squared
SHRINK = 0.002  # towards the guesses
SMALLEST, LARGEST = 0.005, 1.0  # standard deviations
LENGTHS, MONTHS, NOISE = (0.3, 20.0), (0.5, 40.0), (0.02, 1.0)
STEPS = 60


@dataclass(frozen=True)
class Rows:
    """Residuals to learn from: [P] each."""

    asked: Features
    loads: Floats  # log2
    missed: Floats  # log(measured/physics), nan where not measured
    weight: Floats


@dataclass(frozen=True)
class _Task:
    """The rows in use [N], and what the loss needs of them at every step."""

    y: Floats
    weight: Floats  # adds up to 1
    scale: float
    same: tuple[NDArray[np.bool_], ...]  # by group [N, N]
    apart: tuple[Floats, ...]  # squared distances in load, input, output, TP [N, N]
    months: Floats  # squared distances [N, N]
    blocks: tuple[tuple[Ints, float], ...]  # rows left out together, and what their errors count
    start: Floats


def fit_kernel(metric: str, rows: Rows, folds: Sequence[tuple[NDArray[np.str_], float]]) -> Kernel:
    """The parameters that predict best what is left out group by group, over several groupings with their weights."""
    task = _task(metric, rows, folds)
    limits = [(SMALLEST, LARGEST)] * (len(GROUPS) + 1) + [LENGTHS] * 4 + [MONTHS, NOISE]
    bounds = [(np.log(low), np.log(high)) for low, high in limits]
    found = minimize(lambda x: _loss(x, task), task.start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": STEPS, "ftol": 1e-5})
    values = np.exp(found.x).round(4)
    load, *lengths, months, noise = values[len(GROUPS) + 1 :].tolist()
    return Kernel((values[: len(GROUPS)] ** 2), load, (lengths[0], lengths[1], lengths[2]), noise, float(values[len(GROUPS)] ** 2), months)


def _task(metric: str, rows: Rows, folds: Sequence[tuple[NDArray[np.str_], float]]) -> _Task:
    kept = np.flatnonzero(np.isfinite(rows.missed))
    asked = rows.asked.take(kept)
    numbers = [shared_numbers(keys, keys)[0] for keys in asked.keys]
    places = (rows.loads[kept], *asked.logs.T)
    blocks = [(np.flatnonzero(labels[kept] == label), share) for labels, share in folds for label in sorted(set(labels[kept].tolist()))]
    sd, dated, lengths, months, noise = GUESS[metric]
    return _Task(
        y=rows.missed[kept],
        weight=rows.weight[kept] / rows.weight[kept].sum(),
        scale=SCALE[metric],
        same=tuple(n[:, None] == n[None, :] for n in numbers),
        apart=tuple((p[:, None] - p[None, :]) ** 2 for p in places),
        months=(asked.months[:, None] - asked.months[None, :]) ** 2,
        blocks=tuple(blocks),
        start=np.log([*sd, dated, *lengths, months, noise]),
    )


def _loss(x: Floats, task: _Task) -> tuple[float, Floats]:
    """The loss at log parameters ``x`` and its gradient: dL/dK = -Q (dL/dQ) Q, then by each parameter of K."""
    values, groups = np.exp(x), len(GROUPS)
    variance, dated, lengths, months, noise = values[:groups] ** 2, values[groups] ** 2, values[groups + 1 : -2], values[-2], values[-1]
    near = np.exp(-0.5 * np.sum([d / length**2 for d, length in zip(task.apart, lengths, strict=True)], axis=0))
    faded = dated * task.same[GROUPS.index(FAMILY)] * np.exp(-0.5 * task.months / months**2) * near
    kernel = faded + near * np.sum([v * same for v, same in zip(variance, task.same, strict=True)], axis=0)
    inverse = np.linalg.inv(kernel + noise**2 * np.eye(len(task.y)))
    total, by_inverse = _left_out(inverse, task)
    slope = -(inverse @ by_inverse @ inverse)
    each = [2 * v * float(np.sum(slope * near, where=same)) for v, same in zip(variance, task.same, strict=True)]
    each.append(2 * float(np.sum(slope * faded)))
    whole = slope * kernel
    each += [float(np.sum(whole * d)) / length**2 for d, length in zip(task.apart, lengths, strict=True)]
    each += [float(np.sum(slope * faded * task.months)) / months**2, 2 * noise**2 * float(np.trace(slope))]
    off = x - task.start
    return total + SHRINK * float(off @ off), np.array(each) + 2 * SHRINK * off


def _left_out(inverse: Floats, task: _Task) -> tuple[float, Floats]:
    """The loss of all blocks, each predicted without itself, and its derivative by the inverse of the covariance [N, N]."""
    solved, total = inverse @ task.y, 0.0
    by_solved, by_inverse = np.zeros(len(task.y)), np.zeros_like(inverse)
    for block, share in task.blocks:
        here = np.ix_(block, block)
        factor = cho_factor(inverse[here], lower=True)
        error = cho_solve(factor, solved[block])
        root = np.sqrt(1 + (error / task.scale) ** 2)
        total += share * float(task.weight[block] @ (root - 1))
        back = cho_solve(factor, share * task.weight[block] * error / task.scale**2 / root)
        by_solved[block] += back
        by_inverse[here] -= np.outer(back, error)
    return total, by_inverse + np.outer(by_solved, task.y)
