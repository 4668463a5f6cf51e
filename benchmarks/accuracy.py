"""How near: errors of predictions on what was left out of the fit, coverage of the bands, ranking, and Poisson runs of a known curve.

    python benchmarks/accuracy.py [--reference reference_points.csv] [--validation validation_points.csv] [--splits configuration model gpu]

Prints tables and writes benchmarks/results/accuracy.json. Needs scipy; every fold is fitted anew, which takes some minutes.
Without --reference it uses the shipped curves alone, which know fewer configurations than the shipped coefficients.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "2")

import numpy as np
from numpy.typing import NDArray
from replay import replay
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

from planner.bench.points import read_points
from planner.calibration import fit as physics
from planner.calibration import krige
from planner.calibration.bands import stack_quantiles, stacks_of
from planner.calibration.fit import step_quantiles as quantiles
from planner.calibration.measured import FitRows, data_files, read_rows
from planner.catalog.cards import read_card
from planner.catalog.files import read_csv
from planner.catalog.load import load_catalog
from planner.catalog.records import Gpu
from planner.performance.capacity import SHARES, service
from planner.performance.coefficients import Coefficients, narrowed
from planner.performance.lengths import lognormal_mix
from planner.performance.replicas import ENGINES, PRECISIONS, Floats, Replicas
from planner.performance.residual import OTHER_TP, load_residuals
from planner.performance.step import GRID, StepCurves, step_curves
from planner.validation.predictions import predict_points

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
BARS = {  # split -> metric -> (must, aim), medians of the absolute error
    "configuration": {"tpot": (0.06, 0.04), "ttft": (0.15, 0.11), "tps": (0.06, 0.036)},
    "model": {"tpot": (0.14, 0.11), "ttft": (0.35, 0.30), "tps": (0.14, 0.11)},
    "gpu": {"tpot": (0.13, 0.10), "ttft": (0.28, 0.22)},
}
APART = 0.1  # pairs of GPUs nearer than this are a draw
METRIC_NAMES = {"tpot": "TPOT", "ttft": "TTFT", "tps": "tokens/s"}
RUN_REQUESTS, STEADY = 500, 4.0  # the Poisson runs hold about 500 requests; a run is steady if it lasts 4 times E2E
# vLLM's defaults on A100 (github:vllm-project/vllm vllm/engine/arg_utils.py, get_batch_defaults).
A100_SLOTS, A100_TOKENS = 256, 2048
SEEDS = 21  # replays of a run
METRICS = ("ttft", "tpot", "e2e")


# ---- what was left out ----


def inside(rows: FitRows, ratio: Floats, by_stack: bool, share: float = 0.9, folds: int = 5) -> Floats:
    """1 where a row is below the bound and 0 where not [rows], the bound found on other configurations: of its stack, or of all together."""
    keys = krige.configurations(rows)
    names = sorted(set(keys[np.isfinite(ratio)].tolist()))
    fold = np.array([{k: i % folds for i, k in enumerate(names)}.get(k, -1) for k in keys.tolist()])
    found, stacks = np.full(len(rows), np.nan), {label: here for label, here in stacks_of(rows) if "|" in label}
    for f in range(folds):
        known = np.where(fold != f, ratio, np.nan)
        tables = {stack: {"": table} for stack, table in stack_quantiles(rows, known, keys).items()} if by_stack else {}
        for stack, here in stacks.items():
            bound = narrowed({"": quantiles(known, keys)}, tables, stack)[""][str(share)]
            tried = here & (fold == f) & np.isfinite(ratio)
            found[tried] = ratio[tried] <= bound
    return found


def each_once(keys: NDArray[np.str_]) -> Floats:
    """Weights under which every key counts the same."""
    count = Counter(keys.tolist())
    return np.array([1 / count[k] for k in keys.tolist()])


def coverages(rows: FitRows, tests: Mapping[str, krige.KrigeHeldOut]) -> dict[str, Any]:
    """Coverage of the one-sided 90 % band by tier, and within it by engine and source; with the bound of all rows together and of each stack."""
    keys, source = krige.configurations(rows), np.where(rows.harness == 1, "NVIDIA", "InferenceX")
    engine, found = np.array(ENGINES)[rows.replicas.engine], defaultdict(dict)
    parts = {"all": np.ones(len(rows), dtype=bool), **{e: engine == e for e in ENGINES}, **{s: source == s for s in ("InferenceX", "NVIDIA")}}
    for metric in ("tpot", "ttft"):
        levels = {**krige.by_level(rows, tests, metric), "source": tests["source"].full[metric]}
        for level, ratio in levels.items():
            for kind, by_stack in (("pooled", False), ("by_stack", True)):
                held = inside(rows, ratio, by_stack)
                kept = {name: here & np.isfinite(held) for name, here in parts.items()}
                weight = {name: each_once(keys[here]) for name, here in kept.items()}
                shares = {name: round(float(held[here] @ weight[name] / weight[name].sum()), 4) for name, here in kept.items() if here.sum() >= 40}
                found[level][f"{metric}_{kind}"] = shares
    return dict(found)


def ranking(rows: FitRows, predicted_tps: Floats) -> dict[str, Any]:
    """Tokens/s per GPU across configurations of one model, workload and concurrency: GPU pairs ordered right, median Spearman.

    A point measured several times (other dates, versions or EP) counts once, at its median.
    """
    truth, predicted, keys = krige.measured(rows)["tps"] / rows.replicas.tp, predicted_tps / rows.replicas.tp, krige.configurations(rows)
    points = defaultdict(list)
    for i in np.flatnonzero(np.isfinite(truth) & np.isfinite(predicted)).tolist():
        points[(keys[i], rows.concurrency[i])].append(i)
    groups = defaultdict(list)
    for (key, load), members in points.items():
        model, _, gpu, _, _, isl, osl = key.split("|")
        groups[(model, isl, osl, load)].append((gpu, float(np.median(truth[members])), float(np.median(predicted[members]))))
    right, pairs, ranks = 0, 0, []
    for group in groups.values():
        for one, other in combinations(group, 2):
            if one[0] != other[0] and max(one[1], other[1]) > (1 + APART) * min(one[1], other[1]):
                pairs += 1
                right += (one[1] > other[1]) == (one[2] > other[2])
        if len(group) >= 4:
            ranks.append(float(spearmanr([g[1] for g in group], [g[2] for g in group])[0]))
    return {"pairs": pairs, "right": round(right / max(pairs, 1), 4), "spearman": round(float(np.nanmedian(ranks)), 4), "workloads": len(ranks)}


# ---- Poisson runs whose curve is known ----


def poisson_runs(path: Path) -> list[list[dict[str, str]]]:
    """Curves of Poisson runs on vLLM with their rows by rising rate."""
    curves = defaultdict(list)
    with path.open(encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle):
            if row["load_type"] == "open_loop" and row["engine"] == "vllm":
                curves[row["curve_id"]].append(row)
    return [sorted(rows, key=lambda r: float(r["request_rate"])) for _, rows in sorted(curves.items()) if len(rows) >= 4]


def known_curve(rows: Sequence[Mapping[str, str]], replicas: Replicas, coefficients: Coefficients) -> StepCurves:
    """The measured TPOT, less the share of prompts, over the sequences decoding as a step curve: straight between the runs, and below
    the lowest rate, where nothing was measured, in the shape of the physics. TTFT at the lowest rate, less one and a half steps and
    the engine's overhead, is what a prompt costs."""
    isl, osl = float(rows[0]["isl"]), float(rows[0]["osl"])
    tpot = np.array([float(r["tpot_ms_p50"]) / 1000 for r in rows])
    rate = np.array([float(r["request_rate"]) if steady(r) else float(r["request_rate_achieved"]) for r in rows])
    overhead = float(coefficients.rows(replicas)["request_s"][0, 0])
    per_token = max(float(rows[0]["ttft_ms_p50"]) / 1000 - overhead - 1.5 * tpot[0], 0.005) / isl
    decoding = rate * tpot * osl
    known = np.maximum.accumulate(np.maximum(tpot - per_token * isl / osl * decoding, 1e-4))
    physical = step_curves(replicas, lognormal_mix(isl, osl, 0, 0), coefficients).step_s[0]
    below = physical * known[0] / np.interp(decoding[0], GRID, physical)
    step = np.where(decoding[0] > GRID, below, np.interp(GRID, np.maximum.accumulate(decoding), known))
    return StepCurves(GRID, step[None, :], np.array([per_token]), np.array([overhead]), np.zeros((1, len(GRID))), A100_TOKENS)


def steady(row: Mapping[str, str]) -> bool:
    """Whether a run lasted long against one request."""
    return RUN_REQUESTS / float(row["request_rate_achieved"]) >= STEADY * float(row["e2e_ms_p50"]) / 1000


def poisson(path: Path, cards: Sequence[Any], gpus: Sequence[Gpu], coefficients: Coefficients) -> dict[str, Any]:
    """Median absolute errors of percentiles at the steady rates: of the formulas, which describe a run without end, and of replays
    of the run as it was (median of several seeds), which are also held against the runs that are not steady."""
    card_of = {c.id: card for card in cards for c in card.checkpoint}
    card_of |= {c.id.replace("meta-llama/", "meta-llama/Meta-"): card for card in cards for c in card.checkpoint}
    errors, points, missing = {name: defaultdict(list) for name in ("median", "replay", "replay_not_steady")}, Counter(), Counter()
    for rows in poisson_runs(path):
        card, gpu = card_of.get(rows[0]["model"]), next((i for i, g in enumerate(gpus) if g.name == rows[0]["gpu"]), None)
        if card is None or gpu is None:
            missing[rows[0]["model"] if card is None else rows[0]["gpu"]] += len(rows)
            continue
        precision = PRECISIONS.index({"float16": "bf16"}.get(rows[0]["precision"], rows[0]["precision"]))
        a, g, p, e, tp = (np.array([v]) for v in (0, gpu, precision, ENGINES.index("vllm"), int(float(rows[0]["tp"]))))
        replicas = Replicas((card.architecture,), tuple(gpus), a, g, p, e, tp, np.ones(1, dtype=np.int64))
        curves, isl, osl = known_curve(rows, replicas, coefficients), int(float(rows[0]["isl"])), int(float(rows[0]["osl"]))
        for row in rows:
            rate, is_steady = float(row["request_rate"]), steady(row)
            points["steady" if is_steady else "not_steady"] += 1
            runs = [replay(curves, isl, osl, rate, A100_SLOTS, RUN_REQUESTS, seed) for seed in range(SEEDS)]
            replayed = {f"{m}_{name}": float(np.median([np.quantile(run[m], q) for run in runs])) for m in METRICS for name, q in SHARES.items()}
            add_errors(errors["replay" if is_steady else "replay_not_steady"], replayed, row)
            if is_steady:
                found = service(curves, lognormal_mix(isl, osl, 0, 0), np.array([rate]), np.array([A100_SLOTS]))
                add_errors(errors["median"], {f"{m}_{name}": float(getattr(found, f"{m}_s")[name][0]) for m in METRICS for name in SHARES}, row)
    medians = {kind: {name: round(float(np.median(v)), 4) for name, v in of.items()} for kind, of in errors.items()}
    return {"points": dict(points), **medians, "not_mapped": dict(missing)}


def add_errors(errors: Mapping[str, list[float]], predicted: Mapping[str, float], row: Mapping[str, str]) -> None:
    """Absolute errors of the percentiles (seconds, as metric_share) that the row gives."""
    for name, seconds in predicted.items():
        metric, share = name.split("_")
        if row.get(f"{metric}_ms_{share}"):
            errors[name].append(abs(1000 * seconds / float(row[f"{metric}_ms_{share}"]) - 1))


def saturation(path: Path) -> dict[str, Any]:
    """Tokens/s of bursts on A100, a GPU that took no part in the fit, as `plan validate` has them: all rows, and the best engine and
    options of each setup."""
    points = [p for p in read_points(path) if p.load.startswith("burst") and p.gpu.startswith("A100")]
    answers = predict_points(points, load_catalog(()), confidence=0.5)
    pairs = [(p, a.predicted["output_tps"] / p.measured["output_tps_total"]) for p, a in zip(points, answers, strict=True) if a.predicted]
    best: dict[tuple[Any, ...], tuple[Any, float]] = {}
    for p, ratio in pairs:
        setup = (p.model, p.tp, round(p.isl, -2))
        if setup not in best or p.measured["output_tps_total"] > best[setup][0].measured["output_tps_total"]:
            best[setup] = (p, ratio)
    ratios = {"rows": pairs, "best_of_each_setup": list(best.values())}
    return {"not_predicted": len(points) - len(pairs), **{name: physics.summary(np.array([1 / r for _, r in of])) for name, of in ratios.items()}}


# ---- the run ----


def show(found: Mapping[str, Any], console: Console) -> None:
    table = Table("left out", "metric", "rows", "median", "mean", "within 20 %", "bias", "physics alone", "must", "aim")
    for split, errors in found["cross_validation"].items():
        for metric, name in METRIC_NAMES.items():
            e, bar = errors[metric], BARS.get(split, {}).get(metric, (None, None))
            shares = [
                f"{100 * v:.1f} %" if v is not None else ""
                for v in (e["median"], e["mean"], e["within_20"], e["bias"], errors[f"{metric}_physics"]["median"], *bar)
            ]
            table.add_row(split, name, str(e["rows"]), *shares)
    console.print(table)
    for level, shares in found["coverage"].items():
        console.print(f"one-sided 90 % band, {level}:", shares)
    for name in ("ranking", "poisson", "a100_saturation"):
        if name in found:
            console.print(f"{name}:", found[name])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--validation", type=Path)
    parser.add_argument("--splits", nargs="+", default=["configuration", OTHER_TP, "group", "model", "gpu", "generation", "model_and_gpu", "source"])
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "accuracy.json")
    asked = parser.parse_args()
    cards = [read_card(path) for path in sorted((ROOT / "models").glob("*.toml"))]
    gpus = read_csv(ROOT / "catalogs" / "gpus.csv", Gpu)
    files, refused = data_files(ROOT / "catalogs", asked.reference), Counter[str]()
    rows, names = read_rows(files, cards, gpus, refused), [card.name for card in cards]
    kernels = load_residuals(ROOT / "catalogs" / "residuals.json").kernels
    whole = physics.fit(rows)
    all_splits = krige.splits(rows)
    tests = {name: krige.held_out(rows, names, kernels, whole, *all_splits[name]) for name in asked.splits}
    errors = {name.removeprefix("leave_").removesuffix("_out"): table for name, table in krige.error_tables(rows, tests).items()}
    found: dict[str, Any] = {
        "files": [f.name for f in files],
        "rows": len(rows),
        "refused": dict(refused),
        "cross_validation": errors,
        "coverage": coverages(rows, tests) if len(tests) == len(all_splits) else {},
    }
    if "configuration" in tests:
        found["ranking"] = ranking(rows, tests["configuration"].tps)
    if asked.validation:
        found["poisson"] = poisson(asked.validation, cards, gpus, physics.to_coefficients(whole, {}, {}))
        found["a100_saturation"] = saturation(asked.validation)
    show(found, Console(width=160))
    asked.output.parent.mkdir(exist_ok=True)
    asked.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
