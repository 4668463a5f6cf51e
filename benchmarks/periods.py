"""Autoscaled plans over a day and a week: time, gap, saving against the flat plan, and how far they are from changing candidates every hour.

    python benchmarks/periods.py

Prints a table and writes benchmarks/results/periods.json. Three workloads, the shipped catalogues. The week is made from the shipped profiles:
each day with a factor for weekends and a lognormal change of 5 % per hour (fixed seed), so that all 168 hours differ.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from planner import Catalog, Plan, Scenario, autoscale, load_catalog, solve
from planner.scenario.profiles import hourly_rates, named_profiles
from planner.search.survey_cache import SurveyCache

RESULTS = Path(__file__).parent / "results"
WORKLOADS: list[dict[str, Any]] = [
    {"name": "chat", "qps": 200, "min_quality": 0.6, "profile": "m-mid"},
    {"name": "documents", "qps": 20, "input_tokens": 4000, "output_tokens": 300, "min_quality": 0.7, "profile": "m-large"},
    {"name": "code", "qps": 50, "input_tokens": 2000, "output_tokens": 100, "min_quality": 0.5, "profile": "m-small"},
]
BATCH = {"name": "batch", "requests_per_day": 5e6, "release": "20:00", "deadline": "06:00", "min_quality": 0.6}
WEEKEND = {"m-mid": 0.7, "m-large": 0.5, "m-small": 0.6}
HYPERSCALERS = {"kinds": ["hyperscaler"]}


def weekly(workloads: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The workloads with a profile of 168 hours."""
    draw, named = np.random.default_rng(1), named_profiles(Scenario.model_validate({"workload": workloads}))
    found = []
    for w in workloads:
        days = [named[w["profile"]] * (WEEKEND[w["profile"]] if day >= 5 else 1.0) for day in range(7)]
        found.append({**w, "profile": (np.concatenate(days) * np.exp(draw.normal(0, 0.05, 168))).round(4).tolist()})
    return found


def scaled(workloads: list[dict[str, Any]], factor: float) -> list[dict[str, Any]]:
    return [{**w, "qps": w["qps"] * factor} for w in workloads]


def cases() -> dict[str, Scenario]:
    """The questions, by name."""
    asked: dict[str, tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]] = {
        "day": (WORKLOADS, {}, {}),
        "week": (weekly(WORKLOADS), {}, {}),
        "week, a twentieth of the traffic": (weekly(scaled(WORKLOADS, 0.05)), {}, {}),
        "week, ten times the traffic": (weekly(scaled(WORKLOADS, 10)), {}, {}),
        "week, hyperscalers": (weekly(WORKLOADS), HYPERSCALERS, {}),
        "week, hyperscalers, a twentieth": (weekly(scaled(WORKLOADS, 0.05)), HYPERSCALERS, {}),
        "week, held 6 h at least": (weekly(WORKLOADS), {}, {"min_up_periods": 6}),
        "week, 1 spare replica": (weekly(WORKLOADS), {}, {"spare_replicas": 1}),
        "week and requests that wait": ([*weekly(WORKLOADS), BATCH], {}, {}),
        "week, hyperscalers, requests that wait": ([*weekly(WORKLOADS), BATCH], HYPERSCALERS, {}),
    }
    return {name: Scenario.model_validate({"workload": w, "supply": supply, "policy": policy}) for name, (w, supply, policy) in asked.items()}


def hour_by_hour(scenario: Scenario, catalog: Catalog) -> float:
    """Sum of the optima of every hour alone, free to change candidates and location each time: no plan is below."""
    cache, rates, total = SurveyCache(catalog), hourly_rates(scenario), 0.0
    for t in range(rates.shape[1]):
        workloads = tuple(w.model_copy(update={"qps": float(rates[i, t]), "profile": ""}) for i, w in enumerate(scenario.workload))
        total += solve(scenario.model_copy(update={"workload": workloads}), catalog, compare=False, cache=cache).bound_usd_per_hour
    return total


def row(name: str, plan: Plan, seconds: float, free: float | None) -> dict[str, Any]:
    return {
        "case": name, "hours": len(plan.periods), "seconds": round(seconds, 2), "usd": round(plan.usd, 2), "gap": round(plan.gap, 5),
        "structures": plan.solver.structures,
        "flat_usd_per_hour": plan.flat.usd_per_hour and round(plan.flat.usd_per_hour, 2) if plan.flat else None,
        "saving": plan.flat.saving and round(plan.flat.saving, 4) if plan.flat else None,
        "startup_share": round(plan.startup_usd_per_hour / plan.cost.usd_per_hour, 4),
        "above_hour_by_hour": None if free is None else round(plan.usd / free - 1, 4),
    }  # fmt: skip


def main() -> None:
    catalog, rows = load_catalog(), []
    for name, scenario in cases().items():
        start = time.perf_counter()
        plan = autoscale(scenario, catalog)
        seconds = time.perf_counter() - start
        free = hour_by_hour(scenario, catalog) if name in ("day", "week", "week, hyperscalers") else None
        rows.append(row(name, plan, seconds, free))
    table = Table(title="Autoscaled plans of three workloads")
    for column in rows[0]:
        table.add_column(column, justify="left" if column == "case" else "right")
    for r in rows:
        table.add_row(*("-" if v is None else f"{v:.1%}" if k in ("gap", "saving", "startup_share", "above_hour_by_hour") else str(v) for k, v in r.items()))
    Console(width=160).print(table)
    (RESULTS / "periods.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
