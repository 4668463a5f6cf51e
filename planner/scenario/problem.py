"""How a contradiction between fields is told: as a validation error at one of them."""

from __future__ import annotations

from pydantic_core import PydanticCustomError


def problem(what: str, *at: str | int) -> PydanticCustomError:
    """A validation error of several fields, to be shown at one of them (a path from where it is raised)."""
    return PydanticCustomError("misplaced", "{what}", {"what": what, "at": at})
