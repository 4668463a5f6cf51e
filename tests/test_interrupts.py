"""Ctrl-C and SIGTERM at chosen moments of a command: always a documented outcome, no traceback, no half-written file; the second ends at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from planner import Plan, Scenario, load_catalog, solve

ROOT = Path(__file__).parents[1]
TINY = ROOT / "tests" / "data" / "tiny"
QUICK = ("--qps", "20", "--min-quality", "0.5", "--catalog", str(TINY), "--model", "Small-8B", "--gpu", "GPU-80", "--format", "json")
INTERRUPTED = (4, "", "error: interrupted\n")
SIGNALS = ("SIGINT", "SIGTERM")

# A function is replaced by one that signals the process as it is called (so many times), then does what it did.
AS_CALLED = """
import importlib, os, signal
def signalled(place, number, times=1, calls=1):
    module, name = place.rsplit(".", 1)
    home = importlib.import_module(module)
    plain, seen = getattr(home, name), []
    def function(*given, **named):
        seen.append(1)
        if len(seen) == calls:
            for _ in range(times):
                os.kill(os.getpid(), number)
        return plain(*given, **named)
    setattr(home, name, function)
"""
AS_IMPORTED = """
import os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            os.kill(os.getpid(), signal.{number})
sys.meta_path.insert(0, Finder())
"""
# The first time the search has a plan it signals.
AS_FOUND = """
import os, signal, planner.program.solver as solver
plain = solver._run
def run(highs, needed):
    once = iter([signal.{number}])
    highs.cbMipImprovingSolution.subscribe(lambda event: [os.kill(os.getpid(), number) for number in once])
    plain(highs, needed)
solver._run = run
"""


def command(prelude: str, *words: str | Path, **environment: str) -> tuple[int, str, str]:
    """What a process of the command ends with, something done to it first."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PLANNER_")} | environment
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # shells start what runs in the background with it ignored
    code = f"{heard}\n{prelude}\nfrom planner.cli.main import main\nmain()"
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, env=kept, check=False, timeout=60)
    return done.returncode, done.stdout, done.stderr


def as_called(place: str, number: str = "SIGINT", **how: int) -> str:
    return AS_CALLED + f"signalled({place!r}, signal.{number}, **{how!r})"


def names_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


@cache
def quick() -> Plan:
    """The plan that QUICK asks for."""
    scenario = Scenario.model_validate(
        {"workload": [{"qps": 20, "min_quality": 0.5, "models": ["Small-8B"]}], "supply": {"gpus": ["GPU-80"]}, "catalog": [str(TINY)]}
    )
    return solve(scenario, load_catalog(scenario.catalog), compare=False)


@pytest.mark.parametrize(("name", "number"), [("typer", "SIGINT"), ("pyomo.core.base", "SIGTERM")])
def test_while_it_is_imported_nothing_is_found_yet(name: str, number: str) -> None:
    assert command(AS_IMPORTED.format(name=name, number=number), *QUICK) == INTERRUPTED


def test_before_there_is_a_plan_the_old_file_stays(tmp_path: Path) -> None:
    """A signal while candidates are surveyed brings the time forward, and no plan is found in it."""
    file = tmp_path / "plan.json"
    file.write_text("old")
    assert command(as_called("planner.search.survey_cache.survey"), *QUICK, "-o", file) == INTERRUPTED
    assert names_in(tmp_path) == ["plan.json"] and file.read_text() == "old"


@pytest.fixture(scope="module")
def hard(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Two tables whose optimum takes long to prove."""
    folder, rng = tmp_path_factory.mktemp("tables"), np.random.default_rng(0)
    price = rng.uniform(5, 40, 60)
    rows = [f"c{c},G{c % 3},{2 ** (c % 4)},{price[c]:.4f},k{w},{rng.uniform(1, 10):.4f}" for c in range(60) for w in range(30) if rng.random() < 0.8]
    (folder / "capacities.csv").write_text("candidate,gpu,gpus,usd_per_hour,class,max_qps\n" + "\n".join(rows))
    (folder / "demand.csv").write_text("class,qps\n" + "\n".join(f"k{w},{rng.uniform(3, 12):.4f}" for w in range(30)))
    return ("--capacities", str(folder / "capacities.csv"), "--demand", str(folder / "demand.csv"), "--quota", "G0=40", "--gap", "0", "--format", "json")


def test_a_search_ends_with_its_incumbent(hard: tuple[str, ...]) -> None:
    """Its gap is what is not proven; an hour would have been allowed."""
    status, out, err = command(AS_FOUND.format(number="SIGTERM"), *hard, "--time-limit", "1h")
    plan = Plan.model_validate_json(out)
    assert (status, err, plan.status) == (3, "", "feasible") and plan.gap > 0
    assert plan.warnings[0].startswith("interrupted")


def test_a_plan_that_is_found_is_printed_without_its_comparisons() -> None:
    status, out, err = command(as_called("planner.planning.solve.alternatives"), *QUICK)
    plan = Plan.model_validate_json(out)
    assert (status, err, plan.status) == (3, "", "optimal") and plan.warnings[0].startswith("interrupted")
    assert plan.cost == quick().cost
    assert not any(a.feasible for a in plan.alternatives)


def test_what_is_being_written_is_written_whole(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    assert command(as_called("planner.files._write_all"), *QUICK, "--no-alternatives", "-o", file) == (0, "", "")
    assert names_in(tmp_path) == ["plan.json"] and Plan.model_validate_json(file.read_text()).status == "optimal"


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    """Also in the middle of a write: no file is left of it."""
    file = tmp_path / "plan.json"
    assert command(as_called("planner.files._write_all", times=2), "schema", "-o", file) == INTERRUPTED
    assert names_in(tmp_path) == []


def test_an_interrupted_explanation_is_still_infeasible() -> None:
    status, out, err = command(as_called("planner.planning.infeasible.conflict_of"), *QUICK, "--budget", "1/h")
    assert (status, out) == (1, "") and err.startswith("infeasible: ") and err.count("\n") == 1


def test_a_plan_by_the_hour_is_printed_as_far_as_it_is() -> None:
    words = ("autoscale", "--qps", "20", "--min-quality", "0.5", "--catalog", str(TINY), "--profile", "m-small", "--format", "json")
    status, out, err = command(as_called("planner.planning.periods.assemble_hours"), *words)
    plan = Plan.model_validate_json(out)
    assert (status, err) == (3, "") and plan.warnings[0].startswith("interrupted")


def test_studies_keep_finished_answers_and_no_others(tmp_path: Path) -> None:
    words = ("sweep", "--over", "qps=10:40", "--points", "4", "--min-quality", "0.5", "--catalog", TINY, "--workers", "1", "--keep", tmp_path / "kept", "-o")
    assert command(as_called("planner.economics.runs.keep", calls=3), *words, tmp_path / "sweep.txt") == INTERRUPTED
    kept = names_in(tmp_path)
    assert len(kept) == 2 and all(name.endswith(".answer") for name in kept)


def test_a_simulation_has_nothing_to_tell_before_its_end(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text(quick().to_json())
    assert command(as_called("planner.simulation.run.feed"), "simulate", file, "--requests", "1000") == INTERRUPTED


def test_what_ignores_interrupts_goes_on_ignoring_them() -> None:
    """nohup, and shells that start a command in the background."""
    ignoring = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    status, out, err = command(ignoring + as_called("planner.files.write_result", times=3), "schema", "-o", "/dev/stdout")
    assert (status, err) == (0, "") and json.loads(out)["title"] == "Plan"


@pytest.mark.parametrize("number", SIGNALS)
def test_at_any_moment_the_outcome_is_a_documented_one(tmp_path: Path, number: str) -> None:
    """From the first line of the command on: what comes before is the interpreter's own start."""
    code = "from planner.cli.main import main\nimport sys; sys.stderr.write('begun\\n'); sys.stderr.flush(); main()"
    for moment in (0.0, 0.5, 1.2):
        file = tmp_path / f"{moment}.json"
        words = [sys.executable, "-c", code, *QUICK, "-o", str(file)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None and process.stderr.readline() == "begun\n"
            time.sleep(moment + 0.02)  # main() takes the signals first of all
            process.send_signal(getattr(signal, number))
            out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) in [(0, "", ""), (3, "", ""), INTERRUPTED], (moment, process.returncode, out, err)
        assert names_in(tmp_path) == ([file.name] if process.returncode != 4 else [])
        if file.exists():
            assert json.loads(file.read_text())["status"] == "optimal"
            file.unlink()
