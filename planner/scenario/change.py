"""Scenarios that differ from one another in a named place: the one way to ask again. Whatever people choose is checked anew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

from planner.errors import ScenarioError
from planner.scenario.records import Scenario
from planner.scenario.workload import Workload

PartName = Literal["supply", "policy", "solver", "what_if"]
PARTS: Mapping[str, PartName] = {name: name for name in get_args(PartName)}


def changed(scenario: Scenario, changes: Mapping[str, object]) -> Scenario:
    """The scenario with fields set by their paths, such as {"policy.budget": 120.0, "workload.0.qps": 5}, in plain units, checked as a file is.

    Raises pydantic.ValidationError where a value is none that could be asked for, KeyError for a part that there is not.
    """
    for path, value in changes.items():
        part, _, field = path.partition(".")
        if part == "workload":
            place, _, field = field.partition(".")
            scenario = with_workload(scenario, int(place), **{field: value})
        else:
            scenario = assumed(scenario, PARTS[part], **{field: value})
            now = getattr(scenario, part)
            unknown = {} if field in type(now).model_fields else {field: value}
            type(now).model_validate(now.model_dump(mode="json") | unknown)
    return scenario


def with_workload(scenario: Scenario, w: int, **change: Any) -> Scenario:
    """The scenario with fields of one workload set, checked anew. Limits in seconds replace all limits.

    A rate takes the place of users, whose rate would follow from the plan's answers again; ``users`` changes their number.
    """
    raw = scenario.workload[w].model_dump(mode="json") | {k: v for k, v in change.items() if k not in ("slo", "users")}
    if raw.get("demand") and "users" in change:
        raw["demand"] |= {"users": change["users"]}
    elif raw.get("demand") and ("qps" in change or "concurrency" in change):
        raw["demand"] |= {"users": None, "think_s": None, "answer_s": None}
    found = Workload.model_validate(raw)
    if "slo" in change:
        found = found.model_copy(update={"slo": dict(change["slo"])})
    return with_workloads(scenario, (found if i == w else o for i, o in enumerate(scenario.workload)))


# ---- cheap copies: what the planner itself supposes, of values that need no checking


def assumed(scenario: Scenario, part: PartName, **change: object) -> Scenario:
    """The scenario with fields of one part replaced, unchecked."""
    return scenario.model_copy(update={part: getattr(scenario, part).model_copy(update=change)})


def without_apis(scenario: Scenario) -> Scenario:
    """The question on GPUs alone."""
    return assumed(scenario, "policy", api="none") if scenario.policy.api != "none" else scenario


def require_gpus_alone(scenario: Scenario, what: str) -> None:
    """Raises ScenarioError for a study that is of fleets, asked with APIs among the offers."""
    if scenario.policy.api != "none":
        raise ScenarioError(
            f"{what} is of fleets alone, and --api {scenario.policy.api} lets APIs serve", "policy.api", "leave it out, or see plan api-vs-fleet"
        )


def require_no_fleet(scenario: Scenario, what: str) -> None:
    """Raises ScenarioError for plans over time, asked from what is held today."""
    if scenario.supply.current:
        raise ScenarioError(f"{what} is not planned from today's fleet yet", "supply.current", "leave it out, or ask plan for one rate")


def require_one_network(scenario: Scenario, what: str) -> None:
    """Raises ScenarioError for what is planned over all regions at once, asked with a network that differs by region."""
    if any(w.network_at for w in scenario.workload):
        raise ScenarioError(
            f"{what} is not planned with a network that differs by region yet", "workload.network_at", "state one with --network-latency, or ask plan"
        )


def assumed_of(scenario: Scenario, w: int, **change: object) -> Scenario:
    """The scenario with fields of one workload replaced, unchecked."""
    return with_workloads(scenario, (x.model_copy(update=change) if i == w else x for i, x in enumerate(scenario.workload)))


def with_workloads(scenario: Scenario, workloads: Iterable[Workload]) -> Scenario:
    """The scenario with other workloads, which are checked already."""
    return scenario.model_copy(update={"workload": tuple(workloads)})
