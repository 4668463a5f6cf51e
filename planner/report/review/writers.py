"""The forms in which a review is written, by the file's name or by name: each has one writer."""

from __future__ import annotations

from importlib.util import find_spec

from planner.economics.review import Review
from planner.errors import PlannerError, did_you_mean

SUFFIXES = {"html": "html", "htm": "html", "md": "markdown", "markdown": "markdown"}
FORMS = tuple(dict.fromkeys(SUFFIXES.values()))
NEEDED = {"html": ("altair", "jinja2", "vl_convert")}  # modules of the extra ``report``


def form_of(path: str) -> str:
    """The form that a file's name asks for. Raises PlannerError for another."""
    suffix = path.rpartition(".")[2].lower() if "." in path else ""
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


def delivered(r: Review, form: str) -> str | bytes:
    """The review in a form."""
    if form == "html":
        from planner.report.review.page import page

        return page(r)
    from planner.report.review.markdown import pull_request

    return pull_request(r)
