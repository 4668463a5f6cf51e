"""Lengths without a spread, and what callers can send: the default fits the traces, cuts keep means, contexts refuse what the simulator draws."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from math import exp, log
from typing import Any

import numpy as np
import pytest

from planner import Scenario, load_catalog, solve
from planner.check.check import check_plan
from planner.demand.spread import CHAT_INPUT_CV, LEAST_CV, LONGEST_PROMPT, default_cv
from planner.performance.lengths import refused_share, workload_mix
from planner.result.plan import Plan
from planner.scenario.workload import Workload
from planner.simulation.rebuild import lengths_of

Run = Callable[..., tuple[int, str, str]]


def workload(**fields: Any) -> Workload:
    return Workload.model_validate({"qps": 1, **fields})


def drawn(w: Workload, many: int = 200_000) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    return lengths_of(w)(np.random.default_rng(7), many)


# ---- the default


def test_chat_lengths_keep_the_spread_of_chat() -> None:
    assert workload().spreads == workload(input_tokens=27_000, output_tokens=8_000).spreads == (0.96, 0.77)
    assert workload(input_tokens=100_000).spreads == (0.2, 0.77)
    assert workload(input_tokens=100_000, input_cv=0.96).spreads[0] == 0.96


@pytest.mark.parametrize(("mean", "cv"), [(32_701, 0.64), (31_644, 0.57), (56_390, 0.43), (46_218, 0.44), (87_832, 0.21)])
def test_the_default_fits_the_long_prompts_of_the_traces_from_above(mean: float, cv: float) -> None:
    assert cv - 0.02 <= default_cv(mean, CHAT_INPUT_CV, LONGEST_PROMPT) <= cv + 0.27


@pytest.mark.parametrize("mean", [28_000, 40_000, 60_000, 80_000])
def test_one_prompt_in_a_hundred_is_longer_than_any_seen(mean: float) -> None:
    cv = default_cv(mean, CHAT_INPUT_CV, LONGEST_PROMPT)
    rng = np.random.default_rng(1)
    sigma2 = log(1 + cv * cv)
    long = mean * np.exp(rng.standard_normal(400_000) * sigma2**0.5 - sigma2 / 2) > LONGEST_PROMPT
    assert long.mean() == pytest.approx(0.01, abs=0.001)


def test_longer_prompts_never_vary_more() -> None:
    found = [default_cv(exp(x), CHAT_INPUT_CV, LONGEST_PROMPT) for x in np.linspace(log(100), log(1e6), 300)]
    assert all(a >= b for a, b in pairwise(found)) and min(found) == LEAST_CV


# ---- what callers can send


@pytest.mark.parametrize(
    "fields",
    [
        {"input_tokens": 20_000, "max_input": 32_000},
        {"input_tokens": 8_000, "output_tokens": 2_000, "output_cv": 1.5, "max_request": 16_000},
        {"input_tokens": 30_000, "max_input": 31_000, "max_request": 32_768},
    ],
)
def test_what_is_sent_is_cut_and_keeps_its_means(fields: dict[str, Any]) -> None:
    w = workload(**fields)
    prompts, answers = drawn(w)
    mix = workload_mix(w, 1.0)
    for i, o in ((prompts, answers), (mix.input_tokens, mix.output_tokens)):
        assert i.max() <= fields.get("max_input", 1e9) and (i + o).max() <= fields.get("max_request", 1e9) + 1
        assert i.mean() == pytest.approx(w.input_tokens, rel=0.01) and o.mean() == pytest.approx(w.output_tokens, rel=0.02)
    assert workload_mix(w, 3.0).mean_output == pytest.approx(3 * mix.mean_output)


def test_a_histogram_is_cut_as_it_is_and_its_mean_falls() -> None:
    whole, cut = workload(lengths="mooncake-conversation"), workload(lengths="mooncake-conversation", max_input=32_000)
    assert cut.lengths is not None and cut.input_tokens == pytest.approx(cut.lengths.mean_input) and cut.input_tokens < whole.input_tokens
    assert drawn(cut)[0].max() <= 32_000 and refused_share(cut, 1.0, 40_000) == 0.0 < refused_share(whole, 1.0, 40_000)
    again = Scenario.model_validate(Scenario(workload=(cut,)).model_dump(mode="json"))
    assert again.workload[0] == cut


def test_a_mean_above_the_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot all be at most 50000"):
        workload(input_tokens=100_000, max_input=50_000)
    with pytest.raises(ValueError, match="cannot all be at most 100500"):
        workload(input_tokens=100_000, output_tokens=1_000, max_request=100_500)


# ---- what a context refuses


@pytest.mark.parametrize(
    ("fields", "factor", "context"),
    [
        ({"input_tokens": 100_000, "output_tokens": 1_000}, 1.0, 131_072),
        ({"input_tokens": 20_000, "output_tokens": 2_000}, 4.0, 65_536),
        ({"input_tokens": 20_000, "max_input": 40_000}, 1.0, 36_000),
        ({"input_tokens": 1_000, "output_tokens": 300, "input_cv": 0, "output_cv": 2}, 1.0, 2_048),
        ({"input_tokens": 30_000, "output_tokens": 3_000, "max_request": 60_000}, 2.0, 62_000),
    ],
)
def test_a_context_refuses_the_share_that_the_simulator_draws(fields: dict[str, Any], factor: float, context: int) -> None:
    w = workload(**fields)
    prompts, answers = drawn(w, 400_000)
    assert refused_share(w, factor, context) == pytest.approx((prompts + factor * answers > context).mean(), abs=0.004)


QUESTION = {"input_tokens": 100_000, "output_tokens": 1_000, "qps": 0.2, "slo": {"ttft_p95": "60s"}, "models": ["Llama-3.3-70B", "Llama-4-Maverick"]}


def planned(**fields: Any) -> Plan:
    supply = {"gpus": ["B200-SXM"]}
    return solve(Scenario.model_validate({"workload": [{**QUESTION, "output_factor": 1, **fields}], "supply": supply}), load_catalog(), compare=False)


def test_a_context_that_refuses_little_is_let_pass_and_said() -> None:
    strict, loose = planned(), planned(max_refused=0.1, models=["Llama-3.3-70B"], slo={"ttft_p95": "none"})
    assert {d.model for d in strict.deployments} == {"Llama-4-Maverick"} and strict.deployments[0].refused_share == pytest.approx(0, abs=5e-4)
    assert any("131,072 tokens 0.077" in w for w in strict.warnings)
    assert {d.model for d in loose.deployments} == {"Llama-3.1-70B"} and loose.deployments[0].refused_share == pytest.approx(0.077, abs=0.002)
    assert any(re.search(r"7\.[67]\d% of requests are longer than its context", w) for w in loose.warnings)
    assert check_plan(loose, load_catalog()).ok
    stricter = loose.scenario.workload[0].model_copy(update={"max_refused": 0.01})
    hidden = loose.model_copy(update={"scenario": loose.scenario.model_copy(update={"workload": (stricter,)})})
    assert not check_plan(hidden, load_catalog()).ok
    silent = loose.model_copy(update={"deployments": tuple(d.model_copy(update={"refused_share": 0.0}) for d in loose.deployments)})
    assert not check_plan(silent, load_catalog()).ok


def test_the_context_served_is_no_longer_than_needed(run: Run) -> None:
    words = ("--isl", "100000", "--osl", "1000", "--qps", "4", "--ttft", "60s", "--model", "Llama-4-Maverick", "--gpu", "B200-SXM")
    plan = json.loads(run(*words, "--format", "json")[1])
    assert int(re.findall(r"--max-model-len (\d+)|--context-length (\d+)|--max_seq_len (\d+)", plan["deployments"][0]["serve_command"])[0][0]) < 262_144
    said = next(w for w in plan["warnings"] if "how much prompts vary" in w)
    assert "at CV 0.2, as supposed" in said and "all equally long $" in said and "at CV 0.5 $" in said
    assert "how much prompts vary" not in run(*words, "--isl-cv", "0.2", "--format", "json")[1]
    assert any("CV 0.2 in" in d for d in plan["defaults"])


def test_a_hosted_api_must_take_the_requests_too() -> None:
    catalog = load_catalog()
    question = Scenario.model_validate({"workload": [{"qps": 1, "models": ["Llama-3.3-70B"]}]})
    assert solve(question, catalog, compare=False).api
    short = replace(catalog, api_prices=tuple(a.model_copy(update={"max_context": 4096}) for a in catalog.api_prices))
    assert not solve(question, short, compare=False).api


def test_the_limits_are_flags(run: Run) -> None:
    status, _, said = run("--qps", "1", "--isl", "9000", "--max-input", "8000")
    assert status == 2 and "--max-input" in said and "cannot all be at most 8000" in said
