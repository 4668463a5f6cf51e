"""Quantiles of measured over predicted, out of fold: of all rows, and of each stack (an engine, or an engine on a generation of GPUs).

A stack holds few models, and a model that nobody measured errs in its own way; so each quantile of a stack is the worst of those with one of its
models left out. A stack of too few models or rows has none of its own: the engine's counts, else that of all.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from planner.calibration.fit import step_quantiles
from planner.calibration.measured import FitRows
from planner.performance.coefficients import TIERS, UNSEEN
from planner.performance.replicas import ENGINES, Floats

MODELS, ROWS, CONFIGURATIONS = 3, 40, 5  # that a stack needs: models, and rows and configurations without one of them


def stack_quantiles(rows: FitRows, ratio: Floats, configuration: NDArray[np.str_]) -> dict[str, dict[str, float]]:
    """The quantiles of each "engine" and "engine|generation" that has enough of the rows."""
    found = {}
    for label, here in stacks_of(rows):
        own = np.where(here, ratio, np.nan)
        models = sorted(set(rows.model[np.isfinite(own)].tolist()))
        parts = [np.where(rows.model != model, own, np.nan) for model in models]
        tables = [step_quantiles(part, configuration) for part in parts if _is_enough(part, configuration)]
        if len(models) >= MODELS and tables:
            whole = step_quantiles(own, configuration)
            found[label] = {**_worst([whole, *tables]), "0.5": whole["0.5"]}  # the median is no bound
    return found


def with_unseen(stacks: Mapping[str, Mapping[str, dict[str, float]]], unseen: dict[str, float]) -> dict[str, dict[str, dict[str, float]]]:
    """The quantiles by stack and level, those of an unseen generation beside them for each engine: never nearer to 1 than any tier's of that engine."""
    found = {stack: dict(levels) for stack, levels in sorted(stacks.items())}
    for engine in [stack for stack in found if "|" not in stack]:
        own = [levels[tier] for stack, levels in stacks.items() if stack.partition("|")[0] == engine for tier in TIERS if tier in levels]
        found[engine][UNSEEN] = _worst([unseen, *own])
    return found


def stacks_of(rows: FitRows) -> list[tuple[str, NDArray[np.bool_]]]:
    """Each engine, and each with a generation of GPUs, with its rows."""
    engine = np.array(ENGINES)[rows.replicas.engine]
    generation = np.array([g.generation for g in rows.replicas.gpus])[rows.replicas.gpu]
    both = np.array([f"{e}|{g}" for e, g in zip(engine.tolist(), generation.tolist(), strict=True)])
    return [(label, labels == label) for labels in (engine, both) for label in sorted(set(labels.tolist()))]


def _is_enough(ratio: Floats, configuration: NDArray[np.str_]) -> bool:
    kept = np.isfinite(ratio)
    return int(kept.sum()) >= ROWS and len(set(configuration[kept].tolist())) >= CONFIGURATIONS


def _worst(tables: list[dict[str, float]]) -> dict[str, float]:
    """On either side the one furthest out."""
    return {q: (max if float(q) >= 0.5 else min)(t[q] for t in tables) for q in tables[0]}
