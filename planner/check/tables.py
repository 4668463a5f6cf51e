"""The check of what a plan made from the user's own tables says of candidates and classes; the rest is checked as of every plan.

The rows that the plan carries are its catalogue. The two CSV files are not needed; where they are at hand they must still say the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from planner.catalog.catalog import Catalog
from planner.catalog.files import csv_dicts, is_file
from planner.check.case import Account
from planner.check.cost import cost
from planner.check.findings import Breach, Finding, Notes, at_most, attempted
from planner.check.packing import packing
from planner.check.structure import structure
from planner.check.supply import counted, held_caps, offers, policy, solver
from planner.errors import CatalogError
from planner.result.plan import Deployment, Plan, PlanDemand, PlanWorkload
from planner.scenario.caps import caps
from planner.scenario.own import OwnCandidate, OwnTables, offered
from planner.scenario.records import Scenario

STATED = 1e-4
LOADS = ("capacity_qps_per_replica", "qps", "slo_load", "slo_load_one_replica_lost")  # follow from the solver's traffic: a wider tolerance
NOT_TOLD = ("headroom", "alternatives", "api", "excluded", "binding", "prudent", "unit_costs", "assumptions")


@dataclass(frozen=True)
class TablesCase(Account):
    """A plan with what its two tables say."""

    candidates: dict[str, OwnCandidate]
    demand: dict[str, float]

    def loads(self, i: int) -> list[float]:
        """Replicas' worth of work of each class on a deployment; infinite where the candidate cannot serve it."""
        rates = self.candidates[self.plan.deployments[i].checkpoint].max_qps
        routed = [(w.name, r.share) for w in self.plan.workloads for r in w.routing if r.deployment == i and r.share > 0]
        return [share * self.demand[name] / rates[name] if rates.get(name, 0.0) > 0 else float("inf") for name, share in routed]


def check_tables(plan: Plan) -> list[Finding]:
    """All families of a plan from tables; only the first ones where names already disagree."""
    scenario = plan.scenario
    try:
        own = plan.own or _files(scenario)
    except (CatalogError, KeyError, ValueError) as error:
        told = f"the plan carries no rows, and the tables cannot be read: {error}"
        return [Finding((Breach("tables", str(scenario.tables.capacities), told),), "tables: none")]
    catalog = Catalog((), {}, tuple(offered(c) for c in own.candidates), (), {}, (), Path(), own.hash)
    tables = TablesCase(plan, scenario, catalog, {c.name: c for c in own.candidates}, own.demand)
    first = [_carried(plan), structure(plan, scenario, list(own.demand))]
    if not any(f.breaches for f in first):
        first.append(_candidates(tables))
    if any(f.breaches for f in first):
        return first
    families: tuple[Callable[[TablesCase], Finding], ...] = (_demand_met, _capacity, _deployments, offers, packing, held_caps, policy, cost, solver, _alone)
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


def _carried(plan: Plan) -> Finding:
    """The rows that a plan carries are those it was made from, and those of the files where they are at hand."""
    notes, asked = Notes("tables"), plan.scenario.tables
    if plan.own is None:
        return notes.finding("tables: read again from both files")
    right = plan.own.hash
    notes.require(plan.catalog_hash == right, "catalog_hash", f"states {plan.catalog_hash or 'none'} for its rows, should be {right}")
    files = [Path(p or "") for p in (asked.capacities, asked.demand)]
    if not all(is_file(f) for f in files):
        return notes.finding("tables: the rows that the plan carries (the files are not at hand)")
    try:
        agree = _files(plan.scenario) == plan.own
    except (CatalogError, KeyError, ValueError):
        agree = False
    notes.require(agree, str(asked.capacities), "the files say otherwise than the rows that the plan was made from")
    return notes.finding("tables: the rows that the plan carries, as in both files")


def _candidates(t: TablesCase) -> Finding:
    """What is deployed stands in the table, each on purchases of its own."""
    notes, plan = Notes("candidate"), t.plan
    for i, d in enumerate(plan.deployments):
        notes.require(d.checkpoint in t.candidates, t.where(i), "no such candidate in the table")
        own = all(plan.purchases[h.purchase].instance_type == d.checkpoint for h in d.hosts)
        notes.require(own, t.where(i), "stands on purchases that are none of it")
    return notes.finding(f"candidates: {len(plan.deployments)} deployments of the {len(t.candidates)} candidates in the tables")


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
    supply = f"own capacities and prices from {t.scenario.tables.capacities}"
    notes.require(t.plan.supply == supply, "supply", f"is '{t.plan.supply}', should be '{supply}'")
    for name in NOT_TOLD:
        notes.require(not getattr(t.plan, name), name, "is none of what tables of one's own tell")
    return notes.finding(f"demand: {sum(t.demand.values()):g} req/s of {len(t.demand)} classes routed in full")


def _capacity(t: TablesCase) -> Finding:
    notes, rules, highest = Notes("capacity"), t.scenario.policy, 0.0
    for i, d in enumerate(t.plan.deployments):
        here, work, where = d.replicas - rules.spare_replicas, sum(t.loads(i)), t.where(i)
        load = work / here if here > 0 else float("inf")
        highest = max(highest, load)
        notes.require(at_most(load, rules.max_slo_load), where, f"SLO load {load:.6f} on {here} replicas, at most {rules.max_slo_load:g}")
        notes.agree(d.slo_load, load, where, "an SLO load of", STATED)
        notes.require(work > 0, where, "serves nobody")
        if work > 0:
            notes.agree(d.capacity_qps_per_replica, d.qps / work, where, "a capacity per replica (req/s) of", STATED)
        lost, stated = work / (d.replicas - 1) if d.replicas > 1 else None, d.slo_load_one_replica_lost
        notes.require((stated is None) == (lost is None), where, f"states an SLO load of {stated} with a replica lost, should be {lost}")
        if stated is not None and lost is not None:
            notes.agree(stated, lost, where, "with a replica lost an SLO load of", STATED)
    return notes.finding(f"capacity: SLO load up to {highest:.4f}, at most {rules.max_slo_load:g}")


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
    return notes.finding(f"replicas: {sum(d.replicas for d in t.plan.deployments)} of {len(t.plan.deployments)} candidates of the table")


def _alone(t: TablesCase) -> Finding:
    """The bound is not above what one candidate alone for everything costs, where limits admit that."""
    notes, least = Notes("bound"), t.plan.bound_usd_per_hour
    alone = min(((usd, name) for name in t.candidates if (usd := _usd_alone(t, name)) is not None), default=None)
    if alone is not None:
        text = f"${least:.6g}/h, but '{alone[1]}' alone serves everything for ${alone[0]:.6g}/h"
        notes.require(at_most(least, alone[0]), "bound", text)
    return notes.finding("bound: no more than one candidate for everything costs")


def _usd_alone(t: TablesCase, name: str) -> float | None:
    """$/h of one candidate for all classes; None where it cannot serve one of them or passes a limit."""
    own, rules = t.candidates[name], t.scenario.policy
    if any(own.max_qps.get(k, 0.0) <= 0 for k in t.demand):
        return None
    work = sum(qps / own.max_qps[k] for k, qps in t.demand.items())
    replicas = max(ceil(work / rules.max_slo_load - 1e-9), 1) + rules.spare_replicas
    fits = all(counted(cap, [(offered(own), replicas)], t.scenario, t.catalog) <= cap.most for cap in caps(t.scenario))
    return replicas * own.usd_per_hour if fits else None
