"""Whether a changed question has a plan: asked many times over one catalogue, with candidates surveyed once per set of latency limits.

And the largest traffic that has one, found through what each plan on the way would still carry.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from math import ceil, floor, inf, log10

from planner.candidates.columns import market
from planner.candidates.eligibility import counted, needed
from planner.candidates.offers import allowed
from planner.candidates.points import Points
from planner.candidates.survey import survey
from planner.deadline import Deadline
from planner.planning.answer import Answer, answer, any_plan
from planner.scenario.records import Scenario

DIGITS = 4  # of traffic in what is proposed
COARSE = 1.02  # ratio to which traffic is bisected before plans on the way say what they carry


class Feasible:
    """Answers whether scenarios have a plan that differ from one surveyed in demands alone. Raises TimeUp past its deadline."""

    def __init__(self, points: Points, scenario: Scenario) -> None:
        self.points, self.deadline = points, points.deadline
        self._surveyed = {_limits(scenario): [(_floors(scenario), points)]}
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
            self._answers[key] = any_plan(market(self._points(scenario), scenario))
        return self._answers[key]

    def least_cost(self, scenario: Scenario) -> float:
        """$/h of the cheapest plan; infinite without one."""
        self.deadline.check()
        return answer(market(self._points(scenario), scenario), tidy=False).cost

    def scores(self, w: int) -> list[float]:
        """What checkpoints score that a workload may ask a floor of, to four digits below, rising."""
        policy = self.points.survey.scenario.policy
        known = {counted(q, policy) - policy.quality_margin for e in self.points.survey.eligible if (q := e.quality[w]) is not None}
        return sorted({floor(s * 1e4 + 1e-6) / 1e4 for s in known})

    def ages(self) -> list[float]:
        """How many days older than the newest the catalogue's prices are, falling."""
        catalog = self.points.survey.catalog
        return sorted({float((catalog.newest_price - o.as_of).days) for o in catalog.offers if not o.is_owned}, reverse=True)

    def _points(self, scenario: Scenario) -> Points:
        """Candidates under the scenario's limits: a survey serves every higher floor, stricter rule and other rate."""
        catalog, floors = self.points.survey.catalog, _floors(scenario)
        offers = allowed(catalog.offers, scenario.supply, catalog.newest_price)
        here = self._surveyed.setdefault(_limits(scenario), [])
        found = next((p for lowest, p in here if all(a <= b for a, b in zip(lowest, floors, strict=True))), None)
        if found is None:
            found = Points(survey(scenario, catalog, offers))
            here.append((floors, found))
        return found.asked(scenario, offers).until(self.deadline)


def _limits(scenario: Scenario) -> str:
    """What the candidates of a survey depend on among the demands, but for floors: limits, and GPUs that a quota of none leaves out."""
    return repr(([sorted(w.slo.items()) for w in scenario.workload], sorted(g for g, n in scenario.supply.quota.items() if not n)))


def _floors(scenario: Scenario) -> tuple[float, ...]:
    """What a survey leaves out by, each the larger the more it leaves out: floors, how scores count, the age of prices."""
    policy, age = scenario.policy, scenario.supply.max_price_age
    floors = (-1.0 if (needs := needed(w.min_quality, policy)) is None else needs for w in scenario.workload)
    return *floors, float(policy.worst_recovery), -inf if age is None else -float(age)


def growth(found: Answer, grows: Collection[int]) -> float:
    """By which factor the traffic of these workloads could grow on the replicas of a plan, the others' standing still; 1 without a plan."""
    rules, most = found.market.problem.rules, inf
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
