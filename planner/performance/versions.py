"""Which version of an engine a prediction stands for, and when what a row tells of its own was measured.

The rule at plan time is ``Residual.measured_in``: the newest measurement of the same model, GPU, precision and engine. Only what is pulled to
measurements stands for a version; elsewhere the physics is an average over all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from planner.performance.replicas import ENGINES, Replicas
from planner.performance.residual import UNDATED, Residuals, features, month_of, month_words


def month_told(residuals: Residuals, engine: str, version: str, date: str) -> float:
    """The month that a row tells, by its engine's version where that was measured, else by its date; nan where neither says when."""
    month = month_of(date)
    newest = residuals.newest.get((engine, version.removeprefix("v"))) if version else None
    if newest is not None:
        return float(min(month, newest) if month != UNDATED else newest)
    return float(month) if month != UNDATED else np.nan


def stands_for(replicas: Replicas, names: Sequence[str], residuals: Residuals, row: int) -> str:
    """Engine, version and month whose measurements a pulled prediction is of, as far as they are known: "vllm 0.19.0, 2026-04"."""
    process = residuals.tpot
    if process is None:
        return ""
    asked = features(replicas.take(np.array([row])), names, np.ones(1), np.ones(1))
    month = process.measured_in(asked)[0]
    if np.isnan(month):
        return ""
    trained = zip(process.trained.family, process.trained.months.tolist(), residuals.versions, strict=True)
    version = next((v for family, m, v in trained if v and (family, m) == (asked.family[0], month)), "")
    engine = f"{ENGINES[int(replicas.engine[row])]} {version}".strip()
    return ", ".join(w for w in (engine, month_words(month)) if w)
