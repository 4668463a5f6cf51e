"""The cheapest plan of numbers of any magnitude, where a replica is bought as one thing (single.py).

Solvers work to about 1e-7. So the program gets only what can be part of a plan no dearer than the best one counted without it, in units in which all
that is left has like magnitudes; what it answers is counted again, exactly; and where numbers remain that it cannot tell apart, nothing is called proven.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf

from planner.deadline import Deadline
from planner.errors import SolverError
from planner.program.covering import cover, share_out
from planner.program.model import Built, build
from planner.program.objective import polish
from planner.program.optimum import POLISH_NODES
from planner.program.pools import EXACT, counts_pools, pools
from planner.program.problem import ChosenPool, Column, Pool, Problem, Solution, Status, Tier
from planner.program.single import Assignment, ReplicaProblem, best_assignment
from planner.program.solver import Outcome, SolverOptions, optimise

ROUNDS = 6
LEAST_SHARE = 1e-7  # of a workload: a candidate that can take no more of it is none for it
OBJECTIVE = 1e4  # what the best known plan costs in the program's unit of money
FITS, FITS_REPLICAS = 2e-7, 1e-6  # a load by less than both (relative, and in replicas) above its replicas is the solver's tolerance
ALIKE = 1e4  # numbers no further apart are told apart by the solver at the first try
SURE = 2e-6  # relative: a bound is trusted this far

Part = tuple[tuple[int, int, tuple[int, ...]], ...]  # (candidate, most replicas, workloads) of what the program is about


def cheapest_at_any_scale(problem: Problem, options: SolverOptions) -> Solution:
    """The cheapest plan, with a status and bound that hold in exact numbers.

    The program is solved again, on what can be part of a plan as cheap as the last one, until that leaves nothing more out.
    """
    deadline, whole = Deadline.after(options.time_limit_s), ReplicaProblem.of(problem)
    counted = best_assignment(whole)
    best = _assigned(whole, counted) if counted else None
    last: tuple[Part, bool] | None = None  # what was asked, and whether a cost was known: without one, any plan will do
    outcome = Outcome(Status.UNKNOWN, inf, 0.0, inf, 0, 0)
    for _ in range(ROUNDS):
        part = _within(problem, whole, best.cost if best else inf)
        had_cost = best is not None or problem.rules.budget < inf
        if (part, had_cost) == last:
            break
        last = part, had_cost
        found, outcome = _asked(part, whole, best, options, deadline)
        if found is None or (best and found.cost >= best.cost * (1 - 1e-12)):
            break
        best = found
        if deadline.passed() or (had_cost and not _is_wide(part, whole)):
            break
    told = _told(best, outcome, options)
    return _tidier(told, problem, whole, replace(options, time_limit_s=deadline.left())) if told.status == Status.OPTIMAL else told


def _asked(part: Part, r: ReplicaProblem, best: Solution | None, options: SolverOptions, deadline: Deadline) -> tuple[Solution | None, Outcome]:
    """What the solver finds; asked a second time, carefully, where numbers are far apart or what it says cannot be true."""
    budget = r.problem.rules.budget
    cost = best.cost if best else budget if budget < inf else None
    if {w for _, _, serves in part for w in serves} != set(range(len(r.problem.demands))):
        return None, Outcome(Status.INFEASIBLE, inf, inf, 0.0, 0, 0)
    found, outcome = _solved(part, r, cost, replace(options, time_limit_s=deadline.left()))
    is_wrong = outcome.status == Status.UNKNOWN or (best is not None and not _is_possible(outcome, best))
    if deadline.passed() or not (is_wrong or _is_wide(part, r)):
        return found, outcome
    again, careful = _solved(part, r, cost, replace(options, time_limit_s=deadline.left(), careful=True))
    if is_wrong:
        return again, careful
    if careful.status != outcome.status:  # one of them errs, or came to no end: the plan counts, and no more is known
        better = min((s for s in (found, again) if s), key=lambda s: s.cost, default=None)
        return better, outcome if careful.status in (Status.FEASIBLE, Status.UNKNOWN) else replace(outcome, status=Status.UNKNOWN, bound=0.0)
    better = again if again and (found is None or again.cost < found.cost) else found
    return better, replace(outcome, bound=min(outcome.bound, careful.bound))


def _is_possible(outcome: Outcome, best: Solution) -> bool:
    """Whether what the solver says can be true where there is a plan: that it has one, and a bound not above it."""
    return outcome.status != Status.INFEASIBLE and outcome.bound <= best.cost * (1 + SURE)


def _tidier(best: Solution, problem: Problem, r: ReplicaProblem, options: SolverOptions) -> Solution:
    """The plan of the same cost with the fewest candidates, then GPUs, where the program knows which are in use and one is found soon."""
    if not counts_pools(problem, pools(problem)) or not options.time_limit_s:
        return best
    found, _ = _solved(_within(problem, r, best.cost), r, best.cost, replace(options, gap=0.0, nodes=POLISH_NODES), break_ties=True)
    if found is None or found.cost > best.cost * (1 + EXACT) or _size(found, r) >= _size(best, r):
        return best
    return replace(best, cost=found.cost, bound=min(best.bound, found.cost), pools=found.pools, holdings=found.holdings)


def _size(solution: Solution, r: ReplicaProblem) -> tuple[int, int]:
    """Candidates in use, and GPUs."""
    return len(solution.pools), sum(r.gpus[c.pool.column] * c.total for c in solution.pools)


def _told(best: Solution | None, said: Outcome, options: SolverOptions) -> Solution:
    """The best plan with what is proven of it."""
    nothing = Solution(Status.INFEASIBLE if said.status == Status.INFEASIBLE else Status.UNKNOWN)
    found = replace(best or nothing, variables=said.variables, constraints=said.constraints)
    if best is None:
        return found
    bound = min(said.bound, best.cost) if _is_possible(said, best) else 0.0
    gap = (best.cost - bound) / best.cost
    proven = gap <= options.gap + SURE and said.status == Status.OPTIMAL
    return replace(found, status=Status.OPTIMAL if proven else Status.FEASIBLE, bound=bound, gap=gap)


def _within(problem: Problem, r: ReplicaProblem, cutoff: float) -> Part:
    """(candidate, most replicas, workloads) that can be part of a plan no dearer than the cutoff."""
    found, spare, one = [], problem.rules.spare_replicas, problem.rules.pools_per_workload == 1
    for c, load in enumerate(r.load):
        most = r.most(c, cutoff)
        room = (most - spare) * (1 + EXACT)
        serves = tuple(w for w, x in load.items() if (x <= room if one else room > x * LEAST_SHARE))
        if most > spare and serves:
            found.append((c, most, serves))
    return tuple(found)


def _is_wide(part: Part, r: ReplicaProblem) -> bool:
    """Whether loads, or prices, are so far apart that leaving out what is not needed may tell the solver more."""
    loads, prices = [r.load[c][w] for c, _, serves in part for w in serves], [r.price[c] for c, _, _ in part]
    return any(max(found) > ALIKE * min(found) for found in (loads, prices))


def _solved(part: Part, r: ReplicaProblem, cost: float | None, options: SolverOptions, break_ties: bool = False) -> tuple[Solution | None, Outcome]:
    """The program of a part, its plan counted exactly in the indices of the whole, and what the solver said in $/h.

    cost: what is known to be enough; without it any plan will do, as prices may be too far apart to tell at once.
    """
    problem, unit = r.problem, (cost or 0.0) / OBJECTIVE
    columns, offers = [], []
    for i, (c, most, serves) in enumerate(part):
        columns.append(_restricted(problem.columns[c], i, serves))
        offer = problem.offers[problem.columns[c].offers[0]]
        offers.append(replace(offer, usd_per_hour=offer.usd_per_hour / unit if unit else 0.0, available=most))
    rules = replace(problem.rules, caps=tuple(replace(c, most=c.most / unit) if c.of == "usd" and unit else c for c in problem.rules.caps))
    built = build(replace(problem, columns=tuple(columns), offers=tuple(offers), rules=rules))
    if break_ties:
        polish(built.program, built.problem, built.pools, OBJECTIVE)
    load = cover(built)
    try:
        outcome = optimise(built.program, options, _scales(built))
    except SolverError:  # numbers too far apart for it
        outcome = Outcome(Status.UNKNOWN, inf, 0.0, inf, 0, 0)
    outcome = replace(outcome, objective=outcome.objective * unit, bound=outcome.bound * unit)
    if outcome.status not in (Status.OPTIMAL, Status.FEASIBLE):
        return None, outcome
    if load:
        share_out(built, load)
    return _counted(built, [c for c, _, _ in part], r), outcome


def _restricted(column: Column, offer: int, serves: tuple[int, ...]) -> Column:
    """A column for some of its workloads."""
    capacity = {w: column.shared[w] if w in column.shared else column.tiers[w][0].capacity for w in serves}
    alone = len(serves) == 1
    return replace(column, tiers={w: (Tier(1, mu),) for w, mu in capacity.items()} if alone else {}, shared={} if alone else capacity, offers=(offer,))


def _scales(built: Built) -> dict[int, float]:
    """Factors of shares of a workload (by id of the variable): a share that takes many replicas is counted in replicas."""
    m = built.program
    if m.whole:
        return {}
    return {id(m.x[w, p, 0]): load for w, p, _ in m.flow_keys if (load := built.problem.demands[w].rate / built.pools[p].capacity[w]) > 1}


def _counted(built: Built, columns: list[int], r: ReplicaProblem) -> Solution | None:
    """The incumbent with shares that add up to one and whole replicas counted from them; None where it does not keep the limits so."""
    m, problem, spare = built.program, r.problem, r.problem.rules.spare_replicas
    most = problem.rules.pools_per_workload or len(columns)
    shares: dict[int, dict[int, float]] = {}
    for w in range(len(problem.demands)):
        flows = sorted(((max(0.0, m.x[w, p, 0].value or 0.0), p) for _, p, _ in m.flow_by_workload[w, 0] if round(m.I[p, 0].value or 0) > spare), reverse=True)[
            :most
        ]
        here = [(x, p) for x, p in flows if x > 0]
        total = sum(x for x, _ in here)
        if total < 0.5:
            return None
        for x, p in here:
            if x / total >= LEAST_SHARE / 100:
                shares.setdefault(columns[built.pools[p].column], {})[w] = x / total
    sums = [sum(row.get(w, 0.0) for row in shares.values()) for w in range(len(problem.demands))]
    shares = {c: {w: x / sums[w] for w, x in row.items()} for c, row in sorted(shares.items())}
    loads = {c: sum(r.load[c][w] * x for w, x in row.items()) for c, row in shares.items()}
    counts = {c: r.needed(load - min(load * FITS, FITS_REPLICAS)) for c, load in loads.items()}
    return _solution(r, shares, counts) if r.excess(counts) <= 0 else None


def _assigned(r: ReplicaProblem, found: Assignment) -> Solution:
    shares: dict[int, dict[int, float]] = {}
    for w, c in enumerate(found.where):
        shares.setdefault(c, {})[w] = 1.0
    return _solution(r, dict(sorted(shares.items())), found.counts)


def _solution(r: ReplicaProblem, shares: dict[int, dict[int, float]], counts: dict[int, int]) -> Solution:
    """A plan of counts and shares as a solution, not proven to be the best."""
    problem = r.problem
    pool_of: dict[int, Pool] = {p.column: p for p in pools(problem)}
    chosen = tuple(
        ChosenPool(pool_of[c], ({problem.columns[c].offers[0]: counts[c]},), ({w: x * problem.demands[w].rate for w, x in row.items()},))
        for c, row in shares.items()
    )
    return Solution(Status.FEASIBLE, r.cost(counts), 0.0, 1.0, chosen, ({problem.columns[c].offers[0]: n for c, n in counts.items()},))
