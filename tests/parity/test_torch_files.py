# SPDX-License-Identifier: Apache-2.0
"""Random state dicts through torch.save and the core's reader, bit for bit; a model from both."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import trine
from trine._core import WeightStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int16: "I16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.uint32: "U32",
    torch.float8_e5m2: "F8_E5M2",
}


def random_tensor(rng: random.Random) -> torch.Tensor:
    """Any dtype and shape, dense or a view: an offset, steps, swapped or repeated dimensions."""
    shape = [rng.choice([1, 2, 3, 5, 8]) for _ in range(rng.randrange(5))]
    tensor = (torch.rand(shape) * 100).to(rng.choice(list(DTYPES)))
    for _ in range(rng.randrange(4) if shape else 0):
        dim = rng.randrange(tensor.dim())
        size = tensor.shape[dim]
        match rng.randrange(4):
            case 0:
                tensor = tensor.transpose(dim, rng.randrange(tensor.dim()))
            case 1:
                start = rng.randrange(size + 1)
                tensor = tensor.narrow(dim, start, rng.randrange(size - start + 1))
            case 2:
                tensor = tensor[(slice(None),) * dim + (slice(None, None, 2),)]
            case 3:
                tensor = tensor.unsqueeze(dim).expand(*tensor.shape[:dim], 2, *tensor.shape[dim:])
    return torch.nn.Parameter(tensor, requires_grad=False) if rng.random() < 0.2 else tensor


def random_state(rng: random.Random) -> dict[str, torch.Tensor]:
    state = {f"layer.{i}.wé": random_tensor(rng) for i in range(rng.randrange(1, 30))}
    for name in rng.sample(list(state), len(state) // 4):
        state[f"{name}.tied"] = state[name]
    return state


def content(tensor: torch.Tensor) -> bytes:
    dense = tensor.detach().clone(memory_format=torch.contiguous_format).reshape(-1)
    return dense.view(torch.uint8).numpy().tobytes() if dense.numel() else b""


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("seed", range(12))
def test_bits(seed: int, protocol: int, tmp_path: Path, *, zipped: bool) -> None:
    rng = random.Random(seed)
    torch.manual_seed(seed)
    state = random_state(rng)
    saved: dict[str, Any] = {"step": seed, **state}
    if seed % 3 == 0:
        saved = {"epoch": 1.5, rng.choice(["state_dict", "model", "module"]): saved}
    path = tmp_path / "weights.pth"
    torch.save(saved, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    store = WeightStore([(path, "")])
    assert store.names() == list(state)
    for name, tensor in state.items():
        assert store.dtype(name) == DTYPES[tensor.dtype]
        assert store.shape(name) == tuple(tensor.shape)
        assert store.read(name) == content(tensor)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_model_is_the_same(make: Callable[..., Any], dtype: str, *, zipped: bool) -> None:
    model, folder = make("MPNetModel", 3, tokenizer=True)
    texts = ["the river", "a stone under the water", ""]
    expected = trine.load(folder).encode(texts)
    (folder / "model.safetensors").unlink()
    state = {n: t.to(getattr(torch, dtype)) for n, t in model.state_dict().items()}
    state["embeddings.position_ids"] = torch.arange(130).expand(1, -1)
    torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    np.testing.assert_array_equal(trine.load(folder).encode(texts), expected)
    np.testing.assert_array_equal(trine.load(folder / "pytorch_model.bin").encode(texts), expected)
