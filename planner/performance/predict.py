"""Predictions of closed loops: mean TTFT, TPOT and tokens/s with bands, and where the time of a decode step goes.

Physics of ``loop``, corrected by the kriged residual, then made monotone in the load and kept within the limits of the hardware.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import product

import numpy as np
from numpy.typing import NDArray

from planner.catalog.records import MeasuredConfiguration
from planner.performance.calibrated import Calibrated, calibrated, sure_factor
from planner.performance.coefficients import TIERS, Coefficients, by_level, stacks
from planner.performance.evidence import dated, evidence
from planner.performance.first_token import parts_of, scaled_to
from planner.performance.loop import (
    LENGTH_RATIO,
    Loop,
    LoopCurves,
    at_concurrency,
    loop,
    loop_columns,
    loop_curves,
    means_of,
    prompt_floor,
    prompt_seconds,
    step_floor,
    steps_waited,
    straight,
    usable,
)  # fmt: skip
from planner.performance.replicas import COLUMNS, Floats, Ints, Replicas
from planner.performance.residual import Features, Residual, Residuals, between_loads, features, residuals_of
from planner.performance.step import all_reduce, computing, decode_step, layer_overhead, product_time, reading
from planner.performance.tuning import RECIPE, tuned_factor
from planner.scenario.records import Tuning

METRICS = ("ttft", "tpot", "tps")
TERMS = ("weights", "kv", "compute", "all_reduce", "overhead", "prefill")


@dataclass(frozen=True)
class Prediction:
    """Means of a closed loop [P]. Where ``fits`` is False the numbers are those of a single slot and mean nothing.

    output_tps counts all GPUs of the replica. Each bound of a band is exceeded, on its side, with 1 - confidence.
    """

    ttft_ms: Floats
    tpot_ms: Floats
    output_tps: Floats
    in_flight_decoding: Floats
    ttft_low: Floats
    ttft_high: Floats
    tpot_low: Floats
    tpot_high: Floats
    tps_low: Floats
    tps_high: Floats
    tier: Ints  # index into TIERS
    unseen: NDArray[np.bool_]  # GPU of a generation never tested: the band is that of such generations
    nearest: Ints  # index into measured, -1 = none
    fits: NDArray[np.bool_]


@dataclass(frozen=True)
class Breakdown:
    """Milliseconds per decode step [P]; they add up to TPOT of the physics. ``bottleneck`` names the largest."""

    weights: Floats
    kv: Floats
    compute: Floats
    all_reduce: Floats
    overhead: Floats
    prefill: Floats  # interference: prompts that take the place of finished requests
    bottleneck: NDArray[np.str_]


@dataclass(frozen=True)
class Loops:
    """Closed loops [P]: a replica each, with ``concurrency`` requests of nominal lengths; ``names`` names the rows of ``replicas.architectures``."""

    replicas: Replicas
    isl: Floats
    osl: Floats
    concurrency: Floats
    names: Sequence[str]
    months: Floats | None = None  # when they ran, where that is told (``Features.months``)
    poll_steps: Floats | None = None  # between two looks for new requests; where not told, every step


def closed_loop(
    loops: Loops, measured: Sequence[MeasuredConfiguration], coefficients: Coefficients, confidence: float = 0.9, harness: str = "inferencex",
    tuning: Tuning = RECIPE,
) -> Prediction:  # fmt: skip
    """Means of closed loops.

    harness: whose lengths and overheads: "inferencex" (0.9 x nominal on average), "nvidia", or "exact" (lengths as given).
    """
    replicas, names = loops.replicas, loops.names
    residuals = residuals_of(coefficients)
    lengths = [np.broadcast_to(np.asarray(tokens, dtype=float), len(replicas)) for tokens in (loops.isl, loops.osl)]
    months = np.full(len(replicas), np.nan) if loops.months is None else loops.months
    found = dated(evidence(replicas, tuple(names), measured, tuning), replicas, tuple(names), residuals, months)
    polls = np.ones(len(replicas)) if loops.poll_steps is None else loops.poll_steps
    first, same = _distinct(replicas, *lengths, np.nan_to_num(months, nan=-1), polls)
    work = _work(replicas.take(first), lengths[0][first], lengths[1][first], harness, polls[first])
    e = loop_columns(work.replicas, coefficients, residuals.terms, harness == "nvidia")
    curves = corrected(work, loop_curves(work, e), residuals, features(work.replicas, names, work.input_tokens, work.output_tokens, months[first])).take(same)
    load, output = np.maximum(np.asarray(loops.concurrency, dtype=float), 1.0), work.output_tokens[same]
    ttft, tpot = at_concurrency(curves, load, output)
    unseen = coefficients.unseen(replicas)
    level, even = np.where(unseen, len(TIERS), found.tier), np.full(len(replicas), 0.5)
    slower = tuned_factor(coefficients, replicas, even, np.ones(len(replicas)))
    ttft, tpot = ttft * slower, tpot * slower
    own = calibrated(coefficients.calibrated, replicas, names) if coefficients.calibrated else None
    if own is not None:  # the start-up of a benchmark is no part of what a request takes besides its prompt
        request = np.minimum(e["request_s"][:, 0][same], ttft)
        ttft, tpot = request * own.overhead + (ttft - request) * own.prompt, tpot * own.step
    tps = load * output / (ttft + tpot * (output - 1))
    bands = _bands((ttft * 1000, tpot * 1000, tps), level, replicas, residuals, confidence)
    if own is not None:
        bands = _own_bands(bands, (ttft * 1000, tpot * 1000, tps), own, residuals, confidence)
    if coefficients.tuned:
        bands = _tuned_bands(bands, (ttft * 1000, tpot * 1000, tps), slower, coefficients, replicas, confidence)
    return Prediction(
        ttft_ms=ttft * 1000, tpot_ms=tpot * 1000, output_tps=tps, in_flight_decoding=tps * tpot * (output - 1) / output,
        tier=found.tier, unseen=unseen, nearest=found.nearest, fits=usable(work)[same], **bands,
    )  # fmt: skip


def _distinct(replicas: Replicas, *others: Floats) -> tuple[Ints, Ints]:
    """The first row of each configuration, and the configuration of each row: the loads of one share a curve."""
    columns = (*(getattr(replicas, name) for name in COLUMNS), *others)
    _, first, same = np.unique(np.stack(columns, axis=1), axis=0, return_index=True, return_inverse=True)
    return first, same.ravel()


def _bands(values: tuple[Floats, Floats, Floats], level: Ints, replicas: Replicas, residuals: Residuals, confidence: float) -> dict[str, Floats]:
    """Both bounds of each metric by level of evidence and stack."""
    found = {f"{metric}_{side}": value.copy() for metric, value in zip(METRICS, values, strict=True) for side in ("low", "high")}
    for stack, rows in stacks(replicas) if residuals.quantiles else ():
        for metric, side in product(METRICS, ("low", "high")):
            shares = np.full(len(rows), confidence if side == "high" else 1 - confidence)
            found[f"{metric}_{side}"][rows] *= by_level(residuals.tables(metric, stack), level[rows], shares)
    return found


def _own_bands(
    bands: Mapping[str, Floats], values: tuple[Floats, Floats, Floats], own: Calibrated, residuals: Residuals, confidence: float
) -> dict[str, Floats]:
    """Bands of TPOT and tokens/s where the user's measurements speak: as far as these scatter, but never surer than the surest tier."""
    found, surest = dict(bands), np.zeros(len(own.sd), dtype=np.int64)
    for metric, value in zip(METRICS, values, strict=True):
        table = residuals.quantiles.get(metric)
        for side, share in (("high", confidence), ("low", 1 - confidence)):
            mine = sure_factor(own.sd, np.full(len(own.sd), share))
            least = by_level(table, surest, np.full(len(own.sd), share)) if table else np.ones(len(own.sd))
            shipped = bands[f"{metric}_{side}"] / value
            near = np.maximum(np.minimum(mine, shipped), least) if side == "high" else np.minimum(np.maximum(mine, shipped), least)
            if metric != "ttft":
                found[f"{metric}_{side}"] = np.where(own.is_known, value * near, bands[f"{metric}_{side}"])
    return found


def _tuned_bands(
    bands: Mapping[str, Floats], values: tuple[Floats, Floats, Floats], slower: Floats, coefficients: Coefficients, replicas: Replicas, confidence: float
) -> dict[str, Floats]:
    """Bands at least as wide as those of how engines so tuned differ."""
    one, sides = np.ones(len(replicas)), {"high": confidence, "low": 1 - confidence}
    spread = {side: tuned_factor(coefficients, replicas, np.full(len(replicas), share), one) / slower for side, share in sides.items()}
    found = {}
    for metric, value in zip(METRICS, values, strict=True):
        own = {"high": 1 / spread["low"], "low": 1 / spread["high"]} if metric == "tps" else spread  # more time, fewer tokens
        found[f"{metric}_high"] = np.maximum(bands[f"{metric}_high"], value * own["high"])
        found[f"{metric}_low"] = np.minimum(bands[f"{metric}_low"], value * own["low"])
    return found


def _work(replicas: Replicas, isl: Floats, osl: Floats, harness: str, poll_steps: Floats | None = None) -> Loop:
    ratio = LENGTH_RATIO[harness]
    return loop(replicas, np.maximum(np.asarray(isl) * ratio, 1.0), np.maximum(np.asarray(osl) * ratio, 1.0), poll_steps)


def corrected(work: Loop, curves: LoopCurves, residuals: Residuals, asked: Features) -> LoopCurves:
    """The curves times the kriged residual at each load, monotone and within physical limits."""
    load = np.log2(np.maximum(curves.concurrency, 1.0))
    tpot = curves.tpot_s * _correction(residuals.tpot, asked, load)
    ttft = curves.ttft_s * _correction(residuals.ttft, asked, load)
    room = np.maximum(work.slots, 1)[:, None].astype(float)
    tpot = np.maximum(tpot, step_floor(work, np.minimum(curves.concurrency, room)))
    ttft = np.maximum(ttft, prompt_floor(work)[:, None])
    return monotone(LoopCurves(curves.decoding, curves.concurrency, ttft, tpot), work.output_tokens, room)


def _correction(process: Residual | None, asked: Features, load: Floats) -> Floats:
    """exp of the residual, straight between the loads at which it is known."""
    if process is None:
        return np.ones_like(load)
    found: Floats = np.exp(between_loads(process.at_loads(asked), load))
    return found


def monotone(curves: LoopCurves, output_tokens: Floats, room: Floats) -> LoopCurves:
    """TPOT never falls along the curve, and the time of a request never grows faster than the load, so tokens/s never fall.

    Nor do more sequences decode than have ``room`` [P, 1]: others wait. All hold at the points of the curve and on the lines between.
    """
    ttft, tpot, load = curves.ttft_s.copy(), curves.tpot_s.copy(), curves.concurrency
    others = output_tokens - 1
    for j in range(1, load.shape[1]):
        growth, crowd = load[:, j] / load[:, j - 1], np.maximum(load[:, j] / room[:, 0], 1.0)
        whole = growth * (ttft[:, j - 1] + others * tpot[:, j - 1])
        most = (whole - ttft[:, j - 1]) / np.maximum(others * crowd, 1e-9)  # leaves TTFT what it was at least
        tpot[:, j] = np.clip(tpot[:, j], tpot[:, j - 1], np.maximum(most, tpot[:, j - 1]))
        decode = others * tpot[:, j]
        ttft[:, j] = np.clip(ttft[:, j], np.minimum(decode * (crowd - 1), whole - decode), whole - decode)
    return LoopCurves(curves.decoding, load, ttft, tpot)


def breakdown(replicas: Replicas, isl: Floats, osl: Floats, concurrency: Floats, coefficients: Coefficients, harness: str = "inferencex") -> Breakdown:
    """Where a decode step of the physics goes at these loads. Reading weights and computing overlap: the time of the products is split by their cubes."""
    work = _work(replicas, isl, osl, harness)
    e = loop_columns(replicas, coefficients, residuals_of(coefficients).terms, harness == "nvidia")
    curves = loop_curves(work, e)
    load = np.maximum(np.asarray(concurrency, dtype=float), 1.0)
    decoding = np.minimum(straight(curves.concurrency, np.clip(load, 1.0, curves.concurrency[:, -1]), curves.decoding), load)[:, None]
    s = work.shape
    batch = np.maximum(decoding / s.pp[:, None], 1.0)
    weights, compute = reading(s, batch), computing(s) * batch
    products, others = product_time(e, batch), all_reduce(s, e, batch)
    overhead = layer_overhead(s, e) + e["step_s"] * s.pp[:, None] + e["sequence_s"] * batch
    kv = decode_step(s, e, work.kv_read, decoding) - products - others - overhead
    both = products / (weights**3 + compute**3)
    prompts = np.maximum(decoding - 1, 0.0) / work.output_tokens[:, None] * prompt_seconds(work, e) / e["vendor"]
    parts = {
        "weights": both * weights**3,
        "kv": kv,
        "compute": both * compute**3,
        "all_reduce": others,
        "overhead": overhead,
        "prefill": prompts,
    }
    milliseconds = {name: (value * e["vendor"] * 1000)[:, 0] for name, value in parts.items()}
    largest = np.argmax(np.stack([milliseconds[name] for name in TERMS]), axis=0)
    return Breakdown(**milliseconds, bottleneck=np.array(TERMS)[largest])


def ttft_parts(loops: Loops, coefficients: Coefficients, ttft_ms: Floats, harness: str = "inferencex") -> dict[str, Floats]:
    """Milliseconds [P] of each of ``first_token.PARTS`` at these loads, which add up to ``ttft_ms`` [P]: the physics' parts, in proportion.

    Of the steps that the physics lets a request wait, start-up included, the last writes the first token.
    """
    work = _work(loops.replicas, loops.isl, loops.osl, harness, loops.poll_steps)
    e = loop_columns(loops.replicas, coefficients, residuals_of(coefficients).terms, harness == "nvidia")
    curves, load = loop_curves(work, e), np.maximum(np.asarray(loops.concurrency, dtype=float), 1.0)
    decoding = straight(curves.concurrency, np.clip(load, 1.0, curves.concurrency[:, -1]), curves.decoding)[:, None]
    step, prompt = decode_step(work.shape, e, work.kv_read, decoding) * e["vendor"], prompt_seconds(work, e)
    others, waited = e["burst"] * np.maximum(decoding - 1, 0.0), steps_waited(work, e)
    tpot = means_of(work, e, decoding, step, prompt)[1]
    ttft, settled = (at_concurrency(curves, n, work.output_tokens)[0] for n in (load, np.minimum(load, curves.concurrency[:, -1])))
    first = np.minimum(waited, 1.0) * step
    found = parts_of(
        prompt * others + (ttft - settled)[:, None],
        request=e["request_s"],
        schedule=waited * tpot - first,
        prefill=prompt,
        first_decode=first,
    )
    return scaled_to(found, ttft_ms)


def rows_of(prediction: Prediction) -> list[dict[str, object]]:
    """One record per row, in order."""
    columns = {f.name: getattr(prediction, f.name).tolist() for f in fields(Prediction)}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
