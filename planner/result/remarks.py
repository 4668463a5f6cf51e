"""What a reviewer must be told beside the numbers: defaults used, binding demands, the headroom waterfall. What may go wrong: cautions.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from planner.candidates.columns import UNKNOWN_DRAW, Formulation
from planner.catalog.records import REFERENCE
from planner.result.deploy import mixture_of
from planner.result.plan import Deployment, HeadroomStep, Purchase
from planner.result.spread import spread_in_words
from planner.scenario.caps import caps, spent
from planner.scenario.fields import by_path
from planner.scenario.records import KINDS, Scenario
from planner.scenario.slo import DEFAULT_SLO
from planner.scenario.sources import Origins
from planner.scenario.units import format_duration
from planner.search.answer import Answer
from planner.search.chosen import Chosen


def supply_line(scenario: Scenario) -> str:
    """What the plan was allowed to buy, in words."""
    s = scenario.supply
    kinds = " and ".join(k if k.endswith("s") else f"{k}s" for k in s.kinds if k != "owned")
    parts = [f"{', '.join(s.purchase).replace('_', '-')} prices of {', '.join(s.providers) or kinds}"] if kinds else ["nothing rented"]
    parts += [f"owned {' + '.join(f'{o.count} x {o.gpu}' for o in s.owned)}"] if s.owned else []
    left_out = sum(s.kinds != KINDS and o.kind not in s.kinds for o in s.offers)
    parts += [f"{len(s.offers)} own {'offers' if len(s.offers) > 1 else 'offer'}"] if s.offers else []
    parts += [f"{left_out} of them of another kind than asked for"] if left_out else []
    parts += [f"{share:.4g} off the prices of {name.replace(':', ' ').replace('_', '-')}" for name, share in s.discount.items()]
    parts += [f"{currency} at {rate:g} USD, as stated" for currency, rate in s.exchange_rate.items() if any(o.currency == currency for o in s.offers)]
    parts += [f"in {', '.join((*s.regions, *s.geographies))}"] if s.regions or s.geographies else []
    parts += [f"{w.name} only in {' or '.join((*w.regions, *w.geographies))}" for w in scenario.workload if w.has_places]
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
        found += [f"{prefix}network {format_duration(w.network)}: limits and latencies are those at the servers, TTFT and E2E less that"] if w.network else []
        found += [f"{prefix}lengths in tokens of {REFERENCE}"] if w.language and not w.tokenizer else []
        shown = [f"{s.words} {format_duration(s.seconds)}" for s in w.limits if DEFAULT_SLO.get(s.name) == s.seconds]
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
    found += ["no quota assumed: stock is not checked"] if not any(c.field.of == "gpus" for c in caps(scenario)) else []
    is_plain = not (s.providers or s.offers or s.discount or any(w.has_places for w in scenario.workload))
    found += [f"{supply_line(scenario)}"] if unset("supply.kinds") and unset("supply.purchase") and is_plain else []
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
    keys = path.split(".")
    value: Any = scenario
    for key in keys:
        value = value[int(key)] if key.isdigit() else getattr(value, key)
    field = by_path(tuple(k for k in keys if not k.isdigit()))
    return field is not None and bool(value == field.default)


def left_out(formulation: Formulation) -> tuple[str, ...]:
    """That offers cannot be held because what is asked about them is not known; nothing where none is left out."""
    n, s = formulation.excluded[UNKNOWN_DRAW], formulation.scenario
    if not n:
        return ()
    is_carbon = s.supply.max_carbon is not None or s.objective.carbon_price > 0
    what = "carbon is not known (most state no place; --carbon-intensity supposes one)" if is_carbon else "power is not known"
    return (f"{n} offer{'s' if n > 1 else ''} left out whose {what}",)


def headroom(answer: Answer, chosen: Sequence[Chosen], deployments: Sequence[Deployment], used: int, held: int) -> tuple[HeadroomStep, ...]:
    """From mean demand to what is bought, as factors. Over several deployments the factors are weighted by GPUs."""
    policy = answer.formulation.scenario.policy

    def mean(values: Sequence[float]) -> float:
        return sum(v * d.gpus for v, d in zip(values, deployments, strict=True)) / max(1, sum(d.gpus for d in deployments))

    k = policy.spare_replicas
    evidence = mean([1 / d.evidence.capacity_factor if d.evidence and d.evidence.capacity_factor else 1.0 for d in deployments])
    mixture = mean([1 / mixture_of(c, answer) for c in chosen])
    losses = mean([_for_losses(d, k) for d in deployments])
    whole = mean([policy.max_slo_load / d.slo_load / _for_losses(d, k) if d.slo_load else 1.0 for d in deployments])
    spare = mean([d.replicas / (d.replicas - k) for d in deployments])
    peak = mean([sum(c.peak_qps(w) for w in c.pool.traffic) / sum(c.qps(w) for w in c.pool.traffic) for c in chosen])
    borne = ", ".join(f"{d.standing_by} more" for d in deployments)
    peaks = "burst factor: the limits hold at peaks, costs are per mean traffic" if peak > 1 else "none: the stated rate is taken as the peak"
    steps = [
        HeadroomStep(step="mean demand", factor=1.0, note="rate as stated, Poisson arrivals; the SLO's percentiles are in the capacity itself"),
        HeadroomStep(step="peak rule", factor=peak, note=peaks),
        HeadroomStep(step="evidence", factor=evidence, note=f"step times at confidence {policy.confidence:g} instead of the median"),
        HeadroomStep(step="mixture", factor=mixture, note="workloads sharing a deployment" if mixture > 1 else "no deployment is shared"),
        HeadroomStep(step="policy", factor=1 / policy.max_slo_load, note=f"SLO load up to {policy.max_slo_load:g}"),
        HeadroomStep(step="whole replicas", factor=whole, note=", ".join(f"{d.replicas - k - d.standing_by} replicas" for d in deployments)),
        *([HeadroomStep(step="losses", factor=losses, note=f"{borne} for {policy.survives}")] if policy.survives else []),
        HeadroomStep(step="spare replicas", factor=spare, note=f"{k} per deployment"),
        HeadroomStep(step="whole instances", factor=held / used if used else 1.0, note=f"{used} GPUs used, {held} held"),
    ]
    return tuple(steps)


def _for_losses(d: Deployment, spare: int) -> float:
    """Replicas with those for what may be lost over those that traffic takes."""
    return (d.replicas - spare) / (d.replicas - spare - d.standing_by)


def binding(scenario: Scenario, deployments: Sequence[Deployment], held: Mapping[str, float], bought: Sequence[Purchase]) -> tuple[str, ...]:
    """The demands that hold the plan where it is. held: what counts towards each cap, by its name."""
    owned = Counter[tuple[str, str]]()
    for p in bought:
        owned[p.provider, p.gpu] += p.gpus_held if p.kind == "owned" else 0
    found = [f"{d.binding_limit} on {d.checkpoint}, {d.gpu}" for d in deployments if d.binding_limit]
    found += [f"owned {o.gpu} of {o.name}: {n} of {o.count}" for o in scenario.supply.owned if (n := owned[o.name, o.gpu]) >= o.count]
    found += [f"minimum of {p.minimum} x {p.instance_type} at {p.provider}" for p in bought if p.instances == p.minimum > 1]
    return (*found, *(said for cap in caps(scenario) if (said := spent(cap, held[cap.name]))))
