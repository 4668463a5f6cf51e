"""Demand out of Prometheus: vLLM's and OpenTelemetry GenAI's token histograms in an exposition text, an instant or a range query (JSON).

Histograms give lengths by bucket, prompts and answers apart: they are taken as independent, which the demand says. A range gives rates, too.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from planner.demand.arrivals import Arrivals, arrivals, since_monday
from planner.demand.lengths import Floats, Histogram
from planner.demand.records import Demand, Spread, cells_of, spread_in
from planner.demand.tally import MOST_TOKENS
from planner.errors import PlannerError
from planner.opened import beginning, whole
from planner.raw import Raw

# Names with "." and ":" as "_"; vLLM 0.33 v1/metrics/loggers.py, OpenTelemetry semantic-conventions-genai and the older gen_ai.client.token.usage.
INPUT = ("vllm_request_prompt_tokens", "gen_ai_client_inference_operation_input_tokens", "gen_ai_client_token_usage|input")
OUTPUT = ("vllm_request_generation_tokens", "gen_ai_client_inference_operation_output_tokens", "gen_ai_client_token_usage|output")
HITS = ("vllm_prefix_cache_hits", "gen_ai_client_inference_usage_cache_read_input_tokens")
QUERIES = ("vllm_prefix_cache_queries", "gen_ai_client_inference_usage_input_tokens")
REJECTED = ("vllm_admission_rejections",)
MODEL_LABELS = ("model_name", "gen_ai_request_model", "gen_ai_response_model", "model")
LINE = re.compile(r"^([a-zA-Z_:.][\w:.]*)(?:\{(.*)\})?\s+(\S+)(?:\s+(-?\d+))?$")
LABEL = re.compile(r'([\w.]+)="((?:[^"\\]|\\.)*)"')
LEAST_STEPS = 2
MOST = 1e15  # of a count or a time; counters beyond are none

Key = tuple[str, str, str]  # metric (with |input or |output where a label says which), model, le


@dataclass(frozen=True)
class Series:
    """One time series: [T] values at [T] times (s); an exposition has one of no time."""

    times: Floats
    values: Floats

    def increase(self) -> float:
        """Growth of a counter from first to last, restarts at zero allowed for; a single sample counts from zero."""
        return float(self.values[-1]) if len(self.values) == 1 else float(self.steps().sum())

    def steps(self) -> Floats:
        """Growth between samples."""
        after, before = self.values[1:], self.values[:-1]
        grown: Floats = np.where(after >= before, after - before, after)
        return grown


def is_prometheus(path: Path) -> bool:
    """Whether a file looks like an exposition or the answer of a query."""
    text = beginning(path, 4096).lstrip()
    if text.startswith("{"):
        return '"resultType"' in text
    return text.startswith(("# HELP", "# TYPE")) or "\n# TYPE " in text or ("_bucket{" in text and "le=" in text)


def read_prometheus(path: Path, model: str = "") -> Demand:
    """The demand in a metrics file. Raises PlannerError where there is no token histogram with requests."""
    series, skipped = _series(path)
    models = sorted({m for _, m, _ in series if m})
    if model and model not in models:
        raise PlannerError(f"no model '{model}'", str(path), f"it has {', '.join(models) or 'none named'}")
    chosen = {k: v for k, v in series.items() if not model or k[1] == model}
    inputs, outputs = (_marginal(chosen, names) for names in (INPUT, OUTPUT))
    if inputs is None:
        raise PlannerError("has no histogram of prompt tokens with requests in it", str(path), f"needs {INPUT[0].replace('vllm_', 'vllm:')} or {INPUT[1]}")
    hits, queries, rejected = (_counter(chosen, names) for names in (HITS, QUERIES, REJECTED))
    notes = ["prompt and answer lengths are apart in histograms: taken as independent"] if outputs else ["the file does not tell answer lengths: state them"]
    notes += [] if len(models) < 2 or model else [f"{len(models)} models together: {', '.join(models)}"]
    notes += [f"{rejected:,.0f} requests were rejected: demand that is not in these numbers"] if rejected else []
    stream = _rates(chosen)
    notes += [] if stream else ["the file does not tell a rate: a snapshot has no times; state --qps"]
    joint = _joint(inputs, outputs) if outputs else None
    sides = (spread_in(joint, "inputs"), spread_in(joint, "outputs")) if joint else (_spread_alone(inputs), None)
    return Demand(
        source=path.name, format="prometheus", requests=inputs.requests, arrivals=stream, input=sides[0], output=sides[1],
        prefix_cache_hit=hits / queries if hits is not None and queries else None,
        prefix_from="counters of the prefix cache" if queries and hits is not None else "",
        dropped={"not a sample": skipped} if skipped else {}, notes=tuple(notes), cells=cells_of(joint) if joint else (),
    )  # fmt: skip


def _series(path: Path) -> tuple[dict[Key, Series], int]:
    samples, skipped = samples_in(whole(path), str(path))
    return _summed(samples), skipped


def samples_in(text: str, where: str) -> tuple[list[Sample], int]:
    """All series in an exposition or the answer of a query, each for itself, and how many samples were none. Raises PlannerError."""
    if not text.strip():
        raise PlannerError("the file is empty", where)
    try:
        return _query(json.loads(text)) if text.lstrip().startswith("{") else _exposition(text)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise PlannerError("is no answer of a Prometheus query", where, "save /api/v1/query_range as JSON, or the text of /metrics") from None


def _summed(samples: Iterable[Sample]) -> dict[Key, Series]:
    """The series of all engines, replicas and finish reasons together, by metric, model and bucket."""
    together: dict[Key, dict[float, float]] = defaultdict(lambda: defaultdict(float))
    for name, labels, points in samples:
        for at, value in points:
            together[key_of(name, labels)][at] += value
    return {k: Series(np.array(sorted(v)), np.array([v[t] for t in sorted(v)])) for k, v in together.items()}


Sample = tuple[str, Mapping[str, str], list[tuple[float, float]]]


def _exposition(text: str) -> tuple[list[Sample], int]:
    found: list[Sample] = []
    skipped = 0
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = LINE.match(line.strip())
        labels = dict(LABEL.findall(match.group(2) or "")) if match else {}
        if match is None or not _is_sound(match.group(3)) or not _is_edge(labels):
            skipped += 1
        else:
            found.append((match.group(1), labels, [(0.0, float(match.group(3)))]))
    return found, skipped


def _query(answer: Raw) -> tuple[list[Sample], int]:
    results, skipped = answer["data"]["result"], 0
    found: list[Sample] = []
    for result in results:
        labels = {str(k): str(v) for k, v in result["metric"].items()}
        points = [(t, v) for t, v in (result["values"] if "values" in result else [result["value"]])]
        sound = [(float(t), float(v)) for t, v in points if _is_sound(t) and _is_sound(v)] if _is_edge(labels) else []
        skipped += len(points) - len(sound)
        if sound:
            found.append((labels.get("__name__", ""), labels, sound))
    return found, skipped


def _is_sound(number: Any, most: float = MOST) -> bool:
    """Whether it is a time or a count."""
    try:
        return 0 <= float(number) <= most
    except (TypeError, ValueError):
        return False


def _is_edge(labels: Mapping[str, str]) -> bool:
    """Whether the bucket, if it is one, has an upper edge."""
    return labels.get("le", "+Inf") == "+Inf" or _is_sound(labels["le"], MOST_TOKENS)


def key_of(name: str, labels: Mapping[str, str]) -> Key:
    """Metric, model and bucket, with "." and ":" as "_"."""
    plain = re.sub(r"[.:]", "_", name)
    named = {re.sub(r"[.:]", "_", k): v for k, v in labels.items()}
    side = named.get("gen_ai_token_type", "")
    suffix = next((s for s in ("_bucket", "_sum", "_count", "_total") if plain.endswith(s)), "")
    base = plain.removesuffix(suffix)
    base = base.removesuffix("_token") if base.endswith("usage_token") else base  # the unit, as some exporters add it
    return (
        base + (f"|{side}" if side else "") + (suffix if suffix != "_total" else ""),
        next((named[m] for m in MODEL_LABELS if m in named), ""),
        named.get("le", ""),
    )


def _matching(series: Mapping[Key, Series], name: str) -> Iterable[tuple[str, Series]]:
    return ((le, s) for (metric, _, le), s in series.items() if metric == name)


def _counter(series: Mapping[Key, Series], names: tuple[str, ...]) -> float | None:
    for name in names:
        found = [s.increase() for _, s in _matching(series, name)]
        if found:
            return sum(found)
    return None


def _marginal(series: Mapping[Key, Series], names: tuple[str, ...]) -> Histogram | None:
    """Lengths of one side, each bucket at the tokens that make the mean the one known (from _sum); the same numbers stand on both sides."""
    for name in names:
        by_edge: dict[float, float] = defaultdict(float)
        for le, s in _matching(series, f"{name}_bucket"):
            by_edge[float((le or "+Inf").replace("+Inf", "inf"))] += s.increase()
        if not by_edge or max(by_edge.values()) <= 0:
            continue
        total = _counter(series, (f"{name}_sum",))
        edges = sorted(by_edge)
        counts = np.diff(np.array([0.0, *(by_edge[e] for e in edges)]))
        bounds = [(max(a, 1.0), max(a, 1.0, b if np.isfinite(b) else min(2 * a, MOST_TOKENS))) for a, b in pairwise([0.0, *edges])]
        some = counts > 0
        tokens = placed(np.array(bounds)[some], counts[some], total / counts[some].sum() if total else None)
        return Histogram(tokens, tokens, counts[some])
    return None


def placed(bounds: Floats, weights: Floats, mean: float | None) -> Floats:
    """Where in its bounds [C, 2] each bucket's requests stand: low (high/low)^t with one t for all, found so that the mean is right; without a
    mean in the middle (on the logarithm)."""
    low, high = bounds.T

    def at(t: float) -> Floats:
        found: Floats = low * (high / low) ** t
        return found

    if mean is None:
        return at(0.5)
    below, above = 0.0, 1.0
    for _ in range(50):
        t = (below + above) / 2
        below, above = (t, above) if float(at(t) @ weights / weights.sum()) < mean else (below, t)
    return at(below)


def _joint(inputs: Histogram, outputs: Histogram) -> Histogram:
    """Independent lengths."""
    share = np.outer(inputs.weights, outputs.weights / outputs.requests)
    return Histogram(np.repeat(inputs.inputs, len(outputs.weights)), np.tile(outputs.outputs, len(inputs.weights)), share.ravel())


def _spread_alone(inputs: Histogram) -> Spread:
    return spread_in(inputs, "inputs")


def _rates(series: Mapping[Key, Series]) -> Arrivals | None:
    """Rates between the samples of a range: requests that finished in each step."""
    for name in INPUT:
        found = [s for _, s in _matching(series, f"{name}_count")] or [s for le, s in _matching(series, f"{name}_bucket") if le == "+Inf"]
        if not found or len(found[0].times) <= LEAST_STEPS:
            continue
        times = found[0].times
        together = [s for s in found if len(s.times) == len(times)]
        steps = np.sum([s.steps() for s in together], axis=0)
        step = float(np.median(np.diff(times)))
        some = steps > 0
        return (
            arrivals(np.flatnonzero(some), np.round(steps[some]).astype(np.int64), step, float(times[-1] - times[0]), None, since_monday(float(times[0])))
            if some.any()
            else None
        )
    return None
