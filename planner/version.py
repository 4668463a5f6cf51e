"""The planner's own version."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def planner_version() -> str:
    """The installed distribution's version."""
    try:
        return version("inference-planner")
    except PackageNotFoundError:
        return "unknown"


@cache
def source_hash() -> str:
    """A hash of the planner's own code: answers kept by another state of it are not answers of this one."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
