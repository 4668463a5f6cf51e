"""An autoscaled plan over its day or week: Poisson requests at each hour's rate, replicas that come and go at full hours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from planner.catalog.catalog import Catalog
from planner.catalog.load import load_catalog
from planner.check.periods import structure
from planner.errors import PlannerError
from planner.hourly import HourlyPlan
from planner.scenario.profiles import hourly_rates
from planner.simulation.rebuild import MOST_REPLICAS, Deployed, deployed, lengths_of, refuse_broken, scenario_of
from planner.simulation.results import Simulation
from planner.simulation.run import feed, outcome
from planner.simulation.state import Change
from planner.simulation.stream import BLOCK, Block, Floats, Ints, Lengths

HOUR_S = 3600.0


@dataclass(frozen=True)
class Hourly:
    """Independent requests at rates [W, H] (per s) that change every hour."""

    rates: Floats
    lengths: Sequence[Lengths]
    seed: int = 0

    @property
    def seconds(self) -> float:
        """Hours there are, in seconds."""
        return float(self.rates.shape[1] * HOUR_S)

    @property
    def count(self) -> int:
        """Requests."""
        return int(sum(c.sum() for c in self._drawn))

    @cached_property
    def _drawn(self) -> list[Ints]:
        """Requests of each workload in equal slices of each hour, about a block each: [W, slices] by hour."""
        rng, found = np.random.default_rng((self.seed, 2)), []
        for rates in self.rates.T:
            slices = max(int(np.ceil(rates.sum() * HOUR_S / BLOCK)), 1)
            found.append(rng.poisson(rates[:, None] * HOUR_S / slices, (len(rates), slices)))
        return found

    def blocks(self) -> Iterator[Block]:
        """The requests."""
        rng = np.random.default_rng(self.seed)
        for hour, counts in enumerate(self._drawn):
            width = HOUR_S / counts.shape[1]
            for i, each in enumerate(counts.T):
                workload = rng.permutation(np.repeat(np.arange(len(each)), each))
                arrival = hour * HOUR_S + i * width + np.sort(rng.uniform(0, width, len(workload)))
                prompt, answer = np.empty(len(workload), np.int64), np.empty(len(workload), np.int64)
                for w, lengths in enumerate(self.lengths):
                    prompt[workload == w], answer[workload == w] = lengths(rng, int(each[w]))
                if len(workload):
                    yield Block(arrival, prompt, answer, workload)


def simulate_hours(
    plan: HourlyPlan, catalog: Catalog | None = None, *, seed: int = 0, burst: float = 1.0, median: bool = False, router: str = ""
) -> Simulation:
    """Simulates all hours of an autoscaled plan, each workload at its peak rate (mean x burst factor) of the hour.

    Replicas are there at the hour they are planned for (the plan starts them before) and finish what they hold when they go. Raises
    PlannerError for plans with requests that wait for spare capacity: the simulator knows no priorities.
    """
    waiting = [w.name for w in plan.workloads if w.is_waiting]
    if waiting:
        raise PlannerError(f"requests that wait ({', '.join(waiting)}) cannot be simulated: the simulator knows no priorities")
    asked = scenario_of(plan)
    means = hourly_rates(asked)
    refuse_broken(structure(plan, asked, means.shape[1]))
    catalog = catalog or load_catalog(asked.catalog)
    rates = {w.name: mean * w.burst_factor * burst for w, mean in zip(asked.workload, means, strict=True)}
    parts = [_deployment(plan, i, catalog, rates, seed, median, router) for i in range(len(plan.plans))]
    series = {k: _together(k, [p.series[k] for p in parts]) for k in parts[0].series}
    tokens, good = (_tokens(parts, name) for name in ("usd_per_million_output_tokens", "usd_per_million_good_output_tokens"))
    usd = plan.usd / plan.hours
    words = f"Poisson at the rates of {plan.hours} hours" + (f", {burst:g} times as fast" if burst != 1 else "")
    return replace(
        parts[0], arrivals=words, requests=sum(p.requests for p in parts), seconds=plan.hours * HOUR_S, series=series,
        workloads=tuple(w for p in parts for w in p.workloads), deployments=tuple(d for p in parts for d in p.deployments),
        usd_per_million_output_tokens=usd / tokens if tokens else None, usd_per_million_good_output_tokens=usd / good if good else None,
    )  # fmt: skip


def _deployment(plan: HourlyPlan, index: int, catalog: Catalog, rates: dict[str, Floats], seed: int, median: bool, router: str) -> Simulation:
    """One deployment with the workloads it serves. Its cost is taken as $1/h."""
    one = plan.plans[index]
    scenario = scenario_of(one)
    confidence, router = 0.5 if median else scenario.policy.confidence, router or scenario.policy.router
    (built,) = deployed(one, scenario, catalog, confidence)
    counts = [hour.deployments[index].replicas for hour in plan.periods]
    most = max(counts)
    if not 0 <= min(counts) <= most <= MOST_REPLICAS:
        raise PlannerError(f"has from {min(counts)} to {most} replicas; up to {MOST_REPLICAS:,} can be simulated", f"deployment {index}")
    fleet = Deployed(built.engine, (1.0,) * len(one.workloads), built.tokens, ((0, 0),) * most)
    per_unit = [w.qps / w.demand.value for w in one.workloads]  # requests/s of one in flight where these are what is demanded
    peaks = np.array([rates[w.name] * x for w, x in zip(one.workloads, per_unit, strict=True)])
    stream = Hourly(peaks, [lengths_of(w) for w in scenario.workload], seed + index)
    fed = feed([fleet], stream, router, seed, [_changes(counts)])
    return outcome(one, scenario, fed, "", router, confidence, seed, (), usd_per_hour=1.0)


def _changes(counts: Sequence[int]) -> list[Change]:
    """Replicas that come and go at full hours; the first are there from the start, the last come first to go."""
    found = [Change(0.0, r, "drain") for r in range(counts[0], max(counts))]
    for hour, (before, now) in enumerate(pairwise(counts), 1):
        found += [Change(hour * HOUR_S, r, "up") for r in range(before, now)] + [Change(hour * HOUR_S, r, "drain") for r in range(now, before)]
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
