"""What else there is: structurally different plans, what pools and mixing would save, and the neighbourhood of a floor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from planner.candidates.eligibility import begins
from planner.candidates.points import Points
from planner.catalog.names import called
from planner.deadline import Deadline
from planner.errors import TimeUp
from planner.performance.evidence import shown_tier
from planner.program.problem import Status
from planner.result.deploy import purchases
from planner.result.plan import Alternative, Brief, Plan, replica_fields
from planner.result.redundancy import WITHOUT
from planner.result.unit_costs import cost_at
from planner.scenario.change import assumed, assumed_of, without_apis
from planner.scenario.records import Scenario
from planner.search.answer import Answer
from planner.search.apart import kept_apart
from planner.search.chosen import Chosen, chosen_pools

MOST = 6
STEP = 0.01  # of quality
LITTLE = 0.1  # of the cost: worth paying for better evidence
WORTH_SAYING = 5e-3  # of the cost: a smaller saving is none to run another pool for
COMPARISON_GAP = 0.005  # alternatives need no proof to the last cent
EACH, TOGETHER = 0.1, 0.25  # share of the time limit for one comparison, and for all of them
LATE = "the time for comparisons was used up (raise --time-limit)"


@dataclass(frozen=True)
class Variant:
    """A way to ask the question differently."""

    difference: str
    scenario: Scenario
    why: str = ""  # where price and throughput do not tell


def alternatives(found: Answer, points: Points, plan: Plan) -> tuple[tuple[Alternative, ...], tuple[str, ...]]:
    """Up to six plans that differ in structure, and notes on what looser rules would save."""
    budget = Budget(points.deadline.share(TOGETHER), farthest(chosen_pools(found, points.survey), points))
    options = [_alternative(v, points, plan, budget) for v in _variants(found.formulation.scenario, plan)[:MOST]]
    return _merged(options), _savings(found, points, plan, budget)


def on_gpus_alone(found: Answer, points: Points, plan: Plan) -> Alternative:
    """What a plan in which APIs serve would be without them."""
    chosen = chosen_pools(found, points.survey)
    budget = Budget(points.deadline.share(TOGETHER), farthest(chosen, points) if chosen else 0)
    return _alternative(Variant("GPUs alone", without_apis(found.formulation.scenario), "its latency is predicted"), points, plan, budget)


def _merged(options: list[Alternative]) -> tuple[Alternative, ...]:
    """Questions that have one answer become one alternative."""
    kept: list[Alternative] = []
    for option in options:
        twin = next((k for k in kept if option.feasible and (k.deployments, k.purchases) == (option.deployments, option.purchases)), None)
        if twin is None:
            kept.append(option)
        else:
            kept[kept.index(twin)] = twin.model_copy(update={"difference": f"{twin.difference}; {option.difference}"})
    return tuple(kept)


def neighbourhood(found: Answer, points: Points, plan: Plan) -> tuple[str, ...]:
    """A warning, with the cost one point below and above, for every floor that is cleared by less than a point."""
    scenario, notes = found.formulation.scenario, []
    deadline = points.deadline.share(TOGETHER)
    for w, workload in enumerate(scenario.workload):
        served = plan.workloads[w].min_quality_served
        if workload.min_quality is None or served is None or served - workload.min_quality >= STEP:
            continue
        costs = []
        for floor in (workload.min_quality - STEP, workload.min_quality + STEP):
            here = assumed_of(scenario, w, min_quality=floor)
            cutoff = plan.cost.usd_per_hour * (1 + 1e-6) if floor < workload.min_quality else inf  # a lower floor never costs more
            other = asked_briefly(points, here, deadline.share(EACH), cutoff, break_ties=False)
            costs.append(f"${other.cost:,.2f}/h at {floor:.3g}" if other and other.found else f"{no_answer(other)} at {floor:.3g}")
        margin = served - workload.min_quality
        notes.append(f"{workload.name}: the floor {workload.min_quality:g} is cleared by only {margin:.4f}, less than a point: {', '.join(costs)}")
    return tuple(notes)


@dataclass(frozen=True)
class Budget:
    """What comparisons start from: the time for all of them, and how far the plan's nearest measurements are."""

    deadline: Deadline
    farthest: int


def farthest(chosen: Sequence[Chosen], points: Points) -> int:
    """Rank of the thinnest evidence among deployments: the tier, and one more where not even the GPU's generation was tested."""
    survey, rows = points.survey, np.array([c.row for c in chosen])
    return int((shown_tier(survey.evidence.take(rows), survey.replicas.take(rows)) + survey.coefficients.unseen(survey.replicas.take(rows))).max())


def near_ties(options: Sequence[Alternative]) -> tuple[str, ...]:
    """Alternatives that cost little more and rest on better evidence: what a careful buyer takes."""
    return tuple(
        f"for {a.premium:.0%} more, {' + '.join(f'{d.replicas} x {d.layout} {d.gpu}' for d in a.deployments)} rests on better evidence (see the alternatives)"
        for a in options
        if a.better_evidence and a.premium is not None and a.premium <= LITTLE
    )


def asked_briefly(points: Points, scenario: Scenario, deadline: Deadline, cutoff: float = inf, break_ties: bool = True) -> Answer | None:
    """The answer to another question, with a gap fit for a comparison; None where time was up before there was any."""
    solver = scenario.solver.model_copy(update={"gap": max(COMPARISON_GAP, scenario.solver.gap)})
    try:
        return kept_apart(points.until(deadline), scenario.model_copy(update={"solver": solver}), cutoff, break_ties)[0]
    except TimeUp:
        return None


def no_answer(other: Answer | None) -> str:
    """That there is no plan, or that none was found in time: these are different answers."""
    return "no plan" if other and other.solution.status == Status.INFEASIBLE else "no plan found in time"


def _asked_names(scenario: Scenario, plan: Plan) -> list[str]:
    """What the plan's models are called: in the words they were asked for, else as their checkpoints are."""
    asked = [n for w in scenario.workload for n in w.models]
    return sorted({next((n for n in asked if begins(d.checkpoint, n)), called(d.model, d.checkpoint)) for d in plan.deployments})


def _variants(scenario: Scenario, plan: Plan) -> list[Variant]:
    """The questions asked beside the main one, most useful first."""
    s, p = scenario.supply, scenario.policy
    found: list[Variant] = []
    if p.redundancy != "none":
        spare = 0 if p.redundancy == "n+1-replica" and p.spare_replicas == 1 else p.spare_replicas
        free = assumed(scenario, "policy", redundancy="none", load_after_loss=1.0, loss_slo_factor=1.0, spare_replicas=spare)
        found.append(Variant(WITHOUT, free, f"bears no loss ({p.redundancy})"))
    owned, rented = (tuple(sorted({b.provider for b in plan.purchases if (b.kind == "owned") == mine})) for mine in (True, False))
    if owned:
        found.append(Variant("renting all GPUs", assumed(scenario, "supply", exclude_providers=(*s.exclude_providers, *(o.name for o in s.owned)))))
    if rented and any(k != "hyperscaler" for k in s.kinds):
        found.append(Variant("hyperscalers only", assumed(scenario, "supply", kinds=("hyperscaler",))))
    spare = p.spare_replicas + 1
    if spare > 1 or scenario.objective.maximize:  # else it is the first step of the bridge (bridge.py)
        survives = f"keeps the SLO with {'a replica' if spare == 1 else f'{spare} replicas'} of each deployment down"
        found.append(Variant("one spare replica" if spare == 1 else "one more spare replica", assumed(scenario, "policy", spare_replicas=spare), survives))
    models = tuple(sorted({d.model for d in plan.deployments}))
    gpus = tuple(sorted({d.gpu for d in plan.deployments}))
    found.append(Variant(f"another GPU type than {' and '.join(gpus)}", assumed(scenario, "supply", exclude_gpus=(*s.exclude_gpus, *gpus))))
    found.append(
        Variant(f"another model than {' and '.join(_asked_names(scenario, plan))}", assumed(scenario, "policy", exclude_models=(*p.exclude_models, *models)))
    )
    if rented:
        found.append(Variant(f"another provider than {' and '.join(rented)}", assumed(scenario, "supply", exclude_providers=(*s.exclude_providers, *rented))))
    if len(gpus) > 1:
        found.append(Variant("one GPU type only", assumed(scenario, "policy", max_gpu_types=1)))
    elif any(b.kind == "hyperscaler" for b in plan.purchases) and s.kinds != ("hyperscaler",):
        found.append(Variant("neoclouds only", assumed(scenario, "supply", kinds=("neocloud",))))
    return found


def _alternative(variant: Variant, points: Points, plan: Plan, budget: Budget) -> Alternative:
    if budget.deadline.passed():
        return Alternative(difference=variant.difference, feasible=False, why=f"not compared: {LATE}")
    found = asked_briefly(points, variant.scenario, budget.deadline.share(EACH))
    if not found or not found.found:
        why = "no plan meets all demands this way" if found and found.solution.status == Status.INFEASIBLE else f"{no_answer(found)} (raise --time-limit)"
        return Alternative(difference=variant.difference, feasible=False, why=why)
    bought, _ = purchases(found)
    chosen = chosen_pools(found, points.survey)
    traffic = [(w.qps, w.input_tokens or 0.0, w.output_tokens or 0.0) for w in plan.workloads]
    cost = cost_at(found.cost, traffic)
    return Alternative(
        difference=variant.difference,
        feasible=True,
        cost=cost,
        premium=found.cost / plan.cost.usd_per_hour - 1,
        why=variant.why or _why(found, chosen, plan),
        better_evidence=farthest(chosen, points) < budget.farthest,
        deployments=tuple(brief(c, points) for c in chosen),
        purchases=tuple(bought),
    )


def brief(c: Chosen, points: Points) -> Brief:
    """A deployment of another plan, in brief."""
    from planner.performance.replicas import ENGINES

    r, row = points.survey.replicas, c.row
    replica = r.at(row)
    return Brief(
        model=c.eligible.served.card.name,
        checkpoint=c.eligible.name,
        precision=c.eligible.served.checkpoint.precision,
        engine=ENGINES[int(r.engine[row])],
        gpu=r.gpus[int(r.gpu[row])].name,
        **replica_fields(replica),
        replicas=c.pool.total,
        gpus=replica.gpus * c.pool.total,
    )


def _why(found: Answer, chosen: list[Chosen], plan: Plan) -> str:
    """Where it is worse than the plan: price per GPU, throughput per GPU, GPUs that stand idle in whole instances."""
    used = sum(found.formulation.problem.columns[c.pool.pool.column].gpus * c.pool.total for c in chosen)
    held = sum(found.formulation.problem.offers[o].gpus * n for o, n in found.solution.held.items())
    price, ours = found.cost / held, plan.cost.usd_per_hour / plan.gpus_held
    rate, our_rate = sum(c.qps(w) for c in chosen for w in c.pool.traffic) / used, sum(w.qps for w in plan.workloads) / plan.gpus_used
    parts = [] if abs(price / ours - 1) < 0.01 else [f"${price:.2f} per GPU-hour against ${ours:.2f}"]
    parts += [] if abs(rate / our_rate - 1) < 0.01 else [f"{rate:.3g} req/s per GPU against {our_rate:.3g}"]
    parts += [f"{held - used} of {held} GPUs idle in whole instances"] if held > used else []
    return "; ".join(parts) or "as cheap as the plan"


def _savings(found: Answer, points: Points, plan: Plan, budget: Budget) -> tuple[str, ...]:
    """What looser rules on pools would save. Free mixing can do all that two pools can, so it is asked first and may settle both."""
    scenario, ours, notes = found.formulation.scenario, plan.cost.usd_per_hour, []
    looser = [("free mixing of pools and checkpoints", assumed(scenario, "policy", max_pools=None, mix=True))] if not scenario.policy.mix else []
    looser += [("two pools per workload", assumed(scenario, "policy", max_pools=2))] if scenario.policy.pools_per_workload == 1 else []
    cutoff, settled = ours * (1 - WORTH_SAYING), False
    for what, changed in looser:
        if settled:
            notes.append(f"{what} would save less than {WORTH_SAYING:.1%}")
        elif budget.deadline.passed():
            notes.append(f"what {what} would save was not searched: {LATE}")
        else:
            other = asked_briefly(points, changed, budget.deadline.share(EACH), cutoff, break_ties=False)
            if other is None:
                notes.append(f"what {what} would save was not found in time (raise --time-limit)")
            elif other.found:
                notes.append(f"{what} would cost ${other.cost:,.2f}/h, {1 - other.cost / ours:.1%} less")
            else:
                none = other.solution.status == Status.INFEASIBLE
                settled = none and changed.policy.mix
                unsure = "" if none else ", as far as the search came in time (raise --time-limit)"
                notes.append(f"{what} would save less than {WORTH_SAYING:.1%}{unsure}")
    return tuple(notes)
