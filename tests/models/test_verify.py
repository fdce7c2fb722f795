# SPDX-License-Identifier: Apache-2.0
"""`trine verify` without a reference: every task against the plain loops of the device "ref"."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from compare import HERE
from safetensors.numpy import load_file, save_file

import trine
from trine.cli import main
from trine.verify import verify_plainly

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = sorted(path.parent for path in (HERE / "examples").glob("*/config.json"))


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_every_task_is_near_plain_loops(folder: Path) -> None:
    with trine.load(folder, device="ref", dtype="float32") as plain:
        for dtype in ("float32", "bfloat16", "int8", "int4"):
            with trine.load(folder, device="cpu", dtype=dtype) as model:
                found = verify_plainly(model, plain)
                assert [c.output for c in found] == list(model.info()["outputs"])
                assert all(c.ok for c in found), [str(c) for c in found]
                assert all(c.max_reference > 0 for c in found)
                exact = [c.max_difference == 0 for c in found]
                assert not all(exact) or dtype == "float32", "this dtype was not computed in"


def test_another_weight_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, other = HERE / "examples" / "tag", tmp_path / "other"
    assert main(["verify", str(folder), "--dtype", "float32"]) == 0
    assert ": ok" in capsys.readouterr().out
    shutil.copytree(folder, other)
    tensors = load_file(other / "model.safetensors")
    tensors["classifier.weight"] = np.roll(tensors["classifier.weight"], 1, axis=0)
    save_file(tensors, other / "model.safetensors", {"format": "pt"})
    with trine.load(folder, dtype="int8") as model, trine.load(other, device="ref") as plain:
        assert not any(c.ok for c in verify_plainly(model, plain))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "int4"])
def test_compiled_files(tmp_path: Path, capsys: pytest.CaptureFixture[str], dtype: Any) -> None:
    with trine.load(HERE / "examples" / "tag", dtype=dtype) as model:
        model.save(tmp_path / "m.trine")
    assert main(["verify", str(tmp_path / "m.trine")]) == 0
    assert ": ok" in capsys.readouterr().out
