"""How far the capacity of pools behind a least-loaded router lies from the simulator: replicas with few and many slots, limits of every kind.

Both sides take the same step times, so errors are those of the formulas alone. Prints tables and writes benchmarks/results/pools.json:
python -m benchmarks.pools
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from planner.performance.capacity import Limit, capacity, pooled_qps
from planner.performance.chain import Chain, Interpolation, chain
from planner.performance.lengths import LengthMix, lognormal_mix
from planner.performance.step import GRID, StepCurves
from planner.simulation.rebuild import Deployed
from planner.simulation.results import STUDENT_95
from planner.simulation.run import WARM_UP, feed
from planner.simulation.state import Engine, Flow
from planner.simulation.stream import Poisson, lognormal_lengths

RESULTS = Path(__file__).parent / "results" / "pools.json"
ENGINES = {"slow": (0.06, 6e-4, 2e-4), "fast": (6.5e-3, 1e-4, 27e-6)}  # seconds: of a step, of a sequence in it, of a prompt token; 8B on an L4, an H100
LENGTHS = ((300, 150, 0.8), (1000, 150, 1.2), (1000, 300, 0.5), (3000, 100, 0.8), (500, 1000, 1.0))  # input, output, CV of both
HELD_LENGTHS = ((700, 200, 0.7), (2000, 400, 1.0), (150, 500, 1.3))  # the constants of the formula were not fitted to these
SLOTS, REPLICAS = (1, 2, 4, 8, 16, 32, 64, 128), (1, 2, 4, 8, 16)
REQUESTS, SEEDS = 15_000, (1, 2, 3)
LOWEST, HIGHEST, STEPS = 0.4, 2.5, 10  # the bracket of the simulated capacity by the formula's, and how often it is halved
OVER = 1.02


@dataclass(frozen=True)
class Case:
    """One kind of replica, what it is asked, and the limits as the simulator counts them."""

    engine: str
    lengths: tuple[int, int, float]
    slots: int
    name: str
    limits: tuple[Limit, ...]
    counted: tuple[Limit, ...]
    token_s: float


def cases(lengths: tuple[tuple[int, int, float], ...]) -> Iterator[Case]:
    """Every engine, length and number of slots under every kind of limit."""
    for (engine, (_, _, token)), one, slots in itertools.product(ENGINES.items(), lengths, SLOTS):
        queue = chained(engine, one, slots, token)
        full, part = float(queue.tpot_full[0, 0]), float(Interpolation(GRID, np.array([[max(0.7 * slots, 1.0)]]))(queue.tpot)[0, 0])
        answer, prompt = full * one[1], float(np.quantile(queue.prompts, 0.99))
        longest = full * float(np.quantile(queue.mix.output_tokens, 0.95))
        patient, brief = Limit("ttft", 0.2 * answer + 2 * prompt, 95), Limit("ttft", 0.1 * answer + 2 * prompt, 95)
        for name, limits in (
            ("TTFT p95", (brief,)), ("TPOT p90, slots bind", (Limit("tpot", 1.05 * full, 90), patient)), ("TPOT p95", (Limit("tpot", part, 95), patient)),
            ("TPOT p99", (Limit("tpot", full, 99), patient)), ("E2E p95", (Limit("e2e", 1.3 * longest + 2 * prompt, 95),)),
        ):  # fmt: skip
            yield Case(engine, one, slots, name, limits, limits, token)
        # Prompts that take no time: whoever waits longer than for the step under way and its own found the replica full.
        step = float(Interpolation(GRID, np.array([[float(slots)]]))(queue.step)[0, 0])
        yield Case(engine, (16, *one[1:]), slots, "full p95", (Limit("full", np.inf, 95),), (Limit("ttft", 2.02 * step, 95),), 1e-9)


def chained(engine: str, lengths: tuple[int, int, float], slots: int, token: float) -> Chain:
    curves, mix = built(engine, lengths, token)
    return chain(curves, mix, np.array([slots]))


def built(engine: str, lengths: tuple[int, int, float], token: float) -> tuple[StepCurves, LengthMix]:
    base, slope, _ = ENGINES[engine]
    step = (base + slope * GRID)[None]
    return StepCurves(GRID, step, np.array([token]), np.zeros(1), np.zeros_like(step)), lognormal_mix(*lengths[:2], lengths[2], lengths[2])


def held(case: Case, rate: float, replicas: int, seed: int) -> bool:
    """Whether all limits hold in the simulator at a rate per replica."""
    isl, osl, cv = case.lengths
    base, slope, _ = ENGINES[case.engine]
    flow = Flow(case.token_s, **{x.metric: x.limit_s for x in case.counted})
    engine = Engine(base + slope * np.arange(case.slots + 1.0), (flow,), 1 << 40)
    stream = Poisson([rate * replicas], [lognormal_lengths(isl, osl, cv, cv)], REQUESTS, seed)
    counts = feed([Deployed(engine, (1.0,), (1.0,), ((0, 0),) * replicas)], stream, "least_loaded", seed, WARM_UP).running[0].sim.counts[0]
    of = {"ttft": 0, "tpot": 1, "e2e": 2}
    return all(counts[:, of[x.metric]].sum() >= x.percentile / 100 * counts[:, 4].sum() for x in case.counted)


def simulated(case: Case, formula: float, replicas: int, seed: int) -> float:
    """The largest rate per replica at which all limits hold, by the formula's."""
    low, high = LOWEST, HIGHEST
    for _ in range(STEPS):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if held(case, middle * formula, replicas, seed) else (low, middle)
    return low


def measured(case: Case) -> list[dict[str, Any]]:
    """Formula by simulation for every size of a pool; none where no request is served."""
    curves, mix = built(case.engine, case.lengths, case.token_s)
    found = capacity(curves, mix, case.limits, np.array([case.slots]))
    rows = []
    for replicas in REPLICAS if found.qps[0] > 0 else ():
        formula = float(pooled_qps(found.qps, found.qps_saturated, replicas)[0])
        each = np.array([1 / simulated(case, formula, replicas, seed) for seed in SEEDS])
        sure = STUDENT_95[len(each) - 2] * each.std(ddof=1) / len(each) ** 0.5
        isl, osl, cv = case.lengths
        row = {"engine": case.engine, "input": isl, "output": osl, "cv": cv, "slots": case.slots, "limits": case.name, "replicas": replicas}
        rows.append({**row, "ratio": round(float(each.mean()), 3), "sure": round(float(sure), 3)})
    return rows


def summed(rows: list[dict[str, Any]], **of: Any) -> dict[str, Any]:
    """Of the rows that are ``of`` this kind."""
    ratios = np.array([r["ratio"] for r in rows if all(r[k] == v for k, v in of.items())])
    low, median, high = (round(float(q), 3) for q in np.quantile(ratios, (0.1, 0.5, 0.9)))
    return {
        **of,
        "cases": len(ratios),
        "p10": low,
        "median": median,
        "p90": high,
        "highest": float(ratios.max()),
        "over": round(float((ratios > OVER).mean()), 3),
    }


def main() -> None:
    """Runs all cases and writes what was found."""
    found: dict[str, Any] = {"requests": REQUESTS, "seeds": len(SEEDS)}
    for group, lengths in (("fitted", LENGTHS), ("held out", HELD_LENGTHS)):
        rows = [row for case in cases(lengths) for row in measured(case)]
        pools = [r for r in rows if r["replicas"] > 1]
        sizes = [summed(rows, slots=s, replicas=n) for s, n in itertools.product(SLOTS, REPLICAS)]
        kinds = [summed(pools, limits=name) for name in dict.fromkeys(r["limits"] for r in rows)]
        found[group] = {"pools": summed(pools), "sizes": sizes, "limits": kinds, "worst": sorted(pools, key=lambda r: -r["ratio"])[:10]}
        grid = Table(
            *("slots", *(f"{n} replicas" for n in REPLICAS)), title=f"formula / simulation, {group}: median (10 to 90 %, highest)", title_justify="left"
        )
        for s in SLOTS:
            grid.add_row(str(s), *(f"{x['median']:.2f} ({x['p10']:.2f} to {x['p90']:.2f}, {x['highest']:.2f})" for x in sizes if x["slots"] == s))
        Console(width=180).print(grid)
        print(found[group]["pools"], *kinds, *found[group]["worst"], sep="\n")
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
