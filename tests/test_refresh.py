"""Live prices in the catalogue's names, against recorded answers of the libraries that read them: nothing here asks the network."""

from __future__ import annotations

import json
import sys
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import Run

from planner import load_catalog
from planner.catalog import live

RECORDED = Path(__file__).parent / "data" / "live"


def recorded(name: str) -> list[Any]:
    return [SimpleNamespace(**row) for row in json.loads((RECORDED / f"{name}.json").read_text())]


def as_provider(rows: list[Any]) -> list[Any]:
    models = [SimpleNamespace(id=r.model, provider=r.provider, get_prices=lambda _, r=r: r) for r in rows]
    return [SimpleNamespace(id=p, models=[m for m in models if m.provider == p]) for p in sorted({r.provider for r in rows})]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both libraries, giving what was recorded."""
    snapshot = SimpleNamespace(providers=as_provider(recorded("genai-prices")))
    monkeypatch.setitem(sys.modules, "gpuhunt", SimpleNamespace(query=lambda: recorded("gpuhunt")))
    module = SimpleNamespace(UpdatePrices=lambda: SimpleNamespace(fetch=lambda: snapshot))
    monkeypatch.setitem(sys.modules, "genai_prices", SimpleNamespace(update_prices=module))
    monkeypatch.setitem(sys.modules, "genai_prices.update_prices", module)
    monkeypatch.setattr(live, "version", lambda name: "9.9")


@pytest.mark.usefixtures("answers")
def test_prices_are_told_in_the_catalogues_names_and_the_rest_is_counted(run: Run, tmp_path: Path) -> None:
    """A tenth off p4d; of two zones the cheaper; a new instance of a known provider; and three rows that cannot be told, or are no GPU at all."""
    status, out, err = run("catalog", "refresh", "prices", "-o", str(tmp_path / "fresh"))
    assert status == 0 and "1 new" in err and "1 cheaper" in err and "at aws, gcp, lambda" in err
    assert "1 (provider that the catalogue has no kind of)" in err and "1 (GPU that the catalogue does not know, or that may be several)" in err
    assert "aws us-east-1 p4d.24xlarge A100-SXM-40GB on_demand" in out and "-10.0%" in out
    offers = {(o.provider, o.region, o.instance_type): o for o in load_catalog([tmp_path / "fresh"]).offers if o.source == "PyPI gpuhunt 9.9, live"}
    assert len(offers) == 3 and {o.as_of for o in offers.values()} == {date.today()} and {o.licence for o in offers.values()} == {"MPL-2.0"}
    assert offers["gcp", "europe-west4", "a2-highgpu-1g"].usd_per_hour == 3.9
    new = offers["lambda", "us-west-2", "gpu_2x_l40s"]
    assert (new.gpu, new.gpus_per_instance, new.max_tp, new.geography, new.kind) == ("L40S", 2, 2, "us", "neocloud")


@pytest.mark.usefixtures("answers")
def test_hosted_prices_keep_the_checkpoint_that_the_catalogue_has_for_them(run: Run, tmp_path: Path) -> None:
    status, out, err = run("catalog", "refresh", "api", "-o", str(tmp_path), "--format", "json")
    assert status == 0 and "1 dearer" in err and "1 (no single price of input and output)" in err
    assert "2 (model that the catalogue does not know by this name)" in err
    (moved,) = json.loads(out)
    assert moved["change"] == "dearer" and moved["before"] == "$3.2" and moved["after"] == "$3.3"
    (row,) = (a for a in load_catalog([tmp_path]).api_prices if a.source == "PyPI genai-prices 9.9, live")
    assert row.checkpoint == "deepseek-ai/DeepSeek-R1-0528" and row.usd_per_million_output == 2.6


def test_without_network_or_library_it_is_one_line_and_nothing_is_written(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> list[Any]:
        raise OSError("Name or service not known")

    monkeypatch.setitem(sys.modules, "gpuhunt", SimpleNamespace(query=fails))
    status, _, err = run("catalog", "refresh", "prices", "-o", str(tmp_path / "no"))
    assert status == 2 and err == (
        "error: plan catalog refresh: gpuhunt could not read live prices: Name or service not known (is there a network? nothing was written)\n"
    )
    monkeypatch.setitem(sys.modules, "gpuhunt", None)
    status, _, err = run("catalog", "refresh", "prices", "-o", str(tmp_path / "no"))
    assert status == 2 and "live prices are read with gpuhunt, which is not installed (pip install" in err
    assert not (tmp_path / "no").exists()
    assert run("catalog", "refresh", "pricse", "-o", str(tmp_path))[0] == 2
