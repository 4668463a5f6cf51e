"""`plan import bench`: what was measured becomes evidence of one's own, and the same plan uses it: tier, band and decision follow."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from planner import Plan, load_catalog
from planner.bench.points import read_points
from planner.report.imported import points_csv
from planner.validation.kept import SOURCE
from tests.conftest import Run

BENCH = Path(__file__).parent / "data" / "bench"
VLLM = BENCH / "vllm-bench-serve-0.33.handwritten.json"
TOLD = ("--engine", "vllm@0.33.0", "--precision", "fp8", "--gpu", "H100-SXM-80GB")
A100 = ("--gpu", "A100-PCIe-80GB", "--tp", "1", "--engine", "vllm@0.19.0", "--precision", "bf16")
Row = dict[str, str]


def poisson() -> list[Row]:
    """Poisson runs on one A100 (vllm-cost-meter, MIT), which nothing of the fit is of."""
    return list(csv.DictReader((BENCH / "a100-poisson.csv").open()))


def as_vllm(row: Row) -> dict[str, Any]:
    """The row as `vllm bench serve` would have written it."""
    given = {f"{p}_{m}_ms": float(row[f"{m}_ms_{p}"]) for m in ("ttft", "tpot") for p in ("p50", "p90", "p99") if row[f"{m}_ms_{p}"]}
    return given | {
        "date": "20260610-120000", "backend": "openai", "model_id": row["model"], "completed": 100, "failed": 0, "total_input_tokens": 51200,
        "total_output_tokens": 25600, "request_rate": float(row["request_rate"]), "burstiness": 1.0, "max_concurrency": None,
        "request_throughput": float(row["request_rate_achieved"]), "output_throughput": float(row["output_tps_total"]),
        "mean_ttft_ms": float(row["ttft_ms_mean"]),
    }  # fmt: skip


def as_guidellm(row: Row) -> dict[str, Any]:
    """The row as GuideLLM would have written it: E2E in seconds, TPOT as inter-token latency."""

    def metric(value: object, percentiles: dict[str, float] | None = None) -> dict[str, Any]:
        one = {"mean": value, "percentiles": percentiles or {}}
        return {"successful": one, "total": one}

    def shares(name: str, factor: float = 1.0) -> dict[str, float]:
        return {p: float(row[f"{name}_ms_{p}"]) * factor for p in ("p50", "p90", "p99") if row[f"{name}_ms_{p}"]}

    metrics = {
        "request_totals": {"successful": 100, "errored": 0, "total": 100}, "prompt_token_count": metric(512.0), "output_token_count": metric(256.0),
        "requests_per_second": metric(float(row["request_rate_achieved"])), "output_tokens_per_second": metric(float(row["output_tps_total"])),
        "time_to_first_token_ms": metric(float(row["ttft_ms_mean"]), shares("ttft")), "inter_token_latency_ms": metric(None, shares("tpot")),
        "time_per_output_token_ms": metric(999.0), "request_latency": metric(None, shares("e2e", 1e-3)),
    }  # fmt: skip
    strategy = {"type_": "poisson", "rate": float(row["request_rate"])}
    one = {"config": {"strategy": strategy, "backend": {"model": row["model"]}}, "start_time": 1781092800.0, "metrics": metrics}
    return {"metadata": {"version": 2, "guidellm_version": "0.8.1"}, "config": {}, "benchmarks": [one]}


def as_aiperf(row: Row) -> dict[str, Any]:
    """The row as AIPerf would have written it."""

    def metric(name: str) -> dict[str, Any]:
        return {"unit": "ms"} | {p: float(row[f"{name}_ms_{p}"]) for p in ("p50", "p90", "p99") if row[f"{name}_ms_{p}"]}

    phase = {"kind": "profiling", "type": "poisson", "rate": float(row["request_rate"])}
    return {
        "schema_version": "1.4", "aiperf_version": "0.13.0", "input_config": {"models": {"items": [{"name": row["model"]}]}, "phases": [phase]},
        "request_count": {"unit": "requests", "avg": 100}, "time_to_first_token": metric("ttft"), "inter_token_latency": metric("tpot"),
        "request_latency": metric("e2e"), "request_throughput": {"unit": "requests/sec", "avg": float(row["request_rate_achieved"])},
        "output_token_throughput": {"unit": "tokens/sec", "avg": float(row["output_tps_total"])}, "input_sequence_length": {"unit": "tokens", "avg": 512.0},
        "output_sequence_length": {"unit": "tokens", "avg": 256.0}, "start_time": "2026-06-10T12:00:00",
    }  # fmt: skip


def planned(run: Run, *more: str) -> Plan:
    words = ("--qps", "24", "--isl", "512", "--osl", "256", "--model", "Llama-3.1-8B", "--gpu", "A100-PCIe-80GB", "--engine", "vllm", "--format", "json")
    status, out, err = run(*words, *more)
    assert status == 0, err
    return Plan.model_validate_json(out)


def test_plan_measure_import_plan(run: Run, tmp_path: Path) -> None:
    """Three rows, of one tool each: the replica's own configuration becomes measured, its band narrows, and the plan moves from 4 replicas to 3."""
    files = []
    for row, (name, made) in zip(poisson(), {"vllm": as_vllm, "guidellm": as_guidellm, "aiperf": as_aiperf}.items(), strict=True):
        files.append(tmp_path / f"{name}.json")
        files[-1].write_text(json.dumps(made(row)))
    status, out, err = run("import", "bench", *files, "-o", tmp_path / "mine", *A100)
    assert status == 0, err
    assert "3 runs taken into" in out and "modelled → measured" in out and "A100-PCIe-80GB" in out
    points = read_points(tmp_path / "mine" / "measured.csv")
    for point, row in zip(sorted(points, key=lambda p: p.request_rate or 0), sorted(poisson(), key=lambda r: float(r["request_rate"])), strict=True):
        assert point.measured["tpot_ms_p50"] == pytest.approx(float(row["tpot_ms_p50"]))
        assert point.measured["ttft_ms_p99"] == pytest.approx(float(row["ttft_ms_p99"]))
        assert (point.isl, point.osl, point.request_rate, point.date) == (512, 256, float(row["request_rate"]), "2026-06-10")

    before, after = planned(run), planned(run, "--catalog", str(tmp_path / "mine"))
    (old,), (new,) = before.deployments, after.deployments
    assert (old.evidence.tier, new.evidence.tier) == ("modelled", "measured")
    assert (old.replicas, new.replicas) == (4, 3)
    assert SOURCE in new.evidence.source and "3 of your measurements" in new.evidence.note
    width = [d.evidence.step_time_band["0.95"] / d.evidence.step_time_band["0.5"] for d in (old, new)]
    assert width[1] < 0.8 * width[0], width
    status, out, err = run("check", tmp_path / "p.json") if (tmp_path / "p.json").write_text(after.to_json()) else (1, "", "")
    assert status == 0, out + err


def test_what_was_measured_is_measured_its_sisters_are_calibrated_and_others_stay(run: Run, tmp_path: Path) -> None:
    """Of Llama-3.1-8B at TP1 in vLLM: the same at TP2 and in FP8 is corrected by it; another GPU is not."""
    assert run("import", "bench", BENCH / "a100-poisson.csv", "-o", tmp_path / "mine")[0] == 0
    tiers = {}
    for name, more in {"own": (), "TP2": ("--tp", "2"), "GPU": ("--gpu", "A100-SXM-80GB")}.items():
        words = ("--checkpoint", "meta-llama/Llama-3.1-8B-Instruct", "--gpu", "A100-PCIe-80GB", "--isl", "512", "--osl", "256", "--concurrency", "8")
        status, out, err = run("predict", *words, *more, "--catalog", tmp_path / "mine", "--format", "json")
        assert status == 0, err
        tiers[name] = json.loads(out)["evidence"]["tier"]
    assert tiers["own"] == "measured" and tiers["TP2"] == "calibrated" and tiers["GPU"] not in ("measured", "calibrated")


def test_a_run_counts_once_whatever_file_it_stands_in(run: Run, tmp_path: Path) -> None:
    mine, text = tmp_path / "mine", VLLM.read_text()
    (tmp_path / "copy.json").write_text(text)  # the same file under another name
    (tmp_path / "summary.json").write_text(json.dumps([json.loads(text)]))  # another file with the same run
    for path, said in ((VLLM, "1 run taken into"), (VLLM, "0 runs taken into"), (tmp_path / "copy.json", "0 runs"), (tmp_path / "summary.json", "0 runs")):
        status, out, err = run("import", "bench", path, "-o", mine, *TOLD)
        assert status == 0 and said in out, err
    again = json.loads(text) | {"max_concurrency": 32}
    (tmp_path / "next.json").write_text(json.dumps(again))
    assert "which holds 2 now" in run("import", "bench", tmp_path / "next.json", "-o", mine, *TOLD)[1]
    assert len(read_points(mine / "measured.csv")) == 2


def test_all_that_is_written_reads_back(run: Run, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    assert run("import", "bench", VLLM, BENCH / "inferencex-agg.handwritten.json", "-o", mine, *TOLD[:2], *TOLD[2:])[0] == 0
    points = read_points(mine / "measured.csv")
    assert points_csv(points) == (mine / "measured.csv").read_text()
    assert [p.provenance.file for p in points] == [VLLM.name, "inferencex-agg.handwritten.json"]
    assert all(len(p.provenance.file_sha256) == 64 and p.provenance.confidence == "measured" for p in points)
    catalog = load_catalog([mine])
    own = [m for m in catalog.measured if m.source.startswith(SOURCE)]
    assert [(m.architecture, m.precision, m.gpu, m.engine, m.tp, m.points, m.as_of) for m in own] == [
        ("Llama-3.1-70B", "fp8", "H100-SXM-80GB", "vllm", 4, 2, "2026-11-22")
    ]
    assert {c.gpu for c in catalog.calibrated} == {"H100-SXM-80GB"}
    status, out, _ = run("validate", mine / "measured.csv", "--catalog", mine, "--format", "json")
    assert status == 0 and [r["tier"] for r in json.loads(out)["rows"]] == ["measured", "measured"]


def test_other_evidence_of_the_folder_stays(run: Run, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    row = "Qwen3-32B,fp8,L40S,vllm,1,1,4,a colleague,2026-01-01,own"
    (mine / "evidence.csv").write_text(f"architecture,precision,gpu,engine,tp,dp,points,source,as_of,licence\n{row}\n")
    for _ in range(2):
        assert run("import", "bench", VLLM, "-o", mine, *TOLD)[0] == 0
    assert (mine / "evidence.csv").read_text().count("a colleague") == 1
    assert (mine / "evidence.csv").read_text().count(SOURCE) == 1


def test_an_offline_run_is_kept_and_is_no_evidence_of_a_server(run: Run, tmp_path: Path) -> None:
    status, out, err = run("import", "bench", BENCH / "trtllm-bench-report.handwritten.json", "-o", tmp_path / "mine")
    assert status == 0 and "an upper bound" in out, err
    catalog = load_catalog([tmp_path / "mine"])
    assert not catalog.calibrated and not [m for m in catalog.measured if m.source.startswith(SOURCE)]


@pytest.mark.parametrize(
    ("edit", "flags", "words"),
    [
        ({}, (), "does not say --engine, --precision"),
        ({}, TOLD[:4], "'H100' is several GPU types (say with --gpu which: "),
        ({"model_id": "mock-8b"}, TOLD, "no model 'mock-8b' in the catalogue (add --model"),
        ({}, (*TOLD[:5], "TPU-v9"), "no GPU 'TPU-v9' in the catalogue (add --gpu"),
        ({}, (*TOLD, "--tp", "2"), "the file says tp 4"),
        ({"completed": 0}, TOLD, "nothing to take in: cannot be read: no request was completed"),
    ],
)
def test_what_cannot_be_taken_in_is_one_line_with_the_flag_to_add(run: Run, tmp_path: Path, edit: dict[str, Any], flags: tuple[str, ...], words: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps(json.loads(VLLM.read_text()) | edit))
    status, out, err = run("import", "bench", path, "-o", tmp_path / "mine", *flags)
    assert status == 2 and out == "" and err.count("\n") == 1 and words in err, err
    assert not (tmp_path / "mine").exists()


def test_seconds_that_stand_for_milliseconds_teach_nothing(run: Run, tmp_path: Path) -> None:
    """A thousand times too fast is no measurement, and no evidence: the points are kept, and the reason told."""
    text = json.loads(VLLM.read_text())
    wrong = {k: v / 1000 if k.endswith("_ms") else v for k, v in text.items()}
    (tmp_path / "a.json").write_text(json.dumps(wrong))
    status, out, err = run("import", "bench", tmp_path / "a.json", "-o", tmp_path / "mine", *TOLD)
    assert status == 0 and "is a unit wrong?" in out, err
    assert not load_catalog([tmp_path / "mine"]).calibrated
    assert SOURCE not in (tmp_path / "mine" / "evidence.csv").read_text()


def test_simulated_runs_are_no_evidence(run: Run, tmp_path: Path) -> None:
    report = (BENCH / "llmd-br-0.2.handwritten.yaml").read_text().replace("tool: vllm/vllm-openai", "tool: vllm/llm-d-inference-sim")
    (tmp_path / "sim.yaml").write_text(report)
    status, _, err = run("import", "bench", tmp_path / "sim.yaml", "-o", tmp_path / "mine")
    assert status == 2 and "simulated, not measured" in err


def test_hostile_names_reach_no_shell_page_or_spreadsheet(run: Run, tmp_path: Path) -> None:
    """Only names that the catalogue knows are taken in, and texts of notes are cells that no spreadsheet runs."""
    file = json.loads(VLLM.read_text()) | {"engine_version": "=cmd|' /C calc'!A0", "workload": "<script>alert(1)</script>"}
    (tmp_path / "a.json").write_text(json.dumps(file))
    status, out, err = run("import", "bench", tmp_path / "a.json", "-o", tmp_path / "mine", *TOLD, "--format", "markdown")
    assert status == 0, err
    assert "<script>" not in out
    cells = next(csv.DictReader((tmp_path / "mine" / "measured.csv").open()))
    assert cells["workload"] == "<script>alert(1)</script>"  # text of a CSV, escaped where it is shown
    assert not cells["engine_version"].startswith("=")


@pytest.mark.parametrize("form", ["json", "csv", "markdown"])
def test_every_format_says_before_and_after(run: Run, tmp_path: Path, form: str) -> None:
    status, out, err = run("import", "bench", VLLM, "-o", tmp_path / "mine", *TOLD, "--format", form)
    assert status == 0, err
    if form == "json":
        tpot = next(c for c in json.loads(out)["changes"] if c["metric"] == "tpot_ms")
        assert tpot["measured"] == 41.2 and abs(tpot["after_predicted"] - 41.2) < abs(tpot["before_predicted"] - 41.2)
    else:
        assert "41.2" in out and out.count("\n") > 2
