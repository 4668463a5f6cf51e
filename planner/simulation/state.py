"""The arrays that the compiled core works on: made, fed with blocks of requests, and enlarged where more are in flight than expected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from planner.simulation import engine as core
from planner.simulation.engine import Floats, Ints, Records, Sim
from planner.simulation.stream import Block

BATCHES = 20  # of equally many requests, for confidence intervals
FRAMES = 240  # bins of time
FIRST_SLOTS = 1024
KINDS = {"up": core.UP, "kill": core.KILL, "drain": core.DRAIN}


@dataclass(frozen=True)
class Flow:
    """A workload on one engine: seconds per computed prompt token, the share that is computed, tokens written per answer token, the share of them
    before the answer begins, and its limits (s)."""

    prompt_s: float
    computed: float = 1.0
    written: float = 1.0
    reasoning: float = 0.0
    ttft: float = np.inf
    tpot: float = np.inf
    e2e: float = np.inf


@dataclass(frozen=True)
class Engine:
    """One replica. step_s: a decode step by sequences, from none to max_num_seqs [N + 1]; whole_s: of a prompt's own step where it is not cut into chunks."""

    step_s: Floats
    flows: tuple[Flow, ...]
    kv_tokens: int
    batched_tokens: int = 8192
    overhead_s: float = 0.0
    whole_s: float | None = None


@dataclass(frozen=True)
class Change:
    """At a time (s) a replica gets ready ("up"), fails ("kill") or takes no more requests ("drain")."""

    at_s: float
    replica: int
    kind: str


@dataclass(frozen=True)
class Sessions:
    """Closed loops on one deployment: how many of each workload [W], each asking again as soon as it is answered; the tokens they ask for in turn
    [W, L, 2]; requests that are asked for between two times (s) are counted."""

    many: tuple[int, ...]
    drawn: Ints
    counted_s: tuple[float, float]


NO_SESSIONS = Sessions((), np.ones((1, 1, 2), np.int64), (0.0, 0.0))


@dataclass
class Running:
    """One deployment while it is simulated. ``absent``: replicas that are not there at the start; width_s: of a bin of time."""

    engine: Engine
    replicas: int
    router: str
    seed: int
    width_s: float
    changes: Sequence[Change] = ()
    absent: Sequence[int] = ()
    sessions: Sessions = NO_SESSIONS
    sim: Sim = field(init=False)

    def __post_init__(self) -> None:
        self.sim = _made(self.engine, self.replicas, self.width_s, core.ROUTERS.index(self.router), self.seed, self.sessions)
        self.sim.fleet["alive"][list(self.absent)] = core.KILL
        self.sim.cell[core.LIVE] -= len(self.absent)
        events = sorted(self.changes, key=lambda c: c.at_s)
        self._events = (np.array([c.at_s for c in events], float), _ints([c.replica for c in events]), _ints([KINDS[c.kind] for c in events]))

    def feed(self, block: Block, batch: Ints) -> None:
        """Takes the requests of a block; ``batch`` numbers those that count, below 0 are those that do not."""
        begin = 0
        while (begin := core.run(self.sim, block.arrival_s, block.prompt, block.answer, block.workload, batch, begin, *self._events)) < len(block):
            self._enlarge()

    def finish(self) -> None:
        """Finishes all in flight; sessions go on until all of theirs that count are answered."""
        core.finish(self.sim, *self._events)

    def _enlarge(self) -> None:
        """Twice the slots; the new ones are free."""
        many = len(self.sim.pool)
        more = _pool(many)
        more["following"][:-1] += many
        more["following"][-1] = self.sim.cell[core.TOP]
        self.sim = self.sim._replace(pool=np.concatenate((self.sim.pool, more)))
        self.sim.cell[core.TOP] = many
        self.sim.cell[core.FREE] += many


def _ints(values: Sequence[int]) -> Ints:
    return np.array(values, dtype=np.int64)


def _pool(slots: int) -> Records:
    pool = np.zeros(slots, core.REQUEST)
    pool["following"] = np.append(np.arange(1, slots), core.ABSENT)
    return pool


def _made(engine: Engine, replicas: int, width_s: float, router: int, seed: int, sessions: Sessions) -> Sim:
    fleet, cell, many = np.zeros(replicas, core.REPLICA), np.zeros(16, np.int64), len(engine.flows)
    back = np.zeros(sum(sessions.many), core.RETURN)
    back["flow"] = np.random.default_rng((seed, 3)).permutation(np.repeat(np.arange(len(sessions.many)), sessions.many))
    slots = FIRST_SLOTS + len(back)
    cell[core.FREE], cell[core.AWAY] = slots, len(back)
    fleet["wake"], fleet["alive"], fleet["head"], fleet["last"] = np.inf, core.UP, core.ABSENT, core.ABSENT
    cell[core.TOP], cell[core.LIMBO], cell[core.LIMBO_LAST], cell[core.LIVE] = 0, core.ABSENT, core.ABSENT, replicas
    heap = (replicas, len(engine.step_s) - 1)
    flows = np.array([tuple(getattr(f, name) for name in core.FLOW.names or ()) for f in engine.flows], core.FLOW)
    return Sim(
        _pool(slots), fleet, np.zeros(heap, np.int64), np.zeros(heap, np.int64), cell, flows, np.ascontiguousarray(engine.step_s, float),
        np.zeros((many, len(core.METRICS), core.BINS), np.int64), np.zeros((many, BATCHES, 5), np.int64), np.zeros((many, 7)), np.zeros((FRAMES, 7)),
        back, sessions.drawn, np.zeros(many, np.int64), np.array(sessions.counted_s, float),
        -1.0 if engine.whole_s is None else float(engine.whole_s), float(engine.overhead_s), int(engine.batched_tokens), int(engine.kv_tokens),
        float(width_s), router, seed,
    )  # fmt: skip
