"""The page of a plan that a reviewer signs: the decision with its range, what to buy, service, quality, evidence, the three warnings with
most money at risk, and what else there is. Everything else is in the details (planner.report.sections)."""

from __future__ import annotations

from planner.plan import Deployment, Plan, PlanWorkload
from planner.report.sections import Grid, Section, brief, latency, money, plural, short

MOST_WARNINGS = 3
MOST_WORKLOADS = 4  # shown one by one
MOST_CLASSES = 8  # of one's own numbers
STATED_FIRST = ("lengths", "SLO TTFT", "SLO TPOT")  # of the defaults: what most plans turn on


def page_sections(plan: Plan) -> list[Section]:
    """The short page."""
    warnings = plan.warnings[:MOST_WARNINGS]
    more = f" ({len(warnings)} of {len(plan.warnings)}; --details has all)" if len(plan.warnings) > len(warnings) else ""
    return [
        Section("Plan", _decision(plan), items=_items(plan)),
        *([Section(f"Warnings{more}", warnings, is_caution=True)] if warnings else []),
        *([_others(plan)] if plan.alternatives or plan.api else []),
        Section("", ("--details: deployments, headroom, what the alternatives lack, how to start a replica",)),
    ]


def _decision(plan: Plan) -> tuple[str, ...]:
    """What and for how much; from how many replicas to how many; how sure it is that nothing is cheaper."""
    what = " + ".join(_served_by(d) for d in plan.deployments)
    proof = f"Proven optimal (gap {plan.gap:.2%}" if plan.status == "optimal" else f"Not proven optimal (at least {money(plan.bound_usd_per_hour)}/h"
    proof += f", {plan.solver.candidates:,} candidates, {plan.supply}){_bound(plan)}."
    return (f"{what}: {money(plan.cost.usd_per_hour)}/h, {money(plan.cost.usd_per_month, 0)}/month.", *_range(plan), proof)


def _bound(plan: Plan) -> str:
    """What the plan is held by; whose limit it is only where there are several deployments."""
    if len(plan.deployments) > 1 or not plan.binding:
        return f"; bound by {'; '.join(plan.binding)}" if plan.binding else ""
    (d,) = plan.deployments
    return f"; bound by {'; '.join(b.removesuffix(f' on {d.checkpoint}, {d.gpu}') for b in plan.binding)}"


def _served_by(d: Deployment) -> str:
    return f"{brief(d)}{', thinking' if d.mode == 'thinking' else ''}"


def _range(plan: Plan) -> tuple[str, ...]:
    """Replicas and money from the median of the evidence to its 95 % end."""
    known = [(d, d.evidence.replicas_at_median, d.evidence.replicas_at_95, d.evidence.confidence) for d in plan.deployments if d.evidence]
    if not known or any(low is None for _, low, _, _ in known):
        return ()
    low = sum(n or 0 for _, n, _, _ in known)
    least = sum(d.usd_per_hour * (n or 0) / d.replicas for d, n, _, _ in known)
    planned = f"{sum(d.replicas for d, *_ in known)} are planned, for {known[0][3]:.0%} of it"
    if any(high is None for _, _, high, _ in known):
        return (f"From {low} {plural('replica', low)} ({money(least)}/h) at the median of the evidence; at its 95% end the limits hold at no load. {planned}.",)
    high = sum(n or 0 for _, _, n, _ in known)
    most = sum(d.usd_per_hour * (n or 0) / d.replicas for d, _, n, _ in known)
    return (f"{low} to {high} replicas, {money(least)} to {money(most)}/h, from the median of the evidence to its 95% end; {planned}.",)


def _items(plan: Plan) -> tuple[tuple[str, str], ...]:
    found = [("buy", _bought(plan))]
    found += _workloads(plan)
    found += [("quality", text) for text in _qualities(plan)]
    found += [("evidence", text) for text in dict.fromkeys(_evidence(d) for d in plan.deployments if d.evidence)]
    found += [("fit to sign", text) for text in _fit_to_sign(plan)]
    found += [("unit costs", text) for text in _unit_costs(plan)]
    found += [("defaults", _defaults(plan))] if plan.defaults else []
    return tuple(found)


def _bought(plan: Plan) -> str:
    lines = []
    for p in plan.purchases:
        where = " ".join(dict.fromkeys(w for w in (p.provider, p.region) if w != "any"))
        each = f" ({p.gpus_held} x {p.gpu})" if p.gpus_per_instance > 1 or len(plan.purchases) > 1 else ""
        lines.append(f"{p.instances} x {p.instance_type}{each}, {where}, {money(p.usd_per_hour / p.instances, 3)}/h each")
    idle = plan.gpus_held - plan.gpus_used
    return f"{'; '.join(lines)}; {plan.gpus_held} {plural('GPU', plan.gpus_held)}, {idle or 'none'} idle"


def _workloads(plan: Plan) -> list[tuple[str, str]]:
    """Service against limits; of one's own numbers, who serves each class."""
    if not any(w.predicted for w in plan.workloads):
        routes = [(w.name, ", ".join(f"{r.share:.0%} {plan.deployments[r.deployment].checkpoint}" for r in w.routing)) for w in plan.workloads]
        return routes if len(routes) <= MOST_CLASSES else [("classes", f"{len(routes)} on {len(plan.deployments)} deployments (--details)")]
    shown = plan.workloads[:MOST_WORKLOADS]
    found = [("service" if len(plan.workloads) == 1 else w.name, _service(w)) for w in shown]
    left = len(plan.workloads) - len(shown)
    return found + ([("", f"and {left} more workloads (--details)")] if left else [])


def _service(w: PlanWorkload) -> str:
    flight = "" if w.concurrency is None else f", {w.concurrency:,.0f} in flight" if w.concurrency >= 100 else f", {w.concurrency:.3g} in flight"
    parts = [f"{w.qps:,.4g} req/s{flight}" + (f" (peaks of x{w.burst_factor:g})" if w.burst_factor > 1 else "")]
    assert w.predicted is not None
    for metric in ("ttft", "tpot", "itl", "e2e"):
        known = getattr(w.predicted, f"{metric}_ms")
        limits = [s for s in w.slo if s.metric == metric]
        for s in limits if known else ():
            value = getattr(known, f"p{s.percentile:g}", None)
            within = latency(value) if value is not None else "held"
            parts.append(f"{metric.upper()} p{s.percentile:g} {within} (limit {latency(s.limit_ms)})")
        if known and not limits and metric != "itl":
            parts.append(f"{metric.upper()} p95 {latency(known.p95)}")
    return ", ".join(parts)


def _qualities(plan: Plan) -> tuple[str, ...]:
    found = []
    for d in plan.deployments:
        q = d.quality
        if q is None:
            continue
        against = f", {q.margin:+.4f} against the floor" if q.margin is not None else ""
        kind = ("derived, " if q.derived else "") + ("self-reported" if q.self_reported else "independent")
        found.append(f"{q.benchmark} {q.score:.4f}{against}; {kind}, {q.as_of}" + (f" ({short(d.checkpoint)})" if len(plan.deployments) > 1 else ""))
    return tuple(dict.fromkeys(found))


def _evidence(d: Deployment) -> str:
    e = d.evidence
    assert e is not None
    return f"{e.tier}: steps x{e.step_time_factor:.2f} so that {e.confidence:.0%} of predictions like this hold; nearest {e.source.split(': ')[0]}, {e.as_of}"


def _unit_costs(plan: Plan) -> tuple[str, ...]:
    c = plan.cost
    if c.usd_per_million_output_tokens is None:
        return ()
    return (f"{small(c.usd_per_million_output_tokens)} per million output tokens, {small(c.usd_per_thousand_requests)} per 1,000 requests",)


def small(value: float | None) -> str:
    """Money of small amounts, to three significant digits."""
    return "-" if value is None else (f"${value:,.2f}" if value >= 1 else f"${value:.3g}")


def _fit_to_sign(plan: Plan) -> tuple[str, ...]:
    return ()


def _defaults(plan: Plan) -> str:
    """The first words of what most plans turn on, and how many others there are."""
    first = [d for d in plan.defaults if d.startswith(STATED_FIRST)]
    left = len(plan.defaults) - len(first)
    return "; ".join([*first, *([f"{left} more (--details)"] if left else [])])


def _others(plan: Plan) -> Section:
    """One line for each alternative: money, more or less of it, and what differs."""
    rows = []
    for a in plan.alternatives:
        if a.feasible and a.cost is not None:
            where = ", ".join(dict.fromkeys(p.provider for p in a.purchases))
            what = " + ".join(f"{d.replicas} x {d.layout} {d.gpu}" for d in a.deployments)
            models = " + ".join(dict.fromkeys(short(d.checkpoint) for d in a.deployments))
            other = f" {models}," if models != " + ".join(dict.fromkeys(short(d.checkpoint) for d in plan.deployments)) else ""
            rows.append((money(a.cost.usd_per_hour), f"{a.premium:+.0%}" if a.premium is not None else "-", f"{a.difference}:{other} {what}, {where}"))
        else:
            rows.append(("-", "-", f"{a.difference}: {a.why}"))
    total = sum(w.qps for w in plan.workloads)
    for h in plan.api:
        rate = sum(w.qps for w in plan.workloads if w.name == h.workload)
        whose = "hosted API" + ("" if h.same_model else ", any model above the floor") + (f" ({h.workload})" if len(plan.workloads) > 1 else "")
        more = f"{h.usd_per_hour / rate * total / plan.cost.usd_per_hour - 1:+.0%}" if len(plan.workloads) == 1 else "-"
        rows.append((money(h.usd_per_hour), more, f"{whose}: {short(h.checkpoint)} at {h.provider}"))
    return Section("Alternatives", grid=Grid(("$/h", "more", "instead"), tuple(rows), ("$/h", "more")))
