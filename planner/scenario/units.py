"""Parses and prints the quantities people write with units: durations, money per time, shares, NAME=VALUE pairs."""

from __future__ import annotations

import re
from typing import Any

HOURS_PER_MONTH = 730.0  # 8,760 h a year / 12
MOST_SECONDS, MOST_USD_PER_HOUR = 3.6e6, 1e9  # beyond these it is a slip of the pen
_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}
_PER_SECOND = {"us": 1e6, "ms": 1e3}  # divided by, which is exact where multiplying by 0.001 is not
_HOURS = {"h": 1.0, "hour": 1.0, "day": 24.0, "month": HOURS_PER_MONTH, "mo": HOURS_PER_MONTH, "year": 12 * HOURS_PER_MONTH}
_SCALE = {"": 1.0, "k": 1e3, "m": 1e6}


def parse_duration_s(value: object) -> float:
    """Seconds of "2s", "50ms", "1.5 min". Raises ValueError, with a hint where the unit is missing."""
    text = str(value).strip()
    match = re.fullmatch(r"([+-]?\d*\.?\d+(?:[eE][+-]?\d+)?)\s*([a-zA-Zµ]*)", text)
    if not match:
        raise ValueError("is not a duration; write 2s or 500ms")
    number, unit = float(match.group(1)), match.group(2).replace("µ", "u")
    if not unit:
        raise ValueError(f"needs a unit: {text}ms or {text}s")
    if unit not in _SECONDS and unit not in _PER_SECOND:
        raise ValueError(f"has no known unit; use {', '.join((*_PER_SECOND, *_SECONDS))}")
    if number <= 0:
        raise ValueError("must be more than zero")
    seconds = number / _PER_SECOND[unit] if unit in _PER_SECOND else number * _SECONDS[unit]
    if not 1e-6 <= seconds <= MOST_SECONDS:
        raise ValueError(f"must lie between 1us and {MOST_SECONDS / 3600:g}h")
    return seconds


def format_duration(seconds: float) -> str:
    """The shortest exact text of a duration: 2s, 50ms; read back by parse_duration_s."""
    if seconds >= 1 or seconds == 0:
        return f"{exact(seconds)}s"
    unit = "ms" if seconds >= 1e-3 else "us"
    text = f"{seconds * _PER_SECOND[unit]:.12g}"
    return f"{text}{unit}" if float(text) / _PER_SECOND[unit] == seconds else f"{exact(seconds)}s"


def exact(number: float) -> str:
    """A number as short text that reads back as the same number."""
    text = f"{number:.12g}"
    return text if float(text) == number else repr(number)


def parse_usd_per_hour(value: object) -> float:
    """Dollars per hour of "120/h", "50000/month", "$1.2M/year". Raises ValueError without a period."""
    text = str(value).strip().replace(",", "").replace("_", "").lstrip("$")
    match = re.fullmatch(r"(\d*\.?\d+(?:[eE][+-]?\d+)?)\s*([kKmM]?)\s*(?:/\s*([a-zA-Z]+))?", text)
    if not match:
        raise ValueError("is not money per time; write 120/h or 50000/month")
    if not match.group(3):
        raise ValueError(f"needs a period: {text}/h or {text}/month")
    if match.group(3).lower() not in _HOURS:
        raise ValueError(f"has no known period; use {', '.join(_HOURS)}")
    amount = float(match.group(1)) * _SCALE[match.group(2).lower()]
    if not 0 < amount / _HOURS[match.group(3).lower()] <= MOST_USD_PER_HOUR:
        raise ValueError(f"must be more than zero, and at most {MOST_USD_PER_HOUR:g}/h")
    return amount / _HOURS[match.group(3).lower()]


def parse_span_h(value: object) -> float:
    """Hours of "1month", "90 days", "730h". Raises ValueError without a unit."""
    match = re.fullmatch(r"(\d*\.?\d+)\s*([a-zA-Z]*)", str(value).strip())
    units = {**_HOURS, "week": 168.0}
    if not match or match.group(2).lower().removesuffix("s") not in units:
        raise ValueError(f"is not a span of time; write 1month, 90days or 730h (units: {', '.join(units)})")
    hours = float(match.group(1)) * units[match.group(2).lower().removesuffix("s")]
    if not 1 <= hours <= 20 * units["year"]:
        raise ValueError("must lie between 1h and 20years")
    return hours


def parse_share(value: Any) -> float:
    """A share of 0–1, or a percentage that says so (20%). Raises ValueError, with the likely intention where it does not."""
    percent = isinstance(value, str) and value.strip().endswith("%")
    try:
        number = float(value.strip().rstrip("%")) / 100 if percent else float(value)
    except (TypeError, ValueError):
        raise ValueError("is not a number between 0 and 1") from None
    if 1 < number <= 100:
        raise ValueError(f"is a share between 0 and 1: write {number / 100:g}, not {number:g}")
    if not 0 <= number <= 1:
        raise ValueError("must lie between 0 and 1")
    return number


def parse_rate(value: object) -> float:
    """Tokens per second of 20 or "20/s". Raises ValueError."""
    match = re.fullmatch(r"(\d*\.?\d+(?:[eE][+-]?\d+)?)\s*(?:/\s*s)?", str(value).strip())
    if not match or not 1e-6 <= float(match.group(1)) <= 1e6:
        raise ValueError(f"'{value}' is not tokens per second; write 20 or 20/s")
    return float(match.group(1))


def parse_pairs(value: object) -> object:
    """{"H100": "64"} of ("H100=64",); a mapping stays as it is."""
    if not isinstance(value, (list, tuple)):
        return value
    pairs: dict[str, str] = {}
    for item in value:
        name, equals, amount = str(item).partition("=")
        if not equals or not name.strip() or not amount.strip():
            raise ValueError(f"'{item}' is not NAME=VALUE")
        if name.strip() in pairs:
            raise ValueError(f"'{name.strip()}' stands twice")
        pairs[name.strip()] = amount.strip()
    return pairs


def format_lead(seconds: float) -> str:
    """A time that may be none at all."""
    return format_duration(seconds) if seconds else "0s"
