"""The page that asks: what if traffic, quality floor or TTFT were others, each answered by the solver. It loads nothing from elsewhere."""

from __future__ import annotations

from html import escape
from pathlib import Path

from planner.report.drawing import in_script
from planner.scenario.records import Scenario
from planner.scenario.write import to_content
from planner.service.question import OPENS

HERE = Path(__file__).parent
STYLE = HERE.parent / "report" / "review" / "templates" / "review.css"


def page(scenario: Scenario) -> str:
    """The page as HTML, which begins with a scenario; its first workload is the one that is asked differently."""
    first = scenario.workload[0]
    limit = next((s for s in first.limits if s.metric == "ttft"), None)
    content = {key: part for key, part in to_content(scenario).items() if key not in OPENS}
    start = {
        "scenario": content,
        "field": "requests_per_day" if first.is_waiting else first.rate_field,
        "unit": "requests/day" if first.is_waiting else first.unit,
        "rate": first.requests_per_day or first.rate,
        "floor": first.min_quality,
        "limit": limit.name if limit else "ttft_p95",
        "seconds": limit.seconds if limit else None,
    }
    found = (HERE / "page.html").read_text(encoding="utf-8")
    parts = {
        "NAME": escape(scenario.name or first.name),
        "METRIC": escape(first.quality_metric),
        "STYLE": STYLE.read_text(encoding="utf-8"),
        "START": in_script(start),
        "SCRIPT": (HERE / "page.js").read_text(encoding="utf-8"),
    }
    for name, text in parts.items():
        found = found.replace(f"[[{name}]]", text, 1)
    return found
