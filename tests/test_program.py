"""Facts about the program: optima to solve by hand, enumeration of random problems, its rows as text, and what must hold for all."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import pyomo.environ
import pytest
from brute_force import enumerated, fits
from brute_force import rules as ruled
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pyomo.core.base import Objective
from pyomo.core.base.PyomoModel import ConcreteModel
from pyomo.core.util import quicksum

from planner.program import capacity, demand, objective, packing, policy, quality, starts, use, variables, waiting
from planner.program.model import build
from planner.program.optimum import cheapest, least_relaxation, relaxed_cost
from planner.program.pools import counts_pools, pools
from planner.program.problem import Column, Problem, Purchasable, Solution, Tier, Traffic, Waiting, circle
from planner.program.single import one_pool
from planner.program.solver import Outcome, SolverOptions

EXACT = SolverOptions(gap=0)
LP_FILES = Path(__file__).parent / "lp"


def column(
    name: str, rates: dict[int, float], offers: tuple[int, ...] = (0,), gpus: int = 1, gpu: str = "A", shared: dict[int, float] | None = None, **more: Any
) -> Column:
    return Column(
        name, more.pop("model", name), more.pop("checkpoint", name), gpu, gpus, {w: (Tier(1, r),) for w, r in rates.items()}, shared or {}, offers, **more
    )


def offer(gpus: int, usd: float, gpu: str = "A", location: str = "here", whole: bool = True) -> Purchasable:
    return Purchasable(location, gpu, gpus, usd, whole, kw=gpus * {"A": 0.7, "B": 1.2, "C": 0.3}[gpu])


def problem(rates: list[float], columns: list[Column], offers: list[Purchasable], **rules: Any) -> Problem:
    return Problem(tuple(Traffic(f"w{w}", (r,)) for w, r in enumerate(rates)), tuple(columns), tuple(offers), ruled(**rules))


def solve(question: Problem) -> Solution:
    found = cheapest(question, EXACT)
    assert found.status in ("optimal", "infeasible")
    return found


def cost(question: Problem) -> float:
    return solve(question).cost


# ---- by hand ----


@pytest.mark.parametrize(
    ("rate", "load", "spare", "replicas"), [(10, 1, 0, 2), (10.1, 1, 0, 3), (10, 0.8, 0, 3), (10, 1, 1, 3), (0.1, 1, 2, 3), (8, 0.8, 0, 2)]
)
def test_replicas_of_one_candidate(rate: float, load: float, spare: int, replicas: int) -> None:
    found = solve(problem([rate], [column("c", {0: 5})], [offer(1, 2)], max_slo_load=load, spare_replicas=spare))
    assert found.cost == pytest.approx(2 * replicas)
    assert found.held == {0: replicas}
    assert found.pools[0].replicas == {0: replicas} and found.pools[0].traffic == pytest.approx({0: rate})


def test_one_pool_is_dearer_than_two_of_two_checkpoints() -> None:
    # 11 req/s: big ones carry 10 at $10, small ones 1 at $1.5. One pool: 8 × $1.5 + 3 more = 11 × $1.5 = $16.5; a mix: $10 + $1.5.
    columns, offers = [column("big", {0: 10}, (0,)), column("small", {0: 1}, (1,), gpu="B")], [offer(1, 10), offer(1, 1.5, "B")]
    assert cost(problem([11], columns, offers)) == pytest.approx(16.5)
    assert cost(problem([11], columns, offers, pools_per_workload=2)) == pytest.approx(16.5)  # two checkpoints: a mix
    assert cost(problem([11], columns, offers, pools_per_workload=2, mix=True)) == pytest.approx(11.5)
    assert cost(problem([11], columns, offers, pools_per_workload=None, mix=True)) == pytest.approx(11.5)
    same = [replace(c, checkpoint="k") for c in columns]
    assert cost(problem([11], same, offers, pools_per_workload=2)) == pytest.approx(11.5)
    assert cost(problem([11], columns, offers, pools_per_workload=None, mix=True, max_gpu_types=1)) == pytest.approx(16.5)
    assert cost(problem([11], columns, offers, pools_per_workload=None, mix=True, max_models=1)) == pytest.approx(16.5)


def test_two_workloads_share_a_replica_at_the_shared_rate() -> None:
    # 4 of 10 and 4 of 10: apart two replicas; together 4/9 + 4/9 < 1; at a shared rate of 7 they no longer fit on one.
    apart = column("c", {0: 10, 1: 10})
    assert cost(problem([4, 4], [apart], [offer(1, 3)])) == pytest.approx(6)
    assert cost(problem([4, 4], [replace(apart, shared={0: 9, 1: 9})], [offer(1, 3)])) == pytest.approx(3)
    assert cost(problem([4, 4], [replace(apart, shared={0: 7, 1: 7})], [offer(1, 3)])) == pytest.approx(6)


def test_a_larger_pool_carries_more_per_replica() -> None:
    tiers = {0: (Tier(1, 4.0), Tier(3, 5.0))}
    pooled = Column("c", "c", "c", "A", 1, tiers, {}, (0,))
    assert cost(problem([15], [pooled], [offer(1, 1)])) == pytest.approx(3)  # 3 × 5
    assert cost(problem([8], [pooled], [offer(1, 1)])) == pytest.approx(2)  # 2 × 4: three replicas are not needed
    assert cost(problem([15], [pooled], [offer(1, 1)], spare_replicas=1)) == pytest.approx(4)


def test_mean_quality_is_a_mix_of_good_and_bad() -> None:
    # 10 req/s, mean 0.75 of 0.9 and 0.6: half and half, 5 on each: 1 × $10 + 1 × $1; only good ones: 2 × $10.
    columns = [column("good", {0: 5}, (0,), quality={0: 0.9}), column("bad", {0: 5}, (1,), gpu="B", quality={0: 0.6})]
    question = problem([10], columns, [offer(1, 10), offer(1, 1, "B")], pools_per_workload=None, mix=True)

    def floor(q: float, **rules: Any) -> Problem:
        return replace(question, demands=(Traffic("w0", (10.0,), q),), rules=replace(question.rules, **rules))

    assert cost(floor(None)) == pytest.approx(2)
    assert cost(floor(0.75)) == pytest.approx(11)
    assert cost(floor(0.76)) == pytest.approx(20)  # a little over half needs a second good one, which then carries all
    assert cost(floor(0.75, pools_per_workload=1)) == pytest.approx(20)
    assert cost(floor(0.91)) == inf


@pytest.mark.parametrize(
    ("rate", "most", "rules", "traffic"),
    [
        (12.0, (1, 1), {}, (8.0, 4.0)),
        (9.0, (1, 1), {"max_slo_load": 0.75}, (6.0, 3.0)),
        (17.0, (2, 3), {"spare_replicas": 1}, (8.5, 8.5)),  # 1 and 2 in service
        (17.0, (2, 3), {"survives": frozenset({"instance"})}, (8.5, 8.5)),
    ],
)
def test_pools_of_one_checkpoint_share_by_their_room(rate: float, most: tuple[int, int], rules: dict[str, Any], traffic: tuple[float, float]) -> None:
    """A replica of the one kind carries 10, of the other 5; there are so few that both are needed, so any spread that fits costs the same."""
    offers = [replace(offer(1, 4), available=most[0]), replace(offer(1, 2, "B"), available=most[1])]
    columns = [column("a", {0: 10.0}, (0,), checkpoint="k"), column("b", {0: 5.0}, (1,), gpu="B", checkpoint="k")]
    found = solve(problem([rate], columns, offers, pools_per_workload=None, **rules))
    assert tuple(c.traffic[0] for c in found.pools) == pytest.approx(traffic)


def test_the_better_of_two_checkpoints_serves_what_it_can() -> None:
    offers = [replace(offer(1, 4), available=1), replace(offer(1, 2, "B"), available=1)]
    columns = [column("good", {0: 10.0}, (0,), quality={0: 0.9}), column("bad", {0: 5.0}, (1,), gpu="B", quality={0: 0.6})]
    found = solve(problem([12.0], columns, offers, pools_per_workload=2, mix=True))
    assert tuple(c.traffic[0] for c in found.pools) == pytest.approx((10.0, 2.0))


@pytest.mark.parametrize(
    ("rules", "usd"),
    [
        ({}, 4),
        ({"quota": {"A": 2}}, 6),
        ({"quota": {"A": 3}}, 6),
        ({"quota": {"A": 4}}, 4),
        ({"max_gpus": 3}, 6),
        ({"max_gpus": 1}, inf),
        ({"budget": 4}, 4),
        ({"budget": 3.9}, inf),
        ({"max_kw": 2.8}, 4),
        ({"max_kw": 2.7}, 6),  # two GPUs of type B draw 2.4 kW
        ({"max_kw": 2.3}, inf),
        ({"max_kw_at": {"there": 0.1}}, 4),
        ({"max_kw_at": {"here": 2.5}}, 6),
    ],
)
def test_quota_and_caps_count_gpus_held(rules: dict[str, Any], usd: float) -> None:
    # One replica of 1 GPU: an instance of 4 GPUs of type A at $4, or two GPUs of type B at $6.
    columns = [column("a", {0: 5}, (0,)), column("b", {0: 5}, (1,), gpu="B")]
    assert cost(problem([5], columns, [offer(4, 4), offer(2, 6, "B")], **rules)) == pytest.approx(usd)


def test_quota_of_zero_forbids() -> None:
    assert solve(problem([5], [column("a", {0: 5})], [offer(1, 1)], quota={"A": 0})).status == "infeasible"


def test_locations() -> None:
    columns = [column("a", {0: 5}, (0,)), column("b", {1: 5}, (1,)), column("ab", {0: 5, 1: 5}, (2,))]
    offers = [offer(1, 1, location="x"), offer(1, 1, location="y"), offer(1, 3, location="z")]
    assert cost(problem([5, 5], columns, offers)) == pytest.approx(2)
    assert cost(problem([5, 5], columns, offers, max_locations=2)) == pytest.approx(2)
    assert cost(problem([5, 5], columns, offers, max_locations=1)) == pytest.approx(6)


def test_a_workload_that_nothing_serves_is_infeasible() -> None:
    assert solve(problem([5, 1], [column("a", {0: 5})], [offer(1, 1)])).status == "infeasible"


def test_nothing_to_serve_with_is_infeasible() -> None:
    assert solve(problem([5], [column("a", {})], [offer(1, 1)])).status == "infeasible"
    assert solve(problem([5], [], [])).status == "infeasible"


@pytest.mark.parametrize("rate", [1e-3, 1e-6, 1e-7, 1e-9])
@pytest.mark.parametrize("rules", [{}, {"pools_per_workload": None, "mix": True}])
def test_a_rate_below_the_solvers_tolerance_is_served(rate: float, rules: dict[str, Any]) -> None:
    question = problem([rate, 5], [column("a", {0: 1}), column("b", {1: 5})], [offer(1, 1)], **rules)
    assert cost(question) == pytest.approx(2)


def test_ties_on_the_same_offers_go_to_fewer_pools_then_higher_quality() -> None:
    # 2 × $2 whether two of a, two of b or one of each.
    columns = [column("a", {0: 5}, quality={0: 0.5}), column("b", {0: 5}, quality={0: 0.6}), column("c", {0: 5}, quality={0: 0.4})]
    for order in itertools.permutations(columns):
        found = solve(problem([10], list(order), [offer(1, 2)], pools_per_workload=2, mix=True))
        assert found.cost == pytest.approx(4)
        assert [(order[p.pool.column].name, p.replicas) for p in found.pools] == [("b", {0: 2})]


@pytest.mark.parametrize(
    ("relax", "rules", "slack"),
    [
        ("budget", {"budget": 3}, 1),
        ("max_gpus", {"max_gpus": 1}, 1),
        ("quota", {"quota": {"A": 1}}, 1),
        ("max_kw", {"max_kw": 0.5}, 0.9),
        ("demand", {"max_gpus": 1}, 0.5),
    ],
)
def test_least_relaxation(relax: str, rules: dict[str, Any], slack: float) -> None:
    found = least_relaxation(problem([10], [column("a", {0: 5})], [offer(1, 2)], **rules), relax, EXACT)
    assert sum(found.slack.values()) == pytest.approx(slack)


# ---- packing against explicit placement ----


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6, 8])
def test_packing_equals_explicit_placement(size: int) -> None:
    # Fixed numbers of replicas of 1, 2, 4 and 8 GPUs on instances of one size: the fewest instances on which they can be put.
    for counts in itertools.product(range(4), range(3), range(3), range(2)):
        replicas = tuple((g, (0,)) for g, n in zip((8, 4, 2, 1), reversed(counts), strict=True) for _ in range(n))
        if not replicas or len(replicas) > 6:
            continue
        offers = [offer(size, 1.0)]
        columns = [column(f"g{g}", {w: 1}, gpus=g) for w, g in enumerate(g for g, n in zip((1, 2, 4, 8), counts, strict=True) if n)]
        question = problem([float(n) for n in counts if n], columns, offers)
        least = next(i for i in itertools.count() if fits(offers, replicas, (i,)))
        assert cost(question) == pytest.approx(least), (size, counts)


def test_packing_on_two_instance_sizes() -> None:
    # 3 × 4 GPUs and 2 × 1: one 8-GPU instance at $10 and one at $10, or 8 + 4 at $6 + …: 8 GPUs carry two of size 4, the third and the small ones need more.
    columns = [column("four", {0: 1}, (0, 1), 4), column("one", {1: 1}, (0, 1), 1)]
    assert cost(problem([3, 2], columns, [offer(8, 10), offer(4, 6)])) == pytest.approx(20)  # 16 GPUs in two large ones
    assert cost(problem([3, 2], columns, [offer(8, 10), offer(4, 4.9)])) == pytest.approx(4 * 4.9)


def test_single_gpus_are_counted_one_by_one() -> None:
    assert cost(problem([3], [column("two", {0: 1}, gpus=2)], [offer(1, 1.5, whole=False)])) == pytest.approx(9)


# ---- enumeration of random problems ----


def drawn(rng: random.Random) -> Problem:
    """3 to 6 candidates, 1 to 3 workloads, and every rule now and then."""
    workloads = rng.choice([1, 1, 2, 2, 3])
    offers = []
    for gpu in "AB"[: rng.choice([1, 2, 2])]:
        price = rng.uniform(1, 4)
        for size in rng.sample([1, 2, 4, 8], rng.choice([1, 2])):
            offers.append(offer(size, price * size * rng.uniform(0.8, 1.1), gpu, rng.choice("xy"), size > 1 or rng.random() < 0.5))
    most, mean = rng.choice([1, 1, 2, None]), rng.random() < 0.4
    demands = tuple(Traffic(f"w{w}", (rng.uniform(2, 20),), rng.uniform(0.4, 0.7) if mean and rng.random() < 0.7 else None) for w in range(workloads))
    columns = tuple(_drawn_column(rng, c, offers, workloads, only=most == 1) for c in range(rng.randint(3, 6 if workloads < 3 else 4)))
    rules = ruled(
        max_slo_load=rng.choice([1.0, 1.0, 0.8]),
        spare_replicas=rng.choice([0, 0, 0, 1]),
        pools_per_workload=most,
        mix=rng.random() < 0.5,
        max_models=rng.choice([None, None, 1, 2]),
        max_gpu_types=rng.choice([None, None, 1]),
        max_locations=rng.choice([None, None, 1]),
        max_gpus=rng.choice([None, None, 8, 16]),
        budget=rng.choice([None, None, rng.uniform(5, 40)]),
        quota={g: rng.choice([2, 4, 8, 12]) for g in sorted({o.gpu for o in offers}) if rng.random() < 0.3},
        max_kw=rng.choice([None, None, 5.0, 9.0]),
        max_kw_at={"x": rng.choice([2.0, 6.0])} if rng.random() < 0.2 else {},
    )
    return Problem(demands, columns, tuple(offers), rules)


def _drawn_column(rng: random.Random, c: int, offers: list[Purchasable], workloads: int, only: bool) -> Column:
    gpu, gpus = rng.choice(sorted({o.gpu for o in offers})), rng.choice([1, 1, 2, 4, 8])
    fit = [o for o, x in enumerate(offers) if x.gpu == gpu]
    hosts = tuple(o for o in fit if rng.random() < 0.9) or tuple(fit)
    serves = [w for w in range(workloads) if rng.random() < 0.8] or [rng.randrange(workloads)]
    rates = {w: rng.uniform(2, 12) * gpus**0.9 for w in serves}
    tiers = {w: (Tier(1, r), *([Tier(2, r * 1.15)] if rng.random() < 0.3 else [])) for w, r in rates.items()}
    if only and rng.random() < 0.2:
        tiers = {w: (Tier(rng.choice([1, 2]), r),) for w, r in rates.items()}
    shared = {w: r * 0.8 for w, r in rates.items()} if rng.random() < 0.5 and len(serves) > 1 else {}
    if shared and rng.random() < 0.3:
        tiers = {}
    quality = {w: rng.uniform(0.2, 0.9) for w in serves}
    return Column(f"c{c}", f"m{c % 3}", f"k{c % 4}", gpu, gpus, tiers, shared, hosts, quality)


@pytest.mark.parametrize("part", range(12))
def test_equals_enumeration(part: int) -> None:
    feasible = 0
    for seed, question, expected in enumerated(drawn, 1000 * part, 20, most_cases=20_000):
        assert cost(question) == pytest.approx(expected, rel=1e-6), seed
        feasible += expected < inf
    assert feasible >= 10


# ---- the rows as text ----


def tiny() -> Problem:
    """Two workloads, three candidates of which one may be shared and pools from two replicas, three instance sizes, two locations."""
    columns = (
        Column("a", "m", "k", "A", 1, {0: (Tier(1, 4.0), Tier(2, 5.0))}, {0: 3.0, 1: 2.0}, (0, 1), {0: 0.8, 1: 0.7}),
        Column("b", "n", "l", "B", 4, {0: (Tier(1, 20.0),)}, {}, (2,), {0: 0.5}),
        Column("c", "m", "k", "A", 2, {1: (Tier(1, 6.0),)}, {}, (1,), {1: 0.7}),
    )
    offers = (offer(1, 2.0, location="x"), offer(4, 7.0, location="x"), offer(8, 20.0, "B", "y"))
    rules = ruled(
            max_slo_load=0.9, spare_replicas=1, pools_per_workload=2, max_models=1, max_gpu_types=1, max_locations=1, max_gpus=16, budget=100.0,
            quota={"A": 8}, max_kw=12.0, max_kw_at={"y": 9.0},
        )  # fmt: skip
    return Problem((Traffic("w0", (10.0,), 0.6), Traffic("w1", (6.0,))), columns, offers, rules)


def tiny_day() -> Problem:
    """Two hours: one workload with two candidates, one of known need, and work that waits beside either or alone; starts count."""
    columns = (
        Column("a", "m", "k", "A", 1, {0: (Tier(1, 4.0), Tier(2, 5.0))}, {0: 3.0}, (0,)),
        Column("b", "n", "l", "A", 2, {0: (Tier(1, 9.0),)}, {0: 8.0}, (0, 1)),
        Column("c", "n", "l", "A", 1, {1: (Tier(1, 4.0), Tier(2, 5.0))}, {1: 3.0}, (0,)),
        Column("d", "m", "k", "A", 1, {}, {}, (1,)),
    )
    later = (Waiting(((1,),), (7200.0,), {0: 3600.0, 2: 1800.0}, {3: 7200.0}),)
    rules = ruled(spare_replicas=1, max_models=1, max_gpus=16, floor_replicas=2, lead_hours=0.5, min_up=2)
    return Problem((Traffic("w0", (10.0, 0.0)), Traffic("w1", (6.0, 13.0))), columns, (offer(1, 2.0), offer(4, 7.0)), rules, circle(2), later)


def written(question: Problem, define: Callable[[Any, Problem, Any], None], path: Path, dummy: bool = True) -> str:
    """The LP text of one family of rows over all variables."""
    m = ConcreteModel()
    found = pools(question)
    variables.declare(m, question, found, counted=counts_pools(question, found), relax=None)
    define(m, question, found)
    if dummy:
        m.objective = Objective(expr=quicksum(m.x.values()))
    m.write(str(path), format="lp", io_options={"symbolic_solver_labels": True})
    return path.read_text()


FAMILIES: dict[str, Callable[[Any, Problem, Any], None]] = {
    "demand": demand.define,
    "capacity": capacity.define,
    "packing": packing.define,
    "quality": quality.define,
    "use": use.define,
    "policy": policy.define,
    "starts": starts.define,
    "waiting": waiting.define,
    "objective": lambda m, question, found: objective.define(m, question, found, None),
}


OVER_STATES = ("capacity", "use", "policy", "objective", "starts", "waiting")


@pytest.mark.parametrize(("family", "over"), [*((f, "") for f in FAMILIES if f not in ("starts", "waiting")), *((f, "_day") for f in OVER_STATES)])
def test_rows_are_as_stored(family: str, over: str, tmp_path: Path) -> None:
    """UPDATE_LP=1 stores them anew."""
    question, stored = tiny_day() if over else tiny(), LP_FILES / f"{family}{over}.lp"
    text = written(question, FAMILIES[family], tmp_path / "rows.lp", dummy=family != "objective")
    if os.environ.get("UPDATE_LP"):
        LP_FILES.mkdir(exist_ok=True)
        stored.write_text(text)
    assert text == stored.read_text()


def test_size_of_the_program() -> None:
    """A changed number of rows or columns is a changed formulation."""
    m = build(tiny()).program
    assert {v.name: len(v) for v in m.component_objects(pyomo.environ.Var)} == {
        **{"x": 6, "n": 8, "I": 3, "s": 0, "y": 5, "u": 0, "z": 2, "v": 3, "slack": 0},
        **{"used_model": 2, "used_gpu_type": 2, "used_location": 2},
    }


# ---- what must hold for all ----

whole_numbers = st.integers(1, 20).map(float)


@st.composite
def small(draw: st.DrawFn) -> Problem:
    """Whole-number rates and prices, so that ties and exact fits are common."""
    gpus = draw(st.lists(st.sampled_from("ABC"), min_size=1, max_size=2, unique=True))
    sizes, places = st.sampled_from([1, 2, 4, 8]), st.sampled_from("xy")
    offers = [offer(draw(sizes), draw(whole_numbers), g, draw(places)) for g in gpus for _ in range(draw(st.integers(1, 2)))]
    workloads = draw(st.integers(1, 2))
    columns = []
    for c in range(draw(st.integers(1, 4))):
        gpu = draw(st.sampled_from(gpus))
        rates = {w: draw(whole_numbers) for w in range(workloads) if draw(st.integers(0, 4))}
        shared = {w: r * 0.75 for w, r in rates.items()} if len(rates) > 1 and draw(st.booleans()) else {}
        quality = {w: draw(st.integers(0, 10)) / 10 for w in rates}
        hosts = tuple(o for o, x in enumerate(offers) if x.gpu == gpu)
        columns.append(column(f"c{c}", rates, hosts, draw(sizes), gpu, shared, quality=quality, checkpoint=f"k{c % 2}"))
    assume(any(c.tiers for c in columns))
    rules = ruled(
        max_slo_load=draw(st.sampled_from([1.0, 0.7])),
        spare_replicas=draw(st.integers(0, 1)),
        pools_per_workload=draw(st.sampled_from([1, 2, None])),
        mix=draw(st.booleans()),
        max_gpu_types=draw(st.sampled_from([None, 1])),
        max_locations=draw(st.sampled_from([None, 1])),
        budget=draw(st.sampled_from([None, 60.0])),
        quota={gpus[0]: draw(st.sampled_from([4, 16]))} if draw(st.booleans()) else {},
        max_kw=draw(st.sampled_from([None, 12.0])),
    )
    mean = draw(st.sampled_from([None, None, 0.5]))
    demands = tuple(Traffic(f"w{w}", (draw(whole_numbers),), mean) for w in range(workloads))
    return Problem(demands, tuple(columns), tuple(offers), rules)


often = settings(max_examples=50, deadline=None, derandomize=True)


def not_above(low: float, high: float) -> bool:
    return low <= high * (1 + 1e-6) or high == inf


@often
@given(small(), st.integers(0, 1), whole_numbers)
def test_more_demand_never_costs_less(question: Problem, w: int, more: float) -> None:
    grown = tuple(replace(d, rates=(d.rate + more,)) if i == w else d for i, d in enumerate(question.demands))
    assert not_above(cost(question), cost(replace(question, demands=grown)))


@often
@given(small(), st.integers(0, 3), st.sampled_from([0.3, 0.5, 0.9]))
def test_less_capacity_never_costs_less(question: Problem, c: int, factor: float) -> None:
    def slower(k: Column) -> Column:
        tiers = {w: tuple(Tier(t.replicas, t.capacity * factor) for t in row) for w, row in k.tiers.items()}
        return replace(k, tiers=tiers, shared={w: r * factor for w, r in k.shared.items()})

    columns = tuple(slower(k) if i == c else k for i, k in enumerate(question.columns))
    assert not_above(cost(question), cost(replace(question, columns=columns)))


@often
@given(small(), st.sampled_from([1, 4, 100]))
def test_more_quota_and_budget_never_cost_more(question: Problem, more: int) -> None:
    r = question.rules
    wider = replace(r, caps=tuple(replace(c, most=c.most + more) for c in r.caps))
    assert not_above(cost(replace(question, rules=wider)), cost(question))


@often
@given(small())
def test_fewer_rules_never_cost_more(question: Problem) -> None:
    r = question.rules
    looser = replace(r, pools_per_workload=None, mix=True, max_gpu_types=None, max_locations=None, spare_replicas=0, max_slo_load=1.0)
    assert not_above(cost(replace(question, rules=looser)), cost(question))


@often
@given(small(), st.sampled_from([0.01, 0.37, 3.0, 250.0]))
def test_prices_scale_the_cost(question: Problem, factor: float) -> None:
    question = replace(question, rules=question.rules.without("budget"))
    scaled = replace(question, offers=tuple(replace(o, usd_per_hour=o.usd_per_hour * factor) for o in question.offers))
    assert cost(scaled) == pytest.approx(cost(question) * factor, rel=1e-6)


@often
@given(small())
def test_columns_that_are_not_used_do_not_matter(question: Problem) -> None:
    found = solve(question)
    assume(found.found)
    used = {pool.pool.column for pool in found.pools}
    fewer = replace(question, columns=tuple(c for i, c in enumerate(question.columns) if i in used))
    assert cost(fewer) == pytest.approx(found.cost, rel=1e-6)


@often
@given(small())
def test_tidying_keeps_the_cost(question: Problem) -> None:
    plain, break_ties = cheapest(question, EXACT, break_ties=False), cheapest(question, EXACT)
    assert (plain.status, plain.cost) == (break_ties.status, pytest.approx(break_ties.cost, rel=1e-6))
    assert break_ties.bound <= break_ties.cost and break_ties.gap == pytest.approx(0, abs=1e-9)


def test_what_the_solver_finds_is_never_dearer_than_one_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted without it: at most what enumeration finds, and the answer where the solver errs."""
    seen = 0
    for seed in range(400):
        question = drawn(random.Random(seed))
        counted = one_pool(question)
        if counted is None:
            continue
        best = cost(question)
        assert counted.cost >= best * (1 - 1e-9) and counted.found, seed
        seen += counted.cost <= best * (1 + 1e-9)
        if seen == 20:
            break
    assert seen == 20  # it is often the best there is
    easy = problem([9.0], [column("a", {0: 2.0})], [offer(1, 3.0)])
    alone = one_pool(easy)
    assert alone is not None and alone.cost == 15.0
    for status, bound in (("infeasible", inf), ("unknown", 0.0)):
        monkeypatch.setattr("planner.program.optimum.optimise", lambda *_, s=status, b=bound: Outcome(s, inf, b, inf, 1, 1))
        found = cheapest(easy, EXACT)
        assert (found.status, found.cost, found.bound) == ("feasible", 15.0, 0.0)


def test_what_one_more_gpu_of_a_quota_saves_is_told_by_its_name() -> None:
    """In fractions of replicas: a second GPU of the type that is short replaces a dearer one, $3 by $1."""

    def relaxed(gpus: int) -> tuple[float, dict[str, float]]:
        columns = [column("a", {0: 5}, (0,)), column("b", {0: 5}, (1,), gpu="B")]
        return relaxed_cost(problem([10], columns, [offer(1, 1), offer(1, 3, "B")], pools_per_workload=None, mix=True, quota={"A": gpus}))

    (short, duals), (enough, _) = relaxed(1), relaxed(2)
    assert (short, enough) == (pytest.approx(4), pytest.approx(2))
    assert duals == {"quota:A": pytest.approx(enough - short)}
