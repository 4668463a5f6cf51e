"""The question of `plan contract` made ready, and its search: what serves over months and futures, on what is bought by the hour or for a term.

What no contract is planned for is refused here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from planner.candidates.columns import formulation_at_any_rate
from planner.candidates.offers import allowed
from planner.candidates.points import Points
from planner.candidates.survey import survey
from planner.catalog.catalog import Catalog
from planner.deadline import Deadline
from planner.errors import ScenarioError
from planner.planning.infeasible import Infeasible
from planner.scenario.apply import catalog_for
from planner.scenario.change import assumed, require_gpus_alone, require_no_fleet, require_one_network, with_workloads
from planner.scenario.outlook import Outlook
from planner.scenario.profiles import hourly_rates
from planner.scenario.records import Scenario
from planner.search import contract as search
from planner.search.contract import RESERVED, ContractQuestion, ContractSpace, Horizon
from planner.search.hours import question, slots_by_candidate, spoiled
from planner.search.prudent import reached, serves_all


@dataclass(frozen=True)
class Found:
    """A search's end with what it was of."""

    asked: ContractQuestion
    field: ContractSpace
    points: Points
    best: search.Contract

    @property
    def gap(self) -> float:
        """Of its cost, how much less one of another structure might cost."""
        cost = self.best.solution.cost
        return max(0.0, (cost - self.best.bound) / cost) if cost else 0.0

    @property
    def is_proven(self) -> bool:
        """Whether that is as little as was asked for."""
        return self.gap <= max(search.GAP, self.asked.hourly.scenario.solver.gap) + 1e-9


def require_modelled(scenario: Scenario) -> None:
    """Raises ScenarioError for what no contract is planned with: it would be left out of the answer without a word."""
    unknown = (
        (bool(scenario.tables.capacities), "own tables", "tables", "leave --capacities and --demand out"),
        (scenario.has_waiting, "requests that may wait", "workload.requests_per_day", "give a rate (qps)"),
        (any(w.demand and w.demand.is_open for w in scenario.workload), "users who wait for answers", "workload.users", "give the rate that they make (qps)"),
        (any(w.route_by for w in scenario.workload), "routes by length", "workload.route_by", "give short and long prompts as two workloads"),
        (any(w.is_cascade for w in scenario.workload), "escalation", "workload.escalate", "give what is escalated as a workload of its own"),
        (bool(scenario.objective.maximize), "the most that a budget buys", "objective.maximize", "leave --maximize out"),
        (scenario.policy.shed, "who goes short", "policy.shed", "leave --shed out"),
        (bool(scenario.policy.survives), f"--redundancy {scenario.policy.redundancy}", "policy.redundancy", "n+1-replica and --spare-replicas hold"),
    )  # fmt: skip
    for is_asked, what, where, hint in unknown:
        if is_asked:
            raise ScenarioError(f"a contract is not planned for {what} yet", where, hint)
    require_gpus_alone(scenario, "a contract")
    require_no_fleet(scenario, "a contract")
    require_one_network(scenario, "a contract")


def by_the_hour(scenario: Scenario, outlook: Outlook) -> tuple[Scenario, Outlook]:
    """The question without anything that is bought for a term, and without a limit on risk."""
    supply = scenario.supply
    hourly = {"purchase": tuple(p for p in supply.purchase if p not in RESERVED), "offers": tuple(o for o in supply.offers if o.purchase not in RESERVED)}
    return assumed(scenario, "supply", **hourly), outlook.model_copy(update={"commit": {}, "risk": None})


def searched(scenario: Scenario, outlook: Outlook, catalog: Catalog, deadline: Deadline) -> Found:
    """The best structure of a question, workloads apart that miss a limit together. Raises Infeasible, and TimeUp without any."""
    asked, supposed = asked_of(scenario, outlook), catalog_for(catalog, scenario)
    points = Points(survey(asked.hourly.expanded, supposed, allowed(supposed.offers, scenario.supply, supposed.newest_price)), deadline)
    known = scenario.model_copy(update={"policy": reached(points, asked.hourly.expanded, serves_all).policy})
    asked = asked_of(known, outlook)
    points = points.asked(asked.hourly.expanded, points.survey.offers)
    whole = formulation_at_any_rate(points, asked.hourly.expanded, by_way=True)
    slots, apart = slots_by_candidate(points.survey, whole), frozenset[frozenset[int]]()
    while True:
        field = ContractSpace(whole, asked, slots, apart)
        best = search.cheapest_contract(field, asked)
        if best is None:
            limit = f", and cost no more than {outlook.risk.usd_per_hour:g} $/h where it is dearest" if outlook.risk else ""
            raise Infeasible(f"nothing serves all workloads in every month and future{limit}", (), points.survey.excluded + whole.excluded)
        more = spoiled(search.by_offer(best), field, asked.hourly, points.survey) - apart
        if not more:
            return Found(asked, field, points, best)
        apart |= more


def asked_of(scenario: Scenario, outlook: Outlook) -> ContractQuestion:
    """The question at the highest traffic of any state, with the rates of all."""
    horizon = Horizon(outlook, hourly_rates(scenario).shape[1])
    top = float(horizon.growth.max())
    highest = question(with_workloads(scenario, (w.at_rate(w.rate * top) for w in scenario.workload)))
    repeats = len(outlook.futures) * outlook.months
    return ContractQuestion(replace(highest, rates=np.tile(highest.rates / top, (1, repeats)) * horizon.growth), horizon)
