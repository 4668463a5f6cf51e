"""What may make a plan wrong, most money at risk first: scores, evidence, failures, prices, APIs, and what the time limit left unsearched."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from planner.candidates.survey import Survey
from planner.catalog.names import called
from planner.performance.evidence import CALIBRATED
from planner.performance.replicas import FP8_KV
from planner.result.plan import Deployment, HostedApi, Plan, Purchase
from planner.result.spread import refusals
from planner.scenario.records import Policy
from planner.scenario.workload import Workload
from planner.search.answer import Answer
from planner.search.chosen import Chosen
from planner.search.prudent import STALE_DAYS

FEW = 5  # sessions of a workload per replica
ALWAYS = 0.5  # of the requests wait: from here on waiting is the rule
SUSPECT = 3.0  # a plan this many times below the API's price needs a second look


UNSETTLED = "the rate of users was not settled within the time limit: it is rather too high (raise --time-limit)"


def unlooked(candidates: int) -> str:
    """That the time limit left so many candidates out."""
    return f"{candidates:,} candidates were not looked at within the time limit: there may be cheaper plans (raise --time-limit)"


def unproven(found: Answer) -> str:
    """What the time limit left unsearched, of a plan that is not proven."""
    if found.formulation.unsettled:
        return unlooked(found.formulation.unsettled)
    return f"the search was stopped by the time limit: a plan up to {found.solution.gap:.1%} cheaper is not ruled out (raise --time-limit)"


@dataclass(frozen=True)
class Caution:
    """What may make a plan wrong, with the $/h that it then costs in vain, or more; 0 where that is not known."""

    text: str
    at_risk_usd_per_hour: float = 0.0


def warnings(
    survey: Survey, chosen: Sequence[Chosen], deployments: Sequence[Deployment], bought: Sequence[Purchase], apis: Sequence[HostedApi], cost: float
) -> tuple[str, ...]:
    """What may make the plan wrong, most money at risk first."""
    found = [x for c, d in zip(chosen, deployments, strict=True) for x in _of_deployment(survey, c, d)]
    found += [Caution(text) for c, d in zip(chosen, deployments, strict=True) for text in _few_sessions(survey, c, d)]
    found += [Caution(text) for text in _of_demand(survey, deployments)]
    found += _price_warnings(survey, deployments, bought) + _api_warnings(survey, apis, cost)
    return tuple(dict.fromkeys(x.text for x in sorted(found, key=lambda x: -x.at_risk_usd_per_hour)))


def _of_deployment(survey: Survey, c: Chosen, d: Deployment) -> list[Caution]:
    """At risk: all of it where the score or a layout never measured may not hold, what the evidence's 95 % end takes more, one replica where one may fail."""
    found = _quality_warnings(survey, c, d)
    found += [Caution(text, _at_95(d)) for text in (*_evidence_warnings(survey, c, d), *_beyond(survey, c, d), *_not_yours(survey, d), *_option_warnings(d))]
    if d.pp > 1:
        text = f"{d.checkpoint} is split over {d.pp} pipeline stages, which was never measured; nodes are joined by the engine's own set-up"
        found.append(Caution(text, d.usd_per_hour))
    found += [Caution(text, d.usd_per_hour / d.replicas) for text in _one_lost([survey.scenario.workload[w] for w in c.pool.traffic], d)]
    return found + [Caution(text) for text in _of_model(survey, c, d)]


def _few_sessions(survey: Survey, c: Chosen, d: Deployment) -> list[str]:
    """Where so few sessions of several workloads share replicas that it is chance which replica has how many of each: formulas know the mean alone."""
    loops = [w for w in c.pool.traffic if survey.scenario.workload[w].is_closed]
    if len(loops) < 2 or d.replicas < 2 or min(c.pool.traffic[w] for w in loops) / d.replicas >= FEW:
        return []
    names = " and ".join(survey.scenario.workload[w].name for w in sorted(loops))
    chance = "which replica has how many of whose is chance, and only the mean is predicted (plan simulate tells)"
    return [f"{names} share {d.replicas} replicas with few sessions each: {chance}"]


def _at_95(d: Deployment) -> float:
    """$/h that the 95 % end of the evidence takes beyond the plan; all of it where the limits hold at no load there."""
    most = d.evidence.replicas_at_95 if d.evidence else None
    return d.usd_per_hour * (1.0 if most is None else max(most / d.replicas - 1, 0.0))


def _of_model(survey: Survey, c: Chosen, d: Deployment) -> list[str]:
    found = []
    if d.output_factor > 1:
        where = c.eligible.served.output_factor_source or "given with --output-factor"
        found.append(f"{d.checkpoint} reasons: {d.output_factor:g} tokens written per answer token ({where})")
    for w in (survey.scenario.workload[w] for w in sorted(c.pool.traffic)):
        words = survey.catalog.tokens_in_words(c.eligible.served.card, w.language, w.tokenizer)
        found += [words] if words else []
    if c.eligible.served.checkpoint.variant == "hybrid" and d.mode == "instruct":
        found.append(f"{d.checkpoint} thinks by default: the plan assumes that clients or the server turn thinking off")
    if c.eligible.served.card.architecture.linear_state_bytes and any(survey.scenario.workload[w].prefix_cache_hit for w in c.pool.traffic):
        found.append(
            f"{d.checkpoint} has linear-attention layers, whose state engines cache less often than KV: measure that it reaches your prefix-cache hits"
        )
    return found


def _of_demand(survey: Survey, deployments: Sequence[Deployment]) -> list[str]:
    found: list[str] = []
    for demanded in (w.demand for w in survey.scenario.workload if w.demand):
        found += [f"{demanded.source} is {demanded.advice}"] if demanded.advice else []
        if "keeps everything" in demanded.prefix_from:
            found.append(f"prefix-cache hits of {demanded.source} are from {demanded.prefix_from}: real caches keep less (--prefix-cache-hit 0 counts on none)")
    if survey.scenario.policy.quality_margin and all((w.min_quality, w.mean_quality) == (None, None) for w in survey.scenario.workload):
        found.append("--quality-margin changes nothing: no floor is asked for")
    return [*found, *refusals(survey, deployments)]


def queueing(plan: Plan, meant: Collection[str]) -> list[str]:
    """Says where most requests wait because replicas are full; ``meant``: workloads whose requests are there to wait."""
    found = []
    for w in plan.workloads:
        share = w.predicted.waiting_share if w.predicted else None
        if share is None or share < ALWAYS or w.name in meant:
            continue
        bounded = any(limit.metric in ("ttft", "e2e") for limit in w.slo)
        how = "within its limits, with no margin for a burst" if bounded else "--max-waiting-share 0.05 keeps a margin"
        found.append(f"workload {w.name} runs full and queues always: {share:.0%} of requests find a replica full and wait ({how})")
    return found


def _one_lost(served: Sequence[Workload], d: Deployment) -> list[str]:
    """What the loss of a replica means to those served: a missed SLO where there is one, else requests that wait until it is back."""
    load, mends = d.slo_load_one_replica_lost, " (--spare-replicas 1)" if any(w.max_waiting_share < 1 for w in served) else ""
    if load is not None and load <= 1 + 1e-9:
        return []
    missed = "the SLO is missed" if any(w.slo for w in served) else "requests wait until it is back"
    down = "the service is down" if mends else "requests wait until it is back"
    what = f"with one of {d.replicas} replicas down the SLO load is {load:.4g}: {missed}" if load is not None else f"a single replica; when it fails {down}"
    return [f"{called(d.model, d.checkpoint)}: {what}{mends}"]


def _quality_warnings(survey: Survey, c: Chosen, d: Deployment) -> list[Caution]:
    q, found = d.quality, list[Caution]()
    if q is None:
        return []
    if q.self_reported:
        found.append(Caution(f"{q.benchmark} {q.score:.4g} of {d.checkpoint} is self-reported"))
    recovery = survey.catalog.recoveries.get(c.eligible.served.checkpoint.scheme)
    if q.derived and recovery:
        lowest, floors = q.score / recovery.factor * recovery.lowest, [survey.scenario.workload[w].min_quality for w in c.pool.traffic]
        below = ", below the floor" if any(floor is not None and lowest < floor for floor in floors) else ""
        text = (
            f"{q.benchmark} {q.score:.4g} of {d.checkpoint.split('/')[-1]} is derived from its unquantised original: "
            f"{lowest:.4g} at the worst of {recovery.pairs} published {recovery.scheme} pairs{below}"
        )
        found.append(Caution(text, d.usd_per_hour if below else 0.0))
    if q.fp8_kv_unmeasured and d.precision not in FP8_KV:
        found.append(Caution(f"the FP8 KV cache of {d.checkpoint} was asked for: what it takes from {q.benchmark} {q.score:.4g} is not in the catalogue"))
    return found


def _evidence_warnings(survey: Survey, c: Chosen, d: Deployment) -> list[str]:
    """Says what was never measured, and how far off such predictions are when what was measured is left out of the fit."""
    if d.evidence is None or d.evidence.tier in ("measured", CALIBRATED, "anchored"):
        return []
    unseen = bool(survey.coefficients.unseen(survey.replicas.take(np.array([c.row])))[0])
    if d.evidence.tier == "modelled":
        nearest = f"{d.gpu} has no measured curve" + (", nor has its generation in this use" if unseen else "")
        fold = "leave_model_and_generation_out" if unseen else "leave_model_and_gpu_out"
    else:
        elsewhere = "on another GPU only" if d.model in {m.architecture for m in survey.catalog.measured} else "on no GPU"
        shared = "" if called(d.model, d.checkpoint) == d.model else f", the architecture of {called(d.model, d.checkpoint)},"
        nearest = f"{d.model}{shared} was measured {elsewhere}, {d.gpu} with other models"
        fold = "leave_model_out"
    median = survey.coefficients.errors.get(fold, {}).get("tpot", {}).get("median")
    accuracy = f"; left out of the fit, the like was {median:.0%} off in TPOT in the median" if median else ""
    return [f"no measured neighbour: {nearest}{accuracy}. Measure before buying"]


def _not_yours(survey: Survey, d: Deployment) -> list[str]:
    """That the user measured this model on this GPU on other engines only, which the plan may take: what is cheaper by prediction may only be what
    nobody measured yet."""
    measured, allowed = {r.engine for r in survey.catalog.calibrated if (r.architecture, r.gpu) == (d.model, d.gpu)}, survey.scenario.policy.engines
    engines = {e for e in measured if not allowed or e in allowed}
    if not engines or d.engine in measured:
        return []
    known = " and ".join(sorted(engines))
    return [f"you measured {d.model} on {d.gpu} on {known}; {d.engine} is cheaper by prediction alone (--engine {min(engines)} keeps to what you measured)"]


def _beyond(survey: Survey, c: Chosen, d: Deployment) -> list[str]:
    """That its steps hold more requests than those of any row of the fit, or that none had its layout on its engine."""
    own, held = survey.replicas.take(np.array([c.row])), d.in_flight_per_replica or 0.0
    most, each = float(survey.coefficients.reached(own)[0]), d.tp * d.pp
    if survey.coefficients.untried(own)[0]:
        return [f"{d.checkpoint}: no measured row has attention data parallel on {d.engine}: steps have the band of an unknown generation of GPUs"]
    if held <= most:
        return []
    known = f"no measured row on {d.gpu} in {d.precision} holds more than {most / each:.3g}"
    return [f"{d.checkpoint}: {held / each:.0f} requests in flight per GPU, {known}: steps are extrapolated, with the band of an unknown generation of GPUs"]


def _option_warnings(d: Deployment) -> list[str]:
    """What the measurements of speculative decoding and of disaggregated units do not say (docs/serving-options.md)."""
    found = []
    if d.speculative:
        found.append(
            f"{d.checkpoint} drafts its own tokens: how many are accepted depends on the traffic; the gain was measured on random tokens, "
            "on DeepSeek-R1 only. Measure it on yours"
        )
    if d.decode_engines:
        found.append(
            f"{d.checkpoint} is served in units of {d.prefill_engines} prefill and {d.decode_engines} decode engines: how far predictions of units are off "
            "was measured on DeepSeek-R1 only, in closed loops; a unit needs a router of its own and is down while one role is"
        )
    return found


def _api_warnings(survey: Survey, apis: Sequence[HostedApi], cost: float) -> list[Caution]:
    """A plan far below the API's price is suspect; one above it is a poor deal. Only where one workload makes them comparable."""
    if len(survey.scenario.workload) > 1:
        return []
    found = [
        Caution(
            f"the plan costs {a.usd_per_hour / cost:.1f} times less than the cheapest API of {a.checkpoint}: APIs carry margin and idle time, "
            "but check the predicted throughput before buying"
        )
        for a in apis
        if a.same_model and a.usd_per_hour > SUSPECT * cost
    ]
    return found + [
        Caution(
            f"the hosted API of {a.checkpoint} at {a.provider} costs ${a.usd_per_hour:,.2f}/h, less than renting: if its latency suits you "
            "(it is not known here), the API is the honest answer at this rate",
            cost - a.usd_per_hour,
        )
        for a in apis
        if a.usd_per_hour < cost
    ]


def _price_warnings(survey: Survey, deployments: Sequence[Deployment], bought: Sequence[Purchase]) -> list[Caution]:
    """At risk: all of a purchase that may be reclaimed, or may not be had in the shape assumed."""
    newest = max(o.as_of for o in survey.catalog.offers)
    found: list[Caution] = []
    for i, p in enumerate(bought):
        if p.dated_by == "scenario":  # one's own GPUs at one's own numbers
            continue
        if p.as_of < (newest - timedelta(days=STALE_DAYS)).isoformat():
            text = f"price of {p.provider} {p.instance_type} is of {p.as_of}, over {STALE_DAYS} days older than the newest in the catalogue"
            found.append(Caution(text))
        if p.purchase == "spot":
            text = f"spot capacity of {p.provider} {p.instance_type} can be reclaimed at any time; the plan assumes that it stays"
            found.append(Caution(text, p.usd_per_hour))
        if p.dated_by == "snapshot":
            found.append(Caution(f"price of {p.provider} {p.instance_type} is undated at its source; {p.as_of} is the snapshot's date"))
        spread = [d for d in deployments if d.gpus_per_replica > 1 and any(h.purchase == i for h in d.hosts)]
        if p.basis == "gpu" and spread:
            gpus = spread[0].gpus_per_replica
            text = f"{p.provider} sells {p.gpu} one by one; that {gpus} connected ones can be rented together at this price is assumed"
            found.append(Caution(text, p.usd_per_hour))
        elif p.note and p.basis == "instance":
            found.append(Caution(f"{p.provider} {p.instance_type}: {p.note}"))
    return found


def with_adapters(policy: Policy) -> list[str]:
    """What a plan with LoRA adapters holds, and leaves out."""
    if not policy.adapters:
        return []
    held = f"{policy.adapters} LoRA adapters of rank {policy.adapter_rank} are kept on every GPU, in 16 bits on all projections but routed experts'"
    return [f"{held}; how much slower steps are with them is not modelled: measure"]
