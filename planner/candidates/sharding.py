"""Whether engines can cut a checkpoint into tensor-parallel shards: whole heads, KV heads and FP8 blocks."""

from __future__ import annotations

from planner.catalog.records import Architecture


def unsplit(a: Architecture, fp8_block: int, tp: int) -> str:
    """Why engines cannot cut weights into ``tp`` shards; "" where they can."""
    kv = a.kv_heads if a.attention == "gqa" else 1  # the MLA latent is copied to every rank
    if a.attention_heads % tp:
        return f"{a.attention_heads} attention heads"
    if kv % tp and tp % kv:
        return f"{kv} KV heads"
    sizes = [n for n in (a.intermediate_size, a.expert_intermediate_size) if n]
    broken = [n for n in sizes if fp8_block and n % (tp * fp8_block)]
    return f"FP8 blocks of {fp8_block} in {broken[0]} columns" if broken else ""
