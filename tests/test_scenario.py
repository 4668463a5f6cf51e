"""What is asked: which source of a value wins, that flags and TOML say the same, and that every bad value is one clear line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import Run
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from planner.errors import PlannerError, ScenarioError
from planner.scenario.change import changed
from planner.scenario.fields import askables
from planner.scenario.records import Scenario
from planner.scenario.slo import Slo
from planner.scenario.sources import Question, ask
from planner.scenario.units import exact, format_duration, parse_duration_s, parse_usd_per_hour
from planner.scenario.write import to_flags, to_toml

WORKLOAD = "[[workload]]\nqps = 5\n"


def written(folder: Path, text: str) -> Path:
    file = folder / "scenario.toml"
    file.write_text(text, encoding="utf-8")
    return file


def flags_of(words: list[str]) -> dict[str, Any]:
    """Command-line words as the command hands them to ``ask``."""
    by_name = {a.flag.name: a for a in askables()}
    found: dict[str, Any] = {}
    rest = iter(words)
    for word in rest:
        askable = by_name[word]
        if askable.is_switch:
            found[askable.parameter] = True
        elif askable.is_many:
            found.setdefault(askable.parameter, []).append(next(rest))
        else:
            found[askable.parameter] = next(rest)
    return found


def slo_of(**flags: Any) -> dict[str, float]:
    return ask({"qps": "10", **flags}).scenario.workload[0].slo


# ---- precedence and origins


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    file = written(tmp_path, "[[workload]]\nqps = 1\ninput_tokens = 100\nmin_quality = 0.1\n")
    environment = {"PLANNER_QPS": "2", "PLANNER_ISL": "200", "HOME": "/nowhere"}
    question = ask({"qps": "3"}, environment, file)
    workload = question.scenario.workload[0]
    assert (workload.qps, workload.input_tokens, workload.min_quality, workload.output_tokens) == (3, 200, 0.1, 300)
    assert question.origins == {"workload.0.qps": "flag", "workload.0.input_tokens": "environment", "workload.0.min_quality": "file"}


def test_origins_of_supply_and_policy(tmp_path: Path) -> None:
    file = written(tmp_path, WORKLOAD + '[supply]\nproviders = ["aws"]\nquota = { H100 = 8 }\n[policy]\nmax_models = 2\n')
    question = ask({"provider": ["gcp"], "spare_replicas": "1"}, {"PLANNER_QUOTA": "L4=3,A10=4", "PLANNER_MIX": "yes"}, file)
    assert question.scenario.supply.providers == ("gcp",)
    assert question.scenario.supply.quota == {"L4": 3, "A10": 4}
    assert question.scenario.policy.mix
    assert question.origins == {
        "workload.0.qps": "file",
        "supply.providers": "flag",
        "supply.quota": "environment",
        "policy.max_models": "file",
        "policy.spare_replicas": "flag",
        "policy.mix": "environment",
    }


def test_a_switch_can_be_turned_off_by_the_environment(tmp_path: Path) -> None:
    file = written(tmp_path, WORKLOAD + "[policy]\nmix = true\n")
    assert ask({}, {}, file).scenario.policy.mix
    assert not ask({}, {"PLANNER_MIX": "false"}, file).scenario.policy.mix
    assert ask({"mix": True}, {"PLANNER_MIX": "false"}, file).scenario.policy.mix


def test_an_empty_environment_variable_is_unset() -> None:
    question = ask({"qps": "1"}, {"PLANNER_BUDGET": "", "PLANNER_GPU": ""})
    assert question.scenario == ask({"qps": "1"}).scenario


def test_limits_from_the_environment() -> None:
    assert ask({"qps": "1"}, {"PLANNER_SLO": "ttft_p99=1s,tpot_p90=20ms"}).scenario.workload[0].slo == {"ttft_p99": 1.0, "tpot_p90": 0.02}


def test_a_later_source_changes_the_unit_of_demand(tmp_path: Path) -> None:
    workload = ask({"concurrency": "64"}, {}, written(tmp_path, WORKLOAD)).scenario.workload[0]
    assert (workload.qps, workload.concurrency) == (None, 64)


def test_a_flag_replaces_only_the_limits_of_its_metric(tmp_path: Path) -> None:
    file = written(tmp_path, WORKLOAD + 'slo = { ttft_p95 = "1s", ttft_p99 = "3s", e2e_p95 = "20s" }\n')
    assert ask({"ttft": "500ms"}, {}, file).scenario.workload[0].slo == {"ttft_p95": 0.5, "e2e_p95": 20, "tpot_p95": 0.05}


# ---- defaults of the SLO


def test_no_limit_given_means_both_streaming_limits() -> None:
    assert slo_of() == {"ttft_p95": 2.0, "tpot_p95": 0.05}


def test_only_e2e_given_means_no_streaming_limits() -> None:
    assert slo_of(e2e="30s") == {"e2e_p95": 30.0}


def test_one_streaming_limit_keeps_the_default_of_the_other() -> None:
    assert slo_of(ttft="1s") == {"ttft_p95": 1.0, "tpot_p95": 0.05}
    assert slo_of(tpot="20ms", e2e="30s") == {"ttft_p95": 2.0, "tpot_p95": 0.02, "e2e_p95": 30.0}


def test_none_removes_a_limit() -> None:
    assert slo_of(tpot="none") == {"ttft_p95": 2.0}
    assert slo_of(ttft="none", tpot="none") == {}
    assert slo_of(slo=["ttft_p99=none", "tpot_p99=20ms"]) == {"tpot_p99": 0.02}


def test_percentile_moves_the_limits_given_or_the_defaults() -> None:
    assert slo_of(ttft="1s", percentile="99") == {"ttft_p99": 1.0, "tpot_p95": 0.05}
    assert slo_of(percentile="99") == {"ttft_p99": 2.0, "tpot_p99": 0.05}
    assert slo_of(ttft="1s", percentile="99.9") == {"ttft_p99.9": 1.0, "tpot_p95": 0.05}


def test_a_limit_is_read_once_with_its_metric_percentile_and_seconds() -> None:
    """However its percentile is written, a limit is one thing, and two of a kind are told apart by it alone."""
    limits = ask({"qps": "10", "slo": ["ttft_p99.0=2s", "ttft_p50=0.5s", "tpot_p99.9=80ms"]}).scenario.workload[0].limits
    assert limits == (Slo("ttft", 99, 2.0), Slo("ttft", 50, 0.5), Slo("tpot", 99.9, 0.08))
    assert [s.name for s in limits] == ["ttft_p99", "ttft_p50", "tpot_p99.9"] and limits[0].words == "TTFT p99"
    assert [s.bounds_wait for s in limits] == [True, True, False]
    with pytest.raises(ScenarioError, match="stands twice"):
        ask({"qps": "10", "slo": ["ttft_p95=2s", "ttft_p95.0=1s"]})


def test_tokens_per_second_of_a_user_are_tpot_said_the_other_way(tmp_path: Path) -> None:
    """At least 20 tokens/s for 95 % of the requests is at most 50 ms per token for as many."""
    assert slo_of(slo=["tps_user_p95=20"]) == slo_of(tps_user="20/s") == slo_of(tpot="50ms")
    assert slo_of(tps_user="40", percentile="99") == {"ttft_p95": 2.0, "tpot_p99": 0.025}
    file = written(tmp_path, WORKLOAD + 'slo = { tps_user_p95 = 20, itl_p99 = "80ms" }\n')
    asked = ask({}, {}, file).scenario
    assert asked.workload[0].slo == {"ttft_p95": 2.0, "tpot_p95": 0.05, "itl_p99": 0.08}
    assert ask({"tpot": "30ms"}, {}, file).scenario.workload[0].slo["tpot_p95"] == 0.03
    assert ask(flags_of(to_flags(asked))).scenario == asked
    assert ask({}, {"PLANNER_SLO": "tps_user_p99=10"}, written(tmp_path, WORKLOAD)).scenario.workload[0].slo == {"ttft_p95": 2.0, "tpot_p99": 0.1}


def test_what_is_on_by_default_takes_true_or_false() -> None:
    assert ask({"qps": "1"}).scenario.policy.chunked_prefill
    assert not ask({"qps": "1", "chunked_prefill": "false"}).scenario.policy.chunked_prefill
    assert not ask({"qps": "1"}, {"PLANNER_CHUNKED_PREFILL": "false"}).scenario.policy.chunked_prefill


# ---- units


@pytest.mark.parametrize(("text", "seconds"), [("2s", 2), ("500ms", 0.5), ("1.5 min", 90), ("250us", 0.00025), ("0.1h", 360), (".5s", 0.5), ("1e-1s", 0.1)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "usd"),
    [("120/h", 120), ("50000/month", 50000 / 730), ("$50,000 / month", 50000 / 730), ("50k/mo", 50000 / 730), ("1.2M/year", 1.2e6 / 8760), ("240/day", 10)],
)
def test_money_per_time(text: str, usd: float) -> None:
    assert parse_usd_per_hour(text) == pytest.approx(usd, rel=1e-12)


@given(st.floats(1e-6, 3.6e6))
def test_a_written_duration_reads_back_the_same(seconds: float) -> None:
    assert parse_duration_s(format_duration(seconds)) == seconds


def test_durations_are_written_as_people_write_them() -> None:
    assert [format_duration(s) for s in (2.0, 0.5, 0.05, 0.057, 0.00025, 90.0)] == ["2s", "500ms", "50ms", "57ms", "250us", "90s"]


@given(st.floats(1e-9, 1e12))
def test_a_written_number_reads_back_the_same(number: float) -> None:
    assert float(exact(number)) == number


# ---- flags -> TOML -> flags

NAMES = (
    st.text("abcdefghijklmnopqrstuvwxyzABC0123456789-_./ '\"\\#=[]é", min_size=1, max_size=12)
    .map(str.strip)
    .filter(bool)
    .filter(lambda s: not s.startswith("-"))
)
SECONDS = st.floats(1e-4, 1e5).map(format_duration)
SHARE = st.floats(0, 1)
MANY = st.lists(NAMES, max_size=3).map(tuple)
LIMITS = st.dictionaries(
    st.sampled_from([f"{m}_p{p}" for m in ("ttft", "tpot", "itl", "e2e") for p in ("50", "95", "99", "99.9")]), SECONDS | st.just("none"), max_size=4
)


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


def tables(**columns: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=columns)


DEMAND = st.sampled_from(["qps", "concurrency"]).flatmap(lambda unit: st.fixed_dictionaries({unit: st.floats(1e-3, 1e7)}))
ASKED = tables(
    min_quality=SHARE,
    mean_quality=SHARE,
    quality_metric=NAMES,
    input_tokens=st.floats(1, 1e7),
    output_tokens=st.floats(1, 1e7),
    input_cv=st.floats(0, 3),
    output_cv=st.floats(0, 3),
    max_refused=st.floats(0, 0.99),
    slo=LIMITS,
    output_factor=st.floats(1, 1000),
    burst_factor=st.floats(1, 1000),
    max_waiting_share=st.floats(0.001, 1),
    prefix_cache_hit=st.floats(0, 0.99),
    models=MANY,
)
SUPPLY = tables(
    kinds=st.lists(st.sampled_from(["hyperscaler", "neocloud", "reseller"]), min_size=1, unique=True).map(tuple),
    providers=MANY,
    gpus=MANY,
    quota=st.dictionaries(NAMES.filter(lambda s: "=" not in s), st.integers(0, 10**6), max_size=3),
    max_gpus=maybe(st.integers(1, 10**6)),
    max_price_age=maybe(st.integers(1, 10**4)),
)
POLICY = tables(
    confidence=st.floats(0.5, 0.99),
    max_slo_load=st.floats(0.01, 1),
    spare_replicas=st.integers(0, 1000),
    max_pools=maybe(st.integers(1, 9)),
    mix=st.booleans(),
    max_locations=st.integers(1, 9),
    budget=maybe(st.floats(0.01, 1e8).map(lambda v: f"{exact(v)}/h")),
    engines=st.lists(st.sampled_from(["vllm", "sglang", "trtllm"]), unique=True).map(tuple),
    router=st.sampled_from(["least_loaded", "random"]),
    chunked_prefill=st.booleans(),
    evidence=st.sampled_from(["measured", "anchored", "transferred", "modelled"]),
    quality_margin=st.floats(0, 0.99),
    worst_recovery=st.booleans(),
)
SOLVER = tables(gap=st.floats(0, 0.5), time_limit=SECONDS, seed=st.integers(0, 2**31 - 1))


@st.composite
def scenarios(draw: st.DrawFn, most: int = 3) -> Scenario:
    demands = draw(st.lists(st.tuples(DEMAND, ASKED), min_size=1, max_size=most))
    for _, asked in demands:  # what is sent at most is more than the mean
        if draw(st.booleans()):
            asked["max_input"] = min(asked.get("input_tokens", 1000.0) * draw(st.floats(1, 9)), 1e7)
    workloads = [{**({"name": f"workload {i}"} if len(demands) > 1 else {}), **d, **a} for i, (d, a) in enumerate(demands)]
    return Scenario.model_validate({"workload": workloads, "supply": draw(SUPPLY), "policy": draw(POLICY), "solver": draw(SOLVER), "catalog": draw(MANY)})


@settings(deadline=None, derandomize=True)
@given(scenarios())
def test_toml_written_and_read_is_the_same_scenario(tmp_path_factory: pytest.TempPathFactory, scenario: Scenario) -> None:
    file = written(tmp_path_factory.mktemp("toml"), to_toml(scenario))
    assert ask({}, {}, file).scenario == scenario


@settings(deadline=None, derandomize=True)
@given(scenarios(most=1))
def test_flags_to_toml_to_flags_is_the_identity(tmp_path_factory: pytest.TempPathFactory, scenario: Scenario) -> None:
    words = to_flags(scenario)
    asked = ask(flags_of(words)).scenario
    assert asked == scenario
    read = ask({}, {}, written(tmp_path_factory.mktemp("toml"), to_toml(asked))).scenario
    assert read == scenario
    assert to_flags(read) == words


@settings(deadline=None, derandomize=True)
@given(scenarios())
def test_json_written_and_read_is_the_same_scenario(scenario: Scenario) -> None:
    """The scenario that a saved plan carries."""
    assert Scenario.model_validate_json(scenario.model_dump_json()) == scenario


def test_several_workloads_need_a_file() -> None:
    scenario = Scenario.model_validate({"workload": [{"name": "a", "qps": 1}, {"name": "b", "qps": 2}]})
    with pytest.raises(ScenarioError, match="several workloads cannot be written as flags"):
        to_flags(scenario)


def test_every_flag_has_one_name_and_a_help_text() -> None:
    names = [a.flag.name for a in askables()]
    assert len(set(names)) == len(names)
    assert all(a.flag.help and a.flag.name.startswith("--") for a in askables())


# ---- bad values: one line, at the flag or file:line, with a hint


def refused(flags: dict[str, Any], environment: dict[str, str] | None = None, file: Path | None = None) -> str:
    with pytest.raises(PlannerError) as caught:
        ask(flags, environment, file)
    line = str(caught.value)
    assert "\n" not in line and caught.value.exit_code == 2
    return line


BAD_FLAGS = [
    ("qps", "-1", "--qps: '-1' must be greater than 0"),
    ("qps", "0", "--qps: '0' must be greater than 0"),
    ("qps", "nan", "--qps: 'nan' must be a finite number"),
    ("qps", "inf", "--qps: 'inf' must be a finite number"),
    ("qps", "1e9", "--qps: '1e9' must be less than or equal to 10000000"),
    ("qps", "many", "--qps: 'many' must be a valid number"),
    ("min_quality", "80", "--min-quality: '80' is a share between 0 and 1: write 0.8, not 80"),
    ("min_quality", "-0.1", "--min-quality: '-0.1' must lie between 0 and 1"),
    ("min_quality", "nan", "--min-quality: 'nan' must lie between 0 and 1"),
    ("min_quality", "inf", "--min-quality: 'inf' must lie between 0 and 1"),
    ("min_quality", "1e9", "--min-quality: '1e9' must lie between 0 and 1"),
    ("mean_quality", "80", "--mean-quality: '80' is a share between 0 and 1: write 0.8, not 80"),
    ("ttft", "500", "--ttft: '500' needs a unit: 500ms or 500s"),
    ("ttft", "-1s", "--ttft: '-1s' must be more than zero"),
    ("tpot", "nan", "--tpot: 'nan' is not a duration; write 2s or 500ms"),
    ("e2e", "1e9s", "--e2e: '1e9s' must lie between 1us and 1000h"),
    ("e2e", "5 parsecs", "--e2e: '5 parsecs' has no known unit; use us, ms, s, min, h"),
    ("percentile", "100", "--percentile: '100' is not a percentile from 50 to 99.9"),
    ("percentile", "0.95", "--percentile: '0.95' is not a percentile from 50 to 99.9"),
    ("slo", ["ttft_p99"], "--slo: 'ttft_p99' is not NAME=VALUE"),
    ("slo", ["tft_p99=1s"], "--slo: 'tft_p99' is no limit; write one of ttft, tpot, itl, e2e, tps_user"),
    ("slo", ["tps_user_p95=fast"], "--slo: 'fast' is not tokens per second; write 20 or 20/s"),
    ("slo", ["tps_user_p95=20", "tpot_p95=50ms"], "--slo: 'tpot_p95' stands twice: tokens/s per user and TPOT are one limit"),
    ("tps_user", "50ms", "--tps-user: '50ms' is not tokens per second; write 20 or 20/s"),
    ("burst_factor", "0.5", "--burst-factor: '0.5' must be greater than or equal to 1"),
    ("prefix_cache_hit", "1", "--prefix-cache-hit: '1' must be less than or equal to 0.99"),
    ("chunked_prefill", "perhaps", "--chunked-prefill: 'perhaps' must be a valid boolean"),
    ("slo", ["ttft_p10=1s"], "--slo: 'ttft_p10' is no limit"),
    ("slo", ["ttft_p99=500"], "--slo: '500' needs a unit"),
    ("slo", ["ttft_p99=1s", "ttft_p99=2s"], "--slo: 'ttft_p99' stands twice"),
    ("quota", ["H100"], "--quota: 'H100' is not NAME=VALUE"),
    ("quota", ["H100=-1"], "--quota: '-1' must be greater than or equal to 0"),
    ("quota", ["H100=1.5"], "--quota: '1.5' must be a valid integer"),
    ("quota", ["H100=1", "H100=2"], "--quota: 'H100' stands twice"),
    ("budget", "120", "--budget: '120' needs a period: 120/h or 120/month"),
    ("budget", "-5/h", "--budget: '-5/h' is not money per time; write 120/h or 50000/month"),
    ("budget", "nan/h", "--budget: 'nan/h' is not money per time"),
    ("budget", "1e400/h", "--budget: '1e400/h' must be more than zero, and at most 1e+09/h"),
    ("budget", "5/fortnight", "--budget: '5/fortnight' has no known period"),
    ("isl", "0", "--isl: '0' must be greater than or equal to 1"),
    ("osl", "nan", "--osl: 'nan' must be a finite number"),
    ("isl_cv", "-1", "--isl-cv: '-1' must be greater than or equal to 0"),
    ("output_factor", "inf", "--output-factor: 'inf' must be less than or equal to 1000"),
    ("output_factor", "nan", "--output-factor: 'nan' must be "),
    ("confidence", "80", "--confidence: '80' must be less than or equal to 0.99"),
    ("max_slo_load", "1.1", "--max-slo-load: '1.1' must be less than or equal to 1"),
    ("spare_replicas", "-1", "--spare-replicas: '-1' must be greater than or equal to 0"),
    ("spare_replicas", "1.5", "--spare-replicas: '1.5' must be a valid integer"),
    ("max_gpus", "99999999999999999999", "--max-gpus: '99999999999999999999' must be less than or equal to 10000000"),
    ("gap", "nan", "--gap: 'nan' must be "),
    ("time_limit", "30", "--time-limit: '30' needs a unit: 30ms or 30s"),
    ("kind", ["hyperscalers"], "--kind: unknown value 'hyperscalers' (did you mean 'hyperscaler'?)"),
    ("kind", ["zzz"], "--kind: unknown value 'zzz' (one of hyperscaler, neocloud, reseller, marketplace, serverless, contract, owned)"),
    ("engine", ["vlm"], "--engine: unknown value 'vlm' (did you mean 'vllm'?)"),
    ("precision", ["fp16"], "--precision: unknown value 'fp16' (did you mean 'bf16'?)"),
    ("router", "rnd", "--router: unknown value 'rnd' (did you mean 'random'?)"),
]


@pytest.mark.parametrize(("parameter", "value", "line"), BAD_FLAGS, ids=[f"{p}={v}" for p, v, _ in BAD_FLAGS])
def test_a_bad_flag_is_named(parameter: str, value: Any, line: str) -> None:
    assert refused({"qps": "10", parameter: value}).startswith(line)


def test_no_demand_has_a_hint() -> None:
    assert refused({}) == "no demand: give qps or concurrency (plan --qps 200 --min-quality 0.8, or plan -f scenario.toml)"
    assert "needs either qps or concurrency (plan --qps 200" in refused({"min_quality": "0.8"})


def test_both_demands_of_one_source_are_refused() -> None:
    assert refused({"qps": "1", "concurrency": "2"}) == "--concurrency: give either qps or concurrency, not both"
    assert refused({}, {"PLANNER_QPS": "1", "PLANNER_CONCURRENCY": "2"}).startswith("PLANNER_CONCURRENCY: give either")


def test_a_bad_environment_variable_is_named() -> None:
    assert refused({}, {"PLANNER_QPS": "-1"}) == "PLANNER_QPS: '-1' must be greater than 0"
    assert refused({"qps": "1"}, {"PLANNER_MIX": "banana"}).startswith("PLANNER_MIX: 'banana' must be a valid boolean")
    assert refused({"qps": "1"}, {"PLANNER_SLO": "ttft_p99"}).startswith("PLANNER_SLO: 'ttft_p99' is not NAME=VALUE")


def test_one_table_of_two_is_refused() -> None:
    assert refused({"capacities": "a.csv"}) == "capacities and demand go together"


def test_unknown_setting_has_did_you_mean() -> None:
    assert refused({"min_qualty": "1"}) == "unknown setting 'min_qualty' (did you mean 'min_quality'?)"


TWO = '[[workload]]\nname = "a"\nqps = 1\n\n[[workload]]\nname = "{}"\nqps = {}\n'
BAD_FILES = {
    "unknown key": (WORKLOAD + "qpz = 3\n", 3, "unknown key 'qpz' (did you mean 'qps'?)"),
    "unknown key of supply": (WORKLOAD + '[supply]\nkindz = ["neocloud"]\n', 4, "unknown key 'kindz' (did you mean 'kinds'?)"),
    "unknown table": (WORKLOAD + "\n[suply]\nmax_gpus = 1\n", 4, "unknown key 'suply' (did you mean 'supply'?)"),
    "malformed": (WORKLOAD + "[supply\n", 3, "not valid TOML: "),
    "a key twice": (WORKLOAD + "qps = 6\n", 3, "not valid TOML: "),
    "percentage": (WORKLOAD + "min_quality = 80\n", 3, "80 is a share between 0 and 1: write 0.8, not 80"),
    "nan": ("[[workload]]\nqps = nan\n", 2, "nan must be a finite number"),
    "negative in the second": (TWO.format("b", -2), 7, "-2 must be greater than 0"),
    "two of one name": (TWO.format("a", 2), 6, "workload 'a' stands twice; give each a name of its own"),
    "both demands": (WORKLOAD + "concurrency = 5\n", 3, "workload 'requests' has both qps and concurrency; give one"),
    "limit without unit": (WORKLOAD + "slo = { ttft_p95 = 500 }\n", 3, "500 needs a unit: 500ms or 500s"),
    "unknown limit": (
        WORKLOAD + 'slo = { tft_p95 = "1s" }\n',
        3,
        "'tft_p95' is no limit; write one of ttft, tpot, itl, e2e, tps_user and a percentile from 50 to 99.9, such as ttft_p95",
    ),
    "unknown kind": (WORKLOAD + '[supply]\nkinds = ["neoclouds"]\n', 4, "unknown value 'neoclouds' (did you mean 'neocloud'?)"),
    "budget without period": (WORKLOAD + "[policy]\nbudget = 50\n", 4, "50 needs a period: 50/h or 50/month"),
    "negative quota": (WORKLOAD + '[supply]\nquota = { "H100" = -4 }\n', 4, "-4 must be greater than or equal to 0"),
    "unknown objective": (WORKLOAD + '[objective]\nminimize = "latency"\n', 4, "unknown value 'latency' (one of cost)"),
    "one workload as a table": ("[workload]\nqps = 5\n", 1, "workload is not a list of tables (write [[workload]])"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_named_with_the_line(case: str, tmp_path: Path) -> None:
    text, line, what = BAD_FILES[case]
    file = written(tmp_path, text)
    found = refused({}, {}, file)
    assert found == f"{file}:{line}: {what}" or (what.endswith("TOML: ") and found.startswith(f"{file}:{line}: {what}"))


def test_a_flag_of_a_workload_needs_one_workload(tmp_path: Path) -> None:
    line = refused({"qps": "3"}, {}, written(tmp_path, TWO.format("b", 2)))
    assert line == "--qps: which workload? the file has several (change the file, or give flags for supply and policy only)"
    assert ask({"max_gpus": "8"}, {}, written(tmp_path, TWO.format("b", 2))).scenario.supply.max_gpus == 8


def test_a_flag_into_a_misshapen_file(tmp_path: Path) -> None:
    assert refused({"qps": "5"}, {}, written(tmp_path, "[workload]\nqps = 5\n")).startswith("--qps: the file's workload is not a list of tables")
    assert refused({"max_gpus": "5"}, {}, written(tmp_path, "supply = 5\n" + WORKLOAD)).startswith("--max-gpus: the file's supply is not a table")
    assert ask({"qps": "5"}, {}, written(tmp_path, "workload = []\n")).scenario.workload[0].qps == 5


def test_an_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(PlannerError, match="cannot read the file: No such file"):
        ask({}, {}, tmp_path / "absent.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PlannerError, match="not UTF-8 text"):
        ask({}, {}, tmp_path / "binary.toml")


def test_a_question_remembers_nothing_of_defaults() -> None:
    question = ask({"qps": "1"})
    assert isinstance(question, Question) and question.origins == {"workload.0.qps": "flag"}


def test_a_changed_scenario_is_checked_like_one_that_was_typed() -> None:
    """Fields by path; what could not be asked for cannot be changed to, and what is left alone stays as it was to the last digit."""
    asked = ask({"qps": "10", "budget": "1234.5678/h", "slo": ["ttft_p99=1.23456s"]}).scenario
    found = changed(asked, {"policy.budget": 77.7, "workload.0.qps": 11.0, "supply.max_gpus": 8})
    assert (found.policy.budget, found.workload[0].qps, found.supply.max_gpus) == (77.7, 11.0, 8)
    assert changed(found, {"policy.budget": 1234.5678, "workload.0.qps": 10.0, "supply.max_gpus": None}) == asked
    for path, value in {"policy.confidence": 2.0, "policy.budget": -1.0, "workload.0.qps": 0.0, "supply.max_gpus": 0, "policy.colour": "blue"}.items():
        with pytest.raises(ValidationError):
            changed(asked, {path: value})


def test_what_demand_is_stated_in_is_said_in_one_place() -> None:
    """A rate, requests in flight, or requests of a day; a rate goes back into the field it came from."""
    rate, loop, day = (ask(flags).scenario.workload[0] for flags in ({"qps": "5"}, {"concurrency": "40"}, {"requests_per_day": "86400"}))
    assert [(w.kind, w.unit, w.rate) for w in (rate, loop, day)] == [("qps", "req/s", 5), ("concurrency", "in flight", 40), ("requests_per_day", "req/s", 1)]
    assert (loop.at_rate(7).concurrency, rate.at_rate(7).qps, day.at_rate(7).kind) == (7, 7, "qps")
    assert day.is_waiting and loop.is_closed and not rate.is_closed


@pytest.mark.parametrize("stated", [{"requests_per_day": 1000.0}, {"users": 50, "think_time": "10s"}, {"concurrency": 8}])
def test_who_asks_for_the_most_of_what_is_stated_states_no_other_rate(stated: dict[str, object]) -> None:
    found = Scenario.model_validate({"workload": [stated], "policy": {"budget": "9/h"}, "objective": {"maximize": "qps"}}).workload[0]
    assert found.qps is None or "users" in stated


def test_the_most_is_not_planned_by_the_hour(run: Run) -> None:
    status, out, said = run("--requests-per-day", 1000, "--maximize", "qps", "--budget", "9/h")
    assert (status, out, said.count("\n")) == (2, "", 1)
    assert "one rate, not by the hour (leave --maximize out" in said
