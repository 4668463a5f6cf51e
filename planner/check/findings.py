"""What a check reports: breaches by name, and one sentence per family of what was verified. Comparisons that NaN fails."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from math import isfinite
from typing import TypeVar

import numpy as np
from pydantic import BaseModel

T = TypeVar("T")
RELATIVE = 1e-6
CENT = 0.01


@dataclass(frozen=True)
class Breach:
    """One thing that does not hold: the family that found it, where, and what was found against what is right."""

    name: str
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.name}: {self.where}: {self.what}" if self.where else f"{self.name}: {self.what}"


@dataclass(frozen=True)
class Finding:
    """What one family found, and the sentence that says what it verified."""

    breaches: tuple[Breach, ...]
    check: str


@dataclass(frozen=True)
class Report:
    """The outcome of a check."""

    breaches: tuple[Breach, ...]
    checks: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.breaches


class Notes:
    """Collects the breaches of one family."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.breaches: list[Breach] = []

    def add(self, where: str, what: str) -> None:
        """A breach."""
        self.breaches.append(Breach(self.name, where, what))

    def require(self, holds: bool, where: str, what: str) -> None:
        """A breach unless it holds."""
        if not holds:
            self.add(where, what)

    def agree(self, stated: float, right: float, where: str, what: str, relative: float = RELATIVE) -> None:
        """A breach unless the stated number is the right one."""
        self.require(same(stated, right, relative), where, f"states {what} {stated:.8g}, should be {right:.8g}")

    def match(self, stated: BaseModel, right: BaseModel, where: str, relative: float = RELATIVE, skip: Collection[str] = ()) -> None:
        """A breach for each field of a record that is not as in the right one: numbers within a tolerance, all else exactly."""
        for name in type(right).model_fields:
            value, ought = getattr(stated, name), getattr(right, name)
            agree = value == ought or (isinstance(value, float) and isinstance(ought, (int, float)) and same(value, ought, relative))
            self.require(name in skip or agree, where, f"states {name.replace('_', ' ')} {_short(value)}, should be {_short(ought)}")

    def finding(self, check: str) -> Finding:
        """All of it with the family's sentence."""
        return Finding(tuple(self.breaches), check)


def _short(value: object) -> str:
    return f"{value:.8g}" if isinstance(value, float) else f"'{value}'" if isinstance(value, str) else str(value)


def attempted(family: Callable[[T], Finding], about: T) -> Finding:
    """What a family finds. Counts of nothing and numbers beyond measure, which no sum survives, are a breach and no crash."""
    try:
        with np.errstate(over="raise", divide="raise", invalid="raise"):
            return family(about)
    except ArithmeticError as error:
        name = family.__name__.strip("_")
        return Finding((Breach(name, name, f"cannot be derived from what the plan states: {error}"),), f"{name}: not derived")


def same(a: float, b: float, relative: float = RELATIVE) -> bool:
    """Equal within a relative tolerance; NaN and infinity equal nothing."""
    return isfinite(a) and isfinite(b) and abs(a - b) <= relative * max(abs(a), abs(b), 1e-9)


def same_money(a: float, b: float) -> bool:
    """Equal to the cent; NaN and infinity equal nothing."""
    return isfinite(a) and isfinite(b) and abs(a - b) <= CENT / 2 + RELATIVE * abs(b)


def at_most(a: float, b: float, relative: float = RELATIVE) -> bool:
    """a <= b within a relative tolerance; false for NaN and for a limit that is none."""
    return isfinite(b) and a <= b + relative * max(abs(b), 1e-9)
