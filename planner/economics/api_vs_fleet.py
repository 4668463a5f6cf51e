"""Where a fleet breaks even with a hosted API: the cheapest of each over volume, and the best of both when what overflows may go to an API."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from planner.candidates.eligibility import eligibility
from planner.candidates.hosted import HostedOffer, hosted_offers
from planner.catalog.catalog import Catalog
from planner.economics.runs import HERE, Done, Where, least_cost, quietly, side_by_side
from planner.errors import ScenarioError
from planner.scenario.apply import catalog_for
from planner.scenario.change import assumed, with_workloads, without_apis
from planner.scenario.records import Scenario
from planner.search.survey_cache import SurveyCache

CLOSE = 1e-4  # relative: a break-even is known to this


@dataclass(frozen=True)
class Volume:
    """$/h at one rate: the cheapest fleet (infinite where nothing serves), the cheapest API, and the best with both."""

    qps: float
    fleet_usd_per_hour: float
    api_usd_per_hour: float
    best_usd_per_hour: float


@dataclass(frozen=True)
class ApiVsFleet:
    """The curve. ``break_even_qps``: the lowest rate above all asked at which the API is cheaper, at which the fleet costs no more; None where the API
    is cheaper at the highest rate; 0 where the fleet is at every rate asked."""

    workload: str
    offer: HostedOffer
    volumes: tuple[Volume, ...]
    break_even_qps: float | None


def api_vs_fleet(scenario: Scenario, catalog: Catalog, rates: Sequence[float], where: Where = HERE, done: Done = quietly) -> ApiVsFleet:
    """Fleet, API and both at each of the rates, rising, of the only workload. Without --api, what overflows may.

    Raises ScenarioError for several workloads, for one in flight, and where no API may serve.
    """
    if len(scenario.workload) != 1:
        raise ScenarioError(f"a volume is of one workload, and there are {len(scenario.workload)}", "workload")
    asked = assumed(scenario, "policy", api="overflow" if scenario.policy.api == "none" else scenario.policy.api)
    asked = Scenario.model_validate(asked.model_dump(mode="json"))  # with all that --api asks of a scenario
    offers = hosted_offers(eligibility(asked, catalog), assumed(asked, "policy", api="all", max_pools=None, mix=False), catalog_for(catalog, asked).api_prices)
    unlimited = [o for o in offers if (o.most_qps or inf) >= rates[-1] * asked.workload[0].burst_factor]
    if not unlimited:
        raise ScenarioError("no hosted API in the catalogue may serve this workload at every rate", "policy.api", "see its floor, --model and --api-limit")
    offer, cache = min(unlimited, key=lambda o: (o.usd_per_qps, o.price.provider)), where.cache(catalog)

    def at(rate: float) -> Volume:
        fleet, both = (least_cost(_at(s, rate), cache) for s in (without_apis(asked), asked))
        return Volume(rate, fleet, rate * offer.usd_per_qps, min(both, fleet, rate * offer.usd_per_qps))

    volumes = tuple(side_by_side(at, rates, where.workers, done))
    return ApiVsFleet(asked.workload[0].name, offer, volumes, _break_even(without_apis(asked), offer.usd_per_qps, volumes, cache))


def _at(scenario: Scenario, rate: float) -> Scenario:
    return with_workloads(scenario, (w.at_rate(rate) for w in scenario.workload))


def _break_even(scenario: Scenario, usd_per_qps: float, volumes: Sequence[Volume], cache: SurveyCache) -> float | None:
    """From the first rate at which the fleet is no dearer, and stays so, down: a fleet that serves v at $F serves F/a too, where the API at $a per req/s
    costs as much. Where that is a smaller fleet's rate, it goes on from there."""
    last = next((i for i in reversed(range(len(volumes))) if volumes[i].fleet_usd_per_hour > volumes[i].api_usd_per_hour), -1)
    if last == len(volumes) - 1:
        return None
    if last < 0:
        return 0.0
    rate, usd = volumes[last + 1].qps, volumes[last + 1].fleet_usd_per_hour
    while (lower := max(usd / usd_per_qps, volumes[last].qps)) < rate * (1 - CLOSE):
        rate, usd = lower, least_cost(_at(scenario, lower), cache)
    return rate
