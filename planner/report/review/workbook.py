"""A review as a workbook: what is bought with formulas that follow a reviewer's hours, months and discounts, then every part as numbers. Needs ``report``.

Texts are written as strings, so that none of them is run as a formula or followed as a link.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from planner.clean import plain
from planner.economics.review import Review
from planner.report.review.tables import Row, plans, review_tables
from planner.report.review.words import question
from planner.result.plan import Plan, Purchase
from planner.scenario.units import HOURS_PER_MONTH

if TYPE_CHECKING:
    from xlsxwriter.format import Format
    from xlsxwriter.workbook import Workbook
    from xlsxwriter.worksheet import Worksheet

OPTIONS = {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False, "nan_inf_to_errors": True}
MADE = datetime(2000, 1, 1)  # the same question makes the same file
HOURS, MONTHS, DISCOUNT = "$B$4", "$B$5", "$B$6"  # what a reviewer may change
FIRST = 9  # row of the first table of costs, counted from 1
HEADER = ("provider", "instance", "region", "purchase", "GPU", "instances", "$/h each", "discount", "$/h", "$/month", "$ over the months", "price of", "source")
UNITS = (
    "workload", "requests/s", "tokens in", "tokens out", "share of cost", "$/h", "$/1,000 requests", "$/M input", "$/M output", "of it input", "of it output",
)  # fmt: skip
MONEY, SHARE, WIDEST = '"$"#,##0.00', "0.0%", 60


def xlsx_of(r: Review) -> bytes:
    """The workbook's bytes."""
    from xlsxwriter import Workbook

    buffer = io.BytesIO()
    book = Workbook(buffer, OPTIONS)
    book.set_properties({"created": MADE, "title": "Capacity review"})
    totals = _costs(book, r)
    _units(book, r.plan, totals[0])
    for name, rows in review_tables(r).items():
        if name not in ("purchases", "unit costs"):
            _sheet(book, name, rows)
    book.close()
    return buffer.getvalue()


def _put(sheet: Worksheet, row: int, column: int, value: object, style: Format | None = None) -> None:
    """A cell: numbers as numbers, everything else as text; nothing for what is not known."""
    if isinstance(value, bool):
        sheet.write_boolean(row, column, value, style)
    elif isinstance(value, (int, float)):
        sheet.write_number(row, column, value, style)
    elif value is not None and value != "":
        sheet.write_string(row, column, plain(str(value)), style)


def _costs(book: Workbook, r: Review) -> list[int]:
    """What each plan buys, with live sums; the rows of the totals, counted from 1."""
    sheet, bold = book.add_worksheet("Costs"), book.add_format({"bold": True})
    given = book.add_format({"bg_color": "#FFF6D6", "border": 1, "border_color": "#C9B97A"})
    share = book.add_format({"bg_color": "#FFF6D6", "border": 1, "border_color": "#C9B97A", "num_format": SHARE})
    _put(sheet, 0, 0, "Capacity review: what is bought", bold)
    _put(sheet, 1, 0, question(r.plan))
    _put(sheet, 2, 0, "Change the marked cells; everything else follows.")
    for row, (words, value, style) in enumerate((("hours per month", HOURS_PER_MONTH, given), ("months", 12, given), ("discount on list prices", 0.0, share))):
        _put(sheet, 3 + row, 0, words)
        _put(sheet, 3 + row, 1, value, style)
    at, totals = FIRST, list[int]()
    for name, plan in plans(r):
        at = _bought(book, sheet, name, plan, at)
        totals.append(at)
        at += 3
    sheet.set_column(0, 4, 16)
    sheet.set_column(5, 10, 13)
    sheet.set_column(11, 12, 30)
    return totals


def _bought(book: Workbook, sheet: Worksheet, name: str, plan: Plan, at: int) -> int:
    """One plan's purchases from a row on, counted from 1, with their sums; the row of these."""
    bold, money = book.add_format({"bold": True}), book.add_format({"num_format": MONEY})
    share, whole = book.add_format({"num_format": SHARE, "bg_color": "#FFF6D6"}), book.add_format({"num_format": MONEY, "bold": True, "top": 1})
    _put(sheet, at - 1, 0, name, bold)
    for column, text in enumerate(HEADER):
        _put(sheet, at, column, text, bold)
    first = at + 2
    for i, p in enumerate(plan.purchases):
        _line(sheet, first + i, p, money, share)
    last = first + len(plan.purchases) - 1
    _put(sheet, last, 0, "total", bold)
    instances = sum(p.instances for p in plan.purchases)
    sheet.write_formula(last, 5, f"=SUM(F{first}:F{last})", bold, instances)
    usd = sum(p.usd_per_hour for p in plan.purchases)
    for letter, column, value in (("I", 8, usd), ("J", 9, usd * HOURS_PER_MONTH), ("K", 10, usd * HOURS_PER_MONTH * 12)):
        sheet.write_formula(last, column, f"=SUM({letter}{first}:{letter}{last})", whole, value)
    return last + 1


def _line(sheet: Worksheet, row: int, p: Purchase, money: Format, share: Format) -> None:
    """One purchase in a row counted from 1; its discount is the common one until it is changed."""
    for column, value in enumerate((p.provider, p.instance_type, p.region, p.purchase, p.gpu, p.instances)):
        _put(sheet, row - 1, column, value)
    _put(sheet, row - 1, 6, p.usd_per_hour / p.instances, money)
    sheet.write_formula(row - 1, 7, f"={DISCOUNT}", share, 0.0)
    sheet.write_formula(row - 1, 8, f"=F{row}*G{row}*(1-H{row})", money, p.usd_per_hour)
    sheet.write_formula(row - 1, 9, f"=I{row}*{HOURS}", money, p.usd_per_hour * HOURS_PER_MONTH)
    sheet.write_formula(row - 1, 10, f"=J{row}*{MONTHS}", money, p.usd_per_hour * HOURS_PER_MONTH * 12)
    _put(sheet, row - 1, 11, p.as_of)
    _put(sheet, row - 1, 12, p.source)


def _units(book: Workbook, plan: Plan, total: int) -> None:
    """What tokens and requests cost, by workload: shares of the total on the sheet of costs, so that discounts reach them."""
    shared = [(w, w.unit_costs) for w in plan.workloads if w.unit_costs]
    if not shared:
        return
    sheet, bold = book.add_worksheet("Unit economics"), book.add_format({"bold": True})
    money, share = book.add_format({"num_format": '"$"#,##0.0000'}), book.add_format({"num_format": SHARE})
    header = (
        "workload",
        "requests/s",
        "tokens in",
        "tokens out",
        "share of cost",
        "$/h",
        "$/1,000 requests",
        "$/M input",
        "$/M output",
        "of it input",
        "of it output",
    )
    for column, text in enumerate(header):
        _put(sheet, 0, column, text, bold)
    whole = sum(u.usd_per_hour for _, u in shared)
    for i, (w, u) in enumerate(shared):
        at, tokens_in, tokens_out = i + 2, w.input_tokens or 0.0, w.output_tokens or 0.0
        prompts = u.input_usd_per_hour + u.cached_input_usd_per_hour
        for column, value in enumerate((w.name, w.qps, tokens_in, tokens_out)):
            _put(sheet, at - 1, column, value)
        _put(sheet, at - 1, 4, u.usd_per_hour / whole, share)
        sheet.write_formula(at - 1, 5, f"=E{at}*Costs!I{total}", money, u.usd_per_hour)
        sheet.write_formula(at - 1, 6, f"=F{at}/(B{at}*3600)*1000", money, u.usd_per_hour / (w.qps * 3600) * 1000)
        sheet.write_formula(at - 1, 7, f"=F{at}*J{at}/(B{at}*C{at}*3600)*1000000", money, prompts / (w.qps * tokens_in * 3600) * 1e6)
        sheet.write_formula(at - 1, 8, f"=F{at}*K{at}/(B{at}*D{at}*3600)*1000000", money, u.output_usd_per_hour / (w.qps * tokens_out * 3600) * 1e6)
        _put(sheet, at - 1, 9, prompts / u.usd_per_hour, share)
        _put(sheet, at - 1, 10, u.output_usd_per_hour / u.usd_per_hour, share)
    sheet.set_column(0, 10, 16)


def _sheet(book: Workbook, name: str, rows: Sequence[Row]) -> None:
    """One part: a header, then its rows."""
    sheet, bold = book.add_worksheet(name.capitalize()), book.add_format({"bold": True, "bottom": 1})
    header = list(dict.fromkeys(k for row in rows for k in row))
    for column, text in enumerate(header):
        _put(sheet, 0, column, text, bold)
        longest = max(len(str(row.get(text, ""))) for row in rows)
        sheet.set_column(column, column, min(max(longest, len(text)) + 2, WIDEST))
    for i, row in enumerate(rows):
        for column, key in enumerate(header):
            _put(sheet, i + 1, column, row.get(key))
    sheet.freeze_panes(1, 0)
