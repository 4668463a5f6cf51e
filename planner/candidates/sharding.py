"""Whether engines can lay a checkpoint out over GPUs: whole heads, KV heads, FP8 blocks and experts."""

from __future__ import annotations

from planner.catalog.records import Architecture


def unsplit(a: Architecture, fp8_block: int, tp: int, ep: int = 1) -> str:
    """Why engines cannot cut weights into ``tp`` shards; "" where they can. With ``ep`` > 1 experts are spread whole."""
    if ep > 1 and (not a.experts or a.experts % ep):
        return f"{a.experts} experts"
    kv = a.kv_heads if a.attention == "gqa" else 1  # the MLA latent is copied to every rank
    if a.attention_heads % tp:
        return f"{a.attention_heads} attention heads"
    if kv % tp and tp % kv:
        return f"{kv} KV heads"
    sizes = [n for n in (a.intermediate_size, 0 if ep > 1 else a.expert_intermediate_size) if n]
    broken = [n for n in sizes if fp8_block and n % (tp * fp8_block)]
    return f"FP8 blocks of {fp8_block} in {broken[0]} columns" if broken else ""


def gains_by_attention_groups(a: Architecture, tp: int) -> bool:
    """Whether attention data parallel saves what TP copies: experts beside it, and KV heads (or an MLA latent) fewer than GPUs."""
    return bool(a.experts) and tp > 1 and a.experts % tp == 0 and (a.attention == "mla" or a.kv_heads < tp)
