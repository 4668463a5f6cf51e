"""Checks the money to the cent: what is held at the catalogue's prices, shares of it, and unit costs over the user's own traffic."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from planner.check.case import Account, Case, Fit
from planner.check.demand import in_flight
from planner.check.findings import RELATIVE, Finding, Notes, same, same_money
from planner.check.supply import offer_of
from planner.performance.step import step_curves
from planner.result.plan import Cost, HostedShare, Plan, UnitCosts
from planner.scenario.units import HOURS_PER_MONTH
from planner.scenario.workload import Workload

Units = tuple[float, float, float]


def cost(case: Account) -> Finding:
    """Cost per hour, month and year; shares and idle; unit costs."""
    notes, plan = Notes("cost"), case.plan
    right = _held(notes, case)
    periods(notes, plan.cost, right)
    _shares(notes, case)
    requests, output, total = _traffic(plan)
    unit_costs(notes, plan.cost, requests, output, total)
    if plan.periods:
        _saving(notes, plan, right)
    per_million = f", ${plan.cost.usd_per_million_output_tokens:.4f} per million output tokens" if plan.cost.usd_per_million_output_tokens is not None else ""
    return notes.finding(f"cost: ${right:,.2f}/h for {plan.gpus_held} GPUs held, shares and idle add up to the cent{per_million}")


def _held(notes: Notes, case: Account) -> float:
    """Mean $/h of what is held in every period and started for it, at the catalogue's prices, and of APIs, whose prices hosted.py checks."""
    plan, lead, total, starts = case.plan, case.scenario.policy.startup_lead / 3600, 0.0, 0.0
    apis = sum(h.usd_per_hour for h in plan.hosted)
    notes.require(same_money(plan.cost.api_usd_per_hour, apis), "plan", f"states ${plan.cost.api_usd_per_hour:.4f}/h for APIs, they take ${apis:.4f}")
    each = [h.usd_per_hour / h.qps if h.qps > 0 else 0.0 for h in plan.hosted]
    prices = [o.usd_per_hour if (o := offer_of(case, p)) else p.usd_per_hour / p.instances for p in plan.purchases]
    for t in plan.by_period:
        started = lead * sum(c * m for c, m in zip(prices, t.started, strict=True))
        held, served = (sum(c * n for c, n in zip(*of, strict=True)) for of in ((prices, t.instances), (each, t.hosted)))
        usd = t.hours * (held + served) + started
        notes.require(same_money(t.usd, usd), f"hour {t.hour}" if plan.periods else "plan", f"states ${t.usd:.4f}, should be ${usd:.4f}")
        total, starts = total + usd, starts + started
    stated, right = plan.startup_usd_per_hour, starts / plan.hours
    notes.require(same_money(stated * plan.hours, starts), "plan", f"states ${stated:.4f}/h for starting, should be ${right:.4f}")
    return total / plan.hours


def _saving(notes: Notes, plan: Plan, usd_per_hour: float) -> None:
    """What is saved of the flat plan that the hours are compared with."""
    flat = plan.flat
    notes.require(flat is not None and (flat.usd_per_hour is None) == (flat.saving is None), "saving", "is stated without the flat plan, or that without it")
    if flat is not None and flat.usd_per_hour is not None and flat.saving is not None:
        saved = 1 - usd_per_hour / flat.usd_per_hour
        notes.require(abs(flat.saving - saved) < RELATIVE, "saving", f"states {flat.saving:.3g}, should be {saved:.3g}")


def periods(notes: Notes, stated: Cost, usd_per_hour: float, where: str = "plan") -> None:
    """An hour as it should be, a month of 730 hours, a year of twelve months."""
    month, year = (stated.usd_per_month, HOURS_PER_MONTH), (stated.usd_per_year, 12 * HOURS_PER_MONTH)
    for name, (value, hours) in {"hour": (stated.usd_per_hour, 1.0), "month": month, "year": year}.items():
        right = usd_per_hour * hours
        notes.require(same_money(value, right), where, f"states ${value:,.4f} per {name}, should be ${right:,.4f}")


def unit_costs(notes: Notes, stated: Cost, requests: float, output: float, total: float, where: str = "plan") -> None:
    """Dollars per thousand requests and per million tokens, for what the plan serves per hour; absent where lengths are unknown."""
    for value, amount, scale, what in (
        (stated.usd_per_thousand_requests, requests, 1e3, "thousand requests"),
        (stated.usd_per_million_output_tokens, output, 1e6, "million output tokens"),
        (stated.usd_per_million_total_tokens, total, 1e6, "million tokens"),
    ):
        right = stated.usd_per_hour / amount * scale if amount > 0 else None
        agree = value is None if right is None else value is not None and same(value, right)
        notes.require(agree, where, f"states ${value} per {what}, should be ${right}")


def _shares(notes: Notes, case: Account) -> None:
    """Each deployment pays for the GPUs it uses; what nobody uses is idle; together they are the cost."""
    plan = case.plan
    for i, d in enumerate(plan.deployments):
        right = sum(_per_gpu(case, h.purchase) * d.gpus_per_replica * h.replicas for h in d.hosts)
        notes.require(same_money(d.usd_per_hour, right), case.where(i), f"states a share of ${d.usd_per_hour:.4f}/h, its GPUs cost ${right:.4f}")
    idle, each = plan.cost.idle_usd_per_hour, [d.gpus_per_replica for d in plan.deployments]
    used = [t.hours * _per_gpu(case, h.purchase) * n * h.replicas for t in plan.by_period for n, c in zip(each, t.deployments, strict=True) for h in c.hosts]
    whole = sum(used) / plan.hours + plan.startup_usd_per_hour + idle + plan.cost.api_usd_per_hour
    notes.require(idle >= -1e-6, "plan", f"states ${idle:.4f}/h idle")
    notes.require(same_money(whole, plan.cost.usd_per_hour), "plan", f"shares and idle add up to ${whole:.4f}/h, the cost is ${plan.cost.usd_per_hour:.4f}")


def split(case: Case) -> Finding:
    """What each workload's new prompt tokens, cached ones and answers cost: the time that engines work on them, times what an hour of that work costs."""
    notes, plan, shares = Notes("cost"), case.plan, dict.fromkeys(range(len(case.plan.workloads)), (0.0, 0.0, 0.0))
    whole = sum(d.usd_per_hour for d in plan.deployments)
    for i, d in enumerate(plan.deployments):
        built = case.built[i]
        if built is None or not built.serves or any(w not in built.fits for w in built.serves):
            return notes.finding("unit costs: not derived")  # a breach of its own
        each = in_flight(plan, i) / d.replicas / max(d.decode_engines, 1)
        work = {w: _seconds(built.fits[w], case.qps(w, i), each, d.max_num_seqs) for w in built.serves}
        prompts, answers = sum(t[0] + t[1] for t in work.values()), sum(t[2] for t in work.values())
        roles = (d.prefill_engines, d.decode_engines) if d.decode_engines else (prompts, answers)
        paid = d.usd_per_hour / whole * (plan.cost.usd_per_hour - plan.cost.api_usd_per_hour) / sum(roles)
        for w, (new, cached, answer) in work.items():
            a, b, c = shares[w]
            shares[w] = (a + paid * roles[0] * new / prompts, b + paid * roles[0] * cached / prompts, c + paid * roles[1] * answer / answers)
    for row in plan.hosted:
        w = next(i for i, got in enumerate(plan.workloads) if got.name == row.workload)
        shares[w] = (shares[w][0] + (bill := _bill(row, case.scenario.workload[w]))[0], shares[w][1] + bill[1], shares[w][2] + bill[2])
    apis = [sum(h.qps for h in plan.hosted if h.workload == got.name) for got in plan.workloads]
    rates = [sum(case.qps(w, i) for i in {r.deployment for r in got.routing}) + apis[w] for w, got in enumerate(plan.workloads)]
    for w, got in enumerate(plan.workloads):
        _stated_split(notes, got.unit_costs, [(shares[w], case.scenario.workload[w], rates[w])], got.name)
    _stated_split(notes, plan.unit_costs, list(zip(shares.values(), case.scenario.workload, rates, strict=True)), "plan")
    return notes.finding("unit costs: split by the time engines work on new prompt tokens, cached ones and answers")


def _bill(row: HostedShare, asked: Workload) -> Units:
    """What an API takes for new input, cached input and output."""
    millions = row.qps * 3600 / 1e6 * row.tokens_per_stated
    cached = row.usd_per_million_input if row.usd_per_million_cached_input is None else row.usd_per_million_cached_input
    prompts, answers, hit = asked.input_tokens * millions, asked.output_tokens * millions * row.output_factor, asked.prefix_cache_hit
    return prompts * (1 - hit) * row.usd_per_million_input, prompts * hit * cached, answers * row.usd_per_million_output


def _seconds(fit: Fit, qps: float, in_flight: float, most: int) -> tuple[float, float, float]:
    """Engine seconds per second that new prompt tokens, cached ones and answers take."""
    n, mix, chunk = min(max(in_flight, 1.0), most), fit.mix, fit.curves.batched_tokens
    step = float(np.interp(n, fit.curves.n, fit.curves.step_s[0]))
    prompt, alone = (float(fit.curves.prompt_s(mix.mean_input)[0, 0]), 1.0)
    if mix.cached:
        is_chunked, once = fit.curves.whole_prompt_s is None, np.array([1.0])
        bare = replace(mix, input_tokens=mix.input_tokens * (1 - mix.cached), cached=0.0, law=None)
        short, long = (step_curves(fit.replica, m, fit.coefficients, once, chunk, is_chunked).prompt_s(m.mean_input)[0, 0] for m in (bare, mix))
        alone = min(float(short / long), 1.0)
    other = (1 - alone) / 2  # attention between new and cached tokens is of both
    return qps * prompt * (1 - other), qps * prompt * other, qps * mix.mean_output * step / n


def _stated_split(notes: Notes, stated: UnitCosts | None, parts: list[tuple[Units, Workload, float]], where: str) -> None:
    """Dollars per hour of each kind, and per million tokens and thousand requests of it."""
    if stated is None:
        notes.add(where, "does not state what its tokens cost")
        return
    new, cached, answers = (sum(p[k] for p, _, _ in parts) for k in range(3))
    hourly = [q * 3600 for _, _, q in parts]
    hits = sum(h * a.input_tokens * a.prefix_cache_hit for h, (_, a, _) in zip(hourly, parts, strict=True))
    prompts = sum(h * a.input_tokens for h, (_, a, _) in zip(hourly, parts, strict=True)) - hits
    written = sum(h * a.output_tokens for h, (_, a, _) in zip(hourly, parts, strict=True))
    right = UnitCosts(
        usd_per_hour=new + cached + answers,
        input_usd_per_hour=new,
        cached_input_usd_per_hour=cached,
        output_usd_per_hour=answers,
        usd_per_million_input_tokens=new / prompts * 1e6 if prompts else None,
        usd_per_million_cached_input_tokens=cached / hits * 1e6 if hits else None,
        usd_per_million_output_tokens=answers / written * 1e6,
        usd_per_thousand_requests=(new + cached + answers) / sum(hourly) * 1e3,
    )
    notes.match(stated, right, where)


def _per_gpu(case: Account, purchase: int) -> float:
    p = case.plan.purchases[purchase]
    offer = offer_of(case, p)
    return offer.usd_per_hour / offer.gpus_per_instance if offer else p.usd_per_hour / max(p.gpus_held, 1)


def _traffic(plan: Plan) -> Units:
    """Requests, answer tokens and all tokens of the user per hour, by the hour in the mean; what a model writes in reasoning is none of them."""
    if plan.periods and any(w.demand.kind == "concurrency" for w in plan.workloads):
        return 0.0, 0.0, 0.0  # whose rates over the hours nobody worked out
    rates = [3600 * (sum(w.rates) / len(w.rates) if w.rates else w.qps) for w in plan.workloads]
    output = sum(n * (w.output_tokens or 0.0) for n, w in zip(rates, plan.workloads, strict=True))
    return sum(rates), output, output + sum(n * (w.input_tokens or 0.0) for n, w in zip(rates, plan.workloads, strict=True))
