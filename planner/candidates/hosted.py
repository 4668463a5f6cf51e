"""Hosted APIs as candidates: which of the catalogue's prices may serve a workload, and what one request per second costs there.

An API is listed under the unquantised checkpoint, as far as its provider says what it serves; its answers count with that score.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from planner.candidates.eligibility import Eligible, context_of, score
from planner.catalog.records import ApiPrice
from planner.performance.lengths import met_by, refused_share
from planner.program.problem import Column
from planner.scenario.records import Scenario
from planner.scenario.workload import Workload

SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True)
class HostedOffer:
    """A hosted API that may serve one workload: the price, whose answers they are, and $/h of one request per second of mean traffic.

    ``beside``: name of the checkpoint whose fleet it may stand beside: the same one, or a quantisation of it.
    """

    price: ApiPrice
    workload: int
    eligible: Eligible
    usd_per_qps: float
    beside: str
    most_qps: float | None = None  # at peaks; None: nobody stated a limit


def api_cost(price: ApiPrice, workload: Workload, qps: float, output_factor: float) -> float:
    """$/h of a workload at an API: input tokens, those that its cache holds at their own price where there is one, and all output tokens
    that a reasoning model is billed for. The workload in the model's own tokens."""
    return sum(api_parts(price, workload, qps, output_factor))


def api_parts(price: ApiPrice, workload: Workload, qps: float, output_factor: float) -> tuple[float, float, float]:
    """The same for new input, cached input and output."""
    list_price, hit = price.usd_per_million_input, workload.prefix_cache_hit
    cached_price = list_price if price.usd_per_million_cached_input is None else price.usd_per_million_cached_input
    each = workload.input_tokens * (1 - hit) * list_price, workload.input_tokens * hit * cached_price
    millions = qps * SECONDS_PER_HOUR / 1e6
    return each[0] * millions, each[1] * millions, workload.output_tokens * output_factor * price.usd_per_million_output * millions


def stands_beside(scenario: Scenario) -> bool:
    """Whether an API may serve a workload beside a fleet, so that the fleet may be of any size."""
    policy = scenario.policy
    return policy.api == "overflow" or (policy.api == "all" and policy.pools_per_workload != 1)


def hosted_offers(everyone: Iterable[Eligible], scenario: Scenario, prices: Iterable[ApiPrice]) -> tuple[HostedOffer, ...]:
    """For each workload and checkpoint the cheapest API that may serve it, and cheaper ones of limited rate; none where none is asked for.

    Where a workload keeps to one checkpoint and an API may stand beside a fleet, one for each quantisation of it too.
    """
    policy, supply = scenario.policy, scenario.supply
    if policy.api == "none":
        return ()
    eligible, found = tuple(everyone), list[HostedOffer]()
    by_checkpoint: dict[str, list[ApiPrice]] = {}
    for price in prices:
        if not supply.api_providers or price.provider in supply.api_providers:
            by_checkpoint.setdefault(price.checkpoint, []).append(price)
    free = policy.mix or not stands_beside(scenario)
    for w in range(len(scenario.workload)):
        for e in eligible:
            here = by_checkpoint.get(e.served.checkpoint.id, [])
            if not here or score(e, w, scenario) < 0:
                continue
            names = (e.name,) if free else _beside(e, w, eligible, scenario)
            for price, usd in _worth_having(here, e, w, scenario):
                found += [HostedOffer(price, w, e, usd, name, supply.api_limit.get(price.provider)) for name in names]
    return tuple(found)


def _beside(e: Eligible, w: int, everyone: Iterable[Eligible], scenario: Scenario) -> tuple[str, ...]:
    """Names of the checkpoint and of those quantised from it that answer in the same mode and may serve."""
    same = (o for o in everyone if o.served.mode == e.served.mode and e.served.checkpoint.id in (o.served.checkpoint.id, o.served.checkpoint.quantised_from))
    return tuple(o.name for o in same if score(o, w, scenario) >= 0)


def _worth_having(prices: Iterable[ApiPrice], e: Eligible, w: int, scenario: Scenario) -> list[tuple[ApiPrice, float]]:
    """The cheapest without a stated limit, and what is limited and cheaper. Only APIs whose context takes the requests."""
    workload, limits, factor = scenario.workload[w], scenario.supply.api_limit, e.factor[w]
    met = met_by(workload, e.tokens[w])
    able = [p for p in prices if refused_share(met, factor, p.max_context or context_of(e.served)) <= workload.max_refused]
    found: list[tuple[ApiPrice, float]] = []
    for price, usd in sorted(((p, api_cost(p, met, 1.0, factor)) for p in able), key=lambda x: (x[1], x[0].provider, x[0].api_name)):
        found.append((price, usd))
        if limits.get(price.provider, inf) >= sum(x.peak for x in scenario.workload):  # it can take everything
            break
    return found


@dataclass(frozen=True)
class Beside:
    """What pruning must know of APIs that may serve beside a fleet: the least $/h of one unit of the first workload's traffic, and by
    [eligible, workload] that of the API which may stand beside a checkpoint, infinite where none may; None: any may stand beside any."""

    usd_per_unit: float
    by_checkpoint: NDArray[np.float64] | None


def beside(offers: Sequence[HostedOffer], everyone: Sequence[Eligible], scenario: Scenario) -> Beside | None:
    """The same of the offers there are; None where every workload is all on fleets or all at an API."""
    if not offers or not stands_beside(scenario):
        return None
    least = min((o.usd_per_qps / scenario.workload[0].burst_factor for o in offers if o.workload == 0), default=inf)
    if scenario.policy.mix:
        return Beside(least, None)
    place = {e.name: i for i, e in enumerate(everyone)}
    found = np.full((len(place), len(scenario.workload)), inf)
    for o in offers:
        found[place[o.beside], o.workload] = min(found[place[o.beside], o.workload], o.usd_per_qps)
    return Beside(least, found)


def column(offer: HostedOffer, scenario: Scenario) -> Column:
    """One API as numbers. Its traffic is paid in the mean, so a unit of peak traffic costs less where peaks are higher."""
    w = offer.workload
    return Column(
        name=f"{offer.price.api_name} at {offer.price.provider}",
        model=offer.eligible.served.card.name,
        checkpoint=offer.beside,
        gpu="",
        gpus=0,
        tiers={},
        shared={},
        offers=(),
        quality={w: score(offer.eligible, w, scenario)},
        usd_per_unit={w: offer.usd_per_qps / scenario.workload[w].burst_factor},
        host=offer.price.provider if offer.most_qps is not None else "",
    )
