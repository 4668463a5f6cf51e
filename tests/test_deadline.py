"""The time limit bounds the whole answer: past it nothing is computed or solved, and what was not searched is said. A clock of the test's own ticks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import planner.candidates.points as points_module
import planner.deadline as clock_module
import planner.planning.solve as solve_module
import planner.program.optimum as optimum_module
import planner.search.survey_cache as known_module
from planner.candidates.columns import formulation
from planner.candidates.points import Points
from planner.candidates.survey import survey
from planner.catalog.catalog import Catalog
from planner.catalog.load import load_catalog
from planner.deadline import Deadline
from planner.errors import TimeUp
from planner.planning.infeasible import Infeasible
from planner.planning.solve import solve
from planner.program.solver import SolverOptions
from planner.scenario.records import Scenario
from planner.search.answer import answer

TINY = Path(__file__).parent / "data" / "tiny"
WORKLOAD = {"qps": 40.0, "min_quality": 0.5, "output_factor": 3, "slo": {"ttft_p95": "2s", "tpot_p95": "50ms"}}


class Clock:
    """Time that passes only when told, or at every look."""

    def __init__(self) -> None:
        self.now, self.tick, self.looks = 1000.0, 0.0, 0

    def __call__(self) -> float:
        self.looks += 1
        self.now += self.tick
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(clock_module, "monotonic", found)
    return found


@pytest.fixture(scope="module")
def tiny() -> Catalog:
    return load_catalog([TINY], shipped=False)


def question(**more: Any) -> Scenario:
    return Scenario.model_validate({"workload": [WORKLOAD], "solver": {"time_limit": "30s"}, **more})


def late_after(monkeypatch: pytest.MonkeyPatch, clock: Clock, module: Any, name: str, seconds: float) -> None:
    """Doing something takes so long."""
    real = getattr(module, name)

    def slow(*given: Any, **named: Any) -> Any:
        try:
            return real(*given, **named)
        finally:
            clock.now += seconds

    monkeypatch.setattr(module, name, slow)


def test_a_share_is_a_part_of_the_whole_and_never_later(clock: Clock) -> None:
    whole = Deadline.after(30)
    assert (whole.left(), whole.share(0.25).left(), whole.share(0.25).share(0.5).left()) == (30, 7.5, 7.5)
    clock.now += 29
    assert (whole.left(), whole.share(0.25).left(), whole.passed()) == (1, 1, False)
    clock.now += 2
    assert (whole.left(), whole.passed()) == (0, True)
    with pytest.raises(TimeUp, match="--time-limit"):
        whole.check()


def test_past_the_deadline_only_what_is_known_is_told(clock: Clock, tiny: Catalog) -> None:
    scenario = question()
    points = Points(survey(scenario, tiny, tiny.offers), Deadline.after(30))
    before = formulation(points, scenario)
    clock.now += 31
    assert formulation(points, scenario).problem == before.problem  # all of it is known by now
    with pytest.raises(TimeUp):
        formulation(Points(points.survey, points.deadline), scenario)


def test_candidates_not_looked_at_void_the_bound_and_are_told(clock: Clock, tiny: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    proven = solve(question(), tiny, compare=False)
    monkeypatch.setattr("planner.candidates.pruning.ROUNDS", (1, 10**9))
    late_after(monkeypatch, clock, points_module.Points, "_compute", 31.0)
    scenario = question(policy={"max_gpu_types": 9})  # prices settle nothing: every row is looked at
    points = Points(survey(scenario, tiny, tiny.offers), Deadline.after(30))
    some = formulation(points, scenario)
    assert some.unsettled > 0
    found = answer(some).solution
    assert found.status == "unknown"  # no time to solve either
    found = answer(formulation(points, scenario).__class__(**{**some.__dict__, "deadline": Deadline.after(30)})).solution
    assert (found.status, found.bound, found.gap) == ("feasible", 0.0, 1.0) and found.cost >= proven.cost.usd_per_hour


def solves_counted(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> list[float]:
    """The seconds given to each solve; a solve without time is none."""
    given: list[float] = []
    real = optimum_module.optimise

    def counted(program: Any, limits: SolverOptions) -> Any:
        given.append(limits.time_limit_s)
        return real(program, limits)

    monkeypatch.setattr(optimum_module, "optimise", counted)
    return given


def test_comparisons_stop_and_say_so(clock: Clock, tiny: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = solve(question(), tiny)
    assert any(a.feasible for a in whole.alternatives) and not any("--time-limit" in n for n in whole.notes)
    late_after(monkeypatch, clock, solve_module, "assemble", 31.0)
    given = solves_counted(monkeypatch, clock)
    cut = solve(question(), tiny)
    assert cut.cost == whole.cost and cut.status == "optimal"
    assert [a.why for a in cut.alternatives] == ["not compared: the time for comparisons was used up (raise --time-limit)"] * len(cut.alternatives)
    assert all(n.endswith("was not searched: the time for comparisons was used up (raise --time-limit)") for n in cut.notes)
    assert given and all(0 < s <= 22.5 for s in given)  # those of the plan itself: three quarters of the limit where it is compared


def test_an_explanation_stops_and_says_so(clock: Clock, tiny: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    tight = question(policy={"budget": "0.5/h"})
    with pytest.raises(Infeasible) as whole:
        solve(tight, tiny)
    assert whole.value.changes and whole.value.conflict and not whole.value.unsearched
    late_after(monkeypatch, clock, solve_module, "kept_apart", 31.0)
    given = solves_counted(monkeypatch, clock)
    with pytest.raises(Infeasible) as cut:
        solve(tight, tiny)
    assert cut.value.changes == ("perhaps others (the search for changes was stopped: raise --time-limit)",) and not cut.value.conflict
    assert str(cut.value).endswith("Not searched: which demands are in conflict and how far all demands would have to move together (raise --time-limit).")
    assert all(s > 0 for s in given)  # those of the question itself, where bounds do not settle it


def test_the_clock_bounds_an_explanation_however_long_each_look_takes(clock: Clock, tiny: Catalog) -> None:
    tight = question(policy={"budget": "0.5/h"})
    start, clock.tick = clock.now, 0.5
    with pytest.raises(Infeasible) as cut:
        solve(tight, tiny)
    assert clock.now - start < 30 + 5 and "raise --time-limit" in str(cut.value)


def test_the_most_traffic_found_in_time_is_told_as_such(clock: Clock, tiny: Catalog) -> None:
    asked = question(policy={"budget": "9/h"}, objective={"maximize": "qps"})
    whole = solve(asked, tiny, compare=False)
    clock.tick = 0.7
    cut = solve(asked, tiny, compare=False)
    assert whole.status == "optimal" and cut.status == "feasible" and 0 < cut.workloads[0].qps < whole.workloads[0].qps
    assert any(w.startswith("the search for more traffic was stopped by the time limit") for w in cut.warnings)


def test_no_plan_in_time_is_exit_4(clock: Clock, tiny: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    late_after(monkeypatch, clock, known_module, "survey", 31.0)
    with pytest.raises(TimeUp) as error:
        solve(question(), tiny)
    assert error.value.exit_code == 4 and "--time-limit: no plan within the time limit" in str(error.value)
