"""Hosted APIs as offers: how much of a workload they serve at which price, worked out by hand; what a plan says of them, and what the check refuses."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from functools import cache
from typing import Any

import pytest
from conftest import Run, checked

from planner import Catalog, Plan, Scenario, load_catalog, solve
from planner.catalog.records import ApiPrice
from planner.check.check import check_plan
from planner.economics.api_vs_fleet import api_vs_fleet
from planner.errors import PlannerError, ScenarioError

MODEL, USD = "meta-llama/Llama-3.1-8B-Instruct", 2.0  # of a GPU and hour, each a node of its own: one replica
OWN = {"gpu": "H100-SXM-80GB", "count": 8, "gpus_per_node": 1, "usd_per_hour": USD}


def api(usd_per_million: float, provider: str = "acme", checkpoint: str = MODEL) -> ApiPrice:
    """One price for all tokens."""
    prices = {"usd_per_million_input": usd_per_million, "usd_per_million_output": usd_per_million}
    rest = {"model": "Llama-3.1-8B", "checkpoint": checkpoint, "api_name": f"{provider}/llama", "as_of": date(2026, 11, 1), "source": "test", "licence": "MIT"}
    return ApiPrice.model_validate({"provider": provider, **prices, **rest})


def priced(usd_per_qps: float) -> ApiPrice:
    """An API at which 1 req/s of 1000 + 300 tokens costs so much an hour: 4.68 million tokens."""
    return api(usd_per_qps / 4.68)


@cache
def shipped() -> Catalog:
    return load_catalog()


def asked(qps: float, how: str, workload: dict[str, Any] | None = None, **policy: Any) -> Scenario:
    supply = {"kinds": ["owned"], "owned": [OWN], **policy.pop("supply", {})}
    one = {"qps": qps, "models": [MODEL], **(workload or {})}
    return Scenario.model_validate({"workload": [one], "supply": supply, "policy": {"api": how, "precisions": ["bf16"], **policy}, "solver": {"gap": 0}})


def plan_of(scenario: Scenario, *prices: ApiPrice) -> Plan:
    catalog = replace(shipped(), api_prices=prices)
    return checked(solve(scenario, catalog, compare=False), catalog)


@cache
def carried() -> float:
    """Requests/s of one replica."""
    return solve(asked(1.0, "none"), shipped(), compare=False).deployments[0].capacity_qps_per_replica


@pytest.mark.parametrize(("of_break_even", "replicas"), [(0.99, 1), (1.01, 2)])
def test_what_overflows_goes_to_an_api_up_to_the_break_even(of_break_even: float, replicas: int) -> None:
    """1.5 replicas' worth of traffic at $2 a replica: a second one carries half of its worth, which an API serves cheaper below $2 / (0.5 replicas)."""
    qps = 1.5 * carried()
    usd = of_break_even * USD / (0.5 * carried())
    plan = plan_of(asked(qps, "overflow"), priced(usd))
    assert plan.deployments[0].replicas == replicas
    assert plan.cost.usd_per_hour == pytest.approx(2 * USD if replicas == 2 else USD + 0.5 * carried() * usd)
    assert sum(h.share for h in plan.hosted) == pytest.approx(0 if replicas == 2 else 1 / 3)
    assert plan.cost.api_usd_per_hour == pytest.approx(plan.cost.usd_per_hour - replicas * USD)


@pytest.mark.parametrize(("of_break_even", "gpus"), [(0.99, 0), (1.01, 1)])
def test_all_of_a_workload_goes_to_an_api_below_the_price_of_its_fleet(of_break_even: float, gpus: int) -> None:
    """Half a replica's worth costs a whole replica: $2."""
    qps = 0.5 * carried()
    plan = plan_of(asked(qps, "all"), priced(of_break_even * USD / qps))
    assert plan.gpus_held == gpus
    assert [h.qps for h in plan.hosted] == ([] if gpus else [pytest.approx(qps)])
    assert (plan.workloads[0].predicted is None) == (not gpus)


def test_all_or_nothing_does_not_overflow() -> None:
    plan = plan_of(asked(1.5 * carried(), "all"), priced(0.99 * USD / (0.5 * carried())))
    assert (plan.deployments[0].replicas, plan.hosted) == (2, ())


def test_a_limit_is_kept_and_the_next_provider_takes_the_rest() -> None:
    """Of half a replica's worth that overflows, a tenth of a replica at most goes to the cheaper one."""
    qps, usd = 1.5 * carried(), 0.5 * USD / (0.5 * carried())
    scenario = asked(qps, "overflow", supply={"api_limit": {"acme": 0.1 * carried()}}, mix=True)
    plan = plan_of(scenario, priced(usd), priced(1.2 * usd).model_copy(update={"provider": "other"}))
    assert {h.provider: h.qps for h in plan.hosted} == pytest.approx({"acme": 0.1 * carried(), "other": 0.4 * carried()})
    assert {h.provider: h.limit_qps for h in plan.hosted} == {"acme": pytest.approx(0.1 * carried()), "other": None}


def test_an_api_is_paid_in_the_mean_and_a_fleet_at_the_peak() -> None:
    """Peaks of twice the mean are one replica's worth; the API takes the mean, half of it, for less than $2."""
    qps, usd = 0.5 * carried(), 1.9 * USD / carried()
    plan = plan_of(asked(qps, "all", {"burst_factor": 2.0}), priced(usd))
    assert not plan.deployments
    assert plan.cost.usd_per_hour == pytest.approx(qps * usd)


def test_the_budget_counts_what_apis_take() -> None:
    qps, usd = 1.5 * carried(), 0.9 * USD / (0.5 * carried())
    assert plan_of(asked(qps, "overflow", budget=f"{1.95 * USD}/h"), priced(usd)).cost.usd_per_hour == pytest.approx(1.9 * USD)
    with pytest.raises(PlannerError):
        plan_of(asked(qps, "overflow", budget=f"{1.85 * USD}/h"), priced(usd))


def test_an_api_of_another_model_stands_beside_a_fleet_only_where_models_mix() -> None:
    other = "Qwen/Qwen3-8B"
    price = priced(0.5 * USD / (0.5 * carried())).model_copy(update={"checkpoint": other, "model": "Qwen3-8B"})
    both = {"models": [MODEL, other]}
    apart, mixed = (plan_of(asked(1.5 * carried(), "overflow", both, mix=mix), price) for mix in (False, True))
    assert len({MODEL if d.checkpoint == MODEL else other for d in apart.deployments} | {h.checkpoint for h in apart.hosted}) == 1
    assert mixed.cost.usd_per_hour <= apart.cost.usd_per_hour * (1 + 1e-6)


def test_the_model_floor_and_provider_rules_hold_for_apis() -> None:
    """Without its own model, above its score, or at another provider, the API is no offer."""
    qps = 0.5 * carried()
    cheap = priced(0.1 * USD / qps)
    assert not plan_of(asked(qps, "all"), cheap).deployments
    for change in ({"supply": {"api_providers": ["other"]}}, {"workload": {"models": ["Qwen/Qwen3-8B"]}}, {"workload": {"models": [], "min_quality": 0.55}}):
        known = replace(shipped(), api_prices=(cheap, priced(1e3).model_copy(update={"provider": "other"})))
        assert not solve(asked(qps, "all", **change), known, compare=False).hosted


def test_requests_of_own_tokens_and_hits_are_billed_as_the_comparison_does() -> None:
    """The API's price of the same traffic stands beside a plan without APIs; as an offer it costs the same."""
    question = {"language": "de", "prefix_cache_hit": 0.5}
    price = priced(0.1 * USD / carried()).model_copy(update={"usd_per_million_cached_input": 0.01})
    beside = plan_of(asked(carried(), "none", question), price).api[0]
    plan = plan_of(asked(carried(), "all", question), price)
    assert plan.cost.usd_per_hour == pytest.approx(beside.usd_per_hour)
    assert plan.unit_costs is not None
    assert plan.unit_costs.usd_per_hour == pytest.approx(beside.usd_per_hour)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"usd_per_hour": 1.0}, "usd per hour"),
        ({"share": 0.2}, "shares that add up to"),
        ({"provider": "nobody"}, "no price"),
        ({"usd_per_million_input": 0.001}, "usd per million input"),
        ({"limit_qps": 1.0}, "limit qps"),
    ],
)
def test_the_check_derives_shares_and_prices_again(change: dict[str, Any], said: str) -> None:
    catalog = replace(shipped(), api_prices=(priced(0.9 * USD / (0.5 * carried())),))
    plan = solve(asked(1.5 * carried(), "overflow"), catalog, compare=False)
    wrong = plan.model_copy(update={"hosted": (plan.hosted[0].model_copy(update=change),)})
    assert any(said in b.what for b in check_plan(wrong, catalog).breaches)


def test_an_api_that_nobody_asked_for_is_a_breach() -> None:
    catalog = replace(shipped(), api_prices=(priced(0.9 * USD / (0.5 * carried())),))
    plan = solve(asked(1.5 * carried(), "overflow"), catalog, compare=False)
    silent = plan.model_copy(update={"scenario": plan.scenario.model_copy(update={"policy": plan.scenario.policy.model_copy(update={"api": "none"})})})
    assert any("not asked for" in b.what for b in check_plan(silent, catalog).breaches)


def test_what_has_no_rate_or_no_end_is_refused() -> None:
    for workload, more in (({"concurrency": 10}, {}), ({"qps": 1}, {"objective": {"maximize": "quality"}, "policy": {"api": "all", "budget": "9/h"}})):
        with pytest.raises(ValueError, match="API"):
            Scenario.model_validate({"workload": [workload], "policy": {"api": "all"}, **more})


@pytest.mark.parametrize(("rates", "expected"), [((0.25, 0.9), 0.5), ((0.25, 0.4), None), ((0.6, 0.9), 0.0)])
def test_the_break_even_is_where_one_replica_costs_what_the_api_asks(rates: tuple[float, ...], expected: float | None) -> None:
    """At $2 for half a replica's worth, the API costs what the replica does there; below less, above more."""
    catalog = replace(shipped(), api_prices=(priced(USD / (0.5 * carried())),))
    found = api_vs_fleet(asked(1.0, "none"), catalog, [r * carried() for r in rates])
    assert found.break_even_qps == (expected and pytest.approx(expected * carried(), rel=1e-3))
    assert [v.fleet_usd_per_hour for v in found.volumes] == pytest.approx([USD] * len(rates))
    assert [v.best_usd_per_hour for v in found.volumes] == pytest.approx([min(USD, 2 * USD * r) for r in rates])


def test_volumes_are_of_one_workload() -> None:
    two = [{"name": n, "qps": 1.0} for n in ("a", "b")]
    with pytest.raises(ScenarioError, match="one workload"):
        api_vs_fleet(Scenario.model_validate({"workload": two}), shipped(), [1.0])


def test_a_page_without_gpus_says_what_is_not_known(run: Run, tmp_path: Any) -> None:
    """At 0.5 req/s the cheapest API costs less than any GPU."""
    code, page, _ = run("--qps", 0.5, "--min-quality", 0.8, "--api", "all", "-o", tmp_path / "plan.json")
    assert code == 0
    code, page, _ = run("show", tmp_path / "plan.json")
    assert "latency there not known" in page
    assert "GPUs alone:" in page
    for words in (("emit", "kubernetes", tmp_path / "plan.json"), ("simulate", tmp_path / "plan.json")):
        code, _, error = run(*words)
        assert code == 2
        assert "hosted API" in error
