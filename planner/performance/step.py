"""Step times: how long one decode step takes at each concurrency, and what a prompt token and a request add.

A roofline with few fitted coefficients; never faster than bytes over bandwidth or FLOPs over peak, never shorter with more sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from planner.performance.coefficients import Coefficients
from planner.performance.lengths import LengthMix
from planner.performance.physics import Shapes, attention_context, kv_read, shapes
from planner.performance.replicas import Floats, Ints, Replicas

MAX_SEQUENCES = 1024
PREFILL_FLOOR = 0.7  # prompts run at up to this share of a peak in the fit, so a smaller factor would break the peak
CHUNK = 8192  # tokens per step that engines allow by default on data-centre GPUs (max_num_batched_tokens)
GRID: Floats = np.unique(np.round(np.concatenate((np.arange(1, 17), 16 * 2 ** (np.arange(1, 61) / 10))))).astype(float)


@dataclass(frozen=True)
class StepCurves:
    """Decode step and prompt cost of P replica types for one length mix and one size of step, on a common grid of sequences [G].

    With chunked prefill a step decodes all sequences and takes up to ``batched_tokens`` less their number of prompts. Without
    (``whole_prompt_s`` is given) each prompt has a step of its own, which adds these seconds to those of its tokens.
    """

    n: Floats
    step_s: Floats  # [P, G]
    prefill_s_per_token: Floats  # [P], averaged over all tokens of prompts, those found in the prefix cache included
    overhead_s: Floats  # [P], once per request
    floor_s: Floats  # [P, G], bytes over bandwidth: no measurement pulls a step below it
    batched_tokens: int = CHUNK  # max_num_batched_tokens
    whole_prompt_s: Floats | None = None  # [P]

    def __len__(self) -> int:
        return len(self.step_s)

    def prompt_s(self, tokens: Floats | float) -> Floats:
        """Engine time of prompts of these lengths [J], whatever else runs: [P, J]."""
        alone = 0.0 if self.whole_prompt_s is None else self.whole_prompt_s[:, None]
        found: Floats = alone + self.prefill_s_per_token[:, None] * tokens
        return found

    def take(self, index: Ints | NDArray[np.bool_] | slice) -> StepCurves:
        """The rows chosen by an index array, a mask or a slice."""
        whole = None if self.whole_prompt_s is None else self.whole_prompt_s[index]
        prompt, overhead = self.prefill_s_per_token[index], self.overhead_s[index]
        return StepCurves(self.n, self.step_s[index], prompt, overhead, self.floor_s[index], self.batched_tokens, whole)

    def above(self, others: Sequence[StepCurves]) -> StepCurves:
        """These rows, and below them those of others of the same kind: the same grid and size of step."""
        parts = (self, *others)
        step, prompt, overhead, floor = (np.concatenate([getattr(p, x) for p in parts]) for x in ("step_s", "prefill_s_per_token", "overhead_s", "floor_s"))
        whole = [p.whole_prompt_s for p in parts if p.whole_prompt_s is not None]
        return StepCurves(self.n, step, prompt, overhead, floor, self.batched_tokens, np.concatenate(whole) if whole else None)

    def scaled(self, factor: Floats) -> StepCurves:
        """Step and prompt cost times one factor per row [P]."""
        return self._with(np.maximum(self.step_s * factor[:, None], self.floor_s), np.maximum(factor, PREFILL_FLOOR))

    def pulled(self, step: Floats, prompt: Floats, mix: LengthMix, overhead: Floats | None = None) -> StepCurves:
        """The one place where measurements and confidence enter: the decode step and its share of other requests' prompts, which
        measured TPOT holds together, times factors by row and sequences [P, G]; the cost of prompts, and what a request takes besides,
        times factors per row [P].

        The step never falls with more sequences, nor below its floor.
        """
        prompts = np.maximum(prompt, PREFILL_FLOOR)
        others = self.prompt_s(mix.mean_input) / mix.mean_output * self.n
        found = self._with(np.maximum((self.step_s + others) * step - others * prompts[:, None], self.floor_s), prompts)
        return found if overhead is None else replace(found, overhead_s=found.overhead_s * overhead)

    def _with(self, step_s: Floats, prompts: Floats) -> StepCurves:
        whole = None if self.whole_prompt_s is None else self.whole_prompt_s * prompts
        rising = np.maximum.accumulate(step_s, axis=1)
        return replace(self, step_s=rising, prefill_s_per_token=self.prefill_s_per_token * prompts, whole_prompt_s=whole)


def step_curves(
    replicas: Replicas, mix: LengthMix, coefficients: Coefficients, grid: Floats = GRID, batched_tokens: int = CHUNK, chunked: bool = True
) -> StepCurves:
    """Curves of all replica types for one mix, at the sequences of ``grid``, for steps of up to ``batched_tokens`` tokens.

    A prompt token costs its share of a full chunk, as if that read the weights anew: smaller steps make prompts dearer, most of
    all for MoE. Without chunked prefill a prompt of mean length is such a chunk and pays the fixed overheads of its own step.

    Pipeline parallel: a token passes every stage, so the step is the sum over all layers, of a micro-batch of 1/pp of the
    sequences (engines keep pp micro-batches in flight). Each stage pays the fixed step overhead, and prompts are given no
    gain from pipelining at all, because their uneven chunks leave bubbles: conservative, and not checked against measurements.
    """
    shape, e = shapes(replicas), coefficients.rows(replicas)
    vendor, kv = coefficients.vendor_factor(replicas), kv_read(replicas, shape, mix)
    step = decode_step(shape, e, kv, grid[None, :]) * vendor
    tokens = batched_tokens if chunked else mix.mean_input * mix.computed
    prefill = mix.computed * prefill_step(shape, e, attention_context(replicas, mix), tokens) / tokens * vendor
    whole = None if chunked else ((layer_overhead(shape, e) + e["step_s"] * shape.pp[:, None]) * vendor)[:, 0]
    overhead = np.broadcast_to(e["request_s"][:, 0], len(replicas)).copy()
    return StepCurves(grid, step, prefill[:, 0], overhead, _floor(shape, kv, grid[None, :]), batched_tokens, whole)


def _floor(shape: Shapes, kv: Floats, sequences: Floats) -> Floats:
    """Seconds to read weights and KV cache at full bandwidth, [P, G]."""
    ideal = {name: np.ones((1, 1)) for name in ("weights", "experts")}
    batch = np.maximum(sequences / shape.pp[:, None], 1.0)
    return weight_time(shape, ideal, batch) + (kv / shape.bandwidth)[:, None] * batch


def decode_step(shape: Shapes, e: dict[str, Floats], kv: Floats, sequences: Floats) -> Floats:
    """Seconds of one decode step with ``sequences`` [., G] in flight; ``kv`` is bytes read per sequence [P]."""
    batch = np.maximum(sequences / shape.pp[:, None], 1.0)
    products = _soft_max(weight_time(shape, e, batch), decode_flops(shape, e) * batch)
    attention = (kv / shape.bandwidth)[:, None] * batch / e["kv"]
    overhead = layer_overhead(shape, e) + e["step_s"] * shape.pp[:, None] + e["sequence_s"] * batch
    return products + attention + all_reduce(shape, e, batch) + overhead


def prefill_step(shape: Shapes, e: dict[str, Floats], context: Floats, tokens: float | Floats) -> Floats:
    """Seconds [P, 1] that ``tokens`` prompt tokens add to a step, each attending to ``context`` [P] tokens of its prompt."""
    peak = shape.peak[:, None]
    flops = shape.dense_flops[:, None] / (peak * e["prefill_flops"]) + shape.expert_flops[:, None] / (peak * e["expert_flops"])
    attention = (shape.attention_flops * context / shape.peak_16)[:, None] / e["attention_flops"]
    products = _soft_max(weight_time(shape, e, tokens), flops * tokens)
    return products + attention * tokens + all_reduce(shape, e, tokens)


def weight_time(shape: Shapes, e: dict[str, Floats], tokens: float | Floats) -> Floats:
    """Seconds to read the weights that a pass of ``tokens`` touches: each expert with probability 1 - (1 - k/E)^tokens."""
    touched = -np.expm1(tokens * np.log1p(-np.minimum(shape.expert_share, 0.999999))[:, None])
    dense = (shape.dense_read / shape.bandwidth)[:, None] / e["weights"]
    return dense + (shape.expert_read / shape.bandwidth)[:, None] / e["experts"] * touched


def decode_flops(shape: Shapes, e: dict[str, Floats]) -> Floats:
    """Seconds of matrix products per decoded token."""
    return ((shape.dense_flops + shape.expert_flops) / shape.peak)[:, None] / e["decode_flops"]


def all_reduce(shape: Shapes, e: dict[str, Floats], tokens: float | Floats) -> Floats:
    """All-reduces of each layer (two; the volume of one with attention data parallel): a latency that grows with log2 TP, and
    2 bytes x hidden per token over the link."""
    tp = shape.tp[:, None]
    sent = 2 * (tp - 1) / tp * (2 * shape.hidden / shape.link)[:, None] * tokens / e["link"]
    return (shape.reductions * shape.layers)[:, None] * (e["all_reduce_s"] * np.log2(tp) + sent)


def layer_overhead(shape: Shapes, e: dict[str, Floats]) -> Floats:
    """Fixed seconds of all layers, more for MoE and sparse-attention ones."""
    moe, sparse = shape.moe_layers[:, None] * e["moe_layer_s"], shape.sparse_layers[:, None] * e["sparse_layer_s"]
    return shape.layers[:, None] * e["layer_s"] + moe + sparse


def _soft_max(a: Floats, b: Floats) -> Floats:
    """A smooth maximum, never below either: (a^3 + b^3)^(1/3)."""
    total: Floats = np.cbrt(a * a * a + b * b * b)
    return total
