"""How layouts, models and measurements are called wherever they are shown."""

from __future__ import annotations


def layout_words(tp: int, pp: int, dp: int, ep: int, draft: bool | int = False, prefill: int = 0, decode: int = 0) -> str:
    """TP4; TP8 EP8 with whole experts; DP8 EP8 where every GPU has the whole attention; stages of PP behind a cross.

    TP8 + MTP where a layer of the checkpoint drafts tokens; 1P3D of TP2: a unit of one prefill and three decode engines.
    """
    attention = [f"TP{tp // max(dp, 1)}" if tp > dp or dp == 1 else "", f"DP{dp}" if dp > 1 else "", f"EP{ep}" if ep > 1 else ""]
    engine = " ".join(a for a in attention if a) + (f" x PP{pp}" if pp > 1 else "") + (" + MTP" if draft else "")
    return f"{prefill}P{decode}D of {engine}" if decode else engine


def called(card: str, checkpoint: str) -> str:
    """The model as its checkpoint names it: by its card where that begins with the card's name, else in its own words (several share an architecture)."""
    own = checkpoint.rsplit("/", maxsplit=1)[-1]
    return card if own.lower().startswith(card.lower()) and own[len(card) : len(card) + 1] in ("", "-") else own


def measured_as(architecture: str, card: str, checkpoint: str) -> str:
    """Whose measurement it is, told apart from the model asked for where both share an architecture."""
    return f"{architecture} (same architecture)" if architecture == card != called(card, checkpoint) else architecture
