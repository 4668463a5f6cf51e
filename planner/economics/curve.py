"""The cost curve of one replica: what a request and a token cost against the load, where returns stop, and the zone worth running in.

The replica's price is fixed, so load alone decides the unit cost. Closed loops of equal requests, as in `plan predict`; then Poisson traffic.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from planner.candidates.offers import allowed, hosts
from planner.catalog.catalog import Catalog
from planner.catalog.records import Offer
from planner.errors import PlannerError
from planner.performance.capacity import Limit, capacity, service
from planner.performance.coefficients import load_coefficients
from planner.performance.evidence import evidence, step_shift
from planner.performance.lengths import LengthMix
from planner.performance.predict import Loops, closed_loop
from planner.performance.replicas import Floats
from planner.performance.step import GRID, MAX_SEQUENCES, step_curves
from planner.raw import Raw
from planner.scenario.records import Supply
from planner.validation.predictions import EXPECTED, unbiased
from planner.validation.single import EXACT, AskedConfiguration, Configuration, Forecast, forecast

TENTH = 0.1
SATURATED = float(np.log2(1 + TENTH))  # elasticity at which doubling the load brings a tenth more throughput
RATES = tuple(10.0**k for k in range(-1, 7))  # req/s
DISAGREE = 1.25
PERCENTILE = 95.0  # at which the limits hold under Poisson traffic, as plans have it
DIGITS = 6

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class UserLimits:
    """What a user asks of every load: tokens/s of one user (1 / TPOT) and TTFT, as means of closed loops. The defaults are those of arXiv 2510.26136."""

    min_tps_per_user: float = 20.0
    max_ttft_s: float = 1.0


@dataclass(frozen=True)
class Loads:
    """Means of closed loops at rising loads [G]: N requests in flight, each of ``output_tokens`` tokens, on a replica of fixed price.

    Between two loads TTFT and TPOT are straight lines in N.
    """

    concurrency: Floats
    ttft_s: Floats
    tpot_s: Floats
    output_tokens: float
    usd_per_hour: float

    @property
    def residence_s(self) -> Floats:
        """R(N): seconds from sending a request to its last token."""
        return self.ttft_s + self.tpot_s * (self.output_tokens - 1)

    @property
    def tps(self) -> Floats:
        """X(N) = N o / R(N): tokens/s of the replica (Little's law)."""
        return self.concurrency * self.output_tokens / self.residence_s

    @property
    def usd_per_request(self) -> Floats:
        """Average cost: N requests at once cost p R(N)."""
        return self.usd_per_hour / 3600 * self.residence_s / self.concurrency

    @property
    def marginal_usd_per_request(self) -> Floats:
        """What one more request in flight adds to the cost of all, over the last doubling: p (R(N) - R(N/2)) / (N/2); nan where N/2 is not covered."""
        half = self.concurrency / 2
        found: Floats = self.usd_per_hour / 3600 * (self.residence_s - self._before(half)) / half
        return found

    @property
    def elasticity(self) -> Floats:
        """Returns to scale over the last doubling: log2 of X(N) / X(N/2); 1 = throughput doubles with the load, 0 = it stalls; nan where N/2 is not covered."""
        half = self.concurrency / 2
        found: Floats = np.log2(self.tps / (half * self.output_tokens / self._before(half)))
        return found

    def _before(self, load: Floats) -> Floats:
        covered = load >= self.concurrency[0]
        return np.where(covered, np.interp(load, self.concurrency, self.residence_s), np.nan)

    def saturation(self) -> int | None:
        """The first load from which on doubling never brings a tenth more throughput; None if the curve ends before, or is too short to tell.

        Where R = a + b N, nothing beyond it can save a tenth of the cost either: the share of the cost that more load can still save is
        a / (a + b N), and doubling brings exactly that share more throughput.
        """
        known = np.flatnonzero(np.isfinite(self.elasticity))
        rising = [i for i in known if self.elasticity[i] >= SATURATED]
        first = known[0] if len(known) and not rising else rising[-1] + 1 if rising else len(self.concurrency)
        return int(self.concurrency[first]) if first < len(self.concurrency) else None

    def held(self, limits: UserLimits) -> Flags:
        """Where both limits hold."""
        found: Flags = (self.ttft_s <= limits.max_ttft_s) & (self.tpot_s * limits.min_tps_per_user <= 1)
        return found

    def broken(self, i: int, limits: UserLimits) -> tuple[str, ...]:
        """The limits that the i-th load breaks."""
        return tuple(n for n, bad in (("ttft", self.ttft_s[i] > limits.max_ttft_s), ("speed", self.tpot_s[i] * limits.min_tps_per_user > 1)) if bad)

    def zone(self, limits: UserLimits) -> Zone | None:
        """The optimal cost-effectiveness zone; None where no load holds both limits."""
        cost = self.usd_per_request
        held = self.held(limits)
        if not held.any():
            return None
        best = int(np.argmin(np.where(held, cost, np.inf)))
        good = held & (cost <= (1 + TENTH) * cost[best])
        low, high = best, best
        while low > 0 and good[low - 1]:
            low -= 1
        while high + 1 < len(good) and good[high + 1]:
            high += 1
        ends = self.broken(high + 1, limits) if high + 1 < len(good) else ("end",)
        half = float(np.interp(self.concurrency[low] / 2, self.concurrency, self.residence_s)) / (self.concurrency[low] / 2) if low else np.nan
        return Zone(
            low=int(self.concurrency[low]),
            high=int(self.concurrency[high]),
            best=int(self.concurrency[best]),
            ends=ends or ("cost",),
            premium_first=float(cost[0] / cost[best] - 1),
            premium_half=None if np.isnan(half) or self.concurrency[low] / 2 < self.concurrency[0] else float(half * self.usd_per_hour / 3600 / cost[best] - 1),
            saved_last=float(1 - cost[-1] / cost[best]),
            slower_last=float(self.residence_s[-1] / self.residence_s[best]),
        )


@dataclass(frozen=True)
class Zone:
    """Neighbouring loads that hold both limits and cost at most a tenth more than ``best``, the cheapest load that holds them.

    A tenth is the usual convention for the minimum efficient scale, the lower end of such a zone. ``ends``: what the next load breaks:
    "ttft", "speed", "cost" (it is dearer), or "end" of the curve. What is lost outside: ``premium_first`` is the extra cost at the curve's first load,
    ``premium_half`` at half the lower end, both over ``best``; ``saved_last`` is the share that the curve's last load would save, where a request takes
    ``slower_last`` times as long.
    """

    low: int
    high: int
    best: int
    ends: tuple[str, ...]
    premium_first: float
    premium_half: float | None
    saved_last: float
    slower_last: float


@dataclass(frozen=True)
class CurvePoint:
    """One load of a predicted curve. Marginal cost and elasticity are over the last doubling, None for the first load.

    Each end of a band holds the confidence asked.
    """

    concurrency: int
    ttft_ms: float
    ttft_low_ms: float
    ttft_high_ms: float
    tpot_ms: float
    tpot_low_ms: float
    tpot_high_ms: float
    tps_per_user: float
    tps_per_gpu: float
    usd_per_request: float
    usd_per_million_output: float
    usd_per_million_output_low: float
    usd_per_million_output_high: float
    marginal_usd_per_request: float | None
    marginal_usd_per_million_output: float | None
    elasticity: float | None
    broken: tuple[str, ...]  # limits: "ttft", "speed"
    in_zone: bool


@dataclass(frozen=True)
class OfferedRate:
    """One replica under Poisson arrivals. ``penalty``: cost per token over that at ``load`` 1, all it can serve, where waiting never settles (latency None)."""

    qps: float
    load: float
    in_flight: float | None
    ttft_ms: float | None
    ttft_p95_ms: float | None
    tpot_ms: float | None
    usd_per_million_output: float
    penalty: float


@dataclass(frozen=True)
class CostCurve:
    """The whole answer. ``sure_to``: the largest load at which the limits hold at the upper ends of the bands too; ``why``: why there is no zone."""

    forecast: Forecast
    limits: UserLimits
    usd_per_gpu_hour: float
    price: str
    loads: Loads  # every load from 1
    points: tuple[CurvePoint, ...]  # those shown
    saturation: int | None
    zone: Zone | None
    sure_to: int | None
    why: str
    offered: tuple[OfferedRate, ...]
    qps_within_limits: float

    @property
    def usd_per_hour(self) -> float:
        """Price of the replica."""
        return self.loads.usd_per_hour

    def to_dict(self) -> Raw:
        """Plain data for JSON; six significant digits."""
        f, q = self.forecast, self.forecast.question
        found: Raw = {
            "model": f.found.card.name, "checkpoint": f.found.checkpoint.id, "precision": f.found.checkpoint.precision,
            "engine": f.found.engine, "gpu": f.found.gpu.name, "tp": q.tp, "pp": q.pp, "dp": q.dp, "ep": q.ep,
            "kv_cache_dtype": f.kv_cache_dtype, "input_tokens": q.isl, "output_tokens": q.osl, "confidence": q.confidence,
            "usd_per_gpu_hour": self.usd_per_gpu_hour, "usd_per_hour": self.usd_per_hour, "price": self.price, "limits": asdict(self.limits),
            "points": [asdict(p) for p in self.points], "saturation": self.saturation,
            "zone": asdict(self.zone) if self.zone else None, "sure_to": self.sure_to, "why_no_zone": self.why,
            "offered": [asdict(o) for o in self.offered], "qps_within_limits": self.qps_within_limits,
            "evidence": {"tier": f.tier, "source": f.source, "as_of": f.as_of}, "notes": list(f.notes),
        }  # fmt: skip
        return {key: shortened(value) for key, value in found.items()}


def cost_curve(question: AskedConfiguration, catalog: Catalog, *, usd_per_gpu_hour: float | None = None, limits: UserLimits | None = None) -> CostCurve:
    """The curve of one replica from 1 request in flight to all it has room for, at most 1,024 (engines' default); loads of the question are not used.

    usd_per_gpu_hour: left out, the cheapest offer that plans admit by default. Raises PlannerError where the replica cannot run or has no price.
    """
    asked = limits or UserLimits()
    first = forecast(replace(question, concurrency=(1,)), catalog)
    price, words = (usd_per_gpu_hour, "as given") if usd_per_gpu_hour is not None else cheapest_price(first, catalog)
    q, found, gpus = first.question, first.found, first.question.tp * first.question.pp
    n = np.arange(1, min(first.slots, MAX_SEQUENCES) + 1)
    rows, coefficients = found.replicas(q, q.tp, len(n)), load_coefficients(catalog.coefficients_file)
    loops = Loops(rows, np.full(len(n), float(q.isl)), np.full(len(n), float(q.osl)), n.astype(float), (found.card.name,))
    p = closed_loop(loops, catalog.measured, coefficients, q.confidence, EXACT)
    loads = Loads(n.astype(float), p.ttft_ms / 1000, p.tpot_ms / 1000, float(q.osl), price * gpus)
    worst = replace(loads, ttft_s=p.ttft_high / 1000, tpot_s=p.tpot_high / 1000).held(asked)
    zone, saturation = loads.zone(asked), loads.saturation()
    marginal, elasticity, million = loads.marginal_usd_per_request, loads.elasticity, 1e6 / 3600 * loads.usd_per_hour
    shown = {*(2**k for k in range(11)), len(n), saturation or 1, *((zone.low, zone.best, zone.high) if zone else ())}

    def point(i: int) -> CurvePoint:
        return CurvePoint(
            concurrency=int(n[i]),
            ttft_ms=float(p.ttft_ms[i]), ttft_low_ms=float(p.ttft_low[i]), ttft_high_ms=float(p.ttft_high[i]),
            tpot_ms=float(p.tpot_ms[i]), tpot_low_ms=float(p.tpot_low[i]), tpot_high_ms=float(p.tpot_high[i]),
            tps_per_user=float(1000 / p.tpot_ms[i]), tps_per_gpu=float(loads.tps[i] / gpus),
            usd_per_request=float(loads.usd_per_request[i]), usd_per_million_output=float(million / loads.tps[i]),
            usd_per_million_output_low=float(million / p.tps_high[i]), usd_per_million_output_high=float(million / p.tps_low[i]),
            marginal_usd_per_request=_known(marginal[i]), marginal_usd_per_million_output=_known(marginal[i] / q.osl * 1e6), elasticity=_known(elasticity[i]),
            broken=loads.broken(i, asked), in_zone=zone is not None and zone.low <= int(n[i]) <= zone.high,
        )  # fmt: skip

    offered, within = _offered(found, q, catalog, asked, loads.usd_per_hour, int(n[-1]))
    return CostCurve(
        forecast=replace(first, notes=(*first.notes, *_doubt(float(loads.tps[-1]) / q.osl, offered[-1].qps))),
        limits=asked,
        usd_per_gpu_hour=price,
        price=words,
        loads=loads,
        points=tuple(point(load - 1) for load in sorted(shown) if load <= len(n)),
        saturation=saturation,
        zone=zone,
        sure_to=int(n[worst][-1]) if worst.any() else None,
        why="" if zone else no_zone(loads, asked),
        offered=offered,
        qps_within_limits=within,
    )


def _doubt(closed: float, most: float) -> list[str]:
    """A note where the two predictions of what the replica can serve, requests/s, are further apart than other errors explain."""
    words = f"Doubtful: the closed loop is predicted to serve up to {closed:.3g} req/s, Poisson traffic {most:.3g}; they should differ little."
    return [words] if closed > DISAGREE * most else []


def no_zone(loads: Loads, limits: UserLimits) -> str:
    """Why no load holds both limits, in words."""
    first, fastest = float(loads.ttft_s.min()), float(1 / loads.tpot_s.min())
    if first > limits.max_ttft_s:
        return f"TTFT is {first:.3g} s or more at every load"
    if fastest < limits.min_tps_per_user:
        return f"a user never gets more than {fastest:.3g} tokens/s"
    return "no load holds both limits" if not loads.held(limits).any() else ""


def cheapest_offer(catalog: Catalog, gpu: str, tp: int, pp: int) -> Offer | None:
    """The offer with the lowest price per GPU that plans admit by default and that hosts such a replica; first by name among equals."""
    fitting = [o for o in allowed(catalog.offers, Supply()) if hosts(o, gpu, tp, pp)]
    return min(fitting, key=lambda o: (o.usd_per_hour / o.gpus_per_instance, o.provider, o.region, o.instance_type), default=None)


def cheapest_price(f: Forecast, catalog: Catalog) -> tuple[float, str]:
    """Price per GPU and hour, and whose. Raises PlannerError."""
    q, gpu = f.question, f.found.gpu.name
    offer = cheapest_offer(catalog, gpu, q.tp, q.pp)
    if offer is None:
        raise PlannerError(
            f"no offer that plans admit by default has {q.tp * q.pp} x {gpu}", "--gpu", "give its price with --usd-per-hour; see plan catalog prices"
        )
    share = f", a share of its {offer.gpus_per_instance} GPUs" if offer.gpus_per_instance > q.tp * q.pp else ""
    where = " ".join(dict.fromkeys(w for w in (offer.provider, offer.region) if w != "any"))
    return offer.usd_per_hour / offer.gpus_per_instance, f"{offer.instance_type} at {where}, {offer.purchase.replace('_', '-')}, {offer.as_of}{share}"


def _offered(
    found: Configuration, q: AskedConfiguration, catalog: Catalog, limits: UserLimits, usd_per_hour: float, slots: int
) -> tuple[tuple[OfferedRate, ...], float]:
    """The replica under Poisson arrivals of equal requests: at powers of ten, at the most within the limits (0: none) and at the most of all."""
    one, mix = found.replicas(q, q.tp), LengthMix(np.array([float(q.isl)]), np.array([float(q.osl)]))
    coefficients = unbiased(load_coefficients(catalog.coefficients_file))
    known = evidence(one, (found.card.name,), catalog.measured)
    shift = step_shift(known, one, (found.card.name,), coefficients, EXPECTED, mix, GRID)
    curves, seqs = step_curves(one, mix, coefficients).pulled(shift.step, shift.prompt, mix, shift.overhead), np.array([slots])
    asked = (Limit("ttft", limits.max_ttft_s, PERCENTILE), Limit("tpot", 1 / limits.min_tps_per_user, PERCENTILE))
    most, within = (float(capacity(curves, mix, some, seqs).qps[0]) for some in ((), asked))
    rates = np.array(sorted({*(r for r in RATES if r < most), *([within] if 0 < within < most else [])}))
    same = np.zeros(len(rates), dtype=np.int64)
    s = service(curves.take(same), mix, rates, seqs[same])
    unit = usd_per_hour / 3600 / q.osl * 1e6
    ttft, p95, tpot = (1000 * x for x in (s.ttft_s["mean"], s.ttft_s["p95"], s.tpot_s["mean"]))
    served = tuple(
        OfferedRate(float(r), float(r / most), float(s.in_flight[i]), float(ttft[i]), float(p95[i]), float(tpot[i]), float(unit / r), float(most / r))
        for i, r in enumerate(rates)
    )
    return (*served, OfferedRate(most, 1.0, None, None, None, None, unit / most, 1.0)), within


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def shortened(value: object) -> object:
    """Floats to six significant digits, all the way down."""
    if isinstance(value, dict):
        return {k: shortened(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [shortened(v) for v in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
