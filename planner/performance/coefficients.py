"""The fitted coefficients of the step-time physics and how far they can be off, as stored in catalogs/coefficients.json.

``python -m planner.calibration.fit`` writes that file; nothing at plan time changes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from planner.catalog.files import read_json
from planner.catalog.load import shipped_folders
from planner.catalog.records import Calibration, Gpu
from planner.performance.kernels import FILE, kernel_times, load_kernels
from planner.performance.replicas import ENGINES, PRECISIONS, Floats, Replicas
from planner.raw import Raw

TIERS: tuple[str, ...] = ("measured", "anchored", "transferred", "modelled")
UNSEEN = "unseen_generation"  # no tier: the quantiles for GPUs of a generation that those of the tiers were not found on
# Factors on the measured times of kernels (kernels.py), in decoding and in prompts: engines take at least as long.
FACTORS = ("products", "experts", "attention", "prompt_products", "prompt_experts", "prompt_attention")
EFFICIENCIES = ("link",)  # shares of a hardware peak: no engine effect may lift them above 1
SECONDS = ("layer_s", "moe_layer_s", "all_reduce_s", "step_s", "sequence_s", "request_s")


# ---- what numbers of a fitted file may be


def holding(*names: str) -> AfterValidator:
    """A table that has all of these."""

    def check(table: Mapping[str, object]) -> Mapping[str, object]:
        missing = next((n for n in names if n not in table), None)
        if missing is not None:
            raise ValueError(f"has no '{missing}'")
        return table

    return AfterValidator(check)


def among(*names: str) -> AfterValidator:
    """A table of no others than these."""

    def check(table: Mapping[str, object]) -> Mapping[str, object]:
        unknown = next((n for n in table if n not in names), None)
        if unknown is not None:
            raise ValueError(f"has '{unknown}', which is none of {', '.join(names)}")
        return table

    return AfterValidator(check)


def _values(table: Mapping[str, float]) -> Mapping[str, float]:
    idle = next((n for n in EFFICIENCIES if not table[n]), None)
    if idle is not None:
        raise ValueError(f"has an efficiency '{idle}' of 0")
    fast = next((n for n in FACTORS if table[n] < 1), None)
    if fast is not None:
        raise ValueError(f"has a factor '{fast}' below 1: no engine is faster than the kernels measured alone")
    return table


def _shares(table: Mapping[str, float]) -> Mapping[str, float]:
    for share in table:
        if not SHARE.fullmatch(share):
            raise ValueError(f"has '{share}', which is no share between 0 and 1")
    return table


SHARE = re.compile(r"0?\.\d{1,20}")
Number = Annotated[float, Field(ge=-1e9, le=1e9)]
Amount = Annotated[float, Field(ge=0, le=1e9)]
Factor = Annotated[float, Field(ge=1e-6, le=1e6)]
Quantiles = Annotated[Mapping[str, Factor], Field(min_length=1), AfterValidator(_shares)]  # share -> measured/predicted
ByStack = Mapping[str, Mapping[str, Quantiles]]  # "engine|generation" or "engine" -> tier -> quantiles, as far as a stack has rows enough
Effects = Annotated[Mapping[str, Annotated[Mapping[str, Factor], among(*ENGINES)]], among(*FACTORS, *EFFICIENCIES, *SECONDS)]


@dataclass(frozen=True)
class Fitted:
    """What the file holds: global values, factors per engine and vendor on them, cross-validated errors and one-sided quantiles per tier."""

    source: str
    fitted: str
    values: Annotated[Mapping[str, Amount], holding(*FACTORS, *EFFICIENCIES, *SECONDS), AfterValidator(_values)]
    engines: Effects  # coefficient -> engine -> factor
    vendors: Mapping[str, Factor]  # vendor -> factor on the whole step
    generations: Mapping[str, Factor]  # generation of GPUs -> further factor on the whole step
    data: Mapping[str, str]  # file -> sha256
    errors: Raw
    step_quantiles: Annotated[Mapping[str, Quantiles], holding(*TIERS, UNSEEN)]  # tier -> confidence -> measured/predicted TPOT, out of fold
    generations_tested: Sequence[str]  # see generation_of; those that the quantiles of "modelled" were found on
    reach: Mapping[str, Factor] = field(default_factory=dict)  # "GPU|precision" -> most sequences in decoding per GPU of any row of the fit
    attention_dp: Sequence[str] = ENGINES  # engines of which any row of the fit ran attention data parallel


@dataclass(frozen=True)
class Coefficients(Fitted):
    """The fitted values at work, with what a question supposes of them."""

    slower: float = 1.0  # a supposition, not fitted: every step takes so many times what is predicted
    draw: int | None = None  # a supposition too: the number of a random draw of each configuration's error, instead of one confidence
    tuned: Mapping[str, Quantiles] = field(default_factory=dict)  # a supposition: engine -> time of steps over that of a recipe's (tuning.py); none: a recipe
    calibrated: tuple[Calibration, ...] = ()  # by the user's own measurements (calibrated.py)
    path: Path | None = None  # of the file it was read from; residuals.json and kernels.json stand beside it

    def rows(self, replicas: Replicas) -> dict[str, Floats]:
        """Each coefficient as a column [P, 1], engine effects applied and efficiencies bounded by the hardware."""
        found = {}
        for name, value in self.values.items():
            effect = np.array([self.engines.get(name, {}).get(e, 1.0) for e in ENGINES])
            row = value * effect[replicas.engine][:, None]
            found[name] = np.minimum(row, 1.0) if name in EFFICIENCIES else row
        return found

    def kernels(self, replicas: Replicas) -> dict[str, Floats]:
        """Times of kernels (``kernel_times``), of the tables beside the file or else of the shipped ones."""
        beside = self.path.with_name(FILE) if self.path else None
        return kernel_times(replicas, load_kernels(beside if beside and beside.exists() else shipped_folders()[1] / FILE))

    def vendor_factor(self, replicas: Replicas) -> Floats:
        """Factor on the step [P, 1]; a vendor without measurements gets the worst measured one."""
        worst = max((1.0, *self.vendors.values())) * max((1.0, *self.generations.values()))
        known = [self.vendors[g.vendor] * self.generations.get(g.generation, 1.0) if g.vendor in self.vendors else worst for g in replicas.gpus]
        column: Floats = np.array(known)[replicas.gpu][:, None]
        return column

    def step_factor(self, tier: NDArray[np.int64], confidence: float | Floats) -> Floats:
        """Measured/predicted step time that is not exceeded with this confidence (of all rows, or of each), per row of tier
        indices; len(TIERS) is UNSEEN. From the median up never less for thinner evidence.
        """
        shares = np.broadcast_to(np.asarray(confidence, dtype=float), len(tier))
        each = np.stack([self.quantiles(name, shares) for name in (*TIERS, UNSEEN)])
        found: Floats = np.where(shares >= 0.5, np.maximum.accumulate(each), each)[tier, np.arange(len(tier))]
        return found

    def reached(self, replicas: Replicas) -> Floats:
        """Most sequences [P] of a replica that any row of the fit had per GPU, on its GPU at its precision, else at any; infinite on a GPU
        that took no part, whose tier says so already."""
        of_gpu: dict[str, float] = {}
        for key, number in self.reach.items():
            gpu = key.partition("|")[0]
            of_gpu[gpu] = max(of_gpu.get(gpu, 0.0), number)
        table: Floats = np.array([[self.reach.get(f"{g.name}|{p}", of_gpu.get(g.name, np.inf)) for p in PRECISIONS] for g in replicas.gpus])
        return np.asarray(table[replicas.gpu, replicas.precision] * replicas.tp * replicas.pp, dtype=float)

    def unseen(self, replicas: Replicas) -> NDArray[np.bool_]:
        """Whether no quantile of a tier can speak for a replica type, as no GPU of its generation, or nothing of its layout, took part in them."""
        alone, group = ([generation_of(g, tp) not in self.generations_tested for g in replicas.gpus] for tp in (1, 2))
        found: NDArray[np.bool_] = np.where(replicas.tp > 1, np.array(group)[replicas.gpu], np.array(alone)[replicas.gpu])
        return found | self.untried(replicas)

    def untried(self, replicas: Replicas) -> NDArray[np.bool_]:
        """Attention data parallel on an engine of which no row of the fit ran it."""
        engines = np.array([engine not in self.attention_dp for engine in ENGINES])
        found: NDArray[np.bool_] = (replicas.dp > 1) & engines[replicas.engine]
        return found

    def quantile(self, tier: str, confidence: float) -> float:
        """The same of one tier, never falling with confidence."""
        return float(self.quantiles(tier, np.array([confidence]))[0])

    def quantiles(self, tier: str, confidence: Floats) -> Floats:
        """The same for many confidences."""
        return interpolated(self.step_quantiles[tier], confidence)


def stacks(replicas: Replicas) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Each "engine|generation" among the replica types, with its rows."""
    generations = list(dict.fromkeys(g.generation for g in replicas.gpus))
    mine = np.array([generations.index(g.generation) for g in replicas.gpus], dtype=np.int64)[replicas.gpu] + len(generations) * replicas.engine
    for number in np.unique(mine).tolist():
        yield f"{ENGINES[number // len(generations)]}|{generations[number % len(generations)]}", np.flatnonzero(mine == number)


def narrowed(tables: Mapping[str, Mapping[str, float]], by_stack: ByStack, stack: str) -> Mapping[str, Mapping[str, float]]:
    """Quantiles by level of evidence: of the engine on the generation where it was measured often enough, else of the engine, else of all."""
    own, engine = by_stack.get(stack, {}), by_stack.get(stack.partition("|")[0], {})
    return {level: own.get(level) or engine.get(level) or table for level, table in tables.items()}


def by_level(tables: Mapping[str, Mapping[str, float]], level: NDArray[np.int64], shares: Floats) -> Floats:
    """Measured/predicted [P] at the shares [P], by level of evidence (tiers, then UNSEEN); never nearer to 1 for thinner evidence."""
    each = np.stack([interpolated(tables[name], shares) for name in (*TIERS, UNSEEN)])
    found: Floats = np.where(shares >= 0.5, np.maximum.accumulate(each), np.minimum.accumulate(each))[level, np.arange(len(level))]
    return found


def interpolated(table: Mapping[str, float], shares: Floats) -> Floats:
    """Quantiles stored by share, straight between the stored ones and never falling."""
    rows = sorted((float(k), v) for k, v in table.items())
    found: Floats = np.interp(shares, [k for k, _ in rows], np.maximum.accumulate([v for _, v in rows]))
    return found


def generation_of(gpu: Gpu, tp: int) -> str:
    """The generation; TP over PCIe stands apart, since its all-reduces take another way than those of modules."""
    return f"{gpu.generation} over PCIe" if gpu.form_factor == "PCIe" and tp > 1 else gpu.generation


def load_coefficients(path: Path) -> Coefficients:
    """Reads catalogs/coefficients.json. Raises CatalogError."""
    return Coefficients(**vars(read_json(path, Fitted, "fitted coefficients")), path=path)
