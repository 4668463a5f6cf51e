"""A benchmark's file, of whatever tool, as points: which tool's it is shows in its content; what is none of them is refused in one line."""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from planner.bench import aiperf, guidellm, inferencex, llmd, sglang, trtllm, vllm
from planner.bench.points import MeasuredPoint, read_points
from planner.bench.setup import Setup, completed
from planner.errors import PlannerError
from planner.limits import BENCH_BYTES, YAML_BYTES
from planner.opened import beginning, whole
from planner.raw import Raw

MOST_RUNS = 10_000  # of a file
MOST_DEPTH = 100  # of a YAML file


@dataclass(frozen=True)
class Reader:
    """One tool: whether an object is its, and the points of a file of such objects."""

    tool: str
    is_it: Callable[[Raw], bool]
    points: Callable[[Sequence[Raw]], list[MeasuredPoint]]


READERS = (
    Reader(llmd.TOOL, llmd.is_report, llmd.points),
    Reader(guidellm.TOOL, guidellm.is_guidellm, guidellm.points),
    Reader(aiperf.TOOL, aiperf.is_aiperf, aiperf.points),
    Reader(f"{aiperf.TOOL} requests", aiperf.is_request, aiperf.of_requests),
    Reader(trtllm.TOOL, trtllm.is_trtllm, trtllm.points),
    Reader(inferencex.TOOL, inferencex.is_inferencex, inferencex.points),
    Reader(sglang.TOOL, sglang.is_sglang, sglang.points),
    Reader(vllm.TOOL, vllm.is_vllm, vllm.points),
)
# What stands beside results and is none: a sweep's warm-up, failed runs, and vLLM's copy of a result for PyTorch's dashboards.
BESIDE = {"warmup.json": "a warm-up", ".failure.json": "a run that failed", ".pytorch.json": "a copy of another result"}


def read_bench(path: Path, flags: Setup) -> list[MeasuredPoint]:
    """All points of a file, in one of the tools' forms or as CSV in the points' own. Raises PlannerError, with the flag to add where the file lacks one."""
    if str(path) == "-" or (path.exists() and not path.is_file() and not path.is_dir()):
        return _spooled(path, flags)
    if path.is_dir():
        raise PlannerError("is a folder, not a file", str(path), f"give its files, such as {path}/*.json")
    if passed_over(path):
        raise PlannerError(f"is {passed_over(path)}, not a result", str(path), "leave it out")
    if not path.exists():
        raise PlannerError("no such file", str(path))
    if _is_table(path):
        return _stamped(read_points(path), path)
    return completed(_stamped([_placed(p, path) for p in _of_tool(path)], path), path, flags)


def _spooled(path: Path, flags: Setup) -> list[MeasuredPoint]:
    """The points of standard input or a pipe, which can be read but once. Raises PlannerError."""
    source = Path("/dev/stdin") if str(path) == "-" else path
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / ("stdin" if str(path) == "-" else path.name)
        try:
            with source.open("rb") as stream:
                copy.write_bytes(stream.read(BENCH_BYTES + 1))
            return read_bench(copy, flags)
        except OSError as error:
            raise PlannerError(f"cannot be read: {error.strerror or type(error).__name__}", str(path)) from None
        except PlannerError as error:
            raise type(error)(error.what, error.where.replace(str(copy), str(path)), error.hint) from None


def _stamped(points: Sequence[MeasuredPoint], path: Path) -> list[MeasuredPoint]:
    """The points with the file that they are from, unless they say that they came from another."""
    digest = _sha256(path)
    return [
        p
        if p.provenance.file_sha256
        else replace(p, provenance=replace(p.provenance, file=path.name, file_sha256=digest, run=p.provenance.run or f"line {p.line}"))
        for p in points
    ]


def passed_over(path: Path) -> str:
    """What a file is that stands beside results; "" for one that may be a result."""
    return next((what for ending, what in BESIDE.items() if path.name == ending or (ending[0] == "." and path.name.endswith(ending))), "")


def _is_table(path: Path) -> bool:
    """Whether it is a CSV. Raises PlannerError for tables of tools, whose JSON holds more."""
    first = beginning(path, 4096).lstrip()
    if first[:1] in ("{", "["):
        return False
    if first.startswith("Run Info,"):
        raise PlannerError("is GuideLLM's CSV", str(path), "give benchmarks.json of the same run, which holds all of it")
    return path.suffix.lower() == ".csv" or (path.suffix.lower() not in (".yaml", ".yml", ".json", ".jsonl") and "," in first.split("\n", 1)[0])


def _of_tool(path: Path) -> list[MeasuredPoint]:
    """The points as the tool's file has them. Raises PlannerError."""
    objects = _objects(path)
    reader = next((r for r in READERS if objects and r.is_it(objects[0])), None)
    if reader is None:
        raise PlannerError("is no result of a benchmark that is known", str(path), f"known: {', '.join(r.tool for r in READERS)}, or points as CSV")
    strange = next((i for i, raw in enumerate(objects, 1) if not reader.is_it(raw)), None)
    if strange:
        raise PlannerError(f"entry {strange} is no result of {reader.tool}, as the first is", str(path))
    try:
        found = reader.points(objects)
    except PlannerError as error:
        raise PlannerError(error.what, str(path), error.hint) from None
    if not found:
        raise PlannerError("holds no run", str(path), f"read as {reader.tool}")
    return found


def _placed(point: MeasuredPoint, path: Path) -> MeasuredPoint:
    """A point whose lengths or load are beyond sense says nothing."""
    too_much = [n for n in (point.isl, point.osl) if math.isfinite(n) and n < 1]
    return replace(point, unread=f"{path.name}: fewer than one token") if too_much and not point.unread else point


def _objects(path: Path) -> list[Raw]:
    """The objects of a JSON file: one, a list of them, or one a line; or of a YAML file. Raises PlannerError for anything else."""
    is_json = beginning(path, 256).lstrip()[:1] in ("{", "[")
    text = whole(path, BENCH_BYTES if is_json else YAML_BYTES, "leave the single requests out of it")
    if not text.strip():
        raise PlannerError("the file is empty", str(path))
    try:
        found = _json(text) if is_json else _yaml(text, path)
    except RecursionError:
        raise PlannerError("is nested too deeply", str(path)) from None
    except ValueError as error:
        raise PlannerError(f"is no valid JSON: {error}", str(path)) from None
    entries: list[object] = found if isinstance(found, list) else [found]
    objects = [o for o in entries if isinstance(o, dict)]
    if len(objects) < len(entries):
        raise PlannerError("is no result of a benchmark: it holds other things than objects", str(path))
    if len(objects) > MOST_RUNS and not (objects and aiperf.is_request(objects[0])):
        raise PlannerError(f"holds {len(objects):,} runs, of at most {MOST_RUNS:,}", str(path))
    return objects


def _json(text: str) -> object:
    """Python's JSON, with Infinity and NaN; one object a line where there are several. Raises ValueError and RecursionError."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) < 2 or not error.msg.startswith("Extra data"):
            raise
        return [json.loads(line) for line in lines]


def _yaml(text: str, path: Path) -> Any:
    """Plain YAML: no tags, no depth beyond reason. Raises PlannerError."""
    try:
        import yaml
    except ImportError:
        raise PlannerError("YAML needs PyYAML", str(path), "pip install 'inference-planner[yaml]', or convert it to JSON") from None
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = 0
    try:
        for event in yaml.parse(text, Loader=loader):  # before anything is made of it
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            tag = getattr(event, "tag", None)
            if depth > MOST_DEPTH:
                raise PlannerError("is nested too deeply", str(path))
            if tag:
                raise PlannerError(f"carries the tag {tag}", str(path), "plain YAML has none")
            if isinstance(event, yaml.AliasEvent):
                raise PlannerError("carries an alias", str(path), "write out what it stands for")
        return yaml.load(text, Loader=loader)
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        raise PlannerError("is no valid YAML", f"{path}:{place.line + 1}" if place else str(path)) from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
