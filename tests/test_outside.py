"""Sources that took no part in any fit: their files read, contradict themselves nowhere, are in no catalogue, and the page says what the results hold."""

from __future__ import annotations

import csv
import json
import runpy
from collections import Counter
from pathlib import Path

import pytest

from planner.bench.points import read_points
from planner.calibration.maxima import read_maxima
from planner.calibration.measured import CHECKPOINTS
from planner.catalog.cards import read_card
from planner.catalog.files import read_csv
from planner.catalog.load import load_catalog
from planner.catalog.records import Gpu
from planner.validation.predictions import predict_points

ROOT = Path(__file__).resolve().parents[1]
POINTS, MLPERF = (ROOT / "benchmarks" / "data" / name for name in ("took_no_part.csv", "mlperf_v5.1_offline.csv"))
RESULTS = json.loads((ROOT / "benchmarks" / "results" / "outside.json").read_text())


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def test_every_row_says_where_it_is_from_and_is_predicted() -> None:
    for row in (*rows(POINTS), *rows(MLPERF)):
        assert row["source_ref"].startswith("github:") and "@" in row["source_ref"] and row["license"].startswith("Apache-2.0") and row["date"], row
    points = read_points(POINTS)
    assert all(answer.predicted for answer in predict_points(points, load_catalog(()), 0.9))
    assert len(points) == sum(group["rows"] for group in RESULTS["points"].values())


def test_no_catalogue_has_seen_them() -> None:
    seen = "".join(path.read_text() for path in (ROOT / "catalogs").glob("*.*"))
    for source in {row["source_ref"].split("@")[0].removeprefix("github:") for row in rows(POINTS)}:
        assert source not in seen
    assert "v4.1" in seen and "v5.1" not in seen  # maxima of the round before are in


def test_requests_in_flight_are_rate_times_time() -> None:
    """Little's law, on what was measured alone; short runs count fewer on average than they admit."""
    for p in read_points(POINTS):
        ttft, tpot, tps = (p.measured.get(name) for name in ("ttft_ms_mean", "tpot_ms_mean", "output_tps_total"))
        if p.concurrency and ttft and tpot and tps and p.mode != "disagg":
            assert 0.85 < tps / p.osl * (ttft + tpot * (p.osl - 1)) / 1000 / p.concurrency < 1.08, p


def test_maxima_are_read_whole_and_per_gpu() -> None:
    refused = Counter[str]()
    cards = [read_card(path) for path in sorted((ROOT / "models").glob("*.toml"))]
    found = read_maxima(MLPERF, cards, read_csv(ROOT / "catalogs" / "gpus.csv", Gpu), CHECKPOINTS, refused)
    assert len(set(found.row.tolist())) == len(rows(MLPERF)) == RESULTS["maxima"]["all"]["rows"] and not sum(refused.values())
    for row in rows(MLPERF):
        assert float(row["output_tps_per_gpu"]) * int(row["gpus_total"]) == pytest.approx(float(row["output_tps_total"]), rel=1e-4)


def test_the_page_has_the_tables_of_the_results() -> None:
    page = (ROOT / "docs" / "accuracy.md").read_text()
    for lines in runpy.run_path(str(ROOT / "benchmarks" / "outside.py"))["tables"](RESULTS).values():
        assert "\n".join(lines) in page
