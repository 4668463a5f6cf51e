"""What a contract is worth beside others: no commitment, each future known, signed for the mean, no limit on risk, more traffic, capacities measured first.

A figure is told only where every program it rests on was solved; those for which time did not suffice are named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import exp, inf, log
from statistics import NormalDist

import numpy as np

from planner.catalog.catalog import Catalog
from planner.deadline import Deadline
from planner.errors import TimeUp
from planner.planning.contract_question import Found, by_the_hour, searched
from planner.planning.infeasible import Infeasible
from planner.program.alike import cheapest_over_states
from planner.program.problem import Problem, Solution
from planner.program.solver import SolverOptions
from planner.result.contract import Measuring, Robust, Stress
from planner.result.plan import Deployment, Plan
from planner.scenario.records import Scenario
from planner.search import contract as search

STRESSES = (1.1, 1.25, 1.5)
STUDY_GAP = 1e-4  # of what is compared with one another
CAPACITIES = (1 / 6, 1 / 2, 5 / 6)  # quantiles that stand for a capacity that nobody measured, each as likely


@dataclass(frozen=True)
class Worth:
    """Money over the horizon, $/h where named so. None: not asked, or ``missing``: by name, what time did not suffice for."""

    by_the_hour_usd_per_hour: float | None
    known_usd_per_hour: tuple[float | None, ...]  # by future
    perfect_information_usd: float | None
    stochastic_usd: float | None
    risk_premium_usd: float | None
    stress: tuple[Stress, ...]
    measuring: tuple[Measuring, ...]
    robust: Robust | None
    missing: tuple[str, ...]


class _Study:
    """Programs beside the contract's, each given the time that is left."""

    def __init__(self, found: Found, deadline: Deadline) -> None:
        self.found, self.deadline = found, deadline
        self.problem, self.outlook, self.hours = found.best.problem, found.asked.outlook, found.asked.horizon.total_hours
        self.cost, self.signed = found.best.solution.cost, search.decided(found.best)
        self.free_of_risk = replace(self.problem, rules=replace(self.problem.rules, risk=None))
        self.may_sign = any(o.committed for o in self.problem.offers)
        self.several = len(self.outlook.futures) > 1

    def solved(self, problem: Problem) -> Solution | None:
        """The cheapest plan of a problem, or that there is none; None where time did not suffice."""
        if self.deadline.passed():
            return None
        solution = cheapest_over_states(problem, SolverOptions(STUDY_GAP, self.deadline.left(), self.found.asked.hourly.scenario.solver.seed))
        return solution if solution.is_settled else None

    def least(self, problem: Problem) -> float | None:
        """$ of the cheapest plan, infinite where there is none; None where time did not suffice."""
        solution = self.solved(problem)
        return solution.cost if solution else None

    def after(self, problem: Problem, signed: dict[int, int]) -> float | None:
        """$ of the cheapest way to go on after so much is signed."""
        rest, sunk = search.with_commitments(problem, signed)
        cost = self.least(rest)
        return None if cost is None else sunk + cost


def worth_of(found: Found, parts: Sequence[Plan], scenario: Scenario, catalog: Catalog, deadline: Deadline) -> Worth:
    """All figures of a contract, until the deadline."""
    study = _Study(found, deadline)
    stress = {f: study.after(search.at_rates(study.problem, np.full(len(study.problem.states), f)), study.signed) for f in STRESSES}
    known = tuple(study.least(search.of_future(study.problem, s)) for s in range(len(study.outlook.futures))) if study.several else ()
    free = _by_the_hour(found, scenario, catalog, deadline) if study.may_sign or study.outlook.commit else inf
    mean = _signed_for_the_mean(study) if study.several and study.may_sign else inf
    premium = study.least(study.free_of_risk) if study.outlook.risk else inf
    factors = _capacities(study, parts)
    measuring = {i: _with_capacities(study, i, each) for i, each in factors.items()}
    robust, is_robust_known = _robust(study, factors) if factors else (None, True)
    asked: tuple[tuple[str, bool], ...] = (
        ("all by the hour", free is not None),
        *((f"the future {f.name} known", k is not None) for f, k in zip(study.outlook.futures, known, strict=False)),
        ("signed for the mean of the futures", mean is not None),
        ("the limit on the dearest futures", premium is not None),
        *((f"traffic x {f:g}", cost is not None) for f, cost in stress.items()),
        *((f"#{i + 1} measured before signing", None not in costs) for i, costs in measuring.items()),
        ("capacities as uncertain as their evidence", is_robust_known),
    )
    likely = [f.probability for f in study.outlook.futures]
    usd = [k for k in known if k is not None]
    return Worth(
        by_the_hour_usd_per_hour=_per_hour(free, study.hours),
        known_usd_per_hour=tuple(_per_hour(k, study.hours) for k in known),
        perfect_information_usd=max(0.0, study.cost - float(np.dot(likely, usd))) if study.several and len(usd) == len(likely) else None,
        stochastic_usd=max(0.0, mean - study.cost) if mean is not None and mean < inf else None,
        risk_premium_usd=max(0.0, study.cost - premium) if premium is not None and premium < inf else None,
        stress=tuple(Stress(factor=f, usd_per_hour=_per_hour(cost, study.hours)) for f, cost in stress.items() if cost is not None),
        measuring=tuple(m for i, costs in measuring.items() if (m := _measured(i, factors[i], costs))),
        robust=robust,
        missing=tuple(name for name, is_known in asked if not is_known),
    )


def _per_hour(usd: float | None, hours: float) -> float | None:
    return None if usd is None or usd == inf else usd / hours


def _by_the_hour(found: Found, scenario: Scenario, catalog: Catalog, deadline: Deadline) -> float | None:
    """$ of the cheapest without any term; infinite where there is none."""
    try:
        free = searched(*by_the_hour(scenario, found.asked.outlook), catalog, deadline)
    except TimeUp:
        return None
    except Infeasible:
        return inf
    return free.best.solution.cost if free.is_proven else None


def _signed_for_the_mean(study: _Study) -> float | None:
    """$ of what would be signed if traffic were the mean of all futures."""
    likely = np.array([f.probability for f in study.outlook.futures])
    first = search.of_future(study.problem, 0)
    mean = [np.array(d.rates).reshape(len(likely), -1).T @ likely for d in study.problem.demands]
    alone = replace(first, demands=tuple(replace(d, rates=tuple(m.tolist())) for d, m in zip(first.demands, mean, strict=True)))
    solution = study.solved(alone)
    if solution is None or not solution.found:
        return None if solution is None else inf
    return study.after(study.problem, search.decided(replace(study.found.best, problem=alone, solution=solution)))


def capacity_factors(d: Deployment) -> tuple[float, ...]:
    """Load per load as planned, were the capacity of a deployment at each of CAPACITIES: lognormal through what it takes at the median and at 95 %."""
    e = d.evidence
    if e is None or not e.replicas_at_median or not e.replicas_at_95 or d.replicas < 1:
        return ()
    middle = 1 / e.capacity_factor if e.capacity_factor else 1.0
    spread = log(e.replicas_at_95 / e.replicas_at_median) / NormalDist().inv_cdf(0.95)
    return tuple(exp(spread * NormalDist().inv_cdf(q)) / middle for q in CAPACITIES)


def _capacities(study: _Study, parts: Sequence[Plan]) -> dict[int, tuple[float, ...]]:
    """By deployment, the load per load as planned of each capacity that stands for what nobody measured."""
    every = {i: capacity_factors(part.deployments[0]) for i, part in enumerate(parts)}
    return {i: factors for i, factors in every.items() if factors} if study.may_sign else {}


def _with_capacities(study: _Study, i: int, factors: tuple[float, ...]) -> tuple[float | None, ...]:
    """$ where one of these capacities of a deployment shows after signing, then with each of them known before."""
    workloads = search.by_offer(study.found.best).pools[i].workloads
    ways = (factors, *((f,) for f in factors))
    return tuple(study.least(search.as_it_may_carry(study.free_of_risk, dict.fromkeys(workloads, way))) for way in ways)


def _measured(i: int, factors: tuple[float, ...], costs: tuple[float | None, ...]) -> Measuring | None:
    """What knowing a deployment's capacity before signing saves: the cost of signing before, less the mean cost of signing after."""
    if None in costs or inf in costs:
        return None
    before, *after = [c for c in costs if c is not None]
    return Measuring(deployment=i, worth_usd=max(0.0, before - sum(after) / len(after)), low_factor=min(factors), high_factor=max(factors))


def _robust(study: _Study, capacities: dict[int, tuple[float, ...]]) -> tuple[Robust | None, bool]:
    """What would be signed if the capacities of all deployments were as uncertain as their evidence, all erring to one side; and whether that is known."""
    blocks = search.by_offer(study.found.best).pools
    wide = search.as_it_may_carry(study.free_of_risk, {w: f for i, f in capacities.items() for w in blocks[i].workloads})
    solution, as_signed = study.solved(wide), study.after(wide, study.signed)
    if solution is None or not solution.found or as_signed is None or as_signed == inf:
        return None, solution is not None and as_signed is not None
    signed = search.decided(replace(study.found.best, problem=wide, solution=solution))
    return Robust(signed=signed, usd_per_hour=min(solution.cost, as_signed) / study.hours, as_signed_usd_per_hour=as_signed / study.hours), True
