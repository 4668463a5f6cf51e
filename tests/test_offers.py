"""Supply as it is bought: own offers, discounts, currencies, and quotas of providers, regions, zones and GPUs in every combination."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache
from math import inf
from pathlib import Path
from typing import Any

import pytest
from brute_force import enumerated
from conftest import checked
from test_program import cost as program_cost
from test_program import drawn

from planner import Catalog, Plan, Scenario, autoscale, load_catalog, solve
from planner.check.check import check_plan
from planner.errors import PlannerError
from planner.planning.infeasible import Infeasible
from planner.program.problem import Cap, Problem
from planner.report.page import page_sections
from planner.scenario.sources import ask

TINY = Path(__file__).parent / "data" / "tiny"


@cache
def tiny() -> Catalog:
    return load_catalog([TINY], shipped=False)


def asked(qps: float = 20, policy: dict[str, Any] | None = None, **supply: Any) -> Scenario:
    return Scenario.model_validate({"workload": [{"qps": qps, "min_quality": 0.5}], "supply": supply, "policy": policy or {}})


def planned(scenario: Scenario, compare: bool = False) -> Plan:
    return checked(solve(scenario, tiny(), compare=compare), tiny())


def held(plan: Plan, **of: str) -> int:
    return sum(p.gpus_held for p in plan.purchases if all(getattr(p, k) == v for k, v in of.items()))


def refused(scenario: Scenario) -> str:
    with pytest.raises(PlannerError) as error:
        solve(scenario, tiny(), compare=False)
    return str(error.value)


# ---- quotas


def placed(rng: random.Random) -> Problem:
    """A drawn problem whose offers are in two providers' regions and zones, under one to three quotas of any of these and GPUs."""
    question = drawn(rng)
    offers = tuple(replace(o, place=(f"p{o.location}", f"r{rng.randint(0, 1)}", f"z{rng.randint(0, 1)}")) for o in question.offers)
    quotas = []
    for i in range(rng.randint(1, 3)):
        names = rng.sample([*offers[0].place, *offers[-1].place, offers[0].gpu, offers[-1].gpu], rng.randint(1, 3))
        quotas.append(Cap("quota", "gpus", rng.choice([0, 1, 2, 4, 8]), f"{i}", frozenset(names)))
    caps = (*(c for c in question.rules.caps if c.family != "quota"), *quotas)
    return replace(question, offers=offers, rules=replace(question.rules, caps=caps))


@pytest.mark.parametrize("part", range(4))
def test_quotas_of_every_combination_equal_enumeration(part: int) -> None:
    """50 problems of each part, 200 in all, none differs; and quotas bind in many."""
    bound = 0
    for seed, question, expected in enumerated(placed, 5000 * part, 50):
        assert program_cost(question) == pytest.approx(expected, rel=1e-6), seed
        bound += program_cost(replace(question, rules=question.rules.without("quota"))) < expected * (1 - 1e-6)
    assert bound >= 5


def test_a_quota_counts_what_is_all_that_it_names() -> None:
    """The cheapest plan is at neo; its quota moves the rest, or all, to cloud, and one of the GPU there leaves its other GPUs free."""
    free = planned(asked())
    assert held(free, provider="neo") == free.gpus_held > 0
    gpu = free.purchases[0].gpu
    less = planned(asked(quota={"NEO": free.gpus_held - 1}))
    assert held(less, provider="neo") < free.gpus_held
    other = planned(asked(quota={f"any/neo/{gpu}": 0}))
    assert held(other, provider="neo", gpu=gpu) == 0 and list(other.scenario.supply.quota) == [f"neo/any/{gpu}"]
    assert planned(asked(quota={f"cloud/{gpu}": 0})).cost == free.cost
    binds = planned(asked(quota={"neo/any": free.gpus_held}))
    assert any(b.startswith(f"quota of neo/any: {free.gpus_held} of {free.gpus_held}") for b in binds.binding)


def test_what_a_quota_names_is_known_and_on_offer() -> None:
    assert "unknown GPU, provider, region or zone 'neoo' (did you mean 'neo'?)" in refused(asked(quota={"neoo": 3}))
    assert "'neo' and 'cloud' are each a provider: nothing is both" in refused(asked(quota={"neo/cloud": 3}))
    assert "nothing is on offer at 'neo/north', so its quota would limit nothing (neo has any)" in refused(asked(quota={"neo/north": 3}))


def test_no_quota_at_all_is_the_reason_told() -> None:
    with pytest.raises(Infeasible) as error:
        planned(asked(quota={"neo": 0}, providers=["neo"]))
    assert "nothing is on offer" in str(error.value) and "there would be without --provider neo or --quota neo=0" in str(error.value)


# ---- own offers


OWN = {"provider": "mine", "gpu": "gpu-80", "gpus_per_instance": 4, "usd_per_hour": 2.0}


def test_an_own_offer_stands_beside_the_catalogue_and_its_quota_holds() -> None:
    """At $0.50 per GPU it beats the catalogue's $3; of two instances, no more are held."""
    plan = planned(asked(offers=[OWN]))
    (bought,) = plan.purchases
    assert (bought.provider, bought.kind, bought.usd_per_hour) == ("mine", "contract", 2.0 * bought.instances)
    assert "1 own offer" in plan.supply and bought.source == "own offer mine 4 x gpu-80 on_demand"
    few = planned(asked(qps=4000, policy={"max_locations": 2}, offers=[{**OWN, "quota": 2}], gpus=["GPU-80"]))
    assert held(few, provider="mine") == 8 < few.gpus_held
    assert planned(asked(offers=[{**OWN, "usd_per_hour": 2e4}])).cost == planned(asked()).cost


def test_an_own_offer_is_bought_in_its_own_way_and_hidden_by_no_default() -> None:
    assert planned(asked(offers=[{**OWN, "purchase": "reserved_1y"}])).purchases[0].purchase == "reserved_1y"
    asks = planned(asked(offers=[OWN], kinds=["neocloud"]))
    assert held(asks, provider="mine") == 0 and "1 of them of another kind than asked for" in asks.supply
    known = planned(asked(offers=[{**OWN, "provider": "NEO", "zone": "a"}], kinds=["neocloud"], quota={"neo/a": 8}))
    assert held(known, provider="neo", zone="a") > 0 and known.purchases[0].kind == "neocloud"


def test_discounts_are_off_the_catalogues_prices_alone() -> None:
    """A tenth off neo is a tenth off the plan; off a way to buy that it does not use, nothing."""
    free = planned(asked())
    less = planned(asked(discount={"Neo": 0.1}))
    assert less.cost.usd_per_hour == pytest.approx(0.9 * free.cost.usd_per_hour) and "0.1 off the prices of neo" in less.supply
    assert planned(asked(discount={"neo": 0.5, "neo:on_demand": 0.1})).cost == less.cost
    own = planned(asked(offers=[{**OWN, "provider": "neo"}], discount={"neo": 0.1}))
    assert own.purchases[0].usd_per_hour == 2.0 * own.purchases[0].instances
    assert "unknown provider 'noe' (did you mean 'neo'?)" in refused(asked(discount={"noe": 0.1}))
    assert "unknown way to buy 'spot' (neo sells on_demand)" in refused(asked(discount={"neo:spot": 0.1}))


EUROS = "provider,gpu,gpus_per_instance,price_per_hour,currency,discount,quota,date\nmine,GPU-80,4,2.5,EUR,0.2,3,2026-05-01\n"


def test_another_currency_needs_a_stated_rate(tmp_path: Path) -> None:
    """EUR 2.50 less a fifth at 1.10 USD are $2.20."""
    file = tmp_path / "mine.csv"
    file.write_text(EUROS)
    flags: dict[str, object] = {"qps": "20", "min_quality": "0.5", "offers": [str(file)]}
    with pytest.raises(PlannerError, match=r"^--offers: offer 'mine 4 x GPU-80 on_demand' is in EUR: state USD per EUR with --exchange-rate EUR=X$"):
        ask(flags)
    plan = planned(ask({**flags, "exchange_rate": ["EUR=1.1"]}).scenario)
    assert plan.purchases[0].usd_per_hour == pytest.approx(2.2 * plan.purchases[0].instances)
    assert "EUR at 1.1 USD, as stated" in plan.supply and "EUR 2.5 at 1.1 USD, less 0.2" in plan.purchases[0].source
    assert plan.purchases[0].as_of == "2026-05-01"


def test_two_offers_of_one_id_are_refused_with_where_both_stand(tmp_path: Path) -> None:
    csv, toml = tmp_path / "a.csv", tmp_path / "b.toml"
    csv.write_text("id,provider,gpu,usd_per_hour\none,mine,GPU-80,2\n")
    tables = [f'[[offers]]\nid = "{name}"\nprovider = "mine"\ngpu = "GPU-80"\nusd_per_hour = 2\n' for name in ("two", "one")]
    toml.write_text("\n".join(tables))
    with pytest.raises(PlannerError) as error:
        ask({"qps": "20", "offers": [str(csv), str(toml)]})
    assert str(error.value) == f"{toml}:7: a second offer 'one' (the first stands at {csv}:2; give each an id of its own)"


REFUSED = {
    "no price": ({**OWN, "usd_per_hour": None}, "give usd_per_hour, or price_per_hour and its currency"),
    "euros as dollars": ({**OWN, "currency": "EUR"}, "usd_per_hour is in USD, not EUR: write price_per_hour"),
    "more than there are": ({**OWN, "minimum": 3, "quota": 2}, "no fewer than 3 instances and no more than 2 cannot both be"),
    "quota of zero": ({**OWN, "quota": 0}, "greater than 0"),
    "wide": ({**OWN, "max_tp": 8}, "max_tp is more than the 4 GPUs of an instance"),
    "twice": (OWN, "offer 'mine 4 x gpu-80 on_demand' stands twice, as number 1 and 2"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_offers_that_cannot_be_are_refused(case: str) -> None:
    offer, words = REFUSED[case]
    with pytest.raises(ValueError, match=words):
        asked(offers=[OWN, offer] if case == "twice" else [offer])


def test_an_unknown_gpu_and_instances_too_small_are_told() -> None:
    assert "offer 'mine 4 x GPU-8O on_demand': unknown GPU 'GPU-8O' (did you mean 'GPU-80'?)" in refused(asked(offers=[{**OWN, "gpu": "GPU-8O"}]))
    small = asked(offers=[{**OWN, "gpu": "GPU-24", "gpus_per_instance": 1}], providers=["mine"])
    scenario = small.model_copy(update={"workload": (small.workload[0].model_copy(update={"min_quality": 0.7, "slo": {"ttft_p95": 60.0, "tpot_p95": 2.0}}),)})
    assert "fits an instance on offer" in refused(scenario)


def test_the_cheapest_of_own_and_listed_prices_is_the_least_of_each_alone() -> None:
    """Hand-solvable: one location, so the plan is at mine or at neo, whichever is cheaper alone."""
    alone = planned(asked(offers=[{**OWN, "usd_per_hour": 9.0}], providers=["mine"])).cost.usd_per_hour
    listed = planned(asked()).cost.usd_per_hour
    assert planned(asked(offers=[{**OWN, "usd_per_hour": 9.0}])).cost.usd_per_hour == min(alone, listed) < inf


# ---- no fewer than so many


def in_bulk(rng: random.Random) -> Problem:
    """A drawn problem whose offers are sold in no fewer than so many instances, or not at all; of some there are only so many."""
    question = drawn(rng)
    return replace(question, offers=tuple(replace(o, minimum=rng.choice([1, 2, 3, 5]), available=rng.choice([None, None, 5])) for o in question.offers))


@pytest.mark.parametrize("part", range(3))
def test_what_is_sold_in_bulk_costs_as_much_as_by_enumeration(part: int) -> None:
    """30 problems of each part, none differs; and what is sold in bulk makes many dearer."""
    dearer = 0
    for seed, question, expected in enumerated(in_bulk, 7000 * part, 30):
        assert program_cost(question) == pytest.approx(expected, rel=1e-6), seed
        free = replace(question, offers=tuple(replace(o, minimum=1) for o in question.offers))
        dearer += program_cost(free) < expected * (1 - 1e-6)
    assert dearer >= 5


def test_all_or_none_of_a_contract() -> None:
    """Two GPUs carry it, at $1 each, or $3 each at neo. In no fewer than 4 they are $4 and two idle; in no fewer than 7 they cost more than at neo."""
    single = {**OWN, "gpus_per_instance": 1, "usd_per_hour": 1.0}
    costs = {least: planned(asked(qps=40, offers=[{**single, "minimum": least}])) for least in (1, 2, 4, 5, 7)}
    assert {least: plan.cost.usd_per_hour for least, plan in costs.items()} == pytest.approx({1: 2.0, 2: 2.0, 4: 4.0, 5: 5.0, 7: 6.0})
    assert [(p.provider, p.instances, p.gpus_idle, p.minimum) for p in costs[4].purchases] == [("mine", 4, 2, 4)]
    assert "minimum of 4 x 1 x GPU-80 at mine" in costs[4].binding and costs[7].cost == planned(asked(qps=40)).cost
    assert "minimum of 4 x 1 x GPU-80 at mine" in " ".join(str(page_sections(costs[4])).split())


def test_fewer_than_are_sold_is_a_breach() -> None:
    plan = planned(asked(offers=[OWN]))
    (offer,) = plan.scenario.supply.offers
    supply = plan.scenario.supply.model_copy(update={"offers": (offer.model_copy(update={"minimum": plan.purchases[0].instances + 1}),)})
    bulk = plan.model_copy(update={"scenario": plan.scenario.model_copy(update={"supply": supply})})
    assert any("sold are no fewer than" in str(b) for b in check_plan(bulk, tiny()).breaches)


def test_smaller_orders_are_told_where_no_more_can_be_had() -> None:
    """A budget of $2 an hour buys one of the contract's instances, which is sold in no fewer than two."""
    free = planned(asked(offers=[OWN], providers=["mine"]))
    n = free.purchases[0].instances
    with pytest.raises(Infeasible) as error:
        solve(asked(offers=[{**OWN, "minimum": n + 1}], providers=["mine"], policy={"budget": f"{2 * n}/h"}), tiny())
    assert f"{n} x 4 x GPU-80 at mine (sold in no fewer than {n + 1})" in error.value.changes
    assert f"a budget of ${2 * n + 2:.2f}/h (+$2.00)" in error.value.changes


def test_by_the_hour_no_fewer_are_held_in_any_hour() -> None:
    day = {
        "workload": [{"qps": 60, "min_quality": 0.5, "profile": ",".join(["1"] * 12 + ["9"] * 12)}],
        "supply": {"offers": [{**OWN, "minimum": 3}], "providers": ["mine"]},
    }
    plan = autoscale(Scenario.model_validate(day), tiny())
    assert check_plan(plan, tiny()).ok
    counts = {n for t in plan.periods for n in t.instances}
    assert min(counts) == 3


# ---- where data may live


def living(places: list[dict[str, Any]], max_locations: int = 1, **supply: Any) -> Scenario:
    workloads = [{"name": f"w{i}", "qps": 15, "min_quality": 0.5, **place} for i, place in enumerate(places)]
    return Scenario.model_validate({"workload": workloads, "policy": {"max_locations": max_locations}, "supply": supply, "solver": {"gap": 0}})


def where(plan: Plan, workload: int) -> set[str]:
    serving = [plan.deployments[r.deployment] for r in plan.workloads[workload].routing if r.share > 0]
    return {plan.purchases[h.purchase].region for d in serving for h in d.hosts}


def test_data_that_may_be_in_one_place_is_served_there_alone() -> None:
    """cloud north is in the EU and dearer than neo, whose place is unknown: unknown is not in the EU."""
    free, eu = planned(living([{}])), planned(living([{"geographies": ["EU"]}]))
    assert where(free, 0) == {"any"} and where(eu, 0) == {"north"} and eu.cost.usd_per_hour > free.cost.usd_per_hour
    assert planned(living([{"regions": ["north"]}])).cost == eu.cost == planned(living([{}], regions=["north"])).cost
    assert "w0 only in eu" in eu.supply


def test_two_workloads_of_two_places_take_two_locations() -> None:
    """Each alone where it may be costs the sum; one of them free shares the other's place if that is cheaper."""
    asks = [{"regions": ["north"]}, {"regions": ["any"]}]
    both = planned(living(asks, max_locations=2))
    assert (where(both, 0), where(both, 1)) == ({"north"}, {"any"})
    assert both.cost.usd_per_hour == pytest.approx(sum(planned(living([place])).cost.usd_per_hour for place in asks))
    free = planned(living([asks[0], {}], max_locations=2))
    assert where(free, 0) == {"north"} and free.cost.usd_per_hour <= both.cost.usd_per_hour
    moved = free.model_copy(update={"scenario": living([{"regions": ["any"]}, {}], max_locations=2)})
    assert any("is served in north, may be in any" in str(b) for b in check_plan(moved, tiny()).breaches)


def test_one_location_for_data_of_two_places_is_the_reason_told() -> None:
    with pytest.raises(Infeasible) as error:
        planned(living([{"regions": ["north"]}, {"regions": ["any"]}]))
    assert "no one location may have the data of w0 and w1, and one is allowed" in str(error.value)
    assert "2 locations instead of 1" in error.value.changes
    with pytest.raises(Infeasible, match="nothing is on offer where its data may be"):
        planned(living([{"regions": ["north"]}], providers=["neo"]))
    assert "--data-region: unknown region 'norht' (did you mean 'north'?)" in refused(living([{"regions": ["norht"]}]))


def test_where_nothing_is_on_offer_no_location_is_to_blame() -> None:
    with pytest.raises(Infeasible, match="no price matches the supply asked for") as error:
        planned(asked(purchase=["spot"]))
    assert "location" not in str(error.value)


def test_a_site_of_ones_own_is_where_its_name_says() -> None:
    own = {"name": "berlin", "gpu": "GPU-80", "count": 64, "gpus_per_node": 8, "usd_per_hour": 0.1}
    assert held(planned(living([{"regions": ["north"]}], owned=[own])), provider="berlin") == 0
    assert held(planned(living([{"regions": ["berlin"]}], owned=[own])), provider="berlin") > 0


@pytest.mark.parametrize("seed", range(12))
def test_the_cheapest_plan_with_places_is_that_of_the_best_split_of_workloads(seed: int) -> None:
    """Enumerated: workloads share a place or not, so the optimum is the least over the offers each may use, one question per assignment."""
    rng = random.Random(seed)
    options = [{"regions": ["north"]}, {"regions": ["any"]}, {}, {"geographies": ["eu"]}]
    asks = [{**rng.choice(options), "qps": rng.choice([2, 9, 30])} for _ in range(2)]
    may = [["north"] if a.get("regions") == ["north"] or "geographies" in a else ["any"] if "regions" in a else ["north", "any"] for a in asks]
    plain = [{"qps": a["qps"]} for a in asks]

    def least(one: str, other: str) -> float:
        if one == other:
            return planned(living(plain, max_locations=2, regions=[one])).cost.usd_per_hour
        return planned(living(plain[:1], regions=[one])).cost.usd_per_hour + planned(living(plain[1:], regions=[other])).cost.usd_per_hour

    expected = min(least(one, other) for one in may[0] for other in may[1])
    assert planned(living(asks, max_locations=2)).cost.usd_per_hour == pytest.approx(expected, rel=1e-6)


# ---- the network


def test_the_network_is_part_of_what_users_may_wait() -> None:
    """TTFT of 2 s with 500 ms of network is 1.5 s at the servers, and E2E of 30 s is 29.5 s; the pace of answers is as it was."""
    slo, near = {"ttft_p95": "2s", "tpot_p95": "50ms", "e2e_p95": "30s"}, {"ttft_p95": "1500ms", "tpot_p95": "50ms", "e2e_p95": "29500ms"}
    far = planned(living([{"slo": slo, "network": "500ms"}]))
    same = planned(living([{"slo": near}]))
    assert far.cost == same.cost and far.deployments[0].replicas == same.deployments[0].replicas
    assert [s.limit_ms for s in far.workloads[0].slo] == [1500.0, 50.0, 29500.0]
    assert any("network 500ms" in d for d in far.defaults)
    assert "and 500ms of network in TTFT and E2E" in " ".join(str(page_sections(far)).split())
    stated = far.model_copy(update={"scenario": living([{"slo": slo}])})
    assert any("states the SLO" in str(b) for b in check_plan(stated, tiny()).breaches)


def test_a_network_that_takes_all_of_a_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="the network alone takes 2s, all that TTFT p95 of 'w0' allows, or more"):
        living([{"network": "2s"}])


def test_a_rate_never_needs_less_for_a_longer_way() -> None:
    costs = [planned(living([{"qps": 40, "slo": {"ttft_p99": "300ms"}, "network": f"{ms}ms"}])).cost.usd_per_hour for ms in (1, 60, 120)]
    assert costs == sorted(costs)


# ---- a network that differs by region


def reached(near: dict[str, Any], slo: dict[str, str], qps: float = 40, more: dict[str, Any] | None = None, **supply: Any) -> Scenario:
    workload = {"qps": qps, "min_quality": 0.5, "slo": {"tpot_p95": "none", **slo}, "network_at": near, **(more or {})}
    return Scenario.model_validate({"workload": [workload], "supply": supply})


def test_a_cheap_region_far_away_is_traded_against_the_limit() -> None:
    """North is dearer than the region of neo. From 700 ms away, a p99 of 1 s leaves 300 ms there, and 990 ms up north: the cheaper of both, planned apart."""
    slo = {"ttft_p99": "1s"}
    for far in ("20ms", "700ms", "900ms"):
        plan = planned(reached({"north": "10ms", "any": far}, slo))
        apart = {
            name: planned(
                Scenario.model_validate(
                    {"workload": [{"qps": 40, "min_quality": 0.5, "slo": {"tpot_p95": "none", **slo}, "network": seconds}], "supply": {"regions": [name]}}
                )
            )
            for name, seconds in (("north", "10ms"), ("any", far))
        }
        best = min(apart, key=lambda name: apart[name].cost.usd_per_hour)
        assert plan.cost == apart[best].cost and where(plan, 0) == {best}, far
        (got,) = plan.workloads
        assert got.network_ms == {"north": 10.0, "any": float(far.removesuffix("ms"))}[best]
        assert got.slo[0].limit_ms == pytest.approx(1000 - got.network_ms) and "of network in TTFT and E2E" in " ".join(str(page_sections(plan)).split())


def test_a_region_whose_network_is_not_stated_is_left_out_or_at_the_stated_rest() -> None:
    slo = {"ttft_p95": "2s"}
    north = planned(reached({"north": "10ms"}, slo), compare=True)
    assert where(north, 0) == {"north"} and any("1 region left out" in n for n in north.notes)
    rest = planned(reached({"north": "10ms"}, slo, more={"network": "50ms"}))
    assert where(rest, 0) == {"any"} and rest.workloads[0].network_ms == 50.0


def test_nothing_is_served_from_further_away_than_counted() -> None:
    plan = planned(reached({"north": "10ms", "any": "50ms"}, {"ttft_p95": "2s"}))
    workload = plan.scenario.workload[0].model_copy(update={"network_at": {"north": 0.01, "any": 0.08}})
    moved = plan.model_copy(update={"scenario": plan.scenario.model_copy(update={"workload": (workload,)})})
    assert any("is served from any, 80 ms away, and counts 50.0 ms" in str(b) for b in check_plan(moved, tiny()).breaches)


def test_what_cannot_be_reached_or_is_unknown_is_told() -> None:
    slo = {"ttft_p95": "2s"}
    assert "--network-at: unknown region 'norht' (did you mean 'north'?)" in refused(reached({"norht": "10ms"}, slo))
    with pytest.raises(ValueError, match="the network alone takes 2s, all that TTFT p95 of 'requests' allows, or more"):
        reached({"north": "2s", "any": "3s"}, slo)
    assert where(planned(reached({"north": "10ms", "any": "3s"}, slo)), 0) == {"north"}
    assert "not planned with a network that differs by region" in refused(
        reached({"north": "10ms"}, slo).model_copy(update={"policy": asked(policy={"shed": True}).policy})
    )


def test_two_workloads_that_are_near_different_regions() -> None:
    """Each counts its own way: w0 is next to north, w1 next to neo, and one location serves both."""
    ways = [{"north": "10ms", "any": "90ms"}, {"north": "80ms", "any": "5ms"}]
    workloads = [{"name": f"w{i}", "qps": 15, "min_quality": 0.5, "network_at": way} for i, way in enumerate(ways)]
    plan = planned(Scenario.model_validate({"workload": workloads}))
    assert where(plan, 0) == where(plan, 1) == {"any"} and [w.network_ms for w in plan.workloads] == [90.0, 5.0]


def test_ways_by_region_are_asked_by_a_flag_that_is_repeated() -> None:
    (workload,) = ask({"qps": "20", "network_at": ["north=10ms", "any=1s"], "network_latency": "60ms"}).scenario.workload
    assert [workload.network_to(place) for place in ("north", "any", "south")] == [0.01, 1.0, 0.06]
    with pytest.raises(PlannerError, match="--network-at"):
        ask({"qps": "20", "network_at": ["north=10"]})
