"""Benchmark clients: what each is started with so that it sends the plan's requests at the plan's load, and files that it needs beside the script.

Flags read in the wheels of vLLM 0.33.0 (benchmarks/serve.py, benchmarks/datasets), GuideLLM 0.8.1 (schemas), AIPerf 0.13.0 (config/flags) and
inference-perf 0.7.0 (config). All send answers of the length asked (ignore_eos).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from planner.deploy.bench import WARM_UP, Bench, Run
from planner.deploy.manifest import Document
from planner.deploy.write import to_yaml
from planner.errors import PlannerError

PERCENTILES = (50, 90, 95, 99)
SHORTEST = 300  # seconds that a client waits for the engine


@dataclass(frozen=True)
class Client:
    """One tool. ``command``: of a run, given the stem of the files; ``files``: that its commands read, beside the script."""

    name: str
    command: Callable[[Bench, Run, str], str]
    files: Callable[[Bench, str], Mapping[str, str]]
    result: str  # the file with a run's result, with {stem} and {run}
    remarks: tuple[str, ...] = ()


def trace_file(stem: str, run: str) -> str:
    """The file with the requests of a run."""
    return f"{stem}.{run}.jsonl"


def _traces(bench: Bench, stem: str) -> dict[str, str]:
    return {trace_file(stem, run): text for run, text in bench.traces.items()}


def _vllm(bench: Bench, run: Run, stem: str) -> str:
    s = bench.served
    words = [
        "vllm", "bench", "serve", "--backend", "openai", "--endpoint", "/v1/completions", "--model", s.answers_to, "--tokenizer", s.deployment.checkpoint,
        "--dataset-name", "timed_trace", "--dataset-path", trace_file(stem, run.name), "--timed-trace-chunk-hash-size", str(bench.stream.block),
        "--no-self-timed", "--num-prompts", str(run.requests), "--seed", "0", "--ready-check-timeout-sec", str(SHORTEST),
        *(["--request-rate", f"{run.rate:.6g}", "--burstiness", "1.0"] if run.rate else ["--request-rate", "inf", "--max-concurrency", str(run.in_flight)]),
        "--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", ",".join(map(str, PERCENTILES)),
    ]  # fmt: skip
    if run.name != WARM_UP:
        words += ["--save-result", "--result-filename", f"{stem}.{run.name}.json", "--metadata", *(f"{k}={v}" for k, v in bench.labels.items())]
    return f'{shlex.join(words[:5])} --base-url "${run.url}" {shlex.join(words[5:])}'


def _guidellm(bench: Bench, run: Run, stem: str) -> str:
    labels = " ".join(f"--label {shlex.quote(f'{k}={v}')}" for k, v in bench.labels.items())
    return f'guidellm run --config {shlex.quote(f"{stem}.{run.name}.guidellm.json")} --backend "kind=openai_http,target=${{{run.url}}}" {labels}'


def _guidellm_files(bench: Bench, stem: str) -> dict[str, str]:
    return _traces(bench, stem) | {f"{stem}.{r.name}.guidellm.json": json.dumps(_guidellm_config(bench, r, stem), indent=1) + "\n" for r in with_warm_up(bench)}


def _guidellm_config(bench: Bench, run: Run, stem: str) -> Document:
    s = bench.served
    profile: Document = {"kind": "poisson", "rate": [run.rate]} if run.rate else {"kind": "concurrent", "streams": [run.in_flight]}
    data = {"kind": "mooncake", "source": {"kind": "json_file", "path": trace_file(stem, run.name)}, "hash_id_block_size": bench.stream.block}
    spec = {
        "backend": {"kind": "openai_http", "target": "http://localhost:8000", "model": s.answers_to, "request_format": "/v1/completions"},
        "profile": profile,
        "data": [data],
        "tokenizer": {"kind": "huggingface_auto", "model": s.deployment.checkpoint},
        "constraints": [{"kind": "max_requests", "count": run.requests}],
        "outputs": [{"kind": "json", "path": f"{stem}.{run.name}.json"}],
    }
    return {"spec": spec}


def _aiperf(bench: Bench, run: Run, stem: str) -> str:
    s = bench.served
    words = [
        "aiperf", "profile", "--model", s.answers_to, "--tokenizer", s.deployment.checkpoint, "--endpoint-type", "completions", "--streaming",
        "--input-file", trace_file(stem, run.name), "--custom-dataset-type", "mooncake_trace", "--isl-block-size", str(bench.stream.block),
        "--no-fixed-schedule", "--request-count", str(run.requests), "--random-seed", "0", "--extra-inputs", "ignore_eos:true",
        *(["--request-rate", f"{run.rate:.6g}", "--arrival-pattern", "poisson"] if run.rate else ["--concurrency", str(run.in_flight)]),
        "--output-artifact-dir", f"{stem}.{run.name}", "--ui", "none",
    ]  # fmt: skip
    return f'{shlex.join(words[:2])} --url "${run.url}" {shlex.join(words[2:])}'


def _inference_perf(_bench: Bench, run: Run, stem: str) -> str:
    return f'inference-perf --config_file {shlex.quote(f"{stem}.{run.name}.inference-perf.yaml")} --server.base_url "${run.url}"'


def _inference_perf_files(bench: Bench, stem: str) -> dict[str, str]:
    """Its configuration for each run; lengths come as a trace of Azure's format. Raises PlannerError where prompts must share prefixes."""
    if bench.stream.cached:
        raise PlannerError("the traces that inference-perf reads share no prefixes, which this plan counts on", "--tool", "take vllm, guidellm or aiperf")
    drawn = bench.requests
    found = {}
    for run in with_warm_up(bench):
        asked, name = drawn[run.name], f"{stem}.{run.name}.csv"
        rows = "".join(f"2026-01-01 00:00:00.000000,{i},{o}\n" for i, o in zip(asked.prompts.tolist(), asked.answers.tolist(), strict=True))
        found[name] = "TIMESTAMP,ContextTokens,GeneratedTokens\n" + rows
        found[f"{stem}.{run.name}.inference-perf.yaml"] = to_yaml((_inference_perf_config(bench, run, stem, name),))
    return found


def _inference_perf_config(bench: Bench, run: Run, stem: str, trace: str) -> Document:
    s = bench.served
    stage: Document = {"rate": float(f"{run.rate:.6g}"), "duration": max(round(run.requests / run.rate), 1)} if run.rate else {}
    stage = stage or {"num_requests": run.requests, "concurrency_level": run.in_flight}
    return {
        "api": {"type": "completion", "streaming": True},
        "data": {"type": "random", "trace": {"file": trace, "format": "AzurePublicDataset"}},
        "load": {"type": "poisson" if run.rate else "concurrent", "stages": [stage]},
        "server": {
            "type": s.deployment.engine.replace("trtllm", "vllm"), "model_name": s.answers_to, "base_url": "http://localhost:8000", "ignore_eos": True,
        },
        "tokenizer": {"pretrained_model_name_or_path": s.deployment.checkpoint},
        "report": {"request_lifecycle": {"summary": True, "per_stage": True, "percentiles": list(PERCENTILES)}},
        "storage": {"local_storage": {"path": f"{stem}.{run.name}"}},
    }  # fmt: skip


def with_warm_up(bench: Bench) -> tuple[Run, ...]:
    """The warm-up and the runs, in order."""
    return (bench.warm_up, *bench.runs)


CLIENTS = {
    c.name: c
    for c in (
        Client(
            "vllm", _vllm, _traces, "{stem}.{run}.json",
        ),
        Client("guidellm", _guidellm, _guidellm_files, "{stem}.{run}.json", ("GuideLLM's inter_token_latency_ms is TPOT; its own TPOT counts TTFT in.",)),
        Client("aiperf", _aiperf, _traces, "{stem}.{run}/profile_export_aiperf.json", ("AIPerf's inter_token_latency is TPOT.",)),
        Client("inference-perf", _inference_perf, _inference_perf_files, "{stem}.{run}/summary_lifecycle_metrics.json"),
    )
}  # fmt: skip
