"""A review as CSV: one row for each number, by part, item and name. Text that a spreadsheet would run is quoted (planner.clean.cell)."""

from __future__ import annotations

from planner.economics.review import Review
from planner.report.render import csv_text
from planner.report.review.tables import review_tables


def csv_of(r: Review) -> str:
    """(part, item, name, value), items counted from 1 within their part; what is not known is left out."""
    rows = [
        (part, i + 1, name, value)
        for part, table in review_tables(r).items()
        for i, row in enumerate(table)
        for name, value in row.items()
        if value is not None and value != ""
    ]
    return csv_text(("part", "item", "name", "value"), rows)
