"""Makes text from outside harmless where it is shown: no control characters, no invisible reordering, no markup, no live formulas.

Names in scenarios, catalogues, tables and saved plans are anybody's. Each output form has its own function here, and the renderers
(report/render.py) and the command line (cli/) call it, so no other place has to think of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

MOST_ECHOED = 200  # characters of what the user gave, in an error
MOST_ERROR = 5_000  # characters of an error
NUMBER = re.compile(r"[+-][\d.,eE%x\s+-]*")  # -3, +4.5 %, - : no formula
FORMULA = re.compile(r"'*[=+\-@\t\r]")  # what spreadsheets take for one, perhaps quoted already
MARKED = re.compile(r"[\\`*\[\]|<]|(?<!\w)_|_(?!\w)|~~|&(?=#?\w+;)")
MARKED_FIRST = re.compile(r"(\d*)(?=[-+=#]+(?:\s|$)|>|(?<=\d)[.)]\s)")  # of a line: lists, headings, quotes


def plain(text: str) -> str:
    r"""One line of visible characters: the others (controls, escapes, newlines, direction overrides, invisible ones) as Python writes them, \x1b."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def json_text(text: str) -> str:
    r"""JSON with invisible characters inside its strings as \u escapes, which read back as the same characters."""
    return _each_line(text, lambda c: json.dumps(c)[1:-1] if c != "\x7f" else "\\u007f")


def toml_text(text: str) -> str:
    r"""The same of TOML whose strings stand in double quotes."""
    return _each_line(text, lambda c: f"\\u{ord(c):04x}" if ord(c) < 0x10000 else f"\\U{ord(c):08x}")


def _each_line(text: str, shown: Callable[[str], str]) -> str:
    """Visible characters as they are; the newlines between them are the format's own."""
    return "\n".join(line if line.isprintable() else "".join(c if c.isprintable() else shown(c) for c in line) for line in text.split("\n"))


def markdown(text: str) -> str:
    """Text inside a paragraph or a table's cell: Markdown's and HTML's marks stand for themselves."""
    return MARKED.sub(lambda m: {"<": "&lt;", "&": "&amp;", "~~": "\\~\\~"}.get(m[0], f"\\{m[0]}"), plain(text))


def markdown_line(text: str) -> str:
    """Text that begins a line."""
    return MARKED_FIRST.sub(r"\1\\", markdown(text), count=1) if MARKED_FIRST.match(markdown(text)) else markdown(text)


def cell(value: object) -> object:
    """A cell of a CSV: text that a spreadsheet would run as a formula gets a quote before it; numbers, also those in text, stay as they are."""
    if not isinstance(value, str):
        return value
    shown = plain(value)
    return f"'{shown}" if FORMULA.match(shown) and not NUMBER.fullmatch(shown) else shown


def read_cell(text: str) -> str:
    """A cell as ``cell`` was given it."""
    return text[1:] if text[:1] == "'" and FORMULA.match(text[1:]) else text


def error_line(text: str) -> str:
    """An error as one line that echoes little of what the user gave: words and quoted texts are cut, and the whole."""
    shown = plain(" ".join(text.split()))
    if len(shown) > MOST_ECHOED and not shown.startswith("infeasible"):  # which speaks of names alone, and at length
        shown = re.sub(rf"'.{{{MOST_ECHOED},}}'|\S{{{MOST_ECHOED},}}", lambda m: clipped(m[0]), shown)
    return clipped(shown, MOST_ERROR)


def clipped(text: str, most: int = MOST_ECHOED) -> str:
    """At most so many characters, both ends kept."""
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-(most - most // 2 - 1) :]}"
