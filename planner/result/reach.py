"""The question as a plan answers it where the network differs by region: with the round trip that the plan counts for each workload."""

from __future__ import annotations

from collections.abc import Sequence

from planner.result.plan import PlanWorkload
from planner.scenario.change import with_workloads
from planner.scenario.records import Scenario


def as_reached(scenario: Scenario, workloads: Sequence[PlanWorkload]) -> Scenario:
    """The scenario with the network that each workload of a plan counts; as it is where none differs by region."""
    counted = {w.name: w.network_ms / 1e3 for w in workloads if w.network_ms is not None}
    if not counted:
        return scenario
    return with_workloads(scenario, (w.model_copy(update={"network": counted[w.name]}) if w.name in counted else w for w in scenario.workload))
