"""From problem to solution: build, solve, round, polish; and the smallest relaxation of one demand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from planner.deadline import Deadline
from planner.program.kinds import ColumnIndex, PoolIndex, StateIndex, Term, WorkloadIndex
from planner.program.losses import worst
from planner.program.model import Built, build
from planner.program.objective import polish
from planner.program.packing import fewest_instances
from planner.program.problem import ChosenPool, Pool, Problem, Solution, Status
from planner.program.single import one_pool
from planner.program.solver import Outcome, SolverOptions, optimise, relaxation
from planner.program.variables import pools_of_deployments
from planner.program.waiting import done

POLISH_WHOLE = 100  # flows up to which ties are broken over all offers; above, on the offers held
POLISH_NODES = 100  # tie-breaking is a courtesy: it must not take longer than the answer
EPSILON = 1e-7  # of a workload's rate: less traffic than this is none


def cheapest(problem: Problem, options: SolverOptions, break_ties: bool = True) -> Solution:
    """The cheapest plan of a problem, ties broken (``break_ties``) towards fewest pools, fewest GPUs, highest quality; pools of one checkpoint evenly."""
    deadline = Deadline.after(options.time_limit_s)
    built = build(problem)
    solution = _no_dearer(_solution(built, optimise(built.program, replace(options, time_limit_s=deadline.left()))), problem, options)
    if not break_ties:
        return solution
    return ties_broken(problem, solution, replace(options, time_limit_s=deadline.left())) if built.program.counted else _evened(problem, solution)


def _no_dearer(solution: Solution, problem: Problem, options: SolverOptions) -> Solution:
    """The solution; or the cheapest single pool where the solver found nothing or something dearer. A bound above it is none."""
    counted = one_pool(problem)
    if counted is None or counted.cost >= solution.cost * (1 - 1e-6):
        return solution
    bound = solution.bound if solution.bound <= counted.cost * (1 + 1e-6) else 0.0
    gap = max(0.0, (counted.cost - bound) / counted.cost)
    status = Status.OPTIMAL if solution.status == Status.OPTIMAL and gap <= options.gap + 1e-9 else Status.FEASIBLE
    return replace(counted, status=status, bound=min(bound, counted.cost), gap=gap, variables=solution.variables, constraints=solution.constraints)


def ties_broken(problem: Problem, solution: Solution, options: SolverOptions) -> Solution:
    """The tidiest plan of the same cost (of large problems: on the offers held), evenly loaded; the solution so where none is found soon."""
    if solution.status != Status.OPTIMAL or not options.time_limit_s:
        return _evened(problem, solution)
    better = _tidiest_of(problem, solution, options)
    if not better.found or better.cost > solution.cost * (1 + 1e-7) + 1e-7:
        return _evened(problem, solution)
    tidy = replace(solution, cost=better.cost, bound=min(solution.bound, better.cost), pools=better.pools, holdings=better.holdings, started=better.started)
    return _evened(problem, tidy)


def _tidiest_of(problem: Problem, solution: Solution, options: SolverOptions) -> Solution:
    small = sum(len(c.tiers) + len(c.shared) for c in problem.columns) <= POLISH_WHOLE
    here = [(i, tuple(o for o in c.offers if small or any(o in held for held in solution.holdings))) for i, c in enumerate(problem.columns)]
    kept = [(i, offers) for i, offers in here if offers or problem.columns[i].is_hosted]
    smaller = replace(problem, columns=tuple(replace(problem.columns[i], offers=offers) for i, offers in kept))
    built = build(smaller)
    polish(built.program, smaller, built.pools, solution.cost)
    found = _solution(built, optimise(built.program, replace(options, gap=0.0, nodes=POLISH_NODES)))
    whole = tuple(replace(c, pool=replace(c.pool, column=ColumnIndex(kept[c.pool.column][0]))) for c in found.pools)
    return replace(found, pools=whole)


def _evened(problem: Problem, solution: Solution) -> Solution:
    """The solution with what pools of one checkpoint serve of one workload spread by the room of each. In one state; what is shared stays.

    Every spread that fits costs as much and is as good, so which of them a solver finds depends on its version and the machine.
    """
    alike: dict[tuple[WorkloadIndex, str, float | None], list[int]] = {}
    for p, c in enumerate(solution.pools if problem.is_flat else ()):
        column, (w, *others) = problem.columns[c.pool.column], c.pool.workloads
        if not others and not column.is_hosted and c.pool.remain is None:
            alike.setdefault((w, column.checkpoint, column.quality.get(w)), []).append(p)
    pools = list(solution.pools)
    for (w, _, _), several in alike.items():
        sized = {p: _sized(problem, pools[p], w) for p in several}
        load = sum(pools[p].traffic[w] for p in several) / max(sum(room for _, room in sized.values()), EPSILON)
        for p, (pool, room) in sized.items() if len(several) > 1 and load <= 1 + EPSILON else ():
            pools[p] = replace(pools[p], pool=pool, flows=({w: load * room},))
    return replace(solution, pools=tuple(pools))


def _sized(problem: Problem, chosen: ChosenPool, w: WorkloadIndex) -> tuple[Pool, float]:
    """A pool of one workload at the capacity that its replicas give it, (4), and the most traffic that it may have then, (3) and (24)."""
    rules, column, total = problem.rules, problem.columns[chosen.pool.column], chosen.total
    left = total - max((worst(kind, problem, column.gpus, chosen.replicas)[0] for kind in rules.survives), default=0)
    working = total - rules.spare_replicas
    size = max((t for t in column.tiers[w] if t.replicas <= min(working, left)), key=lambda t: t.capacity, default=column.tiers[w][0])
    pool = replace(chosen.pool, capacity={w: size.capacity}, replicas=size.replicas)
    return pool, size.capacity * min(rules.max_slo_load * working, rules.load_after_loss * left)


def relaxed_cost(problem: Problem) -> tuple[float, dict[str, float]]:
    """Cost of the LP relaxation (whole replicas and instances not required), and duals of caps by name."""
    return relaxation(build(problem).program)


def least_relaxation(problem: Problem, relax: str, options: SolverOptions) -> Solution:
    """The plan that breaks one family of caps, or "demand", by least; ``slack`` says by how much."""
    built = build(problem, relax)
    return _solution(built, optimise(built.program, options))


def _solution(built: Built, outcome: Outcome) -> Solution:
    """Plain records of the incumbent, integers rounded, unused pools and instances dropped (a search cut short may hold some), cost counted anew."""
    if outcome.status not in (Status.OPTIMAL, Status.FEASIBLE):
        return Solution(outcome.status, bound=outcome.bound, gap=outcome.gap, variables=outcome.variables, constraints=outcome.constraints)
    m, problem = built.program, built.problem
    chosen = _chosen(built)
    slack = {f"{name}:{key}" if key else name: value for (name, key) in m.slack if (value := _value(m.slack[name, key])) > 1e-9}
    as_it_is = bool(slack) or len(m.s) > 0 or (problem.rules.changes is not None and problem.rules.changes.count)
    holdings = _alike(problem, tuple(_held(built, chosen, i, as_it_is) for i in range(len(problem.states))))
    cost = problem.cost(holdings, chosen)
    bound = min(outcome.bound, cost) if not slack else outcome.bound
    gap = max(0.0, (cost - bound) / cost) if cost else 0.0
    started = problem.started(holdings)
    return Solution(outcome.status, cost, bound, gap, chosen, holdings, started, slack, outcome.variables, outcome.constraints)


def _held(built: Built, chosen: tuple[ChosenPool, ...], i: int, as_it_is: bool) -> dict[int, int]:
    """Instances by offer in a state; no more than the replicas need, where it does not matter when they are started."""
    count = {o: round(_value(built.program.I[o, i])) for o in built.program.offer_keys}
    needed = count if as_it_is else fewest_instances(built.problem, chosen, StateIndex(i))
    offers = built.problem.offers
    kept = {o: max(min(count[o], needed[o]), offers[o].least) for o in count}
    return {o: max(n, offers[o].minimum) for o, n in kept.items() if n}


def _alike(problem: Problem, held: tuple[dict[int, int], ...]) -> tuple[dict[int, int], ...]:
    """What is committed held alike in each span, as many as the state of it that needs most does."""
    found = tuple(dict(now) for now in held)
    for o in (o for o, offer in enumerate(problem.offers) if offer.committed):
        for span in problem.spans_of(o):
            if most := max(held[i].get(o, 0) for i in span):
                for i in span:
                    found[i][o] = most
    return found


def _chosen(built: Built) -> tuple[ChosenPool, ...]:
    """The deployments that serve, pools of different sizes as one."""
    m, problem, states = built.program, built.problem, range(len(built.problem.states))
    sizes = pools_of_deployments(m)
    running = {d: tuple(_running(built, every, i) for i in states) for d, every in sizes.items()}
    waiting = done(m, problem, built.pools, {d: [sum(now.values()) for now in row] for d, row in running.items()}) if problem.waiting else {}
    flows = {d: tuple(_traffic(built, every, i) for i in states) for d, every in sizes.items()}
    found = (ChosenPool(built.pools[d], running[d], flows[d], waiting.get(d, {})) for d in sizes)
    return tuple(c for c in found if any(c.flows) or any(sum(row) for row in c.waiting.values()))


def _running(built: Built, sizes: Sequence[PoolIndex], i: int) -> dict[int, int]:
    m, offers = built.program, built.problem.columns[built.pools[sizes[0]].column].offers
    return {o: count for o in offers if (count := sum(round(_value(m.n[p, o, i])) for p in sizes))}


def _traffic(built: Built, sizes: Sequence[PoolIndex], i: int) -> dict[int, float]:
    m, pool = built.program, built.pools[sizes[0]]
    rate = {w: built.problem.demands[w].rates[i] for w in pool.workloads}
    if pool.need is not None:
        return {w: r for w, r in rate.items() if r > 0}
    shares = {w: sum(_value(m.x[w, p, i]) for p in sizes if (w, p, i) in m.x) for w in pool.workloads}
    return {w: x * rate[w] for w, x in shares.items() if x > EPSILON}


def _value(variable: Term) -> float:
    """The incumbent's value; 0 for a variable in no row."""
    return float(variable.value or 0.0)
