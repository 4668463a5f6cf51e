"""KServe: an LLMInferenceService where the engine is vLLM, whose presets start it, else an InferenceService with the engine's own container.

Presets read: github:kserve/kserve@aaac4e29 config/llmisvcconfig (they start `vllm serve` with the TP of ``parallelism``, and evaluate
VLLM_ADDITIONAL_ARGS). Data parallel within one pod stands among those arguments: ``parallelism.data`` would ask for a LeaderWorkerSet.
"""

from __future__ import annotations

import re
import shlex

from planner.clean import plain
from planner.deploy.manifest import HOURS, UNITS, WEIGHTS, Document, Manifest, Target
from planner.deploy.pod import gpus, metadata, node_selector, options_map, pod, startup, token, unexpanded
from planner.deploy.release import Release, Served
from planner.deploy.said import unlabelled
from planner.deploy.schedule import is_calendar, triggers
from planner.deploy.traffic import splits, weights_of_all
from planner.emit.command import Command
from planner.errors import PlannerError

NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", re.ASCII)
TENSOR = "--tensor-parallel-size"
# Where the other role finds this pod's KV cache (docs.vllm.ai features/nixl_connector_usage).
SIDE_CHANNEL: Document = {"name": "VLLM_NIXL_SIDE_CHANNEL_HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
IMAGE_NOTE = "KServe's preset names its own image of vLLM; here the plan's stands. It must bring what the preset expects, such as bash."


def manifests(release: Release) -> tuple[Manifest, ...]:
    """One file for each deployment. Raises PlannerError for a checkpoint whose name a shell, which KServe's presets start, would not take as it is."""
    for s in release.served:
        if not NAME.fullmatch(s.deployment.checkpoint):
            raise PlannerError(f"'{plain(s.deployment.checkpoint)}' is no name of a checkpoint on a hub", s.name, "plan emit kubernetes")
    files = [Manifest(f"{s.name}.yaml", (*options_map(s), _resource(s, release))) for s in release.served]
    files[0] = Manifest(files[0].file, files[0].documents, remarks=tuple(_said(release)))
    return tuple(files)


def _resource(s: Served, release: Release) -> Document:
    return _llm_service(s, release) if s.deployment.engine == "vllm" else _inference_service(s, release)


def _llm_service(s: Served, release: Release) -> Document:
    decode = s.commands[-1]
    spec: Document = {"model": {"uri": f"hf://{s.deployment.checkpoint}", "name": s.answers_to}}
    spec |= _count(s, release, max(s.deployment.decode_engines, 1))
    spec |= {"parallelism": {"tensor": _tensor(decode)}, "router": _router(s, release), "template": _template(s, decode)}
    if s.is_unit:
        prefill = s.commands[0]
        count = max(s.replicas) * s.deployment.prefill_engines
        spec["prefill"] = {"replicas": count, "parallelism": {"tensor": _tensor(prefill)}, "template": _template(s, prefill)}
    return {"apiVersion": "serving.kserve.io/v1alpha2", "kind": "LLMInferenceService", "metadata": metadata(s, release), "spec": spec}


def _count(s: Served, release: Release, engines: int) -> Document:
    """A number of replicas, or the hours that set it."""
    if len(set(s.replicas)) > 1 and is_calendar(release) and not s.is_unit:
        return {"scaling": {"minReplicas": max(min(s.replicas), 1), "maxReplicas": max(s.replicas), "keda": {"triggers": triggers(s, release)}}}
    return {"replicas": max(s.replicas) * engines}


def _router(s: Served, release: Release) -> Document:
    weight = weights_of_all(release).get(s.name)
    route: Document = {} if weight is None else {"group": splits(release)[0].name, "weight": weight}
    return {"route": route, "gateway": {}, "scheduler": {}}


def _tensor(command: Command) -> int:
    return int(command.value(TENSOR) or 1)


def _template(s: Served, command: Command) -> Document:
    """The preset's container, changed in image, arguments, GPUs and the time to start."""
    words = list(command.arguments[1:])  # without the checkpoint, which the preset mounts
    at = words.index(TENSOR)
    del words[at : at + 2]
    side: list[Document] = [SIDE_CHANNEL] if command.role else []
    container = {
        "name": "main",
        "image": s.image,
        "env": [{"name": "VLLM_ADDITIONAL_ARGS", "value": unexpanded(shlex.join(words))}, token(), *side],
        "resources": gpus(s),
        "startupProbe": startup(s),
    }
    return {**node_selector(s), "containers": [container]}


def _inference_service(s: Served, release: Release) -> Document:
    """The classic service with a container of one's own. Of hours it knows no calendar, so it has the most replicas."""
    spec = pod(s, release, s.commands[0], "kserve-container")
    count = max(s.replicas)
    predictor: Document = {"minReplicas": count, "maxReplicas": count, **spec}
    about = metadata(s, release)
    about["annotations"] = {"inference-planner/plan": release.identity, "serving.kserve.io/deploymentMode": "Standard"}
    return {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": about, "spec": {"predictor": predictor}}


def _said(release: Release) -> list[str]:
    found = unlabelled(release)
    if any(s.deployment.engine == "vllm" for s in release.served):
        found.append(IMAGE_NOTE)
    if any(s.is_unit for s in release.served):
        found.append("Units: KV cache goes from prefill to decode pods over NIXL, which needs a fast network (RDMA) between them; see KServe's own samples.")
    others = [s.name for s in release.served if s.deployment.engine != "vllm" and len(set(s.replicas)) > 1]
    found += [f"{n} is an InferenceService, which knows no hours: it has the most replicas." for n in others]
    if len(splits(release)) > 1:
        found.append("Several workloads are split over the same deployments: the weights are those of all their requests together.")
    return found


TARGET = Target("kserve", manifests, frozenset({UNITS, WEIGHTS, HOURS}), unit_engines=("vllm",))
