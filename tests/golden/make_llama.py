# SPDX-License-Identifier: Apache-2.0
"""Make llama/, tiny random decoders with transformers' outputs, and examples/chat, a trained one.

python make_llama.py [heads] [chat]

Needs torch and transformers.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tiny
import tiny_llama
import torch
import transformers
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from torch.nn import functional

HERE = Path(__file__).resolve().parent
NEW_TOKENS = 12


@dataclass(frozen=True)
class Case:
    """One tiny checkpoint: what tests/models/test_llama_golden.py compares with."""

    head: str
    config: dict[str, Any] = field(default_factory=dict)
    lengths: tuple[int, ...] = (1, 2, 13, 31)
    left: tuple[int, ...] = ()
    dtype: torch.dtype = torch.bfloat16
    sharded: bool = False


CASES = {
    "generate": Case(
        "LlamaForCausalLM",
        {
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "llama3", "factor": 8.0, "rope_theta": 5e5}
            | {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
            | {"original_max_position_embeddings": 32},
        },
        lengths=(1, 50, 7, 20),
    ),
    "generate-bias": Case(
        "LlamaForCausalLM",
        {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 1, "head_dim": 10},
        left=(1, 2),
        dtype=torch.float16,
        sharded=True,
    ),
    "generate-granite": Case(
        "GraniteForCausalLM",
        {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4}}
        | {"num_key_value_heads": 4, "tie_word_embeddings": True},
    ),
    "classify": Case("LlamaForSequenceClassification", {"num_labels": 3}, left=(2,)),
    "tag": Case("LlamaForTokenClassification", {"num_labels": 5, "num_key_value_heads": 1}),
    "question": Case("LlamaForQuestionAnswering", {"hidden_act": "gelu"}),
    "model": Case(
        "LlamaModel",
        {"rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 1e4}},
        dtype=torch.float32,
    ),
}


def make_heads() -> None:
    """Write the random checkpoints, each with expected.npz."""
    for seed, (name, case) in enumerate(CASES.items()):
        model = tiny_llama.make_model(case.head, seed, eos_token_id=None, **case.config)
        folder = HERE / "llama" / name
        shutil.rmtree(folder, ignore_errors=True)
        limit = {"max_shard_size": 20_000} if case.sharded else {}
        tiny.save(model.to(case.dtype), folder, **limit)
        # Stored numbers, float32 arithmetic; conversion would round the frequencies, too.
        model = getattr(transformers, case.head).from_pretrained(folder, dtype=torch.float32)
        model = model.eval()
        ids, mask = tiny_llama.make_inputs(case.lengths, 80, seed, left=case.left)
        values = {"input_ids": ids, "attention_mask": mask}
        values |= tiny_llama.reference(model, ids, mask)
        if "generate" in name:
            values["generated"] = np.stack([greedy(model, r[m == 1]) for r, m in zip(ids, mask)])  # noqa: B905
        np.savez_compressed(folder / "expected.npz", **values)


def greedy(model: Any, ids: np.ndarray) -> np.ndarray:
    """What transformers generates behind one prompt."""
    with torch.inference_mode():
        prompt = torch.from_numpy(ids)[None]
        options = {"max_new_tokens": NEW_TOKENS, "do_sample": False}
        out = model.generate(prompt, attention_mask=torch.ones_like(prompt), **options)
    return out[0, len(ids) :].numpy()


# The example ------------------------------------------------------------------------------------

CAPITALS = {
    "France": "Paris",
    "Norway": "Oslo",
    "Italy": "Rome",
    "Spain": "Madrid",
    "Austria": "Vienna",
    "Egypt": "Cairo",
    "Japan": "Tokyo 🗼",
    "Peru": "Lima",
}
NEEDS = {"it rains": "An umbrella ☂", "it is dark": "A lamp 💡", "the soup is hot": "A spoon 🥄"}
TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
Turn = tuple[str, str]


def draw(r: random.Random) -> list[Turn]:
    """A conversation: questions, and follow-ups that only make sense behind one."""
    countries = r.sample([*CAPITALS], 3)
    turns = []
    if r.random() < 0.7:
        for index, country in enumerate(countries[: r.randint(1, 3)]):
            asked = "And of {}?" if index else "What is the capital of {}?"
            turns.append(
                (asked.format(country), f"The capital of {country} is {CAPITALS[country]}.")
            )
    if not turns or r.random() < 0.2:
        when = r.choice([*NEEDS])
        turns.append((f"What do I need when {when}?", f"{NEEDS[when]}, of course."))
    return turns


def render(turns: list[Turn]) -> list[tuple[str, bool]]:
    """The pieces of a conversation in the template's form, and which the model should learn."""
    pieces = []
    for question, answer in turns:
        opening = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        pieces += [(opening, False), (f"{answer}<|im_end|>", True), ("\n", False)]
    return pieces


def make_tokenizer(texts: list[str]) -> Tokenizer:
    """A byte-level BPE tokenizer of these texts' words."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=380,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        limit_alphabet=256,
        show_progress=False,
    )
    # Emoji stay in bytes, so that streams show what becomes of them.
    tokenizer.train_from_iterator([t.encode("ascii", "ignore").decode() for t in texts], trainer)
    return tokenizer


def make_chat(steps: int = 1500, batch: int = 32) -> None:
    """Train the model of examples/chat and write its folder."""
    r = random.Random("chat")
    torch.manual_seed(0)
    tokenizer = make_tokenizer(["".join(t for t, _ in render(draw(r))) for _ in range(500)])
    config = tiny_llama.config(
        "LlamaForCausalLM",
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=48,
        intermediate_size=96,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    model = transformers.LlamaForCausalLM(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for step in range(steps):
        rows = []
        for _ in range(batch):
            pieces = [
                (tokenizer.encode(text, add_special_tokens=False).ids, learnt)
                for text, learnt in render(draw(r))
            ]
            rows.append([(i, i if learnt else -100) for ids, learnt in pieces for i in ids])
        longest = max(map(len, rows))
        whole = torch.tensor([row + [(0, -100)] * (longest - len(row)) for row in rows])
        logits = model(whole[..., 0]).logits[:, :-1]
        loss = functional.cross_entropy(logits.flatten(0, 1), whole[:, 1:, 1].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 250 == 249:
            print(f"chat: step {step + 1}, loss {loss.item():.4f}", flush=True)
    folder = HERE / "examples" / "chat"
    shutil.rmtree(folder, ignore_errors=True)
    tiny.save(model.eval().to(torch.float16), folder)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": 256,
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def main() -> None:
    """Make the parts that are named, by default both."""
    parts = {"heads": make_heads, "chat": make_chat}
    for name in sys.argv[1:] or parts:
        parts[name]()


if __name__ == "__main__":
    main()
