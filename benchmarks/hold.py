"""Do random plans hold? Each is simulated request by request at the step times it was made for; misses are listed with what they have in common.

    python benchmarks/hold.py [--first 0] [--plans 500] [--seed 0]

One to three workloads, in requests/s or in flight, with limits from tight to none, quotas, budgets, spare replicas. A limit counts as missed where the
share of requests inside it is below its percentile by more than the 95 % confidence interval. Prints a table and writes benchmarks/results/hold.json.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != FOLDER]  # scripts here are named like modules that libraries look for

from planner import Scenario, load_catalog, solve
from planner.catalog.catalog import Catalog
from planner.errors import PlannerError
from planner.planning.infeasible import Infeasible
from planner.planning.verify import breaches
from planner.result.plan import Plan
from planner.simulation.run import simulate

RESULTS = FOLDER / "results"
REQUESTS = 60_000
LENGTHS = ((200, 200), (500, 50), (1000, 300), (1000, 300), (2000, 50), (4000, 5), (4000, 300), (8000, 200), (8000, 1000), (32000, 500), (100_000, 1000))
SLOS: tuple[dict[str, str], ...] = (
    {}, {}, {"ttft_p95": "1s", "tpot_p95": "30ms"}, {"ttft_p99": "3s", "tpot_p99": "60ms"}, {"ttft_p90": "500ms"}, {"tpot_p50": "20ms"}, {"itl_p99": "150ms"},
    {"e2e_p95": "30s"}, {"e2e_p99": "60s"}, {"ttft_p95": "none"}, {"ttft_p95": "8s", "tpot_p95": "100ms"},
    {"ttft_p99": "15s", "tpot_p95": "80ms", "e2e_p95": "60s"},
)  # fmt: skip


def scenario(rng: random.Random) -> dict[str, Any]:
    """A random question."""
    workloads = []
    for i in range(rng.choice((1, 1, 1, 2, 3))):
        isl, osl = rng.choice(LENGTHS)
        rate = 10 ** rng.uniform(-0.5, 2.7) * (1000 / isl) ** 0.7
        demand = {"concurrency": max(round(10 ** rng.uniform(0, 3.3)), 1)} if rng.random() < 0.35 else {"qps": round(rate, 3)}
        spread = {"input_cv": round(rng.uniform(0, 1.3), 2), "output_cv": round(rng.uniform(0, 1.3), 2)} if rng.random() < 0.5 else {}
        burst = {"burst_factor": rng.choice((1.5, 2))} if rng.random() < 0.15 else {}
        floor = {"min_quality": rng.choice((0.4, 0.55, 0.65, 0.75, 0.8))}
        workloads.append({"name": f"w{i}", "input_tokens": isl, "output_tokens": osl, "slo": rng.choice(SLOS), **demand, **spread, **burst, **floor})
    policy: dict[str, Any] = {"spare_replicas": 1} if rng.random() < 0.15 else {}
    policy |= {"budget": f"{round(10 ** rng.uniform(1.3, 3))}/h"} if rng.random() < 0.2 else {}
    policy |= {"confidence": rng.choice((0.5, 0.9))} if rng.random() < 0.2 else {}
    policy |= {"chunked_prefill": False} if rng.random() < 0.05 else {}
    supply: dict[str, Any] = {"quota": {rng.choice(("H100-SXM-80GB", "B200-SXM", "H200-SXM-141GB")): rng.choice((2, 8, 16))}} if rng.random() < 0.25 else {}
    return {"workload": workloads, "policy": policy, "supply": supply, "solver": {"time_limit": "60s"}}


def judged(asked: dict[str, Any], catalog: Catalog) -> dict[str, Any]:
    """What became of one question."""
    try:
        plan = solve(Scenario.model_validate(asked), catalog, compare=False)
    except Infeasible:
        return {"outcome": "infeasible"}
    except (PlannerError, ValueError) as error:
        return {"outcome": "no plan", "why": str(error)[:200]}
    found = simulate(plan, catalog, requests=max(REQUESTS, 25 * int(sum(w.concurrency or 0 for w in plan.workloads))))
    missed = breaches(found)
    words = [f"{w.name} {s.metric}_p{s.percentile:g} {s.limit_ms:g} ms: {s.within:.4f} +- {s.half_width or 0:.4f} inside, {s.value_ms} ms" for w, s in missed]
    fleet = [f"{d.checkpoint} on {d.gpu} {d.layout} x{d.replicas}, load {d.slo_load:.3f}" for d in plan.deployments]
    shared = any(sum(any(r.deployment == i for r in w.routing) for w in plan.workloads) > 1 for i in range(len(plan.deployments)))
    return {"outcome": outcome(plan, bool(missed)), "missed": words, "deployments": fleet, "shared": shared}


def outcome(plan: Plan, missed: bool) -> str:
    """Holds, was said not to hold, or misses."""
    if not missed:
        return "holds"
    return "misses, as the plan says" if any("simulat" in w or "queues always" in w for w in plan.warnings) else "misses"


def main() -> None:
    """Runs the campaign."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--first", type=int, default=0, help="number of the first plan")
    parser.add_argument("--plans", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    catalog, counts, rows = load_catalog(), Counter[str](), []
    for i in range(given.first, given.first + given.plans):
        asked = scenario(random.Random(f"{given.seed}/{i}"))
        found = judged(asked, catalog)
        counts[found["outcome"]] += 1
        if found["outcome"] not in ("holds", "infeasible"):
            rows.append({"number": i, "asked": asked, **found})
            print(i, found["outcome"], found.get("missed") or found.get("why"), "shared" if found.get("shared") else "", flush=True)
    print(dict(counts))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "hold.json").write_text(
        json.dumps({"first": given.first, "plans": given.plans, "seed": given.seed, "counts": counts, "rows": rows}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
