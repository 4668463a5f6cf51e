"""NVIDIA's AIConfigurator on the rows that our folds hold out: errors of TPOT, TTFT and tokens/s, and GPU pairs ordered right, side by side.

    python benchmarks/aiconfigurator.py [--reference reference_points.csv] [--rows 400] [--python PATH | --install]

AIConfigurator is looked for in this environment, then behind the `aiconfigurator` command; --python names another interpreter, --install
makes an environment of its own. Where there is none it says so and stops. Writes benchmarks/results/aiconfigurator.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "2")

import numpy as np
from numpy.typing import NDArray

from planner.calibration import fit as physics
from planner.calibration import krige
from planner.calibration.measured import FitRows, data_files, read_rows
from planner.catalog.cards import read_card
from planner.catalog.files import read_csv
from planner.catalog.records import Gpu
from planner.performance.replicas import ENGINES, Floats, Ints
from planner.performance.residual import load_residuals

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "aiconfigurator.json"
PACKAGE = "aiconfigurator==0.12.0"
SYSTEMS = {
    "H100-SXM-80GB": "h100_sxm",
    "H200-SXM-141GB": "h200_sxm",
    "B200-SXM": "b200_sxm",
    "B300-SXM": "b300_sxm",
    "GB200": "gb200",
}  # fmt: skip
FP8, NVFP4 = {"gemm_quant_mode": "fp8", "kvcache_quant_mode": "fp8"}, {"gemm_quant_mode": "nvfp4", "kvcache_quant_mode": "fp8"}
BLOCKS = {"gemm_quant_mode": "fp8_block", "moe_quant_mode": "fp8_block", "kvcache_quant_mode": "fp8"}
# (card, precision) -> the model it knows, and what of it is to be quantised where it knows no checkpoint in that precision.
MODELS: dict[tuple[str, str], tuple[str, Mapping[str, str]]] = {
    ("DeepSeek-V3", "fp8"): ("deepseek-ai/DeepSeek-R1", {}),
    ("DeepSeek-V3", "nvfp4"): ("nvidia/DeepSeek-V3.1-NVFP4", {}),
    ("GLM-5", "fp8"): ("zai-org/GLM-5-FP8", {}),
    ("GLM-5", "nvfp4"): ("nvidia/GLM-5-NVFP4", {}),
    ("Kimi-K2", "int4"): ("moonshotai/Kimi-K2.5", {}),
    ("Kimi-K2", "nvfp4"): ("nvidia/Kimi-K2.5-NVFP4", {}),
    ("Llama-3.1-8B", "bf16"): ("meta-llama/Meta-Llama-3.1-8B", {}),
    ("Llama-3.1-8B", "fp8"): ("meta-llama/Meta-Llama-3.1-8B", FP8),
    ("Llama-3.1-70B", "fp8"): ("nvidia/Llama-3.1-70B-Instruct-FP8", {}),
    ("Llama-3.1-70B", "nvfp4"): ("meta-llama/Meta-Llama-3.1-70B", NVFP4),
    ("MiniMax-M2", "fp8"): ("MiniMaxAI/MiniMax-M2.5", {}),
    ("MiniMax-M2", "nvfp4"): ("nvidia/MiniMax-M2.5-NVFP4", {}),
    ("Qwen3-32B", "bf16"): ("Qwen/Qwen3-32B", {}),
    ("Qwen3-32B", "fp8"): ("Qwen/Qwen3-32B-FP8", {}),
    ("Qwen3-32B", "nvfp4"): ("Qwen/Qwen3-32B", NVFP4),
    ("Qwen3-235B-A22B", "fp8"): ("Qwen/Qwen3-235B-A22B-FP8", {}),
    ("Qwen3.5-397B-A17B", "bf16"): ("Qwen/Qwen3.5-397B-A17B", {}),
    ("Qwen3.5-397B-A17B", "fp8"): ("Qwen/Qwen3.5-397B-A17B", BLOCKS),
    ("Qwen3.5-397B-A17B", "nvfp4"): ("nvidia/Qwen3.5-397B-A17B-NVFP4", {}),
    ("gpt-oss-120b", "mxfp4"): ("openai/gpt-oss-120b", {}),
}
# Runs in its environment: one JSON record of keywords in, one of milliseconds or of a reason out.
WORKER = """
import json, logging, sys
from aiconfigurator import __version__
from aiconfigurator.cli.api import cli_estimate
logging.disable(logging.CRITICAL)
print(json.dumps({"version": __version__}), flush=True)
for line in sys.stdin:
    try:
        found = cli_estimate(**json.loads(line))
        answer = {"ttft": float(found.ttft), "tpot": float(found.tpot), "engine": found.backend_version, "kv_full": bool(found.kv_cache_warning)}
    except Exception as error:
        answer = {"reason": (str(error).splitlines() or [type(error).__name__])[0][:100]}
    print(json.dumps(answer), flush=True)
"""


# ---- finding and asking it ----


def interpreter(given: Path | None, install: bool, folder: Path) -> str | None:
    """A Python that can import it, or None."""
    if install:
        home = folder / "environment"
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        subprocess.run([str(home / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", PACKAGE], check=True)
        return str(home / "bin" / "python")
    if given:
        return str(given)
    elsewhere = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]  # this file's own name would be found first
    if PathFinder.find_spec("aiconfigurator", elsewhere):
        return sys.executable
    command = shutil.which("aiconfigurator")
    beside = Path(command).resolve().with_name("python") if command else None
    return str(beside) if beside and beside.exists() else None


def ask(python: str, records: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    """(version, answers in order)."""
    text = "".join(json.dumps(r) + "\n" for r in records)
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run([python, "-c", WORKER], input=text, capture_output=True, text=True, check=False, cwd=empty)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or len(lines) != len(records) + 1:
        raise SystemExit(f"AIConfigurator stopped: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return lines[0]["version"], lines[1:]


def question(rows: FitRows, i: int) -> dict[str, Any] | str:
    """Row ``i`` in its keywords, or why it cannot be asked. Its batch is what we call the concurrency; all else is its defaults."""
    card, precision, *_ = rows.group[i].split("|")
    gpu, tp = str(rows.gpu[i]), int(rows.replicas.tp[i])
    if gpu not in SYSTEMS:
        return f"{gpu}: unknown GPU"
    if (card, precision) not in MODELS:
        return f"{card} in {precision}: unknown"
    if rows.replicas.dp[i] > 1:
        return "attention data parallel"
    model, quantised = MODELS[card, precision]
    found = {"model_path": model, "system_name": SYSTEMS[gpu], "backend_name": ENGINES[int(rows.replicas.engine[i])], "tp_size": tp, **quantised}
    found |= {"batch_size": int(rows.concurrency[i]), "isl": round(float(rows.input_tokens[i])), "osl": round(float(rows.output_tokens[i]))}
    if rows.shape.expert_read[i] > 0:
        ep = int(float(rows.configuration[i].split("|")[5] or 1))
        if tp % ep:
            return f"EP {ep} with TP {tp}"
        found |= {"moe_tp_size": tp // ep, "moe_ep_size": ep}
    return found


def sample(rows: FitRows, count: int) -> Ints:
    """About ``count`` rows: whole points (model, lengths, concurrency), so that GPUs can be ranked within them, drawn at random."""
    keys = krige.configurations(rows)
    points = defaultdict(list)
    for i, key in enumerate(keys.tolist()):
        model, *_, isl, osl = key.split("|")
        points[model, isl, osl, float(rows.concurrency[i])].append(i)
    order = sorted(points)
    found: list[int] = []
    for point in np.random.default_rng(0).permutation(len(order)).tolist():
        if len(found) < count:
            found += points[order[point]]
    # Rows of one database together: it keeps them in memory.
    return np.array(sorted(found, key=lambda i: (str(rows.gpu[i]), int(rows.replicas.engine[i]), str(rows.model[i]), i)), dtype=np.int64)


# ---- both beside each other ----


def tps(rows: FitRows, ttft: Floats, tpot: Floats) -> Floats:
    """Output tokens/s of a closed loop."""
    found: Floats = rows.concurrency * rows.output_tokens / (ttft + tpot * (rows.output_tokens - 1))
    return found


def errors(ratio: Mapping[str, Floats], kept: NDArray[np.bool_]) -> dict[str, Any]:
    return {metric: physics.summary(np.where(kept, ratio[metric], np.nan)) for metric in krige.METRICS}


def compare(rows: FitRows, theirs: Mapping[str, Floats], tests: Mapping[str, krige.KrigeHeldOut]) -> dict[str, Any]:
    """Errors on the rows that all of them answer, and GPU pairs ordered right."""
    from accuracy import ranking

    truth = krige.measured(rows)
    kept = np.isfinite(theirs["tpot"]) & np.all([np.isfinite(t.full["tpot"]) for t in tests.values()], axis=0)
    answers = {"AIConfigurator": ({m: truth[m] / theirs[m] for m in krige.METRICS}, theirs["tps"])}
    answers |= {f"ours, without the {split}": (test.full, test.tps) for split, test in tests.items()}
    found = {name: {**errors(ratio, kept), "ranking": ranking(rows, np.where(kept, rate, np.nan))} for name, (ratio, rate) in answers.items()}
    return {"rows": int(kept.sum()), "errors": found}


def show(found: Mapping[str, Any]) -> None:
    print(f"AIConfigurator {found['version']}: {found['rows']} rows (of {found['asked']} asked; not answered: {found['refused']}); {found['seconds']:.0f} s")
    print(f"{'':32}{'TPOT':>26}{'TTFT':>26}{'tokens/s':>26}{'GPU pairs right':>20}")
    for name, e in found["errors"].items():
        cells = [f"{100 * e[m]['median']:.1f} {100 * e[m]['mean']:.1f} {100 * e[m]['within_20']:.0f} {100 * e[m]['bias']:+.0f} %" for m in krige.METRICS]
        print(f"{name:32}" + "".join(f"{c:>26}" for c in cells) + f"{100 * e['ranking']['right']:>10.1f} % of {e['ranking']['pairs']}")
    print("median, mean absolute error, share within 20 %, median bias")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--python", type=Path, help="interpreter that can import aiconfigurator")
    parser.add_argument("--install", action="store_true", help=f"install {PACKAGE} into an environment of its own (1 GB)")
    parser.add_argument("-o", "--output", type=Path, default=RESULT)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        python = interpreter(options.python, options.install, Path(folder))
        if python is None:
            print("AIConfigurator is not installed: nothing compared (--install, or --python PATH of an environment that has it)")
            return
        found = run(options, python)
    show(found)
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def run(options: argparse.Namespace, python: str) -> dict[str, Any]:
    cards = [read_card(path) for path in sorted((ROOT / "models").glob("*.toml"))]
    files = data_files(ROOT / "catalogs", options.reference)
    rows, names = read_rows(files, cards, read_csv(ROOT / "catalogs" / "gpus.csv", Gpu), Counter()), [card.name for card in cards]
    questions = {i: question(rows, i) for i in sample(rows, options.rows).tolist()}
    records = {i: record for i, record in questions.items() if not isinstance(record, str)}
    start = time.perf_counter()
    version, found = ask(python, list(records.values()))
    seconds, answers = time.perf_counter() - start, dict(zip(records, found, strict=True))
    theirs = {metric: np.full(len(rows), np.nan) for metric in krige.METRICS}
    for i, answer in answers.items():
        for metric in ("ttft", "tpot"):
            theirs[metric][i] = answer.get(metric, np.nan) / 1000
    theirs["tps"] = tps(rows, theirs["ttft"], theirs["tpot"])
    refused = Counter([q for q in questions.values() if isinstance(q, str)] + [a["reason"] for a in answers.values() if "reason" in a])
    kernels, whole = load_residuals(ROOT / "catalogs" / "residuals.json").kernels, physics.fit(rows)
    tests = {split: krige.held_out(rows, names, kernels, whole, *krige.splits(rows)[split]) for split in ("configuration", "model")}
    about = {
        "version": version,
        "databases": sorted({f"{records[i]['backend_name']} {a['engine']}" for i, a in answers.items() if "engine" in a}),
        "asked": len(questions),
        "refused": dict(refused.most_common()),
        "beyond_its_kv_room": sum(a.get("kv_full", False) for a in answers.values()),
        "seconds": round(seconds, 1),
    }
    return {**about, **compare(rows, theirs, tests)}


if __name__ == "__main__":
    main()
