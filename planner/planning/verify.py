"""`plan --verify`: the plan just made is simulated; where a limit is missed its deployments must be loaded less, and it is solved again.

A fixed point in at most three rounds, each told in the plan's notes.
"""

from __future__ import annotations

from planner.catalog.catalog import Catalog
from planner.catalog.load import load_catalog
from planner.deadline import Deadline
from planner.errors import TimeUp
from planner.interrupts import seen
from planner.planning.infeasible import Infeasible
from planner.planning.solve import solve
from planner.result.plan import Plan
from planner.scenario.change import assumed
from planner.scenario.records import Scenario
from planner.scenario.sources import Origins
from planner.simulation.results import LimitResult, SimulatedWorkload, Simulation
from planner.simulation.run import simulate

ROUNDS = 3
REQUESTS = 100_000
SEARCH = 5  # halvings of the share of the traffic with which all limits hold
LEAST = 0.25  # share below which nothing is looked for: such a plan is not too small but wrong


def solve_verified(scenario: Scenario, catalog: Catalog | None = None, *, compare: bool = True, origins: Origins | None = None, seed: int = 0) -> Plan:
    """The cheapest plan whose limits also hold when it is simulated at its peak rates, with step times at its confidence.

    A limit counts as missed where the share of requests inside it is below its percentile by more than the 95 % confidence interval.
    If three rounds do not suffice, the last plan says what it misses in its warnings. Raises what ``solve`` and ``simulate`` raise.
    """
    catalog = catalog or load_catalog(scenario.catalog)
    deadline = Deadline.after(scenario.solver.time_limit)
    asked, plan = scenario, solve(scenario, catalog, compare=compare, origins=origins, deadline=deadline)
    notes: list[str] = []
    for number in range(1, ROUNDS + 1):
        if seen():
            return _told(plan, notes, "interrupted: this plan was not simulated")
        found = simulate(plan, catalog, requests=REQUESTS, seed=seed)
        missed = breaches(found)
        if not missed:
            notes.append(f"simulation, round {number}: every limit holds ({_inside(found)})")
            return _told(plan, notes)
        if number == ROUNDS:
            break
        share = bearable(plan, catalog, seed)
        load = max(d.slo_load for d in plan.deployments) * share
        notes.append(f"simulation, round {number}: {_words(missed)}; limits hold with {share:.0%} of the traffic, so SLO loads must stay below {load:.3f}")
        scenario = assumed(asked, "policy", max_slo_load=load)
        try:
            plan = solve(scenario, catalog, compare=compare, origins=origins, deadline=deadline)
        except TimeUp:
            notes.append(f"simulation: no plan with SLO loads below {load:.3f} was found within the time limit (raise --time-limit)")
            break
        except Infeasible:
            notes.append(f"simulation: there is no plan with SLO loads below {load:.3f}")
            break
    return _told(plan, notes, f"simulated, limits are missed: {_words(breaches(found))}")


def breaches(found: Simulation) -> list[tuple[SimulatedWorkload, LimitResult]]:
    """Limits missed by more than chance."""
    return [(w, s) for w in found.workloads for s in w.slo if s.within + (s.half_width or 0.0) < s.percentile / 100]


def bearable(plan: Plan, catalog: Catalog, seed: int) -> float:
    """Share of the traffic with which every limit of a plan holds, to 1/32 of what is searched, and below it."""
    low, high = LEAST, 1.0
    for _ in range(SEARCH):
        middle = (low + high) / 2
        low, high = (low, middle) if breaches(simulate(plan, catalog, requests=REQUESTS, seed=seed, burst=middle)) else (middle, high)
    return low


def _inside(found: Simulation) -> str:
    return ", ".join(f"{w.name}: {w.attainment:.2%} of requests inside all limits" for w in found.workloads)


def _words(missed: list[tuple[SimulatedWorkload, LimitResult]]) -> str:
    return ", ".join(f"{w.name} {s.within:.2%} inside {s.metric.upper()} p{s.percentile:g} {s.limit_ms:,.0f} ms" for w, s in missed)


def _told(plan: Plan, notes: list[str], warning: str = "") -> Plan:
    return plan.model_copy(update={"notes": (*plan.notes, *notes), "warnings": (*plan.warnings, *([warning] if warning else []))})
