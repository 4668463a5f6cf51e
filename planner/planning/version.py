"""The planner's own version."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def planner_version() -> str:
    """The installed distribution's version."""
    try:
        return version("inference-planner")
    except PackageNotFoundError:
        return "unknown"
