# SPDX-License-Identifier: Apache-2.0
"""Text and conversations: OpenAI's routes."""

from collections.abc import Callable
from threading import Event
from typing import Any

from fastapi import APIRouter, Request, Response

from trine._core import InputError
from trine.generation import Stream
from trine.server.answers import END, ChatForm, Form, TextForm
from trine.server.context import Context, costs
from trine.server.failures import Failure
from trine.server.generation_forms import Chat, Completion, Generation
from trine.server.replies import Json
from trine.server.streams import EventStream
from trine.tally import Tally, current
from trine.tasks.generator import Generator


def make_router(context: Context) -> APIRouter:
    """Return the routes of generators."""
    router = APIRouter(tags=["generation"])

    @router.post("/v1/completions", summary="What follows a prompt")
    async def completions(body: Completion, request: Request) -> Response:
        return await _generate(context, request, body, TextForm)

    @router.post("/v1/chat/completions", summary="The answer in a conversation")
    async def chat(body: Chat, request: Request) -> Response:
        return await _generate(context, request, body, ChatForm)

    return router


async def _generate(
    context: Context, request: Request, body: Generation, form: type[Form]
) -> Response:
    name, model = context.registry.choose(body.model, Generator)
    if form is ChatForm and not model.has_chat_template:
        raise Failure(422, f"{name!r} has no chat template; /v1/completions needs none")
    prompts = [prompt for prompt in body.prompts for _ in range(body.n or 1)]
    context.check_batch(len(prompts), "prompt")
    options = body.sampling(context.settings.max_new_tokens)
    if body.stream:
        if len(prompts) > 1:
            raise InputError("a stream has one prompt and n of 1")
        stream = EventStream()
        answer = form(name)

        def emit() -> None:
            with model.stream(prompts[0], cancel=stream.cancel, **options) as pieces:
                _emit(pieces, answer, body, stream.emit)

        await stream.begin(context.worker, request.receive, name, emit)
        return stream
    cancel = Event()

    def whole() -> Any:
        return model.generate(prompts, cancel=cancel, **options)

    found, tally = await context.run(request, name, whole, cancel)
    return Json(form(name).answer(found, tally, body.n or 1), headers=costs(tally))


def _emit(pieces: Stream, form: Form, body: Generation, emit: Callable[[bytes], None]) -> None:
    """Emit a generation's events as its text comes; begins with the first piece of it."""
    counted = body.usage_in_stream
    shown = 0  # log-probabilities that have been sent
    opening = form.begin(counted=counted)
    for piece in pieces:
        logprobs = None
        if body.likely is not None:
            known = pieces.result.logprobs or []
            logprobs, shown = known[shown:], len(known)
        emit(opening + form.piece(piece, logprobs, counted=counted))
        opening = b""
    result = pieces.result
    if rest := (result.logprobs or [])[shown:]:  # of tokens without text, as the last one often is
        emit(opening + form.piece("", rest, counted=counted))
        opening = b""
    emit(opening + form.last(result.finish_reason, counted=counted))
    if counted:
        emit(form.costs(current() or Tally()))
    emit(END)
