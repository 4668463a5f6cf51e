"""Replicas simulated one step at a time, in plain Python: what the compiled simulator must agree with, request by request.

Shares no code with it. Lists and a clock instead of heaps, links and jumps: slow, and meant to be read.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Request:
    """arrival, first and finish in seconds; left: prompt tokens to compute yet; written: tokens so far."""

    arrival: float
    prompt: int
    answer: int
    first: float = -1.0
    finish: float = -1.0
    left: float = 0.0
    written: int = 0
    begun: bool = False
    joined: int = 0


@dataclass
class Replica:
    """waiting and running requests; until: end of the step under way, infinite when idle."""

    waiting: list[Request] = field(default_factory=list)
    running: list[Request] = field(default_factory=list)
    decoding: list[Request] = field(default_factory=list)
    ready: list[Request] = field(default_factory=list)
    until: float = np.inf
    kv: int = 0


@dataclass
class Rules:
    """step: seconds of a decode step by sequences; token: per computed prompt token; whole: of a prompt's own step, None where prompts are cut."""

    step: np.ndarray
    token: float
    budget: int
    kv: int
    computed: float = 1.0
    whole: float | None = None
    overhead: float = 0.0


def simulate(requests: list[Request], replicas: int, rules: Rules) -> tuple[list[Request], int]:
    """All requests through replicas behind a least-loaded router; also how often one was preempted."""
    fleet, preempted = [Replica() for _ in range(replicas)], 0
    for number, request in enumerate(requests):
        seen = request.arrival + rules.overhead
        preempted += _run(fleet, rules, seen)
        order = [(number + 1 + i) % replicas for i in range(replicas)]  # ties go round
        chosen = fleet[min(order, key=lambda r: len(fleet[r].waiting) + len(fleet[r].running))]
        request.left = request.prompt * rules.computed
        chosen.waiting.append(request)
        if chosen.until == np.inf:
            preempted += _begin(chosen, rules, seen)
    return requests, preempted + _run(fleet, rules, np.inf)


def _run(fleet: list[Replica], rules: Rules, now: float) -> int:
    """Every step that ends by ``now``."""
    preempted = 0
    for replica in fleet:
        while replica.until <= now and replica.until < np.inf:
            end = replica.until
            _end(replica, end)
            preempted += _begin(replica, rules, end)
    return preempted


def _end(replica: Replica, now: float) -> None:
    for request in replica.decoding:
        request.written += 1
        replica.kv += 1
    for request in [q for q in replica.decoding if q.written >= q.answer]:
        request.finish = now
        replica.running.remove(request)
        replica.kv -= request.prompt + request.answer - 1
    for request in replica.ready:
        replica.waiting.remove(request)
        if request.written == 0:
            request.first = now
        request.written += 1
        replica.running.append(request)
        if request.written >= request.answer:
            request.finish = now
            replica.running.remove(request)
            replica.kv -= request.prompt + request.written - 1
    replica.decoding, replica.ready = [], []


def _begin(replica: Replica, rules: Rules, now: float) -> int:
    preempted = 0
    while replica.running and replica.kv + len(replica.running) > rules.kv:
        preempted += 1
        partial = replica.waiting and replica.waiting[0].begun
        victim = replica.waiting[0] if partial else max(replica.running, key=lambda q: q.joined)
        replica.kv -= victim.prompt + victim.written - (0 if partial else 1)
        victim.left, victim.begun = victim.prompt * rules.computed + victim.written, False
        if not partial:
            replica.running.remove(victim)
            replica.waiting.insert(0, victim)
    decoding, ready, work = list(replica.running), [], 0.0
    room = float(rules.budget - len(decoding))
    for request in list(replica.waiting):
        if room <= 0 or not _admitted(replica, rules, request, len(ready)):
            break
        part = request.left if rules.whole is not None else min(request.left, room)
        request.left -= part
        room -= part
        work += part * rules.token
        if request.left > 1e-9:
            break
        ready.append(request)
        if rules.whole is not None:
            work += rules.whole
            decoding = []
            break
    replica.decoding, replica.ready = decoding, ready
    if rules.whole is not None and ready:
        replica.until = now + work
    elif decoding or ready or work:
        replica.until = now + rules.step[len(decoding)] + work
    else:
        replica.until = np.inf
    return preempted


ORDER = [0]


def _admitted(replica: Replica, rules: Rules, request: Request, begun: int) -> bool:
    if request.begun:
        return True
    needed, sequences = request.prompt + request.written, len(replica.running) + begun
    if sequences >= len(rules.step) - 1 or replica.kv + needed + sequences + 1 > rules.kv:
        return False
    replica.kv += needed
    ORDER[0] += 1
    request.begun, request.joined = True, ORDER[0]
    return True
