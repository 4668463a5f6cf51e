"""What a command ends with: errors become one line and an exit status here."""

from __future__ import annotations

import sys

from planner.clean import clipped, error_line
from planner.cli import streams
from planner.errors import PlannerError
from planner.interrupts import seen


def status_of(words: list[str]) -> int:
    """Runs the command; its documented exit status. With --debug errors are raised."""
    debug = "--debug" in words
    try:
        from planner.cli.app import command

        status = command().main(args=words, prog_name="plan", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except PlannerError as error:
        if debug:
            raise
        return _failed("interrupted" if seen() and error.exit_code == 4 else str(error), error.exit_code)
    except KeyboardInterrupt:
        return _failed("interrupted", 4)
    except streams.ReaderGone:
        streams.give_up_stdout()
        return 0
    except OSError as error:
        if debug:
            raise
        streams.give_up_stdout()
        return _failed(f"{error.filename or 'standard output'}: {error.strerror or error}", 2)
    except UnicodeError as error:  # half of a surrogate pair, in a name that no file can have
        if debug:
            raise
        return _failed(f"text that is no Unicode: {clipped(str(error))}", 2)
    except Exception as error:
        usage = getattr(error, "format_message", None)  # of an error of the command-line library
        if usage and type(error).__name__ == "NoArgsIsHelpError":  # a group without a verb: its help is the message
            streams.say(usage())
            return 2
        if usage:
            return _failed(_usage(str(usage())), 2)
        if debug:
            raise
        return _failed(f"internal error: {type(error).__name__}: {clipped(str(error))} (please report it; --debug shows where)", 4)
    return status if isinstance(status, int) else 0


def _usage(text: str) -> str:
    message = " ".join(text.split())
    return f"{message.rstrip('.')} (plan --help)"


def _failed(message: str, status: int) -> int:
    line = error_line(message)
    streams.say(line if line.startswith("infeasible") else f"error: {line}")
    return status
