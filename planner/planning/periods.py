"""Autoscaled plans: the cheapest plan by the hour, beside the flat one that holds the peaks all day.

Nothing is returned unless the independent check (check/check.py) agrees, hour by hour.
"""

from __future__ import annotations

from math import inf

from planner.candidates.columns import formulation, formulation_at_any_rate
from planner.candidates.offers import allowed, with_known_names
from planner.candidates.points import Points
from planner.candidates.survey import survey
from planner.catalog.catalog import Catalog
from planner.catalog.load import load_catalog
from planner.deadline import Deadline
from planner.errors import ScenarioError, TimeUp
from planner.performance.coefficients import TIERS
from planner.planning.infeasible import Infeasible, demands_in_words, explain
from planner.planning.solve import solve
from planner.planning.verified import verified
from planner.program.problem import Status
from planner.result import cautions
from planner.result.hours import assemble_hours
from planner.result.plan import FlatComparison, Plan
from planner.scenario.apply import catalog_for
from planner.scenario.change import require_no_fleet, require_one_network
from planner.scenario.records import Scenario
from planner.scenario.sources import Origins
from planner.search.answer import Answer, answer
from planner.search.apart import in_words, kept_apart
from planner.search.hosted_hours import space_of
from planner.search.hours import HourlyQuestion, cheapest_structure, priced_by_the_hour, question, restricted, slots_by_candidate, spoiled
from planner.search.prudent import careful, posture, reached, serves_all
from planner.search.survey_cache import SurveyCache

NO_TIME = "no flat plan was found within the time limit"
FLAT_UNPROVEN = (
    "the search for the flat plan was stopped by the time limit: there may be a cheaper one, and less be saved by the hour than stated (raise --time-limit)"
)
SETTLING = 0.5  # of the time limit, for the rate of users who wait for answers
BASELINE_SHARE = 0.4  # of the time limit, for the flat plan it is compared with


def autoscale(scenario: Scenario, catalog: Catalog | None = None, *, origins: Origins | None = None, deadline: Deadline | None = None) -> Plan:
    """The cheapest plan by the hour, checked independently before it is returned.

    The scenario's time limit bounds the whole answer, from here or to the deadline given.
    Raises Infeasible when nothing meets all demands, CatalogError and ScenarioError for unusable input, SolverError when no plan was
    found in time or a plan fails its check.
    """
    if scenario.tables.capacities:
        raise ScenarioError("plans by the hour, such as those of requests that may wait, need the catalogue", "tables", "leave --capacities out")
    if scenario.objective.maximize:
        most = f"the most {scenario.objective.maximize} is planned at one rate, not by the hour"
        raise ScenarioError(most, "objective.maximize", "leave --maximize out, or ask plan for a rate")
    if scenario.policy.shed:
        raise ScenarioError("who goes short is planned at one rate, not by the hour", "policy.shed", "leave --shed out")
    if scenario.policy.loss_slo_factor != 1:
        raise ScenarioError("limits that are longer after a loss are planned at one rate, not by the hour", "policy.loss_slo_factor", "leave --loss-slo out")
    if scenario.policy.api != "none" and scenario.has_waiting:
        raise ScenarioError("requests that may wait are not planned beside APIs", "policy.api", "leave --api out, or give them a rate (qps)")
    require_no_fleet(scenario, "what is held by the hour")
    require_one_network(scenario, "what is held by the hour")
    catalog, deadline = catalog or load_catalog(scenario.catalog), deadline or Deadline.after(scenario.solver.time_limit)
    settling, is_open = deadline.share(SETTLING), any(w.demand and w.demand.is_open for w in scenario.workload)
    scenario = careful(with_known_names(_settled(scenario, catalog, settling), catalog))
    late = [cautions.UNSETTLED] if is_open and settling.passed() else []
    asked = question(scenario)
    supposed = catalog_for(catalog, scenario)
    points = Points(survey(asked.expanded, supposed, allowed(supposed.offers, scenario.supply, supposed.newest_price)), deadline)
    is_stated = scenario.policy.evidence != TIERS[-1]
    scenario = scenario.model_copy(update={"policy": reached(points, asked.expanded, serves_all).policy})
    asked = question(scenario)
    points = points.asked(asked.expanded, points.survey.offers)
    baseline, unsearched = _flat_answers(points, asked)
    whole = priced_by_the_hour(formulation_at_any_rate(points, asked.expanded), asked)
    slots, apart = slots_by_candidate(points.survey, whole), frozenset[frozenset[int]]()
    while True:
        field = space_of(whole, asked.rates, slots, asked.idle, apart)
        found = cheapest_structure(field, asked, sum(a.cost for a in baseline) if baseline and not asked.idle else inf)
        if found is None:
            raise _infeasible(points, asked)
        more = spoiled(found, field, asked, points.survey) - apart
        if not more:
            break
        apart |= more
    plan = assemble_hours(found, field, asked, points.survey, baseline, origins or {})
    late += [cautions.unlooked(whole.unsettled)] if whole.unsettled else []
    told = {
        "notes": (*posture(scenario, is_stated), *in_words(apart, asked.expanded), *plan.notes),
        "warnings": (*late, *unsearched, *plan.warnings),
    }
    plan = plan.model_copy(update=told | ({} if baseline or not unsearched else {"flat": FlatComparison(words=NO_TIME)}))
    return verified(plan, catalog)


def _settled(scenario: Scenario, catalog: Catalog, deadline: Deadline) -> Scenario:
    """The scenario with workloads split where they are routed by length, and the rate of users who wait for answers settled."""
    if any(w.route_by for w in scenario.workload):
        from planner.planning.boundary import searched
        from planner.planning.routing import split

        scenario = split(searched(scenario, SurveyCache(catalog), deadline)[0])
    if any(w.is_cascade for w in scenario.workload):
        from planner.planning.cascade import escalated

        scenario = escalated(scenario)
    if any(w.demand and w.demand.is_open for w in scenario.workload):
        from planner.planning.users import settled

        scenario = settled(scenario, lambda asked: solve(asked, catalog, compare=False, deadline=deadline).workloads)
    return scenario


def _flat_answers(points: Points, asked: HourlyQuestion) -> tuple[list[Answer], list[str]]:
    """The cheapest plan that holds the peaks all day: waiting work at an even rate beside the others, or each on a fleet of its own.

    Empty where there is none, or none was found in time. Beside it what the time limit left out, in words.
    """
    steady = tuple(range(asked.steady))
    apart = [*([steady] if steady else []), *((work.alone,) for work in asked.idle)]
    ways = [apart] + ([[(*steady, *(work.beside for work in asked.idle))]] if steady and asked.idle else [])
    deadline = points.deadline.share(BASELINE_SHARE)
    try:
        found = [[kept_apart(Points(part := restricted(points.survey, kept), deadline), part.scenario)[0] for kept in way] for way in ways]
    except TimeUp:
        return [], [f"{NO_TIME}: nothing is compared (raise --time-limit)"]
    best = min((way for way in found if all(a.found for a in way)), key=lambda way: sum(a.cost for a in way), default=list[Answer]())
    if all(a.solution.status in (Status.OPTIMAL, Status.INFEASIBLE) for way in found for a in way):
        return best, []
    return best, [FLAT_UNPROVEN if best else f"{NO_TIME}: nothing is compared (raise --time-limit)"]


def _infeasible(points: Points, asked: HourlyQuestion) -> Infeasible:
    """Why nothing serves all hours: what is true of the peaks, where they have no plan either."""
    part = restricted(points.survey, (*range(asked.steady), *(work.alone for work in asked.idle)))
    found = answer(formulation(Points(part, points.deadline), part.scenario))
    if found.solution.status == Status.INFEASIBLE:
        return explain(Points(part, points.deadline), part.scenario, found)
    return Infeasible(f"{demands_in_words(part.scenario)} cannot all be met by the hour", (), part.excluded + found.formulation.excluded)
