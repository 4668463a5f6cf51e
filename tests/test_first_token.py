"""What the mean time to first token is made of, against a simulation that counts the parts of every request; and how sure latencies are."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scheduler import simulate
from test_performance_capacity import line, seqs

from planner import Scenario, solve
from planner.catalog.load import load_catalog
from planner.check.check import check_plan
from planner.performance import closed
from planner.performance.bands import FORMULAS, latency_bands
from planner.performance.capacity import capacity, service
from planner.performance.disaggregated import Units, unit_bound, unit_service
from planner.performance.first_token import PARTS
from planner.performance.lengths import lognormal_mix
from planner.validation.single import AskedConfiguration, forecast

# Input, output, CV, slots, whether prompts share steps. Of queues the formula is on the safe side near saturation (docs/simulation.md).
CASES = [(512, 256, 1.0, 256, True), (512, 256, 1.0, 40, True), (4000, 300, 0.5, 256, True), (32000, 500, 0.2, 256, True), (2000, 100, 0.5, 256, False)]


@pytest.mark.parametrize("load", [0.2, 0.6, 0.85])
@pytest.mark.parametrize("case", CASES)
def test_parts_are_those_of_a_simulation_of_every_step(case: tuple[float, float, float, int, bool], load: float) -> None:
    inputs, outputs, cv, slots, chunked = case
    mix, whole = lognormal_mix(inputs, outputs, 0.8 * cv, cv), None if chunked else np.array([6.5e-3])
    curves = replace(line(), whole_prompt_s=whole)
    rate = load * capacity(curves, mix, [], seqs(slots)).qps
    found, run = service(curves, mix, rate, seqs(slots)), simulate(float(rate[0]), mix, slots, count=20_000, chunked=chunked)
    parts = {name: float(value[0]) for name, value in found.ttft_parts_s.items()}
    assert tuple(parts) == PARTS
    assert sum(parts.values()) == pytest.approx(found.ttft_s["mean"][0])
    mean = run.ttft.mean()
    assert sum(value.mean() for value in run.parts.values()) == pytest.approx(mean)
    for name, value in run.parts.items():
        above = 0.4 if name == "queue" else 0.04
        assert value.mean() - 0.05 * mean < parts[name] < value.mean() + above * mean, name
    assert parts["request"] == parts["transfer"] == parts["reasoning"] == 0


def test_overhead_and_reasoning_are_parts_of_their_own() -> None:
    mix = lognormal_mix(512, 256, 0.5, 0.5)
    bare, late = (service(line(overhead=h), mix, np.array([2.0]), seqs(256), reasoning=share) for h, share in ((0.0, 0.0), (0.02, 0.5)))
    assert late.ttft_parts_s["request"][0] == 0.02
    assert late.ttft_parts_s["reasoning"][0] == pytest.approx(128 * late.tpot_s["mean"][0], rel=0.02)
    assert late.ttft_parts_s["prefill"][0] == pytest.approx(bare.ttft_parts_s["prefill"][0])


@pytest.mark.parametrize("in_flight", [1.0, 20.0, 200.0, 400.0])
def test_parts_of_requests_in_flight_add_up_and_wait_more_where_more_are_there(in_flight: float) -> None:
    mix = lognormal_mix(4000, 300, 0.3, 0.3)
    found, _ = closed.service(line(overhead=0.01), mix, np.array([in_flight]), seqs(256))
    fewer, _ = closed.service(line(overhead=0.01), mix, np.array([in_flight / 2]), seqs(256))
    parts = {name: float(value[0]) for name, value in found.ttft_parts_s.items()}
    assert sum(parts.values()) == pytest.approx(found.ttft_s["mean"][0])
    assert all(value >= 0 for value in parts.values())
    assert parts["prefill"] == pytest.approx(4000 * 27e-6, rel=0.25)  # TTFT is settled by Little's law, and its parts with it
    assert parts["queue"] >= fewer.ttft_parts_s["queue"][0]


def test_of_a_unit_the_cache_sent_over_is_a_part() -> None:
    mix, one = lognormal_mix(4000, 300, 0.3, 0.3), np.array([1])
    units = Units(line(), line(), one, one, np.full((1, len(mix.input_tokens)), 0.005), seqs(64))
    found = unit_service(units, mix, (), 0.5 * unit_bound(units, mix))
    parts = {name: float(value[0]) for name, value in found.ttft_parts_s.items()}
    assert sum(parts.values()) == pytest.approx(found.ttft_s["mean"][0])
    assert parts["transfer"] == pytest.approx(0.005)
    assert parts["first_decode"] == 0  # the prefill engine writes the first token


def test_parts_of_a_prediction_add_up() -> None:
    asked = AskedConfiguration("openai/gpt-oss-120b", "H200-SXM-141GB", 2, 1, 1, 1, "auto", "vllm", 8192, 1024, (1, 64, 8000), 0.9)
    found = forecast(asked, load_catalog(()))
    for p in found.points:
        assert sum(p.ttft_parts_ms.values()) == pytest.approx(p.ttft_ms, rel=1e-4)
    one, many, too_many = (p.ttft_parts_ms for p in found.points)
    assert one["queue"] == 0
    assert many["queue"] < 0.9 * found.points[1].ttft_ms < too_many["queue"]  # beyond what has room, requests mostly wait
    assert json.loads(json.dumps(found.to_dict()))["points"][0]["ttft_parts_ms"] == one


@pytest.mark.parametrize(("load", "more"), [(0.3, 1.1), (0.9, 1.8)])
def test_a_queue_makes_more_of_slower_steps_the_fuller_it_is(load: float, more: float) -> None:
    """Steps and prompts that take a tenth longer, at the same rate: prompts queue for steps that they nearly fill."""
    mix = lognormal_mix(32000, 500, 0.2, 0.2)
    rate = load * capacity(line(), mix, [], seqs(256)).qps
    expected, slower = (service(line().scaled(np.array([f])), mix, rate, seqs(256)) for f in (1.0, 1.08))
    above = latency_bands(expected, slower, 0.9)
    grown = above["ttft"]["p95"] / expected.ttft_s["p95"][0]
    assert grown > slower.ttft_s["p95"][0] / expected.ttft_s["p95"][0] > more - 0.05
    assert above["tpot"]["p50"] < above["tpot"]["p99"]
    below = latency_bands(expected, service(line().scaled(np.array([0.92])), mix, rate, seqs(256)), 0.1)
    assert below["ttft"]["p95"] < expected.ttft_s["p95"][0] < above["ttft"]["p95"]


def test_the_formulas_error_is_in_every_band_and_no_band_ends_where_the_load_is_not_served() -> None:
    mix = lognormal_mix(512, 256, 0.5, 0.5)
    rate = 0.8 * capacity(line(), mix, [], seqs(256)).qps
    same, slow = (service(line().scaled(np.array([f])), mix, rate, seqs(256)) for f in (1.0, 1.5))
    z = 1.2816
    for metric, shares in latency_bands(same, same, 0.9).items():
        for name, sd in (("p50", FORMULAS[metric][0]), ("p99", FORMULAS[metric][2])):
            assert shares[name] == pytest.approx(getattr(same, f"{metric}_s")[name][0] * np.exp(z * sd), rel=1e-4)
    assert not slow.settles[0]
    assert set(latency_bands(same, slow, 0.9)["ttft"].values()) == {np.inf}
    assert latency_bands(same, slow, 0.1)["ttft"]["p50"] == np.inf


QUESTIONS: dict[str, dict[str, Any]] = {
    "a rate": {"workload": [{"qps": 20, "min_quality": 0.6}]},
    "in flight": {"workload": [{"concurrency": 300, "min_quality": 0.6}]},
    "shared": {"workload": [{"name": n, "qps": 1, "min_quality": 0.6, "output_tokens": o} for n, o in (("short", 100), ("long", 900))]},
    "thinking": {"workload": [{"qps": 2, "models": ["Qwen/Qwen3-4B-Thinking-2507"], "slo": {"ttft_p95": "200s"}, "output_factor": 8}]},
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_deployments_of_plans_state_parts_and_bands_and_the_check_derives_both(name: str) -> None:
    plan = solve(Scenario.model_validate(QUESTIONS[name]), compare=False)
    one = {d.checkpoint for d in plan.deployments}
    for d in plan.deployments:
        for s in d.service:
            got = next(w for w in plan.workloads if w.name == s.workload)
            assert got.predicted is not None
            parts = s.ttft_parts_ms.model_dump()
            assert (parts["reasoning"] > 0) == (name == "thinking")
            if len(one) == 1:
                assert sum(parts.values()) == pytest.approx(got.predicted.ttft_ms.mean, rel=1e-6)
                assert s.ttft_p95_ms == pytest.approx(got.predicted.ttft_ms.p95)
            assert s.ttft_ms.median is not None
            assert s.ttft_ms.median.p95 < s.ttft_p95_ms  # steps that hold at 0.8 are longer than those expected
            assert s.ttft_ms.at_90 is None or s.ttft_ms.at_90.p99 > s.ttft_ms.median.p99
    assert sum(len(d.service) for d in plan.deployments) == sum(len(w.routing) for w in plan.workloads)
    first = plan.deployments[0]
    told = first.service[0]
    wrong = told.model_copy(update={"ttft_parts_ms": told.ttft_parts_ms.model_copy(update={"queue": told.ttft_parts_ms.queue + 1})})
    late = told.model_copy(update={"e2e_ms": told.e2e_ms.model_copy(update={"at_90": None if told.e2e_ms.at_90 else told.e2e_ms.median})})
    for other in (wrong, late, told.model_copy(update={"workload": "nobody"})):
        edited = plan.model_copy(update={"deployments": (first.model_copy(update={"service": (other, *first.service[1:])}), *plan.deployments[1:])})
        assert {b.name for b in check_plan(edited, load_catalog(())).breaches} == {"service"}
    earlier = plan.model_copy(update={"deployments": tuple(d.model_copy(update={"service": ()}) for d in plan.deployments)})
    assert not check_plan(earlier, load_catalog(())).breaches  # as planners before wrote them
