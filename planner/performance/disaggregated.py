"""Disaggregated serving: a unit of x prefill and y decode engines, its service and its capacity in the terms of ``capacity``.

Decode engines step without prompts between; prompts queue for the prefill pool and send their KV cache over the GPUs' link.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from planner.catalog.files import read_json
from planner.performance.capacity import SERVED, SHARES, STEPS, Capacity, Limit, Service, capacity, pooled_qps
from planner.performance.chain import PROMPT_LOAD, Chain, Rows, chain
from planner.performance.coefficients import Coefficients, Quantiles, interpolated
from planner.performance.decoding import decoding
from planner.performance.first_token import parts_of
from planner.performance.lengths import LengthMix
from planner.performance.physics import kv_per_sequence, shapes
from planner.performance.queue import QueueState, state, waiting
from planner.performance.replicas import Floats, Ints, Replicas
from planner.performance.step import StepCurves
from planner.performance.tails import gamma_tail, normal_tail, tail

FILE = "disaggregated.json"
SIZES = (2, 4, 8)  # engines of a unit that are enumerated
RATIOS: tuple[tuple[int, int], ...] = ((1, 1), (1, 3), (2, 2), (3, 1), (1, 7), (2, 6), (3, 5), (4, 4), (5, 3), (6, 2), (7, 1))  # prefill, decode
NODE_GPUS = 8  # a unit of more GPUs sends over the network between nodes
SEARCH = 40  # bisection steps of percentiles and of closed loops


@dataclass(frozen=True)
class Units:
    """P units. ``prefill`` and ``decode`` are the curves of one engine of each pool, in the same order; both may be the same.

    transfer_s [P, J]: KV cache of each prompt of the mix from one pool to the other. slots [P]: sequences of one decode engine.
    """

    prefill: StepCurves
    decode: StepCurves
    prefill_engines: Ints
    decode_engines: Ints
    transfer_s: Floats
    slots: Ints

    def __len__(self) -> int:
        return len(self.slots)


@dataclass(frozen=True)
class UnitErrors:
    """How far predictions of disaggregated units lay from measured ones, none of which took part in any fit: catalogs/disaggregated.json.

    Quantiles are of measured over predicted, by confidence, every configuration counting the same.
    """

    source: str
    fitted: str
    data: Mapping[str, str]  # file -> sha256
    errors: Mapping[str, object]
    step_quantiles: Quantiles  # decode step at the measured number decoding
    prompt_quantiles: Quantiles  # time per prompt where the prefill pool was the bottleneck

    def step(self, confidence: float) -> float:
        """Measured over predicted decode step that is not exceeded with this confidence."""
        return _quantile_of(self.step_quantiles, confidence)

    def slower(self, at: StepCurves, expected: StepCurves, confidence: float) -> StepCurves:
        """Both pools' curves: ``at`` are an engine's at this confidence, ``expected`` those at 0.5; never faster than ``at``."""
        step, prompt = (_quantile_of(q, confidence) for q in (self.step_quantiles, self.prompt_quantiles))
        prompts = np.maximum(at.prefill_s_per_token, expected.prefill_s_per_token * prompt)
        return replace(at, step_s=np.maximum(at.step_s, expected.step_s * step), prefill_s_per_token=prompts)


def _quantile_of(quantiles: Mapping[str, float], confidence: float) -> float:
    return float(interpolated(quantiles, np.array(confidence)))


def load_errors(path: Path) -> UnitErrors:
    """Reads catalogs/disaggregated.json. Raises CatalogError."""
    return read_json(path, UnitErrors, "errors of disaggregated units")


@dataclass(frozen=True)
class Prefill:
    """The prefill pool at one rate, [P, 1]: own time [P, J], probability of waiting, mean and variance of the wait of those who wait."""

    own: Rows
    waits: Rows
    mean: Rows
    var: Rows


@dataclass(frozen=True)
class Moment:
    """A unit at one rate: one decode engine's queue, its state and mean number waiting [P, 1], and the prefill pool."""

    queue: Chain
    decode: QueueState
    waiting: Rows
    prompts: Prefill


def transfer_seconds(replicas: Replicas, mix: LengthMix, coefficients: Coefficients, engines: Ints) -> Floats:
    """Seconds [P, J] that the KV cache of a prompt takes from prefill to decode, after the prompt: not overlapped with it.

    Every GPU of the prefill engine sends its own shard at once, over the link within a node where all ``engines`` [P] of the
    unit fit in one, else over that between nodes, at the share of the link that all-reduces reach (``link``).
    """
    shape = shapes(replicas)
    sent = np.stack([kv_per_sequence(replicas, shape, np.array([tokens])) for tokens in mix.input_tokens], axis=1) / shape.pp[:, None]
    inside = engines * replicas.tp * replicas.pp <= NODE_GPUS
    link = np.where(inside, shape.link, replicas.of_gpu(lambda g: g.node_link_gb_s) * 1e9)
    found: Floats = sent / (link[:, None] * coefficients.rows(replicas)["link"])
    return found


def prompt_bound(units: Units, mix: LengthMix) -> Floats:
    """Requests/s [P] that x prefill engines in full passes and min(x, y) links allow."""
    token = units.prefill.prefill_s_per_token + mix.computed * units.prefill.step_s[:, 0] / units.prefill.batched_tokens
    prompts = units.prefill_engines / (token * mix.mean_input)
    links = np.minimum(units.prefill_engines, units.decode_engines) / np.maximum(units.transfer_s.mean(axis=1), 1e-12)
    found: Floats = np.minimum(prompts, links)
    return found


def unit_bound(units: Units, mix: LengthMix) -> Floats:
    """Requests/s [P] that no unit exceeds: what its prompts allow, and y decode engines with all slots taken."""
    answers = units.decode_engines * _decoding(units, mix).rate[:, 0]
    return np.where(units.slots >= 1, np.minimum(prompt_bound(units, mix), answers), 0.0)


def unit_beyond(units: Units, mix: LengthMix, limits: Sequence[Limit], limit: Limit, qps: Floats) -> Floats:
    """Share [P] of requests beyond one limit at ``qps`` [P] of each unit; ``limits`` as in ``unit_service``."""
    now = _at(units, _decoding(units, mix), _pooling(units, mix, limits), qps[:, None])
    found: Floats = _tail(limit.metric, now, limit.limit_s, limit.share)[:, 0]
    return found


def unit_capacity(units: Units, mix: LengthMix, limits: Sequence[Limit]) -> Capacity:
    """Largest Poisson rate of each whole unit [P] under all limits; 0 = cannot serve. Rates and requests in flight are the unit's.

    ``qps_saturated`` equals ``qps``: the gain of a router over several units is not claimed, since that over the engines is in it.
    """
    queue, pooling, most = _decoding(units, mix), _pooling(units, mix, limits), unit_bound(units, mix)[:, None]
    low, high = np.zeros_like(most), np.ones_like(most)
    for _ in range(STEPS):
        middle = (low + high) / 2
        now = _at(units, queue, pooling, middle * most)
        held = np.ones(middle.shape, dtype=bool)
        for limit in limits:
            held &= _tail(limit.metric, now, limit.limit_s, limit.share) <= 1 - limit.percentile / 100
        low, high = np.where(held, middle, low), np.where(held, high, middle)
    qps = (low * most)[:, 0]
    e2e = np.where(qps > 0, _means(_at(units, queue, pooling, low * most))["e2e"][:, 0], 0.0)
    return Capacity(qps, qps, e2e, qps * e2e)


def unit_service(units: Units, mix: LengthMix, limits: Sequence[Limit], qps: Floats, reasoning: float = 0.0) -> Service:
    """Service of units at ``qps`` [P] each, which must be below ``unit_bound``; ``limits`` are those of the capacity (they set the pooling).

    reasoning: share of the output written before the answer begins; TTFT then counts to the first token of the answer.
    """
    now = _at(units, _decoding(units, mix), _pooling(units, mix, limits), qps[:, None])
    means = _means(now)
    in_flight, longest = qps * means["e2e"][:, 0], 50 * (means["e2e"] + 1 / np.maximum(now.decode.drain, 1e-6))
    longest = longest * max(float(mix.output_tokens.max()) / mix.mean_output, float(mix.input_tokens.max()) / mix.mean_input)
    thinks = now.decode.tpot * reasoning * mix.mean_output
    means["ttft"] = means["ttft"] + thinks
    found = {}
    for metric, mean in means.items():
        of, part = ("e2e", reasoning) if metric == "ttft" and reasoning else (metric, 1.0)
        high = 50 * mean if metric in ("tpot", "itl") else longest
        found[metric] = {"mean": mean[:, 0], **{name: _quantile(of, now, share, high, part) for name, share in SHARES.items()}}
    waits = tail("full", now.queue, now.decode, 0.0)[:, 0]
    settles = qps < unit_bound(units, mix) * SERVED
    return Service(found["ttft"], found["tpot"], found["e2e"], in_flight, found["itl"], waits, _ttft_parts(units, now, thinks), settles)


def _ttft_parts(units: Units, now: Moment, reasoning_s: Rows) -> dict[str, Floats]:
    """What the mean TTFT is made of: the step under way is that of the decode engine which takes the prompt in."""
    prompts, decode, request = now.prompts, now.decode, units.prefill.overhead_s[:, None]
    transfer = units.transfer_s.mean(axis=1, keepdims=True)
    prefill = prompts.own.mean(axis=1, keepdims=True) - request - transfer
    waits = prompts.waits * prompts.mean + now.waiting / decode.rate
    return parts_of(waits, request=request, schedule=decode.step / 2, prefill=prefill, transfer=transfer, reasoning=reasoning_s)


def closed_unit(units: Units, mix: LengthMix, concurrency: Floats) -> tuple[Floats, Floats, Floats]:
    """(mean TTFT s, mean TPOT s, output tokens/s) [P] of closed loops of ``concurrency`` requests on each unit, without start-up bursts.

    By Little's law N = rate x (TTFT + output x TPOT); the number decoding that fits is found by bisection. Requests beyond all slots wait.
    """
    queue, y = _decoding(units, mix), units.decode_engines[:, None].astype(float)
    bound, loop = unit_bound(units, mix)[:, None], concurrency[:, None]
    low, high = np.full_like(y, 1e-3), np.minimum(queue.slots, loop / y)

    def at(each: Rows) -> tuple[Rows, Rows, Rows]:
        tpot = np.array([np.interp(b, queue.n[0], t) for b, t in zip(each[:, 0], queue.tpot, strict=True)])[:, None]
        lam = np.minimum(y * each / (mix.mean_output * tpot), bound)
        prompts = prefill_pool(units, mix, lam)
        return lam, tpot, prompts.own.mean(axis=1, keepdims=True) + prompts.waits * prompts.mean + tpot / 2

    for _ in range(SEARCH):
        middle = (low + high) / 2
        lam, _, ttft = at(middle)
        within = (lam * ttft + y * middle <= loop) & (lam < bound)
        low, high = np.where(within, middle, low), np.where(within, high, middle)
    lam, tpot, _ = at(low)
    return (loop / lam - mix.mean_output * tpot)[:, 0], tpot[:, 0], (lam * mix.mean_output)[:, 0]


def prefill_pool(units: Units, mix: LengthMix, lam: Rows) -> Prefill:
    """The prefill pool at unit rate ``lam`` [P, 1].

    One engine works in passes of up to ``batched_tokens``, each at a fixed cost D(1) besides its tokens. Prompts that arrive
    during a pass go into the next together: the mean wait is what is left of the pass, and the batch. Where they fill passes they
    queue for tokens, an M/G/x queue: a router that sends each prompt to the engine with the least outstanding tokens serves them
    as one queue would. It is approximated by the M/G/1 wait (Pollaczek and Khinchine) over x, and the probability
    rho^(sqrt(2(x + 1)) - 1) of waiting at all (Sakasegawa 1977, Ann. Inst. Statist. Math. 29). The longer wait of the two counts.
    """
    c, fixed = units.prefill.prefill_s_per_token[:, None], units.prefill.step_s[:, :1]
    x, chunk = units.prefill_engines[:, None].astype(float), units.prefill.batched_tokens
    each, first, second, third = lam / x, c * mix.mean_input, c * c * mix.input_m2, c**3 * mix.input_m3
    busy, rho = np.minimum(each * (first + fixed), 1.0), np.minimum(each * first, PROMPT_LOAD)
    # A pass holds the prompts that came during the last one, or the one that ends an idle time; none is longer than a full one.
    m = (fixed + (1 - busy) * first) / (1 - rho)
    v = (each * m * second + (1 - busy) * (second - first * first)) / (1 - rho * rho)
    k3 = (each * m * third + 3 * rho * each * second * v) / (1 - rho**3)
    full = fixed + c * chunk
    seen, seen2 = np.minimum((v + m * m) / m, full), np.minimum((m**3 + 3 * m * v + k3) / m, full * full)  # found on arrival: length-biased
    soonest = 2 / (x + 1)  # of x passes under way the one that ends first is chosen
    mean = seen * soonest / 2 + np.minimum(seen * rho / x, np.maximum(full - fixed - first, 0.0))
    var = ((1 / 3 + rho + rho * rho) * seen2 - (0.5 + rho) ** 2 * seen * seen + each * second * seen) * soonest**2
    token = c + mix.computed * fixed / chunk
    load = np.minimum(each * token * mix.mean_input, 1 - 1e-6)
    one = token * mix.input_m2 / (2 * mix.mean_input * (1 - load))  # M/G/1 wait of those who wait
    one_var = 2 * load * one * one + token * token * mix.input_m3 / (3 * mix.mean_input * (1 - load)) - one * one
    mean, var = np.maximum(mean, one / x + fixed / 2), np.maximum(np.maximum(var, one_var / (x * x)), 1e-12)
    passes = np.ceil(mix.computed * mix.input_tokens / chunk)[None, :]
    own = units.prefill.overhead_s[:, None] + fixed * passes + c * mix.input_tokens[None, :] + units.transfer_s
    return Prefill(own, np.maximum(busy, load) ** (np.sqrt(2 * (x + 1)) - 1), mean, var)


def _decoding(units: Units, mix: LengthMix) -> Chain:
    """One decode engine as a queue of its own."""
    return chain(without_prompts(units.decode), mix, units.slots)


def without_prompts(curves: StepCurves) -> StepCurves:
    """Curves of an engine whose prompts cost next to nothing (ratios of their moments are taken) and take no room in its steps."""
    none = np.zeros(len(curves))
    return replace(curves, prefill_s_per_token=none + 1e-12, overhead_s=none, whole_prompt_s=none)


def _pooling(units: Units, mix: LengthMix, limits: Sequence[Limit]) -> Rows:
    """Capacity of one decode engine over that of one of y behind a least-loaded router, [P, 1]."""
    alone = capacity(without_prompts(units.decode), mix, [x for x in limits if x.metric in ("tpot", "itl")], units.slots)
    pooled = pooled_qps(alone.qps, alone.qps_saturated, units.decode_engines)
    found: Rows = np.divide(alone.qps, pooled, out=np.ones_like(pooled), where=pooled > 0)[:, None]
    return found


def _at(units: Units, queue: Chain, pooling: Rows, lam: Rows) -> Moment:
    """The unit at a rate. One of y decode engines is as one alone at a rate lower by the pooling."""
    some = np.maximum(lam, 1e-12)
    load = np.clip(some / units.decode_engines[:, None] * pooling / queue.rate, 1e-9, 1 - 1e-9)
    return Moment(queue, state(queue, load), waiting(queue, load), prefill_pool(units, queue.mix, some))


def _means(now: Moment) -> dict[str, Rows]:
    prompts, decode = now.prompts, now.decode
    ttft = prompts.own.mean(axis=1, keepdims=True) + prompts.waits * prompts.mean + decode.step / 2 + now.waiting / decode.rate
    return {"ttft": ttft, "tpot": decode.tpot, "itl": decode.tpot, "e2e": ttft + decode.tpot * max(now.queue.mix.mean_output - 1, 0.0)}


def _tail(metric: str, now: Moment, limit: Rows | float, part: float = 1.0) -> Rows:
    """Probability [P, 1] that a request exceeds the limit. A decode engine takes a prompt in at its next step: half a step later."""
    prompts, decode = now.prompts, now.decode
    if metric in ("tpot", "itl", "full"):
        return tail(metric, now.queue, decode, limit)
    first, wait = prompts.own + decode.step / 2, prompts.waits * prompts.mean
    if metric == "ttft":
        middle = first + wait
        late = prompts.waits * gamma_tail(limit - first, prompts.mean, prompts.var) + (1 - prompts.waits) * (limit < first)
    else:
        out = np.maximum(part * now.queue.mix.output_tokens - 1, 0.0)[None, :]
        answer = decoding(decode.noise, np.maximum(out, 1e-3))
        middle = first + wait + answer.mean
        spread = np.sqrt(prompts.waits * (prompts.var + prompts.mean**2) - wait * wait + answer.var)
        late = normal_tail((limit - middle) / spread)
    slack = np.maximum(limit - middle.mean(axis=1, keepdims=True), 0.0)
    total: Rows = np.minimum(late.mean(axis=1, keepdims=True) + decode.full * np.exp(-decode.drain * slack), 1.0)  # the wait for a slot
    return total


def _quantile(metric: str, now: Moment, share: float, upper: Rows, part: float) -> Floats:
    """The value [P] that a share of the requests stays within, by bisection below ``upper``."""
    low, high = np.zeros_like(upper), upper.copy()
    for _ in range(SEARCH):
        middle = (low + high) / 2
        over = _tail(metric, now, middle, part) > 1 - share
        low, high = np.where(over, middle, low), np.where(over, high, middle)
    return high[:, 0]
