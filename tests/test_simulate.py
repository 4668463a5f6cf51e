"""The simulator: agrees with a plain step-by-step one, with queueing theory where that is exact, and tells what a plan's users will see."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import planner
from planner import Scenario, load_catalog, simulate, solve
from planner.cli.main import main
from planner.errors import PlannerError
from planner.performance.lengths import lognormal_mix
from planner.performance.memory import memory_fit
from planner.performance.replicas import ENGINES, PRECISIONS, Replicas
from planner.planning.periods import autoscale
from planner.planning.verify import solve_verified
from planner.result.plan import PeriodCount, Plan
from planner.simulation.hours import simulate_hours
from planner.simulation.results import quantile
from planner.simulation.state import BATCHES, Engine, FleetChange, Flow, Running
from planner.simulation.stream import Ints, Poisson, RecordedTrace, RequestBlock, Stream, lognormal_lengths, merged, read_trace, superposed
from tests.steps import Request, Rules
from tests.steps import simulate as by_steps

LENGTHS = lognormal_lengths(400, 60, 0.9, 0.8)


def engine(seqs: int = 32, kv: int = 10**9, budget: int = 512, whole: float | None = None, overhead: float = 0.0, flow: Flow | None = None) -> Engine:
    """Steps of 5 ms + 0.3 ms for each sequence, 30 us per prompt token."""
    step = 5e-3 + 3e-4 * np.arange(seqs + 1.0)
    return Engine(step, (flow or Flow(30e-6),), kv, budget, overhead, whole)


def run(made: Engine, stream: Stream, replicas: int = 1, router: str = "least_loaded", changes: tuple[FleetChange, ...] = (), seed: int = 0) -> Running:
    running, done = Running(made, replicas, router, seed, stream.seconds / 240, changes), 0
    for block in stream.blocks():
        batch = (done + np.arange(len(block))) * BATCHES // stream.count
        done += len(block)
        running.feed(block, batch)
    running.finish()
    return running


def means(running: Running) -> tuple[float, float, float]:
    """Mean TTFT, TPOT and E2E in seconds of all requests."""
    counted, sums = running.sim.counts[0, :, 4].sum(), running.sim.sums[0]
    return sums[3] / counted, sums[4] / max(sums[6], 1), sums[5] / counted


@pytest.mark.parametrize(
    ("replicas", "kv", "budget", "whole", "computed", "overhead"),
    [
        (1, 10**9, 512, None, 1.0, 0.0),
        (1, 10**9, 8192, None, 0.4, 0.004),
        (3, 10**9, 256, None, 1.0, 0.0),
        (1, 6000, 512, None, 1.0, 0.0),
        (2, 5500, 2048, None, 0.7, 0.0),
        (2, 6000, 8192, 2e-3, 1.0, 0.0),
    ],
)
def test_agrees_with_a_simulation_of_every_single_step(replicas: int, kv: int, budget: int, whole: float | None, computed: float, overhead: float) -> None:
    made = engine(24, kv, budget, whole, overhead, Flow(30e-6, computed, ttft=0.5, tpot=0.02))
    stream = Poisson([11.0 * replicas], [LENGTHS], 3000, seed=4)
    block = next(iter(stream.blocks()))
    fits = block.prompt + block.answer <= kv
    rules = Rules(made.step_s, 30e-6, budget, kv, computed, whole, overhead)
    asked = [Request(float(t), int(p), int(a)) for t, p, a in zip(block.arrival_s[fits], block.prompt[fits], block.answer[fits], strict=True)]
    served, preempted = by_steps(asked, replicas, rules)
    running = run(made, RecordedTrace(block.take(fits)), replicas)
    ttft = np.array([q.first - q.arrival for q in served])
    several = [q for q in served if q.answer > 1]
    tpot = np.array([(q.finish - q.first) / (q.answer - 1) for q in several])
    e2e = np.array([q.finish - q.arrival for q in served])
    assert means(running) == pytest.approx((ttft.mean(), tpot.mean(), e2e.mean()), rel=1e-9)
    assert running.sim.happened["preempted"] == preempted
    assert (preempted > 3) == (kv < 10**9)  # the cases mean what they say
    inside = running.sim.counts[0].sum(axis=0)
    assert inside[0] == (ttft <= 0.5).sum()
    assert inside[4] == len(served)
    assert not running.sim.fleet["kv"].any()  # every token of the cache was given back
    for i, values in enumerate((ttft, tpot, e2e)):
        for share in (0.5, 0.95, 0.99):
            exact = float(np.quantile(values, share, method="inverted_cdf"))
            assert quantile(running.sim.histogram[0, i], share) == pytest.approx(exact, rel=0.011)


def test_a_server_of_prompts_alone_is_the_queue_of_pollaczek_and_khinchine() -> None:
    """One prompt at a time and no answers to decode: M/G/1, whose mean wait is rate E[s^2] / 2 (1 - load)."""
    made = Engine(np.zeros(2), (Flow(1e-4),), 10**9, whole_s=0.0)
    rate, mean, cv = 15.0, 400.0, 1.2

    def ones(rng: np.random.Generator, many: int) -> tuple[Ints, Ints]:
        return lognormal_lengths(mean, 1, cv, 0)(rng, many)[0], np.ones(many, np.int64)

    ttft = means(run(made, Poisson([rate], [ones], 400_000, seed=2)))[0]
    service = mean * 1e-4
    wait = rate * service**2 * (1 + cv**2) / (2 * (1 - rate * service))
    assert ttft == pytest.approx(service + wait, rel=0.03)


def test_an_endless_supply_of_slots_is_processor_sharing() -> None:
    """Steps that take as long as sequences are many share one server equally: mean E2E = work / (1 - load), whatever the lengths' spread."""
    made = Engine(1e-3 * np.arange(400.0), (Flow(0.0),), 10**9)
    for cv in (0.0, 1.0):
        e2e = means(run(made, Poisson([6.0], [lognormal_lengths(10, 100, 0, cv)], 150_000, seed=3)))[2]
        assert e2e == pytest.approx(0.1 / (1 - 0.6), rel=0.04)


def test_littles_law() -> None:
    stream = Poisson([40.0], [LENGTHS], 100_000, seed=5)
    running = run(engine(64, overhead=0.0), stream, 4)
    seconds = float(running.sim.fleet["start"].max())
    in_flight = (running.sim.series[:, 4] + running.sim.series[:, 5]).mean()  # running and waiting at 240 moments
    assert in_flight == pytest.approx(100_000 / seconds * means(running)[2], rel=0.05)


def test_the_same_seed_gives_the_same_and_another_seed_does_not() -> None:
    def outcome(seed: int) -> tuple[float, float, float]:
        return means(run(engine(), Poisson([30.0], [LENGTHS], 5000, seed), 3, "random", seed=seed))

    assert outcome(1) == outcome(1)
    assert outcome(1) != outcome(2)


def test_fewer_requests_wait_behind_a_router_that_knows_the_load() -> None:
    stream = Poisson([13.5 * 8], [LENGTHS], 40_000, seed=6)
    late = {router: means(run(engine(8), stream, 8, router))[0] for router in ("random", "round_robin", "least_loaded")}
    assert late["least_loaded"] < late["round_robin"] < late["random"]


def test_a_full_cache_preempts_and_costs_time() -> None:
    stream = Poisson([12.0], [LENGTHS], 20_000, seed=7)
    roomy, tight = run(engine(64), stream), run(engine(64, kv=6000), stream)
    assert roomy.sim.happened["preempted"] == 0 < tight.sim.happened["preempted"]
    assert means(tight)[2] > means(roomy)[2]


def test_answers_of_very_different_lengths_are_hardly_preempted_at_the_sequences_that_memory_gives() -> None:
    catalog, cv = load_catalog(), 1.5
    card = next(c for c in catalog.cards if c.name == "gpt-oss-120b")
    zero, numbers = (
        np.zeros(1, np.int64),
        [np.array([PRECISIONS.index("mxfp4")]), np.array([ENGINES.index("vllm")]), np.ones(1, np.int64), np.ones(1, np.int64)],
    )
    memory = memory_fit(Replicas((card.architecture,), (catalog.gpus["H100-SXM-80GB"],), zero, zero, *numbers), lognormal_mix(500, 2000, cv, cv))
    seqs, kv = int(memory.slots[0]), int(memory.kv_budget_gib[0] / memory.kv_gib_per_sequence[0] * 2500)
    made = Engine(0.01 + 1e-4 * np.arange(seqs + 1.0), (Flow(3e-5),), kv, 8192, 0.01)
    full = seqs / (2000 * (made.step_s[seqs] + 3e-5 * 500 * seqs / 2000))
    for load, most in ((0.6, 0.001), (0.8, 0.01), (0.9, 0.03)):  # by whole requests of mean length: 0.5 at a load of 0.9
        found = run(made, Poisson([load * full], [lognormal_lengths(500, 2000, cv, cv)], 30_000, 3))
        assert found.sim.happened["preempted"] / 30_000 < most


def test_prefix_hits_relieve_prompts() -> None:
    stream = Poisson([14.0], [LENGTHS], 20_000, seed=8)
    cold, warm = (run(engine(flow=Flow(30e-6, computed)), stream) for computed in (1.0, 0.3))
    assert means(warm)[0] < means(cold)[0]
    assert means(warm)[1] < means(cold)[1]


def test_a_request_that_no_cache_holds_is_refused_and_counts_as_missed() -> None:

    def lengths(_: np.random.Generator, many: int) -> tuple[Ints, Ints]:
        return np.full(many, 900), np.full(many, 200)

    running = run(engine(kv=1000), Poisson([1.0], [lengths], 100))
    assert running.sim.happened["refused"] == running.sim.counts[0, :, 4].sum() == 100
    assert running.sim.counts[0, :, 3].sum() == 0


def test_a_failed_replica_hands_over_and_comes_back() -> None:
    stream = Poisson([16.0], [LENGTHS], 8000, seed=9)
    whole, broken = (run(engine(16), stream, 2, changes=c) for c in ((), (FleetChange(100.0, 0, "kill"), FleetChange(200.0, 0, "up"))))
    assert broken.sim.counts[0, :, 4].sum() == 8000  # nothing is lost
    assert means(broken)[2] > means(whole)[2]
    alone = run(engine(16), stream, 1, changes=(FleetChange(100.0, 0, "kill"), FleetChange(110.0, 0, "up")))
    assert alone.sim.histogram[0, 0].sum() == 8000  # they waited for it
    gone = run(engine(16), stream, 1, changes=(FleetChange(100.0, 0, "kill"),))
    assert gone.sim.histogram[0, 0].sum() + gone.sim.happened["refused"] == 8000
    assert gone.sim.happened["refused"] > 5000


def test_copies_of_a_trace_keep_its_requests_and_multiply_its_rate() -> None:
    rng = np.random.default_rng(1)
    trace = RequestBlock(np.sort(rng.uniform(0, 100, 500)), rng.integers(1, 99, 500), rng.integers(1, 99, 500), np.zeros(500, np.int64))
    many = superposed(trace, 7, seed=3)
    assert len(many) == 3500
    assert many.prompt.sum() == 7 * trace.prompt.sum()
    assert (np.diff(many.arrival_s) >= 0).all()
    assert many.arrival_s[-1] <= trace.arrival_s[-1] * 1.01
    assert (superposed(trace, 7, seed=3).arrival_s == many.arrival_s).all()


def test_rows_that_are_no_requests_are_counted_and_traces_of_nothing_else_refused(tmp_path: Path) -> None:
    head, file = "arrival_s,input_tokens,output_tokens\n", tmp_path / "trace.csv"
    file.write_text(f"{head}7,100,20\n5,50,10\n6,,3\n")
    read = read_trace(file)
    assert read.arrival_s.tolist() == [0, 2]
    assert read.prompt.tolist() == [50, 100]
    assert sum(read.dropped.values()) == sum(superposed(read, 3).dropped.values()) == 1
    for text in ("a,b\n1,2\n", head, f"{head}0,x,1\n"):
        file.write_text(text)
        with pytest.raises(PlannerError):
            read_trace(file)


# ---- plans


@pytest.fixture(scope="module")
def plan() -> Plan:
    asked = {"workload": [{"name": "chat", "qps": 60, "models": ["Llama-3.1-8B"]}], "supply": {"gpus": ["H100-SXM-80GB"]}}
    return solve(Scenario.model_validate(asked), load_catalog(), compare=False)


def test_a_plan_holds_its_limits_and_breaks_under_half_more_traffic(plan: Plan) -> None:
    held, broken = simulate(plan, requests=40_000), simulate(plan, requests=40_000, burst=1.5)
    assert held.met
    assert held.workloads[0].attainment > 0.95
    assert held.workloads[0].qps == pytest.approx(60, rel=0.02)
    assert not broken.met
    assert broken.workloads[0].goodput_qps < broken.workloads[0].qps


def test_expected_step_times_are_faster_than_those_that_hold_for_most(plan: Plan) -> None:
    sure, expected = simulate(plan, requests=20_000), simulate(plan, requests=20_000, median=True)
    assert expected.workloads[0].tpot_ms["p95"] < sure.workloads[0].tpot_ms["p95"]


def test_cost_as_served_is_that_of_the_plan(plan: Plan) -> None:
    found = simulate(plan, requests=60_000)
    assert found.usd_per_million_output_tokens == pytest.approx(plan.cost.usd_per_million_output_tokens, rel=0.03)


def test_the_tables_of_a_simulation(plan: Plan) -> None:
    found = simulate(plan, requests=20_000, failures=("instance@30s",))
    frame, series = found.to_frame(), found.series_frame()
    assert list(frame["metric"]) == ["ttft", "tpot", "itl", "e2e"]
    assert series["arrived_qps"].mean() == pytest.approx(60, rel=0.05)
    assert found.deployments[0].restarted > 0
    assert json.loads(json.dumps(found.to_dict()))["workloads"][0]["attainment"] == found.workloads[0].attainment


def test_the_command(plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved, trace = tmp_path / "plan.json", tmp_path / "trace.csv.gz"
    saved.write_text(plan.to_json())
    rng = np.random.default_rng(2)
    rows = zip(np.sort(rng.uniform(0, 60, 1200)), rng.integers(100, 2000, 1200), rng.integers(10, 500, 1200), strict=True)
    with gzip.open(trace, "wt") as handle:
        handle.write("arrival_s,input_tokens,output_tokens\n" + "".join(f"{t:.3f},{i},{o}\n" for t, i, o in rows))
    with pytest.raises(SystemExit) as status:
        main(["simulate", str(saved), "--trace", str(trace), "--superpose", "2", "--format", "json"])
    found = json.loads(capsys.readouterr().out)
    assert status.value.code == 0
    assert found["met"] is True
    assert found["requests"] == 2400
    assert found["workloads"][0]["slo"][0]["within"] >= 0.95
    with pytest.raises(SystemExit) as status:
        main(["simulate", str(saved), "--burst", "3x", "--requests", "20000"])
    assert status.value.code == 1
    assert "Missed" in capsys.readouterr().out
    for wrong in (["--fail", "disk@3s"], ["--burst", "fast"], ["--trace", str(trace), "--poisson"], ["--trace", str(tmp_path / "none.csv")]):
        with pytest.raises(SystemExit) as status:
            main(["simulate", str(saved), *wrong])
        assert status.value.code == 2


def test_a_plan_that_misses_is_loaded_less_until_it_holds() -> None:
    """Two workloads with unlike limits on one replica: the factor for mixtures is not enough for the tight one."""
    workloads = [
        {"name": "fast", "qps": 7.668, "min_quality": 0.66, "input_tokens": 235, "output_tokens": 88, "slo": {"ttft_p95": "2s", "tpot_p95": "20ms"}},
        {"name": "slow", "qps": 29.936, "min_quality": 0.5, "input_tokens": 222, "output_tokens": 72, "slo": {"ttft_p90": "1s", "tpot_p90": "50ms"}},
    ]
    scenario = Scenario.model_validate({"workload": workloads})
    catalog = load_catalog()
    first, verified = solve(scenario, catalog, compare=False), solve_verified(scenario, catalog, compare=False)
    assert simulate(verified, catalog, requests=60_000).met
    rounds = [n for n in verified.notes if n.startswith("simulation, round")]
    assert "every limit holds" in rounds[-1]
    if simulate(first, catalog, requests=60_000).met:  # catalogues change
        assert len(rounds) == 1
    else:
        assert 2 <= len(rounds) <= 3
        assert verified.cost.usd_per_hour >= first.cost.usd_per_hour


def test_a_zone_holds_every_third_instance_and_is_back_after_the_lead(plan: Plan) -> None:
    asked = plan.scenario.model_copy(update={"policy": plan.scenario.policy.model_copy(update={"startup_lead": 60.0})})
    found = simulate(plan.model_copy(update={"scenario": asked}), requests=40_000, failures=("zone@100s",))
    assert found.deployments[0].restarted > 0
    last = found.series_frame().query("at_s > 400")
    assert last["inside"].mean() > 0.9 > found.series_frame()["inside"].min()


def test_plans_that_cannot_be_simulated_say_so(plan: Plan) -> None:
    gone = plan.model_copy(update={"deployments": tuple(d.model_copy(update={"checkpoint": "none/none"}) for d in plan.deployments)})
    with pytest.raises(PlannerError, match="not in the catalogue"):
        simulate(gone)
    with pytest.raises(PlannerError, match="no workload"):
        simulate(plan, traces={"other": RequestBlock(np.zeros(1), np.ones(1, np.int64), np.ones(1, np.int64), np.zeros(1, np.int64))})


@pytest.mark.parametrize("size", ["tp", "pp", "dp", "ep", "max_num_seqs", "max_num_batched_tokens", "replicas"])
@pytest.mark.parametrize("value", [0, -8192, 10**30])
def test_sizes_that_no_engine_has_are_refused_before_anything_computes_with_them(plan: Plan, size: str, value: int) -> None:
    odd = plan.model_copy(update={"deployments": tuple(d.model_copy(update={size: value}) for d in plan.deployments)})
    with pytest.raises(PlannerError, match="must be from 1 to"):
        simulate(odd)


def test_replicas_that_stand_nowhere_are_refused(plan: Plan) -> None:
    with pytest.raises(PlannerError, match="has 0 replicas of"):
        simulate(plan.model_copy(update={"deployments": tuple(d.model_copy(update={"hosts": ()}) for d in plan.deployments)}))


@pytest.mark.parametrize(("field", "message"), [("qps", "requests/s; from 1e-09 to 1e"), ("burst_factor", "not its scenario's")])
@pytest.mark.parametrize("value", [0.0, -1.0, 1e-308, 1e308, float("nan")])
def test_a_rate_that_brings_no_request_or_more_than_any_is_refused(plan: Plan, field: str, message: str, value: float) -> None:
    odd = plan.model_copy(update={"workloads": (plan.workloads[0].model_copy(update={field: value}),)})
    with pytest.raises(PlannerError, match=message):
        simulate(odd)


def test_hours_are_simulated_at_the_rates_of_the_question_whatever_a_plan_states() -> None:
    asked = {"workload": [{"name": "chat", "qps": 5, "models": ["Llama-3.1-8B"], "profile": [0.5, 1.5]}], "supply": {"gpus": ["H100-SXM-80GB"]}}
    good = autoscale(Scenario.model_validate(asked), load_catalog())
    odd = good.model_copy(update={"workloads": tuple(w.model_copy(update={"burst_factor": 1e30, "rates": (1e30, 0.0)}) for w in good.workloads)})
    assert simulate_hours(odd).requests == simulate_hours(good).requests


def test_a_day_of_an_autoscaled_plan_holds_and_costs_what_it_says() -> None:
    profile = ",".join(["0.3"] * 8 + ["1"] * 8 + ["1.7"] * 8)
    asked = {"workload": [{"name": "chat", "qps": 20, "models": ["Llama-3.1-8B"], "profile": profile}], "supply": {"gpus": ["H100-SXM-80GB"]}}
    hourly = autoscale(Scenario.model_validate(asked), load_catalog())
    found = simulate_hours(hourly, seed=3)
    assert found.met
    assert found.requests == pytest.approx(20 * 86400, rel=0.01)
    per_hour = np.array_split(found.series_frame()["arrived_qps"].to_numpy(), 24)
    assert [part.mean() for part in per_hour] == pytest.approx(list(hourly.workloads[0].rates), rel=0.05)
    output_tokens = 20 * 86400 * 300 / 1e6
    assert found.usd_per_million_output_tokens == pytest.approx(hourly.usd / output_tokens, rel=0.02)
    assert found.deployments[0].replicas == max(hour.deployments[0].replicas for hour in hourly.periods)


def test_compiled_core_is_kept_for_all_environments_of_a_user(tmp_path: Path) -> None:
    """Another installation of the same core takes what is kept and compiles nothing, and there is one specialisation of it."""
    told = "from planner.simulation import engine, state as s, stream; import numpy as np\n"
    told += "e = s.Engine(np.full(3, 0.01), (s.Flow(1e-5),), 1000); r = s.Running(e, 1, 'random', 0, 1.0)\n"
    told += "one = np.ones(4, np.int64); r.feed(stream.RequestBlock(np.arange(4.0), one, one, 0 * one), 0 * one); r.finish()\n"
    told += "print(sum(engine.run.stats.cache_hits.values()), len(engine.run.signatures), r.sim.counts[0, :, 4].sum())"
    ours, copy = Path(planner.__file__).parents[1], tmp_path / "elsewhere"
    shutil.copytree(ours / "planner", copy / "planner", ignore=shutil.ignore_patterns("__pycache__", "data"))
    assert _printed(told, PYTHONPATH=str(ours))[1:] == ["1", "4"]
    assert _printed(told, PYTHONPATH=str(copy)) == ["1", "1", "4"]


def test_a_damaged_or_unwritable_cache_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("from planner.simulation.memory import kept\n\n@kept(__file__)\ndef twice(x):\n    return 2 * x\n")
    told, ours, cache = "from own import twice; print(twice(21), len(twice.stats.cache_hits))", Path(planner.__file__).parents[1], tmp_path / "cache"
    (tmp_path / "file").write_text("no folder can be made here")

    def seen(cache: Path) -> list[str]:
        return _printed(told, PYTHONPATH=f"{ours}{os.pathsep}{tmp_path}", XDG_CACHE_HOME=str(cache))

    assert [seen(cache), seen(cache)] == [["42", "0"], ["42", "1"]]
    for file in cache.rglob("*.nbi"):
        file.write_bytes(b"damaged")
    assert [seen(cache), seen(tmp_path / "file")] == [["42", "0"], ["42", "0"]]


def _printed(code: str, **env: str) -> list[str]:
    return subprocess.run([sys.executable, "-c", code], env={**os.environ, **env}, capture_output=True, text=True, check=True).stdout.split()


# ---- requests that wait for spare capacity


def released(many: int, at_s: float = 0.0, workload: int = 0) -> RequestBlock:
    """So many requests of 300 and 100 tokens at once."""
    return RequestBlock(np.full(many, at_s), np.full(many, 300), np.full(many, 100), np.full(many, workload))


@pytest.mark.parametrize("spare", [None, 8])
def test_waiting_work_alone_takes_as_long_as_its_prompts_and_its_full_steps(spare: int | None) -> None:
    """A closed loop of n: each request costs its prompt and, of each of its other 99 steps, one n-th. Requests are conserved, late ones told."""
    made, many = replace(engine(32, budget=8192, flow=Flow(30e-6, deadline=60.0)), spare=spare), 2000
    found = run(made, RecordedTrace(released(many))).sim.waited[0]
    n = spare or 32
    each_s = 300 * 30e-6 + 99 * (5e-3 + 3e-4 * n) / n
    late, late_s, latest_s, last_s, answered = found
    assert last_s == pytest.approx(many * each_s, rel=0.03)
    assert answered == many
    assert late == pytest.approx(many - 60 / each_s, rel=0.03)
    assert latest_s == pytest.approx(last_s - 60)
    assert late_s / late == pytest.approx(latest_s / 2, rel=0.05)  # they end at an even pace


def test_replicas_share_what_waits_and_one_fewer_takes_longer() -> None:
    made = engine(32, budget=8192, flow=Flow(30e-6, deadline=60.0))
    last = {r: run(made, RecordedTrace(released(3000)), r).sim.waited[0, 3] for r in (2, 3)}
    assert last[2] / last[3] == pytest.approx(3 / 2, rel=0.03)


@pytest.mark.parametrize("kv", [10**9, 9000])
def test_others_never_stand_behind_what_may_wait(kv: int) -> None:
    """Beside waiting work a request's first token is at most the step under way and the prompt begun in it away; all of both are served."""
    flows = (Flow(30e-6), Flow(30e-6, deadline=86000.0))
    made = replace(engine(64, kv, 512), flows=flows, spare=24)
    others = Poisson([4.0], [lognormal_lengths(200, 40, 0.3, 0.3)], 3000, seed=4)
    block = next(iter(others.blocks()))
    both = merged([block, released(4000, 0.0, 1)])
    alone, beside = run(made, RecordedTrace(block)), run(made, RecordedTrace(both))
    assert beside.sim.histogram[0, 0].sum() == len(block)
    assert beside.sim.waited[1, 4] == 4000
    assert not beside.sim.fleet["kv"].any()
    longest_s = float(made.step_s[-1]) + 512 * 30e-6
    for share in (0.5, 0.95, 0.99):
        assert quantile(beside.sim.histogram[0, 0], share) <= quantile(alone.sim.histogram[0, 0], share) + 3 * longest_s
    assert (beside.sim.happened["preempted"] > 0) == (kv < 10**9)


def one_less(count: PeriodCount) -> PeriodCount:
    """One replica fewer of a deployment in an hour."""
    first, *rest = count.hosts
    hosts = ([first.model_copy(update={"replicas": first.replicas - 1})] if first.replicas > 1 else []) + rest
    return count.model_copy(update={"replicas": count.replicas - 1, "hosts": tuple(hosts)})


def test_waiting_work_ends_in_time_as_planned_and_not_with_a_replica_fewer() -> None:
    work = {
        "name": "work",
        "requests_per_day": 130_000,
        "release": "20:00",
        "deadline": "22:00",
        "models": ["Llama-3.1-8B"],
        "input_tokens": 3000,
        "output_tokens": 200,
    }
    plan = autoscale(Scenario.model_validate({"workload": [work], "supply": {"gpus": ["H100-SXM-80GB"]}}), load_catalog())
    (found,) = simulate_hours(plan).waiting
    assert found.met
    assert (found.done, found.late, found.unfinished) == (130_000, 0, 0)
    assert 0 < found.spare_s < 7200
    assert found.last_s == pytest.approx(22 * 3600 - found.spare_s)
    busiest = max(plan.periods, key=lambda h: h.deployments[0].replicas).hour
    fewer = [h.model_copy(update={"deployments": (one_less(h.deployments[0]),)}) if h.hour == busiest else h for h in plan.periods]
    short = simulate_hours(plan.model_copy(update={"periods": tuple(fewer)}))
    assert not short.met
    (late,) = short.waiting
    assert late.late + late.unfinished > 0
    assert late.done + late.unfinished == 130_000
