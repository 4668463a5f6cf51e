"""A review as one page that needs nothing else: no network, light and dark, for the screen and for paper. Needs the extra ``report``.

Every text goes through the template's escaping, and through ``plain`` before it; the page may load nothing (Content-Security-Policy).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from planner.clean import plain
from planner.economics.review import Review
from planner.economics.whatif import WhatIf
from planner.report.bundle import bundled
from planner.report.drawing import in_script, version_of
from planner.report.review.drawings import specifications
from planner.report.review.parts import review_parts
from planner.report.review.studies import axis_text, cell_words
from planner.report.review.words import Part, option_rows, question
from planner.report.sections import Section, money
from planner.result.plan import Plan

EMBED = "window.vegaEmbed = vegaEmbed;"
LONG = ("source", "checkpoint", "what")  # columns of names without spaces
HEADLINE = ("model", "GPUs", "bought at")  # of an option, under its price


@dataclass(frozen=True)
class Option:
    """One of the plans to decide between, as a box of the page."""

    name: str
    usd_per_hour: str
    money: str
    facts: tuple[tuple[str, str], ...]


def page(r: Review) -> str:
    """The review as HTML."""
    decision, *parts = review_parts(r)
    return rendered(question(r.plan), r.plan.scenario.name, options(r), r.plan.warnings, decision, parts, r.plan.planner_version, specifications(r), r.what_if)


def rendered(
    title: str,
    name: str,
    options: Sequence[Option],
    cautions: Sequence[str],
    decision: Part,
    parts: Sequence[Part],
    version: str,
    charts: Mapping[str, dict[str, object]] | None = None,
    grid: WhatIf | None = None,
) -> str:
    """A document of options, cautions and parts as HTML."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    def finalize(value: object) -> object:
        return value if isinstance(value, Markup) or not isinstance(value, str) else plain(value)

    found = Environment(
        loader=PackageLoader("planner.report.review"), autoescape=True, undefined=StrictUndefined, finalize=finalize, trim_blocks=True, lstrip_blocks=True
    )
    drawn = dict(charts or {})
    return found.get_template("review.html.j2").render(
        title=title,
        name=name,
        options=options,
        cautions=cautions,
        decision=decision,
        parts=parts,
        charts=set(drawn),
        what_if=grid,
        kind_of=kind_of,
        specs=Markup(in_script(drawn)),
        cells=Markup(in_script(grid_data(grid))) if grid else Markup("null"),
        vega=Markup(_vega(drawn)),
        version=version,
    )


def options(r: Review) -> tuple[Option, ...]:
    """The plans to decide between."""
    both = [("Cheapest" if r.prudent else "Plan", r.plan), *([("Prudent", r.prudent)] if r.prudent else [])]
    return tuple(_option(name, plan) for name, plan in both)


def _option(name: str, plan: Plan) -> Option:
    rows = option_rows(plan)
    return Option(name, money(plan.cost.usd_per_hour), f"{rows['per month']} per month, {rows['per year']} per year", tuple((k, rows[k]) for k in HEADLINE))


def kind_of(section: Section, name: str) -> str:
    """How the cells of a column are set: numbers to the right, dates in one piece, long names broken anywhere."""
    if section.grid is not None and name in section.grid.right:
        return "n"
    return "date" if name == "as of" else "long" if name in LONG else ""


def grid_data(w: WhatIf) -> dict[str, object]:
    """The what-if grid as the page's script reads it: texts ready to be shown, the last axis fastest."""
    axes = [{"words": a.words, "unit": a.unit, "texts": [axis_text(a, v) for v in a.values], "now": a.now} for a in w.axes]
    return {"axes": axes, "cells": [cell_words(w, p) for p in w.plans], "values": [list(v) for v in product(*(a.values for a in w.axes))]}


def _vega(charts: dict[str, dict[str, object]]) -> str:
    """Vega, Vega-Lite and their embedding as one script; nothing where there is nothing to draw."""
    if not charts:
        return ""
    import vl_convert

    wanted = version_of(next(iter(charts.values())))
    script = bundled(f"{EMBED} {wanted}", lambda: str(vl_convert.javascript_bundle(EMBED, wanted)))
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")
