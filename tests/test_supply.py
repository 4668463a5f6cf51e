"""Supply as it is bought, in the program: commitments, spot, losses borne, APIs, today's fleet, risk. Answers by hand, and by enumeration."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import ceil, inf
from pathlib import Path

import pytest
from test_program import LP_FILES, offer, written

from planner.program import capacity, changes, commitments, losses, policy, risk
from planner.program.bounds import lower_bounds
from planner.program.kinds import StateIndex
from planner.program.optimum import cheapest
from planner.program.places import locations, sections
from planner.program.problem import Changes, Column, Problem, Purchasable, Risk, Rules, Solution, State, Tier, Traffic, Waiting
from planner.program.solver import SolverOptions

EXACT = SolverOptions(gap=0.0)
FREE = Rules()


def solved(question: Problem) -> Solution:
    return cheapest(question, EXACT)


def replica(offers: Sequence[int] = (0,), capacity: float = 10.0, gpus: int = 1, name: str = "a") -> Column:
    """A candidate for the only workload."""
    return Column(name, "m", "k", "A", gpus, {0: (Tier(1, capacity),)}, {}, tuple(offers), {0: 0.8})


def hosted(usd_per_unit: float, most: float | None = None) -> Column:
    """An API for the only workload."""
    return Column("api", "m", "k", "", 0, {}, {}, (), {0: 0.8}, {0: usd_per_unit}, {} if most is None else {0: most})


def day(rates: Sequence[float], offers: Sequence[Purchasable], rules: Rules = FREE, states: Sequence[State] = ()) -> Problem:
    """One deployment of replicas that carry 10 each, over states."""
    return Problem((Traffic("w", tuple(rates)),), (replica(range(len(offers))),), tuple(offers), rules, tuple(states) or (State(),) * len(rates))


# ---- by hand


@pytest.mark.parametrize(("hours", "committed"), [(5, 4), (6, 4), (7, 10)])
def test_a_commitment_is_worth_it_for_what_is_needed_often_enough(hours: int, committed: int) -> None:
    """Newsvendor: 10 GPUs in ``hours`` of ten, else 4. A committed GPU at $0.65 pays when it is used in more than 0.65 of the hours."""
    rates = [100.0] * hours + [40.0] * (10 - hours)
    found = solved(day(rates, [offer(1, 1.0), replace(offer(1, 0.65), committed=True)]))
    assert {held.get(1, 0) for held in found.holdings} == {committed}
    assert found.cost == pytest.approx(10 * 0.65 * committed + hours * (10 - committed))


def test_a_commitment_holds_in_every_scenario() -> None:
    """4 GPUs with probability 0.3, 8 with 0.7: GPUs 5 to 8 are used in 0.7 of all hours, more than 0.65 of them."""
    cases = [State(probability=0.3, case=0), State(probability=0.7, case=1)]
    found = solved(day([40.0, 80.0], [offer(1, 1.0), replace(offer(1, 0.65), committed=True)], states=cases))
    assert [held.get(1, 0) for held in found.holdings] == [8, 8]
    assert found.cost == pytest.approx(8 * 0.65)


def test_hours_that_come_often_count_and_start_often() -> None:
    """A day of two hours, 30 times: one GPU, then two. The second starts 30 times, half an hour ahead."""
    states = [State(times=30, before=StateIndex(1)), State(times=30, before=StateIndex(0))]
    found = solved(day([10.0, 20.0], [offer(1, 1.0)], Rules(lead_hours=0.5), states))
    assert found.cost == pytest.approx(30 * (1 + 2 + 0.5))


def test_cvar_of_three_scenarios() -> None:
    """1, 2 or 10 GPUs, each as likely, at $1, or committed at $0.9. The mean is least with 1 committed: (0.9 + 1.9 + 9.9)/3.

    The dearest third costs 9.9 then. With at most 9.5 there, c committed cost 0.9c + (10 − c) ≤ 9.5 from 5 on: 4.5, 4.5 and 9.5.
    """
    cases = [State(probability=1 / 3, case=s) for s in range(3)]
    offers = [offer(1, 1.0), replace(offer(1, 0.9), committed=True)]
    free = solved(day([10.0, 20.0, 100.0], offers, states=cases))
    assert free.cost == pytest.approx((0.9 + 1.9 + 9.9) / 3)
    for level in (2 / 3, 1.0):
        bound = solved(day([10.0, 20.0, 100.0], offers, Rules(risk=Risk(level, 9.5)), cases))
        assert bound.holdings[0][1] == 5
        assert bound.cost == pytest.approx((4.5 + 4.5 + 9.5) / 3)


def test_cvar_of_the_worse_two_thirds() -> None:
    """Of the above, with c committed, the mean of the two dearest is (1.9 + 9.9)/2 = 5.9 at c = 1, (1.8 + 9.8)/2 = 5.8 at 2 and 6.2 at 3."""
    cases = [State(probability=1 / 3, case=s) for s in range(3)]
    offers = [offer(1, 1.0), replace(offer(1, 0.9), committed=True)]
    assert solved(day([10.0, 20.0, 100.0], offers, Rules(risk=Risk(1 / 3, 5.8001)), cases)).found
    assert not solved(day([10.0, 20.0, 100.0], offers, Rules(risk=Risk(1 / 3, 5.79)), cases)).found


@pytest.mark.parametrize(("share", "usd"), [(0.0, 4.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0)])
def test_share_on_spot(share: float, usd: float) -> None:
    """4 replicas at $1, or $0.5 on spot."""
    assert solved(day([40.0], [offer(1, 1.0), replace(offer(1, 0.5), spot=True)], Rules(most_spot=share))).cost == pytest.approx(usd)


def test_the_loss_of_all_spot_is_borne() -> None:
    """4 replicas must remain without what is on spot, so that is worth nothing."""
    offers = [offer(1, 1.0), replace(offer(1, 0.5), spot=True)]
    assert solved(day([40.0], offers, Rules(survives=frozenset({"spot"})))).cost == pytest.approx(4.0)


@pytest.mark.parametrize(("gpus", "usd"), [(1, 16.0), (2, 16.0), (8, 16.0)])
def test_the_loss_of_an_instance_is_borne(gpus: int, usd: float) -> None:
    """Three replicas of 1 or 2 GPUs, or one of 8, are needed: one instance of 8 GPUs at $8 holds them, so a second one stands by."""
    rate = 30.0 if gpus < 8 else 10.0
    question = Problem((Traffic("w", (rate,)),), (replica(gpus=gpus),), (offer(8, 8.0),), Rules(survives=frozenset({"instance"})))
    assert solved(question).cost == pytest.approx(usd)


def test_each_of_two_deployments_bears_the_loss_of_an_instance() -> None:
    """Two workloads on 8-GPU replicas of their own: 2 + 1 and 1 + 1 instances."""
    columns = tuple(Column(f"c{w}", "m", "k", "A", 8, {w: (Tier(1, 10.0),)}, {}, (0,), {w: 0.8}) for w in (0, 1))
    question = Problem((Traffic("v", (20.0,)), Traffic("w", (10.0,))), columns, (offer(8, 8.0),), Rules(survives=frozenset({"instance"})))
    assert solved(question).held == {0: 5}


def test_the_loss_of_an_instance_is_borne_beside_work_that_waits(caplog: pytest.LogCaptureFixture) -> None:
    """Two GPUs carry the traffic of either hour, and a third stands by. Work of two GPU-hours finds that one idle; work of four takes two hours of a fourth.

    Pyomo logs a warning where one variable takes the place of another.
    """
    rules = Rules(survives=frozenset({"instance"}))
    states = [State(before=StateIndex(1)), State(before=StateIndex(0))]
    for amount, usd in ((2.0, 6.0), (4.0, 8.0)):
        work = Waiting(((0, 1),), (amount,), beside={0: 1.0})
        question = day([20.0, 20.0], [offer(1, 1.0)], rules, states)
        question = replace(question, columns=tuple(replace(c, shared={0: 10.0}) for c in question.columns), waiting=(work,))
        assert solved(question).cost == pytest.approx(usd)
    assert not caplog.records


@pytest.mark.parametrize(("zones", "held"), [("ab", 8), ("abc", 6), ("abcde", 5)])
def test_the_loss_of_a_zone_is_borne(zones: str, held: int) -> None:
    """4 replicas must remain: in Z zones each may hold n − 4 of n, so Z·(n − 4) ≥ n."""
    found = solved(day([40.0], [replace(offer(1, 1.0), zone=z) for z in zones], Rules(survives=frozenset({"zone"}))))
    assert sum(found.held.values()) == held


def test_one_zone_alone_never_bears_its_loss() -> None:
    assert not solved(day([40.0], [replace(offer(1, 1.0), zone="a")], Rules(survives=frozenset({"zone"})))).found


@pytest.mark.parametrize(("price", "replicas", "usd"), [(0.05, 0, 1.2), (0.11, 2, 2.44), (0.3, 3, 3.0)])
def test_what_overflows_goes_to_an_api(price: float, replicas: int, usd: float) -> None:
    """24 req/s on replicas of 10 at $1: a third one carries 4 only, worth it above $1/4 = $0.25 per req/s; below $0.1 none is."""
    question = Problem((Traffic("w", (24.0,)),), (replica(), hosted(price)), (offer(1, 1.0),), Rules(overflow=True))
    found = solved(question)
    assert (sum(found.held.values()), found.cost) == (replicas, pytest.approx(usd))
    assert sum(f for c in found.pools for f in c.flows[0].values()) == pytest.approx(24.0)


def test_without_overflow_an_api_takes_all_or_nothing() -> None:
    question = Problem((Traffic("w", (24.0,)),), (replica(), hosted(0.11)), (offer(1, 1.0),))
    assert solved(question).cost == pytest.approx(24 * 0.11)


def test_an_api_takes_no_more_than_its_limit() -> None:
    question = Problem((Traffic("w", (24.0,)),), (replica(), hosted(0.01, 3.0)), (offer(1, 1.0),), Rules(overflow=True))
    assert 3.0 <= solved(question).cost <= 3.03


def test_quiet_hours_go_to_an_api() -> None:
    """One req/s at night costs $0.2 there, and a replica $1; 20 req/s in the day are two replicas."""
    question = Problem((Traffic("w", (20.0, 1.0)),), (replica(), hosted(0.2)), (offer(1, 1.0),), Rules(overflow=True), (State(), State()))
    found = solved(question)
    assert [sum(h.values()) for h in found.holdings] == [2, 0]
    assert found.cost == pytest.approx(2.2)


@pytest.mark.parametrize(("most", "held"), [(0, {0: 4}), (2, {0: 3, 1: 1}), (8, {1: 4})])
def test_a_limit_on_changes(most: int, held: Mapping[int, int]) -> None:
    """4 held today at $2, as good ones at $1: one is returned and one added for every two changes."""
    offers = [replace(offer(1, 2.0), now=4), offer(1, 1.0, "A")]
    assert solved(day([40.0], offers, Rules(changes=Changes(most)))).held == held


@pytest.mark.parametrize(("each", "held"), [(0.4, {1: 4}), (0.6, {0: 4})])
def test_a_change_pays_if_it_costs_less_than_it_saves(each: float, held: Mapping[int, int]) -> None:
    """One change saves $1 an hour, and takes two GPUs' switching."""
    offers = [replace(offer(1, 2.0), now=4), offer(1, 1.0, "A")]
    found = solved(day([40.0], offers, Rules(changes=Changes(usd_per_gpu=each))))
    assert found.held == held
    assert found.cost == pytest.approx(8.0 if held == {0: 4} else 4 + 8 * each)


@pytest.mark.parametrize(("least", "held"), [(0, {1: 4}), (1, {0: 1, 1: 3}), (4, {0: 4})])
def test_what_is_contracted_is_held_and_serves(least: int, held: Mapping[int, int]) -> None:
    """Of 4 held at $2 so many are contracted: they are paid anyway, so they serve, and ones at $1 do the rest."""
    offers = [replace(offer(1, 2.0), now=4, least=least), offer(1, 1.0, "A")]
    assert solved(day([40.0], offers, Rules(changes=Changes()))).held == held


def test_what_is_held_elsewhere_is_returned() -> None:
    """One location: 2 at B, where nothing else is, and 40 req/s need 4. Staying at B takes 2 more at $3; going to A 4 for $1, and 6 changes."""
    offers = [replace(offer(1, 3.0), location="B", now=2), replace(offer(1, 1.0), location="A")]
    for most, usd in ((None, 4.0), (6, 4.0), (5, 12.0)):
        question = day([40.0], offers, Rules(max_locations=1, changes=Changes(most)))
        assert min(solved(section.problem).cost for section in sections(question)) == usd


# ---- the rows as text


def tiny() -> Problem:
    """Two scenarios; a replica on demand, committed or on spot in two zones, or an API."""
    offers = (
        replace(offer(2, 2.0), zone="a", now=1),
        replace(offer(2, 1.5), zone="b", committed=True),
        replace(offer(4, 1.0), zone="b", spot=True, available=2),
    )
    rules = Rules(overflow=True, most_spot=0.5, survives=frozenset({"instance", "zone", "spot"}), risk=Risk(0.5, 9.0), changes=Changes(2, 0.25))
    states = (State(probability=0.25, case=0), State(probability=0.75, case=1))
    return Problem((Traffic("w", (30.0, 20.0)),), (replica((0, 1, 2)), hosted(0.2, 5.0)), offers, rules, states)


ROWS: dict[str, Callable[..., None]] = {
    "losses": losses.define,
    "commitments": lambda m, question, _: commitments.define(m, question),
    "changes": lambda m, question, _: changes.define(m, question),
    "risk": risk.define,
    "hosted": capacity.define,
    "minimums": lambda m, question, every: policy.define(m, replace(question, offers=tuple(replace(o, minimum=3) for o in question.offers)), every),
}


@pytest.mark.parametrize("family", ROWS)
def test_rows_are_as_stored(family: str, tmp_path: Path) -> None:
    """UPDATE_LP=1 stores them anew."""
    text, stored = written(tiny(), ROWS[family], tmp_path / "rows.lp"), LP_FILES / f"{family}.lp"
    if os.environ.get("UPDATE_LP"):
        stored.write_text(text)
    assert text == stored.read_text()


# ---- by enumeration


def placed(counts: Sequence[tuple[int, int]], size: int, whole: bool) -> int:
    """Fewest instances of a size for (GPUs, replicas), put there one by one, large ones first."""
    if not whole:
        return sum(g * n for g, n in counts)
    free: list[int] = []
    spanning = 0
    for g in sorted((g for g, n in counts for _ in range(n)), reverse=True):
        if g > size:
            spanning += -(-g // size)
            continue
        i = next((i for i, room in enumerate(free) if room >= g), None)
        if i is None:
            free.append(size - g)
        else:
            free[i] -= g
    return len(free) + spanning


def able(question: Problem, c: int, n: Mapping[int, int]) -> float:
    """Replicas' worth of traffic that a deployment with so many replicas on each offer may carry, whatever is lost."""
    rules, offers, gpus, total = question.rules, question.offers, question.columns[c].gpus, sum(n.values())
    spot = sum(k for o, k in n.items() if offers[o].spot)
    if rules.most_spot is not None and spot > rules.most_spot * total + 1e-9:
        return -1.0
    lost = list[int]()
    if "instance" in rules.survives:
        lost += [min(k, max(1, (offers[o].fails or offers[o].gpus) // gpus)) for o, k in n.items()]
    if "zone" in rules.survives:
        lost += [sum(k for o, k in n.items() if (offers[o].location, offers[o].zone) == z) for z in {(offers[o].location, offers[o].zone) for o in n}]
    if "spot" in rules.survives and any(offers[o].spot for o in question.columns[c].offers):  # where none is sold nothing is taken back
        lost.append(spot)
    room = rules.max_slo_load * (total - rules.spare_replicas)
    return min(room, rules.load_after_loss * (total - max(lost))) if lost else room


def splits(question: Problem, c: int, most: int) -> Iterator[dict[int, int]]:
    for counts in itertools.product(range(most + 1), repeat=len(question.columns[c].offers)):
        yield {o: k for o, k in zip(question.columns[c].offers, counts, strict=True) if k}


def enumerated(question: Problem, most: int) -> float:
    """The least cost in one state; each candidate serves one workload."""
    rules, columns = question.rules, question.columns
    own = [c for c, x in enumerate(columns) if not x.is_hosted]
    best = inf
    for n in itertools.product(*(list(splits(question, c, most)) for c in own)):
        used = [c for c, row in zip(own, n, strict=True) if row]
        of = [next(iter(columns[c].tiers)) for c in used]
        if rules.pools_per_workload == 1 and len(set(of)) < len(of):
            continue
        room = {c: able(question, c, row) for c, row in zip(own, n, strict=True) if row}
        if any(x < 0 for x in room.values()):
            continue
        api = 0.0
        for w, demand in enumerate(question.demands):
            left = demand.rate - sum(x * columns[c].tiers[w][0].capacity for c, x in room.items() if w in columns[c].tiers)
            if left > 1e-9 and rules.pools_per_workload == 1 and not rules.overflow:
                left = demand.rate if w not in of else inf  # an API is the only deployment, or none
            for c in sorted((c for c in columns if w in c.usd_per_unit), key=lambda c: c.usd_per_unit[w]):
                here = min(left, c.most.get(w, inf)) if left > 1e-9 and left < inf else 0.0
                api, left = api + here * c.usd_per_unit[w], left - here
            api = api if left <= 1e-9 else inf
        if api == inf:
            continue
        fewest = [placed([(columns[c].gpus, row.get(o, 0)) for c, row in zip(own, n, strict=True)], x.gpus, x.whole) for o, x in enumerate(question.offers)]
        for held in itertools.product(*(range(max(f, x.least), max(f, x.now) + 1) for f, x in zip(fewest, question.offers, strict=True))):
            moves = sum(abs(i - x.now) for i, x in zip(held, question.offers, strict=True))
            if rules.changes and rules.changes.most is not None and moves > rules.changes.most:
                continue
            each = rules.changes.usd_per_gpu if rules.changes else 0.0
            moved = each * sum(x.gpus * abs(i - x.now) for i, x in zip(held, question.offers, strict=True))
            if all(x.available is None or i <= x.available for i, x in zip(held, question.offers, strict=True)):
                best = min(best, api + moved + sum(i * x.usd_per_hour for i, x in zip(held, question.offers, strict=True)))
    return best


def one_state(rng: random.Random) -> Problem:
    """Candidates of one workload each, on instances of zones, spot and today's fleet, and APIs."""
    workloads = rng.choice([1, 1, 2])
    offers = []
    for zone in "ab"[: rng.choice([1, 2])] if workloads == 2 else "abc"[: rng.choice([1, 2, 3])]:
        size = rng.choice([1, 2, 4])
        offers.append(
            replace(
                offer(size, size * rng.uniform(1, 2), whole=size > 1), zone=zone, spot=rng.random() < 0.3, now=rng.choice([0, 0, 1, 2]),
                available=rng.choice([None, None, 3]), fails=rng.choice([0, 0, 2]) if size == 1 else 0,
            )
        )  # fmt: skip
    contracts = random.Random(repr(offers))
    offers = [replace(o, least=contracts.randint(0, o.now)) for o in offers]
    columns = [
        Column(f"c{i}", "m", "k", "A", g, {w: (Tier(1, rng.uniform(5, 15) * g),)}, {}, tuple(range(len(offers))), {w: 0.8})
        for i, (w, g) in enumerate((w, rng.choice([1, 2])) for w in range(workloads) for _ in range(2 if workloads == 1 and len(offers) < 3 else 1))
    ]
    for w in range(workloads):
        if rng.random() < 0.6:
            limit = {w: rng.uniform(2, 20)} if rng.random() < 0.5 else {}
            columns.append(Column(f"api{w}", "m", "k", "", 0, {}, {}, (), {w: 0.8}, {w: rng.uniform(0.05, 0.4)}, limit))
    rules = Rules(
        max_slo_load=rng.choice([1.0, 0.8]), spare_replicas=rng.choice([0, 0, 1]), pools_per_workload=rng.choice([1, 1, None]), mix=True,
        overflow=rng.random() < 0.6, survives=frozenset(k for k in ("instance", "zone", "spot") if rng.random() < 0.25),
        load_after_loss=rng.choice([1.0, 0.9]), most_spot=rng.choice([None, None, 0.5, 0.0]),
        changes=rng.choice([None, None, Changes(rng.randint(0, 4), rng.choice([0.0, 0.3])), Changes(None, rng.uniform(0, 2))]),
    )  # fmt: skip
    return Problem(tuple(Traffic(f"w{w}", (rng.uniform(5, 25),)) for w in range(workloads)), tuple(columns), tuple(offers), rules)


@pytest.mark.parametrize("part", range(5))
def test_equals_enumeration_in_one_state(part: int) -> None:
    """40 problems each; the bound of each is no more than its cost."""
    feasible = 0
    for seed in range(40 * part, 40 * part + 40):
        question = one_state(random.Random(seed))
        expected = enumerated(question, 5 if len(question.demands) == 1 and len(question.offers) < 3 else 4)
        found = solved(question)
        if (found.found and expected == inf) or found.cost < expected * (1 - 1e-6):  # more replicas than were enumerated
            assert max(n for c in found.pools for n in c.running[0].values()) > 4, seed
            continue
        assert (found.cost if found.found else inf) == pytest.approx(expected, rel=1e-6), seed
        feasible += expected < inf
        if found.found:
            assert min(lower_bounds(question, list(locations(question).values()))) <= found.cost * (1 + 1e-6), seed
    assert feasible >= 15


def over_states(rng: random.Random) -> Problem:
    """One or two scenarios of two or three hours; one of two candidates serves, on GPUs bought in every way."""
    cases, hours = rng.choice([1, 2]), rng.choice([2, 3])
    likely = [1.0] if cases == 1 else [p := rng.uniform(0.2, 0.8), 1 - p]
    offers = [offer(1, 1.0, whole=False), replace(offer(1, rng.uniform(0.4, 0.9), whole=False), committed=True)]
    if rng.random() < 0.6:
        offers.append(replace(offer(1, rng.uniform(0.3, 0.8), whole=False), spot=True))
    columns = tuple(replica(range(len(offers)), rng.uniform(8, 12), name=f"c{i}") for i in range(rng.choice([1, 2])))
    columns += (hosted(rng.uniform(0.05, 0.2), rng.uniform(2, 9)),) if rng.random() < 0.4 else ()
    rules = Rules(
        overflow=True, most_spot=rng.choice([None, 0.5]), survives=frozenset({"spot"} if rng.random() < 0.2 else ()),
        risk=rng.choice([None, Risk(rng.choice([0.5, 0.7, 1.0]), rng.uniform(1, 4))]) if cases > 1 else None,
    )  # fmt: skip
    states = tuple(State(probability=likely[s], case=s, times=rng.choice([1.0, 3.0])) for s in range(cases) for _ in range(hours))
    return Problem((Traffic("w", tuple(rng.uniform(1, 30) for _ in states)),), columns, tuple(offers), rules, states)


def enumerated_over_states(question: Problem, most: int) -> float:
    """The least cost: for each candidate and commitment each state is a question of its own, and least in each is least in all."""
    rules, best = question.rules, inf
    apis = [c for c in question.columns if c.is_hosted]
    for c in (c for c, x in enumerate(question.columns) if not x.is_hosted):
        for committed in range(most + 1):
            costs = [_in_state(question, c, committed, i, apis, most) for i in range(len(question.states))]
            if max(costs) == inf:
                continue
            mean: dict[int, float] = {}
            for s in {x.case for x in question.states}:
                mine = [(x.times, cost) for x, cost in zip(question.states, costs, strict=True) if x.case == s]
                mean[s] = sum(t * cost for t, cost in mine) / sum(t for t, _ in mine)
            if rules.risk and _cvar(mean, question, rules.risk.level) > rules.risk.most + 1e-9:
                continue
            best = min(best, sum(x.weight * cost for x, cost in zip(question.states, costs, strict=True)))
    return best


def _in_state(question: Problem, c: int, committed: int, i: int, apis: Sequence[Column], most: int) -> float:
    prices, rate, best = [o.usd_per_hour for o in question.offers], question.demands[0].rates[i], inf
    for n in splits(question, c, most):
        room = able(question, c, n)
        if n.get(1, 0) > committed or room < 0:
            continue
        left, usd = rate - room * question.columns[c].tiers[0][0].capacity, prices[1] * committed
        for api in apis:
            here = min(max(left, 0.0), api.most.get(0, inf))
            left, usd = left - here, usd + here * api.usd_per_unit[0]
        if left <= 1e-9:
            best = min(best, usd + sum(prices[o] * k for o, k in n.items() if o != 1))
    return best


def _cvar(mean: Mapping[int, float], question: Problem, level: float) -> float:
    """Mean of the dearest share 1 − level, taken scenario by scenario."""
    if level >= 1:
        return max(mean.values())
    likely = {x.case: x.probability for x in question.states}
    left, total = 1 - level, 0.0
    for s in sorted(mean, key=lambda s: -mean[s]):
        here = min(left, likely[s])
        left, total = left - here, total + here * mean[s]
    return total / (1 - level)


@pytest.mark.parametrize("part", range(4))
def test_equals_enumeration_over_states(part: int) -> None:
    feasible = 0
    for seed in range(25 * part, 25 * part + 25):
        question = over_states(random.Random(seed))
        need = max(ceil(r / 8) for r in question.demands[0].rates)
        expected, found = enumerated_over_states(question, need), solved(question)
        assert (found.cost if found.found else inf) == pytest.approx(expected, rel=1e-6), seed
        feasible += expected < inf
    assert feasible >= 10
