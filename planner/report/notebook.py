"""A plan as HTML for notebooks: the same sections as everywhere, escaped, no scripts. Once this is imported, plans show themselves so."""

from __future__ import annotations

from html import escape

from planner.clean import plain
from planner.report.sections import Grid, plan_sections
from planner.result.plan import Plan


def to_html(plan: Plan) -> str:
    """The plan's sections as an HTML fragment."""
    parts = []
    for section in plan_sections(plan):
        parts.append(f"<h4>{escape(plain(section.title))}</h4>")
        parts += [f"<p>{escape(plain(line))}</p>" for line in section.lines]
        parts += [_table(section.grid)] if section.grid else []
    return "\n".join(parts)


def _table(grid: Grid) -> str:
    def cell(tag: str, name: str, text: str) -> str:
        align = ' style="text-align:right"' if name in grid.right else ' style="text-align:left"'
        return f"<{tag}{align}>{escape(plain(text))}</{tag}>"

    head = "".join(cell("th", n, n) for n in grid.header)
    rows = "".join("<tr>" + "".join(cell("td", n, c) for n, c in zip(grid.header, row, strict=True)) + "</tr>" for row in grid.rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


Plan._repr_html_ = to_html
