"""The compiled core: replicas of one deployment behind a router, step by step; equal decode steps between events are taken at once.

Requests come in blocks and leave as counts and histograms, so memory holds only those in flight.
"""

from __future__ import annotations

import numpy as np

from planner.simulation import memory, records
from planner.simulation import replica as replicas
from planner.simulation.memory import Sim, floats, flow_of, ints, kept, part, replica, request, session, state
from planner.simulation.records import ABSENT, ARRIVED, BUSY, COUNTED, KILL, KV, RUNNING, SERIES, UP, VERDICTS, WAITING
from planner.simulation.replica import advance, complete, enqueue, has_room, look_up, plan, put_off, wait_again


@part
def _drawn(seed: int, index: int) -> np.int64:
    """A random number below 2^31 for each index (SplitMix64)."""
    z = np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(index + 1) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.int64((z ^ (z >> np.uint64(31))) >> np.uint64(33))


@part
def _route(sim: Sim, now: float) -> int:
    """The replica for a request, advanced to ``now``; absent where none is ready."""
    many = sim.replicas
    if sim.live == 0:
        return ABSENT
    sim.turn += 1
    found: int = sim.turn % many
    if sim.router == 2:
        least, first = 1 << 62, found
        for i in range(many):
            r = first + i if first + i < many else first + i - many
            f = replica(sim.fleet, r)
            if f.wake <= now:
                advance(sim, r, now)
            load = f.waiting + f.running
            if load < least and f.alive == UP:
                least, found = load, r
        return found
    if sim.router == 0:
        wanted = _drawn(sim.seed, sim.turn) % sim.live
        found = 0
        while wanted > 0 or replica(sim.fleet, found).alive != UP:
            wanted -= int(replica(sim.fleet, found).alive == UP)
            found += 1
    else:
        while replica(sim.fleet, found).alive != UP:
            found = (found + 1) % many
    advance(sim, found, now)
    return found


@part
def _ordered(sim: Sim, now: float) -> None:
    """Ends all groups that end by ``now`` in the order of time: replicas take from one queue of requests that wait for spare capacity."""
    while sim.later >= 0:
        r = _soonest(sim)
        if replica(sim.fleet, r).wake > now or replica(sim.fleet, r).wake == np.inf:
            return
        complete(sim, r)
        plan(sim, r)


@part
def _offer(sim: Sim, now: float) -> None:
    """The replica with fewest requests of those with room for one more looks at what waits for spare capacity."""
    found, least = ABSENT, 1 << 62
    for r in range(sim.replicas):
        advance(sim, r, now)
        f = replica(sim.fleet, r)
        if sim.later >= 0 and f.head < 0 and f.running < least and has_room(sim, r, 0):
            found, least = r, f.running
    if found >= 0:
        look_up(sim, found, now)


@part
def _send(sim: Sim, slot: int, now: float) -> None:
    """Routes a request; where no replica is ready it waits for one. One that waits for spare capacity is offered to the replica that has most."""
    if sim.waits > 0 and flow_of(sim.flows, request(sim.pool, slot).flow).deadline >= 0.0:
        put_off(sim, slot, False)
        _offer(sim, now)
        return
    r = _route(sim, now)
    if r >= 0:
        enqueue(sim, r, slot, now)
        return
    request(sim.pool, slot).following = ABSENT
    if sim.limbo < 0:
        sim.limbo = slot
    else:
        request(sim.pool, sim.limbo_last).following = slot
    sim.limbo_last = slot


@part
def _change(sim: Sim, r: int, kind: int, now: float) -> None:
    """A replica gets ready, goes, or takes no more. What a gone one held starts over elsewhere, what waits for one is sent to it."""
    _ordered(sim, now)
    for i in range(sim.replicas):
        advance(sim, i, now)
    f, slots, slot = replica(sim.fleet, r), ints(sim.slot + 8 * r * sim.seqs), ABSENT
    sim.live += int(kind == UP) - int(f.alive == UP)
    f.alive = kind
    if kind == KILL:
        slot = f.head
        for i in range(f.running - 1, -1, -1):
            request(sim.pool, slots[i]).following = slot
            slot = slots[i]
        f.running, f.waiting, f.kv, f.count, f.ready, f.decodes = 0, 0, 0, 0, 0, 0
        f.head, f.last, f.wake, f.stall = ABSENT, ABSENT, np.inf, 0.0
    elif kind == UP:
        slot = sim.limbo
        sim.limbo = ABSENT
    while slot >= 0:
        after = request(sim.pool, slot).following
        if kind == KILL:
            request(sim.pool, slot).done = 0
            wait_again(sim, slot)
            sim.restarted += 1
        _send(sim, slot, now)
        slot = after
    if kind == UP and sim.later >= 0:
        _offer(sim, now)


@part
def _frame(sim: Sim) -> None:
    """Notes the state of all replicas at the start of the next bin of time."""
    series, now = floats(sim.series + 8 * SERIES * sim.frame), sim.frame * sim.width
    _ordered(sim, now)
    for r in range(sim.replicas):
        advance(sim, r, now)
        f = replica(sim.fleet, r)
        series[RUNNING] += f.running
        series[WAITING] += f.waiting
        series[BUSY] += f.busy + (now - f.start if f.count > 0 else 0.0)
        series[KV] += f.kv / sim.kv_tokens / sim.replicas
    slot = sim.limbo
    while slot >= 0:
        series[WAITING] += 1
        slot = request(sim.pool, slot).following
    slot = sim.later
    while slot >= 0:
        series[WAITING] += 1
        slot = request(sim.pool, slot).following
    sim.frame += 1


@part
def _begin(sim: Sim, arrival: float, prompt: int, answer: int, w: int, batch: int, of_session: int) -> bool:
    """A request arrives, at replicas advanced to the moment they see it. False where no replica could ever hold it."""
    user = max(answer, 1)
    if sim.waits == 0 or flow_of(sim.flows, w).deadline < 0.0:
        floats(sim.series)[min(int(arrival / sim.width), sim.bins - 1) * SERIES + ARRIVED] += 1
        sim.seen = int(batch >= 0)
    else:
        batch = ABSENT
    written = max(int(np.rint(user * flow_of(sim.flows, w).written)), 1)
    if prompt + written > sim.kv_tokens:
        sim.refused += 1
        if batch >= 0:
            ints(sim.counts)[VERDICTS * (w * sim.batches + batch) + COUNTED] += 1
        return False
    slot = sim.top
    q = request(sim.pool, slot)
    sim.top = q.following
    sim.free -= 1
    q.arrival, q.first, q.flow, q.batch, q.session = arrival, arrival + sim.overhead_s, w, batch, of_session
    q.prompt, q.user, q.answer, q.done = prompt, user, written, 0
    wait_again(sim, slot)
    _send(sim, slot, arrival + sim.overhead_s)
    return True


@part
def _ask(sim: Sim) -> None:
    """The session whose turn it is asks. Its first request is one it had begun before: only a random part of the answer is left, so that
    sessions do not march in step. Requests that no replica could hold are passed over."""
    one = session(sim.back, sim.first_back)
    at, w, asked, batch = one.at, one.flow, ints(sim.asked), ABSENT
    sim.first_back = (sim.first_back + 1) % sim.sessions
    sim.away -= 1
    if sim.counted_from <= at < sim.counted_to:
        batch = min(int((at - sim.counted_from) / (sim.counted_to - sim.counted_from) * sim.batches), sim.batches - 1)
    for _ in range(sim.lengths):
        i = asked[w]
        asked[w] += 1
        tokens = ints(sim.drawn + 16 * (w * sim.lengths + i % sim.lengths))
        answer = tokens[1]
        if at == 0.0:
            answer = 1 + int(answer * (_drawn(sim.seed, i) / 2147483648.0))
        if _begin(sim, at, tokens[0], answer, w, batch, 1):
            sim.open += int(batch >= 0)
            return


@part
def _soonest(sim: Sim) -> int:
    """The replica whose group ends first."""
    found = 0
    for r in range(1, sim.replicas):
        if replica(sim.fleet, r).wake < replica(sim.fleet, found).wake:
            found = r
    return found


@part
def _asks_at(sim: Sim) -> float:
    """When the next session's request is seen by the engine."""
    return session(sim.back, sim.first_back).at + sim.overhead_s if sim.away > 0 else np.inf


@part
def _sessions(sim: Sim, until: float) -> None:
    """Steps and requests of sessions in the order of time, up to ``until``."""
    while True:
        r, seen = _soonest(sim), _asks_at(sim)
        wake = replica(sim.fleet, r).wake
        if min(seen, wake) > until:
            return
        if seen < wake:
            _ask(sim)
        else:
            complete(sim, r)
            plan(sim, r)


@part
def _until(sim: Sim, now: float) -> None:
    """What happens to replicas, the bins of time that begin, and the requests of sessions, up to ``now``."""
    while True:
        change = floats(sim.times)[sim.event] if sim.event < sim.events else np.inf
        frame = sim.frame * sim.width if sim.frame < sim.bins else np.inf
        if sim.sessions > 0:
            _sessions(sim, min(change, frame, now))
        if min(change, frame) > now:
            return
        if change <= frame:
            sim.event += 1
            _change(sim, ints(sim.whose)[sim.event - 1], ints(sim.kinds)[sim.event - 1], change)
        else:
            _frame(sim)


@part
def _end(sim: Sim) -> None:
    """Finishes all in flight. Requests that no replica is left for never get an answer."""
    if sim.sessions > 0:
        _until(sim, sim.counted_to)
        while sim.open > 0:  # sessions go on, uncounted, until all that count are answered
            then = min(replica(sim.fleet, _soonest(sim)).wake, _asks_at(sim))
            if then == np.inf:
                break
            _sessions(sim, then)
        sim.away = 0
        for i in range(sim.slots):
            request(sim.pool, i).session = 0
    if sim.waits > 0:
        _until(sim, sim.bins * sim.width)
    for e in range(sim.event, sim.events):
        if sim.limbo < 0 and sim.later < 0 and replica(sim.fleet, _soonest(sim)).wake == np.inf:
            break
        _change(sim, ints(sim.whose)[e], ints(sim.kinds)[e], floats(sim.times)[e])
    _ordered(sim, np.inf)
    for r in range(sim.replicas):
        while replica(sim.fleet, r).wake < np.inf:
            advance(sim, r, replica(sim.fleet, r).wake)
    slot = sim.limbo
    while slot >= 0:
        q = request(sim.pool, slot)
        if q.batch >= 0:
            ints(sim.counts)[VERDICTS * (q.flow * sim.batches + q.batch) + COUNTED] += 1
        sim.refused += 1
        slot = q.following
    slot = sim.later
    while slot >= 0:
        sim.refused += 1
        slot = request(sim.pool, slot).following


@kept(*(str(m.__file__) for m in (memory, records, replicas)), __file__)
def run(address: int, begin: int) -> int:
    """Takes the requests of the state's block from ``begin`` on and returns how many it has taken: fewer than all where the pool has no slot left.

    Below 0: there are no more blocks, and all in flight is finished.
    """
    sim = state(address, 0)
    if begin < 0:
        _end(sim)
        return 0
    arrival, prompt, answer, flow, batch = floats(sim.arrival), ints(sim.prompt), ints(sim.answer), ints(sim.flow), ints(sim.batch)
    for i in range(begin, sim.requests):
        if sim.free <= sim.away:
            return i
        now = arrival[i] + sim.overhead_s  # when the engine sees it
        is_due = sim.event < sim.events and floats(sim.times)[sim.event] <= now
        if is_due or sim.sessions > 0 or (sim.frame < sim.bins and sim.frame * sim.width <= now):
            _until(sim, now)
        if sim.later >= 0:
            _ordered(sim, now)
        _begin(sim, arrival[i], prompt[i], answer[i], flow[i], batch[i], 0)
    seen: int = sim.requests
    return seen
