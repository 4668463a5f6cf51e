"""Checks packing by doing it: every replica is placed on a concrete instance, largest first, and counts are added up again."""

from __future__ import annotations

from dataclasses import dataclass

from planner.catalog.records import Offer
from planner.check.case import Case
from planner.check.findings import Finding, Notes
from planner.check.supply import offer_of
from planner.result.plan import Deployment


@dataclass(frozen=True)
class Guest:
    """Replicas of one deployment on a purchase."""

    where: str
    gpu: str
    tp: int
    pp: int
    replicas: int

    @property
    def gpus(self) -> int:
        """Of one replica."""
        return self.tp * self.pp


def packing(case: Case) -> Finding:
    """Replicas on instances, GPUs used, held and idle."""
    notes, plan = Notes("packing"), case.plan
    for i, d in enumerate(plan.deployments):
        _counts(notes, d, case.where(i))
    for i, p in enumerate(plan.purchases):
        where, guests = f"purchase {i} ({p.provider} {p.instance_type})", _guests(case, i)
        used = sum(g.gpus * g.replicas for g in guests)
        notes.agree(p.gpus_held, p.instances * p.gpus_per_instance, where, "GPUs held")
        notes.agree(p.gpus_idle, p.gpus_held - used, where, "GPUs idle")
        notes.require(bool(guests), where, "hosts nobody")
        offer = offer_of(case, p)
        if offer is not None:
            place(notes, offer, p.instances, guests, where)
    notes.agree(plan.gpus_used, sum(d.gpus for d in plan.deployments), "plan", "GPUs used")
    notes.agree(plan.gpus_held, sum(p.gpus_held for p in plan.purchases), "plan", "GPUs held")
    replicas = sum(d.replicas for d in plan.deployments)
    instances = sum(p.instances for p in plan.purchases)
    return notes.finding(f"packing: {replicas} replicas placed one by one on {instances} instances; {plan.gpus_used} GPUs used of {plan.gpus_held} held")


def _counts(notes: Notes, d: Deployment, where: str) -> None:
    notes.agree(sum(h.replicas for h in d.hosts), d.replicas, where, "replicas on hosts")
    notes.agree(d.gpus, d.replicas * d.gpus_per_replica, where, "GPUs")


def _guests(case: Case, purchase: int) -> list[Guest]:
    """Who stands on a purchase, largest replica first. A disaggregated unit stands on linked GPUs, as if all were one TP group."""
    here = [(case.where(i), d, h.replicas) for i, d in enumerate(case.plan.deployments) for h in d.hosts if h.purchase == purchase]
    found = [Guest(where, d.gpu, *((d.gpus_per_replica, 1) if d.decode_engines else (d.tp, d.pp)), n) for where, d, n in here]
    return sorted(found, key=lambda g: -g.gpus)


def place(notes: Notes, offer: Offer, instances: int, guests: list[Guest], where: str) -> None:
    """Puts guests, largest first, on the instances held of one offer; what has no room is a breach."""
    for g in guests:
        notes.require(g.gpu == offer.gpu, g.where, f"stands on {offer.gpu} of {where}")
        notes.require(g.tp <= offer.max_tp, g.where, f"TP{g.tp}, but {offer.max_tp} GPUs at most are linked in one node of {where}")
    if offer.basis == "gpu":
        _place_singly(notes, offer, instances, guests, where)
    else:
        _place_whole(notes, offer, instances, guests, where)


def _place_singly(notes: Notes, offer: Offer, held: int, guests: list[Guest], where: str) -> None:
    """GPUs sold one by one: enough of them, and no pipeline stage wider than a node."""
    for g in guests:
        node = g.gpus if g.pp == 1 else g.tp
        notes.require(node <= offer.gpus_per_node, g.where, f"needs {node} GPUs of one node, {where} has {offer.gpus_per_node}")
    needed = sum(g.gpus * g.replicas for g in guests)
    notes.require(needed <= held, where, f"{needed} GPUs are needed, {held} held")
    if offer.available is not None:
        _place_in_nodes(notes, offer, offer.available, guests, where)


def _place_in_nodes(notes: Notes, offer: Offer, gpus: int, guests: list[Guest], where: str) -> None:
    """First fit, largest first, into the nodes there are, the last of which may be smaller: exact for replicas of 2^k GPUs in nodes of 2^k."""
    room = [offer.gpus_per_node] * (gpus // offer.gpus_per_node) + [gpus % offer.gpus_per_node]
    for g in guests:
        for n in range(g.replicas):
            node = next((i for i, free in enumerate(room) if free >= g.gpus), None)
            if node is None:
                notes.add(where, f"no node has room for replica {n + 1} of {g.replicas} of {g.where}: {g.gpus} GPUs")
                return
            room[node] -= g.gpus


def _place_whole(notes: Notes, offer: Offer, instances: int, guests: list[Guest], where: str) -> None:
    """First fit, largest first, in aligned blocks: exact for replicas of 2^k GPUs. A larger one takes whole instances to itself."""
    size, taken = offer.gpus_per_instance, [0] * instances
    for g in guests:
        if g.gpus > size and (g.pp == 1 or g.gpus % size):
            notes.add(g.where, f"{g.gpus} GPUs do not fill whole instances of {where}")
            continue
        for n in range(g.replicas):
            if not settle(taken, g.gpus, size):
                notes.add(where, f"no room for replica {n + 1} of {g.replicas} of {g.where}: {g.gpus} GPUs, {instances} instances of {size} held")
                break


def settle(taken: list[int], gpus: int, size: int) -> bool:
    """Places one replica, if there is room."""
    if gpus > size:
        empty = [i for i, t in enumerate(taken) if t == 0][: gpus // size]
        for i in empty if len(empty) == gpus // size else ():
            taken[i] = size
        return len(empty) == gpus // size
    for i, t in enumerate(taken):
        start = -(-t // gpus) * gpus
        if start + gpus <= size:
            taken[i] = start + gpus
            return True
    return False
