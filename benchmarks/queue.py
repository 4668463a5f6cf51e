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
from planner.performance.serving import Known, curves_of
from planner.performance.step import StepCurves
from planner.planning.infeasible import Infeasible
from planner.planning.verify import breaches
from planner.simulation.rebuild import Deployed
from planner.simulation.results import STUDENT_95, half_width, quantile
from planner.simulation.run import WARM_UP, feed
from planner.simulation.state import BATCHES, Engine, Flow, Running
from planner.simulation.stream import Lengths, Poisson, RequestBlock, lognormal_lengths

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
PLANS = 8
LENGTHS = ((500, 50), (1000, 300), (500, 2000), (2000, 50), (4000, 5), (4000, 300), (8000, 200), (32000, 500), (100000, 1000))  # input, output
CVS = (0.2, 0.7, 1.5)
HELD_LENGTHS = ((300, 300), (3000, 100), (1500, 800), (6000, 30), (16000, 400), (50000, 200))  # no constant of the formulas was fitted to any of these
HELD_CVS, HELD_LOADS = (0.35, 1.25), (0.75, 0.93)
SHARES_OF_MOST = (0.3, 0.6, 0.8, 0.92)  # of the most requests/s that a replica serves
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
    known = Known(replica, evidence(replica, (name,), catalog.measured), (name,), coefficients)
    curves = curves_of(known, mix, CONFIDENCE, batched_tokens=BATCHED_TOKENS)
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


def percentile_rows(catalog: Catalog, requests: int, held_out: bool) -> list[dict[str, object]]:
    """Percentiles by formula and by simulation: candidates x lengths x spreads x loads. Loads are shares of the most requests/s."""
    rows: list[dict[str, object]] = []
    lengths, cvs, loads = (HELD_LENGTHS, HELD_CVS, HELD_LOADS) if held_out else (LENGTHS, CVS, SHARES_OF_MOST)
    for candidate, (isl, osl), cv in itertools.product(CANDIDATES, lengths, cvs):
        built = built_of(catalog, candidate, isl, osl, cv, cv, 1024 if isl < 8000 else 256)
        if built is None:
            continue
        curves, mix, seqs, engine = built
        most = float(capacity(curves, mix, [], seqs).qps_saturated[0])
        for load in loads:
            rate = np.array([load * most])
            batches, whole, unstable = in_batches(engine, float(rate[0]), lognormal_lengths(isl, osl, cv, cv), requests)
            said = service(curves, mix, rate, seqs)
            row: dict[str, object] = {"candidate": " ".join(map(str, candidate)), "input": isl, "output": osl, "cv": cv, "load": load, "unstable": unstable}
            for (m, metric), name in itertools.product(enumerate(("ttft", "tpot", "e2e")), PERCENTILES):
                share = float(name[1:]) / 100
                seen, each = quantile(whole[m], share), np.array([quantile(h[m], share) for h in batches if h[m].any()])
                sure = STUDENT_95[len(each) - 2] * each.std(ddof=1) / len(each) ** 0.5 / seen
                error = float(getattr(said, f"{metric}_s")[name][0]) / seen - 1
                row |= {f"{metric}_{name}_{what}": float(f"{v:.4g}") for what, v in (("seen", seen), ("error", error), ("sure", sure))}
            rows.append(row)
    return rows


def in_batches(engine: Engine, rate: float, lengths: Lengths, requests: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Histograms of a run in BATCHES stretches of equally many arrivals, of all of it, and the share of requests preempted or refused.

    Batch means: neighbouring requests are alike where many are in flight, so the spread of whole stretches says how sure a percentile is.
    """
    rng, running, now, seen = np.random.default_rng(3), Running(engine, 1, "least_loaded", 3, 1e9), 0.0, []
    for batch in range(-1, BATCHES):
        many = int(0.15 * requests) if batch < 0 else requests // BATCHES
        arrival = now + np.cumsum(rng.standard_exponential(many)) / rate
        now = float(arrival[-1])
        running.feed(RequestBlock(arrival, *lengths(rng, many), np.zeros(many, np.int64)), np.full(many, batch))
        seen.append(running.sim.histogram[0, :3].copy())
    running.finish()
    sim = running.sim
    return np.diff(np.stack(seen), axis=0), sim.histogram[0, :3], float(sim.happened["preempted"] + sim.happened["refused"]) / requests


def simulated(case: Case, rate: float, replicas: int, requests: int, seed: int) -> tuple[float, float, float, float]:
    """(p95 TTFT, p95 TPOT in s, least share of requests inside a limit, half of its 95 % confidence interval) at a rate per replica."""
    _, isl, osl, input_cv, output_cv, *_ = case.workload
    stream = Poisson([rate * replicas], [lognormal_lengths(isl, osl, input_cv, output_cv)], requests, seed)
    sim = feed([Deployed(case.engine, (1.0,), (1.0,), ((0, 0),) * replicas)], stream, "least_loaded", seed, warm_up=WARM_UP).running[0].sim
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
    fleet = [Deployed(engine, (1.0,), (1.0,), ((0, 0),) * replicas)]
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


def summed(rows: Sequence[Mapping[str, object]], name: str) -> dict[str, float]:
    """Errors of a percentile; the share within 10 %, and the cases predicted more than 5 % too fast beyond the simulation's own uncertainty."""
    found = [float(str(r[f"{name}_error"])) for r in rows]
    unsafe = sum(e < -0.05 - float(str(r[f"{name}_sure"])) for e, r in zip(found, rows, strict=True))
    return {**errors(found), "within_10_percent": float(np.mean(np.abs(found) < 0.1)), "unsafe": unsafe}


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
    percentiles, rows = {}, {False: percentile_rows(catalog, requests, False), True: percentile_rows(catalog, requests, True)}
    for held_out, loads in ((False, "up to 80 %"), (False, "92 %"), (True, "up to 80 %"), (True, "93 %")):
        steady = [r for r in rows[held_out] if float(str(r["unstable"])) < UNSTABLE and (float(str(r["load"])) > 0.8) == ("9" in loads)]
        group = f"{'held out' if held_out else 'fitted'}, {loads} of the most"
        percentiles[group] = {f"{m}_{p}": summed(steady, f"{m}_{p}") for m in ("ttft", "tpot", "e2e") for p in PERCENTILES}
        table(f"Percentiles: {group}", [{"what": k, **v} for k, v in percentiles[group].items()])
    overflowing = {name: sum(float(str(r["unstable"])) >= UNSTABLE for r in rows[held]) for held, name in ((False, "fitted"), (True, "held out"))}
    print(f"left out, since KV cache runs out: {overflowing}")
    plans = random_plans(PLANS, catalog, requests)
    missed = [{k: v for k, v in r.items() if k != "asked"} for r in plans if r["missed"]]
    print(f"random plans: {len(plans)}, of which {sum(bool(r['shared']) for r in plans)} share a deployment; limits missed by {len(missed)}")
    if missed:
        table("Plans that miss", missed)
    speeds = [speed(1), speed(8), speed(32)]
    table("Speed of the simulator", speeds)
    RESULTS.mkdir(exist_ok=True)
    found = {
        "requests": requests,
        "confidence": CONFIDENCE,
        "summary": summary,
        "percentiles": percentiles,
        "overflowing": overflowing,
        "plans": len(plans),
        "plans_missed": missed,
        "speed": speeds,
    }
    (RESULTS / "queue.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
