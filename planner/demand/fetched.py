"""Metrics from an address: /metrics of an engine, a query of Prometheus, or a Prometheus server, which is asked for the last while."""

from __future__ import annotations

import time
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException

from planner.clean import clipped
from planner.demand.live import READ
from planner.errors import PlannerError
from planner.limits import FILE_BYTES, MIB

TIMEOUT_S = 10.0  # to connect, and for each piece
WHOLE_S = 60.0
STEPS = 60  # of a range
LEAST_STEP_S = 15.0
CHUNK = 65536


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """An address leads where it says: one that sends on is answered as an error."""

    def redirect_request(self, *_: object, **__: object) -> None:
        """None: not followed."""
        return


def is_address(text: str) -> bool:
    """Whether it is an address and no file."""
    return "://" in text


def fetched(address: str, over_s: float, now: float) -> str:
    """The text behind an address; a bare server is asked for ``over_s`` seconds until ``now``. Raises PlannerError."""
    parts = _parts(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise PlannerError("only http and https are fetched", _shown(address), "or save the metrics and give the file")
    if parts.username or parts.password:
        raise PlannerError("an address with a password in it is not taken", _shown(address), "fetch it yourself (curl -u …) and give the file")
    if parts.path in ("", "/"):
        step = max(over_s / STEPS, LEAST_STEP_S)
        query = {"query": f'{{__name__=~"{READ}"}}', "start": f"{now - over_s:.0f}", "end": f"{now:.0f}", "step": f"{step:.0f}"}
        address = urllib.parse.urlunsplit((parts.scheme, parts.netloc, "/api/v1/query_range", urllib.parse.urlencode(query), ""))
    return _read(address)


def _read(address: str) -> str:
    opener = urllib.request.build_opener(_NoRedirect)
    until = time.monotonic() + WHOLE_S
    found = bytearray()
    try:
        with opener.open(urllib.request.Request(address, headers={"Accept": "application/json, text/plain"}), timeout=TIMEOUT_S) as answer:
            while piece := answer.read1(CHUNK):
                found += piece
                if len(found) > FILE_BYTES:
                    raise PlannerError(f"sends more than {FILE_BYTES // MIB} MiB, the most that is read", _shown(address), "ask for a shorter time (--over)")
                if time.monotonic() > until:
                    raise PlannerError(f"takes longer than {WHOLE_S:.0f} s", _shown(address))
    except urllib.error.HTTPError as error:
        raise PlannerError(f"answers {error.code} {error.reason}", _shown(address)) from None
    except (OSError, HTTPException, ValueError) as error:
        cause = getattr(error, "reason", error)
        why = getattr(cause, "strerror", None) or (cause if isinstance(cause, str) else type(cause).__name__)
        raise PlannerError(f"cannot be fetched: {why}", _shown(address)) from None
    return found.decode("utf-8", errors="replace")


def _shown(address: str) -> str:
    """The address without a query or a password."""
    parts = _parts(address)
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _parts(address: str) -> urllib.parse.SplitResult:
    try:
        return urllib.parse.urlsplit(address)
    except ValueError:
        raise PlannerError("is no address", clipped(address)) from None
