"""SkyPilot: one service for each deployment and each way its GPUs are bought, on demand or spot, with the engine's image and start command.

Fields: docs.skypilot.co reference/yaml-spec and serving/service-yaml-spec.
"""

from __future__ import annotations

import shlex

from planner.clean import plain
from planner.deploy.hardware import CLOUDS, SKYPILOT
from planner.deploy.manifest import PURCHASE, Document, Manifest, Target
from planner.deploy.names import unique
from planner.deploy.pod import PROGRAM
from planner.deploy.release import PORT, Release, Served
from planner.deploy.said import start_seconds
from planner.emit.command import OPTIONS_FLAG
from planner.errors import PlannerError
from planner.result.plan import HostedOn, Purchase


def manifests(release: Release) -> tuple[Manifest, ...]:
    """One file for each deployment on each purchase."""
    parts = [(s, h) for s in release.served for h in s.deployment.hosts]
    names = unique([f"{s.name}-{release.plan.purchases[h.purchase].purchase}" if len(s.deployment.hosts) > 1 else s.name for s, h in parts])
    return tuple(_manifest(s, h, release.plan.purchases[h.purchase], n) for (s, h), n in zip(parts, names))


def _manifest(s: Served, host: HostedOn, line: Purchase, name: str) -> Manifest:
    gpu = SKYPILOT.get(s.deployment.gpu)
    if gpu is None:
        raise PlannerError(f"SkyPilot's name of {plain(s.deployment.gpu)} is not known", s.name, "plan emit vllm (sglang, trtllm) gives the start command")
    resources: Document = {"accelerators": {gpu: s.engine_gpus}, "use_spot": line.purchase == "spot", "image_id": f"docker:{s.image}", "ports": PORT}
    cloud = CLOUDS.get(line.provider)
    where = [f"{name}: {plain(line.provider)} is no cloud that is known here by SkyPilot's name, so it chooses where to rent."] if cloud is None else []
    if cloud:
        resources = {"infra": cloud if line.region in ("", "any") else f"{cloud}/{line.region}", **resources}
    document: Document = {
        "name": name,
        "resources": resources,
        "secrets": {"HF_TOKEN": ""},
        "service": {"readiness_probe": {"path": "/health", "initial_delay_seconds": start_seconds(s)}, "replicas": host.replicas},
        "run": f"{_run(s)}\n",
    }
    return Manifest(f"{name}.sky.yaml", (document,), remarks=(*where, f"{name}: start it with sky serve up, and --secret HF_TOKEN where the checkpoint asks."))


def _run(s: Served) -> str:
    command = s.commands[0]
    further = f" {OPTIONS_FLAG} <(echo '{command.options}')" if command.options else ""
    return shlex.join([*PROGRAM[s.deployment.engine], *s.arguments(command)]) + further


TARGET = Target("skypilot", manifests, frozenset({PURCHASE}))
