"""The kriged residual: how far measured TPOT and TTFT lie from the physics, carried to neighbours by a Gaussian process.

Read from catalogs/residuals.json, which ``python -m planner.calibration.krige`` writes. It holds features and weights, no measured values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from planner.catalog.files import read_json
from planner.errors import CatalogError
from planner.performance.coefficients import (
    TIERS,
    UNSEEN,
    Amount,
    ByStack,
    Coefficients,
    Factor,
    Number,
    Quantiles,
    holding,
    interpolated,
    narrowed,
    stacks,
)
from planner.performance.loop import LoopTerms
from planner.performance.replicas import DP_ENGINES, ENGINES, PRECISIONS, Floats, Ints, Replicas

SCHEMES = (*ENGINES, *DP_ENGINES)
FILE = "residuals.json"
# What two configurations may share; each has its own variance. See ``group_keys``.
FAMILY = "model+gpu+engine+precision"
GROUPS = ("engine+generation", "engine+gpu", "model", "model+engine", "model+generation+engine+precision", FAMILY, f"{FAMILY}+ep")
UNDATED = 0  # month of measurements of which neither date nor version tells when: far from all others, so that they share only what has no date
LOADS: Floats = np.arange(0, 14.5, 0.5)  # log2 concurrency at which corrections are worked out
OTHER_TP = "other_tp"  # quantiles where only another TP of the same architecture, precision, GPU and engine was measured
MOST = 0.7  # corrections beyond a factor of two are cut off
BLOCK = 2048
DATE = re.compile(r"(\d{4})-(0[1-9]|1[0-2])(?:-\d\d)?$")


@dataclass(frozen=True)
class Kernel:
    """Sum over GROUPS of variance, if shared, times one RBF in doublings of concurrency, input, output and TP.

    What a family shares has a part that fades with the months between two measurements, as engines change: ``dated``.
    """

    variance: Floats  # [groups]
    load: float  # length scales, doublings
    lengths: tuple[float, float, float]  # input, output, TP
    noise: float
    dated: float  # variance
    months: float  # length scale


@dataclass(frozen=True)
class Features:
    """What the kernel sees of configurations [C]: group keys as text, log2 of input, output and TP, and when they were measured."""

    keys: tuple[tuple[str, ...], ...]  # [groups][C]
    logs: Floats  # [C, 3]
    months: Floats  # [C], since year 0; UNDATED; nan = not told: as of the newest measurement of the family

    @property
    def family(self) -> tuple[str, ...]:
        """Model, GPU, engine and precision of each, as one text."""
        return self.keys[GROUPS.index(FAMILY)]

    def take(self, rows: Ints) -> Features:
        """The rows of an index array."""
        return Features(tuple(tuple(column[i] for i in rows.tolist()) for column in self.keys), self.logs[rows], self.months[rows])


@dataclass(frozen=True)
class Places:
    """Where configurations [C] lie for the kernel: log2 of input, output and TP, and the month."""

    logs: Floats  # [C, 3]
    months: Floats  # [C]; none of them nan where another of the family is


@dataclass(frozen=True)
class Residual:
    """A trained process for one of TPOT and TTFT: weights of the configurations at every load of LOADS."""

    kernel: Kernel
    trained: Features
    weights: Floats  # [C, loads]

    def at_loads(self, asked: Features) -> Floats:
        """log(measured/physics) [P, loads], cut at ``MOST``."""
        shared = [shared_numbers(a, t) for a, t in zip(asked.keys, self.trained.keys, strict=True)]
        months = self.measured_in(asked)
        found = np.zeros((len(asked.logs), len(LOADS)))
        for start in range(0, len(found), BLOCK):
            rows = slice(start, start + BLOCK)
            here = Places(asked.logs[rows], months[rows])
            near = kernel_rows(self.kernel, [(mine[rows], theirs) for mine, theirs in shared], here, Places(self.trained.logs, self.trained.months))
            found[rows] = near @ self.weights
        return np.clip(found, -MOST, MOST)

    def measured_in(self, asked: Features) -> Floats:
        """The month [P] whose measurements speak for each: of its family the newest no later than the month asked, or the oldest; where no month
        is told the newest of all. nan where none of the family was measured."""
        mine, theirs = shared_numbers(asked.family, self.trained.family)
        newest = np.full(theirs.max(initial=-1) + 2, np.nan)  # the last for families never measured, whose number is -1
        np.fmax.at(newest, theirs, self.trained.months)
        found: Floats = newest[mine]
        for row in np.flatnonzero((mine >= 0) & np.isfinite(asked.months)).tolist():
            months = self.trained.months[theirs == mine[row]]
            before = months[months <= asked.months[row]]
            found[row] = before.max() if len(before) else months.min()
        return found

    def is_older(self, asked: Features) -> NDArray[np.bool_]:
        """Whether each [P] ran in a month, where it tells one, before any of its family was measured in a month that is known."""
        mine, theirs = shared_numbers(asked.family, self.trained.family)
        oldest = np.full(theirs.max(initial=-1) + 2, np.inf)  # the last for families never measured
        np.minimum.at(oldest, theirs, np.where(self.trained.months > UNDATED, self.trained.months, -np.inf))
        found: NDArray[np.bool_] = (asked.months < oldest[mine]) & (mine >= 0)
        return found


@dataclass(frozen=True)
class Residuals:
    """Everything of residuals.json that predictions need."""

    terms: LoopTerms
    tpot: Residual | None
    ttft: Residual | None
    quantiles: Mapping[str, Mapping[str, Mapping[str, float]]]  # tpot, ttft, tps -> tier -> share -> measured/predicted, out of fold
    by_stack: Mapping[str, ByStack] = field(default_factory=dict)  # metric -> the same of each stack that was measured often enough
    versions: tuple[str, ...] = ()  # of the engine, of each trained configuration; "" where not told

    @property
    def kernels(self) -> dict[str, Kernel]:
        """Kernels of TPOT and TTFT."""
        return {name: process.kernel for name, process in (("tpot", self.tpot), ("ttft", self.ttft)) if process}

    @cached_property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Architecture, GPU, engine and precision of all that took part."""
        return tuple(tuple(key.split("|")) for key in dict.fromkeys(self.tpot.trained.family)) if self.tpot else ()

    @cached_property
    def newest(self) -> dict[tuple[str, str], float]:
        """The newest month in which each version of an engine was measured; UNDATED where no date is known."""
        found: dict[tuple[str, str], float] = {}
        if self.tpot:
            for family, month, version in zip(self.tpot.trained.family, self.tpot.trained.months.tolist(), self.versions, strict=True):
                key = (family.split("|")[2].removesuffix(" dp"), version)
                if version:
                    found[key] = max(found.get(key, UNDATED), month)
        return found

    def surest(self, confidence: Floats) -> Floats:
        """The quantiles [P] of the surest there is: measured configurations; 1 where nothing is known of any."""
        return self.step_quantile(TIERS[0], confidence) if self.quantiles else np.ones(len(confidence))

    def step_quantile(self, level: str, confidence: float | Floats, replicas: Replicas | None = None) -> Floats:
        """Measured/kriged TPOT that is not exceeded with this confidence, out of fold; never falls with the confidence. By the stacks of
        ``replicas`` [P], else of all together."""
        shares = np.asarray(confidence, dtype=float)
        if replicas is None:
            return interpolated(self.quantiles["tpot"][level], shares)
        found = np.ones(len(replicas))
        for stack, rows in stacks(replicas):
            found[rows] = interpolated(self.tables("tpot", stack)[level], np.broadcast_to(shares, len(replicas))[rows])
        return found

    def tables(self, metric: str, stack: str) -> Mapping[str, Mapping[str, float]]:
        """Quantiles of a metric by level of evidence, of a stack as far as it was measured often enough; none without the file."""
        return narrowed(self.quantiles.get(metric, {}), self.by_stack.get(metric, {}), stack)


@dataclass(frozen=True)
class StoredKernel:
    """A kernel as it is stored."""

    sd: Annotated[Mapping[str, Amount], holding(*GROUPS)]
    dated: Amount  # sd
    months: Factor
    load: Factor
    isl: Factor
    osl: Factor
    tp: Factor
    noise: Amount


Size = Annotated[float, Field(ge=1, le=1e9)]  # tokens, requests in flight
Bands = Annotated[Mapping[str, Quantiles], holding(*TIERS, UNSEEN, OTHER_TP)]


@dataclass(frozen=True)
class Stored:
    """residuals.json. Configurations: model, precision, GPU, generation, engine, GPUs, input and output tokens, whether experts are whole (EP),
    the month and the engine's version, "" where unknown. Points: the number of a configuration, requests in flight, weights of TPOT and TTFT."""

    terms: LoopTerms
    kernels: Annotated[Mapping[str, StoredKernel], holding("tpot", "ttft")]
    configurations: Annotated[
        tuple[tuple[str, str, str, str, str, Annotated[int, Field(ge=1, le=10**6)], Size, Size, bool, str, str], ...], Field(min_length=1)
    ]
    points: Annotated[tuple[tuple[Annotated[int, Field(ge=0)], Size, Number, Number], ...], Field(min_length=1)]
    quantiles: Annotated[Mapping[str, Bands], holding("tpot", "ttft", "tps")]
    quantiles_by_stack: Mapping[str, ByStack] = field(default_factory=dict)


# Without the file: start values of the fit and no correction.
PLAIN = Residuals(LoopTerms(dict.fromkeys(ENGINES, 5.0), dict.fromkeys(ENGINES, 0.05), 0.5, 1.0), None, None, {})


def group_keys(model: str, generation: str, gpu: str, engine: str, precision: str, whole_experts: bool = False) -> tuple[str, ...]:
    """The keys of one configuration in the order of GROUPS."""
    family = (model, gpu, engine, precision)
    parts = ((engine, generation), (engine, gpu), (model,), (model, engine), (model, generation, engine, precision), family, (*family, "EP" * whole_experts))
    return tuple("|".join(part) for part in parts)


def month_of(date: str) -> int:
    """Months since year 0 of a date as YYYY-MM or YYYY-MM-DD; UNDATED where it is neither."""
    found = DATE.match(date)
    return 12 * int(found[1]) + int(found[2]) - 1 if found else UNDATED


def month_words(month: float) -> str:
    """The month as YYYY-MM; "" of UNDATED and of what is not told."""
    return f"{int(month) // 12}-{int(month) % 12 + 1:02d}" if month > UNDATED else ""


def features(replicas: Replicas, names: Sequence[str], input_tokens: Floats, output_tokens: Floats, months: Floats | None = None) -> Features:
    """Features of replica types with their lengths; ``names`` names the rows of ``replicas.architectures``. ``months`` [P]: see ``Features``; none:
    not told of any."""
    r = replicas
    rows = zip(r.architecture.tolist(), r.gpu.tolist(), r.scheme.tolist(), r.precision.tolist(), (r.ep > 1).tolist(), strict=True)
    keys = [_keys(names[a], r.gpus[g].generation, r.gpus[g].name, SCHEMES[e], PRECISIONS[p], whole) for a, g, e, p, whole in rows]
    columns = tuple(zip(*keys, strict=True)) or tuple(() for _ in GROUPS)
    logs = np.log2(np.stack((input_tokens, output_tokens, r.tp * r.pp.astype(float)), axis=1))
    return Features(columns, logs, np.full(len(r), np.nan) if months is None else months)


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


def kernel_rows(kernel: Kernel, shared: Sequence[tuple[Ints, Ints]], asked: Places, trained: Places) -> Floats:
    """The kernel [P, C] but for the load."""
    total = np.zeros((len(asked.months), len(trained.months)))
    for variance, (mine, theirs) in zip(kernel.variance, shared, strict=True):
        total += variance * (mine[:, None] == theirs[None, :])
    mine, theirs = shared[GROUPS.index(FAMILY)]
    a, b = np.nonzero(mine[:, None] == theirs[None, :])
    total[a, b] += kernel.dated * np.exp(-0.5 * ((asked.months[a] - trained.months[b]) / kernel.months) ** 2)
    mine, my_row = np.unique(asked.logs, axis=0, return_inverse=True)  # few lengths and sizes of TP: their distances are found once
    theirs, their_row = np.unique(trained.logs, axis=0, return_inverse=True)
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
    keys = [group_keys(model, generation, gpu, engine, precision, whole) for model, precision, gpu, generation, engine, *_, whole, _, _ in rows]
    logs = np.log2(np.array([[isl, osl, tp] for tp, isl, osl, *_ in (row[5:] for row in rows)], dtype=float))
    trained = Features(tuple(zip(*keys, strict=True)), logs, np.array([month_of(month) for *_, month, _ in rows], dtype=float))
    processes = {}
    for column, metric in ((2, "tpot"), (3, "ttft")):
        k = stored.kernels[metric]
        kernel = Kernel(np.array([k.sd[g] for g in GROUPS]) ** 2, k.load, (k.isl, k.osl, k.tp), k.noise, k.dated**2, k.months)
        processes[metric] = residual(kernel, trained, points[:, 0].astype(np.int64), np.log2(points[:, 1]), points[:, column])
    return Residuals(stored.terms, processes["tpot"], processes["ttft"], stored.quantiles, stored.quantiles_by_stack, tuple(version for *_, version in rows))
