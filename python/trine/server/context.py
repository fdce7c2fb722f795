# SPDX-License-Identifier: Apache-2.0
"""What every route needs: models, limits, threads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from trine.server.failures import Failure
from trine.server.replies import Json

if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Event

    from starlette.requests import Request

    from trine.server.metrics import Metrics
    from trine.server.registry import Registry
    from trine.server.settings import Settings
    from trine.server.work import Worker
    from trine.tally import Tally

R = TypeVar("R")

# What the first model is for is there, too: hosted endpoints are asked so.
ALIASES = ("/", "/invocations")


@dataclass(frozen=True)
class Context:
    """One server's state."""

    registry: Registry
    settings: Settings
    metrics: Metrics
    worker: Worker

    async def run(
        self, request: Request, model: str, call: Callable[[], R], cancel: Event | None = None
    ) -> tuple[R, Tally]:
        """Run a call of a model on a thread."""
        return await self.worker.run(request.receive, model, call, cancel)

    async def answer(self, request: Request, model: str, call: Callable[[], Any]) -> Json:
        """Answer with what a call gives: bytes of JSON, or content for it; costs are in headers."""
        content, tally = await self.run(request, model, call)
        return Json(content, headers=costs(tally))

    def truncate(self, wanted: bool | None) -> bool:  # noqa: FBT001 - a field of requests
        """Whether long texts are cut."""
        return self.settings.auto_truncate if wanted is None else wanted

    def check_batch(self, count: int, what: str = "inputs") -> None:
        """Refuse an empty batch, and one that is too large.

        Raises
        ------
        Failure
            400 or 413.
        """
        if count == 0:
            raise Failure(400, f"{what} is empty", kind="Empty")
        most = self.settings.max_client_batch_size
        if count > most:
            raise Failure(413, f"{what} has {count} entries, the most of a request is {most}")


def costs(tally: Tally) -> dict[str, str]:
    """Return TEI's headers that say what a request cost; times in milliseconds."""
    return {
        "x-compute-tokens": str(tally.tokens),
        "x-inference-time": f"{tally.seconds * 1000:.0f}",
    }
