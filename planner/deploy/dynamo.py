"""NVIDIA Dynamo: one DynamoGraphDeployment (v1beta1) for each deployment, with a frontend and workers; prefill and decode workers of units.

Fields: github:ai-dynamo/dynamo deploy/operator/api/v1beta1. Its workers take the engine's own arguments, but none of the engine's server.
"""

from __future__ import annotations

from planner.deploy.manifest import UNITS, Document, Manifest, Target
from planner.deploy.pod import gpus, metadata, node_selector, token, unexpanded
from planner.deploy.release import Release, Served, is_pinned
from planner.deploy.said import unlabelled
from planner.emit.command import Command

RUNTIMES = {"vllm": "nvcr.io/nvidia/ai-dynamo/vllm-runtime", "sglang": "nvcr.io/nvidia/ai-dynamo/sglang-runtime"}
SERVER_FLAGS = ("--reasoning-parser", "--default-chat-template-kwargs")  # of the engines' own servers
TRANSFER = ["--kv-transfer-config", '{"kv_connector":"NixlConnector","kv_role":"kv_both"}']


def manifests(release: Release) -> tuple[Manifest, ...]:
    """One file for each deployment."""
    files = [Manifest(f"{s.name}.yaml", (_graph(s, release),)) for s in release.served]
    files[0] = Manifest(files[0].file, files[0].documents, remarks=tuple(_said(release)))
    return tuple(files)


def _graph(s: Served, release: Release) -> Document:
    image, count = s.image, max(s.replicas)
    front = {"name": "frontend", "type": "frontend", "replicas": 1, "podTemplate": {"spec": {"containers": [{"name": "main", "image": image}]}}}
    workers = [_worker(s, c, image, count * c.engines) for c in s.commands]
    spec = {"backendFramework": s.deployment.engine, "components": [front, *workers]}
    return {"apiVersion": "nvidia.com/v1beta1", "kind": "DynamoGraphDeployment", "metadata": metadata(s, release), "spec": spec}


def _worker(s: Served, command: Command, image: str, count: int) -> Document:
    container = {
        "name": "main",
        "image": image,
        "command": ["python3", "-m", f"dynamo.{s.deployment.engine}"],
        "args": [unexpanded(a) for a in _arguments(s, command)],
        "env": [token()],
        "resources": gpus(s),
    }
    kind = command.role or "worker"
    return {
        "name": kind,
        "type": kind,
        "replicas": count,
        "podTemplate": {"spec": {**node_selector(s), "containers": [container]}},
        "sharedMemorySize": "16Gi",
    }


def _arguments(s: Served, command: Command) -> list[str]:
    """The engine's arguments as Dynamo's worker takes them: roles in its own words, nothing of the engine's server."""
    words = _without(command.arguments, *SERVER_FLAGS, *(["--kv-transfer-config"] if command.role else []))
    if s.deployment.engine == "vllm":
        words = ["--model", *words]
        words += ["--disaggregation-mode", command.role, *TRANSFER] if command.role else []
    return [*words, "--served-model-name", s.answers_to]


def _without(words: tuple[str, ...], *flags: str) -> list[str]:
    """The words without some flags and what stands behind each."""
    dropped = {i for at, w in enumerate(words) if w in flags for i in (at, at + 1)}
    return [w for i, w in enumerate(words) if i not in dropped]


def _said(release: Release) -> list[str]:
    found = unlabelled(release)
    for s in release.served:
        if not is_pinned(s.image):
            found.append("Dynamo admits no image whose tag is not the version MAJOR.MINOR.PATCH of its runtime.")
        left_out = [f"{flag} {value}" for flag in SERVER_FLAGS if (value := s.commands[0].value(flag)) is not None]
        if left_out:
            found.append(f"{s.name}: Dynamo's worker has no {' and no '.join(left_out)}: set the parser of its own, and let requests bring the arguments.")
    return found


TARGET = Target("dynamo", manifests, frozenset({UNITS}), engines=("vllm", "sglang"), unit_engines=("vllm", "sglang"), images=RUNTIMES)
