"""Start commands as shell scripts, one engine each: what a host runs where nothing else starts it."""

from __future__ import annotations

import shlex
from collections.abc import Callable

from planner.clean import plain
from planner.deploy.manifest import UNITS, Manifest, Target
from planner.deploy.pod import PROGRAM
from planner.deploy.release import NAME_FLAGS, PORT, Release, Served
from planner.deploy.said import counted
from planner.emit.command import OPTIONS_FLAG, Command


def _manifests(engine: str) -> Callable[[Release], tuple[Manifest, ...]]:
    def made(release: Release) -> tuple[Manifest, ...]:
        return tuple(_script(s, c) for s in release.served if s.deployment.engine == engine for c in s.commands)

    return made


def _script(s: Served, command: Command) -> Manifest:
    """One engine. Several on a host: CUDA_VISIBLE_DEVICES and PORT tell them apart."""
    name = f"{s.name}-{command.role}" if command.role else s.name
    named = [NAME_FLAGS[s.deployment.engine], s.answers_to] if s.is_renamed else []
    words = shlex.join([*PROGRAM[s.deployment.engine], *command.arguments, *named])
    further = f" \\\n  {OPTIONS_FLAG} <(echo '{command.options}')" if command.options else ""
    count = (
        f"{counted(command.engines, f'{command.role} engine')} in each of {counted(max(s.replicas), 'unit')}"
        if command.role
        else f"each of {counted(max(s.replicas), 'replica')}"
    )
    lines = ["set -euo pipefail", f'exec {words} \\\n  --host 0.0.0.0 --port "${{PORT:-{PORT}}}"{further}', ""]
    said = [f"{name}: {count}, on {counted(s.engine_gpus, 'GPU')} of one host each; CUDA_VISIBLE_DEVICES and PORT tell several apart."]
    if command.role:
        said.append("The roles need a router before them, NIXL, and ports of their own on one host.")
    return Manifest(f"{name}.sh", text="\n".join(lines), remarks=tuple(plain(x) for x in said))


VLLM, SGLANG, TRTLLM = (
    Target(engine, _manifests(engine), frozenset({UNITS}), engines=(engine,), unit_engines=("vllm", "sglang"), is_partial=True, images={})
    for engine in ("vllm", "sglang", "trtllm")
)
