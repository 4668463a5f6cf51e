"""Whether a changed question has a plan: asked many times over one catalogue, with candidates surveyed once per set of latency limits.

And the largest traffic that has one, found through what each plan on the way would still carry.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from math import ceil, floor, inf, log10

from planner.candidates.columns import formulation
from planner.candidates.eligibility import counted
from planner.candidates.offers import allowed
from planner.candidates.points import Points
from planner.deadline import Deadline
from planner.result.service import predicted
from planner.scenario.records import Scenario
from planner.scenario.slo import read_limits
from planner.search.answer import Answer, answer, any_plan
from planner.search.chosen import chosen_pools
from planner.search.survey_cache import SurveyCache, covers

DIGITS = 4  # of traffic in what is proposed
COARSE = 1.02  # ratio to which traffic is bisected before plans on the way say what they carry


class Feasible:
    """Answers whether scenarios have a plan that differ from one surveyed in demands alone. Raises TimeUp past its deadline."""

    def __init__(self, points: Points, scenario: Scenario) -> None:
        self.points, self.deadline = points, points.deadline
        self._asked, self._known = scenario, SurveyCache(points.survey.catalog)
        self._answers: dict[str, Answer] = {}

    def until(self, deadline: Deadline) -> Feasible:
        """The same with another deadline, and all that is known."""
        found = Feasible.__new__(Feasible)
        found.__dict__ |= self.__dict__ | {"deadline": deadline}
        return found

    def __call__(self, scenario: Scenario) -> bool:
        """Whether there is any plan."""
        return self.plan(scenario).found

    def plan(self, scenario: Scenario) -> Answer:
        """Any plan, if there is one."""
        key = scenario.model_dump_json()
        if key not in self._answers:
            self.deadline.check()
            self._answers[key] = any_plan(formulation(self._points(scenario), scenario))
        return self._answers[key]

    def least_cost(self, scenario: Scenario) -> float:
        """$/h of the cheapest plan; infinite without one."""
        self.deadline.check()
        return answer(formulation(self._points(scenario), scenario), break_ties=False).cost

    def latency(self, found: Answer, w: int, limit: str) -> float | None:
        """Seconds within which a plan keeps what an SLO limit of a workload speaks of; None where its percentile is not predicted."""
        survey, (slo,) = self._points(found.formulation.scenario).survey, read_limits({limit: inf})
        of = [getattr(predicted(c, survey, w), f"{slo.metric}_ms") for c in chosen_pools(found, survey) if w in c.pool.traffic]
        ms = [float(getattr(x, f"p{slo.percentile:g}", None) or inf) for x in of]
        return max(ms) / 1e3 if ms and max(ms) < inf else None

    def scores(self, w: int) -> list[float]:
        """What checkpoints score that a workload may ask a floor of, to four digits below, rising."""
        policy = self.points.survey.scenario.policy
        known = {counted(q, policy) - policy.quality_margin for e in self.points.survey.eligible if (q := e.quality[w]) is not None}
        return sorted({floor(s * 1e4 + 1e-6) / 1e4 for s in known})

    def ages(self) -> list[float]:
        """How many days older than the newest the catalogue's prices are, falling."""
        catalog = self.points.survey.catalog
        return sorted({float((catalog.newest_price - o.as_of).days) for o in catalog.offers if not o.is_owned and not o.id}, reverse=True)

    def _points(self, scenario: Scenario) -> Points:
        """Candidates under the scenario's limits: those surveyed first serve every higher floor, stricter rule and other rate."""
        catalog = self.points.survey.catalog
        if all(a.slo == b.slo for a, b in zip(self._asked.workload, scenario.workload, strict=True)) and covers(self._asked, scenario):
            return self.points.asked(scenario, allowed(catalog.offers, scenario.supply, catalog.newest_price)).until(self.deadline)
        return self._known.points(scenario, catalog.offers).keeping(self.points.apart).until(self.deadline)


def growth(found: Answer, grows: Collection[int]) -> float:
    """By which factor the traffic of these workloads could grow on the replicas of a plan, the others' standing still; 1 without a plan."""
    rules, most = found.formulation.problem.rules, inf
    for c in found.solution.pools:
        room = rules.max_slo_load * (c.total - rules.spare_replicas)
        mine, rest = (sum(x / c.pool.capacity[w] for w, x in c.traffic.items() if (w in grows) is moves) for moves in (True, False))
        most = min(most, (room - rest) / mine) if mine > 0 else most
    return most if 1 < most < inf else 1.0


def largest(low: float, high: float, grows: Callable[[float], float]) -> float:
    """The largest number of DIGITS digits that has a plan, between one that has and one that has not.

    grows: by how much more the plan found at a number would carry, at least 1; 0 without a plan.
    """
    more, steps = 1.0, 0
    while (after := following(low)) < high:
        middle, jump = rounded_down((low * high) ** 0.5), rounded_down(low * more)
        if high > low * COARSE:
            probe = middle
        elif low < jump < high:
            probe = jump
        else:
            probe, steps = (after if steps % 2 == 0 else middle), steps + 1
        probe = probe if low < probe < high else after
        found = grows(probe)
        low, high, more = (probe, high, found) if found else (low, probe, more)
    return low


def following(value: float, digits: int = DIGITS) -> float:
    """The next number of so few digits."""
    return _of_digits(value, digits, lambda x: floor(x + 1e-9) + 1)


def rounded_up(value: float, digits: int = 3) -> float:
    """The number of so few digits that is not below: what is proposed must do."""
    return _of_digits(value, digits, lambda x: ceil(x - 1e-9))


def rounded_down(value: float, digits: int = DIGITS) -> float:
    """The number of so few digits that is not above."""
    return _of_digits(value, digits, lambda x: floor(x + 1e-9))


def _of_digits(value: float, digits: int, whole: Callable[[float], int]) -> float:
    step = floor(log10(value)) - digits + 1
    return float(f"{whole(value / 10.0**step)}e{step}")
