"""Checks what hosted APIs serve: prices of the catalogue that the scenario admits, the checkpoint's quality, shares, and the money again."""

from __future__ import annotations

from planner.catalog.records import ApiPrice
from planner.check.candidate import COUNTED, begins, longer_than, named
from planner.check.case import Case, in_own_tokens, own_tokens
from planner.check.findings import RELATIVE, Finding, Notes
from planner.check.quality import clears_floor, stated_score, worth
from planner.result.plan import HostedShare
from planner.scenario.workload import Workload


def hosted(case: Case) -> Finding:
    """Every share of an API, and that in every period together they take no more than was allowed."""
    notes, plan, policy = Notes("hosted"), case.plan, case.scenario.policy
    notes.require(not plan.hosted or policy.api != "none", "hosted", "are served by APIs, which were not asked for")
    for row in plan.hosted:
        _share(notes, case, row)
    for got in plan.workloads:
        rows, pools = [h for h in plan.hosted if h.workload == got.name], policy.pools_per_workload
        counted = len([r for r in got.routing if r.share > 0]) + (0 if policy.api == "overflow" or plan.periods else len(rows))
        notes.require(not rows or pools is None or counted <= pools, got.name, f"is served by {counted} deployments and APIs, at most {pools}")
        names = {_original(case, plan.deployments[r.deployment].checkpoint, plan.deployments[r.deployment].mode) for r in got.routing if r.share > 0}
        names |= {(h.checkpoint, h.mode) for h in rows}
        notes.require(not rows or policy.mix or len(names) == 1, got.name, f"is served by {len(names)} models without --mix")
    bursts = {w.name: w.burst_factor for w in case.scenario.workload}
    for provider, most in case.scenario.supply.api_limit.items():
        for p in plan.by_period:
            taken = sum(qps * bursts[h.workload] for h, qps in zip(plan.hosted, p.hosted, strict=True) if h.provider == provider)
            where = f"hour {p.hour}, {provider}" if plan.periods else provider
            notes.require(taken <= most * (1 + RELATIVE), where, f"takes {taken:.6g} requests/s at peaks, at most {most:g}")
    usd = sum(h.usd_per_hour for h in plan.hosted)
    return notes.finding(f"hosted APIs: {len(plan.hosted)} shares at the catalogue's prices, ${usd:,.2f}/h" if plan.hosted else "hosted APIs: none serves")


def _share(notes: Notes, case: Case, row: HostedShare) -> None:
    where = f"API {row.provider} {row.api_name}"
    price = next((a for a in case.catalog.api_prices if (a.provider, a.api_name, a.checkpoint) == (row.provider, row.api_name, row.checkpoint)), None)
    served = next((s for s in case.catalog.served if (s.checkpoint.id, s.mode) == (row.checkpoint, row.mode)), None)
    asked = next((w for w in case.scenario.workload if w.name == row.workload), None)
    if asked and case.plan.periods and asked.mean_quality is not None:  # by the hour a floor on the mean is a floor
        asked = asked.model_copy(update={"min_quality": max(asked.min_quality or 0.0, asked.mean_quality)})
    if price is None or served is None or asked is None:
        notes.add(where, f"is no price of {row.checkpoint} in the catalogue, or serves '{row.workload}', which is not there")
        return
    factor, own, supply = served.output_factor or asked.output_factor or 0.0, own_tokens(served.card, asked, case.catalog), case.scenario.supply
    met, qps = in_own_tokens(asked, own), row.share * asked.rate
    notes.require(0 < row.share <= 1 + RELATIVE, where, f"serves a share of {row.share:g}")
    right = HostedShare(
        workload=asked.name, provider=price.provider, model=price.model, checkpoint=price.checkpoint, mode=served.mode, api_name=price.api_name,
        share=row.share, qps=qps, usd_per_hour=hourly(price, met, qps, factor), usd_per_million_input=price.usd_per_million_input,
        usd_per_million_output=price.usd_per_million_output, usd_per_million_cached_input=price.usd_per_million_cached_input, output_factor=factor,
        tokens_per_stated=own, quality=row.quality, limit_qps=supply.api_limit.get(price.provider), source=price.source, as_of=price.as_of.isoformat(),
    )  # fmt: skip
    notes.match(row, right, where)
    stated_score(notes, case, served, asked, row.quality, where)
    clears_floor(notes, asked, worth(served, asked, case), case.scenario.policy.quality_margin, where)
    context = price.max_context or served.checkpoint.max_context or served.card.architecture.max_context
    notes.require(longer_than(met, factor, context) <= asked.max_refused + COUNTED, where, f"takes no more than {context} tokens of a request")
    notes.require(not supply.api_providers or row.provider in supply.api_providers, where, "its provider was not asked for")
    notes.require(not named(served, case.scenario.policy.exclude_models), where, "the model is excluded")
    notes.require(not asked.models or named(served, asked.models) or begins(served, asked.models), where, f"{asked.name} did not ask for this model")


def _original(case: Case, checkpoint: str, mode: str) -> tuple[str, str]:
    """What APIs list a checkpoint under, and the mode it answers in."""
    origins = {c.id: c.quantised_from or c.id for card in case.catalog.cards for c in card.checkpoint}
    return origins.get(checkpoint, checkpoint), mode


def hourly(price: ApiPrice, asked: Workload, qps: float, factor: float) -> float:
    """$/h of a workload, in the model's own tokens, at an API's price."""
    million = qps * 3600 / 1e6
    cached = price.usd_per_million_input if price.usd_per_million_cached_input is None else price.usd_per_million_cached_input
    prompt = price.usd_per_million_input + asked.prefix_cache_hit * (cached - price.usd_per_million_input)
    return million * (asked.input_tokens * prompt + asked.output_tokens * factor * price.usd_per_million_output)
