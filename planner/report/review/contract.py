"""A contract as the document of a review: what to sign, then every part of its page, as one page or as Markdown."""

from __future__ import annotations

from planner.clean import markdown_line
from planner.report.contract import contract_sections
from planner.report.review.markdown import folded
from planner.report.review.page import Option, rendered
from planner.report.review.words import Part, table
from planner.report.sections import Section, money, plural
from planner.result.contract import Contract

SAID_ABOVE = ("Contract", "Sign now", "Futures", "Warnings")  # in the decision, or beside it


def contract_document(c: Contract, form: str) -> str:
    """The contract in HTML (needs the extra ``report``) or Markdown."""
    title = contract_title(c)
    decision, *parts = contract_parts(c)
    if form == "html":
        return rendered(title, c.scenario.name, options(c), c.warnings, decision, parts, c.planner_version)
    blocks = [f"### {markdown_line(f'{money(c.usd_per_hour)}/h over {c.outlook.months} months: {title}')}"]
    blocks += ["**What to know before signing**\n\n" + "\n".join(f"- {markdown_line(w)}" for w in c.warnings[:3])] if c.warnings else []
    return "\n\n".join([*blocks, *(folded(p) for p in (decision, *parts))]) + "\n"


def contract_title(c: Contract) -> str:
    """What is signed, in a line."""
    signed = [f"{x.instances} x {c.lines[x.line].instance_type} for {c.lines[x.line].term}" for x in c.commitments]
    return f"Sign {' + '.join(signed)}" if signed else "Sign nothing, buy by the hour"


def contract_parts(c: Contract) -> list[Part]:
    """The decision with what is signed and what each future costs; then the rest as it is told on a terminal."""
    every = {s.title: s for s in contract_sections(c)}
    beside = tuple(s for t in ("Sign now", "Futures") if (s := every.get(t)) and s.grid)
    rest = [_part(s) for t, s in every.items() if t not in SAID_ABOVE]
    tables = tuple(Section(s.title, grid=s.grid) for s in beside)
    return [Part("decision", "Decision", (*every["Contract"].lines, *every["Sign now"].lines), tables=tables), *rest, _provenance(c)]


def _provenance(c: Contract) -> Part:
    """Where prices, quality and performance come from."""
    rows = [("price", f"{x.provider} {x.instance_type}", x.source, x.as_of) for x in c.lines]
    for d in (d for part in c.parts for d in part.deployments):
        rows += [("quality", f"{d.checkpoint}: {d.quality.benchmark} {d.quality.score:.4f}", d.quality.source, d.quality.as_of)] if d.quality else []
        rows += [("performance", f"{d.checkpoint} on {d.gpu}: {d.evidence.tier}", d.evidence.source, d.evidence.as_of)] if d.evidence else []
    line = f"By planner {c.planner_version} with catalogue {c.catalog_hash}."
    return Part("provenance", "Evidence and provenance", (line,), tables=(table("", ("number", "what", "source", "as of"), list(dict.fromkeys(rows))),))


def _part(s: Section) -> Part:
    tables = (Section("", grid=s.grid),) if s.grid else (Section("", items=s.items),) if s.items else ()
    return Part(s.title.lower().replace(" ", "-").replace(",", ""), s.title, s.lines, tables=tables)


def options(c: Contract) -> tuple[Option, ...]:
    """The contract, and where it is known all by the hour."""
    months = f"{c.outlook.months} {plural('month', c.outlook.months)}"
    signed = f"{c.coverage:.0%} of GPU-hours"
    found = [Option("Contract", money(c.usd_per_hour), f"{money(c.usd, 0)} for {months}", (("committed", signed), ("futures", str(len(c.futures)))))]
    free = c.by_the_hour_usd_per_hour
    found += [Option("All by the hour", money(free), f"{money(free * c.hours, 0)} for {months}", (("committed", "nothing"),))] if free is not None else []
    return tuple(found)
