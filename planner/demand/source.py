"""Any source of demand by its name: a shipped shape, a demand TOML, a histogram, a trace or a metrics file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from planner.catalog.files import csv_dicts, is_file, read_toml
from planner.catalog.load import shipped_folders
from planner.demand.formats import Progress, rows, trace_of
from planner.demand.lengths import Histogram
from planner.demand.prometheus import is_prometheus, placed, read_prometheus
from planner.demand.records import Demand, DemandFile, cells_of, demand_of, spread_in
from planner.demand.tally import MOST_TOKENS, Tally
from planner.errors import PlannerError, did_you_mean
from planner.opened import beginning

INTERVAL = re.compile(r"\[\s*([\d.]+)\s*[;,]\s*([\d.]+|inf)\s*[)\]]")
LARGEST_MODELS = 20
MOST_REQUESTS = 1e15  # of a cell


def shapes() -> dict[str, Path]:
    """Shipped shapes by name."""
    return {p.stem: p for p in sorted((shipped_folders()[1] / "lengths").glob("*.toml"))}


def read_demand(name: str, folder: Path | None = None) -> Demand:
    """The demand of a shipped shape's name, or of a demand TOML or histogram CSV (relative to ``folder``). Raises PlannerError."""
    path = (folder / name) if folder else Path(name)
    if name in shapes() and not is_file(path):
        return read_toml(shapes()[name], DemandFile).demand
    if not is_file(path):
        raise PlannerError(f"no shape or file '{name}'", hint=did_you_mean(name, shapes()) or f"shipped shapes: {', '.join(shapes())}")
    return read_toml(path, DemandFile).demand if path.suffix == ".toml" else read_histogram(path) if is_histogram(path) else imported(path)


def imported(path: Path, as_format: str = "", mapped: Mapping[str, str] | None = None, model: str = "", progress: Progress | None = None) -> Demand:
    """The demand in a trace, log or metrics file. Raises PlannerError for one that cannot be read or has no request that counts."""
    if not is_file(path):
        raise PlannerError("no such file", str(path))
    if as_format == "prometheus" or (not as_format and not mapped and is_prometheus(path)):
        return read_prometheus(path, model)
    trace = trace_of(path, as_format, mapped, model)
    tally = Tally()
    for some in rows(trace, progress):
        tally.add(some)
    if not tally.requests:
        why = "; ".join(f"{n:,} rows: {reason}" for reason, n in tally.dropped.most_common())
        raise PlannerError(f"no request counts ({why or 'there are no rows'})", str(path), f"read as {trace.format.name}; --as or --map reads it otherwise")
    name = trace.format.name
    prefix = "block hashes, with a cache that keeps everything" if name == "mooncake" else "cached tokens that the source reports"
    return demand_of(tally, path.name, name, _notes(tally, model), prefix)


def _notes(tally: Tally, model: str) -> tuple[str, ...]:
    found = [] if tally.ordered else ["rows are far out of order: the gaps between requests are not known"]
    if len(tally.models) > 1 and not model:
        named = ", ".join(f"{m or 'unnamed'} {n / tally.requests:.0%}" for m, n in tally.models.most_common(LARGEST_MODELS))
        found.append(f"{len(tally.models)} models together ({named}); --model counts one")
    if not len(tally.counts):
        found.append("the source has no arrivals: state --qps")
    if tally.reasoning:
        found.append("answer lengths are without reasoning tokens; output_factor counts these")
    return tuple(found)


def is_file_of_counts(path: Path) -> bool:
    """Whether a file is a demand TOML or a histogram: already counted."""
    return path.suffix == ".toml" or is_histogram(path)


def is_histogram(path: Path) -> bool:
    """Whether a CSV counts requests by length instead of listing them."""
    head = {c.strip() for c in (beginning(path, 4096).splitlines() or [""])[0].split(",")}
    return {"input_tokens", "output_tokens", "count"} <= head or {"input_tokens_bucket", "output_tokens_bucket"} <= head


def read_histogram(path: Path, means: tuple[float, float] | None = None) -> Demand:
    """A two-dimensional histogram: input_tokens,output_tokens,count (the tokens of each cell), or input_tokens_bucket,output_tokens_bucket with
    intervals "[128;256)" and count or share. ``means``: known mean tokens, which then place requests within intervals. Raises PlannerError."""
    cells, weights = [], []
    for line, row in csv_dicts(path):
        try:
            sides = [_interval(row, side) for side in ("input_tokens", "output_tokens")]
            weights.append(float(row.get("count") or row["share"]))
        except (KeyError, TypeError, ValueError):
            raise PlannerError("is no cell of a histogram", f"{path}:{line}", "columns input_tokens,output_tokens,count") from None
        cells.append(sides)
        if weights[-1] < 0 or not np.isfinite(weights[-1]):
            raise PlannerError("counts must not be negative", f"{path}:{line}")
        if weights[-1] > MOST_REQUESTS or not all(bound <= MOST_TOKENS for side in sides for bound in side):  # NaN is not
            raise PlannerError(f"counts at most {MOST_REQUESTS:g} requests, of {MOST_TOKENS:,} tokens", f"{path}:{line}")
    if not sum(weights):
        raise PlannerError("there are no requests", str(path))
    bounds, weight = np.array(cells)[np.array(weights) > 0], np.array([w for w in weights if w > 0])
    inputs, outputs = (placed(bounds[:, i], weight, means[i] if means else None) for i in (0, 1))
    histogram = Histogram(inputs, outputs, weight)
    exact = bool((bounds[:, :, 0] == bounds[:, :, 1]).all())
    notes = () if exact or means else ("requests stand in the middle of their buckets (on the logarithm): means are to the buckets' width",)
    return Demand(
        source=path.name, format="histogram", requests=histogram.requests, input=spread_in(histogram, "inputs"), output=spread_in(histogram, "outputs"),
        notes=("the source has no arrivals: state --qps", *notes), cells=cells_of(histogram),
    )  # fmt: skip


def _interval(row: Mapping[str, str], side: str) -> tuple[float, float]:
    """Bounds of a cell on one side, at least one token."""
    text = row.get(f"{side}_bucket")
    if text is None:
        tokens = max(float(row[side]), 1.0)
        return tokens, tokens
    match = INTERVAL.fullmatch(text.strip())
    if not match:
        raise ValueError(text)
    low = max(float(match.group(1)), 1.0)
    high = 2 * low if match.group(2) == "inf" else max(float(match.group(2)), low)
    return low, high
