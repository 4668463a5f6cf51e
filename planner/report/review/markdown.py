"""A review as Markdown for a pull request: the change in the headline, everything else folded."""

from __future__ import annotations

from dataclasses import replace

from planner.clean import markdown, markdown_line
from planner.economics.compare import Compared
from planner.economics.review import Review
from planner.report import render
from planner.report.review.parts import review_parts
from planner.report.review.words import Part, arithmetic, bought_at, models, question
from planner.report.sections import Section, money
from planner.result.plan import Plan


def pull_request(r: Review) -> str:
    """The headline, what to know before signing, then each part folded."""
    decision, *parts = review_parts(r)
    blocks = [f"### {markdown_line(_headline(r))}", markdown_line(question(r.plan)), _options(r)]
    blocks += [_changes(r.compared)] if r.compared else []
    blocks += ["**What to know before signing**\n\n" + "\n".join(f"- {markdown_line(w)}" for w in r.plan.warnings[:3])] if r.plan.warnings else []
    blocks += [folded(p) for p in (decision, *parts)]
    return "\n\n".join(blocks) + "\n"


def _headline(r: Review) -> str:
    """What it costs; of several scenarios what the last changes against the first."""
    p = r.plan
    gpus = " + ".join(arithmetic(d) for d in p.deployments)
    return f"{money(p.cost.usd_per_hour)}/h ({money(p.cost.usd_per_month, 0)}/month): {gpus}, {models(p)}"


def _options(r: Review) -> str:
    """The plans to decide between, a row each."""
    rows = [_option("cheapest" if r.prudent else "plan", r.plan), *([_option("prudent", r.prudent)] if r.prudent else [])]
    head = "| | $/h | $/month | GPUs | model | bought at |\n|---|---:|---:|---|---|---|\n"
    return head + "\n".join("| " + " | ".join(map(markdown, row)) + " |" for row in rows)


def _option(name: str, p: Plan) -> tuple[str, ...]:
    gpus = "; ".join(arithmetic(d) for d in p.deployments)
    return (name, money(p.cost.usd_per_hour), money(p.cost.usd_per_month, 0), gpus, models(p), bought_at(p))


def _changes(compared: tuple[Compared, ...]) -> str:
    """What each scenario changes against the first."""
    first, lines = compared[0], list[str]()
    for c in compared[1:]:
        if c.usd_per_hour is None or not first.usd_per_hour:
            lines.append(f"- **{markdown(c.name)}**: {markdown(c.why if c.plan is None else 'beside no plan')}")
            continue
        more = c.usd_per_hour - first.usd_per_hour
        parts = "".join(f"; {markdown(f'{x.sign} {x.what}')}" for x in c.changes)
        lines.append(f"- **{markdown(c.name)}**: {markdown(f'{more:+,.2f} $/h ({c.usd_per_hour / first.usd_per_hour - 1:+.0%})')}{parts}")
    return f"**Against {markdown(first.name)}**\n\n" + "\n".join(lines)


def folded(part: Part) -> str:
    """A part that opens at a click."""
    body = [render.markdown([Section("", part.lines)]), *(_block(s) for s in (*part.tables, *(s for _, s in part.charts), *part.folded))]
    return f"<details><summary>{markdown(part.title)}</summary>\n\n" + "\n\n".join(b.strip() for b in body if b.strip()) + "\n\n</details>"


def _block(s: Section) -> str:
    """A section whose title is no heading, so that it does not stand in the pull request's contents."""
    title = f"**{markdown(s.title)}**\n\n" if s.title else ""
    return title + render.markdown([replace(s, title="")])
