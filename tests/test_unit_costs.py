"""Dollars per million tokens of each kind: what is held, split by the time engines work; the shares add up, and APIs are compared at the same hits."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from planner import Scenario, load_catalog, solve
from planner.catalog.catalog import Catalog
from planner.check.check import check_plan
from planner.performance.coefficients import load_coefficients
from planner.performance.lengths import lognormal_mix
from planner.performance.replicas import Replicas
from planner.performance.step import step_curves
from planner.performance.work import Work, work_of
from planner.report.formats import formatted
from planner.result.plan import Deployment, Plan, PlanWorkload
from planner.result.unit_costs import api_cost, split_by_work
from planner.scenario.workload import Workload

QUESTIONS: dict[str, dict[str, Any]] = {
    "hits": {"workload": [{"qps": 20, "min_quality": 0.6, "prefix_cache_hit": 0.5, "input_tokens": 6000}]},
    "two and shared": {"workload": [{"name": f"tenant {i}", "qps": 1 + i, "min_quality": 0.6, "output_tokens": 100 + 900 * i} for i in range(2)]},
    "idle": {"workload": [{"qps": 30, "min_quality": 0.8, "burst_factor": 1.5}], "supply": {"kinds": ["hyperscaler"]}, "policy": {"spare_replicas": 1}},
    "in flight": {"workload": [{"concurrency": 300, "min_quality": 0.6}]},
}


@cache
def catalog() -> Catalog:
    return load_catalog()


@cache
def planned(question: str) -> Plan:
    return solve(Scenario.model_validate(QUESTIONS[question]), catalog(), compare=False)


@pytest.mark.parametrize("question", QUESTIONS)
def test_shares_add_up_to_what_is_held(question: str) -> None:
    plan = planned(question)
    whole, rows = plan.unit_costs, [w.unit_costs for w in plan.workloads]
    assert whole is not None and whole.usd_per_hour == pytest.approx(plan.cost.usd_per_hour, abs=0.005)
    for field in ("usd_per_hour", "input_usd_per_hour", "cached_input_usd_per_hour", "output_usd_per_hour"):
        assert sum(getattr(u, field) for u in rows) == pytest.approx(getattr(whole, field), abs=0.005)
    for w, u in zip(plan.workloads, rows, strict=True):
        assert u is not None and w.input_tokens and w.output_tokens
        assert u.input_usd_per_hour + u.cached_input_usd_per_hour + u.output_usd_per_hour == pytest.approx(u.usd_per_hour, abs=0.005)
        hit = 0.5 if question == "hits" else 0.0
        per_request = w.output_tokens * u.usd_per_million_output_tokens + (1 - hit) * w.input_tokens * (u.usd_per_million_input_tokens or 0)
        per_request += hit * w.input_tokens * (u.usd_per_million_cached_input_tokens or 0)
        assert per_request / 1e6 * w.qps * 3600 == pytest.approx(u.usd_per_hour, abs=0.005)
        assert u.usd_per_thousand_requests == pytest.approx(per_request / 1e3)


def deployment(usd: float, **more: Any) -> Deployment:
    needed = dict.fromkeys(("model", "checkpoint", "mode", "precision", "engine", "gpu"), "x") | dict.fromkeys(("tp", "pp", "replicas", "gpus"), 1)
    rest = {"max_num_seqs": 8, "capacity_qps_per_replica": 1.0, "qps": 1.0, "slo_load": 0.5, "slo_load_one_replica_lost": None, "hosts": ()}
    return Deployment.model_validate(needed | rest | {"usd_per_hour": usd} | more)


def workload(name: str, qps: float, *routes: tuple[int, float]) -> PlanWorkload:
    routing = [{"deployment": i, "share": q / qps, "qps": q} for i, q in routes]
    return PlanWorkload.model_validate({"name": name, "demand": {"kind": "qps", "value": qps}, "qps": qps, "concurrency": None, "routing": routing})


def test_a_split_by_hand() -> None:
    """$8/h of engines and $2/h idle. Deployment 0 ($6): 1 req/s of chat works 0.1 s on prompts, 0.3 s on answers, 2 req/s of code 0.2 s on new prompt
    tokens, 0.05 s on cached ones and 0.05 s on answers: of 1 s, chat 0.1 and 0.3, code 0.4, 0.1 and 0.1.
    Deployment 1 ($2) serves 1 req/s of code, half and half."""
    asked = [
        Workload(name="chat", qps=1, input_tokens=1000, output_tokens=100),
        Workload(name="code", qps=3, input_tokens=1000, output_tokens=100, prefix_cache_hit=0.25),
    ]
    got = (workload("chat", 1, (0, 1.0)), workload("code", 3, (0, 2.0), (1, 1.0)))
    work = {(0, 0): Work(0.1, 0.0, 0.3), (0, 1): Work(0.2, 0.05, 0.05), (1, 1): Work(0.5, 0.0, 0.5)}
    (chat, code), whole = split_by_work([deployment(6), deployment(2)], got, asked, work, 10.0)
    assert chat.unit_costs and code.unit_costs
    assert [chat.unit_costs.input_usd_per_hour, chat.unit_costs.output_usd_per_hour] == pytest.approx([0.75, 2.25])
    parts = [code.unit_costs.input_usd_per_hour, code.unit_costs.cached_input_usd_per_hour, code.unit_costs.output_usd_per_hour]
    assert parts == pytest.approx([3.0 + 1.25, 0.75, 0.75 + 1.25])
    assert chat.unit_costs.usd_per_million_input_tokens == pytest.approx(0.75 / 3.6)  # 3.6 M tokens an hour
    assert chat.unit_costs.usd_per_million_cached_input_tokens is None
    assert code.unit_costs.usd_per_million_cached_input_tokens == pytest.approx(0.75 / 2.7)
    assert whole.usd_per_thousand_requests == pytest.approx(10 / 14.4) and whole.usd_per_hour == pytest.approx(10)


def test_a_disaggregated_unit_is_split_by_the_engines_of_its_roles() -> None:
    unit = deployment(8, prefill_engines=1, decode_engines=3)
    _, whole = split_by_work([unit], (workload("chat", 1, (0, 1.0)),), [Workload(qps=1)], {(0, 0): Work(0.5, 0.0, 0.1)}, 8.0)
    assert (whole.input_usd_per_hour, whole.output_usd_per_hour) == pytest.approx((2.0, 6.0))


def test_work_is_prompts_and_shared_steps_and_cached_tokens_cost_less_than_new_ones() -> None:
    card, gpu = next(c for c in catalog().cards if c.name == "Llama-3.1-8B"), catalog().gpus["H100-SXM-80GB"]
    one, coefficients = np.ones(1, dtype=np.int64), load_coefficients(catalog().coefficients_file)
    replica = Replicas((card.architecture,), (gpu,), 0 * one, 0 * one, 0 * one, 0 * one, one, one, one, one, 2 * one, 0 * one)
    for cached in (0.0, 0.3, 0.9):
        mix = lognormal_mix(8000, 200, 0.9, 0.8, cached=cached)
        curves = step_curves(replica, mix, coefficients)
        few, many = (work_of(replica, curves, mix, coefficients, n, 256) for n in (1, 64))
        at = list(curves.n).index(64)
        assert many.answer_s == pytest.approx(mix.mean_output * curves.step_s[0, at] / 64) and many.answer_s < few.answer_s / 10
        assert few.prompt_s + few.cached_s == pytest.approx(mix.mean_input * curves.prefill_s_per_token[0])
        assert few.cached_s == 0 if not cached else 0 < few.cached_s / cached < few.prompt_s / (1 - cached)


def test_an_api_bills_the_hits_at_its_own_price_or_at_the_list_price() -> None:
    price = next(p for p in catalog().api_prices if p.provider == "deepseek" and p.api_name == "deepseek/deepseek-v3.2")
    assert (price.usd_per_million_input, price.usd_per_million_cached_input) == (0.28, 0.028)
    asked = Workload(qps=1, input_tokens=1000, output_tokens=100, prefix_cache_hit=0.75)
    rest = 100 * price.usd_per_million_output
    assert api_cost(price, asked, 1.0, 1.0) == pytest.approx((250 * 0.28 + 750 * 0.028 + rest) * 3600 / 1e6)
    unknown = price.model_copy(update={"usd_per_million_cached_input": None})
    assert api_cost(unknown, asked, 1.0, 1.0) == pytest.approx((1000 * 0.28 + rest) * 3600 / 1e6)


@pytest.mark.parametrize("question", ["idle", "in flight"])
def test_at_the_break_even_the_api_costs_what_is_held(question: str) -> None:
    plan = planned(question)
    asked = Scenario.model_validate(QUESTIONS[question]).workload[0]
    for row in plan.api:
        price = next(p for p in catalog().api_prices if (p.provider, p.api_name, p.checkpoint) == (row.provider, row.api_name, row.checkpoint))
        assert row.break_even_qps and row.break_even_utilization and plan.api
        assert api_cost(price, asked, row.break_even_qps, 1.0) == pytest.approx(plan.cost.usd_per_hour)
        d = plan.deployments[0]
        full = d.capacity_qps_per_replica * (d.replicas - (question == "idle")) / asked.burst_factor  # peaks fill it, spares are gone
        assert row.break_even_qps / row.break_even_utilization == pytest.approx(full, rel=0.02)


def test_the_check_derives_every_share_again() -> None:
    plan = planned("hits")
    row = plan.workloads[0].unit_costs
    assert row is not None and plan.unit_costs is not None
    for field in type(row).model_fields:
        edited = row.model_copy(update={field: getattr(row, field) * 1.001})
        ours = plan.model_copy(update={"workloads": (plan.workloads[0].model_copy(update={"unit_costs": edited}),)})
        theirs = plan.model_copy(update={"unit_costs": edited})
        assert {b.name for b in check_plan(ours, catalog()).breaches} >= {"cost"} <= {b.name for b in check_plan(theirs, catalog()).breaches}, field
    assert not check_plan(plan.model_copy(update={"unit_costs": None}), catalog()).ok


def test_the_page_shows_unit_costs_and_the_list_price_where_hits_have_none() -> None:
    text = formatted(planned("two and shared"), "markdown", details=True)
    assert "## Unit costs" in text and "| together |" in text and "cached" not in text.split("## Unit costs")[1].split("|")[0]
    plan, prices = planned("hits"), catalog().api_prices
    known = [a.model_copy(update={"usd_per_million_cached_input": 0.01}) for a in prices]
    cheaper = solve(Scenario.model_validate(QUESTIONS["hits"]), replace(catalog(), api_prices=tuple(known)), compare=False)
    assert plan.api and "list price cached" in formatted(plan, "markdown", details=True) and "$0.01 cached" in formatted(cheaper, "markdown", details=True)
    assert min(a.usd_per_hour for a in cheaper.api) < min(a.usd_per_hour for a in plan.api)
