"""How fast the kernels are that the performance model stands for: measures them on the NVIDIA GPU of this machine, and compares.

    python benchmarks/kernels.py [--json benchmarks/results/kernels.json] [--seconds 35]     measures; needs PyTorch and a GPU, else skips
    python benchmarks/kernels.py --compare benchmarks/results/kernels.json [--gpu NAME]      needs the planner, no GPU; prints Markdown

Measuring imports nothing but PyTorch, so that it runs where the planner is not installed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import kernel_clock
import kernel_compare
import kernel_families
import kernel_steps

FOLDER = Path(__file__).resolve().parent
FAMILIES = {
    "memory": kernel_families.memory,
    "dense": kernel_families.dense,
    "decode": kernel_families.decode_attention,
    "prefill": kernel_families.prefill_attention,
    "experts": kernel_families.experts,
    "steps": kernel_steps.steps,
}


def main(arguments: list[str] | None = None) -> int:
    """Measures or compares; 0 also where there is nothing to measure on, 2 for a record that cannot be read."""
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != FOLDER]  # scripts here are named like modules that libraries look for
    parser = argparse.ArgumentParser(description="Measures GPU kernels, or sets measured ones beside the planner's assumptions.")
    parser.add_argument("--json", type=Path, default=FOLDER / "results" / "kernels.json", help="where the record is written")
    parser.add_argument("--seconds", type=float, default=35.0, help="at most so long per family of kernels (there are six)")
    parser.add_argument("--only", nargs="+", choices=FAMILIES, default=list(FAMILIES), help="families to measure")
    parser.add_argument("--compare", type=Path, metavar="RECORD", help="print a comparison of this record, measuring nothing")
    parser.add_argument("--gpu", default="", help="the catalogue's name of the GPU of the record, where it is not clear")
    parser.add_argument("--device", default="cuda", help=argparse.SUPPRESS)  # cpu: a trial of this script
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.compare:
        return kernel_compare.compare(given.compare, given.gpu)
    why_not = nothing_to_measure(given.device)
    if why_not:
        print(f"Skipped: {why_not}; measured records are compared with --compare.")
        return 0
    measure(given.json, given.seconds, given.only, kernel_clock.Clock(given.device, given.tiny))
    return 0


def nothing_to_measure(device: str) -> str:
    """Why no kernel can be measured here; empty if one can."""
    try:
        import torch
    except ImportError:
        return "PyTorch is not installed"
    if device == "cuda" and not torch.cuda.is_available():
        return "no NVIDIA GPU that PyTorch can use"
    return "" if device != "cuda" or torch.version.cuda else "this PyTorch is not for NVIDIA GPUs"


def measure(path: Path, seconds: float, names: list[str], clock: kernel_clock.Clock) -> None:
    """Measures the families in turn; the record is written after each."""
    record = kernel_clock.Record(path, seconds, kernel_clock.header(clock))
    print(f"{record.data['gpu']['name']}, torch {record.data['torch']}", flush=True)
    clock.torch.manual_seed(0)
    with clock.torch.inference_mode():
        for name in names:
            record.run(name, lambda r, n=name: FAMILIES[n](clock, r))
            clock.tidy()
    record.data["nvidia_smi_after"] = kernel_clock.clocks()
    record.write()
    print(f"wrote {path}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
