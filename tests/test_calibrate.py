"""What a handful of measurements teach: an engine on a GPU, a model on it, its TP, and nothing beyond them."""

from __future__ import annotations

import csv
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from planner import Scenario, load_catalog, solve
from planner.bench.points import MeasuredPoint, read_points
from planner.performance.replicas import Floats
from planner.validation.calibrate import Learnt, learn
from planner.validation.predictions import predict_points
from tests.conftest import Run

TODAY = date(2026, 11, 28)
COLUMNS = ("model", "precision", "gpu", "engine", "tp", "isl", "osl", "concurrency", "tpot_ms_mean", "ttft_ms_mean")
QWEN, LLAMA = "Qwen/Qwen3-32B-FP8", "meta-llama/Llama-3.1-70B"
Asked = tuple[str, str, str, str, int, int, int, int]


def rows_at(tmp_path: Path, asked: list[Asked], slower: float) -> list[MeasuredPoint]:
    """Measurements that are so many times what is predicted."""
    path = tmp_path / "asked.csv"
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(COLUMNS)
        writer.writerows((*row, 1.0, 1.0) for row in asked)
    points = read_points(path)
    answers = predict_points(points, load_catalog(), 0.5)
    return [
        replace(p, measured={"tpot_ms_mean": a.predicted["tpot_ms"] * slower, "ttft_ms_mean": a.predicted["ttft_ms"] * slower})
        for p, a in zip(points, answers, strict=True)
    ]


def five(model: str = QWEN, gpu: str = "H100-SXM-80GB", tp: int = 2, engine: str = "vllm") -> list[Asked]:
    return [(model, "fp8", gpu, engine, tp, 1000, 300, n) for n in (1, 4, 16, 64, 128)]


def taught(tmp_path: Path, slower: float = 1.5) -> Learnt:
    return learn(rows_at(tmp_path, five(), slower), load_catalog(), "mine.csv", TODAY)


def predicted(tmp_path: Path, asked: list[Asked], learnt: Learnt | None) -> Floats:
    catalog = load_catalog()
    points = rows_at(tmp_path, asked, 1.0)
    return np.array([a.predicted["tpot_ms"] for a in predict_points(points, replace(catalog, calibrated=learnt.calibration if learnt else ()), 0.5)])


def test_five_points_correct_their_configuration_its_neighbours_in_part_and_nothing_else(tmp_path: Path) -> None:
    learnt = taught(tmp_path)
    gain = {
        name: float(np.median(predicted(tmp_path, asked, learnt) / predicted(tmp_path, asked, None)))
        for name, asked in {
            "itself": five(),
            "other TP": five(tp=4),
            "sister model": five(model=LLAMA, tp=4),
            "other engine": five(engine="sglang"),
            "other GPU": five(gpu="H200-SXM-141GB"),
        }.items()
    }
    assert 1.4 < gain["itself"] <= 1.5
    assert 1.3 < gain["other TP"] <= gain["itself"]
    assert 1.2 < gain["sister model"] <= gain["other TP"]
    assert gain["other engine"] == gain["other GPU"] == pytest.approx(1.0)


def test_errors_fall_and_are_told(tmp_path: Path) -> None:
    learnt = learn(rows_at(tmp_path, [*five(), *five(tp=4)], 1.5), load_catalog(), "mine.csv", TODAY)
    tpot = next(e for e in learnt.errors if e.metric == "tpot_ms")
    assert tpot.before == pytest.approx(1 / 3, abs=1e-6)  # 1 - 1/1.5
    assert tpot.after < 0.05 and tpot.left_out is not None and tpot.left_out < 0.12


def test_what_is_right_already_stays(tmp_path: Path) -> None:
    assert all(c.step == pytest.approx(1.0, abs=1e-3) for c in taught(tmp_path, slower=1.0).calibration)


def test_the_levels_agree_with_the_gaussian_conditional_worked_out_by_hand(tmp_path: Path) -> None:
    """One row: log ratio y, prior variances a², b², c², d², n²: the effect of level k is y·k²/(a² + b² + c² + d² + n²)."""
    learnt = learn(rows_at(tmp_path, five()[:1], 1.5), load_catalog(), "mine.csv", TODAY)
    total = 0.40**2 + 0.15**2 + 0.10**2 + 0.08**2 + 0.05**2
    assert [np.log(c.step) for c in learnt.calibration] == pytest.approx([np.log(1.5) * sd**2 / total for sd in (0.40, 0.15, 0.10)], abs=2e-4)
    known = 0.40**2 + 0.15**2 + 0.10**2
    assert [c.step_sd for c in learnt.calibration] == pytest.approx([(total - v**2 / total) ** 0.5 for v in (0.40**2, 0.40**2 + 0.15**2, known)], abs=2e-4)


def test_plans_use_it_and_say_so(tmp_path: Path) -> None:
    asked = {"workload": [{"qps": 40, "models": ["Qwen3-32B"]}], "policy": {"engines": ["vllm"]}, "supply": {"gpus": ["H100-SXM-80GB"]}}
    catalog, learnt = load_catalog(), learn(rows_at(tmp_path, [*five(), *five(tp=4), *five(tp=1)], 2.0), load_catalog(), "mine.csv", TODAY)
    plain, corrected = (solve(Scenario.model_validate(asked), replace(catalog, calibrated=c), compare=False) for c in ((), learnt.calibration))
    assert corrected.cost.usd_per_hour > 1.4 * plain.cost.usd_per_hour


def test_a_plan_that_leaves_the_measured_engine_for_one_that_is_cheaper_by_prediction_says_so(tmp_path: Path) -> None:
    asked = {"workload": [{"qps": 40, "models": ["Qwen3-32B"]}], "policy": {"engines": ["vllm", "sglang"]}, "supply": {"gpus": ["H100-SXM-80GB"]}}
    learnt = learn(rows_at(tmp_path, [*five(), *five(tp=4), *five(tp=1)], 3.0), load_catalog(), "mine.csv", TODAY)
    plan = solve(Scenario.model_validate(asked), replace(load_catalog(), calibrated=learnt.calibration), compare=False)
    assert [d.engine for d in plan.deployments] == ["sglang"]
    told = asked | {"policy": {"engines": ["sglang"]}}
    one = solve(Scenario.model_validate(told), replace(load_catalog(), calibrated=learnt.calibration), compare=False)
    assert not any("you measured" in w for w in one.warnings)  # who asks for that engine alone knows it
    said = "you measured Qwen3-32B on H100-SXM-80GB on vllm; sglang is cheaper by prediction alone (--engine vllm keeps to what you measured)"
    assert said in plan.warnings


def test_an_open_loop_counts_at_the_requests_it_held(tmp_path: Path) -> None:
    """Ten tokens/s per ms of TPOT are ten requests decoding: the row is the closed loop of ten."""
    loop = rows_at(tmp_path, [(QWEN, "fp8", "H100-SXM-80GB", "vllm", 2, 1000, 300, 10)], 1.3)[0]
    tpot = loop.measured["tpot_ms_mean"]
    open_loop = replace(
        loop, load="open_loop", concurrency=None, request_rate=3.0, measured={"tpot_ms_p50": tpot, "output_tps_total": 10_000 / tpot, "ttft_ms_p50": 9e4}
    )
    same, other = (learn([p], load_catalog(), "mine.csv", TODAY) for p in (replace(loop, measured={"tpot_ms_mean": tpot}), open_loop))
    assert [c.step for c in same.calibration] == pytest.approx([c.step for c in other.calibration], rel=1e-6)


def test_the_command_writes_a_catalogue_that_plans_with_it(run: Run, tmp_path: Path) -> None:
    points = rows_at(tmp_path, five(), 1.5)
    path, folder = tmp_path / "mine.csv", tmp_path / "mine"
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(COLUMNS)
        writer.writerows((*row, p.measured["tpot_ms_mean"], p.measured["ttft_ms_mean"]) for row, p in zip(five(), points, strict=True))
    status, out, err = run("calibrate", str(path), "-o", str(folder))
    assert status == 0, err
    assert "5 measurements teach" in out and "vllm on H100-SXM-80GB" in out
    status, out, _ = run("validate", str(path), "--catalog", str(folder))
    assert status == 0 and "5 of 5 rows predicted" in out
    lines = (folder / "calibration.csv").read_text().splitlines()
    assert lines[0].startswith("gpu,engine,architecture,tp,step") and len(lines) == 4


@pytest.mark.parametrize(("cells", "says"), [(("", "1.0", "1.0"), "TP not recorded"), (("2", "", ""), "has neither TTFT nor TPOT")])
def test_rows_that_teach_nothing_are_named_and_nothing_is_written(run: Run, tmp_path: Path, cells: tuple[str, str, str], says: str) -> None:
    path, folder = tmp_path / "mine.csv", tmp_path / "mine"
    path.write_text(",".join(COLUMNS) + f"\n{QWEN},fp8,H100-SXM-80GB,vllm,{cells[0]},1000,300,4,{cells[1]},{cells[2]}\n")
    status, _, err = run("calibrate", str(path), "-o", str(folder))
    assert status == 2 and says in err and not folder.exists()


def test_benchmarks_of_tools_teach_and_bounds_do_not(run: Run, tmp_path: Path) -> None:
    bench = Path(__file__).parent / "data" / "bench"
    files = [bench / name for name in ("inferencex-agg.handwritten.json", "trtllm-bench-report.handwritten.json")]
    status, out, err = run("calibrate", *files, "-o", tmp_path / "mine")
    assert status == 0, err
    assert "1 measurement teaches" in out and "an upper bound" in out and "trtllm-bench-report.handwritten.json 1" in out
    rows = list(csv.DictReader((tmp_path / "mine" / "calibration.csv").open()))
    assert {(r["engine"], r["gpu"]) for r in rows} == {("vllm", "H100-SXM-80GB")}
    status, _, err = run("calibrate", files[1], "-o", tmp_path / "none")
    assert status == 2 and "an upper bound" in err and not (tmp_path / "none").exists()
