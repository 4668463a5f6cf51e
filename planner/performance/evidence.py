"""Evidence tier of each replica type: how near the nearest measured configuration is.

Keyed on architecture and precision, not on the checkpoint's name, so that checkpoints of one architecture share measurements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.catalog.records import MeasuredConfiguration
from planner.performance.coefficients import TIERS, Coefficients
from planner.performance.replicas import ENGINES, PRECISIONS, Floats, Ints, Replicas

__all__ = ["TIERS", "Evidence", "evidence", "step_shift"]


@dataclass(frozen=True)
class Evidence:
    """``tier`` [P] indexes TIERS, ``nearest`` [P] the measured configurations (-1 = none near)."""

    tier: Ints
    nearest: Ints


def evidence(replicas: Replicas, architecture_names: tuple[str, ...], measured: Sequence[MeasuredConfiguration]) -> Evidence:
    """Tiers of all replica types; ``architecture_names`` names the rows of ``replicas.architectures``.

    measured: architecture, precision, GPU, engine and TP were measured; anchored: architecture and GPU;
    transferred: the GPU with another model; modelled: nothing near. PP was never measured, so PP > 1 is at best anchored.
    """
    ours = _ours(replicas)
    theirs = _theirs(replicas, architecture_names, measured)
    # From far to near: each nearer match overwrites. Columns: GPU, architecture, precision, engine, TP, PP.
    tier, nearest = np.full(len(replicas), 3), np.full(len(replicas), -1)
    for level, columns in ((2, [0]), (1, [0, 1]), (1, [0, 1, 3]), (1, [0, 1, 2]), (1, [0, 1, 2, 3]), (0, [0, 1, 2, 3, 4, 5])):
        found = _look_up(ours[:, columns], theirs[:, columns])
        tier, nearest = np.where(found >= 0, level, tier), np.where(found >= 0, found, nearest)
    return Evidence(tier, nearest)


def _ours(r: Replicas) -> Ints:
    return np.stack((r.gpu, r.architecture, r.precision, r.engine, r.tp, r.pp), axis=1)


def _theirs(replicas: Replicas, names: tuple[str, ...], measured: Sequence[MeasuredConfiguration]) -> Ints:
    gpus = {g.name: i for i, g in enumerate(replicas.gpus)}
    architectures = {name: i for i, name in enumerate(names)}
    precisions, engines = ({p: i for i, p in enumerate(PRECISIONS)}, {e: i for i, e in enumerate(ENGINES)})
    rows = [(gpus.get(m.gpu, -1), architectures.get(m.architecture, -1), precisions.get(m.precision, -1), engines.get(m.engine, -1), m.tp, 1) for m in measured]
    return np.array(rows, dtype=np.int64).reshape(len(rows), 6)


def _look_up(ours: Ints, theirs: Ints) -> NDArray[np.int64]:
    """Index of the first row of ``theirs`` equal to each row of ``ours``, or -1. Columns are small whole numbers."""
    if not len(ours) or not len(theirs):
        return np.full(len(ours), -1, dtype=np.int64)
    radix = np.maximum(ours.max(axis=0), theirs.max(axis=0)) + 2
    place = np.concatenate((np.cumprod(radix[::-1])[::-1][1:], [1]))
    mine, known = (ours + 1) @ place, (theirs + 1) @ place
    keys, first = np.unique(known, return_index=True)
    at = np.minimum(np.searchsorted(keys, mine), len(keys) - 1)
    return np.where(keys[at] == mine, first[at], -1)


def step_shift(found: Evidence, replicas: Replicas, architecture_names: tuple[str, ...], coefficients: Coefficients, confidence: float) -> Floats:
    """Factor on the step curves [P]: the one place where measurements and confidence enter (``StepCurves.scaled``).

    Where this architecture, precision, GPU and engine were measured, the curve is first pulled to the measurements by their
    mean residual. The quantile of the tier follows; for measured configurations it is that of the corrected prediction.
    A GPU of a generation never tested takes the quantile of such generations whatever its tier, unless it was pulled: evidence
    that is not in the fit did not move the curve.
    """
    pulled = _corrections(replicas, architecture_names, coefficients)
    near = (found.tier <= 1) & (pulled > 0)
    unseen = coefficients.unseen(replicas) & ~near
    factor = coefficients.step_factor(np.where(unseen, len(TIERS), found.tier), confidence)
    quantile = np.where(near & (found.tier == 0), coefficients.quantile("corrected", confidence), factor)
    return np.where(near, pulled, 1.0) * quantile


def _corrections(replicas: Replicas, names: tuple[str, ...], coefficients: Coefficients) -> Floats:
    """The correction of each replica's architecture, precision, GPU and engine; 0 where there is none."""
    rows = coefficients.corrections
    indices = [
        {name: i for i, name in enumerate(names)},
        {g.name: i for i, g in enumerate(replicas.gpus)},
        {p: i for i, p in enumerate(PRECISIONS)},
        {e: i for i, e in enumerate(ENGINES)},
    ]
    keys = ("architecture", "gpu", "precision", "engine")
    theirs = np.array([[index.get(row[key], -1) for index, key in zip(indices, keys, strict=True)] for row in rows], dtype=np.int64)
    ours = np.stack((replicas.architecture, replicas.gpu, replicas.precision, replicas.engine), axis=1)
    at = _look_up(ours, theirs.reshape(len(rows), 4))
    factors = np.array([*(float(row["factor"]) for row in rows), 0.0])
    return factors[at]
