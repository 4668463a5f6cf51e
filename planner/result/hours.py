"""A plan by the hour written down: its periods, from the counts of a search, around deployments as each is in its busiest one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from planner.candidates.eligibility import Eligible, counted
from planner.candidates.pooling import pool_capacity
from planner.candidates.survey import Survey
from planner.program.problem import ChosenPool
from planner.result import cautions, remarks
from planner.result.assemble import assemble, search_report, whole_plan
from planner.result.deploy import limits_in_words, purchase
from planner.result.hosted import mean_shares, unknown_service
from planner.result.plan import Deployment, FlatComparison, HostedOn, HostedShare, Period, PeriodCount, Plan, PlanDemand, PlanWorkload, Purchase, Route
from planner.result.power import Holding, power_of
from planner.result.redundancy import Standing, redundancy, spot_risks
from planner.result.unit_costs import cost_at
from planner.scenario.records import Scenario
from planner.scenario.sources import Origins
from planner.scenario.workload import Workload
from planner.search.answer import Answer
from planner.search.hours import GAP, HourlyQuestion, PricedStructure, busiest, busiest_hour
from planner.search.structures import Floats, StructureSpace

ASSUMPTIONS = (
    "Instances are paid by the hour held, on demand, and started and returned at full hours; what they take to start is paid in addition.",
    "The hours repeat: after the last comes the first. The same candidates serve in every hour, one deployment per workload or group of workloads.",
)
BESIDE = (
    "Waiting requests run beside others at lower priority (vLLM: --scheduling-policy priority; SGLang: --enable-priority-scheduling), "
    "within the strictest limits on TPOT and ITL of any workload."
)


@dataclass(frozen=True)
class _Priced:
    """A search's counts with what they are of. ``order``: pools that serve, most GPU-hours first; ``held``: offers, by index of the solution."""

    found: PricedStructure
    field: StructureSpace
    asked: HourlyQuestion
    order: tuple[int, ...]
    held: tuple[int, ...]
    hosted: tuple[HostedShare, ...]

    def replicas(self, p: int, t: int) -> dict[int, int]:
        """Of a pool in an hour, by purchase."""
        place = {o: i for i, o in enumerate(self.held)}
        return {place[o]: n for o, n in sorted(self.found.solution.pools[p].running[t].items())}

    def done(self, k: int, p: int) -> Sequence[float]:
        """Waiting requests of one work done by a pool, hour by hour."""
        return self.found.solution.pools[p].waiting.get(k, (0.0,) * self.asked.hours)

    def bought(self, t: int) -> tuple[float, ...]:
        """Requests/s in the mean at each API in an hour."""
        return tuple(a.flows[t] / self.asked.scenario.workload[a.offer.workload].burst_factor for a in self.found.apis)

    def at_apis(self, i: int) -> float:
        """Share of a workload that APIs serve over all hours."""
        return sum(h.share for h, a in zip(self.hosted, self.found.apis, strict=True) if a.offer.workload == i)

    def is_steady(self, p: int) -> bool:
        """Whether it serves workloads with rates, beside which others may wait."""
        return p < len(self.found.structure.blocks)


def assemble_hours(
    found: PricedStructure, field: StructureSpace, asked: HourlyQuestion, surveyed: Survey, baseline: Sequence[Answer], origins: Origins
) -> Plan:
    """The plan of a search."""
    scenario, solution, whole = asked.scenario, found.solution, field.formulation
    hours = [sum(found.running(p, t) for t in range(asked.hours)) * whole.problem.columns[block.candidate].gpus for p, block in enumerate(found.pools)]
    order = sorted(range(len(found.pools)), key=lambda p: -hours[p])
    hosted = mean_shares(found.apis, asked.rates, asked.expanded)
    priced = _Priced(found, field, asked, tuple(order), tuple(sorted({o for h in solution.holdings for o in h})), hosted)
    offers, lead = [whole.offers[found.offers[o]] for o in priced.held], scenario.policy.startup_lead / 3600
    parts = [assemble(*busiest(p, found, field, asked, surveyed), origins) for p in order]
    each = [part.deployments[0].gpus_per_replica for part in parts]
    prices = [o.usd_per_hour for o in offers]
    periods = tuple(_period(t, priced, prices, lead, [o.gpus_per_instance for o in offers]) for t in range(asked.hours))
    peaks = [int(np.argmax([p.instances[o] for p in periods])) for o in range(len(offers))]
    busy = [[_used(p, o, each) for p in periods] for o in range(len(offers))]
    bought = [purchase(offer, periods[t].instances[o], busy[o][t]) for o, (offer, t) in enumerate(zip(offers, peaks, strict=True))]
    deployments = tuple(
        _deployment(parts[i].deployments[0], busiest_hour(p, found, field), i, periods, bought, priced.is_steady(p)) for i, p in enumerate(order)
    )
    workloads = tuple(_workload(int(i), priced, parts, surveyed) for i in np.argsort(asked.order))
    traffic, apis = _traffic(scenario.workload, workloads), sum(h.usd_per_hour for h in hosted)
    usd, startup = sum(p.usd for p in periods), lead * sum(c * n for p in periods for c, n in zip(prices, p.started, strict=True))
    busy_usd = sum(sum(row) * offer.usd_per_hour / offer.gpus_per_instance for row, offer in zip(busy, offers, strict=True))
    hours_of = [[(p.instances[o], p.instances[o] + lead * p.started[o]) for p in periods] for o in range(len(offers))]
    holdings = [Holding(o, [n for n, _ in of], float(np.mean([m for _, m in of]))) for o, of in zip(offers, hours_of, strict=True)]
    bound, waiting = min(found.bound, usd), [w.name for w in scenario.workload if w.is_waiting]
    gap = (usd - bound) / usd if usd else 0.0
    here, standing = replace(whole.problem, offers=tuple(whole.problem.offers[o] for o in found.offers)), list(_standing(priced))
    return whole_plan(
        scenario,
        origins,
        surveyed.catalog.hash,
        is_proven=gap <= max(GAP, scenario.solver.gap) + 1e-9,
        gap=gap,
        bound_usd_per_hour=bound / asked.hours,
        supply=remarks.supply_line(scenario),
        cost=cost_at(usd / asked.hours, traffic, (busy_usd + startup) / asked.hours + apis, apis),
        power=power_of(holdings, scenario, surveyed.catalog, () if hosted else traffic) if bought else None,  # of what APIs draw nobody knows
        startup_usd_per_hour=startup / asked.hours,
        purchases=tuple(bought),
        deployments=deployments,
        workloads=workloads,
        hosted=hosted,
        periods=periods,
        redundancy=redundancy(scenario, here, [whole.offers[o] for o in found.offers], standing),
        spot=spot_risks(here, {o: i for i, o in enumerate(priced.held)}, bought, standing, surveyed.catalog),
        flat=_flat(baseline, usd / asked.hours),
        defaults=remarks.defaults(scenario, origins),
        assumptions=(*ASSUMPTIONS, *((BESIDE,) if asked.idle and asked.steady else ())),
        warnings=(*unknown_service(hosted), *dict.fromkeys(w for p in parts for w in (*cautions.queueing(p, waiting), *p.warnings))),
        notes=(*_notes(scenario, bool(deployments)), *remarks.left_out(whole)),
        excluded=surveyed.excluded + whole.excluded,
        solver=search_report(surveyed, whole, len(field.places), min(found.solved, len(field.places)), structures=found.solved),
    )


def _standing(priced: _Priced) -> Iterator[Standing]:
    """Every deployment with traffic in every hour; waiting work can wait for what fails to be back."""
    field, asked = priced.field, priced.asked
    for i, p in enumerate(priced.order):
        gpus = field.formulation.problem.columns[priced.found.pools[p].candidate].gpus
        for t, running in enumerate(priced.found.solution.pools[p].running):
            if priced.is_steady(p) and priced.found.carried(p)[:, t].any():
                load = partial(_load, priced, p, t, done=(0.0,) * len(asked.idle))
                yield Standing(i, gpus, running, load, load, t)


def _used(period: Period, purchase: int, gpus: Sequence[int]) -> int:
    """GPUs of a purchase that replicas stand on, each of its deployment's size."""
    return sum(h.replicas * n for c, n in zip(period.deployments, gpus, strict=True) for h in c.hosts if h.purchase == purchase)


def _flat(baseline: Sequence[Answer], usd_per_hour: float) -> FlatComparison:
    """What the hours are compared with."""
    if not baseline:
        return FlatComparison(words="no flat plan within the limits")
    cost = sum(a.cost for a in baseline)
    return FlatComparison(words=" + ".join(_in_words(a) for a in baseline), usd_per_hour=cost, saving=1 - usd_per_hour / cost)


def _notes(scenario: Scenario, has_fleet: bool) -> tuple[str, ...]:
    p, notes = scenario.policy, []
    if p.max_locations > 1:
        notes.append("all is bought at one location, though more are allowed")
    if p.mix or p.max_pools not in (None, 1):
        notes.append("one deployment serves a workload, though more are allowed")
    if p.api != "none" and p.floor_replicas and has_fleet:
        kept = "1 replica" if p.floor_replicas == 1 else f"{p.floor_replicas} replicas"
        notes.append(f"each deployment keeps {kept} at every hour (--floor-replicas 0 lets APIs have whole hours)")
    return tuple(notes)


def _traffic(asked: Sequence[Workload], workloads: Sequence[PlanWorkload]) -> list[tuple[float, float, float]]:
    """Mean traffic that unit costs are over; none where some is stated in flight, whose rates over the hours nobody worked out."""
    if any(w.is_closed for w in asked):
        return []
    return [(float(np.mean(got.rates)), w.input_tokens, w.output_tokens) for got, w in zip(workloads, asked, strict=True)]


def _period(t: int, priced: _Priced, prices: Sequence[float], lead: float, gpus: Sequence[int]) -> Period:
    s, policy = priced.found.solution, priced.asked.scenario.policy
    counts = []
    for p in priced.order:
        hosts = priced.replicas(p, t)
        replicas, done = sum(hosts.values()), tuple(priced.done(k, p)[t] for k in range(len(priced.asked.idle)))
        in_service = replicas - policy.spare_replicas if priced.is_steady(p) else replicas
        load = _load(priced, p, t, in_service, done) if replicas else 0.0
        counts.append(
            PeriodCount(replicas=replicas, hosts=tuple(HostedOn(purchase=o, replicas=n) for o, n in hosts.items()), slo_load=load, waiting_requests=done)
        )
    held, started = (tuple(many[t].get(o, 0) for o in priced.held) for many in (s.holdings, s.started))
    usd = sum(c * (n + lead * m) for c, n, m in zip(prices, held, started, strict=True))
    apis = priced.bought(t)
    usd += sum(h.usd_per_hour / h.qps * qps for h, qps in zip(priced.hosted, apis, strict=True))
    many = sum(g * n for g, n in zip(gpus, held, strict=True))
    return Period(hour=t, deployments=tuple(counts), instances=held, started=started, gpus_held=many, usd=usd, hosted=apis)


def _load(priced: _Priced, p: int, t: int, in_service: int, done: Sequence[float]) -> float:
    """Work over capacity of the replicas in service: pooled for one workload, single times the mixture factor where work is shared."""
    field, asked, block = priced.field, priced.asked, priced.found.pools[p]
    c, u = block.candidate, field.load
    if block.workloads[0] >= asked.steady:
        return sum(n / field.alone_per_hour(c, work) * u for n, work in zip(done, asked.idle, strict=True) if n) / in_service
    flows = priced.found.carried(p)[:, t : t + 1]
    if not flows.any() and not any(done):
        return 0.0
    if len(block.workloads) > 1 or any(n > 0 for n in done):
        beside = sum(n / field.beside_per_hour(block, work) for n, work in zip(done, asked.idle, strict=True) if n)
        return float(field.shared_load(c, block.workloads, flows)[0] + beside) * u / in_service
    w = block.workloads[0]
    able = pool_capacity(field.single[c, w], field.saturated[c, w], in_service) if field.pooled else field.single[c, w]
    return float(flows[0, 0] / able / in_service)


def _deployment(alone: Deployment, t: int, i: int, periods: Sequence[Period], bought: Sequence[Purchase], is_steady: bool) -> Deployment:
    """A deployment in its busiest period, on the instances that it really stands on."""
    hosts = periods[t].deployments[i].hosts
    usd = sum(bought[h.purchase].usd_per_hour / bought[h.purchase].gpus_held * alone.gpus_per_replica * h.replicas for h in hosts)
    seen = {} if is_steady else {"in_flight_per_replica": None, "service": ()}
    return alone.model_copy(update={"hosts": hosts, "usd_per_hour": usd, "busiest": t, **seen})


def _workload(i: int, priced: _Priced, parts: Sequence[Plan], surveyed: Survey) -> PlanWorkload:
    """One workload of the scenario, i-th in the question's order."""
    asked = priced.asked
    w = asked.scenario.workload[asked.order[i]]
    told: dict[str, Any] = {"min_quality": w.min_quality, "burst_factor": w.burst_factor}
    if i >= asked.steady:
        return _waiting(w, [np.array(priced.done(i - asked.steady, p)) / 3600 for p in priced.order], told)
    told |= {"demand": PlanDemand(kind=w.rate_field, value=w.rate), "unit_costs": None, "rates": tuple((asked.rates[i] / w.burst_factor).tolist())}
    d = next((d for d, p in enumerate(priced.order) if priced.is_steady(p) and i in priced.found.pools[p].workloads), None)
    if d is None:
        told |= _served([a.offer.eligible for a in priced.found.apis if a.offer.workload == i], i, priced)
        return _elsewhere(w, told, float(asked.rates[i].mean()) / w.burst_factor)
    alone, share = next((x for x in parts[d].workloads if x.name == w.name), None), 1 - priced.at_apis(i)
    if alone is not None:
        told["routing"] = (alone.routing[0].model_copy(update={"deployment": d, "share": share}),)
        return alone.model_copy(update=told)
    eligible = surveyed.eligible[priced.field.formulation.candidates[priced.found.pools[priced.order[d]].candidate].eligible]
    route = Route(deployment=d, share=share, qps=0.0, tokens_per_stated=eligible.tokens[i])
    return _elsewhere(w, told | _served([eligible], i, priced) | {"concurrency": 0.0}, 0.0, (route,))


def _served(eligible: Sequence[Eligible], i: int, priced: _Priced) -> dict[str, float | None]:
    """The least and the mean score of what serves a workload: its deployment, or APIs alone by their shares."""
    known = [counted(q, priced.asked.scenario.policy) for e in eligible if (q := e.quality[i])]
    shares = [h.share for h, a in zip(priced.hosted, priced.found.apis, strict=True) if a.offer.workload == i] if len(known) > 1 else [1.0]
    if not known or len(known) < len(eligible):
        return {}
    return {"min_quality_served": min(known), "mean_quality_served": sum(q * s for q, s in zip(known, shares, strict=True)) / sum(shares)}


def _elsewhere(w: Workload, told: dict[str, Any], qps: float, routing: tuple[Route, ...] = ()) -> PlanWorkload:
    """A workload of which nothing is on a deployment, at any hour or in that one's busiest: how it is served then is not known."""
    lengths = {"input_tokens": w.input_tokens, "output_tokens": w.output_tokens}
    return PlanWorkload.model_validate({"name": w.name, "concurrency": None, "qps": qps, "slo": limits_in_words(w), "routing": routing, **lengths, **told})


def _waiting(w: Workload, done: Sequence[Floats], told: dict[str, Any]) -> PlanWorkload:
    """Requests that may wait: by deployment what is done of them each hour, per second."""
    rates, total = np.sum(done, axis=0), float(np.sum(done))
    return PlanWorkload(
        name=w.name,
        demand=PlanDemand(kind="requests_per_day", value=w.requests_per_day or 0.0),
        qps=float(rates.max()),
        concurrency=None,
        input_tokens=w.input_tokens,
        output_tokens=w.output_tokens,
        slo=limits_in_words(w),
        routing=tuple(Route(deployment=d, share=float(many.sum()) / total, qps=float(many.max())) for d, many in enumerate(done) if many.any()),
        is_waiting=True,
        rates=tuple(rates.tolist()),
        **told,
    )


def _in_words(found: Answer) -> str:
    columns, rates = found.formulation.problem.columns, [d.rate for d in found.formulation.problem.demands]

    def one(c: ChosenPool) -> str:
        column = columns[c.pool.column]
        if not column.is_hosted:
            return f"{c.total} x {column.name}"
        return f"{100 * sum(q / rates[w] for w, q in c.traffic.items()):.3g}% of {found.formulation.problem.demands[c.pool.workloads[0]].name} at {column.name}"

    return " + ".join(one(c) for c in found.solution.pools)
