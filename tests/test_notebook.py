"""The notebook among the examples runs from its first cell to its last in a kernel of its own, and is kept without outputs."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from planner.result.plan import Plan

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "examples" / "capacity-review.ipynb"


def test_every_cell_runs_and_plans_and_charts_show_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    code = [c for c in notebook.cells if c.cell_type == "code"]
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1))

    saved = Plan.model_validate_json((tmp_path / "reviewed-plan.json").read_text())
    shown = [o.data for c in code for o in c.outputs if o.output_type == "execute_result"]
    assert all(d.checkpoint.split("/")[-1] in shown[0]["text/html"] for d in saved.deployments)
    assert any("<svg" in d.get("image/svg+xml", "") for d in shown)
    printed = "".join(o.text for c in code for o in c.outputs if o.output_type == "stream" and o.name == "stdout")
    assert f"today: ${saved.cost.usd_per_hour:,.2f}/h" in printed.replace("\n  $", ": $")


def test_the_notebook_is_kept_without_outputs() -> None:
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert all(not c.outputs and c.execution_count is None for c in cells if c.cell_type == "code")
