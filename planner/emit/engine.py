"""The command that starts one replica of a deployment, for each engine. Every setting the plan relies on is spelt out."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from math import ceil

from planner.catalog.replica_type import ReplicaType
from planner.emit.reasoning import thinking_words
from planner.performance.lengths import refused_share
from planner.scenario.records import Workload

# As deep as in the runs that the ratios come from: github:SemiAnalysisAI/InferenceX benchmarks/single_node/dsr1_fp8_b200_mtp.sh and
# dsr1_fp8_b200_trt_mtp.sh (there 3, with attention data parallel 1). vLLM was not among them: docs.vllm.ai features/speculative_decoding/mtp.
DRAFTING = {
    "vllm": ["""--speculative-config '{"method":"mtp","num_speculative_tokens":1}'"""],
    "sglang": ["--speculative-algorithm EAGLE --speculative-num-steps 2 --speculative-eagle-topk 1 --speculative-num-draft-tokens 3"],
}
# docs.vllm.ai features/nixl_connector_usage and docs.sglang.io advanced_features/pd_disaggregation; both need a router before the unit,
# ports of their own for engines of one host, and NIXL installed.
ROLES = {
    "vllm": {
        role: f"""--kv-transfer-config '{{"kv_connector":"NixlConnector","kv_role":"{word}"}}'"""
        for role, word in (("prefill", "kv_producer"), ("decode", "kv_consumer"))
    },
    "sglang": {role: f"--disaggregation-mode {role} --disaggregation-transfer-backend nixl" for role in ("prefill", "decode")},
}

CUT_OFF, STEP = 5e-4, 1024  # share of requests that the context an engine is started with may be too short for; its steps in tokens


@dataclass(frozen=True)
class Steps:
    """What one step may hold, and how prompts enter it. ``prefix_cache``: the plan counts on prompt tokens found there."""

    max_num_seqs: int
    max_num_batched_tokens: int
    chunked_prefill: bool = True
    prefix_cache: bool = False


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
    """One replica's start command; of a disaggregated unit one line for each role, with how many engines it starts. What no flag says is a comment behind.

    The engines give memory in different terms: vLLM the share of the device it may use in all, SGLang the share for weights and
    KV cache, TensorRT-LLM the share of what is free after loading that goes to KV cache. With attention data parallel, limits on
    sequences and tokens are those of each group in vLLM and TensorRT-LLM, and of all together in SGLang.
    """
    tp, pp, dp, fp8_kv = layout.tp, layout.pp, layout.dp, layout.fp8_kv
    seqs, tokens, chunked = ceil(steps.max_num_seqs / dp), steps.max_num_batched_tokens, steps.chunked_prefill
    name = shlex.quote(checkpoint)  # people paste this
    if engine == "vllm":
        words = ["vllm serve", name, f"--tensor-parallel-size {tp // dp}"]
        words += [f"--pipeline-parallel-size {pp}"] if pp > 1 else []
        words += [f"--data-parallel-size {dp}"] if dp > 1 else []
        words += ["--enable-expert-parallel"] if layout.ep > 1 else []
        words += [f"--max-num-seqs {seqs}", f"--max-num-batched-tokens {tokens}", f"--max-model-len {max_context}"]
        words += [] if chunked else ["--no-enable-chunked-prefill"]
        words += ["--enable-prefix-caching"] if steps.prefix_cache else []
        words += [f"--gpu-memory-utilization {gpu_memory_utilization:g}"] + (["--kv-cache-dtype fp8"] if fp8_kv else [])
    elif engine == "sglang":
        words = ["python -m sglang.launch_server", f"--model-path {name}", f"--tp-size {tp}"]
        words += [f"--pp-size {pp}"] if pp > 1 else []
        words += [f"--attn-dp-size {dp}"] if dp > 1 else []
        words += [f"--ep-size {layout.ep}"] if layout.ep > 1 else []
        words += [f"--max-running-requests {steps.max_num_seqs}", f"--context-length {max_context}"]
        words += [f"--chunked-prefill-size {tokens}"] if chunked else ["--chunked-prefill-size -1", f"--max-prefill-tokens {tokens}"]
        words += [f"--mem-fraction-static {(memory.weights + memory.kv_cache) / memory.device:.2f}"]
        words += (["--kv-cache-dtype fp8_e4m3"] if fp8_kv else []) + ["--enable-metrics"]
    else:
        words = ["trtllm-serve", name, f"--tp_size {tp}"] + ([f"--pp_size {pp}"] if pp > 1 else [])
        words += [f"--ep_size {layout.ep}"] if layout.ep > 1 else []
        words += [f"--max_batch_size {seqs}", f"--max_num_tokens {tokens}", f"--max_seq_len {max_context}"]
        words += ["--enable_chunked_prefill"] if chunked else []
        words += [f"--kv_cache_free_gpu_memory_fraction {memory.kv_cache / (memory.device - memory.weights):.2f}"]
        words += ["--kv_cache_dtype fp8"] if fp8_kv else []
        options = ["enable_attention_dp: true"] if dp > 1 else []
        options += [f"speculative_config: {{decoding_type: MTP, num_nextn_predict_layers: {1 if dp > 1 else 3}}}"] if layout.draft else []
        words += [f"--extra_llm_api_options <(echo '{options[0] if len(options) == 1 else '{' + ', '.join(options) + '}'}')"] if options else []
    words += DRAFTING.get(engine, []) if layout.draft else []
    more, remarks = thinking_words(engine, checkpoint, thinking.thinks, thinking.is_hybrid)
    words += more
    if not layout.decode:
        return _with_remarks(words, remarks)
    roles = (("prefill", layout.prefill), ("decode", layout.decode))
    return "\n".join(_with_remarks([*words, ROLES[engine][r]], [f"{count} {r} engine{'s' * (count > 1)}", *remarks]) for r, count in roles)


def _with_remarks(words: list[str], remarks: list[str]) -> str:
    return " ".join([*words, f"# {'; '.join(remarks)}"] if remarks else words)


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
