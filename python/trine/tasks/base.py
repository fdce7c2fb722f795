# SPDX-License-Identifier: Apache-2.0
"""What every loaded model can do: run padded arrays, tokenise, describe and close itself."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import numpy as np

from trine import tally
from trine._core import InputError
from trine.arguments import check_int, check_path, check_texts
from trine.batching import (
    GPU_TOKEN_BUDGET,
    OUTPUT_BUDGET,
    TOKEN_BUDGET,
    Int32,
    Tokens,
    join_ids,
    offsets_of,
    plan,
)
from trine.padding import Float32, unpad
from trine.tasks.inputs import as_item, as_list

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from numpy.typing import NDArray
    from tokenizers import Tokenizer
    from typing_extensions import Self

    from trine import _core
    from trine.checkpoint import Checkpoint
    from trine.progress import Progress
    from trine.tokenization import Side, Strategy, Text, TextEncoder
    from trine.tokenizer_files import TokenizerSource


class Task(ABC):
    """A loaded model. Made by `trine.load`.

    Every method may be called from many threads at once; the GIL is free while the core runs, and
    calls that meet there run as one batch. The result for a text is the same bits whatever else
    runs beside it. Usable as a context manager that closes the model.

    Examples
    --------
    >>> import trine
    >>> with trine.load("tests/golden/examples/tag", threads=1) as model:
    ...     logits = model.forward([[0, 50, 51, 2]])["logits"]
    ...     model.info()["architecture"]
    'MPNetForTokenClassification'
    >>> logits.shape  # batch, tokens, labels
    (1, 4, 5)
    """

    needs: ClassVar[tuple[str, ...]]  # outputs that `predict` asks for
    _ndim: ClassVar[int] = 2  # of `forward`'s input_ids
    _squeezed: ClassVar[frozenset[str]] = frozenset()  # outputs without a last axis of one
    _inner: ClassVar[frozenset[str]] = frozenset()  # outputs that are nobody else's business

    def __init__(
        self, core: _core.Model, checkpoint: Checkpoint, tokenizer: TokenizerSource
    ) -> None:
        self._core, self._checkpoint, self._tokenizer = core, checkpoint, tokenizer
        self._max_seq_length: int | None = None

    @abstractmethod
    def predict(
        self, inputs: Any, *, batch_size: int | None = None, show_progress: bool | None = None
    ) -> Any:
        """Return one result per input, in the caller's order."""

    @property
    def config(self) -> dict[str, Any]:
        """The checkpoint's config.json."""
        return self._checkpoint.config

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The `tokenizers.Tokenizer`, or None if the folder has no tokenizer files.

        Its own padding and truncation are off; leave them so.
        """
        return self._encoder.backend if self._tokenizer.exist() else None

    @property
    def max_seq_length(self) -> int | None:
        """Most tokens of a text, special tokens included; longer texts are cut.

        What sentence_bert_config.json says, or else tokenizer_config.json, or else the
        architecture. May be set to anything up to what the architecture takes; InputError for
        anything else.
        """
        if self._max_seq_length is not None:
            return self._max_seq_length
        return self._encoder.limit if self._tokenizer.exist() else self._checkpoint.limit

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        self._max_seq_length = check_int("max_seq_length", value, 1, self._checkpoint.limit)

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Tokens that end a text; none, of a model that writes none."""
        return ()

    def info(self) -> dict[str, Any]:
        """Describe the model.

        Returns
        -------
        dict
            ``architecture``, ``task``, ``source``, ``max_seq_length``, ``outputs`` (name to
            columns) and what the core adds: ``device`` (``device_reason`` says why that one),
            ``isa``, ``dtype``, ``threads``, ``parameters``, ``weight_bytes``, ``bytes_mapped``,
            ``bytes_allocated``, ...; ``notes``, if the files contradict config.json: what was
            done about it; ``cache``: what the load cache did, or why it did nothing.
        """
        checkpoint = self._checkpoint
        notes: dict[str, Any] = {"notes": list(checkpoint.notes)} if checkpoint.notes else {}
        if checkpoint.cache:
            notes["cache"] = checkpoint.cache
        if checkpoint.unused_tensors:
            notes["unused_tensors"] = list(checkpoint.unused_tensors)
        return {
            "architecture": checkpoint.architecture,
            "task": checkpoint.task,
            "source": checkpoint.source,
            "max_seq_length": self.max_seq_length,
            "outputs": {name: self._core.outputs[name][1] for name in self._names(None)},
            **self._core.info(),
            "device_reason": checkpoint.device_reason,
            **notes,
        }

    def tokenize(self, texts: Sequence[Text], *, truncate: bool = True) -> Tokens:
        """Encode texts or pairs as the model would, and say what was cut.

        Parameters
        ----------
        texts : sequence of str or (str, str)
        truncate : bool
            False to refuse texts that are too long.

        Returns
        -------
        Tokens
            ``ids``, ``offsets`` and ``truncated``: tokens cut from each text.

        Raises
        ------
        InputError
            Not a list of texts or pairs; with `truncate` false a text that is too long: names its
            index, its length and the limit.
        ModelError
            The folder has no tokenizer.
        """
        items, single = as_list(texts)
        if single:
            raise InputError("texts is one text, expected a list of texts")
        items = [as_item(item, index) for index, item in enumerate(items)]
        return self._encoder.tokens(items, limit=self.max_seq_length, truncate=truncate)

    def forward(
        self,
        input_ids: object,
        attention_mask: object = None,
        token_type_ids: object = None,
        *,
        outputs: Sequence[str] | None = None,
    ) -> dict[str, Float32]:
        """Run padded arrays, as the model class of transformers does.

        Parameters
        ----------
        input_ids : int array or nested lists, shape [batch, length]
            Any integer type; [batch, choices, length] for multiple choice.
        attention_mask : the same shape, or None
            Ones for tokens, zeros for padding; in each row the ones must be unbroken. None: every
            position counts.
        token_type_ids : the same shape, or None
        outputs : sequence of str or None
            Names of the outputs to compute; by default all. Nothing else is computed.

        Returns
        -------
        dict of str to ndarray of float32
            Named and shaped as in transformers: ``last_hidden_state`` [batch, length, hidden],
            ``pooler_output`` [batch, hidden], ``logits``, ``start_logits`` and ``end_logits``
            [batch, length], and for an `Embedder` ``sentence_embedding`` [batch, dimension].
            Padded positions, and rows without any token, are zero.

        Raises
        ------
        InputError
            Wrong shapes or types, an id out of range, a mask with holes, a row longer than the
            model takes, an output that it doesn't have. Left padding, where transformers would
            make the result from a padding token, or move positions by it.
        """
        names = self._names(outputs)
        padded = unpad(
            input_ids,
            attention_mask,
            token_type_ids,
            ndim=self._ndim,
            padding_idx=self._checkpoint.padding_idx,
        )
        self._check_lengths(padded.tokens, padded.rows)
        kinds = self._core.outputs
        pooled = [n for n in names if kinds[n][0] == "sequences" and n != "sentence_embedding"]
        if pooled and padded.left is not None and not self._checkpoint.causal:
            raise InputError(
                f"row {padded.left} is padded on the left: in transformers {pooled[0]} is then "
                "made from a padding token. Pad on the right, or leave that output out"
            )
        if self._checkpoint.absolute and padded.left is not None:
            raise InputError(
                f"row {padded.left} is padded on the left: in transformers that moves the "
                "positions of its tokens. Pad on the right"
            )
        results = {}
        for name, flat in self._collect(padded.tokens, names).items():
            spread = padded.per_token if kinds[name][0] == "tokens" else padded.per_sequence
            values = spread(flat)
            results[name] = values[..., 0] if name in self._squeezed else values
        return results

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model as one compiled file, which `trine.load` maps and runs in place.

        Weights are stored as they are computed with, in the dtype that the model was loaded in;
        results of the file are those of this model, bit for bit.

        Parameters
        ----------
        path : str or path
            Ends with ``.trine``. A file of that name is replaced when all of the new one is on
            the disk; models that have it mapped keep what they have.

        Raises
        ------
        InputError
            No path, or another ending.
        OSError
            The file cannot be written.
        """
        from trine import compiled

        compiled.save(
            self._core,
            self._checkpoint,
            self._tokenizer,
            Path(check_path("path", path)).expanduser(),
            outputs=self.needs,
            end_tokens=self.eos_token_ids,
            max_seq_length=self._max_seq_length,
        )

    def close(self) -> None:
        """Give back the memory. Calls that are under way end well; later ones raise InputError."""
        self._core.close()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse to be copied or pickled: copies would share the core, and `close` ends it."""
        raise TypeError(
            f"a {type(self).__name__} can neither be copied nor pickled: load it again, "
            f"trine.load({self._checkpoint.source!r})"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        checkpoint = self._checkpoint
        return f"<trine.{type(self).__name__} {checkpoint.source!r} ({checkpoint.architecture})>"

    @property
    def _encoder(self) -> TextEncoder:
        return self._tokenizer.encoder()

    def _names(self, outputs: Sequence[str] | None) -> list[str]:
        known = [name for name in self._core.outputs if name not in self._inner]
        if outputs is None:
            return known
        wanted = [outputs] if isinstance(outputs, str) else check_texts("outputs", outputs)
        names = list(dict.fromkeys(wanted))
        for name in names:
            if name not in known:
                raise InputError(f"no output {name!r}; this model has {', '.join(known)}")
        return names

    def _ragged(
        self,
        items: Sequence[Any],
        first: int,
        *,
        truncate: bool = True,
        strategy: Strategy = "longest_first",
        side: Side | None = None,
    ) -> Tokens:
        """Turn texts, pairs or token ids into a batch; `first` is the first one's index."""
        items = [as_item(item, index) for index, item in enumerate(items, first)]
        texts = sum(isinstance(item, (str, tuple)) for item in items)
        if texts == 0:
            tokens = join_ids(items, first=first)
            self._check_lengths(tokens, first)
            return tokens
        if texts < len(items):
            raise InputError("texts and token ids are mixed in one call")
        limit = self.max_seq_length
        return self._encoder.tokens(
            items, limit=limit, truncate=truncate, strategy=strategy, side=side, first=first
        )

    def _check_lengths(self, tokens: Tokens, first: int | NDArray[np.intp]) -> None:
        """Refuse id sequences that are longer than the model takes, padding ids included.

        `first` is the index of the first sequence in the caller's input, or of each.
        """
        limit = self._checkpoint.limit
        if limit is None or not len(tokens) or tokens.lengths.max() <= limit:
            return
        index = int(np.flatnonzero(tokens.lengths > limit)[0])
        where = first + index if isinstance(first, int) else first[index]
        raise InputError(
            f"input {where} has {tokens.lengths[index]} tokens, the model takes {limit}"
        )

    def _runs(
        self,
        tokens: Tokens,
        outputs: Sequence[str],
        *,
        batch_size: int | None = None,
        progress: Progress | None = None,
        prompt_lengths: Int32 | None = None,
    ) -> Iterator[tuple[NDArray[np.intp], Tokens, dict[str, Float32]]]:
        """Run a batch in parts that fit the token budget: yields rows, their tokens, outputs."""
        kinds = self._core.outputs
        tokens = self._trimmed(tokens)
        columns = max((kinds[o][1] for o in outputs if kinds[o][0] == "tokens"), default=1)
        budget = max(1, min(self._token_budget, OUTPUT_BUDGET // columns))
        types = self._token_types(tokens)
        counted = tally.current()
        if counted is not None:
            counted.tokens += len(tokens.ids)
            counted.truncated += sum(cut > 0 for cut in tokens.truncated)
        for planned in plan(tokens.lengths, budget=budget, batch_size=batch_size):
            whole = len(planned) == len(tokens)  # then there is nothing to gather
            rows = np.arange(len(tokens)) if whole else planned
            part = tokens if whole else tokens.select(rows)
            if counted is not None:
                counted.check()
            begun = time.perf_counter()
            results = self._core.run(
                part.ids,
                part.offsets,
                token_types=None if types is None else part.token_types,
                prompt_lengths=None if prompt_lengths is None else prompt_lengths[rows],
                outputs=outputs,
            )
            if counted is not None:
                counted.seconds += time.perf_counter() - begun
            if progress is not None:
                progress.advance(len(rows))
            yield rows, part, results

    @cached_property
    def _on_gpu(self) -> bool:
        return self._core.info()["device"] not in ("cpu", "ref")

    @property
    def _token_budget(self) -> int:
        """Tokens per run."""
        return GPU_TOKEN_BUDGET if self._on_gpu else TOKEN_BUDGET

    def _trimmed(self, tokens: Tokens) -> Tokens:
        """Cut padding ids off the ends for a decoder's classifier, which reads the last token.

        transformers looks for the last id that isn't padding; what follows it has no effect.
        """
        pad = self.config.get("pad_token_id")
        if not self._checkpoint.causal or self._checkpoint.task != "classify" or pad is None:
            return tokens
        kept = [
            row[: max(1, int(np.max(np.flatnonzero(row != pad), initial=0)) + 1)] for row in tokens
        ]
        if all(len(a) == len(b) for a, b in zip(kept, tokens, strict=True)):
            return tokens
        return Tokens(
            np.concatenate(kept), offsets_of([len(row) for row in kept]), tokens.truncated
        )

    def _token_types(self, tokens: Tokens) -> Int32 | None:
        types = tokens.token_types
        if types is None or self._checkpoint.token_types:
            return types
        if types.any():
            raise InputError("token_type_ids: this model has no token types; leave them out")
        return None

    def _collect(self, tokens: Tokens, outputs: Sequence[str]) -> dict[str, Float32]:
        """Run a whole batch; each output [tokens, columns] or [sequences, columns]."""
        kinds = self._core.outputs
        sizes = {"tokens": len(tokens.ids), "sequences": len(tokens)}
        whole = {o: np.empty((sizes[kinds[o][0]], kinds[o][1]), np.float32) for o in outputs}
        for rows, part, results in self._runs(tokens, outputs):
            if part is tokens:
                return results
            for name, values in results.items():
                if kinds[name][0] == "sequences":
                    whole[name][rows] = values
                    continue
                for index, row in enumerate(rows):
                    here = slice(tokens.offsets[row], tokens.offsets[row + 1])
                    whole[name][here] = values[part.offsets[index] : part.offsets[index + 1]]
        return whole

    def _matrix(
        self, tokens: Tokens, output: str, batch_size: int | None, progress: Progress | None
    ) -> Float32:
        """Run a batch for one per-sequence output: [sequences, columns]."""
        whole = np.empty((len(tokens), self._core.outputs[output][1]), np.float32)
        for rows, _, results in self._runs(
            tokens, (output,), batch_size=batch_size, progress=progress
        ):
            whole[rows] = results[output]
        return whole

    def _per_token(
        self,
        tokens: Tokens,
        outputs: Sequence[str],
        batch_size: int | None,
        progress: Progress | None,
    ) -> list[list[Float32]]:
        """Run a batch for per-token outputs: for each sequence a [length, columns] of each."""
        found: list[list[Float32]] = [[] for _ in range(len(tokens))]
        for rows, part, results in self._runs(
            tokens, outputs, batch_size=batch_size, progress=progress
        ):
            for index, row in enumerate(rows):
                here = slice(part.offsets[index], part.offsets[index + 1])
                found[row] = [results[name][here] for name in outputs]
        return found
