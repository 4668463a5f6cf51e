"""The forms in which a review is written, by the file's name or by name: each has one writer."""

from __future__ import annotations

from importlib.util import find_spec

from planner.economics.review import Review
from planner.errors import PlannerError, did_you_mean
from planner.report.review.focus import Months, focus_of

SUFFIXES = {"html": "html", "htm": "html", "md": "markdown", "markdown": "markdown", "xlsx": "xlsx", "csv": "csv", "focus.csv": "focus"}
FORMS = tuple(dict.fromkeys(SUFFIXES.values()))
NEEDED = {"html": ("altair", "jinja2", "vl_convert"), "xlsx": ("xlsxwriter",)}  # modules of the extra ``report``


def form_of(path: str) -> str:
    """The form that a file's name asks for. Raises PlannerError for another."""
    name = path.rpartition("/")[2].lower()
    suffix = "focus.csv" if name.endswith("focus.csv") else name.rpartition(".")[2] if "." in name else ""
    if suffix not in SUFFIXES:
        known = ", ".join(f".{s}" for s in SUFFIXES)
        hint = did_you_mean(suffix, SUFFIXES) or f"give --format, or a name that ends in {known}"
        raise PlannerError(f"nothing says in which form '{path}' is written", "-o", hint)
    return SUFFIXES[suffix]


def check_form(form: str) -> None:
    """Refuses a form that is not known, or that needs more than is installed, before any work. Raises PlannerError."""
    if form not in FORMS:
        raise PlannerError(f"unknown format '{form}'", "--format", did_you_mean(form, FORMS) or f"one of {', '.join(FORMS)}")
    if any(find_spec(m) is None for m in NEEDED.get(form, ())):
        raise PlannerError(f"{form} needs more packages than are installed", "--format", "pip install 'inference-planner[report]'")


def delivered(r: Review, form: str, over: Months) -> str | bytes:
    """The review in a form; FOCUS rows are of the plan, over so many months. Raises PlannerError for a plan that has none."""
    if form == "html":
        from planner.report.review.page import page

        return page(r)
    if form == "xlsx":
        from planner.report.review.workbook import xlsx_of

        return xlsx_of(r)
    if form == "csv":
        from planner.report.review.table import csv_of

        return csv_of(r)
    if form == "focus":
        return focus_of(r.plan, over)
    from planner.report.review.markdown import pull_request

    return pull_request(r)
