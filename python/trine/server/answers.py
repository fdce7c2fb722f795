# SPDX-License-Identifier: Apache-2.0
"""Generations in OpenAI's forms, whole and in pieces."""

from __future__ import annotations

import math
import time
import uuid
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from trine.server.replies import to_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trine.generation import FinishReason, Generation, Likely, TokenLogprob
    from trine.tally import Tally

END = b"data: [DONE]\n\n"

# What OpenAI writes for a token that cannot come.
_LEAST = -9999.0


def usage(tally: Tally, times: int = 1) -> dict[str, int]:
    """Return what a request cost, in tokens; a prompt that is answered `times` counts once."""
    prompts = tally.tokens // times
    return {
        "prompt_tokens": prompts,
        "completion_tokens": tally.written,
        "total_tokens": prompts + tally.written,
    }


def event(content: Any) -> bytes:
    """Return an event of a stream."""
    return b"data: " + to_json(content) + b"\n\n"


class Form(ABC):
    """One answer: its number, its time, and how its parts are written."""

    prefix: str
    whole: str
    chunk: str

    def __init__(self, model: str) -> None:
        self._head = {"id": f"{self.prefix}-{uuid.uuid4().hex}", "created": int(time.time())}
        self._model = model
        self._text_length = 0

    def answer(self, generations: Sequence[Generation], tally: Tally, times: int) -> dict[str, Any]:
        """Return the whole answer, with `times` generations of each prompt."""
        choices = [self._choice(i, found) for i, found in enumerate(generations)]
        return self._frame(self.whole, choices) | {"usage": usage(tally, times)}

    def piece(self, text: str, logprobs: list[TokenLogprob] | None, *, counted: bool) -> bytes:
        """Return an event with a piece of text."""
        return self._event(self._delta(text, logprobs), None, counted=counted)

    def last(self, reason: FinishReason, *, counted: bool) -> bytes:
        """Return the event that says how it ended."""
        return self._event(self._delta("", None), reason, counted=counted)

    def begin(self, *, counted: bool) -> bytes:
        """Return what comes before the text."""
        del counted
        return b""

    def costs(self, tally: Tally) -> bytes:
        """Return the event that says what it cost."""
        return event(self._frame(self.chunk, []) | {"usage": usage(tally)})

    @abstractmethod
    def _choice(self, index: int, found: Generation) -> dict[str, Any]: ...

    @abstractmethod
    def _delta(self, text: str, logprobs: list[TokenLogprob] | None) -> dict[str, Any]: ...

    def _frame(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self._head, "object": kind, "model": self._model, "choices": choices}

    def _event(self, delta: dict[str, Any], reason: FinishReason | None, *, counted: bool) -> bytes:
        choice = {"index": 0, **delta, "finish_reason": None if reason is None else _reason(reason)}
        frame = self._frame(self.chunk, [choice])
        return event(frame | ({"usage": None} if counted else {}))


class ChatForm(Form):
    """Of /v1/chat/completions."""

    prefix, whole, chunk = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def begin(self, *, counted: bool) -> bytes:
        """Return the event with the role."""
        delta = {"delta": {"role": "assistant", "content": ""}, "logprobs": None}
        return self._event(delta, None, counted=counted)

    def _choice(self, index: int, found: Generation) -> dict[str, Any]:
        return {
            "index": index,
            "message": {"role": "assistant", "content": found.text, "refusal": None},
            "logprobs": _chat_logprobs(found.logprobs),
            "finish_reason": _reason(found.finish_reason),
        }

    def _delta(self, text: str, logprobs: list[TokenLogprob] | None) -> dict[str, Any]:
        delta = {"content": text} if text or logprobs else {}
        return {"delta": delta, "logprobs": _chat_logprobs(logprobs)}


class TextForm(Form):
    """Of /v1/completions."""

    prefix, whole, chunk = "cmpl", "text_completion", "text_completion"

    def _choice(self, index: int, found: Generation) -> dict[str, Any]:
        return {
            "index": index,
            "text": found.text,
            "logprobs": _text_logprobs(found.logprobs, 0),
            "finish_reason": _reason(found.finish_reason),
        }

    def _delta(self, text: str, logprobs: list[TokenLogprob] | None) -> dict[str, Any]:
        found = _text_logprobs(logprobs, self._text_length)
        self._text_length += sum(len(token["text"]) for token in logprobs or [])
        return {"text": text, "logprobs": found}


def _reason(reason: FinishReason) -> str:
    """Return OpenAI's word; one that was cancelled has nobody left to read it."""
    return "stop" if reason == "cancelled" else reason


def _finite(logprob: float) -> float:
    return logprob if math.isfinite(logprob) else _LEAST


def _chat_logprobs(logprobs: list[TokenLogprob] | None) -> dict[str, Any] | None:
    if logprobs is None:
        return None
    content = [
        _chat_token(token) | {"top_logprobs": [_chat_token(x) for x in token["top"]]}
        for token in logprobs
    ]
    return {"content": content, "refusal": None}


def _chat_token(token: Likely) -> dict[str, Any]:
    text = token["text"]
    # Of a part of a character there is no text, and so there are no bytes.
    whole = None if "\ufffd" in text else list(text.encode("utf-8", "replace"))
    return {"token": text, "logprob": _finite(token["logprob"]), "bytes": whole}


def _text_logprobs(logprobs: list[TokenLogprob] | None, offset: int) -> dict[str, Any] | None:
    if logprobs is None:
        return None
    offsets = []
    for token in logprobs:
        offsets.append(offset)
        offset += len(token["text"])
    return {
        "tokens": [token["text"] for token in logprobs],
        "token_logprobs": [_finite(token["logprob"]) for token in logprobs],
        "top_logprobs": [{x["text"]: _finite(x["logprob"]) for x in t["top"]} for t in logprobs],
        "text_offset": offsets,
    }
