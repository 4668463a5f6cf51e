"""The program's table of contents: variables, one family of constraints after another, objective.

minimise the cost of what is held and started, (1), subject to the families named below; sets and symbols as in docs/program.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyomo.core.base.PyomoModel import ConcreteModel

from planner.program import capacity, changes, commitments, demand, losses, objective, packing, policy, quality, risk, starts, use, variables, waiting
from planner.program.kinds import Model
from planner.program.pools import counts_pools, pools
from planner.program.problem import Pool, Problem


@dataclass(frozen=True)
class Built:
    """A program ready to solve, with the pools its indices stand for."""

    program: Model  # pyomo ConcreteModel (Pyomo ships no types)
    problem: Problem
    pools: tuple[Pool, ...]


def build(problem: Problem, relax: str | None = None) -> Built:
    """The Pyomo program of a problem.

    relax: family of caps, or "demand", that may be broken; then the objective is by how little.
    """
    all_pools = pools(problem, sized=relax != "demand")
    m = ConcreteModel()
    variables.declare(m, problem, all_pools, counted=counts_pools(problem, all_pools), relax=relax)
    demand.define(m, problem, all_pools)
    capacity.define(m, problem, all_pools)
    packing.define(m, problem, all_pools)
    quality.define(m, problem, all_pools)
    use.define(m, problem, all_pools)
    policy.define(m, problem, all_pools)
    losses.define(m, problem, all_pools)
    commitments.define(m, problem)
    changes.define(m, problem)
    if not problem.is_flat:
        starts.define(m, problem, all_pools)
        waiting.define(m, problem, all_pools)
    risk.define(m, problem, all_pools)
    objective.define(m, problem, all_pools, relax)
    return Built(m, problem, all_pools)
