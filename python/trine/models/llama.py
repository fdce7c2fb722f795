# SPDX-License-Identifier: Apache-2.0
"""Llama (Touvron et al. 2023) and Granite, as transformers' modeling_llama.py computes them.

A pre-norm decoder: RMS norms, rotary positions, keys and values shared by groups of heads, gated
feed-forward. Granite is the same with four multipliers. A linear has a bias where the file has one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from trine import nn
from trine.models import rope
from trine.models.config import num_labels, read, require, require_activation, require_shape

if TYPE_CHECKING:
    from trine.models.rope import Rope
    from trine.nn import Graph, Scope, Value


@dataclass(frozen=True)
class Config:
    """Fields of ``config.json`` that change what is computed, with transformers' defaults."""

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = 0
    head_dim: int = 0
    hidden_act: str = "silu"
    max_position_embeddings: int = 2048
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False

    # Granite's own
    embedding_multiplier: float = 1.0
    attention_multiplier: float = 1.0
    residual_multiplier: float = 1.0
    logits_scaling: float = 1.0

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values; by default as many as of queries."""
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def head_size(self) -> int:
        """Columns of a head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads


def read_config(architecture: str, config: dict[str, Any]) -> Config:
    """Read the fields; in Llama nothing but scores is multiplied, whatever the file says."""
    c = read(Config, config)
    for field in ("num_key_value_heads", "head_dim"):
        require(getattr(c, field) >= 0, f"{field} must be 0 or more, but is {getattr(c, field)}")
    if architecture.startswith("Granite"):
        return c
    return replace(
        c,
        embedding_multiplier=1.0,
        attention_multiplier=c.head_size**-0.5,
        residual_multiplier=1.0,
        logits_scaling=1.0,
    )


def decoder(g: Graph, w: Scope, c: Config, turns: Rope, *, cached: bool, tied: bool) -> Value:
    """Token ids to the last hidden state [T, hidden_size]; `cached` to generate text."""
    require(
        c.num_attention_heads % c.kv_heads == 0,
        "num_attention_heads must be a multiple of num_key_value_heads",
    )
    require_activation(c.hidden_act, "hidden_act")
    words = w["embed_tokens"].weight("weight")
    require_shape(words, (c.vocab_size, c.hidden_size), "vocab_size and hidden_size")
    ids = g.input("input_ids")
    x = scaled(nn.embedding((ids, words), tied=tied), c.embedding_multiplier)
    angles = nn.rotary(ids, **turns.attributes())
    for i in range(c.num_hidden_layers):
        x = layer(x, angles, w["layers"][i], c, i if cached else -1)
    return nn.rms_norm(x, w["norm"], eps=c.rms_norm_eps)


def layer(x: Value, angles: Value, w: Scope, c: Config, cache: int) -> Value:
    h = nn.rms_norm(x, w["input_layernorm"], eps=c.rms_norm_eps)
    h = attention(h, angles, w["self_attn"], c, cache)
    x = x + scaled(h, c.residual_multiplier)
    h = nn.rms_norm(x, w["post_attention_layernorm"], eps=c.rms_norm_eps)
    return x + scaled(feed_forward(h, w["mlp"], c), c.residual_multiplier)


def attention(x: Value, angles: Value, w: Scope, c: Config, cache: int) -> Value:
    w.graph.ignore(w["rotary_emb"]["inv_freq"].name)  # in old files; computed here
    q, k, v = (linear(x, w[f"{name}_proj"]) for name in "qkv")
    for name, value, heads in (
        ("q", q, c.num_attention_heads),
        ("k", k, c.kv_heads),
        ("v", v, c.kv_heads),
    ):
        require(
            value.cols == heads * c.head_size,
            f"{heads} heads of {c.head_size} don't fit {name}_proj, which has {value.cols} outputs",
        )
    a = nn.attention(
        nn.rope(q, angles, heads=c.num_attention_heads),
        nn.rope(k, angles, heads=c.kv_heads),
        v,
        heads=c.num_attention_heads,
        kv_heads=c.kv_heads,
        scale=c.attention_multiplier,
        causal=True,
        cache=cache,
        name=w.name,
    )
    return linear(a, w["o_proj"])


def feed_forward(x: Value, w: Scope, c: Config) -> Value:
    gate, up = linear(x, w["gate_proj"]), linear(x, w["up_proj"])
    require(
        gate.cols == c.intermediate_size,
        f"intermediate_size is {c.intermediate_size}, but the weights have {gate.cols}",
    )
    return linear(nn.gated(gate, up, activation=c.hidden_act), w["down_proj"])


def linear(x: Value, w: Scope) -> Value:
    """Whatever ``attention_bias`` and ``mlp_bias`` say, the file knows."""
    return nn.linear(x, w, bias=w.has("bias"))


def scaled(x: Value, factor: float) -> Value:
    return x if factor == 1 else nn.scale(x, factor)


@dataclass(frozen=True)
class Body:
    """What a head stands on: the graph, the last hidden state, the checkpoint, its decoder."""

    g: Graph
    x: Value
    root: Scope
    w: Scope
    c: Config
    config: dict[str, Any]
    table: Value | None = None  # of the logits


def base(b: Body) -> None:
    b.g.output("last_hidden_state", b.x)


def causal_lm(b: Body) -> None:
    """Logits of every token, and of each sequence's last one alone, which generation asks for.

    The pooling stands last, and the compiler moves it to the front: the same bits in any dtype.
    """
    head = b.root["lm_head"]
    require(b.c.logits_scaling != 0, "logits_scaling must not be 0")
    logits = nn.linear(b.x, head, weight=b.table, bias=head.has("bias"))
    logits = scaled(logits, 1 / b.c.logits_scaling)
    b.g.output("logits", logits)
    b.g.output("next_logits", nn.pool(logits, "lasttoken"))


def output_table(g: Graph, c: Config, head: Scope, words: Scope) -> Value:
    """The table of the logits: as in transformers, the file goes before ``tie_word_embeddings``."""
    tied = c.tie_word_embeddings
    if not head.has("weight"):
        if not tied:
            g.note(
                "lm_head tied to embed_tokens: tie_word_embeddings is false, but the file has no "
                "lm_head.weight"
            )
        return words.weight("weight")
    if tied and g.same(head["weight"].name, words["weight"].name):
        g.ignore(head["weight"].name)
        return words.weight("weight")
    if tied:
        g.note(
            "lm_head not tied: tie_word_embeddings is true, but the file has a lm_head.weight "
            "with other values"
        )
    return head.weight("weight")


def sequence_classification(b: Body) -> None:
    """The last token's; padding behind it was cut off (``Architecture.causal``)."""
    labelled(b, nn.linear(nn.pool(b.x, "lasttoken"), b.root["score"], bias=False))


def token_classification(b: Body) -> None:
    labelled(b, nn.linear(b.x, b.root["score"]))


def labelled(b: Body, logits: Value) -> None:
    count = num_labels(b.config)
    require(logits.cols == count, f"id2label has {count} labels, but score {logits.cols}")
    b.g.output("logits", logits)


def question_answering(b: Body) -> None:
    logits = nn.linear(b.x, b.root["qa_outputs"])
    require(logits.cols == 2, f"qa_outputs must have 2 outputs, start and end, not {logits.cols}")
    b.g.output("start_logits", nn.columns(logits, 0, 1))
    b.g.output("end_logits", nn.columns(logits, 1, 2))


HEADS = {
    "LlamaForCausalLM": ("generate", causal_lm),
    "LlamaModel": ("embed", base),
    "LlamaForSequenceClassification": ("classify", sequence_classification),
    "LlamaForTokenClassification": ("tag", token_classification),
    "LlamaForQuestionAnswering": ("ask", question_answering),
    "GraniteForCausalLM": ("generate", causal_lm),
    "GraniteModel": ("embed", base),
}


def build(g: Graph, architecture: str, config: dict[str, Any]) -> Value:
    """Add the model and the outputs of its head to ``g``; returns the last hidden state."""
    c = read_config(architecture, config)
    root = g.scope()
    prefixes = [p for p in ("model", "transformer") if root[p]["embed_tokens"].has("weight")]
    w = root[prefixes[0]] if prefixes else root
    turns = rope.read(config, c.head_size, c.max_position_embeddings)
    task, head = HEADS[architecture]
    words, table = w["embed_tokens"], None
    if task == "generate":
        table = output_table(g, c, root["lm_head"], words)
    # Kept from being quantised, a head has a copy of its own.
    tied = table is not None and table.id == words.weight("weight").id and not g.keeps(table.name)
    x = decoder(g, w, c, turns, cached=task == "generate", tied=tied)
    head(Body(g, x, root, w, c, config, table))
    return x


def max_length(_config: dict[str, Any]) -> None:
    """Rotary positions go on for ever."""


def usual_length(config: dict[str, Any]) -> int:
    """Tokens that the model was made for."""
    c = read(Config, config)
    found = rope.parameters(config)
    factor = found.get("factor", 1) if found["rope_type"] == "dynamic" else 1
    require(
        isinstance(factor, int | float) and 0 < factor < math.inf,
        f"rope_parameters: dynamic needs factor above 0, but it is {factor!r}",
    )
    return int(c.max_position_embeddings * factor)
