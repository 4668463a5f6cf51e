"""The public solve: one scenario, one catalogue, one plan. Everything else that needs a plan calls this."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import inf

from planner.candidates.points import Points
from planner.catalog.catalog import Catalog
from planner.catalog.load import load_catalog
from planner.deadline import Deadline
from planner.errors import TimeUp
from planner.performance.coefficients import TIERS
from planner.planning.alternatives import alternatives, near_ties, neighbourhood, on_gpus_alone
from planner.planning.bridge import bridge
from planner.planning.infeasible import Infeasible, demands_in_words, explain
from planner.planning.spread import spread_costs
from planner.planning.verified import cut_short, verified
from planner.program.problem import Status
from planner.result import cautions
from planner.result.assemble import assemble, workloads_of
from planner.result.plan import Plan, PlanWorkload
from planner.result.redundancy import compared
from planner.scenario.change import without_apis
from planner.scenario.profiles import HELD
from planner.scenario.records import Scenario
from planner.scenario.sources import Origins
from planner.search.answer import Answer
from planner.search.apart import in_words, kept_apart
from planner.search.chosen import chosen_pools
from planner.search.maximize import largest
from planner.search.posed import posed
from planner.search.prudent import posture
from planner.search.survey_cache import SurveyCache

NOW = "this plan is for the traffic stated, now; the outlook counts in plan contract"
SETTLING = 0.75  # of the time limit, for the rate of users who wait for answers; the rest is for the plan itself
SEARCHING = 0.5  # of the time limit, for the length at which a router splits requests
REACHING = 0.5  # of the time left, for what one way to be near and far costs at least
ANSWER = 0.75  # of the time limit, for the plan where it is also compared with others


def solve(
    scenario: Scenario,
    catalog: Catalog | None = None,
    *,
    compare: bool = True,
    origins: Origins | None = None,
    cache: SurveyCache | None = None,
    deadline: Deadline | None = None,
    is_short: bool = False,
) -> Plan:
    """The cheapest plan that meets all of the scenario, checked independently before it is returned.

    The scenario's time limit bounds the whole answer, comparisons and explanations included, from here or to the deadline given.

    is_short: what --shed leaves of the demand is asked already.
    compare: also solve the alternatives. cache: candidates kept from questions like this one (of the same catalogue); an infeasible
    question is then not explained. origins: where the scenario's values came from ("workload.0.qps" -> "flag").
    Raises Infeasible when nothing meets all demands (with the smallest changes that would), CatalogError and ScenarioError
    for unusable input, SolverError when no plan was found in time or a plan fails its check.
    """
    deadline = deadline or Deadline.after(scenario.solver.time_limit)
    if scenario.tables.capacities:
        from planner.planning.tables import solve_tables

        return solve_tables(scenario, origins or {}, deadline)
    catalog, unsearched = catalog or load_catalog(scenario.catalog), list[str]()
    here = cache or SurveyCache(catalog)

    def again(asked: Scenario, came: Origins, is_short: bool = False) -> Plan:
        return solve(asked, catalog, compare=compare, origins=came, cache=cache, deadline=deadline, is_short=is_short)

    if plan := _asked_otherwise(scenario, origins or {}, here, deadline, again, is_short):
        return plan
    if any(w.demand and w.demand.is_open for w in scenario.workload):
        scenario, unsearched = _settled(scenario, here, cache, deadline.share(SETTLING))
    waiting = [w.name for w in scenario.workload if w.is_waiting]
    is_stated = scenario.policy.evidence != TIERS[-1]
    asked, points = posed(scenario, here, deadline)
    scenario, points, found, unproven = _searched(asked, points, deadline.share(ANSWER) if compare else deadline, deadline)
    if not found.found:
        if found.solution.status == Status.UNKNOWN:
            raise TimeUp()
        raise Infeasible(f"{demands_in_words(scenario)} cannot all be met", (), found.formulation.excluded) if cache else explain(points, scenario, found)
    plan = cut_short(assemble(found, points.survey, origins or {}), found, [*unsearched, *unproven])
    if compare and plan.changes:
        from planner.planning.today import beside_today

        plan = plan.model_copy(update=beside_today(points, plan))
    elif compare:
        plan = plan.model_copy(update=_comparison(found, points, plan))
    supposed = [*([HELD] if waiting else []), *([NOW] if scenario.outlook else []), *cautions.with_adapters(scenario.policy)]
    plan = plan.noted(*supposed, *posture(scenario, is_stated), *in_words(points.apart, scenario))
    return verified(plan.model_copy(update={"warnings": (*cautions.queueing(plan, waiting), *plan.warnings)}), catalog)


def _settled(scenario: Scenario, here: SurveyCache, cache: SurveyCache | None, deadline: Deadline) -> tuple[Scenario, list[str]]:
    """The scenario with the rate of users who wait for answers settled; and what the time left out, in words."""
    from planner.planning.users import settled

    def at(asked: Scenario) -> tuple[PlanWorkload, ...]:
        found = () if asked.objective.maximize else _served(asked, here, deadline)
        return found or solve(asked, here.catalog, compare=False, cache=cache, deadline=deadline).workloads

    found = settled(scenario, at)
    return found, [cautions.UNSETTLED] if deadline.passed() else []


def _searched(asked: Scenario, points: Points, until: Deadline, deadline: Deadline) -> tuple[Scenario, Points, Answer, list[str]]:
    """(the scenario at the most that it asks for, its points, the cheapest answer by ``until``, what is unproven of the most, in words)."""
    unproven = list[str]()
    while True:
        scenario = asked
        if asked.objective.maximize:
            scenario, more = largest(points, asked)
            unproven += [u for u in more if u not in unproven]
            points = points.asked(scenario, points.survey.offers)
        found, settled_points = kept_apart(points.until(until), scenario)
        known_apart, points = points.apart, settled_points.until(deadline)
        if found.found or not asked.objective.maximize or points.apart == known_apart:  # what is kept apart may carry less
            return scenario, points, found, unproven


def _asked_otherwise(scenario: Scenario, origins: Origins, cache: SurveyCache, deadline: Deadline, again: Callable[..., Plan], is_short: bool) -> Plan | None:
    """The plan of a question that is first made into others, each asked ``again``: near some regions, what is shed, routed or escalated. None of any other."""
    cost = partial(_least_cost, cache=cache, deadline=deadline)
    if any(w.network_at for w in scenario.workload):
        from planner.planning.reach import by_reach

        def least(asked: Scenario) -> float:
            return _least_cost(asked, cache, deadline.share(REACHING))

        return verified(by_reach(scenario, cache.catalog, partial(again, came=origins), least), cache.catalog)
    if scenario.policy.shed and not is_short:
        from planner.planning.shed import shedding

        return shedding(scenario, cache.catalog, deadline, partial(again, came=origins, is_short=True))
    if any(w.route_by for w in scenario.workload):
        from planner.planning.boundary import searched
        from planner.planning.routing import routed

        bounded, how = searched(scenario, cache, deadline.share(SEARCHING))
        return routed(bounded, origins, again, cost, how)
    if any(w.is_cascade for w in scenario.workload):
        from planner.planning.cascade import cascaded

        return verified(cascaded(scenario, origins, again, cost), cache.catalog)
    return None


def _least_cost(scenario: Scenario, cache: SurveyCache, deadline: Deadline) -> float:
    """$/h of the cheapest plan, undescribed where the program alone finds it; infinite without one. Raises TimeUp."""
    if scenario.objective.maximize or any(w.is_cascade or (w.demand and w.demand.is_open) for w in scenario.workload):
        try:
            return solve(scenario, cache.catalog, compare=False, cache=cache, deadline=deadline).cost.usd_per_hour
        except Infeasible:
            return inf
    asked, points = posed(scenario, cache, deadline)
    found, _ = kept_apart(points, asked, break_ties=False)
    if not found.found and found.solution.status == Status.UNKNOWN:
        raise TimeUp()
    return found.cost


def _served(scenario: Scenario, cache: SurveyCache, deadline: Deadline) -> tuple[PlanWorkload, ...]:
    """The workloads of the cheapest plan, undescribed else; none where there is no plan."""
    asked, points = posed(scenario, cache, deadline)
    found, points = kept_apart(points, asked)
    return workloads_of(asked, chosen_pools(found, points.survey), points.survey) if found.found else ()


def _comparison(found: Answer, points: Points, plan: Plan) -> dict[str, object]:
    """Alternatives, and what they teach about the plan: fleets are compared with fleets, and what an API has a part in with the best of them."""
    if plan.hosted:
        return {"alternatives": (on_gpus_alone(found, points, plan),)}
    scenario = without_apis(found.formulation.scenario)
    found = replace(found, formulation=replace(found.formulation, scenario=scenario))
    prudent, (options, notes) = bridge(found, points), alternatives(found, points, plan)
    spread = spread_costs(points, scenario, plan.cost.usd_per_hour)
    warnings = (*plan.warnings, *near_ties(options), *neighbourhood(found, points, plan), *spread)
    return {"prudent": prudent, "alternatives": options, "notes": notes, "warnings": warnings, "redundancy": compared(plan, options)}
