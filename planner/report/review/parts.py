"""What a review says, part by part and in order, as text and tables: the page and Markdown are both made of it."""

from __future__ import annotations

from collections.abc import Sequence

from planner.deploy.release import plan_identity
from planner.economics.compare import changes, money_moved
from planner.economics.review import Review
from planner.figures import digits
from planner.report.autoscale import hours_sections
from planner.report.fleet import fleet_sections
from planner.report.review.studies import (
    comparison_part,
    curve_part,
    failure_part,
    frontier_part,
    sensitivity_part,
    staircase_part,
    what_if_part,
    without_bars,
)
from planner.report.review.words import UNITS, Part, arithmetic, limit_rows, option_rows, table
from planner.report.sections import Section, latency, money, plan_sections, power_section
from planner.result.plan import Plan, PlanWorkload

SAID_ELSEWHERE = ("Warnings", "Assumed", "Defaults used")  # of a plan by the hour
SIGNS = {"+": "New:", "-": "Gone:", "~": "Resized:"}


def review_parts(r: Review) -> list[Part]:
    """The parts that there are, in the order in which they are asked; what is left out stands last, each with the reason."""
    every = _every_part(r)
    missing = [(p.title, p.left_out) for p in every if p.left_out]
    last = [Part("left-out", "Left out", tables=(table("", ("part", "why"), missing),))] if missing else []
    return [*(p for p in every if not p.left_out), *last]


def _every_part(r: Review) -> list[Part]:
    if r.plan.periods:
        rest = (what_if_part(r), assumptions_part(r), provenance_part(r), solver_part(r))
        return [decision_part(r), demand_part(r.plan), hours_part(r.plan), *rest]
    own = {s.title: s for s in plan_sections(r.plan)}
    return [
        decision_part(r),
        demand_part(r.plan),
        plan_part(r.plan, own),
        *_as_one_section("today", fleet_sections(r.plan)),
        *([service_part(r.plan, own)] if "Predicted service" in own else [Part("routing", "Routing", tables=(own["Routing"],))]),
        *([Part("unit-costs", "Unit economics", own["Unit costs"].lines, tables=(_table_of(own["Unit costs"]),))] if "Unit costs" in own else []),
        *_as_one_section("power", [power_section(r.plan.power, r.plan)] if r.plan.power else []),
        frontier_part(r),
        curve_part(r),
        staircase_part(r),
        alternatives_part(own),
        failure_part(r),
        sensitivity_part(r),
        *([comparison_part(r)] if r.compared else []),
        what_if_part(r),
        assumptions_part(r),
        provenance_part(r),
        solver_part(r),
    ]


def _table_of(s: Section) -> Section:
    """The table alone."""
    return Section("", grid=s.grid)


def _as_one_section(key: str, sections: Sequence[Section]) -> list[Part]:
    """Sections as parts of their own: their lines, then the table."""
    return [Part(key, s.title, s.lines, tables=(_table_of(s),) if s.grid else ()) for s in sections]


def decision_part(r: Review) -> Part:
    """The cheapest plan and the prudent one, and what differs."""
    ours = option_rows(r.plan)
    if r.prudent is None:
        why = r.left_out.get("prudent", "")
        alone = table("", ("", "the plan"), tuple(ours.items()))
        return Part("decision", "Decision", (f"No prudent plan beside it: {why.rstrip('.')}.",) if why else (), tables=(alone,))
    theirs = option_rows(r.prudent)
    rows = [(k, ours.get(k, "-"), theirs.get(k, "-")) for k in dict.fromkeys((*ours, *theirs))]
    differs = (*(f"{SIGNS[c.sign]} {c.what}" for c in changes(r.plan, r.prudent)), *money_moved(r.plan, r.prudent))
    side = table("", ("", "cheapest", "prudent"), rows)
    tables = (side, Section("From the cheapest to the prudent plan", differs))
    return Part("decision", "Decision", tables=tables, charts=_bridge(r.plan))


def _bridge(plan: Plan) -> tuple[tuple[str, Section], ...]:
    """What each term of prudence adds."""
    found = next((s for s in plan_sections(plan) if s.title == "Fit to sign"), None) if plan.prudent else None
    return (("bridge", found),) if found else ()


def hours_part(plan: Plan) -> Part:
    """What serves and is held at every hour; what the document says elsewhere is left to that place."""
    own = [without_bars(s) for s in hours_sections(plan) if s.title not in SAID_ELSEWHERE]
    first, *rest = own
    held = next(s for s in rest if s.title.startswith(("By the hour", "GPUs held", "Requests/s", "Cost by day")))
    folded = tuple(s for s in rest if s.is_code)
    return Part("hours", "Hours", first.lines, tuple(s for s in rest if s is not held and s not in folded), (("hours", held),), folded)


def demand_part(plan: Plan) -> Part:
    """What comes, how long it is, and what is asked of the answers."""
    rows = [_demand_row(w) for w in plan.workloads]
    header = ("workload", "traffic", "peak", "requests/day", "tokens in", "tokens out", "in flight", "limits", "floor")
    asked = {w.name: w for w in plan.scenario.workload}
    hits = tuple(f"{n}: {a.prefix_cache_hit:.0%} of prompt tokens are found in the prefix cache." for n, a in asked.items() if a.prefix_cache_hit)
    return Part("demand", "Demand", hits, tables=(table("", header, rows, header[1:7]),))


def _demand_row(w: PlanWorkload) -> tuple[str, ...]:
    limits = ", ".join(f"{s.metric.upper()} p{s.percentile:g} {latency(s.limit_ms)}" for s in w.slo)
    return (
        w.name, f"{digits(w.demand.value)} {UNITS[w.demand.kind]}", f"x{w.burst_factor:g}", f"{w.qps * 86400:,.0f}",
        "-" if w.input_tokens is None else f"{w.input_tokens:,.0f}", "-" if w.output_tokens is None else f"{w.output_tokens:,.0f}",
        "-" if w.concurrency is None else f"{w.concurrency:,.0f}", limits or "none", "none" if w.min_quality is None else f"{w.min_quality:g}",
    )  # fmt: skip


def plan_part(plan: Plan, own: dict[str, Section]) -> Part:
    """What is bought and what runs on it, with the arithmetic of GPUs."""
    lines = [f"{arithmetic(d)}, {d.checkpoint}: {money(d.usd_per_hour)}/h." for d in plan.deployments]
    idle = plan.gpus_held - plan.gpus_used
    lines.append(f"{plan.gpus_held} GPUs are held, {plan.gpus_used} used, {idle or 'none'} idle.")
    tables = tuple(own[t] for t in ("What to buy", "Deployments", "Headroom") if t in own)
    folded = tuple(own[t] for t in ("Start one replica",) if t in own)
    return Part("plan", "Plan", (*lines, *(f"Bound by {b}." for b in plan.binding)), tables=tables, folded=folded)


def service_part(plan: Plan, own: dict[str, Section]) -> Part:
    """What users see against what was promised."""
    rows = limit_rows(plan)
    tight = max(rows, key=lambda x: x[3] / x[2], default=None)
    lines = (f"Nearest to its limit: {tight[1]} of {tight[0]}, {latency(tight[3])} of {latency(tight[2])} ({tight[3] / tight[2]:.0%}).",) if tight else ()
    return Part("service", "Service against limits", lines, charts=(("service", own["Predicted service"]),), tables=(own["How sure"],))


def alternatives_part(own: dict[str, Section]) -> Part:
    """What else there is, and why not."""
    if "Alternatives" not in own:
        return Part("alternatives", "Alternatives and why not", left_out="the plan was made without alternatives")
    s = own["Alternatives"]
    return Part("alternatives", "Alternatives and why not", s.lines, tables=(_table_of(s),))


def assumptions_part(r: Review) -> Part:
    """What the plan takes for granted."""
    defaults = tuple(f"{d[0].upper()}{d[1:]}." for d in r.plan.defaults)
    tables = [Section("Taken because nothing else was said", defaults)] if defaults else []
    tables += [Section("Assumptions", r.plan.assumptions)] if r.plan.assumptions else []
    return Part("assumptions", "Assumptions", tables=tuple(tables)) if tables else Part("assumptions", "Assumptions", left_out="none stated")


def provenance_part(r: Review) -> Part:
    """Where every number comes from."""
    plan = r.plan
    rows = [("price", f"{p.provider} {p.instance_type}, {money(p.usd_per_hour / p.instances, 3)}/h", p.source, p.as_of) for p in plan.purchases]
    for d in plan.deployments:
        rows += [("quality", f"{d.checkpoint}: {d.quality.benchmark} {d.quality.score:.4f}", d.quality.source, d.quality.as_of)] if d.quality else []
        rows += [("performance", f"{d.checkpoint} on {d.gpu}: {d.evidence.tier}", d.evidence.source, d.evidence.as_of)] if d.evidence else []
    rows += [("hosted API", f"{a.checkpoint} at {a.provider}", a.source, a.as_of) for a in plan.api]
    said = plan.scenario.model_dump(mode="json")
    origins = [(path, value_at(said, path), of) for path, of in plan.origins.items()]
    tables = [table("Sources", ("number", "what", "source", "as of"), rows)]
    tables += [table("What was asked, and where it was said", ("what", "value", "said by"), origins)] if origins else []
    lines = [f"Plan {plan_identity(plan)}, by planner {plan.planner_version} with catalogue {plan.catalog_hash}."]
    if r.catalog_hash != plan.catalog_hash:
        lines.append(f"The plan was saved with another catalogue than the studies in this document, which are of {r.catalog_hash}: its prices may differ.")
    return Part("provenance", "Evidence and provenance", tuple(lines), tables=tuple(tables))


def solver_part(r: Review) -> Part:
    """How sure it is that nothing is cheaper."""
    p, s = r.plan, r.plan.solver
    proof = "Proven optimal" if p.status == "optimal" else "Not proven optimal"
    lines = (
        f"{proof}: no plan costs less than {money(p.bound_usd_per_hour)}/h, the plan costs {money(p.cost.usd_per_hour)}/h: a gap of {p.gap:.2%}.",
        f"{s.name} {s.version}; {s.candidates:,} candidates, {s.candidates_after_pruning:,} of them worth a column; "
        f"{s.locations_solved} of {s.locations} locations solved, the rest known to be dearer.",
    )
    size = [(k, "-" if v is None else f"{v:,}") for k, v in (("variables", s.variables), ("constraints", s.constraints))]
    excluded = [(why, f"{n:,}") for why, n in p.excluded.items()]
    tables = (table("Largest program", ("", "number"), size, ("number",)),)
    return Part("solver", "Solver", lines, folded=(*tables, *([table("Candidates left out", ("why", "number"), excluded, ("number",))] if excluded else [])))


def value_at(data: object, path: str) -> str:
    """The value of a dotted path, as text; a dash where there is none."""
    for key in path.split("."):
        if isinstance(data, list):
            data = data[int(key)] if key.isdigit() and int(key) < len(data) else None
        else:
            data = data.get(key) if isinstance(data, dict) else None
    return "-" if data is None else str(data)
