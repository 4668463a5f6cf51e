"""A plan made ready to be checked: its scenario read back, and each deployment rebuilt from the catalogue with its capacity.

Only the names in a plan are believed here (checkpoint, GPU, engine, sizes); every number is computed again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from planner.catalog.catalog import Catalog, Served
from planner.catalog.records import REFERENCE, Card, Gpu
from planner.performance.calibrated import is_of_model
from planner.performance.capacity import Capacity, Limit, Service, pooled_qps
from planner.performance.coefficients import TIERS, Coefficients
from planner.performance.disaggregated import Units
from planner.performance.evidence import Evidence, evidence, shown_tier
from planner.performance.lengths import LengthMix, workload_mix
from planner.performance.memory import Memory, memory_fit
from planner.performance.replicas import ENGINES, Floats, Replicas
from planner.performance.serving import (
    Known,
    Options,
    Serving,
    capacity_lifted,
    capacity_of,
    curves_of,
    in_flight_capacity,
    in_flight_service,
    load_options,
    most_sequences,
    step_factor,
    units_of,
)  # fmt: skip
from planner.performance.shared import Shared, SharedLoop, settled
from planner.performance.step import CHUNK, GRID, StepCurves
from planner.performance.tuning import coefficients_for, tuned
from planner.result.plan import Brief, Deployment, Plan
from planner.result.reach import as_reached
from planner.scenario.records import Policy, Scenario, Tuning
from planner.scenario.slo import strictest
from planner.scenario.workload import Workload

MOST = 10**9  # of any size or count that a deployment states: more than there is of anything, and no product of two overflows


@dataclass(frozen=True)
class Fit:
    """One workload on one rebuilt replica. ``single`` and ``saturated`` are in the workload's unit, each worth qps_per_unit at capacity."""

    workload: Workload  # in the model's own tokens
    tokens: float  # of these per token that lengths are stated in
    factor: float
    mix: LengthMix
    limits: tuple[Limit, ...]
    replica: Replicas
    coefficients: Coefficients
    curves: StepCurves  # of one engine
    units: Units | None  # of a disaggregated unit
    memory: Memory
    most: int  # sequences that the engine may admit, whatever finds room
    max_num_seqs: int
    step_factor: float  # at max_num_seqs
    single: float
    saturated: float
    qps_per_unit: float

    @property
    def serving(self) -> Serving:
        """The workload on the replica as ``performance.serving`` takes it."""
        return Serving(self.replica, self.curves, self.mix, self.limits, np.array([self.max_num_seqs], dtype=np.int64), self.coefficients)

    @property
    def slots(self) -> int:
        """Requests that find room at once."""
        return min(int(self.memory.slots[0]), self.most)


@dataclass(frozen=True)
class Rebuilt:
    """A deployment as the catalogue has it, with every workload it could take (``fits``) and those routed to it (``serves``)."""

    served: Served
    gpu: Gpu
    replica: Replicas
    found: Evidence
    tier: str  # as tiers are ordered
    is_own: bool  # the user measured this model on this GPU and engine
    fits: Mapping[int, Fit]
    serves: tuple[int, ...]

    def known(self, coefficients: Coefficients, options: Options | None) -> Known:
        """It with what its steps are predicted from."""
        return Known(self.replica, self.found, (self.served.card.name,), coefficients, options)


@dataclass(frozen=True)
class Account:
    """A plan with the question and what there is to buy: all that counting, packing and adding up need."""

    plan: Plan
    scenario: Scenario
    catalog: Catalog

    def where(self, index: int) -> str:
        """A deployment in words."""
        d = self.plan.deployments[index]
        return f"deployment {index} ({d.checkpoint} on {d.gpu} {d.layout})"


@dataclass(frozen=True)
class Case(Account):
    """A plan with all that it is checked against. ``built[i]`` is None where the catalogue has no such deployment."""

    built: tuple[Rebuilt | None, ...]
    coefficients: Coefficients
    options: Options | None
    unknown: tuple[tuple[int, str], ...] = field(default=())
    queues: dict[tuple[int, int, bool], Shared | SharedLoop] = field(default_factory=dict, compare=False)  # made so far, as several families ask for them
    loops: dict[tuple[int, int, float], Service] = field(default_factory=dict, compare=False)  # and services of requests in flight
    services: dict[tuple[int, int], Service] = field(default_factory=dict, compare=False)  # and of others, by deployment and workload

    def known(self, built: Rebuilt) -> Known:
        """A deployment with what its steps are predicted from."""
        return built.known(self.coefficients, self.options)

    def in_service(self, index: int) -> int:
        """Replicas that must do when the spare ones are gone."""
        return self.plan.deployments[index].replicas - self.scenario.policy.spare_replicas

    def flow(self, w: int, index: int) -> float:
        """Peak traffic of a workload on a deployment in the workload's own unit: what capacity must hold."""
        asked = self.scenario.workload[w]
        return sum(r.share for r in self.plan.workloads[w].routing if r.deployment == index) * asked.rate * asked.burst_factor

    def qps(self, w: int, index: int) -> float:
        """Mean traffic in requests/s; of requests in flight, the rate of the closed loop at the number of replicas there is."""
        asked, built = self.scenario.workload[w], self.built[index]
        mean = self.flow(w, index) / asked.burst_factor
        if not asked.is_closed or not built or w not in built.fits or not mean:
            return mean
        now = self.together(index, self.plan.deployments[index].replicas, at_peak=False)
        if now is not None and w in built.serves:
            return float(now.rates[built.serves.index(w)]) * self.plan.deployments[index].replicas
        return mean / float(self.loop(w, index, 1 / asked.burst_factor).e2e_s["mean"][0])

    def together(self, index: int, replicas: int, at_peak: bool = True) -> Shared | SharedLoop | None:
        """One of so many replicas of a deployment as the queue of all workloads it serves; None for one workload, and for disaggregated units."""
        built = self.built[index]
        if built is None or len(built.serves) < 2 or replicas < 1 or any(w not in built.fits or built.fits[w].units for w in built.serves):
            return None
        known = self.queues.get((index, replicas, at_peak))
        if known is None:
            known = self.queues[index, replicas, at_peak] = self.queue(index, built, replicas, at_peak)
        return known

    def queue(self, index: int, built: Rebuilt, replicas: int, at_peak: bool = True) -> Shared | SharedLoop:
        """The same of a deployment rebuilt with any steps."""
        fits = [built.fits[w] for w in built.serves]
        each = np.array([self.flow(w, index) / (1.0 if at_peak else self.scenario.workload[w].burst_factor) / replicas for w in built.serves])
        is_loop = np.array([f.workload.is_closed for f in fits])
        pooled = [f.single / float(pooled_qps(np.array(f.single), np.array(f.saturated), replicas)) for f in fits if f.single > 0]
        relief = max(pooled, default=1.0) if self.scenario.policy.keeps_level else 1.0
        slots = np.array([min(f.max_num_seqs for f in fits)], dtype=np.int64)
        return settled([f.curves for f in fits], [f.mix for f in fits], np.where(is_loop, 0.0, each), np.where(is_loop, each, 0.0), slots, relief)

    def loop(self, w: int, index: int, share: float = 1.0) -> Service:
        """Service of a workload in flight at a share of the peak traffic, all replicas up."""
        known = self.loops.get((w, index, share))
        if known is None:
            known = self.loops[w, index, share] = self._loop(w, index, share)
        return known

    def _loop(self, w: int, index: int, share: float) -> Service:
        built, able = self.built[index], max(self.capacity(index, w), 1e-12)
        assert built is not None
        load = sum(self.flow(v, index) / max(self.capacity(index, v), 1e-12) for v in built.serves if v in built.fits)
        return loop_service(built.fits[w], np.array([share * load * able / self.plan.deployments[index].replicas]), self.scenario.policy.keeps_level)

    def capacity(self, index: int, w: int) -> float:
        """Flow per replica that the limits allow: pooled at the real count alone, single times the mixture factor shared."""
        built = self.built[index]
        if built is None or w not in built.fits:
            return 0.0
        fit = built.fits[w]
        if len(built.serves) > 1:
            return fit.single * mixture_factor(self.scenario)
        if self.scenario.policy.router == "random":
            return fit.single
        return float(pooled_qps(np.array(fit.single), np.array(fit.saturated), max(self.in_service(index), 1)))


def loop_service(fit: Fit, each: Floats, is_level: bool) -> Service:
    """Service of one replica with so many requests in flight."""
    return in_flight_service(fit.serving, each, is_level, (fit.factor - 1) / fit.factor)[0]


def rebuild(plan: Plan, scenario: Scenario, catalog: Catalog) -> Case:
    """Every deployment of the plan out of the catalogue, for the question as the plan says that it is reached."""
    scenario = as_reached(scenario, plan.workloads)
    coefficients = coefficients_for(scenario, catalog)
    options = load_options(catalog) if any(d.speculative or d.decode_engines for d in plan.deployments) else None
    built: list[Rebuilt | None] = []
    unknown: list[tuple[int, str]] = []
    for i, d in enumerate(plan.deployments):
        why = _unknown(d, catalog)
        if why:
            unknown.append((i, why))
        serves = tuple(w for w, p in enumerate(plan.workloads) if any(r.deployment == i and r.share > 0 for r in p.routing))
        built.append(None if why else _build(d, scenario, catalog, coefficients, options, serves))
    return Case(plan, scenario, catalog, tuple(built), coefficients, options, tuple(unknown))


def mixture_factor(scenario: Scenario) -> float:
    """What sharing a deployment leaves of the capacities: 0.85 with limits at p95 or below, 0.65 from p99, between in proportion."""
    above = min(max(strictest((s for w in scenario.workload for s in w.limits), default=50.0) - 95.0, 0.0) / 4.0, 1.0)
    return 0.85 - 0.20 * above


def limits_of(workload: Workload, factor: float) -> tuple[Limit, ...]:
    """The SLO on what the engine does. A model that reasons meets TTFT with the first token after its reasoning part.

    Last, where no TTFT or E2E limit at p90 or above says how long requests may wait: that most of them do not wait at all.
    """
    found = []
    for slo in workload.limits:
        left = slo.seconds - (workload.network if slo.metric in ("ttft", "e2e") else 0.0)  # what the network's round trip leaves of it
        if slo.metric == "ttft" and factor > 1:
            found.append(Limit("e2e", left, slo.percentile, (factor - 1) / factor))
        else:
            found.append(Limit(slo.metric, left, slo.percentile))
    says_wait = any(slo.metric in ("ttft", "e2e") and slo.percentile >= 90 for slo in workload.limits)
    if not says_wait and not workload.is_waiting and workload.max_waiting_share < 1:
        found.append(Limit("full", np.inf, 100 - 100 * workload.max_waiting_share))
    return tuple(found)


def _unknown(d: Deployment, catalog: Catalog) -> str:
    """Why there is no such deployment, or ""."""
    if _served(d, catalog) is None:
        variants = [c.variant for card in catalog.cards for c in card.checkpoint if c.id == d.checkpoint]
        return f"checkpoint is a {variants[0]} one and does not answer as {d.mode}" if variants else "checkpoint is not in the catalogue"
    if d.gpu not in catalog.gpus:
        return "GPU is not in the catalogue"
    if d.engine not in ENGINES:
        return f"engine {d.engine} is unknown"
    return ill_sized(d)


def ill_sized(d: Deployment) -> str:
    """Why no engine can have the sizes that a deployment states, or "". Whatever computes with them asks here first."""
    sizes = (d.tp, d.pp, d.dp, d.ep, d.replicas, d.max_num_seqs, batched_tokens_of(d))
    if not (min(sizes) >= 1 and max(sizes) <= MOST):
        return f"replicas, TP, PP, DP, EP, max_num_seqs and max_num_batched_tokens must be from 1 to {MOST:,}"
    if not (0 <= d.prefill_engines <= MOST and 0 <= d.decode_engines <= MOST) or (d.prefill_engines > 0) != (d.decode_engines > 0):
        return "a disaggregated unit has engines of both roles"
    return f"DP{d.dp} groups of attention on {d.tp} GPUs" if d.dp > d.tp else ""


def batched_tokens_of(d: Deployment) -> int:
    """Its max_num_batched_tokens; plans that do not state it were made for the engines' default."""
    return CHUNK if d.max_num_batched_tokens is None else d.max_num_batched_tokens


def _served(d: Deployment, catalog: Catalog) -> Served | None:
    return next((s for s in catalog.served if s.checkpoint.id == d.checkpoint and s.mode == d.mode), None)


def _build(d: Deployment, scenario: Scenario, catalog: Catalog, coefficients: Coefficients, options: Options | None, serves: tuple[int, ...]) -> Rebuilt:
    served, gpu = _served(d, catalog), catalog.gpus[d.gpu]
    assert served is not None
    replica = replica_of(d, served, gpu)
    found = evidence(replica, (served.card.name,), catalog.measured, scenario.policy.tuning)
    own = is_of_model(catalog.calibrated, replica, (served.card.name,))
    bare = Rebuilt(served, gpu, replica, found, TIERS[int(shown_tier(found, replica, own)[0])], bool(own[0]), {}, serves)
    known = bare.known(coefficients, options)
    fits = {w: f for w, asked in enumerate(scenario.workload) if (f := _fit(d, asked, known, served, scenario.policy, catalog))}
    return replace(bare, fits=fits)


def refitted(case: Case, index: int, w: int, cases: Sequence[tuple[float, int]], tuning: Tuning | None = None) -> tuple[Fit, ...]:
    """A workload on a deployment as it would be at other confidences, each time with the i-th of its limits lifted (-1: with all of them); and with
    engines set otherwise than planned."""
    built, policy = case.built[index], case.scenario.policy
    assert built is not None
    fit, tokens = built.fits[w], batched_tokens_of(case.plan.deployments[index])
    known = case.known(built)
    if tuning is not None:
        coefficients = replace(case.coefficients, tuned=tuned(tuning, case.catalog))
        known = replace(known, found=evidence(built.replica, known.names, case.catalog.measured, tuning), coefficients=coefficients)
    at = {sure: curves_of(known, fit.mix, sure, GRID, tokens, policy.chunked_prefill) for sure in dict.fromkeys(sure for sure, _ in cases)}
    first, *others = (at[sure] for sure, _ in cases)
    is_steady = policy.keeps_level if fit.workload.is_closed else None
    lifted = np.array([i for _, i in cases], dtype=np.int64)
    rows, seqs = np.zeros(len(cases), dtype=np.int64), np.full(len(cases), fit.max_num_seqs)
    asked = Serving(fit.replica.take(rows), first.above(others), fit.mix, fit.limits, seqs, known.coefficients)
    found = capacity_lifted(asked, lifted, is_steady)
    able = [_in_units(fit.workload, found, i) for i in range(len(cases))]
    return tuple(replace(fit, curves=at[sure], single=x, saturated=s, qps_per_unit=u) for (sure, _), (x, s, u) in zip(cases, able, strict=True))


def step_factor_at(case: Case, index: int, w: int, confidence: float) -> float:
    """What a deployment's predicted steps are multiplied by at another confidence."""
    built, d = case.built[index], case.plan.deployments[index]
    assert built is not None
    return step_factor(case.known(built), built.fits[w].mix, confidence, d.max_num_seqs)


def replica_of(d: Deployment | Brief, served: Served, gpu: Gpu) -> Replicas:
    """A deployment as the physics takes it: one row."""
    return Replicas.of(served.card.architecture, gpu, served.checkpoint.precision, d.engine, [d.replica])


def _fit(d: Deployment, asked: Workload, known: Known, served: Served, policy: Policy, catalog: Catalog) -> Fit | None:
    """The workload on the replica, or None while nobody knows how many tokens an answer takes."""
    factor = served.output_factor or asked.output_factor
    if not factor:
        return None
    own = own_tokens(served.card, asked, catalog)
    workload = in_own_tokens(asked, own)
    tokens, mix = batched_tokens_of(d), workload_mix(workload, factor)
    memory = memory_fit(known.replicas, mix, policy.gpu_memory_utilization, tokens, policy.lora)
    most = int(most_sequences(known.replicas, known.names, known.options)[0])
    seqs = np.array([min(d.max_num_seqs, int(memory.slots[0]), most)], dtype=np.int64)
    at = step_factor(known, mix, policy.confidence, d.max_num_seqs)
    curves, limits = curves_of(known, mix, policy.confidence, GRID, tokens, policy.chunked_prefill), limits_of(workload, factor)
    serving = Serving(known.replicas, curves, mix, limits, seqs, known.coefficients)
    units = units_of(serving) if d.decode_engines else None
    able = in_flight_capacity(serving, policy.keeps_level) if workload.is_closed else capacity_of(serving)
    single, saturated, per_unit = _in_units(workload, able, 0)
    return Fit(
        workload, own, factor, mix, limits, known.replicas, known.coefficients, curves, units, memory, most, int(seqs[0]), at, single, saturated, per_unit
    )  # fmt: skip


def own_tokens(card: Card, asked: Workload, catalog: Catalog) -> float:
    """A model's tokens per token that lengths are stated in: both counts are per token of one reference. As many where either is not known."""
    if not asked.language or card.tokenizer is None:
        return 1.0
    both = [catalog.tokens.get((name, asked.language)) for name in (card.tokenizer.name, asked.tokenizer or REFERENCE)]
    return both[0].factor / both[1].factor if both[0] and both[1] else 1.0


def in_own_tokens(asked: Workload, own: float) -> Workload:
    """A workload with every number of tokens times ``own``; how much lengths vary is as it was stated."""
    if own == 1:
        return asked
    changed: dict[str, object] = {
        name: value * own for name in ("input_tokens", "output_tokens", "max_input", "max_request") if (value := getattr(asked, name))
    }
    if asked.lengths:
        cells = np.array([*asked.lengths.points, *([asked.lengths.longest] if asked.lengths.longest else [])]) * own
        points, longest = cells[: len(asked.lengths.points)], cells[len(asked.lengths.points) :]
        changed["lengths"] = asked.lengths.model_copy(
            update={"points": tuple(map(tuple, points.tolist())), "longest": tuple(longest[0].tolist()) if len(longest) else None}
        )
    return asked.model_copy(update=changed | dict(zip(("input_cv", "output_cv"), asked.spreads, strict=True)))


def _in_units(workload: Workload, found: Capacity, row: int) -> tuple[float, float, float]:
    """Capacity alone, in a very large pool, and requests/s per unit of flow there: X(N*)/N* for requests in flight."""
    qps, saturated, in_flight = float(found.qps[row]), float(found.qps_saturated[row]), float(found.in_flight[row])
    if not workload.is_closed or qps <= 0:
        return qps, saturated, 1.0
    rate = qps / in_flight
    return in_flight, saturated / rate, rate
