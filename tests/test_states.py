"""The program over several states: counts against brute force, whole problems against all their structures, starts, waiting work, scenarios."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from math import inf

import pytest
from brute_force import rules as ruled

from planner import Scenario, autoscale
from planner.check.packing import fill
from planner.program.optimum import cheapest
from planner.program.pools import pools
from planner.program.problem import Column, Problem, Purchasable, Rules, Solution, State, Tier, Traffic, Waiting, circle
from planner.program.solver import SolverOptions
from planner.search import hours as search
from planner.search.hours import HourlyQuestion, PricedStructure, cheapest_structure
from planner.search.structures import StructureSpace

EXACT = SolverOptions(gap=0.0)
ONE = (Purchasable("here", "A", 1, 1.0),)
FREE = Rules()


def fleet(needs: Sequence[Sequence[float]], offers: tuple[Purchasable, ...] = ONE, sizes: Sequence[int] = (), rules: Rules = FREE) -> Problem:
    """One deployment per workload, a replica for each unit of its rate in each hour."""
    gpus = [*sizes, *([1] * len(needs))][: len(needs)]
    hosts = [tuple(o for o, x in enumerate(offers) if x.gpus >= g) for g in gpus]
    columns = tuple(Column(f"c{w}", f"m{w}", f"k{w}", "A", g, {w: (Tier(1, 1.0),)}, {w: 1.0}, h) for w, (g, h) in enumerate(zip(gpus, hosts, strict=True)))
    demands = tuple(Traffic(f"w{w}", tuple(map(float, row))) for w, row in enumerate(needs))
    return Problem(demands, columns, offers, rules, circle(len(needs[0])))


def solve(question: Problem) -> Solution:
    found = cheapest(question, EXACT)
    assert found.bound == pytest.approx(found.cost) or not found.found
    return found


# ---- counts, by hand


def packs(question: Problem, held: tuple[int, ...], counts: Sequence[int]) -> bool:
    """Whether some placement of all replicas fits, by trying every split of each pool over the offers."""
    columns = [question.columns[p.column] for p in pools(question)]

    def splits(n: int, kinds: int) -> list[tuple[int, ...]]:
        return [s for s in product(range(n + 1), repeat=kinds) if sum(s) == n]

    for split in product(*(splits(n, len(c.offers)) for c, n in zip(columns, counts, strict=True))):
        for o, offer in enumerate(question.offers):
            taken = [0] * held[o]
            guests = sorted(
                (c.gpus for c, s in zip(columns, split, strict=True) for i, n in zip(c.offers, s, strict=True) if i == o for _ in range(n)), reverse=True
            )
            if not all(fill(taken, g, offer.gpus, 1) for g in guests):
                break
        else:
            return True
    return False


def by_hand(question: Problem, most: tuple[int, ...]) -> float:
    """Least cost over all holdings of every hour, for deployments of known need. Without waiting work."""
    offers, rules, hours = question.offers, question.rules, len(question.states)
    needs = [p.need or () for p in pools(question)]
    ways = [[h for h in product(*(range(n + 1) for n in most)) if packs(question, h, [n[t] for n in needs])] for t in range(hours)]
    best = inf
    for held in product(*ways):
        rises = [[max(0, held[t][o] - held[t - 1][o]) for t in range(hours)] for o in range(len(offers))]
        up = min(rules.min_up, hours)
        if any(sum(r[t - k] for k in range(up)) > held[t][o] for o, r in enumerate(rises) for t in range(hours) if up > 1):
            continue
        best = min(best, sum(x.usd_per_hour * (held[t][o] + rules.lead_hours * rises[o][t]) for o, x in enumerate(offers) for t in range(hours)))
    return best


@pytest.mark.parametrize("seed", range(12))
def test_counts_are_the_cheapest_of_all_counts(seed: int) -> None:
    draw = random.Random(seed)
    hours = draw.choice([2, 3])
    offers = (Purchasable("here", "A", 1, draw.uniform(1, 2)), Purchasable("here", "A", 4, draw.uniform(3, 6)))
    sizes = draw.choice([(1, 2), (1, 4), (2, 2)])
    question = fleet([[draw.randint(0, 3) for _ in range(hours)] for _ in sizes], offers, sizes)
    question = replace(question, rules=Rules(lead_hours=draw.choice([0.0, 0.25, 1.5]), min_up=draw.choice([1, 2])))
    assert solve(question).cost == pytest.approx(by_hand(question, (3, 4)))


def test_a_dear_start_is_avoided_by_holding_through_a_short_valley() -> None:
    assert solve(fleet([[2, 1, 2, 2]], rules=Rules(lead_hours=0.5))).cost == pytest.approx(7.5)
    held = solve(fleet([[2, 1, 2, 2]], rules=Rules(lead_hours=2.0)))
    assert held.cost == pytest.approx(8.0) and not any(held.started) and held.holdings == ({0: 2},) * 4


def test_a_lone_instance_stays_up_for_its_least_time() -> None:
    lone = fleet([[0, 1, 0, 0, 0, 0]], rules=Rules(min_up=3))
    assert solve(lone).cost == pytest.approx(3.0)
    since_before = replace(lone, states=tuple(State(before=i - 1 if i else None) for i in range(6)))  # the first hour follows nothing
    assert solve(since_before).cost == pytest.approx(2.0) and not any(solve(since_before).started)


def test_the_quota_holds_in_every_hour() -> None:
    needs = [[3, 1], [1, 3]]
    assert solve(fleet(needs, rules=ruled(quota={"A": 4}))).cost == pytest.approx(8.0)
    assert not solve(fleet(needs, rules=ruled(quota={"A": 3}))).found


def test_spares_stand_by_while_there_is_traffic_and_the_floor_at_any_hour() -> None:
    question = fleet([[2, 0, 1]], rules=Rules(spare_replicas=1, floor_replicas=1))
    (pool,) = solve(question).pools
    assert [sum(n.values()) for n in pool.running] == [3, 1, 2]
    assert pool.flows == ({0: 2.0}, {}, {0: 1.0})


# ---- work that waits


def test_waiting_work_takes_valleys_before_anything_is_bought() -> None:
    """Four replicas at every hour, of which traffic leaves six replica-hours, all in hours 1 and 2."""

    def cost(amount: float) -> float:
        work = Waiting(((0, 1, 2, 3),), (amount,), beside={0: 1.0}, alone={1: 1.0})
        host = fleet([[4, 1, 1, 4]])
        own = replace(host.columns[0], tiers={}, shared={})
        found = solve(replace(host, columns=(*host.columns, own), rules=Rules(floor_replicas=4), waiting=(work,)))
        assert sum(sum(done) for pool in found.pools for done in pool.waiting.values()) == pytest.approx(amount)
        return found.cost

    assert cost(6.0) == pytest.approx(16.0)
    assert cost(6.5) == pytest.approx(17.0)
    assert cost(9.0) == pytest.approx(19.0)


def test_waiting_work_stays_in_its_window() -> None:
    work = Waiting(((1, 2),), (2.0,), beside={0: 1.0})
    found = solve(replace(fleet([[0, 2, 2, 0]], rules=Rules(floor_replicas=2)), waiting=(work,)))
    done = found.pools[0].waiting[0]
    assert done[0] == done[3] == 0.0 and found.cost == pytest.approx(10.0)


# ---- whole problems: who serves is chosen, too


def drawn(rng: random.Random) -> Problem:
    """Two or three candidates of up to three workloads on two GPU types; rules and waiting work now and then."""
    workloads, hours = rng.choice([(1, 6), (2, 3), (2, 4), (3, 3)])
    offers = tuple(Purchasable(rng.choice("xy"), g, n, rng.uniform(0.8, 1.2) * n * p) for g, p in (("A", 1.0), ("B", 2.2)) for n in rng.sample([1, 2, 4], 2))
    columns = []
    for c in range(3 if workloads < 3 else 2):
        gpu, gpus = rng.choice("AB"), rng.choice([1, 1, 2])
        hosts = tuple(o for o, x in enumerate(offers) if x.gpu == gpu)
        rates = {w: rng.uniform(2, 8) * gpus for w in range(workloads) if rng.random() < 0.85}
        tiers = {w: (Tier(1, r), Tier(2, 1.2 * r)) for w, r in rates.items()}
        columns.append(Column(f"c{c}", f"m{c}", f"k{c}", gpu, gpus, tiers, {w: 0.8 * r for w, r in rates.items()}, hosts))
    demands = tuple(Traffic(f"w{w}", tuple(rng.choice([0.0, 1.0, 1.0, 1.0]) * rng.uniform(1, 15) for _ in range(hours))) for w in range(workloads))
    rules = ruled(
        spare_replicas=rng.choice([0, 0, 1]),
        max_slo_load=rng.choice([1.0, 0.8]),
        floor_replicas=rng.choice([0, 1, 2]),
        lead_hours=rng.choice([0.0, 0.3, 1.0]),
        min_up=rng.choice([1, 1, 2]),
        max_models=rng.choice([None, None, 1]),
        max_locations=rng.choice([None, None, 1]),
        max_gpus=rng.choice([None, None, 10]),
    )
    work = Waiting(((0, hours - 1),), (rng.uniform(1, 20),), {0: rng.uniform(2, 6), 1: rng.uniform(2, 6)}, {len(columns): rng.uniform(2, 6)})
    own = replace(rng.choice(columns), model="own", tiers={}, shared={})
    waiting = (work,) if rng.random() < 0.4 else ()
    return Problem(demands, (*columns, own) if waiting else tuple(columns), offers, rules, circle(hours), waiting)


def partitions(items: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], ...]]:
    if not items:
        yield ()
        return
    for groups in partitions(items[1:]):
        yield ((items[0],), *groups)
        for i, group in enumerate(groups):
            yield (*groups[:i], (items[0], *group), *groups[i + 1 :])


def structures(question: Problem) -> Iterator[Problem]:
    """The problem with each choice of deployments: a column of its own for every group of workloads."""
    columns = question.columns
    for groups in partitions(tuple(range(len(question.demands)))):
        for where in product(*([c for c, column in enumerate(columns) if set(g) <= set(column.tiers)] for g in groups)):
            chosen = tuple(
                replace(columns[c], tiers={w: columns[c].tiers[w] for w in g if len(g) == 1}, shared={w: columns[c].shared[w] for w in g})
                for c, g in zip(where, groups, strict=True)
            )
            waiting = tuple(
                replace(
                    work,
                    beside={i: work.beside[c] for i, c in enumerate(where) if c in work.beside},
                    alone={len(chosen): x for x in work.alone.values()},
                )
                for work in question.waiting
            )
            own = columns[-1:] if waiting else ()
            yield replace(question, columns=(*chosen, *own), waiting=waiting)


@pytest.mark.parametrize("part", range(3))
def test_the_whole_costs_what_its_best_structure_costs(part: int) -> None:
    """Every structure has known needs, so it is another program: no traffic, no pools to choose."""
    found = 0
    for seed in range(6 * part, 6 * part + 6):
        rng = random.Random(seed)
        question = drawn(rng)
        each = list(structures(question))
        assert all(p.need is not None for s in each for p in pools(s))
        best = min((solve(s).cost for s in each), default=inf)
        assert solve(question).cost == pytest.approx(best, rel=1e-6), seed
        found += best < inf
    assert found >= 3


@pytest.mark.parametrize("seed", range(6))
def test_the_whole_costs_what_enumeration_finds(seed: int) -> None:
    """Two candidates of one GPU, two hours: every structure, and every holding of it."""
    draw = random.Random(seed)
    offers = (Purchasable("here", "A", 1, 1.0), Purchasable("here", "A", 2, draw.uniform(1.2, 2)), Purchasable("here", "B", 1, draw.uniform(1, 3)))
    columns = []
    for c, hosts in enumerate(((0, 1), (2,))):
        rates = {w: draw.uniform(2, 4) for w in range(2)}
        tiers = {w: (Tier(1, r), Tier(2, 1.2 * r)) for w, r in rates.items()}
        columns.append(Column(f"c{c}", f"m{c}", f"k{c}", "AB"[c], 1, tiers, {w: 0.9 * r for w, r in rates.items()}, hosts))
    demands = tuple(Traffic(f"w{w}", (draw.uniform(0.5, 4), draw.uniform(0.5, 4))) for w in range(2))
    rules = Rules(lead_hours=draw.choice([0.0, 0.4, 1.5]), floor_replicas=1, spare_replicas=0)
    question = Problem(demands, tuple(columns), offers, rules, circle(2))
    best = min(by_hand(s, (4, 2, 4)) for s in structures(question))
    assert solve(question).cost == pytest.approx(best, rel=1e-6)


def test_one_deployment_serves_in_every_scenario_of_demand() -> None:
    """Likely 1/s, else 10/s: small replicas cost $1 or $10, a large one $5 either way; nobody changes with the hour."""
    columns = (Column("a", "a", "a", "A", 1, {0: (Tier(1, 1.0),)}, {}, (0,)), Column("b", "b", "b", "B", 1, {0: (Tier(1, 10.0),)}, {}, (1,)))
    offers = (Purchasable("here", "A", 1, 1.0), Purchasable("here", "B", 1, 5.0))

    def cost(likely: float, choices: tuple[Column, ...] = columns) -> float:
        states = (State(hours=2.0, probability=likely), State(hours=2.0, probability=1 - likely))
        return solve(Problem((Traffic("w", (1.0, 10.0)),), choices, offers, Rules(), states)).cost

    assert cost(0.5) == pytest.approx(2 * 5.0)
    assert cost(0.9) == pytest.approx(2 * (0.9 * 1 + 0.1 * 10))
    assert cost(0.9, columns[1:]) == pytest.approx(2 * 5.0)


# ---- the search by structures


def test_the_search_finds_what_the_whole_program_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two models on two GPU types at the shipped prices, start-ups and a spare included."""
    seen: list[tuple[StructureSpace, HourlyQuestion, PricedStructure]] = []

    def watched(field: StructureSpace, asked: HourlyQuestion, flat: float) -> PricedStructure | None:
        found = cheapest_structure(field, asked, flat)
        assert found
        seen.append((field, asked, found))
        return found

    monkeypatch.setattr("planner.planning.periods.cheapest_structure", watched)
    monkeypatch.setattr(search, "GAP", 0.0)
    workload = {"models": ["Qwen3-4B-Instruct-2507", "Phi-4-mini-instruct"], "qps": 40}
    autoscale(
        Scenario.model_validate(
            {
                "workload": [{**workload, "name": "day", "profile": [0.5, 1.5, 0.25, 1.75]}, {**workload, "name": "night", "profile": [1, 0.2, 2, 0.8]}],
                "policy": {"spare_replicas": 1, "startup_lead": "30min"},
                "supply": {"gpus": ["H100-SXM-80GB", "L40S"], "kinds": ["neocloud"]},
                "solver": {"gap": 1e-6, "time_limit": "60s"},
            }
        )
    )
    ((field, asked, found),) = seen
    assert 0.5 * found.solution.cost < field.bound(found.structure.place, found.structure.blocks) <= found.solution.cost * (1 + 1e-9)
    whole = field.formulation.problem
    demands = tuple(replace(d, rates=tuple(rates)) for d, rates in zip(whole.demands, asked.rates.tolist(), strict=True))
    rules = replace(whole.rules, floor_replicas=1, lead_hours=0.5)
    best = cheapest(replace(whole, demands=demands, rules=rules, states=circle(4)), SolverOptions(gap=1e-7))
    assert best.cost == pytest.approx(found.solution.cost, rel=1e-5)
