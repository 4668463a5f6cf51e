"""Nearest measurements: ranked by what moves the error, with weights that the shipped curves give again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from planner import load_catalog
from planner.performance.coefficients import TIERS, load_coefficients
from planner.performance.evidence import APART, evidence
from planner.performance.replicas import ENGINES, PRECISIONS, Replicas

ROOT = Path(__file__).parents[1]


def nearest(model: str, precision: str, gpu: str, engine: str, tp: int) -> tuple[str, str]:
    """Tier and nearest configuration of one replica type."""
    catalog = load_catalog()
    names, gpus = [c.name for c in catalog.cards], list(catalog.gpus)
    numbers = (names.index(model), gpus.index(gpu), PRECISIONS.index(precision), ENGINES.index(engine), tp, 1)
    one = Replicas(tuple(c.architecture for c in catalog.cards), tuple(catalog.gpus.values()), *(np.array([n], dtype=np.int64) for n in numbers))
    found = evidence(one, tuple(names), catalog.measured)
    m = catalog.measured[int(found.nearest[0])]
    return TIERS[int(found.tier[0])], f"{m.architecture} {m.precision} {m.gpu} {m.engine} TP{m.tp}"


def test_a_sparse_4_bit_model_has_one_for_its_nearest_on_the_same_engine_and_tp() -> None:
    assert nearest("Qwen3-Next-80B-A3B", "nvfp4", "B200-SXM", "vllm", 1) == ("transferred", "MiniMax-M2 nvfp4 B200-SXM vllm TP1")


def test_the_same_architecture_comes_before_any_other_and_the_same_configuration_first() -> None:
    assert nearest("Llama-3.1-70B", "fp8", "B200-SXM", "vllm", 2) == ("measured", "Llama-3.1-70B fp8 B200-SXM vllm TP2")
    assert nearest("Llama-3.1-70B", "bf16", "B200-SXM", "vllm", 4) == ("anchored", "Llama-3.1-70B fp8 B200-SXM vllm TP4")


def test_the_weights_follow_from_the_shipped_curves() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    from planner.calibration import krige
    from planner.calibration import measured as measured_rows
    from planner.catalog.cards import read_card
    from planner.performance.residual import load_residuals

    cards, catalog = [read_card(path) for path in sorted((ROOT / "models").glob("*.toml"))], load_catalog()
    rows = measured_rows.read_rows([ROOT / "catalogs" / "curves.csv"], cards, list(catalog.gpus.values()), Counter())
    plain = replace(load_residuals(ROOT / "catalogs" / "residuals.json"), tpot=None, ttft=None)
    missed = krige.residuals_in_logs(rows, load_coefficients(ROOT / "catalogs" / "coefficients.json"), plain)["tpot"]
    r = rows.replicas
    unique, which = np.unique(np.stack((r.gpu, r.architecture, r.precision, r.engine, r.tp, r.dp), axis=1), axis=0, return_inverse=True)
    mean = np.bincount(which.ravel(), missed) / np.bincount(which.ravel())
    active = np.log2([cards[a].architecture.active_parameters for a in unique[:, 1]])
    left, right = np.triu_indices(len(unique), 1)
    same = unique[left, 0] == unique[right, 0]
    left, right = left[same], right[same]
    differs = [unique[left, c] != unique[right, c] for c in (2, 3)]
    doublings = [np.abs(v[left] - v[right]) for v in (np.log2(unique[:, 4]), active)]
    weights, _ = optimize.nnls(np.stack([*differs, *doublings], axis=1).astype(float), (mean[left] - mean[right]) ** 2)
    assert weights == pytest.approx(list(APART.values()), abs=0.001)


def test_the_page_speaks_of_the_model_by_the_name_it_was_asked_for(run: Callable[..., tuple[int, str, str]]) -> None:
    page = run("--qps", "20", "--model", "Llama-3.3-70B", "--details", "--format", "markdown")[1]
    assert "another model than Llama-3.3-70B" in " ".join(page.split())
    assert "Llama-3.1-70B" not in page.replace("Llama-3.1-70B (same", "")
    found = json.loads(run("--qps", "1", "--model", "DeepSeek-R1", "--output-factor", "2", "--ttft", "none", "--no-alternatives", "--format", "json")[1])
    assert found["deployments"] and all("Distill" not in d["checkpoint"] for d in found["deployments"])
    assert found["deployments"][0]["evidence"]["source"].startswith("DeepSeek-V3 (same architecture) ")
