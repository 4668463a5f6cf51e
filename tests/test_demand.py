"""Facts about demand: formats and their units, dropped rows, rates and percentiles, points for histograms, users, routing by length."""

from __future__ import annotations

import csv
import gzip
import json
import os
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from conftest import Run
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import norm

from planner import Plan, Scenario, load_catalog, solve
from planner.check.check import check_plan
from planner.deadline import NEVER
from planner.demand.arrivals import arrivals, since_monday
from planner.demand.given import parse_growth
from planner.demand.lengths import Histogram, lengths_of
from planner.demand.records import Demand, DemandFile, to_toml
from planner.demand.source import imported, read_demand, read_histogram, shapes
from planner.demand.tally import RequestRows, Tally, percentile
from planner.errors import PlannerError, ScenarioError
from planner.planning.boundary import costs_apart, halved, searched
from planner.planning.routing import boundaries, histogram_of, split
from planner.scenario.change import assumed_of
from planner.scenario.sources import ask
from planner.scenario.workload import Workload
from planner.scenario.write import to_toml as scenario_toml
from planner.search.survey_cache import SurveyCache

TINY = Path(__file__).parent / "data" / "tiny"
TRACES = Path(os.environ.get("DEMAND_TRACES", "traces"))  # a folder with raw/NAME.csv.gz and the summary.csv published with them


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def lines(*objects: object) -> str:
    return "".join(json.dumps(o) + "\n" for o in objects)


def gateway(at: object, prompt: int, answer: int, **more: object) -> dict[str, object]:
    return {"ts": at, "model": "m", "usage": {"prompt_tokens": prompt, "completion_tokens": answer, **more}, "status": 200}


# ---- formats


def test_azure_times_have_seven_digits_and_count_in_seconds(tmp_path: Path) -> None:
    text = (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n2023-11-16 18:15:51.2225670,879,55\n"
    )
    found = imported(written(tmp_path, "azure.csv", text))
    assert found.format == "azure" and found.requests == 3
    assert found.arrivals is not None and found.arrivals.duration_s == pytest.approx(4.541977, abs=1e-6)
    assert found.input.mean == pytest.approx((374 + 396 + 879) / 3) and found.output is not None and found.output.max == 109


def test_burstgpt_counts_seconds_since_day_zero_in_any_order_of_columns_and_empty_answers_failed(tmp_path: Path) -> None:
    text = "Model,Timestamp,Request tokens,Response tokens,Total tokens,Log Type\nChatGPT,86405,472,18,490,Conversation log\n"
    text += "GPT-4,86445,1087,0,1087,API log\nChatGPT,86465,100,20,120,API log\n"
    found = imported(written(tmp_path, "burst.csv", text))
    assert found.format == "burstgpt" and found.requests == 2 and found.dropped == {"failed: no answer tokens": 1}
    assert found.arrivals is not None and found.arrivals.duration_s == 60


def test_mooncake_counts_milliseconds_and_its_hashes_tell_prefix_hits(tmp_path: Path) -> None:
    rows = [
        {"timestamp": t, "input_length": n, "output_length": 10, "hash_ids": h}
        for t, n, h in ((0, 1024, [1, 2]), (27000, 2048, [1, 2, 3, 4]), (30000, 512, [9]))
    ]
    found = imported(written(tmp_path, "moon.jsonl", lines(*rows)))
    assert found.arrivals is not None and found.arrivals.duration_s == 30
    assert found.prefix_cache_hit == pytest.approx(1024 / (1024 + 2048 + 512))  # blocks 1 and 2 of the second request alone


def test_a_block_after_one_that_was_not_seen_is_no_prefix(tmp_path: Path) -> None:
    rows = [{"timestamp": t, "input_length": 1024, "output_length": 1, "hash_ids": h} for t, h in ((0, [1, 2]), (1, [3, 2]))]
    assert imported(written(tmp_path, "moon.jsonl", lines(*rows))).prefix_cache_hit == 0


@pytest.mark.parametrize("form", ["lines", "array", "array on one line", "csv"])
def test_litellm_logs_count_what_reached_a_model(tmp_path: Path, form: str) -> None:
    def row(second: int, **more: object) -> dict[str, object]:
        base = {"startTime": f"2026-11-20T10:00:{second:02}.120Z", "prompt_tokens": 800, "completion_tokens": 200, "model_group": "a", "cache_hit": "False"}
        return base | {"status": "success"} | more

    rows = [row(0), row(1, cache_hit="True"), row(2, status="failure"), row(30, model_group="b", prompt_tokens=400)]
    if form == "csv":
        text = "\n".join([",".join(rows[0]), *(",".join(str(v) for v in r.values()) for r in rows)])
    else:
        text = {"lines": lines(*rows), "array": json.dumps(rows, indent=0).replace(',\n"', ',"'), "array on one line": json.dumps(rows)}[form]
        text = "[\n" + ",\n".join(json.dumps(r) for r in rows) + "\n]\n" if form == "array" else text
    found = imported(written(tmp_path, f"log.{'csv' if form == 'csv' else 'json'}", text))
    assert found.format == "litellm" and found.requests == 2 and found.input.mean == 600
    assert found.dropped == {"answered by a response cache": 1, "failed": 1} and found.models == {"a": 1, "b": 1}
    one = imported(tmp_path / f"log.{'csv' if form == 'csv' else 'json'}", model="b")
    assert one.requests == 1 and one.input.mean == 400


def test_gateway_logs_tell_cache_hits_and_reasoning(tmp_path: Path) -> None:
    details = {"prompt_tokens_details": {"cached_tokens": 500}, "completion_tokens_details": {"reasoning_tokens": 300}}
    found = imported(written(tmp_path, "log.jsonl", lines(gateway(1_700_000_000.0, 1000, 400, **details), gateway(1_700_000_060.0, 1000, 100))))
    assert found.arrivals is not None and found.arrivals.duration_s == 60
    assert found.prefix_cache_hit == 0.5  # of the prompts of which it is known
    assert found.output is not None and found.output.mean == 100  # without reasoning,
    assert found.output_factor == pytest.approx(500 / 200)  # which the factor holds
    responses = [{"created_at": t, "usage": {"input_tokens": 10, "output_tokens": 5}, "status": "completed"} for t in (1e9, 1e9 + 5)]
    assert imported(written(tmp_path, "responses.jsonl", lines(*responses))).requests == 2


@pytest.mark.parametrize(("unit", "scale"), [("s", 1), ("ms", 1e3), ("us", 1e6), ("ns", 1e9)])
def test_times_since_1970_tell_their_unit(tmp_path: Path, unit: str, scale: float) -> None:
    text = "when,in,out\n" + "".join(f"{int((1_700_000_000 + 20 * k) * scale)},10,20\n" for k in range(4))
    found = imported(written(tmp_path, "t.csv", text), mapped={"ts": "when", "isl": "in", "osl": "out"})
    assert found.arrivals is not None and found.arrivals.duration_s == pytest.approx(60)


def test_any_table_comes_in_with_a_map_and_its_unit(tmp_path: Path) -> None:
    path = written(tmp_path, "t.csv", "when,in,out\n0,10,20\n5000,10,20\n")
    found = imported(path, mapped={"ts": "when:ms", "isl": "in", "osl": "out"})
    assert found.arrivals is not None and found.arrivals.duration_s == 5
    nested = imported(written(tmp_path, "t.jsonl", lines({"a": {"b": 7}, "c": 3})), mapped={"isl": "a.b", "osl": "c"})
    assert nested.input.mean == 7 and nested.arrivals is None and any("no arrivals" in n for n in nested.notes)
    with pytest.raises(PlannerError, match=r"'wen' is missing.*when"):
        imported(path, mapped={"ts": "wen", "isl": "in", "osl": "out"})


def test_rows_are_counted_by_what_is_wrong_with_them(tmp_path: Path) -> None:
    bad = ["x,5,5", "3,,5", "4,5,many", "5,-1,5", "6,5,0", "7,0,5", "8,99999999,5", "9,5,5,5,5,5", ""]
    text = "arrival_s,input_tokens,output_tokens\n" + "\n".join(["1,10,10", "2,10,10", *bad]) + "\n"
    found = imported(written(tmp_path, "t.csv", text))
    assert found.requests == 2 and sum(found.dropped.values()) == len(bad) - 1  # a blank line is no row
    assert found.dropped["more cells than columns"] == 1 and found.dropped["more than 10,000,000 tokens"] == 1
    jsonl = lines(gateway(1, 5, 5)) + "{broken\n[1, 2]\n\n" + lines(gateway(2, 5, 5), {"ts": 3, "usage": None})
    damaged = imported(written(tmp_path, "t.jsonl", jsonl))
    assert damaged.requests == 2 and damaged.dropped == {"not a JSON object": 2, "prompt tokens are no number": 1}


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.csv", "", "is empty"),
        ("a.csv", "arrival_s,input_tokens,output_tokens\n", "no request counts"),
        ("a.csv", "Timestamp,Model,Request tokens,Response tokens\n5,GPT-4,1087,0\n", "1 rows: failed"),
        ("a.csv", "colour,size\n1,2\n", "format is not known"),
        ("a.jsonl", '{"colour": 1}\n', "format is not known"),
        ("a.csv", "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n", "images"),
        ("a.txt", "# TYPE x counter\nx 1\n", "no histogram of prompt tokens"),
    ],
)
def test_what_holds_no_request_is_one_line_and_exit_2(run: Run, tmp_path: Path, name: str, text: str, says: str) -> None:
    status, _, err = run("import", "demand", written(tmp_path, name, text))
    assert status == 2 and says in err and err.count("\n") == 1


def test_a_trace_may_be_zipped_and_come_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "arrival_s,input_tokens,output_tokens\n" + "".join(f"{k},{k % 7 + 1},{k % 11 + 1}\n" for k in range(1000))
    whole = imported(written(tmp_path, "t.csv", text))
    monkeypatch.setattr("planner.demand.formats.CHUNK", 64)
    with gzip.open(tmp_path / "t.csv.gz", "wt") as file:
        file.write(text)
    parts = imported(tmp_path / "t.csv.gz")
    assert parts.model_copy(update={"source": whole.source}) == whole


def test_rows_far_out_of_order_leave_burstiness_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("planner.demand.formats.CHUNK", 2)
    text = "arrival_s,input_tokens,output_tokens\n" + "".join(f"{t},1,1\n" for t in (5000, 5001, 10, 11))
    found = imported(written(tmp_path, "t.csv", text))
    assert found.arrivals is not None and found.arrivals.interarrival_cv is None and found.arrivals.duration_s == 4991


# ---- metrics


def test_an_exposition_gives_lengths_with_the_mean_of_its_sums(tmp_path: Path) -> None:
    def histogram(name: str, buckets: dict[str, int], total: float, label: str = "") -> str:
        rows = [f'{name}_bucket{{{label}le="{le}",model_name="m"}} {n}' for le, n in buckets.items()]
        return "\n".join([f"# TYPE {name} histogram", *rows, f'{name}_sum{{{label}model_name="m"}} {total}', f'{name}_count{{{label}model_name="m"}} 100', ""])

    text = histogram("vllm:request_prompt_tokens", {"500.0": 40, "1000.0": 80, "+Inf": 100}, 81_200)
    alone = imported(written(tmp_path, "m.txt", text))
    assert alone.requests == 100 and alone.input.mean == pytest.approx(812) and alone.output is None  # unknown is not zero
    text += histogram("vllm:request_generation_tokens", {"100.0": 50, "200.0": 100, "+Inf": 100}, 9_000)
    both = imported(
        written(tmp_path, "m.txt", text + 'vllm:prefix_cache_hits_total{model_name="m"} 30\nvllm:prefix_cache_queries_total{model_name="m"} 100\nx y z\n')
    )
    assert both.output is not None and both.output.mean == pytest.approx(90) and both.prefix_cache_hit == 0.3 and both.dropped == {"not a sample": 1}
    genai = "".join(
        histogram("gen_ai_client_token_usage", b, s, f'gen_ai_token_type="{side}",')
        for side, b, s in (("input", {"64": 60, "256": 100}, 9000.0), ("output", {"16": 100}, 800.0))
    )
    old = imported(written(tmp_path, "g.txt", genai))
    assert old.input.mean == pytest.approx(90) and old.output is not None and old.output.mean == pytest.approx(8)


def test_a_range_query_gives_rates_and_survives_a_restart(tmp_path: Path) -> None:
    def series(name: str, le: str, values: list[float]) -> dict[str, object]:
        metric = {"__name__": name, "model_name": "m"} | ({"le": le} if le else {})
        return {"metric": metric, "values": [[60.0 * k, str(v)] for k, v in enumerate(values)]}

    counts = [1000.0, 1060, 1180, 30, 90]  # restarted before the fourth
    result = [series("vllm:request_prompt_tokens_count", "", counts)]
    result += [series(f"vllm:request_{n}_tokens_bucket", le, counts) for n in ("prompt", "generation") for le in ("100", "+Inf")]
    path = written(tmp_path, "range.json", json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}}))
    found = imported(path)
    assert found.requests == 60 + 120 + 30 + 60 and found.arrivals is not None
    assert found.arrivals.mean == pytest.approx(270 / 240) and found.arrivals.peak == pytest.approx(2.0)
    text = to_toml(found)
    w = Workload.model_validate({"demand": str(written(tmp_path, "d.toml", text)), "slo": {"ttft_p99": "2s"}})
    assert w.peak == pytest.approx(2.2, rel=1e-3)  # minutes hide bursts: the highest, and a tenth at p99


# ---- rates and percentiles


@given(st.lists(st.integers(1, 50), min_size=1, max_size=200), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_percentiles_of_counts_are_numpys(values: list[int], q: float) -> None:
    assert percentile(np.bincount(values), q) == pytest.approx(np.quantile(values, q))


def test_requests_see_busier_bins_than_time_does() -> None:
    counts = np.array([1] * 90 + [91] * 10)  # a tenth of the time holds 91 % of the requests
    found = arrivals(np.arange(100), counts, 10.0, 1000.0, None)
    assert found is not None and found.at(50) == 9.1 and found.mean == 1.0
    assert found.burst == pytest.approx(9.1) and found.is_bursty


def test_few_requests_scatter_without_being_bursty() -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.5, 5000)
    bins = np.flatnonzero(counts)
    found = arrivals(bins, counts[bins], 10.0, 50_000.0, None)
    assert found is not None and found.burst > 4 and not found.is_bursty
    assert found.by_chance(95) == pytest.approx(found.at(95), rel=0.26)  # of one to three requests a bin


def test_a_queue_before_enough_capacity_never_waits() -> None:
    series = np.array([0, 0, 60, 0, 0, 0])  # six bins of a mean of ten: a burst of six bins' worth
    found = arrivals(np.arange(6), series, 10.0, 60.0, None)
    assert found is not None
    by = {h.multiple: h for h in found.held}
    assert by[6.0].wait_p95_s == 0 and by[2.0].wait_p95_s == pytest.approx((60 - 20) / 20 * 10) and by[2.0].share_above == pytest.approx(40 / 60, rel=1e-3)


def test_a_day_has_a_profile() -> None:
    counts = np.repeat(np.where(np.arange(24) < 12, 10, 30), 360)
    found = arrivals(np.arange(len(counts)), counts, 10.0, 86400.0, None)
    assert found is not None and found.profile == tuple([0.5] * 12 + [1.5] * 12)
    later = arrivals(np.arange(len(counts)), counts, 10.0, 86400.0, None, since_monday(1_700_000_000 // 86400 * 86400 + 6 * 3600))
    assert later is not None and later.profile == tuple([1.5] * 6 + [0.5] * 12 + [1.5] * 6)  # by the clock: the stream began at 6:00


@pytest.mark.skipif(not (TRACES / "summary.csv").is_file(), reason="needs published traces: DEMAND_TRACES")
@pytest.mark.parametrize("name", ["azure_2023_conv", "azure_2023_code", "mooncake_conversation", "mooncake_synthetic"])
def test_summaries_agree_with_the_published_ones(name: str) -> None:
    with (TRACES / "summary.csv").open(encoding="utf-8") as file:
        published = next(r for r in csv.DictReader(file) if r["trace"] == name)
    found = imported(TRACES / "raw" / f"{name}.csv.gz")
    a = found.arrivals
    assert a is not None and found.output is not None and not found.dropped and found.requests == int(published["requests"])
    for short, side in (("in", found.input), ("out", found.output)):
        for key in ("mean", "p50", "p90", "p99", "max"):
            assert getattr(side, key) == pytest.approx(float(published[f"{short}_{key}"]), rel=2e-4)
    for ours, theirs in (
        (a.duration_s, "duration_s"),
        (a.mean, "rate_mean_rps"),
        (a.peak_minute, "rate_peak_minute_rps"),
        (a.interarrival_cv, "interarrival_cv"),
    ):
        assert ours == pytest.approx(float(published[theirs]), rel=5e-4)
    with (TRACES / f"hist2d_{name}.csv").open(encoding="utf-8") as file:
        buckets = Counter({(r["input_tokens_bucket"], r["output_tokens_bucket"]): float(r["count"]) for r in csv.DictReader(file)})
    edges = [sorted({float(e) for b in buckets for e in b[i].strip("[)").split(";")}) for i in (0, 1)]
    h = found.histogram
    assert h is not None
    ours = np.histogram2d(h.inputs, h.outputs, bins=[np.array(e) for e in edges], weights=h.weights)[0]
    for (i, o), n in buckets.items():
        at = tuple(edges[k].index(float(b.strip("[)").split(";")[0])) for k, b in enumerate((i, o)))
        assert ours[at] == pytest.approx(n)


# ---- lengths


def cloud(seed: int, cells: int) -> Histogram:
    rng = np.random.default_rng(seed)
    return Histogram(
        np.ceil(rng.lognormal(6, rng.uniform(0.1, 1.3), cells)), np.ceil(rng.lognormal(5, rng.uniform(0.1, 1.2), cells)), rng.uniform(0.1, 9, cells)
    )


@given(st.integers(0, 10**6), st.integers(40, 400))
@settings(max_examples=40, deadline=None)
def test_points_keep_means_and_spread(seed: int, cells: int) -> None:
    h = cloud(seed, cells)
    found = lengths_of(h, "x")
    points = np.array(found.points)
    assert len(points) == 32 and list(found.cuts) == sorted(found.cuts)
    for values, mine in ((h.inputs, points[:, 0]), (h.outputs, points[:, 1])):
        assert mine.mean() == pytest.approx(h.mean(values), rel=1e-4)
        assert (mine**2).mean() == pytest.approx(h.mean(values**2), rel=1e-2)
    groups = points[:, 0].reshape(len(found.cuts) + 1, -1)
    assert all(a.max() <= b.min() * (1 + 1e-6) for a, b in pairwise(groups))  # a router can tell them apart
    assert abs(found.errors["work"]) < 1e-3


def test_fixed_lengths_are_points_of_these_lengths() -> None:
    found = lengths_of(Histogram(np.array([500.0]), np.array([100.0]), np.array([7.0])), "x")
    assert set(found.points) == {(500.0, 100.0)} and not any(found.errors.values())


def test_shipped_shapes_are_the_published_distributions() -> None:
    means = {
        "azure-2023-conv": (1154.7, 211.1),
        "azure-2023-code": (2047.9, 27.9),
        "mooncake-conversation": (12035.1, 342.6),
        "servegen-deepseek-r1": (1268.3, 1527.4),
    }
    assert means.keys() < shapes().keys() and sum(n.startswith("mlperf-") for n in shapes()) == 5
    for name in shapes():
        demand = read_demand(name)
        h = demand.histogram
        assert h is not None and demand.licence and demand.output is not None
        errors = lengths_of(h, name).errors  # as every plan states them
        assert abs(errors["work"]) < 1e-3 and abs(errors["prefill"]) < 1e-2 and abs(errors["kv"]) < 0.07 and abs(errors["tail"]) < 0.06
        assert (h.mean(h.inputs), h.mean(h.outputs)) == pytest.approx((demand.input.mean, demand.output.mean), rel=1e-3)
        assert (demand.input.mean, demand.output.mean) == pytest.approx(means.get(name, (demand.input.mean, demand.output.mean)), rel=1e-3)
    conv, code, moon = (read_demand(n) for n in ("azure-2023-conv", "azure-2023-code", "mooncake-conversation"))
    assert conv.arrivals and code.arrivals and not conv.arrivals.is_bursty and code.arrivals.is_bursty
    assert conv.arrivals.at(95) / conv.arrivals.mean == pytest.approx(1.54, abs=0.01) and code.arrivals.burst == pytest.approx(12.7, abs=0.1)
    assert moon.prefix_cache_hit == pytest.approx(0.366, abs=0.001)


def test_a_histogram_may_count_by_length_or_by_bucket(tmp_path: Path) -> None:
    exact = read_histogram(written(tmp_path, "a.csv", "input_tokens,output_tokens,count\n100,10,3\n300,50,1\n"))
    assert exact.input.mean == 150 and exact.requests == 4
    path = written(tmp_path, "b.csv", "input_tokens_bucket,output_tokens_bucket,count\n[64;128),[8;16),3\n[256;512),[32;64),1\n")
    middle = read_histogram(path)
    assert 64 < middle.input.p50 < 128 and any("middle" in n for n in middle.notes)
    assert read_histogram(path, (150.0, 20.0)).input.mean == pytest.approx(150)
    with pytest.raises(PlannerError, match=r"b.csv:2"):
        read_histogram(written(tmp_path, "b.csv", "input_tokens_bucket,output_tokens_bucket,count\n64-128,[8;16),3\n"))


# ---- scenarios


def test_a_demand_file_states_rate_peak_lengths_and_hits(tmp_path: Path) -> None:
    rows = [{"timestamp": 1000 * t, "input_length": 1024, "output_length": 10, "hash_ids": [t % 5, t]} for t in range(0, 600)]
    path = written(tmp_path, "d.toml", to_toml(imported(written(tmp_path, "m.jsonl", lines(*rows)))))
    w = ask({"demand_file": str(path)}).scenario.workload[0]
    assert w.qps == pytest.approx(600 / 599, rel=1e-5) and w.input_tokens == pytest.approx(1024) and w.prefix_cache_hit > 0.4
    assert w.peak == pytest.approx(1.0, rel=1e-2) and w.lengths is not None
    mine = ask({"demand_file": str(path), "qps": "5", "prefix_cache_hit": "0"}).scenario.workload[0]
    assert mine.qps == 5 and mine.prefix_cache_hit == 0  # what is stated wins
    file = written(tmp_path, "s.toml", '[[workload]]\ndemand = "d.toml"\n')
    assert ask({}, {}, file).scenario.workload[0].lengths is not None  # beside the scenario
    assert ask({"demand_file": str(path), "growth": "50%"}).scenario.workload[0].qps == pytest.approx(1.5 * 600 / 599, rel=1e-5)
    assert ask({"demand_file": "azure-2023-conv", "rate_rule": "peak-minute"}).scenario.workload[0].burst_factor == pytest.approx(1.528, abs=1e-3)


def test_a_demand_file_reads_back_as_it_was(tmp_path: Path) -> None:
    demand = read_demand("azure-2023-conv")
    import rtoml

    again = DemandFile.model_validate(rtoml.loads(to_toml(demand))).demand
    assert again == demand and isinstance(again, Demand)


def test_a_scenario_with_demand_needs_its_file_once(tmp_path: Path) -> None:
    asked = Scenario.model_validate({"workload": [{"demand": "azure-2023-conv", "growth": 2.0}]})
    assert Scenario.model_validate(asked.model_dump(mode="json")) == asked
    again = ask({}, {}, written(tmp_path, "s.toml", scenario_toml(asked))).scenario
    assert again == asked and again.workload[0].qps == pytest.approx(2 * 5.53042, rel=1e-5)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"lengths": "azure-2023-conv", "input_tokens": 1000, "qps": 1}, "both given"),
        ({"lengths": "azure-2023-con", "qps": 1}, "did you mean 'azure-2023-co"),
        ({"demand": "mlperf-mixtral-8x7b"}, "no rate"),
        ({"users": 100}, "think_time"),
        ({"users": 100, "think_time": "30s", "turns": 1}, "at least 2"),
        ({"users": 100, "think_time": "30s", "qps": 1}, "users stand for a rate"),
        ({"qps": 1, "input_cv": 0, "route_by": "input"}, "give lengths or a spread"),
        ({"qps": 1, "growth": "lots"}, "is no growth"),
    ],
)
def test_contradictions_are_refused(asked: dict[str, object], says: str) -> None:
    with pytest.raises((ValueError, PlannerError), match=says):
        Workload.model_validate(asked)


def test_growth_compounds_over_its_horizon() -> None:
    assert parse_growth("1.3") == 1.3 and parse_growth("30%") == pytest.approx(1.3)
    assert parse_growth("5%/month for 12 months") == pytest.approx(1.05**12)
    with pytest.raises(ValueError, match="different units"):
        parse_growth("5%/month for 2 years")


def test_users_ask_as_often_as_answers_and_pauses_let_them() -> None:
    catalog = load_catalog([TINY], shipped=False)
    plan = solve(Scenario.model_validate({"workload": [{"users": 500, "think_time": "30s", "turns": 6}]}), catalog, compare=False)
    w = plan.workloads[0]
    assert w.predicted is not None and w.concurrency is not None
    pause, answer = 30 * 5 / 6, w.predicted.e2e_ms.mean / 1e3
    assert w.qps >= 500 / (pause + answer) * (1 - 1e-4) and w.qps <= 500 / (pause + answer) * 1.1  # Little's law over the loop
    assert w.qps * pause + w.concurrency == pytest.approx(500, rel=0.1)  # every user pauses or waits
    assert any("500 users" in d for d in plan.defaults) and check_plan(Plan.model_validate_json(plan.to_json()), catalog).ok


def test_classes_by_prompt_length_are_the_whole_workload() -> None:
    asked = Scenario.model_validate({"workload": [{"qps": 8, "lengths": "azure-2023-conv", "route_by": "input"}]})
    classes = split(asked).workload
    total = sum(c.qps or 0 for c in classes)
    assert total == pytest.approx(8) and len(classes) == 2
    assert sum((c.qps or 0) * c.input_tokens for c in classes) == pytest.approx(8 * asked.workload[0].input_tokens)
    assert sum((c.qps or 0) * c.output_tokens for c in classes) == pytest.approx(8 * asked.workload[0].output_tokens)
    short, long = (c.lengths for c in classes)
    assert short and long and max(i for i, _ in short.points) <= min(i for i, _ in long.points)


def test_routing_by_length_says_what_it_saves_and_never_costs_more() -> None:
    catalog = load_catalog([TINY], shipped=False)
    raw = {"qps": 40, "lengths": "azure-2023-conv"}
    plain = solve(Scenario.model_validate({"workload": [raw]}), catalog, compare=False)
    by_length = solve(Scenario.model_validate({"workload": [raw | {"route_by": "input"}]}), catalog, compare=False)
    assert by_length.cost.usd_per_hour <= plain.cost.usd_per_hour * (1 + 1e-9) and "routing by prompt length" in by_length.notes[0]
    assert check_plan(Plan.model_validate_json(by_length.to_json()), catalog).ok


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=60), st.integers(0, 10**6))
@settings(max_examples=200, deadline=None)
def test_halving_finds_the_cheapest_of_all_boundaries(steps: list[tuple[int, int]], seed: int) -> None:
    """Short prompts cost more the higher the boundary, long ones less: then no boundary that was not looked at is cheaper."""
    short, long = np.cumsum([a for a, _ in steps]), np.cumsum([b for _, b in steps])[::-1]
    first = sorted({int(i) for i in np.random.default_rng(seed).integers(0, len(steps), 3)})
    known, is_whole = halved(len(steps), first, lambda i: (float(short[i]), float(long[i])), 0.0)
    assert is_whole and min(map(sum, known.values())) == (short + long).min()


def test_the_boundary_found_is_the_cheapest_of_every_one_there_is() -> None:
    catalog = load_catalog([TINY], shipped=False)
    asked = Scenario.model_validate({"workload": [{"qps": 400, "lengths": "mooncake-conversation", "route_by": "input"}]})
    cache, edges = SurveyCache(catalog), boundaries(histogram_of(asked.workload[0]))
    costs = {e: sum(costs_apart(assumed_of(asked, 0, boundary=e), cache, NEVER)[0]) for e in edges}
    best, notes = searched(asked, cache, NEVER)
    assert costs[best.workload[0].boundary or 0] <= min(costs.values()) * (1 + asked.solver.gap) and f"of {len(edges)} boundaries" in notes[0]


def test_a_boundary_may_be_stated() -> None:
    raw = {"qps": 10, "lengths": "azure-2023-conv", "route_by": "input", "boundary": 2048}
    short, long = split(Scenario.model_validate({"workload": [raw]})).workload
    cells = np.array(read_demand("azure-2023-conv").cells)
    assert (short.qps or 0) / 10 == pytest.approx(cells[cells[:, 0] < 2048, 2].sum() / cells[:, 2].sum())
    assert short.name == "requests (input < 2,048)" and long.name == "requests (input >= 2,048)"
    with pytest.raises(ScenarioError, match="without requests"):
        split(Scenario.model_validate({"workload": [raw | {"boundary": 90000}]}))
    with pytest.raises(ValidationError, match="say --route-by input"):
        Scenario.model_validate({"workload": [raw | {"route_by": ""}]})
    assert Scenario.model_validate({"workload": [raw | {"boundary": "auto"}]}).workload[0].boundary is None


def test_stated_lengths_are_routed_as_their_lognormals() -> None:
    """Means and spreads of both classes together are those stated; prompts are split where half the expected tokens are."""
    raw = {"qps": 8, "input_tokens": 1500, "output_tokens": 200, "input_cv": 1.2, "output_cv": 0.5, "route_by": "input"}
    short, long = split(Scenario.model_validate({"workload": [raw]})).workload
    assert short.lengths and long.lengths and (short.qps or 0) + (long.qps or 0) == pytest.approx(8)
    points, weights = np.array([*short.lengths.points, *long.lengths.points]), np.repeat([short.qps or 0, long.qps or 0], 32)
    mean = np.average(points, axis=0, weights=weights)
    assert mean == pytest.approx((1500, 200), rel=1e-3)
    assert np.sqrt(np.average((points - mean) ** 2, axis=0, weights=weights)) / mean == pytest.approx((1.2, 0.5), rel=0.02)
    sigma, cut = np.sqrt(np.log(1 + 1.2**2)), float(short.name.split("<")[1].rstrip(")").replace(",", ""))
    below = norm.cdf((np.log(cut / 1500) + sigma**2 / 2) / sigma)
    assert (short.qps or 0) / 8 == pytest.approx(below, abs=0.03)
    catalog = load_catalog([TINY], shipped=False)
    plain, by_length = (
        solve(Scenario.model_validate({"workload": [{**raw, "qps": 40, "input_tokens": 4000, "route_by": by}]}), catalog, compare=False) for by in ("", "input")
    )
    assert by_length.cost.usd_per_hour <= plain.cost.usd_per_hour * (1 + 1e-9) and "routing by prompt length" in by_length.notes[0]
    assert check_plan(Plan.model_validate_json(by_length.to_json()), catalog).ok


def test_a_bursty_stream_is_said_to_be_so() -> None:
    catalog = load_catalog([TINY], shipped=False)
    plan = solve(Scenario.model_validate({"workload": [{"demand": "azure-2023-code"}]}), catalog, compare=False)
    told = next(w for w in plan.warnings if "too bursty" in w)
    assert "12.7 times the mean" in told and "rate limit" in told and "queue" in told and "autoscaling" in told
    assert any("32 joint points" in d for d in plan.defaults) and plan.workloads[0].burst_factor == pytest.approx(9.12, abs=0.01)


# ---- commands


def test_show_prints_both_histograms_and_what_was_dropped(run: Run, tmp_path: Path) -> None:
    status, out, _ = run("demand", "show", "azure-2023-code")
    assert status == 0 and "8,819 requests" in out and "█" in out and "Prompts" in out and "Answers" in out and "too bursty" in out
    trace = written(tmp_path, "t.csv", "arrival_s,input_tokens,output_tokens\n1,10,10\n200,20,5\nx,1,1\n")
    assert "dropped 1 rows: no arrival time" in run("demand", "show", trace)[1]
    assert json.loads(run("demand", "show", trace, "--format", "json")[1])["requests"] == 2
    assert run("demand", "show", trace, "--format", "csv")[1].splitlines()[0].startswith("source,format,requests,duration_s,in_mean")
    assert "mooncake-conversation" in run("demand", "show")[1]


def test_import_writes_what_plan_takes(run: Run, tmp_path: Path) -> None:
    trace = written(tmp_path, "t.csv", "arrival_s,input_tokens,output_tokens\n" + "".join(f"{k / 3},{200 + k % 50},{20 + k % 9}\n" for k in range(600)))
    status, _, err = run("import", "demand", trace, "-o", tmp_path / "d.toml")
    assert status == 0 and "600 requests" in err and "nothing dropped" in err
    status, out, err = run("--demand-file", tmp_path / "d.toml", "--no-alternatives", "--format", "json")
    assert status == 0, err
    assert json.loads(out)["workloads"][0]["qps"] == pytest.approx(3.005, rel=1e-3)
    assert run("import", "demand", trace, "--as", "azur")[2].count("did you mean 'azure'") == 1


def test_a_tally_needs_no_rows_to_start() -> None:
    tally = Tally()
    tally.add(RequestRows(np.empty(0), np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)))
    assert tally.requests == 0 and tally.interarrival_cv is None


def test_unknown_demand_files_name_the_flag_or_file() -> None:
    with pytest.raises((ScenarioError, PlannerError), match="no shape or file"):
        ask({"demand_file": "nowhere.toml"})
