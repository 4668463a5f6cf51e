"""Checks quality: the scores stated are the catalogue's, every workload meets its floor, and the mean over requests its own."""

from __future__ import annotations

from planner.catalog.catalog import Served
from planner.check.case import Case
from planner.check.findings import RELATIVE, Finding, Notes, same
from planner.result.plan import HostedShare, PlanQuality, PlanWorkload
from planner.scenario.workload import Workload


def quality(case: Case) -> Finding:
    """Stated scores, floors and means of all workloads."""
    notes = Notes("quality")
    for i in range(len(case.built)):
        _stated(notes, case, i)
    said = []
    for w, (got, asked) in enumerate(zip(case.plan.workloads, case.scenario.workload, strict=True)):
        scores = {r.deployment: _score(case, r.deployment, asked) for r in got.routing if r.share > 0 and case.built[r.deployment]}
        bought = [(_at_api(case, h, asked), h.share * asked.rate * asked.burst_factor) for h in case.plan.hosted if h.workload == got.name]
        margin = case.scenario.policy.quality_margin
        for i, score in scores.items():
            clears_floor(notes, asked, score, margin, case.where(i))
        if not got.is_waiting and all(case.built[r.deployment] for r in got.routing):  # what does not exist is a breach of its own
            _means(notes, got, asked, margin, [*((score, case.flow(w, i)) for i, score in scores.items()), *bought])
        if asked.min_quality is not None:
            known = [score for score in (*scores.values(), *(score for score, _ in bought)) if score is not None]
            said.append(f"{got.name} floor {asked.min_quality:g}, least served {min(known, default=0.0):g}")
        if asked.mean_quality is not None:
            said.append(f"{got.name} mean {got.mean_quality_served or 0:g} of {asked.mean_quality:g}")
    return notes.finding("quality: " + ("; ".join(said) or "no floor asked") + "; scores as in the catalogue")


def _score(case: Case, index: int, workload: Workload) -> float | None:
    """What a deployment's score counts for: where derived scores count at the worst, the original's times the lowest recovery of the scheme."""
    built = case.built[index]
    return worth(built.served, workload, case) if built else None


def _at_api(case: Case, row: HostedShare, workload: Workload) -> float | None:
    """The same of what an API is listed under."""
    served = next((s for s in case.catalog.served if (s.checkpoint.id, s.mode) == (row.checkpoint, row.mode)), None)
    return worth(served, workload, case) if served else None


def worth(served: Served, workload: Workload, case: Case) -> float | None:
    """The score of a checkpoint that counts against a workload's floors."""
    found = case.catalog.quality(served, workload.quality_metric)
    if found is None or not (case.scenario.policy.worst_recovery and found.derived):
        return found.score if found else None
    key = (served.checkpoint.quantised_from, served.mode, workload.quality_metric)
    original = next(s.score for s in served.card.quality if (s.checkpoint, s.mode, s.benchmark) == key)
    return original * case.catalog.recoveries[served.checkpoint.scheme].lowest


def clears_floor(notes: Notes, asked: Workload, score: float | None, margin: float, where: str) -> None:
    """A score that counts for so much reaches the workload's floor."""
    floor, by = asked.min_quality, f" cleared by {margin:g}" if margin else ""
    if floor is not None and score is None:
        notes.add(where, f"{asked.name} asks {asked.quality_metric} of {floor:g}, and it has no such score")
    elif floor is not None and score is not None:
        notes.require(score - floor >= margin - RELATIVE, where, f"{asked.name} asks {floor:g} {asked.quality_metric}{by}, it scores {score:g}")


def _means(notes: Notes, got: PlanWorkload, asked: Workload, margin: float, known: list[tuple[float | None, float]]) -> None:
    """The least and the mean score over requests (in flight, where these are demanded), as stated and as asked."""
    values = [(score, rate) for score, rate in known if score is not None]
    if len(values) < len(known) or not values:
        notes.require(asked.mean_quality is None, got.name, "a mean quality is asked, and not every deployment has a score")
        notes.require(got.min_quality_served is None and got.mean_quality_served is None, got.name, "states a score served, and not every deployment has one")
        return
    least, mean = min(s for s, _ in values), sum(s * r for s, r in values) / max(sum(r for _, r in values), 1e-12)
    for stated, right, what in ((got.min_quality_served, least, "least score served"), (got.mean_quality_served, mean, "mean score served")):
        notes.require(stated is not None and same(stated, right), got.name, f"states {what} {stated}, should be {right:.6g}")
    if asked.mean_quality is not None:
        notes.require(mean - asked.mean_quality >= margin - RELATIVE, got.name, f"asks a mean of {asked.mean_quality + margin:g}, gets {mean:.6g}")


def _stated(notes: Notes, case: Case, index: int) -> None:
    """The score that a deployment states is the catalogue's, in the benchmark of the first workload it serves; the margin is to that one's floor."""
    stated, built, where = case.plan.deployments[index].quality, case.built[index], case.where(index)
    if built is None or not built.serves:
        return
    stated_score(notes, case, built.served, case.scenario.workload[built.serves[0]], stated, where, case.plan.deployments[index].kv_cache_dtype == "fp8")


def stated_score(notes: Notes, case: Case, served: Served, asked: Workload, stated: PlanQuality | None, where: str, fp8_kv: bool = False) -> None:
    """The same for what serves a workload."""
    found = case.catalog.quality(served, asked.quality_metric)
    if found is None or stated is None:
        notes.require(found is None and stated is None, where, f"states {'a' if stated else 'no'} score in {asked.quality_metric}, the catalogue otherwise")
        return
    counts = worth(served, asked, case)
    margin = None if asked.min_quality is None or counts is None else round(counts - asked.min_quality, 6)
    right = PlanQuality(
        benchmark=found.benchmark, score=found.score, margin=margin, self_reported=found.self_reported, derived=found.derived, source=found.source,
        as_of=found.as_of, note=found.note, fp8_kv_unmeasured=fp8_kv,
    )  # fmt: skip
    notes.match(stated, right, where, skip={"margin"})
    near = stated.margin == margin or (stated.margin is not None and margin is not None and abs(stated.margin - margin) <= 2 * RELATIVE)
    notes.require(near, where, f"states a margin of {stated.margin}, should be {margin}")
