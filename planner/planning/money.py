"""Costs in the plan's units, and the same traffic at hosted APIs."""

from __future__ import annotations

from collections.abc import Sequence

from planner.catalog.catalog import Catalog
from planner.catalog.records import ApiPrice
from planner.performance.lengths import refused_share
from planner.plan import Cost, Deployment, HostedApi, PlanWorkload, Purchase
from planner.scenario.records import Workload
from planner.scenario.units import HOURS_PER_MONTH

SECONDS_PER_HOUR = 3600.0


def cost_of(purchases: Sequence[Purchase], deployments_usd_per_hour: float, traffic: Sequence[tuple[float, float, float]]) -> Cost:
    """Cost of what is held, and per unit of the user's traffic: (requests/s, input tokens, answer tokens) of each workload."""
    return cost_at(sum(p.usd_per_hour for p in purchases), traffic, deployments_usd_per_hour)


def cost_at(usd_per_hour: float, traffic: Sequence[tuple[float, float, float]], used_usd_per_hour: float | None = None) -> Cost:
    """The cost record of an hourly cost. Unit costs are left out where lengths are unknown."""
    requests = sum(q for q, _, _ in traffic) * SECONDS_PER_HOUR
    output = sum(q * o for q, _, o in traffic) * SECONDS_PER_HOUR
    total = sum(q * (i + o) for q, i, o in traffic) * SECONDS_PER_HOUR
    return Cost(
        usd_per_hour=usd_per_hour,
        usd_per_month=usd_per_hour * HOURS_PER_MONTH,
        usd_per_year=usd_per_hour * HOURS_PER_MONTH * 12,
        usd_per_million_output_tokens=usd_per_hour / output * 1e6 if output else None,
        usd_per_million_total_tokens=usd_per_hour / total * 1e6 if total else None,
        usd_per_thousand_requests=usd_per_hour / requests * 1e3 if requests else None,
        idle_usd_per_hour=usd_per_hour - used_usd_per_hour if used_usd_per_hour is not None else 0.0,
    )


def api_cost(price: ApiPrice, workload: Workload, qps: float, output_factor: float) -> float:
    """$/h of a workload at an API: input tokens, and all output tokens that a reasoning model is billed for."""
    per_request = workload.input_tokens * price.usd_per_million_input + workload.output_tokens * output_factor * price.usd_per_million_output
    return per_request * qps * SECONDS_PER_HOUR / 1e6


def hosted_apis(catalog: Catalog, deployments: Sequence[Deployment], workloads: Sequence[PlanWorkload], asked: Sequence[Workload]) -> tuple[HostedApi, ...]:
    """For each workload the cheapest API of the model it gets, and the cheapest of any model in the catalogue that clears its floor."""
    found: list[HostedApi] = []
    for workload, got in zip(asked, workloads, strict=True):
        main = deployments[max(got.routing, key=lambda r: r.share).deployment]
        same = _cheapest(catalog, workload, got.qps, {_original(catalog, main.checkpoint): (main.mode, main.output_factor)})
        anyone = _cheapest(catalog, workload, got.qps, _good_enough(catalog, workload))
        if same:
            found.append(_hosted(same, workload, True))
        if anyone and (not same or anyone[0].checkpoint != same[0].checkpoint):
            found.append(_hosted(anyone, workload, False))
    return tuple(found)


def _original(catalog: Catalog, checkpoint: str) -> str:
    """The unquantised checkpoint that APIs are listed under."""
    return next((c.quantised_from or c.id for card in catalog.cards for c in card.checkpoint if c.id == checkpoint), checkpoint)


def _good_enough(catalog: Catalog, workload: Workload) -> dict[str, tuple[str, float]]:
    """Checkpoints that clear the workload's floor, with mode and output factor."""
    floor = max(workload.min_quality or 0.0, workload.mean_quality or 0.0)
    if not floor or workload.models:  # no floor to clear, or no choice of model
        return {}
    found: dict[str, tuple[str, float]] = {}
    for served in catalog.served:
        quality = catalog.quality(served, workload.quality_metric)
        if quality is not None and quality.score >= floor and served.mode == "instruct":
            found[served.checkpoint.id] = (served.mode, 1.0)
    return found


def _cheapest(catalog: Catalog, workload: Workload, qps: float, checkpoints: dict[str, tuple[str, float]]) -> tuple[ApiPrice, float] | None:
    """The cheapest API whose context takes the requests, as a candidate's must."""
    context = {c.id: c.max_context or card.architecture.max_context for card in catalog.cards for c in card.checkpoint}
    options = [
        (api_cost(a, workload, qps, factor), a.provider, i)
        for i, a in enumerate(catalog.api_prices)
        if a.checkpoint in checkpoints
        for _, factor in (checkpoints[a.checkpoint],)
        if refused_share(workload, factor, a.max_context or context[a.checkpoint]) <= workload.max_refused
    ]
    if not options:
        return None
    cost, _, i = min(options)
    return catalog.api_prices[i], cost


def _hosted(found: tuple[ApiPrice, float], workload: Workload, same: bool) -> HostedApi:
    price, cost = found
    return HostedApi(
        workload=workload.name,
        model=price.model,
        checkpoint=price.checkpoint,
        provider=price.provider,
        api_name=price.api_name,
        same_model=same,
        usd_per_hour=cost,
        usd_per_million_input=price.usd_per_million_input,
        usd_per_million_output=price.usd_per_million_output,
        source=price.source,
        as_of=price.as_of.isoformat(),
    )
