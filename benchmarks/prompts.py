"""How long prompts take against measured ones, by kind of model: each model left out of the fit in turn.

    python benchmarks/prompts.py [--reference reference_points.csv]

Rows of at most 4 requests and 8,000 input tokens or more, where TTFT is mostly the request's own prompt. Prints a table and writes
benchmarks/results/prompts.json. Needs scipy; every fold is fitted anew.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from planner.calibration import fit as physics
from planner.calibration import krige
from planner.calibration.measured import RANDOM_LENGTHS, FitRows, data_files, read_rows
from planner.catalog.cards import read_card
from planner.catalog.files import read_csv
from planner.catalog.records import Architecture, Gpu
from planner.performance.coefficients import Coefficients
from planner.performance.loop import LoopTerms, loop, loop_columns, means_of, prompt_seconds, steps_waited
from planner.performance.replicas import Floats
from planner.performance.step import decode_step

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
FEW, LONG = 4.0, 8000.0  # requests at once; nominal input tokens
MOST = (0.4, 0.8)  # of the measured TTFT: where overhead and start-up take more, what is left says little of the prompt
KINDS: Mapping[str, Callable[[Architecture], bool]] = {  # the first that is true of an architecture
    "linear or sparse attention": lambda a: a.linear_layers > 0 or a.sparse_context > 0,
    "latent attention (MLA), MoE": lambda a: a.attention == "mla",
    "MoE": lambda a: a.experts > 0,
    "dense": lambda a: not a.experts,
}


def kind_of(architecture: Architecture) -> str:
    """Which of KINDS a model is of."""
    return next(kind for kind, is_it in KINDS.items() if is_it(architecture))


def is_prompt(rows: FitRows) -> NDArray[np.bool_]:
    """Rows whose TTFT is mostly a prompt."""
    nominal = rows.input_tokens / np.where(rows.harness == 1, 1.0, RANDOM_LENGTHS)
    found: NDArray[np.bool_] = np.isfinite(rows.ttft_s) & (rows.concurrency <= FEW) & (nominal >= LONG)
    return found


def ratio(rows: FitRows, coefficients: Coefficients, terms: LoopTerms) -> tuple[Floats, Floats]:
    """Predicted over measured seconds of a prompt [P]: measured is what TTFT leaves when the request's overhead, the steps waited (of start-up, and until
    the engine looks) and the share of other prompts are taken off as predicted. Beside it what overhead and steps are of the measured TTFT [P]."""
    work, decoding = loop(rows.replicas, rows.input_tokens, rows.output_tokens, rows.poll_steps), rows.decoding[:, None]
    e = loop_columns(rows.replicas, coefficients, terms, rows.harness == 1)
    step, prompts = decode_step(work.shape, e, work.kv_read, decoding) * e["vendor"], prompt_seconds(work, e)
    tpot = means_of(work, e, decoding, step, prompts)[1]
    besides, prompt = (e["request_s"] + steps_waited(work, e) * tpot)[:, 0], prompts[:, 0]
    shared = 1 + e["burst"][:, 0] * np.maximum(rows.decoding - 1, 0.0)
    measured = (rows.ttft_s - besides) / shared
    return np.where(measured > 0, prompt / np.maximum(measured, 1e-9), np.inf), besides / rows.ttft_s


def tables(rows: FitRows, out: Floats, inside: Floats) -> dict[str, dict[str, float]]:
    """Median, quartiles and share within 20 %, by kind of model."""
    kinds = np.array([kind_of(rows.replicas.architectures[a]) for a in rows.replicas.architecture])
    found = {}
    for kind in KINDS:
        here = (kinds == kind) & ~np.isnan(out)
        if here.any():
            low, middle, high = (round(float(q), 3) for q in np.quantile(out[here], (0.25, 0.5, 0.75)))
            found[kind] = {
                "rows": int(here.sum()), "models": len(set(rows.model[here].tolist())), "configurations": len(set(krige.configurations(rows)[here].tolist())),
                "median": middle, "lower_quartile": low, "upper_quartile": high, "within_20": round(float((np.abs(out[here] - 1) <= 0.2).mean()), 3),
                "median_in_sample": round(float(np.median(inside[here])), 3),
            }  # fmt: skip
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reference", type=Path)
    asked = parser.parse_args()
    cards = [read_card(path) for path in sorted((ROOT / "models").glob("*.toml"))]
    rows = read_rows(data_files(ROOT / "catalogs", asked.reference), cards, read_csv(ROOT / "catalogs" / "gpus.csv", Gpu), Counter())
    whole, long = physics.fit(rows), np.flatnonzero(is_prompt(rows))
    coefficients = physics.to_coefficients(whole, {}, {})
    inside, out = (np.full(len(rows), np.nan) for _ in range(2))
    found_inside, besides = ratio(rows.take(long), coefficients, krige.fit_terms(rows, coefficients))
    wanted = long[besides <= max(MOST)]
    inside[wanted] = found_inside[besides <= max(MOST)]
    for left, tested in physics.splits(rows, rows.model):
        test = np.intersect1d(tested, wanted)
        if len(test):
            base = rows.take(left)
            fitted = physics.to_coefficients(physics.fit(base, whole), {}, {})
            out[test], _ = ratio(rows.take(test), fitted, krige.fit_terms(base, fitted))
    share = np.full(len(rows), np.inf)
    share[long] = besides
    found = {f"start-up and overhead at most {most:.0%}": tables(rows, np.where(share <= most, out, np.nan), inside) for most in MOST}
    for title, by_kind in found.items():
        table = Table("models of", *next(iter(by_kind.values())), title=title)
        for kind, row in by_kind.items():
            table.add_row(kind, *map(str, row.values()))
        Console(width=200).print(table)
    (RESULTS / "prompts.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
