"""Ray Serve LLM: one application with a model for each deployment, whose engine is vLLM.

Fields: docs.ray.io serve/llm (LLMConfig: model_loading_config, accelerator_type, deployment_config, engine_kwargs).
"""

from __future__ import annotations

import json
from typing import cast

from planner.clean import plain
from planner.deploy.hardware import RAY
from planner.deploy.manifest import Document, Manifest, Target
from planner.deploy.names import unique
from planner.deploy.release import Release, Served
from planner.errors import PlannerError

SERVER_FLAGS = ("reasoning_parser", "default_chat_template_kwargs")  # of vLLM's own server, which Ray's replaces


def manifests(release: Release) -> tuple[Manifest, ...]:
    """The application."""
    for s in release.served:
        if s.deployment.dp > 1:
            raise PlannerError("Ray Serve sets up data parallel groups by deployments of its own", s.name, "plan emit kubernetes, or plan without attention_dp")
    names = unique([s.deployment.checkpoint for s in release.served], 60)
    models = [_model(s, n) for s, n in zip(release.served, names)]
    application = {"name": release.name, "route_prefix": "/", "import_path": "ray.serve.llm:build_openai_app", "args": {"llm_configs": models}}
    return (Manifest("serve.yaml", ({"applications": [application]},), remarks=tuple(_said(release, names))),)


def _model(s: Served, name: str) -> Document:
    accelerator = RAY.get(s.deployment.gpu)
    count: dict[str, object] = {"num_replicas": s.replicas[0]}
    if len(set(s.replicas)) > 1:
        load = round(s.deployment.in_flight_per_replica or s.deployment.max_num_seqs)
        count = {"autoscaling_config": {"min_replicas": min(s.replicas), "max_replicas": max(s.replicas), "target_ongoing_requests": max(load, 1)}}
    return {
        "model_loading_config": {"model_id": name, "model_source": s.deployment.checkpoint},
        **({"accelerator_type": accelerator} if accelerator else {}),
        "deployment_config": count,
        "engine_kwargs": {k: v for k, v in engine_arguments(s).items() if k not in SERVER_FLAGS},
    }


def engine_arguments(s: Served) -> Document:
    """The start command's flags as vLLM's engine arguments: numbers, switches and JSON as what they are."""
    found: Document = {}
    name = ""
    for word in s.commands[0].arguments[1:]:
        if word.startswith("--"):
            name = word.removeprefix("--").replace("-", "_")
            found[name] = True
            if name.startswith("no_"):
                del found[name]
                found[name.removeprefix("no_")] = False
        else:
            found[name] = _value(word)
    return found


def _value(word: str) -> object:
    """A number or JSON as such, else the text."""
    try:
        return cast(object, json.loads(word))
    except ValueError:
        return word


def _said(release: Release, names: tuple[str, ...]) -> list[str]:
    found = []
    for s, name in zip(release.served, names):
        found.append(f"{s.name}: requests name the model '{name}'.")
        if s.deployment.gpu not in RAY:
            found.append(f"{s.name}: Ray's name of {plain(s.deployment.gpu)} is not known here: add accelerator_type where the cluster has other GPUs.")
        if len(set(s.replicas)) > 1:
            found.append(f"{s.name}: Ray follows the load, not the plan's hours; it starts a replica at the plan's requests in flight for each.")
        left_out = [f for f in SERVER_FLAGS if f in engine_arguments(s)]
        if left_out:
            found.append(f"{s.name}: {' and '.join(left_out)} are of vLLM's own server, so they are left out: requests must bring them.")
    return found


TARGET = Target("ray", manifests, engines=("vllm",), images={})
