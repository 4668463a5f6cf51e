"""The benchmark of a deployment as a shell script: what it measures, what each run would tell, and the commands."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from planner.clean import plain
from planner.deploy.bench import BEYOND, TURNS, Bench, Run
from planner.deploy.doubt import Doubt
from planner.deploy.release import Release
from planner.deploy.said import counted, header
from planner.deploy.tools import Client
from planner.deploy.write import Written, comment
from planner.scenario.workload import Workload


@dataclass(frozen=True)
class Benchmark:
    """The script, and the files that it reads beside it."""

    script: str
    files: tuple[Written, ...]


def benchmark(release: Release, bench: Bench, client: Client, stem: str) -> Benchmark:
    """The script of one deployment for one tool. ``stem``: what the files beside it are called."""
    said = [*_about(bench, client), *_runs(bench)]
    lines = ["#!/usr/bin/env bash", *comment([*header(release)[:2], *said])]
    lines += ["set -euo pipefail", 'cd "$(dirname "$0")"', "export PYTHONHASHSEED=0  # vllm bench makes the text of a block from the hash of its id"]
    lines += ['REPLICA_URL="${REPLICA_URL:-http://localhost:8000}"  # one replica, nothing else asking it', ""]
    lines += ["# Warm-up: its result is thrown away", client.command(bench, bench.warm_up, stem), ""]
    for run in bench.runs:
        lines += _run(run, client.command(bench, run, stem))
    lines += [f"cat <<'{END}'", *_verdict(bench), END]
    lines += [f"echo {shlex.quote(line)}" for line in _afterwards(bench, client, stem)]
    files = tuple(Written(name, text, is_applied=False) for name, text in client.files(bench, stem).items())
    return Benchmark("\n".join(lines) + "\n", files)


END = "END-OF-VERDICT"


def _run(run: Run, command: str) -> list[str]:
    """A run; the one of the whole service only where its address is given."""
    load = f"{run.in_flight} in flight" if run.in_flight else f"{run.rate:.4g} requests/s, Poisson"
    about = f"# {run.name}: {load}, {run.requests} requests, about {_minutes(run.seconds)}"
    if run.url == "REPLICA_URL":
        return [about, command, ""]
    return [f"{about}; set SERVICE_URL to the address before all replicas", f'if [ -n "${{{run.url}:-}}" ]; then', f"  {command}", "fi", ""]


def _about(bench: Bench, client: Client) -> list[str]:
    """What is measured, and how that is what the plan assumes."""
    s, plan = bench.served, bench.stream.plan
    asked = [plan.scenario.workload[w] for w, _, _ in bench.stream.shares]
    found = [f"Measures {s.name}: {s.deployment.checkpoint} on {s.deployment.gpu} {s.deployment.layout} with {s.deployment.engine}."]
    found += [f"{w.name}: {_lengths(w)}." for w in asked]
    if s.deployment.busiest is not None:
        found.append(f"Loads are those of its busiest hour, {s.deployment.busiest} from the plan's start.")
    if s.deployment.output_factor > 1:
        found.append(
            f"Answers are {s.deployment.output_factor:g} times as long, for reasoning; TTFT here is to the first token of that, in the plan of the answer."
        )
    if bench.stream.cached:
        shared = f"{bench.stream.cached:.3g} of prompt tokens are found in the prefix cache, from {bench.prefixes} prefixes that the warm-up fills"
        found.append(f"{shared}. A benchmark without them measures another system: check the engine's own hit counters.")
    if s.deployment.speculative:
        found.append("Tokens are drafted: how many are accepted depends on the text, and prompts here are random. Try your own traffic before you count on it.")
    left_out = sum(r.too_long for r in bench.requests.values())
    if left_out:
        found.append(f"{left_out} of the drawn requests are longer than the context of {bench.stream.context} tokens and left out, as the engine refuses them.")
    found.append(
        f"Requests of a run: {BEYOND} beyond the strictest percentile of the limits, and {TURNS} times as many as are in flight. "
        "Its rank is then known to a fifth of what lies beyond (p95: between p94 and p96), 19 times in 20."
    )
    found += [*client.remarks, "A client that cannot keep up looks like a slow engine: watch its CPU."]
    return [plain(x) for x in found]


def _lengths(w: Workload) -> str:
    cv = w.spreads
    how = "joint lengths as given" if w.lengths else f"lognormal, CV {cv[0]:.3g} and {cv[1]:.3g}"
    return f"{w.input_tokens:g} tokens in, {w.output_tokens:g} out in the mean, {how}"


def _runs(bench: Bench) -> list[str]:
    """What each run would tell."""
    found = []
    for i, run in enumerate(bench.runs):
        where = "one replica" if run.url == "REPLICA_URL" else "the whole deployment behind its router"
        load = f"{run.in_flight} requests in flight" if run.in_flight else f"{run.rate:.4g} requests/s"
        found.append(f"Run {i + 1} ({run.name}): {where}, {load}.")
        found += [f"  {t}" for t in run.tells]
        found += [f"  {line}" for line in _decides(bench.doubt)] if run.name == "in-flight" and bench.doubt else []
    if bench.doubt is None:
        found.append("The catalogue does not have this deployment as planned, or nothing is in flight: what a measurement would decide is not known.")
    return [plain(x) for x in found]


def _decides(doubt: Doubt) -> list[str]:
    at = f"TPOT {doubt.percentile}"
    sure = f"planned for {doubt.planned_ms:.4g} ms, to be {doubt.confidence:.0%} sure; the evidence's median says {doubt.median_ms:.4g} ms"
    return [
        f"{at}: {sure}. Steps of this pace decide how many replicas carry the traffic within the limits, set as they are:",
        *_table(doubt),
        "The measured pace is taken as it is. A plan made anew from it adds what single measurements are off by (--confidence), and may set engines otherwise.",
    ]


def _table(doubt: Doubt) -> list[str]:
    """One line for each number of replicas, and what is beyond."""
    found, last = [], None
    for t in doubt.thresholds:
        planned = " (as planned)" if t.replicas == doubt.planned_replicas else ""
        found.append(f"TPOT {doubt.percentile} up to {t.tpot_ms:.4g} ms: {counted(t.replicas, 'replica')}{planned}; steps x{t.factor:.3f}")
        last = t
    return (
        [*found, f"above {last.tpot_ms:.4g} ms: plan again with what was measured"]
        if last
        else [f"at any pace from half to twice the planned, {counted(doubt.planned_replicas, 'replica')} carry the traffic"]
    )


def _verdict(bench: Bench) -> list[str]:
    if bench.doubt is None:
        return ["Compare with the plan: plan validate, after plan import bench."]
    return [f"What run in-flight ({bench.doubt.in_flight} in flight on one replica) decides:", *_table(bench.doubt)]


def _afterwards(bench: Bench, client: Client, stem: str) -> list[str]:
    """How the results come into the planner."""
    results = " ".join(shlex.quote(client.result.format(stem=stem, run=r.name)) for r in bench.runs if r.url == "REPLICA_URL")
    told = bench.labels | ({"model": bench.served.deployment.checkpoint} if bench.served.is_renamed else {})
    flags = " ".join(f"--{k} {shlex.quote(v)}" for k, v in told.items())
    return [f"Then: plan import bench {results} -o measured {flags}", "and plan again with --catalog measured"]


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
