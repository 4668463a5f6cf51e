"""Writing a result: regular files whole or not at all, everything else (devices, pipes, open descriptors) straight through.

Every output goes this way: plans, studies, charts, scenarios, kept answers.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
import sys
from contextlib import suppress
from pathlib import Path

from planner.errors import PlannerError

HINT = "choose another path with -o"
DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/(\d+)")
STANDARD = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
unfinished: set[Path] = set()  # files being written beside their target, for who ends the process at once


def cache_folder() -> Path | None:
    """Where the planner keeps what it can make again, in the user's cache; None where the user has no home."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    try:
        base = Path(named) if Path(named).is_absolute() else Path.home() / ".cache"
    except RuntimeError:
        return None
    return base / "inference-planner"


def write_result(path: Path | str, content: str | bytes) -> None:
    """Writes text (UTF-8) or bytes. Raises PlannerError when it cannot be written; a regular file is then as it was."""
    try:
        write_whole(path, content)
    except (OSError, ValueError) as error:
        raise PlannerError(f"cannot write the output: {reason(error)}", str(path), HINT) from None


def write_whole(path: Path | str, content: str | bytes) -> None:
    """As ``write_result``, raising OSError (ValueError for a path that cannot be one).

    A regular file is written beside its place and renamed, so that it is never half there: links are followed, its mode and owner stay,
    a new one gets what the umask leaves; other hard links keep the old content. A file that may not be written is not replaced either.
    """
    raw = content.encode() if isinstance(content, str) else content
    if (descriptor := _descriptor(path)) is not None:
        _write_open(descriptor, raw)
        return
    old = _status(path)
    if old and not stat.S_ISREG(old.st_mode):
        _write_all(os.open(path, os.O_WRONLY), raw)
        return
    target = Path(os.path.realpath(path))
    if old and not os.access(target, os.W_OK):
        raise PermissionError(13, os.strerror(13))
    new = target.with_name(f".plan-{secrets.token_hex(8)}.new")
    unfinished.add(new)
    try:
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if old else 0o666)
        if old:
            _as_before(new, old)
        _write_all(handle, raw)
        new.replace(target)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    finally:
        unfinished.discard(new)


def make_folder(path: Path) -> None:
    """Makes a folder that results are written into, and those above it. Raises PlannerError where it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise PlannerError(f"cannot make the folder: {reason(error)}", str(path), HINT) from None


def check_target(path: Path | str) -> None:
    """Refuses a path that cannot be written, before any work is done for it. Raises PlannerError."""
    if _descriptor(path) is not None:
        return
    try:
        old = _status(path)
        folder = Path(path) if str(path).endswith(os.sep) else Path(os.path.realpath(path)).parent
    except (OSError, ValueError) as error:
        raise PlannerError(f"cannot write the output: {reason(error)}", str(path), HINT) from None
    if old and stat.S_ISDIR(old.st_mode):
        raise PlannerError("is a folder, not a file", str(path), HINT)
    if not folder.is_dir():
        raise PlannerError("the folder does not exist", str(folder), f"make it, or {HINT}")
    regular = old is None or stat.S_ISREG(old.st_mode)
    if (old and not os.access(path, os.W_OK)) or (regular and not os.access(folder, os.W_OK | os.X_OK)):
        raise PlannerError(f"cannot write the output: {os.strerror(13)}", str(path), HINT)


def reason(error: Exception) -> str:
    """Why something could not be read or written, without Python's own words for it."""
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else "not a path"


def _status(path: Path | str) -> os.stat_result | None:
    """What is there, links followed; None where there is nothing."""
    try:
        return Path(path).stat()
    except FileNotFoundError:
        return None


def _descriptor(path: Path | str) -> int | None:
    """The open descriptor that a path names. Opened by name it would be written from its start, or replaced."""
    text = str(path)
    match = DESCRIPTOR.fullmatch(text)
    return int(match.group(1)) if match else STANDARD.get(text)


def _write_open(descriptor: int, raw: bytes) -> None:
    if descriptor == 1 and sys.stdout is not None:  # whatever stands for it: a test's capture, or the saved one while C libraries print
        sys.stdout.write(raw.decode())
        sys.stdout.flush()
    else:
        _write_all(os.dup(descriptor), raw)


def _write_all(handle: int, raw: bytes) -> None:
    with os.fdopen(handle, "wb") as file:
        file.write(raw)


def _as_before(new: Path, old: os.stat_result) -> None:
    """Owner, group and mode of the file that is replaced, as far as they may be given."""
    if hasattr(os, "chown"):
        for owner, group in ((old.st_uid, -1), (-1, old.st_gid)):
            with suppress(PermissionError):
                os.chown(new, owner, group)
    new.chmod(stat.S_IMODE(old.st_mode))
