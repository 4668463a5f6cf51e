"""One replica type asked by name: found in the catalogue, checked that it can run, and predicted at several concurrencies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from planner.candidates.eligibility import begins
from planner.candidates.sharding import unsplit
from planner.catalog.catalog import Catalog
from planner.catalog.hardware import known_gpu
from planner.catalog.load import known_name
from planner.catalog.records import Card, Checkpoint, Gpu
from planner.catalog.replica_type import ReplicaType
from planner.errors import PlannerError, did_you_mean
from planner.performance.calibrated import is_of_model
from planner.performance.coefficients import Coefficients, load_coefficients
from planner.performance.evidence import tier_word
from planner.performance.first_token import PARTS
from planner.performance.lengths import LengthMix
from planner.performance.memory import Memory, memory_fit
from planner.performance.predict import TERMS, Breakdown, Loops, Prediction, breakdown, closed_loop, ttft_parts
from planner.performance.replicas import ENGINES, FP8_KV, Floats, Replicas
from planner.performance.residual import residuals_of
from planner.performance.serving import drafted_loop, load_options
from planner.performance.speculation import measured_loads
from planner.performance.versions import stands_for
from planner.validation.predictions import nearest_words

KV_CACHES = ("auto", "fp8", "16-bit")
TP_HINTS = (1, 2, 4, 8, 16)
EXACT = "exact"  # lengths as asked, no benchmark harness's habits
SHARES = ("weights", "kv_cache", "activations", "reserve", "limit")


@dataclass(frozen=True)
class AskedConfiguration:
    """What `plan predict` is asked, as typed."""

    checkpoint: str
    gpu: str
    tp: int
    pp: int
    dp: int
    ep: int
    kv_cache: str  # auto, fp8 or 16-bit
    engine: str
    isl: int
    osl: int
    concurrency: tuple[int, ...]
    confidence: float
    speculative: str = ""  # or mtp: the checkpoint's own layer drafts tokens

    @property
    def replica(self) -> ReplicaType:
        """How one replica lies on its GPUs."""
        return ReplicaType(self.tp, self.pp, self.dp, self.ep, self.kv_cache == "fp8", bool(self.speculative))


@dataclass(frozen=True)
class Configuration:
    """The question in the catalogue's terms."""

    card: Card
    checkpoint: Checkpoint
    gpu: Gpu
    engine: str
    note: str  # which checkpoint stands for a card's name

    def replicas(self, q: AskedConfiguration, tp: int, count: int = 1) -> Replicas:
        """The replica type asked for, at this TP, ``count`` times."""
        fp8_kv = q.kv_cache == "fp8" or (q.kv_cache == "auto" and self.checkpoint.precision in FP8_KV)
        dp, ep = (tp if n > 1 else 1 for n in (q.dp, q.ep))
        one = replace(q.replica, tp=tp, dp=dp, ep=ep, fp8_kv=fp8_kv)
        return Replicas.of(self.card.architecture, self.gpu, self.checkpoint.precision, self.engine, [one] * count)


@dataclass(frozen=True)
class Load:
    """The prediction at one concurrency; milliseconds and tokens/s. ``step_ms`` is where the time of one decode step goes."""

    concurrency: int
    ttft_ms: float
    ttft_low_ms: float
    ttft_high_ms: float
    tpot_ms: float
    tpot_low_ms: float
    tpot_high_ms: float
    tps_per_user: float
    tps_per_gpu: float
    tps: float
    in_flight_decoding: float
    step_ms: dict[str, float]
    bottleneck: str
    ttft_parts_ms: dict[str, float]  # of the mean TTFT, which they add up to


@dataclass(frozen=True)
class Forecast:
    """The whole answer."""

    question: AskedConfiguration
    found: Configuration
    points: tuple[Load, ...]
    memory_gib: dict[str, float]  # per GPU
    slots: int
    kv_gib_per_request: float
    tier: str
    source: str
    as_of: str
    notes: tuple[str, ...]

    @property
    def kv_cache_dtype(self) -> str:
        """What the KV cache is kept in."""
        return "fp8" if self.found.replicas(self.question, self.question.tp).kv_bytes[0] == 1 else "16-bit"

    def to_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        q, f = self.question, self.found
        return {
            "model": f.card.name, "checkpoint": f.checkpoint.id, "precision": f.checkpoint.precision, "engine": f.engine, "gpu": f.gpu.name,
            "tp": q.tp, "pp": q.pp, "dp": q.dp, "ep": q.ep, "kv_cache_dtype": self.kv_cache_dtype, "speculative": q.speculative,
            "input_tokens": q.isl, "output_tokens": q.osl, "confidence": q.confidence,
            "points": [vars(p) for p in self.points],
            "memory_gib": self.memory_gib, "requests_with_room": self.slots, "kv_gib_per_request": self.kv_gib_per_request,
            "evidence": {"tier": self.tier, "source": self.source, "as_of": self.as_of}, "notes": list(self.notes),
        }  # fmt: skip


def forecast(question: AskedConfiguration, catalog: Catalog) -> Forecast:
    """The prediction asked for. Raises PlannerError where it cannot run."""
    q, found = question, find(question, catalog)
    _check(q, found)
    memory = memory_fit(found.replicas(q, q.tp), LengthMix(np.array([float(q.isl)]), np.array([float(q.osl)])))
    _check_memory(q, found, memory)
    coefficients = replace(load_coefficients(catalog.coefficients_file), calibrated=catalog.calibrated)
    count = len(q.concurrency)
    rows, load = found.replicas(q, q.tp, count), np.array(q.concurrency, dtype=float)
    isl, osl = np.full(count, float(q.isl)), np.full(count, float(q.osl))
    loops = Loops(rows, isl, osl, load, (found.card.name,))
    prediction = closed_loop(loops, catalog.measured, coefficients, confidence=q.confidence, harness=EXACT)
    if q.speculative:
        prediction = _drafted(q, found, loops, prediction, catalog)
    steps, first = breakdown(rows, isl, osl, load, coefficients, harness=EXACT), ttft_parts(loops, coefficients, prediction.ttft_ms, harness=EXACT)
    nearest = int(prediction.nearest[0])
    source, as_of = f"{coefficients.source} (no measurement near)", coefficients.fitted
    if nearest >= 0:
        source = nearest_words(catalog.measured[nearest], found.card.name, found.checkpoint.id).rpartition(", ")[0]
        as_of = catalog.measured[nearest].as_of
    slots, used = int(memory.slots[0]), (memory.weights, memory.kv_budget_gib, memory.activations, memory.reserve, memory.limit)
    return Forecast(
        question=q,
        found=found,
        points=tuple(_load(q, prediction, steps, first, j) for j in range(count)),
        memory_gib=dict(zip(SHARES, (_short(x[0]) for x in used), strict=True)),
        slots=slots,
        kv_gib_per_request=_short(memory.kv_gib_per_sequence[0]),
        tier=tier_word(int(prediction.tier[0]), bool(is_of_model(catalog.calibrated, rows, loops.names)[0])),
        source=source,
        as_of=as_of,
        notes=_notes(q, found, slots, _unseen(found, prediction, coefficients, rows), stands_for(rows, (found.card.name,), residuals_of(coefficients), 0)),
    )


def _drafted(q: AskedConfiguration, found: Configuration, loops: Loops, prediction: Prediction, catalog: Catalog) -> Prediction:
    """The prediction with drafted tokens. Raises PlannerError where they were not measured."""
    options = load_options(catalog)
    most = int(measured_loads(options.speculation, loops.replicas, loops.names)[0])
    if loops.concurrency.max() > most:
        where = f"{found.card.name} in {found.checkpoint.precision} on {found.gpu.name} with {found.engine}, TP{q.tp}"
        what = f"of more than {most} requests at once" if most else "at all"
        raise PlannerError(
            f"speculative decoding was not measured {what}: {where}", "--concurrency" if most else "--speculative", "see docs/serving-options.md"
        )
    return drafted_loop(prediction, options, loops, loops.osl, q.confidence)


def _load(q: AskedConfiguration, p: Prediction, parts: Breakdown, first: Mapping[str, Floats], j: int) -> Load:
    """The j-th concurrency."""
    return Load(
        concurrency=q.concurrency[j],
        ttft_ms=_short(p.ttft_ms[j]),
        ttft_low_ms=_short(p.ttft_low[j]),
        ttft_high_ms=_short(p.ttft_high[j]),
        tpot_ms=_short(p.tpot_ms[j]),
        tpot_low_ms=_short(p.tpot_low[j]),
        tpot_high_ms=_short(p.tpot_high[j]),
        tps_per_user=_short(1000 / p.tpot_ms[j]),
        tps_per_gpu=_short(p.output_tps[j] / (q.tp * q.pp)),
        tps=_short(p.output_tps[j]),
        in_flight_decoding=_short(p.in_flight_decoding[j]),
        step_ms={term: _short(getattr(parts, term)[j]) for term in TERMS},
        bottleneck=str(parts.bottleneck[j]),
        ttft_parts_ms={name: _short(first[name][j]) for name in PARTS},
    )


def find(q: AskedConfiguration, catalog: Catalog) -> Configuration:
    """Checkpoint and GPU by name, case ignored. A model's name means its first served checkpoint whose precision the GPU runs."""
    gpu = catalog.gpus[known_gpu(q.gpu, catalog.gpus, "--gpu")]
    engine = known_name(q.engine, ENGINES, "engine", "--engine", f"one of {', '.join(ENGINES)}")
    of_id = {c.id: (card, c) for card in catalog.cards for c in card.checkpoint}
    cards = {card.name: card for card in catalog.cards}
    by_lower = {name.lower(): name for name in (*cards, *of_id)}
    name = by_lower.get(q.checkpoint.lower(), q.checkpoint)
    if name in of_id:
        return Configuration(*of_id[name], gpu, engine, "")
    card, served = checkpoints_called(name, catalog.cards)
    if card is None:
        hint = did_you_mean(q.checkpoint, by_lower.values()) or "see plan catalog models"
        raise PlannerError(f"unknown checkpoint or model '{q.checkpoint}'", "--checkpoint", hint)
    runs = [c for c in served if c.precision in gpu.precisions]
    if not runs:
        raise PlannerError(f"no checkpoint of {name} has a precision that {gpu.name} runs", "--checkpoint", f"it runs {', '.join(gpu.precisions)}")
    note = f"{name} is taken as its first checkpoint that {gpu.name} runs: {runs[0].id}" + (f" (it has {len(served)})." if len(served) > 1 else ".")
    return Configuration(card, runs[0], gpu, engine, note)


def checkpoints_called(name: str, cards: Sequence[Card]) -> tuple[Card | None, list[Checkpoint]]:
    """The card with a checkpoint that begins with these words, and its checkpoints that do; else the card of this name with all of its checkpoints.
    Base checkpoints only where there are no others; no card where the words are those of several, or of none."""
    found = {c.name: [k for k in c.checkpoint if begins(k.id, name)] for c in cards}
    exact = {n: several for n, several in found.items() if several and n.lower() == name.lower()}  # Phi-4 is a card, though Phi-4-mini begins alike
    found = exact or {n: several for n, several in found.items() if several} or {c.name: list(c.checkpoint) for c in cards if c.name.lower() == name.lower()}
    if len(found) != 1:
        return None, []
    ((of, several),) = found.items()
    return next(c for c in cards if c.name == of), [c for c in several if c.variant != "base"] or several


def _check(q: AskedConfiguration, found: Configuration) -> None:
    """Kernels, engine, context and split. Raises PlannerError."""
    checkpoint, gpu = found.checkpoint, found.gpu
    if checkpoint.precision not in gpu.precisions:
        raise PlannerError(
            f"{gpu.name} has no kernels for {checkpoint.precision} ({checkpoint.id})", "--gpu", f"it runs {', '.join(gpu.precisions)}; see plan catalog models"
        )
    if found.engine not in gpu.engines:
        raise PlannerError(f"{found.engine} does not run on {gpu.name}", "--engine", f"one of {', '.join(gpu.engines)}")
    context = checkpoint.max_context or found.card.architecture.max_context
    if q.isl + q.osl > context:
        raise PlannerError(f"{q.isl + q.osl:,} tokens are more than the context of {checkpoint.id}, {context:,}", "--isl", "ask for shorter requests")
    known_name(q.speculative or "mtp", ("mtp",), "way of speculative decoding", "--speculative", "mtp, or leave it out")
    known_name(q.kv_cache, KV_CACHES, "KV cache precision", "--kv-cache-dtype", f"one of {', '.join(KV_CACHES)}")
    if q.kv_cache == "fp8" and "fp8" not in gpu.precisions and checkpoint.precision not in FP8_KV:
        raise PlannerError(f"{gpu.name} has no kernels for an FP8 KV cache", "--kv-cache-dtype", "leave it out")
    if q.kv_cache == "16-bit" and checkpoint.precision in FP8_KV:
        raise PlannerError(f"{checkpoint.id} is served with an FP8 KV cache; nothing was measured with another", "--kv-cache-dtype", "leave it out")
    if q.dp not in (1, q.tp) or q.ep not in (1, q.tp):
        raise PlannerError(f"attention and experts of {q.tp} GPUs are spread over all of them or split by TP", "--dp", f"give --dp {q.tp}, or --ep {q.tp}")
    if q.ep > 1 and (not found.card.architecture.experts or found.card.architecture.experts % q.ep):
        raise PlannerError(f"{checkpoint.id} has {found.card.architecture.experts} experts, which do not spread over {q.ep} GPUs", "--ep")
    why = "" if q.dp > 1 else unsplit(found.card.architecture, checkpoint.fp8_block, q.tp, q.ep)
    if why:
        sizes = [str(tp) for tp in TP_HINTS if not unsplit(found.card.architecture, checkpoint.fp8_block, tp)]
        raise PlannerError(f"{checkpoint.id} does not split by {q.tp}: {why}", "--tp", f"splits by {', '.join(sizes)}")
    if q.pp > found.card.architecture.layers:
        raise PlannerError(f"{found.card.architecture.layers} layers cannot be cut into {q.pp} stages", "--pp")


def _check_memory(q: AskedConfiguration, found: Configuration, memory: Memory) -> None:
    """Room for weights and one request. Raises PlannerError that says what is missing."""
    budget, limit = float(memory.kv_budget_gib[0]), float(memory.limit[0])
    if int(memory.slots[0]) >= 1:
        return
    fits = [tp for tp in TP_HINTS if tp > q.tp and not unsplit(found.card.architecture, found.checkpoint.fp8_block, tp) and _has_room(q, found, tp)]
    hint = f"fits with --tp {fits[0]}" if fits else "take a larger GPU, a smaller precision or --pp"
    name = f"{found.checkpoint.id} on {replace(q.replica, draft=False).words}"
    if budget <= 0:
        used = float(memory.weights[0] + memory.activations[0] + memory.reserve[0])
        detail = f"{used:.1f} GiB per GPU ({memory.weights[0]:.1f} weights), {limit:.1f} usable of {found.gpu.name}"
        raise PlannerError(f"{name} does not fit by {-budget:.1f} GiB: {detail}", "--gpu", hint)
    more = float(memory.kv_gib_per_sequence[0]) - budget
    raise PlannerError(f"{name} leaves {budget:.1f} GiB per GPU for KV cache, {more:.1f} too few for one request of these lengths", "--isl", hint)


def _has_room(q: AskedConfiguration, found: Configuration, tp: int) -> bool:
    return bool(memory_fit(found.replicas(q, tp), LengthMix(np.array([float(q.isl)]), np.array([float(q.osl)]))).slots[0] >= 1)


def _notes(q: AskedConfiguration, found: Configuration, slots: int, unseen: str, version: str) -> tuple[str, ...]:
    notes = [found.note] if found.note else []
    if version:
        notes.append(f"It stands for {version}: the newest that was measured of this model, GPU, precision and engine.")
    if found.checkpoint.variant in ("thinking", "hybrid"):
        notes.append("It can reason: output tokens are all tokens written, reasoning included, and TTFT is to the first of them.")
    over = [c for c in q.concurrency if c > slots]
    if over:
        notes.append(f"The KV cache has room for {slots:,} requests: above that, requests wait and TTFT is mostly waiting.")
    if q.speculative:
        notes.append(
            "Tokens are drafted (MTP): what that gains depends on the traffic, and was measured on random tokens. Where the time goes is shown without it."
        )
    if unseen:
        notes.append(f"{unseen} was in the tests of the fit: the bands are those of unseen generations.")
    return tuple(notes)


def _unseen(found: Configuration, prediction: Prediction, coefficients: Coefficients, rows: Replicas) -> str:
    """What the fit has nothing of; "" where it has."""
    if not prediction.unseen[0]:
        return ""
    untried = f"No attention data parallel on {found.engine}"
    return untried if coefficients.untried(rows)[0] else f"No GPU of the generation of {found.gpu.name}"


def _short(value: Floats | float) -> float:
    return float(f"{float(value):.6g}")
