"""One replica in the compiled core: its steps with prompts and decodes, who is admitted, who gives cache back, and what is counted when an answer ends."""

from __future__ import annotations

import math

import numpy as np

from planner.simulation.memory import Sim, floats, flow_of, ints, part, replica, request, session
from planner.simulation.records import (
    ABSENT,
    ALL,
    ANSWER_TOKENS,
    ANSWERED,
    BINS,
    BINS_PER_E,
    COUNTED,
    E2E_S,
    FINISHED,
    GOOD,
    GOOD_TOKENS,
    LAST_S,
    LATE,
    LATE_S,
    LATEST_S,
    LOWEST_S,
    PROMPT_TOKENS,
    SERIES,
    SEVERAL,
    SUMS,
    TPOT_S,
    TTFT_S,
    UP,
    VERDICTS,
    WAITED,
    WRITTEN,
    Ints,
)

DAY_S, FIRST = 86400.0, 1 << 60


@part
def _bin(seconds: float) -> int:
    return min(max(int(math.log(max(seconds, LOWEST_S) / LOWEST_S) * BINS_PER_E), 0), BINS - 1)


@part
def _push(due: Ints, slots: Ints, size: int, key: int, value: int) -> None:
    at = size
    while at > 0 and due[(at - 1) // 2] > key:
        due[at], slots[at] = due[(at - 1) // 2], slots[(at - 1) // 2]
        at = (at - 1) // 2
    due[at], slots[at] = key, value


@part
def _pop(due: Ints, slots: Ints, size: int) -> int:
    """Takes the first of a heap of ``size``."""
    found: int = slots[0]
    key, value, at = due[size - 1], slots[size - 1], 0
    while 2 * at + 1 < size - 1:
        child = 2 * at + 1
        if child + 1 < size - 1 and due[child + 1] < due[child]:
            child += 1
        if due[child] >= key:
            break
        due[at], slots[at] = due[child], slots[child]
        at = child
    due[at], slots[at] = key, value
    return found


@part
def due_at(arrival: float, deadline: float) -> float:
    """The first time after an arrival at which it is the deadline's time of day."""
    return float(deadline + DAY_S * (math.floor((arrival - deadline) / DAY_S) + 1))


@part
def _waited(sim: Sim, slot: int, now: float) -> None:
    """Counts a request that waited for spare capacity: on time or not, its tokens, and when."""
    q, at = request(sim.pool, slot), int(now / sim.width)
    found, sums = floats(sim.waited + 8 * WAITED * q.flow), floats(sim.sums + 8 * SUMS * q.flow)
    late = now - due_at(q.arrival, flow_of(sim.flows, q.flow).deadline)
    found[ANSWERED] += 1
    found[LAST_S] = max(found[LAST_S], now)
    found[LATEST_S] = max(found[LATEST_S], late)
    found[LATE] += int(late > 0.0)
    found[LATE_S] += max(late, 0.0)
    sums[PROMPT_TOKENS] += q.prompt
    sums[ANSWER_TOKENS] += q.user
    sums[GOOD_TOKENS] += q.user * int(late <= 0.0)
    if at < sim.bins:
        series = floats(sim.series + 8 * SERIES * at)
        series[WRITTEN] += q.user


@part
def _tally(sim: Sim, slot: int, now: float) -> None:
    """Counts a request whose last token was written ``now``."""
    q, series = request(sim.pool, slot), floats(sim.series)
    w, flow = q.flow, flow_of(sim.flows, q.flow)
    first = q.first + flow.reasoning * (now - q.first)
    ttft, e2e = first - q.arrival, now - q.arrival
    tpot = (now - q.first) / (q.answer - 1) if q.answer > 1 else 0.0
    at = int(now / sim.width)
    if at < sim.bins:
        series[at * SERIES + FINISHED] += 1
        series[at * SERIES + WRITTEN] += q.user
    early, fast, whole = int(ttft <= flow.ttft), int(tpot <= flow.tpot), int(e2e <= flow.e2e)
    good = early & fast & whole
    if good:
        series[min(int(q.arrival / sim.width), sim.bins - 1) * SERIES + GOOD] += 1
    if q.batch >= 0:
        counts, sums = ints(sim.counts + 8 * VERDICTS * (w * sim.batches + q.batch)), floats(sim.sums + 8 * SUMS * w)
        counts[0] += early
        counts[1] += fast
        counts[2] += whole
        counts[ALL] += good
        counts[COUNTED] += 1
        sums[PROMPT_TOKENS] += q.prompt
        sums[ANSWER_TOKENS] += q.user
        sums[GOOD_TOKENS] += q.user * good
        sums[TTFT_S] += ttft
        sums[E2E_S] += e2e
        histogram = ints(sim.histogram + 8 * BINS * 4 * w)
        histogram[_bin(ttft)] += 1
        histogram[2 * BINS + _bin(e2e)] += 1
        if q.answer > 1:
            histogram[BINS + _bin(tpot)] += 1
            sums[TPOT_S] += tpot
            sums[SEVERAL] += 1


@part
def _finish(sim: Sim, slot: int, now: float) -> None:
    """Counts a request whose last token was written ``now`` and frees its slot."""
    q = request(sim.pool, slot)
    if sim.waits == 0 or flow_of(sim.flows, q.flow).deadline < 0.0:
        _tally(sim, slot, now)
    else:
        _waited(sim, slot, now)
    if q.session > 0:  # it asks again; times never fall, so the ring stays in order
        sim.open -= int(q.batch >= 0)
        one = session(sim.back, (sim.first_back + sim.away) % sim.sessions)
        one.at, one.flow = now, q.flow
        sim.away += 1
    q.following = sim.top
    sim.top = slot
    sim.free += 1


@part
def wait_again(sim: Sim, slot: int) -> None:
    """A request's prompt must be computed, with what it has written."""
    q = request(sim.pool, slot)
    q.order = ABSENT
    q.left = q.prompt * flow_of(sim.flows, q.flow).computed + q.done


@part
def _gives_way(sim: Sim, slot: int) -> int:
    """In which order answers give cache back: those that wait for spare capacity first, then the one admitted last."""
    q = request(sim.pool, slot)
    return int(q.order) + (FIRST if flow_of(sim.flows, q.flow).deadline >= 0.0 else 0)


@part
def put_off(sim: Sim, slot: int, first: bool) -> None:
    """A request waits for spare capacity, first or last of those that do."""
    q = request(sim.pool, slot)
    q.following = sim.later if first else ABSENT
    if sim.later < 0:
        sim.later_last = slot
    elif not first:
        request(sim.pool, sim.later_last).following = slot
        sim.later_last = slot
    if first or sim.later < 0:
        sim.later = slot


@part
def has_room(sim: Sim, r: int, begun: int) -> bool:
    """Whether the first that waits for spare capacity could start on a replica that has nothing else to admit."""
    f, q = replica(sim.fleet, r), request(sim.pool, sim.later)
    n = f.running + begun
    return bool(f.alive == UP and n < min(sim.spare, sim.seqs) and f.kv + q.prompt + q.done + n + 1 <= sim.kv_tokens)


@part
def _pull(sim: Sim, r: int, begun: int) -> int:
    """Takes the first that waits for spare capacity to the replica, to start at once; absent where it has no room."""
    if sim.later < 0 or not has_room(sim, r, begun):
        return ABSENT
    f, slot = replica(sim.fleet, r), int(sim.later)
    q = request(sim.pool, slot)
    sim.later = q.following
    q.following = ABSENT
    if f.head < 0:
        f.head = slot
    else:
        request(sim.pool, f.last).following = slot
    f.last = slot
    f.waiting += 1
    return slot


@part
def _evict(sim: Sim, r: int) -> None:
    """Frees KV cache: of a prompt that is half computed, else of the answer admitted last, which then waits first in line."""
    f, due, slots = replica(sim.fleet, r), ints(sim.due + 8 * r * sim.seqs), ints(sim.slot + 8 * r * sim.seqs)
    sim.preempted += 1
    head, n, latest = f.head, f.running - 1, 0
    if head >= 0 and request(sim.pool, head).order >= 0:  # a prompt begun, of whatever kind
        f.kv -= request(sim.pool, head).prompt + request(sim.pool, head).done
        wait_again(sim, head)
        if flow_of(sim.flows, request(sim.pool, head).flow).deadline >= 0.0:
            f.head = request(sim.pool, head).following
            f.last = ABSENT if f.head < 0 else f.last
            f.waiting -= 1
            put_off(sim, head, True)
        return
    for i in range(1, n + 1):
        if _gives_way(sim, slots[i]) > _gives_way(sim, slots[latest]):
            latest = i
    slot = slots[latest]
    q = request(sim.pool, slot)
    q.done = q.answer - (due[latest] - f.steps)
    f.kv -= q.prompt + q.done - 1
    wait_again(sim, slot)
    for i in range(latest + 1, n + 1):
        _push(due, slots, i - 1, due[i], slots[i])
    f.running = n
    if flow_of(sim.flows, q.flow).deadline >= 0.0:
        put_off(sim, slot, True)
        return
    q.following = head
    f.head = slot
    if head < 0:
        f.last = slot
    f.waiting += 1


@part
def _admit(sim: Sim, r: int, slot: int, begun: int) -> bool:
    """Whether a prompt may go on, or start: a free sequence, and KV cache for its prompt and one more token of everyone."""
    q, f = request(sim.pool, slot), replica(sim.fleet, r)
    if q.order >= 0:
        return True
    needed, n = q.prompt + q.done, f.running + begun
    if n >= sim.seqs or f.kv + needed + n + 1 > sim.kv_tokens:
        return False
    f.kv += needed
    sim.order += 1
    q.order = sim.order
    return True


@part
def plan(sim: Sim, r: int) -> None:
    """Decides what the replica does from ``start`` on: one step with prompts, or equal decode steps up to the next end of an answer."""
    f = replica(sim.fleet, r)
    while f.running > 0 and f.kv + f.running > sim.kv_tokens:
        _evict(sim, r)
    n, slot, work, ready = f.running, f.head, 0.0, 0
    f.decodes = n
    if slot < 0 and sim.later >= 0:
        slot = _pull(sim, r, 0)
    if sim.whole_s >= 0.0:
        if slot >= 0 and _admit(sim, r, slot, 0):
            q = request(sim.pool, slot)
            f.step = sim.whole_s + q.left * flow_of(sim.flows, q.flow).prompt_s
            f.ready, f.decodes, f.count, f.wake = 1, 0, 1, f.start + f.step
            return
    else:
        room = float(sim.batched_tokens - n)
        while slot >= 0 and room > 0.0 and _admit(sim, r, slot, ready):
            q = request(sim.pool, slot)
            share = min(q.left, room)
            q.left -= share
            room -= share
            work += share * flow_of(sim.flows, q.flow).prompt_s
            if q.left > 1e-9:
                break
            ready += 1
            slot = q.following
            if slot < 0 and sim.later >= 0 and room > 0.0:
                slot = _pull(sim, r, ready)
    f.ready, f.step = ready, floats(sim.step_s)[n] + work
    if work > 0.0 or ready > 0:
        f.count = 1
    elif n > 0:
        f.count = min(ints(sim.due + 8 * r * sim.seqs)[0] - f.steps, (sim.kv_tokens - f.kv) // n)
    else:
        f.count, f.wake = 0, np.inf
        return
    f.wake = f.start + f.count * f.step


@part
def complete(sim: Sim, r: int) -> None:
    """Ends the group: answers end, prompts give their first token and join."""
    f, due, slots = replica(sim.fleet, r), ints(sim.due + 8 * r * sim.seqs), ints(sim.slot + 8 * r * sim.seqs)
    m, n, now = f.count, f.decodes, f.wake
    f.start = now
    f.busy += m * f.step
    f.held += m * f.step * f.running
    if n > 0:
        if sim.seen > 0:
            gaps, stalled = ints(sim.histogram + 8 * BINS * 3), int(f.stall > 0.0)
            if stalled:
                gaps[_bin(f.step + f.stall)] += n
            if m > stalled:
                gaps[_bin(f.step)] += n * (m - stalled)
        f.stall = 0.0
        f.steps += m
        f.kv += n * m
        while f.running > 0 and due[0] <= f.steps:
            slot = _pop(due, slots, f.running)
            f.running -= 1
            f.kv -= request(sim.pool, slot).prompt + request(sim.pool, slot).answer - 1
            _finish(sim, slot, now)
    elif f.running > 0:
        f.stall += f.step
    for _ in range(f.ready):
        slot = f.head
        q = request(sim.pool, slot)
        f.head = q.following
        if f.head < 0:
            f.last = ABSENT
        f.waiting -= 1
        if q.done == 0:
            q.first = now
        written = q.done + 1
        if written >= q.answer:
            f.kv -= q.prompt + q.done
            _finish(sim, slot, now)
        else:
            _push(due, slots, f.running, f.steps + q.answer - written, slot)
            f.running += 1


@part
def advance(sim: Sim, r: int, now: float) -> None:
    """Ends all groups of a replica that end by ``now``."""
    while replica(sim.fleet, r).wake <= now:
        complete(sim, r)
        plan(sim, r)


@part
def enqueue(sim: Sim, r: int, slot: int, now: float) -> None:
    """A request joins a replica that was advanced to ``now``: the step under way ends first."""
    f = replica(sim.fleet, r)
    alone = f.head < 0
    request(sim.pool, slot).following = ABSENT
    if alone:
        f.head = slot
    else:
        request(sim.pool, f.last).following = slot
    f.last = slot
    f.waiting += 1
    if f.count == 0 or alone:
        look_up(sim, r, now)


@part
def look_up(sim: Sim, r: int, now: float) -> None:
    """There is something to admit: an idle replica begins, equal decode steps end with the one under way."""
    f = replica(sim.fleet, r)
    if f.count == 0:
        f.start = now
        plan(sim, r)
    elif f.count > 1:
        begun = max(math.ceil((now - f.start) / f.step), 1)
        if begun < f.count:
            f.count, f.wake = begun, f.start + begun * f.step
