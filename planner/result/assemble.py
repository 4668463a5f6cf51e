"""The plan of an answer: everything it says of demand, deployments, purchases and cost, without what it is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from planner.candidates.columns import Formulation
from planner.candidates.eligibility import counted
from planner.candidates.survey import Survey
from planner.program.problem import Solution, Status
from planner.program.solver import version as highs_version
from planner.result import cautions, remarks
from planner.result.changes import changes_of, scattered
from planner.result.deploy import deployment, limits_in_words, purchases, work_on
from planner.result.hosted import hosted_shares, parts_of, unknown_service
from planner.result.plan import Deployment, Period, Plan, PlanDemand, PlanWorkload, Purchase, Route, SolverReport
from planner.result.power import Holding, power_of
from planner.result.redundancy import Standing, redundancy, spot_risks
from planner.result.service import Seen, described, predicted, seen_by, slowest, stated
from planner.result.unit_costs import cost_of, hosted_apis, split_by_work
from planner.scenario.records import Scenario
from planner.scenario.sources import Origins
from planner.search.answer import Answer
from planner.search.chosen import Chosen, ChosenApi, chosen_apis, chosen_pools, slo_load
from planner.version import planner_version


def assemble(found: Answer, surveyed: Survey, origins: Origins) -> Plan:
    """The plan of an answer, without alternatives."""
    scenario, solution = found.formulation.scenario, found.solution
    chosen = chosen_pools(found, surveyed)
    bought, place = purchases(found)
    deployments, seen = tuple(deployment(c, found, surveyed, place, bought) for c in chosen), [seen_by(c, surveyed) for c in chosen]
    apis = chosen_apis(found)
    workloads = workloads_of(scenario, chosen, surveyed, seen, apis)
    deployments = tuple(
        d.model_copy(
            update={
                "in_flight_per_replica": _in_flight(i, d.replicas, workloads),
                "service": tuple(described(scenario.workload[w].name, one) for w, one in seen[i].items()),
            }
        )
        for i, d in enumerate(deployments)
    )
    traffic = [(w.qps, a.input_tokens, a.output_tokens) for w, a in zip(workloads, scenario.workload, strict=True)]
    hosted, paid = hosted_shares(apis, scenario), [(a.offer.workload, parts_of(a, scenario)) for a in apis]
    cost = cost_of(bought, sum(d.usd_per_hour for d in deployments), traffic, sum(h.usd_per_hour for h in hosted))
    work = {(i, w): work_on(c, surveyed, w, deployments[i]) for i, c in enumerate(chosen) for w in c.pool.traffic}
    workloads, unit_costs = split_by_work(deployments, workloads, scenario.workload, work, cost.usd_per_hour - cost.api_usd_per_hour, paid)
    compared = hosted_apis(surveyed.catalog, deployments, workloads, scenario.workload)
    problem, standing = found.formulation.problem, [_standing(i, c, scenario, deployments[i]) for i, c in enumerate(chosen)]
    used, held = sum(d.gpus for d in deployments), sum(p.gpus_held for p in bought)
    holdings = [Holding(found.formulation.offers[o], (solution.held[o],), solution.held[o]) for o in place]
    return whole_plan(
        scenario,
        origins,
        surveyed.catalog.hash,
        is_proven=solution.status == Status.OPTIMAL,
        gap=solution.gap,
        bound_usd_per_hour=solution.bound,
        supply=remarks.supply_line(scenario),
        cost=cost,
        power=power_of(holdings, scenario, surveyed.catalog, () if hosted else traffic) if bought else None,  # of what APIs draw nobody knows
        unit_costs=unit_costs,
        purchases=tuple(bought),
        changes=changes_of(found, surveyed, tuple(bought)),
        deployments=deployments,
        workloads=workloads,
        hosted=hosted,
        headroom=remarks.headroom(found, chosen, deployments, used, held) if deployments else (),
        defaults=remarks.defaults(scenario, origins),
        api=compared,
        redundancy=redundancy(scenario, problem, found.formulation.offers, standing),
        spot=spot_risks(problem, place, bought, standing, surveyed.catalog),
        binding=remarks.binding(scenario, deployments, _counted(found, cost.api_usd_per_hour), bought),
        warnings=(*scattered(found), *unknown_service(hosted), *cautions.warnings(surveyed, chosen, deployments, bought, compared, cost.usd_per_hour)),
        notes=remarks.left_out(found.formulation),
        excluded=surveyed.excluded + found.formulation.excluded,
        solver=search_report(surveyed, found.formulation, found.locations, found.solved, solution),
    )


def _standing(i: int, c: Chosen, scenario: Scenario, d: Deployment) -> Standing:
    return Standing(i, d.gpus_per_replica, c.pool.replicas, lambda left: slo_load(c, scenario, left), lambda left: slo_load(c, scenario, left, after_loss=True))


def _counted(found: Answer, api_usd_per_hour: float) -> dict[str, float]:
    """What counts towards each cap, by its name."""
    problem = found.formulation.problem
    held = {c.name: c.held(problem.offers, found.solution.held) for c in problem.rules.caps}
    return {c.name: held[c.name] + (api_usd_per_hour if c.is_money else 0.0) for c in problem.rules.caps}


def whole_plan(
    scenario: Scenario, origins: Origins, catalog_hash: str, *, is_proven: bool, purchases: Sequence[Purchase], deployments: Sequence[Deployment],
    periods: Sequence[Period] = (), excluded: Mapping[str, int] | None = None, **told: Any,
) -> Plan:  # fmt: skip
    """A plan of any kind: what it answers and who says so, whether it is proven, and the most GPUs used and held at once."""
    kind: Literal["flat", "hourly", "own"] = "own" if scenario.tables.capacities else "hourly" if periods else "flat"
    each = [d.gpus_per_replica for d in deployments]
    counts = [[c.replicas for c in p.deployments] for p in periods] or [[d.replicas for d in deployments]]
    return Plan(
        planner_version=planner_version(),
        catalog_hash=catalog_hash,
        kind=kind,
        scenario=scenario,
        origins=dict(sorted(origins.items())),
        status="optimal" if is_proven else "feasible",
        objective=scenario.objective.maximize or "cost",
        gpus_used=max(sum(n * g for n, g in zip(many, each, strict=True)) for many in counts),
        gpus_held=max((p.gpus_held for p in periods), default=sum(p.gpus_held for p in purchases)),
        purchases=tuple(purchases),
        deployments=tuple(deployments),
        periods=tuple(periods),
        excluded=dict(sorted((excluded or {}).items())),
        **told,
    )


def search_report(
    surveyed: Survey, formulation: Formulation, locations: int, solved: int, solution: Solution | None = None, structures: int | None = None
) -> SolverReport:
    """What was looked at, and what of it was solved: one program (``solution``), or one for each of many structures."""
    return SolverReport(
        version=highs_version(),
        candidates=int(sum(surveyed.excluded.values()) + len(surveyed.replicas)),
        candidates_after_pruning=len(formulation.problem.columns),
        variables=solution.variables if solution else None,
        constraints=solution.constraints if solution else None,
        locations=locations,
        locations_solved=solved,
        structures=structures,
    )


def workloads_of(
    scenario: Scenario, chosen: Sequence[Chosen], surveyed: Survey, seen: Sequence[Mapping[int, Seen]] = (), apis: Sequence[ChosenApi] = ()
) -> tuple[PlanWorkload, ...]:
    """What each workload gets of the chosen pools and APIs: rate, quality, routing and service; ``seen``: what is known of that, pool by pool."""
    found = []
    for w, asked in enumerate(scenario.workload):
        serving, elsewhere = [(i, c) for i, c in enumerate(chosen) if w in c.pool.traffic], [a for a in apis if a.offer.workload == w]
        bought = sum(a.share for a in elsewhere)
        qps = sum(c.qps(w) for _, c in serving) + bought * asked.rate
        flow = sum(c.pool.traffic[w] for _, c in serving) + bought * asked.peak  # of peaks, like the predicted service
        scores = [(c.eligible.quality[w], c.pool.traffic[w]) for _, c in serving]  # the mean counts requests, or requests in flight, as demand does
        scores += [(a.offer.eligible.quality[w], a.share * asked.peak) for a in elsewhere]
        known = [(counted(q, scenario.policy), r) for q, r in scores if q is not None]
        service = slowest([stated(seen[i][w].now) if seen else predicted(c, surveyed, w) for i, c in serving]) if serving else None
        found.append(
            PlanWorkload(
                name=asked.name,
                demand=PlanDemand(kind=asked.rate_field, value=asked.rate),
                qps=qps,
                concurrency=asked.concurrency if asked.is_closed else (1 - bought) * qps * service.e2e_ms.mean / 1e3 if service else None,
                burst_factor=asked.burst_factor,
                input_tokens=asked.input_tokens,
                output_tokens=asked.output_tokens,
                slo=limits_in_words(asked),
                min_quality=asked.min_quality,
                min_quality_served=min(s for s, _ in known) if len(known) == len(scores) else None,
                mean_quality_served=sum(s * r for s, r in known) / sum(r for _, r in known) if len(known) == len(scores) else None,
                routing=tuple(Route(deployment=i, share=c.pool.traffic[w] / flow, qps=c.qps(w), tokens_per_stated=c.eligible.tokens[w]) for i, c in serving),
                predicted=service,
            )
        )
    return tuple(found)


def _in_flight(i: int, replicas: int, workloads: Sequence[PlanWorkload]) -> float:
    """Requests in flight per replica of a deployment, by Little's law."""
    flows = [r.share / sum(x.share for x in w.routing) * (w.concurrency or 0) for w in workloads for r in w.routing if r.deployment == i]
    return sum(flows) / replicas
