"""Times of the kernels of one pass over a model, from measured ones: how many times longer than its roofline an operation takes, by tokens and size.

Read from catalogs/kernels.json, which ``python -m planner.calibration.operations`` writes. A GPU without tables takes the mean of those of its
generation, else of all; a precision it was not measured in, the mean of the GPUs that were.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from planner.catalog.files import read_json
from planner.catalog.records import Architecture, Gpu
from planner.performance.replicas import PRECISIONS, Floats, Ints, Replicas

FILE = "kernels.json"
TERA, GIGA = 1e12, 1e9
KINDS = {"bf16": 2.0, "fp8": 1.0, "nvfp4": 0.5625, "int4": 0.53125, "mxfp4": 0.53125}  # bytes per weight
TOKENS: Floats = np.exp2(np.arange(15))  # of a pass: 1 to 16,384
WEIGHTS: Floats = np.exp2(np.arange(16, 32))  # of a matrix on one GPU
WORK: Floats = np.arange(-28.0, 1.0)  # log2 of the seconds that one layer's attention would take at the peak
CONTEXTS: Floats = np.exp2(np.arange(7, 18))  # of sparse attention: 128 to 131,072 tokens seen
SPARSE = ("decode 16", "decode 8", "prompt 16", "prompt 8")  # bits of the cache
SPARSE_CHUNK = 8192.0  # prompt tokens of a pass
SPARSE_HEADS = 64.0  # that its prompt kernels compute at least
INDEX = 132.0  # bytes of an indexer's key, per token and layer: 128 values in FP8 with their scale (DeepSeek's sparse attention)
SELECTED, LATENT = 2048.0, (512.0, 64.0)  # of the models measured: tokens that a layer selects, numbers that it keeps of each
STORED = 100  # ratios are kept as whole hundredths of a doubling
EXPERT_LAUNCH_S = 1e-5  # of the several kernels of an MoE layer: with it in the roofline small shapes resemble large ones
MOST_KNOWN = 50_000  # kinds of replicas whose times are kept
SMOOTHING = 0.5  # doublings of hidden size, columns, experts and experts per token over which measured MoE shapes speak for others


def peak(gpu: Gpu, kind: str) -> float:
    """FLOP/s of products of this kind; weight-only ones compute in BF16."""
    eight = gpu.fp8_tflops or gpu.bf16_tflops
    if kind == "nvfp4":
        return (gpu.fp4_tflops or gpu.bf16_tflops) * TERA
    if kind == "mxfp4":
        return (eight if gpu.fp4_tflops else gpu.bf16_tflops) * TERA
    return (eight if kind.startswith("fp8") else gpu.bf16_tflops) * TERA


def roofline(gpu: Gpu, kind: str, weights: Floats | float, tokens: Floats | float, share: Floats | float = 1.0) -> Floats:
    """Seconds that products of ``tokens`` with matrices of so many weights take at best; each token with a ``share`` of them (experts)."""
    return _roofline(peak(gpu, kind), gpu.bandwidth_gb_s * GIGA, KINDS[kind], weights, tokens, share)


def _roofline(
    flops: Floats | float, bandwidth: Floats | float, size: Floats | float, weights: Floats | float, tokens: Floats | float, share: Floats | float
) -> Floats:
    touched = -np.expm1(tokens * np.log1p(-np.minimum(share, 1 - 1e-12)))
    return np.maximum(2.0 * weights * share * tokens / flops, weights * touched * size / bandwidth)


# ---- the stored tables ----

Ratios = tuple[Annotated[int, Field(ge=0, le=100_000)], ...]


@dataclass(frozen=True)
class StoredGpu:
    """Hundredths of log2(measured/roofline): products by type, weights and tokens; experts by type as hidden size, columns, experts, experts per
    token and then by tokens; attention over WORK; sparse attention by CONTEXTS, decode also by tokens."""

    generation: str
    products: Mapping[str, tuple[Ratios, ...]]
    experts: Mapping[str, tuple[Ratios, ...]]
    attention: Mapping[str, Ratios]
    sparse: Mapping[str, tuple[Ratios, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredKernels:
    """kernels.json."""

    source: str
    licence: str
    as_of: str
    gpus: Mapping[str, StoredGpu]


ATTENTION = ("decode 16", "decode 8", "prompt", "latent decode 16", "latent decode 8", "latent prompt")


@dataclass
class _Known:
    """What was worked out before, by kind of replica: numbers of architecture and GPU, and sizes. Several threads may ask."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    numbers: dict[object, int] = field(default_factory=dict)  # architectures and GPUs by what they say
    seen: dict[int, tuple[int, object]] = field(default_factory=dict)  # by identity, held so that no other takes it
    rows: dict[tuple[int, ...], int] = field(default_factory=dict)
    times: dict[str, Floats] = field(default_factory=dict)

    def number(self, thing: Architecture | Gpu) -> int:
        """The same for equal ones."""
        found = self.seen.get(id(thing))
        if found is None:
            found = self.seen[id(thing)] = self.numbers.setdefault(thing, len(self.numbers)), thing
        return found[0]

    def add(self, keys: Sequence[tuple[int, ...]], times: Mapping[str, Floats]) -> None:
        """Further kinds."""
        self.rows |= {key: len(self.rows) + i for i, key in enumerate(keys)}
        self.times = {name: np.concatenate((self.times[name], table)) if self.times else table for name, table in times.items()}

    def forget(self) -> None:
        """All of it, where it would grow too large."""
        if len(self.rows) > MOST_KNOWN or len(self.seen) > MOST_KNOWN:
            self.numbers, self.seen, self.rows, self.times = {}, {}, {}, {}


@dataclass(frozen=True)
class KernelTables:
    """log2(measured/roofline) of the GPUs that were measured, [T] each."""

    gpus: tuple[str, ...]
    generations: tuple[str, ...]
    products: Floats  # [T, kinds, weights, tokens]
    attention: Floats  # [T, ATTENTION, work]
    sparse_decode: Floats  # [T, bits, contexts, tokens]
    sparse_prompt: Floats  # [T, bits, contexts]
    shapes: Mapping[tuple[int, int], tuple[Floats, Floats]]  # (T, kind) -> log2 of shapes [S, 4], ratios [S, tokens]
    known: _Known = field(default_factory=_Known, compare=False, repr=False)

    @classmethod
    def of(cls, found: StoredKernels) -> KernelTables:
        """Tables with their gaps filled by the mean of the GPUs that have what is missing."""
        names, each = tuple(found.gpus), tuple(found.gpus.values())
        shapes = {}
        for i, gpu in enumerate(each):
            for kind, rows in gpu.experts.items():
                table = np.array(rows, dtype=float)
                shapes[i, tuple(KINDS).index(kind)] = np.log2(table[:, :4]), table[:, 4:] / STORED
        return cls(
            names,
            tuple(g.generation for g in each),
            _filled([[g.products.get(k) for k in KINDS] for g in each], (len(WEIGHTS), len(TOKENS))),
            _filled([[g.attention.get(k) for k in ATTENTION] for g in each], (len(WORK),)),
            _filled([[g.sparse.get(k) for k in SPARSE[:2]] for g in each], (len(CONTEXTS), len(TOKENS))),
            _filled([[g.sparse.get(k) for k in SPARSE[2:]] for g in each], (len(CONTEXTS), 1))[..., 0],
            shapes,
        )

    def standing_for(self, gpu: Gpu) -> Ints:
        """Rows whose mean speaks for a GPU: its own, else those of its generation, else all."""
        mine = [i for i, name in enumerate(self.gpus) if name == gpu.name]
        same = [i for i, generation in enumerate(self.generations) if generation == gpu.generation]
        return np.array(mine or same or range(len(self.gpus)))


def _filled(rows: Sequence[Sequence[object]], shape: tuple[int, ...]) -> Floats:
    table = np.array([[np.full(shape, np.nan) if cell is None else cell for cell in row] for row in rows], dtype=float) / STORED
    mean = np.nansum(table, axis=0) / np.maximum(np.isfinite(table).sum(axis=0), 1)
    return np.where(np.isnan(table), mean, table)


@lru_cache(maxsize=4)
def load_kernels(path: Path) -> KernelTables:
    """Reads kernels.json. Raises CatalogError."""
    return KernelTables.of(read_json(path, StoredKernels, "times of kernels"))


# ---- times of a pass ----


def kinds_of(precision: str, is_moe: bool) -> tuple[str, str]:
    """Types of the products of other layers and of experts: MoE checkpoints in 4 bits quantise the experts only, see physics.BYTES.

    Not measured, and so taken as what reads as many bytes: INT8 as FP8, and other layers in MXFP4 as in INT4.
    """
    if precision in ("nvfp4", "mxfp4", "int4"):
        return ("fp8" if precision == "nvfp4" else "bf16") if is_moe else precision.replace("mxfp4", "int4"), precision
    return precision.replace("int8", "fp8"), precision.replace("int8", "fp8")


@dataclass(frozen=True)
class _Matrices:
    """The products of one pass that are none of routed experts: how often, weights as a whole [K]."""

    count: Floats
    weights: Floats
    is_16: Floats  # whether stored in 16 bits whatever the precision


def matrices(a: Architecture) -> _Matrices:
    """Attention's, the dense layers', shared experts', routers' and the head's; what else the model has counts as one more per layer."""
    h, value = a.hidden_size, a.v_head_dim or a.head_dim
    attending = a.full_attention_layers + a.sliding_layers
    dense = a.layers - a.moe_layers
    shared = a.expert_intermediate_size * a.shared_experts
    into = (a.attention_heads * a.head_dim + a.kv_heads * (a.head_dim + value)) * h if a.attention == "gqa" else 0.0
    table = float(a.vocabulary * h)
    tables = 1 if table > 0.08 * a.parameters else 2
    rows = [
        (attending, into, 0),
        (attending, a.attention_heads * value * h, 0),
        (dense, 2.0 * a.intermediate_size * h, 0),
        (dense, 1.0 * a.intermediate_size * h, 0),
        (a.moe_layers, 2.0 * shared * h, 0),
        (a.moe_layers, 1.0 * shared * h, 0),
    ]
    known = sum(c * w for c, w, _ in rows)
    total = max(a.parameters - a.expert_parameters - tables * table, 0.0)
    rest = max(total - known, 0.0)
    scale = min(1.0, total / known) if known else 1.0
    rows = [(c, w * scale, b) for c, w, b in rows] + [(a.layers, rest / a.layers, 0), (1, table, 1)]
    count, weights, bits = (np.array(x, dtype=float) for x in zip(*rows, strict=True))
    return _Matrices(count, weights, bits)


def kernel_times(replicas: Replicas, tables: KernelTables) -> dict[str, Floats]:
    """Seconds on each GPU of one pass through all layers by its tokens, [P, TOKENS]: "products_s", "experts_s"; log2(measured/roofline) of one
    layer's attention over WORK, [P, WORK]: "decode_ratio", "prompt_ratio"; and layers with attention [P, 1]: of decoding, "calls" (linear ones
    too), and of prompts, "attending"; seconds of a layer of sparse attention besides its products: of a step, "sparse_decode_s"
    [P, CONTEXTS, TOKENS], and of one prompt token, "sparse_prompt_s" [P, CONTEXTS]. Each kind of replica is worked out once."""
    columns = np.stack([getattr(replicas, n) for n in ("architecture", "gpu", "precision", "tp", "dp", "kv_bytes")], axis=1)
    distinct, first, same = np.unique(columns, axis=0, return_index=True, return_inverse=True)
    known = tables.known
    with known.lock:
        known.forget()
        architectures, gpus = [known.number(a) for a in replicas.architectures], [known.number(g) for g in replicas.gpus]
        keys = [(architectures[a], gpus[g], *rest) for a, g, *rest in distinct.tolist()]
        new = [i for i, key in enumerate(keys) if key not in known.rows]
        if new:
            known.add([keys[i] for i in new], _times(replicas.take(first[new]), tables))
        index = np.array([known.rows[key] for key in keys], dtype=np.int64)[same.ravel()]
        return {name: table[index] for name, table in known.times.items()}


def _times(part: Replicas, tables: KernelTables) -> dict[str, Floats]:
    """The same of replicas that differ."""
    places = [tables.standing_for(g) for g in part.gpus]
    moe = np.array([a.experts > 0 for a in part.architectures])[part.architecture]
    kinds = np.array([[[tuple(KINDS).index(k) for k in kinds_of(p, m)] for p in PRECISIONS] for m in (False, True)])[moe.astype(int), part.precision]
    attending = part.of_architecture(lambda a: a.full_attention_layers + a.sliding_layers)[:, None]
    linear = part.of_architecture(lambda a: a.linear_layers)[:, None]
    return {  # means over GPUs could fall with the tokens
        "products_s": np.maximum.accumulate(_products(part, tables, places, kinds[:, 0]), axis=1),
        "experts_s": np.maximum.accumulate(_experts(part, tables, places, kinds[:, 1]), axis=1),
        "calls": np.maximum(attending + linear, 1.0),
        "attending": np.maximum(attending, 1.0),
        **_attention(part, tables, places),
        **_sparse(part, tables, places),
    }


def _means(table: Floats, places: Sequence[Ints]) -> Floats:
    """The table of each GPU, [GPUs, ...]."""
    return np.stack([table[rows].mean(axis=0) for rows in places])


def _products(part: Replicas, tables: KernelTables, places: Sequence[Ints], kind: Ints) -> Floats:
    listed = [matrices(a) for a in part.architectures]
    count, weights, is_16 = (np.stack([getattr(m, n) for m in listed])[part.architecture] for n in ("count", "weights", "is_16"))  # [C, K]
    weights = np.maximum(weights / (part.tp / part.dp)[:, None], 1.0)
    kinds = np.where(is_16 > 0, tuple(KINDS).index("bf16"), kind[:, None])
    ratio = _means(tables.products, places)
    at = np.clip(np.log2(weights) - np.log2(WEIGHTS[0]), 0, len(WEIGHTS) - 1.001)
    low = at.astype(int)
    share = (at - low)[..., None]
    gpu = part.gpu[:, None]
    curve = (1 - share) * ratio[gpu, kinds, low] + share * ratio[gpu, kinds, low + 1]  # [C, K, M]
    # A matrix smaller than any measured takes what the smallest does.
    size = np.maximum(weights, WEIGHTS[0])
    groups = part.dp.astype(float)[:, None, None]
    tokens = np.maximum(TOKENS / groups, 1.0)
    shift = np.log2(tokens)
    lower = np.minimum(shift.astype(int), len(TOKENS) - 2)
    lower = np.broadcast_to(lower, curve.shape)
    step = shift - lower
    curve = (1 - step) * np.take_along_axis(curve, lower, 2) + step * np.take_along_axis(curve, lower + 1, 2)
    flops = np.array([[peak(g, k) for k in KINDS] for g in part.gpus])[gpu, kinds]
    width = np.array(list(KINDS.values()))[kinds]
    bandwidth = part.of_gpu(lambda g: g.bandwidth_gb_s * GIGA)[:, None, None]
    ideal = _roofline(flops[..., None], bandwidth, width[..., None], size[..., None], tokens, 1.0)
    found: Floats = ((count * (weights > 1.0))[..., None] * ideal * np.exp2(curve)).sum(axis=1)
    return found


def _experts(part: Replicas, tables: KernelTables, places: Sequence[Ints], kind: Ints) -> Floats:
    found, numbers = np.zeros((len(part), len(TOKENS))), part.of_architecture
    hidden, count, each = (numbers(f)[:, None] for f in (lambda a: a.hidden_size, lambda a: a.experts, lambda a: a.experts_per_token))
    columns = numbers(lambda a: a.expert_intermediate_size)[:, None] / part.tp[:, None]
    weights = numbers(lambda a: a.expert_matrices)[:, None] * count * hidden * columns
    asked = np.log2(np.maximum(np.concatenate((hidden, columns, count, each), axis=1), 1.0))
    layers = numbers(lambda a: a.moe_layers)[:, None]
    for j, k in np.unique(np.stack((part.gpu, kind), axis=1)[weights[:, 0] > 0], axis=0).tolist():
        rows = np.flatnonzero((part.gpu == j) & (kind == k) & (weights[:, 0] > 0))
        known = [tables.shapes[t, k] for t in places[j].tolist() if (t, k) in tables.shapes]
        known = known or [table for (_, other), table in tables.shapes.items() if other == k]
        ratio = np.mean([near(asked[rows], *table) for table in known], axis=0)
        ideal = EXPERT_LAUNCH_S + roofline(part.gpus[j], tuple(KINDS)[k], weights[rows], TOKENS[None, :], (each / np.maximum(count, 1.0))[rows])
        found[rows] = layers[rows] * ideal * np.exp2(ratio)
    return found


def near(asked: Floats, shapes: Floats, ratios: Floats) -> Floats:
    """Ratios of the measured shapes, the nearer the more."""
    far = ((asked[:, None, :] - shapes[None, :, :]) ** 2).sum(axis=2) / (2 * SMOOTHING**2)
    weight = np.exp(far.min(axis=1, keepdims=True) - far)
    near: Floats = weight @ ratios / weight.sum(axis=1, keepdims=True)
    return near


def over_work(ratio: Floats, work: Floats) -> Floats:
    """Seconds of operations that would take ``work`` [P, .] seconds at the peak, by the ratios of each row [P, WORK]."""
    at = np.clip(np.log2(np.maximum(work, 1e-12)) - WORK[0], 0.0, len(WORK) - 1.001)
    low = at.astype(np.int64)
    between = np.take_along_axis(ratio, low, 1)
    between = between + (at - low) * (np.take_along_axis(ratio, low + 1, 1) - between)
    found: Floats = np.maximum(work, np.exp2(WORK[0])) * np.exp2(between)
    return found


def _attention(part: Replicas, tables: KernelTables, places: Sequence[Ints]) -> dict[str, Floats]:
    ratio = _means(tables.attention, places)
    latent = np.array([3 * (a.attention == "mla") for a in part.architectures])[part.architecture]
    return {"decode_ratio": ratio[part.gpu, latent + (part.kv_bytes == 1)], "prompt_ratio": ratio[part.gpu, latent + 2]}


def sparse_decode_roofline(gpu: Gpu, size: float) -> Floats:
    """Seconds [CONTEXTS, TOKENS] to read what a layer of DeepSeek's sparse attention selects, and selects by; numbers of the cache have ``size`` bytes."""
    each = np.minimum(CONTEXTS, SELECTED) * sum(LATENT) * size + CONTEXTS * INDEX
    found: Floats = each[:, None] * TOKENS / (gpu.bandwidth_gb_s * GIGA)
    return found


def sparse_prompt_roofline(gpu: Gpu) -> Floats:
    """Seconds [CONTEXTS] of a layer's attention to what is selected, of one prompt token with SPARSE_HEADS heads."""
    found: Floats = 2 * SPARSE_HEADS * (2 * LATENT[0] + LATENT[1]) * np.minimum(CONTEXTS, SELECTED) / (gpu.bf16_tflops * TERA)
    return found


def _sparse(part: Replicas, tables: KernelTables, places: Sequence[Ints]) -> dict[str, Floats]:
    ideal = np.array([[sparse_decode_roofline(g, size) for size in (2.0, 1.0)] for g in part.gpus])
    decode = ideal * np.exp2(_means(tables.sparse_decode, places))
    prompt = np.stack([sparse_prompt_roofline(g) for g in part.gpus])[:, None] * np.exp2(_means(tables.sparse_prompt, places))
    bits, groups = (part.kv_bytes == 1).astype(int), part.dp[:, None].astype(float)
    own = np.repeat(np.maximum(TOKENS / groups, 1.0), len(CONTEXTS), axis=0)  # of an attention group
    steps = at_tokens(decode[part.gpu, bits].reshape(-1, len(TOKENS)), own).reshape(-1, len(CONTEXTS), len(TOKENS))
    heads = part.of_architecture(lambda a: a.attention_heads)[:, None] * groups / part.tp[:, None]
    return {"sparse_decode_s": steps, "sparse_prompt_s": prompt[part.gpu, bits] * np.maximum(heads / SPARSE_HEADS, 1.0) / groups}


def at_context(seconds: Floats, context: Floats) -> Floats:
    """Seconds [P, ...] at these contexts [P] by those at CONTEXTS [P, CONTEXTS, ...], straight in logarithms; beyond the longest as they grew before it."""
    x = np.log2(np.maximum(context / CONTEXTS[0], 1.0))
    low, rows = np.minimum(x.astype(np.int64), len(CONTEXTS) - 2), np.arange(len(x))
    below, above = np.log(seconds[rows, low]), np.log(seconds[rows, low + 1])
    share = (x - low).reshape(-1, *[1] * (below.ndim - 1))
    return np.asarray(np.exp(below + share * (above - below)), dtype=float)


def at_tokens(seconds: Floats, tokens: Floats | float) -> Floats:
    """Seconds [P, G] of passes of ``tokens`` ([1, G], [P, G] or one number) by those at TOKENS, straight in logarithms: never falling where
    these do not."""
    x = np.clip(np.log2(np.atleast_2d(tokens)), 0.0, len(TOKENS) - 1.0)
    logs = np.log(np.maximum(seconds, 1e-15))
    if len(x) == 1:  # the same for all rows
        weights = np.maximum(1 - np.abs(x - np.arange(len(TOKENS))[:, None]), 0.0)  # [TOKENS, G]
        return np.asarray(np.exp(logs @ weights), dtype=float)
    low = np.minimum(x.astype(np.int64), len(TOKENS) - 2)
    below, above = np.take_along_axis(logs, low, 1), np.take_along_axis(logs, low + 1, 1)
    return np.asarray(np.exp(below + (x - low) * (above - below)), dtype=float)
