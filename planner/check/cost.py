"""Checks the money to the cent: what is held at the catalogue's prices, shares of it, and unit costs over the user's own traffic."""

from __future__ import annotations

from planner.check.case import Case
from planner.check.findings import Finding, Notes, same, same_money
from planner.check.supply import offer_of
from planner.plan import Cost
from planner.scenario.units import HOURS_PER_MONTH

Units = tuple[float, float, float]


def cost(case: Case) -> Finding:
    """Cost per hour, month and year; shares and idle; unit costs."""
    notes, plan = Notes("cost"), case.plan
    right = sum((o.usd_per_hour if (o := offer_of(case, p)) else p.usd_per_hour / p.instances) * p.instances for p in plan.purchases)
    periods(notes, plan.cost, right)
    _shares(notes, case)
    requests, output, total = _traffic(case)
    unit_costs(notes, plan.cost, requests, output, total)
    per_million = f", ${plan.cost.usd_per_million_output_tokens:.4f} per million output tokens" if plan.cost.usd_per_million_output_tokens is not None else ""
    return notes.finding(f"cost: ${right:,.2f}/h for {plan.gpus_held} GPUs held, shares and idle add up to the cent{per_million}")


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


def _shares(notes: Notes, case: Case) -> None:
    """Each deployment pays for the GPUs it uses; what nobody uses is idle; together they are the cost."""
    plan = case.plan
    for i, d in enumerate(plan.deployments):
        right = sum(_per_gpu(case, h.purchase) * d.gpus_per_replica * h.replicas for h in d.hosts)
        notes.require(same_money(d.usd_per_hour, right), case.where(i), f"states a share of ${d.usd_per_hour:.4f}/h, its GPUs cost ${right:.4f}")
    idle = plan.cost.idle_usd_per_hour
    whole = sum(d.usd_per_hour for d in plan.deployments) + idle
    notes.require(idle >= -1e-6, "plan", f"states ${idle:.4f}/h idle")
    notes.require(same_money(whole, plan.cost.usd_per_hour), "plan", f"shares and idle add up to ${whole:.4f}/h, the cost is ${plan.cost.usd_per_hour:.4f}")


def _per_gpu(case: Case, purchase: int) -> float:
    p = case.plan.purchases[purchase]
    offer = offer_of(case, p)
    return offer.usd_per_hour / offer.gpus_per_instance if offer else p.usd_per_hour / max(p.gpus_held, 1)


def _traffic(case: Case) -> Units:
    """Requests, answer tokens and all tokens of the user per hour; what a model writes in reasoning is none of them."""
    requests = output = total = 0.0
    for w, (got, asked) in enumerate(zip(case.plan.workloads, case.scenario.workload, strict=True)):
        hourly = sum(case.qps(w, i) for i in {r.deployment for r in got.routing}) * 3600
        requests += hourly
        output += hourly * asked.output_tokens
        total += hourly * (asked.input_tokens + asked.output_tokens)
    return requests, output, total
