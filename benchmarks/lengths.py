"""Makes the shapes in catalogs/lengths/ out of public traces and published histograms; DATA_SOURCES.md says where these are from.

python benchmarks/lengths.py FOLDER [MOONCAKE.jsonl]: FOLDER holds raw/NAME.csv.gz (arrival_s,input_tokens,output_tokens), hist2d_NAME.csv and
summary.csv with the published means and percentiles; the Mooncake trace itself has the block hashes that its prefix hits follow from.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from planner.catalog.load import shipped_folders
from planner.demand.records import Demand, Spread, to_toml
from planner.demand.source import imported, read_histogram
from planner.files import write_whole

FORMATS = {"azure-2023-conv": "azure", "azure-2023-code": "azure"}  # that the raw files came from, before columns were renamed
TRACES = {"azure-2023-conv": "azure_2023_conv", "azure-2023-code": "azure_2023_code", "mooncake-conversation": "mooncake_conversation"}
HISTOGRAMS = {
    "servegen-deepseek-r1": "servegen_deepseek-r1",
    "mlperf-llama2-70b-openorca": "mlperf_llama2_70b_openorca",
    "mlperf-llama3.1-8b-cnndm": "mlperf_llama3_1_8b_cnndm",
    "mlperf-llama3.1-405b": "mlperf_llama3_1_405b",
    "mlperf-mixtral-8x7b": "mlperf_mixtral_8x7b",
    "mlperf-deepseek-r1": "mlperf_deepseek_r1",
}


def main(folder: Path, mooncake: Path | None) -> None:
    """Writes every shape and prints its size."""
    with (folder / "summary.csv").open(encoding="utf-8") as file:
        published = {r["trace"]: r for r in csv.DictReader(file)}
    made = {name: imported(folder / "raw" / f"{stem}.csv.gz") for name, stem in TRACES.items()}
    if mooncake:
        made["mooncake-conversation"] = imported(mooncake)
    made |= {name: _placed(folder / f"hist2d_{stem}.csv", published[stem]) for name, stem in HISTOGRAMS.items()}
    target = shipped_folders()[1] / "lengths"
    target.mkdir(exist_ok=True)
    for name, demand in made.items():
        if name.endswith("deepseek-r1"):
            demand = demand.model_copy(update={"notes": (*demand.notes, "answers include reasoning tokens")})
        row = published[(TRACES | HISTOGRAMS)[name]]
        text = to_toml(demand.model_copy(update={"source": row["source"], "format": FORMATS.get(name, demand.format), "licence": row["licence"]}))
        write_whole(target / f"{name}.toml", text)
        print(f"{name}: {len(demand.cells)} cells, {len(text):,} bytes")


def _placed(path: Path, row: dict[str, str]) -> Demand:
    """A published histogram with requests placed in its buckets so that the published means hold; percentiles as published."""
    demand = read_histogram(path, (float(row["in_mean"]), float(row["out_mean"])))
    update = {side: _spread(row, short, getattr(demand, side)) for side, short in (("input", "in"), ("output", "out"))}
    notes = ("lengths without arrivals: state the rate", "requests are placed in the published buckets so that the published means hold")
    if "2-D histogram" in row["note"]:
        notes += (row["note"].rsplit("; ", 1)[1],)
    return demand.model_copy(update=update | {"requests": float(row["requests"]), "notes": notes})


def _spread(row: dict[str, str], short: str, found: Spread) -> Spread:
    return found.model_copy(update={k: float(row[f"{short}_{k}"]) for k in ("mean", "p50", "p90", "p99", "max")})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
