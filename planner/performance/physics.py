"""What one GPU must store, read, compute and send for each replica type: bytes and FLOPs, no fitted numbers.

Memory fit, step times and the fit of the coefficients all start from these arrays, so they cannot disagree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.catalog.records import Architecture, Gpu
from planner.performance.kernels import INDEX
from planner.performance.lengths import LengthMix
from planner.performance.replicas import PRECISIONS, Floats, Replicas

# Bytes per weight as published checkpoints store them: (layers of a dense model, non-expert layers of an MoE, experts).
# 4-bit formats carry block scales (nvfp4 8 bits per 16 weights, mxfp4 8 per 32, int4 about the same) and, in MoE
# checkpoints, cover the experts only; nvfp4 ones keep the rest in 8 and 16 bits mixed, taken as 1 byte.
BYTES: dict[str, tuple[float, float, float]] = {
    "bf16": (2.0, 2.0, 2.0),
    "fp8": (1.0, 1.0, 1.0),
    "int8": (1.0, 1.0, 1.0),
    "nvfp4": (0.5625, 1.0, 0.5625),
    "mxfp4": (0.53125, 2.0, 0.53125),
    "int4": (0.53125, 2.0, 0.53125),
}
TABLE_BYTES = 2.0  # embedding and output head stay in 16 bits
TIED_SHARE = 0.08  # an embedding table larger than this share of all weights is taken to be shared with the output head
WRITTEN = (0.125, 0.375, 0.625, 0.875)  # how far answers are at some moment: evenly
TERA, GIGA = 1e12, 1e9


@dataclass(frozen=True)
class Shapes:
    """Per replica type [P]; bytes and FLOPs are per GPU of the TP group with all layers (PP is applied by the user of it)."""

    stored: Floats  # bytes of all weights
    dense_read: Floats  # bytes one pass reads whatever it computes
    expert_read: Floats  # bytes of all routed experts
    expert_share: Floats  # share of experts one token touches; 1 without experts
    dense_flops: Floats  # per token
    expert_flops: Floats  # per token
    attention_flops: Floats  # of prefill, per prompt token and token of prompt (full-attention layers)
    kv_heads_bytes: Floats  # KV bytes per token of context kept (full attention), of a sequence spread evenly over the GPUs
    sliding_bytes: Floats  # the same for sliding layers, per token inside the window
    index_bytes: Floats  # of sparse attention, per token of context: what it selects by
    state_bytes: Floats  # of linear layers, per sequence
    bandwidth: Floats  # bytes/s
    peak: Floats  # FLOP/s at the checkpoint's precision
    peak_16: Floats  # FLOP/s of BF16, for attention
    link: Floats  # bytes/s
    layers: Floats
    moe_layers: Floats
    sparse_context: Floats  # tokens that attention selects; 0 = all
    hidden: Floats
    tp: Floats
    pp: Floats
    reductions: Floats  # rounds of communication per layer


def shapes(replicas: Replicas) -> Shapes:
    """The shapes of all replica types."""
    tp, pp, dp = replicas.tp.astype(float), replicas.pp.astype(float), replicas.dp.astype(float)
    atp = tp / dp  # every attention group holds all that is no routed expert
    weight = np.array([[_weights(a, p) for p in PRECISIONS] for a in replicas.architectures])[replicas.architecture, replicas.precision]
    peak = np.array([[_peak(g, p) for p in PRECISIONS] for g in replicas.gpus])[replicas.gpu, replicas.precision]
    a, g = replicas.of_architecture, replicas.of_gpu
    return Shapes(
        stored=(weight[:, 0] - weight[:, 2]) / atp + weight[:, 2] / tp,
        dense_read=weight[:, 1] / atp,
        expert_read=weight[:, 2] / tp,
        expert_share=a(lambda x: x.experts_per_token / x.experts if x.experts else 1.0),
        dense_flops=a(lambda x: 2 * _dense_weights(x)) / tp,
        expert_flops=a(lambda x: 2 * x.expert_parameters * x.experts_per_token / max(x.experts, 1)) / tp,
        attention_flops=a(_attention_flops) / tp,
        kv_heads_bytes=replicas.kv_bytes * _kv_values(replicas, sliding=False),
        sliding_bytes=replicas.kv_bytes * _kv_values(replicas, sliding=True),
        index_bytes=a(lambda x: INDEX * x.full_attention_layers if x.is_indexed else 0.0) / dp,
        state_bytes=a(lambda x: x.linear_state_bytes) / tp,
        bandwidth=g(lambda x: x.bandwidth_gb_s) * GIGA,
        peak=peak,
        peak_16=g(lambda x: x.bf16_tflops) * TERA,
        link=g(lambda x: x.link_gb_s) * GIGA,
        layers=a(lambda x: x.layers),
        moe_layers=a(lambda x: x.moe_layers),
        sparse_context=a(lambda x: x.sparse_context),
        hidden=a(lambda x: x.hidden_size),
        tp=tp,
        pp=pp,
        # TP adds up after attention and after the MLP. Attention groups gather tokens before the experts and scatter them after:
        # together the volume of one all-reduce.
        reductions=np.where(dp > 1, 1.0, 2.0),
    )


def kv_per_sequence(replicas: Replicas, shape: Shapes, context: Floats, share: Floats | None = None) -> Floats:
    """KV bytes that sequences of these context lengths [J] keep per GPU of the TP group, all layers, state included: [P], mean over J (or by share)."""
    share = np.full(len(context), 1 / len(context)) if share is None else share
    window = np.array([share @ np.minimum(context, a.sliding_window or 0) for a in replicas.architectures])[replicas.architecture]
    found: Floats = shape.kv_heads_bytes * (share @ context) + shape.sliding_bytes * window + shape.state_bytes
    return found


def kv_held(replicas: Replicas, shape: Shapes, mix: LengthMix) -> tuple[Floats, Floats]:
    """The same of those that decode at some moment: mean, and standard deviation by what they have written, [P] each.

    Long answers are there for longer: E[o^2]/(2 E[o]) tokens are written in the mean, E[o^3]/(3 E[o]) in the mean of squares.
    """
    inputs, outputs = mix.input_tokens, mix.output_tokens
    if mix.law:  # independent
        inputs, outputs = np.repeat(inputs, len(outputs)), np.tile(outputs, len(inputs))
    written = np.array(WRITTEN)[:, None]
    share = np.broadcast_to(outputs / outputs.sum() / len(WRITTEN), (len(WRITTEN), len(outputs)))
    mean = kv_per_sequence(replicas, shape, (inputs + written * outputs).ravel(), share.ravel())
    o, o2, o3 = (mix.outputs.moment(k) for k in (1, 2, 3))
    return mean, shape.kv_heads_bytes * np.sqrt(o3 / (3 * o) - (o2 / (2 * o)) ** 2)


def kv_read(replicas: Replicas, shape: Shapes, mix: LengthMix) -> Floats:
    """KV bytes read per sequence and step at the mix's mean context in decoding (long answers decode longer): [P]."""
    context = mix.input_tokens + mix.output_tokens / 2
    share = mix.output_tokens / mix.output_tokens.sum()
    full = np.array([share @ (np.minimum(context, a.sparse_context) if a.sparse_context else context) for a in replicas.architectures])
    slide = np.array([share @ np.minimum(context, a.sliding_window) for a in replicas.architectures])
    # A linear layer's state is read and written back in every step, an indexer's keys are read for all tokens.
    kept = shape.kv_heads_bytes * full[replicas.architecture] + shape.sliding_bytes * slide[replicas.architecture]
    found: Floats = kept + shape.index_bytes * (share @ context) + 2 * shape.state_bytes
    return found


def selected_from(shape: Shapes, kv: Floats) -> Floats:
    """Tokens of context [P] of which sparse attention reads ``kv`` bytes [P]; without an indexer at most those that it selects."""
    each, indexed = shape.kv_heads_bytes + shape.index_bytes, shape.index_bytes > 0
    few = np.minimum(kv / np.maximum(each, 1e-9), shape.sparse_context)
    many = (kv - shape.kv_heads_bytes * shape.sparse_context) / np.where(indexed, shape.index_bytes, 1.0)
    found: Floats = np.where(indexed, np.maximum(few, many), few)
    return found


def attention_context(replicas: Replicas, mix: LengthMix) -> Floats:
    """Mean tokens a prefilled token attends to, scaled to full-attention layers: E[i^2]/E[i]/2, less for windows and sparse attention: [P].
    Where an indexer selects them, it looks at all.

    Tokens behind a cached prefix attend to all of it: (1 + cached)/2 of the prompt instead of half.
    """
    tokens, total = mix.input_tokens, mix.input_tokens.sum()
    return np.array([_attended(a, tokens, tokens * (1 + mix.cached) / 2, float(total)) for a in replicas.architectures])[replicas.architecture]


def _attended(a: Architecture, tokens: Floats, context: Floats, total: float) -> float:
    full = np.minimum(context, a.sparse_context) if a.sparse_context and not a.is_indexed else context
    slide = np.minimum(context, a.sliding_window)
    ratio = a.sliding_layers / max(a.full_attention_layers + a.sliding_layers, 1)
    return float(tokens @ (full * (1 - ratio) + slide * ratio) / total)


def _weights(a: Architecture, precision: str) -> tuple[float, float, float]:
    """(stored, read besides experts, all experts) in bytes, whole replica. The input embedding is looked up, not read."""
    dense, moe, expert = BYTES[precision]
    table, tables = _tables(a)
    other = max(a.parameters - a.expert_parameters - tables * table, 0.0) * (moe if a.experts else dense)
    experts = a.expert_parameters * expert
    return other + experts + tables * table * TABLE_BYTES, other + table * TABLE_BYTES, experts


def _tables(a: Architecture) -> tuple[float, int]:
    """(weights of one vocabulary table, how many the checkpoint holds)."""
    table = float(a.vocabulary * a.hidden_size)
    return table, 1 if table > TIED_SHARE * a.parameters else 2


def _dense_weights(a: Architecture) -> float:
    """Weights each token is multiplied with, without routed experts and the input embedding."""
    table, tables = _tables(a)
    return max(a.parameters - a.expert_parameters - (tables - 1) * table, table)


def _attention_flops(a: Architecture) -> float:
    """FLOPs of QK and PV per prompt token and attended token, over all attention layers."""
    value = a.v_head_dim or a.head_dim
    return 2.0 * a.attention_heads * (a.head_dim + value) * (a.full_attention_layers + a.sliding_layers)


def _kv_values(replicas: Replicas, sliding: bool) -> Floats:
    """KV numbers per token per GPU, all layers. Heads are split over an attention group until one is left; the MLA latent is copied to
    each of its GPUs. A sequence lives in one of dp groups, so that many together fill each GPU with 1/dp of their tokens."""
    group = replicas.tp // replicas.dp
    if not sliding:
        latent = replicas.of_architecture(lambda a: (a.kv_lora_rank + a.qk_rope_head_dim) * a.full_attention_layers if a.attention == "mla" else 0.0)
        per_head = replicas.of_architecture(lambda a: (a.head_dim + (a.v_head_dim or a.head_dim)) * a.full_attention_layers if a.attention == "gqa" else 0.0)
        heads = replicas.of_architecture(lambda a: a.kv_heads)
        return (latent + per_head * np.ceil(heads / group)) / replicas.dp
    per_head = replicas.of_architecture(lambda a: 2.0 * (a.sliding_head_dim or a.head_dim) * a.sliding_layers)
    heads = replicas.of_architecture(lambda a: a.sliding_kv_heads or a.kv_heads)
    return per_head * np.ceil(heads / group) / replicas.dp


def _peak(gpu: Gpu, precision: str) -> float:
    """FLOP/s of the matrix products. Weight-only formats, and formats the GPU has no units for, compute in BF16."""
    eight = gpu.fp8_tflops or gpu.bf16_tflops
    if precision == "fp8":
        return eight * TERA
    if precision == "int8":
        return (gpu.int8_tops or gpu.bf16_tflops) * TERA
    if precision == "nvfp4" and gpu.fp4_tflops:
        return float(np.sqrt(gpu.fp4_tflops * eight)) * TERA  # part of the layers stays in 8 bits
    if precision == "mxfp4" and gpu.fp4_tflops:
        return eight * TERA  # GPUs with units for FP4 multiply these weights with activations in MXFP8
    return gpu.bf16_tflops * TERA
