"""Charts from the command line: real files of each form, pages that need no network and run nothing they were not meant to, the chosen plan marked."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("altair")
pytest.importorskip("vl_convert")

from planner import Catalog, Scenario, frontier, load_catalog, solve
from planner.economics.compare import compare_plans
from planner.economics.frontier import Frontier, by_model
from planner.economics.sweep import axis, sweep
from planner.planning.periods import autoscale
from planner.report import charts, drawing, studies
from planner.report.drawing import drawn
from planner.simulation.run import simulate

Run = Callable[..., tuple[int, str, str]]
TINY = Path(__file__).parent / "data" / "tiny"
CURVE = ("curve", "Llama-3.1-8B", "--gpu", "H100-SXM-80GB")


def test_each_form_is_a_real_file_and_the_result_is_printed_as_ever(run: Run, tmp_path: Path) -> None:
    plain = run(*CURVE)
    for form, begins in (("png", b"\x89PNG\r\n"), ("html", b"<!DOCTYPE html>")):
        file = tmp_path / f"c.{form}"
        assert run(*CURVE, "--chart", file) == plain
        assert file.read_bytes().lstrip().startswith(begins) and len(file.read_bytes()) > 5000


def test_a_page_asks_nothing_of_the_network() -> None:
    class Links(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.found: list[str] = []

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.found += [f"{tag} {name}={value}" for name, value in attrs if name in ("src", "href", "data", "action")]

    page = drawn(charts.frontier_chart(small()), "html").decode()
    reader = Links()
    reader.feed(page)
    assert reader.found == [] and '"actions":false' in page and '"text": "chosen"' in page


@cache
def tiny() -> Catalog:
    return load_catalog([TINY], shipped=False)


@cache
@cache
def small(also: str = "") -> Frontier:
    return frontier(Scenario.model_validate({"workload": [{"qps": 20, "min_quality": 0.3}]}), tiny(), also=also)


def test_every_study_draws_itself() -> None:
    question = Scenario.model_validate({"workload": [{"qps": 20}], "supply": {"gpus": ["GPU-80"]}})
    line, plane = (sweep(question, tiny(), [axis(text, 2) for text in over]) for over in (["qps=10:20"], ["qps=10:20", "ttft=1s,2s"]))
    plan = solve(question, tiny(), compare=False)
    hours = autoscale(Scenario.model_validate({"workload": [{"qps": 20, "profile": "m-small"}]}), tiny())
    simulated = simulate(plan, tiny(), requests=2000)
    made = {
        "Cost along qps": charts.sweep_chart(line),
        "Cost over qps and ttft": charts.sweep_chart(plane),
        "Models at this load": charts.models_chart(by_model(question, tiny())),
        "Scenarios": charts.comparison_chart(compare_plans([("a", plan), ("b", plan)])),
        "peaks held all day": charts.hours_chart(hours),
        "KV cache used": charts.simulation_chart(simulated),
        "TTFT limit, ms": charts.frontier_chart(small("ttft")),
    }
    for words, chart in made.items():
        picture = drawn(chart, "svg").decode()
        assert picture.startswith("<svg") and words in picture


def test_the_chosen_plan_is_marked_in_table_rows_and_chart() -> None:
    for found in (small(), small("ttft")):
        assert found.chosen is not None
        cheapest = solve(Scenario.model_validate({"workload": [{"qps": 20, "min_quality": 0.3}]}), tiny(), compare=False)
        assert found.points[found.chosen].usd_per_hour == pytest.approx(cheapest.cost.usd_per_hour)
        (section,) = studies.frontier_sections(found)
        assert section.grid is not None and [row[0].startswith("*") for row in section.grid.rows] == [i == found.chosen for i in range(len(found.points))]
        assert [r["is_chosen"] for r in studies.frontier_rows(found)] == [i == found.chosen for i in range(len(found.points))]


def test_names_from_outside_run_nothing_in_a_page() -> None:
    import altair as alt

    hostile = "</script><script>alert(1)</script>\x1b[2J"
    chart: Any = alt.Chart(alt.InlineData([{"a": hostile, "b": 1}]), title=hostile).mark_bar().encode(x="b:Q", y="a:N")
    page = drawn(chart, "html").decode()
    assert "alert(1)</script>" not in page and "\\u003c/script\\u003e" in page and "\x1b" not in page
    assert b"\x1b" not in drawn(chart, "svg") and b"<script>" not in drawn(chart, "svg")


@pytest.mark.parametrize(("file", "says"), [("c.pdf", "ends in .html, .png or .svg"), ("chart", "ends in .html"), ("nowhere/c.png", "folder does not exist")])
@pytest.mark.parametrize(
    "words",
    [CURVE, ("sweep", "--over", "qps=1:2"), ("frontier", "--qps", "1"), ("autoscale", "--qps", "1"), ("compare", "a.json"), ("simulate", "a.json")],
    ids=lambda w: w[0],
)
def test_what_cannot_be_drawn_is_one_line_before_any_work(words: tuple[str, ...], file: str, says: str, run: Run, tmp_path: Path) -> None:
    status, out, err = run(*words, "--chart", tmp_path / file)
    assert (status, out) == (2, "") and says in err and err.count("\n") == 1 and not list(tmp_path.iterdir())


def test_a_missing_extra_is_told(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(drawing, "find_spec", lambda name: None if name == "vl_convert" else there(name))
    status, out, err = run(*CURVE, "--chart", tmp_path / "c.png")
    assert (status, out) == (2, "") and "pip install 'inference-planner[charts]'" in err and err.count("\n") == 1
