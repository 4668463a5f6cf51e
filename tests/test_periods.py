"""Autoscaled plans: counts are optimal against brute force, cost lies between the hours' own optima and the flat plan, and waiting work fills valleys."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run

from planner import Catalog, Infeasible, Plan, Scenario, autoscale, load_catalog, solve
from planner.check.check import check_plan
from planner.errors import CatalogError, ScenarioError
from planner.report.autoscale import hours_sections
from planner.scenario.profiles import flat, hourly_rates
from planner.scenario.write import to_flags, to_toml
from planner.search.apart import kept_apart

MODEST = {"kinds": ["neocloud"], "gpus": ["H100-SXM-80GB", "L40S"]}


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog()


def scenario(*workloads: dict[str, object], policy: dict[str, object] | None = None, supply: dict[str, object] | None = None) -> Scenario:
    return Scenario.model_validate({"workload": list(workloads), "policy": policy or {}, "supply": supply or {}})


# ---- whole plans


@pytest.mark.parametrize("lead", ["0s", "10min"])
def test_cost_lies_between_the_hours_alone_and_the_flat_plan(catalog: Catalog, lead: str) -> None:
    shape = [0.4, 1.0, 1.6]
    asked = scenario({"qps": 60, "min_quality": 0.6, "profile": shape}, policy={"startup_lead": lead}, supply=MODEST)
    plan = autoscale(asked, catalog)
    alone = sum(solve(scenario({"qps": 60 * f, "min_quality": 0.6}, supply=MODEST), catalog, compare=False).cost.usd_per_hour for f in shape)
    peak = solve(flat(asked), catalog, compare=False).cost.usd_per_hour
    assert alone * (1 - 1e-6) <= plan.usd <= 3 * peak * (1 + 1e-6)
    assert plan.flat and plan.flat.usd_per_hour == pytest.approx(peak)
    assert plan.bound_usd_per_hour <= plan.cost.usd_per_hour and plan.gap <= 0.01 and plan.status == "optimal"


def test_a_flat_plan_cut_short_by_the_time_limit_is_told(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is saved is said against the cheapest flat plan: where time did not prove it, or found none, the page must not read as if it had."""
    asked = scenario({"qps": 60, "min_quality": 0.6, "profile": [0.4, 1.6]}, supply=MODEST)

    def page(plan: Plan) -> str:
        return " ".join(text for section in hours_sections(plan) if section.title in ("Autoscaled plan", "Warnings") for text in section.lines)

    assert "time limit" not in page(autoscale(asked, catalog))

    def unproven(*args: Any, **more: Any) -> Any:
        found, points = kept_apart(*args, **more)
        return replace(found, solution=replace(found.solution, status="feasible", bound=0.0, gap=1.0)), points

    monkeypatch.setattr("planner.planning.periods.kept_apart", unproven)
    cut = autoscale(asked, catalog)
    assert cut.flat and cut.flat.usd_per_hour and "flat plan was stopped by the time limit" in page(cut)
    monkeypatch.setattr("planner.planning.periods.BASELINE_SHARE", 0.0)
    none = autoscale(asked, catalog)
    assert none.flat and (none.flat.usd_per_hour, none.flat.saving) == (None, None)
    assert "No flat plan was found within the time limit, so there is nothing to compare with." in page(none)
    assert none.usd == pytest.approx(cut.usd)


def test_the_structure_is_the_cheapest_of_all_structures(catalog: Catalog) -> None:
    """Two models on two GPU types, each combination asked for alone."""
    models, gpus = ["Qwen3-4B-Instruct-2507", "Phi-4-mini-instruct"], ["H100-SXM-80GB", "L40S"]
    profile = [0.5, 1.5, 0.25, 1.75]

    def cost(names: list[str], types: list[str]) -> float:
        asked = scenario({"qps": 40, "models": names, "profile": profile}, supply={"gpus": types})
        return autoscale(asked.model_copy(update={"solver": asked.solver.model_copy(update={"time_limit": 60.0})}), catalog).usd

    each = [cost([m], [g]) for m, g in product(models, gpus)]
    assert min(each) * (1 - 1e-6) <= cost(models, gpus) * (1 + 1e-9) <= min(each) * 1.01


def test_a_flat_profile_costs_what_the_plan_costs(catalog: Catalog) -> None:
    asked = scenario({"qps": 100, "min_quality": 0.7, "profile": [1, 1, 1, 1]})
    plan = autoscale(asked, catalog)
    assert plan.usd == pytest.approx(4 * solve(asked, catalog, compare=False).cost.usd_per_hour) and plan.startup_usd_per_hour == 0


def test_workloads_that_peak_at_different_hours_share_what_they_hold(catalog: Catalog) -> None:
    day, night = [1.8, 0.2], [0.2, 1.8]
    apart = autoscale(scenario({"name": "a", "qps": 100, "profile": day}, {"name": "b", "qps": 100, "profile": night}, supply=MODEST), catalog)
    at_once = autoscale(scenario({"name": "a", "qps": 100, "profile": day}, {"name": "b", "qps": 100, "profile": day}, supply=MODEST), catalog)
    assert apart.usd < at_once.usd and apart.flat and apart.flat.saving and apart.flat.saving > 0.4
    assert max(h.gpus_held for h in apart.periods) < max(h.gpus_held for h in at_once.periods)


def test_a_workload_may_be_away_in_the_busiest_hour_of_what_it_shares(catalog: Catalog, run: Run, tmp_path: Path) -> None:
    """Nothing is stated of how it is served then, and it is not simulated as if it were there."""
    each = {"models": ["Qwen3-4B-Instruct-2507"]}
    away, busy = {"name": "away", "qps": 2, "profile": [1, 0], **each}, {"name": "busy", "qps": 10, "profile": [0.5, 1.5], **each}
    plan = autoscale(scenario(away, busy, supply={"gpus": ["L40S"]}), catalog)
    assert len(plan.deployments) == 1 and plan.deployments[0].busiest == 1
    assert (plan.workloads[0].qps, plan.workloads[0].predicted) == (0.0, None) and plan.workloads[1].predicted
    (tmp_path / "plan.json").write_text(plan.to_json())
    status, _, error = run("simulate", tmp_path / "plan.json")
    assert status == 2 and "workload away" in error


def test_waiting_requests_are_done_between_release_and_deadline(catalog: Catalog) -> None:
    steady = {"name": "chat", "qps": 50, "min_quality": 0.6, "profile": "m-small"}
    batch = {"name": "batch", "requests_per_day": 400_000, "release": "22:00", "deadline": "06:00", "min_quality": 0.6}
    plan = autoscale(scenario(steady, batch, supply=MODEST), catalog)
    waiting = plan.workloads[1]
    assert waiting.is_waiting and sum(waiting.rates) * 3600 == pytest.approx(400_000)
    assert all(r == 0 for t, r in enumerate(waiting.rates) if 6 <= t < 22)
    assert plan.flat and plan.flat.saving and plan.flat.saving > 0
    assert plan.usd <= autoscale(scenario(steady, {**batch, "deadline": "22:00"}, supply=MODEST), catalog).usd * 1.5


def test_waiting_requests_alone_cost_whole_replica_hours_and_starts(catalog: Catalog) -> None:
    """The one model on the one GPU type: replica-hours of a window are the requests over what a replica does in an hour."""
    asked = scenario({"requests_per_day": 2e6, "release": "00:00", "deadline": "06:00", "models": ["Qwen3-4B-Instruct-2507"]}, supply={"gpus": ["L40S"]})
    plan = autoscale(asked, catalog)
    speed, price = plan.deployments[0].capacity_qps_per_replica * 3600, plan.purchases[0].usd_per_hour / plan.purchases[0].gpus_held
    replica_hours = sum(h.deployments[0].replicas for h in plan.periods)
    assert replica_hours >= 2e6 / speed and plan.usd >= price * replica_hours
    assert plan.gap < 0.01 and all(h.gpus_held == 0 for h in plan.periods[6:])


def test_plan_and_autoscale_price_waiting_requests_alike(run: Run, catalog: Catalog) -> None:
    """By hand: one replica works as many whole hours as half a million requests take it, and is paid ten minutes more to start."""
    asked = ["--requests-per-day", "5e5", "--deadline", "08:00", "--model", "Qwen3-4B-Instruct-2507", "--gpu", "L40S", "--format", "json"]
    plain, hourly = (Plan.model_validate_json(run(*verb, *asked)[1]) for verb in ((), ("autoscale",)))
    assert plain == hourly and len(plain.deployments) == len(plain.purchases) == 1
    price = min(o.usd_per_hour / o.gpus_per_instance for o in catalog.offers if o.gpu == "L40S" and (o.kind, o.purchase) == ("neocloud", "on_demand"))
    hours = math.ceil(5e5 / 3600 / plain.deployments[0].capacity_qps_per_replica - 1e-9)
    assert 1 < hours < 24 and 24 * plain.cost.usd_per_hour == pytest.approx(price * (hours + 10 / 60), abs=0.005)
    assert not any("SLO" in w or "queues always" in w for w in plain.warnings)


def test_a_study_says_that_it_prices_a_fleet_held_around_the_clock(run: Run, catalog: Catalog) -> None:
    """Its unit costs are of the requests of the whole day, though they come in six hours of it."""
    asked = scenario({"requests_per_day": 1e6, "release": "02:00", "deadline": "08:00", "models": ["Qwen3-4B-Instruct-2507"]}, supply={"gpus": ["L40S"]})
    held = solve(asked, catalog, compare=False)
    assert held.cost.usd_per_thousand_requests == pytest.approx(held.cost.usd_per_hour * 24 / 1000)
    assert "held around the clock" in held.notes[0] and not any("queues always" in w for w in held.warnings)
    said = run("sweep", "--requests-per-day", "1e6", "--over", "quality=0.7:0.8", "--points", "2", "--model", "Qwen3-4B-Instruct-2507", "--gpu", "L40S")
    assert "held around the clock" in said[2]


def test_more_room_for_waiting_requests_never_costs_more(catalog: Catalog) -> None:
    def cost(deadline: str) -> float:
        return autoscale(
            scenario({"requests_per_day": 2e6, "release": "00:00", "deadline": deadline, "min_quality": 0.6}, supply=MODEST), catalog
        ).bound_usd_per_hour

    assert cost("00:00") <= cost("04:00") * 1.01


def test_floor_and_spare_replicas_hold_in_every_hour(catalog: Catalog) -> None:
    plan = autoscale(scenario({"qps": 30, "profile": [0, 1, 2]}, policy={"floor_replicas": 3, "spare_replicas": 1}, supply=MODEST), catalog)
    assert all(h.deployments[0].replicas >= 3 for h in plan.periods)
    asleep = autoscale(scenario({"qps": 30, "profile": [0, 1, 2]}, policy={"floor_replicas": 0}, supply=MODEST), catalog)
    assert asleep.periods[0].deployments[0].replicas == 0 and asleep.periods[0].gpus_held == 0


def test_a_budget_below_the_peak_is_infeasible(catalog: Catalog) -> None:
    with pytest.raises(Infeasible, match="budget"):
        autoscale(scenario({"qps": 200, "min_quality": 0.8, "profile": "m-small"}, policy={"budget": "10/h"}, supply=MODEST), catalog)


# ---- the independent check


@pytest.fixture(scope="module")
def plan(catalog: Catalog) -> Plan:
    return autoscale(scenario({"qps": 60, "min_quality": 0.6, "profile": [0.4, 1.0, 1.6]}, supply=MODEST), catalog)


def test_a_sound_plan_passes_and_survives_json(plan: Plan, catalog: Catalog) -> None:
    again = Plan.model_validate_json(plan.to_json())
    assert again == plan and check_plan(again, catalog).ok
    assert len(plan.to_frame()) == 3


def test_a_missing_replica_an_unpaid_hour_and_a_wrong_rate_are_found(plan: Plan, catalog: Catalog) -> None:
    busiest = max(range(3), key=lambda t: plan.periods[t].usd)

    def changed(**update: object) -> Plan:
        hour = plan.periods[busiest].model_copy(update=update)
        return plan.model_copy(update={"periods": tuple(hour if t == busiest else h for t, h in enumerate(plan.periods))})

    def found(broken: Plan) -> set[str]:
        return {b.name for b in check_plan(broken, catalog).breaches}

    count = plan.periods[busiest].deployments[0]
    fewer = count.model_copy(
        update={"replicas": count.replicas - 1, "hosts": (count.hosts[0].model_copy(update={"replicas": count.hosts[0].replicas - 1}), *count.hosts[1:])}
    )
    assert "capacity" in found(changed(deployments=(fewer,)))
    assert "packing" in found(changed(instances=tuple(0 for _ in plan.purchases)))
    assert "cost" in found(changed(usd=plan.periods[busiest].usd - 1))
    assert "held" in found(changed(started=tuple(n + 1 for n in plan.periods[busiest].started)))
    slower = plan.workloads[0].model_copy(update={"rates": (1.0, 1.0, 1.0)})
    assert "demand" in found(plan.model_copy(update={"workloads": (slower,)}))


# ---- the command


def test_the_command_prints_saves_shows_and_checks(run: Run, tmp_path: Path) -> None:
    asked = ["autoscale", "--qps", "60", "--min-quality", "0.6", "--profile", "0.4,1,1.6", "--gpu", "L40S"]
    status, out, _ = run(*asked)
    assert status == 0 and "saved" in out and "02:00" in out
    file = tmp_path / "plan.json"
    assert run(*asked, "--format", "json", "-o", file)[0] == 0
    assert len(json.loads(file.read_text())["periods"]) == 3
    assert run("check", file)[0] == 0
    assert json.loads(run("schema")[1])["title"] == "Plan"
    assert run("show", file)[1] == out
    assert run("show", file, "--format", "csv")[1].count("\n") == 4
    week = run("autoscale", "--details", "--qps", "60", "--min-quality", "0.6", "--gpu", "L40S", "--profile", ",".join("1234567" * 24))[1]
    assert "GPUs held, by day and hour" in week and "Cost by day" in week


def test_traffic_without_hours_is_no_question_for_autoscaling(run: Run) -> None:
    status, _, error = run("autoscale", "--qps", "10")
    assert status == 2 and "--profile" in error


# ---- profiles


def test_shipped_profiles_are_shapes_of_a_day(catalog: Catalog) -> None:
    for name in ("m-small", "m-mid", "m-large", "deepseek-r1"):
        rates = hourly_rates(scenario({"qps": 10, "profile": name}))
        assert rates.shape == (1, 24) and rates.mean() == pytest.approx(10)
    assert hourly_rates(scenario({"qps": 10, "profile": "m-small"})).argmax() == 20  # the busiest hour of ServeGen's m-small
    assert flat(scenario({"qps": 10, "profile": "m-small"})).workload[0].burst_factor == pytest.approx(1.46, abs=0.01)


def test_a_day_beside_a_week_makes_a_week(tmp_path: Path) -> None:
    week = tmp_path / "week.csv"
    week.write_text("rate\n" + "\n".join(str(5 + (t // 24)) for t in range(168)) + "\n")
    rates = hourly_rates(scenario({"name": "a", "qps": 2, "profile": "m-mid"}, {"name": "b", "qps": 8, "profile": str(week)}))
    assert rates.shape == (2, 168) and np.allclose(rates[0, :24], rates[0, 24:48]) and rates[1].mean() == pytest.approx(8) and rates[1, 167] == rates[1].max()
    trace = tmp_path / "trace.csv"
    trace.write_text("arrival_s,input_tokens\n" + "\n".join(f"{3600 * h + i},10" for h in range(24) for i in range(1 + h % 2)) + "\n")
    assert hourly_rates(scenario({"qps": 3, "profile": str(trace)}))[0, :2].tolist() == pytest.approx([2.0, 4.0], rel=0.05)


def test_a_catalogue_of_ones_own_may_hold_profiles(tmp_path: Path) -> None:
    (tmp_path / "profiles.csv").write_text("name,hour,factor\noffice,0,1\noffice,1,3\n")
    asked = scenario({"qps": 10, "profile": "office"}).model_copy(update={"catalog": (str(tmp_path),)})
    assert hourly_rates(asked).tolist() == [[5.0, 15.0]]


@pytest.mark.parametrize("profile", ["nosuch", "1,-1", "0,0", "missing.csv", "1,x"])
def test_what_is_no_profile_is_an_error(profile: str) -> None:
    with pytest.raises((ScenarioError, CatalogError)):
        hourly_rates(scenario({"qps": 1, "profile": profile}))


def test_new_fields_survive_being_written() -> None:
    asked = scenario(
        {"requests_per_day": 5000, "deadline": "06:00", "release": "20:00"}, policy={"startup_lead": "5min", "min_up_periods": 2, "floor_replicas": 0}
    )
    import rtoml

    assert Scenario.model_validate(rtoml.loads(to_toml(asked))) == asked
    assert {"--requests-per-day", "--deadline", "--startup-lead"} <= set(to_flags(asked))
    assert len(asked.workload[0].hours) == 10 and not asked.workload[0].slo
    for wrong in ({"qps": 1, "requests_per_day": 5}, {"requests_per_day": 5, "profile": "m-mid"}, {"requests_per_day": 5, "deadline": "6:30"}):
        with pytest.raises(ValueError):
            scenario(wrong)


def test_a_plan_for_a_profile_holds_its_peak(catalog: Catalog) -> None:
    asked = scenario({"qps": 60, "min_quality": 0.6, "profile": [0.5, 1.5]}, supply=MODEST)
    peak = solve(scenario({"qps": 60, "min_quality": 0.6, "burst_factor": 1.5}, supply=MODEST), catalog, compare=False)
    assert solve(asked, catalog, compare=False).cost.usd_per_hour == pytest.approx(peak.cost.usd_per_hour)
