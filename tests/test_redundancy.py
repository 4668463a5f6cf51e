"""What a plan bears: the loss of any replica, instance or zone, or of all that is spot, from the question to the page. Answers by hand."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any

import pytest
from conftest import checked

from planner import Catalog, Plan, Scenario, load_catalog, solve
from planner.catalog.files import read_csv
from planner.catalog.load import shipped_folders
from planner.catalog.records import SpotRate
from planner.check.check import check_plan
from planner.errors import PlannerError
from planner.planning.contract import contract
from planner.planning.infeasible import Infeasible
from planner.planning.periods import autoscale
from planner.report.formats import formatted
from planner.scenario.outlook import Outlook
from planner.scenario.sources import ask
from planner.simulation.failures import failing
from planner.simulation.rebuild import deployed
from planner.simulation.run import simulate

TINY = Path(__file__).parent / "data" / "tiny"
ONE = {"provider": "ones", "gpu": "GPU-80", "gpus_per_instance": 1, "usd_per_hour": 1.0}
FOUR = {"provider": "fours", "gpu": "GPU-80", "gpus_per_instance": 4, "usd_per_hour": 3.0, "max_tp": 1}
SPOT = {"provider": "ones", "gpu": "GPU-80", "gpus_per_instance": 1, "usd_per_hour": 0.25, "purchase": "spot"}


@cache
def tiny() -> Catalog:
    return load_catalog([TINY], shipped=False)


@cache
def with_spot_rates() -> Catalog:
    return replace(tiny(), spot_files=(shipped_folders()[1] / "spot.csv",))


def asked(offers: list[dict[str, Any]], policy: dict[str, Any] | None = None, qps: float = 120, **supply: Any) -> Scenario:
    """One workload on own offers alone."""
    providers = sorted({o["provider"] for o in offers})
    bought = {"offers": offers, "providers": providers, **supply}
    return Scenario.model_validate({"workload": [{"qps": qps, "min_quality": 0.5}], "supply": bought, "policy": policy or {}, "solver": {"gap": 0}})


def planned(scenario: Scenario, compare: bool = False) -> Plan:
    return checked(solve(scenario, tiny(), compare=compare), tiny())


@cache
def needed(qps: float = 120) -> int:
    """Replicas of one GPU that carry the traffic, by the plan without redundancy."""
    plan = planned(asked([ONE], qps=qps))
    (d,) = plan.deployments
    assert d.gpus_per_replica == 1 and plan.redundancy is None
    return d.replicas


# ---- by hand


def test_one_instance_more_where_each_holds_a_replica() -> None:
    """N replicas on instances of one GPU at $1: with one lost N must remain, so N + 1 are held; and the same where one replica is lost."""
    n = needed()
    for redundancy in ("n+1-instance", "n+1-replica"):
        plan = planned(asked([ONE], {"redundancy": redundancy}), compare=True)
        assert plan.cost.usd_per_hour == pytest.approx(n + 1)
        assert plan.redundancy is not None and plan.redundancy.premium_usd_per_hour == pytest.approx(1.0)
        (borne,) = plan.redundancy.losses
        assert (borne.replicas_lost, borne.replicas_left) == (1, n) and borne.slo_load <= 1


def test_one_instance_more_where_each_holds_four() -> None:
    """Instances of 4 at $3: an instance takes 4 of R, so R ≥ N + 4 on ⌈(N + 4)/4⌉ instances."""
    n = needed()
    plan = planned(asked([FOUR], {"redundancy": "n+1-instance"}))
    assert plan.cost.usd_per_hour == pytest.approx(3 * ceil((n + 4) / 4))
    (d,) = plan.deployments
    assert d.standing_by == d.replicas - n >= 4


@pytest.mark.parametrize("zones", [2, 3, 5])
def test_the_fewest_replicas_over_zones(zones: int) -> None:
    """Z zones: of n replicas the fullest zone has ⌈n/Z⌉, and n − ⌈n/Z⌉ ≥ N."""
    n = needed()
    fewest = next(r for r in range(n, 3 * n) if r - ceil(r / zones) >= n)
    plan = planned(asked([ONE], {"redundancy": "n+1-zone"}, zones=zones))
    assert sum(p.instances for p in plan.purchases) == fewest
    assert len({p.zone for p in plan.purchases}) == zones
    assert plan.redundancy is not None and f"{zones} zones, as stated" in plan.redundancy.assumption


def test_two_deployments_each_bear_the_loss() -> None:
    """Two workloads whose models differ, on instances of one GPU: N + 1 and M + 1 of them."""
    names = (("small-8b-fp8", 90.0), ("small-8b", 40.0))
    workloads = [{"name": name, "qps": q, "models": [f"example/{name}"]} for name, q in names]
    both = {
        "workload": workloads,
        "supply": {"offers": [ONE], "providers": ["ones"]},
        "solver": {"gap": 0},
    }
    plain = planned(Scenario.model_validate(both))
    borne = planned(Scenario.model_validate({**both, "policy": {"redundancy": "n+1-instance"}}))
    assert len(plain.deployments) == len(borne.deployments) == 2
    assert borne.cost.usd_per_hour == pytest.approx(plain.cost.usd_per_hour + 2)


def test_more_load_may_be_allowed_after_a_loss_than_before() -> None:
    """At most 0.6 of capacity in normal times takes M ≥ N replicas; N must remain of M, so where M − 1 ≥ N a loss costs nothing."""
    n = needed()
    half = planned(asked([ONE], {"max_slo_load": 0.6}))
    borne = planned(asked([ONE], {"max_slo_load": 0.6, "redundancy": "n+1-instance"}))
    assert half.deployments[0].replicas > n
    assert borne.cost.usd_per_hour == pytest.approx(half.cost.usd_per_hour)
    as_before = planned(asked([ONE], {"max_slo_load": 0.6, "redundancy": "n+1-instance", "load_after_loss": 0.6}))
    assert as_before.cost.usd_per_hour == pytest.approx(half.cost.usd_per_hour + 1)


def with_limits(times: float, policy: dict[str, Any] | None = None) -> Scenario:
    """The question with limits on latency so many times as long as 1 s and 40 ms."""
    question = asked([ONE], policy)
    slo = {"ttft_p95": 1.0 * times, "tpot_p95": 0.04 * times}
    return question.model_copy(update={"workload": (question.workload[0].model_copy(update={"slo": slo}),)})


@pytest.mark.parametrize("times", [1.0, 1.25, 2.0])
def test_longer_limits_after_a_loss_take_the_replicas_that_such_limits_take(times: float) -> None:
    """N replicas keep the limits and M those that are longer, each by a plan of its own of one model. With one lost M must remain: max(N, M + 1)."""
    model = planned(with_limits(1.0)).deployments[0].checkpoint

    def only(scenario: Scenario) -> Plan:
        workload = scenario.workload[0].model_copy(update={"models": (model,)})
        plan = planned(scenario.model_copy(update={"workload": (workload,)}), compare=True)
        assert [d.gpus_per_replica for d in plan.deployments] == [1]
        return plan

    n, m = (only(with_limits(t)).deployments[0].replicas for t in (1.0, times))
    borne = only(with_limits(1.0, {"redundancy": "n+1-instance", "loss_slo_factor": times}))
    assert borne.deployments[0].replicas == max(n, m + 1) and (times < 2 or m < n)
    assert borne.redundancy is not None and borne.redundancy.premium_usd_per_hour == pytest.approx(max(n, m + 1) - n)
    (loss,) = borne.redundancy.losses
    assert loss.slo_load <= 1
    assert (f"with limits {times:g} times as long" in " ".join(formatted(borne, "table").split())) == (times > 1)


def test_longer_limits_are_checked_by_the_service_of_what_is_left() -> None:
    """A plan made for limits twice as long after a loss does not bear it at limits a tenth longer."""
    plan = planned(with_limits(1.0, {"redundancy": "n+1-instance", "loss_slo_factor": 2.0}))
    policy = plan.scenario.policy.model_copy(update={"loss_slo_factor": 1.1})
    assert plan.redundancy is not None
    stricter = plan.model_copy(
        update={
            "scenario": plan.scenario.model_copy(update={"policy": policy}), "redundancy": plan.redundancy.model_copy(update={"loss_slo_factor": 1.1}),
        }
    )  # fmt: skip
    said = [str(b) for b in check_plan(stricter, tiny()).breaches]
    assert any("are left at an SLO load of" in b for b in said) and any("misses" in b and "of requests" in b for b in said)


def test_longer_limits_are_of_losses_at_one_rate() -> None:
    with pytest.raises(PlannerError, match="nothing is lost with redundancy none: longer limits are of n\\+1-instance, n\\+1-zone or spot"):
        ask({"qps": "20", "loss_slo": "1.5"})
    with pytest.raises(PlannerError, match="planned at one rate, not by the hour"):
        autoscale(with_limits(1.0, {"redundancy": "n+1-instance", "loss_slo_factor": 1.5}), tiny())


def test_gpus_sold_one_by_one_fail_with_their_node() -> None:
    """The catalogue's neo sells single GPUs of nodes of 8 at $3: replicas on 8 GPUs more, whatever their size."""
    supply = {"providers": ["neo"], "gpus": ["GPU-80"]}
    question = {"workload": [{"qps": 60, "min_quality": 0.5}], "supply": supply, "solver": {"gap": 0}}
    plain = planned(Scenario.model_validate(question))
    borne = planned(Scenario.model_validate({**question, "policy": {"redundancy": "n+1-instance"}}))
    assert borne.deployments[0].gpus_per_replica == plain.deployments[0].gpus_per_replica
    assert borne.cost.usd_per_hour == pytest.approx(plain.cost.usd_per_hour + 3 * 8)
    assert borne.redundancy is not None and "a node fails as a whole" in borne.redundancy.assumption


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_share_of_replicas_on_spot(share: float) -> None:
    """N replicas at $1, or $0.25 on spot, of which the share allowed is rounded down. More than N may let one more be."""
    n = needed()
    spot = int(share * n + 1e-9)
    plan = planned(asked([ONE, SPOT], {"max_spot_share": share}))
    best = min((r - int(share * r + 1e-9)) + 0.25 * int(share * r + 1e-9) for r in range(n, 2 * n))
    assert plan.cost.usd_per_hour == pytest.approx(best)
    assert best <= n - 0.75 * spot + 1e-9


def test_all_that_is_spot_may_be_taken_back_at_once() -> None:
    """N must remain without it, so nothing is spot, though it costs a quarter; unless the load after a loss may be higher than before."""
    n = needed()
    assert planned(asked([ONE, SPOT], {"redundancy": "spot"})).cost.usd_per_hour == pytest.approx(n)
    plan = planned(asked([ONE, SPOT], {"redundancy": "spot", "max_slo_load": 0.6}))
    total = plan.deployments[0].replicas
    assert plan.cost.usd_per_hour == pytest.approx(n + 0.25 * (total - n))
    assert plan.redundancy is not None and plan.redundancy.losses[0].replicas_left == n


def test_spot_says_how_often_it_is_taken_back_and_the_load_then() -> None:
    """AWS published for p5.48xlarge in us-east-1 what spot.csv has; of own offers elsewhere nothing is known."""
    known = {**SPOT, "provider": "aws", "region": "us-east-1", "instance_type": "p5.48xlarge"}
    plan = solve(asked([known]), with_spot_rates(), compare=False)
    (s,) = plan.spot
    (p,) = plan.purchases
    (rate,) = [r for r in read_csv(shipped_folders()[1] / "spot.csv", SpotRate) if (r.region, r.instance_type) == ("us-east-1", "p5.48xlarge")]
    assert (s.low, s.high, s.as_of) == (rate.low, rate.high, "2025-07-28")
    assert s.per_month == pytest.approx((rate.low if rate.high is None else rate.high) * p.instances)
    d = plan.deployments[0]
    assert s.slo_load_one_away is not None and s.slo_load_one_away >= d.slo_load * d.replicas / (d.replicas - 1) * (1 - 1e-9)
    assert check_plan(plan, with_spot_rates()).ok and "AWS Spot Advisor, 2025-07-28" in " ".join(formatted(plan, "table").split())
    wrong = plan.model_copy(update={"spot": (s.model_copy(update={"per_month": 0.0}),)})
    assert "redundancy" in {b.name for b in check_plan(wrong, with_spot_rates()).breaches}
    unknown = planned(asked([SPOT]))
    assert unknown.spot[0].low is None and "is not published" in formatted(unknown, "table")


# ---- by the hour, and what is refused


SWINGING = {"qps": 80, "min_quality": 0.5, "profile": [0.4, 1.0, 1.6] * 8}
PATIENT = {"requests_per_day": 100_000, "min_quality": 0.5}


def by_the_hour(redundancy: str, workload: dict[str, Any] = SWINGING, **supply: Any) -> Plan:
    question = {"workload": [workload], "supply": {"offers": [ONE], "providers": ["ones"], **supply}, "policy": {"redundancy": redundancy}}
    return checked(autoscale(Scenario.model_validate(question), tiny()), tiny())


def test_every_hour_bears_the_loss() -> None:
    """One instance more in each hour than its traffic takes."""
    plain, borne = by_the_hour("none"), by_the_hour("n+1-instance")
    assert [t.gpus_held for t in borne.periods] == [t.gpus_held + 1 for t in plain.periods]
    assert borne.redundancy is not None and borne.redundancy.losses[0].hour in range(24)
    assert "Losses borne" in formatted(borne, "table", details=True) and "n+1-instance" in formatted(borne, "table")


def test_every_hour_bears_the_loss_of_a_zone() -> None:
    """Of three zones: of n replicas in an hour the fullest has ⌈n/3⌉, and the others must be as many as its traffic takes."""
    plain, borne = by_the_hour("none"), by_the_hour("n+1-zone", zones=3)
    fewest = [next(r for r in range(3 * t.gpus_held) if r - ceil(r / 3) >= t.gpus_held) for t in plain.periods]
    assert [t.gpus_held for t in borne.periods] == fewest


def test_requests_that_may_wait_hold_nothing_against_losses() -> None:
    plain, borne = by_the_hour("none", PATIENT), by_the_hour("n+1-instance", PATIENT)
    assert borne.cost.usd_per_hour == pytest.approx(plain.cost.usd_per_hour)
    assert borne.redundancy is not None and not borne.redundancy.losses
    for details in (False, True):
        assert "may wait until what is lost is back" in " ".join(formatted(borne, "table", details=details).split())


def test_one_zone_alone_bears_no_loss_and_the_error_says_what_would() -> None:
    with pytest.raises(Infeasible) as error:
        planned(asked([ONE], {"redundancy": "n+1-zone"}))
    assert "no redundancy instead of n+1-zone" in str(error.value) and "redundancy n+1-zone" in str(error.value)


def test_a_contract_bears_no_instance() -> None:
    with pytest.raises(PlannerError) as error:
        contract(asked([ONE], {"redundancy": "n+1-instance"}), Outlook(), tiny())
    assert "a contract is not planned for --redundancy n+1-instance" in str(error.value)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"redundancy": "n+1-rack"}, "--redundancy"),
        ({"load_after_loss": "0.9"}, "nothing is lost with redundancy none"),
        ({"redundancy": "n+1-zone", "load_after_loss": "1.2"}, "--load-after-loss"),
        ({"zones": "0"}, "--zones"),
        ({"zones": "3", "redundancy": "n+1-instance"}, "zones count where one may be lost"),
        ({"max_spot_share": "1.5"}, "--max-spot-share"),
        ({"redundancy": "n+1-instance", "capacities": "a.csv", "demand": "b.csv"}, "capacities of one's own"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(flags: dict[str, str], words: str) -> None:
    workload = {} if "capacities" in flags else {"qps": "10"}
    with pytest.raises(PlannerError) as error:
        ask({**workload, **flags}, {}, None)
    assert words in str(error.value) and "\n" not in str(error.value)


# ---- the check


def broken(plan: Plan, **edit: Any) -> list[str]:
    """Families that find a breach of an edited plan."""
    return [b.name for b in check_plan(plan.model_copy(update=edit), tiny()).breaches]


@pytest.mark.parametrize("redundancy", ["n+1-replica", "n+1-instance", "n+1-zone"])
def test_a_plan_with_a_replica_less_fails(redundancy: str) -> None:
    plan = planned(asked([ONE], {"redundancy": redundancy}, **({"zones": 3} if redundancy == "n+1-zone" else {})))
    (d,) = plan.deployments
    hosts = (d.hosts[0].model_copy(update={"replicas": d.hosts[0].replicas - 1}), *d.hosts[1:])
    fewer = d.model_copy(update={"replicas": d.replicas - 1, "gpus": d.gpus - 1, "hosts": hosts})
    assert "redundancy" in broken(plan, deployments=(fewer,))


def test_what_is_said_of_losses_is_derived_again() -> None:
    plan = planned(asked([ONE], {"redundancy": "n+1-instance"}), compare=True)
    found = plan.redundancy
    assert found is not None
    (borne,) = found.losses
    for wrong in (
        found.model_copy(update={"losses": (borne.model_copy(update={"slo_load": borne.slo_load * 0.9}),)}),
        found.model_copy(update={"losses": (borne.model_copy(update={"replicas_lost": 2}),)}),
        found.model_copy(update={"losses": ()}),
        found.model_copy(update={"premium_usd_per_hour": 0.5}),
        found.model_copy(update={"asked": "n+1-zone"}),
        None,
    ):
        assert "redundancy" in broken(plan, redundancy=wrong)
    none = plan.scenario.model_copy(update={"policy": plan.scenario.policy.model_copy(update={"redundancy": "none"})})
    assert "redundancy" in broken(plan, scenario=none)


def test_a_zone_that_is_not_there_is_no_offer() -> None:
    plan = planned(asked([ONE], {"redundancy": "n+1-zone"}, zones=2))
    moved = plan.purchases[0].model_copy(update={"zone": "zone 9"})
    assert "offers" in broken(plan, purchases=(moved, *plan.purchases[1:]))


def test_more_on_spot_than_allowed_fails() -> None:
    plan = planned(asked([ONE, SPOT], {"max_spot_share": 0.5}))
    policy = plan.scenario.policy.model_copy(update={"max_spot_share": 0.1})
    assert "redundancy" in broken(plan, scenario=plan.scenario.model_copy(update={"policy": policy}))


# ---- in the simulator


@pytest.mark.parametrize("loss", ["replica", "instance", "zone"])
def test_the_loss_is_borne_in_the_simulator_and_without_redundancy_it_is_not(loss: str) -> None:
    """Lost from the start and never back; TTFT and TPOT inside their limits for 95 % of requests, to one in a hundred, or far from it."""
    zones = {"zones": 2} if loss == "zone" else {}
    borne = planned(asked([ONE], {"redundancy": f"n+1-{loss}", "startup_lead": "24h"}, **zones))
    bare = planned(asked([ONE], {"startup_lead": "24h"}))
    inside = [min(s.within for s in simulate(p, tiny(), requests=8_000, failures=(f"{loss}:1@1ms",)).workloads[0].slo) for p in (borne, bare)]
    assert inside[0] > 0.94 > 0.9 > inside[1]


def test_what_fails_together() -> None:
    """Two zones hold all instances between them, each an instance of one replica; GPUs sold one by one fail with their node; none is spot."""
    plan = planned(asked([ONE], {"redundancy": "n+1-zone"}, zones=2))
    n = plan.deployments[0].replicas
    fleet = deployed(plan, plan.scenario, tiny(), 0.8)
    by_kind = {what: [len(g) for g in failing(what, plan, fleet, tiny())] for what in ("replica", "instance", "zone", "spot")}
    assert by_kind == {"replica": [1] * n, "instance": [1] * n, "zone": [n // 2, n // 2], "spot": []}
    nodes = {"workload": [{"qps": 60, "min_quality": 0.5}], "supply": {"providers": ["neo"], "gpus": ["GPU-80"]}, "policy": {"redundancy": "n+1-instance"}}
    plan = planned(Scenario.model_validate(nodes))
    fleet = deployed(plan, plan.scenario, tiny(), 0.8)
    each = 8 // plan.deployments[0].gpus_per_replica
    assert max(len(g) for g in failing("instance", plan, fleet, tiny())) == min(each, plan.deployments[0].replicas)
    with pytest.raises(PlannerError) as error:
        simulate(plan, tiny(), requests=100, failures=("instance:99@1s",))
    assert "there is no instance 99" in str(error.value)


# ---- the page


def test_the_page_says_the_loss_the_load_and_the_premium() -> None:
    plan = planned(asked([ONE], {"redundancy": "n+1-zone"}, zones=3), compare=True)
    page = " ".join(formatted(plan, "table").split())
    for words in ("n+1-zone: without zone 1 of ones", "carry it at SLO load", "over none", "in 3 zones, as stated", "no redundancy"):
        assert words in page
