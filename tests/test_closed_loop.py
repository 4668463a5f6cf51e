"""Closed loops whose prompts fill the engine, against a scheduler written out step by step: who waits for prefill waits in TTFT."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from planner import load_catalog
from planner.performance.coefficients import load_coefficients
from planner.performance.loop import at_concurrency, loop, loop_columns, loop_curves, prompt_seconds
from planner.performance.predict import Loops, closed_loop
from planner.performance.replicas import ENGINES, PRECISIONS, Replicas
from planner.performance.residual import residuals_of
from planner.performance.step import CHUNK, GRID, decode_step

CATALOG = load_catalog()
COEFFICIENTS = load_coefficients(CATALOG.coefficients_file)
CARD = next(c for c in CATALOG.cards if c.name == "gpt-oss-120b")


def replica() -> Replicas:
    """gpt-oss-120b on one B200, in vLLM."""
    gpus = tuple(CATALOG.gpus.values())
    place = [g.name for g in gpus].index("B200-SXM")
    columns = (0, place, PRECISIONS.index("mxfp4"), ENGINES.index("vllm"), 1, 1)
    return Replicas((CARD.architecture,), gpus, *(np.array([v]) for v in columns))


def sessions(count: int, prompt: float, answer: float, decode: Callable[[int], float], token: float) -> tuple[float, float, float]:
    """(mean TTFT s, mean TPOT s, requests/s) of sessions without pauses, whose lengths vary by a tenth; a step takes CHUNK tokens, oldest prompts first."""
    rng = np.random.default_rng(1)

    def request(now: float) -> dict[str, float]:
        tokens, words = prompt * rng.uniform(0.9, 1.1), max(round(answer * rng.uniform(0.9, 1.1)), 2)
        return {"arrival": now, "left": tokens, "answer": words, "first": 0.0, "written": 0}

    waiting, running, done, now = [request(0.0) for _ in range(count)], [], [], 0.0
    while len(done) < 25 * count:
        room, work, begun = float(CHUNK - len(running)), 0.0, []
        while waiting and room > 0:
            part = min(waiting[0]["left"], room)
            waiting[0]["left"], room, work = waiting[0]["left"] - part, room - part, work + part
            if waiting[0]["left"] > 1e-9:
                break
            begun.append(waiting.pop(0))
        now += decode(len(running)) + token * work
        for r in running:
            r["written"] += 1
        ended = [r for r in running if r["written"] >= r["answer"]]
        done += [(r["first"] - r["arrival"], (now - r["first"]) / (r["answer"] - 1), now) for r in ended]
        waiting += [request(now) for _ in ended]
        running = [r for r in running if r["written"] < r["answer"]] + begun
        for r in begun:
            r["first"], r["written"] = now, 1
    seen = np.array(done[5 * count :])
    return float(seen[:, 0].mean()), float(seen[:, 1].mean()), float((len(seen) - 1) / (seen[-1, 2] - seen[0, 2]))


@pytest.mark.parametrize(("prompt", "answer", "count"), [(8192, 8, 16), (8192, 8, 32), (20000, 20, 16), (2000, 16, 128), (4096, 32, 128)])
def test_where_prompts_fill_the_steps_the_wait_is_in_ttft(prompt: int, answer: int, count: int) -> None:
    one = replica()
    work = loop(one, np.array([float(prompt)]), np.array([float(answer)]))
    e = loop_columns(one, COEFFICIENTS, residuals_of(COEFFICIENTS).terms)
    steps = (decode_step(work.shape, e, work.kv_read, GRID[None, :]) * e["vendor"])[0]
    ttft, tpot = at_concurrency(loop_curves(work, e), np.array([float(count)]), work.output_tokens)
    token = float(prompt_seconds(work, e)[0, 0]) / prompt
    seen = sessions(count, prompt, answer, lambda n: float(np.interp(max(n, 1), GRID, steps)), token)
    assert ttft[0] == pytest.approx(seen[0], rel=0.03)
    assert tpot[0] == pytest.approx(seen[1], rel=0.02)
    assert count / (ttft[0] + (answer - 1) * tpot[0]) == pytest.approx(seen[2], rel=0.02)


def test_a_saturated_loop_lets_requests_wait_for_prefill_not_for_tokens() -> None:
    """No token waits longer than a full step; every request more adds the time that one takes the engine to TTFT, and nothing to throughput."""
    loads = np.array([16.0, 32, 64, 128])
    found = closed_loop(
        Loops(replica().take(np.zeros(4, dtype=np.int64)), np.full(4, 8192), np.full(4, 8), loads, (CARD.name,)),
        CATALOG.measured,
        COEFFICIENTS,
        harness="exact",
    )
    assert found.tpot_ms[1:] == pytest.approx(found.tpot_ms[1], rel=1e-6) and found.tpot_ms[1] < 1.2 * found.tpot_ms[0]
    assert np.diff(found.ttft_ms) / np.diff(loads) == pytest.approx(1000 * 8 / found.output_tps[1:], rel=0.1)
    assert found.output_tps[1:] == pytest.approx(found.output_tps[1], rel=1e-6)
