"""What if traffic, quality floor or TTFT were others: the cheapest plan of each combination, found beforehand.

A page that nobody computes in looks its answers up here: each cell is a plan of its own, nothing is interpolated.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Literal

from planner.economics.briefly import BriefPlan, brief_plan
from planner.economics.frontier import Frontier
from planner.economics.runs import Done, Where, quietly, side_by_side
from planner.errors import ScenarioError
from planner.scenario.change import with_workload
from planner.scenario.records import Scenario
from planner.search.survey_cache import SurveyCache

Asked = Literal["traffic", "quality", "ttft"]
TRAFFIC = (1.0, 0.5, 1.5, 0.75, 2.0, 1.25, 3.0, 0.25, 2.5)  # multiples of the traffic asked for, in the order in which they are taken
LIMITS = (1.0, 0.5, 2.0, 0.25, 1.5)  # of the limit on TTFT
FLOOR_STEP = 0.01  # floors are whole points
LOOSER = 0.05  # the floor below the one asked for
MOST = {"traffic": len(TRAFFIC), "quality": 9, "ttft": len(LIMITS)}
SIZE = re.compile(r"(\d+)x(\d+)x(\d+)")


@dataclass(frozen=True)
class WhatIfAxis:
    """One thing that is asked differently: rising values, and which of them the scenario itself asks for. A floor of None is none at all."""

    name: Asked
    words: str
    unit: str
    values: tuple[float | None, ...]
    now: int


@dataclass(frozen=True)
class WhatIf:
    """Plans over a grid, the last axis fastest; ``workload`` is the one that is asked differently. None: no plan meets all demands there."""

    workload: str
    axes: tuple[WhatIfAxis, ...]
    plans: tuple[BriefPlan | None, ...]

    @property
    def now(self) -> int:
        """The cell of the scenario as it is asked."""
        place = 0
        for a in self.axes:
            place = place * len(a.values) + a.now
        return place


def grid_size(text: str) -> tuple[int, int, int] | None:
    """(rates, floors, limits on TTFT) of "5x4x3"; None of "none". Raises ScenarioError."""
    if text == "none":
        return None
    match = SIZE.fullmatch(text)
    if not match or not all(1 <= n <= most for n, most in zip(map(int, match.groups()), MOST.values(), strict=True)):
        most = "x".join(str(n) for n in MOST.values())
        raise ScenarioError(f"no size of a grid: '{text}'", "--what-if", f"rates x floors x limits on TTFT, such as 5x4x3, at most {most}; or none")
    rates, floors, limits = map(int, match.groups())
    return rates, floors, limits


def what_if_axes(scenario: Scenario, size: tuple[int, int, int], known: Frontier | None) -> tuple[WhatIfAxis, ...]:
    """What is asked differently of the first workload: floors lie between the one asked for and the best that the frontier knows of."""
    first = scenario.workload[0]
    unit = "in flight" if first.is_closed else "req/s"
    found = [_axis("traffic", "traffic", unit, sorted(float(f"{first.rate * f:.4g}") for f in TRAFFIC[: size[0]]), first.rate)]
    found.append(_floors(first.min_quality, first.quality_metric, size[1], max((p.quality for p in known.points), default=None) if known else None))
    limit = next((s for s in first.limits if s.metric == "ttft"), None)
    if limit is not None:
        found.append(_axis("ttft", f"{limit.words} limit", "s", sorted(float(f"{limit.seconds * f:.4g}") for f in LIMITS[: size[2]]), limit.seconds))
    return tuple(found)


def idle_axes(w: WhatIf) -> list[WhatIfAxis]:
    """What may be asked differently as far as the grid goes without another purchase, whatever else is asked."""
    sizes, found = [len(a.values) for a in w.axes], []
    for i, a in enumerate(w.axes):
        beside = prod(sizes[i + 1 :])  # places from one value of this axis to the next
        bought = [(p.usd_per_hour, p.deployments, p.purchases) if p else None for p in w.plans]
        if sizes[i] > 1 and all(bought[at] == bought[at - at // beside % sizes[i] * beside] for at in range(len(bought))):
            found.append(a)
    return found


def _axis(name: Asked, words: str, unit: str, values: Sequence[float], now: float) -> WhatIfAxis:
    nearest = min(range(len(values)), key=lambda i: abs(values[i] - now))
    return WhatIfAxis(name, words, unit, (*values[:nearest], now, *values[nearest + 1 :]), nearest)


def _floors(floor: float | None, metric: str, count: int, best: float | None) -> WhatIfAxis:
    """The floor asked for, one below it, and others in whole points up to the best there is."""
    words = f"lowest {metric} score"
    if floor is None:
        return WhatIfAxis("quality", words, "", (None,), 0)
    below = [round(max(floor - LOOSER, 0.0), 4)] if count > 2 and floor > 0 else []
    above = count - 1 - len(below)
    top = max((best or floor) - FLOOR_STEP / 2, floor)
    steps = [round(round((floor + (top - floor) * (i + 1) / above) / FLOOR_STEP) * FLOOR_STEP, 4) for i in range(above)]
    values = sorted({*below, floor, *(s for s in steps if floor < s and (best is None or s <= best))})
    return WhatIfAxis("quality", words, "", tuple(values), values.index(floor))


def cells(axes: Sequence[WhatIfAxis]) -> int:
    """Plans that a grid takes."""
    return prod(len(a.values) for a in axes)


def asked_at(scenario: Scenario, axes: Sequence[WhatIfAxis], values: Sequence[float | None]) -> Scenario:
    """The scenario with other values of the first workload."""
    first, changes = scenario.workload[0], dict[str, object]()
    for a, value in zip(axes, values, strict=True):
        if a.name == "traffic":
            changes[first.rate_field] = value
        elif a.name == "quality":
            changes["min_quality"] = value
        elif value is not None:
            changes["slo"] = first.slo | {next(s.name for s in first.limits if s.metric == "ttft"): value}
    return with_workload(scenario, 0, **changes)


def what_if(scenario: Scenario, axes: tuple[WhatIfAxis, ...], cache: SurveyCache, where: Where, done: Done = quietly) -> WhatIf:
    """The cheapest plan at every combination."""
    questions = [asked_at(scenario, axes, values) for values in product(*(a.values for a in axes))]
    return WhatIf(scenario.workload[0].name, axes, tuple(side_by_side(lambda s: brief_plan(s, cache), questions, where.workers, done)))
