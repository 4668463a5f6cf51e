"""The best solution over the locations a scenario may buy at, with a bound on all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf

from planner.candidates.columns import Formulation
from planner.deadline import Deadline
from planner.errors import TimeUp
from planner.program.bounds import lower_bounds, worthwhile
from planner.program.optimum import cheapest, ties_broken
from planner.program.places import LocalProblem, at_location, locations
from planner.program.problem import Solution, Status
from planner.program.solver import SolverOptions

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


def options_of(formulation: Formulation) -> SolverOptions:
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
    solution = cheapest(problem, options_of(formulation), break_ties) if problem.columns else Solution(Status.INFEASIBLE)
    return Answer(formulation, _as_far_as_known(solution, formulation), len(locations(problem)), 1)


def _as_far_as_known(solution: Solution, formulation: Formulation) -> Solution:
    """Where time did not suffice to look at every candidate no bound holds, and no plan found is not none there is."""
    if not formulation.unsettled:
        return solution
    return replace(solution, status=Status.FEASIBLE, bound=0.0, gap=1.0) if solution.found else replace(solution, status=Status.UNKNOWN)


def _one_location(formulation: Formulation, cutoff: float, break_ties: bool, first: bool) -> Answer:
    """Each location solved on its own, most promising bound first, under the cost of the best so far."""
    problem, options = formulation.problem, options_of(formulation)
    deadline = Deadline.after(options.time_limit_s)
    places = list(locations(problem).values())
    queue = sorted((bound, i) for i, bound in enumerate(lower_bounds(problem, places)) if bound < inf)
    best, best_part, unproven, sizes = Solution(Status.INFEASIBLE), None, inf, []
    for bound, i in queue:
        top = min(cutoff, best.cost)
        if bound > top * (1 + 1e-9) or (first and best.found):
            break
        if deadline.passed():
            unproven = min(unproven, bound)  # of all that follow, too
            break
        part = _capped(_worthwhile(at_location(problem, places[i]), top), top)
        if not part.problem.columns:
            continue
        found = cheapest(part.problem, replace(options, time_limit_s=deadline.left()), break_ties=False)
        sizes.append((found.variables, found.constraints))
        if found.status != Status.INFEASIBLE:
            unproven = min(unproven, found.bound if found.status == Status.OPTIMAL else max(found.bound, bound))
        if found.found and found.cost < best.cost - 1e-9:
            best, best_part = found, part
    variables, constraints = (sum(s[k] for s in sizes) for k in (0, 1))
    if best_part is None:
        nothing = Solution(Status.UNKNOWN if unproven < inf else Status.INFEASIBLE, variables=variables, constraints=constraints)
        return Answer(formulation, _as_far_as_known(nothing, formulation), len(places), len(sizes))
    best = ties_broken(best_part.problem, best, replace(options, time_limit_s=deadline.left())) if break_ties else best
    proven = _proven(_mapped(best, best_part), unproven, options, variables, constraints)
    return Answer(formulation, _as_far_as_known(proven, formulation), len(places), len(sizes))


def _proven(best: Solution, bound: float, options: SolverOptions, variables: int, constraints: int) -> Solution:
    """The solution with the bound and status that hold over all locations."""
    bound = min(bound, best.cost)
    gap = (best.cost - bound) / best.cost if best.cost else 0.0
    status = Status.OPTIMAL if gap <= options.gap + 1e-9 else Status.FEASIBLE
    return replace(best, status=status, bound=bound, gap=gap, variables=variables, constraints=constraints)


def _worthwhile(section: LocalProblem, cutoff: float) -> LocalProblem:
    """Without the columns that no plan below the cutoff can use."""
    keep = worthwhile(section.problem, cutoff)
    columns = tuple(section.problem.columns[c] for c in keep)
    return LocalProblem(replace(section.problem, columns=columns), tuple(section.columns[c] for c in keep), section.offers)


def _capped(section: LocalProblem, cutoff: float) -> LocalProblem:
    """The section with the best cost so far as its budget: a location that cannot beat it is soon known to be infeasible."""
    return replace(section, problem=replace(section.problem, rules=section.problem.rules.within(cutoff)))


def _mapped(solution: Solution, section: LocalProblem) -> Solution:
    """The solution in the indices of the whole problem."""

    def whole(counts: Mapping[int, int]) -> dict[int, int]:
        return {section.offers[o]: n for o, n in counts.items()}

    pools = tuple(replace(c, pool=replace(c.pool, column=section.columns[c.pool.column]), running=tuple(map(whole, c.running))) for c in solution.pools)
    return replace(solution, pools=pools, holdings=tuple(map(whole, solution.holdings)), started=tuple(map(whole, solution.started)))
