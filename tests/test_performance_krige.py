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

from planner.calibration import fit as fitting
from planner.calibration import krige
from planner.calibration import measured as measured_rows
from planner.catalog.cards import read_card
from planner.catalog.files import read_csv
from planner.catalog.records import Gpu
from planner.performance.coefficients import load_coefficients
from planner.performance.residual import GROUPS, LOADS, Features, Kernel, group_keys, load_residuals, residual

ROOT = Path(__file__).parents[1]
KERNEL = Kernel(np.full(len(GROUPS), 0.04), 2.0, (3.0, 3.0, 2.0), 0.01)


def places(*rows: tuple[str, str, int]) -> Features:
    """Configurations of (model, gpu, tp) on one engine."""
    keys = [group_keys(model, f"generation of {gpu}", gpu, f"engine of {model}", "fp8") for model, gpu, _ in rows]
    return Features(tuple(zip(*keys, strict=True)), np.log2(np.array([[1024.0, 1024.0, tp] for *_, tp in rows])))


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
    assert krige.quantiles(ratio, keys)["0.99"] == 2.0
    assert krige.quantiles(np.append(ratio, np.nan), np.append(keys, "c")) == krige.quantiles(ratio, keys)


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
