"""Docker Compose: one file for each kind of host that the plan holds, every replica a service with its own GPUs and port."""

from __future__ import annotations

from planner.deploy.hardware import is_nvidia
from planner.deploy.hosts import Host, Placed, hosts
from planner.deploy.manifest import Document, Manifest, Target
from planner.deploy.pod import EVERY, OPTIONS_FILE, OPTIONS_FOLDER, options_name, started
from planner.deploy.release import PORT, Release
from planner.deploy.said import start_seconds
from planner.errors import PlannerError

CACHE = "/root/.cache/huggingface"
ASKED = f"import urllib.request; urllib.request.urlopen('http://localhost:{PORT}/health', timeout=5)"


def manifests(release: Release) -> tuple[Manifest, ...]:
    """One file for each kind of host."""
    for s in release.served:
        if not is_nvidia(s.deployment.gpu):
            raise PlannerError(f"compose reserves GPUs by NVIDIA's driver, not {s.deployment.gpu}", s.name, "plan emit kubernetes, or the engine's script")
    kinds = hosts(release)
    names = ["compose.yaml"] if len(kinds) == 1 else [f"compose-host-{i}.yaml" for i in range(1, len(kinds) + 1)]
    return tuple(Manifest(name, (_host(h, release),), remarks=(_said(h),)) for name, h in zip(names, kinds))


def _host(host: Host, release: Release) -> Document:
    services: Document = {}
    for i, placed in enumerate(host.placed):
        services[f"{placed.served.name}-{i + 1}"] = _service(placed, PORT + i)
    needed = [p.served for p in host.placed if p.served.commands[0].options]
    configs: Document = {options_name(s): {"content": _escaped(f"{s.commands[0].options}\n")} for s in needed}
    found: Document = {"name": release.name, "services": services, "volumes": {"hf-cache": {}}}
    return found | ({"configs": configs} if configs else {})


def _service(placed: Placed, port: int) -> Document:
    s = placed.served
    command = s.commands[0]
    devices = {"driver": "nvidia", "device_ids": [str(placed.first_gpu + i) for i in range(s.engine_gpus)], "capabilities": ["gpu"]}
    options = {"configs": [{"source": options_name(s), "target": f"{OPTIONS_FOLDER}/{OPTIONS_FILE}"}]} if command.options else {}
    first, words = started(s, command)
    return {
        "image": s.image,
        **({"entrypoint": first} if first else {}),
        "command": [_escaped(a) for a in words],
        "ipc": "host",
        "ports": [f"{port}:{PORT}"],
        "environment": {"HF_TOKEN": "${HF_TOKEN:-}"},
        "volumes": [f"hf-cache:{CACHE}"],
        **options,
        "restart": "unless-stopped",
        "healthcheck": {"test": ["CMD", "python3", "-c", ASKED], "interval": f"{EVERY}s", "timeout": "6s", "start_period": f"{start_seconds(s)}s"},
        "deploy": {"resources": {"reservations": {"devices": [devices]}}},
    }


def _escaped(text: str) -> str:
    """Text in which Compose replaces no variable."""
    return text.replace("$", "$$")


def _said(host: Host) -> str:
    ports = ", ".join(f"{p.served.name} at {PORT + i}" for i, p in enumerate(host.placed))
    return f"One host of {host.count} such ({host.instance}): {ports}. A router before the hosts is not part of it."


TARGET = Target("compose", manifests)
