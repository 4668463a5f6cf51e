"""What kernels.py measures: matrix products, products of experts, attention, copies and launches, each as rows of a record.

Operands are random, since zeros draw less power and run faster; weights and caches rotate over copies that no L2 holds.
Times are of the kernels alone: the quantisation of activations, and the sorting of tokens by expert, are not in them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kernel_clock import Call, Clock, Record

TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
# model -> product -> (inputs K, outputs N) of a layer on one GPU; QKV and gate/up are one product each, as engines have it
DENSE = {
    "Llama-3.1-8B": {"qkv": (4096, 6144), "out": (4096, 4096), "gate_up": (4096, 28672), "down": (14336, 4096)},
    "Llama-3.1-70B": {"qkv": (8192, 10240), "out": (8192, 8192), "gate_up": (8192, 57344), "down": (28672, 8192)},
    "Qwen3-32B": {"qkv": (5120, 10240), "out": (8192, 5120), "gate_up": (5120, 51200), "down": (25600, 5120)},
    "gpt-oss-120b": {"qkv": (2880, 5120), "out": (4096, 2880)},
}
# model -> (hidden size, width of an expert on one GPU, experts, experts per token, tensor parallel)
EXPERTS = {
    "Qwen3-30B-A3B": (2048, 768, 128, 8, 1),
    "gpt-oss-120b": (2880, 2880, 128, 4, 1),
    "Qwen3-235B-A22B": (4096, 384, 128, 8, 4),
    "DeepSeek-V3": (7168, 256, 256, 8, 8),
}
EXPERT_TOKENS = (1, 4, 16, 64, 256, 1024, 4096)
SKEW = 1.2  # exponent of the power law of the experts' popularity
KV_HEADS, HEAD = 8, 128
BACKENDS = {"flash": "FLASH_ATTENTION", "cudnn": "CUDNN_ATTENTION", "efficient": "EFFICIENT_ATTENTION"}


def small(clock: Clock, size: int) -> int:
    """A dimension, sixteen times smaller in trials."""
    return max(16, size // 16 // 16 * 16) if clock.tiny else size


def normal(clock: Clock, *shape: int, dtype: Any = None) -> Any:
    """Random numbers of a standard deviation of 1 or, for products, near what weights have after scaling."""
    torch = clock.torch
    return torch.randn(shape, device=clock.device, dtype=torch.bfloat16).to(dtype or torch.bfloat16)


# ---- dense products


def dense(clock: Clock, record: Record) -> None:
    """y = x W of real layers, in BF16 and FP8, by tokens."""
    for model, products in DENSE.items():
        for product, (k, n) in products.items():
            for precision in clock.precisions:
                _dense_product(clock, record, (model, product, precision), small(clock, k), small(clock, n))
                clock.tidy()


def _dense_product(clock: Clock, record: Record, name: tuple[str, str, str], k: int, n: int) -> None:
    torch, (model, product, precision) = clock.torch, name
    size = k * n * (2 if precision == "bf16" else 1)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float8_e4m3fn
    weights = [normal(clock, n, k, dtype=dtype) for _ in range(clock.copies(size))]
    for tokens in TOKENS[:: 5 if clock.tiny else 1]:
        record.check_time()
        ways = _bf16_ways(clock, weights, tokens, k) if precision == "bf16" else _fp8_ways(clock, weights, tokens, k, n)
        best = clock.best(ways, record, f"{model} {product} {precision} {tokens}")
        if best:
            how, s, every = best
            record.add(
                model=model, product=product, k=k, n=n, precision=precision, tokens=tokens, us=round(s * 1e6, 3), how=how, ways=every,
                tflops=round(2 * tokens * k * n / s / 1e12, 2), weights_gb_s=round(size / s / 1e9, 1),
            )  # fmt: skip


def _bf16_ways(clock: Clock, weights: list[Any], tokens: int, k: int) -> dict[str, list[Call]]:
    x = normal(clock, tokens, k)
    return {"mm": [lambda w=w: clock.torch.mm(x, w.t()) for w in weights]}


def _fp8_ways(clock: Clock, weights: list[Any], tokens: int, k: int, n: int) -> dict[str, list[Call]]:
    """With one scale for all, with a scale per row, and with few rows padded to 32, which cuBLAS often prefers."""
    torch = clock.torch

    def product(rows: int, per_row: bool) -> list[Call]:
        x = normal(clock, rows, k, dtype=torch.float8_e4m3fn)
        a, b = (torch.full(s, 0.5, device=clock.device) for s in (((rows, 1), (1, n)) if per_row else ((), ())))
        return [lambda w=w: torch._scaled_mm(x, w.t(), scale_a=a, scale_b=b, out_dtype=torch.bfloat16, use_fast_accum=True) for w in weights]

    ways = {"tensorwise": product(tokens, False), "rowwise": product(tokens, True)}
    if tokens < 32:
        ways |= {"tensorwise, 32 rows": product(32, False), "rowwise, 32 rows": product(32, True)}
    return ways


# ---- products of experts


def experts(clock: Clock, record: Record) -> None:
    """The two products of routed experts, tokens sorted by expert, in BF16 and FP8."""
    for model, (hidden, width, count, chosen, tp) in EXPERTS.items():
        for precision in clock.precisions:
            about = {"model": model, "tp": tp, "experts": count, "chosen": chosen, "hidden": small(clock, hidden), "width": small(clock, width)}
            try:
                _expert_model(clock, record, about, precision)
            except clock.torch.OutOfMemoryError as error:
                record.failed(f"{model} {precision}", error)
            clock.tidy()


def _expert_model(clock: Clock, record: Record, about: dict[str, Any], precision: str) -> None:
    torch, hidden, width, count = clock.torch, about["hidden"], about["width"], about["experts"]
    dtype = torch.bfloat16 if precision == "bf16" else torch.float8_e4m3fn
    up, down = (torch.empty(count, *shape, device=clock.device, dtype=dtype) for shape in ((2 * width, hidden), (hidden, width)))
    for one in (*up, *down):
        one.copy_(normal(clock, *one.shape))
    for tokens in EXPERT_TOKENS[:: 3 if clock.tiny else 1]:
        for routing in ("balanced", "skewed"):
            record.check_time()
            draws = [routed(clock, tokens, count, about["chosen"], routing == "skewed", seed) for seed in range(4)]
            what = f"{about['model']} {precision} {tokens} {routing}"
            parts = [clock.best(_grouped_ways(clock, w, draws, tokens * about["chosen"], precision), record, what) for w in (up, down)]
            if None in parts:
                continue
            s = sum(p[1] for p in parts if p)
            touched = sum(int((d > 0).sum()) for d in draws) / len(draws)
            flops, size = 6.0 * tokens * about["chosen"] * hidden * width, touched * 3 * hidden * width * (2 if precision == "bf16" else 1)
            record.add(
                **about, precision=precision, tokens=tokens, routing=routing, us=round(s * 1e6, 3), parts_us=[round(p[1] * 1e6, 3) for p in parts if p],
                how=[p[0] for p in parts if p], touched=touched, tflops=round(flops / s / 1e12, 2), weights_gb_s=round(size / s / 1e9, 1),
            )  # fmt: skip


def routed(clock: Clock, tokens: int, count: int, chosen: int, skewed: bool, seed: int) -> Any:
    """Tokens of each expert [count]: every token takes ``chosen`` different ones, by popularity (Gumbel top-k)."""
    torch = clock.torch
    generator = torch.Generator().manual_seed(seed)
    popularity = torch.ones(count)
    if skewed:  # inverse of the power law's distribution between 1 and 0.8 of the tokens
        power, most = 1 - SKEW, max(2.0, 0.8 * tokens)
        popularity = ((most**power - 1) * torch.rand(count, generator=generator) + 1) ** (1 / power)
    noise = -torch.log(-torch.log(torch.rand(tokens, count, generator=generator).clamp(1e-9, 1 - 1e-7)))
    taken = (popularity.log() + noise).topk(chosen, dim=1).indices
    return torch.bincount(taken.reshape(-1), minlength=count)


def _grouped_ways(clock: Clock, weights: Any, draws: list[Any], rows: int, precision: str) -> dict[str, list[Call]]:
    torch, w = clock.torch, weights.transpose(-2, -1)
    ends = [d.cumsum(0).to(device=clock.device, dtype=torch.int32) for d in draws]
    if precision == "bf16":
        x = normal(clock, rows, w.shape[1])
        return {"grouped_mm": [lambda e=e: torch._grouped_mm(x, w, offs=e) for e in ends]}
    x = normal(clock, rows, w.shape[1], dtype=torch.float8_e4m3fn)
    a, b = torch.full((rows,), 0.5, device=clock.device), torch.full((w.shape[0], w.shape[2]), 0.5, device=clock.device)

    def scaled(e: Any) -> Any:
        return torch._scaled_grouped_mm(x, w, a, b, offs=e, out_dtype=torch.bfloat16, use_fast_accum=True)

    return {"scaled_grouped_mm": [lambda e=e: scaled(e) for e in ends]}


# ---- attention


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Restricts attention to one of PyTorch's kernels; "any" leaves it the choice."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    if name == "any":
        yield
        return
    with sdpa_kernel(getattr(SDPBackend, BACKENDS[name])):
        yield


def decode_ways(clock: Clock, query: Any, caches: list[tuple[Any, Any]]) -> dict[str, list[Call]]:
    """Attention of one new token per sequence: query [B, heads, HEAD], caches of [B, KV heads, context, HEAD].

    "grouped" leaves it to the kernel that heads share a KV head; "packed" gives a KV head's queries as rows of one query, which is the
    same sum, as all of them see the whole context.
    """
    attend = clock.torch.nn.functional.scaled_dot_product_attention
    batch, heads, _ = query.shape
    single, packed = query.view(batch, heads, 1, HEAD), query.view(batch, KV_HEADS, heads // KV_HEADS, HEAD)

    def grouped(name: str, k: Any, v: Any) -> Any:
        with backend(name):
            return attend(single, k, v, enable_gqa=True)

    def rows(name: str, k: Any, v: Any) -> Any:
        with backend(name):
            return attend(packed, k, v)

    names = tuple(BACKENDS) if clock.gpu else ("any",)
    ways: dict[str, list[Call]] = {f"packed {name}": [lambda n=name, c=c: rows(n, *c) for c in caches] for name in names}
    ways |= {f"grouped {name}": [lambda n=name, c=c: grouped(n, *c) for c in caches] for name in names if name != "efficient"}
    return ways


def decode_attention(clock: Clock, record: Record) -> None:
    """Attention of decode steps by batch and context, BF16; GB/s of keys and values."""
    torch, free = clock.torch, clock.free_bytes()
    contexts, batches = ((64, 128), (1, 4)) if clock.tiny else ((1024, 4096, 16384, 65536), (1, 4, 16, 64, 256))
    limit = min(int(free * 0.6), 48 << 30)
    pool = torch.empty(limit // 2 if clock.gpu else 1 << 20, dtype=torch.bfloat16, device=clock.device)
    for part in pool.split(1 << 28):
        part.normal_()
    dropped: set[str] = set()
    for context in contexts:
        for batch in batches:
            size = 2 * batch * KV_HEADS * context * HEAD
            if size > pool.numel():
                continue
            caches = []
            for i in range(min(clock.copies(2 * size), pool.numel() // size)):
                both = pool[i * size : (i + 1) * size].view(2, batch, KV_HEADS, context, HEAD)
                caches.append((both[0], both[1]))
            for heads in (32, 64):
                record.check_time()
                ways = decode_ways(clock, normal(clock, batch, heads, HEAD), caches)
                ways = {name: calls for name, calls in ways.items() if name not in dropped}
                best = clock.best(ways, record, f"{heads} heads, context {context}, batch {batch}")
                if best:
                    how, s, every = best
                    # a way that failed, or is far behind at the first long context, is not tried on and on
                    dropped |= {n for n in ways if n not in every or (every[n] > 4 * s * 1e6 and size > 1 << 26)}
                    row = {"heads": heads, "kv_heads": KV_HEADS, "head": HEAD, "context": context, "batch": batch, "us": round(s * 1e6, 3)}
                    record.add(**row, how=how, ways=every, kv_gb_s=round(2 * size / s / 1e9, 1))


def prefill_ways(clock: Clock, query: Any, key: Any, value: Any) -> dict[str, list[Call]]:
    """Causal attention of a prompt by each kernel: query [1, heads, S, HEAD], key and value [1, KV heads, S, HEAD]."""
    attend = clock.torch.nn.functional.scaled_dot_product_attention

    def run(name: str) -> Any:
        with backend(name):
            return attend(query, key, value, is_causal=True, enable_gqa=True)

    return {name: [lambda n=name: run(n)] for name in (("flash", "cudnn") if clock.gpu else ("any",))}


def prefill_attention(clock: Clock, record: Record) -> None:
    """Causal attention of one prompt by length, BF16; FLOPs of the pairs that are attended to only."""
    for heads in (32, 64):
        for tokens in (64, 128) if clock.tiny else (1024, 2048, 4096, 8192, 16384, 32768):
            record.check_time()
            query, (key, value) = normal(clock, 1, heads, tokens, HEAD), (normal(clock, 1, KV_HEADS, tokens, HEAD) for _ in range(2))
            best = clock.best(prefill_ways(clock, query, key, value), record, f"{heads} heads, {tokens} tokens")
            if best:
                how, s, every = best
                flops = 4.0 * heads * HEAD * tokens * tokens / 2
                row = {"heads": heads, "kv_heads": KV_HEADS, "head": HEAD, "tokens": tokens, "us": round(s * 1e6, 3), "how": how, "ways": every}
                record.add(**row, tflops=round(flops / s / 1e12, 2))


# ---- memory and launches


def memory(clock: Clock, record: Record) -> None:
    """Bandwidth of a device copy (bytes read and written) and of reading alone; seconds of a launch, eager and inside a graph."""
    torch, count = clock.torch, 1 << (20 if clock.tiny else 30)
    source = torch.empty(count, dtype=torch.float32, device=clock.device).normal_()
    target = torch.empty_like(source)
    half = source.view(torch.bfloat16)
    tests: dict[str, tuple[Callable[[], Any], int]] = {
        "copy": (lambda: target.copy_(source), 8 * count),
        "read (sum of fp32)": (lambda: source.sum(), 4 * count),
        "read (largest of bf16)": (lambda: half.amax(), 4 * count),
        "write": (lambda: target.zero_(), 4 * count),
    }
    for name, (call, size) in tests.items():
        best = clock.best({name: [call]}, record, name)
        if best:
            record.add(what=name, bytes=size, us=round(best[1] * 1e6, 3), gb_s=round(size / best[1] / 1e9, 1))
    one = torch.ones(1, device=clock.device)
    inside = clock.best({"graph": [lambda: one.add_(1)]}, record, "launch inside a graph")
    if inside:
        record.add(what="launch inside a graph", us=round(inside[1] * 1e6, 3))
    for _ in range(2):  # once to warm up
        start = time.perf_counter()
        for _ in range(2000):
            one.add_(1)
        if clock.gpu:
            torch.cuda.synchronize()
        taken = (time.perf_counter() - start) / 2000
    record.add(what="launch, eager", us=round(taken * 1e6, 3))
