"""Hosted APIs by the hour: quiet hours and peaks worked out by hand, the search against enumeration, what the check refuses, and what is made of a plan."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from math import ceil, inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run
from test_hosted import USD, asked, carried, priced, shipped

from planner import Plan, Scenario, autoscale
from planner.candidates.columns import Candidate, Formulation
from planner.candidates.hosted import HostedOffer
from planner.candidates.points import OperatingPoint
from planner.check.check import check_plan
from planner.errors import ScenarioError
from planner.program.problem import Column, Problem, Purchasable, Rules, Tier, Traffic
from planner.search import hours as search
from planner.search.hosted_hours import space_of
from planner.search.hours import HourlyQuestion, cheapest_structure
from planner.search.structures import Block


def by_the_hour(rates: list[float], usd: float, how: str = "overflow", workload: dict[str, Any] | None = None, **policy: Any) -> Plan:
    """The plan for rates in replicas' worth by hour, an API at so much for one req/s and hour; nothing is paid for starts and replicas may be none."""
    mean = sum(rates) / len(rates)
    rules = {"startup_lead": "0s", "floor_replicas": 0, **policy}
    scenario = asked(mean * carried(), how, {"profile": [r / mean for r in rates], **(workload or {})}, **rules)
    catalog = replace(shipped(), api_prices=(priced(usd),))
    plan = autoscale(scenario, catalog)
    assert check_plan(plan, catalog).breaches == ()
    assert check_plan(Plan.model_validate_json(plan.to_json()), catalog).ok
    return plan


def at_apis(plan: Plan) -> list[float]:
    """Replicas' worth that APIs serve in each hour, as exact as shapes are."""
    return [round(sum(p.hosted) / carried(), 4) for p in plan.periods]


def costs(usd: float) -> Any:
    """As much, as exact as shapes are."""
    return pytest.approx(usd, rel=1e-5)


# ---- by hand


@pytest.mark.parametrize("how", ["all", "overflow"])
@pytest.mark.parametrize("of_break_even", [0.99, 1.01])
def test_an_api_serves_the_quiet_hour_below_the_price_of_its_replica(how: str, of_break_even: float) -> None:
    """A quarter of a replica's worth in the quiet hour costs $2 on a replica; nine tenths in the busy one are worth theirs at either price."""
    plan = by_the_hour([0.25, 0.9], of_break_even * USD / (0.25 * carried()), how)
    is_cheap = of_break_even < 1
    assert [p.deployments[0].replicas for p in plan.periods] == ([0, 1] if is_cheap else [1, 1])
    assert at_apis(plan) == ([0.25, 0.0] if is_cheap else [0.0, 0.0])
    assert plan.usd == costs((of_break_even if is_cheap else 1) * USD + USD)
    assert plan.cost.usd_per_hour == costs(plan.usd / 2)
    assert plan.cost.usd_per_month == costs(730 * plan.usd / 2)
    assert plan.cost.api_usd_per_hour == costs(of_break_even * USD / 2 if is_cheap else 0)
    assert sum(h.share for h in plan.hosted) == costs(0.25 / 1.15 if is_cheap else 0)


@pytest.mark.parametrize(("of_break_even", "replicas"), [(0.99, [1, 1]), (1.01, [1, 2])])
def test_an_api_takes_the_peak_above_the_fleet_up_to_the_break_even(of_break_even: float, replicas: list[int]) -> None:
    """The busy hour's second replica would carry half of its worth for $2."""
    plan = by_the_hour([0.9, 1.5], of_break_even * USD / (0.5 * carried()))
    assert [p.deployments[0].replicas for p in plan.periods] == replicas
    assert at_apis(plan) == ([0.0, 0.5] if replicas == [1, 1] else [0.0, 0.0])
    assert plan.usd == costs(2 * USD + min(of_break_even, 1) * USD)
    assert plan.bound_usd_per_hour <= plan.cost.usd_per_hour * (1 + 1e-9)


def test_all_or_nothing_holds_in_every_hour() -> None:
    """What overflows may not go to the API; the quiet hour may, whole."""
    plan = by_the_hour([0.25, 1.5], 0.99 * USD / (0.5 * carried()), "all")
    assert [p.deployments[0].replicas for p in plan.periods] == [0, 2]
    assert at_apis(plan) == [0.25, 0.0]
    assert plan.usd == costs(0.5 * 0.99 * USD + 2 * USD)


def test_a_floor_keeps_its_replicas_in_the_quiet_hour() -> None:
    """A replica that is there anyway serves for nothing; the note says how to let go of it."""
    plan = by_the_hour([0.25, 0.9], 0.5 * USD / (0.25 * carried()), floor_replicas=1)
    assert plan.hosted == ()
    assert plan.usd == costs(2 * USD)
    assert any("--floor-replicas 0" in note for note in plan.notes)
    asleep = by_the_hour([0.25, 0.9], 0.5 * USD / (0.25 * carried()))
    assert asleep.usd == costs(1.5 * USD)
    assert not any("--floor-replicas" in note for note in asleep.notes)


@pytest.mark.parametrize(("usd", "replicas"), [(0.49, 0), (0.51, 1)])
def test_what_an_api_saves_must_pay_for_the_start_after_it(usd: float, replicas: int) -> None:
    """To start again costs half an hour, $1: a quiet hour at an API must cost less than the other $1."""
    plan = by_the_hour([0.25, 0.9], usd * USD / (0.25 * carried()), startup_lead="30min")
    assert plan.periods[0].deployments[0].replicas == replicas
    assert plan.usd == costs((2 if replicas else 1.5 + usd) * USD)


def test_without_any_hour_worth_a_replica_there_is_no_fleet() -> None:
    plan = by_the_hour([0.2, 0.4], 0.9 * USD / (0.4 * carried()), floor_replicas=1)
    assert (plan.deployments, plan.purchases, plan.gpus_held, plan.power) == ((), (), 0, None)
    assert plan.workloads[0].predicted is None
    assert plan.hosted[0].share == pytest.approx(1)
    assert plan.usd == costs(1.35 * USD)
    assert plan.flat and plan.flat.usd_per_hour == costs(0.675 * USD)
    assert "latency of hosted APIs is not known" in plan.warnings[0]


def test_an_api_is_paid_for_each_hours_mean_and_the_fleet_is_there_for_its_peaks() -> None:
    """Peaks twice the mean: the busy hour's 1.5 replicas' worth of peaks leave half of one to the API, which is paid for a quarter."""
    usd = 0.99 * USD / (0.25 * carried())
    plan = by_the_hour([0.45, 0.75], usd, workload={"burst_factor": 2.0})
    assert [p.deployments[0].replicas for p in plan.periods] == [1, 1]
    assert at_apis(plan) == [0.0, 0.25]
    assert plan.usd == costs(2.99 * USD)


def test_a_limit_holds_in_every_hour_at_peaks() -> None:
    """Three tenths of a replica's worth at most: the quiet quarter may go there, the half that overflows may not."""
    plan = by_the_hour([0.25, 1.5], 0.5 * USD / (0.5 * carried()), supply={"api_limit": {"acme": 0.3 * carried()}})
    assert [p.deployments[0].replicas for p in plan.periods] == [0, 2]
    assert at_apis(plan) == [0.25, 0.0]


def test_the_budget_counts_what_apis_take_in_the_hour() -> None:
    """The busy hour's replica and what overflows cost $3.90, two replicas $4."""
    rates, usd = [0.9, 1.5], 0.95 * USD / (0.5 * carried())
    assert by_the_hour(rates, usd, budget=f"{1.96 * USD}/h").usd == costs(2.95 * USD)
    with pytest.raises(Exception, match="budget"):
        by_the_hour(rates, usd, budget=f"{1.94 * USD}/h")


def test_a_spare_replica_stands_by_only_where_a_fleet_serves() -> None:
    """With N+1 the quiet hour takes two replicas, or none."""
    plan = by_the_hour([0.25, 0.9], 1.9 * USD / (0.25 * carried()), spare_replicas=1)
    assert [p.deployments[0].replicas for p in plan.periods] == [0, 2]
    assert plan.usd == costs(3.9 * USD)


def test_requests_that_wait_are_not_planned_beside_apis() -> None:
    waiting = Scenario.model_validate({"workload": [{"requests_per_day": 1000}], "policy": {"api": "all"}})
    with pytest.raises(ScenarioError, match="may wait"):
        autoscale(waiting, shipped())


# ---- the search against enumeration


def drawn(seed: int) -> tuple[Formulation, np.ndarray, Rules]:
    """Two candidates on a GPU type each, one workload or two by two or three hours, one API that stands beside the first candidate or, mixed, both."""
    rng = random.Random(seed)
    workloads, hours = rng.choice([(1, 3), (2, 2)])
    rates = np.array([[rng.choice([0.0, 1.0, 1.0, 1.0]) * rng.uniform(0.2, 6) for _ in range(hours)] for _ in range(workloads)])
    rates[:, 0] = np.maximum(rates[:, 0], 0.3)
    singles = [[rng.uniform(1.5, 3) for _ in range(workloads)] for _ in range(2)]
    points = [OperatingPoint(c, 64, 8192, tuple(s), tuple(1.2 * x for x in s), (1.0,) * workloads) for c, s in enumerate(singles)]
    offers = (Purchasable("here", "A", 1, rng.uniform(0.8, 1.5)), Purchasable("here", "B", 1, rng.uniform(0.8, 1.5)))
    rules = Rules(
        spare_replicas=rng.choice([0, 0, 1]), floor_replicas=rng.choice([0, 0, 1]), lead_hours=rng.choice([0.0, 0.4]), mix=rng.random() < 0.5, overflow=True,
        at_once=rng.random() < 0.4,
    )  # fmt: skip
    policy = {"api": "all" if rules.at_once else "overflow", "spare_replicas": rules.spare_replicas, "floor_replicas": rules.floor_replicas}
    policy |= {"startup_lead": f"{3600 * rules.lead_hours:g}s", "mix": rules.mix}
    names = [{"name": f"w{w}", "qps": 1.0} for w in range(workloads)]
    scenario = Scenario.model_validate({"workload": names, "policy": policy, "solver": {"gap": 1e-9}})
    columns = []
    for c, (gpu, point) in enumerate(zip("AB", points, strict=True)):
        sizes = {w: tuple(Tier(n, able(point, w, n)) for n in range(1, 9)) for w in range(workloads)}
        shared = {w: 0.85 * s for w, s in enumerate(point.single)} if workloads > 1 else {}
        columns.append(Column(f"c{c}", f"m{c}", f"k{c}", gpu, 1, sizes, shared, (c,), dict.fromkeys(range(workloads), 0.5)))
    prices = [rng.uniform(0.2, 0.8) for _ in range(workloads)]
    apis = [Column(f"api{w}", "m0", "k0", "", 0, {}, {}, (), {w: 0.5}, {w: usd}) for w, usd in enumerate(prices)]
    nobody: Any = None  # whose answers they are is of no matter to the search
    hosted = tuple(HostedOffer(priced(usd), w, nobody, usd, "k0") for w, usd in enumerate(prices))
    demands = tuple(Traffic(f"w{w}", (float(r.max()),)) for w, r in enumerate(rates))
    problem = Problem(demands, (*columns, *apis), offers, rules)
    candidates = tuple(Candidate(point, 0) for point in points)
    return Formulation(scenario, problem, candidates, (), Counter(), hosted=hosted), rates, rules


def able(point: OperatingPoint, w: int, n: int) -> float:
    """Capacity per replica of a pool, which grows up to eight: the share left idle falls with their root, and with the sixth root of what is used."""
    used, root = point.single[w] / point.saturated[w], min(n, 8) ** 0.5
    low, high = used, 1.0
    for _ in range(60):
        a = (low + high) / 2
        low, high = (a, high) if 1 - a > (1 - used) * (a / used) ** (1 / 6) / root else (low, a)
    return point.saturated[w] * low


def left(whole: Formulation, rates: np.ndarray, c: int, group: tuple[int, ...], t: int, n: int) -> float:
    """Least $/h at the API beside n replicas of a candidate for a group of workloads in an hour; infinite where it may not stand there."""
    rules, point = whole.problem.rules, whole.candidates[c].point
    usd = [whole.hosted[w].usd_per_qps if c == 0 or rules.mix else inf for w in group]
    n = max(n - rules.spare_replicas, 0)
    capacity = [able(point, group[0], n)] if len(group) == 1 and n else [0.85 * point.single[w] for w in group]
    best = inf
    for shares in product((0.0, 1.0), repeat=len(group)):  # what is on the fleet: all or none, and for one at a time what is left of it
        load = sum(s * rates[w, t] / x for s, w, x in zip(shares, group, capacity, strict=True))
        for i, (w, x) in enumerate(zip(group, capacity, strict=True)):
            part = list(shares)
            if not rules.at_once and not shares[i] and rates[w, t] > 0:
                part[i] = min(1.0, max(0.0, (n - load) * x / rates[w, t]))
            if load <= n * (1 + 1e-9):
                paid = [u * (1 - s) * rates[v, t] if (1 - s) * rates[v, t] > 1e-9 else 0.0 for u, s, v in zip(usd, part, group, strict=True)]
                best = min(best, sum(paid))
    return best


def structures(workloads: int) -> Iterator[tuple[Block, ...]]:
    """Each workload at the API alone, on a candidate of its own, or all on one together."""
    for where in product((None, 0, 1), repeat=workloads):
        yield tuple(Block((w,), c) for w, c in enumerate(where) if c is not None)
    if workloads > 1:
        yield from ((Block(tuple(range(workloads)), c),) for c in (0, 1))


def cost(whole: Formulation, rates: np.ndarray, blocks: Sequence[Block]) -> float:
    """Of a structure at its best holdings, tried one by one."""
    alone = set(range(len(rates))) - {w for b in blocks for w in b.workloads}
    at_api = sum(whole.hosted[w].usd_per_qps * float(rates[w].sum()) for w in alone)
    return at_api + sum(_held(whole, rates, c, [b.workloads for b in blocks if b.candidate == c]) for c in {b.candidate for b in blocks})


def _held(whole: Formulation, rates: np.ndarray, c: int, groups: list[tuple[int, ...]]) -> float:
    """Least cost of deployments of one candidate, on one offer: every number of instances in every hour, every split of them."""
    rules, price, hours = whole.problem.rules, whole.problem.offers[c].usd_per_hour, rates.shape[1]
    most = (
        sum(ceil(sum(rates[w].max() / (0.85 * whole.candidates[c].point.single[w]) for w in g)) + rules.spare_replicas for g in groups) + rules.floor_replicas
    )
    paid = np.full((hours, most + 1), inf)
    for t, held in product(range(hours), range(most + 1)):
        for split in product(range(held + 1), repeat=len(groups)):
            if sum(split) == held and min(split) >= rules.floor_replicas:
                paid[t, held] = min(paid[t, held], sum(left(whole, rates, c, g, t, n) for g, n in zip(groups, split, strict=True)))
    paid = np.minimum.accumulate(paid, axis=1)
    best = inf
    for held in product(range(most + 1), repeat=hours):
        starts = sum(max(0, held[t] - held[t - 1]) for t in range(hours))
        best = min(best, price * (sum(held) + rules.lead_hours * starts) + sum(paid[t, n] for t, n in enumerate(held)))
    return best


@pytest.mark.parametrize("part", range(3))
def test_the_search_finds_what_enumeration_finds(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over all structures, holdings and splits; and no structure's bound is above what it costs."""
    monkeypatch.setattr(search, "GAP", 0.0)
    served = 0
    for seed in range(12 * part, 12 * part + 12):
        whole, rates, _ = drawn(seed)
        slots = np.full((2, len(rates)), 64)
        question = HourlyQuestion(whole.scenario, whole.scenario, rates, tuple(range(len(rates))), len(rates), ())
        field = space_of(whole, rates, slots, ())
        found = cheapest_structure(field, question, inf)
        each = {blocks: cost(whole, rates, blocks) for blocks in structures(len(rates))}
        best = min(each.values())
        assert found
        assert found.solution.cost == pytest.approx(best, rel=1e-6), seed
        assert found.bound <= best * (1 + 1e-9)
        known = {s.blocks: s.bound for _, s in field.cheapest_first() if s}
        assert all(known.get(blocks, inf) <= usd * (1 + 1e-9) for blocks, usd in each.items() if usd < inf), seed
        served += bool(found.apis) and bool(found.pools)
    assert served >= 2


# ---- the check


@pytest.fixture(scope="module")
def plan() -> Plan:
    return by_the_hour([0.25, 0.9, 1.5], 0.99 * USD / (0.5 * carried()))


def test_the_plan_has_quiet_hours_and_overflow(plan: Plan) -> None:
    assert at_apis(plan) == [0.25, 0.0, 0.5]
    assert plan.usd == costs((0.5 * 0.99 + 2 + 0.99) * USD)
    assert plan.workloads[0].routing[0].share + plan.hosted[0].share == pytest.approx(1)
    assert [row["api_requests"] for row in plan.rows()] == pytest.approx([0.25 * carried(), 0.0, 0.5 * carried()], rel=1e-4)


@pytest.mark.parametrize(
    ("at", "of_plan", "said"),
    [
        ({"hosted": (0.0,)}, {}, "SLO load"),  # the fleet would have to carry it
        ({"hosted": (9e9,)}, {}, "more at APIs than its traffic"),
        ({"hosted": ()}, {}, "one rate for each API"),
        ({"usd": 0.0}, {}, "states $0.0000"),
        ({}, {"share": 0.9}, "a share of"),
        ({}, {"qps": 0.1}, "requests/s in the mean"),
        ({}, {"usd_per_hour": 0.1}, "usd per hour"),
        ({}, {"usd_per_million_input": 0.001}, "usd per million input"),
    ],
)
def test_the_check_derives_what_apis_serve_by_the_hour(plan: Plan, at: dict[str, Any], of_plan: dict[str, Any], said: str) -> None:
    catalog = replace(shipped(), api_prices=(priced(0.99 * USD / (0.5 * carried())),))
    assert check_plan(plan, catalog).ok
    periods = (*plan.periods[:2], plan.periods[2].model_copy(update=at))
    wrong = plan.model_copy(update={"periods": periods, "hosted": (plan.hosted[0].model_copy(update=of_plan),)})
    assert any(said in b.what for b in check_plan(wrong, catalog).breaches)


def test_the_check_holds_all_or_nothing_and_limits_to_the_hour(plan: Plan) -> None:
    catalog = replace(shipped(), api_prices=(priced(0.99 * USD / (0.5 * carried())),))
    scenario = plan.scenario
    whole = scenario.model_copy(update={"policy": scenario.policy.model_copy(update={"api": "all"})})
    limited = scenario.model_copy(update={"supply": scenario.supply.model_copy(update={"api_limit": {"acme": 0.4 * carried()}})})
    for other, said in ((whole, "all or nothing"), (limited, "at most")):
        assert any(said in b.what for b in check_plan(plan.model_copy(update={"scenario": other}), catalog).breaches)


# ---- what is made of a plan


def test_the_commands_take_a_plan_with_apis_by_the_hour(run: Run, tmp_path: Path) -> None:
    """A day on the shipped catalogue: printed, saved, shown, checked, simulated without the API's share, written for KEDA and reviewed."""
    file, question = tmp_path / "plan.json", ["--qps", 30, "--min-quality", 0.8, "--profile", "m-small", "--gpu", "H200-SXM-141GB"]
    assert run("autoscale", *question, "--api", "overflow", "--mix", "--floor-replicas", 0, "-o", file)[0] == 0
    status, page, _ = run("show", file)
    assert status == 0
    assert "latency there not known" in " ".join(page.split()) and "APIs serve for $" in page
    saved = json.loads(file.read_text())
    assert len(saved["hosted"]) >= 1 and all(len(p["hosted"]) == len(saved["hosted"]) for p in saved["periods"])
    assert run("check", file)[0] == 0
    details = run("show", file, "--details")[1]
    assert "API req/s" in details and "Hosted APIs" in details
    assert "api_requests" in run("show", file, "--format", "csv")[1].splitlines()[0]
    status, manifest, _ = run("emit", "kubernetes", file)
    assert status == 0 and "By the hour (0:00 " in manifest and "nothing here starts" in manifest and "type: cron" in manifest
    assert run("report", file, "-o", tmp_path / "review.md")[0] == 0
    status, simulated, _ = run("simulate", file)
    assert status == 0 and "without what APIs serve" in simulated


def test_what_is_all_at_apis_is_neither_started_nor_simulated(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    assert run("autoscale", "--qps", 1, "--min-quality", 0.8, "--profile", "1,2,3", "--gpu", "H200-SXM-141GB", "--api", "all", "-o", file)[0] == 0
    assert "latency there not known" in run("show", file)[1] and run("check", file)[0] == 0
    assert run("report", file, "-o", tmp_path / "review.md")[0] == 0
    for verb in (("emit", "kubernetes"), ("simulate",)):
        status, _, error = run(*verb, file)
        assert status == 2 and "hosted API" in error
