"""`plan predict`: identities of the numbers, memory by hand, physical sense, and every refusal in one line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from planner import Catalog, load_catalog
from planner.candidates.sharding import unsplit
from planner.catalog.cards import read_card
from planner.errors import PlannerError
from planner.performance.coefficients import TIERS
from planner.performance.predict import TERMS
from planner.report.predict import PARTS, bars
from planner.validation.single import AskedConfiguration, forecast

ROOT = Path(__file__).parent.parent
TINY = ROOT / "tests" / "data" / "tiny"
EIGHT_B = ["predict", "--checkpoint", "meta-llama/Llama-3.1-8B-Instruct", "--gpu", "H100-SXM-80GB", "--isl", "1024", "--osl", "1024"]

Run = Callable[..., tuple[int, str, str]]


@cache
def catalog() -> Catalog:
    return load_catalog()


def predicted(run: Run, *words: str) -> dict[str, Any]:
    status, out, err = run(*words, "--format", "json")
    assert (status, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    return found


def question(**changed: Any) -> AskedConfiguration:
    asked = {
        "checkpoint": "Llama-3.1-8B",
        "gpu": "H100-SXM-80GB",
        "tp": 1,
        "pp": 1,
        "dp": 1,
        "ep": 1,
        "kv_cache": "auto",
        "engine": "vllm",
        "isl": 1000,
        "osl": 300,
    }
    return AskedConfiguration(**{**asked, "concurrency": (1, 8), "confidence": 0.9, **changed})


# ---- names


def test_a_model_goes_by_the_name_it_was_asked_for(run: Run) -> None:
    page = run("predict", "--checkpoint", "DeepSeek-R1", "--gpu", "B200-SXM", "--tp", "8", "--isl", "1000", "--osl", "1000")[1]
    assert "deepseek-ai/DeepSeek-R1 (fp8) on 8 x B200-SXM" in page
    assert page.count("DeepSeek-V3") == page.count("DeepSeek-V3 (same architecture)") == 1
    frontier = run("curve", "Llama-3.3-70B", "--gpu", "B200-SXM", "--frontier")[1]
    assert "Llama-3.3-70B: nothing else" in frontier and "Llama-3.1" not in frontier


# ---- numbers


def test_tokens_per_second_are_those_of_a_closed_loop(run: Run) -> None:
    found = predicted(run, *EIGHT_B, "--tp", "2", "--concurrency", "1,8,64")
    assert [p["concurrency"] for p in found["points"]] == [1, 8, 64]
    for p in found["points"]:
        seconds = (p["ttft_ms"] + p["tpot_ms"] * 1023) / 1000
        assert p["tps"] == pytest.approx(p["concurrency"] * 1024 / seconds, rel=1e-4)
        assert p["tps_per_gpu"] == pytest.approx(p["tps"] / 2, rel=1e-4)
        assert p["tps_per_user"] == pytest.approx(1000 / p["tpot_ms"], rel=1e-4)
        assert 0 < p["in_flight_decoding"] <= p["concurrency"]


def test_load_slows_each_user_and_never_all(run: Run) -> None:
    points = predicted(run, *EIGHT_B, "--concurrency", "1,2,4,8,16,32,64,128,256,512,1024,4096")["points"]
    for name in ("tpot_ms", "tps"):
        values = [p[name] for p in points]
        assert values == sorted(values)


def test_memory_by_hand(run: Run) -> None:
    """Weights of 8.03e9 parameters in 2 bytes; KV of 8 heads x 128 x 2 x 32 layers in 2 bytes for 2,048 tokens."""
    found = predicted(run, *EIGHT_B)
    memory = found["memory_gib"]
    assert memory["weights"] == pytest.approx(8.03e9 * 2 / 2**30, rel=1e-3)
    assert found["kv_gib_per_request"] == pytest.approx(8 * 128 * 2 * 32 * 2 * 2048 / 2**30, rel=1e-4)
    assert sum(memory[k] for k in ("weights", "kv_cache", "activations", "reserve")) == pytest.approx(memory["limit"], rel=1e-4)
    assert found["requests_with_room"] == int(memory["kv_cache"] / found["kv_gib_per_request"])


def test_the_step_has_named_parts_and_the_largest_is_the_bottleneck(run: Run) -> None:
    for p in predicted(run, *EIGHT_B, "--concurrency", "1,256")["points"]:
        assert set(p["step_ms"]) == set(TERMS) == set(PARTS) and all(v >= 0 for v in p["step_ms"].values())
        assert p["step_ms"][p["bottleneck"]] == max(p["step_ms"].values())
        assert p["step_ms"]["all_reduce"] == 0  # one GPU


def test_weights_bound_one_request_of_a_dense_model(run: Run) -> None:
    p = predicted(run, *EIGHT_B, "--concurrency", "1")["points"][0]
    assert p["bottleneck"] == "weights"
    assert p["tpot_ms"] >= 7e9 * 2 / 3.36e12 * 1000  # nothing is faster than reading the weights once per token


def test_more_confidence_widens_the_band(run: Run) -> None:
    narrow, wide = (predicted(run, *EIGHT_B, "--confidence", c)["points"][-1] for c in ("0.6", "0.95"))
    assert wide["tpot_ms"] == narrow["tpot_ms"]
    assert wide["tpot_low_ms"] <= narrow["tpot_low_ms"] <= narrow["tpot_high_ms"] <= wide["tpot_high_ms"]


def test_evidence_names_the_nearest_measurement_with_source_and_date(run: Run) -> None:
    found = predicted(run, "predict", "--checkpoint", "openai/gpt-oss-120b", "--gpu", "H200-SXM-141GB", "--tp", "2", "--isl", "1024", "--osl", "1024")
    evidence = found["evidence"]
    assert evidence["tier"] == TIERS[0] and "gpt-oss-120b mxfp4 on H200-SXM-141GB, vllm, TP2" in evidence["source"] and evidence["as_of"].startswith("20")
    far = predicted(run, "predict", "--checkpoint", "Llama-3.1-8B", "--gpu", "L4", "--isl", "500", "--osl", "100")["evidence"]
    assert far["tier"] == TIERS[-1] and "no measurement near" in far["source"] and far["as_of"]


# ---- names


def test_a_card_means_its_first_checkpoint_that_the_gpu_runs(run: Run) -> None:
    found = predicted(run, "predict", "--checkpoint", "llama-3.1-8b", "--gpu", "l4", "--isl", "500", "--osl", "100")
    assert found["checkpoint"] == "meta-llama/Llama-3.1-8B-Instruct" and found["gpu"] == "L4"
    assert "Llama-3.1-8B is taken as" in found["notes"][0] and found["checkpoint"] in found["notes"][0]
    found = predicted(run, "predict", "--checkpoint", "Ministral-3-14B", "--gpu", "A100-SXM-80GB", "--isl", "500", "--osl", "100")
    assert found["precision"] == "bf16"  # its first checkpoint is FP8, which an A100 has no kernels for


def test_a_checkpoint_that_reasons_says_what_output_tokens_are(run: Run) -> None:
    found = predicted(run, "predict", "--checkpoint", "openai/gpt-oss-20b", "--gpu", "H100-SXM-80GB", "--isl", "500", "--osl", "2000")
    assert any("reasoning included" in note for note in found["notes"])
    assert not predicted(run, *EIGHT_B)["notes"]


def test_more_requests_than_have_room_are_said_to_wait(run: Run) -> None:
    found = predicted(run, "predict", "--checkpoint", "Llama-3.1-8B", "--gpu", "L4", "--isl", "8000", "--osl", "1000", "--concurrency", "1,500")
    assert found["requests_with_room"] < 500 and any("requests wait" in note for note in found["notes"])
    assert found["points"][1]["ttft_ms"] > 20 * found["points"][0]["ttft_ms"]


def test_a_catalogue_of_ones_own(run: Run) -> None:
    found = predicted(run, "predict", "--checkpoint", "example/small-8b", "--gpu", "GPU-80", "--isl", "500", "--osl", "100", "--catalog", str(TINY))
    assert found["model"] == "Small-8B" and found["points"][0]["tpot_ms"] > 0


# ---- refusals


@pytest.mark.parametrize(
    ("changed", "where", "parts"),
    [
        ({"checkpoint": "Llama-3.1-8"}, "--checkpoint", ["unknown checkpoint or model 'Llama-3.1-8'", "did you mean 'Llama-3.1-8B'"]),
        ({"checkpoint": "zzzz"}, "--checkpoint", ["see plan catalog models"]),
        ({"gpu": "H100-SMX"}, "--gpu", ["unknown GPU 'H100-SMX'", "H100-"]),
        ({"engine": "vlm"}, "--engine", ["did you mean 'vllm'"]),
        ({"checkpoint": "nvidia/Llama-3.1-8B-Instruct-NVFP4"}, "--gpu", ["H100-SXM-80GB has no kernels for nvfp4", "fp8"]),
        ({"engine": "trtllm", "gpu": "MI300X"}, "--engine", ["trtllm does not run on MI300X"]),
        ({"checkpoint": "Llama-3.1-70B"}, "--gpu", ["does not fit by", "GiB per GPU", "fits with --tp 2"]),
        ({"checkpoint": "Kimi-K2", "gpu": "L4"}, "--gpu", ["does not fit by", "larger GPU"]),
        ({"gpu": "L4", "isl": 100_000}, "--isl", ["too few for one request", "fits with --tp 2"]),
        ({"tp": 3}, "--tp", ["does not split by 3: 32 attention heads", "splits by 1, 2, 4, 8"]),
        ({"checkpoint": "MiniMaxAI/MiniMax-M2", "gpu": "H200-SXM-141GB", "tp": 8}, "--tp", ["FP8 blocks of 128 in 1536 columns"]),
        ({"isl": 1_000_000}, "--isl", ["more than the context"]),
        ({"pp": 100}, "--pp", ["32 layers"]),
    ],
)
def test_what_cannot_run_is_refused_with_the_reason(changed: dict[str, Any], where: str, parts: list[str]) -> None:
    with pytest.raises(PlannerError) as error:
        forecast(question(**changed), catalog())
    assert error.value.where == where
    for part in parts:
        assert part in str(error.value)


def test_how_much_is_missing_is_right() -> None:
    with pytest.raises(PlannerError) as error:
        forecast(question(checkpoint="meta-llama/Llama-3.1-70B-Instruct"), catalog())
    missing = float(str(error.value).split("does not fit by ")[1].split(" GiB")[0])
    assert missing > 70.55e9 * 2 / 2**30 - 0.92 * 79.65  # weights alone are too many by this


@pytest.mark.parametrize(
    ("card", "block", "tp", "why"),
    [
        ("llama-3.1-8b", 0, 8, ""),
        ("llama-3.1-8b", 0, 16, ""),  # KV heads are copied
        ("llama-3.1-8b", 0, 64, "32 attention heads"),
        ("deepseek-v3", 128, 8, ""),  # the latent of MLA is copied to every rank
        ("deepseek-v3", 128, 32, "FP8 blocks of 128 in 18432 columns"),
        ("qwen3-235b-a22b", 128, 8, "FP8 blocks of 128 in 1536 columns"),
        ("qwen3-235b-a22b", 0, 8, ""),
    ],
)
def test_splits(card: str, block: int, tp: int, why: str) -> None:
    assert unsplit(read_card(ROOT / "models" / f"{card}.toml").architecture, block, tp) == why


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--concurrency", "1,x"], "--concurrency: not a number of requests: 'x'"),
        (["--concurrency", "0"], "--concurrency"),
        (["--concurrency", ""], "--concurrency"),
        (["--confidence", "0.3"], "--confidence: must be from 0.5 to 0.99"),
        (["--format", "yaml"], "unknown format"),
        (["--tp", "0"], "--tp"),
        (["--gpu", "nothing"], "--gpu"),
        (["-o", "no/such/folder/x"], "no/such/folder"),
    ],
)
def test_errors_are_one_line(run: Run, words: list[str], part: str) -> None:
    status, out, err = run(*EIGHT_B, *words)
    assert status == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1 and part in err


def test_what_must_be_given(run: Run) -> None:
    status, _, err = run("predict", "--gpu", "L4")
    assert status == 2 and "--checkpoint" in err


# ---- words


def test_the_table_answers_all_questions(run: Run) -> None:
    status, out, err = run(*EIGHT_B, "--concurrency", "64,1,8,8")
    assert (status, err) == (0, "")
    for word in (
        "Prediction",
        "TTFT band",
        "tokens/s/GPU",
        "decoding",
        "Throughput against speed",
        "█",
        "Where the time goes",
        "bottleneck",
        "Memory",
        "Evidence",
    ):
        assert word in out
    assert "\x1b" not in out


def test_other_formats(run: Run, tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(run(*EIGHT_B, "--format", "csv")[1])))
    assert [r["concurrency"] for r in rows] == ["1", "8", "64"] and float(rows[0]["step_weights_ms"]) > 0
    assert run(*EIGHT_B, "--format", "markdown")[1].startswith("## Prediction\n")
    file = tmp_path / "p.json"
    assert run(*EIGHT_B, "--format", "json", "-o", file) == (0, "", "")
    assert json.loads(file.read_text())["model"] == "Llama-3.1-8B"


def test_bars_are_in_proportion() -> None:
    assert bars([0, 16, 32], width=32) == ["", "█" * 16, "█" * 32]
    assert bars([1, 32], width=4)[0] == "▏"
    assert bars([0.0]) == [""]
