"""Checks what is shed: what is served and what is not add up to what was asked, a class is short as one, and none goes short for a lower one.

The last by trying: the deployments that serve a class that is short, on the instances that the plan holds less all that lower classes take, and on what
the caps would then let be bought beside them. Where a thousandth more of it could be carried so, the plan does not serve by priority. That no other
fleet serves more rests on the search.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

from planner.check.case import Case
from planner.check.findings import Finding, Notes, same
from planner.check.periods import load_on
from planner.check.supply import counted, held_by, offer_of
from planner.result.plan import Purchase, Shed
from planner.scenario.caps import caps

STEP = 1e-3  # of a class: shares are told in thousandths
SURE = 1e-4  # relative: loads this near to what is allowed are not taken to be below it


def shed(case: Case) -> Finding:
    """Each row against the workloads that the plan serves."""
    notes, plan = Notes("shed"), case.plan
    if not plan.shed:
        return notes.finding("shed: nothing, all that was asked is served")
    notes.require(case.scenario.policy.shed, "shed", "is stated, and was not asked for")
    known = {w.name: w for w in case.scenario.workload}
    for row in plan.shed:
        notes.require(0 <= row.share <= 1, row.workload, f"sheds a share of {row.share:g}")
        notes.agree(row.served, row.asked * (1 - row.share), row.workload, "to serve")
        w = known.pop(row.workload, None)
        notes.require((w is None) == (row.served == 0), row.workload, "is served and shed whole, or neither")
        if w is not None:
            notes.require(same(w.rate, row.served), row.workload, f"states {row.served:.8g} served, the plan serves {w.rate:.8g}")
            notes.require((w.priority_class, w.rate_field) == (row.priority, row.kind), row.workload, "states another priority or kind of demand")
    notes.require(not known, "shed", f"does not state {', '.join(known)}")
    for first in {r.priority for r in plan.shed}:
        shares = {round(r.share, 9) for r in plan.shed if r.priority == first}
        notes.require(len(shares) == 1, f"class {first}", f"is short by different shares: {sorted(shares)}")
    tried = [first for first in sorted({r.priority for r in plan.shed if r.share > STEP}) if _could_have_more(notes, case, first)]
    rest = f"; no thousandth more of class {', '.join(map(str, tried))} without what lower ones take" if tried else ""
    return notes.finding(f"shed: {sum(r.share > 0 for r in plan.shed)} of {len(plan.shed)} workloads are short, what is served and shed adds up{rest}")


def _could_have_more(notes: Notes, case: Case, first: int) -> bool:
    """Whether it was tried to carry a thousandth more of a class that is short; a breach where that goes.

    Not tried: losses to bear, means of quality, APIs, deployments that workloads share, and a class that a plan serves nothing of.
    """
    rows = {r.workload: r for r in case.plan.shed if r.priority <= first}
    names = [w.name for w in case.plan.workloads]
    kept = [w for w, name in enumerate(names) if name in rows]
    short = [w for w in kept if rows[names[w]].priority == first]
    policy, asked = case.scenario.policy, case.scenario.workload
    if policy.survives or case.plan.hosted or any(w.mean_quality is not None for w in asked) or len(short) < sum(r.priority == first for r in rows.values()):
        return False
    here = {i: [w for w in built.serves if w in kept] for i, built in enumerate(case.built) if built and any(w in kept for w in built.serves)}
    if any(len(served) > 1 for served in here.values()):
        return False
    mine = [i for i, served in here.items() if any(w in short for w in served)]
    more = _more_replicas(case, mine[0], here) if len(mine) == 1 else 0
    for i, served in here.items():
        flows = [case.flow(w, i) * _grown(rows[names[w]], w in short) for w in served]
        replicas = case.plan.deployments[i].replicas - policy.spare_replicas + (more if i in mine else 0)
        if not load_on(case, i, served, flows, replicas) <= policy.max_slo_load * (1 - SURE):
            return True
    by, extra = max(rows[names[w]].share for w in short), f" and {more} replicas more of it" if more else ""
    notes.add(f"class {first}", f"is short by {by:.1%}, and {STEP:.1%} more of it is carried without lower classes{extra}")
    return True


def _grown(row: Shed, is_short: bool) -> float:
    """How many times what a plan serves of a workload is tried: a thousandth of the demand more, where its class is short."""
    return 1 + STEP / (1 - row.share) if is_short else 1.0


def _more_replicas(case: Case, d: int, kept: Mapping[int, list[int]]) -> int:
    """Replicas more of a deployment that there is room for where only these deployments are kept: on instances that others leave, or on what the caps
    then let be bought of those that it stands on."""
    plan, gpus = case.plan, case.plan.deployments[d].gpus_per_replica
    used = [0] * len(plan.purchases)  # GPUs of those kept
    for i in kept:
        for host in plan.deployments[i].hosts:
            used[host.purchase] += host.replicas * plan.deployments[i].gpus_per_replica
    mine = {host.purchase for host in plan.deployments[d].hosts}
    room = sum(_free(p, used[k], gpus) for k, p in enumerate(plan.purchases) if k in mine)
    return room + max((_bought(case, k, used, gpus) for k in sorted(mine)), default=0)


def _free(p: Purchase, used: int, gpus: int) -> int:
    """Replicas of so many GPUs that surely fit on what nobody uses of a purchase: whole instances alone, where these hold several GPUs."""
    if p.basis == "gpu" or p.gpus_per_instance == 1:
        return (p.gpus_held - used) // gpus
    return max(p.instances - used, 0) * (p.gpus_per_instance // gpus)


def _bought(case: Case, k: int, used: list[int], gpus: int) -> int:
    """Replicas on instances that may be bought beside a purchase when those that none of the kept stands on are returned."""
    plan, offer = case.plan, offer_of(case, case.plan.purchases[k])
    if offer is None or offer.until or gpus > offer.gpus_per_instance:
        return 0
    (span,) = plan.by_period
    stay = span.model_copy(update={"instances": tuple(n if used[j] else 0 for j, n in enumerate(span.instances))})
    there = sum(n for other, n in held_by(case, stay) if other is offer)
    most = float(offer.available - there) if offer.available is not None else inf
    for cap in caps(case.scenario):
        now, one = (counted(cap, held, case.scenario, case.catalog) for held in (held_by(case, stay), [(offer, 1)]))
        most = min(most, (cap.most - now) / one) if one > 0 else most
    return (1 if most >= 1 else 0) * (offer.gpus_per_instance // gpus)  # one instance carries more than the thousandth that is tried
