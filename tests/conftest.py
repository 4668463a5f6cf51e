"""Fixtures shared by the tests of commands and by those of pages in a real browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from planner import Catalog, Plan
from planner.check.check import check_plan
from planner.cli.main import main

Run = Callable[..., tuple[int, str, str]]


def checked(plan: Plan, catalog: Catalog) -> Plan:
    """The plan, of which its independent check finds nothing wrong."""
    report = check_plan(plan, catalog)
    assert report.ok, report.breaches
    return plan


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


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium without a window; tests that ask for it skip where there is none."""
    from playwright.sync_api import sync_playwright

    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as p:
        found = p.chromium.launch(executable_path="/usr/bin/chromium", args=flags)
        yield found
        found.close()
