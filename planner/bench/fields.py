"""Values out of the JSON of benchmark tools: numbers that are some, texts that are short, paths that may not be there; nothing is filled in.

``path`` is keys from the outside in, an index for a list. What is not there, or no number (null, NaN, infinite), is None or "".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np

from planner.bench.points import MOST
from planner.clean import clipped, plain
from planner.errors import PlannerError
from planner.limits import NAME_CHARACTERS
from planner.raw import Raw

SECONDS = 1000.0  # ms
SHARES = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0}
UNITS = {"ns": 1e-6, "us": 1e-3, "ms": 1.0, "s": 1e3, "sec": 1e3, "second": 1e3, "seconds": 1e3, "ms/token": 1.0, "s/token": 1e3}  # -> ms


def at(raw: object, *path: str | int) -> object:
    """What stands at a path; None where nothing does."""
    for key in path:
        if isinstance(raw, dict):
            raw = raw.get(key)
        elif isinstance(raw, list) and isinstance(key, int) and -len(raw) <= key < len(raw):
            raw = raw[key]
        else:
            return None
    return raw


def table(raw: object, *path: str | int) -> Raw:
    """The table at a path; an empty one where there is none."""
    found = at(raw, *path)
    return found if isinstance(found, dict) else {}


def rows(raw: object, *path: str | int) -> list[Raw]:
    """The tables in a list at a path."""
    found = at(raw, *path)
    return [r for r in found if isinstance(r, dict)] if isinstance(found, list) else []


def number(raw: object, *path: str | int) -> float | None:
    """A finite number, also one written as text. Raises PlannerError for a negative one, or one beyond anything that is measured."""
    value = _float(at(raw, *path))
    if value is None or not math.isfinite(value):
        return None
    if not 0 <= value <= MOST:
        raise PlannerError(f"'{'.'.join(map(str, path))}' is {value:g}, which nothing measured can be")
    return value


def whole_number(raw: object, *path: str | int) -> int | None:
    """A count of at least 1, also one written as text ("2")."""
    value = number(raw, *path)
    return int(value) if value is not None and value >= 1 and value == int(value) else None


def rate(raw: object, *path: str | int) -> float | None:
    """A rate or a concurrency: a number above 0, or infinite ("inf", Infinity: no limit). Raises PlannerError for one that no client could send."""
    value = _float(at(raw, *path))
    if value is not None and math.isfinite(value):
        value = number(raw, *path)
    return value if value and value > 0 else None


def text(raw: object, *path: str | int) -> str:
    """A name, in visible characters. Raises PlannerError for one too long to be one."""
    found = at(raw, *path)
    if not isinstance(found, str | int | float) or isinstance(found, bool):
        return ""
    if len(str(found)) > NAME_CHARACTERS:
        raise PlannerError(f"'{'.'.join(map(str, path))}' has more than {NAME_CHARACTERS} characters: '{clipped(str(found), 40)}'")
    return plain(str(found)).strip()


def first_text(raw: object, *paths: tuple[str | int, ...]) -> str:
    """The first name that is there."""
    return next((found for path in paths if (found := text(raw, *path))), "")


def day(raw: object, *path: str | int) -> str:
    """A date as 2026-11-22: of seconds since 1970, 20261122-061133, or ISO 8601; "" where it is none."""
    found = at(raw, *path)
    try:
        if isinstance(found, int | float) and not isinstance(found, bool):
            return datetime.fromtimestamp(found, UTC).date().isoformat()
        words = str(found or "")
        return datetime.strptime(words[:8], "%Y%m%d").date().isoformat() if words[:8].isdigit() else datetime.fromisoformat(words[:10]).date().isoformat()
    except (ValueError, OverflowError, OSError):
        return ""


def samples(raw: object, *path: str | int) -> list[float] | None:
    """A list of numbers; None where there is none, or something else is in it."""
    found = at(raw, *path)
    values = [_float(v) for v in found] if isinstance(found, list) else []
    good = [v for v in values if v is not None and math.isfinite(v)]
    return good if good and len(good) == len(values) else None


def of_samples(metric: str, values: Sequence[float], factor: float = 1.0) -> dict[str, float]:
    """Mean and percentiles of all requests, exactly, by the rule that the tools themselves use (numpy's)."""
    found = {f"{metric}_ms_{name}": float(np.percentile(values, share)) * factor for name, share in SHARES.items()}
    return {f"{metric}_ms_mean": float(np.mean(values)) * factor} | found


def latencies(metric: str, given: Mapping[str, float | None], factor: float = 1.0) -> dict[str, float]:
    """What is given of mean, p50, p90, p95 and p99 of a metric, in ms."""
    return {f"{metric}_ms_{part}": value * factor for part, value in given.items() if value is not None}


def some(**given: float | None) -> dict[str, float]:
    """What is given of rates."""
    return {name: value for name, value in given.items() if value is not None}


def _float(value: object) -> float | None:
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return None if math.isnan(found) else found
