"""Names that a target takes, out of names that anybody may have given: RFC 1123 labels, unique, and safe as the names of files."""

from __future__ import annotations

import re
from collections.abc import Sequence

MOST = 40  # characters: controllers add their own to the 63 that a label may have


def label(text: str, most: int = MOST) -> str:
    """A DNS label (RFC 1123) that begins with a letter, as names of Services must; "x" where nothing of the text can stand in one."""
    found = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    found = found if not found or found[0].isalpha() else f"x{found}"
    return found[:most].rstrip("-") or "x"


def unique(texts: Sequence[str], most: int = MOST) -> tuple[str, ...]:
    """A label for each text, no two alike: -2, -3, … behind those that would be."""
    found: list[str] = []
    for text in texts:
        name, count = label(text, most), 1
        while name in found:
            count += 1
            tail = f"-{count}"
            name = label(text, most - len(tail)) + tail
        found.append(name)
    return tuple(found)
