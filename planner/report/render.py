"""Renders sections for the terminal (rich), Markdown and CSV, and makes every text harmless there. Nothing here knows what a plan is."""

from __future__ import annotations

import csv
import io
import os
import re
import sys
from collections.abc import Sequence
from typing import IO

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from planner.clean import cell, markdown_line, plain
from planner.clean import markdown as marked
from planner.report.sections import Grid, Section

WIDTH = 160  # where the output is no terminal
INDENT = "  "
BETWEEN = 3  # cells between two columns


def terminal(sections: Sequence[Section], stream: IO[str] | None = None) -> str:
    """The sections as text for a terminal; colours only on one, and never with NO_COLOR."""
    out = stream or sys.stdout
    is_terminal = stream is None and out.isatty()
    width = None if is_terminal or "COLUMNS" in os.environ else WIDTH
    buffer = io.StringIO()
    console = Console(file=buffer, width=width, force_terminal=is_terminal, highlight=False, no_color=None if is_terminal else True, soft_wrap=False)
    for i, section in enumerate(sections):
        if i:
            console.print()
        if section.title:
            console.print(Text(plain(section.title), style="bold yellow" if section.is_caution else "bold"))
        for line in section.lines:
            _line(console, plain(line), "!" if section.is_caution else "", is_code=section.is_code)
        if section.items:
            console.print(_labelled(section.items))
        if section.grid and (widths := _widths(section.grid, console.width)):
            console.print(_table(section.grid, widths))
        elif section.grid:
            _records(console, section.grid)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def _line(console: Console, text: str, mark: str, is_code: bool) -> None:
    """A paragraph, indented; words are broken only where one is longer than the line. What is to be copied stays whole."""
    if is_code:
        console.print(Text(INDENT + text), soft_wrap=True)
    else:
        console.print(Padding(_two_columns([(mark, text)]) if mark else Text(text), (0, 0, 0, len(INDENT))))


def _two_columns(rows: Sequence[tuple[str, str]], most: int | None = None) -> Table:
    """Labels, at most so wide, and texts."""
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(no_wrap=most is None, max_width=most)
    table.add_column(overflow="fold")
    for label, text in rows:
        table.add_row(Text(plain(label), style="bold"), Text(plain(text)))
    return table


def _labelled(items: Sequence[tuple[str, str]]) -> Padding:
    """Labels to the left of what they are of; a label that repeats is not said again."""
    said = [("" if i and label == items[i - 1][0] else label, text) for i, (label, text) in enumerate(items)]
    return Padding(_two_columns(said), (0, 0, 0, len(INDENT)))


def _widths(grid: Grid, width: int) -> list[int]:
    """Width of each column so that no word is broken, the widest cells narrowed most; empty where a table so wide does not fit."""
    columns = [[plain(text) for text in column] for column in zip(grid.header, *grid.rows, strict=True)]
    found = [max((cell_len(word) for text in column for word in text.split()), default=0) for column in columns]
    wanted = [max(cell_len(text) for text in column) for column in columns]
    left = width - BETWEEN * (len(columns) - 1) - sum(found)
    if left < 0:
        return []
    while left and (short := [i for i, n in enumerate(found) if n < wanted[i]]):
        narrowest = min(short, key=lambda i: found[i] / wanted[i])
        found[narrowest] += 1
        left -= 1
    return found


def _records(console: Console, grid: Grid) -> None:
    """A table too wide for the screen, row by row: the first cell on top, then name and value."""
    for i, row in enumerate(grid.rows):
        if i:
            console.print()
        first, *rest = zip(grid.header, row, strict=True)
        _line(console, " ".join(part for part in first if part), "", is_code=False)
        known, room = [(name, text) for name, text in rest if text], console.width - 2 * len(INDENT)
        longest = max((cell_len(word) for _, text in known for word in plain(text).split()), default=0)
        most = max(min(room // 4, room - 1 - longest), max((cell_len(word) for name, _ in known for word in name.split()), default=0))
        console.print(Padding(_two_columns(known, most), (0, 0, 0, 2 * len(INDENT))))


def _table(grid: Grid, widths: Sequence[int]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False)
    for name, width in zip(grid.header, widths, strict=True):
        table.add_column(Text(plain(name)), justify="right" if name in grid.right else "left", width=width)
    for row in grid.rows:
        table.add_row(*(Text(plain(text)) for text in row))
    return table


def markdown(sections: Sequence[Section]) -> str:
    """The sections as Markdown."""
    parts: list[str] = []
    for section in sections:
        parts += [f"## {markdown_line(section.title)}\n"] if section.title else []
        if section.lines:
            parts.append((_fenced(section.lines) if section.is_code else "\n".join(f"- {markdown_line(line)}" for line in section.lines)) + "\n")
        if section.items:
            parts.append("\n".join(f"- **{markdown_line(label)}** {markdown_line(text)}" for label, text in section.items) + "\n")
        if section.grid:
            parts.append(_markdown_table(section.grid))
    return "\n".join(parts)


def _fenced(lines: Sequence[str]) -> str:
    """Lines to be copied, between fences that none of them closes."""
    shown = [plain(line) for line in lines]
    fence = "`" * max(3, *(len(ticks) + 1 for line in shown for ticks in re.findall("`+", line)), 0)
    return "\n".join([fence, *shown, fence])


def _markdown_table(grid: Grid) -> str:
    head = "| " + " | ".join(map(marked, grid.header)) + " |"
    rule = "|" + "|".join("---:" if name in grid.right else "---" for name in grid.header) + "|"
    rows = ["| " + " | ".join(map(marked, row)) + " |" for row in grid.rows]
    return "\n".join([head, rule, *rows]) + "\n"


def csv_text(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table as CSV; text that a spreadsheet would run as a formula is quoted (planner.clean.cell)."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(map(cell, header))
    writer.writerows(map(cell, row) for row in rows)
    return buffer.getvalue()
