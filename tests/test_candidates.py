"""Pruning never changes the optimum: the program over every operating point of every replica type costs the same."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner import Catalog, Scenario, load_catalog, solve
from planner.candidates import columns
from planner.candidates.eligibility import eligibility
from planner.candidates.offers import allowed
from planner.candidates.points import Points
from planner.candidates.survey import memory_of, survey
from planner.catalog.records import ApiPrice, PowerGrid
from planner.scenario.apply import catalog_for
from planner.scenario.caps import FIELDS
from planner.search.answer import answer

TINY = Path(__file__).parent / "data" / "tiny"


@cache
def tiny() -> Catalog:
    return load_catalog([TINY], shipped=False)


@cache
def shipped() -> Catalog:
    return load_catalog()


def points_of(scenario: Scenario, catalog: Catalog) -> Points:
    catalog = catalog_for(catalog, scenario)
    return Points(survey(scenario, catalog, allowed(catalog.offers, scenario.supply)))


@cache
def on_grids() -> Catalog:
    """The tiny catalogue with a PUE and a carbon intensity of each place."""
    grids = {at: PowerGrid(provider=at[0], region=at[1], place="there", g_co2e_per_kwh=g, pue=pue, source="invented", licence="") for at, g, pue in GRIDS}
    return replace(tiny(), grids=grids)


def everything(points: Points, _scenario: Scenario, rows: Any, scores: Any, *_: Any) -> tuple[list[int], Counter[str]]:
    """In place of pruning: every row that serves some workload."""
    found = points.of(rows)
    return [int(r) for r in rows if any(max(p.single) > 0 for p in found[int(r)])], Counter()


def cost(question: dict[str, Any], catalog: Catalog, pruned: bool) -> float:
    scenario = Scenario.model_validate({**question, "solver": {"gap": 0, "time_limit": "60s"}})
    with pytest.MonkeyPatch.context() as patch:
        if not pruned:
            patch.setattr(columns, "undominated", everything)
            patch.setattr(columns, "_points_for", lambda found, _scenario: columns._distinct(found))
            patch.setattr(columns, "_without_pointless_tiers", lambda made, _scenario: made)
        found = answer(columns.formulation(points_of(scenario, catalog), scenario), break_ties=False)
    assert found.solution.status in ("optimal", "infeasible")
    return found.cost


WORKLOAD = st.fixed_dictionaries(
    {"qps": st.sampled_from([2, 15, 33, 70])},
    optional={
        "min_quality": st.sampled_from([0.5, 0.597, 0.7]),
        "slo": st.sampled_from([{"e2e_p95": "30s"}, {"ttft_p99": "1s", "tpot_p90": "30ms"}]),
        "output_tokens": st.sampled_from([60, 800]),
    },
)
POLICY = st.fixed_dictionaries(
    {},
    optional={
        "max_pools": st.integers(1, 2),
        "mix": st.just(True),
        "spare_replicas": st.just(1),
        "max_slo_load": st.just(0.8),
        "max_models": st.just(1),
        "router": st.just("random"),
        "max_gpu_types": st.just(1),
        "max_locations": st.just(2),
        "redundancy": st.sampled_from(["n+1-replica", "n+1-instance", "n+1-zone", "spot"]),
        "max_spot_share": st.just(0.5),
    },
)
GRIDS = ((("cloud", "north"), 40.0, 1.2), (("neo", "any"), 700.0, None))
CAPS = {  # amounts of every cap there is: one that is not listed here fails the test below
    "budget": ["9/h", "40/h"],
    "max_gpus": [12, 40],
    "quota": [{"GPU-80": 3}, {"GPU-24": 8, "GPU-80": 8}],
    "max_kw": [1.0, 2.9, 9.0],
    "max_kw_at": [{"cloud east": 1.4, "neo north": 0.8}, {"neo north": 2.2}],
    "max_carbon": [0.3, 1.0, 5.0],
}


@st.composite
def capped(draw: st.DrawFn) -> dict[str, dict[str, Any]]:
    """Policy and supply with one cap or two."""
    found: dict[str, dict[str, Any]] = {"policy": {}, "supply": {}}
    for field in draw(st.lists(st.sampled_from(FIELDS), max_size=2, unique=True)):
        found[field.part][field.name] = draw(st.sampled_from(CAPS[field.name]))
    return found


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(WORKLOAD, min_size=1, max_size=2), POLICY, capped(), st.sampled_from([0, 0, 300, 20_000]))
def test_pruning_keeps_the_optimum(workloads: list[dict[str, Any]], policy: dict[str, Any], caps: dict[str, dict[str, Any]], carbon_price: float) -> None:
    asked = {"policy": {**policy, **caps["policy"]}, "supply": caps["supply"], "objective": {"carbon_price": carbon_price}}
    question = {"workload": [{"name": f"w{i}", **w} for i, w in enumerate(workloads)], **asked}
    assert cost(question, on_grids(), pruned=True) == pytest.approx(cost(question, on_grids(), pruned=False), rel=2e-6)


LOSSES = st.fixed_dictionaries({"redundancy": st.sampled_from(["n+1-instance", "spot"]), "loss_slo_factor": st.sampled_from([1.2, 2.0])})


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(WORKLOAD, min_size=1, max_size=2), POLICY, LOSSES)
def test_pruning_keeps_the_optimum_with_longer_limits_after_a_loss(workloads: list[dict[str, Any]], policy: dict[str, Any], losses: dict[str, Any]) -> None:
    question = {"workload": [{"name": f"w{i}", **w} for i, w in enumerate(workloads)], "policy": {**policy, **losses}}
    assert cost(question, tiny(), pruned=True) == pytest.approx(cost(question, tiny(), pruned=False), rel=2e-6)


BULK = st.fixed_dictionaries({"neo": st.sampled_from([1, 2, 6]), "cloud": st.sampled_from([1, 4])})


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(WORKLOAD, min_size=1, max_size=2), POLICY, BULK)
def test_pruning_keeps_the_optimum_of_what_is_sold_in_bulk(workloads: list[dict[str, Any]], policy: dict[str, Any], fewest: dict[str, int]) -> None:
    catalog = replace(tiny(), offers=tuple(o.model_copy(update={"minimum": fewest[o.provider]}) for o in tiny().offers))
    question = {"workload": [{"name": f"w{i}", **w} for i, w in enumerate(workloads)], "policy": policy}
    assert cost(question, catalog, pruned=True) == pytest.approx(cost(question, catalog, pruned=False), rel=2e-6)


def sold(model: str, checkpoint: str, usd: float, provider: str) -> ApiPrice:
    rest = {"api_name": "x", "as_of": date(2026, 3, 1), "source": "invented for the tests", "licence": "none"}
    return ApiPrice.model_validate(rest | {"provider": provider, "model": model, "checkpoint": checkpoint} | dict.fromkeys(BILLED, usd))


BILLED = ("usd_per_million_input", "usd_per_million_output")
APIS = st.fixed_dictionaries({"small": st.sampled_from([None, 0.01, 0.03, 0.1]), "large": st.sampled_from([0.05, 0.2, 0.6])})


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(WORKLOAD, min_size=1, max_size=2), POLICY, APIS, st.sampled_from(["all", "overflow", "overflow"]), st.sampled_from([{}, {"one": 9.0}]))
def test_pruning_keeps_the_optimum_beside_apis(
    workloads: list[dict[str, Any]], policy: dict[str, Any], usd: dict[str, float | None], how: str, limit: dict[str, float]
) -> None:
    prices = [sold("Large-60B", "example/large-60b", usd["large"] or 0.0, "two")]
    prices += [sold("Small-8B", "example/small-8b", small, "one"), sold("Small-8B", "example/small-8b", 1.3 * small, "two")] if (small := usd["small"]) else []
    catalog = replace(tiny(), api_prices=tuple(prices))
    every = [{"name": f"w{i}", **w} for i, w in enumerate(workloads)]
    policy = {name: value for name, value in policy.items() if name not in ("redundancy", "load_after_loss")}  # which is refused beside an API
    question = {"workload": every, "policy": {**policy, "api": how}, "supply": {"api_limit": limit}}
    assert cost(question, catalog, pruned=True) == pytest.approx(cost(question, catalog, pruned=False), rel=2e-6)


def test_every_cap_there_is_takes_part() -> None:
    assert CAPS.keys() == {field.name for field in FIELDS}


@settings(max_examples=4, deadline=None, derandomize=True)
@given(st.sampled_from([5, 40]), st.sampled_from([0.65, 0.75]))
def test_pruning_keeps_the_optimum_of_the_shipped_catalogue(qps: float, floor: float) -> None:
    question = {"workload": [{"qps": qps, "min_quality": floor}], "supply": {"gpus": ["H100-SXM-80GB", "L40S"], "providers": ["verda", "runpod"]}}
    assert cost(question, shipped(), pruned=True) == pytest.approx(cost(question, shipped(), pruned=False), rel=2e-6)


# ---- who may serve


def reasons(**workload: Any) -> Counter[str]:
    scenario = Scenario.model_validate({"workload": [{"qps": 1, **workload}]})
    return Counter(e.why[0] for e in eligibility(scenario, tiny()))


def test_every_exclusion_has_its_reason() -> None:
    assert reasons() == {"": 3, "no output factor": 1}
    assert reasons(output_factor=4) == {"": 4}
    assert reasons(min_quality=0.7) == {"": 1, "quality": 2, "no output factor": 1}
    assert reasons(min_quality=0.594) == {"": 3, "no output factor": 1}  # the derived score of the FP8 checkpoint, exactly
    assert reasons(models=["example/small-8b"]) == {"": 1, "not asked for": 3}
    assert reasons(input_tokens=40_000) == {"context": 3, "no output factor": 1}  # the longest prompts of the mix do not fit
    assert reasons(input_tokens=40_000, input_cv=0) == {"": 1, "context": 2, "no output factor": 1}
    assert reasons(input_tokens=100_000, output_tokens=20_000, input_cv=0, output_cv=0, output_factor=2) == {"": 1, "context": 3}
    assert reasons(quality_metric="gpqa", min_quality=0.1) == {"no score": 4}


def test_only_what_kernels_memory_and_shapes_allow_is_surveyed() -> None:
    scenario = Scenario.model_validate({"workload": [{"qps": 1}]})
    found = points_of(scenario, shipped()).survey
    r = found.replicas
    for row in range(0, len(r), 7):
        gpu, shape = r.gpus[int(r.gpu[row])], found.shapes[int(found.shape[row])]
        a, tp = shape.card.architecture, int(r.tp[row])
        assert shape.precision in gpu.precisions
        assert a.attention_heads % (tp // int(r.dp[row])) == 0
        assert tp <= max(o.max_tp for o in found.offers if o.gpu == gpu.name)
        if shape.fp8_block and a.expert_intermediate_size and r.ep[row] == 1:
            assert a.expert_intermediate_size % (tp * shape.fp8_block) == 0
        assert not found.physics[0].slots[row] or memory_of(found, 0, np.array([row]), 2048).weights[0] < gpu.memory_gib
    for reason in ("memory", "no kernels for the precision", "does not split by TP", "no node that wide", "GPU not on offer"):
        assert found.excluded[reason] > 0, reason


@pytest.mark.parametrize("qps", [40.0, 96.9, 183.0, 258.6])
def test_allowing_a_second_pool_never_costs_more(qps: float) -> None:
    """Pools of every size have their own capacity, so a looser rule can only find cheaper plans."""
    catalog = load_catalog()
    supply = {"providers": ["verda", "runpod", "aws"]}
    workload = [{"qps": qps, "min_quality": 0.6, "input_tokens": 4000, "output_tokens": 800, "slo": {"ttft_p95": "500ms", "tpot_p95": "20ms"}}]
    costs = []
    for policy in ({}, {"max_pools": 2}):
        scenario = Scenario.model_validate({"workload": workload, "supply": supply, "policy": policy, "solver": {"gap": 1e-6}})
        costs.append(solve(scenario, catalog, compare=False).cost.usd_per_hour)
    assert costs[1] <= costs[0] * (1 + 2e-6)


LIMITS: tuple[dict[str, str], ...] = ({}, {"tpot_p99": "20ms"}, {"tpot_p50": "15ms"}, {"itl_p99": "60ms"}, {"ttft_p95": "none"}, {"e2e_p95": "20s"})


@pytest.mark.parametrize("lengths", [(4000, 5), (500, 50), (1000, 300)], ids=lambda n: f"{n[0]}-{n[1]}")
def test_no_capacity_exceeds_the_bound_that_rows_are_pruned_by(lengths: tuple[int, int]) -> None:
    """Neither alone nor in a large pool, over a sample of all replica types; a row bounded by nothing carries next to nothing."""
    rng = np.random.default_rng(0)
    for slo in LIMITS:
        workload = {"qps": 20, "input_tokens": lengths[0], "output_tokens": lengths[1], "slo": slo}
        points = points_of(Scenario.model_validate({"workload": [workload], "supply": {"gpus": ["B200-SXM", "H100-SXM-80GB", "L4"]}}), shipped())
        rows = rng.choice(len(points.survey.replicas), 40, replace=False)
        bound, found = points.survey.physics[0].most_qps[rows], points.of(rows)
        reached = np.array([max((max(p.single[0], p.saturated[0]) for p in found[int(r)]), default=0.0) for r in rows])
        assert np.all(reached <= np.where(bound > 0, bound * (1 + 1e-9), 0.05)), slo


def test_short_answers_to_long_prompts_find_their_cheapest_plan() -> None:
    """Of classifying 4,000 tokens: bounded by a cycle too long, the cheapest row was pruned and $6.87/h proven. Every row of its GPU agrees."""
    asked = {"workload": [{"qps": 20, "min_quality": 0.6, "input_tokens": 4000, "output_tokens": 5}]}
    plan = solve(Scenario.model_validate(asked), shipped(), compare=False)
    one = {**asked, "supply": {"gpus": [plan.deployments[0].gpu]}}
    assert plan.cost.usd_per_hour < 6.87
    assert cost(one, shipped(), pruned=False) >= plan.cost.usd_per_hour * (1 - 1e-9)
