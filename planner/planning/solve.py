"""The public solve: one scenario, one catalogue, one plan. Everything else that needs a plan calls this."""

from __future__ import annotations

from collections.abc import Sequence

from planner.candidates.eligibility import counted
from planner.candidates.points import Points
from planner.candidates.survey import Survey
from planner.catalog.catalog import Catalog
from planner.catalog.load import load_catalog
from planner.deadline import Deadline
from planner.errors import SolverError, TimeUp
from planner.performance.coefficients import TIERS
from planner.plan import Plan, PlanDemand, PlanWorkload, Route, SloLimit, SolverReport
from planner.planning import cautions, remarks
from planner.planning.alternatives import alternatives, near_ties, neighbourhood
from planner.planning.answer import Answer
from planner.planning.apart import in_words, kept_apart
from planner.planning.bridge import bridge
from planner.planning.deploy import Chosen, chosen_pools, deployment, predicted, purchases, slowest, work_on
from planner.planning.infeasible import Infeasible, demands_in_words, explain
from planner.planning.known import Known
from planner.planning.maximize import largest
from planner.planning.money import cost_of, hosted_apis, split_by_work
from planner.planning.posed import posed
from planner.planning.prudent import posture
from planner.planning.spread import spread_costs
from planner.planning.version import planner_version
from planner.program.solver import version as highs_version
from planner.scenario.profiles import HELD
from planner.scenario.records import Scenario
from planner.scenario.sources import Origins

SETTLING = 0.75  # of the time limit, for the rate of users who wait for answers; the rest is for the plan itself
ANSWER = 0.75  # of the time limit, for the plan where it is also compared with others


def solve(
    scenario: Scenario,
    catalog: Catalog | None = None,
    *,
    compare: bool = True,
    origins: Origins | None = None,
    known: Known | None = None,
    deadline: Deadline | None = None,
) -> Plan:
    """The cheapest plan that meets all of the scenario, checked independently before it is returned.

    The scenario's time limit bounds the whole answer, comparisons and explanations included, from here or to the deadline given.

    compare: also solve the alternatives. known: candidates kept from questions like this one (of the same catalogue); an infeasible
    question is then not explained. origins: where the scenario's values came from ("workload.0.qps" -> "flag").
    Raises Infeasible when nothing meets all demands (with the smallest changes that would), CatalogError and ScenarioError
    for unusable input, SolverError when no plan was found in time or a plan fails its check.
    """
    deadline = deadline or Deadline.after(scenario.solver.time_limit)
    if scenario.tables.capacities:
        from planner.planning.tables import solve_tables

        return solve_tables(scenario, origins or {}, deadline)
    catalog, unsearched = catalog or load_catalog(scenario.catalog), list[str]()
    here = known or Known(catalog)
    if any(w.route_by for w in scenario.workload):
        from planner.demand.routing import routed

        return routed(scenario, origins or {}, lambda asked, came: solve(asked, catalog, compare=compare, origins=came, known=known, deadline=deadline))
    if any(w.demand and w.demand.is_open for w in scenario.workload):
        from planner.demand.users import settled

        settling = deadline.share(SETTLING)

        def at(asked: Scenario) -> tuple[PlanWorkload, ...]:
            found = () if asked.objective.maximize else _served(asked, here, settling)
            return found or solve(asked, catalog, compare=False, known=known, deadline=settling).workloads

        scenario = settled(scenario, at)
        unsearched += ["the rate of users was not settled within the time limit: it is rather too high (raise --time-limit)"] if settling.passed() else []
    waiting = [w.name for w in scenario.workload if w.requests_per_day is not None]
    is_stated = scenario.policy.evidence != TIERS[-1]
    scenario, points = posed(scenario, here, deadline)
    asked = scenario
    while True:
        if asked.objective.maximize:
            scenario, unproven = largest(points, asked)
            unsearched += [u for u in unproven if u not in unsearched]
            points = points.asked(scenario, points.survey.offers)
        found, settled_points = kept_apart(points.until(deadline.share(ANSWER)) if compare else points, scenario)
        points, known_apart = settled_points.until(deadline), points.apart
        if found.found or not asked.objective.maximize or points.apart == known_apart:  # what is kept apart may carry less
            break
    if not found.found:
        if found.solution.status == "unknown":
            raise TimeUp()
        raise Infeasible(f"{demands_in_words(scenario)} cannot all be met", (), found.market.excluded) if known else explain(points, scenario, found)
    plan = cut_short(assemble(found, points.survey, origins or {}), found, unsearched)
    if compare:
        plan = plan.model_copy(update=_comparison(found, points, plan))
    told = {
        "notes": (*([HELD] if waiting else []), *posture(scenario, is_stated), *in_words(points.apart, scenario), *plan.notes),
        "warnings": (*cautions.queueing(plan, waiting), *plan.warnings),
    }
    plan = plan.model_copy(update=told)
    return verified(plan, catalog)


def _served(scenario: Scenario, known: Known, deadline: Deadline) -> tuple[PlanWorkload, ...]:
    """The workloads of the cheapest plan, undescribed else; none where there is no plan."""
    asked, points = posed(scenario, known, deadline)
    found, points = kept_apart(points, asked)
    return _workloads(asked, chosen_pools(found, points.survey), points.survey) if found.found else ()


def cut_short(plan: Plan, found: Answer, unsearched: Sequence[str]) -> Plan:
    """The plan, saying what the time limit left unsearched: then it is not proven to be the best."""
    late = [] if found.solution.status == "optimal" else [cautions.unproven(found)]
    status = "feasible" if unsearched else plan.status
    return plan.model_copy(update={"status": status, "warnings": (*unsearched, *late, *plan.warnings)})


def verified(plan: Plan, catalog: Catalog | None) -> Plan:
    """The plan, if the independent check agrees. Raises SolverError otherwise."""
    from planner.check.check import check_plan

    report = check_plan(plan, catalog)
    if not report.ok:
        worst = report.breaches[0]
        raise SolverError(f"the plan fails its own check: {worst.name}, {worst.where}: {worst.what}", hint="please report this with the scenario")
    return plan


def _comparison(found: Answer, points: Points, plan: Plan) -> dict[str, object]:
    """Alternatives, and what they teach about the plan."""
    prudent, (options, notes) = bridge(found, points), alternatives(found, points, plan)
    spread = spread_costs(points, found.market.scenario, plan.cost.usd_per_hour)
    warnings = (*plan.warnings, *near_ties(options), *neighbourhood(found, points, plan), *spread)
    return {"prudent": prudent, "alternatives": options, "notes": notes, "warnings": warnings}


def assemble(found: Answer, surveyed: Survey, origins: Origins) -> Plan:
    """The plan of an answer, without alternatives."""
    scenario, solution = found.market.scenario, found.solution
    chosen = chosen_pools(found, surveyed)
    bought, place = purchases(found)
    deployments = tuple(deployment(c, found, surveyed, place, bought) for c in chosen)
    workloads = _workloads(scenario, chosen, surveyed)
    deployments = tuple(d.model_copy(update={"in_flight_per_replica": _in_flight(i, d.replicas, workloads)}) for i, d in enumerate(deployments))
    traffic = [(w.qps, a.input_tokens, a.output_tokens) for w, a in zip(workloads, scenario.workload, strict=True)]
    cost = cost_of(bought, sum(d.usd_per_hour for d in deployments), traffic)
    work = {(i, w): work_on(c, surveyed, w, deployments[i]) for i, c in enumerate(chosen) for w in c.pool.traffic}
    workloads, unit_costs = split_by_work(deployments, workloads, scenario.workload, work, cost.usd_per_hour)
    apis = hosted_apis(surveyed.catalog, deployments, workloads, scenario.workload)
    used, held = sum(d.gpus for d in deployments), sum(p.gpus_held for p in bought)
    excluded = surveyed.excluded + found.market.excluded
    return Plan(
        planner_version=planner_version(),
        catalog_hash=surveyed.catalog.hash,
        scenario={**scenario.model_dump(mode="json"), "origins": dict(sorted(origins.items()))},
        status="optimal" if solution.status == "optimal" else "feasible",
        gap=solution.gap,
        bound_usd_per_hour=solution.bound,
        objective=scenario.objective.maximize or "cost",
        supply=remarks.supply_line(scenario),
        cost=cost,
        unit_costs=unit_costs,
        gpus_used=used,
        gpus_held=held,
        purchases=tuple(bought),
        deployments=deployments,
        workloads=workloads,
        headroom=remarks.headroom(found, chosen, deployments, used, held),
        defaults=remarks.defaults(scenario, origins),
        api=apis,
        binding=remarks.binding(scenario, deployments, cost.usd_per_hour, bought),
        warnings=cautions.warnings(surveyed, chosen, deployments, bought, apis, cost.usd_per_hour),
        excluded=dict(sorted(excluded.items())),
        solver=SolverReport(
            version=highs_version(),
            candidates=int(sum(surveyed.excluded.values()) + len(surveyed.replicas)),
            candidates_after_pruning=len(found.market.problem.columns),
            variables=solution.variables,
            constraints=solution.constraints,
            locations=found.locations,
            locations_solved=found.solved,
        ),
    )


def _workloads(scenario: Scenario, chosen: Sequence[Chosen], surveyed: Survey) -> tuple[PlanWorkload, ...]:
    found = []
    for w, asked in enumerate(scenario.workload):
        serving = [(i, c) for i, c in enumerate(chosen) if w in c.pool.traffic]
        qps = sum(c.qps(w) for _, c in serving)
        flow = sum(c.pool.traffic[w] for _, c in serving)  # of peaks, like the predicted service
        scores = [(c.eligible.quality[w], c.pool.traffic[w]) for _, c in serving]  # the mean counts requests, or requests in flight, as demand does
        known = [(counted(q, scenario.policy), r) for q, r in scores if q is not None]
        service = slowest([predicted(c, surveyed, w) for _, c in serving])
        found.append(
            PlanWorkload(
                name=asked.name,
                demand=PlanDemand(kind="qps" if asked.qps is not None else "concurrency", value=asked.rate),
                qps=qps,
                concurrency=asked.concurrency if asked.concurrency is not None else qps * service.e2e_ms.mean / 1e3,
                burst_factor=asked.burst_factor,
                input_tokens=asked.input_tokens,
                output_tokens=asked.output_tokens,
                slo=tuple(SloLimit(metric=k.split("_p")[0], limit_ms=v * 1e3, percentile=float(k.split("_p")[1])) for k, v in asked.slo.items()),
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
    flows = [r.share * (w.concurrency or 0) for w in workloads for r in w.routing if r.deployment == i]
    return sum(flows) / replicas
