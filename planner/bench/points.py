"""Measured serving points in their one form: one row per measurement, latencies in milliseconds, rates in tokens/s and requests/s; read and written.

Only what is needed to predict a row must be there: a row without it, or with a cell that is no number, keeps its place and says why it cannot be
read. A file is refused where its header is wrong or no row can be read.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from planner.catalog.files import csv_rows
from planner.errors import CatalogError, did_you_mean
from planner.performance.tuning import RECIPE, TUNINGS
from planner.scenario.records import Tuning

NEEDED = ("model", "gpu", "engine", "isl", "osl")
LATENCIES = tuple(f"{metric}_ms_{part}" for metric in ("ttft", "tpot", "e2e") for part in ("mean", "p50", "p90", "p95", "p99"))
MEASURED = "measured"
RATES = ("request_rate_achieved", "output_tps_total", "output_tps_per_gpu", "total_tps_per_gpu")
OTHER_NAMES = {"ttft_ms": "ttft_ms_mean", "tpot_ms": "tpot_ms_mean", "e2e_ms": "e2e_ms_mean", "dp": "dp_attn", "output_tps": "output_tps_total"}
WORDS = (
    "source", "source_ref", "license", "date", "engine_version", "precision", "gpus_total", "tp", "pp", "ep", "dp_attn", "mode", "spec_decode",
    "tuning", "poll_steps", "workload", "load_type", "concurrency", "request_rate", "curve_id", "curve_points", "notes",
)  # fmt: skip
PROVENANCE = ("tool", "tool_version", "file", "file_sha256", "run", "confidence", "tpot_def", "token_source")
KNOWN = (*NEEDED, *WORDS, *RATES, *LATENCIES, *OTHER_NAMES)
COLUMNS = (
    "source", "date", "engine", "engine_version", "model", "precision", "gpu", "gpus_total", "tp", "pp", "ep", "dp_attn", "mode", "spec_decode", "tuning",
    "poll_steps", "isl", "osl", "workload", "load_type", "concurrency", "request_rate", *RATES, *LATENCIES, *PROVENANCE, "notes",
)  # fmt: skip
MOST = 1e9  # of any number in a row
TRUE, FALSE = ("true", "yes"), ("", "false", "no")


@dataclass(frozen=True)
class Provenance:
    """Where a point comes from. ``tpot_def``: what the tool calls TPOT (docs/measure.md); ``token_source``: who counted tokens (client, server, nominal)."""

    tool: str = ""
    tool_version: str = ""
    file: str = ""
    file_sha256: str = ""
    run: str = ""  # which one of the file's
    confidence: str = MEASURED  # or simulated, estimated
    tpot_def: str = ""
    token_source: str = ""


@dataclass(frozen=True)
class MeasuredPoint:
    """One measured row. ``measured`` holds what the row gives of LATENCIES and RATES; 0 in ``dp`` = on, size not told."""

    line: int
    source: str = ""
    date: str = ""
    model: str = ""
    precision: str = ""
    gpu: str = ""
    engine: str = ""
    gpus: int | None = None
    tp: int | None = None
    pp: int = 1
    ep: int = 1
    dp: int = 1
    mode: str = ""
    spec_decode: str = ""
    isl: float = math.nan
    osl: float = math.nan
    workload: str = ""
    load: str = ""  # closed_loop, open_loop…, burst…, offline, static_batch; told from the other columns where blank
    concurrency: float | None = None
    request_rate: float | None = None  # infinite: all at once
    measured: Mapping[str, float] = field(default_factory=dict)
    notes: str = ""
    tuning: Tuning = RECIPE  # how the engine was set
    engine_version: str = ""
    poll_steps: int = 1  # between two looks of the engine for new requests
    provenance: Provenance = Provenance()
    place: str = ""  # which of several files it stands in
    unread: str = ""  # why the row cannot be read; lengths are then nan and nothing is measured


def read_points(path: Path) -> list[MeasuredPoint]:
    """All rows of a file, those that cannot be read included. Raises CatalogError with file and line, that of the first row where no row can be read."""
    rows = csv_rows(path)
    _, header = next(rows, (1, []))
    if not header:
        raise CatalogError("the file is empty", str(path), f"needs a header line with at least {', '.join(NEEDED)} and concurrency or request_rate")
    columns = _columns(header, f"{path}:1")
    points: list[MeasuredPoint] = []
    first: CatalogError | None = None
    for line, cells in rows:
        if not any(c.strip() for c in cells):
            continue
        where = f"{path}:{line}"
        row = dict(zip(columns, (c.strip() for c in cells), strict=False))
        try:
            if len(cells) != len(columns):
                raise CatalogError(f"{len(cells)} cells where the header has {len(columns)}", where)
            points.append(_point(row, line, where))
        except CatalogError as error:
            first = first or error
            points.append(_unread(row, line, error.what))
    if not points:
        raise CatalogError("no rows below the header", str(path))
    if first and all(p.unread for p in points):
        raise CatalogError(first.what, first.where, "no other row can be read either" if len(points) > 1 else "")
    return points


def lines_of(points: Sequence[MeasuredPoint]) -> str:
    """Where points stand: lines as 2-9, 12, by file where there are several."""
    places = dict.fromkeys(p.place for p in points)
    return "; ".join(f"{place} {lines}" if place else lines for place in places for lines in [spans([p.line for p in points if p.place == place])])


def spans(numbers: Sequence[int], most: int = 8) -> str:
    """Line numbers as 2-9, 12, 15-17, …"""
    runs: list[list[int]] = []
    for n in sorted(numbers):
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    words = [f"{a}" if a == b else f"{a}-{b}" for a, b in runs[:most]]
    return ", ".join(words) + (f", … ({len(runs) - most} more)" if len(runs) > most else "")


def _columns(header: Sequence[str], where: str) -> list[str]:
    """Our names of the columns. Columns that mean nothing to us are passed over, misspelt ones are not."""
    columns = [OTHER_NAMES.get(c.strip(), c.strip()) for c in header]
    for name in columns:
        near = difflib.get_close_matches(name, KNOWN, n=1, cutoff=0.85) if name not in (*KNOWN, *PROVENANCE) else []
        if near:
            raise CatalogError(f"unknown column '{name}'", where, f"did you mean '{near[0]}'?")
    if len(set(columns)) < len(columns):
        raise CatalogError(f"column '{next(c for c in columns if columns.count(c) > 1)}' stands twice", where)
    missing = [n for n in NEEDED if n not in columns]
    if not missing and not {"concurrency", "request_rate"} & set(columns):
        missing = ["concurrency"]
    if missing:
        raise CatalogError(f"column '{missing[0]}' is missing", where, did_you_mean(missing[0], columns) or f"needs {', '.join(NEEDED)} and a load")
    return columns


def _point(row: Mapping[str, str], line: int, where: str) -> MeasuredPoint:
    def number(name: str, least: float = 0.0) -> float | None:
        return _number(row.get(name, ""), name, where, least)

    def size(name: str) -> int | None:
        value = number(name, 1.0)
        if value is not None and value != int(value):
            raise CatalogError(f"'{name}': not a whole number, got '{row[name]}'", where)
        return None if value is None else int(value)

    if not row["model"]:
        raise CatalogError("'model' is blank", where)
    isl, osl = number("isl", 1.0), number("osl", 1.0)
    if isl is None or osl is None:
        raise CatalogError(f"'{'isl' if isl is None else 'osl'}' is blank", where)
    rate, concurrency = _number(row.get("request_rate", ""), "request_rate", where, 0.0, endless=True), number("concurrency")
    measured = {name: value for name in (*LATENCIES, *RATES) if (value := number(name)) is not None}
    tuning = _tuning(row.get("tuning", ""), where)
    return replace(
        _named(row, line), gpus=size("gpus_total"), tp=size("tp"), pp=size("pp") or 1, ep=size("ep") or 1, dp=_attention(row.get("dp_attn", ""), where),
        isl=isl, osl=osl, tuning=tuning, poll_steps=size("poll_steps") or 1, load=row.get("load_type", "") or _load(rate),
        concurrency=concurrency, request_rate=rate, measured=measured,
    )  # fmt: skip


def _unread(row: Mapping[str, str], line: int, why: str) -> MeasuredPoint:
    """A row that keeps its place; its names are shown where they are told."""
    return replace(_named(row, line), unread=why)


def _named(row: Mapping[str, str], line: int) -> MeasuredPoint:
    """A row's texts."""
    text = row.get
    came = {name: text(name, "") for name in PROVENANCE}
    return MeasuredPoint(
        line, text("source", ""), text("date", ""), text("model", ""), text("precision", ""), text("gpu", ""), text("engine", ""), mode=text("mode", ""),
        spec_decode=text("spec_decode", ""), workload=text("workload", ""), load=text("load_type", ""), notes=text("notes", ""),
        engine_version=text("engine_version", ""), provenance=Provenance(**came | {"confidence": came["confidence"] or MEASURED}),
    )  # fmt: skip


def cells_of(point: MeasuredPoint) -> list[object]:
    """A point as the cells of COLUMNS, which read back as it."""
    came = {name: getattr(point.provenance, name) for name in PROVENANCE}
    known = asdict(point) | came | dict(point.measured)
    known |= {"gpus_total": point.gpus, "dp_attn": {0: "true", 1: ""}.get(point.dp, point.dp), "load_type": point.load}
    return [known.get(name) for name in COLUMNS]


def _tuning(text: str, where: str) -> Tuning:
    """How the engine was set; a recipe where that is not told."""
    found = next((t for t in TUNINGS if t == (text or RECIPE)), None)
    if found is None:
        raise CatalogError(f"'tuning': none of {', '.join(TUNINGS)}, got '{text}'", where, did_you_mean(text, TUNINGS))
    return found


def _load(rate: float | None) -> str:
    return "closed_loop" if rate is None else "burst" if math.isinf(rate) else "open_loop"


def _number(text: str, name: str, where: str, least: float, endless: bool = False) -> float | None:
    """The number in a cell, None when blank. Raises CatalogError."""
    if text == "" or text.lower() == "nan":
        return None
    try:
        value = float(text)
    except ValueError:
        raise CatalogError(f"'{name}': not a number, got '{text}'", where) from None
    if value > MOST and not math.isinf(value):
        raise CatalogError(f"'{name}': must be at most {MOST:g}, got '{text}'", where)
    if not value >= least or (math.isinf(value) and not endless):
        raise CatalogError(f"'{name}': must be {'a number' if math.isinf(value) else f'at least {least:g}'}, got '{text}'", where)
    return value


def _attention(text: str, where: str) -> int:
    """Attention data parallel: its size, 1 where it is off, 0 where it is on and its size is not told."""
    if text.lower() in (*FALSE, "nan"):
        return 1
    if text.lower() in TRUE:
        return 0
    return int(_number(text, "dp_attn", where, 1.0) or 1)
