"""Fixtures shared by the tests of commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from planner.cli.main import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in this process: (exit status, standard output, standard error)."""
    monkeypatch.delenv("COLUMNS", raising=False)  # as wide as a pipe

    def _run(*words: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(w) for w in words])
        seen = capsys.readouterr()
        return int(end.value.code or 0), seen.out, seen.err

    return _run
