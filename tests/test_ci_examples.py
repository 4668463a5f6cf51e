"""The example for CI: the workflow's own commands run in a repository whose last commit changes the scenario, beside a `gh` that keeps what it is given."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
CI = ROOT / "examples" / "ci"
WORKFLOW = yaml.safe_load((CI / "plan-review.yml").read_text())
STEPS = {s["name"]: s for s in WORKFLOW["jobs"]["plan"]["steps"] if "name" in s}
SCENARIO = """name = "chat"
[[workload]]
name = "chat"
qps = {qps}
min_quality = 0.75
[supply]
gpus = ["H100-SXM-80GB"]
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with the script where the workflow has it, a scenario at origin/main, and the commands `plan` and `gh`."""
    programs, here = tmp_path / "bin", tmp_path / "repository"
    (here / "ci").mkdir(parents=True)
    programs.mkdir()
    shutil.copy(CI / "plan-review.sh", here / "ci")
    for name, body in {
        "plan": f'PYTHONPATH={ROOT} exec {sys.executable} -m planner "$@"',
        "gh": f'echo "$@" > {tmp_path}/said; cat "$5" > {tmp_path}/comment',
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{body}\n")
        (programs / name).chmod(0o755)
    settings = {"PATH": f"{programs}:{os.environ['PATH']}", "GITHUB_BASE_REF": "main", "NUMBER": "7", "GITHUB_STEP_SUMMARY": str(tmp_path / "summary")}
    for name, value in {**settings, **WORKFLOW["env"], "GIT_CONFIG_GLOBAL": "/dev/null"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(here)
    git("init", "--quiet")
    commit(20)
    git("update-ref", "refs/remotes/origin/main", "HEAD")
    return tmp_path


def git(*words: str) -> None:
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *words], check=True)


def commit(qps: int) -> None:
    Path("scenario.toml").write_text(SCENARIO.format(qps=qps))
    git("add", ".")
    git("commit", "--quiet", "-m", f"{qps} req/s")


def step(name: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-e", "-c", STEPS[name]["run"]], capture_output=True, text=True)


def test_the_change_of_the_plan_becomes_a_comment(repository: Path) -> None:
    commit(40)
    done = step("review")
    assert done.returncode == 0, done.stderr
    review = Path("review.md").read_text()
    assert "40 req/s" in review.splitlines()[2]
    assert "**Against before**" in review
    assert "- **after**: +" in review
    assert len(review.encode()) < 65_536  # the longest comment that GitHub takes
    assert step("summary").returncode == step("comment").returncode == 0
    assert (repository / "said").read_text() == "pr comment 7 --body-file review.md\n"
    assert (repository / "comment").read_text() == (repository / "summary").read_text() == review
    worktrees = subprocess.run(["git", "worktree", "list"], capture_output=True, text=True, check=True).stdout
    assert len(worktrees.splitlines()) == 1


def test_above_the_budget_the_job_fails_and_the_comment_says_by_how_much(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUDGET", "5/h")
    commit(40)
    assert step("review").returncode == 1
    lines = Path("review.md").read_text().splitlines()
    assert lines[0] == "### Above the budget of 5/h"
    assert "a budget of $" in lines[3]
    assert "**Against before**" in lines


def test_a_scenario_that_nothing_serves_fails_with_the_reason(repository: Path) -> None:
    Path("scenario.toml").write_text(SCENARIO.format(qps=20).replace("0.75", "0.99"))
    assert step("review").returncode == 1
    assert Path("review.md").read_text().startswith("### No plan for scenario.toml\n\n~~~~text\ninfeasible: ")


def test_a_scenario_that_cannot_be_read_is_no_question_of_money(repository: Path) -> None:
    Path("scenario.toml").write_text("qps = [")
    assert step("review").returncode == 2


def test_the_workflow_runs_for_the_scenario_and_installs_this_package() -> None:
    assert WORKFLOW[True]["pull_request"]["paths"] == [WORKFLOW["env"]["SCENARIO"]]  # YAML 1.1 reads "on" as true
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert STEPS["install"]["run"] == f"pip install '{project['name']}[report]'"
    assert "report" in project["optional-dependencies"]
    assert [s["uses"] for s in WORKFLOW["jobs"]["plan"]["steps"] if "uses" in s] == ["actions/checkout@v4", "actions/setup-python@v5"]
