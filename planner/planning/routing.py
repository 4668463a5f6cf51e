"""Routing by prompt length: one workload as classes that a router can tell apart when a request arrives.

A router knows a prompt's length, never its answer's. Classes are runs of the lengths' groups, with as equal token work as groups allow.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import numpy as np

from planner.demand.given import Lengths
from planner.demand.lengths import Floats, Histogram, lengths_of
from planner.errors import TimeUp
from planner.performance.lengths import stated_pairs
from planner.planning.infeasible import Infeasible
from planner.result.plan import Plan
from planner.scenario.change import with_workloads
from planner.scenario.records import Scenario, Workload
from planner.scenario.sources import Origins

CLASSES = 2


def is_routed(workload: Workload) -> bool:
    """Whether it is still to be split."""
    return workload.route_by == "input"


def routed(scenario: Scenario, origins: Origins, solve: Callable[[Scenario, Origins], Plan]) -> Plan:
    """The cheaper of the plans with and without routing by prompt length; it says by how much. Raises Infeasible where neither exists."""
    together = solve_or_none(unsplit(scenario), origins, solve)
    if together is None:
        return _noted(solve(split(scenario), split_origins(scenario, origins)), "only routing by prompt length makes a plan: without it there is none")
    try:
        apart = solve_or_none(split(scenario), split_origins(scenario, origins), solve)
    except TimeUp:
        return _noted(together, "what routing by prompt length would save was not found in time (raise --time-limit)")
    if apart is None:
        return _noted(together, "routing by prompt length has no plan: this one does not route by length")
    try:
        one, two = min(together.cost.usd_per_hour, _as_points(scenario, origins, solve)), apart.cost.usd_per_hour
    except TimeUp:
        return _noted(together, "whether routing by prompt length saves anything was not found in time (raise --time-limit)")
    if two < one * (1 - 1e-9):
        return _noted(apart, f"routing by prompt length saves {1 - two / one:.1%}: ${two:,.2f} an hour against ${one:,.2f} without")
    return _noted(together, f"routing by prompt length saves nothing: ${two:,.2f} an hour against ${one:,.2f} without, so this plan does not route by length")


def _as_points(scenario: Scenario, origins: Origins, solve: Callable[[Scenario, Origins], Plan]) -> float:
    """$/h without routing of lengths only stated, taken as the same few joint points as their classes: what that changes is no saving of routing's."""
    if all(w.lengths for w in scenario.workload if is_routed(w)):
        return inf
    known = tuple(w.model_copy(update={"lengths": joint_lengths(w), "input_cv": None, "output_cv": None}) if is_routed(w) else w for w in scenario.workload)
    plan = solve_or_none(unsplit(with_workloads(scenario, known)), origins, solve)
    return plan.cost.usd_per_hour if plan else inf


def joint_lengths(workload: Workload) -> Lengths:
    """Its lengths one by one; where only means and spreads are known, those of independent lognormals."""
    if workload.lengths:
        return workload.lengths
    inputs, outputs = stated_pairs(workload)
    input_cv, output_cv = workload.spreads
    source = f"independent lognormals of the means stated (CV {input_cv:g} in, {output_cv:g} out)"
    return lengths_of(Histogram(inputs, outputs, np.ones(len(inputs))), source)


def solve_or_none(scenario: Scenario, origins: Origins, solve: Callable[[Scenario, Origins], Plan]) -> Plan | None:
    """Its plan, or None where nothing meets it."""
    try:
        return solve(scenario, origins)
    except Infeasible:
        return None


def _noted(plan: Plan, note: str) -> Plan:
    return plan.model_copy(update={"notes": (note, *plan.notes)})


def split_origins(scenario: Scenario, origins: Origins) -> Origins:
    """Where the values of each class came from: from where its workload's did."""
    found = {k: v for k, v in origins.items() if not k.startswith("workload.")}
    parents = [i for i, w in enumerate(scenario.workload) for _ in (_classes(w) if is_routed(w) else (w,))]
    for new, old in enumerate(parents):
        found |= {k.replace(f"workload.{old}.", f"workload.{new}.", 1): v for k, v in origins.items() if k.startswith(f"workload.{old}.")}
    return found


def split(scenario: Scenario) -> Scenario:
    """The scenario with every workload routed by input as its classes: each with its share of the traffic, its own lengths, the same limits."""
    return with_workloads(scenario, (c for w in scenario.workload for c in (_classes(w) if is_routed(w) else (w,))))


def unsplit(scenario: Scenario) -> Scenario:
    """The scenario with nothing routed by length."""
    return with_workloads(scenario, (w.model_copy(update={"route_by": ""}) for w in scenario.workload))


def _classes(workload: Workload) -> tuple[Workload, ...]:
    lengths = joint_lengths(workload)
    groups = len(lengths.cuts) + 1
    each = len(lengths.points) // groups
    points = np.array(lengths.points).reshape(groups, each, 2)
    work = np.cumsum(points.sum((1, 2)))
    ends = [*sorted({int(np.argmin(np.abs(work - work[-1] * k / CLASSES))) + 1 for k in range(1, CLASSES)} - {groups}), groups]
    starts = [0, *ends[:-1]]
    return tuple(_class(workload, lengths, points, groups, a, b) for a, b in zip(starts, ends, strict=True))


def _class(workload: Workload, lengths: Lengths, points: Floats, groups: int, start: int, end: int) -> Workload:
    low, high = (lengths.cuts[i - 1] if 0 < i < groups else None for i in (start, end))
    words = f"input < {high:,.0f}" if low is None and high else f"input >= {low:,.0f}" if high is None and low else f"input {low:,.0f} to {high:,.0f}"
    mine = points[start:end].reshape(-1, 2)
    longest = (lengths.longest[0] if high is None else high, lengths.longest[1]) if lengths.longest else None
    points_of = tuple((float(i), float(o)) for i, o in mine)
    own = Lengths(source=f"{lengths.source}, {words}", points=points_of, cuts=lengths.cuts[start : end - 1], longest=longest)
    scale_in, scale_out = workload.input_tokens / lengths.mean_input, workload.output_tokens / lengths.mean_output
    share = (end - start) / groups
    rate = {k: v * share for k in ("qps", "concurrency") if (v := getattr(workload, k)) is not None}
    update = {"name": f"{workload.name} ({words})", "lengths": own, "route_by": "", "input_cv": None, "output_cv": None, **rate}
    return workload.model_copy(update=update | {"input_tokens": own.mean_input * scale_in, "output_tokens": own.mean_output * scale_out})
