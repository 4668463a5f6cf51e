"""Plans over HTTP: the same as the command's to the byte, no file of the machine opened, everything bounded, and processes that may die."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import jsonschema
import pytest
from conftest import Run
from fastapi.testclient import TestClient

from planner import load_catalog
from planner.errors import ScenarioError
from planner.scenario.fields import askables
from planner.scenario.records import Scenario
from planner.scenario.write import to_toml
from planner.service import pool as pools
from planner.service import worker as workers
from planner.service.answer import Reply, Terms, answered
from planner.service.app import MOST_BYTES, Settings, service
from planner.service.page import page
from planner.service.pool import Busy, Pool, Rates
from planner.service.question import OPENS, files_named, question_of, scenario_schema
from planner.service.worker import Worker

ROOT = Path(__file__).resolve().parent.parent
TINY = str(ROOT / "tests" / "data" / "tiny")
ONE = {"models": ["Small-8B"], "qps": 20, "min_quality": 0.5}
QUICK: dict[str, object] = {"workload": [ONE], "supply": {"gpus": ["GPU-80"]}}
PATIENT = {**QUICK, "solver": {"time_limit": "10min"}}  # no answer is cut short on a busy machine, where two would differ
QUESTIONS = {
    "one": QUICK,
    "two": {**PATIENT, "name": "both", "workload": [{**ONE, "name": "a", "slo": {"ttft_p99": "1s"}}, {**ONE, "name": "b", "lengths": "azure-2023-conv"}]},
    "none": {**PATIENT, "workload": [{**ONE, "qps": 2000}], "policy": {"budget": "1/h"}},
    "hours": {**PATIENT, "workload": [ONE, {"name": "batch", "models": ["Small-8B"], "requests_per_day": 50000, "deadline": "08:00"}]},
    "floor": {**PATIENT, "workload": [{"qps": 1, "min_quality": 0.99}]},
    "unknown": {"workload": [{"qps": 1, "models": ["No-Such"]}]},
}


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    start = Scenario.model_validate({"workload": [{"qps": 200}]})
    with TestClient(service(Settings(Terms((TINY,), seconds=600), workers=1), page(start)), base_url="http://127.0.0.1:8099") as found:
        yield found


# ---- answers


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_answer_is_the_commands_to_the_byte(name: str, client: TestClient, run: Run, tmp_path: Path) -> None:
    import rtoml

    file = tmp_path / "scenario.toml"
    file.write_text(rtoml.dumps(QUESTIONS[name]))
    status, out, err = run("-f", file, "--catalog", TINY, "--format", "json")
    reply = client.post("/plan", json=QUESTIONS[name])
    if status in (0, 3):  # 3: a plan whose search stopped before its proof
        assert (reply.status_code, reply.text) == (200, out)
        return
    assert reply.status_code == {1: 409, 2: 422}[status]
    assert reply.json()["error"] == err.strip().removeprefix("error: ")
    assert (reply.json().get("status") == "infeasible") == (status == 1)


def test_no_plan_says_what_would_make_one(client: TestClient) -> None:
    told = client.post("/plan", json=QUESTIONS["none"]).json()
    assert any("budget" in change for change in told["changes"]) and told["error"].startswith("infeasible: ")


def test_plans_and_questions_are_of_the_published_schemas(client: TestClient) -> None:
    schema, asked = client.get("/schema").json(), client.get("/schema/scenario").json()
    plan = client.post("/plan", json=QUICK).json()
    jsonschema.validate(plan, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**plan, "cost": None}, schema)
    assert asked == scenario_schema() and not set(OPENS) & asked["properties"].keys()
    assert client.get("/health").json()["status"] == "ok" and "/plan" in client.get("/openapi.json").json()["paths"]


def test_a_server_may_allow_less_time_than_the_question() -> None:
    catalog = load_catalog([TINY])
    assert answered(json.dumps(QUICK).encode(), catalog, Terms(seconds=0.0)).status == 504
    assert answered(json.dumps(QUICK).encode(), catalog, Terms(seconds=30.0)).status == 200


# ---- no files


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ({"catalog": TINY}, "catalog"),
        ({"catalog": [TINY]}, "catalog"),
        ({"tables": {"capacities": "/etc/passwd", "demand": "/etc/passwd"}}, "tables"),
        ({"workload": [{"qps": 1}, {"qps": 1, "lengths": "/etc/passwd"}]}, "workload.1.lengths"),
        ({"workload": [{"demand": "examples/demand.toml"}]}, "workload.0.demand"),
        ({"workload": [{"qps": 1, "profile": "/etc/hours.csv"}]}, "workload.0.profile"),
        ({"workload": [{"qps": 1, "profile": "//host/share/hours.toml"}]}, "workload.0.profile"),
    ],
)
def test_a_question_that_names_a_file_is_refused(content: dict[str, object], where: str, client: TestClient) -> None:
    reply = client.post("/plan", json=content)
    assert reply.status_code == 422
    assert reply.json()["error"].startswith(f"{where}: would open a file; questions over the network name no files (") and "\n" not in reply.json()["error"]


def test_every_field_that_opens_a_file_is_known_here() -> None:
    """Also one added later: what a flag calls a file or a folder is refused, but for tables that only the flag reads from one."""
    named = [a for a in askables() if a.flag.metavar in ("FILE", "DIR") or re.search(r"\b(CSV|TOML)\b", a.flag.help)]
    assert {a.flag.name for a in named} >= {"--catalog", "--capacities", "--demand", "--demand-file", "--lengths", "--profile", "--owned"}
    for a in named:
        name = a.path[-1]
        content: dict[str, object] = {"workload": [{name: "x.csv"}]} if a.path[0] == "workload" else {a.path[0]: {name: "x.csv"} if a.path[1:] else "x.csv"}
        if a.flag.name in ("--owned", "--offers", "--current"):
            with pytest.raises(ScenarioError, match=rf"supply\.{name}: "):
                question_of(json.dumps({"workload": [{"qps": 1}], **content}).encode())
        else:
            assert list(files_named(content)), a.flag.name


def test_a_shape_that_is_also_a_file_here_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = json.dumps({"workload": [{"qps": 1, "lengths": "azure-2023-conv"}]}).encode()
    assert question_of(body).scenario.workload[0].lengths
    monkeypatch.chdir(tmp_path)
    Path("azure-2023-conv").write_text("input_tokens,output_tokens,count\n9,9,9\n")
    with pytest.raises(ScenarioError, match=r"workload\.0\.lengths"):
        question_of(body)


# ---- refusals


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'"qps"',
        b"[" * 100_000,
        b'{"workload":' * 5_000 + b"1" + b"}" * 5_000,
        b'{"workload": [{"qps": NaN}]}',
        b'{"workload": [{"qps": ' + b"9" * 5_000 + b"}]}",
        b'{"workload": [{"qps": "many"}]}',
        b'{"workload": {"qps": 1}}',
        b'{"workload": [1]}',
        b'{"workload": [{"qps": 1, "lengths": 7, "demand": [], "profile": {}}]}',
        b'{"workload": [{"qps": 1}], "supply": {"owned": "x.toml"}}',
        b'{"workload": [{"qps": 1}], "objective": []}',
        b'{"workload": [{"qps": 1, "name": "\xff"}]}',
        b'{"workload": [{"qps": 1, "name": "\\ud800"}]}',
        b'{"workload": [{"qps": 1, "nmae": "x"}]}',
        b"{}",
    ],
)
def test_what_is_no_question_is_refused_in_one_line(body: bytes, client: TestClient) -> None:
    reply = client.post("/plan", content=body, headers={"Content-Type": "application/json"})
    assert reply.status_code == 422
    assert reply.json()["error"].strip() and "\n" not in reply.json()["error"] and "internal" not in reply.json()["error"] and len(reply.text) < 1000


def test_too_much_of_the_wrong_kind_or_for_another_host_reaches_no_solver(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Worker, "ask", lambda *_: pytest.fail("asked"))
    headers = {"Content-Type": "application/json"}
    assert client.post("/plan", content=b" " * (MOST_BYTES + 1), headers=headers).status_code == 413
    assert client.post("/plan", content=iter([b" " * 2**19] * 3), headers=headers).status_code == 413
    assert client.post("/plan", content=json.dumps(QUICK), headers={"Content-Type": "text/plain"}).status_code == 415
    assert client.post("/plan", json=QUICK, headers={"Host": "elsewhere.example"}).status_code == 421
    assert [client.get("/plan").status_code, client.get("/nothing").status_code, client.get("/../../etc/passwd").status_code] == [405, 404, 404]


def test_so_many_a_minute_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(pools, "monotonic", lambda: now[0])
    rates = Rates(per_minute=2)
    assert [rates.wait_s("a"), rates.wait_s("a"), rates.wait_s("a"), rates.wait_s("b")] == [0, 0, 30, 0]
    now[0] = 30.0
    assert [rates.wait_s("a"), rates.wait_s("a")] == [0, 30]
    monkeypatch.setattr(pools, "MOST_ADDRESSES", 10)
    for i in range(100):
        rates.wait_s(str(i))
    assert len(rates._seen) == 10


def test_more_than_may_wait_are_told_when_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()

    class Slow:
        def __init__(self, terms: Terms) -> None: ...

        def ask(self, body: bytes) -> Reply:
            go.wait(10)
            return Reply(200, body.decode())

        def end(self) -> None: ...

    async def stays() -> bool:
        return False

    async def leaves() -> bool:
        return True

    async def asked() -> list[object]:
        pool = Pool(Terms(), workers=1, most_waiting=2)
        first = [asyncio.create_task(pool.answer(str(i).encode(), leaves if i == 2 else stays)) for i in range(3)]
        await asyncio.sleep(0.05)
        with pytest.raises(Busy) as busy:
            await pool.answer(b"one more", stays)
        go.set()
        found = [(r.status, r.text) for r in await asyncio.gather(*first)]
        pool.end()
        return [busy.value.retry_s, pool.waiting, found[:2], found[2][0]]

    monkeypatch.setattr(pools, "Worker", Slow)
    assert asyncio.run(asked()) == [2, 0, [(200, "0"), (200, "1")], 499]


def test_busy_and_hasty_are_told_over_http(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def busy(*_: object) -> Reply:
        raise Busy(7)

    monkeypatch.setattr(Pool, "answer", busy)
    reply = client.post("/plan", json=QUICK)
    assert (reply.status_code, reply.headers["Retry-After"]) == (503, "7") and "wait already" in reply.json()["error"]
    monkeypatch.setattr(Rates, "wait_s", lambda *_: 3)
    reply = client.post("/plan", json=QUICK)
    assert (reply.status_code, reply.headers["Retry-After"]) == (429, "3")


# ---- processes


def test_a_process_that_dies_hangs_or_is_old_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    body, worker = json.dumps(QUICK).encode(), Worker(Terms((TINY,)))

    def process() -> int:
        return int(worker._process.pid or 0)

    try:
        assert worker.ask(body).status == 200
        os.kill(process(), signal.SIGKILL)
        assert worker.ask(body).status == 500
        assert worker.ask(body).status == 200
        before = process()
        monkeypatch.setattr(workers, "MOST_ANSWERS", 1)
        assert worker.ask(body).status == 200 and process() != before
        before = process()
        monkeypatch.setattr(workers, "GRACE_S", -30.0)
        assert worker.ask(body).status == 504 and process() != before
    finally:
        worker.end()


# ---- the page and the command


def test_the_page_asks_nothing_of_elsewhere_and_runs_nothing_of_a_name(client: TestClient) -> None:
    reply = client.get("/")
    assert "connect-src 'self'" in reply.headers["Content-Security-Policy"] and "[[" not in reply.text
    assert not re.findall(r"https?://|src=|@import|url\(", reply.text)
    hostile = page(Scenario.model_validate({"name": "</title><script>alert(1)</script>", "workload": [{"qps": 3, "name": "</script><b>"}]}))
    assert "<script>alert" not in hostile and "</script><b>" not in hostile
    asked = json.loads(hostile.split('id="start">')[1].split("</script>")[0])
    assert asked["rate"] == 3 and Scenario.model_validate(asked["scenario"]).workload[0].name == "</script><b>"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--catalog", "/nonexistent"], "/nonexistent: no such folder"),
        (["--longest", "soon"], "--longest: 'soon'"),
        (["--host", "192.0.2.1"], "192.0.2.1:8099: cannot listen"),
        (["-f", str(ROOT / "examples" / "own.toml")], "own.toml: cannot read"),
    ],
)
def test_what_cannot_be_served_is_one_line(words: list[str], error: str, run: Run) -> None:
    status, _, err = run("serve", *words)
    assert status == 2 and error in err.splitlines()[-1]


def test_another_host_than_this_machine_is_warned_of(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import uvicorn

    from planner import interrupts

    monkeypatch.setattr(uvicorn.Server, "run", lambda *_, **__: None)
    monkeypatch.setattr(interrupts, "over", lambda: None)
    assert "warning: anyone who reaches 0.0.0.0 can ask" in run("serve", "--host", "0.0.0.0", "--port", "0")[2]
    assert "warning" not in run("serve", "--port", "0")[2]


def test_the_command_serves_until_interrupted_and_leaves_no_process(tmp_path: Path) -> None:
    file = tmp_path / "start.toml"
    file.write_text(to_toml(Scenario.model_validate(QUICK)))
    command = [sys.executable, "-m", "planner", "serve", "--port", "0", "--workers", "1", "--catalog", TINY, "-f", str(file)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None and server.stdout is not None
        match = re.search(r"http://127\.0\.0\.1:\d+", server.stderr.readline())
        assert match
        reply = httpx.post(f"{match[0]}/plan", json=QUICK, timeout=60)
        assert reply.status_code == 200 and reply.json()["gpus_held"] == 1
        server.send_signal(signal.SIGINT)
        rest, out = server.stderr.read(), server.stdout.read()  # ends when no process holds them open
        assert (server.wait(20), rest, out) == (0, "", "")
