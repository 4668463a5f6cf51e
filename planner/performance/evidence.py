"""Evidence tier of each replica type: how near the nearest measured configuration is.

Keyed on architecture and precision, not on the checkpoint's name, so that checkpoints of one architecture share measurements.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from planner.catalog.records import MeasuredConfiguration
from planner.performance.calibrated import calibrated, sure_factor
from planner.performance.coefficients import TIERS, UNSEEN, Coefficients
from planner.performance.lengths import LengthMix
from planner.performance.replicas import DP_ENGINES, ENGINES, FP8_KV, PRECISIONS, Floats, Ints, Replicas
from planner.performance.residual import LOADS, OTHER_TP, Residuals, between_loads, features, residuals_of
from planner.performance.tuning import RECIPE, tuned_factor
from planner.performance.versions import stands_for as version_words
from planner.scenario.records import Tuning

__all__ = ["TIERS", "Evidence", "Shift", "evidence", "step_shift"]
PROMPT_LOADS = 10.0  # log2: loads whose mean residual stands for that of prompts
# Mean squared difference of two configurations' log(measured/physics TPOT) on one GPU, by what they differ in: another precision, another engine
# (or attention data parallel), each doubling of TP, each doubling of active weights. Least squares without negative weights over the 1,498 pairs of
# catalogs/curves.csv; another architecture, dense against sparse, and the kind of attention add nothing once these are known. tests/test_evidence.py
# finds them again.
APART = {"precision": 0.0168, "engine": 0.0202, "tp": 0.0013, "active": 0.0037}
CALIBRATED = "calibrated"  # the word of what the user measured: counts as anchored where tiers are ordered
FAR = 100.0  # doublings: more than any two models are apart


@dataclass(frozen=True)
class Evidence:
    """``tier`` [P] indexes TIERS, ``nearest`` [P] the measured configurations (-1 = none near)."""

    tier: Ints
    nearest: Ints
    months: Floats | None = None  # [P]: when what is asked about ran, where that is told (``Features.months``)

    def take(self, rows: Ints) -> Evidence:
        """The rows of an index array."""
        return Evidence(self.tier[rows], self.nearest[rows], None if self.months is None else self.months[rows])


def evidence(replicas: Replicas, architecture_names: tuple[str, ...], measured: Sequence[MeasuredConfiguration], tuning: Tuning = RECIPE) -> Evidence:
    """Tiers of all replica types; ``architecture_names`` names the rows of ``replicas.architectures``.

    measured: architecture, precision, GPU, engine and TP were measured; anchored: architecture and GPU;
    transferred: the GPU with another model; modelled: nothing near. PP and KV caches
    of another precision than the checkpoint's usual one were never measured, so both are at best anchored, as is all that is tuned
    otherwise than a recipe.
    The nearest of those at a tier is the one whose error differs least by what the two differ in (``APART``).
    """
    ours, theirs = _ours(replicas), _theirs(replicas, architecture_names, measured)
    return Evidence(_tiers(replicas, ours, theirs, tuning), _nearest(replicas, ours, theirs, measured))


def dated(found: Evidence, replicas: Replicas, architecture_names: tuple[str, ...], residuals: Residuals, months: Floats) -> Evidence:
    """The evidence of what ran in the months told [P]. Engines change: before anything of its model, GPU, engine and precision was measured it is anchored
    at best."""
    if residuals.tpot is None or not np.isfinite(months).any():
        return Evidence(found.tier, found.nearest, months)
    one = np.ones(len(replicas))
    older = residuals.tpot.is_older(features(replicas, architecture_names, one, one, months))
    return Evidence(np.where(older, np.maximum(found.tier, 1), found.tier), found.nearest, months)


def retuned(found: Evidence, replicas: Replicas, architecture_names: tuple[str, ...], measured: Sequence[MeasuredConfiguration], tuning: Tuning) -> Evidence:
    """The evidence of the same replica types with engines set otherwise: what was measured nearest is the same."""
    return Evidence(_tiers(replicas, _ours(replicas), _theirs(replicas, architecture_names, measured), tuning), found.nearest)


def _tiers(replicas: Replicas, ours: Ints, theirs: Ints, tuning: Tuning) -> Ints:
    """Tiers [P], as ``evidence`` describes them."""
    tier = np.full(len(replicas), 3)
    for level, columns in ((2, [0]), (1, [0, 1]), (0, [0, 1, 2, 3, 4, 5, 6])):  # GPU, architecture, precision, engine, TP, PP, DP
        tier = np.where(_look_up(ours[:, columns], theirs[:, columns]) >= 0, level, tier)
    unusual = replicas.kv_bytes != np.array([1 if p in FP8_KV else 2 for p in PRECISIONS])[replicas.precision]
    return np.where(unusual | (tuning != RECIPE), np.maximum(tier, 1), tier)


def _nearest(replicas: Replicas, ours: Ints, theirs: Ints, measured: Sequence[MeasuredConfiguration]) -> Ints:
    """The measured configuration [P] on the same GPU, of the same architecture if any is, that is least apart; of equals the one with the most points."""
    unique, which = np.unique(ours, axis=0, return_inverse=True)
    active = np.log2([a.active_parameters for a in replicas.architectures])
    theirs_active = np.log2([m.active_parameters or np.nan for m in measured])
    order = np.argsort([-m.points for m in measured], kind="stable")
    found = np.full(len(unique), -1)
    for gpu in np.unique(unique[:, 0]):
        rows, near = np.flatnonzero(unique[:, 0] == gpu), order[theirs[order, 0] == gpu]
        if not len(near):
            continue
        mine, other = unique[rows][:, None, :], theirs[near][None, :, :]
        weights = np.abs(active[mine[..., 1]] - theirs_active[near])
        apart = APART["precision"] * (mine[..., 2] != other[..., 2]) + APART["engine"] * (mine[..., 3] != other[..., 3])
        apart += APART["tp"] * np.abs(np.log2(mine[..., 4] * mine[..., 5] / other[..., 4])) + APART["active"] * np.where(np.isnan(weights), FAR, weights)
        found[rows] = near[np.where(mine[..., 1] == other[..., 1], apart - FAR, apart).argmin(axis=1)]
    return found[which.ravel()]


def shown_tier(found: Evidence, replicas: Replicas, is_own: NDArray[np.bool_] | None = None) -> Ints:
    """Tiers [P] as plans state them: with drafted tokens or in a unit the engine was measured, what is made of it is anchored at best.

    is_own: whose model the user measured on that GPU and engine, which is as near as anchored.
    """
    tiers = np.where((replicas.draft > 0) | replicas.is_unit, np.maximum(found.tier, 1), found.tier)
    return tiers if is_own is None else np.where(is_own, np.minimum(tiers, 1), tiers)


def tier_word(tier: int, is_own: bool) -> str:
    """What a tier is called; one not measured itself, but whose model the user measured on its GPU and engine, has a word of its own."""
    return CALIBRATED if is_own and tier > 0 else TIERS[tier]


def _ours(r: Replicas) -> Ints:
    return np.stack((r.gpu, r.architecture, r.precision, r.scheme, r.tp, r.pp, r.dp), axis=1)


def _theirs(replicas: Replicas, names: tuple[str, ...], measured: Sequence[MeasuredConfiguration]) -> Ints:
    gpus = {g.name: i for i, g in enumerate(replicas.gpus)}
    architectures = {name: i for i, name in enumerate(names)}
    precisions, engines = ({p: i for i, p in enumerate(PRECISIONS)}, {e: i for i, e in enumerate(ENGINES)})
    rows = [(gpus.get(m.gpu, -1), architectures.get(m.architecture, -1), precisions.get(m.precision, -1), _scheme(engines, m), m.tp, 1, m.dp) for m in measured]
    return np.array(rows, dtype=np.int64).reshape(len(rows), 7)


def _scheme(engines: Mapping[str, int], m: MeasuredConfiguration) -> int:
    return engines[m.engine] + len(ENGINES) * (m.dp > 1) if m.engine in engines else -1


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


@dataclass(frozen=True)
class Shift:
    """Factors that pull curves to measurements and to a confidence: on the step [P, G] and on the cost of prompts [P]."""

    step: Floats
    prompt: Floats
    overhead: Floats | None = None  # on what a request takes besides its prompt [P]; none: as predicted


def step_shift(
    found: Evidence, replicas: Replicas, architecture_names: tuple[str, ...], coefficients: Coefficients, confidence: float, mix: LengthMix, sequences: Floats
) -> Shift:
    """Factors on step curves over ``sequences`` [G]: the one place where measurements and confidence enter (``StepCurves.scaled``).

    Where this architecture, precision, GPU and engine were measured, the curve is first pulled to the measurements by the kriged
    residual of TPOT at these lengths, TP and number in flight; prompts by its mean over the loads. The quantile follows: of kriged
    predictions where pulled (with another TP known only, that of such cases), else of the physics at the tier. A GPU of a generation
    never tested takes the quantile of such generations whatever its tier, unless it was pulled: evidence that is not in the fit
    did not move the curve. So does a step that holds more sequences than any row of the fit.
    """
    residuals = residuals_of(coefficients)
    near = _pulled(found, replicas, architecture_names, residuals)
    sure = np.full(len(replicas), confidence) if coefficients.draw is None else drawn(replicas, architecture_names, coefficients.draw)
    quantile = _quantile(found, replicas, coefficients, near, sure)
    own = calibrated(coefficients.calibrated, replicas, architecture_names) if coefficients.calibrated else None
    if own is not None:
        quantile = np.where(own.is_known, _nearer(sure_factor(own.sd, sure), quantile, residuals.surest(sure), sure), quantile)
    factor = np.full(len(replicas), coefficients.slower)
    if coefficients.tuned:
        factor *= tuned_factor(coefficients, replicas, sure, quantile / _quantile(found, replicas, coefficients, near, np.full(len(replicas), 0.5)))
    # Up to the next power of two, where bounds on capacity know the step: between two of them a bound must not be the slower one.
    beyond = np.asarray(sequences)[None, :] > np.exp2(np.ceil(np.log2(coefficients.reached(replicas))))[:, None]
    wider = np.where(sure >= 0.5, np.maximum(quantile, coefficients.quantiles(UNSEEN, sure)), quantile)
    step, prompt = np.where(beyond, wider[:, None], quantile[:, None]) * factor[:, None], quantile * factor
    rows = np.flatnonzero(near)
    if len(rows) and residuals.tpot:
        tokens, output = (np.full(len(rows), mean) for mean in (mix.mean_input, mix.mean_output))
        months = None if found.months is None else found.months[rows]
        known = residuals.tpot.at_loads(features(replicas.take(rows), architecture_names, tokens, output, months))
        step[rows] *= np.exp(between_loads(known, np.log2(sequences)))
        prompt[rows] *= np.exp(known[:, LOADS <= PROMPT_LOADS].mean(axis=1))
    return Shift(step, prompt) if own is None else Shift(step * own.step[:, None], prompt * own.prompt, own.overhead)


def stands_for(found: Evidence, replicas: Replicas, architecture_names: tuple[str, ...], coefficients: Coefficients, row: int) -> str:
    """The engine's version and month that a row's steps were pulled to, as ``versions.stands_for`` words them; "" where they were not."""
    residuals, at = residuals_of(coefficients), np.array([row])
    pulled = _pulled(found.take(at), replicas.take(at), architecture_names, residuals)[0]
    return version_words(replicas, architecture_names, residuals, row) if pulled else ""


def _nearer(own: Floats, shipped: Floats, surest: Floats, sure: Floats) -> Floats:
    """The narrower of two bands, that of the user's measurements and that of the shipped ones, but never surer than the surest tier."""
    return np.where(sure >= 0.5, np.maximum(np.minimum(own, shipped), surest), np.minimum(np.maximum(own, shipped), surest))


def _quantile(found: Evidence, replicas: Replicas, coefficients: Coefficients, near: NDArray[np.bool_], sure: Floats) -> Floats:
    """Measured over predicted [P] that is not exceeded with the confidences ``sure`` [P]; ``near``: rows pulled to measurements."""
    residuals, unseen = residuals_of(coefficients), coefficients.unseen(replicas) & ~near
    quantile = coefficients.step_factor(np.where(unseen, len(TIERS), found.tier), sure)
    rows = np.flatnonzero(near)
    if len(rows) and residuals.tpot:
        kriged = [residuals.step_quantile(level, sure[rows], replicas.take(rows)) for level in (TIERS[0], OTHER_TP)]
        quantile[rows] = np.where(found.tier[rows] == 0, *kriged)
    return quantile


def drawn(replicas: Replicas, names: Sequence[str], draw: int) -> Floats:
    """A random share in (0, 1) for each row: the same for all rows of one architecture, precision, GPU and engine, which err together."""
    keys = np.stack((replicas.architecture, replicas.gpu, replicas.precision, replicas.scheme), axis=1)
    unique, which = np.unique(keys, axis=0, return_inverse=True)
    words = [f"{draw}|{names[a]}|{replicas.gpus[g].name}|{PRECISIONS[p]}|{s}" for a, g, p, s in unique.tolist()]
    shares = [(int.from_bytes(hashlib.sha256(w.encode()).digest()[:6], "big") + 0.5) / 2**48 for w in words]
    return np.array(shares)[which.ravel()]


def _pulled(found: Evidence, replicas: Replicas, names: tuple[str, ...], residuals: Residuals) -> NDArray[np.bool_]:
    """Rows whose architecture, precision, GPU and engine took part in the process."""
    theirs = _in_columns(residuals.groups, (names, tuple(g.name for g in replicas.gpus), (*ENGINES, *DP_ENGINES), PRECISIONS))
    ours = np.stack((replicas.architecture, replicas.gpu, replicas.scheme, replicas.precision), axis=1)
    return (found.tier <= 1) & (_look_up(ours, theirs) >= 0)


@lru_cache(maxsize=64)
def _in_columns(keys: tuple[tuple[str, ...], ...], tables: tuple[tuple[str, ...], ...]) -> Ints:
    """Each key's place in its table, [keys, tables]; -2 where it is not there."""
    indices = [{name: i for i, name in enumerate(table)} for table in tables]
    found = [[index.get(part, -2) for index, part in zip(indices, key, strict=True)] for key in keys]
    return np.array(found, dtype=np.int64).reshape(len(keys), len(tables))
