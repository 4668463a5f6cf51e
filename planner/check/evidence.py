"""Checks what a deployment says of how its performance is known: tier, nearest measurement, what the confidence costs, and what limits it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from planner.catalog.names import measured_as
from planner.check.case import Case, Fit, Rebuilt, mixture_factor, refitted, step_factor_at
from planner.check.findings import Finding, Notes, at_most
from planner.performance.calibrated import in_words
from planner.performance.capacity import pooled_qps
from planner.performance.coefficients import TIERS
from planner.performance.evidence import stands_for, tier_word
from planner.performance.replicas import ENGINES
from planner.performance.tuning import TUNINGS, taken_for
from planner.result.plan import HARDLY_ANY, Deployment, PlanEvidence

STATED = 1e-4
HIGH = 0.95
MEDIAN = 0.5
GAIN = 1.002  # a limit binds where lifting it raises capacity by more


@dataclass(frozen=True)
class _Stated:
    """What one deployment states, and what it is checked against."""

    notes: Notes
    case: Case
    index: int
    built: Rebuilt
    evidence: PlanEvidence
    where: str


def evidence(case: Case) -> Finding:
    """Everything that the plan's evidence states, from the catalogue's measurements and the curves at other confidences."""
    notes, said = Notes("evidence"), []
    for i, (d, built) in enumerate(zip(case.plan.deployments, case.built, strict=True)):
        if built is None or not built.serves or built.serves[0] not in built.fits:
            continue
        if d.evidence is None:
            notes.add(case.where(i), "states no evidence")
            continue
        on = _Stated(notes, case, i, built, d.evidence, case.where(i))
        _known(on)
        _source(on)
        otherwise = {v: _otherwise(on, v) for v in built.serves if v in built.fits}
        _median(on, {v: fits[:2] for v, fits in otherwise.items()})
        _binding(on, otherwise[built.serves[0]][2:])
        said.append(f"{d.checkpoint} {d.evidence.tier}")
    return notes.finding(f"evidence: {', '.join(said)}, with what the confidence costs against the median")


def _known(on: _Stated) -> None:
    notes, built, e, where = on.notes, on.built, on.evidence, on.where
    right = tier_word(TIERS.index(built.tier), built.is_own)
    notes.require(e.tier == right, where, f"states evidence tier {e.tier}, should be {right}")
    notes.agree(e.step_time_factor, built.fits[built.serves[0]].step_factor, where, "a step time factor of", STATED)
    notes.agree(e.confidence, on.case.scenario.policy.confidence, where, "a confidence of")


def _source(on: _Stated) -> None:
    """The nearest measurement is one of the catalogue's, of its date, and as near as the tier says."""
    notes, case, built, e, where = on.notes, on.case, on.built, on.evidence, on.where
    at = int(built.found.nearest[0])
    if at < 0:
        right, as_of, near = "fitted physics only", case.coefficients.fitted, built.tier == TIERS[-1]
    else:
        m = case.catalog.measured[at]
        whose = measured_as(m.architecture, built.served.card.name, built.served.checkpoint.id)
        right, as_of = f"{whose} {m.precision} on {m.gpu}, {m.engine} TP{m.tp}: {m.source}", m.as_of
        near = m.gpu == built.gpu.name and (built.tier == "transferred" or m.architecture == built.served.card.name)
    options = case.options.sources(built.replica, 0) if case.options else ()
    notes.require((e.source, e.as_of) == ("; ".join((right, *options)), as_of), where, f"states the evidence '{e.source}' of {e.as_of}, should be '{right}'")
    version = stands_for(built.found, built.replica, (built.served.card.name,), case.coefficients, 0)
    notes.require(e.stands_for == version, where, f"is said to stand for '{e.stands_for}', should for '{version}'")
    notes.require(near or built.is_own, where, f"states tier {e.tier}, which its nearest measurement does not bear out: {right}")
    one = built.replica
    own = in_words(case.catalog.calibrated, built.gpu.name, ENGINES[int(one.engine[0])], built.served.card.name, int(one.tp[0]))
    notes.require(e.note == own, where, f"states of its evidence '{e.note}', should be '{own}'")


def _otherwise(on: _Stated, w: int) -> tuple[Fit, ...]:
    """A workload at the median and at a high confidence; and the first that is served, with each of its limits lifted."""
    lifts = range(len(on.built.fits[w].limits)) if w == on.built.serves[0] else ()
    return refitted(on.case, on.index, w, [(MEDIAN, -1), (HIGH, -1), *((on.case.scenario.policy.confidence, k) for k in lifts)])


def _median(on: _Stated, at: Mapping[int, tuple[Fit, ...]]) -> None:
    """What the same traffic would take at the median of predictions, and the step at other confidences."""
    notes, built, e, where, w = on.notes, on.built, on.evidence, on.where, on.built.serves[0]
    for confidence, stated in e.step_time_band.items():
        if _is_share(confidence):
            right = step_factor_at(on.case, on.index, w, float(confidence))
            notes.agree(stated, right, where, f"at confidence {confidence} a step time factor of", STATED)
        else:
            notes.add(where, f"states a step at the confidence '{confidence}'")
    notes.require(bool(e.step_time_band), where, "states no band of step times")
    median, high = ({v: fits[k] for v, fits in at.items()} for k in range(2))
    if len(median) < len(built.serves) or not all(f.single > 0 for f in median.values()):
        return
    notes.agree(e.capacity_factor, built.fits[w].single / median[w].single, where, "a capacity factor of", STATED)
    _replicas(on, median, e.replicas_at_median, "at the median")
    _tunings(on)
    _replicas(on, high if len(high) == len(built.serves) else {}, e.replicas_at_95, "at confidence 0.95")


def _tunings(on: _Stated) -> None:
    """What the same traffic would take of engines set otherwise."""
    notes, case, e, where = on.notes, on.case, on.evidence, on.where
    asked = case.scenario.policy.tuning
    known = {"recipe", *(name for name, _ in case.catalog.tuned)} - {asked}
    notes.require(e.tuning == asked, where, f"states engines set as '{e.tuning}', asked for is '{asked}'")
    notes.require(set(e.replicas_by_tuning) == known, where, f"states replicas of engines set as {sorted(e.replicas_by_tuning)}, should be {sorted(known)}")
    taken = taken_for(case.catalog, ENGINES[int(on.built.replica.engine[0])], TUNINGS)
    right = {t: engines for t, engines in taken.items() if t in known | {asked}}
    notes.require(not e.tuning_taken or e.tuning_taken == right, where, f"states engines that stand for its own of {e.tuning_taken}, should be {right}")
    for tuning in TUNINGS:
        if tuning in known and tuning in e.replicas_by_tuning:
            stated = e.replicas_by_tuning[tuning]
            fits = {w: refitted(case, on.index, w, [(case.scenario.policy.confidence, -1)], tuning)[0] for w in on.built.serves}
            _replicas(on, fits, stated, f"of engines set as {tuning}")


def _replicas(on: _Stated, fits: dict[int, Fit], stated: int | None, at: str) -> None:
    """So many replicas carry the traffic at a confidence, and no fewer do; none is stated where a replica carries nothing, or hardly anything."""
    able = bool(fits) and all(f.single > HARDLY_ANY * on.built.fits[w].single for w, f in fits.items())
    if stated is None or not able:
        on.notes.require(stated is None and not able, on.where, f"states {'no number of' if stated is None else stated} replicas {at}")
        return
    here = stated - on.case.scenario.policy.spare_replicas - on.case.plan.deployments[on.index].standing_by
    enough, fewer = (_carries(on.case, on.index, fits, n) for n in (here, here - 1))
    on.notes.require(enough and not fewer, on.where, f"states {stated} replicas {at}, which are {'too many' if enough else 'too few'}")


def _is_share(text: str) -> bool:
    try:
        return 0 < float(text) < 1
    except ValueError:
        return False


def _carries(case: Case, i: int, fits: dict[int, Fit], replicas: int) -> bool:
    """Whether so many replicas in service carry the traffic within the SLO load allowed."""
    if replicas < 1:
        return False
    policy, load = case.scenario.policy, 0.0
    for w, fit in fits.items():
        if len(fits) > 1 or policy.router == "random":
            able = fit.single * (mixture_factor(case.scenario) if len(fits) > 1 else 1.0)
        else:
            able = float(pooled_qps(np.array(fit.single), np.array(fit.saturated), replicas))
        load += case.flow(w, i) / able / replicas
    return at_most(load, policy.max_slo_load)


def _binding(on: _Stated, lifted: Sequence[Fit]) -> None:
    """What is said to limit a deployment does: lifting that limit raises its capacity more than lifting any other."""
    d, w = on.case.plan.deployments[on.index], on.built.serves[0]
    fit, asked = on.built.fits[w], on.case.scenario.workload[w]
    if fit.single <= 0:
        return
    gains = [without.single / fit.single for without in lifted]
    best = int(np.argmax(gains)) if gains else 0
    if gains and gains[best] >= GAIN:
        share = f"at most {100 * asked.max_waiting_share:g}% of requests finding a replica full"
        right = asked.limits[best].words if best < len(asked.limits) else share
    else:
        right = _sequences(d, fit)
    on.notes.require(d.binding_limit == right, on.where, f"is said to be limited by '{d.binding_limit}', should be '{right}'")


def _sequences(d: Deployment, fit: Fit) -> str:
    """Where no limit binds: a full engine, the sequences it may admit, or the room they find."""
    room = min(int(fit.memory.slots[0]), fit.most)
    if d.decode_engines or d.max_num_seqs < room:
        return "saturation"
    if room < fit.most:
        return "KV cache room"
    return f"the {fit.most} sequences up to which drafting was measured" if d.speculative else f"the engines' limit of {fit.most} sequences"
