"""Costs in the plan's units, and the same traffic at hosted APIs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from planner.candidates.hosted import api_cost
from planner.catalog.catalog import Catalog
from planner.catalog.records import ApiPrice
from planner.performance.lengths import met_by, refused_share
from planner.performance.replicas import Floats
from planner.performance.work import Work
from planner.result.plan import Cost, Deployment, HostedApi, PlanWorkload, Purchase, UnitCosts
from planner.scenario.units import HOURS_PER_MONTH
from planner.scenario.workload import Workload

SECONDS_PER_HOUR = 3600.0


def cost_of(
    purchases: Sequence[Purchase], deployments_usd_per_hour: float, traffic: Sequence[tuple[float, float, float]], api_usd_per_hour: float = 0.0
) -> Cost:
    """Cost of what is held and of APIs, and per unit of the user's traffic: (requests/s, input tokens, answer tokens) of each workload."""
    held = sum(p.usd_per_hour for p in purchases)
    return cost_at(held + api_usd_per_hour, traffic, deployments_usd_per_hour + api_usd_per_hour, api_usd_per_hour)


def cost_at(usd_per_hour: float, traffic: Sequence[tuple[float, float, float]], used_usd_per_hour: float | None = None, api_usd_per_hour: float = 0.0) -> Cost:
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
        api_usd_per_hour=api_usd_per_hour,
        idle_usd_per_hour=usd_per_hour - used_usd_per_hour if used_usd_per_hour is not None else 0.0,
    )


def split_by_work(
    deployments: Sequence[Deployment],
    workloads: Sequence[PlanWorkload],
    asked: Sequence[Workload],
    work: Mapping[tuple[int, int], Work],
    usd_per_hour: float,
    paid: Sequence[tuple[int, tuple[float, float, float]]] = (),
) -> tuple[tuple[PlanWorkload, ...], UnitCosts]:
    """The workloads with their shares of the cost, and all of it together. usd_per_hour: of what is held. ``work``: by deployment and workload.
    ``paid``: $/h that APIs take of a workload, for new input, cached input and output.

    A deployment's cost goes to the workloads it serves, and to their prompts and answers, by the time its engines work on each; of a disaggregated
    unit, to prompts and answers by the engines of either role. What is idle is borne in proportion.
    """
    spread = usd_per_hour / sum(d.usd_per_hour for d in deployments) if deployments else 0.0
    parts = np.zeros((len(workloads), 3))  # $/h of new prompt tokens, cached ones, answers
    for w, part in paid:
        parts[w] += part
    for i, d in enumerate(deployments):
        served = [(w, r.qps, work[i, w]) for w, got in enumerate(workloads) for r in got.routing if r.deployment == i]
        seconds = np.array([[q * t.prompt_s, q * t.cached_s, q * t.answer_s] for _, q, t in served])
        if d.decode_engines:
            seconds[:, :2] *= d.prefill_engines / seconds[:, :2].sum()
            seconds[:, 2] *= d.decode_engines / seconds[:, 2].sum()
        parts[[w for w, _, _ in served]] += d.usd_per_hour * spread * seconds / seconds.sum()
    amounts = [_amounts(got.qps, a) for got, a in zip(workloads, asked, strict=True)]
    found = [got.model_copy(update={"unit_costs": _unit_costs(p, a)}) for got, p, a in zip(workloads, parts, amounts, strict=True)]
    return tuple(found), _unit_costs(parts.sum(axis=0), np.sum(amounts, axis=0))


def _amounts(qps: float, asked: Workload) -> Floats:
    """New prompt tokens, cached ones, answer tokens and requests, per hour."""
    cached = asked.input_tokens * asked.prefix_cache_hit
    return np.array([asked.input_tokens - cached, cached, asked.output_tokens, 1.0]) * qps * SECONDS_PER_HOUR


def _unit_costs(parts: Floats, amounts: Floats) -> UnitCosts:
    whole = float(parts.sum())
    new, cached, output = (float(part / amount * 1e6) if amount > 0 else None for part, amount in zip(parts, amounts, strict=False))
    assert output is not None
    return UnitCosts(
        usd_per_hour=whole,
        input_usd_per_hour=float(parts[0]),
        cached_input_usd_per_hour=float(parts[1]),
        output_usd_per_hour=float(parts[2]),
        usd_per_million_input_tokens=new,
        usd_per_million_cached_input_tokens=cached,
        usd_per_million_output_tokens=output,
        usd_per_thousand_requests=whole / float(amounts[3]) * 1e3,
    )


def hosted_apis(catalog: Catalog, deployments: Sequence[Deployment], workloads: Sequence[PlanWorkload], asked: Sequence[Workload]) -> tuple[HostedApi, ...]:
    """For each workload that is all on GPUs the cheapest API of the model it gets, and the cheapest of any model in the catalogue that clears its floor."""
    found: list[HostedApi] = []
    for workload, got in zip(asked, workloads, strict=True):
        if sum(r.share for r in got.routing) < 1 - 1e-6:
            continue
        main = deployments[max(got.routing, key=lambda r: r.share).deployment]
        same = _cheapest(catalog, workload, got.qps, {_original(catalog, main.checkpoint): (main.mode, main.output_factor)})
        anyone = _cheapest(catalog, workload, got.qps, _good_enough(catalog, workload))
        most = _most_qps(deployments, got)
        if same:
            found.append(_hosted(same, got, True, most))
        if anyone and (not same or anyone[0].checkpoint != same[0].checkpoint):
            found.append(_hosted(anyone, got, False, most))
    return tuple(found)


def _most_qps(deployments: Sequence[Deployment], got: PlanWorkload) -> float:
    """Mean traffic of the workload once all that its deployments serve has grown alike, to an SLO load of 1."""
    found = 0.0
    for r in got.routing:
        d = deployments[r.deployment]
        in_flight = d.capacity_in_flight_per_replica  # its rate at capacity, as rates do not grow with requests in flight
        found += (r.share * got.demand.value * d.capacity_qps_per_replica / in_flight if in_flight else r.qps) / d.slo_load
    return found


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
    cards = {c.id: (card, c.max_context or card.architecture.max_context) for card in catalog.cards for c in card.checkpoint}
    options = []
    for i, a in enumerate(catalog.api_prices):
        if a.checkpoint not in checkpoints:
            continue
        (_, factor), (card, context) = checkpoints[a.checkpoint], cards[a.checkpoint]
        tokens = catalog.tokens_per_stated(card, workload.language, workload.tokenizer) if workload.language else None
        met = met_by(workload, tokens or 1.0)
        if refused_share(met, factor, a.max_context or context) <= workload.max_refused:
            options.append((api_cost(a, met, qps, factor), a.provider, i))
    if not options:
        return None
    cost, _, i = min(options)
    return catalog.api_prices[i], cost


def _hosted(found: tuple[ApiPrice, float], got: PlanWorkload, same: bool, most_qps: float) -> HostedApi:
    price, cost = found
    level = got.qps * got.unit_costs.usd_per_hour / cost if got.unit_costs else None
    return HostedApi(
        workload=got.name,
        model=price.model,
        checkpoint=price.checkpoint,
        provider=price.provider,
        api_name=price.api_name,
        same_model=same,
        usd_per_hour=cost,
        usd_per_million_input=price.usd_per_million_input,
        usd_per_million_output=price.usd_per_million_output,
        usd_per_million_cached_input=price.usd_per_million_cached_input,
        source=price.source,
        as_of=price.as_of.isoformat(),
        break_even_qps=level,
        break_even_utilization=level / most_qps if level is not None else None,
    )
