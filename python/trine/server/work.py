# SPDX-License-Identifier: Apache-2.0
"""Threads that models run on: bounded, and watched by the request that waits for them.

Calls that meet in the core become one run, and the GIL is free meanwhile: threads are what makes
batches of single requests.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock
from typing import TYPE_CHECKING, TypeVar

from trine.server.failures import Failure
from trine.tally import Tally, tallied

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from starlette.types import Receive

    from trine.server.metrics import Metrics

R = TypeVar("R")

# More calls than this make no run larger; each thread that waits costs its stack.
_MOST_THREADS = 64


class Worker:
    """Runs calls of models on threads, at most so many at once.

    Parameters
    ----------
    most : int
        Calls that run or wait; another one is refused.
    metrics : Metrics
    """

    def __init__(self, most: int, metrics: Metrics) -> None:
        self.threads = min(most, _MOST_THREADS)
        self._pool: ThreadPoolExecutor | None = None
        self._most, self._metrics = most, metrics
        self._lock = Lock()
        self._admitted = self._running = 0
        metrics.watch(lambda: self._admitted, lambda: self._admitted - self._running)

    def submit(
        self, model: str, call: Callable[[], R], gone: Event | None = None
    ) -> Future[tuple[R, Tally]]:
        """Begin a call on a thread, and count what it costs.

        Between two runs of an encoder it ends, by `CancelledError`, if its client has `gone`.

        Raises
        ------
        Failure
            429: there are as many as there may be.
        """
        with self._lock:
            if self._admitted >= self._most:
                raise Failure(429, "the server is overloaded", headers={"Retry-After": "1"})
            self._admitted += 1
        # A call that is cancelled while it waits stays in the pool's queue: not with its inputs.
        box = [call]

        def over(_: object) -> None:
            box.clear()
            self._release()

        try:
            job = self._threads().submit(self._run, model, box, gone or Event())
        except BaseException:
            self._release()
            raise
        job.add_done_callback(over)
        return job

    async def run(
        self,
        receive: Receive,
        model: str,
        call: Callable[[], R],
        cancel: Event | None = None,
    ) -> tuple[R, Tally]:
        """Wait for a call; returns its result and what it cost.

        A client that leaves takes with it a call that hasn't begun, and by `cancel` one that can
        be stopped.
        """
        gone = Event()
        job = self.submit(model, call, gone)
        left = asyncio.ensure_future(disconnected(receive))
        done = asyncio.wrap_future(job)
        done.add_done_callback(lambda future: future.cancelled() or future.exception())
        try:
            await asyncio.wait((done, left), return_when=asyncio.FIRST_COMPLETED)
            if done.done():
                return done.result()
            raise Failure(499, "the client has gone")
        finally:
            left.cancel()
            if not done.done():
                job.cancel()
                gone.set()
                if cancel is not None:
                    cancel.set()

    def close(self) -> None:
        """Wait for what runs. Another call starts the threads again."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)

    def _threads(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="trine-serve")
            return self._pool

    def _run(self, model: str, box: list[Callable[[], R]], gone: Event) -> tuple[R, Tally]:
        with self._lock:
            self._running += 1
        try:
            call = box.pop()
            with tallied(gone) as tally:
                try:
                    return call(), tally
                finally:
                    self._metrics.worked(model, tally)
        finally:
            with self._lock:
                self._running -= 1

    def _release(self) -> None:
        with self._lock:
            self._admitted -= 1


async def disconnected(receive: Receive) -> None:
    """Return when the client has gone; for after the body has been read."""
    while (await receive())["type"] != "http.disconnect":
        pass
