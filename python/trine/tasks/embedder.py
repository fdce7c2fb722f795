# SPDX-License-Identifier: Apache-2.0
"""Texts to vectors, with the keywords of sentence-transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypedDict, overload

import numpy as np

from trine import vectors
from trine._core import InputError
from trine.arguments import check_count, check_known, check_text
from trine.progress import Progress
from trine.tasks.base import Task
from trine.tasks.inputs import as_list, windows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray
    from typing_extensions import Unpack

    from trine.batching import Int32, Tokens
    from trine.tokenization import Side
    from trine.vectors import Float32, Precision

    Ids = Sequence[int] | NDArray[np.integer[Any]]
    Job = tuple[int, Tokens, Int32 | None]
    Sentences = str | Ids | Sequence[str] | Sequence[Ids] | NDArray[Any]


class EncodeOptions(TypedDict, total=False):
    """Keywords of `Embedder.encode` that don't change the kind of its result."""

    prompt_name: str | None
    prompt: str | None
    batch_size: int | None
    show_progress_bar: bool | None
    precision: Precision
    convert_to_numpy: bool
    convert_to_tensor: bool
    device: str | None
    normalize_embeddings: bool
    truncate_dim: int | None
    truncate: bool
    truncation_side: Side | None
    ranges: ArrayLike | None
    pool: None
    chunk_size: None


class _Absent:
    """Stands for an argument that was not given: None is a mistake of its own."""


_ABSENT: Any = _Absent()


def _either(sentences: Any, inputs: Any) -> Any:
    """Return what to encode, under the one of its two names that it was given by."""
    given = [x for x in (sentences, inputs) if x is not _ABSENT]
    if len(given) != 1:
        raise TypeError("encode takes either sentences or inputs, two names of the same")
    return given[0]


class Embedder(Task):
    """Turns texts into vectors: encoders and sentence-transformers folders.

    Examples
    --------
    >>> import trine
    >>> with trine.load("demo") as model:
    ...     vectors = model.encode(["The cat sits outside.", "A feline rests in the garden."])
    ...     scores = model.similarity(vectors[0], vectors[1])
    >>> vectors.shape, vectors.dtype, scores.round(1)
    ((2, 768), dtype('float32'), array([[0.7]], dtype=float32))
    """

    needs: ClassVar = ("sentence_embedding",)

    @property
    def dimension(self) -> int:
        """Length of a vector as `encode` returns it by default."""
        columns = self._core.outputs["sentence_embedding"][1]
        return min(columns, self.truncate_dim or columns)

    def get_embedding_dimension(self) -> int:
        """Return `dimension`, by sentence-transformers' name for it."""
        return self.dimension

    def get_sentence_embedding_dimension(self) -> int:
        """Return `dimension`, by sentence-transformers' older name for it."""
        return self.dimension

    @property
    def truncate_dim(self) -> int | None:
        """Length that vectors are cut to by default: config_sentence_transformers.json."""
        return self._checkpoint.sentence.truncate_dim

    @property
    def prompts(self) -> dict[str, str]:
        """Texts that `prompt_name` stands for; ``query`` and ``document`` are always there."""
        return dict(self._checkpoint.sentence.prompts)

    @property
    def default_prompt_name(self) -> str | None:
        """The prompt used when `encode` is given none."""
        return self._checkpoint.sentence.default_prompt_name

    @property
    def pooling(self) -> str:
        """What makes a sentence's vector of its tokens': mean, cls or others, joined by +."""
        return "+".join(self._checkpoint.sentence.modules[0]["modes"])

    @property
    def similarity_fn_name(self) -> str:
        """What `similarity` computes: cosine, dot, euclidean or manhattan."""
        return self._checkpoint.sentence.similarity

    def predict(
        self,
        inputs: Sentences,
        *,
        batch_size: int | None = None,
        show_progress: bool | None = None,
    ) -> NDArray[Any]:
        """Return one vector per input: `encode` under the name that every task has.

        Returns
        -------
        ndarray of float32, shape [n, dimension] ([dimension] for a single text)
        """
        return self.encode(inputs, batch_size=batch_size, show_progress_bar=show_progress)

    @overload
    def encode(
        self,
        sentences: Sentences = ...,
        *,
        inputs: Sentences = ...,
        output_value: Literal["sentence_embedding"] = ...,
        **options: Unpack[EncodeOptions],
    ) -> NDArray[Any]: ...
    @overload
    def encode(
        self,
        sentences: Sentences = ...,
        *,
        inputs: Sentences = ...,
        output_value: Literal["token_embeddings"],
        **options: Unpack[EncodeOptions],
    ) -> list[Float32] | Float32: ...
    def encode(
        self,
        sentences: Sentences = _ABSENT,
        *,
        inputs: Sentences = _ABSENT,
        output_value: Literal["sentence_embedding", "token_embeddings"] = "sentence_embedding",
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        precision: Precision = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: str | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        truncate: bool = True,
        truncation_side: Side | None = None,
        ranges: ArrayLike | None = None,
        pool: None = None,
        chunk_size: None = None,
    ) -> NDArray[Any] | list[Float32]:
        """Turn texts into vectors.

        Parameters
        ----------
        sentences : str, list of str, or token ids
            Token ids are a list of int, a list of such lists or an integer array; they are run as
            they are, without special tokens, prompt or truncation.
        inputs
            Another name for `sentences`: sentence-transformers 6 has this one, versions before it
            the other.
        output_value : {"sentence_embedding", "token_embeddings"}
            The latter gives the vector of each token, special tokens included.
        prompt_name : str or None
            Key of `prompts`; the text is put before each input.
        prompt : str or None
            The text itself; wins over `prompt_name`. By default `default_prompt_name` holds.
        batch_size : int or None
            Most texts of one run. By default runs are cut by their number of tokens, which is
            never slower; results don't depend on it.
        show_progress_bar : bool or None
            Draw a bar on standard error.
        precision : {"float32", "int8", "uint8", "binary", "ubinary"}
            As sentence-transformers' `quantize_embeddings` does it.
        convert_to_numpy, convert_to_tensor : bool
            For compatibility; only numpy arrays are made.
        device : str or None
            For compatibility; must be the device that the model was loaded on.
        normalize_embeddings : bool
            Scale vectors to length one.
        truncate_dim : int or None
            Keep this many leading values (Matryoshka models), before normalising.
        truncate : bool
            False to refuse texts that are too long instead of cutting them; `tokenize` tells how
            much is cut.
        truncation_side : {"right", "left"} or None
            Which end of a long text is cut; by default what the tokenizer's files say.
        ranges : array_like, shape [2, dimension], or None
            For int8 and uint8: least and greatest value of each dimension; by default taken from
            the vectors themselves.
        pool, chunk_size : None
            For compatibility; there are no pools of processes.

        Returns
        -------
        ndarray, shape [n, dimension], in the order of `sentences`
            [dimension] for a single text; [0, dimension] for an empty list. float32, or what
            `precision` says. With token embeddings a list of [tokens, hidden] (one, for a single
            text).

        Raises
        ------
        InputError
            Not a text, an unknown prompt, precision or keyword value, an id out of range, or with
            `truncate` false a text that is too long: names its index, length and the limit.
        TypeError
            Both of `sentences` and `inputs`, or neither.

        Notes
        -----
        The signature follows sentence-transformers 6,
        https://sbert.net/docs/package_reference/sentence_transformer/SentenceTransformer.html.
        """
        if not convert_to_numpy or convert_to_tensor:
            raise InputError("encode returns numpy arrays; torch.from_numpy makes them tensors")
        if pool is not None or chunk_size is not None:
            raise InputError(
                "pool and chunk_size: encode uses all threads by itself; leave them out"
            )
        if device is not None:
            here = self._core.info()["device"]
            if not isinstance(device, str) or device != here:
                raise InputError(f"device {device!r}: this model was loaded on {here!r}")
        items, single = as_list(_either(sentences, inputs))
        progress = Progress(len(items), shown=show_progress_bar)
        ids = bool(items) and not isinstance(items[0], str)
        text = self._prompt(prompt, prompt_name, ids=ids)
        jobs = self._windows(items, text, truncate=truncate, side=truncation_side)
        check_known("output_value", output_value, ("sentence_embedding", "token_embeddings"))
        if output_value == "token_embeddings":
            rows = self._token_vectors(jobs, batch_size, progress)
            return rows[0] if single else rows
        check_known("precision", precision, vectors.PRECISIONS)
        found = self._sentence_vectors(jobs, len(items), batch_size, progress)
        width = check_count("truncate_dim", truncate_dim) or self.truncate_dim
        if width is not None:
            found = np.ascontiguousarray(found[:, :width])
        if normalize_embeddings:
            found = vectors.normalize(found)
        result = vectors.quantize(found, precision, ranges)
        return result[0] if single else result

    def encode_query(
        self,
        sentences: Sentences = _ABSENT,
        *,
        inputs: Sentences = _ABSENT,
        prompt_name: str | None = None,
        prompt: str | None = None,
        **options: Any,
    ) -> Any:
        """Encode with the prompt ``"query"`` unless another one is given; else as `encode`."""
        if prompt_name is None and prompt is None:
            prompt_name = "query"
        found = _either(sentences, inputs)
        return self.encode(found, prompt_name=prompt_name, prompt=prompt, **options)

    def encode_document(
        self,
        sentences: Sentences = _ABSENT,
        *,
        inputs: Sentences = _ABSENT,
        prompt_name: str | None = None,
        prompt: str | None = None,
        **options: Any,
    ) -> Any:
        """Encode with the prompt ``"document"`` unless another one is given; else as `encode`."""
        if prompt_name is None and prompt is None:
            prompt_name = "document"
        found = _either(sentences, inputs)
        return self.encode(found, prompt_name=prompt_name, prompt=prompt, **options)

    def similarity(self, embeddings1: ArrayLike, embeddings2: ArrayLike) -> Float32:
        """Score every vector of one list against every vector of another.

        Parameters
        ----------
        embeddings1 : array_like, shape [n, dimension] or [dimension]
        embeddings2 : array_like, shape [m, dimension] or [dimension]

        Returns
        -------
        ndarray of float32, shape [n, m]
            By `similarity_fn_name`; distances are negated, so that greater is nearer.
        """
        return vectors.similarity(embeddings1, embeddings2, self.similarity_fn_name)

    def similarity_pairwise(self, embeddings1: ArrayLike, embeddings2: ArrayLike) -> Float32:
        """Score vector ``i`` of one list against vector ``i`` of the other: shape [n]."""
        return vectors.similarity_pairwise(embeddings1, embeddings2, self.similarity_fn_name)

    def _prompt(self, prompt: str | None, name: str | None, *, ids: bool) -> str:
        """Return the text to put before each input; token ids can have none."""
        text = None if prompt is None else check_text("prompt", prompt)
        if text is None:
            wanted = self.default_prompt_name if name is None else name
            prompts = self._checkpoint.sentence.prompts
            if wanted is not None:
                check_known("prompt_name", wanted, prompts)
            text = "" if wanted is None else prompts[wanted]
        if ids and text and (prompt is not None or name is not None):
            raise InputError("a prompt cannot be put before token ids")
        return "" if ids else text

    def _windows(
        self, items: list[Any], prompt: str, *, truncate: bool, side: Side | None
    ) -> Iterator[Job]:
        """Tokenise window by window: index of the first input, tokens, lengths of the prompt."""
        excluded = prompt and not self._checkpoint.sentence.modules[0]["include_prompt"]
        for start, part in windows(items):
            texts = [prompt + x if isinstance(x, str) else x for x in part] if prompt else part
            tokens = self._ragged(texts, start, truncate=truncate, side=side)
            lengths = None
            if excluded:
                length = self._encoder.prompt_length(prompt, self.max_seq_length)
                lengths = np.minimum(tokens.lengths, np.int32(length))
            yield start, tokens, lengths

    def _sentence_vectors(
        self, jobs: Iterable[Job], count: int, batch_size: int | None, progress: Progress
    ) -> Float32:
        out = np.empty((count, self._core.outputs["sentence_embedding"][1]), np.float32)
        for start, tokens, prompt_lengths in jobs:
            for rows, _, results in self._runs(
                tokens,
                self.needs,
                batch_size=batch_size,
                progress=progress,
                prompt_lengths=prompt_lengths,
            ):
                out[start + rows] = results["sentence_embedding"]
        return out

    def _token_vectors(
        self, jobs: Iterable[Job], batch_size: int | None, progress: Progress
    ) -> list[Float32]:
        out: list[Float32] = []
        for _, tokens, _ in jobs:
            found = self._per_token(tokens, ("last_hidden_state",), batch_size, progress)
            out += [hidden for (hidden,) in found]
        return out
