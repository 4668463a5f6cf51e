"""The document for a review: what it says is what the plan says, in every form; nothing is missing without a word; names from outside run nothing."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import re
from collections.abc import Callable
from datetime import date
from functools import cache
from html.parser import HTMLParser
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("altair")
pytest.importorskip("vl_convert")
pytest.importorskip("jinja2")
pytest.importorskip("xlsxwriter")
pytest.importorskip("openpyxl")

import openpyxl
from test_hostile import HOSTILE, UNSEEN

from planner import Catalog, Plan, Scenario, load_catalog, solve
from planner.economics.compare import compare
from planner.economics.review import PARTS, Review, Wanted, review
from planner.economics.runs import Where, answer_one
from planner.economics.whatif import asked_at, grid_size
from planner.errors import PlannerError, ScenarioError
from planner.planning.periods import autoscale
from planner.report.review import writers
from planner.report.review.focus import UNKNOWN, Months, focus_of, months
from planner.report.review.markdown import pull_request
from planner.report.review.page import grid_data, page
from planner.report.review.parts import review_parts
from planner.report.review.table import csv_of
from planner.report.review.words import option_rows
from planner.report.review.workbook import xlsx_of
from planner.report.sections import money
from planner.search.survey_cache import SurveyCache

Run = Callable[..., tuple[int, str, str]]
TINY = Path(__file__).parent / "data" / "tiny"
QUESTION: dict[str, Any] = {"name": "tiny", "workload": [{"qps": 60, "min_quality": 0.3}], "supply": {"gpus": ["GPU-80"]}}
QUICK = ("--catalog", TINY, "--qps", "60", "--min-quality", "0.3", "--gpu", "GPU-80")
LEFT_OUT = tuple(word for part in PARTS for word in ("--without", part))


@cache
def tiny() -> Catalog:
    return load_catalog([TINY], shipped=False)


@cache
def gathered() -> Review:
    """The whole review of a small question, what-if over 2 x 2 x 2."""
    plan = solve(Scenario.model_validate(QUESTION), tiny(), origins={"workload.0.qps": "flag"})
    return review(plan, tiny(), Wanted(grid=(2, 2, 2), patience_s=600.0), Where(), lambda _: None)


@cache
def shown() -> str:
    return page(gathered())


class Page(HTMLParser):
    """Ids and places that lead elsewhere, texts in the order of the page, and the data of scripts by id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.data: dict[str, str] = {}
        self._in = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self.tags.append(tag)
        self.ids += [known["id"] or ""] if "id" in known and tag == "section" else []
        self.links += [f"{tag} {k}={v}" for k, v in attrs if k in ("src", "href", "data", "action", "srcset") and not (v or "").startswith("#")]
        self._in = (known.get("id") or tag) if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in:
            self.data[self._in] = self.data.get(self._in, "") + data
        else:
            self.text += data


def test_a_page_has_every_part_in_the_order_in_which_it_is_asked() -> None:
    found = Page(shown())
    wanted = "decision demand plan service unit-costs power frontier curve staircase alternatives failure sensitivity what-if assumptions provenance solver"
    assert found.ids == wanted.split()
    assert len(shown()) < 3e6
    assert found.links == [] and "default-src 'none'" in shown()


def test_its_numbers_are_the_plans_own() -> None:
    found, plan = Page(shown()).text, json.loads(gathered().plan.to_json())
    cost, d = plan["cost"], plan["deployments"][0]
    for text in (money(cost["usd_per_hour"]), money(cost["usd_per_month"], 0), money(cost["usd_per_year"], 0), f"{plan['gap']:.2%}", d["serve_command"]):
        assert text in found
    assert f"{d['gpus']} GPUs = {d['replicas']} replicas x TP1 GPU-80" in found
    assert f"{d['quality']['score']:.4f}" in found and plan["catalog_hash"] in found and plan["purchases"][0]["source"] in found
    assert re.search(r"workload\.0\.qps\s*60\.0\s*flag", found)


def test_plans_that_carry_the_most_say_how_much() -> None:
    question = {"workload": [{"min_quality": 0.3}], "supply": {"gpus": ["GPU-80"]}, "policy": {"budget": "10/h"}, "objective": {"maximize": "qps"}}
    plan = solve(Scenario.model_validate(question), tiny(), compare=False)
    assert option_rows(plan)["traffic"] == f"{plan.workloads[0].demand.value:,.4g} req/s"
    assert "traffic" not in option_rows(gathered().plan)


def test_every_chart_has_its_table_and_takes_its_colours_from_the_page() -> None:
    charts = json.loads(Page(shown()).data["charts"])
    assert list(charts) == ["bridge", "service", "frontier", "curve", "curve-ttft", "staircase", "failure", "tornado"]
    for name, spec in charts.items():
        assert spec["width"] == "container" and spec["description"]
        figure = shown().split(f'data-chart="{name}"')[1].split("</figure>")[0]
        assert figure.count("<table") == 1
    drawn, frontier = re.findall(r'"usd": ([\d.e+-]+)', json.dumps(charts["frontier"])), gathered().frontier
    assert frontier is not None and {p.usd_per_hour for p in frontier.points} == set(map(float, drawn))


def test_a_cell_of_what_if_is_the_plan_that_the_question_itself_has() -> None:
    what_if, scenario = gathered().what_if, gathered().plan.scenario
    assert what_if is not None and len(what_if.plans) == 8
    cache = SurveyCache(tiny())
    data: Any = grid_data(what_if)
    assert data == json.loads(Page(shown()).data["what-if-data"])
    for values, cell, shown_cell in zip(product(*(a.values for a in what_if.axes)), what_if.plans, data["cells"], strict=True):
        found = answer_one(asked_at(scenario, what_if.axes, values), cache).plan
        assert (cell is None) == (found is None)
        if cell is None or found is None:
            assert shown_cell["usd"] == "no plan"
            continue
        assert cell.usd_per_hour == pytest.approx(found.cost.usd_per_hour)
        assert [(d.checkpoint, d.gpu, d.replicas) for d in cell.deployments] == [(d.checkpoint, d.gpu, d.replicas) for d in found.deployments]
        assert shown_cell["usd"] == f"{money(found.cost.usd_per_hour)}/h" and shown_cell["quality"] == f"{found.workloads[0].min_quality_served:.4f}"
    assert data["cells"][what_if.now]["usd"] == f"{money(gathered().plan.cost.usd_per_hour)}/h"


@pytest.mark.parametrize("text", ["5x4", "0x1x1", "10x1x1", "5x4x3x2", "grid"])
def test_a_grid_has_a_size_that_can_be_made(text: str) -> None:
    with pytest.raises(ScenarioError):
        grid_size(text)
    assert grid_size("5x4x3") == (5, 4, 3) and grid_size("none") is None


def test_the_staircase_never_falls_and_carries_what_the_plan_carries() -> None:
    stairs = gathered().staircase
    assert stairs is not None and stairs.carries is not None
    costs = [s.plan.usd_per_hour for s in stairs.stairs if s.plan]
    assert len(costs) == len(stairs.stairs) and all(b >= a * (1 - 1e-3) for a, b in pairwise(costs))
    here = next(s for s in stairs.stairs if s.traffic == 60)
    assert here.plan is not None and here.plan.usd_per_hour == pytest.approx(gathered().plan.cost.usd_per_hour)
    last = max((s for s in stairs.stairs if s.plan and s.plan.usd_per_hour <= here.plan.usd_per_hour * (1 + 1e-9)), key=lambda s: s.traffic)
    assert last.traffic <= stairs.carries * (1 + 1e-6) and last.traffic == pytest.approx(stairs.carries, rel=2e-4)


def test_a_failure_costs_requests_while_it_lasts() -> None:
    found, prudent = gathered().failures
    assert (found.name, prudent.name) == ("cheapest", "prudent")
    assert found.what == "replica" and found.before is not None and found.during is not None and found.after is not None
    assert found.back_s == pytest.approx(found.fails_s + 600.0)
    assert found.during < found.before and sum(d.restarted for d in found.simulation.deployments) > 0


def test_what_is_left_out_is_said_with_the_reason() -> None:
    plan = gathered().plan
    none = review(plan, tiny(), Wanted(without=PARTS), Where(), lambda _: None)
    assert none.left_out == dict.fromkeys(PARTS, "not asked for")
    text = Page(page(none)).text
    assert len(re.findall(r"not asked for\s", text)) == len(PARTS) - 1 and "No prudent plan beside it: not asked for." in text
    hurried = review(plan, tiny(), Wanted(patience_s=1e-9, without=("failure", "curve", "prudent")), Where(), lambda _: None)
    assert all("--patience" in hurried.left_out[p] for p in ("frontier", "staircase", "sensitivity", "what-if"))
    hours = autoscale(Scenario.model_validate({"workload": [{"qps": 20, "profile": "m-small"}]}), tiny())
    by_hour = review(hours, tiny(), Wanted(), Where(), lambda _: None)
    assert "the plan follows the hours" in by_hour.left_out["frontier"] and "the plan follows the hours" in Page(page(by_hour)).text
    assert json.loads(Page(page(by_hour)).data["charts"])["hours"]["description"].startswith("Cost of each hour")


def test_the_grid_is_told_before_it_is_made() -> None:
    told: list[str] = []
    made = review(gathered().plan, tiny(), Wanted(without=[p for p in PARTS if p != "what-if"], grid=(2, 1, 1)), Where(), told.append)
    assert made.what_if is not None and len(made.what_if.plans) == 2
    assert len(told) == 1 and re.fullmatch(r"what-if: 2 plans \(2 x 1 x 1 of .*\), about \d+ s", told[0])


@pytest.fixture(scope="module")
def hostile() -> Review:
    """The review of a plan whose every name is hostile, as an edited JSON may be, beside itself."""
    keep = {"status", "mode", "kv_cache_dtype", "speculative", "kind", "metric", "tuning"}

    def edited(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {k: edited(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [edited(v, key) for v in value]
        return HOSTILE if isinstance(value, str) and key not in keep else value

    raw = json.loads(gathered().plan.to_json())
    plan = Plan.model_validate({k: v if k == "scenario" else edited(v, k) for k, v in raw.items()})
    g = gathered()
    return Review(plan, HOSTILE, frontier=g.frontier, failures=g.failures, what_if=g.what_if, left_out={"curve": HOSTILE, "prudent": HOSTILE})


def test_a_hostile_name_is_text_in_a_page(hostile: Review) -> None:
    text = page(hostile)
    found, known = Page(text), Page(shown())
    assert set(found.tags) <= set(known.tags) and "img" not in found.tags and found.tags.count("script") == 4
    assert found.links == [] and not UNSEEN.search(found.text.replace("\n", ""))
    assert "<img src=x" not in text and "<img src=x onerror=alert(1)>" in found.text


def test_a_hostile_name_is_text_in_markdown(hostile: Review) -> None:
    text = re.sub(r"^(`{3,})\n.*?\n\1$", "", pull_request(hostile), flags=re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"</?\w+", text)) == {"<details", "</details", "<summary", "</summary"}
    assert not UNSEEN.search(text) and not re.search(r"(?<!\\)[`\[]", text)


def test_markdown_says_the_change_first_and_folds_the_rest() -> None:
    question = Scenario.model_validate(QUESTION)
    more = Scenario.model_validate({**QUESTION, "workload": [{"qps": 240, "min_quality": 0.3}]})
    found = compare([("base", question), ("growth", more)], tiny())
    r = Review(gathered().plan, tiny().hash, compared=found, left_out=dict.fromkeys(PARTS, "not asked for"))
    text = pull_request(r)
    first, second = (c.usd_per_hour for c in found)
    assert first is not None and second is not None
    assert text.startswith(f"### {money(first)}/h (")
    assert f"**growth**: +{second - first:,.2f} $/h ({second / first - 1:+.0%})" in text and text.index("growth") < text.index("<details>")
    assert text.count("<details>") == text.count("</details>") and "| Cost and quality | not asked for |" in text
    assert "Scenarios" in [p.title for p in review_parts(r)]


def test_a_workbook_follows_the_hours_and_discounts_that_a_reviewer_puts_in() -> None:
    r = gathered()
    made = xlsx_of(r)
    assert made == xlsx_of(r)
    live, known = (openpyxl.load_workbook(io.BytesIO(made), data_only=only) for only in (False, True))
    costs, values = live["Costs"], known["Costs"]
    totals = [row for row in range(1, costs.max_row + 1) if costs.cell(row, 1).value == "total"]
    assert r.prudent is not None and len(totals) == 2
    for at, plan in zip(totals, (r.plan, r.prudent), strict=True):
        first = at - len(plan.purchases)
        assert costs.cell(at, 9).value == f"=SUM(I{first}:I{at - 1})" and costs.cell(first, 9).value == f"=F{first}*G{first}*(1-H{first})"
        for column, usd in ((9, plan.cost.usd_per_hour), (10, plan.cost.usd_per_month), (11, plan.cost.usd_per_year)):
            assert values.cell(at, column).value == pytest.approx(usd)
            assert computed(costs, costs.cell(at, column).value) == pytest.approx(usd)
        costs["B6"], costs["B5"] = 0.25, 6
        assert computed(costs, costs.cell(at, 11).value) == pytest.approx(plan.cost.usd_per_year / 2 * 0.75)
        costs["B6"], costs["B5"] = 0.0, 12
    units, u = known["Unit economics"], r.plan.unit_costs
    assert u is not None and units["I2"].value == pytest.approx(u.usd_per_million_output_tokens) and units["F2"].value == pytest.approx(u.usd_per_hour)
    assert live["Unit economics"]["F2"].value == f"=E2*Costs!I{totals[0]}"
    what_if = r.what_if
    assert what_if is not None and live["What-if"].max_row == 1 + len(what_if.plans)


def computed(sheet: Any, formula: str) -> float:
    """What a formula of the workbook comes to: sums, products, cells and numbers are all that there is."""

    def value(match: re.Match[str]) -> str:
        found = sheet[match[0].replace("$", "")].value
        return f"({computed(sheet, found)})" if isinstance(found, str) else f"({found})"

    def summed(match: re.Match[str]) -> str:
        cells = [c.value for row in sheet[f"{match[1]}{match[2]}:{match[1]}{match[3]}"] for c in row]
        return f"({sum(computed(sheet, c) if isinstance(c, str) else c for c in cells)})"

    text = re.sub(r"SUM\(([A-Z])(\d+):[A-Z](\d+)\)", summed, formula.lstrip("="))
    text = re.sub(r"\$?[A-Z]\$?\d+", value, text)
    assert re.fullmatch(r"[\d.e+*/() -]+", text)
    return float(eval(text))


def test_a_hostile_name_is_text_in_a_workbook_and_in_csv(hostile: Review) -> None:
    book = openpyxl.load_workbook(io.BytesIO(xlsx_of(hostile)))
    formulas = [c for sheet in book for row in sheet.iter_rows() for c in row if c.data_type == "f"]
    assert formulas and not any("cmd" in c.value for c in formulas)
    texts = [c.value for sheet in book for row in sheet.iter_rows() for c in row if c.data_type == "s"]
    assert any(t.startswith("=cmd") for t in texts) and not any(UNSEEN.search(t) for t in texts)
    assert not any(c.hyperlink for sheet in book for row in sheet.iter_rows() for c in row)
    for text in (csv_of(hostile), focus_of(hostile.plan, Months(date(2027, 1, 1), 1))):
        rows = list(csv.reader(io.StringIO(text)))
        assert not any(t.startswith(("=", "@", "\t", "\r")) for row in rows for t in row) and not UNSEEN.search(text)


def test_csv_holds_the_plans_numbers_one_in_a_row() -> None:
    rows = list(csv.DictReader(io.StringIO(csv_of(gathered()))))
    found = {(r["part"], r["item"], r["name"]): r["value"] for r in rows}
    plan = gathered().plan
    assert len(found) == len(rows)
    assert float(found["decision", "1", "usd_per_hour"]) == plan.cost.usd_per_hour
    assert float(found["deployments", "1", "slo_load"]) == plan.deployments[0].slo_load
    predicted = plan.workloads[0].predicted
    assert predicted is not None and float(found["service", "1", "p95_ms"]) == predicted.ttft_ms.p95
    assert found["sources", "1", "source"] == plan.purchases[0].source


@pytest.mark.parametrize("workloads", [1, 2])
def test_focus_rows_add_up_to_the_plan_and_say_nothing_that_only_a_bill_knows(workloads: int) -> None:
    second = [{"name": "second", "qps": 30, "output_tokens": 100}] if workloads == 2 else []
    plan = solve(Scenario.model_validate({**QUESTION, "workload": [*QUESTION["workload"], *second]}), tiny(), compare=False)
    rows = list(csv.DictReader(io.StringIO(focus_of(plan, Months(date(2027, 12, 1), 3)))))
    hours = {"2027-12": 744, "2028-01": 744, "2028-02": 696}
    for month, of in hours.items():
        mine = [r for r in rows if r["ChargePeriodStart"].startswith(month)]
        assert sum(float(r["ListCost"]) for r in mine) == pytest.approx(plan.cost.usd_per_hour * of)
        assert sum(float(r["PricingQuantity"]) for r in mine) == pytest.approx(sum(p.instances for p in plan.purchases) * of)
        tokens = sum(w.qps * (w.output_tokens or 0.0) for w in plan.workloads) * 3600 * of
        assert sum(int(r["x_OutputTokens"]) for r in mine) == pytest.approx(tokens, rel=1e-6)
        assert {r["x_Workload"] for r in mine} == {w.name for w in plan.workloads}
    lint = pytest.importorskip("focus_data_toolkit").lint_focus_1_4_structure
    faults = {(v.rule, v.column) for v in lint("CostAndUsage", rows).violations}
    assert faults == {("null_not_allowed", c) for c in ("BilledCost", "BillingAccountId", "ContractedCost", "ServiceName")}
    misspelt = [{k.replace("PricingUnit", "PriceUnit"): v for k, v in r.items()} for r in rows]
    assert any("PriceUnit" in str(v) or v.column == "PricingUnit" for v in lint("CostAndUsage", misspelt).violations)
    assert all(r[c] == "" for r in rows for c in UNKNOWN)
    assert all(float(r["ListUnitPrice"]) * float(r["PricingQuantity"]) == pytest.approx(float(r["ListCost"])) for r in rows)
    assert all(r["ChargeDescription"].startswith("Forecast at list price") for r in rows)


def test_focus_starts_with_a_month_that_there_is() -> None:
    assert months("", 12, date(2026, 12, 31)) == Months(date(2027, 1, 1), 12)
    assert next(months("2027-12", 1, date(2026, 1, 1)).each()) == (date(2027, 12, 1), date(2028, 1, 1))
    for start, count in (("2027-13", 1), ("soon", 1), ("2027-1", 1), ("2027-01", 0), ("2027-01", 1000)):
        with pytest.raises(PlannerError):
            months(start, count, date(2026, 1, 1))


def test_the_command_writes_each_form_that_a_name_asks_for(run: Run, tmp_path: Path) -> None:
    html, md, xlsx, table, focus = (tmp_path / name for name in ("a.html", "a.md", "a.xlsx", "a.csv", "my-focus.csv"))
    targets = [word for path in (html, md, xlsx, table, focus) for word in ("-o", path)]
    status, out, err = run("report", *QUICK, *LEFT_OUT, *targets, "--start", "2027-01", "--months", "2")
    assert (status, out) == (0, "") and err.count("\n") == 1 and "BilledCost" in err and "stay empty until there is a bill" in err
    assert xlsx.read_bytes().startswith(b"PK") and table.read_text().startswith("part,item,name,value\n")
    assert focus.read_text().startswith("BilledCost,") and focus.read_text().count("\n") == 3
    assert html.read_text().lstrip().startswith("<!DOCTYPE html>")
    assert run("report", *QUICK, *LEFT_OUT) == (0, md.read_text(), "")


def test_a_saved_plan_is_reported_as_it_is(run: Run, tmp_path: Path) -> None:
    saved = tmp_path / "plan.json"
    assert run(*QUICK, "--format", "json", "-o", saved)[0] == 0
    text = run("report", saved, *LEFT_OUT)[1]
    assert text == run("report", *QUICK, *LEFT_OUT)[1]
    both = run("report", saved, saved, *LEFT_OUT)
    assert both[0] == 0 and "**Against plan**" in both[1]


def test_what_changes_from_todays_fleet_and_what_is_drawn_have_parts_of_their_own(run: Run, tmp_path: Path) -> None:
    html, md, book = (tmp_path / name for name in ("a.html", "a.md", "a.xlsx"))
    targets = [word for path in (html, md, book) for word in ("-o", path)]
    asked = ("--qps", "200", "--min-quality", "0.8", "--gpu", "B200", "--gpu", "H100-SXM-80GB", "--provider", "verda", "--current", "examples/fleet.toml")
    assert run("report", *asked, "--carbon-price", "100", "--carbon-intensity", "350", *LEFT_OUT, *targets)[0] == 0
    found = Page(html.read_text())
    assert found.ids[2:6] == ["plan", "today", "service", "unit-costs"] and found.ids[6] == "power"
    for text in (found.text, md.read_text()):
        assert "From today's fleet" in text and "drop 12" in text and "to 2027-06-30" in text
        assert "Power and carbon" in text and "for carbon at $100/t" in text and "8 kW of TDP x PUE" in text
    names = openpyxl.load_workbook(book).sheetnames
    assert {"Today", "Power"} <= set(names)


WRONG = [
    (("-o", "a.doc"), "nothing says in which form"),
    (("-o", "a"), "give --format"),
    (("--format", "xlsx"), "no text for a terminal"),
    (("--format", "focus", "--start", "2027"), "such as 2027-01"),
    (("--format", "htm"), "unknown format 'htm'"),
    (("--without", "fronteer"), "did you mean"),
    (("--what-if", "9"), "rates x floors"),
    (("-o", "nowhere/a.html"), "folder does not exist"),
    (("--patience", "soon"), "--patience"),
]


@pytest.mark.parametrize(("words", "says"), WRONG, ids=[" ".join(w) for w, _ in WRONG])
def test_a_usage_error_is_one_line_before_any_work(words: tuple[str, ...], says: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = run("report", "--qps", "1", *words)
    assert (status, out, err.count("\n")) == (2, "", 1) and says in err and not list(tmp_path.iterdir())


def test_a_plan_and_a_question_are_not_both_reported(run: Run, tmp_path: Path) -> None:
    saved = tmp_path / "plan.json"
    saved.write_text(gathered().plan.to_json())
    status, _, err = run("report", saved, "--qps", "1")
    assert status == 2 and "answers its own question" in err
    status, _, err = run("report", saved, saved, "--of", "paln", *LEFT_OUT)
    assert status == 2 and "no scenario is called 'paln'" in err


def test_a_missing_extra_is_told(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(writers, "find_spec", lambda name: None if name == "jinja2" else there(name))
    status, out, err = run("report", "--qps", "1", "-o", tmp_path / "a.html")
    assert (status, out) == (2, "") and "pip install 'inference-planner[report]'" in err and err.count("\n") == 1
