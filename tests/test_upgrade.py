"""Plans that version 1 of the schema wrote are read, shown, checked and simulated as present ones are."""

from __future__ import annotations

from pathlib import Path

import pytest

from planner import Plan, Scenario
from tests.conftest import Run

DATA = Path(__file__).parent / "data" / "plans"


@pytest.mark.parametrize(("name", "kind"), [("flat-1", "flat"), ("own-1", "own")])
def test_a_plan_of_version_1_is_one_of_version_2(name: str, kind: str) -> None:
    plan = Plan.model_validate_json((DATA / f"{name}.json").read_text())
    assert (plan.schema_version, plan.kind) == (2, kind) and isinstance(plan.scenario, Scenario)
    assert plan.origins and set(plan.origins.values()) == {"flag"}
    assert Plan.model_validate_json(plan.to_json()) == plan


@pytest.mark.parametrize("name", ["flat-1", "own-1", "hourly-1"])
def test_a_plan_of_version_1_is_shown_and_holds(run: Run, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(Path(__file__).parent.parent)
    status, out, err = run("show", DATA / f"{name}.json")
    assert (status, err) == (0, "") and "$" in out
    status, out, err = run("check", DATA / f"{name}.json")
    assert (status, err) == (0, ""), out
