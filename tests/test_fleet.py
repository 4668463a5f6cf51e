"""From today's fleet: what is kept, added and returned, what changes cost, contracts that have not ended, steps, and that pruning keeps the optimum."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import pytest
from conftest import checked
from test_candidates import cost, tiny

from planner import Plan, Scenario, solve
from planner.check.check import check_plan
from planner.errors import PlannerError
from planner.planning.fleet import minimised, path
from planner.planning.infeasible import Infeasible
from planner.report.page import page_sections
from planner.search.survey_cache import SurveyCache

Run = Callable[..., tuple[int, str, str]]
CHEAP, DEAR = {"provider": "cheap", "instance_type": "a"}, {"provider": "dear", "region": "north", "instance_type": "b"}
OFFERS = [{**kind, "gpu": "GPU-80", "usd_per_hour": usd, "date": "2026-03-01"} for kind, usd in ((CHEAP, 0.5), (DEAR, 0.8))]


def asked(*held: dict[str, Any], qps: float = 60, policy: dict[str, Any] | None = None, **supply: Any) -> Scenario:
    """60 req/s take 3 GPUs of type GPU-80, on offer at $0.5 and at another location at $0.8."""
    supply = {"current": held, "offers": OFFERS, "exclude_providers": ["cloud"], **supply}
    return Scenario.model_validate({"workload": [{"qps": qps, "min_quality": 0.5}], "supply": supply, "policy": policy or {}})


def planned(scenario: Scenario, compare: bool = False) -> Plan:
    return checked(solve(scenario, tiny(), compare=compare), tiny())


def moves(plan: Plan) -> dict[str, tuple[int, int]]:
    """From how many to how many of each kind of instance."""
    assert plan.changes is not None
    return {x.instance_type: (x.today, x.planned) for x in plan.changes.lines}


def refused(scenario: Scenario) -> str:
    with pytest.raises(PlannerError) as error:
        solve(scenario, tiny(), compare=False)
    return str(error.value)


# ---- by hand


def test_without_a_limit_the_plan_is_the_cheapest_and_says_what_changes() -> None:
    plan = planned(asked({**DEAR, "instances": 3}), compare=True)
    assert moves(plan) == {"b": (3, 0), "a": (0, 3)}
    assert plan.cost.usd_per_hour == solve(asked(), tiny(), compare=False).cost.usd_per_hour == 1.5
    assert plan.changes is not None and plan.changes.today_usd_per_hour == pytest.approx(2.4) and plan.changes.suffices


@pytest.mark.parametrize(("most", "usd"), [(0, 2.4), (5, 2.4), (6, 1.5)])
def test_a_limit_on_changes(most: int, usd: float) -> None:
    """3 at $0.8 suffice. All else is at another location, so going there returns 3 and adds 3: six changes, or none."""
    plan = planned(asked({**DEAR, "instances": 3}, max_changes=most), compare=True)
    assert plan.cost.usd_per_hour == pytest.approx(usd)
    assert plan.changes is not None and plan.changes.free_usd_per_hour == pytest.approx(1.5) and plan.changes.free_changes == 6


@pytest.mark.parametrize(("most", "usd"), [(1, 2.4), (2, 2.1), (3, 2.1), (4, 1.8), (6, 1.5)])
def test_two_changes_move_one_instance_where_two_locations_are_allowed(most: int, usd: float) -> None:
    plan = planned(asked({**DEAR, "instances": 3}, max_changes=most, policy={"max_locations": 2}))
    assert plan.cost.usd_per_hour == pytest.approx(usd)


@pytest.mark.parametrize(("usd", "is_moved"), [(109, True), (110, False)])
def test_changes_pay_if_they_cost_less_than_they_save(usd: float, is_moved: bool) -> None:
    """Six GPUs change for $0.9 an hour: 6 x $109 over 730 hours is $0.896, 6 x $110 is $0.904."""
    plan = planned(asked({**DEAR, "instances": 3}, change_cost=usd))
    assert moves(plan)["b"] == ((3, 0) if is_moved else (3, 3))
    assert plan.changes is not None and plan.changes.usd == (6 * usd if is_moved else 0)
    assert plan.bound_usd_per_hour == pytest.approx(minimised(plan), rel=1e-3)


def test_over_a_longer_time_the_same_changes_pay() -> None:
    plan = planned(asked({**DEAR, "instances": 3}, change_cost=110, change_over="2months"))
    assert plan.cost.usd_per_hour == 1.5 and plan.changes is not None and plan.changes.usd_per_hour == pytest.approx(660 / 1460)


@pytest.mark.parametrize(("until", "usd", "is_held"), [("2026-06-30", 1.6 + 0.5, True), ("2026-03-01", 1.5, False), (None, 1.5, False)])
def test_a_contract_not_yet_ended_is_paid_and_used(until: str | None, usd: float, is_held: bool) -> None:
    """Two at $0.8 to an end after the newest price (2026-03-01): $1.6 is spent, so one more at $0.5 does. Ended, three at $0.5 do."""
    plan = planned(asked({**DEAR, "instances": 2, "until": until}))
    assert plan.cost.usd_per_hour == pytest.approx(usd)
    assert moves(plan)["b"] == (2, 2 if is_held else 0)
    assert plan.changes is not None and plan.changes.contracted_usd_per_hour == pytest.approx(1.6 if is_held else 0.0)


def test_the_day_of_planning_ends_contracts() -> None:
    plan = planned(asked({**DEAR, "instances": 2, "until": "2026-06-30"}, as_of="2026-07-01"))
    assert plan.cost.usd_per_hour == 1.5 and plan.changes is not None and plan.changes.as_of == "2026-07-01"


def test_a_contract_on_what_must_not_be_used_is_paid_and_idle() -> None:
    """Two GPU-24 at $0.5 are contracted, and GPU-24 excluded."""
    plan = planned(asked({"provider": "neo", "instance_type": "gpu-24", "instances": 2, "until": "2027-01-01"}, exclude_gpus=["GPU-24"]))
    assert plan.cost.usd_per_hour == pytest.approx(1.0 + 1.5)
    assert plan.changes is not None and plan.changes.contracted_idle_usd_per_hour == pytest.approx(1.0)


def test_a_price_that_differs_is_kept_for_what_is_held_and_no_more() -> None:
    """Two at $0.3, and a third at the price of today."""
    plan = planned(asked({**CHEAP, "instances": 2, "usd_per_hour": 0.3}))
    assert plan.cost.usd_per_hour == pytest.approx(1.1)
    assert [(p.instances, p.usd_per_hour) for p in plan.purchases] == [(2, 0.6), (1, 0.5)]


def test_what_is_on_offer_no_more_is_held_at_its_stated_price() -> None:
    old = {"provider": "gone", "gpu": "GPU-80", "gpus_per_instance": 1, "usd_per_hour": 0.2, "instances": 3}
    plan = planned(asked(old))
    assert plan.cost.usd_per_hour == pytest.approx(0.6) and plan.purchases[0].provider == "gone"


def test_idle_instances_stay_where_changes_are_limited() -> None:
    plan = planned(asked({**CHEAP, "instances": 9}, max_changes=2))
    assert moves(plan) == {"a": (9, 7)}
    assert plan.gpus_held - plan.gpus_used == 4


# ---- steps


def test_a_path_returns_what_is_idle_step_by_step() -> None:
    """Nine held, three needed, two changes a step: 7, 5, 3."""
    found = path(asked({**CHEAP, "instances": 9}, max_changes=2), tiny())
    assert [p.gpus_held for p in found.steps] == [7, 5, 3]
    assert found.end_usd_per_hour == found.steps[-1].cost.usd_per_hour == 1.5
    assert all(check_plan(p, tiny()).ok for p in found.steps)


def test_every_step_serves_everything_within_its_changes() -> None:
    """From three dear instances to three cheap ones at another location, two changes a step."""
    found = path(asked({**DEAR, "instances": 3}, max_changes=2, policy={"max_locations": 2}), tiny())
    assert [p.cost.usd_per_hour for p in found.steps] == pytest.approx([2.1, 1.8, 1.5])
    assert all(p.changes and p.changes.added + p.changes.returned == 2 and check_plan(p, tiny()).ok for p in found.steps)


def test_a_path_ends_where_nothing_is_rented() -> None:
    """Three GPUs of one's own at $0.1 do for three rented ones at $0.5, of which two are returned and then the last; one's own are no changes."""
    own = {"gpu": "GPU-80", "count": 3, "gpus_per_node": 1, "usd_per_hour": 0.1}
    found = path(asked({**CHEAP, "instances": 3}, max_changes=2, owned=[own]), tiny())
    assert [p.cost.usd_per_hour for p in found.steps] == pytest.approx([0.7, 0.3])


# ---- no plan


def test_too_few_changes_say_the_fewest_that_would_do() -> None:
    """One is held where three are needed. Where its provider is excluded, it is returned and three are added."""
    with pytest.raises(Infeasible) as error:
        solve(asked({**DEAR, "instances": 1}, max_changes=1), tiny(), compare=False)
    assert error.value.changes[0] == "2 changes from today's fleet (+1)"
    with pytest.raises(Infeasible) as error:
        solve(asked({**DEAR, "instances": 1}, max_changes=1, exclude_providers=["cloud", "dear"]), tiny(), compare=False)
    assert error.value.changes[0] == "4 changes from today's fleet (+3)"


@pytest.mark.parametrize(
    ("held", "supply", "says"),
    [
        ({"provider": "neo", "instance_type": "gpu-42", "instances": 1}, {}, "no price of it (did you mean 'gpu-24'?)"),
        ({"provider": "gone", "gpu": "GPU-24", "gpus_per_instance": 1, "instances": 1}, {}, "state gpu, gpus_per_instance and usd_per_hour"),
        ({"provider": "neo", "gpu": "GPU-25", "instances": 1}, {}, "GPU-24"),
    ],
)
def test_a_fleet_that_nobody_knows_is_one_line(held: dict[str, Any], supply: dict[str, Any], says: str) -> None:
    assert says in refused(asked(held, **supply))


# ---- from files


def fleet(tmp_path: Path, text: str) -> str:
    (tmp_path / "fleet.toml").write_text(text)
    return str(tmp_path / "fleet.toml")


HELD = '[[held]]\nprovider = "verda"\ninstance_type = "verda-b200-sxm-on-demand"\ninstances = 7\n'


@pytest.mark.parametrize(
    ("text", "more", "says"),
    [
        ("held = []\n", (), "nothing is held in it"),
        (HELD.replace("instances", "instance", 2), (), "unknown key"),
        (HELD.replace("7", "0"), (), "greater than or equal to 1"),
        ('[[held]]\nprovider = "verda"\ninstances = 7\n', (), "give instance_type, or gpu"),
        (HELD + 'until = "soon"\n', (), "'held.until'"),
        (HELD, ("--change-over", "long"), "is not a span of time"),
        (HELD, ("--as-of", "yesterday"), "--as-of"),
        (HELD, ("--steps",), "--max-changes N"),
        (HELD, ("--maximize", "qps"), "cannot be planned from today"),
    ],
)
def test_errors_are_one_line(run: Run, tmp_path: Path, text: str, more: tuple[str, ...], says: str) -> None:
    status, out, err = run("--qps", "20", "--current", fleet(tmp_path, text), *more)
    assert (status, out) == (2, "") and says in err and err.count("\n") == 1


@pytest.mark.parametrize(("name", "text"), [("no.json", "{}"), ("no.json", "[1]"), ("no.json", '{"purchases": [{"kind": 3}]}'), ("no.toml", "[[plan]]\n")])
def test_a_file_that_is_no_fleet_is_one_line(run: Run, tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    status, out, err = run("--qps", "20", "--current", str(tmp_path / name))
    assert (status, out) == (2, "") and name in err and err.count("\n") == 1


def test_changes_need_a_fleet(run: Run) -> None:
    status, _, err = run("--qps", "20", "--max-changes", "3")
    assert status == 2 and "give it with --current FILE" in err


def test_a_saved_plan_is_todays_fleet(run: Run, tmp_path: Path) -> None:
    """The same question from its own answer changes nothing; its contracts go on in what is planned from it."""
    saved, again, grown = (str(tmp_path / name) for name in ("a.json", "b.json", "c.json"))
    assert run("--qps", "200", "--min-quality", "0.8", "--no-alternatives", "-o", saved)[0] == 0
    assert run("--qps", "200", "--min-quality", "0.8", "--no-alternatives", "--current", saved, "-o", again)[0] == 0
    a, b = (Plan.model_validate(json.loads(Path(name).read_text())) for name in (saved, again))
    assert b.changes is not None and (b.changes.added, b.changes.returned) == (0, 0) and a.cost == b.cost
    assert run("check", again)[0] == 0
    assert run("--qps", "220", "--min-quality", "0.8", "--no-alternatives", "--current", saved, "-o", grown)[0] == 0
    c = Plan.model_validate(json.loads(Path(grown).read_text()))
    assert c.changes is not None and (c.changes.added, c.changes.returned) == (1, 0)


def test_the_page_says_what_to_keep_add_and_drop() -> None:
    plan = planned(asked({**DEAR, "instances": 1}, {**CHEAP, "instances": 1, "until": "2027-01-01"}, max_changes=4), compare=True)
    lines = [text for section in page_sections(plan) for label, text in section.items if label == "from today"]
    assert lines == [
        "keep 1 x a at cheap; add 2 x a at cheap; drop 1 x b at dear north (3 changes of at most 4)",
        "today $1.30/h, which does not suffice; without a limit on changes $1.50/h, by 3",
        "contracted to 2027-01-01: $0.50/h paid either way, $0.00/h of it idle",
    ]


# ---- the check


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"added": 2}, "changes of instances"),
        ({"usd": 1.0}, "the cost of changes"),
        ({"usd_per_hour": 0.0}, "per hour"),
        ({"today_usd_per_hour": 1.0}, "today's fleet"),
        ({"as_of": "2026-01-01"}, "planned on"),
        ({"lines": ()}, "lines"),
        ({"free_usd_per_hour": 99.0}, "dearer"),
    ],
)
def test_the_check_derives_changes_again(change: dict[str, Any], says: str) -> None:
    plan = planned(asked({**DEAR, "instances": 3}, change_cost=10))
    assert plan.changes is not None
    report = check_plan(plan.model_copy(update={"changes": plan.changes.model_copy(update=change)}), tiny())
    assert any(says in f"{b.where} {b.what}" for b in report.breaches), report.breaches


def test_the_check_counts_limits_and_contracts() -> None:
    plan = planned(asked({**DEAR, "instances": 3}))
    stricter = plan.scenario.supply.model_copy(update={"max_changes": 5})
    report = check_plan(plan.model_copy(update={"scenario": plan.scenario.model_copy(update={"supply": stricter})}), tiny())
    assert any("changes 6 instances, at most 5" in b.what for b in report.breaches)


# ---- pruning


def drawn(rng: random.Random) -> dict[str, Any]:
    """A question from a random fleet: limits, costs, contracts and prices in all combinations."""
    held = []
    for type_ in rng.sample(["gpu-24", "gpu-80", "c24.1", "c80.8"], rng.randint(1, 3)):
        place = {"provider": "cloud", "region": "north"} if type_.startswith("c") else {"provider": "neo"}
        row: dict[str, Any] = {**place, "instance_type": type_, "instances": rng.randint(1, 4)}
        row |= {"until": rng.choice(["2026-02-01", "2027-01-01"])} if rng.random() < 0.3 else {}
        row |= {"usd_per_hour": rng.choice([0.1, 0.4, 2.0, 6.0])} if rng.random() < 0.3 else {}
        held.append(row)
    supply: dict[str, Any] = {"current": held}
    supply |= {"max_changes": rng.randint(0, 8)} if rng.random() < 0.5 else {}
    supply |= {"change_cost": rng.choice([20.0, 200.0, 2000.0])} if rng.random() < 0.6 else {}
    supply |= {"exclude_gpus": ["GPU-80"]} if rng.random() < 0.15 else {}
    policy: dict[str, Any] = {"max_locations": rng.choice([1, 2])}
    policy |= rng.choice([{}, {}, {"max_pools": 2}, {"mix": True}, {"spare_replicas": 1}, {"budget": "9/h"}, {"max_gpu_types": 1}])
    workload = {"qps": rng.choice([15, 33, 70]), "min_quality": rng.choice([0.5, 0.597, 0.7])}
    return {"workload": [workload], "supply": supply, "policy": policy}


@pytest.mark.parametrize("part", range(4))
def test_pruning_keeps_the_optimum_from_any_fleet(part: int) -> None:
    """15 random questions each: the public answer, checked, costs what the program over every operating point of every replica type does."""
    feasible = 0
    for seed in range(15 * part, 15 * part + 15):
        question = drawn(random.Random(seed))
        every = cost(question, tiny(), pruned=False)
        try:
            plan = solve(Scenario.model_validate({**question, "solver": {"gap": 0, "time_limit": "60s"}}), tiny(), compare=False, cache=SurveyCache(tiny()))
        except Infeasible:
            assert every == inf, seed
            continue
        assert minimised(plan) == pytest.approx(every, rel=1e-6), seed
        feasible += 1
    assert feasible >= 6
