"""Predicts every measured row: closed loops all at once, open loops by groups of equal lengths.

A row that cannot be predicted keeps its place with the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from planner.bench.labels import labels_of
from planner.bench.points import MeasuredPoint
from planner.catalog.catalog import Catalog
from planner.catalog.names import measured_as
from planner.catalog.records import MeasuredConfiguration
from planner.demand.lengths import lengths_of
from planner.demand.source import read_demand, shapes
from planner.demand.spread import CHAT_INPUT_CV, CHAT_OUTPUT_CV
from planner.performance.bands import latency_bands
from planner.performance.burst import burst_tps
from planner.performance.calibrated import is_of_model
from planner.performance.capacity import capacity, pooled_qps, service
from planner.performance.coefficients import TIERS, UNSEEN, Coefficients, load_coefficients
from planner.performance.evidence import Evidence, dated, evidence, step_shift, tier_word
from planner.performance.lengths import LengthMix, joint_mix, lognormal_mix
from planner.performance.loop import LENGTH_RATIO
from planner.performance.memory import memory_fit
from planner.performance.pools import Pools, predicted
from planner.performance.predict import Loops, closed_loop
from planner.performance.replicas import ENGINES, PRECISIONS, Floats, Ints, Replicas
from planner.performance.residual import residuals_of
from planner.performance.serving import Options, drafted_loop, load_options
from planner.performance.step import CHUNK, GRID, MAX_SEQUENCES, StepCurves, step_curves
from planner.performance.tuning import TUNINGS, tuned, tuned_factor
from planner.performance.versions import month_told
from planner.scenario.records import Tuning
from planner.validation.mapping import CLOSED, DRAFTED, POISSON, SATURATION, SLA, Mapped, burst_size, harness, has_fixed_lengths, map_point, shape_named

EXPECTED = 0.5  # open loops are predicted at the middle of the band
SMALL_STEP = 2048  # max_num_batched_tokens of vLLM's server on small GPUs, see _is_small
FIXED = "fixed"  # lengths, beside names of shipped shapes
DIGITS = 3  # of mean lengths: rows that agree in them share one computation


@dataclass
class RowPrediction:
    """The prediction of one row: numbers by name (ms, tokens/s), or the reason why there is none. Both where only a part is missing."""

    kind: str = ""
    predicted: dict[str, float] = field(default_factory=dict)
    band: dict[str, float] = field(default_factory=dict)  # both ends of what is predicted: ttft_ms_low, ttft_ms_p99_high; infinite: waiting never settles
    tier: str = ""
    nearest: str = ""
    reason: str = ""
    note: str = ""
    request_ms: float = 0.0  # of the TTFT: what a request takes besides its prompt
    stands_for: tuple[str, str, str, int] | None = None  # GPU, engine, architecture and TP, where the row says which


@dataclass(frozen=True)
class Task:
    """The mapped rows as arrays; several may belong to one point, of which the best counts."""

    points: tuple[MeasuredPoint, ...]
    mapped: tuple[Mapped, ...]
    owner: Ints  # mapped row -> answer
    replicas: Replicas
    names: tuple[str, ...]
    catalog: Catalog
    coefficients: Coefficients
    tuning: Tuning
    months: Floats  # when each row ran, nan where that is not told

    def evidence(self, rows: Ints) -> Evidence:
        """Of some of its rows."""
        part = self.replicas.take(rows)
        return dated(evidence(part, self.names, self.catalog.measured, self.tuning), part, self.names, residuals_of(self.coefficients), self.months[rows])


def predict_points(points: Sequence[MeasuredPoint], catalog: Catalog, confidence: float) -> list[RowPrediction]:
    """One answer per row, in the rows' order."""
    answers: dict[int, RowPrediction] = {}
    for tuning in TUNINGS:
        rows = [i for i, p in enumerate(points) if p.tuning == tuning]
        answers |= zip(rows, _alike([points[i] for i in rows], catalog, confidence, tuning), strict=True)
    return [answers[i] for i in range(len(points))]


def _alike(points: Sequence[MeasuredPoint], catalog: Catalog, confidence: float, tuning: Tuning) -> list[RowPrediction]:
    """Rows of engines that were tuned alike."""
    labels = labels_of(catalog)
    answers: list[RowPrediction] = []
    owner: list[int] = []
    mapped: list[Mapped] = []
    for i, point in enumerate(points):
        found = map_point(point, labels)
        answers.append(RowPrediction(reason=found) if isinstance(found, str) else RowPrediction(kind=found[0].kind))
        for m in () if isinstance(found, str) else found:
            owner.append(i)
            mapped.append(m)
    if mapped:
        task = _task(points, mapped, owner, catalog, tuning)
        options = load_options(catalog) if any(m.draft or m.pools for m in mapped) else None
        _closed_loops(task, answers, confidence, options)
        if options:
            _units(task, answers, confidence, options)
        if any(m.kind != CLOSED for m in mapped):
            _open_loops(task, answers, confidence)
        ways, request = Counter(owner), task.coefficients.rows(task.replicas)["request_s"][:, 0].tolist()
        for i, m, seconds in zip(owner, mapped, request, strict=True):
            answers[i].stands_for = None if ways[i] > 1 else (task.replicas.gpus[m.gpu].name, ENGINES[m.engine], task.names[m.card], m.tp)
            answers[i].request_ms = 1000 * seconds
    return answers


def _task(points: Sequence[MeasuredPoint], mapped: Sequence[Mapped], owner: Sequence[int], catalog: Catalog, tuning: Tuning) -> Task:
    def column(name: str) -> Ints:
        return np.array([getattr(m, name) for m in mapped], dtype=np.int64)

    architectures, gpus = tuple(c.architecture for c in catalog.cards), tuple(catalog.gpus.values())
    columns = {name: column(name) for name in ("gpu", "precision", "engine", "tp", "pp", "dp", "draft", "ep")}
    replicas = Replicas(architectures, gpus, column("card"), **columns)
    names = tuple(c.name for c in catalog.cards)
    coefficients = replace(load_coefficients(catalog.coefficients_file), tuned=tuned(tuning, catalog), calibrated=catalog.calibrated)
    residuals, mine = residuals_of(coefficients), tuple(points[i] for i in owner)
    months = [month_told(residuals, ENGINES[m.engine], p.engine_version, p.date) for m, p in zip(mapped, mine, strict=True)]
    return Task(mine, tuple(mapped), np.array(owner, dtype=np.int64), replicas, names, catalog, coefficients, tuning, np.array(months))


def nearest_words(row: MeasuredConfiguration, card: str, label: str) -> str:
    """A measured configuration with its source and date; ``label`` is what was asked for, of ``card``."""
    return f"{measured_as(row.architecture, card, label)} {row.precision} on {row.gpu}, {row.engine}, TP{row.tp}: {row.source}, {row.as_of}"


# ---- closed loops


def _closed_loops(task: Task, answers: list[RowPrediction], confidence: float, options: Options | None) -> None:
    closed = np.array([m.kind == CLOSED and not m.pools for m in task.mapped])
    harnesses = np.array([harness(p) for p in task.points])
    for name in np.unique(harnesses[closed]):
        _closed_loop(task, answers, np.flatnonzero(closed & (harnesses == name)), str(name), confidence, options)


def _closed_loop(task: Task, answers: list[RowPrediction], rows: Ints, name: str, confidence: float, options: Options | None) -> None:
    """All rows of one harness."""
    points, count = [task.points[i] for i in rows], np.array([task.mapped[i].replicas for i in rows], dtype=float)
    isl, osl = np.array([p.isl for p in points]), np.array([p.osl for p in points])
    each = np.maximum(np.array([p.concurrency for p in points], dtype=float) / count, 1.0)
    part = task.replicas.take(rows)
    own = is_of_model(task.catalog.calibrated, part, task.names)
    polls = np.array([p.poll_steps for p in points], dtype=float)
    loops = Loops(part, isl, osl, each, task.names, task.months[rows], polls)
    found = closed_loop(loops, task.catalog.measured, task.coefficients, confidence=confidence, harness=name, tuning=task.tuning)
    if options and part.draft.any():
        found = drafted_loop(found, options, loops, osl * LENGTH_RATIO[name], confidence)
    for j, i in enumerate(task.owner[rows].tolist()):
        answer = answers[i]
        if not found.fits[j]:
            answer.reason = too_large(part.take(np.array([j])))
            continue
        if np.isnan(found.tpot_ms[j]):
            answer.reason = f"speculative decoding ({DRAFTED}) was not measured on this replica type at this load"
            continue
        answer.note = task.mapped[rows[j]].note
        answer.predicted = {
            "ttft_ms": float(found.ttft_ms[j]),
            "tpot_ms": float(found.tpot_ms[j]),
            "output_tps": float(found.output_tps[j] * count[j]),
        }
        answer.band = {f"{m}_ms_{side}": float(getattr(found, f"{m}_{side}")[j]) for m in ("ttft", "tpot") for side in ("low", "high")}
        answer.tier = tier_word(int(found.tier[j]), bool(own[j]))
        answer.nearest = _nearest(task, rows[j], int(found.nearest[j]))


def _units(task: Task, answers: list[RowPrediction], confidence: float, options: Options) -> None:
    """Disaggregated units: TPOT and tokens/s. TTFT of closed loops, which is start-up and admission of the benchmark, is not predicted."""
    rows = [i for i, m in enumerate(task.mapped) if m.pools]
    if not rows:
        return
    runs = [_run(task, i) for i in rows]
    found = predicted(runs, task.catalog, task.coefficients)
    known, sides = task.evidence(np.array(rows)), _unit_sides(task, np.array(rows), options, confidence)
    for j, i in enumerate(rows):
        answer = answers[task.owner[i]]
        if found.slots[j] < 1:
            answer.reason = too_large(task.replicas.take(np.array([i])))
            continue
        answer.predicted = {"tpot_ms": 1000 * float(found.tpot_s[j]), "output_tps": float(found.tps[j])}
        answer.band = {f"tpot_ms_{side}": answer.predicted["tpot_ms"] * float(factor[j]) for side, factor in sides.items()}
        answer.tier, answer.nearest = TIERS[max(int(known.tier[j]), 1)], _nearest(task, i, int(known.nearest[j]))
        answer.note, answer.reason = task.mapped[i].note, "TTFT of closed loops on disaggregated units is not predicted"


def _unit_sides(task: Task, rows: Ints, options: Options, confidence: float) -> dict[str, Floats]:
    """Ends of the band over the prediction [rows]: of units' own errors, or of how engines so tuned spread where that is wider."""
    part, one = task.replicas.take(rows), np.ones(len(rows))
    middle = tuned_factor(task.coefficients, part, EXPECTED * one, one)
    sides = {"low": 1 - confidence, "high": confidence}
    own = {side: options.errors.step(share) * one for side, share in sides.items()}
    return {side: own[side] * tuned_factor(task.coefficients, part, share * one, own[side]) / middle for side, share in sides.items()}


def _run(task: Task, i: int) -> Pools:
    """A row as the run of a unit; what it measured takes no part in the prediction."""
    point, m = task.points[i], task.mapped[i]
    assert m.pools
    sizes, ratio = m.pools, LENGTH_RATIO[harness(point)]
    named = (task.names[m.card], task.replicas.gpus[m.gpu].name, PRECISIONS[m.precision], ENGINES[m.engine])
    return Pools(*named, *sizes, point.isl * ratio, point.osl * ratio, float(point.concurrency or 1.0), 0.0, 0.0, 0.0, "none")


def _nearest(task: Task, row: int, index: int) -> str:
    return nearest_words(task.catalog.measured[index], task.names[task.mapped[row].card], task.points[row].model) if index >= 0 else ""


def too_large(one: Replicas) -> str:
    """Why a single replica type has no room, in numbers."""
    memory = memory_fit(one, LengthMix(np.ones(1), np.ones(1)))
    used = float(memory.weights[0] + memory.activations[0] + memory.reserve[0])
    if memory.kv_budget_gib[0] > 0:
        return f"no room for one request's KV cache in the {memory.kv_budget_gib[0]:.1f} GiB left per GPU"
    return f"does not fit in memory: {used:.1f} GiB per GPU of {memory.limit[0]:.1f}"


# ---- open loops


def _open_loops(task: Task, answers: list[RowPrediction], confidence: float) -> None:
    """Groups of rows with equal lengths, each as one computation."""
    rows = np.array([i for i, m in enumerate(task.mapped) if m.kind != CLOSED], dtype=np.int64)
    part = task.replicas.take(rows)
    known, own = task.evidence(rows), is_of_model(task.catalog.calibrated, part, task.names)
    shapes_of: dict[int, list[RowPrediction]] = {}  # where a row leaves TP open, the shape that serves most stands for it
    coefficients = unbiased(task.coefficients)
    groups: dict[tuple[float, float, str, int], list[int]] = {}
    known_shapes = shapes()
    for j, (i, tokens) in enumerate(zip(rows.tolist(), np.where(_is_small(part), SMALL_STEP, CHUNK).tolist(), strict=True)):
        point = task.points[i]
        lengths = FIXED if has_fixed_lengths(point) else shape_named(point, known_shapes)
        groups.setdefault((_rounded(point.isl), _rounded(point.osl), lengths, tokens), []).append(j)
    for (isl, osl, lengths, tokens), members in groups.items():
        here = np.array(members, dtype=np.int64)
        mix, sub = _mix(isl, osl, lengths), part.take(here)
        physics = step_curves(sub.compact(), mix, coefficients, batched_tokens=tokens)
        ends = ((EXPECTED, coefficients), (confidence, task.coefficients), (1 - confidence, task.coefficients))
        shifts = [step_shift(known.take(here), sub, task.names, c, sure, mix, GRID) for sure, c in ends]
        curves, *others = (physics.pulled(shift.step, shift.prompt, mix, shift.overhead) for shift in shifts)
        seqs = np.minimum(memory_fit(sub, mix, max_num_batched_tokens=tokens).slots, default_max_num_seqs(sub))
        points, mapped = [task.points[i] for i in rows[here]], [task.mapped[i] for i in rows[here]]
        found = _open_loop(points, mapped, sub, mix, curves, seqs)
        rates = np.array([(p.request_rate or 0.0) / m.replicas for p, m in zip(points, mapped, strict=True)])
        _bands(found, rates, mix, (curves, *others), seqs, confidence)
        for j, answer in zip(here.tolist(), found, strict=True):
            answer.tier = tier_word(int(known.tier[j]), bool(own[j])) if answer.predicted else ""
            answer.nearest = _nearest(task, rows[j], int(known.nearest[j])) if answer.predicted else ""
            answer.note = "; ".join(x for x in (answer.note, f"lengths spread as in {lengths}" if lengths in known_shapes else "") if x)
            shapes_of.setdefault(int(task.owner[rows[j]]), []).append(answer)
    for i, several in shapes_of.items():
        answers[i] = max(several, key=lambda a: a.predicted.get("output_tps", -1.0))


def _mix(isl: float, osl: float, lengths: str) -> LengthMix:
    """Lengths of these means: fixed, spread as in a shipped shape, or as in chat."""
    if lengths == FIXED:
        return lognormal_mix(isl, osl, 0.0, 0.0)
    histogram = read_demand(lengths).histogram if lengths else None
    return joint_mix(lengths_of(histogram, lengths).points, isl, osl) if histogram else lognormal_mix(isl, osl, CHAT_INPUT_CV, CHAT_OUTPUT_CV)


def _bands(found: Sequence[RowPrediction], rates: Floats, mix: LengthMix, curves: tuple[StepCurves, ...], max_num_seqs: Ints, confidence: float) -> None:
    """Sets the bands of the latencies of Poisson rows; ``curves``: expected, at the confidence, and at its other end."""
    rows = np.flatnonzero(["ttft_ms" in answer.predicted for answer in found])
    if not len(rows):
        return
    middle, slow, fast = (service(c.take(rows), mix, rates[rows], max_num_seqs[rows]) for c in curves)
    for k, j in enumerate(rows.tolist()):
        for side, at, sure in (("high", slow, confidence), ("low", fast, 1 - confidence)):
            for metric, seconds in latency_bands(middle.row(k), at.row(k), sure).items():
                named = {f"{metric}_ms" if name == "mean" else f"{metric}_ms_{name}": value for name, value in seconds.items()}
                found[j].band |= {f"{name}_{side}": value * 1000 for name, value in named.items()}


def unbiased(coefficients: Coefficients) -> Coefficients:
    """The same without the bias of unseen generations: those tested were of one vendor, which tells how far off another can be, not to which side."""
    quantiles = coefficients.step_quantiles
    return replace(coefficients, step_quantiles={**quantiles, UNSEEN: quantiles[TIERS[-1]]})


def _rounded(tokens: float) -> float:
    return float(f"{tokens:.{DIGITS}g}")


def default_max_num_seqs(replicas: Replicas) -> Ints:
    """Sequences that engines admit unless told otherwise: vLLM 256 where GPUs are small, else 1,024; the others fill the KV cache."""
    found: Ints = np.where(_is_small(replicas), 256, MAX_SEQUENCES).astype(np.int64)
    return found


def _is_small(replicas: Replicas) -> NDArray[np.bool_]:
    """Where vLLM takes its smaller defaults: GPUs below 70 GiB and A100s (github:vllm-project/vllm vllm/engine/arg_utils.py, get_batch_defaults)."""
    large = replicas.of_gpu(lambda g: float(g.memory_gib >= 70 and "A100" not in g.name)) > 0
    found: NDArray[np.bool_] = (replicas.engine == ENGINES.index("vllm")) & ~large
    return found


def _open_loop(
    points: Sequence[MeasuredPoint], mapped: Sequence[Mapped], replicas: Replicas, mix: LengthMix, curves: StepCurves, max_num_seqs: Ints
) -> list[RowPrediction]:
    """Saturated tokens/s of all rows; percentiles of Poisson rows; the largest rate within the limits of sla rows."""
    count, osl = np.array([m.replicas for m in mapped], dtype=np.int64), np.array([p.osl for p in points])
    most = capacity(curves, mix, (), max_num_seqs).qps_saturated
    is_poisson = np.array([m.kind == POISSON for m in mapped])
    rate = np.array([p.request_rate or 0.0 for p in points]) / count
    steady = is_poisson & (rate < most)
    served: Floats = np.where(steady, rate, most) * count.astype(float)
    _bursts(served, points, mapped, mix, curves, max_num_seqs)
    _within_limits(served, mapped, mix, curves, max_num_seqs)
    percentiles = _percentiles(curves.take(steady), mix, rate[steady], max_num_seqs[steady])
    place = np.cumsum(steady) - 1
    answers = []
    for j, m in enumerate(mapped):
        answer = RowPrediction(kind=m.kind, note=m.note)
        answers.append(answer)
        if max_num_seqs[j] < 1 or served[j] <= 0:
            answer.reason = too_large(replicas.take(np.array([j]))) if max_num_seqs[j] < 1 else "the limits cannot be met at any rate"
            continue
        answer.predicted = {"output_tps": float(served[j] * osl[j])}
        if steady[j]:
            answer.predicted |= {name: float(values[place[j]]) for name, values in percentiles.items()}
        elif is_poisson[j]:
            answer.reason = f"more is offered than the {most[j] * count[j]:.3g} req/s it can serve: waiting never settles, so no percentiles"
    return answers


def _bursts(served: Floats, points: Sequence[MeasuredPoint], mapped: Sequence[Mapped], mix: LengthMix, curves: StepCurves, max_num_seqs: Ints) -> None:
    """Sets ``served`` of bursts to what all their replicas finish per second, which share the requests."""
    here = np.array([j for j, m in enumerate(mapped) if m.kind == SATURATION], dtype=np.int64)
    count: Floats = np.array([m.replicas for m in mapped], dtype=np.float64)[here]
    requests: Floats = np.ceil(np.array([burst_size(p) for p in points])[here] / count)
    served[here] = burst_tps(curves.take(here), mix, max_num_seqs[here], requests) / mix.mean_output * count


def _within_limits(served: Floats, mapped: Sequence[Mapped], mix: LengthMix, curves: StepCurves, max_num_seqs: Ints) -> None:
    """Sets ``served`` of sla rows to the largest rate of all their replicas at which the limits hold."""
    for limits in {m.limits for m in mapped if m.kind == SLA}:
        here = np.flatnonzero([m.kind == SLA and m.limits == limits for m in mapped])
        count = np.array([m.replicas for m in mapped], dtype=np.int64)[here]
        found = capacity(curves.take(here), mix, limits, max_num_seqs[here])
        served[here] = pooled_qps(found.qps, found.qps_saturated, count) * count


def _percentiles(curves: StepCurves, mix: LengthMix, rate: Floats, max_num_seqs: Ints) -> dict[str, Floats]:
    """Means and percentiles [P] of TTFT, TPOT and E2E, in ms, at a Poisson rate per replica."""
    if not len(rate):
        return {}
    found = service(curves, mix, rate, max_num_seqs)
    values = {}
    for metric, shares in (("ttft", found.ttft_s), ("tpot", found.tpot_s), ("e2e", found.e2e_s)):
        for share, seconds in shares.items():
            values[f"{metric}_ms" if share == "mean" else f"{metric}_ms_{share}"] = seconds * 1000
    return values
