"""Parts of a review that rest on studies: frontier, cost curve, staircase, one failure, sensitivity, scenarios side by side, what-if."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby, product

from planner.economics.briefly import BriefPlan
from planner.economics.outage import Outage
from planner.economics.review import Review, Staircase
from planner.economics.whatif import WhatIf, WhatIfAxis, idle_axes
from planner.figures import digits
from planner.report.curve import curve_sections
from planner.report.review.words import Part, table
from planner.report.sections import Section, brief, latency, money, unit_money
from planner.report.sensitivity import sensitivity_sections
from planner.report.studies import compare_sections, frontier_sections

BARS = ("cost", "tornado")  # columns that draw in characters what a chart draws better


def frontier_part(r: Review) -> Part:
    """Cost against quality, the chosen point marked."""
    part = Part("frontier", "Cost and quality", left_out=r.left_out.get("frontier", ""))
    if r.frontier is None:
        return part
    (section,) = frontier_sections(r.frontier)
    third = f" Lines are limits on {r.frontier.axis.upper()}; each holds what a tighter one does not do as well." if r.frontier.axis in ("ttft", "tpot") else ""
    lines = (f"What the cheapest plan costs at every quality.{third}", *_worth(r))
    return Part(part.key, part.title, lines, charts=(("frontier", without_bars(section)),))


def _worth(r: Review) -> tuple[str, ...]:
    """What the next point of quality costs from the chosen one."""
    found = r.frontier
    if found is None or found.chosen is None:
        return ()
    here = found.points[found.chosen]
    after = next((p for p in found.points if p.third == here.third and p.quality > here.quality), None)
    if after is None:
        return ("Nothing serves a higher quality within these limits.",)
    step = (after.usd_per_hour - here.usd_per_hour) / (after.quality - here.quality) * 0.01
    return (
        f"From {here.quality:.4f} the next quality is {after.quality:.4f} at {money(after.usd_per_hour)}/h: {money(step)}/h for each further point (0.01).",
    )


def without_bars(s: Section) -> Section:
    """A table without the column that draws."""
    if s.grid is None:
        return s
    keep = [i for i, name in enumerate(s.grid.header) if name not in BARS]
    return table(s.title, tuple(s.grid.header[i] for i in keep), [tuple(row[i] for i in keep) for row in s.grid.rows], s.grid.right, s.lines)


def curve_part(r: Review) -> Part:
    """What a token costs against the load of one replica, with the zone."""
    part = Part("curve", "Cost of a token against load", left_out=r.left_out.get("curve", ""))
    if r.curve is None:
        return part
    points, zone, _, poisson, evidence = curve_sections(r.curve)
    loads = [d.in_flight_per_replica for d in r.plan.deployments if d.checkpoint == r.curve.forecast.found.checkpoint.id and d.in_flight_per_replica]
    here = (f"The plan holds {loads[0]:,.0f} requests in flight on each replica in mean traffic.",) if loads else ()
    first = (
        "One replica of the plan in closed loops of equal requests; the zone costs at most a tenth more than its cheapest load and keeps the limits as means."
    )
    charts = (("curve", points), ("curve-ttft", _ttft(points)))
    return Part(part.key, part.title, (first, *here, *zone.lines), charts=charts, folded=(poisson, evidence))


def _ttft(points: Section) -> Section:
    """TTFT alone, of the curve's own table."""
    assert points.grid is not None
    return table("TTFT", points.grid.header[:2], [row[:2] for row in points.grid.rows], points.grid.header[:2])


def staircase_part(r: Review) -> Part:
    """Cost along traffic, and how far the plan carries."""
    part = Part("staircase", "Cost against traffic, and headroom", left_out=r.left_out.get("staircase", ""))
    s = r.staircase
    if s is None:
        return part
    lines = [f"The cheapest plan at each traffic of {r.plan.workloads[0].name}: cost rises by whole replicas and instances."]
    if s.carries is not None:
        lines.append(
            f"The plan for {digits(s.now)} {s.unit} carries up to {digits(s.carries)} {s.unit} within its limits: {s.carries / s.now - 1:.1%} headroom."
        )
    return Part(part.key, part.title, tuple(lines), charts=(("staircase", _stairs(s)),))


def _stairs(s: Staircase) -> Section:
    """One row for each stretch on which the same is bought."""
    rows = []
    for _, group in groupby(s.stairs, key=lambda x: (x.plan.deployments, x.plan.purchases) if x.plan else None):
        stretch = list(group)
        first, plan = stretch[0], stretch[0].plan
        span = digits(first.traffic) if len(stretch) == 1 else f"{digits(first.traffic)} to {digits(stretch[-1].traffic)}"
        rows.append((span, money(plan.usd_per_hour) if plan else "-", str(plan.gpus_held) if plan else "-", made_of(plan)))
    return table("Cost along traffic", (s.unit, "$/h", "GPUs", "what"), rows, (s.unit, "$/h", "GPUs"))


def made_of(plan: BriefPlan | None) -> str:
    """Deployments and where they are bought, in a few words."""
    if plan is None:
        return "no plan meets all demands"
    return ", ".join((" + ".join(brief(d) for d in plan.deployments), *dict.fromkeys(p.provider for p in plan.purchases)))


def failure_part(r: Review) -> Part:
    """What one failure does, from simulations."""
    part = Part("failure", "What one failure does", left_out=r.left_out.get("failure", ""))
    if not r.failures:
        return part
    first = r.failures[0]
    lead = r.plan.scenario.policy.startup_lead
    how = (
        f"{first.simulation.requests:,} requests simulated at {first.simulation.arrivals.removeprefix('Poisson at ')}, step times at the plan's confidence; "
        f"after {first.fails_s:,.0f} s {'one replica' if first.what == 'replica' else 'one instance'} fails and what replaces it serves {lead:,.0f} s later. "
        "Requests count at the time at which they came: those that were being answered as it failed began again, so the dip lies before it."
    )
    header = ("plan", "fails", "inside limits before", "while down", "after", "most waiting", "started over")
    rows = [_outage_row(o) for o in r.failures]
    note = "Inside limits: share of requests within all their limits on TTFT, TPOT and E2E; while down counts those that were being answered, too."
    return Part(
        "failure", part.title, (*(_verdict(o) for o in r.failures), how), charts=(("failure", table("One failure", header, rows, header[2:], (note,))),)
    )


def _verdict(o: Outage) -> str:
    need = max((s.percentile for w in o.simulation.workloads for s in w.slo), default=95.0) / 100
    if o.during is None:
        return f"The {o.name} plan with one {o.what} down: no request came in that time."
    holds = "which is what its limits ask for" if o.during >= need else f"less than the {need:.0%} that its limits ask for"
    return f"The {o.name} plan with one {o.what} down: {o.during:.2%} of requests are inside all their limits, {holds}."


def _outage_row(o: Outage) -> tuple[str, ...]:
    shares = tuple("-" if x is None else f"{x:.2%}" for x in (o.before, o.during, o.after))
    return (o.name, f"one {o.what}", *shares, f"{o.most_waiting:,.0f}", f"{sum(d.restarted for d in o.simulation.deployments):,}")


def sensitivity_part(r: Review) -> Part:
    """What moves the cost."""
    part = Part("sensitivity", "What the cost hangs on", left_out=r.left_out.get("sensitivity", ""))
    if r.sensitivity is None:
        return part
    sections = sensitivity_sections(r.sensitivity)
    return Part(
        part.key,
        part.title,
        ("Each assumption alone a fifth lower and a fifth higher, the plan chosen anew.",),
        charts=(("tornado", replace(without_bars(sections[1]), lines=())),),
    )


def comparison_part(r: Review) -> Part:
    """Scenarios side by side, and what each changes."""
    first, *rest = compare_sections(r.compared)
    return Part("comparison", "Scenarios", (f"Each beside {r.compared[0].name}.",), tables=tuple(rest), charts=(("comparison", first),))


def what_if_part(r: Review) -> Part:
    """The grid as a table."""
    part = Part("what-if", "What if", left_out=r.left_out.get("what-if", ""))
    if r.what_if is None:
        return part
    proven = all(p.is_proven for p in r.what_if.plans if p)
    sure = "each the cheapest there is, within the gap asked for" if proven else "some not proven the cheapest: the time limit ended the search"
    still = tuple(f"{a.words[0].upper()}{a.words[1:]}: no value here changes what is bought." for a in idle_axes(r.what_if))
    words = f"{len(r.what_if.plans)} plans found beforehand, {sure}. Nothing is interpolated and nothing is computed in this page."
    return Part(part.key, part.title, (words, *still), folded=(_cells(r.what_if),))


def _cells(w: WhatIf) -> Section:
    header = (*(f"{a.words}{f', {a.unit}' if a.unit else ''}" for a in w.axes), "$/h", "GPUs", "quality", "TTFT", "what")
    rows = []
    for values, plan in zip(product(*(a.values for a in w.axes)), w.plans, strict=True):
        served = cell_words(w, plan)
        rows.append((*(axis_text(a, v) for a, v in zip(w.axes, values, strict=True)), *(served[k] for k in ("usd", "gpus", "quality", "ttft", "what"))))
    return table(f"All {len(w.plans)} plans", header, rows, header[:-1])


def axis_text(a: WhatIfAxis, value: float | None) -> str:
    """A value of an axis as it is shown."""
    if value is None:
        return "none"
    return latency(value * 1e3) if a.name == "ttft" else digits(value)


def cell_words(w: WhatIf, plan: BriefPlan | None) -> dict[str, str]:
    """What is shown of one plan of the grid."""
    now = w.plans[w.now]
    if plan is None:
        return {"usd": "no plan", "month": "-", "change": "-", "gpus": "-", "quality": "-", "ttft": "-", "tpot": "-", "million": "-", "what": made_of(None)}
    first = next(x for x in plan.workloads if x.name == w.workload)
    percentile = next((s.percentile for s in first.slo if s.metric == "ttft"), 95.0)
    tokens = sum(x.qps * (x.output_tokens or 0.0) for x in plan.workloads) * 3600 / 1e6
    return {
        "usd": f"{money(plan.usd_per_hour)}/h",
        "month": f"{money(plan.usd_per_hour * 730, 0)}/month",
        "change": "as planned" if plan is now or now is None else f"{plan.usd_per_hour / now.usd_per_hour - 1:+.0%} against the plan",
        "gpus": f"{plan.gpus_held} = " + " + ".join(f"{d.replicas} x {d.layout} {d.gpu}" for d in plan.deployments),
        "quality": "-" if first.min_quality_served is None else f"{first.min_quality_served:.4f}",
        "ttft": _at(first.predicted.ttft_ms, percentile) if first.predicted else "-",
        "tpot": _at(first.predicted.tpot_ms, 95.0) if first.predicted else "-",
        "million": unit_money(plan.usd_per_hour / tokens) if tokens else "-",
        "what": made_of(plan),
    }


def _at(distribution: object, percentile: float) -> str:
    value = getattr(distribution, f"p{percentile:g}", None)
    return "-" if value is None else f"{latency(value)} at p{percentile:g}"
