"""Checks the SLO at the predicted service: each limit holds at its percentile at the load each replica really gets."""

from __future__ import annotations

from dataclasses import replace
from itertools import zip_longest

import numpy as np

from planner.check.case import Case, Fit
from planner.check.findings import Finding, Notes, at_most, same
from planner.performance import closed
from planner.performance.capacity import Limit, Service, pooled_qps
from planner.performance.chain import chain
from planner.performance.disaggregated import unit_beyond
from planner.performance.queue import state
from planner.performance.serving import in_flight_service, rate_in_flight, service_of
from planner.performance.tails import tail
from planner.result.plan import PlanWorkload

PROBABILITY = 1e-4  # relative: of requests beyond a limit
STATED = 1e-3  # relative: of stated latencies
PERCENTILES = {50.0: "p50", 90.0: "p90", 95.0: "p95", 99.0: "p99"}


def slo(case: Case) -> Finding:
    """Every limit on every deployment, the spare replicas gone; on one that several workloads share, in the queue of all of them."""
    notes, said = Notes("slo"), []
    for w, got in enumerate(case.plan.workloads):
        serving = [(r.deployment, fit) for r in got.routing if r.share > 0 and (fit := fit_of(case, r.deployment, w)) and case.in_service(r.deployment) > 0]
        for i, fit in serving:
            for limit, name in zip_longest(fit.limits, (s.name for s in fit.workload.limits)):
                beyond, allowed = _beyond(case, i, w, fit, limit), 1 - limit.percentile / 100
                what = f"misses {name} {limit.limit_s:g} s for" if name else "finds its replica full for"
                text = f"{got.name} {what} {beyond:.3%} of requests, {allowed:.3%} may"
                notes.require(at_most(beyond, allowed, PROBABILITY), case.where(i), text)
                said.append(f"{got.name} {f'over {name}' if name else 'waiting'} {beyond:.3%} of requests, {allowed * 100:.4g}% allowed")
        _stated(notes, case, w, got, serving)
    return notes.finding("SLO: " + "; ".join(said))


def fit_of(case: Case, index: int, w: int) -> Fit | None:
    """A workload on a rebuilt deployment that can serve it."""
    built = case.built[index]
    fit = built.fits.get(w) if built else None
    return fit if fit and fit.single > 0 else None


def _load_of_one(case: Case, index: int, w: int, fit: Fit, replicas: int) -> float:
    """The rate at which one replica by itself would serve as one of the pool does: pooling relieves each replica."""
    rate = case.flow(w, index) / replicas
    return rate * min(1.0, fit.single / case.capacity(index, w))


def _beyond(case: Case, index: int, w: int, fit: Fit, limit: Limit) -> float:
    """Share of requests beyond a limit, with the spare replicas gone."""
    now, built = case.together(index, case.in_service(index)), case.built[index]
    if now is not None and built is not None:
        return now.beyond(built.serves.index(w), limit)
    if fit.workload.is_closed:
        return _beyond_in_flight(case, fit, limit, case.flow(w, index) / case.in_service(index))
    rate = _load_of_one(case, index, w, fit, case.in_service(index))
    return _beyond_at(fit, limit, rate)


def beyond_on(case: Case, fit: Fit, limit: Limit, flow: float, replicas: int) -> float:
    """Share of requests beyond a limit with so much of one workload alone on so many replicas: pooling relieves each by what it adds to its capacity."""
    if fit.workload.is_closed:
        return _beyond_in_flight(case, fit, limit, flow / replicas)
    pooled = fit.single if not case.scenario.policy.keeps_level else float(pooled_qps(np.array(fit.single), np.array(fit.saturated), replicas))
    return _beyond_at(fit, limit, flow / replicas * min(1.0, fit.single / pooled))


def _beyond_at(fit: Fit, limit: Limit, rate: float) -> float:
    """Share of requests beyond a limit at a Poisson rate on one replica."""
    if fit.units:
        return float(unit_beyond(fit.units, fit.mix, fit.limits, limit, np.array([rate]))[0])
    queue = chain(fit.curves, fit.mix, np.array([fit.max_num_seqs], dtype=np.int64))
    load = np.clip(rate / queue.rate, 1e-9, 1 - 1e-9)
    return float(tail(limit.metric, queue, state(queue, load), limit.limit_s, limit.share)[0, 0])


def _beyond_in_flight(case: Case, fit: Fit, limit: Limit, each: float) -> float:
    """Share of requests beyond a limit with so many in flight on each replica."""
    n, seqs = np.array([each]), np.array([fit.max_num_seqs], dtype=np.int64)
    if case.scenario.policy.keeps_level and not fit.units:
        made = closed.loop(fit.curves, fit.mix, seqs)
        return float(closed.tail(limit.metric, made, closed.at_in_flight(made, n[:, None]), limit.limit_s, limit.share)[0, 0])
    rate = rate_in_flight(fit.serving, n)
    return _beyond_at(fit, limit, float(rate[0]))


def _stated(notes: Notes, case: Case, w: int, got: PlanWorkload, serving: list[tuple[int, Fit]]) -> None:
    """Stated latencies are the slowest deployment's, and meet the limits at the percentiles they are stated for."""
    if got.is_waiting:
        return
    if not got.routing:  # at an API, whose latency nobody knows
        notes.require(got.predicted is None, got.name, "states a service that no deployment gives")
        return
    if got.predicted is None:
        notes.add(got.name, "states no predicted service")
        return
    if not serving:
        return
    found = [predicted_on(case, i, w, fit) for i, fit in serving]
    for metric in ("ttft", "tpot", "itl", "e2e"):
        stated = getattr(got.predicted, f"{metric}_ms")
        if stated is None:
            known = all(getattr(s, f"{metric}_s") for s in found)
            notes.require(not known and all(limit.metric != metric for limit in got.slo), got.name, f"states no {metric.upper()}")
            continue
        rising = [getattr(stated, name) for name in ("p50", "p90", "p95", "p99")]
        notes.require(rising == sorted(rising), got.name, f"states {metric.upper()} percentiles that fall: {rising} ms")
        for name in ("mean", "p50", "p90", "p95", "p99"):
            right = max(float(getattr(s, f"{metric}_s")[name][0]) for s in found) * 1e3
            value = getattr(stated, name)
            notes.require(same(value, right, STATED), got.name, f"states {metric.upper()} {name} {value:.6g} ms, should be {right:.6g}")
    right, share = max(float(s.waiting_share[0]) for s in found), got.predicted.waiting_share
    agree = share is not None and abs(share - right) <= STATED * max(right, STATED)
    notes.require(agree, got.name, f"states that {share} of requests wait, should be {right:.6g}")
    for limit in got.slo:
        name = PERCENTILES.get(limit.percentile, "")
        value = getattr(getattr(got.predicted, f"{limit.metric}_ms", None), name, 0.0) if name else 0.0  # another metric is a breach of the question
        notes.require(at_most(value, limit.limit_ms, PROBABILITY), got.name, f"{limit.metric.upper()} {name} is {value:.6g} ms, limit {limit.limit_ms:g}")


def predicted_on(case: Case, index: int, w: int, fit: Fit, *others: Fit) -> Service:
    """Service of one replica at today's load, all replicas up; shared deployments are as loaded as all their workloads make them.

    ``others``: the same workload with other steps: a row each, of a deployment that serves it alone.
    """
    built, replicas, reasoning = case.built[index], case.plan.deployments[index].replicas, (fit.factor - 1) / fit.factor
    assert built is not None
    now = case.together(index, replicas)
    if now is not None:
        return now.service(built.serves.index(w), reasoning)
    if fit.workload.is_closed and not others:
        return case.loop(w, index)
    if not others and (index, w) in case.services:
        return case.services[index, w]
    able, same = max(case.capacity(index, w), 1e-12), np.zeros(1 + len(others), dtype=np.int64)
    load = sum(case.flow(v, index) / max(case.capacity(index, v), 1e-12) for v in built.serves if v in built.fits)
    each = np.array([load * able / replicas])[same]
    serving = replace(fit.serving.take(same), curves=fit.curves.above([f.curves for f in others]))
    if fit.workload.is_closed:
        return in_flight_service(serving, each, case.scenario.policy.keeps_level, reasoning)[0]
    found = service_of(serving, each, min(1.0, fit.single / able), reasoning)
    if not others:
        case.services[index, w] = found
    return found
