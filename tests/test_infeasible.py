"""Every change proposed for a question without a plan makes one, and nothing smaller of the same demand does; conflicts are minimal."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from planner import Catalog, Infeasible, Scenario, load_catalog, solve
from planner.planning.conflict import demands
from planner.scenario.units import parse_duration_s

TINY = Path(__file__).parent / "data" / "tiny"
WANTED = int(os.environ.get("INFEASIBLE_PROBLEMS", "8"))


@cache
def tiny(seed: int) -> Catalog:
    """The tiny catalogue with random scores and prices."""
    catalog, rng = load_catalog([TINY], shipped=False), np.random.default_rng(seed)
    cards = tuple(
        c.model_copy(update={"quality": tuple(q.model_copy(update={"score": float(rng.integers(30, 95)) / 100}) for q in c.quality)}) for c in catalog.cards
    )
    offers = tuple(o.model_copy(update={"usd_per_hour": float(np.round(o.usd_per_hour * rng.uniform(0.4, 2.0), 2))}) for o in catalog.offers)
    return replace(catalog, cards=cards, offers=offers)


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
    return Scenario.model_validate({"workload": [workload], "policy": policy, "supply": supply, "solver": {"gap": 0.0}})


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
    from planner.planning.known import Known

    try:
        solve(scenario, tiny(seed), compare=False, known=Known(tiny(seed)))
    except Infeasible:
        return False
    return True


def changed(s: Scenario, part: str, **update: Any) -> Scenario:
    if part == "workload":
        return s.model_copy(update={"workload": (s.workload[0].model_copy(update=update),)})
    return s.model_copy(update={part: getattr(s, part).model_copy(update=update)})


def relaxed(s: Scenario, text: str, seed: int) -> tuple[Scenario, Scenario | None]:
    """The scenario with a proposed change, and with a slightly smaller one of the same demand (None: there is none)."""
    if m := re.match(r"a budget of \$([\d,.]+)/h", text):
        budget = float(m[1].replace(",", ""))
        return changed(s, "policy", budget=budget), changed(s, "policy", budget=budget - 0.02)
    if m := re.match(r"(\d+) GPUs in all", text):
        return changed(s, "supply", max_gpus=int(m[1])), changed(s, "supply", max_gpus=int(m[1]) - 1)
    if text.startswith("a quota of "):
        more = {g: int(n) for g, n in re.findall(r"(GPU-\d+)=(\d+)", text)}
        quota = {**s.supply.quota, **more}
        one_less = {**quota, next(iter(more)): next(iter(more.values())) - 1}
        return changed(s, "supply", quota=quota), changed(s, "supply", quota=one_less) if len(more) == 1 else None
    if m := re.match(r"([\d.]+) req/s", text):
        return changed(s, "workload", qps=float(m[1])), changed(s, "workload", qps=float(m[1]) * 1.03)
    if m := re.match(r"a quality floor of ([\d.]+) instead", text):
        floor = float(m[1])
        catalog = tiny(seed)
        higher = sorted(q.score for x in catalog.served if (q := catalog.quality(x, "mmlu-pro")) and floor + 1e-4 < q.score < (s.workload[0].min_quality or 1))
        return changed(s, "workload", min_quality=floor - 5e-5), changed(s, "workload", min_quality=higher[0]) if higher else None
    if m := re.match(r"(TTFT|TPOT) p95 of (\S+) instead", text):
        name, limit = f"{m[1].lower()}_p95", parse_duration_s(m[2])
        slo = s.workload[0].slo
        return changed(s, "workload", slo={**slo, name: limit}), changed(s, "workload", slo={**slo, name: limit * 0.97})
    if m := re.match(r"no limit on (TTFT|TPOT) p95", text):
        return changed(s, "workload", slo={k: v for k, v in s.workload[0].slo.items() if not k.startswith(m[1].lower())}), None
    raise AssertionError(f"a change of an unknown kind: {text}")


def test_every_change_proposed_does_and_no_smaller_one_of_its_kind() -> None:
    cases = failing()
    assert len(cases) == WANTED
    kinds = set()
    for seed, error in cases:
        for text in error.changes:
            if text.startswith("perhaps"):
                continue
            does, less = relaxed(question(seed), text, seed)
            assert is_feasible(does, seed), (seed, text)
            assert less is None or not is_feasible(less, seed), (seed, text)
            kinds.add(text.split(" of ")[0] if text[0] in "aT" else text.split()[-1])
    assert len(kinds) >= 4


def test_a_conflict_is_minimal_and_its_common_relaxation_does() -> None:
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
