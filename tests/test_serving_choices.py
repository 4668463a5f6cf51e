"""Ways to run an engine and to state demand: ITL and size of step, prompts in chunks or whole, prefix cache, peaks.

Formulas are held against a plain simulation (``scheduler``); plans against what the choice must do to them.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scheduler import simulate

from planner import Scenario, load_catalog, solve
from planner.candidates.points import Points
from planner.candidates.survey import ITL_STEP_TOKENS, curves_of, slots_of, survey
from planner.catalog.replica_type import ReplicaType
from planner.emit.engine import GpuMemory, Steps, serve_command
from planner.performance.capacity import Limit, capacity, service
from planner.performance.lengths import lognormal_mix
from planner.performance.step import CHUNK, GRID, StepCurves
from planner.result.plan import Plan

TINY = Path(__file__).parent / "data" / "tiny"
BASE, SLOPE, TOKEN = 6.5e-3, 0.1e-3, 27e-6  # like an 8B model on an H100
SLOTS = np.array([256])
MODELS, SUPPLY = ("Small-8B",), {"gpus": ("GPU-80", "GPU-24")}
SHARES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


def curves(batched_tokens: int = CHUNK, chunked: bool = True, cached: float = 0.0) -> StepCurves:
    """One replica whose step grows linearly with the sequences; a prompt's own step has the fixed part of a step."""
    step = (BASE + SLOPE * GRID)[None]
    whole = None if chunked else np.array([BASE])
    return StepCurves(GRID, step, np.array([TOKEN * (1 - cached)]), np.zeros(1), np.zeros_like(step), batched_tokens, whole)


# ---- inter-token latency

RUNS = [  # input, output, CV, load, tokens of a step, chunked
    (512, 256, 1.0, 0.3, CHUNK, True),
    (512, 256, 1.0, 0.7, CHUNK, True),
    (512, 256, 1.0, 0.9, CHUNK, True),
    (512, 256, 1.0, 0.7, 512, True),
    (4000, 300, 0.5, 0.7, 2048, True),
    (4000, 300, 0.5, 0.7, 512, True),
    (2000, 50, 0.5, 0.7, 2048, True),
    (200, 200, 1.0, 0.7, 1024, True),
    (512, 256, 1.0, 0.7, CHUNK, False),
]


@pytest.mark.parametrize("run", RUNS, ids=str)
def test_itl_against_simulation(run: tuple[float, float, float, float, int, bool]) -> None:
    inputs, outputs, cv, load, tokens, chunked = run
    mix, engine = lognormal_mix(inputs, outputs, 0.8 * cv, cv), curves(tokens, chunked)
    rate = load * capacity(engine, mix, [], SLOTS).qps
    predicted = service(engine, mix, rate, SLOTS)
    seen = simulate(float(rate[0]), mix, 256, BASE, SLOPE, TOKEN, tokens, chunked)
    for name, share in SHARES.items():
        assert predicted.itl_s[name][0] == pytest.approx(seen.itl_quantile(share), rel=0.16), name
    assert predicted.itl_s["mean"][0] == pytest.approx(np.average(seen.itl, weights=seen.itl_weight), rel=0.08)
    assert predicted.ttft_s["p95"][0] == pytest.approx(np.quantile(seen.ttft, 0.95), rel=0.12)


@pytest.mark.parametrize(
    ("limit", "percentile", "tokens", "caution"), [(0.025, 95, 512, 1.12), (0.04, 99, 1024, 1.12), (0.08, 99, 2048, 1.12), (0.1, 99.9, CHUNK, 1.35)]
)
def test_capacity_under_an_itl_limit_holds_in_simulation(limit: float, percentile: float, tokens: int, caution: float) -> None:
    mix = lognormal_mix(1000, 300, 0.8, 1.0)
    found = capacity(curves(tokens), mix, [Limit("itl", limit, percentile)], SLOTS).qps[0]
    assert found > 0
    for rate, holds in ((0.97 * found, True), (caution * found, False)):
        seen = simulate(rate, mix, 256, BASE, SLOPE, TOKEN, tokens, count=20_000)
        chance = 1.15 if holds else 1.0  # few steps are beyond p99.9
        assert (seen.itl_beyond(limit) <= chance * (1 - percentile / 100)) == holds


def test_no_gap_is_longer_than_a_full_step() -> None:
    mix = lognormal_mix(4000, 300, 0.8, 1.0)
    rate = 0.8 * capacity(curves(1024), mix, [], SLOTS).qps
    longest = BASE + SLOPE * 256 + TOKEN * 1024
    assert service(curves(1024), mix, rate, SLOTS).itl_s["p99"][0] <= longest
    assert service(curves(CHUNK), mix, rate, SLOTS).itl_s["p99"][0] > longest


def test_small_steps_are_for_itl_and_large_ones_for_prompts() -> None:
    mix = lognormal_mix(4000, 300, 0.5, 0.5)
    small, large = curves(512), curves(CHUNK)
    smooth, soon = [Limit("itl", 0.05, 99)], [Limit("ttft", 0.6, 95)]
    assert capacity(small, mix, smooth, SLOTS).qps[0] > 2 * capacity(large, mix, smooth, SLOTS).qps[0]
    assert capacity(small, mix, soon, SLOTS).qps[0] < capacity(large, mix, soon, SLOTS).qps[0]


# ---- whole prompts


@pytest.mark.parametrize(
    ("inputs", "outputs", "slots", "tpot"), [(512, 256, 256, 0.03), (512, 256, 256, 0.05), (512, 256, 64, 0.05), (512, 256, 1024, 0.05), (200, 200, 256, 0.05)]
)
def test_whole_prompts_cost_a_tenth_of_the_capacity_where_decoding_dominates(inputs: float, outputs: float, slots: int, tpot: float) -> None:
    mix, limits = lognormal_mix(inputs, outputs, 0.8, 1.0), [Limit("ttft", 0.5, 99), Limit("tpot", tpot, 99)]
    chunks, whole = (capacity(curves(chunked=c), mix, limits, np.array([slots])).qps[0] for c in (True, False))
    assert 0.80 < whole / chunks < 0.93

    def holds(rate: float) -> bool:
        seen = simulate(rate, mix, slots, BASE, SLOPE, TOKEN, chunked=False, count=15_000)
        return bool(np.quantile(seen.ttft, 0.99) <= 0.5 and np.quantile(seen.tpot, 0.99) <= tpot)

    assert holds(0.95 * whole) and not holds(1.12 * whole)


# ---- prefix cache


def test_cached_prompts_cost_what_is_left_of_them() -> None:
    mix, half = (lognormal_mix(2000, 200, 0.5, 0.5, cached=c) for c in (0.0, 0.5))
    rate = 0.7 * capacity(curves(cached=0.5), half, [], SLOTS).qps
    predicted, seen = service(curves(cached=0.5), half, rate, SLOTS), simulate(float(rate[0]), half, 256, BASE, SLOPE, TOKEN)
    assert predicted.ttft_s["p50"][0] == pytest.approx(np.quantile(seen.ttft, 0.5), rel=0.1)
    assert predicted.tpot_s["p95"][0] == pytest.approx(np.quantile(seen.tpot, 0.95), rel=0.1)
    limits = [Limit("ttft", 1.0, 95), Limit("tpot", 0.05, 95)]
    assert capacity(curves(cached=0.5), half, limits, SLOTS).qps[0] > 1.3 * capacity(curves(), mix, limits, SLOTS).qps[0]


def surveyed(**workload: Any) -> Any:
    scenario = Scenario.model_validate({"workload": [{"qps": 20, "models": MODELS, **workload}], "supply": SUPPLY})
    catalog = load_catalog((str(TINY),))
    return survey(scenario, catalog, catalog.offers)


def test_a_prefix_cache_frees_no_memory_and_looks_at_the_whole_prompt() -> None:
    plain, cached = surveyed(), surveyed(prefix_cache_hit=0.9)
    rows = np.arange(len(plain.replicas))
    assert (slots_of(plain, 0, rows, CHUNK) == slots_of(cached, 0, rows, CHUNK)).all()
    able = np.flatnonzero(plain.physics[0].slots > 0)
    cost, left = (curves_of(s, 0, able, CHUNK).prefill_s_per_token for s in (plain, cached))
    assert (left > 0.1 * cost).all() and (left < 0.2 * cost).all()


# ---- the size of a step as a choice


def test_smaller_steps_are_chosen_where_memory_is_short_or_gaps_are_limited() -> None:
    plain, smooth = (Points(surveyed(slo=slo)) for slo in ({}, {"itl_p99": "30ms"}))
    rows = np.flatnonzero(plain.survey.physics[0].slots > 0)
    by_default = [p for found in plain.of(rows).values() for p in found]
    assert {p.max_num_batched_tokens for p in by_default} <= {2048, CHUNK}
    for p in by_default:
        if p.max_num_batched_tokens < CHUNK:
            assert p.max_num_seqs > slots_of(plain.survey, 0, np.array([p.row]), CHUNK)[0]
    under_limit = [p for found in smooth.of(rows).values() for p in found]
    assert {p.max_num_batched_tokens for p in under_limit} - {CHUNK} <= set(ITL_STEP_TOKENS)
    assert any(p.max_num_batched_tokens < CHUNK for p in under_limit)
    assert all(p.max_num_batched_tokens >= 2 * p.max_num_seqs for p in under_limit)


@cache
def planned(peak: float = 1.0, prefill: bool = True, **workload: Any) -> Plan:
    demand = {} if "concurrency" in workload else {"qps": 60}
    slo = {k.removeprefix("slo_"): workload.pop(k) for k in list(workload) if k.startswith("slo_")}
    asked = {**demand, "models": MODELS, "burst_factor": peak, "slo": slo, **workload}
    scenario = Scenario.model_validate({"workload": [asked], "supply": SUPPLY, "policy": {"chunked_prefill": prefill}})
    return solve(scenario, load_catalog((str(TINY),)), compare=False)


def test_the_plan_states_gaps_and_the_step_that_keeps_them() -> None:
    plan = planned(slo_itl_p99="40ms")
    d, found = plan.deployments[0], plan.workloads[0].predicted
    assert found and found.itl_ms and found.itl_ms.p99 <= 40
    assert d.max_num_batched_tokens and f"--max-num-batched-tokens {d.max_num_batched_tokens}" in d.serve_command
    assert plan.cost.usd_per_hour >= planned().cost.usd_per_hour


def test_cost_never_falls_as_itl_tightens() -> None:
    costs = [planned(slo_itl_p99=limit).cost.usd_per_hour for limit in ("500ms", "80ms", "40ms", "25ms")]
    assert costs == sorted(costs)


def test_peaks_are_bought_for_and_paid_per_mean_request() -> None:
    plain, double, busy = planned(), planned(peak=2.0), planned(qps=120)
    assert double.cost.usd_per_hour == pytest.approx(busy.cost.usd_per_hour)
    assert double.cost.usd_per_thousand_requests == pytest.approx(2 * (busy.cost.usd_per_thousand_requests or 0))
    assert double.workloads[0].qps == plain.workloads[0].qps == 60
    assert double.deployments[0].slo_load == pytest.approx(busy.deployments[0].slo_load)
    assert next(h.factor for h in double.headroom if h.step == "peak rule") == pytest.approx(2)
    assert next(h.factor for h in plain.headroom if h.step == "peak rule") == 1


def test_peaks_of_requests_in_flight() -> None:
    double, busy = planned(peak=2.0, concurrency=200), planned(concurrency=400)
    assert double.cost.usd_per_hour == pytest.approx(busy.cost.usd_per_hour)
    assert double.workloads[0].concurrency == 200
    assert busy.workloads[0].qps / 2 < double.workloads[0].qps < busy.workloads[0].qps  # half as many in flight are answered sooner


def test_whole_prompts_and_cached_ones_in_plans() -> None:
    plain, whole, cached = planned(), planned(prefill=False), planned(prefix_cache_hit=0.8)
    assert whole.cost.usd_per_hour >= plain.cost.usd_per_hour >= cached.cost.usd_per_hour
    d = whole.deployments[0]
    assert d.max_num_batched_tokens and d.max_num_batched_tokens >= CHUNK
    assert not any("cache" in line for line in cached.defaults) and any("no prefix cache" in line for line in plain.defaults)


# ---- what starts it


def command(engine: str, **steps: Any) -> str:
    return serve_command(engine, "some/model", ReplicaType(1, 1, 1, 1, False), Steps(64, 2048, **steps), 8192, 0.9, GpuMemory(80, 16, 50))


def test_commands_spell_out_steps_prompts_and_the_prefix_cache() -> None:
    assert "--max-num-batched-tokens 2048" in command("vllm") and "--no-enable" not in command("vllm")
    assert "--no-enable-chunked-prefill" in command("vllm", chunked_prefill=False)
    assert "--enable-prefix-caching" in command("vllm", prefix_cache=True)
    assert "--chunked-prefill-size 2048" in command("sglang")
    assert "--chunked-prefill-size -1 --max-prefill-tokens 2048" in command("sglang", chunked_prefill=False)
    assert "--enable_chunked_prefill" in command("trtllm") and "chunked" not in command("trtllm", chunked_prefill=False)
