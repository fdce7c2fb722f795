# SPDX-License-Identifier: Apache-2.0
"""What is asked of a generation, what comes of it, and the text of one as its tokens come."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from trine._core import InputError
from trine.arguments import MOST, check_int, check_number, check_texts
from trine.detokenizer import Detokenizer, StopStrings

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from trine.detokenizer import Vocabulary

FinishReason = Literal["stop", "length", "cancelled"]


class Likely(TypedDict):
    """A token that might have come."""

    token: int
    text: str
    logprob: float


class TokenLogprob(Likely):
    """A token that came, with the likeliest ones in its place, best first."""

    top: list[Likely]


class Generation(dict[str, Any]):
    """What came of a prompt: a dict whose fields are attributes, too.

    Attributes
    ----------
    text : str
        Without special tokens, and without the stop string if one ended it.
    tokens : list of int
        What the model produced, the token that ended it included.
    finish_reason : {"stop", "length", "cancelled"}
        An end-of-text token or a stop string; the limit of tokens; `close` or the event.
    logprobs : list of TokenLogprob, or None
        Natural logarithms of the model's own probabilities, before temperature and the like.
    """

    def __init__(
        self,
        text: str,
        tokens: list[int],
        finish_reason: FinishReason,
        logprobs: list[TokenLogprob] | None = None,
    ) -> None:
        super().__init__(text=text, tokens=tokens, finish_reason=finish_reason)
        if logprobs is not None:
            self["logprobs"] = logprobs

    @property
    def text(self) -> str:
        """The text."""
        return str(self["text"])

    @property
    def tokens(self) -> list[int]:
        """The tokens' ids."""
        return list(self["tokens"])

    @property
    def finish_reason(self) -> FinishReason:
        """Why it ended."""
        reason: FinishReason = self["finish_reason"]
        return reason

    @property
    def logprobs(self) -> list[TokenLogprob] | None:
        """Probabilities, if they were asked for."""
        return self.get("logprobs")


@dataclass(frozen=True)
class Options:
    """How to generate: the keywords of `Generator.generate`, checked."""

    max_new_tokens: int = 128
    min_new_tokens: int = 0
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop: Sequence[str] = ()
    seed: int | None = None
    logprobs: int | None = None

    def __post_init__(self) -> None:
        checked: dict[str, Any] = {
            "max_new_tokens": check_int("max_new_tokens", self.max_new_tokens, 1, MOST),
            "min_new_tokens": check_int("min_new_tokens", self.min_new_tokens, 0, MOST),
            "top_k": check_int("top_k", self.top_k, 0, MOST),
            "temperature": check_number("temperature", self.temperature, 0.0),
            "top_p": check_number("top_p", self.top_p, 0.0, 1.0),
            "min_p": check_number("min_p", self.min_p, 0.0, 1.0),
            "repetition_penalty": check_number("repetition_penalty", self.repetition_penalty, 0.0),
            "stop": _stop_strings(self.stop),
        }
        if self.seed is not None:
            checked["seed"] = check_int("seed", self.seed, 0)
        if self.logprobs is not None:
            checked["logprobs"] = check_int("logprobs", self.logprobs, 0, MOST)
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if self.repetition_penalty == 0:
            raise InputError("repetition_penalty is 0, expected a number above it")
        if self.min_new_tokens > self.max_new_tokens:
            raise InputError(
                f"min_new_tokens is {self.min_new_tokens}, but max_new_tokens {self.max_new_tokens}"
            )


def read_options(given: Mapping[str, Any]) -> Options:
    """Return keywords of `Generator.generate` as options."""
    known = [option.name for option in fields(Options)]
    if unknown := [name for name in given if name not in known]:
        raise TypeError(f"unexpected keyword argument {unknown[0]!r}; there are {', '.join(known)}")
    return Options(**given)


def _stop_strings(stop: Any) -> tuple[str, ...]:
    """Return the texts that end a generation: one, several or none."""
    if stop is None:
        return ()
    found = tuple([stop] if isinstance(stop, str) else check_texts("stop", stop))
    if not all(found):
        raise InputError(f"stop is {stop!r}, expected texts that aren't empty")
    return found


class Writer:
    """One generation under way: takes tokens, gives text, knows when it is over.

    Parameters
    ----------
    vocabulary : Vocabulary or None
        None where there is no tokenizer: then there is no text.
    options : Options
    ends : frozenset of int
        The tokens that end a text.
    room : int
        Most tokens to produce.
    """

    def __init__(
        self, vocabulary: Vocabulary | None, options: Options, ends: frozenset[int], room: int
    ) -> None:
        self._vocabulary, self._ends, self._room = vocabulary, ends, room
        self._text: list[str] = []
        self._detokenizer = Detokenizer(vocabulary) if vocabulary is not None else None
        self._stop = StopStrings(options.stop)
        self._logprobs: list[TokenLogprob] | None = None if options.logprobs is None else []
        self.tokens: list[int] = []
        self.finish_reason: FinishReason | None = None

    def push(self, token: int, logprob: float = 0.0, top: Sequence[tuple[int, float]] = ()) -> str:
        """Take the next token; returns the text that is certain now. Sets `finish_reason`."""
        self.tokens.append(token)
        if self._logprobs is not None:
            likely = [self._likely(*pair) for pair in top]
            self._logprobs.append(TokenLogprob(**self._likely(token, logprob), top=likely))
        piece = ""
        if token in self._ends:
            self.finish_reason = "stop"
        elif self._detokenizer is not None:
            piece = self._stop.push(self._detokenizer.push(token))
            if self._stop.found is not None:
                self.finish_reason = "stop"
        if self.finish_reason is None and len(self.tokens) >= self._room:
            self.finish_reason = "length"
        if self.finish_reason is not None:
            piece += self._flush()
        self._text.append(piece)
        return piece

    def cancel(self) -> str:
        """End it here; returns text that was held back."""
        if self.finish_reason is not None:
            return ""
        self.finish_reason = "cancelled"
        self._text.append(piece := self._flush())
        return piece

    def result(self) -> Generation:
        """Return what there is: of a generation under way it says "cancelled"."""
        reason = self.finish_reason or "cancelled"
        return Generation("".join(self._text), list(self.tokens), reason, self._logprobs)

    def _flush(self) -> str:
        if self._detokenizer is None or self._stop.found is not None:
            return ""
        return self._stop.push(self._detokenizer.flush()) + self._stop.flush()

    def _likely(self, token: int, logprob: float) -> Likely:
        text = (
            ""
            if self._vocabulary is None
            else self._vocabulary.backend.decode([token], skip_special_tokens=False)
        )
        return Likely(token=token, text=text, logprob=logprob)


class Stream:
    """The text of one generation, a piece at a time: an iterator of str. Made by `stream`."""

    def __init__(self, steps: Generator[tuple[int, Writer, str], None, None]) -> None:
        self._steps = steps
        self._writer: Writer | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        for _, writer, piece in self._steps:
            self._writer = writer
            if piece:
                return piece
        raise StopIteration

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def result(self) -> Generation:
        """What there is so far; `finish_reason` is "cancelled" before the end."""
        if self._writer is None:
            return Generation("", [], "cancelled")
        return self._writer.result()

    def finish(self) -> Generation:
        """Go on to the end; returns the result."""
        for _ in self:
            pass
        return self.result

    def close(self) -> None:
        """Cancel: there are no more pieces."""
        self._steps.close()
