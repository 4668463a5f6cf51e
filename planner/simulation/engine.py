"""The compiled core: replicas of one deployment behind a router, step by step; equal decode steps between events are taken at once.

Requests come in blocks and leave as counts and histograms, so memory holds only those in flight. Only this module loads numba.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Records = NDArray[np.void]
compiled = njit(cache=True, error_model="numpy", nogil=True)
inlined = njit(cache=True, error_model="numpy", nogil=True, inline="always")  # calls would count references of all arrays

ROUTERS = ("random", "round_robin", "least_loaded")
METRICS = ("ttft", "tpot", "e2e", "itl")
UP, KILL, DRAIN = 0, 1, 2  # a replica is ready, gone with all it held, or takes no more
LOWEST_S, BINS_PER_E, BINS = 1e-5, 200.0, 5200  # latencies from 10 us in bins of 0.5 %; the last holds all above 1.9e6 s
ABSENT = -1
TOP, ORDER, NEXT, LIMBO, LIMBO_LAST, SEEN, RESTARTED, EVENT, PREEMPTED, REFUSED, FRAME, LIVE, FREE, BACK, AWAY, OPEN = range(16)  # cells
ALL, COUNTED = 3, 4  # beside TTFT, TPOT and E2E in ``counts``
PROMPT_TOKENS, ANSWER_TOKENS, GOOD_TOKENS, TTFT_S, TPOT_S, E2E_S, SEVERAL = range(7)  # in ``sums``
ARRIVED, FINISHED, GOOD, WRITTEN, RUNNING, WAITING, KV = range(7)  # in ``series``

# A request in the system. ``left``: prompt tokens to compute yet; ``answer``: tokens it writes, ``user`` those asked for; ``done``: written before
# its prompt was computed again; ``batch`` < 0: not counted; ``order`` of admission, < 0 while it waits; ``following`` links queues and free slots;
# ``session`` > 0: of a session, which asks again as soon as it is answered.
REQUEST = np.dtype(
    [*((n, "f8") for n in ("arrival", "first", "left"))]
    + [(n, "i8") for n in ("prompt", "answer", "user", "done", "flow", "batch", "order", "following", "session")]
)
# A replica. Its present group is ``count`` equal steps of ``step`` seconds from ``start`` to ``wake``, that decode ``decodes`` sequences and end
# ``ready`` prompts; ``stall``: seconds since the last decode step; ``held``: sequences x seconds; ``steps``: decode steps so far; ``kv``: tokens.
REPLICA = np.dtype(
    [*((n, "f8") for n in ("wake", "start", "step", "stall", "busy", "held"))]
    + [(n, "i8") for n in ("alive", "waiting", "running", "count", "ready", "decodes", "steps", "kv", "head", "last")]
)
# A workload: seconds per prompt token that is computed, the share that is (others are found in the prefix cache), tokens written per answer token,
# the share of them written before the answer begins, and limits in seconds, infinite where there are none.
FLOW = np.dtype([(n, "f8") for n in ("prompt_s", "computed", "written", "reasoning", "ttft", "tpot", "e2e")])
# A session between an answer and its next request: when it asks, and the workload it belongs to.
RETURN = np.dtype([("at", "f8"), ("flow", "i8")])


class Sim(NamedTuple):
    """All that the core works on. W workloads, R replicas, B batches of requests by arrival, T bins of time."""

    pool: Records  # REQUEST, by slot
    fleet: Records  # [R] REPLICA
    due: Ints  # [R, max_num_seqs] heaps of the decode steps at which answers end
    slot: Ints  # [R, max_num_seqs] whose
    cell: Ints
    flows: Records  # [W] FLOW
    step_s: Floats  # seconds of a decode step by sequences, 0 to max_num_seqs
    histogram: Ints  # [W, metric, BINS]; ITL, all workloads as one at [0], counts tokens
    counts: Ints  # [W, B, 5] requests inside each limit, inside all, and all there are
    sums: Floats  # [W, 7]
    series: Floats  # [T, 7]
    back: Records  # [S] RETURN: a ring of the sessions about to ask, in the order of time: ``AWAY`` of them from ``BACK`` on
    drawn: Ints  # [W, L, 2] prompt and answer tokens that sessions ask for, used in turn
    asked: Ints  # [W] requests of sessions so far
    counted_s: Floats  # [2]: requests of sessions that ask between these times are counted
    whole_s: float  # < 0: prompts are cut into chunks; else what a prompt's own step adds to its tokens
    overhead_s: float  # once per request, before the engine sees it
    batched_tokens: int
    kv_tokens: int
    width: float  # seconds of a bin of time
    router: int
    seed: int


@inlined
def _bin(seconds: float) -> int:
    return min(max(int(np.log(max(seconds, LOWEST_S) / LOWEST_S) * BINS_PER_E), 0), BINS - 1)


@compiled
def _push(sim: Sim, r: int, size: int, key: int, value: int) -> None:
    at = size
    while at > 0 and sim.due[r, (at - 1) // 2] > key:
        sim.due[r, at], sim.slot[r, at] = sim.due[r, (at - 1) // 2], sim.slot[r, (at - 1) // 2]
        at = (at - 1) // 2
    sim.due[r, at], sim.slot[r, at] = key, value


@compiled
def _pop(sim: Sim, r: int, size: int) -> int:
    """Takes the first of a heap of ``size``."""
    found: int = sim.slot[r, 0]
    key, value, at = sim.due[r, size - 1], sim.slot[r, size - 1], 0
    while 2 * at + 1 < size - 1:
        child = 2 * at + 1
        if child + 1 < size - 1 and sim.due[r, child + 1] < sim.due[r, child]:
            child += 1
        if sim.due[r, child] >= key:
            break
        sim.due[r, at], sim.slot[r, at] = sim.due[r, child], sim.slot[r, child]
        at = child
    sim.due[r, at], sim.slot[r, at] = key, value
    return found


@compiled
def _finish(sim: Sim, slot: int, now: float) -> None:
    """Counts a request whose last token was written ``now`` and frees its slot."""
    q, bins = sim.pool[slot], len(sim.series)
    flow = sim.flows[q.flow]
    first = q.first + flow.reasoning * (now - q.first)
    ttft, e2e = first - q.arrival, now - q.arrival
    tpot = (now - q.first) / (q.answer - 1) if q.answer > 1 else 0.0
    at = int(now / sim.width)
    if at < bins:
        sim.series[at, FINISHED] += 1
        sim.series[at, WRITTEN] += q.user
    early, fast, whole = ttft <= flow.ttft, tpot <= flow.tpot, e2e <= flow.e2e
    good = early and fast and whole
    if good:
        sim.series[min(int(q.arrival / sim.width), bins - 1), GOOD] += 1
    if q.batch >= 0:
        w, b = q.flow, q.batch
        sim.counts[w, b, 0] += early
        sim.counts[w, b, 1] += fast
        sim.counts[w, b, 2] += whole
        sim.counts[w, b, ALL] += good
        sim.counts[w, b, COUNTED] += 1
        sim.sums[w, PROMPT_TOKENS] += q.prompt
        sim.sums[w, ANSWER_TOKENS] += q.user
        sim.sums[w, GOOD_TOKENS] += q.user if good else 0
        sim.sums[w, TTFT_S] += ttft
        sim.sums[w, E2E_S] += e2e
        sim.histogram[w, 0, _bin(ttft)] += 1
        sim.histogram[w, 2, _bin(e2e)] += 1
        if q.answer > 1:
            sim.histogram[w, 1, _bin(tpot)] += 1
            sim.sums[w, TPOT_S] += tpot
            sim.sums[w, SEVERAL] += 1
    if q.session > 0:
        sim.cell[OPEN] -= int(q.batch >= 0)
        _return(sim, q.flow, now)
    q.following = sim.cell[TOP]
    sim.cell[TOP] = slot
    sim.cell[FREE] += 1


@inlined
def _return(sim: Sim, flow: int, now: float) -> None:
    """A session asks again. Times never fall, so the ring stays in order."""
    q = sim.back[(sim.cell[BACK] + sim.cell[AWAY]) % len(sim.back)]
    q.at, q.flow = now, flow
    sim.cell[AWAY] += 1


@inlined
def _wait_again(sim: Sim, slot: int) -> None:
    """A request's prompt must be computed, with what it has written."""
    q = sim.pool[slot]
    q.order = ABSENT
    q.left = q.prompt * sim.flows[q.flow].computed + q.done


@compiled
def _evict(sim: Sim, r: int) -> None:
    """Frees KV cache: of a prompt that is half computed, else of the answer admitted last, which then waits first in line."""
    f = sim.fleet[r]
    sim.cell[PREEMPTED] += 1
    head, n, latest = f.head, f.running - 1, 0
    if head >= 0 and sim.pool[head].order >= 0:
        f.kv -= sim.pool[head].prompt + sim.pool[head].done
        _wait_again(sim, head)
        return
    for i in range(1, n + 1):
        if sim.pool[sim.slot[r, i]].order > sim.pool[sim.slot[r, latest]].order:
            latest = i
    slot = sim.slot[r, latest]
    q = sim.pool[slot]
    q.done = q.answer - (sim.due[r, latest] - f.steps)
    f.kv -= q.prompt + q.done - 1
    _wait_again(sim, slot)
    due, slots = sim.due[r, : n + 1].copy(), sim.slot[r, : n + 1].copy()
    size = 0
    for i in range(n + 1):
        if i != latest:
            _push(sim, r, size, due[i], slots[i])
            size += 1
    f.running = n
    q.following = head
    f.head = slot
    if head < 0:
        f.last = slot
    f.waiting += 1


@inlined
def _admit(sim: Sim, r: int, slot: int, begun: int) -> bool:
    """Whether a prompt may go on, or start: a free sequence, and KV cache for its prompt and one more token of everyone."""
    q, f = sim.pool[slot], sim.fleet[r]
    if q.order >= 0:
        return True
    needed, n = q.prompt + q.done, f.running + begun
    if n >= len(sim.step_s) - 1 or f.kv + needed + n + 1 > sim.kv_tokens:
        return False
    f.kv += needed
    sim.cell[ORDER] += 1
    q.order = sim.cell[ORDER]
    return True


@inlined
def _plan(sim: Sim, r: int) -> None:
    """Decides what the replica does from ``start`` on: one step with prompts, or equal decode steps up to the next end of an answer."""
    f = sim.fleet[r]
    while f.running > 0 and f.kv + f.running > sim.kv_tokens:
        _evict(sim, r)
    n, slot, work, ready = f.running, f.head, 0.0, 0
    f.decodes = n
    if sim.whole_s >= 0.0:
        if slot >= 0 and _admit(sim, r, slot, 0):
            f.step = sim.whole_s + sim.pool[slot].left * sim.flows[sim.pool[slot].flow].prompt_s
            f.ready, f.decodes, f.count, f.wake = 1, 0, 1, f.start + f.step
            return
    else:
        room = float(sim.batched_tokens - n)
        while slot >= 0 and room > 0.0 and _admit(sim, r, slot, ready):
            q = sim.pool[slot]
            part = min(q.left, room)
            q.left -= part
            room -= part
            work += part * sim.flows[q.flow].prompt_s
            if q.left > 1e-9:
                break
            ready += 1
            slot = q.following
    f.ready, f.step = ready, sim.step_s[n] + work
    if work > 0.0 or ready > 0:
        f.count = 1
    elif n > 0:
        f.count = min(sim.due[r, 0] - f.steps, (sim.kv_tokens - f.kv) // n)
    else:
        f.count, f.wake = 0, np.inf
        return
    f.wake = f.start + f.count * f.step


@inlined
def _gaps(sim: Sim, seconds: float, tokens: int) -> None:
    if sim.cell[SEEN] > 0:
        sim.histogram[0, 3, _bin(seconds)] += tokens


@inlined
def _complete(sim: Sim, r: int) -> None:
    """Ends the group: answers end, prompts give their first token and join."""
    f = sim.fleet[r]
    m, n, now = f.count, f.decodes, f.wake
    f.start = now
    f.busy += m * f.step
    f.held += m * f.step * f.running
    if n > 0:
        first = 1 if f.stall > 0.0 else 0
        if first:
            _gaps(sim, f.step + f.stall, n)
        if m > first:
            _gaps(sim, f.step, n * (m - first))
        f.stall = 0.0
        f.steps += m
        f.kv += n * m
        while f.running > 0 and sim.due[r, 0] <= f.steps:
            slot = _pop(sim, r, f.running)
            f.running -= 1
            f.kv -= sim.pool[slot].prompt + sim.pool[slot].answer - 1
            _finish(sim, slot, now)
    elif f.running > 0:
        f.stall += f.step
    for _ in range(f.ready):
        slot = f.head
        q = sim.pool[slot]
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
            _push(sim, r, f.running, f.steps + q.answer - written, slot)
            f.running += 1


@compiled
def _advance(sim: Sim, r: int, now: float) -> None:
    while sim.fleet[r].wake <= now:
        _complete(sim, r)
        _plan(sim, r)


@inlined
def _enqueue(sim: Sim, r: int, slot: int, now: float) -> None:
    """A request joins a replica that was advanced to ``now``: the step under way ends first."""
    f = sim.fleet[r]
    alone = f.head < 0
    sim.pool[slot].following = ABSENT
    if alone:
        f.head = slot
    else:
        sim.pool[f.last].following = slot
    f.last = slot
    f.waiting += 1
    if f.count == 0:
        f.start = now
        _plan(sim, r)
    elif alone and f.count > 1:
        begun = max(int(np.ceil((now - f.start) / f.step)), 1)
        if begun < f.count:
            f.count, f.wake = begun, f.start + begun * f.step


@compiled
def _drawn(seed: int, index: int) -> np.int64:
    """A random number below 2^31 for each index (SplitMix64)."""
    z = np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(index + 1) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.int64((z ^ (z >> np.uint64(31))) >> np.uint64(33))


@compiled
def _route(sim: Sim, now: float) -> int:
    """The replica for a request, advanced to ``now``; absent where none is ready."""
    many, ready = len(sim.fleet), sim.cell[LIVE]
    if ready == 0:
        return ABSENT
    sim.cell[NEXT] += 1
    found: int = sim.cell[NEXT] % many
    if sim.router == 2:
        least, first = 1 << 62, found
        for i in range(many):
            r = first + i if first + i < many else first + i - many
            f = sim.fleet[r]
            if f.wake <= now:
                _advance(sim, r, now)
            load = f.waiting + f.running
            if load < least and f.alive == UP:
                least, found = load, r
        return found
    if sim.router == 0:
        wanted = _drawn(sim.seed, sim.cell[NEXT]) % ready
        found = 0
        while wanted > 0 or sim.fleet[found].alive != UP:
            wanted -= sim.fleet[found].alive == UP
            found += 1
    else:
        while sim.fleet[found].alive != UP:
            found = (found + 1) % many
    _advance(sim, found, now)
    return found


@inlined
def _send(sim: Sim, slot: int, now: float) -> None:
    """Routes a request; where no replica is ready it waits for one."""
    r = _route(sim, now)
    if r >= 0:
        _enqueue(sim, r, slot, now)
        return
    sim.pool[slot].following = ABSENT
    if sim.cell[LIMBO] < 0:
        sim.cell[LIMBO] = slot
    else:
        sim.pool[sim.cell[LIMBO_LAST]].following = slot
    sim.cell[LIMBO_LAST] = slot


@compiled
def _change(sim: Sim, r: int, kind: int, now: float) -> None:
    """A replica gets ready, goes, or takes no more. What a gone one held starts over elsewhere."""
    for i in range(len(sim.fleet)):
        _advance(sim, i, now)
    f = sim.fleet[r]
    sim.cell[LIVE] += int(kind == UP) - int(f.alive == UP)
    f.alive = kind
    if kind == KILL:
        slots = np.empty(f.running + f.waiting, np.int64)
        slots[: f.running] = sim.slot[r, : f.running]
        at, slot = f.running, f.head
        while slot >= 0:
            slots[at] = slot
            at += 1
            slot = sim.pool[slot].following
        f.running, f.waiting, f.kv, f.count, f.ready, f.decodes = 0, 0, 0, 0, 0, 0
        f.head, f.last, f.wake, f.stall = ABSENT, ABSENT, np.inf, 0.0
        for slot in slots:
            sim.pool[slot].done = 0
            _wait_again(sim, slot)
            sim.cell[RESTARTED] += 1
            _send(sim, slot, now)
    elif kind == UP:
        slot = sim.cell[LIMBO]
        sim.cell[LIMBO] = ABSENT
        while slot >= 0:
            after = sim.pool[slot].following
            _send(sim, slot, now)
            slot = after


@compiled
def _frame(sim: Sim) -> None:
    """Notes the state of all replicas at the start of the next bin of time."""
    at, many = sim.cell[FRAME], len(sim.fleet)
    now = at * sim.width
    for r in range(many):
        _advance(sim, r, now)
        f = sim.fleet[r]
        sim.series[at, RUNNING] += f.running
        sim.series[at, WAITING] += f.waiting
        sim.series[at, KV] += f.kv / sim.kv_tokens / many
    slot = sim.cell[LIMBO]
    while slot >= 0:
        sim.series[at, WAITING] += 1
        slot = sim.pool[slot].following
    sim.cell[FRAME] += 1


@inlined
def _begin(sim: Sim, arrival: float, prompt: int, answer: int, w: int, batch: int, session: int) -> bool:
    """A request arrives, at replicas advanced to the moment they see it. False where no replica could ever hold it."""
    user = max(answer, 1)
    sim.series[min(int(arrival / sim.width), len(sim.series) - 1), ARRIVED] += 1
    sim.cell[SEEN] = int(batch >= 0)
    written = max(int(np.round(user * sim.flows[w].written)), 1)
    if prompt + written > sim.kv_tokens:
        sim.cell[REFUSED] += 1
        if batch >= 0:
            sim.counts[w, batch, COUNTED] += 1
        return False
    slot = sim.cell[TOP]
    q = sim.pool[slot]
    sim.cell[TOP] = q.following
    sim.cell[FREE] -= 1
    q.arrival, q.first, q.flow, q.batch, q.session = arrival, arrival + sim.overhead_s, w, batch, session
    q.prompt, q.user, q.answer, q.done = prompt, user, written, 0
    _wait_again(sim, slot)
    _send(sim, slot, arrival + sim.overhead_s)
    return True


@compiled
def _ask(sim: Sim) -> None:
    """The session whose turn it is asks. Its first request is one it had begun before: only a random part of the answer is left, so that
    sessions do not march in step. Requests that no replica could hold are passed over."""
    back = sim.back[sim.cell[BACK]]
    at, w = back.at, back.flow
    sim.cell[BACK] = (sim.cell[BACK] + 1) % len(sim.back)
    sim.cell[AWAY] -= 1
    span = sim.counted_s[1] - sim.counted_s[0]
    batch, many = ABSENT, len(sim.drawn[w])
    if sim.counted_s[0] <= at < sim.counted_s[1]:
        batch = min(int((at - sim.counted_s[0]) / span * sim.counts.shape[1]), sim.counts.shape[1] - 1)
    for _ in range(many):
        i = sim.asked[w]
        sim.asked[w] += 1
        prompt, answer = sim.drawn[w, i % many, 0], sim.drawn[w, i % many, 1]
        if at == 0.0:
            answer = 1 + int(answer * (_drawn(sim.seed, i) / 2147483648.0))
        if _begin(sim, at, prompt, answer, w, batch, 1):
            sim.cell[OPEN] += int(batch >= 0)
            return


@compiled
def _sessions(sim: Sim, until: float) -> None:
    """Steps and requests of sessions in the order of time, up to ``until``."""
    cell, fleet = sim.cell, sim.fleet
    while True:
        r = 0
        for i in range(1, len(fleet)):
            if fleet[i].wake < fleet[r].wake:
                r = i
        seen = sim.back[cell[BACK]].at + sim.overhead_s if cell[AWAY] > 0 else np.inf
        if min(seen, fleet[r].wake) > until:
            return
        if seen < fleet[r].wake:
            _ask(sim)
        else:
            _complete(sim, r)
            _plan(sim, r)


@compiled
def _until(sim: Sim, now: float, times: Floats, whose: Ints, kinds: Ints) -> None:
    """What happens to replicas, the bins of time that begin, and the requests of sessions, up to ``now``."""
    closed = len(sim.back) > 0
    while True:
        change = times[sim.cell[EVENT]] if sim.cell[EVENT] < len(times) else np.inf
        frame = sim.cell[FRAME] * sim.width if sim.cell[FRAME] < len(sim.series) else np.inf
        if closed:
            _sessions(sim, min(change, frame, now))
        if min(change, frame) > now:
            return
        if change <= frame:
            sim.cell[EVENT] += 1
            _change(sim, whose[sim.cell[EVENT] - 1], kinds[sim.cell[EVENT] - 1], change)
        else:
            _frame(sim)


@compiled
def run(sim: Sim, arrival: Floats, prompt: Ints, answer: Ints, flow: Ints, batch: Ints, begin: int, times: Floats, whose: Ints, kinds: Ints) -> int:
    """Takes the requests of a block from ``begin`` on and returns how many it has taken: fewer than all where the pool has no slot left.

    ``times``, ``whose``, ``kinds`` are what happens to replicas, in order.
    """
    for i in range(begin, len(arrival)):
        if sim.cell[FREE] <= sim.cell[AWAY]:
            return i
        now = arrival[i] + sim.overhead_s  # when the engine sees it
        is_due = sim.cell[EVENT] < len(times) and times[sim.cell[EVENT]] <= now
        if is_due or len(sim.back) > 0 or (sim.cell[FRAME] < len(sim.series) and sim.cell[FRAME] * sim.width <= now):
            _until(sim, now, times, whose, kinds)
        _begin(sim, arrival[i], prompt[i], answer[i], flow[i], batch[i], 0)
    return len(arrival)


@compiled
def finish(sim: Sim, times: Floats, whose: Ints, kinds: Ints) -> None:
    """Finishes all in flight. Requests that no replica is left for never get an answer."""
    cell = sim.cell
    if len(sim.back) > 0:
        _until(sim, sim.counted_s[1], times, whose, kinds)
        while cell[OPEN] > 0:  # sessions go on, uncounted, until all that count are answered
            wake = sim.fleet["wake"].min()
            seen = sim.back[cell[BACK]].at + sim.overhead_s if cell[AWAY] > 0 else np.inf
            if min(wake, seen) == np.inf:
                break
            _sessions(sim, min(wake, seen))
        sim.cell[AWAY] = 0
        for i in range(len(sim.pool)):
            sim.pool[i].session = 0
    for e in range(cell[EVENT], len(times)):
        if cell[LIMBO] < 0 and sim.fleet["count"].max() == 0:
            break
        _change(sim, whose[e], kinds[e], times[e])
    for r in range(len(sim.fleet)):
        while sim.fleet[r].wake < np.inf:
            _advance(sim, r, sim.fleet[r].wake)
    slot = cell[LIMBO]
    while slot >= 0:
        q = sim.pool[slot]
        if q.batch >= 0:
            sim.counts[q.flow, q.batch, COUNTED] += 1
        cell[REFUSED] += 1
        slot = q.following


def cells(sim: Any) -> dict[str, int]:
    """The counts among the cells, by name."""
    return {"preempted": int(sim.cell[PREEMPTED]), "restarted": int(sim.cell[RESTARTED]), "refused": int(sim.cell[REFUSED])}
