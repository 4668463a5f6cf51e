"""`plan curve`: cost, elasticity, saturation and zone by hand on a made curve; facts of predicted and measured ones; the frontier of one model."""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner import Catalog, load_catalog
from planner.economics.curve import SATURATED, Loads, UserLimits, cost_curve, no_zone
from planner.economics.speed import speed_frontier, unbeaten
from planner.validation.single import AskedConfiguration

ROOT = Path(__file__).parent.parent
EIGHT_B = ["curve", "meta-llama/Llama-3.1-8B-Instruct", "--gpu", "H100-SXM-80GB"]
DOUBLINGS = np.array([1.0, 2, 4, 8, 16, 32, 64, 128, 256])

Run = Callable[..., tuple[int, str, str]]


@cache
def catalog() -> Catalog:
    return load_catalog()


def made(a: float = 1.0, b: float = 0.1, n: np.ndarray = DOUBLINGS) -> Loads:
    """Requests of 101 tokens that take a + b N seconds, TTFT none of it, at $36 an hour: a cent a second."""
    return Loads(n, np.zeros_like(n), (a + b * n) / 100, 101.0, 36.0)


def asked(run: Run, *words: str) -> dict[str, Any]:
    status, out, err = run(*words, "--format", "json")
    assert (status, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    return found


# ---- by hand


def test_average_cost_falls_to_the_marginal_one() -> None:
    """R = 1 + 0.1 N: N requests at once cost 1 + 0.1 N cents, so one costs 1/N + 0.1 cents, and one more always 0.1 cents."""
    loads = made()
    assert loads.usd_per_request == pytest.approx((1 / DOUBLINGS + 0.1) / 100)
    assert loads.marginal_usd_per_request[1:] == pytest.approx(0.001)
    assert np.isnan(loads.marginal_usd_per_request[0])


def test_elasticity_is_the_share_of_cost_that_load_still_saves() -> None:
    """Where R = a + b N, doubling to N brings the share a / (a + b N) more throughput, and no load beyond N saves more than it."""
    loads = made()
    share = 1 / (1 + 0.1 * DOUBLINGS)
    assert 2 ** loads.elasticity[1:] - 1 == pytest.approx(share[1:])
    floor = made(n=np.array([1e9])).usd_per_request[0]
    assert 1 - floor / loads.usd_per_request == pytest.approx(share, rel=1e-6)


def test_saturation_is_where_doubling_brings_less_than_a_tenth() -> None:
    """1 / (1 + 0.1 N) falls below a tenth after N = 90."""
    assert made().saturation() == 128
    assert made(n=np.arange(1.0, 200)).saturation() == 91
    assert made(n=np.arange(1.0, 90)).saturation() is None
    assert made(a=0.0).saturation() == 2  # nothing is gained at all
    assert made(b=0.0).saturation() is None  # everything always


def test_the_zone_ends_where_a_user_gets_too_slow_and_begins_a_tenth_above_its_best() -> None:
    """20 tokens/s allow (1 + 0.1 N) / 100 = 50 ms: N = 40. A tenth dearer than 1/40 + 0.1 is 1/N + 0.1 at N = 26.67."""
    zone = made(n=np.arange(1.0, 201)).zone(UserLimits())
    assert zone is not None
    assert (zone.low, zone.best, zone.high, zone.ends) == (27, 40, 40, ("speed",))
    assert zone.premium_first == pytest.approx(1.1 / 0.125 - 1)
    assert zone.premium_half == pytest.approx((1 / 13.5 + 0.1) / 0.125 - 1)
    assert zone.saved_last == pytest.approx(1 - 0.105 / 0.125)
    assert zone.slower_last == pytest.approx(21 / 5)


def test_without_limits_that_bind_the_zone_is_the_flat_end() -> None:
    zone = made(n=np.arange(1.0, 201)).zone(UserLimits(1e-3, 1e3))
    assert zone is not None
    assert (zone.best, zone.high, zone.ends) == (200, 200, ("end",))
    assert zone.low == 65  # 1/N + 0.1 <= 1.1 x 0.105


def test_a_load_that_is_dearer_ends_the_zone() -> None:
    """An engine that thrashes: throughput falls beyond 4 requests."""
    loads = Loads(np.array([1.0, 2, 4, 8]), np.zeros(4), np.array([1.0, 1.1, 1.2, 4.0]) / 100, 101.0, 36.0)
    zone = loads.zone(UserLimits())
    assert zone is not None
    assert (zone.low, zone.best, zone.high, zone.ends) == (4, 4, 4, ("cost",))
    assert loads.elasticity[-1] < 0 and loads.marginal_usd_per_request[-1] > loads.usd_per_request[-1]


def test_reasons_why_there_is_no_zone() -> None:
    late, slow = UserLimits(max_ttft_s=1e-9), UserLimits(min_tps_per_user=100)
    loads = Loads(DOUBLINGS, DOUBLINGS[::-1].copy(), DOUBLINGS / 100, 101.0, 36.0)
    assert made().zone(slow) is None and no_zone(made(), slow) == "a user never gets more than 90.9 tokens/s"
    assert no_zone(loads, late) == "TTFT is 1 s or more at every load"
    assert no_zone(loads, UserLimits(90, 2)) == "no load holds both limits"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0.1, 1.0), min_size=4, max_size=9), st.floats(1, 200), st.floats(0.01, 3))
def test_marginal_cost_is_below_average_cost_exactly_where_the_average_falls(growth: list[float], speed: float, ttft: float) -> None:
    """Residence that grows by any steps: identities of cost, and a zone that holds its limits and is cheapest."""
    residence = 2.0 * np.cumprod(np.array([1.0, *(1 + g for g in growth)]))
    n = DOUBLINGS[: len(residence)] if len(residence) <= len(DOUBLINGS) else 2.0 ** np.arange(len(residence))
    loads = Loads(n, residence * 0.1, residence * 0.9 / 100, 101.0, 10.0)
    cost, marginal = loads.usd_per_request, loads.marginal_usd_per_request[1:]
    assert marginal == pytest.approx(2 * cost[1:] - cost[:-1])  # of N requests, N/2 cost what they cost before
    assert ((cost[1:] < cost[:-1]) == (marginal < cost[1:])).all()
    limits = UserLimits(speed, ttft)
    zone, held = loads.zone(limits), loads.held(limits)
    assert (zone is None) == (not held.any())
    if zone is not None:
        inside = (n >= zone.low) & (n <= zone.high)
        assert held[inside].all() and cost[n == zone.best][0] == cost[held].min()
        assert (cost[inside] <= 1.1 * cost[held].min()).all()


# ---- predicted


def test_the_cost_of_a_token_is_the_price_over_the_throughput(run: Run) -> None:
    found = asked(run, *EIGHT_B, "--tp", "2", "--usd-per-hour", "3")
    assert found["usd_per_hour"] == 6 and found["price"] == "as given"
    for p in found["points"]:
        assert p["usd_per_million_output"] == pytest.approx(6 / 3600 / (2 * p["tps_per_gpu"]) * 1e6, rel=1e-4)
        assert p["usd_per_request"] == pytest.approx(p["usd_per_million_output"] * 300 / 1e6, rel=1e-4)
        assert p["usd_per_million_output_low"] <= p["usd_per_million_output"] <= p["usd_per_million_output_high"]


def test_prices_scale_money_and_nothing_else(run: Run) -> None:
    one, two = (asked(run, *EIGHT_B, "--usd-per-hour", usd) for usd in ("1", "2"))
    assert one["zone"] == two["zone"] and one["saturation"] == two["saturation"]
    for p, q in zip(one["points"], two["points"], strict=True):
        assert q["usd_per_request"] == pytest.approx(2 * p["usd_per_request"], rel=1e-4)
        assert p["elasticity"] == q["elasticity"]


def test_loads_run_from_one_to_what_has_room_and_agree_with_plan_predict(run: Run) -> None:
    found = asked(run, *EIGHT_B)
    loads = [p["concurrency"] for p in found["points"]]
    assert loads == sorted(set(loads)) and loads[0] == 1 and {2, 4, 8, 16, 32, 64, 128}.issubset(loads)
    predicted = asked(
        run, "predict", "--checkpoint", EIGHT_B[1], "--gpu", EIGHT_B[3], "--isl", "1000", "--osl", "300", "--concurrency", ",".join(map(str, loads))
    )
    assert loads[-1] == min(predicted["requests_with_room"], 1024)
    for p, q in zip(found["points"], predicted["points"], strict=True):
        assert all(p[k] == pytest.approx(q[k], rel=1e-4) for k in ("ttft_ms", "ttft_high_ms", "tpot_ms", "tpot_low_ms", "tps_per_user", "tps_per_gpu"))


def test_the_three_principles_on_one_gpu(run: Run) -> None:
    """An 8B model on an H200: cost falls at every load, returns diminish to saturation, and a zone lies in between."""
    found = asked(run, *EIGHT_B[:-1], "H200-SXM-141GB")
    cost, returns = ([p[k] for p in found["points"]] for k in ("usd_per_million_output", "elasticity"))
    assert all(b <= a for a, b in pairwise(cost))
    assert returns[1] > 0.9 and returns[-1] < SATURATED and returns[0] is None
    zone = found["zone"]
    assert 1 < zone["low"] < zone["best"] <= zone["high"] < found["points"][-1]["concurrency"]
    assert zone["ends"] == ["speed"] and zone["premium_first"] > 10
    assert found["sure_to"] <= zone["high"]
    for p in found["points"]:
        assert p["in_zone"] == (zone["low"] <= p["concurrency"] <= zone["high"])
        assert not (p["in_zone"] and p["broken"])


def test_marginal_cost_may_rise_towards_saturation_while_the_average_falls(run: Run) -> None:
    """The average falls exactly while marginal cost is below it; the principle of diminishing marginal cost is one of the average."""
    points = asked(run, "curve", "openai/gpt-oss-120b", "--gpu", "B200-SXM", "--isl", "1024", "--osl", "1024")["points"]
    average, marginal = ([p[k] for p in points[1:]] for k in ("usd_per_million_output", "marginal_usd_per_million_output"))
    assert all(b < a for a, b in pairwise(average)) and all(m < a for m, a in zip(marginal, average, strict=True))
    least = marginal.index(min(marginal))
    assert 0 < least < len(marginal) - 1 and marginal[-1] > 1.05 * marginal[least] and marginal[0] > 4 * marginal[least]


def test_shapes_of_marginal_cost_are_counted_apart_from_the_average() -> None:
    found = json.loads((Path(__file__).parent.parent / "benchmarks" / "results" / "principles.json").read_text())
    for name in ("measured", "predicted 1024/1024", "predicted 8192/1024"):
        every, of = found[name]["marginal_cost"], found[name]["returns"]
        assert sum(every["true marginal cost over successive doublings"].values()) == found[name]["curves"]
        saturated = every["the same of those that reach saturation"]
        assert sum(saturated.values()) == of["saturates"] and saturated["falls"] + saturated["level"] < 0.2 * of["saturates"]


def test_limits_move_the_zone(run: Run) -> None:
    usual, fast = asked(run, *EIGHT_B)["zone"], asked(run, *EIGHT_B, "--min-tokens-per-user", "100/s")["zone"]
    assert fast["high"] < usual["low"]
    never = asked(run, *EIGHT_B, "--min-tokens-per-user", "1000")
    assert never["zone"] is None and "never gets more than" in never["why_no_zone"]


def test_a_token_at_a_tenth_of_the_rate_costs_ten_times_as_much(run: Run) -> None:
    """The replica is paid whether it works or not (arXiv 2606.11690)."""
    offered = asked(run, *EIGHT_B)["offered"]
    most = offered[-1]["qps"]
    assert [o["qps"] for o in offered][:3] == [0.1, 1, 10] and offered[-1]["penalty"] == 1
    for o in offered:
        assert o["penalty"] == pytest.approx(most / o["qps"], rel=1e-4)
        assert o["usd_per_million_output"] == pytest.approx(offered[-1]["usd_per_million_output"] * o["penalty"], rel=1e-4)
    latency = [o["ttft_p95_ms"] for o in offered[:-1]]
    assert latency == sorted(latency) and offered[-1]["ttft_ms"] is None


def test_the_price_is_that_of_the_cheapest_admitted_offer(run: Run) -> None:
    found = asked(run, *EIGHT_B)
    admitted = [o for o in catalog().offers if o.gpu == "H100-SXM-80GB" and o.kind in ("hyperscaler", "neocloud") and o.purchase == "on_demand"]
    assert found["usd_per_gpu_hour"] == pytest.approx(min(o.usd_per_hour / o.gpus_per_instance for o in admitted), rel=1e-5)
    assert any(o.instance_type in found["price"] for o in admitted)


# ---- measured


def test_cost_falls_and_requests_slow_on_nearly_every_measured_curve() -> None:
    """The shipped curves: throughput rises with the load, always less than in proportion once it counts, and users pay in latency."""
    rows = defaultdict(dict)
    with (ROOT / "catalogs" / "curves.csv").open(newline="") as file:
        for r in csv.DictReader(file):
            rows[r["curve"], float(r["osl"])][float(r["concurrency"])] = (float(r["ttft_ms"]) / 1000, float(r["tpot_ms"]) / 1000)
    curves = [Loads(np.array(sorted(c)), *np.array([c[n] for n in sorted(c)]).T, osl, 1.0) for (_, osl), c in rows.items() if len(c) >= 4]
    assert len(curves) > 100
    assert np.mean([(np.diff(c.usd_per_request) < 0).all() for c in curves]) > 0.9
    assert np.mean([c.residence_s[-1] > c.residence_s[0] for c in curves]) > 0.99
    assert np.mean([c.zone(UserLimits()) is not None for c in curves]) > 0.9


# ---- frontier of one model


def test_unbeaten_points_by_hand() -> None:
    assert unbeaten(np.array([1.0, 2, 3, 3, 2]), np.array([5.0, 4, 1, 2, 4])) == [0, 1, 3]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30))
def test_unbeaten_points_are_those_of_brute_force(points: list[tuple[int, int]]) -> None:
    kept = [points[i] for i in unbeaten(*np.array(points, dtype=float).T)]
    pareto = {p for p in points if not any(q != p and q[0] >= p[0] and q[1] >= p[1] for q in points)}
    assert kept == sorted(pareto)


@pytest.mark.parametrize("by", ["throughput", "cost"])
def test_the_frontier_trades_speed_for_worth(run: Run, by: str) -> None:
    found = asked(run, "curve", "Llama-3.1-70B", "--frontier", "--by", by)
    speed = [p["tps_per_user"] for p in found["points"]]
    worth = [p["tps_per_gpu"] if by == "throughput" else -p["usd_per_million_output"] for p in found["points"]]
    assert len(speed) > 5 and speed == sorted(speed) and worth == sorted(worth, reverse=True)
    assert all(p["ttft_ms"] <= 1000 for p in found["points"])
    assert {p["tp"] for p in found["points"]} - {1}  # splitting layers buys speed


def test_no_single_gpu_beats_the_frontier_over_all() -> None:
    everywhere = speed_frontier("Llama-3.1-8B", catalog(), isl=1000, osl=300)
    one = speed_frontier("Llama-3.1-8B", catalog(), isl=1000, osl=300, gpu="H100-SXM-80GB")
    assert one.replica_types < everywhere.replica_types and {p.gpu for p in one.points} == {"H100-SXM-80GB"}
    for p in one.points:
        assert any(min(q.tps_per_user / p.tps_per_user, q.tps_per_gpu / p.tps_per_gpu) > 1 - 1e-9 for q in everywhere.points)


# ---- command


def test_formats(run: Run) -> None:
    status, out, _ = run(*EIGHT_B, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert status == 0 and {r["in_zone"] for r in rows} == {"True", "False"} and rows[0]["elasticity"] == ""
    for words in (EIGHT_B, ["curve", "Llama-3.1-8B"]):
        status, out, _ = run(*words)
        assert status == 0 and "█" in out
        assert run(*words, "--format", "markdown")[1].startswith("## ")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["curve", "Lama-3.1-8B", "--gpu", "H100-SXM-80GB"], "MODEL: unknown checkpoint or model 'Lama-3.1-8B'"),
        (["curve", "Lama-3.1-8B"], "MODEL: unknown checkpoint or model 'Lama-3.1-8B'"),
        (["curve", "Llama-3.1-8B", "--gpu", "H1000"], "--gpu: unknown GPU 'H1000'"),
        (["curve", "Llama-3.1-70B", "--gpu", "L4"], "does not fit"),
        (["curve", "Llama-3.1-8B", "--gpu", "Gaudi3", "--tp", "8"], "--usd-per-hour"),
        (["curve", "Llama-3.1-8B", "--tp", "2"], "--tp: means nothing to a frontier"),
        (["curve", "Llama-3.1-8B", "--by", "costs"], "--by: no frontier by 'costs'"),
        ([*EIGHT_B, "--max-ttft", "1"], "--max-ttft: '1' needs a unit"),
        ([*EIGHT_B, "--min-tokens-per-user", "fast"], "--min-tokens-per-user: 'fast' is not tokens per second"),
        ([*EIGHT_B, "--usd-per-hour", "0"], "--usd-per-hour: must be more than zero"),
        ([*EIGHT_B, "--confidence", "1"], "--confidence"),
        (["curve", "Llama-3.1-8B", "--isl", "200000"], "--isl"),
    ],
)
def test_errors_are_one_line(run: Run, words: list[str], says: str) -> None:
    status, out, err = run(*words)
    assert (status, out) == (2, "") and says in err and err.count("\n") == 1


# ---- charts


def test_charts_shade_the_zone_and_hold_every_point() -> None:
    pytest.importorskip("altair")
    from planner.report.charts import cost_chart, speed_chart

    question = AskedConfiguration("Llama-3.1-8B", "H100-SXM-80GB", 1, 1, 1, 1, "auto", "vllm", 1000, 300, (1,), 0.9)
    found = cost_curve(question, catalog())
    drawn = json.dumps(cost_chart(found).to_dict())
    assert found.zone is not None and f'"low": {found.zone.low}, "high": {found.zone.high}' in drawn
    frontier = speed_frontier("Llama-3.1-8B", catalog(), isl=1000, osl=300)
    assert json.dumps(speed_chart(frontier).to_dict()).count('"tps_per_user": ') == len(frontier.points)
