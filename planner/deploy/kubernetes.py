"""Plain Kubernetes: Deployment and Service of each deployment, weights by a Gateway API route, hours by KEDA, metrics by a ServiceMonitor."""

from __future__ import annotations

from planner.deploy.manifest import HOURS, WEIGHTS, Document, Manifest, Target
from planner.deploy.pod import labels, metadata, options_map, pod, selected
from planner.deploy.release import PORT, Release, Served
from planner.deploy.said import unlabelled
from planner.deploy.schedule import is_calendar, triggers
from planner.deploy.traffic import HEADER, splits

GATEWAY = "inference-gateway"  # that routes hang on; the cluster's own name for it
NAMED = f"Routes hang on the Gateway {GATEWAY}: give it the name of yours."


def manifests(release: Release) -> tuple[Manifest, ...]:
    """One file for each deployment, and one for routes that split workloads."""
    files = [Manifest(f"{s.name}.yaml", tuple(_documents(s, release))) for s in release.served]
    routes = tuple(routes_of(release, "", "Service"))
    further = (
        [f"Routes hang on the Gateway {GATEWAY}: give it the name of yours. Requests of other workloads go to their deployment's Service."] if routes else []
    )
    said = unlabelled(release) + _unmonitored(release) + further
    files[0] = Manifest(files[0].file, files[0].documents, remarks=tuple(said))
    return (*files, *([Manifest("routes.yaml", routes)] if routes else []))


def _documents(s: Served, release: Release) -> list[Document]:
    found = [*options_map(s), deployment(s, release, pod(s, release, s.commands[0])), service(s, release)]
    if _is_scaled(s, release):
        found.append(scaled_object(s, release))
    return found + ([service_monitor(s, release)] if s.deployment.engine != "trtllm" else [])


def _is_scaled(s: Served, release: Release) -> bool:
    return len(set(s.replicas)) > 1 and is_calendar(release)


def deployment(s: Served, release: Release, spec: Document) -> Document:
    """As many pods as the plan has replicas; where its hours scale them, the number is left to the autoscaler."""
    count = {} if _is_scaled(s, release) else {"replicas": max(s.replicas)}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(s, release),
        "spec": {
            **count,
            "selector": {"matchLabels": selected(s)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},  # the plan has no GPUs for one more
            "template": {"metadata": {"labels": labels(s)}, "spec": spec},
        },
    }


def service(s: Served, release: Release) -> Document:
    """The address of a deployment inside the cluster."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(s, release),
        "spec": {"selector": selected(s), "ports": [{"name": "http", "port": PORT, "targetPort": "http"}]},
    }


def scaled_object(s: Served, release: Release) -> Document:
    """KEDA: the replicas of each hour of the plan."""
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": metadata(s, release),
        "spec": {
            "scaleTargetRef": {"name": s.name},
            "minReplicaCount": min(s.replicas),
            "maxReplicaCount": max(s.replicas),
            "triggers": triggers(s, release),
        },
    }


def service_monitor(s: Served, release: Release) -> Document:
    """Prometheus reads the engine's metrics, which the plan is later compared with."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": metadata(s, release),
        "spec": {"selector": {"matchLabels": selected(s)}, "endpoints": [{"port": "http", "path": "/metrics", "interval": "15s"}]},
    }


def routes_of(release: Release, group: str, kind: str) -> list[Document]:
    """A Gateway API route for each workload that several deployments serve, to backends of a kind, with the plan's weights."""
    found: list[Document] = []
    shared = splits(release)
    for split in shared:
        match = {"matches": [{"headers": [{"name": HEADER, "value": split.name}]}]} if len(shared) > 1 else {}
        port = {"port": PORT} if kind == "Service" else {}
        backends = [{"group": group, "kind": kind, "name": name, **port, "weight": weight} for name, weight in split.weights]
        spec = {"parentRefs": [{"name": GATEWAY}], "rules": [{**match, "backendRefs": backends}]}
        about = {"name": f"route-{split.name}", "annotations": {"inference-planner/plan": release.identity}}
        found.append({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": about, "spec": spec})
    return found


def _unmonitored(release: Release) -> list[str]:
    silent = [s.name for s in release.served if s.deployment.engine == "trtllm"]
    return [f"{n}: TensorRT-LLM shows metrics at /prometheus/metrics only where its options ask for them, so it has no ServiceMonitor." for n in silent]


TARGET = Target("kubernetes", manifests, frozenset({WEIGHTS, HOURS}))
