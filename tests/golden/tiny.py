# SPDX-License-Identifier: Apache-2.0
"""Random tiny models for goldens and live parity: needs torch and transformers.

A fresh transformers model has zero biases, unit norms and attention that is nearly uniform: a wrong
implementation agrees with it. Here every parameter is drawn so that it shows in the outputs.
"""

from __future__ import annotations

import inspect
import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece
from transformers import DebertaV2Config, MPNetConfig, PreTrainedConfig, PreTrainedModel

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PAD = 1  # MPNet counts positions by this id, whatever the config's pad_token_id says
OUTPUTS = ("last_hidden_state", "pooler_output", "logits", "start_logits", "end_logits")
SHARP = re.compile(r"\.attn\.[qk]\.|\b(query|key)_proj\.")  # make the attention scores
PER_TOKEN = ("last_hidden_state", "start_logits", "end_logits")


def mpnet_config(**changes: Any) -> MPNetConfig:
    """Return a tiny configuration; `changes` override it."""
    fields: dict[str, Any] = {
        "vocab_size": 80,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 28,
        "max_position_embeddings": 42,
        "layer_norm_eps": 1e-5,
    }
    return MPNetConfig(**(fields | changes))


def deberta_config(**changes: Any) -> DebertaV2Config:
    """Return a tiny configuration of the kind that DeBERTa v3 has; `changes` override it."""
    fields: dict[str, Any] = {
        "vocab_size": 80,
        "hidden_size": 36,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 28,
        "max_position_embeddings": 48,
        "relative_attention": True,
        "position_buckets": 12,
        "pos_att_type": ["p2c", "c2p"],
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
    }
    return DebertaV2Config(**(fields | changes))


def make_config(head: str, **changes: Any) -> PreTrainedConfig:
    """Return a tiny configuration for the class `head`."""
    return (mpnet_config if head.startswith("MPNet") else deberta_config)(**changes)


def randomise(model: PreTrainedModel, seed: int) -> None:
    """Draw every parameter again, so that each one matters."""
    generator = torch.Generator().manual_seed(seed)

    def draw(parameter: torch.Tensor) -> torch.Tensor:
        return torch.randn(parameter.shape, generator=generator)

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "relative_attention_bias" in name:
                parameter.copy_(1.5 * draw(parameter))
            elif "norm" in name.lower() and name.endswith("weight"):
                parameter.copy_(1 + 0.3 * draw(parameter))
            elif parameter.ndim == 1:
                parameter.copy_(0.3 * draw(parameter))
            elif "embeddings" in name:
                parameter.copy_(0.7 * draw(parameter))
            else:  # keeps activations of order one, and attention scores of order two
                gain = 1.5 if SHARP.search(name) else 1.0
                parameter.copy_(gain / parameter[0].numel() ** 0.5 * draw(parameter))


def make_model(head: str, config: PreTrainedConfig, seed: int) -> PreTrainedModel:
    """Return a random model of class `head`, a name in transformers, with eager attention."""
    config._attn_implementation = "eager"
    model = getattr(transformers, head)(config).eval()
    randomise(model, seed)
    return model


def make_inputs(
    lengths: Sequence[int],
    config: PreTrainedConfig,
    seed: int,
    *,
    literal_pad: bool = True,
    left: Sequence[int] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """Return random ids of the given lengths, padded, and their mask.

    One literal <pad> id is put inside the longest text: MPNet gives it the padding position and
    counts on without it. Rows named in `left` are padded on the left.
    """
    rng = np.random.RandomState(seed)
    filler = PAD if config.pad_token_id is None else config.pad_token_id
    ids = np.full((len(lengths), max(lengths)), filler, np.int64)
    mask = np.zeros_like(ids)
    for row, length in enumerate(lengths):
        text = rng.randint(2, config.vocab_size, length)
        text[0] = 0
        if literal_pad and length == max(lengths) and length > 2:
            text[length // 3] = PAD
        where = slice(ids.shape[1] - length, None) if row in left else slice(length)
        ids[row, where] = text
        mask[row, where] = 1
    return ids, mask


def reference(
    model: PreTrainedModel,
    ids: np.ndarray,
    mask: np.ndarray | None,
    types: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Return what transformers gives in float32, with zeros where the mask is zero."""
    arguments = {"input_ids": torch.from_numpy(ids)}
    if mask is not None:
        arguments["attention_mask"] = torch.from_numpy(mask)
    if types is not None:
        arguments["token_type_ids"] = torch.from_numpy(types)
    with torch.inference_mode():
        result = model(**arguments)
    outputs = {n: result[n].float().numpy().copy() for n in OUTPUTS if result.get(n) is not None}
    for name, value in outputs.items():
        per_token = name in PER_TOKEN or (name == "logits" and value.ndim == 3)
        if per_token and mask is not None:
            value[mask == 0] = 0
    return outputs


def make_tokenizer(texts: Sequence[str], vocab_size: int) -> Tokenizer:
    """Return a WordPiece tokenizer with MPNet's special tokens and pair template.

    The vocabulary is counted, not trained: the trainer's result differs from run to run. It carries
    a truncation and a padding setting, as the published all-mpnet-base-v2 does: a reader that
    applies those instead of the model's own limits is caught.
    """
    words = Counter(word for text in texts for word in re.findall(r"\w+", text.lower()))
    endings = Counter({f"##{w[-n:]}": 0 for w in words for n in (2, 3) if len(w) > n})
    for word, count in words.items():
        for n in (2, 3):
            if len(word) > n:
                endings[f"##{word[-n:]}"] += count
    letters = sorted({c for text in texts for c in text.lower() if not c.isspace()} | set("!?:;'-"))

    def most_common(counts: Counter[str]) -> list[str]:
        return sorted(counts, key=lambda piece: (-counts[piece], piece))

    special = ["<s>", "<pad>", "</s>", "<unk>", "[UNK]"]
    pieces = [*special, *letters, *(f"##{c}" for c in letters if c.isalnum())]
    pieces += most_common(endings)[:40]
    pieces += [w for w in most_common(words) if w not in letters][: vocab_size - len(pieces) - 1]
    vocab = {piece: index for index, piece in enumerate([*pieces, "<mask>"])}
    tokenizer = Tokenizer(WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens([AddedToken(p, normalized=False, special=True) for p in special])
    mask = AddedToken("<mask>", lstrip=True, normalized=False, special=True)
    tokenizer.add_special_tokens([mask])
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False
    )
    tokenizer.enable_truncation(16)
    tokenizer.enable_padding(pad_id=PAD, pad_token="<pad>", length=16)
    return tokenizer


TOKENIZER_CONFIG: dict[str, Any] = {
    "tokenizer_class": "MPNetTokenizer",
    "model_max_length": 40,
    "do_lower_case": True,
    "bos_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "cls_token": "<s>",
    "unk_token": "[UNK]",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}


def write_tokenizer_config(folder: Path, **changes: Any) -> None:
    """Write tokenizer_config.json for `make_tokenizer`'s tokenizer.json."""
    write_json(folder / "tokenizer_config.json", TOKENIZER_CONFIG | changes)


def write_json(path: Path, content: object) -> None:
    """Write a file as transformers' own are written."""
    path.write_text(json.dumps(content, indent=2) + "\n")


def save(model: PreTrainedModel, folder: Path, **options: Any) -> Path:
    """Call `save_pretrained` without its progress bar and files that tests don't need."""
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(folder, **options)
    (folder / "generation_config.json").unlink(missing_ok=True)
    return folder


def heads(family: str = "MPNet") -> list[str]:
    """List every head of a family that transformers has, so that a new one is noticed."""
    if family == "MPNet":
        from transformers.models.mpnet import modeling_mpnet as modeling
    else:
        from transformers.models.deberta_v2 import modeling_deberta_v2 as modeling
    classes = {n for n, value in vars(modeling).items() if inspect.isclass(value)}
    return [f"{family}Model", *sorted(n for n in classes if n.startswith(f"{family}For"))]
