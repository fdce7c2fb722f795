# SPDX-License-Identifier: Apache-2.0
"""Random tiny decoders for goldens and live parity: needs torch and transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PretrainedConfig, PreTrainedModel

HEADS = (
    "LlamaModel",
    "LlamaForCausalLM",
    "LlamaForSequenceClassification",
    "LlamaForTokenClassification",
    "LlamaForQuestionAnswering",
    "GraniteModel",
    "GraniteForCausalLM",
)
OUTPUTS = ("last_hidden_state", "logits", "start_logits", "end_logits")
PAD = 3


def config(head: str, **changes: Any) -> PretrainedConfig:
    """Return a tiny configuration; `changes` override it."""
    fields: dict[str, Any] = {
        "vocab_size": 80,
        "hidden_size": 32,
        "intermediate_size": 44,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5,
        "pad_token_id": PAD,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    if head.startswith("Granite"):
        fields |= {
            "embedding_multiplier": 3.0,
            "attention_multiplier": 0.4,
            "residual_multiplier": 0.3,
            "logits_scaling": 1.7,
        }
    kind = transformers.GraniteConfig if head.startswith("Granite") else transformers.LlamaConfig
    return kind(**(fields | changes))


def randomise(model: PreTrainedModel, seed: int) -> None:
    """Draw every parameter again, so that each one shows in the outputs."""
    generator = torch.Generator().manual_seed(seed)

    def draw(parameter: torch.Tensor) -> torch.Tensor:
        return torch.randn(parameter.shape, generator=generator)

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name and name.endswith("weight"):
                parameter.copy_(1 + 0.3 * draw(parameter))
            elif parameter.ndim == 1:
                parameter.copy_(0.3 * draw(parameter))
            elif "embed_tokens" in name:
                parameter.copy_(draw(parameter))
            else:
                gain = 1.5 if ".q_proj." in name or ".k_proj." in name else 1.0
                parameter.copy_(gain / parameter.shape[1] ** 0.5 * draw(parameter))


def make_model(head: str, seed: int, **changes: Any) -> PreTrainedModel:
    """Return a random model of class `head`, with eager attention."""
    settings = config(head, **changes)
    settings._attn_implementation = "eager"
    model = getattr(transformers, head)(settings).eval()
    randomise(model, seed)
    return model


def make_inputs(
    lengths: Sequence[int], vocab_size: int, seed: int, *, left: Sequence[int] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Return random ids of the given lengths, padded, and their mask."""
    rng = np.random.RandomState(seed)
    ids = np.full((len(lengths), max(lengths)), PAD, np.int64)
    mask = np.zeros_like(ids)
    for row, length in enumerate(lengths):
        where = slice(ids.shape[1] - length, None) if row in left else slice(length)
        ids[row, where] = rng.randint(PAD + 1, vocab_size, length)
        mask[row, where] = 1
    return ids, mask


def reference(
    model: PreTrainedModel, ids: np.ndarray, mask: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Return what transformers gives in float32, with zeros where the mask is zero."""
    arguments = {"input_ids": torch.from_numpy(ids)}
    if mask is not None:
        arguments["attention_mask"] = torch.from_numpy(mask)
    with torch.inference_mode():
        result = model(**arguments, use_cache=False)
    outputs = {n: result[n].float().numpy().copy() for n in OUTPUTS if result.get(n) is not None}
    for value in outputs.values():
        if mask is not None and value.shape[:2] == mask.shape:
            value[mask == 0] = 0
    return outputs


def reference_rows(
    model: PreTrainedModel, ids: np.ndarray, mask: np.ndarray
) -> dict[str, np.ndarray]:
    """Like `reference`, a row at a time without padding.

    For rotary types that depend on the length: there transformers lets the longest row, padding
    included, choose for all of them, and remembers longer ones that it has seen.
    """
    parts = []
    for row, kept in zip(ids, mask.astype(bool), strict=True):
        fresh = type(model)(model.config).eval()
        fresh.load_state_dict(model.state_dict())
        parts.append(reference(fresh, row[None, kept], None))
    whole = {}
    for name in parts[0]:
        per_token = parts[-1][name].ndim > 1 and parts[0][name].shape[1] == int(mask[0].sum())
        if not per_token:
            whole[name] = np.concatenate([part[name] for part in parts])
            continue
        tail = parts[0][name].shape[2:]
        value = np.zeros((*mask.shape, *tail), np.float32)
        for row, part in enumerate(parts):
            value[row, mask[row] == 1] = part[name][0]
        whole[name] = value
    return whole
