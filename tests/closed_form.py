"""Step times by closed forms with constant efficiencies, as they were before times of kernels, and pools relieved by square roots: what plans of
version 1 were made with."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import pytest
from numpy.typing import NDArray

from planner.performance import capacity, loop, step
from planner.performance.capacity import Limit
from planner.performance.chain import Chain, Interpolation, Rows
from planner.performance.coefficients import Coefficients
from planner.performance.physics import Shapes
from planner.performance.replicas import Floats, Replicas

WEIGHTS, EXPERTS, KV = 0.83621, 0.79766, 0.94245
DECODE, PREFILL, EXPERT, ATTENTION = 0.22999, 0.7, 0.18903, 0.21599


def both(a: Floats, b: Floats) -> Floats:
    return np.cbrt(a**3 + b**3)


def reading(shape: Shapes, tokens: Floats | float) -> Floats:
    touched = -np.expm1(tokens * np.log1p(-np.minimum(shape.expert_share, 0.999999))[:, None])
    return (shape.dense_read / shape.bandwidth)[:, None] / WEIGHTS + (shape.expert_read / shape.bandwidth)[:, None] / EXPERTS * touched


def decode_step(shape: Shapes, e: dict[str, Floats], kv: Floats, sequences: Floats) -> Floats:
    batch = np.maximum(sequences / shape.pp[:, None], 1.0)
    products = both(reading(shape, batch), ((shape.dense_flops + shape.expert_flops) / shape.peak)[:, None] / DECODE * batch)
    overhead = step.layer_overhead(shape, e) + e["step_s"] * shape.pp[:, None] + e["sequence_s"] * batch
    return products + (kv / shape.bandwidth)[:, None] * batch / KV + step.all_reduce(shape, e, batch) + overhead


def prefill_step(shape: Shapes, e: dict[str, Floats], context: Floats, tokens: float | Floats) -> Floats:
    peak = shape.peak[:, None]
    flops = shape.dense_flops[:, None] / (peak * PREFILL) + shape.expert_flops[:, None] / (peak * EXPERT)
    attention = (shape.attention_flops * context / shape.peak_16)[:, None] / ATTENTION
    return both(reading(shape, tokens), flops * tokens) + attention * tokens + step.all_reduce(shape, e, tokens)


def prompt_token(shape: Shapes, e: dict[str, Floats], context: Floats, tokens: float | Floats) -> Floats:
    return np.broadcast_to(prefill_step(shape, e, context, float(step.CHUNK)) / step.CHUNK, (len(shape.peak), np.shape(tokens)[-1] if np.ndim(tokens) else 1))


def nothing(coefficients: Coefficients, replicas: Replicas) -> dict[str, Floats]:
    return {}


def pooled_qps(capacity_qps: Floats, qps_saturated: Floats, replicas_count: NDArray[np.int64] | int) -> Floats:
    found: Floats = qps_saturated - (qps_saturated - capacity_qps) / np.sqrt(np.minimum(np.maximum(replicas_count, 1), 8))
    return found


def saturated(queue: Chain, limits: Sequence[Limit], counts: Sequence[NDArray[np.bool_]]) -> Rows:
    n, tpot, allowed = queue.n, queue.tpot, queue.n <= queue.slots
    busy = np.clip(queue.rates * queue.work / 0.3 - 1, 0.0, 1.0)
    for limit, here in zip(limits, counts, strict=True):
        if limit.metric == "tpot":
            noise = 0.5 * busy * NormalDist().inv_cdf(limit.percentile / 100) * np.sqrt(n * queue.work_m2) / queue.mix.mean_output
            allowed = allowed & (~here | (tpot + noise <= limit.limit_s))
        if limit.metric == "e2e":
            allowed = allowed & (~here | (tpot * limit.share * float(np.quantile(queue.mix.output_tokens, limit.percentile / 100)) <= limit.limit_s))
    most = n[0][np.maximum(allowed.sum(axis=1) - 1, 0)][:, None]
    return Interpolation(n[0], most)(queue.rates)


def put_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (step, loop):
        monkeypatch.setattr(module, "decode_step", decode_step)
        monkeypatch.setattr(module, "prompt_token", prompt_token)
    monkeypatch.setattr(Coefficients, "kernels", nothing)
    monkeypatch.setattr(capacity, "_saturated", saturated)
    for name, module in list(sys.modules.items()):
        if name.startswith("planner.") and hasattr(module, "pooled_qps"):
            monkeypatch.setattr(module, "pooled_qps", pooled_qps)
