"""Measured closed loops on disaggregated units, whose engines their notes give, and what is predicted for them.

Shared by the script that measures the errors of such predictions and by the validation of measured files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from planner.catalog.catalog import Catalog
from planner.performance.coefficients import Coefficients
from planner.performance.disaggregated import Units, closed_unit, transfer_seconds
from planner.performance.evidence import evidence, step_shift
from planner.performance.lengths import LengthMix
from planner.performance.memory import memory_fit
from planner.performance.replicas import ENGINES, PRECISIONS, Floats, Ints, Replicas
from planner.performance.step import GRID, StepCurves, step_curves

POOLS = re.compile(r"prefill (\S+)w tp(\d+).*?decode (\S+)w tp(\d+)")
EXPECTED = 0.5


@dataclass(frozen=True)
class Pools:
    """One measured closed loop on a disaggregated unit; tokens are means."""

    card: str
    gpu: str
    precision: str
    engine: str
    prefill: int
    prefill_tp: int
    decode: int
    decode_tp: int
    isl: float
    osl: float
    concurrency: float
    ttft_s: float
    tpot_s: float
    tps: float
    method: str

    @property
    def prefill_pool(self) -> str:
        """What its time per prompt depends on."""
        return "|".join((self.card, self.gpu, self.precision, self.engine, f"{self.prefill}x{self.prefill_tp}", f"{self.isl:g}"))

    @property
    def configuration(self) -> str:
        """All but the load."""
        pools = f"{self.prefill}x{self.prefill_tp}+{self.decode}x{self.decode_tp}"
        return "|".join((self.card, self.gpu, self.precision, self.engine, pools, f"{self.isl:g}", f"{self.osl:g}", self.method))


def sizes_in(notes: str) -> tuple[int, int, int, int] | None:
    """(prefill engines, TP of each, decode engines, TP of each) as notes give them."""
    match = POOLS.search(notes)
    found = [int(c) for c in match.groups() if c.isdigit()] if match else []
    return (found[0], found[1], found[2], found[3]) if len(found) == 4 and all(found) else None


@dataclass(frozen=True)
class PredictedRuns:
    """Of each run: decode step at the measured number decoding, closed-loop TPOT and tokens/s, requests/s that prompts allow; 0 slots = cannot be."""

    step_s: Floats
    tpot_s: Floats
    tps: Floats
    prompts: Floats
    slots: Floats


def predicted(pools: Sequence[Pools], catalog: Catalog, coefficients: Coefficients) -> PredictedRuns:
    """Predictions at confidence 0.5. The layout of decode engines is not recorded: of those with and without attention data parallel
    the faster counts, since a planner would choose it, and so would those who measured."""
    plain, spread = (_predicted(pools, catalog, coefficients, dp) for dp in (False, True))
    moe = {c.name: c.architecture.experts > 0 for c in catalog.cards}
    other = (spread.slots > 0) & np.array([moe[p.card] for p in pools], dtype=bool)
    step, tpot = (np.where(other, np.minimum(a, b), a) for a, b in ((plain.step_s, spread.step_s), (plain.tpot_s, spread.tpot_s)))
    return replace(plain, step_s=step, tpot_s=tpot, tps=np.where(other, np.maximum(plain.tps, spread.tps), plain.tps))


def _predicted(pools: Sequence[Pools], catalog: Catalog, coefficients: Coefficients, attention_dp: bool) -> PredictedRuns:
    found = np.zeros((5, len(pools)))
    for lengths in sorted({(p.isl, p.osl) for p in pools}):
        at = [i for i, p in enumerate(pools) if (p.isl, p.osl) == lengths]
        here, mix = [pools[i] for i in at], LengthMix(np.array([lengths[0]]), np.array([lengths[1]]))
        x, y = np.array([p.prefill for p in here]), np.array([p.decode for p in here])
        prefill = engines(here, catalog, [p.prefill_tp for p in here], False)
        decode = engines(here, catalog, [p.decode_tp for p in here], attention_dp)
        room = np.where(memory_fit(prefill, mix).slots > 0, np.minimum(memory_fit(decode, mix).slots, int(GRID[-1])), 0)
        first, then = (_expected(r, mix, catalog, coefficients) for r in (prefill, decode))
        units = Units(first, then, x, y, transfer_seconds(prefill, mix, coefficients, x + y), np.maximum(room, 1))
        _, tpot, tps = closed_unit(units, mix, np.array([p.concurrency for p in here]))
        decoding = [p.tps * p.tpot_s / p.decode for p in here]
        step = [float(np.interp(n, GRID, s)) for n, s in zip(decoding, then.step_s, strict=True)]
        token = first.prefill_s_per_token + first.step_s[:, 0] / first.batched_tokens
        found[:, at] = np.stack((np.array(step), tpot, tps, x / (token * mix.mean_input), room.astype(float)))
    return PredictedRuns(*found)


def engines(pools: Sequence[Pools], catalog: Catalog, tp: Sequence[int], attention_dp: bool) -> Replicas:
    """One engine of each run, on these GPUs."""
    cards, gpus = [c.name for c in catalog.cards], list(catalog.gpus)

    def column(value: Callable[[Pools], int]) -> Ints:
        return np.array([value(p) for p in pools], dtype=np.int64)

    sizes = np.array(tp, dtype=np.int64)
    return Replicas(
        tuple(c.architecture for c in catalog.cards), tuple(catalog.gpus.values()), column(lambda p: cards.index(p.card)), column(lambda p: gpus.index(p.gpu)),
        column(lambda p: PRECISIONS.index(p.precision)), column(lambda p: ENGINES.index(p.engine)), sizes, np.ones_like(sizes),
        sizes if attention_dp else np.ones_like(sizes),
    )  # fmt: skip


def _expected(replicas: Replicas, mix: LengthMix, catalog: Catalog, coefficients: Coefficients) -> StepCurves:
    names = tuple(c.name for c in catalog.cards)
    shift = step_shift(evidence(replicas, names, catalog.measured), replicas, names, coefficients, EXPECTED, mix, GRID)
    return step_curves(replicas, mix, coefficients).pulled(shift.step, shift.prompt, mix, shift.overhead)
