"""Facts about owned GPUs: the hourly cost by hand, the paper's case, and plans in which they stand beside rented ones."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from dataclasses import replace
from functools import cache
from math import inf
from pathlib import Path
from typing import Any

import pytest
from brute_force import TooLarge, optimum
from conftest import Run, checked
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from planner import Catalog, Infeasible, OwnedGpu, Plan, Scenario, break_even_utilization, hourly_cost, job_cost, load_catalog, solve
from planner.candidates import columns
from planner.candidates.columns import Formulation
from planner.candidates.offers import allowed
from planner.candidates.points import Points
from planner.candidates.survey import survey
from planner.check.check import check_plan
from planner.errors import ScenarioError
from planner.program.optimum import cheapest
from planner.program.problem import Column, Problem, Purchasable, Rules, Tier, Traffic
from planner.program.solver import SolverOptions
from planner.scenario.apply import catalog_for
from planner.scenario.sources import ask
from planner.scenario.write import to_flags, to_toml
from planner.search.answer import answer
from planner.search.survey_cache import SurveyCache

TINY = Path(__file__).parent / "data" / "tiny"


@cache
def tiny() -> Catalog:
    return load_catalog([TINY], shipped=False)


# ---- the formula ----

A800 = OwnedGpu(12_000, 3, 0.4, 0.13, utilization=0.7, pue=1.3, maintenance_per_year=0.05)


def test_the_three_parts_by_hand() -> None:
    found = hourly_cost(OwnedGpu(price_usd=8760, life_years=2, power_kw=0.5, usd_per_kwh=0.2, utilization=0.5, pue=1.5, maintenance_per_year=0.1))
    assert (found.depreciation_usd, found.energy_usd, found.maintenance_usd) == pytest.approx((1.0, 0.15, 0.1))
    assert found.usd_per_hour == pytest.approx(1.25)
    assert found.running_usd == pytest.approx(0.25)


def test_what_else_a_rack_costs_each_year_is_borne_by_every_hour_of_it() -> None:
    bare = OwnedGpu(price_usd=8760, life_years=2, power_kw=0.5, usd_per_kwh=0.2)
    rack = replace(bare, yearly_usd=876)
    assert hourly_cost(rack).other_usd == pytest.approx(0.1) and hourly_cost(rack).usd_per_hour == pytest.approx(hourly_cost(bare).usd_per_hour + 0.1)
    assert break_even_utilization(rack, 1.1) == pytest.approx(break_even_utilization(bare, 1.0))
    with pytest.raises(ValueError, match="yearly_usd"):
        replace(bare, yearly_usd=-1)


def test_the_papers_case() -> None:
    """arXiv 2510.26136: an A800-80GB at about $0.79/h, two of them $1.58/h, $0.34 for 775 s and $3.47 for the reasoning model's 7,906 s."""
    assert hourly_cost(A800).usd_per_hour == pytest.approx(0.79, abs=0.005)
    assert job_cost(0.79, 2, 3600) == pytest.approx(1.58)
    assert job_cost(0.79, 2, 775) == pytest.approx(0.34, abs=0.005)
    assert job_cost(0.79, 2, 7906) == pytest.approx(3.47, abs=0.005)


def test_idle_hours_make_only_depreciation_dearer() -> None:
    half, full = hourly_cost(replace(A800, utilization=0.35)), hourly_cost(A800)
    assert half.depreciation_usd == pytest.approx(2 * full.depreciation_usd)
    assert half.running_usd == full.running_usd


@given(st.floats(1_000, 60_000), st.floats(1, 8), st.floats(0.05, 2), st.floats(0, 0.5), st.floats(1, 2), st.floats(0, 0.2), st.floats(0.1, 12))
def test_at_the_break_even_an_hour_costs_as_much_as_renting(p: float, y: float, kw: float, e: float, pue: float, m: float, rent: float) -> None:
    gpu = OwnedGpu(p, y, kw, e, pue=pue, maintenance_per_year=m)
    u = break_even_utilization(gpu, rent)
    if u <= 1:
        assert hourly_cost(replace(gpu, utilization=u)).usd_per_hour == pytest.approx(rent)
    else:
        assert hourly_cost(gpu).usd_per_hour > rent  # not even in use around the clock


def test_renting_below_the_running_cost_never_loses() -> None:
    assert break_even_utilization(A800, hourly_cost(A800).running_usd) == inf


@pytest.mark.parametrize("change", [{"utilization": 0}, {"utilization": 70}, {"price_usd": -1}, {"life_years": 0}, {"pue": 0.9}, {"power_kw": inf}])
def test_numbers_that_cannot_be_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(A800, **change)


# ---- plan cost ----

INPUTS = ("--price", 12000, "--years", 3, "--utilization", 0.7, "--pue", 1.3, "--electricity", 0.13, "--maintenance", 0.05)


def words(*values: object) -> list[str]:
    return [str(v) for v in values]


def test_the_breakdown_is_printed_and_the_tdp_is_a_stated_default(run: Run) -> None:
    status, out, _ = run(*words("cost", "gpu", "A800-SXM-80GB", *INPUTS))
    assert status == 0
    assert all(part in out for part in ("$0.6523", "$0.0676", "$0.0685", "$0.7884")) and "0.4 kW (the catalogue's TDP" in out
    _, out, _ = run(*words("cost", "gpu", "a800-sxm-80gb", *INPUTS, "--kw", 0.8, "--yearly", 876, "--format", "json"))
    found = json.loads(out)
    assert found["gpu"] == "A800-SXM-80GB" and found["energy_usd_per_hour"] == pytest.approx(0.8 * 1.3 * 0.13) and found["defaults"] == ""
    parts = ("depreciation", "energy", "maintenance", "other")
    assert found["usd_per_hour"] == pytest.approx(sum(found[f"{p}_usd_per_hour"] for p in parts))
    assert found["other_usd_per_hour"] == pytest.approx(0.1)


def test_owning_against_renting(run: Run) -> None:
    _, out, _ = run(
        *words("cost", "gpu", "GPU-80", "--catalog", TINY, "--price", 30_000, "--years", 4, "--electricity", 0.1, "--against-rent", "--format", "csv")
    )
    (row,) = csv.DictReader(io.StringIO(out))
    assert (float(row["rent_usd_per_hour"]), row["rent_provider"]) == (3.0, "neo")
    assert float(row["break_even_hours_per_year"]) == pytest.approx(30_000 / 4 / (3 - 0.07))
    _, out, _ = run(*words("cost", "gpu", "GPU-24", "--catalog", TINY, "--price", 90_000, "--years", 4, "--electricity", 0.1, "--against-rent"))
    assert "would not pay in 4 years" in out


def test_the_cost_of_a_job(run: Run) -> None:
    _, out, _ = run(*words("cost", "job", "--gpus", 2, "--usd-per-gpu-hour", 0.79, "--seconds", 775, "--requests", 2993, "--format", "json"))
    found = json.loads(out)
    assert found["usd"] == pytest.approx(2 * 0.79 * 775 / 3600) and found["usd_per_request"] == pytest.approx(found["usd"] / 2993)
    _, out, _ = run(*words("cost", "job", "--gpus", 2, "--gpu", "A800-SXM-80GB", *INPUTS, "--seconds", 7906))
    assert "$3.46 = 2 GPUs x 7,906 s at $0.7884 per GPU-hour" in out


BAD = {
    "all that is missing": (("gpu", "A100-SXM-80GB", "--price", 1), "give --years, --electricity"),
    "no such GPU": (("gpu", "A800-SXN-80GB", *INPUTS), "did you mean 'A800-SXM-80GB'?"),
    "a percentage": (("gpu", "L4", "--price", 1, "--years", 1, "--electricity", 1, "--utilization", 70), "--utilization: 70 must be a share"),
    "no cost": (("job", "--gpus", 2, "--seconds", 3), "what a GPU costs is not known"),
    "two costs": (("job", "--gpus", 2, "--seconds", 3, "--usd-per-gpu-hour", 1, "--kw", 1), "--kw cannot stand beside it"),
    "no time": (("job", "--gpus", 2, "--seconds", 0, "--usd-per-gpu-hour", 1), "--seconds: 0 must be more than zero"),
    "no GPUs": (("job", "--gpus", 0, "--seconds", 1, "--usd-per-gpu-hour", 1), "--gpus"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line(run: Run, arguments: tuple[object, ...], message: str) -> None:
    status, out, err = run(*words("cost", *arguments))
    assert status == 2 and out == "" and err.count("\n") == 1 and message in err


# ---- owned GPUs in a plan ----


def asked(owned: dict[str, Any] | list[dict[str, Any]], qps: float = 20, policy: dict[str, Any] | None = None, **supply: Any) -> Scenario:
    """One workload for the tiny catalogue, with GPU-80 in nodes of 8 unless said otherwise."""
    several = owned if isinstance(owned, list) else [owned]
    tables = [{"gpu": "GPU-80", "count": 8, "gpus_per_node": 8, **o} for o in several]
    question = {"workload": [{"qps": qps, "min_quality": 0.5}], "supply": {"owned": tables, **supply}, "policy": policy or {}}
    return Scenario.model_validate(question)


def planned(scenario: Scenario, compare: bool = False) -> Plan:
    return checked(solve(scenario, tiny(), compare=compare), tiny())


def held(plan: Plan, provider: str) -> int:
    return sum(p.gpus_held for p in plan.purchases if p.provider == provider)


SUNK = {"sunk": True, "electricity": 0.1, "pue": 1.2}


def test_sunk_gpus_come_before_rented_ones() -> None:
    plan = planned(asked(SUNK))
    assert {p.provider for p in plan.purchases} == {"own"}
    assert plan.cost.usd_per_hour == pytest.approx(plan.gpus_held * 0.7 * 1.2 * 0.1)  # TDP 700 W
    assert plan.purchases[0].kind == "owned" and plan.purchases[0].as_of == "" and "sunk" in plan.purchases[0].source


def test_bought_gpus_carry_their_whole_cost_with_every_hour_used() -> None:
    bought = {"price": 30_000, "years": 4, "electricity": 0.1, "maintenance": 0.05, "kw": 1.0, "name": "site"}
    plan = planned(asked(bought))
    each = hourly_cost(OwnedGpu(30_000, 4, 1.0, 0.1, maintenance_per_year=0.05)).usd_per_hour
    assert held(plan, "site") and plan.cost.usd_per_hour == pytest.approx(held(plan, "site") * each)
    dear = planned(asked({**bought, "years": 0.1}))
    assert not held(dear, "site") and dear.cost.usd_per_hour == planned(Scenario(workload=asked(SUNK).workload)).cost.usd_per_hour


RACK = {"network_usd_per_gpu_year": 876, "storage_usd_per_gpu_year": 438, "software_usd_per_gpu_year": 262.8, "operators_usd_per_gpu_year": 175.2}


@pytest.mark.parametrize("table", [SUNK, {"price": 30_000, "years": 4, "electricity": 0.1}])
def test_network_storage_software_and_operators_add_a_year_of_themselves_over_its_hours(table: dict[str, Any]) -> None:
    bare, racks = planned(asked(table)), planned(asked({**table, **RACK}))
    assert racks.cost.usd_per_hour == pytest.approx(bare.cost.usd_per_hour + held(racks, "own") * 0.2)  # 1,752 a year over 8,760 hours
    for words in ("network $876 a year", "storage $438 a year", "software $262.8 a year", "operators $175.2 a year"):
        assert words in racks.purchases[0].source
    assert "network" not in bare.purchases[0].source


@pytest.mark.parametrize("name", list(RACK))
def test_a_part_of_a_cost_that_is_stated_whole_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"usd_per_hour is the whole cost, so {name} cannot stand beside it"):
        asked({"usd_per_hour": 0.5, name: 100})


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_no_more_are_held_than_there_are_and_the_rest_is_rented_at_one_place(count: int) -> None:
    plan = planned(asked({**SUNK, "count": count}, qps=400, gpus=["GPU-80"]))
    assert 0 < held(plan, "own") <= count < plan.gpus_held
    assert len({(p.provider, p.region) for p in plan.purchases if p.kind != "owned"}) == 1  # max_locations = 1 counts rented places


def test_cost_falls_with_every_owned_gpu() -> None:
    costs = [planned(asked({**SUNK, "count": n}, qps=400)).cost.usd_per_hour for n in (1, 2, 4, 8, 16)]
    assert costs == sorted(costs, reverse=True) and costs[-1] < costs[0]


def test_rules_on_renting_do_not_concern_them_but_limits_on_gpus_do() -> None:
    on_renting: dict[str, Any] = {"providers": ["cloud"], "regions": ["north"], "geographies": ["eu"], "purchase": ["spot"], "kinds": ["owned"]}
    for name, value in on_renting.items():
        assert held(planned(asked(SUNK, **{name: value})), "own") > 0
    on_gpus: dict[str, Any] = {"exclude_gpus": ["GPU-80"], "gpus": ["GPU-24"], "quota": {"GPU-80": 0}, "exclude_providers": ["own"]}
    for name, value in on_gpus.items():
        assert held(planned(asked(SUNK, **{name: value})), "own") == 0
    with pytest.raises(Infeasible):
        planned(asked(SUNK, qps=5000, kinds=["owned"]))


def test_a_replica_stays_inside_an_owned_node() -> None:
    plan = planned(asked({**SUNK, "count": 16, "gpus_per_node": 1}))
    assert all(d.tp * d.pp == 1 for d in plan.deployments for h in d.hosts if plan.purchases[h.purchase].kind == "owned")


def test_what_owning_saves_is_among_the_alternatives() -> None:
    plan = planned(asked(SUNK), compare=True)
    rented = next(a for a in plan.alternatives if "renting all GPUs" in a.difference)
    assert rented.cost is not None and rented.cost.usd_per_hour == pytest.approx(planned(Scenario(workload=asked(SUNK).workload)).cost.usd_per_hour)
    assert rented.premium is not None and rented.premium > 0 and all(p.kind != "owned" for p in rented.purchases)


def test_studies_know_owned_gpus_and_their_prices() -> None:
    cache = SurveyCache(tiny())
    for scenario in (asked(SUNK), asked({"usd_per_hour": 0.5}), asked({**SUNK, "gpus_per_node": 1}), asked({"usd_per_hour": 9.0})):
        assert solve(scenario, tiny(), compare=False, cache=cache).cost == planned(scenario).cost


def test_supposed_prices_concern_what_is_rented() -> None:
    scenario = Scenario.model_validate({**asked(SUNK).model_dump(mode="json"), "what_if": {"price_factor": {"all": 2.0}}})
    before, after = tiny().offers, catalog_for(tiny(), scenario).offers
    assert [o.usd_per_hour for o in after[:-1]] == [2 * o.usd_per_hour for o in before]
    assert after[-1].usd_per_hour == pytest.approx(0.7 * 1.2 * 0.1)


def cheapest_cost(scenario: Scenario, pruned: bool) -> float:
    catalog = catalog_for(tiny(), scenario)
    points = Points(survey(scenario, catalog, allowed(catalog.offers, scenario.supply)))
    with pytest.MonkeyPatch.context() as patch:
        if not pruned:
            patch.setattr(columns, "undominated", lambda _points, _scenario, rows, *_rest: ([int(r) for r in rows], Counter()))
        return answer(columns.formulation(points, scenario), break_ties=False).cost


TABLES = st.fixed_dictionaries(
    {"gpu": st.sampled_from(["GPU-24", "GPU-80"]), "count": st.sampled_from([1, 3, 8]), "gpus_per_node": st.sampled_from([1, 2, 8])},
    optional={"max_tp": st.just(1)},
)
RULES = st.sampled_from([{}, {"max_pools": 2}, {"mix": True}, {"spare_replicas": 1}, {"max_locations": 2}])


@settings(max_examples=25, deadline=None)
@given(TABLES, st.sampled_from([0.05, 0.4, 2.0]), st.sampled_from([0.5, 20, 300]), RULES)
def test_pruning_keeps_the_optimum_where_cheap_gpus_are_few(table: dict[str, Any], usd: float, qps: float, policy: dict[str, Any]) -> None:
    scenario = asked({**table, "usd_per_hour": usd}, qps, policy)
    exact = scenario.model_copy(update={"solver": scenario.solver.model_copy(update={"gap": 0.0})})
    assert cheapest_cost(exact, pruned=True) == pytest.approx(cheapest_cost(exact, pruned=False), rel=2e-6)


def test_the_chart_shows_three_parts_and_the_rent() -> None:
    pytest.importorskip("altair")
    from planner.report.charts import ownership_chart

    drawn = ownership_chart(A800, rent_usd_per_hour=1.5).to_dict()
    rows, rent = (drawn["datasets"][layer["data"]["name"]] for layer in drawn["layer"])
    assert {r["part"] for r in rows} == {"depreciation", "energy", "maintenance"} and rent == [{"usd_per_hour": 1.5}]
    assert sum(r["usd_per_hour"] for r in rows if r["utilisation"] == 0.7) == pytest.approx(hourly_cost(A800).usd_per_hour)


# ---- asking ----


def test_a_scenario_with_owned_gpus_survives_toml(tmp_path: Path) -> None:
    scenario = asked([{**SUNK, "name": "basement"}, {"name": "lab", "usd_per_hour": 0.79, "max_tp": 2}])
    file = tmp_path / "s.toml"
    file.write_text(to_toml(scenario))
    assert ask(file=file).scenario == scenario
    with pytest.raises(ScenarioError, match="write TOML"):
        to_flags(scenario)


def test_a_file_of_owned_gpus_is_the_same_as_the_scenarios_table(tmp_path: Path) -> None:
    file = tmp_path / "owned.toml"
    file.write_text('[[owned]]\ngpu = "GPU-80"\ncount = 8\ngpus_per_node = 8\nsunk = true\nelectricity = 0.1\npue = 1.2\n')
    assert ask({"qps": 20, "min_quality": 0.5, "owned": [str(file)]}).scenario.supply == asked(SUNK).supply
    assert ask({"qps": 20, "min_quality": 0.5}, {"PLANNER_OWNED": str(file)}).scenario.supply == asked(SUNK).supply


COMPLETE = 'gpu = "GPU-80"\ncount = 4\ngpus_per_node = 4\n'
BAD_TABLES = {
    "no cost": (COMPLETE, "give price, years, electricity, or usd_per_hour"),
    "no power price": (COMPLETE + "sunk = true\n", "give electricity"),
    "upkeep of an unknown price": (COMPLETE + "sunk = true\nelectricity = 0.1\nmaintenance = 0.1\n", "give price"),
    "two costs": (COMPLETE + "usd_per_hour = 1\npue = 1.2\n", "usd_per_hour is the whole cost"),
    "an odd node": (COMPLETE.replace("node = 4", "node = 6") + "usd_per_hour = 1\n", "1, 2, 4, 8"),
    "wider than a node": (COMPLETE + "usd_per_hour = 1\nmax_tp = 8\n", "max_tp is more than the 4 GPUs"),
    "a misspelt key": (COMPLETE.replace("gpus_per", "gpu_per") + "usd_per_hour = 1\n", "did you mean 'gpus_per_node'?"),
    "no count": (COMPLETE.replace("count = 4\n", "") + "usd_per_hour = 1\n", "count' is missing"),
    "twice": (COMPLETE + "usd_per_hour = 1\n[[TABLE]]\n" + COMPLETE + "usd_per_hour = 2\n", "stands twice"),
}


@pytest.mark.parametrize(("table", "message"), BAD_TABLES.values(), ids=BAD_TABLES)
def test_a_bad_table_is_named(tmp_path: Path, table: str, message: str) -> None:
    own, whole = tmp_path / "owned.toml", tmp_path / "s.toml"
    own.write_text("[[owned]]\n" + table.replace("TABLE", "owned"))
    whole.write_text("[[workload]]\nqps = 1\n[[supply.owned]]\n" + table.replace("TABLE", "supply.owned"))
    with pytest.raises(ScenarioError, match=r"(owned\.toml:\d+|--owned): .*" + message.replace("?", r"\?")):
        ask({"qps": 1, "owned": [str(own)]})
    with pytest.raises(ScenarioError, match=r"s\.toml:\d+: .*" + message.replace("?", r"\?")):
        ask(file=whole)


# ---- the check ----


@pytest.mark.parametrize(("change", "family"), [({"count": 1}, "offers"), ({"electricity": 0.2}, "offers"), ({"name": "elsewhere"}, "offers")])
def test_a_plan_on_other_owned_gpus_than_there_are_is_caught(change: dict[str, Any], family: str) -> None:
    plan = planned(asked({**SUNK, "name": "site"}, qps=100))
    assert held(plan, "site") > 1
    other = asked({**SUNK, "name": "site", **change}, qps=100)
    report = check_plan(plan.model_copy(update={"scenario": other}), tiny())
    assert family in {b.name for b in report.breaches}


def test_replicas_that_no_node_has_room_for_are_caught() -> None:
    plan = planned(asked({**SUNK, "count": 8, "name": "site", "max_tp": 2}, qps=100, policy={"spare_replicas": 1}))
    assert held(plan, "site") > 1
    narrow = asked({**SUNK, "count": held(plan, "site") - 1, "name": "site", "max_tp": 2}, qps=100, policy={"spare_replicas": 1})
    report = check_plan(plan.model_copy(update={"scenario": narrow}), tiny())
    assert {"offers", "packing"} <= {b.name for b in report.breaches}


# ---- the program ----


def test_a_limited_offer_is_taken_first_and_only_as_far_as_it_goes() -> None:
    """Five replicas of 2 GPUs at $0.1 (6 of them) and $1: three replicas owned, two rented."""
    column = Column("c", "m", "k", "A", 2, {0: (Tier(1, 10.0),)}, {}, (0, 1))
    offers = (Purchasable("", "A", 1, 0.1, False, 6), Purchasable("here", "A", 1, 1.0, False))
    found = cheapest(Problem((Traffic("w", (50.0,)),), (column,), offers, Rules()), SolverOptions(gap=0))
    assert found.cost == pytest.approx(0.6 + 4.0) and found.held == {0: 6, 1: 4}
    alone = Problem((Traffic("w", (50.0,)),), (replace(column, offers=(0,)),), (replace(offers[0], available=10),), Rules(max_locations=1))
    assert answer(Formulation(asked(SUNK), alone, (), (), Counter())).cost == pytest.approx(1.0)
    short = replace(alone, offers=(replace(offers[0], available=9),))
    assert answer(Formulation(asked(SUNK), short, (), (), Counter())).cost == inf


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Owned GPUs of one or two batches and rented ones at up to three places; one or two workloads and pools."""
    owned = [Purchasable("", draw(st.sampled_from("AB")), 1, draw(st.sampled_from([0.1, 0.6, 1.5])), False, draw(st.integers(1, 5))) for _ in range(2)]
    rented = [
        Purchasable(f"place {i}", gpu, draw(st.sampled_from([1, 2, 4])), draw(st.sampled_from([1.0, 1.5, 2.5])), True)
        for i in range(draw(st.integers(1, 3)))
        for gpu in draw(st.sampled_from(["A", "B", "AB"]))
    ]
    offers = [*owned[: draw(st.integers(1, 2))], *rented]
    workloads = draw(st.integers(1, 2))
    made: list[Column] = []
    for i in range(draw(st.integers(1, 3))):
        gpu, size = draw(st.sampled_from("AB")), draw(st.sampled_from([1, 2]))
        hosts = tuple(o for o, offer in enumerate(offers) if offer.gpu == gpu and size <= (offer.available or offer.gpus))
        rates = {w: (Tier(1, draw(st.sampled_from([2.0, 3.0, 5.0]))),) for w in range(workloads)}
        made += [Column(f"c{i}", "m", draw(st.sampled_from(["k", "l"])), gpu, size, rates, {}, hosts)] if hosts else []
    assume(made)
    rules = Rules(
        max_locations=draw(st.sampled_from([1, 1, 2])),
        pools_per_workload=draw(st.sampled_from([1, 2])),
        mix=draw(st.booleans()),
        spare_replicas=draw(st.sampled_from([0, 0, 1])),
    )
    demands = tuple(Traffic(f"w{w}", (draw(st.sampled_from([3.0, 7.0, 10.0])),)) for w in range(workloads))
    return Problem(demands, tuple(made), tuple(offers), rules)


@settings(max_examples=80, deadline=None)
@given(problems())
def test_the_optimum_with_owned_gpus_is_that_of_enumeration(question: Problem) -> None:
    try:
        right = optimum(question)
    except TooLarge:
        assume(False)
    exact = asked(SUNK).model_copy(update={"solver": asked(SUNK).solver.model_copy(update={"gap": 0.0})})
    found = answer(Formulation(exact, question, (), (), Counter()))
    assert found.cost == pytest.approx(right)
    assert all(count <= (question.offers[o].available or inf) for o, count in found.solution.held.items())
