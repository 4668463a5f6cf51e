"""How the time of `plan contract` grows with months, futures and regions, and the same answer from its locations solved apart on Dask.

    python benchmarks/contracts.py [--quick]

Three workloads with profiles, commitments of one and three years. Writes benchmarks/results/contracts.json: CPU and wall seconds and peak memory of
each in a process of its own, gap and cost. The last rows solve each location as a question of its own on a Dask cluster of two workers; the cheapest is
the answer of the whole.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "contracts.json"
REGIONS = ("us-east-1", "eastus", "westus3", "us-central1", "us-west-2", "europe-west4", "westeurope", "us-ashburn-1")
BASE = {"months": 12, "futures": 1, "regions": 4}
STEPS = {"regions": (1, 2, 4, 8), "futures": (1, 3, 9), "months": (6, 12, 24, 36, 1)}  # the longest last
LIMIT_S = 120.0  # of one answer, studies and all


def question(regions: tuple[str, ...], seconds: float) -> dict[str, object]:
    """Chat, summaries and code at a hyperscaler."""
    long = {"input_tokens": 6000, "output_tokens": 400, "slo": {"ttft_p95": "5s"}}
    workloads = [
        {"name": "chat", "qps": 120, "min_quality": 0.8, "profile": "m-small"},
        {"name": "summaries", "qps": 20, "min_quality": 0.75, "profile": "m-mid", **long},
        {"name": "code", "qps": 10, "min_quality": 0.7, "profile": "m-large", "input_tokens": 2500, "output_tokens": 120},
    ]
    supply = {"kinds": ["hyperscaler"], "regions": list(regions)}
    return {"workload": workloads, "supply": supply, "solver": {"time_limit": f"{seconds:g}s"}}


def outlook(months: int, futures: int) -> dict[str, object]:
    """Growth of 3 % a month, spread over so many futures."""
    spread = {"growth_spread": 0.3, "draws": futures} if futures > 1 else {}
    return {"months": months, "monthly_growth": 0.03, "commit": {"1y": 0.3, "3y": 0.5}, **spread}


def solved(regions: tuple[str, ...], months: int, futures: int, seconds: float = LIMIT_S) -> dict[str, float | int | str]:
    """One contract, in this process."""
    from planner import Scenario
    from planner.planning.contract import contract
    from planner.scenario.outlook import Outlook

    started, began = time.process_time(), time.monotonic()
    found = contract(Scenario.model_validate(question(regions, seconds)), Outlook.model_validate(outlook(months, futures)))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "months": months, "futures": futures, "regions": len(regions), "states": len(found.states), "cpu_s": time.process_time() - started,
        "wall_s": time.monotonic() - began, "mib": memory, "usd_per_hour": found.usd_per_hour, "gap": found.gap, "status": found.status,
        "structures": found.structures, "told": not found.notes,
    }  # fmt: skip


def apart(regions: tuple[str, ...]) -> list[dict[str, object]]:
    """Each region as a question of its own on two workers; None where nothing serves there."""
    from distributed import Client, LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        began = time.monotonic()
        found = client.gather(client.map(_cost, [(r,) for r in regions]))
        rows: list[dict[str, object]] = [{"region": r, "usd_per_hour": c} for r, c in zip(regions, found, strict=True)]
        return [*rows, {"wall_s": time.monotonic() - began}]


def _cost(regions: tuple[str, ...]) -> float | None:
    """$/h of the contract at some locations, without what it is worth."""
    from planner import Scenario
    from planner.candidates.offers import with_known_names
    from planner.catalog.load import load_catalog
    from planner.deadline import Deadline
    from planner.planning.contract_question import searched
    from planner.planning.infeasible import Infeasible
    from planner.scenario.outlook import Outlook

    catalog, asked = load_catalog(), Outlook.model_validate(outlook(BASE["months"], BASE["futures"]))
    try:
        found = searched(with_known_names(Scenario.model_validate(question(regions, LIMIT_S)), catalog), asked, catalog, Deadline.after(LIMIT_S))
    except Infeasible:
        return None
    return found.best.solution.cost / found.asked.horizon.total_hours


def main() -> None:
    """Runs every case in a process of its own, the year first, then the locations apart; what is done is written at once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the year alone, whole and apart")
    parser.add_argument("--one", nargs=3, type=int, metavar=("REGIONS", "MONTHS", "FUTURES"), help="one case, as JSON")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(solved(REGIONS[: given.one[0]], given.one[1], given.one[2])))
        return
    every = (BASE, *({**BASE, k: v} for k, steps in STEPS.items() for v in steps))
    cases = [BASE] if given.quick else [dict(c) for c in dict.fromkeys(tuple(case.items()) for case in every)]
    rows, parts = list[dict[str, object]](), list[dict[str, object]]()
    for case in cases:
        words = [str(case[k]) for k in ("regions", "months", "futures")]
        done = subprocess.run([sys.executable, __file__, "--one", *words], capture_output=True, text=True, check=True)
        rows.append(json.loads(done.stdout))
        print(rows[-1], flush=True)
        RESULTS.write_text(json.dumps({"cases": rows, "apart": parts}, indent=1) + "\n")
    parts += apart(REGIONS[: BASE["regions"]])
    print(parts)
    RESULTS.write_text(json.dumps({"cases": rows, "apart": parts}, indent=1) + "\n")


if __name__ == "__main__":
    main()
