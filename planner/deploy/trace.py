"""Requests that a benchmark sends: the plan's joint lengths, and prompts that share prefixes so that the plan's share of their tokens is cached.

Written as the Mooncake trace that vLLM's, GuideLLM's and AIPerf's clients read: timestamp (ms), input_length, output_length and hash_ids, one for
each block of the prompt; equal ids from the beginning on are equal text (github:kvcache-ai/Mooncake FAST25-release/traces).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import floor, log2

import numpy as np
from numpy.typing import NDArray

from planner.performance.lengths import met_by
from planner.result.busiest import at_busiest
from planner.result.plan import Deployment, Plan
from planner.simulation.rebuild import lengths_of

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
LARGEST, SMALLEST = 512, 16  # tokens of a block; engines cache blocks of 16 and more
SHARED_BLOCKS = 8  # of a mean prompt at least, where the plan counts on hits: fewer would make the share uneven
DRAWN = 8  # times as many requests as needed are drawn; by total length every eighth is taken, so that few have the means of many


@dataclass(frozen=True)
class Stream:
    """How requests of one deployment are drawn: by workload its share of requests, and its tokens per stated token; what is cached; the longest.

    ``plan`` is one that is the same at every hour: of a plan by the hour, the deployment in its busiest.
    """

    plan: Plan
    index: int
    shares: tuple[tuple[int, float, float], ...]  # (workload, share of the requests, own tokens per stated token)
    context: int

    @property
    def deployment(self) -> Deployment:
        """The deployment asked."""
        return self.plan.deployments[self.index]

    @property
    def cached(self) -> float:
        """Share of prompt tokens that the plan counts on in the prefix cache, over all workloads."""
        workloads = self.plan.scenario.workload
        hits = sum(share * workloads[w].input_tokens * own * workloads[w].prefix_cache_hit for w, share, own in self.shares)
        return hits / self.mean_prompt

    @property
    def mean_prompt(self) -> float:
        """Tokens of a mean prompt, the model's own."""
        return sum(share * self.plan.scenario.workload[w].input_tokens * own for w, share, own in self.shares)

    @property
    def block(self) -> int:
        """Tokens of a block: small enough that shared prefixes come out as planned."""
        if not self.cached:
            return LARGEST
        fine = 2 ** floor(log2(max(self.cached * self.mean_prompt / SHARED_BLOCKS, 1)))
        return int(min(max(fine, SMALLEST), LARGEST))


@dataclass(frozen=True)
class Requests:
    """Prompt and answer tokens [n] of requests, the share of each prompt that is cached, and how many drawn ones were too long."""

    prompts: Ints
    answers: Ints
    cached: Floats
    too_long: int


def stream(plan: Plan, index: int, context: int) -> Stream:
    """The requests of a deployment. ``context``: the most tokens that its engine takes. Raises LookupError where the plan's parts do not fit together."""
    if plan.periods:
        plan, index = at_busiest(plan, index), 0
    routes = [(w, r) for w, p in enumerate(plan.workloads) for r in p.routing if r.deployment == index and r.share > 0]
    total = sum(r.qps for _, r in routes)
    return Stream(plan, index, tuple((w, r.qps / total, r.tokens_per_stated) for w, r in routes), context)


def draw(asked: Stream, count: int, seed: int) -> Requests:
    """So many requests that the engine takes, the same for the same seed. Answers have all tokens written, reasoning included.

    ``too_long`` is counted of as many drawn as are taken.
    """
    rng, many = np.random.default_rng(seed), count * DRAWN
    which = rng.choice(len(asked.shares), size=many, p=[s for _, s, _ in asked.shares])
    prompts, answers, cached = np.empty(many, np.int64), np.empty(many, np.int64), np.empty(many)
    for i, (w, _, own) in enumerate(asked.shares):
        workload, rows = asked.plan.scenario.workload[w], which == i
        drawn = lengths_of(met_by(workload, own))(rng, int(rows.sum()))
        prompts[rows] = np.maximum(drawn[0], 1)
        answers[rows] = np.maximum(np.rint(drawn[1] * asked.deployment.output_factor), 2)
        cached[rows] = workload.prefix_cache_hit
    whole = prompts + answers
    fits = np.flatnonzero(whole <= asked.context)
    ordered = fits[np.argsort(whole[fits], kind="stable")]
    taken = rng.permutation(ordered[np.linspace(0, len(ordered) - 1, count).round().astype(np.int64)]) if len(fits) else fits
    return Requests(prompts[taken], answers[taken], cached[taken], round((many - len(fits)) / DRAWN))


@dataclass(frozen=True)
class Prefixes:
    """So many beginnings of prompts, each of so many blocks; their ids come before all others."""

    count: int
    blocks: int

    @property
    def ids(self) -> int:
        """How many ids they take."""
        return self.count * self.blocks


def blocks_of(requests: Requests, block: int, prefixes: Prefixes, first: int) -> list[list[int]]:
    """The ids of each prompt's blocks: from one of the prefixes as far as it is cached, then ids from ``first`` on that no other has.

    Shared are whole blocks, as many as make the share right over all requests so far.
    """
    given = wanted = 0.0
    found, new = [], first
    for i, (tokens, share) in enumerate(zip(requests.prompts.tolist(), requests.cached.tolist())):
        wanted += tokens * share
        whole = -(-tokens // block)
        shared = min(max(int((wanted - given) // block), 0), (tokens - 1) // block) if share else 0
        given += shared * block
        begin = (i % prefixes.count) * prefixes.blocks
        found.append([*range(begin, begin + shared), *range(new, new + whole - shared)])
        new += whole - shared
    return found


def whole_prefixes(prompts: list[list[int]], block: int, prefixes: Prefixes) -> tuple[Requests, list[list[int]]]:
    """Requests that fill the cache: each prefix once, as far as any of these prompts shares it."""
    longest: dict[int, int] = {}
    for ids in prompts:
        shared = sum(i < prefixes.ids for i in ids)
        if shared:
            longest[ids[0]] = max(longest.get(ids[0], 0), shared)
    lengths = np.array([n * block for n in longest.values()], dtype=np.int64)
    requests = Requests(lengths, np.full(len(lengths), 2), np.zeros(len(lengths)), 0)
    return requests, [list(range(begin, begin + n)) for begin, n in longest.items()]


def to_jsonl(requests: Requests, blocks: list[list[int]], rate: float, seed: int) -> str:
    """One line for each request; arrivals are Poisson at a rate (requests/s), all at once where it is 0."""
    count = len(requests.prompts)
    gaps = np.random.default_rng(seed).standard_exponential(count) / rate * 1e3 if rate else np.zeros(count)
    arrivals = np.cumsum(gaps).round().astype(np.int64)
    rows = zip(arrivals.tolist(), requests.prompts.tolist(), requests.answers.tolist(), blocks, strict=True)
    return "".join(json.dumps({"timestamp": t, "input_length": i, "output_length": o, "hash_ids": ids}, separators=(",", ":")) + "\n" for t, i, o, ids in rows)
