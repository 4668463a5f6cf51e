"""`plan validate`: files of measured points read, mapped, predicted in order, and compared; every refusal has its reason."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from planner import Catalog, load_catalog
from planner.bench.labels import ENGINES, MODELS, engine_of, labels_of
from planner.bench.points import LATENCIES, MeasuredPoint, read_points, spans
from planner.bench.read import read_bench
from planner.bench.setup import Setup
from planner.errors import CatalogError
from planner.performance.coefficients import TIERS
from planner.validation.compare import compare, measured, record
from planner.validation.mapping import harness, map_point
from planner.validation.predictions import RowPrediction, default_max_num_seqs, predict_points

ROOT = Path(__file__).parent.parent
BENCH = ROOT / "tests" / "data" / "bench"
MIXED = ROOT / "tests" / "data" / "points" / "mixed.csv"
CURVES = ROOT / "catalogs" / "curves.csv"


@cache
def catalog() -> Catalog:
    return load_catalog()


@cache
def shipped() -> tuple[tuple[MeasuredPoint, ...], tuple[RowPrediction, ...]]:
    """The shipped curves as they are: their columns are other names of the same things."""
    points = read_points(CURVES)
    return tuple(points), tuple(predict_points(points, catalog(), 0.9))


@cache
def mixed() -> tuple[tuple[MeasuredPoint, ...], tuple[RowPrediction, ...]]:
    points = read_points(MIXED)
    return tuple(points), tuple(predict_points(points, catalog(), 0.9))


def answer(line: int) -> RowPrediction:
    """The answer to the row on a line of the mixed file."""
    return next(a for p, a in zip(*mixed()) if p.line == line)


# ---- labels


def test_every_alias_leads_to_something_in_the_catalogue() -> None:
    labels = labels_of(catalog())
    assert [k for k in MODELS if isinstance(labels.card(k), str)] == []
    assert set(map(engine_of, ENGINES)) == {"vllm", "sglang", "trtllm"}


@pytest.mark.parametrize(
    ("label", "card"),
    [
        ("deepseek-ai/DeepSeek-R1-0528", "DeepSeek-V3"),
        ("zhipuai/GLM-5", "GLM-5"),
        ("meta-llama/Llama-3.1-70B", "Llama-3.1-70B"),
        ("meta-llama/Meta-Llama-3.1-8B-Instruct", "Llama-3.1-8B"),
        ("nvidia/Llama-3.1-8B-Instruct-FP8", "Llama-3.1-8B"),
        ("QWEN/qwen3-32b", "Qwen3-32B"),
        ("someone/Qwen3-32B-FP8-dynamic", "Qwen3-32B"),
        ("gpt-oss-120b", "gpt-oss-120b"),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "Mixtral-8x7B"),
    ],
)
def test_labels_of_public_data(label: str, card: str) -> None:
    found = labels_of(catalog()).card(label)
    assert isinstance(found, int) and catalog().cards[found].name == card


@pytest.mark.parametrize(
    ("label", "gpu", "said"),
    [
        ("gb200-nvl72", "GB200", ""),
        ("NVIDIA H100 80GB HBM3", "H100-SXM-80GB", ""),
        ("H100-80GB", "H100-SXM-80GB", "H100-80GB taken as H100-SXM-80GB"),
        ("h200", "H200-SXM-141GB", "h200 taken as H200-SXM-141GB"),
        ("H100 NVL", "H100-NVL-94GB", ""),
        ("RTX-PRO-6000-Blackwell", "RTX-PRO-6000-Server", "RTX-PRO-6000-Blackwell taken as RTX-PRO-6000-Server"),
    ],
)
def test_gpus_of_public_data_and_the_row_says_which_board_was_taken(label: str, gpu: str, said: str) -> None:
    labels = labels_of(catalog())
    found = labels.gpu(label)
    assert isinstance(found, int) and labels.gpus[found].name == gpu and labels.taken_as(label) == said


def test_a_gpu_of_two_memories_is_asked_about_and_an_unknown_one_not_guessed() -> None:
    labels = labels_of(catalog())
    assert labels.gpu("A100") == "'A100' is several GPU types (which: A100-PCIe-40GB, A100-PCIe-80GB, A100-SXM-40GB or A100-SXM-80GB?)"
    assert labels.gpu("H100-SXM-80GB (power-capped)") == "no GPU 'H100-SXM-80GB (power-capped)' in the catalogue"
    assert labels.gpu("") == "GPU not given"


@pytest.mark.parametrize("label", ["Qwen/Qwen2-7B", "meta-llama/Llama-2-7b-hf", "meta-llama/Meta-Llama-3-8B", ""])
def test_what_has_no_card_is_not_matched_to_a_like_one(label: str) -> None:
    assert isinstance(labels_of(catalog()).card(label), str)


@pytest.mark.parametrize(
    ("given", "label", "gpu", "precision"),
    [
        ("fp4", "deepseek-ai/DeepSeek-R1-0528", "B200-SXM", "nvfp4"),
        ("fp4", "deepseek-ai/DeepSeek-R1-0528", "MI355X", "mxfp4"),
        ("fp4", "openai/gpt-oss-120b", "B200-SXM", "mxfp4"),
        ("bf16", "openai/gpt-oss-120b", "B200-SXM", "mxfp4"),
        ("", "meta-llama/Llama-3.1-8B-Instruct", "H100-SXM-80GB", "bf16"),
        ("", "meta-llama/Llama-3.1-70B", "H100-SXM-80GB", "bf16"),
        ("", "deepseek-ai/DeepSeek-R1-0528", "H200-SXM-141GB", "fp8"),
        ("", "someone/Qwen3-32B-FP8", "H100-SXM-80GB", "fp8"),
        ("float16", "Qwen3-32B", "A100-SXM-80GB", "bf16"),
        ("AWQ", "Qwen3-32B", "A100-SXM-80GB", "int4"),
        ("fp3", "Qwen3-32B", "A100-SXM-80GB", ""),
    ],
)
def test_precision_of_a_row(given: str, label: str, gpu: str, precision: str) -> None:
    labels = labels_of(catalog())
    card, index = labels.card(label), labels.gpu(gpu)
    assert isinstance(card, int) and isinstance(index, int)
    assert labels.precision(given, label, card, index) == precision


# ---- closed loops


def test_the_shipped_curves_are_answered_in_their_order() -> None:
    points, answers = shipped()
    rows = list(csv.DictReader(CURVES.open()))
    assert [(p.isl, p.concurrency, p.measured["tpot_ms_mean"]) for p in points] == [
        (float(r["isl"]), float(r["concurrency"]), float(r["tpot_ms"])) for r in rows
    ]
    for _, a in zip(rows, answers, strict=True):
        if a.predicted:
            assert a.predicted["ttft_ms"] > 0 and a.predicted["tpot_ms"] > 0 and a.tier in TIERS and not a.reason
            assert a.band["tpot_ms_low"] <= a.band["tpot_ms_high"]
    assert sum(bool(a.predicted) for a in answers) >= 0.97 * len(rows)


def test_tokens_per_second_are_those_of_the_loop() -> None:
    """N o / (TTFT + TPOT (o - 1)): the length cancels but for the share of TTFT."""
    points, answers = shipped()
    for p, a in zip(points, answers, strict=True):
        if a.predicted and p.concurrency:
            osl = p.osl * (1.0 if harness(p) == "nvidia" else 0.9)
            loop = p.concurrency * osl * 1000 / (a.predicted["ttft_ms"] + a.predicted["tpot_ms"] * (osl - 1))
            assert a.predicted["output_tps"] == pytest.approx(loop, rel=1e-6)


def test_errors_on_the_shipped_curves_are_small() -> None:
    points, answers = shipped()
    found = compare(points, answers, 0.9)
    assert found.overall["tpot_ms"].median < 0.15 and found.overall["output_tps"].median < 0.15
    assert set(found.by["source"]) == {"InferenceX", "NVIDIA-AIConfigurator"}
    assert sum(v["tpot_ms"].n for v in found.by["gpu"].values()) == found.overall["tpot_ms"].n


@pytest.mark.parametrize(
    ("source", "workload", "expected"),
    [
        ("nvidia_aic_internal", "synthetic", "nvidia"),
        ("NVIDIA-AIConfigurator", "", "nvidia"),
        ("inferencex_db_via_aic", "random synthetic, InferenceX serving bench", "inferencex"),
        ("inferencex_token_position_experiment", "random synthetic, fixed length", "exact"),
        ("mine", "", "exact"),
    ],
)
def test_whose_loop_it_is(source: str, workload: str, expected: str, tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    file.write_text(f'source,workload,model,gpu,engine,isl,osl,concurrency\n{source},"{workload}",Qwen3-32B,H100-SXM-80GB,vllm,1,1,1\n')
    assert harness(read_points(file)[0]) == expected


def test_a_request_waits_until_the_engine_looks_for_it(tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    cells = [f"Qwen3-32B,H100-SXM-80GB,sglang,2,1000,300,{load},{polls}" for load in (1, 64) for polls in ("", 1, 30)]
    file.write_text("\n".join(("model,gpu,engine,tp,isl,osl,concurrency,poll_steps", *cells)) + "\n")
    points = read_points(file)
    assert [p.poll_steps for p in points] == [1, 1, 30] * 2
    blank, one, rare, *many = (a.predicted for a in predict_points(points, catalog(), 0.9))
    assert blank == one and many[0] == many[1]
    assert rare["ttft_ms"] > one["ttft_ms"] + 10 * one["tpot_ms"] and rare["tpot_ms"] == pytest.approx(one["tpot_ms"])
    # Of many in flight some more wait, so by Little's law fewer decode, and those a little faster.
    assert many[2]["ttft_ms"] > many[1]["ttft_ms"] + 10 * many[1]["tpot_ms"] and 0.95 * many[1]["tpot_ms"] < many[2]["tpot_ms"] <= many[1]["tpot_ms"]


def test_eight_thousand_rows_take_less_than_ten_seconds() -> None:
    points = [p for _ in range(5) for p in shipped()[0]][:8000]
    start = time.perf_counter()
    answers = predict_points(points, catalog(), 0.9)
    compare(points, answers, 0.9)
    assert len(answers) == 8000 and time.perf_counter() - start < 10


# ---- open loops


def test_poisson_percentiles_rise() -> None:
    a = answer(3)
    assert a.kind == "poisson" and not a.reason
    for metric in ("ttft", "tpot", "e2e"):
        values = [a.predicted[f"{metric}_ms_p{q}"] for q in (50, 90, 95, 99)]
        assert values == sorted(values) and values[0] > 0
    assert a.predicted["e2e_ms_p50"] > a.predicted["ttft_ms_p50"]
    assert a.predicted["output_tps"] == pytest.approx(2 * 256)  # what is offered is what comes out


def test_more_than_can_be_served_has_tokens_but_no_percentiles() -> None:
    a = answer(4)
    assert "more is offered" in a.reason and set(a.predicted) == {"output_tps"}
    assert a.predicted["output_tps"] < 500 * 256


def test_largest_rate_within_an_sla() -> None:
    wide, tight = answer(5), answer(6)
    assert wide.kind == tight.kind == "sla"
    assert 0 < tight.predicted["output_tps"] <= wide.predicted["output_tps"]
    assert "TP not recorded" in wide.note and "FP8" in wide.note


def test_an_open_tp_is_the_one_that_serves_most(tmp_path: Path) -> None:
    header, *rows = MIXED.read_text().splitlines()
    found = []
    for tp in (2, 4, 8):  # 70B in 8 bits does not fit on one
        file = tmp_path / f"{tp}.csv"
        file.write_text("\n".join([header, rows[3].replace("H100-SXM-80GB,8,,", f"H100-SXM-80GB,8,{tp},")]) + "\n")
        found.append(predict_points(read_points(file), catalog(), 0.9)[0].predicted["output_tps"])
    assert answer(5).predicted["output_tps"] == pytest.approx(max(found))


def test_a_burst_is_predicted_at_saturation() -> None:
    a = answer(7)
    assert a.kind == "saturation" and set(a.predicted) == {"output_tps"} and not a.reason


def test_a_burst_of_few_requests_is_slower_than_an_endless_one(tmp_path: Path) -> None:
    header, *rows = MIXED.read_text().splitlines()
    found = []
    for size in ("; 20 requests", "; 400 requests", ""):
        file = tmp_path / "burst.csv"
        file.write_text(f"{header}\n{rows[5]}{size}\n")
        found.append(predict_points(read_points(file), catalog(), 0.9)[0].predicted["output_tps"])
    assert found[0] < found[1] < found[2]


def test_vllm_admits_fewer_on_small_gpus_and_a100() -> None:
    labels, points = labels_of(catalog()), mixed()[0]
    found = map_point(points[1], labels)
    assert not isinstance(found, str)
    from planner.validation.predictions import _task

    task = _task([points[1]], found, [0], catalog(), "recipe")
    assert default_max_num_seqs(task.replicas).tolist() == [256]  # A100


# ---- refusals


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (8, "no model 'nobody/Unheard-Of-9B'"),
        (9, "no GPU 'TPU-v6e'"),
        (10, "engine 'llama.cpp'"),
        (11, "unknown precision 'fp3'"),
        (12, "disaggregated"),
        (13, "speculative decoding (mtp)"),
        (15, "a static batch"),
        (16, "TP not recorded"),
        (17, "no concurrency"),
        (18, "does not fit in memory"),
        (19, "unknown load_type 'ramp'"),
    ],
)
def test_what_cannot_be_predicted_says_why(line: int, reason: str) -> None:
    assert reason in answer(line).reason and not answer(line).predicted


def test_no_row_is_lost() -> None:
    points, answers = mixed()
    assert len(points) == len(answers) == len(MIXED.read_text().splitlines()) - 1
    assert all(a.predicted or a.reason for a in answers)
    found = compare(points, answers, 0.9)
    assert found.rows == found.predicted + sum(found.refused.values())


HEADER = "model,gpu,engine,isl,osl,concurrency"
GOOD = "Qwen3-32B,H100-SXM-80GB,vllm,1000,100,8"


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("", "", "the file is empty"),
        (HEADER + "\n", "", "no rows"),
        (f"{HEADER}\n{GOOD},1\n", ":2", "7 cells where the header has 6"),
        (f"{HEADER}\n{GOOD.replace('1000', 'many')}\n{GOOD.replace('1000', '')}\n", ":2", "'isl': not a number, got 'many' (no other row can be read either)"),
        (f"{HEADER}\n{GOOD.replace('1000', '')}\n", ":2", "'isl' is blank"),
        (f"{HEADER}\n{GOOD.replace('1000', '-5')}\n", ":2", "'isl': must be at least 1"),
        (f"{HEADER}\n{GOOD.replace(',8', ',inf')}\n", ":2", "'concurrency': must be a number"),
        (f"{HEADER}\n{GOOD.replace('Qwen3-32B', '')}\n", ":2", "'model' is blank"),
        (f"{HEADER},tp\n{GOOD},2.5\n", ":2", "'tp': not a whole number"),
        (f"{HEADER},poll_steps\n{GOOD},2.5\n", ":2", "'poll_steps': not a whole number, got '2.5'"),
        (f"{HEADER},poll_steps\n{GOOD},0\n", ":2", "'poll_steps': must be at least 1, got '0'"),
        (f"{HEADER},poll_steps\n{GOOD},often\n", ":2", "'poll_steps': not a number, got 'often'"),
        (f"{HEADER},poll_step\n{GOOD},1\n", ":1", "did you mean 'poll_steps'?"),
        ("model,gpu,engine,isl,osl\nx,y,z,1,1\n", ":1", "column 'concurrency' is missing"),
        ("model,gpu,isl,osl,concurrency\nx,y,1,1,1\n", ":1", "column 'engine' is missing"),
        (f"{HEADER},request_rte\n{GOOD},1\n", ":1", "did you mean 'request_rate'?"),
        (f"{HEADER},isl\n{GOOD},1\n", ":1", "column 'isl' stands twice"),
    ],
)
def test_a_bad_file_is_one_line_with_its_line(text: str, line: str, what: str, tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    file.write_text(text)
    with pytest.raises(CatalogError) as error:
        read_points(file)
    assert str(error.value).startswith(f"{file}{line}: ") and what in str(error.value)


def test_a_row_that_cannot_be_read_keeps_its_place_and_the_others_count(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    good = "Qwen3-32B,H100-SXM-80GB,vllm,1000,100,8,2"
    bad = ("Qwen3-32B,H100-SXM-80GB,vllm,,100,8,2", "Qwen3-32B,H100-SXM-80GB,vllm,1000,ten,8,2", "Qwen3-32B,vllm,1000,100,8")
    file.write_text("\n".join((f"{HEADER},tp", bad[0], good, *bad[1:], good)) + "\n")
    plain = tmp_path / "q.csv"
    plain.write_text(f"{HEADER},tp\n{good}\n")
    rows = json.loads(run("validate", file, "--format", "json")[1])["rows"]
    alone = json.loads(run("validate", plain, "--format", "json")[1])["rows"][0]
    assert [r["line"] for r in rows] == [2, 3, 4, 5, 6]
    whys = ["'isl' is blank", None, "'osl': not a number, got 'ten'", "5 cells where the header has 7", None]
    assert [r["reason"] for r in rows] == [why and f"cannot be read: {why}" for why in whys]
    assert rows[0]["isl"] is None and rows[0]["model"] == "Qwen3-32B"
    for i in (1, 4):
        assert {**rows[i], "line": 2} == alone
    assert "cannot be read: 'isl' is blank" in run("validate", file)[1]


def test_columns_that_mean_nothing_are_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    file.write_text(f"{HEADER},lab\n\n{GOOD},here\n")
    assert read_points(file)[0].line == 3


# ---- comparison


def skewed(factor: float) -> tuple[list[MeasuredPoint], list[RowPrediction]]:
    """Rows whose measurements are the predictions divided by a factor."""
    points, answers = [], []
    for p, a in list(zip(*shipped(), strict=True))[:40]:
        if a.predicted:
            given = {
                "ttft_ms_mean": a.predicted["ttft_ms"] / factor,
                "tpot_ms_mean": a.predicted["tpot_ms"] / factor,
                "output_tps_total": a.predicted["output_tps"] / factor,
            }
            points.append(MeasuredPoint(**{**vars(p), "measured": given}))
            answers.append(a)
    return points, answers


@pytest.mark.parametrize("factor", [1.0, 1.1, 0.85, 1.5])
def test_errors_by_hand(factor: float) -> None:
    points, answers = skewed(factor)
    found = compare(points, answers, 0.9)
    for metric in ("ttft_ms", "tpot_ms", "output_tps"):
        e = found.overall[metric]
        assert e.n == len(points) and e.bias == pytest.approx(factor - 1, abs=1e-3)
        assert e.median == e.mape == pytest.approx(abs(factor - 1), abs=1e-3)
        assert e.within_20 == (1.0 if abs(factor - 1) <= 0.2 else 0.0)


def test_a_band_covers_what_lies_below_its_upper_bound() -> None:
    points, answers = skewed(1.0)
    high = [RowPrediction(**{**vars(a), "band": {"tpot_ms_high": a.predicted["tpot_ms"] * f}}) for a, f in zip(answers, [0.9, *[1.1] * len(answers)])]
    found = compare(points, high, 0.9).overall
    assert found["tpot_ms"].covered == pytest.approx(1 - 1 / len(points), abs=1e-3) and found["ttft_ms"].covered is None


def test_flagged_rows_are_predicted_and_not_compared() -> None:
    points, answers = skewed(1.0)
    flagged = MeasuredPoint(**{**vars(points[0]), "notes": "INCONSISTENT; by hand"})
    assert measured(flagged, answers[0], "tpot_ms") is None
    assert "not compared" in predict_points([flagged], catalog(), 0.9)[0].note


def test_tokens_per_second_are_derived_where_a_row_lacks_them() -> None:
    p, a = skewed(1.0)[0][0], skewed(1.0)[1][0]
    ttft, tpot = 100.0, 10.0
    for source, ratio in (("mine", 1.0), ("InferenceX", 0.9)):  # InferenceX draws lengths of 0.8 to 1.0 times the nominal
        bare = MeasuredPoint(**{**vars(p), "source": source, "measured": {"ttft_ms_mean": ttft, "tpot_ms_mean": tpot}})
        assert bare.concurrency is not None
        written = bare.osl * ratio
        assert measured(bare, a, "output_tps") == pytest.approx(bare.concurrency * written * 1000 / (ttft + tpot * (written - 1)))


def test_steady_open_loops_are_not_credited_with_their_tokens() -> None:
    points, _ = mixed()
    given = MeasuredPoint(**{**vars(points[1]), "measured": {"output_tps_total": 512.0, "ttft_ms_p50": 50.0}})
    a = predict_points([given], catalog(), 0.9)[0]
    assert measured(given, a, "output_tps") is None and measured(given, a, "ttft_ms_p50") == 50.0


def test_line_numbers_in_words() -> None:
    assert spans([2, 3, 4, 9, 12, 11]) == "2-4, 9, 11-12"
    assert spans(range(0, 40, 2)).endswith("(12 more)")


# ---- the command


Run = Callable[..., tuple[int, str, str]]


def test_json_has_a_record_per_row_in_order(run: Run) -> None:
    status, out, err = run("validate", MIXED, "--format", "json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert found["summary"]["rows"] == len(found["rows"]) == len(mixed()[0])
    assert [r["line"] for r in found["rows"]] == list(range(2, 2 + len(found["rows"])))
    assert all({"predicted_ttft_ms", "predicted_tpot_ms", "predicted_output_tps", "tier", "reason"} <= set(r) for r in found["rows"])
    poisson = found["rows"][1]
    assert {f"predicted_{m}_ms_{q}" for m in ("ttft", "e2e") for q in ("p50", "p90", "p99")} <= set(poisson)
    assert poisson["predicted_tpot_ms_p90"] > 0 and found["rows"][7]["predicted_tpot_ms"] is None
    assert "NaN" not in out and "Infinity" not in out


def test_records_keep_what_was_measured() -> None:
    points, answers = skewed(1.1)
    row = record(points[0], answers[0])
    assert row["measured_tpot_ms"] == pytest.approx(row["predicted_tpot_ms"] / 1.1, rel=1e-4) and row["tier"] in TIERS


def test_table_names_sources_and_lists_refusals(run: Run) -> None:
    status, out, _ = run("validate", MIXED)
    assert status == 0 and "Not predicted" in out and "no GPU 'TPU-v6e' in the catalogue" in out and "Predicted in part" in out
    status, out, _ = run("validate", ROOT / "examples" / "points.csv")
    assert status == 0
    for word in ("Predicted against measured", "By GPU", "By model", "median |error|", "covered", "Row by row"):
        assert word in out
    assert "By source" not in out  # there is but one


def test_few_rows_are_shown_one_by_one_with_their_bands(run: Run, tmp_path: Path) -> None:
    asked = "Llama-3.1-8B,H100-SXM-80GB,vllm,bf16,1,1000,200,8,{},{}"
    header = "model,gpu,engine,precision,tp,isl,osl,concurrency,tpot_ms_mean,output_tps_total\n"
    (tmp_path / "p.csv").write_text(header + asked.format(1, 1) + "\n")
    row = json.loads(run("validate", tmp_path / "p.csv", "--format", "json")[1])["rows"][0]
    inside, outside = row["predicted_tpot_ms"] * 1.01, row["predicted_tpot_ms_high"] * 1.2
    for value, word in ((inside, "yes"), (outside, "no")):
        (tmp_path / "p.csv").write_text(header + asked.format(value, 999) + "\n")
        line = next(text for text in run("validate", tmp_path / "p.csv")[1].splitlines() if "1000/200, 8 at once" in text)
        assert line.split()[-1] == word and f"{row['predicted_tpot_ms'] / value - 1:+.1%}" in line


@pytest.mark.parametrize("form", ["html", "svg"])
def test_the_chart_holds_every_pair(run: Run, tmp_path: Path, form: str) -> None:
    pytest.importorskip("altair")
    target = tmp_path / f"v.{form}"
    assert run("validate", ROOT / "examples" / "points.csv", "--chart", target)[0] == 0
    assert "measured TPOT, ms" in target.read_text() and "measured TTFT, ms" in target.read_text()
    (tmp_path / "p.csv").write_text("model,gpu,engine,isl,osl,concurrency,tp\nLlama-3.1-8B,L4,vllm,10,10,1,1\n")
    status, _, err = run("validate", tmp_path / "p.csv", "--chart", target)
    assert status == 2 and "there is nothing to draw" in err


def test_files_of_tools_are_compared_together(run: Run) -> None:
    """Several files of several tools; an offline run counts as sent at once, and says that it is a bound."""
    files = [BENCH / name for name in ("inferencex-agg.handwritten.json", "trtllm-bench-report.handwritten.json", "llmd-br-0.2.handwritten.yaml")]
    status, out, err = run("validate", *files, "--format", "json")
    assert status == 0, err
    rows = json.loads(out)["rows"]
    assert [r["load"] for r in rows] == ["closed_loop", "saturation", "poisson"]
    assert "an upper bound" in rows[1]["note"] and rows[1]["measured_output_tps"] == 3297
    assert rows[2]["measured_ttft_ms_p99"] == 720 and rows[0]["measured_tpot_ms"] == 23.1


def test_what_a_benchmark_does_not_say_is_asked_for(run: Run) -> None:
    status, out, err = run("validate", BENCH / "vllm-bench-serve-0.33.handwritten.json")
    assert status == 2 and out == "" and err.count("\n") == 1 and "--engine vllm@0.33.0 --precision fp8" in err
    status, out, err = run("validate", BENCH / "vllm-bench-serve-0.33.handwritten.json", "--engine", "vllm", "--precision", "fp8", "--tuning", "quick")
    assert status == 2 and "--tuning" in err


def test_data_parallel_of_a_dense_model_is_replicas(tmp_path: Path) -> None:
    """vLLM counts TP within one of its data parallel groups: 2 groups of TP4 are 8 GPUs, two replicas of a dense model and one of experts."""
    run_of = json.loads((BENCH / "vllm-bench-serve-0.33.handwritten.json").read_text())
    found = []
    for model in ("meta-llama/Llama-3.3-70B-Instruct", "Qwen/Qwen3-235B-A22B-Instruct-2507"):
        (tmp_path / "a.json").write_text(json.dumps(run_of | {"dp": "2", "model_id": model}))
        (point,) = read_bench(tmp_path / "a.json", Setup(engine="vllm", precision="fp8"))
        mapped = map_point(point, labels_of(catalog()))
        assert isinstance(mapped, tuple)
        found.append((point.gpus, mapped[0].tp, mapped[0].dp, mapped[0].replicas))
    assert found == [(8, 4, 1, 2), (8, 8, 2, 1)]


def test_csv_and_markdown(run: Run, tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(run("validate", MIXED, "--format", "csv")[1])))
    assert len(rows) == len(mixed()[0]) and "predicted_tpot_ms" in rows[0]
    file = tmp_path / "out.md"
    status, out, _ = run("validate", ROOT / "examples" / "points.csv", "--format", "markdown", "-o", file)
    assert (status, out) == (0, "") and "| TPOT |" in file.read_text()


def test_errors_are_one_line(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    file.write_text("model\nx\n")
    for words, part in (([file], f"{file}:1: column 'gpu' is missing"), (["gone.csv"], "gone.csv"), ([MIXED, "--confidence", "2"], "--confidence")):
        status, out, err = run("validate", *words)
        assert status == 2 and out == "" and err.count("\n") == 1 and part in err


def test_latency_columns_are_those_of_the_metrics() -> None:
    assert {"ttft_ms_mean", "tpot_ms_p90", "e2e_ms_p99"} <= set(LATENCIES)


# ---- disaggregated units

UNIT = 'model,gpu,engine,mode,notes,isl,osl,concurrency,tuning\ngpt-oss-120b,H200-SXM-141GB,sglang,disagg,"prefill 2w tp2, decode 2w tp2",2048,700,64,'


def test_a_unit_says_of_itself_what_is_not_predicted(run: Run, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(UNIT)
    out = " ".join(run("validate", tmp_path / "p.csv")[1].split())
    assert "1 row: TTFT of closed loops on disaggregated units is not predicted (lines 2)." in out and "offered" not in out


def test_the_band_of_a_unit_of_engines_as_they_start_is_as_wide_as_theirs(tmp_path: Path) -> None:
    """catalogs/tuning.csv: one SGLang in ten takes 7.289 / 1.737 times the median of those that start with their defaults."""
    (tmp_path / "p.csv").write_text(UNIT + "default")
    point = read_points(tmp_path / "p.csv")[0]
    started, recipe = (predict_points([replace(point, tuning=tuning)], catalog(), 0.9)[0] for tuning in ("default", "recipe"))
    factor = catalog().tuned["default", "sglang"]
    assert started.band["tpot_ms_high"] / started.predicted["tpot_ms"] == pytest.approx(factor.q90 / factor.q50, rel=1e-3)
    assert recipe.band["tpot_ms_high"] / recipe.predicted["tpot_ms"] < 2


def test_a_row_of_before_anything_of_its_kind_was_measured_is_not_called_measured(tmp_path: Path) -> None:
    """Llama-3.1-70B on vLLM and H200 was first measured in October 2025."""
    header = "model,precision,gpu,engine,tp,isl,osl,concurrency,date,tpot_ms_mean"
    cells = "meta-llama/Llama-3.1-70B,fp8,H200-SXM-141GB,vllm,4,1024,1024,16"
    path = tmp_path / "rows.csv"
    path.write_text("\n".join((header, f"{cells},2025-02-01,20", f"{cells},2025-10-20,20")) + "\n")
    early, later = predict_points(read_points(path), load_catalog(()), 0.9)
    assert (early.tier, later.tier) == ("anchored", "measured")
    assert early.band["tpot_ms_high"] / early.predicted["tpot_ms"] > 1.05 * later.band["tpot_ms_high"] / later.predicted["tpot_ms"]
