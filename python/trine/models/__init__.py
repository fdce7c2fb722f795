# SPDX-License-Identifier: Apache-2.0
"""The architectures: each family is one file that writes the model's graph."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trine import nn
from trine._core import InputError, ModelError
from trine.models import deberta_v2, llama, mpnet

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from trine._core import WeightStore


@dataclass(frozen=True)
class Architecture:
    """One entry of ``architectures`` in a ``config.json``.

    Attributes
    ----------
    name : transformers' class name.
    family : the ``model_type``.
    task : which task class it is made for: ``embed``, ``fill``, ``classify``, ``tag``, ``ask``,
        ``choose``, ``detect`` or ``generate``.
    build : writes the graph and returns the last hidden state.
    max_length : tokens of the longest sequence, from the configuration; None where any goes.
    token_types : whether the model class takes ``token_type_ids``, be it to no effect.
    padding_idx : the id that takes no position, in families that count positions over the others.
    absolute : whether positions are counted over all ids, so that padding on the left moves them.
    usual_length : where any length goes, what texts are cut to if the tokenizer doesn't say.
    causal : whether a token sees the ones before it alone; then padding ids at a text's end are
        cut off for classification, whose head reads the last token.
    """

    name: str
    family: str
    task: str
    build: Callable[[nn.Graph, str, dict[str, Any]], nn.Value]
    max_length: Callable[[dict[str, Any]], int | None]
    token_types: bool = False
    padding_idx: int | None = None
    absolute: Callable[[dict[str, Any]], bool] = lambda _: False
    usual_length: Callable[[dict[str, Any]], int | None] = lambda _: None
    causal: bool = False


ARCHITECTURES: dict[str, Architecture] = (
    {
        name: Architecture(
            name,
            "mpnet",
            task,
            mpnet.build,
            mpnet.max_length,
            padding_idx=mpnet.PADDING_IDX,
        )
        for name, (task, _) in mpnet.HEADS.items()
    }
    | {
        name: Architecture(
            name,
            "deberta-v2",
            task,
            deberta_v2.build,
            deberta_v2.max_length,
            token_types=True,
            absolute=lambda config: deberta_v2.max_length(config) is not None,
            usual_length=deberta_v2.usual_length,
        )
        for name, (task, _) in deberta_v2.HEADS.items()
    }
    | {
        name: Architecture(
            name,
            "granite" if name.startswith("Granite") else "llama",
            task,
            llama.build,
            llama.max_length,
            usual_length=llama.usual_length,
            causal=True,
        )
        for name, (task, _) in llama.HEADS.items()
    }
)


def build(
    store: WeightStore,
    config: dict[str, Any],
    architecture: str,
    modules: Sequence[Mapping[str, Any]] = (),
    keep: Sequence[str] = (),
) -> nn.Graph:
    """Write the graph of a checkpoint.

    Parameters
    ----------
    store : the checkpoint's tensors.
    config : ``config.json``.
    architecture : a key of :data:`ARCHITECTURES`.
    modules : what follows the transformer in a sentence-transformers folder: mappings with
        ``type`` ``pooling`` (``modes``, ``include_prompt``), ``dense`` (``scope``, ``bias``,
        ``activation``, ``residual``: absent, a scope or ``"identity"``), ``layer_norm`` (``scope``,
        ``eps``), ``dropout`` or ``normalize``. Their result is the output ``sentence_embedding``.
    keep : patterns (``fnmatch``) of linears' weights that stay in bfloat16 where the model is
        quantised.

    Raises
    ------
    InputError
        A pattern of ``keep`` that fits no linear's weight.
    ModelError
        An architecture that is unknown, or a tensor that is missing or of another shape.
    """
    if architecture not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        raise ModelError(f"config.json: architectures has {architecture!r}; known are {known}")
    g = nn.Graph(store, keep)
    x = ARCHITECTURES[architecture].build(g, architecture, config)
    if modules:
        for module in modules:
            x = add_module(g, x, module)
        g.output("sentence_embedding", x)
    for pattern in keep:
        if not fnmatch.filter(g.linears, pattern):
            raise InputError(f"keep: {pattern!r} fits no linear's weight, such as {g.linears[0]!r}")
    return g


def add_module(g: nn.Graph, x: nn.Value, module: Mapping[str, Any]) -> nn.Value:
    """One module of sentence-transformers' chain (sentence_transformers/models there)."""
    kind = module["type"]
    if kind == "pooling":
        include_prompt = module.get("include_prompt", True)
        return nn.concat(
            [nn.pool(x, mode, include_prompt=include_prompt) for mode in module["modes"]]
        )
    if kind == "dense":
        y = nn.linear(
            x, g.scope(module["scope"]), bias=module["bias"], activation=module["activation"]
        )
        residual = module.get("residual")
        if residual is None:
            return y
        return y + (x if residual == "identity" else nn.linear(x, g.scope(residual), bias=False))
    if kind == "layer_norm":
        return nn.layer_norm(x, g.scope(module["scope"]), eps=module["eps"])
    if kind == "dropout":  # does nothing at inference
        return x
    if kind == "normalize":
        return nn.l2_normalize(x)
    raise ModelError(f"modules.json: no module {kind!r}")
