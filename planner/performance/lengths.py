"""Request lengths of one workload: a few equal-weight (input, output) points for means, and cells for percentiles.

Memory and step times take the points, whose means and second moments are right; the queue takes the cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import exp, gcd, inf, log, sqrt
from statistics import NormalDist

import numpy as np

from planner.performance.cells import Cells, cells_of, joined, lognormal_cells, products
from planner.performance.replicas import Floats, Ints
from planner.scenario.workload import Workload

FINE = 64  # quantiles of prompts, and of answers, that stand for a lognormal where its cut is found
CELLS, POWER = 12, 2  # of prompts, and of answers
PAIR_CELLS, PAIR_POWER = (4, 10), 3  # of prompts x answers
ANSWERS = 200  # quantiles of answers over which the share of refused requests is taken


@dataclass(frozen=True)
class Law:
    """Independent lognormal prompts and answers: their coefficients of variation, and what cuts them off, as multiples of the means before."""

    cv: tuple[float, float]
    cap: tuple[float, float] = (inf, inf)

    def cells(self, which: int, mean: float, count: int, power: int) -> Cells:
        """Cells of prompts (0) or answers (1)."""
        return lognormal_cells(self.cv[which], self.cap[which], count, power).times(mean)


@dataclass(frozen=True)
class LengthMix:
    """J equal-weight joint points of (input, output) tokens; ``cached`` is the share of prompt tokens found in the prefix cache.

    With a law the points only stand for it; without one, lengths are nothing but the points.
    """

    input_tokens: Floats
    output_tokens: Floats
    cached: float = 0.0
    law: Law | None = None

    @cached_property
    def inputs(self) -> Cells:
        """Prompts."""
        return self.law.cells(0, self.mean_input, CELLS, POWER) if self.law else cells_of(self.input_tokens)

    @cached_property
    def outputs(self) -> Cells:
        """Answers."""
        return self.law.cells(1, self.mean_output, CELLS, POWER) if self.law else cells_of(self.output_tokens)

    @cached_property
    def pairs(self) -> tuple[Cells, Cells]:
        """Prompts and answers of the same requests."""
        if self.law is None:
            return cells_of(self.input_tokens), cells_of(self.output_tokens)
        means = self.mean_input, self.mean_output
        inputs, outputs = (self.law.cells(i, means[i], PAIR_CELLS[i], PAIR_POWER) for i in (0, 1))
        return products(inputs, outputs)

    @cached_property
    def mean_input(self) -> float:
        return float(self.input_tokens.mean())

    @cached_property
    def mean_output(self) -> float:
        return float(self.output_tokens.mean())

    @property
    def computed(self) -> float:
        """Share of prompt tokens that must be prefilled."""
        return 1.0 - self.cached

    @cached_property
    def input_m2(self) -> float:
        """E[input^2]."""
        return float((self.input_tokens**2).mean())

    @cached_property
    def input_m3(self) -> float:
        """E[input^3]."""
        return float((self.input_tokens**3).mean())

    def describe(self) -> str:
        """Means and coefficients of variation in words."""
        cv_in = self.input_tokens.std() / self.mean_input
        cv_out = self.output_tokens.std() / self.mean_output
        return f"input {self.mean_input:.0f} tokens (CV {cv_in:.2f}), output {self.mean_output:.0f} tokens (CV {cv_out:.2f}), {len(self.input_tokens)} points"


@dataclass(frozen=True)
class Blend(LengthMix):
    """Requests of several workloads, as many of each as the shares say; the points are only what there is, whatever its share."""

    parts: tuple[LengthMix, ...] = ()
    shares: tuple[float, ...] = ()

    @cached_property
    def inputs(self) -> Cells:
        return joined([p.inputs for p in self.parts], np.array(self.shares))

    @cached_property
    def outputs(self) -> Cells:
        return joined([p.outputs for p in self.parts], np.array(self.shares))

    @cached_property
    def pairs(self) -> tuple[Cells, Cells]:
        both = [p.pairs for p in self.parts]
        return joined([i for i, _ in both], np.array(self.shares)), joined([o for _, o in both], np.array(self.shares))

    @cached_property
    def mean_input(self) -> float:
        return self._mean([p.mean_input for p in self.parts])

    @cached_property
    def mean_output(self) -> float:
        return self._mean([p.mean_output for p in self.parts])

    @cached_property
    def input_m2(self) -> float:
        return self._mean([p.input_m2 for p in self.parts])

    @cached_property
    def input_m3(self) -> float:
        return self._mean([p.input_m3 for p in self.parts])

    def _mean(self, values: Sequence[float]) -> float:
        return float(np.dot(self.shares, values))


def blend(parts: Sequence[LengthMix], shares: Floats) -> Blend:
    """The requests of several workloads as one mix; shares [W] of the requests add up to 1."""
    tokens = shares * [p.mean_input for p in parts]
    cached = float(tokens @ [p.cached for p in parts] / tokens.sum())
    inputs, outputs = (np.concatenate([getattr(p, name) for p in parts]) for name in ("input_tokens", "output_tokens"))
    return Blend(inputs, outputs, cached, None, tuple(parts), tuple(shares.tolist()))


def lognormal_mix(mean_input: float, mean_output: float, input_cv: float, output_cv: float, points: int = 16, cached: float = 0.0) -> LengthMix:
    """Independent lognormal lengths as ``points`` equal-weight points with exactly these means and CVs (0 = fixed lengths).

    Raises ValueError for lengths below one token, a negative CV, or a cached share outside [0, 1).
    """
    if min(mean_input, mean_output) < 1 or min(input_cv, output_cv) < 0 or points < 1 or not 0 <= cached < 1:
        raise ValueError("lengths must be at least 1 token, coefficients of variation at least 0, cached shares below 1, and there must be a point")
    inputs = mean_input * _multipliers(input_cv, points)
    outputs = mean_output * _multipliers(output_cv, points)[_scattered(points)]
    return LengthMix(inputs, outputs, cached, Law((input_cv, output_cv)))


def joint_mix(points: Sequence[tuple[float, float]], mean_input: float, mean_output: float, cached: float = 0.0) -> LengthMix:
    """Equal-weight joint points (input, output), scaled to these means. Raises ValueError for means below one token or a cached share of 1."""
    if min(mean_input, mean_output) < 1 or not 0 <= cached < 1:
        raise ValueError("lengths must be at least 1 token and cached shares below 1")
    inputs, outputs = np.array(points, dtype=np.float64).T
    return LengthMix(inputs * (mean_input / inputs.mean()), outputs * (mean_output / outputs.mean()), cached)


def met_by(workload: Workload, tokens: float) -> Workload:
    """The workload in the tokens of a model that makes so many of each token that lengths are stated in: all its lengths, and what callers can send."""
    if tokens == 1.0:
        return workload
    input_cv, output_cv = workload.spreads  # of the text, not of how it is counted
    longest, lengths = {name: value * tokens for name in ("max_input", "max_request") if (value := getattr(workload, name)) is not None}, workload.lengths
    if lengths:
        ends = (lengths.longest[0] * tokens, lengths.longest[1] * tokens) if lengths.longest else None
        points = tuple((i * tokens, o * tokens) for i, o in lengths.points)
        lengths = lengths.model_copy(update={"points": points, "longest": ends, "cuts": tuple(c * tokens for c in lengths.cuts)})
    means = {"input_tokens": max(workload.input_tokens * tokens, 1.0), "output_tokens": max(workload.output_tokens * tokens, 1.0)}
    return workload.model_copy(update={**means, **longest, "input_cv": input_cv, "output_cv": output_cv, "lengths": lengths})


@dataclass(frozen=True)
class Cut:
    """How lengths are cut to what callers can send, with their means kept: scaled up first, since a stated mean is of what is sent."""

    max_input: float
    max_request: float
    input_scale: float
    output_scale: float

    def apply(self, inputs: Floats, outputs: Floats) -> tuple[Floats, Floats]:
        """Prompts and answers [J] of the same requests, answers as the user sees them."""
        answers = np.minimum(outputs * self.output_scale, self.max_request - 1)
        prompts = np.minimum(inputs * self.input_scale, np.minimum(self.max_input, self.max_request - answers))
        return np.maximum(prompts, 1.0), answers


def cut_of(workload: Workload, inputs: Floats, outputs: Floats) -> Cut | None:
    """The cut of equal-weight lengths that keeps their means; None where callers can send anything."""
    if workload.max_input is None and workload.max_request is None:
        return None
    longest, most = workload.max_input or inf, workload.max_request or inf
    output_scale = _scale(outputs, np.full(len(outputs), most - 1))
    answers = np.minimum(outputs * output_scale, most - 1)
    return Cut(longest, most, _scale(inputs, np.minimum(longest, most - answers)), output_scale)


def _scale(lengths: Floats, ceiling: Floats) -> float:
    """The factor on lengths [J] after which they, cut at ``ceiling`` [J], have their mean again; a very large one where even the ceiling has less."""
    mean, low, high = float(lengths.mean()), 1.0, 1.0
    while float(np.minimum(lengths * high, ceiling).mean()) < mean * (1 - 1e-9) and high < 1e6:
        low, high = high, high * 2
    for _ in range(60 if high > 1 else 0):
        middle = (low + high) / 2
        low, high = (middle, high) if float(np.minimum(lengths * middle, ceiling).mean()) < mean else (low, middle)
    return high


def workload_cut(workload: Workload) -> Cut | None:
    """The cut of a workload's whole distribution, as requests drawn from it meet it."""
    if workload.lengths:
        mix = joint_mix(workload.lengths.points, workload.input_tokens, workload.output_tokens)
        return cut_of(workload, mix.input_tokens, mix.output_tokens)
    return cut_of(workload, *_fine(workload))


def stated_pairs(workload: Workload) -> tuple[Floats, Floats]:
    """Prompts and answers [J] of equally likely requests that stand for stated means and spreads, cut to what callers can send, means kept."""
    inputs, outputs = _fine(workload)
    cut = cut_of(workload, inputs, outputs)
    return cut.apply(inputs, outputs) if cut else (inputs, outputs)


def _fine(workload: Workload) -> tuple[Floats, Floats]:
    """All pairs of quantiles of the independent lognormals."""
    input_cv, output_cv = workload.spreads
    inputs, outputs = workload.input_tokens * _multipliers(input_cv, FINE), workload.output_tokens * _multipliers(output_cv, FINE)
    return np.repeat(inputs, FINE), np.tile(outputs, FINE)


def workload_mix(workload: Workload, factor: float) -> LengthMix:
    """The workload's lengths as a model meets them that writes ``factor`` tokens per answer token."""
    means, cached = (workload.input_tokens, workload.output_tokens), workload.prefix_cache_hit
    whole = joint_mix(workload.lengths.points, *means, cached) if workload.lengths else lognormal_mix(*means, *workload.spreads, cached=cached)
    cut = cut_of(workload, whole.input_tokens, whole.output_tokens)
    inputs, outputs = cut.apply(whole.input_tokens, whole.output_tokens) if cut else (whole.input_tokens, whole.output_tokens)
    return LengthMix(inputs, outputs * factor, cached, _law(workload, cut))


def _law(workload: Workload, cut: Cut | None) -> Law | None:
    """The law of lengths that are not known one by one. What a whole request may have is taken to leave prompts the room beside a mean answer."""
    if workload.lengths:
        return None
    if cut is None:
        return Law(workload.spreads)
    prompt = min(cut.max_input, max(cut.max_request - workload.output_tokens, 1.0))
    scaled = workload.input_tokens * cut.input_scale, workload.output_tokens * cut.output_scale
    return Law(workload.spreads, (prompt / scaled[0], (cut.max_request - 1) / scaled[1]))


def refused_share(workload: Workload, factor: float, context: float) -> float:
    """Share of requests with more tokens than a context holds, reasoning included: P(input + output > context) of the whole distribution."""
    if workload.lengths:
        mix = workload_mix(workload, factor)
        longest = workload.lengths.longest
        if longest and min(sum(longest), workload.max_request or inf) + longest[1] * (factor - 1) <= context:
            return 0.0
        return float((mix.input_tokens + mix.output_tokens > context).mean())
    cut = workload_cut(workload)
    limits = (cut.max_input, cut.max_request, cut.input_scale, cut.output_scale) if cut else (inf, inf, 1.0, 1.0)
    return _refused((workload.input_tokens, workload.output_tokens), workload.spreads, limits, factor, context)


@lru_cache(maxsize=4)
def _normal(count: int) -> tuple[float, ...]:
    """So many equally likely values of a standard normal variable."""
    return tuple(NormalDist().inv_cdf((j + 0.5) / count) for j in range(count))


@lru_cache(maxsize=4096)
def _refused(means: tuple[float, float], cvs: tuple[float, float], limits: tuple[float, float, float, float], factor: float, context: float) -> float:
    """The same of lognormal lengths: over equally likely answers, the share of prompts that have no room beside them."""
    normal, cut = NormalDist(), Cut(*limits)
    prompt, answer = (sqrt(log(1 + cv * cv)) for cv in cvs)
    mean, share = means[0] * cut.input_scale, 0.0
    for z in _normal(ANSWERS):
        written = means[1] * cut.output_scale * exp(answer * z - answer * answer / 2)
        written = min(written, cut.max_request - 1)
        room = context - written * factor
        if min(cut.max_input, cut.max_request - written) <= room:
            continue
        share += float(mean > room) if room <= 0 or prompt == 0 else 1 - normal.cdf((log(room / mean) + prompt * prompt / 2) / prompt)
    return share / ANSWERS


@lru_cache(maxsize=256)
def _multipliers(cv: float, points: int) -> Floats:
    """Mid-quantiles of a lognormal of mean 1, spread so that their own CV is ``cv`` (few points cut the tails off)."""
    if cv == 0 or points == 1:
        return np.ones(points)
    normal = NormalDist()
    z = np.array([normal.inv_cdf((j + 0.5) / points) for j in range(points)])
    low, high = 0.0, 3.0 * sqrt(log(1 + cv * cv)) + 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _spread(z, middle) < cv else (low, middle)
    values = np.exp(low * z)
    scaled: Floats = values / values.mean()
    return scaled


def _spread(z: Floats, sigma: float) -> float:
    """CV of exp(sigma z)."""
    values = np.exp(sigma * z)
    return float(values.std() / values.mean())


@lru_cache(maxsize=16)
def _scattered(points: int) -> Ints:
    """A fixed permutation of 0..points-1 with almost no rank correlation to its index."""
    index: Ints = np.arange(points, dtype=np.int64)
    centred = index - index.mean()
    best, found = np.inf, index
    for step in (s for s in range(1, points) if gcd(s, points) == 1):
        for shift in range(points):
            candidate = (step * index + shift) % points
            correlation = abs(float(centred @ (candidate - candidate.mean())))
            if correlation < best - 1e-9:
                best, found = correlation, candidate
    return found
