"""Tokens are not text: what the catalogue knows of tokenizers, and what plans and jobs in a language make of it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from planner import Plan, Scenario, solve
from planner.catalog.load import load_catalog, shipped_folders
from planner.check.check import check_plan
from planner.performance.lengths import met_by, workload_mix
from planner.scenario.workload import Workload
from planner.simulation.run import simulate

Run = Callable[..., tuple[int, str, str]]
CATALOG = load_catalog()


def counted() -> dict[tuple[str, str], int]:
    with (shipped_folders()[1] / "tokenizers.csv").open(encoding="utf-8") as file:
        return {(r["tokenizer"], r["language"]): int(r["tokens"]) for r in csv.DictReader(file)}


@pytest.mark.parametrize(("tokenizer", "published"), [("cl100k", 1.89), ("o200k", 1.26), ("llama-3", 1.31)])
def test_the_premium_of_chinese_over_english_is_the_published_one(tokenizer: str, published: float) -> None:
    """FLORES-200, another corpus of parallel text: 1.89 times for GPT-4's tokenizer, 1.26 to 1.36 for GPT-4o's and Llama 3's."""
    tokens = counted()
    assert tokens[tokenizer, "zh"] / tokens[tokenizer, "en"] == pytest.approx(published, rel=0.04)


def test_who_reads_chinese_with_the_fewest_tokens() -> None:
    """The Chinese publishers' tokenizers need fewer tokens than any of the others, those of English first the most."""
    zh = {tokenizer: t.factor for (tokenizer, language), t in CATALOG.tokens.items() if language == "zh"}
    chinese = {"qwen", "qwen-3.5", "deepseek-v3"}
    assert max(zh[t] for t in chinese) < min(f for t, f in zh.items() if t not in chinese)
    assert zh["mistral-v3"] / zh["qwen"] == pytest.approx(1.75, abs=0.05)
    assert zh["cl100k"] / zh["deepseek-v3"] == pytest.approx(2.0, abs=0.05)


def test_factors_are_what_was_counted() -> None:
    """A factor is a quotient of counts, inside its own spread over documents; English is much the same to all but the oldest."""
    tokens = counted()
    for (tokenizer, language), t in CATALOG.tokens.items():
        assert t.factor == pytest.approx(tokens[tokenizer, language] / tokens["o200k", language], rel=1e-3)
        assert t.low <= t.factor <= t.high
        if language == "en" and not tokenizer.startswith("mistral"):
            assert 1 <= t.factor < 1.06


def test_a_card_without_a_tokenizer_is_unknown_not_one() -> None:
    cards = {c.name: c for c in CATALOG.cards}
    assert CATALOG.tokens_per_stated(cards["Qwen3-32B"], "zh", "o200k") == pytest.approx(0.836, abs=0.001)
    assert CATALOG.tokens_per_stated(cards["Qwen3-32B"], "zh", "qwen") == 1
    assert CATALOG.tokens_per_stated(cards["GLM-4.5"], "zh", "o200k") is None
    assert CATALOG.tokens_per_stated(cards["Qwen3-32B"], "tlh", "o200k") is None


def test_every_tokenizer_named_on_a_card_is_counted() -> None:
    languages = {language for _, language in CATALOG.tokens}
    named = {c.tokenizer.name for c in CATALOG.cards if c.tokenizer}
    assert {(t, language) for t in named for language in languages} <= CATALOG.tokens.keys()
    assert Path(shipped_folders()[1] / "tokenizers.csv").stat().st_size < 100_000


# ---- plans


ONE = {"models": ["Qwen3-32B"], "qps": 20, "input_tokens": 1000, "output_tokens": 300}
SUPPLY = {"gpus": ["H100-SXM-80GB"]}


def plan(*workloads: dict[str, Any], **more: Any) -> Plan:
    return solve(Scenario.model_validate({"workload": list(workloads) or [ONE], "supply": SUPPLY, **more}), CATALOG, compare=False)


def told(found: Plan, words: str) -> bool:
    return any(words in warning for warning in found.warnings)


def holds(found: Plan) -> bool:
    return check_plan(Plan.model_validate_json(found.model_dump_json()), CATALOG).ok


def test_chinese_is_lengths_times_what_the_model_makes_of_it() -> None:
    """1,000 tokens of o200k in Chinese are 836 of Qwen's: the plan is that of prompts and answers so long, at the spread of the text as stated."""
    chinese, plain = plan(ONE | {"language": "zh"}), plan(ONE | {"input_tokens": 835.6, "output_tokens": 250.68, "input_cv": 0.96, "output_cv": 0.77})
    for a, b in zip(chinese.deployments, plain.deployments, strict=True):
        assert (a.checkpoint, a.tp, a.replicas, a.max_num_seqs) == (b.checkpoint, b.tp, b.replicas, b.max_num_seqs)
        assert a.capacity_qps_per_replica == pytest.approx(b.capacity_qps_per_replica, rel=1e-9)
    assert chinese.workloads[0].predicted == plain.workloads[0].predicted
    assert chinese.workloads[0].routing[0].tokens_per_stated == pytest.approx(0.8356)
    assert told(chinese, "Qwen3-32B makes 0.836 tokens of each of o200k's in zh (tokenizer qwen, 0.791 to 0.89 over documents")
    assert holds(chinese)


def test_unit_costs_stay_in_stated_tokens() -> None:
    """Who asks in Chinese wants to know what the text costs: the user's tokens do not change with the model."""
    found = plan(ONE | {"language": "zh"})
    assert found.workloads[0].output_tokens == 300
    assert found.cost.usd_per_million_output_tokens == pytest.approx(found.cost.usd_per_hour / (20 * 300 * 3600) * 1e6)


def test_in_the_models_own_tokens_and_unsaid_nothing_changes() -> None:
    plain = plan(ONE)
    for same in ({"language": "zh", "tokenizer": "qwen"}, {"language": "en", "tokenizer": "qwen"}):
        found = plan(ONE | same)
        assert found.deployments == plain.deployments and found.warnings == plain.warnings and found.cost == plain.cost
    assert not told(plain, "tokens of each") and plain.workloads[0].routing[0].tokens_per_stated == 1


def test_an_unknown_tokenizer_is_said_and_taken_as_equal() -> None:
    asked = {"models": ["GLM-4.5-Air"], "qps": 5}
    plain, chinese = plan(asked), plan(asked | {"language": "zh"})
    assert chinese.deployments == plain.deployments
    assert told(chinese, "the tokenizer of GLM-4.5-Air is not known: its tokens are taken as equal to those of o200k")
    assert not told(plain, "is not known: its tokens")


def test_apis_bill_the_tokens_that_their_model_makes() -> None:
    """The same API at the same price: in Chinese, Qwen's bill is that of 0.836 tokens per stated token."""
    asked = {"models": ["Qwen3-32B"], "qps": 20}
    plain, chinese = ({a.api_name: a.usd_per_hour for a in plan(asked | more).api} for more in ({}, {"language": "zh"}))
    assert plain and plain.keys() == chinese.keys()
    for name, usd in plain.items():
        assert chinese[name] / usd == pytest.approx(0.8356)


def test_languages_of_several_workloads_each_count_for_themselves() -> None:
    """One deployment, three workloads: every one has its own tokens, in requests/s and in flight, and the check finds the same."""
    found = plan(
        {"name": "zh", "language": "zh", "qps": 10, "models": ["Qwen3-32B"]},
        {"name": "hi", "language": "hi", "tokenizer": "gemma-3", "qps": 2, "models": ["Qwen3-32B"]},
        {"name": "code", "language": "code", "concurrency": 30, "models": ["Qwen3-32B"], "lengths": "azure-2023-code", "max_input": 8000},
    )
    ratios = {w.name: w.routing[0].tokens_per_stated for w in found.workloads}
    assert ratios == pytest.approx({"zh": 0.836, "hi": 2.891 / 0.871, "code": 1.006}, rel=2e-3)
    assert holds(found)


def test_the_check_derives_tokens_again() -> None:
    found = plan(ONE | {"language": "zh"})
    edited = found.model_dump(mode="json")
    edited["workloads"][0]["routing"][0]["tokens_per_stated"] = 1.0
    assert not holds(Plan.model_validate(edited))
    edited = found.model_dump(mode="json")
    edited["scenario"]["workload"][0]["language"] = "ko"  # 1.4 times the tokens that it was planned for
    assert not holds(Plan.model_validate(edited))


def test_a_simulation_meets_the_tokens_that_were_planned_for() -> None:
    """TTFT and E2E of a simulated Chinese workload are the predicted ones; Hindi, three times the tokens, would not be."""
    found = plan(ONE | {"language": "zh"})
    seen = simulate(found, CATALOG, requests=20_000, seed=1).workloads[0]
    expected = found.workloads[0].predicted
    assert expected is not None
    assert seen.e2e_ms["mean"] == pytest.approx(expected.e2e_ms.mean, rel=0.08)
    assert seen.ttft_ms["mean"] == pytest.approx(expected.ttft_ms.mean, rel=0.15)


def test_what_callers_can_send_is_converted_too() -> None:
    asked = Workload(qps=1, input_tokens=1000, output_tokens=300, max_input=4000, max_request=5000)
    met = met_by(asked, 2.0)
    assert (met.input_tokens, met.output_tokens, met.max_input, met.max_request) == (2000, 600, 8000, 10000)
    assert met.spreads == asked.spreads and met_by(asked, 1.0) is asked
    plain = Workload.model_validate({"qps": 1, "lengths": "azure-2023-conv"})
    joint = met_by(plain, 2.0)
    twice, once = workload_mix(joint, 1.0), workload_mix(plain, 1.0)
    assert twice.input_tokens == pytest.approx(2 * once.input_tokens) and twice.output_tokens == pytest.approx(2 * once.output_tokens)
    assert joint.lengths and plain.lengths and plain.lengths.longest
    assert joint.lengths.longest == pytest.approx([2 * tokens for tokens in plain.lengths.longest])


# ---- a cheaper model made dearer


def test_a_model_cheaper_in_english_is_dearer_in_chinese(run: Run) -> None:
    """2,993 requests on two A800: Llama 3's tokenizer costs it its lead over Qwen3 in Chinese; Phi-4's makes it cost twice as much as its equal in English."""

    def usd(model: str, language: str) -> float:
        words = ("--gpu", "A800-SXM-80GB", "--tp", "2", "--requests", "2993", "--concurrency", "64", "--usd-per-gpu-hour", "0.79", "--language", language)
        code, out, _ = run("cost", "job", "--model", model, *words, "--format", "json")
        assert code == 0
        return float(json.loads(out)["usd"])

    assert usd("Llama-3.1-8B", "en") < usd("Qwen3-8B", "en") and usd("Llama-3.1-8B", "zh") > 1.2 * usd("Qwen3-8B", "zh")
    assert usd("microsoft/phi-4", "en") == pytest.approx(usd("Qwen3-14B", "en"), rel=0.03) and usd("microsoft/phi-4", "zh") > 2 * usd("Qwen3-14B", "zh")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--language", "zz"), "--language: unknown language 'zz'"),
        (("--language", "zh", "--tokenizer", "qwn"), "--tokenizer: unknown tokenizer 'qwn' (did you mean 'qwen'?)"),
        (("--tokenizer", "qwen"), "--tokenizer: tokens of a tokenizer become those of models by language; give the language too"),
    ],
)
def test_what_is_no_language(words: tuple[str, ...], told: str, run: Run) -> None:
    job = ("cost", "job", "--model", "Qwen3-8B", "--gpu", "H100-SXM-80GB", "--requests", "9", "--concurrency", "3")
    for command in (("--qps", "20", "--min-quality", "0.6"), job):
        code, _, err = run(*command, *words)
        assert code == 2 and told in err and "Traceback" not in err
