# SPDX-License-Identifier: Apache-2.0
"""What the families' heads have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trine import nn
from trine.models.config import num_labels, require

if TYPE_CHECKING:
    from trine.nn import Graph, Scope, Value


@dataclass(frozen=True)
class Body:
    """What a head stands on: the graph, the last hidden state, the checkpoint and its encoder."""

    g: Graph
    x: Value
    root: Scope
    w: Scope
    config: dict[str, Any]

    def module(self, name: str) -> Scope:
        """A head's module; some files put the encoder's prefix before it."""
        inside = self.w[name]
        return inside if inside.has("weight") or inside["dense"].has("weight") else self.root[name]

    def labelled(self, logits: Value) -> None:
        """Output the logits of a classifier that has as many labels as the configuration says."""
        count = num_labels(self.config)
        require(
            logits.cols == count, f"id2label has {count} labels, but the classifier {logits.cols}"
        )
        self.g.output("logits", logits)


def encoder_scope(root: Scope, prefix: str) -> Scope:
    """The encoder's weights: under ``prefix``, or at the top of a file of an encoder alone."""
    inside = root[prefix]
    return inside if inside["embeddings"]["word_embeddings"].has("weight") else root


def token_classification(b: Body) -> None:
    """Labels for each token."""
    b.labelled(nn.linear(b.x, b.module("classifier")))


def question_answering(b: Body) -> None:
    """How likely an answer starts and ends at each token."""
    logits = nn.linear(b.x, b.module("qa_outputs"))
    require(logits.cols == 2, f"qa_outputs must have 2 outputs, start and end, not {logits.cols}")
    b.g.output("start_logits", nn.columns(logits, 0, 1))
    b.g.output("end_logits", nn.columns(logits, 1, 2))
