# SPDX-License-Identifier: Apache-2.0
"""MPNet (Song et al. 2020), as transformers' modeling_mpnet.py computes it.

A post-norm BERT encoder whose layers share one bucketed relative position bias. Positions are
counted over the ids that are not ``<pad>`` and start at 2.
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

# Fixed in modeling_mpnet.py, whatever the configuration says: the padding id that positions skip,
# and the buckets (the configuration's relative_attention_num_buckets sizes the table, the
# computation always asks for 32).
PADDING_IDX = 1
NUM_BUCKETS = 32
MAX_DISTANCE = 128


@dataclass(frozen=True)
class Config:
    """Fields of ``config.json`` that change what is computed, with transformers' defaults."""

    vocab_size: int = 30527
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    max_position_embeddings: int = 512
    layer_norm_eps: float = 1e-12
    tie_word_embeddings: bool = True

    @property
    def max_length(self) -> int:
        """Tokens of the longest sequence: positions start behind the padding position."""
        return self.max_position_embeddings - PADDING_IDX - 1


def encoder(g: Graph, w: Scope, c: Config) -> Value:
    """Token ids to the last hidden state [T, hidden_size]."""
    require(
        c.hidden_size % c.num_attention_heads == 0,
        "hidden_size must be a multiple of num_attention_heads",
    )
    require_activation(c.hidden_act, "hidden_act")
    require(c.max_length > 0, f"max_position_embeddings must exceed {PADDING_IDX + 1}")
    x = embeddings(g, w["embeddings"], c)
    table = w["encoder"]["relative_attention_bias"].weight("weight")
    require(
        table.cols == c.num_attention_heads,
        f"num_attention_heads is {c.num_attention_heads}, but {table.name} is for {table.cols}",
    )
    bias = nn.relative_bias(
        table, num_buckets=NUM_BUCKETS, max_distance=MAX_DISTANCE, span=c.max_length
    )
    for i in range(c.num_hidden_layers):
        x = layer(x, bias, w["encoder"]["layer"][i], c)
    return x


def embeddings(g: Graph, w: Scope, c: Config) -> Value:
    ids = g.input("input_ids")
    words = w["word_embeddings"].weight("weight")
    places = w["position_embeddings"].weight("weight")
    require_shape(words, (c.vocab_size, c.hidden_size), "vocab_size and hidden_size")
    require_shape(
        places,
        (c.max_position_embeddings, c.hidden_size),
        "max_position_embeddings and hidden_size",
    )
    x = nn.embedding((ids, words), (nn.positions(ids, padding_idx=PADDING_IDX), places))
    return nn.layer_norm(x, w["LayerNorm"], eps=c.layer_norm_eps)


def layer(x: Value, bias: Value, w: Scope, c: Config) -> Value:
    x = attention(x, bias, w["attention"], c)
    h = nn.linear(x, w["intermediate"]["dense"], activation=c.hidden_act)
    require(
        h.cols == c.intermediate_size,
        f"intermediate_size is {c.intermediate_size}, but the weights have {h.cols}",
    )
    h = nn.linear(h, w["output"]["dense"])
    return nn.layer_norm(x + h, w["output"]["LayerNorm"], eps=c.layer_norm_eps)


def attention(x: Value, bias: Value, w: Scope, c: Config) -> Value:
    q, k, v = (nn.linear(x, w["attn"][name]) for name in "qkv")
    scale = 1 / math.sqrt(c.hidden_size // c.num_attention_heads)
    a = nn.attention(
        q, k, v, heads=c.num_attention_heads, scale=scale, bias=bias, name=w["attn"].name
    )
    return nn.layer_norm(x + nn.linear(a, w["attn"]["o"]), w["LayerNorm"], eps=c.layer_norm_eps)


def pooler(x: Value, w: Scope) -> Value:
    """The first token through a linear and tanh: [B, hidden_size]."""
    return nn.linear(nn.pool(x, "cls"), w["dense"], activation="tanh")


@dataclass(frozen=True)
class MPNet(heads.Body):
    """What a head of this family may need besides."""

    c: Config


def base(b: MPNet) -> None:
    b.g.output("last_hidden_state", b.x)
    if b.w["pooler"]["dense"].has("weight"):
        b.g.output("pooler_output", pooler(b.x, b.w["pooler"]))


def masked_lm(b: MPNet) -> None:
    head = b.root["lm_head"]
    h = nn.linear(b.x, head["dense"], activation="gelu")
    h = nn.layer_norm(h, head["layer_norm"], eps=b.c.layer_norm_eps)
    # Tied, the decoder is the embedding table and its bias `lm_head.bias`; checkpoints may carry
    # copies of both.
    own, tied = head["decoder"], b.c.tie_word_embeddings
    table = b.w["embeddings"]["word_embeddings"] if tied else own
    bias = head if head.has("bias") and (tied or not own.has("bias")) else own
    for spare in (own["weight"], own["bias"], head["bias"]):
        b.g.ignore(spare.name)
    b.g.output("logits", nn.linear(h, own, weight=table.weight("weight"), bias=bias.weight("bias")))


def sequence_classification(b: MPNet) -> None:
    head = b.root["classifier"]
    h = nn.linear(nn.pool(b.x, "cls"), head["dense"], activation="tanh")
    b.labelled(nn.linear(h, head["out_proj"]))


def multiple_choice(b: MPNet) -> None:
    b.g.output("logits", nn.linear(pooler(b.x, b.w["pooler"]), b.root["classifier"]))


HEADS = {
    "MPNetModel": ("embed", base),
    "MPNetForMaskedLM": ("fill", masked_lm),
    "MPNetForSequenceClassification": ("classify", sequence_classification),
    "MPNetForTokenClassification": ("tag", heads.token_classification),
    "MPNetForQuestionAnswering": ("ask", heads.question_answering),
    "MPNetForMultipleChoice": ("choose", multiple_choice),
}


def build(g: Graph, architecture: str, config: dict[str, Any]) -> Value:
    """Add the model and the outputs of its head to ``g``; returns the last hidden state."""
    c = read(Config, config)
    root = g.scope()
    w = heads.encoder_scope(root, "mpnet")
    x = encoder(g, w, c)
    HEADS[architecture][1](MPNet(g, x, root, w, config, c))
    return x


def max_length(config: dict[str, Any]) -> int:
    """Tokens of the longest sequence."""
    return read(Config, config).max_length
