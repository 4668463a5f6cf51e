"""llm-d: the model servers of its guides as a Deployment, an InferencePool over them, and values for the chart of its router.

Shapes: github:llm-d/llm-d guides/optimized-baseline and guides/recipes/router; InferencePool: inference.networking.k8s.io/v1.
"""

from __future__ import annotations

from planner.deploy.kubernetes import NAMED, deployment, routes_of
from planner.deploy.manifest import WEIGHTS, Document, Manifest, Target
from planner.deploy.pod import metadata, options_map, pod, selected
from planner.deploy.release import PORT, Release, Served
from planner.deploy.said import unlabelled

GROUP = "inference.networking.k8s.io"


def manifests(release: Release) -> tuple[Manifest, ...]:
    """One file for each deployment, one of values for its router, and one for routes that split workloads."""
    files = [Manifest(f"{s.name}.yaml", (*options_map(s), _deployment(s, release), _pool(s, release))) for s in release.served]
    said = [*unlabelled(release), "The router's chart makes an InferencePool of its own from the values: then leave out the one here."]
    files[0] = Manifest(files[0].file, files[0].documents, remarks=tuple(said))
    values = [Manifest(f"{s.name}.router.values.yaml", (_values(s),), remarks=(_layered(s),), is_applied=False) for s in release.served]
    routes = tuple(routes_of(release, GROUP, "InferencePool"))
    return (*files, *values, *([Manifest("routes.yaml", routes, remarks=(NAMED,))] if routes else []))


def _deployment(s: Served, release: Release) -> Document:
    found = deployment(s, release, pod(s, release, s.commands[0], "modelserver"))
    spec = found["spec"]
    assert isinstance(spec, dict)
    spec["template"]["metadata"]["labels"] |= _labels(s)
    return found


def _labels(s: Served) -> dict[str, str]:
    return {"llm-d.ai/guide": s.name, "llm-d.ai/role": "decode"}


def _pool(s: Served, release: Release) -> Document:
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "InferencePool",
        "metadata": metadata(s, release),
        "spec": {
            "targetPorts": [{"number": PORT}],
            "selector": {"matchLabels": selected(s)},
            "endpointPickerRef": {"name": f"{s.name}-epp", "port": {"number": 9002}},
        },
    }


def _values(s: Served) -> Document:
    return {"router": {"modelServers": {"matchLabels": {"llm-d.ai/guide": s.name}}}}


def _layered(s: Served) -> str:
    return (
        f"Values of the router before {s.name}: layer them (helm -f) on the guide's recipes/router/base.values.yaml and its plugins for {s.deployment.engine}."
    )


TARGET = Target("llm-d", manifests, frozenset({WEIGHTS}))
