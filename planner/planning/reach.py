"""Where to serve from, where the network differs by region: the cheapest plan over how far its regions may be, each time with the limits that this leaves.

Of a plan in several regions the furthest counts for all that they serve, so no request waits longer than stated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf

from planner.candidates.offers import allowed, with_known_names
from planner.catalog.catalog import Catalog
from planner.errors import ScenarioError, TimeUp
from planner.planning.infeasible import Infeasible
from planner.result import remarks
from planner.result.plan import Plan
from planner.scenario.apply import catalog_for
from planner.scenario.change import assumed, with_workloads
from planner.scenario.records import Scenario
from planner.scenario.units import format_lead

Far = tuple[float, ...]  # seconds of network that each workload counts, in the order of the scenario
MOST = 64  # different ways to be near and far that are looked at


def by_reach(scenario: Scenario, catalog: Catalog, solve: Callable[[Scenario], Plan], cost: Callable[[Scenario], float]) -> Plan:
    """The cheapest plan from regions no further than some network, over all that are stated; it says what others cost.

    cost: $/h of the cheapest plan, infinite without one. Raises Infeasible where there is none from anywhere, ScenarioError, TimeUp.
    """
    for asked, what in ((scenario.policy.shed, "who goes short"), (scenario.objective.maximize, "the most that can be served")):
        if asked:
            raise ScenarioError(f"{what} is not planned with a network that differs by region yet", "workload.network_at", "leave one of the two out")
    scenario = with_known_names(scenario, catalog)
    places = _places(scenario, catalog)
    fars = _fars(scenario, places.values())
    costs, late = dict[Far, float](), list[Far]()
    for far in fars:
        try:
            costs[far] = cost(_within(scenario, places, far))
        except TimeUp:
            late.append(far)
    if not costs:
        raise TimeUp()
    best = min(costs, key=lambda far: costs[far])  # of equals the nearest
    try:
        plan = solve(_within(scenario, places, best))
    except Infeasible as error:
        what = f"{error.what}; the network left what is {_words(scenario, best)} away, and from nowhere stated is there a plan"
        raise Infeasible(what, error.changes, error.excluded, error.conflict, error.together, error.unsearched) from None
    return _told(plan, scenario, best, _compared(scenario, costs, best, late, sum(far is None for far in places.values())))


def _places(scenario: Scenario, catalog: Catalog) -> dict[str, Far | None]:
    """Regions and sites on offer with how far they are from each workload; None where that is not stated of all."""
    supposed = catalog_for(catalog, scenario)
    names = sorted({o.provider if o.is_owned else o.region for o in allowed(supposed.offers, scenario.supply, supposed.newest_price)})
    found: dict[str, Far | None] = {}
    for name in names:
        ways = [w.network_to(name) for w in scenario.workload]
        found[name] = tuple(s for s in ways if s is not None) if None not in ways else None
    return found


def _fars(scenario: Scenario, ways: Iterable[Far | None]) -> list[Far]:
    """How far the regions of a plan may be, the nearest first: as any of them is, or several together, as long as no limit is used up.

    Raises ScenarioError where nothing can be reached, or there are too many.
    """
    known = {far for far in ways if far is not None}
    if not known:
        raise ScenarioError("nothing is on offer in a region that a network is stated of", "workload.network_at", "of all others: --network-latency")
    able = {far for far in known if _leaves_something(scenario, far)}
    if not able:
        raise ScenarioError("the network takes all that a limit allows, from every region on offer", "workload.network_at")
    found = set(able)
    for far in able:
        found |= {tuple(map(max, far, other)) for other in found}
        if len(found) > MOST:
            raise ScenarioError(f"regions are near and far in more than {MOST} ways", "workload.network_at", "state round numbers, or fewer regions")
    return sorted(found, key=lambda far: (sum(far), far))


def _leaves_something(scenario: Scenario, far: Far) -> bool:
    return all(limit.seconds > s for w, s in zip(scenario.workload, far, strict=True) for limit in w.limits if limit.bounds_wait)


def _within(scenario: Scenario, places: dict[str, Far | None], most: Far) -> Scenario:
    """The question from regions and sites no further than this, with this network."""
    near = {name for name, far in places.items() if far is not None and all(s <= m for s, m in zip(far, most, strict=True))}
    workloads = (w.model_copy(update={"network": m, "network_at": {}}) for w, m in zip(scenario.workload, most, strict=True))
    owned = tuple(o for o in scenario.supply.owned if o.name in near)
    change: dict[str, object] = {"owned": owned}
    if near != set(places):
        rented = tuple(sorted(near - {o.name for o in scenario.supply.owned}))
        change |= {"regions": rented} if rented else {"kinds": ("owned",)}
    return assumed(with_workloads(scenario, workloads), "supply", **change)


def _compared(scenario: Scenario, costs: dict[Far, float], best: Far, late: Sequence[Far], unknown: int) -> list[str]:
    """What the plan would cost from other regions, and what was left out, in words."""
    others = [f"{_words(scenario, far)} {f'${usd:,.2f}/h' if usd < inf else 'no plan'}" for far, usd in costs.items() if far != best]
    found = [f"served from within {_words(scenario, best)}" + (f"; from within {', '.join(others)}" if others else "")]
    found += [f"the time limit left out what is {' and '.join(_words(scenario, far) for far in late)} away"] if late else []
    left_out = f"{unknown} {'regions' if unknown > 1 else 'region'} left out, as no network to there is stated (--network-at; --network-latency for all others)"
    return found + ([left_out] if unknown else [])


def _words(scenario: Scenario, far: Far) -> str:
    if len(far) == 1:
        return format_lead(far[0])
    return " and ".join(f"{format_lead(s)} of {w.name}" for w, s in zip(scenario.workload, far, strict=True))


def _told(plan: Plan, scenario: Scenario, far: Far, notes: Sequence[str]) -> Plan:
    """The plan for the question as it was asked, saying how far its regions are taken to be."""
    of = {w.name: (w, s) for w, s in zip(scenario.workload, far, strict=True)}
    as_asked = {w.name: of[w.escalated_from or w.name] for w in plan.scenario.workload}
    back = (w.model_copy(update={"network": a.network, "network_at": a.network_at}) for w in plan.scenario.workload for a, _ in (as_asked[w.name],))
    asked = with_workloads(plan.scenario, back).model_copy(update={"supply": scenario.supply})
    counted = (w.model_copy(update={"network_ms": s * 1e3}) if a.network_at else w for w in plan.workloads for a, s in (as_asked[w.name],))
    supply = remarks.supply_line(asked)
    told = {
        "scenario": asked,
        "workloads": tuple(counted),
        "supply": supply,
        "defaults": tuple(supply if d == plan.supply else d for d in plan.defaults),
        "notes": (*notes, *plan.notes),
    }
    return plan.model_copy(update=told)
