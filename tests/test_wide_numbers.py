"""Own numbers of any magnitude: the right optimum, counted a second time by enumeration in exact fractions, and nothing called proven that is not."""

from __future__ import annotations

import itertools
import os
import random
from fractions import Fraction
from math import ceil, inf
from pathlib import Path
from typing import Any

import pytest
from test_tables import HEADER, scenario

from planner.errors import PlannerError
from planner.planning.infeasible import Infeasible
from planner.planning.solve import solve
from planner.program import wide
from planner.program.problem import Solution
from planner.program.solver import Outcome
from planner.result.plan import Plan
from planner.scenario.records import Policy, Supply

MANY = int(os.environ.get("WIDE_PROBLEMS", "60"))
FAR = "c0,A,1,0.03,b,95\nc1,A,1,683,a,0.05\nc1,A,1,683,b,0.000008\nc1,A,1,683,c,432000\nc2,A,1,0.01,a,13000\nc2,A,1,0.01,b,0.000023\nc2,A,1,0.01,c,0.0017\n"
FARTHER = "c0,A,2,6270,a,3.6e-6\nc0,A,2,6270,b,1.4\nc1,A,64,50760,a,953\nc1,A,64,50760,b,1.2e-6\nc2,A,64,1000000,b,2e-4\n"


def planned(folder: Path, capacities: str, demand: str, **more: Any) -> Plan:
    return solve(scenario(folder, HEADER + capacities, f"class,qps\n{demand}", **more))


def bought(plan: Plan) -> dict[str, int]:
    return {p.instance_type: p.instances for p in plan.purchases}


def test_magnitudes_eleven_orders_apart(tmp_path: Path) -> None:
    plan = planned(tmp_path, FAR, "a,2500\nb,0.24\nc,0.28\n", single=True)
    assert bought(plan) == {"c0": 1, "c2": 165} and plan.cost.usd_per_hour == pytest.approx(1.68) and plan.status == "optimal"
    plan = planned(tmp_path, FARTHER, "a,0.009\nb,0.76\n", policy=Policy(max_slo_load=0.8))
    assert bought(plan) == {"c0": 1, "c1": 1} and plan.cost.usd_per_hour == pytest.approx(57030) and plan.status == "optimal"


def test_a_load_below_any_tolerance_still_has_a_replica(tmp_path: Path) -> None:
    plan = planned(tmp_path, "small,A,1,0.5,a,1e6\nbig,B,1,9,b,1\n", "a,1e-7\nb,1\n")  # 1e-13 replicas
    assert bought(plan) == {"small": 1, "big": 1} and plan.cost.usd_per_hour == pytest.approx(9.5)


def test_costs_below_a_millionth_are_costs(tmp_path: Path) -> None:
    plan = planned(tmp_path, "x,A,1,2e-8,a,1\ny,A,1,1e-8,a,1\n", "a,3\n")
    assert bought(plan) == {"y": 3} and plan.cost.usd_per_hour == pytest.approx(3e-8, rel=1e-9) and plan.status == "optimal"


def test_amounts_that_no_service_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PlannerError, match=r"capacities\.csv:2: 'usd_per_hour' of 1e-13 is less than 1e-12"):
        planned(tmp_path, "x,A,1,1e-13,a,1\n", "a,3\n")


def test_an_answer_dearer_than_a_plan_counted_by_hand_is_not_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the solver says: that there is no plan, that it fails, or that a dear one is the best."""
    rows, demand = "x,A,1,3,a,1\nx,A,1,3,b,1\ny,A,1,5,a,1\ny,A,1,5,b,1\n", "a,1.5\nb,0.5\n"
    for status, bound in (("infeasible", inf), ("unknown", 0.0), ("optimal", 10.0 * wide.OBJECTIVE)):

        def wrong(*given: Any, status: str = status, bound: float = bound, **named: Any) -> tuple[Solution | None, Outcome]:
            return None, Outcome(status, inf, bound, 0.0, 4, 4)

        monkeypatch.setattr(wide, "_solved", wrong)
        plan = planned(tmp_path, rows, demand)
        assert bought(plan) == {"x": 2} and plan.status == "feasible" and plan.bound_usd_per_hour == 0.0
        assert any(w.startswith("not proven: the numbers of the tables are further apart than the solver can tell") for w in plan.warnings)


# ---- against enumeration


def problem(seed: int) -> tuple[dict[str, str], dict[str, tuple[str, int, str, dict[str, str]]], Policy, Supply]:
    """(demand, candidates, policy, supply), numbers as they are written; a third has magnitudes from 1e-6 to 1e6."""
    rng = random.Random(seed)
    far = seed % 3 == 0

    def amount(low: float, high: float) -> str:
        return f"{10 ** (rng.uniform(-6, 6) if far else rng.uniform(low, high)):.3g}"

    classes = [f"k{i}" for i in range(rng.randint(1, 4))]
    demand = {k: amount(-1, 2) for k in classes}
    candidates = {}
    for i in range(rng.randint(1, 4)):
        rates = {k: amount(-1, 2) for k in classes if rng.random() < 0.8}
        rates = {k: r for k, r in rates.items() if float(demand[k]) <= float(r) * 1e6}
        if rates:
            candidates[f"c{i}"] = (rng.choice("AB"), rng.choice([1, 2, 8]), amount(-1, 1.5), rates)
    policy = Policy(max_slo_load=rng.choice([1.0, 1.0, 0.8]), spare_replicas=rng.choice([0, 0, 0, 1]), max_gpu_types=rng.choice([None, None, 1]))
    return demand, candidates, policy, Supply(max_gpus=rng.choice([None, None, None, 10 ** rng.randint(1, 6)]))


def least(demand: dict[str, str], candidates: dict[str, tuple[str, int, str, dict[str, str]]], policy: Policy, supply: Supply) -> Fraction | None:
    """The cheapest way to put each class on one candidate, of all there are; None where none keeps the limits."""
    best, load = None, Fraction(str(policy.max_slo_load))
    for where in itertools.product(*([c for c, (_, _, _, rates) in candidates.items() if k in rates] for k in demand)):
        work: dict[str, Fraction] = {}
        for (k, qps), c in zip(demand.items(), where, strict=True):
            work[c] = work.get(c, Fraction(0)) + Fraction(qps) / Fraction(candidates[c][3][k]) / load
        counts = {c: ceil(w) + policy.spare_replicas for c, w in work.items()}
        if supply.max_gpus is not None and sum(n * candidates[c][1] for c, n in counts.items()) > supply.max_gpus:
            continue
        if policy.max_gpu_types is not None and len({candidates[c][0] for c in counts}) > policy.max_gpu_types:
            continue
        cost = sum((n * Fraction(candidates[c][2]) for c, n in counts.items()), Fraction(0))
        best = cost if best is None or cost < best else best
    return best


@pytest.mark.parametrize("block", range(2))
def test_equals_enumeration_in_fractions(tmp_path: Path, block: int) -> None:
    for seed in range(block * MANY // 2, (block + 1) * MANY // 2):
        demand, candidates, policy, supply = problem(seed)
        if not candidates:
            continue
        rows = "".join(f"{c},{gpu},{gpus},{price},{k},{r}\n" for c, (gpu, gpus, price, rates) in candidates.items() for k, r in rates.items())
        right = least(demand, candidates, policy, supply)
        try:
            plan = planned(tmp_path, rows, "".join(f"{k},{q}\n" for k, q in demand.items()), single=True, policy=policy, supply=supply)
        except Infeasible:
            assert right is None, seed
            continue
        assert right is not None, seed
        assert float(right) * (1 - 1e-6) <= plan.cost.usd_per_hour <= float(right) * (1 + (1.001e-3 if plan.status == "optimal" else inf)), seed
        assert plan.bound_usd_per_hour <= float(right) * (1 + 2e-6), seed
