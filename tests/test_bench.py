"""Files of benchmark tools as points: units, what each tool means by its words, what it leaves out, and what nobody should be able to do with a file."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from planner import limits
from planner.bench import aiperf, guidellm, inferencex, trtllm, vllm
from planner.bench.points import COLUMNS, MeasuredPoint, cells_of, read_points
from planner.bench.read import READERS, read_bench
from planner.bench.setup import SIDECAR, Setup
from planner.errors import PlannerError
from planner.report.render import csv_text
from planner.validation.mapping import map_point

BENCH = Path(__file__).parent / "data" / "bench"
LLAMA = "meta-llama/Llama-3.3-70B-Instruct"
VLLM, SGLANG = "vllm-bench-serve-0.33.handwritten.json", "sglang-bench-serving-0.5.23.handwritten.jsonl"
GUIDE, AIPERF, REQUESTS = "guidellm-0.8.1-concurrent.json", "aiperf-0.13.0-profile_export_aiperf.json", "aiperf-0.13.0-profile_export.head2.jsonl"
ALL = Setup(model=LLAMA, gpu="H100-SXM-80GB", engine="vllm@0.33.0", precision="fp8")
Raw = dict[str, Any]


def raw(name: str) -> Raw:
    found: Raw = json.loads((BENCH / name).read_text())
    return found


def written(tmp_path: Path, content: object, name: str = "run.json") -> Path:
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def one(path: Path, flags: Setup = ALL) -> MeasuredPoint:
    (found,) = read_bench(path, flags)
    return found


def near(point: MeasuredPoint, **expected: float) -> bool:
    return {k: point.measured[k] for k in expected} == pytest.approx(expected, rel=1e-6)


# ---- every sample, to the right units: ms, tokens/s of the whole endpoint


def test_vllm() -> None:
    point = one(BENCH / VLLM)
    assert near(point, ttft_ms_mean=612.0, ttft_ms_p50=540.0, tpot_ms_p99=46.0, e2e_ms_mean=12930.0, output_tps_total=1463.4, request_rate_achieved=4.878)
    assert (point.isl, point.osl, point.concurrency, point.load, point.date) == (1500, 300, 64, "closed_loop", "2026-11-22")
    assert (point.tp, point.gpus, point.engine, point.engine_version, point.precision) == (4, 4, "vllm", "0.33.0", "fp8")


def test_sglang() -> None:
    point = one(BENCH / SGLANG, Setup(gpu="H100-SXM-80GB"))
    assert near(point, ttft_ms_p90=734.4, tpot_ms_p95=57.68, e2e_ms_p99=25860.0, output_tps_total=1463.4)
    assert (point.model, point.engine, point.engine_version, point.tp, point.precision) == (LLAMA, "sglang", "0.5.23", 4, "")
    assert (point.load, point.concurrency, point.workload) == ("closed_loop", 64, "synthetic")


def test_guidellm() -> None:
    two, eight = read_bench(BENCH / GUIDE, ALL)
    assert near(two, ttft_ms_mean=37.0432, ttft_ms_p95=46.9265, e2e_ms_mean=218.932, output_tps_total=278.215)
    assert (two.concurrency, eight.concurrency, two.tp, two.gpu) == (2, 8, 2, "H100-SXM-80GB")
    assert two.provenance.tool_version == "0.8.1" and two.provenance.token_source == "server"


def test_aiperf() -> None:
    point = one(BENCH / AIPERF, ALL.model_copy(update={"tp": 2}))
    assert near(point, ttft_ms_mean=54.0582, tpot_ms_mean=6.12464, e2e_ms_p99=342.814, output_tps_total=921.111)
    assert (point.isl, point.osl, point.concurrency, point.load) == (200, 33, 8, "closed_loop")


def test_the_requests_of_aiperf_add_up_to_a_run() -> None:
    asked = ALL.model_copy(update={"tp": 2})
    with pytest.raises(PlannerError, match="--concurrency or --request-rate"):
        read_bench(BENCH / REQUESTS, asked)
    point = one(BENCH / REQUESTS, asked.model_copy(update={"concurrency": 8}))
    assert point.measured["e2e_ms_mean"] == pytest.approx((345.322705 + 336.250035) / 2)
    assert (point.isl, point.osl, point.concurrency) == (200, 33, 8)


def test_inferencex() -> None:
    point = one(BENCH / "inferencex-agg.handwritten.json", Setup())
    assert near(point, ttft_ms_mean=420.0, ttft_ms_p99=1200.0, tpot_ms_p50=22.9, e2e_ms_p99=27000.0, output_tps_total=4 * 695.0, total_tps_per_gpu=1390.0)
    assert (point.gpu, point.engine, point.engine_version, point.tp, point.concurrency) == ("H100-SXM-80GB", "vllm", "0.33.0", 4, 64)


def test_llmd() -> None:
    point = one(BENCH / "llmd-br-0.2.handwritten.yaml", Setup())
    assert near(point, ttft_ms_mean=210.0, ttft_ms_p95=410.0, tpot_ms_p50=27.5, e2e_ms_p99=11400.0, output_tps_total=2940.0)
    assert (point.tp, point.gpus, point.engine, point.engine_version, point.precision) == (4, 8, "vllm", "0.33.0", "fp8")
    assert (point.load, point.request_rate, point.isl, point.date) == ("open_loop", 10, 1502.4, "2026-11-05")
    assert (point.provenance.tool, point.provenance.tool_version, point.notes) == ("inference-perf", "0.3.0", "5 of 500 requests failed")


# ---- the traps of the tools


def test_trap_1_what_vllm_was_not_asked_for_is_missing_but_kept_requests_tell_it_exactly(tmp_path: Path) -> None:
    whole = raw("vllm-bench-serve-0.33.0.json")
    bare = {k: v for k, v in whole.items() if "e2el" not in k and not k.startswith(("p90", "p95"))}
    point = one(written(tmp_path, bare))
    assert "ttft_ms_p90" not in point.measured and "tpot_ms_p95" not in point.measured
    assert near(point, **{f"e2e_ms_{p}": whole[f"{k}_e2el_ms"] for p, k in (("mean", "mean"), ("p50", "p50"), ("p90", "p90"), ("p99", "p99"))})
    assert "e2e_ms_p99" not in one(written(tmp_path, {k: v for k, v in bare.items() if k != "latencies"})).measured
    assert (point.concurrency, point.tp) == (8, 2)  # not the 24 of max_concurrent_requests; metadata are texts


def test_trap_1_saved_details_win(tmp_path: Path) -> None:
    e2e, ttft, written_tokens = [1.0, 2.0, 4.0], [0.1, 0.2, 0.3], [10, 10, 11]
    detailed = raw(VLLM) | {"completed": 3, "latencies": e2e, "ttfts": ttft, "output_lens": written_tokens, "input_lens": [100, 100, 100]}
    point = one(written(tmp_path, detailed))
    assert near(point, ttft_ms_mean=200.0, ttft_ms_p50=200.0, tpot_ms_p50=200.0, tpot_ms_mean=(100.0 + 200.0 + 370.0) / 3, e2e_ms_p50=2000.0)
    failed = one(written(tmp_path, detailed | {"failed": 1}))  # failed requests stand in the arrays as zeros
    assert near(failed, ttft_ms_mean=612.0) and "1 of 4 requests failed" in failed.notes


def test_trap_2_guidellms_tpot_is_its_inter_token_latency() -> None:
    two, _ = read_bench(BENCH / GUIDE, ALL)
    assert near(two, tpot_ms_mean=5.65613) and two.provenance.tpot_def == guidellm.TPOT
    assert one(BENCH / AIPERF, ALL.model_copy(update={"tp": 2})).provenance.tpot_def == aiperf.TPOT
    assert len({vllm.TPOT, guidellm.TPOT, aiperf.TPOT}) == 3


def test_trap_2_also_in_llmds_reports_of_guidellm(tmp_path: Path) -> None:
    report = report_of(
        tool="guidellm", latency={"time_per_output_token": {"units": "ms/token", "mean": 6.6}, "inter_token_latency": {"units": "ms/token", "mean": 5.7}}
    )
    assert near(one(written(tmp_path, report), Setup()), tpot_ms_mean=5.7)


def test_trap_3_guidellm_mixes_seconds_and_milliseconds_successes_and_totals(tmp_path: Path) -> None:
    file = raw(GUIDE)
    metrics = file["benchmarks"][0]["metrics"]
    metrics["output_tokens_per_second"]["total"]["mean"], metrics["request_latency"]["total"]["mean"] = 300.0, 99.0
    metrics["time_to_first_token_ms"]["successful"]["percentiles"] |= {"p001": 1.0, "p01": 2.0, "p999": 3.0}
    point = read_bench(written(tmp_path, file), ALL)[0]
    assert near(point, output_tps_total=300.0, e2e_ms_mean=218.932, ttft_ms_p99=48.7268)


def test_trap_4_guidellm_of_version_1(tmp_path: Path) -> None:
    new = raw(GUIDE)
    runs = [{**b, "config": {"strategy": b["config"]["strategy"]}} for b in new["benchmarks"]]
    old = {"args": {"model": "mock-8b", "profile": "concurrent", "rate": [2, 8], "data": ["prompt_tokens=200"]}, "benchmarks": runs}
    points = read_bench(written(tmp_path, old), Setup(gpu="L4", tp=1, engine="vllm", precision="bf16"))
    assert [(p.model, p.concurrency, p.provenance.token_source) for p in points] == [("mock-8b", 2, "client"), ("mock-8b", 8, "client")]
    assert "mean TTFT within 35.05 to 39.04 ms" in points[0].notes  # the tool's own interval, from 0.8


@pytest.mark.parametrize(
    ("strategy", "load", "concurrency", "rate"),
    [
        ({"type_": "synchronous"}, "closed_loop", 1, None),
        ({"type_": "throughput", "max_concurrency": 512}, "closed_loop", 512, None),
        ({"type_": "throughput"}, "burst", None, math.inf),
        ({"type_": "poisson", "rate": 4.0}, "open_loop", None, 4.0),
        ({"type_": "constant", "rate": 4.0}, "open_loop", None, 4.0),
    ],
)
def test_strategies_of_guidellm(tmp_path: Path, strategy: Raw, load: str, concurrency: float | None, rate: float | None) -> None:
    file = raw(GUIDE)
    file["benchmarks"] = file["benchmarks"][:1]
    file["benchmarks"][0]["config"]["strategy"] = strategy
    point = one(written(tmp_path, file))
    assert (point.load, point.concurrency, point.request_rate) == (load, concurrency, rate)
    assert ("no Poisson process" in point.notes) == (strategy["type_"] == "constant")


def test_trap_5_aiperf_says_its_units_and_older_ones_their_load_elsewhere(tmp_path: Path) -> None:
    new, asked = raw(AIPERF), ALL.model_copy(update={"tp": 2})
    old = {k: v for k, v in new.items() if k not in ("schema_version", "effective_concurrency")}
    old["input_config"] = {"endpoint": {"model_names": ["old-8b"]}, "loadgen": {"concurrency": 16}}
    old["request_latency"] = {"unit": "sec", "avg": 0.25, "p99": 0.342}
    point = one(written(tmp_path, old), asked.model_copy(update={"model": ""}))
    assert near(point, e2e_ms_mean=250.0, e2e_ms_p99=342.0) and "e2e_ms_p90" not in point.measured
    assert (point.model, point.concurrency) == ("old-8b", 16)
    with pytest.raises(PlannerError, match="'request_latency' is in 'fortnights'"):
        read_bench(written(tmp_path, old | {"request_latency": {"unit": "fortnights", "avg": 1}}), asked)
    assert one(written(tmp_path, new | {"was_cancelled": True}), asked).unread == "the run was cancelled"


def test_trap_6_inferencex_counts_decode_gpus_alone_and_turns_percentiles_round(tmp_path: Path) -> None:
    row = raw("inferencex-agg.handwritten.json")
    apart = row | {
        "disagg": True, "is_multinode": True, "num_prefill_gpu": 8, "num_decode_gpu": 16, "prefill_tp": 4, "decode_tp": 16, "framework": "dynamo-sglang",
        "dp_attention": "true",
    }  # fmt: skip
    unit, whole = read_bench(written(tmp_path, [apart, row]), Setup())
    assert unit.measured["output_tps_total"] == 16 * 695.0 and unit.gpus == 24
    assert (unit.mode, unit.notes, unit.dp, whole.dp) == ("disagg", "prefill 2w tp4, decode 1w tp16", 0, 1)
    alone = {k: v for k, v in row.items() if "tpot" not in k} | {"p99_intvty": 40.0}
    assert near(one(written(tmp_path, alone), Setup()), tpot_ms_p99=25.0)
    assert "tpot_ms_mean" not in one(written(tmp_path, alone), Setup()).measured  # a mean of reciprocals tells none


def test_trap_7_infinity_nan_lines_and_what_stands_beside(tmp_path: Path) -> None:
    run = raw(VLLM)
    lines = "\n".join(json.dumps(run | {"max_concurrency": n}) for n in (8, 16)) + "\n"
    assert [p.concurrency for p in read_bench(written(tmp_path, lines), ALL)] == [8, 16]
    text = json.dumps(run | {"p90_ttft_ms": math.nan, "p99_ttft_ms": math.inf, "request_rate": math.inf})
    assert "NaN" in text and "Infinity" in text
    point = one(written(tmp_path, text))
    assert "ttft_ms_p90" not in point.measured and "ttft_ms_p99" not in point.measured and point.load == "closed_loop"
    burst = one(written(tmp_path, run | {"max_concurrency": None}))
    assert (burst.load, burst.request_rate, burst.notes) == ("burst", math.inf, "640 requests")
    for name, what in (("warmup.json", "a warm-up"), ("a.failure.json", "a run that failed"), ("a.pytorch.json", "a copy of another result")):
        with pytest.raises(PlannerError, match=f"is {what}, not a result"):
            read_bench(written(tmp_path, run, name), ALL)


def test_trap_8_a_sweep_has_its_settings_among_the_results_and_its_warmup_is_none(tmp_path: Path) -> None:
    run = {k: v for k, v in raw(VLLM).items() if k != "tp"}
    sweep = [run | {"tensor_parallel_size": tp, "run_number": n} for tp in (2, 4) for n in (-1, 0, 1)]
    points = read_bench(written(tmp_path, sweep, "summary.json"), ALL)
    assert [(p.tp, p.provenance.run) for p in points] == [(2, "run 0 of entry 2"), (2, "run 1 of entry 3"), (4, "run 0 of entry 5"), (4, "run 1 of entry 6")]


def test_trap_9_a_server_that_is_not_sglang_says_nothing_of_itself(tmp_path: Path) -> None:
    run = json.loads((BENCH / SGLANG).read_text())
    assert run["server_info"]["internal_states"] == []
    with pytest.raises(PlannerError, match="does not say --model, --gpu, --tp, --engine, --precision"):
        read_bench(written(tmp_path, run | {"server_info": None}), Setup())
    run["server_info"] |= {"enable_dp_attention": True, "dp_size": 4, "tp_size": 8, "quantization": "w8a8_fp8", "speculative_algorithm": "NEXTN"}
    spread = one(written(tmp_path, run), Setup(gpu="H200-SXM-141GB"))
    assert (spread.tp, spread.dp, spread.gpus, spread.precision, spread.spec_decode) == (8, 4, 8, "fp8", "mtp")
    run["server_info"] |= {"enable_dp_attention": False}
    assert one(written(tmp_path, run), Setup(gpu="H200-SXM-141GB")).gpus == 32  # four replicas
    assert one(written(tmp_path, run | {"request_rate": "trace"}), Setup(gpu="H200-SXM-141GB")).request_rate is None


def test_how_often_an_engine_looks_for_requests_is_told_by_its_arguments(tmp_path: Path) -> None:
    run, gpu = json.loads((BENCH / SGLANG).read_text()), Setup(gpu="H200-SXM-141GB")
    assert one(BENCH / SGLANG, gpu).poll_steps == 1  # settings that a version lacks
    for told, steps in (({"scheduler_recv_interval": 30}, 30), ({"scheduler_recv_interval": 1, "num_continuous_decode_steps": 4}, 4)):
        assert one(written(tmp_path, run | {"server_info": run["server_info"] | told}), gpu).poll_steps == steps
    report = report_of()
    report["scenario"]["stack"][0]["native"]["args"] = {"--scheduler-recv-interval": "10", "--quantization": "fp8"}
    found = one(written(tmp_path, report), Setup())
    assert (found.poll_steps, found.precision) == (10, "fp8") and one(written(tmp_path, report_of()), Setup()).poll_steps == 1
    assert one(written(tmp_path, report_of()), Setup(poll_steps=7)).poll_steps == 7  # a flag, where no file says so


def test_trap_10_who_counted_the_tokens_is_kept_and_a_difference_told() -> None:
    point = one(BENCH / AIPERF, ALL.model_copy(update={"tp": 2}))
    assert (point.provenance.token_source, point.notes) == ("client", "prompt tokens 200 by the client, 69.825 by the server")
    assert one(BENCH / "inferencex-agg.handwritten.json", Setup()).provenance.token_source == "nominal"


def test_trap_11_an_offline_run_is_an_upper_bound_without_latencies() -> None:
    point = one(BENCH / "trtllm-bench-report.handwritten.json", Setup())
    assert point.measured == {"output_tps_total": 3297.0, "request_rate_achieved": 10.99}
    assert (point.load, point.gpu, point.engine, point.engine_version, point.precision) == ("offline", "NVIDIA H100 80GB HBM3", "trtllm", "1.4.0", "fp8")
    assert point.notes == "1000 requests, offline: an upper bound" and point.provenance.tool == trtllm.TOOL


def report_of(tool: str = "inference-perf", latency: Raw | None = None, engine: Raw | None = None, **load: object) -> Raw:
    """A report of llm-d's, as small as its schema lets it be."""
    standard = {
        "kind": "inference_engine", "tool": "vllm/vllm-openai", "tool_version": "vllm/vllm-openai:v0.33.0", "role": "replica", "replicas": 1,
        "model": {"name": LLAMA}, "accelerator": {"model": "NVIDIA-H100-80GB-HBM3", "count": 4, "parallelism": {"tp": 4}},
    }  # fmt: skip
    component = {"metadata": {"label": "a", "cfg_id": "b"}, "standardized": standard | (engine or {}), "native": {"args": {"--quantization": "fp8"}}}
    asked = {"tool": tool, "tool_version": "1", "source": "random", "input_seq_len": {"distribution": "fixed", "value": 1000}, "concurrency": 8}
    result = {"requests": {"total": 100}, "latency": latency or {"time_per_output_token": {"units": "s/token", "mean": 0.02}}, "throughput": {}}
    return {
        "version": "0.2", "run": {"uid": "u"}, "results": {"request_performance": {"aggregate": result}},
        "scenario": {"stack": [component], "load": {"metadata": {}, "standardized": asked | {"output_seq_len": {"value": 200}} | load, "native": {}}},
    }  # fmt: skip


def test_trap_12_percentiles_in_either_case(tmp_path: Path) -> None:
    given = {"time_to_first_token": {"units": "ms", "mean": 210.0, "P50": 200.0, "p90": 300.0, "P99": 900.0}}
    assert near(one(written(tmp_path, report_of(latency=given)), Setup()), ttft_ms_p50=200.0, ttft_ms_p90=300.0, ttft_ms_p99=900.0)


@pytest.mark.parametrize("tool", ["inference-perf", "guidellm", "vllm-benchmark", "inferencemax", "aiperf"])
def test_llmds_reports_of_all_five_harnesses(tmp_path: Path, tool: str) -> None:
    latency = {"inter_token_latency": {"units": "ms/token", "mean": 21.0}, "time_to_first_token": {"units": "s", "mean": 0.3}}
    point = one(written(tmp_path, report_of(tool=tool, latency=latency)), Setup())
    assert near(point, tpot_ms_mean=21.0, ttft_ms_mean=300.0)
    assert (point.provenance.tool, point.isl, point.osl, point.concurrency) == (tool, 1000, 200, 8)  # lengths as asked, where none were counted


def test_llmds_stack_may_be_a_unit_a_simulation_or_shared(tmp_path: Path) -> None:
    report = report_of()
    decode = json.loads(json.dumps(report["scenario"]["stack"][0]))
    decode["standardized"] |= {"role": "decode", "replicas": 2}
    report["scenario"]["stack"][0]["standardized"]["role"] = "prefill"
    report["scenario"]["stack"].append(decode)
    unit = one(written(tmp_path, report), Setup())
    assert (unit.mode, unit.gpus, unit.notes) == ("disagg", 12, "prefill 1w tp4, decode 2w tp4")
    sim = one(written(tmp_path, report_of(engine={"tool": "llm-d-inference-sim"})), Setup(engine="vllm"))
    assert sim.provenance.confidence == "simulated"
    shared = report_of()
    shared["scenario"]["load"]["metadata"]["concurrent_with"] = ["other"]
    assert "AMBIGUOUS" in one(written(tmp_path, shared), Setup()).notes
    with pytest.raises(PlannerError, match=r"version 0\.1 \(reports of version 0\.2"):
        read_bench(written(tmp_path, report_of() | {"version": "0.1"}), Setup())


# ---- loads


@pytest.mark.parametrize(
    ("rate", "most", "e2e_ms", "load", "concurrency"),
    [
        (5.0, None, 10_000, "open_loop", None),
        (5.0, 64, 2_000, "open_loop", None),  # 9.8 in flight of 64
        (50.0, 64, 13_000, "closed_loop", 64),  # 63.4 in flight: the limit sets the pace
        ("inf", 64, 13_000, "closed_loop", 64),
        ("inf", None, 13_000, "burst", None),
    ],
)
def test_which_load_it_is(tmp_path: Path, rate: object, most: int | None, e2e_ms: float, load: str, concurrency: float | None) -> None:
    point = one(written(tmp_path, raw(VLLM) | {"request_rate": rate, "max_concurrency": most, "mean_e2el_ms": e2e_ms}))
    assert (point.load, point.concurrency) == (load, concurrency)


def test_gamma_arrivals_are_not_taken_for_poisson(tmp_path: Path) -> None:
    point = one(written(tmp_path, raw(VLLM) | {"request_rate": 5.0, "max_concurrency": None, "burstiness": 0.5}))
    assert "AMBIGUOUS: burstiness 0.5" in point.notes


# ---- what a file lacks is told, or asked for; never guessed


def test_what_is_missing_is_asked_for_by_its_flags() -> None:
    with pytest.raises(PlannerError) as error:
        read_bench(BENCH / VLLM, Setup())
    assert error.value.exit_code == 2
    assert "does not say --engine, --precision" in str(error.value) and "--engine vllm@0.33.0 --precision fp8" in str(error.value)


def test_a_sidecar_tells_of_all_files_beside_it_and_of_single_ones(tmp_path: Path) -> None:
    run = {k: v for k, v in raw(VLLM).items() if k not in ("gpu", "tp")}
    a, b = written(tmp_path, run, "a.json"), written(tmp_path, run, "b.json")
    written(tmp_path, 'gpu = "H100-SXM-80GB"\ntp = 4\nengine = "vllm@0.33.0"\nprecision = "fp8"\n[file."b.json"]\ntp = 8\n', SIDECAR)
    assert [one(p, Setup()).tp for p in (a, b)] == [4, 8]
    assert one(a, Setup(tp=2)).tp == 2  # a flag is nearer
    written(tmp_path, "gpu = 'L4'\ntensor_parallel = 4\n", SIDECAR)
    with pytest.raises(PlannerError, match=r"bench\.meta\.toml:2: unknown key 'tensor_parallel'"):
        read_bench(a, Setup())


def test_a_sidecar_says_which_gpu_a_files_word_means(tmp_path: Path) -> None:
    path = written(tmp_path, raw(VLLM))  # it says H100
    written(tmp_path, "gpu = 'H100-NVL-94GB'\nengine = 'vllm'\nprecision = 'fp8'\ntp = 8\n", SIDECAR)
    assert (one(path, Setup()).gpu, one(path, Setup()).tp) == ("H100-NVL-94GB", 4)  # sizes are the file's own
    assert one(path, Setup(gpu="H100-PCIe-80GB")).gpu == "H100-PCIe-80GB"


def test_a_misspelt_precision_is_told() -> None:
    with pytest.raises(PlannerError, match=r"--precision: unknown precision 'pf8' \(did you mean 'fp8'"):
        read_bench(BENCH / VLLM, ALL.model_copy(update={"precision": "pf8"}))


def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    for text, said in ((json.dumps(raw(VLLM)), ""), ("nothing", "is no")):
        pipe = tmp_path / f"pipe{len(said)}"
        os.mkfifo(pipe)
        threading.Thread(target=pipe.write_text, args=(text,), daemon=True).start()
        if said:
            with pytest.raises(PlannerError, match=f"^{pipe}: {said}"):
                read_bench(pipe, ALL)
        else:
            assert one(pipe).measured["tpot_ms_p99"] == 46.0


def test_a_flag_that_contradicts_the_file_is_refused() -> None:
    with pytest.raises(PlannerError, match=r"--tp 8: the file says tp 4"):
        read_bench(BENCH / VLLM, ALL.model_copy(update={"tp": 8}))
    with pytest.raises(PlannerError, match=r"the file says engine sglang"):
        read_bench(BENCH / SGLANG, ALL)


def test_a_precision_in_the_models_name_is_told(tmp_path: Path) -> None:
    point = one(written(tmp_path, raw(VLLM) | {"model_id": "Qwen/Qwen3-32B-FP8"}), Setup(engine="vllm"))
    assert point.precision == ""  # its name says it
    assert one(BENCH / VLLM, Setup(engine="vllm", precision="checkpoint")).precision == ""


def test_runs_without_requests_or_lengths_keep_their_place(tmp_path: Path) -> None:
    nothing = raw(VLLM) | {"completed": 0, "total_input_tokens": 0, "total_output_tokens": 0}
    assert [p.unread for p in read_bench(written(tmp_path, [raw(VLLM), nothing]), ALL)] == ["", "no request was completed"]
    lengths = one(written(tmp_path, raw(VLLM) | {"total_output_tokens": None}))
    assert lengths.unread == "the file does not say its lengths" and not lengths.measured


# ---- round trip


def test_points_read_back_as_they_were_written(tmp_path: Path) -> None:
    points = [p for name in (VLLM, GUIDE) for p in read_bench(BENCH / name, ALL)] + read_bench(BENCH / "inferencex-agg.handwritten.json", Setup())
    points.append(replace(points[-1], poll_steps=30))
    path = written(tmp_path, csv_text(COLUMNS, [cells_of(p) for p in points]), "points.csv")
    back = read_points(path)
    assert [cells_of(p) for p in back] == [cells_of(p) for p in points]
    assert [p.poll_steps for p in back] == [1] * (len(points) - 1) + [30]
    assert [p.provenance for p in back] == [p.provenance for p in points] and [p.measured for p in back] == [dict(p.measured) for p in points]


# ---- what anybody may hand over


def nested(depth: int) -> str:
    return '{"model_id": ' + "[" * depth + "]" * depth + "}"


@pytest.mark.parametrize(
    ("content", "name", "words"),
    [
        ("", "a.json", "the file is empty"),
        ("{", "a.json", "is no valid JSON"),
        ('{"a": 1}', "a.json", "is no result of a benchmark that is known"),
        ("[1, 2]", "a.json", "holds other things than objects"),
        ("[]", "a.json", "is no result of a benchmark that is known"),
        (nested(200_000), "a.json", "is nested too deeply"),
        ('{"n": ' + "9" * 10_000 + "}", "a.json", "is no valid JSON"),
        ("a: " * 3, "a.yaml", "is no valid YAML"),
        ("version: !!python/object/apply:os.system ['true']", "a.yaml", "carries the tag tag:yaml.org,2002:python"),
        ("version: !x 1", "a.yaml", "carries the tag !x"),
        ("a: &a [1]\nb: *a\n", "a.yaml", "carries an alias"),
        ("- " * 5_000, "a.yaml", "is nested too deeply"),
        ("[" * 50_000, "a.yaml", "is nested too deeply|is no valid"),
        ("Run Info,Run Info\n", "a.csv", "is GuideLLM's CSV"),
    ],
)
def test_files_that_are_none(tmp_path: Path, content: str, name: str, words: str) -> None:
    with pytest.raises(PlannerError, match=words):
        read_bench(written(tmp_path, content, name), ALL)


def test_large_files_are_refused_before_they_are_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.write(b'{"model_id": "a"}\n')
        file.truncate(100 * limits.MIB)
    with pytest.raises(PlannerError, match="more than 64 MiB"):
        read_bench(path, ALL)
    monkeypatch.setattr("planner.bench.read.YAML_BYTES", 10)
    with pytest.raises(PlannerError, match="the most that is read whole"):
        read_bench(written(tmp_path, "version: '0.2'", "a.yaml"), ALL)


@pytest.mark.parametrize("make", [lambda _: Path("/etc"), lambda p: p / "none.json", lambda p: Path("a\0b")], ids=["folder", "none", "nul"])
def test_what_is_no_file(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    with pytest.raises(PlannerError):
        read_bench(make(tmp_path), ALL)


HOSTILE = "=cmd|'/c calc'!A1\x1b[31m\u202e<img src=x onerror=alert(1)>"


def test_names_can_do_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, raw(VLLM) | {"model_id": HOSTILE, "gpu": "../../../etc/passwd", "date": "../../x"})
    point = one(path, Setup(engine="vllm", precision="fp8"))
    assert point.model.isprintable() and point.date == ""
    text = csv_text(COLUMNS, [cells_of(point)])
    cell = list(csv.reader(io.StringIO(text)))[1][COLUMNS.index("model")]
    assert cell.startswith("'=") and read_points(written(tmp_path, text, "a.csv"))[0].model == point.model
    with pytest.raises(PlannerError, match="more than 200 characters"):
        read_bench(written(tmp_path, raw(VLLM) | {"model_id": "x" * 10_000}), ALL)


@pytest.mark.parametrize("value", [-1.0, 1e12, True, "fast", [], {}, None])
def test_numbers_that_are_none_are_missing_or_refused(tmp_path: Path, value: object) -> None:
    path = written(tmp_path, raw(VLLM) | {"mean_ttft_ms": value})
    if isinstance(value, float):
        with pytest.raises(PlannerError, match=r"'mean_ttft_ms' is .*, which nothing measured can be"):
            read_bench(path, ALL)
    else:
        assert "ttft_ms_mean" not in one(path).measured


def test_fuzzed_samples_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    """Every value of every sample replaced by something else, one at a time: points, or one PlannerError."""
    strange: list[object] = [None, "", -1, 1e300, [], {}, "x", True, [None], {"a": 1}]
    count = 0
    for name in (VLLM, AIPERF, "inferencex-agg.handwritten.json", "trtllm-bench-report.handwritten.json"):
        for i, key in enumerate(raw(name)):
            path = written(tmp_path, raw(name) | {key: strange[i % len(strange)]})
            try:
                points = read_bench(path, ALL.model_copy(update={"engine": "", "precision": ""}))
            except PlannerError as error:
                assert "\n" not in str(error)
            else:
                assert all(isinstance(p, MeasuredPoint) for p in points)
            count += 1
    assert count > 100


def test_readers_tell_each_other_apart() -> None:
    for path in BENCH.glob("*.json*"):
        first = json.loads(path.read_text().splitlines()[0]) if path.suffix == ".jsonl" else raw(path.name)
        assert sum(r.is_it(first) for r in READERS) == 1, path.name


def test_gpus_of_samples_mean_one_in_the_catalogue() -> None:
    from planner import load_catalog
    from planner.bench.labels import labels_of

    labels = labels_of(load_catalog())
    for name in inferencex.RUNNERS.values():
        assert isinstance(labels.gpu(name), int), name
    assert isinstance(map_point(one(BENCH / "llmd-br-0.2.handwritten.yaml", Setup()), labels), tuple)
