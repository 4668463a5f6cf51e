"""Makes tests/data/schemas from the CRDs of their repositories: one version each, closed, without descriptions, and of pods the fields that are emitted.

python benchmarks/schemas.py DIR   where DIR holds owner+name checkouts or bare repositories (git --git-dir DIR/owner+name/repo)
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import yaml

SOURCES = {  # file here -> repository, path, version, licence
    "keda-scaledobject": ("kedacore/keda", "config/crd/bases/keda.sh_scaledobjects.yaml", "v1alpha1"),
    "kserve-llminferenceservice": ("kserve/kserve", "config/crd/full/llmisvc/serving.kserve.io_llminferenceservices.yaml", "v1alpha2"),
    "kserve-inferenceservice": ("kserve/kserve", "config/crd/full/serving.kserve.io_inferenceservices.yaml", "v1beta1"),
    "inferencepool": ("kubernetes-sigs/gateway-api-inference-extension", "config/crd/bases/inference.networking.k8s.io_inferencepools.yaml", "v1"),
    "servicemonitor": ("prometheus-operator/prometheus-operator", "example/prometheus-operator-crd-full/monitoring.coreos.com_servicemonitors.yaml", "v1"),
    "httproute": ("kubernetes-sigs/gateway-api", "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml", "v1"),
}
POD = {"containers", "nodeSelector", "volumes", "terminationGracePeriodSeconds"}  # of a pod
CONTAINER = {
    "name", "image", "command", "args", "env", "ports", "resources", "startupProbe", "readinessProbe", "livenessProbe", "volumeMounts"
}  # fmt: skip
VOLUME = {"name", "emptyDir", "configMap"}
UNUSED = {"canaryTargetRef", "explainer", "transformer", "storageInitializer", "tracing", "wva", "worker", "lora", "kvCacheOffloading"}


def trimmed(schema: object, key: str = "") -> object:
    """Closed, without descriptions; pods and what no manifest has are cut to the fields emitted."""
    if isinstance(schema, list):
        return [trimmed(s) for s in schema]
    if not isinstance(schema, dict):
        return schema
    found = {k: trimmed(v, k) for k, v in schema.items() if k not in ("description", "x-kubernetes-validations", "properties")}
    if isinstance(schema.get("properties"), dict):
        fields = schema["properties"]
        keep = set(fields) - UNUSED
        if {"containers", "nodeSelector"} <= set(fields):
            keep &= POD | {"minReplicas", "maxReplicas"}
        elif key == "items" and {"image", "args", "volumeMounts"} <= set(fields):
            keep &= CONTAINER
        elif key == "items" and {"emptyDir", "configMap"} <= set(fields):
            keep &= VOLUME
        found["properties"] = {k: trimmed(v, k) for k, v in sorted(fields.items()) if k in keep}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            found["additionalProperties"] = False
    return found


def main(folder: Path) -> None:
    target = Path(__file__).parent.parent / "tests" / "data" / "schemas"
    target.mkdir(parents=True, exist_ok=True)
    for name, (repository, path, version) in SOURCES.items():
        git = ["git", "--git-dir", str(folder / repository.replace("/", "+") / "repo")]
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        crd = yaml.safe_load(subprocess.run([*git, "show", f"HEAD:{path}"], capture_output=True, text=True, check=True).stdout)
        whole = next(v for v in crd["spec"]["versions"] if v["name"] == version)["schema"]["openAPIV3Schema"]
        spec = trimmed(whole["properties"]["spec"])
        about = f"github:{repository}@{commit} {path}, {version}, Apache-2.0; changed: see benchmarks/schemas.py"
        kind = {"group": crd["spec"]["group"], "version": version, "kind": crd["spec"]["names"]["kind"]}
        (target / f"{name}.json").write_text(json.dumps({"$comment": about, **kind, "spec": spec}, sort_keys=True, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
