"""The command that starts one replica of a deployment, for each engine. Every setting the plan relies on is spelt out."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from planner.performance.step import CHUNK
from planner.scenario.records import Workload

FP8_KV = ("fp8", "nvfp4")  # precisions whose KV cache the memory fit counts at one byte


@dataclass(frozen=True)
class Memory:
    """GiB of one GPU: what the device has, what weights take, and the room for KV cache that the plan counts on."""

    device: float
    weights: float
    kv_cache: float


def serve_command(
    engine: str, checkpoint: str, precision: str, tp: int, pp: int, max_num_seqs: int, max_context: int, gpu_memory_utilization: float, memory: Memory
) -> str:
    """One replica's start command.

    The engines give memory in different terms: vLLM the share of the device it may use in all, SGLang the share for weights and
    KV cache, TensorRT-LLM the share of what is free after loading that goes to KV cache.
    """
    fp8_kv = precision in FP8_KV
    if engine == "vllm":
        words = ["vllm serve", checkpoint, f"--tensor-parallel-size {tp}"]
        words += [f"--pipeline-parallel-size {pp}"] if pp > 1 else []
        words += [f"--max-num-seqs {max_num_seqs}", f"--max-num-batched-tokens {max(CHUNK, max_num_seqs)}", f"--max-model-len {max_context}"]
        words += [f"--gpu-memory-utilization {gpu_memory_utilization:g}"] + (["--kv-cache-dtype fp8"] if fp8_kv else [])
    elif engine == "sglang":
        words = ["python -m sglang.launch_server", f"--model-path {checkpoint}", f"--tp-size {tp}"]
        words += [f"--pp-size {pp}"] if pp > 1 else []
        words += [f"--max-running-requests {max_num_seqs}", f"--chunked-prefill-size {CHUNK}", f"--context-length {max_context}"]
        words += [f"--mem-fraction-static {(memory.weights + memory.kv_cache) / memory.device:.2f}"]
        words += (["--kv-cache-dtype fp8_e4m3"] if fp8_kv else []) + ["--enable-metrics"]
    else:
        words = ["trtllm-serve", checkpoint, f"--tp_size {tp}"] + ([f"--pp_size {pp}"] if pp > 1 else [])
        words += [f"--max_batch_size {max_num_seqs}", f"--max_num_tokens {max(CHUNK, max_num_seqs)}", f"--max_seq_len {max_context}"]
        words += [f"--kv_cache_free_gpu_memory_fraction {memory.kv_cache / (memory.device - memory.weights):.2f}"]
        words += ["--kv_cache_dtype fp8"] if fp8_kv else []
    return " ".join(words)


def context_to_serve(workloads: list[Workload], output_factor: float, max_context: int) -> int:
    """A context limit that leaves the lengths of these workloads room: eight times the mean request, in steps of 1,024, at most the model's."""
    mean = max(w.input_tokens + w.output_tokens * output_factor for w in workloads)
    return int(min(max_context, 1024 * ceil(8 * mean / 1024)))
