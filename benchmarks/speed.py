"""How fast: the whole command against the bare import of its libraries, stage by stage, and the program against bare HiGHS.

    python benchmarks/speed.py [--runs 5] [--scenarios 20] [--sizes]

Prints tables and writes benchmarks/results/speed.json. Ratios compare runs of the same minute; absolute seconds depend on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

BARE = "import pyomo.environ, highspy, typer, rich"
HEADLINE = ["--qps", "200", "--min-quality", "0.8"]
RESULTS = Path(__file__).parent / "results"


def timed(command: list[str], folder: str) -> tuple[float, float, int]:
    """(wall seconds, CPU seconds, exit status) of a fresh process."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, cpu, done.returncode


def peak_mib(command: list[str], folder: str) -> float:
    """Peak memory of a fresh process, MiB."""
    code = f"import resource,subprocess;subprocess.run({command!r},capture_output=True);print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    return int(subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True).stdout) / 1024


def plan(flags: list[str]) -> list[str]:
    return [sys.executable, "-m", "planner", *flags]


def against_bare(name: str, flags: list[str], runs: int, folder: str) -> dict[str, object]:
    """Medians of alternating runs of the bare import and the command."""
    bare, ours, status = [], [], 0
    for _ in range(runs):
        bare.append(timed([sys.executable, "-c", BARE], folder)[:2])
        wall, cpu, status = timed(plan(flags), folder)
        ours.append((wall, cpu))

    def middle(values: list[tuple[float, float]], i: int) -> float:
        return statistics.median(v[i] for v in values)

    return {
        "case": name,
        "flags": " ".join(flags),
        "status": status,
        "bare_s": middle(bare, 0),
        "plan_s": middle(ours, 0),
        "wall_ratio": middle(ours, 0) / middle(bare, 0),
        "cpu_ratio": middle(ours, 1) / middle(bare, 1),
    }


def random_scenarios(count: int, seed: int = 1) -> list[list[str]]:
    """Single-workload questions of all sizes, lengths, floors and limits."""
    rng, found = random.Random(seed), []
    for _ in range(count):
        flags = ["--qps", f"{10 ** rng.uniform(0, 3.5):.3g}", "--min-quality", f"{rng.uniform(0.3, 0.83):.3f}"]
        flags += ["--isl", f"{10 ** rng.uniform(2, 4):.0f}", "--osl", f"{10 ** rng.uniform(1.5, 3):.0f}"]
        flags += ["--ttft", f"{rng.choice([1, 2, 5, 10])}s", "--tpot", f"{rng.choice([30, 50, 80])}ms", "--percentile", rng.choice(["90", "95", "99"])]
        flags += rng.choice([[], [], ["--kind", "hyperscaler"], ["--spare-replicas", "1"], ["--geography", "us"]])
        found.append(flags)
    return found


def stages(folder: str) -> list[tuple[str, float]]:
    """The command's own stages, from --timings."""
    done = subprocess.run([*plan(HEADLINE), "--timings"], cwd=folder, capture_output=True, text=True, check=True)
    return [(line[:24].strip(), float(line[24:].split()[0])) for line in done.stderr.splitlines() if line.endswith(" s")]


def synthetic(candidates: int, classes: int, seed: int = 0) -> object:
    """A random problem: GPUs of eight types, TP 1 to 8, capacities that grow with GPUs, prices per GPU."""
    from planner.program.problem import Column, Problem, Purchasable, Rules, Tier, Traffic

    rng = random.Random(seed)
    price = [rng.uniform(0.5, 8) for _ in range(8)]
    offers = tuple(Purchasable("here", f"gpu{g}", size, price[g] * size) for g in range(8) for size in (1, 8))
    columns = []
    for i in range(candidates):
        g, tp = rng.randrange(8), rng.choice([1, 2, 4, 8])
        speed = {w: price[g] * tp ** rng.uniform(0.7, 1.05) * rng.uniform(0.5, 1.5) for w in range(classes) if rng.random() < 0.7}
        hosts = tuple(o for o, offer in enumerate(offers) if offer.gpu == f"gpu{g}" and offer.gpus >= tp)
        alone = {w: (Tier(1, mu),) for w, mu in speed.items()} if len(speed) == 1 else {}
        columns.append(Column(f"c{i}", f"m{i % 40}", f"k{i % 90}", f"gpu{g}", tp, alone, speed, hosts))
    demands = tuple(Traffic(f"w{w}", (rng.uniform(5, 200),)) for w in range(classes))
    return Problem(demands, tuple(columns), offers, Rules(pools_per_workload=None, mix=True))


def program(candidates: int, classes: int) -> dict[str, object]:
    """Build, transfer and solve of our program to a 1 % gap, against the same matrix given straight to HiGHS."""
    import highspy

    from planner.program.model import build
    from planner.program.solver import SolverOptions, _transfer, optimise

    problem = synthetic(candidates, classes)
    start = time.perf_counter()
    built = build(problem)  # type: ignore[arg-type]
    built_at = time.perf_counter()
    outcome = optimise(built.program, SolverOptions(gap=0.01, time_limit_s=60))
    done_at = time.perf_counter()
    matrix = _transfer(built.program, {})[0].getLp()
    direct = highspy.Highs()
    for option, value in (("output_flag", False), ("mip_rel_gap", 0.01), ("threads", 1), ("time_limit", 60.0)):
        direct.setOptionValue(option, value)
    direct_start = time.perf_counter()
    direct.passModel(matrix)
    direct.run()
    direct_s = time.perf_counter() - direct_start
    return {
        "candidates": candidates,
        "classes": classes,
        "variables": outcome.variables,
        "build_s": built_at - start,
        "transfer_and_solve_s": done_at - built_at,
        "bare_highs_s": direct_s,
        "ratio": (done_at - start) / direct_s,
        "status": outcome.status,
        "gap": outcome.gap,
    }


def table(title: str, rows: list[dict[str, object]]) -> None:
    grid = Table(title=title, title_justify="left")
    for name in rows[0]:
        grid.add_column(name, justify="right" if isinstance(rows[0][name], (int, float)) else "left")
    for row in rows:
        grid.add_row(*(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()))
    Console(width=170).print(grid)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="alternating runs of each case")
    parser.add_argument("--scenarios", type=int, default=20, help="random scenarios beside the headline")
    parser.add_argument("--sizes", action="store_true", help="also the program at sizes up to 10,000 candidates x 20 classes (minutes)")
    options = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as folder:
        timed(plan(HEADLINE), folder)  # byte code is compiled once, as pip does on installation
        cases = [against_bare("headline", HEADLINE, options.runs, folder)]
        cases += [against_bare(f"random {i + 1}", f, max(1, options.runs // 2), folder) for i, f in enumerate(random_scenarios(options.scenarios))]
        memory = peak_mib(plan(HEADLINE), folder)
        by_stage = [{"stage": name, "seconds": seconds} for name, seconds in stages(folder)]
    table("Whole command, cold, against the bare import of pyomo.environ + highspy + typer + rich", cases)
    ratios = [float(str(c["wall_ratio"])) for c in cases]
    print(f"wall ratio: headline {ratios[0]:.2f}, median {statistics.median(ratios):.2f}, worst {max(ratios):.2f}; peak memory {memory:.0f} MiB")
    table("Stages of the headline", by_stage)
    sizes = [(100, 1), (500, 5), (1000, 5)] + ([(2000, 20), (5000, 10), (10000, 1), (10000, 20)] if options.sizes else [])
    programs = [program(c, k) for c, k in sizes]
    table("The program (not pruned): build + transfer + solve to 1 %, against the same matrix straight in HiGHS", programs)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "speed.json").write_text(json.dumps({"end_to_end": cases, "peak_mib": memory, "stages": by_stage, "program": programs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
