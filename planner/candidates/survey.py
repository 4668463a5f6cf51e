"""Enumerates every deployable replica type with its memory fit and step curves, counting each exclusion by its reason.

A row of the survey is a physical replica type (architecture, precision, GPU, engine, TP, PP) with the output factors it
meets; checkpoints that share one (DeepSeek-V3-0324 and V3.1, say) share its physics.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from planner.candidates.eligibility import Eligible, eligibility
from planner.candidates.sharding import gains_by_attention_groups, unsplit
from planner.catalog.catalog import Catalog
from planner.catalog.records import Card, Offer
from planner.performance import serving
from planner.performance.calibrated import is_of_model
from planner.performance.capacity import Limit
from planner.performance.coefficients import Coefficients
from planner.performance.disaggregated import RATIOS
from planner.performance.evidence import Evidence, evidence, retuned, shown_tier
from planner.performance.lengths import LengthMix, lognormal_mix, met_by, workload_mix
from planner.performance.memory import Memory, memory_fit
from planner.performance.replicas import ENGINES, FP8_KV, PRECISIONS, Replicas
from planner.performance.serving import UNIT_ENGINES, Known, Options, Serving, load_options, most_sequences
from planner.performance.speculation import measured_loads
from planner.performance.step import CHUNK, GRID, StepCurves
from planner.performance.tuning import coefficients_for, tuned
from planner.scenario.records import Scenario, Tuning
from planner.scenario.workload import Workload

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Kind = tuple[float, float]  # what lengths of one workload depend on: output factor, tokens per stated token

TP_SIZES = (1, 2, 4, 8)
PP_SIZES = (2, 4)  # only for what no single node can hold
PLAIN, WHOLE_EXPERTS, ATTENTION_GROUPS = 0, 1, 2  # layouts over the GPUs of a replica
STEP_TOKENS = (2048, CHUNK)  # max_num_batched_tokens worth trying: a smaller step leaves more memory for KV cache
ITL_STEP_TOKENS = (512, 1024, *STEP_TOKENS)  # and a limit on ITL may need shorter ones
LORA_ENGINES = ("vllm", "sglang")  # whose start commands for adapters are known here
COARSE: Floats = np.exp2(np.arange(11, dtype=float))  # sequences at which capacity is bounded before any is computed


@dataclass(frozen=True)
class Shape:
    """What physics needs of a checkpoint: its card, precision, FP8 blocks, and the output factor and tokens per stated token in each workload."""

    card: Card
    precision: str
    fp8_block: int
    factors: tuple[float, ...]
    tokens: tuple[float, ...]


@dataclass(frozen=True)
class Physics:
    """What one workload meets on each row. Rows that may not serve it, or do not fit, have no slots."""

    mixes: Mapping[Kind, LengthMix]
    factor: Floats
    tokens: Floats
    slots: Ints  # most sequences in service: KV room with the smallest step tried, and what engines allow
    coarse: Mapping[Kind, StepCurves]  # of the rows of each kind, on COARSE
    most_qps: Floats  # no capacity exceeds this
    allowed: Floats  # about as many sequences as the limits allow
    most_after_loss: Floats  # as most_qps, with the limits of the time after a loss

    def mix(self, row: int) -> LengthMix:
        """The workload's lengths on a row that may serve it."""
        return self.mixes[float(self.factor[row]), float(self.tokens[row])]

    def kinds(self, rows: Ints) -> dict[Kind, LengthMix]:
        """The lengths that the workload has on any of these rows."""
        there = set(zip(self.factor[rows].tolist(), self.tokens[rows].tolist(), strict=True))
        return {kind: mix for kind, mix in self.mixes.items() if kind in there}

    def of_kind(self, kind: Kind, rows: Ints) -> Ints:
        """The places among rows of those on which the workload has these lengths."""
        return np.flatnonzero((self.factor[rows] == kind[0]) & (self.tokens[rows] == kind[1]))


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
    options: Options | None = None  # read only where they are allowed

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the rows of ``replicas.architectures``."""
        return tuple(dict.fromkeys(s.card.name for s in self.shapes))

    @property
    def known(self) -> Known:
        """The rows with what their steps are predicted from."""
        return Known(self.replicas, self.evidence, self.names, self.coefficients, self.options)

    def gpus_of(self, row: int) -> tuple[int, int]:
        """(GPUs of one replica that must be linked, groups of so many that it has): TP and PP, or a whole unit once."""
        found = self.replicas.at(row)
        return found.linked, found.groups

    def eligible_on(self, row: int) -> list[int]:
        """Indices of the eligible checkpoints that a row stands for."""
        return [int(i) for i in np.flatnonzero(self.shape_of == self.shape[row])]


def survey(scenario: Scenario, catalog: Catalog, offers: Sequence[Offer]) -> Survey:
    """Enumerates checkpoint x mode x engine x GPU x TP (x PP) over the whole catalogue; ``offers`` are all that may be asked about."""
    coefficients = coefficients_for(scenario, catalog)
    everyone = eligibility(scenario, catalog)
    shapes, shape_of = _shapes(everyone)
    excluded = _ineligible(everyone, len(catalog.gpus))
    serving = shape_of[[i for i, e in enumerate(everyone) if e.may_serve]]
    heads = np.bincount(serving, minlength=len(shapes))
    replicas, shape = _enumerate(shapes, heads, scenario, catalog, offers, excluded)
    names = tuple(dict.fromkeys(s.card.name for s in shapes))
    found = evidence(replicas, names, catalog.measured, scenario.policy.tuning)
    options = load_options(catalog) if {"speculative", "disaggregated"} & set(scenario.policy.allow) else None
    if options:
        rows, replicas = _with_options(replicas, found, names, options, scenario, offers)
        found, shape = found.take(rows), shape[rows]
    may_serve = _may_serve(everyone, shape_of, len(shapes), len(scenario.workload))
    known = Known(replicas, found, names, coefficients, options)
    physics = tuple(
        _physics(w, _per_shape([s.factors[i] for s in shapes])[shape] * may_serve[i][shape], _per_shape([s.tokens[i] for s in shapes])[shape], known, scenario)
        for i, w in enumerate(scenario.workload)
    )
    return Survey(scenario, catalog, coefficients, tuple(offers), everyone, shapes, shape_of, shape, replicas, found, physics, excluded, options)


def tuned_otherwise(survey: Survey, tuning: Tuning) -> Survey:
    """The same replica types with engines set otherwise: steps and evidence of curves computed from here on."""
    found = retuned(survey.evidence, survey.replicas, survey.names, survey.catalog.measured, tuning)
    return replace(survey, coefficients=replace(survey.coefficients, tuned=tuned(tuning, survey.catalog)), evidence=found)


def relimited(survey: Survey, scenario: Scenario) -> Survey:
    """The same replica types for a question that differs in latency limits alone, none or some of them on ITL in both: all but the
    bounds on capacity stays."""
    parts = (survey.replicas, survey.coefficients, survey.scenario.policy.loss_slo_factor)
    physics = tuple(_bounded(p, w, *parts) for p, w in zip(survey.physics, scenario.workload, strict=True))
    return replace(survey, scenario=scenario, physics=physics)


def limits_itl(scenario: Scenario) -> bool:
    """Whether any limit is on the time between tokens: steps of other sizes are then tried."""
    return any(s.metric == "itl" for w in scenario.workload for s in w.limits)


def step_tokens(scenario: Scenario) -> tuple[int, ...]:
    """Sizes of a step (max_num_batched_tokens) to choose from, rising."""
    return ITL_STEP_TOKENS if limits_itl(scenario) else STEP_TOKENS


def whole_request(mix: LengthMix) -> int:
    """The least max_num_batched_tokens that takes every prompt of a mix in one step: engines ask for the whole request's length."""
    return max(CHUNK, 1024 * int(np.ceil((mix.input_tokens + mix.output_tokens).max() / 1024)))


def memory_of(survey: Survey, w: int, rows: Ints, batched_tokens: int) -> Memory:
    """Memory fit of rows that share one kind of lengths in a workload, with steps of this size."""
    mix = survey.physics[w].mix(rows[0])
    return memory_fit(survey.replicas.take(rows).compact(), mix, survey.scenario.policy.gpu_memory_utilization, batched_tokens, survey.scenario.policy.lora)


def slots_of(survey: Survey, w: int, rows: Ints, batched_tokens: int) -> Ints:
    """Most sequences of a workload in service on each row, with steps of this size; 0 where it may not serve or does not fit."""
    physics, found = survey.physics[w], np.zeros(len(rows), dtype=np.int64)
    for kind in physics.kinds(rows):
        here = physics.of_kind(kind, rows)
        most = most_sequences(survey.replicas.take(rows[here]), survey.names, survey.options)
        found[here] = np.minimum(memory_of(survey, w, rows[here], batched_tokens).slots, most)
    return found


def curves_of(survey: Survey, w: int, rows: Ints, batched_tokens: int, confidence: float | None = None, grid: Floats = GRID) -> StepCurves:
    """Full step curves of rows that share one kind of lengths in a workload, at the scenario's confidence or another."""
    unique, back = np.unique(rows, return_inverse=True)
    mix = survey.physics[w].mix(rows[0])
    policy = survey.scenario.policy
    curves = serving.curves_of(survey.known.take(unique), mix, confidence or policy.confidence, grid, batched_tokens, policy.chunked_prefill)
    return curves.take(back)


def is_own(survey: Survey, rows: Ints) -> NDArray[np.bool_] | None:
    """Of which rows the user measured the very model on its GPU and engine; None: of none."""
    own = survey.catalog.calibrated
    return is_of_model(own, survey.replicas.take(rows), survey.names) if own else None


def tiers_of(survey: Survey, rows: Ints) -> Ints:
    """Tiers of rows as plans state and order them."""
    return shown_tier(survey.evidence.take(rows), survey.replicas.take(rows), is_own(survey, rows))


def step_factor(survey: Survey, w: int, row: int, sequences: int, confidence: float | None = None) -> float:
    """What predicted step times of a row are multiplied by with so many sequences: measurements and confidence (the scenario's) together."""
    one, mix = survey.known.take(np.array([row])), survey.physics[w].mix(row)
    return serving.step_factor(one, mix, confidence or survey.scenario.policy.confidence, sequences)


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
            shapes.append(Shape(e.served.card, checkpoint.precision, checkpoint.fp8_block, e.factor, e.tokens))
        shape_of[i] = index[key]
    return tuple(shapes), shape_of


def _per_shape(values: list[float]) -> Floats:
    """[shape], never empty, for rows to index."""
    return np.array(values or [0.0])


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
    shape_layouts = _layouts(shapes, scenario)
    axes = np.meshgrid(np.arange(len(shape_layouts)), np.arange(len(gpus)), np.arange(len(ENGINES)), indexing="ij")
    at, g, e = (a.ravel() for a in axes)
    s, tp, layout, kv_bytes = shape_layouts[at].T

    def drop(keep: NDArray[np.bool_], reason: str) -> None:
        nonlocal s, g, e, tp, layout, kv_bytes
        lost = int(heads[s[~keep]].sum())
        if lost:
            excluded[reason] += lost
        s, g, e, tp, layout, kv_bytes = s[keep], g[keep], e[keep], tp[keep], layout[keep], kv_bytes[keep]

    kernels = np.array([[[sh.precision in gpu.precisions and name in gpu.engines for name in ENGINES] for gpu in gpus] for sh in shapes], dtype=bool)
    drop(_engine_asked(scenario)[e], "engine not asked for")
    drop(kernels[s, g, e], "no kernels for the precision")
    widest = np.array([max((o.max_tp for o in offers if o.gpu == gpu.name), default=0) for gpu in gpus])
    drop(widest[g] > 0, "GPU not on offer")
    drop(tp <= widest[g], "no node that wide")
    eight_bits = np.array(["fp8" in gpu.precisions for gpu in gpus])
    drop((kv_bytes != 1) | eight_bits[g] | np.isin(np.array([sh.precision for sh in shapes])[s], FP8_KV), "no FP8 KV cache")
    drop(layout >= 0, "does not split by TP")
    cards = list(dict.fromkeys(id(sh.card) for sh in shapes))
    table = tuple({id(sh.card): sh.card.architecture for sh in shapes}.values())
    architecture = np.array([cards.index(id(sh.card)) for sh in shapes], dtype=np.int64)
    precision = np.array([PRECISIONS.index(sh.precision) for sh in shapes], dtype=np.int64)
    spread, groups = np.where(layout > 0, tp, 1), np.where(layout == ATTENTION_GROUPS, tp, 1)
    one_node = Replicas(table, gpus, architecture[s], g, precision[s], e, tp, np.ones_like(tp), groups, spread, kv_bytes)
    fits = _fits(one_node, scenario)
    more, parents = _pipelines(one_node, s, fits, scenario)
    excluded["memory"] += int(heads[s[~fits]].sum())
    whole = np.concatenate((np.flatnonzero(fits), parents))
    stages = np.concatenate((np.ones(int(fits.sum()), dtype=np.int64), more))
    return replace(one_node.take(whole), pp=stages), s[whole]


def _layouts(shapes: Sequence[Shape], scenario: Scenario) -> Ints:
    """Rows of (shape, TP, layout, bytes of a KV number): plain TP; whole experts spread over the GPUs where TP would cut FP8 blocks;
    attention groups where TP would copy KV cache. Layout -1: cannot be cut at all."""
    allowed, rows = scenario.policy.allow, []
    for i, sh in enumerate(shapes):
        kv = {1 if sh.precision in FP8_KV else 2, *([1] if "fp8_kv" in allowed else [])}
        for tp in TP_SIZES:
            found = [PLAIN] if not unsplit(sh.card.architecture, sh.fp8_block, tp) else []
            if not found and tp > 1 and "expert_parallel" in allowed and not unsplit(sh.card.architecture, sh.fp8_block, tp, tp):
                found = [WHOLE_EXPERTS]
            if "attention_dp" in allowed and gains_by_attention_groups(sh.card.architecture, tp):
                found.append(ATTENTION_GROUPS)
            rows += [(i, tp, layout, b) for layout in found or [-1] for b in sorted(kv)]
    return np.array(rows, dtype=np.int64)


def _with_options(
    replicas: Replicas, found: Evidence, names: tuple[str, ...], options: Options, scenario: Scenario, offers: Sequence[Offer]
) -> tuple[Ints, Replicas]:
    """Every row as it is, then those whose drafted tokens were measured, then units on GPUs linked in one node of engines whose model
    was measured on the GPU: the rows that each repeats, and all replica types."""
    allow, width = scenario.policy.allow, {o.gpu: 0 for o in offers}
    for o in offers:
        width[o.gpu] = max(width[o.gpu], o.max_tp)
    rows, chosen = [np.arange(len(replicas))], [(0, 0, 0)]
    if "speculative" in allow:
        rows.append(np.flatnonzero(measured_loads(options.speculation, replicas, names)))
        chosen.append((1, 0, 0))
    if "disaggregated" in allow and scenario.policy.chunked_prefill:
        linked = np.array([width.get(g.name, 0) for g in replicas.gpus], dtype=np.int64)[replicas.gpu]
        known = (found.tier <= 1) & (replicas.pp == 1) & np.isin(replicas.engine, UNIT_ENGINES)
        for x, y in RATIOS:
            rows.append(np.flatnonzero(known & ((x + y) * replicas.tp <= linked)))
            chosen.append((0, x, y))
    counts = [len(r) for r in rows]
    draft, prefill, decode = (np.repeat([c[i] for c in chosen], counts) for i in range(3))
    every = np.concatenate(rows)
    return every, replace(replicas.take(every), draft=draft, prefill=prefill, decode=decode)


def _engine_asked(scenario: Scenario) -> NDArray[np.bool_]:
    asked, able = scenario.policy.engines, LORA_ENGINES if scenario.policy.adapters else ENGINES
    return np.array([(not asked or name in asked) and name in able for name in ENGINES])


def _fits(replicas: Replicas, scenario: Scenario) -> NDArray[np.bool_]:
    """Whether weights, activations and reserve leave any room for KV."""
    memory = memory_fit(replicas, lognormal_mix(1000, 300, 0, 0), scenario.policy.gpu_memory_utilization, step_tokens(scenario)[0], scenario.policy.lora)
    found: NDArray[np.bool_] = memory.kv_budget_gib > 0
    return found


def _pipelines(one_node: Replicas, s: Ints, fits: NDArray[np.bool_], scenario: Scenario) -> tuple[Ints, Ints]:
    """PP sizes, and the one-node rows they extend, for what no single node can hold: at the widest TP, smallest PP that fits."""
    plain = one_node.dp == 1  # attention groups need no pipeline: it is what fits nowhere that does
    key = (s * len(one_node.gpus) + one_node.gpu) * len(ENGINES) + one_node.engine
    held = np.unique(key[fits])
    homeless = np.flatnonzero(~np.isin(key, held) & plain)
    last = {int(key[i]): int(i) for i in homeless}  # rows run from small TP to large: the last is the widest
    rows = np.array(sorted(last.values()), dtype=np.int64)
    chosen_pp: list[int] = []
    chosen: list[int] = []
    for pp in PP_SIZES:
        if len(rows):
            longer = one_node.take(rows)
            ok = _fits(replace(longer, pp=np.full(len(rows), pp)), scenario)
            chosen += rows[ok].tolist()
            chosen_pp += [pp] * int(ok.sum())
    return np.array(chosen_pp, dtype=np.int64), np.array(chosen, dtype=np.int64)


def _physics(workload: Workload, factor: Floats, tokens: Floats, known: Known, scenario: Scenario) -> Physics:
    """Slots and an upper bound on capacity of all rows, each under the mix of its output factor (0 = may not serve) and tokens."""
    kinds = {(float(f), float(t)) for f, t in np.unique(np.stack((factor, tokens), axis=1), axis=0)}
    mixes = {(f, t): workload_mix(met_by(workload, t), f) for f, t in sorted(kinds) if f > 0}
    policy, slots, coarse = scenario.policy, np.zeros(len(known.replicas), dtype=np.int64), {}
    for kind, mix in mixes.items():
        rows = np.flatnonzero((factor == kind[0]) & (tokens == kind[1]))
        part = known.take(rows)
        least = step_tokens(scenario)[0] if policy.chunked_prefill else whole_request(mix)
        room = memory_fit(part.replicas.compact(), mix, policy.gpu_memory_utilization, least, policy.lora).slots
        slots[rows] = np.minimum(room, most_sequences(part.replicas, known.names, known.options))
        coarse[kind] = serving.curves_of(part, mix, policy.confidence, COARSE, CHUNK, policy.chunked_prefill)
    nothing = np.zeros(len(known.replicas))
    bare = Physics(mixes, factor, tokens, slots, coarse, nothing, nothing, nothing)
    return _bounded(bare, workload, known.replicas, known.coefficients, policy.loss_slo_factor)


def _bounded(physics: Physics, workload: Workload, replicas: Replicas, coefficients: Coefficients, loss_slo_factor: float) -> Physics:
    """The same rows with the bounds on capacity that the workload's limits leave, and those after a loss."""
    every_day = _bounds(physics, workload, replicas, coefficients)
    after = every_day if loss_slo_factor == 1 else _bounds(physics, workload.relaxed(loss_slo_factor), replicas, coefficients)
    return replace(physics, most_qps=every_day[0], allowed=every_day[1], most_after_loss=after[0])


def _bounds(physics: Physics, workload: Workload, replicas: Replicas, coefficients: Coefficients) -> tuple[Floats, Floats]:
    """Requests/s that no capacity exceeds, and about as many sequences as the limits allow."""
    most, allowed = np.zeros(len(replicas)), np.zeros(len(replicas))
    for kind, mix in physics.mixes.items():
        rows = physics.of_kind(kind, np.arange(len(replicas)))
        part = replicas.take(rows)
        asked = Serving(part, physics.coarse[kind], mix, limits(workload, kind[0]), physics.slots[rows], coefficients)
        most[rows], allowed[rows] = serving.bound_of(asked)
    return most, allowed


def limits(workload: Workload, factor: float) -> tuple[Limit, ...]:
    """The workload's SLO as limits on what a model does that writes ``factor`` tokens per answer token.

    TTFT counts to the first token of the answer: a model that reasons first is held to it at the end of its reasoning.
    An SLO that does not say how long requests may wait is held to its share of requests that wait, as the last limit.
    """
    found = []
    for asked in workload.server_limits:
        if asked.metric == "ttft" and factor > 1:
            found.append(Limit("e2e", asked.seconds, asked.percentile, (factor - 1) / factor))
        else:
            found.append(Limit(asked.metric, asked.seconds, asked.percentile))
    if workload.is_queue_bounded:
        found.append(Limit("full", np.inf, 100 - 100 * workload.max_waiting_share))
    return tuple(found)
