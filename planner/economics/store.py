"""Finished answers kept on disk by their question, to be found again by the next run. Nothing that is wrong with the store stops a run."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from planner.errors import PlannerError
from planner.files import cache_folder, reason, write_whole
from planner.result.plan import Plan

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Result:
    """One answer: a plan, or why there is none."""

    plan: Plan | None
    why: str = ""

    @property
    def cost(self) -> float:
        """$/h; infinite without a plan."""
        return self.plan.cost.usd_per_hour if self.plan else float("inf")


def users_folder() -> Path | None:
    """Where answers are kept unless another place is named; None where the user has no home."""
    base = cache_folder()
    return base / "answers" if base else None


def usable(folder: Path) -> None:
    """Makes a folder that answers were asked to be kept in. Raises PlannerError where they cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise PlannerError("is not a folder", str(folder), "choose another with --keep") from None
    except (OSError, ValueError) as error:
        raise PlannerError(f"answers cannot be kept: {reason(error)}", str(folder), "choose another with --keep") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PlannerError(f"answers cannot be kept: {os.strerror(13)}", str(folder), "choose another with --keep")


def to_text(result: Result) -> str:
    """An answer as JSON."""
    return json.dumps({"plan": result.plan.model_dump(mode="json") if result.plan else None, "why": result.why})


def from_text(text: str) -> Result:
    """The answer that ``to_text`` wrote. Raises whatever another text makes it raise."""
    raw = json.loads(text)
    return Result(Plan.model_validate(raw["plan"]) if raw["plan"] else None, str(raw["why"]))


def read(folder: Path, key: str, tell: Tell) -> Result | None:
    """A kept answer, exactly as it was written for this question; None where there is none.

    Anything else that stands in its place is set aside (told) and the question is solved again.
    """
    path = _place(folder, key)
    try:
        text = path.read_bytes() if path.is_file() else None
    except (OSError, ValueError):
        return None
    if text is None:
        return None
    seal, _, body = text.partition(b"\n")
    try:
        if seal.decode() != _seal(key, body):
            raise ValueError("damaged")
        return from_text(body.decode())
    except Exception:  # whatever a body that is no answer makes of itself
        aside = path.with_suffix(".bad")
        with suppress(OSError):
            path.replace(aside)
            tell(f"a kept answer was damaged, is solved again and set aside as {aside}")
        return None


def keep(folder: Path, key: str, result: Result) -> None:
    """Keeps an answer, whole or not at all. Raises OSError where it cannot be kept."""
    path, body = _place(folder, key), to_text(result).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, _seal(key, body).encode() + b"\n" + body)


def _place(folder: Path, key: str) -> Path:
    return folder / key[:2] / f"{key}.answer"


def _seal(key: str, body: bytes) -> str:
    """Tells a body that was written for this question from every other."""
    return hashlib.sha256(key.encode() + body).hexdigest()
