"""Requests as they arrive: Poisson streams drawn in blocks, and traces; both with the workload each request belongs to.

A stream of one seed is the same each time, and holds no more in memory than a block (a trace: itself).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from planner.catalog.files import is_file
from planner.errors import PlannerError
from planner.performance.lengths import Cut

BLOCK = 1 << 16
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Lengths = Callable[[np.random.Generator, int], tuple[Ints, Ints]]  # draws prompt and answer tokens of so many requests


@dataclass(frozen=True)
class RequestBlock:
    """Requests in the order of arrival (s since the start); tokens, and the index of the workload. dropped: rows of their file left out, by reason."""

    arrival_s: Floats
    prompt: Ints
    answer: Ints
    workload: Ints
    dropped: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.arrival_s)

    def take(self, rows: NDArray[np.bool_]) -> RequestBlock:
        """Some of the requests."""
        return RequestBlock(self.arrival_s[rows], self.prompt[rows], self.answer[rows], self.workload[rows])

    def in_own_tokens(self, tokens: Sequence[float]) -> RequestBlock:
        """With prompts in the tokens of a model that makes so many per token of each workload [W]; answers stay as stated, and are counted so."""
        if all(t == 1 for t in tokens):
            return self
        return replace(self, prompt=in_own_tokens(self.prompt, np.array(tokens)[self.workload]))


def in_own_tokens(prompts: Ints, tokens: Floats) -> Ints:
    """Prompts in a model's own tokens, of which it makes so many per token."""
    return np.maximum(np.rint(prompts * tokens), 1).astype(np.int64)


class Stream(Protocol):
    """A finite stream: how many requests, until about when, and the requests in blocks."""

    @property
    def count(self) -> int: ...

    @property
    def seconds(self) -> float: ...

    def blocks(self) -> Iterator[RequestBlock]: ...


@dataclass(frozen=True)
class Poisson:
    """Independent requests at constant rates (per s, by workload)."""

    rates: Sequence[float]
    lengths: Sequence[Lengths]
    count: int
    seed: int = 0

    @property
    def seconds(self) -> float:
        """Expected time of the last arrival."""
        return self.count / sum(self.rates)

    def blocks(self) -> Iterator[RequestBlock]:
        """The requests."""
        rng, now, total = np.random.default_rng(self.seed), 0.0, sum(self.rates)
        below = np.cumsum(np.asarray(self.rates) / total)[:-1]
        for start in range(0, self.count, BLOCK):
            many = min(BLOCK, self.count - start)
            arrival = now + np.cumsum(rng.standard_exponential(many)) / total
            now = float(arrival[-1])
            if len(self.lengths) == 1:
                yield RequestBlock(arrival, *self.lengths[0](rng, many), np.zeros(many, np.int64))
                continue
            workload = np.searchsorted(below, rng.random(many), side="right").astype(np.int64)
            prompt, answer = np.empty(many, np.int64), np.empty(many, np.int64)
            for w, lengths in enumerate(self.lengths):
                rows = workload == w
                prompt[rows], answer[rows] = lengths(rng, int(rows.sum()))
            yield RequestBlock(arrival, prompt, answer, workload)


@dataclass(frozen=True)
class Quiet:
    """No requests for so many seconds: all there are come from sessions."""

    seconds: float
    count: int = 0

    def blocks(self) -> Iterator[RequestBlock]:
        """None."""
        return iter(())


@dataclass(frozen=True)
class RecordedTrace:
    """Recorded requests, all in memory."""

    requests: RequestBlock

    @property
    def count(self) -> int:
        """Requests."""
        return len(self.requests)

    @property
    def seconds(self) -> float:
        """Time of the last arrival."""
        return float(self.requests.arrival_s[-1])

    def blocks(self) -> Iterator[RequestBlock]:
        """The requests."""
        for start in range(0, self.count, BLOCK):
            at = slice(start, start + BLOCK)
            r = self.requests
            yield RequestBlock(r.arrival_s[at], r.prompt[at], r.answer[at], r.workload[at])


def lognormal_lengths(mean_input: float, mean_output: float, input_cv: float, output_cv: float) -> Lengths:
    """Independent lognormal lengths of these means and coefficients of variation, in whole tokens, one at least."""

    def draw(rng: np.random.Generator, many: int) -> tuple[Ints, Ints]:
        return _lognormal(rng, mean_input, input_cv, many), _lognormal(rng, mean_output, output_cv, many)

    return draw


def _lognormal(rng: np.random.Generator, mean: float, cv: float, many: int) -> Ints:
    if cv == 0:
        return np.full(many, max(round(mean), 1), dtype=np.int64)
    sigma = np.sqrt(np.log1p(cv * cv))
    values = np.exp(sigma * rng.standard_normal(many, dtype=np.float32) + np.float32(np.log(mean) - sigma * sigma / 2))
    found: Ints = np.maximum(np.rint(values), 1).astype(np.int64)
    return found


def drawn_from(prompt: Floats, answer: Floats) -> Lengths:
    """Lengths of requests drawn at random from these."""

    def draw(rng: np.random.Generator, many: int) -> tuple[Ints, Ints]:
        rows = rng.integers(0, len(prompt), many)
        return np.maximum(np.rint(prompt[rows]), 1).astype(np.int64), np.maximum(np.rint(answer[rows]), 1).astype(np.int64)

    return draw


def cut_to(drawn: Lengths, cut: Cut) -> Lengths:
    """The same lengths cut to what callers can send."""

    def draw(rng: np.random.Generator, many: int) -> tuple[Ints, Ints]:
        prompt, answer = cut.apply(*(tokens.astype(float) for tokens in drawn(rng, many)))
        return np.maximum(np.floor(prompt), 1).astype(np.int64), np.maximum(np.rint(answer), 1).astype(np.int64)

    return draw


def read_trace(path: Path, workload: int = 0) -> RequestBlock:
    """A trace in any format that `plan import demand` reads, in the order of arrival from 0 s on. Raises PlannerError where no request has a time."""
    from planner.demand.formats import rows, trace_of

    if not is_file(path):
        raise PlannerError("no such file", str(path))
    parts = list(rows(trace_of(path)))
    dropped = sum((p.dropped for p in parts), Counter[str]())
    arrival = np.concatenate([p.arrival_s for p in parts]) if parts else np.zeros(0)
    if not len(arrival) or np.isnan(arrival).any():
        why = "no request has an arrival time" if len(arrival) else "; ".join(f"{n:,} rows: {reason}" for reason, n in dropped.most_common())
        raise PlannerError(f"no request can be simulated ({why or 'there are no rows'})", str(path))
    order = np.argsort(arrival, kind="stable")
    prompt, answer = (np.concatenate([getattr(p, name) for p in parts])[order] for name in ("inputs", "outputs"))
    return RequestBlock(arrival[order] - arrival[order[0]], prompt, answer, np.full(len(order), workload, dtype=np.int64), dict(dropped))


def superposed(requests: RequestBlock, times: int, seed: int = 0) -> RequestBlock:
    """So many copies of a trace on top of each other, each but the first turned by a random time: the shape of one hour, at a multiple of its rate."""
    length = float(requests.arrival_s[-1]) * (1 + 1 / max(len(requests) - 1, 1))
    turns = np.concatenate(([0.0], np.random.default_rng(seed).uniform(0, length, times - 1)))
    return replace(merged([replace(requests, arrival_s=(requests.arrival_s + turn) % length) for turn in turns]), dropped=requests.dropped)


def merged(parts: Sequence[RequestBlock]) -> RequestBlock:
    """Several streams as one, in the order of arrival."""
    arrival = np.concatenate([p.arrival_s for p in parts])
    order = np.argsort(arrival, kind="stable")
    prompt, answer, workload = (np.concatenate([getattr(p, name) for p in parts])[order] for name in ("prompt", "answer", "workload"))
    return RequestBlock(arrival[order], prompt, answer, workload)
