"""How well an engine is tuned, as a dimension of evidence: what a question supposes of it, and the factors on steps that follow.

Predictions are of engines as campaigns and vendors set them (a recipe). Engines as they start are slower, those of submissions faster, each by a
factor whose spread over setups is far wider than the error of a prediction: catalogs/tuning.csv holds its quantiles by engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import get_args

import numpy as np

from planner.catalog.catalog import Catalog
from planner.catalog.records import TunedEngine
from planner.errors import CatalogError
from planner.performance.coefficients import Coefficients, interpolated, load_coefficients
from planner.performance.replicas import ENGINES, Floats, Replicas
from planner.scenario.records import Scenario, Tuning

RECIPE: Tuning = "recipe"
TUNINGS: tuple[Tuning, ...] = get_args(Tuning)
SHARES = (0.05, 0.2, 0.5, 0.8, 0.9, 0.95)


def coefficients_for(scenario: Scenario, catalog: Catalog) -> Coefficients:
    """The fitted values with all that a scenario supposes of them. Raises CatalogError."""
    found = load_coefficients(catalog.coefficients_file)
    return replace(
        found, slower=scenario.what_if.step_factor, draw=scenario.what_if.draw, tuned=tuned(scenario.policy.tuning, catalog), calibrated=catalog.calibrated
    )


def taken_for(catalog: Catalog, engine: str, tunings: Iterable[Tuning]) -> dict[str, str]:
    """The engines whose factors an engine takes, by tuning, where nothing is known of its own so tuned: the slowest of these counts."""
    found = {t: sorted(e for name, e in catalog.tuned if name == t) for t in tunings if t != RECIPE and (t, engine) not in catalog.tuned}
    return {t: ", ".join(engines) for t, engines in found.items() if engines}


def tuned(tuning: Tuning, catalog: Catalog) -> Mapping[str, Mapping[str, float]]:
    """Quantiles of the factor by engine; none for a recipe. Raises CatalogError where the catalogue knows no engine so tuned."""
    found = {engine: quantiles(row) for (name, engine), row in catalog.tuned.items() if name == tuning}
    if tuning != RECIPE and not found:
        raise CatalogError(f"nothing is known of engines tuned as '{tuning}'", "tuning.csv", "leave --tuning out, or add rows to a catalogue of your own")
    return found


def quantiles(row: TunedEngine) -> dict[str, float]:
    """Share -> factor not exceeded with it."""
    return {str(share): getattr(row, f"q{100 * share:02.0f}") for share in SHARES}


def tuned_factor(coefficients: Coefficients, replicas: Replicas, sure: Floats, band: Floats) -> Floats:
    """Factor [P] on what a recipe's step takes with the confidence ``sure`` [P], where ``band`` [P] of it is confidence: 1 for a recipe.

    The median of the engine's tuning times, where it is the wider of the two, its own spread instead of the prediction's. An engine of
    which nothing is known takes the slowest one's.
    """
    if not coefficients.tuned:
        return np.ones(len(replicas))
    tables = [coefficients.tuned.get(engine) for engine in ENGINES]
    known = [t for t in tables if t]
    middle, spread = np.zeros(len(replicas)), np.zeros(len(replicas))
    for i, table in enumerate(tables):
        rows = replicas.engine == i
        for t in [table] if table else known:
            at = interpolated(t, sure[rows])
            slower = at > spread[rows]
            middle[rows] = np.where(slower, interpolated(t, np.full(int(rows.sum()), 0.5)), middle[rows])
            spread[rows] = np.where(slower, at, spread[rows])
    own = spread / middle
    wider: Floats = np.where(sure >= 0.5, np.maximum(own, band), np.minimum(own, band)) / band
    return middle * wider
