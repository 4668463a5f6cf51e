"""Candidates already surveyed, kept for the next question: what differs in rates, floors, rules or prices only shares them."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Any

from planner.candidates.offers import allowed
from planner.candidates.points import Points
from planner.candidates.survey import Survey, limits_itl, relimited, survey
from planner.catalog.catalog import Catalog
from planner.catalog.records import Offer
from planner.scenario.apply import catalog_for
from planner.scenario.records import Owned, Policy, Scenario, Solver, Supply, WhatIf

MOST_FAMILIES = 12  # surveys kept at once; one takes some 20 MB
# What decides the physics of candidates; everything else is asked of the same candidates.
PHYSICAL = ("confidence", "engines", "precisions", "gpu_memory_utilization", "allow", "chunked_prefill")
OFFERED = ("kinds", "purchase")  # with the GPUs owned: which GPUs there are, in how wide nodes


class Known:
    """Surveys of one catalogue by family of questions; safe to share between threads."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._points: OrderedDict[str, Points] = OrderedDict()
        self._surveys: OrderedDict[str, Survey] = OrderedDict()  # by family without its limits
        self._lock = Lock()

    def points(self, scenario: Scenario, offers: tuple[Offer, ...]) -> Points:
        """The operating points of a scenario, with all that was computed for its family; ``offers`` at the prices it supposes."""
        asked = family(scenario)
        key = asked.model_dump_json()
        with self._lock:
            found = self._points.pop(key, None) or Points(self._survey(asked))
            _keep(self._points, key, found)
        return found.asked(scenario, allowed(offers, scenario.supply, self.catalog.newest_price))

    def _survey(self, asked: Scenario) -> Survey:
        """The replica types of a family; one that differs in latency limits alone has them already."""
        unlimited = asked.model_copy(update={"workload": tuple(w.model_copy(update={"slo": {}}) for w in asked.workload)})
        key = f"{limits_itl(asked)} {unlimited.model_dump_json()}"
        found = self._surveys.pop(key, None)
        if found is None:
            catalog = catalog_for(self.catalog, asked)
            found = survey(asked, catalog, allowed(catalog.offers, asked.supply))
        _keep(self._surveys, key, found)
        return relimited(found, asked)


def _keep(kept: OrderedDict[str, Any], key: str, value: object) -> None:
    """Puts a value last, and forgets the ones that were not asked for the longest."""
    kept[key] = value
    while len(kept) > MOST_FAMILIES:
        kept.popitem(last=False)


def family(scenario: Scenario) -> Scenario:
    """The widest question that has the same candidates with the same physics: no floors, names, quotas, caps, exclusions, ages or tiers, any rate."""
    plain, free = Policy(), Supply()
    policy = plain.model_copy(update={name: getattr(scenario.policy, name) for name in PHYSICAL})
    supply = free.model_copy(update={name: getattr(scenario.supply, name) for name in OFFERED} | {"owned": _widths(scenario.supply)})
    workloads = tuple(
        w.model_copy(
            update={
                "name": f"w{i}",
                **({"qps": 1.0} if w.qps is not None else {"concurrency": 1.0}),
                "min_quality": None,
                "mean_quality": None,
                "burst_factor": 1.0,
                "models": (),
            }
        )
        for i, w in enumerate(scenario.workload)
    )
    return scenario.model_copy(
        update={
            "name": "",
            "workload": workloads,
            "policy": policy,
            "supply": supply,
            "solver": Solver(),
            "what_if": WhatIf(step_factor=scenario.what_if.step_factor, draw=scenario.what_if.draw),
        }
    )


def _widths(supply: Supply) -> tuple[Owned, ...]:
    """Owned GPUs with nothing but what candidates depend on: which they are, and how many work together."""
    kinds = sorted({(o.gpu, o.gpus_per_node, o.max_tp) for o in supply.owned}, key=str)
    return tuple(Owned(name=f"own {i}", gpu=g, count=n, gpus_per_node=n, max_tp=tp, usd_per_hour=1.0) for i, (g, n, tp) in enumerate(kinds))
