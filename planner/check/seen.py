"""Checks what each deployment states of its service: the mean TTFT in parts that add up, and latencies at the median of the evidence and at 90 %."""

from __future__ import annotations

from dataclasses import replace
from math import isinf

from planner.check.case import Case, Fit, Rebuilt, batched_tokens_of
from planner.check.findings import Finding, Notes, same
from planner.check.service import STATED, fit_of, predicted_on
from planner.performance.bands import latency_bands
from planner.performance.capacity import Service
from planner.performance.serving import curves_of
from planner.performance.step import GRID
from planner.result.plan import DeploymentService, Distribution, LatencyBand

MEDIAN, SURE = 0.5, 0.9
SMALL_MS = 1e-3  # parts of a TTFT that differ by less are the same


def seen(case: Case) -> Finding:
    """Of every deployment that states a service; plans of earlier planners state none."""
    notes, said = Notes("service"), 0
    for i, (d, built) in enumerate(zip(case.plan.deployments, case.built, strict=True)):
        serves = built.serves if built else ()
        if built is None or not d.service or not all(fit_of(case, i, w) for w in serves):
            continue
        names = [case.plan.workloads[w].name for w in serves]
        if [s.workload for s in d.service] != names:
            notes.add(case.where(i), f"states the service of {', '.join(s.workload for s in d.service)}, serves {', '.join(names)}")
            continue
        for w, stated in zip(serves, d.service, strict=True):
            _parts(notes, case.where(i), stated, predicted_on(case, i, w, built.fits[w]))
            _bands(notes, case.where(i), stated, *_at_other_confidences(case, i, built, w))
            said += 1
    return notes.finding(f"service: TTFT in parts and latencies with their band, {said} times")


def _at_other_confidences(case: Case, i: int, built: Rebuilt, w: int) -> tuple[Service, Service]:
    """A workload's service of one replica at today's load with the steps of the median and of ``SURE``; what replicas carry stays that of the plan."""
    replicas, fit = case.plan.deployments[i].replicas, built.fits[w]
    if case.together(i, replicas) is not None:
        place, reasoning = built.serves.index(w), (fit.factor - 1) / fit.factor
        median, sure = (case.queue(i, replace(built, fits={v: _at(case, i, built, v, c) for v in built.serves}), replicas) for c in (MEDIAN, SURE))
        return median.service(place, reasoning), sure.service(place, reasoning)
    middle, slow = (_at(case, i, built, w, c) for c in (MEDIAN, SURE))
    both = predicted_on(case, i, w, middle, slow)
    return both.row(0), both.row(1)


def _at(case: Case, i: int, built: Rebuilt, w: int, confidence: float) -> Fit:
    """A workload with steps that hold with another confidence."""
    curves = curves_of(
        case.known(built), built.fits[w].mix, confidence, GRID, batched_tokens_of(case.plan.deployments[i]), case.scenario.policy.chunked_prefill
    )
    return replace(built.fits[w], curves=curves)


def _parts(notes: Notes, where: str, stated: DeploymentService, right: Service) -> None:
    parts = stated.ttft_parts_ms.model_dump()
    for name, value in right.ttft_parts_s.items():
        agrees = abs(parts[name] - float(value[0]) * 1e3) <= max(SMALL_MS, STATED * float(value[0]) * 1e3)
        notes.require(agrees, where, f"states {name} of {parts[name]:.6g} ms in the TTFT of {stated.workload}, should be {float(value[0]) * 1e3:.6g}")
    mean = float(right.ttft_s["mean"][0]) * 1e3
    notes.require(same(sum(parts.values()), mean, STATED), where, f"states parts of {sum(parts.values()):.6g} ms of a mean TTFT of {mean:.6g}")
    tail = float(right.ttft_s["p95"][0]) * 1e3
    notes.require(same(stated.ttft_p95_ms, tail, STATED), where, f"states TTFT p95 of {stated.ttft_p95_ms:.6g} ms beside its parts, should be {tail:.6g}")


def _bands(notes: Notes, where: str, stated: DeploymentService, median: Service, sure: Service) -> None:
    for at, service, confidence in (("median", median, MEDIAN), ("at_90", sure, SURE)):
        for metric, right in latency_bands(median, service, confidence).items():
            band: LatencyBand = getattr(stated, f"{metric}_ms")
            _compare(notes, f"{where}, {metric.upper()} {at} of {stated.workload}", getattr(band, at), right)


def _compare(notes: Notes, where: str, stated: Distribution | None, right: dict[str, float]) -> None:
    if stated is None or isinf(right["mean"]):
        notes.require(stated is None and isinf(right["mean"]), where, "says that the load is served where it is not, or the other way round")
        return
    for name, seconds in right.items():
        value = getattr(stated, name)
        notes.require(same(value, seconds * 1e3, STATED), where, f"states {name} {value:.6g} ms, should be {seconds * 1e3:.6g}")
