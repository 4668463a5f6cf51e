"""Plans that version 1 of the schema wrote are read, shown, checked and simulated as present ones are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from planner import Plan, Scenario, autoscale, load_catalog
from planner.catalog.catalog import Catalog
from planner.check.check import check_plan
from tests import closed_form
from tests.conftest import Run

DATA = Path(__file__).parent / "data" / "plans"


@pytest.fixture(autouse=True)
def step_times_of_then(monkeypatch: pytest.MonkeyPatch) -> None:
    closed_form.put_in_place(monkeypatch)


def as_it_was() -> Catalog:
    """The invented catalogue of the tests over the shipped one, with the coefficients of then, and nothing known of how engines are set."""
    return replace(load_catalog([DATA.parent / "tiny", DATA / "catalog-1"]), tuned={})


@pytest.mark.parametrize(("name", "kind"), [("flat-1", "flat"), ("own-1", "own"), ("hourly-1", "hourly")])
def test_a_plan_of_version_1_is_one_of_version_2(name: str, kind: str) -> None:
    plan = Plan.model_validate_json((DATA / f"{name}.json").read_text())
    assert (plan.schema_version, plan.kind) == (2, kind) and isinstance(plan.scenario, Scenario)
    assert plan.origins and set(plan.origins.values()) == {"flag"}
    assert Plan.model_validate_json(plan.to_json()) == plan


@pytest.mark.parametrize("name", ["flat-1", "own-1", "hourly-1", "waiting-1"])
def test_a_plan_of_version_1_is_shown_and_holds(run: Run, name: str) -> None:
    """Of the invented catalogue of the tests, laid over a shipped one that has moved on since: which one it was made with is all that does not hold."""
    status, out, err = run("show", DATA / f"{name}.json")
    assert (status, err) == (0, "") and "$" in out
    plan = Plan.model_validate_json((DATA / f"{name}.json").read_text())
    report = check_plan(plan, None if plan.kind == "own" else as_it_was())
    assert {b.name for b in report.breaches} <= {"catalogue"}, report.breaches


def test_hours_of_version_1_are_what_the_same_question_makes_now() -> None:
    """Version 1 wrote a plan of each deployment beside the counts; what it said of money, GPUs and traffic is the same."""
    old = Plan.model_validate_json((DATA / "hourly-1.json").read_text())
    made = autoscale(old.scenario, as_it_was(), origins=old.origins)
    assert old.periods == made.periods and old.purchases == made.purchases and old.flat == made.flat
    assert old.cost.model_dump() == pytest.approx(made.cost.model_dump()) and old.startup_usd_per_hour == pytest.approx(made.startup_usd_per_hour)
    assert (old.gpus_held, old.gpus_used, old.status) == (made.gpus_held, made.gpus_used, made.status)
    assert old.workloads[0].rates == pytest.approx(made.workloads[0].rates) and old.workloads[0].demand == made.workloads[0].demand
    assert (old.deployments[0].busiest, made.deployments[0].busiest) == (1, 2)  # the first of the hours that take most replicas, and the one with most work


def test_a_broken_plan_of_version_1_is_no_plan(run: Run, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text((DATA / "hourly-1.json").read_text().replace('"plans":[', '"plans":3,"more":[', 1))
    for verb in ("show", "check", "simulate"):
        status, out, err = run(verb, tmp_path / "p.json")
        assert (status, out) == (2, "") and "not a plan" in err


@pytest.mark.parametrize("name", ["flat-1", "own-1", "hourly-1"])
def test_periods_of_every_kind_add_up(name: str) -> None:
    """The same loop for all kinds: hours times price is the cost."""
    plan = Plan.model_validate_json((DATA / f"{name}.json").read_text())
    prices = [p.usd_per_hour / p.instances for p in plan.purchases]
    held = sum(t.hours * n * c for t in plan.by_period for n, c in zip(t.instances, prices, strict=True))
    assert plan.usd == pytest.approx(held + plan.startup_usd_per_hour * plan.hours) == pytest.approx(plan.cost.usd_per_hour * plan.hours)
    assert max(sum(c.replicas for c in t.deployments) for t in plan.by_period) >= sum(d.replicas for d in plan.deployments)
