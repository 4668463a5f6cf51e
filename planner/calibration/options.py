"""Measures serving options against plain serving: ``python -m planner.calibration.options DATA_DIR``.

For developers: needs scipy. Writes catalogs/speculation.csv (measured latencies with speculative decoding over those without) and
catalogs/disaggregated.json (measured over predicted step of disaggregated units). Deterministic. DATA_DIR holds reference_points.csv.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from planner.calibration.fit import step_quantiles, summary
from planner.calibration.measured import CHECKPOINTS, ENGINE_NAMES, GPU_NAMES, NVIDIA_RUNS, RANDOM_LENGTHS
from planner.catalog.catalog import Catalog
from planner.catalog.load import load_catalog
from planner.performance.capacity import Limit, pooled_qps
from planner.performance.coefficients import Coefficients, load_coefficients
from planner.performance.disaggregated import FILE as ERRORS_FILE
from planner.performance.disaggregated import NODE_GPUS, RATIOS, UnitErrors, load_errors
from planner.performance.evidence import evidence, step_shift
from planner.performance.lengths import lognormal_mix
from planner.performance.memory import memory_fit
from planner.performance.pools import EXPECTED, Pools, engines, predicted, sizes_in
from planner.performance.replicas import Floats
from planner.performance.serving import Serving, capacity_of
from planner.performance.speculation import FILE as RATIOS_FILE
from planner.performance.speculation import SpeculationRatio, held_out
from planner.performance.step import GRID, StepCurves, step_curves

Row = Mapping[str, str]
ADMITTED = 0.9  # sequences decoding with speculation, over those without, below which the two runs are not at equal load
SAME = ("model", "gpu", "engine", "precision", "tp", "ep", "dp_attn", "isl", "osl", "concurrency")
PAIRED_SOURCE = "inferencex_app_fixture"  # the one that records whether speculative decoding was on
FLAGS = ("INCONSISTENT", "AMBIGUOUS", "DUPLICATE", "queue-saturated")
QUEUE, LATE = 8, 5.0  # prompts per prefill engine, and times its own prefill until the first token, from which on prompts clearly queue


# ---- speculative decoding ----


def ratios(rows: Sequence[Row], cards: Mapping[str, str], refused: Counter[str]) -> list[SpeculationRatio]:
    """Pairs of runs alike but for speculative decoding: each run with it against the run without it nearest in date.

    Medians are compared, as few runs published means. Runs of one configuration and load are averaged; ``cards`` maps labels to cards.
    """
    plain: dict[tuple[str, ...], list[Row]] = {}
    found: dict[tuple[str, ...], list[tuple[float, float, Row]]] = {}
    for row in rows:
        if row["spec_decode"] == "none":
            plain.setdefault(tuple(row[k] for k in SAME), []).append(row)
    for row in (r for r in rows if r["spec_decode"] not in ("none", "not recorded", "")):
        key = tuple(row[k] for k in SAME)
        reason = _unpaired(row, key in plain, cards)
        if not reason:
            other = min(plain[key], key=lambda r: (abs(date.fromisoformat(r["date"]) - date.fromisoformat(row["date"])), r["source_ref"]))
            fewer = _decoding(row) / _decoding(other)
            reason = "" if fewer >= ADMITTED else "fewer sequences admitted with speculation"
            if not reason:
                tpot, ttft = (float(row[k]) / float(other[k]) for k in ("tpot_ms_p50", "ttft_ms_p50"))
                found.setdefault((*key, row["spec_decode"]), []).append((tpot, ttft, row))
        refused[reason or "paired"] += 1
    return sorted((_ratio(pairs, cards) for pairs in found.values()), key=lambda r: (r.configuration, r.concurrency))


def _unpaired(row: Row, paired: bool, cards: Mapping[str, str]) -> str:
    tests: dict[str, Callable[[], bool]] = {
        "engine not planned": lambda: row["engine"] not in ENGINE_NAMES,
        "no card": lambda: row["model"] not in cards,
        "no run without speculation": lambda: not paired,
    }
    return next((reason for reason, test in tests.items() if test()), "")


def _decoding(row: Row) -> float:
    """Sequences decoding on average, by Little's law."""
    return float(row["output_tps_total"]) * float(row["tpot_ms_p50"]) / 1000


def _ratio(pairs: Sequence[tuple[float, float, Row]], cards: Mapping[str, str]) -> SpeculationRatio:
    row = max((r for _, _, r in pairs), key=lambda r: r["date"])
    tpot, ttft = (float(np.exp(np.mean(np.log(values)))) for values in ([t for t, _, _ in pairs], [t for _, t, _ in pairs]))
    return SpeculationRatio.model_validate({
        "architecture": cards[row["model"]], "gpu": GPU_NAMES.get(row["gpu"], row["gpu"]), "precision": _precision(row), "engine": ENGINE_NAMES[row["engine"]],
        "method": row["spec_decode"], "tp": int(float(row["tp"])), "ep": int(float(row["ep"] or 1)), "attention_dp": row["dp_attn"] == "True",
        "input_tokens": float(row["isl"]), "output_tokens": float(row["osl"]), "concurrency": int(float(row["concurrency"])),
        "tpot_ratio": round(tpot, 4), "ttft_ratio": round(ttft, 4), "pairs": len(pairs), "source": "InferenceX via github:vngcloud/InferenceX-app@7fe6d62",
        "as_of": date.fromisoformat(row["date"]), "licence": "Apache-2.0", "note": "random tokens",
    })  # fmt: skip


def _precision(row: Row) -> str:
    return {"fp4": "mxfp4" if row["gpu"].startswith("MI") else "nvfp4"}.get(row["precision"], row["precision"])


def write_ratios(path: Path, found: Sequence[SpeculationRatio]) -> None:
    """The file, one row per record."""
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(SpeculationRatio.model_fields)
        for record in found:
            cells = record.model_dump(mode="json").values()
            writer.writerow([f"{c:g}" if isinstance(c, float) else str(c).lower() if isinstance(c, bool) else c for c in cells])


# ---- disaggregated units ----


def read_pools(rows: Sequence[Row], cards: Mapping[str, str], gpus: Iterable[str], refused: Counter[str]) -> list[Pools]:
    """The disaggregated runs whose notes give the engines of both pools; ``refused`` counts the others by reason."""
    known, found = set(gpus), []
    for row in rows:
        latency = [row[f"{k}_ms_mean"] or row[f"{k}_ms_p50"] for k in ("ttft", "tpot")]
        engine, sizes = ENGINE_NAMES.get(row["engine"].split("-")[-1], ""), sizes_in(row["notes"])
        label, gpu = CHECKPOINTS.get(row["model"], row["model"]), GPU_NAMES.get(row["gpu"], row["gpu"])
        reason = (
            "engines of the pools not given" if not sizes
            else "speculative decoding not recorded" if row["spec_decode"] == "not recorded"
            else "TP above 8" if max(sizes[1], sizes[3]) > NODE_GPUS
            else "no card or GPU, or engine not planned" if label not in cards or gpu not in known or not engine
            else "no latency or rate" if not (all(latency) and row["output_tps_total"])
            else "flagged" if any(word in row["notes"] for word in FLAGS)
            else ""
        )  # fmt: skip
        refused[reason or "read"] += 1
        if not reason and sizes:
            ratio, (prefill, prefill_tp, decode, decode_tp) = 1.0 if row["source"] in NVIDIA_RUNS else RANDOM_LENGTHS, sizes
            ttft, tpot = (float(ms) / 1000 for ms in latency)
            found.append(Pools(
                cards[label], gpu, _precision(row), engine, prefill, prefill_tp, decode, decode_tp, float(row["isl"]) * ratio, float(row["osl"]) * ratio,
                float(row["concurrency"]), ttft, tpot, float(row["output_tps_total"]), row["spec_decode"],
            ))  # fmt: skip
    return found


def errors(pools: Sequence[Pools], catalog: Catalog, coefficients: Coefficients, data: Mapping[str, str], refused: Counter[str]) -> UnitErrors:
    """Errors and quantiles over the runs without speculative decoding.

    The rate that a prefill pool reached while prompts queued bounds its time per prompt from above: some waited for decode engines, or for a start.
    """
    found = predicted(pools, catalog, coefficients)
    fits, step, tpot, tps = found.slots > 0, found.step_s, found.tpot_s, found.tps
    refused["weights or KV cache do not fit"] += int((~fits).sum())
    seen = {k: np.array([getattr(p, k) for p in pools]) for k in ("tpot_s", "ttft_s", "tps", "prefill", "osl")}
    configuration, none = np.array([p.configuration for p in pools]), np.array([p.method == "none" for p in pools])
    rate, used = seen["tps"] / seen["osl"], fits & none
    queued = used & (rate * seen["ttft_s"] >= QUEUE * seen["prefill"]) & (seen["ttft_s"] * found.prompts >= LATE * seen["prefill"])
    prompts = _best(found.prompts / rate, [p.prefill_pool for p in pools], queued)
    summaries = {
        "configurations": len(set(configuration[used].tolist())),
        "step": summary((seen["tpot_s"] / step)[used]),
        "tpot_closed_loop": summary((seen["tpot_s"] / tpot)[used]),
        "output_tps_closed_loop": summary((seen["tps"] / tps)[used]),
        "prompt_time_at_most": summary(prompts),
        "tpot_closed_loop_with_speculation_ignored": summary((seen["tpot_s"] / tpot)[fits & ~none]),
        "refused": dict(sorted(refused.items())),
    }
    source = "InferenceX runs on disaggregated units via github:vngcloud/InferenceX-app@7fe6d62, against coefficients.json and residuals.json"
    quantiles = step_quantiles((seen["tpot_s"] / step)[used], configuration[used]), step_quantiles(prompts, np.arange(len(prompts)).astype(str))
    return UnitErrors(source, date.today().isoformat(), data, summaries, *quantiles)


def _best(ratio: Floats, group: Sequence[str], rows: NDArray[np.bool_]) -> Floats:
    """The smallest ratio of each group over ``rows``."""
    found: dict[str, float] = {}
    for i in np.flatnonzero(rows).tolist():
        found[group[i]] = min(float(ratio[i]), found.get(group[i], np.inf))
    return np.array(list(found.values()))


# ---- units against engines that do both ----

COMPARED = (  # card, GPU, precision, engine, TP, attention data parallel
    ("Llama-3.1-8B", "H100-SXM-80GB", "fp8", "vllm", 1, False),
    ("Llama-3.1-70B", "H200-SXM-141GB", "fp8", "trtllm", 2, False),
    ("gpt-oss-120b", "H100-SXM-80GB", "mxfp4", "vllm", 1, False),
    ("gpt-oss-120b", "B200-SXM", "mxfp4", "trtllm", 1, False),
    ("DeepSeek-V3", "B200-SXM", "nvfp4", "trtllm", 4, True),
)
COMPARED_LENGTHS, COMPARED_LIMITS = ((1000, 300), (1000, 1000), (8000, 300), (8000, 1000)), ((1.0, 0.05), (2.0, 0.03), (5.0, 0.015))


def comparison(catalog: Catalog, coefficients: Coefficients, found: UnitErrors, confidence: float) -> list[str]:
    """Markdown rows: best unit of up to 8 engines and 16 GPUs, its capacity over that of as many engines doing both, by lengths and limits (p95)."""
    lines = []
    for card, gpu, precision, engine, tp, dp in COMPARED:
        one = Pools(card, gpu, precision, engine, 1, tp, 1, tp, 0, 0, 0, 0, 0, 0, "none")
        replica, names = engines([one], catalog, [tp], dp), tuple(c.name for c in catalog.cards)
        for lengths in COMPARED_LENGTHS:
            mix = lognormal_mix(*lengths, 0.5, 0.5)
            known, curves, slots = evidence(replica, names, catalog.measured), step_curves(replica, mix, coefficients), memory_fit(replica, mix).slots
            at, expected = (step_shift(known, replica, names, coefficients, c, mix, GRID) for c in (confidence, EXPECTED))
            both = curves.pulled(at.step, at.prompt, mix)
            apart = found.slower(both, curves.pulled(expected.step, expected.prompt, mix), confidence)
            asked = [[Limit("ttft", ttft, 95), Limit("tpot", tpot, 95)] for ttft, tpot in COMPARED_LIMITS]
            cells = [_gain(Serving(replica, both, mix, limits, slots, coefficients), apart) for limits in asked]
            lines.append(f"| {card} {precision}, {engine} | {gpu} TP{tp}{' DP' * dp} | {lengths[0]} / {lengths[1]} | {' | '.join(cells)} |")
    return lines


def _gain(both: Serving, apart: StepCurves) -> str:
    """The best unit of engines that do their parts ``apart``, beside as many plain ones that do both."""
    replica, alone = both.replicas, capacity_of(both)
    best: tuple[float, float, str] = (0.0, 0.0, "")
    for x, y in (r for r in RATIOS if sum(r) * int(replica.tp[0]) <= 2 * NODE_GPUS):
        unit = replace(both, replicas=replace(replica, prefill=np.array([x]), decode=np.array([y])), curves=apart)
        qps = float(capacity_of(unit).qps[0])
        together = float(pooled_qps(alone.qps, alone.qps_saturated, x + y)[0]) * (x + y)
        best = max(best, (qps / (x + y), qps / together if together else np.inf, f"{x}:{y}"))
    return f"{best[2]} {best[1]:.2f}" if best[1] < np.inf and best[0] else f"{best[2]} only" if best[0] else "neither" if not alone.qps[0] else "both only"


def main(arguments: Iterable[str] | None = None) -> int:
    """Command line of the script."""
    catalogs = Path(__file__).resolve().parents[2] / "catalogs"
    parser = argparse.ArgumentParser(prog="python -m planner.calibration.options", description=__doc__)
    parser.add_argument("data", type=Path, nargs="?", default=Path(), help="folder with reference_points.csv")
    parser.add_argument("--compare", type=float, metavar="CONFIDENCE", help="print units against engines that do both at this confidence, and write nothing")
    parser.add_argument("-o", "--output", type=Path, default=catalogs, help="folder for speculation.csv and disaggregated.json")
    asked = parser.parse_args(None if arguments is None else list(arguments))
    catalog = load_catalog()
    if asked.compare:
        coefficients = load_coefficients(catalog.coefficients_file)
        print(*comparison(catalog, coefficients, load_errors(asked.output / ERRORS_FILE), asked.compare), sep="\n")
        return 0
    file = asked.data / "reference_points.csv"
    with file.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    cards = {label: card.name for card in catalog.cards for label in (card.name, *(c.id for c in card.checkpoint))}
    counts: dict[str, Counter[str]] = {"speculation": Counter(), "disaggregated": Counter()}
    pairs = ratios([r for r in rows if r["source"] == PAIRED_SOURCE and r["mode"] == "agg"], cards, counts["speculation"])
    write_ratios(asked.output / RATIOS_FILE, pairs)
    ratio, configuration = held_out(pairs)
    print(f"speculation: {dict(counts['speculation'])}; held out {len(set(configuration))} configurations: {summary(ratio)}", file=sys.stderr)
    pools = read_pools([r for r in rows if r["mode"] == "disagg"], cards, catalog.gpus, counts["disaggregated"])
    data = {file.name: hashlib.sha256(file.read_bytes()).hexdigest()}
    found = errors(pools, catalog, load_coefficients(catalog.coefficients_file), data, counts["disaggregated"])
    (asked.output / ERRORS_FILE).write_text(json.dumps(vars(found), indent=1) + "\n", encoding="utf-8")
    for name, error in found.errors.items():
        print(f"disaggregated, {name}: {error}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
