"""The review's page in a real browser without a network: charts are drawn, sliders look up the plan that they name, it prints, and nothing keeps anyone out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright")

from test_report import gathered, shown

from planner.report.review.page import grid_data

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="there is no Chromium here (apt-get install chromium)")


@pytest.fixture
def opened(browser: Any, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page as it opens from a disk: no network, and nothing said on the console."""
    file = tmp_path / "review.html"
    file.write_text(shown())
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900}, color_scheme=getattr(request, "param", "light"))
    page, said, asked = context.new_page(), [], []
    page.on("console", lambda m: said.append(m.text))
    page.on("pageerror", lambda e: said.append(str(e)))
    page.on("request", lambda r: asked.append(r.url))
    page.goto(file.as_uri())
    page.wait_for_selector("html[data-drawn]", timeout=30_000)
    yield page
    assert said == []
    assert asked == [file.as_uri()]
    context.close()


def test_every_chart_is_drawn(opened: Any) -> None:
    places = opened.query_selector_all("[data-chart]")
    assert len(places) == 8
    for place in places:
        assert place.query_selector("svg") and place.query_selector_all("svg path")
        assert place.bounding_box()["width"] > 600


def test_sliders_show_the_plan_that_they_name(opened: Any) -> None:
    what_if = gathered().what_if
    assert what_if is not None
    cells: Any = grid_data(what_if)["cells"]
    places = product(*(range(len(a.values)) for a in what_if.axes))
    seen = set()
    for cell, place in zip(cells, places, strict=True):
        for i, at in enumerate(place):
            opened.eval_on_selector(f"#axis-{i}", "(e, at) => { e.value = at; e.dispatchEvent(new Event('input')); }", str(at))
        got = {k: opened.text_content(f'#what-if-panel [data-cell="{k}"]') for k in cell}
        assert got == cell
        seen.add(got["usd"])
    assert len(seen) > 1
    opened.click("#what-if-reset")
    assert opened.text_content('[data-cell="usd"]') == f"{opened.text_content('[data-option]')}/h"


def test_a_slider_moves_by_the_keyboard_and_says_its_value(opened: Any) -> None:
    before = opened.text_content("#axis-0-text")
    opened.focus("#axis-0")
    opened.keyboard.press("ArrowLeft")
    after = opened.text_content("#axis-0-text")
    assert before != after and opened.get_attribute("#axis-0", "aria-valuetext") == after


@pytest.mark.parametrize("opened", ["light", "dark"], indirect=True)
def test_nothing_keeps_anyone_out(opened: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    opened.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    found = axe.Axe().run(opened).response["violations"]
    assert [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")] == []


def test_dark_and_light_differ_in_colours_of_page_and_charts(opened: Any) -> None:
    def colours() -> tuple[str, str]:
        mark = "getComputedStyle(document.querySelector('[data-chart=staircase] svg .mark-line path')).stroke"
        return opened.evaluate("getComputedStyle(document.body).backgroundColor"), opened.evaluate(mark)

    light = colours()
    opened.emulate_media(color_scheme="dark")
    dark = colours()
    assert light[0] != dark[0] and light[1] != dark[1]
    opened.emulate_media(media="print")
    assert colours() == light


def test_it_fits_a_narrow_screen(opened: Any) -> None:
    opened.set_viewport_size({"width": 360, "height": 800})
    assert opened.evaluate("document.documentElement.scrollWidth") <= 360


def test_it_prints(opened: Any, tmp_path: Path) -> None:
    raw = opened.pdf(path=str(tmp_path / "a.pdf"), prefer_css_page_size=True)
    assert raw[:5] == b"%PDF-" and 3 <= len(re.findall(rb"/Type\s*/Page\b", raw)) <= 15
