"""`plan validate` of rates: bands of percentiles, lengths of shapes that rows name, and rows that keep their place whatever a cell holds."""

from __future__ import annotations

import csv
import io
import tempfile
from functools import cache
from pathlib import Path

import pytest

from planner import Catalog, load_catalog
from planner.bench.points import KNOWN, OTHER_NAMES, MeasuredPoint, read_points
from planner.validation.compare import compare, record
from planner.validation.predictions import RowPrediction, predict_points


@cache
def catalog() -> Catalog:
    return load_catalog()


GOOD = {"model": "meta-llama/Llama-3.1-8B-Instruct", "gpu": "H100-SXM-80GB", "engine": "vllm", "tp": "1", "isl": "512", "osl": "256", "request_rate": "2"}


@pytest.mark.parametrize("column", [c for c in KNOWN if c not in OTHER_NAMES])
def test_a_row_keeps_its_place_whatever_one_cell_holds(column: str, tmp_path: Path) -> None:
    """Blank, a word, a number that is none, and one beyond sense: each row is predicted, or says why not, and spoils no other."""
    header, path = list(dict.fromkeys((*GOOD, column))), tmp_path / "points.csv"
    with path.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, header, restval="")
        writer.writeheader()
        writer.writerows([GOOD, *({**GOOD, column: cell} for cell in ("", "x", "nan", "-1", "1e99"))])
    answers = predict_points(read_points(path), catalog(), 0.9)
    assert len(answers) == 6
    assert answers[0].predicted["ttft_ms_p99"] > 0
    assert all(a.predicted or a.reason for a in answers)


def poisson(**other: str) -> RowPrediction:
    """The answer to the good row with some cells changed."""
    text = io.StringIO()
    row = {**GOOD, **other}
    csv.DictWriter(text, list(row)).writerow(row)
    path = Path(tempfile.mkdtemp()) / "points.csv"
    path.write_text(",".join(row) + "\n" + text.getvalue())
    return predict_points(read_points(path), catalog(), 0.9)[0]


def test_percentiles_of_a_rate_lie_in_bands_that_grow_with_the_load_until_they_have_no_end() -> None:
    widths = []
    for rate in ("1", "10", "15"):
        found = poisson(request_rate=rate)
        for metric in ("ttft", "tpot", "e2e"):
            for name in ("p50", "p90", "p99"):
                key = f"{metric}_ms_{name}"
                assert found.band[f"{key}_low"] < found.predicted[key] < found.band[f"{key}_high"]
        widths.append(found.band["ttft_ms_p99_high"] / found.predicted["ttft_ms_p99"])
    assert widths == sorted(widths)
    assert widths[0] > 1.3  # the formulas' own error and the prompt's
    full = poisson(request_rate="24")  # served with expected steps, not with those of 90 %
    assert full.band["ttft_ms_p99_high"] == float("inf")
    assert full.band["ttft_ms_p99_low"] < full.predicted["ttft_ms_p99"] < float("inf")


def test_the_summary_counts_what_lies_inside_both_ends() -> None:
    point = MeasuredPoint(2, "", "", "m", "", "g", "e", 1, 1, 1, 1, 1, "", "", 1, 1, "", "open_loop", None, 1.0, {"ttft_ms_p50": 100.0}, "")
    bands = ({"low": 90.0, "high": 110.0}, {"low": 101.0, "high": 110.0}, {"low": 50.0, "high": float("inf")}, {"low": 50.0, "high": 99.0})
    answers = [RowPrediction("poisson", {"ttft_ms_p50": 100.0}, {f"ttft_ms_p50_{side}": v for side, v in b.items()}) for b in bands]
    found = compare([point] * 4, answers, 0.9).overall["ttft_ms_p50"]
    assert (found.covered, found.inside) == (0.75, 0.5)
    assert [record(point, a)["inside_ttft_ms_p50"] for a in answers] == [True, False, True, False]
    assert record(point, answers[2])["predicted_ttft_ms_p50_high"] is None


def test_lengths_are_those_of_the_shape_that_a_row_names_and_of_no_other() -> None:
    chat, named, mlperf = (poisson(workload=w) for w in ("ShareGPT", "trace azure-2023-code", "MLPerf Server, dataset of llama3.1-8b"))
    assert "lengths spread" not in chat.note
    assert named.note.endswith("lengths spread as in azure-2023-code")
    assert mlperf.note.endswith("lengths spread as in mlperf-llama3.1-8b-cnndm")
    assert named.predicted["e2e_ms_p99"] != chat.predicted["e2e_ms_p99"]
    assert named.predicted["ttft_ms"] == pytest.approx(chat.predicted["ttft_ms"], rel=0.5)  # the means are the row's
    assert "lengths spread" not in poisson(workload="random, as long as azure-2023-code").note
    assert "lengths spread" not in poisson(workload="Server, dataset of llama3.1-8b").note
