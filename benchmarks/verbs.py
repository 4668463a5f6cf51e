"""How fast every verb is: CPU time of the whole command over that of the bare import of its libraries, in one run.

    python benchmarks/verbs.py [--runs 3]

The least of a few runs each, as other work only adds; the simulator's first use, which compiles its core, once. Prints a table and writes
benchmarks/results/verbs.json. Where the time of one command goes: `plan … --timings`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

BARE = "import pyomo.environ, highspy, typer, rich"
RESULTS = Path(__file__).parent / "results"
VERBS = {  # what is asked, and the ratio aimed at
    "plan": ("--qps 200 --min-quality 0.8", 2),
    "why there is no plan": ("--qps 2000 --min-quality 0.6 --budget 10/h", 6),
    "explain": ("explain --qps 200 --min-quality 0.8 --why-not H200-SXM-141GB --fresh", 8),
    "sensitivity": ("sensitivity --qps 200 --min-quality 0.8 --fresh", 10),
    "maximize": ("--budget 20000/month --maximize qps --min-quality 0.8", 6),
    "users": ("--users 20000 --think-time 30s --turns 6 --min-quality 0.7", 5),
    "simulate": ("simulate plan.json", 6),
}
FIRST = 10  # aimed at where the simulator's core is compiled


def cpu_s(command: list[str], folder: str, runs: int, cache: str | None = None) -> float:
    """CPU seconds of a fresh process, the least of so many."""
    environment, found = {**os.environ, **({"XDG_CACHE_HOME": cache} if cache else {})}, []
    for _ in range(runs):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(found)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    plan = [sys.executable, "-m", "planner"]
    with tempfile.TemporaryDirectory() as folder:
        bare = cpu_s([sys.executable, "-c", BARE], folder, runs)
        cpu_s([*plan, *VERBS["plan"][0].split(), "--format", "json", "-o", "plan.json"], folder, 1)
        cpu_s([*plan, "simulate", "plan.json"], folder, 1)  # what is compiled is kept
        rows = {name: (cpu_s([*plan, *words.split()], folder, runs), aim) for name, (words, aim) in VERBS.items()}
        rows["simulate, first use"] = cpu_s([*plan, "simulate", "plan.json"], folder, 1, cache=str(Path(folder) / "cache")), FIRST
    table = Table("verb", "CPU s", "ratio", "aim", title=f"bare import {bare:.2f} CPU s")
    for name, (seconds, aim) in rows.items():
        table.add_row(name, f"{seconds:.2f}", f"{seconds / bare:.2f}", str(aim))
    Console().print(table)
    found = {name: {"cpu_s": round(seconds, 3), "ratio": round(seconds / bare, 2), "aim": aim} for name, (seconds, aim) in rows.items()}
    (RESULTS / "verbs.json").write_text(json.dumps({"bare_import_cpu_s": round(bare, 3), "verbs": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
