"""One deadline for a whole answer: every stage that searches looks at the same clock.

A record is made once, when a question arrives, and passed down; stages that only comment on the answer get a share of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from time import monotonic

from planner.errors import TimeUp
from planner.interrupts import seen


@dataclass(frozen=True)
class Deadline:
    """``at``: when to stop, on the monotonic clock; ``seconds``: the time allowed for the whole answer, of which shares are taken."""

    at: float = inf
    seconds: float = inf

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """So many seconds from now."""
        return cls(monotonic() + seconds, seconds)

    def left(self) -> float:
        """Seconds left; never negative."""
        return 0.0 if seen() else max(0.0, self.at - monotonic())

    def passed(self) -> bool:
        """Whether no time is left; none is after Ctrl-C."""
        return seen() or monotonic() >= self.at

    def share(self, part: float) -> Deadline:
        """A part of the whole time allowed, from now, and no later than this deadline."""
        return Deadline(min(self.at, monotonic() + part * self.seconds), self.seconds)

    def check(self) -> None:
        """Raises TimeUp when it has passed."""
        if self.passed():
            raise TimeUp()


NEVER = Deadline()
