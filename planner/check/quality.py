"""Checks quality: the scores stated are the catalogue's, every workload meets its floor, and the mean over requests its own."""

from __future__ import annotations

from planner.catalog.catalog import Quality
from planner.check.case import Case
from planner.check.findings import RELATIVE, Finding, Notes, same
from planner.plan import PlanQuality, PlanWorkload
from planner.scenario.records import Workload


def quality(case: Case) -> Finding:
    """Stated scores, floors and means of all workloads."""
    notes = Notes("quality")
    for i in range(len(case.built)):
        _stated(notes, case, i)
    said = []
    for w, (got, asked) in enumerate(zip(case.plan.workloads, case.scenario.workload, strict=True)):
        scores = {r.deployment: _score(case, r.deployment, asked) for r in got.routing if r.share > 0 and case.built[r.deployment]}
        for i, score in scores.items():
            _floor(notes, asked, score, case.where(i))
        if all(case.built[r.deployment] for r in got.routing):  # what does not exist is a breach of its own
            _means(notes, got, asked, [(score, case.flow(w, i)) for i, score in scores.items()])
        if asked.min_quality is not None:
            said.append(f"{got.name} floor {asked.min_quality:g}, least served {min((s.score for s in scores.values() if s), default=0.0):g}")
        if asked.mean_quality is not None:
            said.append(f"{got.name} mean {got.mean_quality_served or 0:g} of {asked.mean_quality:g}")
    return notes.finding("quality: " + ("; ".join(said) or "no floor asked") + "; scores as in the catalogue")


def _score(case: Case, index: int, workload: Workload) -> Quality | None:
    built = case.built[index]
    return case.catalog.quality(built.served, workload.quality_metric) if built else None


def _floor(notes: Notes, asked: Workload, score: Quality | None, where: str) -> None:
    floor = asked.min_quality
    if floor is not None and score is None:
        notes.add(where, f"{asked.name} asks {asked.quality_metric} of {floor:g}, and it has no such score")
    elif floor is not None and score is not None:
        notes.require(score.score >= floor - RELATIVE, where, f"{asked.name} asks {floor:g} {asked.quality_metric}, it scores {score.score:g}")


def _means(notes: Notes, got: PlanWorkload, asked: Workload, known: list[tuple[Quality | None, float]]) -> None:
    """The least and the mean score over requests (in flight, where these are demanded), as stated and as asked."""
    values = [(q.score, rate) for q, rate in known if q is not None]
    if len(values) < len(known) or not values:
        notes.require(asked.mean_quality is None, got.name, "a mean quality is asked, and not every deployment has a score")
        return
    least, mean = min(s for s, _ in values), sum(s * r for s, r in values) / max(sum(r for _, r in values), 1e-12)
    for stated, right, what in ((got.min_quality_served, least, "least score served"), (got.mean_quality_served, mean, "mean score served")):
        notes.require(stated is None or same(stated, right), got.name, f"states {what} {stated}, should be {right:.6g}")
    if asked.mean_quality is not None:
        notes.require(mean >= asked.mean_quality - RELATIVE, got.name, f"asks a mean of {asked.mean_quality:g}, gets {mean:.6g}")


def _stated(notes: Notes, case: Case, index: int) -> None:
    """The score a deployment states against the catalogue's, its derivation and its margin."""
    stated, built = case.plan.deployments[index].quality, case.built[index]
    if stated is None or built is None:
        return
    where, right = case.where(index), case.catalog.quality(built.served, stated.benchmark)
    if right is None:
        notes.add(where, f"states {stated.benchmark} {stated.score:g}, the catalogue has no such score")
        return
    notes.agree(stated.score, right.score, where, stated.benchmark)
    known = (stated.derived, stated.self_reported) == (right.derived, right.self_reported)
    notes.require(known, where, "states otherwise than the catalogue whether its score is derived or self-reported")
    notes.require(stated.source == right.source, where, f"states its score's source as '{stated.source}', the catalogue '{right.source}'")
    _margin(notes, case, index, stated, where)


def _margin(notes: Notes, case: Case, index: int, stated: PlanQuality, where: str) -> None:
    """The margin is to the floor of a workload it serves in that benchmark."""
    built = case.built[index]
    asked = [case.scenario.workload[w] for w in (built.serves if built else ())]
    margins = [stated.score - w.min_quality for w in asked if w.min_quality is not None and w.quality_metric == stated.benchmark]
    fits = stated.margin is None or any(abs(stated.margin - m) <= 2 * RELATIVE for m in margins)
    notes.require(fits, where, f"states a margin of {stated.margin}, should be {' or '.join(f'{m:.6g}' for m in margins) or 'none'}")
