"""Checks what notes say of a cascade: the share answered again, the mean score by the last answer, both answers' time and the cost, out of what is served.

What a plan serves, scores and costs is checked elsewhere; here the sentences are held against it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from planner.check.case import Account
from planner.check.findings import Finding, Notes
from planner.result.plan import Plan, PlanWorkload

SCORES = r": mean \S+ ([\d.]+), each request by its last answer \(([\d.]+) first, ([\d.]+) escalated\)"
AGAIN = re.compile(rf"([\d.]+) of (.+?) is answered again(?:{SCORES})?(?:; escalated requests take both answers, ([\d.e+]+) s on average)?")
COST = re.compile(r"with escalation \$([\d,.]+) an hour|the better model alone costs \$([\d,.]+) an hour, .* escalates nothing")
SCORE, SHARE, CENT = 1.01e-4, 6e-3, 0.0101  # to what the sentences tell: four places of scores, three digits of shares and seconds, cents


def tells_of_cascades(plan: Plan) -> bool:
    """Whether requests are answered again, or its notes say anything of it."""
    return any(w.escalated_from for w in plan.scenario.workload) or any("answered again" in n or "escalat" in n for n in plan.notes)


def cascade(account: Account) -> Finding:
    """Every sentence of a plan about requests that are answered again."""
    notes, plan = Notes("cascade"), account.plan
    got = {w.name: w for w in plan.workloads}
    pairs = {w.escalated_from: (got[w.escalated_from], got[w.name]) for w in plan.scenario.workload if w.name in got and w.escalated_from in got}
    for note in plan.notes:
        if (told := AGAIN.fullmatch(note)) and told[2] in pairs:
            for name, stated, right, room in _numbers(told, *pairs[told[2]]):
                notes.require(abs(stated - right) <= room, told[2], f"a note says {name} {stated:g}, should be {right:.6g}")
        elif "is answered again" in note:
            notes.add("notes", f"'{note}' is of no workload that is answered again")
        elif told := COST.search(note):
            usd = float((told[1] or told[2]).replace(",", ""))
            notes.require(abs(usd - plan.cost.usd_per_hour) <= CENT, "cost", f"a note says ${usd:,.2f} an hour, the plan costs ${plan.cost.usd_per_hour:,.2f}")
    return notes.finding(f"cascade: {len(pairs)} workloads answered again, as the notes say")


def _numbers(told: re.Match[str], first: PlanWorkload, again: PlanWorkload) -> Iterator[tuple[str, float, float, float]]:
    """(what, as told, as served, how near) of one cascade; the share is of the requests that are really served twice."""
    share = again.qps / first.qps
    yield "a share of", float(told[1]), share, SHARE * share
    low, high = first.mean_quality_served, again.mean_quality_served
    if told[3] and low is not None and high is not None:
        yield "a mean score of", float(told[3]), low + share * (high - low), SCORE
        yield "a first score of", float(told[4]), low, SCORE
        yield "an escalated score of", float(told[5]), high, SCORE
    if told[6] and first.predicted and again.predicted:
        both = (first.predicted.e2e_ms.mean + again.predicted.e2e_ms.mean) / 1e3
        yield "seconds of both answers", float(told[6]), both, SHARE * both
