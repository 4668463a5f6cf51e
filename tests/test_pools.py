"""Capacity of pools behind a least-loaded router against simulations of them: what is promised is kept, most of all by replicas with few slots."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.performance.capacity import Limit, capacity, pooled_qps
from planner.performance.lengths import lognormal_mix
from planner.performance.step import GRID, StepCurves
from planner.simulation.rebuild import Deployed
from planner.simulation.run import WARM_UP, feed
from planner.simulation.state import Engine, Flow
from planner.simulation.stream import Poisson, lognormal_lengths

BASE, SLOPE, TOKEN = 0.06, 6e-4, 2e-4  # seconds of a step, of a sequence in it, of a prompt token: like an 8B model on an L4
NOISE = 0.005  # of requests


def pooled(lengths: tuple[int, int, float], slots: int, limits: list[Limit], replicas: int) -> float:
    """Stated capacity of each replica of a pool, requests/s."""
    isl, osl, cv = lengths
    step = (BASE + SLOPE * GRID)[None]
    curves = StepCurves(GRID, step, np.array([TOKEN]), np.zeros(1), np.zeros_like(step))
    found = capacity(curves, lognormal_mix(isl, osl, cv, cv), limits, np.array([slots]))
    return float(pooled_qps(found.qps, found.qps_saturated, replicas)[0])


def kept(lengths: tuple[int, int, float], slots: int, limits: list[Limit], replicas: int, rate: float) -> bool:
    """Whether the simulated pool keeps every limit at a rate per replica."""
    isl, osl, cv = lengths
    engine = Engine(BASE + SLOPE * np.arange(slots + 1.0), (Flow(TOKEN, **{x.metric: x.limit_s for x in limits}),), 10**9)
    stream = Poisson([rate * replicas], [lognormal_lengths(isl, osl, cv, cv)], 40_000, 1)
    counts = feed([Deployed(engine, (1.0,), (1.0,), ((0, 0),) * replicas)], stream, "least_loaded", 1, WARM_UP).running[0].sim.counts[0]
    of = {"ttft": 0, "tpot": 1, "e2e": 2}
    return all(counts[:, of[x.metric]].sum() / counts[:, 4].sum() >= x.percentile / 100 - NOISE for x in limits)


@pytest.mark.parametrize(
    ("lengths", "slots", "limits", "replicas"),
    [
        ((1000, 150, 0.8), 16, [Limit("tpot", 0.094, 90), Limit("ttft", 7.0, 95)], 8),  # prompts scatter TPOT however well a router shares out
        ((1000, 150, 1.2), 8, [Limit("tpot", 0.075, 95), Limit("ttft", 3.0, 95)], 4),
        ((1000, 150, 1.2), 32, [Limit("tpot", 0.12, 99), Limit("ttft", 9.0, 95)], 8),  # few prompts, but long ones
        ((300, 150, 0.8), 1, [Limit("ttft", 1.0, 95)], 2),  # alone it is hardly ever busy
        ((300, 150, 0.8), 2, [Limit("ttft", 1.0, 95)], 8),
        ((300, 150, 0.8), 4, [Limit("ttft", 0.5, 99)], 2),
    ],
)
def test_pools_of_few_slots_keep_what_is_promised(lengths: tuple[int, int, float], slots: int, limits: list[Limit], replicas: int) -> None:
    assert kept(lengths, slots, limits, replicas, pooled(lengths, slots, limits, replicas))


@pytest.mark.parametrize(("slots", "replicas", "given_away"), [(64, 2, 0.05), (64, 8, 0.05), (128, 8, 0.05), (16, 4, 0.08)])
def test_pools_give_little_away(slots: int, replicas: int, given_away: float) -> None:
    lengths, limits = (300, 300, 0.8), [Limit("ttft", 2.0, 95), Limit("tpot", 0.2, 95)]
    promised = pooled(lengths, slots, limits, replicas)
    assert kept(lengths, slots, limits, replicas, promised)
    assert not kept(lengths, slots, limits, replicas, promised * (1 + 2 * given_away))


rates = st.floats(1e-6, 1e6)


@given(rates, st.floats(1, 1e3), st.floats(1, 2), st.integers(1, 12))
def test_pooled_capacity_rises_with_replicas_and_with_both_rates(single: float, most: float, more: float, replicas: int) -> None:
    def of(alone: float, saturated: float, count: int) -> float:
        return float(pooled_qps(np.array(alone), np.array(saturated), count))

    here, saturated, little = of(single, single * most, replicas), single * most, 1 - 1e-9
    assert single * little <= here <= saturated / little
    assert of(single, saturated, 1) == pytest.approx(single)
    assert of(single, saturated, replicas + 1) >= here * little
    assert of(single, saturated * more, replicas) >= here * little
    assert of(single * min(more, most), saturated, replicas) >= here * little


@given(st.floats(1e-3, 1), st.integers(1, 8))
def test_the_idle_share_of_a_pool_is_as_staffing_has_it(used: float, replicas: int) -> None:
    load = float(pooled_qps(np.array(used), np.array(1.0), replicas))
    assert 1 - load == pytest.approx((1 - used) * (load / used) ** (1 / 6) / replicas**0.5, abs=1e-5)


def test_what_serves_nothing_alone_serves_nothing_in_a_pool() -> None:
    assert pooled_qps(np.array([0.0, 0.0]), np.array([0.0, 2.0]), 8).tolist() == [0.0, 0.0]
