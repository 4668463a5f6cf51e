"""Finds how much slower engines are as they start, and how much faster where they were tuned for a maximum: ``python -m planner.calibration.tuning DATA_DIR``.

For developers. Writes catalogs/tuning.csv: quantiles of measured over predicted step time, by engine, every setup (model and GPU) counting the
same. Reads the runs of benchmarks/data/engines_as_started.csv and DATA_DIR's max_throughput.csv.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np

from planner.bench.points import read_points
from planner.calibration import fit as physics
from planner.calibration.maxima import read_maxima
from planner.calibration.measured import CHECKPOINTS, MAXIMA
from planner.catalog.cards import read_card
from planner.catalog.catalog import Catalog
from planner.catalog.files import read_csv
from planner.catalog.load import load_catalog
from planner.catalog.records import Gpu, TunedEngine
from planner.performance.coefficients import load_coefficients
from planner.performance.replicas import ENGINES
from planner.performance.tuning import RECIPE, SHARES
from planner.validation.predictions import predict_points

FEWEST_RUNS = 8  # below them an engine is as the slowest other one
SHORTEST = 10  # tokens of an answer: with fewer the benchmark's own front end is measured
AS_STARTED = ("github:gpustack/gpustack@47277d7 docs/performance-lab", "2026-08-21", "Apache-2.0")
OVERVIEW = "NVIDIA TensorRT-LLM performance overview (github:NVIDIA/TensorRT-LLM@03e27c7, undated)"
RECORDS = (f"MLCommons inference v4.1 offline (2024-08-28) and {OVERVIEW}", "2024-08-28", "Apache-2.0")  # the only date of the two

Runs = Mapping[str, Sequence[tuple[str, float]]]  # engine -> (setup, measured/predicted time)


def as_started(path: Path, catalog: Catalog) -> Runs:
    """Bursts of engines with their defaults, against what a recipe would take."""
    points = [replace(p, tuning=RECIPE) for p in read_points(path) if p.tuning == "default" and p.osl >= SHORTEST]
    found = defaultdict(list)
    for point, answer in zip(points, predict_points(points, catalog, 0.5), strict=True):
        if "output_tps" in answer.predicted:
            found[point.engine].append((f"{point.model}|{point.gpu}", answer.predicted["output_tps"] / point.measured["output_tps_total"]))
    return found


def records(path: Path, models: Path, gpus: Path, catalog: Catalog) -> Runs:
    """Published maxima, against what a recipe would reach with as many requests as fit."""
    cards = [read_card(card) for card in sorted(models.glob("*.toml"))]
    maxima = read_maxima(path, cards, read_csv(gpus, Gpu), CHECKPOINTS, Counter())
    tps = physics.maximum(physics.of_coefficients(load_coefficients(catalog.coefficients_file)), maxima)
    best = maxima.best(tps)
    found = defaultdict(list)
    for model, gpu, engine, ratio in zip(
        maxima.model[best].tolist(), maxima.gpu[best].tolist(), maxima.replicas.engine[best].tolist(), (tps / maxima.tps)[best].tolist(), strict=True
    ):
        found[ENGINES[engine]].append((f"{model}|{gpu}", ratio))
    return found


def rows(tuning: str, runs: Runs, source: tuple[str, str, str]) -> list[TunedEngine]:
    """One row for every engine with enough runs."""
    found = []
    for engine in sorted(runs):
        setups, ratio = Counter(s for s, _ in runs[engine]), np.array([r for _, r in runs[engine]])
        if len(ratio) < FEWEST_RUNS:
            continue
        weight = np.array([1 / setups[s] for s, _ in runs[engine]])
        order = np.argsort(ratio)
        share = (np.cumsum(weight[order]) - weight[order] / 2) / weight.sum()
        values = {f"q{100 * q:02.0f}": round(float(np.interp(q, share, ratio[order])), 3) for q in SHARES}
        found.append(TunedEngine.model_validate({"tuning": tuning, "engine": engine, **values, "runs": len(ratio), "setups": len(setups),
                                                 "source": source[0], "as_of": date.fromisoformat(source[1]), "licence": source[2]}))  # fmt: skip
    return found


def main(arguments: Iterable[str] | None = None) -> int:
    """Command line."""
    root = Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(prog="python -m planner.calibration.tuning", description=__doc__)
    parser.add_argument("data", type=Path, help="folder with max_throughput.csv")
    parser.add_argument("-o", "--output", type=Path, default=root / "catalogs" / "tuning.csv")
    asked = parser.parse_args(None if arguments is None else list(arguments))
    catalog = load_catalog(())
    started = as_started(root / "benchmarks" / "data" / "engines_as_started.csv", catalog)
    fast = records(asked.data / MAXIMA, root / "models", root / "catalogs" / "gpus.csv", catalog)
    found = rows("default", started, AS_STARTED) + rows("record", fast, RECORDS)
    with asked.output.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, list(TunedEngine.model_fields), lineterminator="\n")
        writer.writeheader()
        writer.writerows(row.model_dump(mode="json") for row in found)
    for row in found:
        print(row, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
