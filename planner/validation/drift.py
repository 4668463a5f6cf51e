"""What a plan assumes beside what its endpoint does now: which assumption has left its range, and which only cannot be told.

A figure has left its range where all that it may be (a percentile: its whole bucket) lies beyond; where a bucket straddles the end it is unsure.
Only the side that harms counts: more load, longer requests, fewer cache hits, slower answers. The other side is room to spare.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf, isfinite

import numpy as np

from planner.bench.labels import bare_name
from planner.demand.live import Buckets, Live, live_of, models_in
from planner.demand.prometheus import Sample
from planner.errors import PlannerError
from planner.performance.cells import Cells, joined
from planner.performance.lengths import workload_mix
from planner.result.plan import Deployment, Plan, PlanWorkload, Route

WITHIN, LEFT, SPARE, UNSURE, UNKNOWN = "within", "left its range", "room to spare", "unsure", "not told"
MOST_KV = 0.95  # of the KV cache, on the fullest engine: beyond, requests are preempted
MOST_PREEMPTED = 0.01  # of the requests
LEAST_REJECTED = 0.001  # of the requests: below, rejections are noise
SHARE = 0.95  # of lengths, and of latencies without a limit
SHARES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
METRICS = ("ttft", "tpot", "itl", "e2e")


@dataclass(frozen=True)
class Assumption:
    """One thing that a plan assumes, in ``unit``. ``live``: between these two, the same where it is exact; None: not told. ``most``, ``least``: its range."""

    name: str
    unit: str
    planned: float | None
    live: tuple[float, float] | None
    least: float
    most: float
    verdict: str


@dataclass(frozen=True)
class Drift:
    """Of one checkpoint: its deployments together."""

    checkpoint: str
    replicas: int
    of_replicas: int  # as many of them the metrics are of
    span_s: float
    assumptions: tuple[Assumption, ...]
    notes: tuple[str, ...]

    @property
    def has_left(self) -> bool:
        """Whether any assumption has left its range."""
        return any(a.verdict == LEFT for a in self.assumptions)


@dataclass(frozen=True)
class _Served:
    """The deployments of one checkpoint, and what is routed to them: (workload, its place, route, tokens written per answer token)."""

    deployments: tuple[Deployment, ...]
    routed: tuple[tuple[PlanWorkload, int, Route, float], ...]

    @property
    def qps(self) -> float:
        return sum(route.qps for _, _, route, _ in self.routed)

    @property
    def replicas(self) -> int:
        return sum(d.replicas for d in self.deployments)


def checkpoint_of(plan: Plan, model: str) -> str:
    """The plan's checkpoint that a model's name in metrics means; "" where it means none."""
    word = model.lower()
    return next((d.checkpoint for d in plan.deployments if word in (d.checkpoint.lower(), d.model.lower(), bare_name(d.checkpoint.lower()))), "")


def drifts(plan: Plan, samples: Sequence[Sample], tolerance: float, model: str = "", replicas: int | None = None) -> list[Drift]:
    """Of each checkpoint that metrics are of. A lone name is taken for the plan's lone checkpoint, whatever it is called; of several those that the
    plan does not serve are passed over. Raises PlannerError where none is left."""
    where, models = "--prometheus", [model] if model else models_in(samples) or [""]
    planned = list(dict.fromkeys(d.checkpoint for d in plan.deployments))
    named = {m: checkpoint_of(plan, m) for m in models}
    if len(models) == len(planned) == 1:
        named = {models[0]: planned[0]}
    found = {m: checkpoint for m, checkpoint in named.items() if checkpoint}
    if not found:
        hint = "name one with --model, or start engines with --served-model-name as the plan has it"
        raise PlannerError(f"the metrics are of {', '.join(models)}, the plan serves {', '.join(planned)}", where, hint)
    missing = [c for c in planned if c not in found.values()]
    notes = (f"no metrics of {', '.join(missing)}",) if missing else ()
    alias = {m: (f"the metrics call the model '{m}', which is taken for {c}",) if m and not checkpoint_of(plan, m) else () for m, c in found.items()}
    return [drift(plan, live_of(samples, m, where), c, tolerance, replicas, (*alias[m], *notes)) for m, c in found.items()]


def drift(plan: Plan, live: Live, checkpoint: str, tolerance: float, replicas: int | None = None, notes: tuple[str, ...] = ()) -> Drift:
    """The plan's assumptions on one checkpoint. ``tolerance``: share of a planned figure that the live one may be off; ``replicas``: how many the
    metrics are of, where their labels do not tell. Raises PlannerError."""
    served = _served(plan, checkpoint)
    if not served.routed:
        raise PlannerError(f"nothing is routed to {checkpoint} at a rate", "plan")
    engines = max(d.dp for d in served.deployments)  # vLLM labels each of its data parallel engines
    seen = replicas or (round(live.engines / engines) if live.engines else 0) or served.replicas
    share = seen / served.replicas
    rows = [*_rates(served, live, tolerance, share), *_lengths(plan, served, live, tolerance), *_cached(plan, served, live, tolerance)]
    rows += [*_latencies(served, live, tolerance), *_loads(served, live, tolerance, share)]
    return Drift(checkpoint, served.replicas, seen, live.span_s, tuple(rows), (*_notes(live, seen, served, bool(replicas or live.engines)), *notes))


def _served(plan: Plan, checkpoint: str) -> _Served:
    own = {i: d for i, d in enumerate(plan.deployments) if d.checkpoint == checkpoint}
    routed = [
        (w, place, route, own[route.deployment].output_factor)
        for place, w in enumerate(plan.workloads)
        for route in w.routing
        if route.deployment in own and route.qps > 0 and not w.is_waiting
    ]
    return _Served(tuple(own.values()), tuple(routed))


def _notes(live: Live, seen: int, served: _Served, is_told: bool) -> tuple[str, ...]:
    found = (
        [] if live.span_s else ["a snapshot: lengths and latencies since the engines started, and no rate; give a range (a Prometheus server, or query_range)"]
    )
    if not is_told:
        found.append("labels do not tell replicas apart: taken as all of them (or say --replicas)")
    elif seen != served.replicas:
        found.append(f"rates and loads are held against the share of {seen} of the plan's {served.replicas} replicas")
    return tuple(found)


# ---- one by one


def _verdict(live: tuple[float, float] | None, least: float, most: float, spare: Callable[[tuple[float, float]], bool]) -> str:
    if live is None:
        return UNKNOWN
    if live[0] > most or live[1] < least:
        return LEFT
    if live[0] < least or live[1] > most:
        return UNSURE
    return SPARE if spare(live) else WITHIN


def _at_most(name: str, unit: str, planned: float | None, live: tuple[float, float] | None, most: float, spare_below: float = -inf) -> Assumption:
    return Assumption(name, unit, planned, live, 0.0, most, _verdict(live, 0.0, most, lambda x: x[1] < spare_below))


def _exact(value: float | None) -> tuple[float, float] | None:
    return None if value is None else (value, value)


def _near(name: str, unit: str, planned: float, live: tuple[float, float] | None, tolerance: float) -> Assumption:
    """At most so much above what is planned; as much below is room to spare."""
    return _at_most(name, unit, planned, live, planned * (1 + tolerance), planned * (1 - tolerance))


def _rates(served: _Served, live: Live, tolerance: float, share: float) -> Iterator[Assumption]:
    yield _near("rate", "requests/s", served.qps * share, _exact(live.rate), tolerance)
    peak = sum(route.qps * w.burst_factor for w, _, route, _ in served.routed)
    if live.peak_rate is not None:
        yield _near(f"rate, busiest {live.step_s:.0f} s", "requests/s", peak * share, _exact(live.peak_rate), tolerance)


def _lengths(plan: Plan, served: _Served, live: Live, tolerance: float) -> Iterator[Assumption]:
    """Means and 95th percentiles, in the model's own tokens, reasoning included."""
    for name, which, found in (("prompt", 0, live.inputs), ("answer", 1, live.outputs)):
        cells = _cells(plan, served, which)
        if cells is None:
            continue
        mean = float(cells.weight @ cells.mean)
        yield _near(f"{name} tokens, mean", "tokens", mean, _exact(found.mean if found else None), tolerance)
        yield _near(f"{name} tokens, p95", "tokens", _percentile(cells), found.percentile(SHARE) if found else None, tolerance)


def _cells(plan: Plan, served: _Served, which: int) -> Cells | None:
    """Lengths of all that is routed here; None where the plan knows none."""
    parts, weights = [], []
    for w, place, route, factor in served.routed:
        if w.input_tokens is None:
            return None
        mix = workload_mix(plan.scenario.workload[place], factor)
        parts.append((mix.outputs if which else mix.inputs).times(route.tokens_per_stated))
        weights.append(route.qps)
    return joined(parts, np.array(weights) / sum(weights))


def _percentile(cells: Cells) -> float:
    order = np.argsort(cells.mean)
    reached = np.cumsum(cells.weight[order]) - cells.weight[order] / 2  # a cell's mean stands in its middle
    return float(np.interp(SHARE, reached, cells.mean[order]))


def _cached(plan: Plan, served: _Served, live: Live, tolerance: float) -> Iterator[Assumption]:
    shares = [plan.scenario.workload[place].prefix_cache_hit for _, place, _, _ in served.routed]
    planned = sum(s * route.qps for s, (_, _, route, _) in zip(shares, served.routed, strict=True)) / served.qps
    if not planned and live.hit_share is None:
        return
    least, found = planned * (1 - tolerance), _exact(live.hit_share)
    yield Assumption("prefix-cache hits", "share", planned, found, least, 1.0, _verdict(found, least, 1.0, lambda x: x[0] > planned * (1 + tolerance)))


def _latencies(served: _Served, live: Live, tolerance: float) -> Iterator[Assumption]:
    """Each percentile that has a limit against it, and against what is predicted: within its band, where the plan states one."""
    for metric in METRICS:
        limits: dict[float, float] = {}
        for limit in (s for w, _, _, _ in served.routed for s in w.slo if s.metric == metric):
            limits[limit.percentile] = min(limit.limit_ms, limits.get(limit.percentile, inf))
        found = live.latency_ms.get(metric)
        for percentile, most in sorted(limits.items()):
            yield _at_most(f"{metric.upper()} p{percentile:g}, limit", "ms", most, _bucket(found, percentile / 100), most)
        usual = ["p95"] if metric in ("ttft", "tpot") else []
        for name in [f"p{p:g}" for p in sorted(limits) if f"p{p:g}" in SHARES] or usual:
            predicted = _predicted(served, metric, name)
            if predicted is not None:
                most = _sure(served, metric, name) or predicted * (1 + tolerance)
                spare = predicted * (1 - tolerance)
                yield _at_most(f"{metric.upper()} {name}, predicted", "ms", predicted, _bucket(found, SHARES[name]), most, spare)


def _bucket(found: Buckets | None, share: float) -> tuple[float, float] | None:
    return found.percentile(share) if found else None


def _predicted(served: _Served, metric: str, name: str) -> float | None:
    """Of the workload that has it slowest; None where it is not predicted."""
    values = [getattr(d, name) for w, _, _, _ in served.routed if w.predicted and (d := getattr(w.predicted, f"{metric}_ms")) is not None]
    return max(values, default=None)


def _sure(served: _Served, metric: str, name: str) -> float | None:
    """What the slowest is not above with 90 %, by the band of the plan's evidence; None where a plan states none, or replicas so slow do not serve."""
    bands = [getattr(s, f"{metric}_ms").at_90 for d in served.deployments for s in d.service if hasattr(s, f"{metric}_ms")]
    return max(getattr(b, name) for b in bands) if bands and None not in bands else None


def _loads(served: _Served, live: Live, tolerance: float, share: float) -> Iterator[Assumption]:
    held = [d.in_flight_per_replica * d.replicas for d in served.deployments if d.in_flight_per_replica is not None]
    planned = sum(held) * share if len(held) == len(served.deployments) else None
    if planned is not None:
        yield _near("requests in flight", "", planned, _exact(_sum(live.running, live.waiting)), tolerance)
        yield _at_most("requests waiting", "", 0.0, _exact(live.waiting), tolerance * planned)
    yield _at_most("KV cache in use", "share", None, _exact(live.kv_usage), MOST_KV)
    yield _at_most("preemptions per request", "share", 0.0, _exact(live.preempted_share), MOST_PREEMPTED)
    refused = max((d.refused_share or 0.0 for d in served.deployments), default=0.0)
    yield _at_most("requests rejected", "share", refused, _exact(live.rejected_share), max(refused * (1 + tolerance), LEAST_REJECTED))


def _sum(a: float | None, b: float | None) -> float | None:
    return None if a is None else a + (b or 0.0)


def record(found: Sequence[Drift], tolerance: float) -> dict[str, object]:
    """As plain data."""

    def plain(a: Assumption) -> dict[str, object]:
        live = None if a.live is None else {"low": a.live[0], "high": a.live[1] if isfinite(a.live[1]) else None}
        return {
            "assumption": a.name, "unit": a.unit, "planned": a.planned, "live": live, "least": a.least, "most": a.most if isfinite(a.most) else None,
            "verdict": a.verdict,
        }  # fmt: skip

    checkpoints = [
        {
            "checkpoint": d.checkpoint, "replicas": d.replicas, "metrics_of_replicas": d.of_replicas, "span_s": d.span_s, "notes": list(d.notes),
            "assumptions": [plain(a) for a in d.assumptions],
        }
        for d in found
    ]  # fmt: skip
    return {"has_left": any(d.has_left for d in found), "tolerance": tolerance, "checkpoints": checkpoints}
