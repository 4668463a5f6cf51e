"""Plans counted without a solver, exactly: each workload on one candidate. What a program answers must not be dearer.

``ReplicaProblem`` is for problems in which a replica is bought as one thing: each column has one offer, of its own size, and one pool.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil, inf

from planner.program.kinds import ColumnIndex, WorkloadIndex
from planner.program.packing import fewest_instances
from planner.program.pools import EXACT
from planner.program.problem import ChosenPool, Pool, Problem, Purchasable, Solution, Status

MOST_MOVES = 20_000  # candidates tried for workloads, until no move makes the plan cheaper


@dataclass(frozen=True)
class ReplicaProblem:
    """The problem in replicas: ``load[c][w]`` replicas' worth of all of workload w on candidate c, at the SLO load allowed."""

    problem: Problem
    load: tuple[dict[int, float], ...]
    price: tuple[float, ...]
    gpus: tuple[int, ...]

    @classmethod
    def of(cls, problem: Problem) -> ReplicaProblem:
        """Counted in replicas."""
        u, rates = problem.rules.max_slo_load, [d.rate for d in problem.demands]
        capacity = [dict(c.shared) or {w: t[0].capacity for w, t in c.tiers.items()} for c in problem.columns]
        load = tuple({w: rates[w] / mu / u for w, mu in row.items()} for row in capacity)
        return cls(problem, load, tuple(problem.offers[c.offers[0]].usd_per_hour for c in problem.columns), tuple(c.gpus for c in problem.columns))

    def needed(self, load: float) -> int:
        """Replicas of a candidate in use that so much load takes, spares included."""
        return max(1, ceil(load * (1 - EXACT))) + self.problem.rules.spare_replicas

    def cost(self, counts: dict[int, int]) -> float:
        """$/h of so many replicas of each candidate."""
        return sum(self.price[c] * n for c, n in counts.items())

    def excess(self, counts: dict[int, int]) -> float:
        """By how much the counts break caps and the limit on GPU types, as shares of these limits; 0 if they keep them."""
        rules, columns = self.problem.rules, self.problem.columns
        limits = [(cap.most, sum(cap.amount(self.offer(c)) * n for c, n in counts.items())) for cap in rules.caps]
        limits += [(float(rules.max_gpu_types), float(len({columns[c].gpu for c in counts})))] if rules.max_gpu_types is not None else []
        return sum(max(0.0, used / max(limit, EXACT) - 1 - EXACT) for limit, used in limits)

    def offer(self, c: int) -> Purchasable:
        """What a replica of a candidate is bought as."""
        return self.problem.offers[self.problem.columns[c].offers[0]]

    def most(self, c: int, cutoff: float) -> int:
        """The most replicas of a candidate in any plan that costs no more than the cutoff and keeps the limits."""
        rules, room = self.problem.rules, sum(ceil(x) for x in self.load[c].values()) + self.problem.rules.spare_replicas
        for cap in rules.within(cutoff).caps:
            if each := cap.amount(self.offer(c)):
                room = int(min(room, cap.most / each * (1 + EXACT)))
        return room


@dataclass(frozen=True)
class Assignment:
    """Each workload on one candidate, with the replicas that takes."""

    where: tuple[int, ...]
    counts: dict[int, int]
    cost: float


def best_assignment(r: ReplicaProblem) -> Assignment | None:
    """The cheapest found of: all workloads on one candidate; each on its cheapest; and what single moves make of these. None: none keeps the limits."""
    workloads = range(len(r.problem.demands))
    options = [[c for c in range(len(r.load)) if w in r.load[c]] for w in workloads]
    if not all(options):
        return None
    starts = [[c] * len(workloads) for c in range(len(r.load)) if len(r.load[c]) == len(workloads)]
    measures: Sequence[Callable[[int, int], float]] = (
        lambda w, c: r.price[c] * r.load[c][w],
        lambda w, c: r.price[c] * r.needed(r.load[c][w]),
        lambda w, c: r.gpus[c] * r.needed(r.load[c][w]),
    )
    starts += [[min(options[w], key=partial(by, w)) for w in workloads] for by in measures]
    best, moves = None, [MOST_MOVES]
    for start in sorted(starts, key=lambda s: _rank(r, s)):
        found = _descended(r, start, options, moves)
        if _rank(r, found) < (_rank(r, best) if best else (EXACT, inf)):
            best = found
    return Assignment(tuple(best), counts := _counts(r, best), r.cost(counts)) if best else None


def _descended(r: ReplicaProblem, where: list[int], options: list[list[int]], moves: list[int]) -> list[int]:
    """Workloads moved one at a time while that breaks limits by less, or costs less."""
    now, better = _rank(r, where), True
    while better:
        better = False
        for w, choices in enumerate(options):
            for c in choices:
                if c == where[w] or moves[0] <= 0:
                    continue
                moves[0] -= 1
                trial = [*where[:w], c, *where[w + 1 :]]
                rank = _rank(r, trial)
                if rank < now:
                    where, now, better = trial, rank, True
    return where


def _rank(r: ReplicaProblem, where: Sequence[int]) -> tuple[float, float]:
    counts = _counts(r, where)
    return r.excess(counts), r.cost(counts)


def _counts(r: ReplicaProblem, where: Sequence[int]) -> dict[int, int]:
    load: dict[int, float] = {}
    for w, c in enumerate(where):
        load[c] = load.get(c, 0.0) + r.load[c][w]
    return {c: r.needed(x) for c, x in sorted(load.items())}


def one_pool(problem: Problem) -> Solution | None:
    """The cheapest plan of a single pool on a single offer that serves everything, counted exactly; None where none keeps the rules.

    For any problem of one state; what its program answers must not be dearer.
    """
    rules = problem.rules
    if not problem.is_flat or rules.survives or rules.changes or rules.risk or rules.most_spot is not None or any(o.least for o in problem.offers):
        return None
    every = (pool for c in range(len(problem.columns)) for pool in _whole_pools(problem, ColumnIndex(c)))
    found = [s for pool in every for o in problem.columns[pool.column].offers if (s := _on_offer(problem, pool, o))]
    return min(found, key=lambda s: s.cost, default=None)


def _whole_pools(problem: Problem, c: ColumnIndex) -> list[Pool]:
    """Pools of a column that serve every workload, at no lower quality than asked."""
    column, workloads = problem.columns[c], tuple(map(WorkloadIndex, range(len(problem.demands))))
    if any(d.mean_quality is not None and column.quality.get(w, 0.0) < d.mean_quality for w, d in enumerate(problem.demands)):
        return []
    if workloads == (0,):
        return [Pool(c, workloads, {0: t.capacity}, t.replicas) for t in column.tiers.get(0, ())]
    return [Pool(c, workloads, dict(column.shared), 1)] if set(column.shared) == set(workloads) and not problem.rules.apart else []


def _on_offer(problem: Problem, pool: Pool, o: int) -> Solution | None:
    """The pool on one offer; None where that breaks a limit."""
    rules, offer = problem.rules, problem.offers[o]
    load = sum(d.rate / pool.capacity[w] for w, d in enumerate(problem.demands)) / rules.max_slo_load
    replicas = max(ceil(load * (1 - EXACT)), pool.replicas) + rules.spare_replicas
    chosen = ChosenPool(pool, ({o: replicas},), ({w: d.rate for w, d in enumerate(problem.demands)},))
    held = max(fewest_instances(problem, [chosen])[o], offer.minimum)
    if (offer.available is not None and held > offer.available) or any(cap.amount(offer) * held > cap.most for cap in rules.caps):
        return None
    return Solution(Status.FEASIBLE, held * offer.usd_per_hour, 0.0, 1.0, (chosen,), ({o: held},))
