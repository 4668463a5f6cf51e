"""llm-d's values in the charts of its router, rendered by Helm. HELM: the program (else helm); ROUTER_CHARTS: config/charts of a checkout of llm-d-router."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from test_deploy import CRDS, KUBERNETES, files, of_kind, validate

HELM, CHARTS = os.environ.get("HELM") or shutil.which("helm"), os.environ.get("ROUTER_CHARTS", "")
pytestmark = pytest.mark.skipif(not (HELM and CHARTS), reason="needs Helm and the router's charts")
ENGINE = {"headline": None, "mix": None, "groups": "sglang", "drafting": "trtllm-serve"}  # as the router is told; it takes others for vLLM


@pytest.fixture(scope="module", params=["llm-d-router-gateway", "llm-d-router-standalone"])
def chart(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chart with the library that it is made with."""
    folder = tmp_path_factory.mktemp("charts") / "charts"
    shutil.copytree(CHARTS, folder)
    subprocess.run([str(HELM), "dependency", "update", folder / request.param], check=True, capture_output=True)
    return folder / str(request.param)


def rendered(chart: Path, name: str, values: Path) -> list[dict[str, Any]]:
    made = subprocess.run([str(HELM), "template", name, chart, "-f", values], check=True, capture_output=True, text=True)
    return [d for d in yaml.safe_load_all(made.stdout) if d]


@pytest.mark.parametrize("question", ENGINE)
def test_the_chart_makes_the_plans_pool_of_the_values(chart: Path, question: str, tmp_path: Path) -> None:
    pools = {d["metadata"]["name"]: d["spec"] for d in of_kind(question, "llm-d", "InferencePool")}
    pods = [d["spec"]["template"]["metadata"]["labels"] for d in of_kind(question, "llm-d", "Deployment")]
    for f in (f for f in files(question, "llm-d") if f.file.endswith(".router.values.yaml")):
        name = f.file.removesuffix(".router.values.yaml")
        values = tmp_path / f.file
        values.write_text(f.text)
        made = rendered(chart, name, values)
        known = {(c["group"], c["kind"]) for c in CRDS.values()}
        for d in made:
            if (d["apiVersion"].rpartition("/")[0], d["kind"]) in known:
                validate(d)
            else:
                kubernetes_validate.validate(d, KUBERNETES, strict=True)
        (pool,) = (d for d in made if d["kind"] == "InferencePool")
        ours = pools.pop(pool["metadata"]["name"])
        assert {k: pool["spec"][k] for k in ("targetPorts", "selector")} == {k: ours[k] for k in ("targetPorts", "selector")}
        assert pool["spec"]["endpointPickerRef"] == ours["endpointPickerRef"] | {"failureMode": "FailOpen"}
        assert sum(pool["spec"]["selector"]["matchLabels"].items() <= labels.items() for labels in pods) == 1
        plugins = next(d["data"]["default-plugins.yaml"] for d in made if d["kind"] == "ConfigMap" and "default-plugins.yaml" in d["data"])
        (reader,) = (p for p in yaml.safe_load(plugins)["plugins"] if p["type"] == "core-metrics-extractor")
        assert reader.get("parameters", {}).get("defaultEngine") == ENGINE[question]
    assert not pools


def test_labels_that_are_missing_are_refused(chart: Path, tmp_path: Path) -> None:
    (text,) = (f.text for f in files("headline", "llm-d") if f.file.endswith(".values.yaml"))
    values = tmp_path / "typo.yaml"
    values.write_text(text.replace("matchLabels", "matchLabel"))
    with pytest.raises(subprocess.CalledProcessError):
        rendered(chart, "x", values)
