"""The arrays that the compiled core works on: made, fed with blocks of requests, and enlarged where more are in flight than expected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from planner.simulation import engine
from planner.simulation import records as core
from planner.simulation.records import Floats, Ints, Records, Sim
from planner.simulation.stream import RequestBlock

BATCHES = 20  # of equally many requests, for confidence intervals
FRAMES = 240  # bins of time
FIRST_SLOTS = 1024
KINDS = {"up": core.UP, "kill": core.KILL, "drain": core.DRAIN}


@dataclass(frozen=True)
class Flow:
    """A workload on one engine: seconds per computed prompt token, the share that is computed, tokens written per answer token, the share of them
    before the answer begins, its limits (s), and for requests that wait for spare capacity the time of day (s) at which they are due, else -1."""

    prompt_s: float
    computed: float = 1.0
    written: float = 1.0
    reasoning: float = 0.0
    ttft: float = np.inf
    tpot: float = np.inf
    e2e: float = np.inf
    deadline: float = -1.0


@dataclass(frozen=True)
class Engine:
    """One replica. step_s: a decode step by sequences, from none to max_num_seqs [N + 1]; whole_s: of a prompt's own step where it is not cut into chunks;
    spare: sequences up to which requests that wait for spare capacity join (None: max_num_seqs)."""

    step_s: Floats
    flows: tuple[Flow, ...]
    kv_tokens: int
    batched_tokens: int = 8192
    overhead_s: float = 0.0
    whole_s: float | None = None
    spare: int | None = None


@dataclass(frozen=True)
class FleetChange:
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
    changes: Sequence[FleetChange] = ()
    absent: Sequence[int] = ()
    sessions: Sessions = NO_SESSIONS
    sim: Sim = field(init=False)

    def __post_init__(self) -> None:
        self.sim = _made(self.engine, self.replicas, self.width_s, core.ROUTERS.index(self.router), self.seed, self.sessions)
        self.sim.fleet["alive"][list(self.absent)] = core.KILL
        self.sim.state["live"] -= len(self.absent)
        events = sorted(self.changes, key=lambda c: c.at_s)
        self._events = (np.array([c.at_s for c in events], float), _ints([c.replica for c in events]), _ints([KINDS[c.kind] for c in events]))
        self.sim.state["events"] = len(events)
        _place(self.sim.state, core.EVENTS, self._events)

    def feed(self, block: RequestBlock, batch: Ints) -> None:
        """Takes the requests of a block; ``batch`` numbers those that count, below 0 are those that do not."""
        arrival = np.ascontiguousarray(block.arrival_s, np.float64)
        arrays = (arrival, *(np.ascontiguousarray(a, np.int64) for a in (block.prompt, block.answer, block.workload, batch)))
        _place(self.sim.state, core.BLOCK, arrays)
        self.sim.state["requests"] = len(block)
        begin = 0
        while (begin := engine.run(self.sim.state.ctypes.data, begin)) < len(block):
            self._enlarge()

    def finish(self) -> None:
        """Finishes all in flight; sessions go on until all of theirs that count are answered."""
        engine.run(self.sim.state.ctypes.data, -1)

    def _enlarge(self) -> None:
        """Twice the slots; the new ones are free."""
        many, state = len(self.sim.pool), self.sim.state
        more = _pool(many)
        more["following"][:-1] += many
        more["following"][-1] = state["top"][0]
        self.sim = self.sim._replace(pool=np.concatenate((self.sim.pool, more)))
        _place(state, ("pool",), (self.sim.pool,))
        state["top"] = many
        state["free"] += many
        state["slots"] += many


def _place(state: Records, names: Sequence[str], arrays: Sequence[NDArray[np.generic]]) -> None:
    """Tells the state where arrays lie, which must live as long as they are worked on."""
    for name, array in zip(names, arrays, strict=True):
        state[name] = array.ctypes.data


def _ints(values: Sequence[int]) -> Ints:
    return np.array(values, dtype=np.int64)


def _pool(slots: int) -> Records:
    pool = np.zeros(slots, core.REQUEST)
    pool["following"] = np.append(np.arange(1, slots), core.ABSENT)
    return pool


def _made(engine: Engine, replicas: int, width_s: float, router: int, seed: int, sessions: Sessions) -> Sim:
    fleet, state, many, seqs = np.zeros(replicas, core.REPLICA), np.zeros(1, core.STATE), len(engine.flows), len(engine.step_s) - 1
    back = np.zeros(sum(sessions.many), core.RETURN)
    back["flow"] = np.random.default_rng((seed, 3)).permutation(np.repeat(np.arange(len(sessions.many)), sessions.many))
    slots = FIRST_SLOTS + len(back)
    fleet["wake"], fleet["alive"], fleet["head"], fleet["last"] = np.inf, core.UP, core.ABSENT, core.ABSENT
    flows = np.array([tuple(getattr(f, name) for name in core.FLOW.names or ()) for f in engine.flows], core.FLOW)
    sim = Sim(
        state, _pool(slots), fleet, np.zeros((replicas, seqs), np.int64), np.zeros((replicas, seqs), np.int64), flows,
        np.ascontiguousarray(engine.step_s, float), np.zeros((many, len(core.METRICS), core.BINS), np.int64),
        np.zeros((many, BATCHES, core.VERDICTS), np.int64), np.zeros((many, core.SUMS)), np.zeros((FRAMES, core.SERIES)), back,
        np.ascontiguousarray(sessions.drawn, np.int64), np.zeros(many, np.int64), np.zeros((many, core.WAITED)),
    )  # fmt: skip
    sim.waited[:, core.LATEST_S] = -np.inf
    _place(state, core.ARRAYS, [getattr(sim, name) for name in core.ARRAYS])
    for name, value in {
        "replicas": replicas, "seqs": seqs, "bins": FRAMES, "batches": BATCHES, "sessions": len(back), "lengths": sim.drawn.shape[1], "slots": slots,
        "whole_s": -1.0 if engine.whole_s is None else engine.whole_s, "overhead_s": engine.overhead_s, "width": width_s,
        "counted_from": sessions.counted_s[0], "counted_to": sessions.counted_s[1], "batched_tokens": engine.batched_tokens,
        "kv_tokens": engine.kv_tokens, "router": router, "seed": seed, "free": slots, "limbo": core.ABSENT, "limbo_last": core.ABSENT,
        "live": replicas, "away": len(back), "later": core.ABSENT, "later_last": core.ABSENT,
        "waits": int(any(f.deadline >= 0 for f in engine.flows)), "spare": seqs if engine.spare is None else engine.spare,
    }.items():  # fmt: skip
        state[name] = value
    return sim
