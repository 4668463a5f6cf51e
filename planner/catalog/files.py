"""Reads TOML and CSV files into records, within limits (planner/limits.py); every error names the file, the line and the field."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

import rtoml
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from planner import limits
from planner.clean import read_cell
from planner.errors import CatalogError, did_you_mean
from planner.raw import Raw

R = TypeVar("R", bound=BaseModel)
T = TypeVar("T")
Loc = Sequence[int | str]
VISIBLE = r"^\P{C}*$"  # a name: one line without control characters


def read_toml(path: Path, kind: type[R]) -> R:
    """The record of one TOML file. Raises CatalogError with file and line."""
    text = read_text(path)
    try:
        return kind.model_validate(parse_toml(text, path))
    except ValidationError as error:
        raise describe(error, path, kind, lambda loc: toml_line(text, loc)) from None


def numbered_toml(path: Path, kind: type[BaseModel], table: str) -> Iterator[tuple[int, Any]]:
    """(line number, record) of each [[table]] of a file whose record holds a tuple of them. Raises CatalogError with file and line."""
    text = read_text(path)
    for i, record in enumerate(getattr(read_toml(path, kind), table)):
        yield toml_line(text, (table, i)), record


def parse_toml(text: str, path: Path) -> Raw:
    """TOML as plain data. Raises CatalogError with file and line.

    rtoml rather than the standard library's parser: ten times faster on the 300 kB of cards that every run reads.
    """
    try:
        return rtoml.loads(text)
    except rtoml.TomlParsingError as error:
        what, _, place = str(error).rpartition(" at line ")
        raise CatalogError(f"not valid TOML: {what or error}", f"{path}:{place.split()[0] if what else 'end'}") from None


def read_csv(path: Path, kind: type[R]) -> list[R]:
    """The records of one CSV file with a header line; blank cells are absent. Raises CatalogError with file and line."""
    return [record for _, record in numbered_csv(path, kind)]


def numbered_csv(path: Path, kind: type[R]) -> Iterator[tuple[int, R]]:
    """(line number, record) of each row."""
    rows = csv_rows(path)
    _, header = next(rows, (1, []))
    if not header:
        raise CatalogError("the file is empty", str(path), f"needs a header line with {', '.join(kind.model_fields)}")
    unknown = [c for c in header if c not in kind.model_fields]
    missing = [n for n, f in kind.model_fields.items() if f.is_required() and n not in header]
    if unknown or missing:
        what = f"unknown column '{unknown[0]}'" if unknown else f"column '{missing[0]}' is missing"
        hint = did_you_mean(unknown[0], kind.model_fields) if unknown else ""
        raise CatalogError(what, f"{path}:1", hint or f"columns: {', '.join(kind.model_fields)}")
    many = {n for n, f in kind.model_fields.items() if str(f.annotation).startswith("tuple")}
    for line, row in rows:
        if not row:
            continue
        if len(row) != len(header):
            raise CatalogError(f"{len(row)} cells where the header has {len(header)}", f"{path}:{line}")
        cells: dict[str, object] = {k: (v.split() if k in many else v) for k, v in zip(header, row, strict=True) if v != ""}
        for name in kind.model_fields.keys() & (header if not cells.keys() >= set(header) else ()):
            if name not in cells and kind.model_fields[name].is_required():
                cells[name] = None if "None" in str(kind.model_fields[name].annotation) else cells.get(name)
                if cells[name] is None and "None" not in str(kind.model_fields[name].annotation):
                    raise CatalogError(f"'{name}' is blank", f"{path}:{line}")
        try:
            yield line, kind.model_validate(cells)
        except ValidationError as error:
            raise describe(error, path, kind, _at(line)) from None


def _at(line: int) -> Callable[[Loc], int]:
    """All of a row stands on its line."""
    return lambda _: line


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of each line of a CSV, the header too. Raises CatalogError for what is no table, or too large a one."""
    reader = csv.reader(io.StringIO(read_text(path, limits.FILE_BYTES), newline=""))
    try:
        for i, row in enumerate(reader):
            if i > limits.TABLE_ROWS:
                raise CatalogError(f"has more than {limits.TABLE_ROWS:,} rows, the most that is read of a table", str(path))
            yield reader.line_num, [read_cell(cell) for cell in row]
    except csv.Error as error:
        raise CatalogError(f"is no table: {error}", f"{path}:{reader.line_num}") from None


def csv_dicts(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, cells by column) of each row below the header; cells that a short row lacks are absent. Raises CatalogError."""
    rows = csv_rows(path)
    _, header = next(rows, (1, []))
    yield from ((line, dict(zip(header, row, strict=False))) for line, row in rows if row)


def read_text(path: Path, most: int = limits.TOML_BYTES, what: str = "file") -> str:
    """The file's text. Raises CatalogError when it cannot be read, or has more bytes than ``most``."""
    try:
        with path.open("rb") as file:
            found = file.read(most + 1)
        if len(found) <= most:
            return found.decode("utf-8-sig")
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, or a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error)
        raise CatalogError(f"cannot read the {what}: {reason}", str(path)) from None
    raise CatalogError(f"has more than {most // limits.MIB} MiB, the most that is read of such a file", str(path))


@lru_cache(maxsize=16)
def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Made once: that takes longer than what it reads."""
    return TypeAdapter(kind)


def read_json(path: Path, kind: type[T], what: str) -> T:
    """The record of one JSON file, strictly as its fields are annotated. Raises CatalogError with file and place; ``what`` says what the file should be."""
    adapter: TypeAdapter[T] = _adapter(cast("Any", kind))
    try:
        found: T = adapter.validate_json(read_text(path, limits.FILE_BYTES), strict=True)
        return found
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part != "[key]")
        message = message_of(first)
        told = message if not place else f"'{place}' is missing" if first["type"] == "missing" else f"'{place}': {message[:1].lower()}{message[1:]}"
        raise CatalogError(f"not a file of {what}: {told}{_got(first)}", str(path)) from None


def is_file(path: str | Path) -> bool:
    """Whether there is such a file; a name that no file can have (too long, with a NUL) is none."""
    with suppress(OSError, ValueError):
        return Path(path).is_file()
    return False


def is_folder(path: str | Path) -> bool:
    """The same of a folder."""
    with suppress(OSError, ValueError):
        return Path(path).is_dir()
    return False


def describe(error: ValidationError, path: Path, kind: type[BaseModel], line_of: Callable[[Loc], int]) -> CatalogError:
    """The first validation error as one line, with did-you-mean for misspelt keys."""
    errors = error.errors()
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])  # a misspelt key explains a missing one
    loc = first["loc"]
    name = ".".join(str(part) for part in loc if not isinstance(part, int))
    where = f"{path}:{line_of(loc)}"
    if first["type"] == "extra_forbidden":
        hint = did_you_mean(str(loc[-1]), _keys_at(kind, loc[:-1]))
        return CatalogError(f"unknown key '{name}'", where, hint)
    if first["type"] == "missing":
        return CatalogError(f"'{name}' is missing", where)
    message = message_of(first)
    return CatalogError(f"'{name}': {message[0].lower()}{message[1:]}{_got(first)}", where)


def _got(error: ErrorDetails) -> str:
    """The value that an error is about, where it is a single one."""
    return "" if error["type"] in ("missing", "json_invalid") or isinstance(error["input"], (dict, list)) else f", got {error['input']!r}"


def message_of(error: ErrorDetails) -> str:
    """What pydantic says of a value, in our words where its own speak of Python."""
    limit = error.get("ctx", {}).get("max_length")
    if error["type"] == "string_too_long":
        return f"must have at most {limit} characters"
    if error["type"] == "string_pattern_mismatch" and error["ctx"]["pattern"] == VISIBLE:
        return "must be visible characters on one line"
    if error["type"] == "too_long":
        return f"{error['ctx']['actual_length']:,} are too many: at most {limit:,}"
    return str(error["msg"]).removeprefix("Value error, ")


def toml_line(text: str, loc: Loc) -> int:
    """The line (1-based) where a key path stands in TOML text; the nearest enclosing table when the key is absent."""
    lines, names = text.splitlines(), [str(p) for p in loc if not isinstance(p, int)]
    if not names:
        return 1
    for depth in (2, 1) if len(names) > 1 else (1,):  # [[supply.owned]] or [supply]
        heads = [i for i, s in enumerate(lines) if re.match(rf"\s*\[\[?\s*\"?{re.escape('.'.join(names[:depth]))}\"?\s*\]", s)]
        if heads:
            break
    place = loc[depth] if len(loc) > depth else 0
    index = place if isinstance(place, int) else 0
    start = heads[index] if index < len(heads) else 0
    inner = names[depth:] if heads else names
    for key in reversed(inner):  # the innermost key that begins a line; inline tables hide theirs
        for i in range(start, len(lines)):
            if i > start and heads and re.match(r"\s*\[", lines[i]):
                break
            if re.match(rf"\s*\"?{re.escape(key)}\"?\s*=", lines[i]):
                return i + 1
    return start + 1


def _keys_at(kind: type[BaseModel], loc: Loc) -> list[str]:
    """Field names of the record found at a key path."""
    for part in (p for p in loc if not isinstance(p, int)):
        field = kind.model_fields.get(str(part))
        annotation = getattr(field, "annotation", None)
        inner = [a for a in (annotation, *getattr(annotation, "__args__", ())) if isinstance(a, type) and issubclass(a, BaseModel)]
        if not inner:
            return []
        kind = inner[0]
    return list(kind.model_fields)
