"""Plans LLM deployments: demand and supply in, the cheapest deployment that meets all of it out.

>>> from planner import Scenario, load_catalog, solve
>>> plan = solve(Scenario.model_validate({"workload": [{"qps": 200, "min_quality": 0.8}]}), load_catalog())
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own takes longer to import than all else before Ctrl-C is listened to

if TYPE_CHECKING:
    from typing import Any

    from planner.catalog.catalog import Catalog
    from planner.catalog.load import load_catalog
    from planner.catalog.ownership import HourlyCost, OwnedGpu, break_even_utilization, hourly_cost, job_cost
    from planner.demand.records import Demand
    from planner.demand.source import read_demand
    from planner.economics.compare import compare
    from planner.economics.curve import cost_curve
    from planner.economics.explain import explain
    from planner.economics.frontier import frontier
    from planner.economics.sensitivity import sensitivity
    from planner.economics.speed import speed_frontier
    from planner.economics.sweep import sweep
    from planner.planning.infeasible import Infeasible
    from planner.planning.periods import autoscale
    from planner.planning.solve import solve
    from planner.result.plan import Plan
    from planner.scenario.records import Scenario
    from planner.simulation.run import simulate

__all__ = [
    "Catalog",
    "Demand",
    "HourlyCost",
    "Infeasible",
    "OwnedGpu",
    "Plan",
    "Scenario",
    "autoscale",
    "break_even_utilization",
    "compare",
    "cost_curve",
    "explain",
    "frontier",
    "hourly_cost",
    "job_cost",
    "load_catalog",
    "read_demand",
    "sensitivity",
    "simulate",
    "solve",
    "speed_frontier",
    "sweep",
]

_HOMES = {
    "Catalog": "planner.catalog.catalog",
    "Demand": "planner.demand.records",
    "HourlyCost": "planner.catalog.ownership",
    "Infeasible": "planner.planning.infeasible",
    "OwnedGpu": "planner.catalog.ownership",
    "Plan": "planner.result.plan",
    "Scenario": "planner.scenario.records",
    "break_even_utilization": "planner.catalog.ownership",
    "cost_curve": "planner.economics.curve",
    "hourly_cost": "planner.catalog.ownership",
    "job_cost": "planner.catalog.ownership",
    "autoscale": "planner.planning.periods",
    "load_catalog": "planner.catalog.load",
    "read_demand": "planner.demand.source",
    "simulate": "planner.simulation.run",
    "solve": "planner.planning.solve",
    "frontier": "planner.economics.frontier",
    "sweep": "planner.economics.sweep",
    "compare": "planner.economics.compare",
    "explain": "planner.economics.explain",
    "sensitivity": "planner.economics.sensitivity",
    "speed_frontier": "planner.economics.speed",
}


def __getattr__(name: str) -> Any:
    """The public names, imported when first used: a command imports only what it needs."""
    if name not in _HOMES:
        raise AttributeError(f"module 'planner' has no attribute '{name}'")
    import sys
    from importlib import import_module

    if "IPython" in sys.modules:
        import_module("planner.report.notebook")  # plans show themselves
    return getattr(import_module(_HOMES[name]), name)
