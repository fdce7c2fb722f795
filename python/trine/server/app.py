# SPDX-License-Identifier: Apache-2.0
"""The application: routes for the models that there are."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from trine._core import Error, __version__
from trine.server import (
    common_routes,
    embedding_routes,
    generation_routes,
    predict_routes,
    tokenizer_routes,
)
from trine.server.context import Context
from trine.server.failures import reply
from trine.server.gate import Gate
from trine.server.metrics import Metrics
from trine.server.registry import Registry
from trine.server.settings import Settings
from trine.server.work import Worker
from trine.tasks.embedder import Embedder
from trine.tasks.generator import Generator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from trine.tasks.base import Task

_ABOUT = """Models of trine over HTTP. Only the routes of the tasks that are served are listed."""


def create_app(models: Mapping[str, Task], settings: Settings | None = None) -> FastAPI:
    """Make an ASGI application that serves models.

    Parameters
    ----------
    models : mapping of str to Task
        By the names that requests choose them by; the first that a route can use is its default.
        They are not closed with the application.
    settings : Settings or None
        Limits; by default those of ``trine serve``.

    Raises
    ------
    InputError
        No model, or a limit below one.
    """
    settings = settings or Settings()
    metrics = Metrics()
    worker = Worker(settings.max_concurrent_requests, metrics)
    context = Context(Registry(models), settings, metrics, worker)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        worker.close()

    app = FastAPI(
        title="trine",
        description=_ABOUT,
        version=__version__,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.include_router(common_routes.make_router(context))
    if context.registry.has(Embedder):
        app.include_router(embedding_routes.make_router(context))
    if context.registry.has(*predict_routes.PREDICTORS):
        app.include_router(predict_routes.make_router(context))
    if context.registry.has(Generator):
        app.include_router(generation_routes.make_router(context))
    app.include_router(tokenizer_routes.make_router(context))
    for kind in (Error, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _answer)
    app.add_middleware(Gate, settings=settings, metrics=metrics)
    if settings.cors_allow_origin:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_allow_origin),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
        )
    return app


async def _answer(request: Request, error: Exception) -> Response:
    return reply(error, request.scope)
