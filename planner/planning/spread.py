"""What a plan would cost if lengths varied more or less than it supposes."""

from __future__ import annotations

from planner.candidates.points import Points
from planner.candidates.survey import Survey, survey
from planner.deadline import Deadline
from planner.demand.spread import CHAT_INPUT_CV
from planner.planning.alternatives import EACH, TOGETHER, asked_briefly, no_answer
from planner.scenario.change import assumed_of
from planner.scenario.records import Scenario
from planner.scenario.workload import Workload

OTHER_SPREADS = (0.0, 0.5)  # that a plan is compared with
WORTH_SAYING = 0.01  # of the cost


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
    asked = assumed_of(scenario, i, input_cv=cv)
    other = asked_briefly(Points(survey(asked, points.survey.catalog, points.survey.offers)), asked, deadline, break_ties=False)
    return other.cost if other and other.found else no_answer(other)
