"""Checks that each deployment can exist: a published checkpoint the user allows, on kernels that run it, cut as engines can cut it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from statistics import NormalDist

import numpy as np

from planner.catalog.catalog import Served
from planner.catalog.records import Gpu
from planner.check.case import Case, Rebuilt, batched_tokens_of
from planner.check.findings import Finding, Notes, same
from planner.emit.engine import context_to_serve
from planner.performance.coefficients import TIERS
from planner.performance.disaggregated import RATIOS
from planner.performance.lengths import refused_share
from planner.performance.replicas import FP8_KV, Floats
from planner.result.plan import Deployment
from planner.scenario.records import Scenario
from planner.scenario.workload import Workload

QUANTILES = (500, 25)  # of prompts and answers, counted against a context
EXACT, DIGITS = 1e-6, 5e-4
COUNTED = 0.005  # what counting so many may be off by


def candidate(case: Case) -> Finding:
    """Checkpoint, mode, precision, kernels, TP, context, output factor and the user's own choices."""
    notes = Notes("candidate")
    for i, why in case.unknown:
        notes.add(case.where(i), why)
    for i, (d, built) in enumerate(zip(case.plan.deployments, case.built, strict=True)):
        if built is None:
            continue
        where = case.where(i)
        _published(notes, d, built, where)
        _runs(notes, d, built.served, built.gpu, where)
        _admitted(notes, d, built.served, case.scenario, where)
        thinnest = case.scenario.policy.evidence
        notes.require(TIERS.index(built.tier) <= TIERS.index(thinnest), where, f"is {built.tier}, and evidence no thinner than {thinnest} was asked for")
        for w in built.serves:
            _serves(notes, d, built, w, case.scenario.workload[w], where)
        _refused(notes, d, built, case.scenario, where)
    return notes.finding(f"candidates: {len(case.built)} deployments of published checkpoints on GPUs and engines that run them")


def _published(notes: Notes, d: Deployment, built: Rebuilt, where: str) -> None:
    card, checkpoint = built.served.card, built.served.checkpoint
    notes.require(d.model == card.name, where, f"states model {d.model}, the checkpoint is of {card.name}")
    notes.require(d.is_hybrid == (checkpoint.variant == "hybrid"), where, f"states {'' if d.is_hybrid else 'not '}that it answers in either mode")
    notes.require(d.precision == checkpoint.precision, where, f"states precision {d.precision}, published in {checkpoint.precision}")


def _runs(notes: Notes, d: Deployment, served: Served, gpu: Gpu, where: str) -> None:
    """Kernels for the precision and the KV cache; heads, KV heads and FP8 blocks that divide by TP, experts that divide by EP."""
    a, checkpoint = served.card.architecture, served.checkpoint
    notes.require(checkpoint.precision in gpu.precisions, where, f"no kernels for {checkpoint.precision}")
    notes.require(d.engine in gpu.engines, where, f"{d.engine} does not run on it")
    notes.require(d.ep in (1, d.tp) and d.dp in (1, d.tp) and (d.dp == 1 or d.ep == d.tp), where, f"no engine lays it out as {d.layout}")
    notes.require(d.ep == 1 or (a.experts > 0 and a.experts % d.ep == 0), where, f"{a.experts} experts do not spread over EP{d.ep}")
    group, heads = max(d.tp // d.dp, 1), a.kv_heads if a.attention == "gqa" else 1
    notes.require(a.attention_heads % group == 0, where, f"{a.attention_heads} heads do not split over TP{group}")
    notes.require(heads % group == 0 or group % heads == 0, where, f"{heads} KV heads do not split over TP{group}")
    for size in (a.intermediate_size, a.expert_intermediate_size if d.ep == 1 else 0) if checkpoint.fp8_block else ():
        notes.require(size % (group * checkpoint.fp8_block) == 0, where, f"{size} rows do not split into whole blocks of {checkpoint.fp8_block} over TP{group}")
    if d.decode_engines:
        notes.require((d.prefill_engines, d.decode_engines) in RATIOS, where, "no ratio of prefill to decode engines that plans may choose")
        notes.require(d.pp == 1 and not d.speculative, where, "units of pipelines, or with drafted tokens, were never measured")
        notes.require(d.engine in ("vllm", "sglang"), where, f"a plain command starts no unit of {d.engine}")
    narrow = d.kv_cache_dtype == "fp8"
    notes.require(not narrow or checkpoint.precision in FP8_KV or "fp8" in gpu.precisions, where, "no kernels for an FP8 KV cache")
    notes.require(narrow or checkpoint.precision not in FP8_KV, where, f"a KV cache of {d.kv_cache_dtype} numbers, served with FP8 ones")


def _admitted(notes: Notes, d: Deployment, served: Served, scenario: Scenario, where: str) -> None:
    policy = scenario.policy
    notes.require(not policy.engines or d.engine in policy.engines, where, f"engine {d.engine} was not asked for")
    notes.require(d.dp == 1 or "attention_dp" in policy.allow, where, "attention data parallel is not allowed")
    notes.require(d.ep == 1 or d.dp > 1 or "expert_parallel" in policy.allow, where, "expert parallel is not allowed")
    notes.require(not d.speculative or "speculative" in policy.allow, where, "speculative decoding is not allowed")
    notes.require(not d.decode_engines or ("disaggregated" in policy.allow and policy.chunked_prefill), where, "disaggregated units are not allowed")
    notes.require(d.kv_cache_dtype != "fp8" or served.checkpoint.precision in FP8_KV or "fp8_kv" in policy.allow, where, "an FP8 KV cache is not allowed")
    notes.require(not policy.precisions or served.checkpoint.precision in policy.precisions, where, f"precision {d.precision} was not asked for")
    notes.require(not named(served, policy.exclude_models), where, "the model is excluded")


def _serves(notes: Notes, d: Deployment, built: Rebuilt, w: int, workload: Workload, where: str) -> None:
    """May this workload meet it: named by the user, sourced output factor, context."""
    served = built.served
    asked = not workload.models or named(served, workload.models) or begins(served, workload.models)
    notes.require(asked, where, f"{workload.name} did not ask for this model")
    if w not in built.fits:
        notes.add(where, f"reasons, and nobody says how many tokens it writes per answer token of {workload.name}")
        return
    longest = served.checkpoint.max_context or served.card.architecture.max_context
    refused = longer_than(built.fits[w].workload, built.fits[w].factor, longest)
    notes.require(refused <= workload.max_refused + COUNTED, where, f"its {longest:,} tokens of context refuse {refused:.1%} of {workload.name}")
    right = max(built.fits[v].factor for v in built.serves if v in built.fits)
    notes.require(same(d.output_factor, right), where, f"states output factor {d.output_factor:g}, should be {right:g}")


def _refused(notes: Notes, d: Deployment, built: Rebuilt, scenario: Scenario, where: str) -> None:
    """The share of requests stated as too long, against the context that its start command gives it."""
    asked = [(built.fits[w].workload, built.fits[w].factor) for w in built.serves if w in built.fits]
    if not asked:
        return
    if d.refused_share is None:
        notes.add(where, "does not state which share of requests its context refuses")
        return
    context = context_to_serve(
        [w for w, _ in asked], max(f for _, f in asked), built.served.checkpoint.max_context or built.served.card.architecture.max_context
    )
    context = context if scenario.policy.chunked_prefill else min(context, batched_tokens_of(d))
    right, exact = (max(share(w, f, context) for w, f in asked) for share in (longer_than, refused_share))
    notes.require(abs(d.refused_share - exact) <= EXACT + DIGITS * exact, where, f"states {d.refused_share:.4%} of requests refused, should be {exact:.4%}")
    notes.require(abs(d.refused_share - right) <= COUNTED, where, f"states {d.refused_share:.2%} of requests refused, its context refuses {right:.2%}")


@cache
def _normal(count: int) -> Floats:
    """So many equally likely values of a standard normal variable."""
    return np.array([NormalDist().inv_cdf((j + 0.5) / count) for j in range(count)])


def longer_than(workload: Workload, factor: float, context: int) -> float:
    """Share of requests longer than a context, counted over many equally likely ones."""
    if workload.lengths:
        longest = workload.lengths.longest
        if longest and longest[0] + longest[1] * factor <= context:
            return 0.0
        inputs, outputs = np.array(workload.lengths.points, dtype=float).T
    else:
        sigma = np.sqrt(np.log1p(np.square(workload.spreads)))
        inputs, outputs = (
            mean * np.exp(s * _normal(n) - s * s / 2) for mean, s, n in zip((workload.input_tokens, workload.output_tokens), sigma, QUANTILES, strict=True)
        )
        inputs, outputs = np.repeat(inputs, QUANTILES[1]), np.tile(outputs, QUANTILES[0])
    outputs = np.minimum(outputs, (workload.max_request or np.inf) - 1)
    inputs = np.minimum(inputs, np.minimum(workload.max_input or np.inf, (workload.max_request or np.inf) - outputs))
    return float((inputs + factor * outputs > context).mean())


def named(served: Served, names: Iterable[str]) -> bool:
    """Whether it is one of these models, families or checkpoints."""
    ours = {served.card.name.lower(), served.card.family.lower(), served.checkpoint.id.lower()}
    return any(name.lower() in ours for name in names)


def begins(served: Served, names: Iterable[str]) -> bool:
    """Whether the checkpoint's own name begins with one of these, whole words."""
    own = served.checkpoint.id.lower().split("/")[-1]
    return any(own.startswith(name.lower()) and not own[len(name) : len(name) + 1].isalnum() for name in names)
