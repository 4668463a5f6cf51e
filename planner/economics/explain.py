"""Why this plan: what each demand costs at the margin, why not another GPU, model or provider, and the runners-up.

Two kinds of marginal cost, never mixed. "Next step": the scenario with one demand changed, solved again; whole replicas and
instances count. "Long run": the LP relaxation, in which they do not and every pool has its best capacity; its differences for
demands, its duals for limits on supply.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf

from planner.candidates.columns import formulation
from planner.candidates.eligibility import is_named
from planner.candidates.offers import allowed
from planner.catalog.catalog import Catalog
from planner.catalog.hardware import gpus_meant
from planner.economics.change import checkpoints_of, traffic_of
from planner.economics.noise import Noise, noise
from planner.economics.runs import HERE, Done, Where, answer_one, answers, least_cost, quietly
from planner.economics.store import Result
from planner.economics.sweep import headroom
from planner.errors import ScenarioError, did_you_mean
from planner.planning.infeasible import Infeasible
from planner.planning.solve import solve
from planner.program.optimum import relaxed_cost
from planner.program.places import sections
from planner.program.problem import Column, Problem
from planner.result.plan import Plan
from planner.scenario.apply import catalog_for
from planner.scenario.caps import AskedCap, caps
from planner.scenario.change import assumed, require_gpus_alone, with_workload, with_workloads
from planner.scenario.records import Scenario
from planner.scenario.units import format_duration
from planner.search.prudent import careful
from planner.search.survey_cache import SurveyCache

STEP = 0.1  # of a limit: one step tighter or looser
QUALITY_STEP = 0.01
BEYOND = 1e-4  # of a rate: just past what a plan carries
SMALL = 1e-3  # of a demand: the difference that the long run is taken over
FASTEST = 0.05  # step factor down to which a capacity break-even is looked for
NEAR_GUESS, FINE_STEP = 1.1, 1.001  # ratio around the first guess, and to which it is found


@dataclass(frozen=True)
class Margin:
    """One demand at the margin. Costs are those of the whole plan, $/h; None = no plan (or not asked).

    ``long_run_usd_per_hour``: change of the LP relaxation per ``long_run_per``.
    """

    demand: str
    now: str
    tighter: str
    tighter_usd_per_hour: float | None
    looser: str
    looser_usd_per_hour: float | None
    long_run_usd_per_hour: float | None
    long_run_per: str


@dataclass(frozen=True)
class WhyNot:
    """The cheapest plan with something that the best plan does not use, and what would have to change for it to win.

    ``price_factor``: its price has to fall to this share of today's (of a model: the price of all GPUs that it would run on, and of none that the
    best plan runs on). ``step_factor``: or its steps to this share of the time
    predicted at the confidence asked. None: no plan, or nothing within reach makes it win.
    """

    name: str
    kind: str  # GPU, model or provider
    plan: Plan | None
    premium: float | None
    price_factor: float | None
    step_factor: float | None
    why: str
    noise: Noise | None = None  # against the best plan


@dataclass(frozen=True)
class Explanation:
    """The plan with its margins, and what was asked about it."""

    plan: Plan
    margins: tuple[Margin, ...]
    why_not: tuple[WhyNot, ...] = ()
    runners_up: tuple[Plan, ...] = ()


def explain(
    scenario: Scenario, catalog: Catalog, *, why_not: Sequence[str] = (), runners_up: int = 0, within: float = 1.0, where: Where = HERE, done: Done = quietly
) -> Explanation:
    """Margins of the scenario's plan, answers to why-not questions, and the k cheapest plans of another structure.

    Raises Infeasible when there is no plan, ScenarioError for a name nobody knows.
    """
    require_gpus_alone(scenario, "an explanation")
    cache = SurveyCache(catalog)
    plan = answer_one(scenario, cache).plan
    if plan is None:
        solve(scenario, catalog, compare=False)  # raises with the whole explanation
        raise AssertionError
    if scenario.policy.prudent:  # what is varied stands on the evidence that the plan reached
        scenario = careful(assumed(scenario, "policy", evidence=plan.scenario.policy.evidence))
    rejected = tuple(why_not_of(name, plan, scenario, cache) for name in why_not)
    return Explanation(plan, margins(plan, scenario, cache, where, done), rejected, k_cheapest(plan, scenario, cache, runners_up, within))


# ---- margins


def margins(plan: Plan, scenario: Scenario, cache: SurveyCache, where: Where = HERE, done: Done = quietly) -> tuple[Margin, ...]:
    """Every demand in force, one step to either side; the re-solves run together."""
    rows = [r for w in range(len(scenario.workload)) for r in _demand_rows(plan, scenario, w)] + _supply_rows(plan, scenario)
    questions = [s for r in rows for s in (r.tighter[1], r.looser[1]) if s is not None]
    results = iter(answers(questions, cache.catalog, where, done, cache))
    base, duals = long_run(scenario, cache)
    found = []
    for r in rows:
        costs = [_cost(next(results)) if s is not None else None for _, s in (r.tighter, r.looser)]
        found.append(Margin(r.demand, r.now, r.tighter[0], costs[0], r.looser[0], costs[1], r.long_run(base, duals, cache), r.per))
    return tuple(found)


LongRun = Callable[[float, dict[str, float], SurveyCache], float | None]


@dataclass(frozen=True)
class _Row:
    demand: str
    now: str
    tighter: tuple[str, Scenario | None]
    looser: tuple[str, Scenario | None]
    long_run: LongRun
    per: str


def _cost(result: Result) -> float | None:
    return result.cost if result.plan else None


def _demand_rows(plan: Plan, scenario: Scenario, w: int) -> list[_Row]:
    """Rate, floor and limits of one workload."""
    workload = scenario.workload[w]
    label = f"{workload.name} " if len(scenario.workload) > 1 else ""
    rows = [_rate_row(plan, scenario, w, label)]
    served = plan.workloads[w].min_quality_served
    if workload.min_quality is not None and served is not None:
        lower = max(workload.min_quality - QUALITY_STEP, 0.0)
        higher, less = (with_workload(scenario, w, min_quality=q) for q in (served - scenario.policy.quality_margin + 1e-6, lower))
        steps = (f"above {served:.4f}", higher), (f"{lower:.4g}", less)
        rows.append(_Row(f"{label}quality floor", f"{workload.min_quality:g}", *steps, _difference(less), f"{QUALITY_STEP:g} less"))
    for slo in workload.limits:
        tight, loose = (with_workload(scenario, w, slo={**workload.slo, slo.name: slo.seconds * f}) for f in (1 - STEP, 1 + STEP))
        texts = [format_duration(float(f"{slo.seconds * f:.4g}")) for f in (1 - STEP, 1 + STEP)]
        rows.append(_Row(label + slo.words, format_duration(slo.seconds), (texts[0], tight), (texts[1], loose), _difference(loose), f"{STEP:.0%} more"))
    return rows


def _rate_row(plan: Plan, scenario: Scenario, w: int, label: str) -> _Row:
    """Traffic: just past what the plan carries, and a step less."""
    workload = scenario.workload[w]
    field, unit, now = traffic_of(workload)
    most = headroom(plan, w) if field == "qps" and workload.burst_factor == 1 else None
    up, down = (most * (1 + BEYOND) if most else now * (1 + STEP)), now * (1 - STEP)
    more, less = (with_workload(scenario, w, **{field: amount}) for amount in (up, down))
    steps = (f"{up:.5g} {unit}", more), (f"{down:.5g} {unit}", less)
    rate = workload.rate_field  # the long run knows no answers, so users are the rate that they came to
    slightly = with_workload(scenario, w, **{rate: workload.rate * (1 + SMALL)})
    per = "req/s more" if rate == "qps" else "in flight more"
    return _Row(f"{label}traffic", f"{now:g} {unit}", *steps, _difference(slightly, workload.rate * SMALL), per)


def _supply_rows(plan: Plan, scenario: Scenario) -> list[_Row]:
    """Caps: on money and power a step to either side, on GPUs one, or an instance of the plan's where one type is counted."""
    rows = []
    for cap in caps(scenario):
        size = cap.most * cap.field.moves or next(
            (p.gpus_per_instance for p in plan.purchases if cap.scope and cap.scope <= {p.gpu, p.provider, p.region, p.zone}), 1
        )
        less, more = (cap.most - size, cap.most + size)
        steps = [(_amount(cap, x), cap.put(scenario, x)) for x in (max(less, 0.0), more)]
        lower = (steps[0][0], None) if not cap.key and less <= 0 else steps[0]
        rows.append(_Row(cap.said(cap.field.row), _amount(cap, cap.most), lower, steps[1], _dual(cap.name), cap.field.unit))
    return rows


def _amount(cap: AskedCap, amount: float) -> str:
    return f"${amount:,.2f}/h" if cap.is_in_dollars else f"{amount:.10g}"


def _difference(changed: Scenario, size: float = 1.0) -> LongRun:
    """The one-sided difference of the LP relaxation, per unit where the change is of ``size`` units."""

    def difference(base: float, _: dict[str, float], cache: SurveyCache) -> float | None:
        other, _duals = long_run(changed, cache)
        return (other - base) / size if max(base, other) < inf else None

    return difference


def _dual(name: str) -> LongRun:
    return lambda base, duals, _: duals.get(name, 0.0) if base < inf else None


def long_run(scenario: Scenario, cache: SurveyCache) -> tuple[float, dict[str, float]]:
    """Cost of the scenario's LP relaxation, at the best location where only one is allowed, and its duals. Infinite if infeasible."""
    priced = catalog_for(cache.catalog, scenario)
    problem = formulation(cache.points(scenario, priced.offers), scenario).problem
    places = [s.problem for s in sections(problem)] if problem.rules.max_locations == 1 else [problem]
    return min((relaxed_cost(large_scale(p)) for p in places if p.columns), key=lambda x: x[0], default=(inf, {}))


def large_scale(problem: Problem) -> Problem:
    """The problem without sizes of pools: each column at its best capacity, however few replicas serve."""

    def best(column: Column) -> Column:
        return replace(column, tiers={w: (replace(max(t, key=lambda x: x.capacity), replicas=1),) for w, t in column.tiers.items() if t})

    return replace(problem, columns=tuple(best(c) for c in problem.columns))


# ---- why not


def why_not_of(name: str, plan: Plan, scenario: Scenario, cache: SurveyCache) -> WhyNot:
    """The cheapest plan that uses nothing but the named GPU, model or provider, and its break-evens, each verified by solving again."""
    kind, exact, restricted = restricted_to(name, scenario, cache.catalog)
    found = answer_one(restricted, cache).plan
    best = plan.cost.usd_per_hour
    if found is None:
        return WhyNot(exact, kind, None, None, None, None, _reason(restricted, cache.catalog))
    premium = found.cost.usd_per_hour / best - 1
    if premium <= 1e-9:
        return WhyNot(exact, kind, found, premium, None, None, "the best plan uses it")
    step = _step_break_even(restricted, found.cost.usd_per_hour, best, cache)
    carbon = found.carbon_usd_per_hour  # all else of its cost is priced alike, so that it is proportional to the factor
    price = max(best - carbon, 0.0) / (found.cost.usd_per_hour - carbon)
    return WhyNot(exact, kind, found, premium, price, step, _differences_in_words(found, plan), noise(found, plan))


def restricted_to(name: str, scenario: Scenario, catalog: Catalog) -> tuple[str, str, Scenario]:
    """(kind, name in the catalogue's spelling, scenario that may use nothing else). Raises ScenarioError."""
    providers = {o.provider for o in catalog.offers}
    gpus = gpus_meant(name, catalog.gpus)
    provider = next((p for p in providers if p.lower() == name.lower()), None)
    if gpus:
        return "GPU", gpus[0] if len(gpus) == 1 else name, assumed(scenario, "supply", gpus=gpus, exclude_gpus=())
    if provider is not None:
        return "provider", provider, assumed(scenario, "supply", providers=(provider,), exclude_providers=(), kinds=_kinds(scenario, catalog, provider))
    if any(is_named(s, (name,)) for s in catalog.served):
        return "model", name, with_workloads(scenario, (w.model_copy(update={"models": (name,)}) for w in scenario.workload))
    everything = [*catalog.gpus, *providers, *(c.name for c in catalog.cards)]
    raise ScenarioError(f"no GPU, model or provider is called '{name}'", "--why-not", did_you_mean(name, everything) or "see plan catalog gpus, models, prices")


def _kinds(scenario: Scenario, catalog: Catalog, provider: str) -> tuple[str, ...]:
    """The kinds asked for, and the provider's own: who asks about a reseller wants it considered."""
    return tuple(dict.fromkeys((*scenario.supply.kinds, *(o.kind for o in catalog.offers if o.provider == provider))))


def _step_break_even(restricted: Scenario, found: float, best: float, cache: SurveyCache) -> float | None:
    """The largest factor on its step times with which it costs no more than the best plan; to about 0.1 %.

    found: its cost at today's step times. Cost goes roughly with the factor, so the search begins where that would meet the best.
    """
    here = _narrowed_catalog(restricted, cache.catalog)

    def wins(factor: float) -> bool:
        return least_cost(assumed(restricted, "what_if", step_factor=restricted.what_if.step_factor * factor), here) <= best * (1 + 1e-9)

    low, high = _bracket(wins, best / found)
    while high > low * FINE_STEP and low:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if wins(middle) else (low, middle)
    return low or None


def _bracket(wins: Callable[[float], bool], guess: float) -> tuple[float, float]:
    """(a factor that wins, one that does not), from a guess outwards; 0 where not even FASTEST wins."""
    low = max(guess / NEAR_GUESS, FASTEST)
    if wins(low):
        high = min(low * NEAR_GUESS**2, 1.0)
        while high < 1.0 and wins(high):
            low, high = high, min(high * NEAR_GUESS**2, 1.0)
        return low, high
    high = low
    while high > FASTEST:
        low = max(high / NEAR_GUESS**2, FASTEST)
        if wins(low):
            return low, high
        high = low
    return 0.0, FASTEST


def _narrowed_catalog(restricted: Scenario, catalog: Catalog) -> SurveyCache:
    """The catalogue without what a restricted question may not use: every step factor surveys its candidates anew."""
    names = [w.models for w in restricted.workload]
    cards = tuple(c for c in catalog.cards if any(is_named(s, n) for s in catalog.served if s.card is c for n in names))
    return SurveyCache(replace(catalog, cards=cards, offers=allowed(catalog.offers, restricted.supply, catalog.newest_price)))


def _reason(restricted: Scenario, catalog: Catalog) -> str:
    """Why there is no plan at all with it."""
    try:
        solve(restricted, catalog, compare=False)
    except Infeasible as error:
        return str(error)
    return "no plan"


def _differences_in_words(found: Plan, plan: Plan) -> str:
    """Price and throughput per GPU against the plan's."""
    price, ours = (p.cost.usd_per_hour / p.gpus_held for p in (found, plan))
    rate, our_rate = (sum(w.qps for w in p.workloads) / p.gpus_used for p in (found, plan))
    idle = found.gpus_held - found.gpus_used
    parts = [f"${price:.2f} per GPU-hour against ${ours:.2f}", f"{rate:.3g} req/s per GPU against {our_rate:.3g}"]
    return "; ".join([*parts, *([f"{idle} of {found.gpus_held} GPUs idle in whole instances"] if idle else [])])


# ---- runners-up


@dataclass(frozen=True)
class _Branch:
    """Plans whose (model, GPU, provider, purchase) begin with ``fixed`` and avoid ``without`` at the next place."""

    fixed: tuple[str, ...]
    without: tuple[str, ...]


def k_cheapest(plan: Plan, scenario: Scenario, cache: SurveyCache, k: int, within: float) -> tuple[Plan, ...]:
    """The k cheapest plans whose models, GPU types, providers or ways of purchase differ from each other's and the plan's, cheapest first (of
    equals the one of fewest distinct things), none dearer than (1 + within) times the plan.

    Exact where one deployment serves: the space is cut into what shares the first parts of a found structure and differs in the
    next (Lawler 1972), and each part is solved. Of a plan of several deployments, all its models, GPUs or providers count as one.
    """
    most = plan.cost.usd_per_hour * (1 + within)
    found: list[Plan] = []
    queue = _branches(plan, scenario, cache, _Branch((), ()), most)
    seen = {_parts(plan)}
    while queue and len(found) < k:
        queue.sort(key=lambda x: (round(x[0].cost.usd_per_hour, 6), distinct(x[0])))
        best, branch = queue.pop(0)
        if _parts(best) not in seen:
            seen.add(_parts(best))
            found.append(best)
        queue += _branches(best, scenario, cache, branch, most)
    return tuple(found)


def distinct(plan: Plan) -> int:
    """How many different things there are to run and to buy: models, GPU types, providers and ways of purchase."""
    return sum(len(part.split("+")) for part in _parts(plan))


def _parts(plan: Plan) -> tuple[str, str, str, str]:
    """Models, GPU types, providers and ways of purchase as one name each."""
    models, gpus = (sorted({getattr(d, name) for d in plan.deployments}) for name in ("model", "gpu"))
    providers, ways = (sorted({getattr(p, name) for p in plan.purchases}) for name in ("provider", "purchase"))
    return "+".join(models), "+".join(gpus), "+".join(providers), "+".join(ways)


def _branches(plan: Plan, scenario: Scenario, cache: SurveyCache, branch: _Branch, most: float) -> list[tuple[Plan, _Branch]]:
    """The best plan of each part of a branch that lacks this plan."""
    parts, depth = _parts(plan), len(branch.fixed)
    found = []
    for place in range(depth, len(parts)):
        avoided = (*(branch.without if place == depth else ()), *parts[place].split("+"))
        new = _Branch(parts[:place], avoided)
        question = _narrowed(scenario, cache.catalog, new, most)
        other = answer_one(question, cache).plan if question.supply.purchase else None
        if other is not None and other.cost.usd_per_hour <= most * (1 + 1e-9):  # a budget may be one on what is paid alone
            found.append((other, new))
    return found


def _narrowed(scenario: Scenario, catalog: Catalog, branch: _Branch, most: float) -> Scenario:
    """The scenario within a branch and under a cost."""
    fixed = [f.split("+") for f in branch.fixed]
    s, place = scenario, len(branch.fixed)
    if place > 0:
        models = tuple(c for name in fixed[0] for c in checkpoints_of(name, catalog))
        s = with_workloads(s, (w.model_copy(update={"models": models}) for w in s.workload))
    if place > 1:
        s = assumed(s, "supply", gpus=tuple(fixed[1]))
    if place == 0:
        s = assumed(s, "policy", exclude_models=(*s.policy.exclude_models, *branch.without))
    elif place == 1:
        s = assumed(s, "supply", exclude_gpus=(*s.supply.exclude_gpus, *branch.without))
    elif place == 2:
        s = assumed(s, "supply", exclude_providers=(*s.supply.exclude_providers, *branch.without))
    else:  # GPUs of one's own are no way of purchase: their owner is their provider, and has nothing else
        s = assumed(s, "supply", providers=tuple(fixed[2]), purchase=tuple(p for p in s.supply.purchase if p not in branch.without))
        s = assumed(s, "supply", exclude_providers=(*s.supply.exclude_providers, *fixed[2])) if "owned" in branch.without else s
    return assumed(s, "policy", budget=min(most, s.policy.budget or inf))
