"""Candidates already surveyed, kept for the next question: what differs in rates, floors, rules or prices only shares them."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from math import inf
from threading import Lock
from typing import TypeVar

from planner.candidates.eligibility import needed
from planner.candidates.offers import allowed
from planner.candidates.points import Points
from planner.candidates.survey import Survey, limits_itl, relimited, survey
from planner.catalog.catalog import Catalog
from planner.catalog.records import Offer
from planner.scenario.apply import catalog_for
from planner.scenario.caps import uncapped
from planner.scenario.change import with_workloads
from planner.scenario.records import Owned, Policy, Scenario, Solver, Supply, WhatIf
from planner.scenario.workload import Workload

V = TypeVar("V")
MOST_FAMILIES = 12  # surveys kept at once; one takes some 20 MB
# What decides the physics of candidates; everything else is asked of the same candidates.
PHYSICAL = (
    "confidence",
    "tuning",
    "engines",
    "precisions",
    "gpu_memory_utilization",
    "allow",
    "chunked_prefill",
    "adapters",
    "adapter_rank",
    "loss_slo_factor",
)
WHERE_FROM: dict[str, object] = {
    "demand": None,
    "users": None,
    "think_time": None,
    "turns": None,
    "escalate": None,
    "escalate_quality": None,
    "escalated_from": "",
}  # of a rate
UNCHANGED: dict[str, object] = {"max_changes": None, "change_cost": 0.0, "change_over": 730.0}  # of today's fleet, which candidates do not depend on
OFFERED = ("kinds", "purchase", "offers", "exchange_rate", "current", "as_of")  # with the GPUs owned: which GPUs there are, in how wide nodes


@dataclass(frozen=True)
class _Surveyed:
    """A survey, and the question it was made for; None where it serves the whole family."""

    survey: Survey
    question: Scenario | None


class SurveyCache:
    """Surveys of one catalogue by family of questions; safe to share between threads.

    The first question of a family is surveyed for itself, which is quicker; when another one comes that needs more, the whole family is.
    """

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._points: OrderedDict[str, Points] = OrderedDict()  # by family, survey and limits
        self._families: OrderedDict[str, list[_Surveyed]] = OrderedDict()
        self._lock = Lock()

    def points(self, scenario: Scenario, offers: tuple[Offer, ...]) -> Points:
        """The operating points of a scenario, with all that was computed for its family; ``offers`` at the prices it supposes."""
        asked = family(scenario)
        key = f"{limits_itl(scenario)} {asked.model_dump_json()}"
        with self._lock:
            surveys = self._families.pop(key, [])
            at = next((i for i, s in enumerate(surveys) if s.question is None or covers(s.question, scenario)), len(surveys))
            if at == len(surveys):
                surveys = [*surveys, self._survey(asked, scenario, is_first=not surveys)]
            _keep(self._families, key, surveys)
            limited = f"{at} {[w.slo for w in scenario.workload]} {key}"
            found = self._points.pop(limited, None) or Points(_with_limits(surveys[at].survey, scenario))
            _keep(self._points, limited, found)
        return found.asked(scenario, allowed(offers, scenario.supply, self.catalog.newest_price))

    def _survey(self, asked: Scenario, scenario: Scenario, is_first: bool) -> _Surveyed:
        wanted = scenario if is_first else with_workloads(asked, (_limited(a, w) for a, w in zip(asked.workload, scenario.workload)))
        catalog = catalog_for(self.catalog, wanted)
        found = survey(wanted, catalog, allowed(catalog.offers, wanted.supply, self.catalog.newest_price))
        return _Surveyed(found, scenario if is_first else None)


def covers(surveyed: Scenario, scenario: Scenario) -> bool:
    """Whether what was surveyed for one scenario holds all candidates of another of its family: the same names and places, and nothing
    that the first left out by a floor, a quota of none or the age of prices."""
    same = all(a.models == b.models for a, b in zip(surveyed.workload, scenario.workload, strict=True))
    same &= surveyed.policy.exclude_models == scenario.policy.exclude_models and _places(surveyed) == _places(scenario)
    stricter = all(a <= b for a, b in zip(_strictness(surveyed), _strictness(scenario), strict=True))
    return same and stricter and _none_of(surveyed) <= _none_of(scenario)


def _places(scenario: Scenario) -> Supply:
    """What GPUs may be bought where, without how much and how old their price."""
    return uncapped(scenario).supply.model_copy(update={"max_price_age": None, "owned": (), "discount": {}, "api_providers": (), "api_limit": {}, **UNCHANGED})


def _none_of(scenario: Scenario) -> set[str]:
    return {gpu for gpu, n in scenario.supply.quota.items() if not n}


def _strictness(scenario: Scenario) -> tuple[float, ...]:
    """What a survey leaves out by, each the larger the more it leaves out: floors and means, how scores count, the age of prices."""
    policy, age = scenario.policy, scenario.supply.max_price_age
    floors = (-1.0 if (needs := needed(w.min_quality, policy)) is None else needs for w in scenario.workload)
    means = (float(w.mean_quality is not None) for w in scenario.workload)
    return *floors, *means, float(policy.worst_recovery), -inf if age is None else -float(age)


def _with_limits(surveyed: Survey, scenario: Scenario) -> Survey:
    """The survey for the limits of a scenario."""
    asked = surveyed.scenario
    if all(a.slo == w.slo for a, w in zip(asked.workload, scenario.workload, strict=True)):
        return surveyed
    workloads = tuple(_limited(a, w) for a, w in zip(asked.workload, scenario.workload, strict=True))
    return relimited(surveyed, with_workloads(asked, workloads))


def _limited(asked: Workload, scenario: Workload) -> Workload:
    return asked.model_copy(update={"slo": scenario.slo})


def _keep(kept: OrderedDict[str, V], key: str, value: V) -> None:
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
                w.rate_field: 1.0,
                "min_quality": None,
                "mean_quality": None,
                "burst_factor": 1.0,
                "models": (),
                "regions": (),
                "geographies": (),
                "slo": {},
                **WHERE_FROM,
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
