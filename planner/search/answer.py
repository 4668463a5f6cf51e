"""The best solution over the locations a scenario may buy at, with a bound on all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf

import numpy as np
from numpy.typing import NDArray

from planner.candidates.columns import Formulation
from planner.deadline import Deadline
from planner.errors import TimeUp
from planner.program.optimum import cheapest, ties_broken
from planner.program.problem import Column, Problem, Solution, Status
from planner.program.solver import SolverOptions

Floats = NDArray[np.float64]
ANY_GAP = 0.99  # where any plan will do


@dataclass(frozen=True)
class Answer:
    """A solution in the indices of its formulation; ``bound`` holds over all locations."""

    formulation: Formulation
    solution: Solution
    locations: int
    solved: int

    @property
    def found(self) -> bool:
        """Whether there is a plan."""
        return self.solution.found

    @property
    def cost(self) -> float:
        """$/h, infinite without a plan."""
        return self.solution.cost if self.found else inf


def limits_of(formulation: Formulation) -> SolverOptions:
    """Gap and seed of the formulation's scenario, and the time that is left for it."""
    s = formulation.scenario.solver
    return SolverOptions(s.gap, min(s.time_limit, formulation.deadline.left()), s.seed)


def any_plan(formulation: Formulation) -> Answer:
    """The first plan found that meets all demands, if there is one. Raises TimeUp where the time left did not suffice to know."""
    quick = formulation.scenario.solver.model_copy(update={"gap": ANY_GAP})
    found = answer(replace(formulation, scenario=formulation.scenario.model_copy(update={"solver": quick})), break_ties=False, first=True)
    if not found.found and found.solution.status == Status.UNKNOWN and formulation.deadline.passed():
        raise TimeUp()
    return found


def has_plan(formulation: Formulation) -> bool:
    """Whether any plan meets all demands. Raises TimeUp where the time left did not suffice to know."""
    return any_plan(formulation).found


def answer(formulation: Formulation, cutoff: float = inf, break_ties: bool = True, first: bool = False) -> Answer:
    """The cheapest solution of a formulation.

    With one location allowed each is a program of its own: they are solved in the order of a cost bound, until the bound
    of the rest exceeds the best found. cutoff: cost above which nothing is of interest. break_ties: break ties. first: stop at the first plan.
    """
    problem = formulation.problem
    if problem.rules.max_locations == 1:
        return _one_location(formulation, min(cutoff, problem.rules.budget), break_ties, first)
    solution = cheapest(problem, limits_of(formulation), break_ties) if problem.columns else Solution(Status.INFEASIBLE)
    return Answer(formulation, _as_far_as_known(solution, formulation), len(_locations(problem)), 1)


def _as_far_as_known(solution: Solution, formulation: Formulation) -> Solution:
    """Where time did not suffice to look at every candidate no bound holds, and no plan found is not none there is."""
    if not formulation.unsettled:
        return solution
    return replace(solution, status=Status.FEASIBLE, bound=0.0, gap=1.0) if solution.found else replace(solution, status=Status.UNKNOWN)


def _one_location(formulation: Formulation, cutoff: float, break_ties: bool, first: bool) -> Answer:
    """Each location solved on its own, most promising bound first, under the cost of the best so far."""
    problem, limits = formulation.problem, limits_of(formulation)
    deadline = Deadline.after(limits.time_limit_s)
    places = list(_locations(problem).values())
    queue = sorted((bound, i) for i, bound in enumerate(_lower_bounds(problem, places)) if bound < inf)
    best, best_part, unproven, sizes = Solution(Status.INFEASIBLE), None, inf, []
    for bound, i in queue:
        top = min(cutoff, best.cost)
        if bound > top * (1 + 1e-9) or (first and best.found):
            break
        if deadline.passed():
            unproven = min(unproven, bound)  # of all that follow, too
            break
        part = _capped(_within_bound(_part(problem, places[i]), top), top)
        if not part.problem.columns:
            continue
        found = cheapest(part.problem, replace(limits, time_limit_s=deadline.left()), break_ties=False)
        sizes.append((found.variables, found.constraints))
        if found.status != Status.INFEASIBLE:
            unproven = min(unproven, found.bound if found.status == Status.OPTIMAL else max(found.bound, bound))
        if found.found and found.cost < best.cost - 1e-9:
            best, best_part = found, part
    variables, constraints = (sum(s[k] for s in sizes) for k in (0, 1))
    if best_part is None:
        nothing = Solution(Status.UNKNOWN if unproven < inf else Status.INFEASIBLE, variables=variables, constraints=constraints)
        return Answer(formulation, _as_far_as_known(nothing, formulation), len(places), len(sizes))
    best = ties_broken(best_part.problem, best, replace(limits, time_limit_s=deadline.left())) if break_ties else best
    proven = _proven(_mapped(best, best_part), unproven, limits, variables, constraints)
    return Answer(formulation, _as_far_as_known(proven, formulation), len(places), len(sizes))


def _proven(best: Solution, bound: float, limits: SolverOptions, variables: int, constraints: int) -> Solution:
    """The solution with the bound and status that hold over all locations."""
    bound = min(bound, best.cost)
    gap = (best.cost - bound) / best.cost if best.cost else 0.0
    status = Status.OPTIMAL if gap <= limits.gap + 1e-9 else Status.FEASIBLE
    return replace(best, status=status, bound=bound, gap=gap, variables=variables, constraints=constraints)


@dataclass(frozen=True)
class LocalProblem:
    """A problem on some of the offers and columns, with the indices these have in the whole."""

    problem: Problem
    columns: tuple[int, ...]
    offers: tuple[int, ...]


def sections(problem: Problem) -> list[LocalProblem]:
    """The problem at each of its locations."""
    return [_part(problem, offers) for offers in _locations(problem).values()]


def _locations(problem: Problem) -> dict[str, list[int]]:
    """Offers by location, in the order of the offers. Those of no location stand alone, and beside each."""
    found: dict[str, list[int]] = {}
    for o, offer in enumerate(problem.offers):
        found.setdefault(offer.location, []).append(o)
    anywhere = found.pop("", [])
    return ({"": anywhere} if anywhere else {}) | {place: sorted((*anywhere, *offers)) for place, offers in found.items()}


def _part(problem: Problem, offers: list[int]) -> LocalProblem:
    """The problem at one location."""
    place = {o: i for i, o in enumerate(offers)}
    columns = [(c, tuple(place[o] for o in column.offers if o in place)) for c, column in enumerate(problem.columns)]
    here = [(c, hosts) for c, hosts in columns if hosts]
    part = replace(
        problem,
        columns=tuple(replace(problem.columns[c], offers=hosts) for c, hosts in here),
        offers=tuple(problem.offers[o] for o in offers),
        rules=replace(problem.rules, max_locations=None),
    )
    return LocalProblem(part, tuple(c for c, _ in here), tuple(offers))


def _lower_bounds(problem: Problem, places: list[list[int]]) -> list[float]:
    """Cost that no plan at a location is below, for each: fractional replicas at the lowest price per GPU. Infinite if a workload has no column.

    A plan that holds nothing of the location itself is one of the section without a location.
    """
    price = _prices(problem, places)
    held = [min((problem.offers[o].usd_per_hour for o in offers if problem.offers[o].location), default=0.0) for offers in places]
    if len(problem.demands) == 1 and problem.rules.pools_per_workload == 1:
        found = _bounds_of_one_pool(problem, places, price)
    else:
        found = _fractional_bounds(problem, price)
    return [max(bound, least) for bound, least in zip(found, held, strict=True)]


def _prices(problem: Problem, places: list[list[int]]) -> Floats:
    """[column, location]: the lowest price per GPU, infinite where nothing hosts the column."""
    at = [[i for i, offers in enumerate(places) if o in offers] for o in range(len(problem.offers))]
    unit = [o.usd_per_hour / o.gpus for o in problem.offers]
    hosts = dict.fromkeys(column.offers for column in problem.columns)
    for offers in hosts:
        row = np.full(len(places), inf)
        for o in offers:
            for i in at[o]:
                row[i] = min(row[i], unit[o])
        hosts[offers] = row
    return np.array([hosts[column.offers] for column in problem.columns]).reshape(len(problem.columns), len(places))


def _bounds_of_one_pool(problem: Problem, places: list[list[int]], price: Floats) -> list[float]:
    """Per location: what the only pool costs at least."""
    gpus = np.array([_least_gpus(problem, c) for c in problem.columns])
    able = np.isfinite(gpus)
    found = [float(b) for b in np.min(gpus[able, None] * price[able], axis=0, initial=inf)]
    for i, offers in enumerate(places):  # where only so many GPUs can be had, the cheapest may not be enough
        if any(problem.offers[o].available is not None for o in offers):
            found[i] = min((_least_cost(part, c, 0) for part in [_part(problem, offers).problem] for c in part.columns), default=inf)
    return found


def _fractional_bounds(problem: Problem, price: Floats) -> list[float]:
    """Per location: for traffic that may be split and share pools; under a mean quality the cheapest blend of two columns."""
    gpus, spare = np.array([c.gpus for c in problem.columns], dtype=float), problem.rules.spare_replicas
    replica = np.min(gpus[:, None] * price, axis=0, initial=inf)  # the cheapest there is
    served = np.zeros(price.shape[1])
    for w, demand in enumerate(problem.demands):
        most = np.array([max([*(t.capacity for t in c.tiers.get(w, ())), c.shared.get(w, 0.0)], default=0.0) for c in problem.columns])
        surplus = np.array([c.quality.get(w, 0.0) - (demand.mean_quality or 0.0) for c in problem.columns])
        for i in range(len(served)):
            able = (most > 0) & np.isfinite(price[:, i])
            cost = demand.rate / (most[able] * problem.rules.max_slo_load) * gpus[able] * price[able, i]
            served[i] += _cheapest_blend(cost, surplus[able])
    return [float(b) for b in np.maximum((1 + spare) * replica, (spare * replica if spare else 0.0) + served)]


def _least_cost(problem: Problem, column: Column, w: int) -> float:
    """A bound on the cost of serving one workload's demand with one column."""
    if w not in column.tiers:
        return inf
    if problem.rules.pools_per_workload == 1 and len(problem.demands) == 1:
        gpus = _least_gpus(problem, column)
        return _cost_of_gpus(problem, column, gpus) if gpus < inf else inf
    best = max(t.capacity for t in column.tiers[w])
    return problem.demands[w].rate / (best * problem.rules.max_slo_load) * column.gpus * _usd_per_gpu(problem, column)


def _least_gpus(problem: Problem, column: Column) -> float:
    """GPUs that the only pool takes at least if it is of this column, infinite where it cannot be."""
    if 0 not in column.tiers:
        return inf
    rules, tiers = problem.rules, column.tiers[0]
    replicas = max(problem.demands[0].rate / (max(t.capacity for t in tiers) * rules.max_slo_load), tiers[0].replicas + rules.spare_replicas)
    return replicas * column.gpus if replicas * column.gpus <= _most_gpus(problem, column) * (1 + 1e-9) else inf


def _most_gpus(problem: Problem, column: Column) -> float:
    """GPUs of a column's offers that caps on other things than money let be held; infinite without any."""
    offers = [problem.offers[o] for o in column.offers]
    each = [(cap.most, min(cap.amount(o) / o.gpus for o in offers)) for cap in problem.rules.caps if cap.of != "usd"]
    return min((most / per_gpu for most, per_gpu in each if per_gpu), default=inf)


def _cheapest_blend(cost: Floats, surplus: Floats) -> float:
    """Least cost of a mix whose surplus of quality is not negative: one column, or two that balance."""
    good, poor = surplus >= 0, surplus < 0
    if not good.any():
        return inf
    best = float(cost[good].min())
    if poor.any():
        share = -surplus[poor][None] / (surplus[good][:, None] - surplus[poor][None])
        best = min(best, float((share * cost[good][:, None] + (1 - share) * cost[poor][None]).min()))
    return best


def _cost_of_gpus(problem: Problem, column: Column, gpus: float) -> float:
    """$/h that so many GPUs cost a column at least: the cheapest first, as many as there are; infinite where there are too few."""
    cost = 0.0
    for offer in sorted((problem.offers[o] for o in column.offers), key=lambda o: o.usd_per_hour / o.gpus):
        here = gpus if offer.available is None else min(gpus, offer.available * offer.gpus)
        cost, gpus = cost + here * offer.usd_per_hour / offer.gpus, gpus - here
        if gpus <= 0:
            return cost
    return cost if gpus <= 1e-9 else inf


def _usd_per_gpu(problem: Problem, column: Column) -> float:
    return min(problem.offers[o].usd_per_hour / problem.offers[o].gpus for o in column.offers)


def _within_bound(section: LocalProblem, cutoff: float) -> LocalProblem:
    """For one workload: without the columns that no plan below the cutoff can use."""
    problem = section.problem
    if len(problem.demands) > 1 or cutoff == inf or problem.demands[0].mean_quality is not None:
        return section
    top = cutoff * (1 + 1e-9)
    if problem.rules.pools_per_workload == 1:
        keep = [i for i, c in enumerate(problem.columns) if _least_cost(problem, c, 0) <= top]
    else:
        # A pool wastes at least what its one replica costs more than its traffic would at the best rate of any column.
        rate, per_unit = problem.demands[0].rate, [_least_cost(problem, c, 0) / problem.demands[0].rate for c in problem.columns]
        spare = top - rate * min(per_unit)
        most = top / (1 + problem.rules.spare_replicas)  # that one replica of a pool may cost
        keep = [i for i, c in enumerate(problem.columns) if c.gpus * _usd_per_gpu(problem, c) <= most and _replica_waste(problem, c, min(per_unit)) <= spare]
    return LocalProblem(replace(problem, columns=tuple(problem.columns[i] for i in keep)), tuple(section.columns[i] for i in keep), section.offers)


def _capped(section: LocalProblem, cutoff: float) -> LocalProblem:
    """The section with the best cost so far as its budget: a location that cannot beat it is soon known to be infeasible."""
    return replace(section, problem=replace(section.problem, rules=section.problem.rules.within(cutoff)))


def _replica_waste(problem: Problem, column: Column, usd_per_unit: float) -> float:
    """What one replica costs beyond the value of all it can carry."""
    per_gpu = _usd_per_gpu(problem, column)
    most = max(t.capacity for t in column.tiers[0]) * problem.rules.max_slo_load
    return column.gpus * per_gpu - most * usd_per_unit


def _mapped(solution: Solution, section: LocalProblem) -> Solution:
    """The solution in the indices of the whole problem."""

    def whole(counts: Mapping[int, int]) -> dict[int, int]:
        return {section.offers[o]: n for o, n in counts.items()}

    pools = tuple(replace(c, pool=replace(c.pool, column=section.columns[c.pool.column]), running=tuple(map(whole, c.running))) for c in solution.pools)
    return replace(solution, pools=pools, holdings=tuple(map(whole, solution.holdings)), started=tuple(map(whole, solution.started)))
