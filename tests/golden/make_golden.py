# SPDX-License-Identifier: Apache-2.0
"""Make the golden files of this folder from transformers and sentence-transformers.

    python make_golden.py [--mpnet FOLDER] [PART ...]

PART is heads, deberta, sentence or mpnet; all of them by default. `--mpnet` names a folder with the
real all-mpnet-base-v2, which the part `mpnet` needs. See README.md.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import deberta_reference
import numpy as np
import stacks
import tiny
import torch
import transformers
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Case:
    """One tiny checkpoint with its inputs: what tests/models/test_*_golden.py compare with."""

    head: str
    config: dict[str, Any] = field(default_factory=dict)
    lengths: tuple[int, ...] = (1, 2, 13, 31)
    left: tuple[
        int, ...
    ] = ()  # rows padded on the left; heads of the first token would read a padding token
    choices: int = 0  # multiple choice: rows are grouped by this many
    dtype: torch.dtype = torch.float32  # of the stored weights; the reference runs in float32
    save: str = "safetensors"  # or "sharded"
    original: str = ""  # a file as the original writes it: what deberta_reference.py computes


def labels(*names: str) -> dict[str, Any]:
    """Return the config fields that name a classifier's labels."""
    return {"id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}}


# Head sizes 8, 12, 20, 11, 16, 9: most are no multiple of a vector's width. Long inputs reach the
# logarithmic buckets of the relative bias and, beyond distance 128, its last one.
CASES: dict[str, Case] = {
    "model": Case(
        "MPNetModel",
        {"max_position_embeddings": 160, "layer_norm_eps": 1e-12},
        lengths=(1, 150, 2, 19),
        dtype=torch.float16,
    ),
    "masked-lm": Case(
        "MPNetForMaskedLM",
        {"hidden_size": 36, "num_attention_heads": 3, "hidden_act": "gelu_new", "vocab_size": 71},
        lengths=(5, 1, 12),
        dtype=torch.float16,
    ),
    "classify": Case(
        "MPNetForSequenceClassification",
        {"hidden_size": 40, "num_attention_heads": 2, "hidden_act": "relu", "layer_norm_eps": 1e-3}
        | labels("entailment", "neutral", "contradiction")
        | {"problem_type": "single_label_classification"},
        dtype=torch.bfloat16,
    ),
    "classify-multi": Case(
        "MPNetForSequenceClassification",
        {"hidden_act": "gelu_pytorch_tanh", "intermediate_size": 37, "num_hidden_layers": 3}
        | labels("toxic", "spam", "praise", "question", "other")
        | {"problem_type": "multi_label_classification"},
        dtype=torch.bfloat16,
        save="sharded",
    ),
    "classify-regression": Case(
        "MPNetForSequenceClassification",
        {"hidden_size": 36, "num_attention_heads": 4, "hidden_act": "silu", "pad_token_id": 0}
        | labels("similarity")
        | {"problem_type": "regression"},
        dtype=torch.float16,
    ),
    "tag": Case(
        "MPNetForTokenClassification",
        {"hidden_size": 33, "num_attention_heads": 3, "hidden_act": "quick_gelu"}
        | labels("O", "B-PER", "I-PER", "B-LOC", "I-LOC"),
        left=(2,),
        dtype=torch.bfloat16,
    ),
    "question": Case(
        "MPNetForQuestionAnswering",
        {"num_attention_heads": 2, "hidden_act": "tanh", "max_position_embeddings": 100},
        lengths=(90, 3, 1, 33),
        dtype=torch.float16,
        save="sharded",
    ),
    "choose": Case(
        "MPNetForMultipleChoice",
        {"relative_attention_num_buckets": 64, "pad_token_id": 3, "hidden_act": "gelu"},
        lengths=(9, 1, 4, 22, 30, 7),
        choices=3,
        dtype=torch.bfloat16,
    ),
}

V2 = {"conv_kernel_size": 3, "conv_act": "gelu"}  # v2-xlarge and v2-xxlarge
V1 = {"share_att_key": False, "norm_rel_ebd": "none", "position_buckets": -1}  # older fine-tunes
FILL = {"max_position_embeddings": 64, "legacy": False, "vocab_size": 61}

DEBERTA: dict[str, Case] = {
    "model": Case(
        "DebertaV2Model",
        {"position_buckets": 32, "pos_att_type": "p2c|c2p"},
        lengths=(1, 600, 2, 19),
        left=(3,),
        dtype=torch.float16,
    ),
    "model-v2": Case("DebertaV2Model", V2, lengths=(130, 1, 2, 17), dtype=torch.bfloat16),
    "model-grouped": Case(
        "DebertaV2Model", {"conv_kernel_size": 5, "conv_groups": 6}, dtype=torch.float16
    ),
    "model-c2p": Case(
        "DebertaV2Model",
        {**V1, "pos_att_type": ["c2p"], "max_relative_positions": 20},
        dtype=torch.bfloat16,
    ),
    "model-p2c": Case("DebertaV2Model", {**V1, "pos_att_type": "p2c"}, dtype=torch.float16),
    "model-absolute": Case(
        "DebertaV2Model",
        {"position_biased_input": True, "type_vocab_size": 2, "embedding_size": 20}
        | {"relative_attention": False, "pos_att_type": None},
        dtype=torch.bfloat16,
    ),
    "masked-lm": Case("DebertaV2ForMaskedLM", {"embedding_size": 24}, dtype=torch.float16),
    "masked-lm-new": Case("DebertaV2ForMaskedLM", FILL, dtype=torch.bfloat16),
    "masked-lm-original": Case(
        "DebertaV2ForMaskedLM", FILL | V2, (1, 64, 13), dtype=torch.float16, original="fill"
    ),
    "detect-original": Case(
        "DebertaV2ForMaskedLM", FILL, (1, 90, 13), dtype=torch.float16, original="detect"
    ),
    "classify": Case(
        "DebertaV2ForSequenceClassification",
        labels("entailment", "neutral", "contradiction"),
        dtype=torch.float16,
    ),
    "classify-multi": Case(
        "DebertaV2ForSequenceClassification",
        {"pooler_hidden_act": "tanh", "hidden_act": "gelu_new"}
        | labels("toxic", "spam", "praise")
        | {"problem_type": "multi_label_classification"},
        dtype=torch.bfloat16,
        save="sharded",
    ),
    "rank": Case("DebertaV2ForSequenceClassification", labels("relevant") | {"type_vocab_size": 2}),
    "tag": Case(
        "DebertaV2ForTokenClassification",
        labels("O", "B-PER", "I-PER", "B-LOC", "I-LOC"),
        left=(2,),
        dtype=torch.float16,
    ),
    "question": Case("DebertaV2ForQuestionAnswering", lengths=(90, 3, 1, 33), dtype=torch.bfloat16),
    "choose": Case(
        "DebertaV2ForMultipleChoice",
        lengths=(9, 1, 4, 22, 30, 7),
        choices=3,
        dtype=torch.float16,
    ),
}


def save_checkpoint(case: Case, model: transformers.PreTrainedModel, folder: Path) -> None:
    """Write the folder as transformers does."""
    model = model.to(case.dtype)
    # Shards of 20 kB: a few files; the library's own size limit is meant for large models.
    limit = {"max_shard_size": 20_000} if case.save == "sharded" else {}
    tiny.save(model, folder, **limit)


def make_heads() -> None:
    """Make tiny random checkpoints of every head of MPNet, with transformers' outputs."""
    make_cases("heads", CASES)


def make_deberta() -> None:
    """Make those of DeBERTa, with the outputs of the original where transformers has none."""
    make_cases("deberta", DEBERTA)


def make_cases(family: str, cases: dict[str, Case]) -> None:
    """Write each case's folder with its inputs and outputs."""
    shutil.rmtree(HERE / family, ignore_errors=True)
    for seed, (name, case) in enumerate(cases.items()):
        folder = HERE / family / name
        config = tiny.make_config(case.head, **case.config)
        save_checkpoint(case, tiny.make_model(case.head, config, seed), folder)
        # The reference is what transformers makes of the stored weights, not of those in memory.
        model = getattr(transformers, case.head).from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        )
        ids, mask = tiny.make_inputs(case.lengths, config, seed, left=case.left)
        if case.choices:
            ids, mask = (x.reshape(-1, case.choices, x.shape[-1]) for x in (ids, mask))
        arrays = {"input_ids": ids.astype(np.int16), "attention_mask": mask.astype(np.int8)}
        types = None
        if kinds := getattr(config, "type_vocab_size", 0):
            types = np.random.RandomState(seed).randint(0, kinds, ids.shape) * mask
            arrays["token_type_ids"] = types.astype(np.int8)
        if case.original:
            expected = original(case, model, folder, ids, mask)
        else:
            expected = tiny.reference(model.eval(), ids, mask, types)
        np.savez_compressed(folder / "expected.npz", **arrays, **expected)
        print(name, {k: v.shape for k, v in expected.items()})


def original(
    case: Case,
    model: transformers.PreTrainedModel,
    folder: Path,
    ids: np.ndarray,
    mask: np.ndarray,
) -> dict[str, np.ndarray]:
    """Make the folder one of the original's kind; returns the outputs of the reference."""
    tensors = deberta_reference.extend(model, case.original)
    save_file({name: x.to(case.dtype) for name, x in tensors.items()}, folder / "model.safetensors")
    fields = json.loads((folder / "config.json").read_text())
    tiny.write_json(
        folder / "config.json",
        {k: v for k, v in fields.items() if k not in ("legacy", "architectures")},
    )
    stored = {name: x.to(case.dtype).float() for name, x in tensors.items()}
    run = getattr(deberta_reference.Reference(stored, model.config), case.original)
    return {"logits": deberta_reference.padded(run, ids, mask)}


def make_sentence() -> None:
    """Make the tiny encoder, its tokenizer, and embeddings of every stack in stacks.py."""
    shutil.rmtree(stacks.BASE, ignore_errors=True)
    corpus = (HERE / "corpus256.txt").read_text().splitlines()
    tokenizer = tiny.make_tokenizer(corpus, vocab_size=300)
    config = tiny.mpnet_config(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=stacks.HIDDEN, num_attention_heads=2
    )
    tiny.save(tiny.make_model("MPNetModel", config, seed=100), stacks.BASE)
    tokenizer.save(str(stacks.BASE / "tokenizer.json"), pretty=False)
    tiny.write_tokenizer_config(stacks.BASE)
    expected = {}
    for name, stack in stacks.STACKS.items():
        with tempfile.TemporaryDirectory() as folder:
            stacks.write_stack(stack, Path(folder))
            model = SentenceTransformer(folder, device="cpu", local_files_only=True)
        expected[name] = model.encode(list(stacks.TEXTS), show_progress_bar=False, **stack.encode)
        print(name, expected[name].shape, expected[name].dtype)
    np.savez_compressed(HERE / "sentence.npz", **expected)


def make_mpnet(folder: Path) -> None:
    """Make embeddings of corpus256.txt by the real all-mpnet-base-v2."""
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    corpus = (HERE / "corpus256.txt").read_text().splitlines()
    vectors = model.encode(corpus, show_progress_bar=False)
    assert vectors.dtype == np.float32
    # Grouped by significance the bytes of float32 compress by 15 %, as they lie by 7 %.
    planes = vectors.view(np.uint8).reshape(*vectors.shape, 4).transpose(2, 0, 1)
    np.savez_compressed(HERE / "mpnet_corpus256.npz", byte_planes=np.ascontiguousarray(planes))
    print("mpnet", vectors.shape)


def main() -> None:
    """Run the parts named on the command line and note the versions they were made with."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mpnet", type=Path, help="folder of the real all-mpnet-base-v2")
    parser.add_argument("parts", nargs="*", metavar="PART")
    arguments = parser.parse_args()
    parts = arguments.parts or ["heads", "deberta", "sentence", "mpnet"]
    if "mpnet" in parts and arguments.mpnet is None:
        parser.error("the part 'mpnet' needs --mpnet FOLDER")
    torch.set_grad_enabled(False)
    if "heads" in parts:
        make_heads()
    if "deberta" in parts:
        make_deberta()
    if "sentence" in parts:
        make_sentence()
    if "mpnet" in parts:
        make_mpnet(arguments.mpnet)
    names = ("torch", "transformers", "sentence-transformers", "tokenizers", "numpy")
    versions = {name: importlib.metadata.version(name) for name in names}
    (HERE / "versions.json").write_text(json.dumps(versions, indent=2) + "\n")


if __name__ == "__main__":
    main()
