"""What requests see of a chosen deployment: predicted service, what the mean TTFT is made of, and how sure latencies are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isinf

import numpy as np

from planner.candidates.survey import Survey, curves_of
from planner.performance.bands import latency_bands
from planner.performance.capacity import Service
from planner.performance.replicas import Floats
from planner.performance.serving import in_flight_service, service_of
from planner.result.plan import DeploymentService, Distribution, LatencyBand, Predicted, TtftParts
from planner.search.chosen import Chosen, capacity_of, in_flight, serving, slo_load, together

MEDIAN, SURE = 0.5, 0.9


@dataclass(frozen=True)
class Seen:
    """What a workload's requests see of one replica: at the plan's confidence, at the median of the evidence, and at ``SURE``."""

    now: Service
    median: Service
    sure: Service


def predicted(chosen: Chosen, survey: Survey, w: int) -> Predicted:
    """Latencies of one workload on one deployment at the load of peaks.

    Several workloads on a deployment: each sees it as loaded as it is with all of them.
    """
    return stated(_of_all(chosen, survey, w) if chosen.together else _alone(chosen, survey, w))


def stated(found: Service) -> Predicted:
    """The first replica's service as plans state it."""
    itl = _ms(found.itl_s) if found.itl_s else None
    return Predicted(ttft_ms=_ms(found.ttft_s), tpot_ms=_ms(found.tpot_s), itl_ms=itl, e2e_ms=_ms(found.e2e_s), waiting_share=float(found.waiting_share[0]))


def seen_by(chosen: Chosen, survey: Survey) -> dict[int, Seen]:
    """What each workload that it serves sees of a deployment."""
    served = sorted(chosen.pool.traffic)
    if chosen.together is None:
        rows = {w: _alone(chosen, survey, w, (MEDIAN, SURE)) for w in served}
        return {w: Seen(*(three.row(i) for i in range(3))) for w, three in rows.items()}
    others = [replace(chosen, together=together(chosen, survey, chosen.pool.total, confidence=c)) for c in (MEDIAN, SURE)]
    return {w: Seen(*(_of_all(c, survey, w) for c in (chosen, *others))) for w in served}


def described(name: str, seen: Seen) -> DeploymentService:
    """The same in the plan's own records."""
    middle, above = (latency_bands(seen.median, at, c) for at, c in ((seen.median, MEDIAN), (seen.sure, SURE)))
    parts = {part: float(value[0]) * 1e3 for part, value in seen.now.ttft_parts_s.items()}
    told = {f"{metric}_ms": LatencyBand(median=_known(middle[metric]), at_90=_known(above[metric])) for metric in middle}
    return DeploymentService(workload=name, ttft_parts_ms=TtftParts(**parts), ttft_p95_ms=float(seen.now.ttft_s["p95"][0]) * 1e3, **told)


def _known(seconds: dict[str, float]) -> Distribution | None:
    return None if isinf(seconds["mean"]) else Distribution(**{name: value * 1e3 for name, value in seconds.items()})


def _of_all(chosen: Chosen, survey: Survey, w: int) -> Service:
    """A workload's service where several share the deployment."""
    assert chosen.together is not None
    return chosen.together.service(sorted(chosen.pool.traffic).index(w), _reasoning(chosen, survey, w))


def _alone(chosen: Chosen, survey: Survey, w: int, others: Sequence[float] = ()) -> Service:
    """A workload's service with curves at the plan's confidence, and at others beside it: one row each."""
    part, rows = serving(chosen, survey, w), np.array([chosen.row])
    curves = [curves_of(survey, w, rows, chosen.candidate.point.max_num_batched_tokens, c) for c in others]
    same = np.zeros(1 + len(others), dtype=np.int64)
    part = replace(part.take(same), curves=part.curves.above(curves)) if others else part
    reasoning = _reasoning(chosen, survey, w)
    if survey.scenario.workload[w].is_closed:
        _, each = in_flight(chosen, survey, w, 1.0)
        return in_flight_service(part, each[same], survey.scenario.policy.keeps_level, reasoning)[0]
    rate, pooling = _load(chosen, survey, w)
    return service_of(part, rate[same], pooling, reasoning)


def _load(chosen: Chosen, survey: Survey, w: int) -> tuple[Floats, float]:
    """Requests/s on each replica today, all of them up, and what sharing out relieves."""
    scenario = survey.scenario
    in_service = chosen.pool.total - scenario.policy.spare_replicas
    able = capacity_of(chosen, scenario, w, in_service)
    load = slo_load(chosen, scenario, in_service) * in_service / chosen.pool.total
    return np.array([load * able]), min(1.0, chosen.candidate.point.single[w] / able)


def _reasoning(chosen: Chosen, survey: Survey, w: int) -> float:
    """Share of the output that comes before the answer."""
    factor = float(survey.physics[w].factor[chosen.row])
    return (factor - 1) / factor


def _ms(values: dict[str, Floats]) -> Distribution:
    return Distribution(**{name: float(v[0]) * 1e3 for name, v in values.items()})


def slowest(many: Sequence[Predicted]) -> Predicted:
    """The worst of each number over several deployments."""

    def worst(metric: str) -> Distribution | None:
        parts = [getattr(p, metric) for p in many]
        return Distribution(**{name: max(getattr(p, name) for p in parts) for name in Distribution.model_fields}) if all(parts) else None

    latencies = {metric: worst(metric) for metric in Predicted.model_fields if metric.endswith("_ms")}
    return Predicted.model_validate({**latencies, "waiting_share": max(p.waiting_share or 0.0 for p in many)})
