"""Which load a client put on the endpoint: a closed loop, an open one, or all at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

CLOSED, OPEN, BURST, OFFLINE = "closed_loop", "open_loop", "burst", "offline"
BINDS = 0.95  # of the most in flight: so many in the mean, and it is the limit that sets the pace, not the rate


@dataclass(frozen=True)
class Load:
    """A load in the terms of points; ``note`` says what of it they do not."""

    kind: str
    concurrency: float | None = None
    rate: float | None = None
    note: str = ""


def load_of(rate: float | None, most: float | None, requests: int | None, in_flight: float | None) -> Load:
    """Of the rate asked (infinite: as fast as may be), the most requests in flight (infinite or None: any number), how many there
    were, and how many were in flight in the mean (None: not known)."""
    limited = most is not None and math.isfinite(most)
    if rate is None or math.isinf(rate):
        if limited:
            return Load(CLOSED, most)
        told = rate is not None or most is not None
        return Load(BURST, rate=math.inf, note=f"{requests} requests" if requests else "") if told else Load("")
    if limited and in_flight is not None and most is not None and in_flight >= BINDS * most:
        return Load(CLOSED, most, note=f"{rate:g} requests/s were offered to {most:g} places, which were full")
    return Load(OPEN, rate=rate, note=f"at most {most:g} in flight" if limited else "")


def in_flight(requests_per_s: float | None, e2e_ms: float | None) -> float | None:
    """Little's law."""
    return requests_per_s * e2e_ms / 1000 if requests_per_s and e2e_ms else None
