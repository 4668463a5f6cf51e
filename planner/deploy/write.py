"""Manifests as files: comments first, then YAML with keys in their own order, or the script as it is."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import yaml

from planner.clean import plain
from planner.deploy.manifest import Document, Manifest, Target
from planner.deploy.release import Release
from planner.deploy.said import header, refuse, remarks

WIDTH = 150


@dataclass(frozen=True)
class Written:
    """One file. ``is_applied``: it goes to the target as it is."""

    file: str
    text: str
    is_applied: bool = True


class _Plain(yaml.SafeDumper):
    """Every value written out where it stands: no anchors, which readers of manifests may not know."""

    def ignore_aliases(self, data: object) -> bool:
        return data is not None


def written(release: Release, target: Target) -> tuple[Written, ...]:
    """A plan's files for one target. Raises PlannerError for what the target cannot start."""
    refuse(release, target)
    made, common = target.make(release), remarks(release, target)
    return tuple(_file(m, [*header(release), *(common if i == 0 else []), *(plain(r) for r in m.remarks)]) for i, m in enumerate(made))


def _file(manifest: Manifest, said: Sequence[str]) -> Written:
    first = ["#!/usr/bin/env bash"] if manifest.text else []
    body = manifest.text or to_yaml(manifest.documents)
    return Written(manifest.file, "\n".join([*first, *comment(said), body]), manifest.is_applied)


def to_yaml(documents: Sequence[Document]) -> str:
    """Documents with --- between them; whatever a text holds, it reads back as that text."""
    return yaml.dump_all(documents, Dumper=_Plain, sort_keys=False, default_flow_style=False, width=WIDTH, allow_unicode=False)


def comment(lines: Sequence[str]) -> list[str]:
    """Lines as comments of YAML and shells alike, wrapped."""
    return [
        f"# {part}" for line in lines for part in textwrap.wrap(plain(line), WIDTH - 2, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    ]
