# SPDX-License-Identifier: Apache-2.0
"""What every server has: health, description, metrics, names of models."""

from typing import Any

from fastapi import APIRouter, Response

from trine._core import __version__
from trine.batching import GPU_TOKEN_BUDGET, TOKEN_BUDGET
from trine.server.context import Context
from trine.server.registry import Served
from trine.server.replies import Json
from trine.tasks.base import Task
from trine.tasks.classifier import Classifier
from trine.tasks.embedder import Embedder

# Of `info()`, what says nothing of the machine's folders.
_PUBLIC = ("architecture", "task", "dtype", "device", "isa", "threads", "parameters")


def make_router(context: Context) -> APIRouter:
    """Return the routes that don't depend on a task."""
    router = APIRouter(tags=["server"])

    @router.get("/health", summary="200 while requests are taken")
    @router.head("/health", include_in_schema=False)
    @router.api_route("/ping", methods=["GET", "HEAD"], include_in_schema=False)
    @router.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def health() -> Response:
        return Json({"status": "ok"})

    @router.get("/info", summary="What is served, and its limits")
    async def info(model: str | None = None) -> Response:
        served = context.registry.named(model)
        return Json(_describe(context, served.name, served.model))

    @router.get("/metrics", summary="For Prometheus")
    async def metrics() -> Response:
        return Response(context.metrics.text(), media_type="text/plain; version=0.0.4")

    @router.get("/v1/models", summary="The models by name")
    async def models() -> Response:
        data = [_model(context, served) for served in context.registry]
        return Json({"object": "list", "data": data})

    @router.get("/v1/models/{name:path}", summary="One of them")
    async def model(name: str) -> Response:
        return Json(_model(context, context.registry.named(name)))

    return router


def _model(context: Context, served: Served) -> dict[str, Any]:
    created = context.registry.since
    return {"id": served.name, "object": "model", "created": created, "owned_by": "trine"}


def _describe(context: Context, name: str, model: Task) -> dict[str, Any]:
    """Return TEI's description, and ours of each model."""
    settings, info = context.settings, model.info()
    return {
        "model_id": name,
        "model_sha": None,
        "model_dtype": info["dtype"],
        "model_type": _model_type(model),
        "max_concurrent_requests": settings.max_concurrent_requests,
        "max_input_length": model.max_seq_length,
        "max_batch_tokens": TOKEN_BUDGET if info["device"] == "cpu" else GPU_TOKEN_BUDGET,
        "max_batch_requests": None,
        "max_client_batch_size": settings.max_client_batch_size,
        "payload_limit": settings.payload_limit,
        "auto_truncate": settings.auto_truncate,
        "tokenization_workers": context.worker.threads,
        "version": __version__,
        "sha": None,
        "docker_label": None,
        "models": [
            {"id": x.name, **{key: x.model.info()[key] for key in _PUBLIC}}
            for x in context.registry
        ],
    }


def _model_type(model: Task) -> dict[str, Any]:
    if isinstance(model, Embedder):
        return {"embedding": {"pooling": model.pooling, "dimension": model.dimension}}
    labels = getattr(model, "labels", None)
    if labels is None:
        return {type(model).__name__.lower(): {}}
    names = {
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
    }
    if isinstance(model, Classifier) and len(labels) == 1:
        return {"reranker": names}
    return {type(model).__name__.lower(): names}
