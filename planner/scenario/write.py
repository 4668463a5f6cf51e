"""Writes a Scenario back as flags or TOML; reading either gives the same Scenario."""

from __future__ import annotations

from typing import Any

from planner.clean import toml_text
from planner.errors import ScenarioError
from planner.raw import Raw
from planner.scenario.fields import askables
from planner.scenario.records import Scenario
from planner.scenario.units import exact, format_duration, format_lead


def to_flags(scenario: Scenario) -> list[str]:
    """The command line that asks this scenario. Raises ScenarioError for several workloads, owned GPUs and joint lengths, which need a file."""
    if len(scenario.workload) > 1:
        raise ScenarioError("several workloads cannot be written as flags", hint="write TOML")
    if scenario.supply.owned:
        raise ScenarioError("owned GPUs cannot be written as flags", hint="write TOML")
    if scenario.supply.offers:
        raise ScenarioError("offers of one's own cannot be written as flags", hint="write TOML")
    if scenario.supply.current:
        raise ScenarioError("today's fleet cannot be written as flags", hint="write TOML")
    if any(w.lengths or w.demand for w in scenario.workload):
        raise ScenarioError("joint lengths and what a rate was made of cannot be written as flags", hint="write TOML")
    words: list[str] = []
    for a in askables():
        value: Any = scenario
        for key in a.path:
            value = value.model_dump(mode="json")["slo"] if key == "slo" else getattr(value, key)
            if key == "workload":
                if not value:
                    break
                value = value[0]
        else:
            if value != a.default:
                words += _flag(a.flag.name, a.path[-1], value)
    return words


def to_toml(scenario: Scenario) -> str:
    """The scenario file that asks this scenario; only what differs from the defaults."""
    import rtoml

    return toml_text(rtoml.dumps(to_content(scenario)))


def to_content(scenario: Scenario) -> Raw:
    """What such a file holds."""
    data: Raw = scenario.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
    for workload, whole in zip(data.get("workload", []), scenario.workload, strict=True):
        workload["slo"] = whole.model_dump(mode="json")["slo"]
    return data


def _flag(name: str, field: str, value: Any) -> list[str]:
    if value is True:
        return [name]
    if isinstance(value, dict):
        texts = [f"{k}={v}" for k, v in value.items()]
    elif isinstance(value, tuple):
        texts = [str(v) for v in value]
    elif field == "budget":
        texts = [f"{exact(value)}/h"]
    elif field in ("startup_lead", "network"):
        texts = [format_lead(value)]
    elif field == "time_limit":
        texts = [format_duration(value)]
    else:
        texts = [exact(value) if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)]
    return [word for text in texts for word in (name, text)]
