"""Trace and log files as streams of Rows: which format a file is in, its columns and units, and what a row must have to count.

Formats: azure (LLM inference traces 2023 and 2024), burstgpt, mooncake, litellm (spend logs), openai (gateway logs), normal
(arrival_s,input_tokens,output_tokens) and columns (any table, with a map of columns). Memory is that of one chunk.
"""

from __future__ import annotations

import io
import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from planner.demand.tally import MOST_TOKENS, RequestRows
from planner.errors import PlannerError, did_you_mean
from planner.opened import BUFFER, beginning, opened, whole

if TYPE_CHECKING:
    import pandas as pd

CHUNK = 200_000  # rows read at once
MOST_BLOCKS = 2**30  # prefix blocks told apart, one bit each; beyond, numbers fold onto one another
PARTS = ("ts", "isl", "osl", "cached", "reasoning", "model", "status")
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Format:
    """Columns (or dotted keys) by part, several names where sources differ; unit of numeric times ("" = by size)."""

    name: str
    columns: Mapping[str, tuple[str, ...]]
    unit: str = ""
    is_json: bool = False
    failed_when_empty: bool = False  # no answer tokens: the request failed
    ok: frozenset[str] = field(default_factory=frozenset)  # values of status; empty: any
    needs: tuple[str, ...] = ()  # by which the format is told from others


OK = frozenset(("success", "ok", "200", "200.0", "true", ""))
FORMATS = {
    f.name: f
    for f in (
        Format("azure", {"ts": ("TIMESTAMP",), "isl": ("ContextTokens",), "osl": ("GeneratedTokens",)}, needs=("TIMESTAMP", "ContextTokens")),
        Format(
            "burstgpt", {"ts": ("Timestamp",), "isl": ("Request tokens",), "osl": ("Response tokens",), "model": ("Model",)},
            unit="s", failed_when_empty=True, needs=("Timestamp", "Request tokens"),
        ),
        Format("mooncake", {"ts": ("timestamp",), "isl": ("input_length",), "osl": ("output_length",)}, unit="ms", is_json=True, needs=("input_length",)),
        Format(
            "litellm",
            {"ts": ("startTime",), "isl": ("prompt_tokens",), "osl": ("completion_tokens",), "model": ("model_group", "model"), "status": ("status",)},
            ok=OK, needs=("startTime", "prompt_tokens"),
        ),
        Format(
            "openai",
            {
                "ts": ("ts", "created", "created_at", "timestamp"), "isl": ("usage.prompt_tokens", "usage.input_tokens"),
                "osl": ("usage.completion_tokens", "usage.output_tokens"), "model": ("model",), "status": ("status",),
                "cached": ("usage.prompt_tokens_details.cached_tokens", "usage.input_tokens_details.cached_tokens"),
                "reasoning": ("usage.completion_tokens_details.reasoning_tokens", "usage.output_tokens_details.reasoning_tokens"),
            },
            is_json=True, ok=OK | {"completed"}, needs=("usage",),
        ),
        Format("normal", {"ts": ("arrival_s",), "isl": ("input_tokens",), "osl": ("output_tokens",)}, unit="s", needs=("arrival_s", "input_tokens")),
        Format("columns", {}),
    )
}  # fmt: skip


@dataclass(frozen=True)
class TraceFile:
    """A file with its format; ``model``: count this one alone ("" = all)."""

    path: Path
    format: Format
    model: str = ""


def trace_of(path: Path, as_format: str = "", mapped: Mapping[str, str] | None = None, model: str = "") -> TraceFile:
    """The file as a trace, its format named or found out. Raises PlannerError for an unknown one."""
    if as_format and as_format not in FORMATS:
        raise PlannerError(f"unknown format '{as_format}'", "--as", did_you_mean(as_format, FORMATS) or f"one of {', '.join(FORMATS)}, prometheus")
    if mapped:
        return TraceFile(path, _mapped(path, mapped, FORMATS.get(as_format)), model)
    if as_format == "columns":
        raise PlannerError("which columns?", "--map", "such as --map ts=time,isl=prompt_tokens,osl=completion_tokens")
    return TraceFile(path, FORMATS[as_format] if as_format else _sniffed(path), model)


def _mapped(path: Path, mapped: Mapping[str, str], base: Format | None) -> Format:
    unknown = [k for k in mapped if k not in PARTS]
    if unknown:
        raise PlannerError(f"unknown part '{unknown[0]}'", "--map", did_you_mean(unknown[0], PARTS) or f"one of {', '.join(PARTS)}")
    columns = dict(base.columns if base else {}) | {k: (v.rsplit(":", 1)[0] if k == "ts" and _unit(v) else v,) for k, v in mapped.items()}
    if "isl" not in columns or "osl" not in columns:
        raise PlannerError("prompt and answer tokens are needed", "--map", "give isl=COLUMN and osl=COLUMN; ts=COLUMN too where arrivals are known")
    unit = _unit(mapped.get("ts", "")) or (base.unit if base else "")
    return Format("columns" if base is None else base.name, columns, unit, _is_json(path), base.failed_when_empty if base else False, OK)


def _unit(text: str) -> str:
    """The unit in "column:ms", if one is there."""
    return text.rsplit(":", 1)[1] if ":" in text and text.rsplit(":", 1)[1] in UNITS else ""


LATEST_S = 1e11  # since 1970: the year 5138; a number beyond is no time
UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}


def _is_json(path: Path) -> bool:
    return path.suffix != ".parquet" and beginning(path, 256).lstrip()[:1] in ("{", "[")


def _sniffed(path: Path) -> Format:
    if path.suffix == ".parquet":
        raise PlannerError("which columns?", str(path), "give --map ts=COLUMN,isl=COLUMN,osl=COLUMN")
    text = beginning(path)
    if not text.strip():
        raise PlannerError("the file is empty", str(path))
    first = next(line for line in text.splitlines() if line.strip())
    if _is_json(path):
        keys = _keys(text)
        is_fit = [f for f in FORMATS.values() if f.needs and all(n in keys for n in f.needs) and (f.is_json or f.name == "litellm")]
    else:
        keys = {c.strip().strip('"') for c in first.split(",")}
        is_fit = [f for f in FORMATS.values() if f.needs and not f.is_json and all(n in keys for n in f.needs)]
    if "NumImages" in keys:
        raise PlannerError("requests carry images, which are not planned for", str(path), "convert images to prompt tokens, then give --map")
    if not is_fit:
        shown = ", ".join(sorted(keys)[:8]) or first[:60]
        raise PlannerError("the format is not known", str(path), f"give --as or --map ts=…,isl=…,osl=…; it has {shown}")
    return is_fit[0]


def _keys(text: str) -> set[str]:
    """Keys of the first whole object in JSON text."""
    start = text.find("{")
    try:
        found, _ = json.JSONDecoder().raw_decode(text[start:])
    except (ValueError, RecursionError):
        for line in text.splitlines():  # a damaged first line does not hide the format
            try:
                found = json.loads(line)
                break
            except (ValueError, RecursionError):
                continue
        else:
            return set()
    return set(found) if isinstance(found, dict) else set()


def rows(trace: TraceFile, progress: Progress | None = None) -> Iterator[RequestRows]:
    """The trace in chunks. Raises PlannerError for a file that cannot be read as its format."""
    reader = _parquet if trace.path.suffix == ".parquet" else _json_rows if trace.format.is_json or _is_json(trace.path) else _csv
    blocks = Blocks() if trace.format.name == "mooncake" else None
    for frame, dropped in reader(trace, blocks, progress):
        yield _rows(frame, dropped, trace)


# ---- reading: each yields tables of raw columns ts, isl, osl, … with counts of what was no row


def _csv(trace: TraceFile, _: Blocks | None, progress: Progress | None) -> Iterator[tuple[pd.DataFrame, Counter[str]]]:
    import pandas as pd

    stream, tell, size = opened(trace.path)
    with stream, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            reader = pd.read_csv(
                io.BufferedReader(stream, BUFFER), chunksize=CHUNK, low_memory=False, on_bad_lines="warn", encoding_errors="replace", skipinitialspace=True,
                keep_default_na=True, index_col=False,
            )  # fmt: skip
            seen = 0
            for frame in reader:
                skipped = sum(str(w.message).count("Skipping line") for w in told[seen:])
                seen = len(told)
                frame.columns = [str(c).strip() for c in frame.columns]
                yield _named(frame, trace), Counter({"more cells than columns": skipped} if skipped else {})
                if progress:
                    progress(tell(), size)
        except pd.errors.EmptyDataError:
            raise PlannerError("the file is empty", str(trace.path)) from None
        except (pd.errors.ParserError, OSError) as error:
            raise PlannerError(f"is not a table: {str(error).strip().splitlines()[-1]}", str(trace.path)) from None


def _parquet(trace: TraceFile, _: Blocks | None, progress: Progress | None) -> Iterator[tuple[pd.DataFrame, Counter[str]]]:
    try:
        from pyarrow import lib, parquet
    except ImportError:
        raise PlannerError("Parquet needs pyarrow", str(trace.path), "pip install 'inference-planner[parquet]', or convert to CSV") from None
    try:
        file = parquet.ParquetFile(trace.path)
        wanted = [n for names in trace.format.columns.values() for n in names]
        done = 0
        for batch in file.iter_batches(CHUNK, columns=[n for n in file.schema_arrow.names if n in wanted]):
            yield _named(batch.to_pandas(), trace), Counter()
            done += len(batch)
            if progress:
                progress(done, file.metadata.num_rows)
    except (lib.ArrowException, OSError) as error:
        raise PlannerError(f"is no Parquet file: {error}", str(trace.path)) from None


def _named(frame: pd.DataFrame, trace: TraceFile) -> pd.DataFrame:
    """The columns under the names of their parts. Raises PlannerError for a missing one."""
    found = {part: next((n for n in names if n in frame.columns), None) for part, names in trace.format.columns.items()}
    missing = [trace.format.columns[p][0] for p, name in found.items() if name is None and p in ("ts", "isl", "osl")]
    if missing:
        raise PlannerError(f"column '{missing[0]}' is missing", str(trace.path), did_you_mean(missing[0], map(str, frame.columns)))
    named = {p: frame[n] for p, n in found.items() if n is not None} | ({"cache_hit": frame["cache_hit"]} if "cache_hit" in frame.columns else {})
    return type(frame)(named)


def _json_rows(trace: TraceFile, blocks: Blocks | None, progress: Progress | None) -> Iterator[tuple[pd.DataFrame, Counter[str]]]:
    """JSON lines, or an array with an object a line (trailing commas and the brackets are passed over)."""
    import pandas as pd

    stream, tell, size = opened(trace.path)
    paths = {p: [n.split(".") for n in names] for p, names in trace.format.columns.items()}
    with stream:
        lines = iter(io.TextIOWrapper(io.BufferedReader(stream, BUFFER), encoding="utf-8-sig", errors="replace"))
        array = _array(trace.path)
        while chunk := list(islice(lines if array is None else array, CHUNK // 4)):
            dropped: Counter[str] = Counter()
            table: dict[str, list[object]] = {p: [] for p in (*paths, "cache_hit", *(("cached",) if blocks else ()))}
            for line in chunk:
                found = line if isinstance(line, dict) else _object(line)
                if not isinstance(found, dict):
                    dropped.update(["not a JSON object"] if found is not Ellipsis else [])
                    continue
                for part, names in paths.items():
                    table[part].append(_first(found, names))
                table["cache_hit"].append(found.get("cache_hit"))
                if blocks:
                    table["cached"].append(blocks.found(found.get("hash_ids"), found.get("input_length")))
            yield pd.DataFrame(table), dropped
            if progress:
                progress(tell(), size)


def _array(path: Path) -> Iterator[Any] | None:
    """The objects of an array that stands on few lines; None where lines can be read one by one."""
    head = beginning(path, 4096).lstrip()
    if head[:1] != "[" or "\n" in head[1:]:
        return None
    try:
        found: list[object] = json.loads(whole(path), parse_int=_whole)
    except (ValueError, RecursionError) as error:
        raise PlannerError(f"is not JSON: {error}", str(path)) from None
    return iter(found)


def _object(line: str) -> object:
    """The object of a line; ... for a blank line or bracket, None for what is none."""
    text = line.strip().rstrip(",")
    if text in ("", "[", "]"):
        return ...
    try:
        return json.loads(text, parse_int=_whole)
    except (ValueError, RecursionError):
        return None


def _whole(digits: str) -> float:
    """A whole number; endless where no float could hold it."""
    return int(digits) if len(digits) < 300 else float(digits)


def _first(found: dict[str, object], paths: list[list[str]]) -> object:
    for path in paths:
        value: object = found
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            return value
    return None


class Blocks:
    """Prefix blocks seen so far, for the hit rate of a cache that keeps everything."""

    def __init__(self) -> None:
        self._seen = bytearray(1 << 16)

    def found(self, ids: object, tokens: object) -> float | None:
        """Prompt tokens in the leading blocks that were seen before; all blocks are seen from now on. None where ids are unknown."""
        if not isinstance(ids, list) or not ids or not isinstance(tokens, (int, float)) or not 0 <= tokens <= MOST_TOKENS:
            return None
        hits, leading = 0, True
        for block in ids:
            place = (block if isinstance(block, int) else hash(str(block))) % MOST_BLOCKS
            byte, bit = place >> 3, 1 << (place & 7)
            if byte >= len(self._seen):
                self._seen.extend(bytes(max(byte + 1, min(2 * len(self._seen), MOST_BLOCKS >> 3)) - len(self._seen)))
            leading = leading and bool(self._seen[byte] & bit)
            hits += leading
            self._seen[byte] |= bit
        return tokens * hits / len(ids)


# ---- from raw columns to Rows


def _rows(frame: pd.DataFrame, dropped: Counter[str], trace: TraceFile) -> RequestRows:
    """What of a table counts, and why the rest does not: the first reason of each row."""

    def number(part: str) -> NDArray[np.float64]:
        return numbers(frame[part]).to_numpy(dtype=float) if part in frame else np.full(len(frame), np.nan)

    form = trace.format
    inputs, outputs, cached, reasoning = (number(p) for p in ("isl", "osl", "cached", "reasoning"))
    timed = "ts" in frame
    arrival = seconds(frame["ts"], form.unit) if timed else np.full(len(frame), np.nan)
    models = frame["model"].fillna("").astype(str).to_numpy() if "model" in frame else np.full(len(frame), "")
    status = _texts(frame["status"]) if "status" in frame and form.ok else np.full(len(frame), "")
    hits = _texts(frame["cache_hit"]) if "cache_hit" in frame else np.full(len(frame), "")
    with np.errstate(invalid="ignore"):
        reasons = [
            ("another model", (models != trace.model) if trace.model else np.zeros(len(frame), dtype=bool)),
            ("failed", ~np.isin(status, sorted(form.ok)) if form.ok else np.zeros(len(frame), dtype=bool)),
            ("answered by a response cache", np.isin(hits, ("true", "1"))),
            ("no arrival time", np.isnan(arrival) if timed else np.zeros(len(frame), dtype=bool)),
            ("prompt tokens are no number", np.isnan(inputs)),
            ("answer tokens are no number", np.isnan(outputs)),
            ("negative tokens", (inputs < 0) | (outputs < 0)),
            (f"more than {MOST_TOKENS:,} tokens", (inputs > MOST_TOKENS) | (outputs > MOST_TOKENS)),
            ("no prompt tokens", inputs < 1),
            ("failed: no answer tokens" if form.failed_when_empty else "no answer tokens", outputs < 1),
        ]
    left = np.ones(len(frame), dtype=bool)
    for why, bad in reasons:
        if n := int((left & bad).sum()):
            dropped[why] += n
        left &= ~bad
    thought = np.where(np.isnan(reasoning), 0.0, np.clip(reasoning, 0, np.maximum(outputs - 1, 0)))[left]
    known = left & ~np.isnan(cached)
    answers = outputs[left] - thought
    return RequestRows(
        arrival[left], inputs[left].astype(np.int64), answers.astype(np.int64), float(np.minimum(cached[known], inputs[known]).sum()),
        float(inputs[known].sum()), float(thought.sum()), float(answers.sum()), dropped,
        Counter(dict(zip(*np.unique(models[left].astype(str), return_counts=True), strict=True))) if "model" in frame else Counter(),
    )  # fmt: skip


def numbers(column: pd.Series) -> pd.Series:
    """NaN for what is no number; endless what no float could hold."""
    import pandas as pd

    try:
        return pd.to_numeric(column, errors="coerce")
    except OverflowError:  # of a whole number, which pandas does not coerce
        return column.map(_float)


def _float(cell: Any) -> float:
    try:
        return float(cell)
    except OverflowError:
        return float("inf")
    except (TypeError, ValueError):
        return float("nan")


def _texts(column: pd.Series) -> NDArray[np.object_]:
    found: NDArray[np.object_] = column.astype(object).where(column.notna(), "").astype(str).str.lower().str.strip().to_numpy()
    return found


def seconds(column: pd.Series, unit: str = "") -> NDArray[np.float64]:
    """Arrivals in seconds: numbers in the unit given, else judged by size (since 1970 in ns, us, ms or s; small ones are s); else dates."""
    import pandas as pd

    found = numbers(column)
    if found.notna().sum() * 2 >= max(column.notna().sum(), 1):  # mostly numbers
        values = found.to_numpy(dtype=float)
        typical = float(np.nanmedian(np.abs(values))) if np.isfinite(values).any() else 0.0
        unit = unit or next((u for u, least in (("ns", 1e17), ("us", 1e14), ("ms", 1e11)) if typical > least), "s")
        times = values / UNITS[unit]
        return np.where(np.abs(times) <= LATEST_S, times, np.nan)
    dates = pd.to_datetime(column, errors="coerce", utc=True, format="ISO8601")
    return np.where(dates.notna(), dates.astype("int64").to_numpy() / _per_second(dates), np.nan)


def _per_second(times: pd.Series) -> float:
    return UNITS[str(times.dt.unit)]
