"""Speculative decoding and disaggregated units as candidates: only where allowed and measured, bounded, checked, started, said.

How good their formulas are is in test_disaggregated and test_speculation.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run

from planner import Scenario, load_catalog, solve
from planner.bench.points import read_points
from planner.candidates.points import Points
from planner.candidates.survey import Survey, survey
from planner.catalog.catalog import Catalog
from planner.catalog.load import shipped_folders
from planner.catalog.replica_type import ReplicaType
from planner.check.check import check_plan
from planner.emit.engine import GpuMemory, Steps, serve_command
from planner.errors import CatalogError
from planner.performance.disaggregated import RATIOS
from planner.performance.replicas import ENGINES
from planner.performance.speculation import measured_loads
from planner.result.plan import Deployment, Plan
from planner.validation.predictions import RowPrediction, predict_points

DEFAULT = ("attention_dp", "expert_parallel")
TIGHT = {"ttft_p95": "5s", "tpot_p95": "20ms"}
R1, V3, LLAMA = "deepseek-ai/DeepSeek-R1-0528", "DeepSeek-V3", "Llama-3.1-70B"


@cache
def catalog() -> Catalog:
    return load_catalog()


def scenario(*more: str, policy: dict[str, Any] | None = None, supply: dict[str, Any] | None = None, **workload: Any) -> Scenario:
    """Long prompts and a tight TPOT, where both ways can pay."""
    asked = {"qps": 10, "models": (V3,), "input_tokens": 8000, "output_tokens": 300, "slo": TIGHT, **workload}
    rules = {"allow": (*DEFAULT, *more), **(policy or {})}
    return Scenario.model_validate({"workload": [asked], "supply": {"gpus": ("B200-SXM", "H200-SXM-141GB"), **(supply or {})}, "policy": rules})


@cache
def surveyed(*more: str) -> Survey:
    return survey(scenario(*more), catalog(), catalog().offers)


@cache
def planned(*more: str, engines: tuple[str, ...] = (), model: str = V3, reasons: bool = False, confidence: float = 0.8) -> Plan:
    asked: dict[str, Any] = {"models": (R1,), "slo": {"e2e_p95": "120s"}} if reasons else {"models": (model,)}
    return solve(scenario(*more, policy={"engines": engines, "confidence": confidence}, **asked), catalog(), compare=False)


def only(plan: Plan) -> Deployment:
    assert len(plan.deployments) == 1
    return plan.deployments[0]


# ---- which candidates there are


def test_neither_is_a_candidate_unless_allowed() -> None:
    plain = surveyed()
    assert not plain.replicas.draft.any() and not plain.replicas.is_unit.any() and plain.options is None
    assert surveyed("speculative").replicas.draft.any() and not surveyed("speculative").replicas.is_unit.any()
    assert surveyed("disaggregated").replicas.is_unit.any() and not surveyed("disaggregated").replicas.draft.any()


def test_what_is_allowed_comes_after_all_that_was_there_before() -> None:
    plain, more = surveyed(), surveyed("speculative", "disaggregated")
    first = more.replicas.take(slice(0, len(plain.replicas)))
    assert all((getattr(first, name) == getattr(plain.replicas, name)).all() for name in ("architecture", "gpu", "engine", "tp", "pp", "dp", "draft", "decode"))


def test_tokens_are_drafted_only_where_that_was_measured_and_for_no_more_sequences() -> None:
    found = surveyed("speculative")
    assert found.options
    r, rows = found.replicas, np.flatnonzero(found.replicas.draft)
    most = measured_loads(found.options.speculation, r.take(rows), found.names)
    assert (most > 0).all() and set(r.tp[rows].tolist()) <= {4, 8} and (r.pp[rows] == 1).all()
    points = Points(found).of(rows[found.physics[0].slots[rows] > 0])
    assert points and all(p.max_num_seqs <= most[rows.tolist().index(row)] for row, at in points.items() for p in at)


def test_units_stand_on_linked_gpus_of_one_node_and_need_engines_that_were_measured() -> None:
    found = surveyed("disaggregated")
    r, rows = found.replicas, np.flatnonzero(found.replicas.is_unit)
    assert {(int(r.prefill[i]), int(r.decode[i])) for i in rows} <= set(RATIOS)
    assert (r.size[rows] == r.tp[rows] * (r.prefill[rows] + r.decode[rows])).all() and (r.size[rows] <= 8).all()
    assert (found.evidence.tier[rows] <= 1).all() and "trtllm" not in {ENGINES[e] for e in r.engine[rows].tolist()}


def test_prompts_that_stop_decoding_whole_leave_units_out() -> None:
    found = survey(scenario("disaggregated", policy={"chunked_prefill": False}), catalog(), catalog().offers)
    assert not found.replicas.is_unit.any()


@pytest.mark.parametrize("slo", [TIGHT, {"e2e_p95": "20s", "tpot_p95": "none", "ttft_p95": "none"}, {"itl_p99": "60ms", "ttft_p95": "4s"}], ids=str)
def test_no_capacity_exceeds_the_bound_that_prunes(slo: dict[str, str]) -> None:
    found = survey(scenario("speculative", "disaggregated", slo=slo), catalog(), catalog().offers)
    r, physics = found.replicas, found.physics[0]
    rows = np.flatnonzero((physics.slots > 0) & (r.is_unit | (r.draft > 0)))
    for row, points in Points(found).of(rows).items():
        for p in points:
            assert max(p.single[0], p.saturated[0]) <= physics.most_qps[row] * (1 + 1e-6), row


def test_own_ratios_are_read_instead_of_the_shipped_ones_and_name_the_catalogue(tmp_path: Path) -> None:
    lines = (shipped_folders()[1] / "speculation.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "speculation.csv").write_text("".join([lines[0], *(line for line in lines[1:] if ",MI325X," in line)]), encoding="utf-8")
    own = load_catalog((str(tmp_path),))
    assert own.hash != catalog().hash
    assert not survey(scenario("speculative"), own, own.offers).replicas.draft.any()
    (tmp_path / "speculation.csv").write_text("".join(lines[:2]), encoding="utf-8")
    with pytest.raises(CatalogError, match="how far off"):
        survey(scenario("speculative"), own, own.offers)


# ---- plans


def test_a_plan_with_drafted_tokens() -> None:
    plan = planned("speculative", engines=("trtllm",))
    d = only(plan)
    assert (d.speculative, d.decode_engines) == ("mtp", 0) and d.layout.endswith("+ MTP")
    assert d.evidence and d.evidence.tier == "anchored" and "speculative decoding" in d.evidence.source
    assert "decoding_type: MTP" in d.serve_command
    assert any("accepted depends on the traffic" in w and "DeepSeek-R1 only" in w for w in plan.warnings)
    assert check_plan(plan, catalog()).ok


def test_a_plan_with_units() -> None:
    plan = planned("disaggregated", engines=("sglang",), model=LLAMA)
    d = only(plan)
    assert (d.prefill_engines, d.decode_engines) in RATIOS and d.layout.startswith(f"{d.prefill_engines}P{d.decode_engines}D of ")
    assert d.gpus == d.replicas * d.tp * (d.prefill_engines + d.decode_engines)
    assert d.evidence and d.evidence.tier == "anchored" and "disaggregated units" in d.evidence.source
    assert [line.split("--disaggregation-mode ")[1].split()[0] for line in d.serve_command.splitlines()] == ["prefill", "decode"]
    assert any("units of" in w and "DeepSeek-R1 only" in w for w in plan.warnings)
    assert check_plan(plan, catalog()).ok


def test_a_model_that_reasons_is_planned_with_both_ways() -> None:
    plan = planned("speculative", "disaggregated", reasons=True)
    assert only(plan).checkpoint == R1 and only(plan).output_factor > 1
    assert check_plan(plan, catalog()).ok


def test_more_ways_never_cost_more() -> None:
    for reasons in (False, True):
        for confidence in (0.5, 0.9):
            cost = {ways: planned(*ways, reasons=reasons, confidence=confidence).cost.usd_per_hour for ways in ((), ("speculative",), ("disaggregated",))}
            both = planned("speculative", "disaggregated", reasons=reasons, confidence=confidence).cost.usd_per_hour
            assert both <= min(cost.values()) * (1 + 1e-4) and max(cost.values()) <= cost[()] * (1 + 1e-4)


def test_surer_plans_with_units_cost_no_less() -> None:
    costs = [planned("disaggregated", engines=("sglang",), model=LLAMA, confidence=c).cost.usd_per_hour for c in (0.5, 0.8, 0.9)]
    assert costs == sorted(costs)


def test_the_check_refuses_what_was_not_allowed_or_is_misstated() -> None:
    units, drafts = planned("disaggregated", engines=("sglang",), model=LLAMA), planned("speculative", engines=("trtllm",))
    for plan, changed in (
        (units, {"prefill_engines": 0}),
        (units, {"prefill_engines": only(units).prefill_engines + 1}),
        (units, {"engine": "trtllm"}),
        (units, {"speculative": "mtp"}),
        (drafts, {"speculative": ""}),
        (drafts, {"max_num_seqs": 1024}),
    ):
        other = plan.model_copy(update={"deployments": (only(plan).model_copy(update=changed),)})
        assert not check_plan(other, catalog()).ok, changed
    for plan in (units, drafts):
        rules = plan.scenario.model_copy(update={"policy": plan.scenario.policy.model_copy(update={"allow": DEFAULT})})
        assert any("not allowed" in str(b) for b in check_plan(plan.model_copy(update={"scenario": rules}), catalog()).breaches)


# ---- words and commands


def test_layouts_in_words() -> None:
    assert ReplicaType(1, prefill=1, decode=3).words == "1P3D of TP1"
    assert ReplicaType(8, draft=True).words == "TP8 + MTP"
    assert ReplicaType(4, 1, 4, 4, prefill=1, decode=1).words == "1P1D of DP4 EP4"


def command(engine: str, **layout: Any) -> str:
    return serve_command(engine, "some/model", ReplicaType(2, 1, 1, 1, False, **layout), Steps(64, 8192), 8192, 0.9, GpuMemory(80, 16, 50))


def test_commands_start_each_role_and_the_drafting_layer() -> None:
    prefill, decode = command("vllm", prefill=1, decode=3).splitlines()
    assert '"kv_role":"kv_producer"' in prefill and prefill.endswith("# 1 prefill engine")
    assert '"kv_role":"kv_consumer"' in decode and decode.endswith("# 3 decode engines")
    assert "--speculative-config" in command("vllm", draft=True) and "--speculative-algorithm EAGLE" in command("sglang", draft=True)
    assert "speculative_config: {decoding_type: MTP" in command("trtllm", draft=True)
    for engine in ENGINES:
        assert "specul" not in command(engine) and "\n" not in command(engine)


# ---- predictions


HEADER = "model,precision,gpu,engine,gpus_total,tp,mode,spec_decode,isl,osl,concurrency,tpot_ms_mean,notes\n"


def validated(folder: Path, *rows: str) -> list[RowPrediction]:
    (folder / "points.csv").write_text(HEADER + "".join(rows), encoding="utf-8")
    return predict_points(read_points(folder / "points.csv"), catalog(), 0.9)


def test_rows_with_drafted_tokens_are_predicted_where_that_was_measured(tmp_path: Path) -> None:
    row = f"{R1},fp8,H200-SXM-141GB,trt,8,8,agg,{{}},1024,1024,{{}},20,\n"
    drafts, plain, beyond, other = validated(tmp_path, row.format("mtp", 16), row.format("none", 16), row.format("mtp", 128), row.format("eagle", 16))
    assert drafts.predicted["tpot_ms"] < plain.predicted["tpot_ms"] and drafts.predicted["output_tps"] > plain.predicted["output_tps"]
    assert drafts.predicted["ttft_ms"] > plain.predicted["ttft_ms"] and (drafts.tier, plain.tier) == ("anchored", "measured")
    assert drafts.band["tpot_ms_low"] < drafts.predicted["tpot_ms"] < drafts.band["tpot_ms_high"]
    assert not beyond.predicted and "not measured on this replica type at this load" in beyond.reason
    assert not other.predicted and other.reason == "speculative decoding (eagle)"


def test_rows_of_units_are_predicted_where_their_engines_are_told(tmp_path: Path) -> None:
    row = f"{R1},nvfp4,B200-SXM,dynamo-trt,12,,disagg,{{}},1024,1024,{{}},20,{{}}\n"
    told = '"prefill 1w tp4 (4 GPU), decode 2w tp4 (8 GPU)"'
    one, many, untold, drafted = validated(
        tmp_path, row.format("none", 4, told), row.format("none", 256, told), row.format("none", 4, ""), row.format("mtp", 4, told)
    )
    assert set(one.predicted) == {"tpot_ms", "output_tps"} and "TTFT" in one.reason and one.tier == "anchored"
    assert one.predicted["tpot_ms"] < many.predicted["tpot_ms"] and one.predicted["output_tps"] < many.predicted["output_tps"]
    assert "engines of the pools not given" in untold.reason and "speculative decoding (mtp) in units" in drafted.reason


def test_predict_with_drafted_tokens_is_faster_and_only_where_measured(run: Run) -> None:
    asked = ("predict", "--checkpoint", R1, "--gpu", "H200-SXM-141GB", "--tp", "8", "--isl", "1024", "--osl", "1024", "--engine", "trtllm", "--format", "csv")
    status, out, _ = run(*asked, "--concurrency", "4", "--speculative", "mtp")
    assert status == 0 and float(out.splitlines()[1].split(",")[4]) < float(run(*asked, "--concurrency", "4")[1].splitlines()[1].split(",")[4])
    status, _, err = run(*asked, "--concurrency", "64", "--speculative", "mtp")
    assert status == 2 and "not measured of more than 32 requests" in err
