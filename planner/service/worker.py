"""A process that answers questions one after another: it may be slow, grow or die without the server doing so.

Processes, not threads: the solver and Python's own work take turns in one process, and only a process can be ended.
"""

from __future__ import annotations

import signal
import sys
from multiprocessing import get_context
from multiprocessing.connection import Connection

from planner.service.answer import FAILED, LATE, Reply, Terms, answered, failed

MOST_ANSWERS = 500  # of one process; a new one has no memory of them
MOST_MIB = 1024  # of memory at its peak, after which a process answers no more
START_S = 60.0  # longest that a process may take to read its catalogue
GRACE_S = 15.0  # beyond the time allowed for an answer, until its process is ended
READY = b"ready"


class Worker:
    """One process and the way to it; asked by one at a time. A process that ends or does not answer is replaced."""

    def __init__(self, terms: Terms) -> None:
        self.terms, self._is_over = terms, False
        self._begin()

    def _begin(self) -> None:
        """Starts a process; it reads its catalogue while nobody waits."""
        context = get_context("spawn")
        self._connection, inner = context.Pipe()
        self._process = context.Process(target=_work, args=(inner, self.terms), daemon=True)
        self._process.start()
        inner.close()
        self._answers, self._is_ready = 0, False

    def ask(self, body: bytes) -> Reply:
        """The answer to one question; a process that fails it is replaced."""
        try:
            if not self._is_ready and not (self._connection.poll(START_S) and self._connection.recv_bytes() == READY):
                return self._again(failed(FAILED, "the solver does not start"))
            self._is_ready = True
            self._connection.send_bytes(body)
            if not self._connection.poll(self.terms.seconds + GRACE_S):
                return self._again(failed(LATE, "no plan within the time limit of the server"))
            status, text, mib = self._connection.recv()
        except (EOFError, OSError):
            return self._again(failed(FAILED, "the process of the solver ended; the question may need more memory than there is"))
        self._answers += 1
        reply = Reply(status, text)
        return self._again(reply) if self._answers >= MOST_ANSWERS or mib > MOST_MIB else reply

    def end(self) -> None:
        """Ends the process, whatever it does, and starts none again."""
        self._is_over = True
        self._process.kill()

    def _again(self, reply: Reply) -> Reply:
        """The reply, after which another process answers."""
        if not self._is_over:
            self._connection.close()
            self._process.kill()
            self._process.join()
            self._process.close()
            self._begin()
        return reply


def _work(connection: Connection, terms: Terms) -> None:
    """Answers until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's, which ends this process
    from planner.catalog.load import load_catalog

    catalog = load_catalog(terms.folders)
    try:
        connection.send_bytes(READY)
        while True:
            reply = answered(connection.recv_bytes(), catalog, terms)
            connection.send((reply.status, reply.text, _peak_mib()))
    except (EOFError, OSError):  # the server is gone
        return


def _peak_mib() -> float:
    """Memory of this process at its peak."""
    if sys.platform == "win32":
        return 0.0  # not told there; MOST_ANSWERS bounds it
    import resource

    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
