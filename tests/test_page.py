"""The page of a plan: seven questions at three widths as stored pages, at most forty lines on eighty columns, no word broken, what it says true.

UPDATE_GOLDEN=1 writes the pages anew.
"""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from planner import Plan, Scenario, load_catalog, solve
from planner.check.check import check_plan
from planner.planning.infeasible import Infeasible
from planner.planning.periods import autoscale
from planner.report import autoscale as hours
from planner.report import render
from planner.report.page import page_sections
from planner.report.sections import Section, plan_sections
from planner.scenario.change import assumed
from planner.scenario.sources import ask

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden" / "pages"
WIDTHS = (60, 80, 120)
QUESTIONS: dict[str, dict[str, Any]] = {
    "2-per-second": {"qps": 2, "min_quality": 0.8},
    "200-per-second": {"qps": 200, "min_quality": 0.8},
    "5000-per-second": {"qps": 5000, "min_quality": 0.8},
    "500-in-flight": {"concurrency": 500, "min_quality": 0.8},
    "long-prompts": {"qps": 5, "min_quality": 0.8, "input_tokens": 100_000, "output_tokens": 1000, "slo": {"ttft_p95": "8s", "tpot_p95": "50ms"}},
}


@cache
def plan_of(name: str) -> Plan:
    files = {"three-workloads": "three-products.toml", "hourly": "day-and-night.toml"}
    asked = ask({}, {}, ROOT / "examples" / files[name]).scenario if name in files else Scenario.model_validate({"workload": [QUESTIONS[name]]})
    patient = asked.model_copy(update={"solver": asked.solver.model_copy(update={"time_limit": 300.0})})
    if name == "hourly":  # on every GPU it takes as long as all other pages together
        return autoscale(assumed(patient, "supply", gpus=("H100-SXM-80GB", "RTX-PRO-6000")))
    return solve(patient, load_catalog(), compare=name != "three-workloads")  # whose comparisons take a minute


def page(plan: Plan, details: bool = False) -> list[Section]:
    if plan.periods:
        return hours.hours_sections(plan) if details else hours.hours_page(plan)
    return plan_sections(plan) if details else page_sections(plan)


def text_at(sections: list[Section], width: int, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", str(width))
    return render.terminal(sections)


NAMES = (*QUESTIONS, "three-workloads", "hourly")


def settled(name: str, text: str) -> str:
    """The text without what several plans of the least cost differ in: when requests that wait are done, and on how many replicas at once."""
    return re.sub(r"(?<=0 to )\d|GPUs held.*?(?=defaults)", "…", text, flags=re.DOTALL) if name == "hourly" else text


@pytest.mark.parametrize("name", NAMES)
def test_pages_are_as_stored_and_short(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for width in WIDTHS:
        text = text_at(page(plan_of(name)), width, monkeypatch)
        path = GOLDEN / f"{name}-{width}.txt"
        if os.environ.get("UPDATE_GOLDEN"):
            GOLDEN.mkdir(exist_ok=True)
            path.write_text(text)
        assert settled(name, text) == settled(name, path.read_text())
        assert max(map(len, text.splitlines())) <= width
        assert width < 80 or len(text.splitlines()) <= 40


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_no_word_is_broken_at_any_width(name: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every word of every section, short page and details, stands whole in the output; only bars and what is longer than a line may not."""
    for details in (False, True):
        sections = page(plan_of(name), details)
        shown = set(text_at(sections, width, monkeypatch).split())
        for section in (s for s in sections if not s.is_code):
            texts = [*section.lines, *(part for item in section.items for part in item)]
            texts += [cell for row in (section.grid.rows if section.grid else ()) for cell in row]
            missing = {w for text in texts for w in text.split() if len(w) < width - 8 and not re.search("[█▏▎▍▌▋▊▉]", w)} - shown
            assert not missing, (section.title, missing)


def test_an_infeasible_question_is_answered_in_one_line_that_proposes_changes() -> None:
    with pytest.raises(Infeasible) as error:
        solve(Scenario.model_validate({"workload": [{"qps": 100, "min_quality": 0.8}], "policy": {"budget": "12/h"}}), load_catalog())
    text = str(error.value)
    assert "\n" not in text and "Any one of these would do: a budget of $19.56/h" in text and "In conflict: budget $12.00/h, quality 0.8, 100 req/s" in text


def test_a_factor_below_one_stands_beside_the_median() -> None:
    plan = plan_of("2-per-second")
    assert isinstance(plan, Plan)
    d = plan.deployments[0]
    assert d.evidence
    faster = d.evidence.model_copy(update={"step_time_factor": 0.88, "step_time_band": {"0.5": 0.81, "0.8": 0.88}})
    quick = plan.model_copy(update={"deployments": (d.model_copy(update={"evidence": faster}),)})
    for details in (False, True):
        assert "x0.88 of the fitted physics to be sure at 80% (x0.81 at the median)" in render.markdown(page(quick, details))


def test_the_range_is_that_of_the_evidence() -> None:
    """Both ends are what the check derives: one replica more or less is refused; and the page says them."""
    plan = plan_of("200-per-second")
    assert isinstance(plan, Plan)
    (d,) = plan.deployments
    assert d.evidence is not None and d.evidence.replicas_at_median is not None and d.evidence.replicas_at_95 is not None
    assert d.evidence.replicas_at_median <= d.replicas <= d.evidence.replicas_at_95
    for field in ("replicas_at_median", "replicas_at_95"):
        for step in (-1, 1):
            evidence = d.evidence.model_copy(update={field: getattr(d.evidence, field) + step})
            wrong = plan.model_copy(update={"deployments": (d.model_copy(update={"evidence": evidence}),)})
            assert not check_plan(wrong, load_catalog()).ok
    text = render.terminal(page_sections(plan))
    assert f"{d.evidence.replicas_at_median} to {d.evidence.replicas_at_95} replicas" in " ".join(text.split())
