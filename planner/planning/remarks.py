"""What a reviewer must be told beside the numbers: defaults used, warnings, binding demands, the headroom waterfall."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from datetime import timedelta

import numpy as np

from planner.candidates.survey import Survey
from planner.catalog.catalog import Catalog
from planner.catalog.records import REFERENCE, Card
from planner.performance.replicas import FP8_KV
from planner.plan import Deployment, HeadroomStep, HostedApi, Plan, Purchase, called
from planner.planning.answer import Answer
from planner.planning.deploy import Chosen, mixture_of
from planner.planning.spread import refusals, spread_in_words
from planner.scenario.fields import by_path
from planner.scenario.records import DEFAULT_SLO, Scenario, Workload
from planner.scenario.sources import Origins
from planner.scenario.units import format_duration

STALE_DAYS = 90
ALWAYS = 0.5  # of the requests wait: from here on waiting is the rule
SUSPECT = 3.0  # a plan this many times below the API's price needs a second look


def supply_line(scenario: Scenario) -> str:
    """What the plan was allowed to buy, in words."""
    s = scenario.supply
    kinds = " and ".join(k if k.endswith("s") else f"{k}s" for k in s.kinds if k != "owned")
    parts = [f"{', '.join(s.purchase).replace('_', '-')} prices of {', '.join(s.providers) or kinds}"] if kinds else ["nothing rented"]
    parts += [f"owned {' + '.join(f'{o.count} x {o.gpu}' for o in s.owned)}"] if s.owned else []
    parts += [f"in {', '.join((*s.regions, *s.geographies))}"] if s.regions or s.geographies else []
    parts += [f"GPUs {', '.join(s.gpus)}"] if s.gpus else []
    parts += [f"prices at most {s.max_price_age} days older than the newest"] if s.max_price_age is not None else []
    return "; ".join(parts)


def defaults(scenario: Scenario, origins: Origins) -> tuple[str, ...]:
    """Every default that shaped the answer."""
    found: list[str] = []

    def unset(path: str) -> bool:
        """Nobody gave it, as far as is known, and it has the default's value."""
        return not any(key == path or path.startswith(f"{key}.") for key in origins) and _is_default(scenario, path)

    for i, w in enumerate(scenario.workload):
        prefix = f"{w.name}: " if len(scenario.workload) > 1 else ""
        found += [f"{prefix}{w.demand.describe()}"] if w.demand else []
        found += [f"{prefix}{w.lengths.describe()}"] if w.lengths else []
        if not w.lengths and (unset(f"workload.{i}.input_tokens") or unset(f"workload.{i}.output_tokens")):
            found.append(f"{prefix}lengths {w.input_tokens:g} in / {w.output_tokens:g} out (mean tokens)")
        found += [f"{prefix}{line}" for line in spread_in_words(w)]
        found += [f"{prefix}lengths in tokens of {REFERENCE}"] if w.language and not w.tokenizer else []
        shown = [f"{k.split('_p')[0].upper()} p{k.split('_p')[1]} {format_duration(v)}" for k, v in w.slo.items() if DEFAULT_SLO.get(k) == v]
        if shown and (f"workload.{i}.slo" not in origins or len(shown) < len(w.slo)):
            found.append(f"{prefix}SLO {', '.join(shown)}")
        if w.is_queue_bounded and unset(f"workload.{i}.max_waiting_share"):
            share = 100 * w.max_waiting_share
            found.append(f"{prefix}at most {share:g}% of requests find a replica full, as no TTFT or E2E limit says how long they may wait")
        if w.min_quality is None and w.mean_quality is None:
            found.append(f"{prefix}no quality floor")
        elif unset(f"workload.{i}.quality_metric"):
            found.append(f"{prefix}quality is {w.quality_metric}")
    p, s = scenario.policy, scenario.supply
    found += ["all tokenizers taken as equal (--language)"] if not any(w.language for w in scenario.workload) else []
    found += ["no quota assumed: stock is not checked"] if not s.quota and s.max_gpus is None else []
    found += [f"{supply_line(scenario)}"] if unset("supply.kinds") and unset("supply.purchase") and not s.providers else []
    found += [f"confidence {p.confidence:g} in step times"] if unset("policy.confidence") else []
    found += ["one pool per workload"] if p.max_pools is None and not p.mix else []
    found += ["one location"] if unset("policy.max_locations") else []
    found += ["no spare replica"] if unset("policy.spare_replicas") else []
    found += [f"SLO load up to {p.max_slo_load:g}"] if unset("policy.max_slo_load") else []
    burst, cache = ([getattr(w, field) for w in scenario.workload] for field in ("burst_factor", "prefix_cache_hit"))
    found += ["Poisson arrivals at the stated rate: no peak or burst factor"] if max(burst) == 1 else ["Poisson arrivals at the rate of peaks"]
    found += ["no prefix cache"] if not any(cache) else []
    found += [f"router {p.router.replace('_', '-')}"] if unset("policy.router") else []
    found += [f"engines may use {p.gpu_memory_utilization:g} of GPU memory"] if unset("policy.gpu_memory_utilization") else []
    return tuple(found)


def _is_default(scenario: Scenario, path: str) -> bool:
    """Whether the value at a path ("workload.0.qps") is its field's default."""
    keys, value = path.split("."), scenario
    for key in keys:
        value = value[int(key)] if key.isdigit() else getattr(value, key)  # type: ignore[index]
    field = by_path(tuple(k for k in keys if not k.isdigit()))
    return field is not None and bool(value == field.default)


def headroom(answer: Answer, chosen: Sequence[Chosen], deployments: Sequence[Deployment], used: int, held: int) -> tuple[HeadroomStep, ...]:
    """From mean demand to what is bought, as factors. Over several deployments the factors are weighted by GPUs."""
    policy = answer.market.scenario.policy

    def mean(values: Sequence[float]) -> float:
        return sum(v * d.gpus for v, d in zip(values, deployments, strict=True)) / max(1, sum(d.gpus for d in deployments))

    k = policy.spare_replicas
    evidence = mean([1 / d.evidence.capacity_factor if d.evidence and d.evidence.capacity_factor else 1.0 for d in deployments])
    mixture = mean([1 / mixture_of(c, answer) for c in chosen])
    whole = mean([policy.max_slo_load / d.slo_load if d.slo_load else 1.0 for d in deployments])
    spare = mean([d.replicas / (d.replicas - k) for d in deployments])
    peak = mean([sum(c.peak_qps(w) for w in c.pool.traffic) / sum(c.qps(w) for w in c.pool.traffic) for c in chosen])
    peaks = "burst factor: the limits hold at peaks, costs are per mean traffic" if peak > 1 else "none: the stated rate is taken as the peak"
    steps = [
        HeadroomStep(step="mean demand", factor=1.0, note="rate as stated, Poisson arrivals; the SLO's percentiles are in the capacity itself"),
        HeadroomStep(step="peak rule", factor=peak, note=peaks),
        HeadroomStep(step="evidence", factor=evidence, note=f"step times at confidence {policy.confidence:g} instead of the median"),
        HeadroomStep(step="mixture", factor=mixture, note="workloads sharing a deployment" if mixture > 1 else "no deployment is shared"),
        HeadroomStep(step="policy", factor=1 / policy.max_slo_load, note=f"SLO load up to {policy.max_slo_load:g}"),
        HeadroomStep(step="whole replicas", factor=whole, note=", ".join(f"{d.replicas - k} replicas" for d in deployments)),
        HeadroomStep(step="spare replicas", factor=spare, note=f"{k} per deployment"),
        HeadroomStep(step="whole instances", factor=held / used if used else 1.0, note=f"{used} GPUs used, {held} held"),
    ]
    return tuple(steps)


def binding(scenario: Scenario, deployments: Sequence[Deployment], cost: float, bought: Sequence[Purchase]) -> tuple[str, ...]:
    """The demands that hold the plan where it is."""
    gpus, owned = Counter[str](), Counter[tuple[str, str]]()
    for p in bought:
        gpus[p.gpu] += p.gpus_held
        owned[p.provider, p.gpu] += p.gpus_held if p.kind == "owned" else 0
    held = gpus.total()
    found = [f"{d.binding_limit} on {d.checkpoint}, {d.gpu}" for d in deployments if d.binding_limit]
    found += [f"quota of {g}: {gpus[g]} of {n}" for g, n in scenario.supply.quota.items() if g in gpus and gpus[g] >= n]
    found += [f"owned {o.gpu} of {o.name}: {n} of {o.count}" for o in scenario.supply.owned if (n := owned[o.name, o.gpu]) >= o.count]
    found += [f"max_gpus: {held}"] if scenario.supply.max_gpus is not None and held >= scenario.supply.max_gpus else []
    budget = scenario.policy.budget
    found += [f"budget: ${cost:,.2f} of ${budget:,.2f} an hour"] if budget is not None and cost > 0.98 * budget else []
    return tuple(found)


def unproven(found: Answer) -> str:
    """What the time limit left unsearched, of a plan that is not proven."""
    if found.market.unsettled:
        return f"{found.market.unsettled:,} candidates were not looked at within the time limit: there may be cheaper plans (raise --time-limit)"
    return f"the search was stopped by the time limit: a plan up to {found.solution.gap:.1%} cheaper is not ruled out (raise --time-limit)"


def warnings(
    survey: Survey, chosen: Sequence[Chosen], deployments: Sequence[Deployment], bought: Sequence[Purchase], apis: Sequence[HostedApi], cost: float
) -> tuple[str, ...]:
    """What may make the plan wrong."""
    found: list[str] = []
    for c, d in zip(chosen, deployments, strict=True):
        found += _quality_warnings(survey, c, d) + _evidence_warnings(survey, c, d) + _option_warnings(d)
        if d.output_factor > 1:
            where = c.eligible.served.output_factor_source or "given with --output-factor"
            found.append(f"{d.checkpoint} reasons: {d.output_factor:g} tokens written per answer token ({where})")
        found += [words for w in sorted(c.pool.traffic) if (words := tokens_in_words(survey.catalog, survey.scenario.workload[w], c.eligible.served.card))]
        if d.pp > 1:
            found.append(f"{d.checkpoint} is split over {d.pp} pipeline stages, which was never measured; nodes are joined by the engine's own set-up")
        if c.eligible.served.checkpoint.variant == "hybrid" and d.mode == "instruct":
            found.append(f"{d.checkpoint} thinks by default: the plan assumes that clients or the server turn thinking off")
        if c.eligible.served.card.architecture.linear_state_bytes and any(survey.scenario.workload[w].prefix_cache_hit for w in c.pool.traffic):
            found.append(
                f"{d.checkpoint} has linear-attention layers, whose state engines cache less often than KV: measure that it reaches your prefix-cache hits"
            )
        found += _one_lost([survey.scenario.workload[w] for w in c.pool.traffic], d)
    for demanded in (w.demand for w in survey.scenario.workload if w.demand):
        found += [f"{demanded.source} is {demanded.advice}"] if demanded.advice else []
        if "keeps everything" in demanded.prefix_from:
            found.append(f"prefix-cache hits of {demanded.source} are from {demanded.prefix_from}: real caches keep less (--prefix-cache-hit 0 counts on none)")
    if survey.scenario.policy.quality_margin and all((w.min_quality, w.mean_quality) == (None, None) for w in survey.scenario.workload):
        found.append("--quality-margin changes nothing: no floor is asked for")
    found += refusals(survey, deployments)
    found += _price_warnings(survey, deployments, bought)
    found += _api_warnings(survey, apis, cost)
    return tuple(dict.fromkeys(found))


def tokens_in_words(catalog: Catalog, workload: Workload, card: Card) -> str:
    """What a model makes of the tokens that lengths are stated in, and how it is known; "" where that is not asked, or they are its own."""
    stated, language = workload.tokenizer or REFERENCE, workload.language
    tokens = catalog.tokens_per_stated(card, language, stated) if language else 1.0
    if tokens is None or card.tokenizer is None:
        return f"the tokenizer of {card.name} is not known: its tokens are taken as equal to those of {stated}, in which lengths are stated" if language else ""
    if tokens == 1.0:
        return ""
    row = catalog.tokens[card.tokenizer.name, language]
    spread = f", {row.low:.3g} to {row.high:.3g} over documents" if stated == REFERENCE else ""
    how = f"tokenizer {card.tokenizer.name}{spread}; see plan catalog tokenizers {language}"
    return f"{card.name} makes {tokens:.3g} tokens of each of {stated}'s in {language} ({how})"


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


def _quality_warnings(survey: Survey, c: Chosen, d: Deployment) -> list[str]:
    q, found = d.quality, []
    if q is None:
        return []
    if q.self_reported:
        found.append(f"{q.benchmark} {q.score:.4g} of {d.checkpoint} is self-reported")
    recovery = survey.catalog.recoveries.get(c.eligible.served.checkpoint.scheme)
    if q.derived and recovery:
        lowest, floors = q.score / recovery.factor * recovery.lowest, [survey.scenario.workload[w].min_quality for w in c.pool.traffic]
        below = ", below the floor" if any(floor is not None and lowest < floor for floor in floors) else ""
        found.append(
            f"{q.benchmark} {q.score:.4g} of {d.checkpoint.split('/')[-1]} is derived from its unquantised original: "
            f"{lowest:.4g} at the worst of {recovery.pairs} published {recovery.scheme} pairs{below}"
        )
    if q.fp8_kv_unmeasured and d.precision not in FP8_KV:
        found.append(f"the FP8 KV cache of {d.checkpoint} was asked for: what it takes from {q.benchmark} {q.score:.4g} is not in the catalogue")
    return found


def _evidence_warnings(survey: Survey, c: Chosen, d: Deployment) -> list[str]:
    """Says what was never measured, and how far off such predictions are when what was measured is left out of the fit."""
    if d.evidence is None or d.evidence.tier in ("measured", "anchored"):
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


def _api_warnings(survey: Survey, apis: Sequence[HostedApi], cost: float) -> list[str]:
    """A plan far below the API's price is suspect; one above it is a poor deal. Only where one workload makes them comparable."""
    if len(survey.scenario.workload) > 1:
        return []
    found = [
        f"the plan costs {a.usd_per_hour / cost:.1f} times less than the cheapest API of {a.checkpoint}: APIs carry margin and idle time, "
        "but check the predicted throughput before buying"
        for a in apis
        if a.same_model and a.usd_per_hour > SUSPECT * cost
    ]
    return found + [
        f"the hosted API of {a.checkpoint} at {a.provider} costs ${a.usd_per_hour:,.2f}/h, less than renting: if its latency suits you "
        "(it is not known here), the API is the honest answer at this rate"
        for a in apis
        if a.usd_per_hour < cost
    ]


def _price_warnings(survey: Survey, deployments: Sequence[Deployment], bought: Sequence[Purchase]) -> list[str]:
    newest = max(o.as_of for o in survey.catalog.offers)
    found = []
    for i, p in enumerate(bought):
        if p.dated_by == "scenario":  # one's own GPUs at one's own numbers
            continue
        if p.as_of < (newest - timedelta(days=STALE_DAYS)).isoformat():
            found.append(f"price of {p.provider} {p.instance_type} is of {p.as_of}, over {STALE_DAYS} days older than the newest in the catalogue")
        if p.purchase == "spot":
            found.append(f"spot capacity of {p.provider} {p.instance_type} can be reclaimed at any time; the plan assumes that it stays")
        if p.dated_by == "snapshot":
            found.append(f"price of {p.provider} {p.instance_type} is undated at its source; {p.as_of} is the snapshot's date")
        spread = [d for d in deployments if d.gpus_per_replica > 1 and any(h.purchase == i for h in d.hosts)]
        if p.basis == "gpu" and spread:
            gpus = spread[0].gpus_per_replica
            found.append(f"{p.provider} sells {p.gpu} one by one; that {gpus} connected ones can be rented together at this price is assumed")
        elif p.note and p.basis == "instance":
            found.append(f"{p.provider} {p.instance_type}: {p.note}")
    return found
