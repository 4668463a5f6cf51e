"""The command that starts one replica of a deployment, for each engine. Every setting the plan relies on is spelt out."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from planner.catalog.replica_type import ReplicaType
from planner.emit.command import Command
from planner.emit.reasoning import thinking_words
from planner.performance.lengths import refused_share
from planner.scenario.workload import Workload

# As deep as in the runs that the ratios come from: github:SemiAnalysisAI/InferenceX benchmarks/single_node/dsr1_fp8_b200_mtp.sh and
# dsr1_fp8_b200_trt_mtp.sh (there 3, with attention data parallel 1). vLLM was not among them: docs.vllm.ai features/speculative_decoding/mtp.
DRAFTING = {
    "vllm": ["--speculative-config", '{"method":"mtp","num_speculative_tokens":1}'],
    "sglang": ["--speculative-algorithm", "EAGLE", "--speculative-num-steps", "2", "--speculative-eagle-topk", "1", "--speculative-num-draft-tokens", "3"],
}
# docs.vllm.ai features/nixl_connector_usage and docs.sglang.io advanced_features/pd_disaggregation; both need a router before the unit,
# ports of their own for engines of one host, and NIXL installed.
ROLES = {
    "vllm": {
        role: ["--kv-transfer-config", f'{{"kv_connector":"NixlConnector","kv_role":"{word}"}}']
        for role, word in (("prefill", "kv_producer"), ("decode", "kv_consumer"))
    },
    "sglang": {role: ["--disaggregation-mode", role, "--disaggregation-transfer-backend", "nixl"] for role in ("prefill", "decode")},
}

CUT_OFF, STEP = 5e-4, 1024  # share of requests that the context an engine is started with may be too short for; its steps in tokens


@dataclass(frozen=True)
class Steps:
    """What one step may hold, and how prompts enter it. ``prefix_cache``: the plan counts on prompt tokens found there."""

    max_num_seqs: int
    max_num_batched_tokens: int
    chunked_prefill: bool = True
    prefix_cache: bool = False
    adapters: int = 0  # LoRA, kept in GPU memory
    adapter_rank: int = 0


@dataclass(frozen=True)
class GpuMemory:
    """GiB of one GPU: what the device has, what weights take, and the room for KV cache that the plan counts on."""

    device: float
    weights: float
    kv_cache: float


@dataclass(frozen=True)
class Thinking:
    """Whether answers are planned with reasoning, and whether the checkpoint could do the other too."""

    thinks: bool = False
    is_hybrid: bool = False


def serve_command(
    engine: str, checkpoint: str, layout: ReplicaType, steps: Steps, max_context: int, gpu_memory_utilization: float, memory: GpuMemory,
    thinking: Thinking = Thinking(),
) -> str:  # fmt: skip
    """One replica's start command as people paste it; of a disaggregated unit one line for each role. What no flag says is a comment behind."""
    found = serve_commands(engine, checkpoint, layout, steps, max_context, gpu_memory_utilization, memory, thinking)
    return "\n".join(c.text for c in found)


def serve_commands(
    engine: str, checkpoint: str, layout: ReplicaType, steps: Steps, max_context: int, gpu_memory_utilization: float, memory: GpuMemory,
    thinking: Thinking = Thinking(),
) -> tuple[Command, ...]:  # fmt: skip
    """One replica's start command; of a disaggregated unit one for each role, with how many engines it starts.

    The engines give memory in different terms: vLLM the share of the device it may use in all, SGLang the share for weights and
    KV cache, TensorRT-LLM the share of what is free after loading that goes to KV cache. With attention data parallel, limits on
    sequences and tokens are those of each group in vLLM and TensorRT-LLM, and of all together in SGLang.
    """
    tp, pp, dp, fp8_kv = layout.tp, layout.pp, layout.dp, layout.fp8_kv
    seqs, tokens, chunked, options = ceil(steps.max_num_seqs / dp), steps.max_num_batched_tokens, steps.chunked_prefill, ""
    if engine == "vllm":
        words = ["vllm", "serve", checkpoint, "--tensor-parallel-size", tp // dp]
        words += ["--pipeline-parallel-size", pp] if pp > 1 else []
        words += ["--data-parallel-size", dp] if dp > 1 else []
        words += ["--enable-expert-parallel"] if layout.ep > 1 else []
        words += ["--max-num-seqs", seqs, "--max-num-batched-tokens", tokens, "--max-model-len", max_context]
        words += [] if chunked else ["--no-enable-chunked-prefill"]
        words += ["--enable-prefix-caching"] if steps.prefix_cache else []
        words += ["--enable-lora", "--max-loras", steps.adapters, "--max-lora-rank", steps.adapter_rank] if steps.adapters else []
        words += ["--gpu-memory-utilization", f"{gpu_memory_utilization:g}"] + (["--kv-cache-dtype", "fp8"] if fp8_kv else [])
    elif engine == "sglang":
        words = ["python", "-m", "sglang.launch_server", "--model-path", checkpoint, "--tp-size", tp]
        words += ["--pp-size", pp] if pp > 1 else []
        words += ["--attn-dp-size", dp] if dp > 1 else []
        words += ["--ep-size", layout.ep] if layout.ep > 1 else []
        words += ["--max-running-requests", steps.max_num_seqs, "--context-length", max_context]
        words += ["--chunked-prefill-size", tokens] if chunked else ["--chunked-prefill-size", -1, "--max-prefill-tokens", tokens]
        words += ["--enable-lora", "--max-loras-per-batch", steps.adapters, "--max-lora-rank", steps.adapter_rank] if steps.adapters else []
        words += ["--mem-fraction-static", f"{(memory.weights + memory.kv_cache) / memory.device:.2f}"]
        words += (["--kv-cache-dtype", "fp8_e4m3"] if fp8_kv else []) + ["--enable-metrics"]
    else:
        words = ["trtllm-serve", checkpoint, "--tp_size", tp] + (["--pp_size", pp] if pp > 1 else [])
        words += ["--ep_size", layout.ep] if layout.ep > 1 else []
        words += ["--max_batch_size", seqs, "--max_num_tokens", tokens, "--max_seq_len", max_context]
        words += ["--enable_chunked_prefill"] if chunked else []
        words += ["--kv_cache_free_gpu_memory_fraction", f"{memory.kv_cache / (memory.device - memory.weights):.2f}"]
        words += ["--kv_cache_dtype", "fp8"] if fp8_kv else []
        options = _trtllm_options(layout)
    more, remarks = thinking_words(engine, checkpoint, thinking.thinks, thinking.is_hybrid)
    whole = [str(w) for w in words] + (DRAFTING.get(engine, []) if layout.draft else []) + more
    if not layout.decode:
        return (Command(tuple(whole), options, tuple(remarks)),)
    roles = (("prefill", layout.prefill), ("decode", layout.decode))
    return tuple(Command((*whole, *ROLES[engine][role]), options, tuple(remarks), role, count) for role, count in roles)


def _trtllm_options(layout: ReplicaType) -> str:
    """What TensorRT-LLM reads from a file of YAML, as one line of it; "" for nothing."""
    options = ["enable_attention_dp: true"] if layout.dp > 1 else []
    if layout.draft:
        options.append(f"speculative_config: {{decoding_type: MTP, num_nextn_predict_layers: {1 if layout.dp > 1 else 3}}}")
    return "{" + ", ".join(options) + "}" if len(options) > 1 else "".join(options)


def context_to_serve(workloads: list[Workload], output_factor: float, max_context: int) -> int:
    """The context to start with, in steps of 1,024 tokens: room for all but ``CUT_OFF`` of the requests of each workload, reasoning included, and
    for twice the mean one; at most the model's. An engine starts only where the KV cache holds one request of this length."""
    least = ceil(max(2 * (w.input_tokens + w.output_tokens * output_factor) for w in workloads) / STEP)
    low, high = least - 1, max(least, ceil(max_context / STEP))
    while high - low > 1:
        middle = (low + high) // 2
        enough = all(refused_share(w, output_factor, STEP * middle) <= CUT_OFF for w in workloads)
        low, high = (low, middle) if enough else (middle, high)
    return int(min(max_context, STEP * high))
