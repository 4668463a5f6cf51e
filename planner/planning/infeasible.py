"""Why there is no plan, and the smallest change of each demand that would make one. Every change is proven by solving again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from math import ceil, floor, log10

from planner.candidates.columns import Market, market
from planner.candidates.offers import allowed
from planner.candidates.points import Points
from planner.candidates.survey import survey
from planner.deadline import NEVER, Deadline
from planner.errors import PlannerError, TimeUp
from planner.planning.answer import Answer, has_plan, limits_of, sections
from planner.planning.conflict import conflict_of
from planner.program.optimum import least_relaxation
from planner.program.problem import Problem, Rules, Solution
from planner.program.solver import Limits
from planner.scenario.records import Scenario
from planner.scenario.units import MOST_SECONDS, format_duration

BISECTIONS = 9  # to about a percent
WIDEST = 64.0  # latency limits are widened up to this many times, then dropped
SEARCH_SHARE, SOLVE_TIME_S, SOLVE_GAP = 0.5, 1.0, 0.01  # of the time limit, for changes; of each solve
LEAST_SHARE = 1e-4  # of the traffic: serving less is no advice


class Infeasible(PlannerError):
    """No plan meets all demands; exit status 1.

    ``changes``: the smallest single changes that would make one. ``conflict``: demands that cannot be met together, though any
    one fewer could. ``together``: the smallest change of all of these at once, by the same share. ``unsearched``: what time did not
    suffice for.
    """

    exit_code = 1

    def __init__(
        self, what: str, changes: tuple[str, ...], excluded: Mapping[str, int], conflict: tuple[str, ...] = (), together: str = "", unsearched: str = ""
    ) -> None:
        self.changes, self.excluded, self.conflict, self.together, self.unsearched = changes, excluded, conflict, together, unsearched
        super().__init__(what, hint="")

    def __str__(self) -> str:
        words = [f"infeasible: {self.what}."]
        words += [f"Any one of these would do: {'; '.join(self.changes)}."] if self.changes else []
        words += [f"In conflict: {', '.join(self.conflict)}."] if self.conflict else []
        words += [f"Or all of these together: {self.together}."] if self.together else []
        words += [f"Not searched: {self.unsearched}."] if self.unsearched else []
        return " ".join(words)


def explain(points: Points, scenario: Scenario, found: Answer) -> Infeasible:
    """The error that says which demands conflict and what to change."""
    excluded = points.survey.excluded + found.market.excluded
    solver = scenario.solver.model_copy(update={"time_limit": min(SOLVE_TIME_S, scenario.solver.time_limit), "gap": max(SOLVE_GAP, scenario.solver.gap)})
    scenario = scenario.model_copy(update={"solver": solver})
    served = {w for c in found.market.problem.columns if c.offers for w in (*c.tiers, *c.shared)}
    hopeless = [w for w in range(len(scenario.workload)) if w not in served]
    if hopeless:
        return Infeasible(_nothing_serves(points, scenario, hopeless[0]), tuple(_smallest_changes(points, scenario, hopeless)), excluded)
    changes = tuple(_smallest_changes(points, scenario, range(len(scenario.workload)), found.market))
    conflict, together, unsearched = conflict_of(scenario, points)
    return Infeasible(f"{demands_in_words(scenario)} cannot all be met", changes, excluded, conflict, together, unsearched)


def _nothing_serves(points: Points, scenario: Scenario, w: int) -> str:
    """Why no candidate serves a workload: quality, data, memory, offers or SLO."""
    workload, everyone = scenario.workload[w], points.survey.eligible
    name = f"workload '{workload.name}': " if len(scenario.workload) > 1 else ""
    able = [e for e in everyone if not e.why[w]]
    if not able:
        return name + _nobody_eligible(points, scenario, w)
    good = f"{name}{len(able)} checkpoint{'s are' if len(able) > 1 else ' is'} good enough, but none"
    if not points.survey.offers:
        return f"{name}nothing is on offer: no price matches the supply asked for"
    if not (points.survey.physics[w].slots > 0).any():
        return f"{good} has capacity data, kernels, memory or an offer on the GPUs asked for ({_main(points.survey.excluded)})"
    slo = ", ".join(f"{k.replace('_', ' ')} {format_duration(v)}" for k, v in workload.slo.items())
    thinks = all(e.served.mode == "thinking" for e in able)
    note = "; they all reason first, and TTFT counts to the first token of the answer" if thinks else ""
    return f"{good} meets {slo} on any GPU asked for at lengths {workload.input_tokens:g}/{workload.output_tokens:g}{note}"


def _nobody_eligible(points: Points, scenario: Scenario, w: int) -> str:
    """No checkpoint may serve: too good a floor, or no data."""
    workload, everyone = scenario.workload[w], points.survey.eligible
    reasons = Counter(e.why[w] for e in everyone if e.why[w])
    scores = [(q.score, e.name) for e in everyone if (q := e.quality[w]) is not None and e.why[w] in ("quality", "no output factor")]
    if not (reasons["quality"] and scores and workload.min_quality is not None):
        return f"no checkpoint may serve ({', '.join(f'{n} {why}' for why, n in reasons.most_common())})"
    best, who = max(scores)
    text = f"no checkpoint that may serve reaches {workload.quality_metric} {workload.min_quality:g}; the best is {who} with {best:.4g}"
    if reasons["no score"]:
        text += f"; {reasons['no score']} checkpoints have no {workload.quality_metric} score, which is no data rather than a no"
    if reasons["no output factor"]:
        text += f"; {reasons['no output factor']} reasoning checkpoints lack an output factor (--output-factor)"
    return text


def _main(excluded: Counter[str]) -> str:
    return ", ".join(f"{n:,} {why}" for why, n in excluded.most_common(4))


def demands_in_words(scenario: Scenario) -> str:
    """The demands in force, in words."""
    p, s = scenario.policy, scenario.supply
    words = [
        f"{w.rate:g} {'req/s' if w.qps is not None else 'in flight'}"
        + (f" with peaks of x{w.burst_factor:g}" if w.burst_factor > 1 else "")
        + (f" at quality {w.min_quality:g}" if w.min_quality is not None else "")
        for w in scenario.workload
    ]
    words += [f"mean quality {w.mean_quality:g}" for w in scenario.workload if w.mean_quality is not None]
    words += [f"quota {g}={n}" for g, n in s.quota.items()]
    words += [f"at most {s.max_gpus} GPUs"] if s.max_gpus is not None else []
    words += [f"budget ${p.budget:,.2f}/h"] if p.budget is not None else []
    words += [f"{p.spare_replicas} spare replicas"] if p.spare_replicas else []
    return ", ".join(words)


def _smallest_changes(points: Points, scenario: Scenario, workloads: Iterable[int], base: Market | None = None) -> list[str]:
    """One line for each demand that would do alone; the search is given up, and says so, when it takes too long."""
    points = points.until(points.deadline.share(SEARCH_SHARE))
    searches: list[Callable[[], Iterable[str]]] = []
    if base is not None and base.problem.columns:
        searches += [partial(_relaxed_rules, replace(base, deadline=points.deadline)), partial(_less_traffic, points, scenario)]
    for w in workloads:
        searches += [partial(_lower_floor, points, scenario, w), partial(_wider_limits, points, scenario, w)]
    found: list[str] = []
    try:
        for search in searches:
            for change in search():  # what a search found before time was up stays
                found.append(change)
    except TimeUp:
        found.append("perhaps others (the search for changes was stopped: raise --time-limit)")
    return found


def _relaxed_rules(base: Market) -> Iterator[str]:
    """Budget, quota, GPU cap and demand, each by the elastic program; with one location allowed, at the best one."""
    places = [s.problem for s in sections(base.problem) if s.problem.columns] if base.problem.rules.max_locations == 1 else [base.problem]
    return _relaxations(places, replace(limits_of(base), gap=0.0), base.deadline)


def rounded_up(value: float, digits: int = 3) -> float:
    """The next number of so few digits: what is proposed must do."""
    step = 10.0 ** (floor(log10(value)) - digits + 1)
    return float(f"{ceil(value / step - 1e-9) * step:.{digits}g}")


def rounded_down(value: float, digits: int = 3) -> float:
    """The number of so few digits below."""
    step = 10.0 ** (floor(log10(value)) - digits + 1)
    return float(f"{floor(value / step + 1e-9) * step:.{digits}g}")


def tables_infeasible(problem: Problem, limits: Limits, deadline: Deadline = NEVER) -> Infeasible:
    """The error for a problem from the user's own tables."""
    rules = problem.rules
    words = [f"{len(problem.demands)} classes"] + [f"quota {g}={n}" for g, n in rules.quota.items()]
    words += [f"at most {rules.max_gpus} GPUs"] if rules.max_gpus is not None else []
    words += [f"budget ${rules.budget:,.2f}/h"] if rules.budget is not None else []
    return Infeasible(f"{', '.join(words)} cannot all be met", tuple(_relaxations([problem], limits, deadline)), {})


def _relaxations(places: list[Problem], limits: Limits, deadline: Deadline) -> Iterator[str]:
    """Budget, GPU cap and quotas, each relaxed by least; "perhaps less" where the least was not proven in time. Raises TimeUp."""
    rules = places[0].rules if places else Rules()

    def relaxed_at(problem: Problem, relax: str) -> Solution:
        left = min(limits.time_limit_s, deadline.left())
        return least_relaxation(problem, relax, replace(limits, time_limit_s=left)) if left else Solution("unknown")

    def least(relax: str) -> tuple[Mapping[str, float], str] | None:
        solutions = [s for problem in places if (s := relaxed_at(problem, relax)).status != "infeasible"]
        if deadline.passed() and not any(s.found for s in solutions):
            raise TimeUp()
        best = min((s for s in solutions if s.found), key=lambda s: sum(s.slack.values()), default=None)
        unproven = any(s.status != "optimal" for s in solutions)
        return (best.slack, ", perhaps less" if unproven else "") if best and best.slack else None

    if rules.budget is not None and (relaxed := least("budget")):
        slack, unsure = relaxed
        cents = ceil(100 * (rules.budget + slack["budget"]) - 1e-6) / 100
        yield f"a budget of ${cents:,.2f}/h (+${cents - rules.budget:,.2f}{unsure})"
    if rules.max_gpus is not None and (relaxed := least("max_gpus")):
        slack, unsure = relaxed
        yield f"{ceil(rules.max_gpus + slack['max_gpus'] - 1e-6)} GPUs in all (+{ceil(slack['max_gpus'] - 1e-6)}{unsure})"
    if rules.quota and (relaxed := least("quota")):
        slack, unsure = relaxed
        more = {k.split(":", 1)[1]: v for k, v in slack.items()}
        yield "a quota of " + " and ".join(f"{g}={ceil(rules.quota[g] + v - 1e-6)}" for g, v in more.items()) + unsure


def _less_traffic(points: Points, scenario: Scenario) -> list[str]:
    """The largest share of the demand that can be served, to about a percent."""

    def works(share: float) -> bool:
        scaled = tuple(w.model_copy(update={"qps" if w.qps is not None else "concurrency": w.rate * share}) for w in scenario.workload)
        return has_plan(market(points, scenario.model_copy(update={"workload": scaled})))  # capacities do not depend on rates

    low, high = LEAST_SHARE, 1.0
    if not works(low):
        return []
    for _ in range(BISECTIONS):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if works(middle) else (low, middle)
    served = ", ".join(
        f"{rounded_down(w.rate * low):.3g} {'req/s' if w.qps is not None else 'in flight'}" + (f" for {w.name}" if len(scenario.workload) > 1 else "")
        for w in scenario.workload
    )
    return [f"{served} ({low:.2g} of the traffic)"]


def _lower_floor(points: Points, scenario: Scenario, w: int) -> list[str]:
    """The highest lower floor with a plan."""
    workload = scenario.workload[w]
    if workload.min_quality is None:
        return []
    scores = sorted({q.score for e in points.survey.eligible if (q := e.quality[w]) is not None and q.score < workload.min_quality}, reverse=True)

    anyone = _surveyed(_with(scenario, w, min_quality=None), points)  # one survey serves every floor

    def works(score: float) -> bool:
        return has_plan(market(anyone, _with(scenario, w, min_quality=score)))

    best = _first(scores, works)
    return [f"a quality floor of {best:.4g} instead of {workload.min_quality:g}"] if best is not None else []


def _first(scores: list[float], works: Callable[[float], bool]) -> float | None:
    """The first that works of a list ordered from strict to loose, by bisection (a looser floor admits all a stricter one does)."""
    if not scores or not works(scores[-1]):
        return None
    low, high = 0, len(scores) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if works(scores[middle]) else (middle + 1, high)
    return scores[low]


def _wider_limits(points: Points, scenario: Scenario, w: int) -> Iterator[str]:
    """For each latency limit the least that would do alone, to about a percent."""
    workload = scenario.workload[w]
    for name, limit in workload.slo.items():

        def works(limited: str, name: str = name) -> bool:
            changed = _with(scenario, w, slo=workload.model_dump(mode="json")["slo"] | {name: limited})
            return has_plan(market(_surveyed(changed, points), changed))

        metric, percentile = name.split("_p")
        widest = format_duration(min(limit * WIDEST, MOST_SECONDS))
        if not works(widest):
            if works("none"):
                yield f"no limit on {metric.upper()} p{percentile} ({widest} is still too tight)"
            continue
        low, high = 1.0, WIDEST
        for _ in range(BISECTIONS):
            middle = (low * high) ** 0.5
            low, high = (low, middle) if works(format_duration(limit * middle)) else (middle, high)
        yield f"{metric.upper()} p{percentile} of {format_duration(rounded_up(limit * high))} instead of {format_duration(limit)}"


def _with(scenario: Scenario, w: int, **change: object) -> Scenario:
    """The scenario with one workload changed."""
    changed = type(scenario.workload[w]).model_validate(scenario.workload[w].model_dump(mode="json") | change)
    return scenario.model_copy(update={"workload": tuple(changed if i == w else o for i, o in enumerate(scenario.workload))})


def _surveyed(scenario: Scenario, points: Points) -> Points:
    """The candidates of a changed scenario, over the same catalogue. Raises TimeUp."""
    points.deadline.check()
    catalog = points.survey.catalog
    return Points(survey(scenario, catalog, allowed(catalog.offers, scenario.supply)), points.deadline)
