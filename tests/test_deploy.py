"""Manifests: each valid by its target's own schema, with typos rejected; what a target cannot say is refused or said; names that anybody may give."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from conftest import Run

from planner import Plan, Scenario, load_catalog, solve
from planner.catalog.replica_type import ReplicaType
from planner.deploy.hardware import PRODUCTS, RAY, SKYPILOT
from planner.deploy.hosts import hosts
from planner.deploy.names import label, unique
from planner.deploy.release import Release, Settings, plan_identity, read_images, release
from planner.deploy.schedule import stretches, triggers
from planner.deploy.targets import TARGETS
from planner.deploy.write import Written, to_yaml, written
from planner.emit.command import read_commands
from planner.emit.engine import GpuMemory, Steps, Thinking, serve_commands
from planner.errors import PlannerError
from planner.planning.periods import autoscale
from planner.scenario.change import assumed

DATA = Path(__file__).parent / "data"
KUBERNETES = "1.35"
V3, LONG = "DeepSeek-V3", {"qps": 10, "models": ["DeepSeek-V3"], "input_tokens": 8000, "slo": {"ttft_p95": "5s", "tpot_p95": "20ms"}}
MIXED = ["Qwen/Qwen3-30B-A3B-Instruct-2507-FP8", "Qwen/Qwen3-4B-Instruct-2507-FP8"]
ALLOW = ["attention_dp", "expert_parallel"]
GROUPS = {"qps": 40, "models": ["deepseek-ai/DeepSeek-V3.1"], "output_tokens": 3000, "slo": {"ttft_p95": "10s", "tpot_p95": "100ms"}}
SMALL = {"gpus": ["H100-SXM-80GB"], "providers": ["verda"]}
QUESTIONS: dict[str, dict[str, Any]] = {
    "headline": {"workload": [{"qps": 200, "models": ["Qwen3-Next-80B-A3B"]}], "supply": {"gpus": ["B200-SXM"]}},
    "mix": {"workload": [{"name": "chat", "qps": 200, "mean_quality": 0.75, "models": MIXED}], "policy": {"mix": True}, "supply": SMALL},
    "groups": {"workload": [GROUPS], "policy": {"engines": ["sglang"]}, "supply": {"gpus": ["B200-SXM"]}},
    "drafting": {"workload": [LONG], "supply": {"gpus": ["B200-SXM"]}, "policy": {"engines": ["trtllm"], "allow": [*ALLOW, "speculative"]}},
    "unit": {
        "workload": [LONG | {"models": ["Llama-3.1-70B"]}],
        "supply": {"gpus": ["B200-SXM", "H200-SXM-141GB"]},
        "policy": {"engines": ["sglang"], "allow": [*ALLOW, "disaggregated"]},
    },
    "unit of vllm": {"workload": [LONG], "supply": {"gpus": ["B200-SXM"]}, "policy": {"engines": ["vllm"], "allow": [*ALLOW, "disaggregated"]}},
    "hours": {"workload": [{"qps": 60, "models": MIXED[:1], "profile": "m-small"}], "supply": SMALL, "policy": {"engines": ["vllm"]}},
}
ENGINES = {"headline": "vllm", "mix": "vllm", "groups": "sglang", "drafting": "trtllm", "unit": "sglang", "unit of vllm": "vllm", "hours": "vllm"}
IMAGE = "example.org/engine:1.2.3"


@cache
def planned(question: str) -> Plan:
    scenario = Scenario.model_validate(QUESTIONS[question])
    plan = autoscale(scenario) if question == "hours" else solve(scenario, load_catalog(), compare=False)
    assert {d.engine for d in plan.deployments} == {ENGINES[question]} and (len(plan.deployments) == 2) == (question == "mix")
    assert question != "groups" or plan.deployments[0].dp == 8, "a question about attention groups needs a plan with them"
    return plan


def released(plan: Plan, target: str = "kubernetes", **settings: Any) -> Release:
    return release(plan, Settings(defaults=TARGETS[target].images, **settings))


@cache
def files(question: str, target: str) -> tuple[Written, ...]:
    return written(released(planned(question), target, images={"": IMAGE}), TARGETS[target])


def documents(question: str, target: str) -> list[dict[str, Any]]:
    return [d for f in files(question, target) if not f.text.startswith("#!") for d in yaml.safe_load_all(f.text)]


def of_kind(question: str, target: str, kind: str) -> list[dict[str, Any]]:
    return [d for d in documents(question, target) if d.get("kind") == kind]


def possible() -> Iterator[tuple[str, str]]:
    """Questions and the targets that can start their plans."""
    for question, engine in ENGINES.items():
        for name, target in TARGETS.items():
            if engine in target.engines and (not question.startswith("unit") or engine in target.unit_engines) and (question, name) != ("groups", "ray"):
                yield question, name


# ---- by the targets' own schemas


def closed(name: str) -> dict[str, Any]:
    return dict(json.loads((DATA / "schemas" / f"{name}.json").read_text()))


CRDS = {
    name: closed(name)
    for name in (
        "keda-scaledobject", "kserve-llminferenceservice", "kserve-inferenceservice", "inferencepool", "servicemonitor", "httproute", "dynamographdeployment",
    )
}  # fmt: skip


def validate(document: dict[str, Any]) -> None:
    """By Kubernetes' own schema, or by that of the custom resource, and its pods by Kubernetes' again. Raises what the validators do."""
    group, _, version = document["apiVersion"].rpartition("/")
    crd = next((c for c in CRDS.values() if (c["group"], c["version"], c["kind"]) == (group, version, document["kind"])), None)
    if crd is None:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
        return
    assert set(document) == {"apiVersion", "kind", "metadata", "spec"}
    jsonschema.validate(document["spec"], crd["spec"], cls=jsonschema.Draft202012Validator)
    for spec in pods(document["spec"]):
        probes = [{k: v for k, v in c.items() if k != "startupProbe" or "httpGet" in v} for c in spec["containers"]]
        template = {"metadata": {"labels": {"a": "b"}}, "spec": {**spec, "containers": probes}}
        wrapped = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
        kubernetes_validate.validate({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": wrapped}, KUBERNETES, strict=True)


def pods(spec: object) -> Iterator[dict[str, Any]]:
    """Specs of pods anywhere in a document; of KServe's predictor without what is its own."""
    if isinstance(spec, dict):
        if "containers" in spec:
            yield {k: v for k, v in spec.items() if k not in ("minReplicas", "maxReplicas")}
        for value in spec.values():
            yield from pods(value)
    elif isinstance(spec, list):
        for value in spec:
            yield from pods(value)


@pytest.mark.parametrize(("question", "target"), [p for p in possible() if p[1] in ("kubernetes", "kserve", "llm-d", "dynamo")])
def test_every_resource_is_valid_by_its_own_schema(question: str, target: str) -> None:
    found = [d for f in files(question, target) if f.is_applied for d in yaml.safe_load_all(f.text)]
    for document in found:
        validate(document)
    assert len({(d["kind"], d["metadata"]["name"]) for d in found}) == len(found)


TYPOS = [
    ("kubernetes", "Deployment", ("spec", "replica"), 1),
    ("kubernetes", "Deployment", ("spec", "template", "spec", "containers", 0, "startupProbe", "failureTreshold"), 3),
    ("kubernetes", "Deployment", ("spec", "replicas"), "8"),
    ("kubernetes", "Service", ("spec", "selectors"), {}),
    ("kubernetes", "ServiceMonitor", ("spec", "endpoints", 0, "intervall"), "5s"),
    ("kubernetes", "ScaledObject", ("spec", "maxReplicas"), 3),
    ("kubernetes", "ScaledObject", ("spec", "triggers", 0, "metadata", "desiredReplicas"), 3),
    ("kubernetes", "HTTPRoute", ("spec", "rules", 0, "backendRefs", 0, "weigth"), 3),
    ("llm-d", "InferencePool", ("spec", "targetPortNumber"), 8000),
    ("kserve", "LLMInferenceService", ("spec", "parallelism", "tensr"), 1),
    ("kserve", "LLMInferenceService", ("spec", "template", "containers", 0, "resources", "limit"), {}),
    ("kserve", "InferenceService", ("spec", "predictor", "minReplica"), 1),
    ("dynamo", "DynamoGraphDeployment", ("spec", "components", 1, "replica"), 1),
    ("dynamo", "DynamoGraphDeployment", ("spec", "components", 1, "type"), "workers"),
]  # fmt: skip


@pytest.mark.parametrize(("target", "kind", "path", "value"), TYPOS, ids=lambda x: str(x))
def test_typos_are_rejected(target: str, kind: str, path: tuple[str | int, ...], value: object) -> None:
    question = next(q for q in QUESTIONS if (q, target) in set(possible()) and of_kind(q, target, kind))
    document = json.loads(json.dumps(of_kind(question, target, kind)[0]))
    validate(document)
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        validate(document)


def compose_check(path: Path) -> int:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(command, capture_output=True, check=False, timeout=120).returncode


def test_compose_is_valid_and_typos_are_rejected(tmp_path: Path) -> None:
    for question in ("mix", "groups", "drafting"):
        for f in files(question, "compose"):
            path = tmp_path / f"{question}-{f.file}"
            path.write_text(f.text)
            assert compose_check(path) == 0, path
    text = files("mix", "compose")[0].text
    for old, new in (("device_ids", "device_idss"), ("healthcheck", "healthchek"), ("capabilities", "capability")):
        (tmp_path / "typo.yaml").write_text(text.replace(old, new))
        assert compose_check(tmp_path / "typo.yaml") == 1


# ---- flags


def known_flags(name: str) -> set[str]:
    return set((DATA / "flags" / f"{name}.txt").read_text().splitlines()[1:])


LAYOUTS = [ReplicaType(1), ReplicaType(4, 2, fp8_kv=True), ReplicaType(8, 1, 8, 8, draft=True), ReplicaType(2, prefill=1, decode=3)]
THOUGHTS = [("some/model", Thinking()), ("Qwen/Qwen3-8B", Thinking(True, True)), ("mistralai/Magistral-Small", Thinking(True)), ("zai-org/GLM-5", Thinking())]


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_every_flag_is_one_of_the_engine(engine: str) -> None:
    known = known_flags({"vllm": "vllm-serve", "sglang": "sglang"}[engine])
    asked = {"--host", "--port", "--served-model-name"}
    for layout in LAYOUTS:
        for checkpoint, thinking in THOUGHTS:
            for chunked in (True, False):
                for c in serve_commands(engine, checkpoint, layout, Steps(64, 2048, chunked, True), 8192, 0.9, GpuMemory(80, 16, 50), thinking):
                    asked |= {w for w in c.words if w.startswith("--")}
    assert not {f for f in asked if f not in known and f.replace("--no-", "--", 1) not in known}
    assert "--tensor-parallel-sizes" not in known


def test_a_start_command_reads_back_whatever_it_holds() -> None:
    for engine in ("vllm", "sglang", "trtllm"):
        for layout in LAYOUTS[: 3 if engine == "trtllm" else 4]:
            for checkpoint, thinking in (*THOUGHTS, ('a b/c\'; rm -rf ~ # "$(x)" --tp 2', Thinking())):
                found = serve_commands(engine, checkpoint, layout, Steps(64, 2048, True, True), 8192, 0.9, GpuMemory(80, 16, 50), thinking)
                assert read_commands("\n".join(c.text for c in found)) == found


def test_what_starts_no_engine_is_refused() -> None:
    for text in ("", "rm -rf /", "vllm bench serve", "vllm serve 'open"):
        with pytest.raises(ValueError):
            read_commands(text)


# ---- what the manifests say


def test_a_deployment_has_the_plans_replicas_gpus_and_settings() -> None:
    plan = planned("headline")
    (found,) = of_kind("headline", "kubernetes", "Deployment")
    (d,) = plan.deployments
    container = found["spec"]["template"]["spec"]["containers"][0]
    assert found["spec"]["replicas"] == d.replicas
    assert container["resources"]["limits"] == {"nvidia.com/gpu": str(d.tp)}
    assert [*container["command"], *container["args"]][:-4] == d.serve_command.split()
    assert container["startupProbe"]["periodSeconds"] * container["startupProbe"]["failureThreshold"] >= 600
    assert found["spec"]["template"]["spec"]["nodeSelector"] == {"nvidia.com/gpu.product": PRODUCTS[d.gpu]}


def test_comments_say_which_plan_and_nothing_of_when() -> None:
    for f in files("headline", "kubernetes"):
        assert plan_identity(planned("headline")) in f.text.splitlines()[0]
        assert "--qps 200 " in f.text
    again = written(released(Plan.model_validate_json(planned("headline").to_json()), images={"": IMAGE}), TARGETS["kubernetes"])
    assert again == files("headline", "kubernetes")


def test_weights_of_a_mix_are_its_shares() -> None:
    plan = planned("mix")
    shares = sorted(round(1000 * r.share) for r in plan.workloads[0].routing)
    (route,) = of_kind("mix", "kubernetes", "HTTPRoute")
    (rule,) = route["spec"]["rules"]
    assert sorted(b["weight"] for b in rule["backendRefs"]) == shares
    assert {b["name"] for b in rule["backendRefs"]} == {s["metadata"]["name"] for s in of_kind("mix", "kubernetes", "Service")}
    services = of_kind("mix", "kserve", "LLMInferenceService")
    assert sorted(s["spec"]["router"]["route"]["weight"] for s in services) == shares
    assert {s["spec"]["router"]["route"]["group"] for s in services} == {"chat"}
    assert "has no weights" in files("mix", "compose")[0].text


def test_deployments_that_share_a_workload_answer_to_one_name() -> None:
    for d in of_kind("mix", "kubernetes", "Deployment"):
        args = d["spec"]["template"]["spec"]["containers"][0]["args"]
        assert args[args.index("--served-model-name") + 1] == "chat"
    assert {d["spec"]["model"]["name"] for d in of_kind("mix", "kserve", "LLMInferenceService")} == {"chat"}


def at(minute: int, trigger: dict[str, Any], hours: int = 24) -> bool:
    """Whether a cron trigger is on at a minute of its day or week, as KEDA reads it: from the last start until the next end."""

    def minute_of(cron: str) -> int:
        m, h, _, _, day = cron.split()
        return int(m) + 60 * int(h) + (0 if day == "*" else 1440 * ((int(day) - 1) % 7))

    start, end = minute_of(trigger["metadata"]["start"]), minute_of(trigger["metadata"]["end"])
    whole = hours * 60
    return (minute - start) % whole < (end - start) % whole


def test_the_hours_of_a_plan_are_the_replicas_that_keda_keeps() -> None:
    plan = planned("hours")
    (scaled,) = of_kind("hours", "kubernetes", "ScaledObject")
    for hour, period in enumerate(plan.periods):
        on = [int(t["metadata"]["desiredReplicas"]) for t in scaled["spec"]["triggers"] if at(60 * hour + 30, t)]
        assert max([scaled["spec"]["minReplicaCount"], *on]) == period.deployments[0].replicas, hour
    assert "replicas" not in of_kind("hours", "kubernetes", "Deployment")[0]["spec"]
    (service,) = of_kind("hours", "kserve", "LLMInferenceService")
    assert service["spec"]["scaling"]["keda"]["triggers"] == scaled["spec"]["triggers"]


@pytest.mark.parametrize("counts", [(1, 1, 2, 2, 3, 1), (2, 1, 1, 2), (1, 1, 1), (3, 1, 2), (0, 1)], ids=str)
def test_stretches_cover_exactly_the_hours_above_the_least(counts: tuple[int, ...]) -> None:
    covered = dict.fromkeys(range(len(counts)), min(counts))
    for begin, end, count in stretches(counts):
        covered |= {h % len(counts): count for h in range(begin, end)}
    assert tuple(covered[h] for h in range(len(counts))) == counts


def test_a_week_begins_on_monday_and_a_start_before_it_is_on_sunday() -> None:
    plan = planned("hours")
    counts = (2, *(1,) * 167)
    found = replace(released(plan), plan=plan.model_copy(update={"periods": plan.periods * 7}))
    served = replace(found.served[0], replicas=counts)
    trigger: Any
    (trigger,) = triggers(served, found)
    assert (trigger["metadata"]["start"], trigger["metadata"]["end"]) == ("50 23 * * 0", "0 1 * * 1")
    assert at(30, trigger, 168) and not at(90, trigger, 168)


def test_what_a_target_does_not_know_of_hours_is_said() -> None:
    for target in ("llm-d", "dynamo", "compose", "skypilot", "vllm"):
        assert "By the hour" in files("hours", target)[0].text


def test_units_are_two_kinds_of_workers_where_a_target_has_them_and_refused_elsewhere() -> None:
    plan = planned("unit")
    (d,) = plan.deployments
    (graph,) = of_kind("unit", "dynamo", "DynamoGraphDeployment")
    counts = {c["name"]: c["replicas"] for c in graph["spec"]["components"]}
    assert counts == {"frontend": 1, "prefill": d.replicas * d.prefill_engines, "decode": d.replicas * d.decode_engines}
    for target in ("kubernetes", "llm-d", "compose", "ray", "skypilot", "kserve"):
        with pytest.raises(PlannerError, match=r"unit|does not start"):
            written(released(plan, target, images={"": IMAGE}), TARGETS[target])
    assert len(files("unit", "sglang")) == 2


def test_kserve_starts_both_roles_of_a_unit() -> None:
    (d,) = planned("unit of vllm").deployments
    (service,) = of_kind("unit of vllm", "kserve", "LLMInferenceService")
    spec = service["spec"]
    assert (spec["replicas"], spec["prefill"]["replicas"]) == (d.replicas * d.decode_engines, d.replicas * d.prefill_engines)
    for part, role in ((spec, "kv_consumer"), (spec["prefill"], "kv_producer")):
        env = {e["name"]: e for e in part["template"]["containers"][0]["env"]}
        assert role in env["VLLM_ADDITIONAL_ARGS"]["value"] and "VLLM_NIXL_SIDE_CHANNEL_HOST" in env
        assert "--tensor-parallel-size" not in env["VLLM_ADDITIONAL_ARGS"]["value"] and part["parallelism"]["tensor"] == d.tp // d.dp


def test_an_engine_that_a_target_does_not_start_is_refused_with_what_would_do() -> None:
    with pytest.raises(PlannerError, match="--engine vllm"):
        written(released(planned("groups"), "ray"), TARGETS["ray"])
    with pytest.raises(PlannerError, match="does not start"):
        written(released(planned("drafting"), "dynamo", images={"": IMAGE}), TARGETS["dynamo"])


def test_further_options_of_tensorrt_llm_are_a_file() -> None:
    (options,) = of_kind("drafting", "kubernetes", "ConfigMap")
    assert "MTP" in yaml.safe_load(options["data"]["options.yaml"])["speculative_config"]["decoding_type"]
    (deployment,) = of_kind("drafting", "kubernetes", "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    assert "/etc/engine/options.yaml" in pod["containers"][0]["args"]
    assert {v["configMap"]["name"] for v in pod["volumes"] if "configMap" in v} == {options["metadata"]["name"]}
    script = files("drafting", "trtllm")[0].text
    assert "--extra_llm_api_options <(echo '" in script


def test_every_replica_has_gpus_of_its_own_on_a_host() -> None:
    for question in ("mix", "groups", "headline"):
        plan = planned(question)
        found = hosts(released(plan))
        assert sum(h.count * len(h.placed) for h in found) == sum(d.replicas for d in plan.deployments)
        for h in found:
            used = [g for p in h.placed for g in range(p.first_gpu, p.first_gpu + p.served.engine_gpus)]
            assert len(used) == len(set(used))


def test_spot_is_said_to_skypilot() -> None:
    plan = planned("headline")
    spot = plan.model_copy(update={"purchases": (plan.purchases[0].model_copy(update={"purchase": "spot", "provider": "aws", "region": "us-east-1"}),)})
    (f,) = written(released(spot, "skypilot"), TARGETS["skypilot"])
    assert yaml.safe_load(f.text)["resources"] | {"x": 0} == {
        "infra": "aws/us-east-1", "accelerators": {"B200": 1}, "use_spot": True, "image_id": "docker:vllm/vllm-openai", "ports": 8000, "x": 0,
    }  # fmt: skip
    assert "(spot, us-east-1)" in written(released(spot), TARGETS["kubernetes"])[0].text


def test_ray_takes_settings_as_numbers_and_switches() -> None:
    (f,) = files("headline", "ray")
    model = yaml.safe_load(f.text)["applications"][0]["args"]["llm_configs"][0]
    assert model["engine_kwargs"]["max_num_seqs"] == planned("headline").deployments[0].max_num_seqs
    assert model["engine_kwargs"]["gpu_memory_utilization"] == 0.92
    assert model["deployment_config"] == {"num_replicas": planned("headline").deployments[0].replicas}


@pytest.mark.parametrize(("question", "target"), list(possible()))
def test_scripts_are_shell_and_yaml_reads_back(question: str, target: str) -> None:
    for f in files(question, target):
        if f.text.startswith("#!"):
            assert subprocess.run([shutil.which("bash") or "bash", "-n"], input=f.text.encode(), check=False).returncode == 0
        else:
            found = list(yaml.safe_load_all(f.text))
            assert list(yaml.safe_load_all(to_yaml(found))) == found


def test_gpus_are_the_catalogues() -> None:
    known = set(load_catalog().gpus)
    assert set(PRODUCTS) | set(SKYPILOT) | set(RAY) <= known
    assert len(set(PRODUCTS.values())) == len(PRODUCTS)


def test_an_engine_over_several_instances_is_refused() -> None:
    plan = planned("groups")
    small = plan.model_copy(update={"purchases": tuple(p.model_copy(update={"basis": "instance", "gpus_per_instance": 4}) for p in plan.purchases)})
    with pytest.raises(PlannerError, match="spans 2 instances"):
        written(released(small), TARGETS["kubernetes"])


def test_images(run: Run) -> None:
    assert read_images(["vllm=a/b:1", "c/d@sha256:00"]) == {"vllm": "a/b:1", "": "c/d@sha256:00"}
    for bad in ("x=a", "a b", "vllm=", "$(x)"):
        with pytest.raises(PlannerError):
            read_images([bad])
    assert "has no tag" in written(released(planned("headline")), TARGETS["kubernetes"])[0].text
    assert "has no tag" not in files("headline", "kubernetes")[0].text
    gaudi = planned("headline").model_copy(update={"deployments": tuple(d.model_copy(update={"gpu": "Gaudi3"}) for d in planned("headline").deployments)})
    with pytest.raises(PlannerError, match="no official image"):
        released(gaudi)


# ---- names that anybody may give

EVIL = "a$(touch /tmp/x)`id` !!python/object:os.system\n---\nkind: Secret # {{ .Values }} '\"<img>../../etc/passwd"


def hostile() -> Plan:
    """A plan whose names are hostile, with the start commands that the planner would write for them."""
    plan = planned("mix")
    ds = []
    for d in plan.deployments:
        command = serve_commands("vllm", EVIL, d.replica, Steps(64, 2048), 8192, 0.9, GpuMemory(80, 16, 50))
        ds.append(d.model_copy(update={"checkpoint": EVIL, "serve_command": "\n".join(c.text for c in command)}))
    lines = tuple(p.model_copy(update={"provider": EVIL, "instance_type": EVIL, "region": EVIL}) for p in plan.purchases)
    workloads = tuple(w.model_copy(update={"name": EVIL}) for w in plan.workloads)
    asked = tuple(w.model_copy(update={"name": EVIL}) for w in plan.scenario.workload)
    scenario = plan.scenario.model_copy(update={"name": EVIL, "workload": asked})
    return plan.model_copy(update={"deployments": tuple(ds), "purchases": lines, "workloads": workloads, "scenario": scenario})


def test_hostile_names_that_break_lines_are_no_commands() -> None:
    with pytest.raises(PlannerError, match="start command"):
        released(hostile())


@pytest.mark.parametrize("target", ["kubernetes", "llm-d", "dynamo", "compose", "ray", "skypilot", "vllm"])
def test_hostile_names_stay_text(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "EVIL", EVIL.replace("\n", " "))
    evil = EVIL
    found = written(released(hostile(), target, images={"": IMAGE}), TARGETS[target])
    for f in found:
        assert Path(f.file).name == f.file and not f.file.startswith(".") and f.file.isascii()
        if f.text.startswith("#!"):
            assert subprocess.run(["bash", "-n"], input=f.text.encode(), check=False).returncode == 0
            line = next(x for x in f.text.splitlines() if x.startswith("exec"))
            assert line.count("'\"'\"'") and "$(touch" in line
            continue
        body = list(yaml.safe_load_all(f.text))
        assert not any(d.get("kind") == "Secret" for d in body)
        for name in (d["metadata"]["name"] for d in body if "metadata" in d):
            assert label(name, 63) == name
        for d in body:
            if d.get("kind") in ("Deployment", "InferencePool", "Service"):
                validate(d)
    text = "".join(f.text for f in found)
    if target == "kubernetes":
        args = next(d for f in found for d in yaml.safe_load_all(f.text) if d["kind"] == "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"]
        assert args[0] == evil.replace("$(", "$$(")  # which Kubernetes reads as $(
    if target == "compose":
        service = next(iter(yaml.safe_load(found[0].text)["services"].values()))
        assert service["command"][0] == evil.replace("$", "$$")
    assert "\n---\nkind: Secret" not in text


def test_kserve_refuses_names_that_its_presets_would_run() -> None:
    plan = planned("mix")
    ds = tuple(d.model_copy(update={"checkpoint": "a$(id)", "serve_command": d.serve_command.replace(d.checkpoint, "'a$(id)'")}) for d in plan.deployments)
    with pytest.raises(PlannerError, match="no name of a checkpoint"):
        written(released(plan.model_copy(update={"deployments": ds}), "kserve"), TARGETS["kserve"])


@pytest.mark.parametrize("old_new", [("--max-num-seqs", "--trust-remote-code --max-num-seqs"), ("--tensor-parallel-size 1", "--tensor-parallel-size 2")])
def test_commands_that_the_planner_never_writes_are_refused(old_new: tuple[str, str]) -> None:
    plan = planned("headline")
    ds = tuple(d.model_copy(update={"serve_command": d.serve_command.replace(*old_new)}) for d in plan.deployments)
    with pytest.raises(PlannerError, match="plan check"):
        released(plan.model_copy(update={"deployments": ds}))


def test_labels_are_dns_labels_and_unique() -> None:
    assert label("../../Etc") == "etc" and label("9x") == "x9x" and label("<>") == "x" and len(label("a" * 99)) == 40
    assert unique(["A b", "a-b", "a.b"]) == ("a-b", "a-b-2", "a-b-3")
    assert len(set(unique(["x" * 99] * 12))) == 12 and max(map(len, unique(["x" * 99] * 12))) <= 40


# ---- the command


def test_the_command_prints_or_writes(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(planned("headline").to_json())
    status, out, err = run("emit", "kubernetes", path, "--image", IMAGE)
    assert (status, err) == (0, "") and [d["kind"] for d in yaml.safe_load_all(out)] == ["Deployment", "Service", "ServiceMonitor"]
    status, out, _ = run("emit", "llm-d", path, "-o", tmp_path / "out")
    made = {p.name for p in (tmp_path / "out").iterdir()}
    assert status == 0 and {"bench.sh", "bench.in-flight.jsonl"} <= made and any(n.endswith(".router.values.yaml") for n in made)
    assert all(line.split(" and ")[0].startswith(str(tmp_path / "out")) for line in out.splitlines())


@pytest.mark.parametrize("words", [("kubernetess", "plan.json"), ("kubernetes", "plan.json", "--timezone", "a b"), ("kubernetes", "nothing.json")])
def test_the_command_refuses_in_one_line(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plan.json").write_text(planned("headline").to_json())
    status, out, err = run("emit", *words)
    assert status == 2 and not out and err.count("\n") == 1


def test_parts_that_do_not_fit_together_are_refused() -> None:
    plan = planned("headline")
    ds = tuple(d.model_copy(update={"hosts": tuple(h.model_copy(update={"purchase": 7}) for h in d.hosts)}) for d in plan.deployments)
    with pytest.raises(PlannerError, match="do not fit together"):
        released(plan.model_copy(update={"deployments": ds}))


def test_own_tables_name_no_engine(run: Run, tmp_path: Path) -> None:
    examples = Path(__file__).parent.parent / "examples"
    path = tmp_path / "own.json"
    assert run("--capacities", examples / "capacities.csv", "--demand", examples / "demand.csv", "--format", "json", "-o", path)[0] == 0
    status, _, err = run("emit", "kubernetes", path)
    assert status == 2 and "names no engine" in err


def test_a_supposition_changes_the_plans_name() -> None:
    plan = planned("headline")
    assert plan_identity(plan) != plan_identity(plan.model_copy(update={"scenario": assumed(plan.scenario, "solver", seed=1)}))
