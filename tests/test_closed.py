"""Requests in flight are a closed system: formula against a simulation of every step, and plan, check and simulation of one number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from planner import Scenario, load_catalog, solve
from planner.check.check import check_plan
from planner.performance import closed
from planner.performance.backlog import backlog
from planner.performance.capacity import Limit
from planner.performance.lengths import lognormal_mix
from planner.performance.step import GRID, StepCurves
from planner.simulation.results import quantile
from planner.simulation.run import simulate
from planner.simulation.state import Engine, Flow, Running, Sessions
from planner.simulation.stream import lognormal_lengths

STEP = 6.5e-3 + 1e-4 * GRID
TOKEN_S, OVERHEAD_S = 27e-6, 0.01


def curves(whole: float | None = None) -> StepCurves:
    """An 8-billion model on a large GPU, about: 6.6 ms and 0.1 ms per sequence, 27 us per prompt token."""
    flat = np.zeros((1, len(GRID)))
    return StepCurves(GRID, STEP[None, :], np.array([TOKEN_S]), np.array([OVERHEAD_S]), flat, 8192, None if whole is None else np.array([whole]))


def simulated(isl: float, osl: float, n: int, slots: int, whole: float | None, replicas: int = 1, requests: int = 6000) -> dict[str, float]:
    """Rate and mean latencies of n sessions, step by step."""
    mix = lognormal_mix(isl, osl, 0.9, 0.8)
    _, rate = closed.service(curves(whole), mix, np.array([n / replicas]), np.array([slots]))
    until = requests / (rate[0] * replicas)  # how long to look; what is found does not depend on it
    drawn = np.stack(lognormal_lengths(isl, osl, 0.9, 0.8)(np.random.default_rng(1), 1 << 14), axis=1)[None]
    engine = Engine(np.interp(np.arange(slots + 1), GRID, STEP), (Flow(TOKEN_S),), 10**9, 8192, OVERHEAD_S, whole)
    running = Running(engine, replicas, "least_loaded", 0, until / 240, sessions=Sessions((n,), drawn, (0.2 * until, until)))
    running.finish()
    count, sums = running.sim.counts[0, :, 4].sum(), running.sim.sums[0]
    return {"rate": count / (0.8 * until), "ttft": sums[3] / count, "tpot": sums[4] / sums[6], "e2e": sums[5] / count}


@pytest.mark.parametrize(
    ("isl", "osl", "n", "slots", "whole", "replicas"),
    [
        (1000, 300, 1, 256, None, 1),
        (1000, 300, 60, 256, None, 7),
        (1000, 300, 200, 256, None, 1),
        (1000, 300, 100, 64, None, 1),  # more than find a slot: the others wait
        (4000, 300, 60, 256, 0.006, 1),  # each prompt in a step of its own
        (8192, 8, 32, 256, None, 1),  # nothing but prompts
        (32000, 500, 4, 256, None, 1),
    ],
)
def test_rate_and_means_are_those_of_a_simulation_of_every_step(isl: float, osl: float, n: int, slots: int, whole: float | None, replicas: int) -> None:
    found, rate = closed.service(curves(whole), lognormal_mix(isl, osl, 0.9, 0.8), np.array([n / replicas]), np.array([slots]))
    seen = simulated(isl, osl, n, slots, whole, replicas)
    assert rate[0] * replicas == pytest.approx(seen["rate"], rel=0.04)
    assert found.e2e_s["mean"][0] == pytest.approx(seen["e2e"], rel=0.04)
    assert found.tpot_s["mean"][0] == pytest.approx(seen["tpot"], rel=0.08)
    assert found.ttft_s["mean"][0] == pytest.approx(seen["ttft"], rel=0.15)
    assert rate[0] * found.e2e_s["mean"][0] == pytest.approx(n / replicas)  # Little's law


def test_a_loop_full_of_prompts_makes_requests_wait_for_their_first_token() -> None:
    """Once prompts fill the engine, more requests in flight lengthen the time to the first token, by the work of a prompt each; decoding is as before."""
    mix, seqs = lognormal_mix(8192, 8, 0, 0), np.array([256])
    few, many = (closed.service(curves(), mix, np.array([n]), seqs)[0] for n in (64.0, 128.0))
    work = 8192 * TOKEN_S
    assert many.ttft_s["mean"][0] - few.ttft_s["mean"][0] == pytest.approx(64 * work, rel=0.1)
    assert many.tpot_s["mean"][0] == pytest.approx(few.tpot_s["mean"][0], rel=0.02)
    assert few.tpot_s["mean"][0] <= STEP[8] + work * 1.01  # a step holds no more than its budget of 8,192 prompt tokens


def test_alone_a_request_meets_no_other() -> None:
    found, rate = closed.service(curves(), lognormal_mix(1000, 300, 0, 0), np.array([1.0]), np.array([256]))
    assert found.tpot_s["mean"][0] == pytest.approx(STEP[0], rel=1e-3)
    assert rate[0] == pytest.approx(1 / (found.ttft_s["mean"][0] + 299 * STEP[0]), rel=1e-3)


def test_capacity_in_flight_is_where_the_limit_just_holds() -> None:
    mix, seqs = lognormal_mix(1000, 300, 0.9, 0.8), np.array([256])
    n, rate = closed.capacity(curves(), mix, [Limit("tpot", 0.03, 95.0)], seqs)
    found, here = closed.service(curves(), mix, n, seqs)
    assert found.tpot_s["p95"][0] == pytest.approx(0.03, rel=2e-3) and here[0] == pytest.approx(rate[0], rel=1e-3)
    assert closed.capacity(curves(), mix, [], seqs)[0][0] == pytest.approx(256, rel=1e-3)  # none may wait for a slot
    assert closed.capacity(curves(), mix, [Limit("tpot", 0.006, 95.0)], seqs)[0][0] == 0  # faster than one step


def _percentiles(n: int, osl: float, isl: float, cv: tuple[float, float], replicas: int) -> tuple[Any, np.ndarray]:
    """(formula, histograms of a simulation) of n sessions on replicas of a fast engine, whose full steps take ten times an empty one."""
    step, token = 6e-3 + 1.3e-4 * GRID, 6e-6
    made = StepCurves(GRID, step[None, :], np.array([token]), np.array([0.02]), np.zeros((1, len(GRID))), 8192)
    found, rate = closed.service(made, lognormal_mix(isl, osl, *cv), np.array([n / replicas]), np.array([256]))
    until = 16_000 / (rate[0] * replicas)
    drawn = np.stack(lognormal_lengths(isl, osl, *cv)(np.random.default_rng(1), 1 << 15), axis=1)[None]
    engine = Engine(np.interp(np.arange(257), GRID, step), (Flow(token),), 10**9, 8192, 0.02)
    running = Running(engine, replicas, "least_loaded", 0, until / 240, sessions=Sessions((n,), drawn, (0.15 * until, until)))
    running.finish()
    return found, running.sim.histogram[0]


@pytest.mark.parametrize(
    ("isl", "osl", "cv", "n", "replicas"),
    [
        (100_000, 1000, (0.2, 0.77), 14, 1),
        (100_000, 1000, (0.2, 0.77), 111, 8),  # not a multiple: sessions go on at other replicas, and prompts meet in time instead of in steps
        (32_000, 500, (0.9, 0.8), 60, 1),
        (2000, 50, (0.5, 1.25), 160, 1),
        (4000, 300, (0.5, 1.2), 300, 2),
        (8000, 200, (0.2, 0.2), 130, 1),
    ],
)
def test_percentiles_are_never_shorter_than_simulated_by_much(isl: float, osl: float, cv: tuple[float, float], n: int, replicas: int) -> None:
    found, seen = _percentiles(n, osl, isl, cv, replicas)
    for m, metric in enumerate((found.ttft_s, found.tpot_s, found.e2e_s)):
        for name in ("p50", "p95", "p99"):
            ratio = metric[name][0] / quantile(seen[m], float(name[1:]) / 100)
            assert 0.96 < ratio < (1.35 if m == 0 else 1.08), (m, name, ratio)


@pytest.mark.parametrize("ratio", [0.1, 1.0, 12.0])  # of a prompt's mean to the room of a step
@pytest.mark.parametrize("load", [0.3, 0.6, 0.9])
def test_what_steps_leave_over_has_the_moments_of_the_recursion(ratio: float, load: float) -> None:
    """max(U + A - 1, 0), step by step, of prompts that vary by a quarter; answers so long that no feedback is left."""
    rng, sigma, many = np.random.default_rng(0), np.sqrt(np.log(1.0625)), 400
    left, seen = np.zeros(many), []
    for step in range(6000):
        came = rng.poisson(load / ratio, many)
        sizes = ratio * np.exp(sigma * rng.standard_normal(came.sum()) - sigma**2 / 2)
        left = np.maximum(left + np.bincount(np.repeat(np.arange(many), came), sizes, many) - 1, 0)
        seen += [left] if step >= 2500 and step % 5 == 0 else []
    u = np.concatenate(seen)
    one = np.ones((1, 1))
    tokens = tuple(ratio**k * 1.0625 ** (k * (k - 1) / 2) for k in (1, 2, 3, 4))
    found = backlog(one * load / ratio, tokens, one, one * load, 1e9)
    assert found.mean[0, 0] == pytest.approx(u.mean(), rel=0.12, abs=2e-3)
    assert np.sqrt(found.var[0, 0]) == pytest.approx(u.std(), rel=0.12, abs=0.02)
    assert found.any[0, 0] == pytest.approx((u > 0).mean(), abs=0.08)


SUPPLY: dict[str, Any] = {"gpus": ["H100-SXM-80GB", "B200-SXM"]}


@pytest.mark.parametrize("n", [4, 60, 3000])
def test_plan_check_and_simulation_are_of_the_number_asked(n: int) -> None:
    plan = solve(Scenario.model_validate({"workload": [{"concurrency": n, "min_quality": 0.75}], "supply": SUPPLY}), compare=False)
    (w,) = plan.workloads
    assert w.predicted is not None and w.qps * w.predicted.e2e_ms.mean / 1e3 == pytest.approx(n, rel=1e-6)
    assert check_plan(plan, load_catalog()).ok
    (seen,) = simulate(plan, requests=20 * n if n > 1000 else 10_000).workloads
    assert seen.qps * seen.e2e_ms["mean"] / 1e3 == pytest.approx(n, rel=0.05)
    assert seen.qps == pytest.approx(w.qps, rel=0.05)
    assert w.qps * seen.e2e_ms["mean"] / 1e3 == pytest.approx(n, rel=0.05)


def test_a_rate_that_does_not_make_the_number_asked_is_found() -> None:
    plan = solve(Scenario.model_validate({"workload": [{"concurrency": 60, "min_quality": 0.75}], "supply": SUPPLY}), compare=False)
    (w,) = plan.workloads
    fewer = w.model_copy(update={"qps": w.qps / 2, "routing": tuple(r.model_copy(update={"qps": r.qps / 2}) for r in w.routing)})
    report = check_plan(plan.model_copy(update={"workloads": (fewer,)}), load_catalog())
    assert any("in flight, asked 60" in str(b) for b in report.breaches)


def test_requests_in_flight_beside_a_rate_are_simulated_in_their_own_way() -> None:
    asked = {"workload": [{"name": "chat", "qps": 5, "min_quality": 0.75}, {"name": "agents", "concurrency": 40, "min_quality": 0.75}], "supply": SUPPLY}
    plan = solve(Scenario.model_validate(asked), compare=False)
    assert check_plan(plan, load_catalog()).ok
    found = simulate(plan, requests=8000)
    assert "40 sessions" in found.arrivals and "Poisson at 5 req/s" in found.arrivals
    chat, agents = found.workloads
    assert chat.qps == pytest.approx(5, rel=0.08)
    assert agents.qps * agents.e2e_ms["mean"] / 1e3 == pytest.approx(40, rel=0.05)


@pytest.mark.parametrize("whole", [None, 0.006])
@pytest.mark.parametrize(("isl", "osl"), [(4, 1), (4, 3000), (150_000, 2), (150_000, 3000), (2000, 50)])
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_every_shape_and_number_in_flight_has_finite_latencies(isl: float, osl: float, whole: float | None) -> None:
    n = np.array([0.5, 1.0, 7.3, 40.0, 255.0, 256.0, 1500.0])
    for i in n:  # one row each
        found, rate = closed.service(curves(whole), lognormal_mix(isl, osl, 1.2, 0.9), np.array([i]), np.array([256]))
        values = [rate, *found.ttft_s.values(), *found.tpot_s.values(), *found.e2e_s.values()]
        assert all(np.isfinite(v).all() and (v > 0).all() for v in values), i
