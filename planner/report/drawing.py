"""An Altair chart as the bytes of a file: a page that needs no network, PNG or SVG. Needs the extra ``charts``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from planner.clean import plain
from planner.errors import PlannerError, did_you_mean
from planner.raw import Raw
from planner.report.bundle import bundled

Chart = Any  # of Altair, layered or not: it is imported where one is drawn
FORMS = ("html", "png", "svg")
NEEDED = ("altair", "vl_convert")  # modules of the extra
PLACE = '{"usermeta":"chart"}'  # a chart of nothing, for which the page's own is put


def form_of(path: str) -> str:
    """The form that a file's name asks for. Raises PlannerError for another, and where the extra is missing."""
    suffix = path.rpartition(".")[2].lower() if "." in path else ""
    if suffix not in FORMS:
        raise PlannerError(
            "a chart's file ends in .html, .png or .svg", "--chart", did_you_mean(suffix, FORMS) or f"such as {path.rstrip('.') or 'chart'}.html"
        )
    missing = [m for m in NEEDED if find_spec(m) is None]
    if missing:
        raise PlannerError("charts need more packages than are installed", "--chart", "pip install 'inference-planner[charts]'")
    return suffix


def drawn(chart: Chart, form: str) -> bytes:
    """The chart's file. Texts in it are shown as they are: no control characters, nothing that a page would run."""
    import vl_convert

    spec = harmless(chart.configure_axis(labelFlush=False, labelOverlap=True).to_dict())
    version = version_of(spec)
    if form == "png":
        return bytes(vl_convert.vegalite_to_png(spec, vl_version=version, scale=2))
    if form == "svg":
        return str(vl_convert.vegalite_to_svg(spec, vl_version=version)).encode()
    page = bundled(f"page {version}", lambda: str(vl_convert.vegalite_to_html(PLACE, bundle=True, vl_version=version)))
    safe = in_script(spec)
    # No menu: its entries lead to the network.
    return page.replace(PLACE, safe).replace('const opts = {"renderer":"svg"}', 'const opts = {"renderer":"svg","actions":false}').encode()


def harmless(spec: Raw) -> Raw:
    """A chart's specification whose texts have no control characters."""
    return {plain(key): _plain(value) for key, value in spec.items()}


def in_script(data: object) -> str:
    """JSON as it may stand in a page's script: nothing in it ends the script."""
    return json.dumps(data).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def version_of(spec: Raw) -> str | None:
    """The version of Vega-Lite that a chart is written in, as the converter names it."""
    import vl_convert

    return _version(spec["$schema"], vl_convert.get_vegalite_versions())


def _version(schema: str, known: Sequence[str]) -> str | None:
    """The version of Vega-Lite that a chart is written in, as the converter names it: "6.1" of …/vega-lite/v6.1.0.json; None for the newest."""
    found = schema.rpartition("/v")[2].split(".")
    return next((v for v in known if v.removeprefix("v").split(".")[:2] == found[:2]), None)


def _plain(value: object) -> object:
    """The same with all texts harmless."""
    if isinstance(value, dict):
        return {_plain(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return plain(value) if isinstance(value, str) else value
