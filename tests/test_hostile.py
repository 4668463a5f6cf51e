"""What anybody may hand over: names that try to run, hide or forge something, files that try to exhaust the machine, and broken streams."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from planner import Plan, Scenario, limits, load_catalog, solve
from planner.catalog.files import csv_rows
from planner.catalog.replica_type import ReplicaType
from planner.clean import cell, clipped, error_line, json_text, markdown, markdown_line, plain, read_cell, toml_text
from planner.emit.engine import GpuMemory, Steps, serve_command
from planner.report import render
from planner.report.formats import formatted
from planner.report.notebook import to_html
from planner.report.sections import Grid, Section

Run = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parent.parent
TINY = ROOT / "tests" / "data" / "tiny"
ESC, RTL, NUL = "\x1b[31m\x1b]0;owned\x07", "\u202etxt.exe\u2066", "\x00"
HOSTILE = f"=cmd|'/c calc'!A1{ESC}{RTL}{NUL}\nok      everything|<img src=x onerror=alert(1)>[bold]`x`[a](javascript:b)"
UNSEEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


@pytest.fixture(scope="module")
def hostile_plan() -> Plan:
    """A plan whose every name is hostile, as an edited JSON may be."""
    question = {"workload": [{"qps": 20, "min_quality": 0.5, "models": ["Small-8B"]}], "supply": {"gpus": ["GPU-80"]}, "catalog": [str(TINY)]}
    scenario = Scenario.model_validate(question)
    raw = json.loads(solve(scenario, load_catalog(scenario.catalog)).to_json())
    keep = {"status", "mode", "kv_cache_dtype", "speculative", "kind", "metric", "tuning"}

    def edited(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {k: edited(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [edited(v, key) for v in value]
        return HOSTILE if isinstance(value, str) and key not in keep else value

    return Plan.model_validate({k: v if k == "scenario" else edited(v, k) for k, v in raw.items()})


@pytest.mark.parametrize("form", ["table", "markdown", "csv", "json"])
def test_no_invisible_character_leaves_in_any_format(hostile_plan: Plan, form: str) -> None:
    assert not UNSEEN.search(formatted(hostile_plan, form))


def test_json_reads_back_as_the_same_names(hostile_plan: Plan) -> None:
    assert Plan.model_validate_json(formatted(hostile_plan, "json")) == hostile_plan


def test_a_notebook_gets_no_markup_either(hostile_plan: Plan) -> None:
    html = to_html(hostile_plan)
    assert "<img" not in html
    assert not UNSEEN.search(html)


def test_markdown_holds_no_html_and_no_links(hostile_plan: Plan) -> None:
    shown = formatted(hostile_plan, "markdown", details=True)
    text = re.sub(r"^(`{3,})\n.*?\n\1$", "", shown, flags=re.MULTILINE | re.DOTALL)  # without fences, which show all as it is
    assert "<img" not in text
    assert not re.search(r"(?<!\\)[`\[]", text)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in rows} <= {n + 1 for n in range(3, 13)}  # no name adds a column


def test_a_fence_is_not_closed_by_what_it_holds() -> None:
    text = render.markdown([Section("Start", ("```", "# not a heading"), is_code=True)])
    assert text.splitlines()[2] == text.splitlines()[-1] == "````"


def test_csv_has_no_live_formula(hostile_plan: Plan) -> None:
    rows = list(csv.reader(io.StringIO(formatted(hostile_plan, "csv"))))
    assert len(rows) == 1 + len(hostile_plan.deployments)
    assert all(text[:1] not in "=+-@\t\r" or re.fullmatch(r"-?[\d.e-]+", text) for row in rows for text in row if text)


@pytest.mark.parametrize("value", ["=1+1", "+a", "-cmd|x", "@SUM(A1)", "'=1", "''@x", "plain", "it's", "'quoted'", "-3", "+4.5 %", "-", "", "+ 3 x TP4"])
def test_a_cell_reads_back_as_it_was(value: str, tmp_path: Path) -> None:
    written = render.csv_text(["name"], [[value]])
    assert read_cell(str(cell(value))) == value
    (tmp_path / "a.csv").write_text(written)
    assert [row for _, row in csv_rows(tmp_path / "a.csv")][1:] == ([[value]] if value else [[""]])


def test_numbers_in_csv_stay_numbers() -> None:
    assert [cell(v) for v in (-3, -0.5, "-3", "+4.5 %", "-", None, True)] == [-3, -0.5, "-3", "+4.5 %", "-", None, True]


def test_rich_takes_no_markup_from_names() -> None:
    name = "[bold red]x[/bold red][/nothing]"
    text = render.terminal([Section(name, (name,), Grid((name,), ((name,),)))])
    assert text.count(name) == 4


SHOWN = {"a\nb": "a\\nb", "\x1b[1m": "\\x1b[1m", "\u202ea": "\\u202ea", "\udcff": "\\udcff", "é 日本 x": "é 日本 x"}


@pytest.mark.parametrize("text", SHOWN)
def test_what_cannot_be_seen_is_shown_as_an_escape(text: str) -> None:
    assert plain(text) == SHOWN[text]


@pytest.mark.parametrize("line", ["- a", "+ 3 x TP4", "# a", "1. a", "12) a", "> a", "---", "=== "])
def test_a_markdown_line_begins_no_list_heading_or_quote(line: str) -> None:
    shown = markdown_line(line)
    assert shown.replace("\\", "") == line
    assert re.match(r"\\|\d+\\", shown)
    assert markdown_line("-3 and 1.5") == "-3 and 1.5"


def test_toml_and_json_escape_what_is_unseen_so_that_it_reads_back() -> None:
    import rtoml

    names = {"a": "x\u202e\u2066\x7f\U000e0001é"}
    assert rtoml.loads(toml_text(rtoml.dumps(names))) == names
    assert json.loads(json_text(json.dumps(names, ensure_ascii=False))) == names
    assert not any(UNSEEN.search(text) for text in (toml_text(rtoml.dumps(names)), json_text(json.dumps(names, ensure_ascii=False))))
    assert markdown("&lt;b> a_b _c_") == "&amp;lt;b> a_b \\_c\\_"


FLAGS = ("--qps", "--model", "--slo", "--format", "--points", "--lengths", "--budget", "--region", "-f", "--capacities", "-o", "--catalog")


@pytest.mark.parametrize("flag", FLAGS)
def test_an_error_echoes_at_most_200_characters(run: Run, flag: str) -> None:
    for given in ("\x1b日" * 5000, "日 " * 5000, "日'd " * 2000):
        first = {"--points": ("curve",), "-o": ("catalog", "gpus"), "--qps": ()}.get(flag, ("--qps", "3"))
        status, out, err = run(*first, flag, given)
        assert (status, len(err.splitlines())) == (2, 1)
        assert out == ""
        assert err.count("日") <= limits.NAME_CHARACTERS / 2, err  # each stands beside a character more
        assert not UNSEEN.search(err)


def test_a_long_explanation_of_our_own_is_not_cut() -> None:
    ours = "infeasible: " + "'a' and " * 100 + "'b'"
    assert error_line(ours) == ours
    assert len(clipped("x" * 1000)) == limits.NAME_CHARACTERS


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[[workload]]\nqps = 1\nname = "a\\u001b[31m"', "name.*must be visible characters on one line|'a.x1b.31m' must be visible"),
        ('[[workload]]\nqps = 1\nname = "' + "x" * 300 + '"', "must have at most 200 characters"),
        ("".join(f'[[workload]]\nname = "w{i}"\nqps = 1\n' for i in range(3000)), "3,000 are too many: at most 100"),
        ("a = " + "[" * 100_000, "recurs"),
        ("#" + "x" * (5 * limits.MIB), "more than 4 MiB"),
    ],
)
def test_a_scenario_beyond_the_limits_is_refused_at_once(run: Run, tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "a.toml").write_text(text)
    status, out, err = run("-f", tmp_path / "a.toml")
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert re.search(told, err), err


def test_names_of_cards_and_tables_are_visible_ones(run: Run, tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("candidate,gpu,gpus,usd_per_hour,class,max_qps\na\x1b[2J,X,1,1,chat,5\n")
    (tmp_path / "d.csv").write_text("class,qps\nchat,3\n")
    status, _, err = run("--capacities", tmp_path / "c.csv", "--demand", tmp_path / "d.csv")
    assert (status, UNSEEN.search(err)) == (2, None)
    assert "c.csv:2: 'candidate': must be visible characters on one line" in err


def test_a_served_name_is_one_word_of_the_shell() -> None:
    command = serve_command("vllm", "a/b; rm -rf ~", ReplicaType(1, 1, 1, 1, False), Steps(64, 2048), 8192, 0.9, GpuMemory(80, 16, 50))
    assert command.startswith("vllm serve 'a/b; rm -rf ~' ")


# ---- exhaustion and damage


def zipped(folder: Path, content: bytes, damage: Callable[[bytes], bytes] = bytes) -> Path:
    file = folder / "trace.csv.gz"
    file.write_bytes(damage(gzip.compress(content, 9)))
    return file


ROWS = b"arrival_s,input_tokens,output_tokens\n" + b"".join(b"%d,%d,%d\n" % (i, i % 777 + 1, i % 333 + 1) for i in range(20_000))


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b[:200] + bytes(400) + b[600:], lambda b: b[:-6], lambda b: b[:9]])
def test_a_damaged_gzip_is_bad_input(run: Run, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    status, out, err = run("demand", "show", zipped(tmp_path, ROWS, damage))
    assert (status, out) == (2, "")
    assert re.search("is no whole gzip file|format is not known", err), err


def test_a_bomb_is_refused_before_it_fills_the_memory(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LINE_BYTES", limits.MIB)
    rows = b"arrival_s,input_tokens,output_tokens\n" + b"1,1,1\n" * 400_000  # 2.4 MB in 2.4 kB
    status, _, err = run("demand", "show", zipped(tmp_path, rows))
    assert (status, "holds more than 200 times its own size" in err) == (2, True)
    line = b"arrival_s,input_tokens,output_tokens\n" + bytes(2 * limits.MIB)
    status, _, err = run("demand", "show", zipped(tmp_path, line))
    assert (status, "has a line of more than 1 MiB" in err) == (2, True)


def test_an_honest_gzip_counts_every_row(run: Run, tmp_path: Path) -> None:
    status, out, _ = run("demand", "show", zipped(tmp_path, ROWS), "--format", "json")
    assert (status, json.loads(out)["requests"]) == (0, 20_000)


def test_tables_read_whole_have_a_limit_on_rows(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert limits.TABLE_ROWS == 100_000
    monkeypatch.setattr(limits, "TABLE_ROWS", 100)
    (tmp_path / "c.csv").write_text("candidate,gpu,gpus,usd_per_hour,class,max_qps\n" + "".join(f"c{i},X,1,1,chat,5\n" for i in range(limits.TABLE_ROWS + 2)))
    (tmp_path / "d.csv").write_text("class,qps\nchat,3\n")
    status, _, err = run("--capacities", tmp_path / "c.csv", "--demand", tmp_path / "d.csv")
    assert (status, "has more than 100 rows" in err) == (2, True)


@pytest.mark.parametrize("file", ["deep.json", "lines.json", "wide.csv", "endless"])
@pytest.mark.parametrize("verb", [("validate",), ("show",), ("check",), ("demand", "show"), ("compare",), ("simulate",)])
def test_deep_wide_and_endless_files_are_bad_input(run: Run, tmp_path: Path, verb: tuple[str, ...], file: str) -> None:
    (tmp_path / "deep.json").write_text("[" * 200_000)
    (tmp_path / "lines.json").write_text('{"usage":' * 50_000 + "\n" + '{"usage":{"prompt_tokens":' * 20_000)
    (tmp_path / "wide.csv").write_text("model,gpu,engine,isl,osl,concurrency\n" + "x" * 200_000 + ",a,b,1,1,1\n")
    path = "/dev/zero" if file == "endless" else tmp_path / file
    status, out, err = run(*verb, path)
    assert (status, out, len(err.splitlines())) == (2, "", 1), err


@pytest.mark.parametrize("name", ["x" * 300, "x" * 5000, "a\\u0000b"])
@pytest.mark.parametrize("key", ["lengths", "demand"])
def test_a_name_that_no_file_can_have_is_no_file(run: Run, tmp_path: Path, key: str, name: str) -> None:
    (tmp_path / "a.toml").write_text(f'[[workload]]\n{key} = "{name}"\n')
    status, _, err = run("-f", tmp_path / "a.toml")
    assert (status, "no shape or file" in err) == (2, True)


def test_a_terminal_without_the_characters_gets_escapes() -> None:
    words, environment = [sys.executable, "-m", "planner", "demand", "show", "azure-2023-conv"], {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u2588" in done.stdout


ODD_DEMAND = {
    "counts beyond all bounds": ("input_tokens,output_tokens,count\n100,50,1e300\n", "counts at most"),
    "tokens beyond all bounds": ("input_tokens,output_tokens,count\n1e300,50,1\n", "counts at most"),
    "no bucket has a number": ('# TYPE x histogram\nvllm:request_prompt_tokens_bucket{le="1s"} 3\n', "no histogram of prompt tokens"),
    "a count that is none": ('# TYPE x histogram\nvllm:request_prompt_tokens_bucket{le="10"} nan\n', "no histogram of prompt tokens"),
    "an endless rate": ('[demand]\nsource="x"\nformat="x"\nrequests=inf\ninput={mean=1,p50=1,p90=1,p99=1,max=1}\n', "must be|should be"),
}


@pytest.mark.parametrize("case", ODD_DEMAND)
def test_numbers_that_no_stream_can_have_are_bad_input(run: Run, tmp_path: Path, case: str) -> None:
    text, told = ODD_DEMAND[case]
    file = tmp_path / ("a.toml" if text.startswith("[") else "a.csv")
    file.write_text(text)
    status, out, err = run("demand", "show", file)
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert re.search(told, err), err


def test_a_bucket_without_a_sound_edge_is_passed_over(run: Run, tmp_path: Path) -> None:
    buckets = "".join(
        f'vllm:request_{side}_tokens_bucket{{le="{le}"}} {n}\n' for side in ("prompt", "generation") for le, n in (("1s", 2), ("100", 9), ("+Inf", 12))
    )
    (tmp_path / "m.txt").write_text(f"# TYPE x histogram\n{buckets}")
    status, out, _ = run("demand", "show", tmp_path / "m.txt", "--format", "json")
    found = json.loads(out)
    assert (status, found["requests"], found["dropped"]) == (0, 12, {"not a sample": 2})


def test_numbers_beyond_all_measure_are_bad_input(run: Run, tmp_path: Path) -> None:
    huge = "1" * 400
    (tmp_path / "p.csv").write_text(f"model,gpu,engine,isl,osl,concurrency,tp\nLlama-3.1-8B,H100-SXM-80GB,vllm,1000,300,8,{huge}\n")
    (tmp_path / "t.csv").write_text(f'{{"timestamp": 0, "input_length": {huge}, "output_length": 5, "hash_ids": [1]}}\n')
    for words in (
        ("validate", tmp_path / "p.csv"),
        ("demand", "show", tmp_path / "t.csv"),
        ("cost", "job", "--gpus", huge, "--seconds", "1", "--usd-per-gpu-hour", "1"),
    ):
        status, out, err = run(*words)
        assert (status, out, len(err.splitlines())) == (2, "", 1), err
    (tmp_path / "models").mkdir()
    (tmp_path / "disaggregated.json").write_text(
        '{"source": "x", "fitted": "x", "data": {}, "errors": {}, "step_quantiles": {"0.5": null}, "prompt_quantiles": {}}'
    )
    status, _, err = run("--qps", "20", "--min-quality", "0.4", "--model", "Llama-3.1-8B", "--allow", "disaggregated", "--catalog", tmp_path)
    assert (status, "not a file of errors of disaggregated units" in err) == (2, True), err


def test_a_saved_plan_has_a_limit(run: Run, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"notes": [' + '"x",' * (limits.PLAN_BYTES // 4) + '"x"]}')
    status, _, err = run("show", tmp_path / "p.json")
    assert (status, "has more than 8 MiB" in err) == (2, True)


def test_a_plan_whose_parts_do_not_fit_together_is_bad_input(run: Run, tmp_path: Path, hostile_plan: Plan) -> None:
    raw = json.loads(hostile_plan.to_json())
    raw["deployments"] = []
    raw["workloads"][0]["predicted"] = None
    (tmp_path / "p.json").write_text(json.dumps(raw))
    status, out, err = run("show", tmp_path / "p.json")
    assert (status, out, "its parts do not fit together" in err) == (2, "", True)


def test_workloads_that_are_no_tables_are_bad_input_when_compared(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("workload = [1]\n[scenario.x]\nworkload = { qps = 3 }\n")
    status, out, err = run("compare", tmp_path / "a.toml")
    assert (status, out, err.startswith("error: ")) == (2, "", True)
