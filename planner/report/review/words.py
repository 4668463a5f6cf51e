"""The pieces that parts of a review are made of, and how a plan reads in one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from planner.figures import digits
from planner.report.sections import Grid, Section, latency, money, plural, short, unit_money
from planner.report.studies import rates
from planner.result.plan import Deployment, Plan, PlanWorkload

MOST_NAMED = 4  # workloads in the headline
UNITS = {"qps": "req/s", "concurrency": "in flight", "requests_per_day": "requests/day"}


@dataclass(frozen=True)
class Part:
    """One part: what it says, tables that stand open, charts by name with the table behind each, and what is folded away."""

    key: str
    title: str
    lines: tuple[str, ...] = ()
    tables: tuple[Section, ...] = ()
    charts: tuple[tuple[str, Section], ...] = ()
    folded: tuple[Section, ...] = ()
    left_out: str = ""  # why there is nothing


def arithmetic(d: Deployment) -> str:
    """8 GPUs = 8 replicas x TP1 B200-SXM; of several GPUs each: 20 GPUs = 5 replicas x 4 (TP4) H100."""
    each = f"{d.layout}" if d.gpus_per_replica == 1 else f"{d.gpus_per_replica} ({d.layout})"
    return f"{d.gpus} {plural('GPU', d.gpus)} = {d.replicas} {plural('replica', d.replicas)} x {each} {d.gpu}"


def bought_at(plan: Plan) -> str:
    """From whom, and where."""
    return ", ".join(dict.fromkeys(" ".join(dict.fromkeys(w for w in (p.provider, p.region) if w != "any")) for p in plan.purchases))


def models(plan: Plan) -> str:
    """What answers."""
    return " + ".join(dict.fromkeys(f"{short(d.checkpoint)}{' (thinking)' if d.mode == 'thinking' else ''}" for d in plan.deployments))


def question(plan: Plan) -> str:
    """What is asked, in a line; of several workloads only which, as the part on demand has the rest."""
    if len(plan.workloads) == 1:
        return _asked(plan.workloads[0], plan)
    named = [f"{w.name} ({digits(w.demand.value)} {UNITS[w.demand.kind]})" for w in plan.workloads[:MOST_NAMED]]
    return f"{len(plan.workloads)} workloads: {', '.join(named)}{', …' if len(plan.workloads) > MOST_NAMED else ''}"


def _asked(w: PlanWorkload, plan: Plan) -> str:
    tokens = f", {w.input_tokens:,.0f} tokens in and {w.output_tokens:,.0f} out" if w.input_tokens and w.output_tokens else ""
    metric = next((a.quality_metric for a in plan.scenario.workload if a.name == w.name), "quality")
    floor = f", {metric} at least {w.min_quality:g}" if w.min_quality is not None else ""
    limits = "".join(f", {s.metric.upper()} p{s.percentile:g} within {latency(s.limit_ms)}" for s in w.slo)
    return f"{digits(w.demand.value)} {UNITS[w.demand.kind]}{tokens}{floor}{limits}"


def limit_rows(plan: Plan) -> list[tuple[str, str, float, float]]:
    """(workload, limit, its milliseconds, what is predicted at its percentile); limits at percentiles that are not stated are left out."""
    found = []
    for w in plan.workloads:
        for s in w.slo:
            at = getattr(w.predicted, f"{s.metric}_ms", None) if w.predicted else None
            value = getattr(at, f"p{s.percentile:g}", None)
            if value is not None:
                found.append((w.name, f"{s.metric.upper()} p{s.percentile:g}", s.limit_ms, value))
    return found


def option_rows(plan: Plan) -> dict[str, str]:
    """A plan as it is weighed against another: label and value."""
    many = len(plan.workloads) > 1
    rows = {"traffic": rates(plan)} if plan.objective != "cost" else {}  # the most there is: plans then differ in what they carry
    rows |= {
        "per month": money(plan.cost.usd_per_month, 0),
        "per year": money(plan.cost.usd_per_year, 0),
        "per million output tokens": unit_money(plan.cost.usd_per_million_output_tokens),
        "model": models(plan),
        "GPUs": "; ".join(arithmetic(d) for d in plan.deployments) + (f"; {plan.gpus_held} held" if plan.gpus_held != plan.gpus_used else ""),
        "bought at": bought_at(plan),
    }
    for w in plan.workloads:
        if w.min_quality_served is not None:
            margin = f" ({w.min_quality_served - w.min_quality:+.4f} against the floor)" if w.min_quality is not None else ""
            rows[f"quality{f' of {w.name}' if many else ''}"] = f"{w.min_quality_served:.4f}{margin}"
    for name, words, limit, value in limit_rows(plan):
        rows[f"{words}{f' of {name}' if many else ''}"] = f"{latency(value)} of {latency(limit)}"
    rows["with one replica down"] = "; ".join(_lost(d) for d in plan.deployments)
    rows["evidence"] = ", ".join(dict.fromkeys(f"{d.evidence.tier}, {d.evidence.as_of}" for d in plan.deployments if d.evidence)) or "none stated"
    rows["prices of"] = ", ".join(dict.fromkeys(p.as_of for p in plan.purchases if p.as_of)) or "not dated"
    return rows


def _lost(d: Deployment) -> str:
    if d.slo_load_one_replica_lost is None or d.slo_load_one_replica_lost == float("inf"):
        return "nothing serves"
    return f"{d.slo_load_one_replica_lost:.0%} of what the limits allow" + (": they are missed" if d.slo_load_one_replica_lost > 1 else "")


def table(title: str, header: tuple[str, ...], rows: Sequence[tuple[str, ...]], right: tuple[str, ...] = (), lines: tuple[str, ...] = ()) -> Section:
    """A section that is a table."""
    return Section(title, lines, Grid(header, tuple(rows), right))
