"""Steps between two looks for new requests in InferenceX's runs, as its launch scripts set them; everywhere else an engine looks at every step.

SemiAnalysisAI/InferenceX, ``benchmarks/`` (Apache-2.0), its history up to 843c625 of 2026-08-22: SGLang's ``--scheduler-recv-interval`` and
``--num-continuous-decode-steps``, TensorRT-LLM's ``timeout_iters`` with attention data parallel and ``batch_wait_timeout_iters``.
"""

from __future__ import annotations

from planner.performance.residual import month_of

MANY = 16  # requests in flight from which the second number of POLLED counts
POLLED = {  # engine, model, GPU, precision -> steps with fewer requests, and with many
    ("sglang", "DeepSeek-V3", "B200-SXM", "fp8"): (10.0, 30.0),
    ("sglang", "DeepSeek-V3", "B200-SXM", "nvfp4"): (10.0, 30.0),
    ("sglang", "DeepSeek-V3", "B300-SXM", "fp8"): (10.0, 30.0),
    ("sglang", "DeepSeek-V3", "B300-SXM", "nvfp4"): (10.0, 30.0),
    ("sglang", "DeepSeek-V3", "MI300X", "fp8"): (4.0, 4.0),
    ("sglang", "DeepSeek-V3", "MI325X", "fp8"): (4.0, 4.0),
    ("sglang", "DeepSeek-V3", "MI355X", "fp8"): (4.0, 4.0),
    ("sglang", "DeepSeek-V3", "MI355X", "mxfp4"): (4.0, 4.0),
    ("sglang", "GLM-5", "B200-SXM", "nvfp4"): (10.0, 10.0),
    ("sglang", "Qwen3.5-397B-A17B", "B200-SXM", "bf16"): (10.0, 30.0),
    ("sglang", "Qwen3.5-397B-A17B", "B200-SXM", "fp8"): (10.0, 30.0),
    ("sglang", "Qwen3.5-397B-A17B", "B200-SXM", "nvfp4"): (10.0, 30.0),
    ("sglang", "Qwen3.5-397B-A17B", "B300-SXM", "bf16"): (10.0, 30.0),
    ("sglang", "Qwen3.5-397B-A17B", "B300-SXM", "fp8"): (10.0, 10.0),
    ("sglang", "Qwen3.5-397B-A17B", "B300-SXM", "nvfp4"): (10.0, 30.0),
}
BALANCED = 60.0  # TensorRT-LLM with DeepSeek: attention groups wait for each other's prompts at most so long
DELAYED, DELAYED_FROM, DELAYED_LOAD = 40.0, month_of("2026-02"), 64  # and on B200 in FP8 for more prompts, of 1,024 tokens in and out
SMALL_TP = 4  # with which DeepSeek in FP8 keeps the first number at any load
LATER_MI355X = month_of("2026-05")  # 8 steps instead of 4 in FP8


def poll_steps(stack: tuple[str, str, str, str], tp: int, dp: int, lengths: tuple[float, float], concurrency: float, month: float) -> float:
    """Of a run of InferenceX: engine, model, GPU and precision as one ``stack``; nominal lengths."""
    engine, model, gpu, precision = stack
    few, many = POLLED.get(stack, (1.0, 1.0))
    if engine == "trtllm" and model == "DeepSeek-V3":
        waits = gpu == "B200-SXM" and precision == "fp8" and lengths == (1024, 1024) and month >= DELAYED_FROM and concurrency >= DELAYED_LOAD
        return BALANCED if dp > 1 else DELAYED if waits else 1.0
    if dp > 1:
        return 1.0
    if gpu == "MI355X" and precision == "fp8" and month >= LATER_MI355X:
        return 2 * few
    is_small = engine == "sglang" and model == "DeepSeek-V3" and precision == "fp8" and tp == SMALL_TP
    return few if concurrency < MANY or is_small else many
