"""Checks the bridge to the plan fit to sign: each step buys at the catalogue's prices, meets the terms so far, and premiums add up to the cent."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from planner.check.beside import bought, deployed, served_by
from planner.check.case import Case, replica_of
from planner.check.findings import CENT, Finding, Notes, same_money
from planner.check.quality import worth
from planner.performance.calibrated import is_of_model
from planner.performance.coefficients import TIERS
from planner.performance.evidence import evidence, shown_tier
from planner.result.plan import Brief, Prudent, PrudentStep
from planner.scenario.records import Scenario

STALE = 90  # days
ORDER = ("spare", "recovery", "price", "evidence")  # of the terms, after the plan itself
WORDS = ("the cheapest", "one spare replica", "floor met at the worst recovery", f"prices of the last {STALE} days")
SEEN = "GPU and model measured together"  # the last step names its tier, the one wished for in words


def prudent(case: Case) -> Finding:
    """The bridge, where the plan has one."""
    notes, bridge, policy = Notes("prudent"), case.plan.prudent, case.scenario.policy
    if policy.prudent:
        fresh = (case.scenario.supply.max_price_age or STALE + 1) <= STALE
        notes.require(policy.spare_replicas >= 1 and policy.worst_recovery and fresh, "policy", "is prudent, and lacks a spare replica, the worst or an age")
        notes.require(bridge is None, "bridge", "leads from a plan that is prudent already")
        return notes.finding(f"prudent: {policy.spare_replicas} spare, worst recovery, {policy.evidence} or nearer, prices of {STALE} days at most")
    if bridge is None:
        return notes.finding("fit to sign: no bridge stated")
    whole = len(bridge.steps) == 1 + len(ORDER) and all(s.usd_per_hour is not None for s in bridge.steps)
    ended = 1 < len(bridge.steps) <= 1 + len(ORDER) and all((s.usd_per_hour is None) == (s is bridge.steps[-1]) for s in bridge.steps)
    notes.require(whole or ended, "bridge", "has not one step for each term, or goes on after one without a plan")
    notes.require(bridge.evidence in TIERS, "bridge", f"reaches the tier {bridge.evidence}, which is none")
    if notes.breaches:
        return notes.finding("fit to sign: not a bridge")
    for i, step in enumerate(bridge.steps):
        _step(notes, case, bridge, i, step)
    _sum(notes, case, bridge, whole)
    said = f"${bridge.usd_per_hour:.2f}/h, evidence {bridge.evidence}" if bridge.usd_per_hour is not None else "no plan meets all terms, or time was up"
    return notes.finding(f"fit to sign: {said}; {len(bridge.steps) - 1} premiums add up to the cent")


def _step(notes: Notes, case: Case, bridge: Prudent, i: int, step: PrudentStep) -> None:
    """What it buys, deploys and costs, under the terms so far."""
    where = f"step '{step.term}'"
    tiers = {SEEN, *(f"{how}: {tier}" for tier in TIERS for how in ("nearest evidence there is", "evidence as asked"))}
    named = step.term == WORDS[i] if i < len(WORDS) else step.term in tiers
    notes.require(named, "bridge", f"calls step {i + 1} '{step.term}', which is none of its terms there")
    if step.usd_per_hour is None:
        notes.require(bool(step.why) and not step.deployments and not step.purchases, where, "has no cost, and either a plan or no reason")
        return
    asked = _asked(case.scenario, ORDER[:i], bridge.evidence)
    usd = bought(notes, case, step.purchases, where, asked.supply)
    notes.require(same_money(step.usd_per_hour, usd), where, f"states ${step.usd_per_hour:.4f}/h, what it buys costs ${usd:.4f}")
    deployed(notes, case, step.deployments, step.purchases, where)
    if notes.breaches:
        return
    for d in step.deployments:
        known = Case(case.plan, asked, case.catalog, (), case.coefficients, case.options)
        _meets(notes, known, d, where)


def _asked(scenario: Scenario, terms: Sequence[str], tier: str) -> Scenario:
    """The scenario with the first terms of the bridge."""
    policy, supply = scenario.policy, scenario.supply
    ways: dict[str, Callable[[], dict[str, object]]] = {
        "spare": lambda: {"spare_replicas": max(policy.spare_replicas, 1)},
        "recovery": lambda: {"worst_recovery": True},
        "evidence": lambda: {"evidence": min(policy.evidence, tier, key=TIERS.index)},
    }
    for term in terms:
        policy = policy.model_copy(update=ways[term]() if term in ways else {})
    supply = supply.model_copy(update={"max_price_age": min(supply.max_price_age or STALE, STALE)}) if "price" in terms else supply
    return scenario.model_copy(update={"policy": policy, "supply": supply})


def _meets(notes: Notes, case: Case, d: Brief, where: str) -> None:
    """A deployment under the policies: replicas beside the spare ones, a score that clears some workload's floor, near evidence."""
    policy, served = case.scenario.policy, served_by(case, d)
    assert served is not None
    notes.require(d.replicas > policy.spare_replicas, where, f"{d.replicas} replicas of {d.checkpoint}, {policy.spare_replicas} of which may fail")
    floors = [(w.min_quality, worth(served, w, case)) for w in case.scenario.workload]
    clears = any(floor is None or (score is not None and score - floor >= policy.quality_margin - 1e-6) for floor, score in floors)
    notes.require(clears, where, f"{d.checkpoint} clears no workload's floor")
    replica = replica_of(d, served, case.catalog.gpus[d.gpu])
    names = (served.card.name,)
    found = evidence(replica, names, case.catalog.measured, case.scenario.policy.tuning)
    tier = int(shown_tier(found, replica, is_of_model(case.catalog.calibrated, replica, names))[0])
    notes.require(tier <= TIERS.index(policy.evidence), where, f"{d.checkpoint} on {d.gpu} is {TIERS[tier]}, asked for is {policy.evidence}")


def _sum(notes: Notes, case: Case, bridge: Prudent, whole: bool) -> None:
    """The first step is the plan; premiums are differences in cents, and never fall by more than the gap; all together they are the total."""
    first, reached = bridge.steps[0], [s for s in bridge.steps if s.usd_per_hour is not None]
    mine = sorted((p.model_dump() for p in case.plan.purchases), key=str)
    notes.require(sorted((p.model_dump() for p in first.purchases), key=str) == mine, "bridge", "does not begin with what this plan buys")
    costs, premiums = [s.usd_per_hour or 0.0 for s in reached], [s.premium_usd_per_hour for s in reached]
    # Unproven costs may fall, and those of several workloads: who is kept apart is found plan by plan.
    is_exact = len(case.scenario.workload) == 1 and not any(s.why for s in reached)
    for before, cost, premium, step in zip(costs, costs[1:], premiums[1:], reached[1:], strict=False):
        right = round(round(cost, 2) - round(before, 2), 2)
        notes.require(premium is not None and abs(premium - right) < CENT / 100, f"step '{step.term}'", f"states a premium of {premium}, should be {right}")
        slack = 2 * max(case.scenario.solver.gap, case.plan.gap) * before + CENT
        notes.require(cost >= before - slack or not is_exact, f"step '{step.term}'", "costs less than with fewer terms")
    ends = (bridge.usd_per_hour, bridge.premium_usd_per_hour)
    if not whole:
        notes.require(ends == (None, None), "bridge", "states a total, and ends before its last term")
        return
    together = round(sum(p or 0.0 for p in premiums), 2)
    notes.require(ends[0] is not None and same_money(ends[0], costs[-1]), "bridge", f"leads to ${ends[0]}, its last step costs ${costs[-1]:.2f}")
    notes.require(ends[1] is not None and abs(ends[1] - together) < CENT / 100, "bridge", f"states {ends[1]} more in all, its premiums add up to {together}")
