"""Cascades: a stated share of a workload's requests is answered again by a better model, as a workload of its own beside the first.

Who decides that an answer is not good enough, and what that costs, is not part of it: the share is stated.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from planner.errors import TimeUp
from planner.result.plan import Plan
from planner.scenario.change import with_workloads
from planner.scenario.records import Scenario
from planner.scenario.sources import Origins, inherited
from planner.scenario.workload import Workload


def cascaded(scenario: Scenario, origins: Origins, solve: Callable[[Scenario, Origins], Plan], cost: Callable[[Scenario], float]) -> Plan:
    """The cheaper of the plans with escalation and with everything answered by the better models; it says by how much.

    cost: $/h of the cheapest plan, infinite where there is none. Raises Infeasible where neither exists, TimeUp.
    """
    twice, once = escalated(scenario), unescalated(scenario)
    two = cost(twice)
    try:
        one = cost(once)
    except TimeUp:
        one, words = inf, "what the better model alone costs was not found in time"
    else:
        words = f"the better model alone costs ${one:,.2f} an hour" if one < inf else "the better model alone has no plan"
    if one <= two and one < inf:
        beside = f"escalation costs ${two:,.2f}" if two < inf else "escalation has no plan"
        return solve(once, origins).noted(f"the better model alone costs ${one:,.2f} an hour, {beside}: this plan escalates nothing")
    plan = solve(twice, inherited(origins, [i for i, w in enumerate(scenario.workload) for _ in range(1 + w.is_cascade)]))
    return plan.noted(*_told(plan), f"with escalation ${plan.cost.usd_per_hour:,.2f} an hour; {words}")


def escalated(scenario: Scenario) -> Scenario:
    """The scenario with every cascade as two workloads: all requests, and beside them those that are answered again, of the same lengths and limits."""
    return with_workloads(scenario, (x for w in scenario.workload for x in (_pair(w) if w.is_cascade else (w,))))


def unescalated(scenario: Scenario) -> Scenario:
    """The scenario with every request of a cascade answered once, by a model that escalated requests may have."""
    return with_workloads(scenario, (_first(w, min_quality=w.escalate_quality) if w.is_cascade else w for w in scenario.workload))


def _first(workload: Workload, **change: object) -> Workload:
    return workload.model_copy(update={"escalate": None, "escalate_quality": None, **change})


def _pair(workload: Workload) -> tuple[Workload, Workload]:
    assert workload.escalate is not None and workload.qps is not None
    again = {"name": f"{workload.name} (escalated)", "escalated_from": workload.name, "qps": workload.qps * workload.escalate}
    return _first(workload), workload.model_copy(update=again | {"min_quality": workload.escalate_quality, "mean_quality": None, "models": ()})


def _told(plan: Plan) -> list[str]:
    """Of each cascade the mean score, each request by who answered it last, and how long escalated requests take: both answers."""
    found, got = [], {w.name: w for w in plan.workloads}
    for asked in plan.scenario.workload:
        if not asked.escalated_from or asked.escalate is None:
            continue
        first, again, share = got[asked.escalated_from], got[asked.name], asked.escalate
        words = f"{share:.3g} of {first.name} is answered again"
        if first.mean_quality_served is not None and again.mean_quality_served is not None:
            low, high = first.mean_quality_served, again.mean_quality_served
            words += (
                f": mean {asked.quality_metric} {(1 - share) * low + share * high:.4f}, each request by its last answer ({low:.4f} first, {high:.4f} escalated)"
            )
        if first.predicted and again.predicted:
            both = (first.predicted.e2e_ms.mean + again.predicted.e2e_ms.mean) / 1e3
            words += f"; escalated requests take both answers, {both:.3g} s on average"
        found.append(words)
    return found
