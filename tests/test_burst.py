"""Bursts: all requests sent at once, against cases that can be reckoned by hand and a simulation of the scheduler."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scheduler import simulate

from planner.performance.burst import burst_tps
from planner.performance.lengths import LengthMix, lognormal_mix
from planner.performance.step import GRID, StepCurves

BASE, SLOPE, TOKEN, OVERHEAD = 6.5e-3, 1e-4, 27e-6, 0.02


def tps(mix: LengthMix, slots: int, requests: float) -> float:
    step = (BASE + SLOPE * GRID)[None]
    curves = StepCurves(GRID, step, np.array([TOKEN]), np.array([OVERHEAD]), np.zeros_like(step))
    return float(burst_tps(curves, mix, np.array([slots]), np.array([requests]))[0])


@pytest.mark.parametrize("requests", [1, 8, 32])
def test_requests_that_all_find_a_slot_decode_together(requests: int) -> None:
    seconds = OVERHEAD + requests * 1000 * TOKEN + 99 * (BASE + SLOPE * requests)
    assert tps(lognormal_mix(1000, 100, 0, 0), 32, requests) == pytest.approx(requests * 100 / seconds, rel=1e-3)


def test_an_endless_burst_keeps_all_slots_full() -> None:
    each = 1000 * TOKEN + 99 * (BASE + SLOPE * 32) / 32
    assert tps(lognormal_mix(1000, 100, 0, 0), 32, np.inf) == pytest.approx(100 / each, rel=1e-6)


def test_a_long_burst_against_simulation() -> None:
    mix = lognormal_mix(300, 200, 0.5, 0.8)
    ends = np.sort(simulate(1e9, mix, 64, BASE, SLOPE, TOKEN, count=6_000).e2e)  # all arrive at once, so these are moments
    seen = mix.mean_output * 0.8 * len(ends) / (np.quantile(ends, 0.9) - np.quantile(ends, 0.1))
    assert tps(mix, 64, np.inf) == pytest.approx(seen, rel=0.03)


@given(st.integers(1, 300), st.integers(1, 2000), st.floats(0, 1.2), st.sampled_from([(200, 200), (4000, 100), (128, 4)]))
def test_more_requests_never_finish_fewer_tokens_per_second(slots: int, requests: int, cv: float, lengths: tuple[int, int]) -> None:
    mix = lognormal_mix(*lengths, cv, cv)
    if requests >= slots:
        assert 0 < tps(mix, slots, requests + 1) <= tps(mix, slots, 10 * requests + 1) * (1 + 1e-9) <= tps(mix, slots, np.inf) * (1 + 1e-6)
