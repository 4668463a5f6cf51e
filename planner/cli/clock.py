"""Stage timings for --timings: the only place where a clock may reach the user."""

from __future__ import annotations

import sys
import time


class LapClock:
    """Prints the time since the last lap to standard error, when enabled."""

    def __init__(self, enabled: bool) -> None:
        self.enabled, self.last = enabled, time.perf_counter()

    def lap(self, stage: str) -> None:
        """Ends a stage."""
        now = time.perf_counter()
        if self.enabled:
            print(f"{stage:24} {now - self.last:6.3f} s", file=sys.stderr)
        self.last = now
