"""The memory that the compiled core works on: records of requests, replicas, workloads and sessions, and the state that knows where they lie."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Records = NDArray[np.void]

ROUTERS = ("random", "round_robin", "least_loaded")
METRICS = ("ttft", "tpot", "e2e", "itl")
UP, KILL, DRAIN = 0, 1, 2  # a replica is ready, gone with all it held, or takes no more
LOWEST_S, BINS_PER_E, BINS = 1e-5, 200.0, 5200  # latencies from 10 us in bins of 0.5 %; the last holds all above 1.9e6 s
ABSENT = -1
ALL, COUNTED, VERDICTS = 3, 4, 5  # beside TTFT, TPOT and E2E in ``counts``
PROMPT_TOKENS, ANSWER_TOKENS, GOOD_TOKENS, TTFT_S, TPOT_S, E2E_S, SEVERAL, SUMS = range(8)  # in ``sums``
ARRIVED, FINISHED, GOOD, WRITTEN, RUNNING, WAITING, KV, BUSY, SERIES = range(9)  # in ``series``; BUSY: seconds of all replicas so far
LATE, LATE_S, LATEST_S, LAST_S, ANSWERED, WAITED = range(6)  # in ``waited``: late requests, by how long in all and at most, the last finish, finished

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
# the share of them written before the answer begins, limits in seconds, infinite where there are none, and for requests that wait for spare capacity
# the time of day (s) by which they must be done: below 0 for all others.
FLOW = np.dtype([(n, "f8") for n in ("prompt_s", "computed", "written", "reasoning", "ttft", "tpot", "e2e", "deadline")])
# A session between an answer and its next request: when it asks, and the workload it belongs to.
RETURN = np.dtype([("at", "f8"), ("flow", "i8")])

ARRAYS = ("pool", "fleet", "due", "slot", "flows", "step_s", "histogram", "counts", "sums", "series", "back", "drawn", "asked", "waited")
BLOCK = ("arrival", "prompt", "answer", "flow", "batch")
EVENTS = ("times", "whose", "kinds")  # what happens to replicas, in order
# The state: addresses of arrays, of the block that is fed and of what happens to replicas; how many there are of what; settings; and where things stand.
# ``whole_s`` < 0: prompts are cut into chunks; else what a prompt's own step adds to its tokens; ``overhead_s``: once per request, before the engine
# sees it; ``width``: seconds of a bin of time; requests of sessions that ask between ``counted_from`` and ``counted_to`` are counted; ``top``: first
# free slot of ``free``; ``limbo``: requests for which no replica is ready; ``seen``: whether gaps between tokens are counted; ``open``: counted
# requests of sessions in the system; ``first_back``: where the ring of sessions begins, of which ``away`` are about to ask, in the order of time;
# ``later``: first of the requests that wait for spare capacity, which go to replicas with nothing else to admit and fewer than ``spare``
# sequences; ``waits``: whether there are any.
STATE = np.dtype(
    [(n, "i8") for n in (*ARRAYS, *BLOCK, *EVENTS, "replicas", "seqs", "bins", "batches", "sessions", "lengths", "events", "requests", "slots")]
    + [(n, "f8") for n in ("whole_s", "overhead_s", "width", "counted_from", "counted_to")]
    + [(n, "i8") for n in ("batched_tokens", "kv_tokens", "router", "seed", "top", "free", "order", "turn", "limbo", "limbo_last", "seen", "event", "frame")]
    + [(n, "i8") for n in ("live", "first_back", "away", "open", "restarted", "preempted", "refused", "later", "later_last", "spare", "waits")]
)


class Sim(NamedTuple):
    """The arrays behind the state. W workloads, R replicas, B batches of requests by arrival, T bins of time."""

    state: Records  # [1] STATE
    pool: Records  # REQUEST, by slot
    fleet: Records  # [R] REPLICA
    due: Ints  # [R, max_num_seqs] heaps of the decode steps at which answers end
    slot: Ints  # [R, max_num_seqs] whose
    flows: Records  # [W] FLOW
    step_s: Floats  # seconds of a decode step by sequences, 0 to max_num_seqs
    histogram: Ints  # [W, metric, BINS]; ITL, all workloads as one at [0], counts tokens
    counts: Ints  # [W, B, 5] requests inside each limit, inside all, and all there are
    sums: Floats  # [W, 7]
    series: Floats  # [T, 8]
    back: Records  # [S] RETURN: a ring
    drawn: Ints  # [W, L, 2] prompt and answer tokens that sessions ask for, used in turn
    asked: Ints  # [W] requests of sessions so far
    waited: Floats  # [W, 5] of requests that wait for spare capacity

    @property
    def width(self) -> float:
        """Seconds of a bin of time."""
        return float(self.state["width"][0])

    @property
    def happened(self) -> dict[str, int]:
        """Requests that were ``preempted``, ``restarted`` and ``refused``."""
        return {name: int(self.state[name][0]) for name in ("preempted", "restarted", "refused")}
