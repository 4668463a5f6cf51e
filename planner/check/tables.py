"""The check of a plan made from the user's own tables: both CSV files are read again, and every demand and cost is added up anew."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from planner.check.cost import periods, unit_costs
from planner.check.findings import CENT, RELATIVE, Breach, Finding, Notes, at_most, same_money
from planner.check.supply import bound
from planner.plan import Plan
from planner.scenario.records import Scenario

STATED = 1e-4


@dataclass(frozen=True)
class Own:
    """One candidate of the user's table; rates by class."""

    gpu: str
    gpus: int
    usd_per_hour: float
    max_qps: dict[str, float]


@dataclass(frozen=True)
class Tables:
    """A plan, its scenario and what the two files say."""

    plan: Plan
    scenario: Scenario
    candidates: dict[str, Own]
    demand: dict[str, float]

    def where(self, i: int) -> str:
        """A deployment in words."""
        return f"deployment {i} ({self.plan.deployments[i].checkpoint})"

    def loads(self, i: int) -> list[float]:
        """Replicas' worth of work of each class on a deployment; infinite where the candidate cannot serve it."""
        rates = self.candidates[self.plan.deployments[i].checkpoint].max_qps
        routed = [(w.name, r.share) for w in self.plan.workloads for r in w.routing if r.deployment == i and r.share > 0]
        return [share * self.demand[name] / rates[name] if rates.get(name, 0.0) > 0 else float("inf") for name, share in routed]


def check_tables(plan: Plan, scenario: Scenario) -> list[Finding]:
    """All families of a plan from tables; only the first where names already disagree."""
    try:
        tables = Tables(plan, scenario, _candidates(Path(scenario.tables.capacities or "")), _demand(Path(scenario.tables.demand or "")))
    except (OSError, KeyError, ValueError) as error:
        return [Finding((Breach("tables", str(scenario.tables.capacities), f"the tables cannot be read again: {error}"),), "tables: not read")]
    first = _structure(tables)
    families: tuple[Callable[[Tables], Finding], ...] = (_demand_met, _capacity, _held, _limits, _policy, _cost)
    return [first] if first.breaches else [first, *(family(tables) for family in families), bound(plan, scenario)]


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        yield from ({k: (v or "").strip() for k, v in row.items()} for row in csv.DictReader(file))


def _candidates(path: Path) -> dict[str, Own]:
    found: dict[str, Own] = {}
    for row in _rows(path):
        own = found.setdefault(row["candidate"], Own(row["gpu"], int(row["gpus"]), float(row["usd_per_hour"]), {}))
        own.max_qps[row["class"]] = float(row["max_qps"])
    return found


def _demand(path: Path) -> dict[str, float]:
    return {row["class"]: float(row["qps"]) for row in _rows(path)}


def _structure(t: Tables) -> Finding:
    notes = Notes("structure")
    names = [w.name for w in t.plan.workloads]
    notes.require(sorted(names) == sorted(t.demand), "classes", f"are {names}, the table has {list(t.demand)}")
    for w in t.plan.workloads:
        for r in w.routing:
            sound = 0 <= r.deployment < len(t.plan.deployments) and r.share >= 0 and isfinite(r.share)
            notes.require(sound, w.name, f"routes {r.share:g} to deployment {r.deployment}")
    for i, d in enumerate(t.plan.deployments):
        notes.require(d.checkpoint in t.candidates, t.where(i), "no such candidate in the table")
        for h in d.hosts:
            notes.require(0 <= h.purchase < len(t.plan.purchases), t.where(i), f"stands on purchase {h.purchase}, which is not there")
    return notes.finding(f"structure: {len(t.demand)} classes and {len(t.candidates)} candidates in the tables")


def _demand_met(t: Tables) -> Finding:
    notes = Notes("demand")
    for w in t.plan.workloads:
        asked = t.demand[w.name]
        notes.agree(w.demand.value, asked, w.name, "a demand (req/s) of")
        notes.agree(w.qps, asked, w.name, "requests/s")
        notes.agree(sum(r.share for r in w.routing), 1.0, w.name, "shares that add up to")
        for r in w.routing:
            notes.agree(r.qps, r.share * asked, f"{w.name} on {t.where(r.deployment)}", "requests/s")
    for i, d in enumerate(t.plan.deployments):
        notes.agree(d.qps, sum(r.qps for w in t.plan.workloads for r in w.routing if r.deployment == i), t.where(i), "requests/s")
    return notes.finding(f"demand: {sum(t.demand.values()):g} req/s of {len(t.demand)} classes routed in full")


def _capacity(t: Tables) -> Finding:
    notes, policy, highest = Notes("capacity"), t.scenario.policy, 0.0
    for i, d in enumerate(t.plan.deployments):
        here, work = d.replicas - policy.spare_replicas, sum(t.loads(i))
        load = work / here if here > 0 else float("inf")
        highest = max(highest, load)
        notes.require(at_most(load, policy.max_slo_load), t.where(i), f"SLO load {load:.6f} on {here} replicas, at most {policy.max_slo_load:g}")
        notes.agree(d.slo_load, load, t.where(i), "an SLO load of", STATED)
        if work > 0:
            notes.agree(d.capacity_qps_per_replica, d.qps / work, t.where(i), "a capacity per replica (req/s) of", STATED)
    return notes.finding(f"capacity: SLO load up to {highest:.4f}, at most {policy.max_slo_load:g}")


def _held(t: Tables) -> Finding:
    """Replicas are bought whole, each as the candidate is; GPUs add up."""
    notes, plan = Notes("packing"), t.plan
    for i, d in enumerate(plan.deployments):
        own, where = t.candidates[d.checkpoint], t.where(i)
        notes.require(d.gpu == own.gpu, where, f"states GPU {d.gpu}, the table has {own.gpu}")
        notes.agree(d.gpus, d.replicas * own.gpus, where, "GPUs")
        notes.agree(sum(h.replicas for h in d.hosts), d.replicas, where, "replicas on hosts")
    for j, p in enumerate(plan.purchases):
        where, own_bought = f"purchase {j} ({p.instance_type})", t.candidates.get(p.instance_type)
        replicas = sum(h.replicas for d in plan.deployments for h in d.hosts if h.purchase == j)
        notes.require(own_bought is not None, where, "no such candidate in the table")
        if own_bought is not None:
            shape = (p.gpu, p.gpus_per_instance)
            notes.require(shape == (own_bought.gpu, own_bought.gpus), where, f"states {shape}, the table has {(own_bought.gpu, own_bought.gpus)}")
        notes.require(p.instances >= replicas, where, f"holds {p.instances} for {replicas} replicas")
        notes.agree(p.gpus_held, p.instances * p.gpus_per_instance, where, "GPUs held")
        notes.agree(p.gpus_idle, (p.instances - replicas) * p.gpus_per_instance, where, "GPUs idle")
    notes.agree(plan.gpus_used, sum(d.gpus for d in plan.deployments), "plan", "GPUs used")
    notes.agree(plan.gpus_held, sum(p.gpus_held for p in plan.purchases), "plan", "GPUs held")
    return notes.finding(f"replicas: {sum(d.replicas for d in plan.deployments)} on {plan.gpus_held} GPUs held")


def _limits(t: Tables) -> Finding:
    notes, supply = Notes("limits"), t.scenario.supply
    held: dict[str, int] = {}
    for p in t.plan.purchases:
        own = t.candidates.get(p.instance_type)
        held[p.gpu] = held.get(p.gpu, 0) + p.instances * (own.gpus if own else p.gpus_per_instance)
    for gpu, most in supply.quota.items():
        notes.require(held.get(gpu, 0) <= most, gpu, f"holds {held.get(gpu, 0)} GPUs, the quota is {most}")
    total, cap, budget, cost = sum(held.values()), supply.max_gpus, t.scenario.policy.budget, _dollars(t)
    notes.require(cap is None or total <= cap, "max_gpus", f"holds {total} GPUs, at most {cap}")
    notes.require(budget is None or cost <= budget * (1 + RELATIVE) + CENT / 2, "budget", f"costs ${cost:.2f}/h, the budget is ${budget or 0:.2f}/h")
    return notes.finding(f"limits: {total} GPUs held, ${cost:.2f}/h")


def _policy(t: Tables) -> Finding:
    notes, policy = Notes("policy"), t.scenario.policy
    most = 1 if t.scenario.tables.single_candidate_per_class else policy.max_pools
    for w in t.plan.workloads:
        serving = [r.deployment for r in w.routing if r.share > 0]
        notes.require(most is None or len(serving) <= most, w.name, f"is split over {len(serving)} candidates, at most {most}")
    types = {d.gpu for d in t.plan.deployments}
    notes.require(policy.max_gpu_types is None or len(types) <= policy.max_gpu_types, "max_gpu_types", f"uses {len(types)}, at most {policy.max_gpu_types}")
    return notes.finding(f"policy: {'one candidate' if most == 1 else 'any number of candidates'} per class, {len(types)} GPU types")


def _cost(t: Tables) -> Finding:
    notes, plan, right = Notes("cost"), t.plan, _dollars(t)
    periods(notes, plan.cost, right)
    unit_costs(notes, plan.cost, sum(t.demand.values()) * 3600, 0.0, 0.0)
    for i, d in enumerate(plan.deployments):
        share = d.replicas * t.candidates[d.checkpoint].usd_per_hour
        notes.require(same_money(d.usd_per_hour, share), t.where(i), f"states ${d.usd_per_hour:.4f}/h, its replicas cost ${share:.4f}")
    for j, p in enumerate(plan.purchases):
        price = p.instances * t.candidates[p.instance_type].usd_per_hour if p.instance_type in t.candidates else float("nan")
        notes.require(same_money(p.usd_per_hour, price), f"purchase {j}", f"states ${p.usd_per_hour:.4f}/h, the table has ${price:.4f}")
    whole = sum(d.usd_per_hour for d in plan.deployments) + plan.cost.idle_usd_per_hour
    notes.require(same_money(whole, plan.cost.usd_per_hour), "plan", f"shares and idle add up to ${whole:.4f}/h, the cost is ${plan.cost.usd_per_hour:.4f}")
    return notes.finding(f"cost: ${right:,.2f}/h, replicas at the prices of the table")


def _dollars(t: Tables) -> float:
    """What is held at the table's prices."""
    return sum(p.instances * (t.candidates[p.instance_type].usd_per_hour if p.instance_type in t.candidates else float("nan")) for p in t.plan.purchases)
