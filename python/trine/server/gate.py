# SPDX-License-Identifier: Apache-2.0
"""What every request passes: key, size and type are checked, the answer is counted and logged."""

from __future__ import annotations

import logging
import secrets
import time
import traceback
from typing import TYPE_CHECKING
from urllib.parse import quote

from starlette.datastructures import Headers

from trine.server.failures import Failure, reply, route_path

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from trine.server.metrics import Metrics
    from trine.server.settings import Settings

LOG = logging.getLogger("trine.server")

# Probes have no keys; pages that describe the routes tell nothing of the models.
_OPEN = frozenset({"/", "/health", "/ping", "/metrics", "/docs", "/openapi.json"})

# In a request's scope: its client went before the answer's end; the status of what failed after
# its beginning.
LEFT, FAILED = "trine.left", "trine.failed"


class Gate:
    """ASGI middleware around everything else."""

    def __init__(self, app: ASGIApp, *, settings: Settings, metrics: Metrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check, pass on, count."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 0
        if self._settings.root_path:
            scope["root_path"] = self._settings.root_path

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            self._check(scope)
            await self._app(scope, self._bounded(receive), noted)
        except Exception as error:  # noqa: BLE001 - the last place where it can be answered
            if not isinstance(error, Failure):
                log_failure(error)
            if status == 0:
                await reply(error, scope)(scope, receive, noted)
        finally:
            seconds = time.perf_counter() - begun
            status = 499 if scope.get(LEFT) else scope.get(FAILED) or status or 500
            self._metrics.answered(_route(scope), status, seconds)
            # A path is the client's, and may have line breaks.
            path = quote(str(scope["path"])[:200])
            LOG.info("%s %s %d %.1f ms", scope["method"], path, status, seconds * 1000)

    def _check(self, scope: Scope) -> None:
        headers, path = Headers(scope=scope), route_path(scope)
        key = self._settings.api_key
        if key is not None and not (path in _OPEN and scope["method"] in ("GET", "HEAD")):
            scheme, _, shown = headers.get("authorization", "").partition(" ")
            shown = shown.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
            # Headers are bytes, which are read as latin-1.
            if not secrets.compare_digest(shown.encode("latin-1"), key.encode()):
                raise Failure(
                    401, "the API key is missing or wrong", headers={"WWW-Authenticate": "Bearer"}
                )
        if scope["method"] != "POST":
            return
        # Other types could be sent by any web page, without asking first.
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Failure(415, "the body has to be JSON: Content-Type: application/json")
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > self._settings.payload_limit:
            raise self._too_large()

    def _bounded(self, receive: Receive) -> Receive:
        """Return a `receive` that stops a body which is too large and didn't say so."""
        size = 0

        async def bounded() -> Message:
            nonlocal size
            message = await receive()
            if message["type"] == "http.request":
                size += len(message.get("body", b""))
                if size > self._settings.payload_limit:
                    raise self._too_large()
            return message

        return bounded

    def _too_large(self) -> Failure:
        return Failure(413, f"the body has more than {self._settings.payload_limit} bytes")


def _route(scope: Scope) -> str:
    """Return the route's template: what clients make up would be labels without end."""
    route = scope.get("route")
    return str(getattr(route, "path", "other"))


def log_failure(error: BaseException) -> None:
    """Log where it happened; messages may have words of the client's."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    LOG.error("%s\n%s", type(error).__name__, frames.rstrip())
