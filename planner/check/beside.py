"""Checks what stands beside the decision: alternatives at the catalogue's prices, the same traffic at hosted APIs, the headroom, what binds."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from math import prod

import numpy as np

from planner.catalog.catalog import Served
from planner.catalog.records import ApiPrice
from planner.check.candidate import COUNTED, longer_than
from planner.check.capacity import peak_qps
from planner.check.case import Case, in_own_tokens, mixture_factor, own_tokens, replica_of
from planner.check.cost import periods, unit_costs
from planner.check.findings import Finding, Notes, same
from planner.check.hosted import hourly
from planner.check.supply import counted, held_by, not_admitted, offer_of, purchase_right, too_old
from planner.performance.evidence import evidence, shown_tier
from planner.performance.replicas import ENGINES
from planner.result.plan import Alternative, Brief, Deployment, HostedApi, PlanWorkload, Purchase
from planner.scenario.caps import AskedCap, caps, spent
from planner.scenario.records import Supply
from planner.scenario.workload import Workload

STATED = 1e-4
WORDS = 6e-3  # relative: numbers in words have three digits
SAID = 1e-5  # relative: counts and shares in notes have six
SPENT = 0.98  # of the budget: from here on it binds


def beside(case: Case) -> Finding:
    """Alternatives, API rows, headroom, binding demands, size of the search."""
    notes = Notes("beside")
    rank = max((_rank(case, b.served, d) for d, b in zip(case.plan.deployments, case.built, strict=True) if b), default=0)
    for a in case.plan.alternatives:
        _alternative(notes, case, a, rank)
    for row in case.plan.api:
        _api(notes, case, row)
    _cheapest(notes, case)
    if case.built and all(b is not None and b.serves for b in case.built):
        _headroom(notes, case)
    _binding(notes, case)
    s = case.plan.solver
    notes.require(0 <= s.candidates_after_pruning <= s.candidates, "solver", f"kept {s.candidates_after_pruning} of {s.candidates} candidates")
    notes.require(0 <= s.locations_solved <= s.locations, "solver", f"solved {s.locations_solved} of {s.locations} locations")
    said = f"{sum(a.feasible for a in case.plan.alternatives)} alternatives and {len(case.plan.api)} API rows at the catalogue's prices, headroom"
    return notes.finding(f"beside the plan: {said}")


# ---- alternatives


def _alternative(notes: Notes, case: Case, a: Alternative, rank: int) -> None:
    """What is bought is on offer at that price, hosts the deployments named, costs as much more as stated; and differs as it says."""
    where = f"alternative '{a.difference}'"
    whole = (a.cost is not None, a.premium is not None, bool(a.deployments), bool(a.purchases))
    notes.require(set(whole) == {a.feasible}, where, "is feasible and has no cost, deployments or purchases, or is not and has some")
    if not all(whole) or a.cost is None or a.premium is None:
        return
    usd, plan = bought(notes, case, a.purchases, where, case.scenario.supply.model_copy(update={"kinds": ()})), case.plan
    periods(notes, a.cost, usd, where)
    traffic = [(w.qps * 3600, w.input_tokens or 0.0, w.output_tokens or 0.0) for w in plan.workloads]
    unit_costs(notes, a.cost, sum(q for q, _, _ in traffic), sum(q * o for q, _, o in traffic), sum(q * (i + o) for q, i, o in traffic), where)
    notes.agree(a.cost.idle_usd_per_hour, 0.0, where, "idle $/h of")
    notes.require(abs(a.premium - (usd / plan.cost.usd_per_hour - 1)) <= 1e-6, where, f"states a premium of {a.premium:.6g}, ${usd:.2f}/h makes it another")
    if (thinnest := deployed(notes, case, a.deployments, a.purchases, where)) is not None:
        notes.require(a.better_evidence == (thinnest < rank), where, "states otherwise than the catalogue whether it rests on better evidence")
    _differs(notes, case, a, where)
    _why(notes, case, a, where)


def bought(notes: Notes, case: Case, purchases: Sequence[Purchase], where: str, supply: Supply) -> float:
    """$/h of what another plan buys, each line an offer at the catalogue's price that the supply admits."""
    for p in purchases:
        offer = offer_of(case, p)
        notes.require(offer is not None, where, f"{p.provider} {p.instance_type} is not in the catalogue")
        if offer is not None:
            notes.match(p, purchase_right(p, offer), where, skip={"gpus_idle"})
            why = not_admitted(offer, supply) or too_old(offer, case, supply.max_price_age)
            notes.require(not why, where, why)
            notes.require(p.instances >= offer.minimum, where, f"{p.instances} x {p.instance_type} is sold in no fewer than {offer.minimum}")
            notes.require(0 <= p.gpus_idle <= p.gpus_held and p.instances >= 1, where, f"{p.gpus_idle} of {p.gpus_held} GPUs idle")
    return sum(p.usd_per_hour for p in purchases)


def deployed(notes: Notes, case: Case, deployments: Sequence[Brief], purchases: Sequence[Purchase], where: str) -> int | None:
    """What another plan deploys exists, runs and stands on what it buys; how thin its evidence is, or None where it does not exist."""
    ranks, used, held = [], Counter[str](), Counter[str]()
    for d in deployments:
        served, gpu = served_by(case, d), case.catalog.gpus.get(d.gpu)
        if served is None or gpu is None or d.engine not in ENGINES or min(d.tp // max(d.dp, 1), d.pp, d.dp, d.ep, d.replicas) < 1:
            notes.add(where, f"{d.replicas} x {d.checkpoint} on {d.gpu} with {d.engine} does not exist")
            return None
        notes.require((d.model, d.precision) == (served.card.name, served.checkpoint.precision), where, f"{d.checkpoint} is no {d.model} in {d.precision}")
        notes.require(d.engine in gpu.engines, where, f"{d.engine} does not run on {d.gpu}")
        notes.require(d.ep in (1, d.tp) and d.dp in (1, d.tp) and (d.dp == 1 or d.ep == d.tp), where, f"no engine lays it out as {d.layout}")
        experts = served.card.architecture.experts
        notes.require(d.ep == 1 or (experts > 0 and experts % d.ep == 0), where, f"{experts} experts do not spread over EP{d.ep}")
        notes.require(min(d.prefill_engines, d.decode_engines) >= 0 and bool(d.prefill_engines) == bool(d.decode_engines), where, f"a unit of {d.layout}")
        allowed = {"speculative": bool(d.speculative), "disaggregated": d.decode_engines > 0, "attention_dp": d.dp > 1}
        notes.require(all(way in case.scenario.policy.allow for way, is_used in allowed.items() if is_used), where, f"{d.layout} is not allowed")
        notes.agree(d.gpus, d.replicas * d.tp * d.pp * max(d.prefill_engines + d.decode_engines, 1), where, "GPUs")
        used[d.gpu] += d.gpus
        ranks.append(_rank(case, served, d))
    for p in purchases:
        held[p.gpu] += p.gpus_held - p.gpus_idle
    notes.require(used == held, where, f"deploys {dict(used)} GPUs, and uses {dict(held)} of those it buys")
    return max(ranks, default=0)


def served_by(case: Case, d: Brief) -> Served | None:
    """The checkpoint of an alternative; where it answers in two modes, its name says in which."""
    name, _, mode = d.checkpoint.partition(" (")
    modes = {"": None, "thinking)": "thinking", "no thinking)": "instruct"}
    return next((s for s in case.catalog.served if s.checkpoint.id == name and mode in modes and modes[mode] in (None, s.mode)), None)


def _rank(case: Case, served: Served, d: Deployment | Brief) -> int:
    """How thin its evidence is: the tier, and one more where not even the GPU's generation was tested."""
    replica = replica_of(d, served, case.catalog.gpus[d.gpu])
    found = evidence(replica, (served.card.name,), case.catalog.measured, case.scenario.policy.tuning)
    return int(shown_tier(found, replica)[0] + case.coefficients.unseen(replica)[0])


def _differs(notes: Notes, case: Case, a: Alternative, where: str) -> None:
    """What the difference announces is true of what is deployed and bought."""
    plan, says = case.plan, a.difference
    ours = {d.gpu for d in plan.deployments}, {d.model for d in plan.deployments}, {p.provider for p in plan.purchases if p.kind != "owned"}
    theirs = {d.gpu for d in a.deployments}, {d.model for d in a.deployments}, {p.provider for p in a.purchases if p.kind != "owned"}
    kinds = {p.kind for p in a.purchases} - {"owned"}
    truths = {
        "another GPU type": not ours[0] & theirs[0],
        "another model": not ours[1] & theirs[1],
        "another provider": not ours[2] & theirs[2],
        "hyperscalers only": kinds <= {"hyperscaler"},
        "neoclouds only": kinds <= {"neocloud"},
        "renting all GPUs": all(p.kind != "owned" for p in a.purchases),
        "one GPU type only": len(theirs[0]) == 1,
        "no redundancy": case.scenario.policy.redundancy != "none",
    }
    for words, is_true in truths.items():
        notes.require(is_true or words not in says, where, "does not differ as it says")


def _why(notes: Notes, case: Case, a: Alternative, where: str) -> None:
    """Numbers in the reason why it lost, where there are any."""
    plan, usd = case.plan, sum(p.usd_per_hour for p in a.purchases)
    used, held = sum(d.gpus for d in a.deployments), sum(p.gpus_held for p in a.purchases)
    rate = sum(w.qps for w in plan.workloads) if all(not w.is_closed for w in case.scenario.workload) else None
    patterns: tuple[tuple[str, tuple[float | None, ...]], ...] = (
        (r"\$([\d.]+) per GPU-hour against \$([\d.]+)", (usd / held, plan.cost.usd_per_hour / max(plan.gpus_held, 1))),
        (r"([\d.e+-]+) req/s per GPU against ([\d.e+-]+)", (rate / used if rate else None, rate / max(plan.gpus_used, 1) if rate else None)),
        (r"(\d+) of (\d+) GPUs idle in whole instances", (held - used, held)),
    )
    for pattern, right in patterns:
        found = re.search(pattern, a.why)
        for text, value in zip(found.groups() if found else (), right, strict=False):
            if value is not None:
                notes.require(same(float(text), value, WORDS) or abs(float(text) - value) < 0.0051, where, f"says {text}, should be {value:.3g}")


# ---- hosted APIs


def _api(notes: Notes, case: Case, row: HostedApi) -> None:
    """A row is a price of the catalogue times the user's traffic."""
    where = f"API row {row.provider} {row.api_name}"
    price = next((a for a in case.catalog.api_prices if (a.provider, a.api_name, a.checkpoint) == (row.provider, row.api_name, row.checkpoint)), None)
    w = next((i for i, got in enumerate(case.plan.workloads) if got.name == row.workload), None)
    if price is None or w is None or not case.plan.workloads[w].routing:
        notes.add(where, f"is no price of {row.checkpoint} in the catalogue, or serves '{row.workload}', which is not there")
        return
    got, asked = case.plan.workloads[w], case.scenario.workload[w]
    original, factor = _main(case, got)
    is_same = row.checkpoint == original
    usd = hourly(price, _as_read(case, price, asked), got.qps, factor if is_same else 1.0)
    level = got.qps * got.unit_costs.usd_per_hour / usd if got.unit_costs else None
    right = HostedApi(
        workload=got.name, model=price.model, checkpoint=price.checkpoint, provider=price.provider, api_name=price.api_name, same_model=is_same,
        usd_per_hour=usd, usd_per_million_input=price.usd_per_million_input, usd_per_million_output=price.usd_per_million_output,
        source=price.source, as_of=price.as_of.isoformat(), usd_per_million_cached_input=price.usd_per_million_cached_input,
        break_even_qps=level, break_even_utilization=level and level / _full(case, w),
    )  # fmt: skip
    notes.match(row, right, where)
    floor = max(asked.min_quality or 0.0, asked.mean_quality or 0.0)
    scores = [q.score for s in case.catalog.served if s.checkpoint.id == row.checkpoint and (q := case.catalog.quality(s, asked.quality_metric))]
    notes.require(is_same or max(scores, default=0.0) >= floor - 1e-6, where, f"does not reach the floor of {floor:g}")


def _cheapest(notes: Notes, case: Case) -> None:
    """Where the model that serves most of a workload has an API whose context takes the requests, the cheapest one stands there."""
    context = {c.id: c.max_context or card.architecture.max_context for card in case.catalog.cards for c in card.checkpoint}
    for got, asked in zip(case.plan.workloads, case.scenario.workload, strict=True):
        if not got.routing or got.name in {h.workload for h in case.plan.hosted} or any(case.built[r.deployment] is None for r in got.routing):
            continue
        original, factor = _main(case, got)
        able = [
            hourly(a, met, got.qps, factor)
            for a in case.catalog.api_prices
            if a.checkpoint == original
            and longer_than(met := _as_read(case, a, asked), factor, a.max_context or context[original]) <= asked.max_refused - COUNTED
        ]
        stated = min((row.usd_per_hour for row in case.plan.api if row.workload == got.name and row.same_model), default=None)
        if able:
            notes.require(stated is not None and stated <= min(able) * (1 + STATED), got.name, f"is served by an API for ${min(able):.2f}/h, which is not told")


def _main(case: Case, got: PlanWorkload) -> tuple[str, float]:
    """The unquantised original of what serves most of a workload, and how many tokens it writes per answer token."""
    d = case.plan.deployments[max(got.routing, key=lambda r: r.share).deployment]
    origins = {c.id: c.quantised_from or c.id for card in case.catalog.cards for c in card.checkpoint}
    return origins.get(d.checkpoint, d.checkpoint), d.output_factor


def _as_read(case: Case, price: ApiPrice, asked: Workload) -> Workload:
    """The workload in the tokens that an API's model makes of its text."""
    card = next(card for card in case.catalog.cards for c in card.checkpoint if c.id == price.checkpoint)
    return in_own_tokens(asked, own_tokens(card, asked, case.catalog))


def _full(case: Case, w: int) -> float:
    """Mean requests/s of a workload at an SLO load of 1 of all that serves it."""
    got, asked, total = case.plan.workloads[w], case.scenario.workload[w], 0.0
    for r in got.routing:
        d = case.plan.deployments[r.deployment]
        alone = asked.is_closed and d.capacity_in_flight_per_replica
        total += (r.share * asked.rate * d.capacity_qps_per_replica / alone if alone else r.qps) / d.slo_load
    return total


# ---- headroom and what binds


def _headroom(notes: Notes, case: Case) -> None:
    """Each factor from the plan's own counts and loads, weighted by GPUs, with the numbers of its note; together they lead to what is held."""
    plan, policy, k = case.plan, case.scenario.policy, case.scenario.policy.spare_replicas
    deployments, gpus = plan.deployments, np.array([float(d.gpus) for d in plan.deployments])

    def mean(values: Sequence[float]) -> float:
        return float(np.array(values) @ gpus) / float(gpus.sum())

    shared = [len(b.serves) > 1 for b in case.built if b]
    needed = [d.replicas - k - d.standing_by for d in deployments]
    losses = [(d.replicas - k) / max(n, 1) for d, n in zip(deployments, needed, strict=True)]
    bursts = [_peak(case, i) for i in range(len(deployments))]
    right: dict[str, tuple[float, Sequence[float]]] = {
        "mean demand": (1.0, []),
        "peak rule": (mean(bursts), []),
        "evidence": (mean([1 / d.evidence.capacity_factor if d.evidence and d.evidence.capacity_factor else 1.0 for d in deployments]), [policy.confidence]),
        "mixture": (mean([1 / mixture_factor(case.scenario) if s else 1.0 for s in shared]), []),
        "policy": (1 / policy.max_slo_load, [policy.max_slo_load]),
        "whole replicas": (mean([policy.max_slo_load / d.slo_load / x if d.slo_load else 1.0 for d, x in zip(deployments, losses, strict=True)]), needed),
        "spare replicas": (mean([d.replicas / max(d.replicas - k, 1) for d in deployments]), [k]),
        "whole instances": (plan.gpus_held / max(plan.gpus_used, 1), [plan.gpus_used, plan.gpus_held]),
    }
    if policy.survives:
        steps = list(right.items())
        right = dict([*steps[:6], ("losses", (mean(losses), [d.standing_by for d in deployments])), *steps[6:]])
    notes.require([h.step for h in plan.headroom] == list(right), "headroom", f"has the steps {[h.step for h in plan.headroom]}, should have {list(right)}")
    for h in plan.headroom:
        factor, numbers = right.get(h.step, (1.0, []))
        notes.agree(h.factor, factor, f"headroom, {h.step}", "a factor of", STATED)
        said = [float(n) for n in re.findall(r"\d+(?:\.\d+)?", h.note)] if numbers else []
        agree = len(said) == len(numbers) and all(same(a, float(b), SAID) for a, b in zip(said, numbers, strict=True))
        notes.require(agree, f"headroom, {h.step}", f"says '{h.note}', should be {numbers}")
    _product(notes, case)


def _counted(case: Case, cap: AskedCap) -> float:
    """What counts towards a cap; the cost of APIs towards the budget."""
    held = counted(cap, held_by(case, case.plan.by_period[0]), case.scenario, case.catalog)
    return held + (sum(h.usd_per_hour for h in case.plan.hosted) if cap.is_money else 0.0)


def _peak(case: Case, i: int) -> float:
    """Peak over mean traffic of a deployment, in requests/s."""
    built = case.built[i]
    serves = [w for w in built.serves if w in built.fits] if built else []
    return sum(peak_qps(case, i, w) for w in serves) / sum(case.qps(w, i) for w in serves)


def _product(notes: Notes, case: Case) -> None:
    """From the other end: mean traffic times all factors but the evidence is what all GPUs held would carry. For one workload alone on one deployment."""
    plan = case.plan
    if len(plan.deployments) != 1 or len(plan.workloads) != 1 or plan.hosted or case.scenario.workload[0].is_closed:
        return
    d = plan.deployments[0]
    led = plan.workloads[0].qps * prod(h.factor for h in plan.headroom if h.step != "evidence")
    notes.agree(led, d.capacity_qps_per_replica * plan.gpus_held / d.gpus_per_replica, "headroom", "factors that lead to a capacity (req/s) of", STATED)


def _binding(notes: Notes, case: Case) -> None:
    """What binds: each deployment's limit, and quotas, owned GPUs, caps and budgets that are used up."""
    plan, supply, owned = case.plan, case.scenario.supply, Counter[tuple[str, str]]()
    for p in plan.purchases:
        owned[p.provider, p.gpu] += p.gpus_held if p.kind == "owned" else 0
    right = [f"{d.binding_limit} on {d.checkpoint}, {d.gpu}" for d in plan.deployments if d.binding_limit]
    right += [f"owned {o.gpu} of {o.name}: {owned[o.name, o.gpu]} of {o.count}" for o in supply.owned if owned[o.name, o.gpu] >= o.count]
    least = [(p, offer.minimum) for p in plan.purchases if (offer := offer_of(case, p))]
    right += [f"minimum of {n} x {p.instance_type} at {p.provider}" for p, n in least if p.instances == n > 1]
    right += [said for cap in caps(case.scenario) if (said := spent(cap, _counted(case, cap)))]
    notes.require(list(plan.binding) == right, "binding", f"says {list(plan.binding)}, should be {right}")
