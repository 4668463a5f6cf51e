"""Files of others, opened within limits (planner/limits.py): zipped or not, their beginning, or whole."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from planner import limits
from planner.errors import PlannerError

BUFFER = 2**20  # bytes read at once


def opened(path: Path) -> tuple[Unzipped, Callable[[], int], int]:
    """The file's bytes (unzipped), how far it was read, and its size. Raises PlannerError, also while it is read."""
    try:
        raw = path.open("rb")
        return Unzipped(raw, path), raw.tell, path.stat().st_size
    except (OSError, ValueError) as error:
        raise PlannerError(f"cannot read the file: {getattr(error, 'strerror', error)}", str(path)) from None


class Unzipped(io.RawIOBase):
    """A file's bytes, unzipped where it is zipped, as long as they can be those of a trace: no endless line, no bomb."""

    def __init__(self, raw: io.BufferedReader, path: Path) -> None:
        self._raw, self._path, self._size = raw, path, max(path.stat().st_size, 1)
        self._zipped = raw.peek(2)[:2] == b"\x1f\x8b"
        self._stream: gzip.GzipFile | io.BufferedReader = gzip.GzipFile(fileobj=raw) if self._zipped else raw
        self._read = self._line = 0  # bytes so far, and since the last end of a line

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Some more bytes. Raises PlannerError for a damaged file and beyond the limits."""
        try:
            found = self._stream.read(len(buffer))
        except (OSError, EOFError, zlib.error):
            raise PlannerError("is no whole gzip file" if self._zipped else "cannot be read", str(self._path)) from None
        self._read += len(found)
        end = max(found.rfind(b"\n"), found.rfind(b"\r"))
        self._line = self._line + len(found) if end < 0 else len(found) - end - 1
        if self._line > limits.LINE_BYTES:
            raise PlannerError(f"has a line of more than {limits.LINE_BYTES // limits.MIB} MiB, the most that is read", str(self._path))
        if self._read > max(limits.LINE_BYTES, limits.UNZIPPED_RATIO * self._size):
            raise PlannerError(f"holds more than {limits.UNZIPPED_RATIO} times its own size, the most that is unzipped", str(self._path), "unzip it first")
        buffer[: len(found)] = found
        return len(found)

    def close(self) -> None:
        """Closes the file."""
        self._raw.close()
        super().close()


def beginning(path: Path, size: int = 65536) -> str:
    """The first characters of a file."""
    stream, _, _ = opened(path)
    with stream:
        return bytes(stream.read(size) or b"").decode("utf-8-sig", errors="replace")


def whole(path: Path, most: int = limits.FILE_BYTES, hint: str = "as lines or CSV it may be longer") -> str:
    """All characters of a file. Raises PlannerError for one of more than ``most`` bytes; ``hint`` says what to do then."""
    stream, _, _ = opened(path)
    with stream, io.BufferedReader(stream, BUFFER) as buffered:
        found = buffered.read(most + 1)
    if len(found) > most:
        raise PlannerError(f"has more than {most // limits.MIB} MiB, the most that is read whole", str(path), hint)
    return found.decode("utf-8-sig", errors="replace")
