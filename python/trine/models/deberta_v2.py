# SPDX-License-Identifier: Apache-2.0
"""DeBERTa v2 and v3 (He et al. 2021), as transformers' modeling_deberta_v2.py computes them.

A post-norm BERT encoder whose attention adds products with projected tables of relative positions:
a query with the key's place (c2p), a key with the query's (p2c). Masked language models of the
original read the last layer twice, asked by absolute positions (the enhanced mask decoder).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trine import nn
from trine.models import heads
from trine.models.config import read, require, require_activation, require_shape

if TYPE_CHECKING:
    from trine.nn import Graph, Scope, Value


@dataclass(frozen=True)
class Config:
    """Fields of ``config.json`` that change what is computed, with transformers' defaults."""

    vocab_size: int = 128100
    hidden_size: int = 1536
    num_hidden_layers: int = 24
    num_attention_heads: int = 24
    intermediate_size: int = 6144
    hidden_act: str = "gelu"
    max_position_embeddings: int = 512
    type_vocab_size: int = 0
    layer_norm_eps: float = 1e-7
    relative_attention: bool = False
    max_relative_positions: int = -1
    position_buckets: int = -1
    norm_rel_ebd: str = "none"
    share_att_key: bool = False
    position_biased_input: bool = True
    attention_head_size: int = 0  # hidden_size / num_attention_heads
    embedding_size: int = 0  # hidden_size
    conv_kernel_size: int = 0  # no convolution
    conv_groups: int = 1
    conv_act: str = "tanh"
    pooler_hidden_size: int = 0  # hidden_size
    pooler_hidden_act: str = "gelu"
    legacy: bool = True
    tie_word_embeddings: bool = True

    @property
    def head_size(self) -> int:
        """Columns of one head."""
        return self.attention_head_size or self.hidden_size // self.num_attention_heads

    @property
    def embedding_width(self) -> int:
        """Columns of the embedding tables."""
        return self.embedding_size or self.hidden_size

    @property
    def distances(self) -> int:
        """Distances to either side that differ, in tokens."""
        most = self.max_relative_positions
        return most if most > 0 else self.max_position_embeddings


def position_terms(config: dict[str, Any]) -> frozenset[str]:
    """Which of ``c2p`` and ``p2c`` the scores add: a list, a string with bars, or null."""
    names = config.get("pos_att_type") or []
    if isinstance(names, str):
        names = [name.strip() for name in names.lower().split("|")]
    require(
        isinstance(names, list) and all(isinstance(name, str) for name in names),
        f"pos_att_type must be a str or a list of str, but is {names!r}",
    )
    return frozenset(names) & {"c2p", "p2c"}


@dataclass(frozen=True)
class Positions:
    """The table of relative positions, where there is one, and the terms made of it."""

    table: Value | None
    terms: frozenset[str]


def check(c: Config) -> None:
    require(
        c.hidden_size % c.num_attention_heads == 0,
        "hidden_size must be a multiple of num_attention_heads",
    )
    require(
        c.conv_kernel_size <= 0 or c.conv_kernel_size % 2 == 1,
        f"conv_kernel_size must be odd, but is {c.conv_kernel_size}",
    )
    require_activation(c.hidden_act, "hidden_act")


def encoder(g: Graph, w: Scope, rel: Positions, c: Config) -> list[Value]:
    """Token ids to the hidden states after the embeddings and after each layer."""
    states = [embeddings(g, w["embeddings"], c)]
    for i in range(c.num_hidden_layers):
        scope = w["encoder"]["layer"][i]
        x = layer(states[-1], memory(states[-1], rel, scope["attention"]["self"], c), scope, c)
        if i == 0 and c.conv_kernel_size > 0:
            x = convolution(states[0], x, w["encoder"]["conv"], c)
        states.append(x)
    return states


def embeddings(g: Graph, w: Scope, c: Config) -> Value:
    ids = g.input("input_ids")
    pairs = [(ids, table(w["word_embeddings"], c.vocab_size, "vocab_size", c))]
    if c.position_biased_input:
        pairs.append((nn.positions(ids), absolute_positions(w, c)))
    if c.type_vocab_size > 0:
        types = table(w["token_type_embeddings"], c.type_vocab_size, "type_vocab_size", c)
        pairs.append((g.input("token_type_ids"), types))
    x = nn.embedding(*pairs)
    if c.embedding_width != c.hidden_size:
        x = nn.linear(x, w["embed_proj"], bias=False)
    return nn.layer_norm(x, w["LayerNorm"], eps=c.layer_norm_eps)


def absolute_positions(w: Scope, c: Config) -> Value:
    field = "max_position_embeddings"
    return table(w["position_embeddings"], c.max_position_embeddings, field, c)


def table(w: Scope, rows: int, field: str, c: Config) -> Value:
    shape = (rows, c.embedding_width)
    return require_shape(w.weight("weight"), shape, f"{field} and embedding_size")


def relative_positions(w: Scope, c: Config) -> Value | None:
    if not c.relative_attention:
        return None
    rows = 2 * (c.position_buckets if c.position_buckets > 0 else c.distances)
    fields = "position_buckets, max_relative_positions and hidden_size"
    rel = require_shape(w["rel_embeddings"].weight("weight"), (rows, c.hidden_size), fields)
    if "layer_norm" in [name.strip() for name in c.norm_rel_ebd.lower().split("|")]:
        rel = nn.layer_norm(rel, w["LayerNorm"], eps=c.layer_norm_eps)
    return rel


@dataclass(frozen=True)
class Memory:
    """What attention is over: keys and values of tokens, and of their positions."""

    k: Value
    v: Value
    position_keys: Value | None = None
    position_queries: Value | None = None
    terms: int = 1


def memory(x: Value, rel: Positions, w: Scope, c: Config) -> Memory:
    k, v = nn.linear(x, w["key_proj"]), nn.linear(x, w["value_proj"])
    prefix = "" if c.share_att_key else "pos_"
    keys = queries = None
    if rel.table is not None and "c2p" in rel.terms:
        keys = nn.linear(rel.table, w[f"{prefix}key_proj"])
    if rel.table is not None and "p2c" in rel.terms:
        queries = nn.linear(rel.table, w[f"{prefix}query_proj"])
    return Memory(k, v, keys, queries, 1 + len(rel.terms))


def layer(x: Value, over: Memory, w: Scope, c: Config) -> Value:
    x = attention(x, over, w["attention"], c)
    h = nn.linear(x, w["intermediate"]["dense"], activation=c.hidden_act)
    require(
        h.cols == c.intermediate_size,
        f"intermediate_size is {c.intermediate_size}, but the weights have {h.cols}",
    )
    h = nn.linear(h, w["output"]["dense"])
    return nn.layer_norm(x + h, w["output"]["LayerNorm"], eps=c.layer_norm_eps)


def attention(x: Value, over: Memory, w: Scope, c: Config) -> Value:
    q = nn.linear(x, w["self"]["query_proj"])
    width = c.num_attention_heads * c.head_size
    require(
        q.cols == width, f"attention_head_size asks for {width} columns, query_proj has {q.cols}"
    )
    a = nn.attention(
        q,
        over.k,
        over.v,
        heads=c.num_attention_heads,
        # Every term has its share, also where relative_attention leaves the others out.
        scale=1 / math.sqrt(c.head_size * over.terms),
        position_keys=over.position_keys,
        position_queries=over.position_queries,
        position_buckets=c.position_buckets,
        max_relative_positions=c.distances,
        name=w["self"].name,
    )
    a = nn.linear(a, w["output"]["dense"])
    return nn.layer_norm(x + a, w["output"]["LayerNorm"], eps=c.layer_norm_eps)


def convolution(embedded: Value, x: Value, w: Scope, c: Config) -> Value:
    """Beside the first layer, over the embeddings (v2-xlarge, v2-xxlarge)."""
    require_activation(c.conv_act, "conv_act")
    h = nn.conv1d(embedded, w["conv"], groups=c.conv_groups, activation=c.conv_act)
    return nn.layer_norm(x + h, w["LayerNorm"], eps=c.layer_norm_eps)


@dataclass(frozen=True)
class Deberta(heads.Body):
    """What a head of this family may need besides."""

    c: Config
    states: list[Value]  # after the embeddings and after each layer
    rel: Positions


def base(b: Deberta) -> None:
    b.g.output("last_hidden_state", b.x)


def pooler(b: Deberta) -> Value:
    """The first token through a linear and an activation (ContextPooler): [B, hidden_size]."""
    require_activation(b.c.pooler_hidden_act, "pooler_hidden_act")
    width = b.c.pooler_hidden_size or b.c.hidden_size
    require(width == b.c.hidden_size, "pooler_hidden_size must be hidden_size")
    first = nn.pool(b.x, "cls")
    return nn.linear(first, b.module("pooler")["dense"], activation=b.c.pooler_hidden_act)


def sequence_classification(b: Deberta) -> None:
    b.labelled(nn.linear(pooler(b), b.module("classifier")))


def multiple_choice(b: Deberta) -> None:
    b.g.output("logits", nn.linear(pooler(b), b.module("classifier")))


def masked_lm(b: Deberta) -> None:
    """The head that the checkpoint carries; docs/tasks.md has the rule."""
    new, old = b.root["lm_predictions"]["lm_head"], b.root["cls"]["predictions"]
    if b.c.legacy and (old["transform"]["dense"].has("weight") or not new["dense"].has("weight")):
        legacy_masked_lm(b, old)
        return
    # Of transformers' own, "legacy": false says that the decoder was not used in training.
    decoded = b.c.legacy and not b.c.position_biased_input
    h = enhanced_mask_decoder(b) if decoded else b.x
    b.g.output("logits", prediction(b, h, new, words(b), new.weight("bias")))


def legacy_masked_lm(b: Deberta, head: Scope) -> None:
    # Tied, the decoder is the embedding table and its bias `cls.predictions.bias`; checkpoints may
    # carry copies of both.
    own, tied = head["decoder"], b.c.tie_word_embeddings
    bias = head if head.has("bias") and (tied or not own.has("bias")) else own
    for spare in (own["weight"], own["bias"], head["bias"]):
        b.g.ignore(spare.name)
    rows = words(b) if tied else own.weight("weight")
    b.g.output("logits", prediction(b, b.x, head["transform"], rows, bias.weight("bias")))


def words(b: Deberta) -> Value:
    return b.w["embeddings"]["word_embeddings"].weight("weight")


def prediction(b: Deberta, x: Value, w: Scope, rows: Value, bias: Value) -> Value:
    h = nn.linear(x, w["dense"], activation=b.c.hidden_act)
    h = nn.layer_norm(h, w["LayerNorm"], eps=b.c.layer_norm_eps)
    return nn.linear(h, w, weight=rows, bias=bias)


def enhanced_mask_decoder(b: Deberta) -> Value:
    """The last layer twice over the state before it, asked by the absolute positions.

    As the original's masked_language_model.py computes it (EnhancedMaskDecoder).
    """
    require(len(b.states) > 2, "the enhanced mask decoder needs two num_hidden_layers or more")
    require(
        b.c.embedding_width == b.c.hidden_size,
        "the enhanced mask decoder needs an embedding_size that is hidden_size",
    )
    w = b.w["encoder"]["layer"][b.c.num_hidden_layers - 1]
    before = b.states[-2]
    places = absolute_positions(b.w["embeddings"], b.c)
    x = before + nn.embedding((nn.positions(b.g.input("input_ids")), places))
    over = memory(before, b.rel, w["attention"]["self"], b.c)
    for _ in range(2):
        x = layer(x, over, w, b.c)
    return x


def replaced_token_detection(b: Deberta) -> None:
    """One logit for each token, as the original's replaced_token_detection_model.py has it."""
    head = b.module("mask_predictions")
    h = nn.layer_norm(
        nn.spread(nn.pool(b.x, "cls")) + b.x, head["LayerNorm"], eps=b.c.layer_norm_eps
    )
    h = nn.linear(h, head["dense"], activation=b.c.hidden_act)
    b.g.output("logits", nn.linear(h, head["classifier"]))


HEADS = {
    "DebertaV2Model": ("embed", base),
    "DebertaV2ForMaskedLM": ("fill", masked_lm),
    "DebertaV2ForSequenceClassification": ("classify", sequence_classification),
    "DebertaV2ForTokenClassification": ("tag", heads.token_classification),
    "DebertaV2ForQuestionAnswering": ("ask", heads.question_answering),
    "DebertaV2ForMultipleChoice": ("choose", multiple_choice),
    "ReplacedTokenDetectionModel": ("detect", replaced_token_detection),
}


def build(g: Graph, architecture: str, config: dict[str, Any]) -> Value:
    """Add the model and the outputs of its head to ``g``; returns the last hidden state."""
    c = read(Config, config)
    root = g.scope()
    w = heads.encoder_scope(root, "deberta")
    check(c)
    rel = Positions(relative_positions(w["encoder"], c), position_terms(config))
    states = encoder(g, w, rel, c)
    HEADS[architecture][1](Deberta(g, states[-1], root, w, config, c, states, rel))
    return states[-1]


def max_length(config: dict[str, Any]) -> int | None:
    """Tokens of the longest sequence; None where there are relative positions only."""
    c = read(Config, config)
    return c.max_position_embeddings if c.position_biased_input else None


def usual_length(config: dict[str, Any]) -> int:
    """Tokens of the longest sequence that was trained on."""
    return read(Config, config).max_position_embeddings
