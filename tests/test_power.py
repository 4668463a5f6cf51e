"""Caps on power: kW held, in all and at one place, from GPUs' watts and the PUE of whoever runs them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from planner import Catalog, Plan, Scenario, load_catalog, solve
from planner.check.check import check_plan
from planner.errors import PlannerError
from planner.planning.infeasible import Infeasible

TINY = Path(__file__).parent / "data" / "tiny"
WATTS = {"GPU-24": 72, "GPU-80": 700}  # of the tiny catalogue


@cache
def tiny() -> Catalog:
    return load_catalog([TINY], shipped=False)


def planned(policy: dict[str, Any] | None = None, catalog: Catalog | None = None, qps: float = 5, **supply: Any) -> Plan:
    asked = {"workload": [{"qps": qps, "min_quality": 0.55}], "policy": policy or {}, "supply": supply}
    return solve(Scenario.model_validate(asked), catalog or tiny(), compare=False)


def kw(plan: Plan, pue: float = 1.0, place: str = "") -> float:
    return sum(p.gpus_held * WATTS[p.gpu] / 1e3 * pue for p in plan.purchases if place in ("", f"{p.provider} {p.region}"))


def test_a_cap_on_power_is_kept_costs_what_it_costs_and_is_named_when_it_binds() -> None:
    free = planned()
    same = planned(max_kw=kw(free))
    assert same.cost == free.cost and any(b.startswith("kW in all: ") for b in same.binding)
    capped = planned(max_kw=kw(free) - 0.01)
    assert kw(capped) < kw(free) and capped.cost.usd_per_hour >= free.cost.usd_per_hour
    assert check_plan(capped, tiny()).ok


def test_the_power_of_a_data_centre_counts() -> None:
    free = planned(qps=4.4)
    assert planned(qps=4.4, max_kw=kw(free, 1.3) + 1e-6, pue=1.3).cost == free.cost
    other = planned(qps=4.4, max_kw=kw(free), pue=1.3)
    assert kw(other, 1.3) <= kw(free) < kw(free, 1.3) and other.purchases != free.purchases


def test_one_place_may_be_short_of_power_and_another_not() -> None:
    free = planned()
    place = f"{free.purchases[0].provider} {free.purchases[0].region}"
    other = planned(max_kw_at={place: kw(free) / 2})
    assert kw(other, place=place) <= kw(free) / 2 + 1e-9
    assert other.deployments != free.deployments or other.purchases != free.purchases


def test_what_is_proposed_does_and_a_little_less_does_not() -> None:
    free = planned()
    with pytest.raises(Infeasible) as error:
        planned(max_kw=0.07)
    change = next(c for c in error.value.changes if "kW in all" in c)
    needed = float(change.split()[0])
    assert kw(planned(max_kw=needed)) <= needed + 1e-9 < kw(free)
    with pytest.raises(Infeasible):
        planned(max_kw=needed - 0.01)


def test_the_check_counts_watts_by_itself() -> None:
    plan = planned(max_kw=50)
    scenario = plan.scenario.model_copy(update={"supply": plan.scenario.supply.model_copy(update={"max_kw": kw(plan) - 0.01})})
    found = check_plan(plan.model_copy(update={"scenario": scenario}), tiny())
    assert any(b.name == "limits" and "kW, at most" in b.what for b in found.breaches)


def without_watts(gpu: str) -> Catalog:
    catalog = tiny()
    return replace(catalog, gpus={**catalog.gpus, gpu: catalog.gpus[gpu].model_copy(update={"tdp_w": None})})


def test_a_gpu_of_unknown_power_is_not_bought_under_a_cap_and_is_otherwise() -> None:
    used = planned().purchases[0].gpu
    assert planned(catalog=without_watts(used)).purchases[0].gpu == used
    assert all(p.gpu != used for p in planned(catalog=without_watts(used), max_kw=100).purchases)


@pytest.mark.parametrize(("supply", "words"), [({"max_kw_at": {"cloud est": 5}}, "location"), ({"max_kw": 0}, "max_kw")])
def test_what_cannot_be_a_cap_is_refused(supply: dict[str, Any], words: str) -> None:
    with pytest.raises((PlannerError, ValueError), match=words):
        planned(**supply)
