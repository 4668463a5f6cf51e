"""The kriged residual: meets what it was trained on, says nothing far away, and its folds never see what they test."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")

from planner.calibration import bands, krige
from planner.calibration import fit as fitting
from planner.calibration import measured as measured_rows
from planner.catalog.cards import read_card
from planner.catalog.files import read_csv
from planner.catalog.records import Gpu
from planner.performance.coefficients import load_coefficients, narrowed
from planner.performance.replicas import ENGINES
from planner.performance.residual import GROUPS, LOADS, UNDATED, Features, Kernel, Residual, group_keys, load_residuals, month_of, month_words, residual

ROOT = Path(__file__).parents[1]
KERNEL = Kernel(np.full(len(GROUPS), 0.04), 2.0, (3.0, 3.0, 2.0), 0.01, 0.0, 1.0)


def places(*rows: tuple[str, str, int]) -> Features:
    """Configurations of (model, gpu, tp) on one engine."""
    keys = [group_keys(model, f"generation of {gpu}", gpu, f"engine of {model}", "fp8") for model, gpu, _ in rows]
    return Features(tuple(zip(*keys, strict=True)), np.log2(np.array([[1024.0, 1024.0, tp] for *_, tp in rows])), np.full(len(rows), float(UNDATED)))


@lru_cache
def measured() -> tuple[measured_rows.FitRows, tuple[str, ...]]:
    cards = [read_card(path) for path in sorted((ROOT / "models").glob("*.toml"))]
    rows = measured_rows.read_rows([ROOT / "catalogs" / "curves.csv"], cards, read_csv(ROOT / "catalogs" / "gpus.csv", Gpu), Counter())
    return rows, tuple(card.name for card in cards)


def test_the_process_meets_its_points_and_knows_nothing_far_away() -> None:
    asked, loads, missed = places(("a", "x", 1), ("b", "y", 4)), np.log2([4.0, 64.0]), np.array([0.3, -0.2])
    alpha = krige.solve(KERNEL, asked, loads, missed)
    found = residual(KERNEL, asked, np.array([0, 1]), loads, alpha)
    at = found.at_loads(asked)
    assert at[0, np.flatnonzero(LOADS == 2)[0]] == pytest.approx(0.3, abs=0.01)
    assert at[1, np.flatnonzero(LOADS == 6)[0]] == pytest.approx(-0.2, abs=0.01)
    assert abs(at[0, -1]) < 1e-3  # far in load
    near, far = found.at_loads(places(("a", "x", 2))), found.at_loads(places(("c", "z", 1)))
    assert 0.1 < near[0, 4] < 0.3
    assert np.allclose(far, 0)


def test_what_was_not_measured_has_no_weight() -> None:
    asked = places(("a", "x", 1), ("a", "x", 2), ("b", "y", 1))
    alpha = krige.solve(KERNEL, asked, np.zeros(3), np.array([0.1, np.nan, 0.2]))
    assert alpha[1] == 0 and (alpha[[0, 2]] != 0).all()


def test_corrections_are_cut() -> None:
    asked = places(("a", "x", 1))
    found = residual(KERNEL, asked, np.array([0]), np.zeros(1), krige.solve(KERNEL, asked, np.zeros(1), np.array([5.0])))
    assert found.at_loads(asked).max() == pytest.approx(0.7)


def test_a_configuration_is_the_same_whoever_measured_it() -> None:
    rows, _ = measured()
    two = rows.take(np.flatnonzero(rows.harness == 0)[[0, 0]])
    ours = replace(two, harness=np.array([0, 1]), input_tokens=np.array([921.6, 1024.0]), output_tokens=np.array([921.6, 1024.0]))
    assert len(set(krige.configurations(ours).tolist())) == 1
    assert len(set(krige.configurations(replace(ours, output_tokens=np.array([921.6, 2048.0]))).tolist())) == 2


def test_folds_never_train_on_what_they_test(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, names = measured()
    whole, seen = fitting.LAYOUT.start, []
    coefficients = load_coefficients(ROOT / "catalogs" / "coefficients.json")
    stored = load_residuals(ROOT / "catalogs" / "residuals.json")

    def instead(train: measured_rows.FitRows, *_: object) -> krige.Trained:
        seen.append(set(krige.configurations(train).tolist()))
        return krige.Trained(coefficients, stored, (whole, whole), replace(stored, tpot=None, ttft=None))

    monkeypatch.setattr(krige, "train", instead)
    monkeypatch.setattr(fitting, "fit", lambda *_: whole)
    folds = krige.splits(rows)["configuration"][0]
    found = krige.held_out(rows, names, stored.kernels, whole, folds)
    for fold, trained in zip(sorted(set(folds.tolist())), seen, strict=True):
        assert not trained & set(krige.configurations(rows)[folds == fold].tolist())
    assert np.isfinite(found.full["tpot"]).all() and np.isfinite(found.tps).all()


def test_quantiles_count_every_configuration_once() -> None:
    ratio, keys = np.array([1.0, 1.0, 1.0, 1.0, 2.0]), np.array(["a", "a", "a", "a", "b"])
    assert fitting.step_quantiles(ratio, keys)["0.99"] == 2.0
    assert fitting.step_quantiles(np.append(ratio, np.nan), np.append(keys, "c")) == fitting.step_quantiles(ratio, keys)


def test_a_stack_is_as_sure_as_without_its_easiest_model() -> None:
    """Of vLLM's rows one model is left out in turn; an engine with rows of two models has no quantiles of its own."""
    rows, _ = measured()
    rng, keys = np.random.default_rng(0), krige.configurations(rows)
    ratio = np.exp(rng.normal(0, 0.1, len(rows)))
    hard = str(rows.model[rows.replicas.engine == ENGINES.index("vllm")][0])
    ratio[rows.model == hard] *= 1.5
    found = bands.stack_quantiles(rows, ratio, keys)
    for label, here in bands.stacks_of(rows):
        if label in found:
            own = np.where(here, ratio, np.nan)
            whole = fitting.step_quantiles(own, keys)
            without = [fitting.step_quantiles(np.where(rows.model != m, own, np.nan), keys)["0.9"] for m in set(rows.model[here].tolist())]
            assert found[label]["0.9"] in (whole["0.9"], *without) and found[label]["0.9"] >= whole["0.9"]
            assert found[label]["0.5"] == whole["0.5"]
    two = sorted(set(rows.model.tolist()))[:2]
    assert not bands.stack_quantiles(rows, np.where(np.isin(rows.model, two), ratio, np.nan), keys)


def test_a_stack_falls_back_to_its_engine_and_that_to_all() -> None:
    tables, by_stack = {"measured": {"0.9": 1.1}}, {"vllm": {"measured": {"0.9": 1.2}}, "vllm|hopper": {"measured": {"0.9": 1.3}}}
    found = {stack: narrowed(tables, by_stack, stack)["measured"]["0.9"] for stack in ("vllm|hopper", "vllm|ampere", "sglang|hopper")}
    assert found == {"vllm|hopper": 1.3, "vllm|ampere": 1.2, "sglang|hopper": 1.1}


def test_a_family_is_asked_of_its_newest_month_up_to_the_one_told() -> None:
    """Two months measured, one fast, one slow: the month told decides, the newest where none is told, the oldest for times before."""
    old, new = 12 * 2025 + 10, 12 * 2026 + 3
    trained = replace(places(("a", "x", 1), ("a", "x", 1)), months=np.array([old, new], dtype=float))
    kernel = replace(KERNEL, dated=1.0, months=0.5)
    alpha = krige.solve(kernel, trained, np.zeros(2), np.array([0.3, -0.2]))
    found = residual(kernel, trained, np.array([0, 1]), np.zeros(2), alpha)
    told = [np.nan, new, new + 7, new - 1, old, old - 3]
    asked = replace(places(*[("a", "x", 1)] * len(told)), months=np.array(told, dtype=float))
    assert found.measured_in(asked).tolist() == [new, new, new, old, old, old]
    assert np.sign(found.at_loads(asked)[:, 0]).tolist() == [-1, -1, -1, 1, 1, 1]
    assert np.isnan(found.measured_in(places(("b", "x", 1)))).all()


def test_what_ran_before_its_family_was_measured_is_older() -> None:
    """Where a month of the family is not known, nothing is: that one may be of any time."""
    old, new = month_of("2026-01"), month_of("2026-06")
    trained = replace(places(("a", "x", 1), ("a", "x", 1), ("b", "x", 1)), months=np.array([old, new, UNDATED], dtype=float))
    process = Residual(KERNEL, trained, np.zeros((3, len(LOADS))))
    asked = replace(places(*[("a", "x", 1)] * 4, ("b", "x", 1), ("c", "x", 1)), months=np.array([old - 1, old, new + 9, np.nan, old - 1, old - 1]))
    assert process.is_older(asked).tolist() == [True, False, False, False, False, False]


def test_months_are_read_and_written() -> None:
    assert month_words(month_of("2026-04-17")) == month_words(month_of("2026-04")) == "2026-04"
    assert month_of("") == month_of("spring") == month_of("2026-13") == UNDATED and month_words(UNDATED) == ""


def test_what_was_measured_late_differs_from_early() -> None:
    """Rows that tell a version only stand at its newest month."""
    point = measured_rows.read_points(ROOT / "catalogs" / "curves.csv", Counter())[0]
    bare = replace(point, version="9.9", month=UNDATED)
    months = [p.month for p in measured_rows.dated([bare, replace(bare, month=5), replace(bare, month=7), replace(bare, version="other")])]
    assert months == [7, 5, 7, UNDATED]


def test_writing_is_whole_and_readable(tmp_path: Path) -> None:
    rows, names = measured()
    some = rows.take(np.arange(60))
    kernels = load_residuals(ROOT / "catalogs" / "residuals.json").kernels
    quantiles = json.loads((ROOT / "catalogs" / "residuals.json").read_text())["quantiles"]
    trained = krige.train(some, names, kernels, fitting.LAYOUT.start)
    path = tmp_path / "residuals.json"
    krige.write({**krige.record(some, names, kernels, trained, {"curves.csv": "0"}), "quantiles": quantiles, "errors": {}}, path)
    again = load_residuals(path)
    assert [p.name for p in tmp_path.iterdir()] == ["residuals.json"]
    assert trained.residuals.tpot and again.tpot and np.allclose(again.tpot.weights, trained.residuals.tpot.weights, atol=2e-3)
    assert again.terms == trained.residuals.terms
