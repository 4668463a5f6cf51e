"""What a mean time to first token is made of, in every way of serving: parts that add up to it. Each function takes what its formulas take.

``schedule`` is the rest of the step under way when a request comes, ``queue`` all other waiting (for a sequence, and for others' prompts, those in
the request's own steps included), ``prefill`` the request's own prompt with the decoding that shares its steps, ``first_decode`` the decoding of
others in the step that writes the first token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from planner.performance.chain import Chain, Rows
from planner.performance.queue import QueueState

if TYPE_CHECKING:
    from planner.performance.closed import Closed, ClosedLoop

PARTS = ("request", "queue", "schedule", "prefill", "transfer", "first_decode", "reasoning")


def parts_of(waits: Rows, **known: Rows | float) -> dict[str, Rows]:
    """All parts [P], in seconds, 0 where there is none of one; ``waits`` [P, 1]: ``queue``."""
    found = {"queue": waits, **known}
    return {name: np.broadcast_to(found.get(name, 0.0), waits.shape)[:, 0] for name in PARTS}


def queue_parts(chain: Chain, now: QueueState, slot_wait: Rows, reasoning_s: Rows | float) -> dict[str, Rows]:
    """Of Poisson arrivals; ``slot_wait`` [P, 1]: mean seconds until a sequence is free.

    A step under way is found in proportion to how long it lasts: E[T^2]/2 E[T] of it are left. Without chunked prefill a prompt's step
    is one of its own.
    """
    own = (now.own @ chain.inputs.weight)[:, None]
    lasting, busy = now.noise.mean, now.noise.busy
    left = lasting / 2 + now.noise.step_prompts / (2 * lasting)
    first: Rows = now.step
    if not chain.is_chunked:
        left, first = now.rate * chain.work_m2 / 2 + (1 - busy) * now.step / 2, np.zeros_like(own)
    left = np.minimum(left, now.wait.mean)
    return parts_of(now.wait.mean - left + slot_wait, request=chain.overhead, schedule=left, prefill=own - first, first_decode=first, reasoning=reasoning_s)


def loop_parts(loop: ClosedLoop, s: Closed, bare: Rows, reasoning_s: Rows | float) -> dict[str, Rows]:
    """Of requests in flight; ``bare`` [P, 1]: mean seconds to the first token that meets no other prompt.

    A request's overhead passes while steps go on, of which ``begins`` are waited for.
    """
    until, first = s.step * s.begins, s.step
    if loop.curves.whole_prompt_s is not None:
        until = first = np.zeros_like(s.step)
    request = np.minimum(loop.overhead, until + s.others.seconds)
    schedule = np.maximum(until - request, 0.0)
    queue, longer = s.others.seconds - (request + schedule - until), s.longer
    return parts_of(
        longer * queue + s.delay, request=longer * request, schedule=longer * schedule, prefill=longer * (bare - until - first),
        first_decode=longer * first, reasoning=reasoning_s,
    )  # fmt: skip


def scaled_to(parts: Mapping[str, Rows], whole: Rows) -> dict[str, Rows]:
    """The parts in proportion, so that they add up to what is known better than they are."""
    factor = whole / sum(parts.values())
    return {name: part * factor for name, part in parts.items()}
