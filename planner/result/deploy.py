"""Describes what a solution chose: deployments, purchases and predicted service, in the plan's own records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from planner.candidates.columns import mixture_factor
from planner.candidates.eligibility import Eligible, context_of, counted
from planner.candidates.points import in_workload_units
from planner.candidates.pooling import replicas_needed
from planner.candidates.survey import Survey, curves_of, is_own, limits, memory_of, slots_of, step_factor, tiers_of, tuned_otherwise
from planner.catalog.names import measured_as
from planner.catalog.records import Offer
from planner.emit.engine import GpuMemory, Steps, Thinking, context_to_serve, serve_command
from planner.performance import memory as fit
from planner.performance.calibrated import in_words
from planner.performance.evidence import stands_for, tier_word
from planner.performance.lengths import met_by, refused_share
from planner.performance.replicas import ENGINES
from planner.performance.serving import Serving, capacity_lifted, most_sequences
from planner.performance.tuning import RECIPE, TUNINGS, taken_for
from planner.performance.work import Work, work_of
from planner.result.plan import HARDLY_ANY, Deployment, HostedOn, MemoryGib, PlanEvidence, PlanQuality, Purchase, SloLimit, replica_fields
from planner.scenario.records import Scenario, Tuning
from planner.scenario.workload import Workload
from planner.search.answer import Answer
from planner.search.chosen import Chosen, capacity_of, serving, slo_load

BAND = (0.5, 0.8, 0.9, 0.95)  # confidences at which a plan shows the step


def purchases(answer: Answer) -> tuple[list[Purchase], dict[int, int]]:
    """What to buy, and the place of each offer among the purchases."""
    columns, held = answer.formulation.problem.columns, answer.solution.held
    used = {o: sum(columns[c.pool.column].gpus * c.replicas.get(o, 0) for c in answer.solution.pools) for o in held}
    lines = [purchase(answer.formulation.offers[o], held[o], used[o]) for o in sorted(held)]
    return lines, {o: i for i, o in enumerate(sorted(held))}


def purchase(offer: Offer, count: int, used: int) -> Purchase:
    """So many instances of an offer, with so many of their GPUs in use."""
    gpus = offer.gpus_per_instance * count
    return Purchase(
        provider=offer.provider,
        kind=offer.kind,
        region=offer.region,
        instance_type=offer.instance_type,
        basis=offer.basis,
        purchase=offer.purchase,
        gpu=offer.gpu,
        gpus_per_instance=offer.gpus_per_instance,
        instances=count,
        gpus_held=gpus,
        gpus_idle=gpus - used,
        usd_per_hour=offer.usd_per_hour * count,
        source=offer.source,
        as_of=offer.stated_as_of,
        dated_by=offer.dated_by,
        note=offer.note,
        zone=offer.zone,
        id=offer.id,
        carbon_usd_per_hour=offer.carbon_usd_per_hour * count,
        until=offer.until.isoformat() if offer.until else "",
        minimum=offer.minimum,
    )


def deployment(chosen: Chosen, answer: Answer, survey: Survey, place: dict[int, int], bought: Sequence[Purchase]) -> Deployment:
    """One deployment with everything a reviewer asks of it."""
    scenario, r, row, point = answer.formulation.scenario, survey.replicas, chosen.row, chosen.candidate.point
    checkpoint, card = chosen.eligible.served.checkpoint, chosen.eligible.served.card
    replica = r.at(row)
    total = chosen.pool.total
    served = sorted(chosen.pool.traffic)
    w = served[0]
    memory = memory_of(survey, w, np.array([row]), point.max_num_batched_tokens)
    cost = sum(bought[place[o]].usd_per_hour / bought[place[o]].gpus_held * replica.gpus * n for o, n in chosen.pool.replicas.items())
    in_service = total - scenario.policy.spare_replicas
    load = slo_load(chosen, scenario, in_service)
    in_flight = capacity_of(chosen, scenario, w, in_service) if scenario.workload[w].is_closed and len(served) == 1 else None
    factor = max(survey.physics[v].factor[row] for v in served)
    engine, chunked = ENGINES[int(r.engine[row])], scenario.policy.chunked_prefill
    met = [met_by(scenario.workload[v], chosen.eligible.tokens[v]) for v in served]
    context = context_to_serve(met, factor, context_of(chosen.eligible.served))
    context = context if chunked else min(context, point.max_num_batched_tokens)
    able = {v: _otherwise(chosen, survey, v, lifts=v == w) for v in served}
    return Deployment(
        model=card.name,
        checkpoint=checkpoint.id,
        mode=chosen.eligible.served.mode,
        is_hybrid=checkpoint.variant == "hybrid",
        precision=checkpoint.precision,
        engine=engine,
        gpu=r.gpus[int(r.gpu[row])].name,
        **replica_fields(replica),
        replicas=total,
        gpus=replica.gpus * total,
        max_num_seqs=point.max_num_seqs,
        max_num_batched_tokens=point.max_num_batched_tokens,
        capacity_qps_per_replica=point.single[w] * point.qps_per_unit[w] if in_flight else sum(chosen.peak_qps(v) for v in served) / (load * in_service),
        capacity_in_flight_per_replica=in_flight,
        qps=sum(chosen.qps(v) for v in served),
        in_flight_per_replica=None,
        slo_load=load,
        slo_load_one_replica_lost=load * in_service / (total - 1) if total > 1 else None,
        standing_by=standing_by(chosen, survey),
        usd_per_hour=cost,
        hosts=tuple(HostedOn(purchase=place[o], replicas=n) for o, n in sorted(chosen.pool.replicas.items())),
        serve_command=serve_command(
            engine,
            checkpoint.id,
            replica,
            Steps(point.max_num_seqs, point.max_num_batched_tokens, chunked, any(scenario.workload[v].prefix_cache_hit for v in served), *scenario.policy.lora),
            context,
            scenario.policy.gpu_memory_utilization,
            GpuMemory(r.gpus[int(r.gpu[row])].memory_gib, float(memory.weights[0]), float(memory.kv_budget_gib[0])),
            Thinking(chosen.eligible.served.mode == "thinking", checkpoint.variant == "hybrid"),
        ),
        refused_share=float(f"{max(refused_share(w, factor, context) for w in met):.4g}"),
        output_factor=factor,
        quality=quality_of(chosen.eligible, w, scenario, replica.fp8_kv),
        memory_gib=_memory_gib(memory),
        evidence=_evidence(chosen, survey, w, able),
        binding_limit=_binding_limit(chosen, survey, w, able[w].lifted),
    )


def _memory_gib(memory: fit.Memory) -> MemoryGib:
    return MemoryGib(
        weights=memory.weights[0],
        kv_cache=memory.kv_budget_gib[0],
        activations=memory.activations[0],
        reserve=memory.reserve[0],
        total=memory.limit[0],
        limit=memory.limit[0],
    )


def limits_in_words(w: Workload) -> tuple[SloLimit, ...]:
    """The latency limits of a workload at the servers, where they are predicted and measured."""
    return tuple(SloLimit(metric=s.metric, limit_ms=s.seconds * 1e3, percentile=s.percentile) for s in w.server_limits)


def work_on(chosen: Chosen, survey: Survey, w: int, d: Deployment) -> Work:
    """What a mean request of a workload asks of the deployment's engines at the load that it has."""
    tokens, physics, engines = chosen.candidate.point.max_num_batched_tokens, survey.physics[w], max(d.decode_engines, 1)
    curves = curves_of(survey, w, np.array([chosen.row]), tokens)
    mix, replica = physics.mix(chosen.row), survey.replicas.take(np.array([chosen.row])).compact()
    return work_of(replica, curves, mix, survey.coefficients, (d.in_flight_per_replica or 0.0) / engines, d.max_num_seqs)


def quality_of(eligible: Eligible, w: int, scenario: Scenario, fp8_kv: bool) -> PlanQuality | None:
    """The score as published or derived, with the margin of what counts to the floor."""
    q, floor = eligible.quality[w], scenario.workload[w].min_quality
    if q is None:
        return None
    margin = None if floor is None else round(counted(q, scenario.policy) - floor, 6)
    return PlanQuality(
        benchmark=q.benchmark, score=q.score, margin=margin, self_reported=q.self_reported, derived=q.derived, source=q.source, as_of=q.as_of, note=q.note,
        fp8_kv_unmeasured=fp8_kv,
    )  # fmt: skip


def _evidence(chosen: Chosen, survey: Survey, w: int, able: Mapping[int, Otherwise]) -> PlanEvidence:
    """Tier, nearest measurement, and what the confidence costs in capacity against the median."""
    row, nearest = np.array([chosen.row]), int(survey.evidence.nearest[chosen.row])
    own = is_own(survey, row)
    tier = tier_word(int(tiers_of(survey, row)[0]), own is not None and bool(own[0]))
    confidence, beside = survey.scenario.policy.confidence, survey.scenario.policy.spare_replicas + standing_by(chosen, survey)
    now, median = chosen.candidate.point.single[w], able[w].median[0]
    measured = survey.catalog.measured[nearest] if nearest >= 0 else None
    source = "fitted physics only"
    if measured:
        served = chosen.eligible.served
        whose = measured_as(measured.architecture, served.card.name, served.checkpoint.id)
        source = f"{whose} {measured.precision} on {measured.gpu}, {measured.engine} TP{measured.tp}: {measured.source}"
    options = survey.options.sources(survey.replicas, chosen.row) if survey.options else ()
    return PlanEvidence(
        tier=tier,
        source="; ".join((source, *options)),
        as_of=measured.as_of if measured else survey.coefficients.fitted,
        stands_for=stands_for(survey.evidence, survey.replicas, survey.names, survey.coefficients, chosen.row),
        confidence=confidence,
        capacity_factor=now / median if median > 0 else 0.0,
        replicas_at_median=_replicas_at(chosen, survey, {v: x.median for v, x in able.items()}, beside),
        replicas_at_95=_replicas_at(chosen, survey, {v: x.high for v, x in able.items()}, beside),
        note=in_words(survey.catalog.calibrated, *_stack(chosen, survey)),
        tuning=survey.scenario.policy.tuning,
        replicas_by_tuning={t: _replicas_at(chosen, survey, {v: _tuned(chosen, survey, v, t) for v in able}, beside) for t in other_tunings(survey)},
        tuning_taken=taken_for(survey.catalog, _stack(chosen, survey)[1], (survey.scenario.policy.tuning, *other_tunings(survey))),
        step_time_factor=step_factor(survey, w, chosen.row, chosen.candidate.point.max_num_seqs),
        step_time_band={f"{c:g}": step_factor(survey, w, chosen.row, chosen.candidate.point.max_num_seqs, c) for c in BAND},
    )


def _replicas_at(chosen: Chosen, survey: Survey, able: Mapping[int, tuple[float, float]], beside: int) -> int | None:
    """Replicas of the same candidate that its traffic would take at these capacities (alone, and in a very large pool), and so many beside them; None
    where none carries it, or hardly any of what it is planned to."""
    scenario, policy, traffic = survey.scenario, survey.scenario.policy, chosen.pool.traffic
    if not all(single > HARDLY_ANY * chosen.candidate.point.single[w] for w, (single, _) in able.items()):
        return None
    if len(traffic) == 1 and policy.router != "random":
        (w, flow), *_ = traffic.items()
        return replicas_needed(*able[w], flow, policy.max_slo_load) + beside
    shared = mixture_factor(scenario) if len(traffic) > 1 else 1.0
    return ceil(sum(flow / (able[w][0] * shared) for w, flow in traffic.items()) / policy.max_slo_load - 1e-9) + beside


def standing_by(chosen: Chosen, survey: Survey) -> int:
    """Replicas for what may be lost: beside those that its traffic takes at its own capacities, and its spare ones."""
    policy, point = survey.scenario.policy, chosen.candidate.point
    able = {w: (point.single[w], point.saturated[w]) for w in chosen.pool.traffic}
    needed = _replicas_at(chosen, survey, able, policy.spare_replicas) if policy.survives else None
    return max(chosen.pool.total - needed, 0) if needed is not None else 0


def _stack(chosen: Chosen, survey: Survey) -> tuple[str, str, str, int]:
    """GPU, engine, architecture and TP: what measurements are told apart by."""
    r, row = survey.replicas, chosen.row
    return r.gpus[int(r.gpu[row])].name, ENGINES[int(r.engine[row])], chosen.eligible.served.card.name, int(r.tp[row])


def other_tunings(survey: Survey) -> tuple[Tuning, ...]:
    """Ways to set engines that are not the one planned, as far as anything is known of them."""
    known = {RECIPE, *(name for name, _ in survey.catalog.tuned)}
    return tuple(t for t in TUNINGS if t in known and t != survey.scenario.policy.tuning)


def _tuned(chosen: Chosen, survey: Survey, w: int, tuning: Tuning) -> tuple[float, float]:
    """Capacity of a replica alone and in a very large pool with engines set otherwise, at the same operating point and confidence."""
    workload, policy = survey.scenario.workload[w], survey.scenario.policy
    is_steady = None if workload.concurrency is None else policy.keeps_level
    found = capacity_lifted(serving(chosen, tuned_otherwise(survey, tuning), w), np.array([-1]), is_steady)
    single, saturated = (x.tolist() for x in in_workload_units(workload, found)[:2])
    return single[0], saturated[0]


@dataclass(frozen=True)
class Otherwise:
    """Capacity of a replica alone and in a very large pool, in a workload's own unit: at the median, at a confidence of 95 %, and (alone) with each
    limit lifted."""

    median: tuple[float, float]
    high: tuple[float, float]
    lifted: tuple[float, ...]


def _otherwise(chosen: Chosen, survey: Survey, w: int, lifts: bool) -> Otherwise:
    """What the chosen operating point would carry at other confidences, and where asked without each limit: all in one go."""
    rows, point = np.array([chosen.row]), chosen.candidate.point
    workload, policy, physics = survey.scenario.workload[w], survey.scenario.policy, survey.physics[w]
    held = limits(workload, float(physics.factor[chosen.row]))
    lifted = np.array([-1, -1, *(range(len(held)) if lifts else ())])
    tokens, confidences = point.max_num_batched_tokens, (BAND[0], BAND[-1], policy.confidence)
    each = [curves_of(survey, w, rows, tokens, c) for c in (confidences if lifts else confidences[:2])]
    curves = each[0].above(each[1:]).take(np.minimum(np.arange(len(lifted)), 2))
    seqs = np.full(len(lifted), min(point.max_num_seqs, int(slots_of(survey, w, rows, tokens)[0])))
    is_steady = policy.keeps_level if workload.is_closed else None
    part = survey.replicas.take(np.full(len(lifted), chosen.row))
    found = capacity_lifted(Serving(part, curves, physics.mix(chosen.row), held, seqs, survey.coefficients), lifted, is_steady)
    single, saturated = (x.tolist() for x in in_workload_units(workload, found)[:2])
    return Otherwise((single[0], saturated[0]), (single[1], saturated[1]), tuple(single[2:]))


def _binding_limit(chosen: Chosen, survey: Survey, w: int, lifted: Sequence[float]) -> str:
    """What capacity is limited by: the limit whose removal raises it most (to ``lifted``, each), or sequences in service when none does."""
    workload = survey.scenario.workload[w]
    base, held = chosen.candidate.point.single[w], limits(workload, float(survey.physics[w].factor[chosen.row]))
    gains = [able / base for able in lifted]
    if not gains or max(gains) < 1.002:
        return _most_sequences(chosen, survey, w)
    limit = held[int(np.argmax(gains))]
    if limit.metric == "full":
        return f"at most {100 * workload.max_waiting_share:g}% of requests finding a replica full"
    return workload.limits[int(np.argmax(gains))].words


def _most_sequences(chosen: Chosen, survey: Survey, w: int) -> str:
    """What bounds the sequences in service."""
    point, row = chosen.candidate.point, np.array([chosen.row])
    seqs, slots = point.max_num_seqs, int(slots_of(survey, w, row, point.max_num_batched_tokens)[0])
    one = survey.replicas.take(row)
    most = int(most_sequences(one, survey.names, survey.options)[0])
    if one.is_unit[0] or seqs < slots:
        return "saturation"
    whose = f"the {most} sequences up to which drafting was measured" if one.draft[0] else f"the engines' limit of {most} sequences"
    return whose if slots >= most else "KV cache room"


def mixture_of(chosen: Chosen, answer: Answer) -> float:
    """The mixture factor in force on a deployment."""
    return mixture_factor(answer.formulation.scenario) if len(chosen.pool.traffic) > 1 else 1.0
