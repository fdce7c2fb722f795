# SPDX-License-Identifier: Apache-2.0
"""Server-sent events whose pieces a thread makes."""

from __future__ import annotations

import asyncio
from threading import Event, Semaphore
from typing import TYPE_CHECKING

from starlette.responses import Response

from trine._core import Error
from trine.server.failures import Failure, body, understand
from trine.server.gate import FAILED, LEFT, log_failure
from trine.server.replies import to_json
from trine.server.work import disconnected

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Receive, Scope, Send

    from trine.server.work import Worker

_MOST_PIECES = 256  # that wait for a client
_PATIENCE = 60.0  # seconds


class EventStream(Response):
    """An answer in pieces, which ends early if its client goes.

    Nothing is sent before the first piece is there: what fails until then is answered as an error.
    """

    media_type = "text/event-stream"

    def __init__(self) -> None:
        super().__init__(
            headers={"cache-control": "no-cache", "x-accel-buffering": "no"},
        )
        del self.headers["content-length"]
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._first: bytes | None = b""
        self._error: BaseException | None = None
        self._room = Semaphore(_MOST_PIECES)
        self.cancel = Event()

    async def begin(
        self, worker: Worker, receive: Receive, model: str, call: Callable[[], None]
    ) -> None:
        """Start the call that emits, and wait for its first piece.

        Raises
        ------
        Exception
            What the call raised before there was one. Failure: 429 or 499.
        """
        job = worker.submit(model, call)
        job.add_done_callback(
            lambda done: self._end(None if done.cancelled() else done.exception())
        )
        left = asyncio.ensure_future(disconnected(receive))
        first = asyncio.ensure_future(self._pieces.get())
        try:
            await asyncio.wait((first, left), return_when=asyncio.FIRST_COMPLETED)
        finally:
            left.cancel()
            if not first.done():
                first.cancel()
                self.cancel.set()
                job.cancel()  # one that waits gives its place back
        if not first.done():
            raise Failure(499, "the client has gone")
        self._first = first.result()
        if self._first is None and self._error is not None:
            raise self._error

    def emit(self, piece: bytes) -> None:
        """Send a piece; for the thread that makes them, which waits for a client that reads slowly.

        One that reads nothing for a minute has the generation cancelled.
        """
        if not self._room.acquire(timeout=_PATIENCE):
            self.cancel.set()
            return
        self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)

    def _end(self, error: BaseException | None) -> None:
        def end() -> None:
            self._error = error
            self._pieces.put_nowait(None)

        self._loop.call_soon_threadsafe(end)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send what comes."""
        left = asyncio.ensure_future(disconnected(receive))
        try:
            start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
            await send(start)
            piece = self._first
            while piece is not None:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                self._room.release()
                pending = asyncio.ensure_future(self._pieces.get())
                await asyncio.wait((pending, left), return_when=asyncio.FIRST_COMPLETED)
                if not pending.done():
                    pending.cancel()
                    scope[LEFT] = True
                    return
                piece = pending.result()
            if self._error is not None:
                failure = understand(self._error, scope)
                scope[FAILED] = failure.status_code
                if failure.status_code == 500 and not isinstance(self._error, Error):
                    log_failure(self._error)
                content = to_json(body(failure, openai=True))
                await send(
                    {
                        "type": "http.response.body",
                        "body": b"data: " + content + b"\n\n",
                        "more_body": True,
                    }
                )
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except OSError:
            scope[LEFT] = True
        finally:
            self.cancel.set()
            left.cancel()
