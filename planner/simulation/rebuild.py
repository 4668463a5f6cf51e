"""The engines of a plan, built again from the catalogue by the names in it: step times, cost of prompts, and KV tokens that find room.

Only step times and memory come from ``performance``; capacities, predicted latencies and utilisations of the plan are not read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from planner.catalog.catalog import Catalog, Served
from planner.check.case import ill_sized
from planner.check.findings import RELATIVE, same
from planner.check.structure import structure
from planner.errors import PlannerError
from planner.performance.evidence import evidence
from planner.performance.lengths import LengthMix, met_by, workload_cut, workload_mix
from planner.performance.memory import memory_fit
from planner.performance.replicas import ENGINES, Replicas
from planner.performance.serving import Known, curves_of, load_options
from planner.performance.step import CHUNK, GRID, MAX_SEQUENCES, StepCurves
from planner.performance.tuning import coefficients_for
from planner.result.plan import Deployment, Plan
from planner.result.reach import as_reached
from planner.scenario.records import Scenario
from planner.scenario.workload import Workload
from planner.simulation.state import NO_SESSIONS, Engine, FleetChange, Flow, Sessions
from planner.simulation.stream import Lengths, cut_to, drawn_from, lognormal_lengths

MOST_REPLICAS = 100_000  # of a deployment
LEAST_QPS, MOST_QPS = 1e-9, 1e9  # of a workload
PACE = 0.85  # assumption: of a limit on TPOT or ITL that waiting work may use up in the mean; what bursts need of it is left
ZONES = 3  # assumption: instances are spread evenly over three zones of a region, so one zone holds every third


@dataclass(frozen=True)
class Deployed:
    """One deployment: its engine, by workload [W] the share that it gets and its own tokens per stated token, and the instance each replica stands on
    (purchase, number); the replicas that come and go, and the sessions that ask it."""

    engine: Engine
    shares: tuple[float, ...]
    tokens: tuple[float, ...]
    places: tuple[tuple[int, int], ...]
    changes: tuple[FleetChange, ...] = ()
    sessions: Sessions = NO_SESSIONS

    @property
    def replicas(self) -> int:
        """Engines."""
        return len(self.places)


@dataclass(frozen=True)
class Basis:
    """What engines are built again from: the workloads, the catalogue, and the confidence of step times (0.5: as expected)."""

    scenario: Scenario
    catalog: Catalog
    confidence: float


def scenario_of(plan: Plan) -> Scenario:
    """The scenario that a plan carries. Raises PlannerError for one that cannot be simulated."""
    scenario = plan.scenario
    if scenario.tables.capacities:
        raise PlannerError("a plan from one's own capacities cannot be simulated: nobody knows its step times", "--capacities")
    return as_reached(scenario, plan.workloads)


def refuse_broken(plan: Plan) -> None:
    """Raises PlannerError for a plan whose parts refer to what is not there."""
    for breach in structure(plan, plan.scenario).breaches[:1]:
        raise PlannerError(f"the plan's parts do not fit together: {breach}", "", "plan check tells all that does not hold")


def deployed(plan: Plan, scenario: Scenario, catalog: Catalog, confidence: float) -> tuple[Deployed, ...]:
    """All deployments with step times that hold at a confidence (0.5: as expected). Raises PlannerError for what cannot be simulated."""
    for w, asked in zip(plan.workloads, scenario.workload, strict=True):
        if not (same(w.demand.value, asked.rate) and same(w.burst_factor, asked.burst_factor)):
            raise PlannerError("states a demand that is not its scenario's", f"workload {w.name}", "plan check tells all that does not hold")
        if not LEAST_QPS <= w.qps <= MOST_QPS:
            raise PlannerError(f"states {w.qps:g} requests/s; from {LEAST_QPS:g} to {MOST_QPS:g} can be simulated", f"workload {w.name}")
        if not w.routing:
            raise PlannerError("is served by a hosted API, whose latency nobody knows", f"workload {w.name}", "only what engines serve can be simulated")
        routed = sum(r.share for r in w.routing) + plan.of_hosted[w.name]  # a request that no deployment draws goes to the API
        if abs(routed - 1) > RELATIVE:
            raise PlannerError(f"routes {routed:.6g} of its traffic", f"workload {w.name}", "plan check tells all that does not hold")
    for i, d in enumerate(plan.deployments):
        wrong = ill_sized(d)
        placed = sum(h.replicas for h in d.hosts)
        if not wrong and not (d.max_num_seqs <= MAX_SEQUENCES and 1 <= placed <= MOST_REPLICAS):
            wrong = f"has {placed} replicas of {d.max_num_seqs} sequences; from 1 to {MOST_REPLICAS:,} of 1 to {MAX_SEQUENCES} can be simulated"
        if wrong:
            raise PlannerError(wrong, f"deployment {i} ({d.checkpoint} on {d.gpu})", "plan check tells all that does not hold")
    basis = Basis(scenario, catalog, confidence)
    return tuple(_deployed(plan, i, basis, places) for i, places in enumerate(_places(plan)))


def sharing(built: Deployed, plan: Plan, basis: Basis, qps: list[float], deadlines_s: list[float]) -> Deployed:
    """The only deployment of a plan with the workloads of ``basis`` at rates of their own; those that wait for spare capacity have a deadline (time of
    day, s), the others one below 0. Beside others, waiting requests join up to the sequences at which a step's share of prompts included keeps
    answers within ``PACE`` of the strictest limit on TPOT and ITL."""
    (d,), scenario, catalog = plan.deployments, basis.scenario, basis.catalog
    (served,) = (s for s in catalog.served if s.checkpoint.id == d.checkpoint and s.mode == d.mode)
    tokens = [(catalog.tokens_per_stated(served.card, w.language, w.tokenizer) or 1.0) if w.language else 1.0 for w in scenario.workload]
    known = {w.name: t for w, t in zip(plan.workloads, built.tokens, strict=True)}
    tokens = [known.get(w.name, t) for w, t in zip(scenario.workload, tokens, strict=True)]
    engine = _engine(d, served, basis, tuple(tokens), qps)
    flows = tuple(replace(f, deadline=s) for f, s in zip(engine.flows, deadlines_s, strict=True))
    limits = [s.seconds for w in scenario.workload for s in w.limits if s.is_pace]
    spare = None
    if limits:
        mixes = [workload_mix(met_by(w, t), max(f.written, 1.0)) for f, w, t in zip(flows, scenario.workload, tokens, strict=True)]
        work = [f.prompt_s * f.computed * m.mean_input / m.mean_output for f, m in zip(flows, mixes, strict=True)]
        pace_s = engine.step_s + max(work) * np.arange(len(engine.step_s))  # between two tokens of one sequence, where all are in steady state
        spare = int(np.searchsorted(pace_s[1:], PACE * min(limits), side="right"))
    return replace(built, engine=replace(engine, flows=flows, spare=spare), shares=(1.0,) * len(flows), tokens=tuple(tokens))


def lengths_of(workload: Workload) -> Lengths:
    """How requests of a workload are drawn: from its joint lengths, else lognormal of its means and spreads; cut to what callers can send."""
    if workload.lengths is not None:
        points = np.array(workload.lengths.points)
        drawn = drawn_from(points[:, 0], points[:, 1])
    else:
        drawn = lognormal_lengths(workload.input_tokens, workload.output_tokens, *workload.spreads)
    cut = workload_cut(workload)
    return cut_to(drawn, cut) if cut else drawn


def _deployed(plan: Plan, index: int, basis: Basis, places: tuple[tuple[int, int], ...]) -> Deployed:
    d, catalog = plan.deployments[index], basis.catalog
    where = f"deployment {index} ({d.checkpoint} on {d.gpu})"
    served = next((s for s in catalog.served if s.checkpoint.id == d.checkpoint and s.mode == d.mode), None)
    if served is None or d.gpu not in catalog.gpus or d.engine not in ENGINES:
        raise PlannerError("is not in the catalogue", where, "simulate with the catalogue that the plan was made with (--catalog)")
    if d.decode_engines:
        raise PlannerError("disaggregated units cannot be simulated yet", where)
    shares = tuple(sum(r.share for r in w.routing if r.deployment == index) for w in plan.workloads)
    tokens = tuple(next((r.tokens_per_stated for r in w.routing if r.deployment == index), 1.0) for w in plan.workloads)
    engine = _engine(d, served, basis, tokens, [s * w.qps for s, w in zip(shares, plan.workloads, strict=True)])
    return Deployed(engine, shares, tokens, places)


def _engine(d: Deployment, served: Served, basis: Basis, own: tuple[float, ...], qps: list[float]) -> Engine:
    """The engine for its workloads. Step times of several are weighted by the tokens each writes: what a step reads of KV cache is the mean's."""
    scenario, catalog = basis.scenario, basis.catalog
    replica, tokens, name = _replica(d, served, catalog), CHUNK if d.max_num_batched_tokens is None else d.max_num_batched_tokens, (served.card.name,)
    found, options = evidence(replica, name, catalog.measured, scenario.policy.tuning), load_options(catalog) if d.speculative else None
    known = Known(replica, found, name, coefficients_for(scenario, catalog), options)
    flows, steps, weights, kv, curves = [], [], [], [], None
    for workload, each, rate in zip(scenario.workload, own, qps, strict=True):
        if not rate:
            flows.append(Flow(0.0))
            continue
        written = served.output_factor or workload.output_factor or 1.0
        mix = workload_mix(met_by(workload, each), written)
        memory = memory_fit(replica, mix, scenario.policy.gpu_memory_utilization, tokens, scenario.policy.lora)
        curves = curves_of(known, mix, basis.confidence, GRID, tokens, scenario.policy.chunked_prefill)
        flows.append(_flow(workload, curves, mix, written, each))
        steps.append(np.interp(np.arange(d.max_num_seqs + 1), curves.n, curves.step_s[0]))
        weights.append(rate * mix.mean_output)
        kv.append(float(memory.kv_budget_gib[0] / memory.kv_gib_per_sequence[0]) * (mix.mean_input + mix.mean_output))
    assert curves is not None
    whole = None if curves.whole_prompt_s is None else float(curves.whole_prompt_s[0])
    return Engine(np.average(steps, axis=0, weights=weights), tuple(flows), int(min(kv)), tokens, float(curves.overhead_s[0]), whole)


def _flow(workload: Workload, curves: StepCurves, mix: LengthMix, written: float, own: float) -> Flow:
    """What the engine must know of a workload. Of several limits on one metric the tightest decides whether a request is inside."""
    limits = {m: min((s.seconds for s in workload.server_limits if s.metric == m), default=np.inf) for m in ("ttft", "tpot", "e2e")}
    return Flow(float(curves.prefill_s_per_token[0]) / mix.computed, mix.computed, written * own, (written - 1) / written, **limits)


def _replica(d: Deployment, served: Served, catalog: Catalog) -> Replicas:
    return Replicas.of(served.card.architecture, catalog.gpus[d.gpu], served.checkpoint.precision, d.engine, [d.replica])


def _places(plan: Plan) -> list[tuple[tuple[int, int], ...]]:
    """(purchase, instance) of each replica of each deployment: the largest first, so that none is divided needlessly."""
    used = [0] * len(plan.purchases)
    found: list[list[tuple[int, int]]] = [[] for _ in plan.deployments]
    for i in sorted(range(len(plan.deployments)), key=lambda i: -plan.deployments[i].gpus_per_replica):
        d = plan.deployments[i]
        for host in d.hosts:
            size = max(plan.purchases[host.purchase].gpus_per_instance, 1)
            for _ in range(host.replicas):
                found[i].append((host.purchase, used[host.purchase] // size))
                used[host.purchase] += d.gpus_per_replica
    return [tuple(places) for places in found]
