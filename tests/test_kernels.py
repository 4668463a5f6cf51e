"""Kernels beside the planner's assumptions: a record made by hand gives the shares worked out by hand, and without a GPU nothing is measured."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RECORD = Path(__file__).parent / "data" / "kernels.json"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "benchmarks/kernels.py", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def shown() -> str:
    done = run("--compare", str(RECORD))
    assert done.returncode == 0, done.stderr
    return done.stdout


def cells(shown: str, start: str) -> list[str]:
    line = next(line for line in shown.splitlines() if line.startswith(start))
    return [c.strip() for c in line.strip("|").split("|")]


def test_without_a_gpu_one_line_says_why_and_nothing_is_written(tmp_path: Path) -> None:
    torch_on_gpu = "import torch, sys; sys.exit(not torch.cuda.is_available())"
    if subprocess.run([sys.executable, "-c", torch_on_gpu], capture_output=True).returncode == 0:
        pytest.skip("there is a GPU")
    done = run("--json", str(tmp_path / "k.json"))
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, "", 1)
    assert done.stdout.startswith("Skipped: ") and not (tmp_path / "k.json").exists()


def test_an_unnamed_h100_is_the_module_and_its_peaks_are_the_catalogues(shown: str) -> None:
    assert "H100-SXM-80GB: 3,350 GB/s, 989 TFLOP/s in BF16, 1,979 in FP8" in shown


@pytest.mark.parametrize(
    ("name", "median"),
    [
        ("weights", "0.50"),  # 2 x 10,000 x 16,750 weights of 2 bytes in 400 µs: 1,675 GB/s
        ("experts", "0.50"),  # 8 experts of 3 x 2,048 x 768 weights of 2 bytes in 45.07 µs: 1,675 GB/s
        ("prefill_flops", "0.50"),  # 2 x 8,192 tokens x 2 x 98.9 million weights in 6.554 ms: 494.5 TFLOP/s
        ("kv", "0.80"),  # 16 x 16,384 tokens x 2 x 8 x 128 numbers of 2 bytes in 400.63 µs: 2,680 GB/s
        ("attention_flops", "0.50"),  # half of 4 x 32 x 128 x 8,192² in 1.112 ms: 494.5 TFLOP/s
    ],
)
def test_a_coefficient_stands_beside_what_kernels_reach(shown: str, name: str, median: str) -> None:
    assert cells(shown, f"| `{name}` |")[2] == median


def test_a_layer_counts_only_with_all_of_its_products(shown: str) -> None:
    """The record holds one of two products at 4,096 tokens: a sum over it would be a layer half as large."""
    assert "| BF16 | 8,192 | 1 |" in shown and "| BF16 | 4,096 |" not in shown


def test_the_planner_reads_the_weights_of_a_step_no_faster_than_the_bandwidth(shown: str) -> None:
    """Llama-3.1-8B: 8.03 billion weights without the embedding of 128,256 x 4,096, and 1,024 tokens of 128 KiB of keys and values."""
    least = 1e3 * (2 * (8.03e9 - 128256 * 4096) + 1024 * 131072) / 3350e9
    measured, products = cells(shown, "| 1,024 | 1 |")[2:4]
    assert measured == "6.00" and least < float(products) < 1.6 * least


def test_what_was_not_measured_is_said_with_its_reason(shown: str) -> None:
    assert "- experts: 1 not measured, first Qwen3-30B-A3B fp8 1 balanced: scaled_grouped_mm: RuntimeError: not here" in shown
    assert "- experts: cut short after 1 s" in shown


@pytest.mark.parametrize(
    ("content", "why"),
    [("[]", "is no record of kernels.py"), (RECORD.read_text().replace("H100", "X9"), "'NVIDIA X9 80GB HBM3', which the catalogue does not hold")],
)
def test_a_record_that_cannot_be_compared_is_refused_in_one_line(tmp_path: Path, content: str, why: str) -> None:
    path = tmp_path / "k.json"
    path.write_text(content)
    done = run("--compare", str(path))
    assert done.returncode == 2 and why in done.stderr and len(done.stderr.splitlines()) == 1 and not done.stdout
