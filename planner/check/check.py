"""The independent check of a plan: what holds is derived again from scenario, catalogue and plan, without the program.

Nothing here uses what made the plan (candidates, program, planning); it shares only the records, the catalogue and the physics.
"""

from __future__ import annotations

from collections.abc import Callable

from planner.catalog.catalog import Catalog
from planner.check.beside import beside
from planner.check.candidate import candidate
from planner.check.capacity import capacity, memory
from planner.check.case import Case, rebuild
from planner.check.command import command
from planner.check.cost import cost
from planner.check.demand import demand, structure
from planner.check.evidence import evidence
from planner.check.findings import Breach, Finding, Report, attempted
from planner.check.packing import packing
from planner.check.prudent import prudent
from planner.check.quality import quality
from planner.check.service import slo
from planner.check.supply import held_caps, offers, policy, solver
from planner.check.tables import check_tables
from planner.result.plan import Plan
from planner.scenario.apply import catalog_for

__all__ = ["FAMILIES", "Breach", "Report", "check_plan"]

FAMILIES: tuple[Callable[[Case], Finding], ...] = (
    demand,  # all traffic is routed
    candidate,  # what is deployed exists, may serve and runs
    memory,  # it fits
    capacity,  # it carries its traffic at the replicas there are
    evidence,  # how it is known, and what that costs
    command,  # what is started is what is planned
    slo,  # every limit holds at the predicted service
    quality,  # floors and means
    offers,  # what is bought can be bought, at that price
    packing,  # replicas stand on the instances held
    held_caps,  # quotas, caps, budget
    policy,  # models, GPU types, locations, pools
    cost,  # to the cent
    solver,  # bound, gap, status
    beside,  # alternatives, hosted APIs, headroom, what binds
    prudent,  # the bridge to the plan fit to sign
)


def check_plan(plan: Plan, catalog: Catalog | None) -> Report:
    """Everything that does not hold of a plan, and what was verified. A plan from the user's own tables needs no catalogue."""
    scenario = plan.scenario
    if scenario.tables.capacities:
        return _report(check_tables(plan, scenario))
    if catalog is None:
        return Report((Breach("catalogue", "catalog_hash", "there is no catalogue to check with"),), ())
    shape = structure(plan, scenario)
    if shape.breaches:
        return _report([shape])
    try:
        case = rebuild(plan, scenario, catalog_for(catalog, scenario))
    except ArithmeticError as error:
        return _report([shape, Finding((Breach("structure", "deployments", f"cannot be rebuilt from what the plan states: {error}"),), "not rebuilt")])
    return _report([shape, _catalogue(plan, catalog), *(attempted(family, case) for family in FAMILIES)])


def _catalogue(plan: Plan, catalog: Catalog) -> Finding:
    """Whether the plan was made with this catalogue; if not, the rest is checked against this one all the same."""
    breach = Breach("catalogue", "catalog_hash", f"made with catalogue {plan.catalog_hash}, checked with {catalog.hash}")
    return Finding(() if plan.catalog_hash == catalog.hash else (breach,), f"catalogue: {catalog.hash}")


def _report(findings: list[Finding]) -> Report:
    return Report(tuple(b for f in findings for b in f.breaches), tuple(f.check for f in findings))
