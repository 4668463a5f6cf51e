"""What a plan bears: the worst loss of the kind asked for of each deployment, what it leaves, and how loaded that is then."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

from planner.catalog.catalog import Catalog
from planner.catalog.records import Offer
from planner.catalog.spot import spot_rate
from planner.program.losses import worst
from planner.program.problem import Problem
from planner.result.plan import Alternative, LossBorne, Plan, PlanRedundancy, Purchase, SpotRisk
from planner.scenario.apply import zones_of
from planner.scenario.records import Scenario

WITHOUT = "no redundancy"  # the alternative that it is compared with


@dataclass(frozen=True)
class Standing:
    """A deployment in one period: GPUs of a replica, replicas by offer of the problem, its SLO load with so many left, and that of the limits after a loss."""

    deployment: int
    gpus: int
    running: Mapping[int, int]
    load: Callable[[int], float]
    load_after_loss: Callable[[int], float]
    hour: int | None = None


def redundancy(scenario: Scenario, problem: Problem, offers: Sequence[Offer], standing: Sequence[Standing]) -> PlanRedundancy | None:
    """What is lost at worst; None where no loss was asked to be borne. offers: those of the problem; standing: all deployments in all periods with traffic."""
    policy = scenario.policy
    if policy.redundancy == "none":
        return None
    borne = [_borne(scenario, problem, offers, s) for s in standing]
    most = [max((b for b in borne if b.deployment == i), key=lambda b: b.slo_load) for i in sorted({s.deployment for s in standing})]
    held = [offers[o] for s in standing for o in s.running]
    return PlanRedundancy(
        asked=policy.redundancy,
        load_after_loss=policy.load_after_loss,
        losses=tuple(most),
        assumption=_assumed(scenario, held),
        loss_slo_factor=policy.loss_slo_factor,
    )


def _borne(scenario: Scenario, problem: Problem, offers: Sequence[Offer], s: Standing) -> LossBorne:
    kind, total = scenario.policy.survives, sum(s.running.values())
    lost, hit = worst(kind, problem, s.gpus, s.running) if kind else (1, ())
    words = _words(kind or "replica", [offers[o] for o in hit])
    return LossBorne(deployment=s.deployment, hour=s.hour, loss=words, replicas_lost=lost, replicas_left=total - lost, slo_load=s.load_after_loss(total - lost))


def spot_risks(
    problem: Problem, bought: Mapping[int, int], purchases: Sequence[Purchase], standing: Sequence[Standing], catalog: Catalog
) -> tuple[SpotRisk, ...]:
    """Of every purchase on spot. bought: offer of the problem -> purchase."""
    found = []
    for o, i in sorted(bought.items(), key=lambda x: x[1]):
        p = purchases[i]
        if p.purchase != "spot":
            continue
        rate = spot_rate(catalog, p.provider, p.region, p.instance_type)
        left = [(s, sum(s.running.values()) - min(n, problem.offers[o].at_once(s.gpus))) for s in standing if (n := s.running.get(o, 0))]
        loads = [s.load(n) if n > 0 else inf for s, n in left]
        most = max(loads, default=inf)
        share = None if rate is None else rate.low if rate.high is None else rate.high
        found.append(
            SpotRisk(
                purchase=i,
                low=rate.low if rate else None,
                high=rate.high if rate else None,
                per_month=share * p.instances if share is not None else None,
                slo_load_one_away=most if most < inf else None,
                source=rate.source if rate else "",
                as_of=rate.as_of.isoformat() if rate else "",
            )
        )
    return tuple(found)


def _words(kind: str, hit: Sequence[Offer]) -> str:
    """A loss in words."""
    if not hit:
        return {"replica": "any replica", "spot": "nothing, as nothing is spot"}.get(kind, kind)
    first, place = hit[0], " ".join(w for w in (hit[0].provider, hit[0].region) if w != "any")
    if kind == "spot":
        return "all spot instances"
    if kind == "zone":
        return f"{first.zone} of {place}" if first.zone else f"all of {place}"
    if first.basis == "gpu":
        return f"a node of {first.gpus_per_node} {first.gpu} at {place}" if first.gpus_per_node > 1 else f"a {first.gpu} at {place}"
    return f"an instance {first.instance_type} at {place}"


def _assumed(scenario: Scenario, held: Sequence[Offer]) -> str:
    """What is taken for granted of zones and of GPUs that fail together, in words."""
    kind, parts = scenario.policy.survives, []
    if kind == "zone" and any(o.zone.startswith("zone ") for o in held):
        bare = [o.model_copy(update={"zone": ""}) for o in held if not o.is_owned]
        many = ", ".join(dict.fromkeys(f"{o.provider} {o.region} in {zones_of(o, scenario.supply)} zones" for o in bare if zones_of(o, scenario.supply) > 1))
        stated = "as stated" if scenario.supply.zones else "assumed (--zones)"
        parts.append(f"{many}, {stated}, each with every GPU type at one price: what is where is in no price list")
    if kind == "instance" and any(o.basis == "gpu" and o.gpus_per_node > 1 for o in held):
        parts.append("GPUs sold one by one stand in as few nodes as they fill, and a node fails as a whole")
    return "; ".join(parts)


def compared(plan: Plan, alternatives: Sequence[Alternative]) -> PlanRedundancy | None:
    """With the premium over the cheapest plan that bears no loss, where that is among the alternatives."""
    found = plan.redundancy
    without = next((a.cost.usd_per_hour for a in alternatives if a.cost and a.difference.startswith(WITHOUT)), None)
    if found is None or without is None:
        return found
    return found.model_copy(update={"usd_per_hour_without": without, "premium_usd_per_hour": plan.cost.usd_per_hour - without})
