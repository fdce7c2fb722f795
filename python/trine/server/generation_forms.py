# SPDX-License-Identifier: Apache-2.0
"""The bodies of OpenAI's routes for text, and how they are answered."""

from abc import ABC, abstractmethod
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field, model_validator

from trine._core import InputError
from trine.server import forms

# Of a request for chat that doesn't say; for completions OpenAI has 16.
_CHAT_TOKENS = 512
_COMPLETION_TOKENS = 16
_MOST_LIKELY = 20  # log-probabilities in each place

# Fields that would change the answer if they were understood, and the values that change nothing.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "audio": (),
    "modalities": (["text"],),
    "prediction": (),
    "web_search_options": (),
}


def _check_stop(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(text, str) for text in value):
        return value
    raise ValueError("expected a text or a list of texts")


def _check_content(value: Any) -> Any:
    """Join OpenAI's parts of a message; only texts can be read."""
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise ValueError("expected a text, or a list of parts")  # noqa: TRY004
    texts = []
    for index, part in enumerate(value):
        text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
        if not isinstance(text, str):
            raise ValueError(f"part {index}: only texts can be read")  # noqa: TRY004
        texts.append(text)
    return "".join(texts)


Stop = Annotated[Any, AfterValidator(_check_stop), forms.any_of(forms.TEXT, forms.TEXTS)]
Content = Annotated[
    Any,
    AfterValidator(_check_content),
    forms.any_of(forms.TEXT, {"type": "array", "items": {"type": "object"}}),
]


class StreamOptions(BaseModel):
    """What a stream has beside its text."""

    include_usage: bool = False


class Message(BaseModel):
    """One turn of a conversation."""

    role: str
    content: Content = ""
    name: str | None = None
    tool_calls: list[Any] | None = None

    @model_validator(mode="after")
    def _no_tools(self) -> "Message":
        if self.tool_calls or self.role in ("tool", "function"):
            raise ValueError("tools are not supported")
        return self

    def plain(self) -> dict[str, str]:
        """Return what chat templates read."""
        found = {"role": "system" if self.role == "developer" else self.role}
        found["content"] = self.content or ""
        return found | ({"name": self.name} if self.name else {})


class Generation(forms.Request, ABC, extra="allow"):
    """How to generate. Without a temperature the likeliest token is taken each time."""

    max_tokens: int | None = Field(None, ge=1)
    min_tokens: int = Field(0, ge=0)
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    stop: Stop = None
    seed: int | None = None
    n: int | None = Field(1, ge=1, le=128)
    stream: bool | None = False
    stream_options: StreamOptions | None = None

    @property
    @abstractmethod
    def limit(self) -> int:
        """Most tokens that are wanted."""

    @property
    @abstractmethod
    def likely(self) -> int | None:
        """Log-probabilities that are wanted in each place."""

    @property
    @abstractmethod
    def prompts(self) -> list[Any]:
        """All prompts: texts, token ids, or a conversation."""

    @property
    def usage_in_stream(self) -> bool:
        """Whether a stream ends with what it cost."""
        return self.stream_options is not None and self.stream_options.include_usage

    def sampling(self, most: int) -> dict[str, Any]:
        """Return keywords of `Generator.generate`.

        Raises
        ------
        InputError
            A field that is not understood and would change the answer.
        """
        for name, given in (self.model_extra or {}).items():
            if name in _NEUTRAL and given is not None and given not in _NEUTRAL[name]:
                raise InputError(f"{name} is not supported")
        room = min(self.limit, most)
        given = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            # llama.cpp and vLLM write "all" in these ways.
            "top_k": 0 if self.top_k == -1 else self.top_k,
            "min_p": self.min_p,
            "repetition_penalty": self.repetition_penalty,
            "seed": None if self.seed in (None, -1) else self.seed & 0xFFFF_FFFF_FFFF_FFFF,
            "logprobs": self.likely,
        }
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return {
            "max_new_tokens": room,
            "min_new_tokens": min(self.min_tokens, room),
            "stop": stop,
            **{name: value for name, value in given.items() if value is not None},
        }


class Completion(Generation):
    """Of /v1/completions."""

    prompt: forms.TextsOrIds
    logprobs: int | None = Field(None, ge=0, le=_MOST_LIKELY)

    @property
    def limit(self) -> int:
        """Most tokens that are wanted."""
        return self.max_tokens or _COMPLETION_TOKENS

    @property
    def likely(self) -> int | None:
        """Log-probabilities that are wanted in each place."""
        return self.logprobs

    @property
    def prompts(self) -> list[Any]:
        """All prompts."""
        single = isinstance(self.prompt, str) or forms.is_ids(self.prompt)
        return [self.prompt] if single else list(self.prompt)


class Chat(Generation):
    """Of /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = False
    top_logprobs: int | None = Field(None, ge=0, le=_MOST_LIKELY)

    @property
    def limit(self) -> int:
        """Most tokens that are wanted."""
        return self.max_completion_tokens or self.max_tokens or _CHAT_TOKENS

    @property
    def likely(self) -> int | None:
        """Log-probabilities that are wanted in each place."""
        if self.top_logprobs and not self.logprobs:
            raise InputError("top_logprobs needs logprobs to be true")
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def prompts(self) -> list[Any]:
        """The conversation, as the only prompt."""
        return [[message.plain() for message in self.messages]]
