"""The fit of the coefficients: finds what made the data, is deterministic, and what it stored keeps its promises.

Runs on the shipped curves alone; the errors checked are those stored with the shipped coefficients.
"""

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
from planner.calibration import measured as measured_rows
from planner.catalog.cards import read_card
from planner.catalog.files import read_csv
from planner.catalog.records import Gpu
from planner.performance.coefficients import EFFICIENCIES, FACTORS, TIERS, UNSEEN

ROOT = Path(__file__).parents[1]
STORED = json.loads((ROOT / "catalogs" / "coefficients.json").read_text())


@lru_cache
def measured() -> tuple[measured_rows.FitRows, Counter[str]]:
    cards = [read_card(path) for path in sorted((ROOT / "models").glob("*.toml"))]
    refused: Counter[str] = Counter()
    rows = measured_rows.read_rows([ROOT / "catalogs" / "curves.csv"], cards, read_csv(ROOT / "catalogs" / "gpus.csv", Gpu), refused)
    return rows, refused


@lru_cache
def fitted() -> np.ndarray:
    return fitting.fit(measured()[0])


def test_the_shipped_curves_are_read_almost_whole() -> None:
    rows, refused = measured()
    lines = sum(1 for _ in (ROOT / "catalogs" / "curves.csv").open()) - 1
    assert len(rows) + sum(refused.values()) == lines
    assert len(rows) > 0.9 * lines
    assert (rows.decoding >= 1).all() and (rows.decoding <= rows.concurrency + 1).all()


def test_fit_is_deterministic_and_close_to_what_is_shipped() -> None:
    rows, _ = measured()
    assert np.array_equal(fitted(), fitting.fit(rows))
    _, tpot = fitting.predict(fitted(), rows)
    assert fitting.summary(rows.tpot_s / tpot)["median"] < 0.13
    value = dict(zip(fitting.LAYOUT.names, np.exp(fitted()), strict=True))
    for name in ("products", "experts", "attention"):
        assert value[name] == pytest.approx(STORED["values"][name], rel=0.2)


def test_fit_finds_the_coefficients_that_made_the_data() -> None:
    rows, _ = measured()
    truth = fitted() + np.where(np.isin(fitting.LAYOUT.names, ("layer_s", "link", "sequence_s")), -0.3, 0.0)
    ttft, tpot = fitting.predict(truth, rows)
    again = fitting.fit(replace(rows, tpot_s=tpot, ttft_s=ttft))
    found = fitting.predict(again, rows)
    assert fitting.summary(found[1] / tpot)["median"] < 0.02
    assert fitting.summary(found[0] / ttft)["median"] < 0.05


def test_efficiencies_stay_within_the_hardware() -> None:
    assert all(0 < STORED["values"][name] <= 1 for name in EFFICIENCIES)
    assert all(STORED["values"][name] >= 1 for name in FACTORS)
    assert STORED["vendors"]["AMD"] * STORED["generations"]["cdna3"] > 1.4  # measured on MI300X and MI325X


def test_held_out_errors_meet_the_bars() -> None:
    errors = STORED["errors"]
    assert errors["leave_model_out"]["tpot"]["median"] <= 0.15
    assert errors["leave_model_out"]["tpot"]["mean"] <= 0.20
    assert errors["leave_model_out"]["ttft_closed_loop"]["median"] <= 0.36
    assert errors["leave_gpu_out"]["tpot"]["median"] <= 0.14
    assert errors["leave_gpu_out"]["tpot"]["mean"] <= 0.19


def test_quantiles_rise_with_confidence_and_measurements_help() -> None:
    tables = STORED["step_quantiles"]
    assert set(tables) == {*TIERS, UNSEEN}
    for table in tables.values():
        values = [table[k] for k in sorted(table, key=float)]
        assert values == sorted(values)
    kriged = json.loads((ROOT / "catalogs" / "residuals.json").read_text())["quantiles"]["tpot"]
    assert kriged["measured"]["0.8"] < kriged["other_tp"]["0.8"] < tables["measured"]["0.8"] < tables["transferred"]["0.8"]


def test_an_unseen_generation_is_taken_to_be_as_bad_as_the_worst_left_out() -> None:
    errors, tables = STORED["errors"], STORED["step_quantiles"]
    left_out = errors["leave_generation_out"]["step_quantiles_by_generation"]
    assert set(left_out) == {"hopper", "blackwell", "cdna3", "cdna4"}
    for q, value in tables[UNSEEN].items():
        if float(q) < 0.5:  # to the other side the worst is the least
            assert value <= min(table[q] for table in left_out.values())
        else:
            assert value >= max(table[q] for table in left_out.values())
            assert value >= errors["leave_generation_out"]["step_quantiles_pooled"][q]
    assert errors["leave_generation_out"]["tpot"]["median"] <= 0.16


def test_a_generation_left_out_takes_no_part_in_its_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, _ = measured()
    fitted()  # before the fit is replaced
    trained: list[set[str]] = []

    def instead(train: measured_rows.FitRows, start: object) -> np.ndarray:
        trained.append(set(train.generation.tolist()))
        return fitted()

    monkeypatch.setattr(fitting, "fit", instead)
    fitting.held_out(rows, rows.generation, fitted())
    generations = set(rows.generation.tolist())
    assert sorted(map(sorted, trained)) == sorted(sorted(generations - {g}) for g in generations)


def test_unusable_rows_are_refused_by_reason() -> None:
    row = {"source": "inferencex_db_via_aic", "load_type": "closed_loop", "mode": "agg", "spec_decode": "none", "concurrency": "4", "tp": "4", "engine": "vllm"}
    row |= {"ttft_ms_mean": "100", "tpot_ms_mean": "10", "notes": "", "dp_attn": "1"}
    assert measured_rows._refusal(row) == ""
    for key, value, reason in (
        ("mode", "disagg", "disaggregated"),
        ("spec_decode", "mtp", "speculative decoding"),
        ("notes", "AMBIGUOUS: two values", "flagged AMBIGUOUS"),
        ("notes", "INCONSISTENT: x", "flagged INCONSISTENT"),
        ("dp_attn", "3", "GPUs that TP and attention data parallel do not explain"),
        ("tp", "72", "TP above 8"),
        ("concurrency", "", "no concurrency or latency"),
        ("source", "someone", "another kind of source"),
        ("engine", "atom", "engine not planned"),
    ):
        assert measured_rows._refusal(row | {key: value}) == reason


@pytest.mark.parametrize(
    ("columns", "sizes"),
    [
        ({"tp": "8", "dp_attn": "True"}, (8, 8)),  # only its use is told: every GPU is a group
        ({"tp": "1", "dp_attn": "8", "gpus_total": "8"}, (8, 8)),  # TP counts the GPUs of a group
        ({"tp": "2", "dp_attn": "2", "gpus_total": "4"}, (4, 2)),
        ({"tp": "4", "dp_attn": "False"}, (4, 1)),
        ({"tp": "4", "dp": "4"}, (4, 4)),
    ],
)
def test_gpus_and_attention_groups_are_told_apart(columns: dict[str, str], sizes: tuple[int, int]) -> None:
    assert measured_rows._sizes(columns) == sizes
