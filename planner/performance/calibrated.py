"""The user's own measurements at work: factors on steps, prompts and overheads of the engines and GPUs that they are of, and how sure they are.

``plan calibrate`` finds the factors (validation/calibrate.py); here they are applied, at every level that fits a replica: the engine on the GPU,
the model on it, and its TP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from planner.catalog.records import Calibration
from planner.performance.replicas import ENGINES, Floats, Replicas


@dataclass(frozen=True)
class Calibrated:
    """Factors [P] on steps, prompts and the overhead of requests; ``sd`` of log(measured/predicted step), nan where nothing is known."""

    step: Floats
    prompt: Floats
    overhead: Floats
    sd: Floats

    @property
    def is_known(self) -> NDArray[np.bool_]:
        """Which rows any measurement of the user speaks for."""
        return np.isfinite(self.sd)


def calibrated(rows: Sequence[Calibration], replicas: Replicas, names: Sequence[str]) -> Calibrated:
    """Of all replica types; ``names`` names the rows of ``replicas.architectures``. Levels come from coarse to fine, so that the finest gives ``sd``."""
    n = len(replicas)
    step, prompt, overhead, sd = np.ones(n), np.ones(n), np.ones(n), np.full(n, np.nan)
    gpus, models = [g.name for g in replicas.gpus], list(names)
    for row in sorted(rows, key=lambda r: (bool(r.architecture), r.tp is not None)):
        if row.gpu not in gpus or (row.architecture and row.architecture not in models):
            continue
        here = (replicas.gpu == gpus.index(row.gpu)) & (replicas.engine == ENGINES.index(row.engine))
        if row.architecture:
            here = here & (replicas.architecture == models.index(row.architecture))
        if row.tp is not None:
            here = here & (replicas.tp == row.tp)
        step[here] *= row.step
        prompt[here] *= row.prompt
        overhead[here] *= row.overhead
        sd[here] = row.step_sd
    return Calibrated(step, prompt, overhead, sd)


def is_of_model(rows: Sequence[Calibration], replicas: Replicas, names: Sequence[str]) -> NDArray[np.bool_]:
    """Replica types [P] of whose very model the user measured, on their GPU and engine."""
    return calibrated([r for r in rows if r.architecture], replicas, names).is_known


def in_words(rows: Sequence[Calibration], gpu: str, engine: str, architecture: str, tp: int) -> str:
    """What the user's measurements do to a replica type; "" where they do not speak for it."""
    mine = [r for r in rows if (r.gpu, r.engine) == (gpu, engine) and r.architecture in ("", architecture) and r.tp in (None, tp)]
    if not mine:
        return ""
    finest = max(mine, key=lambda r: (bool(r.architecture), r.tp is not None))
    of = f"{architecture} TP{tp}" if finest.tp else architecture if finest.architecture else f"other models on {engine}, {gpu}"
    step = float(np.prod([r.step for r in mine]))
    return f"steps x{step:.2f} by {finest.points} of your measurements of {of}, {finest.source}, {finest.as_of}"


def sure_factor(sd: Floats, sure: Floats) -> Floats:
    """Measured over calibrated step [P] that is not exceeded with the confidences ``sure`` [P]: lognormal around the factor."""
    found: Floats = np.exp(sd * np.array([_z(float(s)) for s in sure]))
    return found


@lru_cache(maxsize=1024)
def _z(share: float) -> float:
    return NormalDist().inv_cdf(min(max(share, 1e-6), 1 - 1e-6))
