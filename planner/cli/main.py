"""Where the process begins: its signals and streams are taken before anything large is imported, so that there is no moment they are not ours."""

from __future__ import annotations

import os
import sys

from planner import interrupts

TYPE_CHECKING = False  # typing's own takes longer to import than all else here
if TYPE_CHECKING:
    from typing import NoReturn


def main(arguments: list[str] | None = None) -> NoReturn:
    """Runs the command and ends the process with the documented exit status.

    arguments: those of a command run inside another program; that program's signals and streams are left as they are.
    """
    if arguments is None:
        interrupts.take(_end_interrupted)
    from planner.cli import outcome, streams

    if arguments is None:
        streams.result_alone()
    status = outcome.status_of(sys.argv[1:] if arguments is None else arguments)
    if arguments is None:
        interrupts.over()
    raise SystemExit(status)


def _end_interrupted() -> None:
    """Ends the process at once: with one line, the terminal as it was, and no file half-written."""
    files = sys.modules.get("planner.files")
    for path in tuple(files.unfinished if files else ()):
        try:
            path.unlink()
        except OSError:
            continue
    bar = b"\r\x1b[K\x1b[?25h" if os.isatty(2) else b""  # a progress bar hides the cursor
    try:
        os.write(2, bar + b"error: interrupted\n")
    finally:
        os._exit(4)
