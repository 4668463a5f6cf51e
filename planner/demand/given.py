"""Demand as a scenario carries it: joint lengths as points, and where the rate is from. Cheap to import, for every command does."""

from __future__ import annotations

import re
from math import fsum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from planner.figures import digits

STATED = "the rate as stated"  # a source in itself
TAIL = 0.05  # share of requests whose tokens are the tail

Length = Annotated[float, Field(ge=1, le=1e7, allow_inf_nan=False)]


class Lengths(BaseModel):
    """Lengths as a plan uses them; all that is needed stands here, so a saved plan needs no other file.

    points: (input, output) tokens, of equal weight, in len(cuts) + 1 equal groups by input. cuts: input tokens between the groups.
    longest: input tokens of the longest prompt, output tokens of the longest answer, to a cell of the histogram.
    errors: relative, of the points against the histogram: "work" E[input + output], "prefill" E[input^2], "kv" E[input*output + output^2/2]
    (KV tokens held, summed over steps), "tail" the tokens of the longest 5 % of requests.
    cells: the histogram itself, (input, output) tokens and requests of each cell, kept where requests are still to be split by it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    points: Annotated[tuple[tuple[Length, Length], ...], Field(min_length=1, max_length=1024)]
    cuts: tuple[float, ...] = ()
    longest: tuple[float, float] | None = None
    errors: dict[str, float] = {}
    cells: tuple[tuple[Length, Length, Annotated[float, Field(gt=0, allow_inf_nan=False)]], ...] = ()

    def __str__(self) -> str:
        return self.source

    @property
    def mean_input(self) -> float:
        """Tokens."""
        return fsum(i for i, _ in self.points) / len(self.points)

    @property
    def mean_output(self) -> float:
        """Tokens."""
        return fsum(o for _, o in self.points) / len(self.points)

    def cut(self, max_input: float, max_request: float) -> Lengths:
        """With prompts, and prompts and answers together, cut to these tokens; means fall. The same where nothing is longer."""

        def fitted(prompt: float, answer: float) -> tuple[float, float]:
            written = min(answer, max_request - 1)
            return max(1.0, min(prompt, max_input, max_request - written)), written

        points = tuple(fitted(i, o) for i, o in self.points)
        cells = tuple((*fitted(i, o), n) for i, o, n in self.cells)
        longest = (min(self.longest[0], max_input, max_request - 1), min(self.longest[1], max_request - 1)) if self.longest else None
        same = points == self.points and cells == self.cells
        return self if same else self.model_copy(update={"points": points, "longest": longest, "errors": {}, "cells": cells})

    def describe(self) -> str:
        """What the points leave of the histogram, in words."""
        words = {"work": "tokens", "prefill": "E[input²]", "kv": "KV token-steps", "tail": f"tokens of the longest {TAIL:.0%} of requests"}
        missed = ", ".join(f"{words[k]} {v:+.1%}" for k, v in self.errors.items() if k in words)
        means = f"{self.mean_input:,.0f} in / {self.mean_output:,.0f} out"
        return f"lengths of {self.source}, {means}, as {len(self.points)} joint points" + (f" (against the histogram: {missed})" if missed else "")


class Demanded(BaseModel):
    """Where a workload's rate is from, before growth. ``planned`` and ``mean``: requests/s of the source; burst: its request-weighted p99 over
    the mean where that is too much for a fleet of one size. users, think_s: of a closed loop, answer_s: the mean answer its rate is for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    rule: str = ""
    mean: float | None = None
    planned: float | None = None
    growth: float = 1.0
    burst: float | None = None
    prefix_from: str = ""
    advice: str = ""
    users: float | None = None
    think_s: float | None = None
    answer_s: float | None = None

    def __str__(self) -> str:
        return self.source

    @property
    def is_open(self) -> bool:
        """Whether the rate of its users still waits for a plan."""
        return self.users is not None and self.answer_s is None

    def describe(self) -> str:
        """The rate in words."""
        grown = f", x {self.growth:g} growth" if self.growth != 1 else ""
        if self.users is not None and self.think_s is not None:
            answer = self.answer_s or 0.0
            return f"{self.users:,.6g} users who pause {self.think_s:.3g} s on average between an answer of {answer:.3g} s and the next request{grown}"
        if self.mean is None or self.planned is None:
            return f"demand of {self.source}, at the rate stated{grown}" if self.source != STATED else f"{STATED}{grown}"
        return f"{self.source}: mean {digits(self.mean)} req/s, {self.rule} {digits(self.planned)} req/s ({self.planned / self.mean:.3g} x){grown}"


def parse_growth(value: object) -> float:
    """A factor of "1.3", "30%" or "5%/month for 12 months". Raises ValueError."""
    text = str(value).strip()
    match = re.fullmatch(r"(-?[\d.]+)\s*%(?:\s*/\s*(month|quarter|year)\s+for\s+([\d.]+)\s+(?:month|quarter|year)s?)?", text)
    try:
        if match:
            factor = (1 + float(match.group(1)) / 100) ** float(match.group(3) or 1)
            if match.group(2) and not text.rstrip("s").endswith(match.group(2)):
                raise ValueError("has growth and horizon in different units; write 5%/month for 12 months")
        else:
            factor = float(text)
    except (TypeError, OverflowError):
        raise ValueError("is no growth; write 1.3, 30% or 5%/month for 12 months") from None
    except ValueError as error:
        raise ValueError(str(error) if "different" in str(error) else "is no growth; write 1.3, 30% or 5%/month for 12 months") from None
    if not 0.01 <= factor <= 1000:
        raise ValueError("must lie between 0.01 and 1000 times today's traffic")
    return float(factor)
