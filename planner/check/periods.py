"""The independent check of an hourly plan: every hour's traffic, capacity, packing, limits and cost are derived again from scenario, catalogue
and counts, without the program; each deployment is checked as a plan of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from planner.catalog.catalog import Catalog
from planner.catalog.records import Offer
from planner.check.case import Case, Fit, mixture_factor, rebuild
from planner.check.check import check_plan
from planner.check.findings import RELATIVE, Breach, Finding, Notes, Report, at_most, attempted, same, same_money
from planner.check.packing import Guest, place
from planner.check.quality import worth
from planner.check.supply import counted, within
from planner.performance.capacity import pooled_qps
from planner.result.hourly import Hour, HourlyPlan
from planner.result.plan import SCHEMA_VERSION
from planner.scenario.apply import catalog_for
from planner.scenario.caps import AskedCap, caps
from planner.scenario.profiles import hourly_rates
from planner.scenario.records import Scenario, Workload

STATED = 1e-4
PROVEN = 0.01  # gap at which an hourly plan counts as optimal, or the one asked for where that is wider: profiles are known no better


@dataclass(frozen=True)
class HourlyCase:
    """An hourly plan with all that it is checked against. ``cases[i]``: deployment i with every workload it could serve; of waiting work
    twice, alone (its own index) and, from len(workloads) on, within the limits of others."""

    plan: HourlyPlan
    scenario: Scenario
    cases: tuple[Case, ...]
    rates: np.ndarray[tuple[int, ...], np.dtype[np.float64]]  # [workload, hour] of peaks
    offers: tuple[Offer | None, ...]

    @property
    def waiting(self) -> list[int]:
        """Workloads whose requests may wait."""
        return [w for w, x in enumerate(self.scenario.workload) if x.requests_per_day is not None]

    def fit(self, i: int, w: int) -> Fit | None:
        """A workload on a deployment."""
        built = self.cases[i].built[0]
        return built.fits.get(w) if built else None

    def where(self, i: int, hour: int) -> str:
        """A deployment in an hour, in words."""
        return f"hour {hour}, deployment {i} ({self.plan.deployments[i].checkpoint})"


def check_hours(plan: HourlyPlan, catalog: Catalog) -> Report:
    """Everything that does not hold of an hourly plan, and what was verified."""
    scenario = plan.scenario
    alone = [check_plan(p, catalog) for p in plan.plans]
    breaches = tuple(Breach(b.name, f"deployment {i} alone: {b.where}", b.what) for i, r in enumerate(alone) for b in r.breaches)
    rates = hourly_rates(scenario) * np.array([w.burst_factor for w in scenario.workload])[:, None]
    shape = structure(plan, scenario, rates.shape[1])
    if plan.catalog_hash != catalog.hash:
        breaches = (Breach("catalogue", "catalog_hash", f"made with catalogue {plan.catalog_hash}, checked with {catalog.hash}"), *breaches)
    if breaches or shape.breaches:
        return Report((*breaches, *shape.breaches), ())
    supposed, everyone = catalog_for(catalog, scenario), _everyone(scenario)
    cases = tuple(rebuild(p, everyone, catalog_for(catalog, p.scenario)) for p in plan.plans)
    known: dict[tuple[str, ...], Offer] = {
        (o.provider, o.region, o.instance_type, o.gpu, o.purchase): o for o in reversed(supposed.offers)
    }  # of twins the first, as in offer_of
    offers = tuple(known.get((q.provider, q.region, q.instance_type, q.gpu, q.purchase)) for q in plan.offers)
    clock = HourlyCase(plan, scenario, cases, rates, offers)
    findings = [shape, *(attempted(family, clock) for family in (_capacity, _done, _packing, _limits, _held, _cost, _summary))]
    return Report(tuple(b for f in findings for b in f.breaches), (f"{len(alone)} deployments: each holds as a plan of its own", *(f.check for f in findings)))


def _everyone(scenario: Scenario) -> Scenario:
    """All workloads as capacities are asked for: a waiting one alone, and once more within the pace limits of those with rates."""
    steady = [w for w in scenario.workload if w.requests_per_day is None]
    pace = {n for w in steady for n in w.slo if n.startswith(("tpot", "itl"))}
    limits = {n: min(w.slo[n] for w in steady if n in w.slo) for n in pace}
    plain = [w if w.requests_per_day is None else _as_rate(w) for w in scenario.workload]
    waiting = [w for w in scenario.workload if w.requests_per_day is not None]
    beside = [_as_rate(w).model_copy(update={"slo": {n: min(limits.get(n, s), w.slo.get(n, s)) for n, s in (limits | w.slo).items()}}) for w in waiting]
    return scenario.model_copy(update={"workload": (*plain, *beside)})


def _as_rate(workload: Workload) -> Workload:
    return workload.model_copy(update={"qps": workload.rate, "requests_per_day": None, "max_waiting_share": 1.0})


def structure(plan: HourlyPlan, scenario: Scenario, hours: int) -> Finding:
    """Counts have the sizes they should, and every workload is served where it may be."""
    notes = Notes("structure")
    notes.require(plan.hours == hours == len(plan.periods), "hours", f"are {plan.hours} and {len(plan.periods)}, the profiles make {hours}")
    notes.require(1 <= plan.schema_version <= SCHEMA_VERSION, "schema_version", f"is {plan.schema_version}, there are 1 to {SCHEMA_VERSION}")
    notes.require([w.name for w in plan.workloads] == [w.name for w in scenario.workload], "workloads", "are not those of the scenario")
    notes.require([h.hour for h in plan.periods] == list(range(hours)), "hours", f"are not numbered from 0 to {hours - 1}")
    notes.require(all(len(p.deployments) == 1 for p in plan.plans), "plans", "are not of one deployment each")
    names = {w.name for w in plan.workloads}
    notes.require(all(w.name in names for p in plan.plans for w in p.workloads), "plans", "serve workloads that were not asked for")
    if notes.breaches:
        return notes.finding("structure: not that of the scenario")
    for w in plan.workloads:
        sound = len(w.rates) == hours and all(0 <= rate < inf for rate in w.rates)
        notes.require(sound, w.name, f"states {len(w.rates)} rates for {hours} hours, or some that are none")
        known = all(0 <= i < len(plan.plans) for i in w.deployments)
        notes.require(known and len(set(w.deployments)) == len(w.deployments), w.name, f"is served by deployments {list(w.deployments)}, not all of them there")
    waiting = sum(x.requests_per_day is not None for x in scenario.workload)
    for h in plan.periods:
        sizes = (len(h.deployments), len(h.instances), len(h.started)) == (len(plan.plans), len(plan.offers), len(plan.offers))
        notes.require(sizes and min((*h.instances, *h.started, 0)) >= 0, f"hour {h.hour}", "has not one count for each deployment and offer")
        for i, d in enumerate(h.deployments):
            hosts = all(0 <= x.purchase < len(plan.offers) for x in d.hosts)
            done = len(d.waiting_requests) == waiting and all(0 <= n < inf for n in d.waiting_requests)
            notes.require(done, f"hour {h.hour}, deployment {i}", f"has not one count for each of {waiting} workloads that wait")
            notes.require(hosts and sum(x.replicas for x in d.hosts) == d.replicas, f"hour {h.hour}, deployment {i}", "has replicas that stand nowhere")
    for w, x in zip(plan.workloads, scenario.workload, strict=True):
        notes.require(x.requests_per_day is not None or len(w.deployments) == 1, w.name, f"is served by {len(w.deployments)} deployments")
    return notes.finding(f"structure: {hours} hours, {len(plan.plans)} deployments, {len(plan.offers)} offers")


def _capacity(c: HourlyCase) -> Finding:
    """In every hour each deployment carries its traffic at the replicas in service; waiting work only in what is left."""
    notes, policy, highest = Notes("capacity"), c.scenario.policy, 0.0
    served = [[w for w, x in enumerate(c.plan.workloads) if not x.is_waiting and i in x.deployments] for i in range(len(c.plan.plans))]
    for h in c.plan.periods:
        for i, d in enumerate(h.deployments):
            load = _load(c, i, h, served[i])
            highest = max(highest, load)
            notes.require(at_most(load, policy.max_slo_load, STATED), c.where(i, h.hour), f"SLO load {load:.4f} on {d.replicas} replicas")
            notes.require(
                same(load, d.slo_load, STATED) or max(load, d.slo_load) < STATED, c.where(i, h.hour), f"states SLO load {d.slo_load:.6g}, should be {load:.6g}"
            )
            notes.require(not served[i] or d.replicas >= policy.floor_replicas, c.where(i, h.hour), f"{d.replicas} replicas, at least {policy.floor_replicas}")
    return notes.finding(f"capacity: SLO load up to {highest:.4f} of {policy.max_slo_load:g} over {c.plan.hours} hours")


def _load(c: HourlyCase, i: int, h: Hour, served: Sequence[int]) -> float:
    """Work over the capacity of the replicas in service; infinite where nothing could carry it."""
    d = h.deployments[i]
    waiting = [(c.scenario.workload[w], k, n) for (k, w), n in zip(enumerate(c.waiting), d.waiting_requests, strict=True) if n > 0]
    here = d.replicas - (c.scenario.policy.spare_replicas if served else 0)
    rates = [(w, float(c.rates[w, h.hour])) for w in served if c.rates[w, h.hour] > 0]
    if not rates and not waiting:
        return 0.0
    shared, work = len(served) + len(waiting) > 1, 0.0
    for w, rate in rates:
        fit = c.fit(i, w)
        work += rate / _able(fit, c, 1 if shared else max(here, 1), shared) if fit and fit.single > 0 else inf
    for x, k, n in waiting:
        fit = c.fit(i, len(c.scenario.workload) + k if served else c.waiting[k])
        built = c.cases[i].built[0]
        score = worth(built.served, x, c.cases[i]) if built else None
        good = x.min_quality is None or (score is not None and score - x.min_quality >= c.scenario.policy.quality_margin - RELATIVE)
        work += n / 3600 / (fit.single * (mixture_factor(c.cases[i].scenario) if shared else 1.0)) if fit and fit.single > 0 and good else inf
    return work / here if here > 0 else inf


def _able(fit: Fit, c: HourlyCase, replicas: int, shared: bool) -> float:
    """Flow per replica within the limits."""
    if shared:
        return fit.single * mixture_factor(_everyone(c.scenario))
    return fit.single if c.scenario.policy.router == "random" else float(pooled_qps(np.array(fit.single), np.array(fit.saturated), replicas))


def _done(c: HourlyCase) -> Finding:
    """Every day's waiting requests are done between release and deadline, and none outside; stated rates are those of the profile."""
    notes, hours = Notes("demand"), c.plan.hours
    for w, x in enumerate(c.scenario.workload):
        stated = np.array(c.plan.workloads[w].rates)
        if x.requests_per_day is None:
            notes.require(bool(np.allclose(stated * x.burst_factor, c.rates[w], rtol=RELATIVE)), x.name, "states rates other than its profile's")
            continue
        k = c.waiting.index(w)
        done = np.array([sum(d.waiting_requests[k] for d in h.deployments) for h in c.plan.periods])
        notes.require(bool(np.allclose(stated * 3600, done, rtol=STATED, atol=STATED)), x.name, "states rates other than what its deployments do")
        first = x.hours[0]
        for day in range(hours // 24):
            window = [(24 * day + first + i) % hours for i in range(len(x.hours))]
            notes.agree(float(done[window].sum()), x.requests_per_day, f"{x.name}, day {day}", "requests done", STATED)
        notes.agree(float(done.sum()), x.requests_per_day * hours / 24, x.name, "requests done in all", STATED)
    return notes.finding(f"demand: {len(c.scenario.workload)} workloads in {hours} hours")


def _packing(c: HourlyCase) -> Finding:
    """In every hour the replicas are placed one by one on the instances held."""
    notes = Notes("packing")
    for h in c.plan.periods:
        for o, (offer, held) in enumerate(zip(c.offers, h.instances, strict=True)):
            guests = [_guest(c, i, h, x.replicas) for i, d in enumerate(h.deployments) for x in d.hosts if x.purchase == o]
            if offer is not None:
                place(notes, offer, held, sorted(guests, key=lambda g: -g.gpus), f"hour {h.hour}, {offer.instance_type}")
    return notes.finding("packing: replicas placed one by one in every hour")


def _guest(c: HourlyCase, i: int, h: Hour, replicas: int) -> Guest:
    d = c.plan.deployments[i]
    return Guest(c.where(i, h.hour), d.gpu, *((d.gpus_per_replica, 1) if d.decode_engines else (d.tp, d.pp)), replicas)


def _counted(cap: AskedCap, c: HourlyCase, instances: Sequence[int]) -> float:
    """What the instances of an hour within a cap's reach come to, in its unit."""
    return counted(cap, [(o, n) for o, n in zip(c.offers, instances, strict=True) if o], c.scenario, c.cases[0].catalog)


def _limits(c: HourlyCase) -> Finding:
    """Quotas, cap and budget in every hour; no more of an offer than there is; limits on models, GPU types and locations."""
    notes, _supply, policy = Notes("limits"), c.scenario.supply, c.scenario.policy
    for h in c.plan.periods:
        where = f"hour {h.hour}"
        by_gpu: dict[str, int] = {}
        for q, n in zip(c.plan.offers, h.instances, strict=True):
            by_gpu[q.gpu.lower()] = by_gpu.get(q.gpu.lower(), 0) + n * q.gpus_per_instance
        total, _usd = sum(by_gpu.values()), sum(o.usd_per_hour * n for o, n in zip(c.offers, h.instances, strict=True) if o)
        notes.agree(h.gpus_held, total, where, "GPUs held")
        for cap in caps(c.scenario):
            within(notes, cap, _counted(cap, c, h.instances), where)
        for o, n in zip(c.offers, h.instances, strict=True):
            notes.require(o is not None and (o.available is None or n <= o.available), where, f"holds {n} of {o.instance_type if o else 'an unknown offer'}")
    counts = (
        ({d.model for d in c.plan.deployments}, policy.max_models, "models"),
        ({d.gpu for d in c.plan.deployments}, policy.max_gpu_types, "GPU types"),
        ({(o.provider, o.region) for o in c.offers if o and not o.is_owned}, policy.max_locations, "locations"),
    )
    for used, allowed, what in counts:
        notes.require(allowed is None or len(used) <= allowed, what, f"{len(used)} are used, at most {allowed}")
    return notes.finding(f"limits: up to {max((h.gpus_held for h in c.plan.periods), default=0)} GPUs held")


def _held(c: HourlyCase) -> Finding:
    """Starts are the rises, and what is started is held for the least time: at any hour no more was started within it than is held."""
    notes, hours, up = Notes("held"), c.plan.hours, min(c.scenario.policy.min_up_periods, c.plan.hours)
    for o in range(len(c.plan.offers)):
        held = [h.instances[o] for h in c.plan.periods]
        rises = [max(0, n - held[t - 1]) for t, n in enumerate(held)] if hours > 1 else [0]
        for t, h in enumerate(c.plan.periods):
            notes.require(h.started[o] == rises[t], f"hour {t}", f"states {h.started[o]} starts of {c.plan.offers[o].instance_type}, should be {rises[t]}")
            recent = sum(rises[t - k] for k in range(up))
            notes.require(
                up == 1 or recent <= held[t], f"hour {t}", f"{recent} of {c.plan.offers[o].instance_type} were started within {up} hours, {held[t]} are held"
            )
    return notes.finding(f"held: at least {up} hours once started")


def _cost(c: HourlyCase) -> Finding:
    """Every hour at the catalogue's prices, start-ups included, added up again; bound, gap, saving."""
    notes, lead, total, p = Notes("cost"), c.scenario.policy.startup_lead / 3600, 0.0, c.plan
    for q, offer in zip(p.offers, c.offers, strict=True):
        right = offer.usd_per_hour if offer else float("nan")
        notes.require(same_money(q.usd_per_hour, right), q.instance_type, f"states ${q.usd_per_hour:.4f}/h, the catalogue has ${right:.4f}")
    for h in p.periods:
        usd = sum(o.usd_per_hour * (n + lead * m) for o, n, m in zip(c.offers, h.instances, h.started, strict=True) if o)
        notes.require(same_money(h.usd, usd), f"hour {h.hour}", f"states ${h.usd:.4f}, should be ${usd:.4f}")
        total += usd
    notes.require(same_money(p.usd, total), "plan", f"states ${p.usd:.4f}, should be ${total:.4f}")
    notes.require(at_most(p.bound_usd, p.usd), "bound", f"${p.bound_usd:.4f} is above the cost of ${p.usd:.4f}")
    notes.require(abs(p.gap - (p.usd - p.bound_usd) / p.usd) <= RELATIVE if p.usd else True, "gap", f"states {p.gap:.3g}")
    if p.flat_usd_per_hour is not None and p.saving is not None:
        saved = 1 - total / p.hours / p.flat_usd_per_hour
        notes.require(abs(p.saving - saved) < RELATIVE, "saving", f"states {p.saving:.3g}, should be {saved:.3g}")
    return notes.finding(f"cost: ${total:,.2f} over {p.hours} hours")


def _summary(c: HourlyCase) -> Finding:
    """What the plan adds up over its hours: start-ups, days, weeks, means, peaks, most held; and that each deployment was asked the same question."""
    notes, p, hours = Notes("summary"), c.plan, c.plan.hours
    lead, total = c.scenario.policy.startup_lead / 3600, sum(h.usd for h in c.plan.periods)
    startup = lead * sum(o.usd_per_hour * m for h in p.periods for o, m in zip(c.offers, h.started, strict=True) if o)
    for stated, right, what in (
        (p.startup_usd, startup, "starting"),
        (p.usd_per_day, total * 24 / hours, "a day"),
        (p.usd_per_week, total * 168 / hours, "a week"),
    ):
        notes.require(same_money(stated, right), "plan", f"states ${stated:.4f} for {what}, should be ${right:.4f}")
    proven = p.gap <= max(PROVEN, c.scenario.solver.gap) + RELATIVE
    notes.require(p.status == "feasible" or proven, "status", f"{p.status} with a gap of {p.gap:.3g}")
    notes.require((p.flat_usd_per_hour is None) == (p.saving is None), "saving", "is stated without the flat plan, or that without it")
    for o, (q, offer) in enumerate(zip(p.offers, c.offers, strict=True)):
        right_of = (offer.basis, offer.gpus_per_instance, offer.source, offer.stated_as_of) if offer else None
        notes.require((q.basis, q.gpus_per_instance, q.source, q.as_of) == right_of, q.instance_type, "states another shape, source or date than the catalogue")
        most = max(h.instances[o] for h in p.periods)
        notes.require(q.most_instances == most, q.instance_type, f"states at most {q.most_instances} held, {most} are")
    for got, asked in zip(p.workloads, c.scenario.workload, strict=True):
        waits = asked.requests_per_day is not None
        shape = ("concurrency" if asked.concurrency is not None else "qps", waits, asked.burst_factor)
        notes.require(
            (got.unit, got.is_waiting, got.burst_factor) == shape, got.name, f"states {got.unit}, waiting {got.is_waiting}, burst {got.burst_factor:g}"
        )
        notes.agree(got.mean, float(np.mean(got.rates)), got.name, "a mean rate of")
        notes.agree(got.peak, float(np.max(got.rates)), got.name, "a peak rate of")
    for i, alone in enumerate(p.plans):
        for part in ("catalog", "supply", "objective", "solver", "what_if", "tables"):
            notes.require(getattr(alone.scenario, part) == getattr(p.scenario, part), f"deployment {i}", f"was asked another {part} than the plan")
    return notes.finding(f"summary: days, weeks, start-ups, means and peaks of {hours} hours")
