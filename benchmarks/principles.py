"""Do the three principles of arXiv 2510.26136 hold: diminishing marginal cost, diminishing returns, an optimal cost-effectiveness zone?

    python benchmarks/principles.py

On every shipped measured curve of four loads or more, and on a predicted curve of every pair of checkpoint and GPU (smallest TP that fits).
Writes benchmarks/results/principles.json. Seconds.
"""

from __future__ import annotations

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from planner.candidates.sharding import unsplit
from planner.candidates.survey import TP_SIZES
from planner.catalog.catalog import Catalog
from planner.catalog.load import load_catalog, shipped_folders
from planner.catalog.records import Card, Checkpoint, Gpu
from planner.economics.curve import SATURATED, Loads, UserLimits, no_zone
from planner.economics.speed import LOADS
from planner.performance.coefficients import load_coefficients
from planner.performance.lengths import LengthMix
from planner.performance.loop import LENGTH_RATIO
from planner.performance.memory import memory_fit
from planner.performance.predict import Loops, closed_loop
from planner.performance.replicas import ENGINES, PRECISIONS, Replicas
from planner.performance.step import MAX_SEQUENCES
from planner.validation.single import EXACT

RESULTS = Path(__file__).parent / "results"
LEAST_LOADS = 4
LENGTHS = ((1024, 1024), (8192, 1024))  # of predicted curves
HARNESS = {"InferenceX": "inferencex", "NVIDIA-AIConfigurator": "nvidia"}
MOST = 10  # names listed
NOISE = 0.02  # a rise of the cost below this is told apart: repeats of one measurement differ as much
SHAPES = {(True, False): "falls", (True, True): "falls, then rises", (False, True): "rises", (False, False): "level"}  # (falls, rises)
SMALL, LARGE = 40e9, 200e9  # parameters


@dataclass(frozen=True)
class Curve:
    """One curve and what it is of."""

    name: str
    size: str
    is_moe: bool
    gpu: str
    loads: Loads


@dataclass(frozen=True)
class Verdict:
    """What holds on one curve."""

    cheaper: bool  # cost per request falls at every load up to saturation
    worst_rise: float  # largest rise of the cost on the way, share
    marginal_falls: bool  # the marginal cost over the last doubling is lower than over the first
    marginal: str  # of the marginal cost over all doublings: a shape of SHAPES
    below: bool  # and it is below the average cost at each
    returns: str  # "saturates", "diminish" or "do not diminish"
    last_elasticity: float
    slower: float  # residence at the last load over the first
    zone: str  # "" or why there is none
    zone_ends: str  # what the load after the zone breaks
    bounded: bool  # loads below the zone are more than a tenth dearer, loads above it break a limit
    saving: float  # 1 - cost at the best load over cost at the first


def verdict(loads: Loads, limits: UserLimits) -> Verdict:
    """Judges one curve."""
    saturation, cost = loads.saturation(), loads.usd_per_request
    to = len(cost) if saturation is None else int(np.searchsorted(loads.concurrency, saturation)) + 1
    rises = cost[1:to] / cost[: to - 1] - 1
    elasticity = loads.elasticity[np.isfinite(loads.elasticity)]
    marginal = loads.marginal_usd_per_request[np.isfinite(loads.marginal_usd_per_request)]
    returns = "saturates" if saturation is not None else "diminish" if elasticity[-1] < elasticity[0] else "do not diminish"
    zone = loads.zone(limits)
    best = 0 if zone is None else int(np.searchsorted(loads.concurrency, zone.best))
    return Verdict(
        cheaper=bool((rises < 0).all()),
        worst_rise=float(max(rises.max(initial=-1.0), 0.0)),
        marginal_falls=bool(marginal[-1] < marginal[0]),
        marginal=shape(marginal),
        below=bool((marginal < cost[np.isfinite(loads.marginal_usd_per_request)]).all()),
        returns=returns,
        last_elasticity=float(elasticity[-1]),
        slower=float(loads.residence_s[-1] / loads.residence_s[0]),
        zone="" if zone else _kind(no_zone(loads, limits)),
        zone_ends=" and ".join(zone.ends) if zone else "",
        bounded=zone is not None and zone.low > int(loads.concurrency[0]) and zone.ends != ("end",),
        saving=float(1 - cost[best] / cost[0]),
    )


def shape(marginal: NDArray[np.float64]) -> str:
    """How the true marginal cost, p ΔR / ΔN over each doubling, goes with the load; changes within NOISE are none."""
    least = int(np.argmin(marginal))
    rises, falls = bool(marginal[-1] > marginal[least] * (1 + NOISE)), bool(marginal[0] > marginal[least] * (1 + NOISE))
    return SHAPES[(falls, rises)]


def _kind(why: str) -> str:
    """The reason without its number."""
    kinds = {"TTFT": "TTFT over the limit at every load", "a user": "never fast enough for a user"}
    return next((kind for begin, kind in kinds.items() if why.startswith(begin)), "never both at one load")


# ---- curves


def measured_curves(catalog: Catalog) -> list[Curve]:
    """Shipped curves of enough loads; repeats of a load within one are averaged."""
    cards = {card.name: card for card in catalog.cards}
    groups: dict[tuple[str, ...], list[dict[str, str]]] = defaultdict(list)
    with (shipped_folders()[1] / "curves.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            groups[tuple(row[k] for k in ("curve", "model", "precision", "gpu", "engine", "tp", "ep", "dp", "isl", "osl", "source"))].append(row)
    found = []
    for key, rows in sorted(groups.items()):
        at: dict[float, list[tuple[float, float]]] = defaultdict(list)
        for row in rows:
            at[float(row["concurrency"])].append((float(row["ttft_ms"]) / 1000, float(row["tpot_ms"]) / 1000))
        if len(at) < LEAST_LOADS:
            continue
        n = np.array(sorted(at))
        ttft, tpot = np.array([np.mean(at[x], axis=0) for x in n.tolist()]).T
        osl = float(rows[0]["osl"]) * LENGTH_RATIO[HARNESS[rows[0]["source"]]]
        name = f"{key[1]} {key[2]}, {key[3]}, {key[4]}, TP{key[5]} EP{key[6]} DP{key[7]}, {key[8]}/{key[9]} ({key[0]})"
        card = cards[key[1]]
        found.append(Curve(name, _size(card), card.architecture.experts > 0, key[3], Loads(n, ttft, tpot, osl, 1.0)))
    return found


def predicted_curves(catalog: Catalog, isl: int, osl: int) -> list[Curve]:
    """A curve for every distinct checkpoint and GPU, on the smallest TP that fits, with vLLM where it runs there."""
    pairs = [p for card in catalog.cards for c in _distinct(card) for g in catalog.gpus.values() if (p := _smallest(card, c, g, isl, osl))]
    coefficients, names = load_coefficients(catalog.coefficients_file), tuple(card.name for card in catalog.cards)
    replicas = _replicas(catalog, [p[:5] for p in pairs])
    which, load = np.nonzero(LOADS[None, :] <= np.minimum(np.array([p[5] for p in pairs]), MAX_SEQUENCES)[:, None])
    n, ones = LOADS[load].astype(float), np.ones(len(which))
    p = closed_loop(Loops(replicas.take(which), isl * ones, osl * ones, n, names), catalog.measured, coefficients, harness=EXACT)
    found = []
    for i, (card, checkpoint, gpu, engine, tp, _) in enumerate(pairs):
        here = which == i
        loads = Loads(n[here], p.ttft_ms[here] / 1000, p.tpot_ms[here] / 1000, float(osl), 1.0)
        if len(loads.concurrency) >= LEAST_LOADS:
            found.append(Curve(f"{checkpoint.id}, {gpu.name}, {engine}, TP{tp}, {isl}/{osl}", _size(card), card.architecture.experts > 0, gpu.name, loads))
    return found


def _distinct(card: Card) -> list[Checkpoint]:
    """One served checkpoint of each precision and block size."""
    return list({(c.precision, c.fp8_block): c for c in reversed(card.checkpoint) if c.variant != "base"}.values())


def _smallest(card: Card, checkpoint: Checkpoint, gpu: Gpu, isl: int, osl: int) -> tuple[Card, Checkpoint, Gpu, str, int, int] | None:
    """The pair with engine, TP and slots; None where it cannot run on one node."""
    context = checkpoint.max_context or card.architecture.max_context
    if checkpoint.precision not in gpu.precisions or not gpu.engines or isl + osl > context:
        return None
    engine = "vllm" if "vllm" in gpu.engines else gpu.engines[0]
    for tp in TP_SIZES:
        if unsplit(card.architecture, checkpoint.fp8_block, tp):
            continue
        one = _one(card, checkpoint, gpu, engine, tp)
        slots = int(memory_fit(one, LengthMix(np.array([float(isl)]), np.array([float(osl)]))).slots[0])
        if slots >= 1:
            return card, checkpoint, gpu, engine, tp, slots
    return None


def _one(card: Card, checkpoint: Checkpoint, gpu: Gpu, engine: str, tp: int) -> Replicas:
    numbers = (0, 0, PRECISIONS.index(checkpoint.precision), ENGINES.index(engine), tp, 1)
    return Replicas((card.architecture,), (gpu,), *(np.array([n]) for n in numbers))


def _replicas(catalog: Catalog, pairs: Sequence[tuple[Card, Checkpoint, Gpu, str, int]]) -> Replicas:
    cards, gpus = {card.name: i for i, card in enumerate(catalog.cards)}, list(catalog.gpus)
    columns = zip(*((cards[c.name], gpus.index(g.name), PRECISIONS.index(k.precision), ENGINES.index(e), tp, 1) for c, k, g, e, tp in pairs), strict=True)
    return Replicas(tuple(c.architecture for c in catalog.cards), tuple(catalog.gpus.values()), *(np.array(c) for c in columns))


def _size(card: Card) -> str:
    n = card.architecture.parameters
    return "below 40B" if n < SMALL else "40B to 200B" if n < LARGE else "above 200B"


# ---- results


def summary(curves: Sequence[Curve], limits: UserLimits) -> dict[str, Any]:
    """For how many curves each principle holds, where not and why."""
    pairs = [(c, verdict(c.loads, limits)) for c in curves]
    found = [v for _, v in pairs]
    zones = [v for v in found if not v.zone]
    unsaturated = [v.last_elasticity for v in found if v.returns != "saturates"]
    by_kind: dict[str, Counter[str]] = defaultdict(Counter)
    for c, v in pairs:
        holds = {"curves": 1, "cost falls": v.cheaper, "saturates": v.returns == "saturates"}
        holds |= {"returns diminish": v.returns != "do not diminish", "zone": not v.zone}
        by_kind[f"{c.size}, {'MoE' if c.is_moe else 'dense'}"].update({k: int(n) for k, n in holds.items()})
    return {
        "curves": len(curves),
        "marginal_cost": {
            "cost falls at every load up to saturation": sum(v.cheaper for v in found),
            f"rises by less than {NOISE:.0%} somewhere": sum(not v.cheaper and v.worst_rise < NOISE for v in found),
            "marginal cost over the last doubling is below that over the first": sum(v.marginal_falls for v in found),
            "true marginal cost over successive doublings": {k: sum(v.marginal == k for v in found) for k in SHAPES.values()},
            "the same of those that reach saturation": {k: sum(v.marginal == k for v in found if v.returns == "saturates") for k in SHAPES.values()},
            "true marginal cost is below the average at every doubling": sum(v.below for v in found),
            "rises": [f"{v.worst_rise:+.1%} {c.name}" for c, v in pairs if not v.cheaper][:MOST],
        },
        "returns": {
            **{name: sum(v.returns == name for v in found) for name in ("saturates", "diminish", "do not diminish")},
            "median elasticity over the last doubling where not saturated": _short(np.median(unsaturated)),
            "requests slower at the last load than at the first": sum(v.slower > 1 for v in found),
            "median slowdown": _short(np.median([v.slower for v in found])),
            "MoE among those that do not diminish": sum(c.is_moe for c, v in pairs if v.returns == "do not diminish"),
            "not diminishing": [c.name for c, v in pairs if v.returns == "do not diminish"][:MOST],
        },
        "zone": {
            "exists": len(zones),
            "bounded on both sides within the curve": sum(v.bounded for v in zones),
            "ends": dict(Counter(v.zone_ends for v in zones).most_common()),
            "none": dict(Counter(v.zone for v in found if v.zone).most_common()),
            "median saving of the best load over the first": _short(np.median([v.saving for v in zones])),
            "without, by GPU": dict(Counter(c.gpu for c, v in pairs if v.zone).most_common()),
            "without": [f"{c.name}: {v.zone}" for c, v in pairs if v.zone][:MOST],
        },
        "by_kind": {k: dict(v) for k, v in sorted(by_kind.items())},
    }


def _short(value: float) -> float:
    return float(f"{value:.3g}")


def saturated_share(curves: Sequence[Curve]) -> list[float]:
    """Throughput at the saturation point over the most on the curve, where the curve goes on: how good the sign is (at least 1/1.1 is claimed)."""
    found = []
    for c in curves:
        n = c.loads.saturation()
        if n is not None and n < c.loads.concurrency[-1]:
            found.append(float(c.loads.tps[np.searchsorted(c.loads.concurrency, n)] / c.loads.tps.max()))
    return found


def main() -> None:
    """Runs both parts and writes the results."""
    catalog, limits = load_catalog(), UserLimits()
    sets = {"measured": measured_curves(catalog)}
    sets |= {f"predicted {isl}/{osl}": predicted_curves(catalog, isl, osl) for isl, osl in LENGTHS}
    results: dict[str, Any] = {
        "limits": vars(limits), "saturation: elasticity below": _short(SATURATED), **{name: summary(curves, limits) for name, curves in sets.items()},
    }  # fmt: skip
    shares = saturated_share(sets["measured"])
    results["measured"]["returns"]["throughput at saturation over the most on the curve, of curves that go on"] = {
        "curves": len(shares), "median": _short(np.median(shares)), "lowest": _short(min(shares)),
    }  # fmt: skip
    (RESULTS / "principles.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    table = Table(
        "curves", "number", "1: cost falls", "1: marginal falls", "falls, then rises", "rises", "2: saturates", "2: returns diminish", "3: zone", "3: bounded"
    )
    for name in sets:
        r = results[name]
        returns, zone = r["returns"], r["zone"]
        true = r["marginal_cost"]["true marginal cost over successive doublings"]
        cost = (next(iter(r["marginal_cost"].values())), true["falls"], true["falls, then rises"], true["rises"])
        cells = (r["curves"], *cost, returns["saturates"], returns["saturates"] + returns["diminish"], zone["exists"])
        table.add_row(name, *(str(x) for x in (*cells, zone["bounded on both sides within the curve"])))
    Console().print(table)


if __name__ == "__main__":
    main()
