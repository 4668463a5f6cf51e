"""Fits the coefficients of the step-time physics to measured curves: ``python -m planner.calibration.fit DATA_DIR``.

For developers: needs scipy. Writes catalogs/coefficients.json with errors on held-out models and GPUs and the quantiles
of each evidence tier. Deterministic. DATA_DIR holds curves.csv (shipped) and, if there, reference_points.csv and max_throughput.csv.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from planner.calibration.maxima import SHARES as SHARES_OF_SEQUENCES
from planner.calibration.maxima import Maxima
from planner.calibration.measured import FitRows, data_files, read_rows
from planner.catalog.cards import read_card
from planner.catalog.files import read_csv
from planner.catalog.records import Card, Gpu
from planner.performance.coefficients import EFFICIENCIES, FACTORS, TIERS, UNSEEN, Coefficients, Fitted
from planner.performance.loop import prompt_seconds
from planner.performance.replicas import ENGINES, PRECISIONS, Floats, Ints
from planner.performance.step import decode_step
from planner.raw import Raw

SHARES = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)  # at which quantiles are kept

# Start values, shrunken towards. Few effects on purpose: more of them fit better and predict unseen models worse.
START = {
    **dict.fromkeys(FACTORS, 1.05),
    "link": 0.35,
    "layer_s": 4e-6,
    "moe_layer_s": 6e-6,
    "all_reduce_s": 6e-6,
    "step_s": 4e-4,
    "sequence_s": 5e-6,
    "request_s": 0.02,
}
ENGINE_EFFECTS = ("request_s",)
# Kernels were measured alone, so the fit keeps near them and near small overheads: end-to-end rows cannot tell these apart, and left as free as the
# rest they predict unseen models worse (11.6 against 10.8 %).
NEAR = 0.1
START_SD = {
    **dict.fromkeys(("products", "experts", "attention"), 0.03),
    **dict.fromkeys(("prompt_products", "prompt_experts", "prompt_attention"), 0.15),
    **dict.fromkeys(("layer_s", "moe_layer_s", "step_s", "sequence_s"), NEAR),
    "request_s": 0.2,
}
# Closed-loop start-up and admission, used to reproduce measured TTFT here and nowhere else.
CLOSED_LOOP = {"start_steps": 5.0, "burst": 0.05, "polled": 0.5}
PRIOR_SD, EFFECT_SD = 1.0, 0.5
# A closed loop of many cannot tell a request's own overhead from its start-up burst: the few rows of one or two requests can (20 ms), and
# left free the burst of a campaign would be in every plan's TTFT (125 ms of SGLang's).
REQUEST_EFFECT_SD = 0.1
RECORD = "record"  # by how much engines tuned for a maximum are faster than those of the curves
RECORD_SD, MAXIMA_WEIGHT = 0.3, 2.0
TTFT_WEIGHT, TTFT_SCALE = 0.25, 0.1  # TTFT scatters more, and with a long tail
GENERATION_TESTS = ("generation", "model_and_generation")


@dataclass(frozen=True)
class ParameterLayout:
    """Where each coefficient and effect stands in the parameter vector (all as logarithms)."""

    names: tuple[str, ...]
    start: Floats
    low: Floats
    high: Floats
    spread: Floats


def layout() -> ParameterLayout:
    """Globals, closed-loop terms, engine effects, factors of AMD and its CDNA3 generation, the harness's request overhead."""
    names, start, spread, low, high = [], [], [], [], []
    for name, value in {**START, **CLOSED_LOOP}.items():
        names.append(name)
        start.append(np.log(value))
        spread.append(START_SD.get(name, PRIOR_SD))
        low.append(0.0 if name in FACTORS else -20.0)
        high.append(0.0 if name in EFFICIENCIES else np.inf)
    effects = [f"{name}@{engine}" for name in (*ENGINE_EFFECTS, "burst", "start_steps") for engine in ENGINES]
    for name in (*effects, "vendor@AMD", "vendor@cdna3", "request_s@harness", RECORD):
        names.append(name)
        start.append(np.log(1.3) if name.startswith("vendor@") else 0.0)  # so that a fit without AMD rows stays careful with AMD
        is_request = name.startswith("request_s@") and name != "request_s@harness"
        spread.append(REQUEST_EFFECT_SD if is_request else RECORD_SD if name == RECORD else EFFECT_SD)
        low.append(-20.0)
        high.append(np.inf)
    return ParameterLayout(tuple(names), np.array(start), np.array(low), np.array(high), np.array(spread))


LAYOUT = layout()


def columns(x: Floats, rows: FitRows | Maxima) -> dict[str, Floats]:
    """Each coefficient as a column [P, 1], and the times of kernels."""
    value, found = dict(zip(LAYOUT.names, x, strict=True)), dict(rows.kernels)
    for name in (*START, *CLOSED_LOOP):
        effect = np.array([value.get(f"{name}@{engine}", 0.0) for engine in ENGINES])
        row = np.exp(value[name] + effect[rows.replicas.engine])[:, None]
        found[name] = np.minimum(row, 1.0) if name in EFFICIENCIES else row
    found["request_s"] = found["request_s"] * np.exp(value["request_s@harness"] * rows.harness)[:, None]
    amd = np.array([(g.vendor == "AMD") * value["vendor@AMD"] + (g.generation == "cdna3") * value["vendor@cdna3"] for g in rows.replicas.gpus])
    found["vendor"] = np.exp(amd[rows.replicas.gpu])[:, None]
    return found


def predict(x: Floats, rows: FitRows) -> tuple[Floats, Floats]:
    """(TTFT, TPOT) of closed-loop rows at their measured number of decoding sequences."""
    e = columns(x, rows)
    step = (decode_step(rows.shape, e, rows.kv, rows.decoding[:, None]) * e["vendor"])[:, 0]
    prompt = prompt_seconds(rows, e)[:, 0]
    others = np.maximum(rows.decoding - 1, 0.0)
    tpot = step + others / rows.output_tokens * prompt  # each finished request is replaced by one prompt
    waited = e["start_steps"][:, 0] + e["polled"][:, 0] * (rows.poll_steps - 1)
    ttft = e["request_s"][:, 0] + waited * tpot + prompt * (1 + e["burst"][:, 0] * np.maximum(rows.concurrency - 1, 0.0))
    return ttft, tpot


def maximum(x: Floats, maxima: Maxima) -> Floats:
    """Tokens/s per GPU [O] at the best share of the sequences that fit, as an engine of the curves has them."""
    e = columns(x, maxima)
    prompt = prompt_seconds(maxima, e)[:, 0]
    found = np.zeros(len(maxima))
    for share in SHARES_OF_SEQUENCES:
        held = np.maximum(maxima.sequences * share, 1.0)
        step = (decode_step(maxima.shape, e, maxima.kv, held[:, None]) * e["vendor"])[:, 0]
        found = np.maximum(found, held / (step + np.maximum(held - 1, 0.0) / maxima.output_tokens * prompt))
    return found / maxima.replicas.size


def fit(rows: FitRows, start: Floats | None = None) -> Floats:
    """Robust least squares on log TPOT, at a quarter of the weight log TTFT, and log tokens/s of the maxima, shrunken towards the start values."""
    first = np.clip(LAYOUT.start if start is None else start, LAYOUT.low + 1e-6, LAYOUT.high - 1e-6)
    for _ in range(1 if start is not None or not rows.maxima else 2):  # which way of running a maximum is the best depends on the fit
        maxima = rows.maxima.take(rows.maxima.best(maximum(first, rows.maxima))) if rows.maxima else None
        found = least_squares(_residuals(rows, maxima), first, bounds=(LAYOUT.low, LAYOUT.high), x_scale=1.0, max_nfev=60, ftol=1e-5, xtol=1e-5)
        first = np.clip(found.x, LAYOUT.low + 1e-6, LAYOUT.high - 1e-6)
    best: Floats = found.x
    return best


def _residuals(rows: FitRows, maxima: Maxima | None) -> Callable[[Floats], Floats]:
    """What least squares make small."""
    record, many = LAYOUT.names.index(RECORD), maxima.weight * MAXIMA_WEIGHT if maxima else None
    kept = rows.in_stride

    def residuals(x: Floats) -> Floats:
        ttft, tpot = predict(x, rows)
        r_tpot = _huber(np.log(tpot / rows.tpot_s), 0.15) * rows.weight
        r_ttft = TTFT_WEIGHT * _huber(np.log(ttft[kept] / rows.ttft_s[kept]), TTFT_SCALE) * rows.weight[kept]
        parts = [r_tpot, r_ttft, (x - LAYOUT.start) / LAYOUT.spread]
        if maxima and many is not None:
            parts.append(_huber(np.log(maximum(x, maxima) / maxima.tps) + x[record], 0.15) * many)
        return np.concatenate(parts)

    return residuals


def _huber(r: Floats, scale: float) -> Floats:
    found: Floats = np.sign(r) * np.sqrt(2 * (np.sqrt(1 + (r / scale) ** 2) - 1))
    return found


# ---- cross-validation and evidence tiers ----


@dataclass(frozen=True)
class HeldOut:
    """Measured over predicted of each row, from a fit without the row's group; nan where the fold says nothing about it."""

    tpot: Floats
    ttft: Floats


def splits(rows: FitRows, folds: NDArray[np.str_], also: NDArray[np.str_] | None = None) -> Iterator[tuple[Ints, Ints]]:
    """(rows left in, rows tested) of each fold; with ``also``, rows that share either label are left out.

    A row whose vendor is measured in its own fold only would test nothing but the vendor, so it is in no test.
    """
    amd = np.array([g.vendor == "AMD" for g in rows.replicas.gpus])[rows.replicas.gpu]
    second = folds if also is None else also
    for fold, other in sorted(set(zip(folds.tolist(), second.tolist(), strict=True))):
        left = (folds != fold) & (second != other)
        tested = np.flatnonzero((folds == fold) & (second == other) & np.isin(amd, amd[left]))
        if len(tested):
            yield np.flatnonzero(left), tested


def held_out(rows: FitRows, folds: NDArray[np.str_], whole: Floats, also: NDArray[np.str_] | None = None) -> HeldOut:
    """Cross-validation by folds; with ``also``, rows that share either label are left out of the fit.

    A row whose vendor is measured in its own fold only would test nothing but the vendor, so it stays nan.
    """
    tpot, ttft = (np.full(len(rows), np.nan) for _ in range(2))
    for left, tested in splits(rows, folds, also):
        train, test = rows.take(left), rows.take(tested)
        x = fit(train, whole)
        predicted = predict(x, test)
        tpot[tested], ttft[tested] = test.tpot_s / predicted[1], test.ttft_s / predicted[0]
    return HeldOut(tpot, ttft)


def summary(ratio: Floats) -> dict[str, float]:
    """Median and mean absolute error and bias of the prediction, share within 20 %."""
    ratio = ratio[np.isfinite(ratio)]
    error = 1 / ratio - 1
    absolute = np.abs(error)
    numbers = {"median": np.median(absolute), "mean": absolute.mean(), "bias": np.median(error), "within_20": (absolute <= 0.2).mean()}
    return {"rows": len(ratio), **{k: round(float(v), 4) for k, v in numbers.items()}}


def by_group(ratio: Floats, groups: NDArray[np.str_]) -> dict[str, dict[str, float]]:
    """The summary of each group that was tested."""
    return {g: summary(ratio[groups == g]) for g in sorted(set(groups[np.isfinite(ratio)].tolist()))}


def step_quantiles(ratio: Floats, configuration: NDArray[np.str_]) -> dict[str, float]:
    """One-sided quantiles of measured/predicted with every configuration counting the same."""
    configuration, ratio = configuration[np.isfinite(ratio)], ratio[np.isfinite(ratio)]
    counts = Counter(configuration.tolist())
    weight = np.array([1 / counts[c] for c in configuration.tolist()])
    order = np.argsort(ratio)
    share = (np.cumsum(weight[order]) - weight[order] / 2) / weight.sum()
    return {str(q): round(float(np.interp(q, share, ratio[order])), 4) for q in SHARES}


# ---- the whole run ----


def to_coefficients(x: Floats, data: Mapping[str, str], errors: Raw) -> Coefficients:
    """The record that is stored, without quantiles. Closed-loop terms and the harness effect stay behind."""
    value = {name: float(np.exp(v)) for name, v in zip(LAYOUT.names, x, strict=True)}
    return Coefficients(
        source="fitted to closed-loop measurements: " + ", ".join(data),
        fitted=date.today().isoformat(),
        values={name: float(f"{value[name]:.5g}") for name in START},
        engines={name: {e: round(value[f"{name}@{e}"], 4) for e in ENGINES} for name in ENGINE_EFFECTS},
        vendors={"NVIDIA": 1.0, "AMD": round(value["vendor@AMD"], 4)},
        generations={"cdna3": round(value["vendor@cdna3"], 4)},
        data=data,
        errors=errors,
        step_quantiles={},
        generations_tested=(),
    )


def of_coefficients(c: Coefficients) -> Floats:
    """The parameters of stored coefficients; what is not stored stands at its start."""
    value = dict(zip(LAYOUT.names, np.exp(LAYOUT.start).tolist(), strict=True)) | dict(c.values)
    value |= {f"{name}@{engine}": f for name, effects in c.engines.items() for engine, f in effects.items()}
    value |= {"vendor@AMD": c.vendors["AMD"], "vendor@cdna3": c.generations["cdna3"]}
    return np.log([value[name] for name in LAYOUT.names])


def run(files: Sequence[Path], cards: Sequence[Card], gpus: Sequence[Gpu], log: Callable[[str], None]) -> Coefficients:
    """Reads, fits, cross-validates."""
    refused: Counter[str] = Counter()
    rows = read_rows(files, cards, gpus, refused)
    log(f"{len(rows)} rows of {len(set(rows.configuration.tolist()))} configurations fitted; refused: {dict(refused.most_common())}")
    if len(set(rows.generation.tolist())) < 2:
        raise SystemExit("needs rows of two generations of GPUs, to test each without its own")
    whole = fit(rows)
    splits = {"configuration": _folds(rows.configuration), "group": rows.group, "model": rows.model, "gpu": rows.gpu, "generation": rows.generation}
    tests = {name: held_out(rows, folds, whole) for name, folds in splits.items()}
    for name, other in (("gpu", rows.gpu), ("generation", rows.generation)):
        tests[f"model_and_{name}"] = held_out(rows, rows.model, whole, other)
    data = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    found = to_coefficients(whole, data, _errors(rows, whole, tests, refused))
    tested = sorted(set(rows.generation[np.isfinite(tests["model_and_gpu"].tpot)].tolist()))
    split = set(rows.replicas.engine[rows.replicas.dp > 1].tolist())
    layouts = tuple(engine for i, engine in enumerate(ENGINES) if i in split)
    return replace(found, step_quantiles=_quantiles(rows, tests), generations_tested=tested, reach=reach(rows), attention_dp=layouts)


def reach(rows: FitRows) -> dict[str, float]:
    """Most sequences in decoding per GPU of any row, by GPU and precision: beyond them steps are extrapolated."""
    found: dict[str, float] = {}
    parts = [(rows.replicas, rows.gpu, rows.decoding)] + ([(rows.maxima.replicas, rows.maxima.gpu, rows.maxima.sequences)] if rows.maxima else [])
    for replicas, gpu, sequences in parts:
        for g, p, most in zip(gpu.tolist(), replicas.precision.tolist(), (sequences / replicas.size).tolist(), strict=True):
            key = f"{g}|{PRECISIONS[p]}"
            found[key] = round(max(found.get(key, 0.0), most), 1)
    return dict(sorted(found.items()))


def _errors(rows: FitRows, whole: Floats, tests: Mapping[str, HeldOut], refused: Mapping[str, int]) -> Raw:
    """Errors of the fit, in sample and by what was left out."""
    ttft, tpot = predict(whole, rows)
    errors: Raw = {"in_sample": {"tpot": summary(rows.tpot_s / tpot), "ttft_closed_loop": summary(rows.ttft_s / ttft)}}
    for name, test in tests.items():
        errors[f"leave_{name}_out"] = {"tpot": summary(test.tpot), "ttft_closed_loop": summary(test.ttft)}
    errors["leave_model_out"]["tpot_by_model"] = by_group(tests["model"].tpot, rows.model)
    errors["leave_gpu_out"]["tpot_by_gpu"] = by_group(tests["gpu"].tpot, rows.gpu)
    for name in GENERATION_TESTS:
        errors[f"leave_{name}_out"]["tpot_by_generation"] = by_group(tests[name].tpot, rows.generation)
        errors[f"leave_{name}_out"]["step_quantiles_by_generation"] = _by_generation(rows, tests[name])
        errors[f"leave_{name}_out"]["step_quantiles_pooled"] = step_quantiles(tests[name].tpot, rows.configuration)
    errors["refused"] = dict(refused)
    return errors


def _quantiles(rows: FitRows, tests: Mapping[str, HeldOut]) -> dict[str, dict[str, float]]:
    """Quantiles of each tier from the split that leaves out what the tier lacks, by the physics alone."""
    tiers = [step_quantiles(tests[name].tpot, rows.configuration) for name in ("configuration", "group", "model", "model_and_gpu")]
    return {**dict(zip(TIERS, tiers, strict=True)), UNSEEN: _worst(rows, tests)}


def _by_generation(rows: FitRows, test: HeldOut) -> dict[str, dict[str, float]]:
    """The quantiles of each generation that was tested."""
    names = sorted(set(rows.generation[np.isfinite(test.tpot)].tolist()))
    return {name: step_quantiles(test.tpot[rows.generation == name], rows.configuration[rows.generation == name]) for name in names}


def _worst(rows: FitRows, tests: Mapping[str, HeldOut]) -> dict[str, float]:
    """At each confidence the quantile of the worst generation left out.

    Generations are few and each errs in its own way, so pooling their rows would show the scatter within generations and
    hide that between them: the next one is worse than the worst of four with a chance of one in five.
    """
    tables = [table for name in GENERATION_TESTS for table in _by_generation(rows, tests[name]).values()]
    return {q: (max if float(q) >= 0.5 else min)(table[q] for table in tables) for q in tables[0]}


def _folds(groups: NDArray[np.str_], count: int = 10) -> NDArray[np.str_]:
    """Groups dealt into folds by name, so that the split never depends on the order of rows."""
    names = sorted(set(groups.tolist()))
    fold = {name: str(i % count) for i, name in enumerate(names)}
    return np.array([fold[g] for g in groups.tolist()])


def main(arguments: Iterable[str] | None = None) -> int:
    """Command line of the fit."""
    root = Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(prog="python -m planner.calibration.fit", description=__doc__)
    parser.add_argument("data", type=Path, help="folder with curves.csv and, if there, reference_points.csv")
    parser.add_argument("--reference", type=Path, help="reference_points.csv elsewhere")
    parser.add_argument("--models", type=Path, default=root / "models")
    parser.add_argument("--gpus", type=Path, default=root / "catalogs" / "gpus.csv")
    parser.add_argument("-o", "--output", type=Path, default=root / "catalogs" / "coefficients.json")
    asked = parser.parse_args(None if arguments is None else list(arguments))
    files = data_files(asked.data, asked.reference)
    if not files:
        parser.error(f"no curves.csv in {asked.data}")
    if len(files) == 1:
        print(f"only {files[0].name}: fitted without reference rows", file=sys.stderr)
    cards = [read_card(path) for path in sorted(asked.models.glob("*.toml"))]
    found = run(files, cards, read_csv(asked.gpus, Gpu), lambda line: print(line, file=sys.stderr))
    for split, error in found.errors.items():
        print(f"{split}: {error.get('tpot') or error}", file=sys.stderr)
    asked.output.write_text(json.dumps({f.name: getattr(found, f.name) for f in fields(Fitted)}, indent=1, sort_keys=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
