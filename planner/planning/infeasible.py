"""Why there is no plan, and the smallest change of each demand that would make one. Every change is proven by solving again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import ceil

from planner.candidates.columns import UNHOSTED, Formulation, formulation, known_draws
from planner.candidates.eligibility import counted, needed
from planner.candidates.offers import in_the_way
from planner.candidates.points import Points
from planner.candidates.residency import may_serve
from planner.candidates.survey import tiers_of
from planner.deadline import NEVER, Deadline
from planner.errors import PlannerError, TimeUp
from planner.performance.evidence import TIERS
from planner.planning.conflict import conflict_of, last_that, nearest, smallest_together
from planner.planning.demands import LEAST_TRAFFIC, Requirement, demands
from planner.planning.feasible import Feasible, growth, largest, rounded_down, rounded_up
from planner.program.optimum import least_relaxation
from planner.program.places import sections
from planner.program.problem import Problem, Solution, Status
from planner.program.solver import SolverOptions
from planner.scenario.caps import AskedCap, caps
from planner.scenario.change import assumed
from planner.scenario.records import Policy, Scenario
from planner.scenario.units import format_duration
from planner.search.answer import Answer, answer, options_of

POLICIES = ("evidence", "margin", "recovery", "age")  # kinds of demands on what is known, which any workload may fail by
PRUDENT = " (--prudent is --spare-replicas 1 --worst-recovery --max-price-age 90 and the nearest --evidence: to loosen one, ask for the others by name)"
WIDEST = 64.0  # latency limits are widened up to this many times, then dropped
UNSURE = ", perhaps less"  # where the least was not proven in time
SEARCH_SHARE, SOLVE_TIME_S, SOLVE_GAP = 0.4, 1.0, 0.01  # of the time limit, for single changes; of each solve
COST_TIME_S = 5.0  # for the least budget


class Infeasible(PlannerError):
    """No plan meets all demands; exit status 1.

    ``changes``: the smallest single changes that would make one. ``conflict``: demands that cannot be met together, though any
    one fewer could. ``together``: the change of several demands at once whose largest factor is least. ``unsearched``: what time did
    not suffice for.
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
    base = _at_any_cost(points, scenario, found.formulation)
    excluded = points.survey.excluded + base.excluded
    solver = scenario.solver.model_copy(update={"time_limit": min(SOLVE_TIME_S, scenario.solver.time_limit), "gap": max(SOLVE_GAP, scenario.solver.gap)})
    scenario = scenario.model_copy(update={"solver": solver})
    feasible = Feasible(points, scenario)
    served = {w for c in base.problem.columns if c.offers for w in (*c.tiers, *c.shared)}
    hopeless = [w for w in range(len(scenario.workload)) if w not in served]
    what = _nothing_serves(points, scenario, hopeless[0], base.excluded[UNHOSTED]) if hopeless else f"{demands_in_words(scenario)} cannot all be met"
    what += _nowhere_together(points, scenario)
    what += PRUDENT if scenario.policy.prudent else ""
    changes = tuple(_smallest_changes(feasible, scenario, hopeless, None if hopeless else base))
    conflict = () if hopeless and changes else conflict_of(scenario, feasible)
    unsearched = ["which demands are in conflict"] if conflict is None else []
    try:
        alone = bool(changes) and (bool(hopeless) or len(conflict or ()) == 1)
        together = None if alone else smallest_together(scenario, feasible)
    except TimeUp:
        together, unsearched = None, [*unsearched, "how far all demands would have to move together"]
    words = str(together) if together and (len(together.words) > 1 or not changes) else ""
    return Infeasible(what, changes, excluded, conflict or (), words, " and ".join(unsearched) + " (raise --time-limit)" if unsearched else "")


def _at_any_cost(points: Points, scenario: Scenario, found: Formulation) -> Formulation:
    """The formulation of a scenario with what no plan within its budget uses, too."""
    if scenario.policy.budget is None:
        return found
    free = formulation(points, assumed(scenario, "policy", budget=None))
    return replace(free, scenario=scenario, problem=replace(free.problem, rules=found.problem.rules))


def _nothing_serves(points: Points, scenario: Scenario, w: int, unhosted: int) -> str:
    """Why no candidate serves a workload: quality, data, memory, offers or SLO. unhosted: candidates that would, if any instance held them."""
    workload, everyone = scenario.workload[w], points.survey.eligible
    name = f"workload '{workload.name}': " if len(scenario.workload) > 1 else ""
    if workload.has_places and points.survey.offers and not any(may_serve(o, workload) for o in points.survey.offers):
        return f"{name}nothing is on offer where its data may be ({' or '.join((*workload.regions, *workload.geographies))})"
    able = [e for e in everyone if not e.why[w]]
    if not able:
        return name + _nobody_eligible(points, scenario, w)
    good = f"{name}{len(able)} checkpoint{'s are' if len(able) > 1 else ' is'} good enough, but none"
    if not points.survey.offers:
        why = in_the_way(points.survey.catalog, scenario.supply)
        return f"{name}nothing is on offer: no price matches the supply asked for" + (f" (there would be without {' or '.join(why)})" if why else "")
    if not known_draws(points.survey.offers, scenario, points.survey.catalog):
        return f"{name}nothing is on offer whose power and carbon are known, as far as they are asked for (--carbon-intensity supposes carbon)"
    if not (points.survey.physics[w].slots > 0).any():
        return f"{good} has capacity data, kernels, memory or an offer on the GPUs asked for ({_main(points.survey.excluded)})"
    if not _at_tier(points, scenario, w):
        return f"{good} is known on any GPU asked for by evidence as near as {scenario.policy.evidence}"
    if unhosted:
        return f"{good} that keeps the limits fits an instance on offer: {unhosted} would on more GPUs joined than any has"
    slo = ", ".join(f"{s.metric} p{s.percentile:g} {format_duration(s.seconds)}" for s in workload.limits)
    thinks = all(e.served.mode == "thinking" for e in able)
    note = "; they all reason first, and TTFT counts to the first token of the answer" if thinks else ""
    tier = "" if scenario.policy.evidence == TIERS[-1] else f", by evidence no thinner than {scenario.policy.evidence},"
    return f"{good} meets {slo} on any GPU asked for{tier} at lengths {workload.input_tokens:g}/{workload.output_tokens:g}{note}"


def _nowhere_together(points: Points, scenario: Scenario) -> str:
    """That no one location may have the data of all workloads, where no more are allowed."""
    restricted = [w for w in scenario.workload if w.has_places]
    if not restricted or scenario.policy.max_locations > 1 or any(all(may_serve(o, w) for w in restricted) for o in points.survey.offers):
        return ""
    return f": no one location may have the data of {' and '.join(w.name for w in restricted)}, and one is allowed (--max-locations)"


def _more_locations(feasible: Feasible, scenario: Scenario) -> Iterator[str]:
    """The fewest more locations that would do, where data must be at several."""
    some = range(scenario.policy.max_locations + 1, len(scenario.workload) + 1)
    found = next((n for n in some if feasible(assumed(scenario, "policy", max_locations=n))), None)
    if found:
        yield f"{found} locations instead of {scenario.policy.max_locations}"


def _at_tier(points: Points, scenario: Scenario, w: int) -> bool:
    """Whether any row with room for a workload has evidence as near as asked for."""
    survey, rows = points.survey, (points.survey.physics[w].slots > 0).nonzero()[0]
    tiers = tiers_of(survey, rows)
    return bool((tiers <= TIERS.index(scenario.policy.evidence)).any())


def _nobody_eligible(points: Points, scenario: Scenario, w: int) -> str:
    """No checkpoint may serve: too good a floor, or no data."""
    workload, everyone = scenario.workload[w], points.survey.eligible
    reasons = Counter(e.why[w] for e in everyone if e.why[w])
    policy = scenario.policy
    scores = [(counted(q, policy), e.name) for e in everyone if (q := e.quality[w]) is not None and e.why[w] in ("quality", "no output factor")]
    if not (reasons["quality"] and scores and workload.min_quality is not None):
        return f"no checkpoint may serve ({', '.join(f'{n} {why}' for why, n in reasons.most_common())})"
    best, who = max(scores)
    reach = f"{workload.quality_metric} {needed(workload.min_quality, policy):g}{_why_so(policy)}"
    text = f"no checkpoint that may serve reaches {reach}; the best is {who} with {best:.4g}"
    if reasons["no score"]:
        text += f"; {reasons['no score']} checkpoints have no {workload.quality_metric} score, which is no data rather than a no"
    if reasons["no output factor"]:
        text += f"; {reasons['no output factor']} reasoning checkpoints lack an output factor (--output-factor)"
    return text


def _why_so(policy: Policy) -> str:
    """By what rules a score must be what it must be."""
    parts = [f"the floor and a margin of {policy.quality_margin:g}"] if policy.quality_margin else []
    parts += ["derived scores counted at the worst recovery"] if policy.worst_recovery else []
    return f" ({', '.join(parts)})" if parts else ""


def _main(excluded: Counter[str]) -> str:
    return ", ".join(f"{n:,} {why}" for why, n in excluded.most_common(4))


def demands_in_words(scenario: Scenario) -> str:
    """The demands in force, in words."""
    words = [
        f"{w.rate:g} {w.unit}"
        + (f" with peaks of x{w.burst_factor:g}" if w.burst_factor > 1 else "")
        + (f" at quality {w.min_quality:g}" if w.min_quality is not None else "")
        for w in scenario.workload
    ]
    words += [f"mean quality {w.mean_quality:g}" for w in scenario.workload if w.mean_quality is not None]
    words += [c.said(c.field.short) for c in caps(scenario)]
    words += [d.name for d in demands(scenario) if d.kind in ("spare", "loss", "changes", *POLICIES)]
    return ", ".join(words)


def _smallest_changes(feasible: Feasible, scenario: Scenario, hopeless: list[int], base: Formulation | None) -> list[str]:
    """One line for each demand that would do alone; the search is given up, and says so, when it takes too long.

    hopeless: workloads that no candidate serves, where only what decides that is searched. base: the formulation, where there is none.
    """
    feasible = feasible.until(feasible.deadline.share(SEARCH_SHARE))
    searches: list[Callable[[], Iterable[str]]] = []
    if base is not None and base.problem.columns:
        searches += [partial(_more_changes, base)] if scenario.supply.max_changes is not None else []
        searches += [partial(_relaxed_rules, replace(base, deadline=feasible.deadline)), partial(_less_traffic, feasible, scenario)]
    wanted = [d for d in demands(scenario) if (d.workload in hopeless if hopeless else d.workload >= 0 or d.kind in ("spare", "loss")) or d.kind in POLICIES]
    searches += [partial(_more_locations, feasible, scenario)] if any(w.has_places for w in scenario.workload) else []
    alone: dict[str, Callable[[Feasible, Scenario, Requirement], Iterable[str]]] = {
        "spare": _fewer_spares,
        "loss": _no_loss,
        **dict.fromkeys(POLICIES, _less_known),
    }
    alone |= {"floor": _lower_floor, "mean": _lower_mean}
    searches += [partial(alone[kind], feasible, scenario, d) for kind in alone for d in wanted if d.kind == kind]
    searches.append(partial(_wider_limits, feasible, scenario, [d for d in wanted if d.kind == "limit"]))
    found: list[str] = []
    try:
        for search in searches:
            for change in search():  # what a search found before time was up stays
                found.append(change)
    except TimeUp:
        found.append("perhaps others (the search for changes was stopped: raise --time-limit)")
    return found


def _relaxed_rules(base: Formulation) -> Iterator[str]:
    """Budget by the cheapest plan without one; other caps by the elastic program, with one location allowed at the best one."""
    problem, rules, asked = base.problem, base.problem.rules, caps(base.scenario)
    if budget := next((c for c in asked if c.is_money), None):
        solver = base.scenario.solver.model_copy(update={"gap": 0.0, "time_limit": COST_TIME_S})
        free = replace(problem, rules=rules.without(budget.field.name))
        found = answer(replace(base, problem=free, scenario=base.scenario.model_copy(update={"solver": solver})), break_ties=False)
        if found.found:
            yield _raised([budget], {budget.key: found.cost - budget.most}, "" if found.solution.status == Status.OPTIMAL else UNSURE)
    yield from _smaller_orders(base)
    places = [s.problem for s in sections(problem) if s.problem.columns] if rules.max_locations == 1 else [problem]
    yield from _relaxations(places, [c for c in asked if not c.is_money], replace(options_of(base), gap=0.0), base.deadline)


def _smaller_orders(base: Formulation) -> Iterator[str]:
    """Fewer instances of what is sold in many, where that alone would do: those of the cheapest plan if any number could be had."""
    problem = base.problem
    if all(o.minimum == 1 for o in problem.offers):
        return
    free = replace(problem, offers=tuple(replace(o, minimum=1) for o in problem.offers))
    found = answer(replace(base, problem=free), break_ties=False)
    held = [(base.offers[o], n) for o, n in found.solution.held.items() if n < problem.offers[o].minimum]
    if found.found and held:
        yield " and ".join(f"{n} x {offer.instance_type} at {offer.provider} (sold in no fewer than {offer.minimum})" for offer, n in held)


def _more_changes(base: Formulation) -> Iterator[str]:
    """The fewest changes from today's fleet that would do, proven by the elastic program."""
    problem, most = base.problem, base.scenario.supply.max_changes or 0
    places = [s.problem for s in sections(problem) if s.problem.columns] if problem.rules.max_locations == 1 else [problem]
    found = [least_relaxation(p, "max_changes", replace(options_of(base), gap=0.0)) for p in places]
    more = [ceil(s.slack.get("max_changes", 0.0) - 1e-6) for s in found if s.status == Status.OPTIMAL]
    if more:
        yield f"{most + min(more)} changes from today's fleet (+{min(more)})"


def _raised(of: Sequence[AskedCap], slack: Mapping[str, float], unsure: str) -> str:
    """Caps of one field that are raised by so much each, as one change."""
    new = [(cap, cap.rounded_up(cap.most + slack[cap.key])) for cap in of if cap.key in slack]
    words = new[0][0].field.lead + " and ".join(cap.said(cap.field.change, amount) for cap, amount in new)
    cap, amount = new[0]
    return words + (unsure if cap.field.by else f" ({cap.more(amount)}{unsure})")


def tables_infeasible(problem: Problem, scenario: Scenario, options: SolverOptions, deadline: Deadline = NEVER) -> Infeasible:
    """The error for a problem from the user's own tables."""
    asked = caps(scenario)
    words = [f"{len(problem.demands)} classes", *(c.said(c.field.short) for c in asked)]
    return Infeasible(f"{', '.join(words)} cannot all be met", tuple(_relaxations([problem], asked, options, deadline)), {})


def _relaxations(places: list[Problem], asked: Sequence[AskedCap], options: SolverOptions, deadline: Deadline) -> Iterator[str]:
    """Caps, those of one field together, each relaxed by least; "perhaps less" where the least was not proven in time. Raises TimeUp."""

    def relaxed_at(problem: Problem, relax: str) -> Solution:
        left = min(options.time_limit_s, deadline.left())
        return least_relaxation(problem, relax, replace(options, time_limit_s=left)) if left else Solution(Status.UNKNOWN)

    def least(relax: str) -> tuple[Mapping[str, float], str] | None:
        solutions = [s for problem in places if (s := relaxed_at(problem, relax)).status != Status.INFEASIBLE]
        if deadline.passed() and not any(s.found for s in solutions):
            raise TimeUp()
        best = min((s for s in solutions if s.found), key=lambda s: sum(s.slack.values()), default=None)
        unproven = any(s.status != Status.OPTIMAL for s in solutions)
        return (best.slack, UNSURE if unproven else "") if best and best.slack else None

    for field in dict.fromkeys(c.field for c in asked):
        if relaxed := least(field.name):
            slack, unsure = relaxed
            of = [c for c in asked if c.field == field]
            yield _raised(of, {c.key: slack[c.name] for c in of if c.name in slack}, unsure)


def _less_traffic(feasible: Feasible, scenario: Scenario) -> Iterator[str]:
    """The largest traffic of the first workload, to its last digit, that can be served with all others in proportion."""
    rates = [d for d in demands(scenario) if d.kind == "traffic"]

    def amounts(first: float) -> list[float]:
        return [min(first, rates[0].asked), *(rounded_down(d.asked * first / rates[0].asked) for d in rates[1:])]

    def grows(first: float) -> float:
        asked = scenario
        for d, amount in zip(rates, amounts(first), strict=True):
            asked = d.put(asked, amount)
        found = feasible.plan(asked)
        return growth(found, range(len(rates))) if found.found else 0.0

    least = rounded_down(rates[0].asked * LEAST_TRAFFIC)
    if grows(least):
        most = largest(least, rates[0].asked, grows)
        yield f"{', '.join(d.words(x) for d, x in zip(rates, amounts(most), strict=True))} ({rounded_down(most / rates[0].asked, 3):g} of the traffic)"


def _fewer_spares(feasible: Feasible, scenario: Scenario, d: Requirement) -> Iterator[str]:
    """As many spare replicas as there may be."""
    if feasible(d.put(scenario, 0)):
        most = last_that(range(int(d.asked)), lambda k: feasible(d.put(scenario, k)))
        yield f"{d.words(most)} instead of {d.asked:.0f}"


def _no_loss(feasible: Feasible, scenario: Scenario, d: Requirement) -> Iterator[str]:
    """Bearing none, where that would do."""
    if feasible(d.dropped(scenario)):
        yield f"{d.words(0)} instead of {scenario.policy.redundancy}"


def _less_known(feasible: Feasible, scenario: Scenario, d: Requirement) -> Iterator[str]:
    """The nearest thinner evidence, smaller margin, mean recovery, or older prices that would do."""
    options: dict[str, list[float]] = {
        "evidence": [float(i) for i in range(len(TIERS), int(d.asked), -1)],
        "margin": [i / 1e4 for i in range(ceil(d.asked * 1e4 - 1e-6))],
        "recovery": [0.0],
        "age": [days for days in feasible.ages() if days > d.asked],
    }
    looser = options[d.kind]
    if looser and feasible(d.put(scenario, looser[0])):
        was = scenario.policy.evidence if d.kind == "evidence" else "the worst" if d.kind == "recovery" else f"{d.asked:g}"
        yield f"{d.words(last_that(looser, lambda amount: feasible(d.put(scenario, amount))))} instead of {was}"


def _lower_floor(feasible: Feasible, scenario: Scenario, d: Requirement) -> Iterator[str]:
    """The highest lower floor with a plan."""
    scores = [s for s in feasible.scores(d.workload) if s < d.asked]
    if scores and feasible(d.put(scenario, scores[0])):
        yield f"{d.words(last_that(scores, lambda floor: feasible(d.put(scenario, floor))))} instead of {d.asked:g}"


def _lower_mean(feasible: Feasible, scenario: Scenario, d: Requirement) -> Iterator[str]:
    """The highest lower mean quality with a plan."""
    if feasible(d.put(scenario, 0.0)):
        yield f"{d.words(nearest(d, 0.0, partial(d.put, scenario), feasible))} instead of {d.asked:g}"


def _wider_limits(feasible: Feasible, scenario: Scenario, limits: list[Requirement]) -> Iterator[str]:
    """The least of each latency limit that would do alone, to about a percent."""
    free = scenario
    for d in limits:
        free = d.dropped(free)
    for d in limits if feasible(free) else ():  # where none does without all limits, none does without one
        widest = d.loosened(WIDEST)
        if feasible(d.put(scenario, widest)):
            least = nearest(d, widest, partial(d.put, scenario), feasible)
            yield f"{d.words(rounded_up(least))} instead of {format_duration(d.asked)}"
        elif feasible(d.dropped(scenario)):
            yield f"no limit on {d.words(widest).replace(' of ', ' (', 1)} is still too tight)"
