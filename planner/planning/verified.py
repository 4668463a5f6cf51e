"""What stands between a plan and its reader: what was not searched is said, and the independent check has agreed."""

from __future__ import annotations

from collections.abc import Sequence

from planner.catalog.catalog import Catalog
from planner.errors import SolverError
from planner.program.problem import Status
from planner.result import cautions
from planner.result.plan import Plan
from planner.search.answer import Answer


def cut_short(plan: Plan, found: Answer, unsearched: Sequence[str]) -> Plan:
    """The plan, saying what the time limit left unsearched: then it is not proven to be the best."""
    late = [] if found.solution.status == Status.OPTIMAL else [cautions.unproven(found)]
    status = "feasible" if unsearched else plan.status
    return plan.model_copy(update={"status": status, "warnings": (*unsearched, *late, *plan.warnings)})


def verified(plan: Plan, catalog: Catalog | None) -> Plan:
    """The plan, if the independent check agrees. Raises SolverError otherwise."""
    from planner.check.check import check_plan

    report = check_plan(plan, catalog)
    if not report.ok:
        worst = report.breaches[0]
        raise SolverError(f"the plan fails its own check: {worst.name}, {worst.where}: {worst.what}", hint="please report this with the scenario")
    return plan
