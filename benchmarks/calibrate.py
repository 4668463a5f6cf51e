"""How far `plan calibrate` gets with five points of each engine, GPU, model and TP: TPOT errors of the other rows of three sources, before and after.

python benchmarks/calibrate.py DATA_DIR     # validation_points.csv, reference_points.csv
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from planner.bench.points import MeasuredPoint, read_points
from planner.catalog.load import load_catalog
from planner.validation.calibrate import Row, _carried, _median, rows_of

GIVEN, SEEDS = 5, 20


def families(rows: Sequence[Row]) -> dict[tuple[object, ...], list[int]]:
    """Rows with TPOT by engine, GPU, model and TP."""
    found: dict[tuple[object, ...], list[int]] = {}
    for i, row in enumerate(rows):
        if "tpot_ms" in row.log_ratio:
            found.setdefault(row.key(2), []).append(i)
    return found


def errors(rows: Sequence[Row], seed: int) -> tuple[list[float], list[float]]:
    """log(measured/predicted) of the rows not given, before and after."""
    draw, base, rest = np.random.default_rng(seed), list[int](), list[int]()
    for members in families(rows).values():
        if len(members) <= GIVEN:
            continue
        mixed = draw.permutation(members).tolist()
        base, rest = base + mixed[:GIVEN], rest + mixed[GIVEN:]
    if not rest:
        return [], []
    y = np.array([rows[i].log_ratio["tpot_ms"] for i in rest])
    after = y - _carried("tpot_ms", [rows[i] for i in base], [rows[i] for i in rest])
    return y.tolist(), after.tolist()


def main() -> None:
    folder, catalog = Path(sys.argv[1]), load_catalog(())
    points: list[MeasuredPoint] = read_points(folder / "validation_points.csv") + read_points(folder / "reference_points.csv")
    for source in ("vllm_cost_meter", "inferencex_token_position_experiment", "gpustack_perf_lab"):
        mine = [replace(p, notes=p.notes) for p in points if p.source == source]
        rows, _ = rows_of(mine, catalog)
        pairs = [errors(rows, seed) for seed in range(SEEDS)]
        before, after = (np.array([v for pair in pairs for v in pair[k]]) for k in (0, 1))
        print(f"{source}: {len(rows)} rows, {len(families(rows))} families; TPOT of the rest {_median(before):.1%} -> {_median(after):.1%}")


if __name__ == "__main__":
    main()
