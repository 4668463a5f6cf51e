"""The catalogue as one immutable value: everything the planner knows about models, GPUs, prices and measurements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from pathlib import Path

from planner.catalog.records import (
    REFERENCE,
    ApiPrice,
    Calibration,
    Card,
    Checkpoint,
    Gpu,
    MeasuredConfiguration,
    Mode,
    Offer,
    PowerGrid,
    Recovery,
    TokenCount,
    TunedEngine,
    Variant,
)  # fmt: skip

MODES: Mapping[Variant, tuple[Mode, ...]] = {"instruct": ("instruct",), "thinking": ("thinking",), "hybrid": ("instruct", "thinking"), "base": ()}


@dataclass(frozen=True)
class Quality:
    """The score of one checkpoint in one mode on one benchmark, and how it is known."""

    benchmark: str
    score: float
    self_reported: bool
    derived: bool  # a quantised checkpoint's score, taken from its original times the scheme's recovery
    source: str
    as_of: str
    note: str = ""
    lowest: float | None = None  # of a derived score: at the worst published recovery; not rounded

    @property
    def at_worst(self) -> float:
        """The score at the worst recovery published for its scheme; one that was measured stands as it is."""
        return self.score if self.lowest is None else self.lowest


@dataclass(frozen=True)
class Served:
    """A checkpoint answering in one mode: what a request meets."""

    card: Card
    checkpoint: Checkpoint
    mode: Mode
    output_factor: float | None  # tokens written per answer token; 1 when it does not reason, None when unknown
    output_factor_source: str = ""


@dataclass(frozen=True)
class Catalog:
    """All records, with the hash of the files they came from."""

    cards: tuple[Card, ...]
    gpus: Mapping[str, Gpu]
    offers: tuple[Offer, ...]
    api_prices: tuple[ApiPrice, ...]
    recoveries: Mapping[str, Recovery]
    measured: tuple[MeasuredConfiguration, ...]
    coefficients_file: Path
    hash: str
    folders: tuple[Path, ...] = field(default=())
    tuned: Mapping[tuple[str, str], TunedEngine] = field(default_factory=dict)  # by tuning and engine
    calibrated: tuple[Calibration, ...] = ()  # by the user's own measurements
    tokens: Mapping[tuple[str, str], TokenCount] = field(default_factory=dict)  # by tokenizer and language
    grids: Mapping[tuple[str, str], PowerGrid] = field(default_factory=dict)  # by provider and region
    spot_files: tuple[Path, ...] = ()  # how often spot is taken back, read where it is needed (spot.py); the last wins

    @cached_property
    def served(self) -> tuple[Served, ...]:
        """Every checkpoint in every mode it answers in; base checkpoints answer nobody."""
        return tuple(s for card in self.cards for c in card.checkpoint for s in _modes(card, c))

    def tokens_per_stated(self, card: Card, language: str, tokenizer: str = "") -> float | None:
        """Tokens that a model makes of text in a language per token of ``tokenizer`` (the reference); None where either is not known."""
        own, stated = (self.tokens.get((name, language)) for name in (card.tokenizer.name if card.tokenizer else "", tokenizer or REFERENCE))
        return own.factor / stated.factor if own and stated else None

    def tokens_in_words(self, card: Card, language: str, tokenizer: str = "") -> str:
        """What a model makes of the tokens that lengths are stated in, and how it is known; "" where that is not asked, or they are its own."""
        stated = tokenizer or REFERENCE
        tokens = self.tokens_per_stated(card, language, stated) if language else 1.0
        if tokens is None or card.tokenizer is None:
            unknown = f"the tokenizer of {card.name} is not known: its tokens are taken as equal to those of {stated}, in which lengths are stated"
            return unknown if language else ""
        if tokens == 1.0:
            return ""
        row = self.tokens[card.tokenizer.name, language]
        spread = f", {row.low:.3g} to {row.high:.3g} over documents" if stated == REFERENCE else ""
        how = f"tokenizer {card.tokenizer.name}{spread}; see plan catalog tokenizers {language}"
        return f"{card.name} makes {tokens:.3g} tokens of each of {stated}'s in {language} ({how})"

    @cached_property
    def newest_price(self) -> date:
        """The date of the newest price, from which ages of prices count; what a scenario itself states has none."""
        return max((o.as_of for o in self.offers if o.dated_by != "scenario" and not o.id), default=date.max)

    def quality(self, served: Served, benchmark: str) -> Quality | None:
        """Its own score if published, else its original's score times the recovery of its scheme; None if neither."""
        card, checkpoint = served.card, served.checkpoint
        own = _score(card, checkpoint.id, served.mode, benchmark)
        if own is not None or not checkpoint.quantised_from:
            return own
        base = _score(card, checkpoint.quantised_from, served.mode, benchmark)
        recovery = self.recoveries.get(checkpoint.scheme)
        if base is None or recovery is None:
            return None
        pairs = f"{recovery.pairs} published pairs, {recovery.lowest:g}-{recovery.highest:g}"
        source = f"{base.source}; times {checkpoint.scheme} recovery {recovery.factor:g} ({pairs})"
        lowest = base.score * recovery.lowest
        return Quality(benchmark, round(base.score * recovery.factor, 5), base.self_reported, True, source, base.as_of, base.note, lowest)


def _score(card: Card, checkpoint: str, mode: str, benchmark: str) -> Quality | None:
    for q in card.quality:
        if q.checkpoint == checkpoint and q.mode == mode and q.benchmark == benchmark:
            return Quality(benchmark, q.score, q.self_reported, False, q.source, q.as_of.isoformat(), q.note)
    return None


def _modes(card: Card, checkpoint: Checkpoint) -> list[Served]:
    found = []
    for mode in MODES[checkpoint.variant]:
        if mode == "instruct":
            found.append(Served(card, checkpoint, mode, 1.0))
            continue
        names = (checkpoint.id, checkpoint.quantised_from)
        factor = next((f for name in names for f in card.output_factor if f.checkpoint == name and f.mode == mode), None)
        found.append(Served(card, checkpoint, mode, factor.factor if factor else None, factor.source if factor else ""))
    return found
