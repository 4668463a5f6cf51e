"""A deployment of a plan by the hour in its busiest period, as a plan that is the same at every hour: for whoever asks of a flat plan."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from planner.result.plan import Plan, PlanDemand, PlanWorkload, Route
from planner.scenario.profiles import hourly_rates
from planner.scenario.workload import Workload

Floats = NDArray[np.float64]


def at_busiest(plan: Plan, i: int) -> Plan:
    """One deployment with the workloads it is there for, at the rates of its busiest period. Purchases and cost stay those of the whole plan.

    Requests that wait are left out beside workloads with rates, and so are workloads without traffic there in that hour; alone, waiting ones come at the
    rate at which they are done. What APIs serve is left out of rates. Raises LookupError where the plan's parts do not fit together.
    """
    d, asked = plan.deployments[i], plan.scenario
    served = [(w, next(r for r in got.routing if r.deployment == i)) for w, got in enumerate(plan.workloads) if any(r.deployment == i for r in got.routing)]
    steady = [(w, r) for w, r in served if not plan.workloads[w].is_waiting]
    t = d.busiest or 0
    waiting = [w for w, got in enumerate(plan.workloads) if got.is_waiting]
    mean = fleet_rates(plan)
    kept = [(w, r) for w, r in steady if mean[w, t] > 0] or steady or served
    rates = [float(mean[w, t]) if steady else plan.periods[t].deployments[i].waiting_requests[waiting.index(w)] / 3600 for w, _ in kept]
    workloads = tuple(_asked(asked.workload[w], rate) for (w, _), rate in zip(kept, rates, strict=True))
    alone = {} if steady else {"spare_replicas": 0, "prudent": False}  # nothing is held ready for requests that wait
    policy = asked.policy.model_copy(update=alone)
    got = tuple(_got(plan.workloads[w], r, w_asked, rate) for (w, r), w_asked, rate in zip(kept, workloads, rates, strict=True))
    told = {
        "kind": "flat",
        "scenario": asked.model_copy(update={"workload": workloads, "policy": policy}),
        "deployments": (d.model_copy(update={"busiest": None}),),
        "workloads": got,
        "hosted": (),
        "periods": (),
        "flat": None,
        "startup_usd_per_hour": 0.0,
    }
    return plan.model_copy(update=told)


def fleet_rates(plan: Plan) -> Floats:
    """[workload, hour] mean rates of each hour that deployments serve: the profile's without what APIs do; less than a billionth of it is none."""
    mean = hourly_rates(plan.scenario)
    if not plan.hosted:
        return mean
    left = mean - np.array([[plan.at_apis(w.name, p) for p in plan.periods] for w in plan.workloads])
    return np.where(left > 1e-9 * mean, left, 0.0)


def _asked(workload: Workload, rate: float) -> Workload:
    """A workload at a mean rate of its own unit; a floor on the mean is a floor, as one deployment serves all of it."""
    floor = max((q for q in (workload.min_quality, workload.mean_quality) if q is not None), default=None)
    level = {"profile": "", "min_quality": floor, "mean_quality": None}
    if not workload.is_waiting:
        return workload.model_copy(update=level | {workload.rate_field: rate})
    own = {"requests_per_day": None, "qps": rate, "burst_factor": 1.0, "release": "", "deadline": "00:00", "max_waiting_share": 1.0}
    return workload.model_copy(update=level | own)


def _got(got: PlanWorkload, route: Route, asked: Workload, rate: float) -> PlanWorkload:
    told = {
        "demand": PlanDemand(kind=asked.rate_field, value=rate),
        "qps": route.qps,
        "burst_factor": asked.burst_factor,
        "min_quality": asked.min_quality,
        "rates": (),
        "routing": (route.model_copy(update={"deployment": 0, "share": 1.0}),),
    }
    return got.model_copy(update=told)
