"""The smallest set of benchmark runs that would settle a deployment: at which load, for how many requests, and what each would tell."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil

from planner.bench.setup import TIMES_DP
from planner.catalog.catalog import Catalog
from planner.check.case import Case, rebuild
from planner.deploy.doubt import PERCENTILES, Doubt, at_rate, doubt
from planner.deploy.release import Release, Served
from planner.deploy.trace import Prefixes, Requests, Stream, blocks_of, draw, stream, to_jsonl, whole_prefixes
from planner.errors import PlannerError
from planner.performance.capacity import Service

BEYOND = 100  # requests that must lie beyond a percentile for it to be known: its rank is then known to a fifth of what is beyond it
TURNS = 10  # times as many requests as are in flight, so that filling and draining is a tenth of them
MOST = 50_000  # requests of a run
WARM_UP = "warmup"
WARM = 64  # requests at least before anything is measured
CONTEXT_FLAGS = {"vllm": "--max-model-len", "sglang": "--context-length", "trtllm": "--max_seq_len"}


@dataclass(frozen=True)
class Run:
    """One run. ``in_flight``: a closed loop of so many requests; else ``rate`` (requests/s), Poisson. ``url``: the variable with the address."""

    name: str
    url: str
    requests: int
    seconds: float  # about
    in_flight: int = 0
    rate: float = 0.0
    tells: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bench:
    """The runs of one deployment, and the requests that they send."""

    served: Served
    stream: Stream
    runs: tuple[Run, ...]
    doubt: Doubt | None
    warm: int  # requests of the warm-up, beside one for each prefix
    prefixes: int

    @property
    def labels(self) -> dict[str, str]:
        """What a result file must say of the engine for `plan import bench` to take it; TP and data parallel as the engine is started."""
        d = self.served.deployment
        found = {"gpu": d.gpu, "tp": str(d.tp // d.dp if d.engine in TIMES_DP else d.tp), "engine": d.engine, "precision": d.precision}
        sizes = {"pp": d.pp, "dp": d.dp, "ep": d.ep}
        return found | {k: str(v) for k, v in sizes.items() if v > 1}

    @cached_property
    def requests(self) -> dict[str, Requests]:
        """Of the warm-up and of each run, by name."""
        counts = {WARM_UP: self.warm} | {r.name: r.requests for r in self.runs}
        return {name: draw(self.stream, n, seed) for seed, (name, n) in enumerate(counts.items())}

    @cached_property
    def traces(self) -> dict[str, str]:
        """The same as traces. No two have a prompt in common but its prefix, so nothing else is found in a cache; the warm-up fills the prefixes first."""
        drawn, block, rates = self.requests, self.stream.block, {r.name: r.rate for r in self.runs}
        prefixes = Prefixes(self.prefixes, max(int(r.prompts.max(initial=0)) for r in drawn.values()) // block + 1)
        first, prompts = prefixes.ids, {}
        for name, asked in drawn.items():
            prompts[name] = blocks_of(asked, block, prefixes, first)
            first = max((ids[-1] + 1 for ids in prompts[name]), default=first)
        found = {n: to_jsonl(asked, prompts[n], rates.get(n, 0.0), seed) for seed, (n, asked) in enumerate(drawn.items())}
        filling = to_jsonl(*whole_prefixes([ids for several in prompts.values() for ids in several], block, prefixes), 0.0, 0)
        return found | {WARM_UP: filling + found[WARM_UP]}

    @property
    def warm_up(self) -> Run:
        """The warm-up as a run at the load of the first."""
        first = self.runs[0]
        return Run(WARM_UP, first.url, self.traces[WARM_UP].count("\n"), 0.0, in_flight=max(first.in_flight, 1))


def bench(release: Release, index: int, catalog: Catalog) -> Bench:
    """The runs of one deployment. Raises PlannerError for one that serves nothing, or whose engine takes hardly any of its requests."""
    plan, served = release.plan, release.served[index]
    if not max(served.replicas, default=0):
        raise PlannerError("has no replicas, so there is nothing to measure", f"deployment {served.name}")
    context = served.commands[0].value(CONTEXT_FLAGS[served.deployment.engine])
    if context is None or not context.isdigit():
        raise PlannerError("its start command names no context", f"deployment {served.name}", "plan check tells what does not hold")
    if not any(r.deployment == index and r.share > 0 for w in plan.workloads for r in w.routing):
        raise PlannerError("serves no workload, so there is nothing to measure", f"deployment {served.name}")
    try:
        asked = stream(plan, index, int(context))
    except LookupError:
        raise PlannerError("its parts do not fit together", "the plan", "plan check tells which") from None
    replicas = max(served.replicas)
    limits = [s.percentile for w, _, _ in asked.shares for s in asked.plan.workloads[w].slo]
    each, needed = _each(asked), ceil(BEYOND / (1 - max(limits, default=95.0) / 100))
    runs = _runs(asked, replicas, catalog, needed)
    return Bench(served, asked, runs, doubt(asked, replicas, catalog), max(WARM, each), min(each, 256) if asked.cached else 1)


def _each(asked: Stream) -> int:
    """Requests in flight on one replica."""
    return max(round(asked.deployment.in_flight_per_replica or 1.0), 1)


def _runs(asked: Stream, replicas: int, catalog: Catalog, needed: int) -> tuple[Run, ...]:
    """One replica at its planned load; one alone under a Poisson stream; all of them behind their router."""
    plan, each = asked.plan, _each(asked)
    rate = sum(r.qps * w.burst_factor for w in plan.workloads for r in w.routing if r.deployment == asked.index)
    is_closed = all(plan.scenario.workload[w].is_closed for w, _, _ in asked.shares)
    count = _count(needed, each)
    case = rebuild(plan, plan.scenario, catalog)
    alone = rate / replicas * _relief(case, asked.index)
    runs = [Run("in-flight", "REPLICA_URL", count, count / max(alone, 1e-9), in_flight=each)]
    if not is_closed:
        runs.append(Run("rate", "REPLICA_URL", count, count / max(alone, 1e-9), rate=alone, tells=_alone(case, asked, alone)))
    if replicas > 1:
        many = _count(needed, each * replicas)
        load = {"in_flight": each * replicas} if is_closed else {}
        runs.append(Run("service", "SERVICE_URL", many, many / max(rate, 1e-9), rate=0.0 if is_closed else rate, tells=_together(asked), **load))
    return tuple(runs)


def _count(needed: int, in_flight: int) -> int:
    return min(max(needed, TURNS * in_flight), MOST)


def _relief(case: Case, index: int) -> float:
    """Capacity of a replica alone over its capacity among the others: at its share of the rate times this it is as loaded as planned."""
    built = case.built[index]
    if built is None or len(built.serves) > 1 or not case.capacity(index, built.serves[0]):
        return 1.0
    return min(1.0, built.fits[built.serves[0]].single / case.capacity(index, built.serves[0]))


def _alone(case: Case, asked: Stream, rate: float) -> tuple[str, ...]:
    """What one replica alone is predicted to do at the plan's load."""
    if case.built[asked.index] is None or (asked.deployment.decode_engines and len(asked.shares) > 1):
        return ()
    found = at_rate(case, asked, rate)
    return (
        f"Predicted: {_latencies(found)}.",
        "At the plan's SLO load, without others to even its queue out. TTFT far above this while run 1 is as planned: prompts take longer than predicted.",
    )


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def _latencies(found: Service) -> str:
    return ", ".join(f"{n} p95 {_time(float(v['p95'][0]))}" for n, v in (("TTFT", found.ttft_s), ("TPOT", found.tpot_s), ("E2E", found.e2e_s)))


def _together(asked: Stream) -> tuple[str, ...]:
    """What the whole deployment must do, and what it is predicted to."""
    found = []
    for w in (asked.plan.workloads[i] for i, _, _ in asked.shares):
        limits = ", ".join(f"{s.metric.upper()} p{s.percentile:g} {s.limit_ms:g} ms" for s in w.slo)
        found.append(f"Limits of {w.name}: {limits or 'none'}.")
        if w.predicted:
            at = [(s.metric, PERCENTILES.get(s.percentile)) for s in w.slo]
            said = [f"{m.upper()} {p} {_time(getattr(part, p) / 1e3)}" for m, p in at if p and (part := getattr(w.predicted, f"{m}_ms", None))]
            found.append(f"Predicted{' (the slowest of its deployments)' if len(w.routing) > 1 else ''}: {', '.join(said) or 'nothing of them'}.")
    return (*found, "Limits missed here while runs on one replica are as planned: the router spreads requests unevenly; more replicas do not cure that.")
