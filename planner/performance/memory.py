"""Memory fit: weights, activations, reserve and KV cache of each replica type on one of its GPUs.

Gives the largest concurrency with room for whole requests; zero means the replica type does not fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.catalog.records import GIB, Architecture
from planner.performance.lengths import LengthMix
from planner.performance.physics import kv_held, kv_per_sequence, shapes
from planner.performance.replicas import Floats, Ints, Replicas
from planner.performance.speculation import draft_share

# github:ai-dynamo/aiconfigurator@095f58a5 (Apache-2.0), aic-core backends and systems/*.yaml: peak activations are
# 2 bytes x tokens x hidden x factor, the factor by TP (1, 2, 4, 8) and doubled for MoE. The highest (SGLang) of its
# factors are used for every engine; NCCL buffers and the runtime's own memory are its observations too.
ACTIVATION_FACTOR = (14.0, 8.5, 6.5, 6.5)
NCCL_GIB = (0.0, 358612992 / GIB, 411041792 / GIB, 411041792 / GIB)
RUNTIME_GIB = 3.5
RUNTIME_SHARE = 0.05  # assumption: small GPUs (below 70 GiB) are run with a runtime and CUDA graphs cut down to this share

ADAPTER_BYTES = 2.0  # adapters are kept in 16 bits
NONE = (0, 1)  # no adapters
SPREADS = 2.0  # standard deviations of what all answers hold that find room beside the mean: without them they are preempted, which costs their prompts again


@dataclass(frozen=True)
class Memory:
    """GiB per GPU [P]. ``kv_gib_per_sequence`` is one whole request (mean over the mix), ``slots`` the requests that fit at once."""

    weights: Floats
    activations: Floats
    reserve: Floats
    limit: Floats
    kv_budget_gib: Floats
    kv_gib_per_sequence: Floats
    slots: Ints


def memory_fit(
    replicas: Replicas,
    mix: LengthMix,
    gpu_memory_utilization: float = 0.92,
    max_num_batched_tokens: int = 8192,
    adapters: tuple[int, int] = NONE,
) -> Memory:
    """What fits within ``gpu_memory_utilization`` of the GPU.

    ``slots``: whole requests of mean length, and no more than leave answers room to grow (long ones are there for longest). 0 too where the
    longest request of the mix finds no room.

    adapters: how many LoRA adapters of which rank are kept beside the weights, whole on every GPU (of a stage of the pipeline).

    Of a disaggregated unit it is one engine: all are alike. A layer that drafts adds its share of weights and KV cache.
    """
    shape, more = shapes(replicas), 1 + draft_share(replicas) * replicas.draft
    whole = mix.input_tokens + mix.output_tokens
    size = np.clip(np.ceil(np.log2(np.maximum(replicas.tp // replicas.dp, 1))).astype(int), 0, 3)
    moe = replicas.of_architecture(lambda a: 2.0 if a.experts else 1.0)
    activations = 2.0 * max_num_batched_tokens * shape.hidden * np.array(ACTIVATION_FACTOR)[size] * moe / GIB
    gpu_memory = replicas.of_gpu(lambda g: g.memory_gib)
    reserve = np.minimum(RUNTIME_GIB, RUNTIME_SHARE * gpu_memory) + np.array(NCCL_GIB)[np.clip(np.ceil(np.log2(np.maximum(replicas.tp, 1))).astype(int), 0, 3)]
    held = adapters[0] * replicas.of_architecture(lambda a: adapter_bytes(a, adapters[1])) if adapters[0] else 0.0
    weights = (shape.stored * more + held) / shape.pp / GIB
    limit = gpu_memory_utilization * gpu_memory
    budget = limit - weights - activations - reserve
    scale, room = more / shape.pp / GIB, np.maximum(budget, 0)
    per_sequence = kv_per_sequence(replicas, shape, whole) * scale
    mean, spread = (found * scale for found in kv_held(replicas, shape, mix))
    longest = kv_per_sequence(replicas, shape, np.array([whole.max()])) * scale * replicas.dp  # on one group
    most = np.minimum(room / per_sequence, np.maximum(_most(room, mean, spread), 1.0))
    slots = np.where((budget > 0) & (longest <= budget), np.floor(most), 0).astype(np.int64)
    return Memory(weights, activations, reserve, limit, budget, per_sequence, slots)


def adapter_bytes(architecture: Architecture, rank: int) -> float:
    """Bytes of one LoRA adapter on all projections of attention (Q, K, V, O) and of dense MLPs (gate, up, down): 16 bits x rank x (in + out) each.

    arXiv 2106.09685: a matrix of in x out becomes two, in x rank and rank x out. Routed experts have none.
    """
    a = architecture
    values, hidden = a.v_head_dim or a.head_dim, a.hidden_size
    full = _attention_sides(a, a.kv_heads, a.head_dim, values)
    slide = _attention_sides(a, a.sliding_kv_heads or a.kv_heads, a.sliding_head_dim or a.head_dim, a.sliding_head_dim or values)
    attention = full * (a.full_attention_layers + a.linear_layers) + slide * a.sliding_layers
    mlp = 3 * (hidden + a.intermediate_size) * (a.layers - a.moe_layers) if a.intermediate_size else 0
    shared = 3 * (hidden + a.shared_experts * a.expert_intermediate_size) * a.moe_layers if a.shared_experts else 0
    return ADAPTER_BYTES * rank * float(attention + mlp + shared)


def _attention_sides(a: Architecture, kv_heads: int, keys: int, values: int) -> int:
    """Inputs and outputs of the four projections of one layer; of MLA, whose keys and values come out of a latent, as many as plain heads would have."""
    heads = a.attention_heads if a.attention == "mla" else kv_heads
    return 4 * a.hidden_size + a.attention_heads * (keys + values) + heads * (keys + values)


def _most(room: Floats, mean: Floats, spread: Floats) -> Floats:
    """The n [P] of which n mean + SPREADS sqrt(n) spread fills the room."""
    half = SPREADS * spread / 2
    found: Floats = ((np.sqrt(half * half + mean * room) - half) / mean) ** 2
    return found
