"""A closed loop of N requests on each replica type, as benchmarks run it: mean TTFT and TPOT from the step-time physics.

Start-up bursts and the wait for KV room belong to such loops only; nothing here enters the capacity that plans use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from planner.performance.coefficients import Amount, Coefficients, Factor, holding
from planner.performance.lengths import LengthMix
from planner.performance.memory import memory_fit
from planner.performance.physics import Shapes, shapes
from planner.performance.replicas import ENGINES, Floats, Ints, Replicas
from planner.performance.step import CHUNK, decode_step, prompt_pass, prompt_token

# Sequences decoding at which curves are worked out: straight lines between them keep what rises rising.
LOOP_GRID: Floats = np.array([1.0, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096])
LENGTH_RATIO = {"inferencex": 0.9, "nvidia": 1.0, "exact": 1.0}  # mean over nominal lengths: InferenceX draws 0.8 to 1.0 x nominal


@dataclass(frozen=True)
class LoopTerms:
    """Fitted terms of closed loops: start-up in steps, burst of prompts (both by engine), waiting to be looked for, request overhead of NVIDIA's harness."""

    start_steps: Annotated[Mapping[str, Amount], holding(*ENGINES)]  # engine -> steps
    burst: Annotated[Mapping[str, Amount], holding(*ENGINES)]  # engine -> prompts waited for, per prompt ahead
    polled: Annotated[float, Field(ge=0, le=10)]  # share of the steps between two looks for new requests that one waits
    nvidia_request: Factor  # factor on the overhead per request


class Prompts(Protocol):
    """What the seconds of prompts follow from, [P] each: of loops, and of the rows that fits read."""

    @property
    def shape(self) -> Shapes: ...
    @property
    def context(self) -> Floats: ...
    @property
    def input_tokens(self) -> Floats: ...


@dataclass(frozen=True)
class Loop:
    """What does not depend on the concurrency. [P] each; tokens are means."""

    replicas: Replicas
    shape: Shapes
    kv_read: Floats  # bytes per sequence and step
    context: Floats  # tokens a prompt token attends to
    input_tokens: Floats
    output_tokens: Floats
    slots: Ints  # requests with room in the KV cache; 0 = does not fit
    poll_steps: Floats  # between two looks for new requests


@dataclass(frozen=True)
class LoopCurves:
    """Closed-loop means along the sequences decoding [P, G]; ``concurrency`` is what keeps so many decoding."""

    decoding: Floats
    concurrency: Floats
    ttft_s: Floats
    tpot_s: Floats

    def take(self, rows: Ints) -> LoopCurves:
        """The rows of an index array."""
        return LoopCurves(self.decoding[rows], self.concurrency[rows], self.ttft_s[rows], self.tpot_s[rows])


def loop(replicas: Replicas, input_tokens: Floats, output_tokens: Floats, poll_steps: Floats | None = None, utilization: float = 0.92) -> Loop:
    """Shapes, KV room and attention of rows that each have their own lengths. Where ``poll_steps`` are not told, engines look at every step."""
    shape, column = shapes(replicas), replicas.of_architecture
    window, sparse = column(lambda a: a.sliding_window), column(lambda a: a.sparse_context or np.inf)
    context = input_tokens + output_tokens / 2
    read = shape.kv_heads_bytes * np.minimum(context, sparse) + shape.sliding_bytes * np.minimum(context, window)
    read = read + shape.index_bytes * context + 2 * shape.state_bytes
    sliding = column(lambda a: a.sliding_layers / max(a.full_attention_layers + a.sliding_layers, 1))
    seen = column(lambda a: np.inf if a.is_indexed else a.sparse_context or np.inf)
    attended = np.minimum(input_tokens / 2, seen) * (1 - sliding) + np.minimum(input_tokens / 2, window) * sliding
    whole = input_tokens + output_tokens
    kept = (shape.kv_heads_bytes * whole + shape.sliding_bytes * np.minimum(whole, window) + shape.state_bytes) / shape.pp / 2**30
    budget = memory_fit(replicas, LengthMix(np.ones(1), np.ones(1)), utilization).kv_budget_gib
    slots = np.where(budget > 0, np.floor(np.maximum(budget, 0) / kept), 0).astype(np.int64)
    polls = np.ones(len(replicas)) if poll_steps is None else poll_steps
    return Loop(replicas, shape, read, attended, input_tokens, output_tokens, slots, polls)


def loop_columns(replicas: Replicas, coefficients: Coefficients, terms: LoopTerms, nvidia: bool | NDArray[np.bool_] = False) -> dict[str, Floats]:
    """Every coefficient as a column [P, 1], the closed-loop terms and the vendor's factor among them."""
    e = {**coefficients.rows(replicas), **coefficients.kernels(replicas), "vendor": coefficients.vendor_factor(replicas)}
    return {**e, **term_columns(replicas, e["request_s"], terms, nvidia)}


def term_columns(replicas: Replicas, request_s: Floats, terms: LoopTerms, nvidia: bool | NDArray[np.bool_] = False) -> dict[str, Floats]:
    """The closed-loop terms as columns [P, 1], with the overhead per request as the harness has it."""
    e = {}
    for name, table in (("start_steps", terms.start_steps), ("burst", terms.burst)):
        e[name] = np.array([table[engine] for engine in ENGINES])[replicas.engine][:, None]
    e["polled"] = np.full((len(replicas), 1), terms.polled)
    e["request_s"] = request_s * np.where(np.broadcast_to(nvidia, len(replicas)), terms.nvidia_request, 1.0)[:, None]
    return e


def loop_means(work: Loop, e: dict[str, Floats], decoding: Floats) -> tuple[Floats, Floats]:
    """(TTFT, TPOT) [P, G] while ``decoding`` [P, G] sequences decode, without any wait for KV room.

    TPOT = step + (B - 1)/o x prompt: each finished request is replaced by one prompt. TTFT = overhead + steps waited x TPOT +
    prompt x (1 + burst x (B - 1)): at the start all prompts come at once, and the mean over a run keeps a share of that queue.
    """
    return means_of(work, e, decoding, decode_step(work.shape, e, work.kv_read, decoding) * e["vendor"], prompt_seconds(work, e))


def means_of(work: Loop, e: Mapping[str, Floats], decoding: Floats, step: Floats, prompt: Floats) -> tuple[Floats, Floats]:
    """The same from the seconds of a decode step [P, G] and of a prompt [P, 1]."""
    others = np.maximum(decoding - 1, 0.0)
    tpot = step + others / work.output_tokens[:, None] * prompt
    ttft = e["request_s"] + steps_waited(work, e) * tpot + prompt * (1 + e["burst"] * others)
    return ttft, tpot


def steps_waited(work: Loop, e: Mapping[str, Floats]) -> Floats:
    """Steps [P, 1] until a request is looked at: of start-up, and of an engine that does not look at every step."""
    found: Floats = e["start_steps"] + e["polled"] * (work.poll_steps[:, None] - 1)
    return found


def prompt_seconds(work: Prompts, e: dict[str, Floats]) -> Floats:
    """Seconds [P, 1] of one prompt, its share of the pass that it is in."""
    tokens = work.input_tokens[:, None]
    return prompt_token(work.shape, e, work.context, prompt_pass(tokens)) * e["vendor"] * tokens


def loop_curves(work: Loop, e: dict[str, Floats]) -> LoopCurves:
    """Curves up to as many sequences as have room, and as prompts keep decoding. By Little's law N = B + B TTFT/(o TPOT), which rises with B.

    A step takes at most CHUNK - B prompt tokens. Where prompts fill every step, (CHUNK - B)/i requests begin with each and decode for
    o - 1 more, so no more than these decode, a request costs the engine P + D i/(CHUNK - B), N of them in flight N times that, and all
    others wait for their prefill, first come, first served.
    """
    prompt, output = work.input_tokens[:, None], work.output_tokens[:, None]
    most = np.minimum(np.maximum(work.slots, 1)[:, None], (CHUNK * output + prompt) / (output + prompt))
    decoding = np.minimum(LOOP_GRID[None, :], most)
    ttft, tpot = loop_means(work, e, decoding)
    step = decode_step(work.shape, e, work.kv_read, decoding) * e["vendor"]
    each = prompt_seconds(work, e) + step * prompt / (CHUNK - decoding)
    concurrency = np.minimum(decoding * (1 + ttft / (output * tpot)), (ttft + (output - 1) * tpot) / each)
    concurrency = np.concatenate((np.ones((len(concurrency), 1)), concurrency[:, 1:]), axis=1)  # one request alone: N = 1, not 1 + waiting
    return LoopCurves(decoding, np.maximum.accumulate(concurrency, axis=1), ttft, tpot)


def at_concurrency(curves: LoopCurves, concurrency: Floats, output_tokens: Floats) -> tuple[Floats, Floats]:
    """(TTFT, TPOT) [P] at these concurrencies. Beyond the last point all slots are taken, or prompts fill all steps: throughput stays, requests wait."""
    last = curves.concurrency[:, -1]
    at = np.clip(concurrency, 1.0, last)
    ttft, tpot = straight(curves.concurrency, at, curves.ttft_s), straight(curves.concurrency, at, curves.tpot_s)
    more = np.maximum(concurrency / last, 1.0)
    return ttft + (more - 1) * (ttft + (output_tokens - 1) * tpot), tpot


def straight(x: Floats, at: Floats, y: Floats) -> Floats:
    """Linear interpolation along each row of ``x`` [P, G] at one abscissa per row [P]."""
    low = np.clip((x <= at[:, None]).sum(axis=1) - 1, 0, x.shape[1] - 2)
    rows = np.arange(len(x))
    x0, x1 = x[rows, low], x[rows, low + 1]
    share = np.clip((at - x0) / np.where(x1 > x0, x1 - x0, 1.0), 0.0, 1.0)
    found: Floats = y[rows, low] + share * (y[rows, low + 1] - y[rows, low])
    return found


def step_floor(work: Loop, sequences: Floats) -> Floats:
    """Seconds [P, G] no decode step of so many sequences can beat: bytes over bandwidth, FLOPs over peak."""
    s = work.shape
    batch = np.maximum(sequences / s.pp[:, None], 1.0)
    touched = -np.expm1(batch * np.log1p(-np.minimum(s.expert_share, 0.999999))[:, None])
    read = s.dense_read[:, None] + s.expert_read[:, None] * touched + work.kv_read[:, None] * batch
    flops = (s.dense_flops + s.expert_flops)[:, None] * batch
    found: Floats = np.maximum(read / s.bandwidth[:, None], flops / s.peak[:, None])
    return found


def prompt_floor(work: Loop) -> Floats:
    """Seconds [P] no prompt can beat: FLOPs over peak."""
    s = work.shape
    found: Floats = work.input_tokens * (s.dense_flops + s.expert_flops) / s.peak
    return found


def usable(work: Loop) -> NDArray[np.bool_]:
    """Whether one request fits."""
    found: NDArray[np.bool_] = work.slots >= 1
    return found
