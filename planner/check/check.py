"""The independent check of a plan: what holds is derived again from scenario, catalogue and plan, without the program.

Nothing here uses what made the plan (candidates, program, planning); it shares only the records, the catalogue and the physics.
"""

from __future__ import annotations

from collections.abc import Callable

from planner.catalog.catalog import Catalog
from planner.check.beside import beside
from planner.check.candidate import candidate
from planner.check.capacity import capacity, memory
from planner.check.cascade import cascade, tells_of_cascades
from planner.check.case import Case, rebuild
from planner.check.changes import changes
from planner.check.command import command
from planner.check.cost import cost, split
from planner.check.demand import demand
from planner.check.evidence import evidence
from planner.check.findings import Breach, Finding, Report, attempted
from planner.check.hosted import hosted
from planner.check.packing import packing
from planner.check.periods import everyone, held, loads, over_hours
from planner.check.power import power
from planner.check.prudent import prudent
from planner.check.quality import quality
from planner.check.redundancy import asks_of_losses, redundancy
from planner.check.seen import seen
from planner.check.service import slo
from planner.check.shed import shed
from planner.check.structure import structure
from planner.check.supply import held_caps, offers, policy, solver
from planner.check.tables import check_tables
from planner.result.busiest import at_busiest
from planner.result.plan import Plan
from planner.scenario.apply import catalog_for

__all__ = ["Breach", "Report", "check_plan"]

Family = Callable[[Case], Finding]
ALONE: tuple[Family, ...] = (  # of each deployment: by the hour in its busiest period
    demand,  # all traffic is routed
    candidate,  # what is deployed exists, may serve and runs
    memory,  # it fits
    capacity,  # it carries its traffic at the replicas there are
    evidence,  # how it is known, and what that costs
    command,  # what is started is what is planned
    slo,  # every limit holds at the predicted service
    seen,  # of which each deployment states parts and bands
    quality,  # floors and means
    hosted,  # what APIs serve, at their prices
    shed,  # and what nobody serves
)
WHOLE: tuple[Family, ...] = (  # in every period
    offers,  # what is bought can be bought, at that price
    packing,  # replicas stand on the instances held
    held_caps,  # quotas, caps, budget
    policy,  # models, GPU types, locations, pools
    cost,  # to the cent
    power,  # kW, carbon, and what is charged for it
    changes,  # from today's fleet
    solver,  # bound, gap, status
)
HOURLY: tuple[Family, ...] = (
    over_hours,  # rates and waiting requests
    loads,  # every hour's traffic
    hosted,  # and what APIs have of it
    held,  # starts
)
COMPARED: tuple[Family, ...] = (
    split,  # to workloads and kinds of tokens
    beside,  # alternatives, hosted APIs, headroom, what binds
    prudent,  # the bridge to the plan fit to sign
)


def check_plan(plan: Plan, catalog: Catalog | None) -> Report:
    """Everything that does not hold of a plan, and what was verified. A plan from the user's own tables needs no catalogue."""
    scenario = plan.scenario
    if scenario.tables.capacities:
        return _report(check_tables(plan))
    if catalog is None:
        return Report((Breach("catalogue", "catalog_hash", "there is no catalogue to check with"),), ())
    shape = structure(plan, scenario)
    if shape.breaches:
        return _report([shape])
    supposed = catalog_for(catalog, scenario)
    try:
        case = rebuild(plan, everyone(scenario) if plan.periods else scenario, supposed)
        alone = _alone(plan, supposed) if plan.periods else [attempted(family, case) for family in ALONE]
    except ArithmeticError as error:
        return _report([shape, Finding((Breach("structure", "deployments", f"cannot be rebuilt from what the plan states: {error}"),), "not rebuilt")])
    families = (*HOURLY, *WHOLE, prudent) if plan.periods else (*WHOLE, *COMPARED)
    families += (redundancy,) if asks_of_losses(plan) else ()
    families += (cascade,) if tells_of_cascades(plan) else ()
    return _report([shape, _catalogue(plan, catalog), *alone, *(attempted(family, case) for family in families)])


def _alone(plan: Plan, supposed: Catalog) -> list[Finding]:
    """What does not hold of each deployment in its busiest period."""
    found: list[Breach] = []
    for i in range(len(plan.deployments)):
        view = at_busiest(plan, i)
        case = rebuild(view, view.scenario, supposed)
        found += [Breach(b.name, f"deployment {i} alone: {b.where}", b.what) for family in ALONE for b in attempted(family, case).breaches]
    return [Finding(tuple(found), f"{len(plan.deployments)} deployments: each holds as a plan of its own in its busiest hour")]


def _catalogue(plan: Plan, catalog: Catalog) -> Finding:
    """Whether the plan was made with this catalogue; if not, the rest is checked against this one all the same."""
    breach = Breach("catalogue", "catalog_hash", f"made with catalogue {plan.catalog_hash}, checked with {catalog.hash}")
    return Finding(() if plan.catalog_hash == catalog.hash else (breach,), f"catalogue: {catalog.hash}")


def _report(findings: list[Finding]) -> Report:
    return Report(tuple(b for f in findings for b in f.breaches), tuple(f.check for f in findings))
