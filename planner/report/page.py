"""The page of a plan that a reviewer signs: the decision with its range, what to buy, service, quality, evidence, the three warnings with
most money at risk, and what else there is. Everything else is in the details (planner.report.sections)."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from planner.figures import digits
from planner.report.fleet import fleet_lines
from planner.report.power import power_line
from planner.report.sections import NOTHING_HURRIES, Section, brief, hosted_bill, hosted_by, latency, money, plural, short, step_words, unit_money
from planner.result.plan import Alternative, Deployment, HostedApi, Plan, PlanWorkload, Purchase, SpotRisk
from planner.result.reach import as_reached
from planner.scenario.units import format_duration

MOST_WARNINGS = 3
MOST_WORKLOADS = 4  # shown one by one
NOTHING_SAVED, SAVED = "would save less than", "would cost"  # in notes of looser rules
LATE = "raise --time-limit"  # in why nothing is known of an alternative
TERMS = {
    "one spare": "spare",
    "floor met": "worst recovery",
    "prices of": "fresh price",
    "GPU and model": "measured",
    "nearest evidence": "evidence",
}  # of the bridge, by how they begin
MOST_CLASSES = 8  # of one's own numbers
STATED_FIRST = ("lengths", "SLO TTFT", "SLO TPOT")  # of the defaults: what most plans turn on


def page_sections(plan: Plan) -> list[Section]:
    """The short page."""
    warnings = plan.warnings[:MOST_WARNINGS]
    more = f" ({len(warnings)} of {len(plan.warnings)})" if len(plan.warnings) > len(warnings) else ""
    return [
        Section("Plan", _decision(plan), items=_items(plan)),
        *([Section(f"Warnings{more}", warnings, is_caution=True)] if warnings else []),
        *([Section("Alternatives", items=_others(plan))] if plan.alternatives or plan.api else []),
    ]


def _decision(plan: Plan) -> tuple[str, ...]:
    """What and for how much; from how many replicas to how many; how sure it is that nothing is cheaper."""
    what = " + ".join([*(_served_by(d) for d in plan.deployments), *(hosted_by(h, plan) for h in plan.hosted)])
    proof = "Proven optimal (" if plan.status == "optimal" else f"Not proven optimal (at least {money(plan.bound_usd_per_hour)}/h, "
    supply = "" if plan.supply in plan.defaults else f", {plan.supply}"
    proof += f"gap {plan.gap:.2%}, {plan.solver.candidates:,} candidates{supply}){_bound(plan)}."
    return (f"{what}: {money(plan.cost.usd_per_hour)}/h, {money(plan.cost.usd_per_month, 0)}/month.", *_range(plan), proof)


def _bound(plan: Plan) -> str:
    """What the plan is held by; whose limits they are is in the details."""
    bounds = list(plan.binding)
    for d in plan.deployments:
        bounds = [b.removesuffix(f" on {d.checkpoint}, {d.gpu}") for b in bounds]
    return f"; bound by {', '.join(dict.fromkeys(bounds))}" if bounds else ""


def _served_by(d: Deployment) -> str:
    return f"{d.replicas} x {d.layout} {d.gpu}, {short(d.checkpoint)}{', thinking' if d.mode == 'thinking' else ''}"


def _range(plan: Plan) -> tuple[str, ...]:
    """Replicas and money from the median of the evidence to its 95 % end."""
    known = [(d, d.evidence.replicas_at_median, d.evidence.replicas_at_95) for d in plan.deployments if d.evidence]
    if not known or any(low is None for _, low, _ in known):
        return ()
    low = sum(n or 0 for _, n, _ in known)
    least = sum(d.usd_per_hour * (n or 0) / d.replicas for d, n, _ in known)
    if any(high is None for _, _, high in known):
        return (f"From {low} {plural('replica', low)} ({money(least)}/h) at the median of the evidence; at its 95% end the limits hold at no load.",)
    high = sum(n or 0 for _, _, n in known)
    most = sum(d.usd_per_hour * (n or 0) / d.replicas for d, _, n in known)
    if low == high:
        return (f"{low} {plural('replica', low)} at the evidence's median and at 95%.",)
    return (f"{low} to {high} replicas ({money(least)} to {money(most)}/h) between the evidence's median and 95%.",)


def _items(plan: Plan) -> tuple[tuple[str, str], ...]:
    found = [("buy", _bought(plan))] if plan.purchases or not plan.hosted else []
    found += [("API", hosted_bill(h, plan)) for h in plan.hosted]
    found += [("from today", text) for text in fleet_lines(plan)]
    found += _workloads(plan)
    found += [("fit to sign", text) for text in _fit_to_sign(plan)]
    found += [("quality", text) for text in _quality(plan)]
    found += [("evidence", text) for text in _evidence(plan)]
    found += [("losses", text) for text in losses_in_words(plan)]
    found += [("spot", text) for text in spot_in_words(plan)]
    found += [("engines", text) for text in _engines(plan)]
    found += [("unit costs", text) for text in _unit_costs(plan)]
    found += [("power", text) for text in power_line(plan)]
    found += [("notes", note) for note in _notes(plan)]
    found += [("defaults", _defaults(plan))] if plan.defaults else []
    return tuple(found)


def _notes(plan: Plan) -> tuple[str, ...]:
    """What is worth knowing; of looser rules that save, the one that needs least (it comes last; --details has all)."""
    told = [n for n in plan.notes if NOTHING_SAVED not in n]
    strictest = next((n for n in reversed(told) if SAVED in n), None)
    return tuple(f"{n[0].upper()}{n[1:]}" for n in told if SAVED not in n or n is strictest)


def _bought(plan: Plan) -> str:
    """Instances with their price; of several kinds only what they are, as the details have the rest."""
    idle = plan.gpus_held - plan.gpus_used
    held = f"{idle or 'none'} idle"
    if len(plan.purchases) > 1:
        by_place: dict[str, list[str]] = {}
        for p in plan.purchases:
            by_place.setdefault(_place(p), []).append(f"{p.gpus_held} x {p.gpu}{f' in {p.zone}' if p.zone else ''}")
        return "; ".join([*(f"{', '.join(gpus)} at {place}" for place, gpus in by_place.items()), held])
    return "; ".join([*(f"{p.instances} x {p.instance_type} at {_place(p)}, {money(p.usd_per_hour / p.instances, 3)}/h each" for p in plan.purchases), held])


def _place(p: Purchase) -> str:
    return " ".join(dict.fromkeys(w for w in (p.provider, p.region) if w != "any"))


def _workloads(plan: Plan) -> list[tuple[str, str]]:
    """Service against limits, of what is on GPUs; of one's own numbers, who serves each class."""
    if plan.kind == "own":
        routes = [(w.name, ", ".join(f"{r.share:.0%} {plan.deployments[r.deployment].checkpoint}" for r in w.routing)) for w in plan.workloads]
        return routes if len(routes) <= MOST_CLASSES else [("classes", f"{len(routes)} on {len(plan.deployments)} deployments (--details)")]
    shown = plan.workloads[:MOST_WORKLOADS]
    reached = as_reached(plan.scenario, plan.workloads).workload
    networks = [f", and {format_duration(asked.network)} of network in TTFT and E2E" if asked.network else "" for asked in reached]
    names = ["service"] if len(plan.workloads) == 1 else [w.name for w in shown]
    found = [(name, _service(w, len(plan.workloads) == 1) + far) for name, w, far in zip(names, shown, networks)]
    left = len(plan.workloads) - len(shown)
    return found + ([("", f"and {left} more workloads (--details)")] if left else [])


def _service(w: PlanWorkload, is_only: bool) -> str:
    """Every limit with what is predicted; E2E where nothing limits latency. Of one workload alone what is in flight, too."""
    parts = [f"{digits(w.qps)} req/s" + (f" (peaks of x{w.burst_factor:g})" if w.burst_factor > 1 else "")]
    if w.concurrency is not None and (is_only or w.demand.kind == "concurrency"):
        parts.append(f"{w.concurrency:,.0f} in flight" if w.concurrency >= 100 else f"{w.concurrency:.3g} in flight")
    if w.predicted is None:
        return ", ".join([*parts, "latency at the API not known"])
    for s in w.slo:
        value = getattr(getattr(w.predicted, f"{s.metric}_ms"), f"p{s.percentile:g}", None)
        parts.append(f"{s.metric.upper()} p{s.percentile:g} {latency(value) if value is not None else 'held'} of {latency(s.limit_ms)}")
    if not w.slo:
        parts.append(f"E2E p95 {latency(w.predicted.e2e_ms.p95)}")
    return ", ".join(parts)


def _quality(plan: Plan) -> tuple[str, ...]:
    """The score nearest to its floor."""
    known = [q for q in (*(d.quality for d in plan.deployments), *(h.quality for h in plan.hosted)) if q]
    if not known:
        return ()
    q = min(known, key=lambda q: inf if q.margin is None else q.margin)
    against = f", {q.margin:+.4f} against the floor" if q.margin is not None else ""
    kind = ("derived, " if q.derived else "") + ("self-reported" if q.self_reported else "independent")
    return (f"{q.benchmark} {q.score:.4f}{against}; {kind}, {q.as_of}",)


def _evidence(plan: Plan) -> tuple[str, ...]:
    """The thinnest evidence that anything rests on."""
    known = [(d, e) for d in plan.deployments if (e := d.evidence)]
    if not known:
        return ()
    d, e = max(known, key=lambda x: x[1].step_time_factor)
    which = f" ({d.gpu})" if len(known) > 1 else ""
    factor = f"x{e.step_time_factor:.2f} to be sure at {e.confidence:.0%}" if e.step_time_factor >= 1 else step_words(e)
    own = tuple(e.note for _, e in known if e.note)
    version = f"as {e.stands_for}; " if e.stands_for else ""
    return (f"{e.tier}{which}, steps {factor}; {version}nearest: {e.source.split(': ')[0]}, {e.as_of}", *own)


def losses_in_words(plan: Plan) -> tuple[str, ...]:
    """The loss that weighs most, what is left then, and what it costs to bear it."""
    found = plan.redundancy
    if found is None:
        return ()
    if not found.losses:
        return (f"{found.asked}: {NOTHING_HURRIES}",)
    b = max(found.losses, key=lambda b: b.slo_load)
    d = plan.deployments[b.deployment]
    total, which = b.replicas_lost + b.replicas_left, f" ({d.gpu})" if len(plan.deployments) > 1 else ""
    left = f"{found.asked}: without {b.loss} {b.replicas_left} of {total}{which} carry it at SLO load {b.slo_load:.3g} of {found.load_after_loss:g}"
    left += f", with limits {found.loss_slo_factor:g} times as long" if found.loss_slo_factor > 1 else ""
    premium = found.premium_usd_per_hour
    more = "" if premium is None or not found.usd_per_hour_without else f"; +{money(premium)}/h ({premium / found.usd_per_hour_without:+.0%}) over none"
    return (left + more, *([found.assumption] if found.assumption else []))


def spot_in_words(plan: Plan) -> tuple[str, ...]:
    """How often spot is taken back, and the load until what replaces it serves."""
    lead = format_duration(plan.scenario.policy.startup_lead)
    return tuple(_spot(s, plan.purchases[s.purchase], lead) for s in plan.spot)


def _spot(s: SpotRisk, p: Purchase, lead: str) -> str:
    load = "no replica is left" if s.slo_load_one_away is None else f"SLO load {s.slo_load_one_away:.3g}"
    away = f"while one is away ({lead} to replace): {load}"
    if s.low is None or s.per_month is None:
        return f"{p.instances} x {p.instance_type}: how often it is taken back is not published; {away}"
    span = f"over {s.low:.0%}" if s.high is None else f"under {s.high:.0%}"
    most = "at least" if s.high is None else "up to"
    told = f"{s.source.rpartition('(')[2].rstrip(')')}, {s.as_of}"
    return f"{p.instances} x {p.instance_type}: {span} are taken back in a month ({told}), {most} {s.per_month:.3g}; {away}"


SET = {"default": "default", "recipe": "recipe", "record": "records"}  # words of --tuning


def _engines(plan: Plan) -> tuple[str, ...]:
    """How engines are supposed to be set, and what they would take set otherwise (--tuning)."""
    known = [(d, e) for d in plan.deployments if (e := d.evidence) and e.replicas_by_tuning]
    if not known:
        return ()
    others: list[str] = []
    for name in dict.fromkeys(name for _, e in known for name in e.replicas_by_tuning):
        counts = [(d, e.replicas_by_tuning.get(name)) for d, e in known]
        replicas, usd = sum(n or 0 for _, n in counts), sum(d.usd_per_hour * (n or 0) / d.replicas for d, n in counts)
        unit = "" if others else f" {plural('replica', replicas)}"
        taken = next((f" ({e.tuning_taken[name]})" for _, e in known if name in e.tuning_taken), "")
        says = "nothing within the limits" if any(n is None for _, n in counts) else f"{replicas}{unit} {money(usd, 2 if usd < 100 else 0)}/h"
        others.append(f"{SET[name]}{taken} {says}")
    return (f"{SET[known[0][1].tuning]}; {', '.join(others)}",)


def _unit_costs(plan: Plan) -> tuple[str, ...]:
    u = plan.unit_costs
    if u is None:
        return ()
    kinds = (("input", u.usd_per_million_input_tokens), ("cached input", u.usd_per_million_cached_input_tokens), ("output", u.usd_per_million_output_tokens))
    tokens = ", ".join(f"{unit_money(usd)} {name}" for name, usd in kinds if usd is not None)
    return (f"{tokens} per million tokens; {unit_money(u.usd_per_thousand_requests)} per 1,000 requests",)


def _fit_to_sign(plan: Plan) -> tuple[str, ...]:
    """The bridge from the cheapest to the plan that survives: what each term adds, in the words of its first noun."""
    found = plan.prudent
    if found is None:
        return ()
    terms = [f"{_term(s.term)} +{money(s.premium_usd_per_hour)}" for s in found.steps[1:] if s.premium_usd_per_hour]
    if found.usd_per_hour is None or found.premium_usd_per_hour is None:
        end = found.steps[-1]
        return ("; ".join([*terms, f"{end.term}: {end.why}"]),)
    if not terms:
        return ("as it is: this plan survives what --prudent asks",)
    last = found.steps[-1]
    what = brief(last.deployments[0]) if len(last.deployments) == 1 else ""
    return (f"{money(found.usd_per_hour)}/h: {', '.join(terms)} (--prudent{f'; {what}' if what else ''})",)


def _term(words: str) -> str:
    return next((short_one for begins, short_one in TERMS.items() if words.startswith(begins)), words)


def _defaults(plan: Plan) -> str:
    """The first words of what most plans turn on, and how many others there are."""
    first = [d for d in plan.defaults if d.startswith(STATED_FIRST)]
    left = len(plan.defaults) - len(first)
    return "; ".join([*first, *([f"{left} more (--details)"] if left else [])])


def _others(plan: Plan) -> tuple[tuple[str, str], ...]:
    """One line for each alternative: money, more or less of it, and what differs."""
    compared = [a for a in plan.alternatives if a.feasible and a.cost is not None]
    rows = [(money(a.cost.usd_per_hour), _more(a.premium), _differs(a, plan)) for a in compared if a.cost]
    rows += [("-", "", f"{_without(a.difference)}: {a.why}") for a in plan.alternatives if a not in compared and LATE not in a.why]
    late = sum(LATE in a.why for a in plan.alternatives if a not in compared)
    rows += [("-", "", f"{late} more that there was no time to compare ({LATE})")] if late else []
    rows += [row for is_same in (True, False) if (row := _apis([h for h in plan.api if h.same_model is is_same], plan))]
    wide, more = (max(len(r[i]) for r in rows) for i in (0, 1))
    return tuple((f"{usd:>{wide}} {change:>{more}}".rstrip(), text) for usd, change, text in rows)


def _without(difference: str) -> str:
    """What differs, without the names that the plan begins with."""
    return difference.split(" than ", maxsplit=1)[0]


def _more(premium: float | None) -> str:
    return "" if premium is None else f"{premium:+.0%}"


def _differs(a: Alternative, plan: Plan) -> str:
    models, ours = (" + ".join(dict.fromkeys(short(d.checkpoint) for d in of)) for of in (a.deployments, plan.deployments))
    what = " + ".join(f"{d.replicas} x {d.layout} {d.gpu}" for d in a.deployments) if len(a.deployments) == 1 else " + ".join(d.gpu for d in a.deployments)
    where = ", ".join(dict.fromkeys(p.provider for p in a.purchases))
    is_other = models != ours and len(a.deployments) == 1
    return f"{_without(a.difference)}: {what}{f', {models}' if is_other else ''}, {where}"


def _apis(offers: Sequence[HostedApi], plan: Plan) -> tuple[str, str, str] | None:
    """Hosted APIs for every workload that has one, at the rate of the plan."""
    if not offers:
        return None
    usd, all_of_it = sum(h.usd_per_hour for h in offers), {h.workload for h in offers} == {w.name for w in plan.workloads}
    whose = ", ".join(dict.fromkeys(f"{short(h.checkpoint)} at {h.provider}" for h in offers))
    what = "hosted API" if offers[0].same_model else "hosted API, any model"
    some = "" if all_of_it else f" ({', '.join(h.workload for h in offers)} alone)"
    return money(usd), _more(usd / plan.cost.usd_per_hour - 1) if all_of_it else "", f"{what}{some}: {whose}"
