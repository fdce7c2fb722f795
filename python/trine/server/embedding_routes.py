# SPDX-License-Identifier: Apache-2.0
"""Vectors: TEI's routes and OpenAI's."""

import base64
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response

from trine._core import InputError, ModelError
from trine.server import forms
from trine.server.context import ALIASES, Context, costs
from trine.server.failures import Failure
from trine.server.replies import numbers, to_json
from trine.tasks.embedder import Embedder

# Values of one answer of /embed_all: each is a dozen characters.
_MOST_VALUES = 1 << 24


def make_router(context: Context) -> APIRouter:
    """Return the routes of embedders."""
    router = APIRouter(tags=["embedding"])

    @router.post("/embed", summary="Vectors of texts")
    async def embed(body: forms.Embed, request: Request) -> Response:
        name, model = context.registry.choose(body.model, Embedder)
        inputs = _batch(context, model, body.inputs)
        width = _width(model, body.dimensions)

        def call() -> bytes:
            vectors = model.encode(
                inputs,
                prompt_name=body.prompt_name,
                normalize_embeddings=body.normalize,
                truncate_dim=width,
                truncate=context.truncate(body.truncate),
                truncation_side=body.side,
            )
            return numbers(vectors).encode()

        return await context.answer(request, name, call)

    @router.post("/embed_all", summary="Vectors of every token")
    async def embed_all(body: forms.EmbedAll, request: Request) -> Response:
        name, model = context.registry.choose(body.model, Embedder)
        inputs = _batch(context, model, body.inputs)
        # Before it is computed nobody knows how much it is; a text has a token per byte at most.
        hidden = model.info()["outputs"].get("last_hidden_state", 1)
        limit = model.max_seq_length
        most = sum(min(_length(text), limit or _MOST_VALUES) for text in inputs) * hidden
        if most > _MOST_VALUES:
            raise Failure(413, "inputs: the vectors of so many tokens are no single answer")

        def call() -> bytes:
            rows = model.encode(
                inputs,
                output_value="token_embeddings",
                prompt_name=body.prompt_name,
                truncate=context.truncate(body.truncate),
                truncation_side=body.side,
            )
            return ("[" + ",".join([numbers(row) for row in rows]) + "]").encode()

        return await context.answer(request, name, call)

    @router.post("/similarity", summary="How near texts are to one")
    async def similarity(body: forms.Similarity, request: Request) -> Response:
        how = body.parameters or forms.SimilarityParameters.model_validate({})
        name, model = context.registry.choose(body.model or how.model, Embedder)
        sentences = body.inputs.sentences
        context.check_batch(len(sentences), "sentences")

        def call() -> bytes:
            vectors = model.encode(
                [body.inputs.source_sentence, *sentences],
                prompt_name=how.prompt_name,
                truncate=context.truncate(how.truncate),
                truncation_side=how.side,
            )
            # Pair by pair: a product of matrices may round otherwise in other company.
            source = np.repeat(vectors[:1], len(sentences), axis=0)
            return numbers(model.similarity_pairwise(source, vectors[1:])).encode()

        return await context.answer(request, name, call)

    _add_openai(context, router)
    if isinstance(context.registry.named(None).model, Embedder):  # TEI's aliases
        for path in ALIASES:
            router.add_api_route(path, embed, methods=["POST"], include_in_schema=False)
    return router


def _add_openai(context: Context, router: APIRouter) -> None:
    @router.post("/v1/embeddings", summary="Vectors of texts, in OpenAI's form")
    @router.post("/embeddings", include_in_schema=False)
    async def embeddings(body: forms.OpenAIEmbeddings, request: Request) -> Response:
        name, model = context.registry.choose(body.model, Embedder)
        inputs = _batch(context, model, body.input, "input")
        width = _width(model, body.dimensions)

        def call() -> np.ndarray[Any, Any]:
            return model.encode(
                inputs,
                normalize_embeddings=True,
                truncate_dim=width,
                truncate=context.settings.auto_truncate,
            )

        vectors, tally = await context.run(request, name, call)
        write = _base64 if body.encoding_format == "base64" else numbers
        data = ",".join(
            [
                f'{{"object":"embedding","index":{index},"embedding":{write(vector)}}}'
                for index, vector in enumerate(vectors)
            ]
        )
        usage = {"prompt_tokens": tally.tokens, "total_tokens": tally.tokens}
        rest = to_json({"model": name, "usage": usage}).decode()[1:]
        content = f'{{"object":"list","data":[{data}],{rest}'
        return Response(content, media_type="application/json", headers=costs(tally))


def _base64(vector: np.ndarray[Any, Any]) -> str:
    if not np.isfinite(vector).all():
        raise ModelError("the model gave what is no number")
    return '"' + base64.b64encode(vector.astype("<f4").tobytes()).decode() + '"'


def _batch(context: Context, model: Embedder, inputs: Any, what: str = "inputs") -> list[Any]:
    """Return one or many texts, or rows of token ids, as a list."""
    items = [inputs] if isinstance(inputs, str) or forms.is_ids(inputs) else inputs
    context.check_batch(len(items), what)
    limit = model.max_seq_length
    for index, item in enumerate(items):
        # A text is cut; ids are run as they are, and so the server's limit has to hold here.
        if limit is not None and not isinstance(item, str) and len(item) > limit:
            raise InputError(f"{what}.{index} has {len(item)} tokens, the limit is {limit}")
    return list(items)


def _length(text: Any) -> int:
    return len(text.encode("utf-8", "replace")) + 8 if isinstance(text, str) else len(text)


def _width(model: Embedder, dimensions: int | None) -> int | None:
    if dimensions is not None and dimensions > model.dimension:
        raise Failure(422, f"dimensions is {dimensions}; the model has {model.dimension}")
    return dimensions
