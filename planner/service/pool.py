"""Who is answered when: a few processes, a queue of bounded length before them, and so many questions a minute from one address."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from math import ceil
from time import monotonic

from planner.service.answer import Reply, Terms, failed
from planner.service.worker import Worker

MOST_ADDRESSES = 10_000  # whose questions are counted
GONE = 499  # nobody reads this reply


class Busy(Exception):
    """More questions wait than may; ``retry_s``: in about how many seconds fewer will."""

    def __init__(self, retry_s: int) -> None:
        self.retry_s = retry_s
        super().__init__(str(retry_s))


class Pool:
    """Processes that answer, and the questions that wait for one."""

    def __init__(self, terms: Terms, workers: int, most_waiting: int) -> None:
        self.workers, self.most_waiting, self.waiting = workers, most_waiting, 0
        self._threads = ThreadPoolExecutor(workers)  # each waits for one process
        self._all = [Worker(terms) for _ in range(workers)]
        self._free: asyncio.Queue[Worker] = asyncio.Queue()
        for worker in self._all:
            self._free.put_nowait(worker)

    async def answer(self, body: bytes, is_gone: Callable[[], Awaitable[bool]]) -> Reply:
        """The answer, once a process is free; none is sought for who is gone by then. Raises Busy when too many wait."""
        if self._free.empty() and self.waiting >= self.most_waiting:
            raise Busy(max(1, ceil(self.waiting / self.workers)))
        self.waiting += 1
        try:
            worker = await self._free.get()
        finally:
            self.waiting -= 1
        return await asyncio.shield(asyncio.create_task(self._held(worker, body, is_gone)))  # a worker is free only when it has answered

    async def _held(self, worker: Worker, body: bytes, is_gone: Callable[[], Awaitable[bool]]) -> Reply:
        try:
            if await is_gone():
                return failed(GONE, "nobody waits for the answer")
            return await asyncio.get_running_loop().run_in_executor(self._threads, worker.ask, body)
        finally:
            self._free.put_nowait(worker)

    def end(self) -> None:
        """Ends all processes."""
        for worker in self._all:
            worker.end()
        self._threads.shutdown(wait=False, cancel_futures=True)


class Rates:
    """Questions of each address in the last minute, as a bucket that fills steadily."""

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._seen: OrderedDict[str, tuple[float, float]] = OrderedDict()  # address -> (questions it may ask, when that was)

    def wait_s(self, address: str) -> int:
        """Counts a question: 0, or the seconds until this address may ask again."""
        now = monotonic()
        left, then = self._seen.pop(address, (float(self.per_minute), now))
        left = min(float(self.per_minute), left + (now - then) * self.per_minute / 60)
        may = left >= 1
        self._seen[address] = (left - 1 if may else left, now)
        while len(self._seen) > MOST_ADDRESSES:
            self._seen.popitem(last=False)
        return 0 if may else ceil((1 - left) * 60 / self.per_minute)
