"""The frontier of one model: what a GPU yields (or a token costs) against how fast each user is served, over GPUs, TP and engines.

Only what no other choice beats in both is kept; the rest is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from planner.candidates.sharding import unsplit
from planner.candidates.survey import TP_SIZES
from planner.catalog.catalog import Catalog
from planner.catalog.hardware import known_gpus
from planner.catalog.load import known_name
from planner.catalog.records import Card, Checkpoint, Gpu
from planner.economics.curve import UserLimits, cheapest_offer, shortened
from planner.errors import PlannerError, did_you_mean
from planner.performance.coefficients import TIERS, load_coefficients
from planner.performance.lengths import LengthMix
from planner.performance.memory import memory_fit
from planner.performance.predict import Loops, closed_loop
from planner.performance.replicas import ENGINES, PRECISIONS, Floats, Ints, Replicas
from planner.performance.step import MAX_SEQUENCES
from planner.raw import Raw
from planner.validation.single import EXACT, checkpoints_called

LOADS: Ints = np.unique(np.round(2 ** (np.arange(21) / 2)).astype(np.int64))  # 1 to 1,024, two to a doubling
Axis = Literal["throughput", "cost"]


@dataclass(frozen=True)
class SpeedPoint:
    """One replica type at one load; means of a closed loop, cost at the cheapest admitted offer."""

    checkpoint: str
    precision: str
    gpu: str
    tp: int
    ep: int
    engine: str
    concurrency: int
    ttft_ms: float
    tps_per_user: float
    tps_per_gpu: float
    usd_per_million_output: float
    tier: str


@dataclass(frozen=True)
class SpeedFrontier:
    """Unbeaten points by rising speed. ``tried``: replica types and loads compared; ``late``: loads left out because TTFT is over the limit."""

    model: str
    input_tokens: int
    output_tokens: int
    by: Axis
    max_ttft_s: float
    points: tuple[SpeedPoint, ...]
    replica_types: int
    tried: int
    late: int

    def to_dict(self) -> Raw:
        """Plain data for JSON; six significant digits."""
        return {key: shortened(value) for key, value in asdict(self).items()}


def speed_frontier(
    model: str, catalog: Catalog, *, isl: int, osl: int, by: Axis = "throughput", gpu: str = "", engine: str = "", max_ttft_s: float = UserLimits().max_ttft_s
) -> SpeedFrontier:
    """Pareto set of tokens/s per user and tokens/s per GPU (by = "cost": dollars per million output tokens, at the cheapest admitted offers).

    model: a model (all its served checkpoints) or one checkpoint. Over every GPU that some offer plans admit by default has, TP 1 to 8 and every engine,
    or only the ones named. Raises PlannerError where nothing can run.
    """
    card, checkpoints = _named(model, catalog, isl + osl)
    engines = [known_name(engine, ENGINES, "engine", "--engine", f"one of {', '.join(ENGINES)}")] if engine else list(ENGINES)
    gpus = [catalog.gpus[g] for g in known_gpus(gpu, catalog.gpus, "--gpu")] if gpu else list(catalog.gpus.values())
    types = [t for c in checkpoints for g in gpus for tp in TP_SIZES for t in _types(card, c, g, tp, engines, catalog)]
    mix = LengthMix(np.array([float(isl)]), np.array([float(osl)]))
    if types:
        fits = memory_fit(_replicas(card, types), mix).slots
        types, slots = [t for t, s in zip(types, fits, strict=True) if s >= 1], fits[fits >= 1]
    if not types:
        raise PlannerError(f"no GPU on offer can serve {model} with {isl + osl:,} tokens per request", "--gpu" if gpu else "MODEL", "see plan catalog prices")
    which, load = np.nonzero(LOADS[None, :] <= np.minimum(slots, MAX_SEQUENCES)[:, None])
    n = LOADS[load].astype(float)
    rows, coefficients = _replicas(card, types).take(which), load_coefficients(catalog.coefficients_file)
    loops = Loops(rows, np.full(len(n), float(isl)), np.full(len(n), float(osl)), n, (card.name,))
    p = closed_loop(loops, catalog.measured, coefficients, harness=EXACT)
    per_user, per_gpu = 1000 / p.tpot_ms, p.output_tps / rows.tp
    price = np.array([t.usd_per_gpu_hour for t in types])[which]
    cost = price * 1e6 / 3600 / per_gpu
    in_time = p.ttft_ms <= max_ttft_s * 1000
    worth = np.where(in_time, -cost if by == "cost" else per_gpu, -np.inf)
    points = tuple(
        SpeedPoint(
            t.checkpoint.id, t.checkpoint.precision, t.gpu.name, t.tp, t.ep, t.engine, int(n[i]),
            float(p.ttft_ms[i]), float(per_user[i]), float(per_gpu[i]), float(cost[i]), TIERS[int(p.tier[i])],
        )
        for i in unbeaten(per_user, worth) if in_time[i] for t in (types[which[i]],)
    )  # fmt: skip
    return SpeedFrontier(
        card.name if model.lower() == card.name.lower() else model, isl, osl, by, max_ttft_s, points, len(types), len(n), int((~in_time).sum())
    )


def unbeaten(speed: Floats, worth: Floats) -> list[int]:
    """Indices that no other point matches in both, more being better, by rising speed; of equal points the first."""
    order = np.lexsort((np.arange(len(speed)), -worth, -speed))
    best, kept = -np.inf, []
    for i in order.tolist():
        if worth[i] > best:
            best = worth[i]
            kept.append(i)
    return kept[::-1]


@dataclass(frozen=True)
class _Type:
    """One replica type that can be bought."""

    checkpoint: Checkpoint
    gpu: Gpu
    tp: int
    ep: int
    engine: str
    usd_per_gpu_hour: float


def _named(word: str, catalog: Catalog, tokens: int) -> tuple[Card, list[Checkpoint]]:
    """The card and its checkpoints that serve, or the one named. Raises PlannerError."""
    found = next(((card, [c]) for card in catalog.cards for c in card.checkpoint if c.id.lower() == word.lower()), None)
    card, several = found or checkpoints_called(word, catalog.cards)
    if card is None:
        names = [n for card in catalog.cards for n in (card.name, *(c.id for c in card.checkpoint))]
        raise PlannerError(f"unknown checkpoint or model '{word}'", "MODEL", did_you_mean(word, names) or "see plan catalog models")
    long = [c for c in several if tokens <= (c.max_context or card.architecture.max_context)]
    if not long:
        raise PlannerError(f"{tokens:,} tokens are more than the context of {word}", "--isl", "ask for shorter requests")
    return card, list({(c.precision, c.fp8_block): c for c in reversed(long)}.values())[::-1]  # one for each physics, the first named


def _types(card: Card, checkpoint: Checkpoint, gpu: Gpu, tp: int, engines: Sequence[str], catalog: Catalog) -> list[_Type]:
    """The replica types of one checkpoint on one GPU; experts are spread whole where TP would cut FP8 blocks. None without kernels or offers."""
    ep = next((ep for ep in (1, tp) if not unsplit(card.architecture, checkpoint.fp8_block, tp, ep)), 0)
    offer = cheapest_offer(catalog, gpu.name, tp, 1) if ep and checkpoint.precision in gpu.precisions else None
    return [_Type(checkpoint, gpu, tp, ep, e, offer.usd_per_hour / offer.gpus_per_instance) for e in engines if e in gpu.engines] if offer else []


def _replicas(card: Card, types: Sequence[_Type]) -> Replicas:
    gpus = tuple({t.gpu.name: t.gpu for t in types}.values())
    index = {g.name: i for i, g in enumerate(gpus)}

    def column(values: list[int]) -> NDArray[np.int64]:
        return np.array(values, dtype=np.int64)

    return Replicas(
        (card.architecture,), gpus,
        column([0] * len(types)), column([index[t.gpu.name] for t in types]), column([PRECISIONS.index(t.checkpoint.precision) for t in types]),
        column([ENGINES.index(t.engine) for t in types]), column([t.tp for t in types]), column([1] * len(types)), ep=column([t.ep for t in types]),
    )  # fmt: skip
