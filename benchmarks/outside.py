"""How near predictions are to sources that took no part in any fit: points of public repositories, and the maxima of MLPerf Inference v5.1.

    python benchmarks/outside.py

Reads benchmarks/data/took_no_part.csv and mlperf_v5.1_offline.csv, prints the tables of docs/accuracy.md and writes benchmarks/results/outside.json.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from planner.bench.points import MeasuredPoint, read_points
from planner.calibration import fit as physics
from planner.calibration.maxima import Maxima, read_maxima
from planner.calibration.measured import CHECKPOINTS
from planner.catalog.cards import read_card
from planner.catalog.files import read_csv
from planner.catalog.load import load_catalog
from planner.catalog.records import Gpu
from planner.performance.coefficients import load_coefficients
from planner.performance.replicas import ENGINES as ALL_ENGINES
from planner.performance.tuning import RECIPE
from planner.validation.compare import METRICS, Errors, compare
from planner.validation.predictions import RowPrediction, predict_points

ROOT = Path(__file__).resolve().parents[1]
POINTS, MLPERF = (ROOT / "benchmarks" / "data" / name for name in ("took_no_part.csv", "mlperf_v5.1_offline.csv"))
RESULT = ROOT / "benchmarks" / "results" / "outside.json"
CONFIDENCE = 0.9
NEAR = (0.8, 1.25)  # predicted over measured maxima
LEAST = 8  # maxima of a group, for a line of its own
ENGINES = {"vllm": "vLLM", "sglang": "SGLang", "trtllm": "TensorRT-LLM"}

Answers = Sequence[RowPrediction]
Found = dict[str, Any]


def predicted(points: Sequence[MeasuredPoint]) -> Answers:
    return predict_points(points, load_catalog(()), CONFIDENCE)


def summary(points: Sequence[MeasuredPoint], answers: Answers) -> Found:
    """Errors by metric, with the rows and setups (model and GPU) they are of."""
    errors = compare(points, answers, CONFIDENCE).overall
    return {"rows": len(points), "setups": len({(p.model, p.gpu) for p in points}), **{m: rounded(errors[m]) for m in METRICS if m in errors}}


def rounded(e: Errors) -> Found:
    return {name: value if value is None else round(value, 4) for name, value in vars(e).items()}


def by(key: Callable[[MeasuredPoint], str], points: Sequence[MeasuredPoint], answers: Answers) -> Found:
    """The summary of each group."""
    groups: dict[str, list[int]] = defaultdict(list)
    for i, p in enumerate(points):
        groups[key(p)].append(i)
    return {name: summary([points[i] for i in rows], [answers[i] for i in rows]) for name, rows in sorted(groups.items())}


def group(p: MeasuredPoint) -> str:
    return f"{p.source} | {p.engine} | {p.tuning}"


def layout(p: MeasuredPoint) -> str:
    """How an engine lies on its GPUs, and how it was set."""
    ways = "disaggregated" if p.mode == "disagg" else "attention data parallel" if p.dp != 1 else "expert parallel" if p.ep > 1 else "tensor parallel"
    return f"{ways}, {p.tuning}"


def setup(p: MeasuredPoint) -> str:
    return f"{p.source} | {p.model} | {p.gpu} | {p.engine} | {layout(p)}"


def tpot_ratios(points: Sequence[MeasuredPoint], answers: Answers) -> list[tuple[MeasuredPoint, float]]:
    """Measured over predicted TPOT of the rows that give it."""
    pairs = zip(points, answers, strict=True)
    return [(p, p.measured["tpot_ms_mean"] / a.predicted["tpot_ms"]) for p, a in pairs if "tpot_ms_mean" in p.measured and "tpot_ms" in a.predicted]


def over_recipe(points: Sequence[MeasuredPoint], answers: Answers) -> Found:
    """Rows and median of measured over predicted TPOT of each setup."""
    groups: dict[str, list[float]] = defaultdict(list)
    for p, ratio in tpot_ratios(points, answers):
        groups[setup(p)].append(ratio)
    return {name: {"rows": len(r), "median": round(float(np.median(r)), 3)} for name, r in sorted(groups.items())}


def started(points: Sequence[MeasuredPoint], answers: Answers) -> Found:
    """How many times a recipe's TPOT SGLang takes that starts with its defaults, as catalogs/tuning.csv counts it: every model on a GPU the same."""
    pairs = [(f"{p.model}|{p.gpu}", r) for p, r in tpot_ratios(points, answers) if p.tuning == "default" and p.engine == "sglang"]
    setups = Counter(name for name, _ in pairs)
    ratio, weight = np.array([r for _, r in pairs]), np.array([1 / setups[name] for name, _ in pairs])
    order = np.argsort(ratio)
    share = (np.cumsum(weight[order]) - weight[order] / 2) / weight.sum()
    return {"rows": len(pairs), "setups": len(setups), **{f"q{q}": round(float(np.interp(q / 100, share, ratio[order])), 3) for q in (20, 50, 80, 95)}}


# ---- maxima


def maxima() -> tuple[Maxima, np.ndarray]:
    """Rows of MLPerf in their fastest layout, and predicted over measured tokens/s of each."""
    cards = [read_card(path) for path in sorted((ROOT / "models").glob("*.toml"))]
    found = read_maxima(MLPERF, cards, read_csv(ROOT / "catalogs" / "gpus.csv", Gpu), CHECKPOINTS, Counter())
    tps = physics.maximum(physics.of_coefficients(load_coefficients(ROOT / "catalogs" / "coefficients.json")), found)
    best = found.best(tps)
    return found.take(best), (tps / found.tps)[best]


def maxima_by(names: np.ndarray, ratio: np.ndarray) -> Found:
    """Median of predicted over measured and the share within NEAR, of every group of at least LEAST rows."""
    groups = {name: ratio[names == name] for name in sorted(set(names.tolist()))}
    near = {name: (r >= NEAR[0]) & (r <= NEAR[1]) for name, r in groups.items()}
    return {
        name: {"rows": len(r), "median": round(float(np.median(r)), 3), "near": round(float(near[name].mean()), 3)}
        for name, r in groups.items()
        if len(r) >= LEAST
    }


# ---- the page


def percent(value: float | None, sign: str = "") -> str:
    return "–" if value is None else f"{100 * value:{sign}.0f} %"


def cell(e: Mapping[str, Any] | None, rows: int = 0) -> str:
    """Median error, bias and what the bound holds; of how many rows, where that is fewer."""
    if e is None:
        return "–"
    covered = "" if e["covered"] is None else f", {percent(e['covered'])}"
    return f"{percent(e['median'])}, {percent(e['bias'], '+')}{covered}" + (f" ({e['n']})" if 0 < e["n"] < rows else "")


def tables(found: Mapping[str, Any]) -> dict[str, list[str]]:
    """The tables of docs/accuracy.md, line by line."""
    groups = ["| source | engine | set | rows, setups | TPOT | TTFT | tokens/s |", "|---|---|---|---|---|---|---|"]
    for name, s in found["points"].items():
        if "tpot_ms" in s:
            source, engine, tuning = name.split(" | ")
            metrics = " | ".join(cell(s.get(m), s["rows"]) for m in ("tpot_ms", "ttft_ms", "output_tps"))
            groups.append(f"| `{source}` | {ENGINES[engine]} | {tuning} | {s['rows']}, {s['setups']} | {metrics} |")
    recipes = ["| source | layout, set | rows | TPOT | tokens/s |", "|---|---|---|---|---|"]
    for name, s in found["as_recipe"].items():
        source, way = name.split(" | ")
        recipes.append(f"| `{source}` | {way} | {s['rows']} | " + " | ".join(cell(s.get(m), s["rows"]) for m in ("tpot_ms", "output_tps")) + " |")
    loops = {name: s for name, s in found["points"].items() if "ttft_ms_p50" in s}
    open_loops = ["| | p50 | p90 | p99 |", "|---|---|---|---|"]
    open_loops += [
        f"| {m.upper()} | " + " | ".join(cell(s[f"{m}_ms_{q}"]) for q in ("p50", "p90", "p99")) + " |" for s in loops.values() for m in ("ttft", "e2e")
    ]
    most = ["| maxima | rows | predicted / measured | within 0.8 to 1.25 |", "|---|---|---|---|"]
    most += [f"| {name} | {m['rows']} | {m['median']:.2f} | {percent(m['near'])} |" for name, m in found["maxima"].items()]
    return {"points": groups, "recipes": recipes, "open loops": open_loops, "maxima": most}


def main() -> None:
    points = read_points(POINTS)
    as_set, as_recipe = predicted(points), predicted([replace(p, tuning=RECIPE) for p in points])
    settled = [i for i, p in enumerate(points) if p.tuning == "default" or p.source == "sglang_cookbook"]
    rows, ratio = maxima()
    engine = np.array([ENGINES[ALL_ENGINES[e]] for e in rows.replicas.engine.tolist()])
    found: Found = {
        "confidence": CONFIDENCE,
        "points": by(group, points, as_set),
        "as_recipe": by(lambda p: f"{p.source} | {layout(p)}", [points[i] for i in settled], [as_recipe[i] for i in settled]),
        "sglang_as_started": started(points, as_recipe),
        "tpot_over_recipe": over_recipe(points, as_recipe),
        "maxima": {**maxima_by(np.full(len(ratio), "all"), ratio), **maxima_by(engine, ratio), **maxima_by(rows.gpu, ratio), **maxima_by(rows.model, ratio)},
    }
    for lines in tables(found).values():
        print("\n".join(lines), end="\n\n")
    RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
