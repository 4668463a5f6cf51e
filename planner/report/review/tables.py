"""A review as plain tables of numbers, by part: what the workbook and CSV hold. Money in dollars, times in milliseconds, shares from 0 to 1."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from itertools import product

from planner.economics.briefly import BriefPlan
from planner.economics.outage import Outage
from planner.economics.review import Review, Staircase
from planner.economics.whatif import WhatIf
from planner.report.review.studies import made_of
from planner.report.review.words import UNITS, bought_at, models
from planner.report.sensitivity import sensitivity_rows
from planner.report.studies import compare_rows, frontier_rows
from planner.result.plan import Plan

Row = Mapping[str, object]


def review_tables(r: Review) -> dict[str, list[Row]]:
    """Every part that there is, as rows."""
    made: dict[str, Callable[[], Iterable[Row]]] = {
        "decision": lambda: [_option("cheapest" if r.prudent else "plan", r.plan), *([_option("prudent", r.prudent)] if r.prudent else [])],
        "purchases": lambda: [_purchase(name, p) for name, plan in plans(r) for p in plan.purchases],
        "demand": lambda: _demand(r.plan),
        "deployments": lambda: [{k: v for k, v in d.flat().items() if not isinstance(v, (dict, list, tuple))} for d in r.plan.deployments],
        "today": lambda: [line.model_dump(mode="json") for line in r.plan.changes.lines] if r.plan.changes else (),
        "power": lambda: _power(r.plan),
        "service": lambda: _service(r.plan),
        "unit costs": lambda: _unit_costs(r.plan),
        "prudence": lambda: _bridge(r.plan),
        "frontier": lambda: frontier_rows(r.frontier) if r.frontier else (),
        "cost curve": lambda: [asdict(p) | {"broken": " ".join(p.broken)} for p in r.curve.points] if r.curve else (),
        "staircase": lambda: _stairs(r.staircase) if r.staircase else (),
        "alternatives": lambda: _alternatives(r.plan),
        "failure": lambda: [_outage(o) for o in r.failures],
        "sensitivity": lambda: sensitivity_rows(r.sensitivity) if r.sensitivity else (),
        "comparison": lambda: compare_rows(r.compared) if r.compared else (),
        "what-if": lambda: _cells(r.what_if) if r.what_if else (),
        "warnings": lambda: [{"warning": w} for w in r.plan.warnings],
        "assumptions": lambda: [{"assumption": a} for a in (*r.plan.defaults, *r.plan.assumptions)],
        "sources": lambda: _sources(r.plan),
        "solver": lambda: [_solver(r.plan)],
        "left out": lambda: [{"part": k, "why": v} for k, v in r.left_out.items()],
    }
    return {name: rows for name, make in made.items() if (rows := list(make()))}


def plans(r: Review) -> list[tuple[str, Plan]]:
    """The plans to decide between, by name."""
    return [("cheapest" if r.prudent else "plan", r.plan), *([("prudent", r.prudent)] if r.prudent else [])]


def _power(plan: Plan) -> Iterable[Row]:
    """kW and kgCO2e/h of each purchase, what they are made of, and of all."""
    if plan.power is None:
        return
    for b, part in zip(plan.purchases, plan.power.parts, strict=True):
        yield {"purchase": b.instance_type, "gpus": b.gpus_held, **part.model_dump(mode="json")}
    yield {"purchase": "all", **{k: v for k, v in plan.power.model_dump(mode="json").items() if k != "parts"}}


def _option(name: str, p: Plan) -> Row:
    quality = [w.min_quality_served for w in p.workloads if w.min_quality_served is not None]
    return {
        "plan": name, "usd_per_hour": p.cost.usd_per_hour, "usd_per_month": p.cost.usd_per_month, "usd_per_year": p.cost.usd_per_year,
        "usd_per_million_output_tokens": p.cost.usd_per_million_output_tokens, "gpus_held": p.gpus_held, "gpus_used": p.gpus_used,
        "quality": min(quality, default=None), "model": models(p), "bought_at": bought_at(p), "status": p.status, "gap": p.gap,
    }  # fmt: skip


def _purchase(name: str, p: object) -> Row:
    return {"plan": name} | vars(p)


def _demand(plan: Plan) -> Iterable[Row]:
    for w in plan.workloads:
        yield {
            "workload": w.name, "traffic": w.demand.value, "unit": UNITS[w.demand.kind], "qps": w.qps, "burst_factor": w.burst_factor,
            "input_tokens": w.input_tokens, "output_tokens": w.output_tokens, "in_flight": w.concurrency, "min_quality": w.min_quality,
        }  # fmt: skip


def _service(plan: Plan) -> Iterable[Row]:
    for w in plan.workloads:
        for metric in ("ttft", "tpot", "itl", "e2e"):
            found = getattr(w.predicted, f"{metric}_ms") if w.predicted else None
            limit = next((s for s in w.slo if s.metric == metric), None)
            if found is not None:
                limits = {"percentile": limit.percentile if limit else None, "limit_ms": limit.limit_ms if limit else None}
                yield {"workload": w.name, "metric": metric, **limits, **{f"{k}_ms": getattr(found, k) for k in ("mean", "p50", "p90", "p95", "p99")}}


def _unit_costs(plan: Plan) -> Iterable[Row]:
    return [{"workload": w.name} | dict(w.unit_costs) for w in plan.workloads if w.unit_costs]


def _bridge(plan: Plan) -> Iterable[Row]:
    steps = plan.prudent.steps if plan.prudent else ()
    return [{"term": s.term, "usd_per_hour": s.usd_per_hour, "premium_usd_per_hour": s.premium_usd_per_hour, "why": s.why} for s in steps]


def _brief(plan: BriefPlan | None) -> dict[str, object]:
    return {
        "usd_per_hour": plan.usd_per_hour if plan else None,
        "gpus_held": plan.gpus_held if plan else None,
        "quality": plan.workloads[0].min_quality_served if plan and plan.workloads else None,
        "what": made_of(plan),
    }


def _stairs(s: Staircase) -> Iterable[Row]:
    return [{"traffic": x.traffic, "unit": s.unit, **_brief(x.plan)} for x in s.stairs]


def _cells(w: WhatIf) -> Iterable[Row]:
    names = [f"{a.words}{f', {a.unit}' if a.unit else ''}" for a in w.axes]
    return [{**dict(zip(names, values, strict=True)), **_brief(p)} for values, p in zip(product(*(a.values for a in w.axes)), w.plans, strict=True)]


def _alternatives(plan: Plan) -> Iterable[Row]:
    for a in plan.alternatives:
        yield {"instead": a.difference, "usd_per_hour": a.cost.usd_per_hour if a.cost else None, "premium": a.premium, "why": a.why}
    for h in plan.api:
        yield {"instead": f"hosted API: {h.checkpoint} at {h.provider}", "usd_per_hour": h.usd_per_hour, "premium": None, "why": f"for {h.workload}"}


def _outage(o: Outage) -> Row:
    shares = {"inside_before": o.before, "inside_while_down": o.during, "inside_after": o.after}
    return {"plan": o.name, "fails": o.what, "fails_s": o.fails_s, "back_s": o.back_s, **shares, "most_waiting": o.most_waiting}


def _sources(plan: Plan) -> Iterable[Row]:
    for p in plan.purchases:
        yield {"number": "price", "what": f"{p.provider} {p.instance_type}", "source": p.source, "as_of": p.as_of}
    for d in plan.deployments:
        if d.quality:
            yield {"number": "quality", "what": d.checkpoint, "source": d.quality.source, "as_of": d.quality.as_of}
        if d.evidence:
            yield {"number": "performance", "what": f"{d.checkpoint} on {d.gpu}", "source": d.evidence.source, "as_of": d.evidence.as_of}
    for a in plan.api:
        yield {"number": "hosted API", "what": f"{a.checkpoint} at {a.provider}", "source": a.source, "as_of": a.as_of}


def _solver(plan: Plan) -> Row:
    about = {"planner": plan.planner_version, "catalog": plan.catalog_hash, "status": plan.status, "gap": plan.gap}
    return about | {"bound_usd_per_hour": plan.bound_usd_per_hour} | dict(plan.solver)
