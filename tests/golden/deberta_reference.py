# SPDX-License-Identifier: Apache-2.0
"""What transformers lacks of DeBERTa, written plainly from the original: needs torch.

The enhanced mask decoder and replaced-token detection, as Microsoft's DeBERTa repository computes
them (apps/models/masked_language_model.py and replaced_token_detection_model.py there), one
sequence at a time. `states` repeats what transformers does have; the parity suite compares it with
transformers, so that what is built on it can be trusted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional
from transformers.activations import ACT2FN

if TYPE_CHECKING:
    from transformers import DebertaV2Config, PreTrainedModel

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Reference:
    """A checkpoint's tensors, by their names in files, and its configuration."""

    tensors: Tensors
    config: DebertaV2Config

    def linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        bias = self.tensors.get(f"{name}.bias")
        return functional.linear(x, self.tensors[f"{name}.weight"], bias)

    def norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        weight, bias = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
        return functional.layer_norm(x, weight.shape, weight, bias, self.config.layer_norm_eps)

    def act(self, x: torch.Tensor) -> torch.Tensor:
        return ACT2FN[self.config.hidden_act](x)

    def rows(self, length: int) -> torch.Tensor:
        """Row of the position table for each query (down) and key (across)."""
        c = self.config
        distance = np.arange(length)[:, None] - np.arange(length)[None, :]
        most = c.max_relative_positions
        most = most if most > 0 else c.max_position_embeddings
        span = buckets = getattr(c, "position_buckets", -1)
        if buckets > 0:
            half, far = buckets // 2, np.abs(distance)
            steps = np.log(np.maximum(far, 1).astype(np.float32) / np.float32(half))
            steps = np.ceil(steps / np.log(np.float32((most - 1) / half)) * np.float32(half - 1))
            distance = np.where(far <= half, distance, np.sign(distance) * (half + steps))
        else:
            span = most
        return torch.from_numpy((distance.astype(np.int64) + span).clip(0, 2 * span - 1))

    def layer(self, index: int, over: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
        """One layer: `query` asks, keys and values are made of `over`; both [length, hidden]."""
        c, name = self.config, f"deberta.encoder.layer.{index}"
        part, size = f"{name}.attention.self", c.hidden_size // c.num_attention_heads

        def split(x: torch.Tensor) -> torch.Tensor:
            return x.unflatten(-1, (-1, size)).transpose(0, 1)

        q, k, v = (
            split(self.linear(x, f"{part}.{n}_proj"))
            for x, n in ((query, "query"), (over, "key"), (over, "value"))
        )
        table = self.tensors["deberta.encoder.rel_embeddings.weight"]
        if "layer_norm" in getattr(c, "norm_rel_ebd", "none"):
            table = self.norm(table, "deberta.encoder.LayerNorm")
        at, own = self.rows(len(over)), "" if getattr(c, "share_att_key", False) else "pos_"
        scores = q @ k.transpose(1, 2)
        if "c2p" in c.pos_att_type:
            places = split(self.linear(table, f"{part}.{own}key_proj"))
            scores = scores + torch.einsum("hid,hijd->hij", q, places[:, at])
        if "p2c" in c.pos_att_type:
            places = split(self.linear(table, f"{part}.{own}query_proj"))
            scores = scores + torch.einsum("hjd,hijd->hij", k, places[:, at])
        scores = scores / (size * (1 + len(c.pos_att_type))) ** 0.5
        mixed = (scores.softmax(-1) @ v).transpose(0, 1).flatten(1)
        x = self.linear(mixed, f"{name}.attention.output.dense") + query
        x = self.norm(x, f"{name}.attention.output.LayerNorm")
        h = self.linear(
            self.act(self.linear(x, f"{name}.intermediate.dense")), f"{name}.output.dense"
        )
        return self.norm(h + x, f"{name}.output.LayerNorm")

    def states(self, ids: torch.Tensor) -> list[torch.Tensor]:
        """The embeddings and the state after each layer, without positions in the input."""
        x = self.tensors["deberta.embeddings.word_embeddings.weight"][ids]
        found = [self.norm(x, "deberta.embeddings.LayerNorm")]
        for index in range(self.config.num_hidden_layers):
            x = self.layer(index, found[-1], found[-1])
            if index == 0 and (size := getattr(self.config, "conv_kernel_size", 0)):
                name = "deberta.encoder.conv"
                h = functional.conv1d(
                    found[0].T[None],
                    self.tensors[f"{name}.conv.weight"],
                    self.tensors[f"{name}.conv.bias"],
                    padding=size // 2,
                )[0].T
                act = ACT2FN[getattr(self.config, "conv_act", "tanh")]
                x = self.norm(x + act(h), f"{name}.LayerNorm")
            found.append(x)
        return found

    def fill(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits [length, vocabulary] by way of the enhanced mask decoder."""
        before = self.states(ids)[-2]
        x = before + self.tensors["deberta.embeddings.position_embeddings.weight"][: len(ids)]
        for _ in range(2):
            x = self.layer(self.config.num_hidden_layers - 1, before, x)
        head = "lm_predictions.lm_head"
        x = self.norm(self.act(self.linear(x, f"{head}.dense")), f"{head}.LayerNorm")
        words = self.tensors["deberta.embeddings.word_embeddings.weight"]
        return x @ words.T + self.tensors[f"{head}.bias"]

    def detect(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits [length]: whether each token was put in place of another."""
        x = self.states(ids)[-1]
        x = self.norm(x[:1] + x, "mask_predictions.LayerNorm")
        x = self.act(self.linear(x, "mask_predictions.dense"))
        return self.linear(x, "mask_predictions.classifier")[:, 0]


def padded(run: object, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Run a method of `Reference` on each row; zeros where the mask is zero."""
    rows = []
    with torch.inference_mode():
        for row, kept in zip(ids, mask.astype(bool), strict=True):
            got = run(torch.from_numpy(row[kept])).numpy()  # type: ignore[operator]
            whole = np.zeros((len(row), *got.shape[1:]), np.float32)
            whole[kept] = got
            rows.append(whole)
    return np.stack(rows)


def extend(model: PreTrainedModel, task: str) -> Tensors:
    """The tensors of a DebertaV2ForMaskedLM with those that the original has besides."""
    generator = torch.Generator().manual_seed(5)
    tensors = {name: value.clone() for name, value in model.state_dict().items()}
    width = model.config.hidden_size

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    if task == "fill":
        rows = model.config.max_position_embeddings
        tensors["deberta.embeddings.position_embeddings.weight"] = 0.7 * draw(rows, width)
        return tensors
    head = "mask_predictions"
    return tensors | {
        f"{head}.dense.weight": draw(width, width) / width**0.5,
        f"{head}.dense.bias": 0.3 * draw(width),
        f"{head}.LayerNorm.weight": 1 + 0.3 * draw(width),
        f"{head}.LayerNorm.bias": 0.3 * draw(width),
        f"{head}.classifier.weight": draw(1, width) / width**0.5,
        f"{head}.classifier.bias": draw(1),
    }
