"""Enumerates every deployable replica type with its memory fit and step curves, counting each exclusion by its reason.

A row of the survey is a physical replica type (architecture, precision, GPU, engine, TP, PP) with the output factors it
meets; checkpoints that share one (DeepSeek-V3-0324 and V3.1, say) share its physics.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.candidates.eligibility import Eligible, eligibility, length_mix
from planner.candidates.sharding import unsplit
from planner.catalog.catalog import Catalog
from planner.catalog.records import Architecture, Card, Gpu, Offer
from planner.performance.capacity import Limit, saturation_bound
from planner.performance.coefficients import Coefficients, load_coefficients
from planner.performance.evidence import Evidence, evidence, step_shift
from planner.performance.lengths import LengthMix, lognormal_mix
from planner.performance.memory import Memory, memory_fit
from planner.performance.replicas import ENGINES, PRECISIONS, Replicas
from planner.performance.step import GRID, MAX_SEQUENCES, StepCurves, step_curves
from planner.scenario.records import Scenario, Workload

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

TP_SIZES = (1, 2, 4, 8)
PP_SIZES = (2, 4)  # only for what no single node can hold
COARSE: Floats = np.exp2(np.arange(11, dtype=float))  # sequences at which capacity is bounded before any is computed


@dataclass(frozen=True)
class Shape:
    """What physics needs of a checkpoint: its card, precision, FP8 blocks and the output factor in each workload."""

    card: Card
    precision: str
    fp8_block: int
    factors: tuple[float, ...]


@dataclass(frozen=True)
class Physics:
    """What one workload meets on each row. Rows that may not serve it, or do not fit, have no slots."""

    mixes: Mapping[float, LengthMix]  # by output factor
    factor: Floats
    memory: Memory
    slots: Ints  # most sequences in service: KV room, and what engines allow
    most_qps: Floats  # no capacity exceeds this
    allowed: Floats  # about as many sequences as the limits allow


@dataclass(frozen=True)
class Survey:
    """All deployable replica types of a scenario, before any capacity is computed."""

    scenario: Scenario
    catalog: Catalog
    coefficients: Coefficients
    offers: tuple[Offer, ...]
    eligible: tuple[Eligible, ...]
    shapes: tuple[Shape, ...]
    shape_of: Ints  # eligible -> shape, -1 where it may serve nobody
    shape: Ints  # row -> shape
    replicas: Replicas
    evidence: Evidence
    physics: tuple[Physics, ...]  # one per workload
    excluded: Counter[str]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the rows of ``replicas.architectures``."""
        return tuple(dict.fromkeys(s.card.name for s in self.shapes))

    def eligible_on(self, row: int) -> list[int]:
        """Indices of the eligible checkpoints that a row stands for."""
        return [int(i) for i in np.flatnonzero(self.shape_of == self.shape[row])]


def survey(scenario: Scenario, catalog: Catalog, offers: Sequence[Offer]) -> Survey:
    """Enumerates checkpoint x mode x engine x GPU x TP (x PP) over the whole catalogue; ``offers`` are all that may be asked about."""
    coefficients = load_coefficients(catalog.coefficients_file)
    everyone = eligibility(scenario, catalog)
    shapes, shape_of = _shapes(everyone)
    excluded = _ineligible(everyone, len(catalog.gpus))
    serving = shape_of[[i for i, e in enumerate(everyone) if e.may_serve]]
    heads = np.bincount(serving, minlength=len(shapes))
    replicas, shape = _enumerate(shapes, heads, scenario, catalog, offers, excluded)
    names = tuple(dict.fromkeys(s.card.name for s in shapes))
    found = evidence(replicas, names, catalog.measured)
    may_serve = _may_serve(everyone, shape_of, len(shapes), len(scenario.workload))
    physics = tuple(
        _physics(w, np.array([s.factors[i] for s in shapes] or [0.0])[shape] * may_serve[i][shape], replicas, names, found, coefficients, scenario)
        for i, w in enumerate(scenario.workload)
    )
    return Survey(scenario, catalog, coefficients, tuple(offers), everyone, shapes, shape_of, shape, replicas, found, physics, excluded)


def curves_of(survey: Survey, w: int, rows: Ints, confidence: float | None = None, grid: Floats = GRID) -> StepCurves:
    """Full step curves of rows that share one output factor in a workload, at the scenario's confidence or another."""
    unique, back = np.unique(rows, return_inverse=True)
    mix = survey.physics[w].mixes[float(survey.physics[w].factor[rows[0]])]
    confidence = confidence or survey.scenario.policy.confidence
    return _curves(survey.replicas.take(unique), survey.evidence.take(unique), survey.names, mix, survey.coefficients, confidence, grid).take(back)


def step_factor(survey: Survey, w: int, row: int, sequences: int) -> float:
    """What predicted step times of a row are multiplied by with so many sequences, measurements and confidence together."""
    one, found = survey.replicas.take(np.array([row])), survey.evidence.take(np.array([row]))
    mix = survey.physics[w].mixes[float(survey.physics[w].factor[row])]
    shift = step_shift(found, one, survey.names, survey.coefficients, survey.scenario.policy.confidence, mix, np.array([float(sequences)]))
    return float(shift.step[0, 0])


def _curves(replicas: Replicas, found: Evidence, names: tuple[str, ...], mix: LengthMix, coefficients: Coefficients, confidence: float, grid: Floats) -> StepCurves:
    """Physics, pulled to measurements and to the confidence."""
    shift = step_shift(found, replicas, names, coefficients, confidence, mix, grid)
    return step_curves(replicas.compact(), mix, coefficients, grid).scaled(shift.step, shift.prompt)


def _shapes(everyone: Sequence[Eligible]) -> tuple[tuple[Shape, ...], Ints]:
    """Distinct shapes of all that may serve, and which each one has."""
    index: dict[tuple[str, str, int, tuple[float, ...]], int] = {}
    shapes: list[Shape] = []
    shape_of = np.full(len(everyone), -1)
    for i, e in enumerate(everyone):
        if not e.is_surveyed:
            continue
        checkpoint = e.served.checkpoint
        key = (e.served.card.name, checkpoint.precision, checkpoint.fp8_block, e.factor)
        if key not in index:
            index[key] = len(shapes)
            shapes.append(Shape(e.served.card, checkpoint.precision, checkpoint.fp8_block, e.factor))
        shape_of[i] = index[key]
    return tuple(shapes), shape_of


def _ineligible(everyone: Sequence[Eligible], gpus: int) -> Counter[str]:
    """Candidates lost before any hardware is looked at, by the reason nearest to serving."""
    order = ("quality", "context", "no output factor", "no score", "not asked for")
    excluded: Counter[str] = Counter()
    for e in everyone:
        if not e.may_serve:
            excluded[min(e.why, key=order.index)] += gpus * len(TP_SIZES) * len(ENGINES)
    return excluded


def _may_serve(everyone: Sequence[Eligible], shape_of: Ints, shapes: int, workloads: int) -> Floats:
    """[workload, shape]: 1 where some checkpoint of the shape may serve."""
    found = np.zeros((workloads, max(shapes, 1)))
    for i, e in enumerate(everyone):
        for w, why in enumerate(e.why):
            if (not why or e.near[w]) and shape_of[i] >= 0:
                found[w, shape_of[i]] = 1.0
    return found


def _enumerate(
    shapes: Sequence[Shape], heads: Ints, scenario: Scenario, catalog: Catalog, offers: Sequence[Offer], excluded: Counter[str]
) -> tuple[Replicas, Ints]:
    """All valid replica types that fit in memory, and the shape of each; what is left out is counted by reason."""
    gpus = tuple(catalog.gpus.values())
    if not shapes:
        none = np.zeros(0, dtype=np.int64)
        return Replicas((), gpus, *(none for _ in range(6))), none
    axes = np.meshgrid(np.arange(len(shapes)), np.arange(len(gpus)), np.arange(len(ENGINES)), np.array(TP_SIZES), indexing="ij")
    s, g, e, tp = (a.ravel() for a in axes)

    def drop(keep: NDArray[np.bool_], reason: str) -> None:
        nonlocal s, g, e, tp
        lost = int(heads[s[~keep]].sum())
        if lost:
            excluded[reason] += lost
        s, g, e, tp = s[keep], g[keep], e[keep], tp[keep]

    kernels = np.array([[[sh.precision in gpu.precisions and name in gpu.engines for name in ENGINES] for gpu in gpus] for sh in shapes], dtype=bool)
    drop(_engine_asked(scenario)[e], "engine not asked for")
    drop(kernels[s, g, e], "no kernels for the precision")
    widest = np.array([max((o.max_tp for o in offers if o.gpu == gpu.name), default=0) for gpu in gpus])
    drop(widest[g] > 0, "GPU not on offer")
    drop(tp <= widest[g], "no node that wide")
    splits = np.array([[not unsplit(sh.card.architecture, sh.fp8_block, t) for t in TP_SIZES] for sh in shapes], dtype=bool)
    drop(splits[s, np.log2(tp).astype(int)], "does not split by TP")
    cards = list(dict.fromkeys(id(sh.card) for sh in shapes))
    table = tuple({id(sh.card): sh.card.architecture for sh in shapes}.values())
    architecture = np.array([cards.index(id(sh.card)) for sh in shapes], dtype=np.int64)
    precision = np.array([PRECISIONS.index(sh.precision) for sh in shapes], dtype=np.int64)
    one_node = _replicas(table, gpus, architecture, precision, s, g, e, tp, np.ones_like(tp))
    fits = _fits(one_node, scenario)
    more, parents = _pipelines(one_node, s, fits, scenario)
    excluded["memory"] += int(heads[s[~fits]].sum())
    whole = np.concatenate((np.flatnonzero(fits), parents))
    replicas = _replicas(
        table, gpus, architecture, precision, s[whole], g[whole], e[whole], tp[whole], np.concatenate((np.ones(int(fits.sum()), dtype=np.int64), more))
    )
    return replicas, s[whole]


def _replicas(
    table: tuple[Architecture, ...], gpus: tuple[Gpu, ...], architecture: Ints, precision: Ints, s: Ints, g: Ints, e: Ints, tp: Ints, pp: Ints
) -> Replicas:
    return Replicas(table, gpus, architecture[s], g, precision[s], e, tp, pp)


def _engine_asked(scenario: Scenario) -> NDArray[np.bool_]:
    return np.array([not scenario.policy.engines or name in scenario.policy.engines for name in ENGINES])


def _fits(replicas: Replicas, scenario: Scenario) -> NDArray[np.bool_]:
    """Whether weights, activations and reserve leave any room for KV."""
    memory = memory_fit(replicas, lognormal_mix(1000, 300, 0, 0), scenario.policy.gpu_memory_utilization)
    found: NDArray[np.bool_] = memory.kv_budget_gib > 0
    return found


def _pipelines(one_node: Replicas, s: Ints, fits: NDArray[np.bool_], scenario: Scenario) -> tuple[Ints, Ints]:
    """PP sizes, and the one-node rows they extend, for what no single node can hold: at the widest TP, smallest PP that fits."""
    key = (s * len(one_node.gpus) + one_node.gpu) * len(ENGINES) + one_node.engine
    held = np.unique(key[fits])
    homeless = np.flatnonzero(~np.isin(key, held))
    last = {int(key[i]): int(i) for i in homeless}  # rows run from small TP to large: the last is the widest
    rows = np.array(sorted(last.values()), dtype=np.int64)
    chosen_pp: list[int] = []
    chosen: list[int] = []
    for pp in PP_SIZES:
        if len(rows):
            longer = one_node.take(rows)
            ok = _fits(
                Replicas(longer.architectures, longer.gpus, longer.architecture, longer.gpu, longer.precision, longer.engine, longer.tp, longer.tp * 0 + pp),
                scenario,
            )
            chosen += rows[ok].tolist()
            chosen_pp += [pp] * int(ok.sum())
    return np.array(chosen_pp, dtype=np.int64), np.array(chosen, dtype=np.int64)


def _physics(
    workload: Workload, factor: Floats, replicas: Replicas, names: tuple[str, ...], found: Evidence, coefficients: Coefficients, scenario: Scenario
) -> Physics:
    """Memory, slots and an upper bound on capacity of all rows, each under the mix of its output factor (0 = may not serve)."""
    mixes = {float(f): length_mix(workload, float(f)) for f in np.unique(factor) if f > 0}
    memory = _no_memory(len(replicas))
    most, allowed = np.zeros(len(replicas)), np.zeros(len(replicas))
    for f, mix in mixes.items():
        rows = np.flatnonzero(factor == f)
        part = replicas.take(rows).compact()
        for name, column in vars(memory_fit(part, mix, scenario.policy.gpu_memory_utilization)).items():
            getattr(memory, name)[rows] = column
        coarse = _curves(replicas.take(rows), found.take(rows), names, mix, coefficients, scenario.policy.confidence, COARSE)
        most[rows], allowed[rows] = saturation_bound(coarse, mix, limits(workload, f), np.minimum(memory.slots[rows], MAX_SEQUENCES))
    slots = np.where(factor > 0, np.minimum(memory.slots, MAX_SEQUENCES), 0)
    return Physics(mixes, factor, memory, slots, most, allowed)


def _no_memory(rows: int) -> Memory:
    """Zeros to be filled in."""
    return Memory(**{n: np.zeros(rows, dtype=np.int64 if n == "slots" else float) for n in Memory.__dataclass_fields__})


def limits(workload: Workload, factor: float) -> tuple[Limit, ...]:
    """The workload's SLO as limits on what a model does that writes ``factor`` tokens per answer token.

    TTFT counts to the first token of the answer: a model that reasons first is held to it at the end of its reasoning.
    """
    found = []
    for name, seconds in workload.slo.items():
        metric, percentile = name.split("_p")
        if metric == "ttft" and factor > 1:
            found.append(Limit("e2e", seconds, float(percentile), (factor - 1) / factor))
        else:
            found.append(Limit(metric, seconds, float(percentile)))  # type: ignore[arg-type]  # checked by the scenario
    return tuple(found)
