"""An autoscaled plan over its day or week: Poisson requests at each hour's rate, replicas that come and go at full hours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from planner.catalog.catalog import Catalog
from planner.catalog.load import load_catalog
from planner.errors import PlannerError
from planner.result.busiest import at_busiest, fleet_rates
from planner.result.plan import Plan
from planner.scenario.change import with_workloads
from planner.scenario.workload import Workload
from planner.simulation import records as core
from planner.simulation.rebuild import MOST_REPLICAS, Basis, Deployed, deployed, lengths_of, refuse_broken, scenario_of, sharing
from planner.simulation.results import Simulation, Waited
from planner.simulation.run import Conditions, Fed, feed, outcome
from planner.simulation.state import FleetChange
from planner.simulation.stream import BLOCK, Floats, Ints, Lengths, RequestBlock

HOUR_S = 3600.0
MOST_WAITING = 100_000_000  # requests
NONE = np.zeros((0, 0), np.int64)


@dataclass(frozen=True)
class Hourly:
    """Independent requests at rates [W, H] (per s) that change every hour; and those that wait for spare capacity, so many of each kind [K, H] at
    the start of every hour, of kinds W, W + 1, ..."""

    rates: Floats
    lengths: Sequence[Lengths]
    seed: int = 0
    handed: Ints = field(default_factory=lambda: NONE)
    waiting: Sequence[Lengths] = ()

    @property
    def seconds(self) -> float:
        """Hours there are, in seconds."""
        return float(self.rates.shape[1] * HOUR_S)

    @property
    def count(self) -> int:
        """Requests."""
        return int(sum(c.sum() for c in self._drawn) + self.handed.sum())

    @cached_property
    def _drawn(self) -> list[Ints]:
        """Requests of each workload in equal slices of each hour, about a block each: [W, slices] by hour."""
        rng, found = np.random.default_rng((self.seed, 2)), []
        for rates in self.rates.T:
            slices = max(int(np.ceil(rates.sum() * HOUR_S / BLOCK)), 1)
            found.append(rng.poisson(rates[:, None] * HOUR_S / slices, (len(rates), slices)))
        return found

    def blocks(self) -> Iterator[RequestBlock]:
        """The requests."""
        rng = np.random.default_rng(self.seed)
        for hour, counts in enumerate(self._drawn):
            if self.handed.size and self.handed[:, hour].any():
                yield self._lump(hour)
            width = HOUR_S / counts.shape[1]
            for i, each in enumerate(counts.T):
                workload = rng.permutation(np.repeat(np.arange(len(each)), each))
                arrival = hour * HOUR_S + i * width + np.sort(rng.uniform(0, width, len(workload)))
                prompt, answer = np.empty(len(workload), np.int64), np.empty(len(workload), np.int64)
                for w, lengths in enumerate(self.lengths):
                    prompt[workload == w], answer[workload == w] = lengths(rng, int(each[w]))
                if len(workload):
                    yield RequestBlock(arrival, prompt, answer, workload)

    def _lump(self, hour: int) -> RequestBlock:
        """What may wait and is handed out in an hour, in random order."""
        rng, many = np.random.default_rng((self.seed, 5, hour)), self.handed[:, hour]
        parts = [draw(rng, int(n)) for draw, n in zip(self.waiting, many, strict=True)]
        kind, order = np.repeat(np.arange(len(many)), many) + len(self.rates), rng.permutation(int(many.sum()))
        prompt, answer = (np.concatenate([p[i] for p in parts])[order] for i in (0, 1))
        return RequestBlock(np.full(len(order), hour * HOUR_S), prompt, answer, kind[order])


def simulate_hours(plan: Plan, catalog: Catalog | None = None, *, seed: int = 0, burst: float = 1.0, median: bool = False, router: str = "") -> Simulation:
    """Simulates all hours of an autoscaled plan, each workload at its peak rate (mean x burst factor) of the hour.

    Replicas are there at the hour they are planned for (the plan starts them before) and finish what they hold when they go. Requests that may wait are
    handed out at the start of the hour that the plan does them in and wait for what others leave free. Raises PlannerError.
    """
    asked = scenario_of(plan)
    refuse_broken(plan)
    means = fleet_rates(plan)  # what APIs serve reaches no engine
    if not plan.deployments:
        raise PlannerError("all of it is served by hosted APIs, whose latency nobody knows", "", "only what engines serve can be simulated")
    catalog = catalog or load_catalog(asked.catalog)
    rates = {w.name: mean * w.burst_factor * burst for w, mean in zip(asked.workload, means, strict=True)}
    waiting = [w for w in asked.workload if w.is_waiting]
    done = _handed(plan, len(waiting), burst)
    run = Conditions(router or asked.policy.router, 0.5 if median else asked.policy.confidence, seed)
    parts = [_deployment(plan, i, catalog, rates, (waiting, done[:, i]), run) for i in range(len(plan.deployments))]
    found = [p[0] for p in parts]
    series = {k: _together(k, [p.series[k] for p in found]) for k in found[0].series}
    tokens, good = (_tokens(found, name) for name in ("usd_per_million_output_tokens", "usd_per_million_good_output_tokens"))
    usd = plan.cost.usd_per_hour - plan.cost.api_usd_per_hour
    hours = means.shape[1]
    words = f"Poisson at the rates of {hours} hours{' without what APIs serve' if plan.hosted else ''}" + (f", {burst:g} times as fast" if burst != 1 else "")
    return replace(
        found[0], arrivals=words, requests=sum(p.requests for p in found), seconds=hours * HOUR_S, series=series,
        workloads=tuple(w for p in found for w in p.workloads), deployments=tuple(d for p in found for d in p.deployments),
        usd_per_million_output_tokens=usd / tokens if tokens else None, usd_per_million_good_output_tokens=usd / good if good else None,
        waiting=tuple(_waited(w.name, done[k], [p[1] for p in parts], k, len(waiting)) for k, w in enumerate(waiting)),
    )  # fmt: skip


def _handed(plan: Plan, many: int, burst: float) -> Ints:
    """Requests of waiting work [waiting workload, deployment, hour] in whole ones, none lost by rounding; no hour's capacity is read."""
    done = np.array([[d.waiting_requests for d in hour.deployments] for hour in plan.periods], float)  # [H, D, K]
    if many and not (done.shape[2:] == (many,) and np.isfinite(done).all() and (done >= 0).all() and done.sum() * burst <= MOST_WAITING):
        raise PlannerError(f"states no whole schedule of up to {MOST_WAITING:,} requests that wait", "periods", "plan check tells all that does not hold")
    if not many:
        return np.zeros((0, len(plan.deployments), len(plan.periods)), np.int64)
    flat = done.transpose(2, 1, 0).reshape(many, -1) * burst
    return np.diff(np.rint(np.cumsum(flat, axis=1)), axis=1, prepend=0).astype(np.int64).reshape(many, len(plan.deployments), -1)


def _deployment(
    plan: Plan, index: int, catalog: Catalog, rates: dict[str, Floats], waiting: tuple[list[Workload], Ints], run: Conditions
) -> tuple[Simulation, Fed]:
    """One deployment with the workloads it serves and the waiting work (of [waiting workload, hour] requests) it does. Its cost is taken as $1/h."""
    one = at_busiest(plan, index)
    scenario = scenario_of(one)
    (built,) = deployed(one, scenario, catalog, run.confidence)
    counts = [hour.deployments[index].replicas for hour in plan.periods]
    most = max(counts)
    if not 0 <= min(counts) <= most <= MOST_REPLICAS:
        raise PlannerError(f"has from {min(counts)} to {most} replicas; up to {MOST_REPLICAS:,} can be simulated", f"deployment {index}")
    idle, handed = waiting
    names = [w.name for w in idle]
    there, seen = {w.name for w in plan.workloads if any(r.deployment == index for r in w.routing)} - set(names), {w.name for w in one.workloads}
    for unseen in sorted(there - seen):
        raise PlannerError("has no traffic in the busiest hour of the deployment it shares, which is all that is simulated", f"workload {unseen}")
    steady = [(w, s) for w, s in zip(one.workloads, scenario.workload, strict=True) if w.name not in names]
    per_unit = [w.qps / w.demand.value for w, _ in steady]  # requests/s of one in flight where these are what is demanded
    peaks = np.array([rates[w.name] * x for (w, _), x in zip(steady, per_unit, strict=True)]).reshape(len(steady), len(counts))
    fleet = Deployed(built.engine, (1.0,) * len(one.workloads), built.tokens, ((0, 0),) * most, tuple(_changes(counts)))
    scenario = with_workloads(scenario, (s for _, s in steady))
    if handed.any():
        hours = handed.any(axis=0)
        both = with_workloads(scenario, (*scenario.workload, *idle))
        qps = [*peaks[:, hours].mean(axis=1).tolist(), *(handed[:, hours].mean(axis=1) / HOUR_S).tolist()]
        due = [-1.0] * len(steady) + [HOUR_S * int(w.deadline.partition(":")[0]) for w in idle]
        fleet = sharing(fleet, one, Basis(both, catalog, run.confidence), qps, due)
    stream = Hourly(peaks, [lengths_of(s) for _, s in steady], run.seed + index, handed if handed.any() else NONE, [lengths_of(w) for w in idle])
    fed = feed([fleet], stream, run.router, run.seed)
    if handed.any():  # to the end of the last hour, whatever came last
        fed = replace(fed, counted_s=stream.seconds, last_s=stream.seconds)
    return outcome(one, scenario, fed, run, usd_per_hour=1.0), fed


def _waited(name: str, handed: Ints, parts: Sequence[Fed], k: int, many: int) -> Waited:
    """What became of one waiting workload, the k-th of many, handed out to deployments by hour [D, H]."""
    rows, busy, there = [], np.zeros(handed.shape[1]), np.zeros(handed.shape[1])
    for fed, mine in zip(parts, handed, strict=True):
        if not mine.any():
            continue
        (running,) = fed.running
        rows.append(running.sim.waited[k - many])
        so_far, at = running.sim.series[:, core.BUSY], np.arange(len(running.sim.series)) * running.sim.width
        end = min(float(running.sim.fleet["busy"].sum()), so_far[-1] + running.replicas * running.sim.width)
        hours = np.interp(np.arange(len(mine) + 1) * HOUR_S, [*at, len(mine) * HOUR_S], [*so_far, end])
        held = np.array([running.replicas - sum(_away(running.changes, hour * HOUR_S)) for hour in range(len(mine))])
        busy += np.where(mine > 0, np.diff(hours), 0.0)
        there += np.where(mine > 0, held, 0)
    found = np.array(rows).reshape(-1, core.WAITED)
    done, late = int(found[:, core.ANSWERED].sum()), int(found[:, core.LATE].sum())
    share = np.divide(busy, there * HOUR_S, out=np.zeros_like(busy), where=there > 0)
    return Waited(
        name, int(handed.sum()), done, late, int(handed.sum()) - done, float(found[:, core.LATE_S].sum() / late) if late else 0.0,
        float(found[:, core.LAST_S].max()) if done else None, float(-found[:, core.LATEST_S].max()) if done else None,
        tuple(handed.sum(axis=0).tolist()), tuple(float(f"{s:.6g}") for s in share),
    )  # fmt: skip


def _away(changes: Sequence[FleetChange], at_s: float) -> list[bool]:
    """Of replicas that ever come or go, whether each takes no requests at a time."""
    kinds = {c.replica: c.kind for c in sorted(changes, key=lambda c: c.at_s) if c.at_s <= at_s}
    first = {c.replica: c.kind for c in sorted(changes, key=lambda c: -c.at_s)}
    return [kinds.get(r, "up" if first[r] == "drain" else "drain") == "drain" for r in first]


def _changes(counts: Sequence[int]) -> list[FleetChange]:
    """Replicas that come and go at full hours; the first are there from the start, the last come first to go."""
    found = [FleetChange(0.0, r, "drain") for r in range(counts[0], max(counts))]
    for hour, (before, now) in enumerate(pairwise(counts), 1):
        found += [FleetChange(hour * HOUR_S, r, "up") for r in range(before, now)] + [FleetChange(hour * HOUR_S, r, "drain") for r in range(now, before)]
    return found


def _tokens(parts: Sequence[Simulation], name: str) -> float:
    """Million tokens per hour of all parts, whose cost was taken as $1/h."""
    return float(sum(1 / usd for p in parts if (usd := getattr(p, name))))


def _together(name: str, values: Sequence[Sequence[float | None]]) -> tuple[float | None, ...]:
    """A series of all deployments: sums, of shares means, of times the same."""
    known = np.array([[np.nan if v is None else v for v in row] for row in values])
    if name == "at_s":
        return tuple(values[0])
    if name not in ("inside", "kv_used"):
        return tuple(known.sum(axis=0).tolist())
    seen = ~np.isnan(known)
    means = np.where(seen, known, 0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
    return tuple(float(m) if any_seen else None for m, any_seen in zip(means, seen.any(axis=0), strict=True))
