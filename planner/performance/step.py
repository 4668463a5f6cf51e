"""Step times: how long one decode step takes at each concurrency, and what a prompt token and a request add.

Measured times of kernels with few fitted coefficients; never faster than bytes over bandwidth or FLOPs over peak, never shorter with more sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from planner.performance.coefficients import Coefficients
from planner.performance.kernels import TOKENS, at_context, at_tokens, over_work
from planner.performance.lengths import LengthMix
from planner.performance.physics import Shapes, attention_context, kv_read, selected_from, shapes
from planner.performance.replicas import Floats, Ints, Replicas

MAX_SEQUENCES = 1024
PREFILL_FLOOR = 0.7  # prompts run at up to this share of a peak in the fit, so a smaller factor would break the peak
CHUNK = 8192  # tokens per step that engines allow by default on data-centre GPUs (max_num_batched_tokens)
PASSES = 5  # sizes of passes that stand for those of all prompts
PASS = 2048.0  # prompt tokens that share a step however short a prompt is: others' stand beside it (found on closed loops, out of fold)
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

    A prompt token costs its share of its prompt's ``prompt_pass``, as if that read the weights anew: short prompts and small steps are dearer,
    most of all for MoE. Without chunked prefill a prompt of mean length is such a chunk and pays the fixed overheads of its own step.

    Pipeline parallel: a token passes every stage, so the step is the sum over all layers, of a micro-batch of 1/pp of the
    sequences (engines keep pp micro-batches in flight). Each stage pays the fixed step overhead, and prompts are given no
    gain from pipelining at all, because their uneven chunks leave bubbles: conservative, and not checked against measurements.
    """
    shape, e = shapes(replicas), {**coefficients.rows(replicas), **coefficients.kernels(replicas)}
    vendor, kv = coefficients.vendor_factor(replicas), kv_read(replicas, shape, mix)
    floor = _floor(shape, kv, grid[None, :])
    step = np.maximum(np.maximum.accumulate(decode_step(shape, e, kv, grid[None, :]) * vendor, axis=1), floor)
    passes, share = prompt_passes(mix.input_tokens * mix.computed, batched_tokens) if chunked else (np.array([mix.mean_input * mix.computed]), np.ones(1))
    prefill = mix.computed * (prompt_token(shape, e, attention_context(replicas, mix), passes[None, :]) @ share)[:, None] * vendor
    whole = None if chunked else ((layer_overhead(shape, e) + e["step_s"] * shape.pp[:, None]) * vendor)[:, 0]
    overhead = np.broadcast_to(e["request_s"][:, 0], len(replicas)).copy()
    return StepCurves(grid, step, prefill[:, 0], overhead, floor, batched_tokens, whole)


def _floor(shape: Shapes, kv: Floats, sequences: Floats) -> Floats:
    """Seconds to read weights and KV cache at full bandwidth, [P, G]."""
    batch = np.maximum(sequences / shape.pp[:, None], 1.0)
    return reading(shape, batch) + (kv / shape.bandwidth)[:, None] * batch


def decode_step(shape: Shapes, e: dict[str, Floats], kv: Floats, sequences: Floats) -> Floats:
    """Seconds of one decode step with ``sequences`` [., G] in flight; ``kv`` is bytes read per sequence [P]."""
    busy = e["products"] * e["products_s"] + e["experts"] * e["experts_s"] + decode_attention(shape, e, kv, TOKENS[None, :])
    batch = np.maximum(sequences / shape.pp[:, None], 1.0)
    found = at_tokens(busy, batch if len(sequences) > 1 or (shape.pp > 1).any() else np.maximum(sequences, 1.0))
    overhead = layer_overhead(shape, e) + e["step_s"] * shape.pp[:, None] + e["sequence_s"] * batch
    return found + all_reduce(shape, e, batch) + overhead


def product_time(e: dict[str, Floats], batch: Floats) -> Floats:
    """The matrix products' seconds of it [P, G]."""
    return at_tokens(e["products"] * e["products_s"] + e["experts"] * e["experts_s"], batch)


def decode_attention(shape: Shapes, e: dict[str, Floats], kv: Floats, batch: Floats) -> Floats:
    """Seconds of all layers' attention for so many sequences [., G] that read ``kv`` bytes each [P]."""
    calls = e["calls"]
    found: Floats = calls * over_work(e["decode_ratio"], (kv / shape.bandwidth)[:, None] / calls * batch)
    sparse = np.flatnonzero(shape.sparse_context)
    if len(sparse):
        each = at_context(e["sparse_decode_s"][sparse], selected_from(shape, kv)[sparse])
        found[sparse] = calls[sparse] * at_tokens(each, np.broadcast_to(batch, found.shape)[sparse])
    return e["attention"] * found


def prompt_pass(tokens: float | Floats, most: float = CHUNK) -> Floats:
    """Prompt tokens of the pass that a prompt of ``tokens`` is charged a share of: its own, but at least ``PASS`` and at most a step's."""
    return np.clip(tokens, min(PASS, most), most)


def prompt_passes(tokens: Floats, most: float) -> tuple[Floats, Floats]:
    """Sizes [K] of the passes that prompts of these lengths are charged shares of, and the share of all tokens [K] in each. Every prompt counts as
    its own, so that traffic costs no less with more prompts in it; many sizes are shared out among PASSES of them, straight in logarithms."""
    whole = prompt_pass(tokens, most)
    sizes, place = np.unique(whole, return_inverse=True)
    if len(sizes) <= PASSES:
        return sizes, np.bincount(place, weights=tokens) / tokens.sum()
    sizes = np.geomspace(sizes[0], sizes[-1], PASSES)
    at = np.interp(np.log(whole), np.log(sizes), np.arange(PASSES))
    low = np.minimum(at.astype(np.int64), PASSES - 2)
    share = np.bincount(low, (low + 1 - at) * tokens, PASSES) + np.bincount(low + 1, (at - low) * tokens, PASSES)
    return sizes, share / tokens.sum()


def prompt_token(shape: Shapes, e: dict[str, Floats], context: Floats, tokens: float | Floats) -> Floats:
    """Seconds [P, 1], or [P, K], of one prompt token in passes of ``tokens``, a number or [P, 1], or [1, K]."""
    return prefill_step(shape, e, context, tokens) / tokens


def prefill_step(shape: Shapes, e: dict[str, Floats], context: Floats, tokens: float | Floats) -> Floats:
    """Seconds [P, 1], or [P, K], that ``tokens`` prompt tokens, a number or [P, 1] or [1, K], add to a step, each attending to ``context`` [P] tokens
    of its prompt."""
    work = (shape.attention_flops * context / shape.peak_16)[:, None] * tokens / e["attending"]
    attention = over_work(e["prompt_ratio"], work)
    sparse = np.flatnonzero(shape.index_bytes)
    if len(sparse):
        attention[sparse] = at_context(e["sparse_prompt_s"][sparse], context[sparse])[:, None] * np.broadcast_to(tokens, attention.shape)[sparse]
    attention = e["prompt_attention"] * e["attending"] * attention
    products = at_tokens(e["prompt_products"] * e["products_s"] + e["prompt_experts"] * e["experts_s"], tokens)
    return np.maximum(products, computing(shape) * tokens) + attention + all_reduce(shape, e, tokens)


def reading(shape: Shapes, tokens: float | Floats) -> Floats:
    """Seconds to read the weights that a pass of ``tokens`` touches at full bandwidth: each expert with probability 1 - (1 - k/E)^tokens."""
    touched = -np.expm1(tokens * np.log1p(-np.minimum(shape.expert_share, 0.999999))[:, None])
    found: Floats = (shape.dense_read / shape.bandwidth)[:, None] + (shape.expert_read / shape.bandwidth)[:, None] * touched
    return found


def computing(shape: Shapes) -> Floats:
    """Seconds of matrix products per decoded token at the full peak, [P, 1]."""
    found: Floats = ((shape.dense_flops + shape.expert_flops) / shape.peak)[:, None]
    return found


def all_reduce(shape: Shapes, e: dict[str, Floats], tokens: float | Floats) -> Floats:
    """All-reduces of each layer (two; the volume of one with attention data parallel): a latency that grows with log2 TP, and
    2 bytes x hidden per token over the link."""
    tp = shape.tp[:, None]
    sent = 2 * (tp - 1) / tp * (2 * shape.hidden / shape.link)[:, None] * tokens / e["link"]
    return (shape.reductions * shape.layers)[:, None] * (e["all_reduce_s"] * np.log2(tp) + sent)


def layer_overhead(shape: Shapes, e: dict[str, Floats]) -> Floats:
    """Fixed seconds of all layers, more for MoE ones."""
    return shape.layers[:, None] * e["layer_s"] + shape.moe_layers[:, None] * e["moe_layer_s"]
