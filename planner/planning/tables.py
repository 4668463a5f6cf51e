"""Plans from the user's own tables of capacities and demand: the same program, nothing looked up."""

from __future__ import annotations

from dataclasses import replace

from planner.candidates.tables import TableProblem, read_tables
from planner.deadline import Deadline
from planner.errors import SolverError, TimeUp
from planner.planning.infeasible import Infeasible, tables_infeasible
from planner.program.kinds import ColumnIndex
from planner.program.problem import ChosenPool, Solution, Status
from planner.program.solver import SolverOptions
from planner.program.solver import version as highs_version
from planner.program.wide import cheapest_at_any_scale
from planner.result.assemble import whole_plan
from planner.result.deploy import purchase
from planner.result.plan import Deployment, HostedOn, Plan, PlanDemand, PlanWorkload, Route, SolverReport
from planner.result.unit_costs import cost_of
from planner.scenario.own import OwnCandidate, offered
from planner.scenario.records import Scenario
from planner.scenario.sources import Origins


def solve_tables(scenario: Scenario, origins: Origins, deadline: Deadline) -> Plan:
    """The cheapest plan of two tables. Raises Infeasible, ScenarioError and SolverError as ``solve`` does."""
    from planner.planning.verified import verified

    tables = read_tables(scenario)
    if tables.unserved:
        raise Infeasible(f"no candidate serves {', '.join(tables.unserved)} (no row in {scenario.tables.capacities})", (), {})
    limits = SolverOptions(scenario.solver.gap, deadline.left(), scenario.solver.seed)
    solution = cheapest_at_any_scale(tables.problem, limits)
    if solution.status == Status.UNKNOWN:
        where, hint = scenario.tables.capacities or "", "leave out candidates that are far too small or too dear"
        raise TimeUp() if deadline.passed() else SolverError("the numbers are too far apart for the solver", where, hint)
    if not solution.found:
        raise tables_infeasible(tables.problem, scenario, replace(limits, gap=0.0), deadline)
    return verified(_plan(scenario, tables, solution, origins, deadline), None)


def _plan(scenario: Scenario, tables: TableProblem, solution: Solution, origins: Origins, deadline: Deadline) -> Plan:
    pools = sorted(solution.pools, key=lambda c: c.pool.column)
    order = {c.pool.column: i for i, c in enumerate(pools)}
    candidates = [tables.own.candidates[c.pool.column] for c in pools]
    bought = [purchase(offered(own), solution.held[c.pool.column], c.total * own.gpus) for own, c in zip(candidates, pools, strict=True)]
    used = sum(c.total * own.usd_per_hour for own, c in zip(candidates, pools, strict=True))
    return whole_plan(
        scenario,
        origins,
        tables.own.hash,
        own=tables.own,
        is_proven=solution.status == Status.OPTIMAL,
        gap=solution.gap,
        bound_usd_per_hour=solution.bound,
        supply=f"own capacities and prices from {scenario.tables.capacities}",
        cost=cost_of(bought, used, [(d.rate, 0.0, 0.0) for d in tables.problem.demands]),
        purchases=bought,
        deployments=[_deployment(scenario, own, c, i) for i, (own, c) in enumerate(zip(candidates, pools, strict=True))],
        workloads=tuple(_workload(w, tables, pools, order) for w in range(len(tables.classes))),
        defaults=("prices and capacities as given: nothing is packed, pooled or discounted",),
        warnings=_unproven(solution, deadline) + tuple(f"class '{name}' has capacities but no demand" for name in tables.unused),
        solver=SolverReport(
            version=highs_version(),
            candidates=len(tables.own.candidates),
            candidates_after_pruning=len(tables.problem.columns),
            variables=solution.variables,
            constraints=solution.constraints,
            locations=1,
            locations_solved=1,
        ),
    )


def _unproven(solution: Solution, deadline: Deadline) -> tuple[str, ...]:
    """Why a plan is not proven."""
    if solution.status == Status.OPTIMAL:
        return ()
    if deadline.passed():
        return (f"the search was stopped by the time limit: a plan up to {solution.gap:.1%} cheaper is not ruled out (raise --time-limit)",)
    return ("not proven: the numbers of the tables are further apart than the solver can tell, and this is the best of the plans counted without it",)


def _deployment(scenario: Scenario, candidate: OwnCandidate, c: ChosenPool, i: int) -> Deployment:
    k = scenario.policy.spare_replicas
    busy = sum(x / c.pool.capacity[w] for w, x in c.traffic.items())
    return Deployment(
        model=candidate.name,
        checkpoint=candidate.name,
        mode="",
        precision="",
        engine="",
        gpu=candidate.gpu,
        tp=candidate.gpus,
        pp=1,
        replicas=c.total,
        gpus=c.total * candidate.gpus,
        max_num_seqs=0,
        capacity_qps_per_replica=sum(c.traffic.values()) / busy,
        qps=sum(c.traffic.values()),
        slo_load=busy / (c.total - k),
        slo_load_one_replica_lost=busy / (c.total - 1) if c.total > 1 else None,
        usd_per_hour=c.total * candidate.usd_per_hour,
        hosts=(HostedOn(purchase=i, replicas=c.total),),
    )


def _workload(w: int, tables: TableProblem, pools: list[ChosenPool], order: dict[ColumnIndex, int]) -> PlanWorkload:
    rate = tables.problem.demands[w].rate
    routes = [(order[c.pool.column], c.traffic[w]) for c in pools if w in c.traffic]
    total = sum(x for _, x in routes)
    return PlanWorkload(
        name=tables.classes[w],
        demand=PlanDemand(kind="qps", value=rate),
        qps=rate,
        concurrency=None,
        routing=tuple(Route(deployment=i, share=x / total, qps=x / total * rate) for i, x in routes),
    )
