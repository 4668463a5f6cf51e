"""Checks packing by doing it: every replica is placed on a concrete instance, largest first, and counts are added up again."""

from __future__ import annotations

from dataclasses import dataclass

from planner.catalog.records import Offer
from planner.check.case import Account
from planner.check.findings import Finding, Notes
from planner.check.supply import offer_of
from planner.result.plan import Deployment, Period, Purchase


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


def packing(case: Account) -> Finding:
    """Replicas on instances, GPUs used, held and idle."""
    notes, plan = Notes("packing"), case.plan
    for i, d in enumerate(plan.deployments):
        _counts(notes, d, case.where(i))
    for i, p in enumerate(plan.purchases):
        _placed(notes, case, i, p)
    used = [sum(c.replicas * d.gpus_per_replica for c, d in zip(t.deployments, plan.deployments, strict=True)) for t in plan.by_period]
    held = [sum(n * p.gpus_per_instance for n, p in zip(t.instances, plan.purchases, strict=True)) for t in plan.by_period]
    for t, right in zip(plan.periods, held, strict=False):
        notes.agree(t.gpus_held, right, f"hour {t.hour}", "GPUs held")
    notes.agree(plan.gpus_used, max(used), "plan", "GPUs used")
    notes.agree(plan.gpus_held, max(held), "plan", "GPUs held")
    replicas = max(sum(c.replicas for c in t.deployments) for t in plan.by_period)
    instances, when = max(sum(t.instances) for t in plan.by_period), " in every hour" if plan.periods else ""
    done = f"{replicas} replicas placed one by one on {instances} instances{when}; {plan.gpus_used} GPUs used of {plan.gpus_held} held"
    return notes.finding(f"packing: {'up to ' if plan.periods else ''}{done}")


def _placed(notes: Notes, case: Account, i: int, p: Purchase) -> None:
    """What is held of a purchase, period by period: the most of it at once is what is bought, and idle is what is left then."""
    where, offer, spans = f"purchase {i} ({p.provider} {p.instance_type})", offer_of(case, p), case.plan.by_period
    guests = [_guests(case, t, i) for t in spans]
    most = max(range(len(spans)), key=lambda t: spans[t].instances[i])  # the first of them
    notes.agree(p.instances, spans[most].instances[i], where, "instances")
    notes.agree(p.gpus_held, p.instances * p.gpus_per_instance, where, "GPUs held")
    notes.agree(p.gpus_idle, p.gpus_held - sum(g.gpus * g.replicas for g in guests[most]), where, "GPUs idle")
    is_kept = offer is not None and p.instances <= offer.now  # from today's fleet: contracted, or dearer to return
    notes.require(any(guests) or is_kept, where, "hosts nobody")
    for t, there in zip(spans, guests, strict=True) if offer is not None else ():
        assert offer is not None
        place(notes, offer, t.instances[i], there, f"hour {t.hour}, {where}" if case.plan.periods else where)


def _counts(notes: Notes, d: Deployment, where: str) -> None:
    notes.agree(sum(h.replicas for h in d.hosts), d.replicas, where, "replicas on hosts")
    notes.agree(d.gpus, d.replicas * d.gpus_per_replica, where, "GPUs")


def _guests(case: Account, span: Period, purchase: int) -> list[Guest]:
    """Who stands on a purchase, largest replica first. A disaggregated unit stands on linked GPUs, as if all were one TP group."""
    there = enumerate(zip(case.plan.deployments, span.deployments, strict=True))
    here = [(case.where(i), d, h.replicas) for i, (d, c) in there for h in c.hosts if h.purchase == purchase]
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
        left = g.replicas
        for i, free in enumerate(room):
            here = min(left, free // g.gpus)
            room[i], left = free - here * g.gpus, left - here
        if left:
            notes.add(where, f"no node has room for replica {g.replicas - left + 1} of {g.replicas} of {g.where}: {g.gpus} GPUs")
            return


def _place_whole(notes: Notes, offer: Offer, instances: int, guests: list[Guest], where: str) -> None:
    """First fit, largest first, in aligned blocks: exact for replicas of 2^k GPUs. A larger one takes whole instances to itself."""
    size, taken = offer.gpus_per_instance, [0] * instances
    for g in guests:
        if g.gpus > size and (g.pp == 1 or g.gpus % size):
            notes.add(g.where, f"{g.gpus} GPUs do not fill whole instances of {where}")
            continue
        placed = fill(taken, g.gpus, size, g.replicas)
        if placed < g.replicas:
            notes.add(where, f"no room for replica {placed + 1} of {g.replicas} of {g.where}: {g.gpus} GPUs, {instances} instances of {size} held")


def fill(taken: list[int], gpus: int, size: int, replicas: int) -> int:
    """Places replicas of one size by first fit, as many as there is room for. One pass does: no later one fits where an earlier one did not."""
    if gpus > size:
        each = gpus // size
        empty = [i for i, t in enumerate(taken) if t == 0][: each * replicas]
        placed = len(empty) // each
        for i in empty[: placed * each]:
            taken[i] = size
        return placed
    left = replicas
    for i, t in enumerate(taken):
        if not left:
            break
        start = -(-t // gpus) * gpus
        here = min(left, max((size - start) // gpus, 0))
        if here:
            taken[i], left = start + here * gpus, left - here
    return replicas - left
