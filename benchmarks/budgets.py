"""Budget scenarios of the headline's traffic, over a year and a day's hours: what each way of buying costs, and what serves.

    python benchmarks/budgets.py

200 req/s on average with the hours of a measured service (m-small), quality 0.8, no growth. Writes benchmarks/results/budgets.json.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from planner import Plan, Scenario, load_catalog, solve
from planner.errors import PlannerError
from planner.planning.contract import contract
from planner.planning.periods import autoscale
from planner.scenario.outlook import Outlook

RESULTS = Path(__file__).parent / "results" / "budgets.json"
TRAFFIC = {"qps": 200, "min_quality": 0.8, "profile": "m-small"}
TERM = {"months": 12, "commit": {"1y": 0.3}}
# GPUs there are already, whose price is spent: power and upkeep count.
OWNED = {"name": "own", "gpu": "H100-SXM-80GB", "count": 16, "gpus_per_node": 8, "price": 35000, "kw": 0.7, "pue": 1.3, "electricity": 0.13}
OWNED |= {"maintenance": 0.05, "sunk": True}
CONTRACTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "on demand, by the hour": ({}, {"months": 12}),
    "1-year commitment at 30 % off, on demand above": ({}, TERM),
    "spot for at most half, on demand besides": ({"supply": {"purchase": ["on_demand", "spot"]}, "policy": {"max_spot_share": 0.5}}, {"months": 12}),
}
FLAT: dict[str, dict[str, Any]] = {
    "on demand, the peak held all day": {},
    "owned (16 H100, price spent) and on demand above, the peak held": {"supply": {"owned": [OWNED]}, "policy": {"max_pools": 2, "mix": True}},
    "API only": {"policy": {"api": "all"}, "supply": {"kinds": ["owned"], "owned": [{**OWNED, "count": 1, "gpus_per_node": 1, "usd_per_hour": None}]}},
    "fleet and API (a fixed share overflows)": {"policy": {"api": "overflow"}},
}
HOURLY: dict[str, dict[str, Any]] = {
    "fleet by the hour, APIs above it and in quiet hours": {"policy": {"api": "overflow", "floor_replicas": 0}},
}


def asked(change: dict[str, Any], workload: dict[str, Any] = TRAFFIC) -> Scenario:
    """The scenario of a way to buy."""
    return Scenario.model_validate({"workload": [workload], "solver": {"time_limit": "200s"}, **change})


def row(name: str) -> dict[str, Any]:
    """One way to buy: $/h on average over a year, and what serves."""
    if name in CONTRACTS:
        change, outlook = CONTRACTS[name]
        c = contract(asked(change), Outlook.model_validate(outlook))
        counts = [sum(sum(r.values()) for r in s.replicas) for s in c.states]
        d = c.parts[0].deployments[0]
        signed = ", ".join(f"{x.instances} x {c.lines[x.line].instance_type} {c.lines[x.line].term}" for x in c.commitments)
        serves_by_hour = f"{min(counts)}-{max(counts)} x {d.layout} {d.gpu}, {d.checkpoint}"
        return {"way": name, "usd_per_hour": c.usd_per_hour, "gap": c.gap, "serves": serves_by_hour, "signed": signed}
    plan = autoscale(asked(HOURLY[name])) if name in HOURLY else solve(asked(FLAT[name]), load_catalog(), compare=False)
    serves = [f"{_replicas(plan, i)} x {d.layout} {d.gpu}, {d.checkpoint}" for i, d in enumerate(plan.deployments)]
    serves += [f"{h.share:.0%} by {h.provider}, {h.model}" for h in plan.hosted]
    return {"way": name, "usd_per_hour": plan.cost.usd_per_hour, "gap": plan.gap, "serves": " + ".join(serves), "signed": ""}


def _replicas(plan: Plan, i: int) -> str:
    """Of a deployment, by the hour from the fewest to the most."""
    counts = [p.deployments[i].replicas for p in plan.periods] or [plan.deployments[i].replicas]
    return f"{min(counts)}-{max(counts)}" if len(set(counts)) > 1 else str(counts[0])


def main() -> None:
    """Every way, in the order of the question."""
    rows = []
    for name in (*FLAT, *HOURLY, *CONTRACTS):
        try:
            rows.append(row(name))
        except PlannerError as error:
            rows.append({"way": name, "error": str(error)})
        print(rows[-1], flush=True)
    table = Table("way", "$/h", "serves")
    for r in rows:
        table.add_row(r["way"], f"{r['usd_per_hour']:.2f}" if "usd_per_hour" in r else "-", r.get("serves", r.get("error", "")))
    Console().print(table)
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
