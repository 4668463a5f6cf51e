"""`plan contract`: what to commit to now and what to buy by the hour, over months and futures; checked before it is returned.

What may be decided later is decided later in the program (on-demand and spot instances in every state), so the commitments are those of least expected cost.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from math import inf

from planner.candidates.offers import with_known_names
from planner.catalog.catalog import Catalog
from planner.catalog.load import load_catalog
from planner.catalog.records import Offer
from planner.deadline import Deadline
from planner.errors import SolverError
from planner.planning.contract_question import Found, require_modelled, searched
from planner.planning.contract_worth import Worth, worth_of
from planner.program.problem import Problem
from planner.program.risk import dearest
from planner.result.assemble import assemble
from planner.result.contract import Commitment, Contract, ContractLine, ContractState, FutureOutcome
from planner.result.plan import Plan
from planner.scenario.change import assumed
from planner.scenario.outlook import MONTHS, Outlook
from planner.scenario.records import Scenario
from planner.scenario.sources import Origins
from planner.scenario.units import HOURS_PER_MONTH
from planner.search import contract as search
from planner.search.hours import busiest
from planner.search.prudent import careful
from planner.version import planner_version

SEARCH = 0.5  # of the time limit


def contract(scenario: Scenario, outlook: Outlook, catalog: Catalog | None = None, *, origins: Origins | None = None) -> Contract:
    """The contract of least expected cost, with what it is worth, checked independently.

    Raises Infeasible when nothing serves all states, ScenarioError and CatalogError for unusable input, SolverError when none was found in time.
    """
    require_modelled(scenario)
    catalog, deadline = catalog or load_catalog(scenario.catalog), Deadline.after(scenario.solver.time_limit)
    scenario = careful(with_known_names(scenario, catalog))
    found = searched(scenario, outlook, catalog, deadline.share(SEARCH))
    view = search.by_offer(found.best)
    unlimited = assumed(found.points.survey.scenario, "policy", budget=None)  # which is kept at terms' prices, and a deployment alone is at those by the hour
    alone = replace(found.points.survey, scenario=unlimited)
    parts = tuple(assemble(*busiest(p, view, found.field, found.asked.hourly, alone), origins or {}) for p in range(len(view.pools)))
    written = _written(found, scenario, parts, worth_of(found, parts, scenario, catalog, deadline))
    from planner.check.contract import check_contract

    report = check_contract(written, catalog)
    if not report.ok:
        worst = report.breaches[0]
        raise SolverError(f"the contract fails its own check: {worst.name}, {worst.where}: {worst.what}", hint="please report this with the scenario")
    return written


def _written(found: Found, scenario: Scenario, parts: tuple[Plan, ...], worth: Worth) -> Contract:
    best, horizon, outlook = found.best, found.asked.horizon, found.asked.outlook
    solution, hours = best.solution, horizon.total_hours
    lines = tuple(_line(found, o) for o in range(len(best.offers)))
    states = tuple(
        ContractState(
            replicas=tuple(dict(sorted(c.running[i].items())) for c in solution.pools), instances=dict(sorted(solution.holdings[i].items())),
            started=dict(sorted(solution.started[i].items())),
        )
        for i in range(len(horizon.states))
    )  # fmt: skip
    futures = _futures(found, lines, worth)
    each = [p.deployments[0].gpus_per_replica for p in parts]
    used, committed = _gpu_hours(found, each, ("", *MONTHS)), _gpu_hours(found, each, tuple(MONTHS))
    return Contract(
        planner_version=planner_version(),
        catalog_hash=found.points.survey.catalog.hash,
        scenario=scenario,
        outlook=outlook,
        status="optimal" if found.is_proven else "feasible",
        gap=found.gap,
        bound_usd_per_hour=best.bound / hours,
        usd_per_hour=solution.cost / hours,
        usd=solution.cost,
        hours=hours,
        hours_per_cycle=horizon.hours,
        lines=lines,
        commitments=tuple(_commitment(found, lines, each, o, n) for o, n in search.decided(best).items()),
        coverage=committed / used if used else 0.0,
        parts=parts,
        states=states,
        futures=futures,
        by_the_hour_usd_per_hour=worth.by_the_hour_usd_per_hour,
        perfect_information_usd=worth.perfect_information_usd,
        stochastic_usd=worth.stochastic_usd,
        risk_premium_usd=worth.risk_premium_usd,
        dearest_usd_per_hour=dearest([(f.probability, f.usd_per_hour) for f in futures], outlook.risk.level if outlook.risk else 1.0),
        stress=worth.stress,
        measuring=worth.measuring,
        robust=worth.robust,
        structures=best.solved,
        notes=_notes(worth),
        warnings=tuple(dict.fromkeys(w for p in parts for w in p.warnings)),
    )


def _notes(worth: Worth) -> tuple[str, ...]:
    """What is not told, in words."""
    return (f"Not told, for time did not suffice (raise --time-limit): {', '.join(worth.missing)}.",) if worth.missing else ()


def _gpu_hours(found: Found, each: Sequence[int], terms: Collection[str]) -> float:
    """GPU-hours of replicas, expected, on what is bought for one of these terms."""
    problem, solution, offers = found.best.problem, found.best.solution, found.best.offers
    return sum(
        x.weight * g * n
        for g, c in zip(each, solution.pools, strict=True)
        for x, row in zip(problem.states, c.running, strict=True)
        for o, n in row.items()
        if offers[o][1] in terms
    )


def _line(found: Found, o: int) -> ContractLine:
    index, term = found.best.offers[o]
    offer = found.field.formulation.offers[index]
    return ContractLine(
        provider=offer.provider, kind=offer.kind, region=offer.region, instance_type=offer.instance_type, basis=offer.basis, gpu=offer.gpu,
        gpus_per_instance=offer.gpus_per_instance, purchase=offer.purchase, term=term, usd_per_hour=found.best.problem.offers[o].usd_per_hour,
        by_the_hour_usd=_by_the_hour(found, offer) if search.term_of(offer) else offer.usd_per_hour, carbon_usd_per_hour=offer.carbon_usd_per_hour,
        source=offer.source, as_of=str(offer.as_of),
    )  # fmt: skip


def _by_the_hour(found: Found, offer: Offer) -> float | None:
    """$/h at the least of the GPUs of an offer that is for a term alone, if they were bought by the hour."""
    hourly = [p for p, (_, term) in zip(found.best.problem.offers, found.best.offers, strict=True) if not term and p.gpu == offer.gpu]
    return min((p.usd_per_hour / p.gpus for p in hourly), default=inf) * offer.gpus_per_instance if hourly else None


def _commitment(found: Found, lines: tuple[ContractLine, ...], each: list[int], o: int, instances: int) -> Commitment:
    """What is signed now of a line, and how much of it is used in its first term."""
    problem, solution, line = found.best.problem, found.best.solution, lines[o]
    span = problem.spans_of(o)[0]
    weight = sum(problem.states[i].weight for i in span)
    gpus = instances * line.gpus_per_instance
    used = sum(problem.states[i].weight * sum(g * c.running[i].get(o, 0) for g, c in zip(each, solution.pools, strict=True)) for i in span) / (gpus * weight)
    months = min(MONTHS[line.term], found.asked.outlook.months)
    usd = instances * line.usd_per_hour
    return Commitment(
        line=o, instances=instances, months=months, usd_per_hour=usd, used=used, idle_usd_per_month=(1 - used) * usd * HOURS_PER_MONTH,
        break_even=line.usd_per_hour / line.by_the_hour_usd if line.by_the_hour_usd else None,
        obliged_after_usd=usd * (MONTHS[line.term] - months) * HOURS_PER_MONTH,
    )  # fmt: skip


def _futures(found: Found, lines: tuple[ContractLine, ...], worth: Worth) -> tuple[FutureOutcome, ...]:
    problem, solution, horizon = found.best.problem, found.best.solution, found.asked.horizon
    outcomes = []
    for s, f in enumerate(horizon.outlook.futures):
        here = [i for i, x in enumerate(problem.states) if x.case == s]
        usd = sum(problem.states[i].times * _spent(problem, solution.holdings[i], solution.started[i]) for i in here)
        most = max(sum(lines[o].gpus_per_instance * n for o, n in solution.holdings[i].items()) for i in here)
        known = worth.known_usd_per_hour[s] if worth.known_usd_per_hour else None
        outcomes.append(
            FutureOutcome(
                name=f.name, probability=f.probability, factor=f.factor, usd_per_hour=usd / horizon.total_hours, known_usd_per_hour=known, most_gpus=most
            )
        )
    return tuple(outcomes)


def _spent(problem: Problem, held: Mapping[int, int], started: Mapping[int, int]) -> float:
    """$ of one hour of a state."""
    lead = problem.rules.lead_hours
    return float(sum(problem.offers[o].usd_per_hour * (n + lead * started.get(o, 0)) for o, n in held.items()))
