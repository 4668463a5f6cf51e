"""Whole steps for kernels.py: a decode step and a prompt of the shape of Llama-3.1-8B, with random weights, as one CUDA graph each.

No engine: no scheduler, no sampling but an argmax, no paging of the cache. What an engine takes beyond this is software.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from kernel_clock import Clock, Record
from kernel_families import HEAD, KV_HEADS, backend, normal, small

MODEL = "Llama-3.1-8B"
LAYERS, HIDDEN, HEADS, WIDTH, VOCABULARY = 32, 4096, 32, 14336, 128256
CONTEXTS, BATCHES, PROMPTS = (1024, 2048, 4096), (1, 2, 4, 8, 16, 32, 64, 128, 256, 512), (512, 2048, 8192)


@dataclass(frozen=True)
class Weights:
    """Of all layers [layer], and what stands around them."""

    qkv: list[Any]
    out: list[Any]
    gate_up: list[Any]
    down: list[Any]
    norms: Any
    table: Any
    head: Any


@dataclass(frozen=True)
class Fused:
    """The small work between products, one kernel each where the compiler runs."""

    add_norm: Callable[..., Any]
    rope: Callable[..., Any]
    gate: Callable[..., Any]
    how: str


def steps(clock: Clock, record: Record) -> None:
    """Decode steps by batch and context, then prompts."""
    torch = clock.torch
    hidden, width, vocabulary, layers = small(clock, HIDDEN), small(clock, WIDTH), small(clock, VOCABULARY), 2 if clock.tiny else LAYERS
    heads, scale = HEADS, 0.02
    rows = (heads + 2 * KV_HEADS) * HEAD

    def matrices(n: int, k: int) -> list[Any]:
        return [normal(clock, n, k) * scale for _ in range(layers)]

    weights = Weights(
        qkv=matrices(rows, hidden), out=matrices(hidden, heads * HEAD), gate_up=matrices(2 * width, hidden), down=matrices(hidden, width),
        norms=torch.ones(2 * layers + 1, hidden, device=clock.device, dtype=torch.bfloat16),
        table=normal(clock, vocabulary, hidden), head=normal(clock, vocabulary, hidden) * scale,
    )  # fmt: skip
    fused = fused_parts(clock, record, hidden, width)
    record.family["between_products"] = fused.how
    _prompts(clock, record, weights, fused)
    _decoding(clock, record, weights, fused)


def fused_parts(clock: Clock, record: Record, hidden: int, width: int) -> Fused:
    """Compiled where that works, else as PyTorch has them: several kernels more per layer."""
    torch = clock.torch
    functional = torch.nn.functional

    def add_norm(x: Any, more: Any, weight: Any) -> tuple[Any, Any]:
        x = x + more
        return x, functional.rms_norm(x, (x.shape[-1],), weight, 1e-5)

    def rope(x: Any, cosine: Any, sine: Any) -> Any:
        return x * cosine + x.roll(HEAD // 2, -1) * sine

    def gate(x: Any) -> Any:
        a, b = x.chunk(2, dim=-1)
        return functional.silu(a) * b

    plain = Fused(add_norm, rope, gate, "eager")
    if not clock.gpu:
        return plain
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    try:
        compiled = Fused(*(torch.compile(f, dynamic=True) for f in (add_norm, rope, gate)), "compiled")
        for batch in (4, 1):
            x, w = normal(clock, batch, hidden), torch.ones(hidden, device=clock.device, dtype=torch.bfloat16)
            got, expected = compiled.add_norm(x, x, w)[1], add_norm(x, x, w)[1]
            if not torch.allclose(got.float(), expected.float(), atol=0.1, rtol=0.05):
                raise ValueError("the compiled norm differs")
            angle = torch.rand(1, 1, HEAD, device=clock.device, dtype=torch.bfloat16)
            compiled.rope(normal(clock, batch, HEADS + KV_HEADS, HEAD), angle, angle)
            compiled.gate(normal(clock, batch, 2 * width))
    except Exception as error:
        record.failed("compiling what lies between products", error)
        return plain
    return compiled


def forward(clock: Clock, w: Weights, fused: Fused, tokens: Any, angles: tuple[Any, Any], attend: Callable[..., Any], last: bool) -> Any:
    """The next token of each sequence: tokens [T] -> argmax over the vocabulary, of the last token only if ``last``.

    attend(layer, query [T, heads, HEAD], key and value [T, KV heads, HEAD]) -> [T, heads * HEAD].
    """
    torch = clock.torch
    x = w.table[tokens]
    normed = torch.nn.functional.rms_norm(x, (x.shape[-1],), w.norms[-1], 1e-5)
    for layer in range(len(w.qkv)):
        qkv = torch.mm(normed, w.qkv[layer].t()).view(len(tokens), HEADS + 2 * KV_HEADS, HEAD)
        turned = fused.rope(qkv[:, : HEADS + KV_HEADS], *angles)
        seen = attend(layer, turned[:, :HEADS], turned[:, HEADS:], qkv[:, HEADS + KV_HEADS :])
        x, normed = fused.add_norm(x, torch.mm(seen, w.out[layer].t()), w.norms[2 * layer])
        x, normed = fused.add_norm(x, torch.mm(fused.gate(torch.mm(normed, w.gate_up[layer].t())), w.down[layer].t()), w.norms[2 * layer + 1])
    return torch.mm(normed[-1:] if last else normed, w.head.t()).argmax(-1)


def _angles(clock: Clock, positions: Any) -> tuple[Any, Any]:
    torch = clock.torch
    angle = positions[:, None, None] * 500000.0 ** -(torch.arange(HEAD // 2, device=clock.device) / (HEAD // 2))
    sine = torch.cat((-angle.sin(), angle.sin()), -1)
    return torch.cat((angle.cos(), angle.cos()), -1).to(torch.bfloat16), sine.to(torch.bfloat16)


def _decoding(clock: Clock, record: Record, w: Weights, fused: Fused) -> None:
    torch, layers = clock.torch, len(w.qkv)
    room = min(int(clock.free_bytes() * 0.85) - (4 << 30), 72 << 30) // 2 if clock.gpu else 1 << 24
    pool = torch.empty(room, dtype=torch.bfloat16, device=clock.device)
    for part in pool.split(1 << 28):
        part.normal_()
    vocabulary = w.table.shape[0]
    for batch in BATCHES[:3] if clock.tiny else BATCHES:
        for context in (64,) if clock.tiny else CONTEXTS:
            size = layers * 2 * batch * KV_HEADS * context * HEAD
            if size > room:
                continue
            record.check_time()
            cache = pool[:size].view(layers, 2, batch, KV_HEADS, context, HEAD)
            tokens = torch.randint(0, vocabulary, (batch,), device=clock.device)
            angles = _angles(clock, torch.full((batch,), context - 1, device=clock.device))
            ways = {n: [_decode(clock, w, fused, tokens, angles, cache, n)] for n in (("flash", "cudnn", "efficient") if clock.gpu else ("any",))}
            best = clock.best(ways, record, f"decode, batch {batch}, context {context}")
            if best:
                how, s, every = best
                record.add(what="decode", model=MODEL, precision="bf16", layers=layers, batch=batch, context=context, us=round(s * 1e6, 2), how=how, ways=every)


def _decode(clock: Clock, w: Weights, fused: Fused, tokens: Any, angles: tuple[Any, Any], cache: Any, name: str) -> Callable[[], Any]:
    attend_to = clock.torch.nn.functional.scaled_dot_product_attention
    batch = len(tokens)

    def attend(layer: int, query: Any, key: Any, value: Any) -> Any:
        keys, values = cache[layer, 0], cache[layer, 1]
        keys[:, :, -1].copy_(key)
        values[:, :, -1].copy_(value)
        # the queries of a KV head are rows of one query: all of them see the whole context
        packed = query.reshape(batch, KV_HEADS, HEADS // KV_HEADS, HEAD)
        with backend(name) if clock.gpu else nullcontext():
            return attend_to(packed, keys, values).reshape(batch, HEADS * HEAD)

    return lambda: forward(clock, w, fused, tokens, angles, attend, last=False)


def _prompts(clock: Clock, record: Record, w: Weights, fused: Fused) -> None:
    torch = clock.torch
    for count in (32,) if clock.tiny else PROMPTS:
        record.check_time()
        tokens = torch.randint(0, w.table.shape[0], (count,), device=clock.device)
        angles = _angles(clock, torch.arange(count, device=clock.device))
        ways = {n: [_prompt(clock, w, fused, tokens, angles, n)] for n in (("flash", "cudnn") if clock.gpu else ("any",))}
        best = clock.best(ways, record, f"prompt of {count}")
        if best:
            how, s, every = best
            record.add(what="prompt", model=MODEL, precision="bf16", layers=len(w.qkv), tokens=count, us=round(s * 1e6, 2), how=how, ways=every)


def _prompt(clock: Clock, w: Weights, fused: Fused, tokens: Any, angles: tuple[Any, Any], name: str) -> Callable[[], Any]:
    attend_to = clock.torch.nn.functional.scaled_dot_product_attention

    def attend(_layer: int, query: Any, key: Any, value: Any) -> Any:
        q, k, v = (t.transpose(0, 1)[None] for t in (query, key, value))
        with backend(name) if clock.gpu else nullcontext():
            return attend_to(q, k, v, is_causal=True, enable_gqa=True)[0].transpose(0, 1).reshape(len(tokens), HEADS * HEAD)

    return lambda: forward(clock, w, fused, tokens, angles, attend, last=True)
