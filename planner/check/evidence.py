"""Checks what a deployment says of how its performance is known: tier, nearest measurement, what the confidence costs, and what limits it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from planner.catalog.names import measured_as
from planner.check.case import Case, Fit, Rebuilt, mixture_factor, refitted, step_factor_at
from planner.check.findings import Finding, Notes, at_most
from planner.performance.calibrated import in_words
from planner.performance.capacity import pooled_qps
from planner.performance.coefficients import TIERS
from planner.performance.replicas import ENGINES
from planner.performance.tuning import TUNINGS
from planner.result.plan import Deployment, PlanEvidence

STATED = 1e-4
HIGH = 0.95
MEDIAN = 0.5
GAIN = 1.002  # a limit binds where lifting it raises capacity by more


def evidence(case: Case) -> Finding:
    """Everything that the plan's evidence states, from the catalogue's measurements and the curves at other confidences."""
    notes, said = Notes("evidence"), []
    for i, (d, built) in enumerate(zip(case.plan.deployments, case.built, strict=True)):
        if built is None or not built.serves or built.serves[0] not in built.fits:
            continue
        where = case.where(i)
        if d.evidence is None:
            notes.add(where, "states no evidence")
            continue
        _known(notes, case, built, d.evidence, where)
        _source(notes, case, built, d.evidence, where)
        otherwise = {v: _otherwise(case, i, built, v) for v in built.serves if v in built.fits}
        _median(notes, case, i, built, d.evidence, {v: fits[:2] for v, fits in otherwise.items()}, where)
        _binding(notes, case, i, built, otherwise[built.serves[0]][2:], where)
        said.append(f"{d.checkpoint} {d.evidence.tier}")
    return notes.finding(f"evidence: {', '.join(said)}, with what the confidence costs against the median")


def _known(notes: Notes, case: Case, built: Rebuilt, e: PlanEvidence, where: str) -> None:
    notes.require(e.tier == built.tier, where, f"states evidence tier {e.tier}, should be {built.tier}")
    notes.agree(e.step_time_factor, built.fits[built.serves[0]].step_factor, where, "a step time factor of", STATED)
    notes.agree(e.confidence, case.scenario.policy.confidence, where, "a confidence of")


def _source(notes: Notes, case: Case, built: Rebuilt, e: PlanEvidence, where: str) -> None:
    """The nearest measurement is one of the catalogue's, of its date, and as near as the tier says."""
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
    notes.require(near, where, f"states tier {e.tier}, which its nearest measurement does not bear out: {right}")
    one = built.replica
    own = in_words(case.catalog.calibrated, built.gpu.name, ENGINES[int(one.engine[0])], built.served.card.name, int(one.tp[0]))
    notes.require(e.note == own, where, f"states of its evidence '{e.note}', should be '{own}'")


def _otherwise(case: Case, i: int, built: Rebuilt, w: int) -> tuple[Fit, ...]:
    """A workload at the median and at a high confidence; and the first that is served, with each of its limits lifted."""
    lifts = range(len(built.fits[w].limits)) if w == built.serves[0] else ()
    return refitted(case, i, w, [(MEDIAN, -1), (HIGH, -1), *((case.scenario.policy.confidence, k) for k in lifts)])


def _median(notes: Notes, case: Case, i: int, built: Rebuilt, e: PlanEvidence, at: Mapping[int, tuple[Fit, ...]], where: str) -> None:
    """What the same traffic would take at the median of predictions, and the step at other confidences."""
    w = built.serves[0]
    for confidence, stated in e.step_time_band.items():
        if _is_share(confidence):
            right = step_factor_at(case, i, w, float(confidence))
            notes.agree(stated, right, where, f"at confidence {confidence} a step time factor of", STATED)
        else:
            notes.add(where, f"states a step at the confidence '{confidence}'")
    notes.require(bool(e.step_time_band), where, "states no band of step times")
    median, high = ({v: fits[k] for v, fits in at.items()} for k in range(2))
    if len(median) < len(built.serves) or not all(f.single > 0 for f in median.values()):
        return
    notes.agree(e.capacity_factor, built.fits[w].single / median[w].single, where, "a capacity factor of", STATED)
    _replicas(notes, case, i, median, e.replicas_at_median, "at the median", where)
    _tunings(notes, case, i, built, e, where)
    _replicas(notes, case, i, high if len(high) == len(built.serves) else {}, e.replicas_at_95, "at confidence 0.95", where)


def _tunings(notes: Notes, case: Case, i: int, built: Rebuilt, e: PlanEvidence, where: str) -> None:
    """What the same traffic would take of engines set otherwise."""
    asked = case.scenario.policy.tuning
    known = {"recipe", *(name for name, _ in case.catalog.tuned)} - {asked}
    notes.require(e.tuning == asked, where, f"states engines set as '{e.tuning}', asked for is '{asked}'")
    notes.require(set(e.replicas_by_tuning) == known, where, f"states replicas of engines set as {sorted(e.replicas_by_tuning)}, should be {sorted(known)}")
    for tuning in TUNINGS:
        if tuning in known and tuning in e.replicas_by_tuning:
            stated = e.replicas_by_tuning[tuning]
            fits = {w: refitted(case, i, w, [(case.scenario.policy.confidence, -1)], tuning)[0] for w in built.serves}
            _replicas(notes, case, i, fits, stated, f"of engines set as {tuning}", where)


def _replicas(notes: Notes, case: Case, i: int, fits: dict[int, Fit], stated: int | None, at: str, where: str) -> None:
    """So many replicas carry the traffic at a confidence, and no fewer do; none is stated where a replica carries nothing."""
    able = bool(fits) and all(f.single > 0 for f in fits.values())
    if stated is None or not able:
        notes.require(stated is None and not able, where, f"states {'no number of' if stated is None else stated} replicas {at}")
        return
    here = stated - case.scenario.policy.spare_replicas
    enough, fewer = (_carries(case, i, fits, n) for n in (here, here - 1))
    notes.require(enough and not fewer, where, f"states {stated} replicas {at}, which are {'too many' if enough else 'too few'}")


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


def _binding(notes: Notes, case: Case, i: int, built: Rebuilt, lifted: Sequence[Fit], where: str) -> None:
    """What is said to limit a deployment does: lifting that limit raises its capacity more than lifting any other."""
    d, w = case.plan.deployments[i], built.serves[0]
    fit, limits = built.fits[w], case.scenario.workload[w].limits
    if fit.single <= 0:
        return
    gains = [without.single / fit.single for without in lifted]
    best = int(np.argmax(gains)) if gains else 0
    if gains and gains[best] >= GAIN:
        share = f"at most {100 * case.scenario.workload[w].max_waiting_share:g}% of requests finding a replica full"
        right = limits[best].words if best < len(limits) else share
    else:
        right = _sequences(d, fit)
    notes.require(d.binding_limit == right, where, f"is said to be limited by '{d.binding_limit}', should be '{right}'")


def _sequences(d: Deployment, fit: Fit) -> str:
    """Where no limit binds: a full engine, the sequences it may admit, or the room they find."""
    room = min(int(fit.memory.slots[0]), fit.most)
    if d.decode_engines or d.max_num_seqs < room:
        return "saturation"
    if room < fit.most:
        return "KV cache room"
    return f"the {fit.most} sequences up to which drafting was measured" if d.speculative else f"the engines' limit of {fit.most} sequences"
