"""`plan contract`: what to commit to now and what to buy by the hour, over months and futures; checked before it is returned.

What may be decided later is decided later in the program (on-demand and spot instances in every state), so the commitments are those of least expected cost.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, inf, log
from statistics import NormalDist

import numpy as np

from planner.candidates.columns import formulation_at_any_rate
from planner.candidates.offers import allowed, with_known_names
from planner.candidates.points import Points
from planner.candidates.survey import survey
from planner.catalog.catalog import Catalog
from planner.catalog.load import load_catalog
from planner.catalog.records import Offer
from planner.deadline import Deadline
from planner.errors import ScenarioError, SolverError
from planner.planning.infeasible import Infeasible
from planner.program.alike import cheapest_over_states
from planner.program.problem import Problem
from planner.program.risk import dearest
from planner.program.solver import SolverOptions
from planner.result.assemble import assemble
from planner.result.contract import Commitment, Contract, ContractLine, ContractState, FutureOutcome, Measuring, Robust, Stress
from planner.result.plan import Deployment
from planner.scenario.apply import catalog_for
from planner.scenario.change import require_gpus_alone, require_no_fleet, with_workloads
from planner.scenario.outlook import MONTHS, Outlook
from planner.scenario.profiles import hourly_rates
from planner.scenario.records import Scenario
from planner.scenario.sources import Origins
from planner.scenario.units import HOURS_PER_MONTH
from planner.search import contract as search
from planner.search.contract import ContractQuestion, ContractSpace, Horizon
from planner.search.hours import busiest, question, slots_by_candidate, spoiled
from planner.search.prudent import careful, reached, serves_all
from planner.version import planner_version

STRESSES = (1.1, 1.25, 1.5)
STUDY_GAP = 1e-4  # of what is compared with one another
SEARCH = 0.5  # of the time limit
CAPACITIES = (1 / 6, 1 / 2, 5 / 6)  # quantiles that stand for a capacity that nobody measured, each as likely


@dataclass(frozen=True)
class Found:
    """A search's end with what it was of."""

    asked: ContractQuestion
    field: ContractSpace
    points: Points
    best: search.Contract


def contract(scenario: Scenario, outlook: Outlook, catalog: Catalog | None = None, *, origins: Origins | None = None) -> Contract:
    """The contract of least expected cost, with what it is worth, checked independently.

    Raises Infeasible when nothing serves all states, ScenarioError and CatalogError for unusable input, SolverError when none was found in time.
    """
    require_modelled(scenario)
    catalog, deadline = catalog or load_catalog(scenario.catalog), Deadline.after(scenario.solver.time_limit)
    scenario = careful(with_known_names(scenario, catalog))
    found = _searched(scenario, outlook, catalog, deadline.share(SEARCH))
    written = _written(found, scenario, origins or {}, _studied(found, scenario, catalog, deadline))
    options = SolverOptions(STUDY_GAP, max(deadline.left(), 0.05), scenario.solver.seed)
    written = written.model_copy(update={"measuring": _measuring(found, written, options), "robust": _robust(found, written, options)})
    from planner.check.contract import check_contract

    report = check_contract(written, catalog)
    if not report.ok:
        worst = report.breaches[0]
        raise SolverError(f"the contract fails its own check: {worst.name}, {worst.where}: {worst.what}", hint="please report this with the scenario")
    return written


def require_modelled(scenario: Scenario) -> None:
    """Raises ScenarioError for what no contract is planned with: it would be left out of the answer without a word."""
    unknown = (
        (bool(scenario.tables.capacities), "own tables", "tables", "leave --capacities and --demand out"),
        (scenario.has_waiting, "requests that may wait", "workload.requests_per_day", "give a rate (qps)"),
        (any(w.demand and w.demand.is_open for w in scenario.workload), "users who wait for answers", "workload.users", "give the rate that they make (qps)"),
        (any(w.route_by for w in scenario.workload), "routes by length", "workload.route_by", "give short and long prompts as two workloads"),
        (any(w.is_cascade for w in scenario.workload), "escalation", "workload.escalate", "give what is escalated as a workload of its own"),
        (bool(scenario.objective.maximize), "the most that a budget buys", "objective.maximize", "leave --maximize out"),
        (scenario.policy.shed, "who goes short", "policy.shed", "leave --shed out"),
        (bool(scenario.policy.survives), f"--redundancy {scenario.policy.redundancy}", "policy.redundancy", "n+1-replica and --spare-replicas hold"),
    )  # fmt: skip
    for is_asked, what, where, hint in unknown:
        if is_asked:
            raise ScenarioError(f"a contract is not planned for {what} yet", where, hint)
    require_gpus_alone(scenario, "a contract")
    require_no_fleet(scenario, "a contract")


def _asked(scenario: Scenario, outlook: Outlook) -> ContractQuestion:
    """The question at the highest traffic of any state, with the rates of all."""
    horizon = Horizon(outlook, hourly_rates(scenario).shape[1])
    top = float(horizon.growth.max())
    highest = question(with_workloads(scenario, (w.at_rate(w.rate * top) for w in scenario.workload)))
    repeats = len(outlook.futures) * outlook.months
    return ContractQuestion(replace(highest, rates=np.tile(highest.rates / top, (1, repeats)) * horizon.growth), horizon)


def _searched(scenario: Scenario, outlook: Outlook, catalog: Catalog, deadline: Deadline) -> Found:
    """The best structure of a question, workloads apart that miss a limit together."""
    asked, supposed = _asked(scenario, outlook), catalog_for(catalog, scenario)
    points = Points(survey(asked.hourly.expanded, supposed, allowed(supposed.offers, scenario.supply, supposed.newest_price)), deadline)
    known = scenario.model_copy(update={"policy": reached(points, asked.hourly.expanded, serves_all).policy})
    asked = _asked(known, outlook)
    points = points.asked(asked.hourly.expanded, points.survey.offers)
    whole = formulation_at_any_rate(points, asked.hourly.expanded)
    slots, apart = slots_by_candidate(points.survey, whole), frozenset[frozenset[int]]()
    while True:
        field = ContractSpace(whole, asked, slots, apart)
        best = search.cheapest_contract(field, asked)
        if best is None:
            limit = f", and cost no more than {outlook.risk.usd_per_hour:g} $/h where it is dearest" if outlook.risk else ""
            raise Infeasible(f"nothing serves all workloads in every month and future{limit}", (), points.survey.excluded + whole.excluded)
        more = spoiled(search.by_offer(best), field, asked.hourly, points.survey) - apart
        if not more:
            return Found(asked, field, points, best)
        apart |= more


# ---- what it is worth


@dataclass(frozen=True)
class Told:
    """What the studies say; None where there was no time."""

    by_the_hour: float | None = None
    known: tuple[float | None, ...] = ()
    stochastic: float | None = None
    premium: float | None = None
    stress: tuple[Stress, ...] = ()


def _studied(found: Found, scenario: Scenario, catalog: Catalog, deadline: Deadline) -> Told:
    """The contract beside others: no commitment, each future known, signed for the mean, no limit on risk, more traffic."""
    problem, outlook, hours = found.best.problem, found.asked.outlook, found.asked.horizon.total_hours

    def options() -> SolverOptions:
        return SolverOptions(STUDY_GAP, max(deadline.left(), 0.05), scenario.solver.seed)

    signed = search.decided(found.best)
    stress = tuple(_stress(problem, signed, f, options(), hours) for f in STRESSES)
    free = _searched(scenario, outlook.model_copy(update={"commit": {}, "risk": None}), catalog, deadline) if outlook.commit else None
    futures = range(len(outlook.futures))
    known = tuple(_cost(search.of_future(problem, s), options()) for s in futures) if len(futures) > 1 else ()
    mean = search.after(problem, search.decided(_for_the_mean(found, options())), options()) if len(futures) > 1 and outlook.commit else None
    unlimited = _cost(replace(problem, rules=replace(problem.rules, risk=None)), options()) if outlook.risk else None
    return Told(
        free.best.solution.cost / hours if free else None,
        tuple(None if k is None else k / hours for k in known),
        None if mean is None else max(0.0, mean - found.best.solution.cost),
        None if unlimited is None else max(0.0, found.best.solution.cost - unlimited),
        stress,
    )


def _cost(problem: Problem, options: SolverOptions) -> float | None:
    """$ of the cheapest plan of a problem; None where none was found."""
    solution = cheapest_over_states(problem, options)
    return solution.cost if solution.found else None


def _stress(problem: Problem, signed: dict[int, int], factor: float, options: SolverOptions, hours: float) -> Stress:
    cost = search.after(search.at_rates(problem, np.full(len(problem.states), factor)), signed, options)
    return Stress(factor=factor, usd_per_hour=cost / hours if cost < inf else None)


def _for_the_mean(found: Found, options: SolverOptions) -> search.Contract:
    """What would be signed if traffic were the mean of all futures."""
    problem, horizon = found.best.problem, found.asked.horizon
    likely = np.array([f.probability for f in horizon.outlook.futures])
    first = search.of_future(problem, 0)
    mean = [np.array(d.rates).reshape(len(likely), -1).T @ likely for d in problem.demands]
    demands = tuple(replace(d, rates=tuple(m.tolist())) for d, m in zip(first.demands, mean, strict=True))
    alone = replace(first, demands=demands)
    return replace(found.best, problem=alone, solution=cheapest_over_states(alone, options))


def capacity_factors(d: Deployment) -> tuple[float, ...]:
    """Load per load as planned, were the capacity of a deployment at each of CAPACITIES: lognormal through what it takes at the median and at 95 %."""
    e = d.evidence
    if e is None or not e.replicas_at_median or not e.replicas_at_95 or d.replicas < 1:
        return ()
    middle = 1 / e.capacity_factor if e.capacity_factor else 1.0
    spread = log(e.replicas_at_95 / e.replicas_at_median) / NormalDist().inv_cdf(0.95)
    return tuple(exp(spread * NormalDist().inv_cdf(q)) / middle for q in CAPACITIES)


def _capacities(found: Found, written: Contract) -> dict[int, tuple[float, ...]]:
    """By deployment, the load per load as planned of each capacity that stands for what nobody measured."""
    every = {i: capacity_factors(part.deployments[0]) for i, part in enumerate(written.parts)}
    return {i: factors for i, factors in every.items() if factors} if found.asked.outlook.commit else {}


def _measuring(found: Found, written: Contract, options: SolverOptions) -> tuple[Measuring, ...]:
    """For each deployment, what knowing its capacity before signing saves: the cost of signing before, less the mean cost of signing after."""
    problem = replace(found.best.problem, rules=replace(found.best.problem.rules, risk=None))
    blocks, known = search.by_offer(found.best).pools, []
    for i, factors in _capacities(found, written).items():
        workloads = blocks[i].workloads
        before = _cost(search.as_it_may_carry(problem, dict.fromkeys(workloads, factors)), options)
        after = [_cost(search.as_it_may_carry(problem, dict.fromkeys(workloads, (f,))), options) for f in factors]
        if before is not None and all(a is not None for a in after):
            worth = max(0.0, before - sum(a for a in after if a is not None) / len(factors))
            known.append(Measuring(deployment=i, worth_usd=worth, low_factor=min(factors), high_factor=max(factors)))
    return tuple(known)


def _robust(found: Found, written: Contract, options: SolverOptions) -> Robust | None:
    """What would be signed if the capacities of all deployments were as uncertain as their evidence, all erring to one side."""
    capacities, blocks = _capacities(found, written), search.by_offer(found.best).pools
    problem = replace(found.best.problem, rules=replace(found.best.problem.rules, risk=None))
    factors = {w: f for i, f in capacities.items() for w in blocks[i].workloads}
    if not factors:
        return None
    wide = search.as_it_may_carry(problem, factors)
    solution = cheapest_over_states(wide, options)
    as_signed, hours = search.after(wide, search.decided(found.best), options), found.asked.horizon.total_hours
    if not solution.found or as_signed == inf:
        return None
    signed = search.decided(replace(found.best, problem=wide, solution=solution))
    return Robust(signed=signed, usd_per_hour=min(solution.cost, as_signed) / hours, as_signed_usd_per_hour=as_signed / hours)


# ---- written down


def _written(found: Found, scenario: Scenario, origins: Origins, told: Told) -> Contract:
    best, horizon, outlook = found.best, found.asked.horizon, found.asked.outlook
    solution, hours, view = best.solution, horizon.total_hours, search.by_offer(found.best)
    lines = tuple(_line(found, o) for o in range(len(best.offers)))
    parts = tuple(assemble(*busiest(p, view, found.field, found.asked.hourly, found.points.survey), origins) for p in range(len(view.pools)))
    states = tuple(
        ContractState(
            replicas=tuple(dict(sorted(c.running[i].items())) for c in solution.pools), instances=dict(sorted(solution.holdings[i].items())),
            started=dict(sorted(solution.started[i].items())),
        )
        for i in range(len(horizon.states))
    )  # fmt: skip
    futures = _futures(found, lines, told)
    gap = max(0.0, (solution.cost - best.bound) / solution.cost) if solution.cost else 0.0
    known = [f.known_usd_per_hour for f in futures]
    expected = sum(f.probability * k for f, k in zip(futures, known, strict=True) if k is not None) if all(k is not None for k in known) else None
    each = [p.deployments[0].gpus_per_replica for p in parts]
    used, committed = _gpu_hours(found, each, ("", *MONTHS)), _gpu_hours(found, each, tuple(MONTHS))
    return Contract(
        planner_version=planner_version(),
        catalog_hash=found.points.survey.catalog.hash,
        scenario=scenario,
        outlook=outlook,
        status="optimal" if gap <= max(search.GAP, scenario.solver.gap) + 1e-9 else "feasible",
        gap=gap,
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
        by_the_hour_usd_per_hour=told.by_the_hour,
        perfect_information_usd=max(0.0, solution.cost - expected * hours) if expected is not None and len(futures) > 1 else None,
        stochastic_usd=told.stochastic,
        risk_premium_usd=told.premium,
        dearest_usd_per_hour=dearest([(f.probability, f.usd_per_hour) for f in futures], outlook.risk.level if outlook.risk else 1.0),
        stress=told.stress,
        structures=best.solved,
        warnings=tuple(dict.fromkeys(w for p in parts for w in p.warnings)),
    )


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
    offer: Offer = found.field.formulation.offers[index]
    return ContractLine(
        provider=offer.provider, kind=offer.kind, region=offer.region, instance_type=offer.instance_type, basis=offer.basis, gpu=offer.gpu,
        gpus_per_instance=offer.gpus_per_instance, purchase=offer.purchase, term=term, usd_per_hour=found.best.problem.offers[o].usd_per_hour,
        by_the_hour_usd=offer.usd_per_hour, source=offer.source, as_of=str(offer.as_of),
    )  # fmt: skip


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
        break_even=line.usd_per_hour / line.by_the_hour_usd, obliged_after_usd=usd * (MONTHS[line.term] - months) * HOURS_PER_MONTH,
    )  # fmt: skip


def _futures(found: Found, lines: tuple[ContractLine, ...], told: Told) -> tuple[FutureOutcome, ...]:
    problem, solution, horizon = found.best.problem, found.best.solution, found.asked.horizon
    outcomes = []
    for s, f in enumerate(horizon.outlook.futures):
        here = [i for i, x in enumerate(problem.states) if x.case == s]
        usd = sum(problem.states[i].times * _spent(problem, solution.holdings[i], solution.started[i]) for i in here)
        most = max(sum(lines[o].gpus_per_instance * n for o, n in solution.holdings[i].items()) for i in here)
        known = told.known[s] if s < len(told.known) else None
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
