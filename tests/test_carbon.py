"""Power and carbon: what plans state, caps on carbon and a price of it, exact in the program, its bounds, pruning and hours; each against other means."""

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
from planner.catalog.records import PowerGrid
from planner.check.check import check_plan
from planner.planning.infeasible import Infeasible
from planner.program.bounds import lower_bounds
from planner.program.places import locations
from planner.program.problem import Cap, Problem

TINY = Path(__file__).parent / "data" / "tiny"
WATTS = {"GPU-24": 72, "GPU-80": 700}  # of the tiny catalogue


def grid(provider: str, region: str, intensity: float | None, pue: float | None = None) -> PowerGrid:
    return PowerGrid(provider=provider, region=region, place=f"{region} of {provider}", g_co2e_per_kwh=intensity, pue=pue, source="invented", licence="none")


@cache
def tiny(cloud: float | None = 50.0, neo: float | None = 800.0, pue: float | None = None) -> Catalog:
    """The tiny catalogue: dear GPUs of clean electricity at cloud, cheap ones of dirty at neo."""
    grids = [grid("cloud", "north", cloud, pue), grid("neo", "any", neo)]
    return replace(load_catalog([TINY], shipped=False), grids={(g.provider, g.region): g for g in grids})


def planned(catalog: Catalog | None = None, qps: float = 5, objective: dict[str, Any] | None = None, **supply: Any) -> Plan:
    policy = supply.pop("policy", {})
    asked = {"workload": [{"qps": qps, "min_quality": 0.55}], "supply": supply, "objective": objective or {}, "policy": policy}
    plan = solve(Scenario.model_validate(asked), catalog or tiny(), compare=False)
    assert plan.power is not None
    return plan


def kg(plan: Plan, intensities: dict[str, float] | None = None, pue: float = 1.0) -> float:
    each = intensities or {"cloud": 50.0, "neo": 800.0}
    return sum(p.gpus_held * WATTS[p.gpu] / 1e3 * pue * each[p.provider] / 1e3 for p in plan.purchases)


# ---- what plans state


def test_every_plan_states_kilowatts_and_carbon_per_hour_and_per_million_tokens() -> None:
    plan = planned()
    p = plan.power
    (bought,) = plan.purchases
    assert p and p.kw == pytest.approx(bought.gpus_held * WATTS[bought.gpu] / 1e3) == p.most_kw
    assert p.kg_co2e_per_hour == pytest.approx(kg(plan)) and p.carbon_usd_per_hour == bought.carbon_usd_per_hour == 0
    million_answers = 5 * 300 * 3600 / 1e6
    assert p.kwh_per_million_output_tokens == pytest.approx(p.kw / million_answers)
    assert p.kg_co2e_per_million_total_tokens == pytest.approx(kg(plan) / million_answers * 300 / 1300)
    assert (p.parts[0].place, p.parts[0].source, p.parts[0].is_pue_known) == ("any of neo", "invented", False)


def test_what_is_not_known_is_not_zero() -> None:
    plan = planned(tiny(neo=None))
    assert plan.purchases[0].provider == "neo" and plan.power and plan.power.kw
    assert plan.power.kg_co2e_per_hour is None and plan.power.kg_co2e_per_million_output_tokens is None
    stated = planned(tiny(neo=None), carbon_intensity=300)
    assert stated.power and stated.power.kg_co2e_per_hour == pytest.approx(stated.power.kw * 0.3) and stated.power.parts[0].place == "as stated"
    assert planned(carbon_intensity=300).power == plan_power(planned())  # what the catalogue knows wins


def plan_power(plan: Plan) -> Any:
    return plan.power


def test_the_pue_is_the_one_stated_else_the_providers_else_that_of_gpus_alone() -> None:
    catalog, rented = tiny(pue=1.2), {"providers": ["cloud"]}
    published, stated, unknown = planned(catalog, **rented), planned(catalog, pue=1.5, **rented), planned(tiny(), **rented)
    assert [p.power.parts[0].pue for p in (published, stated, unknown) if p.power] == [1.2, 1.5, 1.0]
    assert [p.power.parts[0].is_pue_known for p in (published, stated, unknown) if p.power] == [True, True, False]
    assert published.power and unknown.power and published.power.kw == pytest.approx(1.2 * (unknown.power.kw or 0))


def test_owned_racks_have_the_intensity_of_their_owner() -> None:
    owned = {"name": "hall", "gpu": "GPU-80", "count": 8, "gpus_per_node": 8, "sunk": True, "kw": 1.1, "pue": 1.3, "electricity": 0.1, "carbon_intensity": 20}
    plan = planned(owned=[owned])
    held = sum(p.gpus_held for p in plan.purchases)
    assert plan.purchases[0].provider == "hall" and plan.power
    assert plan.power.kw == pytest.approx(held * 1.1 * 1.3) and plan.power.kg_co2e_per_hour == pytest.approx(held * 1.1 * 1.3 * 0.02)
    assert check_plan(plan, tiny()).ok


@pytest.mark.parametrize("change", [{"kw": 9.0}, {"most_kw": 1e-3}, {"kg_co2e_per_hour": 0.01}, {"kg_co2e_per_million_output_tokens": None}, {"parts": ()}])
def test_the_check_derives_it_again(change: dict[str, Any]) -> None:
    plan = planned()
    assert plan.power and check_plan(plan, tiny()).ok
    found = check_plan(plan.model_copy(update={"power": plan.power.model_copy(update=change)}), tiny())
    assert {b.name for b in found.breaches} == {"power"}


# ---- a cap


def test_a_cap_on_carbon_moves_a_plan_to_cleaner_electricity_and_is_named_when_it_binds() -> None:
    free = planned()
    assert free.purchases[0].provider == "neo"
    same = planned(max_carbon=kg(free))
    assert same.cost == free.cost and any(b.startswith("kgCO2e/h in all: ") for b in same.binding)
    capped = planned(max_carbon=kg(free) * 0.5)
    assert kg(capped) <= kg(free) * 0.5 and capped.cost.usd_per_hour > free.cost.usd_per_hour
    assert check_plan(capped, tiny()).ok


def test_what_is_proposed_does_and_a_little_less_does_not() -> None:
    with pytest.raises(Infeasible) as error:
        planned(max_carbon=0.001, qps=60, providers=["neo"])
    change = next(c for c in error.value.changes if "kgCO2e/h in all" in c)
    needed = float(change.split()[0])
    assert kg(planned(max_carbon=needed, qps=60, providers=["neo"])) <= needed + 1e-9
    with pytest.raises(Infeasible):
        planned(max_carbon=needed - 0.01, qps=60, providers=["neo"])


def test_offers_of_unknown_carbon_cannot_be_held_and_that_is_said() -> None:
    catalog = tiny(neo=None)
    capped = planned(catalog, max_carbon=1e6)
    assert capped.purchases[0].provider == "cloud" and capped.excluded["offers of unknown power or carbon"] == 2
    assert any("2 offers left out whose carbon is not known" in n and "--carbon-intensity" in n for n in capped.notes)
    assert planned(catalog, max_carbon=1e6, carbon_intensity=400).cost == planned(catalog).cost
    with pytest.raises(Infeasible, match="nothing is on offer whose power and carbon are known"):
        planned(tiny(None, None), max_carbon=1e6)
    with pytest.raises(Infeasible, match="nothing is on offer whose power and carbon are known"):
        planned(tiny(None, None), objective={"carbon_price": 10})


def test_the_check_counts_carbon_by_itself() -> None:
    plan = planned(max_carbon=50)
    supply = plan.scenario.supply.model_copy(update={"max_carbon": kg(plan) - 0.01})
    found = check_plan(plan.model_copy(update={"scenario": plan.scenario.model_copy(update={"supply": supply})}), tiny())
    assert any(b.name == "limits" and "kgCO2e/h, at most" in b.what for b in found.breaches)


# ---- a price


def test_the_price_at_which_clean_electricity_is_worth_its_rent() -> None:
    """A plan at cloud costs more by d $/h and emits less by k kg/h: it wins from 1000·d/k USD per tonne on."""
    one = {"gpus": ["GPU-24"]}
    dirty, clean = planned(**one), planned(providers=["cloud"], **one)
    turns = 1000 * (clean.cost.usd_per_hour - dirty.cost.usd_per_hour) / (kg(dirty) - kg(clean))
    below, above = (planned(objective={"carbon_price": turns * f}, **one) for f in (0.999, 1.001))
    assert (below.purchases[0].provider, above.purchases[0].provider) == ("neo", "cloud")
    for plan, free, f in ((below, dirty, 0.999), (above, clean, 1.001)):
        charge = turns * f * kg(free) / 1000
        assert plan.power and plan.power.carbon_usd_per_hour == pytest.approx(charge)
        assert plan.cost.usd_per_hour == pytest.approx(free.cost.usd_per_hour + charge) and plan.status == "optimal"
        assert plan.purchases[0].usd_per_hour - plan.purchases[0].carbon_usd_per_hour == pytest.approx(free.purchases[0].usd_per_hour)
        assert check_plan(plan, tiny()).ok


def test_the_budget_is_on_what_is_paid() -> None:
    free = planned(providers=["neo"])
    priced = planned(providers=["neo"], objective={"carbon_price": 5000}, policy={"budget": f"{free.cost.usd_per_hour + 0.001}/h"})
    assert priced.cost.usd_per_hour > 1.5 * free.cost.usd_per_hour and priced.purchases[0].instances == free.purchases[0].instances
    assert any(b.startswith("budget: ") for b in priced.binding) and check_plan(priced, tiny()).ok
    with pytest.raises(Infeasible) as error:
        planned(providers=["neo"], objective={"carbon_price": 5000}, policy={"budget": f"{free.cost.usd_per_hour - 0.01}/h"})
    assert any("a budget of" in c or "$" in c for c in error.value.changes)
    scenario = priced.scenario.model_copy(update={"policy": priced.scenario.policy.model_copy(update={"budget": free.cost.usd_per_hour - 0.01})})
    assert any("paid, at most" in b.what for b in check_plan(priced.model_copy(update={"scenario": scenario}), tiny()).breaches)


def test_a_changed_charge_is_caught() -> None:
    plan = planned(objective={"carbon_price": 1000})
    line = plan.purchases[0].model_copy(update={"carbon_usd_per_hour": 0.0})
    assert {"offers", "power"} <= {b.name for b in check_plan(plan.model_copy(update={"purchases": (line,)}), tiny()).breaches}
    assert "power" in {b.name for b in check_plan(plan.model_copy(update={"power": None}), tiny()).breaches}


def test_a_supposed_rent_leaves_the_price_of_carbon_alone() -> None:
    asked = {"workload": [{"qps": 5, "min_quality": 0.55}], "supply": {"providers": ["neo"]}, "objective": {"carbon_price": 1000}}
    one, two = (solve(Scenario.model_validate({**asked, "what_if": {"price_factor": {"all": f}}}), tiny(), compare=False) for f in (1.0, 2.0))
    assert two.power == one.power
    assert two.cost.usd_per_hour - two.carbon_usd_per_hour == pytest.approx(2 * (one.cost.usd_per_hour - one.carbon_usd_per_hour))


# ---- by the hour


def hourly(catalog: Catalog | None = None, **asked: Any) -> Plan:
    question = {"workload": [{"qps": 20, "min_quality": 0.55, "profile": "m-large"}], "policy": {"startup_lead": "600s"}, **asked}
    return checked(autoscale(Scenario.model_validate(question), catalog or tiny()), catalog or tiny())


def test_hours_state_energy_in_the_mean_with_starts_and_the_most_at_once() -> None:
    plan = hourly()
    assert plan.power and plan.power.kw and plan.power.most_kw
    each = [WATTS[p.gpu] * p.gpus_per_instance / 1e3 for p in plan.purchases]
    drawn_kw = [sum(k * n for k, n in zip(each, t.instances, strict=True)) for t in plan.periods]
    starting = [sum(k * n / 6 for k, n in zip(each, t.started, strict=True)) for t in plan.periods]
    assert plan.power.most_kw == pytest.approx(max(drawn_kw)) and sum(starting) > 0
    assert plan.power.kw == pytest.approx(sum(drawn_kw + starting) / len(plan.periods))


def test_hours_under_a_price_or_a_cap_of_carbon() -> None:
    free = hourly()
    assert {p.provider for p in free.purchases} == {"neo"} and free.power
    dear = hourly(tiny(cloud=5.0), objective={"carbon_price": 1e5})
    assert {p.provider for p in dear.purchases} == {"cloud"}  # where whole instances of 8 GPUs draw power, used or not
    assert dear.carbon_usd_per_hour == pytest.approx(100 * (dear.power.kg_co2e_per_hour or 0) if dear.power else 0)
    most = max(sum(n * p.gpus_per_instance * WATTS[p.gpu] * 0.8 / 1e3 for n, p in zip(t.instances, free.purchases, strict=True)) for t in free.periods)
    capped = hourly(supply={"max_carbon": most * 0.9})
    assert capped.cost.usd_per_hour > free.cost.usd_per_hour
    charged = hourly(objective={"carbon_price": 100}, policy={"startup_lead": "600s", "budget": f"{most * 1000}/h"})
    assert charged.status == "optimal"


# ---- random problems, enumerated


def with_carbon(question: Problem, rng: random.Random) -> Problem:
    """The problem with carbon of every offer, a price of it in what is minimised, a cap on it, and a budget on what is paid; each now and then."""
    at = {place: rng.choice([0.0, 0.05, 0.4, 0.8]) for place in "xy"}
    usd_per_kg = rng.choice([0.0, 0.1, 1.0, 5.0])
    offers = []
    for o in question.offers:
        emitted = (o.kw or o.gpus * 0.7) * at[o.location]
        charge = usd_per_kg * emitted
        offers.append(replace(o, kg=emitted, unpaid=charge, usd_per_hour=o.usd_per_hour + charge))
    caps = [replace(c, of="paid") if c.of == "usd" and usd_per_kg else c for c in question.rules.caps]
    caps += [Cap("max_carbon", "kg", rng.choice([0.3, 1.0, 3.0]))] if rng.random() < 0.7 else []
    return replace(question, offers=tuple(offers), rules=replace(question.rules, caps=tuple(caps)))


@pytest.mark.parametrize("part", range(10))
def test_equals_enumeration(part: int) -> None:
    """200 problems in all, 20 a part."""
    feasible = 0
    for seed, question, expected in enumerated(lambda rng: with_carbon(drawn(rng), rng), 1000 * part + 500, 20, most_cases=20_000):
        assert program_cost(question) == pytest.approx(expected, rel=1e-6), seed
        places = list(locations(question).values())
        if question.rules.max_locations == 1 and expected < inf and places:
            assert min(lower_bounds(question, places)) <= expected * (1 + 1e-9), seed
        feasible += expected < inf
    assert feasible >= 6
