"""The check of a plan made from the user's own tables: from the rows that the plan carries every demand, load, count and cost is added up anew.

The two CSV files are not needed; where they are at hand they must still say the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil, isfinite
from pathlib import Path

from planner.catalog.files import csv_dicts, is_file
from planner.check.cost import periods, unit_costs
from planner.check.findings import Breach, Finding, Notes, at_most, attempted, same_money
from planner.check.supply import bound, within
from planner.errors import CatalogError
from planner.result.plan import Deployment, Plan, PlanDemand, PlanWorkload, Purchase
from planner.scenario.caps import caps
from planner.scenario.own import OwnCandidate, OwnTables
from planner.scenario.records import Scenario

STATED = 1e-4
LOADS = ("capacity_qps_per_replica", "qps", "slo_load", "slo_load_one_replica_lost")  # follow from the solver's traffic: a wider tolerance


@dataclass(frozen=True)
class TablesCase:
    """A plan, its scenario and what the two tables say."""

    plan: Plan
    scenario: Scenario
    candidates: dict[str, OwnCandidate]
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
    """All families of a plan from tables; only the first ones where names already disagree."""
    try:
        own = plan.own or _files(scenario)
    except (CatalogError, KeyError, ValueError) as error:
        told = f"the plan carries no rows, and the tables cannot be read: {error}"
        return [Finding((Breach("tables", str(scenario.tables.capacities), told),), "tables: none")]
    tables = TablesCase(plan, scenario, {c.name: c for c in own.candidates}, own.demand)
    first = [_carried(plan, scenario), _structure(tables)]
    if any(f.breaches for f in first):
        return first
    families: tuple[Callable[[TablesCase], Finding], ...] = (_demand_met, _capacity, _deployments, _purchases, _limits, _policy, _cost, _bound)
    return [*first, *(attempted(family, tables) for family in families)]


def _files(scenario: Scenario) -> OwnTables:
    """What the two files say of the classes asked for."""
    demand = {row["class"]: float(row["qps"]) for row in _rows(Path(scenario.tables.demand or ""))}
    shapes: dict[str, OwnCandidate] = {}
    rates: dict[str, dict[str, float]] = {}
    for row in _rows(Path(scenario.tables.capacities or "")):
        name = row["candidate"]
        shapes[name] = OwnCandidate(name=name, gpu=row["gpu"], gpus=int(row["gpus"]), usd_per_hour=float(row["usd_per_hour"]), max_qps={})
        if row["class"] in demand:
            rates.setdefault(name, {})[row["class"]] = float(row["max_qps"])
    return OwnTables(candidates=tuple(shapes[name].model_copy(update={"max_qps": r}) for name, r in rates.items()), demand=demand)


def _rows(path: Path) -> Iterator[dict[str, str]]:
    yield from ({k: v.strip() for k, v in row.items()} for _, row in csv_dicts(path))


def _carried(plan: Plan, scenario: Scenario) -> Finding:
    """The rows that a plan carries are those it was made from, and those of the files where they are at hand."""
    notes = Notes("tables")
    if plan.own is None:
        return notes.finding("tables: read again from both files")
    right = plan.own.hash
    notes.require(plan.catalog_hash == right, "catalog_hash", f"states {plan.catalog_hash or 'none'} for its rows, should be {right}")
    files = [Path(p or "") for p in (scenario.tables.capacities, scenario.tables.demand)]
    if not all(is_file(f) for f in files):
        return notes.finding("tables: the rows that the plan carries (the files are not at hand)")
    try:
        agree = _files(scenario) == plan.own
    except (CatalogError, KeyError, ValueError):
        agree = False
    notes.require(agree, str(scenario.tables.capacities), "the files say otherwise than the rows that the plan was made from")
    return notes.finding("tables: the rows that the plan carries, as in both files")


def _structure(t: TablesCase) -> Finding:
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
            there = 0 <= h.purchase < len(t.plan.purchases) and t.plan.purchases[h.purchase].instance_type == d.checkpoint
            notes.require(there, t.where(i), f"stands on purchase {h.purchase}, which is none of it")
    for j, p in enumerate(t.plan.purchases):
        notes.require(p.instance_type in t.candidates, f"purchase {j} ({p.instance_type})", "no such candidate in the table")
    words = {"objective": "cost", "supply": f"own capacities and prices from {t.scenario.tables.capacities}"}
    for name, text in words.items():
        notes.require(getattr(t.plan, name) == text, name, f"is '{getattr(t.plan, name)}', should be '{text}'")
    for name in ("headroom", "alternatives", "api", "excluded"):
        notes.require(not getattr(t.plan, name), name, "is none of what tables of one's own tell")
    return notes.finding(f"structure: {len(t.demand)} classes and {len(t.candidates)} candidates in the tables")


def _demand_met(t: TablesCase) -> Finding:
    notes = Notes("demand")
    for w in t.plan.workloads:
        asked = t.demand[w.name]
        right = PlanWorkload(name=w.name, demand=PlanDemand(kind="qps", value=asked), qps=asked, concurrency=None, routing=w.routing)
        notes.match(w.demand, right.demand, w.name)
        notes.match(w, right, w.name, skip={"demand"})
        notes.agree(sum(r.share for r in w.routing), 1.0, w.name, "shares that add up to")
        for r in w.routing:
            notes.agree(r.qps, r.share * asked, f"{w.name} on {t.where(r.deployment)}", "requests/s")
            notes.require(r.tokens_per_stated == 1, w.name, "states tokens, which tables of one's own do not know")
    for i, d in enumerate(t.plan.deployments):
        notes.agree(d.qps, sum(r.qps for w in t.plan.workloads for r in w.routing if r.deployment == i), t.where(i), "requests/s")
    return notes.finding(f"demand: {sum(t.demand.values()):g} req/s of {len(t.demand)} classes routed in full")


def _capacity(t: TablesCase) -> Finding:
    notes, policy, highest = Notes("capacity"), t.scenario.policy, 0.0
    for i, d in enumerate(t.plan.deployments):
        here, work, where = d.replicas - policy.spare_replicas, sum(t.loads(i)), t.where(i)
        load = work / here if here > 0 else float("inf")
        highest = max(highest, load)
        notes.require(at_most(load, policy.max_slo_load), where, f"SLO load {load:.6f} on {here} replicas, at most {policy.max_slo_load:g}")
        notes.agree(d.slo_load, load, where, "an SLO load of", STATED)
        notes.require(work > 0, where, "serves nobody")
        if work > 0:
            notes.agree(d.capacity_qps_per_replica, d.qps / work, where, "a capacity per replica (req/s) of", STATED)
        lost, stated = work / (d.replicas - 1) if d.replicas > 1 else None, d.slo_load_one_replica_lost
        notes.require((stated is None) == (lost is None), where, f"states an SLO load of {stated} with a replica lost, should be {lost}")
        if stated is not None and lost is not None:
            notes.agree(stated, lost, where, "with a replica lost an SLO load of", STATED)
    return notes.finding(f"capacity: SLO load up to {highest:.4f}, at most {policy.max_slo_load:g}")


def _deployments(t: TablesCase) -> Finding:
    """A deployment says of itself what the table says, and nothing that no table knows."""
    notes = Notes("deployments")
    for i, d in enumerate(t.plan.deployments):
        own = t.candidates[d.checkpoint]
        right = Deployment(
            model=own.name, checkpoint=own.name, mode="", precision="", engine="", gpu=own.gpu, tp=own.gpus, pp=1, replicas=d.replicas,
            gpus=d.replicas * own.gpus, max_num_seqs=0, capacity_qps_per_replica=0, qps=0, slo_load=0, slo_load_one_replica_lost=None,
            usd_per_hour=d.replicas * own.usd_per_hour, hosts=d.hosts,
        )  # fmt: skip
        notes.match(d, right, t.where(i), skip=LOADS)
        notes.agree(sum(h.replicas for h in d.hosts), d.replicas, t.where(i), "replicas on hosts")
    return notes.finding(f"replicas: {sum(d.replicas for d in t.plan.deployments)} of {len(t.plan.deployments)} candidates of the table")


def _purchases(t: TablesCase) -> Finding:
    """Replicas are bought whole, each as the candidate is; GPUs add up."""
    notes, plan = Notes("purchases"), t.plan
    for j, p in enumerate(plan.purchases):
        own, where = t.candidates[p.instance_type], f"purchase {j} ({p.instance_type})"
        replicas = sum(h.replicas for d in plan.deployments for h in d.hosts if h.purchase == j)
        right = Purchase(
            provider="own", kind="own", region="own", instance_type=own.name, basis="instance", purchase="own", gpu=own.gpu,
            gpus_per_instance=own.gpus, instances=p.instances, gpus_held=p.instances * own.gpus, gpus_idle=(p.instances - replicas) * own.gpus,
            usd_per_hour=p.instances * own.usd_per_hour, source="own table", as_of="", dated_by="own",
        )  # fmt: skip
        notes.match(p, right, where)
        notes.require(p.instances >= replicas, where, f"holds {p.instances} for {replicas} replicas")
    notes.agree(plan.gpus_used, sum(d.replicas * t.candidates[d.checkpoint].gpus for d in plan.deployments), "plan", "GPUs used")
    notes.agree(plan.gpus_held, sum(p.gpus_held for p in plan.purchases), "plan", "GPUs held")
    return notes.finding(f"purchases: {plan.gpus_held} GPUs held")


def _limits(t: TablesCase) -> Finding:
    notes, _supply = Notes("limits"), t.scenario.supply
    held: dict[str, int] = {}
    for p in t.plan.purchases:
        own = t.candidates[p.instance_type]
        held[own.gpu] = held.get(own.gpu, 0) + p.instances * own.gpus
    total, cost = sum(held.values()), _dollars(t)
    for cap in caps(t.scenario):
        within(notes, cap, cost if cap.is_money else float(held.get(cap.gpu, 0) if cap.gpu else total), cap.key or cap.field.name)
    return notes.finding(f"limits: {total} GPUs held, ${cost:.2f}/h")


def _policy(t: TablesCase) -> Finding:
    notes, policy = Notes("policy"), t.scenario.policy
    most = 1 if t.scenario.tables.single_candidate_per_class else policy.max_pools
    for w in t.plan.workloads:
        serving = [r.deployment for r in w.routing if r.share > 0]
        notes.require(most is None or len(serving) <= most, w.name, f"is split over {len(serving)} candidates, at most {most}")
    types = {d.gpu for d in t.plan.deployments}
    notes.require(policy.max_gpu_types is None or len(types) <= policy.max_gpu_types, "max_gpu_types", f"uses {len(types)}, at most {policy.max_gpu_types}")
    return notes.finding(f"policy: {'one candidate' if most == 1 else 'any number of candidates'} per class, {len(types)} GPU types")


def _cost(t: TablesCase) -> Finding:
    notes, plan, right = Notes("cost"), t.plan, _dollars(t)
    periods(notes, plan.cost, right)
    unit_costs(notes, plan.cost, sum(t.demand.values()) * 3600, 0.0, 0.0)
    idle, stated = right - sum(d.replicas * t.candidates[d.checkpoint].usd_per_hour for d in plan.deployments), plan.cost.idle_usd_per_hour
    notes.require(same_money(stated, idle), "plan", f"states ${stated:.4f}/h idle, should be ${idle:.4f}")
    return notes.finding(f"cost: ${right:,.2f}/h, replicas at the prices of the table")


def _dollars(t: TablesCase) -> float:
    """What is held at the table's prices."""
    return sum(p.instances * t.candidates[p.instance_type].usd_per_hour for p in t.plan.purchases)


def _bound(t: TablesCase) -> Finding:
    """Bound, gap and status; and the bound is not above what one candidate alone for everything costs, where limits admit that."""
    found = bound(t.plan, t.scenario)
    alone = min(((usd, name) for name in t.candidates if (usd := _alone(t, name)) is not None), default=None)
    if alone is None or at_most(t.plan.bound_usd_per_hour, alone[0]):
        return found
    text = f"${t.plan.bound_usd_per_hour:.6g}/h, but '{alone[1]}' alone serves everything for ${alone[0]:.6g}/h"
    return Finding((*found.breaches, Breach("bound", "bound", text)), found.check)


def _alone(t: TablesCase, name: str) -> float | None:
    """$/h of one candidate for all classes; None where it cannot serve one of them or passes a limit."""
    own, policy, _supply = t.candidates[name], t.scenario.policy, t.scenario.supply
    if any(own.max_qps.get(k, 0.0) <= 0 for k in t.demand):
        return None
    work = sum(qps / own.max_qps[k] for k, qps in t.demand.items())
    replicas = max(ceil(work / policy.max_slo_load - 1e-9), 1) + policy.spare_replicas
    gpus, usd = replicas * own.gpus, replicas * own.usd_per_hour
    counted = {c: usd if c.is_money else gpus if c.gpu in ("", own.gpu) else 0 for c in caps(t.scenario)}
    return usd if all(x <= c.most for c, x in counted.items()) else None
