"""The public simulate: a plan, the requests that come, and what happens to replicas; what users see then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from planner.catalog.catalog import Catalog
from planner.catalog.load import load_catalog
from planner.errors import PlannerError
from planner.figures import digits
from planner.result.plan import Plan
from planner.scenario.records import Scenario
from planner.simulation import results
from planner.simulation.failures import changes
from planner.simulation.rebuild import Deployed, deployed, lengths_of, refuse_broken, scenario_of
from planner.simulation.records import ROUTERS
from planner.simulation.results import Simulation
from planner.simulation.state import BATCHES, FRAMES, NO_SESSIONS, Running, Sessions
from planner.simulation.stream import Lengths, Poisson, Quiet, RecordedTrace, RequestBlock, Stream, in_own_tokens, merged

REQUESTS = 200_000
WARM_UP = 0.1  # share of Poisson requests that is not counted: the fleet starts empty
DRAWN = 1 << 18  # lengths that sessions ask for in turn, over and over


@dataclass(frozen=True)
class Conditions:
    """How a plan is simulated: the router, the confidence of step times, what random numbers start from, and what fails."""

    router: str
    confidence: float
    seed: int
    failures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fed:
    """What was simulated of a stream: the deployments after it, and the seconds in which requests were counted (those of sessions apart)."""

    running: tuple[Running, ...]
    counted_s: float
    last_s: float
    session_s: float = 0.0


def simulate(
    plan: Plan, catalog: Catalog | None = None, *, traces: Mapping[str, RequestBlock] | None = None, requests: int = REQUESTS, seed: int = 0,
    burst: float = 1.0, failures: Sequence[str] = (), median: bool = False, router: str = "",
) -> Simulation:  # fmt: skip
    """Simulates a plan, step by step, with step times at the plan's confidence (median: as expected).

    traces: requests by the name of their workload; others come as a Poisson stream at their peak rate (mean x burst factor) for as long, or, where
    requests in flight are what is asked, from so many sessions, each asking again as soon as it is answered. Without any, about so many requests.
    burst: everything arrives so many times as fast, or from so many times the sessions.
    failures: "replica@60s", "instance:2@10min", "zone@1h", "spot@1h" (failures.py); what failed is back after the
    policy's startup_lead. Raises PlannerError for a plan that cannot be simulated.
    """
    scenario = scenario_of(plan)
    if plan.periods:
        raise PlannerError("a plan by the hour is simulated hour by hour", "", "plan simulate, or planner.simulation.hours.simulate_hours")
    refuse_broken(plan)
    catalog = catalog or load_catalog(scenario.catalog)
    run = Conditions(router or scenario.policy.router, 0.5 if median else scenario.policy.confidence, seed, tuple(failures))
    fleet = deployed(plan, scenario, catalog, run.confidence)
    many = _sessions(plan, traces or {}, burst)
    stream, words = _stream(plan, traces or {}, requests, seed, burst, many)
    lost = changes(failures, plan, fleet, catalog)
    warm_up = 0.0 if isinstance(stream, RecordedTrace) else WARM_UP
    sessions = _shared_out(many, fleet, [lengths_of(w) for w in scenario.workload], (max(warm_up, 1e-9) * stream.seconds, stream.seconds), seed)
    fleet = tuple(replace(d, changes=tuple(c), sessions=s) for d, c, s in zip(fleet, lost, sessions, strict=True))
    return outcome(plan, scenario, feed(fleet, stream, run.router, seed, warm_up), run, plan.cost.usd_per_hour - plan.cost.api_usd_per_hour, words)


def feed(fleet: Sequence[Deployed], stream: Stream, router: str, seed: int = 0, warm_up: float = 0.0) -> Fed:
    """Sends a stream through deployments, each with sessions of its own; each gets its share of every workload, drawn at random."""
    if router not in ROUTERS:
        raise PlannerError(f"unknown router '{router}'", "--router", f"one of {', '.join(ROUTERS)}")
    width = max(stream.seconds, 1e-9) / FRAMES
    running = tuple(Running(d.engine, d.replicas, router, seed, width, d.changes, sessions=d.sessions) for d in fleet)
    shares = np.cumsum([d.shares for d in fleet], axis=0)  # [D, W]
    rng = np.random.default_rng((seed, 1))
    warm, done, first, last = int(warm_up * stream.count), 0, 0.0, 0.0
    for block in stream.blocks():
        number = done + np.arange(len(block))
        batch = np.where(number < warm, -1, (number - warm) * BATCHES // (stream.count - warm))
        if done <= warm < done + len(block):
            first = float(block.arrival_s[warm - done])
        done, last = done + len(block), float(block.arrival_s[-1])
        draw = rng.random(len(block)) if len(fleet) > 1 else None
        for i, one in enumerate(running):
            if draw is None:
                one.feed(block.in_own_tokens(fleet[i].tokens), batch)
                continue
            low = shares[i - 1][block.workload] if i else 0.0
            mine = (draw >= low) & (draw < shares[i][block.workload])
            one.feed(block.take(mine).in_own_tokens(fleet[i].tokens), batch[mine])
    for one in running:
        one.finish()
    begin, end = fleet[0].sessions.counted_s if fleet else (0.0, 0.0)
    return Fed(running, max(last - first, 1e-9), max(last, end), end - begin)


def _sessions(plan: Plan, traces: Mapping[str, RequestBlock], burst: float) -> list[int]:
    """Sessions of each workload: the requests in flight that are asked for, in whole ones; none of those that come as a stream."""
    return [max(round(w.demand.value * w.burst_factor * burst), 1) if w.demand.kind == "concurrency" and w.name not in traces else 0 for w in plan.workloads]


def _shared_out(many: Sequence[int], fleet: Sequence[Deployed], lengths: Sequence[Lengths], counted_s: tuple[float, float], seed: int) -> list[Sessions]:
    """The sessions of each deployment by its shares of the workloads, rounded so that none is lost; they stay there."""
    if not any(many):
        return [NO_SESSIONS] * len(fleet)
    bounds = np.rint(np.cumsum([np.array(d.shares) * many for d in fleet], axis=0)).astype(np.int64)  # [D, W]
    counts = np.diff(bounds, axis=0, prepend=0)
    rng = np.random.default_rng((seed, 4))
    drawn = np.stack([np.stack(draw(rng, DRAWN if n else 1), axis=1) if n else np.ones((DRAWN, 2), np.int64) for draw, n in zip(lengths, many, strict=True)])
    found = []
    for row, d in zip(counts, fleet, strict=True):
        asked = drawn.copy()
        asked[:, :, 0] = in_own_tokens(drawn[:, :, 0], np.array(d.tokens)[:, None])
        found.append(Sessions(tuple(row.tolist()), asked, counted_s))
    return found


def _stream(plan: Plan, traces: Mapping[str, RequestBlock], requests: int, seed: int, burst: float, many: Sequence[int]) -> tuple[Stream, str]:
    """The requests that come by themselves, and all of them in words."""
    names = [w.name for w in plan.workloads]
    unknown = [n for n in traces if n not in names]
    if unknown:
        raise PlannerError(f"the plan has no workload '{unknown[0]}'", "--trace", f"one of {', '.join(names)}")
    if not burst > 0:
        raise PlannerError(f"must be above 0, got {burst:g}", "--burst")
    rates = [0.0 if n else w.qps * w.burst_factor * burst for w, n in zip(plan.workloads, many, strict=True)]
    lengths, faster = [lengths_of(w) for w in plan.scenario.workload], f", {burst:g} times as fast" if burst != 1 else ""
    closed = f"{sum(many):,} sessions, each asking again as soon as it is answered" if any(many) else ""
    if not traces:
        if requests < 1:
            raise PlannerError("there are no requests", "--requests")
        seconds = requests / sum(w.qps * w.burst_factor * burst for w in plan.workloads)
        if not any(rates):
            return Quiet(seconds), closed
        beside = f", and {closed}" if closed else ""
        return Poisson(rates, lengths, max(round(sum(rates) * seconds), 1), seed), f"Poisson at {digits(sum(rates))} req/s{faster}{beside}"
    parts = [replace(t, arrival_s=t.arrival_s / burst, workload=np.full(len(t), names.index(n))) for n, t in traces.items()]
    until, words = max(float(p.arrival_s[-1]) for p in parts), [_in_words(n, t) for n, t in traces.items()]
    for w, name in enumerate(names):
        if name not in traces and rates[w]:
            count = max(round(rates[w] * until), 1)
            parts += [replace(b, workload=np.full(len(b), w)) for b in Poisson([rates[w]], [lengths[w]], count, seed + w).blocks()]
            words.append(f"Poisson at {digits(rates[w])} req/s ({name})")
    return RecordedTrace(merged(parts)), ", ".join((*words, *([closed] if closed else []))) + faster


def _in_words(name: str, trace: RequestBlock) -> str:
    dropped = ", ".join(f"{n:,} rows dropped: {reason}" for reason, n in trace.dropped.items())
    return f"trace of {len(trace):,} requests ({name}{'; ' + dropped if dropped else ''})"


def outcome(plan: Plan, scenario: Scenario, fed: Fed, run: Conditions, usd_per_hour: float, words: str = "") -> Simulation:
    """What users saw of a stream (in ``words``) that was fed to the plan's deployments."""
    sims = [r.sim for r in fed.running]
    histogram, counts, sums = (np.sum([getattr(s, name) for s in sims], axis=0) for name in ("histogram", "counts", "sums"))
    workloads = []
    seconds = np.array([fed.session_s if any(r.sessions.many and r.sessions.many[w] for r in fed.running) else fed.counted_s for w in range(len(counts))])
    for w, asked in enumerate(scenario.workload):
        gaps = np.sum([s.histogram[0, 3] for s, r in zip(sims, fed.running, strict=True) if r.engine.flows[w].prompt_s > 0], axis=0)
        workloads.append(results.workload(asked.name, asked.server_limits, results.Counted(histogram[w], counts[w], sums[w], gaps), seconds[w]))
    used = tuple(
        results.Used(
            f"{d.checkpoint} on {d.gpu} {d.layout}", r.replicas, _busy(r, "busy", fed), _busy(r, "held", fed), float(r.sim.series[:, 6].max()), **r.sim.happened
        )
        for d, r in zip(plan.deployments, fed.running, strict=True)
    )
    tokens, good = (t * 3600 / 1e6 for t in results.good_tokens(sums / seconds[:, None]))
    series = results.series([s.series for s in sims], sims[0].width, fed.last_s)
    return Simulation(
        words, run.router, run.confidence, run.seed, int(counts[:, :, 4].sum()), fed.last_s, tuple(workloads), used,
        usd_per_hour / tokens if tokens else None, usd_per_hour / good if good else None, run.failures, series,
    )  # fmt: skip


def _busy(r: Running, name: str, fed: Fed) -> float:
    """Mean over replicas and time of what was summed over time."""
    until = max(fed.last_s, float(r.sim.fleet["start"].max()))
    return float(r.sim.fleet[name].mean()) / until
