"""The table of askable fields, read off the Scenario type: path, flag, kind. Flags, environment and files all use it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from planner.scenario.part import Flag
from planner.scenario.records import Scenario
from planner.scenario.workload import Workload

PREFIX = "PLANNER_"  # of environment variables


@dataclass(frozen=True)
class Askable:
    """One leaf of the scenario. ``path`` leaves the workload's index out: ("workload", "qps")."""

    path: tuple[str, ...]
    flag: Flag
    default: object
    is_switch: bool  # off unless named; what is on by default takes true or false
    is_many: bool

    @property
    def variable(self) -> str:
        """Its environment variable, such as PLANNER_MIN_QUALITY."""
        return PREFIX + self.flag.name.removeprefix("--").replace("-", "_").upper()

    @property
    def parameter(self) -> str:
        """Its Python name on the command line."""
        return self.flag.name.removeprefix("--").replace("-", "_")


@cache
def askables() -> tuple[Askable, ...]:
    """All fields that have a flag, workload first."""
    return tuple(_walk(Scenario, ()))


def by_path(path: tuple[str, ...]) -> Askable | None:
    """The askable at a path (indices left out), if it has a flag."""
    return next((a for a in askables() if a.path == path), None)


def _walk(part: type[BaseModel], path: tuple[str, ...]) -> Iterator[Askable]:
    for name, field in part.model_fields.items():
        flag = next((m for m in field.metadata if isinstance(m, Flag)), None)
        inner = Workload if name == "workload" else field.annotation
        if flag is not None:
            is_many = get_origin(field.annotation) in (tuple, dict)
            yield Askable((*path, name), flag, _default(field), field.annotation is bool and field.default is False, is_many)
        elif isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _walk(inner, (*path, name))


def _default(field: FieldInfo) -> object:
    return field.get_default(call_default_factory=True)
