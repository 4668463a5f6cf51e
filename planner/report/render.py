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
from rich.console import Console
from rich.table import Table
from rich.text import Text

from planner.clean import cell, markdown_line, plain
from planner.clean import markdown as marked
from planner.report.sections import Grid, Section

WIDTH = 160  # where the output is no terminal


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
        console.print(Text(plain(section.title), style="bold yellow" if section.is_caution else "bold"))
        for line in section.lines:
            console.print(Text(f"  {'! ' if section.is_caution else ''}{plain(line)}"), overflow="fold")
        if section.grid:
            console.print(_table(section.grid))
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def _table(grid: Grid) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False)
    for name in grid.header:
        table.add_column(Text(plain(name)), justify="right" if name in grid.right else "left", overflow="fold")
    for row in grid.rows:
        table.add_row(*(Text(plain(text)) for text in row))
    return table


def markdown(sections: Sequence[Section]) -> str:
    """The sections as Markdown."""
    parts: list[str] = []
    for section in sections:
        parts.append(f"## {markdown_line(section.title)}\n")
        if section.lines:
            parts.append((_fenced(section.lines) if section.is_code else "\n".join(f"- {markdown_line(line)}" for line in section.lines)) + "\n")
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
