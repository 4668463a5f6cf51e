"""The page of `plan serve` in a real browser: its fields ask the solver behind it, it says what it is told, and nothing keeps anyone out."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("playwright")

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="there is no Chromium here (apt-get install chromium)")
TINY = Path(__file__).parent / "data" / "tiny"
START = '[[workload]]\nqps = 20\nmin_quality = 0.5\nmodels = ["Small-8B"]\n[supply]\ngpus = ["GPU-80"]\n'


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    file = tmp_path_factory.mktemp("serve") / "start.toml"
    file.write_text(START)
    command = [sys.executable, "-m", "planner", "serve", "--port", "0", "--workers", "1", "--catalog", str(TINY), "-f", str(file)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        match = re.search(r"http://\S+", server.stderr.readline())
        assert match
        yield match[0]
        server.send_signal(signal.SIGINT)


@pytest.fixture
def opened(browser: Any, url: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page with its first answer; afterwards nothing was said on the console but that a status was an error's, and nothing asked of elsewhere."""
    context = browser.new_context(color_scheme=getattr(request, "param", "light"))
    page, said, asked = context.new_page(), [], []
    page.on("console", lambda m: said.append(m.text))
    page.on("pageerror", lambda e: said.append(str(e)))
    page.on("request", lambda r: asked.append(r.url))
    page.goto(url)
    answer(page)
    yield page
    assert [s for s in said if "status of 4" not in s] == []
    assert set(asked) - {"data:,"} == {f"{url}/", f"{url}/plan"}
    context.close()


def answer(page: Any) -> str:
    page.wait_for_selector("#answer[aria-busy=false]", timeout=60_000)
    return str(page.text_content("#usd"))


def put(page: Any, name: str, value: str, event: str = "change") -> str:
    page.eval_on_selector(f"#{name}", "(e, [value, event]) => { e.value = value; e.dispatchEvent(new Event(event)); }", [value, event])
    return answer(page) if event == "change" else ""


def test_fields_show_the_plan_that_they_ask_for(opened: Any, url: str) -> None:
    seen = [str(opened.text_content("#usd")), put(opened, "rate", "2000"), put(opened, "seconds", "0.2")]
    question = json.loads(opened.input_value("#scenario"))
    assert (question["workload"][0]["qps"], question["workload"][0]["slo"]["ttft_p95"]) == (2000, "0.2s")
    plan = httpx.post(f"{url}/plan", json=question, timeout=60).json()
    assert seen[0] == "$3.00/h" and seen[2] == f"${plan['cost']['usd_per_hour']:,.2f}/h" != seen[0]
    facts = str(opened.text_content("#facts"))
    assert f"GPUs{plan['gpus_held']} = " in facts and plan["deployments"][0]["checkpoint"] in facts
    opened.click("#reset")
    assert answer(opened) == seen[0]


def test_a_slider_sets_its_field(opened: Any) -> None:
    put(opened, "rate-range", "600", "input")
    assert float(opened.input_value("#rate")) == pytest.approx(20 * 10**0.3, rel=0.01)
    put(opened, "rate-range", "600")
    assert json.loads(opened.input_value("#scenario"))["workload"][0]["qps"] == float(opened.input_value("#rate"))


def test_no_plan_and_no_question_are_said(opened: Any) -> None:
    assert put(opened, "floor", "0.99") == "no plan" and "infeasible: " in opened.text_content("#why")
    opened.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    opened.fill("#scenario", '{"workload": [{"qps": 1, "lengths": "<b>/etc/passwd"}]}')
    opened.click("#ask")
    opened.wait_for_selector("#why:has-text('would open a file')", timeout=60_000)  # a function to wait for is code that the page's policy refuses
    assert answer(opened) == "no answer" and opened.query_selector("#why b") is None


@pytest.mark.parametrize("opened", ["light", "dark"], indirect=True)
def test_nothing_keeps_anyone_out(opened: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    opened.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    found = axe.Axe().run(opened).response["violations"]
    assert [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")] == []
