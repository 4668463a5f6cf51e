"""Knocks out every replica, instance or zone of plans that bear such a loss, and of the plans that need not, in the check and in the simulator.

Random questions by seed, on the shipped catalogue. In the simulator what is lost is lost from the start and never back; losses that take as many replicas of
each deployment are simulated once. Served: of every limit no more requests are beyond it than may be, give or take noise. Writes
benchmarks/results/redundancy.json: python -m benchmarks.redundancy [SCENARIOS]
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from math import exp, log
from pathlib import Path
from typing import Any

from planner import Catalog, Plan, Scenario, load_catalog, solve
from planner.check.redundancy import knocked_out
from planner.planning.infeasible import Infeasible
from planner.search.survey_cache import SurveyCache
from planner.simulation.failures import failing
from planner.simulation.rebuild import deployed
from planner.simulation.run import simulate

LOSSES = ("n+1-replica", "n+1-instance", "n+1-zone")
NOISE = 0.01  # of requests: so many more may be beyond a limit in the simulator than in the queue that plans are made with
REQUESTS, SECONDS, AT = 12_000, 120, "1ms"
RESULTS = Path(__file__).parent / "results" / "redundancy.json"


def question(seed: int) -> dict[str, Any]:
    """One or two workloads at hyperscalers, on some GPU types, with a loss to bear."""
    rng = random.Random(seed)
    gpus = rng.sample(["H100-SXM-80GB", "A100-SXM-80GB", "L4", "A100-40GB", "B200-SXM"], 2)
    workloads = [
        {
            "name": f"w{i}", "qps": round(exp(rng.uniform(log(5), log(300))), 1), "min_quality": rng.choice([0.4, 0.5, 0.6]),
            "input_tokens": rng.choice([300, 1000]), "output_tokens": 150,
        }
        for i in range(rng.choice([1, 1, 2]))
    ]  # fmt: skip
    policy = {"redundancy": LOSSES[seed % 3], "startup_lead": "24h", "max_slo_load": rng.choice([1.0, 1.0, 0.8])}
    return {"workload": workloads, "supply": {"gpus": gpus, "kinds": ["hyperscaler"]}, "policy": policy, "solver": {"time_limit": "60s", "gap": 0.01}}


def losses(plan: Plan, what: str, catalog: Catalog) -> Iterator[int]:
    """Numbers of the failures of a kind that differ in how many replicas of each deployment they take."""
    fleet, seen = deployed(plan, plan.scenario, catalog, plan.scenario.policy.confidence), set()
    for number, group in enumerate(failing(what, plan, fleet, catalog), 1):
        taken = tuple(sum(i == d for i, _ in group) for d in range(len(fleet)))
        if taken not in seen:
            seen.add(taken)
            yield number


def served(plan: Plan, what: str, number: int, catalog: Catalog) -> bool:
    """Whether every limit holds in the simulator without what is lost."""
    found = simulate(plan, catalog, requests=max(REQUESTS, round(SECONDS * sum(w.qps for w in plan.workloads))), failures=(f"{what}:{number}@{AT}",))
    within = all(s.within + (s.half_width or 0.0) >= s.percentile / 100 - NOISE for w in found.workloads for s in w.slo)
    return within and sum(d.refused for d in found.deployments) == 0


def measured(seed: int, catalog: Catalog, cache: SurveyCache) -> dict[str, Any] | None:
    """What becomes of one question's plan, and of the plan without redundancy, after every loss; None where there is no plan."""
    asked = question(seed)
    what = asked["policy"]["redundancy"].removeprefix("n+1-")
    try:
        plan = solve(Scenario.model_validate(asked), catalog, compare=False, cache=cache)
    except Infeasible:
        return None
    bare = solve(Scenario.model_validate({**asked, "policy": {**asked["policy"], "redundancy": "none"}}), catalog, compare=False, cache=cache)
    supposed = bare.model_copy(
        update={"scenario": bare.scenario.model_copy(update={"policy": bare.scenario.policy.model_copy(update={"redundancy": f"n+1-{what}"})})}
    )
    row: dict[str, Any] = {"seed": seed, "loss": what, "usd_per_hour": plan.cost.usd_per_hour, "usd_per_hour_without": bare.cost.usd_per_hour}
    for name, one in (("with", plan), ("without", supposed)):
        tried = knocked_out(one, catalog)
        outcomes = [served(one, what, number, catalog) for number in losses(one, what, catalog)]
        row[name] = {
            "checked": len(tried), "not_served_in_check": sum(not t for t in tried),
            "simulated": len(outcomes), "not_served_in_simulator": sum(not o for o in outcomes),
        }  # fmt: skip
    return row


def main(scenarios: int = 50) -> None:
    """Runs them and writes what was found."""
    catalog, rows, seed = load_catalog(), list[dict[str, Any]](), 0
    cache = SurveyCache(catalog)
    while len(rows) < scenarios and seed < 4 * scenarios:
        if (row := measured(seed, catalog, cache)) is not None:
            rows.append(row)
            RESULTS.write_text(json.dumps(summary(rows), indent=1) + "\n")
        seed += 1


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts over all scenarios, then each."""

    def total(name: str, key: str) -> int:
        return sum(r[name][key] for r in rows)

    keys = ("checked", "not_served_in_check", "simulated", "not_served_in_simulator")
    premiums = sorted(r["usd_per_hour"] / r["usd_per_hour_without"] - 1 for r in rows)
    return {
        "scenarios": len(rows), "with": {k: total("with", k) for k in keys}, "without": {k: total("without", k) for k in keys},
        "scenarios_without_of_which_some_loss_is_not_served": {
            "check": sum(r["without"]["not_served_in_check"] > 0 for r in rows), "simulator": sum(r["without"]["not_served_in_simulator"] > 0 for r in rows)
        },
        "median_premium": premiums[len(premiums) // 2], "rows": rows,
    }  # fmt: skip


if __name__ == "__main__":
    main(*(int(a) for a in sys.argv[1:]))
