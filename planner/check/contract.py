"""The independent check of a contract: each deployment as a plan of its own, then every hour of every month and future counted again.

As check.py it uses nothing of what made the contract; the formulas of growth, terms and risk are written here a second time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import exp, inf, sqrt

import numpy as np
from numpy.typing import NDArray

from planner.catalog.catalog import Catalog
from planner.catalog.records import Offer
from planner.check.case import Case, mixture_factor, rebuild
from planner.check.check import check_plan
from planner.check.findings import Breach, Finding, Notes, Report, at_most
from planner.check.packing import Guest, place
from planner.check.supply import counted, not_admitted, power_of, within
from planner.performance.capacity import pooled_qps
from planner.result.contract import Contract, ContractLine
from planner.scenario.apply import catalog_for
from planner.scenario.caps import caps
from planner.scenario.profiles import hourly_rates

Floats = NDArray[np.float64]
MONTH_HOURS, TERM_MONTHS = 730.0, {"1y": 12, "3y": 36}
FOR_A_TERM = {"reserved_1y": "1y", "reserved_3y": "3y"}
STATED = 1e-5
STUDIED = 0.011  # what a future costs, known, is found within so much: starts may be counted after


@dataclass(frozen=True)
class Account:
    """A contract with the catalogue as its scenario supposes it, its deployments rebuilt, and how the states lie."""

    contract: Contract
    catalog: Catalog
    cases: tuple[Case, ...]
    offers: tuple[Offer | None, ...]

    @property
    def per_future(self) -> int:
        """States of one future."""
        return self.contract.outlook.months * self.contract.hours_per_cycle

    def future(self, i: int) -> int:
        """The future of a state."""
        return i // self.per_future

    def month(self, i: int) -> int:
        """The month of a state, 0 the first."""
        return i % self.per_future // self.contract.hours_per_cycle

    def before(self, i: int) -> int:
        """The hour before, round the same month's day."""
        cycle = self.contract.hours_per_cycle
        return i - i % cycle + (i - 1) % cycle

    @property
    def weight(self) -> float:
        """Hours that a state lasts in its future."""
        return MONTH_HOURS / self.contract.hours_per_cycle

    def probability(self, i: int) -> float:
        """How likely the future of a state is."""
        return self.contract.futures[self.future(i)].probability

    def where(self, i: int) -> str:
        """A state in words."""
        c = self.contract
        return f"{c.futures[self.future(i)].name}, month {self.month(i) + 1}, hour {i % c.hours_per_cycle}"


def check_contract(contract: Contract, catalog: Catalog) -> Report:
    """Everything that does not hold of a contract, and what was verified."""
    alone = [check_plan(part, catalog) for part in contract.parts]
    found = [Breach(b.name, f"deployment {i} alone: {b.where}", b.what) for i, report in enumerate(alone) for b in report.breaches]
    shape = _shape(contract)
    if found or shape.breaches:
        return Report((*shape.breaches, *found), (shape.check,))
    supposed = catalog_for(catalog, contract.scenario)
    cases = tuple(rebuild(part, part.scenario, supposed) for part in contract.parts)
    account = Account(contract, supposed, cases, tuple(_offer(line, supposed) for line in contract.lines))
    findings = [shape, *(family(account) for family in (_lines, _loads, _placed, _limits, _terms, _money, _known, _uses))]
    checks = [f.check for f in findings]
    checks.insert(1, f"deployments: {len(contract.parts)}, each holds as a plan of its own in its busiest hour")
    return Report(tuple(b for f in findings for b in f.breaches), tuple(checks))


def _shape(c: Contract) -> Finding:
    """As many states as futures, months and hours make, and every workload served by one deployment."""
    notes, states = Notes("structure"), len(c.futures) * c.outlook.months * c.hours_per_cycle
    notes.require(len(c.states) == states, "states", f"are {len(c.states)}, should be {states}")
    notes.require(all(len(s.replicas) == len(c.parts) for s in c.states), "states", "state replicas of other deployments")
    numbers = [n for s in c.states for row in (*s.replicas, s.instances, s.started) for n in (*row, *row.values())]
    notes.require(all(0 <= n < 10**9 for n in numbers), "states", "hold counts that are none")
    lines = {o for s in c.states for row in (*s.replicas, s.instances, s.started) for o in row}
    notes.require(all(o < len(c.lines) for o in lines), "states", "hold lines that there are not")
    notes.require(all(0 <= x.line < len(c.lines) for x in c.commitments), "commitments", "are of lines that there are not")
    served = sorted(w.name for part in c.parts for w in part.workloads)
    notes.require(served == sorted(w.name for w in c.scenario.workload), "deployments", f"serve {', '.join(served)}")
    wanted = [(f.name, f.probability) for f in c.outlook.futures]
    notes.require([(f.name, f.probability) for f in c.futures] == wanted, "futures", "are others than the outlook's")
    return notes.finding(f"structure: {len(c.futures)} futures x {c.outlook.months} months x {c.hours_per_cycle} hours")


def _offer(line: ContractLine, catalog: Catalog) -> Offer | None:
    price = line.usd_per_hour if line.purchase in FOR_A_TERM else line.by_the_hour_usd
    key = (line.provider, line.region, line.instance_type, line.gpu, line.purchase, line.gpus_per_instance, price)
    return next((o for o in catalog.offers if (o.provider, o.region, o.instance_type, o.gpu, o.purchase, o.gpus_per_instance, o.usd_per_hour) == key), None)


def _lines(account: Account) -> Finding:
    """Every line is an offer of the catalogue that supply admits, at its price, or at a term's."""
    c, notes = account.contract, Notes("offers")
    for i, (line, offer) in enumerate(zip(c.lines, account.offers, strict=True)):
        where = f"line {i} ({line.provider} {line.region} {line.instance_type})"
        if offer is None:
            notes.add(where, "is not in the catalogue at its price by the hour")
            continue
        why, own = not_admitted(offer, c.scenario.supply), FOR_A_TERM.get(line.purchase)
        notes.require(not why, where, why)
        right = (offer.kind, offer.basis, offer.source)
        notes.require((line.kind, line.basis, line.source) == right, where, f"states {line.kind}, {line.basis}, '{line.source}', should be {right}")
        notes.require(own is None or line.term == own, where, f"is for {own} alone, and bought for '{line.term or 'the hour'}'")
        notes.require(own is not None or not line.term or line.purchase == "on_demand", where, f"is {line.purchase}, and committed to")
        carbon = _carbon(account, offer)
        notes.agree(line.carbon_usd_per_hour, carbon, where, "$/h for carbon")
        notes.agree(line.usd_per_hour, _price(c, line, offer, carbon), where, "$/h")
        hourly = [x.usd_per_hour / x.gpus_per_instance for x in c.lines if not x.term and x.gpu == line.gpu] if own else [offer.usd_per_hour]
        by_the_hour = min(hourly, default=None)
        each = line.gpus_per_instance if own else 1
        notes.require((by_the_hour is None) == (line.by_the_hour_usd is None), where, "is or is not to be had by the hour")
        if by_the_hour:
            notes.agree(line.by_the_hour_usd or 0.0, by_the_hour * each, where, "$/h by the hour")
    return notes.finding(f"offers: {len(c.lines)} lines at the catalogue's prices, terms at the discounts asked")


def _carbon(account: Account, offer: Offer) -> float:
    """$/h that an instance's carbon is charged for: kW x gCO2e/kWh at a price a tonne."""
    gpu_kw, pue, intensity = power_of(offer, account.contract.scenario, account.catalog)
    return account.contract.scenario.objective.carbon_price * gpu_kw * offer.gpus_per_instance * pue * intensity / 1e6 if gpu_kw and intensity else 0.0


def _price(c: Contract, line: ContractLine, offer: Offer, carbon: float) -> float:
    """$/h of a line: a term's discount on all but carbon, and what its upfront share would have earned until it is used up, summed month by month."""
    if not line.term or line.purchase in FOR_A_TERM:
        return offer.usd_per_hour
    discounted, r, months = (offer.usd_per_hour - carbon) * (1 - c.outlook.commit.get(line.term, 0.0)), c.outlook.cost_of_capital, TERM_MONTHS[line.term]
    steps = 100 * months
    worth = sum(exp(-r * (k + 0.5) / steps * months / 12) for k in range(steps)) / steps  # today, of one dollar a month paid evenly, per dollar
    return carbon + discounted * ((1 - c.outlook.upfront) + c.outlook.upfront / worth)


def _rates(account: Account) -> Floats:
    """[workload, state] peak demand."""
    c, o = account.contract, account.contract.outlook
    by_hour = hourly_rates(c.scenario) * np.array([w.burst_factor for w in c.scenario.workload])[:, None]
    columns = []
    for f in o.futures:
        for month in range(o.months):
            spread = f.factor ** sqrt(month / 12.0) if o.growth_spread > 0 else f.factor
            columns.append(by_hour * spread * (1.0 + o.monthly_growth) ** month)
    return np.concatenate(columns, axis=1)


def _work(account: Account, d: int, rates: Floats, replicas: Floats) -> Floats | None:
    """[state] replicas' worth of work of a deployment that has so many in service; None where it cannot be rebuilt."""
    case, names = account.cases[d], [w.name for w in account.contract.scenario.workload]
    built, here = case.built[0], [(w, names.index(asked.name)) for w, asked in enumerate(case.plan.scenario.workload)]
    if built is None:
        return None
    alone = len(here) == 1 and account.contract.scenario.policy.router != "random"
    work = np.zeros(len(replicas))
    for w, at in here:
        fit = built.fits[w]
        able = pooled_qps(np.array(fit.single), np.array(fit.saturated), np.maximum(replicas, 1)) if alone else fit.single
        work += rates[at] / (able * (mixture_factor(case.scenario) if len(here) > 1 else 1.0))
    return work


def _loads(account: Account) -> Finding:
    """In every state each deployment carries its traffic at the replicas in service."""
    c, notes, rates, highest = account.contract, Notes("capacity"), _rates(account), 0.0
    policy = c.scenario.policy
    spot = {o for o, line in enumerate(c.lines) if line.purchase == "spot"}
    for d, case in enumerate(account.cases):
        for i, s in enumerate(c.states) if policy.max_spot_share is not None else ():
            taken, there = sum(n for o, n in s.replicas[d].items() if o in spot), sum(s.replicas[d].values())
            notes.require(taken <= (policy.max_spot_share or 0.0) * there + STATED, account.where(i), f"{taken} of {there} replicas are on spot")
        replicas = np.array([sum(s.replicas[d].values()) for s in c.states]) - policy.spare_replicas
        work = _work(account, d, rates, replicas)
        if work is None:
            notes.add(case.where(0), "cannot be rebuilt")
            continue
        load = np.where(work > 0, work / np.maximum(replicas, 1e-12), 0.0)
        highest = max(highest, float(load.max()))
        worst = int(load.argmax())
        notes.require(at_most(float(load[worst]), policy.max_slo_load, STATED), account.where(worst), f"SLO load {load[worst]:.4f} of deployment {d}")
        notes.require(bool((replicas + policy.spare_replicas >= policy.floor_replicas).all()), case.where(0), "falls below the floor of replicas")
    return notes.finding(f"capacity: SLO load up to {highest:.4f} of {policy.max_slo_load:g} in {len(c.states)} hours")


def _fewest(account: Account, d: int, rates: Floats) -> Floats:
    """[state] the fewest replicas of a deployment that carry its traffic, counted up one by one; spare ones and the floor included."""
    policy, replicas = account.contract.scenario.policy, np.zeros(rates.shape[1])
    while (work := _work(account, d, rates, replicas)) is not None and (short := work > replicas * policy.max_slo_load * (1 + STATED)).any():
        replicas += short
    found: Floats = np.maximum(np.where(replicas > 0, replicas + policy.spare_replicas, 0), policy.floor_replicas)
    return found


def _placed(account: Account) -> Finding:
    """Replicas are placed one by one on the instances of each line; alike states are placed once."""
    c, notes = account.contract, Notes("packing")
    done: set[tuple[object, ...]] = set()
    for i, s in enumerate(c.states):
        for o, offer in enumerate(account.offers):
            counts = tuple(row.get(o, 0) for row in s.replicas)
            if offer is None or (o, counts, s.instances.get(o, 0)) in done:
                continue
            done.add((o, counts, s.instances.get(o, 0)))
            guests = [Guest(x.where(0), x.plan.deployments[0].gpu, *_sides(x), n) for x, n in zip(account.cases, counts, strict=True) if n]
            place(notes, offer, s.instances.get(o, 0), sorted(guests, key=lambda g: -g.gpus), account.where(i))
    return notes.finding(f"packing: replicas placed one by one, {len(done)} different ways")


def _sides(case: Case) -> tuple[int, int]:
    d = case.plan.deployments[0]
    return (d.gpus_per_replica, 1) if d.decode_engines else (d.tp, d.pp)


def _limits(account: Account) -> Finding:
    """Every cap in every state; of the same offer, bought in several ways, no more than there is, and in each way no fewer than it is sold in."""
    c, notes = account.contract, Notes("limits")
    for i, s in enumerate(c.states):
        held = [(offer, n) for o, n in s.instances.items() if (offer := account.offers[o]) is not None]
        for cap in caps(c.scenario):
            paid = sum((c.lines[o].usd_per_hour - (c.lines[o].carbon_usd_per_hour if cap.field.of == "paid" else 0.0)) * n for o, n in s.instances.items())
            amount = paid if cap.is_in_dollars else counted(cap, held, c.scenario, account.catalog)
            within(notes, cap, amount, account.where(i))
        for offer, n in held:
            notes.require(not n or n >= offer.minimum, account.where(i), f"{n} x {offer.instance_type}, sold in no fewer than {offer.minimum}")
        for offer in {id(x): x for x, _ in held if x.available is not None}.values():
            notes.require(sum(n for x, n in held if x is offer) <= (offer.available or 0), account.where(i), f"more {offer.instance_type} than there are")
    return notes.finding(f"limits: {len(caps(c.scenario))} caps in every hour")


def _terms(account: Account) -> Finding:
    """What is signed is held to the end of its term: the first in every future alike."""
    c, notes = account.contract, Notes("terms")
    for o, line in enumerate(c.lines):
        many = np.array([s.instances.get(o, 0) for s in c.states]).reshape(len(c.futures), c.outlook.months, -1)
        if not line.term:
            continue
        length, where = TERM_MONTHS[line.term], f"line {o} ({line.term} {line.instance_type})"
        notes.require(bool((many[:, :length] == many[0, 0, 0]).all()), where, "is not held alike through its first term in every future")
        for start in range(length, c.outlook.months, length):
            own, whole = many[:, start : start + length], start + length <= c.outlook.months
            notes.require(bool((own == own[:, :1, :1]).all()), where, f"changes within the term from month {start + 1}")
            notes.require(whole or not own.any(), where, f"is signed in month {start + 1}, beyond the horizon")
    signed = {x.line: x.instances for x in c.commitments}
    stated = {o: n for o, line in enumerate(c.lines) if line.term and (n := c.states[0].instances.get(o, 0))}
    notes.require(signed == stated, "commitments", f"state {signed}, held are {stated}")
    return notes.finding(f"terms: {len(c.commitments)} commitments held through theirs")


def _money(account: Account) -> Finding:
    """Starts are the rises; $ of every future and of all, the dearest ones, bound and gap."""
    c, notes, lead = account.contract, Notes("cost"), account.contract.scenario.policy.startup_lead / 3600
    counts = lead > 0 or c.scenario.policy.min_up_periods > 1
    mean = [0.0] * len(c.futures)
    most = [0] * len(c.futures)
    for i, s in enumerate(c.states):
        was = c.states[account.before(i)].instances
        rises = {o: more for o, n in s.instances.items() if (more := n - was.get(o, 0)) > 0} if counts and c.hours_per_cycle > 1 else {}
        notes.require(s.started == rises, account.where(i), f"states starts {s.started}, should be {rises}")
        usd = sum(c.lines[o].usd_per_hour * n for o, n in s.instances.items()) + lead * sum(c.lines[o].usd_per_hour * n for o, n in rises.items())
        mean[account.future(i)] += usd * account.weight / c.hours
        most[account.future(i)] = max(most[account.future(i)], sum(c.lines[o].gpus_per_instance * n for o, n in s.instances.items()))
    for f, usd, gpus in zip(c.futures, mean, most, strict=True):
        notes.agree(f.usd_per_hour, usd, f.name, "$/h", STATED)
        notes.agree(f.most_gpus, gpus, f.name, "GPUs at most")
    expected = sum(f.probability * usd for f, usd in zip(c.futures, mean, strict=True))
    notes.agree(c.hours, c.outlook.months * MONTH_HOURS, "horizon", "hours")
    notes.agree(c.usd_per_hour, expected, "all futures", "$/h", STATED)
    notes.agree(c.usd, expected * c.hours, "all futures", "$", STATED)
    notes.require(at_most(c.bound_usd_per_hour, c.usd_per_hour, STATED), "bound", "is above the cost")
    notes.agree(c.gap, (c.usd_per_hour - c.bound_usd_per_hour) / c.usd_per_hour, "gap", "a gap of", 1e-3) if c.gap > 1e-6 else None
    notes.require((c.status == "optimal") == (c.gap <= max(0.03, c.scenario.solver.gap) + 1e-9), "status", f"{c.status} with a gap of {c.gap:.3g}")
    limit = c.outlook.risk
    worst = _tail([f.probability for f in c.futures], mean, limit.level if limit else 1.0)
    notes.agree(c.dearest_usd_per_hour, worst, "dearest futures", "$/h", STATED)
    notes.require(limit is None or at_most(worst, limit.usd_per_hour, STATED), "risk", f"the dearest futures cost {worst:.4f} $/h")
    return notes.finding(f"cost: ${expected:,.2f}/h expected, ${worst:,.2f}/h in the dearest futures")


def _tail(probabilities: list[float], costs: list[float], level: float) -> float:
    """Least over η of η + E[(C − η)⁺]/(1 − level), which is reached at one of the costs."""
    if level >= 1:
        return max(costs)
    return min((eta + sum(p * max(0.0, c - eta) for p, c in zip(probabilities, costs, strict=True)) / (1 - level) for eta in costs), default=inf)


def _known(account: Account) -> Finding:
    """What each future would cost if it were known lies between what its GPUs cost at least, layer by layer, and what it costs under the contract."""
    c, notes, rates = account.contract, Notes("known futures"), _rates(account)
    known = [f.known_usd_per_hour for f in c.futures]
    every = [k for k in known if k is not None]
    if not every:
        notes.require(c.perfect_information_usd is None, "perfect information", "is stated, and no future's cost is")
        return notes.finding("known futures: not stated")
    taken: dict[str, Floats] = {}
    for d, case in enumerate(account.cases):
        plan = case.plan.deployments[0]
        taken[plan.gpu] = taken.get(plan.gpu, np.zeros(rates.shape[1])) + plan.gpus_per_replica * _fewest(account, d, rates)
    for s, (f, usd) in enumerate(zip(c.futures, known, strict=True)):
        here = slice(s * account.per_future, (s + 1) * account.per_future)
        least = sum(_layers(account, gpu, gpus[here].reshape(c.outlook.months, -1)) for gpu, gpus in taken.items()) / c.hours
        if usd is not None:
            notes.require(at_most(usd, f.usd_per_hour, STUDIED), f.name, f"costs ${usd:.4f}/h if known, and ${f.usd_per_hour:.4f}/h under the contract")
            notes.require(at_most(least, usd, STATED), f.name, f"costs ${usd:.4f}/h if known, its GPUs alone ${least:.4f}/h")
    if len(every) == len(known):
        saved = max(0.0, c.usd - sum(f.probability * k for f, k in zip(c.futures, every, strict=True)) * c.hours)
        stated_usd = c.perfect_information_usd
        notes.require(stated_usd is not None and abs(stated_usd - saved) <= STATED * c.usd, "perfect information", f"saves ${saved:.2f}, stated {stated_usd}")
    return notes.finding(f"known futures: {len(every)} of {len(known)}, no less than their GPUs cost layer by layer")


def _layers(account: Account, gpu: str, taken: Floats) -> float:
    """$ that GPUs of a type, [month, hour], cost at least in one future: the k-th is had for a term where it is needed often enough, else by the hour."""
    c = account.contract
    prices: dict[str, float] = {}
    for line in c.lines:
        if line.gpu == gpu:
            prices[line.term] = min(prices.get(line.term, inf), line.usd_per_hour / line.gpus_per_instance)
    levels, cost = np.unique(np.concatenate([[0.0], taken.ravel()])), 0.0
    for lower, upper in pairwise(levels.tolist()):
        hours = (taken >= upper).sum(axis=1) * account.weight  # of each month
        cost += (upper - lower) * min(_layer(hours, prices, term) for term in {"", *prices})
    return cost


def _layer(hours: Floats, prices: Mapping[str, float], term: str) -> float:
    """$ of one GPU needed for so many hours of each month, for whole terms of one kind where they pay and by shorter ones or by the hour elsewhere."""
    if not term:
        return float(hours.sum()) * prices.get("", inf) if hours.any() else 0.0
    length, shorter = TERM_MONTHS[term], [t for t in ("", "1y") if TERM_MONTHS.get(t, 0) < TERM_MONTHS[term]]
    cost = 0.0
    for start in range(0, len(hours), length):
        span = hours[start : start + length]
        else_ = min(_layer(span, prices, t) for t in shorter)
        may = start == 0 or start + length <= len(hours)
        cost += min(else_, prices.get(term, inf) * len(span) * MONTH_HOURS) if may else else_
    return cost


def _uses(account: Account) -> Finding:
    """Coverage, and of each commitment what it costs, how it is used, idles and breaks even."""
    c, notes = account.contract, Notes("commitments")
    gpus = [case.plan.deployments[0].gpus_per_replica for case in account.cases]
    used = [{o: sum(g * row.get(o, 0) for g, row in zip(gpus, s.replicas, strict=True)) for o in range(len(c.lines))} for s in c.states]
    weights = [account.weight * account.probability(i) for i in range(len(c.states))]
    total = sum(w * sum(u.values()) for w, u in zip(weights, used, strict=True))
    covered = sum(w * sum(n for o, n in u.items() if c.lines[o].term) for w, u in zip(weights, used, strict=True))
    notes.agree(c.coverage, covered / total if total else 0.0, "coverage", "a share of", STATED) if covered else None
    for x in c.commitments:
        line, where = c.lines[x.line], f"commitment {x.line}"
        months = min(TERM_MONTHS.get(line.term, 0), c.outlook.months)
        span = [i for i in range(len(c.states)) if account.month(i) < months]
        share = sum(weights[i] * used[i][x.line] for i in span) / max(sum(weights[i] for i in span) * x.instances * line.gpus_per_instance, 1e-12)
        right: Mapping[str, float] = {
            "months": months, "used": share, "usd_per_hour": x.instances * line.usd_per_hour,
            "idle_usd_per_month": (1 - share) * x.instances * line.usd_per_hour * MONTH_HOURS,
            "break_even": line.usd_per_hour / (line.by_the_hour_usd or inf),
            "obliged_after_usd": x.instances * line.usd_per_hour * (TERM_MONTHS[line.term] - months) * MONTH_HOURS,
        }  # fmt: skip
        for name, value in right.items():
            stated = float(getattr(x, name) or 0.0)
            notes.require(abs(stated - value) <= STATED * max(abs(value), 1.0), where, f"states {name} {stated:.6g}, should be {value:.6g}")
    return notes.finding(f"commitments: {c.coverage:.0%} of the GPU-hours used stand on them")
