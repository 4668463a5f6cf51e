"""A plan as rows of FOCUS 1.4 (Cost and Usage), a forecast at list prices: one row for each month, purchase, deployment and workload.

Columns are the specification's own, and those of the planner with its prefix for custom ones (x_). What nobody knows before there is a bill (what is
billed and by which account, invoices, SKUs, resources, what a contract makes of the price) stays empty: a row is no bill.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

from planner.deploy.release import plan_identity
from planner.errors import PlannerError
from planner.report.render import csv_text
from planner.result.plan import Deployment, Plan, Purchase

COLUMNS = (
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart", "ChargeCategory", "ChargeClass",
    "ChargeDescription", "ChargeFrequency", "ChargePeriodEnd", "ChargePeriodStart", "ContractedCost", "ContractedUnitPrice", "EffectiveCost",
    "HostProviderName", "InvoiceId", "InvoiceIssuerName", "ListCost", "ListUnitPrice", "PricingCategory", "PricingCurrency", "PricingQuantity",
    "PricingUnit", "RegionId", "ResourceId", "ServiceCategory", "ServiceName", "ServiceProviderName", "ServiceSubcategory", "SkuId", "SkuPriceId",
    "x_PlanId", "x_Scenario", "x_Workload", "x_ModelId", "x_GpuType", "x_TensorParallel", "x_Replicas", "x_InstanceType", "x_OutputTokens",
)  # fmt: skip
UNKNOWN = ("BilledCost", "BillingAccountId", "BillingAccountName", "ContractedCost", "ContractedUnitPrice", "InvoiceId", "ResourceId", "SkuId", "SkuPriceId")
SERVICES = {"aws": "Amazon Elastic Compute Cloud", "azure": "Virtual Machines", "gcp": "Compute Engine"}  # others are not known by name
PRICING = {"on_demand": "Standard", "spot": "Dynamic", "reserved": "Committed"}
MONTH = re.compile(r"(\d{4})-(0[1-9]|1[0-2])")
MOST_MONTHS = 120


@dataclass(frozen=True)
class Months:
    """Whole calendar months from a first one on."""

    first: date
    count: int

    def each(self) -> Iterator[tuple[date, date]]:
        """First day of each month and of the one after."""
        month = self.first
        for _ in range(self.count):
            after = next_month(month)
            yield month, after
            month = after


def next_month(day: date) -> date:
    """The first day of the month after."""
    return date(day.year + day.month // 12, day.month % 12 + 1, 1)


def months(start: str, count: int, today: date) -> Months:
    """Months from "2027-01" on, or from the one after today. Raises PlannerError."""
    match = MONTH.fullmatch(start)
    if start and not match:
        raise PlannerError(f"no month: '{start}'", "--start", "such as 2027-01")
    if not 1 <= count <= MOST_MONTHS:
        raise PlannerError(f"{count} months are asked for", "--months", f"from 1 to {MOST_MONTHS}")
    return Months(date(int(match[1]), int(match[2]), 1) if match else next_month(today), count)


@dataclass(frozen=True)
class _Share:
    """What one workload has of one deployment on one purchase."""

    purchase: Purchase
    deployment: Deployment
    workload: str
    share: float  # of the purchase's cost
    output_tokens_per_hour: float


def focus_of(plan: Plan, over: Months) -> str:
    """The rows as CSV; over all of a month they add up to the plan's cost. Raises PlannerError for a plan by the hour."""
    if plan.periods:
        raise PlannerError("FOCUS rows are of plans that are the same at every hour", "--format", "leave the profile out for the plan that holds the peak")
    rows = [_row(plan, s, first, after) for first, after in over.each() for s in _shares(plan)]
    return csv_text(COLUMNS, [[row.get(name, "") for name in COLUMNS] for row in rows])


def _shares(plan: Plan) -> Iterator[_Share]:
    """Idle GPUs are borne in proportion; of a deployment with several workloads by what engines work on each, where that is known."""
    for i, p in enumerate(plan.purchases):
        hosted = [(d, sum(h.replicas for h in d.hosts if h.purchase == i) * d.gpus_per_replica) for d in plan.deployments]
        used = sum(gpus for _, gpus in hosted)
        for at, (d, gpus) in enumerate(hosted):
            if not gpus:
                continue
            served = [(w, r.qps) for w in plan.workloads for r in w.routing if r.deployment == at]
            weights = [(w.unit_costs.usd_per_hour / w.qps if w.unit_costs else 1.0) * qps for w, qps in served]
            for (w, qps), weight in zip(served, weights, strict=True):
                part = gpus / used * weight / sum(weights)
                here = gpus / d.gpus  # of the deployment
                yield _Share(p, d, w.name, part, qps * here * (w.output_tokens or 0.0) * 3600)


def _row(plan: Plan, s: _Share, first: date, after: date) -> dict[str, object]:
    hours, p, d = (after - first).days * 24, s.purchase, s.deployment
    cost, quantity = round(p.usd_per_hour * s.share * hours, 10), round(p.instances * s.share * hours, 10)
    begin, end = (f"{day.isoformat()}T00:00:00Z" for day in (first, after))
    return {
        "BillingCurrency": "USD", "BillingPeriodStart": begin, "BillingPeriodEnd": end, "ChargePeriodStart": begin, "ChargePeriodEnd": end,
        "ChargeCategory": "Usage", "ChargeFrequency": "Usage-Based",
        "ChargeDescription": f"Forecast at list price of {p.as_of or 'no date'}: {d.replicas} x {d.layout} {d.gpu} for {s.workload}",
        "EffectiveCost": cost, "ListCost": cost, "ListUnitPrice": p.usd_per_hour / p.instances, "PricingQuantity": quantity, "PricingUnit": "Hours",
        "PricingCategory": PRICING.get(p.purchase, "Other"), "PricingCurrency": "USD", "RegionId": "" if p.region == "any" else p.region,
        "HostProviderName": p.provider, "InvoiceIssuerName": p.provider, "ServiceProviderName": p.provider, "ServiceName": SERVICES.get(p.provider, ""),
        "ServiceCategory": "Compute", "ServiceSubcategory": "Virtual Machines", "x_PlanId": plan_identity(plan), "x_Scenario": plan.scenario.name,
        "x_Workload": s.workload, "x_ModelId": d.checkpoint, "x_GpuType": d.gpu, "x_TensorParallel": d.tp, "x_Replicas": d.replicas,
        "x_InstanceType": p.instance_type, "x_OutputTokens": round(s.output_tokens_per_hour * hours),
    }  # fmt: skip
