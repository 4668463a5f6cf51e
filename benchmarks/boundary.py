"""Two pools by prompt length: the boundary that the search finds beside every boundary there is, and what two pools save.

PYTHONPATH=. python benchmarks/boundary.py [SHAPE ...]: writes benchmarks/results/boundary.json (docs/demand.md has its table).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

from planner.catalog.load import load_catalog
from planner.deadline import NEVER
from planner.planning.boundary import costs_apart, searched
from planner.planning.routing import boundaries, histogram_of, share_below, unsplit
from planner.scenario.change import assumed_of
from planner.scenario.records import Scenario
from planner.search.apart import kept_apart
from planner.search.posed import posed
from planner.search.survey_cache import SurveyCache

SHAPES = ("azure-2023-conv", "azure-2023-code", "mooncake-conversation")
QPS, FLOOR, WINDOW = 100.0, 0.7, 65536  # requests/s, MMLU-Pro, a common context in tokens
HERE = Path(__file__).parent / "results" / "boundary.json"


def asked(shape: str, qps: float) -> Scenario:
    """The question that every boundary is asked."""
    return Scenario.model_validate({"workload": [{"qps": qps, "min_quality": FLOOR, "lengths": shape, "route_by": "input"}]})


def one_pool(scenario: Scenario, cache: SurveyCache) -> float:
    """$/h without routing by length."""
    plain, points = posed(unsplit(scenario), cache)
    return kept_apart(points, plain, break_ties=False)[0].cost


def found(shape: str, qps: float) -> dict[str, Any]:
    """What the search says, and what it takes."""
    catalog = load_catalog(())
    scenario, begun = asked(shape, qps), process_time()
    best, notes = searched(scenario, SurveyCache(catalog), NEVER)
    seconds = process_time() - begun
    one, two = one_pool(scenario, SurveyCache(catalog)), sum(costs_apart(best, SurveyCache(catalog), NEVER)[0])
    boundary = best.workload[0].boundary
    assert boundary is not None
    below = share_below(histogram_of(scenario.workload[0]), boundary)
    return {"qps": qps, "boundary": boundary, "below": below, "usd": two, "one_pool": one, "saved": 1 - two / one, "cpu_s": seconds, "note": notes[0]}


def every(shape: str) -> list[dict[str, Any]]:
    """Both classes' $/h at each boundary, of the whole catalogue."""
    catalog, scenario, rows = load_catalog(()), asked(shape, QPS), []
    for edge in boundaries(histogram_of(scenario.workload[0])):
        (short, long), _ = costs_apart(assumed_of(scenario, 0, boundary=edge), SurveyCache(catalog), NEVER)
        rows.append({"boundary": edge, "short": short, "long": long, "usd": short + long})
    return rows


def reserved(shape: str) -> dict[str, float]:
    """The most that two pools save where each sequence keeps KV room for its pool's whole context from its first token to its last: a pool then needs
    room for rate x time in service x context, with time as answers are long. Contexts: as long as the longest request, and WINDOW."""
    whole = histogram_of(asked(shape, QPS).workload[0])
    answer = float(whole.outputs.max())
    found = {}
    for name, context in (("longest", float((whole.inputs + whole.outputs).max())), ("window", float(max(WINDOW, (whole.inputs + whole.outputs).max())))):
        held = whole.weights * whole.outputs
        both = [held[whole.inputs < b].sum() * min(b + answer, context) + held[whole.inputs >= b].sum() * context for b in boundaries(whole)]
        found |= {f"{name}_tokens": context, name: float(1 - np.min(both) / (held.sum() * context))}
    return found


def main(shapes: list[str]) -> None:
    """Every shape, one after the other; what is there of others stays."""
    results = json.loads(HERE.read_text()) if HERE.exists() else {}
    for shape in shapes:
        rows = every(shape)
        best = min(r["usd"] for r in rows)
        results[shape] = {"search": [found(shape, q) for q in (QPS, 10 * QPS)], "reserved": reserved(shape), "cheapest": best, "boundaries": rows}
        HERE.write_text(json.dumps(results, indent=1) + "\n")
        print(shape, len(rows), "boundaries: cheapest", best, "search", results[shape]["search"], results[shape]["reserved"], flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or list(SHAPES))
