"""Standard output carries the result alone: what a C library prints goes to standard error instead."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import Any


class ReaderGone(Exception):
    """Nobody reads standard output any more. No OSError, which the command-line library would turn into the exit status of a breach."""


class _Result(io.FileIO):
    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise ReaderGone from None


def result_alone() -> None:
    """From here on descriptor 1 is standard error, and ``sys.stdout`` writes to what it was. For the process's own command, once."""
    _no_free_standard_descriptor()
    out = sys.stdout
    if not isinstance(out, io.TextIOWrapper) or out.fileno() != 1:
        return  # closed, or already another
    out.flush()
    saved = io.BufferedWriter(_Result(os.dup(1), "w"))
    os.dup2(2, 1)
    errors = out.errors if out.encoding.lower() == "utf-8" else "backslashreplace"  # for what the terminal's characters lack
    sys.stdout = io.TextIOWrapper(saved, out.encoding, errors, line_buffering=out.line_buffering, write_through=out.write_through)
    vars(sys)["__stdout__"] = sys.stdout  # which tells how wide the terminal is


def give_up_stdout() -> None:
    """Whoever read the result is gone, or it cannot be written: what is left of it goes nowhere, silently at the process's end too."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(line: str) -> None:
    """A line on standard error, if there is one to hear it."""
    with suppress(OSError, AttributeError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def _no_free_standard_descriptor() -> None:
    """A closed 0, 1 or 2 would be given to the next file opened, and a library's chatter would end up in it."""
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(handle)
