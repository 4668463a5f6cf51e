"""A contract's search: which deployments serve over months and futures, what is committed to, and what is bought beside it in every hour.

As by the hour (hours.py): structures in the order of a bound, the program prices each. States are futures x months x hours of a day.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import gcd, inf
from typing import Literal

import numpy as np
from pyomo.core.base import Constraint, NonNegativeReals, Objective, Var
from pyomo.core.base.PyomoModel import ConcreteModel
from pyomo.core.util import quicksum

from planner.candidates.columns import Formulation
from planner.catalog.records import Offer
from planner.errors import TimeUp
from planner.program.alike import cheapest_over_states
from planner.program.kinds import StateIndex
from planner.program.places import LocalProblem
from planner.program.problem import Cap, Problem, Purchasable, Risk, Solution, State, Status
from planner.program.solver import SolverOptions, optimise
from planner.scenario.outlook import MONTHS, Outlook, Term
from planner.scenario.units import HOURS_PER_MONTH
from planner.search.hours import HourlyQuestion, PricedStructure, posed
from planner.search.structures import Block, Floats, Ints, Structure, StructureSpace

GAP = 0.03  # a contract counts as optimal within 3 %, or --gap where that is wider: forecasts are known no better

RESERVED: Mapping[str, Term] = {"reserved_1y": "1y", "reserved_3y": "3y"}  # ways to buy that are for a term alone


@dataclass(frozen=True)
class Horizon:
    """The states of a contract, in the order future, month, hour of a day (or week)."""

    outlook: Outlook
    hours: int  # of one day or week

    @property
    def months(self) -> int:
        """How many there are."""
        return self.outlook.months

    @cached_property
    def states(self) -> tuple[State, ...]:
        """Each hour of a day comes as often as a month has such days, and goes round within its month."""
        times = HOURS_PER_MONTH / self.hours
        return tuple(
            State(probability=f.probability, case=s, times=times, before=StateIndex(at + (h - 1) % self.hours) if self.hours > 1 else None)
            for s, f in enumerate(self.outlook.futures)
            for m in range(self.months)
            for at in [(s * self.months + m) * self.hours]
            for h in range(self.hours)
        )

    @property
    def total_hours(self) -> float:
        """Of the horizon."""
        return self.months * HOURS_PER_MONTH

    @cached_property
    def growth(self) -> Floats:
        """[state] traffic per traffic as stated."""
        return np.repeat([self.outlook.growth(f, m) for f in self.outlook.futures for m in range(self.months)], self.hours)

    def at(self, future: int, months: Sequence[int]) -> list[int]:
        """The states of some months of a future."""
        return [(future * self.months + m) * self.hours + h for m in months for h in range(self.hours)]

    def spans(self, term: Term) -> tuple[tuple[int, ...], ...]:
        """States of each commitment of a term: the first is signed now and holds in every future; the next when it ends, in each future as it is then.

        Later ones are signed if they end within the horizon; the first may go on after it.
        """
        length, futures = min(MONTHS[term], self.months), range(len(self.outlook.futures))
        now = tuple(i for s in futures for i in self.at(s, range(length)))
        later = [tuple(self.at(s, range(m, m + length))) for m in range(length, self.months - length + 1, length) for s in futures]
        return (now, *later)


@dataclass(frozen=True)
class ContractQuestion:
    """A contract's question made ready: the hourly one at the highest traffic of any state, and the rates of all of them."""

    hourly: HourlyQuestion  # rates: [workload, state]
    horizon: Horizon

    @property
    def outlook(self) -> Outlook:
        """As asked."""
        return self.horizon.outlook


@dataclass(frozen=True)
class Contract:
    """The best structure with its counts. ``offers``: of the solution, by index of the formulation, and the term they are committed for ("": none)."""

    structure: Structure
    problem: Problem
    solution: Solution
    offers: tuple[tuple[int, Term | Literal[""]], ...]
    bound: float  # $ over the horizon, of all structures
    solved: int


class ContractSpace(StructureSpace):
    """Structures with a bound that commitments do not undercut.

    Duality: a GPU needed in state i is worth v[i] $, 0 ≤ v[i] ≤ p·weight[i] (it may be bought for the hour), and over each span of a term
    Σ v[i] ≤ q·Σ weight[i] (it may be committed for), p and q the least prices of its type. Then Σ_i v[i]·GPUs[i] is no more than what covers them costs.
    Where a share σ of them may be spot, at r, a GPU is worth v[i] − σ·max(0, v[i] − r·weight[i]).
    """

    def __init__(self, formulation: Formulation, asked: ContractQuestion, slots: Ints, apart: frozenset[frozenset[int]]) -> None:
        super().__init__(formulation, asked.hourly.rates, slots, (), apart)
        self.asked = asked
        self.caps = tuple(replace(cap, of="usd") if cap.of == "paid" else cap for cap in self.caps)  # $ are of what is paid: cheapest_at
        self.weight = np.array([s.weight for s in asked.horizon.states])
        self.spot_share = formulation.problem.rules.most_spot  # None: all of it may be
        self.ratios = {t: asked.outlook.committed_price(t, 1.0) for t in asked.outlook.commit}
        self._worth: dict[tuple[int, str], Floats] = {}

    @cached_property
    def worth(self) -> Floats:
        """[state] of a GPU that costs 1 $/h by the hour, and for a term what is asked of it."""
        return state_worth(self.asked, 1.0, list(self.ratios.items()))

    def least_price(self, place: LocalProblem, offers: Sequence[int]) -> float:
        """Least $/h of a GPU of some offers of a place by the hour, of spot ones only where all may be; of those that are for a term alone the term's."""
        mine = [(place.problem.offers[o], self.term(place, o)) for o in offers]
        hourly = [o.usd_per_hour / o.gpus for o, term in mine if not term and (self.spot_share is None or not o.spot)]
        return min(hourly or [o.usd_per_hour / o.gpus for o, term in mine if term], default=inf)

    def term(self, place: LocalProblem, o: int) -> Term | Literal[""]:
        """What an offer of a place is for."""
        return term_of(self.formulation.offers[place.offers[o]])

    def least_cost(self, workloads: tuple[int, ...], place: int) -> Floats:
        """[candidate] $ that workloads cost at least over all states as its only ones."""
        able, needed = self.needs(workloads)
        here = [
            (self.gpus[c] * float(n @ self.worth_at(place, self.formulation.problem.columns[c].gpu))) if np.isfinite(self.prices[c, place]) else inf
            for c, n in zip(able, needed, strict=True)
        ]
        return np.array(here)

    def worth_at(self, place: int, gpu: str) -> Floats:
        """[state] $ of a GPU of a type; infinite where what is on offer does not reach over all states."""
        if (place, gpu) not in self._worth:
            here = self.places[place]
            mine = [(o.usd_per_hour / o.gpus, o.spot, self.term(here, k)) for k, o in enumerate(here.problem.offers) if o.gpu == gpu]
            hourly = min((p for p, spot, term in mine if not term and (self.spot_share is None or not spot)), default=inf)
            own = [(term, p) for p, _, term in mine if term]
            worth = self._worth_of(hourly, own)
            spot = min((p for p, is_spot, _ in mine if is_spot), default=inf)
            self._worth[place, gpu] = worth - (self.spot_share or 0.0) * np.maximum(worth - spot * self.weight, 0.0) if spot < inf else worth
        return self._worth[place, gpu]

    def _worth_of(self, hourly: float, own: Sequence[tuple[Term, float]]) -> Floats:
        """[state] of a GPU at a price by the hour (infinite: none) and those of offers for a term."""
        if not own:
            return self.worth * hourly
        terms = [*own, *((t, r * hourly) for t, r in self.ratios.items() if hourly < inf)]
        reached = {i for t, _ in terms for span in self.asked.horizon.spans(t) for i in span}
        return state_worth(self.asked, hourly, terms) if hourly < inf or len(reached) == len(self.weight) else np.full(len(self.weight), inf)

    def bound(self, place: int, blocks: Sequence[Block]) -> float:
        """No contract with these deployments costs less. Infinite beyond the limits."""
        offers, cost, dollars, every = self.places[place].problem.offers, 0.0, np.zeros(self.rates.shape[1]), self.taken(blocks)
        for gpu, taken in every.items():
            size = gcd(*(o.gpus for o in offers if o.gpu == gpu))  # all that can be held are multiples of it
            held = -(-taken // size) * size
            cost += float(held @ self.worth_at(place, gpu))
            dollars += held * self.cheapest_at(place, gpu)
        return inf if self.breaks_a_limit(place, every, dollars) else cost

    def cheapest_at(self, place: int, gpu: str) -> float:
        """$/h paid for a GPU at least, however it is bought."""
        here, ratio = self.places[place], min(self.ratios.values(), default=1.0)
        mine = [((o.usd_per_hour - o.unpaid) / o.gpus, o.spot or bool(self.term(here, k))) for k, o in enumerate(here.problem.offers) if o.gpu == gpu]
        return min(price if is_as_sold else price * min(ratio, 1.0) for price, is_as_sold in mine)

    def alike(self, structure: Structure) -> object:
        """What the cost of a structure follows from: structures that need the same of the same offers cost the same."""
        columns, place = self.formulation.problem.columns, set(self.places[structure.place].offers)
        parts = [(columns[b.candidate].gpus, tuple(o for o in columns[b.candidate].offers if o in place), self.need(b).tobytes()) for b in structure.blocks]
        return structure.place, tuple(sorted(parts))


def state_worth(asked: ContractQuestion, hourly: float, terms: Sequence[tuple[Term, float]]) -> Floats:
    """[state] v of ContractSpace at a price by the hour (infinite: none) and prices for terms, the best for the shape of all traffic together."""
    weight = np.array([s.weight for s in asked.horizon.states])
    if not terms:
        return weight * hourly
    rates = asked.hourly.rates
    shape = (rates / np.maximum(rates.max(axis=1, keepdims=True), 1e-300)).sum(axis=0)
    m = ConcreteModel()
    m.v = Var(range(len(weight)), domain=NonNegativeReals, bounds=lambda _, i: (0, hourly * float(weight[i]) if hourly < inf else None))
    groups = [(span, price) for t, price in terms for span in asked.horizon.spans(t)]
    m.most = Constraint(range(len(groups)), rule=lambda m, k: quicksum(m.v[i] for i in groups[k][0]) <= groups[k][1] * float(weight[list(groups[k][0])].sum()))
    m.objective = Objective(expr=-quicksum(float(shape[i]) * m.v[i] for i in m.v))
    optimise(m, SolverOptions())
    found: Floats = np.clip([m.v[i].value or 0.0 for i in range(len(weight))], 0.0, hourly * weight) * (1 - 1e-7)
    return found


def term_of(offer: Offer) -> Term | Literal[""]:
    """The term that an offer is for alone; "": it is had by the hour."""
    return RESERVED.get(offer.purchase, "")


def cheapest_contract(field: ContractSpace, asked: ContractQuestion) -> Contract | None:
    """Structures by rising bound, until the bound of the rest comes within the gap of the best found. Raises TimeUp without any."""
    solver, deadline = asked.hourly.scenario.solver, field.formulation.deadline
    gap = max(solver.gap, GAP)
    best: Contract | None = None
    unproven, solved, late = inf, 0, False
    known = set[object]()
    for bound, structure in field.cheapest_first():
        top = best.solution.cost if best else inf
        late = deadline.passed()
        if bound >= top * (1 - gap / 2) or late:
            unproven = min(unproven, bound)
            break
        if structure is None or (kind := field.alike(structure)) in known:
            continue
        known.add(kind)
        found = priced(field, asked, structure, SolverOptions(gap / 6, deadline.left(), solver.seed))
        solved += 1
        if found.solution.status != Status.INFEASIBLE:
            unproven = min(unproven, max(bound, found.solution.bound))
        if found.solution.cost < top:
            best = found
    if best is None and late:
        raise TimeUp()
    return replace(best, bound=min(unproven, best.solution.cost), solved=solved) if best else None


def priced(field: ContractSpace, asked: ContractQuestion, structure: Structure, options: SolverOptions) -> Contract:
    """The cheapest counts of one structure."""
    problem, offers = problem_of(field, asked, structure)
    return Contract(structure, problem, cheapest_over_states(problem, options), offers, 0.0, 0)


def problem_of(field: ContractSpace, asked: ContractQuestion, structure: Structure) -> tuple[Problem, tuple[tuple[int, Term | Literal[""]], ...]]:
    """A structure as the program is asked it, each offer as it is and once more for every term, and what its offers are."""
    columns, place = field.formulation.problem.columns, field.places[structure.place]
    used = tuple(sorted({o for b in structure.blocks for o in columns[b.candidate].offers if o in set(place.offers)}))
    plain = posed(field, asked.hourly, structure.blocks, (), used)
    sold = list(_sold(asked, plain.offers, [term_of(field.formulation.offers[o]) for o in used]))
    alike = {k: [j for j, (i, _, _) in enumerate(sold) if i == k] for k in range(len(used))}
    several = tuple(replace(c, offers=tuple(j for k in c.offers for j in alike[k])) for c in plain.columns)
    limit = asked.outlook.risk
    there = [Cap("available", "gpus", o.available * o.gpus, _stock(k), frozenset((_stock(k),))) for k, o in enumerate(plain.offers) if o.available is not None]
    rules = replace(plain.rules, risk=Risk(limit.level, limit.usd_per_hour) if limit else None, caps=(*plain.rules.caps, *there))
    whole = replace(plain, columns=several, offers=tuple(p for _, _, p in sold), rules=rules, states=asked.horizon.states)
    return whole, tuple((used[i], term) for i, term, _ in sold)


def _sold(asked: ContractQuestion, offers: Sequence[Purchasable], terms: Sequence[Term | Literal[""]]) -> Iterator[tuple[int, Term | Literal[""], Purchasable]]:
    """(offer, term, as the program takes it). What is owned, or may be taken back, is not committed to; what is for a term alone is not had by the hour.

    A discount is on the price, not on what carbon is charged for. Of what there is only so much of, that counts however it is bought.
    """
    for i, (offer, only) in enumerate(zip(offers, terms, strict=True)):
        offer = replace(offer, place=(*offer.place, _stock(i))) if offer.available is not None else offer
        if only:
            yield i, only, replace(offer, committed=True, spans=asked.horizon.spans(only))
            continue
        yield i, "", offer
        for term in asked.outlook.commit if offer.location and not offer.spot else ():
            price = asked.outlook.committed_price(term, offer.usd_per_hour - offer.unpaid) + offer.unpaid
            if price < offer.usd_per_hour:
                yield i, term, replace(offer, usd_per_hour=price, committed=True, spans=asked.horizon.spans(term))


def _stock(i: int) -> str:
    """The label of all ways to buy a limited offer."""
    return f"offer {i}"


def by_offer(contract: Contract) -> PricedStructure:
    """The contract as plans by the hour are searched, replicas and instances of one offer together whatever they are bought as."""
    used = tuple(sorted({o for o, _ in contract.offers}))
    place = [used.index(o) for o, _ in contract.offers]

    def merged(counts: Mapping[int, int]) -> dict[int, int]:
        found: dict[int, int] = {}
        for j, n in counts.items():
            found[place[j]] = found.get(place[j], 0) + n
        return found

    s = contract.solution
    pools = tuple(replace(c, running=tuple(map(merged, c.running))) for c in s.pools)
    solution = replace(s, pools=pools, holdings=tuple(map(merged, s.holdings)), started=tuple(map(merged, s.started)))
    blocks = tuple(contract.structure.blocks[c.pool.column] for c in s.pools)
    return PricedStructure(contract.structure, blocks, solution, used, contract.bound, contract.solved)


# ---- what is decided now, in what may come


def decided(contract: Contract) -> dict[int, int]:
    """Instances of each offer that are committed to now: of its first span."""
    problem, held = contract.problem, contract.solution.holdings
    return {o: n for o, offer in enumerate(problem.offers) if offer.committed and (n := held[problem.spans_of(o)[0][0]].get(o, 0))}


def with_commitments(problem: Problem, now: dict[int, int]) -> tuple[Problem, float]:
    """The problem after so much is signed now, and the $ of that: it is there in its span for nothing, and no more can be signed."""
    offers, sunk = list(problem.offers), 0.0
    for o, offer in enumerate(problem.offers):
        if offer.committed:
            first = problem.spans_of(o)[0]
            sunk += now.get(o, 0) * offer.usd_per_hour * sum(problem.states[i].weight for i in first)
            offers[o] = replace(offer, usd_per_hour=0.0, available=now.get(o, 0), spans=(first,))
    return replace(problem, offers=tuple(offers), rules=replace(problem.rules, risk=None)), sunk


def of_future(problem: Problem, s: int) -> Problem:
    """The problem in which one future is sure."""
    keep = [i for i, state in enumerate(problem.states) if state.case == s]
    place = {i: k for k, i in enumerate(keep)}
    states = tuple(
        replace(problem.states[i], probability=1.0, case=0, before=StateIndex(place[b]) if (b := problem.states[i].before) is not None else None) for i in keep
    )
    demands = tuple(replace(d, rates=tuple(d.rates[i] for i in keep)) for d in problem.demands)
    offers = tuple(
        replace(o, spans=tuple(kept for span in o.spans if (kept := tuple(place[i] for i in span if i in place)))) if o.committed else o for o in problem.offers
    )
    return replace(problem, states=states, demands=demands, offers=offers, rules=replace(problem.rules, risk=None))


def as_it_may_carry(problem: Problem, factors: Mapping[int, Sequence[float]]) -> Problem:
    """The problem in which it is not known, when the first terms are signed, how many times each of these workloads loads what serves it.

    factors: of each workload, as many as there are possibilities, each as likely; they come together.
    """
    several, n = len(next(iter(factors.values()))), len(problem.states)
    case = {s: k for k, s in enumerate(dict.fromkeys(x.case for x in problem.states))}
    states = tuple(
        replace(x, probability=x.probability / several, case=case[x.case] * several + k, before=None if x.before is None else StateIndex(x.before + k * n))
        for k in range(several)
        for x in problem.states
    )
    demands = tuple(replace(d, rates=tuple(r * f for f in factors.get(w, (1.0,) * several) for r in d.rates)) for w, d in enumerate(problem.demands))
    return replace(problem, states=states, demands=demands, offers=tuple(replace(o, spans=_for_each(o, several, n)) for o in problem.offers))


def _for_each(offer: Purchasable, several: int, states: int) -> tuple[tuple[int, ...], ...]:
    """Spans with each capacity apart, but for the first, which is signed before it is known."""
    if not offer.spans:
        return ()
    first, *later = offer.spans
    return (tuple(i + k * states for k in range(several) for i in first), *(tuple(i + k * states for i in span) for k in range(several) for span in later))


def at_rates(problem: Problem, factor: Floats) -> Problem:
    """The problem with the traffic of each state times a factor."""
    demands = tuple(replace(d, rates=tuple((np.array(d.rates) * factor).tolist())) for d in problem.demands)
    return replace(problem, demands=demands)
