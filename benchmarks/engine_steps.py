"""Steps of a running engine, one by one, against the physics of a step: decoding alone, prompts alone, and both mixed.

    python benchmarks/engine_steps.py [--collect RUNS] [--out RESULT]

vLLM's own forward-pass metrics, of a campaign that took no part in the fit, on models and a GPU of which it has no row together; physics alone. --collect
condenses a folder of runs (fpm_golden_runs of AIConfigurator's repository) into benchmarks/data/engine_steps.csv: of alike steps the one of median
latency, with how many it stands for. Prints a table and writes benchmarks/results/engine_steps.json.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from planner.catalog.cards import read_card
from planner.catalog.files import read_csv
from planner.catalog.records import Gpu
from planner.catalog.replica_type import ReplicaType
from planner.performance.coefficients import load_coefficients
from planner.performance.physics import shapes
from planner.performance.replicas import Floats, Replicas
from planner.performance.step import computing, decode_step, layer_overhead, prefill_step, prompt_pass, prompt_token, reading

ROOT = Path(__file__).parents[1]
STEPS = Path(__file__).parent / "data" / "engine_steps.csv"
RESULT = Path(__file__).parent / "results" / "engine_steps.json"
GPU, PRECISION, ENGINE = "B300-SXM", "bf16", "vllm"  # vLLM 0.20.1, checkpoints without quantisation
CARDS = {"qwen32": "qwen3-32b", "qwen36_moe": "qwen3.5-35b-a3b"}  # the second has the layers of the one that ran
NAMES = {"qwen32": "Qwen3-32B", "qwen36_moe": "Qwen3.6-35B-A3B"}
RUN = re.compile(r"fpm_upfront_(\w+?)_full_once_\w+")
LAID_OUT = re.compile(r"tp(\d+)_ep(\d+)_\w+")
COLUMNS = ["model", "tp", "ep", "phase", "ctx_tokens", "ctx_requests", "ctx_kv_tokens", "decode_requests", "decode_kv_tokens", "latency_ms", "steps"]
GRAPHS = 512  # prompt tokens up to which vLLM replays recorded graphs; beyond, the CPU launches every kernel
FORMS = {"share": "decoding + the prompt tokens' share of a pass of 2,048 to 8,192", "own": "decoding + a pass of these prompt tokens"}
KINDS = {"up to 512 prompt tokens": (1, GRAPHS), "513 to 4,096": (GRAPHS + 1, 4096), "4,097 to 8,192": (4097, 8192)}


def collected(folder: Path) -> pd.DataFrame:
    """The steps of every run of a known model, condensed."""
    found = []
    for path in sorted(folder.glob("*/*/fpm_metrics_phase.csv")):
        run, laid_out = RUN.fullmatch(path.parts[-3]), LAID_OUT.fullmatch(path.parts[-2])
        if run and laid_out and run[1] in CARDS:
            found.append(condensed(pd.read_csv(path)).assign(model=run[1], tp=int(laid_out[1]), ep=int(laid_out[2])))
    return pd.concat(found)[COLUMNS]


def condensed(steps: pd.DataFrame) -> pd.DataFrame:
    """Of alike steps (prompt tokens within a factor of 1.4, sequences in decoding within 1.25) the one of median latency."""
    alike = [np.round(np.log2(steps[name].clip(lower=1)) * parts).rename(name) for name, parts in (("ctx_tokens", 2), ("decode_requests", 3))]
    groups = [g.sort_values("latency_ms", kind="stable") for _, g in steps.groupby([steps["phase"], *alike])]
    return pd.concat([g.iloc[[(len(g) - 1) // 2]].assign(steps=len(g)) for g in groups])


def predicted(steps: pd.DataFrame, model: str, tp: int, ep: int) -> tuple[dict[str, Floats], Floats]:
    """(seconds by the forms of FORMS, the least that the hardware allows) of steps [S] of one replica type."""
    gpus = {g.name: g for g in read_csv(ROOT / "catalogs" / "gpus.csv", Gpu)}
    card = read_card(ROOT / "models" / f"{CARDS[model]}.toml")
    replicas = Replicas.of(card.architecture, gpus[GPU], PRECISION, ENGINE, [ReplicaType(tp, ep=ep)] * len(steps))
    fitted, shape = load_coefficients(ROOT / "catalogs" / "coefficients.json"), shapes(replicas)
    e, factor = {**fitted.rows(replicas), **fitted.kernels(replicas)}, fitted.vendor_factor(replicas)[:, 0]
    tokens, prompts, past, many, held = (steps[c].to_numpy(float) for c in COLUMNS[4:9])
    kv = shape.kv_heads_bytes * held / np.maximum(many, 1) + 2 * shape.state_bytes  # a linear layer's state is read and written
    overhead = (layer_overhead(shape, e) + e["step_s"])[:, 0]
    decoding = np.where(many > 0, decode_step(shape, e, kv, np.maximum(many, 1)[:, None])[:, 0], overhead)
    context = (past + tokens / 2) / np.maximum(prompts, 1)  # tokens that a token attends to
    own = np.where(tokens > 0, prefill_step(shape, e, context, np.maximum(tokens, 1)[:, None])[:, 0], 0.0)
    share = prompt_token(shape, e, context, prompt_pass(tokens)[:, None])[:, 0] * tokens
    passed = np.maximum(tokens + many, 1)[:, None]
    least = np.maximum(reading(shape, passed), computing(shape) * passed)[:, 0]
    return {"share": (decoding + share) * factor, "own": (decoding + own) * factor}, least


def kinds_of(steps: pd.DataFrame) -> pd.Series:
    """Decoding alone, or how many prompt tokens a step takes with or without it."""
    found = pd.Series("decoding alone", index=steps.index)
    for kind, (fewest, most) in KINDS.items():
        for phase, words in (("context", "prompts alone"), ("mixed", "mixed")):
            found[steps["phase"].eq(phase) & steps["ctx_tokens"].between(fewest, most)] = f"{words}, {kind}"
    return found


def compared(steps: pd.DataFrame) -> tuple[dict[str, dict[str, dict[str, float]]], int]:
    """By model and GPUs, for each kind of step, medians of predicted / measured and shares within 20 % by form; and steps beyond the hardware, left out."""
    parts, beyond = [], 0
    for (model, tp, ep), here in steps.groupby(["model", "tp", "ep"]):
        seconds, least = predicted(here, str(model), int(tp), int(ep))
        possible = here["latency_ms"].to_numpy() >= least * 1e3
        beyond += int(here["steps"][~possible].sum())
        ratios = {form: found * 1e3 / here["latency_ms"] for form, found in seconds.items()}
        parts.append(here.assign(**ratios, kind=kinds_of(here), replica=f"{NAMES[str(model)]}, {'one GPU' if tp == 1 else 'TP2 to TP8'}")[possible])
    every = pd.concat(parts)
    found = {str(name): {str(kind): _row(g) for kind, g in here.groupby("kind")} for name, here in every.groupby("replica")}
    return found, beyond


def _row(group: pd.DataFrame) -> dict[str, float]:
    found: dict[str, float] = {"points": len(group), "steps": int(group["steps"].sum())}
    for form in FORMS:
        found[form] = round(float(group[form].median()), 3)
        found[f"{form}_within_20"] = round(float((np.abs(group[form] - 1) <= 0.2).mean()), 3)
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collect", type=Path)
    parser.add_argument("--out", type=Path, default=RESULT)
    asked = parser.parse_args()
    if asked.collect:
        collected(asked.collect).to_csv(STEPS, index=False)
    found, beyond = compared(pd.read_csv(STEPS))
    table = Table("replica", "kind of step", "points", "steps", *(w for form in FORMS.values() for w in (form, "within 20 %")))
    for name, kinds in found.items():
        for kind, row in kinds.items():
            table.add_row(name, kind, *map(str, row.values()))
    Console(width=160).print(table)
    Console().print(f"{beyond} steps faster than the hardware allows are left out")
    asked.out.write_text(json.dumps({"by_replica": found, "steps_left_out": beyond}, indent=1) + "\n")


if __name__ == "__main__":
    main()
