"""Checks what is shed: what is served and what is not add up to what was asked, and a class is short as one.

That no more could be served rests on the search, and is not derived again.
"""

from __future__ import annotations

from planner.check.case import Case
from planner.check.findings import Finding, Notes, same


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
    return notes.finding(f"shed: {sum(r.share > 0 for r in plan.shed)} of {len(plan.shed)} workloads are short, what is served and shed adds up")
