"""What --prudent stands for: one spare replica, the floor met at the worst published recovery, GPU and model measured together, fresh prices."""

from __future__ import annotations

from collections.abc import Callable

from planner.candidates.columns import Formulation, formulation
from planner.candidates.points import Points
from planner.performance.coefficients import TIERS
from planner.scenario.change import assumed, without_apis
from planner.scenario.records import Scenario, Tier
from planner.search.answer import has_plan
from planner.search.maximize import LEAST, scaled

STALE_DAYS = 90  # of a price
SPARE = 1  # N+1
WORDS: dict[Tier, str] = {
    "measured": "measured as it is planned",
    "anchored": "GPU and model measured together",
    "transferred": "GPU measured with any model",
    "modelled": "any evidence",
}
SEEN: tuple[Tier, ...] = ("anchored", "transferred", "modelled")  # what is asked for, then what is nearest


def careful(scenario: Scenario) -> Scenario:
    """The question with the policies that --prudent stands for, but for the tier, which depends on what plans there are. Others as they are.

    What --redundancy n+1-replica stands for is a spare replica, too.
    """
    scenario = spared(scenario) if scenario.policy.redundancy == "n+1-replica" else scenario
    return fresh(at_worst(spared(scenario))) if scenario.policy.prudent else scenario


def reached(points: Points, scenario: Scenario, is_served: Callable[[Formulation], bool] = has_plan) -> Scenario:
    """The careful question at the nearest tier that any plan reaches, or at the one it states. Raises TimeUp."""
    if not scenario.policy.prudent or scenario.policy.evidence != TIERS[-1]:
        return scenario
    probe = scaled(scenario, LEAST) if scenario.objective.maximize == "qps" else without_apis(scenario)
    tier = next((t for t in SEEN if t == TIERS[-1] or is_served(formulation(points, near(probe, t)))), SEEN[-1])
    return near(scenario, tier)


def serves_all(found: Formulation) -> bool:
    """Whether every workload has a candidate: what can be known of plans by the hour before they are made."""
    return {w for c in found.problem.columns for w in (*c.tiers, *c.shared)} == set(range(len(found.problem.demands)))


def posture(scenario: Scenario, is_stated: bool) -> tuple[str, ...]:
    """What a prudent plan rests on, as a note. is_stated: whether the tier is one asked for, not the nearest that was reached."""
    p, age = scenario.policy, scenario.supply.max_price_age
    if not p.prudent:
        return ()
    spare = "one spare replica" if p.spare_replicas == 1 else f"{p.spare_replicas} spare replicas"
    nearest = "" if is_stated or p.evidence == SEEN[0] else f", the nearest that any plan reaches ({p.evidence})"
    known = f"{WORDS[p.evidence]}{nearest}"
    return (f"prudent: {spare}; floors met at the worst published recovery; {known}; prices at most {age} days older than the newest",)


def _policy(scenario: Scenario, **update: object) -> Scenario:
    return assumed(scenario, "policy", **update)


def spared(scenario: Scenario) -> Scenario:
    """The question with a spare replica of each deployment (N+1)."""
    return _policy(scenario, spare_replicas=max(scenario.policy.spare_replicas, SPARE))


def at_worst(scenario: Scenario) -> Scenario:
    """The question with derived scores at the worst published recovery."""
    return _policy(scenario, worst_recovery=True)


def near(scenario: Scenario, tier: Tier) -> Scenario:
    """The question on evidence at least this near."""
    return _policy(scenario, evidence=min(scenario.policy.evidence, tier, key=TIERS.index))


def fresh(scenario: Scenario) -> Scenario:
    """The question without prices that are stale."""
    age = min(scenario.supply.max_price_age or STALE_DAYS, STALE_DAYS)
    return assumed(scenario, "supply", max_price_age=age)
