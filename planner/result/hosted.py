"""What hosted APIs serve of a plan, in the plan's own records."""

from __future__ import annotations

from collections.abc import Sequence

from planner.candidates.hosted import api_parts
from planner.performance.lengths import met_by
from planner.result.deploy import quality_of
from planner.result.plan import HostedShare
from planner.scenario.records import Scenario
from planner.search.chosen import ChosenApi
from planner.search.hosted_hours import ApiByHour
from planner.search.structures import Floats


def hosted_shares(apis: Sequence[ChosenApi], scenario: Scenario) -> tuple[HostedShare, ...]:
    """Each API with its share of the workload."""
    return tuple(_share(a, scenario) for a in apis)


def mean_shares(apis: Sequence[ApiByHour], rates: Floats, scenario: Scenario) -> tuple[HostedShare, ...]:
    """Each API by the hour with its share of the workload over all hours. rates: [workload, hour] of peaks, as the APIs' flows."""
    return tuple(_share(ChosenApi(a.offer, float(sum(a.flows) / rates[a.offer.workload].sum())), scenario) for a in apis)


def parts_of(a: ChosenApi, scenario: Scenario) -> tuple[float, float, float]:
    """$/h of its new input tokens, cached ones and output."""
    w, e = a.offer.workload, a.offer.eligible
    asked = scenario.workload[w]
    return api_parts(a.offer.price, met_by(asked, e.tokens[w]), a.share * asked.rate, e.factor[w])


def _share(a: ChosenApi, scenario: Scenario) -> HostedShare:
    price, w, e = a.offer.price, a.offer.workload, a.offer.eligible
    asked = scenario.workload[w]
    return HostedShare(
        workload=asked.name,
        provider=price.provider,
        model=price.model,
        checkpoint=price.checkpoint,
        mode=e.served.mode,
        api_name=price.api_name,
        share=a.share,
        qps=a.share * asked.rate,
        usd_per_hour=sum(parts_of(a, scenario)),
        usd_per_million_input=price.usd_per_million_input,
        usd_per_million_output=price.usd_per_million_output,
        usd_per_million_cached_input=price.usd_per_million_cached_input,
        output_factor=e.factor[w],
        tokens_per_stated=e.tokens[w],
        quality=quality_of(e, w, scenario, fp8_kv=False),
        limit_qps=a.offer.most_qps,
        source=price.source,
        as_of=price.as_of.isoformat(),
    )


def unknown_service(hosted: Sequence[HostedShare]) -> tuple[str, ...]:
    """That nobody knows how fast these APIs answer, and how much they take where no limit was stated."""
    if not hosted:
        return ()
    names = ", ".join(dict.fromkeys(f"{h.provider} ({h.workload})" for h in hosted))
    unlimited = ", ".join(dict.fromkeys(h.provider for h in hosted if h.limit_qps is None))
    takes = f"; how much {unlimited} takes is not known (--api-limit)" if unlimited else ""
    return (f"the latency of hosted APIs is not known: whether the SLO holds at {names} is for you to measure{takes}",)
