"""Every change proposed for a question without a plan makes one, alone or together, and nothing smaller does; conflicts are minimal.

``INFEASIBLE_PROBLEMS=100 pytest tests/test_infeasible.py`` for a campaign.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from datetime import timedelta
from functools import cache
from math import ceil, floor, inf, log10
from pathlib import Path
from typing import Any

import numpy as np
from brute_force import optimum

from planner import Catalog, Infeasible, Scenario, load_catalog, solve
from planner.candidates.columns import formulation
from planner.economics.runs import least_cost
from planner.performance.coefficients import TIERS
from planner.planning.demands import demands
from planner.program.problem import Problem
from planner.scenario.units import parse_duration_s
from planner.search.survey_cache import SurveyCache

TINY = Path(__file__).parent / "data" / "tiny"
WANTED = int(os.environ.get("INFEASIBLE_PROBLEMS", "6"))


@cache
def tiny(seed: int) -> Catalog:
    """The tiny catalogue with random scores and prices."""
    catalog, rng = load_catalog([TINY], shipped=False), np.random.default_rng(seed)
    cards = tuple(
        c.model_copy(update={"quality": tuple(q.model_copy(update={"score": float(rng.integers(30, 95)) / 100}) for q in c.quality)}) for c in catalog.cards
    )
    offers = tuple(o.model_copy(update={"usd_per_hour": float(np.round(o.usd_per_hour * rng.uniform(0.4, 2.0), 2))}) for o in catalog.offers)
    days = np.random.default_rng(seed + 10**6).integers(0, 120, len(offers))
    dated = tuple(o.model_copy(update={"as_of": o.as_of - timedelta(int(n))}) for o, n in zip(offers, days, strict=True))
    return replace(catalog, cards=cards, offers=dated)


def question(seed: int) -> Scenario:
    """Tight somewhere: a budget, caps, quotas, spares, limits, and often more than one; whole GPUs and instances decide many."""
    rng = np.random.default_rng(seed)
    policy: dict[str, Any] = {"spare_replicas": int(rng.integers(0, 3))}
    supply: dict[str, Any] = {}
    if rng.random() < 0.5:
        policy["budget"] = f"{rng.uniform(0.5, 12):.2f}/h"
    if rng.random() < 0.5:
        supply["max_gpus"] = int(rng.integers(1, 6))
    if rng.random() < 0.6:
        supply["quota"] = {"GPU-80": int(rng.integers(1, 4)), **({"GPU-24": int(rng.integers(1, 4))} if rng.random() < 0.5 else {})}
    slo = {"ttft_p95": f"{rng.choice([200, 400, 2000])}ms", "tpot_p95": f"{rng.choice([8, 20, 50])}ms"}
    workload = {"qps": float(rng.integers(5, 120)), "min_quality": float(rng.integers(30, 90)) / 100, "slo": slo, "output_factor": 3}
    if rng.random() < 0.4:
        policy["evidence"] = str(rng.choice(TIERS[:3]))
    if rng.random() < 0.3:
        policy |= {"quality_margin": 0.02, "worst_recovery": bool(rng.random() < 0.5)}
    if rng.random() < 0.3:
        supply["max_price_age"] = int(rng.integers(1, 60))
    return Scenario.model_validate({"workload": [workload], "policy": policy, "supply": supply, "solver": {"gap": 0.0, "time_limit": "10min"}})


@cache
def failing() -> list[tuple[int, Infeasible]]:
    """Questions without a plan that have changes to propose."""
    found: list[tuple[int, Infeasible]] = []
    for seed in range(1, 40 * WANTED):
        try:
            solve(question(seed), tiny(seed), compare=False)
        except Infeasible as error:
            if error.changes:
                found.append((seed, error))
        if len(found) == WANTED:
            break
    return found


def is_feasible(scenario: Scenario, seed: int) -> bool:
    return least_cost(scenario, SurveyCache(tiny(seed))) < inf


# ---- reading what is proposed, as a user would type it again

CHANGES = (
    (r"a budget of \$([\d,.]+)/h", "budget"),
    (r"(\d+) GPUs in all", "max_gpus"),
    (r"a quota of (.+?)(?:,|$)", "quota"),
    (r"(\d+|no) spare replicas?", "spare"),
    (r"evidence (\w+)", "evidence"),
    (r"a quality margin of ([\d.e-]+)", "margin"),
    (r"derived scores at the (mean) recovery", "recovery"),
    (r"prices up to (\d+) days older than the newest", "age"),
    (r"([\d.]+) req/s", "qps"),
    (r"a quality floor of ([\d.]+)", "floor"),
    (r"((?:TTFT|TPOT) p95 of [\d.]+(?:ms|s))", "limit"),
    (r"no limit on ((?:TTFT|TPOT) p95)", "limit"),
)


def amounts(text: str, s: Scenario) -> dict[str, float]:
    """The amounts of a proposed change, by demand."""
    found: dict[str, float] = {}
    for part in (p.strip() for p in re.split(r", (?=a |[A-Z\d]|no |evidence |prices )", text)):
        kind, m = next((kind, m) for pattern, kind in CHANGES if (m := re.match(pattern, part)))
        if kind == "quota":
            found |= {f"quota {g}": int(n) for g, n in re.findall(r"(GPU-\d+)=(\d+)", m[1])}
        elif kind == "limit":
            name, _, limit = m[1].partition(" p95")
            found[f"{name.lower()}_p95"] = parse_duration_s(limit.removeprefix(" of ")) if limit else inf
            assert not limit or (limit.endswith("ms") == (s.workload[0].slo[f"{name.lower()}_p95"] < 1)), text
        elif kind == "evidence":
            found[kind] = TIERS.index(m[1]) + 1
        else:
            found[kind] = 0 if m[1] in ("no", "mean") else float(m[1].replace(",", ""))
    return found


def asked_for(s: Scenario) -> dict[str, float]:
    """The amounts of a scenario."""
    found: dict[str, float] = {"qps": s.workload[0].qps or 0, "floor": s.workload[0].min_quality or 0, **s.workload[0].slo}
    found |= {"budget": s.policy.budget} if s.policy.budget is not None else {}
    found |= {"max_gpus": s.supply.max_gpus} if s.supply.max_gpus is not None else {}
    found |= {"spare": s.policy.spare_replicas} if s.policy.spare_replicas else {}
    found |= {"evidence": TIERS.index(s.policy.evidence) + 1} if s.policy.evidence != TIERS[-1] else {}
    found |= {"margin": s.policy.quality_margin} if s.policy.quality_margin else {}
    found |= {"age": s.supply.max_price_age} if s.supply.max_price_age else {}
    return found | {f"quota {g}": n for g, n in s.supply.quota.items()}


def with_amounts(s: Scenario, values: dict[str, float]) -> Scenario:
    """The scenario with some amounts changed, checked as if typed."""
    raw = s.model_dump(mode="json")
    workload = raw["workload"][0]
    for name, value in values.items():
        if name.startswith("quota "):
            raw["supply"]["quota"][name.removeprefix("quota ")] = int(value)
        elif name.endswith("_p95"):
            workload["slo"][name] = "none" if value == inf else f"{value * 1e6:.6f}us"
        elif name == "floor":
            workload["min_quality"] = value
        elif name == "qps":
            workload["qps"] = value
        elif name in ("max_gpus", "age"):
            raw["supply"]["max_gpus" if name == "max_gpus" else "max_price_age"] = int(value)
        elif name in ("evidence", "margin", "recovery"):
            known = {"evidence": TIERS[int(value) - 1], "margin": value, "recovery": value > 0}[name]
            raw["policy"][{"evidence": "evidence", "margin": "quality_margin", "recovery": "worst_recovery"}[name]] = known
        else:
            raw["policy"]["spare_replicas" if name == "spare" else "budget"] = int(value) if name == "spare" else f"{value}/h"
    return Scenario.model_validate(raw)


def a_little_less(name: str, value: float, s: Scenario, seed: int) -> dict[str, float]:
    """A slightly smaller change of one demand; empty where there is none."""
    if value == inf or name == "recovery" or (name == "spare" and value + 1 == s.policy.spare_replicas):
        return {}
    if name == "floor":
        catalog = tiny(seed)
        known = [q.at_worst if s.policy.worst_recovery else q.score for x in catalog.served if (q := catalog.quality(x, "mmlu-pro"))]
        higher = [f for score in known if value + 1e-9 < (f := round(score - s.policy.quality_margin, 9)) < (s.workload[0].min_quality or 1)]
        return {"floor": min(higher)} if higher else {}
    if name == "qps":  # one more in the last of four digits
        return {"qps": float(f"{value + 10.0 ** (floor(log10(value)) - 3):.4g}")}
    by = {"budget": -0.01, "max_gpus": -1, "spare": 1, "margin": 1e-4}
    return {name: value * 0.975 if name.endswith("_p95") else value + by.get(name, -1)}


def factor_of(s: Scenario, values: dict[str, float]) -> float:
    """The largest ratio between what is proposed and what is asked."""
    asked = asked_for(s)
    return max(max(v / asked[k], asked[k] / v) for k, v in values.items())


def loosened(s: Scenario, factor: float, which: set[str]) -> Scenario:
    """Some amounts loosened by a factor: whole numbers no further."""
    found = {}
    for name, value in asked_for(s).items():
        if name not in which:
            continue
        if name in ("qps", "floor", "margin"):
            found[name] = value / factor
        elif name == "spare":
            found[name] = ceil(value / factor)
        else:
            whole = name in ("max_gpus", "age", "evidence") or name.startswith("quota")
            found[name] = min(floor(value * factor), len(TIERS) if name == "evidence" else inf) if whole else value * factor
    return with_amounts(s, found)


def cheapest_by_enumeration(s: Scenario, seed: int) -> float:
    """The least cost of any plan, infinite without one, by trying every one."""
    problem = formulation(SurveyCache(tiny(seed)).points(s, tiny(seed).offers), s).problem
    places = sorted({o.location for o in problem.offers})
    return min((optimum(at_place(problem, place)) for place in places), default=inf)


def at_place(problem: Problem, place: str) -> Problem:
    """The problem at one location."""
    here = [i for i, o in enumerate(problem.offers) if o.location == place]
    columns = tuple(replace(c, offers=tuple(here.index(o) for o in c.offers if o in here)) for c in problem.columns)
    rules = replace(problem.rules, max_locations=None)
    return replace(problem, columns=tuple(c for c in columns if c.offers), offers=tuple(problem.offers[i] for i in here), rules=rules)


def test_every_change_proposed_does_and_no_smaller_one_of_its_kind() -> None:
    cases = failing()
    assert len(cases) == WANTED
    kinds = set()
    for seed, error in cases:
        for text in error.changes:
            assert not text.startswith("perhaps"), (seed, text)
            s = question(seed)
            values = amounts(text, s)
            kinds |= values.keys()
            assert is_feasible(with_amounts(s, values), seed), (seed, text)
            less = a_little_less(*next(iter(values.items())), s, seed) if len(values) == 1 else {}
            assert not less or not is_feasible(with_amounts(s, less), seed), (seed, text, less)
    assert len(kinds) >= 5


def test_all_changes_together_do_and_none_has_a_smaller_largest_factor() -> None:
    known = 0
    for seed, error in failing():
        if not error.together:
            continue
        known += 1
        s, rng = question(seed), np.random.default_rng(seed)
        m = re.fullmatch(r"(.+) \(none by more than a factor of ([\d.]+)\)", error.together)
        assert m, (seed, error.together)
        values = amounts(m[1], s)
        assert is_feasible(with_amounts(s, values), seed), (seed, error.together)
        factor = factor_of(s, values)
        assert abs(factor - float(m[2])) < 1e-3 * factor
        names = sorted(asked_for(s))
        some = [{n for n in names if rng.random() < 0.7} for _ in range(3)]
        for which in (set(names), *some):  # every change of less: all demands as far, and some of them
            assert cheapest_by_enumeration(loosened(s, 1 + (factor - 1) * 0.96, which), seed) == inf, (seed, error.together, which)
        for name, value in values.items():  # none of it can stay or move less, the others as they are
            less = {**values, **a_little_less(name, value, s, seed)}
            assert less == values or not is_feasible(with_amounts(s, less), seed), (seed, error.together, name)
            assert not is_feasible(with_amounts(s, {k: v for k, v in values.items() if k != name}), seed), (seed, error.together, name)
    assert known >= WANTED // 2


def test_a_conflict_is_minimal() -> None:
    known = 0
    for seed, error in failing():
        if not error.conflict:
            continue
        known += 1
        s = question(seed)
        by_name = {d.name: d for d in demands(s)}
        kept = [by_name[name] for name in error.conflict]
        only = s
        for name, d in by_name.items():
            if name not in error.conflict:
                only = d.dropped(only)
        assert not is_feasible(only, seed), (seed, error.conflict)
        for d in kept:
            assert is_feasible(d.dropped(only), seed), (seed, d.name)
    assert known >= WANTED // 2
