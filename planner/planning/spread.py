"""How much lengths vary, in words: the spread a plan supposes, what a context refuses of it, and what another spread would cost."""

from __future__ import annotations

from collections.abc import Sequence

from planner.candidates.eligibility import Eligible, context_of
from planner.candidates.points import Points
from planner.candidates.survey import Survey, survey
from planner.deadline import Deadline
from planner.demand.spread import CHAT_INPUT_CV, CHAT_OUTPUT_CV
from planner.performance.lengths import met_by, refused_share
from planner.plan import Deployment
from planner.planning.alternatives import EACH, TOGETHER, asked_briefly, no_answer
from planner.scenario.records import Scenario, Workload

OTHER_SPREADS = (0.0, 0.5)  # that a plan is compared with
WORTH_SAYING = 0.01  # of the cost
NOTICED = 1e-3  # of the requests: refusals worth a warning


def spread_in_words(w: Workload) -> tuple[str, ...]:
    """The spread of lengths where it is a default, and what lengths are cut to."""
    found = []
    stated = [cv is not None for cv in (w.input_cv, w.output_cv)]
    cvs = w.spreads
    if not w.lengths and not all(stated):
        parts = [f"{cv:g} {name}" for cv, name, given in zip(cvs, ("in", "out"), stated, strict=True) if not given]
        usual = all(given or cv == chat for cv, chat, given in zip(cvs, (CHAT_INPUT_CV, CHAT_OUTPUT_CV), stated, strict=True))
        whose = "of the Azure 2023 conversation trace" if usual else "less than in chat, for so long requests have no much longer ones beside them"
        found.append(f"length spread {whose} (CV {', '.join(parts)})")
    found += [f"prompts cut at {w.max_input:,.0f} tokens, their mean kept"] if w.max_input is not None and not w.lengths else []
    found += [f"requests cut at {w.max_request:,.0f} tokens, their mean kept"] if w.max_request is not None and not w.lengths else []
    found += [f"lengths cut at {w.max_input or w.max_request:,.0f} tokens"] if w.lengths and (w.max_input or w.max_request) else []
    found += [f"at most {w.max_refused:.3g} of requests too long for a context"] if w.max_refused != type(w).model_fields["max_refused"].default else []
    return tuple(found)


def refusals(surveyed: Survey, deployments: Sequence[Deployment]) -> tuple[str, ...]:
    """What the contexts of the deployments refuse, and which models are left out because theirs refuse more than the workload lets them."""
    found = [
        f"{d.checkpoint}: {d.refused_share:.2%} of requests are longer than its context and would be refused; the plan has room for them all the same"
        for d in deployments
        if d.refused_share is not None and d.refused_share > NOTICED
    ]
    for i, w in enumerate(surveyed.scenario.workload):
        lost = [e for e in surveyed.eligible if e.why[i] == "context"]
        by_context: dict[int, list[Eligible]] = {}
        for e in lost:
            by_context.setdefault(context_of(e.served), []).append(e)
        shares = {c: min(refused_share(met_by(w, t), f, c) for f, t in {(e.factor[i], e.tokens[i]) for e in those}) for c, those in by_context.items()}
        words = [f"{context:,} tokens {shares[context]:.2g} ({len(by_context[context])} checkpoints)" for context in sorted(by_context, reverse=True)]
        if words:
            more = f", … ({len(words) - 3} shorter ones)" if len(words) > 3 else ""
            name = f"{w.name}: " if len(surveyed.scenario.workload) > 1 else ""
            found.append(
                f"{name}{len(lost)} checkpoints are left out for the share of requests that their context would refuse: {', '.join(words[:3])}{more}; "
                f"up to {w.max_refused:g} is let pass (--max-refused; --max-input where callers send no longer prompts)"
            )
    return tuple(found)


def is_at_stake(w: Workload, i: int, surveyed: Survey) -> bool:
    """Whether a spread that nobody stated decides: prompts so long that it was narrowed, or contexts that refuse some."""
    if w.lengths or w.input_cv is not None:
        return False
    return w.spreads[0] < CHAT_INPUT_CV or any(e.why[i] == "context" for e in surveyed.eligible)


def spread_costs(points: Points, scenario: Scenario, usd_per_hour: float) -> tuple[str, ...]:
    """For each workload whose spread of prompts is a default and decides: what the plan costs with others."""
    found, deadline = [], points.deadline.share(TOGETHER)
    for i, w in enumerate(scenario.workload):
        if not is_at_stake(w, i, points.survey) or deadline.passed():
            continue
        costs = [(cv, _cost(points, scenario, i, cv, deadline.share(EACH))) for cv in OTHER_SPREADS]
        if any(isinstance(cost, str) or abs(cost / usd_per_hour - 1) >= WORTH_SAYING for _, cost in costs):
            told = [f"{f'at CV {cv:g}' if cv else 'all equally long'} {cost if isinstance(cost, str) else f'${cost:,.2f}/h'}" for cv, cost in costs]
            supposed = f"at CV {w.spreads[0]:g}, as supposed, ${usd_per_hour:,.2f}/h"
            found.append(f"{w.name}: how much prompts vary is not told, and decides: {supposed}; {', '.join(told)} (--isl-cv)")
    return tuple(found)


def _cost(points: Points, scenario: Scenario, i: int, cv: float, deadline: Deadline) -> float | str:
    """$/h with another spread of the prompts of workload i, or that there is none."""
    changed = tuple(w.model_copy(update={"input_cv": cv}) if j == i else w for j, w in enumerate(scenario.workload))
    asked = scenario.model_copy(update={"workload": changed})
    other = asked_briefly(Points(survey(asked, points.survey.catalog, points.survey.offers)), asked, deadline, tidy=False)
    return other.cost if other and other.found else no_answer(other)
