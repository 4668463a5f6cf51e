"""One engine as a pod: container, probes for models that load for minutes, GPUs, shared memory. Every target on Kubernetes builds on it."""

from __future__ import annotations

from math import ceil

from planner.deploy.hardware import PRODUCTS, resource
from planner.deploy.manifest import Document
from planner.deploy.release import PORT, Release, Served
from planner.deploy.said import longest_seconds, start_seconds
from planner.emit.command import OPTIONS_FLAG, Command

PROGRAM = {"vllm": ["vllm", "serve"], "sglang": ["python3", "-m", "sglang.launch_server"], "trtllm": ["trtllm-serve"]}
OWN_ENTRY = ("trtllm",)  # whose image starts what it is given by a script of its own, which finds its libraries
# Open MPI 5 makes a name of the host's, which must be short; pods' are not (github:NVIDIA/TensorRT-LLM#19607).
SHORT_HOST = {"trtllm": [{"name": "PMIX_HOSTNAME", "value": "trtllm-node"}]}
TOKEN_SECRET = "hf-token"  # with a key HF_TOKEN; may be missing where the checkpoint is open
OPTIONS_FOLDER = "/etc/engine"
OPTIONS_FILE = "options.yaml"
EVERY = 10  # seconds between probes


def pod(s: Served, release: Release, command: Command, container: str = "engine") -> Document:
    """The pod's spec of one engine."""
    volumes: list[Document] = [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "16Gi"}}] if s.engine_gpus > 1 else []
    volumes += [{"name": "options", "configMap": {"name": options_name(s)}}] if command.options else []
    found: Document = {"terminationGracePeriodSeconds": longest_seconds(s, release)}
    found |= node_selector(s)
    found["containers"] = [engine_container(s, command, container)]
    return found | ({"volumes": volumes} if volumes else {})


def engine_container(s: Served, command: Command, name: str) -> Document:
    """The engine's container, with all that its pod has room for."""
    mounts: list[Document] = [{"name": "shm", "mountPath": "/dev/shm"}] if s.engine_gpus > 1 else []
    mounts += [{"name": "options", "mountPath": OPTIONS_FOLDER, "readOnly": True}] if command.options else []
    first, words = started(s, command)
    return {
        "name": name,
        "image": s.image,
        **({"command": first} if first else {}),
        "args": [unexpanded(a) for a in words],
        "env": [token(), *SHORT_HOST.get(s.deployment.engine, [])],
        "ports": [{"name": "http", "containerPort": PORT}],
        "resources": gpus(s),
        **probes(s),
        **({"volumeMounts": mounts} if mounts else {}),
    }


def started(s: Served, command: Command) -> tuple[list[str], list[str]]:
    """The container's program, none where its image has a way of its own to start one, and the words behind; further options stand in a mounted file."""
    further = [OPTIONS_FLAG, f"{OPTIONS_FOLDER}/{OPTIONS_FILE}"] if command.options else []
    program, words = PROGRAM[s.deployment.engine], [*s.arguments(command), *further]
    return ([], [*program, *words]) if s.deployment.engine in OWN_ENTRY else (program, words)


def unexpanded(text: str) -> str:
    """Text in which Kubernetes replaces no $(VARIABLE)."""
    return text.replace("$(", "$$(")


def options_map(s: Served) -> list[Document]:
    """The file of further options, where the engine needs one."""
    options = next((c.options for c in s.commands if c.options), "")
    if not options:
        return []
    return [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": options_name(s)}, "data": {OPTIONS_FILE: f"{options}\n"}}]


def options_name(s: Served) -> str:
    """The name of the ConfigMap with further options."""
    return f"{s.name}-options"


def token() -> Document:
    """Access to checkpoints, from a secret that may be missing."""
    return {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": TOKEN_SECRET, "key": "HF_TOKEN", "optional": True}}}


def gpus(s: Served) -> Document:
    """GPUs of one engine, as Kubernetes counts them: in text, requested as they are limited."""
    count = {resource(s.deployment.gpu): str(s.engine_gpus)}
    return {"limits": count, "requests": dict(count)}


def node_selector(s: Served) -> Document:
    """Nodes with the plan's GPU, where their label is known."""
    product = PRODUCTS.get(s.deployment.gpu)
    return {"nodeSelector": {"nvidia.com/gpu.product": product}} if product else {}


def probes(s: Served) -> Document:
    """Ready when the engine answers; restarted when it stops to, but not while it still loads."""
    asked = {"httpGet": {"path": "/health", "port": "http"}}
    return {
        "startupProbe": {**asked, **startup(s), "timeoutSeconds": 5},
        "readinessProbe": {**asked, "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 3},
        "livenessProbe": {**asked, "periodSeconds": EVERY, "timeoutSeconds": 5, "failureThreshold": 6},
    }


def startup(s: Served) -> Document:
    """How often and how many times it is asked whether it has started."""
    return {"periodSeconds": EVERY, "failureThreshold": ceil(start_seconds(s) / EVERY)}


def metadata(s: Served, release: Release, name: str = "") -> Document:
    """Name, labels that controllers select by, and the plan it is of."""
    return {"name": name or s.name, "labels": labels(s), "annotations": {"inference-planner/plan": release.identity}}


def labels(s: Served) -> dict[str, str]:
    """Of everything that belongs to one deployment."""
    return {"app.kubernetes.io/name": s.name, "app.kubernetes.io/managed-by": "inference-planner"}


def selected(s: Served) -> dict[str, str]:
    """The labels that tell its pods from all others."""
    return {"app.kubernetes.io/name": s.name}
