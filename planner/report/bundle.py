"""The scripts that draw charts in a page, as one text: it takes seconds to put together and is always the same, so the user's cache keeps it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version

from planner.files import cache_folder, write_whole


def bundled(key: str, make: Callable[[], str]) -> str:
    """What ``make`` makes; where it was kept under this key by the same version of the converter, that. Nothing that is wrong with the cache stops a page."""
    name = hashlib.sha256(f"{version('vl-convert-python')}\n{key}".encode()).hexdigest()[:16]
    base = cache_folder()
    if base is None:
        return make()
    path = base / "charts" / f"{name}.txt"
    with suppress(OSError, ValueError):
        seal, _, body = path.read_bytes().partition(b"\n")
        if seal.decode() == _seal(body):
            return body.decode()
    text = make()
    with suppress(OSError, ValueError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, _seal(text.encode()).encode() + b"\n" + text.encode())
    return text


def _seal(body: bytes) -> str:
    """Tells a whole text from a damaged one."""
    return hashlib.sha256(body).hexdigest()
