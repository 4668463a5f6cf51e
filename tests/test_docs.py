"""Every command shown in README and docs runs; shown output is the real output; the table of flags is complete.

UPDATE_DOCS=1 writes the real output and the table into the pages.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import tempfile
from pathlib import Path

import pytest
from conftest import Run

from planner.scenario.fields import askables

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"(?:<!-- output: (?P<sections>[^>]*?) -->\n)?```console\n(?P<body>.*?)```", re.DOTALL)
UPDATE = bool(os.environ.get("UPDATE_DOCS"))
# Answers are kept by their content and the planner's code, so commands shown twice are solved once in a run of the tests.
KEPT = Path(tempfile.gettempdir()) / f"plan-docs-{os.environ.get('PYTEST_XDIST_TESTRUNUID', os.getpid())}"


FILES = (".csv", ".html", ".json", ".toml")
seen: dict[str, tuple[int, str, str]] = {}  # what was answered to commands that read no file but the examples and write none


def answer(command: str, run: Run) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a command shown, run in this process."""
    name, *words = shlex.split(command, comments=True)
    assert name == "plan", command
    if any(w.endswith(FILES) and not w.startswith("examples/") for w in words):
        return run(*words)
    if command not in seen:
        seen[command] = run(*words)
    return seen[command]


def blocks(page: Path) -> list[re.Match[str]]:
    return list(BLOCK.finditer(page.read_text()))


@pytest.fixture
def folder(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the commands are typed, with the examples; on a terminal of 120 columns."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    for name, value in {"COLUMNS": "120", "NO_COLOR": "1", "XDG_CACHE_HOME": str(KEPT)}.items():
        monkeypatch.setenv(name, value)
    return tmp_path


def cut(output: str, sections: list[str]) -> str:
    parts = output.rstrip("\n").split("\n\n")
    return "\n\n".join(p for p in parts if p.splitlines()[0] in sections)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_command_shown_runs_and_its_output_is_real(page: Path, folder: Path, run: Run) -> None:
    """In the order of the page, as later commands read what earlier ones wrote."""
    for block in blocks(page):
        for line in (line for line in block["body"].splitlines() if line.startswith("$ ")):
            status, out, err = answer(line[2:], run)
            expected = int(m.group(1)) if (m := re.search(r"# exit (\d)", line)) else 0
            assert status == expected, f"{line}\n{err}"
            if not block["sections"]:
                continue
            real = f"{line}\n{cut(out, [s.strip() for s in block['sections'].split(',')])}\n"
            if UPDATE:
                page.write_text(page.read_text().replace(block["body"], real))
            else:
                assert block["body"] == real


def test_the_table_of_flags_is_complete() -> None:
    page = ROOT / "docs" / "scenario.md"
    rows = [f"| `{a.flag.name}` | `{a.variable}` | `{'.'.join(a.path)}` | {a.flag.help} |" for a in askables()]
    table = "\n".join(["| flag | environment | TOML | meaning |", "|---|---|---|---|", *rows])
    text = page.read_text()
    if UPDATE:
        page.write_text(re.sub(r"<!-- flags -->\n.*?(?=\n## )", f"<!-- flags -->\n\n{table}\n", text, flags=re.DOTALL))
    else:
        assert table in text
