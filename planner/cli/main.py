"""Where the process begins: its streams are set up before anything large is imported; errors become one line and an exit status here."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

from planner.clean import clipped, error_line
from planner.cli import streams
from planner.errors import PlannerError


def main(arguments: list[str] | None = None) -> NoReturn:
    """Runs the command and ends the process with the documented exit status.

    arguments: those of a command run inside another program; that program's streams are then left as they are.
    """
    if arguments is None:
        streams.result_alone()
    words = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in words
    try:
        from planner.cli.app import app

        status = app(args=words, prog_name="plan", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except PlannerError as error:
        if debug:
            raise
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted", 4)
    except streams.ReaderGone:
        streams.give_up_stdout()
        raise SystemExit(0) from None
    except OSError as error:
        if debug:
            raise
        streams.give_up_stdout()
        _fail(f"{error.filename or 'standard output'}: {error.strerror or error}", 2)
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # a group without a verb: its help is the message
            streams.say(error.format_message())  # type: ignore[attr-defined]
            raise SystemExit(2) from None
        if hasattr(error, "format_message"):  # a usage error of the command-line library
            _fail(_usage(error), 2)
        if debug:
            raise
        _fail(f"internal error: {type(error).__name__}: {clipped(str(error))} (please report it; --debug shows where)", 4)
    raise SystemExit(status if isinstance(status, int) else 0)


def _usage(error: Any) -> str:
    message = " ".join(str(error.format_message()).split())
    return f"{message.rstrip('.')} (plan --help)"


def _fail(message: str, status: int) -> NoReturn:
    line = error_line(message)
    streams.say(line if line.startswith("infeasible") else f"error: {line}")
    raise SystemExit(status)
