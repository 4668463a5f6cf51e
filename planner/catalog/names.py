"""How models and measurements are called wherever they are shown."""

from __future__ import annotations


def called(card: str, checkpoint: str) -> str:
    """The model as its checkpoint names it: by its card where that begins with the card's name, else in its own words (several share an architecture)."""
    own = checkpoint.rsplit("/", maxsplit=1)[-1]
    return card if own.lower().startswith(card.lower()) and own[len(card) : len(card) + 1] in ("", "-") else own


def measured_as(architecture: str, card: str, checkpoint: str) -> str:
    """Whose measurement it is, told apart from the model asked for where both share an architecture."""
    return f"{architecture} (same architecture)" if architecture == card != called(card, checkpoint) else architecture
