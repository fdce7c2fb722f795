# SPDX-License-Identifier: Apache-2.0
"""Authoring of model graphs: each function adds one op of ``csrc/graph/ops.def``.

A model file is a set of functions over :class:`Value` and :class:`Scope`; nothing here computes,
and nothing here runs once a graph is compiled.
"""

from __future__ import annotations

import sys
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from trine import _core

if TYPE_CHECKING:
    from collections.abc import Sequence


class Value:
    """A node of a graph: rows of tokens, rows of sequences, or a weight."""

    __slots__ = ("graph", "id", "name")

    def __init__(self, graph: Graph, node: int, name: str = "") -> None:
        self.graph = graph
        self.id = node
        self.name = name

    @property
    def shape(self) -> tuple[int | str, ...]:
        """Dimensions; a symbolic ``"T"`` (tokens) or ``"B"`` (sequences) comes first for rows."""
        return self.graph.core.shape(self.id)

    @property
    def cols(self) -> int:
        """The last dimension."""
        return int(self.shape[-1])

    def __add__(self, other: Value) -> Value:
        return self.graph.add("add", [self, other])


class Graph:
    """A graph under construction, over the tensors of one checkpoint.

    ``keep`` are patterns (``fnmatch``) of weights that linears hold in bfloat16 where the model is
    quantised.
    """

    def __init__(self, store: _core.WeightStore, keep: Sequence[str] = ()) -> None:
        self.core = _core.Graph(store)
        self.store = store
        self.notes: list[str] = []
        self.linears: list[str] = []  # names of their weights
        self._keep = tuple(keep)
        self._weights: dict[str, Value] = {}

    def add(
        self, op: str, inputs: Sequence[Value | None], *, name: str = "", **attrs: Any
    ) -> Value:
        """Append one op; its shape is inferred, and an ill-fitting input raises ``ModelError``."""
        ids = [-1 if v is None else v.id for v in inputs]
        return Value(self, self.core.add(op, ids, attrs, name, _source_line()))

    def input(self, name: str) -> Value:
        """``input_ids`` or ``token_type_ids`` of the batch."""
        return Value(self, self.core.add("input", [], {"name": name}, name, _source_line()))

    def weight(self, name: str) -> Value:
        """The tensor of this name; the same node each time, so that a tied weight is one."""
        if name not in self._weights:
            node = self.core.add("weight", [], {"name": name}, name, _source_line())
            self._weights[name] = Value(self, node, name)
        return self._weights[name]

    def constant(self, values: Sequence[float], *, name: str = "") -> Value:
        """A vector of numbers that the graph brings along, such as frequencies."""
        node = self.core.add_constant(values, [len(values)], name, _source_line())
        return Value(self, node, name)

    def scope(self, prefix: str = "") -> Scope:
        """Weights whose names start with ``prefix`` and a dot."""
        return Scope(self, prefix)

    def ignore(self, name: str) -> None:
        """Say that this tensor is known and has no use, although others of its module are used."""
        self.core.ignore(name)

    def note(self, text: str) -> None:
        """Keep for ``info()`` what was done where the files contradict the configuration."""
        self.notes.append(text)

    def keeps(self, weight: str) -> bool:
        """Whether a linear with this weight is not to be quantised."""
        return any(fnmatchcase(weight, pattern) for pattern in self._keep)

    def same(self, name: str, other: str) -> bool:
        """Whether two tensors of the checkpoint hold the same numbers in the same form."""
        return self.store.same(name, other)

    def output(self, name: str, value: Value) -> None:
        """Name a value as an output of the model."""
        self.core.add_output(name, value.id)

    def compile(
        self,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        threads: int | None = None,
        plugin: str = "",
    ) -> _core.Model:
        """Hand the finished graph to the core.

        ``threads`` is by default one for each CPU; ``plugin`` is the library of a device that the
        core doesn't have in itself (``trine.devices``).
        """
        return _core.compile(self.core, device, dtype, threads or 0, plugin)


class Scope:
    """A module's weights, as the checkpoint names them: ``w["encoder"]["layer"][0]``."""

    __slots__ = ("graph", "name")

    def __init__(self, graph: Graph, name: str) -> None:
        self.graph = graph
        self.name = name

    def __getitem__(self, key: str | int) -> Scope:
        return Scope(self.graph, f"{self.name}.{key}" if self.name else str(key))

    def has(self, key: str) -> bool:
        """Whether the checkpoint holds this tensor."""
        return self.graph.core.has_weight(self[key].name)

    def weight(self, key: str) -> Value:
        """The tensor ``key`` of this module."""
        return self.graph.weight(self[key].name)


def embedding(*pairs: tuple[Value, Value], tied: bool = False) -> Value:
    """Sum of the rows that ids pick from tables: up to three ``(ids, table)``.

    ``tied`` says that the one table is a linear's weight, too: where that is quantised, there is
    one copy of it.
    """
    flat = [v for pair in pairs for v in pair]
    return flat[0].graph.add("embedding", flat, tied=tied)


def positions(ids: Value, *, padding_idx: int = -1) -> Value:
    """Position of each token: from 0, or from ``padding_idx + 1`` over ids that are not padding."""
    return ids.graph.add("positions", [ids], padding_idx=padding_idx)


def linear(
    x: Value,
    w: Scope,
    *,
    weight: Value | None = None,
    bias: Value | bool = True,
    activation: str = "none",
) -> Value:
    """``activation(x · weightᵀ + bias)``; tied weights are given in place of those of ``w``."""
    if isinstance(bias, Value):
        shift: Value | None = bias
    else:
        shift = w.weight("bias") if bias else None
    table = weight or w.weight("weight")
    name = table.name or w["weight"].name
    x.graph.linears.append(name)
    keep = x.graph.keeps(name)
    return x.graph.add("linear", [x, table, shift], name=w.name, activation=activation, keep=keep)


def layer_norm(x: Value, w: Scope, *, eps: float) -> Value:
    """Normalise each row, then scale and shift it; old checkpoints say ``gamma`` and ``beta``."""
    names = ("gamma", "beta") if w.has("gamma") else ("weight", "bias")
    return x.graph.add("layer_norm", [x, *(w.weight(n) for n in names)], name=w.name, eps=eps)


def rms_norm(x: Value, w: Scope, *, eps: float) -> Value:
    """Each row divided by the root of its mean square, then scaled."""
    return x.graph.add("rms_norm", [x, w.weight("weight")], name=w.name, eps=eps)


def rotary(
    ids: Value,
    inv_freq: Sequence[float],
    *,
    scaling: float = 1.0,
    long_inv_freq: Sequence[float] | None = None,
    original_length: int = 0,
    base: float = 0.0,
    factor: float = 0.0,
) -> Value:
    """Cosines, then sines, of each token's position times each frequency: ``rope``'s table.

    Parameters
    ----------
    inv_freq : a frequency for each pair of columns, as computed in float32.
    scaling : of the table (``attention_factor`` of YaRN and LongRoPE).
    long_inv_freq : LongRoPE's, for sequences of more than ``original_length`` tokens.
    base, factor : dynamic NTK's (``rope_theta``, ``factor``), for sequences of more than
        ``original_length`` tokens. A sequence's own length counts, not the longest of the batch.
    """
    g = ids.graph
    inputs = [positions(ids), g.constant(inv_freq, name="inv_freq")]
    if long_inv_freq is not None:
        inputs.append(g.constant(long_inv_freq, name="long_inv_freq"))
    return g.add(
        "rotary",
        inputs,
        scaling=scaling,
        original_length=original_length,
        base=base,
        factor=factor,
    )


def rope(x: Value, table: Value, *, heads: int) -> Value:
    """Columns of each head turned by the angles of :func:`rotary`: the halves form pairs."""
    return x.graph.add("rope", [x, table], heads=heads)


def gated(gate: Value, up: Value, activation: str) -> Value:
    """``activation(gate) * up``, element by element."""
    return gate.graph.add("gated", [gate, up], activation=activation)


def scale(x: Value, factor: float) -> Value:
    """``factor * x``, element by element."""
    return x.graph.add("scale", [x], factor=factor)


def attention(
    q: Value,
    k: Value,
    v: Value,
    *,
    heads: int,
    scale: float,
    bias: Value | None = None,
    kv_heads: int | None = None,
    causal: bool = False,
    cache: int = -1,
    position_keys: Value | None = None,
    position_queries: Value | None = None,
    position_buckets: int = 0,
    max_relative_positions: int = 0,
    name: str = "",
) -> Value:
    """Softmax attention within each sequence.

    Parameters
    ----------
    q, k, v : rows of tokens, the heads' columns side by side.
    scale : of all products, the position terms' included.
    cache : the layer, counted from 0, of a sequence's cache that keeps k and v when text is
        generated; without one it makes no difference. For causal attention.
    bias : [heads, 2 * span - 1], added to the score by the distance of key and query.
    position_keys, position_queries : projected position tables of disentangled attention
        [2 * span, columns of q]; span is ``position_buckets``, or ``max_relative_positions`` where
        there are no buckets (0 or less).
    """
    return q.graph.add(
        "attention",
        [q, k, v, bias, position_keys, position_queries],
        name=name,
        heads=heads,
        kv_heads=kv_heads or heads,
        scale=scale,
        causal=causal,
        cache=cache,
        position_buckets=position_buckets,
        max_relative_positions=max_relative_positions,
    )


def conv1d(x: Value, w: Scope, *, groups: int = 1, activation: str = "none") -> Value:
    """Convolution along each sequence with zeros beyond its ends; ``weight`` is torch's.

    ``weight`` [out, in / groups, size] has an odd size, so that the length stays. Groups are
    computed as one dense product.
    """
    weight = w.weight("weight")
    dense = x.graph.add("conv_weight", [weight], name=w.name, groups=groups)
    rows = x.graph.add("windows", [x], name=w.name, size=int(weight.shape[-1]))
    return linear(rows, w, weight=dense, activation=activation)


def relative_bias(table: Value, *, num_buckets: int, max_distance: int, span: int) -> Value:
    """T5's bucketed bias, spread over distances: made of weights alone, so computed at compile."""
    return table.graph.add(
        "relative_bias", [table], num_buckets=num_buckets, max_distance=max_distance, span=span
    )


def pool(x: Value, mode: str, *, include_prompt: bool = True) -> Value:
    """One row per sequence: cls, mean, max, mean_sqrt_len_tokens, weightedmean or lasttoken."""
    return x.graph.add("pool", [x], mode=mode, include_prompt=include_prompt)


def spread(x: Value) -> Value:
    """Each sequence's row, for every token of it."""
    return x.graph.add("spread", [x])


def l2_normalize(x: Value, *, eps: float = 1e-12) -> Value:
    """Each row divided by its Euclidean length."""
    return x.graph.add("l2_normalize", [x], eps=eps)


def concat(parts: Sequence[Value]) -> Value:
    """Columns side by side."""
    return parts[0] if len(parts) == 1 else parts[0].graph.add("concat", parts)


def columns(x: Value, begin: int, end: int) -> Value:
    """Columns ``begin`` to ``end``: a view."""
    return x.graph.add("slice", [x], begin=begin, end=end)


def _source_line() -> str:
    """The line of the model file that made a node: the first frame outside this module."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    return f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno}"
