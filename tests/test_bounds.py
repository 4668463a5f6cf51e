"""Bounds on the cost of plans: never above the best plan, and what is left out below a cutoff is in no plan that cheap."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import product
from math import ceil, inf

import numpy as np
import pytest
from test_program import drawn
from test_states import drawn as drawn_day

from planner.program import bounds
from planner.program.optimum import cheapest, relaxed_cost
from planner.program.places import locations, sections
from planner.program.pools import pools
from planner.program.problem import Column, Problem, Purchasable, Rules, Waiting, circle
from planner.program.solver import SolverOptions

EXACT = SolverOptions(gap=0)


def in_bulk(question: Problem, rng: random.Random) -> Problem:
    """The problem with offers that are sold in no fewer than so many, or not at all."""
    return replace(question, offers=tuple(replace(o, minimum=rng.choice([1, 2, 4])) for o in question.offers))


@pytest.mark.parametrize("is_in_bulk", [False, True])
@pytest.mark.parametrize("part", range(4))
def test_no_plan_at_a_location_costs_less_than_its_bound(part: int, is_in_bulk: bool) -> None:
    bounded = 0
    for seed in range(15 * part, 15 * part + 15):
        rng = random.Random(seed)
        question = in_bulk(drawn(rng), rng) if is_in_bulk else drawn(rng)
        lows = bounds.lower_bounds(question, list(locations(question).values()))
        for low, section in zip(lows, sections(question), strict=True):
            best = cheapest(section.problem, EXACT, break_ties=False).cost
            assert low <= best * (1 + 1e-6), seed
            bounded += low > 0.5 * best and best < inf
    assert bounded >= 5  # they say something


@pytest.mark.parametrize("is_in_bulk", [False, True])
@pytest.mark.parametrize("part", range(4))
def test_columns_left_out_below_a_cutoff_are_in_no_plan_that_cheap(part: int, is_in_bulk: bool) -> None:
    left_out = 0
    for seed in range(40 * part, 40 * part + 40):
        rng = random.Random(seed)
        question = in_bulk(drawn(rng), rng) if is_in_bulk else drawn(rng)
        if len(question.demands) > 1:
            continue
        best = cheapest(question, EXACT, break_ties=False).cost
        keep = bounds.worthwhile(question, best)
        left_out += len(question.columns) - len(keep)
        fewer = replace(question, columns=tuple(question.columns[c] for c in keep))
        assert best == inf or cheapest(fewer, EXACT, break_ties=False).cost == pytest.approx(best, rel=1e-6), seed
    assert left_out >= 10


def test_where_traffic_may_be_split_the_bound_is_below_the_relaxation_too() -> None:
    """No whole replicas in either; the relaxation also knows spares, caps and packing."""
    compared = 0
    for seed in range(80):
        question = drawn(random.Random(seed))
        rules = replace(question.rules, pools_per_workload=None, mix=True, spare_replicas=0, max_models=None, max_gpu_types=None, caps=(), max_locations=None)
        columns = tuple(replace(c, tiers={w: tuple(replace(t, replicas=1) for t in ts) for w, ts in c.tiers.items()}) for c in question.columns)
        free = replace(question, rules=rules, columns=columns, offers=tuple(replace(o, location="x") for o in question.offers))
        relaxed = relaxed_cost(free)[0]
        price = bounds._prices(free, [list(range(len(free.offers)))])
        replica = float(np.min(np.array([c.gpus for c in free.columns])[:, None] * price))
        (low,) = bounds.lower_bounds(free, [list(range(len(free.offers)))])
        least_held = min(o.usd_per_hour for o in free.offers)  # whole ones: the only part that may lie above the relaxation
        assert low <= max(relaxed, replica, least_held) * (1 + 1e-6), seed
        compared += low > max(replica, least_held) * (1 + 1e-6)
    assert compared >= 20


def test_instances_that_cover_gpus_are_the_cheapest_of_all_counts() -> None:
    for seed in range(20):
        draw = random.Random(seed)
        offers = [Purchasable("x", "A", n, draw.uniform(1, 2) * n, available=draw.choice([None, 1, 2])) for n in draw.sample([1, 2, 4, 8], 3)]
        known = bounds.cover(offers, 12)
        for gpus in range(13):
            counts = product(*(range(1 + min(ceil(gpus / o.gpus), 99 if o.available is None else o.available)) for o in offers))
            best = min(
                (
                    sum(n * o.usd_per_hour for n, o in zip(c, offers, strict=True))
                    for c in counts
                    if sum(n * o.gpus for n, o in zip(c, offers, strict=True)) >= gpus
                ),
                default=inf,
            )
            assert known[gpus] == pytest.approx(best), (seed, gpus)


def test_hours_cost_no_less_than_the_gpus_they_take_covered_by_instances() -> None:
    """By hand for a structure's known needs: GPUs of each type covered hour by hour, and started at least as often as they rise."""
    compared = 0
    for seed in range(40):
        question = drawn_day(random.Random(seed))
        if len(question.demands) > 1 or question.waiting:
            continue
        for column in question.columns:
            if 0 not in column.tiers:
                continue
            alone = replace(question, columns=(column,))
            (pool,) = pools(alone)
            taken = np.array(pool.need) * column.gpus
            offers = [question.offers[o] for o in column.offers]
            covered = bounds.cover(offers, int(taken.max()))[taken]
            least = min(o.usd_per_hour / o.gpus for o in offers)
            lead = min(question.rules.lead_hours, 1.0)
            low = max(float(covered.sum()), least * (float(taken.sum()) + lead * bounds.starts_of(taken)))
            found = cheapest(alone, EXACT)
            assert low <= found.cost * (1 + 1e-6), seed
            for cap in question.rules.caps:
                over = bounds.surely(cap, offers, {column.gpu: taken}, covered) > cap.most * (1 + 1e-9)
                assert not (over and found.found), seed
            compared += found.found
    assert compared >= 5


def test_the_only_pool_costs_no_less_than_whole_replicas_at_the_least_price() -> None:
    for seed in range(60):
        question = drawn(random.Random(seed))
        if len(question.demands) > 1 or question.rules.pools_per_workload != 1 or question.demands[0].mean_quality is not None:
            continue
        columns = [c for c in question.columns if 0 in c.tiers]
        replica = np.array([c.gpus * min(question.offers[o].usd_per_hour / question.offers[o].gpus for o in c.offers) for c in columns])
        carries = np.array([max(t.capacity for t in c.tiers[0]) for c in columns]) * question.rules.max_slo_load
        lows = bounds.only_pool(replica, carries, question.demands[0].rate, question.rules.spare_replicas)
        for low, column in zip(lows, columns, strict=True):
            assert low <= cheapest(replace(question, columns=(column,)), EXACT, break_ties=False).cost * (1 + 1e-6), seed


@pytest.mark.parametrize("seed", range(8))
def test_work_that_waits_alone_costs_no_less_than_its_replica_hours_and_starts(seed: int) -> None:
    draw = random.Random(seed)
    states, hours = 12, draw.choice([2, 4, 12])
    work = Waiting((tuple(range(hours)),), (draw.uniform(1, 10),), alone={0: 1.0})
    offer = Purchasable("x", "A", 1, 2.0)
    column = Column("c", "m", "k", "A", 1, {}, {}, (0,))
    lead = draw.choice([0.0, 0.4, 1.0])
    found = cheapest(Problem((), (column,), (offer,), Rules(lead_hours=lead), circle(states), (work,)), EXACT)
    low = bounds.alone(2.0, 1.0, work.amounts[0], work.windows, states, lead)
    assert 0.8 * found.cost <= low <= found.cost * (1 + 1e-6)
