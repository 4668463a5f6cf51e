"""An hourly plan written down: hours, deployments and what is bought, from the counts of a search."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from planner.candidates.pooling import pool_capacity
from planner.candidates.survey import Survey
from planner.catalog.records import Offer
from planner.result import cautions, remarks
from planner.result.assemble import assemble
from planner.result.hourly import Hour, HourlyCount, HourlyOffer, HourlyPlan, HourlyWorkload
from planner.result.plan import HostedOn, Plan
from planner.scenario.profiles import DAY
from planner.scenario.records import Scenario
from planner.scenario.sources import Origins
from planner.search.answer import Answer
from planner.search.hours import GAP, HourlyQuestion, PricedStructure, busiest
from planner.search.structures import Block, StructureSpace
from planner.version import planner_version

WEEK = 7 * DAY
ASSUMPTIONS = (
    "Instances are paid by the hour held, on demand, and started and returned at full hours; what they take to start is paid in addition.",
    "The hours repeat: after the last comes the first. The same candidates serve in every hour, one deployment per workload or group of workloads.",
)
BESIDE = (
    "Waiting requests run beside others at lower priority (vLLM: --scheduling-policy priority; SGLang: --enable-priority-scheduling), "
    "within the strictest limits on TPOT and ITL of any workload."
)


def assemble_hours(
    found: PricedStructure, field: StructureSpace, asked: HourlyQuestion, surveyed: Survey, baseline: Sequence[Answer], origins: Origins
) -> HourlyPlan:
    """The plan of a search."""
    scenario, solution, whole = asked.scenario, found.solution, field.formulation
    used = [p for p in range(len(found.pools)) if any(solution.replicas[p])]
    order = sorted(used, key=lambda p: -sum(sum(h.values()) for h in solution.replicas[p]) * whole.problem.columns[found.pools[p].candidate].gpus)
    held = sorted({o for h in solution.held for o in h})
    place = {o: i for i, o in enumerate(held)}
    price = [whole.offers[found.offers[o]].usd_per_hour for o in held]
    lead = scenario.policy.startup_lead / 3600
    periods = tuple(_hour(t, found, field, asked, order, place, price, lead) for t in range(asked.hours))
    usd = sum(h.usd for h in periods)
    flat_cost = sum(a.cost for a in baseline) if baseline else None
    plans = tuple(_alone(p, found, field, asked, surveyed, origins) for p in order)
    bound, waiting = min(found.bound, usd), [w.name for w in scenario.workload if w.requests_per_day is not None]
    gap = (usd - bound) / usd if usd else 0.0
    return HourlyPlan(
        planner_version=planner_version(),
        catalog_hash=surveyed.catalog.hash,
        scenario=scenario,
        origins=dict(sorted(origins.items())),
        status="optimal" if gap <= max(GAP, scenario.solver.gap) + 1e-9 else "feasible",
        gap=gap,
        bound_usd=bound,
        hours=asked.hours,
        usd=usd,
        startup_usd=lead * sum(c * n for h in periods for c, n in zip(price, h.started, strict=True)),
        usd_per_day=usd * DAY / asked.hours,
        usd_per_week=usd * WEEK / asked.hours,
        flat_usd_per_hour=flat_cost,
        flat=" + ".join(_in_words(a) for a in baseline) or "no flat plan within the limits",
        saving=None if flat_cost is None else 1 - usd / asked.hours / flat_cost,
        offers=tuple(_offer(whole.offers[found.offers[o]], max(h.get(o, 0) for h in solution.held)) for o in held),
        workloads=tuple(_workload(asked, i, found, order) for i in np.argsort(asked.order)),
        periods=periods,
        plans=plans,
        structures=found.solved,
        defaults=remarks.defaults(scenario, origins),
        assumptions=(*ASSUMPTIONS, *((BESIDE,) if asked.idle and asked.steady else ())),
        warnings=tuple(dict.fromkeys(w for p in plans for w in (*cautions.queueing(p, waiting), *p.warnings))),
        notes=_notes(scenario),
    )


def _notes(scenario: Scenario) -> tuple[str, ...]:
    p, notes = scenario.policy, []
    if p.max_locations > 1:
        notes.append("all is bought at one location, though more are allowed")
    if p.mix or p.max_pools not in (None, 1):
        notes.append("one deployment serves a workload, though more are allowed")
    return tuple(notes)


def _hour(
    t: int,
    found: PricedStructure,
    field: StructureSpace,
    asked: HourlyQuestion,
    order: Sequence[int],
    place: dict[int, int],
    price: Sequence[float],
    lead: float,
) -> Hour:
    s, policy = found.solution, asked.scenario.policy
    counts = []
    for p in order:
        replicas, block = sum(s.replicas[p][t].values()), found.pools[p]
        done = tuple(s.done[k, p][t] if (k, p) in s.done else 0.0 for k in range(len(asked.idle)))
        in_service = replicas - policy.spare_replicas if p < len(found.structure.blocks) else replicas
        counts.append(
            HourlyCount(
                replicas=replicas,
                hosts=tuple(HostedOn(purchase=place[o], replicas=n) for o, n in sorted(s.replicas[p][t].items())),
                slo_load=_load(field, asked, block, t, in_service, done) if replicas else 0.0,
                waiting_requests=done,
            )
        )
    held, started = (tuple(many[t].get(o, 0) for o in place) for many in (s.held, s.started))
    gpus = sum(field.formulation.offers[found.offers[o]].gpus_per_instance * n for o, n in zip(place, held, strict=True))
    usd = sum(c * (n + lead * m) for c, n, m in zip(price, held, started, strict=True))
    return Hour(hour=t, deployments=tuple(counts), instances=held, started=started, gpus_held=gpus, usd=usd)


def _load(field: StructureSpace, asked: HourlyQuestion, block: Block, t: int, in_service: int, done: Sequence[float]) -> float:
    """Work over capacity of the replicas in service: pooled for one workload, single times the mixture factor where work is shared."""
    c, u = block.candidate, field.load
    if block.workloads[0] >= asked.steady:
        return sum(n / field.alone_per_hour(c, work) * u for n, work in zip(done, asked.idle, strict=True) if n) / in_service
    if len(block.workloads) > 1 or any(n > 0 for n in done):
        beside = sum(n / field.beside_per_hour(block, work) for n, work in zip(done, asked.idle, strict=True) if n)
        return float(field.shared_load(c, block.workloads)[t] + beside) * u / in_service
    w = block.workloads[0]
    able = pool_capacity(field.single[c, w], field.saturated[c, w], in_service) if field.pooled else field.single[c, w]
    return float(asked.rates[w, t] / able / in_service)


def _workload(asked: HourlyQuestion, i: int, found: PricedStructure, order: Sequence[int]) -> HourlyWorkload:
    """One workload of the scenario, i-th in the question's order."""
    w = asked.scenario.workload[asked.order[i]]
    if i < asked.steady:
        rates = asked.rates[i] / w.burst_factor
        serving = [order.index(p) for p in order if p < len(found.structure.blocks) and i in found.pools[p].workloads]
    else:
        k = i - asked.steady
        rates = np.sum([done for (j, _), done in found.solution.done.items() if j == k], axis=0) / 3600
        serving = [order.index(p) for p in order if (k, p) in found.solution.done and sum(found.solution.done[k, p]) > 0]
    return HourlyWorkload(
        name=w.name,
        unit="concurrency" if w.concurrency is not None else "qps",
        is_waiting=i >= asked.steady,
        mean=float(np.mean(rates)),
        peak=float(np.max(rates)),
        burst_factor=w.burst_factor,
        deployments=tuple(sorted(serving)),
        rates=tuple(float(r) for r in rates),
    )


def _offer(offer: Offer, most: int) -> HourlyOffer:
    return HourlyOffer(
        provider=offer.provider, region=offer.region, instance_type=offer.instance_type, basis=offer.basis, purchase=offer.purchase, gpu=offer.gpu,
        gpus_per_instance=offer.gpus_per_instance, usd_per_hour=offer.usd_per_hour, most_instances=most, source=offer.source, as_of=offer.stated_as_of,
    )  # fmt: skip


def _in_words(found: Answer) -> str:
    columns = found.formulation.problem.columns
    return " + ".join(f"{c.total} x {columns[c.pool.column].name}" for c in found.solution.pools)


def _alone(p: int, found: PricedStructure, field: StructureSpace, asked: HourlyQuestion, surveyed: Survey, origins: Origins) -> Plan:
    """One deployment in its busiest hour, as a plan that all the usual checks apply to: command, memory, quality, predicted service."""
    answered, part = busiest(p, found, field, asked, surveyed)
    return assemble(answered, part, origins)
