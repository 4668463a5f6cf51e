"""Trains the kriged residual and finds its errors on what was left out: ``python -m planner.calibration.krige DATA_DIR``.

For developers: needs scipy. Reads the same files as ``fit``, writes catalogs/residuals.json. Deterministic, some minutes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import least_squares

from planner.calibration import fit as physics
from planner.calibration.bands import stack_quantiles, with_unseen
from planner.calibration.fit import SHARES
from planner.calibration.fit import step_quantiles as quantiles
from planner.calibration.kernels import Rows, fit_kernel
from planner.calibration.measured import RANDOM_LENGTHS, FitRows, data_files, read_rows
from planner.catalog.cards import read_card
from planner.catalog.files import read_csv
from planner.catalog.records import Gpu
from planner.performance.coefficients import TIERS, UNSEEN, Coefficients
from planner.performance.loop import LoopTerms, at_concurrency, loop, loop_columns, loop_curves, means_of, prompt_seconds, term_columns
from planner.performance.predict import corrected
from planner.performance.replicas import ENGINES, Floats, Ints
from planner.performance.residual import (
    FILE,
    GROUPS,
    OTHER_TP,
    Features,
    Kernel,
    Places,
    Residuals,
    features,
    kernel_rows,
    load_kernel,
    month_words,
    residual,
    shared_numbers,
)
from planner.performance.step import decode_step
from planner.raw import Raw

METRICS = ("tpot", "ttft", "tps")
CONFIGURATION = "configuration"
OUTLIER = {"tpot": 0.4, "ttft": 0.8}  # residuals beyond are drawn in to it before training: one odd run must not bend its neighbours


@dataclass(frozen=True)
class Trained:
    """One fit: physics, closed-loop terms, and the process on what they leave."""

    coefficients: Coefficients
    residuals: Residuals
    alpha: tuple[Floats, Floats]  # TPOT, TTFT
    physics_only: Residuals


@dataclass(frozen=True)
class KrigeHeldOut:
    """Measured over predicted [rows] of tpot, ttft and tps from fits without the row; nan where a fold says nothing about it."""

    full: Mapping[str, Floats]
    physics: Mapping[str, Floats]
    untold: Mapping[str, Floats]  # as full, but where nobody says when the row was measured, as in plans
    tps: Floats  # predicted, of the whole replica


def configurations(rows: FitRows) -> NDArray[np.str_]:
    """What counts as one configuration: model, precision, GPU, engine, TP and nominal lengths, whoever measured it, whatever the EP."""
    ratio = np.where(rows.harness == 1, 1.0, RANDOM_LENGTHS)
    columns = (rows.group.tolist(), rows.replicas.tp.tolist(), np.rint(rows.input_tokens / ratio).tolist(), np.rint(rows.output_tokens / ratio).tolist())
    return np.array([f"{g}|{tp}|{isl:g}|{osl:g}" for g, tp, isl, osl in zip(*columns, strict=True)])


def measured(rows: FitRows) -> dict[str, Floats]:
    """Measured values; tokens/s follow from the means, as of a closed loop."""
    return {"tpot": rows.tpot_s, "ttft": rows.ttft_s, "tps": rows.concurrency * rows.output_tokens / (rows.ttft_s + rows.tpot_s * (rows.output_tokens - 1))}


# ---- training ----


def fit_terms(rows: FitRows, coefficients: Coefficients) -> LoopTerms:
    """Start-up and burst by engine, on TTFT alone, with the physics frozen."""
    work, kept = loop(rows.replicas, rows.input_tokens, rows.output_tokens, rows.poll_steps), rows.in_stride

    def terms(x: Floats, digits: int = 15) -> LoopTerms:
        values = [round(float(v), digits) for v in np.exp(x)]
        return LoopTerms(dict(zip(ENGINES, values[:3], strict=True)), dict(zip(ENGINES, values[3:6], strict=True)), values[6], values[7])

    start = np.log([5.0] * 3 + [0.05] * 3 + [0.5, 1.5])
    e, decoding = loop_columns(rows.replicas, coefficients, terms(start)), rows.decoding[:, None]
    step, prompt = decode_step(work.shape, e, work.kv_read, decoding) * e["vendor"], prompt_seconds(work, e)
    request = coefficients.rows(rows.replicas)["request_s"]

    def errors(x: Floats) -> Floats:
        ttft, _ = means_of(work, term_columns(rows.replicas, request, terms(x), rows.harness == 1), decoding, step, prompt)
        missed = np.log(ttft[kept, 0] / rows.ttft_s[kept])
        return np.concatenate((physics._huber(missed, physics.TTFT_SCALE) * rows.weight[kept], (x - start) / 1.0))

    found = least_squares(errors, start, max_nfev=60)
    return terms(found.x, 5)


def train(rows: FitRows, names: Sequence[str], kernels: Mapping[str, Kernel], x: Floats) -> Trained:
    """Terms and process on given physics ``x``."""
    coefficients = physics.to_coefficients(x, {}, {})
    plain = Residuals(fit_terms(rows, coefficients), None, None, {})
    asked, missed = features_of(rows, names), residuals_in_logs(rows, coefficients, plain)
    unique, which = compact(asked)
    weights, processes = [], []
    for metric in ("tpot", "ttft"):
        alpha = solve(kernels[metric], asked, np.log2(rows.concurrency), missed[metric])
        weights.append(alpha)
        processes.append(residual(kernels[metric], unique, which, np.log2(rows.concurrency), alpha))
    return Trained(coefficients, Residuals(plain.terms, processes[0], processes[1], {}), (weights[0], weights[1]), plain)


def residuals_in_logs(rows: FitRows, coefficients: Coefficients, plain: Residuals) -> dict[str, Floats]:
    """log(measured/physics) of TPOT and TTFT, drawn in to the outlier bound; nan where not measured."""
    ttft, tpot = predict(rows, (), coefficients, plain)
    missed = {"tpot": np.log(rows.tpot_s / tpot), "ttft": np.log(rows.ttft_s / ttft)}
    return {name: np.clip(value, -OUTLIER[name], OUTLIER[name]) for name, value in missed.items()}


def features_of(rows: FitRows, names: Sequence[str]) -> Features:
    """What the process sees of the rows, each at its own month."""
    return features(rows.replicas, names, rows.input_tokens, rows.output_tokens, rows.months)


def predict(rows: FitRows, names: Sequence[str], coefficients: Coefficients, residuals: Residuals) -> tuple[Floats, Floats]:
    """(TTFT, TPOT) of closed loops as ``predict.closed_loop`` finds them, but with each row's own harness."""
    work = loop(rows.replicas, rows.input_tokens, rows.output_tokens, rows.poll_steps)
    curves = loop_curves(work, loop_columns(rows.replicas, coefficients, residuals.terms, rows.harness == 1))
    if residuals.tpot is not None:
        curves = corrected(work, curves, residuals, features_of(rows, names))
    return at_concurrency(curves, rows.concurrency, rows.output_tokens)


def compact(asked: Features) -> tuple[Features, Ints]:
    """Distinct configurations, and which one each row has."""
    index: dict[tuple[object, ...], int] = {}
    rows = zip(*asked.keys, map(tuple, asked.logs.tolist()), asked.months.tolist(), strict=True)
    which = np.array([index.setdefault((*keys, *logs, month), len(index)) for *keys, logs, month in rows])
    return asked.take(np.unique(which, return_index=True)[1]), which


def covariance(kernel: Kernel, asked: Features, loads: Floats) -> Floats:
    """Of all rows with each other, noise included."""
    shared = [shared_numbers(keys, keys) for keys in asked.keys]
    places = Places(asked.logs, asked.months)
    found: Floats = kernel_rows(kernel, shared, places, places) * load_kernel(kernel, loads, loads)
    found[np.diag_indices_from(found)] += kernel.noise**2
    return found


def solve(kernel: Kernel, asked: Features, loads: Floats, missed: Floats) -> Floats:
    """Weights of the rows; 0 where nothing was measured."""
    kept = np.flatnonzero(np.isfinite(missed))
    part = asked.take(kept)
    alpha = np.zeros(len(missed))
    alpha[kept] = cho_solve(cho_factor(covariance(kernel, part, loads[kept]), lower=True), missed[kept])
    return alpha


def fit_kernels(rows: FitRows, names: Sequence[str], x: Floats) -> dict[str, Kernel]:
    """Kernels of TPOT and TTFT on the residuals of physics ``x``."""
    coefficients = physics.to_coefficients(x, {}, {})
    plain = Residuals(fit_terms(rows, coefficients), None, None, {})
    missed, asked = residuals_in_logs(rows, coefficients, plain), features_of(rows, names)
    folds = ((configurations(rows), 1.0), (rows.model, 0.5), (rows.gpu, 0.5), (rows.generation, 0.5))
    loads = np.log2(rows.concurrency)
    return {metric: fit_kernel(metric, Rows(asked, loads, missed[metric], rows.weight), folds) for metric in ("tpot", "ttft")}


# ---- errors on what was left out ----


def held_out(
    rows: FitRows, names: Sequence[str], kernels: Mapping[str, Kernel], whole: Floats, folds: NDArray[np.str_], also: NDArray[np.str_] | None = None
) -> KrigeHeldOut:
    """Cross-validation by folds: physics, terms and process are all trained without them. With ``also``, rows sharing either label are left out."""
    truth = measured(rows)
    full, plain, untold = ({metric: np.full(len(rows), np.nan) for metric in METRICS} for _ in range(3))
    tps = np.full(len(rows), np.nan)
    for left, tested in physics.splits(rows, folds, also):
        base, test = rows.take(left), rows.take(tested)
        undated = replace(test, months=np.full(len(test), np.nan))
        trained = train(base, names, kernels, physics.fit(base, whole))
        for found, residuals, asked in ((full, trained.residuals, test), (plain, trained.physics_only, test), (untold, trained.residuals, undated)):
            ttft, tpot = predict(asked, names, trained.coefficients, residuals)
            rate = test.concurrency * test.output_tokens / (ttft + tpot * (test.output_tokens - 1))
            for metric, value in (("tpot", tpot), ("ttft", ttft), ("tps", rate)):
                found[metric][tested] = truth[metric][tested] / value
            if found is full:
                tps[tested] = rate
    return KrigeHeldOut(full, plain, untold, tps)


def splits(rows: FitRows) -> dict[str, tuple[NDArray[np.str_], NDArray[np.str_] | None]]:
    """What is left out together, by name."""
    return {
        CONFIGURATION: (physics._folds(configurations(rows)), None),
        OTHER_TP: (physics._folds(tp_groups(rows), 25), None),
        "group": (physics._folds(rows.group, 25), None),
        "model": (rows.model, None),
        "gpu": (rows.gpu, None),
        "generation": (rows.generation, None),
        "model_and_gpu": (rows.model, rows.gpu),
        "source": (np.where(rows.harness == 1, "NVIDIA", "InferenceX"), None),
    }


def with_sisters(rows: FitRows) -> NDArray[np.bool_]:
    """Rows whose model, precision, GPU and engine were measured in another configuration too."""
    keys = configurations(rows)
    count = Counter(group for group, _ in set(zip(rows.group.tolist(), keys.tolist(), strict=True)))
    return np.array([count[g] > 1 for g in rows.group.tolist()])


def newest(rows: FitRows) -> NDArray[np.bool_]:
    """Rows of the newest month of their model, precision, GPU and engine: of what plans suppose to run."""
    last: dict[str, float] = {}
    for group, month in zip(rows.group.tolist(), rows.months.tolist(), strict=True):
        last[group] = max(last.get(group, month), month)
    found: NDArray[np.bool_] = rows.months == np.array([last[g] for g in rows.group.tolist()])
    return found


def tp_groups(rows: FitRows) -> NDArray[np.str_]:
    """Model, precision, GPU, engine and TP of each row."""
    return np.array([f"{g}|{t}" for g, t in zip(rows.group.tolist(), rows.replicas.tp.tolist(), strict=True)])


def with_other_tp(rows: FitRows) -> NDArray[np.bool_]:
    """Rows whose model, precision, GPU and engine stay known with another TP while their own fold of ``tp_groups`` is left out."""
    fold = splits(rows)[OTHER_TP][0]
    left_in = {(g, f) for g, f in zip(rows.group.tolist(), fold.tolist(), strict=True)}
    count = Counter(g for g, _ in left_in)
    return np.array([count[g] > 1 for g in rows.group.tolist()])


def by_level(rows: FitRows, tests: Mapping[str, KrigeHeldOut], metric: str) -> dict[str, Floats]:
    """Measured over predicted [rows] of each tier and of OTHER_TP, without what it lacks; nan where a level says nothing of a row."""
    ratio = {name: test.full[metric] for name, test in tests.items()}
    sisters, other = np.where(with_sisters(rows), ratio[CONFIGURATION], np.nan), np.where(with_other_tp(rows), ratio[OTHER_TP], np.nan)
    return {**dict(zip(TIERS, (sisters, ratio["group"], ratio["model"], ratio["model_and_gpu"]), strict=True)), OTHER_TP: other}


def stack_tables(
    rows: FitRows, tests: Mapping[str, KrigeHeldOut], bands: Mapping[str, Mapping[str, dict[str, float]]]
) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Quantiles of each metric by stack and level, as far as a stack has rows enough; ``bands``: those of all stacks together."""
    keys, found = configurations(rows), {}
    for metric in METRICS:
        stacks: dict[str, dict[str, dict[str, float]]] = {}
        for level, ratio in by_level(rows, tests, metric).items():
            for stack, table in stack_quantiles(rows, ratio, keys).items():
                stacks.setdefault(stack, {})[level] = table
        found[metric] = with_unseen(stacks, bands[metric][UNSEEN])
    return found


def band_tables(rows: FitRows, tests: Mapping[str, KrigeHeldOut]) -> dict[str, dict[str, dict[str, float]]]:
    """Quantiles of each metric and tier; ``unseen_generation`` is the worst generation left out, on either side."""
    keys, found = configurations(rows), {}
    for metric in METRICS:
        ratio = {name: test.full[metric] for name, test in tests.items()}
        levels = {level: quantiles(own, keys) for level, own in by_level(rows, tests, metric).items()}
        by_generation = [quantiles(np.where(rows.generation == g, ratio["generation"], np.nan), keys) for g in sorted(set(rows.generation.tolist()))]
        worst = {str(q): (max if q >= 0.5 else min)(table[str(q)] for table in by_generation) for q in SHARES}
        found[metric] = {**levels, UNSEEN: worst}
    return found


# ---- the whole run ----


def error_tables(rows: FitRows, tests: Mapping[str, KrigeHeldOut]) -> Raw:
    """Errors by split and metric, of the whole prediction and of the physics alone; where the month is not told, of all rows and of the newest."""
    sisters, new, found = with_sisters(rows), newest(rows), {}
    for name, test in tests.items():
        kept = sisters if name == CONFIGURATION else np.ones(len(rows), dtype=bool)
        found[f"leave_{name}_out"] = {m: physics.summary(test.full[m][kept]) for m in METRICS} | {
            f"{m}_physics": physics.summary(test.physics[m][kept]) for m in METRICS
        }
        if name in (CONFIGURATION, OTHER_TP):  # elsewhere nothing of a family is left that could be of another month
            for kind, here in (("untold", kept), ("untold_newest", kept & new)):
                found[f"leave_{name}_out"] |= {f"{m}_{kind}": physics.summary(test.untold[m][here]) for m in METRICS}
    return found


def record(rows: FitRows, names: Sequence[str], kernels: Mapping[str, Kernel], trained: Trained, data: Mapping[str, str]) -> Raw:
    """What residuals.json holds, without bands and errors: features and weights, no measured value."""
    _, which = compact(features_of(rows, names))
    first = np.unique(which, return_index=True)[1]
    listed = []
    for i in first.tolist():
        model, precision, gpu, engine = rows.group[i].split("|")
        generation = rows.replicas.gpus[int(rows.replicas.gpu[i])].generation
        row = [
            model,
            precision,
            gpu,
            generation,
            engine,
            int(rows.replicas.tp[i]),
            round(float(rows.input_tokens[i]), 2),
            round(float(rows.output_tokens[i]), 2),
            bool(rows.replicas.ep[i] > 1),
            month_words(rows.months[i]),
            next((v for v in rows.version[which == which[i]].tolist() if v), ""),
        ]
        listed.append(row)
    points = [[int(c), float(n), round(float(a), 5), round(float(b), 5)] for c, n, a, b in zip(which, rows.concurrency, *trained.alpha, strict=True)]
    return {
        "source": "Gaussian process on the residuals of coefficients.json: " + ", ".join(data),
        "fitted": date.today().isoformat(),
        "data": dict(data),
        "terms": vars(trained.residuals.terms),
        "kernels": {metric: _kernel_record(k) for metric, k in kernels.items()},
        "configurations": listed,
        "points": points,
    }


def _kernel_record(k: Kernel) -> dict[str, object]:
    sd = {g: round(float(np.sqrt(v)), 5) for g, v in zip(GROUPS, k.variance, strict=True)}
    lengths = dict(zip(("isl", "osl", "tp"), k.lengths, strict=True))
    return {"sd": sd, "dated": round(float(np.sqrt(k.dated)), 5), "months": k.months, "load": k.load, **lengths, "noise": k.noise}


def run(files: Sequence[Path], models: Path, gpus: Path, log: Callable[[str], None]) -> Raw:
    """Reads, fits, trains, cross-validates."""
    cards = [read_card(path) for path in sorted(models.glob("*.toml"))]
    rows, names = read_rows(files, cards, read_csv(gpus, Gpu), Counter()), [card.name for card in cards]
    whole = physics.fit(rows)
    kernels = fit_kernels(rows, names, whole)
    log(f"{len(rows)} rows; kernels {kernels}")
    data = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    found = record(rows, names, kernels, train(rows, names, kernels, whole), data)
    tests = {}
    for name, (folds, also) in splits(rows).items():
        tests[name] = held_out(rows, names, kernels, whole, folds, also)
        log(f"{name}: {error_tables(rows, {name: tests[name]})}")
    bands = band_tables(rows, tests)
    return {**found, "quantiles": bands, "quantiles_by_stack": stack_tables(rows, tests, bands), "errors": error_tables(rows, tests)}


def write(found: Raw, path: Path) -> None:
    """Writes whole or not at all; one configuration or point a line."""
    lines = {key: ",\n  ".join(json.dumps(row) for row in found[key]) for key in ("configurations", "points")}
    rest = json.dumps({key: value for key, value in found.items() if key not in lines}, indent=1)
    text = rest[:-2] + "".join(f',\n "{key}": [\n  {value}\n ]' for key, value in lines.items()) + "\n}\n"
    beside = path.with_suffix(".new")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def main(arguments: Iterable[str] | None = None) -> int:
    """Command line."""
    root = Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(prog="python -m planner.calibration.krige", description=__doc__)
    parser.add_argument("data", type=Path, help="folder with curves.csv and, if there, reference_points.csv")
    parser.add_argument("--reference", type=Path, help="reference_points.csv elsewhere")
    parser.add_argument("-o", "--output", type=Path, default=root / "catalogs" / FILE)
    asked = parser.parse_args(None if arguments is None else list(arguments))
    write(
        run(
            data_files(asked.data, asked.reference),
            root / "models",
            root / "catalogs" / "gpus.csv",
            lambda line: print(line, file=sys.stderr, flush=True),
        ),
        asked.output,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
