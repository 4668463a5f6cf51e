"""What a measurement would decide: how many replicas the traffic takes if steps are as fast as measured, out of the plan's own capacity model.

The deployment is rebuilt as `plan check` rebuilds it; all its steps are then supposed longer or shorter by one factor, as --step-factor does.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np

from planner.candidates.pooling import replicas_needed
from planner.catalog.catalog import Catalog
from planner.check.case import Case, mixture_factor, rebuild
from planner.deploy.trace import Floats, Stream
from planner.performance.capacity import Service
from planner.performance.lengths import blend
from planner.performance.serving import Serving, curves_of, in_flight_service, service_of
from planner.performance.step import GRID
from planner.result.plan import Plan
from planner.scenario.change import assumed

FACTORS = np.geomspace(0.5, 2.0, 13)  # between which capacity is interpolated
NOTHING, TINY = 10**9, 1e-12  # replicas of which none carries anything; a capacity that is none
AROUND = 3  # replicas more and fewer than planned that thresholds are stated for
PERCENTILES = {50.0: "p50", 90.0: "p90", 95.0: "p95", 99.0: "p99"}


@dataclass(frozen=True)
class Threshold:
    """So many replicas do while TPOT is at most this, with all steps this many times as long as planned."""

    replicas: int
    tpot_ms: float
    factor: float


@dataclass(frozen=True)
class Doubt:
    """What a closed loop of so many requests on one replica decides. ``percentile``: of TPOT, the one that is limited. ``median_ms``: as expected."""

    in_flight: int
    percentile: str
    planned_ms: float
    median_ms: float
    confidence: float
    planned_replicas: int
    thresholds: tuple[Threshold, ...]


def percentile_of(plan: Plan, index: int) -> str:
    """The percentile at which a deployment's TPOT is limited; p95 where none is."""
    mine = [w for w in plan.workloads if any(r.deployment == index and r.share > 0 for r in w.routing)]
    limits = [s.percentile for w in mine for s in w.slo if s.metric == "tpot"]
    return PERCENTILES.get(max(limits, default=95.0), "p95")


def doubt(asked: Stream, planned: int, catalog: Catalog) -> Doubt | None:
    """What the plan of a deployment with so many replicas stands and falls with; None where the catalogue has no such deployment, or nothing is in flight."""
    plan, index = asked.plan, asked.index
    d, percentile = plan.deployments[index], percentile_of(plan, index)
    in_flight = round(d.in_flight_per_replica or 0.0)
    if in_flight < 1 or d.evidence is None or (d.decode_engines and len(asked.shares) > 1):
        return None
    here = _slower(plan, 1.0, catalog)
    if here.built[index] is None:
        return None

    def tpot_ms(case: Case) -> float:
        return float(in_service(case, asked, in_flight).tpot_s[percentile][0]) * 1e3

    needed = [_capacities(_slower(plan, f, catalog), index) for f in FACTORS]
    able = np.array([[c[w] for c in needed] for w in range(len(asked.shares))])
    flows = [here.flow(w, index) for w, _, _ in asked.shares]
    found = []
    beside = plan.scenario.policy.spare_replicas + d.standing_by
    for n in range(max(1 + beside, planned - AROUND), planned + AROUND + 1):
        factor = _largest(able, flows, n - beside, here)
        if factor is not None:
            found.append(Threshold(n, tpot_ms(_slower(plan, factor, catalog)), factor))
    expected = d.evidence.step_time_band.get("0.5", d.evidence.step_time_factor) / d.evidence.step_time_factor
    planned_ms = tpot_ms(here)
    return Doubt(in_flight, percentile, planned_ms, planned_ms * expected, d.evidence.confidence, planned, tuple(found))


def _slower(plan: Plan, factor: float, catalog: Catalog) -> Case:
    """The plan with all steps so many times as long as planned."""
    return rebuild(plan, assumed(plan.scenario, "what_if", step_factor=plan.scenario.what_if.step_factor * factor), catalog)


def in_service(case: Case, asked: Stream, in_flight: float) -> Service:
    """Service of one replica with so many requests in flight, of all its workloads mixed as they come."""
    return in_flight_service(serving(case, asked), np.array([float(in_flight)]), is_steady=True)[0]


def at_rate(case: Case, asked: Stream, rate: float) -> Service:
    """Service of one replica alone under a Poisson stream."""
    return service_of(serving(case, asked), np.array([rate]))


def serving(case: Case, asked: Stream) -> Serving:
    """One replica with the requests of all its workloads."""
    built, policy = case.built[asked.index], case.scenario.policy
    assert built is not None
    fits = [built.fits[w] for w, _, _ in asked.shares]
    if len(fits) == 1:
        return fits[0].serving
    mix = blend([f.mix for f in fits], np.array([s for _, s, _ in asked.shares]))
    tokens = asked.deployment.max_num_batched_tokens
    known = case.known(built)
    curves = curves_of(known, mix, policy.confidence, GRID, *((tokens, policy.chunked_prefill) if tokens else ()))
    return Serving(built.replica, curves, mix, (), np.array([min(f.max_num_seqs for f in fits)], dtype=np.int64), case.coefficients)


def _capacities(case: Case, index: int) -> list[tuple[float, float]]:
    """Of each workload served, the flow that a replica carries alone and in a very large pool."""
    built = case.built[index]
    assert built is not None
    return [(built.fits[w].single, built.fits[w].saturated) for w in built.serves]


def _largest(able: Floats, flows: list[float], replicas: int, case: Case) -> float | None:
    """The largest factor on steps at which so many replicas carry the flows; None beyond what is looked at."""
    low, high = float(FACTORS[0]), float(FACTORS[-1])
    if _needed(able, flows, low, case) > replicas or _needed(able, flows, high, case) <= replicas:
        return None
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _needed(able, flows, middle, case) <= replicas else (low, middle)
    return low


def _needed(able: Floats, flows: list[float], factor: float, case: Case) -> int:
    """Replicas that the flows take with all steps so many times as long."""
    policy = case.scenario.policy
    nearest = int(np.searchsorted(FACTORS, factor))
    if not able[:, min(nearest, len(FACTORS) - 1)].all():  # beyond here the limits leave nothing
        return NOTHING
    at = [[float(np.exp(np.interp(np.log(factor), np.log(FACTORS), np.log(np.maximum(able[w, :, i], TINY))))) for i in (0, 1)] for w in range(len(flows))]
    if len(flows) == 1 and policy.router != "random":
        return replicas_needed(at[0][0], at[0][1], flows[0], policy.max_slo_load)
    shared = mixture_factor(case.scenario) if len(flows) > 1 else 1.0
    return ceil(sum(f / (single * shared) for f, (single, _) in zip(flows, at)) / policy.max_slo_load - 1e-9)
