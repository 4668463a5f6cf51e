"""Frontier, staircase and comparison as sections, rows and plain data."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, log10

from planner.economics.compare import Compared
from planner.economics.frontier import Frontier, FrontierPoint
from planner.economics.noise import Noise
from planner.economics.store import Result
from planner.economics.sweep import Sweep, headroom, marginal, structure
from planner.figures import digits
from planner.report.sections import Grid, Section, money
from planner.result.plan import Plan

BAR = 30
BLOCKS = " ▏▎▍▌▋▊▉█"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def bar(value: float, most: float, width: int = BAR) -> str:
    """A bar in eighths of a character."""
    eighths = round(value / most * width * 8) if most > 0 else 0
    return "█" * (eighths // 8) + (BLOCKS[eighths % 8] if eighths % 8 else "")


def what(plan: Plan) -> str:
    """Deployments in a few words."""
    apis = (f"{100 * h.share:.3g}% at {h.provider}, {h.checkpoint.split('/')[-1]}" for h in plan.hosted)
    return " + ".join([*(f"{d.replicas} x {d.layout} {d.gpu}, {d.checkpoint.split('/')[-1]}" for d in plan.deployments), *apis])


def _latency(plan: Plan, metric: str) -> str:
    worst = max((getattr(w.predicted, f"{metric}_ms").p95 for w in plan.workloads if w.predicted), default=None)
    return "-" if worst is None else f"{worst:,.0f} ms" if worst < 1e4 else f"{worst / 1e3:,.1f} s"


# ---- frontier


def frontier_sections(found: Frontier) -> list[Section]:
    """Quality rising, with what each further point costs."""
    if not found.points:
        return [Section("Frontier", ("No plan at any quality.",))]
    most = max(p.usd_per_hour for p in found.points)
    proven = all(p.plan.status == "optimal" for p in found.points)
    lines = (
        f"{len(found.points)} plans that no other beats in cost and {found.metric}"
        + _places(found)
        + (", each proven cheapest at its quality." if proven else "; some were stopped before they were proven cheapest (see bound)."),
        *found.notes,
        *(("* is the plan for the quality asked for.",) if found.chosen is not None else ()),
        *(f"{b.quality:.4f} against {a.quality:.4f}{_place(b)}: {noise_words(n)}" for a, b, n in found.by_evidence),
    )
    third = "in flight" if found.axis == "concurrency" else f"{found.axis.upper()} limit"
    header = ("quality", *((third,) if found.axis else ()), "$/h", "$/M output", "per +0.01", "what", "cost")
    rows = tuple(
        (
            f"{'*' if i == found.chosen else ''}{p.quality:.4f}",
            *((_third(p),) if found.axis else ()),
            money(p.usd_per_hour),
            money(p.plan.cost.usd_per_million_output_tokens, 3),
            "-" if p.usd_per_hour_per_point is None else f"+{money(p.usd_per_hour_per_point)}/h",
            what(p.plan),
            bar(p.usd_per_hour, most, 20),
        )
        for i, p in enumerate(found.points)
    )
    return [Section(f"Frontier of {found.workload}", lines, Grid(header, rows, header[:-2]))]


def _places(found: Frontier) -> str:
    """How many values of the third axis there are."""
    several = len({p.third for p in found.points})
    return "" if not found.axis else f" at {several} numbers in flight" if found.axis == "concurrency" else f" under {several} limits on {found.axis.upper()}"


def _third(p: FrontierPoint) -> str:
    return digits(p.concurrency) if p.concurrency is not None else f"{digits(p.latency_ms or 0.0)} ms"


def _place(p: FrontierPoint) -> str:
    return f" at {digits(p.concurrency)} in flight" if p.concurrency is not None else "" if p.latency_ms is None else f" within {digits(p.latency_ms)} ms"


def noise_words(n: Noise) -> str:
    """That two plans differ mainly by evidence, and what is left of the premium without it."""
    total = n.by_evidence * n.otherwise
    per_gpu = f"{max(total, 1 / total):.2g} times {'fewer' if total > 1 else 'more'} requests per GPU"
    tiers = f"({n.tier} against {n.cheaper_tier})" if n.tier != n.cheaper_tier else f"(both {n.tier})"
    sign = "thinner" if n.by_evidence > 1 else "better"
    less, more = ("-" if x < 0 else "+" for x in (n.premium_at_median_usd_per_hour, n.premium_usd_per_hour))
    return (
        f"{per_gpu}, mainly for {sign} evidence {tiers}: it alone makes a factor of {max(n.by_evidence, 1 / n.by_evidence):.2g}. "
        f"At the median of both the premium is {less}{money(abs(n.premium_at_median_usd_per_hour))}/h, not {more}{money(abs(n.premium_usd_per_hour))}/h."
    )


def frontier_rows(found: Frontier) -> list[dict[str, object]]:
    """One row per plan."""
    return [
        {
            "quality": p.quality, "usd_per_hour": p.usd_per_hour, "bound_usd_per_hour": p.bound_usd_per_hour,
            "usd_per_hour_per_point": p.usd_per_hour_per_point, "usd_per_hour_at_median": p.usd_per_hour_at_median,
            **({f"{found.axis}_limit_ms": p.latency_ms} if p.latency_ms is not None else {} if p.concurrency is None else {"concurrency": p.concurrency}),
            "usd_per_million_output_tokens": p.plan.cost.usd_per_million_output_tokens, "gpus_held": p.plan.gpus_held, "what": what(p.plan),
            "is_chosen": i == found.chosen,
        }
        for i, p in enumerate(found.points)
    ]  # fmt: skip


def frontier_payload(found: Frontier) -> dict[str, object]:
    """Plain data: every point with its whole plan."""
    rows = frontier_rows(found)
    return {
        "workload": found.workload, "metric": found.metric, "axis": found.axis, "notes": list(found.notes),
        "points": [{**r, "plan": p.plan.model_dump(mode="json")} for r, p in zip(rows, found.points, strict=True)],
    }  # fmt: skip


def models_sections(found: Sequence[tuple[str, Result]]) -> list[Section]:
    """All models at one load: quality against unit cost."""
    rows = tuple(
        (
            name,
            "-" if (q := r.plan.workloads[0].min_quality_served) is None else f"{q:.4f}",
            money(r.cost),
            money(r.plan.cost.usd_per_million_output_tokens, 3),
            what(r.plan),
            mark,
        )
        for name, r, mark in _marked(found)
        if r.plan
    )
    line = f"{len(rows)} models can serve this load; * marks those that no cheaper one beats in quality."
    return [Section("Models at this load", (line,), Grid(("model", "quality", "$/h", "$/M output", "what", "best"), rows, ("quality", "$/h", "$/M output")))]


def _marked(found: Sequence[tuple[str, Result]]) -> list[tuple[str, Result, str]]:
    best, marked = -1.0, []
    for name, r in found:
        quality = (r.plan.workloads[0].min_quality_served if r.plan else None) or -1.0
        marked.append((name, r, "*" if quality > best else ""))
        best = max(best, quality)
    return marked


def models_rows(found: Sequence[tuple[str, Result]]) -> list[dict[str, object]]:
    """One row per model."""
    return [
        {
            "model": name, "quality": r.plan.workloads[0].min_quality_served, "usd_per_hour": r.cost,
            "usd_per_million_output_tokens": r.plan.cost.usd_per_million_output_tokens, "is_on_frontier": bool(mark), "what": what(r.plan),
        }
        for name, r, mark in _marked(found) if r.plan
    ]  # fmt: skip


# ---- sweep


def sweep_sections(found: Sweep, today: Plan | None = None) -> list[Section]:
    """The staircase of one axis, or the map of two."""
    return _map(found, today) if len(found.axes) == 2 else _staircase(found, today)


def _staircase(found: Sweep, today: Plan | None) -> list[Section]:
    a, most = found.axes[0], max((r.cost for r in found.results if r.plan), default=0.0)
    steps = tuple(
        (
            a.text(s.from_value),
            a.text(s.to_value),
            s.structure or "no plan",
            "-" if s.structure is None else f"{money(s.usd_per_hour[0])} to {money(s.usd_per_hour[1])}",
        )
        for s in found.steps
    )
    lines = (*_today(today), *found.notes)
    sections = [Section("Which plan takes over where", lines, Grid(("from", "to", "what", "$/h"), steps, ("from", "to", "$/h")))]
    is_traffic = a.name in ("qps", "concurrency")
    most_of = next((r.plan.objective for r in found.results if r.plan and r.plan.objective != "cost"), "")
    rows = tuple(
        (
            a.text(v), *((_reached(r.plan),) if most_of else ()),
            money(r.cost) if r.plan else "-", *((money(r.cost / v, 4) if r.plan else "-",) if is_traffic else ()),
            "-" if m is None else f"{m:+,.4g}", str(r.plan.gpus_held) if r.plan else "-", what(r.plan) if r.plan else r.why.split(".")[0],
            bar(r.cost, most, 20) if r.plan else "",
        )
        for v, r, m in zip(a.values, found.results, marginal(a.values, found.results), strict=True)
    )  # fmt: skip
    header = (a.name, *((f"most {most_of}",) if most_of else ()), "$/h", *((f"$/h per {a.name}",) if is_traffic else ()), "next step", "GPUs", "what", "cost")
    note = f"next step: $/h per unit of {a.name} from this value to the next."
    return [*sections, Section(f"Cost along {a.name}", (note,), Grid(header, rows, header[:-2]))]


def _reached(plan: Plan | None) -> str:
    """What a plan reaches that makes the most of its limits: its traffic, or its quality."""
    if plan is None:
        return "-"
    first = plan.workloads[0]
    return digits(first.demand.value) if plan.objective == "qps" else f"{first.min_quality_served or 0:.4f}"


def _today(plan: Plan | None) -> tuple[str, ...]:
    """How much more traffic the plan for the rates asked for carries, workload by workload."""
    return tuple(line for w in range(len(plan.workloads)) if (line := _room(plan, w))) if plan else ()


def _room(plan: Plan, w: int) -> str:
    mine, unit = plan.workloads[w], {"qps": "req/s", "concurrency": "in flight"}[plan.workloads[w].demand.kind]
    now, most = mine.demand.value, headroom(plan, w)
    of = f" of {mine.name}" if len(plan.workloads) > 1 else ""
    if most is None:
        return f"Today's plan ({money(plan.cost.usd_per_hour)}/h) serves the {now:g} {unit}{of} together with others: its headroom is not told apart."
    cost = money(plan.cost.usd_per_hour)
    return f"Today's plan for {now:g} {unit}{of} ({cost}/h) carries up to {floored(most)} {unit} within its limits: {most / now - 1:.1%} headroom."


def floored(value: float) -> str:
    """Four digits, rounded down: what is called carried is."""
    unit = 10.0 ** (floor(log10(value)) - 3)
    return digits(floor(value / unit) * unit)


def _map(found: Sweep, today: Plan | None) -> list[Section]:
    down, across = found.axes
    kinds = list(dict.fromkeys(s for r in found.results if (s := structure(r.plan))))
    letter = {k: LETTERS[i % len(LETTERS)] for i, k in enumerate(kinds)}
    rows = []
    for i, v in enumerate(down.values):
        line = found.results[i * len(across.values) : (i + 1) * len(across.values)]
        rows.append((down.text(v), *(f"{money(r.cost)} {letter[s]}" if (s := structure(r.plan)) else "-" for r in line)))
    header = (f"{down.name} \\ {across.name}", *(across.text(v) for v in across.values))
    legend = tuple(f"{letter[k]}: {k}" for k in kinds)
    return [Section(f"Cost over {down.name} and {across.name}, $/h", (*_today(today), *legend), Grid(header, tuple(rows), header))]


def sweep_rows(found: Sweep) -> list[dict[str, object]]:
    """One row per combination of values."""
    rows = []
    for values, r in zip(found.values, found.results, strict=True):
        row: dict[str, object] = dict(zip((a.name for a in found.axes), values, strict=True))
        if r.plan:
            row |= {
                **({"demand": r.plan.workloads[0].demand.value} if r.plan.objective == "qps" else {}),
                "usd_per_hour": r.cost,
                "gpus_held": r.plan.gpus_held,
                "quality_served": r.plan.workloads[0].min_quality_served,
                "what": what(r.plan),
                "structure": structure(r.plan),
            }
        rows.append(row if r.plan else {**row, "why": r.why})
    if len(found.axes) == 1:
        for row, m in zip(rows, marginal(found.axes[0].values, found.results), strict=True):
            row["next_step_usd_per_hour_per_unit"] = m
    return rows


def sweep_payload(found: Sweep) -> dict[str, object]:
    """Plain data: every answer with its plan, and the steps."""
    return {
        "axes": [{"name": a.name, "values": list(a.values)} for a in found.axes],
        "steps": [{"from": s.from_value, "to": s.to_value, "structure": s.structure, "usd_per_hour": list(s.usd_per_hour)} for s in found.steps],
        "notes": list(found.notes),
        "results": [{**row, "plan": r.plan.model_dump(mode="json") if r.plan else None} for row, r in zip(sweep_rows(found), found.results, strict=True)],
    }


# ---- compare


def compare_sections(found: Sequence[Compared]) -> list[Section]:
    """One table, then what each changes and why it differs."""
    first = found[0].usd_per_hour
    rows = []
    for c in found:
        if c.plan is None:
            rows.append((c.name, "-", "no plan", "-", "-", "-", "-", "-", "-"))
            continue
        delta = "-" if c is found[0] or not first else f"{c.plan.cost.usd_per_hour - first:+,.2f} ({c.plan.cost.usd_per_hour / first - 1:+.0%})"
        quality = min((w.min_quality_served for w in c.plan.workloads if w.min_quality_served is not None), default=None)
        rows.append(
            (
                c.name, rates(c.plan), money(c.plan.cost.usd_per_hour), delta, str(c.plan.gpus_held), "-" if quality is None else f"{quality:.4f}",
                _latency(c.plan, "ttft"), _latency(c.plan, "tpot"), what(c.plan),
            )
        )  # fmt: skip
    header = ("scenario", "traffic", "$/h", "against first", "GPUs", "quality", "TTFT p95", "TPOT p95", "what")
    sections = [Section("Comparison", grid=Grid(header, tuple(rows), header[2:8]))]
    for c in found[1:]:
        lines = [*(f"asked: {a}" for a in c.asked), *(f"{x.sign} {x.what}" for x in c.changes), *c.moved, c.why or "as the first"]
        sections.append(Section(f"{c.name} against {found[0].name}", tuple(lines)))
    return sections


def rates(plan: Plan) -> str:
    """The traffic of each workload in its own unit."""
    units = {"qps": "req/s", "concurrency": "in flight"}
    return ", ".join((f"{w.name} " if len(plan.workloads) > 1 else "") + f"{digits(w.demand.value)} {units[w.demand.kind]}" for w in plan.workloads)


def compare_rows(found: Sequence[Compared]) -> list[dict[str, object]]:
    """One row per scenario."""
    first = found[0].usd_per_hour
    return [
        {
            "scenario": c.name, "usd_per_hour": c.usd_per_hour, "premium": c.usd_per_hour / first - 1 if c.usd_per_hour and first else None,
            "gpus_held": c.plan.gpus_held if c.plan else None, "traffic": rates(c.plan) if c.plan else "",
            "what": what(c.plan) if c.plan else "", "asked": "; ".join(c.asked),
            "changes": "; ".join(f"{x.sign} {x.what}" for x in c.changes), "moved": "; ".join(c.moved), "why": c.why,
        }
        for c in found
    ]  # fmt: skip


def compare_payload(found: Sequence[Compared]) -> dict[str, object]:
    """Plain data with every plan."""
    return {"scenarios": [{**r, "plan": c.plan.model_dump(mode="json") if c.plan else None} for r, c in zip(compare_rows(found), found, strict=True)]}
