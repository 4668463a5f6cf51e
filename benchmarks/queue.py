"""How far the queue formulas lie from the simulator, and how fast that is.

    python benchmarks/queue.py [--requests 100000]

Candidates x workloads x rates: p95 TTFT and TPOT of one replica, capacity of one and of pools; p50, p95 and p99 of TTFT, TPOT and E2E over
many lengths. Prints tables and writes benchmarks/results/queue.json.
Both sides take the same step times, so errors are those of the queueing formulas alone (and of the few points that stand for lengths).
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != FOLDER]  # scripts here are named like modules that libraries look for
if __name__ == "queue":  # another script of this folder runs, and a library looks for Python's own
    del sys.modules["queue"]
    import_module("queue")

import numpy as np
from rich.console import Console
from rich.table import Table

from planner import Scenario, load_catalog, simulate, solve
from planner.catalog.catalog import Catalog
from planner.performance.capacity import Limit, capacity, pooled_qps, service
from planner.performance.coefficients import load_coefficients
from planner.performance.evidence import evidence
from planner.performance.lengths import LengthMix, lognormal_mix
from planner.performance.memory import memory_fit
from planner.performance.replicas import ENGINES, PRECISIONS, Replicas
from planner.performance.serving import curves_of
from planner.performance.step import StepCurves
from planner.planning.infeasible import Infeasible
from planner.planning.verify import breaches
from planner.simulation.engine import PREEMPTED, REFUSED
from planner.simulation.rebuild import Deployed
from planner.simulation.results import half_width, quantile
from planner.simulation.run import WARM_UP, feed
from planner.simulation.state import Engine, Flow
from planner.simulation.stream import Poisson, lognormal_lengths

RESULTS = FOLDER / "results"
CANDIDATES = (  # model, precision, GPU, TP
    ("Llama-3.1-8B", "bf16", "A100-SXM-80GB", 1),
    ("Llama-3.1-8B", "fp8", "H100-SXM-80GB", 1),
    ("Llama-3.1-70B", "fp8", "H200-SXM-141GB", 2),
    ("gpt-oss-120b", "mxfp4", "H100-SXM-80GB", 1),
    ("gpt-oss-120b", "mxfp4", "B200-SXM", 1),
    ("Qwen3-Next-80B-A3B", "nvfp4", "B200-SXM", 1),
)
WORKLOADS = (  # name, input, output, CVs, TTFT and TPOT limits (s, p95)
    ("chat", 1000, 300, 0.96, 0.77, 2.0, 0.05),
    ("short chat", 200, 200, 0.8, 0.8, 1.0, 0.05),
    ("long answers", 500, 2000, 0.8, 0.8, 2.0, 0.05),
    ("summaries", 4000, 300, 0.8, 0.8, 4.0, 0.05),
    ("code completion", 2000, 50, 1.0, 1.0, 2.0, 0.05),
)
LOADS = (0.5, 0.75, 0.95)  # of the capacity by the formula
POOLS = (4, 16)
CONFIDENCE, PERCENTILE, MOST_SEQUENCES, BATCHED_TOKENS = 0.8, 0.95, 256, 8192
PLANS = 100
LENGTHS = ((500, 50), (1000, 300), (500, 2000), (2000, 50), (4000, 5), (4000, 300), (8000, 200), (32000, 500), (100000, 1000))  # input, output
CVS = (0.2, 0.5, 1.0, 1.5)
SHARES_OF_MOST = (0.3, 0.6, 0.8)  # of the most requests/s that a replica serves
PERCENTILES = ("p50", "p95", "p99")
UNSTABLE = 1e-3  # share of requests preempted (or refused): KV cache that runs out is not in the formulas
STEPS = 9  # halvings of a bracket of 0.5 to 1.5 times the formula

Built = tuple[StepCurves, LengthMix, np.ndarray, Engine]


@dataclass(frozen=True)
class Case:
    """One candidate serving one workload: what the formulas say, and the engine to simulate."""

    name: str
    workload: tuple[str, int, int, float, float, float, float]
    engine: Engine
    formula_qps: float
    saturated_qps: float
    predict: Callable[[float], tuple[float, float]]  # rate -> (p95 TTFT, p95 TPOT) in seconds


def built_of(catalog: Catalog, candidate: tuple[str, str, str, int], isl: int, osl: int, input_cv: float, output_cv: float, most: int) -> Built | None:
    """Step curves, lengths, sequences and the engine to simulate; None where no request fits."""
    name, precision, gpu, tp = candidate
    card = next(c for c in catalog.cards if c.name == name)

    def one(value: int) -> np.ndarray:
        return np.array([value], dtype=np.int64)

    replica = Replicas(
        (card.architecture,), (catalog.gpus[gpu],), one(0), one(0), one(PRECISIONS.index(precision)), one(ENGINES.index("vllm")), one(tp), one(1)
    )
    mix = lognormal_mix(isl, osl, input_cv, output_cv)
    coefficients, memory = load_coefficients(catalog.coefficients_file), memory_fit(replica, mix)
    curves = curves_of(replica, evidence(replica, (name,), catalog.measured), (name,), mix, coefficients, CONFIDENCE, batched_tokens=BATCHED_TOKENS)
    seqs = np.minimum(memory.slots, most)
    if seqs[0] < 1:
        return None
    kv = int(memory.kv_budget_gib[0] / memory.kv_gib_per_sequence[0] * (isl + osl))
    step = np.interp(np.arange(int(seqs[0]) + 1), curves.n, curves.step_s[0])
    engine = Engine(step, (Flow(float(curves.prefill_s_per_token[0])),), kv, BATCHED_TOKENS, float(curves.overhead_s[0]))
    return curves, mix, seqs, engine


def case_of(catalog: Catalog, candidate: tuple[str, str, str, int], workload: tuple[str, int, int, float, float, float, float]) -> Case | None:
    _, isl, osl, input_cv, output_cv, ttft, tpot = workload
    built = built_of(catalog, candidate, isl, osl, input_cv, output_cv, MOST_SEQUENCES)
    if built is None:
        return None
    curves, mix, seqs, engine = built
    found = capacity(curves, mix, [Limit("ttft", ttft, 95), Limit("tpot", tpot, 95)], seqs)
    if not found.qps[0] > 0:
        return None
    engine = replace(engine, flows=(replace(engine.flows[0], ttft=ttft, tpot=tpot),))

    def predict(rate: float) -> tuple[float, float]:
        s = service(curves, mix, np.array([rate]), seqs)
        return float(s.ttft_s["p95"][0]), float(s.tpot_s["p95"][0])

    return Case("{} {} {} TP{}".format(*candidate), workload, engine, float(found.qps[0]), float(found.qps_saturated[0]), predict)


def percentile_rows(catalog: Catalog, requests: int) -> list[dict[str, object]]:
    """Percentiles by formula and by simulation: candidates x lengths x spreads x loads. Loads are shares of the rate at which all slots are taken."""
    rows: list[dict[str, object]] = []
    for candidate, (isl, osl), cv in itertools.product(CANDIDATES, LENGTHS, CVS):
        built = built_of(catalog, candidate, isl, osl, cv, cv, 1024 if isl < 8000 else 256)
        if built is None:
            continue
        curves, mix, seqs, engine = built
        most = float(capacity(curves, mix, [], seqs).qps_saturated[0])
        for load in SHARES_OF_MOST:
            rate = np.array([load * most])
            stream = Poisson([float(rate[0])], [lognormal_lengths(isl, osl, cv, cv)], requests, 3)
            run = feed([Deployed(engine, (1.0,), ((0, 0),))], stream, "least_loaded", 3, warm_up=WARM_UP).running[0].sim
            unstable = float(run.cell[PREEMPTED] + run.cell[REFUSED]) / requests
            said, row = service(curves, mix, rate, seqs), {"candidate": " ".join(map(str, candidate)), "input": isl, "output": osl, "cv": cv, "load": load}
            for m, metric in enumerate(("ttft", "tpot", "e2e")):
                for name in PERCENTILES:
                    seen, sure = quantile_and_width(run.histogram[0, m], float(name[1:]) / 100)
                    value = float(getattr(said, f"{metric}_s")[name][0])
                    row |= {f"{metric}_{name}": value, f"{metric}_{name}_seen": seen, f"{metric}_{name}_error": value / seen - 1, f"{metric}_{name}_sure": sure}
            rows.append(row | {"unstable": unstable})
    return rows


def quantile_and_width(histogram: np.ndarray, share: float) -> tuple[float, float]:
    """A quantile, and half the width of its 95 % interval as a share of it: as if requests were independent, which they are less the busier it is."""
    off = 1.96 * (share * (1 - share) / histogram.sum()) ** 0.5
    low, seen, high = (quantile(histogram, min(max(x, 0.0), 1.0)) for x in (share - off, share, share + off))
    return seen, (high - low) / 2 / seen


def simulated(case: Case, rate: float, replicas: int, requests: int, seed: int) -> tuple[float, float, float, float]:
    """(p95 TTFT, p95 TPOT in s, least share of requests inside a limit, half of its 95 % confidence interval) at a rate per replica."""
    _, isl, osl, input_cv, output_cv, *_ = case.workload
    stream = Poisson([rate * replicas], [lognormal_lengths(isl, osl, input_cv, output_cv)], requests, seed)
    sim = feed([Deployed(case.engine, (1.0,), ((0, 0),) * replicas)], stream, "least_loaded", seed, warm_up=WARM_UP).running[0].sim
    counts, histogram = sim.counts[0], sim.histogram[0]
    shares = counts[:, :2].sum(axis=0) / counts[:, 4].sum()
    tightest = int(np.argmin(shares))
    width = half_width(counts[:, tightest], counts[:, 4]) or 0.0
    return quantile(histogram[0], PERCENTILE), quantile(histogram[1], PERCENTILE), float(shares[tightest]), width


def simulated_capacity(case: Case, replicas: int, formula: float, requests: int) -> float:
    """The largest rate per replica at which both limits hold, by bisection with one seed."""
    low, high = 0.5, 1.5
    for _ in range(STEPS):
        middle = (low + high) / 2
        held = simulated(case, middle * formula, replicas, requests, 7)[2] >= PERCENTILE
        low, high = (middle, high) if held else (low, middle)
    return low * formula


def random_plans(count: int, catalog: Catalog, requests: int) -> list[dict[str, object]]:
    """Random questions with one to three workloads: whether the simulated plan misses a limit by more than chance."""
    rng, rows = np.random.default_rng(3), []
    while len(rows) < count:
        asked = [
            {
                "name": f"w{i}", "qps": float(10 ** rng.uniform(0, 2)), "min_quality": float(rng.choice([0.3, 0.5, 0.66])),
                "input_tokens": int(10 ** rng.uniform(2.3, 4.2)), "output_tokens": int(10 ** rng.uniform(1.3, 3)),
                "slo": {
                    f"ttft_p{rng.choice([90, 95, 99])}": f"{rng.choice([0.3, 0.5, 1, 2, 4])}s",
                    f"tpot_p{rng.choice([90, 95, 99])}": f"{rng.choice([20, 30, 50])}ms",
                },
            }
            for i in range(int(rng.integers(1, 4)))
        ]  # fmt: skip
        try:
            plan = solve(Scenario.model_validate({"workload": asked}), catalog, compare=False)
        except Infeasible:
            continue
        missed = breaches(simulate(plan, catalog, requests=requests))
        shared = any(sum(r.deployment == i for w in plan.workloads for r in w.routing) > 1 for i in range(len(plan.deployments)))
        words = ", ".join(f"{w.name} {s.metric} p{s.percentile:g} {s.limit_ms:g} ms: {s.within:.2%}" for w, s in missed)
        rows.append({"workloads": len(asked), "deployments": len(plan.deployments), "shared": shared, "missed": words, "asked": asked})
    return rows


def speed(replicas: int, requests: int = 1_000_000) -> dict[str, float]:
    """Requests per CPU second, drawing them included: Llama-8B-like steps, chat, 80 % load."""
    engine = Engine(6.5e-3 + 1e-4 * np.maximum(np.arange(257.0), 1), (Flow(27e-6, ttft=1.0, tpot=0.05),), 500_000)
    fleet = [Deployed(engine, (1.0,), ((0, 0),) * replicas)]
    stream = Poisson([16.0 * replicas], [lognormal_lengths(512, 256, 0.8, 1.0)], requests, 1)
    feed(fleet, Poisson([16.0], [lognormal_lengths(512, 256, 0.8, 1.0)], 1000, 1), "least_loaded")  # compiled before the clock starts
    best = min(_seconds(fleet, stream) for _ in range(3 if requests <= 1_000_000 else 1))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # of this process so far
    return {"replicas": replicas, "requests": requests, "cpu_s": best, "requests_per_cpu_s": requests / best, "peak_mib": peak}


def _seconds(fleet: list[Deployed], stream: Poisson) -> float:
    start = time.process_time()
    feed(fleet, stream, "least_loaded")
    return time.process_time() - start


def table(title: str, rows: Sequence[Mapping[str, object]]) -> None:
    grid = Table(title=title, title_justify="left")
    for name in rows[0]:
        grid.add_column(name, justify="right" if isinstance(rows[0][name], (int, float)) else "left")
    for row in rows:
        grid.add_row(*(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()))
    Console(width=190).print(grid)


def errors(values: list[float]) -> dict[str, float]:
    """Quantiles of formula / simulation - 1."""
    size = sorted(abs(v) for v in values)
    return {
        "cases": len(values), "median_abs": statistics.median(size), "p90_abs": float(np.quantile(size, 0.9)), "bias": statistics.median(values),
        "lowest": min(values), "highest": max(values),
    }  # fmt: skip


def unsafe(rows: Sequence[Mapping[str, object]], name: str) -> int:
    """Cases that are predicted more than 5 % too fast, beyond the simulation's own uncertainty."""
    return sum(float(str(r[f"{name}_error"])) < -0.05 - float(str(r[f"{name}_sure"])) for r in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000, help="requests of each simulation")
    requests, catalog = parser.parse_args().requests, load_catalog()
    cases = [c for candidate in CANDIDATES for workload in WORKLOADS if (c := case_of(catalog, candidate, workload))]
    service_rows: list[dict[str, object]] = []
    capacity_rows: list[dict[str, object]] = []
    for case in cases:
        for load in LOADS:
            rate = load * case.formula_qps
            ttft, tpot = case.predict(rate)
            seen_ttft, seen_tpot, inside, width = simulated(case, rate, 1, requests, 3)
            service_rows.append({
                "candidate": case.name, "workload": case.workload[0], "load": load, "qps": rate, "ttft_ms": ttft * 1e3, "simulated_ttft_ms": seen_ttft * 1e3,
                "ttft_error": ttft / seen_ttft - 1, "tpot_ms": tpot * 1e3, "simulated_tpot_ms": seen_tpot * 1e3, "tpot_error": tpot / seen_tpot - 1,
                "least_inside": inside, "half_width": width,
            })  # fmt: skip
        for replicas in (1, *POOLS):
            formula = float(pooled_qps(np.array(case.formula_qps), np.array(case.saturated_qps), replicas))
            seen = simulated_capacity(case, replicas, formula, requests)
            capacity_rows.append(
                {"candidate": case.name, "workload": case.workload[0], "replicas": replicas, "qps": formula, "simulated_qps": seen, "error": formula / seen - 1}
            )
    table("Service of one replica at p95, formula against simulation", service_rows)
    table("Capacity per replica", capacity_rows)
    summary = {
        f"{m}_p95_at_{load:g}": errors([float(str(r[f"{m}_error"])) for r in service_rows if r["load"] == load]) for m in ("ttft", "tpot") for load in LOADS
    }
    summary |= {m: errors([float(str(r[f"{m}_error"])) for r in service_rows]) for m in ("ttft", "tpot")}
    summary |= {f"capacity_of_{n}": errors([float(str(r["error"])) for r in capacity_rows if r["replicas"] == n]) for n in (1, *POOLS)}
    table("Errors: formula / simulation - 1", [{"what": k, **v} for k, v in summary.items()])
    rows = percentile_rows(catalog, requests)
    steady = [r for r in rows if float(str(r["unstable"])) < UNSTABLE]
    percentiles = {
        f"{m}_{p}": {**errors([float(str(r[f"{m}_{p}_error"])) for r in steady]), "unsafe": unsafe(steady, f"{m}_{p}")}
        for m in ("ttft", "tpot", "e2e")
        for p in PERCENTILES
    }
    table(f"Percentiles over {len(steady)} cases ({len(rows) - len(steady)} more run out of KV cache)", [{"what": k, **v} for k, v in percentiles.items()])
    plans = random_plans(PLANS, catalog, requests)
    missed = [{k: v for k, v in r.items() if k != "asked"} for r in plans if r["missed"]]
    print(f"random plans: {len(plans)}, of which {sum(bool(r['shared']) for r in plans)} share a deployment; limits missed by {len(missed)}")
    if missed:
        table("Plans that miss", missed)
    speeds = [speed(1), speed(8), speed(32), speed(8, 10_000_000)]
    table("Speed of the simulator", speeds)
    RESULTS.mkdir(exist_ok=True)
    found = {
        "requests": requests,
        "confidence": CONFIDENCE,
        "summary": summary,
        "percentiles": percentiles,
        "percentile_cases": rows,
        "service": service_rows,
        "capacity": capacity_rows,
        "plans": plans,
        "speed": speeds,
    }
    (RESULTS / "queue.json").write_text(json.dumps(found | {"speed": speeds}, indent=1) + "\n")


if __name__ == "__main__":
    main()
