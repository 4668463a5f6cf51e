"""Routing by prompt length: one workload as two classes that a router can tell apart when a request arrives.

A router knows a prompt's length, never its answer's. Where no boundary is stated it is searched for (planning/boundary.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

import numpy as np
from numpy.typing import NDArray

from planner.demand.given import Lengths
from planner.demand.lengths import Histogram, lengths_of
from planner.demand.tally import PER_OCTAVE
from planner.errors import ScenarioError, TimeUp
from planner.performance.lengths import stated_pairs
from planner.result.plan import Plan
from planner.scenario.change import with_workloads
from planner.scenario.records import Scenario
from planner.scenario.sources import Origins, inherited
from planner.scenario.workload import Workload


def is_routed(workload: Workload) -> bool:
    """Whether it is still to be split."""
    return workload.route_by == "input"


def routed(
    scenario: Scenario, origins: Origins, solve: Callable[[Scenario, Origins], Plan], cost: Callable[[Scenario], float], how: Sequence[str] = ()
) -> Plan:
    """The cheaper of the plans with and without routing by prompt length; it says by how much, and ``how`` the boundary was found.

    cost: $/h of the cheapest plan, infinite where there is none. Raises Infeasible where neither exists, TimeUp.
    """
    pays, words = _compared(scenario, cost)
    if not pays:
        return solve(unsplit(scenario), origins).noted(words, *how)
    parents = [i for i, w in enumerate(scenario.workload) for _ in range(1 + is_routed(w))]
    return solve(split(scenario), inherited(origins, parents)).noted(words, *how)


def _compared(scenario: Scenario, cost: Callable[[Scenario], float]) -> tuple[bool, str]:
    """Whether routing pays, and by how much, in words."""
    plain, apart, where = unsplit(scenario), split(scenario), f"routing by prompt length {in_words(scenario)}"
    one = cost(plain)
    try:
        two = cost(apart)
        one = min(one, _as_points(scenario, cost)) if two < one < inf else one
    except TimeUp:
        return False, f"what {where} would save was not found in time (raise --time-limit)"
    if one == inf:
        return True, f"{where} makes the plan: without it there is none"
    if two == inf:
        return False, f"{where} has no plan: this one does not route by length"
    if two < one * (1 - 1e-9):
        return True, f"{where} saves {1 - two / one:.1%}: ${two:,.2f} an hour against ${one:,.2f} without"
    return False, f"{where} saves nothing: ${two:,.2f} an hour against ${one:,.2f} without, so this plan does not route by length"


def in_words(scenario: Scenario) -> str:
    """At which lengths workloads are split, and how many of their requests are below."""
    found = []
    for w in scenario.workload:
        if is_routed(w):
            whole = histogram_of(w)
            boundary = boundary_of(w, whole)
            found.append(f"at {boundary:,.0f} tokens ({share_below(whole, boundary):.1%} of requests are shorter)")
    return " and ".join(found)


def _as_points(scenario: Scenario, cost: Callable[[Scenario], float]) -> float:
    """$/h without routing of lengths only stated, taken as the same few joint points as their classes: what that changes is no saving of routing's."""
    if all(w.lengths for w in scenario.workload if is_routed(w)):
        return inf
    known = tuple(w.model_copy(update={"lengths": joint_lengths(w), "input_cv": None, "output_cv": None}) if is_routed(w) else w for w in scenario.workload)
    return cost(unsplit(with_workloads(scenario, known)))


def joint_lengths(workload: Workload) -> Lengths:
    """Its lengths one by one; where only means and spreads are known, those of independent lognormals."""
    return workload.lengths or lengths_of(histogram_of(workload), _source(workload))


def histogram_of(workload: Workload) -> Histogram:
    """Its joint lengths: the cells that they were counted in, else its points; of lengths only stated, pairs of independent lognormals."""
    if workload.lengths is None:
        inputs, outputs = stated_pairs(workload)
        return Histogram(inputs, outputs, np.ones(len(inputs)))
    cells = workload.lengths.cells or tuple((i, o, 1.0) for i, o in workload.lengths.points)
    return Histogram(*np.array(cells).T)


def _source(workload: Workload) -> str:
    if workload.lengths:
        return workload.lengths.source
    input_cv, output_cv = workload.spreads
    return f"independent lognormals of the means stated (CV {input_cv:g} in, {output_cv:g} out)"


def boundaries(whole: Histogram) -> tuple[float, ...]:
    """Every length, in whole tokens at the edges of cells, that has other requests below it than the one before; there are requests on both sides."""
    first, last = (int(np.floor(PER_OCTAVE * np.log2(v))) for v in (whole.inputs.min(), whole.inputs.max()))
    edges = np.unique(np.ceil(np.exp2(np.arange(first, last + 2) / PER_OCTAVE)))
    below = [share_below(whole, e) for e in edges]
    return tuple(float(e) for e, share, before in zip(edges, below, (0.0, *below)) if before < share < 1 - 1e-12)


def share_below(whole: Histogram, boundary: float) -> float:
    """Share of the requests whose prompts are shorter; those of a cell count as its mean."""
    return float(whole.weights[whole.inputs < boundary].sum() / whole.weights.sum())


def boundary_of(workload: Workload, whole: Histogram) -> float:
    """Where it is split: as stated or found, else at the edge nearest to half of its token work.

    Raises ScenarioError where one side would have no requests.
    """
    if workload.boundary is not None:
        if not 0 < share_below(whole, workload.boundary) < 1:
            words = f"{workload.boundary:,.0f} tokens leave one side of workload '{workload.name}' without requests"
            raise ScenarioError(words, "boundary", f"its prompts have {whole.inputs.min():,.0f} to {whole.inputs.max():,.0f}")
        return workload.boundary
    found = boundaries(whole)
    if not found:
        raise ScenarioError(f"the prompts of workload '{workload.name}' are too alike to be split by length", "route_by", "leave it out")
    work = (whole.inputs + whole.outputs) * whole.weights
    return min(found, key=lambda b: abs(work[whole.inputs < b].sum() / work.sum() - 0.5))


def split(scenario: Scenario) -> Scenario:
    """The scenario with every workload routed by input as its classes: each with its share of the traffic, its own lengths, the same limits.

    Raises ScenarioError where one cannot be split.
    """
    return with_workloads(scenario, (c for w in scenario.workload for c in (_classes(w) if is_routed(w) else (w,))))


def unsplit(scenario: Scenario) -> Scenario:
    """The scenario with nothing routed by length."""
    return with_workloads(scenario, (_unrouted(w) if is_routed(w) else w for w in scenario.workload))


def _unrouted(workload: Workload) -> Workload:
    lengths = workload.lengths.model_copy(update={"cells": ()}) if workload.lengths else None
    return workload.model_copy(update={"route_by": "", "boundary": None, "lengths": lengths})


def _classes(workload: Workload) -> tuple[Workload, Workload]:
    """Shorter prompts and the others."""
    whole = histogram_of(workload)
    boundary = boundary_of(workload, whole)
    is_short = whole.inputs < boundary
    return (
        _class(workload, whole, is_short, f"input < {boundary:,.0f}", (1.0, boundary)),
        _class(workload, whole, ~is_short, f"input >= {boundary:,.0f}", (boundary, inf)),
    )


def _class(workload: Workload, whole: Histogram, mine: NDArray[np.bool_], words: str, ends: tuple[float, float]) -> Workload:
    """The requests ``mine`` [C] as a workload; no point that stands for them is beyond the boundary."""
    part = Histogram(whole.inputs[mine], whole.outputs[mine], whole.weights[mine])
    lengths = lengths_of(part, f"{_source(workload)}, {words}")
    points = tuple((min(max(i, ends[0]), ends[1]), o) for i, o in lengths.points)
    share = part.requests / whole.requests
    scales = workload.input_tokens / whole.mean(whole.inputs), workload.output_tokens / whole.mean(whole.outputs)
    means = {"input_tokens": part.mean(part.inputs) * scales[0], "output_tokens": part.mean(part.outputs) * scales[1]}
    rate = {k: v * share for k in ("qps", "concurrency", "requests_per_day") if (v := getattr(workload, k)) is not None}
    update = {"name": f"{workload.name} ({words})", "lengths": lengths.model_copy(update={"points": points}), "input_cv": None, "output_cv": None}
    return workload.model_copy(update=update | means | rate | {"route_by": "", "boundary": None})
