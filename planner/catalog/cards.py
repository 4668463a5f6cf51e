"""Reads model cards (one TOML file per LLM) and checks what a type cannot: names that refer to each other."""

from __future__ import annotations

from pathlib import Path

from planner.catalog.files import read_text, read_toml, toml_line
from planner.catalog.records import Card, OutputFactor, Score
from planner.errors import CatalogError, did_you_mean


def read_card(path: Path) -> Card:
    """One card, validated. Raises CatalogError with file and line."""
    card = read_toml(path, Card)
    for problem, loc in _problems(card):
        raise CatalogError(problem, f"{path}:{toml_line(read_text(path), loc)}")
    return card


def _problems(card: Card) -> list[tuple[str, tuple[str | int, ...]]]:
    """(what is wrong, where) for references between the tables of one card."""
    found: list[tuple[str, tuple[str | int, ...]]] = []
    ids = [c.id for c in card.checkpoint]
    if not ids:
        found.append(("the card has no checkpoint", ("checkpoint",)))
    for i, checkpoint in enumerate(card.checkpoint):
        if ids.index(checkpoint.id) != i:
            found.append((f"checkpoint '{checkpoint.id}' stands twice", ("checkpoint", i, "id")))
        if checkpoint.quantised_from and checkpoint.quantised_from not in ids:
            hint = did_you_mean(checkpoint.quantised_from, ids)
            found.append((f"quantised_from names no checkpoint of this card; {hint}", ("checkpoint", i, "quantised_from")))
        if checkpoint.quantised_from and not checkpoint.scheme:
            found.append(("a quantised checkpoint needs its scheme", ("checkpoint", i, "id")))
    tables: tuple[tuple[str, tuple[Score | OutputFactor, ...]], ...] = (("quality", card.quality), ("output_factor", card.output_factor))
    for table, rows in tables:
        seen: set[tuple[str, ...]] = set()
        for i, row in enumerate(rows):
            if row.checkpoint not in ids:
                found.append((f"'{row.checkpoint}' is no checkpoint of this card; {did_you_mean(row.checkpoint, ids)}", (table, i, "checkpoint")))
                continue
            variant = card.checkpoint[ids.index(row.checkpoint)].variant
            if variant == "base" or variant not in (row.mode, "hybrid"):
                found.append((f"a checkpoint of variant '{variant}' does not answer in mode '{row.mode}'", (table, i, "mode")))
            key = (row.checkpoint, row.mode, getattr(row, "benchmark", ""))
            if key in seen:
                found.append((f"a second row for {', '.join(k for k in key if k)}", (table, i, "checkpoint")))
            seen.add(key)
    a = card.architecture
    if bool(a.experts) != bool(a.moe_layers) or bool(a.experts) != bool(a.expert_intermediate_size):
        found.append(("experts, moe_layers and expert_intermediate_size go together", ("architecture", "experts")))
    if a.attention == "mla" and not a.kv_lora_rank:
        found.append(("MLA needs kv_lora_rank", ("architecture", "attention")))
    if a.expert_parameters > a.parameters:
        found.append((f"experts alone have {a.expert_parameters:.4g} weights, more than the {a.parameters:.4g} of the whole", ("architecture", "parameters")))
    if a.full_attention_layers + a.sliding_layers + a.linear_layers > a.layers:
        found.append(("more attention, sliding and linear layers than layers", ("architecture", "layers")))
    return found
