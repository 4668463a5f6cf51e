"""The kriged residual: how far measured TPOT and TTFT lie from the physics, carried to neighbours by a Gaussian process.

Read from catalogs/residuals.json, which ``python -m planner.calibration.krige`` writes. It holds features and weights, no measured values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from planner.catalog.files import read_json
from planner.errors import CatalogError
from planner.performance.coefficients import TIERS, UNSEEN, Amount, Coefficients, Factor, Number, Quantiles, holding, interpolated
from planner.performance.loop import LoopTerms
from planner.performance.replicas import DP_ENGINES, ENGINES, PRECISIONS, Floats, Ints, Replicas

SCHEMES = (*ENGINES, *DP_ENGINES)
FILE = "residuals.json"
# What two configurations may share; each has its own variance. See ``group_keys``.
GROUPS = ("engine+generation", "engine+gpu", "model", "model+engine", "model+generation+engine+precision", "model+gpu+engine+precision")
LOADS: Floats = np.arange(0, 14.5, 0.5)  # log2 concurrency at which corrections are worked out
OTHER_TP = "other_tp"  # quantiles where only another TP of the same architecture, precision, GPU and engine was measured
MOST = 0.7  # corrections beyond a factor of two are cut off
BLOCK = 2048


@dataclass(frozen=True)
class Kernel:
    """Sum over GROUPS of variance, if shared, times one RBF in doublings of concurrency, input, output and TP."""

    variance: Floats  # [groups]
    load: float  # length scales, doublings
    lengths: tuple[float, float, float]  # input, output, TP
    noise: float


@dataclass(frozen=True)
class Features:
    """What the kernel sees of configurations [C]: group keys as text, and log2 of input, output and TP."""

    keys: tuple[tuple[str, ...], ...]  # [groups][C]
    logs: Floats  # [C, 3]


@dataclass(frozen=True)
class Residual:
    """A trained process for one of TPOT and TTFT: weights of the configurations at every load of LOADS."""

    kernel: Kernel
    trained: Features
    weights: Floats  # [C, loads]

    def at_loads(self, asked: Features) -> Floats:
        """log(measured/physics) [P, loads], cut at ``MOST``."""
        shared = [shared_numbers(a, t) for a, t in zip(asked.keys, self.trained.keys, strict=True)]
        found = np.zeros((len(asked.logs), len(LOADS)))
        for start in range(0, len(found), BLOCK):
            rows = slice(start, start + BLOCK)
            near = kernel_rows(self.kernel, [(mine[rows], theirs) for mine, theirs in shared], asked.logs[rows], self.trained.logs)
            found[rows] = near @ self.weights
        return np.clip(found, -MOST, MOST)


@dataclass(frozen=True)
class Residuals:
    """Everything of residuals.json that predictions need."""

    terms: LoopTerms
    tpot: Residual | None
    ttft: Residual | None
    quantiles: Mapping[str, Mapping[str, Mapping[str, float]]]  # tpot, ttft, tps -> tier -> share -> measured/predicted, out of fold

    @property
    def kernels(self) -> dict[str, Kernel]:
        """Kernels of TPOT and TTFT."""
        return {name: process.kernel for name, process in (("tpot", self.tpot), ("ttft", self.ttft)) if process}

    @cached_property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Architecture, GPU, engine and precision of all that took part."""
        return tuple(tuple(key.split("|")) for key in dict.fromkeys(self.tpot.trained.keys[-1])) if self.tpot else ()

    def surest(self, confidence: Floats) -> Floats:
        """The quantiles [P] of the surest there is: measured configurations; 1 where nothing is known of any."""
        return self.step_quantile(TIERS[0], confidence) if self.quantiles else np.ones(len(confidence))

    def step_quantile(self, level: str, confidence: float | Floats) -> Floats:
        """Measured/kriged TPOT that is not exceeded with this confidence, out of fold; never falls with the confidence."""
        return interpolated(self.quantiles["tpot"][level], np.asarray(confidence, dtype=float))


@dataclass(frozen=True)
class StoredKernel:
    """A kernel as it is stored."""

    sd: Annotated[Mapping[str, Amount], holding(*GROUPS)]
    load: Factor
    isl: Factor
    osl: Factor
    tp: Factor
    noise: Amount


Size = Annotated[float, Field(ge=1, le=1e9)]  # tokens, requests in flight
Bands = Annotated[Mapping[str, Quantiles], holding(*TIERS, UNSEEN, OTHER_TP)]


@dataclass(frozen=True)
class Stored:
    """residuals.json. Configurations: model, precision, GPU, generation, engine, GPUs, input and output tokens. Points: the number of a
    configuration, requests in flight, weights of TPOT and TTFT."""

    terms: LoopTerms
    kernels: Annotated[Mapping[str, StoredKernel], holding("tpot", "ttft")]
    configurations: Annotated[tuple[tuple[str, str, str, str, str, Annotated[int, Field(ge=1, le=10**6)], Size, Size], ...], Field(min_length=1)]
    points: Annotated[tuple[tuple[Annotated[int, Field(ge=0)], Size, Number, Number], ...], Field(min_length=1)]
    quantiles: Annotated[Mapping[str, Bands], holding("tpot", "ttft", "tps")]


# Without the file: start values of the fit and no correction.
PLAIN = Residuals(LoopTerms(dict.fromkeys(ENGINES, 5.0), dict.fromkeys(ENGINES, 0.05), 1.0, 1.0), None, None, {})


def group_keys(model: str, generation: str, gpu: str, engine: str, precision: str) -> tuple[str, ...]:
    """The keys of one configuration in the order of GROUPS."""
    parts = ((engine, generation), (engine, gpu), (model,), (model, engine), (model, generation, engine, precision), (model, gpu, engine, precision))
    return tuple("|".join(part) for part in parts)


def features(replicas: Replicas, names: Sequence[str], input_tokens: Floats, output_tokens: Floats) -> Features:
    """Features of replica types with their lengths; ``names`` names the rows of ``replicas.architectures``."""
    rows = zip(replicas.architecture.tolist(), replicas.gpu.tolist(), replicas.scheme.tolist(), replicas.precision.tolist(), strict=True)
    keys = [_keys(names[a], replicas.gpus[g].generation, replicas.gpus[g].name, SCHEMES[e], PRECISIONS[p]) for a, g, e, p in rows]
    columns = tuple(zip(*keys, strict=True)) or tuple(() for _ in GROUPS)
    logs = np.log2(np.stack((input_tokens, output_tokens, replicas.tp * replicas.pp.astype(float)), axis=1))
    return Features(columns, logs)


_keys = lru_cache(maxsize=100_000)(group_keys)


def shared_numbers(asked: Sequence[str], trained: tuple[str, ...]) -> tuple[Ints, Ints]:
    """Keys as numbers that are equal where the texts are."""
    index, theirs = _numbered(trained)
    return np.array([index.get(key, -1) for key in asked], dtype=np.int64), theirs


@lru_cache(maxsize=64)
def _numbered(keys: tuple[str, ...]) -> tuple[dict[str, int], Ints]:
    """The number of each distinct key, and of every key."""
    index = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return index, np.array([index[key] for key in keys], dtype=np.int64)


def kernel_rows(kernel: Kernel, shared: Sequence[tuple[Ints, Ints]], asked: Floats, trained: Floats) -> Floats:
    """The kernel [P, C] but for the load."""
    total = np.zeros((len(asked), len(trained)))
    for variance, (mine, theirs) in zip(kernel.variance, shared, strict=True):
        total += variance * (mine[:, None] == theirs[None, :])
    mine, my_row = np.unique(asked, axis=0, return_inverse=True)  # few lengths and sizes of TP: their distances are found once
    theirs, their_row = np.unique(trained, axis=0, return_inverse=True)
    distance = np.zeros((len(mine), len(theirs)))
    for column, length in enumerate(kernel.lengths):
        distance += ((mine[:, column : column + 1] - theirs[None, :, column]) / length) ** 2
    found: Floats = total * np.exp(-0.5 * distance)[:, their_row.ravel()][my_row.ravel()]
    return found


def load_kernel(kernel: Kernel, a: Floats, b: Floats) -> Floats:
    """The part of the kernel that two loads (log2) share, [A, B]."""
    found: Floats = np.exp(-0.5 * ((a[:, None] - b[None, :]) / kernel.load) ** 2)
    return found


def between_loads(known: Floats, loads: Floats) -> Floats:
    """Corrections [P, LOADS] at other loads (log2; [G] for all rows or [P, G]), straight between those at which they are known."""
    at = np.clip(np.broadcast_to(loads, (len(known), loads.shape[-1])) / (LOADS[1] - LOADS[0]), 0, len(LOADS) - 1.000001)
    low = at.astype(np.int64)
    left, right = np.take_along_axis(known, low, axis=1), np.take_along_axis(known, low + 1, axis=1)
    found: Floats = left + (at - low) * (right - left)
    return found


def residual(kernel: Kernel, trained: Features, configuration: Ints, loads: Floats, alpha: Floats) -> Residual:
    """A process from its points: the configuration of each, its load (log2) and its weight."""
    weights = np.zeros((len(trained.logs), len(LOADS)))
    np.add.at(weights, configuration, alpha[:, None] * load_kernel(kernel, loads, LOADS))
    return Residual(kernel, trained, weights)


def residuals_of(coefficients: Coefficients) -> Residuals:
    """The residuals that stand beside the coefficients' file; plain ones where there are none."""
    return load_residuals(coefficients.path.with_name(FILE)) if coefficients.path else PLAIN


@lru_cache(maxsize=4)
def load_residuals(path: Path) -> Residuals:
    """Reads residuals.json; plain ones where there is none. Raises CatalogError."""
    if not path.exists():
        return PLAIN
    stored = read_json(path, Stored, "residuals")
    lost = next((i for i, (configuration, *_) in enumerate(stored.points) if configuration >= len(stored.configurations)), None)
    if lost is not None:
        raise CatalogError(f"not a file of residuals: 'points.{lost}.0': there is no such configuration, got {stored.points[lost][0]}", str(path))
    return _from_stored(stored)


def _from_stored(stored: Stored) -> Residuals:
    """Residuals from the stored form."""
    rows, points = stored.configurations, np.array(stored.points, dtype=float)
    keys = [group_keys(model, generation, gpu, engine, precision) for model, precision, gpu, generation, engine, *_ in rows]
    trained = Features(tuple(zip(*keys, strict=True)), np.log2(np.array([[isl, osl, tp] for *_, tp, isl, osl in rows], dtype=float)))
    processes = {}
    for column, metric in ((2, "tpot"), (3, "ttft")):
        k = stored.kernels[metric]
        kernel = Kernel(np.array([k.sd[g] for g in GROUPS]) ** 2, k.load, (k.isl, k.osl, k.tp), k.noise)
        processes[metric] = residual(kernel, trained, points[:, 0].astype(np.int64), np.log2(points[:, 1]), points[:, column])
    return Residuals(stored.terms, processes["tpot"], processes["ttft"], stored.quantiles)
