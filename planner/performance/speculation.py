"""Speculative decoding where it was measured: how much it shortens the step, by load, and how far off that may be.

Read from catalogs/speculation.csv, which ``python -m planner.calibration.options`` writes. Nothing is carried to other replica types or loads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

import numpy as np

from planner.catalog.records import Engine, Positive, PositiveCount, Precision, Record
from planner.performance.lengths import LengthMix
from planner.performance.replicas import ENGINES, PRECISIONS, Floats, Ints, Replicas
from planner.performance.step import StepCurves

FILE = "speculation.csv"
Group = tuple[str, str, str, str, str]  # architecture, GPU, precision, engine, method


class SpeculationRatio(Record):
    """Latency with speculative decoding over that without, of one configuration at one load of a closed loop, all else equal."""

    architecture: str  # name of the card
    gpu: str
    precision: Precision
    engine: Engine
    method: str  # mtp: the layer that the checkpoint brings along proposes tokens
    tp: PositiveCount
    ep: PositiveCount
    attention_dp: bool
    input_tokens: Positive  # nominal
    output_tokens: Positive
    concurrency: PositiveCount
    tpot_ratio: Positive  # of medians
    ttft_ratio: Positive
    pairs: PositiveCount  # geometric mean over so many runs
    source: str
    as_of: date
    licence: str
    note: str = ""

    @property
    def group(self) -> Group:
        """What a ratio holds for, with the TPs that were measured."""
        return self.architecture, self.gpu, self.precision, self.engine, self.method

    @property
    def configuration(self) -> str:
        """All but the load."""
        return "|".join((*self.group, f"{self.tp}/{self.ep}/{self.attention_dp}/{self.input_tokens:g}/{self.output_tokens:g}"))


@dataclass(frozen=True)
class Ratios:
    """The ratios of one group: log TPOT ratio [L] at rising log2 loads [L] (means over its configurations), and one TTFT ratio.

    ``most``: the highest load measured by TP and whether attention is data parallel; other layouts were not measured.
    """

    loads: Floats
    log_tpot: Floats
    ttft: float
    most: Mapping[tuple[int, bool], int]

    def tpot(self, sequences: Floats) -> Floats:
        """TPOT ratio at these loads, straight in log2; below the lowest measured load its ratio, which is not better than theirs."""
        return np.exp(np.interp(np.log2(np.maximum(sequences, 1.0)), self.loads, self.log_tpot))


@dataclass(frozen=True)
class Speculation:
    """All groups, and measured over predicted TPOT of configurations that were left out, sorted, with the share below each."""

    groups: Mapping[Group, Ratios]
    errors: Floats
    shares: Floats

    def quantile(self, confidence: float) -> float:
        """Measured/predicted TPOT ratio that is not exceeded with this confidence; never below 1 from 0.5 on."""
        if not len(self.errors):
            raise ValueError("no configuration was measured beside another, so the error of speculative decoding is unknown")
        return max(float(np.interp(confidence, self.shares, self.errors)), 1.0 if confidence >= 0.5 else 0.0)


def speculation(rows: Sequence[SpeculationRatio]) -> Speculation:
    """Groups and their held-out errors from the rows of the file."""
    ratio, configuration = held_out(rows)
    counts = {c: configuration.count(c) for c in configuration}
    weight = np.array([1 / counts[c] for c in configuration])
    order = np.argsort(ratio)
    shares = (np.cumsum(weight[order]) - weight[order] / 2) / max(weight.sum(), 1.0)
    return Speculation({g: _ratios([r for r in rows if r.group == g]) for g in dict.fromkeys(r.group for r in rows)}, ratio[order], shares)


def held_out(rows: Sequence[SpeculationRatio]) -> tuple[Floats, list[str]]:
    """Measured over predicted TPOT ratio of each row whose group has other configurations around its load, and its configuration."""
    found, configurations = [], []
    for row in rows:
        others = [r for r in rows if r.group == row.group and r.configuration != row.configuration]
        loads = [r.concurrency for r in others]
        if loads and min(loads) <= row.concurrency <= max(loads):
            found.append(row.tpot_ratio / float(_ratios(others).tpot(np.array([float(row.concurrency)]))[0]))
            configurations.append(row.configuration)
    return np.array(found), configurations


def _ratios(rows: Sequence[SpeculationRatio]) -> Ratios:
    loads = sorted({r.concurrency for r in rows})
    means = [float(np.mean([np.log(r.tpot_ratio) for r in rows if r.concurrency == load])) for load in loads]
    ttft = float(np.exp(np.mean([np.log(r.ttft_ratio) for r in rows])))
    most: dict[tuple[int, bool], int] = {}
    for r in rows:
        most[r.tp, r.attention_dp] = max(most.get((r.tp, r.attention_dp), 0), r.concurrency)
    return Ratios(np.log2(np.array(loads, dtype=float)), np.array(means), ttft, most)


def measured_loads(found: Speculation, replicas: Replicas, names: Sequence[str], method: str = "mtp") -> Ints:
    """The highest load [P] at which speculative decoding was measured on each replica type, its TP and attention layout included; 0 = never.

    ``names`` names the rows of ``replicas.architectures``. An engine must not admit more sequences than that.
    """
    groups, which = _groups(found, replicas, names, method)
    first = np.unique(which, return_index=True)[1]
    layouts = zip(replicas.tp[first].tolist(), (replicas.dp[first] > 1).tolist(), strict=True)
    return np.array([g.most[layout] if g else 0 for g, layout in zip(groups, layouts, strict=True)], dtype=np.int64)[which]


def loop_ratios(found: Speculation, replicas: Replicas, names: Sequence[str], concurrency: Floats, method: str = "mtp") -> tuple[Floats, Floats]:
    """(TPOT ratio, TTFT ratio) [P] of closed loops of so many requests on each replica; NaN where the replica type or so high a load was not measured."""
    groups, which = _groups(found, replicas, names, method)
    known = concurrency <= measured_loads(found, replicas, names, method)
    tpot = [float(g.tpot(n)) if (g := groups[i]) and ok else np.nan for i, n, ok in zip(which.tolist(), concurrency, known.tolist(), strict=True)]
    ttft = [g.ttft if (g := groups[i]) and ok else np.nan for i, ok in zip(which.tolist(), known.tolist(), strict=True)]
    return np.array(tpot), np.array(ttft)


def speculative_curves(
    found: Speculation, replicas: Replicas, names: Sequence[str], curves: StepCurves, mix: LengthMix, confidence: float, method: str = "mtp"
) -> StepCurves:
    """The curves with speculative decoding, ratio and its quantile at ``confidence`` applied. Rows never measured stay as they are.

    The ratio of TPOT is applied to the step alone: prompts between steps are no shorter, so gains are understated where they matter.
    The excess of TTFT (drafting for the prompt, longer passes) is added to the overhead per request.
    """
    (groups, which), q = _groups(found, replicas, names, method), found.quantile(confidence)
    factor = np.array([q * g.tpot(curves.n) if g else np.ones_like(curves.n) for g in groups]).reshape(len(groups), len(curves.n))[which]
    slower = np.array([max(g.ttft - 1, 0.0) if g else 0.0 for g in groups])[which]
    first = curves.overhead_s + curves.step_s[:, 0] + curves.prompt_s(np.array([mix.mean_input]))[:, 0]
    step = np.maximum.accumulate(curves.step_s * factor, axis=1)
    # Several tokens come from one pass, so bytes over bandwidth bound the pass, not the time per token.
    return replace(curves, step_s=step, overhead_s=curves.overhead_s + slower * first, floor_s=np.minimum(curves.floor_s, step))


def draft_share(replicas: Replicas) -> Floats:
    """Weights and KV cache of the drafting layer over those of the checkpoint, [P]: one more layer, of experts where it has them.

    DeepSeek-V3: 1/58; its card names 14e9 weights for the module, 11.5e9 of them its own, beside 671e9 (deepseek-ai/DeepSeek-V3, README_WEIGHTS.md).
    """
    return replicas.of_architecture(lambda a: 1.0 / (a.moe_layers or a.layers))


def _groups(found: Speculation, replicas: Replicas, names: Sequence[str], method: str) -> tuple[list[Ratios | None], Ints]:
    """The ratios of each distinct replica type, None where never measured, and the index [P] of each row's."""
    columns = (replicas.architecture, replicas.gpu, replicas.precision, replicas.engine, replicas.tp, replicas.pp, replicas.dp > 1)
    distinct, which = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
    groups: list[Ratios | None] = []
    for a, g, p, e, tp, pp, dp in distinct.tolist():
        known = found.groups.get((names[a], replicas.gpus[g].name, PRECISIONS[p], ENGINES[e], method))
        groups.append(known if known and (tp, bool(dp)) in known.most and pp == 1 else None)
    return groups, which.ravel()
