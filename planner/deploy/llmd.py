"""llm-d: the model servers of its guides as a Deployment, values for the chart of its router, and the InferencePool that the chart makes of them.

Shapes: github:llm-d/llm-d guides/optimized-baseline and guides/recipes/router; charts: github:llm-d/llm-d-router@ebab6879 config/charts.
"""

from __future__ import annotations

from planner.deploy.kubernetes import NAMED, deployment, routes_of
from planner.deploy.manifest import WEIGHTS, Document, Manifest, Target
from planner.deploy.pod import metadata, options_map, pod
from planner.deploy.release import PORT, Release, Served
from planner.deploy.said import unlabelled

GROUP = "inference.networking.k8s.io"
TYPES = {"vllm": "vllm", "sglang": "sglang", "trtllm": "trtllm-serve"}  # as the router names engines, whose metrics it reads each in its own words


def manifests(release: Release) -> tuple[Manifest, ...]:
    """A Deployment, the router's values and its pool for each deployment, and one file of routes that split workloads."""
    files = [Manifest(f"{s.name}.yaml", (*options_map(s), _deployment(s, release))) for s in release.served]
    files[0] = Manifest(files[0].file, files[0].documents, remarks=(*unlabelled(release), *_unread(release)))
    values = [Manifest(f"{s.name}.router.values.yaml", (_values(s),), remarks=(_installed(s),), is_applied=False) for s in release.served]
    pools = [Manifest(f"{s.name}.pool.yaml", (_pool(s, release),), remarks=(_made(s),), is_applied=False) for s in release.served]
    routes = tuple(routes_of(release, GROUP, "InferencePool"))
    return (*files, *values, *pools, *([Manifest("routes.yaml", routes, remarks=(NAMED,))] if routes else []))


def _deployment(s: Served, release: Release) -> Document:
    found = deployment(s, release, pod(s, release, s.commands[0], "modelserver"))
    spec = found["spec"]
    assert isinstance(spec, dict)
    spec["template"]["metadata"]["labels"] |= _labels(s)
    return found


def _labels(s: Served) -> dict[str, str]:
    return {**_guide(s), "llm-d.ai/role": "decode"}


def _guide(s: Served) -> dict[str, str]:
    """The label by which the router tells its pods."""
    return {"llm-d.ai/guide": s.name}


def _pool(s: Served, release: Release) -> Document:
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "InferencePool",
        "metadata": metadata(s, release),
        "spec": {
            "targetPorts": [{"number": PORT}],
            "selector": {"matchLabels": _guide(s)},
            "endpointPickerRef": {"name": f"{s.name}-epp", "port": {"number": 9002}},
        },
    }


def _values(s: Served) -> Document:
    servers = {"type": TYPES[s.deployment.engine], "targetPorts": [{"number": PORT}], "matchLabels": _guide(s)}
    return {"router": {"modelServers": servers}}


def _installed(s: Served) -> str:
    return (
        f"Values of the router before {s.name}, for its charts llm-d-router-gateway and llm-d-router-standalone: layer them on the guides' own, as in "
        f"helm install {s.name} CHART -f base.values.yaml -f {s.name}.router.values.yaml. The release must have this name: routes find its pool by it."
    )


def _made(s: Served) -> str:
    return f"The router's chart makes this pool itself (helm install {s.name}): apply it only where the router came another way."


def _unread(release: Release) -> list[str]:
    silent = [s.name for s in release.served if s.deployment.engine == "trtllm"]
    return [f"{n}: TensorRT-LLM shows its load only where its options ask for metrics; until then the router shares requests out blindly." for n in silent]


TARGET = Target("llm-d", manifests, frozenset({WEIGHTS}))
