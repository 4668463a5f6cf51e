"""Sets measured kernels beside what the performance model assumes of the same GPU, as Markdown.

The shares are of the catalogue's peaks: bytes over bandwidth, FLOPs over the dense peak of the precision. The planner's times are those of its
own step functions for one GPU, with the coefficients that plans use.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]
SMALL, LARGE = 8, 1024  # tokens: up to here a product only reads its weights, from here it computes
PRECISIONS = {"bf16": "BF16", "fp8": "FP8"}
BIG_CACHE = 512 << 20  # bytes of keys and values from which decode attention has enough to read


@dataclass(frozen=True)
class Assumed:
    """The catalogue's peaks of one GPU, the planner's tables of its kernels, and the fitted factors on them."""

    gpu: str
    bandwidth: float  # bytes/s
    peak: Mapping[str, float]  # precision -> FLOP/s
    values: Mapping[str, float]
    about: Any
    tables: Any

    def products_s(self, weights: Iterable[float], precision: str, tokens: float) -> float:
        """Seconds of products with matrices of so many weights, without the factors."""
        import numpy as np

        from planner.performance.kernels import KINDS, TOKENS, WEIGHTS, at_tokens, roofline

        ratio = self.tables.products[self.tables.standing_for(self.about), tuple(KINDS).index(precision)].mean(axis=0)
        total = np.zeros((1, len(TOKENS)))
        for each in weights:
            curve = [np.interp(np.log2(each), np.log2(WEIGHTS), column) for column in ratio.T]
            total = total + roofline(self.about, precision, each, TOKENS) * np.exp2(curve)
        return float(at_tokens(total, tokens)[0, 0])

    def experts_s(self, row: Row) -> float:
        """Seconds of one layer's experts, without the factors."""
        import numpy as np

        from planner.performance.kernels import EXPERT_LAUNCH_S, KINDS, TOKENS, at_tokens, near, roofline

        kind = tuple(KINDS).index(row["precision"])
        asked = np.log2([[row["hidden"], row["width"], row["experts"], row["chosen"]]])
        ratio = np.mean([near(asked, *self.tables.shapes[t, kind]) for t in self.tables.standing_for(self.about)], axis=0)
        weights = 3.0 * row["hidden"] * row["width"] * row["experts"]
        ideal = EXPERT_LAUNCH_S + roofline(self.about, row["precision"], weights, TOKENS, row["chosen"] / row["experts"])
        return float(at_tokens(ideal * np.exp2(ratio), row["tokens"])[0, 0])

    def attention_share(self, name: str, seconds: float) -> float:
        """Share of the peak at which the planner has attention that would take so many seconds at it."""
        import numpy as np

        from planner.performance.kernels import ATTENTION, over_work

        ratio = self.tables.attention[self.tables.standing_for(self.about), ATTENTION.index(name)].mean(axis=0)
        return seconds / float(over_work(ratio[None, :], np.array([[seconds]]))[0, 0])


def compare(path: Path, gpu: str) -> int:
    """Prints the comparison; 2 for a record that is none, or of a GPU that the catalogue does not hold."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        families = {name: tuple(f["rows"]) for name, f in record["families"].items()}
        name = str(record["gpu"]["name"])
    except OSError as error:
        return _refuse(path, error.strerror or "cannot be read")
    except (ValueError, KeyError, TypeError, AttributeError):
        return _refuse(path, "is no record of kernels.py --json")
    from planner.catalog.load import load_catalog

    catalog = load_catalog()
    gpus = catalog.gpus
    found = gpu or catalogue_name(name, record["gpu"].get("memory_gib") or 0.0, {g.name: g.memory_gib for g in gpus.values()})
    if found not in gpus:
        return _refuse(path, f"was measured on '{name}', which the catalogue does not hold as '{found}'; name its GPU with --gpu")
    print("\n".join(section(record, families, catalog, found)))
    return 0


def _refuse(path: Path, why: str) -> int:
    print(f"{path}: {why}", file=sys.stderr)
    return 2


def catalogue_name(device: str, memory_gib: float, known: Mapping[str, float]) -> str:
    """The catalogue's GPU of a CUDA device: its model, the form the name tells (an unnamed one is the module), and nearest in memory."""
    words = device.upper().replace("-", " ").split()
    same = [n for n in known if n.upper().split("-")[0] in words]
    form = next((w for w in ("PCIE", "NVL") if w in words), "SXM")
    same = [n for n in same if form in n.upper().split("-")] or same
    return min(same, key=lambda n: abs(known[n] - memory_gib), default="")


def section(record: Mapping[str, Any], families: Mapping[str, Sequence[Row]], catalog: Any, gpu: str) -> list[str]:
    """The whole comparison."""
    from planner.performance.coefficients import load_coefficients
    from planner.performance.kernels import FILE, load_kernels

    coefficients = load_coefficients(catalog.coefficients_file)
    about = catalog.gpus[gpu]
    peak = {"bf16": about.bf16_tflops * 1e12, "fp8": (about.fp8_tflops or about.bf16_tflops) * 1e12}
    assumed = Assumed(gpu, about.bandwidth_gb_s * 1e9, peak, coefficients.values, about, load_kernels(catalog.coefficients_file.with_name(FILE)))
    steps = step_rows(catalog, coefficients, about, families.get("steps", ()))
    lines = ["## Kernels on one GPU", "", _preamble(record, assumed), ""]
    parts: tuple[tuple[str, list[list[str]]], ...] = (
        ("Shares of the peaks", coefficient_rows(assumed, families, steps)),
        ("Matrix products of a dense layer: median over models (lowest to highest)", dense_rows(assumed, families.get("dense", ()))),
        ("Matrix products of routed experts: median over models (lowest to highest)", expert_rows(assumed, families.get("experts", ()))),
        ("Attention of a decode step: share of the bandwidth", attention_rows(assumed, families.get("decode", ()))),
        ("Causal attention of one prompt: share of the BF16 peak", prefill_rows(assumed, families.get("prefill", ()))),
        ("Whole decode steps of Llama-3.1-8B in BF16, without an engine", decode_rows(steps)),
        ("Whole prompts of Llama-3.1-8B in BF16, without an engine", prompt_rows(steps)),
    )
    for title, rows in parts:
        if len(rows) > 1:
            lines += [f"**{title}**", "", *table(rows), ""]
    return [*lines, *_memory(assumed, families.get("memory", ())), *_missing(record)]


def _preamble(record: Mapping[str, Any], a: Assumed) -> str:
    driver = (record.get("nvidia_smi") or {}).get("driver_version", "unknown")
    return (
        f"`benchmarks/kernels.py` on one {record['gpu']['name']} ({record.get('date')}, driver {driver}, PyTorch {record.get('torch')}): in CUDA graphs, "
        f"random operands, weights and caches rotated past the L2. Shares are of the catalogue's peaks of {a.gpu}: {a.bandwidth / 1e9:,.0f} GB/s, "
        f"{a.peak['bf16'] / 1e12:,.0f} TFLOP/s in BF16, {a.peak['fp8'] / 1e12:,.0f} in FP8. The kernels are PyTorch's (cuBLAS, CUTLASS, cuDNN, "
        "FlashAttention), not an engine's; quantising activations, routing and communication are not in them. Planner / measured above 1: the planner "
        "takes longer."
    )


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows, the first of them the head, as a Markdown table."""
    head, *body = rows
    return [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {' | '.join(r)} |" for r in body)]


# ---- products


def layers(rows: Iterable[Row]) -> dict[tuple[str, str, int], tuple[float, float, float, tuple[float, ...]]]:
    """(model, precision, tokens) -> (seconds, bytes of weights, FLOPs, weights of each) of all products of a layer; those with all products only."""
    groups: dict[tuple[str, str, int], list[Row]] = defaultdict(list)
    products: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        groups[row["model"], row["precision"], row["tokens"]].append(row)
        products[row["model"]].add(row["product"])
    found = {}
    for (model, precision, tokens), group in groups.items():
        if len(group) == len(products[model]):
            each = tuple(float(r["k"] * r["n"]) for r in group)
            size = sum(each) * (2.0 if precision == "bf16" else 1.0)
            found[model, precision, tokens] = sum(r["us"] for r in group) / 1e6, size, 2.0 * tokens * sum(each), each
    return found


def dense_rows(a: Assumed, rows: Sequence[Row]) -> list[list[str]]:
    """By precision and tokens, over models."""
    groups: dict[tuple[str, ...], list[tuple[float | None, ...]]] = defaultdict(list)
    for (_, precision, tokens), (s, size, flops, each) in sorted(layers(rows).items(), key=lambda item: (item[0][1], item[0][2])):
        planned = a.products_s(each, precision, tokens)
        groups[PRECISIONS[precision], f"{tokens:,}"].append(_products(a, (s, size, flops), precision, planned))
    return _grouped(["", "tokens"], groups)


def _products(a: Assumed, measured: tuple[float, float, float], precision: str, planned: float) -> tuple[float | None, ...]:
    """Shares of bandwidth and peak, and the planner's time over that measured (seconds, bytes read, FLOPs)."""
    s, size, flops = measured
    return size / s / a.bandwidth, flops / s / a.peak[precision], planned / s


def _grouped(head: list[str], groups: Mapping[tuple[str, ...], Sequence[tuple[float | None, ...]]]) -> list[list[str]]:
    """One row per group: the median over models of each figure, with the lowest and highest of several."""
    lines = [[*head, "models", "of bandwidth", "of peak", "planner / measured"]]
    for key, figures in groups.items():
        shares = [_spread([f[i] for f in figures], lambda v: f"{100 * v:.0f}") + " %" for i in (0, 1)]
        lines.append([*key, str(len(figures)), *shares, *(_spread([f[i] for f in figures], lambda v: f"{v:.2f}") for i in (2,))])
    return lines


def _spread(values: Sequence[float | None], show: Callable[[float], str]) -> str:
    known = [v for v in values if v is not None]
    if not known:
        return ""
    middle, low, high = (show(f(known)) for f in (statistics.median, min, max))
    return middle if low == high else f"{middle} ({low} to {high})"


def expert_sizes(row: Row) -> tuple[float, float, float]:
    """(seconds, bytes of the experts that are touched, FLOPs) of one row of experts."""
    one = 3.0 * row["hidden"] * row["width"]
    return row["us"] / 1e6, row["touched"] * one * (2 if row["precision"] == "bf16" else 1), 2.0 * row["tokens"] * row["chosen"] * one


def expert_rows(a: Assumed, rows: Sequence[Row]) -> list[list[str]]:
    """By precision, routing and tokens, over models; the planner's tables are of uneven routing."""
    groups: dict[tuple[str, ...], list[tuple[float | None, ...]]] = defaultdict(list)
    for row in sorted(rows, key=lambda r: (r["precision"], r["routing"], r["tokens"])):
        s, size, flops = expert_sizes(row)
        key = (PRECISIONS[row["precision"]], row["routing"], f"{row['tokens']:,}")
        groups[key].append(_products(a, (s, size, flops), row["precision"], a.experts_s(row)))
    return _grouped(["", "routing", "tokens"], groups)


# ---- attention


def kv_bytes(row: Row) -> float:
    """Bytes of keys and values that a row of decode attention reads, in BF16."""
    return 4.0 * row["batch"] * row["kv_heads"] * row["context"] * row["head"]


def kv_share(a: Assumed, row: Row) -> float:
    """Share of the bandwidth at which they are read."""
    return kv_bytes(row) / (row["us"] / 1e6) / a.bandwidth


def attention_rows(a: Assumed, rows: Sequence[Row]) -> list[list[str]]:
    """Query heads and context down, batch across."""
    batches = sorted({r["batch"] for r in rows})
    found = {(r["heads"], r["context"], r["batch"]): r for r in rows}
    lines = [["query heads", "context", *(f"batch {b}" for b in batches)]]
    for heads, context in sorted({key[:2] for key in found}):
        cells = [found.get((heads, context, b)) for b in batches]
        lines.append([str(heads), f"{context:,}", *(f"{percent(kv_share(a, r))} ({r['how']})" if r else "–" for r in cells)])
    return lines


def prefill_share(a: Assumed, row: Row) -> float:
    """Share of the BF16 peak, counting the pairs that are attended to only."""
    flops = 4.0 * row["heads"] * row["head"] * row["tokens"] ** 2 / 2
    return float(flops / (row["us"] / 1e6) / a.peak["bf16"])


def prefill_rows(a: Assumed, rows: Sequence[Row]) -> list[list[str]]:
    """Query heads down, length across."""
    lengths = sorted({r["tokens"] for r in rows})
    found = {(r["heads"], r["tokens"]): r for r in rows}
    lines = [["query heads", *(f"{t:,} tokens" for t in lengths)]]
    for heads in sorted({h for h, _ in found}):
        cells = [found.get((heads, t)) for t in lengths]
        lines.append([str(heads), *(f"{percent(prefill_share(a, r))} ({r['how']})" if r else "–" for r in cells)])
    return lines


# ---- whole steps


@dataclass(frozen=True)
class Step:
    """One measured step beside the planner's, seconds. ``bare`` leaves out the fixed overheads of layers, steps and sequences."""

    row: Row
    measured: float
    bare: float
    whole: float


def step_rows(catalog: Any, coefficients: Any, gpu: Any, rows: Sequence[Row]) -> list[Step]:
    """The planner's decode step or prompt of each measured one."""
    import numpy as np

    from planner.performance.coefficients import SECONDS
    from planner.performance.physics import shapes
    from planner.performance.replicas import ENGINES, PRECISIONS, Replicas
    from planner.performance.step import decode_step, layer_overhead, prefill_step

    found = []
    for row in rows:
        architecture = next(c.architecture for c in catalog.cards if c.name == row["model"])
        zero, one = np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.int64)
        precision = np.array([PRECISIONS.index(row["precision"])])
        replica = Replicas((architecture,), (gpu,), zero, zero, precision, zero + ENGINES.index("vllm"), one, one)
        shape, e = shapes(replica), {**coefficients.rows(replica), **coefficients.kernels(replica)}
        bare = {name: value * (name not in SECONDS) for name, value in e.items()}
        if row["what"] == "decode":
            kv, n = shape.kv_heads_bytes * row["context"], np.array([[float(row["batch"])]])
            times = [float(decode_step(shape, c, kv, n)[0, 0]) for c in (bare, e)]
        else:
            prompt = float(prefill_step(shape, e, np.array([row["tokens"] / 2]), float(row["tokens"]))[0, 0])
            times = [prompt, prompt + float((layer_overhead(shape, e) + e["step_s"])[0, 0])]
        factor = float(coefficients.vendor_factor(replica)[0, 0])
        found.append(Step(row, row["us"] / 1e6, times[0] * factor, times[1] * factor))
    return found


def decode_rows(steps: Sequence[Step]) -> list[list[str]]:
    """By context and batch."""
    lines = [["context", "batch", "measured ms", "planner ms, products and attention", "ratio", "planner ms, whole step", "ratio"]]
    chosen = sorted((s for s in steps if s.row["what"] == "decode"), key=lambda s: (s.row["context"], s.row["batch"]))
    return lines + [[f"{s.row['context']:,}", str(s.row["batch"]), *_ratios(s)] for s in chosen]


def prompt_rows(steps: Sequence[Step]) -> list[list[str]]:
    """By length."""
    lines = [["tokens", "measured ms", "planner ms, share of a step", "ratio", "planner ms, a step of its own", "ratio"]]
    return lines + [[f"{s.row['tokens']:,}", *_ratios(s)] for s in steps if s.row["what"] == "prompt"]


def _ratios(s: Step) -> list[str]:
    cells = [f"{s.measured * 1e3:.2f}"]
    for planned in (s.bare, s.whole):
        cells += [f"{planned * 1e3:.2f}", f"{planned / s.measured:.2f}"]
    return cells


# ---- coefficients


def coefficient_rows(a: Assumed, families: Mapping[str, Sequence[Row]], steps: Sequence[Step]) -> list[list[str]]:
    """Shares of the peaks that kernels reach, lowest, median and highest, beside those that the planner has at the same sizes."""
    dense = [(p, t, *rest) for (_, p, t), rest in layers(families.get("dense", ())).items()]
    expert = [(r, *expert_sizes(r)) for r in families.get("experts", ())]
    lines = [["share", "planner: median", "kernels: median", "lowest to highest", "of"]]

    def add(name: str, planned: Sequence[float], values: Sequence[float], what: str, show: Callable[[float], str] = lambda v: f"{v:.2f}") -> None:
        if values:
            cells = (show(statistics.median(planned)), show(statistics.median(values)), f"{show(min(values))} to {show(max(values))}")
            lines.append([f"`{name}`", *cells, what])

    for p, name in PRECISIONS.items():
        for title, low, high, peak in (
            ("weights", 1, SMALL, a.bandwidth),
            ("decode_flops", LARGE // 2, LARGE, a.peak[p]),
            ("prefill_flops", 8192, 8192, a.peak[p]),
        ):
            here = [(t, s, size if title == "weights" else flops, each) for q, t, s, size, flops, each in dense if q == p and low <= t <= high]
            planned = [work / a.products_s(each, p, t) / peak for t, _, work, each in here]
            span = f"{low:,}" if low == high else f"{low:,} to {high:,}"
            add(title, planned, [work / s / peak for _, s, work, _ in here], f"{name} layers, {span} tokens")
        few = [(r, s, size) for r, s, size, _ in expert if r["precision"] == p and r["tokens"] <= 64 and r["touched"] >= SMALL]
        planned = [size / a.experts_s(r) / a.bandwidth for r, _, size in few]
        add("experts", planned, [size / s / a.bandwidth for _, s, size in few], f"{name} experts, at most 64 tokens")
        many = [(r, s, flops) for r, s, _, flops in expert if r["precision"] == p and r["tokens"] == 4096]
        planned = [flops / a.experts_s(r) / a.peak[p] for r, _, flops in many]
        add("expert_flops", planned, [flops / s / a.peak[p] for _, s, flops in many], f"{name} experts, 4,096 tokens")
    read = [r for r in families.get("decode", ()) if kv_bytes(r) >= BIG_CACHE]
    planned = [a.attention_share("decode 16", kv_bytes(r) / a.bandwidth) for r in read]
    add("kv", planned, [kv_share(a, r) for r in read], f"decode attention over {BIG_CACHE >> 20} MiB or more")
    long = [r for r in families.get("prefill", ()) if r["tokens"] >= 8192]
    planned = [a.attention_share("prompt", 2.0 * r["heads"] * r["head"] * r["tokens"] ** 2 / a.peak["bf16"]) for r in long]
    add("attention_flops", planned, [prefill_share(a, r) for r in long], "causal attention, 8,192 tokens or more")
    alone = [s for s in steps if s.row["what"] == "decode" and s.row["batch"] == 1]
    left = [(s.measured - s.bare) / s.row["layers"] for s in alone]
    rest = "what a decode step of one sequence takes beyond the planner's products and attention, per layer"
    add("layer_s", [a.values["layer_s"]], left, rest, lambda v: f"{v * 1e6:.1f} µs")
    return lines


# ---- the rest


def _memory(a: Assumed, rows: Sequence[Row]) -> list[str]:
    if not rows:
        return []
    moved = [f"{r['what']} {r['gb_s']:,.0f} GB/s ({percent(r['gb_s'] * 1e9 / a.bandwidth)})" for r in rows if "gb_s" in r]
    launched = [f"{r['what']} {r['us']:.1f} µs" for r in rows if "gb_s" not in r]
    return [f"Memory: {'; '.join(moved)}. Smallest kernel: {'; '.join(launched)}.", ""]


def _missing(record: Mapping[str, Any]) -> list[str]:
    """What could not be measured, by reason, and what was cut short."""
    lines = []
    for name, family in record["families"].items():
        reasons: dict[str, list[str]] = defaultdict(list)
        for failure in family.get("failed", ()):
            reasons[failure["why"]].append(failure["what"])
        lines += [f"- {name}: {len(what)} not measured, first {what[0]}: {why[:160]}" for why, what in reasons.items()]
        if family.get("cut"):
            lines.append(f"- {name}: cut short after {family['seconds']:.0f} s")
    return ["Not measured:", "", *lines, ""] if lines else []


def percent(share: float) -> str:
    """A share for people."""
    return f"{100 * share:.0f} %"
