"""What an endpoint does now, out of the metrics of its engines: rate, lengths, latencies, queue, cache. vLLM's names (old and new) and OpenTelemetry GenAI's.

A histogram tells a percentile only as the bucket that it is in. A snapshot tells everything since the engines started, and no rate.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from planner.demand.prometheus import HITS, INPUT, OUTPUT, QUERIES, REJECTED, Sample, Series, key_of
from planner.errors import PlannerError, did_you_mean

Names = tuple[str, ...]
Grouped = Mapping[str, list[tuple[str, Series]]]  # by metric: the bucket's edge, if it is one, and the series; those of each engine for themselves
LATENCIES: Mapping[str, Names] = {
    "ttft": ("vllm_time_to_first_token_seconds", "gen_ai_server_time_to_first_token_seconds", "gen_ai_server_time_to_first_token"),
    "tpot": ("vllm_request_time_per_output_token_seconds", "gen_ai_server_time_per_output_token_seconds", "gen_ai_server_time_per_output_token"),
    "itl": ("vllm_inter_token_latency_seconds", "vllm_time_per_output_token_seconds"),  # the latter is its old name: between two tokens, not of a request
    "e2e": ("vllm_e2e_request_latency_seconds", "gen_ai_server_request_duration_seconds", "gen_ai_server_request_duration"),
    "queue": ("vllm_request_queue_time_seconds",),
}
RUNNING, WAITING = ("vllm_num_requests_running",), ("vllm_num_requests_waiting",)
KV_USAGE = ("vllm_kv_cache_usage_perc", "vllm_gpu_cache_usage_perc")  # 0 to 1 despite the names
PREEMPTIONS = ("vllm_num_preemptions",)
REPLICA_LABELS = ("instance", "pod", "engine", "server", "host", "service_instance_id")  # what tells engines apart
READ = r"vllm:.+|gen_ai[._].+"  # metrics worth asking for
MS = 1000.0


@dataclass(frozen=True)
class Buckets:
    """A histogram's growth: counts [B] between edges [B + 1], and the mean where the sum is told."""

    edges: tuple[float, ...]
    counts: tuple[float, ...]
    mean: float | None

    @property
    def requests(self) -> float:
        """All of them."""
        return sum(self.counts)

    def percentile(self, share: float) -> tuple[float, float]:
        """The bucket that a percentile is in; the last one has no end."""
        reached = 0.0
        for (low, high), count in zip(pairwise(self.edges), self.counts, strict=True):
            reached += count
            if reached >= share * self.requests and count:
                return low, high
        return self.edges[-2], self.edges[-1]


@dataclass(frozen=True)
class Live:
    """One model's endpoint. ``span_s`` 0: a snapshot. Rates in requests/s, latencies in ms; None: not told. ``engines`` 0: not told apart."""

    model: str
    span_s: float
    engines: int
    requests: float | None
    rate: float | None
    peak_rate: float | None
    step_s: float
    inputs: Buckets | None
    outputs: Buckets | None
    hit_share: float | None
    latency_ms: Mapping[str, Buckets]
    running: float | None
    waiting: float | None
    kv_usage: float | None  # of the fullest engine, its mean over time
    preempted_share: float | None
    rejected_share: float | None


def models_in(samples: Sequence[Sample]) -> list[str]:
    """Names of the models that metrics are of."""
    return sorted({model for name, labels, _ in samples if (model := key_of(name, labels)[1])})


def live_of(samples: Sequence[Sample], model: str, where: str) -> Live:
    """What one model's endpoint does; "" stands for all. Raises PlannerError for a model that is not there, and where no metric is known."""
    models = models_in(samples)
    if model and model not in models:
        raise PlannerError(f"no model '{model}' in the metrics", where, did_you_mean(model, models) or f"they are of {', '.join(models) or 'none named'}")
    own = [s for s in samples if not model or key_of(s[0], s[1])[1] == model]
    series = _grouped(own)
    inputs = _buckets(series, INPUT)
    latency = {name: found for name, names in LATENCIES.items() if (found := _buckets(series, names, MS))}
    if inputs is None and not latency:
        raise PlannerError("has no metric of an inference engine", where, "vLLM's (vllm:request_prompt_tokens …) and OpenTelemetry's (gen_ai.…) are read")
    requests = inputs.requests if inputs else next(b.requests for b in latency.values())
    span, step, peak = _pace(series)
    hits, queries, rejected, preempted = (_grown(series, names) for names in (HITS, QUERIES, REJECTED, PREEMPTIONS))
    return Live(
        model, span, _engines(own), requests, requests / span if span else None, peak, step, inputs, _buckets(series, OUTPUT),
        hits / queries if hits is not None and queries else None, latency, _together(series, RUNNING), _together(series, WAITING), _fullest(series),
        preempted / requests if preempted is not None and requests else None,
        rejected / (rejected + requests) if rejected is not None and rejected + requests else None,
    )  # fmt: skip


def _grouped(samples: Sequence[Sample]) -> Grouped:
    """The series by metric. In a range one with a single sample says nothing of growth, and is left out."""
    is_range = any(len(points) > 1 for _, _, points in samples)
    found: dict[str, list[tuple[str, Series]]] = defaultdict(list)
    for name, labels, points in samples:
        if len(points) > 1 or not is_range:
            metric, _, le = key_of(name, labels)
            found[metric].append((le, Series(np.array([t for t, _ in points]), np.array([v for _, v in points]))))
    return found


def _grown(series: Grouped, names: Names) -> float | None:
    """What a counter grew by, all engines together, of the first name that is there."""
    return next((sum(s.increase() for _, s in series[name]) for name in names if series.get(name)), None)


def _buckets(series: Grouped, names: Names, factor: float = 1.0) -> Buckets | None:
    """The first of the names that has requests in it."""
    for name in names:
        by_edge: dict[float, float] = defaultdict(float)
        for le, s in series.get(f"{name}_bucket", ()):
            by_edge[float((le or "+Inf").replace("+Inf", "inf"))] += s.increase()
        if not by_edge or max(by_edge.values()) <= 0:
            continue
        edges = sorted(by_edge)
        counts = np.maximum(np.diff([0.0, *(by_edge[e] for e in edges)]), 0.0)
        total = _grown(series, (f"{name}_sum",))
        mean = total * factor / counts.sum() if total is not None else None
        return Buckets((0.0, *(e * factor for e in edges)), tuple(map(float, counts)), None if mean is None else float(mean))
    return None


def _pace(series: Grouped) -> tuple[float, float, float | None]:
    """(seconds from the first sample to the last, between two, requests/s of the busiest step); 0 and None of a snapshot."""
    for name in (*INPUT, *LATENCIES["ttft"], *LATENCIES["e2e"]):
        counts = series.get(f"{name}_count") or [(le, s) for le, s in series.get(f"{name}_bucket", ()) if le == "+Inf"]
        grown: dict[tuple[float, float], float] = defaultdict(float)
        for _, s in counts:
            for span, more in zip(pairwise(s.times.tolist()), s.steps().tolist(), strict=True):
                if span[1] > span[0]:
                    grown[span] += more
        if grown:
            first, last = min(a for a, _ in grown), max(b for _, b in grown)
            return last - first, float(np.median([b - a for a, b in grown])), max(more / (b - a) for (a, b), more in grown.items())
    return 0.0, 0.0, None


def _together(series: Grouped, names: Names) -> float | None:
    """The mean over time of a gauge, all engines together."""
    found = next((series[name] for name in names if series.get(name)), None)
    if found is None:
        return None
    times = {t for _, s in found for t in s.times.tolist()}
    return float(sum(s.values.sum() for _, s in found) / len(times))


def _fullest(series: Grouped) -> float | None:
    """The mean KV usage of the engine where it is highest."""
    return max((float(s.values.mean()) for name in KV_USAGE for _, s in series.get(name, ())), default=None)


def _engines(samples: Sequence[Sample]) -> int:
    """How many engines the metrics are of, by the labels that tell them apart."""
    of = (*RUNNING, *(f"{n}{end}" for n in (*INPUT, *LATENCIES["ttft"]) for end in ("_count", "_bucket")))
    alike = [{k.replace(".", "_"): v for k, v in labels.items()} for name, labels, _ in samples if key_of(name, labels)[0] in of]
    told = {tuple(labels.get(label, "") for label in REPLICA_LABELS) for labels in alike}
    return len(told) if any(any(t) for t in told) else 0
