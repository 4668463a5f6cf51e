"""Plans for recorded traffic, simulated with that traffic: do they hold, does one replica fewer, and how far are they from the smallest fleet?

    python benchmarks/traces.py FOLDER

FOLDER holds azure_2023_conv, azure_2023_code and mooncake_conversation as .csv.gz (arrival_s,input_tokens,output_tokens; docs/demand.md says where from).
Superposed copies are turned by random times within the trace (seed 0). Prints tables and writes benchmarks/results/traces.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != FOLDER]  # scripts here are named like modules that libraries look for

import numpy as np
from rich.console import Console
from rich.table import Table

from planner import Scenario, load_catalog, solve
from planner.catalog.catalog import Catalog
from planner.result.plan import Plan
from planner.scenario.change import with_workload
from planner.simulation.rebuild import Deployed, deployed, scenario_of
from planner.simulation.results import quantile
from planner.simulation.run import feed, simulate
from planner.simulation.state import Engine, FleetChange
from planner.simulation.stream import RecordedTrace, RequestBlock, merged, read_trace, superposed

RESULTS = FOLDER / "results"
CASES = (  # trace, copies, limits (TPOT "none": TTFT alone counts)
    ("azure_2023_conv", 50, {"ttft_p95": "1s", "tpot_p95": "50ms"}),
    ("mooncake_conversation", 10, {"ttft_p95": "10s"}),
    ("mooncake_conversation", 10, {"ttft_p95": "10s", "tpot_p95": "none"}),
)
QUALITY, CONFIDENCE = 0.66, 0.8
BURSTY, BURSTY_COPIES, JITTER_S, GPU = "azure_2023_code", 20, 1.0, "H100-SXM-80GB"
BUCKET_S, WIDTH_S, KEEP_S = 1.0, 10, 60


def planned(requests: RequestBlock, slo: dict[str, str], catalog: Catalog, **workload: object) -> Plan:
    """The plan for a trace as users make it: its rate by the percentile rule, its lengths, and no more."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.csv"
        rows = np.column_stack((requests.arrival_s, requests.prompt, requests.answer))
        np.savetxt(file, rows, delimiter=",", header="arrival_s,input_tokens,output_tokens", comments="", fmt=("%.6f", "%d", "%d"))
        asked = {"workload": [{"demand": str(file), "min_quality": QUALITY, "slo": slo, **workload}]}
        return solve(Scenario.model_validate(asked), catalog, compare=False)


def with_replicas(plan: Plan, count: int) -> Plan:
    """The plan with another number of replicas of its only deployment."""
    (only,) = plan.deployments
    hosts = (only.hosts[0].model_copy(update={"replicas": count}),)
    return plan.model_copy(update={"deployments": (only.model_copy(update={"replicas": count, "hosts": hosts}),)})


def case(requests: RequestBlock, copies: int, slo: dict[str, str], catalog: Catalog) -> list[dict[str, object]]:
    """The plan's replicas and fewer, until limits are missed, at the plan's step times and at the median ones."""
    many = superposed(requests, copies)
    plan, rows = planned(many, slo, catalog), []
    (d,), name = plan.deployments, plan.workloads[0].name
    for median in (False, True):
        for replicas in range(d.replicas, 0, -1):
            found = simulate(with_replicas(plan, replicas), catalog, traces={name: many}, median=median)
            w = found.workloads[0]
            inside = {f"{s.metric}_inside": s.within for s in w.slo} | {f"{s.metric}_p95_ms": s.value_ms for s in w.slo}
            rows.append({
                "requests": len(many), "fleet": f"{d.checkpoint} on {d.gpu} {d.layout}", "planned": d.replicas,
                "quantile": "median" if median else f"{CONFIDENCE:g}", "replicas": replicas, "holds": found.met, "attainment": w.attainment, **inside,
            })  # fmt: skip
            if not found.met:
                break
    return rows


def bursty(requests: RequestBlock, catalog: Catalog) -> list[dict[str, object]]:
    """Copies of bursty traffic that burst together: fleets of one size, and what helps smaller ones."""
    rng = np.random.default_rng(0)
    many = merged([replace(requests, arrival_s=requests.arrival_s + rng.uniform(0, JITTER_S)) for _ in range(BURSTY_COPIES)])
    mean = len(many) / float(many.arrival_s[-1])
    slo = {"ttft_p95": "1s", "tpot_p95": "50ms"}
    ruled = planned(many, slo, catalog)
    asked = Scenario.model_validate({"workload": [{"qps": mean, "min_quality": QUALITY, "slo": slo, "lengths": "azure-2023-code"}], "supply": {"gpus": [GPU]}})
    plan = solve(asked, catalog, compare=False)
    (one,), d = deployed(plan, scenario_of(plan), catalog, CONFIDENCE), plan.deployments[0]
    rows: list[dict[str, object]] = []

    def add(what: str, replicas: int, note: str, requests: RequestBlock, changes: Sequence[FleetChange] = ()) -> None:
        ttft, tpot, both, late = _served(one.engine, replicas, requests, changes)
        rows.append({"what": what, "replicas": replicas, "per mean": replicas / d.replicas, "ttft_inside": ttft, "tpot_inside": tpot, "inside": both,
                     "ttft_p95_s": late, "holds": min(ttft, tpot) >= 0.95, "note": note})  # fmt: skip

    add("one size, planned for the mean", d.replicas, f"{mean:.3g} req/s", many)
    peak = ruled.workloads[0].burst_factor
    add(
        "one size, planned by the percentile rule",
        solve(with_workload(asked, 0, burst_factor=peak), catalog, compare=False).deployments[0].replicas,
        f"{peak:.3g} x the mean",
        many,
    )
    smallest = next(n for n in range(d.replicas, 100 * d.replicas) if min(_served(one.engine, n, many)[:2]) >= 0.95)
    add("one size, smallest that holds", smallest, f"{smallest / d.replicas:.3g} x", many)
    for times in (2, 3, 4, 6):
        limit, size = times * mean, int(np.ceil(times * mean / d.capacity_qps_per_replica))
        kept = _limited(many.arrival_s, limit)
        add(f"rate limit at {times} x the mean", size, f"{1 - kept.mean():.1%} turned away", many.take(kept))
        sent = _queued(many.arrival_s, limit)
        wait = np.quantile(sent - many.arrival_s, 0.95)
        add(f"queue before {times} x the mean", size, f"5% wait over {wait:.3g} s before", replace(many, arrival_s=sent))
    for lead in (0, 5, 10, 60):
        changes, most, held = _scaled(many.arrival_s, d.capacity_qps_per_replica, d.replicas, lead)
        add(f"autoscaling, replicas start in {lead} s", most, f"{held:.3g} held on average", many, changes)
    return rows


def _served(engine: Engine, replicas: int, requests: RequestBlock, changes: Sequence[FleetChange] = ()) -> tuple[float, float, float, float]:
    """Shares inside TTFT, TPOT and both, and p95 of TTFT (s)."""
    sim = feed([Deployed(engine, (1.0,), (1.0,), ((0, 0),) * replicas, tuple(changes))], RecordedTrace(requests), "least_loaded").running[0].sim
    counts = sim.counts[0].sum(axis=0)
    ttft, tpot, both = (float(counts[i] / counts[4]) for i in (0, 1, 3))
    return ttft, tpot, both, quantile(sim.histogram[0, 0], 0.95)


def _limited(arrival_s: np.ndarray, limit: float) -> np.ndarray:
    """Which requests a token bucket of one second lets pass."""
    passes, credit, last = np.zeros(len(arrival_s), bool), BUCKET_S * limit, 0.0
    for i, t in enumerate(arrival_s):
        credit, last = min(credit + (t - last) * limit, BUCKET_S * limit), t
        if credit >= 1:
            passes[i], credit = True, credit - 1
    return passes


def _queued(arrival_s: np.ndarray, limit: float) -> np.ndarray:
    """When each request is let through at a rate of at most ``limit``."""
    sent, free = np.empty(len(arrival_s)), 0.0
    for i, t in enumerate(arrival_s):
        sent[i] = max(free, t)
        free = sent[i] + 1 / limit
    return sent


def _scaled(arrival_s: np.ndarray, capacity: float, least: int, lead_s: float) -> tuple[list[FleetChange], int, float]:
    """Replicas for the rate of the last 10 s, there ``lead_s`` later and kept for a minute: changes, most and mean."""
    bins = int(arrival_s[-1] // WIDTH_S) + 1
    rate = np.bincount((arrival_s // WIDTH_S).astype(int), minlength=bins) / WIDTH_S
    wanted = np.maximum(np.ceil(rate / capacity).astype(int), least)
    wanted = np.array([wanted[max(0, i - KEEP_S // WIDTH_S) : i + 1].max() for i in range(bins)])
    changes, now = [FleetChange(0.0, r, "drain") for r in range(least, wanted.max())], least
    for i, count in enumerate(wanted.tolist()):
        seen = (i + 1.0) * WIDTH_S
        changes += [FleetChange(seen + lead_s, r, "up") for r in range(now, count)] + [FleetChange(seen, r, "drain") for r in range(count, now)]
        now = count
    return changes, int(wanted.max()), float(wanted.mean())


def table(title: str, rows: list[dict[str, object]]) -> None:
    grid = Table(title=title, title_justify="left")
    for name in rows[0]:
        grid.add_column(name, justify="right" if isinstance(rows[0][name], (int, float)) else "left")
    for row in rows:
        grid.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()))
    Console(width=200).print(grid)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with the traces")
    folder, catalog = parser.parse_args().folder, load_catalog()
    found: dict[str, object] = {}
    for name, copies, slo in CASES:
        rows = case(read_trace(folder / f"{name}.csv.gz"), copies, slo, catalog)
        title = f"{name} x {copies}, floor {QUALITY}, {', '.join(f'{k} {v}' for k, v in slo.items())}"
        table(title, rows)
        found[title] = rows
    rows = bursty(read_trace(folder / f"{BURSTY}.csv.gz"), catalog)
    title = f"{BURSTY} x {BURSTY_COPIES}, bursting together (within {JITTER_S:g} s), TTFT p95 1 s, TPOT p95 50 ms, {GPU}"
    table(title, rows)
    found[title] = rows
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "traces.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
