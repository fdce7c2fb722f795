# SPDX-License-Identifier: Apache-2.0
"""A real Llama against transformers: 50 prompts x 64 tokens, greedy, alone and together.

Needs the folder of SmolLM2-135M-Instruct (safetensors): TRINE_TEST_SMOLLM2 names it. Takes minutes,
most of them in transformers.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from compare import corpus
from transformers import AutoModelForCausalLM, AutoTokenizer

import trine

FOLDER = os.environ.get("TRINE_TEST_SMOLLM2", "")
pytestmark = pytest.mark.skipif(not FOLDER, reason="TRINE_TEST_SMOLLM2 names no folder")

STARTS = [
    "Once upon a time",
    "def fibonacci(n):\n",
    "1, 1, 2, 3, 5, 8,",
    "Dear Sir or Madam,",
    "SELECT name FROM",
    "Zażółć gęślą jaźń",
    "日本の首都は",
    "🦙 llamas are",
    "Ingredients:\n- 2 eggs\n",
    "import torch\nimport torch.nn as nn\n\nclass Attention(nn.Module):\n",
]
QUESTIONS = [
    "What is the capital of France?",
    "Write a short poem about the sea.",
    "What is 7 times 8?",
    "Write a Python function that reverses a string.",
    "Why is the sky blue?",
]
NEW_TOKENS = 64


def test_tokens_and_texts() -> None:
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()
    texts = STARTS + [" ".join(line.split()[: 4 + i % 40]) for i, line in enumerate(corpus()[:35])]
    chats = [[{"role": "user", "content": question}] for question in QUESTIONS]
    rendered = [
        tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        for chat in chats
    ]
    ids = [tokenizer.encode(t) for t in texts]
    ids += [tokenizer.encode(t, add_special_tokens=False) for t in rendered]
    expected = []
    for prompt in ids:
        row = torch.tensor([prompt])
        with torch.inference_mode():
            out = model.generate(
                row,
                attention_mask=torch.ones_like(row),
                do_sample=False,
                max_new_tokens=NEW_TOKENS,
            )
        expected.append(out[0, len(prompt) :].tolist())
    with trine.load(Path(FOLDER), dtype="float32") as loaded:
        assert [loaded.chat_prompt(chat) for chat in chats] == rendered
        together = loaded.generate([*texts, *chats], max_new_tokens=NEW_TOKENS)
        assert [x.tokens for x in together] == expected
        decoded = [tokenizer.decode(tokens, skip_special_tokens=True) for tokens in expected]
        assert [x.text for x in together] == decoded
        for prompt, wanted in zip([*texts, *chats], together, strict=True):
            stream = loaded.stream(prompt, max_new_tokens=NEW_TOKENS)
            assert "".join(stream) == wanted.text
            assert stream.result == wanted
