"""The errors a user can cause or meet; each is one line saying what, where and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from planner.clean import clipped

MOST_OPTIONS = 4  # a hint names no more


class PlannerError(Exception):
    """Base of all foreseen errors.

    what: the problem in one sentence; where: file, line or flag; hint: what to do. ``exit_code`` is the process's
    exit status (2 bad usage, config or data; 4 no plan for another reason).
    """

    exit_code = 2

    def __init__(self, what: str, where: str = "", hint: str = "") -> None:
        self.what, self.where, self.hint = what, where, hint
        super().__init__(str(self))

    def __str__(self) -> str:
        line = f"{clipped(self.where)}: {self.what}" if self.where else self.what
        return f"{line} ({self.hint})" if self.hint else line


class CatalogError(PlannerError):
    """A card, price list or other catalogue file that cannot be used."""


class ScenarioError(PlannerError):
    """A question that is malformed: flags, scenario file or tables."""


class SolverError(PlannerError):
    """No plan for a reason that is not the user's: solver failure, time limit without a plan, failed check."""

    exit_code = 4


class TimeUp(SolverError):
    """The time allowed for the whole answer is over, and what was asked for is not known."""

    def __init__(self, what: str = "no plan within the time limit") -> None:
        super().__init__(what, "--time-limit", "raise it, or widen --gap")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ "did you mean 'X'?" for known words that begin alike or contain it, else the closest one, or "" (case is ignored)."""
    by_lower = {k.lower(): k for k in sorted(known) if k}
    close = [k for k in by_lower if k.startswith(word.lower())] if len(word) > 1 else []
    beginnings = {k[: len(word)]: k for k in by_lower if len(k) >= len(word) > 2}
    close = close or difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    close = close or [beginnings[b] for b in difflib.get_close_matches(word.lower(), beginnings, n=1, cutoff=0.7)]
    close = close or [k for k in by_lower if len(word) > 1 and (word.lower() in k or k in word.lower())]
    options = [f"'{by_lower[k]}'" for k in close[:MOST_OPTIONS]]
    return f"did you mean {' or '.join(options)}?" if options else ""
