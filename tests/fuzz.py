"""Hands the command mutated inputs of every kind and watches what must never happen: an internal error, a traceback, a hang, a gigabyte, half a file.

    python tests/fuzz.py --runs 10000 --seed 1 [--kind scenario] [--only 4711]

Each run is determined by seed and number. Runs happen in forked children, so that a hang or a death ends only itself.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import os
import re
import resource
import select
import shutil
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fuzz_inputs import KINDS, ROOT, SERVED, TINY, Case, Inputs, case_of

HANG_S, MOST_KIB = 20.0, 2**20  # a run must not work longer, nor hold more than 1 GiB
PATIENCE = 6  # times as long by the clock, on a busy machine
BATCH = 200  # runs of one child
UNSEEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


@dataclass(frozen=True)
class Outcome:
    """What one run did; ``problem`` is empty where it did what it may."""

    number: int
    kind: str
    status: int
    seconds: float
    kib: int
    problem: str


def _build_once() -> None:
    """Commands and shipped cards are the same in every run."""
    import typer.main

    from planner.catalog import cards, load

    typer.main.get_command = cache(typer.main.get_command)
    shipped = cache(cards.read_card)
    vars(load)["read_card"] = lambda path: (shipped if path.is_relative_to(ROOT / "models") else cards.read_card)(path)


# ---- running and judging


def run_one(case: Case) -> tuple[int, str, str, str]:
    """(exit status, standard output, standard error, traceback of what escaped)."""
    if case.words[0] == SERVED:
        return served(Path(case.words[1]).read_bytes())
    from planner.cli.main import main

    out, err = io.StringIO(), io.StringIO()
    status, escaped = -1, ""
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(case.words)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            escaped = traceback.format_exc()
    return status, out.getvalue(), err.getvalue(), escaped


@cache
def _tiny() -> Any:
    from planner import load_catalog

    return load_catalog([TINY])


def served(body: bytes) -> tuple[int, str, str, str]:
    """The same of a question to the service, with the exit status that the command would have."""
    from planner.service.answer import Terms, answered

    try:
        reply = answered(body, _tiny(), Terms((str(TINY),), seconds=5.0))
    except BaseException:
        return -1, "", "", traceback.format_exc()
    told = json.loads(reply.text)
    status = {200: 0, 409: 1, 422: 2, 500: 4, 504: 4}[reply.status]
    return (0, reply.text, "", "") if not status else (status, "", f"error: {told['error']}\n", "")


def judged(case: Case, status: int, out: str, err: str, escaped: str) -> str:
    """What must not happen, or ""."""
    if escaped or "Traceback" in err:
        return f"traceback: {(escaped or err).strip().splitlines()[-1]}"
    if "internal error" in err or "please report" in err:
        return err.strip()
    if status not in range(5):
        return f"exit status {status}"
    lines = [line for line in err.splitlines() if not line.startswith("note: ")]
    if status in (2, 4) and (out or len(lines) != 1 or not lines[0].startswith("error: ")):
        return f"not one line: {lines[:3]} after {out[:60]!r}"
    if "Warning" in err:
        return f"a library's warning: {lines[0]}"
    if UNSEEN.search(err) or UNSEEN.search(out):
        return f"unseen characters in {'errors' if UNSEEN.search(err) else 'output'}"
    made = [p.name for name in ("made", "mine") if (case.folder / name).is_dir() for p in (case.folder / name).iterdir()]
    if made and status in (1, 2, 4):
        return f"half-written: {made} with status {status}"
    written = sorted((case.folder / "out").iterdir()) if (case.folder / "out").is_dir() else []
    if written and (status in (2, 4) or len(written) > 1 or not written[0].stat().st_size):
        return f"half-written: {[w.name for w in written]} with status {status}"
    text = written[0].read_text() if written else out
    if "json" in case.words and status in (0, 3) and case.words[0] not in ("check", "import") and "--format" in case.words and text:
        try:
            json.loads(text)
        except ValueError as error:
            return f"no JSON: {error}"
    return ""


def child(seed: int, first: int, count: int, kind: str, inputs: Inputs, pipe: int, place: Path) -> None:
    """Runs one batch, telling each outcome through the pipe."""
    resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, 8 * 2**30))
    os.environ["XDG_CACHE_HOME"] = str(place)
    _build_once()
    for number in range(first, first + count):
        folder = place / str(number)
        folder.mkdir()
        os.write(pipe, f"{json.dumps({'begun': number})}\n".encode())
        case = case_of(seed, number, kind, inputs, folder)
        began = time.process_time()
        status, out, err, escaped = run_one(case)
        seconds, kib = time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        problem = judged(case, status, out, err, escaped)
        if problem:
            problem += f"\n    {' '.join(map(repr, case.words))}"
        told = {"number": number, "kind": case.kind, "status": status, "seconds": seconds, "kib": kib, "problem": problem}
        os.write(pipe, f"{json.dumps(told)}\n".encode())
        shutil.rmtree(folder)
        if kib > MOST_KIB:
            return


def lines_of(pipe: int, limit: float) -> Iterator[dict[str, Any] | None]:
    """What a child tells; None where it is silent for longer than the limit."""
    rest = b""
    while True:
        if not select.select([pipe], [], [], limit)[0]:
            yield None
            return
        some = os.read(pipe, 65536)
        if not some:
            return
        *whole, rest = (rest + some).split(b"\n")
        yield from (json.loads(line) for line in whole)


def campaign(runs: int, seed: int, kind: str = "", first: int = 0, seconds: float = math.inf, patience: float = PATIENCE * HANG_S) -> Iterator[Outcome]:
    """Outcomes of runs first, first + 1, …; stops early when the seconds are over."""
    inputs, end, number = Inputs(), time.monotonic() + seconds, first
    while number < first + runs and time.monotonic() < end:
        place, (reading, writing) = Path(tempfile.mkdtemp(prefix="fuzz")), os.pipe()
        pid = os.fork()
        if not pid:
            os.close(reading)
            with contextlib.suppress(BaseException):
                child(seed, number, min(BATCH, first + runs - number), kind, inputs, writing, place)
            os._exit(0)
        os.close(writing)
        begun = number
        for told in lines_of(reading, patience):
            if told is None:
                os.kill(pid, signal.SIGKILL)
                break
            if "begun" in told:
                begun = told["begun"]
                continue
            heavy = "more than 1 GiB" if told["kib"] > MOST_KIB else ""
            slow = f"{told['seconds']:.0f} s" if told["seconds"] > HANG_S else ""
            yield Outcome(**{**told, "problem": told["problem"] or heavy or slow})
            number = told["number"] + 1
            if time.monotonic() > end:
                os.kill(pid, signal.SIGKILL)
                break
        _, ended = os.waitpid(pid, 0)
        os.close(reading)
        if begun == number and time.monotonic() <= end and number < first + runs:  # it did not come back
            how = "hang" if os.WIFSIGNALED(ended) and os.WTERMSIG(ended) == signal.SIGKILL else f"died: {ended}"
            yield Outcome(number, kind, -1, patience, 0, how)
            number += 1
        shutil.rmtree(place, ignore_errors=True)


def main() -> None:
    """Runs a campaign and prints counts and problems."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--kind", default="", choices=["", *KINDS])
    parser.add_argument("--seconds", type=float, default=math.inf)
    parser.add_argument("--only", type=int, help="run this one here, and show all")
    asked = parser.parse_args()
    if asked.only is not None:
        folder = Path(tempfile.mkdtemp(prefix="fuzz"))
        case = case_of(asked.seed, asked.only, asked.kind, Inputs(), folder)
        print(case.words)
        status, out, err, escaped = run_one(Case(case.kind, [*case.words, *(["--debug"] if case.words[0].startswith("-") else [])], folder))
        print(out[-3000:], err, escaped, f"status {status}", folder, sep="\n")
        return
    found = []
    for o in campaign(asked.runs, asked.seed, asked.kind, asked.first, asked.seconds):
        found.append(o)
        if o.problem:
            print(f"{o.number} {o.kind} {o.seconds:.1f} s {o.kib // 1024} MiB: {o.problem}", flush=True)
    by_kind = Counter(o.kind for o in found)
    for kind, n in sorted(by_kind.items()):
        some = [o for o in found if o.kind == kind]
        statuses = dict(sorted(Counter(o.status for o in some).items()))
        print(f"{kind:10} {n:6} runs, status {statuses}, longest {max(o.seconds for o in some):.1f} s, {sum(bool(o.problem) for o in some)} problems")
    print(f"{len(found)} runs, {sum(bool(o.problem) for o in found)} problems, at most {max((o.kib for o in found), default=0) // 1024} MiB")


if __name__ == "__main__":
    main()
