"""How far the formulas of closed loops lie from the simulator: N requests in flight on one replica, each followed by the next as soon as it is answered.

    python benchmarks/closed.py [--requests 30000]

Candidates x lengths x spreads x shares of the room for prompts. Prints a table; the same step times on both sides, so errors are those of the formulas.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator
from importlib import util
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != FOLDER]  # scripts here are named like modules that libraries look for

import numpy as np

from planner import load_catalog
from planner.catalog.catalog import Catalog
from planner.performance import closed
from planner.performance.lengths import LengthMix
from planner.performance.step import StepCurves
from planner.simulation.results import quantile
from planner.simulation.state import Engine, Running, Sessions
from planner.simulation.stream import lognormal_lengths

spec = util.spec_from_file_location("open_queue", FOLDER / "queue.py")
assert spec is not None and spec.loader is not None
queue = util.module_from_spec(spec)
sys.modules["open_queue"] = queue
spec.loader.exec_module(queue)

CANDIDATES = (*queue.CANDIDATES, ("Qwen3-Next-80B-A3B", "fp8", "B200-SXM", 8), ("Qwen3-1.7B", "fp8", "H100-SXM-80GB", 1))
LENGTHS = ((200, 200), (500, 50), (1000, 300), (500, 2000), (2000, 50), (4000, 300), (8000, 200), (8000, 1000), (32000, 500), (100000, 1000))
CVS = ((0.2, 0.2), (0.9, 0.75), (0.5, 1.25), (1.3, 0.3))  # of prompts and answers; those of exactly one length end together and are not in the formulas
LOADS = (0.3, 0.55, 0.75, 0.9)  # shares of the room for prompts
FULL_KV = 0.95  # share of the KV cache that the mean and two deviations may take: what finds no room is not in the formulas
PERCENTILES = (0.5, 0.95, 0.99)


def cases(catalog: Catalog) -> Iterator[tuple[StepCurves, LengthMix, np.ndarray, Engine, int, tuple[int, int], tuple[float, float]]]:
    """Whatever finds a sequence for each, with about these loads."""
    for candidate, (isl, osl), cv in itertools.product(CANDIDATES, LENGTHS, CVS):
        built = queue.built_of(catalog, candidate, isl, osl, *cv, 1024 if isl < 8000 else 256)
        if built is None:
            continue
        curves, mix, seqs, engine = built
        grid = np.geomspace(0.1, float(seqs[0]), 100)
        states = [closed.closed(closed.loop(curves, mix, seqs), np.array([[b]])) for b in grid]
        loads = [float(s.load[0, 0]) for s in states]
        for n in sorted({max(round(float(states[min(int(np.searchsorted(loads, x)), 99)].in_flight[0, 0])), 1) for x in LOADS}):
            room = engine.kv_tokens * FULL_KV - n * (isl + osl / 2) - 2 * n**0.5 * isl * cv[0]
            if n < seqs[0] and room > 0:
                yield curves, mix, seqs, engine, n, (isl, osl), cv


def simulated(engine: Engine, n: int, lengths: tuple[int, int], cv: tuple[float, float], rate: float, requests: int) -> np.ndarray | None:
    """Histograms; None where requests were preempted."""
    warm = max(0.1 * requests, 5 * n) / rate
    drawn = np.stack(lognormal_lengths(*lengths, *cv)(np.random.default_rng(1), 1 << 17), axis=1)[None]
    until = warm + requests / rate
    running = Running(engine, 1, "least_loaded", 0, until / 240, sessions=Sessions((n,), drawn, (warm, until)))
    running.finish()
    happened = running.sim.happened
    found: np.ndarray = running.sim.histogram[0]
    return None if happened["preempted"] + happened["refused"] > 1e-3 * requests else found


def main() -> None:
    """Prints median size, share within 10 %, number more than 5 % and 10 % too short, least and most."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=30_000)
    requests, errors = parser.parse_args().requests, dict[str, list[float]]()
    for curves, mix, seqs, engine, n, lengths, cv in cases(load_catalog()):
        said, rate = closed.service(curves, mix, np.array([float(n)]), seqs)
        seen = simulated(engine, n, lengths, cv, float(rate[0]), requests)
        for (m, metric), p in itertools.product(enumerate(("ttft", "tpot", "e2e")), PERCENTILES if seen is not None else ()):
            error = float(getattr(said, f"{metric}_s")[f"p{100 * p:g}"][0]) / quantile(seen[m], p) - 1
            errors.setdefault(f"{metric} p{100 * p:g}", []).append(error)
    for name, found in errors.items():
        e = np.array(found)
        short = f"{(e < -0.05).sum()} and {(e < -0.1).sum()} over 5 and 10 % short"
        print(f"{name:9} {len(e)} cases, median {np.median(abs(e)):.1%}, {np.mean(abs(e) < 0.1):.0%} within 10 %, {short}, {e.min():+.0%} to {e.max():+.0%}")


if __name__ == "__main__":
    main()
