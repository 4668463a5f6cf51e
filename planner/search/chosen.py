"""The pools of a solution with the candidates behind them, and the rates that their requests in flight amount to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from planner.candidates.columns import Candidate, mixture_factor
from planner.candidates.eligibility import Eligible
from planner.candidates.hosted import HostedOffer
from planner.candidates.pooling import pool_capacity
from planner.candidates.survey import Survey, curves_of, limits, slots_of
from planner.performance.replicas import Floats
from planner.performance.serving import Serving, in_flight_rate
from planner.performance.shared import Shared, SharedLoop, settled
from planner.program.problem import ChosenPool
from planner.scenario.records import Scenario
from planner.search.answer import Answer


@dataclass(frozen=True)
class Chosen:
    """A pool of the solution with the candidate behind it. The pool's traffic is that of peaks: burst factor x mean, by workload.

    ``rates``: requests/s that its requests in flight amount to, on average and at the peak; none for demand in requests/s.
    """

    pool: ChosenPool
    candidate: Candidate
    eligible: Eligible
    bursts: tuple[float, ...]
    rates: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    together: Shared | SharedLoop | None = None  # the queue of all its workloads at their peaks, where it serves several (indexed in their order)

    @property
    def row(self) -> int:
        """Its row in the survey."""
        return self.candidate.point.row

    def qps(self, w: int) -> float:
        """Mean requests/s of a workload that it serves."""
        return self.rates[w][0] if w in self.rates else self.peak_qps(w) / self.bursts[w]

    def peak_qps(self, w: int) -> float:
        """Requests/s of a workload that it must be able to serve."""
        return self.rates[w][1] if w in self.rates else self.pool.traffic.get(w, 0.0)


@dataclass(frozen=True)
class ChosenApi:
    """An API of the solution and the share of its workload that it serves, at peaks as in the mean."""

    offer: HostedOffer
    share: float


def chosen_apis(answer: Answer) -> list[ChosenApi]:
    """The APIs of a solution, in the order of the workloads."""
    formulation = answer.formulation
    first, rates = len(formulation.candidates), [d.rate for d in formulation.problem.demands]
    found = [(formulation.hosted[c.pool.column - first], c.traffic) for c in answer.solution.pools if c.pool.column >= first]
    return sorted((ChosenApi(o, traffic[o.workload] / rates[o.workload]) for o, traffic in found), key=lambda a: (a.offer.workload, -a.share))


def chosen_pools(answer: Answer, survey: Survey) -> list[Chosen]:
    """The pools of a solution on GPUs, largest traffic first."""
    known = answer.formulation.candidates
    pools = [(p, known[p.pool.column]) for p in answer.solution.pools if p.pool.column < len(known)]
    bursts = tuple(w.burst_factor for w in answer.formulation.scenario.workload)
    found = [_rated(Chosen(p, c, survey.eligible[c.eligible], bursts), survey) for p, c in pools]
    return sorted(found, key=lambda c: -sum(c.qps(w) for w in c.pool.traffic))


def _rated(chosen: Chosen, survey: Survey) -> Chosen:
    """The pool with the rates that its requests in flight amount to at the number of replicas it has."""
    if len(chosen.pool.traffic) > 1 and not survey.replicas.is_unit[chosen.row]:
        return _rated_together(chosen, survey)
    closed = [w for w in chosen.pool.traffic if survey.scenario.workload[w].is_closed]
    peaks = {w: _rate_in_flight(chosen, survey, w, 1.0) for w in closed}
    means = {w: _rate_in_flight(chosen, survey, w, 1 / chosen.bursts[w]) if chosen.bursts[w] != 1 else peaks[w] for w in closed}
    return replace(chosen, rates={w: (means[w], peaks[w]) for w in closed})


def _rated_together(chosen: Chosen, survey: Survey) -> Chosen:
    """The same for several workloads on one deployment."""
    served, total = sorted(chosen.pool.traffic), chosen.pool.total
    closed = [i for i, w in enumerate(served) if survey.scenario.workload[w].is_closed]
    peaks = together(chosen, survey, total)
    means = together(chosen, survey, total, at_peak=False) if closed and any(chosen.bursts[w] != 1 for w in served) else peaks
    assert peaks and means
    return replace(chosen, together=peaks, rates={served[i]: (float(means.rates[i]) * total, float(peaks.rates[i]) * total) for i in closed})


def together(
    chosen: Chosen, survey: Survey, replicas: int, at_peak: bool = True, confidence: float | None = None, after_loss: bool = False
) -> Shared | SharedLoop | None:
    """One of so many replicas as the queue of all workloads it serves, with steps at the scenario's confidence or another; None for a single
    workload, and for disaggregated units."""
    served, scenario, rows = sorted(chosen.pool.traffic), survey.scenario, np.array([chosen.row])
    if len(served) < 2 or survey.replicas.is_unit[chosen.row]:
        return None
    tokens = chosen.candidate.point.max_num_batched_tokens
    mixes = [survey.physics[w].mix(chosen.row) for w in served]
    curves = [curves_of(survey, w, rows, tokens, confidence or scenario.policy.confidence) for w in served]
    each = np.array([chosen.pool.traffic[w] / (1.0 if at_peak else chosen.bursts[w]) / replicas for w in served])
    is_loop = np.array([scenario.workload[w].is_closed for w in served])
    slots = min(chosen.candidate.point.max_num_seqs, *(int(slots_of(survey, w, rows, tokens)[0]) for w in served))
    point = chosen.candidate.point
    able = [point.after_loss[w] if after_loss else (point.single[w], point.saturated[w]) for w in served]
    relief = max(alone / pool_capacity(alone, most, replicas) for alone, most in able) if scenario.policy.keeps_level else 1.0
    return settled(curves, mixes, np.where(is_loop, 0.0, each), np.where(is_loop, each, 0.0), np.array([slots]), relief)


def _rate_in_flight(chosen: Chosen, survey: Survey, w: int, share: float) -> float:
    """Requests/s of a workload's requests in flight with a share of the peak traffic: Little's law at the mean E2E there."""
    part, each = in_flight(chosen, survey, w, share)
    rate = in_flight_rate(part, each, survey.scenario.policy.keeps_level)
    return share * chosen.pool.traffic[w] * float(rate[0] / each[0])


def in_flight(chosen: Chosen, survey: Survey, w: int, share: float) -> tuple[Serving, Floats]:
    """The workload on one replica, and its requests in flight there. Shared deployments are as loaded as all their workloads make them."""
    scenario = survey.scenario
    in_service = chosen.pool.total - scenario.policy.spare_replicas
    each = np.array([share * slo_load(chosen, scenario, in_service) * in_service / chosen.pool.total * capacity_of(chosen, scenario, w, in_service)])
    return serving(chosen, survey, w), each


def serving(chosen: Chosen, survey: Survey, w: int) -> Serving:
    """One workload on one replica at its operating point."""
    rows, physics, point = np.array([chosen.row]), survey.physics[w], chosen.candidate.point
    seqs = np.minimum(np.array([point.max_num_seqs]), slots_of(survey, w, rows, point.max_num_batched_tokens))
    curves = curves_of(survey, w, rows, point.max_num_batched_tokens, survey.scenario.policy.confidence)
    asked = limits(survey.scenario.workload[w], float(physics.factor[chosen.row]))
    return Serving(survey.replicas.take(rows), curves, physics.mix(chosen.row), asked, seqs, survey.coefficients)


def slo_load(chosen: Chosen, scenario: Scenario, in_service: int, after_loss: bool = False) -> float:
    """Traffic over capacity of the replicas in service; that of the time after a loss, where limits may be longer."""
    return sum(x / capacity_of(chosen, scenario, w, in_service, after_loss) for w, x in chosen.pool.traffic.items()) / in_service


def capacity_of(chosen: Chosen, scenario: Scenario, w: int, in_service: int, after_loss: bool = False) -> float:
    """Flow of one workload per replica at the real number in service; where several share, alone times the mixture factor."""
    point = chosen.candidate.point
    alone, most = point.after_loss[w] if after_loss else (point.single[w], point.saturated[w])
    if len(chosen.pool.traffic) > 1:
        return alone * mixture_factor(scenario)
    return alone if scenario.policy.router == "random" else pool_capacity(alone, most, in_service)
