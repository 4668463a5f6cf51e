"""Users in a closed loop: the rate they ask at follows from how long answers take, which follows from the plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from planner.errors import TimeUp
from planner.result.plan import PlanWorkload
from planner.scenario.change import with_workloads
from planner.scenario.records import Scenario
from planner.scenario.workload import Workload

Served = Sequence[PlanWorkload]

ROUNDS = 5
CLOSE = 0.01  # relative: a rate this near to what the plan's answers make of it is settled


def settled(scenario: Scenario, served: Callable[[Scenario], Served]) -> Scenario:
    """The scenario at the rate for which its plan's answers take about as long as supposed; never less long: the plan carries the rate it makes.

    The first plan is for answers that take no time: its rate is the highest there can be. Each further one is for longer answers, as the last
    plan's are, or half as much longer where a plan for these turned out faster. When time is up the rate is the one settled so far.
    ``served``: the workloads of the plan for a scenario. Raises what it raises the first time.
    """
    supposed, step = [0.0] * len(scenario.workload), 1.0
    settled_at = _with_answers(scenario, supposed)
    best = served(settled_at)
    for _ in range(ROUNDS):
        trial = [a + step * (b - a) for a, b in zip(supposed, _answers(best), strict=True)]
        asked = _with_answers(scenario, trial)
        if all(now.rate >= w.qps * (1 - CLOSE) for now, w in zip(asked.workload, best, strict=True) if now.demand and now.demand.users):
            break
        try:
            there = served(asked)
        except TimeUp:
            break
        if all(b >= a * (1 - CLOSE) for a, b in zip(trial, _answers(there), strict=True)):
            supposed, best, settled_at = trial, there, asked
        else:
            step /= 2
    return settled_at


def _answers(workloads: Served) -> list[float]:
    """Mean E2E of each workload, s; no time where it is not predicted."""
    return [w.predicted.e2e_ms.mean / 1e3 if w.predicted else 0.0 for w in workloads]


def _with_answers(scenario: Scenario, seconds: list[float]) -> Scenario:
    """The scenario with the rate at which its users ask when answers take so long."""
    return with_workloads(scenario, (_with_answer(w, s) for w, s in zip(scenario.workload, seconds, strict=True)))


def _with_answer(workload: Workload, seconds: float) -> Workload:
    d = workload.demand
    if d is None or d.users is None or d.think_s is None:
        return workload
    rate = d.users * d.growth / (d.think_s + seconds)
    return workload.model_copy(update={"qps": float(f"{rate:.6g}"), "demand": d.model_copy(update={"answer_s": float(f"{seconds:.4g}")})})
