"""Scenarios that differ from one another in a named place: the one way in which studies ask again."""

from __future__ import annotations

from typing import Any

from planner.catalog.catalog import Catalog
from planner.scenario.records import Scenario, Workload


def with_workload(scenario: Scenario, w: int, **change: Any) -> Scenario:
    """The scenario with fields of one workload set, checked anew. Limits in seconds replace all limits.

    A rate takes the place of users, whose rate would follow from the plan's answers again; ``users`` changes their number.
    """
    old = scenario.workload[w]
    raw = old.model_dump(mode="json") | {k: v for k, v in change.items() if k not in ("slo", "users")}
    if raw.get("demand") and "users" in change:
        raw["demand"] |= {"users": change["users"]}
    elif raw.get("demand") and ("qps" in change or "concurrency" in change):
        raw["demand"] |= {"users": None, "think_s": None, "answer_s": None}
    changed = Workload.model_validate(raw)
    if "slo" in change:
        changed = changed.model_copy(update={"slo": dict(change["slo"])})
    return scenario.model_copy(update={"workload": tuple(changed if i == w else o for i, o in enumerate(scenario.workload))})


def traffic_of(workload: Workload) -> tuple[str, str, float]:
    """(field, unit, amount) of a workload's traffic as it was stated: users, requests/s or requests in flight."""
    if workload.demand and workload.demand.users is not None:
        return "users", "users", workload.demand.users
    return ("qps", "req/s", workload.qps) if workload.qps is not None else ("concurrency", "in flight", workload.rate)


def checkpoints_of(name: str, catalog: Catalog) -> tuple[str, ...]:
    """The checkpoints of one card: names of models may begin alike (Phi-4, Phi-4-mini), these do not."""
    return tuple(c.id for card in catalog.cards if card.name == name for c in card.checkpoint)


def with_policy(scenario: Scenario, **change: Any) -> Scenario:
    """The scenario with fields of its policy set."""
    return scenario.model_copy(update={"policy": scenario.policy.model_copy(update=change)})


def with_supply(scenario: Scenario, **change: Any) -> Scenario:
    """The scenario with fields of its supply set."""
    return scenario.model_copy(update={"supply": scenario.supply.model_copy(update=change)})


def with_what_if(scenario: Scenario, **change: Any) -> Scenario:
    """The scenario under other suppositions."""
    return scenario.model_copy(update={"what_if": scenario.what_if.model_copy(update=change)})
