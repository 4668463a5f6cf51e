"""`plan drift`: a plan's assumptions beside live metrics; what has left its range, what cannot be told, and how an address is fetched."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import inf
from pathlib import Path
from typing import Any

import pytest

from planner import Plan, Scenario, load_catalog, solve
from planner.demand.fetched import fetched
from planner.demand.live import live_of
from planner.demand.prometheus import samples_in
from planner.errors import PlannerError
from planner.validation.drift import LEFT, SPARE, UNKNOWN, UNSURE, WITHIN, drifts
from tests.conftest import Run

HOUR = 3600
MODEL = "meta-llama/Llama-3.1-8B-Instruct"


@cache
def plan() -> Plan:
    asked = {"workload": [{"qps": 30, "models": ["Llama-3.1-8B"], "input_tokens": 1000, "output_tokens": 300, "prefix_cache_hit": 0.3}]}
    supply = {"gpus": ["H100-SXM-80GB"]}
    return solve(Scenario.model_validate(asked | {"supply": supply, "policy": {"engines": ["vllm"], "precisions": ["bf16"]}}), load_catalog(), compare=False)


def served(name: str) -> float:
    """A figure of the plan that live ones are made from; latencies are those at p95 that are not exceeded with 90 %, in seconds."""
    d = plan().deployments[0]
    (of,) = d.service
    assert of.ttft_ms.at_90 is not None and of.tpot_ms.at_90 is not None and d.in_flight_per_replica is not None
    seconds = {"ttft": of.ttft_ms.at_90.p95 / 1000, "tpot": of.tpot_ms.at_90.p95 / 1000}
    return (seconds | {"held": d.in_flight_per_replica * d.replicas, "replicas": d.replicas})[name]


Series = dict[str, Any]


def range_of(samples: dict[tuple[str, tuple[tuple[str, str], ...]], list[float]], step: float = 60.0) -> str:
    """The answer of a range query."""
    told = [({"__name__": name, **dict(labels)}, values) for (name, labels), values in samples.items()]
    result: list[Series] = [{"metric": labels, "values": [[i * step, str(v)] for i, v in enumerate(values)]} for labels, values in told]
    return json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}})


def metrics(**changed: float) -> str:
    """An hour of what the plan assumes, with some of it times a factor, or set: waiting, kv, preempted, rejected."""
    factors = {"rate": 1, "prompt": 1, "answer": 1, "hits": 1, "ttft": 0.9, "tpot": 0.9, "held": 1}
    given = factors | {"waiting": 0, "kv": 0.5, "preempted": 0, "rejected": 0} | changed
    per_engine, n = 30 * given["rate"] / served("replicas"), int(HOUR / 60) + 1
    samples: dict[tuple[str, tuple[tuple[str, str], ...]], list[float]] = {}

    def counter(name: str, per_second: float, **labels: str) -> None:
        for i in range(int(served("replicas"))):
            told = (("instance", f"pod-{i}:8000"), ("engine", "0"), ("model_name", MODEL), *labels.items())
            samples[name, told] = [per_second * 60 * t + 1e5 for t in range(n)]

    def gauge(name: str, value: float) -> None:
        counter(name, 0.0)
        for key in [k for k in samples if k[0] == name]:
            samples[key] = [value] * n

    def histogram(name: str, at: float, mean: float, width: float = 1.02) -> None:
        """Nine tenths far below, a tenth in the narrow bucket that ends at ``at``: p95 is there."""
        for edge, share in ((at / width / 4, 0.5), (at / width, 0.9), (at, 1.0), (inf, 1.0)):
            counter(f"{name}_bucket", per_engine * share, le="+Inf" if edge == inf else repr(edge))
        counter(f"{name}_count", per_engine)
        counter(f"{name}_sum", per_engine * mean)

    histogram("vllm:request_prompt_tokens", 2700 * given["prompt"], 1000 * given["prompt"])
    histogram("vllm:request_generation_tokens", 740 * given["answer"], 300 * given["answer"])
    histogram("vllm:time_to_first_token_seconds", served("ttft") * given["ttft"], 0.1)
    histogram("vllm:request_time_per_output_token_seconds", served("tpot") * given["tpot"], 0.01)
    counter("vllm:prefix_cache_queries_total", 1000.0)
    counter("vllm:prefix_cache_hits_total", 300.0 * given["hits"])
    counter("vllm:num_preemptions_total", per_engine * given["preempted"])
    counter("vllm:admission_rejections_total", per_engine * given["rejected"], reason="full")
    gauge("vllm:num_requests_running", served("held") * given["held"] / served("replicas"))
    gauge("vllm:num_requests_waiting", given["waiting"] / served("replicas"))
    gauge("vllm:kv_cache_usage_perc", given["kv"])
    return range_of(samples)


def verdicts(text: str, tolerance: float = 0.2, replicas: int | None = None) -> dict[str, str]:
    (found,) = drifts(plan(), samples_in(text, "test")[0], tolerance, replicas=replicas)
    return {a.name: a.verdict for a in found.assumptions}


def test_an_hour_as_planned_leaves_nothing() -> None:
    found = verdicts(metrics())
    assert set(found.values()) == {WITHIN}, found
    assert {"rate", "rate, busiest 60 s", "prompt tokens, p95", "TTFT p95, limit", "TPOT p95, predicted", "prefix-cache hits", "requests rejected"} <= set(
        found
    )


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({"rate": 1.3}, {"rate", "rate, busiest 60 s"}),
        ({"prompt": 1.3}, {"prompt tokens, mean", "prompt tokens, p95"}),
        ({"answer": 1.3}, {"answer tokens, mean", "answer tokens, p95"}),
        ({"hits": 0.5}, {"prefix-cache hits"}),
        ({"ttft": 1.1}, {"TTFT p95, predicted"}),
        ({"ttft": 100}, {"TTFT p95, limit", "TTFT p95, predicted"}),
        ({"tpot": 1.1}, {"TPOT p95, predicted"}),
        ({"tpot": 20}, {"TPOT p95, predicted", "TPOT p95, limit"}),
        ({"held": 1.5}, {"requests in flight"}),
        ({"kv": 0.97}, {"KV cache in use"}),
        ({"preempted": 0.05}, {"preemptions per request"}),
        ({"rejected": 0.02}, {"requests rejected"}),
    ],
)
def test_each_assumption_that_leaves_its_range_is_named(changed: dict[str, float], names: set[str]) -> None:
    assert {n for n, v in verdicts(metrics(**changed)).items() if v == LEFT} == names


def test_waiting_requests_count_against_those_in_flight() -> None:
    assert verdicts(metrics(waiting=0.5 * served("held")))["requests waiting"] == LEFT


def test_tolerance_moves_the_ranges() -> None:
    assert verdicts(metrics(rate=1.3), tolerance=0.5)["rate"] == WITHIN
    assert verdicts(metrics(rate=1.1), tolerance=0.05)["rate"] == LEFT


def test_a_plan_that_states_no_band_is_held_to_the_tolerance() -> None:
    bare = plan().model_copy(update={"deployments": tuple(d.model_copy(update={"service": ()}) for d in plan().deployments)})
    for tolerance, verdict in ((0.0, LEFT), (1.0, WITHIN)):
        (found,) = drifts(bare, samples_in(metrics(tpot=1.0), "test")[0], tolerance)
        assert next(a for a in found.assumptions if a.name == "TPOT p95, predicted").verdict == verdict


def test_less_than_planned_is_room_to_spare() -> None:
    found = verdicts(metrics(rate=0.3, prompt=0.5))
    assert (found["rate"], found["prompt tokens, mean"]) == (SPARE, SPARE) and LEFT not in found.values()


def test_a_wide_bucket_is_unsure_and_fails_nothing() -> None:
    """All requests between 0 and one edge beyond the limit: nobody knows on which side of it they are."""
    labels = (("instance", "a"), ("model_name", MODEL))
    buckets = {("vllm:time_to_first_token_seconds_bucket", (*labels, ("le", le))): [0.0, 100.0] for le in ("100", "+Inf")}
    found = verdicts(range_of(buckets))
    assert found["TTFT p95, limit"] == UNSURE and found["prompt tokens, mean"] == UNKNOWN


def test_restarts_and_new_engines_are_no_traffic() -> None:
    """A counter that falls has begun anew; a series that appears in the middle counts from its first sample."""
    name, edge = "vllm:request_prompt_tokens_bucket", ("le", "+Inf")
    a, b = ((("instance", i), ("model_name", MODEL), edge) for i in ("a", "b"))
    text = json.loads(range_of({(name, a): [1000.0, 1060.0, 60.0, 120.0], (name, b): [5e6, 5e6 + 60, 5e6 + 120, 5e6 + 180]}))
    text["data"]["result"][1]["values"] = text["data"]["result"][1]["values"][2:]
    live = live_of(samples_in(json.dumps(text), "test")[0], MODEL, "test")
    assert live.requests == 60 + 60 + 60 + 60 and live.engines == 2
    assert live.rate == pytest.approx(240 / 180) and live.peak_rate == pytest.approx(120 / 60)


def test_metrics_of_one_replica_are_held_against_its_share() -> None:
    labels = (("engine", "0"), ("model_name", MODEL), ("le", "+Inf"))
    one = 30 / served("replicas")
    text = range_of({("vllm:request_prompt_tokens_bucket", labels): [0.0, one * 60]})
    (found,) = drifts(plan(), samples_in(text, "test")[0], 0.2)
    assert served("replicas") > 1 and found.of_replicas == 1
    assert next(a for a in found.assumptions if a.name == "rate").verdict == WITHIN
    assert verdicts(text, replicas=int(served("replicas")))["rate"] == SPARE  # the same, told to be of all


def test_names_of_opentelemetry_and_old_ones_of_vllm() -> None:
    both = (("gen_ai.request.model", MODEL),)
    given = {("gen_ai.client.token.usage_bucket", (*both, ("gen_ai.token.type", side), ("le", "+Inf"))): [0.0, 60.0] for side in ("input", "output")}
    given |= {("gen_ai.client.token.usage_sum", (*both, ("gen_ai.token.type", side))): [0.0, 60.0 * n] for side, n in (("input", 900.0), ("output", 200.0))}
    given |= {("gen_ai.server.time_to_first_token_bucket", (*both, ("le", le))): [0.0, n] for le, n in (("0.5", 59.0), ("1", 60.0), ("+Inf", 60.0))}
    live = live_of(samples_in(range_of(given), "test")[0], MODEL, "test")
    assert live.inputs is not None and live.outputs is not None
    assert (live.inputs.mean, live.outputs.mean) == (900.0, 200.0)
    assert live.latency_ms["ttft"].percentile(0.95) == (0.0, 500.0) and live.latency_ms["ttft"].percentile(0.99) == (500.0, 1000.0)
    old = f'vllm:time_per_output_token_seconds_bucket{{model_name="{MODEL}",le="0.05"}} 10\nvllm:gpu_cache_usage_perc{{model_name="{MODEL}"}} 0.7\n'
    seen = live_of(samples_in(old, "test")[0], "", "test")
    assert "itl" in seen.latency_ms and "tpot" not in seen.latency_ms and seen.kv_usage == 0.7  # between two tokens, not of a request


def test_models_are_matched_by_name_where_there_are_several() -> None:
    two = metrics().replace(MODEL, "other/model", 40)
    (found,) = drifts(plan(), samples_in(two, "test")[0], 0.2)
    assert found.checkpoint == plan().deployments[0].checkpoint
    with pytest.raises(PlannerError, match="the metrics are of a, b, the plan serves"):
        drifts(plan(), samples_in('vllm:x{model_name="a"} 1\nvllm:x{model_name="b"} 1\n', "test")[0], 0.2)


# ---- the verb


def test_exit_status_and_formats(run: Run, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(plan().to_json())
    for name, text in (("good", metrics()), ("bad", metrics(rate=1.5))):
        (tmp_path / f"{name}.json").write_text(text)
    status, out, _ = run("drift", tmp_path / "plan.json", "--prometheus", tmp_path / "good.json")
    assert status == 0 and "No assumption has left its range" in out
    status, out, _ = run("drift", tmp_path / "plan.json", "--prometheus", tmp_path / "bad.json")
    assert status == 1 and "Left its range: rate" in out
    status, out, _ = run("drift", tmp_path / "plan.json", "--prometheus", tmp_path / "bad.json", "--format", "json")
    answer = json.loads(out)
    assert status == 1 and answer["has_left"] and answer["tolerance"] == 0.2
    assert {a["verdict"] for a in answer["checkpoints"][0]["assumptions"] if a["assumption"].startswith("rate")} == {LEFT}
    status, out, _ = run("drift", tmp_path / "plan.json", "--prometheus", tmp_path / "bad.json", "--tolerance", "60%", "--format", "csv")
    assert status == 0 and out.startswith("checkpoint,assumption")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--tolerance", "much"), "--tolerance: is no share"),
        (("--over", "1s"), "--over"),
        (("--model", "gone"), "no model 'gone'"),
        (("--prometheus", "gone.txt"), "gone.txt"),
        (("--prometheus", "file:///etc/passwd"), "only http and https are fetched"),
        (("--prometheus", "http://me:secret@localhost/metrics"), "an address with a password"),
        (("--prometheus", "http://[bad"), "is no address"),
    ],
)
def test_errors_are_one_line(run: Run, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    (tmp_path / "plan.json").write_text(plan().to_json())
    (tmp_path / "m.json").write_text(metrics())
    status, out, err = run("drift", tmp_path / "plan.json", "--prometheus", tmp_path / "m.json", *words)
    assert status == 2 and out == "" and err.count("\n") == 1 and said in err and "secret" not in err


@pytest.mark.parametrize("text", ["", "nothing here\n", '{"data": 1}', "process_cpu_seconds_total 12\n"])
def test_what_holds_no_metrics_is_refused(run: Run, tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.json").write_text(plan().to_json())
    (tmp_path / "m.txt").write_text(text)
    status, _, err = run("drift", tmp_path / "plan.json", "--prometheus", tmp_path / "m.txt")
    assert status == 2 and err.count("\n") == 1


# ---- addresses


class Handler(BaseHTTPRequestHandler):
    """A Prometheus server that is asked for a range, an engine's /metrics, and what they should not be."""

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        body = {"/metrics": b"vllm:num_requests_running 3\n", "/api/v1/query_range": query.encode(), "/large": b"x" * (17 * 2**20)}.get(path)
        self.send_response(302 if path == "/away" else 200 if body is not None else 404)
        if path == "/away":
            self.send_header("Location", "file:///etc/passwd")
        self.end_headers()
        try:
            self.wfile.write(body or b"")
        except OSError:  # who asked has gone
            return

    def log_message(self, *_: object) -> None:
        """Silent."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_an_engine_and_a_server_are_fetched(server: str) -> None:
    assert fetched(f"{server}/metrics", HOUR, 1e9) == "vllm:num_requests_running 3\n"
    query = fetched(server, HOUR, 1e9)
    assert "start=999996400&end=1000000000&step=60" in query and "vllm" in query and "gen_ai" in query


@pytest.mark.parametrize(("path", "said"), [("/away", "answers 302"), ("/none", "answers 404"), ("/large", "more than 16 MiB")])
def test_what_an_address_may_not_do(server: str, path: str, said: str) -> None:
    with pytest.raises(PlannerError, match=said):
        fetched(f"{server}{path}", HOUR, 1e9)


def test_nobody_there() -> None:
    with pytest.raises(PlannerError, match="cannot be fetched"):
        fetched("http://127.0.0.1:9/metrics", HOUR, 1e9)
