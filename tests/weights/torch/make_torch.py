# SPDX-License-Identifier: Apache-2.0
"""Files of torch.save, made by torch itself, and what is in them: expected.json.

``python make_torch.py`` needs torch and writes beside itself; the tests need neither. The old
format names storages by their addresses, so those files differ from one run to the next.
"""

from __future__ import annotations

import json
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import nn

HERE = Path(__file__).resolve().parent

NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.uint16: "U16",
    torch.bool: "BOOL",
    torch.complex64: "C64",
    torch.float8_e4m3fn: "F8_E4M3",
}


def listing(tensors: dict[str, torch.Tensor]) -> dict[str, list[Any]]:
    """Dtype, shape and bytes of each."""
    result = {}
    for name, tensor in tensors.items():
        dense = tensor.detach().clone(memory_format=torch.contiguous_format).reshape(-1)
        content = dense.view(torch.uint8).numpy().tobytes() if dense.numel() else b""
        result[name] = [NAMES[tensor.dtype], list(tensor.shape), content.hex()]
    return result


def small_module() -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(
        OrderedDict(
            embed=nn.Embedding(5, 3),
            norm=nn.LayerNorm(3),
            dense=nn.Linear(3, 2),
            bn=nn.BatchNorm1d(2),
        )
    )


def dtypes() -> dict[str, torch.Tensor]:
    values = torch.tensor([[0.0, -1.5], [3.25, 1e-3]])
    return {f"x.{name}": values.to(dtype) for dtype, name in NAMES.items()}


def views() -> dict[str, torch.Tensor]:
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    long = torch.arange(6)
    return {
        "base": base,
        "tied": base,
        "row": base[2],
        "rows": base[1:3],
        "columns": base[:, 1:4],
        "transposed": base.t(),
        "steps": base[::2, ::3],
        "permuted": base.reshape(2, 2, 6).permute(2, 0, 1),
        "ones": base[1:2, 3:4],
        "position_ids": long.expand(1, -1),
        "repeated": long[:2].expand(3, 2),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 7),
        "half": base.half().t(),
    }


def with_attributes() -> dict[str, torch.Tensor]:
    module = small_module()
    tensors = dict(module.named_parameters())
    tensors["norm.weight"].note = "kept as _rebuild_parameter_with_state"
    tensor = torch.arange(3.0)
    tensor.note = "kept as _rebuild_from_type_v2"
    return {**tensors, "tensor": tensor, "frozen": nn.Parameter(torch.ones(2), requires_grad=False)}


def training_state() -> dict[str, Any]:
    module = small_module()
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.tensor([1, 2])).sum().backward()
    optimizer.step()
    return {
        "epoch": 3,
        "name": "é",
        "loss": 0.25,
        "best": None,
        "big": 2**80,
        "shape": torch.Size([2, 3]),
        "dtype": torch.bfloat16,
        "device": torch.device("cpu"),
        "state_dict": module.state_dict(),
        "optimizer": optimizer.state_dict(),
    }


def main() -> None:
    state = small_module().state_dict()
    mixed = {**state, "step": 5, "note": "text", "nothing": None, "list": [1, (2.5, True)]}
    training = training_state()
    wrapped = {f"_orig_mod.module.{name}": tensor for name, tensor in state.items()}
    old = {"_use_new_zipfile_serialization": False}
    files: list[tuple[str, Any, dict[str, Any], dict[str, torch.Tensor]]] = [
        ("zip.bin", state, {}, state),
        ("legacy.bin", state, old, state),
        *((f"zip-{p}.pt", mixed, {"pickle_protocol": p}, state) for p in (3, 4, 5)),
        *((f"legacy-{p}.pt", mixed, {"pickle_protocol": p, **old}, state) for p in (3, 4, 5)),
        ("dtypes.pth", dtypes(), {}, dtypes()),
        ("dtypes-legacy.pth", dtypes(), old, dtypes()),
        ("views.pth", views(), {}, views()),
        ("views-legacy.pth", views(), old, views()),
        ("attributes.pth", with_attributes(), {}, with_attributes()),
        ("training.pt", training, {}, training["state_dict"]),
        ("training-legacy.pt", training, old, training["state_dict"]),
        ("wrapped.pt", {"model": wrapped}, {}, state),
    ]
    expected: dict[str, Any] = {"torch": torch.__version__, "python": sys.version.split()[0]}
    expected["files"] = {}
    for name, saved, options, tensors in files:
        torch.save(saved, HERE / name, **options)
        expected["files"][name] = listing(tensors)
    shards = {"embed.weight": 1, "norm.weight": 1, "norm.bias": 1}
    weight_map = {n: f"pytorch_model-0000{shards.get(n, 2)}-of-00002.bin" for n in state}
    for shard in set(weight_map.values()):
        torch.save({n: state[n] for n, where in weight_map.items() if where == shard}, HERE / shard)
    index = "pytorch_model.bin.index.json"
    (HERE / index).write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map}, indent=1) + "\n"
    )
    expected["files"][index] = listing(state)
    torch.save(small_module(), HERE / "module.pt")  # a whole module, to be refused
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), HERE / "script.pt")  # the same
    (HERE / "expected.json").write_text(json.dumps(expected, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
