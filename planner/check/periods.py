"""Checks what changes by the hour: rates and waiting requests, loads and starts, derived again from scenario, catalogue and counts."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import numpy as np
from numpy.typing import NDArray

from planner.check.capacity import STATED
from planner.check.case import Case, Fit, mixture_factor
from planner.check.demand import restated
from planner.check.findings import RELATIVE, Finding, Notes, at_most, same
from planner.check.quality import worth
from planner.performance.capacity import pooled_qps
from planner.result.plan import Period, Plan, PlanWorkload
from planner.scenario.change import with_workloads
from planner.scenario.profiles import hourly_rates
from planner.scenario.records import Scenario
from planner.scenario.workload import Workload

Floats = NDArray[np.float64]


def everyone(scenario: Scenario) -> Scenario:
    """All workloads as capacities are asked for: a waiting one alone, and, behind all, once more within the pace limits of those with rates."""
    steady = [w for w in scenario.workload if not w.is_waiting]
    waiting = [w for w in scenario.workload if w.is_waiting]
    pace = {s.name for w in steady for s in w.limits if s.is_pace}
    limits = {n: min(w.slo[n] for w in steady if n in w.slo) for n in pace}
    plain = [_as_rate(w) if w.is_waiting else w for w in scenario.workload]
    beside = [_as_rate(w).model_copy(update={"slo": {n: min(limits.get(n, s), w.slo.get(n, s)) for n, s in (limits | w.slo).items()}}) for w in waiting]
    return with_workloads(scenario, (*plain, *beside))


def _as_rate(workload: Workload) -> Workload:
    return workload.model_copy(update={"qps": workload.rate, "requests_per_day": None, "max_waiting_share": 1.0})


def over_hours(case: Case) -> Finding:
    """Rates are the profile's, each day's waiting requests are done between release and deadline, and workloads add their hours up."""
    notes, plan = Notes("demand"), case.plan
    rates, k = hourly_rates(plan.scenario), 0
    for w, (got, asked) in enumerate(zip(plan.workloads, plan.scenario.workload, strict=True)):
        restated(notes, got, asked)
        if not asked.is_waiting:
            notes.require(bool(np.allclose(got.rates, rates[w], rtol=RELATIVE)), asked.name, "states rates other than its profile's")
            _divided(notes, case, got, rates[w])
        else:
            _done(notes, plan, w, np.array([[c.waiting_requests[k] for c in p.deployments] for p in plan.periods]))
            k += 1
    none = ("alternatives", "api", "headroom", "binding", "unit_costs", "prudent")
    notes.require(not any(getattr(plan, name) for name in none), "plan", f"states {', '.join(none)} or some, which plans by the hour do not")
    notes.require(all(w.unit_costs is None for w in plan.workloads), "workloads", "state unit costs, which plans by the hour do not")
    return notes.finding(f"demand: {len(plan.workloads)} workloads in {len(plan.periods)} hours")


def _divided(notes: Notes, case: Case, got: PlanWorkload, rates: Floats) -> None:
    """What APIs serve of a workload in each hour is a share of its traffic (with --api all: all or none at one of them), and the mean share of each is
    stated; the deployment has the rest, in its busiest hour at the rate stated."""
    plan, rows = case.plan, [i for i, h in enumerate(case.plan.hosted) if h.workload == got.name]
    by_hour = np.array([[p.hosted[i] for i in rows] for p in plan.periods]).reshape(len(plan.periods), len(rows))
    taken = by_hour.sum(axis=1)
    notes.require(bool(np.all(taken <= rates * (1 + RELATIVE))), got.name, "has more at APIs than its traffic in some hour")
    for i, qps in zip(rows, by_hour.T, strict=True):
        row, where = plan.hosted[i], f"{got.name} at {plan.hosted[i].provider}"
        notes.agree(row.qps, float(qps.mean()), where, "requests/s in the mean")
        notes.agree(row.share, float(qps.sum() / rates.sum()), where, "a share of")
        whole = bool(np.all((qps == 0) | np.isclose(qps, rates, rtol=RELATIVE)))
        notes.require(case.scenario.policy.api != "all" or whole, where, "is beside a deployment in some hour, though APIs serve all or nothing of a workload")
    left = np.maximum(rates - taken, 0.0)
    if not got.routing:
        notes.require(bool(np.all(left <= RELATIVE * rates)), got.name, "is served by no deployment, and not all of it by APIs")
        notes.agree(got.qps, float(rates.mean()), got.name, "requests/s")
        return
    (route,) = got.routing
    busiest = plan.deployments[route.deployment].busiest or 0
    near = abs(route.qps - left[busiest]) <= RELATIVE * rates[busiest]  # of requests in flight, which APIs have none of, it is no rate
    notes.require(near or not rows, got.name, f"states {route.qps:.6g} requests/s there, should be {left[busiest]:.6g}")
    notes.agree(got.qps, route.qps, got.name, "requests/s")
    notes.agree(route.share, float(left.sum() / rates.sum()), got.name, "a share of")


def _done(notes: Notes, plan: Plan, w: int, done: Floats) -> None:
    """Requests of a waiting workload done by hour and deployment [H, D]."""
    got, asked, by_hour = plan.workloads[w], plan.scenario.workload[w], done.sum(axis=1)
    hours, total = len(by_hour), max(float(done.sum()), 1e-12)
    notes.require(bool(np.allclose(np.array(got.rates) * 3600, by_hour, rtol=STATED, atol=STATED)), got.name, "states rates other than what is done")
    notes.agree(got.qps, float(by_hour.max()) / 3600, got.name, "requests/s at most", STATED)
    notes.require((got.predicted, got.concurrency, got.min_quality_served, got.mean_quality_served) == (None,) * 4, got.name, "waits, and states a service")
    right = {i: (float(many.sum()) / total, float(many.max()) / 3600) for i, many in enumerate(done.T) if many.any()}
    stated = {r.deployment: (r.share, r.qps) for r in got.routing}
    agree = right.keys() == stated.keys() and all(same(a, b, STATED) for i in right for a, b in zip(right[i], stated[i], strict=True))
    notes.require(agree, got.name, f"states that {stated} is done where, should be {right}")
    notes.require(all(r.tokens_per_stated == 1 for r in got.routing), got.name, "waits, and states tokens of its own")
    for day in range(hours // 24):
        window = [(24 * day + asked.hours[0] + i) % hours for i in range(len(asked.hours))]
        notes.agree(float(by_hour[window].sum()), asked.requests_per_day or 0.0, f"{got.name}, day {day}", "requests done", STATED)
    notes.agree(float(done.sum()), (asked.requests_per_day or 0.0) * hours / 24, got.name, "requests done in all", STATED)


def loads(case: Case) -> Finding:
    """In every hour each deployment carries its traffic at the replicas in service, waiting work in what is left; and it is stated at its busiest."""
    notes, plan, policy, highest = Notes("capacity"), case.plan, case.scenario.policy, 0.0
    means = hourly_rates(plan.scenario)
    bought = np.array([[plan.at_apis(w.name, p) for p in plan.periods] for w in plan.workloads])
    rates = np.maximum(means - bought, 0.0) * np.array([w.burst_factor for w in plan.scenario.workload])[:, None]
    for i, d in enumerate(plan.deployments):
        steady = [w for w, got in enumerate(plan.workloads) if not got.is_waiting and i in (r.deployment for r in got.routing)]
        for t, p in enumerate(plan.periods):
            c, where = p.deployments[i], f"hour {p.hour}, {case.where(i)}"
            load = _load(case, i, p, steady, rates[:, t])
            highest = max(highest, load)
            notes.require(at_most(load, policy.max_slo_load, STATED), where, f"SLO load {load:.4f} on {c.replicas} replicas")
            agree = same(load, c.slo_load, STATED) or max(load, c.slo_load) < STATED
            notes.require(agree, where, f"states SLO load {c.slo_load:.6g}, should be {load:.6g}")
            notes.require(not steady or c.replicas >= policy.floor_replicas, where, f"{c.replicas} replicas, at least {policy.floor_replicas}")
        single = [fit.single if (fit := _fit(case, i, w)) and fit.single > 0 else inf for w in steady]
        done = np.array([sum(p.deployments[i].waiting_requests) for p in plan.periods])
        work = (rates[steady] / np.array(single)[:, None]).sum(axis=0) if steady else done
        here, most = plan.periods[d.busiest or 0].deployments[i], max(p.deployments[i].replicas for p in plan.periods)
        busy = at_most(float(work.max()), float(work[d.busiest or 0])) or here.replicas == most  # version 1 took the first of those that need most replicas
        notes.require(busy, case.where(i), f"states hour {d.busiest} as its busiest, which is {int(work.argmax())}")
        notes.require((d.replicas, d.hosts) == (here.replicas, here.hosts), case.where(i), f"states other replicas or hosts than in hour {d.busiest}")
    return notes.finding(f"capacity: SLO load up to {highest:.4f} of {policy.max_slo_load:g} over {len(plan.periods)} hours")


def _fit(case: Case, i: int, w: int) -> Fit | None:
    built = case.built[i]
    return built.fits.get(w) if built else None


def _load(case: Case, i: int, p: Period, served: Sequence[int], rates: Floats) -> float:
    """Work over the capacity of the replicas in service; infinite where nothing could carry it."""
    d, asked = p.deployments[i], case.plan.scenario.workload
    idle = [w for w, x in enumerate(asked) if x.is_waiting]
    waiting = [(w, k, n) for (k, w), n in zip(enumerate(idle), d.waiting_requests, strict=True) if n > 0]
    here = d.replicas - (case.scenario.policy.spare_replicas if served else 0)
    if not waiting and not any(rates[w] > 0 for w in served):
        return 0.0
    shared, work = len(served) + len(waiting) > 1, 0.0
    for w in served:
        fit = _fit(case, i, w)
        work += rates[w] / _able(fit, case, max(here, 1), shared) if fit and fit.single > 0 else inf if rates[w] > 0 else 0.0
    for w, k, n in waiting:
        fit, built, floor = _fit(case, i, len(asked) + k if served else w), case.built[i], asked[w].min_quality
        score = worth(built.served, asked[w], case) if built else None
        good = floor is None or (score is not None and score - floor >= case.scenario.policy.quality_margin - RELATIVE)
        work += n / 3600 / (fit.single * (mixture_factor(case.scenario) if shared else 1.0)) if fit and fit.single > 0 and good else inf
    return float(work / here) if here > 0 else inf


def load_on(case: Case, i: int, served: Sequence[int], flows: Sequence[float], here: int) -> float:
    """SLO load of so many replicas of a deployment with so much of each workload; infinite where they cannot carry it."""
    fits = [_fit(case, i, w) for w in served]
    if here < 1 or not all(fit and fit.single > 0 for fit in fits):
        return inf
    return sum(x / _able(fit, case, here, len(served) > 1) for fit, x in zip(fits, flows, strict=True) if fit) / here


def _able(fit: Fit, case: Case, replicas: int, shared: bool) -> float:
    """Flow per replica within the limits."""
    if shared:
        return fit.single * mixture_factor(case.scenario)
    return fit.single if case.scenario.policy.router == "random" else float(pooled_qps(np.array(fit.single), np.array(fit.saturated), replicas))


def held(case: Case) -> Finding:
    """Starts are the rises, and what is started is held for the least time: at any hour no more was started within it than is held."""
    notes, plan = Notes("held"), case.plan
    hours = len(plan.periods)
    up = min(case.scenario.policy.min_up_periods, hours)
    for o, bought in enumerate(plan.purchases):
        many = [p.instances[o] for p in plan.periods]
        rises = [max(0, n - many[t - 1]) for t, n in enumerate(many)] if hours > 1 else [0]
        for t, p in enumerate(plan.periods):
            notes.require(p.started[o] == rises[t], f"hour {t}", f"states {p.started[o]} starts of {bought.instance_type}, should be {rises[t]}")
            recent = sum(rises[t - k] for k in range(up))
            text = f"{recent} of {bought.instance_type} were started within {up} hours, {many[t]} are held"
            notes.require(up == 1 or recent <= many[t], f"hour {t}", text)
    return notes.finding(f"held: at least {up} hours once started")
