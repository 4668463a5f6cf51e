"""Tokens are not text: what the catalogue knows of tokenizers."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from planner.catalog.load import load_catalog, shipped_folders

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
