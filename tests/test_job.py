"""A finite job's completion time: formula against the simulator, against a scheduler of its own, and the command."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from planner.performance.job import Completion, completion
from planner.performance.lengths import LengthMix, lognormal_mix
from planner.performance.step import GRID, StepCurves
from planner.simulation.state import Engine, Flow, Running
from planner.simulation.stream import RequestBlock

Run = Callable[..., tuple[int, str, str]]
STEP = 6.5e-3 + 1e-4 * GRID
TOKEN_S, OVERHEAD_S, BUDGET = 27e-6, 0.01, 8192


def curves(whole: float | None = None) -> StepCurves:
    """An 8-billion model on a large GPU, about: 6.6 ms and 0.1 ms per sequence, 27 us per prompt token."""
    flat = np.zeros((1, len(GRID)))
    return StepCurves(GRID, STEP[None, :], np.array([TOKEN_S]), np.array([OVERHEAD_S]), flat, BUDGET, None if whole is None else np.array([whole]))


def drawn(mix: LengthMix, cvs: tuple[float, float], count: int, seed: int) -> list[np.ndarray]:
    """Prompts and answers of a job, with exactly the means of the mix: what is left is the luck of the last answers."""
    rng, found = np.random.default_rng(seed), []
    for mean, cv in zip((mix.mean_input, mix.mean_output), cvs, strict=True):
        sigma = np.sqrt(np.log1p(cv * cv))
        lengths = np.exp(sigma * rng.standard_normal(count) - sigma * sigma / 2)
        found.append(np.maximum(np.rint(mean * lengths / lengths.mean()), 1).astype(np.int64))
    return found


def replayed(mix: LengthMix, cvs: tuple[float, float], requests: int, concurrency: int, whole: float | None, seed: int) -> float:
    """Seconds until the simulator has answered all: everything is asked at once, and the engine takes ``concurrency`` at a time."""
    prompts, answers = drawn(mix, cvs, requests, seed)
    steps = np.interp(np.arange(concurrency + 1), GRID, STEP)
    running = Running(Engine(steps, (Flow(TOKEN_S),), 10**9, BUDGET, OVERHEAD_S, whole), 1, "least_loaded", seed, 1.0)
    nothing = np.zeros(requests, np.int64)
    running.feed(RequestBlock(np.zeros(requests), prompts, answers, nothing), nothing)
    running.finish()
    assert running.sim.counts[0, :, 4].sum() == requests
    return float(running.sim.fleet["start"].max())


CHAT = (0.96, 0.77)


@pytest.mark.parametrize(
    ("isl", "osl", "cvs", "requests", "concurrency", "whole"),
    [
        (1000, 300, CHAT, 2993, 64, None),
        (1000, 300, CHAT, 500, 64, None),
        (1000, 300, CHAT, 128, 64, None),  # two rounds: no loop to speak of
        (1000, 300, CHAT, 64, 64, None),  # all at once
        (1000, 300, CHAT, 20, 64, None),  # fewer than there is room for
        (1000, 300, CHAT, 60, 1, None),  # one after the other
        (1000, 300, (0, 0), 2993, 64, None),  # equal requests march in step
        (1000, 300, (0, 0), 96, 64, None),  # a round and a half
        (4000, 100, CHAT, 1500, 32, None),
        (8000, 16, (0.5, 0.5), 1000, 64, None),  # nothing but prompts
        (500, 2000, CHAT, 600, 100, None),  # the last answers are a third of the job
        (2000, 300, CHAT, 600, 32, 0.006),  # each prompt in a step of its own
    ],
)
def test_the_time_of_a_job_is_that_of_a_replay(isl: int, osl: int, cvs: tuple[float, float], requests: int, concurrency: int, whole: float | None) -> None:
    mix = lognormal_mix(isl, osl, *cvs)
    seen = np.array([replayed(mix, cvs, requests, concurrency, whole, seed) for seed in range(40)])
    found = completion(curves(whole), mix, requests, concurrency, 1, 256)
    assert found.seconds == pytest.approx(seen.mean(), rel=0.05)


def scheduled(mix: LengthMix, requests: int, concurrency: int, replicas: int, seed: int) -> float:
    """The same on several replicas, step by step: each answer sends the next request to the replica with the fewest. Shares no code with the rest."""
    prompts, answers = (list(map(float, x)) for x in drawn(mix, CHAT, requests, seed))
    clock, waiting, running = [0.0] * replicas, [[] for _ in range(replicas)], [[] for _ in range(replicas)]

    def send(now: float) -> None:
        r = min(range(replicas), key=lambda i: len(waiting[i]) + len(running[i]))
        waiting[r].append([now + OVERHEAD_S, prompts.pop(), answers.pop()])

    for _ in range(concurrency):
        send(0.0)
    while any(waiting) or any(running):
        begins = [clock[r] if running[r] else max(clock[r], waiting[r][0][0]) if waiting[r] else np.inf for r in range(replicas)]
        r = int(np.argmin(begins))
        now, room, work, begun = begins[r], BUDGET - len(running[r]), 0.0, []
        while waiting[r] and room > 0 and waiting[r][0][0] <= now:
            part = min(waiting[r][0][1], room)
            waiting[r][0][1], room, work = waiting[r][0][1] - part, room - part, work + part
            if waiting[r][0][1] > 1e-9:
                break
            begun.append(waiting[r].pop(0))
        clock[r] = now + float(np.interp(max(len(running[r]), 1), GRID, STEP)) + TOKEN_S * work
        running[r] += begun
        for request in running[r]:
            request[2] -= 1
        ended = sum(request[2] <= 0 for request in running[r])
        running[r] = [request for request in running[r] if request[2] > 0]
        for _ in range(min(ended, len(prompts))):
            send(clock[r])
    return max(clock)


def test_the_time_of_a_job_on_several_replicas() -> None:
    mix = lognormal_mix(1000, 100, *CHAT)
    seen = np.mean([scheduled(mix, 800, 60, 3, seed) for seed in range(6)])
    assert completion(curves(), mix, 800, 60, 3, 256).seconds == pytest.approx(seen, rel=0.05)


def test_what_more_of_anything_does_to_a_job() -> None:
    """Time grows by the loop's rate with each request; more in flight or more replicas never make it longer; beyond the slots they bring nothing."""
    mix = lognormal_mix(1000, 300, *CHAT)

    def job(requests: int, concurrency: int, replicas: int = 1, slots: int = 256) -> Completion:
        return completion(curves(), mix, requests, concurrency, replicas, slots)

    assert job(6000, 64).seconds - job(3000, 64).seconds == pytest.approx(3000 / job(3000, 64).qps, rel=1e-6)
    times = [job(3000, n).seconds for n in (1, 2, 4, 8, 16, 32, 64, 128)]
    assert times == sorted(times, reverse=True)
    assert [job(3000, 64, r).seconds for r in (1, 2, 4)] == sorted((job(3000, 64, r).seconds for r in (1, 2, 4)), reverse=True)
    assert job(3000, 128, slots=64).seconds == pytest.approx(job(3000, 64, slots=64).seconds, rel=0.02)
    assert job(1, 1).seconds == pytest.approx(OVERHEAD_S + 1000 * TOKEN_S + 300 * STEP[0], rel=0.02)
    with pytest.raises(ValueError, match="at least 1"):
        job(0, 1)


# ---- the command


JOB = ["cost", "job", "--model", "Qwen3-32B", "--gpu", "A800-SXM-80GB", "--tp", "2", "--requests", "2993", "--concurrency", "64"]


def test_a_job_is_priced_by_its_predicted_time(run: Run) -> None:
    """Cost = GPUs x predicted time x price; the time is what the full loop takes, and a little more for its ends."""
    code, out, _ = run(*JOB, "--usd-per-gpu-hour", "0.79", "--format", "json")
    found = json.loads(out)
    assert code == 0 and found["gpus"] == 2
    assert found["usd"] == pytest.approx(1.58 * found["seconds"] / 3600)
    assert found["full_s"] == pytest.approx(2993 / found["qps"])
    assert found["full_s"] < found["seconds"] < 1.05 * found["full_s"]
    assert found["seconds_at_confidence"] > found["seconds"]
    _, out, _ = run(*JOB, "--usd-per-gpu-hour", "0.79", "--replicas", "2", "--concurrency", "128", "--format", "json")
    two = json.loads(out)
    assert two["gpus"] == 4 and two["seconds"] == pytest.approx(found["seconds"] / 2, rel=0.05) and two["usd"] == pytest.approx(found["usd"], rel=0.05)


def test_a_job_without_a_price_takes_the_cheapest_offer(run: Run) -> None:
    code, out, _ = run("cost", "job", "--model", "Llama-3.1-8B", "--gpu", "H100-SXM-80GB", "--requests", "1000", "--concurrency", "32")
    assert code == 0 and "Price: " in out and "on-demand" in out and "with 80% probability within" in out
    code, out, _ = run(*JOB, "--price", "12000", "--years", "3", "--electricity", "0.13")
    assert code == 0 and "no maintenance" in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--gpus", "2"), "--gpus: follows from the prediction"),
        (("--seconds", "5"), "--seconds: follows from the prediction"),
        (("--usd-per-gpu-hour", "0.79", "--kw", "1"), "--kw cannot stand beside it"),
        (("--tp", "3"), "does not split by 3"),
        (("--model", "Qwen3-33B"), "--model: unknown checkpoint or model"),
        (("--confidence", "0.2"), "--confidence: must be from 0.5 to 0.99"),
    ],
)
def test_what_a_predicted_job_refuses(words: tuple[str, ...], told: str, run: Run) -> None:
    code, _, err = run(*JOB, *words)
    assert code == 2 and told in err and "Traceback" not in err


def test_a_model_whose_name_others_begin_with_is_found(run: Run) -> None:
    """Phi-4 is a model, though Phi-4-mini and Phi-4-reasoning begin alike."""
    code, out, _ = run("cost", "job", "--model", "Phi-4", "--gpu", "A800-SXM-80GB", "--requests", "9", "--concurrency", "3", "--usd-per-gpu-hour", "1")
    assert code == 0 and "microsoft/phi-4 (bf16)" in out


def test_a_job_says_what_is_missing(run: Run) -> None:
    for words, told in (
        (("--model", "Qwen3-32B"), "give --gpu, --requests, --concurrency"),
        (("--gpus", "2", "--usd-per-gpu-hour", "1"), "--seconds: is not known"),
        (("--gpus", "2", "--seconds", "9", "--usd-per-gpu-hour", "1", "--osl-cv", "1"), "--osl-cv: describes a prediction"),
    ):
        code, _, err = run("cost", "job", *words)
        assert code == 2 and told in err
