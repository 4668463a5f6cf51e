"""Are the configurations that plans choose still covered? Choosing the cheapest prefers what is over-predicted ("the winner's curse").

    python benchmarks/coverage.py [--reference reference_points.csv] [--scenarios 200] [--plans 100]

Every measured configuration gets the step curve that the planner would give it if it had never been measured: fitted without it, its
TP, its group, its model, its model and GPU, or its generation of GPUs. In random scenarios the cheapest is chosen on those curves, and its
measured TPOT is compared with the predicted one at the load it was chosen for. Writes benchmarks/results/coverage.json. Needs scipy; some minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "2")

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from planner.calibration import fit as physics
from planner.calibration import krige
from planner.calibration.measured import FitRows, data_files, read_rows
from planner.catalog.catalog import Catalog
from planner.catalog.load import load_catalog
from planner.performance.capacity import Limit, capacity, service
from planner.performance.coefficients import TIERS, Coefficients, generation_of, load_coefficients
from planner.performance.evidence import Evidence, step_shift
from planner.performance.lengths import LengthMix
from planner.performance.replicas import Floats, Ints
from planner.performance.residual import FILE, OTHER_TP, Kernel, load_residuals
from planner.performance.step import GRID, MAX_SEQUENCES, StepCurves, step_curves

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
# How well a configuration is known -> (what is left out of the fit, its tier's index, whether the kriged residual then still speaks of it).
LEVELS = {
    "measured": ("configuration", 0, True),
    "other TP measured": (OTHER_TP, 1, True),
    "anchored": ("group", 1, False),
    "transferred": ("model", 2, False),
    "modelled": ("model_and_gpu", 3, False),
    "unseen generation": ("generation", 3, False),
}
MIXED = "mixed"  # every group known in a way drawn at random
LOADS = (1, 16, 64, 256, 10**6)  # sequences decoding
CONFIDENCES = (0.5, 0.8, 0.9, 0.95)
BAR = 0.75  # at confidence 0.8
TPOT_MS, TTFT_S, PERCENTILES = (15.0, 100.0), (1.0, 2.0, 5.0, 10.0), (90.0, 95.0, 99.0)
METRIC = "mmlu-pro"
RESAMPLES = 2000


# ---- curves of what is left out ----


@dataclass(frozen=True)
class Configurations:
    """Measured configurations [C] and the runs that measured them."""

    rows: FitRows  # one of each
    keys: NDArray[np.str_]
    lengths: NDArray[np.str_]  # nominal, "isl|osl"
    slots: Ints  # most sequences that were measured: no plan goes beyond
    runs: tuple[tuple[tuple[Floats, Floats], ...], ...]  # of each: (log sequences decoding, log TPOT) of every run, by rising load


def configurations(rows: FitRows) -> Configurations:
    """One row for every configuration, in order of its name."""
    keys = krige.configurations(rows)
    names, first = np.unique(keys, return_index=True)
    one = rows.take(first)
    runs = tuple(tuple(_runs(rows, np.flatnonzero(keys == name))) for name in names.tolist())
    most = np.array([max(float(np.exp(run[0][-1])) for run in some) for some in runs])
    return Configurations(
        one, names, np.array(["|".join(n.split("|")[-2:]) for n in names.tolist()]), np.clip(np.rint(most), 1, MAX_SEQUENCES).astype(np.int64), runs
    )


def _runs(rows: FitRows, some: Ints) -> Iterator[tuple[Floats, Floats]]:
    """The curve of every run of a configuration (they differ in expert parallelism or harness); repeats of a load are averaged."""
    for name in sorted(set(rows.configuration[some].tolist())):
        run = some[rows.configuration[some] == name]
        loads = np.unique(rows.concurrency[run])
        decoding, tpot = (np.array([np.log(column[run][rows.concurrency[run] == n]).mean() for n in loads]) for column in (rows.decoding, rows.tpot_s))
        yield decoding, tpot


def held_out_curves(
    rows: FitRows, asked: Configurations, names: Sequence[str], kernels: Mapping[str, Kernel], shipped: Coefficients, level: str, folder: Path
) -> dict[float, StepCurves]:
    """At each confidence the curves that the planner would give, from fits without what the level lacks; nan where no fold says anything."""
    split, tier, kriged = LEVELS[level]
    tested_too = () if split == "generation" else shipped.generations_tested
    whole, found = physics.fit(rows), {c: _blank(len(asked.keys)) for c in CONFIDENCES}
    index = {key: i for i, key in enumerate(asked.keys.tolist())}
    keys = krige.configurations(rows)
    for i, (left, tested) in enumerate(physics.splits(rows, *krige.splits(rows)[split])):
        base = rows.take(left)
        some = np.array(sorted({index[key] for key in keys[tested].tolist()}))
        if kriged:
            known = set(base.group.tolist())
            some = some[[g in known for g in asked.rows.group[some].tolist()]]
        coefficients = _coefficients(base, names, kernels, physics.fit(base, whole), shipped, tested_too, folder / f"{split}-{i}" if kriged else None)
        _fill(found, asked, some, names, coefficients, tier)
    return found


def _coefficients(
    base: FitRows, names: Sequence[str], kernels: Mapping[str, Kernel], x: Floats, shipped: Coefficients, tested: Sequence[str], folder: Path | None
) -> Coefficients:
    """The catalogue's coefficients as they would be without the rows left out, with the shipped quantiles; residuals go to ``folder``."""
    found = replace(physics.to_coefficients(x, {}, {}), step_quantiles=shipped.step_quantiles, generations_tested=tested)
    if folder is None or shipped.path is None:
        return found
    folder.mkdir()
    stored = json.loads(shipped.path.with_name(FILE).read_text(encoding="utf-8"))
    bands = {name: stored[name] for name in ("quantiles", "quantiles_by_stack")}
    krige.write({**krige.record(base, names, kernels, krige.train(base, names, kernels, x), {}), **bands}, folder / FILE)
    return replace(found, path=folder / "coefficients.json")


def _fill(found: Mapping[float, StepCurves], asked: Configurations, some: Ints, names: Sequence[str], coefficients: Coefficients, tier: int) -> None:
    """Writes the curves of some configurations, which are grouped by their lengths."""
    for pair in sorted(set(asked.lengths[some].tolist())):
        at = some[asked.lengths[some] == pair]
        part, mix = asked.rows.replicas.take(at), mix_of(asked, at)
        plain, tiers = step_curves(part, mix, coefficients), Evidence(np.full(len(at), tier), np.full(len(at), -1))
        for confidence, curves in found.items():
            shift = step_shift(tiers, part, tuple(names), coefficients, confidence, mix, GRID)
            scaled = plain.pulled(shift.step, shift.prompt, mix)
            for name in ("step_s", "prefill_s_per_token", "overhead_s", "floor_s"):
                getattr(curves, name)[at] = getattr(scaled, name)


def mix_of(asked: Configurations, some: Ints) -> LengthMix:
    """The lengths that were measured, as means."""
    return LengthMix(asked.rows.input_tokens[some].mean(keepdims=True), asked.rows.output_tokens[some].mean(keepdims=True))


def _blank(count: int) -> StepCurves:
    shape = (count, len(GRID))
    return StepCurves(GRID, np.full(shape, np.nan), np.full(count, np.nan), np.full(count, np.nan), np.full(shape, np.nan))


# ---- scenarios ----


@dataclass(frozen=True)
class Question:
    """One random scenario: lengths, limits, the models that may serve, and what a GPU costs where it can be had."""

    lengths: str
    limits: tuple[Limit, ...]
    models: frozenset[str]
    usd: Mapping[str, float]  # GPU -> cheapest per hour


def questions(asked: Configurations, catalog: Catalog, seed: int) -> Iterator[Question]:
    """Without end. Lengths by how many configurations were measured with them; half ask for one model, half for a quality floor; half of the providers."""
    rng = np.random.default_rng(seed)
    score = {card.name: max((q.score for q in card.quality if q.benchmark == METRIC), default=0.0) for card in catalog.cards}
    providers = sorted({o.provider for o in catalog.offers})
    while True:
        lengths = str(rng.choice(asked.lengths))
        models = sorted(set(asked.rows.model[asked.lengths == lengths].tolist()))
        floor = score[str(rng.choice(models))]
        allowed = [str(rng.choice(models))] if rng.random() < 0.5 else [m for m in models if score[m] >= floor]
        percentile = float(rng.choice(PERCENTILES))
        tpot = float(np.exp(rng.uniform(*np.log(TPOT_MS)))) / 1000
        limits = (Limit("tpot", tpot, percentile), Limit("ttft", float(rng.choice(TTFT_S)), percentile))
        yield Question(lengths, limits, frozenset(allowed), _cheapest(catalog, {p for p in providers if rng.random() < 0.5}))


def _cheapest(catalog: Catalog, providers: set[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for offer in catalog.offers:
        if offer.provider in providers and offer.purchase == "on_demand":
            usd = offer.usd_per_hour / offer.gpus_per_instance
            found[offer.gpu] = min(usd, found.get(offer.gpu, usd))
    return found


@dataclass(frozen=True)
class Choice:
    """What one scenario's candidates are predicted to do at their capacity; arrays over the candidates."""

    number: int  # of the scenario
    candidate: Ints  # configuration
    usd: Floats  # per million requests
    covered: Floats  # share of its runs whose measured TPOT is within the predicted
    ratio: Floats  # measured/predicted, the runs' mean in logs


def choices(asked: Configurations, curves: StepCurves, question: Question, number: int) -> Choice | None:
    """All candidates that can serve, or None where fewer than two can: nothing to choose."""
    allowed = np.isin(asked.rows.model, list(question.models)) & np.isin(asked.rows.gpu, list(question.usd)) & (asked.lengths == question.lengths)
    some = np.flatnonzero(allowed & np.isfinite(curves.overhead_s))
    if len(some) < 2:
        return None
    part, mix = curves.take(some), mix_of(asked, some)
    found = capacity(part, mix, question.limits, asked.slots[some])
    serves = found.qps > 0
    if serves.sum() < 2:
        return None
    some, part, qps = some[serves], part.take(serves), found.qps[serves]
    price = np.array([question.usd[g] for g in asked.rows.gpu[some].tolist()])
    decoding = np.maximum(qps * mix.mean_output * service(part, mix, qps, asked.slots[some]).tpot_s["mean"], 1.0)
    compared = [_compare(asked.runs[i], part.take(np.array([j])), mix, float(decoding[j])) for j, i in enumerate(some.tolist())]
    ratio = np.array([np.mean(logs) for logs in compared])
    covered = np.array([np.mean([log <= 0 for log in logs]) for logs in compared])
    return Choice(number, some, price * asked.rows.replicas.tp[some] / qps / 3600 * 1e6, covered, np.exp(ratio))


def _compare(runs: Sequence[tuple[Floats, Floats]], curve: StepCurves, mix: LengthMix, decoding: float) -> list[float]:
    """log(measured/predicted TPOT) of every run at so many sequences decoding, or at the nearest that were measured."""
    tpot = curve.step_s[0] + curve.prefill_s_per_token[0] * mix.mean_input / mix.mean_output * curve.n
    found = []
    for load, measured in runs:
        at = float(np.clip(np.log(decoding), load[0], load[-1]))
        found.append(float(np.interp(at, load, measured) - np.log(np.interp(np.exp(at), curve.n, tpot))))
    return found


def choose(asked: Configurations, catalog: Catalog, curves: Callable[[int], StepCurves], count: int, seed: int) -> list[Choice]:
    """The first ``count`` random scenarios that leave a choice; ``curves`` of the scenario's number."""
    found: list[Choice] = []
    for tried, question in enumerate(questions(asked, catalog, seed)):
        if len(found) == count or tried > 50 * count:
            break
        choice = choices(asked, curves(tried), question, tried)
        if choice:
            found.append(choice)
    return found


def mixed(asked: Configurations, levels: Mapping[str, StepCurves], number: int) -> StepCurves:
    """Curves of all levels together, each group known at the level drawn for it."""
    pick, columns = drawn_levels(asked, len(levels), number), ("step_s", "prefill_s_per_token", "overhead_s", "floor_s")
    return StepCurves(GRID, *(np.stack([getattr(c, name) for c in levels.values()])[pick, np.arange(len(pick))] for name in columns))


def drawn_levels(asked: Configurations, levels: int, number: int) -> Ints:
    """The level of each configuration in a scenario, the same for all of a group."""
    groups, of = np.unique(asked.rows.group, return_inverse=True)
    found: Ints = np.random.default_rng(number).integers(levels, size=len(groups))[of.ravel()]
    return found


def by_load(rows: FitRows, asked: Configurations, curves: StepCurves) -> dict[str, dict[str, float]]:
    """Every measured row against its curve, whether any scenario would run it there: share covered by sequences decoding, configurations counting the same."""
    keys = krige.configurations(rows)
    at = np.searchsorted(asked.keys, keys)
    tpot = curves.step_s + (curves.prefill_s_per_token * asked.rows.input_tokens / asked.rows.output_tokens)[:, None] * curves.n
    ratio = rows.tpot_s / np.array([np.interp(b, curves.n, tpot[i]) for b, i in zip(rows.decoding, at, strict=True)])
    found = {}
    for low, high in ((LOADS[0], LOADS[-1]), *pairwise(LOADS)):
        kept = np.isfinite(ratio) & (rows.decoding >= low) & (rows.decoding < high)
        count = Counter(keys[kept].tolist())
        weight = np.array([1 / count[k] for k in keys[kept].tolist()])
        name = f"{low}-{high - 1}" if high < LOADS[-1] else f"{low}+"
        found[name] = {"rows": int(kept.sum()), "covered": round(float((ratio[kept] <= 1) @ weight / max(weight.sum(), 1e-9)), 4)}
    return found


def summary(asked: Configurations, found: Sequence[Choice]) -> dict[str, Any]:
    """Coverage of the chosen with a bootstrap interval over groups (model, precision, GPU, engine: what errs together), and of all candidates.

    ``cost_slope``: by how much measured cost rises with predicted cost across the groups of a scenario, in logs. At 1 or more, those
    predicted cheapest are no more over-predicted than others. ``errors_shuffled``: coverage if they were, errors dealt out anew.
    """
    best = [int(np.argmin(c.usd)) for c in found]
    chosen, covered, ratio = (
        [float(column[i]) for column, i in zip(columns, best, strict=True)] for columns in zip(*((c.candidate, c.covered, c.ratio) for c in found), strict=True)
    )
    everyone: dict[int, list[float]] = defaultdict(list)
    for choice in found:
        for i, value in zip(choice.candidate.tolist(), choice.covered.tolist(), strict=True):
            everyone[i].append(value)
    at = np.array(chosen, dtype=np.int64)
    usd, error = _by_group(asked, found)
    return {
        "scenarios": len(found),
        "candidates": round(float(np.mean([len(c.candidate) for c in found])), 1),
        "groups": round(float(np.mean([len(u) for u in usd])), 1),
        "configurations_chosen": len(set(at.tolist())),
        "groups_chosen": len(set(asked.rows.group[at].tolist())),
        "chosen": round(float(np.mean(covered)), 4),
        "interval": _interval(np.array(covered), asked.rows.group[at]),
        "all_candidates": round(float(np.mean([np.mean(v) for v in everyone.values()])), 4),
        "measured_over_predicted_median": round(float(np.median(ratio)), 4),
        "cost_slope": _slope(usd, error),
        "errors_shuffled": _shuffled(usd, error),
    }


def _by_group(asked: Configurations, found: Sequence[Choice]) -> tuple[list[Floats], list[Floats]]:
    """log cost and log(measured/predicted) of the cheapest of each group, by scenario."""
    usd, error = [], []
    for choice in found:
        order = np.argsort(choice.usd)
        first = order[np.unique(asked.rows.group[choice.candidate[order]], return_index=True)[1]]
        usd.append(np.log(choice.usd[first]))
        error.append(np.log(choice.ratio[first]))
    return usd, error


def _slope(usd: Sequence[Floats], error: Sequence[Floats]) -> float:
    x, y = (np.concatenate([column - column.mean() for column in columns]) for columns in (usd, error))
    return round(1 + float(x @ y / (x @ x)), 4)


def _shuffled(usd: Sequence[Floats], error: Sequence[Floats], times: int = 50) -> float:
    """Share covered where what a group truly costs says nothing of its error."""
    rng, pool, inside = np.random.default_rng(0), np.concatenate(error), []
    for predicted, mine in zip(usd, error, strict=True):
        drawn = rng.choice(pool, (times, len(mine)))
        best = np.argmin(predicted + mine - drawn, axis=1)
        inside.append(float((drawn[np.arange(times), best] <= 0).mean()))
    return round(float(np.mean(inside)), 4)


def by_level_chosen(asked: Configurations, found: Sequence[Choice]) -> dict[str, dict[str, float | None]]:
    """Of mixed scenarios: how often the chosen was known at each level, and how often it was then covered."""
    covered: dict[str, list[float]] = {level: [] for level in LEVELS}
    for choice in found:
        best = int(np.argmin(choice.usd))
        level = list(LEVELS)[int(drawn_levels(asked, len(LEVELS), choice.number)[choice.candidate[best]])]
        covered[level].append(float(choice.covered[best]))
    return {level: {"chosen": len(v), "covered": round(float(np.mean(v)), 4) if v else None} for level, v in covered.items()}


def _interval(covered: Floats, groups: NDArray[np.str_]) -> tuple[float, float]:
    """90 % bootstrap interval of the mean, whole groups drawn anew."""
    rng, names = np.random.default_rng(0), sorted(set(groups.tolist()))
    total = np.array([[covered[groups == g].sum(), (groups == g).sum()] for g in names])
    drawn = total[rng.integers(len(names), size=(RESAMPLES, len(names)))].sum(axis=1)
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], (0.05, 0.95))
    return round(float(low), 4), round(float(high), 4)


# ---- what real plans choose ----


def of_plans(catalog: Catalog, count: int) -> tuple[dict[str, float], dict[str, float]]:
    """Shares of the money of real plans at confidence 0.8: by level, and by requests in flight per replica, over random scenarios."""
    from speed import plan, random_scenarios

    known = set(load_residuals(catalog.coefficients_file.with_name(FILE)).groups)
    tested = load_coefficients(catalog.coefficients_file).generations_tested
    card_of = {c.id: card.name for card in catalog.cards for c in card.checkpoint}
    levels, loads = Counter[str](), Counter[str]()
    for flags in random_scenarios(count, seed=2):
        done = subprocess.run([*plan(flags), "--confidence", "0.8", "--format", "json"], cwd=ROOT, capture_output=True, text=True, check=False)
        deployments = json.loads(done.stdout).get("deployments", []) if done.returncode == 0 else []
        total = sum(d["usd_per_hour"] for d in deployments)
        for d in deployments:
            pulled = (card_of[d["checkpoint"]], d["gpu"], d["engine"], d["precision"]) in known and d["evidence"]["tier"] in TIERS[:2]
            unseen = not pulled and generation_of(catalog.gpus[d["gpu"]], d["tp"]) not in tested
            tier = d["evidence"]["tier"]
            level = "unseen generation" if unseen else "other TP measured" if pulled and tier == TIERS[1] else tier
            levels[level] += d["usd_per_hour"] / total
            low = max(n for n in LOADS if n <= max(d["in_flight_per_replica"] or 1, 1))
            loads[f"{low}+"] += d["usd_per_hour"] / total
    by_level, by_load = (
        {name: round(found[name] / max(found.total(), 1e-9), 4) for name in names} for found, names in ((levels, LEVELS), (loads, sorted(loads)))
    )
    return by_level, by_load


# ---- the run ----


def show(found: Mapping[str, Any], console: Console) -> None:
    names = ("chosen (groups)", "chosen covered", "90 % interval", "all covered", "measured / predicted", "cost slope", "errors shuffled")
    table = Table("known as", "confidence", "candidates (groups)", *names)
    for level, by_confidence in found["levels"].items():
        for confidence, s in by_confidence.items():
            interval = "–".join(f"{100 * v:.0f}" for v in s["interval"])
            counts = [f"{s['candidates']} ({s['groups']})", f"{s['configurations_chosen']} ({s['groups_chosen']})"]
            shares = [f"{100 * s['chosen']:.1f} %", interval, f"{100 * s['all_candidates']:.1f} %", f"{s['measured_over_predicted_median']:.3f}"]
            table.add_row(level, confidence, *counts, *shares, f"{s['cost_slope']:.2f}", f"{100 * s['errors_shuffled']:.0f} %")
    console.print(table)
    console.print("chosen in mixed scenarios at 0.8:", found["mixed_by_level"])
    for level, loads in found["by_load"].items():
        shares = [f"{name}: {100 * v['covered']:.0f} % of {v['rows']}" for name, v in loads.items()]
        console.print(f"{level} at 0.8, all rows by sequences decoding:", ", ".join(shares))
    console.print("plans by level:", found["plans"], "by requests in flight per replica:", found["plans_in_flight"])
    console.print(f"chosen configurations covered at 0.8, levels weighted as in plans: {100 * found['covered_in_plans']:.1f} % (bar {100 * BAR:.0f} %)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--scenarios", type=int, default=200)
    parser.add_argument("--plans", type=int, default=100, help="real plans whose levels weight the result")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "coverage.json")
    options = parser.parse_args()
    catalog = load_catalog(())
    files = data_files(ROOT / "catalogs", options.reference)
    rows, names = read_rows(files, catalog.cards, tuple(catalog.gpus.values()), Counter()), [card.name for card in catalog.cards]
    shipped, kernels = load_coefficients(catalog.coefficients_file), load_residuals(catalog.coefficients_file.with_name(FILE)).kernels
    asked = configurations(rows)
    with tempfile.TemporaryDirectory() as folder:
        curves = {level: held_out_curves(rows, asked, names, kernels, shipped, level, Path(folder)) for level in LEVELS}

    def scenarios(of: Callable[[float, int], StepCurves]) -> dict[str, list[Choice]]:
        return {str(c): choose(asked, catalog, partial(of, c), options.scenarios, options.seed) for c in CONFIDENCES}

    def known_as(level: str) -> Callable[[float, int], StepCurves]:
        return lambda c, _: curves[level][c]

    every = {level: scenarios(known_as(level)) for level in LEVELS}
    every[MIXED] = scenarios(lambda c, number: mixed(asked, {level: found[c] for level, found in curves.items()}, number))
    levels = {level: {c: summary(asked, found) for c, found in by_confidence.items()} for level, by_confidence in every.items()}
    plans, in_flight = of_plans(catalog, options.plans)
    found = {
        "files": [f.name for f in files],
        "rows": len(rows),
        "levels": levels,
        "mixed_by_level": by_level_chosen(asked, every[MIXED]["0.8"]),
        "by_load": {level: by_load(rows, asked, curves[level][0.8]) for level in LEVELS},
        "plans": plans,
        "plans_in_flight": in_flight,
        "covered_in_plans": round(sum(share * levels[level]["0.8"]["chosen"] for level, share in plans.items()), 4),
    }
    show(found, Console(width=160))
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
