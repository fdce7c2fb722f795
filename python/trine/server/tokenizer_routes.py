# SPDX-License-Identifier: Apache-2.0
"""Texts to tokens and back, as the models have it."""

from typing import Any

from fastapi import APIRouter, Request, Response

from trine._core import InputError, ModelError
from trine.arguments import check_unicode
from trine.server import forms
from trine.server.context import Context
from trine.server.failures import Failure
from trine.tasks.base import Task
from trine.tasks.embedder import Embedder

# A token takes thirty times as many bytes of the answer as of the text.
_MOST_CHARACTERS = 1 << 18


def make_router(context: Context) -> APIRouter:
    """Return the routes of every model that has a tokenizer."""
    router = APIRouter(tags=["tokenizer"])

    @router.post("/tokenize", summary="The tokens of texts, with their places")
    async def tokenize(body: forms.Tokenize, request: Request) -> Response:
        served = context.registry.named(body.model)
        name, model = served.name, served.model
        texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
        context.check_batch(len(texts))
        if sum(map(len, texts)) > _MOST_CHARACTERS:
            raise Failure(413, f"inputs has more than {_MOST_CHARACTERS} characters")

        def call() -> Any:
            prompt = _prompt(model, body.prompt_name)
            return [
                _tokens(model, check_unicode(f"inputs.{i}", prompt + x), body.add_special_tokens)
                for i, x in enumerate(texts)
            ]

        return await context.answer(request, name, call)

    @router.post("/decode", summary="The text of tokens")
    async def decode(body: forms.Decode, request: Request) -> Response:
        served = context.registry.named(body.model)
        name, model = served.name, served.model
        rows: list[list[int]] = [body.ids] if forms.is_ids(body.ids) else body.ids
        context.check_batch(len(rows), "ids")

        def call() -> Any:
            backend = _tokenizer(model)
            size = backend.get_vocab_size()
            for row in rows:
                if bad := [i for i in row if not 0 <= i < size]:
                    raise InputError(f"ids: {bad[0]} is none of the vocabulary's {size}")
            skip = body.skip_special_tokens
            return [backend.decode(row, skip_special_tokens=skip) for row in rows]

        return await context.answer(request, name, call)

    return router


def _tokenizer(model: Task) -> Any:
    backend = model.tokenizer
    if backend is None:
        raise ModelError("the model has no tokenizer")
    return backend


def _prompt(model: Task, name: str | None) -> str:
    """Return the text of a prompt that an embedder has."""
    if name is None:
        return ""
    prompts = model.prompts if isinstance(model, Embedder) else {}
    if name not in prompts:
        raise InputError(f"prompt_name {name!r} is not known; known are {list(prompts)}")
    return prompts[name]


def _tokens(model: Task, text: str, special: bool) -> list[dict[str, Any]]:  # noqa: FBT001
    _tokenizer(model)
    found = model._encoder.encoding(text, special=special)  # noqa: SLF001
    rows = zip(found.ids, found.tokens, found.offsets, found.special_tokens_mask, strict=True)
    return [
        {
            "id": token,
            "text": shown if is_special else text[start:stop],
            "special": bool(is_special),
            "start": None if is_special else start,
            "stop": None if is_special else stop,
        }
        for token, shown, (start, stop), is_special in rows
    ]
