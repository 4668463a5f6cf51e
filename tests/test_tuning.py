"""How engines are set, as a dimension of evidence: what is known of it, what it does to plans, and how far the fit's batches reach."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from planner import Plan, Scenario, load_catalog, solve
from planner.bench.points import read_points
from planner.check.check import check_plan
from planner.errors import CatalogError
from planner.performance.coefficients import UNSEEN, load_coefficients
from planner.performance.evidence import evidence, step_shift
from planner.performance.lengths import lognormal_mix
from planner.performance.replicas import ENGINES, PRECISIONS, Replicas
from planner.performance.tuning import SHARES, tuned, tuned_factor
from planner.planning.infeasible import Infeasible
from planner.validation.predictions import predict_points
from tests.conftest import Run

ROOT = Path(__file__).parents[1]


@cache
def planned(tuning: str) -> Plan:
    asked = {
        "workload": [{"qps": 40, "min_quality": 0.7}],
        "policy": {"tuning": tuning, "engines": ["vllm"]},
        "supply": {"gpus": ["B200-SXM", "H100-SXM-80GB"]},
    }
    return solve(Scenario.model_validate(asked), load_catalog(), compare=False)


def test_engines_as_they_start_cost_more_than_a_recipe_and_a_recipe_more_than_a_record() -> None:
    costs = [planned(t).cost.usd_per_hour for t in ("record", "recipe", "default")]
    assert costs[0] <= costs[1] <= costs[2] and costs[0] < costs[2]


def test_a_plan_says_what_its_engines_would_take_set_otherwise_and_planning_so_takes_no_more() -> None:
    plan = planned("recipe")
    for tuning in ("default", "record"):
        stated = sum(d.usd_per_hour * (d.evidence.replicas_by_tuning[tuning] or np.inf) / d.replicas for d in plan.deployments if d.evidence)
        assert planned(tuning).cost.usd_per_hour <= stated * (1 + 1e-9)
    assert [d.evidence.tuning for d in plan.deployments if d.evidence] == ["recipe"] * len(plan.deployments)


@pytest.mark.parametrize("tuning", ["default", "recipe", "record"])
def test_the_check_derives_replicas_of_other_settings_again(tuning: str) -> None:
    plan, catalog = planned(tuning), load_catalog()
    assert check_plan(plan, catalog).ok
    first = plan.deployments[0]
    assert first.evidence
    other = next(iter(first.evidence.replicas_by_tuning))
    wrong = first.evidence.model_copy(update={"replicas_by_tuning": first.evidence.replicas_by_tuning | {other: 1000}})
    report = check_plan(plan.model_copy(update={"deployments": (first.model_copy(update={"evidence": wrong}), *plan.deployments[1:])}), catalog)
    assert any(f"engines set as {other}" in b.what for b in report.breaches)


def test_curves_of_a_recipe_are_no_measurement_of_engines_as_they_start() -> None:
    asked = {"workload": [{"qps": 5, "models": ["Llama-3.1-70B"]}], "policy": {"evidence": "measured", "tuning": "default"}}
    with pytest.raises(Infeasible):
        solve(Scenario.model_validate(asked), load_catalog(), compare=False)


def test_the_factor_is_the_median_times_the_wider_band_and_of_an_unknown_engine_the_slowest() -> None:
    catalog = load_catalog()
    one = Replicas(
        (catalog.cards[0].architecture,),
        tuple(catalog.gpus.values())[:1],
        *(np.zeros(3, dtype=np.int64),) * 3,
        np.arange(3),
        *(np.ones(3, dtype=np.int64),) * 2,
    )
    fitted = replace(load_coefficients(catalog.coefficients_file), tuned=tuned("default", catalog))
    rows = [catalog.tuned["default", e] for e in ENGINES]
    at = tuned_factor(fitted, one, np.full(3, 0.8), np.full(3, 1.1))
    assert at == pytest.approx([r.q50 * max(r.q80 / r.q50, 1.1) / 1.1 for r in rows])
    narrow = tuned_factor(fitted, one, np.full(3, 0.8), np.full(3, 100.0))
    assert narrow == pytest.approx([r.q50 for r in rows])  # the prediction's own band is the wider one
    lacking = replace(fitted, tuned={k: v for k, v in fitted.tuned.items() if k != "vllm"})
    slowest = max(rows[1].q80, rows[2].q80)
    assert tuned_factor(lacking, one, np.full(3, 0.8), np.ones(3))[0] == pytest.approx(slowest)


def test_the_quantiles_follow_from_the_runs() -> None:
    pytest.importorskip("scipy")
    from planner.calibration.tuning import AS_STARTED, as_started, rows

    catalog = load_catalog()
    found = rows("default", as_started(ROOT / "benchmarks" / "data" / "engines_as_started.csv", catalog), AS_STARTED)
    for row in found:
        kept = catalog.tuned[row.tuning, row.engine]
        assert [getattr(row, f"q{100 * s:02.0f}") for s in SHARES] == pytest.approx([getattr(kept, f"q{100 * s:02.0f}") for s in SHARES], rel=0.01)
    assert {r.engine for r in found} == {e for t, e in catalog.tuned if t == "default"}


def test_the_page_has_the_quantiles_of_the_catalogue() -> None:
    page, names = (ROOT / "docs" / "engines.md").read_text(), {"vllm": "vLLM", "sglang": "SGLang", "trtllm": "TensorRT-LLM"}
    for (tuning, engine), row in load_catalog().tuned.items():
        assert f"| `{tuning}` | {names[engine]} | {row.q20:.2f} | {row.q50:.2f} | {row.q80:.2f} | {row.q95:.2f} | {row.runs} | {row.setups} |" in page


def test_validation_reads_how_engines_were_set(tmp_path: Path) -> None:
    lines = list(csv.DictReader((ROOT / "examples" / "points.csv").open()))[:4]
    rows = [{**line, "tuning": t} for t in ("", "default", "record") for line in lines]
    path = tmp_path / "points.csv"
    with path.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    answers = predict_points(read_points(path), load_catalog(), 0.9)
    plain, default, record = (np.array([a.predicted["tpot_ms"] for a in answers[i : i + 4]]) for i in (0, 4, 8))
    assert (default > plain).all() and (record < default).all()
    wide, narrow = (a.band["tpot_ms_high"] / a.predicted["tpot_ms"] for a in (answers[4], answers[0]))
    assert wide > narrow and answers[4].tier != "measured"
    path.write_text(path.read_text().replace(",default", ",defalt"))
    assert any("did" in p.unread or "none of default" in p.unread for p in read_points(path))


def test_beyond_the_batches_of_the_fit_the_band_is_that_of_unknown_generations() -> None:
    catalog = load_catalog()
    names, gpus = [c.name for c in catalog.cards], list(catalog.gpus)
    key = next(k for k, most in load_coefficients(catalog.coefficients_file).reach.items() if most < 100)
    gpu, precision = key.split("|")
    numbers = (names.index("Qwen3-32B"), gpus.index(gpu), PRECISIONS.index(precision), 0, 1, 1)
    one = Replicas(tuple(c.architecture for c in catalog.cards), tuple(catalog.gpus.values()), *(np.array([n], dtype=np.int64) for n in numbers))
    fitted = load_coefficients(catalog.coefficients_file)
    most, found = float(fitted.reached(one)[0]), evidence(one, tuple(names), catalog.measured)
    shift = step_shift(found, one, tuple(names), replace(fitted, path=None), 0.9, lognormal_mix(1000, 300, 0, 0), np.array([most, 4 * most]))
    inside, beyond = shift.step[0]
    assert inside == pytest.approx(float(fitted.step_factor(found.tier, 0.9)[0]))
    assert beyond == pytest.approx(max(inside, fitted.quantile(UNSEEN, 0.9)))


def test_a_tuning_of_which_nothing_is_known_is_refused() -> None:
    with pytest.raises(CatalogError, match="nothing is known of engines tuned as 'default'"):
        tuned("default", replace(load_catalog(), tuned={}))


def test_the_page_says_how_engines_are_set(run: Run) -> None:
    status, out, _ = run("--qps", "20", "--min-quality", "0.7", "--gpu", "B200-SXM", "--tuning", "default")
    assert status == 0 and "default; recipe" in out
    status, _, err = run("--qps", "20", "--tuning", "defaults")
    assert status == 2 and "default" in err


def test_what_is_left_out_of_the_rows_is_left_out_of_the_maxima() -> None:
    pytest.importorskip("scipy")
    from planner.calibration import measured as measured_rows

    data = ROOT.parent / "shared" / "data" / "measured"
    if not data.is_dir():
        pytest.skip("the maxima are not shipped")
    from planner.catalog.cards import read_card

    cards = [read_card(path) for path in sorted((ROOT / "models").glob("*.toml"))]
    rows = measured_rows.read_rows(measured_rows.data_files(data), cards, list(load_catalog().gpus.values()), Counter())
    assert rows.maxima is not None
    model, gpu = "gpt-oss-120b", "H200-SXM-141GB"
    without = rows.take(np.flatnonzero((rows.model != model) & (rows.gpu != gpu)))
    assert without.maxima is not None and len(without.maxima) > 0
    assert model not in without.maxima.model and gpu not in without.maxima.gpu
