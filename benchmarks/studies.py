"""How fast studies are: the frontier against planning each point anew, a sweep of 200 values, and one against two Dask workers.

    python benchmarks/studies.py [--quick]

Prints a table and writes benchmarks/results/studies.json. Each figure is the median of the runs named; ratios are of the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from planner import Scenario, load_catalog, solve
from planner.economics.frontier import frontier
from planner.economics.runs import Where, answers
from planner.economics.sweep import axis, sweep
from planner.scenario.change import with_workload

RESULTS = Path(__file__).parent / "results" / "studies.json"


def seconds(function: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    found = function()
    return time.perf_counter() - start, found


def frontiers(runs: int) -> dict[str, float]:
    """The shipped catalogue's whole frontier, and every one of its points planned by itself."""
    catalog, scenario = load_catalog(), Scenario.model_validate({"workload": [{"qps": 200}]})
    found, ratios, times = None, [], []
    for _ in range(runs):
        together, found = seconds(lambda: frontier(scenario, catalog))
        floors = [p.quality for p in found.points]
        alone, _ = seconds(lambda floors=floors: [solve(with_workload(scenario, 0, min_quality=f), catalog, compare=False) for f in floors])
        times.append(together)
        ratios.append(alone / together)
    assert found is not None
    return {"points": len(found.points), "seconds": statistics.median(times), "naive_over_frontier": statistics.median(ratios)}


def staircase(points: int) -> dict[str, float]:
    catalog, scenario = load_catalog(), Scenario.model_validate({"workload": [{"qps": 10, "min_quality": 0.8}]})
    took, found = seconds(lambda: sweep(scenario, catalog, [axis("qps=10:2000", points)]))
    return {"values": len(found.results), "steps": len(found.steps), "seconds": took, "cpu_count": os.cpu_count() or 0}


def workers(questions: int) -> dict[str, float]:
    """The same questions on one and on two Dask workers, both warm: they have solved one question of each family before."""
    from distributed import LocalCluster

    catalog = load_catalog()
    asked = [
        Scenario.model_validate({"workload": [{"qps": 30.0 + i, "min_quality": 0.7}, {"name": "b", "qps": 11.0 + i, "min_quality": 0.6}]})
        for i in range(questions)
    ]
    first = [asked[0].model_copy(update={"workload": tuple(w.model_copy(update={"qps": w.qps + 0.5 + k}) for w in asked[0].workload)}) for k in range(4)]
    took = {}
    for count in (1, 2):
        with LocalCluster(n_workers=count, threads_per_worker=1, dashboard_address=None) as cluster:
            where = Where(scheduler=cluster.scheduler_address)
            answers(first, catalog, where)
            took[count], _ = seconds(lambda where=where: answers(asked, catalog, where))
    return {"questions": questions, "seconds_each_on_one": took[1] / questions, "speed_up": took[1] / took[2]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer values and runs")
    quick = parser.parse_args().quick
    found = {"frontier": frontiers(1 if quick else 3), "sweep": staircase(40 if quick else 200), "dask": workers(16 if quick else 60)}
    table = Table("study", "figure", "value")
    for study, figures in found.items():
        for name, value in figures.items():
            table.add_row(study, name, f"{value:.4g}")
    Console().print(table)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
