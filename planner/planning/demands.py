"""The demands of a scenario, each with its amount, how to drop it, and how it loosens by a factor to an amount that can be typed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, floor
from typing import Literal

from planner.performance.coefficients import TIERS
from planner.planning.feasible import rounded_down, rounded_up
from planner.scenario.caps import AskedCap, caps
from planner.scenario.change import assumed, assumed_of
from planner.scenario.records import Scenario
from planner.scenario.slo import Slo
from planner.scenario.units import MOST_SECONDS, format_duration, parse_duration_s
from planner.scenario.workload import Workload

LEAST_TRAFFIC = 1e-4  # of the traffic: what is left when traffic is no demand
Kind = Literal["cap", "spare", "loss", "changes", "evidence", "margin", "recovery", "age", "limit", "floor", "mean", "traffic"]


@dataclass(frozen=True)
class Requirement:
    """One named demand. Money, GPUs, times, tiers and ages loosen upwards, traffic, quality and spare replicas downwards, by the same factor.

    ``loosened(f)``: the amount at f times (or the f-th part of) what is asked, in the digits it is shown with: whole numbers no further
    than f, others to their last digit. ``words``: an amount as a change.
    """

    kind: Kind
    name: str
    asked: float
    put: Callable[[Scenario, float], Scenario]
    dropped: Callable[[Scenario], Scenario]
    loosened: Callable[[float], float]
    words: Callable[[float], str]
    workload: int = -1  # that it is of
    cap: AskedCap | None = None  # on what is held, that it is
    limit: str = ""  # name of the SLO limit that it is

    def factor(self, amount: float) -> float:
        """How far an amount is from what is asked: the larger over the smaller."""
        low, high = sorted((amount, self.asked))
        return 1.0 if low == high else high / low


def demands(scenario: Scenario) -> list[Requirement]:
    """Every demand in force that can be loosened: supply first, as it is what buyers can most easily move, then service, quality and traffic.

    What is a choice of kind (providers, GPU types, models, pools) is no amount and stays; so does a quota of none.
    """
    found = [_capped(cap) for cap in caps(scenario)]
    found += [_spare(scenario.policy.spare_replicas)] if scenario.policy.spare_replicas else []
    found += [_loss(scenario)] if scenario.policy.survives else []
    found += [_changes(scenario.supply.max_changes)] if scenario.supply.max_changes is not None else []
    found += _what_counts(scenario)
    for w, workload in enumerate(scenario.workload):
        of = f" for {workload.name}" if len(scenario.workload) > 1 else ""
        found += [_limit(w, limit, of) for limit in workload.limits]
        found += [_quality(w, "min_quality", workload.min_quality, of)] if workload.min_quality is not None else []
        found += [_quality(w, "mean_quality", workload.mean_quality, of)] if workload.mean_quality is not None else []
        found += [_traffic(w, workload, of)]
    return found


def _capped(cap: AskedCap) -> Requirement:
    return Requirement("cap", cap.said(cap.field.asked), cap.most, cap.put, lambda s: cap.put(s, None), cap.loosened, cap.as_change, cap=cap)


def _spare(spare: int) -> Requirement:
    return Requirement(
        "spare",
        f"{spare} spare replica{'s' if spare > 1 else ''}",
        spare,
        lambda s, x: assumed(s, "policy", spare_replicas=int(x)),
        lambda s: assumed(s, "policy", spare_replicas=0),
        lambda f: ceil(spare / f - 1e-9),
        lambda x: f"{x:.0f} spare replica{'' if x == 1 else 's'}" if x else "no spare replica",
    )


def _loss(scenario: Scenario) -> Requirement:
    """No amount: it is borne or not, so it moves alone and by no factor."""
    now = {name: getattr(scenario.policy, name) for name in ("redundancy", "load_after_loss", "loss_slo_factor")}
    asked = scenario.policy.redundancy

    def put(s: Scenario, x: float) -> Scenario:
        return assumed(s, "policy", **(now if x else {"redundancy": "none", "load_after_loss": 1.0, "loss_slo_factor": 1.0}))

    name = f"redundancy {asked}"
    return Requirement("loss", name, 1.0, put, lambda s: put(s, 0.0), lambda _: 1.0, lambda x: name if x else "no redundancy")


def _changes(most: int) -> Requirement:
    return Requirement(
        "changes",
        f"{most} change{'' if most == 1 else 's'} from today's fleet",
        most,
        lambda s, x: assumed(s, "supply", max_changes=int(x)),
        lambda s: assumed(s, "supply", max_changes=None),
        lambda f: floor(most * f + 1e-9),
        lambda x: f"{x:.0f} changes from today's fleet",
    )


def _what_counts(scenario: Scenario) -> list[Requirement]:
    """What must be known of a candidate and a price: evidence, as its place among the tiers; the margin and worst of scores; ages of prices."""
    policy, age, found = scenario.policy, scenario.supply.max_price_age, list[Requirement]()
    if policy.evidence != TIERS[-1]:
        found.append(_evidence(policy.evidence))
    if policy.quality_margin:
        found.append(_margin(policy.quality_margin))
    if policy.worst_recovery:
        found.append(_recovery())
    return found + ([_age(age)] if age is not None else [])


def _evidence(tier: str) -> Requirement:
    asked = TIERS.index(tier) + 1
    return Requirement(
        "evidence",
        f"evidence {tier}",
        asked,
        lambda s, x: assumed(s, "policy", evidence=TIERS[int(x) - 1]),
        lambda s: assumed(s, "policy", evidence=TIERS[-1]),
        lambda f: min(floor(asked * f + 1e-9), len(TIERS)),
        lambda x: f"evidence {TIERS[int(x) - 1]}",
    )


def _margin(margin: float) -> Requirement:
    return Requirement(
        "margin",
        f"quality margin {margin:g}",
        margin,
        lambda s, x: assumed(s, "policy", quality_margin=x),
        lambda s: assumed(s, "policy", quality_margin=0.0),
        lambda f: margin if f == 1 else rounded_down(margin / f),
        lambda x: f"a quality margin of {x:.4g}",
    )


def _recovery() -> Requirement:
    """No amount: it holds or it does not, so it moves alone and by no factor."""
    return Requirement(
        "recovery",
        "derived scores at the worst recovery",
        1.0,
        lambda s, x: assumed(s, "policy", worst_recovery=x > 0),
        lambda s: assumed(s, "policy", worst_recovery=False),
        lambda _: 1.0,
        lambda x: f"derived scores at the {'worst' if x else 'mean'} recovery",
    )


def _age(days: int) -> Requirement:
    return Requirement(
        "age",
        f"prices at most {days} days older than the newest",
        days,
        lambda s, x: assumed(s, "supply", max_price_age=int(x)),
        lambda s: assumed(s, "supply", max_price_age=None),
        lambda f: floor(days * f + 1e-9),
        lambda x: f"prices up to {x:.0f} days older than the newest",
    )


def _limit(w: int, limit: Slo, of: str) -> Requirement:
    name, words, seconds = limit.name, limit.words, limit.seconds

    def without(s: Scenario) -> Scenario:
        return assumed_of(s, w, slo={k: v for k, v in s.workload[w].slo.items() if k != name})

    return Requirement(
        "limit",
        f"{words} {format_duration(seconds)}{of}",
        seconds,
        lambda s, x: assumed_of(s, w, slo={**s.workload[w].slo, name: x}),
        without,
        lambda f: seconds if f == 1 else max(seconds, parse_duration_s(duration(min(seconds * f, MOST_SECONDS), seconds))),
        lambda x: f"{words} of {duration(x, seconds)}{of}",
        w,
        limit=name,
    )


def duration(seconds: float, like: float) -> str:
    """A duration of four digits, rounded up, in the unit that another is written in."""
    unit, scale = ("s", 1.0) if like >= 1 else ("ms", 1e3) if like >= 1e-3 else ("us", 1e6)
    return f"{rounded_up(seconds * scale, 4):.10g}{unit}"


def _quality(w: int, field: Literal["min_quality", "mean_quality"], asked: float, of: str) -> Requirement:
    name = "quality" if field == "min_quality" else "mean quality"
    return Requirement(
        "floor" if field == "min_quality" else "mean",
        f"{name} {asked:g}{of}",
        asked,
        lambda s, x: assumed_of(s, w, **{field: x}),
        lambda s: assumed_of(s, w, **{field: None}),
        lambda f: asked if f == 1 else min(asked, floor(asked / f * 1e4 + 1e-9) / 1e4),
        lambda x: f"a {'quality floor' if field == 'min_quality' else 'mean quality'} of {x:.4g}{of}",
        w,
    )


def _traffic(w: int, workload: Workload, of: str) -> Requirement:
    field, unit = workload.rate_field, workload.unit
    return Requirement(
        "traffic",
        f"{workload.rate:g} {unit}{of}",
        workload.rate,
        lambda s, x: assumed_of(s, w, **{field: x}),
        lambda s: assumed_of(s, w, **{field: workload.rate * LEAST_TRAFFIC}),
        lambda f: workload.rate if f == 1 else rounded_down(workload.rate / f),
        lambda x: f"{x:.10g} {unit}{of}",
        w,
    )
