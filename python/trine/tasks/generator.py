# SPDX-License-Identifier: Apache-2.0
"""Prompts to what follows them: decoders."""

from __future__ import annotations

import secrets
from collections import Counter, deque
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

import numpy as np

from trine import _core, chat, tally
from trine._core import InputError, ModelError
from trine.arguments import check_count
from trine.batching import Int32, int_array
from trine.detokenizer import Vocabulary
from trine.generation import Generation, Stream, Writer, read_options
from trine.progress import Progress
from trine.sessions import Job, Rows
from trine.tasks.base import Task
from trine.tasks.inputs import as_list

if TYPE_CHECKING:
    from collections.abc import Generator as Steps
    from collections.abc import Iterable, Sequence
    from threading import Event

    from typing_extensions import Unpack

    from trine.chat import Message
    from trine.generation import Options

# Seeds of prompts that come twice in a call lie this far apart (the golden ratio of 64 bits).
_SEED_STEP = 0x9E3779B97F4A7C15
_SEED_MASK = (1 << 64) - 1


class Sampling(TypedDict, total=False):
    """Keywords that say how to generate; see `Generator.generate`."""

    max_new_tokens: int
    min_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    stop: str | Iterable[str] | None
    seed: int | None
    logprobs: int | None


class Generator(Task):
    """Goes on from prompts, and answers in conversations.

    Examples
    --------
    >>> import trine
    >>> model = trine.load("tests/golden/examples/chat")
    >>> model.generate("The capital of Italy is", stop=["."]).text
    ' Rome'
    >>> "".join(model.stream([{"role": "user", "content": "What is the capital of Peru?"}]))
    'The capital of Peru is Lima.'
    >>> model.close()
    """

    needs: ClassVar = ("next_logits",)
    _inner: ClassVar = frozenset({"next_logits"})

    def predict(
        self,
        inputs: Any,
        *,
        batch_size: int | None = None,
        show_progress: bool | None = None,
        **options: Unpack[Sampling],
    ) -> Any:
        """Return one generation per input: `generate` under the name that every task has."""
        return self.generate(inputs, batch_size=batch_size, show_progress=show_progress, **options)

    def generate(
        self,
        prompts: Any,
        *,
        batch_size: int | None = None,
        show_progress: bool | None = None,
        cancel: Event | None = None,
        **options: Unpack[Sampling],
    ) -> Any:
        """Go on from prompts.

        Parameters
        ----------
        prompts : list of str, of token ids, or of conversations
            Texts get the special tokens that the tokenizer adds; ids are run as they are; a
            conversation is a list of messages, to which the chat template is applied, and ends as
            in `chat`. A single prompt gives a single result.
        batch_size : int or None
            Most prompts under way at once; results don't depend on it.
        show_progress : bool or None
            Draw a bar on standard error.
        cancel : threading.Event or None
            Once it is set, everything ends before the next token, with what there is.
        max_new_tokens : int
            Most tokens for each prompt, 128 by default; `max_seq_length` bounds them, too.
        min_new_tokens : int
            No end-of-text token comes before so many.
        temperature : float
            0, the default, takes the likeliest token each time. Above it tokens are drawn, and
            the options that follow choose from which.
        top_k : int
            So many likeliest tokens; 0 for all.
        top_p : float
            The likeliest tokens whose probabilities add up to it.
        min_p : float
            Tokens at least this many times as likely as the likeliest.
        repetition_penalty : float
            Divides scores of tokens that the prompt or the text has already; 1 for none.
        stop : str, iterable of str or None
            End before the first of these texts, wherever the borders of tokens are. One that is
            a special token ends the text, too.
        seed : int or None
            The same seed draws the same tokens for a prompt, whatever else is in the call; a
            prompt that comes again in the same call gets others. None: different each time.
        logprobs : int or None
            Give the log-probability of each token, and of so many likeliest ones in its place.

        Returns
        -------
        list of Generation
            ``text``, ``tokens``, ``finish_reason`` and, if asked for, ``logprobs``.

        Raises
        ------
        InputError
            A prompt that is empty or leaves no room, an id or an option out of range, stop strings
            for a model without tokenizer.
        ModelError
            A text for a model without tokenizer, a conversation for one without chat template.

        Notes
        -----
        Greedy means token for token what transformers' `generate(do_sample=False)` gives in
        float32. A model's generation_config.json is read for its end-of-text tokens alone.
        """
        wanted = read_options(options)
        batch_size = check_count("batch_size", batch_size)
        items, single = _prompts(prompts)
        progress = Progress(len(items), shown=show_progress)
        results: list[Generation | None] = [None] * len(items)
        for ends, jobs in self._by_ends(items, self._jobs(items, wanted), wanted):
            for index, writer, _ in self._run(jobs, wanted, ends, batch_size, cancel):
                if writer.finish_reason is not None:
                    results[index] = writer.result()
                    progress.advance(1)
        return results[0] if single else results

    def stream(
        self, prompt: Any, *, cancel: Event | None = None, **options: Unpack[Sampling]
    ) -> Stream:
        """Go on from one prompt, a piece of text at a time.

        Parameters
        ----------
        prompt : str, token ids or a conversation
        cancel : threading.Event or None
            Once it is set, the text ends before the next token.
        **options
            As for `generate`.

        Returns
        -------
        Stream
            An iterator of pieces of text, which never end within a character; joined they are
            the text that `generate` gives. Its `result` says how it ended; `close`, or leaving a
            ``with`` block, cancels it.
        """
        items, single = _prompts(prompt)
        if not single:
            raise InputError("stream takes one prompt; generate takes many")
        wanted = read_options(options)
        job = self._jobs(items, wanted)[0]
        ends = self._ends(wanted, conversation=_is_conversation(items[0]))
        return Stream(self._run([job], wanted, ends, None, cancel))

    def chat(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template_variables: Mapping[str, Any] | None = None,
        cancel: Event | None = None,
        **options: Unpack[Sampling],
    ) -> Generation:
        """Answer the last message of a conversation.

        Parameters
        ----------
        messages : sequence of {"role": str, "content": str}
        add_generation_prompt : bool
            Open the answer; False goes on from the last message's end.
        tools : sequence of dict or None
            Functions that the model may call, as JSON schemas, if its template knows them.
        template_variables : mapping or None
            Whatever else the template understands.
        cancel, **options
            As for `generate`.

        Returns
        -------
        Generation
            Pieces as they come: `stream` with the same messages.
        """
        prompt = self.chat_prompt(
            messages,
            add_generation_prompt=add_generation_prompt,
            tools=tools,
            template_variables=template_variables,
        )
        wanted = read_options(options)
        job = self._jobs([self._template_ids(prompt)], wanted)
        ends = self._ends(wanted, conversation=True)
        return Stream(self._run(job, wanted, ends, None, cancel)).finish()

    def chat_prompt(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template_variables: Mapping[str, Any] | None = None,
    ) -> str:
        """Return the prompt that the model's chat template makes of a conversation.

        Raises
        ------
        ModelError
            The model has no chat template, or jinja2 (the extra ``chat``) is not installed.
        InputError
            Something that is no conversation, or that the template refuses.
        """
        source = self._checkpoint.source
        if self._template is None:
            raise ModelError(f"{source}: no chat template; generate takes a prompt of your own")
        return chat.render(
            self._template,
            messages,
            source=source,
            special=self._tokenizer.special_tokens(),
            add_generation_prompt=add_generation_prompt,
            tools=tools,
            variables=template_variables,
        )

    @cached_property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Tokens that end a text: generation_config.json's, or config.json's, or the tokenizer's.

        A conversation ends with the tokenizer's own, too.
        """
        for name, values in (
            ("generation_config.json", self._checkpoint.generation),
            ("config.json", self.config),
        ):
            found = values.get("eos_token_id")
            if found is None:
                continue
            listed = found if isinstance(found, list) else [found]
            if not all(isinstance(i, int) and not isinstance(i, bool) for i in listed):
                where = self._checkpoint.folder / name
                raise ModelError(f"{where}: eos_token_id is {found!r}, expected ids")
            return tuple(listed)
        own = self._own_eos()
        return () if own is None else (own,)

    @property
    def has_chat_template(self) -> bool:
        """Whether `chat` works."""
        return self._template is not None

    @cached_property
    def _template(self) -> str | None:
        return self._tokenizer.chat_template()

    @cached_property
    def _vocabulary(self) -> Vocabulary | None:
        return Vocabulary(self._encoder.backend) if self._tokenizer.exist() else None

    def _own_eos(self) -> int | None:
        return self._encoder.special_id("eos_token") if self._tokenizer.exist() else None

    def _ends(self, options: Options, *, conversation: bool) -> frozenset[int]:
        """Return the tokens that end a text, stop strings that are special tokens among them."""
        ends = set(self.eos_token_ids)
        own = self._own_eos() if conversation else None
        if own is not None:
            ends.add(own)
        if options.stop:
            if self._vocabulary is None:
                raise InputError("stop: this model has no tokenizer to find texts with")
            added = self._vocabulary.added
            ends |= {added[text] for text in options.stop if text in added}
        return frozenset(ends)

    def _by_ends(
        self, items: Sequence[Any], jobs: Sequence[Job], options: Options
    ) -> list[tuple[frozenset[int], list[Job]]]:
        """Part the jobs whose texts don't end with the same tokens; mostly there is one part."""
        parts: dict[frozenset[int], list[Job]] = {}
        talks = [_is_conversation(item) for item in items]
        ends = {talk: self._ends(options, conversation=talk) for talk in dict.fromkeys(talks)}
        for job in jobs:
            parts.setdefault(ends[talks[job.index]], []).append(job)
        return list(parts.items())

    def _template_ids(self, prompt: str, what: str = "the conversation") -> list[int]:
        """Encode a template's result: it has its special tokens already."""
        return self._encoder.prompt_ids(prompt, special=False, what=what)

    def _jobs(self, items: Sequence[Any], options: Options) -> list[Job]:
        limit = self.max_seq_length
        base = secrets.randbits(64) if options.seed is None else options.seed
        before: Counter[bytes] = Counter()  # how often a prompt has come
        jobs = []
        for index, item in enumerate(items):
            ids = self._ids(item, index)
            room = options.max_new_tokens
            if limit is not None:
                room = min(room, limit - len(ids))
            if room < 1:
                raise InputError(
                    f"input {index} has {len(ids)} tokens: with max_seq_length {limit} there is "
                    "no room for another"
                )
            key = ids.tobytes()
            seed = (base + before[key] * _SEED_STEP) & _SEED_MASK
            before[key] += 1
            jobs.append(Job(index, ids, room, seed))
        if (counted := tally.current()) is not None:
            counted.tokens += sum(len(job.ids) for job in jobs)
        return jobs

    def _ids(self, item: Any, index: int) -> Int32:
        ids: Any = item
        if isinstance(item, str):
            ids = self._encoder.prompt_ids(item, special=True, what=f"input {index}")
        elif _is_conversation(item):
            ids = self._template_ids(self.chat_prompt(item), f"input {index}")
        elif not isinstance(item, list | tuple | np.ndarray):
            kind = type(item).__name__
            raise InputError(
                f"input {index}: expected a text, token ids or a conversation, got {kind}"
            )
        array = int_array(ids, f"input {index}") if len(ids) else np.zeros(0, np.int32)
        if array.ndim != 1:
            raise InputError(f"input {index}: token ids of shape {array.shape}, expected one row")
        if not len(array):
            raise InputError(f"input {index} has no tokens")
        return array

    def _run(
        self,
        jobs: Sequence[Job],
        options: Options,
        ends: frozenset[int],
        batch_size: int | None,
        cancel: Event | None,
    ) -> Steps[tuple[int, Writer, str], None, None]:
        """Generate; yields index, state and new text each time that a prompt gets a token."""
        if cancel is not None and not callable(getattr(cancel, "is_set", None)):
            kind = type(cancel).__name__
            raise InputError(f"cancel: expected a threading.Event, got {kind}")
        return self._steps(jobs, options, ends, batch_size, cancel)

    def _steps(
        self,
        jobs: Sequence[Job],
        options: Options,
        ends: frozenset[int],
        batch_size: int | None,
        cancel: Event | None,
    ) -> Steps[tuple[int, Writer, str], None, None]:
        writers = {job.index: Writer(self._vocabulary, options, ends, job.room) for job in jobs}
        rows = Rows(self._session(jobs), options, ends)
        rows.share(jobs)
        waiting = deque(sorted(jobs, key=lambda job: -job.size))
        while waiting or rows.jobs:
            if cancel is not None and cancel.is_set():
                break
            while waiting and len(rows.jobs) < (batch_size or len(jobs)) and rows.fit(waiting[0]):
                rows.add(waiting.popleft())
            for index, step in rows.step():
                writer = writers[index]
                piece = writer.push(step["token"], step["logprob"], step["top"])
                if writer.finish_reason is not None:
                    rows.remove(step["sequence"])
                yield index, writer, piece
        for index, writer in writers.items():
            if writer.finish_reason is None:
                yield index, writer, writer.cancel()

    def _session(self, jobs: Sequence[Job]) -> _core.Session:
        return _core.Session(
            self._core, capacity=max((job.size for job in jobs), default=1), output=self.needs[0]
        )


def _is_conversation(item: Any) -> bool:
    return isinstance(item, list | tuple) and bool(item) and isinstance(item[0], Mapping)


def _prompts(prompts: Any) -> tuple[list[Any], bool]:
    """Return the prompts as a list, and whether the caller gave one by itself."""
    if _is_conversation(prompts):
        return [prompts], True
    return as_list(prompts)
