"""All there is to read of a plan, as plain sections: lines of text and tables of strings, no formatting. The short page is planner.report.page."""

from __future__ import annotations

from dataclasses import dataclass
from math import isinf

from planner.figures import digits
from planner.report.power import HEADER, power_lines, power_rows
from planner.result.plan import (
    Alternative,
    Brief,
    Deployment,
    HostedApi,
    HostedShare,
    LatencyBand,
    Plan,
    PlanEvidence,
    PlanRedundancy,
    PlanWorkload,
    Power,
    Prudent,
    PrudentStep,
    UnitCosts,
)
from planner.result.reach import as_reached
from planner.scenario.units import format_duration

NOTHING_HURRIES = "all requests may wait until what is lost is back"


@dataclass(frozen=True)
class Grid:
    """A table of strings; columns named in ``right`` hold numbers."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    """One heading with its lines, then its table."""

    title: str
    lines: tuple[str, ...] = ()
    grid: Grid | None = None
    items: tuple[tuple[str, str], ...] = ()  # a label and what it is, each
    is_caution: bool = False
    is_code: bool = False  # lines to be copied as they are


def plan_sections(plan: Plan) -> list[Section]:
    """The whole plan, decision first."""
    sections = [_decision(plan), _purchases(plan), *([_deployments(plan)] if plan.deployments else []), *([hosted_section(plan)] if plan.hosted else [])]
    if plan.kind != "own" and not plan.deployments:
        pass  # nothing of the service at an API is known
    elif any(w.predicted for w in plan.workloads):
        sections += [_service(plan), *_first_tokens(plan), *_bands(plan), _trust(plan), _headroom(plan)]
    else:
        sections.append(_routing(plan))
    sections += [_unit_costs(plan, plan.unit_costs)] if plan.unit_costs else []
    sections += [losses_section(plan, plan.redundancy)] if plan.redundancy else []
    sections += [power_section(plan.power, plan)] if plan.power else []
    sections += [_fit_to_sign(plan.prudent)] if plan.prudent else []
    if plan.alternatives or plan.api:
        sections.append(_alternatives(plan))
    elif plan.notes:
        sections.append(Section("Notes", _sentences(plan.notes)))
    sections += [Section("Warnings", plan.warnings, is_caution=True)] if plan.warnings else []
    commands = tuple(line for d in plan.deployments for line in d.serve_command.splitlines())
    sections += [Section("Start one replica", commands, is_code=True)] if commands else []
    sections += [Section("Defaults used", (("; ".join(plan.defaults) + "."),))] if plan.defaults else []
    return sections


def money(value: float | None, digits: int = 2) -> str:
    """$1,234.50; a dash for nothing."""
    return "-" if value is None else f"${value:,.{digits}f}"


def unit_money(value: float | None) -> str:
    """Money of small amounts, to three significant digits."""
    return "-" if value is None else (f"${value:,.2f}" if value >= 1 else f"${value:.3g}")


def decision(plan: Plan) -> str:
    """The one line a reviewer needs."""
    parts = []
    for d in plan.deployments:
        parts.append(f"{d.replicas} {plural('replica', d.replicas)} x {d.layout} of {d.checkpoint} on {d.gpu}")
    parts += [f"{hosted_by(h, plan)} ({h.api_name})" for h in plan.hosted]
    c = plan.cost
    unit = f", {unit_money(c.usd_per_million_output_tokens)} per million output tokens" if c.usd_per_million_output_tokens else ""
    gpus = f"{plan.gpus_held} {plural('GPU', plan.gpus_held)} held, {plan.gpus_used} used"
    return f"{gpus} = {' + '.join(parts)}: {money(c.usd_per_hour)}/h, {money(c.usd_per_year, 0)}/year{unit}"


def plural(word: str, count: int) -> str:
    """The word for so many."""
    return word if count == 1 else f"{word}s"


def _decision(plan: Plan) -> Section:
    proof = "proven optimal" if plan.status == "optimal" else f"not proven optimal: the best possible is {money(plan.bound_usd_per_hour)}/h or more"
    is_own, has_quota = plan.kind == "own", bool(plan.scenario.supply.quota)
    stock = "" if is_own or has_quota else "; no quota assumed"
    first = f"{plan.supply[0].upper()}{plan.supply[1:]}{stock}; {proof} (gap {plan.gap:.2%}, {plan.solver.candidates:,} candidates)."
    binding = (f"Bound by {'; '.join(plan.binding)}.",) if plan.binding else ()
    return Section("Plan", (first, decision(plan), *binding))


def _purchases(plan: Plan) -> Section:
    rows = tuple(
        (
            f"{p.instances} x {p.instance_type}",
            " ".join(dict.fromkeys(w for w in (p.provider, p.region, p.zone) if w not in ("any", ""))),
            f"{p.gpus_held} x {p.gpu}",
            str(p.gpus_idle),
            money(p.usd_per_hour / p.instances, 3),
            money(p.usd_per_hour),
            f"{p.purchase.replace('_', '-')}, {p.as_of}" if p.as_of else p.source,
        )
        for p in plan.purchases
    )
    rows += tuple(
        (f"{digits(h.qps)} req/s, {h.api_name}", h.provider, "-", "-", "-", money(h.usd_per_hour), f"per million tokens, {h.as_of}") for h in plan.hosted
    )
    rows += (
        (
            "total",
            "",
            f"{plan.gpus_held} GPUs",
            str(plan.gpus_held - plan.gpus_used),
            "",
            money(plan.cost.usd_per_hour),
            f"{money(plan.cost.usd_per_month, 0)}/month",
        ),
    )
    return Section("What to buy", grid=Grid(("buy", "where", "GPUs", "idle", "$/h each", "$/h", "price"), rows, ("idle", "$/h each", "$/h")))


def losses_section(plan: Plan, found: PlanRedundancy) -> Section:
    """Each deployment's worst loss, what is left, and how loaded that is."""
    if not found.losses:
        return Section("Losses borne", (f"{found.asked}: {NOTHING_HURRIES}.",))
    hourly = bool(plan.periods)
    rows = tuple(
        (str(b.deployment), *((str(b.hour),) if hourly else ()), b.loss, str(b.replicas_lost), str(b.replicas_left), f"{b.slo_load:.3f}") for b in found.losses
    )
    premium = f" It costs {money(found.premium_usd_per_hour)}/h more than bearing none." if found.premium_usd_per_hour is not None else ""
    longer = f" of limits {found.loss_slo_factor:g} times as long" if found.loss_slo_factor > 1 else ""
    lines = [f"{found.asked}: after the worst loss all demand is met at an SLO load of at most {found.load_after_loss:g}{longer}.{premium}"]
    lines += [f"{found.assumption[0].upper()}{found.assumption[1:]}."] if found.assumption else []
    header = ("#", *(("hour",) if hourly else ()), "worst loss", "lost", "left", "SLO load then")
    return Section("Losses borne", tuple(lines), Grid(header, rows, header[-3:]))


def _deployments(plan: Plan) -> Section:
    rows = tuple(_deployment_row(i, d) for i, d in enumerate(plan.deployments))
    header = ("#", "checkpoint", "engine", "GPUs", "req/s", "capacity", "in flight", "SLO load", "1 lost", "$/h")
    return Section("Deployments", grid=Grid(header, rows, header[4:]))


def _deployment_row(i: int, d: Deployment) -> tuple[str, ...]:
    shape = f"{d.gpus} = {d.replicas} x {d.layout} {d.gpu}"
    flight = f"{d.in_flight_per_replica * d.replicas:,.0f} = {d.replicas} x {d.in_flight_per_replica:,.0f}" if d.in_flight_per_replica is not None else "-"
    lost = "down" if d.slo_load_one_replica_lost is None or isinf(d.slo_load_one_replica_lost) else f"{d.slo_load_one_replica_lost:.2f}"
    mode = " (thinking)" if d.mode == "thinking" else " (no thinking)" if d.is_hybrid else ""
    name = short(d.checkpoint) + mode
    each = f"{digits(d.capacity_qps_per_replica * d.replicas)} = {d.replicas} x {d.capacity_qps_per_replica:,.3g}"
    engine = f"{d.engine}, {d.max_num_seqs} seqs" if d.engine else "-"
    return (str(i), name, engine, shape, digits(d.qps), each, flight, f"{d.slo_load:.2f}", lost, money(d.usd_per_hour))


def hosted_by(h: HostedShare, plan: Plan) -> str:
    """What an API serves, in a few words."""
    share = "" if h.share > 1 - 1e-6 and len(plan.workloads) == 1 else f"{digits(100 * h.share)}% of {h.workload} at "
    return f"{share}the API of {h.provider}, {short(h.checkpoint)}{', thinking' if h.mode == 'thinking' else ''}"


def hosted_bill(h: HostedShare, plan: Plan) -> str:
    """What it costs, and of what prices."""
    of = f" of {h.workload}" if len(plan.workloads) > 1 else ""
    hits = any(w.name == h.workload and w.prefix_cache_hit for w in plan.scenario.workload)
    cached = f"{'list price' if h.usd_per_million_cached_input is None else unit_money(h.usd_per_million_cached_input)} cached, " if hits else ""
    price = f"{unit_money(h.usd_per_million_input)} in, {cached}{unit_money(h.usd_per_million_output)} out per million tokens, {h.as_of}"
    return f"{digits(h.qps)} req/s{of} at {h.provider}, {money(h.usd_per_hour)}/h ({price}); latency there not known"


def hosted_section(plan: Plan) -> Section:
    """What APIs serve, at which price."""
    rows = tuple(
        (
            h.workload,
            f"{short(h.checkpoint)}{' (thinking)' if h.mode == 'thinking' else ''} at {h.provider}",
            f"{digits(100 * h.share)}%",
            digits(h.qps),
            "not known" if h.limit_qps is None else f"{h.limit_qps:g}",
            f"{h.quality.benchmark} {h.quality.score:.4f}" if h.quality else "-",
            unit_money(h.usd_per_million_input),
            "-" if h.usd_per_million_cached_input is None else unit_money(h.usd_per_million_cached_input),
            unit_money(h.usd_per_million_output),
            money(h.usd_per_hour),
            f"{h.api_name}, {h.source}, {h.as_of}",
        )
        for h in plan.hosted
    )
    header = ("workload", "API", "share", "req/s", "most req/s", "quality", "$/M in", "$/M cached", "$/M out", "$/h", "price")
    means = " Shares, req/s and $/h are means over all hours." if plan.periods else ""
    lines = (f"Latencies of APIs are not known: whether the SLO holds there is not promised.{means}",)
    return Section("Hosted APIs", lines, Grid(header, rows, ("share", "req/s", "most req/s", "$/M in", "$/M cached", "$/M out", "$/h")))


def short(checkpoint: str) -> str:
    """A checkpoint's name without its publisher."""
    return checkpoint.rsplit("/", maxsplit=1)[-1]


def _service(plan: Plan) -> Section:
    rows: list[tuple[str, ...]] = []
    for w in plan.workloads:
        rows += _service_rows(w)
    header = ("workload", "metric", "limit", "predicted", "p50", "p95", "p99")
    return Section("Predicted service", grid=Grid(header, tuple(rows), header[2:]))


def _service_rows(w: PlanWorkload) -> list[tuple[str, ...]]:
    if w.predicted is None:
        return []
    load = f"{w.name}: {digits(w.qps)} req/s" + (f", {w.concurrency:,.0f} in flight" if w.concurrency is not None else "")
    load += f", at peaks of x{w.burst_factor:g}" if w.burst_factor > 1 else ""
    rows: list[tuple[str, ...]] = []
    for metric in ("ttft", "tpot", "itl", "e2e"):
        d = getattr(w.predicted, f"{metric}_ms")
        limits = [s for s in w.slo if s.metric == metric]
        if d is None or (metric == "itl" and not limits):  # to most readers the same as TPOT
            continue
        limit = ", ".join(f"p{s.percentile:g} {latency(s.limit_ms)}" for s in limits) or "-"
        known = [latency(getattr(d, f"p{s.percentile:g}")) if hasattr(d, f"p{s.percentile:g}") else "held" for s in limits]
        rows.append((load if metric == "ttft" else "", metric.upper(), limit, ", ".join(known) or "-", latency(d.p50), latency(d.p95), latency(d.p99)))
    return rows


PARTS_OF_TTFT = {
    "request": "request", "queue": "queue", "schedule": "schedule", "prefill": "prefill", "transfer": "transfer", "first_decode": "first decode",
    "reasoning": "reasoning",
}  # fmt: skip


def _network(plan: Plan) -> str:
    """What of the way to the user is in the numbers."""
    far = [f"{format_duration(w.network)} to {w.name}" for w in as_reached(plan.scenario, plan.workloads).workload if w.network]
    beside = f"The network's {' and '.join(far)} come on top, and are taken off the limits on TTFT and E2E." if far else "No network to the user."
    return f"Parts of the mean; its p95 beside them. {beside}"


def _first_tokens(plan: Plan) -> list[Section]:
    """What the mean TTFT of each workload is made of, on each of its deployments."""
    known = [(i, s, s.ttft_parts_ms.model_dump()) for i, d in enumerate(plan.deployments) for s in d.service]
    shown = [name for name in PARTS_OF_TTFT if any(parts[name] for _, _, parts in known)]
    rows = tuple((str(i), s.workload, latency(sum(parts.values())), *(latency(parts[name]) for name in shown), latency(s.ttft_p95_ms)) for i, s, parts in known)
    header = ("#", "workload", "mean TTFT", *(PARTS_OF_TTFT[name] for name in shown), "p95")
    return [Section("Until the first token", (_network(plan),), Grid(header, rows, header[2:]))] if rows else []


def _bands(plan: Plan) -> list[Section]:
    """Latencies at the median of the evidence, and what they do not exceed with 90 %."""
    rows = []
    for i, d in enumerate(plan.deployments):
        for s in d.service:
            for metric in ("ttft", "tpot", "e2e"):
                band = getattr(s, f"{metric}_ms")
                cells = (_from_to(band, name) for name in ("p50", "p90", "p95", "p99"))
                rows.append((str(i) if metric == "ttft" else "", s.workload if metric == "ttft" else "", metric.upper(), *cells))
    header = ("#", "workload", "metric", "p50", "p90", "p95", "p99")
    line = "At the median of the evidence, and in 90% of cases at most: steps may be slower and the queue's formulas off; a queue makes more of both."
    return [Section("How sure latencies are", (line,), Grid(header, tuple(rows), header[3:]))] if rows else []


def _from_to(band: LatencyBand, name: str) -> str:
    low, high = ("no end" if d is None else latency(getattr(d, name)) for d in (band.median, band.at_90))
    return f"{low} to {high}"


def latency(value: float) -> str:
    """Milliseconds in the unit that reads well."""
    return f"{value / 1e3:.2f} s" if value >= 1000 else f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"


def _trust(plan: Plan) -> Section:
    """Quality with its margin, and how the performance is known."""
    rows = tuple((str(i), *_quality_cells(d), *_evidence_cells(d)) for i, d in enumerate(plan.deployments))
    return Section("How sure", grid=Grid(("#", "quality", "margin", "kind", "tier", "error", "nearest measurement", "one GPU's memory"), rows, ("margin",)))


def _quality_cells(d: Deployment) -> tuple[str, str, str]:
    q = d.quality
    if q is None:
        return ("no score", "-", "-")
    kind = ("derived, " if q.derived else "") + ("self-reported" if q.self_reported else "independent") + ", not with FP8 KV" * q.fp8_kv_unmeasured
    return (f"{q.benchmark} {q.score:.4f}", "-" if q.margin is None else f"{q.margin:+.4f}", f"{kind}, {q.as_of}")


def _evidence_cells(d: Deployment) -> tuple[str, str, str, str]:
    e, m = d.evidence, d.memory_gib
    if e is None or m is None:
        return ("-", "-", "-", "-")
    error = f"steps {step_words(e)}"
    if e.replicas_at_median is not None and e.confidence > 0.5:
        error += f"; {e.replicas_at_median} of {d.replicas} replicas would do at the median, {money(d.usd_per_hour * e.replicas_at_median / d.replicas)}/h"
    memory = f"{m.weights:.0f} weights + {m.kv_cache:.0f} KV + {m.activations + m.reserve:.0f} other of {m.limit:.0f} GiB"
    return (e.tier, error, f"{e.source.split(': ')[0]}, {e.as_of}", memory)


def step_words(e: PlanEvidence) -> str:
    """The factor on the fitted physics' steps, with the median's beside it: where steps were measured as faster than the physics both may be below 1."""
    median = e.step_time_band.get("0.5")
    beside = f" (x{median:.2f} at the median)" if median is not None and e.confidence != 0.5 else ""
    return f"x{e.step_time_factor:.2f} of the fitted physics to be sure at {e.confidence:.0%}{beside}"


def _headroom(plan: Plan) -> Section:
    """The steps that add something; the others in one line."""
    total, rows, idle = 1.0, [], []
    for h in plan.headroom:
        total *= h.factor
        if h.factor > 1.0005:
            rows.append((h.step, f"x{h.factor:.2f}", f"x{total:.2f}", h.note))
        else:
            idle.append(h.step)
    line = f"From mean demand to what is held: x{total:.2f}. Nothing is added for {', '.join(idle[1:])}." if idle else ""
    return Section("Headroom", (line,) if line else (), Grid(("step", "factor", "so far", "note"), tuple(rows), ("factor", "so far")) if rows else None)


def _unit_costs(plan: Plan, whole: UnitCosts) -> Section:
    """Dollars per million tokens of each kind and per thousand requests, workload by workload, and the traffic at which an API costs the same."""
    rows = [(w.name, w.unit_costs) for w in plan.workloads if w.unit_costs]
    rows += [("together", whole)] if len(rows) > 1 else []
    kinds = [("new input", whole.input_usd_per_hour), ("cached input", whole.cached_input_usd_per_hour), ("output", whole.output_usd_per_hour)]
    shares = " + ".join(f"{name} {money(usd)}" for name, usd in kinds if usd or name != "cached input")
    how = "as its API bills them" if not plan.deployments else "by the time engines work on prompts and on answers; idle GPUs in proportion"
    how += "; at APIs as billed" if plan.hosted and plan.deployments else ""
    lines = [f"{shares} = {money(whole.usd_per_hour)}/h: split {how}."]
    lines += [line for a in plan.api if (line := _break_even(a, plan))]
    header = ("workload", "$/h", "new input $/M", "cached input $/M", "output $/M", "$/1,000 requests")
    cells = tuple((name, money(u.usd_per_hour), *map(unit_money, _units(u))) for name, u in rows)
    return Section("Unit costs", tuple(lines), Grid(header, cells, header[1:]))


def power_section(p: Power, plan: Plan) -> Section:
    """kW and carbon, per hour and per token, and what each line of purchases was taken to draw."""
    return Section("Power and carbon", power_lines(p, plan), Grid(HEADER, power_rows(p, plan), HEADER[1:6]))


def _units(u: UnitCosts) -> tuple[float | None, ...]:
    return u.usd_per_million_input_tokens, u.usd_per_million_cached_input_tokens, u.usd_per_million_output_tokens, u.usd_per_thousand_requests


def _break_even(a: HostedApi, plan: Plan) -> str:
    if a.break_even_qps is None or a.break_even_utilization is None:
        return ""
    of = f" for {a.workload}" if len(plan.workloads) > 1 else ""
    full = "more than this plan carries" if a.break_even_utilization > 1 else f"{a.break_even_utilization:.0%} of what this plan carries"
    return f"The API of {short(a.checkpoint)} at {a.provider} costs as much{of} at {a.break_even_qps:,.3g} req/s, {full}; below that it is cheaper."


def _routing(plan: Plan) -> Section:
    rows = tuple((w.name, digits(w.qps), ", ".join(f"{r.share:.1%} to {plan.deployments[r.deployment].checkpoint}" for r in w.routing)) for w in plan.workloads)
    return Section("Routing", grid=Grid(("class", "req/s", "served by"), rows, ("req/s",)))


def _sentences(notes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{n[0].upper()}{n[1:]}." for n in notes)


def _fit_to_sign(prudent: Prudent) -> Section:
    """The bridge from the cheapest plan to the one that survives."""
    rows = tuple(_step_row(s, prudent.steps[i - 1] if i else None) for i, s in enumerate(prudent.steps))
    if prudent.usd_per_hour is not None:
        rows += (("fit to sign (--prudent)", "", money(prudent.usd_per_hour), _more(prudent.premium_usd_per_hour)),)
    return Section("Fit to sign", grid=Grid(("term", "cheapest plan with all terms so far", "$/h", "premium"), rows, ("$/h", "premium")))


def _step_row(s: PrudentStep, before: PrudentStep | None) -> tuple[str, ...]:
    term = f"+ {s.term}" if before else s.term
    if s.usd_per_hour is None:
        return (term, s.why, "-", "-")
    what = ", ".join((" + ".join(brief(d) for d in s.deployments), *dict.fromkeys(p.provider for p in s.purchases)))
    what = "as above" if before and (s.deployments, s.purchases) == (before.deployments, before.purchases) else what
    return (term, f"{what} ({s.why})" if s.why else what, money(s.usd_per_hour), _more(s.premium_usd_per_hour) if before else "")


def _more(usd: float | None) -> str:
    return "-" if usd is None else f"{'-' if usd < 0 else '+'}{money(abs(usd))}"


def _alternatives(plan: Plan) -> Section:
    chosen = ("this plan", "", money(plan.cost.usd_per_hour), "", "chosen")
    rows = (chosen, *(_alternative_row(a) for a in plan.alternatives), *(_api_row(a, plan) for a in plan.api))
    return Section("Alternatives", _sentences(plan.notes), Grid(("instead", "what", "$/h", "more", "why not"), rows, ("$/h", "more")))


def _alternative_row(a: Alternative) -> tuple[str, ...]:
    if not a.feasible or a.cost is None:
        return (a.difference, "-", "-", "-", a.why)
    what = " + ".join(brief(d) for d in a.deployments)
    where = ", ".join(dict.fromkeys(p.provider for p in a.purchases))
    return (a.difference, f"{what}, {where}", money(a.cost.usd_per_hour), f"{a.premium:+.0%}" if a.premium is not None else "-", a.why)


def brief(d: Brief) -> str:
    """A deployment in a few words."""
    return f"{d.replicas} x {d.layout} {d.gpu}, {short(d.checkpoint)}"


def _api_row(a: HostedApi, plan: Plan) -> tuple[str, ...]:
    what = "hosted API, same model" if a.same_model else "hosted API, any model above the floor"
    hits = any(w.name == a.workload and w.unit_costs and w.unit_costs.cached_input_usd_per_hour for w in plan.workloads)
    cached = f"{'list price' if a.usd_per_million_cached_input is None else unit_money(a.usd_per_million_cached_input)} cached, " if hits else ""
    price = f"{unit_money(a.usd_per_million_input)} in, {cached}{unit_money(a.usd_per_million_output)} out per million tokens ({a.as_of})"
    more = a.usd_per_hour / sum(w.qps for w in plan.workloads if w.name == a.workload) * sum(w.qps for w in plan.workloads) / plan.cost.usd_per_hour - 1
    return (
        f"{what}" + (f" ({a.workload})" if len(plan.workloads) > 1 else ""),
        f"{short(a.checkpoint)} at {a.provider}",
        money(a.usd_per_hour),
        f"{more:+.0%}" if len(plan.workloads) == 1 else "-",
        price,
    )
