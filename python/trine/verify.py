# SPDX-License-Identifier: Apache-2.0
"""Compare a model with outputs that another implementation gave.

A reference is an ``.npz`` file, without pickled objects, that holds

- the inputs: ``texts`` [n] ([n, 2] for pairs), or ``input_ids`` [n, length] (``[n, choices,
  length]`` for multiple choice) with, if need be, ``attention_mask`` and ``token_type_ids``;
- for each output to compare an array of its name and shape as `forward` gives it. For ``texts``
  and ``sentence_embedding``, as `encode` gives it.

Make one with the reference implementation and ``numpy.savez``.

Without such a file a model is compared with itself, computed by the plain loops of the device
"ref" in float32 (a compiled file in its own dtype). That shows that kernels, device and dtype do
what they should on this machine; that the graph is the architecture's only another implementation's
outputs can show.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trine._core import InputError, ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from trine.tasks.base import Task

# What the dtype may change against a float32 reference, over a few dozen layers: the difference as
# a share of the largest value, and the cosine. float32: other orders of summation. bfloat16:
# weights and inputs of linear layers are rounded to 8 bits, each by up to 2**-9 of itself; float16:
# to 11 bits. int8 and int4: by up to 1/254 and 1/30 of the largest of a row or a group; a text
# without words, whose vector says little, is the farthest off.
LIMITS = {
    "float32": (1e-4, 0.999999),
    "bfloat16": (5e-2, 0.999),
    "float16": (1e-2, 0.9999),
    "int8": (0.3, 0.95),
    "int4": (0.6, 0.9),
}

_INPUTS = ("texts", "input_ids", "attention_mask", "token_type_ids")


@dataclass(frozen=True)
class Comparison:
    """How far one output is from its reference."""

    output: str
    shape: tuple[int, ...]
    max_difference: float
    max_reference: float
    min_cosine: float
    dtype: str = "float32"  # what the model computed in

    @property
    def ok(self) -> bool:
        """Whether it is near enough. NaN is not."""
        difference, cosine = LIMITS[self.dtype]
        near = self.max_difference <= difference * self.max_reference
        return bool(near and self.min_cosine >= cosine)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, for JSON."""
        return {
            "output": self.output,
            "shape": list(self.shape),
            "max_difference": self.max_difference,
            "max_reference": self.max_reference,
            "min_cosine": self.min_cosine,
            "ok": self.ok,
        }

    def __str__(self) -> str:
        difference, cosine = LIMITS[self.dtype]
        verdict = "ok" if self.ok else f"DIFFERS (limits {difference:.0e} of the largest, {cosine})"
        return (
            f"{self.output} {list(self.shape)}: max difference {self.max_difference:.2e} "
            f"(largest value {self.max_reference:.2e}), min cosine {self.min_cosine:.8f}: {verdict}"
        )


def verify(model: Task, reference: str | Path | None = None) -> list[Comparison]:
    """Compare a model with a reference file.

    Parameters
    ----------
    model : a loaded model
    reference : path or None
        None for the reference that comes along for the demo model.

    Returns
    -------
    list of Comparison
        One for each output in the file.

    Raises
    ------
    InputError
        No reference, a file that isn't one, or an output that the model doesn't have.
    """
    arrays = read_reference(_find(model, reference))
    expected = {name: array for name, array in arrays.items() if name not in _INPUTS}
    got = _outputs(model, arrays, list(expected))
    dtype = str(model.info()["dtype"])
    return [compare(name, got[name], array, dtype) for name, array in expected.items()]


def has_reference(model: Task) -> bool:
    """Whether a reference comes along for this model."""
    return bool(model.info()["source"] == "demo")


def verify_plainly(model: Task, plain: Task) -> list[Comparison]:
    """Compare all outputs for some ids with those of the same model on the device "ref".

    Parameters
    ----------
    model : a loaded model
    plain : the same, loaded with ``device="ref", dtype="float32"``

    Returns
    -------
    list of Comparison
        One for each output.

    Raises
    ------
    ModelError
        config.json has no ``vocab_size``.
    """
    ids, mask = _some_ids(model)
    expected = plain.forward(ids, mask)
    got = model.forward(ids, mask)
    dtype = str(model.info()["dtype"])
    return [compare(name, got[name], array, dtype) for name, array in expected.items()]


def _some_ids(model: Task) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Return ids of the upper half of the vocabulary, padded on the right, and their mask."""
    vocabulary = model.config.get("vocab_size")
    if not isinstance(vocabulary, int) or vocabulary < 1:
        raise ModelError(f"{model.info()['source']}: config.json has no vocab_size")
    most = model.max_seq_length
    lengths = [length if most is None else min(length, most) for length in (2, 7, 23)]
    mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
    drawn = np.random.default_rng(0).integers(vocabulary // 2, vocabulary, mask.shape)
    ids = np.where(mask, drawn, 0).astype(np.int32)
    return (ids[None], mask[None]) if model.info()["task"] == "choose" else (ids, mask)


def read_reference(path: Path) -> dict[str, NDArray[Any]]:
    """Read a reference file; InputError if it isn't one."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file.items())
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: not an .npz file that can be read: {error}") from error
    if ("texts" in arrays) == ("input_ids" in arrays):
        raise InputError(f"{path}: expected either 'texts' or 'input_ids', found {list(arrays)}")
    if not set(arrays) - set(_INPUTS):
        raise InputError(f"{path}: there are inputs, but no output to compare")
    return arrays


def compare(
    name: str, got: NDArray[Any], expected: NDArray[Any], dtype: str = "float32"
) -> Comparison:
    """Compare one output; the cosine is over the last axis, the least of all rows."""
    if got.shape != expected.shape:
        raise InputError(f"{name} has shape {got.shape}, the reference has {expected.shape}")
    a = np.atleast_2d(got.astype(np.float64))
    b = np.atleast_2d(expected.astype(np.float64))
    a, b = a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1])
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    padding = ~a.any(axis=1) & ~b.any(axis=1)  # has no direction
    with np.errstate(invalid="ignore"):
        cosines = np.where(padding, 1.0, (a * b).sum(axis=1) / np.where(padding, 1.0, lengths))
    return Comparison(
        output=name,
        shape=expected.shape,
        max_difference=float(np.abs(a - b).max(initial=0.0)),
        max_reference=float(np.abs(b).max(initial=0.0)),
        min_cosine=float(cosines.min(initial=1.0)),
        dtype=dtype,
    )


def _find(model: Task, reference: str | Path | None) -> Path:
    if reference is not None:
        return Path(reference)
    if not has_reference(model):
        raise InputError("no reference: name a file (pydoc trine.verify describes it)")
    return Path(__file__).parent / "data" / "demo_reference.npz"


def _outputs(model: Any, arrays: dict[str, NDArray[Any]], names: list[str]) -> dict[str, Any]:
    if "input_ids" in arrays:
        inputs = [arrays.get(name) for name in _INPUTS[1:]]
        return dict(model.forward(*inputs, outputs=names))
    texts = arrays["texts"].tolist()
    if names == ["sentence_embedding"]:
        return {"sentence_embedding": model.encode(texts)}
    tokens = model.tokenize([tuple(t) if isinstance(t, list) else t for t in texts])
    kept = np.arange(tokens.lengths.max()) < tokens.lengths[:, None]
    ids, types = np.zeros(kept.shape, np.int32), np.zeros(kept.shape, np.int32)
    ids[kept] = tokens.ids
    if tokens.token_types is not None:
        types[kept] = tokens.token_types
    return dict(model.forward(ids, kept, types, outputs=names))
