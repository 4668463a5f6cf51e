"""Condenses measured times of single kernels into catalogs/kernels.json: ``python -m planner.calibration.operations FOLDER``.

For developers: needs pyarrow. FOLDER is the unpacked wheel of aiconfigurator-core, whose tables hold the operations of engines by shape. Kept is how
many times longer than its roofline an operation takes (on the fastest engine), by tokens and size, per GPU. Deterministic.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from planner.catalog.cards import read_card
from planner.catalog.files import read_csv
from planner.catalog.records import Card, Gpu
from planner.performance.kernels import (
    CONTEXTS,
    EXPERT_LAUNCH_S,
    SPARSE_CHUNK,
    SPARSE_HEADS,
    STORED,
    TOKENS,
    WEIGHTS,
    WORK,
    matrices,
    roofline,
    sparse_decode_roofline,
    sparse_prompt_roofline,
)
from planner.performance.replicas import Floats
from planner.raw import Raw

SYSTEMS = {  # folder of the tables -> GPU of the catalogue
    "a100_sxm": "A100-SXM-80GB",
    "b200_sxm": "B200-SXM",
    "b300_sxm": "B300-SXM",
    "gb200": "GB200",
    "gb300": "GB300",
    "h100_sxm": "H100-SXM-80GB",
    "h200_sxm": "H200-SXM-141GB",
    "l40s": "L40S",
    "rtx_pro_6000_server": "RTX-PRO-6000-Server",
}
ENGINES = ("sglang", "trtllm", "vllm")
# Names in the tables; an engine takes the fastest of those of one precision.
TYPES = {
    "bfloat16": "bf16",
    "fp8": "fp8",
    "fp8_block": "fp8",
    "nvfp4": "nvfp4",
    "int4_wo": "int4",
    "w4a8_mxfp4_mxfp8": "mxfp4",
    "w4a16_mxfp4": "mxfp4",
}
ROUTING = "power_law_1.2"  # experts are not used evenly; balanced routing predicts steps worse
SMALLEST = 128  # rows or columns: smaller products are none of a layer
LATENT = 576  # numbers an MLA layer keeps per token: 512 and 64
SPARSE_MODELS = {"zai-org/GLM-5": "glm-5", "zai-org/GLM-5-FP8": "glm-5", "deepseek-ai/DeepSeek-V3.2": "deepseek-v3.2"}  # in the tables -> card


def newest(version: str) -> tuple[int, ...]:
    """A version as numbers, to sort by."""
    return tuple(int(n) for n in re.findall(r"\d+", version))


def operation(folder: Path, category: str, name: str, keys: Sequence[str], kept: Callable[[pd.DataFrame], pd.DataFrame]) -> pd.DataFrame:
    """Seconds of an operation by ``keys``: of each engine the fastest kernel of its newest version that has the row."""
    tables = []
    for engine in ENGINES:
        parts = []
        for path in sorted(folder.glob(f"{category}/{engine}/*/{name}_perf.parquet"), key=lambda p: newest(p.parent.name)):
            table = pd.read_parquet(path).dropna(subset="latency")
            table = kept(table[table.window_size == 0] if "window_size" in table else table)
            parts.append(table.groupby(list(keys), as_index=False).latency.min())
        if parts:
            tables.append(pd.concat(parts).drop_duplicates(list(keys), keep="last"))
    if not tables:
        return pd.DataFrame(columns=[*keys, "seconds"])
    table = pd.concat(tables, keys=range(len(tables)), names=["engine", None]).reset_index(level="engine")
    return table.assign(seconds=table.latency / 1000)


def fastest(table: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """The fastest engine's."""
    return table.groupby(list(keys), as_index=False).seconds.min()


def without_slow(table: pd.DataFrame, narrow: Sequence[str], wide: str, keys: Sequence[str]) -> pd.DataFrame:
    """Without rows in fewer bits (column "kind") that are slower than the same operation in 16: such kernels are faulty or a fallback."""
    base = table[table.kind == wide].set_index(list(keys)).seconds
    other = pd.Series(table.set_index(list(keys)).index.map(base.to_dict().get), index=table.index, dtype=float)
    return table[~(table.kind.isin(list(narrow)) & (table.seconds > other))]


def stored(seconds: Floats, ideal: Floats) -> Floats:
    """log2 of measured over ideal, rounded to what is kept; time never falls along the last axis, and never below the ideal. nan stays."""
    rising = np.fmin.accumulate(seconds[..., ::-1], axis=-1)[..., ::-1]
    return np.round(np.maximum(np.log2(rising / ideal), 0.0) * STORED)


def bridged(ratio: Floats) -> Floats:
    """Gaps of a line filled straight between its neighbours, beyond the ends with them."""
    at, known = np.arange(len(ratio)), np.isfinite(ratio)
    return np.interp(at, at[known], ratio[known]) if known.any() else ratio


def filled(table: Floats) -> Floats:
    """Rows without any value take the nearest row; other gaps are bridged."""
    known = np.flatnonzero(np.isfinite(table).any(axis=1))
    nearest = known[np.abs(known[None, :] - np.arange(len(table))[:, None]).argmin(axis=1)]
    return np.stack([bridged(table[i]) for i in nearest])


def products(folder: Path, gpu: Gpu) -> dict[str, list[list[int]]]:
    """By type: [weights of the matrix, tokens]; the median over shapes of about as many weights."""
    keys = ("gemm_dtype", "m", "n", "k")
    table = operation(folder, "gemm", "gemm", keys, lambda t: t[t.m.isin(TOKENS) & (t.n >= SMALLEST) & (t.k >= SMALLEST)])
    table = fastest(table.assign(kind=table.gemm_dtype.map(TYPES)), ("kind", *keys[1:]))
    table["size"] = np.round(np.log2(table.n * table.k))
    found = {}
    for kind, rows in table.groupby("kind"):
        ratio = rows.seconds / roofline(gpu, kind, (rows.n * rows.k).to_numpy(float), rows.m.to_numpy(float))
        cells = (
            rows.assign(ratio=ratio).pivot_table(index="size", columns="m", values="ratio", aggfunc="median").reindex(index=np.log2(WEIGHTS), columns=TOKENS)
        )
        ideal = roofline(gpu, kind, WEIGHTS[:, None], TOKENS[None, :])
        found[kind] = stored(np.exp2(filled(np.log2(cells.to_numpy()))) * ideal, ideal).astype(int).tolist()
    return found


def experts(folder: Path, gpu: Gpu) -> dict[str, list[list[int]]]:
    """By type one row per shape: hidden size, columns of an expert on the GPU, experts, experts per token, then by tokens."""
    shape = ("hidden_size", "inter_size", "num_experts", "topk", "moe_tp_size")
    keys = ("moe_dtype", *shape, "num_tokens")

    def kept(t: pd.DataFrame) -> pd.DataFrame:
        return t[(t.distribution == ROUTING) & (t.moe_ep_size == 1) & (t.moe_tp_size <= 8) & (t.topk > 1) & t.num_tokens.isin(TOKENS)]

    table = operation(folder, "moe", "moe", keys, kept)
    table = fastest(table.assign(kind=table.moe_dtype.map(TYPES)), ("kind", *keys[1:]))
    table = without_slow(table, ("fp8", "nvfp4"), "bf16", keys[1:])
    found = {}
    for kind, rows in table.groupby("kind"):
        rows = rows.assign(columns=rows.inter_size // rows.moe_tp_size)
        one = ["hidden_size", "columns", "num_experts", "topk"]
        curves = rows.pivot_table(index=one, columns="num_tokens", values="seconds", aggfunc="median").reindex(columns=TOKENS).dropna(thresh=10)
        lines = []
        for index, line in zip(curves.index.to_list(), curves.to_numpy(), strict=True):
            hidden, columns, count, each = index
            weights = 3.0 * hidden * columns * count
            ideal = EXPERT_LAUNCH_S + roofline(gpu, kind, weights, TOKENS, each / count)
            whole = np.exp2(bridged(np.log2(line / ideal))) * ideal
            lines.append([*map(int, index), *stored(whole, ideal).astype(int).tolist()])
        if lines:
            found[kind] = lines
    return found


def by_work(table: pd.DataFrame, ideal: Floats) -> list[int]:
    """The curve over WORK (log2 of the ideal seconds): the median of the rows about each point; beyond the measured ones their ends."""
    at, ratio = np.log2(ideal), np.log2(table.seconds.to_numpy() / ideal)
    near = [ratio[np.abs(at - w) <= 0.5] for w in WORK]
    known = np.array([len(r) > 2 for r in near])
    middle = np.array([np.median(r) if len(r) else np.nan for r in near])
    line = np.interp(WORK, WORK[known], middle[known])
    below = np.arange(len(WORK)) < np.flatnonzero(known)[0]
    line[below] += WORK[known][0] - WORK[below]  # so short that time no longer falls
    return [int(v) for v in stored(np.exp2(line + WORK), np.exp2(WORK))]


def _read_often(t: pd.DataFrame) -> pd.DataFrame:
    """Decode attention with two to 32 queries per head of the cache."""
    shared = t.num_heads / t.num_key_value_heads
    return t[(t.step >= SMALLEST - 1) & t.head_dim.isin([64, 128, 256]) & shared.between(2, 32)]


def _alone(t: pd.DataFrame) -> pd.DataFrame:
    """Attention of one prompt in BF16."""
    is_shared = t.num_heads > t.num_key_value_heads
    return t[(t.isl >= SMALLEST) & (t.batch_size == 1) & (t.head_dim == 128) & (t.attn_dtype == "bfloat16") & is_shared]


def attention(folder: Path, gpu: Gpu) -> dict[str, list[int]]:
    """Curves of decode ("16", "8": bits of the cache) and of prompts, for grouped heads and MLA."""
    keys: tuple[str, ...] = ("batch_size", "step", "num_heads", "num_key_value_heads", "head_dim", "kv_cache_dtype")
    bits = {"bfloat16": 2.0, "fp8": 1.0}
    rows = operation(folder, "attention", "generation_attention", keys, _read_often)
    rows = fastest(rows, keys)
    found = {}
    for cache, size in bits.items():
        part = rows[rows.kv_cache_dtype == cache]
        read = part.batch_size * (part.step + 1) * part.num_key_value_heads * part.head_dim * 2.0 * size
        if len(part):
            found[f"decode {int(size * 8)}"] = by_work(part, (read / (gpu.bandwidth_gb_s * 1e9)).to_numpy())
    keys = ("batch_size", "isl", "num_heads", "head_dim")
    rows = operation(folder, "attention", "context_attention", keys, _alone)
    rows = fastest(rows, keys)
    found["prompt"] = by_work(rows, (rows.isl**2 * 2.0 * rows.num_heads * rows.head_dim / (gpu.bf16_tflops * 1e12)).to_numpy())
    return found | latent_attention(folder, gpu)


def latent_attention(folder: Path, gpu: Gpu) -> dict[str, list[int]]:
    """The same of MLA, where it was measured."""
    keys: tuple[str, ...] = ("batch_size", "step", "num_heads", "kv_cache_dtype")
    rows = operation(
        folder, "mla", "generation_mla", keys, lambda t: t[(t.step >= SMALLEST - 1) & t.num_heads.between(8, 128) & t.kv_cache_dtype.isin(["bfloat16", "fp8"])]
    )
    if rows.empty:
        return {}
    rows = fastest(rows, keys)
    found = {}
    for cache, size in (("bfloat16", 2.0), ("fp8", 1.0)):
        part = rows[rows.kv_cache_dtype == cache]
        if len(part):
            found[f"latent decode {int(size * 8)}"] = by_work(part, (part.batch_size * (part.step + 1) * LATENT * size / (gpu.bandwidth_gb_s * 1e9)).to_numpy())
    keys = ("batch_size", "isl", "num_heads")
    rows = fastest(operation(folder, "mla", "context_mla", keys, lambda t: t[(t.isl >= SMALLEST) & (t.batch_size == 1) & t.num_heads.between(8, 128)]), keys)
    found["latent prompt"] = by_work(rows, (rows.isl**2 * 320.0 * rows.num_heads / (gpu.bf16_tflops * 1e12)).to_numpy())
    return found


def product_seconds(table: Sequence[Sequence[int]], gpu: Gpu, kind: str, weights: float) -> Floats:
    """Seconds of one product by TOKENS, as the condensed table has it."""
    at = float(np.clip(np.log2(weights / WEIGHTS[0]), 0, len(WEIGHTS) - 1.001))
    low, rows = int(at), np.array(table, dtype=float) / STORED
    found: Floats = roofline(gpu, kind, max(weights, WEIGHTS[0]), TOKENS) * np.exp2(rows[low] + (at - low) * (rows[low + 1] - rows[low]))
    return found


def sparse_rows(folder: Path, phase: str, cache: str) -> pd.DataFrame:
    """Seconds of a whole sparse-attention module on the fastest engine, of the shapes that every engine was measured with."""
    shape = ("model", "num_heads", "gemm_type")
    keys = (*shape, "batch_size", "isl", "step")

    def kept(t: pd.DataFrame) -> pd.DataFrame:
        mine = t.model.isin(list(SPARSE_MODELS)) & (t.op_name == f"dsa_{phase}_module") & (t.kv_cache_dtype == cache)
        return t[mine & t.gemm_type.isin(["bfloat16", "fp8_block"]) & t.num_heads.between(8, 128)]

    rows = operation(folder, "sparse_attention", f"dsa_{phase}_module", keys, kept)
    if rows.empty:
        return rows
    rows = rows.assign(model=rows.model.map(SPARSE_MODELS)).reset_index()
    engines = rows.groupby(list(shape))["engine"].transform("nunique")
    return fastest(rows[engines == rows["engine"].nunique()], keys)


def besides_products(rows: pd.DataFrame, gpu: Gpu, cards: Mapping[str, Card], dense: Mapping[str, list[list[int]]]) -> pd.DataFrame:
    """The rows with the seconds that are left of a module without the products that the planner counts for it, as far as any are."""
    parts = []
    for (model, heads, kind), part in rows.groupby(["model", "num_heads", "gemm_type"]):
        a = cards[model].architecture
        weights = matrices(a).weights[[1, 6]] * heads / a.attention_heads  # of the output, and of all else in a layer
        times = np.sum([product_seconds(dense[TYPES[kind]], gpu, TYPES[kind], float(w)) for w in weights], axis=0)
        products = np.exp(np.interp(np.log2(part.batch_size * part.isl), np.log2(TOKENS), np.log(times)))
        parts.append(part.assign(besides=part.seconds - products))
    found = pd.concat(parts)
    return found[found.besides > 0]


def sparse_decode(rows: pd.DataFrame, ideal: Floats) -> Floats:
    """By CONTEXTS and TOKENS; a longer context is never faster."""
    cells = rows.pivot_table(index="step", columns="batch_size", values="besides", aggfunc="median").reindex(index=CONTEXTS, columns=TOKENS).to_numpy()
    rising = np.fmin.accumulate(cells[::-1])[::-1]
    return stored(np.exp2(filled(np.log2(rising / ideal))) * ideal, ideal)


def sparse_prompt(rows: pd.DataFrame, ideal: Floats) -> Floats:
    """By CONTEXTS, of passes of SPARSE_CHUNK tokens: of prompts from their start, and of the last pass of one."""
    passes = rows[(rows.batch_size * rows.isl == SPARSE_CHUNK) & ((rows.step == 0) | (rows.batch_size == 1))]
    seconds = passes.besides / np.maximum(passes.num_heads / SPARSE_HEADS, 1.0) / SPARSE_CHUNK
    line = seconds.groupby(passes.step + passes.isl / 2).median().sort_index()  # by the mean tokens attended to
    return stored(np.exp(np.interp(np.log2(CONTEXTS), np.log2(line.index), np.log(line.to_numpy()))), ideal)[:, None]


def sparse_attention(folder: Path, gpu: Gpu, cards: Mapping[str, Card], dense: Mapping[str, list[list[int]]]) -> dict[str, list[list[int]]]:
    """Curves of what a layer of DeepSeek's sparse attention takes besides its products, by bits of the cache. The median over models, heads and types
    of products: kernels pad heads, so these matter little."""
    found = {}
    for cache, size in (("bfloat16", 2.0), ("fp8", 1.0)):
        steps, prompts = (sparse_rows(folder, phase, cache) for phase in ("generation", "context"))
        if len(steps) and len(prompts):
            found[f"decode {int(size * 8)}"] = sparse_decode(besides_products(steps, gpu, cards, dense), sparse_decode_roofline(gpu, size))
            found[f"prompt {int(size * 8)}"] = sparse_prompt(besides_products(prompts, gpu, cards, dense), sparse_prompt_roofline(gpu))
    return {name: table.astype(int).tolist() for name, table in found.items()}


def condense(folder: Path, gpus: Iterable[Gpu], cards: Mapping[str, Card], as_of: str) -> Raw:
    """Everything of kernels.json."""
    by_name = {g.name: g for g in gpus}
    data = next(folder.rglob("systems/data"))
    version = next(folder.rglob("aiconfigurator_core-*.dist-info")).name.removesuffix(".dist-info").replace("_core-", "-core ")
    found = {}
    for system, name in SYSTEMS.items():
        gpu, tables = by_name[name], data / system
        dense = products(tables, gpu)
        found[name] = {"generation": gpu.generation, "products": dense, "experts": experts(tables, gpu), "attention": attention(tables, gpu)}
        found[name] |= {"sparse": sparse_attention(tables, gpu, cards, dense)}
    return {
        "source": f"PyPI {version}: measured operations of vLLM, SGLang and TensorRT-LLM, the fastest of the three",
        "licence": "Apache-2.0, Copyright NVIDIA Corporation & affiliates",
        "as_of": as_of,
        "gpus": found,
    }


def main(arguments: Iterable[str] | None = None) -> int:
    """Command line."""
    root = Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(prog="python -m planner.calibration.operations", description=__doc__)
    parser.add_argument("folder", type=Path, help="the unpacked wheel of aiconfigurator-core")
    parser.add_argument("--gpus", type=Path, default=root / "catalogs" / "gpus.csv")
    parser.add_argument("--models", type=Path, default=root / "models")
    parser.add_argument("-o", "--output", type=Path, default=root / "catalogs" / "kernels.json")
    parser.add_argument("--as-of", default=date.today().isoformat(), help="when the wheel was fetched; today")
    asked = parser.parse_args(None if arguments is None else list(arguments))
    cards = {name: read_card(asked.models / f"{name}.toml") for name in sorted(set(SPARSE_MODELS.values()))}
    found = condense(asked.folder, read_csv(asked.gpus, Gpu), cards, asked.as_of)
    text = json.dumps(found, indent=1)
    asked.output.write_text(re.sub(r"\[\s+(-?\d[^\[\]]*?)\s+\]", lambda m: "[" + re.sub(r"\s+", "", m.group(1)) + "]", text) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
