"""Ctrl-C and SIGTERM of the command: where time is being spent on an answer its time is then up, anywhere else the process ends at once.

A second one always ends the process. A program that uses the library keeps its own handling of signals: it gets KeyboardInterrupt.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_end: Callable[[], None]
_seen = 0
_answering = False


def take(end: Callable[[], None]) -> None:
    """Takes the process's SIGINT and SIGTERM, unless they are ignored (nohup). ``end`` ends the process."""
    global _end
    _end = end
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _received)


@contextmanager
def answering() -> Iterator[None]:
    """Inside, what is found by the time of a first signal is still told: every deadline has passed, nothing else changes."""
    global _answering
    _answering = True
    try:
        yield
    finally:
        _answering = False


def over() -> None:
    """The command has done what it was asked: a signal that comes while its process is taken down changes nothing."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def seen() -> bool:
    """Whether a signal has brought the time forward."""
    return _seen > 0


def _received(_number: int, _frame: object) -> None:
    global _seen
    _seen += 1
    if _seen > 1 or not _answering:
        _end()
