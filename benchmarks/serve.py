"""How `plan serve` holds: so many clients on loopback ask at once for a while; every answer is compared with the command's.

    python benchmarks/serve.py [--clients 50] [--seconds 120] [--workers 2]

Each client asks, reads its answer, and asks another of a few questions (one without a plan, one unusable); who has asked is still answered
when the time is over. Memory is that of the server and its
processes together, read once a second; what the first third of the time needed at most is compared with the last. Needs Linux. Prints a table
and writes benchmarks/results/serve.json; exits 1 on any error or other answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

import httpx
import rtoml
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
COMMAND = [sys.executable, "-m", "planner"]
QUESTIONS: dict[str, dict[str, object]] = {
    "headline": {"workload": [{"qps": 200, "min_quality": 0.8}]},
    "half": {"workload": [{"qps": 100, "min_quality": 0.8}]},
    "strict": {"workload": [{"qps": 50, "min_quality": 0.7, "slo": {"ttft_p99": "500ms"}}]},
    "one GPU": {"workload": [{"qps": 20, "min_quality": 0.6}], "supply": {"gpus": ["H100-SXM-80GB"]}},
    "shape": {"workload": [{"qps": 30, "min_quality": 0.7, "lengths": "azure-2023-conv"}]},
    "two": {
        "workload": [{"name": "chat", "qps": 40, "min_quality": 0.7}, {"name": "code", "qps": 10, "min_quality": 0.6, "input_tokens": 4000}],
        "supply": {"gpus": ["H100-SXM-80GB"]},
    },
    "none": {"workload": [{"qps": 1, "min_quality": 0.99}]},
    "unusable": {"workload": [{"qps": "many"}]},
}
LONGEST = "10min"  # for any answer: one that a busy machine cuts short is another
STATUS = {0: 200, 3: 200, 1: 409, 2: 422}  # of the command, and of HTTP


@dataclass
class Seen:
    """What clients met: seconds of each answer, and what was wrong."""

    seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def patient(content: dict[str, object]) -> dict[str, object]:
    """A question with time enough."""
    return {**content, "solver": {"time_limit": LONGEST}}


def expected(content: dict[str, object]) -> tuple[int, str]:
    """HTTP status and text that the command's answer makes; of an error the line alone."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(rtoml.dumps(patient(content)))
        file.flush()
        ran = subprocess.run([*COMMAND, "-f", file.name, "--format", "json"], capture_output=True, text=True)
        line = re.sub(rf"^{re.escape(file.name)}:\d+: ", "", ran.stderr.strip().removeprefix("error: "))
    return STATUS[ran.returncode], ran.stdout or line


def told(reply: httpx.Response) -> tuple[int, str]:
    """The same of a reply."""
    if reply.status_code == 200:
        return 200, reply.text
    return reply.status_code, re.sub(r"^workload[\w.]*: ", "", reply.json()["error"])


def differing(known: str, got: str) -> str:
    """The first lines of two texts that are not the same."""
    return next((f"{a.strip()} | {b.strip()}" for a, b in zip_longest(known.splitlines(), got.splitlines(), fillvalue="") if a != b), "")


async def client(url: str, first: int, until: float, known: dict[str, tuple[int, str]], seen: Seen) -> None:
    names = list(QUESTIONS)
    async with httpx.AsyncClient(timeout=600) as session:
        at = first
        while time.monotonic() < until:
            name, begun = names[at % len(names)], time.monotonic()
            at += 1
            try:
                answer = told(await session.post(f"{url}/plan", json=patient(QUESTIONS[name])))
            except httpx.HTTPError as error:
                seen.wrong.append(f"{name}: {type(error).__name__}")
                continue
            seen.seconds.append(time.monotonic() - begun)
            if answer != known[name]:
                seen.wrong.append(f"{name}: {answer[0]} {differing(known[name][1], answer[1])}")


def memory_mib(pid: int) -> float:
    """Resident memory of a process and of those it started."""
    found = 0.0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        except OSError:
            continue
        if pid in (int(lines["Pid"]), int(lines["PPid"])) and "VmRSS" in lines:
            found += int(lines["VmRSS"].split()[0]) / 1024
    return found


async def watched(pid: int, found: list[float]) -> None:
    while True:
        found.append(memory_mib(pid))
        await asyncio.sleep(1)


async def run(url: str, pid: int, clients: int, seconds: float, known: dict[str, tuple[int, str]]) -> tuple[Seen, list[float], float]:
    seen, memory, begun = Seen(), list[float](), time.monotonic()
    watch = asyncio.create_task(watched(pid, memory))
    await asyncio.gather(*(client(url, i, begun + seconds, known, seen) for i in range(clients)))
    watch.cancel()
    return seen, memory, time.monotonic() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--workers", type=int, default=min(4, os.cpu_count() or 1))
    asked = parser.parse_args()
    known = {name: expected(content) for name, content in QUESTIONS.items()}
    command = [*COMMAND, "serve", "--port", "0", "--workers", str(asked.workers), "--rate", "100000", "--longest", LONGEST]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            match = re.search(r"http://\S+", server.stderr.readline())
            assert match
            seen, memory, took = asyncio.run(run(match[0], server.pid, asked.clients, asked.seconds, known))
        finally:
            server.send_signal(signal.SIGINT)
        status = server.wait(30)
    ordered, third = sorted(seen.seconds), max(1, len(memory) // 3)
    found: dict[str, float] = {
        "clients": asked.clients,
        "seconds": round(took, 1),
        "workers": asked.workers,
        "answers": len(ordered),
        "wrong": len(seen.wrong),
        "answers_per_s": round(len(ordered) / took, 2),
        "p50_s": round(ordered[len(ordered) // 2], 2),
        "p95_s": round(ordered[int(0.95 * (len(ordered) - 1))], 2),
        "mib_first_third": round(max(memory[:third])),
        "mib_last_third": round(max(memory[-third:])),
        "exit_status": status,
    }
    table = Table("what", "is")
    for name, value in found.items():
        table.add_row(name, f"{value:g}")
    Console().print(table)
    for line in seen.wrong[:10]:
        print(line)
    (RESULTS / "serve.json").write_text(json.dumps(found, indent=1) + "\n")
    raise SystemExit(1 if seen.wrong or status else 0)


if __name__ == "__main__":
    main()
