"""What the user measured of a model on a GPU and engine is evidence with a word of its own, near enough for any tier but `measured`, and not warned of."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from functools import cache

import pytest

from planner import Catalog, Scenario, load_catalog, solve
from planner.catalog.records import Calibration
from planner.check.check import check_plan
from planner.planning.infeasible import Infeasible
from planner.result.plan import Plan
from planner.validation.single import AskedConfiguration, forecast

ON = date(2026, 11, 1)


@cache
def shipped() -> Catalog:
    return load_catalog(())


def measured_on(gpu: str, engine: str = "vllm", architecture: str = "Qwen3-4B", step: float = 1.0) -> Calibration:
    return Calibration(
        gpu=gpu, engine=engine, architecture=architecture, step=step, step_sd=0.1, points=5, source="mine.csv", as_of=ON
    )  # fmt: skip


def planned(*own: Calibration, **policy: object) -> Plan:
    asked = {"workload": [{"qps": 5, "models": ["Qwen/Qwen3-4B-Instruct-2507"]}], "supply": {"gpus": ["L40S"]}, "policy": {"engines": ["vllm"], **policy}}
    return solve(Scenario.model_validate(asked), replace(shipped(), calibrated=own), compare=False)


def test_a_calibrated_replica_has_its_word_and_no_warning_of_a_missing_neighbour() -> None:
    before, after = planned(), planned(measured_on("L40S"))
    tiers = [p.deployments[0].evidence.tier for p in (before, after) if p.deployments[0].evidence]
    assert tiers[0] in ("transferred", "modelled")
    assert tiers[1] == "calibrated"
    assert [any(w.startswith("no measured neighbour") for w in p.warnings) for p in (before, after)] == [True, False]
    report = check_plan(after, replace(shipped(), calibrated=(measured_on("L40S"),)))
    assert report.breaches == ()
    wrong = check_plan(after, shipped())
    assert any("calibrated" in b.what and b.name == "evidence" for b in wrong.breaches)


@pytest.mark.parametrize("own", [measured_on("L40S", engine="sglang"), measured_on("H100-SXM-80GB"), measured_on("L40S", architecture="")])
def test_what_was_measured_of_another_engine_gpu_or_model_is_none(own: Calibration) -> None:
    found = planned(own).deployments[0].evidence
    assert found
    assert found.tier != "calibrated"


def test_it_is_near_enough_where_anchored_evidence_is_asked_for_and_not_where_measured_is() -> None:
    with pytest.raises(Infeasible):
        planned(evidence="anchored")
    assert planned(measured_on("L40S"), evidence="anchored").deployments[0].gpu == "L40S"
    with pytest.raises(Infeasible):
        planned(measured_on("L40S"), evidence="measured")


def test_a_prediction_of_one_replica_is_corrected_and_says_so() -> None:
    asked = AskedConfiguration("Qwen/Qwen3-4B-Instruct-2507", "L40S", 1, 1, 1, 1, "auto", "vllm", 1000, 300, (8,), 0.9)
    before, after = (forecast(asked, replace(shipped(), calibrated=own)) for own in ((), (measured_on("L40S", step=1.5),)))
    assert after.points[0].tpot_ms == pytest.approx(1.5 * before.points[0].tpot_ms, rel=1e-3)
    assert after.tier == "calibrated" != before.tier


def test_engines_of_which_no_records_are_known_say_whose_factor_they_take() -> None:
    found = planned().deployments[0].evidence
    assert found
    assert found.tuning_taken == {"record": "trtllm"}
