"""Looks over a catalogue: gaps, stale prices and conflicts, one finding each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

from planner.catalog.catalog import Catalog

STALE_DAYS = 90
CONFLICT = 3.0  # prices of one GPU this many times apart at the same kind of provider are worth a look
BENCHMARK = "mmlu-pro"


@dataclass(frozen=True)
class Shortfall:
    """One thing to mend: gap, stale or conflict."""

    kind: str
    where: str
    what: str


def examine(catalog: Catalog, today: date) -> tuple[Shortfall, ...]:
    """All findings, gaps first."""
    return (*_gaps(catalog), *_stale(catalog, today), *_conflicts(catalog))


def _gaps(catalog: Catalog) -> Iterator[Shortfall]:
    measured = {m.architecture for m in catalog.measured}
    names = {c.name for c in catalog.cards}
    for card in catalog.cards:
        served = [s for s in catalog.served if s.card is card]
        if not card.quality:
            yield Shortfall("gap", card.name, "no score on any benchmark: never eligible under a floor")
        elif not any(catalog.quality(s, BENCHMARK) for s in served):
            yield Shortfall("gap", card.name, f"no {BENCHMARK} score")
        silent = sorted({s.checkpoint.id for s in served if s.output_factor is None})
        if silent:
            yield Shortfall("gap", card.name, f"reasoning without an output factor, eligible only with --output-factor: {', '.join(silent)}")
        unknown = sorted({c.scheme for c in card.checkpoint if c.scheme and c.scheme not in catalog.recoveries})
        if unknown:
            yield Shortfall("gap", card.name, f"no published recovery for {', '.join(unknown)}: its quantised checkpoints have no derived score")
        if card.tokenizer is None:
            yield Shortfall("gap", card.name, "no tokenizer: its tokens are taken as equal to those that lengths are stated in, in every language")
        elif not any(name == card.tokenizer.name for name, _ in catalog.tokens):
            yield Shortfall("gap", card.name, f"no counts of its tokenizer {card.tokenizer.name} in tokenizers.csv: taken as equal")
        if card.name not in measured:
            yield Shortfall("gap", card.name, "no measured curve")
    offered = {o.gpu for o in catalog.offers}
    for name, gpu in catalog.gpus.items():
        if name not in offered:
            yield Shortfall("gap", name, "no offer")
        if name not in {m.gpu for m in catalog.measured}:
            yield Shortfall("gap", name, "no measured curve")
        missing = [p for p, peak in (("fp8", gpu.fp8_tflops), ("nvfp4", gpu.fp4_tflops), ("int8", gpu.int8_tops)) if p in gpu.precisions and peak is None]
        if missing:
            yield Shortfall("gap", name, f"runs {', '.join(missing)} without a known peak")
    for name in sorted(offered - set(catalog.gpus)):
        yield Shortfall("gap", name, "on offer without specifications: never used")
    for name in sorted(measured - names):
        yield Shortfall("gap", name, "measured, but there is no such card: the curves are not joined")
    known = {c.id for card in catalog.cards for c in card.checkpoint}
    for name in sorted({a.checkpoint for a in catalog.api_prices} - known):
        yield Shortfall("gap", name, "has an API price, but is on no card")


def _stale(catalog: Catalog, today: date) -> Iterator[Shortfall]:
    ages = Counter((o.provider, o.as_of, o.dated_by) for o in catalog.offers if (today - o.as_of).days > STALE_DAYS)
    for (provider, as_of, dated_by), count in sorted(ages.items()):
        undated = "" if dated_by == "row" else " (the snapshot's date; the rows are undated)"
        yield Shortfall("stale", provider, f"{count} prices of {as_of}{undated}, {(today - as_of).days} days old")
    undated_rows = Counter(o.provider for o in catalog.offers if o.dated_by == "snapshot" and (today - o.as_of).days <= STALE_DAYS)
    for provider, count in sorted(undated_rows.items()):
        yield Shortfall("stale", provider, f"{count} prices are undated at their source and carry the snapshot's date")


def _conflicts(catalog: Catalog) -> Iterator[Shortfall]:
    prices: dict[tuple[str, str, str], list[tuple[float, str]]] = {}
    for o in catalog.offers:
        prices.setdefault((o.gpu, o.kind, o.purchase), []).append((o.usd_per_hour / o.gpus_per_instance, o.provider))
    for (gpu, kind, purchase), found in sorted(prices.items()):
        (low, who), (high, other) = min(found), max(found)
        if high > CONFLICT * low:
            yield Shortfall("conflict", gpu, f"{kind} {purchase.replace('_', '-')} prices per GPU run from ${low:.2f} ({who}) to ${high:.2f} ({other})")
    for card in catalog.cards:
        for q in card.quality:
            if "reports" in q.note or "conflict" in q.note.lower():
                yield Shortfall("conflict", q.checkpoint, f"{q.benchmark} {q.score:.4g} in {q.mode} mode; {q.note}")
