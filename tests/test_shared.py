"""Workloads on one deployment: one queue of all, against a simulation of every step; those that would spoil each other are kept apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from planner import Scenario, load_catalog, solve
from planner.check.check import check_plan
from planner.performance.lengths import lognormal_mix
from planner.performance.shared import settled
from planner.performance.step import GRID, StepCurves
from planner.planning.verify import breaches
from planner.program.pools import groups
from planner.simulation.results import quantile
from planner.simulation.run import simulate
from planner.simulation.state import BATCHES, Engine, Flow, Running, Sessions
from planner.simulation.stream import Poisson, lognormal_lengths

STEP, TOKEN_S, OVERHEAD_S, SLOTS = 6.5e-3 + 1e-4 * GRID, 27e-6, 0.01, 256
Stream = tuple[float, float, float, float]  # prompt and answer tokens, requests/s, sessions


def simulated(streams: list[Stream], seconds: float) -> list[dict[str, float]]:
    """p95 of TPOT and E2E, and the rate, of each stream on one engine."""
    draws = [lognormal_lengths(i, o, 0.9, 0.8) for i, o, _, _ in streams]
    rng = np.random.default_rng(3)
    drawn = np.stack([np.stack(d(rng, 1 << 14), axis=1) for d in draws])
    engine = Engine(np.interp(np.arange(SLOTS + 1), GRID, STEP), tuple(Flow(TOKEN_S) for _ in streams), 10**9, 8192, OVERHEAD_S)
    sessions = Sessions(tuple(int(n) for *_, n in streams), drawn, (0.1 * seconds, seconds))
    running = Running(engine, 1, "least_loaded", 0, seconds / 240, sessions=sessions)
    rates = [rate for _, _, rate, _ in streams]
    if sum(rates):
        arrivals, done = Poisson(rates, draws, int(sum(rates) * seconds)), 0
        for block in arrivals.blocks():
            number = done + np.arange(len(block))
            running.feed(block, np.where(number < 0.1 * arrivals.count, -1, number * BATCHES // arrivals.count))
            done += len(block)
    running.finish()
    sim = running.sim
    return [
        {"rate": sim.counts[w, :, 4].sum() / 0.9 / seconds, "tpot": quantile(sim.histogram[w, 1], 0.95), "e2e": quantile(sim.histogram[w, 2], 0.95)}
        for w in range(len(streams))
    ]


@pytest.mark.parametrize(
    "streams",
    [
        [(1000, 300, 8, 0), (2000, 50, 4, 0), (500, 50, 5, 0)],
        [(1000, 300, 6, 0), (8000, 200, 0.5, 0)],
        [(1000, 300, 0, 60), (8000, 200, 0, 10)],
    ],
)
def test_each_of_several_workloads_is_served_as_a_simulation_of_every_step_serves_it(streams: list[Stream]) -> None:
    flat = np.zeros((1, len(GRID)))
    curves = StepCurves(GRID, STEP[None, :], np.array([TOKEN_S]), np.array([OVERHEAD_S]), flat)
    mixes = [lognormal_mix(i, o, 0.9, 0.8) for i, o, _, _ in streams]
    rates, loops = (np.array([s[k] for s in streams], float) for k in (2, 3))
    found = settled([curves] * len(streams), mixes, rates, loops, np.array([SLOTS]))
    for w, seen in enumerate(simulated(streams, 12_000 / found.rates.sum())):
        service = found.service(w)
        assert found.rates[w] == pytest.approx(seen["rate"], rel=0.06)
        assert service.tpot_s["p95"][0] == pytest.approx(seen["tpot"], rel=0.12)
        assert service.e2e_s["p95"][0] == pytest.approx(seen["e2e"], rel=0.1)


def test_the_largest_groups_without_a_pair_kept_apart() -> None:
    everyone = frozenset({0, 1, 2, 3})
    assert groups(everyone, frozenset()) == [everyone]
    apart = frozenset({frozenset({0, 1}), frozenset({1, 2})})
    assert {tuple(sorted(g)) for g in groups(everyone, apart)} == {(1, 3), (0, 2, 3)}


def test_long_prompts_are_kept_from_a_chat_whose_pace_they_would_break() -> None:
    """One 100,000-token prompt stops every answer beside it for seconds: no load is low enough for 25 ms per token at p99."""
    chat: dict[str, Any] = {"name": "chat", "qps": 2, "min_quality": 0.6, "slo": {"tpot_p99": "25ms"}}
    papers = {"name": "papers", "qps": 0.05, "min_quality": 0.6, "input_tokens": 100_000, "output_tokens": 1000, "slo": {"ttft_p95": "60s", "tpot_p95": "none"}}
    supply = {"gpus": ["H100-SXM-80GB"]}
    plan = solve(Scenario.model_validate({"workload": [chat, papers], "supply": supply}), compare=False)
    assert len(plan.deployments) == 2 and any("deployments of their own" in note for note in plan.notes)
    assert check_plan(plan, load_catalog()).ok and not breaches(simulate(plan, requests=20_000))


def test_chats_alike_share() -> None:
    tenants = [{"name": f"tenant {i}", "qps": 1, "min_quality": 0.6} for i in range(3)]
    plan = solve(Scenario.model_validate({"workload": tenants, "supply": {"gpus": ["H100-SXM-80GB"]}}), compare=False)
    assert len(plan.deployments) == 1 and not breaches(simulate(plan, requests=20_000))
