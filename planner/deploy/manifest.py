"""What a target is given: files of plain documents or of text, and what it can express of a plan. What it cannot is refused, or said in a comment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from planner.deploy.release import IMAGES, Release

Document = dict[str, object]
UNITS, WEIGHTS, HOURS, PURCHASE = "units", "weights", "hours", "purchase"


@dataclass(frozen=True)
class Manifest:
    """One file: YAML documents, or text as it is (``documents`` empty). ``remarks``: what it cannot say otherwise.

    ``is_applied``: it goes to the target as it is; else it is read by a tool beside it, and not printed among what does.
    """

    file: str
    documents: tuple[Document, ...] = ()
    text: str = ""
    remarks: tuple[str, ...] = ()
    is_applied: bool = True


@dataclass(frozen=True)
class Target:
    """How a plan is written for one target. ``expresses``: which of UNITS, WEIGHTS, HOURS and PURCHASE it can say; ``engines``: that it can start.

    ``is_partial``: a plan's other engines are left to other targets. ``images``: by engine, none where it takes none.
    """

    name: str
    make: Callable[[Release], tuple[Manifest, ...]]
    expresses: frozenset[str] = frozenset()
    engines: tuple[str, ...] = ("vllm", "sglang", "trtllm")
    unit_engines: tuple[str, ...] = ()
    is_partial: bool = False
    images: Mapping[str, str] = field(default_factory=lambda: IMAGES)
