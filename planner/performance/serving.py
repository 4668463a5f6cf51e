"""Engines that draft tokens or stand in disaggregated units, beside plain ones: curves, bounds, capacity and service of any rows.

Chooses between the formulas of ``capacity`` and ``disaggregated``, and applies what was measured of either way of serving.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from planner.catalog.catalog import Catalog
from planner.catalog.files import read_csv
from planner.catalog.load import shipped_folders
from planner.errors import CatalogError
from planner.performance import closed
from planner.performance.capacity import BLOCK, Capacity, Limit, Service, capacity, saturation_bound, service
from planner.performance.coefficients import Coefficients
from planner.performance.disaggregated import FILE as ERRORS_FILE
from planner.performance.disaggregated import UnitErrors, Units, load_errors, prompt_bound, transfer_seconds, unit_capacity, unit_service, without_prompts
from planner.performance.evidence import Evidence, Shift, step_shift
from planner.performance.lengths import LengthMix
from planner.performance.predict import Loops, Prediction
from planner.performance.replicas import ENGINES, Floats, Ints, Replicas
from planner.performance.speculation import FILE as RATIOS_FILE
from planner.performance.speculation import Speculation, SpeculationRatio, loop_ratios, measured_loads, speculation, speculative_curves
from planner.performance.step import CHUNK, GRID, MAX_SEQUENCES, StepCurves, step_curves

UNIT_ENGINES = tuple(ENGINES.index(e) for e in ("vllm", "sglang"))  # TensorRT-LLM starts units from files of its own, not by a plain command
EXPECTED = 0.5
SEARCH = 40  # bisection steps


@dataclass(frozen=True)
class Options:
    """What was measured of both ways of serving, with its sources."""

    speculation: Speculation
    errors: UnitErrors
    speculation_source: str

    def sources(self, replicas: Replicas, row: int) -> tuple[str, ...]:
        """Where the options of a row come from; none for a plain engine."""
        drafts = (f"speculative decoding: {self.speculation_source}",) if replicas.draft[row] else ()
        return drafts + ((f"disaggregated units: {self.errors.source}",) if replicas.is_unit[row] else ())


def load_options(catalog: Catalog) -> Options:
    """speculation.csv and disaggregated.json of the last of the user's folders that has each, else as shipped. Raises CatalogError."""
    folders = (*reversed(catalog.folders), shipped_folders()[1])
    ratios, errors = (next((f / name for f in folders if (f / name).is_file()), folders[-1] / name) for name in (RATIOS_FILE, ERRORS_FILE))
    return _read(ratios, ratios.stat().st_mtime_ns, errors, errors.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _read(ratios: Path, _ratios_at: int, errors: Path, _errors_at: int) -> Options:
    rows = read_csv(ratios, SpeculationRatio)
    found = speculation(rows)
    if not len(found.errors):
        raise CatalogError("no configuration of a group was measured beside another at its load, so nobody knows how far off ratios are", str(ratios))
    return Options(found, load_errors(errors), " and ".join(dict.fromkeys(r.source for r in rows)))


@dataclass(frozen=True)
class Known:
    """Replica types [P] and all that their steps are predicted from; ``names`` names ``replicas.architectures``."""

    replicas: Replicas
    found: Evidence
    names: tuple[str, ...]
    coefficients: Coefficients
    options: Options | None = None

    def take(self, rows: Ints) -> Known:
        """The rows of an index array."""
        return replace(self, replicas=self.replicas.take(rows), found=self.found.take(rows))

    def shift(self, confidence: float, mix: LengthMix, sequences: Floats) -> Shift:
        """``step_shift`` of these replica types."""
        return step_shift(self.found, self.replicas, self.names, self.coefficients, confidence, mix, sequences)


@dataclass(frozen=True)
class Serving:
    """One workload on replica types [P]: the curves of one engine of each, the lengths, the limits, and the sequences [P] on each (decode) engine."""

    replicas: Replicas
    curves: StepCurves
    mix: LengthMix
    limits: Sequence[Limit]
    sequences: Ints
    coefficients: Coefficients

    @property
    def has_units(self) -> bool:
        """Whether any row is a disaggregated unit."""
        return bool(self.replicas.is_unit.any())

    def take(self, rows: Ints) -> Serving:
        """The rows of an index array."""
        return replace(self, replicas=self.replicas.take(rows), curves=self.curves.take(rows), sequences=self.sequences[rows])


def most_sequences(replicas: Replicas, names: Sequence[str], options: Options | None) -> Ints:
    """Sequences that an engine of each row may admit, [P]: what engines allow, with drafted tokens the highest load measured."""
    most = np.full(len(replicas), MAX_SEQUENCES, dtype=np.int64)
    rows = np.flatnonzero(replicas.draft)
    if len(rows) and options:
        most[rows] = np.minimum(measured_loads(options.speculation, replicas.take(rows), names), MAX_SEQUENCES)
    return most


def curves_of(known: Known, mix: LengthMix, confidence: float, grid: Floats = GRID, batched_tokens: int = CHUNK, chunked: bool = True) -> StepCurves:
    """Curves of one engine of each row, pulled to measurements and to the confidence.

    Where errors are drawn at random, those of both ways of serving stay at the confidence, beside the engine's expected step.
    """
    replicas, options = known.replicas, known.options
    shift = known.shift(confidence, mix, grid)
    physics = step_curves(replicas.compact(), mix, known.coefficients, grid, batched_tokens, chunked)
    curves = physics.pulled(shift.step, shift.prompt, mix, shift.overhead)
    units, drafts = np.flatnonzero(replicas.is_unit), np.flatnonzero(replicas.draft)
    if options and len(units):
        expected = replace(known.take(units), coefficients=replace(known.coefficients, draw=None)).shift(EXPECTED, mix, grid)
        middle = physics.take(units).pulled(expected.step, expected.prompt, mix, expected.overhead)
        curves = _put(curves, units, options.errors.slower(curves.take(units), middle, confidence))
    if options and len(drafts):
        curves = _put(curves, drafts, speculative_curves(options.speculation, replicas.take(drafts), known.names, curves.take(drafts), mix, confidence))
    return curves


def _put(curves: StepCurves, rows: Ints, other: StepCurves) -> StepCurves:
    """The curves with some rows replaced."""
    step, floor, prompt, overhead = (x.copy() for x in (curves.step_s, curves.floor_s, curves.prefill_s_per_token, curves.overhead_s))
    step[rows], floor[rows], prompt[rows], overhead[rows] = other.step_s, other.floor_s, other.prefill_s_per_token, other.overhead_s
    return replace(curves, step_s=step, floor_s=floor, prefill_s_per_token=prompt, overhead_s=overhead)


def step_factor(known: Known, mix: LengthMix, confidence: float, sequences: int) -> float:
    """What one plain replica's predicted TPOT is multiplied by with so many sequences; with options, what its decode step takes over that of the physics."""
    at, replica = np.array([float(sequences)]), known.replicas
    if not known.options or not (replica.draft[0] or replica.is_unit[0]):
        return float(known.shift(confidence, mix, at).step[0, 0])
    curves = curves_of(known, mix, confidence, at)
    return float(curves.step_s[0, 0] / step_curves(replica, mix, known.coefficients, at).step_s[0, 0])


def drafted_loop(found: Prediction, options: Options, loops: Loops, output_tokens: Floats, confidence: float) -> Prediction:
    """Closed loops of rows that draft: the measured ratios on what ``found`` predicts without. NaN where none was measured at that load.

    output_tokens: [P], as written. Rows that do not draft stay.
    """
    replicas, concurrency = loops.replicas, loops.concurrency
    ratios = loop_ratios(options.speculation, replicas, loops.names, concurrency)
    tpot, ttft = (np.where(replicas.draft > 0, r, 1.0) for r in ratios)
    low, high = (np.where(replicas.draft > 0, options.speculation.quantile(c), 1.0) for c in (1 - confidence, confidence))
    seconds = found.ttft_ms * ttft + found.tpot_ms * tpot * (output_tokens - 1)
    tps = np.where(replicas.draft > 0, 1000 * concurrency * output_tokens / seconds, found.output_tps)
    change = tps / found.output_tps
    return replace(
        found, ttft_ms=found.ttft_ms * ttft, ttft_low=found.ttft_low * ttft, ttft_high=found.ttft_high * ttft,
        tpot_ms=found.tpot_ms * tpot, tpot_low=found.tpot_low * tpot * low, tpot_high=found.tpot_high * tpot * high,
        output_tps=tps, tps_low=found.tps_low * change / high, tps_high=found.tps_high * change / low,
        in_flight_decoding=found.in_flight_decoding * change * tpot, tier=np.where(replicas.draft > 0, np.maximum(found.tier, 1), found.tier),
    )  # fmt: skip


def units_of(s: Serving) -> Units:
    """Rows that are units: both pools on the same curves."""
    r = s.replicas
    return Units(s.curves, s.curves, r.prefill, r.decode, transfer_seconds(r, s.mix, s.coefficients, r.prefill + r.decode), s.sequences)


def capacity_of(s: Serving) -> Capacity:
    """``capacity`` of plain rows, ``unit_capacity`` of units (the whole unit's)."""
    if not s.has_units:
        return capacity(s.curves, s.mix, s.limits, s.sequences)
    found = np.zeros((4, len(s.replicas)))
    plain = np.flatnonzero(~s.replicas.is_unit)
    found[:, plain] = _columns(capacity(s.curves.take(plain), s.mix, s.limits, s.sequences[plain]))
    units = np.flatnonzero(s.replicas.is_unit)
    for at in range(0, len(units), BLOCK):
        rows = units[at : at + BLOCK]
        found[:, rows] = _columns(unit_capacity(units_of(s.take(rows)), s.mix, s.limits))
    return Capacity(*found)


def capacity_lifted(s: Serving, lifted: Ints, is_steady: bool | None) -> Capacity:
    """Capacity of each row with one of the limits lifted (``lifted`` [P]: by its index; -1: none).

    is_steady: as in ``in_flight_capacity``, for requests in flight; None for a rate.
    """
    if is_steady is None and not s.has_units:
        return capacity(s.curves, s.mix, s.limits, s.sequences, lifted)
    found = np.zeros((4, len(lifted)))
    for i in np.unique(lifted).tolist():
        rows = np.flatnonzero(lifted == i)
        asked = replace(s.take(rows), limits=[limit for j, limit in enumerate(s.limits) if j != i])
        found[:, rows] = _columns(capacity_of(asked) if is_steady is None else in_flight_capacity(asked, is_steady))
    return Capacity(*found)


def _columns(found: Capacity) -> Floats:
    return np.stack((found.qps, found.qps_saturated, found.e2e_s, found.in_flight))


def bound_of(s: Serving) -> tuple[Floats, Floats]:
    """``saturation_bound`` of any rows: requests/s that no capacity exceeds, and about the most sequences on an engine within the limits.

    A unit is bound by its prompts, its links, and as many decode engines without prompts between; TTFT and E2E bind by no rate there.
    """
    most, allowed = saturation_bound(s.curves, s.mix, s.limits, s.sequences)
    rows = np.flatnonzero(s.replicas.is_unit)
    if len(rows):
        units = units_of(s.take(rows))
        decoding = without_prompts(units.decode)
        answers, _ = saturation_bound(decoding, s.mix, [x for x in s.limits if x.metric in ("tpot", "itl")], units.slots)
        _, within = saturation_bound(decoding, s.mix, s.limits, units.slots)
        most[rows] = np.where(within > 0, np.minimum(prompt_bound(units, s.mix), units.decode_engines * answers), 0.0)
        allowed[rows] = within
    return most, allowed


def service_of(s: Serving, qps: Floats, pooling: float = 1.0, reasoning: float = 0.0) -> Service:
    """``service`` of rows that are all plain, or ``unit_service`` of rows that are all units."""
    if not s.has_units:
        return service(s.curves, s.mix, qps, s.sequences, pooling, reasoning)
    return unit_service(units_of(s), s.mix, s.limits, qps, reasoning)


def in_flight_capacity(s: Serving, is_steady: bool) -> Capacity:
    """The most requests in flight on each replica, and the rate there.

    is_steady: a router keeps the number at each replica level, so plain engines are closed loops and gain nothing in a pool. Otherwise, and in
    disaggregated units, the number varies as in a queue with Poisson arrivals: the mean number at its capacity counts.
    """
    found = capacity_of(s) if not is_steady or s.has_units else None
    plain = np.flatnonzero(~s.replicas.is_unit)
    if not is_steady or not len(plain):
        assert found is not None
        return found
    n, rate = closed.capacity(s.curves.take(plain), s.mix, s.limits, s.sequences[plain])
    e2e = np.divide(n, rate, out=np.zeros_like(n), where=rate > 0)
    if found is None:
        return Capacity(rate, rate, e2e, n)
    columns = _columns(found)
    columns[:, plain] = np.stack((rate, rate, e2e, n))
    return Capacity(*columns)


def in_flight_service(s: Serving, in_flight: Floats, is_steady: bool, reasoning: float = 0.0) -> tuple[Service, Floats]:
    """Service with so many requests in flight on each replica [P], and the rate there [P]: in_flight = rate x mean E2E. Rows all plain, or all units."""
    if is_steady and not s.has_units:
        return closed.service(s.curves, s.mix, in_flight, s.sequences, reasoning)
    rate = rate_in_flight(s, in_flight)
    return service_of(s, rate, reasoning=reasoning), rate


def in_flight_rate(s: Serving, in_flight: Floats, is_steady: bool) -> Floats:
    """The rate of ``in_flight_service`` alone, [P]."""
    if is_steady and not s.has_units:
        return closed.rate(s.curves, s.mix, in_flight, s.sequences)
    return rate_in_flight(s, in_flight)


def rate_in_flight(s: Serving, in_flight: Floats) -> Floats:
    """The Poisson rate [P] at which so many requests are in each replica in the mean."""
    low, high = np.zeros(len(s.replicas)), in_flight / 1e-4  # no answer takes less than a tenth of a millisecond
    for _ in range(SEARCH):
        middle = (low + high) / 2
        fewer = service_of(s, middle).in_flight <= in_flight
        low, high = np.where(fewer, middle, low), np.where(fewer, high, middle)
    return low
